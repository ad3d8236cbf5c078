//! Approvals: what a person reads is computed from a checkout, and a plan whose file lies about
//! anything that was shown is not carried out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use insta::assert_snapshot;
use rel::deploy::protocol::words::hex;
use rel::deploy::report::plan_changes::saved_form;
use rel::deploy::report::plan_file::PlanContents;
use serde_json::{Value, json};

use crate::filters::{DIGEST, replaced, user};
use crate::space::{Output, REL, Space, wait_until};

/// Three hosts here: a role, a rollout that holds one back, a guard that stops it, a step that
/// destroys something, files that stand there already.
fn shop() -> Space {
    let space = Space::new(
        r#"
project "shop" { version (command)"echo >> version-ran; echo 1.4"; }
secret "db" file="vault/db"
var "level" "info"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
host "c" local=#true root="hosts/c"
environment "staging" {
    approval by="daemon bin"
    param "branch" one-of="main next" default="main"
    needs "page"
    role "active" on="a b" command="test -e {host.root}/active"
    use "front" on="active" level="{level}" password="db"
    use "old" on="a" release="{branch}"
    rollout "all" on="b c" hold-back="c" serial=1 {
        use "site" on="" page="{page}" version="{version}"
    }
}
"#
        .replace(" on=\"\" page", " page")
        .as_str(),
    );
    space.write("page.in", "new\n");
    let recipe = |name: &str, body: &str| {
        space.write(
            format!("recipes/{name}.kdl"),
            format!("recipe \"{name}\" {{\n{body}\n}}\n"),
        );
    };
    recipe(
        "front",
        r#"param "level"
        guard "clean" "echo left behind; exit 1"
        step "log" { write "{host.root}/log.conf" "level={level}\n"; }
        step "mode" { write "{host.root}/mode" "x\n"; }
        param "password" type="secret"
        step "db" { write "{host.root}/db.conf" "password={password}\n"; }"#,
    );
    recipe(
        "old",
        r#"param "release"
        due "echo '! late.sql was applied'; echo d1 drop.sql"
        step "drop" destructive="the tables of {release}" { run "echo {due}; echo dropped >> {host.root}/dropped"; }"#,
    );
    recipe(
        "site",
        r#"param "page" type="artifact"
        param "version"
        step "page" { put "{page}" to="{host.root}/page"; }
        step "reload" on-change="page" { run "echo {version} >> {host.root}/reloads"; }"#,
    );
    for (path, text) in [
        ("hosts/a/active", ""),
        ("hosts/a/log.conf", "level=debug\n"),
        ("hosts/a/mode", "x\n"),
        ("hosts/b/page", "old\n"),
        ("vault/db", "open sesame\n"),
    ] {
        space.write(path, text);
    }
    space.shell("mkdir hosts/c");
    let _ = space.run(["build"]).ok();
    space
}

const SAVE: [&str; 7] = [
    "-q",
    "staging",
    "--plan-out",
    "plan.json",
    "--override",
    "clean",
    "--reason=a hot fix",
];

fn approve(space: &Space, args: &[&str]) -> Output {
    let all = [&["approve", "plan.json"], args].concat();
    space.run_by("1", &space.path(""), &all)
}

/// Replaces what differs from run to run.
fn shown(output: &Output) -> String {
    let replacements = [
        (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "[WHEN]"),
        DIGEST,
        (r"\b[0-9a-f]{64}\b", "[SHA256]"),
    ];
    let text = output.to_string();
    let text = text.replace(&format!("made by     {},", user()), "made by     [ME],");
    replaced(&text, &replacements)
}

/// Returns a saved plan that was edited, with the digest that belongs to it.
fn forged(plan: &Value, edit: &dyn Fn(&mut Value)) -> Value {
    let mut plan = plan.clone();
    edit(&mut plan);
    // As `rel` encodes it; it passes over what it does not know.
    let body: Result<PlanContents, _> = serde_json::from_value(plan["body"].clone());
    let body = match body {
        Ok(body) => serde_json::to_string(&body),
        Err(_) => serde_json::to_string(&plan["body"]),
    };
    plan["digest"] = json!(hex(body.expect("JSON").as_bytes()));
    plan
}

/// Returns an edited plan in which all that follows from an edit was edited as well.
fn consistent(plan: &Value) -> Option<Value> {
    let body: PlanContents = serde_json::from_value(plan["body"].clone()).ok()?;
    let form = serde_json::to_value(saved_form(&body.plan)).expect("JSON");
    Some(forged(plan, &|plan: &mut Value| {
        plan["body"]["plan"] = form.clone()
    }))
}

#[test]
fn what_is_approved_is_computed_by_whoever_reads_it() {
    let space = shop();
    let _ = space.run(SAVE).ok();
    // A checkout of his own: neither what was built nor the hosts are there.
    let own = space.base().join("own");
    space.shell("mkdir ../own; cp -R Releasefile.kdl page.in recipes plan.json ../own; cd ../own; sed -i 's/old/new/' page.in");
    let read = space
        .run_by("1", &own, &["approve", "plan.json", "--plan"])
        .ok();
    assert_snapshot!(shown(&read), @r"
    plan [DIGEST] of `staging main`
      made by     [ME], [WHEN] (not verified)
      version     1.4
      override    clean: a hot fix
      artifact    page  [DIGEST]  is not built here: its content was not checked
    steps that are due; the text is computed from this checkout, `{...}` is a host's answer:
    a  front (front)
          log         write hosts/a/log.conf ...
          db          write hosts/a/db.conf ...
    a  old (old)
          drop        echo '{due}'; echo dropped >> 'hosts/a'/dropped
    b  site (site)
          page        put [DIGEST] to hosts/b/page
          reload      echo '1.4' >> 'hosts/b'/reloads
    front  rollback: log db
    old  no rollback: drop
    site  no rollback: page reload
    a  old/drop  destroys: the tables of main
    answers of hosts, according to the file; `rel apply` asks again and stops at a difference:
    a  has the role `active`
    a  front/log  run  never done here
               --- a:[work]/hosts/a/log.conf
               +++ a:[work]/hosts/a/log.conf
               @@ -1 +1 @@
               -level=debug
               +level=info
    a  front/db  run  never done here
               secret, not shown
    note: `old`: late.sql was applied
    a  old/drop  run  never done here
    b  site/page  run  never done here
               --- b:[work]/hosts/b/page
               +++ b:[work]/hosts/b/page
               @@ -1 +1 @@
               -old
               +new
    b  site/reload  run  `page` runs
    a  `clean` of `front` stops it
    staging: 5 steps would run, 1 up to date, on 3 hosts; held back: c
    --- stderr
    rel: to approve it: `rel approve FILE --digest [SHA256] --reason ...`
    ");
    let digest =
        serde_json::from_str::<Value>(&space.read("plan.json")).expect("JSON")["digest"].clone();
    let digest = digest.as_str().expect("a digest");
    assert!(read.stderr.contains(digest), "{read}");
    for made in [".rel", "version-ran", "vault"] {
        assert!(!own.join(made).exists(), "{made} is there");
    }
    // Here the artifact stands, and is compared by its digest.
    let here = approve(&space, &["--plan"]).ok();
    assert!(here.stdout.contains("is the same here"), "{here}");
    space.write("build/page", "another\n");
    let other = approve(&space, &["--plan"]).ok();
    assert!(other.stdout.contains("differs here"), "{other}");
    // Another commit is not what it was made of.
    fs::write(
        own.join("recipes/site.kdl"),
        "recipe \"site\" { param \"page\" type=\"artifact\"; param \"version\"; }\n",
    )
    .expect("writes");
    let refused = space
        .run_by("1", &own, &["approve", "plan.json", "--reason", "x"])
        .fails(2);
    assert_snapshot!(shown(&refused), @r"
    --- stderr
    error: this checkout makes another plan
      file  `recipes/site.kdl` differs here
      help: approve it in a checkout of the commit that it was made of, or ask its maker for a new one
    --- exit code 2
    ");
}

#[test]
fn an_approval_is_of_the_plan_that_was_shown() {
    let space = shop();
    let _ = space.run(SAVE).ok();
    let first = space.read("plan.json");
    let digest = |text: &str| {
        let plan: Value = serde_json::from_str(text).expect("JSON");
        plan["digest"].as_str().expect("a digest").to_owned()
    };
    let read = digest(&first);
    // Somebody puts another one in its place, once it was read.
    let _ = space.run(SAVE).ok();
    let second = space.read("plan.json");
    assert_ne!(read, digest(&second));
    let refused = approve(&space, &["--digest", &read, "--reason", "read"]).fails(2);
    assert!(refused.stderr.contains(&read), "{refused}");
    assert_snapshot!(shown(&refused), @r"
    --- stderr
    error: this is not the plan that was shown
      shown  [SHA256]
      found  [SHA256]
      help: nothing was approved; read it again: `rel approve FILE --plan`
    --- exit code 2
    ");
    assert_eq!(space.read("plan.json"), second);
    let short = approve(&space, &["--digest", &read[..32], "--reason", "read"]).fails(2);
    assert!(short.stderr.contains("too short"), "{short}");
    space.write("plan.json", &first);
    let _ = approve(&space, &["--digest", &read, "--reason", "read"]).ok();
    // Its own guard was let through with it; another one is not, by whoever applies it.
    let refused = space
        .run([
            "apply",
            "plan.json",
            "--override",
            "clean",
            "--reason",
            "me",
        ])
        .fails(2);
    assert_snapshot!(refused.stderr, @r"
    error: `staging` takes overrides only from the plan that was approved
      help: save a plan that has them: `rel staging ... --plan-out FILE --override GUARD --reason ...`
    ");
    let checked = space.run(["apply", "plan.json", "--plan"]).ok();
    assert!(
        checked.stderr.contains("this plan still holds"),
        "{checked}"
    );
    let _ = space.run(["apply", "plan.json"]).ok();
    let journal = space.read("hosts/a/.rel/staging-main/journal");
    let line = |event: &str| {
        let found = journal
            .lines()
            .find(|l| l.contains(&format!("\t{event}\t")));
        found
            .unwrap_or_else(|| panic!("no {event} in {journal}"))
            .to_owned()
    };
    assert!(line("overridden").ends_with("a hot fix"), "{journal}");
    assert!(line("approved").contains("\tdaemon\t"), "{journal}");
}

/// A person at a terminal is asked once the plan is there, and a no changes nothing. Whoever puts
/// another plan in its place meanwhile gets no approval for it.
#[test]
fn a_person_reads_before_the_answer() {
    let space = shop();
    let words =
        format!("unshare --user --map-user=1 --map-group=1 {REL} approve plan.json --reason read");
    let _ = space.run(SAVE).ok();
    let other = space.read("plan.json");
    let _ = space.run(SAVE).ok();
    let before = space.read("plan.json");
    for (answer, is_swapped, is_approved) in [
        ("n\n", false, false),
        ("y\n", true, false),
        ("y\n", false, true),
    ] {
        space.write("plan.json", &before);
        let mut script = space.program("script");
        script
            .args(["-qec", &words, "/dev/null"])
            .env("TERM", "dumb");
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        script.stdin(Stdio::from(reader));
        let job = space.start(&mut script);
        wait_until("the question", || {
            job.stdout().contains("Approve plan").then_some(())
        });
        if is_swapped {
            space.write("plan.json", &other);
        }
        std::io::Write::write_all(&mut writer, answer.as_bytes()).expect("writes");
        let output = job.finish();
        drop(writer);
        assert_eq!(output.code == 0, is_approved, "{output}");
        assert_eq!(
            output.stdout.contains("this is not the plan"),
            is_swapped,
            "{output}"
        );
        let at = |text: &str| output.stdout.find(text);
        assert!(at("would run") < at("Approve plan"), "{output}");
        let expected = if is_swapped { &other } else { &before };
        assert_eq!(
            space.read("plan.json") != *expected,
            is_approved,
            "{output}"
        );
    }
}

/// An edit of a saved plan. A path that begins with no `/` is below its steps and hosts.
enum Edit {
    Set(&'static str, Value),
    Add(&'static str, &'static str, Value),
    Remove(&'static str, &'static str),
    Swap(&'static str),
}

impl Edit {
    fn on(&self, plan: &mut Value) {
        let (Self::Set(path, _) | Self::Add(path, ..) | Self::Remove(path, _) | Self::Swap(path)) =
            self;
        let whole = match path.starts_with('/') || path.is_empty() {
            true => (*path).to_owned(),
            false => format!("/body/plan/{path}"),
        };
        let Some(place) = plan.pointer_mut(whole.trim_end_matches('/')) else {
            panic!("nothing is at {whole} in {plan:#}");
        };
        match self {
            Self::Set(_, value) => *place = value.clone(),
            Self::Add(_, name, value) => place[name] = value.clone(),
            Self::Remove(_, name) => {
                let removed = place.as_object_mut().expect("an object").remove(*name);
                assert!(removed.is_some(), "no {whole}/{name}");
            }
            Self::Swap(_) => place.as_array_mut().expect("a list").swap(0, 1),
        }
    }
}

/// What a colleague may edit, each in turn, with the digest that belongs to it. An approver sees
/// the truth, or the word of the file as such; and the user who applies it reads which field it is.
#[test]
fn a_field_that_was_edited_is_not_believed() {
    let space = shop();
    let _ = space.run(SAVE).ok();
    let plan: Value = serde_json::from_str(&space.read("plan.json")).expect("JSON");
    let lie = || json!("LIE");
    let (set, add) = (Edit::Set, Edit::Add);
    let (remove, swap) = (Edit::Remove, Edit::Swap);
    let held = json!({"a": [{
        "kind": "run", "token": 1, "who": "LIE", "run": null, "purpose": "LIE", "age": 1, "rest": null,
    }]});
    let foreign = json!([{"host": "a", "step": "LIE", "age": 1, "is_changed": false}]);
    // The message for the user who applies it, and the edit.
    let table: Vec<(&str, Edit)> = vec![
        // Texts of steps.
        ("`what` of `front/log`", set("jobs/0/steps/0/what", lie())),
        (
            "`reason` of `front/log`",
            set("jobs/0/steps/0/reason", lie()),
        ),
        (
            "`difference.unified` of `front/log`",
            set("jobs/0/steps/0/difference/unified", lie()),
        ),
        (
            "`difference.path` of `front/log`",
            set("jobs/0/steps/0/difference/path", lie()),
        ),
        (
            "`difference.path` of `front/log`",
            set(
                "jobs/0/steps/0/difference",
                json!({"kind": "same", "path": "LIE"}),
            ),
        ),
        (
            "`difference` of `front/log`",
            remove("jobs/0/steps/0", "difference"),
        ),
        (
            "`way_back` of `front/log`",
            set("jobs/0/steps/0/way_back", json!("none")),
        ),
        (
            "`way_back` of `old/drop`",
            set("jobs/1/steps/0/way_back", json!("known")),
        ),
        (
            "`destroys` of `front/log`",
            add("jobs/0/steps/0", "destroys", lie()),
        ),
        (
            "`destroys` of `old/drop`",
            set("jobs/1/steps/0/destroys", lie()),
        ),
        (
            "`destroys` of `old/drop`",
            remove("jobs/1/steps/0", "destroys"),
        ),
        ("`name` of `front/log`", set("jobs/0/steps/0/name", lie())),
        ("`LIE` is no longer a step", set("jobs/0/steps/0/id", lie())),
        (
            "`front/log` would run another action",
            set("jobs/0/steps/0/key", lie()),
        ),
        (
            "`front/log` would run another action",
            set("jobs/0/steps/0/does", lie()),
        ),
        ("steps[0].seq", set("jobs/0/steps/0/seq", json!(7))),
        (
            "`front/log` is no longer a step",
            set("jobs/0/steps/0/host", json!("b")),
        ),
        (
            "`front/log`: fresh -> run",
            set("jobs/0/steps/0/verdict", json!("fresh")),
        ),
        (
            "`front/mode`: run -> done",
            set("jobs/0/steps/1/verdict", json!("run")),
        ),
        ("steps[1].what", set("jobs/0/steps/1/what", lie())),
        // Uses and their order.
        ("`label` of `LIE`", set("jobs/0/label", lie())),
        ("`recipe` of `front`", set("jobs/0/recipe", lie())),
        ("`host` of `front`", set("jobs/0/host", json!("b"))),
        ("`from` of `front`", set("jobs/0/from", json!("b"))),
        ("`told[0]` of `old`", set("jobs/1/told", json!(["LIE"]))),
        ("`told` of `old`", remove("jobs/1", "told")),
        (
            "`wave.number` of `site`",
            set("jobs/2/wave/number", json!(2)),
        ),
        (
            "`wave.number` of `site`",
            set("jobs/3/wave/number", json!(1)),
        ),
        ("`wave` of `site`", set("jobs/2/wave", Value::Null)),
        ("`label` of `old`", swap("jobs")),
        ("`steps` of `front`", swap("jobs/0/steps")),
        ("is a new step", set("jobs", json!([]))),
        // What follows from them.
        ("plan.to_run", set("to_run", json!(1))),
        ("plan.fresh", set("fresh", json!(99))),
        ("plan.held_back", set("held_back", json!([]))),
        ("plan.destructive", remove("/body/plan", "destructive")),
        ("destructive[0].lost", set("destructive/0/lost", lie())),
        // What hosts said.
        ("role `active`  b -> a", set("roles/active", json!(["b"]))),
        ("role `active`  c -> a", set("roles/active", json!(["c"]))),
        ("role `active`  no host -> a", remove("/body/plan", "roles")),
        ("`owed.a`", set("owed", json!({"a": ["LIE"]}))),
        ("`blocked`", remove("/body/plan", "blocked")),
        ("`blocked[0].guard`", set("blocked/0/guard", lie())),
        ("`blocked[0].host`", set("blocked/0/host", json!("b"))),
        ("blocked[0].evidence", set("blocked/0/evidence", lie())),
        (
            "its journal was replaced",
            set("hosts/a/journal_sha256", lie()),
        ),
        (
            "`hosts.a.journal_lines`",
            set("hosts/a/journal_lines", json!(3)),
        ),
        (
            "the state on the host has changed",
            set("hosts/a/probes", json!({})),
        ),
        ("`hosts.a.unwritable`", add("hosts/a", "unwritable", lie())),
        ("is new", set("hosts", json!({}))),
        // What changes with the clock is not in a saved plan.
        ("plan.round_trips", set("round_trips", json!(1))),
        ("plan.closed", add("/body/plan", "closed", lie())),
        ("plan.held", add("/body/plan", "held", held)),
        ("plan.foreign", add("/body/plan", "foreign", foreign)),
        // What it was made of and with.
        ("plan.environment", set("environment", lie())),
        ("plan.environment", set("/body/environment", lie())),
        ("project  `LIE` in the file", set("/body/project", lie())),
        ("`old/drop`", set("/body/params/branch", json!("next"))),
        (
            "`branch` cannot be `LIE`",
            set("/body/params/branch", lie()),
        ),
        ("params  differ between", set("/body/params", json!({}))),
        ("params  differ between", add("/body/params", "more", lie())),
        (
            "`front/log` would run another action",
            set("/body/vars", json!({"level": "LIE"})),
        ),
        ("LIE", set("/body/vars", json!({"LIE": "x"}))),
        ("LIE", set("/body/hosts_file", lie())),
        (
            "`front/mode`: done -> run",
            set("/body/is_forced", json!(true)),
        ),
        (
            "`site/reload` would run another action",
            set("/body/version", lie()),
        ),
        ("body.run_id", set("/body/run_id", json!("../../LIE"))),
        (
            "Releasefile.kdl  differs",
            set("/body/files/Releasefile.kdl", lie()),
        ),
        ("Releasefile.kdl    is new", set("/body/files", json!({}))),
        (
            "artifact `page`  differs",
            set("/body/artifacts/page", json!("0".repeat(64))),
        ),
        ("artifact `page`  is new", set("/body/artifacts", json!({}))),
        (
            "has no guard `LIE`",
            set("/body/overrides/guards", json!(["LIE"])),
        ),
        // What no version of `rel` writes.
        ("unknown field `more`", add("", "more", lie())),
        ("unknown field `more`", add("/body", "more", lie())),
        (
            "unknown field `more`",
            add("/body/overrides", "more", lie()),
        ),
        ("body.plan.more", add("/body/plan", "more", lie())),
        ("hosts.a.more", add("hosts/a", "more", lie())),
        ("jobs[0].more", add("jobs/0", "more", lie())),
        ("steps[0].more", add("jobs/0/steps/0", "more", lie())),
        (
            "difference.more",
            add("jobs/0/steps/0/difference", "more", lie()),
        ),
        ("wave.more", add("jobs/2/wave", "more", lie())),
        ("found     rel plan 1", set("/format", json!("rel plan 1"))),
    ];
    let mut wrong = Vec::new();
    for (expected, edit) in &table {
        let lied = forged(&plan, &|plan: &mut Value| edit.on(plan));
        assert_ne!(lied, plan, "{expected}");
        let whole = consistent(&lied).filter(|whole| *whole != lied && *whole != plan);
        let told = [Some(&lied), whole.as_ref()].map(|lied| lied.map(|l| is_refused(&space, l)));
        let told: String = told.into_iter().flatten().collect();
        if !told.contains(expected) {
            wrong.push(format!("no {expected:?} in\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The plan that nobody touched is carried out.
    space.write("plan.json", plan.to_string());
    let _ = approve(&space, &["--reason", "read"]).ok();
    let _ = space.run(["apply", "plan.json"]).ok();
    assert_eq!(space.read("hosts/a/log.conf"), "level=info\n");
    assert_eq!(space.read("hosts/b/page"), "new\n");
    assert!(space.has("hosts/a/dropped") && !space.has("hosts/c/page"));
}

/// Has a plan approved and applied, which must be refused, and returns what was reported then.
#[track_caller]
fn is_refused(space: &Space, lied: &Value) -> String {
    space.write("plan.json", lied.to_string());
    let read = approve(space, &["--reason", "read"]);
    // What stands before that is computed, except for what its maker chooses.
    let boundary = "steps that are due";
    let (_, ours) = read.stdout.split_once(boundary).unwrap_or_default();
    let (ours, _) = ours
        .split_once("answers of hosts, according to the file")
        .unwrap_or((ours, ""));
    let chosen = &lied["body"];
    let is_chosen = chosen["version"] == "LIE" || chosen["vars"].to_string().contains("LIE");
    assert!(is_chosen || !ours.contains("LIE"), "{read}");
    match read.code {
        0 => assert!(
            ours.contains("      drop        echo '{due}'; echo dropped"),
            "{read}"
        ),
        // Then the approval is forged as well.
        1 | 2 => {
            let mut lied = lied.clone();
            lied["approvals"] = json!([{
                "user": "daemon", "time": 1, "digest": lied["digest"], "reason": "read",
            }]);
            space.write("plan.json", lied.to_string());
        }
        _ => panic!("{read}"),
    }
    let applied = space.run(["apply", "plan.json"]);
    assert!([1, 2].contains(&applied.code), "{lied:#}\n{applied}");
    let hosts = ["a", "b", "c"];
    let is_done = space.has("hosts/a/dropped")
        || space.read("hosts/a/log.conf") != "level=debug\n"
        || space.read("hosts/b/page") != "old\n"
        || space.has("hosts/c/page")
        || hosts.iter().any(|h| space.has(format!("hosts/{h}/.rel")));
    assert!(!is_done, "{lied:#}\n{applied}");
    applied.stderr
}

/// One of an older version, or one that somebody has broken, is in nobody's way.
#[test]
fn a_saved_plan_is_replaced_whatever_its_version() {
    let space = shop();
    space.write("plan.json", "{\"format\": \"rel plan 1\", \"body\": 1}");
    let old = space.run(["apply", "plan.json"]).fails(2);
    assert_snapshot!(old.stderr, @r"
    error: `plan.json` is not a saved plan
      found     rel plan 1
      expected  rel plan 2
      help: `rel ENVIRONMENT --plan-out FILE` saves one
    ");
    let _ = space.run(SAVE).ok();
    assert!(space.read("plan.json").contains("rel plan 2"));
}

/// What a maker chooses is shown as that; who made it, and when, nobody has checked.
#[test]
fn what_its_maker_chose_is_shown() {
    let space = shop();
    let _ = space.run(SAVE).ok();
    let plan: Value = serde_json::from_str(&space.read("plan.json")).expect("JSON");
    for (field, value, expected) in [
        ("made_by", json!("somebody"), "made by     somebody, "),
        ("made_at", json!(0), "1970-01-01 00:00 UTC (not verified)"),
        ("is_confirmed", json!(true), "confirm     data may be lost"),
        ("is_forced", json!(true), "force       all steps run"),
        ("version", json!("9"), "version     9"),
        ("vars", json!({"level": "trace"}), "var         level=trace"),
        (
            "overrides",
            json!({"guards": ["x", "y"], "reason": "why"}),
            "override    x y: why",
        ),
    ] {
        let edited = forged(&plan, &|plan: &mut Value| {
            plan["body"][field] = value.clone()
        });
        space.write("plan.json", edited.to_string());
        let read = approve(&space, &["--plan"]).ok();
        assert!(read.stdout.contains(expected), "{field}: {read}");
    }
    // Hosts of a file that is not part of the checkout are named as such.
    space.shell(
        "echo 'host \"b\" local=#true root=\"../elsewhere\"' > ../hosts.kdl; mkdir ../elsewhere",
    );
    let file = space.base().join("hosts.kdl");
    let file = file.to_str().expect("UTF-8");
    let _ = space.run([&SAVE[..], &["--hosts", file]].concat()).ok();
    let read = approve(&space, &["--plan"]).ok();
    assert!(
        read.stdout.contains("hosts.kdl (outside of this checkout)"),
        "{read}"
    );
    assert!(
        read.stdout.contains("put ") && read.stdout.contains("to ../elsewhere/page"),
        "{read}"
    );
    let mode = fs::metadata(space.path("plan.json"))
        .expect("is there")
        .permissions();
    assert_eq!(mode.mode() & 0o077, 0);
}
