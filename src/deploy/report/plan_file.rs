//! Plans that are kept: what they hold, what they rest on, who approved them. Pure.
//!
//! A saved plan names the run that will carry it out, so that the same question asked again
//! gives the same keys: whatever differs then has moved. Its digest is over everything
//! but the approvals, which are bound to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::model::Environment;
use crate::core::error::{Error, Result, plural};
use crate::core::escape;
use crate::deploy::plan::guards::Overrides;
use crate::deploy::plan::promotion::Promoted;
use crate::deploy::plan::use_on_host::ResolvedStep;
use crate::deploy::plan::{HostState, Plan};
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::program::quote;
use crate::deploy::protocol::words::{hex, push_field};
use crate::deploy::report::plan_changes;

/// First words of a saved plan; one of another version is not read.
pub const FORMAT: &str = "rel plan 2";
/// Lines that an error lists of what has moved.
const MOVED_MAX: usize = 20;

/// A plan with everything that decided it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Version of the format.
    pub format: String,
    /// SHA-256 of `body`.
    pub digest: String,
    /// The plan itself.
    pub body: PlanContents,
    /// Who approved this digest.
    pub approvals: Vec<Approval>,
}

/// Everything that decides what is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanContents {
    /// Name of the project.
    pub project: String,
    /// Name of the environment.
    pub environment: String,
    /// Values of its parameters.
    pub params: BTreeMap<String, String>,
    /// `--var`.
    pub vars: BTreeMap<String, String>,
    /// `--hosts`, relative to the repository where it lies in it.
    pub hosts_file: Option<String>,
    /// `rel promote`: which of the hosts that are held back move.
    #[serde(default, skip_serializing_if = "Promoted::is_none")]
    pub promoted: Promoted,
    /// `--force`.
    pub is_forced: bool,
    /// `--confirm`: what its steps destroy may be lost.
    pub is_confirmed: bool,
    /// `--override`: guards that are overridden, and why.
    pub overrides: Overrides,
    /// The project's version.
    pub version: Option<String>,
    /// User who made it.
    pub made_by: String,
    /// When, in seconds since 1970.
    pub made_at: u64,
    /// The run that will carry it out.
    pub run_id: String,
    /// SHA-256 of the Releasefile, what it includes, and the recipes in use, by path.
    pub files: BTreeMap<String, String>,
    /// SHA-256 of the artifacts, by target.
    pub artifacts: BTreeMap<String, String>,
    /// The steps, and what each host said.
    pub plan: Plan,
}

/// Returns whether a text is the name of a run, as [`run_id`](crate::deploy::protocol::words::run_id)
/// makes one.
fn is_run_id(text: &str) -> bool {
    let is_hex = |part: &str| {
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (1..=16).contains(&part.len()) && part.bytes().all(is_digit)
    };
    text.split_once('-')
        .is_some_and(|(second, rest)| is_hex(second) && is_hex(rest))
}

/// One approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// User who gave it.
    pub user: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// Digest of the plan that was read.
    pub digest: String,
    /// Why.
    pub reason: String,
}

/// What is read first.
#[derive(Deserialize)]
struct Head {
    format: String,
}

impl PlanFile {
    /// Returns a plan with its digest and without approvals.
    pub fn new(mut body: PlanContents) -> Result<Self> {
        body.plan = plan_changes::saved_form(&body.plan);
        Ok(Self {
            format: FORMAT.to_owned(),
            digest: digest(&body)?,
            body,
            approvals: Vec::new(),
        })
    }

    /// Returns whether a text is a saved plan of some version, whole or not: it may be replaced.
    pub fn is_one(text: &str) -> bool {
        let head: Option<Head> = serde_json::from_str(text).ok();
        head.is_some_and(|head| head.format.starts_with("rel plan "))
    }

    /// Reads a saved plan; `name` is that of its file.
    ///
    /// # Errors
    /// When its body was changed without its digest, or `rel` writes no such plan.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let no_plan = || {
            Error::usage(format!("`{name}` is not a saved plan"))
                .help("`rel ENVIRONMENT --plan-out FILE` saves one")
        };
        let head: Head = serde_json::from_str(text).map_err(|_| no_plan())?;
        if head.format != FORMAT {
            return Err(no_plan()
                .note("found", column(&head.format))
                .note("expected", FORMAT));
        }
        let saved: Self =
            serde_json::from_str(text).map_err(|e| no_plan().note("says", e.to_string()))?;
        if digest(&saved.body)? != saved.digest {
            return Err(
                Error::usage(format!("`{name}` was changed after it was saved"))
                    .help("save a new plan; approvals hold for the plan that was read"),
            );
        }
        let wrong = |field: String| {
            Err(
                Error::usage(format!("`{name}` is not a plan that `rel` can read"))
                    .note("field", field)
                    .help("ask its maker for a new one"),
            )
        };
        // What the parser passes over, or fills in, cannot hide anything.
        let read: Value = serde_json::from_str(text).map_err(|_| no_plan())?;
        if let Some(field) = plan_changes::field(&read, &plan_changes::value(&saved)?, "") {
            return wrong(field);
        }
        let body = &saved.body;
        let mut plan = plan_changes::saved_form(&body.plan);
        plan.environment.clone_from(&body.environment);
        if let Some(field) = plan_changes::field(
            &plan_changes::value(&body.plan)?,
            &plan_changes::value(&plan)?,
            "",
        ) {
            return wrong(format!("body.plan.{field}"));
        }
        // It becomes part of paths on hosts.
        if !is_run_id(&body.run_id) {
            return wrong(String::from("body.run_id"));
        }
        Ok(saved)
    }

    /// Returns it as text: JSON, for people and machines.
    pub fn text(&self) -> Result<String> {
        match serde_json::to_string_pretty(self) {
            Ok(text) => Ok(escape::json(&(text + "\n")).into_owned()),
            Err(e) => Err(Error::internal(format!("cannot write JSON: {e}"))),
        }
    }

    /// Returns the lines that tell a host's journal which plan was carried out and who
    /// approved it.
    pub fn journal_lines(&self) -> String {
        let digest = &self.digest[..self.digest.len().min(32)];
        let mut text = format!("rel_journal plan - - {} -\n", quote(digest));
        for one in self.valid() {
            text.push_str(&format!(
                "rel_journal approved - {} {} {}\n",
                quote(&column(&one.user)),
                quote(digest),
                quote(&column(&one.reason))
            ));
        }
        text
    }

    /// Returns the approvals that count: of this digest, by another user, one a user.
    fn valid(&self) -> Vec<&Approval> {
        let mut users = BTreeSet::new();
        self.approvals
            .iter()
            .filter(|a| a.digest == self.digest && a.user != self.body.made_by)
            .filter(|a| users.insert(&a.user))
            .collect()
    }

    /// Returns whether a user has confirmed, for this very plan, that what it destroys may be lost:
    /// its maker, or a person who read and approved it.
    pub fn is_confirmed(&self) -> bool {
        self.body.is_confirmed || !self.valid().is_empty()
    }

    /// Checks whether `user` may approve it.
    ///
    /// # Errors
    /// When that is its maker, or a user whose approval does not count.
    pub fn may_approve(&self, environment: &Environment, user: &str) -> Result<()> {
        if user == self.body.made_by {
            return Err(Error::usage(format!(
                "`{user}` made this plan: another user must approve it"
            )));
        }
        if let Some(rule) = &environment.approval
            && !rule.by.is_empty()
            && !rule.by.iter().any(|by| by == user)
        {
            return Err(Error::usage(format!(
                "`{user}` may not approve plans of `{}`",
                environment.name
            ))
            .note("may", rule.by.join(" ")));
        }
        Ok(())
    }

    /// Adds an approval.
    ///
    /// # Errors
    /// As [`may_approve`](Self::may_approve).
    pub fn approve(
        &mut self,
        environment: &Environment,
        user: String,
        time: u64,
        reason: &str,
    ) -> Result<()> {
        self.may_approve(environment, &user)?;
        self.approvals.retain(|a| a.user != user);
        self.approvals.push(Approval {
            user,
            time,
            digest: self.digest.clone(),
            reason: reason.to_owned(),
        });
        Ok(())
    }

    /// Compares what it rests on on this machine with `now`; an error says what moved.
    pub fn check_inputs(&self, now: &PlanContents) -> Result<()> {
        let mut moved = Vec::new();
        compare(&self.body.files, &now.files, &mut |file, change| {
            moved.push((file.to_owned(), change.to_owned()));
        });
        compare(
            &self.body.artifacts,
            &now.artifacts,
            &mut |target, change| {
                moved.push((format!("artifact `{target}`"), change.to_owned()));
            },
        );
        self.refuse(moved)
    }

    /// Compares it with what the hosts say now; an error says what moved, host by host.
    pub fn check_unchanged(&self, now: &Plan, seen: &BTreeMap<String, HostState>) -> Result<()> {
        self.refuse(plan_changes::changes(&self.body.plan, now, seen))
    }

    fn refuse(&self, moved: Vec<(String, String)>) -> Result<()> {
        if moved.is_empty() {
            return Ok(());
        }
        let environment = &self.body.environment;
        let mut error = Error::host(format!(
            "the state has changed since this plan of `{environment}` was made"
        ));
        let more = moved.len().saturating_sub(MOVED_MAX);
        for (whose, what) in moved.into_iter().take(MOVED_MAX) {
            error = error.note(whose, what);
        }
        if more > 0 {
            error = error.note("and", format!("{more} more"));
        }
        Err(error.help("nothing was done; save a new plan with `--plan-out`"))
    }
}

/// Returns an error when an environment takes approved plans only, and this is none.
pub fn is_allowed(environment: &Environment, saved: Option<&PlanFile>) -> Result<()> {
    let Some(rule) = &environment.approval else {
        return Ok(());
    };
    let name = &environment.name;
    let may = match rule.by.is_empty() {
        true => String::from("any user but its maker"),
        false => rule.by.join(" "),
    };
    let Some(saved) = saved else {
        return Err(
            Error::usage(format!("`{name}` is changed by an approved plan only"))
                .note("approved by", may)
                .help(format!(
                    "save one: `rel {name} … --plan-out plan.json`; another user: `rel approve \
                     plan.json --reason …`; then `rel apply plan.json`"
                )),
        );
    };
    let is_one = |user: &str| rule.by.is_empty() || rule.by.iter().any(|b| b == user);
    let users: Vec<&str> = saved
        .valid()
        .iter()
        .map(|a| a.user.as_str())
        .filter(|u| is_one(u))
        .collect();
    if users.len() >= rule.count {
        return Ok(());
    }
    let given = match users.is_empty() {
        true => String::from("no user"),
        false => users.join(" "),
    };
    Err(Error::usage(format!(
        "`{name}` takes plans with {} {}, and this one has {}",
        rule.count,
        plural(rule.count, "approval"),
        users.len()
    ))
    .note("made by", saved.body.made_by.clone())
    .note("approved by", given)
    .note("may approve", may)
    .help("`rel approve FILE --reason …`, by another person"))
}

/// Returns when and for whom a plan was carried out, if it was.
///
/// # Errors
/// When it was begun and did not end, or was rolled back since.
pub fn applied_before(
    saved: &PlanFile,
    seen: &BTreeMap<String, HostState>,
) -> Result<Option<(u64, String)>> {
    let run = &saved.body.run_id;
    let lines = || seen.values().flat_map(|s| s.journal.recent());
    let is_back = |event: &str| event == "rolled-back" || event == "gone-back";
    let name = &saved.body.environment;
    if let Some(line) = lines().find(|l| is_back(&l.event) && l.key == *run) {
        return Err(Error::host(format!(
            "this plan of `{name}` was carried out and rolled back"
        ))
        .note("who", line.who.clone())
        .help("save a new plan with `--plan-out`"));
    }
    // A host that has a line of the run also has its end, if it came to one there. Where the
    // journal was shortened since, it is not known.
    let mut last = None;
    let is_known = lines().any(|l| l.run == *run);
    let touched = saved.body.plan.touched();
    for (host, seen) in seen {
        let mut lines = seen.journal.recent().iter().filter(|l| l.run == *run);
        let Some(first) = lines.next() else {
            if is_known && seen.journal.is_shortened && touched.contains(&host.as_str()) {
                return Err(Error::host(format!(
                    "this plan of `{name}` is too old: how it ended is not known on all hosts"
                ))
                .help("save a new plan with `--plan-out`"));
            }
            continue;
        };
        last = Some(lines.find(|l| l.event == "ok").ok_or(first));
        if matches!(last, Some(Err(_))) {
            break;
        }
    }
    match last {
        None => Ok(None),
        Some(Ok(line)) => Ok(Some((line.time, line.who.clone()))),
        Some(Err(line)) => Err(Error::host(format!(
            "this plan of `{name}` was started and did not finish"
        ))
        .note("who", line.who.clone())
        .help("the next run continues where it stopped: plan again")),
    }
}

impl ResolvedStep {
    /// Returns a digest of everything that is sent for it: another one does something else.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        if let Some(check) = &self.check {
            push_field(&mut text, "check", check);
        }
        if let Some((undo, _)) = &self.undo {
            push_field(&mut text, "undo", undo);
        }
        if let Some(check) = &self.marks.rollback_check {
            push_field(&mut text, "rollback-check", check);
        }
        for (name, value) in self.key_fields() {
            push_field(&mut text, name, &value);
        }
        hex(text.as_bytes())[..32].to_owned()
    }
}

fn digest(body: &PlanContents) -> Result<String> {
    match serde_json::to_string(body) {
        Ok(text) => Ok(hex(text.as_bytes())),
        Err(e) => Err(Error::internal(format!("cannot write JSON: {e}"))),
    }
}

fn compare(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    told: &mut dyn FnMut(&str, &str),
) {
    for (name, digest) in old {
        match new.get(name) {
            None => told(name, "no longer exists"),
            Some(found) if found != digest => told(name, "differs"),
            Some(_) => {}
        }
    }
    for name in new.keys().filter(|n| !old.contains_key(*n)) {
        told(name, "is new");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::model::ApprovalRule;
    use crate::core::diagnostics::Span;
    use crate::deploy::protocol::journal::Journal;

    fn environment(by: &[&str], count: usize) -> Environment {
        let by = by.iter().map(|b| (*b).to_owned()).collect();
        Environment {
            name: "production".into(),
            approval: Some(ApprovalRule {
                by,
                count,
                place: Span::default(),
            }),
            ..Environment::default()
        }
    }

    fn plan() -> PlanFile {
        let body = PlanContents {
            made_by: "ann".into(),
            run_id: "a-1".into(),
            ..PlanContents::default()
        };
        PlanFile::new(body).expect("one")
    }

    #[test]
    fn approvals_count_once_a_user_and_for_this_plan_only() {
        let check = |by: &[&str], count: usize, users: &[&str], expected: bool| {
            let rule = environment(by, count);
            let mut saved = plan();
            for user in users {
                let (user, digest) = match user.strip_prefix("other-plan:") {
                    Some(user) => (user, "0".repeat(64)),
                    None => (*user, saved.digest.clone()),
                };
                saved.approvals.push(Approval {
                    user: user.to_owned(),
                    time: 1,
                    digest,
                    reason: "read".into(),
                });
            }
            let found = is_allowed(&rule, Some(&saved)).is_ok();
            assert_eq!(found, expected, "{by:?} {count} {users:?}");
        };
        check(&[], 1, &[], false);
        check(&[], 1, &["bob"], true);
        check(&[], 1, &["ann"], false);
        check(&[], 1, &["other-plan:bob"], false);
        check(&[], 2, &["bob", "bob"], false);
        check(&[], 2, &["bob", "eve"], true);
        check(&["bob"], 1, &["eve"], false);
        check(&["bob", "eve"], 2, &["eve", "zoe"], false);
        check(&["bob", "eve"], 2, &["eve", "zoe", "bob"], true);
        assert!(is_allowed(&environment(&[], 1), None).is_err());
    }

    #[test]
    fn a_plan_is_carried_out_once() {
        let check = |hosts: &[&[&str]], expected: &str| {
            let seen = hosts.iter().enumerate().map(|(i, lines)| {
                let line = |l: &&str| {
                    let c: Vec<&str> = l.split(' ').collect();
                    let key = c.get(2).unwrap_or(&"-");
                    format!("1\t{}\t7\t{}\t-\t-\t{key}\tme\t-\n", c[0], c[1])
                };
                let text: String = lines.iter().map(line).collect();
                let journal = Journal::parse(text.as_bytes());
                let seen = HostState {
                    journal,
                    ..HostState::default()
                };
                (format!("h{i}"), seen)
            });
            let found = match applied_before(&plan(), &seen.collect()) {
                Ok(None) => String::from("not yet"),
                Ok(Some((time, who))) => format!("at {time} by {who}"),
                Err(error) => error.message.replace("this plan of `` was ", ""),
            };
            assert_eq!(found, expected, "{hosts:?}");
        };
        check(&[&[], &["ok a-0"]], "not yet");
        let whole: &[&str] = &["plan a-1", "ok a-1"];
        check(&[whole, whole, &[]], "at 7 by me");
        let open = "started and did not finish";
        check(&[whole, &["plan a-1"]], open);
        check(&[&["plan a-1"], whole], open);
        let back = "carried out and rolled back";
        check(&[&["plan a-1", "ok a-1", "rolled-back a-2 a-1"]], back);
    }

    #[test]
    fn a_plan_whose_end_a_host_has_forgotten_is_refused() {
        let line = |event: &str| format!("1\t{event}\t8\ta-1\t-\t-\t-\tme\t-\n");
        let whole = line("plan") + &line("ok");
        let short = "1\tshortened\t8\ta-2\t-\t-\t900\tme\t0\n";
        let mut seen = BTreeMap::new();
        for (host, text) in [("h0", whole.as_str()), ("h1", short)] {
            let known: &mut HostState = seen.entry(host.to_owned()).or_default();
            known.journal = Journal::parse(text.as_bytes());
        }
        let mut saved = plan();
        let mut ends = |host: &str| {
            let step = format!(
                r#"{{"name":"","id":"","host":"{host}","verdict":"run","reason":"","what":"","key":"","does":"","seq":1}}"#
            );
            let job = format!(r#"{{"label":"u","recipe":"u","host":"{host}","steps":[{step}]}}"#);
            let job = serde_json::from_str(&job).expect("a job");
            saved.body.plan.jobs.push(job);
            applied_before(&saved, &seen)
        };
        assert!(ends("h0").expect("knows").is_some());
        let error = ends("h1").expect_err("one has forgotten");
        assert!(error.message.contains("is too old"), "{}", error.message);
    }

    #[test]
    fn a_file_is_read_back_as_it_was_and_only_so() {
        let saved = plan();
        let text = saved.text().expect("text");
        assert_eq!(
            PlanFile::parse("f", &text).expect("reads").digest,
            saved.digest
        );
        for bad in [
            text.replace("\"ann\"", "\"eve\""),
            text.replace("rel plan 2", "rel plan 1"),
            text.replace("\"approvals\"", "\"more\": 1, \"approvals\""),
            text[..text.len() / 2].to_owned(),
        ] {
            assert!(PlanFile::parse("f", &bad).is_err(), "{bad}");
        }
    }
}
