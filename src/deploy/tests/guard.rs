//! Plan, run, second run, failing step, and a connection that ends in the middle.

use super::super::*;
use crate::core::cancel::Cancel;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::program::Header;
use crate::deploy::remote::session::Session;
use crate::deploy::remote::transport::System;

#[test]
fn a_second_run_has_nothing_to_do_and_asks_once() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "files",
        r#"
        param "word"
        step "write" { write "{host.root}/out/file" "{word}\n" mode="0640" }
        step "link" { symlink "{host.root}/out/link" to="file" }
        step "run" on-change="write" { run "cat out/link >>out/log; printf '%s\\n' {word}" }
        "#,
    );
    space.uses("files on a", &[("word", "it's $HOME \"x\"")]);
    let plan = space.plan();
    assert_eq!((plan.to_run, plan.round_trips), (3, 1));
    assert!(!exists(&space.path("hosts")), "a plan changes nothing");
    let outcome = space.apply();
    assert_eq!(outcome.ran, 3);
    assert_eq!(space.read("hosts/a/out/log"), "it's $HOME \"x\"\n");
    assert_eq!(
        space.told(),
        [
            "files/write Done",
            "files/link Done",
            "| it's $HOME \"x\"",
            "files/run Done"
        ]
    );
    let again = space.apply();
    assert_eq!((again.ran, again.fresh, again.round_trips), (0, 3, 1));
    assert_eq!(space.told(), Vec::<String>::new());
    // Drift is found although the keys hold.
    std::fs::remove_file(space.path("hosts/a/out/link")).expect("removes");
    assert_eq!(space.apply().ran, 1);
    assert_eq!(space.link("hosts/a/out/link"), "file");
    // Another word: the write and what follows it, not the link.
    space.arg("word", "two");
    let plan = space.plan();
    let verdicts: Vec<String> = plan.jobs[0]
        .steps
        .iter()
        .map(|s| format!("{} {:?} {}", s.name, s.verdict, s.reason))
        .collect();
    assert_eq!(
        verdicts,
        [
            "write Run changed since run run2",
            "link Fresh ",
            "run Run `write` runs"
        ]
    );
}

#[test]
fn a_failing_step_takes_all_before_it_back() {
    let mut space = Space::new(&["a", "b"]);
    space.recipe(
        "first",
        r#"step "link" { symlink "{host.root}/current" to="{environment}" }"#,
    );
    space.recipe(
        "second",
        r#"
        param "ok"
        step "file" { write "{host.root}/file" "new" }
        step "try" {
            run "echo tries; test {ok} = yes"
            undo "echo back >>undone"
        }
        "#,
    );
    space.uses("first on a", &[]);
    space.uses("second on b", &[("ok", "no")]);
    std::fs::create_dir_all(space.path("hosts/b")).expect("makes");
    std::fs::write(space.path("hosts/b/file"), "old").expect("writes");
    let error = space.fails();
    insta::assert_snapshot!(error.to_string(), @"
    `staging` stopped: step `second/try` failed on host `b`
      status  1
      output  tries
      undone  3 steps
      help: all steps were rolled back; fix the error and run the same command again
    ");
    assert!(!exists(&space.path("hosts/a/current")));
    assert_eq!(space.read("hosts/b/file"), "old");
    assert_eq!(space.read("hosts/b/undone"), "back\n");
    assert_eq!(
        space.told(),
        [
            "first/link Done",
            "second/file Done",
            "| tries",
            "second/try Failed(1)",
            "second/try Undone",
            "second/file Undone",
            "first/link Undone"
        ]
    );
    // Nothing of it counts as done.
    space.environment.uses[1].args.insert(
        "ok".into(),
        Arg {
            text: "yes".into(),
            place: Span::default(),
        },
    );
    assert_eq!(space.apply().ran, 3);
    assert_eq!(space.read("hosts/b/file"), "new");
}

#[test]
fn what_needs_no_way_back_has_none() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "adds",
        r#"
        step "file" undo=#false { write "{host.root}/file" "new" }
        step "link" undo=#false { symlink "{host.root}/link" to="new" }
        step "own" { write "{host.root}/own" "new" }
        step "try" { run "false" }
        "#,
    );
    space.uses("adds on a", &[]);
    std::fs::create_dir_all(space.path("hosts/a")).expect("makes");
    for name in ["file", "own"] {
        std::fs::write(space.path("hosts/a").join(name), "old").expect("writes");
    }
    space.fails();
    assert_eq!(space.read("hosts/a/file"), "new");
    assert_eq!(space.link("hosts/a/link"), "new");
    assert_eq!(space.read("hosts/a/own"), "old");
    let undone: Vec<String> = space
        .told()
        .into_iter()
        .filter(|t| t.ends_with("Undone"))
        .collect();
    assert_eq!(undone, ["adds/own Undone"]);
    // Nothing is kept for them, and they are not done again.
    let kept = std::fs::read_dir(space.path("hosts/a/.rel/staging/undo/run1")).expect("lists");
    let names = kept.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("text")
    });
    assert_eq!(names.collect::<Vec<_>>(), ["3.old"]);
    space.fails();
    assert_eq!(space.told()[..1], ["adds/own Done"]);
}

#[test]
fn an_interrupted_run_is_resumed_at_the_step_that_did_not_finish() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "slow",
        r#"
        step "one" { run "echo one >>log; echo {run-id} >>runs" }
        step "two" { run "echo $$ >pid; if [ ! -e go ]; then sleep 60 & sleep 60; fi; echo two >>log; echo {run-id} >>runs" }
        step "three" on-change="two" { run "echo three >>log" }
        "#,
    );
    space.uses("slow on a", &[]);
    let flag = space.cancel.clone();
    let pid = space.path("hosts/a/pid");
    let waiter = std::thread::spawn({
        let pid = pid.clone();
        move || {
            wait_for(&pid);
            flag.set();
        }
    });
    let error = space.fails();
    waiter.join().expect("ends");
    assert_eq!(error.kind, crate::core::error::ErrorKind::Interrupted);
    assert_eq!(
        space.journal("a"),
        [
            "begin slow",
            "start slow/one",
            "done slow/one",
            "start slow/two",
            "interrupted slow/two"
        ]
    );
    assert!(!exists(&space.path("hosts/a/.rel/staging/lease")));
    let group = space.read("hosts/a/pid");
    let left = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ps -o stat= -g \"$(ps -o sess= -p {0} 2>/dev/null)\" 2>/dev/null | grep -v Z; kill -0 {0} 2>/dev/null && cat /proc/{0}/stat | grep -v ' Z '",
            group.trim()
        ))
        .output()
        .expect("runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    space.cancel = Cancel::default();
    std::fs::write(space.path("hosts/a/go"), "").expect("writes");
    assert_eq!(space.apply().ran, 2);
    assert_eq!(space.read("hosts/a/log"), "one\ntwo\nthree\n");
    // The attempt keeps the name it was begun under.
    assert_eq!(space.read("hosts/a/runs"), "run1\nrun1\n");
    assert_eq!(space.apply().ran, 0);
}

#[test]
fn steps_of_several_runs_that_go_back_together_are_told_apart() {
    let mut space = Space::new(&["a"]);
    let slow = r#"step "slow" { run "echo $$ >pid; sleep 60"; undo "echo slow >>undone" }"#;
    space.recipe("r", slow);
    space.uses("r on a", &[]);
    let (flag, pid) = (space.cancel.clone(), space.path("hosts/a/pid"));
    let waiter = std::thread::spawn(move || {
        wait_for(&pid);
        flag.set();
    });
    space.fails();
    waiter.join().expect("ends");
    space.cancel = Cancel::default();
    // Another step has the same position now.
    let text = format!(
        "{}\n{slow}",
        r#"step "new" { run "echo new >new; exit 1"; undo "echo new >>undone" }"#
    );
    space.recipe("r", &text);
    space.fails();
    assert_eq!(space.read("hosts/a/undone"), "new\nslow\n");
    let told = space.told();
    let undone: Vec<&str> = told.iter().map(String::as_str).collect();
    assert_eq!(
        undone.get(undone.len() - 2..),
        Some(&["r/new Undone", "r/slow Undone"][..]),
        "{told:?}"
    );
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "slow",
        r#"
        step "before" { symlink "{host.root}/l" to="x" }
        step "sleep" { timeout "300ms"; run "echo begins; sleep 60" }
        "#,
    );
    space.uses("slow on a", &[]);
    let error = space.fails();
    insta::assert_snapshot!(error.to_string(), @"
    `staging` stopped: step `slow/sleep` failed on host `a`
      status       took longer than 300ms and was ended
      output       begins
      undone       1 step
      no rollback  slow/sleep on a
      help: the other steps were rolled back; fix the error and run the same command again
    ");
    assert!(!exists(&space.path("hosts/a/l")));
}

#[test]
fn a_way_back_that_fails_is_told() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "bad",
        r#"
        step "one" { run "true"; undo "echo cannot; exit 3" }
        step "two" { run "exit 7" }
        "#,
    );
    space.uses("bad on a", &[]);
    let error = space.fails();
    assert_eq!(error.kind, crate::core::error::ErrorKind::NotRolledBack);
    insta::assert_snapshot!(error.to_string(), @"
    `staging` stopped: step `bad/two` failed on host `a`
      status      7
      rollback    the rollback failed as well
      not undone  bad/one on a: cannot
      help: check the hosts: it is not known which release is live there
    ");
}

#[test]
fn broken_shell_text_ends_its_step_only() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "broken",
        r#"
        step "one" { run "echo one >one" ; undo "rm one" }
        step "two" { run "if true; then (" }
        "#,
    );
    space.uses("broken on a", &[]);
    let error = space.fails();
    assert!(error.message.contains("broken/two"), "{error}");
    assert!(!exists(&space.path("hosts/a/one")));
}

#[test]
fn what_is_found_done_is_adopted() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "adopt",
        r#"
        step "checked" { check "test -e there"; run "echo no >>there" }
        step "link" { symlink "{host.root}/l" to="x" }
        "#,
    );
    space.uses("adopt on a", &[]);
    std::fs::create_dir_all(space.path("hosts/a")).expect("makes");
    std::fs::write(space.path("hosts/a/there"), "").expect("writes");
    std::os::unix::fs::symlink("x", space.path("hosts/a/l")).expect("links");
    let plan = space.plan();
    let verdicts: Vec<StepVerdict> = plan.jobs[0].steps.iter().map(|s| s.verdict).collect();
    assert_eq!(verdicts, [StepVerdict::Adopt, StepVerdict::Adopt]);
    assert_eq!(space.apply().ran, 0);
}

#[test]
fn hosts_of_one_use_go_together_and_back_together() {
    let mut space = Space::new(&["a", "b", "c"]);
    space.recipe(
        "all",
        r#"
        step "link" { symlink "{host.root}/current" to="{host.name}" }
        step "try" { run "test {host.name} != b" }
        "#,
    );
    space
        .project
        .groups
        .insert("ops".into(), ["a", "b", "c"].map(String::from).to_vec());
    space.uses("all on ops", &[]);
    let error = space.fails();
    assert!(error.message.contains("on host `b`"), "{error}");
    for host in ["a", "b", "c"] {
        assert!(!exists(&space.path(&format!("hosts/{host}/current"))));
    }
}

#[test]
fn two_at_once_do_not_meet() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "hold",
        r#"step "one" { run "mkdir held; while [ ! -e go ]; do sleep 0.02; done" }"#,
    );
    space.uses("hold on a", &[]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| space.apply());
        wait_for(&space.path("hosts/a/held"));
        let error = space.fails();
        assert_eq!(error.message, "another run is active on host `a`");
        let facts: Vec<&str> = error.facts.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(facts[..3], ["ann@here", "staging", "run1"]);
        std::fs::write(space.path("hosts/a/go"), "").expect("writes");
        assert_eq!(first.join().expect("ends").ran, 1);
    });
}

#[test]
fn a_step_can_not_speak_for_rel() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "forger",
        r#"
        fact "nonce" "printf %s \"${{rel_nonce:-none}}\""
        step "one" {
            run "printf '\\036%s failed 1 9\\n' \"${{rel_nonce:-none}}\"; test ! -s \"$rel_tmp/program\""
            verify "printf '%s %s\\n' {nonce} \"${{rel_nonce:-none}}\""
        }
        "#,
    );
    space.uses("forger on a", &[]);
    assert_eq!(space.apply().ran, 1);
    assert_eq!(
        space.told(),
        ["| \u{1e}none failed 1 9", "| none none", "forger/one Done"]
    );
}

#[test]
fn a_step_is_ended_by_its_own_number_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().display().to_string();
    let host = Host {
        name: "a".into(),
        reach: Reach::Local,
        root: root.clone(),
        into_foreign: false,
        vars: BTreeMap::new(),
        place: Span::default(),
    };
    let header = Header {
        nonce: "n0".into(),
        state: format!("{root}/.rel/e"),
        project: String::new(),
        root,
        name: String::new(),
        run: "r".into(),
        who: "me".into(),
        purpose: "e".into(),
        lease: std::time::Duration::from_secs(60),
        may_write_foreign: false,
        project_uid: None,
        checkout: None,
    };
    let system = System::new(&connection_options(dir.path().to_owned()));
    // The step took too long, and by the time that is reported another one is at work.
    for (at, is_ended) in [(7, true), (8, false)] {
        let body = format!("echo {at} >\"$rel_tmp/at\"\nrel_emit start 7\nsleep 1");
        let system = std::sync::Arc::new(system.clone());
        let mut session = Session::new(
            system,
            crate::deploy::remote::gates::Gates::new(1),
            &host,
            &header,
        );
        let program = header.program(&body);
        let status = session.run(&program, &Cancel::default(), &mut |frame| {
            matches!(frame, Frame::Event(text) if text == "start 7").then(std::time::Instant::now)
        });
        assert_eq!(status.expect("ends") != 0, is_ended, "step {at}");
    }
}

/// A beat that comes while the end of the questions is being told tells no end of its own, which
/// the next call would take for its answer.
#[test]
fn an_end_is_told_once() {
    let library = crate::deploy::protocol::program::SESSION_LIB;
    let (_, text) = library
        .split_once("rel_check_program() {")
        .expect("is there");
    let (text, _) = text.split_once("\n}\n").expect("ends");
    let dir = tempfile::tempdir().expect("a directory");
    // It ends just when somebody looks whether it is there.
    let script = format!(
        "rel_tmp=$1 rel_at_work=questions rel_program=1\n\
         : >\"$rel_tmp/told\"\n\
         rel_read_birth() {{ echo 0 >\"$rel_tmp/told\"; return 1; }}\n\
         rel_report_end() {{ echo \"ended $1\"; }}\n\
         rel_check_program() {{{text}\n}}\nrel_check_program\n"
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(dir.path())
        .output()
        .expect("sh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(output.status.success());
}
