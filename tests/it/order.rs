//! What runs, in which order, how much at once: `-j -k -n --force`, pools, `make`.
//!
//! That two commands run at once is shown by each waiting for the other; that they do not
//! is shown by a directory that only one can make. Nothing is measured in seconds.

use std::fs;

use insta::assert_snapshot;

use crate::space::Space;

/// Succeeds only while `other` runs as well.
fn meets(name: &str, other: &str) -> String {
    format!(
        "touch {name}.here; n=0; while ! test -e {other}.here; do n=$((n+1)); test $n -lt 3000; sleep 0.01; done"
    )
}

/// Fails when another one runs at the same time.
const ALONE: &str = "mkdir busy; sleep 0.02; rmdir busy";

#[test]
fn jobs_run_at_once() {
    let (a, b) = (meets("a", "b"), meets("b", "a"));
    let space = Space::new(&format!(
        "target \"a\" {{ run \"{a}\"; }}\ntarget \"b\" {{ run \"{b}\"; }}\n"
    ));
    space.build(["-j2"]).ok().is("a ran, b ran");
}

#[test]
fn one_job_is_one_job() {
    let space = Space::new(&format!(
        "target \"a\" {{ each \"i\" \"1\" \"2\" \"3\"; run \"{ALONE}; : {{i}}\"; }}\n"
    ));
    let _ = space.build(["-j1"]).ok();
    assert_snapshot!(space.run(["build", "-j0"]).fails(2), @"
    --- stderr
    error: invalid value '0' for '--jobs <N>': 0 is not in 1..=65535

    For more information, try '--help'.
    --- exit code 2
    ");
}

#[test]
fn a_pool_limits_its_targets_and_no_other() {
    let (x, y) = (meets("x", "y"), meets("y", "x"));
    let space = Space::new(&format!(
        r#"
pool "database" depth=1
target "d" {{ each "i" "1" "2" "3" "4"; pool "database"; run "{ALONE}; : {{i}}"; }}
target "x" {{ run "{x}"; }}
target "y" {{ run "{y}"; }}
"#
    ));
    let _ = space.build(["-j6"]).ok();
    assert_snapshot!(
        Space::new("pool \"p\" depth=2\ntarget \"a\" { pool \"p\" weight=3; run \"true\"; }\n")
            .run(["build"]).fails(2),
        @r#"
    --- stderr
    rel::build::releasefile::bad_number

      × the weight 3 never fits into a pool of depth 2
       ╭─[Releasefile.kdl:2:30]
     2 │ target "a" { pool "p" weight=3; run "true"; }
       ·                              ┬
       ·                              ╰── too heavy
       ╰────
    --- exit code 2
    "#
    );
}

const FORKED: &str = r#"
target "base" { outputs "base"; run "echo base >> log; touch base"; }
target "bad" { needs "base"; run "echo bad >> log; exit 1"; }
target "after" { needs "bad"; run "echo after >> log"; }
target "good" { needs "base"; run "echo good >> log"; }
target "late" { needs "good"; run "echo late >> log"; }
"#;

#[test]
fn a_failure_stops_what_has_not_started() {
    let space = Space::new(FORKED);
    assert_snapshot!(space.run(["build", "-j1"]).fails(1), @"
    --- stderr
         run base  never built here
        done base  [TIME]
         run bad  never built here
    error: `bad` failed: exit status 1
      command  echo bad >> log; exit 1
      key      [KEY]
    rel: 1 failed, 1 not tried, 1 ran, 0 up to date, in [TIME]
    --- exit code 1
    ");
    assert!(!space.lines("log").contains(&"after".to_owned()));
}

#[test]
fn keep_going_does_all_that_can_be_done() {
    let space = Space::new(FORKED);
    assert_snapshot!(space.run(["build", "-j1", "-k"]).fails(1), @"
    --- stderr
         run base  never built here
        done base  [TIME]
         run bad  never built here
    error: `bad` failed: exit status 1
      command  echo bad >> log; exit 1
      key      [KEY]
         run good  never built here
        done good  [TIME]
         run late  never built here
        done late  [TIME]
    rel: 1 failed, 1 not tried, 3 ran, 0 up to date, in [TIME]
    --- exit code 1
    ");
    let told = space.build(["-k"]);
    let _ = told.is("after skipped, bad failed, base fresh, good fresh, late fresh");
    assert_eq!(space.lines("log"), ["base", "bad", "good", "late", "bad"]);
}

/// Returns a line for each file below the checkout, with digest and time.
fn everything(space: &Space) -> Vec<String> {
    let entries = walkdir::WalkDir::new(space.path("")).sort_by_file_name();
    let files = entries.into_iter().flatten();
    files
        .filter(|e| e.file_type().is_file())
        .map(|e| {
            let digest = blake3::hash(&fs::read(e.path()).expect("reads"));
            let time = e.metadata().expect("asks").modified().expect("a time");
            format!("{} {digest} {time:?}", e.path().display())
        })
        .collect()
}

#[test]
fn a_dry_run_and_questions_change_nothing() {
    let space = Space::new(FORKED);
    let _ = space.run(["build", "good"]).ok();
    space.remove("base");
    let before = everything(&space);
    assert_snapshot!(space.run(["build", "-n", "late"]).ok(), @"
         run base  output `base` is missing
     may run good  needs `base`, which is not up to date
     may run late  needs `good`, which is not up to date
    1 would run, 2 more if what they need changes, 0 up to date
    ");
    for question in ["list", "status", "why", "hash", "plan", "log", "check"] {
        let _ = space.run([question]).ok();
    }
    assert_eq!(everything(&space), before);
}

#[test]
fn what_lies_between_forced_targets_is_made_of_what_they_make_now() {
    let space = Space::new(
        r#"
target "a" { outputs "a.out"; run "echo run >> runs; wc -l < runs > a.out"; }
target "b" { needs "a"; outputs "b.out"; run "cat a.out > b.out"; }
target "c" { needs "b"; outputs "c.out"; run "cat b.out > c.out"; }
"#,
    );
    let _ = space.build([]).ok();
    let told = space.build(["--force", "a", "c"]).ok();
    assert_eq!((told.how("a"), told.how("b")), ("ran", "ran"));
    assert_eq!(space.read("c.out"), "2\n");
    // What made the same leaves what needs it fresh.
    space.shell("sed -i 1d runs");
    let told = space.build(["--force", "a", "c"]).ok();
    assert_eq!(
        (told.how("a"), told.how("b")),
        ("ran, same result", "fresh")
    );
}

#[test]
fn force_runs_what_is_named_and_nothing_else() {
    let space = Space::new(FORKED);
    let _ = space.build(["late"]).ok();
    let told = space.build(["--force", "good"]).ok();
    let _ = told.is("base fresh, good ran");
    assert_snapshot!(space.run(["build", "--force", "good"]).ok(), @"
    --- stderr
         run good  forced
        done good  [TIME]
    rel: 1 ran, 1 up to date, in [TIME]
    ");
}

#[test]
fn the_output_of_a_job_stays_together() {
    let space = Space::new(
        r#"target "a" { each "i" "1" "2" "3"; run "for n in 1 2 3; do echo {i}; sleep 0.01; done"; }"#,
    );
    let output = space.run(["build", "-j3"]).ok();
    let printed: String = output
        .stderr
        .lines()
        .filter_map(|l| l.trim().strip_prefix("| "))
        .collect();
    let blocks: Vec<&str> = printed
        .as_bytes()
        .chunks(3)
        .map(|c| std::str::from_utf8(c).expect("text"))
        .collect();
    assert!(
        blocks.iter().all(|b| ["111", "222", "333"].contains(b)),
        "{printed}"
    );
}

/// They need make.
mod host_tests {
    use super::*;

    #[test]
    fn make_and_rel_share_their_job_slots() {
        // Below `make -j2` there are two slots, whatever `-j` says to rel.
        let space = Space::new(
            r#"
    target "t" { each "i" "1" "2" "3" "4" "5"; run "./slot {i}"; }
    "#,
        );
        space.write(
            "slot",
            "#!/bin/sh -eu\nmkdir run.$1\nls -d run.* | wc -l >> seen\nsleep 0.05\nrmdir run.$1\n",
        );
        space.shell("chmod +x slot");
        space.write("Makefile", "all:\n\t+\"$$REL\" build -j5\n");
        let mut make = space.program("make");
        make.arg("-j2").env("REL", crate::space::REL);
        let output = space.finish(&mut make).ok();
        assert!(!output.stderr.contains("jobserver unavailable"), "{output}");
        let seen = space.lines("seen");
        assert_eq!(seen.len(), 5);
        assert!(
            seen.iter().all(|n| n.trim() == "1" || n.trim() == "2"),
            "{seen:?}"
        );
        assert!(seen.iter().any(|n| n.trim() == "2"), "{seen:?}");
    }

    #[test]
    fn make_inside_a_target_sees_the_slots() {
        let space = Space::new(r#"target "m" { inputs "Makefile"; run "make -s all"; }"#);
        // Both goals end only when both run: make must have got a second slot.
        let (a, b) = (meets("a", "b"), meets("b", "a"));
        let goal = |name: &str, script: &str| {
            format!("{name}:\n\t+@set -eu; {}\n", script.replace('$', "$$"))
        };
        space.write(
            "Makefile",
            format!("all: a b\n{}{}", goal("a", &a), goal("b", &b)),
        );
        let output = space.run(["build", "-j2"]).ok();
        assert!(!output.stderr.contains("jobserver unavailable"), "{output}");
    }
}
