//! Mistakes in the whole: inputs, outputs, cycles, and what does not follow from them.

use super::super::{Space, report};

#[test]
fn overlapping_outputs() {
    insta::assert_snapshot!(report(r#"
target "a" { outputs "dist/*.whl" "dist/*.tar.gz"; run "x" }
target "b" { outputs "dist/rel-*"; run "x" }
target "c" { outputs "site/"; run "x" }
target "d" { outputs "site/index.html" "d.txt"; run "x" }
target "e" { outputs "d.txt"; run "x" }
target "f" { each "n" "1" "2"; outputs "out.txt"; run "x {n}" }
"#), @r##"
    rel::build::releasefile::overlapping_outputs

      × targets `a` and `b` write the same files
       ╭─[Releasefile.kdl:2:22]
     2 │ target "a" { outputs "dist/*.whl" "dist/*.tar.gz"; run "x" }
       ·                      ──────┬─────
       ·                            ╰── with `dist/*.whl`
       ╰────
       ╭─[Releasefile.kdl:3:22]
     3 │ target "b" { outputs "dist/rel-*"; run "x" }
       ·                      ──────┬─────
       ·                            ╰── `dist/rel-*` overlaps
       ╰────
      help: give each file to one target only

    rel::build::releasefile::overlapping_outputs

      × targets `c` and `d` write the same files
       ╭─[Releasefile.kdl:4:22]
     4 │ target "c" { outputs "site/"; run "x" }
       ·                      ───┬───
       ·                         ╰── with `site/`
       ╰────
       ╭─[Releasefile.kdl:5:22]
     5 │ target "d" { outputs "site/index.html" "d.txt"; run "x" }
       ·                      ────────┬────────
       ·                              ╰── `site/index.html` overlaps
       ╰────
      help: give each file to one target only

    rel::build::releasefile::overlapping_outputs

      × targets `d` and `e` write the same files
       ╭─[Releasefile.kdl:5:40]
     5 │ target "d" { outputs "site/index.html" "d.txt"; run "x" }
       ·                                        ───┬───
       ·                                           ╰── with `d.txt`
       ╰────
       ╭─[Releasefile.kdl:6:22]
     6 │ target "e" { outputs "d.txt"; run "x" }
       ·                      ───┬───
       ·                         ╰── `d.txt` overlaps
       ╰────
      help: give each file to one target only

    rel::build::releasefile::overlapping_outputs

      × targets `f[1]` and `f[2]` write the same files
       ╭─[Releasefile.kdl:7:40]
     7 │ target "f" { each "n" "1" "2"; outputs "out.txt"; run "x {n}" }
       ·                                        ────┬────
       ·                                            ╰── `out.txt` overlaps
       ╰────
      help: let the path name the axis, so that each target has its own
    "##);
}

#[test]
fn outputs_where_none_may_be() {
    insta::assert_snapshot!(report(r#"
target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
"#), @r##"
    rel::build::releasefile::bad_output

      × the output `/etc/passwd` lies outside of the repository
       ╭─[Releasefile.kdl:2:22]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                      ──────┬──────
       ·                            ╰── outside
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_output

      × the output `../x` lies outside of the repository
       ╭─[Releasefile.kdl:2:36]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                    ───┬──
       ·                                       ╰── outside
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_output

      × the output `.rel/x` lies in a directory of git or of `rel` itself
       ╭─[Releasefile.kdl:2:43]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                           ────┬───
       ·                                               ╰── not yours
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_output

      × the output `a/.git/hooks/x` lies in a directory of git or of `rel` itself
       ╭─[Releasefile.kdl:2:52]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                                    ────────┬───────
       ·                                                            ╰── not yours
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_output

      × the output `./` is the whole repository
       ╭─[Releasefile.kdl:2:69]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                                                     ──┬─
       ·                                                                       ╰── too much
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_pattern

      × `!x` takes nothing away
       ╭─[Releasefile.kdl:2:74]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                                                          ──┬─
       ·                                                                            ╰── not an output
       ╰────
      help: name first what it is taken away from: `outputs "site/" "!site/.cache/"`

    rel::build::releasefile::unknown_property

      × `count` is for globs, and `ok` is none
       ╭─[Releasefile.kdl:2:90]
     2 │ target "a" { outputs "/etc/passwd" "../x" ".rel/x" "a/.git/hooks/x" "./" "!x" "ok" count=2; run "x" }
       ·                                                                                          ┬
       ·                                                                                          ╰── not needed
       ╰────
    "##);
}

#[test]
fn cycles() {
    insta::assert_snapshot!(report(r#"
target "a" { needs "b"; run "x" }
target "b" { needs "c"; run "x" }
target "c" { needs "a"; run "x" }
target "self" { needs "self"; run "x" }
"#), @r##"
    rel::build::releasefile::cycle

      × targets form a cycle: a -> b -> c -> a
       ╭─[Releasefile.kdl:4:20]
     4 │ target "c" { needs "a"; run "x" }
       ·                    ─┬─
       ·                     ╰── closes the cycle here
       ╰────

    rel::build::releasefile::cycle

      × targets form a cycle: self -> self
       ╭─[Releasefile.kdl:5:23]
     5 │ target "self" { needs "self"; run "x" }
       ·                       ───┬──
       ·                          ╰── needs itself
       ╰────
    "##);
}

#[test]
fn missing_inputs() {
    let space = Space::new(
        r#"
target "gen" { outputs "gen/*.c"; run "x" }
target "a" {
    inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
    inputs "perhaps" "may/*.be" optional=#true
    run "x"
}
target "b" { needs "gen"; inputs "gen/a.c" "gen/*.c"; run "x" }
target "c" { needs "b"; inputs "gen/b.c"; run "x" }
target "d" { inputs "**/*.c" "!gen/**" optional=#true; run "x" }
"#,
    )
    .file("main.rs", "")
    .file("src/x", "");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::missing_input

      × the input `main.rss` of `a` is not on disk, and no target makes it
       ╭─[Releasefile.kdl:4:12]
     4 │     inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
       ·            ─────┬────
       ·                 ╰── no such file
       ╰────
      help: did you mean `main.rs`?

    rel::build::releasefile::missing_input

      × the input `src` of `a` is a directory
       ╭─[Releasefile.kdl:4:23]
     4 │     inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
       ·                       ──┬──
       ·                         ╰── not a file
       ╰────
      help: write `src/` for everything below it

    rel::build::releasefile::missing_input

      × the input `none/` of `a` has no files
       ╭─[Releasefile.kdl:4:29]
     4 │     inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
       ·                             ───┬───
       ·                                ╰── empty or not there
       ╰────
      help: correct the path, or allow none with `optional=#true`

    rel::build::releasefile::empty_glob

      × the input `docs/*.md` of `a` matches no file
       ╭─[Releasefile.kdl:4:37]
     4 │     inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
       ·                                     ─────┬─────
       ·                                          ╰── no match
       ╰────
      help: correct the pattern, or allow none with `optional=#true`

    rel::build::releasefile::missing_needs

      × target `a` reads `gen/a.c`, which `gen` makes, but does not need it
       ╭─[Releasefile.kdl:2:24]
     2 │ target "gen" { outputs "gen/*.c"; run "x" }
       ·                        ────┬────
       ·                            ╰── made here
       ╰────
       ╭─[Releasefile.kdl:4:49]
     4 │     inputs "main.rss" "src" "none/" "docs/*.md" "gen/a.c"
       ·                                                 ────┬────
       ·                                                     ╰── made by another target
       ╰────
      help: add `needs "gen"`
    "##);
}

#[test]
fn a_target_that_reads_what_it_writes() {
    let space = Space::new(
        r#"
target "a" { inputs "src/**"; outputs "src/gen.py"; run "x" }
target "b" { inputs "src/**" "!src/gen.py" "!src/b.py"; outputs "src/b.py"; run "x" }
"#,
    )
    .file("src/main.py", "");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::missing_needs

      × target `a` reads `src/**`, where `b` writes `src/b.py`, but does not need it
       ╭─[Releasefile.kdl:2:21]
     2 │ target "a" { inputs "src/**"; outputs "src/gen.py"; run "x" }
       ·                     ────┬───
       ·                         ╰── made by another target
       ╰────
       ╭─[Releasefile.kdl:3:65]
     3 │ target "b" { inputs "src/**" "!src/gen.py" "!src/b.py"; outputs "src/b.py"; run "x" }
       ·                                                                 ─────┬────
       ·                                                                      ╰── made here
       ╰────
      help: add `needs "b"`, or exclude it: `"!src/b.py"`

    rel::build::releasefile::own_output

      × target `a` reads `src/**`, which takes in its own output `src/gen.py`
       ╭─[Releasefile.kdl:2:21]
     2 │ target "a" { inputs "src/**"; outputs "src/gen.py"; run "x" }
       ·                     ────┬───          ──────┬─────
       ·                         │                   ╰── written here
       ·                         ╰── reads what it writes
       ╰────
      help: exclude it behind the pattern: `"!src/gen.py"`
    "##);
}

#[test]
fn empty_globs() {
    insta::assert_snapshot!(report(r#"
target "a" { each "image" files="assets/*.png"; run "x {image}" }
target "b" { each "image" files="other/*.png" optional=#true; run "x {image}" }
target "c" { inputs "src/**/*.py"; run "x" }
"#), @r##"
    rel::build::releasefile::empty_glob

      × `assets/*.png` matches no file
       ╭─[Releasefile.kdl:2:33]
     2 │ target "a" { each "image" files="assets/*.png"; run "x {image}" }
       ·                                 ───────┬──────
       ·                                        ╰── no match
       ╰────
      help: correct the pattern, or allow none with `optional=#true`

    rel::build::releasefile::empty_glob

      × the input `src/**/*.py` of `c` matches no file
       ╭─[Releasefile.kdl:4:21]
     4 │ target "c" { inputs "src/**/*.py"; run "x" }
       ·                     ──────┬──────
       ·                           ╰── no match
       ╰────
      help: correct the pattern, or allow none with `optional=#true`
    "##);
}

#[test]
fn targets_that_do_nothing() {
    insta::assert_snapshot!(report(r#"
target "a" { desc "nothing" }
target "b" { needs "a"; outputs "x" }
"#), @r##"
    rel::build::releasefile::empty_target

      × the target `a` has neither `run` nor `needs`
       ╭─[Releasefile.kdl:2:8]
     2 │ target "a" { desc "nothing" }
       ·        ─┬─
       ·         ╰── nothing to do
       ╰────
      help: give it a command: `run "…"`

    rel::build::releasefile::empty_target

      × the target `b` has outputs, but no `run`
       ╭─[Releasefile.kdl:3:8]
     3 │ target "b" { needs "a"; outputs "x" }
       ·        ─┬─
       ·         ╰── nothing makes them
       ╰────
      help: give it a command: `run "…"`
    "##);
}

#[test]
fn one_mistake_does_not_breed_others() {
    let space = Space::new(
        r#"
var "v" 3
target "gen" { outputs "gen/{v}.c" "x/{nmae}"; retries "x"; run "x {v}" }
target "use" { needs "gne"; inputs "gen/y.c" "x/z"; run "x" }
target "top" { needs "use" "gen"; inputs "gen/z.c"; run "x" }
"#,
    );
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::wrong_type

      × expected a string, found a number
       ╭─[Releasefile.kdl:2:9]
     2 │ var "v" 3
       ·         ┬
       ·         ╰── not a string
       ╰────
      help: write it in quotes: `"3"`

    rel::build::releasefile::unknown_name

      × `{nmae}` is not known here
       ╭─[Releasefile.kdl:3:39]
     3 │ target "gen" { outputs "gen/{v}.c" "x/{nmae}"; retries "x"; run "x {v}" }
       ·                                       ───┬──
       ·                                          ╰── no such name
       ╰────
      help: declare it with `var`, or write `{{` for a literal brace

    rel::build::releasefile::wrong_type

      × expected a whole number, found a string
       ╭─[Releasefile.kdl:3:56]
     3 │ target "gen" { outputs "gen/{v}.c" "x/{nmae}"; retries "x"; run "x {v}" }
       ·                                                        ─┬─
       ·                                                         ╰── not a whole number
       ╰────

    rel::build::releasefile::reserved_name

      × a target cannot be called `use`: the name has a meaning of its own
       ╭─[Releasefile.kdl:4:8]
     4 │ target "use" { needs "gne"; inputs "gen/y.c" "x/z"; run "x" }
       ·        ──┬──
       ·          ╰── choose another name
       ╰────

    rel::build::releasefile::unknown_target

      × target `use` needs `gne`, which is not a target
       ╭─[Releasefile.kdl:4:22]
     4 │ target "use" { needs "gne"; inputs "gen/y.c" "x/z"; run "x" }
       ·                      ──┬──
       ·                        ╰── not a target
       ╰────
      help: did you mean `gen`?
    "##);
}

#[test]
fn outputs_that_are_read_by_rel_itself() {
    let space = Space::new(
        r##"
include "more/hosts.kdl"
include "local.kdl" optional=#true
target "a" { outputs "Releasefile.kdl"; run "x" }
target "b" { outputs "more/"; run "x" }
target "c" { outputs "recipes/*"; run "x" }
target "d" { outputs "local.kdl"; run "x" }
target "e" { outputs "*.txt" "recipes/a/b.kdl" "other.kdl"; run "x" }
"##,
    )
    .file("more/hosts.kdl", "");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::output_is_source

      × the output `Releasefile.kdl` of `a` takes in `Releasefile.kdl`, which rel reads itself
       ╭─[Releasefile.kdl:4:22]
     4 │ target "a" { outputs "Releasefile.kdl"; run "x" }
       ·                      ────────┬────────
       ·                              ╰── a run would replace it
       ╰────
      help: write elsewhere, or name fewer files

    rel::build::releasefile::output_is_source

      × the output `more/` of `b` takes in `more/hosts.kdl`, which rel reads itself
       ╭─[Releasefile.kdl:5:22]
     5 │ target "b" { outputs "more/"; run "x" }
       ·                      ───┬───
       ·                         ╰── a run would replace it
       ╰────
      help: write elsewhere, or name fewer files

    rel::build::releasefile::output_is_source

      × the output `recipes/*` of `c` takes in `recipes/*.kdl`, which rel reads itself
       ╭─[Releasefile.kdl:6:22]
     6 │ target "c" { outputs "recipes/*"; run "x" }
       ·                      ─────┬─────
       ·                           ╰── a run would replace it
       ╰────
      help: write elsewhere, or name fewer files

    rel::build::releasefile::output_is_source

      × the output `local.kdl` of `d` takes in `local.kdl`, which rel reads itself
       ╭─[Releasefile.kdl:7:22]
     7 │ target "d" { outputs "local.kdl"; run "x" }
       ·                      ─────┬─────
       ·                           ╰── a run would replace it
       ╰────
      help: write elsewhere, or name fewer files
    "##);
}

#[test]
fn each_over_what_a_target_makes() {
    let text = r#"
target "g" { outputs "gen/"; run "x" }
target "t" { each "i" files="gen/*" optional=#true; needs "g"; run "x {i}" }
target "u" { each "i" files="[ab]/*.c" optional=#true; outputs "{i.dir}/{i.stem}.o"; run "x {i}" }
target "v" { each "i" files="c/*" optional=#true; outputs "c/v"; run "x {i}" }
"#;
    let space = Space::new(text).file("a/x.c", "").file("c/x", "");
    insta::assert_snapshot!(space.report(), @r#"
    rel::build::releasefile::each_over_output

      × `each` goes over `gen/*`, where `g` writes `gen/`
       ╭─[Releasefile.kdl:2:22]
     2 │ target "g" { outputs "gen/"; run "x" }
       ·                      ───┬──
       ·                         ╰── written here
       ╰────
       ╭─[Releasefile.kdl:3:29]
     3 │ target "t" { each "i" files="gen/*" optional=#true; needs "g"; run "x {i}" }
       ·                             ───┬───
       ·                                ╰── asked before anything runs
       ╰────
      help: write the values out, or let one target with `needs "g"` take all files

    rel::build::releasefile::each_over_output

      × `each` goes over `c/*`, where `v[c/x]` writes `c/v`
       ╭─[Releasefile.kdl:5:29]
     5 │ target "v" { each "i" files="c/*" optional=#true; outputs "c/v"; run "x {i}" }
       ·                             ──┬──                         ──┬──
       ·                               │                             ╰── written here
       ·                               ╰── asked before anything runs
       ╰────
      help: write elsewhere
    "#);
}
