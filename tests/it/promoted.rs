//! Approvals of environments that hold hosts back: promotions are saved, approved and applied as
//! other plans are, and nothing to do needs no approval.

use crate::space::{Output, Space};

/// Two hosts, of which one is held back.
fn space() -> Space {
    let space = Space::new(
        r#"
host "h1" local=#true root="hosts/h1"
host "h2" local=#true root="hosts/h2"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
environment "e" {
    approval
    needs "page"
    rollout "r" on="h1 h2" hold-back="h2" { use "site" page="{page}"; }
}
"#,
    );
    space.write(
        "recipes/site.kdl",
        r#"recipe "site" { param "page" type="artifact"; step "page" { put "{page}" to="{host.root}/page"; } }"#,
    );
    space.write("page.in", "1\n");
    let _ = space.run(["build"]).ok();
    space
}

/// Saves a plan with these words, lets somebody else approve it, and carries it out.
fn approved(space: &Space, words: &[&str]) -> Output {
    let _ = space.run(words).ok();
    let args = ["approve", "plan.json", "--reason", "read"];
    let _ = space.run_by("1", &space.path(""), &args).ok();
    space.run(["apply", "plan.json"])
}

#[test]
fn a_promotion_is_approved_as_any_other_plan() {
    let space = space();
    let _ = approved(&space, &["e", "--plan-out", "plan.json"]).ok();
    assert!(space.has("hosts/h1/page") && !space.has("hosts/h2/page"));
    let refused = space.run(["promote", "e"]).fails(2);
    let words = "`rel promote e --plan-out plan.json`";
    assert!(refused.stderr.contains(words), "{refused}");
    let promote = ["promote", "e", "--plan-out", "plan.json"];
    let _ = approved(&space, &promote).ok();
    assert!(space.has("hosts/h2/page"));
    // What is promoted is part of what was approved.
    space.write("page.in", "2\n");
    let _ = space.run(["build"]).ok();
    let _ = approved(&space, &["e", "--plan-out", "plan.json"]).ok();
    let _ = space.run(promote).ok();
    let changed = space.read("plan.json").replace("\"all\"", "\"none\"");
    assert_ne!(changed, space.read("plan.json"));
    space.write("plan.json", changed);
    let refused = space.run(["apply", "plan.json"]).fails(2);
    assert!(
        refused.stderr.contains("was changed after it was saved"),
        "{refused}"
    );
}

#[test]
fn nothing_to_do_needs_no_approval() {
    let space = space();
    let _ = space.run(["e"]).fails(2);
    let _ = approved(&space, &["e", "--plan-out", "plan.json"]).ok();
    let nothing = space.run(["e"]).ok();
    assert!(nothing.stderr.contains("e: nothing to do"), "{nothing}");
    let _ = space.run(["e", "--force"]).fails(2);
    // What a run that was cut off owes is something to do.
    space.write("hosts/h1/.rel/e/scopes/mode", "# 1 1\n# a/b\ntrue\n");
    let _ = space.run(["e"]).fails(2);
    space.remove("hosts/h1/.rel/e/scopes/mode");
    let _ = approved(&space, &["promote", "e", "--plan-out", "plan.json"]).ok();
    let _ = space.run(["promote", "e"]).ok();
    // What is to be built first is something to do.
    space.write("page.in", "2\n");
    let refused = space.run(["e"]).fails(2);
    let words = "`e` is changed by an approved plan only";
    assert!(refused.stderr.contains(words), "{refused}");
    let _ = space.run(["build"]).ok();
    let _ = space.run(["e"]).fails(2);
}
