//! The rollback: after a failure, by hand, twice, and when there is none.

use insta::assert_snapshot;

use super::{recipe, shown, space, told};
use crate::space::{Ends, Space, is_alive};

/// Steps on two hosts, each with a rollback that is written down in one file.
fn ways_back() -> Space {
    let space = space(
        r#"
    param "fail" default="no"
    use "step" as="one" on="a" fail="no"
    use "step" as="two" on="b" fail="no"
    use "step" as="three" on="a" fail="{fail}""#,
    );
    let body = r#"
    param "fail"
    step "first" {
        run "echo {use} > {use}"
        undo "rm {use}; echo {use} first >> ../../undone"
    }
    step "second" {
        run "echo {use} second >> ../../done; test {fail} = no"
        undo "echo {use} second >> ../../undone"
    }"#;
    recipe(&space, "step", body);
    space
}

#[test]
fn a_failure_takes_all_back_in_reverse_on_all_hosts() {
    let space = ways_back();
    let failed = space.run(["-q", "staging", "yes"]).fails(1);
    assert_snapshot!(shown(&failed), @"
    --- stderr
    error: `staging` stopped: step `three/second` failed on host `a`
      status  1
      undone  6 steps
      help: all steps were rolled back; fix the error and run the same command again
    --- exit code 1
    ");
    let undone = [
        "three second",
        "three first",
        "two second",
        "two first",
        "one second",
        "one first",
    ];
    assert_eq!(space.lines("undone"), undone);
    for path in ["hosts/a/one", "hosts/b/two", "hosts/a/three"] {
        assert!(!space.has(path), "{path}");
    }
    // What was rolled back is done again.
    assert_eq!(told(&space, &["yes", "--plan"])["to_run"], 6);
    assert_eq!(told(&space, &["no"])["ran"], 6);
}

#[test]
fn there_may_be_nothing_to_go_back_from() {
    let space = ways_back();
    assert_snapshot!(space.run(["staging", "--rollback"]), @"
    --- stderr
    error: the journals of `staging` have nothing to roll back
    --- exit code 2
    ");
    assert!(!space.has("done"));
}

#[test]
fn a_release_goes_back_and_forth() {
    let space = Space::new(
        r#"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "page"
    use "versioned-release" as="site" on="a" artifact="{page}" root="{host.root}/site" keep="3"
}
"#,
    );
    let live = || {
        space
            .read("hosts/a/site/current/artifact/page")
            .trim()
            .to_owned()
    };
    for text in ["one", "two", "three"] {
        space.write("page.in", format!("{text}\n"));
        let _ = space.run(["staging"]).ok();
        assert_eq!(live(), text);
    }
    let _ = space.run(["staging", "--rollback"]).ok();
    assert_eq!(live(), "two");
    let _ = space.run(["staging", "--rollback"]).ok();
    assert_eq!(live(), "one");
    let _ = space.run(["staging", "--rollback"]).ok();
    assert!(!space.has("hosts/a/site/current"));
    let none = space.run(["staging", "--rollback"]);
    assert_snapshot!(shown(&none), @"
    --- stderr
    error: the journals of `staging` have nothing to roll back
    --- exit code 2
    ");

    // Forward again: nothing is uploaded that is there.
    let outcome = told(&space, &[]);
    assert_eq!(live(), "three");
    assert!(outcome["fresh"].as_u64() > Some(0), "{outcome:#}");

    // Old releases go: three former ones stay beside the live one.
    for text in ["four", "five", "six", "seven"] {
        space.write("page.in", format!("{text}\n"));
        let _ = space.run(["staging"]).ok();
        assert_eq!(live(), text);
    }
    let releases = std::fs::read_dir(space.path("hosts/a/site/releases"));
    assert_eq!(releases.expect("lists").count(), 4);
    let _ = space.run(["staging", "--rollback"]).ok();
    assert_eq!(live(), "six");
}

#[test]
fn a_service_that_never_ran_before_is_stopped_on_the_way_back() {
    let space = space(
        r#"
    use "service" as="web" on="a" run="echo $$ > pid; exec sleep 1000" ready="test -s pid"
    use "service" as="managed" on="a" {
        start "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > managed"
        status "kill -0 \"$(cat managed)\""
        stop "kill \"$(cat managed)\"; rm managed"
    }"#,
    );
    let _ends = Ends(&space);
    let _ = space.run(["staging"]).ok();
    let pids = ["pid", "managed"].map(|f| space.read(format!("hosts/a/{f}")));
    assert!(pids.iter().all(|pid| is_alive(pid)));
    let back = space.run(["staging", "--rollback"]).ok();
    assert_snapshot!(shown(&back), @"
    --- stderr
      undone a  managed/start
      undone a  web/run
    rel: staging: rolled back, 2 steps undone, on 1 host
    ");
    assert!(!pids.iter().any(|pid| is_alive(pid)), "still runs");
    // And starts again.
    let _ = space.run(["staging"]).ok();
    assert_eq!(told(&space, &[])["ran"], 0);
}

#[test]
fn a_way_back_that_fails_too_is_told_with_its_own_exit_code() {
    let space = space(r#"use "stuck" on="a""#);
    let body = r#"
    step "move" {
        run "echo moved > moved"
        undo "echo cannot be rolled back; exit 3"
    }
    step "fail" { run "exit 7" }"#;
    recipe(&space, "stuck", body);
    let output = space.run(["-q", "staging"]).fails(4);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: `staging` stopped: step `stuck/fail` failed on host `a`
      status      7
      rollback    the rollback failed as well
      not undone  stuck/move on a: cannot be rolled back
      help: check the hosts: it is not known which release is live there
    --- exit code 4
    ");
}

#[test]
fn what_a_person_wrote_since_is_kept_beside() {
    let space = space(r#"use "files" on="a""#);
    let body = r#"
    step "new" { write "{host.root}/new" "from rel\n" }
    step "old" { write "{host.root}/old" "from rel\n" }
    step "same" { write "{host.root}/same" "from rel\n" }"#;
    recipe(&space, "files", body);
    space
        .write("hosts/a/old", "before\n")
        .write("hosts/a/same", "before\n");
    let _ = space.run(["staging"]).ok();
    space
        .write("hosts/a/new", "by hand\n")
        .write("hosts/a/old", "by hand\n")
        .write("hosts/a/old.rel-saved", "an older one\n");
    let refused = space.run(["staging", "--rollback"]).fails(1);
    assert_eq!(refused.stderr.matches(" is now `").count(), 2, "{refused}");
    assert_eq!(space.read("hosts/a/new"), "by hand\n");
    let output = space.run(["staging", "--rollback", "--force"]).ok();
    let pattern = regex::Regex::new(r"`[^`]*/hosts/").expect("a pattern");
    let text = shown(&output);
    assert_snapshot!(pattern.replace_all(&text, "`[DIR]/"), @"
    --- stderr
      undone a  files/same
    warning: a file on host `a` was changed after rel wrote it: its content is kept as `[DIR]/a/old.rel-saved.2`
      undone a  files/old
    warning: a file on host `a` was changed after rel wrote it: its content is kept as `[DIR]/a/new.rel-saved`
      undone a  files/new
    rel: staging: rolled back, 3 steps undone, on 1 host
    ");
    assert!(!space.has("hosts/a/new"));
    assert_eq!(space.read("hosts/a/new.rel-saved"), "by hand\n");
    assert_eq!(space.read("hosts/a/old"), "before\n");
    assert_eq!(space.read("hosts/a/old.rel-saved"), "an older one\n");
    assert_eq!(space.read("hosts/a/old.rel-saved.2"), "by hand\n");
    assert_eq!(space.read("hosts/a/same"), "before\n");
    assert!(!space.has("hosts/a/same.rel-saved"));
}
