//! What a target takes over from those that it needs: what they made, and what they changed.

use crate::space::Space;

#[test]
fn a_question_is_asked_anew_behind_what_ran() {
    let space = Space::new(
        r#"
target "early" { probe "cat ../state"; outputs "e"; run "cat ../state > {out}"; }
target "bump" { inputs "next"; cache #false; run "cp next ../state"; }
target "late" { needs "bump"; inputs "s"; probe "cat ../state"; outputs "l"; run "cat ../state s > {out}"; }
"#,
    );
    let state = space.path("../state");
    space.write("next", "1\n").write("s", "a\n");
    std::fs::write(&state, "1\n").expect("writes");
    let _ = space.build([]).ok();
    // Only what `bump` does makes `late` stale, and `early` has asked before.
    space.write("next", "2\n");
    let told = space.build([]).ok();
    told.is("bump ran, early fresh, late ran");
    assert_eq!(space.read("l"), "2\na\n");
    // What is kept is of the answer that the command met.
    space.write("next", "3\n").write("s", "b\n");
    let _ = space.build([]).ok();
    assert_eq!(space.read("l"), "3\nb\n");
    space.write("next", "2\n");
    let _ = space.build([]).ok();
    assert_eq!(space.read("l"), "2\nb\n");
}

#[test]
fn a_tool_that_is_built_answers_those_who_need_it_whoever_asked_before() {
    let space = Space::new(
        r#"
target "y" { tool "bin/gen --version"; outputs "y"; run "bin/gen > {out}"; }
target "gen" { inputs "gen.sh"; outputs "bin/gen"; run "cp gen.sh {out}; chmod +x {out}"; }
target "x" { needs "gen"; tool "bin/gen --version"; outputs "x"; run "bin/gen > {out}"; }
"#,
    );
    space.write("gen.sh", "#!/bin/sh\necho 1\n");
    let told = space.run(["build", "-k", "-j1"]).fails(1);
    assert_eq!(space.read("x"), "1\n", "{told}");
    assert!(told.stderr.contains("tool of `y` failed"), "{told}");
    assert!(!told.stderr.contains("tool of `x` failed"), "{told}");
}

#[test]
fn a_group_hands_on_what_its_members_made() {
    let space = Space::new(
        r#"
target "z" { inputs "src"; outputs "z.out"; run "cp src {out}"; }
target "image" { inputs "src"; product "cat" "../image"; run "cp src ../image"; }
target "quiet" { inputs "other"; run "true"; }
target "part" { needs "z" "quiet"; }
target "all" { needs "part" "image"; }
target "y" { needs "part"; outputs "y.out"; run "cat z.out > {out}"; }
target "push" { needs "all"; run "cp ../image ../pushed"; }
"#,
    );
    space.write("src", "1\n").write("other", "1\n");
    let _ = space.build([]).ok();
    space
        .build([])
        .ok()
        .is("all fresh, image fresh, part fresh, push fresh, quiet fresh, y fresh, z fresh");
    space.write("src", "2\n");
    let _ = space.run(["build", "z"]).ok();
    let _ = space.build([]).ok();
    assert_eq!(space.read("y.out"), "2\n");
    assert_eq!(space.read("../pushed"), "2\n");
    // What makes nothing hands on nothing.
    space.write("other", "2\n");
    space
        .build([])
        .ok()
        .is("all fresh, image fresh, part fresh, push fresh, quiet ran, y fresh, z fresh");
}

#[test]
fn a_group_that_had_commands_hands_on_nothing_of_its_own() {
    let file = |x: &str, y: &str| {
        format!(
            r#"
target "z" {{ outputs "z.out"; run "echo z > {{out}}"; }}
target "x" {{ {x}; }}
target "y" {{ needs "x"; outputs "y.out"; run "echo {y} > {{out}}"; }}
"#
        )
    };
    let space = Space::new(&file(r#"outputs "x.out"; run "echo hi > {out}""#, "y"));
    let _ = space.build([]).ok();
    space.write("Releasefile.kdl", file(r#"needs "z""#, "y2"));
    space.remove("x.out");
    let _ = space.build([]).ok();
    space.build([]).ok().is("x fresh, y fresh, z fresh");
}
