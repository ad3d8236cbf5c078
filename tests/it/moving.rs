//! Things that move while commands run, and what a killed `rel` leaves behind.

use std::fs;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::Space;

/// A command that says when it has started, and goes on when it is told to.
fn gated(before: &str, after: &str) -> String {
    format!("{before}; echo > started; while [ ! -e go ]; do sleep 0.01; done; {after}")
}

/// Starts a build, calls `meanwhile` while the gated command waits, and lets it go on.
fn build_and(space: &Space, meanwhile: impl FnOnce()) -> crate::space::Output {
    let job = space.begin(["build"]);
    space.wait_for("started");
    meanwhile();
    space.write("go", "");
    job.finish()
}

#[test]
fn what_a_needed_target_made_is_an_input_like_any_other() {
    let command = gated("true", "cat {a} > y");
    let space = Space::new(&format!(
        "target \"a\" {{ inputs \"in\"; outputs \"x\"; run \"cat in > x\" }}
         target \"b\" {{ needs \"a\"; outputs \"y\"; run \"{command}\" }}"
    ));
    space.write("in", "1\n");
    let output = build_and(&space, || {
        space.write("x", "somebody's\n");
    })
    .ok();
    assert_snapshot!(output.stderr, @r"
         run a  never built here
        done a  [TIME]
         run b  never built here
    warning: `b` ran, but its input `x` changed meanwhile
      before  50cc1102  2 B
      after   3714a3af  11 B
      help: outputs are kept but not cached; run `rel build b` again
        done b  [TIME]
    rel: 2 ran, 0 fresh, in [TIME]
    ");
    let _ = space.build([]).ok();
    assert_eq!(space.read("y"), "1\n");
}

#[test]
fn an_input_that_changes_and_changes_back_is_noticed() {
    let command = gated(
        "true",
        "cat in > out; echo > read; while [ ! -e end ]; do sleep 0.01; done",
    );
    let space = Space::new(&format!(
        "target \"t\" {{ inputs \"in\"; outputs \"out\"; run \"{command}\" }}"
    ));
    space.write("in", "9\n");
    space.shell("touch -d '1 hour ago' in; cp -p in saved");
    let job = space.begin(["build"]);
    space.wait_for("started");
    space.write("in", "7\n").write("go", "");
    space.wait_for("read");
    space.shell("cp -p saved in");
    space.write("end", "");
    let output = job.finish().ok();
    assert_snapshot!(output.stderr, @r"
         run t  never built here
    warning: `t` ran, but its input `in` was written to meanwhile, and is now what it was before
      help: outputs are kept but not cached; run `rel build t` again
        done t  [TIME]
    rel: 1 ran, 0 fresh, in [TIME]
    ");
    let _ = space.build([]).ok();
    assert_eq!(space.read("out"), "9\n");
}

#[test]
fn hard_links_to_inputs_are_no_change() {
    let space = Space::new(r#"target "t" { inputs "in"; outputs "out"; run "ln in out" }"#);
    space.write("in", "1\n");
    let _ = space.build([]).ok().is("t ran");
    let _ = space.build([]).ok().is("t fresh");
}

#[test]
fn orphans_of_a_killed_rel_write_into_no_later_run() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "out"; run "v=$(cat in); echo > started; sleep $v; echo $v > out" }"#,
    );
    space.write("in", "0.6\n");
    let job = space.begin(["build"]);
    space.wait_for("started");
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.write("in", "0\n");
    let _ = space.build([]).ok().is("t ran");
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(space.read("out"), "0\n");
    let _ = space.build([]).ok().is("t fresh");
}

#[test]
fn only_what_rel_made_itself_is_deleted() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "dist/*.txt"; run "echo w > dist/a.txt; grep -q ok in" }"#,
    );
    space.write("in", "bad\n");
    let _ = space.run(["build"]).fails(1);
    space
        .write("dist/hand.txt", "by hand\n")
        .write("in", "ok\n");
    let _ = space.build([]).ok().is("t ran");
    let aside = walkdir::WalkDir::new(space.path(".rel/aside"));
    let saved: Vec<String> = aside
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(|e| fs::read_to_string(e.path()).expect("reads"))
        .collect();
    assert_eq!(saved, ["by hand\n"], "and what the failed run left is gone");
}

#[test]
fn a_command_that_always_fails_never_costs_a_file() {
    let space = Space::new(r#"target "t" { outputs "doc/*.md"; run "false" }"#);
    for _ in 0..3 {
        space.write("doc/a.md", "mine\n");
        let _ = space.run(["build"]).fails(1);
    }
    let aside = walkdir::WalkDir::new(space.path(".rel/aside"));
    let files = aside
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file());
    assert_eq!(files.count(), 3);
}

#[test]
fn without_a_home_it_builds_without_a_cache() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo > o" }"#);
    let mut command = space.rel(["build"]);
    command
        .env_remove("HOME")
        .env_remove("REL_CACHE_DIR")
        .env_remove("XDG_CACHE_HOME");
    let output = space.finish(&mut command).ok();
    assert_snapshot!(output.stderr, @r"
    warning: going on without the cache: there is no home directory to keep a cache in
      help: set `REL_CACHE_DIR` or `HOME`
         run t  never built here
        done t  [TIME]
    rel: 1 ran, 0 fresh, in [TIME]
    ");
}
