//! What a command started ends with its time limit, with Ctrl-C, and with the next `rel` after
//! one that was killed; and nothing else does.

use rustix::process::Signal;

use crate::space::{Space, is_alive, wait_until};

/// Processes that leave their group, their session, their parents or their environment; each
/// writes its number down.
const FAMILY: &[(&str, &str)] = &[
    (
        "in a session of its own",
        "setsid sleep 1000 & echo $! >> pids",
    ),
    (
        "without its parents",
        "(setsid sh -c 'echo $$ >> pids; exec sleep 1000' &)",
    ),
    (
        "without its environment",
        "env -i setsid sleep 1000 & echo $! >> pids",
    ),
    (
        "in a new session, without parents and environment",
        "(setsid sh deep.sh &)",
    ),
    (
        "without its output",
        "(setsid sh -c 'echo $$ >> pids; exec sleep 1000' > /dev/null 2>&1 &)",
    ),
    ("in a group of its own, deaf", "python3 deaf.py &"),
];

const DEAF: &str = r#"
import os, signal, time
os.setpgid(0, 0)
for ignored in [signal.SIGINT, signal.SIGTERM]:
    signal.signal(ignored, signal.SIG_IGN)
print(os.getpid(), file=open("pids", "a"))
time.sleep(1000)
"#;

const DEEP: &str = r#"
echo $$ >> pids
(env -i sh -c 'echo $$ >> pids; sleep 1000' &)
sleep 1000
"#;

/// Processes that write their number down.
const COUNT: usize = 7;

/// Returns a target `t` that starts all of them and then waits.
fn family(timeout: &str) -> Space {
    let space = Space::empty();
    let started: Vec<&str> = FAMILY.iter().map(|(_, command)| *command).collect();
    let text = format!(
        r##"
target "t" {{
    {timeout}
    run #"""
        test ! -e go || exit 0
        {}
        until [ "$(cat pids 2>/dev/null | wc -l)" = {COUNT} ]; do sleep 0.01; done
        echo ready > ready
        sleep 1000
    """#
}}
"##,
        started.join("\n        ")
    );
    space.write("deaf.py", DEAF).write("deep.sh", DEEP);
    space.write("Releasefile.kdl", text);
    space
}

#[track_caller]
fn all_end(space: &Space) {
    let pids = space.lines("pids");
    assert_eq!(pids.len(), COUNT, "{pids:?}");
    wait_until("the end of the processes", || {
        pids.iter().all(|pid| !is_alive(pid)).then_some(())
    });
}

#[test]
fn a_time_limit_ends_all_that_a_command_started() {
    let space = family("timeout \"4s\"");
    let told = space.run(["build"]).fails(1);
    assert!(told.stderr.contains("timed out after 4s"), "{told}");
    all_end(&space);
}

#[test]
fn so_does_an_interrupt() {
    for signal in [Signal::INT, Signal::TERM] {
        let space = family("");
        let job = space.begin(["build"]);
        space.wait_for("ready");
        job.signal(signal);
        let _ = job.finish().fails(130);
        all_end(&space);
    }
}

#[test]
fn so_does_the_next_run_after_one_that_was_killed() {
    let space = family("");
    let job = space.begin(["build"]);
    space.wait_for("ready");
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    assert!(space.lines("pids").iter().all(|pid| is_alive(pid)));
    space.write("go", "");
    let _ = space.run(["build"]).ok();
    all_end(&space);
}

/// What a successful command leaves behind on purpose is none of the family of a later one, not
/// even of the same target.
#[test]
fn a_daemon_that_was_left_on_purpose_goes_on() {
    let space = Space::new(
        r#"
target "daemon" {
    timeout "1s"
    run "test -e daemon || {{ setsid sleep 1000 & echo $! >> daemon; exit 0; }}; sleep 1000"
}
target "after" {
    run "setsid sleep 1000 & echo $! >> second"
    run "echo ready > ready; test -e go || sleep 1000"
}
"#,
    );
    space.build(["daemon"]).ok().is("daemon ran");
    let told = space.run(["build", "daemon", "--force"]).fails(1);
    assert!(told.stderr.contains("timed out"), "{told}");
    let job = space.begin(["build", "after"]);
    space.wait_for("ready");
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    space.write("go", "");
    let _ = space.run(["build", "after"]).ok();
    let left = [space.lines("daemon"), space.lines("second")].concat();
    let alive: Vec<bool> = left.iter().map(|pid| is_alive(pid)).collect();
    space.shell(&format!("kill -9 {}", left.join(" ")));
    assert_eq!(alive, [true; 3]);
}

/// A daemon that a first run left on purpose starts a job while a second one is at work: the job
/// has no parents and the mark of both runs.
#[test]
fn a_job_of_such_a_daemon_goes_on() {
    for is_killed in [false, true] {
        let space = Space::new(
            r#"
target "t" {
    timeout "3s"
    run "test -e daemon || {{ setsid sh daemon.sh & while ! test -e daemon; do sleep 0.01; done; exit 0; }}; echo > at-work; test -e go || sleep 1000"
}
"#,
        );
        space.write(
            "daemon.sh",
            "echo $$ > pid; mv pid daemon\nwhile ! test -e at-work; do sleep 0.01; done\n\
             setsid sh -c 'sleep 1000 & echo $! > pid; mv pid job'\nsleep 1000\n",
        );
        space.build(["t"]).ok().is("t ran");
        let job = space.begin(["build", "t", "--force"]);
        space.wait_for("job");
        if is_killed {
            job.signal(Signal::KILL);
            let _ = job.finish().fails(137);
            space.write("go", "");
            let _ = space.run(["build", "t", "--force"]).ok();
        } else {
            let told = job.finish().fails(1);
            assert!(told.stderr.contains("timed out"), "{told}");
        }
        let left = [space.lines("daemon"), space.lines("job")].concat();
        let alive: Vec<bool> = left.iter().map(|pid| is_alive(pid)).collect();
        space.shell(&format!("kill -9 {}", left.join(" ")));
        assert_eq!(alive, [true; 2], "{is_killed}");
    }
}

/// Everybody can work out the mark of a command. Root's process is in a session in which another
/// user has one with that mark.
const MARKED: &str = r#"
"$REL" build 2>told & rel=$!
until test -e mark; do sleep 0.01; done
setsid sh -c '
    env REL_COMMAND_ID=$(cat mark) setpriv --reuid=1 --regid=1 --clear-groups sleep 1000 & other=$!
    sleep 1000 & echo $other $! > v; mv v victim; wait' &
wait $rel && exit 3
grep -q 'timed out' told
read other own < victim
for pid in $other $own; do grep '^State:.S' /proc/$pid/status; done
kill -9 $other $own
"#;

#[test]
fn a_mark_of_another_user_proves_nothing() {
    let space = Space::new(
        r#"target "t" { timeout "2s"; run "echo $REL_COMMAND_ID > id; mv id mark; while ! test -e victim; do sleep 0.01; done; sleep 1000" }"#,
    );
    let output = space.finish(&mut space.by_root(MARKED)).ok();
    assert_eq!(output.stdout.lines().count(), 2, "{output}");
}

const REUSED: &str = r#"
"$REL" -q build & rel=$!
until test -s ready && grep -q '^+' .rel/running; do sleep 0.02; done
kill -9 $rel; wait $rel 2>/dev/null
group=$(sed -n 's/^+\([0-9]*\) .*/\1/p' .rel/running)
kill -9 -$group; sleep 0.2
come_round $group
touch go
"$REL" -q build || exit 3
grep -q '^State:.S' /proc/$daemon/status
"#;

#[test]
fn a_daemon_with_the_number_of_an_ended_group_lives() {
    let space = Space::new(r#"target "t" { run "echo ready > ready; test -e go || sleep 1000" }"#);
    let _ = space.finish(&mut space.with_own_numbers(REUSED)).ok();
}

/// The mark must be the same in every run, and in no key.
#[test]
fn a_command_that_prints_its_environment_makes_the_same_again() {
    let space = Space::new(r#"target "t" { outputs "o"; run "env | sort > {out}" }"#);
    space.build([]).ok().is("t ran");
    let first = space.read("o");
    assert!(first.contains("\nREL_COMMAND_ID="), "{first}");
    let _ = space.run(["build", "--force"]).ok();
    assert_eq!(space.read("o"), first);
    space.build(["--force"]).ok().is("t ran, same result");
}
