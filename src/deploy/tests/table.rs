//! The plan as a table: what a host says -> what runs, and why. No process, no disk.

use super::*;
use crate::deploy::plan::HostState;
use crate::deploy::plan::StepProbe;
use crate::deploy::plan::planner::decide;
use crate::deploy::protocol::journal::Journal;

const RECIPE: &str = r#"recipe "r" {
    param "word" default="w"
    fact "was" "readlink x || true"
    step "a" { run "echo {word}" }
    step "b" on-change="a" { run "echo b {was}" }
    step "c" { symlink "/c" to="{word}" }
    step "d" on-change="b" { check "test -e d"; run "touch d" }
}"#;

const DATED: &str = r#"recipe "r" {
    step "copy" { run "cp x {run-id}" }
    step "link" on-change="copy" { symlink "/latest" to="{run-id}" }
    step "other" { run "true" }
}"#;

struct Table {
    jobs: Vec<UseOnHost>,
    seen: BTreeMap<String, HostState>,
    lines: String,
    clock: u64,
    run: u32,
}

impl Table {
    fn new(recipe: &str) -> Self {
        let recipe =
            Arc::new(crate::deploy::recipe::parser::recipe("r", recipe, 0).expect("parses"));
        let args = recipe.params.iter().map(|p| {
            let text = p.default.clone().unwrap_or_default();
            (
                p.name.clone(),
                crate::deploy::plan::use_on_host::ArgValue::Text(text),
            )
        });
        let job = UseOnHost {
            wave: None,
            label: "u".into(),
            args: args.collect(),
            recipe,
            host: Some("h".into()),
            from: None,
            after: Vec::new(),
            wraps: Vec::new(),
            max_age: None,
            into_foreign: false,
            caller: BTreeMap::new(),
            built_in: BTreeMap::new(),
            missing: None,
            place: Span::default(),
        };
        Self {
            jobs: vec![job],
            seen: BTreeMap::from([("h".into(), HostState::default())]),
            lines: String::new(),
            clock: 1000,
            run: 0,
        }
    }

    fn host(&mut self) -> &mut HostState {
        self.seen.get_mut("h").expect("one")
    }

    fn decide(&mut self) -> Plan {
        let (journal, clock) = (Journal::parse(self.lines.as_bytes()), self.clock);
        let host = self.host();
        (host.journal, host.now) = (journal, clock);
        self.run += 1;
        let now = PlanOptions {
            run_id: &format!("run{}", self.run),
            is_forced: false,
        };
        decide("e", &self.jobs, &self.seen, now).expect("decides")
    }

    fn line(&mut self, event: &str, id: &str, key: &str, detail: &str) {
        let (clock, run) = (self.clock, self.run);
        self.lines.push_str(&format!(
            "1\t{event}\t{clock}\trun{run}\t1\t{id}\t{key}\tme\t{detail}\n"
        ));
    }

    /// Carries a plan out, up to the step `until` (which starts and does not end).
    fn run(&mut self, until: Option<&str>) {
        let plan = self.decide();
        for job in &plan.jobs {
            if job.is_new_attempt {
                let facts = serde_json::to_string(&job.attempt.facts).expect("json");
                self.line("begin", &job.label, &job.attempt.key, &facts);
            }
            for step in job.steps.iter().filter(|s| s.verdict == StepVerdict::Run) {
                self.line("start", &step.id, &step.key, "-");
                if until == Some(step.name.as_str()) {
                    return;
                }
                self.line("done", &step.id, &step.key, "-");
            }
            if job.steps.iter().any(|s| s.verdict == StepVerdict::Run) {
                self.line("end", &job.label, "-", "-");
            }
        }
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        let plan = self.decide();
        let found: Vec<String> = plan
            .jobs
            .iter()
            .flat_map(|j| j.steps.iter().map(move |s| (j, s)))
            .filter(|(_, s)| s.verdict != StepVerdict::Fresh)
            .map(|(j, s)| match s.verdict {
                StepVerdict::Run => format!("{}/{}: {}", j.label, s.name, s.reason),
                other => format!("{}/{}: {other:?} {}", j.label, s.name, s.reason),
            })
            .collect();
        assert_eq!(found, expected);
    }

    fn probe(&mut self, id: &str, check: Option<bool>, found: Option<&str>) {
        let probe = StepProbe {
            check,
            found: found.map(str::to_owned),
            ..StepProbe::default()
        };
        self.host().probes.insert(id.into(), probe);
    }

    fn word(&mut self, word: &str) {
        let bound = crate::deploy::plan::use_on_host::ArgValue::Text(word.into());
        self.jobs[0].args.insert("word".into(), bound);
    }
}

#[test]
fn what_was_done_is_not_done_again() {
    let mut table = Table::new(RECIPE);
    table.check(&[
        "u/a: never done here",
        "u/b: `a` runs",
        "u/c: never done here",
        "u/d: `b` runs",
    ]);
    table.run(None);
    table.check(&[]);
    // A fact is no part of a key.
    let fact = ("u".to_owned(), "was".to_owned());
    table.host().facts.insert(fact, "other".into());
    table.check(&[]);
}

#[test]
fn a_change_runs_what_follows_it() {
    let mut table = Table::new(RECIPE);
    table.run(None);
    table.word("v");
    let changed = "changed since run run1";
    table.check(&[
        &format!("u/a: {changed}"),
        "u/b: `a` runs",
        &format!("u/c: {changed}"),
        "u/d: `b` runs",
    ]);
    // A pending step is not forgotten when its cause has been done already.
    table.run(Some("b"));
    table.check(&[
        "u/b: did not finish last time",
        &format!("u/c: {changed}"),
        "u/d: `b` runs",
    ]);
    table.run(None);
    table.check(&[]);
    // Nor when the run ended before it was started.
    let mut table = Table::new(RECIPE);
    table.run(None);
    table.word("v");
    table.run(Some("c"));
    table.check(&["u/c: did not finish last time", &format!("u/d: {changed}")]);
}

#[test]
fn what_is_found_counts() {
    let mut table = Table::new(RECIPE);
    table.probe("u/c", None, Some("w"));
    table.probe("u/d", Some(true), None);
    // What follows a step that runs is never adopted.
    table.check(&[
        "u/a: never done here",
        "u/b: `a` runs",
        "u/c: Adopt already done",
        "u/d: `b` runs",
    ]);
    table.run(None);
    table.probe("u/c", None, Some(""));
    table.probe("u/d", Some(false), None);
    table.check(&["u/c: never done here", "u/d: its check fails"]);
    table.run(None);
    table.probe("u/c", None, Some("elsewhere"));
    table.probe("u/d", Some(true), None);
    table.check(&["u/c: points to elsewhere"]);
}

#[test]
fn age_counts_by_the_hosts_clock() {
    let mut table = Table::new(RECIPE);
    table.jobs[0].max_age = Some(std::time::Duration::from_secs(3600));
    table.run(None);
    table.clock += 3600;
    table.check(&[]);
    table.clock += 1;
    table.check(&[
        "u/a: older than 1h",
        "u/b: older than 1h",
        "u/c: older than 1h",
        "u/d: older than 1h",
    ]);
    // While the host's clock was wrong; a time service may set it back a little.
    table.run(None);
    table.clock -= 60;
    table.check(&[]);
    table.clock -= 1;
    let later = ["a", "b", "c", "d"].map(|s| format!("u/{s}: recorded at a time in the future"));
    table.check(&later.each_ref().map(String::as_str));
}

#[test]
fn a_use_follows_the_uses_it_comes_after() {
    let mut table = Table::new(RECIPE);
    let mut second = table.jobs[0].clone();
    second.label = "v".into();
    second.after = vec!["u".into()];
    second.args.insert(
        "word".into(),
        crate::deploy::plan::use_on_host::ArgValue::Text("own".into()),
    );
    table.jobs.push(second);
    table.run(None);
    table.check(&[]);
    table.word("new");
    let changed = "changed since run run1";
    table.check(&[
        &format!("u/a: {changed}"),
        "u/b: `a` runs",
        &format!("u/c: {changed}"),
        "u/d: `b` runs",
        "v/a: `u` changes",
        "v/b: `a` runs",
        "v/c: `u` changes",
        "v/d: `b` runs",
    ]);
    // Also when the first was done and the run ended before the second.
    let plan = table.decide();
    for step in &plan.jobs[0].steps {
        table.line("done", &step.id, &step.key, "-");
    }
    let plan = table.decide();
    let runs: Vec<bool> = plan
        .jobs
        .iter()
        .map(|j| j.steps.iter().any(|s| s.verdict == StepVerdict::Run))
        .collect();
    assert_eq!(runs, [false, true]);
}

#[test]
fn a_dated_use_is_made_whole_or_resumed() {
    let mut table = Table::new(DATED);
    table.run(Some("link"));
    table.check(&[
        "u/link: did not finish last time",
        "u/other: never done here",
    ]);
    let plan = table.decide();
    assert_eq!(plan.jobs[0].attempt.run, "run1", "resumed under its name");
    table.run(None);
    table.check(&[]);
    table.probe("u/link", None, Some("run1"));
    table.check(&[]);
    table.probe("u/link", None, Some("by-hand"));
    let whole = "a full copy is made";
    table.check(&[
        &format!("u/copy: {whole}"),
        &format!("u/link: {whole}"),
        &format!("u/other: {whole}"),
    ]);
}

#[test]
fn what_has_not_been_made_is_not_known() {
    let mut table = Table::new(
        "recipe \"r\" {\n param \"x\" type=\"artifact\"\n step \"put\" { put \"{x}\" to=\"/x/{x.id}/\" }\n}",
    );
    let bound = crate::deploy::plan::use_on_host::ArgValue::Artifact("wheel".into(), None);
    table.jobs[0].args.insert("x".into(), bound);
    table.check(&["u/put: Unknown unknown until `wheel` is made"]);
}

#[test]
fn an_attempt_is_resumed_only_for_what_it_was_begun_for() {
    let mut table = Table::new(RECIPE);
    let mut second = Table::new(DATED).jobs.remove(0);
    second.label = "v".into();
    second.after = vec!["u".into()];
    table.jobs.push(second);
    table.run(Some("other"));
    assert_eq!(table.decide().jobs[1].attempt.run, "run1");
    // `run1` may be switched in by now: nothing else may be made under its name.
    table.word("new");
    let plan = table.decide();
    assert!(plan.jobs[1].is_new_attempt);
    assert_ne!(plan.jobs[1].attempt.run, "run1");
}

const DUE: &str = r#"recipe "r" {
    due "cat due"
    step "copy" { run "cp x {run-id}" }
    step "evolve" on-change="copy" { run "evolve {run-id}" }
}"#;

impl Table {
    fn due(&mut self, due: &str) {
        let name = (String::from("u"), String::from("due"));
        self.host().facts.insert(name, due.into());
    }
}

#[test]
fn what_is_due_decides_alone() {
    let mut table = Table::new(DUE);
    table.due("");
    table.check(&[]);
    table.due("! a was applied, and has changed since");
    table.check(&[]);
    assert_eq!(
        table.decide().jobs[0].told,
        ["`u`: a was applied, and has changed since"]
    );
    table.due("d1 a\nd2 b");
    table.check(&["u/copy: due: a b", "u/evolve: due: a b"]);
    table.run(None);
    // Done, and still due: it was lost since, and is done again.
    table.check(&["u/copy: due: a b", "u/evolve: due: a b"]);
    table.due("");
    table.check(&[]);
}

#[test]
fn an_attempt_is_resumed_only_while_the_same_is_due() {
    let mut table = Table::new(DUE);
    table.due("d1 a");
    table.run(Some("evolve"));
    table.check(&["u/evolve: did not finish last time"]);
    table.due("d2 a");
    table.check(&["u/copy: due: a", "u/evolve: due: a"]);
    // It had come to its end when it was cut off.
    table.due("");
    table.check(&[]);
}

#[test]
fn a_scope_that_was_not_left_is_entered_again() {
    let recipe = r#"recipe "r" {
        step "close" { scope "shop" enter="close" leave="open" }
        step "work" on-change="close" { run "work" }
    }"#;
    let mut table = Table::new(recipe);
    table.run(None);
    table.check(&[]);
    table.host().scopes.push("shop".into());
    table.check(&["u/close: was not left last time", "u/work: `close` runs"]);
    assert_eq!(table.decide().owed["h"], ["shop"]);
}

#[test]
fn what_is_found_done_is_done_again_behind_a_use_that_changes() {
    let mut table = Table::new(r#"recipe "r" { step "up" { check "is-up"; run "go-up" } }"#);
    table.probe("u/up", Some(true), None);
    table.check(&["u/up: Adopt already done"]);
    // Stopped by a use before it: that it was up at the time of the question says nothing.
    let mut stop = table.jobs[0].clone();
    let recipe = r#"recipe "stop" { step "down" { run "go-down" } }"#;
    stop.recipe =
        Arc::new(crate::deploy::recipe::parser::recipe("stop", recipe, 0).expect("parses"));
    stop.label = "stop".into();
    table.jobs[0].after.push("stop".into());
    table.jobs.insert(0, stop);
    table.check(&["stop/down: never done here", "u/up: never done here"]);
    table.run(None);
    table.check(&[]);
}

/// One use on three hosts of a rollout, with a gate behind each wave.
fn rollout() -> Table {
    let mut table =
        Table::new(r#"recipe "r" { param "word" default="1"; step "go" { run "go {word}" } }"#);
    let one = table.jobs[0].clone();
    table.jobs.clear();
    for (number, host) in ["h", "i", "j"].into_iter().enumerate() {
        table.seen.insert(host.into(), HostState::default());
        for is_gate in [false, true] {
            let mut job = one.clone();
            job.label = if is_gate { "gate".into() } else { "u".into() };
            job.host = Some(host.into());
            job.args.clear();
            let word = if is_gate { "gate" } else { "1" };
            let bound = crate::deploy::plan::use_on_host::ArgValue::Text(word.into());
            job.args.insert("word".into(), bound);
            job.wave = Some(crate::deploy::plan::waves::Wave {
                rollout: 0,
                // The last host is held back.
                number: if number == 2 { 0 } else { number + 1 },
                of: 2,
                is_gate,
            });
            table.jobs.push(job);
        }
    }
    table
}

#[test]
fn a_gate_is_asked_where_its_wave_changed_and_what_is_held_back_stays() {
    let mut table = rollout();
    table.check(&[
        "u/go: never done here",
        "gate/go: never done here",
        "u/go: never done here",
        "gate/go: never done here",
        "u/go: Held never done here",
        "gate/go: Held never done here",
    ]);
    let plan = table.decide();
    assert_eq!(plan.held_back.iter().collect::<Vec<_>>(), ["j"]);
    assert!(!plan.jobs[0].moves_with(&plan.jobs[2]) && plan.jobs[0].moves_with(&plan.jobs[0]));
}

#[test]
fn what_is_held_back_stays_whatever_is_due_or_guarded() {
    let recipe = r#"recipe "r" {
        guard "full" "df"
        due "ls scripts"
        step "go" { run "go {due}" }
    }"#;
    let mut table = Table::new(recipe);
    let wave = |number| {
        Some(crate::deploy::plan::waves::Wave {
            rollout: 0,
            number,
            of: 1,
            is_gate: false,
        })
    };
    let host = table.host();
    host.facts.insert(("u".into(), "due".into()), "1.py".into());
    let guard = ("u".into(), "full".into());
    host.blocked.insert(guard, "no room".into());
    table.jobs[0].wave = wave(1);
    let plan = table.decide();
    assert_eq!((plan.to_run, plan.blocked.len()), (1, 1));
    table.jobs[0].wave = wave(0);
    let plan = table.decide();
    assert_eq!((plan.to_run, plan.blocked.len()), (0, 0));
    assert_eq!(plan.held_back.len(), 1);
    assert!(!plan.jobs[0].is_new_attempt);
}
