//! Mistakes in a Releasefile and on the command line, as a person meets them.
//!
//! The text of each kind of mistake is snapshotted beside the module that finds it;
//! `every_code_is_shown` keeps that list complete. Here the whole program answers: all
//! mistakes in one run, exit code 2, nothing started.

use std::collections::BTreeSet;

use insta::assert_snapshot;

use crate::space::Space;

/// Returns what `rel check` says of a Releasefile with mistakes.
#[track_caller]
fn mistakes(text: &str) -> String {
    let space = Space::new(text);
    space.write("a.txt", "a").write("src/b.txt", "b");
    space.run(["check"]).fails(2).stderr
}

#[test]
fn mistakes_without_end_are_counted() {
    let target = |n: usize| format!("target \"t{n}\" {{ needs \"nothing-{n}\"; run \"true\"; }}\n");
    let text: String = (0..60).map(target).collect();
    let told = mistakes(&text);
    assert_eq!(told.matches("rel::").count(), 50, "{told}");
    assert!(told.contains("and 10 more errors not shown\n"), "{told}");
}

#[test]
fn all_mistakes_are_reported_in_one_run() {
    assert_snapshot!(mistakes(
        r#"
project "karl" { version "1" }
target "wheel" {
    need "tests"
    inputs "src/b.text"
    outputs "dist/karl.whl"
    run "make wheel" timeout="2m"
}
target "image" {
    needs "whell"
    outputs "dist/*"
    timeout "2 parsecs"
    run "make {tag}"
}
host "karl04" ssh="karl@karl04" port=99999
environment "staging" {
    param "branch" one-of="a b" default="c"
    use "db-copy" on="karl05" from="karl04"
}
"#
    ), @r#"
    rel::build::releasefile::unknown_node

      × `target` has no node `need`
       ╭─[Releasefile.kdl:4:5]
     4 │     need "tests"
       ·     ──┬─
       ·       ╰── not known here
       ╰────
      help: did you mean `needs`?

    rel::build::releasefile::unknown_property

      × `run` has no property `timeout`
       ╭─[Releasefile.kdl:7:22]
     7 │     run "make wheel" timeout="2m"
       ·                      ───┬───
       ·                         ╰── not a property of it
       ╰────

    rel::build::releasefile::unknown_target

      × target `image` needs `whell`, which is not a target
        ╭─[Releasefile.kdl:10:11]
     10 │     needs "whell"
        ·           ───┬───
        ·              ╰── not a target
        ╰────
      help: did you mean `wheel`?

    rel::build::releasefile::overlapping_outputs

      × targets `wheel` and `image` write the same files
       ╭─[Releasefile.kdl:6:13]
     6 │     outputs "dist/karl.whl"
       ·             ───────┬───────
       ·                    ╰── with `dist/karl.whl`
       ╰────
        ╭─[Releasefile.kdl:11:13]
     11 │     outputs "dist/*"
        ·             ────┬───
        ·                 ╰── `dist/*` overlaps
        ╰────
      help: give each file to one target only

    rel::build::releasefile::bad_duration

      × `2 parsecs` is not a duration
        ╭─[Releasefile.kdl:12:13]
     12 │     timeout "2 parsecs"
        ·             ─────┬─────
        ·                  ╰── expected a number with a unit
        ╰────
      help: write it like `"500ms"`, `"30s"`, `"1h 30m"` or `"7d"`

    rel::build::releasefile::unknown_name

      × `{tag}` is not known here
        ╭─[Releasefile.kdl:13:15]
     13 │     run "make {tag}"
        ·               ──┬──
        ·                 ╰── no such name
        ╰────
      help: declare it with `var`, or write `{{` for a literal brace

    rel::build::releasefile::bad_number

      × expected a port from 1 to 65535, found 99999
        ╭─[Releasefile.kdl:15:38]
     15 │ host "karl04" ssh="karl@karl04" port=99999
        ·                                      ──┬──
        ·                                        ╰── out of range
        ╰────

    rel::build::releasefile::bad_default

      × the default `c` is none of the allowed values
        ╭─[Releasefile.kdl:17:41]
     17 │     param "branch" one-of="a b" default="c"
        ·                                         ─┬─
        ·                                          ╰── not allowed
        ╰────
      help: did you mean `a`?

    rel::build::releasefile::missing_parameter

      × recipe `db-copy` needs `snapshot`
        ╭─[Releasefile.kdl:18:9]
     18 │     use "db-copy" on="karl05" from="karl04"
        ·         ────┬────
        ·             ╰── here
        ╰────
      help: `snapshot`: writes a consistent copy into {stage}; runs there, on the host given by `from`

    rel::build::releasefile::unknown_host

      × there is no host or group `karl05`
        ╭─[Releasefile.kdl:18:22]
     18 │     use "db-copy" on="karl05" from="karl04"
        ·                      ────┬───
        ·                          ╰── not a host
        ╰────
      help: did you mean `karl04`?
    "#);
}

#[test]
fn broken_kdl() {
    assert_snapshot!(mistakes("target \"a\" {\n    run \"true\"\n"), @r#"
    rel::build::releasefile::syntax

      × no closing '}' for child block
       ╭─[Releasefile.kdl:1:12]
     1 │ target "a" {
       ·            ┬
       ·            ╰── not closed
       ╰────

    rel::build::releasefile::syntax

      × closing '}' was not found after nodes
       ╭─[Releasefile.kdl:2:5]
     2 │     run "true"
       ·     ─────┬────
       ·          ╰── not closed
       ╰────
    "#);
    assert_snapshot!(mistakes("target \"a {\n    run true\n}\n"), @r#"
    rel::build::releasefile::syntax

      × unexpected newline in single-line quoted string
       ╭─[Releasefile.kdl:1:8]
     1 │ target "a {
       ·        ──┬─
       ·          ╰── not quoted string
       ╰────
      help: you can make a string multi-line by wrapping it in '"""', with a newline immediately after
            the opening quotes

    rel::build::releasefile::syntax

      × expected identifier string
       ╭─[Releasefile.kdl:2:9]
     2 │     run true
       ·         ──┬─
       ·           ╰── not identifier string
       ╰────
      help: write `#true`

    rel::build::releasefile::syntax

      × expected end of document
       ╭─[Releasefile.kdl:3:1]
     3 │ }
       · ┬
       · ╰── not EOF
       ╰────
    "#);
    assert_snapshot!(mistakes("target \"a\" { cache false; run \"true\"; }\n"), @r#"
    rel::build::releasefile::syntax

      × expected identifier string
       ╭─[Releasefile.kdl:1:20]
     1 │ target "a" { cache false; run "true"; }
       ·                    ──┬──
       ·                      ╰── not identifier string
       ╰────
      help: write `#false`
    "#);
}

#[test]
fn what_kdl_takes_and_nobody_means() {
    let space = Space::new(
        r#"
include "more.kdl"
pool "p" depth=0XFF
environment "e" {
    verify http=https://example.org/ status=200 contains="Log in"
    use "said" on="h" text="a" text="b"
    use "said" as="again" on="h" text=-inf
}
"#,
    );
    space.write(
        "more.kdl",
        "host \"h\" local=#true root=srv/**/h\ntarget \"x\" { run \"true\"; env A=\"1\" A=\"2\"; }\n",
    );
    space.write(
        "recipes/said.kdl",
        r#"recipe "said" {
    param "text" default=1e999
    step "say" late=1 detach=#true detach=#false {
        run echo//x
        check "a"
        check "b"
    }
}
"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::bad_number

      × `1e999` is too large for a number
       ╭─[recipes/said.kdl:2:26]
     2 │     param "text" default=1e999
       ·                          ──┬──
       ·                            ╰── too large
       ╰────
      help: write it in quotes, if it is a text

    rel::build::releasefile::duplicate_name

      × `detach` is given twice in `step`
       ╭─[recipes/said.kdl:3:36]
     3 │     step "say" late=1 detach=#true detach=#false {
       ·                       ───┬──       ───┬──
       ·                          │            ╰── given again
       ·                          ╰── first given here
       ╰────

    rel::build::releasefile::missing_quotes

      × `echo` ends here: `//` begins a comment
       ╭─[recipes/said.kdl:4:13]
     4 │         run echo//x
       ·             ───┬───
       ·                ╰── not in quotes
       ╰────
      help: write it in quotes: `"echo//x"`; before a comment write a blank

    rel::build::releasefile::unknown_node

      × property `late` is not known here
       ╭─[recipes/said.kdl:3:16]
     3 │     step "say" late=1 detach=#true detach=#false {
       ·                ──┬─
       ·                  ╰── expected one of if, on-change, host, per, as, destructive, detach, undo, once, makes, desc
       ╰────

    rel::build::releasefile::duplicate_node

      × `check` is given twice
       ╭─[recipes/said.kdl:5:9]
     5 │         check "a"
       ·         ──┬──
       ·           ╰── first given here
       ╰────
       ╭─[recipes/said.kdl:6:9]
     6 │         check "b"
       ·         ──┬──
       ·           ╰── given again
       ╰────

    rel::build::releasefile::bad_number

      × `0XFF` is not a number
       ╭─[Releasefile.kdl:3:16]
     3 │ pool "p" depth=0XFF
       ·                ──┬─
       ·                  ╰── begins like a number
       ╰────
      help: write `0xFF`

    rel::build::releasefile::missing_quotes

      × `https:` ends here: `//` begins a comment
       ╭─[Releasefile.kdl:5:17]
     5 │     verify http=https://example.org/ status=200 contains="Log in"
       ·                 ──────────┬─────────
       ·                           ╰── not in quotes
       ╰────
      help: write it in quotes: `"https://example.org/"`; before a comment write a blank

    rel::build::releasefile::duplicate_name

      × `text` is given twice in `use`
       ╭─[Releasefile.kdl:6:32]
     6 │     use "said" on="h" text="a" text="b"
       ·                       ──┬─     ──┬─
       ·                         │        ╰── given again
       ·                         ╰── first given here
       ╰────

    rel::build::releasefile::bad_number

      × `-inf` is not a number
       ╭─[Releasefile.kdl:7:39]
     7 │     use "said" as="again" on="h" text=-inf
       ·                                       ──┬─
       ·                                         ╰── not a number, and not in quotes
       ╰────
      help: write a number; a text stands in quotes: `"-inf"`

    rel::build::releasefile::missing_quotes

      × `srv` ends here: `/*` begins a comment
       ╭─[more.kdl:1:27]
     1 │ host "h" local=#true root=srv/**/h
       ·                           ────┬───
       ·                               ╰── not in quotes
       ╰────
      help: write it in quotes: `"srv/**/h"`; before a comment write a blank

    rel::build::releasefile::duplicate_name

      × `A` is given twice in `env`
       ╭─[more.kdl:2:36]
     2 │ target "x" { run "true"; env A="1" A="2"; }
       ·                              ┬     ┬
       ·                              │     ╰── given again
       ·                              ╰── first given here
       ╰────
    "#);
    space.remove("recipes");
    // What the parser refuses.
    space.write(
        "Releasefile.kdl",
        "pool \"p\" depth=99999999999999999999999999999999999999999\n\
         target \"y\" { inputs src/b.txt; }\ntarget \"z\" { timeout 5s; }\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::bad_number

      × `99999999999999999999999999999999999999999` is too large for a number
       ╭─[Releasefile.kdl:1:16]
     1 │ pool "p" depth=99999999999999999999999999999999999999999
       ·                ────────────────────┬────────────────────
       ·                                    ╰── too large
       ╰────
      help: write it in quotes, if it is a text

    rel::build::releasefile::missing_quotes

      × `src/b.txt` has a `/` and is not in quotes
       ╭─[Releasefile.kdl:2:21]
     2 │ target "y" { inputs src/b.txt; }
       ·                     ────┬────
       ·                         ╰── not in quotes
       ╰────
      help: write it in quotes: `"src/b.txt"`

    rel::build::releasefile::bad_number

      × `5s` is not a number
       ╭─[Releasefile.kdl:3:22]
     3 │ target "z" { timeout 5s; }
       ·                      ─┬
       ·                       ╰── begins like a number
       ╰────
      help: write it in quotes, if it is a text: `"5s"`
    "#);
}

/// `3.10` is not `3.1`: what is written reaches the host.
#[test]
fn a_number_in_a_recipe_is_as_it_is_written() {
    let space = Space::new(
        r#"
host "h" local=#true root="h"
environment "e" { use "said" on="h" other=1_0; }
"#,
    );
    space.write(
        "recipes/said.kdl",
        r#"recipe "said" {
    param "version" default=3.10
    param "other" default=0x0F
    step "say" { write "{host.root}/said" "{version} {other}" mode=0640; }
}
"#,
    );
    let _ = space.run(["e"]).ok();
    assert_eq!(space.read("h/said"), "3.10 1_0");
    let mode = std::fs::metadata(space.path("h/said")).expect("is there");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(mode.permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_file_that_is_not_text() {
    let space = Space::empty();
    space.write("Releasefile.kdl", b"target \"a\xff\" { run \"true\"; }\n");
    assert_snapshot!(space.run(["check"]).fails(2), @r#"
    --- stderr
    rel::build::releasefile::syntax

      × the file is not UTF-8 text
       ╭─[Releasefile.kdl:1:10]
     1 │ target "a�" { run "true"; }
       ·          ┬
       ·          ╰── the first byte that is not
       ╰────
    --- exit code 2
    "#);
}

#[test]
fn names_that_lead_away_or_are_not_text() {
    use std::os::unix::ffi::OsStrExt;
    let space = Space::new(
        r#"
target "a" { dir "../elsewhere"; run "true"; }
target "b" { each "x" files="files/*"; env NAME="{x}"; run "true"; }
target "c" { each "x" files="link/*"; run "echo {x}"; }
target "d" { each "x" files="files/*"; expect "{x}"; run "true"; }
"#,
    );
    let name = std::ffi::OsStr::from_bytes(b"files/a\xffb");
    space.write(name, "").shell("ln -s link link");
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::bad_dir

      × the directory `../elsewhere` lies outside of the repository
       ╭─[Releasefile.kdl:2:18]
     2 │ target "a" { dir "../elsewhere"; run "true"; }
       ·                  ───────┬──────
       ·                         ╰── outside
       ╰────

    rel::build::releasefile::unreadable

      × cannot list directory `[work]/link`: too many levels of symbolic links
       ╭─[Releasefile.kdl:4:29]
     4 │ target "c" { each "x" files="link/*"; run "echo {x}"; }
       ·                             ────┬───
       ·                                 ╰── asked for here
       ╰────

    rel::build::releasefile::not_utf8

      × `files/a\xffb` is not UTF-8, and cannot stand here
       ╭─[Releasefile.kdl:5:47]
     5 │ target "d" { each "x" files="files/*"; expect "{x}"; run "true"; }
       ·                                               ──┬──
       ·                                                 ╰── stands for a name that is not UTF-8
       ╰────
    "#);
}

#[test]
fn unknown_parameter() {
    assert_snapshot!(mistakes(
        r#"
host "h" local=#true root="h"
target "a" { outputs "x"; run "touch x"; }
environment "staging" {
    needs "a"
    use "versioned-release" on="h" artifact="{a}" root="{host.root}" kept="3"
    use "versoned-release" as="again" on="h" artifact="{a}" root="{host.root}"
    use "versioned-release" as="third" on="h" root="{host.root}"
}
"#
    ), @r#"
    rel::build::releasefile::unknown_parameter

      × recipe `versioned-release` has no parameter `kept`
       ╭─[Releasefile.kdl:6:75]
     6 │     use "versioned-release" on="h" artifact="{a}" root="{host.root}" kept="3"
       ·                                                                           ─┬─
       ·                                                                            ╰── not a parameter
       ╰────
      help: it has artifact, root, install, start, health, within, stop, start-former, keep

    rel::build::releasefile::unknown_recipe

      × there is no recipe `versoned-release`
       ╭─[Releasefile.kdl:7:9]
     7 │     use "versoned-release" as="again" on="h" artifact="{a}" root="{host.root}"
       ·         ─────────┬────────
       ·                  ╰── not a recipe
       ╰────
      help: did you mean `versioned-release`?

    rel::build::releasefile::missing_parameter

      × recipe `versioned-release` needs `artifact`
       ╭─[Releasefile.kdl:8:9]
     8 │     use "versioned-release" as="third" on="h" root="{host.root}"
       ·         ─────────┬─────────
       ·                  ╰── here
       ╰────
      help: `artifact`: what is released; laid into {release}/artifact/
    "#);
}

#[test]
fn a_value_that_a_host_does_not_have() {
    assert_snapshot!(mistakes(
        r#"
host "a" local=#true root="a" { var "port" "80"; }
host "b" local=#true root="b"
host "c" local=#true root="c"
group "all" "a" "[b,c]"
var "one" "b"
environment "staging" {
    param "any"
    use "wait-for" on="all" port="localhost:{host.port}"
    use "wait-for" as="again" on="{one}" port="{host.root}:{host.port}"
    use "wait-for" as="fine" on="a" port="{host.name}:{host.port}"
    use "wait-for" as="later" on="{any}" port="localhost:{host.port}"
}
"#
    ), @r#"
    rel::build::releasefile::unknown_name

      × 2 of 3 hosts have no `port`
       ╭─[Releasefile.kdl:3:6]
     3 │ host "b" local=#true root="b"
       ·      ─┬─
       ·       ╰── `b` has none
       ╰────
       ╭─[Releasefile.kdl:9:34]
     9 │     use "wait-for" on="all" port="localhost:{host.port}"
       ·                                  ───────────┬───────────
       ·                                             ╰── not for every host
       ╰────
      help: give it one: `host "b" … { var "port" "…"; }`

    rel::build::releasefile::unknown_name

      × host `b` has no `port`
       ╭─[Releasefile.kdl:3:6]
     3 │ host "b" local=#true root="b"
       ·      ─┬─
       ·       ╰── `b` has none
       ╰────
        ╭─[Releasefile.kdl:10:47]
     10 │     use "wait-for" as="again" on="{one}" port="{host.root}:{host.port}"
        ·                                               ────────────┬────────────
        ·                                                           ╰── not for every host
        ╰────
      help: give it one: `host "b" … { var "port" "…"; }`
    "#);
}

/// What a recipe uses counts where it is used: not the default of what is given, nor a step that
/// does not exist.
#[test]
fn a_value_of_a_host_that_a_recipe_uses() {
    let space = Space::new(
        r#"
host "a" local=#true root="a" { var "port" "80"; }
host "b" local=#true root="b"
environment "e" {
    use "r" on="a"
    use "r" as="second" on="b"
    use "r" as="third" on="b" listen="90" then="true"
    use "r" as="fine" on="b" listen="90"
}
"#,
    );
    space.write(
        "recipes/r.kdl",
        r#"recipe "r" {
    param "listen" default="{host.port}"
    param "then" default=""
    step "one" { run "echo {listen} {host.name}"; }
    step "two" if="then" { write "{host.root}/x" "{host.port}\n"; }
}"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::unknown_name

      × host `b` has no `port`
       ╭─[Releasefile.kdl:3:6]
     3 │ host "b" local=#true root="b"
       ·      ─┬─
       ·       ╰── `b` has none
       ╰────
       ╭─[Releasefile.kdl:6:9]
     6 │     use "r" as="second" on="b"
       ·         ─┬─
       ·          ╰── recipe `r` uses `{host.port}`
       ╰────
      help: give it one: `host "b" … { var "port" "…"; }`

    rel::build::releasefile::unknown_name

      × host `b` has no `port`
       ╭─[Releasefile.kdl:3:6]
     3 │ host "b" local=#true root="b"
       ·      ─┬─
       ·       ╰── `b` has none
       ╰────
       ╭─[Releasefile.kdl:7:9]
     7 │     use "r" as="third" on="b" listen="90" then="true"
       ·         ─┬─
       ·          ╰── recipe `r` uses `{host.port}`
       ╰────
      help: give it one: `host "b" … { var "port" "…"; }`
    "#);
}

#[test]
fn includes() {
    let space = Space::new("include \"one.kdl\"\ninclude \"none.kdl\"\n");
    space.write(
        "one.kdl",
        "include \"Releasefile.kdl\"\ntarget \"a\" { rum \"true\"; }\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::unreadable_include

      × cannot read `none.kdl`: no such file or directory
       ╭─[Releasefile.kdl:2:9]
     2 │ include "none.kdl"
       ·         ─────┬────
       ·              ╰── included here
       ╰────
      help: a path is relative to the file it stands in; `optional=#true` allows it to be missing

    rel::build::releasefile::include_cycle

      × includes form a cycle: Releasefile.kdl -> one.kdl -> Releasefile.kdl
       ╭─[one.kdl:1:9]
     1 │ include "Releasefile.kdl"
       ·         ────────┬────────
       ·                 ╰── closes the cycle here
       ╰────

    rel::build::releasefile::empty_target

      × the target `a` has neither `run` nor `needs`
       ╭─[one.kdl:2:8]
     2 │ target "a" { rum "true"; }
       ·        ─┬─
       ·         ╰── nothing to do
       ╰────
      help: give it a command: `run "…"`

    rel::build::releasefile::unknown_node

      × `target` has no node `rum`
       ╭─[one.kdl:2:14]
     2 │ target "a" { rum "true"; }
       ·              ─┬─
       ·               ╰── not known here
       ╰────
      help: did you mean `run`?
    "#);
}

#[test]
fn an_unused_variable_is_only_a_warning() {
    let space = Space::new("var \"python\" \"python3\"\ntarget \"a\" { run \"true\"; }\n");
    assert_snapshot!(space.run(["build"]).ok().stderr, @r#"
    rel::build::releasefile::unused_variable

      ⚠ the variable `python` is never used
       ╭─[Releasefile.kdl:1:5]
     1 │ var "python" "python3"
       ·     ────┬───
       ·         ╰── declared here
       ╰────
         run a  never built here
        done a  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    "#);
    assert_eq!(space.run(["-q", "check"]).ok().stderr, "");
}

#[test]
fn a_value_of_the_command_line_that_is_not_declared() {
    let space = Space::new("var \"python\" \"python3\"\ntarget \"a\" { run \"{python}\"; }\n");
    assert_snapshot!(space.run(["--var", "pyhton=x", "check"]).fails(2), @"
    --- stderr
    rel::build::releasefile::unknown_variable

      × `--var pyhton=…` sets a variable that the Releasefile does not have
      help: did you mean `python`?
    --- exit code 2
    ");
    assert_snapshot!(space.run(["--var", "python", "check"]).fails(2), @"
    --- stderr
    error: `--var python` is not NAME=VALUE
      help: for example: --var python=python3.12
    --- exit code 2
    ");
}

#[test]
fn a_driver_that_is_not_there_or_does_not_fit() {
    let space = Space::new(
        r#"
project "karl" { version "1" }
host "a" local=#true root="a"
environment "staging" {
    use "backup" on="a" driver="sqlight" into="/b"
    use "backup" as="b" on="a" driver="boat" into="/b"
    use "backup" as="c" on="a" into="/b"
}
"#,
    );
    space.write(
        "recipes/boat.kdl",
        "driver \"boat\" { step \"row\" { run \"true\"; }; }\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::unknown_driver

      × there is no driver `sqlight`
       ╭─[Releasefile.kdl:5:32]
     5 │     use "backup" on="a" driver="sqlight" into="/b"
       ·                                ────┬────
       ·                                    ╰── not a driver
       ╰────
      help: available: boat, postgres, sqlite, zodb; recipes of the project are in `recipes/NAME.kdl`

    rel::build::releasefile::bad_driver

      × driver `boat` does not fit: node `step` is not known here
       ╭─[Releasefile.kdl:6:39]
     6 │     use "backup" as="b" on="a" driver="boat" into="/b"
       ·                                       ───┬──
       ·                                          ╰── named here
       ╰────

    rel::build::releasefile::missing_parameter

      × recipe `backup` needs a `driver`
       ╭─[Releasefile.kdl:7:9]
     7 │     use "backup" as="c" on="a" into="/b"
       ·         ────┬───
       ·             ╰── here
       ╰────
      help: or the commands that one gives: full, incremental, restore, check, drop
    "#);
}

#[test]
fn two_uses_with_one_directory() {
    let space = Space::new(
        r#"
project "karl" { version "1" }
host "a" local=#true root="a"
host "b" local=#true root="b"
group "both" "a" "b"
environment "nightly" {
    use "backup" as="one" on="a" driver="sqlite" data="one" into="{host.root}/b"
    use "backup" as="two" on="both" driver="sqlite" data="two" into="{host.root}/b"
    use "backup" as="three" on="b" driver="sqlite" data="three" into="{host.root}/b/{use}"
    use "evolve" on="a" copy="c" into="{host.root}/b/{use}" data="d" command="true"
}
environment "weekly" {
    use "backup" as="one" on="a" driver="sqlite" data="one" into="{host.root}/b"
    use "backup" as="two" on="b" driver="sqlite" data="two" into="{host.root}/b"
}
"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::shared_directory

      × `one` and `two` use the same directory
       ╭─[Releasefile.kdl:7:66]
     7 │     use "backup" as="one" on="a" driver="sqlite" data="one" into="{host.root}/b"
       ·                                                                  ───────┬───────
       ·                                                                         ╰── of `one`
       ╰────
       ╭─[Releasefile.kdl:8:69]
     8 │     use "backup" as="two" on="both" driver="sqlite" data="two" into="{host.root}/b"
       ·                                                                     ───────┬───────
       ·                                                                            ╰── the same
       ╰────
      help: each would replace the files of the other: give each its own
    "#);
}

#[test]
fn a_recipe_of_the_project_with_mistakes() {
    let space = Space::new("");
    space.write(
        "recipes/mine.kdl",
        "recipe \"mine\" {\n    param \"x\" tpye=\"text\"\n    step \"a\" { rum \"true\"; }\n    step \"b\" on-change=\"c\" { env \"X\"; run \"{y}\"; }\n}\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::unknown_node

      × property `tpye` is not known here
       ╭─[recipes/mine.kdl:2:15]
     2 │     param "x" tpye="text"
       ·               ──┬─
       ·                 ╰── expected one of type, default, gives, own, desc
       ╰────
      help: did you mean `type`?

    rel::build::releasefile::unknown_node

      × node `rum` is not known here
       ╭─[recipes/mine.kdl:3:16]
     3 │     step "a" { rum "true"; }
       ·                ─┬─
       ·                 ╰── expected one of run, put, write, symlink, service, scope, forward, responder, wait, prepare, check, verify, undo, undo-check, rollback-check, dir, env, timeout
       ╰────
      help: did you mean `run`?

    rel::build::releasefile::step_action

      × step `a` must have one action of run, put, write, symlink, service, scope, forward, responder,
      │ wait, and has 0
       ╭─[recipes/mine.kdl:3:10]
     3 │     step "a" { rum "true"; }
       ·          ─┬─
       ·           ╰── expected exactly one action
       ╰────

    rel::build::releasefile::wrong_value

      × `env` takes `NAME="value"`
       ╭─[recipes/mine.kdl:4:34]
     4 │     step "b" on-change="c" { env "X"; run "{y}"; }
       ·                                  ─┬─
       ·                                   ╰── not a property
       ╰────

    rel::build::releasefile::unknown_name

      × `{y}` is not known here
       ╭─[recipes/mine.kdl:4:43]
     4 │     step "b" on-change="c" { env "X"; run "{y}"; }
       ·                                           ──┬──
       ·                                             ╰── here
       ╰────
      help: did you mean `{x}`?

    rel::build::releasefile::unknown_node

      × earlier step `c` is not known here
       ╭─[recipes/mine.kdl:4:10]
     4 │     step "b" on-change="c" { env "X"; run "{y}"; }
       ·          ─┬─
       ·           ╰── expected one of
       ╰────
    "#);
}

#[test]
fn uses_that_lack_something() {
    assert_snapshot!(mistakes(
        r#"
host "h" local=#true root="h"
environment "staging" {
    use "wait-for" command="true"
    use "db-copy" on="h" { snapshot "true"; into "x"; }
    use "versioned-release" as="r" on="h" artifact="a.txt" root="{nowhere}" keep="{"
}
"#
    ), @r#"
    rel::build::releasefile::missing_host

      × recipe `wait-for` works on a host
       ╭─[Releasefile.kdl:4:9]
     4 │     use "wait-for" command="true"
       ·         ─────┬────
       ·              ╰── no `on=`
       ╰────
      help: say where: `on="host-or-group"`

    rel::build::releasefile::missing_host

      × recipe `db-copy` takes something from another host
       ╭─[Releasefile.kdl:5:9]
     5 │     use "db-copy" on="h" { snapshot "true"; into "x"; }
       ·         ────┬────
       ·             ╰── no `from=`
       ╰────
      help: say from where: `from="host"`

    rel::build::releasefile::unknown_target

      × `artifact` takes a target that the environment needs, not `a.txt`
       ╭─[Releasefile.kdl:6:52]
     6 │     use "versioned-release" as="r" on="h" artifact="a.txt" root="{nowhere}" keep="{"
       ·                                                    ───┬───
       ·                                                       ╰── not needed here
       ╰────
      help: add `needs "a.txt"` to the environment

    rel::build::releasefile::unknown_name

      × `{nowhere}` is not known here
       ╭─[Releasefile.kdl:6:65]
     6 │     use "versioned-release" as="r" on="h" artifact="a.txt" root="{nowhere}" keep="{"
       ·                                                                 ─────┬─────
       ·                                                                      ╰── here
       ╰────
      help: declare it with `var` or `param`, or write `{{` for a brace

    rel::build::releasefile::template

      × `{` is never closed
       ╭─[Releasefile.kdl:6:82]
     6 │     use "versioned-release" as="r" on="h" artifact="a.txt" root="{nowhere}" keep="{"
       ·                                                                                  ─┬─
       ·                                                                                   ╰── here
       ╰────
      help: write `{{` and `}}` for literal braces
    "#);
}

#[test]
fn names_on_the_command_line() {
    let space = Space::new(
        "target \"wheel\" { run \"true\"; }\nenvironment \"staging\" { param \"branch\" one-of=\"a b\"; }\n",
    );
    assert_snapshot!(space.run(["build", "whell"]).fails(2), @"
    --- stderr
    error: there is no target `whell`
      help: did you mean `wheel`?
    --- exit code 2
    ");
    assert_snapshot!(space.run(["stagign", "a"]).fails(2), @"
    --- stderr
    error: there is no command or environment `stagign`
      help: did you mean `staging`?
    --- exit code 2
    ");
    assert_snapshot!(space.run(["staging", "c"]).fails(2), @"
    --- stderr
    error: `branch` cannot be `c`
      known  a b
      help: did you mean `a`?
    --- exit code 2
    ");
    assert_snapshot!(space.run(["staging"]).fails(2), @"
    --- stderr
    error: `staging` needs its argument `branch`
      usage  rel staging <a|b>
    --- exit code 2
    ");
    assert_snapshot!(space.run(["-C", "nowhere"]).fails(2), @"
    --- stderr
    error: there is no directory `[work]/nowhere`
      help: correct the argument of `-C`
    --- exit code 2
    ");
    assert_snapshot!(Space::empty().run(["list"]).fails(2), @"
    --- stderr
    error: there is no Releasefile.kdl in `[work]` or above
      help: `rel init` writes one to start from
    --- exit code 2
    ");
}

/// Every kind of mistake that the source can report is snapshotted in some test.
#[test]
fn every_code_is_shown() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = regex::Regex::new(r#"Mistake::new\(\s*"(\w+)""#).expect("a pattern");
    let shown = regex::Regex::new(r"rel::build::releasefile::(\w+)").expect("a pattern");
    let (mut reported, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for dir in ["src", "tests"] {
        for file in walkdir::WalkDir::new(root.join(dir)).into_iter().flatten() {
            let Ok(text) = std::fs::read_to_string(file.path()) else {
                continue;
            };
            seen.extend(shown.captures_iter(&text).map(|c| c[1].to_owned()));
            // Behind the tests of a file there are only made-up ones.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            reported.extend(code.captures_iter(text).map(|c| c[1].to_owned()));
        }
    }
    let missing: Vec<_> = reported.difference(&seen).collect();
    assert!(missing.is_empty(), "no test shows {missing:?}");
}

/// Found by the model test.
#[test]
fn an_input_that_is_taken_away_again_is_missed_by_a_build_too() {
    let space = Space::new(
        r#"target "a" { inputs "src/a.txt" "src/*" "!**/a.txt"; outputs "x"; run "cp" "{in}" "x" }"#,
    );
    space.write("src/a.txt", "a\n").write("src/b.txt", "b\n");
    let output = space.run(["build"]).fails(2);
    assert!(output.stderr.contains("missing_input"), "{output}");
}
