//! Rollbacks when something was lost or moved in between: what a host kept, an instance, a place.

use std::fs;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::{Ends, Output, Space, is_alive, wait_until};

/// Releases a version of an environment whose steps depend on `{v}`.
fn release(space: &Space, version: &str) -> Output {
    space.run(["-q", "e", "--var", &format!("v={version}")])
}

/// Waits until the guard of a run that was killed has left, and returns what the command then did.
fn later(space: &Space, args: &[&str]) -> Output {
    wait_until("the guard has left", || {
        let output = space.run(args);
        (!output.stderr.contains("is held by")).then_some(output)
    })
}

/// The number of the service's process.
fn pid(space: &Space) -> String {
    let pid = space.read("hosts/h/.rel/e/services/app/pid");
    pid.split(' ').next().expect("a number").to_owned()
}

/// What the service that runs was started with.
fn running(space: &Space) -> String {
    assert!(is_alive(&pid(space)), "nothing runs");
    space.read("hosts/h/.rel/e/services/app/run")
}

/// A host whose service says in `ran` which version began; version 2 ends where `dies` is.
fn with_service() -> Space {
    Space::new(
        r#"
var "v" "1"
host "h" local=#true root="hosts/h"
environment "e" {
    use "service" as="app" on="h" within="60s" \
        run="echo up {v} >>ran; if [ {v} = 2 ] && [ -e dies ]; then exit 1; fi; exec sleep 1000" \
        ready="if [ {v} = 2 ] && [ -e dies ]; then sleep 1; fi; test {v} != 2 || test ! -e dies"
}
"#,
    )
}

#[test]
fn a_service_that_ran_before_two_releases_runs_after_two_rollbacks() {
    let space = with_service();
    fs::create_dir_all(space.path("hosts/h")).expect("creates");
    let _ends = Ends(&space);
    let _ = release(&space, "1").ok();
    let _ = release(&space, "2").ok();
    let pid = pid(&space);
    space.shell(&format!("kill -9 {pid}"));
    wait_until("it is gone", || (!is_alive(&pid)).then_some(()));
    let _ = release(&space, "3").ok();
    // Nothing ran before the third release, and the first one before the second.
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(!space.has("hosts/h/.rel/e/services/app/pid"));
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(running(&space).contains("echo up '1'"));
}

#[test]
fn a_service_that_died_in_an_attempt_that_was_cut_off_goes_back_to_the_former_one() {
    let space = with_service();
    fs::create_dir_all(space.path("hosts/h")).expect("creates");
    let _ends = Ends(&space);
    let _ = release(&space, "1").ok();
    space.write("hosts/h/dies", "");
    let job = space.begin(["e", "--var", "v=2"]);
    wait_until("it began", || {
        space.read("hosts/h/ran").contains("up 2").then_some(())
    });
    job.signal(Signal::KILL);
    let _ = job.finish();
    let _ = later(&space, &["e", "--var", "v=3"]).ok();
    assert!(running(&space).contains("echo up '3'"));
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(running(&space).contains("echo up '1'"));
}

/// A file and a link that depend on `{v}`, and a step that works until it is ended or fails.
const STEPS: &str = r#"
    step "file" { write "{host.root}/file" "{v}\n"; }
    step "link" { symlink "{host.root}/link" to="to-{v}"; }
    step "work" undo=#false {
        run "if [ -e slow ]; then touch at-work; sleep 1000; fi; test ! -e bad; : {v}"
    }
"#;

#[test]
fn a_run_that_fails_says_where_an_earlier_attempt_can_not_go_back() {
    let space = Space::with_steps(STEPS);
    let _ = release(&space, "1").ok();
    space.write("hosts/h/slow", "");
    let job = space.begin(["e", "--var", "v=2"]);
    wait_until("it works", || space.has("hosts/h/at-work").then_some(()));
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.remove("hosts/h/slow").write("hosts/h/bad", "");
    // Somebody removes what the attempt has left for its rollback.
    let journal = space.read("hosts/h/.rel/e/journal");
    let last = journal.lines().last().expect("a line");
    let run = last.split('\t').nth(3).expect("a run").to_owned();
    fs::remove_dir_all(space.path(format!("hosts/h/.rel/e/undo/{run}"))).expect("removes");
    let output = later(&space, &["e", "--var", "v=2"]).fails(4);
    let words = "run [RUN] on h: the data for its rollback is gone";
    assert!(output.stderr.contains(words), "{output}");
    assert!(
        !output.stderr.contains("nothing had been switched"),
        "{output}"
    );
    assert_eq!(space.read("hosts/h/file"), "2\n");
}

#[test]
fn a_journal_that_lost_a_release_stops_the_rollback() {
    let space = Space::new(
        r#"
var "v" "1"
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
group "all" "a" "b"
environment "e" { use "r" on="all" v="{v}"; }
"#,
    );
    space.write(
        "recipes/r.kdl",
        format!("recipe \"r\" {{\n param \"v\"\n{STEPS}\n}}\n"),
    );
    let _ = release(&space, "1").ok();
    let before = space.read("hosts/b/.rel/e/journal");
    let _ = release(&space, "2").ok();
    let after = space.read("hosts/b/.rel/e/journal");
    space.write("hosts/b/.rel/e/journal", &before);
    let refused = space.run(["e", "--rollback"]).fails(1).stderr;
    assert!(
        refused.contains("`e` cannot be rolled back on host `b`"),
        "{refused}"
    );
    assert!(
        refused.contains("the journal does not know run"),
        "{refused}"
    );
    assert_eq!(space.read("hosts/a/file"), "2\n");
    space.write("hosts/b/.rel/e/journal", &after);
    let _ = space.run(["-q", "e", "--rollback"]).ok();
    assert_eq!(space.read("hosts/b/file"), "1\n");
    // A release that changed one host says so in its rollback.
    space.write("hosts/a/file", "edited\n");
    let _ = release(&space, "1").ok();
    let back = space.run(["e", "--rollback"]).ok().stderr;
    assert!(back.contains(", on 1 host"), "{back}");
}

#[test]
fn a_directory_in_the_place_of_a_file_or_link_stops_a_rollback_also_by_force() {
    let space = Space::with_steps(STEPS);
    let _ = release(&space, "1").ok();
    let _ = release(&space, "2").ok();
    for name in ["file", "link"] {
        fs::rename(space.path(format!("hosts/h/{name}")), space.path("kept")).expect("moves");
        fs::create_dir(space.path(format!("hosts/h/{name}"))).expect("creates");
        for args in [&["e", "--rollback"][..], &["e", "--rollback", "--force"]] {
            let refused = space.run(args).fails(1).stderr;
            let words = format!("in the way  [work]/hosts/h/{name} is a directory by now");
            assert!(refused.contains(&words), "{refused}");
            assert!(refused.contains("move it away"), "{refused}");
        }
        fs::remove_dir(space.path(format!("hosts/h/{name}"))).expect("removes");
        fs::rename(space.path("kept"), space.path(format!("hosts/h/{name}"))).expect("moves");
    }
    let plan = space.run(["e", "--rollback", "--plan"]).ok().stdout;
    assert!(!plan.contains("stopped"), "{plan}");
    let _ = space.run(["-q", "e", "--rollback"]).ok();
    assert_eq!(space.read("hosts/h/file"), "1\n");
}

#[test]
fn a_secret_that_was_replaced_by_an_older_file_is_not_lost() {
    let space = Space::with_steps("");
    space
        .write("word", "first\n")
        .write(
            "Releasefile.kdl",
            r#"
host "h" local=#true root="hosts/h"
secret "s" file="word"
environment "e" { use "u" on="h" s="s"; }
"#,
        )
        .write(
            "recipes/u.kdl",
            r#"recipe "u" { param "s" type="secret"; step "w" { write "{host.root}/w" "{s}\n"; }; }"#,
        );
    fs::remove_file(space.path("recipes/r.kdl")).expect("removes");
    let _ = space.run(["-q", "e"]).ok();
    space.write("word", "second\n");
    let _ = space.run(["-q", "e"]).ok();
    // As `cp -p`, `rsync -t` and tar leave a file.
    space.shell("echo restored >old; touch -d 2001-01-01 old; cp -p old hosts/h/w.new; mv hosts/h/w.new hosts/h/w");
    let refused = space.run(["e", "--rollback"]).fails(1);
    assert_snapshot!(refused, @"
    --- stderr
    error: `e` cannot be rolled back on host `h`
      differs  [work]/hosts/h/w is now `another file`; the last run left `the secret that rel wrote`
      help: nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)
    --- exit code 1
    ");
    let _ = space.run(["-q", "e", "--rollback", "--force"]).ok();
    assert_eq!(space.read("hosts/h/w"), "first\n");
    assert_eq!(space.read("hosts/h/w.rel-saved"), "restored\n");
}

#[test]
fn an_interrupted_way_back_is_no_failure_that_left_all_as_it_was() {
    let space = Space::with_steps(
        r#"
    step "file" { write "{host.root}/file" "{v}\n"; }
    step "own" { run ": {v}"; undo "if [ -e slow ]; then touch in-undo; sleep 1000; fi"; }
    step "fails" undo=#false { run "test ! -e bad; : {v}"; }
"#,
    );
    let _ = release(&space, "1").ok();
    space.write("hosts/h/bad", "").write("hosts/h/slow", "");
    let job = space.begin(["e", "--var", "v=2"]);
    wait_until("it is rolled back", || {
        space.has("hosts/h/in-undo").then_some(())
    });
    job.signal(Signal::INT);
    let output = job.finish().fails(130);
    assert!(
        output.stderr.contains("interrupted during the rollback"),
        "{output}"
    );
    assert!(
        output.stderr.contains("`--rollback` continues it"),
        "{output}"
    );
    assert_eq!(space.read("hosts/h/file"), "2\n");
    space.remove("hosts/h/slow").remove("hosts/h/bad");
    let _ = later(&space, &["-q", "e", "--rollback"]).ok();
    assert_eq!(space.read("hosts/h/file"), "1\n");
}
