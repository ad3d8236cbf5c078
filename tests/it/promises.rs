//! Commands that do not do what the Releasefile promises.

use insta::assert_snapshot;

use crate::space::{Space, wait_until};

/// Returns what a failed build of a single target says.
#[track_caller]
fn failure(target: &str) -> String {
    let space = Space::new(&format!("target \"a\" {{\n{target}\n}}\n"));
    space.write("in.txt", "in\n");
    space.run(["build"]).fails(1).stderr
}

#[test]
fn a_command_that_fails() {
    assert_snapshot!(failure(r#"run "echo" "first"; run "for i in $(seq 30); do echo line $i; done; echo to stderr >&2; exit 3""#), @"
         run a  never built here
    error: `a` failed: exit status 3
      command  for i in $(seq 30); do echo line $i; done; echo to stderr >&2; exit 3
      printed  line 12
               line 13
               line 14
               line 15
               line 16
               line 17
               line 18
               line 19
               line 20
               line 21
               line 22
               line 23
               line 24
               line 25
               line 26
               line 27
               line 28
               line 29
               line 30
               to stderr
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"run "no-such-program" "--version""#), @"
         run a  never built here
    error: `a` failed: not started: no such file or directory
      command  no-such-program --version
      key      [KEY]
      help: is the program installed, and its directory in `PATH`?
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"dir "nowhere"; run "true""#), @"
         run a  never built here
    error: `a` failed: not started: no such file or directory
      command    true
      directory  nowhere
      key        [KEY]
      help: that directory is not there: correct `dir`, or make it first
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_shell_stops_at_the_first_failure() {
    assert_snapshot!(failure(r#"run "false; echo not reached""#), @"
         run a  never built here
    error: `a` failed: exit status 1
      command  false; echo not reached
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"shell "bash" "-euo" "pipefail" "-c"; run "false | cat; echo not reached""#), @"
         run a  never built here
    error: `a` failed: exit status 1
      command  false | cat; echo not reached
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_command_that_is_killed() {
    assert_snapshot!(failure(r#"run "echo so far; kill -9 $$""#), @"
         run a  never built here
    error: `a` failed: killed by SIGKILL
      command  echo so far; kill -9 $$
      printed  so far
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_command_that_times_out() {
    assert_snapshot!(failure(r#"timeout "200ms"; run "echo so far; sleep 1000""#), @"
         run a  never built here
    error: `a` failed: timed out after 200ms
      command  echo so far; sleep 1000
      printed  so far
      key      [KEY]
      help: raise its `timeout`, or find out why it waits
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_command_that_is_tried_again() {
    let space = Space::new(
        r#"target "a" { retries 2; outputs "x"; run "echo try >> log; test $(wc -l < log) = 3; touch x"; }"#,
    );
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run a  never built here
       retry a  attempt 1 of 3 failed: `a` failed: exit status 1
       retry a  attempt 2 of 3 failed: `a` failed: exit status 1
        done a  [TIME]
    rel: 1 ran (1 not at the first attempt), 0 up to date, in [TIME]
    ");
    let why = space.run(["why", "a"]).ok().stdout;
    assert!(why.contains(" at attempt 3, key"), "{why}");
    assert_snapshot!(failure(r#"retries 1; run "echo no; exit 1""#), @"
         run a  never built here
       retry a  attempt 1 of 2 failed: `a` failed: exit status 1
             | no
    error: `a` failed: exit status 1
      command  echo no; exit 1
      printed  no
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn what_failed_attempts_printed_is_kept() {
    let space = Space::new(
        r#"target "a" { retries 2; run "echo try >> tries; wc -l < tries; test $(wc -l < tries) = 3" }"#,
    );
    let told = space.build(["--force"]).ok().is("a ran");
    assert_eq!(told.0["attempts"]["a"], 3);
    assert_snapshot!(space.run(["log", "a"]).ok(), @"
    1
    rel: attempt 1 of 3 failed: `a` failed: exit status 1
    2
    rel: attempt 2 of 3 failed: `a` failed: exit status 1
    3
    ");
    // It is of this run, and not of whoever restores its result.
    space.shell("mkdir ../b; cp Releasefile.kdl ../b");
    space.build(["-C", "../b"]).ok().is("a restored");
    assert_snapshot!(space.run(["-C", "../b", "log", "a"]).ok(), @"3");
}

#[test]
fn a_command_that_writes_nothing() {
    assert_snapshot!(failure(r#"outputs "x"; run "true""#), @"
         run a  never built here
    error: `a` ran, but did not write `x`
      key  [KEY]
      help: let the command write it, or correct `outputs`
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"outputs "x/"; run "true""#), @"
         run a  never built here
    error: `a` ran, but `x/` is not a directory
      key  [KEY]
      help: let the command make that directory, or correct `outputs`
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"outputs "dist/*.whl"; run "true""#), @"
         run a  never built here
    error: `a` ran, but nothing matches `dist/*.whl`
      key  [KEY]
      help: let the command write it, or correct `outputs`
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"outputs "dist/*.whl" count=1; run "touch dist/a.whl dist/b.whl""#), @"
         run a  never built here
    error: `a` made 2 files that match `dist/*.whl`, expected 1
      key  [KEY]
      help: correct the pattern, its `count`, or the command
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"outputs "x"; run "mkdir x""#), @r#"
         run a  never built here
    error: `a` made `x` a directory, not a file
      key  [KEY]
      help: declare it as `outputs "x/"`
    rel: 1 failed, 0 up to date, in [TIME]
    "#);
    assert_snapshot!(failure(r#"product "false"; run "true""#), @"
         run a  never built here
    error: `a` ran, but its `product` command fails
      key  [KEY]
      help: run that command by hand to see why
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn output_that_is_expected_or_refused() {
    assert_snapshot!(failure(r#"expect "OK"; run "echo fine""#), @"
         run a  never built here
    error: `a` ran, but did not print `OK`
      printed  fine
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    assert_snapshot!(failure(r#"reject "Traceback"; run "echo Traceback: x""#), @"
         run a  never built here
    error: `a` ran, but printed `Traceback`
      printed  Traceback: x
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_command_that_writes_outside_of_its_outputs() {
    let space = Space::new(
        r#"
target "a" {
    inputs "src/in.txt"
    outputs "build/x"
    run "touch build/x build/stray; mkdir src/gen; touch src/gen/b.txt src/.cache tmp"
}
target "b" { needs "a"; inputs "src/**" "!src/.*"; outputs "build/y"; run "touch build/y"; }
"#,
    );
    space.write("src/in.txt", "a");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run a  never built here
    warning: `a` wrote `build/stray`, which no target declares
      help: declare it in `outputs`, or let the command write it elsewhere
    warning: `a` wrote `src/gen/`, which `b` reads, but no target declares it
      help: declare it in `outputs`, or let the command write it elsewhere
        done a  [TIME]
         run b  never built here
        done b  [TIME]
    rel: 2 ran, 0 up to date, in [TIME]
    ");
}

#[test]
fn files_that_appear_while_several_run_are_pinned_on_nobody() {
    let space = Space::new(
        r#"
target "a" { outputs "build/a"; run "touch build/a; while ! test -e ../b; do sleep 0.01; done; touch build/stray ../a"; }
target "b" { outputs "build/b"; run "touch build/b ../b; while ! test -e ../a; do sleep 0.01; done"; }
"#,
    );
    let output = space.run(["build", "-j2"]).ok();
    let warnings = output
        .stderr
        .replace("`a`", "[A OR B]")
        .replace("`b`", "[A OR B]");
    let warnings: Vec<&str> = warnings.lines().filter(|l| l.contains("stray")).collect();
    assert_snapshot!(warnings.join("\n"), @"warning: while [A OR B] and others ran, `build/stray` appeared, which no target declares");
}

/// What is then restored or made anew, each time, and why, is reported when it happens.
#[test]
fn a_command_that_writes_among_the_outputs_of_another_target() {
    let cases = [
        (
            "echo > out/extra",
            "`b` wrote `out/extra` among the outputs of `a`",
        ),
        (
            "mkdir out/new; echo > out/new/x",
            "`b` wrote `out/new/` among the outputs of `a`",
        ),
        (
            "echo > out/empty/x",
            "`b` wrote `out/empty/x` among the outputs of `a`",
        ),
        (
            "echo > lib/x.o",
            "`b` wrote `lib/x.o` among the outputs of `a`",
        ),
        ("echo 2 > out/one", "`b` changed `out/one`, which `a` made"),
        (
            "echo more >> out/d/deep",
            "`b` changed `out/d/deep`, which `a` made",
        ),
        ("chmod +x out/one", "`b` changed `out/one`, which `a` made"),
        (
            "echo 2 > x; mv x single",
            "`b` changed `single`, which `a` made",
        ),
        (
            "rm lib/a.o; mkdir lib/a.o",
            "`b` changed `lib/a.o/`, which `a` made",
        ),
        ("rm out/one", "`b` removed `out/one`, which `a` made"),
        ("rm -r out/d", "`b` removed `out/d`, which `a` made"),
        ("rm -r out", "`b` removed `out`, which `a` made"),
        ("rm -r lib", "`b` removed `lib`, which `a` made"),
        // Nothing that `a` would be made anew for.
        ("echo 1 > out/one; cp -l out/one link; touch single", ""),
        (
            "mkdir -p out/.cache; echo > out/.cache/x; echo > lib/x.d",
            "",
        ),
        ("cp out/one out/two; rm out/two", ""),
    ];
    let space = Space::new(
        r#"
target "a" {
    outputs "out/" "!**/.cache/**" "single" "lib/*.o"
    run "mkdir -p out/d out/empty; echo 1 > out/one; echo d > out/d/deep; echo s > single; echo o > lib/a.o"
}
target "b" { inputs "t"; outputs "made/b"; run "sh" "t"; run "touch made/b"; }
"#,
    );
    space.write("t", "");
    let _ = space.run(["build"]).ok();
    for (script, says) in cases {
        space.write("t", script);
        let told = space.run(["-q", "build", "b"]).ok().stderr;
        let warnings = told.lines().filter(|line| line.starts_with("warning"));
        let warnings: Vec<&str> = warnings.collect();
        match says {
            "" => assert!(warnings.is_empty(), "{script}: {told}"),
            says => assert!(
                warnings.len() == 1 && told.contains(says),
                "{script}: {told}"
            ),
        }
        let settled = space.build(["a"]).ok();
        settled.is(if says.is_empty() {
            "a fresh"
        } else {
            "a restored"
        });
    }
}

#[test]
fn a_command_that_writes_among_outputs_that_are_made_in_the_same_run() {
    let space = Space::new(
        r#"
target "a" { inputs "in"; outputs "out/"; run "mkdir out; cp in out/one" }
target "b" { outputs "b"; run "while ! test -e go; do sleep 0.01; done; echo > out/extra; touch b" }
"#,
    );
    space.write("in", "1\n");
    let job = space.begin(["-q", "build", "-j2"]);
    wait_until("`a` is made", || {
        let status = space.run(["status", "a"]).ok().stdout;
        status.contains("1 target up to date, 0 not").then_some(())
    });
    space.write("go", "");
    assert_snapshot!(job.finish().ok().stderr, @"
    warning: `b` wrote `out/extra` among the outputs of `a`: no part of its result
      help: let the command write it elsewhere and declare it there, or let `a` make it
    ");
}

/// Each command is held against what stood there right before it.
#[test]
fn of_commands_that_run_one_after_the_other_the_one_that_wrote_is_named() {
    let space = Space::new(
        r#"
target "a" { outputs "out/"; run "mkdir out; touch out/one" }
target "b" { inputs "t"; outputs "b"; run "rm -f out/extra; cp t b" }
target "c" { needs "b"; outputs "c"; run "touch out/extra; cp b c" }
target "d" { needs "c"; outputs "d"; run "cp c d" }
"#,
    );
    space.write("t", "1\n");
    let _ = space.run(["build", "a"]).ok();
    let told = space.run(["-q", "build", "d"]).ok().stderr;
    assert_snapshot!(told, @"
    warning: `c` wrote `out/extra` among the outputs of `a`: no part of its result
      help: let the command write it elsewhere and declare it there, or let `a` make it
    ");
}

/// Of many files, those that are gone before they are checked are reported as well.
#[test]
fn a_command_that_writes_among_outputs_that_are_made_after_it() {
    let space = Space::new(
        r#"
target "a" { needs "b"; outputs "out/"; run "mkdir out; touch $(seq -f out/%g 100)" }
target "b" { inputs "t"; outputs "b"; run "if test -e out; then touch out/extra; fi; touch b"; }
"#,
    );
    space.write("t", "1\n");
    let _ = space.run(["build"]).ok();
    space.write("t", "2\n");
    let told = space.run(["-q", "build"]).ok().stderr;
    let told = regex::Regex::new("backup/[^`]*")
        .expect("is sound")
        .replace(&told, "backup/[NAME]");
    assert_snapshot!(told, @"
    warning: `b` wrote `out/extra` among the outputs of `a`: no part of its result
      help: let the command write it elsewhere and declare it there, or let `a` make it
    warning: files stood where `a` writes its outputs; they were moved to `.rel/backup/[NAME]`
    ");
}

/// Neither of those that ran together is accused, and what needs the outputs tells it no more.
#[test]
fn what_appears_among_outputs_while_several_run_is_pinned_on_nobody() {
    let space = Space::new(
        r#"
target "a" { outputs "out/"; run "mkdir out; echo 1 > out/one" }
target "b" { inputs "t"; outputs "b"; run "while ! test -e ../c; do sleep 0.01; done; touch out/extra b ../b" }
target "c" { needs "a"; inputs "t"; outputs "c"; run "touch c ../c; while ! test -e ../b; do sleep 0.01; done" }
"#,
    );
    space.write("t", "1\n");
    let _ = space.run(["build", "a"]).ok();
    let told = space.run(["-q", "build", "-j2", "b", "c"]).ok().stderr;
    let told = told.replace("`b`", "[B OR C]").replace("`c`", "[B OR C]");
    assert_snapshot!(told, @"
    warning: while [B OR C] and others ran, `out/extra` appeared among the outputs of `a`: no part of its result
      help: let the command write it elsewhere and declare it there, or let `a` make it
    ");
}

#[test]
fn a_command_that_changes_its_own_inputs() {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "x"; run "echo more >> in.txt; cp in.txt x"; }"#,
    );
    space.write("in.txt", "in\n");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run a  never built here
    warning: `a` ran, but its input `in.txt` changed meanwhile
      before  21b779b0  3 B
      after   98e11347  8 B
      help: outputs are kept but not cached; run `rel build a` again
        done a  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    assert_snapshot!(space.run(["why"]).ok(), @"
    stale  a
           its last run was not recorded as a whole
    ");
    // Neither recorded nor cached: it runs again.
    space.build([]).ok().is("a ran");
    assert_eq!(space.read("x"), "in\nmore\nmore\n");
}

#[test]
fn a_file_that_changes_while_it_is_read() {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "x"; run "cp in.txt x; echo ready > ready; while ! test -e go; do sleep 0.01; done"; }"#,
    );
    space.write("in.txt", "old\n");
    let job = space.begin(["build"]);
    space.wait_for("ready");
    space.write("in.txt", "new\n").write("go", "");
    assert_snapshot!(job.finish().ok(), @"
    --- stderr
         run a  never built here
    warning: `a` ran, but its input `in.txt` changed meanwhile
      before  87b86a9f  4 B
      after   79d1d8da  4 B
      help: outputs are kept but not cached; run `rel build a` again
        done a  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    space.build([]).ok().is("a ran");
    assert_eq!(space.read("x"), "new\n");
    // Not even back on the old content is the old result believed.
    space.write("in.txt", "old\n");
    let _ = space.build([]).ok();
    assert_eq!(space.read("x"), "old\n");
}

#[test]
fn a_failure_is_not_forgotten() {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "x"; run "touch x; cat in.txt; grep -q good in.txt"; }"#,
    );
    space.write("in.txt", "good\n");
    space.build([]).ok().is("a ran");
    space.write("in.txt", "bad\n");
    let _ = space.run(["build"]).fails(1);
    assert_snapshot!(space.run(["status"]).ok(), @"
      stale  a  its last run failed  (and 1 more)
    0 targets up to date, 1 not
    ");
    assert_snapshot!(space.run(["log"]).ok(), @"");
    space.write("in.txt", "good\n");
    space.build([]).ok().is("a restored");
}

#[test]
fn what_was_printed_is_kept_whoever_opens_the_log_again() {
    let space = Space::new(
        r#"target "t" { run "echo one; echo two >> /dev/stderr; echo three; echo four > /dev/stdout; echo five"; }"#,
    );
    let _ = space.build([]).ok();
    let printed = space.run(["log", "t"]).ok().stdout;
    // `>` empties it, as the shell means it; nothing is overwritten, nor are there holes.
    assert!(printed.contains("four\nfive\n"), "{printed:?}");
    assert!(!printed.contains('\0'), "{printed:?}");
    space.write(
        "Releasefile.kdl",
        r#"target "t" { run "echo one; echo two >> /dev/stderr; echo three"; }"#,
    );
    let _ = space.build([]).ok();
    let printed = space.run(["log", "t"]).ok().stdout;
    assert!(printed.contains("one\ntwo\nthree\n"), "{printed:?}");
}

#[test]
fn a_command_that_empties_its_log_does_not_get_past_reject() {
    let space = Space::new(
        r#"target "t" { reject "WARNING"; run "echo WARNING; echo done > /dev/stderr; echo end"; }"#,
    );
    assert_snapshot!(space.run(["build"]).fails(1), @"
    --- stderr
         run t  never built here
    error: `t` ran, but emptied its own log, so `reject` cannot be checked
      printed  done
               end
      key      [KEY]
      help: `> /dev/stderr` and `> /dev/stdout` remove what was printed before: write `>&2` and `>&1`, or `>>`
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    ");
}

#[test]
fn a_command_that_fails_and_leaves_outputs_that_can_not_be_read() {
    let space = Space::new(
        r#"target "t" { outputs "d/x"; retries 1; run "rmdir d; ln -s d d; echo because; exit 3"; }"#,
    );
    let output = space.run(["build"]).fails(1);
    let has = |text: &str| output.stderr.contains(text);
    assert!(has("exit status 3") && has("because"), "{output}");
    space.write(
        "Releasefile.kdl",
        r#"target "t" { outputs "d/x"; run "echo x > d/x"; }"#,
    );
    let _ = space.run(["build"]).fails(1);
    space.remove("d");
    let _ = space.build([]).ok().is("t ran");
}

#[test]
fn what_does_not_start_says_why() {
    let long = Space::new(
        &r#"target "a" { inputs "many/*"; run "true" "{in}" "{inputs}"; run "true" [all]; }"#
            .replace("[all]", &"\"{in}\" ".repeat(14)),
    );
    let name = "x".repeat(200);
    for n in 0..800 {
        long.write(format!("many/{name}{n}"), "");
    }
    let told = long.run(["build"]).fails(1).stderr;
    assert!(told.contains("pass a long list in a file"), "{told}");
    assert!(!told.contains("is the program installed"), "{told}");
}

#[test]
fn attempts_without_end_are_counted() {
    let space = Space::new(
        "target \"a\" { retries 4294967295; run \"[ -e done ] || {{ touch done; exit 1; }}\"; }",
    );
    let told = space.run(["build"]).ok().stderr;
    assert!(told.contains("attempt 1 of 4294967295"), "{told}");
}

#[test]
fn a_file_that_is_missing_names_the_target_that_makes_it() {
    let space = Space::new(
        r#"
target "gen" { outputs "g/v.h"; run "echo > {out}" }
target "obj" { dir "g"; outputs "m.o"; run "cat v.h > ../m.o" }
target "none" { outputs "n.o"; run "cat other.h > n.o" }
"#,
    );
    space.shell("mkdir g");
    let told = space.run(["build", "obj"]).fails(1).stderr;
    assert!(
        told.contains("help: `gen` makes `g/v.h`: add `needs \"gen\"`"),
        "{told}"
    );
    let told = space.run(["build", "none"]).fails(1).stderr;
    assert!(!told.contains("help"), "{told}");
}

/// A list that has not one value is a mistake that only the files show.
#[test]
fn exit_code_2_says_that_nothing_was_started() {
    let space = Space::new(
        r#"
host "here" local=#true root="h"
environment "e" { needs "b"; use "service" on="here" start="true" status="false" }
target "a" { outputs "a.txt"; run "echo ran > {out}" }
target "b" { needs "a"; inputs "s/"; env F="{in}"; run "true" }
"#,
    );
    space.write("s/1", "").write("s/2", "");
    let _ = space.run(["build"]).fails(1);
    assert!(space.has("a.txt"));
    let _ = space.run(["build"]).fails(2);
    let _ = space
        .run(["build", "a", "b", "--keep-going", "--force"])
        .fails(1);
    let _ = space.run(["e"]).fails(2);
    space.remove("a.txt");
    let _ = space.run(["e", "--no-cache"]).fails(1);
    let _ = space.run(["e", "--no-such-option"]).fails(2);
}

/// Returns a space with a list of names that is longer than what Linux takes as one argument.
fn with_long_list(targets: &str) -> Space {
    let space = Space::new(targets);
    for number in 1..=700 {
        space.write(format!("s/{number:0>240}"), "");
    }
    space
}

#[test]
fn a_script_may_be_longer_than_an_argument() {
    let count = r#"n=0; for i in {in}; do n=$((n+1)); done; echo $n $# of $(basename "$0")"#;
    let space = with_long_list(&format!(
        r##"
target "sh" {{ inputs "s/"; run #"{count}"# }}
target "bash" {{ inputs "s/"; shell "env" "X=1" "bash" "-euo" "pipefail" "-c"; run #"{count}"# }}
target "strict" {{ sandbox "strict"; inputs "s/"; run #"{count} $(ls -A "$TMPDIR")."# }}
target "ends" {{ inputs "s/"; run "ls {{in}} > /dev/null; sleep 60"; timeout "100ms" }}
"##,
    ));
    let _ = space.run(["build", "sh", "bash", "strict"]).ok();
    let log = |target: &str| space.run(["log", target]).ok().stdout;
    assert_eq!(log("sh"), "700 0 of sh\n");
    assert_eq!(log("bash"), "700 0 of bash\n");
    assert_eq!(log("strict"), "700 0 of sh .\n");
    let checked = space.run(["check", "--trace", "sh"]).ok().stdout;
    assert_eq!(checked, "sh accesses only declared files\n");
    let _ = space.run(["build", "ends"]).fails(1);
    assert_eq!(space.shell("find .rel -name '.tmp*'"), "");
}

#[test]
fn no_message_shows_a_long_command_as_a_whole() {
    let lines: String = (1..=40).map(|n| format!("        echo {n}\n")).collect();
    let space = with_long_list(&format!(
        r#"
target "list" {{ inputs "s/"; run "cat" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" "{{in}}" }}
target "script" {{ inputs "s/"; run "false {{in}}" }}
target "lines" {{ run """
{lines}        false
        """ }}
target "tool" {{ tool "exit 3 # {}"; run "true" }}
"#,
        "long ".repeat(9000)
    ));
    for target in ["list", "script", "lines", "tool"] {
        let told = space.run(["build", target]).fails(1).stderr;
        assert!(told.len() < 6000, "{} bytes: {told}", told.len());
        assert!(told.contains("more bytes"), "{told}");
    }
    let told = space.run(["build", "lines"]).fails(1).stderr;
    let shown = told.lines().filter(|line| line.contains("echo"));
    assert_eq!(shown.count(), 20, "{told}");
    // The rest is in the log.
    let log = space.run(["log", "list"]).ok().stdout;
    assert!(log.len() > 1_500_000, "{} bytes", log.len());
    let log = space.run(["log", "lines"]).ok().stdout;
    assert!(
        log.contains("40\nrel: this command failed:\necho 1\n"),
        "{log}"
    );
    assert!(log.ends_with("echo 40\nfalse\n"), "{log}");
}
