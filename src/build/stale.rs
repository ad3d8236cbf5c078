//! Staleness: is a target fresh, and if not, why.
//!
//! A target is fresh when today's action key equals the recorded one and its outputs
//! (files and product) are still the recorded ones. Asking changes nothing. The questions
//! of `tool`, `probe` and `product` are the only processes started; how often, `stale/probe_cache.rs`
//! says.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rayon::prelude::*;

use crate::build::build_log::{BuildLog, TargetState};
use crate::build::digest::observations::{self, FileObservation};
use crate::build::digest::{Content, ContentKind, FileHasher};
use crate::build::graph::{Command, Graph, Target, TargetId};
use crate::build::key::{OutputState, TargetOutputs};
use crate::build::model::Version;
use crate::build::outputs;
use crate::build::runner::Runner;
use crate::build::snapshot::Unchanged;
use crate::core::error::{Error, Result};
use crate::core::fs::RepoPath;
use crate::core::sync::lock;

mod gather;
mod probe_cache;
mod producers;
mod reason;
mod symlink_targets;

pub use gather::GatheredInputs;
use probe_cache::{Generation, ProbeCache};
pub use reason::{StaleReason, differences};

/// Where a target stands, as far as that can be known without running anything.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing to do; this is what it made, or `None` where only the records were not read.
    Fresh(Option<Arc<TargetOutputs>>),
    /// It must run, or be restored, for these reasons.
    Stale(Vec<StaleReason>),
    /// What it needs is not fresh: it depends on what these make.
    Pending(Vec<TargetId>),
    /// Only a command of the Releasefile could tell, and none may be run; says which.
    Unknown(String),
}

/// The verdicts so far of one survey.
struct Survey<'a> {
    verdicts: Vec<Option<Result<Verdict>>>,
    /// What fresh targets made, where that was asked for.
    made: Vec<OnceLock<Arc<TargetOutputs>>>,
    records: &'a BuildLog,
}

impl Survey<'_> {
    fn is_fresh(&self, id: TargetId) -> bool {
        matches!(self.verdicts[id.index()], Some(Ok(Verdict::Fresh(_))))
    }

    fn is_unknown(&self, id: TargetId) -> bool {
        matches!(self.verdicts[id.index()], Some(Ok(Verdict::Unknown(_))))
    }

    /// Returns what a fresh target made.
    fn made(&self, graph: &Graph, id: TargetId) -> Arc<TargetOutputs> {
        let read = || match &self.verdicts[id.index()] {
            Some(Ok(Verdict::Fresh(Some(made)))) => made.clone(),
            _ => known(graph, id, self.records)
                .and_then(|k| k.record)
                .map(|r| r.made)
                .unwrap_or_default(),
        };
        self.made[id.index()].get_or_init(read).clone()
    }
}

/// Asks about targets of one graph.
pub struct StalenessChecker<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// What is in files.
    pub digests: &'a FileHasher,
    /// Starts the questions.
    pub runner: &'a Runner,
    /// The environment of `rel`.
    pub env: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// Where `{version}` comes from.
    pub version: Option<&'a Version>,
    /// Now, in seconds since 1970.
    pub now_s: u64,
    /// What is known to be unchanged since everything was found fresh.
    pub seen: Option<Unchanged>,
    /// Whether commands may be run to find out. A survey without them leaves targets unknown;
    /// nothing else may be asked then.
    pub may_run: bool,
    answers: ProbeCache,
    /// What groups hand on, and as of when.
    handed_on: Mutex<HashMap<TargetId, (Generation, Arc<TargetOutputs>)>>,
    /// Directories without a link on the way to them.
    plain: Mutex<HashSet<RepoPath>>,
    /// Who makes what; made when a depfile is the first to ask.
    makers: OnceLock<producers::ProducerIndex>,
    /// By which looks targets were found fresh in this run.
    noted: Mutex<Vec<(TargetId, Vec<FileObservation>)>>,
}

/// Targets that one thread asks about before another is woken.
const FEW: usize = 16;

/// Limit on one question: `tool`, `probe`, `product` and the version command.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

impl<'a> StalenessChecker<'a> {
    /// Returns an inspector that has asked nothing yet.
    pub fn new(
        graph: &'a Graph,
        digests: &'a FileHasher,
        runner: &'a Runner,
        env: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
        version: Option<&'a Version>,
        now_s: u64,
    ) -> Self {
        Self {
            graph,
            digests,
            runner,
            env,
            version,
            now_s,
            seen: None,
            may_run: true,
            answers: ProbeCache::new(graph.len()),
            handed_on: Mutex::default(),
            plain: Mutex::default(),
            makers: OnceLock::new(),
            noted: Mutex::default(),
        }
    }

    /// Returns a command that the verdict on `target` takes, in words.
    fn question(&self, target: &Target) -> Option<String> {
        let first = |what: &str, mut commands: std::slice::Iter<'_, Command>| {
            let command = commands.next()?.source();
            Some(format!("its {what} `{command}`"))
        };
        let version = || match self.version {
            Some(Version::Command(command)) if gather::uses_version(target) => {
                Some(format!("the version command `{}`", command.source()))
            }
            _ => None,
        };
        first("tool", target.tools.iter())
            .or_else(|| first("probe", target.probes.iter()))
            .or_else(|| first("product", target.product.as_slice().iter()))
            .or_else(version)
    }

    /// Returns the verdict on each of `order`, in which needs come before their dependents.
    pub fn survey(&self, order: &[TargetId], records: &BuildLog) -> Vec<Result<Verdict>> {
        let mut survey = Survey {
            verdicts: Vec::new(),
            made: Vec::new(),
            records,
        };
        survey.verdicts.resize_with(self.graph.len(), || None);
        survey.made.resize_with(self.graph.len(), OnceLock::new);
        let open = self.settle_unchanged(order, &mut survey);
        for level in self.levels(&open) {
            let ask = |id: &TargetId| (*id, self.verdict(*id, &survey));
            let found: Vec<_> = match level.len() {
                // Not worth waking other threads for.
                ..=FEW => level.iter().map(ask).collect(),
                _ => level.par_iter().with_min_len(FEW).map(ask).collect(),
            };
            for (id, verdict) in found {
                survey.verdicts[id.index()] = Some(verdict);
            }
        }
        let mut take = |id: &TargetId| survey.verdicts[id.index()].take();
        order
            .iter()
            .map(|id| take(id).unwrap_or_else(|| Err(Error::internal("a target was not surveyed"))))
            .collect()
    }

    /// Settles what was seen to be unchanged, with all that it needs, and returns the rest.
    fn settle_unchanged(&self, order: &[TargetId], survey: &mut Survey<'_>) -> Vec<TargetId> {
        let Some(seen) = &self.seen else {
            return order.to_vec();
        };
        let mut open = Vec::new();
        for id in order {
            let needs = self.graph.needs(*id);
            let is_unchanged = seen.is_unchanged(*id)
                && needs
                    .iter()
                    .all(|n| survey.is_fresh(*n) && !seen.is_touched(*n));
            match is_unchanged {
                true => survey.verdicts[id.index()] = Some(Ok(Verdict::Fresh(None))),
                false => open.push(*id),
            }
        }
        open
    }

    /// Takes note that the builder settled a target, by running something or not.
    pub fn settled(&self, id: TargetId, has_run: bool) {
        self.answers.settled(id, has_run, self.graph.needs(id));
    }

    /// Returns the targets that were found fresh by looks that will tell every change, with
    /// these looks.
    pub fn noted(&self) -> Vec<(TargetId, Vec<FileObservation>)> {
        std::mem::take(&mut *lock(&self.noted))
    }

    /// Groups targets so that each level needs only former levels.
    pub fn levels(&self, order: &[TargetId]) -> Vec<Vec<TargetId>> {
        let mut depth = vec![0usize; self.graph.len()];
        let mut levels: Vec<Vec<TargetId>> = Vec::new();
        for id in order {
            let needs = self.graph.needs(*id);
            let at = needs
                .iter()
                .map(|n| depth[n.index()] + 1)
                .max()
                .unwrap_or(0);
            depth[id.index()] = at;
            if levels.len() <= at {
                levels.resize_with(at + 1, Vec::new);
            }
            levels[at].push(*id);
        }
        levels
    }

    fn verdict(&self, id: TargetId, survey: &Survey<'_>) -> Result<Verdict> {
        let needs = self.graph.needs(id).iter().copied();
        let unsettled: Vec<TargetId> = needs.filter(|n| !survey.is_fresh(*n)).collect();
        if let Some(first) = unsettled.first() {
            let open = unsettled.iter().copied();
            let open: Vec<TargetId> = open.filter(|n| !survey.is_unknown(*n)).collect();
            return Ok(match open.is_empty() {
                true => {
                    let name = self.graph.name(*first);
                    Verdict::Unknown(format!("needs `{name}`, which is unknown"))
                }
                false => Verdict::Pending(open),
            });
        }
        if !self.may_run
            && let Some(question) = self.question(self.graph.target(id))
        {
            return Ok(Verdict::Unknown(format!("not asked: {question}")));
        }
        if let Some(seen) = &self.seen
            && seen.is_unchanged(id)
            && !self.graph.needs(id).iter().any(|n| seen.is_touched(*n))
        {
            return Ok(Verdict::Fresh(None));
        }
        if let Some(lost) = self.seen.as_ref().and_then(|seen| seen.missing(id)) {
            let reasons = lost.iter().cloned().map(StaleReason::OutputMissing);
            return Ok(Verdict::Stale(reasons.collect()));
        }
        let (verdict, looks) = observations::recording(|| self.verdict_by_content(id, survey));
        let is_fresh = matches!(verdict, Ok(Verdict::Fresh(_)));
        if is_fresh && !looks.is_racy && self.is_snapshot_eligible(self.graph.target(id)) {
            let mut noted = lock(&self.noted);
            noted.push((id, looks.looks));
        }
        verdict
    }

    fn verdict_by_content(&self, id: TargetId, survey: &Survey<'_>) -> Result<Verdict> {
        let target = self.graph.target(id);
        let gathered = self.gather(id, &|need| Some(survey.made(self.graph, need)))?;
        let known = known(self.graph, id, survey.records);
        let reasons = self.stale_reasons(target, &gathered, known.as_ref())?;
        match (reasons.is_empty(), known.and_then(|k| k.record)) {
            (true, Some(record)) => Ok(Verdict::Fresh(Some(record.made))),
            (true, None) => Ok(Verdict::Fresh(Some(Arc::default()))),
            (false, _) => Ok(Verdict::Stale(reasons)),
        }
    }

    /// Returns whether a verdict on `target` rests on nothing but files, the environment
    /// and the records: not on what a process prints, nor on the time.
    fn is_snapshot_eligible(&self, target: &Target) -> bool {
        let asks = !target.tools.is_empty() || !target.probes.is_empty();
        let is_asked = matches!(self.version, Some(Version::Command(_)));
        !asks
            && target.product.is_none()
            && target.max_age.is_none()
            && !(is_asked && gather::uses_version(target))
    }

    /// Returns why `target` must run; empty when it is fresh.
    pub fn stale_reasons(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        known: Option<&TargetState>,
    ) -> Result<Vec<StaleReason>> {
        if target.run.is_empty() {
            // A group: nothing of its own that could be stale.
            return Ok(Vec::new());
        }
        let mut reasons = Vec::new();
        let record = known.and_then(|k| k.record.as_ref());
        if known.is_some_and(|k| k.is_unfinished) {
            let is_failed = known.is_some_and(|k| k.failed);
            reasons.push(if is_failed {
                StaleReason::Failed
            } else {
                StaleReason::Unfinished
            });
        }
        let Some(record) = record else {
            if reasons.is_empty() {
                reasons.push(StaleReason::NeverBuilt);
            }
            return Ok(reasons);
        };
        if gathered.key(self.graph, target) != record.key {
            reasons.extend(differences(
                &record.fields,
                &gathered.fields(self.graph, target),
            ));
        }
        reasons.extend(self.found_reasons(target, &record.found)?);
        if !reasons.is_empty() {
            return Ok(reasons);
        }
        reasons.extend(self.output_reasons(target, &record.made, known)?);
        if reasons.is_empty()
            && let Some(former) = &record.made.product
        {
            let found = self.product(target, gathered)?;
            if found.as_ref() != Some(former) {
                let new = found.map_or("(none)".into(), |f| text(&f));
                reasons.push(StaleReason::ProductChanged {
                    old: text(former),
                    new,
                });
            }
        }
        reasons.extend(self.too_old(target, record.finished_s));
        Ok(reasons)
    }

    /// Returns the reason not to use a result that was made at a time, if it is too old.
    pub fn too_old(&self, target: &Target, finished_s: u64) -> Option<StaleReason> {
        let max_age = target.max_age?;
        let age = Duration::from_secs(self.now_s.saturating_sub(finished_s));
        // One from the future is of a clock that was set back: its age is unknown.
        let is_too_old = age > max_age || finished_s > self.now_s + 60;
        is_too_old.then_some(StaleReason::TooOld { age, max_age })
    }

    fn output_reasons(
        &self,
        target: &Target,
        made: &TargetOutputs,
        known: Option<&TargetState>,
    ) -> Result<Vec<StaleReason>> {
        let has_within = |path: &RepoPath| known.is_some_and(|known| known.has_within(path));
        let mut reasons = Vec::new();
        let found = outputs::digest_all(target, self.digests)?;
        let find = |states: &[OutputState], path: &RepoPath| {
            states
                .binary_search_by(|s| s.path.cmp(path))
                .ok()
                .map(|i| states[i].content)
        };
        for recorded in &made.outputs {
            match find(&found, &recorded.path) {
                // A directory that is no longer empty.
                None if recorded.content.kind == ContentKind::Directory
                    && has_within(&recorded.path) => {}
                None => reasons.push(StaleReason::OutputMissing(recorded.path.clone())),
                Some(content) if content != recorded.content => {
                    let shown = |c: Content| format!("{} {}", c.kind.word(), c.digest);
                    reasons.push(StaleReason::OutputChanged {
                        path: recorded.path.clone(),
                        old: shown(recorded.content),
                        new: shown(content),
                    });
                }
                Some(_) => {}
            }
        }
        for state in &found {
            if find(&made.outputs, &state.path).is_none() && !has_within(&state.path) {
                reasons.push(StaleReason::OutputAdded(state.path.clone()));
            }
        }
        Ok(reasons)
    }
}

/// Returns what the records say of a target; nothing of a group, which may have had commands when
/// they were written.
pub fn known(graph: &Graph, id: TargetId, records: &BuildLog) -> Option<TargetState> {
    match graph.is_group(id) {
        true => None,
        false => records.known(graph.name(id)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
