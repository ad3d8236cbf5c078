//! Tools that keep state of their own beside outputs: it is reported each time, and what was made
//! beside it is not shared.

use insta::assert_snapshot;

use crate::space::Space;

/// A tool that believes in times, like make and cargo: a source that is older than what was made
/// of it before is not read.
const TOOL: &str = "mkdir -p $state; test $state/o -nt src.txt || cp src.txt $state/o; mkdir -p bin; cp $state/o {out}";

/// A target that uses the tool, with its state in `state`, and more lines.
fn tool(state: &str, more: &str) -> Space {
    let space = Space::new(&format!(
        r#"target "bin" {{ inputs "src.txt"; outputs "bin/x"; {more} run "state={state}; {TOOL}" }}"#
    ));
    space.write("src.txt", "one\n");
    space
}

/// Changes the source, which is older now than it was.
fn change(space: &Space, text: &str) {
    space.write("src.txt", text);
    space.shell("touch -d 2020-01-01 src.txt");
}

/// Builds and returns the first lines of warnings.
#[track_caller]
fn warnings(space: &Space) -> String {
    let told = space.run(["build"]).ok().stderr;
    assert!(told.contains("1 ran"), "{told}");
    let lines = told.lines().filter(|line| line.starts_with("warning"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Builds in a fresh checkout of the same sources and returns what it made.
fn elsewhere(space: &Space) -> String {
    space.shell("rm -rf ../other; mkdir ../other; cp -p Releasefile.kdl src.txt ../other");
    let _ = space.build(["-C", "../other"]).ok();
    space.read("../other/bin/x")
}

#[test]
fn what_was_made_of_an_old_state_is_not_handed_to_others() {
    for (state, first) in [("bin/state", "bin/state/"), ("target", "target/")] {
        let space = tool(state, "");
        let told = warnings(&space);
        let expected = format!("warning: `bin` wrote `{first}`, which no target declares");
        assert_eq!(told, expected);
        for text in ["two\n", "three\n"] {
            change(&space, text);
            let told = warnings(&space);
            let expected = format!("warning: `bin` ran beside `{state}`, which no target declares");
            assert!(told.starts_with(&expected), "{told}");
            assert_eq!(space.read("bin/x"), "one\n");
            assert_eq!(elsewhere(&space), text);
        }
        let why = space.run(["why", "--cache", "bin"]).ok().stdout;
        let expected = format!("not in the cache: it was made beside `{state}`, undeclared");
        assert!(why.contains(&expected), "{why}");
        // Without that state it is a result like others.
        space.shell(&format!("rm -r {state}"));
        change(&space, "four\n");
        let _ = warnings(&space);
        space.shell("rm bin/x");
        space.build([]).ok().is("bin restored");
    }
}

#[test]
fn state_that_was_there_before_the_first_run_counts() {
    // Found by what stands there; and, of what is a file, by being written to.
    for (before, run) in [
        (
            "mkdir -p bin/state; cp src.txt bin/state/o",
            "state=bin/state; ",
        ),
        (
            "mkdir bin; echo old > bin/log",
            "echo again >> bin/log; state=target; ",
        ),
    ] {
        let space = tool("target", "");
        let text = space.read("Releasefile.kdl").replace("state=target; ", run);
        space.write("Releasefile.kdl", text);
        space.shell(before);
        change(&space, "two\n");
        let told = warnings(&space);
        assert!(told.contains("`bin` ran beside `bin/"), "{told}");
        assert_eq!(elsewhere(&space), "two\n");
    }
}

#[test]
fn what_lies_beside_outputs_and_is_no_state_keeps_nothing_from_being_shared() {
    let space = Space::new(
        r#"
target "gen" { inputs "src/in.txt"; outputs "src/gen.txt"; run "cp src/in.txt {out}" }
target "user" { needs "gen"; inputs "src/**" "!src/gen.txt"; outputs "build/use"; run "cat src/* > {out} 2> /dev/null || true; echo ran >> log" }
"#,
    );
    space.shell("mkdir -p src/sub build docs; touch src/sub/a src/README build/.gitkeep docs/x");
    for text in ["one\n", "two\n"] {
        space.write("src/in.txt", text);
        assert_eq!(space.run(["-q", "build"]).ok().stderr, "");
    }
    space.shell("rm src/gen.txt build/use");
    space.build([]).ok().is("gen restored, user restored");
}

#[test]
fn whoever_does_not_cache_it_is_not_told_again() {
    let space = tool("target", "cache #false;");
    assert_snapshot!(warnings(&space), @"warning: `bin` wrote `target/`, which no target declares");
    change(&space, "two\n");
    assert_eq!(warnings(&space), "");
}

#[test]
fn a_run_that_failed_leaves_state_as_well() {
    let space = tool("target", "");
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("cp $state/o {out}", "false"),
    );
    let _ = space.run(["build"]).fails(1);
    space.write("Releasefile.kdl", text);
    change(&space, "two\n");
    let told = warnings(&space);
    assert!(told.contains("`bin` ran beside `target`"), "{told}");
    assert_eq!(elsewhere(&space), "two\n");
}
