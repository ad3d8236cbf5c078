//! Mistakes in values: types, durations, arguments that are not there.

use super::super::report;

#[test]
fn bad_durations() {
    insta::assert_snapshot!(report(r#"
target "a" { timeout 30; max-age "soon"; run "x" }
target "b" { timeout "0s"; run "x" }
environment "e" { use "evolve" max-age="24" }
"#), @r##"
    rel::build::releasefile::bad_duration

      × `30` is not a duration
       ╭─[Releasefile.kdl:2:22]
     2 │ target "a" { timeout 30; max-age "soon"; run "x" }
       ·                      ─┬
       ·                       ╰── expected a number with a unit
       ╰────
      help: did you mean `"30s"`?

    rel::build::releasefile::bad_duration

      × `soon` is not a duration
       ╭─[Releasefile.kdl:2:34]
     2 │ target "a" { timeout 30; max-age "soon"; run "x" }
       ·                                  ───┬──
       ·                                     ╰── expected a number with a unit
       ╰────
      help: write it like `"500ms"`, `"30s"`, `"1h 30m"` or `"7d"`

    rel::build::releasefile::bad_duration

      × `0s` is not a duration
       ╭─[Releasefile.kdl:3:22]
     3 │ target "b" { timeout "0s"; run "x" }
       ·                      ──┬─
       ·                        ╰── expected a number with a unit
       ╰────
      help: write it like `"500ms"`, `"30s"`, `"1h 30m"` or `"7d"`

    rel::build::releasefile::bad_duration

      × `24` is not a duration
       ╭─[Releasefile.kdl:4:40]
     4 │ environment "e" { use "evolve" max-age="24" }
       ·                                        ──┬─
       ·                                          ╰── expected a number with a unit
       ╰────
      help: did you mean `"24s"`?
    "##);
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(report(r#"
var "port" 8080
target "a" {
    retries "3"
    cache "no"
    cache "true"
    matrix { python 3.11 "3.12" }
    run #true
    pool (x)"p"
    retries -1
}
"#), @r##"
    rel::build::releasefile::wrong_type

      × expected a string, found a number
       ╭─[Releasefile.kdl:2:12]
     2 │ var "port" 8080
       ·            ──┬─
       ·              ╰── not a string
       ╰────
      help: write it in quotes: `"8080"`

    rel::build::releasefile::wrong_type

      × expected a whole number, found a string
       ╭─[Releasefile.kdl:4:13]
     4 │     retries "3"
       ·             ─┬─
       ·              ╰── not a whole number
       ╰────
      help: write `3`, without quotes

    rel::build::releasefile::unknown_cache

      × `cache` knows no `no`
       ╭─[Releasefile.kdl:5:11]
     5 │     cache "no"
       ·           ──┬─
       ·             ╰── not known
       ╰────
      help: besides `#true` and `#false` there are `here`, `anywhere`

    rel::build::releasefile::duplicate_node

      × `cache` is given twice in `target`
       ╭─[Releasefile.kdl:5:5]
     5 │     cache "no"
       ·     ──┬──
       ·       ╰── first given here
       ╰────
       ╭─[Releasefile.kdl:6:5]
     6 │     cache "true"
       ·     ──┬──
       ·       ╰── given again
       ╰────

    rel::build::releasefile::wrong_type

      × expected `#true` or `#false`, found a string
       ╭─[Releasefile.kdl:6:11]
     6 │     cache "true"
       ·           ───┬──
       ·              ╰── not `#true` or `#false`
       ╰────
      help: write `#true`, without quotes

    rel::build::releasefile::wrong_type

      × expected a string, found a number
       ╭─[Releasefile.kdl:7:21]
     7 │     matrix { python 3.11 "3.12" }
       ·                     ──┬─
       ·                       ╰── not a string
       ╰────
      help: write it in quotes: `"3.11"`

    rel::build::releasefile::wrong_type

      × expected a string, found a boolean
       ╭─[Releasefile.kdl:8:9]
     8 │     run #true
       ·         ──┬──
       ·           ╰── not a string
       ╰────

    rel::build::releasefile::wrong_type

      × expected a plain string, found one marked `(x)`
       ╭─[Releasefile.kdl:9:13]
     9 │     pool (x)"p"
       ·             ─┬─
       ·              ╰── only `version` takes a mark
       ╰────

    rel::build::releasefile::duplicate_node

      × `retries` is given twice in `target`
       ╭─[Releasefile.kdl:4:5]
     4 │     retries "3"
       ·     ───┬───
       ·        ╰── first given here
       ╰────
        ╭─[Releasefile.kdl:10:5]
     10 │     retries -1
        ·     ───┬───
        ·        ╰── given again
        ╰────

    rel::build::releasefile::bad_number

      × expected a number from 0 to 4294967295, found -1
        ╭─[Releasefile.kdl:10:13]
     10 │     retries -1
        ·             ─┬
        ·              ╰── out of range
        ╰────
    "##);
}

#[test]
fn missing_arguments() {
    insta::assert_snapshot!(report(r#"
var
var "x"
target
target "a" {
    needs
    inputs
    run
    env
    each
    each "y"
    timeout
    pool "p"
}
pool "q"
target "b" { run "" }
target "c" "d" { run "true" }
environment "e" { use; verify status=200; use "x" { a } }
"#), @r##"
    rel::build::releasefile::missing_argument

      × `var` needs an argument: a name and its value
       ╭─[Releasefile.kdl:2:1]
     2 │ var
       · ─┬─
       ·  ╰── nothing follows
       ╰────
      help: write `var "…"`

    rel::build::releasefile::missing_argument

      × the variable `x` has no value
       ╭─[Releasefile.kdl:3:5]
     3 │ var "x"
       ·     ─┬─
       ·      ╰── no value follows
       ╰────
      help: write `var "x" "…"`

    rel::build::releasefile::missing_argument

      × `target` needs an argument: the name of the target
       ╭─[Releasefile.kdl:4:1]
     4 │ target
       · ───┬──
       ·    ╰── nothing follows
       ╰────
      help: write `target "…"`

    rel::build::releasefile::missing_argument

      × `needs` needs an argument: the name of a target
       ╭─[Releasefile.kdl:6:5]
     6 │     needs
       ·     ──┬──
       ·       ╰── nothing follows
       ╰────
      help: write `needs "…"`

    rel::build::releasefile::missing_argument

      × `inputs` needs an argument: a file, a directory (`src/`) or a glob
       ╭─[Releasefile.kdl:7:5]
     7 │     inputs
       ·     ───┬──
       ·        ╰── nothing follows
       ╰────
      help: write `inputs "…"`

    rel::build::releasefile::missing_argument

      × `run` needs an argument: a shell command, or a program and its arguments
       ╭─[Releasefile.kdl:8:5]
     8 │     run
       ·     ─┬─
       ·      ╰── nothing follows
       ╰────
      help: write `run "…"`

    rel::build::releasefile::missing_argument

      × `env` needs an argument: a name to inherit, or `NAME="value"`
       ╭─[Releasefile.kdl:9:5]
     9 │     env
       ·     ─┬─
       ·      ╰── nothing follows
       ╰────
      help: write `env "…"`

    rel::build::releasefile::missing_argument

      × `each` needs an argument: a name, and its values or `files="…"`
        ╭─[Releasefile.kdl:10:5]
     10 │     each
        ·     ──┬─
        ·       ╰── nothing follows
        ╰────
      help: write `each "…"`

    rel::build::releasefile::missing_argument

      × the axis `y` has no values
        ╭─[Releasefile.kdl:11:10]
     11 │     each "y"
        ·          ─┬─
        ·           ╰── no values follow
        ╰────
      help: write the values behind it

    rel::build::releasefile::missing_argument

      × `timeout` needs an argument: a duration
        ╭─[Releasefile.kdl:12:5]
     12 │     timeout
        ·     ───┬───
        ·        ╰── nothing follows
        ╰────
      help: write `timeout "…"`

    rel::build::releasefile::unknown_pool

      × there is no pool `p`
        ╭─[Releasefile.kdl:13:10]
     13 │     pool "p"
        ·          ─┬─
        ·           ╰── not a pool
        ╰────
      help: did you mean `q`?

    rel::build::releasefile::missing_argument

      × the pool `q` has no depth
        ╭─[Releasefile.kdl:15:6]
     15 │ pool "q"
        ·      ─┬─
        ·       ╰── how many at once?
        ╰────
      help: write `pool "q" depth=2`

    rel::build::releasefile::missing_argument

      × the command is empty
        ╭─[Releasefile.kdl:16:18]
     16 │ target "b" { run "" }
        ·                  ─┬
        ·                   ╰── nothing to run
        ╰────

    rel::build::releasefile::extra_argument

      × `target` takes one argument: the name of the target
        ╭─[Releasefile.kdl:17:12]
     17 │ target "c" "d" { run "true" }
        ·            ─┬─
        ·             ╰── one too many
        ╰────

    rel::build::releasefile::missing_argument

      × `use` needs an argument: the name of a recipe
        ╭─[Releasefile.kdl:18:19]
     18 │ environment "e" { use; verify status=200; use "x" { a } }
        ·                   ─┬─
        ·                    ╰── nothing follows
        ╰────
      help: write `use "…"`

    rel::build::releasefile::missing_argument

      × `verify` needs an argument: `http="https://…"`
        ╭─[Releasefile.kdl:18:24]
     18 │ environment "e" { use; verify status=200; use "x" { a } }
        ·                        ───┬──
        ·                           ╰── nothing follows
        ╰────
      help: write `verify http="https://…" status=200`

    rel::build::releasefile::missing_argument

      × `a` needs an argument: the value
        ╭─[Releasefile.kdl:18:53]
     18 │ environment "e" { use; verify status=200; use "x" { a } }
        ·                                                     ┬
        ·                                                     ╰── nothing follows
        ╰────
      help: write `a "…"`
    "##);
}

#[test]
fn a_duration_longer_than_any_clock() {
    insta::assert_snapshot!(report(r#"
target "a" { timeout "18446744073709551615s"; max-age "200years"; run "x" }
"#), @r##"
    rel::build::releasefile::bad_duration

      × `18446744073709551615s` is not a duration
       ╭─[Releasefile.kdl:2:22]
     2 │ target "a" { timeout "18446744073709551615s"; max-age "200years"; run "x" }
       ·                      ───────────┬───────────
       ·                                 ╰── it is longer than 100 years
       ╰────
      help: write it like `"500ms"`, `"30s"`, `"1h 30m"` or `"7d"`

    rel::build::releasefile::bad_duration

      × `200years` is not a duration
       ╭─[Releasefile.kdl:2:55]
     2 │ target "a" { timeout "18446744073709551615s"; max-age "200years"; run "x" }
       ·                                                       ─────┬────
       ·                                                            ╰── it is longer than 100 years
       ╰────
      help: write it like `"500ms"`, `"30s"`, `"1h 30m"` or `"7d"`
    "##);
}

#[test]
fn a_former_name_of_a_property_is_a_warning() {
    insta::assert_snapshot!(report("host \"a\" local=#true\nenvironment \"e\" {\n    use \"x\" on=\"a\" around=\"y\"\n    use \"y\" on=\"a\"\n}\n"), @r#"
    rel::build::releasefile::renamed

      ⚠ `around` is now called `wraps`
       ╭─[Releasefile.kdl:3:27]
     3 │     use "x" on="a" around="y"
       ·                           ─┬─
       ·                            ╰── former name
       ╰────
      help: write `wraps="…"`
    "#);
}
