//! Guards on real hosts: they stop a run before anything is changed, with the evidence, and a
//! person may go on, with a reason that is kept.

use std::fs;

use insta::assert_snapshot;

use crate::hosts::Hosts;
use crate::space::{Output, Space};

/// An environment that writes one file, behind the guards of `uses`.
fn app(hosts: &Hosts, uses: &str) -> Space {
    let space = Space::new(&format!(
        "{}\nenvironment \"e\" {{\n use \"file\" on=\"h1 h2\";\n {uses}\n}}\n",
        hosts.kdl()
    ));
    let recipe = "recipe \"file\" {\n step \"w\" { write \"{host.root}/file\" \"x\"; }\n}\n";
    space.write("recipes/file.kdl", recipe);
    space
}

fn shown(hosts: &Hosts, output: &Output) -> String {
    hosts.masked(&output.to_string())
}

#[test]
fn what_nobody_committed_stops_a_run_until_somebody_says_why() {
    let hosts = Hosts::start(2);
    let space = app(
        &hosts,
        "use \"clean-checkout\" on=\"h2\" path=\"{host.root}/copy\"",
    );
    let host = &hosts.all[1];
    let at = |script: &str| {
        let name = "-c user.name=t -c user.email=t@example.org";
        let root = hosts.root(host);
        let script = script.replace("git ", &format!("git {name} "));
        let output = hosts.ssh(&space, host, &format!("set -eu; cd {root}; {script}"));
        let _ = output.ok();
    };
    at("git init -q -b main up; cd up; echo 1 >a; git add a; git commit -qm 1");
    at("git clone -q up copy; echo 2 >copy/a; echo 3 >copy/new");
    let stopped = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&hosts, &stopped), @r#"
    --- stderr
    error: `e` is stopped by the guard `clean-checkout` on host `h2`
      evidence   M a
                ?? new
      help: nothing was changed; to continue anyway: `--override clean-checkout --reason "…"`
    --- exit code 1
    "#);
    assert!(!hosts.all[0].srv("file").exists() && !hosts.all[0].srv(".rel").exists());
    let plan = space.run(["e", "--plan"]).ok();
    assert_snapshot!(shown(&hosts, &plan), @r"
    h1  file (file)
          run  w           write [srv]/file  never done here
               --- /dev/null
               +++ h1:[srv]/file
               @@ -0,0 +1 @@
               +x
               \ No newline at end of file
    h2  file (file)
          run  w           write [srv]/file  never done here
               --- /dev/null
               +++ h2:[srv]/file
               @@ -0,0 +1 @@
               +x
               \ No newline at end of file
    file  rollback: w
    h2  stopped by the guard `clean-checkout`
                M a
               ?? new
    e: 2 steps would run, 0 up to date, on 2 hosts
    ");

    // Overriding takes a reason, and the guard's name.
    let _ = space.run(["e", "--override", "clean-checkout"]).fails(2);
    let other = space
        .run(["e", "--override", "x", "--reason", "y"])
        .fails(2);
    assert_snapshot!(other.stderr, @"
    error: `e` has no guard `x`
      guards  clean-checkout
    ");
    let reason = ["--reason", "it's a hot fix"];
    let args = ["e", "--override", "clean-checkout"].into_iter();
    let _ = space.run(args.chain(reason)).ok();
    let journal = fs::read_to_string(host.srv(".rel/e/journal")).expect("reads");
    let line = journal.lines().find(|l| l.contains("\toverridden\t"));
    let columns: Vec<&str> = line.expect("a line").split('\t').collect();
    assert_eq!(columns[5..7], ["clean-checkout", "clean-checkout"]);
    assert!(columns[7].starts_with("tester@"));
    assert_eq!(columns[8], "it's a hot fix");
    // A saved plan is stopped as well, and let through as well.
    fs::remove_file(host.srv("file")).expect("removes");
    let _ = space.run(["e", "--plan-out", "plan.json"]).ok();
    let stopped = space.run(["apply", "plan.json"]).fails(1);
    assert!(stopped.stderr.contains("stopped by the guard"), "{stopped}");
    let args = ["apply", "plan.json", "--override", "clean-checkout"].into_iter();
    let _ = space.run(args.chain(reason)).ok();
    // With nothing to do there is nothing to stop.
    let _ = space.run(["e"]).ok();

    // Diverged, although all is committed.
    fs::remove_file(hosts.all[0].srv("file")).expect("removes");
    at(
        "cd copy; git add .; git commit -qm 2; cd ../up; echo 4 >b; git add b; git commit -qm 3; cd ../copy; git fetch -q",
    );
    let stopped = space.run(["e"]).fails(1);
    assert!(
        stopped
            .stderr
            .contains("diverged: 1 commits here, 1 in origin/main"),
        "{stopped}"
    );
    at("cd copy; git reset -q --hard origin/main");
    let _ = space.run(["e"]).ok();
}

#[test]
fn working_copies_of_mercurial_and_subversion_are_looked_at_as_well() {
    let hosts = Hosts::start(2);
    let space = app(
        &hosts,
        "use \"clean-checkout\" as=\"hg\" on=\"h1\" path=\"{host.root}/hg\"\n \
         use \"clean-checkout\" as=\"svn\" on=\"h1\" path=\"{host.root}/svn\"",
    );
    let host = &hosts.all[0];
    let at = |script: &str| {
        let script = format!("set -eu; cd {}; {script}", hosts.root(host));
        let _ = hosts.ssh(&space, host, &script).ok();
    };
    let stopped = || {
        let output = space.run(["e"]).fails(1);
        assert!(!host.srv("file").exists());
        let evidence = output.stderr.lines().filter(|l| !l.contains("error:"));
        let evidence = evidence.take_while(|l| !l.contains("help:"));
        let evidence: Vec<&str> = evidence.map(str::trim).collect();
        evidence.join("\n")
    };
    at("hg init hg; cd hg; echo 1 >a; hg add -q a; hg commit -u t -m 1");
    at(
        "svnadmin create up; svn -q checkout file://$PWD/up svn; cd svn; echo 1 >a; svn -q add a; svn -q commit -m 1",
    );
    at("echo 2 >hg/a; echo 3 >hg/new");
    assert_snapshot!(stopped(), @r"
      evidence  M a
      ? new
    ");
    at("cd hg; rm new; hg revert -q --no-backup a; echo 2 >../svn/a; echo 3 >../svn/new");
    assert_snapshot!(stopped(), @r"
      evidence  M       a
      ?       new
    ");
    // Diverged, although all is committed.
    at("cd svn; rm new; svn -q revert a; cd ../hg; echo 2 >a; hg commit -u t -m 2");
    at("cd hg; hg update -q 0; echo 3 >b; hg add -q b; hg commit -u t -m 3");
    assert_snapshot!(stopped(), @"evidence  diverged: several heads");
    at("cd hg; hg merge -q; hg commit -u t -m 4");
    let _ = space.run(["e"]).ok();
    assert!(host.srv("file").exists());
}

#[test]
fn a_host_without_room_or_with_what_is_forbidden_stops_a_run() {
    let hosts = Hosts::start(2);
    let check = |uses: &str| {
        let space = app(&hosts, uses);
        let output = space.run(["e"]);
        assert!(output.code == 0 || !hosts.all[0].srv("file").exists());
        shown(&hosts, &output)
    };
    let disk = check("use \"host-facts\" on=\"h1\" disk=99999999");
    assert!(disk.contains("guard `disk` on host `h1`"), "{disk}");
    assert!(
        disk.contains("MiB are free in [srv], of 99999999 wanted"),
        "{disk}"
    );
    let memory = check("use \"host-facts\" on=\"h1\" memory=99999999");
    assert!(
        memory.contains("of memory are available, of 99999999"),
        "{memory}"
    );
    let version = check("use \"host-facts\" on=\"h1 h2\" check=\"echo old; exit 1\"");
    assert_snapshot!(version, @r#"
    --- stderr
    error: `e` is stopped by the guard `version` on host `h1`
      evidence       old
      version on h2  old
      help: nothing was changed; to continue anyway: `--override version --reason "…"`
    --- exit code 1
    "#);
    fs::write(
        hosts.all[0].srv("a.ini"),
        "[mail]\nhost = smtp.example.org\n",
    )
    .expect("writes");
    let forbidden =
        "use \"forbidden-pattern\" on=\"h1\" file=\"{host.root}/a.ini\" pattern=\"host *= *smtp\"";
    assert_snapshot!(check(forbidden), @r#"
    --- stderr
    error: `e` is stopped by the guard `forbidden-pattern` on host `h1`
      evidence  2:host = smtp.example.org
      help: nothing was changed; to continue anyway: `--override forbidden-pattern --reason "…"`
    --- exit code 1
    "#);
    fs::write(hosts.all[0].srv("a.ini"), "[mail]\nhost = localhost\n").expect("writes");
    let all =
        format!("{forbidden}; use \"host-facts\" on=\"h1 h2\" disk=1 memory=1 check=\"true\"");
    assert!(check(&all).contains("2 steps ran"));
}

/// A project with a repository of its own and one that it is pushed to, and a use of a guard
/// that is asked there.
fn project(uses: &str) -> Space {
    let space = Space::new(&format!(
        "project \"p\" {{ version \"v1.2\" }}\nhost \"a\" local=#true root=\"srv/a\"\n\
         host \"b\" local=#true root=\"srv/b\"\n\
         environment \"e\" {{\n use \"file\" on=\"a b\";\n {uses}\n}}\n"
    ));
    let recipe = "recipe \"file\" {\n step \"w\" { write \"{host.root}/file\" \"x\"; }\n}\n";
    space.write("recipes/file.kdl", recipe);
    space.shell(
        "git init -q --bare ../up; git init -q; git add .; git commit -qm 1
        git remote add origin \"file://$(readlink -f ../up)\"; git push -q origin main",
    );
    space
}

/// Returns the evidence that stops a run, which has changed nothing.
#[track_caller]
fn evidence(space: &Space, guard: &str) -> String {
    let stopped = space.run(["e"]).fails(1);
    let words = format!("stopped by the guard `{guard}` on host `this machine`");
    assert!(stopped.stderr.contains(&words), "{stopped}");
    assert!(!space.has("srv"), "{stopped}");
    let (_, rest) = stopped.stderr.split_once("evidence").expect("evidence");
    let (evidence, _) = rest.split_once("help:").expect("a help");
    evidence
        .lines()
        .map(|l| l.trim().to_owned() + "\n")
        .collect()
}

#[test]
fn a_version_whose_tag_is_not_what_is_released_stops_a_run() {
    let space = project("use \"pushed-tag\"");
    let stopped = || evidence(&space, "pushed-tag");
    let sha = |text: String| {
        let hex = regex::Regex::new(r"\b[0-9a-f]{12}\b").expect("a pattern");
        hex.replace_all(&text, "[SHA]").into_owned()
    };
    assert_eq!(stopped(), "there is no tag v1.2\n\n");
    space.shell("git tag v1.2; git commit -q --allow-empty -m 2");
    assert_eq!(
        sha(stopped()),
        "the tag v1.2 is not on HEAD: it names [SHA], and HEAD is [SHA]\n\n"
    );
    space.shell("git tag -f -a -m release v1.2 >/dev/null");
    assert_eq!(
        stopped(),
        "the tag v1.2 is not pushed: git push origin v1.2\n\n"
    );
    // Another one was pushed by somebody else.
    space.shell("git push -q origin HEAD^:refs/tags/v1.2");
    assert_eq!(
        sha(stopped()),
        "the tag v1.2 is another one in origin: [SHA] there, [SHA] here\n\n"
    );
    space.shell("git push -qf origin v1.2; mv ../up ../away");
    let unreachable = stopped();
    assert!(
        unreachable.starts_with("the remote origin cannot be asked:\n"),
        "{unreachable}"
    );
    assert!(unreachable.contains("up"), "{unreachable}");
    // A person may go on: this machine keeps no journal, so those of all hosts say so.
    let args = [
        "e",
        "--override",
        "pushed-tag",
        "--reason",
        "the server is down",
    ];
    let over = space.run(args).ok();
    assert!(
        over.stderr
            .contains("2 steps ran, 0 up to date, on 2 hosts"),
        "{over}"
    );
    for host in ["a", "b"] {
        let journal = space.read(format!("srv/{host}/.rel/e/journal"));
        assert!(journal.contains("\toverridden\t"), "{journal}");
    }
    assert!(!space.has(".rel/e"));
    space.shell("mv ../away ../up; rm -r srv");
    let _ = space.run(["e"]).ok();
    // One that is not annotated is as good.
    space.shell("rm -r srv; git tag -f v1.2 >/dev/null; git push -qf origin v1.2");
    let _ = space.run(["e"]).ok();
    // Questions to journals, and the rollback, go without this machine.
    let history = space.run(["history", "e"]).ok();
    assert!(!history.to_string().contains("this machine"), "{history}");
    let status = space.run(["status", "e"]).ok();
    assert!(!status.to_string().contains("this machine"), "{status}");
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(!space.has(".rel/e"));
}

#[test]
fn a_version_without_a_line_in_the_changelog_stops_a_run() {
    let space = project("use \"changelog-line\"");
    assert_eq!(
        evidence(&space, "changelog-line"),
        "there is no CHANGELOG.md\n\n"
    );
    for other in ["## 1.2.1", "## 11.2", "## 1.2-rc1", "## 1.20", "## 1x2"] {
        space.write("CHANGELOG.md", format!("# Changes\n\n{other}\n\n- more\n"));
        let said = evidence(&space, "changelog-line");
        assert!(
            said.starts_with("CHANGELOG.md has no line for v1.2\n"),
            "{said}"
        );
        if other != "## 1x2" {
            assert!(
                said.contains(&format!("the newest is in line 3: {other}")),
                "{said}"
            );
        }
    }
    for good in [
        "## 1.2",
        "v1.2 (2026-11-21)",
        "rel (1.2) stable; urgency=low",
        "[v1.2]",
        "1.2.",
    ] {
        space.write("CHANGELOG.md", format!("# Changes\n{good}\n"));
        let _ = space.run(["e"]).ok();
        space.remove("srv");
    }
    // A pattern of one's own, and another file.
    let space = project("use \"changelog-line\" file=\"NEWS\" pattern=\"^= one point two\"");
    space.write("NEWS", "= one point one\n");
    let said = evidence(&space, "changelog-line");
    assert!(said.starts_with("NEWS has no line for v1.2"), "{said}");
    space.write("NEWS", "= one point two\n");
    let _ = space.run(["e"]).ok();
}

/// A host here, and a recipe that writes a text into a file of it.
fn local(uses: &str) -> Space {
    let space = Space::new(&format!(
        "host \"a\" local=#true root=\"srv/a\"\nhost \"b\" local=#true root=\"srv/b\"\n\
         target \"t\" {{ inputs \"in\" optional=#true; outputs \"out\"; run \"wc -l < in > out\"; }}\n\
         environment \"e\" {{\n {uses}\n}}\n"
    ));
    let recipe = "recipe \"ini\" {\n param \"text\";\n \
         step \"w\" { write \"{host.root}/a.ini\" \"{text}\\n\"; }\n}\n";
    space.write("recipes/ini.kdl", recipe);
    space
}

#[test]
fn an_environment_that_only_asks_is_stopped_by_what_it_asks() {
    let space = local("needs \"t\"; use \"changelog-line\" release=\"1.2\"");
    space
        .write("in", "")
        .write("CHANGELOG.md", "nothing of that\n");
    let plan = space.run(["e", "--plan"]).ok();
    assert!(
        plan.stdout.contains("e: stopped by 1 guard, 0 up to date"),
        "{plan}"
    );
    // It might be about what the target makes.
    let note = "this machine  note: the guard `changelog-line` is asked again when `t` is made\n";
    assert!(plan.stdout.contains(note), "{plan}");
    let stopped = space.run(["e"]).fails(1);
    let words = "`e` is stopped by the guard `changelog-line` on host `this machine`";
    assert!(stopped.stderr.contains(words), "{stopped}");
    let over = ["e", "--override", "changelog-line", "--reason", "late"];
    let _ = space.run(over).ok();
    space.write("CHANGELOG.md", "## 1.2\n");
    let passed = space.run(["e"]).ok();
    assert!(
        passed.stderr.contains("e: 1 guard checked, nothing to do"),
        "{passed}"
    );
    // On a host as well, and with what is asked each time beside it.
    let space = local(
        "use \"forbidden-pattern\" on=\"a b\" file=\"a.ini\" pattern=\"x\"\n \
         use \"wait-for\" port=\"127.0.0.1:1\" within=\"1s\"",
    );
    space
        .write("srv/a/a.ini", "y\n")
        .write("srv/b/a.ini", "x\n");
    let stopped = space.run(["e"]).fails(1);
    assert!(
        stopped.stderr.contains("`forbidden-pattern` on host `b`"),
        "{stopped}"
    );
}

#[test]
fn a_file_that_is_not_there_is_not_free_of_a_pattern() {
    let guard = "use \"forbidden-pattern\" on=\"a\" file=\"b.ini\" pattern=\"x\"";
    let space = local(&format!("{guard}; use \"ini\" on=\"a\" text=\"y\""));
    let stopped = space.run(["e"]).fails(1);
    assert!(stopped.stderr.contains("there is no b.ini"), "{stopped}");
    assert!(!space.has("srv/a/a.ini"), "{stopped}");
}

#[test]
fn a_guard_with_after_looks_at_what_the_run_made() {
    let uses = |text: &str, file: &str| {
        format!(
            "use \"ini\" on=\"a\" text=\"{text}\"\n \
             use \"forbidden-pattern\" on=\"a\" after=\"ini\" file=\"{file}\" pattern=\"smtp\""
        )
    };
    let space = local(&uses("host = local", "a.ini"));
    let plan = space.run(["e", "--plan"]).ok().stdout;
    let line = "run  forbidden-pattern  # guard forbidden-pattern  never done here\n";
    assert!(plan.contains(line), "{plan}");
    let text = space.read("Releasefile.kdl");
    let _ = space.run(["e"]).ok();
    assert!(space.run(["e"]).ok().stderr.contains("nothing to do"));
    // What stood there before was good.
    space.write("Releasefile.kdl", text.replace("= local", "= smtp"));
    let failed = space.run(["e"]).fails(1);
    assert!(failed.to_string().contains("1:host = smtp"), "{failed}");
    assert_eq!(space.read("srv/a/a.ini"), "host = local\n");
    // Nor is it there where nobody laid it down.
    space.write("Releasefile.kdl", text.replace("a.ini", "b.ini"));
    let failed = space.run(["e"]).fails(1);
    assert!(failed.to_string().contains("there is no b.ini"), "{failed}");
    // Another than `rel` may have changed it.
    space.write(
        "Releasefile.kdl",
        text.replace("use \"ini\" on=\"a\" text", "use \"ini\" on=\"b\" text"),
    );
    space.write("srv/a/a.ini", "host = smtp\n");
    let _ = space.run(["e"]).fails(1);
    space.write("srv/a/a.ini", "host = local\n");
    let _ = space.run(["e"]).ok();
    // Asked on this machine, it cannot be asked behind something.
    let here = local(
        "use \"ini\" on=\"a\" text=\"x\"; \
         use \"forbidden-pattern\" after=\"ini\" file=\"in\" pattern=\"x\"",
    );
    assert_snapshot!(here.run(["check"]).fails(2), @r#"
    --- stderr
    rel::build::releasefile::misplaced

      × the guards of `forbidden-pattern` are asked on this machine before the first change
       ╭─[Releasefile.kdl:5:33]
     5 │  use "ini" on="a" text="x"; use "forbidden-pattern" after="ini" file="in" pattern="x"
       ·                                 ─────────┬─────────
       ·                                          ╰── `after` does nothing here
       ╰────
      help: leave `after` out, or say where they are asked: `on="host"`
    --- exit code 2
    "#);
}

#[test]
fn a_gate_of_guards_is_asked_when_its_wave_is_done() {
    let space = local(
        "rollout \"r\" on=\"a b\" serial=\"1\" {\n use \"ini\" text=\"host = smtp\"\n \
         gate \"forbidden-pattern\" file=\"a.ini\" pattern=\"smtp\"\n}",
    );
    let failed = space.run(["e"]).fails(1);
    assert!(failed.to_string().contains("1:host = smtp"), "{failed}");
    assert!(
        !space.has("srv/a/a.ini") && !space.has("srv/b/a.ini"),
        "{failed}"
    );
    let text = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", text.replace("= smtp", "= local"));
    let _ = space.run(["e"]).ok();
    assert_eq!(space.read("srv/b/a.ini"), "host = local\n");
}

#[test]
fn a_guard_on_what_is_not_made_yet_is_asked_when_it_is() {
    let space = local("needs \"t\"; use \"same\" on=\"a\" artifact=\"{t}\"");
    space.write(
        "recipes/same.kdl",
        r#"recipe "same" {
    param "artifact" type="artifact"
    fact "known" "echo fact {artifact.id} >> ../asked"
    guard "same" """
        echo guard {artifact.id} >> ../asked
        [ ! -e was ] || [ "$(cat was)" = {artifact.sha256} ]
        """
    step "s" { check "echo check {artifact.id} >> ../asked; false"; run "echo {artifact.sha256} > was"; }
}
"#,
    );
    space.write("in", "1\n").write("srv/a/there", "");
    let plan = space.run(["e", "--plan"]).ok();
    let line = "a  unknown: the guard `same` is asked when `t` is made\n";
    assert!(plan.stdout.contains(line), "{plan}");
    assert!(!space.has("srv/asked"), "{plan}");
    let _ = space.run(["e"]).ok();
    let asked = space.read("srv/asked");
    assert!(!asked.contains("not-made-yet"), "{asked}");
    // Made to the same bytes it holds, made to others it does not.
    space.write("in", "2\n");
    let plan = space.run(["e", "--plan"]).ok().stdout;
    assert!(plan.contains(line) && !plan.contains("stopped"), "{plan}");
    let _ = space.run(["e"]).ok();
    space.write("in", "2\n3\n");
    let stopped = space.run(["e"]).fails(1);
    assert!(
        stopped.stderr.contains("stopped by the guard `same`"),
        "{stopped}"
    );
}
