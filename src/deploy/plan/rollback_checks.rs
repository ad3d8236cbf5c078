//! What is asked before the first change of steps that may have to be rolled back: whether their
//! rollback would work, and whether the users that they name are there. Pure.
//!
//! It goes along with the facts, and costs a host one question for all that rel itself
//! rolls back. Only what a step that runs would need can stop a run.

use std::collections::BTreeMap;

use crate::deploy::plan::guards::{CheckKind, FailedCheck, USER};
use crate::deploy::plan::script::as_user;
use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};
use crate::deploy::plan::{HostState, PlannedJob, StepVerdict};
use crate::deploy::protocol::journal::Journal;
use crate::deploy::protocol::program::quote;

/// What speaks against a step before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// What it stops the run as.
    pub stopping: CheckKind,
    /// What the host said.
    pub evidence: String,
}

/// What steps of a host need besides their texts, collected to be asked at once.
#[derive(Clone, Debug, Default)]
pub struct RollbackNeeds {
    /// By number in the script: the step that an answer is about.
    steps: Vec<String>,
    ways_back: String,
    kept: Vec<String>,
    users: String,
    /// Calls that look at the directories that steps write into.
    directories: String,
    /// Commands that came before: who is made there cannot be asked for.
    commands: String,
}

impl RollbackNeeds {
    /// Adds what a step needs; `is_late` says which texts wait for an answer of the host.
    pub fn add(&mut self, draft: &ResolvedStep, is_late: &dyn Fn(&str) -> bool) {
        let number = self.steps.len();
        self.steps.push(draft.id.clone());
        match &draft.act {
            // Nothing would have to be brought back.
            _ if draft.marks.needs_no_undo => {}
            ResolvedAction::Write { path, .. } | ResolvedAction::Symlink { path, .. }
                if !is_late(path) =>
            {
                let word = quote(path);
                self.ways_back
                    .push_str(&format!("rel_back_path b{number} {word}\n"));
                if matches!(draft.act, ResolvedAction::Write { .. }) {
                    self.kept.push(format!("b{number} {word}"));
                }
            }
            ResolvedAction::Service(service) if !is_late(&service.name) => {
                let name = quote(&service.name);
                self.ways_back
                    .push_str(&format!("rel_back_service b{number} {name}\n"));
            }
            _ => {}
        }
        let owner = match &draft.act {
            ResolvedAction::Write { owner, .. } => owner.as_deref(),
            _ => None,
        };
        for (user, group) in [
            draft.user.as_deref().map(|u| (u, "")),
            owner.map(|o| o.split_once(':').unwrap_or((o, ""))),
        ]
        .into_iter()
        .flatten()
        {
            let is_made = [user, group]
                .iter()
                .any(|n| !n.is_empty() && self.commands.contains(*n));
            if !is_made && !is_late(user) && !is_late(group) {
                let words = format!("{} {}", quote(user), quote(group));
                self.users
                    .push_str(&format!("rel_user_there u{number} {words}\n"));
            }
        }
        if let ResolvedAction::Run(text) = &draft.act {
            self.commands.push_str(text);
            self.commands.push('\n');
        }
    }

    /// Adds the directories that a step writes into; for plans, which name those that another user
    /// can change.
    pub fn add_directories(&mut self, draft: &ResolvedStep, root: &str) {
        let number = self.steps.len().saturating_sub(1);
        let who = match (draft.marks.makes.is_some(), draft.marks.into_foreign) {
            (true, _) => "commands",
            (false, true) => "actions 1",
            (false, false) => "actions",
        };
        for dir in draft.writes_into(root) {
            let dir = quote(&dir);
            self.directories
                .push_str(&format!("rel_name_foreign f{number} {dir} {who}\n"));
        }
    }

    /// Returns the one question about all of it.
    pub fn question(&self) -> Option<String> {
        let mut script = format!("{}{}", self.users, self.directories);
        if !self.ways_back.is_empty() {
            let kept: String = self.kept.iter().map(|k| format!(" {k}")).collect();
            script.push_str(&format!(
                "if rel_back_ground; then\n{}rel_back_room{kept}\nfi\n",
                self.ways_back
            ));
        }
        (!script.is_empty()).then_some(script)
    }

    /// Reads lines `b3 WORDS` (the rollback of the step with this number), `u3 WORDS` (a user
    /// that it names) and `f3 WORDS` (a directory where root must not write).
    pub fn read(&self, text: &str) -> BTreeMap<(String, CheckKind), String> {
        let mut found: BTreeMap<(String, CheckKind), String> = BTreeMap::new();
        for line in text.lines() {
            let Some((about, words)) = line.split_once(' ') else {
                continue;
            };
            let Some((stopping, number)) = about.split_at_checked(1) else {
                continue;
            };
            let stopping = match stopping {
                "u" => CheckKind::Guard,
                "b" => CheckKind::WayBack,
                "f" => CheckKind::Foreign,
                _ => continue,
            };
            if let Some(step) = self.step(number) {
                let said = found.entry((step.clone(), stopping)).or_default();
                if !said.is_empty() {
                    said.push('\n');
                }
                said.push_str(words);
            }
        }
        found
    }
}

impl RollbackNeeds {
    /// Returns the directories that a plan names although they stop nothing: lines `n3 WORDS`.
    pub fn named(&self, text: &str) -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let named = lines.filter_map(|(about, words)| {
            let step = self.step(about.strip_prefix('n')?)?;
            Some((step.clone(), words.to_owned()))
        });
        named.collect()
    }

    fn step(&self, number: &str) -> Option<&String> {
        number.parse().ok().and_then(|n: usize| self.steps.get(n))
    }
}

impl HostState {
    /// Keeps what the host says against a step.
    pub(in crate::deploy) fn speaks_against(
        &mut self,
        step: &str,
        stopping: CheckKind,
        evidence: &str,
    ) {
        let all = self.against.entry(step.to_owned()).or_default();
        all.push(Objection {
            stopping,
            evidence: evidence.to_owned(),
        });
    }
}

/// Returns the script that asks whether the rollback of a step would work, as it says itself.
pub fn undo_check(draft: &ResolvedStep, is_late: &dyn Fn(&str) -> bool) -> Option<String> {
    let check = draft.marks.undo_check.as_deref()?;
    let mut script = String::new();
    if let Some(dir) = draft.dir.as_deref().filter(|d| !is_late(d)) {
        // Where it will be made only then, it runs at the root, as the rollback would.
        script.push_str(&format!("cd -- {} 2>/dev/null || :\n", quote(dir)));
    }
    for (name, value) in draft.env.iter().filter(|(_, v)| !is_late(v)) {
        script.push_str(&format!("{name}={}\nexport {name}\n", quote(value)));
    }
    script.push_str(check);
    Some(as_user(draft, &script))
}

/// Returns what stops a run before its first change, of the steps that it would do.
pub fn blocked(jobs: &[PlannedJob], seen: &BTreeMap<String, HostState>) -> Vec<FailedCheck> {
    let mut found = Vec::new();
    for job in jobs {
        for step in job.steps.iter().filter(|s| s.verdict == StepVerdict::Run) {
            let Some(host) = &step.host else { continue };
            let Some(seen) = seen.get(host) else {
                continue;
            };
            for one in seen.against.get(&step.id).into_iter().flatten() {
                if one.stopping == CheckKind::WayBack && !is_whole(&seen.journal) {
                    continue;
                }
                let guard = match one.stopping {
                    CheckKind::Guard => USER,
                    CheckKind::WayBack | CheckKind::Foreign => &step.name,
                };
                let blocked = FailedCheck {
                    host: host.clone(),
                    label: job.label.clone(),
                    guard: guard.to_owned(),
                    stopping: one.stopping,
                    evidence: one.evidence.clone(),
                };
                if !found.contains(&blocked) {
                    found.push(blocked);
                }
            }
        }
    }
    found
}

/// Returns whether the last run on a host came to its end, or was rolled back. Where it was cut off, what
/// there was before it was proven then, and what is there now may be half done: going on fixes it.
fn is_whole(journal: &Journal) -> bool {
    let runs = journal.runs();
    runs.last()
        .is_none_or(|run| run.is_ok || run.is_rolled_back)
}
