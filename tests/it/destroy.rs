//! Steps that destroy something: listed apart, asked for once before the first change, and
//! never done because somebody did not know.

use std::fs;
use std::io::Write;

use insta::assert_snapshot;

use crate::space::{Output, REL, Space, wait_until};

/// Two hosts whose queues are deleted for each release, after a file was written.
fn queues() -> Space {
    let space = Space::new(
        r#"
var "release" "1"
host "a" local=#true root="srv/a"
host "b" local=#true root="srv/b"
environment "ops" {
    use "settings" on="a b" text="{release}"
    use "queues" on="a b" release="{release}"
}
"#,
    );
    space.write(
        "recipes/settings.kdl",
        "recipe \"settings\" {\n param \"text\"\n step \"w\" { write \"{host.root}/conf\" \"{text}\"; }\n}\n",
    );
    space.write(
        "recipes/queues.kdl",
        r#"recipe "queues" {
    param "release"
    step "delete" destructive="the queues of {host.name}" { run "echo {release} >>queues" }
}"#,
    );
    for host in ["a", "b"] {
        fs::create_dir_all(space.path("srv").join(host)).expect("creates");
    }
    space
}

fn deleted(space: &Space) -> Vec<Vec<String>> {
    ["srv/a/queues", "srv/b/queues"]
        .map(|p| space.lines(p))
        .into()
}

#[test]
fn nothing_is_destroyed_that_nobody_has_confirmed() {
    let space = queues();
    assert_snapshot!(space.run(["ops", "--plan"]).ok(), @r"
    a  settings (settings)
          run  w           write [work]/srv/a/conf  never done here
               --- /dev/null
               +++ a:[work]/srv/a/conf
               @@ -0,0 +1 @@
               +1
               \ No newline at end of file
    b  settings (settings)
          run  w           write [work]/srv/b/conf  never done here
               --- /dev/null
               +++ b:[work]/srv/b/conf
               @@ -0,0 +1 @@
               +1
               \ No newline at end of file
    a  queues (queues)
          run  delete      echo '1' >>queues  never done here
    b  queues (queues)
          run  delete      echo '1' >>queues  never done here
    settings  rollback: w
    queues  no rollback: delete
    a  queues/delete  destroys: the queues of a
    b  queues/delete  destroys: the queues of b
    ops: 4 steps would run, 0 up to date, on 2 hosts
    ");
    let plan = space.ask(["ops", "--plan"]);
    assert_eq!(plan["destructive"][0]["step"], "queues/delete");
    assert_eq!(plan["destructive"][1]["host"], "b");
    assert_eq!(plan["destructive"][1]["lost"], "the queues of b");
    let refused = space.run(["ops"]);
    assert_snapshot!(refused, @"
    --- stderr
    error: `ops` would do 2 destructive steps, which are not confirmed
      queues/delete on a  the queues of a
      queues/delete on b  the queues of b
      help: nothing was changed; if this data may be lost: `--confirm ops`
    --- exit code 2
    ");
    assert!(!space.has("srv/a/conf") && !space.has("srv/b/conf") && !space.has("srv/a/.rel"));
    let other = space.run(["ops", "--confirm", "dev"]).fails(2);
    assert_snapshot!(other.stderr, @"
    error: `--confirm dev` does not confirm `ops`
      help: `--confirm ops`, if that is meant
    ");
    assert!(!space.has("srv/a/conf"));
    let _ = space.run(["ops", "--confirm", "ops"]).ok();
    assert_eq!(deleted(&space), [["1"], ["1"]]);
    // Nothing destructive is due: nobody is asked.
    let _ = space.run(["ops"]).ok();
    space.remove("srv/b/conf");
    let _ = space.run(["ops"]).ok();
    assert_eq!(space.read("srv/b/conf"), "1");
    // A run that is rolled back asks nobody: what is lost is lost already.
    let _ = space.run(["ops", "--rollback"]).ok();
}

#[test]
fn a_plan_that_was_confirmed_or_approved_is_carried_out_as_it_was_read() {
    let space = queues();
    let apply = |args: &[&str]| space.run(["apply", "plan.json"].iter().chain(args));
    let _ = space.run(["ops", "--plan-out", "plan.json"]).ok();
    let refused = apply(&[]).fails(2);
    assert!(refused.stderr.contains("`--confirm ops`"), "{refused}");
    let _ = apply(&["--confirm", "ops"]).ok();
    assert_eq!(deleted(&space), [["1"], ["1"]]);

    let args = ["ops", "--var", "release=2", "--plan-out", "plan.json"];
    let _ = space.run(args.iter().chain(&["--confirm", "ops"])).ok();
    let _ = apply(&[]).ok();
    assert_eq!(deleted(&space), [["1", "2"], ["1", "2"]]);

    let args = ["ops", "--var", "release=3", "--plan-out", "plan.json"];
    let _ = space.run(args).ok();
    // Made by whoever runs the tests, and read by somebody else: the digest stays.
    let mut saved: serde_json::Value =
        serde_json::from_str(&space.read("plan.json")).expect("JSON");
    saved["approvals"] = serde_json::json!([{
        "user": "somebody-else", "time": 1, "digest": saved["digest"], "reason": "read",
    }]);
    space.write("plan.json", saved.to_string());
    let _ = apply(&[]).ok();
    assert_eq!(deleted(&space)[0], ["1", "2", "3"]);
}

#[test]
fn a_step_can_only_say_what_it_destroys() {
    let space = queues();
    let recipe = |step: &str| {
        let text = format!("recipe \"queues\" {{\n param \"release\"\n {step}\n}}\n");
        space.write("recipes/queues.kdl", text);
        space.run(["check"])
    };
    let silent = recipe("step \"delete\" destructive=\"\" { run \"true\"; }").fails(2);
    assert!(
        silent.stderr.contains("does not say what it destroys"),
        "{silent}"
    );
    let undone = recipe("step \"delete\" undo=#true { run \"true\"; }").fails(2);
    assert!(undone.stderr.contains("can only be #false"), "{undone}");
    let both = recipe("step \"delete\" undo=#false { run \"true\"; undo \"true\"; }").fails(2);
    assert!(
        both.stderr.contains("has a rollback, and `undo=#false`"),
        "{both}"
    );
    let own =
        recipe("step \"delete\" undo=#false { service \"s\" run=\"true\" log=\"l\"; }").fails(2);
    assert!(own.stderr.contains("has a rollback of its own"), "{own}");
    let _ = recipe("step \"delete\" destructive=#false { run \"true\"; }").ok();
    let _ = space.run(["ops"]).ok();
    // Without words it is reported as what the step does.
    let _ = recipe("step \"delete\" destructive=#true { run \"rm -f all\"; }").ok();
    let plan = space.ask(["ops", "--plan"]);
    assert_eq!(plan["destructive"][0]["lost"], "rm -f all");
}

/// Runs `rel ops` on a terminal, as `script` of util-linux gives one, at which somebody types.
fn at_a_terminal(space: &Space, typed: &str) -> Output {
    space.write("typed", typed);
    let mut script = space.program("script");
    script.args(["-qec", &format!("{REL} ops"), "/dev/null"]);
    script.env("TERM", "xterm").env("NO_COLOR", "1");
    script.stdin(fs::File::open(space.path("typed")).expect("opens"));
    space.finish(&mut script)
}

#[test]
fn a_person_at_a_terminal_is_asked_once_for_all_of_it() {
    let space = queues();
    for no in ["n\n", "\n", "", "yesterday\n"] {
        let output = at_a_terminal(&space, no).fails(2);
        assert!(output.stdout.contains("was not confirmed"), "{output}");
        assert!(!space.has("srv/a/conf"), "{no:?}: {output}");
    }
    let yes = at_a_terminal(&space, "y\n").ok();
    assert_eq!(deleted(&space), [["1"], ["1"]]);
    assert_eq!(yes.stdout.matches("[y/N]").count(), 1, "{yes}");
    for words in [
        "2 destructive steps: the data is lost for good. Continue?",
        "the queues of a",
        "the queues of b",
    ] {
        assert!(yes.stdout.contains(words), "{yes}");
    }
    // With nothing to destroy there is no question.
    let again = at_a_terminal(&space, "").ok();
    assert!(!again.stdout.contains("[y/N]"), "{again}");
}

#[test]
fn an_interrupt_answers_the_question_as_well() {
    let space = queues();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let mut script = space.program("script");
    script.args(["-qfec", &format!("{REL} ops 2>&1"), "said"]);
    script.env("TERM", "xterm").stdin(reader);
    let job = space.start(&mut script);
    drop(script);
    wait_until("the question", || {
        let said = fs::read_to_string(space.path("said")).unwrap_or_default();
        said.contains("[y/N]").then_some(())
    });
    writer.write_all(b"\x03").expect("types");
    let output = job.finish().fails(130);
    drop(writer);
    assert!(!space.has("srv/a/conf"), "{output}");
}
