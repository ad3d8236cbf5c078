//! One use of a recipe on one host, with all its texts. Pure.
//!
//! Texts are rendered twice. Symbolically, with `{fact}` left as it is written: that
//! is what a key is made of, so that a host's answer never makes a step stale. And
//! really, once the host has answered: that is what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::build::model::Artifact;
use crate::core::diagnostics::Span;
use crate::core::template::Value;
use crate::deploy::health_check::HealthCheck;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::port::Port;
use crate::deploy::plan::secret::{Redactor, SecretContent, SecretValue};
use crate::deploy::plan::waves::Wave;
use crate::deploy::protocol::words::NOT_MADE;
use crate::deploy::recipe::effects::StepEffects;
use crate::deploy::recipe::{Recipe, Step, UndoWhen};

/// One use of a recipe on one host.
#[derive(Clone, Debug)]
pub struct UseOnHost {
    /// Name of the use, with the values of its axes: `site[osf]`.
    pub label: String,
    /// What is done.
    pub recipe: Arc<Recipe>,
    /// Where; `None` for work from the operator's machine.
    pub host: Option<String>,
    /// The host that something is taken from.
    pub from: Option<String>,
    /// Names of uses whose change makes this one stale.
    pub after: Vec<String>,
    /// Names of uses further down: it is done when one of them changes something.
    pub wraps: Vec<String>,
    /// Where it stands in a rollout.
    pub wave: Option<Wave>,
    /// Age at which it is done again.
    pub max_age: Option<Duration>,
    /// root may write into directories that other users of the host can change.
    pub into_foreign: bool,
    /// Names of the place it is written in.
    pub caller: BTreeMap<String, Value>,
    /// Names that the recipe has without declaring them.
    pub built_in: BTreeMap<String, Value>,
    /// What is passed.
    pub args: BTreeMap<String, ArgValue>,
    /// A target that texts of the use name (`{wheel.id}`) and that is not made yet.
    pub missing: Option<String>,
    /// Where the use is written.
    pub place: Span,
}

/// A value that is passed to a recipe.
#[derive(Clone, Debug)]
pub enum ArgValue {
    /// A text.
    Text(String),
    /// Shell text of the `use`: it has the caller's names, and those that the parameter gives.
    Command(String),
    /// Shell text of the recipe or of its driver, a default: it has the recipe's names alone.
    Default(String),
    /// A needed target, with its files if it has been made.
    Artifact(String, Option<Artifact>),
    /// A secret.
    Secret(SecretValue),
}

/// What is known when texts are rendered.
#[derive(Clone, Copy, Debug)]
pub enum RenderPhase<'a> {
    /// Nothing that a host says: names stand for themselves.
    Symbolic,
    /// All.
    Known {
        /// The run of the attempt.
        run: &'a str,
        /// The host's answers.
        facts: &'a BTreeMap<String, String>,
        /// Values noted by former runs.
        notes: &'a BTreeMap<String, Vec<String>>,
    },
}

/// A step with its texts rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedStep {
    /// Its name in the recipe.
    pub name: String,
    /// Its name in the journal.
    pub id: String,
    /// Who carries it out.
    pub seat: RunsOn,
    /// The user that its commands run as, if that is not the login user.
    pub user: Option<String>,
    /// Done before that, each time, at the host's root.
    pub prepare: Option<String>,
    /// What it does.
    pub act: ResolvedAction,
    /// Succeeds when it is done already.
    pub check: Option<String>,
    /// Must succeed afterwards.
    pub verify: Vec<String>,
    /// The rollback, and when it runs.
    pub undo: Option<(String, UndoWhen)>,
    /// Where commands run.
    pub dir: Option<String>,
    /// Environment variables of its commands.
    pub env: Vec<(String, String)>,
    /// Ended when it takes longer.
    pub timeout: Option<Duration>,
    /// Names of earlier steps of this job whose change makes it stale.
    pub on_change: Vec<String>,
    /// What it destroys, and how its rollback stands.
    pub marks: StepEffects<String>,
    /// It continues when the connection ends.
    pub is_detached: bool,
    /// The file that it writes, where that holds a secret: shown nowhere, and what stands
    /// there is never fetched. The texts above have marks instead.
    pub sealed: Option<SecretContent>,
}

/// What a step does, in final texts.
#[derive(Clone, Debug, PartialEq)]
pub enum ResolvedAction {
    /// Shell text.
    Run(String),
    /// Lays down the artifact with this digest.
    Put {
        sha256: String,
        to: String,
        /// How the host finds the last artifact of this use again.
        base: String,
        /// It is moved there, and shares its files with the next one.
        is_shared: bool,
    },
    /// Takes a directory or file from the other host.
    Fetch { path: String, to: String },
    /// Writes a file.
    Write {
        path: String,
        content: String,
        mode: String,
        owner: Option<String>,
    },
    /// Points a symbolic link somewhere.
    Symlink { path: String, to: String },
    /// Starts a command that stays.
    Service(ResolvedService),
    /// Starts or restarts a command that another manager keeps.
    Managed {
        start: String,
        status: String,
        stop: String,
        within: Duration,
    },
    /// Enters what is left when the run ends.
    Scope {
        name: String,
        enter: String,
        leave: String,
    },
    /// Opens a port of the host that is served from here while the run lasts.
    Port(Port),
    /// Waits for a command on the host.
    Await {
        command: String,
        within: Duration,
        every: Duration,
    },
    /// Waits for an answer, from here.
    Ask(HealthCheck),
}

impl Default for ResolvedAction {
    fn default() -> Self {
        Self::Run(String::new())
    }
}

/// A command that stays.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedService {
    /// Name among the services of the environment.
    pub name: String,
    /// Foreground command.
    pub run: String,
    /// Where its output goes.
    pub log: String,
    /// How it is asked to stop.
    pub stop: String,
    /// Must succeed after each start.
    pub ready: String,
    /// How long `ready` may take.
    pub within: Duration,
}

/// Returns what hides the secrets of all uses.
pub fn redactor(jobs: &[UseOnHost]) -> Redactor {
    let args = jobs.iter().flat_map(|job| job.args.values());
    Redactor::of(args.filter_map(|arg| match arg {
        ArgValue::Secret(secret) => Some(secret),
        _ => None,
    }))
}

impl UseOnHost {
    /// Returns the artifacts that are laid down, by digest.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.args.values().filter_map(|bound| match bound {
            ArgValue::Artifact(_, artifact) => artifact.as_ref(),
            _ => None,
        })
    }

    /// Returns whether an artifact that is laid down has this digest and is one file.
    pub fn is_one_file(&self, sha256: &str) -> bool {
        self.artifacts()
            .any(|a| a.is_one_file && a.sha256 == sha256)
    }

    /// Returns a target that must be made before this job can be judged.
    pub fn missing_artifact(&self) -> Option<&str> {
        let of_args = self.args.values().find_map(|bound| match bound {
            ArgValue::Artifact(target, None) => Some(target.as_str()),
            _ => None,
        });
        of_args.or(self.missing.as_deref())
    }

    /// Returns whether the recipe gives a name of its own to the command passed for `param`.
    pub(in crate::deploy) fn is_given(&self, param: &str, name: &str) -> bool {
        let param = self.recipe.param(param);
        param.is_some_and(|param| param.gives.iter().any(|given| given == name))
    }

    /// Returns whether a text stands for something else once a target is made.
    pub fn is_unmade(&self, text: &str) -> bool {
        text.contains(NOT_MADE) && self.missing_artifact().is_some()
    }

    pub(super) fn exists(&self, step: &Step) -> bool {
        let Some(param) = &step.if_param else {
            return true;
        };
        match self.args.get(param) {
            Some(ArgValue::Text(text) | ArgValue::Command(text) | ArgValue::Default(text)) => {
                !text.is_empty()
            }
            Some(ArgValue::Artifact(..) | ArgValue::Secret(_)) => true,
            None => false,
        }
    }
}
