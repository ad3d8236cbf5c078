//! A run that goes on where another one was cut off is one with it: when it fails, all that both
//! did is rolled back. What is printed then is no more than was checked.

use std::fs;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::{Output, Space, wait_until};

/// An environment of these uses on one host, with these recipes.
fn space(uses: &str, recipes: &[(&str, &str)]) -> Space {
    let space = Space::new(&format!(
        "var \"v\" \"1\"\nhost \"h\" local=#true root=\"hosts/h\"\nenvironment \"e\" {{\n{uses}\n}}\n"
    ));
    for (name, steps) in recipes {
        let text = format!("recipe \"{name}\" {{\n param \"v\" default=\"\"\n{steps}\n}}\n");
        space.write(format!("recipes/{name}.kdl"), text);
    }
    fs::create_dir_all(space.path("hosts/h")).expect("creates");
    space
}

/// Works until somebody ends it, or fails where `go-on` is.
const WORK: (&str, &str) = (
    "work",
    r#"step "work" { run "if [ -e go-on ]; then exit 1; fi; touch at-work; sleep 1000"; undo "true"; }"#,
);

/// Stops what runs, and knows whether it did.
const STOP: (&str, &str) = (
    "stop",
    r#"
    fact "was" "if [ -e {host.root}/running ]; then echo yes; else echo no; fi"
    step "stop" { run "rm -f running; : {was}"; undo "if [ {was} = yes ]; then touch running; fi"; }
"#,
);

/// Begins a run, and kills it at work.
fn cut_off(space: &Space, args: &[&str]) {
    let job = space.begin(args);
    wait_until("it works", || space.has("hosts/h/at-work").then_some(()));
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.remove("hosts/h/at-work");
}

/// A run that fails, once the guard of the one before has left.
fn fails(space: &Space, args: &[&str]) -> Output {
    space.write("hosts/h/go-on", "");
    wait_until("the guard has left", || {
        let output = space.run(args).fails(1);
        (!output.stderr.contains("is held by")).then_some(output)
    })
}

#[test]
fn what_the_first_attempt_stopped_runs_again() {
    for around in [" wraps=\"work\"", ""] {
        let uses = format!("use \"stop\" on=\"h\"{around}\nuse \"work\" on=\"h\"");
        let space = space(&uses, &[STOP, WORK]);
        space.write("hosts/h/running", "");
        cut_off(&space, &["e"]);
        assert!(!space.has("hosts/h/running"));
        // Nothing is known of what a recipe's own `undo` brings back.
        let failed = fails(&space, &["-q", "e"]);
        let help =
            "  help: all steps were rolled back; fix the error and run the same command again";
        assert!(failed.stderr.contains(help), "{failed}");
        assert!(space.has("hosts/h/running"), "{around}{failed}");
        // Nor is what that attempt found a fact of the next one.
        let _ = fails(&space, &["e"]);
        assert!(space.has("hosts/h/running"), "{around}");
        space.remove("hosts/h/running");
        let _ = fails(&space, &["e"]);
        assert!(!space.has("hosts/h/running"), "{around}");
    }
}

#[test]
fn links_files_and_services_of_both_attempts_go_back() {
    let first = r#"
    step "file" { write "{host.root}/file" "{v}\n"; }
    step "link" { symlink "{host.root}/link" to="dir-{v}"; }
    step "managed" { service "m" start="echo start {v} >>log; touch up" status="test -e up" stop="rm up"; }
"#;
    let uses = "use \"first\" on=\"h\" v=\"{v}\"\nuse \"work\" on=\"h\" v=\"{v}\"";
    let work = r#"step "work" { run "if [ {v} = 1 ]; then exit 0; fi; if [ -e go-on ]; then exit 1; fi; touch at-work; sleep 1000"; undo "true"; }"#;
    let space = space(uses, &[("first", first), ("work", work)]);
    let _ = space.run(["-q", "e"]).ok();
    let two = ["e", "--var", "v=2"];
    cut_off(&space, &two);
    assert_eq!(space.read("hosts/h/file"), "2\n");
    // The second attempt does all of it again, on what the first one has changed.
    let failed = fails(&space, &["e", "--var", "v=2", "--force"]);
    assert_eq!(space.read("hosts/h/file"), "1\n", "{failed}");
    let link = fs::read_link(space.path("hosts/h/link")).expect("a link");
    assert_eq!(link.to_str(), Some("dir-1"));
    assert!(space.has("hosts/h/up"));
    let none = space.run(["e"]).ok();
    assert!(none.stderr.contains("nothing to do"), "{none}");
}

#[test]
fn a_service_that_did_not_run_before_the_first_attempt_does_not_run_after_the_second() {
    let services = r#"
    step "managed" { service "m" start="touch up" status="test -e up" stop="rm up"; }
    step "own" { service "s" run="echo $$ >pid; exec sleep 1000" log="{host.root}/log" ready="test -s pid"; }
"#;
    let uses = "use \"services\" on=\"h\"\nuse \"work\" on=\"h\"";
    let space = space(uses, &[("services", services), WORK]);
    cut_off(&space, &["e"]);
    let pid = space.read("hosts/h/pid");
    assert!(space.has("hosts/h/up") && crate::space::is_alive(&pid));
    let failed = fails(&space, &["e", "--force"]);
    let pid = space.read("hosts/h/pid");
    assert!(!space.has("hosts/h/up"), "{failed}");
    assert!(!crate::space::is_alive(&pid), "{failed}");
}

#[test]
fn a_run_that_finds_nothing_left_to_do_ends_the_one_that_was_cut_off() {
    let file = r#"step "file" { write "{host.root}/file" "{v}\n"; }
    step "fail" undo=#false { run "test {v} != 3"; }"#;
    let space = space("use \"file\" on=\"h\" v=\"{v}\"", &[("file", file)]);
    let _ = space.run(["e"]).ok();
    let _ = space.run(["e", "--var", "v=2"]).ok();
    // As if it had been killed before its last word.
    let journal = space.read("hosts/h/.rel/e/journal");
    let cut = journal.trim_end().rsplit_once('\n').expect("lines");
    assert!(cut.1.contains("\tok\t"), "{journal}");
    space.write("hosts/h/.rel/e/journal", format!("{}\n", cut.0));
    let none = space.run(["e", "--var", "v=2"]).ok();
    assert!(none.stderr.contains("nothing to do"), "{none}");
    let failed = space.run(["e", "--var", "v=3"]).fails(1);
    assert_eq!(space.read("hosts/h/file"), "2\n");
    assert_snapshot!(failed.stderr.lines().rev().take(4).collect::<Vec<_>>().join("\n"), @"
      help: what was live on `h` is live there again; fix the error and run the same command again
      undone  1 step
      status  1
    error: `e` stopped: step `file/fail` failed on host `h`
    ");
}

#[test]
fn what_has_no_way_back_is_said() {
    let steps = r#"step "file" { write "{host.root}/file" "{v}\n"; }
    step "moves" { run "touch moved"; }
    step "fail" { run "exit 7"; }"#;
    let space = space("use \"r\" on=\"h\" v=\"{v}\"", &[("r", steps)]);
    let failed = space.run(["-q", "e"]).fails(1);
    assert_snapshot!(failed, @"
    --- stderr
    error: `e` stopped: step `r/fail` failed on host `h`
      status       7
      undone       1 step
      no rollback  r/fail on h
                   r/moves on h
      help: the other steps were rolled back; fix the error and run the same command again
    --- exit code 1
    ");
    let steps = r#"step "moves" { run "touch moved; exit 7"; }"#;
    let text = format!("recipe \"r\" {{\n param \"v\"\n{steps}\n}}\n");
    space.write("recipes/r.kdl", text);
    let failed = space.run(["-q", "e", "--force"]).fails(1);
    assert_snapshot!(failed, @"
    --- stderr
    error: `e` stopped: step `r/moves` failed on host `h`
      status       7
      no rollback  r/moves on h
      help: nothing was rolled back: check what these steps did, and run the same command again
    --- exit code 1
    ");
}

#[test]
fn what_each_attempt_did_whole_is_taken_back_by_itself() {
    let add = r#"step "add" { run "echo {v} >>list; true"; undo "sed -i '$d' list"; }"#;
    let work = r#"step "work" { run "test ! -e go-on; test {v} = 1 || {{ touch at-work; sleep 1000; }}"; undo "true"; }"#;
    let uses = "use \"add\" on=\"h\" v=\"{v}\"\nuse \"work\" on=\"h\" v=\"{v}\"";
    let space = space(uses, &[("add", add), ("work", work)]);
    let _ = space.run(["-q", "e"]).ok();
    cut_off(&space, &["e", "--var", "v=2"]);
    wait_until("the guard has left", || {
        let held = space.run(["lock", "e", "--reason", "tries"]);
        (held.code == 0).then_some(())
    });
    let _ = space.run(["unlock", "e"]).ok();
    cut_off(&space, &["e", "--var", "v=3"]);
    assert_eq!(space.read("hosts/h/list"), "1\n2\n3\n");
    let failed = fails(&space, &["e", "--var", "v=3"]);
    assert_eq!(space.read("hosts/h/list"), "1\n", "{failed}");
}

#[test]
fn hosts_that_only_the_first_attempt_changed_go_back_too() {
    let space = Space::new(
        r#"
var "v" "1"
host "a" local=#true root="hosts/h"
host "b" local=#true root="hosts/b"
environment "e" { use "file" on="a b" v="{v}"; use "work" on="a" v="{v}"; }
"#,
    );
    let file = r#"step "file" { write "{host.root}/file" "{v}\n"; }"#;
    let work = r#"step "work" { run "test ! -e go-on; test {v} = 1 || {{ touch at-work; sleep 1000; }}"; undo "true"; }"#;
    for (name, steps) in [("file", file), ("work", work)] {
        let text = format!("recipe \"{name}\" {{\n param \"v\"\n{steps}\n}}\n");
        space.write(format!("recipes/{name}.kdl"), text);
    }
    let _ = space.run(["-q", "e"]).ok();
    cut_off(&space, &["e", "--var", "v=2"]);
    assert_eq!(space.read("hosts/b/file"), "2\n");
    let failed = fails(&space, &["e", "--var", "v=2"]);
    assert_eq!(space.read("hosts/b/file"), "1\n", "{failed}");
    let journal = space.read("hosts/b/.rel/e/journal");
    assert!(journal.contains("\tgone-back\t"), "{journal}");
    let none = space.run(["e"]).ok();
    assert!(none.stderr.contains("nothing to do"), "{none}");
}

/// A link, and then work that goes on.
const LINKED: (&str, &str) = (
    "linked",
    r#"
    step "link" { symlink "{host.root}/link" to="{v}"; }
    step "work" undo=#false { run "touch at-work; sleep 1000"; }
"#,
);

/// Returns to what the link leads.
fn link(space: &Space) -> String {
    let to = fs::read_link(space.path("hosts/h/link"));
    to.map_or_else(|_| "-".into(), |to| to.to_string_lossy().into_owned())
}

/// Cuts a run off, and waits until nobody holds its lease any more.
fn cut_off_for_good(space: &Space, version: &str) {
    cut_off(space, &["e", "--var", version]);
    wait_until("the guard has left", || {
        (!space.has("hosts/h/.rel/e/lease")).then_some(())
    });
}

#[test]
fn attempts_that_a_run_with_nothing_to_do_ends_are_one_release() {
    let file = r#"step "file" { write "{host.root}/file" "{v}\n"; }"#;
    let space = space("use \"file\" on=\"h\" v=\"{v}\"", &[("file", file)]);
    let _ = space.run(["e"]).ok();
    for version in ["v=2", "v=3"] {
        let _ = space.run(["e", "--var", version]).ok();
        // As if it had been killed before its last word.
        let journal = space.read("hosts/h/.rel/e/journal");
        let (before, ok) = journal.trim_end().rsplit_once('\n').expect("lines");
        assert!(ok.contains("\tok\t"), "{journal}");
        space.write("hosts/h/.rel/e/journal", format!("{before}\n"));
    }
    let ended = space.run(["e", "--var", "v=3"]).ok();
    assert!(ended.stderr.contains("nothing to do"), "{ended}");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.read("hosts/h/file"), "1\n");
}

/// What somebody made of it between two attempts is no more theirs to roll back than what somebody
/// made of it since.
#[test]
fn a_change_between_two_attempts_stops_a_rollback_before_its_first_change() {
    let space = space("use \"linked\" on=\"h\" v=\"{v}\"", &[LINKED]);
    cut_off_for_good(&space, "v=2");
    fs::remove_file(space.path("hosts/h/link")).expect("removes");
    std::os::unix::fs::symlink("theirs", space.path("hosts/h/link")).expect("links");
    cut_off_for_good(&space, "v=3");
    let refused = space.run(["e", "--rollback"]).fails(1);
    assert_snapshot!(refused.stderr, @"
    error: `e` cannot be rolled back on host `h`
      differs  [work]/hosts/h/link was `theirs` when the release was resumed; the attempt before left `2`
      help: nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)
    ");
    assert_eq!(link(&space), "3");
    let _ = space.run(["e", "--rollback", "--force"]).ok();
    assert_eq!(link(&space), "-");
}
