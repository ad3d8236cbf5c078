//! Scopes: modes that end with the run, however it ends.

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};

use super::{recipe, shown, space, steps, told};
use crate::hosts::Hosts;
use crate::space::{Space, is_alive, wait_until};

/// A mode around a step that goes on until the file `go` is there; `stuck` keeps the mode
/// from ending.
fn closed() -> Space {
    let space = space("use \"closed\" on=\"a\"");
    let body = r#"
    step "closed" {
        scope "{use}" enter="echo closed >> log; : > closed" leave="if test -e stuck; then echo it is stuck; exit 1; fi; rm -f closed; echo open >> log"
    }
    step "work" on-change="closed" { run "echo work >> log; echo $$ > pid; test ! -e bad; while ! test -e go; do sleep 0.02; done" }"#;
    recipe(&space, "closed", body);
    space
}

fn begin_and_cut(space: &Space, cut: impl FnOnce(&crate::space::Job<'_>, i32)) {
    let job = space.begin(["staging"]);
    let pid = space.wait_for("hosts/a/pid");
    cut(&job, pid.trim().parse().expect("a number"));
    let _ = job.finish();
    space.remove("hosts/a/pid");
}

fn is_left(space: &Space) {
    wait_until("the host's guard", || {
        (!space.has("hosts/a/.rel/staging/lease")).then_some(())
    });
}

#[test]
fn a_scope_ends_with_a_run_that_ends_well_and_is_fresh_then() {
    let space = closed();
    space.write("hosts/a/go", "");
    let _ = space.run(["staging"]).ok();
    assert_eq!(space.lines("hosts/a/log"), ["closed", "work", "open"]);
    assert_eq!(told(&space, &[])["ran"], 0);
}

#[test]
fn a_scope_ends_when_a_step_fails_and_is_entered_again() {
    let space = closed();
    space.write("hosts/a/bad", "").write("hosts/a/go", "");
    let _ = space.run(["staging"]).fails(1);
    assert_eq!(space.lines("hosts/a/log"), ["closed", "work", "open"]);
    space.remove("hosts/a/bad");
    let _ = space.run(["staging"]).ok();
    assert_eq!(space.lines("hosts/a/log")[3..], ["closed", "work", "open"]);
}

#[test]
fn a_scope_ends_when_rel_is_killed_and_what_was_done_under_it_is_done_again() {
    let space = closed();
    begin_and_cut(&space, |job, _| job.signal(Signal::KILL));
    is_left(&space);
    assert_eq!(space.lines("hosts/a/log"), ["closed", "work", "open"]);
    let plan = told(&space, &["--plan"]);
    assert_eq!(steps(&plan, "run"), ["a closed/closed", "a closed/work"]);
    space.write("hosts/a/go", "");
    let _ = space.run(["staging"]).ok();
    assert_eq!(space.lines("hosts/a/log")[3..], ["closed", "work", "open"]);
}

#[test]
fn a_scope_that_can_not_be_left_is_pending_until_it_is() {
    let space = closed();
    space.write("hosts/a/stuck", "");
    begin_and_cut(&space, |job, _| job.signal(Signal::KILL));
    is_left(&space);
    assert!(space.has("hosts/a/closed"));
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok()), @"
    a  pending  the end of `closed`: first
    a  closed (closed)
          run  closed      until the run ends: closed  was not left last time
          run  work        echo work >> log; echo $$ > pid; test ! -e bad; while ! test -e go; do sleep 0.02; done  `closed` runs
    closed  rollback: closed; no rollback: work
    staging: 2 steps would run, 0 up to date, on 1 host
    ");
    assert_snapshot!(shown(&space.run(["staging"]).fails(1)), @r#"
    --- stderr
    error: `closed` on host `a` cannot be left
      says   it is stuck
      leave  [work]/hosts/a/.rel/staging/scopes/closed
      log    [work]/hosts/a/.rel/staging/scopes.log
      help: fix what its `leave` command needs, and run the same command again; if it can never be left, do the rest by hand, then `rel staging --abandon closed --reason "…"`
    --- exit code 1
    "#);
    space.remove("hosts/a/stuck").write("hosts/a/go", "");
    let _ = space.run(["staging"]).ok();
    let log = space.lines("hosts/a/log");
    assert_eq!(log, ["closed", "work", "open", "closed", "work", "open"]);
    assert_eq!(told(&space, &["--plan"])["owed"], serde_json::json!({}));
}

#[test]
fn a_scope_that_can_never_be_left_is_given_up_with_a_reason() {
    let space = closed();
    space.write("hosts/a/stuck", "");
    begin_and_cut(&space, |job, _| job.signal(Signal::KILL));
    is_left(&space);
    assert_snapshot!(shown(&space.run(["staging", "--abandon", "closed"])), @"
    --- stderr
    error: the following required arguments were not provided:
      --reason <TEXT>
    
    Usage: staging --reason <TEXT> <--abandon <SCOPE>|--override <GUARD>> [PARAMETER]...
    --- exit code 2
    ");
    let give_up = |scope| space.run(["staging", "--abandon", scope, "--reason", "it is\tgone"]);
    assert_snapshot!(shown(&give_up("open")), @"
    --- stderr
    error: the scope `open` is pending on no host of `staging`
      owed  closed
    --- exit code 2
    ");
    assert!(space.has("hosts/a/.rel/staging/scopes/closed"));
    let done = shown(&give_up("closed").ok());
    let file = regex::Regex::new(r"closed-2\S+").expect("a pattern");
    assert_snapshot!(file.replace(&done, "closed-[RUN]"), @"
    --- stderr
    rel: staging: `closed` is abandoned on host `a`; its `leave` command is kept in [work]/hosts/a/.rel/staging/abandoned/closed-[RUN]
    ");
    let kept = space.shell("cat hosts/a/.rel/staging/abandoned/*");
    assert!(kept.contains("rel_state="), "{kept}");
    // Nothing is owed any more, and a run begins anew.
    assert_eq!(told(&space, &["--plan"])["owed"], serde_json::json!({}));
    let history = space.run(["history", "staging"]).ok().stdout;
    assert!(
        history.contains(", gave up `closed`: it is gone\n"),
        "{history}"
    );
    assert_snapshot!(shown(&give_up("closed")), @"
    --- stderr
    error: the scope `closed` is pending on no host of `staging`
      help: nothing is pending: nothing was changed
    --- exit code 2
    ");
    space.remove("hosts/a/stuck").write("hosts/a/go", "");
    let _ = space.run(["staging"]).ok();
    let log = space.lines("hosts/a/log");
    assert_eq!(log, ["closed", "work", "closed", "work", "open"]);
}

/// One that was entered later, and cannot be left either, is to be given up first.
#[test]
fn a_scope_is_given_up_only_when_it_is_the_last_one() {
    let space = closed();
    let scopes = "hosts/a/.rel/staging/scopes";
    let _ = space.run(["staging", "--plan"]).ok();
    space.shell(
        "mkdir -p -m 700 hosts/a/.rel/staging/scopes; chmod 700 hosts/a/.rel hosts/a/.rel/staging",
    );
    for (name, step) in [("one", 1), ("two", 2)] {
        let text = format!("# run {step}\n# closed/{name}\nexit 1\n");
        space.write(format!("{scopes}/{name}"), text);
    }
    let give_up = |name| space.run(["staging", "--abandon", name, "--reason", "gone"]);
    let refused = give_up("one").fails(1);
    assert!(
        refused.stderr.contains("`two` on host `a` cannot be left"),
        "{refused}"
    );
    assert!(space.has(format!("{scopes}/one")) && space.has(format!("{scopes}/two")));
    // Then the other one is still owed, and told.
    let told = give_up("two").fails(1).stderr;
    assert!(told.contains("`one` on host `a` cannot be left"), "{told}");
    assert!(!space.has(format!("{scopes}/two")));
    let _ = give_up("one").ok();
    assert_eq!(space.shell(&format!("ls {scopes}")), "");
}

/// What can be left after all is left.
#[test]
fn a_scope_that_can_be_left_is_not_given_up() {
    let space = closed();
    space.write("hosts/a/stuck", "");
    begin_and_cut(&space, |job, _| job.signal(Signal::KILL));
    is_left(&space);
    space.remove("hosts/a/stuck");
    let args = ["staging", "--abandon", "closed", "--reason", "it is gone"];
    assert_snapshot!(shown(&space.run(args).ok()), @"
    --- stderr
    rel: staging: `closed` was left on host `a`
    ");
    assert_eq!(space.lines("hosts/a/log"), ["closed", "work", "open"]);
    assert!(!space.has("hosts/a/.rel/staging/abandoned"));
}

#[test]
fn what_a_killed_guard_left_at_work_is_ended_before_its_scope() {
    let space = closed();
    let mut program = 0;
    begin_and_cut(&space, |job, pid| {
        program = pid;
        let guard = parent(parent(pid));
        kill_process(Pid::from_raw(guard).expect("a process"), Signal::KILL).expect("is there");
        job.signal(Signal::KILL);
    });
    assert!(is_alive(&program.to_string()));
    assert_eq!(space.lines("hosts/a/log"), ["closed", "work"]);
    let job = space.begin(["staging"]);
    let _ = space.wait_for("hosts/a/pid");
    assert!(!is_alive(&program.to_string()));
    let log = space.lines("hosts/a/log");
    assert_eq!(log, ["closed", "work", "open", "closed", "work"]);
    space.write("hosts/a/go", "");
    let _ = job.finish().ok();
}

#[test]
fn a_host_that_died_leaves_its_scope_before_anything_else_is_done_there() {
    let mut hosts = Hosts::start(1);
    let space = closed();
    let nodes = hosts.kdl();
    space.write(
        "Releasefile.kdl",
        format!("{nodes}\nenvironment \"staging\" {{ use \"closed\" on=\"h1\"; }}\n"),
    );
    let log = hosts.all[0].srv("log");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    let job = space.begin(["staging"]);
    wait_until("the step", || lines().contains("work").then_some(()));
    hosts.reboot(0);
    let _ = job.finish();
    assert_eq!(lines(), "closed\nwork\n");
    std::fs::write(hosts.all[0].srv("go"), "").expect("writes");
    let _ = space.run(["staging"]).ok();
    assert_eq!(lines(), "closed\nwork\nopen\nclosed\nwork\nopen\n");
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("is alive");
    let behind = stat.rsplit_once(") ").expect("a name").1;
    let word = behind.split(' ').nth(1).expect("a number");
    word.parse().expect("a number")
}
