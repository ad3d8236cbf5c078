//! Recipes as data: parameters, derived names, facts and steps. Pure.
//!
//! A recipe is a file of its own, shipped inside the binary or lying in the project's
//! `recipes/`, which wins by name. Its texts are templates whose names are checked
//! when it is read, so that a wrong recipe is found before any host is asked.

pub mod actions;
pub mod driver;
pub mod effects;
pub mod library;
pub mod names;
pub mod parser;
pub mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::diagnostics::Span;
use crate::core::template::Template;
use crate::deploy::recipe::effects::StepEffects;

/// Remote work that can be reused: what to ask, what to do, how to undo it.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Name, as `use` says it.
    pub name: String,
    /// One line for people.
    pub desc: Option<String>,
    /// What a `use` passes.
    pub params: Vec<RecipeParam>,
    /// Names derived from parameters, in order.
    pub lets: Vec<Let>,
    /// What the host is asked before the first step.
    pub facts: Vec<Fact>,
    /// What must hold on the host before anything is changed anywhere.
    pub guards: Vec<Guard>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Values of hosts that its texts name, those of steps and defaults aside: `host.port`.
    pub host_names: BTreeSet<String>,
    /// The fact [`DUE`] says whether there is anything to do.
    pub has_due: bool,
    /// Where the name is written.
    pub place: Span,
}

/// The fact that the node `due` asks for.
pub const DUE: &str = "due";

/// How the value of a parameter is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParamKind {
    /// A text.
    #[default]
    Text,
    /// Shell text of the caller; alone it is that text, elsewhere one word for `eval`.
    Command,
    /// Name of a driver: parameters and names that are read together with the recipe.
    Driver,
    /// Files made by a needed target.
    Artifact,
    /// A value that only the text of a `write` may hold.
    Secret,
}

impl ParamKind {
    /// Returns the word for it in `type=`; `text` where that is left out.
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Command => "command",
            Self::Driver => "driver",
            Self::Artifact => "artifact",
            Self::Secret => "secret",
        }
    }
}

/// A parameter of a recipe.
#[derive(Clone, Debug)]
pub struct RecipeParam {
    /// Name, used as `{name}`.
    pub name: String,
    /// How its value is read.
    pub kind: ParamKind,
    /// Value where the `use` gives none; without it the parameter must be given.
    pub default: Option<String>,
    /// For a command: the names of the recipe that the text of a `use` may mention.
    pub gives: Vec<String>,
    /// Names a directory on the host that no other use may have.
    pub is_own: bool,
    /// One line for people.
    pub desc: Option<String>,
}

/// A name derived from others.
#[derive(Clone, Debug)]
pub struct Let {
    /// Name, used as `{name}`.
    pub name: String,
    /// What it stands for.
    pub value: Template,
    /// Stands for the first 12 hex digits of the value's digest instead.
    pub is_digest: bool,
}

/// A question to a host whose answer is a name in later texts.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Name, used as `{name}`; never part of a key.
    pub name: String,
    /// What prints the answer.
    pub command: Template,
    /// Asked on the `from` host.
    pub is_from: bool,
}

/// A question that must succeed before anything is changed.
#[derive(Clone, Debug)]
pub struct Guard {
    /// Name, by which a person overrides it.
    pub name: String,
    /// Fails, and prints the evidence.
    pub command: Template,
    /// Also asked before `--rollback`: it concerns the state of the host, not what is released.
    pub is_back: bool,
}

/// When the rollback of a step runs, during the rollback of a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndoWhen {
    /// In its turn: in the reverse order of the steps.
    #[default]
    InTurn,
    /// With the services that restart, in the order of the steps; in its turn where none does.
    WithRestarts,
    /// When everything else was rolled back, services included.
    Last,
}

/// One act of a recipe.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Name, unique in the recipe.
    pub name: String,
    /// Its records are kept apart by this text.
    pub per: Option<Template>,
    /// Exists only where this parameter is not empty.
    pub if_param: Option<String>,
    /// Steps of the same recipe whose change makes it stale.
    pub on_change: Vec<String>,
    /// Done on the `from` host.
    pub is_from: bool,
    /// It continues when the connection ends, and the next run joins it.
    pub is_detached: bool,
    /// The user that its commands run as; without it the login user.
    pub user: Option<Template>,
    /// Done before the action, each time: the ground that it starts from.
    pub prepare: Option<Template>,
    /// What it does.
    pub action: Action,
    /// Succeeds when it is done already.
    pub check: Option<Template>,
    /// Must succeed afterwards.
    pub verify: Vec<Template>,
    /// The rollback.
    pub undo: Option<Template>,
    /// When that runs.
    pub undo_when: UndoWhen,
    /// Where commands run; the host's root without it.
    pub dir: Option<Template>,
    /// Environment variables of its commands.
    pub env: Vec<(String, Template)>,
    /// Ended when it takes longer.
    pub timeout: Option<Duration>,
    /// What it destroys, and how its rollback stands.
    pub marks: StepEffects<Template>,
    /// Values of hosts that its texts name: `host.port`.
    pub host_names: BTreeSet<String>,
    /// Where the name is written.
    pub place: Span,
}

/// What a step does: exactly one of these.
#[derive(Clone, Debug)]
pub enum Action {
    /// Shell text.
    Run(Template),
    /// Lays an artifact down.
    Put {
        /// Name of the artifact's parameter.
        artifact: String,
        /// Where; with a trailing slash, into that directory.
        to: Template,
        /// Its files may be shared with the next one by hard links.
        is_shared: bool,
    },
    /// Copies a directory or file from the `from` host.
    Fetch {
        /// Path there.
        path: Template,
        /// The directory it becomes here.
        to: Template,
    },
    /// Writes a file.
    Write {
        /// Path.
        path: Template,
        /// Whole content.
        content: Template,
        /// Permission bits, octal.
        mode: String,
        /// User, with a group behind a colon; else the login user.
        owner: Option<Template>,
    },
    /// Points a symbolic link somewhere.
    Symlink {
        /// The link.
        path: Template,
        /// What it says.
        to: Template,
    },
    /// Starts a command that stays.
    Service {
        /// Name among the services of this environment.
        name: Template,
        /// Foreground command.
        run: Template,
        /// Its output goes there.
        log: Template,
        /// How it is asked to stop, instead of by a signal.
        stop: Option<Template>,
        /// Must succeed after each start.
        ready: Option<Template>,
        /// How long `ready` may take.
        within: Template,
    },
    /// Starts or restarts a command that another manager keeps.
    Managed {
        /// Starts it, or restarts it where it runs.
        start: Template,
        /// Succeeds while it is up.
        status: Template,
        /// The rollback of a first start.
        stop: Option<Template>,
        /// How long it may take to come up.
        within: Template,
    },
    /// Enters a mode that is left when the run ends, however it ends.
    Scope {
        /// Name among the scopes of this environment.
        name: Template,
        /// Enters it.
        enter: Template,
        /// Leaves it; also run when it was entered in part.
        leave: Template,
    },
    /// Opens a port of the host that is served from the operator's machine until the run ends.
    Port {
        /// Name among the scopes of this environment.
        name: Template,
        /// Address on the host.
        listen: Template,
        /// What is found there.
        leads: PortTarget,
    },
    /// Waits until something holds.
    Wait(Wait),
}

/// What is found at a port that is open while a run lasts.
#[derive(Clone, Debug)]
pub enum PortTarget {
    /// An address as the operator's machine sees it.
    To(Template),
    /// One answer to whatever is asked over HTTP.
    Answer {
        /// Its status.
        status: Template,
        /// Its headers; those without a value are left out.
        headers: Vec<(String, Template)>,
        /// Its body.
        body: Option<Template>,
    },
}

/// Something to wait for.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What is tried.
    pub what: WaitFor,
    /// For how long.
    pub within: Template,
    /// Pause between tries.
    pub every: Template,
}

/// What a wait tries.
#[derive(Clone, Debug)]
pub enum WaitFor {
    /// A command on the host.
    Command(Template),
    /// An answer over HTTP, from the operator's machine; the properties as templates.
    Http(BTreeMap<String, Template>),
    /// A port that takes connections, from the operator's machine.
    Port(Template),
}

impl Recipe {
    /// Returns the parameter of that name.
    pub fn param(&self, name: &str) -> Option<&RecipeParam> {
        self.params.iter().find(|p| p.name == name)
    }

    /// Returns whether a parameter, a derived name or a fact is called so.
    pub fn has_name(&self, name: &str) -> bool {
        let base = name.split('.').next().unwrap_or(name);
        self.param(base).is_some()
            || self.lets.iter().any(|one| one.name == name)
            || self.facts.iter().any(|fact| fact.name == name)
    }

    /// Returns the parameter that names a driver.
    pub fn driver_param(&self) -> Option<&RecipeParam> {
        self.params.iter().find(|p| p.kind == ParamKind::Driver)
    }

    /// Returns whether anything is taken from a `from` host.
    pub fn needs_from(&self) -> bool {
        self.facts.iter().any(|f| f.is_from)
            || self
                .steps
                .iter()
                .any(|s| s.is_from || matches!(s.action, Action::Fetch { .. }))
    }
}

impl Default for Action {
    fn default() -> Self {
        Self::Run(Template::default())
    }
}

impl Action {
    /// Returns whether it is tried from the operator's machine.
    pub fn is_operators(&self) -> bool {
        matches!(
            self,
            Self::Wait(Wait {
                what: WaitFor::Http(_) | WaitFor::Port(_),
                ..
            })
        )
    }
}
