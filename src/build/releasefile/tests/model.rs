//! What a sound Releasefile becomes.

use super::{Space, report};
use crate::build::graph::{CacheScope, Command, Target};
use crate::build::model::Reach;

fn target<'a>(loaded: &'a super::Loaded, name: &str) -> &'a Target {
    let graph = &loaded.project.graph;
    let ids = graph.find(name).expect("a target");
    graph.target(ids[0])
}

fn needs(loaded: &super::Loaded, name: &str) -> Vec<String> {
    let graph = &loaded.project.graph;
    let name_of = |id: &crate::build::graph::TargetId| graph.target(*id).name.clone();
    target(loaded, name).needs.iter().map(name_of).collect()
}

fn names(loaded: &super::Loaded) -> Vec<String> {
    let targets = loaded.project.graph.targets();
    targets.map(|(_, t)| t.name.clone()).collect()
}

fn runs(loaded: &super::Loaded, name: &str) -> Vec<String> {
    let command = |c: &Command| match c {
        Command::Shell { shell, script } => format!("{} <{}>", shell.join(" "), script.source()),
        Command::Argv(words) => words.iter().map(|w| format!("[{}]", w.source())).collect(),
    };
    target(loaded, name).run.iter().map(command).collect()
}

#[test]
fn the_example_of_the_design_loads() {
    let loaded = Space::new(include_str!("karl.kdl"))
        .file("src/karl/a.py", "")
        .file("tests/test_a.py", "")
        .file("pyproject.toml", "")
        .file("assets/a.png", "")
        .file("assets/b c.png", "")
        .loaded();
    assert_eq!(
        names(&loaded),
        [
            "tests-pass",
            "wheel",
            "thumbnail[assets/a.png]",
            "thumbnail[assets/b c.png]",
            "index-snapshot"
        ]
    );
    assert_eq!(
        runs(&loaded, "thumbnail[assets/b c.png]"),
        ["sh -eu -c <cwebp 'assets/b c.png' -o {out}>"]
    );
    assert_eq!(loaded.project.environments[0].uses.len(), 4);
    assert_eq!(format!("{:?}", loaded.watched), r#"["assets"]"#);
    assert_eq!(loaded.read.len(), 1);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn axes_make_one_target_for_each_combination() {
    let loaded = Space::new(
        r#"
var "branches" "b1" "b2"
target "test" {
    matrix { python "3.11" "3.12"; db "pg" "sqlite" }
    run "tox {python} {db}"
}
target "build" { each "branch" "{branches}" "main"; outputs "{branch}.txt"; run "x {branch} > {out}" }
target "one" {
    each "branch" "{branches}"
    needs "build[{branch}]"
    run "cat {build} {build[b1]}x"
}
target "all" { needs "build" "test[3.11,pg]" "build[b1]"; run "cat {build}" }
"#
        .replace("{build[b1]}x", "")
        .as_str(),
    )
    .loaded();
    assert_eq!(
        names(&loaded),
        [
            "test[3.11,pg]",
            "test[3.11,sqlite]",
            "test[3.12,pg]",
            "test[3.12,sqlite]",
            "build[b1]",
            "build[b2]",
            "build[main]",
            "one[b1]",
            "one[b2]",
            "all",
        ]
    );
    assert_eq!(needs(&loaded, "one[b2]"), ["build[b2]"]);
    assert_eq!(
        needs(&loaded, "all"),
        ["build[b1]", "build[b2]", "build[main]", "test[3.11,pg]"]
    );
    assert_eq!(
        runs(&loaded, "test[3.12,pg]"),
        ["sh -eu -c <tox '3.12' 'pg'>"]
    );
    assert_eq!(runs(&loaded, "build[b1]"), ["sh -eu -c <x 'b1' > {out}>"]);
}

#[test]
fn lists_are_spliced_where_they_stand_alone() {
    let loaded = Space::new(
        r#"
var "flags" "-a" "b c"
var "first" "{flags}"
var "sources" "x" "sub/" "*.py"
target "a" {
    inputs "{sources}"
    run "cmd {flags}"
    run "cmd" "{flags}" "{in}"
    run "echo" "{first}"
    expect "{flags}"
}
"#,
    )
    .file("x", "")
    .file("sub/y", "")
    .file("z.py", "")
    .loaded();
    assert_eq!(
        runs(&loaded, "a"),
        [
            "sh -eu -c <cmd '-a' 'b c'>",
            "[cmd][-a][b c][{in}]",
            "[echo][-a][b c]"
        ]
    );
    let patterns: Vec<String> = target(&loaded, "a")
        .inputs
        .iter()
        .map(|i| i.pattern.to_string())
        .collect();
    assert_eq!(patterns, ["x", "sub/", "*.py"]);
}

#[test]
fn variables_are_replaced_from_the_command_line() {
    let space = Space::new(
        r#"
var "python" "python3"
var "list" "a" "b"
target "t" { run "{python} {list}" }
"#,
    );
    let loaded = space
        .var("python", "python3.12; rm")
        .var("list", "c d e")
        .loaded();
    assert_eq!(
        runs(&loaded, "t"),
        ["sh -eu -c <'python3.12; rm' 'c' 'd' 'e'>"]
    );
}

#[test]
fn the_value_of_an_axis_is_never_a_wildcard() {
    let space = Space::new(
        r#"
target "t" {
    each "f" files="in/*"
    inputs "{f}" "{f.dir}/../lib/{f.name}/*.c" optional=#true
    outputs "out/{f.name}/*.o"
    run "x {f.stem} {f.ext} {in} {out}"
}
"#,
    );
    let loaded = space.file("in/a*[1] {b}.c", "").loaded();
    let target = target(&loaded, "t");
    assert_eq!(target.name, "t[in/a*[1] {b}.c]");
    let patterns: Vec<String> = target
        .inputs
        .iter()
        .map(|i| i.pattern.to_string())
        .collect();
    assert_eq!(
        patterns,
        ["in/a*[1] {b}.c", "lib/a[*][[]1[]] [{]b[}].c/*.c"]
    );
    assert_eq!(
        target.outputs[0].pattern.to_string(),
        "out/a[*][[]1[]] [{]b[}].c/*.o"
    );
    assert_eq!(
        runs(&loaded, &target.name),
        ["sh -eu -c <x 'a*[1] {b}' 'c' {in} {out}>"]
    );
}

#[test]
fn every_node_of_a_target_arrives() {
    let loaded = Space::new(
        r#"
project "p" { version "3.{minor}" }
var "minor" "31"
pool "connections" depth=2
target "before" { outputs "b.txt"; run "x" }
target "t" {
    desc "minor {minor}"
    needs "before"
    inputs "perhaps" optional=#true
    outputs "o.txt" "dist/*.whl" count=1
    product "skopeo inspect {{{{.Digest}}}}"
    shell "bash" "-c"
    run "x {version} {before}"
    dir "site/../web"
    env "HOME_DIR" LANG="C" OUT="{out}" MINOR="{minor}"
    tool "python3" "--version"
    probe "git ls-remote origin {minor}"
    pool "connections" weight=2
    timeout "1m 30s"
    retries 2
    max-age "24h"
    cache #false
    sandbox "strict" { read "~/.rustup" "/srv/{minor}" }
    expect "ok"
    reject "Traceback"
}
"#
        .replace(" count=1", "")
        .as_str(),
    )
    .loaded();
    let t = target(&loaded, "t");
    assert_eq!(t.desc.as_deref(), Some("minor 31"));
    assert_eq!(runs(&loaded, "t"), ["bash -c <x {version} {before}>"]);
    assert_eq!(t.dir.to_string(), "web");
    assert_eq!(t.env.len(), 4);
    assert_eq!(t.probes[0].source(), "git ls-remote origin '31'");
    assert_eq!(t.pool.map(|(id, weight)| (id.0, weight)), Some((0, 2)));
    assert_eq!(t.timeout.map(|d| d.as_secs()), Some(90));
    assert_eq!(
        (t.retries, t.max_age.map(|d| d.as_secs()), t.cache),
        (2, Some(86400), CacheScope::Off)
    );
    let sandbox = t.sandbox.as_ref().expect("a sandbox");
    assert_eq!(sandbox.read, ["~/.rustup", "/srv/31"]);
    assert_eq!(
        (t.expect.clone(), t.reject.clone()),
        (vec!["ok".into()], vec!["Traceback".into()])
    );
    let version = crate::build::model::Version::Literal("3.31".into());
    assert_eq!(loaded.project.version, Some(version));
}

#[test]
fn hosts_and_groups_are_expanded() {
    let space = Space::new(
        r#"
var "domain" "example.org"
host "px[01-03]-ops" ssh="sarra@{name}.{domain}" port=22 jump="gate" root="/srv/{name}" {
    var "port" "8080"
    option "IdentityFile=~/.ssh/{name}"
}
host "here" local=#true
group "ops" "px[01-02]-ops" "here"
group "all" "ops" "px[01-03]-ops"
environment "e" { use "evolve" on="all px03-ops" }
"#,
    );
    let loaded = space
        .hosts("host \"px02-ops\" local=#true root=\"x/{name}\"\nhost \"new\" local=#true\ngroup \"ops\" \"new\"\n")
        .loaded();
    let project = &loaded.project;
    let hosts: Vec<String> = project
        .hosts
        .values()
        .map(|h| format!("{} {}", h.name, h.root))
        .collect();
    assert_eq!(
        hosts,
        [
            "here .rel/hosts/here",
            "new .rel/hosts/new",
            "px01-ops /srv/px01-ops",
            "px02-ops x/px02-ops",
            "px03-ops /srv/px03-ops",
        ]
    );
    assert_eq!(project.groups["ops"], ["new"]);
    assert_eq!(
        project.groups["all"],
        ["new", "px01-ops", "px02-ops", "px03-ops"]
    );
    let first = &project.hosts["px01-ops"];
    assert_eq!(first.vars["port"], "8080");
    let expected = Reach::Ssh {
        destination: "sarra@px01-ops.example.org".into(),
        port: Some(22),
        jump: Some("gate".into()),
        options: vec!["IdentityFile=~/.ssh/px01-ops".into()],
    };
    assert_eq!(first.reach, expected);
    assert_eq!(loaded.read.len(), 2);
}

#[test]
fn an_environment_keeps_its_texts() {
    let loaded = Space::new(
        r#"
var "branches" "b1" "b2"
var "site" "example.org"
host "karl04" local=#true
host "db" local=#true
target "wheel" { each "branch" "{branches}"; outputs "{branch}.whl"; run "x {branch}" }
environment "staging" {
    desc "to {site}"
    param "branch" one-of="{branches} b1" default="b1" desc="which"
    param "free"
    each "customer" "osf" "other"
    needs "wheel[{branch}]"
    use "db-copy" as="copy" on="karl04" from="db" max-age="24h" keep=5 { SCRIPT "x {free}" }
    use "evolve" on="karl04" after="copy" flag=#true
    verify http="https://{site}/{customer}/" status=200
    verify http="https://{site}/"
}
"#,
    )
    .loaded();
    let env = &loaded.project.environments[0];
    assert_eq!(env.params[0].one_of, ["b1", "b2", "b1"]);
    assert_eq!(env.needs[0].0.source(), "wheel[{branch}]");
    let uses: Vec<String> = env
        .uses
        .iter()
        .map(|u| format!("{} {}", u.recipe, u.label))
        .collect();
    assert_eq!(
        uses,
        [
            "db-copy copy",
            "evolve evolve",
            "http-check verify",
            "http-check verify-2"
        ]
    );
    let args: Vec<String> = env
        .uses
        .iter()
        .flat_map(|u| &u.args)
        .map(|(n, a)| format!("{n}={}", a.text))
        .collect();
    assert_eq!(
        args,
        [
            "SCRIPT=x {free}",
            "keep=5",
            "flag=true",
            "http=https://{site}/{customer}/",
            "status=200",
            "http=https://{site}/",
        ]
    );
    assert_eq!(env.uses[1].after, ["copy"]);
}

#[test]
fn includes_are_relative_to_their_file_and_read_once() {
    let loaded = Space::new(
        "include \"sub/a.kdl\"\ninclude \"sub/b.kdl\"\ninclude \"no.kdl\" optional=#true\n",
    )
    .file(
        "sub/a.kdl",
        "include \"b.kdl\"\ntarget \"a\" { needs \"b\"; run \"x\" }\n",
    )
    .file(
        "sub/b.kdl",
        "target \"b\" { inputs \"sub/b.kdl\"; run \"x\" }\n",
    )
    .loaded();
    assert_eq!(names(&loaded), ["b", "a"]);
    assert_eq!(loaded.read.len(), 3);
    assert_eq!(loaded.absent.len(), 1);
}

#[test]
fn recipes_are_asked_once_the_rest_is_sound() {
    let asked = std::cell::Cell::new(0);
    let check = |project: &crate::build::model::Project| {
        asked.set(asked.get() + 1);
        let place = project.environments[0].uses[0].place;
        vec![crate::core::diagnostics::Diagnostic::new(
            "unknown_recipe",
            place,
            "no recipe",
            "here",
        )]
    };
    let load = |space: &Space| {
        super::load(&super::LoadRequest {
            root: space.root().to_owned(),
            file: space.root().join("Releasefile.kdl"),
            hosts_file: None,
            vars: std::collections::BTreeMap::new(),
            check_recipes: &check,
        })
    };
    let sound = Space::new("host \"h\" local=#true\nenvironment \"e\" { use \"nope\" on=\"h\" }\n");
    let error = load(&sound).expect_err("a mistake");
    assert_eq!((error.mistakes.len(), asked.get()), (1, 1));
    let broken = Space::new("environment \"e\" { needs \"x\"; use \"nope\" }\n");
    assert!(load(&broken).is_err());
    assert_eq!(
        asked.get(),
        1,
        "a missing target would make recipes look wrong"
    );
}

#[test]
fn an_empty_file_is_a_project() {
    let loaded = Space::new("").loaded();
    assert!(loaded.project.graph.is_empty());
    assert_eq!(report(""), "");
}

#[test]
fn ten_thousand_targets_do_not_meet_each_other() {
    let mut text = String::new();
    for i in 0..10_000 {
        text.push_str(&format!(
            "target \"t{i}\" {{\n    inputs \"src/**/*.c\"\n    outputs \"out/t{i}/*.o\"\n"
        ));
        if i > 0 {
            text.push_str(&format!(
                "    needs \"t{}\"\n    inputs \"out/t{}/*.o\"\n",
                i - 1,
                i - 1
            ));
        }
        text.push_str("    run \"x {in}\"\n}\n");
    }
    let loaded = Space::new(&text).file("src/a.c", "").loaded();
    assert_eq!(loaded.project.graph.len(), 10_000);
}

#[test]
fn a_target_may_leave_the_sandbox_of_all() {
    let loaded = Space::new(
        r#"
sandbox "strict"
target "held" { run "x" }
target "free" { sandbox "off"; run "x" }
"#,
    )
    .loaded();
    assert!(target(&loaded, "held").sandbox.is_some());
    assert!(target(&loaded, "free").sandbox.is_none());
}

#[test]
fn a_list_that_is_written_as_a_name_stays_one() {
    let space = Space::new(
        r#"
var "all" "a" "b"
var "some" "{all}"
var "one" "a b"
target "t" { each "x" "{some}"; run "echo {x} {one}" }
"#,
    );
    let loaded = space.var("some", "c d").var("one", "e f").loaded();
    assert_eq!(names(&loaded), ["t[c]", "t[d]"]);
    assert_eq!(runs(&loaded, "t[c]"), ["sh -eu -c <echo 'c' 'e f'>"]);
}

#[test]
fn a_comma_in_a_value_divides_nothing() {
    let space = Space::new(
        r#"
target "t" { each "x" "a,b"; inputs "src/{{{x},z}}.txt"; run "cat {inputs}" }
"#,
    );
    let loaded = space.file("src/a,b.txt", "").file("src/z.txt", "").loaded();
    let pattern = &target(&loaded, "t[a,b]").inputs[0].pattern;
    let glob = crate::build::glob::compile(pattern).expect("compiles");
    let is_match = |path: &str| glob.is_match(&crate::core::fs::RepoPath::new(path));
    assert!(is_match("src/a,b.txt") && is_match("src/z.txt"));
    assert!(!is_match("src/a.txt") && !is_match("src/b.txt"));
}
