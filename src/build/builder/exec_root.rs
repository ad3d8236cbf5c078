//! Where the commands of a target run: in the tree, in the tree and watched, or on a stage.
//!
//! `sandbox "strict"` is a stage: a command finds copies of what its target declares, and
//! only declared outputs leave it. `rel check --trace` watches commands in the tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use super::Builder;
use super::undeclared_access::{DeclaredPaths, UndeclaredAccess};
use crate::build::digest::ContentKind;
use crate::build::graph::{Pattern, Sandbox, Target};
use crate::build::key::DiscoveredInput;
use crate::build::outputs;
use crate::build::runner::command_log::CommandLog;
use crate::build::runner::{CommandExit, CommandSpec, Runner};
use crate::build::sandbox::{
    self, AccessLog, Confinement, ReusableFiles, Rules, SandboxChange, SandboxRoot, SystemPaths,
};
use crate::build::stale::GatheredInputs;
use crate::core::error::{Error, Result};
use crate::core::fs::{self, RepoPath};
use crate::core::sync::lock;

/// Undeclared files that an error names.
const NAMED_MAX: usize = 5;

/// Where a target's commands run, and what was seen of them there.
pub(super) struct ExecRoot {
    /// Set when they are watched.
    held: Option<Confinement>,
    /// Set when they see only what is declared.
    stage: Option<SandboxRoot>,
    seen: AccessLog,
}

impl Builder<'_> {
    /// Prepares the place for one attempt.
    pub(super) fn workplace(&self, target: &Target, gathered: &GatheredInputs) -> Result<ExecRoot> {
        let mut place = ExecRoot {
            held: None,
            stage: None,
            seen: AccessLog::default(),
        };
        if self.is_traced(target) {
            place.held = Some(Confinement {
                rules: None,
                machine: self.machine(target.sandbox.as_ref()),
                log: None,
            });
        } else if let Some(sandbox) = &target.sandbox {
            let stage = self.stage(target, gathered)?;
            let machine = self.machine(Some(sandbox));
            let connect = self.sockets(sandbox);
            let mut rules = Rules {
                machine: machine.clone(),
                ..stage.rules()
            };
            // Who may connect to it may also see that it is there.
            rules.read.extend(connect.iter().cloned());
            rules.connect = connect;
            place.held = Some(Confinement {
                rules: Some(rules),
                machine,
                log: None,
            });
            place.stage = Some(stage);
        }
        Ok(place)
    }

    /// Returns the directories of the machine: the system's, those of tools, and what the
    /// sandbox names. Few targets name any, so the others share what is opened.
    fn machine(&self, sandbox: Option<&Sandbox>) -> Arc<SystemPaths> {
        let home = (self.inspector.env)("HOME").map(PathBuf::from);
        let root = self.inspector.digests.root();
        let tools = || {
            let path = (self.inspector.env)("PATH").unwrap_or_default();
            sandbox::tools(&path, root, home.as_deref())
        };
        let named = sandbox.map_or(&[][..], |s| &s.read);
        if named.is_empty() {
            let machine = self
                .machine
                .get_or_init(|| SystemPaths::new(tools(), root, home.as_deref()).into());
            return machine.clone();
        }
        let named = named.iter().map(|dir| below_home(dir, home.as_deref()));
        let named = tools().into_iter().chain(named).collect();
        SystemPaths::new(named, root, home.as_deref()).into()
    }

    /// Returns the sockets that a sandbox names, and directories of such, without links on the way.
    fn sockets(&self, sandbox: &Sandbox) -> Vec<PathBuf> {
        let home = (self.inspector.env)("HOME").map(PathBuf::from);
        // One that is not there yet may be made meanwhile.
        let real = |path: &String| {
            let path = below_home(path, home.as_deref());
            std::fs::canonicalize(&path).unwrap_or(path)
        };
        let is_socket = |path: &PathBuf| {
            let meta = std::fs::metadata(path);
            meta.is_ok_and(|meta| meta.file_type().is_socket())
        };
        // Reading a socket can mean nothing else.
        let read = sandbox.read.iter().map(real).filter(is_socket);
        sandbox.connect.iter().map(real).chain(read).collect()
    }

    /// Sets up a stage with everything that `target` declares.
    fn stage(&self, target: &Target, gathered: &GatheredInputs) -> Result<SandboxRoot> {
        let base = self.state_dir.join("sandbox");
        let [at_work, kept] = ["at-work", "kept"].map(|name| base.join(name));
        fs::own_dir(&base)?;
        fs::own_dir(&kept)?;
        let pool = self.pool.get_or_init(|| {
            // What a killed run left is of no use.
            let _ = sandbox::clear(&at_work);
            ReusableFiles::open(kept).into()
        });
        fs::own_dir(&at_work)?;
        let name = blake3::hash(target.name.as_bytes()).to_hex();
        let ups = |path: &RepoPath| {
            let components = path.as_path().components();
            components.filter(|c| *c == Component::ParentDir).count()
        };
        let ups = gathered.inputs.iter().map(|(path, _)| ups(path)).max();
        let root = self.inspector.digests.root();
        let slot = at_work.join(&name[..16]);
        let mut stage = SandboxRoot::new(slot, root, ups.unwrap_or(0), pool.clone())?;
        for (path, _) in &gathered.inputs {
            stage.place(path)?;
        }
        for output in gathered.made() {
            match output.content.kind {
                ContentKind::Directory => stage.place_dir(&output.path)?,
                _ => stage.place_made(&output.path)?,
            }
        }
        // A directory that is missing is reported when the command cannot start in it.
        if target.dir.to_absolute(root).is_dir() {
            stage.place_dir(&target.dir)?;
        }
        if let Some(dir) = target.depfile.as_ref().and_then(|d| d.as_path().parent()) {
            stage.place_dir(&RepoPath::new(dir))?;
        }
        for output in &target.outputs {
            match &output.pattern {
                Pattern::Glob { base, .. } => stage.place_dir(base)?,
                Pattern::File(path) | Pattern::Dir(path) => {
                    if let Some(dir) = path.as_path().parent() {
                        stage.place_dir(&RepoPath::new(dir))?;
                    }
                }
            }
        }
        Ok(stage)
    }

    /// Takes over what the commands made, or says what they did that is not declared.
    pub(super) fn collect_outputs(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        place: &mut ExecRoot,
    ) -> Result<()> {
        if let Some(stage) = &mut place.stage {
            if place.seen.is_anyone_left {
                return Err(Error::failed(format!(
                    "`{}` left a process behind, which was ended",
                    target.name
                ))
                .help("let the command wait for all that it starts"));
            }
            self.check_changes(target, gathered, stage)?;
            outputs::export_from_sandbox(target, stage.root(), self.inspector.digests)?;
            stage.set_reusable(&place.seen);
        }
        Ok(())
    }

    fn check_changes(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        stage: &SandboxRoot,
    ) -> Result<()> {
        let declared = DeclaredPaths::new(
            self.graph(),
            target,
            gathered,
            self.inspector.digests.root(),
        );
        let changes = stage.changes()?;
        let is_wrong = |(path, change): &&(RepoPath, SandboxChange)| {
            *change != SandboxChange::New || !declared.is_output(path)
        };
        let wrong: Vec<_> = changes.iter().filter(is_wrong).collect();
        let Some((first, change)) = wrong.first() else {
            return Ok(());
        };
        let (verb, what, help) = match change {
            SandboxChange::New => (
                "wrote",
                "which it does not declare",
                format!("add `outputs \"{first}\"`, or write it below `$TMPDIR`"),
            ),
            SandboxChange::Changed => ("changed", "its input", "let it work on a copy".into()),
            SandboxChange::Gone => ("removed", "its input", "let it work on a copy".into()),
        };
        let mut error = Error::failed(format!("`{}` {verb} `{first}`, {what}", target.name));
        for (path, _) in wrong.iter().skip(1).take(NAMED_MAX - 1) {
            error = error.note("and", path.to_string());
        }
        if wrong.len() > NAMED_MAX {
            error = error.note("and", format!("{} more", wrong.len() - NAMED_MAX));
        }
        Err(error.help(help))
    }

    /// Adds to the error of a command what it lacked.
    pub(super) fn explain(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        place: &ExecRoot,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let Some(stage) = &place.stage else {
            return error;
        };
        let declared = DeclaredPaths::new(
            self.graph(),
            target,
            gathered,
            self.inspector.digests.root(),
        );
        let lacking: Vec<UndeclaredAccess> = declared.lacking(&place.seen, stage);
        for finding in lacking.iter().take(NAMED_MAX) {
            error = error.note("undeclared", finding.to_string());
        }
        if lacking.len() > NAMED_MAX {
            let more = format!("{} more", lacking.len() - NAMED_MAX);
            error = error.note("undeclared", more);
        }
        match lacking.first() {
            Some(first) => error.help(first.help.clone()),
            None => error,
        }
    }

    /// Keeps what a traced target did that is not declared.
    pub(super) fn find_undeclared(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        place: &ExecRoot,
        found: &[DiscoveredInput],
    ) {
        if self.is_traced(target) {
            let root = self.inspector.digests.root();
            let mut declared = DeclaredPaths::new(self.graph(), target, gathered, root);
            declared.may_read(found.iter().map(|f| &f.path));
            let found = declared.undeclared(&place.seen);
            self.findings().insert(target.name.clone(), found);
        }
    }

    /// Returns whether a run was what the key says: one that was only watched shows its
    /// faults, and does not stand for one on a stage.
    pub(super) fn is_proven(&self, target: &Target) -> bool {
        let is_clean = self.findings().get(&target.name).is_none_or(Vec::is_empty);
        is_clean && !(self.is_traced(target) && target.sandbox.is_some())
    }

    fn findings(&self) -> MutexGuard<'_, BTreeMap<String, Vec<UndeclaredAccess>>> {
        lock(&self.findings)
    }

    /// Returns whether a target's commands are watched in the tree.
    pub(super) fn is_traced(&self, target: &Target) -> bool {
        let mut traced = self.options.traced.iter();
        traced.any(|id| self.graph().target(*id).name == target.name)
    }
}

/// Returns a path of which the Releasefile may have written the home as `~`.
fn below_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(path),
    }
}

impl ExecRoot {
    /// Returns the directory that stands for the repository.
    pub(super) fn root<'a>(&'a self, tree: &'a Path) -> &'a Path {
        self.stage.as_ref().map_or(tree, SandboxRoot::root)
    }

    /// Returns the directory around the stage, where a command finds what `rel` hands to it.
    pub(super) fn around_stage(&self) -> Option<&Path> {
        self.stage.as_ref().map(SandboxRoot::slot)
    }

    /// Leaves out of what was seen a file that `rel` itself handed to a command.
    pub(super) fn forget(&mut self, path: &Path) {
        self.seen.files.remove(path);
    }

    /// Returns the path in the repository that an absolute path stands for.
    pub(super) fn in_repository(&self, path: &Path, tree: &Path) -> Option<RepoPath> {
        let staged = self.stage.as_ref().and_then(|s| s.in_repository(path));
        staged.or_else(|| path.strip_prefix(tree).ok().map(RepoPath::new))
    }

    /// Gives a command a home and a place for temporary files of its own, unless its target
    /// declares others.
    pub(super) fn set_env(
        &self,
        env: &mut Vec<(OsString, OsString)>,
        declared: &[(String, Option<OsString>)],
    ) {
        let Some(stage) = &self.stage else {
            if self.held.is_some() && !env.iter().any(|(n, _)| n == "TMPDIR") {
                // On a stage it is always set, and commands may rely on that.
                env.push(("TMPDIR".into(), "/tmp".into()));
            }
            return;
        };
        for name in ["HOME", "TMPDIR"] {
            if !declared.iter().any(|(n, _)| n == name) {
                env.retain(|(n, _)| n != OsStr::new(name));
                env.push((name.into(), stage.private().into()));
            }
        }
    }

    /// Runs a command here.
    pub(super) fn run(
        &mut self,
        target: &Target,
        runner: &Runner,
        spec: &CommandSpec,
        log: &CommandLog,
    ) -> Result<CommandExit> {
        let Some(held) = &self.held else {
            return Ok(runner.run(spec, log));
        };
        let (exit, seen) = runner.run_confined(spec, log, held);
        self.seen.merge(seen);
        if let Some(why) = &self.seen.error {
            let error = Error::failed(format!("`{}` could not be watched: {why}", target.name));
            return Err(match self.stage {
                Some(_) => error.help("without `sandbox \"strict\"` it is not watched"),
                None => error,
            });
        }
        match exit {
            CommandExit::NotStarted(e) if e.kind() == IoErrorKind::Unsupported => {
                let what = match self.stage {
                    Some(_) => "cannot run in its sandbox here",
                    None => "cannot be watched here",
                };
                let error = Error::failed(format!("`{}` {what}: {e}", target.name));
                Err(match self.stage {
                    Some(_) => error.help("set `sandbox \"off\"`, or build on another machine"),
                    None => error,
                })
            }
            exit => Ok(exit),
        }
    }
}
