//! What runs and what does not: a plan is the run, drift, age, and what comes after.

use insta::assert_snapshot;

use super::{recipe, shown, space, steps, told};
use crate::space::Space;

/// Three steps on two hosts: a file, a command that follows it, a command with a check.
fn three() -> Space {
    let space = space(
        r#"
    param "word" default="one"
    use "three" on="both" word="{word}""#,
    );
    recipe(
        &space,
        "three",
        r#"
    param "word"
    step "write" { write "{host.root}/word" "{word}\n" }
    step "count" on-change="write" { run "echo {word} >> counted" }
    step "mark" {
        check "test -e {host.root}/mark"
        run "touch {host.root}/mark; echo mark >> counted"
    }"#,
    );
    space
}

#[test]
fn a_plan_is_the_run() {
    let space = three();
    let plan = told(&space, &["--plan"]);
    assert_eq!(steps(&plan, "run").len(), 6, "{plan:#}");
    assert!(!space.has("hosts"), "a plan makes nothing");
    let planned = steps(&plan, "run");

    let outcome = told(&space, &[]);
    assert_eq!(steps(&outcome["plan"], "run"), planned);
    assert_eq!(outcome["ran"], 6);
    assert_eq!(space.lines("hosts/a/counted"), ["one", "mark"]);
    assert_eq!(space.lines("hosts/b/counted"), ["one", "mark"]);

    let plan = told(&space, &["--plan"]);
    assert_eq!(plan["to_run"], 0, "{plan:#}");
    assert_eq!(told(&space, &[])["ran"], 0);

    // Another value: what it changes runs, and what follows that.
    let planned = steps(&told(&space, &["two", "--plan"]), "run");
    assert_eq!(
        planned,
        [
            "a three/write",
            "a three/count",
            "b three/write",
            "b three/count"
        ]
    );
    let outcome = told(&space, &["two"]);
    assert_eq!(steps(&outcome["plan"], "run"), planned);
    assert_eq!(space.lines("hosts/b/counted"), ["one", "mark", "two"]);
    assert_snapshot!(shown(&space.run(["staging", "three", "--plan"]).ok()), @"
    a  three (three)
          run  write       write [work]/hosts/a/word  never done here
               --- a:[work]/hosts/a/word
               +++ a:[work]/hosts/a/word
               @@ -1 +1 @@
               -two
               +three
          run  count       echo 'three' >> counted  `write` runs
    b  three (three)
          run  write       write [work]/hosts/b/word  never done here
               --- b:[work]/hosts/b/word
               +++ b:[work]/hosts/b/word
               @@ -1 +1 @@
               -two
               +three
          run  count       echo 'three' >> counted  `write` runs
    three  rollback: write; no rollback: count
    staging: 4 steps would run, 2 up to date, on 2 hosts
    ");
}

#[test]
fn what_somebody_changed_on_a_host_is_found() {
    let space = three();
    let _ = told(&space, &[]);
    space.remove("hosts/a/mark");
    let planned = steps(&told(&space, &["--plan"]), "run");
    assert_eq!(planned, ["a three/mark"]);
    assert_eq!(told(&space, &[])["ran"], 1);
    assert!(space.has("hosts/a/mark"));

    space.write("hosts/b/word", "scribbled\n");
    let outcome = told(&space, &[]);
    assert_eq!(
        steps(&outcome["plan"], "run"),
        ["b three/write", "b three/count"]
    );
    assert_eq!(space.read("hosts/b/word"), "one\n");

    // A host that is set up anew gets all of it; the other nothing.
    space.remove("hosts/b");
    assert_eq!(told(&space, &[])["ran"], 3);
    assert_eq!(told(&space, &["--force", "--plan"])["to_run"], 6);
    assert_eq!(told(&space, &["--force"])["ran"], 6);
}

#[test]
fn what_is_found_done_is_not_done_again() {
    let space = three();
    for host in ["a", "b"] {
        space.write(format!("hosts/{host}/word"), "one\n");
        space.write(format!("hosts/{host}/mark"), "");
    }
    let outcome = told(&space, &[]);
    let adopted = [
        "a three/write",
        "a three/mark",
        "b three/write",
        "b three/mark",
    ];
    assert_eq!(steps(&outcome["plan"], "adopt"), adopted);
    assert_eq!(told(&space, &[])["ran"], 0);
}

#[test]
fn age_and_what_a_use_comes_after_make_it_stale() {
    let space = Space::new(
        r#"
var "text" "one"
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
environment "staging" {
    use "note" as="first" on="a" text="{text}" max-age="1h"
    use "note" as="second" on="b" text="fixed" after="first"
    use "note" as="third" on="b" text="fixed"
}
"#,
    );
    let body = r#"
    param "text"
    step "note" { run "echo {use} {text} >> notes" }"#;
    recipe(&space, "note", body);
    assert_eq!(told(&space, &[])["ran"], 3);
    assert_eq!(told(&space, &[])["ran"], 0);

    // What comes after follows, on another host too; what does not, stays.
    let outcome = told(&space, &["--var", "text=two"]);
    assert_eq!(
        steps(&outcome["plan"], "run"),
        ["a first/note", "b second/note"]
    );

    // Two hours pass, by the host's own record.
    let journal = "hosts/a/.rel/staging/journal";
    let text = space.read(journal);
    let aged = text.lines().map(|line| {
        let mut fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let time: u64 = fields[2].parse().expect("seconds");
        fields[2] = (time - 7200).to_string();
        fields.join("\t") + "\n"
    });
    let aged: String = aged.collect();
    space.write(journal, aged);
    assert_eq!(told(&space, &["--var", "text=two"])["ran"], 2);
    assert_eq!(told(&space, &["--var", "text=two"])["ran"], 0);
}

#[test]
fn a_use_that_names_an_axis_is_done_for_each_value() {
    let space = space(
        r#"
    each "customer" "osf" "another one" "c'est"
    each "tier" "web" "db"
    use "note" as="once" on="a" text="-"
    use "note" as="each" on="a" text="{customer}"
    use "note" as="both" on="both" text="{tier} of {customer}""#,
    );
    let body = r#"
    param "text"
    step "note" { run "printf '%s\\n' {text} >> {use}" }"#;
    recipe(&space, "note", body);
    let outcome = told(&space, &[]);
    assert_eq!(outcome["ran"], 1 + 3 + 2 * 6, "{outcome:#}");
    let file = |host: &str, use_: &str| space.read(format!("hosts/{host}/{use_}"));
    assert_eq!(file("a", "each[c'est]"), "c'est\n");
    assert_eq!(file("a", "each[another one]"), "another one\n");
    assert!(!space.has("hosts/b/once"));
    assert_eq!(file("b", "both[another one,db]"), "db of another one\n");
}
