//! `--rollback` acts on what its own steps left and on nothing else, and says beforehand what it
//! will do.

use insta::assert_snapshot;

use crate::filters::replaced;
use crate::space::{Ends, Output, Space};

/// Two environments that release to the same place of one host.
fn shared() -> Space {
    Space::new(
        r#"
target "a" { inputs "v"; outputs "a.txt"; run "cp v {out}"; }
host "h1" local=#true root="hosts/h1"
environment "minor" { needs "a"; use "versioned-release" as="app" on="h1" artifact="{a}" root="{host.root}/app"; }
environment "special" { needs "a"; use "versioned-release" as="app" on="h1" artifact="{a}" root="{host.root}/app"; }
"#,
    )
}

/// Releases a version to an environment, and returns where `current` then points to.
fn release(space: &Space, environment: &str, version: &str) -> String {
    space.write("v", format!("{version}\n"));
    let _ = space.run(["-q", environment]).ok();
    assert_eq!(live(space), version);
    let link = std::fs::read_link(space.path("hosts/h1/app/current")).expect("a link");
    link.to_string_lossy().into_owned()
}

fn live(space: &Space) -> String {
    let text = space.read("hosts/h1/app/current/artifact/a.txt");
    text.trim().to_owned()
}

/// What was reported, with words for the releases and for the ids of runs.
fn told(output: &Output, links: &[(&str, &str)]) -> String {
    let mut text = output.to_string();
    for (link, word) in links {
        text = text.replace(link, word);
    }
    replaced(&text, &[(r"run 2\S+", "run [RUN]")])
}

#[test]
fn a_link_that_another_environment_has_pointed_elsewhere_stays() {
    let space = shared();
    let one = release(&space, "minor", "1");
    let two = release(&space, "minor", "2");
    let three = release(&space, "special", "3");
    let words = [(one.as_str(), "[1]"), (&two, "[2]"), (&three, "[3]")];
    let refused = space.run(["minor", "--rollback"]);
    assert_snapshot!(told(&refused, &words), @"
    --- stderr
    error: `minor` cannot be rolled back on host `h1`
      differs  [work]/hosts/h1/app/current is now `[3]`; the last run left `[2]`
      help: nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)
    --- exit code 1
    ");
    assert_eq!(live(&space), "3");
    let plan = space.run(["minor", "--rollback", "--plan"]);
    assert_snapshot!(told(&plan, &words), @"
    h1  app/switch  [work]/hosts/h1/app/current: [3] -> [1]
    h1  stopped: it was changed afterwards
               [work]/hosts/h1/app/current is now `[3]`; the last run left `[2]`
    minor: 1 step would be rolled back, on 1 host  run [RUN]
    ");
    assert_eq!(live(&space), "3");
    // What it is rolled back from is still there: the same command with `--force` does it.
    let _ = space.run(["minor", "--rollback", "--force"]).ok();
    assert_eq!(live(&space), "1");
}

#[test]
fn a_plan_of_a_rollback_tells_from_what_to_what_and_changes_nothing() {
    let space = shared();
    let one = release(&space, "minor", "1");
    let two = release(&space, "minor", "2");
    let words = [(one.as_str(), "[1]"), (&two, "[2]")];
    let journal = space.read("hosts/h1/.rel/minor/journal");
    let plan = space.run(["minor", "--rollback", "--plan"]).ok();
    assert_snapshot!(told(&plan, &words), @"
    h1  app/switch  [work]/hosts/h1/app/current: [2] -> [1]
    minor: 1 step would be rolled back, on 1 host  run [RUN]
    ");
    let json = space.ask(["minor", "--rollback", "--plan"]);
    assert_eq!(json["changes"][0]["kind"], "link");
    assert_eq!(json["changes"][0]["from"], two.as_str());
    assert_eq!(json["changes"][0]["to"], one.as_str());
    assert_eq!(json["differs"].as_array().map(Vec::len), Some(0));
    assert_eq!(space.read("hosts/h1/.rel/minor/journal"), journal);
    assert!(!space.has("hosts/h1/.rel/minor/lease"));
    let _ = space.run(["minor", "--rollback"]).ok();
    assert_eq!(live(&space), "1");
}

#[test]
fn files_and_services_that_are_not_as_they_were_left_stop_it() {
    let space = Space::with_steps(
        r#"
    step "file" { write "{host.root}/file" "{v}\n"; }
    step "new" { write "{host.root}/it's new" "{v}\n"; }
    step "own" { run "echo {v} >own"; undo "rm own"; }
"#,
    );
    let _ = space.run(["e"]).ok();
    space.write("hosts/h/file", "by hand\n");
    space.write("hosts/h/it's new", "by hand\n");
    let refused = space.run(["e", "--rollback"]);
    assert_snapshot!(refused, @"
    --- stderr
    error: `e` cannot be rolled back on host `h`
      differs  [work]/hosts/h/it's new is now `ccc6730b7fa7`; the last run left `4355a46b19d3`
               [work]/hosts/h/file is now `ccc6730b7fa7`; the last run left `4355a46b19d3`
      help: nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)
    --- exit code 1
    ");
    assert_eq!(space.read("hosts/h/file"), "by hand\n");
    assert!(space.has("hosts/h/own"), "nothing was changed");
    // What the former content was is as good as what rel left there.
    space.write("hosts/h/it's new", "1\n");
    space.remove("hosts/h/file");
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(!space.has("hosts/h/it's new") && !space.has("hosts/h/own"));
}

#[test]
fn a_service_that_runs_another_command_stops_it() {
    let space = Space::with_steps(
        r#"
    step "run" { service "s" run="exec sleep 100{v}" log="{host.root}/log"; }
"#,
    );
    let _ends = Ends(&space);
    let _ = space.run(["e"]).ok();
    let _ = space.run(["e", "--var", "v=2"]).ok();
    let script = "hosts/h/.rel/e/services/s/run";
    let left = space.read(script);
    space.write(script, "exec sleep 1003\n");
    let refused = space.run(["e", "--rollback"]).fails(1);
    assert!(refused.stderr.contains("service s is now"), "{refused}");
    space.write(script, left);
    let plan = space.run(["e", "--rollback", "--plan"]).ok();
    let line = "h  r/run  service s: running -> running as before\n";
    assert!(plan.stdout.starts_with(line), "{plan}");
    let _ = space.run(["e", "--rollback"]).ok();
    assert!(space.read(script).contains("sleep 100'1'"));
}

#[test]
fn a_service_goes_back_to_all_that_it_was_started_with() {
    let space = Space::with_steps(
        r#"
    step "run" { service "s" run="exec sleep 100{v}" log="{host.root}/log{v}" stop="echo {v} >>stopped; kill -KILL $(sed 's/ .*//' .rel/e/services/s/pid)" ready="echo {v} >>ready" within="{v}s"; }
"#,
    );
    let _ends = Ends(&space);
    let _ = space.run(["e"]).ok();
    let parts = ["run", "log", "stop", "ready", "within"];
    let kept = || parts.map(|part| space.read(format!("hosts/h/.rel/e/services/s/{part}")));
    let first = kept();
    let _ = space.run(["e", "--var", "v=2"]).ok();
    assert!(kept().iter().zip(&first).all(|(now, then)| now != then));
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(kept(), first);
    // Each was ended as it was to be, and has its own log.
    assert_eq!(space.read("hosts/h/stopped"), "1\n2\n");
    assert_eq!(space.read("hosts/h/ready"), "1\n2\n1\n");
}

#[test]
fn a_proof_runs_no_text_of_a_recipe() {
    let space = Space::with_steps(
        r##"
    step "own" {
        run "echo {v} >own"
        undo #"""
            rel_symlink_back 'a' 'b'; touch proof-ran
            rel_unwrite 'a' "$(touch proof-ran)"
            rm own
            """#
    }
    step "look" { run "true"; undo "touch undone"; }
"##,
    );
    let _ = space.run(["e"]).ok();
    let plan = space.run(["e", "--rollback", "--plan"]).ok();
    assert!(plan.stdout.contains("r/own  its own undo"), "{plan}");
    assert!(!space.has("hosts/h/proof-ran") && space.has("hosts/h/own"));
}

#[test]
fn a_guard_that_concerns_the_state_is_asked_on_the_way_back_too() {
    let space = Space::with_steps(
        r#"
    guard "open" back=#true "if [ -e {host.root}/closed ]; then cat {host.root}/closed; exit 1; fi"
    guard "forward" "test ! -e {host.root}/never-forward"
    step "file" { write "{host.root}/file" "{v}\n"; }
"#,
    );
    let _ = space.run(["e"]).ok();
    space.write("hosts/h/closed", "the ledger is being written\n");
    space.write("hosts/h/never-forward", "");
    let refused = space.run(["e", "--rollback"]);
    assert_snapshot!(refused, @r#"
    --- stderr
    error: `e` is stopped by the guard `open` on host `h`
      evidence  the ledger is being written
      help: nothing was changed; to continue anyway: `--override open --reason "…"`
    --- exit code 1
    "#);
    assert!(space.has("hosts/h/file"));
    let plan = space.run(["e", "--rollback", "--plan"]).ok();
    assert_snapshot!(told(&plan, &[]), @"
    h  r/file  [work]/hosts/h/file: 4355a46b19d3 -> no file
    h  stopped by the guard `open`
               the ledger is being written
    e: 1 step would be rolled back, on 1 host  run [RUN]
    ");
    let over = [
        "e",
        "--rollback",
        "--override",
        "open",
        "--reason",
        "it waits",
    ];
    let _ = space.run(over).ok();
    assert!(!space.has("hosts/h/file"));
    let journal = space.read("hosts/h/.rel/e/journal");
    assert!(journal.contains("\toverridden\t"), "{journal}");

    // One about what is released makes no sense there.
    space.write(
        "recipes/r.kdl",
        "recipe \"r\" {\n param \"v\"\n param \"a\" type=\"artifact\" default=\"\"\n \
         let \"id\" \"{a.sha256}\"\n guard \"g\" back=#true \"test {id} = 1\"\n}\n",
    );
    let wrong = space.run(["check"]);
    assert!(
        wrong
            .stderr
            .contains("a guard with `back=#true` cannot ask about `{a.sha256}`"),
        "{wrong}"
    );
}

#[test]
fn a_host_that_went_back_alone_keeps_no_other_from_going_back() {
    let space = Space::new(
        r#"
var "v" "1"
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
environment "e" {
    rollout "r" on="a b" max-failures=1 {
        use "r" v="{v}"
    }
}
"#,
    );
    space.write(
        "recipes/r.kdl",
        r#"recipe "r" {
    param "v"
    step "file" { write "{host.root}/file" "{v}\n"; }
    step "look" undo=#false { run "test ! -e {host.root}/stuck; echo {v}"; }
}
"#,
    );
    let _ = space.run(["e"]).ok();
    space.write("hosts/a/stuck", "");
    let _ = space.run(["e", "--var", "v=2"]).fails(1);
    assert_eq!(space.read("hosts/a/file"), "1\n");
    assert_eq!(space.read("hosts/b/file"), "2\n");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("hosts/b/file"), "1\n");
    assert_eq!(space.read("hosts/a/file"), "1\n");
}
