//! Mistakes in the text itself: syntax, includes, templates, patterns.

use super::super::{Space, report};

#[test]
fn broken_kdl() {
    insta::assert_snapshot!(report("target \"a\" {\n    run \"x\n}\n"), @r##"
    rel::build::releasefile::syntax

      × unexpected newline in single-line quoted string
       ╭─[Releasefile.kdl:2:9]
     2 │     run "x
       ·         ─┬
       ·          ╰── not quoted string
       ╰────
      help: you can make a string multi-line by wrapping it in '"""', with a newline immediately after
            the opening quotes
    "##);
    insta::assert_snapshot!(report("target \"a\" {\n    run \"x\" retry=\n    cache true\n}\n"), @r##"
    rel::build::releasefile::syntax

      × expected property value
       ╭─[Releasefile.kdl:2:5]
     2 │     run "x" retry=
       ·     ───────┬──────
       ·            ╰── not property value
       ╰────
    "##);
    insta::assert_snapshot!(report("target \"a\" {\n    run \"x\"\n"), @r##"
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
     2 │     run "x"
       ·     ───┬───
       ·        ╰── not closed
       ╰────
    "##);
}

#[test]
fn syntax_errors_of_all_files_in_one_run() {
    let space = Space::new("include \"a.kdl\"\ninclude \"b.kdl\"\ntarget \"x\" { nneds \"y\" }\n")
        .file("a.kdl", "pool \"p\" depth=\n")
        .file("b.kdl", "pool \"q\" depth=true\n");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::syntax

      × expected property value
       ╭─[a.kdl:1:1]
     1 │ pool "p" depth=
       · ───────┬───────
       ·        ╰── not property value
       ╰────

    rel::build::releasefile::syntax

      × expected identifier string
       ╭─[b.kdl:1:16]
     1 │ pool "q" depth=true
       ·                ──┬─
       ·                  ╰── not identifier string
       ╰────
      help: write `#true`
    "##);
}

#[test]
fn a_file_that_is_not_text() {
    let space = Space::new("");
    std::fs::write(
        space.root().join("Releasefile.kdl"),
        b"var \"a\" \"\xff\"\n",
    )
    .expect("writes");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::syntax

      × the file is not UTF-8 text
       ╭─[Releasefile.kdl:1:10]
     1 │ var "a" "�"
       ·          ┬
       ·          ╰── the first byte that is not
       ╰────
    "##);
}

#[test]
fn a_file_that_is_not_there() {
    let space = Space::new("");
    std::fs::remove_file(space.root().join("Releasefile.kdl")).expect("removes");
    insta::assert_snapshot!(space.report(), @"cannot read `[space]/Releasefile.kdl`: no such file or directory");
}

#[test]
fn texts_that_are_no_templates() {
    insta::assert_snapshot!(report(r##"
var "list" "a" "b"
target "a" {
    run "awk '{print $1}'"
    run "echo `cat {list}`"
    run "echo {list"
    run "echo \"{list}\""
    run "echo x{list}" "y"
    dir "x/{list}"
}
"##), @r##"
    rel::build::releasefile::bad_template

      × `{print $1}` is not a name
       ╭─[Releasefile.kdl:4:15]
     4 │     run "awk '{print $1}'"
       ·               ─────┬────
       ·                    ╰── here
       ╰────
      help: write `{{` and `}}` for literal braces

    rel::build::releasefile::bad_template

      × `{list}` stands in back-quotes, where no value can be quoted safely
       ╭─[Releasefile.kdl:5:20]
     5 │     run "echo `cat {list}`"
       ·                    ───┬──
       ·                       ╰── here
       ╰────
      help: set an environment variable with `env NAME="{name}"` and use `"$NAME"` there

    rel::build::releasefile::bad_template

      × `{` is never closed
       ╭─[Releasefile.kdl:6:9]
     6 │     run "echo {list"
       ·         ──────┬─────
       ·               ╰── here
       ╰────
      help: write `{{` and `}}` for literal braces

    rel::build::releasefile::bad_template

      × `{list}` has 2 values, but stands where one word must be
       ╭─[Releasefile.kdl:7:17]
     7 │     run "echo \"{list}\""
       ·                 ───┬──
       ·                    ╰── here
       ╰────
      help: let it stand alone, outside of quotes

    rel::build::releasefile::bad_template

      × `{list}` has 2 values, but stands where one word must be
       ╭─[Releasefile.kdl:8:16]
     8 │     run "echo x{list}" "y"
       ·                ───┬──
       ·                   ╰── here
       ╰────
      help: let it stand alone, outside of quotes

    rel::build::releasefile::bad_template

      × `{list}` has 2 values, but stands where one word must be
       ╭─[Releasefile.kdl:9:12]
     9 │     dir "x/{list}"
       ·            ───┬──
       ·               ╰── here
       ╰────
      help: let it stand alone, outside of quotes
    "##);
}

#[test]
fn broken_patterns() {
    insta::assert_snapshot!(report(r#"
target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
"#), @r##"
    rel::build::releasefile::bad_pattern

      × the pattern `src/[a` is unusable: a `[` is never closed
       ╭─[Releasefile.kdl:2:21]
     2 │ target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
       ·                     ────┬───
       ·                         ╰── not a pattern
       ╰────

    rel::build::releasefile::bad_pattern

      × the pattern `src/{a,b` is unusable: a `{` is never closed
       ╭─[Releasefile.kdl:2:30]
     2 │ target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
       ·                              ─────┬─────
       ·                                   ╰── not a pattern
       ╰────

    rel::build::releasefile::bad_pattern

      × the pattern `src/*/` is unusable: a glob cannot name directories; end it with `/**`
       ╭─[Releasefile.kdl:2:42]
     2 │ target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
       ·                                          ────┬───
       ·                                              ╰── not a pattern
       ╰────

    rel::build::releasefile::bad_pattern

      × the pattern `a/*/../b` is unusable: `..` cannot follow a wildcard
       ╭─[Releasefile.kdl:2:51]
     2 │ target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
       ·                                                   ─────┬────
       ·                                                        ╰── not a pattern
       ╰────

    rel::build::releasefile::bad_pattern

      × the pattern `` is unusable: it names nothing
       ╭─[Releasefile.kdl:2:62]
     2 │ target "a" { inputs "src/[a" "src/{{a,b" "src/*/" "a/*/../b" ""; run "x" }
       ·                                                              ─┬
       ·                                                               ╰── not a pattern
       ╰────
      help: name a file, a directory (`src/`) or a glob (`src/**`)
    "##);
}

#[test]
fn includes() {
    let space = Space::new(
        "include \"sub/a.kdl\"\ninclude \"none.kdl\"\ninclude \"no.kdl\" optional=#true\n",
    )
    .file("sub/a.kdl", "include \"b.kdl\"\n")
    .file(
        "sub/b.kdl",
        "include \"a.kdl\"\ninclude \"../Releasefile.kdl\"\n",
    );
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::unreadable_include

      × cannot read `none.kdl`: no such file or directory
       ╭─[Releasefile.kdl:2:9]
     2 │ include "none.kdl"
       ·         ─────┬────
       ·              ╰── included here
       ╰────
      help: a path is relative to the file it stands in; `optional=#true` allows it to be missing

    rel::build::releasefile::include_cycle

      × includes form a cycle: sub/a.kdl -> sub/b.kdl -> sub/a.kdl
       ╭─[sub/b.kdl:1:9]
     1 │ include "a.kdl"
       ·         ───┬───
       ·            ╰── closes the cycle here
       ╰────

    rel::build::releasefile::include_cycle

      × includes form a cycle: Releasefile.kdl -> sub/a.kdl -> sub/b.kdl -> Releasefile.kdl
       ╭─[sub/b.kdl:2:9]
     2 │ include "../Releasefile.kdl"
       ·         ──────────┬─────────
       ·                   ╰── closes the cycle here
       ╰────
    "##);
}

#[test]
fn a_control_character_can_not_move_the_cursor() {
    insta::assert_snapshot!(report("target \"a\" { needs \"\\u{1b}[2J\" }\n"), @r##"
    rel::build::releasefile::unknown_target

      × target `a` needs `\u{1b}[2J`, which is not a target
       ╭─[Releasefile.kdl:1:20]
     1 │ target "a" { needs "\u{1b}[2J" }
       ·                    ─────┬─────
       ·                         ╰── not a target
       ╰────
      help: the targets are `a`
    "##);
}

#[test]
fn includes_nested_too_deep() {
    let mut space = Space::new("include \"0.kdl\"\n");
    for i in 0..63 {
        let text = format!("include \"{}.kdl\"\n", i + 1);
        space = space.file(&format!("{i}.kdl"), &text);
    }
    let space = space.file("63.kdl", "target \"a\" { run \"x\" }\n");
    insta::assert_snapshot!(space.report(), @r##"
    rel::build::releasefile::deep_include

      × files include each other more than 64 deep
       ╭─[62.kdl:1:9]
     1 │ include "63.kdl"
       ·         ────┬───
       ·             ╰── one too many
       ╰────
      help: include it from a file further up
    "##);
    let space = space.file("62.kdl", "");
    space.loaded();
}

#[test]
fn a_text_nested_too_deep() {
    for text in ["a {", "a /* ", "a { b \"}\"\n"] {
        let found = report(&text.repeat(20_000));
        assert!(found.contains("the text is nested more than 200 deep"));
    }
    let deep = |n: usize| format!("a {}{}", "{\na ".repeat(n), "}".repeat(n));
    insta::assert_snapshot!(report(&deep(201)), @r##"
    rel::build::releasefile::syntax

      × the text is nested more than 200 deep
         ╭─[Releasefile.kdl:201:3]
     201 │ a {
         ·   ┬
         ·   ╰── one level too many
         ╰────
    "##);
    assert!(!report(&deep(200)).contains("nested"));
}

#[test]
fn a_value_that_grows_without_end() {
    let mut text = String::from("var \"v0\" \"0123456789\"\nvar \"l0\" \"a\" \"b\"\n");
    for i in 1..=32 {
        let before = i - 1;
        text += &format!("var \"v{i}\" \"{{v{before}}}{{v{before}}}\"\n");
        text += &format!("var \"l{i}\" \"{{l{before}}}\" \"{{l{before}}}\"\n");
    }
    text += "target \"a\" { run \"echo {v32} {l32}\" }\n";
    insta::assert_snapshot!(report(&text), @r##"
    rel::build::releasefile::bad_template

      × the value is longer than 1 MiB
        ╭─[Releasefile.kdl:35:11]
     35 │ var "v17" "{v16}{v16}"
        ·           ──────┬─────
        ·                 ╰── here
        ╰────
      help: let it stand in a file

    rel::build::releasefile::bad_template

      × the value is longer than 1 MiB
        ╭─[Releasefile.kdl:40:19]
     40 │ var "l19" "{l18}" "{l18}"
        ·                   ───┬───
        ·                      ╰── here
        ╰────
      help: let it stand in a file
    "##);
}

#[test]
fn a_line_too_long_for_a_picture() {
    let long = "x".repeat(70_000);
    insta::assert_snapshot!(report(&format!("target \"t\" {{ run \"{long}\"; runn \"a\" }}")), @r##"
    rel::build::releasefile::unknown_node

      × `target` has no node `runn`
      help: not known here: Releasefile.kdl:1, at byte 70021 of the file
            did you mean `run`?
    "##);
}
