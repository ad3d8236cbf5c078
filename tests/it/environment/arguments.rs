//! What is given on the command line and to recipes: values, and mistakes in them.

use insta::assert_snapshot;

use super::{recipe, shown, space, told};
use crate::space::Space;

fn with_params() -> Space {
    let space = space(
        r#"
    desc "Where it is looked at first"
    param "branch" one-of="main other" desc="what is released"
    param "text" default="nothing"
    use "note" on="a" text="{branch}: {text}""#,
    );
    let body = r#"
    param "text"
    param "extra" type="command" default=""
    let "quoted" "{text}"
    step "note" { run "printf '%s' {text} > text" }
    step "let" { run "printf '%s' {quoted} > let" }
    step "file" { write "{host.root}/file" "{text}" }
    step "extra" if="extra" { run "{extra}" }"#;
    recipe(&space, "note", body);
    space
}

#[test]
fn parameters_are_given_in_order_or_have_a_default() {
    let space = with_params();
    assert_snapshot!(space.run(["staging"]), @"
    --- stderr
    error: `staging` needs its argument `branch`
      usage  rel staging <main|other> [text]
    --- exit code 2
    ");
    assert_snapshot!(space.run(["staging", "mian"]), @"
    --- stderr
    error: `branch` cannot be `mian`
      known  main other
      help: did you mean `main`?
    --- exit code 2
    ");
    assert_snapshot!(space.run(["staging", "main", "a", "b"]), @"
    --- stderr
    error: `staging` takes no argument `b`
      usage  rel staging <main|other> [text]
    --- exit code 2
    ");
    // Its options are those of every environment (`questions.rs`).
    let help = space.run(["staging", "--help"]).ok().stdout;
    let (arguments, _) = help.split_once("\nOptions:\n").expect("has options");
    assert_snapshot!(arguments, @"
    Where it is looked at first

    Usage: rel staging [OPTIONS] <branch> [text]

    Arguments:
      <branch>
              what is released

              [possible values: main, other]

      [text]
              [default: nothing]
    ");
    assert_snapshot!(space.run(["stagin", "main"]), @"
    --- stderr
    error: there is no command or environment `stagin`
      help: did you mean `staging`?
    --- exit code 2
    ");
    assert!(!space.has("hosts"), "nothing was started");
    let _ = told(&space, &["main"]);
    assert_eq!(space.read("hosts/a/text"), "main: nothing");
    let _ = told(&space, &["other", "words"]);
    assert_eq!(space.read("hosts/a/text"), "other: words");
}

#[test]
fn a_value_never_becomes_shell_syntax() {
    let space = with_params();
    let nasty = [
        "$(touch ../../pwned) `touch ../../pwned`",
        "; touch ../../pwned #",
        "' ; touch ../../pwned ; '",
        "\" ; touch ../../pwned ; \"",
        "a\nb\n\ttouch ../../pwned\n",
        "\\",
        "-n -e \\n %s {braces} {{two}}",
        "* ? [a-z] ~ ! | & < > $HOME ${PATH}",
        "EOF\nEOF\ntouch ../../pwned",
        "\u{1e}nonce done 1",
        "ünï ✓ 名",
    ];
    for value in nasty {
        let outcome = space.run(["staging", "main", "--", value]).ok();
        assert!(outcome.stderr.contains("steps ran"), "{value:?}: {outcome}");
        for file in ["text", "let", "file"] {
            let path = format!("hosts/a/{file}");
            assert_eq!(space.read(&path), format!("main: {value}"), "{file}");
        }
        // The same again has nothing to do: names of state and keys hold for any value.
        assert_eq!(told(&space, &["main", "--", value])["ran"], 0, "{value:?}");
    }
    assert!(!space.has("pwned"));
}

#[test]
fn a_recipe_of_the_project_goes_before_the_shipped_one() {
    let space = space(r#"use "wait-for" on="a" text="mine""#);
    recipe(
        &space,
        "wait-for",
        "    param \"text\"\n    step \"s\" { run \"echo {text} > said\" }",
    );
    let _ = told(&space, &[]);
    assert_eq!(space.read("hosts/a/said"), "mine\n");
}

#[test]
fn all_mistakes_are_told_before_anything_starts() {
    let space = space(
        r#"
    use "verioned-release" on="a"
    use "note" as="one" on="a" txt="typo"
    use "note" as="two" on="nowhere" text="x"
    use "note" as="three" on="a" text="{nobody}"
    use "note" as="four" on="a" text="x" after="nothing"
    use "broken" on="a""#,
    );
    let note = "    param \"text\"\n    step \"note\" { run \"echo {text} >> notes\" }";
    recipe(&space, "note", note);
    let body = r#"
    step "both" { run "true"; write "x" "y" }
    step "later" on-change="missing" { runn "true {txt}" }"#;
    recipe(&space, "broken", body);
    assert_snapshot!(space.run(["check"]), @r#"
    --- stderr
    rel::build::releasefile::step_action

      × step `both` must have one action of run, put, write, symlink, service, scope, forward,
      │ responder, wait, and has 2
       ╭─[recipes/broken.kdl:4:10]
     4 │     step "both" { run "true"; write "x" "y" }
       ·          ───┬──
       ·             ╰── expected exactly one action
       ╰────

    rel::build::releasefile::unknown_node

      × node `runn` is not known here
       ╭─[recipes/broken.kdl:5:40]
     5 │     step "later" on-change="missing" { runn "true {txt}" }
       ·                                        ──┬─
       ·                                          ╰── expected one of run, put, write, symlink, service, scope, forward, responder, wait, prepare, check, verify, undo, undo-check, rollback-check, dir, env, timeout
       ╰────
      help: did you mean `run`?

    rel::build::releasefile::step_action

      × step `later` must have one action of run, put, write, symlink, service, scope, forward,
      │ responder, wait, and has 0
       ╭─[recipes/broken.kdl:5:10]
     5 │     step "later" on-change="missing" { runn "true {txt}" }
       ·          ───┬───
       ·             ╰── expected exactly one action
       ╰────

    rel::build::releasefile::unknown_recipe

      × there is no recipe `verioned-release`
       ╭─[Releasefile.kdl:8:9]
     8 │     use "verioned-release" on="a"
       ·         ─────────┬────────
       ·                  ╰── not a recipe
       ╰────
      help: did you mean `versioned-release`?

    rel::build::releasefile::missing_parameter

      × recipe `note` needs `text`
       ╭─[Releasefile.kdl:9:9]
     9 │     use "note" as="one" on="a" txt="typo"
       ·         ───┬──
       ·            ╰── here
       ╰────

    rel::build::releasefile::unknown_parameter

      × recipe `note` has no parameter `txt`
       ╭─[Releasefile.kdl:9:36]
     9 │     use "note" as="one" on="a" txt="typo"
       ·                                    ───┬──
       ·                                       ╰── not a parameter
       ╰────
      help: did you mean `text`?

    rel::build::releasefile::unknown_host

      × there is no host or group `nowhere`
        ╭─[Releasefile.kdl:10:28]
     10 │     use "note" as="two" on="nowhere" text="x"
        ·                            ────┬────
        ·                                ╰── not a host
        ╰────
      help: the hosts and groups are `a`, `b`, `both`

    rel::build::releasefile::unknown_name

      × `{nobody}` is not known here
        ╭─[Releasefile.kdl:11:39]
     11 │     use "note" as="three" on="a" text="{nobody}"
        ·                                       ─────┬────
        ·                                            ╰── here
        ╰────
      help: declare it with `var` or `param`, or write `{{` for a brace

    rel::build::releasefile::unknown_use

      × no use above this one is called `nothing`
        ╭─[Releasefile.kdl:12:48]
     12 │     use "note" as="four" on="a" text="x" after="nothing"
        ·                                                ────┬────
        ·                                                    ╰── not a use
        ╰────
      help: there are `verioned-release`, `one`, `two`, `three`
    --- exit code 2
    "#);
    let output = space.run(["staging"]).fails(2);
    assert!(!space.has("hosts"), "{output}");
}

#[test]
fn a_step_that_fails_is_told_with_host_step_and_output() {
    let space = space(r#"use "fails" on="both""#);
    let body = r#"
    step "works" { run "echo works" }
    step "fails" { run "echo to the one; echo to the other >&2; test {host.name} = a; exit 0" }"#;
    recipe(&space, "fails", body);
    let output = space.run(["-q", "staging"]).fails(1);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: `staging` stopped: step `fails/fails` failed on host `b`
      status       1
      output       to the one
                   to the other
      no rollback  fails/fails on a
                   fails/fails on b
                   fails/works on a
                   fails/works on b
      help: nothing was rolled back: check what these steps did, and run the same command again
    --- exit code 1
    ");
}
