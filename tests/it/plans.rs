//! Plans: what they show, that the run is the plan, and saved ones: refused when the world
//! moved, approved by somebody else.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use crate::filters::{RUN, TESTER, replaced, user};
use crate::hosts::Hosts;
use crate::space::{Output, Space};

/// Two hosts here, each with a configured service of two files, one of them an artifact.
fn app() -> Space {
    app_on(
        r#"
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
group "all" "a" "b"
"#,
        "",
    )
}

fn app_on(hosts: &str, more: &str) -> Space {
    let space = Space::new(&format!(
        r#"
var "level" "info"
target "ini" {{ each "service" "web" "worker"; inputs "{{service}}.ini"; outputs "build/{{service}}.ini"; run "cp {{service}}.ini {{out}}"; }}
{hosts}
environment "staging" {{
    {more}
    needs "ini[web]" "ini[worker]"
    use "configured" as="web" on="all" ini="{{ini[web]}}" level="{{level}}"
    use "configured" as="worker" on="all" ini="{{ini[worker]}}" level="info"
}}
"#
    ));
    space.write("web.ini", "port = 80\nhost = here\n");
    space.write("worker.ini", "threads = 4\n");
    space.write(
        "recipes/configured.kdl",
        r#"
recipe "configured" {
    param "ini" type="artifact"
    param "level"
    step "ini" { put "{ini}" to="{host.root}/{use}.ini" }
    step "log" { write "{host.root}/{use}.log.conf" "level={level}\n" }
    step "reload" on-change="ini log" { run "echo {use} >> {host.root}/reloads" }
}
"#,
    );
    space
}

/// Returns the steps of a plan that would run, with why: `host id  reason`.
#[track_caller]
fn to_run(plan: &Value) -> Vec<String> {
    let jobs = plan["jobs"].as_array().expect("jobs");
    let steps = jobs
        .iter()
        .flat_map(|j| j["steps"].as_array().expect("steps"));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let shown = |s: &Value| {
        let (host, id, reason) = (word(&s["host"]), word(&s["id"]), word(&s["reason"]));
        format!("{host} {id}  {reason}")
    };
    steps.filter(|s| s["verdict"] == "run").map(shown).collect()
}

/// Returns an output without digests and run ids.
fn shown(output: &Output) -> String {
    let text = replaced(&output.to_string(), &[RUN, TESTER]);
    let me = user();
    let text = text.replace(&format!("`{me}`"), "`[ME]`");
    let text = text.replace(&format!("made by      {me}"), "made by      [ME]");
    replaced(&text, &[(r"\b[0-9a-f]{12}([0-9a-f]{52})?\b", "[DIGEST]")])
}

#[test]
fn a_plan_shows_how_files_would_differ() {
    let space = app();
    let _ = space.run(["staging"]).ok();
    space.write("web.ini", "port = 8080\nhost = here\n");
    space.write("hosts/b/web.log.conf", "level=debug\nby hand\u{1b}[31m");
    space.remove("hosts/a/worker.log.conf");
    let _ = space.run(["build"]).ok();
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok()), @r"
    a  web (configured)
          run  ini         put [DIGEST] to [work]/hosts/a/web.ini  changed since run [RUN]
               --- a:[work]/hosts/a/web.ini
               +++ a:[work]/hosts/a/web.ini
               @@ -1,2 +1,2 @@
               -port = 80
               +port = 8080
                host = here
          run  reload      echo 'web' >> '[work]/hosts/a'/reloads  `ini` runs
    b  web (configured)
          run  ini         put [DIGEST] to [work]/hosts/b/web.ini  changed since run [RUN]
               --- b:[work]/hosts/b/web.ini
               +++ b:[work]/hosts/b/web.ini
               @@ -1,2 +1,2 @@
               -port = 80
               +port = 8080
                host = here
          run  log         write [work]/hosts/b/web.log.conf  `[work]/hosts/b/web.log.conf` was changed
               --- b:[work]/hosts/b/web.log.conf
               +++ b:[work]/hosts/b/web.log.conf
               @@ -1,2 +1 @@
               -level=debug
               -by hand\u{1b}[31m
               \ No newline at end of file
               +level=info
          run  reload      echo 'web' >> '[work]/hosts/b'/reloads  `ini` runs
    a  worker (configured)
          run  log         write [work]/hosts/a/worker.log.conf  `[work]/hosts/a/worker.log.conf` is gone
               --- /dev/null
               +++ a:[work]/hosts/a/worker.log.conf
               @@ -0,0 +1 @@
               +level=info
          run  reload      echo 'worker' >> '[work]/hosts/a'/reloads  `log` runs
    web  rollback: log; no rollback: ini reload
    worker  rollback: log; no rollback: reload
    staging: 7 steps would run, 5 up to date, on 2 hosts
    ");
    let plan = space.ask(["staging", "--plan"]);
    let first = &plan["jobs"][0]["steps"][0]["difference"];
    assert_eq!(first["kind"], "text", "{plan:#}");
    assert_eq!(plan["round_trips"], 2, "{plan:#}");
}

#[test]
fn what_is_not_text_or_too_large_is_said_so() {
    let space = app();
    let _ = space.run(["staging"]).ok();
    space.write("hosts/a/web.ini", b"a\0b");
    space.write("hosts/b/web.ini", "x".repeat(100_000));
    space.remove("hosts/a/worker.ini");
    fs::create_dir(space.path("hosts/a/worker.ini")).expect("creates");
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok()), @"
    a  web (configured)
          run  ini         put [DIGEST] to [work]/hosts/a/web.ini  `[work]/hosts/a/web.ini` was changed
               not text: 3 -> 22 bytes
          run  reload      echo 'web' >> '[work]/hosts/a'/reloads  `ini` runs
    b  web (configured)
          run  ini         put [DIGEST] to [work]/hosts/b/web.ini  `[work]/hosts/b/web.ini` was changed
               too large to be shown: 100000 -> 22 bytes
          run  reload      echo 'web' >> '[work]/hosts/b'/reloads  `ini` runs
    a  worker (configured)
          run  ini         put [DIGEST] to [work]/hosts/a/worker.ini  `[work]/hosts/a/worker.ini` is gone
               the current path is not a file
          run  reload      echo 'worker' >> '[work]/hosts/a'/reloads  `ini` runs
    web  no rollback: ini reload
    worker  no rollback: ini reload
    staging: 6 steps would run, 6 up to date, on 2 hosts
    ");
}

#[test]
fn a_file_is_not_laid_into_a_directory_that_stands_in_its_place() {
    let space = app();
    let _ = space.run(["staging"]).ok();
    space.remove("hosts/a/worker.ini");
    space.write("hosts/a/worker.ini/keep", "");
    let failed = space.run(["-q", "staging"]).fails(1);
    assert_snapshot!(shown(&failed), @"
    --- stderr
    error: `staging` stopped: step `worker/ini` failed on host `a`
      status       1
      output       [work]/hosts/a/worker.ini is a directory
      no rollback  worker/ini on a
      help: nothing was rolled back: check what these steps did, and run the same command again
    --- exit code 1
    ");
    let there = fs::read_dir(space.path("hosts/a/worker.ini")).expect("lists");
    assert_eq!(there.count(), 1, "nothing was put into it");
    space.shell("rm -r hosts/a/worker.ini hosts/a/web.log.conf && mkdir hosts/a/web.log.conf");
    let failed = space.run(["-q", "staging"]).fails(1);
    assert!(
        failed
            .stderr
            .contains("hosts/a/web.log.conf is a directory"),
        "{failed}"
    );
}

#[test]
fn what_is_not_made_has_no_name_in_a_plan() {
    let space = Space::new(
        r#"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
host "a" local=#true root="hosts/a"
environment "staging" {
    needs "page"
    use "versioned-release" as="site" on="a" artifact="{page}" root="{host.root}/site"
    use "note" on="a" text="release {page.id}"
    use "note" as="last" on="a" text="fixed" after="site"
}
"#,
    );
    space.write("page.in", "1\n");
    let recipe =
        r#"recipe "note" { param "text"; step "note" { write "{host.root}/{use}" "{text}\n"; }; }"#;
    space.write("recipes/note.kdl", recipe);
    let _ = space.run(["staging"]).ok();
    space.write("page.in", "2\n");
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok()), @"
      stale  page  input `page.in` changed  50cc1102b1c612e6 2 B -> b9a1a3183dd350f0 2 B
    a  site (versioned-release)
      unknown  announce    notes that the release is tried  unknown until `page` is made
      unknown  upload      lays the release down in [work]/hosts/a/site/releases  unknown until `page` is made
      unknown  switch      unknown until `page` is made
      unknown  prune       removes releases beyond the 5 that stay  unknown until `page` is made
    a  note (note)
      unknown  note        unknown until `page` is made
    a  last (note)
      unknown  note        unknown until `site` is
    staging: 6 steps not known yet, 0 up to date, on 1 host
    ");
    let plan = space.ask(["staging", "--plan"]);
    for job in plan["jobs"].as_array().expect("jobs") {
        for step in job["steps"].as_array().expect("steps") {
            let text = step.to_string();
            assert!(!text.contains("not-made"), "{text}");
            if job["label"] == "site" {
                assert_eq!(step["key"], "", "{text}");
                // Nothing but the recipe's own words.
                let is_said = ["announce", "upload", "prune"]
                    .contains(&step["name"].as_str().expect("a name"));
                assert_eq!(step["what"] != "", is_said, "{text}");
            }
        }
    }
    assert_eq!(to_run(&plan), Vec::<String>::new());
    // And the run does more than nothing, as the plan says.
    assert!(space.ask(["staging"])["ran"].as_u64() > Some(3));
}

#[test]
fn only_what_changed_is_reloaded_and_only_where() {
    let hosts = Hosts::start(3);
    let space = app_on(
        &format!("{}group \"all\" \"h1\" \"h2\" \"h3\"\n", hosts.kdl()),
        "",
    );
    let first = space.ask(["staging"]);
    assert_eq!(first["ran"], 18, "{first:#}");
    let reloads = || -> Vec<String> {
        let read = |h: &crate::hosts::Host| fs::read_to_string(h.srv("reloads")).expect("reads");
        hosts
            .all
            .iter()
            .map(|h| read(h).replace('\n', " "))
            .collect()
    };
    assert_eq!(reloads(), ["web worker ", "web worker ", "web worker "]);

    // One configuration: one service, on all hosts.
    space.write("worker.ini", "threads = 8\n");
    let _ = space.run(["build"]).ok();
    let plan = space.ask(["staging", "--plan"]);
    let outcome = space.ask(["staging"]);
    assert_eq!(to_run(&outcome["plan"]), to_run(&plan));
    assert_eq!(to_run(&plan).len(), 6, "{plan:#}");
    assert!(to_run(&plan).iter().all(|s| s.contains(" worker/")));
    let after = "web worker worker ";
    assert_eq!(reloads(), [after, after, after]);

    // One file on one host, by hand: that host, and the file is named.
    for (path, id) in [("web.ini", "web/ini"), ("web.log.conf", "web/log")] {
        fs::write(hosts.all[1].srv(path), "by hand\n").expect("writes");
        let plan = space.ask(["staging", "--plan-out", "plan.json"]);
        let file = format!("{}/{path}", hosts.root(&hosts.all[1]));
        let step = id.split('/').next_back().expect("a step");
        assert_eq!(
            to_run(&plan),
            [
                format!("h2 {id}  `{file}` was changed"),
                format!("h2 web/reload  `{step}` runs"),
            ]
        );
        let outcome = space.ask(["apply", "plan.json"]);
        assert_eq!(to_run(&outcome["plan"]), to_run(&plan));
        assert_eq!(space.ask(["staging"])["ran"], 0);
    }
    assert_eq!(reloads(), [after, "web worker worker web web ", after]);
    let there = fs::read_to_string(hosts.all[1].srv("web.ini")).expect("reads");
    assert_eq!(there, "port = 80\nhost = here\n");
}

#[test]
fn a_saved_plan_is_carried_out_as_it_was_read() {
    let space = app();
    let early = space.run(["staging", "--plan-out", "plan.json"]).fails(2);
    assert_snapshot!(early.stderr, @"
    error: a plan can be saved once everything that it needs is built
      not known yet  12 steps
      help: first: `rel build ini[web] ini[worker]`
    ");
    assert!(!space.has("plan.json"));
    let _ = space.run(["build"]).ok();
    let plan = space.ask(["staging", "--plan-out", "plan.json", "--var", "level=debug"]);
    assert!(!space.has("hosts"), "a plan makes nothing");
    // What is worked on meanwhile is not what was planned, and does not matter.
    space.write("web.ini", "port = 1\n");
    let held = space.run(["apply", "plan.json", "--plan"]).ok();
    assert_snapshot!(held.stderr, @"rel: staging: this plan still holds");
    let outcome = space.ask(["apply", "plan.json"]);
    assert_eq!(to_run(&outcome["plan"]), to_run(&plan));
    let keys = |plan: &Value| {
        let jobs = plan["jobs"].as_array().expect("jobs").clone();
        let steps = jobs
            .into_iter()
            .flat_map(|j| j["steps"].as_array().expect("steps").clone());
        steps.map(|s| s["key"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&outcome["plan"]), keys(&plan));
    assert_eq!(space.read("hosts/b/web.ini"), "port = 80\nhost = here\n");
    assert_eq!(space.read("hosts/b/web.log.conf"), "level=debug\n");
    assert_snapshot!(shown(&space.run(["apply", "plan.json"]).ok()), @"
    --- stderr
    rel: staging: this plan was carried out already, by tester@[MACHINE]; nothing was done
    ");
    assert_eq!(space.lines("hosts/a/reloads"), ["web", "worker"]);
    let _ = space.run(["staging", "--rollback"]).ok();
    assert_snapshot!(shown(&space.run(["apply", "plan.json"]).fails(1)), @"
    --- stderr
    error: this plan of `staging` was carried out and rolled back
      who  tester@[MACHINE]
      help: save a new plan with `--plan-out`
    --- exit code 1
    ");
}

#[test]
fn a_plan_is_refused_when_the_world_has_moved() {
    let space = app();
    let _ = space.run(["staging"]).ok();
    space.write("web.ini", "port = 8080\n");
    let _ = space.run(["build"]).ok();
    let save = || drop(space.run(["-q", "staging", "--plan-out", "plan.json"]).ok());
    let refused = || shown(&space.run(["apply", "plan.json"]).fails(1));
    save();

    space.write("hosts/b/worker.log.conf", "by hand\n");
    space.write("hosts/a/web.ini", "by hand\n");
    assert_snapshot!(refused(), @"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      a  `web/ini`: the state on the host has changed
      b  `worker/log`: fresh -> run  `[work]/hosts/b/worker.log.conf` was changed
      b  `worker/reload`: fresh -> run  `log` runs
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    space.write("hosts/b/worker.log.conf", "level=info\n");
    space.write("hosts/a/web.ini", "port = 80\nhost = here\n");

    space.write("build/web.ini", "another\n");
    assert_snapshot!(refused(), @"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      artifact `ini[web]`  differs
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    space.write("build/web.ini", "port = 8080\n");

    let recipe = space.read("recipes/configured.kdl");
    space.write("recipes/configured.kdl", format!("// new\n{recipe}"));
    assert_snapshot!(refused(), @"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      recipes/configured.kdl  differs
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    space.write("recipes/configured.kdl", &recipe);
    let text = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", text.replace("\"info\"", "\"warning\""));
    assert_snapshot!(refused(), @"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      Releasefile.kdl  differs
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    space.write("Releasefile.kdl", &text);

    // All is as it was: the plan holds. Then somebody else is faster.
    let _ = space.run(["apply", "plan.json", "--plan"]).ok();
    let _ = space.run(["staging"]).ok();
    assert_snapshot!(refused(), @"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      a  its journal grew: run [RUN] by tester@[MACHINE]
      b  its journal grew: run [RUN] by tester@[MACHINE]
      a  `web/ini`: run -> fresh
      a  `web/reload`: run -> fresh
      b  `web/ini`: run -> fresh
      b  `web/reload`: run -> fresh
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    assert_eq!(space.lines("hosts/a/reloads"), ["web", "worker", "web"]);

    let plan = space.read("plan.json");
    space.write("plan.json", plan.replace("port = 8080", "port = 9999"));
    assert_snapshot!(space.run(["apply", "plan.json"]).fails(2), @"
    --- stderr
    error: `plan.json` was changed after it was saved
      help: save a new plan; approvals hold for the plan that was read
    --- exit code 2
    ");
    space.write("other.json", "{}");
    assert_snapshot!(space.run(["apply", "other.json"]).fails(2), @"
    --- stderr
    error: `other.json` is not a saved plan
      help: `rel ENVIRONMENT --plan-out FILE` saves one
    --- exit code 2
    ");
    let over = space
        .run(["staging", "--plan-out", "Releasefile.kdl"])
        .fails(2);
    assert_snapshot!(over.stderr, @"
    error: `Releasefile.kdl` exists and is not a saved plan
      help: name another file, or remove it first
    ");
}

/// The fact that writes stands for somebody who comes between the question and the lock.
#[test]
fn what_moves_between_the_question_and_the_lock_is_seen() {
    let space = Space::new(
        r#"
host "a" local=#true root="hosts/a"
environment "staging" { use "note" on="a"; }
"#,
    );
    let recipe = r#"
recipe "note" {
    fact "other" "if [ -e go ]; then rm go; cat line >> .rel/staging/journal; fi"
    step "note" { write "{host.root}/note" "noted\n" }
}
"#;
    space.write("recipes/note.kdl", recipe);
    let _ = space.run(["staging"]).ok();
    space.write("hosts/a/note", "by hand\n");
    let line = "1\tnote\t1\tr0\t-\tnote\tx\tzoe@there\t-\n";
    space.write("hosts/a/line", line);
    let _ = space.run(["-q", "staging", "--plan-out", "plan.json"]).ok();
    space.write("hosts/a/go", "");
    assert_snapshot!(space.run(["apply", "plan.json"]).fails(1), @r"
    --- stderr
    error: the state has changed since this plan of `staging` was made
      a  its journal grew: run r0 by zoe@there
      help: nothing was done; save a new plan with `--plan-out`
    --- exit code 1
    ");
    assert_eq!(space.read("hosts/a/note"), "by hand\n");
    assert!(!space.has("hosts/a/.rel/staging/lease"));
}

#[test]
fn a_plan_that_needs_approval_waits_for_somebody_else() {
    let hosts = r#"
host "a" local=#true root="hosts/a"
group "all" "a"
"#;
    let space = app_on(hosts, "approval by=\"daemon bin\"");
    assert_snapshot!(shown(&space.run(["staging"]).fails(2)), @"
    --- stderr
    error: `staging` is changed by an approved plan only
      approved by  daemon bin
      help: save one: `rel staging … --plan-out plan.json`; another user: `rel approve plan.json --reason …`; then `rel apply plan.json`
    --- exit code 2
    ");
    assert!(!space.has("build"), "nothing was built");
    let _ = space.run(["build"]).ok();
    let _ = space.run(["-q", "staging", "--plan-out", "plan.json"]).ok();
    assert_snapshot!(shown(&space.run(["apply", "plan.json"]).fails(2)), @"
    --- stderr
    error: `staging` takes plans with 1 approval, and this one has 0
      made by      [ME]
      approved by  no user
      may approve  daemon bin
      help: `rel approve FILE --reason …`, by another person
    --- exit code 2
    ");
    let reason = ["--reason", "read it"];
    let own = space
        .run([&["approve", "plan.json"], &reason[..]].concat())
        .fails(2);
    assert_snapshot!(shown(&own), @"
    --- stderr
    error: `[ME]` made this plan: another user must approve it
    --- exit code 2
    ");
    let other = space
        .run_by(
            "3",
            &space.path(""),
            &[&["approve", "plan.json"], &reason[..]].concat(),
        )
        .fails(2);
    assert_snapshot!(shown(&other), @"
    --- stderr
    error: `sys` may not approve plans of `staging`
      may  daemon bin
    --- exit code 2
    ");
    let given = space
        .run_by(
            "1",
            &space.path(""),
            &["-q", "approve", "plan.json", "--reason", "read it"],
        )
        .ok();
    assert!(given.stdout.contains("6 steps would run"), "{given}");

    // It is bound to what was read.
    let approved = space.read("plan.json");
    let digest = serde_json::from_str::<Value>(&approved).expect("JSON")["digest"].clone();
    let digest = digest.as_str().expect("a digest");
    let _ = space.run(["-q", "staging", "--plan-out", "plan.json"]).ok();
    let _ = space.run(["apply", "plan.json"]).fails(2);
    space.write("plan.json", &approved);
    assert_eq!(space.ask(["apply", "plan.json"])["ran"], 6);
    let journal = space.read("hosts/a/.rel/staging/journal");
    let line = journal
        .lines()
        .find(|l| l.contains("\tapproved\t"))
        .expect("a line");
    let columns: Vec<&str> = line.split('\t').collect();
    assert_eq!(
        [columns[5], columns[6], columns[8]],
        ["daemon", &digest[..32], "read it"]
    );
    // The rollback waits for nobody.
    let _ = space.run(["staging", "--rollback"]).ok();
}

#[test]
fn an_approval_that_nobody_can_give_is_a_mistake() {
    let check = |text: &str| {
        let space = Space::new(&format!("environment \"staging\" {{ {text}; }}\n"));
        space.run(["check"]).fails(2).stderr
    };
    assert_snapshot!(check("approval by=\"ann\" count=2"), @r#"
    rel::build::releasefile::bad_number

      × 2 approvals are wanted, and 1 user may give one
       ╭─[Releasefile.kdl:1:25]
     1 │ environment "staging" { approval by="ann" count=2; }
       ·                         ────┬───
       ·                             ╰── more than that
       ╰────
    "#);
    assert_snapshot!(check("approval \"ann\" from=\"bob\"; approval count=0"), @r#"
    rel::build::releasefile::extra_argument

      × `approval` takes no argument, but `by="…"`
       ╭─[Releasefile.kdl:1:34]
     1 │ environment "staging" { approval "ann" from="bob"; approval count=0; }
       ·                                  ──┬──
       ·                                    ╰── not expected here
       ╰────
      help: write `approval by="alice bob" count=1`

    rel::build::releasefile::unknown_property

      × `approval` has no property `from`
       ╭─[Releasefile.kdl:1:40]
     1 │ environment "staging" { approval "ann" from="bob"; approval count=0; }
       ·                                        ──┬─
       ·                                          ╰── not a property of it
       ╰────
      help: it takes `by`, `count`

    rel::build::releasefile::duplicate_node

      × `approval` is given twice in `environment`
       ╭─[Releasefile.kdl:1:52]
     1 │ environment "staging" { approval "ann" from="bob"; approval count=0; }
       ·                         ────┬───                   ────┬───
       ·                             │                          ╰── given again
       ·                             ╰── first given here
       ╰────
    "#);
}

/// A step whose command is long says in words what it does, also before its artifact is made.
#[test]
fn plans_and_runbooks_show_a_step_by_its_words() {
    let space = Space::new(
        r#"
target "a" { outputs "a.txt"; run "echo 1 >{out}"; }
host "h" local=#true root="h"
environment "e" { needs "a"; use "r" on="h" artifact="{a}"; }
"#,
    );
    space.write(
        "recipes/r.kdl",
        r#"recipe "r" {
    param "artifact" type="artifact"
    step "lay" desc="lays {artifact.name} down in {host.root}" { put "{artifact}" to="{host.root}/a"; }
    step "note" desc="notes that it is there" {
        run "test -e {host.root}/a || exit 0\necho {artifact.id} >{host.root}/noted"
    }
    step "bare" { run "true {artifact.id}" }
}"#,
    );
    let lines = || {
        let plan = space.run(["e", "--plan"]).ok().stdout;
        let here = plan.lines().filter(|line| line.starts_with("  "));
        // The words at the beginning stand to the right.
        let lines: Vec<&str> = here
            .map(|l| l.strip_prefix("      ").unwrap_or(l.trim()))
            .collect();
        lines.join("\n")
    };
    // A name of the artifact is not known yet.
    assert_snapshot!(lines(), @"
    stale  a  never built here
    unknown  lay         unknown until `a` is made
    unknown  note        notes that it is there  unknown until `a` is made
    unknown  bare        unknown until `a` is made
    ");
    let _ = space.run(["build", "a"]).ok();
    assert_snapshot!(lines(), @"
    run  lay         lays a.txt down in [work]/h  never done here
         --- /dev/null
         +++ h:[work]/h/a
         @@ -0,0 +1 @@
         +1
    run  note        notes that it is there  never done here
    run  bare        true '4355a46b19d3'  never done here
    ");
    let runbook = space.run(["runbook", "e"]).ok().stdout;
    assert!(
        runbook.contains("**note**: notes that it is there"),
        "{runbook}"
    );
    // What is approved is a command.
    let _ = space.run(["e", "--plan-out", "p.json"]).ok();
    let shown = space.run(["approve", "p.json", "--plan"]).ok().stdout;
    assert!(shown.contains("test -e "), "{shown}");
}
