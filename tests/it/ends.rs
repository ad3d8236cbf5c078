//! Ends before the end: Ctrl-C, `kill -9`, two at once.

use std::process::Command;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::{REL, Space, is_alive, wait_until};

/// A target whose commands start a family of processes and then wait.
const FAMILY: &str = r#"
target "slow" {
    inputs "in.txt"
    outputs "x"
    run "cp in.txt x; (trap '' INT; sleep 1000) & echo $! >> pids; sleep 1000 & echo $! >> pids; echo $$ >> pids; echo ready > ready; wait"
}
target "quick" { outputs "q"; run "touch q"; }
target "after" { needs "slow"; run "echo after >> log"; }
"#;

fn family() -> Space {
    let space = Space::new(FAMILY);
    space.write("in.txt", "in\n");
    space
}

/// Waits until none of the processes is left.
#[track_caller]
fn all_gone(space: &Space) {
    let pids = space.lines("pids");
    assert!(pids.len() >= 3, "{pids:?}");
    wait_until("the end of the processes", || {
        pids.iter().all(|pid| !is_alive(pid)).then_some(())
    });
}

#[test]
fn ctrl_c_ends_whole_groups() {
    let space = family();
    let job = space.begin(["build", "-j1", "after"]);
    space.wait_for("ready");
    job.signal(Signal::INT);
    let output = job.finish().fails(130);
    all_gone(&space);
    assert_snapshot!(output, @"
    --- stderr
         run slow  never built here
    rel: interrupted; 1 failed, 1 not tried, 0 up to date, in [TIME]
    --- exit code 130
    ");
    assert!(!space.has("log"));
    assert_snapshot!(space.run(["status", "slow"]).ok(), @"
      stale  slow  its last run was not recorded as a whole
    0 targets up to date, 1 not
    ");
}

#[test]
fn a_request_to_terminate_is_like_ctrl_c() {
    let space = family();
    let job = space.begin(["build"]);
    space.wait_for("ready");
    job.signal(Signal::TERM);
    let _ = job.finish().fails(130);
    all_gone(&space);
}

#[test]
fn what_ignores_the_signal_is_killed() {
    let space = Space::new(
        r#"target "a" { run "trap '' TERM INT HUP; echo $$ > pids; echo ready > ready; while :; do sleep 0.1; done"; }"#,
    );
    let job = space.begin(["build"]);
    space.wait_for("ready");
    job.signal(Signal::INT);
    // A person who presses it again does not want to wait.
    job.signal(Signal::INT);
    let _ = job.finish().fails(130);
    let pid = space.read("pids");
    wait_until("the end of the process", || (!is_alive(&pid)).then_some(()));
}

#[test]
fn after_kill_9_the_next_run_is_right() {
    let space = family();
    let job = space.begin(["build"]);
    space.wait_for("ready");
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    // What it left running is not of this test.
    for pid in space.lines("pids") {
        let _ = Command::new("kill").args(["-9", pid.trim()]).status();
    }
    assert_snapshot!(space.run(["why", "slow"]).ok(), @"
    stale  slow
           its last run was not recorded as a whole
    ");
    // Nobody knows whether the half-made output is the run's or somebody's: nothing is lost.
    space.write(
        "Releasefile.kdl",
        FAMILY.replace(
            "echo ready > ready; wait",
            "kill $!; kill -9 $(head -1 pids)",
        ),
    );
    space.remove("pids");
    let output = space.run(["build"]).ok();
    assert!(output.stderr.contains("moved to"), "{output}");
    space
        .build([])
        .ok()
        .is("after fresh, quick fresh, slow fresh");
}

/// A run killed at any time leaves a state that the next one can build on.
#[test]
fn killed_at_any_time() {
    let releasefile = r#"
target "a" { inputs "in.txt"; outputs "build/a"; run "cp in.txt {out}"; }
target "b" { needs "a"; outputs "build/b/"; run "mkdir build/b; for i in 1 2 3 4 5; do cp {a} build/b/$i; done"; }
target "c" { needs "b"; outputs "build/c"; run "cat build/b/* > {out}"; }
"#;
    let space = Space::new(releasefile);
    for round in 0..12 {
        let text = format!("round {round}\n");
        space.write("in.txt", &text);
        let job = space.begin(["build"]);
        std::thread::sleep(std::time::Duration::from_millis(3 * round));
        let _ = rustix::process::kill_process(job.pid(), Signal::KILL);
        let _ = job.finish();
        let _ = space.build([]).ok();
        assert_eq!(space.read("build/c"), text.repeat(5), "round {round}");
        space.build([]).ok().is("a fresh, b fresh, c fresh");
    }
}

#[test]
fn two_at_once_wait_for_each_other() {
    let space = Space::new(
        r#"target "a" { outputs "x"; run "echo ran >> log; touch x; echo ready > ready; while ! test -e go; do sleep 0.01; done"; }"#,
    );
    let first = space.begin(["build", "a"]);
    space.wait_for("ready");
    let second = space.begin(["build"]);
    wait_until("the second to wait", || {
        second.stderr().contains("waiting").then_some(())
    });
    // Questions do not wait.
    let _ = space.run(["list"]).ok();
    space.write("go", "");
    let _ = first.finish().ok();
    assert_snapshot!(second.finish().ok(), @"
    --- stderr
    waiting for `rel build a` (pid [PID]), which is running in this checkout
    rel: nothing to do, 1 target up to date, in [TIME]
    ");
    assert_eq!(space.lines("log").len(), 1);
}

/// A target that runs until it is told to end.
const GATED: &str = r#"
target "a" { cache #false; outputs "x"; run "echo > ready; until test -e go; do sleep 0.01; done; echo 1 > x" }
"#;

/// The copy's register names processes of the original, by numbers that are true.
#[test]
fn a_copy_of_a_checkout_leaves_the_commands_of_the_original_alone() {
    let space = Space::new(GATED);
    let job = space.begin(["build"]);
    let _ = space.wait_for("ready");
    space.shell("cp -a . ../copy; touch ../copy/go");
    let copy = space.base().join("copy");
    let _ = space.finish(space.rel(["build"]).current_dir(copy)).ok();
    space.write("go", "");
    let _ = job.finish().ok();
    assert_eq!(space.read("x"), "1\n");
}

/// Returns `rel build` as the first process of a container.
fn contained(space: &Space) -> Command {
    let mut command = space.program("unshare");
    if !rustix::process::getuid().is_root() {
        command.arg("-Ur");
    }
    command.args(["-p", "-f", "--mount-proc", REL, "build"]);
    command
}

/// Each of them is process 1, and none has started the other.
#[test]
fn two_containers_at_once_wait_for_each_other() {
    let space = Space::new(GATED);
    let first = space.start(&mut contained(&space));
    let _ = space.wait_for("ready");
    let second = space.start(&mut contained(&space));
    wait_until("the second to wait", || {
        let text = second.stderr();
        (text.contains("waiting") || text.contains("error")).then_some(())
    });
    space.write("go", "");
    let _ = first.finish().ok();
    let _ = second.finish().ok();
}

#[test]
fn who_was_started_by_a_build_does_not_wait_for_it() {
    let space = Space::new(&format!(r#"target "a" {{ run "timeout 5 {REL} build" }}"#));
    for mut build in [space.rel(["build"]), contained(&space)] {
        let text = space.finish(&mut build).fails(1).stderr;
        assert!(text.contains("has started this `rel`"), "{text}");
    }
}

/// A target that runs until its file is there.
const WAITING: &str = r#"
target "wait" {
    each "n" "1" "2" "3"
    inputs "in"
    outputs "{n}.out"
    run "echo >> {n}.started; until test -e {n}.go; do sleep 0.01; done; cat in > {n}.out"
}
"#;

#[test]
fn what_runs_in_a_checkout_whose_state_was_removed_is_neither_recorded_nor_cached() {
    let space = Space::new(WAITING);
    space.write("in", "in\n").write("2.go", "");
    let first = space.begin(["build", "-j1", "wait[1]", "wait[2]"]);
    let _ = space.wait_for("1.started");
    space.remove(".rel");
    space.write("1.go", "");
    assert_snapshot!(first.finish().fails(1), @"
    --- stderr
         run wait[1]  never built here
    warning: `wait[1]` ran, but `.rel` was removed meanwhile, and another `rel` may have worked here
      help: outputs are kept but neither recorded nor cached; run `rel build wait[1]` again
        done wait[1]  [TIME]
         run wait[2]  never built here
    error: `wait[2]` is not made: `.rel` was removed while `rel` was at work, and another `rel` may be running here by now
      help: run the same command again
    rel: 1 failed, 1 ran, 0 up to date, in [TIME]
    --- exit code 1
    ");
    assert!(!space.has("2.started"));
    assert_eq!(space.build(["wait[1]"]).ok().how("wait[1]"), "ran");
}

#[test]
fn who_waited_for_a_lock_that_was_removed_waits_for_the_new_one() {
    let space = Space::new(WAITING);
    space.write("in", "in\n");
    let begin = |n: u32| {
        let job = space.begin(["build", &format!("wait[{n}]")]);
        let waits = || job.stderr().matches("waiting for").count();
        wait_until("it to wait or run", || {
            (waits() > 0 || space.has(format!("{n}.started"))).then_some(())
        });
        job
    };
    let (first, second) = (begin(1), begin(2));
    space.remove(".rel");
    let third = begin(3);
    space.write("1.go", "").write("2.go", "");
    let _ = first.finish().ok();
    let waits = || second.stderr().matches("waiting for").count();
    wait_until("the second to wait again", || (waits() == 2).then_some(()));
    assert!(!space.has("2.started"));
    space.write("3.go", "");
    let _ = third.finish().ok();
    let _ = second.finish().ok();
}

#[test]
fn a_hang_up_that_nohup_ignores_ends_nothing() {
    let space = Space::new(
        "target \"a\" { run \"echo ready > ready; while [ ! -e go ]; do sleep 0.05; done\"; }",
    );
    let mut nohup = space.program("nohup");
    let job = space.start(nohup.args([REL, "build"]));
    space.wait_for("ready");
    job.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    space.write("go", "");
    let _ = job.finish().ok();
}

/// A command is never in the foreground of a terminal: what it asks there nobody is shown.
#[test]
fn a_command_that_asks_at_the_terminal_fails() {
    let space = Space::new(
        r#"target "a" { outputs "o"; run "printf 'Password: ' > /dev/tty; read x < /dev/tty; echo $x > {out}"; }"#,
    );
    let mut script = space.program("script");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    script.args(["-qec", &format!("{REL} build"), "/dev/null"]);
    script
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdin(reader);
    let output = space.finish(&mut script).fails(1);
    drop(writer);
    assert!(
        output.stdout.contains("`a` failed: exit status"),
        "{output}"
    );
}

#[test]
fn ctrl_c_does_not_wait_for_the_next_try() {
    let space = Space::new(
        "host \"a\" local=#true root=\"a\"\nenvironment \"e\" { use \"w\" on=\"a\"; }\n",
    );
    space.write(
        "recipes/w.kdl",
        r#"recipe "w" { step "wait" { wait http="http://127.0.0.1:9/" within="300s" every="120s"; }; }"#,
    );
    let job = space.begin(["e"]);
    wait_until("the wait", || job.stderr().contains("w/wait").then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    job.signal(Signal::INT);
    let _ = job.finish().fails(130);
}
