//! What `--rollback` would do, and what speaks against it, as hosts tell it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::core::error::{Error, Result};
use crate::deploy::plan::guards::FailedCheck;
use crate::deploy::plan::job_place::WaveName;

/// The parts of a rollback, by host and step: which one it is, and the name of its wave.
pub type Parts<'a> = BTreeMap<(&'a str, &'a str), (usize, Option<&'a WaveName>)>;

/// What becomes of a mode.
const MODE: &str = "entered again during the rollback, then left";

/// What a directory is where a file or a link is to come back.
const IN_THE_WAY: &str = "in the way";

/// What becomes of one thing during the rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RollbackChange {
    /// Where.
    pub host: String,
    /// The step whose rollback it is, as journals name it.
    pub step: String,
    /// Of which kind the thing is.
    pub kind: RollbackChangeKind,
    /// The path of a link or file, or the service.
    pub what: String,
    /// What is there now; a file is reported by its SHA-256.
    pub from: String,
    /// What will be there.
    pub to: String,
    /// The wave of a rollout in which the host is rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

/// What a rollback brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RollbackChangeKind {
    /// A symbolic link.
    Link,
    /// A file.
    File,
    /// A command that stays.
    Service,
    /// What the recipe's own `undo` does: nothing more is known of it.
    Command,
    /// A mode, which is entered again for as long as the rest is rolled back.
    Scope,
}

impl RollbackChangeKind {
    /// Returns whether nothing is known of it but that it is done.
    pub fn has_no_state(self) -> bool {
        matches!(self, Self::Command | Self::Scope)
    }
}

/// Something that is not as the last run left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Differs {
    /// Where.
    pub host: String,
    /// The path, or the service.
    pub what: String,
    /// What is there now.
    pub found: String,
    /// What the run left there.
    pub left: String,
    /// It was changed before a later attempt at the same release, which found it so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_between: bool,
}

/// Something that a rollback needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Where.
    pub host: String,
    /// What is missing, in words.
    pub text: String,
    /// Only a link would lead to nothing: `--force` goes on.
    pub may_be_forced: bool,
    /// A directory stands in its place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_in_the_way: bool,
}

/// A release that a rollback leads to, and that is not as it was installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edited {
    /// Where.
    pub host: String,
    /// Its directory.
    pub path: String,
    /// What was changed, removed and added, in words.
    pub edits: String,
}

/// A rollback that would lose something, as its step says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Where.
    pub host: String,
    /// The step whose rollback it is, as journals name it.
    pub step: String,
    /// What its `rollback-check` printed.
    pub text: String,
}

/// What `--rollback` would do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RollbackPlan {
    /// The environment.
    pub environment: String,
    /// The runs that are rolled back, oldest first.
    pub runs: Vec<String>,
    /// How many steps have a rollback.
    pub steps: usize,
    /// In the order in which it is done.
    pub changes: Vec<RollbackChange>,
    /// Guards that do not succeed.
    pub blocked: Vec<FailedCheck>,
    /// What was changed afterwards.
    pub differs: Vec<Differs>,
    /// What no longer exists.
    pub missing: Vec<Missing>,
    /// What was edited since it was live.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edited: Vec<Edited>,
    /// What would be lost.
    pub refused: Vec<Refused>,
    /// Uses that stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl RollbackPlan {
    /// Adds what one host said of the steps that are rolled back there, the first one first. `step` knows
    /// their names, by run and position; `waits` says whether what starts again does so with
    /// services that restart.
    pub fn add(
        &mut self,
        host: &str,
        lines: &[String],
        step: &dyn Fn(&str, u32) -> Option<String>,
        waits: bool,
    ) {
        let (mut late, mut last) = (Vec::new(), Vec::new());
        for line in lines {
            let columns: Vec<&str> = line.split('\t').collect();
            let [kind, run, at, what, rest @ ..] = columns.as_slice() else {
                continue;
            };
            let (number, when) = at.split_once('.').unwrap_or((at, ""));
            let number = number.parse().unwrap_or(0);
            let get = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
            let step = || step(run, number).unwrap_or_default();
            let kind = match *kind {
                "link" => RollbackChangeKind::Link,
                "file" => RollbackChangeKind::File,
                "service" => RollbackChangeKind::Service,
                "command" => RollbackChangeKind::Command,
                "scope" => RollbackChangeKind::Scope,
                _ => {
                    self.note(host, kind, &step, what, rest);
                    continue;
                }
            };
            let change = RollbackChange {
                host: host.to_owned(),
                step: step(),
                kind,
                what: (*what).to_owned(),
                from: get(0),
                to: get(1),
                wave: None,
            };
            match when {
                "last" => last.push(change),
                "late" => late.push(change),
                "start" if waits => late.push(change),
                _ => self.changes.push(change),
            }
        }
        // They are run in the order of the steps, when all else was rolled back.
        self.changes.extend(late.into_iter().rev());
        self.changes.extend(last.into_iter().rev());
        self.join();
    }

    /// Orders the changes as they are done, by the part to which each step belongs.
    pub fn order(&mut self, parts: &Parts<'_>) {
        let part_of = |change: &RollbackChange| {
            let part = parts.get(&(&change.host, &change.step));
            part.copied().unwrap_or_default()
        };
        for change in &mut self.changes {
            let (_, wave) = part_of(change);
            change.wave = wave.map(WaveName::to_string);
        }
        self.changes.sort_by_key(|change| part_of(change).0);
        self.tell_modes();
    }

    /// A scope is entered again only where the rest of its use has nothing that is rolled back.
    fn tell_modes(&mut self) {
        let use_of =
            |change: &RollbackChange| (change.host.clone(), label_of(&change.step).to_owned());
        let others = self
            .changes
            .iter()
            .filter(|c| c.kind != RollbackChangeKind::Scope);
        let others: BTreeSet<_> = others.map(use_of).collect();
        for change in self
            .changes
            .iter_mut()
            .filter(|c| c.kind == RollbackChangeKind::Scope)
        {
            match others.contains(&use_of(change)) {
                true => change.kind = RollbackChangeKind::Command,
                false => change.what = String::from(MODE),
            }
        }
    }

    /// Notes a line that is no change; one of another kind claims nothing.
    fn note(
        &mut self,
        host: &str,
        kind: &str,
        step: &dyn Fn() -> String,
        what: &str,
        rest: &[&str],
    ) {
        let host = host.to_owned();
        let what = what.to_owned();
        let get = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        match kind {
            "step" => self.steps += 1,
            "missing" | "nowhere" | "directory" => self.missing.push(Missing {
                host,
                text: what,
                may_be_forced: kind == "nowhere",
                is_in_the_way: kind == "directory",
            }),
            "edited" => self.edited.push(Edited {
                host,
                path: what,
                edits: get(0),
            }),
            "refused" => self.refused.push(Refused {
                host,
                step: step(),
                text: what,
            }),
            "differs" | "between" => self.differs.push(Differs {
                host,
                what,
                found: get(0),
                left: get(1),
                is_between: kind == "between",
            }),
            _ => {}
        }
    }

    /// What several runs changed is reported once: as it is now, and as it will be in the end.
    fn join(&mut self) {
        let mut first: BTreeMap<(String, String), String> = BTreeMap::new();
        let mut last: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (at, change) in self.changes.iter().enumerate() {
            if change.kind.has_no_state() {
                continue;
            }
            let key = (change.host.clone(), change.what.clone());
            first.entry(key.clone()).or_insert(change.from.clone());
            last.insert(key, at);
        }
        let changes = std::mem::take(&mut self.changes).into_iter().enumerate();
        for (at, mut change) in changes {
            let key = (change.host.clone(), change.what.clone());
            match last.get(&key) {
                Some(last) if !change.kind.has_no_state() && *last != at => continue,
                Some(_) if !change.kind.has_no_state() => {
                    change.from = first.get(&key).cloned().unwrap_or(change.from);
                }
                _ => {}
            }
            self.changes.push(change);
        }
    }

    /// Returns the hosts on which something would be rolled back, by name.
    pub fn hosts(&self) -> Vec<String> {
        let hosts = self.changes.iter().map(|change| change.host.clone());
        hosts.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Returns whether the runs left anything to be rolled back by, or should have.
    pub fn is_something(&self) -> bool {
        self.steps > 0 || !self.missing.is_empty()
    }

    /// Stops a rollback before its first change: something would be lost; or what it needs is
    /// missing, or is not as it was left, which `is_forced` goes over.
    pub fn check(&self, is_forced: bool) -> Result<()> {
        if let Some(first) = self.refused.first() {
            return Err(self.would_lose(first));
        }
        let missing = self.missing.iter();
        let missing = missing.filter(|m| !(is_forced && m.may_be_forced));
        let missing: Vec<(&str, &str, String)> = missing
            .map(|m| (m.word(), m.host.as_str(), m.text.clone()))
            .collect();
        let is_in_the_way =
            !missing.is_empty() && missing.iter().all(|(word, ..)| *word == IN_THE_WAY);
        let differs = self.differs.iter().filter(|_| !is_forced);
        let differs = differs.map(|d| ("differs", d.host.as_str(), d.line()));
        let edited = self.edited.iter().filter(|_| !is_forced);
        let edited = edited.map(|e| ("edited", e.host.as_str(), e.line()));
        let is_missing = !missing.is_empty();
        let mut by_host: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for (name, host, text) in missing.into_iter().chain(differs).chain(edited) {
            by_host.entry((host, name)).or_default().push(text);
        }
        let Some((first, _)) = by_host.first_key_value().map(|((host, _), _)| (*host, ())) else {
            return Ok(());
        };
        let name = &self.environment;
        let mut error = Error::host(format!("`{name}` cannot be rolled back on host `{first}`"));
        for ((host, name), texts) in by_host {
            let fact = match host == first {
                true => name.to_owned(),
                false => format!("{name} on {host}"),
            };
            error = error.note(fact, texts.join("\n"));
        }
        Err(error.help(match is_missing {
            true if is_in_the_way => {
                "nothing was changed; move it away, and run the same command again"
            }
            true => {
                "nothing was changed; restore it there, or release the former version again; if only a link would dangle, `--rollback --force` rolls back anyway"
            }
            false => {
                "nothing was changed; find out who changed it; to roll back anyway: `--rollback --force` (the current content of a file is then kept beside it)"
            }
        }))
    }
}

/// Returns whether a service restarts, by what hosts said of the steps that are rolled back.
pub fn waits<'a>(mut lines: impl Iterator<Item = &'a String>) -> bool {
    lines.any(|line| {
        let at = line.split('\t').nth(2);
        at.is_some_and(|at| at.ends_with(".late"))
    })
}

impl RollbackPlan {
    fn would_lose(&self, first: &Refused) -> Box<Error> {
        let name = &self.environment;
        let mut error = Error::host(format!(
            "`{name}` cannot be rolled back on host `{}` without a loss",
            first.host
        ));
        for refused in &self.refused {
            error = error.note(
                format!("{} on {}", refused.step, refused.host),
                &refused.text,
            );
        }
        let label = |refused: &Refused| label_of(&refused.step).to_owned();
        let labels: BTreeSet<String> = self.refused.iter().map(label).collect();
        let except: String = labels.iter().map(|l| format!(" --except {l}")).collect();
        error.help(format!(
            "nothing was changed; to roll back everything else, and leave that as it is: \
             `--rollback{except}`; the older release must then work with it"
        ))
    }
}

/// Returns the use that a step belongs to, by its name in journals.
pub fn label_of(step: &str) -> &str {
    step.split('/').next().unwrap_or(step)
}

impl Missing {
    /// Returns what it is called in errors.
    fn word(&self) -> &'static str {
        match self.is_in_the_way {
            true => IN_THE_WAY,
            false => "missing",
        }
    }
}

impl Edited {
    /// Returns one line with its first edits.
    pub fn line(&self) -> String {
        format!("{} is not as it was installed: {}", self.path, self.edits)
    }
}

impl Differs {
    /// Returns one line with both values.
    pub fn line(&self) -> String {
        let (found, left) = (short(&self.found), short(&self.left));
        let what = &self.what;
        match self.is_between {
            true => format!(
                "{what} was `{found}` when the release was resumed; the attempt before left \
                 `{left}`"
            ),
            false => format!("{what} is now `{found}`; the last run left `{left}`"),
        }
    }
}

/// Returns a digest by its first digits, and anything else as it is.
pub fn short(text: &str) -> &str {
    let is_digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match is_digest {
        true => &text[..12],
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(lines: &[&str]) -> RollbackPlan {
        let mut plan = RollbackPlan {
            environment: "e".into(),
            ..RollbackPlan::default()
        };
        let lines: Vec<String> = lines.iter().map(|l| l.replace(' ', "\t")).collect();
        let waits = waits(lines.iter());
        plan.add("h", &lines, &|run, seq| Some(format!("{run}/{seq}")), waits);
        plan
    }

    fn told(plan: &RollbackPlan) -> Vec<String> {
        let line = |c: &RollbackChange| format!("{} {} {} {}", c.step, c.what, c.from, c.to);
        plan.changes.iter().map(line).collect()
    }

    #[test]
    fn what_waits_comes_last_and_in_order() {
        let found = plan(&[
            "step b 3.late -",
            "service b 3.late x running before",
            "step b 2 -",
            "link b 2 /l v2 v1",
            "step b 1.late -",
            "service b 1.late y running before",
        ]);
        assert_eq!(found.steps, 3);
        assert_eq!(
            told(&found),
            [
                "b/2 /l v2 v1",
                "b/1 y running before",
                "b/3 x running before"
            ]
        );
        assert!(found.is_something() && found.check(false).is_ok());
    }

    #[test]
    fn what_starts_again_waits_only_for_services_that_restart() {
        let started = "service b 2.start app stopped running";
        let found = plan(&[started, "link b 1 /l v2 v1"]);
        assert_eq!(told(&found), ["b/2 app stopped running", "b/1 /l v2 v1"]);
        let found = plan(&[
            started,
            "link b 1 /l v2 v1",
            "service b 0.late db running before",
        ]);
        assert_eq!(
            told(&found),
            [
                "b/1 /l v2 v1",
                "b/0 db running before",
                "b/2 app stopped running"
            ]
        );
    }

    #[test]
    fn changes_are_in_the_order_of_the_waves_and_modes_are_told() {
        let mut found = plan(&[
            "scope c 2 leaves what it entered",
            "link b 1 /l v2 v1",
            "scope b 3 leaves what it entered",
        ]);
        let wave = WaveName {
            number: 2,
            of: 3,
            rollout: "r".into(),
        };
        found.order(&Parts::from([
            (("h", "b/1"), (0, Some(&wave))),
            (("h", "b/3"), (0, Some(&wave))),
            (("h", "c/2"), (1, None)),
        ]));
        let shown = found
            .changes
            .iter()
            .map(|c| (c.step.as_str(), c.kind, c.wave.as_deref()));
        let wave = Some("wave 2 of 3 of `r`");
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                ("b/1", RollbackChangeKind::Link, wave),
                // Its use does more: the scope is a part of that.
                ("b/3", RollbackChangeKind::Command, wave),
                ("c/2", RollbackChangeKind::Scope, None),
            ]
        );
        assert_eq!(found.changes[2].what, MODE);
    }

    #[test]
    fn what_several_runs_changed_is_told_once() {
        let found = plan(&["link c 1 /l v3 v2", "command c 1 undo", "link b 1 /l v3 v1"]);
        assert_eq!(told(&found), ["c/1 undo  ", "b/1 /l v3 v1"]);
    }

    #[test]
    fn what_somebody_else_changed_stops_it_unless_forced() {
        let found = plan(&["differs b 1 /l v3 v2", "nowhere b 2 gone"]);
        let error = found.check(false).expect_err("stops");
        assert_eq!(
            error.facts,
            [
                (
                    "differs".into(),
                    "/l is now `v3`; the last run left `v2`".into()
                ),
                ("missing".into(), String::from("gone"))
            ]
        );
        assert!(found.check(true).is_ok());
        let between = plan(&["between b 1 /l v3 v2"]);
        let error = between.check(false).expect_err("stops");
        let said = "/l was `v3` when the release was resumed; the attempt before left `v2`";
        assert_eq!(error.facts, [("differs".into(), said.into())]);
        assert!(between.check(true).is_ok());
        let gone = plan(&["missing b 1 gone"]);
        assert!(gone.check(true).is_err());
        // A line that was cut off, or that is of a later host, claims nothing.
        assert!(!plan(&["link", "other b 1 x y z", ""]).is_something());
    }
}
