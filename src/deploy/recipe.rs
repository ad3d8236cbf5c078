//! Recipes as data: parameters, derived names, facts and steps. No I/O but the loading.
//!
//! A recipe is a file of its own, shipped inside the binary or lying in the project's
//! `recipes/`, which wins by name. Its texts are templates whose names are checked
//! when it is read, so that a wrong recipe is found before any host is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::deploy::parse;
use crate::error::{IoContext, Result};
use crate::source::{Mistake, Place, Sources};
use crate::template::Template;

/// The recipes that ship inside the binary.
const SHIPPED: &[(&str, &str)] = &[
    (
        "clean-checkout",
        include_str!("../../recipes/clean-checkout.kdl"),
    ),
    ("host-facts", include_str!("../../recipes/host-facts.kdl")),
    (
        "forbidden-pattern",
        include_str!("../../recipes/forbidden-pattern.kdl"),
    ),
    ("db-copy", include_str!("../../recipes/db-copy.kdl")),
    ("evolve", include_str!("../../recipes/evolve.kdl")),
    ("http-check", include_str!("../../recipes/http-check.kdl")),
    ("changed", include_str!("../../recipes/changed.kdl")),
    ("log-window", include_str!("../../recipes/log-window.kdl")),
    ("service", include_str!("../../recipes/service.kdl")),
    (
        "versioned-release",
        include_str!("../../recipes/versioned-release.kdl"),
    ),
    ("wait-for", include_str!("../../recipes/wait-for.kdl")),
];

/// Remote work that can be reused: what to ask, what to do, how to go back.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Name, as `use` says it.
    pub name: String,
    /// One line for people.
    pub desc: Option<String>,
    /// What a `use` passes.
    pub params: Vec<Param>,
    /// Names derived from parameters, in order.
    pub lets: Vec<Let>,
    /// What the host is asked before the first step.
    pub facts: Vec<Fact>,
    /// What must hold on the host before anything is changed anywhere.
    pub guards: Vec<Guard>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Where the name is written.
    pub place: Place,
}

/// How the value of a parameter is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    #[default]
    Text,
    /// Shell text of the caller; stands alone where it is used.
    Command,
    /// Files made by a needed target.
    Artifact,
    /// A value that only the text of a `write` may hold.
    Secret,
}

/// A parameter of a recipe.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name, used as `{name}`.
    pub name: String,
    /// How its value is read.
    pub kind: Kind,
    /// Value where the `use` gives none; without it the parameter must be given.
    pub default: Option<String>,
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
}

/// One act of a recipe.
#[derive(Clone, Debug)]
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
    /// The user that its commands run as; without it whoever logs in.
    pub user: Option<Template>,
    /// Done before the action, each time: the ground that it starts from.
    pub prepare: Option<Template>,
    /// What it does.
    pub action: Action,
    /// Succeeds when it is done already.
    pub check: Option<Template>,
    /// Must succeed afterwards.
    pub verify: Vec<Template>,
    /// The way back.
    pub undo: Option<Template>,
    /// The way back waits until everything else has gone back.
    pub is_undo_late: bool,
    /// Where commands run; the host's root without it.
    pub dir: Option<Template>,
    /// Environment variables of its commands.
    pub env: Vec<(String, Template)>,
    /// Ended when it takes longer.
    pub timeout: Option<Duration>,
    /// Where the name is written.
    pub place: Place,
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
        /// User, with a group behind a colon; else whoever logs in.
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
        /// The way back of a first start.
        stop: Option<Template>,
        /// How long it may take to come up.
        within: Template,
    },
    /// Waits until something holds.
    Wait(Wait),
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

/// All recipes that a project may use.
#[derive(Clone, Debug, Default)]
pub struct Recipes {
    map: BTreeMap<String, Arc<Recipe>>,
    /// Those that are there and can not be read.
    broken: BTreeSet<String>,
    /// Mistakes found in the files, with places in the [`Sources`] returned beside.
    pub mistakes: Vec<Mistake>,
}

impl Recipes {
    /// Reads the shipped recipes and those of `project_dir`, which win by name.
    ///
    /// Mistakes in the texts do not fail it: they are in [`Recipes::mistakes`], to be
    /// shown together with those of the Releasefile.
    pub fn load(project_dir: Option<&Path>) -> Result<(Self, Sources)> {
        let mut recipes = Self::default();
        let mut sources = Sources::default();
        for (name, text) in SHIPPED {
            let path = PathBuf::from(format!("(shipped) recipes/{name}.kdl"));
            recipes.add(name, path, text, &mut sources);
        }
        for path in project_files(project_dir)? {
            let text = std::fs::read_to_string(&path).context("read recipe", &path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            // As a person finds it from the Releasefile.
            let shown = Path::new("recipes").join(path.file_name().unwrap_or_default());
            recipes.add(&name, shown, &text, &mut sources);
        }
        Ok((recipes, sources))
    }

    fn add(&mut self, name: &str, path: PathBuf, text: &str, sources: &mut Sources) {
        let file = sources.add(path, text);
        match parse::recipe(name, text, file) {
            Ok(recipe) => drop(self.map.insert(name.to_owned(), Arc::new(recipe))),
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                self.broken.insert(name.to_owned());
            }
        }
    }

    /// Returns the recipe of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Recipe>> {
        self.map.get(name)
    }

    /// Returns whether a recipe of that name is there, but can not be read.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// Returns the names of all recipes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }
}

fn project_files(dir: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(dir) = dir else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if crate::fs::is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e).context("list", dir),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.context("list", dir)?.path();
        if path.extension().is_some_and(|e| e == "kdl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl Recipe {
    /// Returns the parameter of that name.
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|p| p.name == name)
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
