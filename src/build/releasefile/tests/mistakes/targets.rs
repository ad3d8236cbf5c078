//! Targets: their sandbox, their depfile, their platform.

use super::super::{Space, report};

#[test]
fn sandboxes() {
    insta::assert_snapshot!(report(r#"
sandbox "strickt"
sandbox "off"
target "a" {
    sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
    sandbox #true
    run "x"
}
"#), @r##"
    rel::build::releasefile::unknown_sandbox

      × there is no sandbox `strickt`
       ╭─[Releasefile.kdl:2:9]
     2 │ sandbox "strickt"
       ·         ────┬────
       ·             ╰── not known
       ╰────
      help: did you mean `strict`?

    rel::build::releasefile::duplicate_node

      × there are two `sandbox` nodes
       ╭─[Releasefile.kdl:2:1]
     2 │ sandbox "strickt"
       · ───┬───
       ·    ╰── first given here
       ╰────
       ╭─[Releasefile.kdl:3:1]
     3 │ sandbox "off"
       · ───┬───
       ·    ╰── given again
       ╰────

    rel::build::releasefile::unknown_property

      × `sandbox` has no property `why`
       ╭─[Releasefile.kdl:5:22]
     5 │     sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
       ·                      ─┬─
       ·                       ╰── not a property of it
       ╰────

    rel::build::releasefile::unknown_node

      × `sandbox` has no node `write`
       ╭─[Releasefile.kdl:5:32]
     5 │     sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
       ·                                ──┬──
       ·                                  ╰── not known here
       ╰────
      help: it takes `read`, `connect`

    rel::build::releasefile::bad_dir

      × `tools` is not a directory of tools: it is relative
       ╭─[Releasefile.kdl:5:49]
     5 │     sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
       ·                                                 ───┬───
       ·                                                    ╰── not `/…` and not `~/…`
       ╰────
      help: what lies in the repository is declared in `inputs`

    rel::build::releasefile::bad_dir

      × `~x` is not a directory of tools: it is relative
       ╭─[Releasefile.kdl:5:57]
     5 │     sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
       ·                                                         ──┬─
       ·                                                           ╰── not `/…` and not `~/…`
       ╰────
      help: what lies in the repository is declared in `inputs`

    rel::build::releasefile::duplicate_node

      × `sandbox` is given twice in `target`
       ╭─[Releasefile.kdl:5:5]
     5 │     sandbox "strict" why="x" { write "/x"; read "tools" "~x" }
       ·     ───┬───
       ·        ╰── first given here
       ╰────
       ╭─[Releasefile.kdl:6:5]
     6 │     sandbox #true
       ·     ───┬───
       ·        ╰── given again
       ╰────

    rel::build::releasefile::wrong_type

      × expected a string, found a boolean
       ╭─[Releasefile.kdl:6:13]
     6 │     sandbox #true
       ·             ──┬──
       ·               ╰── not a string
       ╰────
    "##);
}

#[test]
fn depfiles() {
    insta::assert_snapshot!(report(r#"
target "a" { depfile "build/*.d"; run "x" }
target "b" { depfile "build/"; run "x" }
target "c" { depfile "../x.d"; run "x" }
target "d" { depfile "Releasefile.kdl"; run "x" }
target "e" { depfile "e.d" "f.d" size=1; run "x" }
target "f" { outputs "f.o" "f.d"; depfile "f.d"; run "x" }
target "g" { outputs "build/"; depfile "build/g.d"; run "x" }
target "h" { depfile "build/h.d"; run "x" }
target "i" { each "n" "1" "2"; depfile "i.d"; run "x {n}" }
target "j" { depfile "j.d"; depfile "k.d"; run "x" }
"#), @r##"
    rel::build::releasefile::bad_depfile

      × the depfile `build/*.d` is not a single file
       ╭─[Releasefile.kdl:2:22]
     2 │ target "a" { depfile "build/*.d"; run "x" }
       ·                      ─────┬─────
       ·                           ╰── not a depfile
       ╰────
      help: it is one file, which the commands write: `depfile "build/x.d"`

    rel::build::releasefile::bad_depfile

      × the depfile `build/` is not a single file
       ╭─[Releasefile.kdl:3:22]
     3 │ target "b" { depfile "build/"; run "x" }
       ·                      ────┬───
       ·                          ╰── not a depfile
       ╰────
      help: it is one file, which the commands write: `depfile "build/x.d"`

    rel::build::releasefile::bad_output

      × the depfile `../x.d` lies outside of the repository
       ╭─[Releasefile.kdl:4:22]
     4 │ target "c" { depfile "../x.d"; run "x" }
       ·                      ────┬───
       ·                          ╰── outside
       ╰────
      help: name a path below the directory of the Releasefile, such as `build/…`

    rel::build::releasefile::bad_depfile

      × the depfile `Releasefile.kdl` of `d` is a file that rel reads itself
       ╭─[Releasefile.kdl:5:8]
     5 │ target "d" { depfile "Releasefile.kdl"; run "x" }
       ·        ─┬─
       ·         ╰── a run would remove it
       ╰────
      help: name another file

    rel::build::releasefile::extra_argument

      × `depfile` takes one argument: the file, such as `"build/x.d"`
       ╭─[Releasefile.kdl:6:28]
     6 │ target "e" { depfile "e.d" "f.d" size=1; run "x" }
       ·                            ──┬──
       ·                              ╰── one too many
       ╰────

    rel::build::releasefile::unknown_property

      × `depfile` has no property `size`
       ╭─[Releasefile.kdl:6:34]
     6 │ target "e" { depfile "e.d" "f.d" size=1; run "x" }
       ·                                  ──┬─
       ·                                    ╰── not a property of it
       ╰────

    rel::build::releasefile::bad_depfile

      × the depfile `f.d` is an output of `f` as well
       ╭─[Releasefile.kdl:7:35]
     7 │ target "f" { outputs "f.o" "f.d"; depfile "f.d"; run "x" }
       ·                            ──┬──  ───┬───
       ·                              │       ╰── taken already
       ·                              ╰── `f.d`
       ╰────
      help: a depfile is read and removed: name another file

    rel::build::releasefile::bad_depfile

      × the depfile `build/h.d` is an output of `g` as well
       ╭─[Releasefile.kdl:8:22]
     8 │ target "g" { outputs "build/"; depfile "build/g.d"; run "x" }
       ·                      ────┬───
       ·                          ╰── `build/`
       ╰────
       ╭─[Releasefile.kdl:9:14]
     9 │ target "h" { depfile "build/h.d"; run "x" }
       ·              ───┬───
       ·                 ╰── taken already
       ╰────
      help: a depfile is read and removed: name another file

    rel::build::releasefile::bad_depfile

      × `i[1]` and `i[2]` write the same depfile `i.d`
        ╭─[Releasefile.kdl:10:32]
     10 │ target "i" { each "n" "1" "2"; depfile "i.d"; run "x {n}" }
        ·                                ───┬───
        ·                                   ╰── taken already
        ╰────
      help: let the path name the axis, so that each target has its own

    rel::build::releasefile::duplicate_node

      × `depfile` is given twice in `target`
        ╭─[Releasefile.kdl:11:29]
     11 │ target "j" { depfile "j.d"; depfile "k.d"; run "x" }
        ·              ───┬───        ───┬───
        ·                 │              ╰── given again
        ·                 ╰── first given here
        ╰────
    "##);
}

#[test]
fn platforms() {
    insta::assert_snapshot!(report(r#"
target "a" { platform "linux-arm64"; run "x" }
target "b" { platform "all"; run "x" }
target "c" { platform "linux-aarch46"; run "x" }
target "d" { platform "my machine"; run "x" }
target "e" { platform "any" { x "y" }; run "x" }
target "f" { platform 1; platform; run "x" }
target "g" { platform "darwin-arm64"; run "x" }
"#), @r##"
    rel::build::releasefile::unknown_platform

      × there is no platform `linux-arm64`
       ╭─[Releasefile.kdl:2:23]
     2 │ target "a" { platform "linux-arm64"; run "x" }
       ·                       ──────┬──────
       ·                             ╰── not known
       ╰────
      help: did you mean `linux-aarch64`?

    rel::build::releasefile::unknown_platform

      × there is no platform `all`
       ╭─[Releasefile.kdl:3:23]
     3 │ target "b" { platform "all"; run "x" }
       ·                       ──┬──
       ·                         ╰── not known
       ╰────
      help: write `any`, or system and processor, such as `linux-aarch64`

    rel::build::releasefile::unknown_platform

      × there is no platform `linux-aarch46`
       ╭─[Releasefile.kdl:4:23]
     4 │ target "c" { platform "linux-aarch46"; run "x" }
       ·                       ───────┬───────
       ·                              ╰── not known
       ╰────
      help: did you mean `linux-aarch64`?

    rel::build::releasefile::unknown_platform

      × there is no platform `my machine`
       ╭─[Releasefile.kdl:5:23]
     5 │ target "d" { platform "my machine"; run "x" }
       ·                       ──────┬─────
       ·                             ╰── not known
       ╰────
      help: write `any`, or system and processor, such as `linux-aarch64`

    rel::build::releasefile::unknown_node

      × `platform` has no node `x`
       ╭─[Releasefile.kdl:6:31]
     6 │ target "e" { platform "any" { x "y" }; run "x" }
       ·                               ┬
       ·                               ╰── not known here
       ╰────

    rel::build::releasefile::wrong_type

      × expected a string, found a number
       ╭─[Releasefile.kdl:7:23]
     7 │ target "f" { platform 1; platform; run "x" }
       ·                       ┬
       ·                       ╰── not a string
       ╰────
      help: write it in quotes: `"1"`

    rel::build::releasefile::duplicate_node

      × `platform` is given twice in `target`
       ╭─[Releasefile.kdl:7:26]
     7 │ target "f" { platform 1; platform; run "x" }
       ·              ────┬───    ────┬───
       ·                  │           ╰── given again
       ·                  ╰── first given here
       ╰────

    rel::build::releasefile::missing_argument

      × `platform` needs an argument: `"any"`, or what it is for: `"linux-aarch64"`
       ╭─[Releasefile.kdl:7:26]
     7 │ target "f" { platform 1; platform; run "x" }
       ·                          ────┬───
       ·                              ╰── nothing follows
       ╰────
      help: write `platform "…"`

    rel::build::releasefile::unknown_platform

      × there is no platform `darwin-arm64`
       ╭─[Releasefile.kdl:8:23]
     8 │ target "g" { platform "darwin-arm64"; run "x" }
       ·                       ───────┬──────
       ·                              ╰── not known
       ╰────
      help: did you mean `macos-aarch64`?
    "##);
}

#[test]
fn depfiles_that_are_inputs() {
    let text = r#"
target "a" { inputs "src/a.c"; depfile "src/a.c"; run "x" }
target "b" { inputs "src/*" "!src/c.c"; depfile "src/b.c"; run "x" }
target "c" { inputs "src/*" "!src/c.c"; depfile "src/c.c"; run "x" }
target "d" { depfile "d.d"; run "x" }
target "e" { inputs "d.d" optional=#true; run "x" }
"#;
    let space = Space::new(text).file("src/a.c", "");
    insta::assert_snapshot!(space.report(), @r#"
    rel::build::releasefile::bad_depfile

      × the depfile `src/a.c` is an input of `a` as well
       ╭─[Releasefile.kdl:2:32]
     2 │ target "a" { inputs "src/a.c"; depfile "src/a.c"; run "x" }
       ·                     ────┬────  ───┬───
       ·                         │         ╰── taken already
       ·                         ╰── read here
       ╰────
      help: what stands there is moved away before a run: name another file

    rel::build::releasefile::bad_depfile

      × the depfile `src/b.c` is an input of `b` as well
       ╭─[Releasefile.kdl:3:41]
     3 │ target "b" { inputs "src/*" "!src/c.c"; depfile "src/b.c"; run "x" }
       ·                     ───┬───             ───┬───
       ·                        │                   ╰── taken already
       ·                        ╰── read here
       ╰────
      help: what stands there is moved away before a run: name another file

    rel::build::releasefile::bad_depfile

      × the depfile `d.d` is an input of `e` as well
       ╭─[Releasefile.kdl:5:14]
     5 │ target "d" { depfile "d.d"; run "x" }
       ·              ───┬───
       ·                 ╰── taken already
       ╰────
       ╭─[Releasefile.kdl:6:21]
     6 │ target "e" { inputs "d.d" optional=#true; run "x" }
       ·                     ──┬──
       ·                       ╰── read here
       ╰────
      help: what stands there is moved away before a run: name another file
    "#);
}

#[test]
fn names_in_a_script_for_no_shell() {
    insta::assert_snapshot!(report(r#"
var "x" "1"
target "a" { shell "python3" "-c"; run "print({x})" }
target "b" { shell "python3" "-c"; env X="{x}"; run "import os; print(os.environ['X'])" }
target "c" { shell "/usr/bin/env" "bash" "-c"; run "echo {x}" }
target "d" { shell "busybox" "sh" "-c"; run "echo {x}" }
target "e" { shell "/bin/dash" "-c"; run "echo {x}" }
"#), @r##"
    rel::build::releasefile::bad_template

      × `{x}` stands in a script for `python3 -c`, for which no value can be quoted safely
       ╭─[Releasefile.kdl:3:47]
     3 │ target "a" { shell "python3" "-c"; run "print({x})" }
       ·                                               ─┬─
       ·                                                ╰── here
       ╰────
      help: set a variable with `env NAME="{x}"`, and read it in the script
    "##);
}
