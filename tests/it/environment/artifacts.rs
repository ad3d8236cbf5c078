//! What is released: directories, many files, and names that nobody would choose.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::told;
use crate::space::Space;

const NAMES: [&[u8]; 9] = [
    b"plain",
    b"with space",
    b"quote'd",
    b"double\"d",
    b"new\nline",
    b"latin-\xe9\xff",
    b"-rf",
    b"$(touch pwned) `x` \\",
    b"{braces} *",
];

#[test]
fn any_file_name_arrives() {
    let space = Space::new(
        r#"
target "tree" { inputs "tree/"; outputs "build/tree/"; run "mkdir -p {out} && cp -R tree/. {out}"; }
host "a" local=#true root="hosts/a dir's"
environment "staging" {
    needs "tree"
    use "versioned-release" as="site" on="a" artifact="{tree}" root="{host.root}/the site" keep="2"
}
"#,
    );
    let mut expected = Vec::new();
    for (i, name) in NAMES.iter().enumerate() {
        let dir = OsStr::from_bytes(name);
        let path = std::path::Path::new("tree").join(dir).join(dir);
        space.write(&path, format!("content {i}\n"));
        expected.push((path.strip_prefix("tree").expect("below").to_owned(), i));
    }
    space.write("tree/run", "#!/bin/sh\n");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(space.path("tree/run"), mode).expect("sets");
    std::os::unix::fs::symlink("plain/plain", space.path("tree/link")).expect("links");

    let check = |space: &Space| {
        let live = space.path("hosts/a dir's/the site/current/artifact");
        for (path, i) in &expected {
            let text = fs::read_to_string(live.join(path)).expect("arrived");
            assert_eq!(text, format!("content {i}\n"));
        }
        let run = fs::metadata(live.join("run")).expect("arrived");
        assert_eq!(run.permissions().mode() & 0o111, 0o111);
        let link = fs::read_link(live.join("link")).expect("a link");
        assert_eq!(link, std::path::Path::new("plain/plain"));
    };
    let _ = space.run(["staging"]).ok();
    check(&space);
    assert_eq!(told(&space, &[])["ran"], 0);

    // A name less, a name more: another release.
    space.remove("tree/plain");
    space.write("tree/added", "");
    std::os::unix::fs::symlink("x", space.path("tree/dangling")).expect("links");
    let changed = space.run(["staging"]);
    assert!(changed.code == 0 || changed.code == 1, "{changed}");
    assert!(!space.has("pwned"));
}

#[test]
fn several_files_and_one_file_are_laid_down_by_their_names() {
    let space = Space::new(
        r#"
target "many" { outputs "build/*.txt"; run "mkdir -p build; echo 1 > build/one.txt; echo 2 > 'build/t w o.txt'"; }
target "one" { outputs "build/one.bin"; run "echo one > {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "many" "one"
    use "lay" on="a" many="{many}" one="{one}"
}
"#,
    );
    let body = r#"
    param "many" type="artifact"
    param "one" type="artifact"
    step "into" { put "{many}" to="{host.root}/many/" }
    step "beside" { put "{one}" to="{host.root}/one/" }
    step "as" { put "{one}" to="{host.root}/renamed" }
    step "said" { run "echo {many.name} {one.name} {one.id} > said" }"#;
    super::recipe(&space, "lay", body);
    let _ = space.run(["staging"]).ok();
    assert_eq!(space.read("hosts/a/many/t w o.txt"), "2\n");
    assert_eq!(space.read("hosts/a/one/one.bin"), "one\n");
    assert_eq!(space.read("hosts/a/renamed"), "one\n");
    let sha256 = space.shell("sha256sum build/one.bin");
    let said = space.read("hosts/a/said");
    assert!(
        said.contains("one.bin") && said.contains(&sha256[..12]),
        "{said}"
    );

    // What somebody took away is put there again.
    space.remove("hosts/a/many");
    assert_eq!(told(&space, &[])["ran"], 1);
    assert!(space.has("hosts/a/many/one.txt"));
}

/// A target with an instance for each letter, a group, one without a file, and an environment
/// with this body; its recipe lays its artifact down in `to`.
fn letters(body: &str) -> Space {
    let space = Space::new(&format!(
        r#"
target "t" {{ each "x" "a" "b" "c"; inputs "{{x}}.in"; outputs "build/{{x}}.txt"; run "cp {{in}} {{out}}"; }}
target "same" {{ each "x" "a" "b"; outputs "build/{{x}}/one.txt"; run "echo {{x}} > {{out}}"; }}
target "glob" {{ each "x" "a" "b"; outputs "glob/{{x}}/*.txt"; run "mkdir -p glob/{{x}} && echo > glob/{{x}}/one.txt"; }}
target "all" {{ needs "t" "tests"; }}
target "tests" {{ run "true"; }}
host "h" local=#true root="h"
environment "staging" {{ {body} }}
"#
    ));
    for x in ["a", "b", "c"] {
        space.write(format!("{x}.in"), format!("I am {x}\n"));
    }
    let body = r#"
    param "artifact" type="artifact"
    param "to"
    param "because" default=""
    step "put" { put "{artifact}" to="{to}/" }
    step "said" { run "echo {artifact.name} {because} > said" }"#;
    super::recipe(&space, "lay", body);
    space
}

/// Returns the files below the host's root, sorted.
fn laid(space: &Space) -> String {
    space.shell("cd h && find . -path ./.rel -prune -o -name '*.txt' -print | sort | tr '\\n' ' '")
}

#[test]
fn the_name_of_a_target_with_each_stands_for_all_instances_that_are_needed() {
    let to = r#"to="{host.root}/{x}""#;
    for (body, expected) in [
        // All of them.
        (
            r#"needs "t"; use "lay" on="h" artifact="{t}" to="{host.root}/all""#.to_owned(),
            "./all/a.txt ./all/b.txt ./all/c.txt ",
        ),
        // Of the needed ones all.
        (
            r#"needs "t[a]" "t[c]"; use "lay" on="h" artifact="{t}" to="{host.root}/two""#.into(),
            "./two/a.txt ./two/c.txt ",
        ),
        (
            r#"needs "t[a]" "t" "t"; use "lay" on="h" artifact="{t}" to="{host.root}/all""#.into(),
            "./all/a.txt ./all/b.txt ./all/c.txt ",
        ),
        // One, by its name, with braces and without.
        (
            r#"needs "t"; use "lay" on="h" artifact="{t[b]}" to="{host.root}/one""#.into(),
            "./one/b.txt ",
        ),
        (
            r#"needs "t"; use "lay" on="h" artifact="t[b]" to="{host.root}/one""#.into(),
            "./one/b.txt ",
        ),
        // For each value of an axis that of this value.
        (
            format!(r#"each "x" "a" "b"; needs "t[{{x}}]"; use "lay" on="h" artifact="{{t}}" {to}"#),
            "./a/a.txt ./b/b.txt ",
        ),
        (
            format!(
                r#"each "x" "a" "b"; needs "t"; use "lay" on="h" artifact="{{t[{{x}}]}}" {to}"#
            ),
            "./a/a.txt ./b/b.txt ",
        ),
        // Done once, whatever the axis is: all of them.
        (
            r#"each "x" "a" "b"; needs "t[{x}]"; use "lay" on="h" artifact="{t}" to="{host.root}/all""#
                .into(),
            "./all/a.txt ./all/b.txt ",
        ),
        // That of a parameter.
        (
            r#"param "x" default="c"; needs "t[{x}]"; use "lay" on="h" artifact="{t}" to="{host.root}/p""#
                .into(),
            "./p/c.txt ",
        ),
    ] {
        let space = letters(&body);
        let _ = space.run(["check"]).ok();
        let _ = space.run(["staging"]).ok();
        assert_eq!(laid(&space), expected.trim_end(), "{body}");
        assert_eq!(told(&space, &[])["ran"], 0, "{body}");
    }
}

#[test]
fn every_instance_counts_for_the_digest_of_all() {
    let body =
        r#"needs "t"; use "lay" on="h" artifact="{t}" to="{host.root}/all" because="{t.id}""#;
    let space = letters(body);
    let _ = space.run(["staging"]).ok();
    let before = space.read("h/said");
    assert!(before.starts_with("a.txt b.txt c.txt "), "{before}");
    for x in ["a", "b", "c"] {
        space.write(format!("{x}.in"), format!("I am another {x}\n"));
        assert_eq!(told(&space, &[])["ran"], 2, "{x}");
        let read = space.read(format!("h/all/{x}.txt"));
        assert_eq!(read, format!("I am another {x}\n"));
    }
    assert_ne!(space.read("h/said"), before);
    assert!(!before.contains("not-made-yet"), "{before}");
}

#[test]
fn an_approver_knows_the_digest_of_all_instances_without_making_them() {
    let body =
        r#"needs "t"; use "lay" on="h" artifact="{t}" to="{host.root}/all" because="{t.id}""#;
    let space = letters(body);
    let _ = space.run(["build", "t"]).ok();
    let plan = space.run(["staging", "--plan-out", "plan.json"]).ok();
    let line = plan.stdout.split(" to [work]").next().expect("a step");
    let id = line.rsplit(' ').next().expect("a digest");
    space.remove("build");
    let seen = space.run(["approve", "plan.json", "--plan"]).ok();
    assert!(seen.stdout.contains(&format!("put {id} to")), "{seen}");
}

#[test]
fn what_stands_for_no_artifact_is_a_mistake_before_anything_is_built() {
    for (body, expected) in [
        (
            r#"needs "t"; use "lay" on="h" artifact="{t[nonsense]}" to="x""#,
            "there is no target `t[nonsense]`",
        ),
        (
            r#"each "x" "a" "d"; needs "t"; use "lay" on="h" artifact="{t[{x}]}" to="{x}""#,
            "there is no target `t[d]`",
        ),
        (
            r#"needs "t[a]"; use "lay" on="h" artifact="{t[b]}" to="x""#,
            "a target that the environment needs, not `{t[b]}`",
        ),
        (
            r#"param "x" one-of="a b"; needs "t[{x}]"; use "lay" on="h" artifact="{t[b]}" to="x""#,
            "not needed with `x=a`",
        ),
        (
            r#"needs "t"; use "lay" on="h" artifact="{t[{y}]}" to="x""#,
            "`{y}` is not known here",
        ),
        (
            r#"needs "all"; use "lay" on="h" artifact="{all}" to="x""#,
            "name one that it needs, and add it to the `needs` of the environment: t",
        ),
        (
            r#"needs "tests"; use "lay" on="h" artifact="{tests}" to="x""#,
            "`tests` has no file",
        ),
        (
            r#"needs "t" "all"; use "lay" on="h" artifact="{t}" to="x" because="{all.id}""#,
            "`{all.id}` is not known here",
        ),
        (
            r#"needs "same"; use "lay" on="h" artifact="{same}" to="x""#,
            "`build/a/one.txt` and `build/b/one.txt` would be installed under the same name",
        ),
    ] {
        let space = letters(body);
        let told = space.run(["check"]).fails(2).stderr;
        assert!(told.contains(expected), "{body}\n{told}");
        let _ = space.run(["staging", "a"]).fails(2);
        assert!(!space.has("build") && !space.has("h"), "{body}");
    }
}

#[test]
fn an_argument_that_stands_for_no_artifact_is_told_before_anything_is_built() {
    let body = r#"param "x"; needs "t"; use "lay" on="h" artifact="{t[{x}]}" to="{host.root}/x""#;
    let space = letters(body);
    let _ = space.run(["check"]).ok();
    for args in [&["staging", "d"][..], &["staging", "d", "--plan"]] {
        let told = space.run(args).fails(2).stderr;
        assert!(told.contains("there is no target `t[d]`"), "{told}");
        assert!(!space.has("build") && !space.has("h"), "{told}");
    }
    let _ = space.run(["staging", "c"]).ok();
    assert_eq!(laid(&space), "./x/c.txt");
}

#[test]
fn two_files_of_one_name_are_not_laid_down_over_each_other() {
    let space = letters(r#"needs "glob"; use "lay" on="h" artifact="{glob}" to="{host.root}/all""#);
    let told = space.run(["staging"]);
    assert!(
        told.stderr
            .contains("two files of `glob` have the same name"),
        "{told}"
    );
    assert!(told.stderr.contains("glob/b/one.txt"), "{told}");
    assert!(!space.has("h/all"), "{told}");
}
