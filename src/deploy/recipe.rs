//! Recipes as data: parameters, derived names, facts and steps. No I/O but the loading.
//!
//! A recipe is a file of its own, shipped inside the binary or lying in the project's
//! `recipes/`, which wins by name. Its texts are templates whose names are checked
//! when it is read, so that a wrong recipe is found before any host is asked.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::deploy::marks::Marks;
use crate::deploy::{driver, parse};
use crate::error::{IoContext, Result};
use crate::model::{Arg, Use};
use crate::source::{Mistake, Place, Sources, suggest};
use crate::template::Template;

/// The recipes that ship inside the binary.
const SHIPPED: &[(&str, &str)] = &[
    ("backup", include_str!("../../recipes/backup.kdl")),
    (
        "changelog-line",
        include_str!("../../recipes/changelog-line.kdl"),
    ),
    ("pushed-tag", include_str!("../../recipes/pushed-tag.kdl")),
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
    ("evolve-live", include_str!("../../recipes/evolve-live.kdl")),
    ("http-check", include_str!("../../recipes/http-check.kdl")),
    ("changed", include_str!("../../recipes/changed.kdl")),
    ("maintenance", include_str!("../../recipes/maintenance.kdl")),
    ("log-window", include_str!("../../recipes/log-window.kdl")),
    ("service", include_str!("../../recipes/service.kdl")),
    (
        "versioned-release",
        include_str!("../../recipes/versioned-release.kdl"),
    ),
    ("wait-for", include_str!("../../recipes/wait-for.kdl")),
];

/// The drivers that ship inside the binary.
const DRIVERS: [(&str, &str); 3] = [
    ("postgres", include_str!("../../recipes/postgres.kdl")),
    ("sqlite", include_str!("../../recipes/sqlite.kdl")),
    ("zodb", include_str!("../../recipes/zodb.kdl")),
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
    /// The fact [`DUE`] says whether there is anything to do.
    pub has_due: bool,
    /// Where the name is written.
    pub place: Place,
}

/// The fact that the node `due` asks for.
pub const DUE: &str = "due";

/// How the value of a parameter is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
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
    /// It goes on when the connection ends, and the next run joins it.
    pub is_detached: bool,
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
    /// What it destroys, and how its way back stands.
    pub marks: Marks<Template>,
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
        leads: Leads,
    },
    /// Waits until something holds.
    Wait(Wait),
}

/// What is found at a port that is open while a run lasts.
#[derive(Clone, Debug)]
pub enum Leads {
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

/// All recipes that a project may use.
#[derive(Debug, Default)]
pub struct Recipes {
    texts: BTreeMap<String, Text>,
    drivers: BTreeMap<String, Text>,
    /// Recipes read together with a driver, by both names.
    driven: Mutex<BTreeMap<(String, String), Arc<Recipe>>>,
    /// Those that are there and can not be read.
    broken: BTreeSet<String>,
    /// Mistakes found in the files, with places in the [`Sources`] returned beside.
    pub mistakes: Vec<Mistake>,
}

/// A file, and what was read from it, once that was asked for.
#[derive(Debug)]
struct Text {
    text: Cow<'static, str>,
    file: u16,
    recipe: OnceLock<Option<Arc<Recipe>>>,
}

impl Text {
    fn new(text: Cow<'static, str>, file: u16) -> Self {
        Self {
            text,
            file,
            recipe: OnceLock::new(),
        }
    }
}

impl Recipes {
    /// Finds the shipped recipes and those of `project_dir`, which win by name.
    ///
    /// The project's are read at once. Mistakes in them do not fail it: they are in
    /// [`Recipes::mistakes`], to be shown together with those of the Releasefile. The shipped ones have
    /// none, and are read when a use names them.
    pub fn load(project_dir: Option<&Path>) -> Result<(Self, Sources)> {
        let mut recipes = Self::default();
        let mut sources = Sources::default();
        for (name, text) in SHIPPED {
            let path = PathBuf::from(format!("(shipped) recipes/{name}.kdl"));
            let text = Text::new(Cow::Borrowed(text), sources.add(path, text));
            recipes.texts.insert((*name).to_owned(), text);
        }
        for (name, text) in DRIVERS {
            let path = PathBuf::from(format!("(shipped) recipes/{name}.kdl"));
            let text = Text::new(Cow::Borrowed(text), sources.add(path, text));
            recipes.drivers.insert((*name).to_owned(), text);
        }
        for path in project_files(project_dir)? {
            let text = std::fs::read_to_string(&path).context("read recipe", &path)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            // As a person finds it from the Releasefile.
            let shown = Path::new("recipes").join(path.file_name().unwrap_or_default());
            let file = sources.add(shown, &text);
            match driver::is_driver(&text) {
                true => {
                    let text = Text::new(Cow::Owned(text), file);
                    recipes.drivers.insert(name.into_owned(), text);
                }
                false => recipes.add(&name, text, file),
            }
        }
        Ok((recipes, sources))
    }

    /// Reads a recipe of the project.
    fn add(&mut self, name: &str, text: String, file: u16) {
        match parse::recipe(name, &text, file) {
            Ok(recipe) => {
                let text = Text::new(Cow::Owned(text), file);
                text.recipe.get_or_init(|| Some(Arc::new(recipe)));
                self.texts.insert(name.to_owned(), text);
            }
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                self.broken.insert(name.to_owned());
            }
        }
    }

    /// Returns the recipe of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Recipe>> {
        let text = self.texts.get(name)?;
        let read = || {
            parse::recipe(name, &text.text, text.file)
                .ok()
                .map(Arc::new)
        };
        text.recipe.get_or_init(read).as_ref()
    }

    /// Returns the recipe that a `use` names, read together with the driver that it names.
    pub fn of_use(&self, one: &Use) -> Result<Option<Arc<Recipe>>, Box<Mistake>> {
        let Some(recipe) = self.get(&one.recipe) else {
            return Ok(None);
        };
        let arg = driver_arg(recipe, one);
        let (Some(arg), Some(base)) = (arg, self.texts.get(&one.recipe)) else {
            return Ok(Some(recipe.clone()));
        };
        let names = (one.recipe.clone(), arg.text.clone());
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(recipe) = driven.get(&names) {
            return Ok(Some(recipe.clone()));
        }
        let Some(driver) = self.drivers.get(&arg.text) else {
            let message = format!("there is no driver `{}`", arg.text);
            let mistake = Mistake::new("unknown_driver", arg.place, message, "not a driver");
            let known: Vec<&str> = self.drivers.keys().map(String::as_str).collect();
            return Err(Box::new(match suggest(&arg.text, known.iter().copied()) {
                Some(near) => mistake.help(format!("did you mean `{near}`?")),
                None => mistake.help(format!(
                    "there are {}; a project's own lie in `recipes/NAME.kdl`",
                    known.join(", ")
                )),
            }));
        };
        let base = (&*base.text, base.file);
        let read = parse::with_driver(&recipe.name, base, &arg.text, (&driver.text, driver.file));
        match read.map(Arc::new) {
            Ok(recipe) => {
                driven.insert(names, recipe.clone());
                Ok(Some(recipe))
            }
            Err(mistakes) => {
                let what = mistakes.first().map_or("", |m| m.message.as_str());
                let message = format!("driver `{}` does not fit: {what}", arg.text);
                Err(Box::new(Mistake::new(
                    "bad_driver",
                    arg.place,
                    message,
                    "named here",
                )))
            }
        }
    }

    /// Returns places in the files that a use is read from: its recipe's, and its driver's.
    pub fn places_of(&self, one: &Use) -> Vec<Place> {
        let Some(recipe) = self.get(&one.recipe) else {
            return Vec::new();
        };
        let driver = driver_arg(recipe, one).and_then(|arg| self.drivers.get(&arg.text));
        let driver = driver.map(|text| Place {
            file: text.file,
            ..Place::default()
        });
        [Some(recipe.place), driver].into_iter().flatten().collect()
    }

    /// Returns whether a recipe of that name is there, but can not be read.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// Returns the names of all recipes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
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

    /// Returns the parameter that names a driver.
    pub fn driver_param(&self) -> Option<&Param> {
        self.params.iter().find(|p| p.kind == Kind::Driver)
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

/// Returns the argument that names the driver of a use.
fn driver_arg<'a>(recipe: &Recipe, one: &'a Use) -> Option<&'a Arg> {
    let param = recipe.driver_param()?;
    one.args.get(&param.name).filter(|arg| !arg.text.is_empty())
}
