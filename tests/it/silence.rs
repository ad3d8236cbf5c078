//! What dies on a host, or loses what it was given, without a word: silence is no success.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use rustix::process::Signal;

use crate::space::{Output, PATH, REL, Space, wait_until};

/// Hosts `a` and `b` in this directory, an environment `e`, and a recipe.
fn ground(environment: &str, (name, steps): (&str, &str)) -> Space {
    let space = Space::new(&format!(
        "var \"word\" \"1\"\nhost \"a\" local=#true root=\"srv/a\"\nhost \"b\" local=#true root=\"srv/b\"\n\
         environment \"e\" {{ {environment}; }}\n"
    ));
    space.write(
        format!("recipes/{name}.kdl"),
        format!("recipe \"{name}\" {{\n{steps}\n}}\n"),
    );
    for host in ["srv/a", "srv/b"] {
        fs::create_dir_all(space.path(host)).expect("creates");
    }
    space
}

/// A host on which `live` is written with a rollback, three times.
fn site(undo: &str) -> Space {
    let steps = r#"
    param "word"
    step "first" {
        run "cp live live.{word}.was || :; echo {word} >live"
        undo "if [ -e live.{word}.was ]; then mv live.{word}.was live; fi"
    }
    step "second" {
        run "echo {word} >second"
        undo "UNDO"
    }
"#;
    let steps = steps.replace("UNDO", undo);
    let space = ground(r#"use "r" on="a" word="{word}""#, ("r", &steps));
    for word in ["1", "2", "3"] {
        let _ = released(&space, word).ok();
    }
    space
}

fn released(space: &Space, word: &str) -> Output {
    space.run(["e", "--var", &format!("word={word}")])
}

/// Returns how many lines of an event the journal has.
fn count(space: &Space, event: &str) -> usize {
    let journal = space.read("srv/a/.rel/e/journal");
    let events = journal.lines().filter_map(|l| l.split('\t').nth(1));
    events.filter(|e| *e == event).count()
}

/// Lets every program `name` that `rel` starts on this machine be this script; `{real}` is what
/// it stands for.
fn instead(space: &Space, name: &str, script: &str) -> String {
    let bin = space.base().join("bin");
    fs::create_dir_all(&bin).expect("creates");
    let real = PATH.split(':').map(|dir| format!("{dir}/{name}"));
    let real = real.into_iter().find(|path| fs::metadata(path).is_ok());
    let script = script.replace("{real}", &real.expect("is there"));
    fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).expect("writes");
    fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).expect("sets");
    format!("{}:{}", bin.display(), *PATH)
}

#[test]
fn a_way_back_that_was_killed_has_not_gone_back() {
    let space = site("if [ -e oom ]; then rm oom; kill -KILL $$; fi; echo back >second");
    space.write("srv/a/oom", "");
    assert_snapshot!(space.run(["e", "--rollback"]), @"
    --- stderr
    error: the rollback failed as well
      not undone  r/second on a: ended from outside
      help: check the hosts: it is not known which release is live there
    --- exit code 4
    ");
    assert_eq!(
        (space.read("srv/a/live"), count(&space, "rolled-back")),
        ("3\n".into(), 0)
    );
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(
        (space.read("srv/a/live"), count(&space, "rolled-back")),
        ("2\n".into(), 1)
    );
}

#[test]
fn a_run_that_was_killed_on_its_way_back_has_not_gone_back() {
    let space = site("kill -KILL $$");
    space.write(
        "recipes/r.kdl",
        space.read("recipes/r.kdl").replace(
            "echo {word} >second",
            "echo {word} >second; test {word} != 4",
        ),
    );
    let told = released(&space, "4").fails(4);
    assert!(!told.stderr.contains("nothing had been switched"), "{told}");
    assert!(
        told.stderr
            .contains("it is not known which release is live there"),
        "{told}"
    );
    assert_eq!(count(&space, "gone-back"), 0);
}

#[test]
fn a_rollback_that_was_cut_at_its_very_end_is_ended_and_no_more() {
    let space = site("echo back >second");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("srv/a/live"), "2\n");
    // As if it had been cut before it wrote down that it was all.
    let journal = space.read("srv/a/.rel/e/journal");
    let lines = journal.lines().filter(|l| !l.contains("\trolled-back\t"));
    let cut: String = lines.map(|l| format!("{l}\n")).collect();
    space.write("srv/a/.rel/e/journal", cut);
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("srv/a/live"), "2\n");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("srv/a/live"), "1\n");
}

#[test]
fn steps_of_which_only_a_part_arrived_have_not_run() {
    let space = site("echo back >second");
    // There is no room for more, and nobody says so.
    let short = r#"
case $(readlink /proc/$$/fd/1) in
*/program) {real} "$@" | head -c 15000 ;;
*) exec {real} "$@" ;;
esac"#;
    let path = instead(&space, "dd", short);
    let mut rel = space.rel(["e", "--var", "word=4"]);
    let told = space.finish(rel.env("PATH", path)).fails(1);
    assert!(
        told.stderr.contains("step `r/first` failed on host `a`"),
        "{told}"
    );
    assert!(told.stderr.contains("Syntax error"), "{told}");
    assert_eq!(
        (space.read("srv/a/live"), count(&space, "ok")),
        ("3\n".into(), 3)
    );
    let _ = released(&space, "4").ok();
    assert_eq!(space.read("srv/a/live"), "4\n");
}

#[test]
fn what_could_not_be_written_down_is_told() {
    let space = site("echo back >second");
    let journal = space.path("srv/a/.rel/e/journal");
    // A rollback has nothing to write to once the first undo script has run.
    let undo = "echo back >second; if [ ! -e aside ]; then mkdir aside; mv .rel/e/journal aside; mkdir .rel/e/journal; fi";
    space.write(
        "recipes/r.kdl",
        space
            .read("recipes/r.kdl")
            .replace("echo back >second", undo),
    );
    let _ = released(&space, "4").ok();
    let told = space.run(["e", "--rollback"]).fails(4);
    assert!(told.stderr.contains("not undone"), "{told}");
    fs::remove_dir(&journal).expect("removes");
    fs::rename(space.path("srv/a/aside/journal"), &journal).expect("moves");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("srv/a/live"), "3\n");
}

#[test]
fn what_is_sent_arrives_whole_or_is_refused() {
    let step = r#"step "copy" { put "{from.root}/data" from="from" to="{host.root}/data"; }"#;
    let space = ground(r#"use "copied" on="a" from="b""#, ("copied", step));
    for number in 0..40 {
        space.write(format!("srv/b/data/{number}"), vec![b'x'; 100_000]);
    }
    // No room for a whole piece.
    let short = r#"
case $(readlink /proc/$$/fd/1) in
*/chunk) {real} "$@" | head -c 500000; exit 1 ;;
*) exec {real} "$@" ;;
esac"#;
    let path = instead(&space, "dd", short);
    let told = space.finish(space.rel(["e"]).env("PATH", path)).fails(1);
    assert!(told.stderr.contains("no room for what is sent"), "{told}");
    assert!(!space.has("srv/a/data"));
    let _ = space.run(["e"]).ok();
    // A host that is lost is no step that has failed: the next run goes on.
    let tar = r#"read -r pid name state parent group rest </proc/$$/stat; kill -KILL "-$group""#;
    let path = instead(&space, "tar", tar);
    fs::remove_file(space.base().join("bin/dd")).expect("removes");
    let told = space
        .finish(space.rel(["e", "--force"]).env("PATH", path))
        .fails(1);
    assert!(
        told.stderr.contains("the connection to host `b` ended"),
        "{told}"
    );
    assert_eq!(count(&space, "gone-back"), 1);
    let _ = space.run(["e"]).ok();
    // What cannot be moved away is not moved into.
    let mv = r#"case "$*" in *former) exit 1 ;; *) exec {real} "$@" ;; esac"#;
    let path = instead(&space, "mv", mv);
    fs::remove_file(space.base().join("bin/tar")).expect("removes");
    let told = space.finish(space.rel(["e", "--force"]).env("PATH", path));
    assert!(told.fails(1).stderr.contains("cannot be moved into place"),);
    assert_eq!(
        fs::read_dir(space.path("srv/a/data"))
            .expect("lists")
            .count(),
        40
    );
}

#[test]
fn a_service_that_nobody_knows_of_does_not_begin() {
    let step = r#"step "run" { service "svc" run="echo one >>begun; exec sleep 1000" log="{host.root}/log"; dir "{host.root}"; }"#;
    let space = ground(r#"use "svc" on="a""#, ("svc", step));
    let mv = r#"case "$*" in *services/*/pid) touch srv/a/now; sleep 100 ;; *) exec {real} "$@" ;; esac"#;
    let path = instead(
        &space,
        "mv",
        &mv.replace("srv/a", &space.path("srv/a").display().to_string()),
    );
    let run = space.start(space.rel(["e"]).env("PATH", path));
    wait_until("the moment", || space.has("srv/a/now").then_some(()));
    run.signal(Signal::INT);
    let _ = run.finish().fails(130);
    let _ = space.run(["e"]).ok();
    assert_eq!(space.lines("srv/a/begun").len(), 1);
    let _ = space.run(["e", "--rollback"]).ok();
}

#[test]
fn a_link_that_is_written_over_comes_back() {
    let steps = r#"
    step "one" { write "{host.root}/to-file" "1"; }
    step "two" { write "{host.root}/to-nothing" "1"; }
"#;
    let space = ground(r#"use "r" on="a""#, ("r", steps));
    space.write("srv/a/file", "content");
    for (name, to) in [("to-file", "file"), ("to-nothing", "nothing")] {
        std::os::unix::fs::symlink(to, space.path("srv/a").join(name)).expect("links");
    }
    let _ = space.run(["e"]).ok();
    assert_eq!(space.read("srv/a/to-nothing"), "1");
    let _ = space.run(["e", "--rollback"]).ok();
    for (name, to) in [("to-file", "file"), ("to-nothing", "nothing")] {
        let found = fs::read_link(space.path("srv/a").join(name)).expect("a link");
        assert_eq!(found, std::path::Path::new(to));
    }
    assert_eq!(space.read("srv/a/file"), "content");
}

#[test]
fn a_question_that_was_killed_is_not_answered_with_no() {
    let step = r#"step "one" { run "echo one >>ran"; check "test -e ran; sh -c 'test ! -e killed || kill -KILL $$'"; }"#;
    let role = r#"role "active" on="a" command="sh -c 'test ! -e {host.root}/killed || kill -KILL $$'"; use "r" on="active""#;
    let space = ground(role, ("r", step));
    let main = space.read("Releasefile.kdl") + "environment \"f\" { use \"r\" on=\"a\"; }\n";
    space.write("Releasefile.kdl", main);
    let _ = space.run(["f"]).ok();
    space.write("srv/a/killed", "");
    for name in ["e", "f"] {
        let told = space.run([name]).fails(1);
        assert!(told.stderr.contains("was killed there"), "{told}");
    }
    space.remove("srv/a/killed");
    let _ = space.run(["f"]).ok();
    assert_eq!(space.lines("srv/a/ran").len(), 1);
}

#[test]
fn help_that_could_not_be_written_is_an_error() {
    let space = Space::empty();
    for args in ["--help", "--version", "build --help"] {
        let script = format!("{REL} {args} > /dev/full");
        let output = space.finish(space.program("sh").args(["-c", &script]));
        assert_ne!(output.code, 0, "{args}: {output}");
        assert!(
            output.stderr.contains("cannot write to standard output"),
            "{output}"
        );
    }
}
