//! Mistakes in names: unknown, declared twice, taken.

use super::super::{Space, report};

#[test]
fn unknown_nodes_and_properties() {
    insta::assert_snapshot!(report(r#"
traget "a" { run "x" }
target "b" colour="red" {
    ouputs "x" count=1
    inputs "y" optionl=#true
    run "x" { y }
}
pool "p" size=2
whatever
"#), @r##"
    rel::build::releasefile::unknown_node

      × a Releasefile has no node `traget`
       ╭─[Releasefile.kdl:2:1]
     2 │ traget "a" { run "x" }
       · ───┬──
       ·    ╰── not known here
       ╰────
      help: did you mean `target`?

    rel::build::releasefile::unknown_property

      × `target` has no property `colour`
       ╭─[Releasefile.kdl:3:12]
     3 │ target "b" colour="red" {
       ·            ───┬──
       ·               ╰── not a property of it
       ╰────

    rel::build::releasefile::unknown_node

      × `target` has no node `ouputs`
       ╭─[Releasefile.kdl:4:5]
     4 │     ouputs "x" count=1
       ·     ───┬──
       ·        ╰── not known here
       ╰────
      help: did you mean `outputs`?

    rel::build::releasefile::unknown_property

      × `ouputs` has no property `count`
       ╭─[Releasefile.kdl:4:16]
     4 │     ouputs "x" count=1
       ·                ──┬──
       ·                  ╰── not a property of it
       ╰────

    rel::build::releasefile::unknown_property

      × `inputs` has no property `optionl`
       ╭─[Releasefile.kdl:5:16]
     5 │     inputs "y" optionl=#true
       ·                ───┬───
       ·                   ╰── not a property of it
       ╰────
      help: did you mean `optional`?

    rel::build::releasefile::unknown_node

      × `run` has no node `y`
       ╭─[Releasefile.kdl:6:15]
     6 │     run "x" { y }
       ·               ┬
       ·               ╰── not known here
       ╰────

    rel::build::releasefile::missing_argument

      × the pool `p` has no depth
       ╭─[Releasefile.kdl:8:6]
     8 │ pool "p" size=2
       ·      ─┬─
       ·       ╰── how many at once?
       ╰────
      help: write `pool "p" depth=2`

    rel::build::releasefile::unknown_property

      × `pool` has no property `size`
       ╭─[Releasefile.kdl:8:10]
     8 │ pool "p" size=2
       ·          ──┬─
       ·            ╰── not a property of it
       ╰────
      help: it takes `depth`

    rel::build::releasefile::unknown_node

      × a Releasefile has no node `whatever`
       ╭─[Releasefile.kdl:9:1]
     9 │ whatever
       · ────┬───
       ·     ╰── not known here
       ╰────
      help: it takes `project`, `var`, `include`, `pool`, `sandbox`, `target`, `host`, `group`,
            `secret`, `environment`
    "##);
}

#[test]
fn unknown_targets() {
    insta::assert_snapshot!(report(r#"
target "app-image" { run "x" }
target "thumb" { each "size" "1" "2"; run "x {size}" }
target "web" {
    needs "ap-image" "thumb[3]" "app-image[1]"
    run "x"
}
environment "e" { needs "ap-image" "thumb[4]" }
"#), @r##"
    rel::build::releasefile::unknown_target

      × target `web` needs `ap-image`, which is not a target
       ╭─[Releasefile.kdl:5:11]
     5 │     needs "ap-image" "thumb[3]" "app-image[1]"
       ·           ─────┬────
       ·                ╰── not a target
       ╰────
      help: did you mean `app-image`?

    rel::build::releasefile::unknown_target

      × target `web` needs `thumb[3]`, which is not a target
       ╭─[Releasefile.kdl:5:22]
     5 │     needs "ap-image" "thumb[3]" "app-image[1]"
       ·                      ─────┬────
       ·                           ╰── not a target
       ╰────
      help: did you mean `thumb[1]`?

    rel::build::releasefile::unknown_target

      × target `web` needs `app-image[1]`, which is not a target
       ╭─[Releasefile.kdl:5:33]
     5 │     needs "ap-image" "thumb[3]" "app-image[1]"
       ·                                 ───────┬──────
       ·                                        ╰── not a target
       ╰────
      help: `app-image` has no `each`: write `app-image`

    rel::build::releasefile::unknown_target

      × environment `e` needs `ap-image`, which is not a target
       ╭─[Releasefile.kdl:8:25]
     8 │ environment "e" { needs "ap-image" "thumb[4]" }
       ·                         ─────┬────
       ·                              ╰── not a target
       ╰────
      help: did you mean `app-image`?

    rel::build::releasefile::unknown_target

      × environment `e` needs `thumb[4]`, which is not a target
       ╭─[Releasefile.kdl:8:36]
     8 │ environment "e" { needs "ap-image" "thumb[4]" }
       ·                                    ─────┬────
       ·                                         ╰── not a target
       ╰────
      help: did you mean `thumb[1]`?
    "##);
}

#[test]
fn unknown_names_in_texts() {
    insta::assert_snapshot!(report(r#"
var "python" "python3"
target "wheel" { outputs "dist/*.whl"; run "{pyhton} build" }
target "check" { run "true" }
target "ship" {
    needs "check"
    inputs "{out}/x"
    run "cp {wheel} {out} {in} {version} {check}"
    tool "{out}"
}
environment "e" { param "branch"; use "evolve" on="{brnch}" }
"#), @r##"
    rel::build::releasefile::unknown_name

      × `{pyhton}` is not known here
       ╭─[Releasefile.kdl:3:45]
     3 │ target "wheel" { outputs "dist/*.whl"; run "{pyhton} build" }
       ·                                             ────┬───
       ·                                                 ╰── no such name
       ╰────
      help: did you mean `{python}`?

    rel::build::releasefile::unknown_name

      × `{out}` is not known here, but only in commands
       ╭─[Releasefile.kdl:7:13]
     7 │     inputs "{out}/x"
       ·             ──┬──
       ·               ╰── not known here
       ╰────
      help: write the path itself, or use a `var`

    rel::build::releasefile::unknown_name

      × `{wheel}` is a target that is not needed here
       ╭─[Releasefile.kdl:8:13]
     8 │     run "cp {wheel} {out} {in} {version} {check}"
       ·             ───┬───
       ·                ╰── not known here
       ╰────
      help: add `needs "wheel"`

    rel::build::releasefile::unknown_name

      × `{out}` has no file: the target has no `outputs`
       ╭─[Releasefile.kdl:8:21]
     8 │     run "cp {wheel} {out} {in} {version} {check}"
       ·                     ──┬──
       ·                       ╰── not known here
       ╰────
      help: add `outputs "…"`

    rel::build::releasefile::unknown_name

      × `{version}` is not known: the project has no version
       ╭─[Releasefile.kdl:8:32]
     8 │     run "cp {wheel} {out} {in} {version} {check}"
       ·                                ────┬────
       ·                                    ╰── not known here
       ╰────
      help: add `project "…" { version "…" }`

    rel::build::releasefile::unknown_name

      × `{check}` has no file: that target has no `outputs`
       ╭─[Releasefile.kdl:8:42]
     8 │     run "cp {wheel} {out} {in} {version} {check}"
       ·                                          ───┬───
       ·                                             ╰── not known here
       ╰────
      help: needing it is enough, if only its success matters

    rel::build::releasefile::unknown_name

      × `{out}` is not known here, but only in `run`
       ╭─[Releasefile.kdl:9:11]
     9 │     tool "{out}"
       ·           ──┬──
       ·             ╰── not known here
       ╰────
      help: write the path itself, or use a `var`

    rel::build::releasefile::unknown_name

      × `{brnch}` is not known here
        ╭─[Releasefile.kdl:11:52]
     11 │ environment "e" { param "branch"; use "evolve" on="{brnch}" }
        ·                                                    ───┬───
        ·                                                       ╰── no such name
        ╰────
      help: did you mean `{branch}`?
    "##);
}

#[test]
fn duplicate_names() {
    insta::assert_snapshot!(report(r#"
var "v" "1"
var "v" "2"
pool "p" depth=1
pool "p" depth=2
target "a" { desc "one"; desc "two"; run "x {v}" }
target "a" { run "y" }
host "h[1-2]" local=#true
host "h2" local=#true
environment "e" {
    param "x"
    param "x"
    use "evolve" on="h1"
    use "evolve" on="h2"
}
environment "e" { needs "a" }
"#), @r##"
    rel::build::releasefile::duplicate_name

      × the variable `v` is declared twice
       ╭─[Releasefile.kdl:2:5]
     2 │ var "v" "1"
       ·     ─┬─
       ·      ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:3:5]
     3 │ var "v" "2"
       ·     ─┬─
       ·      ╰── declared again
       ╰────

    rel::build::releasefile::duplicate_name

      × the pool `p` is declared twice
       ╭─[Releasefile.kdl:4:6]
     4 │ pool "p" depth=1
       ·      ─┬─
       ·       ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:5:6]
     5 │ pool "p" depth=2
       ·      ─┬─
       ·       ╰── declared again
       ╰────

    rel::build::releasefile::duplicate_node

      × `desc` is given twice in `target`
       ╭─[Releasefile.kdl:6:26]
     6 │ target "a" { desc "one"; desc "two"; run "x {v}" }
       ·              ──┬─        ──┬─
       ·                │           ╰── given again
       ·                ╰── first given here
       ╰────

    rel::build::releasefile::duplicate_name

      × the target `a` is declared twice
       ╭─[Releasefile.kdl:6:8]
     6 │ target "a" { desc "one"; desc "two"; run "x {v}" }
       ·        ─┬─
       ·         ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:7:8]
     7 │ target "a" { run "y" }
       ·        ─┬─
       ·         ╰── declared again
       ╰────

    rel::build::releasefile::duplicate_name

      × the name `h2` is declared twice
       ╭─[Releasefile.kdl:8:6]
     8 │ host "h[1-2]" local=#true
       ·      ────┬───
       ·          ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:9:6]
     9 │ host "h2" local=#true
       ·      ──┬─
       ·        ╰── declared again
       ╰────

    rel::build::releasefile::duplicate_name

      × the parameter `x` is declared twice
        ╭─[Releasefile.kdl:11:11]
     11 │     param "x"
        ·           ─┬─
        ·            ╰── first declared here
        ╰────
        ╭─[Releasefile.kdl:12:11]
     12 │     param "x"
        ·           ─┬─
        ·            ╰── declared again
        ╰────

    rel::build::releasefile::duplicate_name

      × two uses are called `evolve`
        ╭─[Releasefile.kdl:13:9]
     13 │     use "evolve" on="h1"
        ·         ────┬───
        ·             ╰── first used here
        ╰────
        ╭─[Releasefile.kdl:14:9]
     14 │     use "evolve" on="h2"
        ·         ────┬───
        ·             ╰── used again
        ╰────
      help: give this one a name of its own with `as="…"`

    rel::build::releasefile::duplicate_name

      × the environment `e` is declared twice
        ╭─[Releasefile.kdl:10:13]
     10 │ environment "e" {
        ·             ─┬─
        ·              ╰── first declared here
        ╰────
        ╭─[Releasefile.kdl:16:13]
     16 │ environment "e" { needs "a" }
        ·             ─┬─
        ·              ╰── declared again
        ╰────
    "##);
}

#[test]
fn duplicates_in_two_files() {
    let space = Space::new("include \"more.kdl\"\ntarget \"a\" { run \"x\" }\n")
        .file("more.kdl", "target \"a\" { run \"y\" }\n");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::duplicate_name

      × the target `a` is declared twice
       ╭─[Releasefile.kdl:2:8]
     2 │ target "a" { run "x" }
       ·        ─┬─
       ·         ╰── declared again
       ╰────
      help: first declared here: more.kdl:1
    "##);
}

#[test]
fn names_with_a_meaning_of_their_own() {
    insta::assert_snapshot!(report(r#"
var "out" "x"
var "wheel" "x"
var "a b" "x"
target "wheel" { each "in" "1"; run "x {wheel}" }
target "x" { each "wheel" "1"; run "x" }
target "{y}" { run "x" }
environment "build" { param "wheel"; needs "wheel" }
"#), @r##"
    rel::build::releasefile::reserved_name

      × a variable cannot be called `out`: the name has a meaning of its own
       ╭─[Releasefile.kdl:2:5]
     2 │ var "out" "x"
       ·     ──┬──
       ·       ╰── choose another name
       ╰────

    rel::build::releasefile::name_clash

      × the variable `wheel` has the name of a target
       ╭─[Releasefile.kdl:3:5]
     3 │ var "wheel" "x"
       ·     ───┬───
       ·        ╰── the same name
       ╰────
       ╭─[Releasefile.kdl:5:8]
     5 │ target "wheel" { each "in" "1"; run "x {wheel}" }
       ·        ───┬───
       ·           ╰── declared here
       ╰────
      help: rename one of them: `{wheel}` would mean both

    rel::build::releasefile::bad_name

      × a variable cannot be called `a b`
       ╭─[Releasefile.kdl:4:5]
     4 │ var "a b" "x"
       ·     ──┬──
       ·       ╰── not a name
       ╰────
      help: a name starts with a letter and goes on with letters, digits, `-`, `_` and `.`

    rel::build::releasefile::reserved_name

      × an axis cannot be called `in`: the name has a meaning of its own
       ╭─[Releasefile.kdl:5:23]
     5 │ target "wheel" { each "in" "1"; run "x {wheel}" }
       ·                       ──┬─
       ·                         ╰── choose another name
       ╰────

    rel::build::releasefile::name_clash

      × the axis `wheel` has the name of a target
       ╭─[Releasefile.kdl:5:8]
     5 │ target "wheel" { each "in" "1"; run "x {wheel}" }
       ·        ───┬───
       ·           ╰── declared here
       ╰────
       ╭─[Releasefile.kdl:6:19]
     6 │ target "x" { each "wheel" "1"; run "x" }
       ·                   ───┬───
       ·                      ╰── the same name
       ╰────
      help: rename one of them: `{wheel}` would mean both

    rel::build::releasefile::bad_name

      × a target cannot be called `{y}`
       ╭─[Releasefile.kdl:7:8]
     7 │ target "{y}" { run "x" }
       ·        ──┬──
       ·          ╰── not a name
       ╰────
      help: a name starts with a letter and goes on with letters, digits, `-`, `_` and `.`

    rel::build::releasefile::reserved_name

      × an environment cannot be called `build`
       ╭─[Releasefile.kdl:8:13]
     8 │ environment "build" { param "wheel"; needs "wheel" }
       ·             ───┬───
       ·                ╰── a command of `rel`
       ╰────
      help: choose another name: each environment is a command of its own

    rel::build::releasefile::name_clash

      × the parameter `wheel` has the name of a target
       ╭─[Releasefile.kdl:8:29]
     8 │ environment "build" { param "wheel"; needs "wheel" }
       ·                             ───┬───
       ·                                ╰── the same name
       ╰────
      help: rename one of them: `{wheel}` would mean both
    "##);
}

#[test]
fn bad_defaults() {
    insta::assert_snapshot!(report(r#"
var "branches" "branch1" "branch2"
environment "e" { param "branch" one-of="{branches}" default="branch3" }
"#), @r##"
    rel::build::releasefile::bad_default

      × the default `branch3` is none of the allowed values
       ╭─[Releasefile.kdl:3:62]
     3 │ environment "e" { param "branch" one-of="{branches}" default="branch3" }
       ·                                                              ────┬────
       ·                                                                  ╰── not allowed
       ╰────
      help: did you mean `branch1`?
    "##);
}

#[test]
fn variables_that_nobody_uses_are_a_warning() {
    insta::assert_snapshot!(report(r#"
var "used" "1"
var "also" "{used}"
var "in-a-recipe" "x"
var "unused" "{also}"
target "a" { run "true" }
environment "e" { use "evolve" script="{in-a-recipe}/x" }
"#), @r##"
    rel::build::releasefile::unused_variable

      ⚠ the variable `unused` is never used
       ╭─[Releasefile.kdl:5:5]
     5 │ var "unused" "{also}"
       ·     ────┬───
       ·         ╰── declared here
       ╰────
    "##);
}

#[test]
fn variables_set_on_the_command_line() {
    let space = Space::new("var \"python\" \"python3\"\n").var("pyhton", "x");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::unknown_variable

      × `--var pyhton=…` sets a variable that the Releasefile does not have
      help: did you mean `python`?
    "##);
}

#[test]
fn instances_that_would_have_one_name() {
    insta::assert_snapshot!(report(r#"
target "t" {
    matrix { a "x" "x,y"; b "y,z" "z" }
    outputs "out/{a}_{b}"
    run "echo {a} {b} > {out}"
}
"#), @r##"
    rel::build::releasefile::duplicate_name

      × two instances are called `t[x,y,z]`
       ╭─[Releasefile.kdl:3:27]
     3 │     matrix { a "x" "x,y"; b "y,z" "z" }
       ·                           ┬
       ·                           ╰── with values of this axis
       ╰────
      help: change one value: commas join the values, and `\n` stands for a line end as well
    "##);
    let space = Space::new("target \"t\" { each \"f\" files=\"src/*\"; run \"cat {f}\"; }\n")
        .file("src/a\nb", "")
        .file("src/a\\nb", "");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::duplicate_name

      × two instances are called `t[src/a\nb]`
       ╭─[Releasefile.kdl:1:19]
     1 │ target "t" { each "f" files="src/*"; run "cat {f}"; }
       ·                   ─┬─
       ·                    ╰── with values of this axis
       ╰────
      help: change one value: commas join the values, and `\n` stands for a line end as well
    "##);
    let told = report(r#"target "t" { each "a" "x,y" "x" "y"; run "echo {a}"; }"#);
    assert_eq!(told, "", "a comma alone is nothing");
}

#[test]
fn values_of_hosts_and_runs_can_not_be_variables() {
    for name in ["run-id", "host.port", "from.root", "notes.release"] {
        let found = report(&format!("var \"{name}\" \"x\"\n"));
        let message = format!("a variable cannot be called `{name}`: the name has a meaning");
        assert!(found.contains(&message), "{found}");
    }
}
