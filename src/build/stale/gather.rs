//! Gathering what a key is made of: inputs, environment, answers of tools and probes.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::sync::Arc;

use super::probe_cache::{Generation, ProbeCommand};
use super::{QUESTION_TIMEOUT, StalenessChecker, text};
use crate::build::command::{self, RuntimeVars};
use crate::build::digest::{Content, ContentKind, Digest};
use crate::build::glob::{self, OutputIndex};
use crate::build::graph::{Command, EnvValue, Graph, Output, Pattern, Target, TargetId};
use crate::build::key::{
    ActionInputs, ActionKey, ExplainKey, Field, HashKey, OutputState, TargetOutputs, group_outputs,
};
use crate::build::model::Version;
use crate::build::runner::{CommandExit, CommandSpec, PROGRAM_MISSING, command_env};
use crate::core::error::{Error, Result, shortened};
use crate::core::fs::RepoPath;
use crate::core::sync::lock;

/// What to do about an answer that is too long.
const PRINT_LESS: &str = "let it print a digest of what counts: `… | sha256sum`";

/// Everything about a target that its key is made of.
pub struct GatheredInputs {
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
    /// What links among needed outputs lead to, sorted by path.
    pub linked: Vec<(RepoPath, Content)>,
    needs: Vec<(TargetId, Arc<TargetOutputs>)>,
}

impl GatheredInputs {
    /// Returns everything that needed targets made.
    pub fn made(&self) -> impl Iterator<Item = &OutputState> {
        self.needs.iter().flat_map(|(_, made)| &made.outputs)
    }

    /// Returns the key.
    pub fn key(&self, graph: &Graph, target: &Target) -> ActionKey {
        self.with_parts(graph, target, HashKey::of)
    }

    /// Returns the fields of the key, for people.
    pub fn fields(&self, graph: &Graph, target: &Target) -> Vec<Field> {
        self.with_parts(graph, target, ExplainKey::of)
    }

    fn with_parts<T>(&self, graph: &Graph, target: &Target, read: fn(&ActionInputs<'_>) -> T) -> T {
        let name = |id: &TargetId| graph.target(*id).name.as_str();
        let needs: Vec<_> = self
            .needs
            .iter()
            .map(|(id, made)| (name(id), made.clone()))
            .collect();
        read(&ActionInputs {
            target,
            commands: &self.commands,
            product: self.product.as_deref(),
            env: &self.env,
            tools: &self.tools,
            probes: &self.probes,
            inputs: &self.inputs,
            linked: &self.linked,
            needs: &needs,
        })
    }
}

/// Returns whether `{version}` stands anywhere in a target.
pub(super) fn uses_version(target: &Target) -> bool {
    let in_env = |v: &EnvValue| matches!(v, EnvValue::Set(t) if t.names().any(|n| n == "version"));
    command::all(target).any(|c| c.names().any(|n| n == "version"))
        || target.env.values().any(in_env)
}

impl StalenessChecker<'_> {
    /// Returns everything the key of a target is made of. `made` answers for its needs,
    /// which must all be settled.
    pub fn gather(
        &self,
        id: TargetId,
        made: &dyn Fn(TargetId) -> Option<Arc<TargetOutputs>>,
    ) -> Result<GatheredInputs> {
        self.gather_from(id, made, None)
    }

    /// Gathers; with an index of what all targets make, such files are left out.
    fn gather_from(
        &self,
        id: TargetId,
        made: &dyn Fn(TargetId) -> Option<Arc<TargetOutputs>>,
        all_made: Option<&OutputIndex>,
    ) -> Result<GatheredInputs> {
        let target = self.graph.target(id);
        let mut needs = Vec::with_capacity(target.needs.len());
        for need in &target.needs {
            let settled = |id| made(id).ok_or_else(|| Error::internal("a need is not settled"));
            let made = match self.graph.is_group(*need) && all_made.is_none() {
                true => self.handed_on(*need, &settled)?,
                false => settled(*need)?,
            };
            needs.push((*need, made));
        }
        let inputs = match all_made {
            None => self.inputs(target)?,
            Some(all_made) => self.source_inputs(target, all_made)?,
        };
        self.check_names(target, &inputs)?;
        let version = match uses_version(target) {
            true => self.version_since(self.answers.since(self.graph.needs(id)))?,
            false => None,
        };
        let late = RuntimeVars {
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
        let ask = |questions: &[Command], of_tools: bool| {
            let sources = questions.iter().map(Command::source);
            let questions = sources.zip(render(questions)?).collect();
            self.ask_all(target, questions, of_tools, &env)
        };
        let tools = ask(&target.tools, true)?;
        let probes = ask(&target.probes, false)?;
        let linked = self.linked(target, needs.iter().flat_map(|(_, made)| &made.outputs))?;
        Ok(GatheredInputs {
            commands,
            product,
            env,
            tools,
            probes,
            inputs,
            linked,
            needs,
        })
    }

    /// Returns a key for each of `order` that depends on sources alone: what needed targets
    /// make is represented by *their* keys. It is the same on a machine that built
    /// everything and on one that built nothing, which is what CI needs to look up a cache.
    pub fn source_keys(&self, order: &[TargetId]) -> Result<Vec<ActionKey>> {
        let mut made: Vec<Option<Arc<TargetOutputs>>> = vec![None; self.graph.len()];
        let mut keys = Vec::with_capacity(order.len());
        // One index for all: what a target needs, and what that needs, would be quadratic.
        let outputs = self.graph.targets().flat_map(|(_, t)| &t.outputs);
        let all_made = OutputIndex::new(outputs.map(|o| &o.pattern));
        for id in order {
            let target = self.graph.target(*id);
            let known = |need: TargetId| made[need.index()].clone();
            if target.depfile.is_some() && target.sandbox.is_none() {
                return Err(Error::failed(format!(
                    "what `{}` reads is in its depfile, which only a run writes: its sources have no key",
                    target.name
                ))
                .help("let it see only what it declares (`sandbox \"strict\"`), or do without `depfile`"));
            }
            let gathered = self.gather_from(*id, &known, Some(&all_made))?;
            let key = gathered.key(self.graph, target);
            let content = Content {
                kind: ContentKind::File,
                digest: Digest {
                    hash: key.0,
                    size: 0,
                },
            };
            let stand_in = |o: &crate::build::graph::Output| {
                let path = RepoPath::new(o.pattern.to_string());
                OutputState { path, content }
            };
            // A target without outputs still passes its key on.
            let product = target.outputs.is_empty().then(|| key.0.to_vec());
            let outputs = target.outputs.iter().map(stand_in).collect();
            made[id.index()] = Some(Arc::new(TargetOutputs { outputs, product }));
            keys.push(key);
        }
        Ok(keys)
    }

    /// Returns the input files of a target with their contents, its own outputs left out.
    pub fn inputs(&self, target: &Target) -> Result<Vec<(RepoPath, Content)>> {
        let own: Vec<glob::Glob> = target
            .outputs
            .iter()
            .filter(|o| !matches!(o.pattern, Pattern::File(_)))
            .filter_map(|o| glob::compile(&o.pattern).ok())
            .collect();
        let is_own = |path: &RepoPath| {
            let is_file = |o: &Output| matches!(&o.pattern, Pattern::File(p) if p == path);
            target.outputs.iter().any(is_file) || own.iter().any(|glob| glob.is_match(path))
        };
        self.inputs_except(
            target,
            &is_own,
            &|path| self.digests.digest_input(path),
            false,
        )
    }

    /// Returns the input files that no target makes.
    fn source_inputs(
        &self,
        target: &Target,
        all_made: &OutputIndex,
    ) -> Result<Vec<(RepoPath, Content)>> {
        let is_made = |path: &RepoPath| {
            let makers = all_made.overlapping(&Pattern::File(path.clone()));
            !makers.is_empty()
        };
        let content = |path: &RepoPath| match self.leads_to_made(path, all_made) {
            // What it leads to is not there before a build: its text is the source.
            true => self.digests.digest_output(path),
            false => self.digests.digest_input(path),
        };
        self.inputs_except(target, &is_made, &content, true)
    }

    fn inputs_except(
        &self,
        target: &Target,
        is_left_out: &dyn Fn(&RepoPath) -> bool,
        content: &dyn Fn(&RepoPath) -> Result<Option<Content>>,
        may_miss: bool,
    ) -> Result<Vec<(RepoPath, Content)>> {
        if target.inputs.is_empty() {
            return Ok(Vec::new());
        }
        let named = glob::name(&target.inputs, self.digests)?;
        let mut unmatched = named.unmatched;
        let mut inputs = Vec::with_capacity(named.walked.len() + named.literals.len());
        for path in named.walked {
            if !is_left_out(&path) {
                match content(&path)? {
                    Some(content) => inputs.push((path, content)),
                    None => return Err(self.unreadable(target, &path)),
                }
            }
        }
        for (i, path) in named.literals {
            if is_left_out(&path) {
                continue;
            }
            match content(&path)? {
                // What lies below would not count.
                Some(c) if c.kind == ContentKind::Link && self.must_be_file(target, i, &path) => {
                    unmatched.push(i);
                }
                Some(content) if content.kind != ContentKind::Directory => {
                    inputs.push((path, content))
                }
                None if self.digests.is_directory(&path)?.is_some() => {
                    return Err(self.unreadable(target, &path));
                }
                _ if target.inputs[i].is_optional => {}
                _ => unmatched.push(i),
            }
        }
        if let Some(missing) = unmatched.iter().min().filter(|_| !may_miss) {
            let input = &target.inputs[*missing];
            let mistake = glob::missing_input(&target.name, input, self.digests)?;
            return Err(Error::mistakes(vec![mistake]));
        }
        inputs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        inputs.dedup_by(|(a, _), (b, _)| a == b);
        Ok(inputs)
    }

    /// Returns whether a directory stands where there has to be a file. In a sandbox nothing is
    /// seen below it, so that the link's text is all there is.
    fn must_be_file(&self, target: &Target, input: usize, path: &RepoPath) -> bool {
        let is_seen = target.sandbox.is_none() && !target.inputs[input].is_optional;
        is_seen && path.to_absolute(self.digests.root()).is_dir()
    }

    fn unreadable(&self, target: &Target, path: &RepoPath) -> Box<Error> {
        let name = &target.name;
        match self.digests.is_directory(path) {
            Ok(Some(_)) => {
                Error::failed(format!("input `{path}` of `{name}` is not a regular file"))
                    .help("exclude it with a `!` pattern")
            }
            _ => Error::failed(format!("input `{path}` of `{name}` does not exist"))
                .help("create it, or correct `inputs`"),
        }
    }

    fn declared_env(
        &self,
        target: &Target,
        late: &RuntimeVars<'_>,
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

    /// Returns what a group hands on; found once for all that need it, while none of its members
    /// runs.
    fn handed_on(
        &self,
        group: TargetId,
        made: &dyn Fn(TargetId) -> Result<Arc<TargetOutputs>>,
    ) -> Result<Arc<TargetOutputs>> {
        let since = self.answers.since(&[group]);
        let handed_on = || lock(&self.handed_on);
        if let Some((at, known)) = handed_on().get(&group)
            && *at == since
        {
            return Ok(known.clone());
        }
        let name = |id: TargetId| self.graph.name(id);
        let members = self.graph.members(group).into_iter();
        let mut members = members
            .map(|id| Ok((name(id), made(id)?)))
            .collect::<Result<Vec<_>>>()?;
        members.sort_unstable_by_key(|(name, _)| *name);
        let known = Arc::new(group_outputs(&members));
        handed_on().insert(group, (since, known.clone()));
        Ok(known)
    }

    /// Returns the project's version, as it is before anything runs.
    pub fn version(&self) -> Result<Option<String>> {
        self.version_since(Generation::default())
    }

    fn version_since(&self, since: Generation) -> Result<Option<String>> {
        match self.version {
            None => Ok(None),
            Some(Version::Literal(text)) => Ok(Some(text.clone())),
            Some(Version::Command(version)) => {
                let argv = command::render_plain(version)?;
                let question = (argv, RepoPath::root(), Vec::new());
                let printed = self.ask("the version command", question, since)?;
                Ok(Some(text(&printed)))
            }
        }
    }

    /// Returns the identity of a target's product; `None` when its command fails, which
    /// means that there is no such product.
    pub fn product(&self, target: &Target, gathered: &GatheredInputs) -> Result<Option<Vec<u8>>> {
        let Some(argv) = &gathered.product else {
            return Ok(None);
        };
        let (exit, out, _) = self
            .runner
            .capture(&self.spec(argv, &target.dir, &gathered.env));
        match exit {
            CommandExit::Code(0) => Ok(Some(out)),
            CommandExit::Interrupted => Err(Error::interrupted()),
            // No sign that there is none.
            CommandExit::PrintedTooMuch(_) => {
                let name = &target.name;
                let message = format!("the `product` command of `{name}` {}", exit.shown());
                Err(Error::failed(message).help(PRINT_LESS))
            }
            _ => Ok(None),
        }
    }

    /// Asks the tools or the probes of a target; returns each with what it printed.
    fn ask_all(
        &self,
        target: &Target,
        questions: Vec<(String, Vec<OsString>)>,
        of_tools: bool,
        env: &[(String, Option<OsString>)],
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let ran = self.answers.since(&target.needs);
        let what = if of_tools { "tool" } else { "probe" };
        let ask = |(source, argv): (String, Vec<OsString>)| {
            // Who makes what is not worth finding out before anything ran.
            let may_be_old =
                of_tools && ran > Generation::default() && !self.may_be_made(target, &argv);
            let since = if may_be_old {
                Generation::default()
            } else {
                ran
            };
            let question = (argv, target.dir.clone(), env.to_vec());
            let answer = self.ask(&format!("{what} of `{}`", target.name), question, since)?;
            Ok((source, answer))
        };
        questions.into_iter().map(ask).collect()
    }

    /// Returns whether what a tool prints may depend on what a target makes: some word may be the
    /// path of that.
    fn may_be_made(&self, target: &Target, argv: &[OsString]) -> bool {
        let is_made = |part: &str| match part {
            "" => false,
            "cd" => true,
            _ if part.contains(['$', '*', '?', '[']) => true,
            path => self.is_made(target.dir.join(path)),
        };
        let ends = |c: char| c.is_whitespace() || "\"'`;|&()<>=,:".contains(c);
        let mut texts = argv.iter().map(|word| word.to_string_lossy());
        texts.any(|text| text.split(ends).any(is_made))
    }

    fn ask(&self, what: &str, question: ProbeCommand, since: Generation) -> Result<Vec<u8>> {
        let (argv, dir, env) = &question;
        let spec = self.spec(argv, dir, env);
        let shown = argv.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>();
        let answer = self
            .answers
            .get(question.clone(), since, || self.runner.capture(&spec));
        let (exit, out, err) = &*answer;
        match exit {
            CommandExit::Code(0) => Ok(out.clone()),
            CommandExit::Interrupted => Err(Error::interrupted()),
            exit => {
                let error = Error::failed(format!("{what} failed: {}", exit.shown()))
                    .note("command", shortened(&shown.join(" ")));
                let error = match err.is_empty() {
                    true => error,
                    false => error.note("printed", text(err)),
                };
                Err(match exit {
                    CommandExit::PrintedTooMuch(_) => error.help(PRINT_LESS),
                    CommandExit::Code(127) => error.help(PROGRAM_MISSING),
                    CommandExit::NotStarted(why) if why.kind() == ErrorKind::NotFound => {
                        error.help(PROGRAM_MISSING)
                    }
                    _ => error,
                })
            }
        }
    }

    fn spec(
        &self,
        argv: &[OsString],
        dir: &RepoPath,
        env: &[(String, Option<OsString>)],
    ) -> CommandSpec {
        CommandSpec {
            argv: argv.to_vec(),
            dir: dir.to_absolute(self.digests.root()),
            env: command_env(&self.env, env),
            timeout: Some(QUESTION_TIMEOUT),
            mark: None,
        }
    }
}
