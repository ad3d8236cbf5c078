//! Cut off in the middle: killed, interrupted, too slow, two at once.

use insta::assert_snapshot;
use rustix::process::Signal;

use super::{recipe, shown, space, told};
use crate::space::{Space, is_alive, wait_until};

/// Three steps, the second of which goes on until the file `go` is there.
fn slow() -> Space {
    let space = space(
        r#"
    use "slow" on="a"
    use "slow" as="other" on="b""#,
    );
    let body = r#"
    step "before" { run "echo before >> log" }
    step "slow" {
        run "echo slow >> log; sh -c 'echo $$ > child; exec sleep 1000' & echo $$ > pid; test -e ../../go || wait; kill $!"
    }
    step "after" { run "echo after >> log" }"#;
    recipe(&space, "slow", body);
    space
}

/// Cuts a run off in its second step and returns how it ended.
fn cut(space: &Space, signal: Signal) -> crate::space::Output {
    let job = space.begin(["staging"]);
    let pids = ["pid", "child"].map(|f| space.wait_for(&format!("hosts/a/{f}")));
    job.signal(signal);
    let output = job.finish();
    wait_until("the end of the step's processes", || {
        (!pids.iter().any(|pid| is_alive(pid))).then_some(())
    });
    wait_until("the journal", || {
        let journal = space.read("hosts/a/.rel/staging/journal");
        journal.contains("interrupted").then_some(())
    });
    output
}

/// The next run goes on at the step that did not finish, and no finished one runs twice.
fn resumes(space: &Space) {
    let plan = told(space, &["--plan"]);
    assert_eq!(super::steps(&plan, "run")[0], "a slow/slow");
    space.write("go", "");
    let _ = space.run(["staging"]).ok();
    assert_eq!(
        space.lines("hosts/a/log"),
        ["before", "slow", "slow", "after"]
    );
    assert_eq!(space.lines("hosts/b/log"), ["before", "slow", "after"]);
    assert_eq!(told(space, &[])["ran"], 0);
}

#[test]
fn a_killed_run_ends_on_the_host_and_is_resumed() {
    let space = slow();
    assert_eq!(cut(&space, Signal::KILL).code, 128 + 9);
    resumes(&space);
}

#[test]
fn an_interrupted_run_says_so_and_is_resumed() {
    let space = slow();
    let output = cut(&space, Signal::INT).fails(130);
    assert_snapshot!(shown(&output), @"
    --- stderr
         run a  slow/before  never done here
        done a  slow/before  [TIME]
         run a  slow/slow  never done here
    error: interrupted
      host  a
      step  slow/slow
      log   .rel/logs/staging.log
      help: the step and its processes were ended; the next run goes on there
    --- exit code 130
    ");
    resumes(&space);
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let space = space(r#"use "slow" on="a""#);
    let body = r#"
    step "slow" {
        run "sh -c 'echo $$ > child; exec sleep 1000' & wait"
        timeout "1s"
    }"#;
    recipe(&space, "slow", body);
    let output = space.run(["-q", "staging"]).fails(1);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: `staging` stopped: step `slow/slow` failed on host `a`
      status       took longer than 1s and was ended
      no rollback  slow/slow on a
      help: nothing was rolled back: check what these steps did, and run the same command again
    --- exit code 1
    ");
    assert!(!is_alive(&space.read("hosts/a/child")));
}

/// Who runs a test is another matter everywhere.
fn who(output: &crate::space::Output) -> String {
    let who = regex::Regex::new(r"tester@\S+").expect("a pattern");
    let age = regex::Regex::new(r"\S+ ago").expect("a pattern");
    let text = shown(output);
    let text = who.replace_all(&text, "[WHO]");
    age.replace_all(&text, "[TIME] ago").into_owned()
}

#[test]
fn one_at_a_time_goes_to_a_host() {
    let space = slow();
    let first = space.begin(["staging"]);
    let _ = space.wait_for("hosts/a/pid");
    let second = space.run(["staging"]);
    assert_snapshot!(who(&second), @"
    --- stderr
    error: another run is active on host `a`
      who    [WHO]
      doing  staging
      run    [RUN]
      since  [TIME] ago
      help: run the same command again when that run has ended
    --- exit code 1
    ");
    // A question is answered meanwhile.
    let _ = space.run(["staging", "--plan"]).ok();
    space.write("go", "");
    first.signal(Signal::INT);
    let _ = first.finish();
    let _ = space.run(["staging"]).ok();
}
