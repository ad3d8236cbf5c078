//! Staleness: is a target fresh, and if not, why.
//!
//! A target is fresh when today's action key equals the recorded one and its outputs
//! (files and product) are still the recorded ones. Asking changes nothing. The questions
//! of `tool`, `probe` and `product` are the only processes started, each at most once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use crate::command::{self, Late};
use crate::digest::{Content, Digest, Digests, Kind};
use crate::error::{Error, Result};
use crate::fs::RepoPath;
use crate::glob;
use crate::graph::{Command, EnvValue, Graph, Target, TargetId};
use crate::key::{ActionKey, ExplainKey, Field, FieldKind, HashKey, Made, OutputState, Parts};
use crate::model::Version;
use crate::outputs;
use crate::records::{Known, Records};
use crate::runner::{Runner, Spec, command_env};

/// Why a target is not fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaleReason {
    /// It never ran to a success here.
    NeverBuilt,
    /// Its last run failed.
    Failed,
    /// Its last run was cut short, or its inputs changed while it ran.
    Unfinished,
    /// A field of its key has another value.
    Changed {
        kind: FieldKind,
        name: String,
        old: String,
        new: String,
    },
    /// A field of its key is new.
    Added {
        kind: FieldKind,
        name: String,
        new: String,
    },
    /// A field of its key is gone.
    Removed {
        kind: FieldKind,
        name: String,
        old: String,
    },
    /// An output is not there.
    OutputMissing(RepoPath),
    /// An output is not what was recorded.
    OutputChanged {
        path: RepoPath,
        old: String,
        new: String,
    },
    /// A file stands among the outputs that the last run did not make.
    OutputAdded(RepoPath),
    /// The product is another one, or gone.
    ProductChanged { old: String, new: String },
    /// It is older than its `max-age`.
    TooOld { age: Duration, max_age: Duration },
    /// `--force`.
    Forced,
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |kind: &FieldKind, name: &str| match name {
            "" => kind.word().to_owned(),
            _ => format!("{} `{name}`", kind.word()),
        };
        match self {
            Self::NeverBuilt => f.write_str("never built here"),
            Self::Failed => f.write_str("its last run failed"),
            Self::Unfinished => f.write_str("its last run was not recorded as a whole"),
            Self::Changed {
                kind,
                name,
                old,
                new,
            } => {
                write!(f, "{} changed  {old} -> {new}", named(kind, name))
            }
            Self::Added { kind, name, new } => write!(f, "{} is new  {new}", named(kind, name)),
            Self::Removed { kind, name, old } => {
                write!(f, "{} is gone  {old}", named(kind, name))
            }
            Self::OutputMissing(path) => write!(f, "output `{path}` is missing"),
            Self::OutputChanged { path, old, new } => {
                write!(f, "output `{path}` was changed  {old} -> {new}")
            }
            Self::OutputAdded(path) => write!(f, "output `{path}` is not of the last run"),
            Self::ProductChanged { old, new } => write!(f, "product changed  {old} -> {new}"),
            Self::TooOld { age, max_age } => write!(
                f,
                "{} old, may be {}",
                humantime::format_duration(Duration::from_secs(age.as_secs())),
                humantime::format_duration(*max_age)
            ),
            Self::Forced => f.write_str("forced"),
        }
    }
}

/// Where a target stands, as far as that can be known without running anything.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Nothing to do; this is what it made.
    Fresh(Arc<Made>),
    /// It must run, or be restored, for these reasons.
    Stale(Vec<StaleReason>),
    /// What it needs is not fresh: it depends on what these make.
    Pending(Vec<TargetId>),
}

/// Everything about a target that its key is made of.
pub struct Gathered {
    /// Commands, ready to run.
    pub commands: Vec<Vec<OsString>>,
    /// The product command, ready to run.
    pub product: Option<Vec<OsString>>,
    /// Declared environment.
    pub env: Vec<(String, Option<OsString>)>,
    /// Input files, sorted by path.
    pub inputs: Vec<(RepoPath, Content)>,
    tools: Vec<(String, Vec<u8>)>,
    probes: Vec<(String, Vec<u8>)>,
    needs: Vec<(TargetId, Arc<Made>)>,
}

impl Gathered {
    /// Returns the key.
    pub fn key(&self, graph: &Graph, target: &Target) -> ActionKey {
        self.with_parts(graph, target, HashKey::of)
    }

    /// Returns the fields of the key, for people.
    pub fn fields(&self, graph: &Graph, target: &Target) -> Vec<Field> {
        self.with_parts(graph, target, ExplainKey::of)
    }

    fn with_parts<T>(&self, graph: &Graph, target: &Target, read: fn(&Parts<'_>) -> T) -> T {
        let name = |id: &TargetId| graph.target(*id).name.as_str();
        let needs: Vec<_> = self
            .needs
            .iter()
            .map(|(id, made)| (name(id), made.clone()))
            .collect();
        read(&Parts {
            target,
            commands: &self.commands,
            product: self.product.as_deref(),
            env: &self.env,
            tools: &self.tools,
            probes: &self.probes,
            inputs: &self.inputs,
            needs: &needs,
        })
    }
}

type Answer = Arc<OnceLock<Result<Vec<u8>>>>;

/// Asks about targets of one graph.
pub struct Inspector<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// What is in files.
    pub digests: &'a Digests,
    /// Starts the questions.
    pub runner: &'a Runner,
    /// The environment of `rel`.
    pub env: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// Where `{version}` comes from.
    pub version: Option<&'a Version>,
    /// Now, in seconds since 1970.
    pub now_s: u64,
    answers: Mutex<HashMap<(Vec<OsString>, RepoPath), Answer>>,
}

/// Limit on one question: `tool`, `probe`, `product` and the version command.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

impl<'a> Inspector<'a> {
    /// Returns an inspector that has asked nothing yet.
    pub fn new(
        graph: &'a Graph,
        digests: &'a Digests,
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
            answers: Mutex::default(),
        }
    }

    /// Returns the verdict on each of `order`, in which needs come before their dependents.
    pub fn survey(&self, order: &[TargetId], records: &Records) -> Vec<Result<Verdict>> {
        let mut verdicts: Vec<Option<Result<Verdict>>> = Vec::new();
        verdicts.resize_with(self.graph.len(), || None);
        for level in self.levels(order) {
            let found: Vec<_> = level
                .par_iter()
                .with_min_len(16)
                .map(|id| (*id, self.verdict(*id, &verdicts, records)))
                .collect();
            for (id, verdict) in found {
                verdicts[id.index()] = Some(verdict);
            }
        }
        let mut take = |id: &TargetId| verdicts[id.index()].take();
        order
            .iter()
            .map(|id| take(id).unwrap_or_else(|| Err(Error::internal("a target was not surveyed"))))
            .collect()
    }

    /// Groups targets so that each level needs only former levels.
    fn levels(&self, order: &[TargetId]) -> Vec<Vec<TargetId>> {
        let mut depth = vec![0usize; self.graph.len()];
        let mut levels: Vec<Vec<TargetId>> = Vec::new();
        for id in order {
            let needs = &self.graph.target(*id).needs;
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

    fn verdict(
        &self,
        id: TargetId,
        verdicts: &[Option<Result<Verdict>>],
        records: &Records,
    ) -> Result<Verdict> {
        let target = self.graph.target(id);
        let made = |need: TargetId| match &verdicts[need.index()] {
            Some(Ok(Verdict::Fresh(made))) => Some(made.clone()),
            _ => None,
        };
        let unsettled: Vec<TargetId> = target
            .needs
            .iter()
            .copied()
            .filter(|n| made(*n).is_none())
            .collect();
        if !unsettled.is_empty() {
            return Ok(Verdict::Pending(unsettled));
        }
        let gathered = self.gather(id, &made)?;
        let known = records.known(&target.name);
        let reasons = self.judge(target, &gathered, known)?;
        match (reasons.is_empty(), known.and_then(|k| k.record.as_ref())) {
            (true, Some(record)) => Ok(Verdict::Fresh(Arc::new(record.made.clone()))),
            (true, None) => Ok(Verdict::Fresh(Arc::default())),
            (false, _) => Ok(Verdict::Stale(reasons)),
        }
    }

    /// Returns why `target` must run; empty when it is fresh.
    pub fn judge(
        &self,
        target: &Target,
        gathered: &Gathered,
        known: Option<&Known>,
    ) -> Result<Vec<StaleReason>> {
        if target.run.is_empty() {
            // A name for its needs: nothing of its own that could be stale.
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
        if !reasons.is_empty() {
            return Ok(reasons);
        }
        reasons.extend(self.output_reasons(target, &record.made)?);
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
        if let Some(max_age) = target.max_age {
            let age = Duration::from_secs(self.now_s.saturating_sub(record.finished_s));
            // A record from the future is of a clock that was set back: its age is unknown.
            if age > max_age || record.finished_s > self.now_s + 60 {
                reasons.push(StaleReason::TooOld { age, max_age });
            }
        }
        Ok(reasons)
    }

    fn output_reasons(&self, target: &Target, made: &Made) -> Result<Vec<StaleReason>> {
        let mut reasons = Vec::new();
        let found = outputs::states(target, self.digests)?;
        let find = |states: &[OutputState], path: &RepoPath| {
            states
                .binary_search_by(|s| s.path.cmp(path))
                .ok()
                .map(|i| states[i].content)
        };
        for recorded in &made.outputs {
            match find(&found, &recorded.path) {
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
            if find(&made.outputs, &state.path).is_none() {
                reasons.push(StaleReason::OutputAdded(state.path.clone()));
            }
        }
        Ok(reasons)
    }

    /// Returns everything the key of a target is made of. `made` answers for its needs,
    /// which must all be settled.
    pub fn gather(
        &self,
        id: TargetId,
        made: &dyn Fn(TargetId) -> Option<Arc<Made>>,
    ) -> Result<Gathered> {
        self.gather_from(id, made, false)
    }

    /// Gathers; with `is_sources_only`, files that needed targets make are left out.
    fn gather_from(
        &self,
        id: TargetId,
        made: &dyn Fn(TargetId) -> Option<Arc<Made>>,
        is_sources_only: bool,
    ) -> Result<Gathered> {
        let target = self.graph.target(id);
        let mut needs = Vec::with_capacity(target.needs.len());
        for need in &target.needs {
            let made = made(*need).ok_or_else(|| Error::internal("a need is not settled"))?;
            needs.push((*need, made));
        }
        let inputs = match is_sources_only {
            false => self.inputs(target)?,
            true => self.source_inputs(id)?,
        };
        let uses_version = command::all(target).any(|c| c.names().any(|n| n == "version"))
            || target
                .env
                .values()
                .any(|v| matches!(v, EnvValue::Set(t) if t.names().any(|n| n == "version")));
        let version = if uses_version { self.version()? } else { None };
        let late = Late {
            graph: self.graph,
            target,
            inputs: &inputs,
            needs: &needs,
            version: version.as_deref(),
        };
        let env = self.declared_env(target, &late)?;
        let render = |commands: &[Command]| -> Result<Vec<Vec<OsString>>> {
            commands.iter().map(|c| command::render(c, &late)).collect()
        };
        let commands = render(&target.run)?;
        let product = target
            .product
            .as_ref()
            .map(|p| command::render(p, &late))
            .transpose()?;
        let ask = |what: &str, commands: &[Command]| -> Result<Vec<(String, Vec<u8>)>> {
            let mut answers = Vec::new();
            for (source, argv) in commands.iter().zip(render(commands)?) {
                let answer = self.answer(target, what, &argv, &env)?;
                answers.push((source.source(), answer));
            }
            Ok(answers)
        };
        let tools = ask("tool", &target.tools)?;
        let probes = ask("probe", &target.probes)?;
        Ok(Gathered {
            commands,
            product,
            env,
            tools,
            probes,
            inputs,
            needs,
        })
    }

    /// Returns a key for each of `order` that depends on sources alone: what needed targets
    /// make is represented by *their* keys. It is the same on a machine that built
    /// everything and on one that built nothing, which is what CI needs to look up a cache.
    pub fn source_keys(&self, order: &[TargetId]) -> Result<Vec<ActionKey>> {
        let mut made: Vec<Option<Arc<Made>>> = vec![None; self.graph.len()];
        let mut keys = Vec::with_capacity(order.len());
        for id in order {
            let target = self.graph.target(*id);
            let gathered = self.gather_from(*id, &|need| made[need.index()].clone(), true)?;
            let key = gathered.key(self.graph, target);
            let content = Content {
                kind: Kind::File,
                digest: Digest {
                    hash: key.0,
                    size: 0,
                },
            };
            let stand_in = |o: &crate::graph::Output| {
                let path = RepoPath::new(o.pattern.to_string());
                OutputState { path, content }
            };
            // A target without outputs still passes its key on.
            let product = target.outputs.is_empty().then(|| key.0.to_vec());
            let outputs = target.outputs.iter().map(stand_in).collect();
            made[id.index()] = Some(Arc::new(Made { outputs, product }));
            keys.push(key);
        }
        Ok(keys)
    }

    /// Returns the input files of a target with their contents, its own outputs left out.
    pub fn inputs(&self, target: &Target) -> Result<Vec<(RepoPath, Content)>> {
        self.inputs_except(target, &target.outputs, false)
    }

    /// Returns the input files that no target makes.
    fn source_inputs(&self, id: TargetId) -> Result<Vec<(RepoPath, Content)>> {
        let target = self.graph.target(id);
        let closure = self.graph.closure(&[id]);
        let made = closure
            .iter()
            .flat_map(|id| self.graph.target(*id).outputs.iter().cloned());
        self.inputs_except(target, &made.collect::<Vec<_>>(), true)
    }

    fn inputs_except(
        &self,
        target: &Target,
        except: &[crate::graph::Output],
        may_miss: bool,
    ) -> Result<Vec<(RepoPath, Content)>> {
        let expanded = glob::expand(&target.inputs, self.digests)?;
        if let Some(missing) = expanded.unmatched.first().filter(|_| !may_miss) {
            let pattern = &target.inputs[*missing].pattern;
            return Err(Error::failed(format!(
                "no file matches input `{pattern}` of `{}`",
                target.name
            ))
            .hinted("create it, correct the pattern, or say `optional=#true`"));
        }
        let own: Vec<glob::Glob> = except
            .iter()
            .filter_map(|o| glob::compile(&o.pattern).ok())
            .collect();
        let mut inputs = Vec::with_capacity(expanded.files.len());
        for path in expanded.files {
            if own.iter().any(|glob| glob.is_match(&path)) {
                continue;
            }
            match self.digests.input(&path)? {
                Some(content) => inputs.push((path, content)),
                None if std::fs::symlink_metadata(path.to_absolute(self.digests.root()))
                    .is_ok() =>
                {
                    return Err(Error::failed(format!(
                        "input `{path}` of `{}` is no regular file",
                        target.name
                    ))
                    .hinted("exclude it with a `!` pattern"));
                }
                None => {
                    return Err(Error::failed(format!(
                        "input `{path}` of `{}` does not exist",
                        target.name
                    ))
                    .hinted("create it, or correct `inputs`"));
                }
            }
        }
        Ok(inputs)
    }

    fn declared_env(
        &self,
        target: &Target,
        late: &Late<'_>,
    ) -> Result<Vec<(String, Option<OsString>)>> {
        let mut env = Vec::with_capacity(target.env.len());
        for (name, value) in &target.env {
            let value = match value {
                EnvValue::Inherited => (self.env)(name),
                EnvValue::Set(template) => Some(late.render(template)?),
            };
            env.push((name.clone(), value));
        }
        Ok(env)
    }

    /// Returns the project's version, asked at most once.
    pub fn version(&self) -> Result<Option<String>> {
        match self.version {
            None => Ok(None),
            Some(Version::Literal(text)) => Ok(Some(text.clone())),
            Some(Version::Command(version)) => {
                let argv = command::render_plain(version)?;
                let printed =
                    self.ask_once("the version command", "", &argv, &RepoPath::root(), &[])?;
                Ok(Some(text(&printed)))
            }
        }
    }

    /// Returns the identity of a target's product; `None` when its command fails, which
    /// means that there is no such product.
    pub fn product(&self, target: &Target, gathered: &Gathered) -> Result<Option<Vec<u8>>> {
        let Some(argv) = &gathered.product else {
            return Ok(None);
        };
        let (exit, out, _) = self
            .runner
            .ask(&self.spec(argv, &target.dir, &gathered.env));
        match exit {
            crate::runner::Exit::Code(0) => Ok(Some(out)),
            crate::runner::Exit::Interrupted => Err(interrupted()),
            _ => Ok(None),
        }
    }

    fn answer(
        &self,
        target: &Target,
        what: &str,
        argv: &[OsString],
        env: &[(String, Option<OsString>)],
    ) -> Result<Vec<u8>> {
        self.ask_once(
            what,
            &format!(" of `{}`", target.name),
            argv,
            &target.dir,
            env,
        )
    }

    /// Runs a question once per command and directory, however many targets ask it.
    fn ask_once(
        &self,
        what: &str,
        of: &str,
        argv: &[OsString],
        dir: &RepoPath,
        env: &[(String, Option<OsString>)],
    ) -> Result<Vec<u8>> {
        // Only questions without declared environment are shared: the others may differ.
        let slot = match env.is_empty() {
            true => {
                let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers
                    .entry((argv.to_vec(), dir.clone()))
                    .or_default()
                    .clone()
            }
            false => Answer::default(),
        };
        slot.get_or_init(|| {
            let (exit, out, err) = self.runner.ask(&self.spec(argv, dir, env));
            match exit {
                crate::runner::Exit::Code(0) => Ok(out),
                crate::runner::Exit::Interrupted => Err(interrupted()),
                exit => {
                    let shown = argv.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>();
                    let error = Error::failed(format!("{what}{of} failed: {}", exit.shown()))
                        .fact("command", shown.join(" "));
                    Err(match err.is_empty() {
                        true => error,
                        false => error.fact("printed", text(&err)),
                    })
                }
            }
        })
        .clone()
    }

    fn spec(&self, argv: &[OsString], dir: &RepoPath, env: &[(String, Option<OsString>)]) -> Spec {
        Spec {
            argv: argv.to_vec(),
            dir: dir.to_absolute(self.digests.root()),
            env: command_env(&self.env, env),
            timeout: Some(QUESTION_TIMEOUT),
        }
    }
}

/// Returns the error for a run that was interrupted.
pub fn interrupted() -> Box<Error> {
    Error::new(crate::error::ErrorKind::Interrupted, "interrupted")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Returns what differs between two lists of fields, most telling first.
fn differences(old: &[Field], new: &[Field]) -> Vec<StaleReason> {
    let index = |fields: &[Field]| -> HashMap<(FieldKind, String), String> {
        fields
            .iter()
            .map(|f| ((f.kind, f.name.clone()), f.value.clone()))
            .collect()
    };
    let (old_by, new_by) = (index(old), index(new));
    let mut reasons = Vec::new();
    for field in new {
        let (kind, name, new) = (field.kind, field.name.clone(), field.value.clone());
        match old_by.get(&(kind, name.clone())) {
            None => reasons.push(StaleReason::Added { kind, name, new }),
            Some(old) if *old != new => {
                reasons.push(StaleReason::Changed {
                    kind,
                    name,
                    old: old.clone(),
                    new,
                });
            }
            Some(_) => {}
        }
    }
    for field in old {
        if !new_by.contains_key(&(field.kind, field.name.clone())) {
            let (kind, name, old) = (field.kind, field.name.clone(), field.value.clone());
            reasons.push(StaleReason::Removed { kind, name, old });
        }
    }
    // A changed input also changes the command that lists it: the input is what to tell.
    let is_cause = |r: &StaleReason| {
        !matches!(
            r,
            StaleReason::Changed {
                kind: FieldKind::Command,
                ..
            } | StaleReason::Added {
                kind: FieldKind::Command,
                ..
            } | StaleReason::Removed {
                kind: FieldKind::Command,
                ..
            }
        )
    };
    reasons.sort_by_key(|r| !is_cause(r));
    if reasons.is_empty() {
        reasons.push(StaleReason::Unfinished);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: FieldKind, name: &str, value: &str) -> Field {
        Field {
            kind,
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn differences_name_what_changed_causes_first() {
        let old = [
            field(FieldKind::Command, "1", "cc a.c"),
            field(FieldKind::Input, "a.c", "11"),
            field(FieldKind::Input, "old.c", "33"),
        ];
        let new = [
            field(FieldKind::Command, "1", "cc a.c b.c"),
            field(FieldKind::Input, "a.c", "22"),
            field(FieldKind::Input, "b.c", "44"),
        ];
        let shown: Vec<String> = differences(&old, &new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "input `a.c` changed  11 -> 22",
                "input `b.c` is new  44",
                "input `old.c` is gone  33",
                "command `1` changed  cc a.c -> cc a.c b.c",
            ]
        );
    }
}
