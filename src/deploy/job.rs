//! One use of a recipe on one host, with all its texts. Pure.
//!
//! Texts are rendered twice. Symbolically, with `{fact}` left as it is written: that
//! is what a key is made of, so that a host's answer never makes a step stale. And
//! really, once the host has answered: that is what runs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::deploy::recipe::{Action, Recipe, Step, WaitFor};
use crate::deploy::secret::{Sealed, Secret};
use crate::deploy::waves::Wave;
use crate::deploy::words::{artifact_names, hex};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{HttpCheck, Wait};
use crate::model::Artifact;
use crate::source::Place;
use crate::template::{Mode, Template, TemplateError, Value};

/// Stands for the digest of an artifact that has not been made yet.
pub const NOT_MADE: &str = "not-made-yet";

/// One use of a recipe on one host.
#[derive(Clone, Debug)]
pub struct Job {
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
    /// Where it stands in a rollout.
    pub wave: Option<Wave>,
    /// Age at which it is done again.
    pub max_age: Option<Duration>,
    /// Names of the place it is written in.
    pub caller: BTreeMap<String, Value>,
    /// Names that the recipe has without declaring them.
    pub built_in: BTreeMap<String, Value>,
    /// What is passed.
    pub args: BTreeMap<String, Bound>,
    /// A target that texts of the use name (`{wheel.id}`) and that is not made yet.
    pub missing: Option<String>,
    /// Where the use is written.
    pub place: Place,
}

/// A value that is passed to a recipe.
#[derive(Clone, Debug)]
pub enum Bound {
    /// A text.
    Text(String),
    /// Shell text, and whether it reads the caller's names.
    Command(String),
    /// A needed target, with its files if it has been made.
    Artifact(String, Option<Artifact>),
    /// A secret.
    Secret(Secret),
}

/// What is known when texts are rendered.
#[derive(Clone, Copy, Debug)]
pub enum Late<'a> {
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

/// Who carries out a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seat {
    /// The host.
    #[default]
    Host,
    /// The host that something is taken from.
    From,
    /// This machine, between the hosts' programs.
    Operator,
}

/// A step with its texts rendered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Its name in the recipe.
    pub name: String,
    /// Its name in the journal.
    pub id: String,
    /// Who carries it out.
    pub seat: Seat,
    /// The user that its commands run as, if that is not whoever logs in.
    pub user: Option<String>,
    /// Done before that, each time, at the host's root.
    pub prepare: Option<String>,
    /// What it does.
    pub act: Act,
    /// Succeeds when it is done already.
    pub check: Option<String>,
    /// Must succeed afterwards.
    pub verify: Vec<String>,
    /// The way back, and whether it waits for the others.
    pub undo: Option<(String, bool)>,
    /// Where commands run.
    pub dir: Option<String>,
    /// Environment variables of its commands.
    pub env: Vec<(String, String)>,
    /// Ended when it takes longer.
    pub timeout: Option<Duration>,
    /// Names of earlier steps of this job whose change makes it stale.
    pub on_change: Vec<String>,
    /// It goes on when the connection ends.
    pub is_detached: bool,
    /// The file that it writes, where that holds a secret: shown nowhere, and what stands
    /// there is never fetched. The texts above have marks instead.
    pub sealed: Option<Sealed>,
}

/// What a step does, in final texts.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Shell text.
    Run(String),
    /// Lays down the artifact with this digest.
    Put { sha256: String, to: String },
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
    Service(Service),
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
    /// Waits for a command on the host.
    Await {
        command: String,
        within: Duration,
        every: Duration,
    },
    /// Waits for an answer, from here.
    Ask(Wait),
}

impl Default for Act {
    fn default() -> Self {
        Self::Run(String::new())
    }
}

/// A command that stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
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

impl Job {
    /// Returns the questions that the host answers before the first step.
    pub fn facts(&self) -> Result<Vec<(String, String, bool)>> {
        let scope = self.scope(Late::Symbolic)?;
        self.recipe
            .facts
            .iter()
            .map(|f| Ok((f.name.clone(), scope.render(&f.command)?, f.is_from)))
            .collect()
    }

    /// Returns the questions that must succeed before anything is changed: name and command.
    pub fn guards(&self) -> Result<Vec<(String, String)>> {
        let scope = self.scope(Late::Symbolic)?;
        let guards = self.recipe.guards.iter();
        guards
            .map(|g| Ok((g.name.clone(), scope.render(&g.command)?)))
            .collect()
    }

    /// Returns whether texts name the run, so that each attempt makes something new.
    pub fn is_dated(&self) -> Result<bool> {
        let symbolic = self.steps(Late::Symbolic)?;
        Ok(symbolic.iter().any(|d| {
            d.key_fields()
                .iter()
                .any(|(_, text)| text.contains("{run-id}"))
        }))
    }

    /// Returns the steps that exist, with their texts.
    pub fn steps(&self, late: Late<'_>) -> Result<Vec<Draft>> {
        let scope = self.scope(late)?;
        self.recipe
            .steps
            .iter()
            .filter(|s| self.exists(s))
            .map(|s| scope.step(s))
            .collect()
    }

    /// Returns the artifacts that are laid down, by digest.
    pub fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.args.values().filter_map(|bound| match bound {
            Bound::Artifact(_, artifact) => artifact.as_ref(),
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
            Bound::Artifact(target, None) => Some(target.as_str()),
            _ => None,
        });
        of_args.or(self.missing.as_deref())
    }

    fn exists(&self, step: &Step) -> bool {
        let Some(param) = &step.if_param else {
            return true;
        };
        match self.args.get(param) {
            Some(Bound::Text(text) | Bound::Command(text)) => !text.is_empty(),
            Some(Bound::Artifact(..) | Bound::Secret(_)) => true,
            None => false,
        }
    }

    fn scope<'a>(&'a self, late: Late<'a>) -> Result<Scope<'a>> {
        let mut scope = Scope {
            job: self,
            late,
            names: self.built_in.clone(),
            depth: Cell::new(0),
        };
        for (name, bound) in &self.args {
            match bound {
                Bound::Text(text) => {
                    scope.names.insert(name.clone(), Value::from(text.as_str()));
                }
                Bound::Command(text) => {
                    let id = scope.command_id(text)?;
                    scope
                        .names
                        .insert(format!("{name}.id"), Value::from(id.as_str()));
                }
                Bound::Secret(secret) => {
                    let mark = Value::from(secret.mark().as_str());
                    scope.names.insert(name.clone(), mark);
                }
                Bound::Artifact(_, artifact) => {
                    for (tail, value) in artifact_names(artifact.as_ref()) {
                        scope.names.insert(format!("{name}.{tail}"), value);
                    }
                }
            }
        }
        for derived in &self.recipe.lets {
            let mut text = scope.render(&derived.value)?;
            if derived.is_digest {
                text = hex(text.as_bytes())[..12].to_owned();
            }
            scope
                .names
                .insert(derived.name.clone(), Value::from(text.as_str()));
        }
        Ok(scope)
    }
}

/// All names, for one rendering.
struct Scope<'a> {
    job: &'a Job,
    late: Late<'a>,
    names: BTreeMap<String, Value>,
    /// So many commands within commands are being rendered.
    depth: Cell<usize>,
}

/// Commands may name commands, so deep.
const DEPTH_MAX: usize = 8;

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.names.get(name) {
            return Some(value.clone());
        }
        let is_fact = self.job.recipe.facts.iter().any(|f| f.name == name);
        let note = name.strip_prefix("notes.");
        match self.late {
            Late::Symbolic if is_fact || note.is_some() || name == "run-id" => {
                Some(Value::from(format!("{{{name}}}").as_str()))
            }
            Late::Symbolic => None,
            Late::Known { run, .. } if name == "run-id" => Some(Value::from(run)),
            Late::Known { facts, .. } if is_fact => {
                Some(Value::from(facts.get(name).map_or("", String::as_str)))
            }
            Late::Known { notes, .. } => note.map(|note| {
                let values = notes.get(note).cloned().unwrap_or_default();
                Value::Many(values.into_iter().map(OsString::from).collect())
            }),
        }
    }

    /// The names of a recipe's text: a command is one word there, for `eval`.
    fn get_or_command(&self, name: &str) -> Option<Value> {
        self.get(name).or_else(|| self.command(name))
    }

    /// The names of a caller's command: the recipe's, then those of the Releasefile.
    fn get_for_caller(&self, name: &str) -> Option<Value> {
        self.get(name)
            .or_else(|| self.job.caller.get(name).cloned())
            .or_else(|| self.command(name))
    }

    fn command(&self, name: &str) -> Option<Value> {
        let Some(Bound::Command(text)) = self.job.args.get(name) else {
            return None;
        };
        if self.depth.get() == DEPTH_MAX {
            return None;
        }
        self.depth.set(self.depth.get() + 1);
        let command = self.parse_command(text).ok();
        let value = command.and_then(|c| c.render(&|name| self.get_for_caller(name)).ok());
        self.depth.set(self.depth.get() - 1);
        value.map(Value::One)
    }

    /// A digest of what the caller wrote: names of the recipe stand for themselves,
    /// because some of them are made from this very digest.
    fn command_id(&self, text: &str) -> Result<String> {
        let template = self.parse_command(text)?;
        let bound = template
            .bind(&|name| self.job.caller.get(name).cloned())
            .map_err(|e| self.refuse(text, &e))?;
        Ok(hex(bound.source().as_bytes())[..12].to_owned())
    }

    fn parse_command(&self, text: &str) -> Result<Template> {
        Template::parse(text, Mode::Shell).map_err(|e| self.refuse(text, &e))
    }

    fn refuse(&self, text: &str, error: &TemplateError) -> Box<Error> {
        Error::new(ErrorKind::Releasefile, error.to_string())
            .fact("use", self.job.label.clone())
            .fact("recipe", self.job.recipe.name.clone())
            .fact("text", text)
            .hinted(error.help())
    }

    /// Renders one text of the recipe; a command parameter that stands alone is the
    /// caller's text, with the caller's names.
    fn render(&self, template: &Template) -> Result<String> {
        let rendered = match template.only_name().and_then(|n| self.job.args.get(n)) {
            Some(Bound::Command(text)) => {
                let command = self.parse_command(text)?;
                command
                    .render(&|name| self.get_for_caller(name))
                    .map_err(|e| self.refuse(text, &e))?
            }
            _ => template
                .render(&|name| self.get_or_command(name))
                .map_err(|e| self.refuse(&template.source(), &e))?,
        };
        rendered.into_string().map_err(|text| {
            let shown = crate::fs::shown(&text).into_owned();
            Error::new(ErrorKind::Releasefile, "a text for a host is not UTF-8").fact("text", shown)
        })
    }

    fn optional(&self, template: Option<&Template>) -> Result<Option<String>> {
        let text = template.map(|t| self.render(t)).transpose()?;
        Ok(text.filter(|t| !t.trim().is_empty()))
    }

    fn duration(&self, template: &Template) -> Result<Duration> {
        let text = self.render(template)?;
        humantime::parse_duration(&text).map_err(|e| {
            Error::new(
                ErrorKind::Releasefile,
                format!("`{text}` is not a duration: {e}"),
            )
            .fact("use", self.job.label.clone())
            .hinted("write `90s`, `10m` or `24h`")
        })
    }

    fn step(&self, step: &Step) -> Result<Draft> {
        let seat = match &step.action {
            Action::Fetch { .. } => Seat::Operator,
            action if action.is_operators() => Seat::Operator,
            _ if step.is_from => Seat::From,
            _ => Seat::Host,
        };
        let mut id = format!("{}/{}", self.job.label, step.name);
        if let Some(per) = &step.per {
            id.push_str(&format!("[{}]", self.render(per)?));
        }
        if seat == Seat::From {
            // One source may serve several hosts: their records are kept apart.
            id.push_str(&format!(">{}", self.job.host.as_deref().unwrap_or("-")));
        }
        let env: Result<Vec<_>> = step
            .env
            .iter()
            .map(|(name, value)| Ok((name.clone(), self.render(value)?)))
            .collect();
        let undo = self.optional(step.undo.as_ref())?;
        Ok(Draft {
            name: step.name.clone(),
            id: crate::deploy::journal::column(&id),
            seat,
            user: self.optional(step.user.as_ref())?,
            prepare: self.optional(step.prepare.as_ref())?,
            act: self.act(&step.action)?,
            check: self.optional(step.check.as_ref())?,
            verify: step
                .verify
                .iter()
                .filter_map(|v| self.optional(Some(v)).transpose())
                .collect::<Result<_>>()?,
            undo: undo.map(|text| (text, step.is_undo_late)),
            dir: self.optional(step.dir.as_ref())?,
            env: env?,
            timeout: step.timeout,
            on_change: step.on_change.clone(),
            is_detached: step.is_detached,
            sealed: self.sealed(&step.action)?,
        })
    }

    /// Returns the file that a step writes, if there is a secret in it.
    fn sealed(&self, action: &Action) -> Result<Option<Sealed>> {
        let Action::Write { content, .. } = action else {
            return Ok(None);
        };
        let secret = |name: &str| match self.job.args.get(name) {
            Some(Bound::Secret(secret)) => Some(secret),
            _ => None,
        };
        let Some(first) = content.names().find_map(secret) else {
            return Ok(None);
        };
        let value = |name: &str| match secret(name) {
            Some(secret) => Some(Value::from(secret.value())),
            None => self.get(name),
        };
        let text = content.render(&value);
        let text = text.map_err(|e| self.refuse(&content.source(), &e))?;
        let text = text
            .into_string()
            .map_err(|_| Error::new(ErrorKind::Releasefile, "a text for a host is not UTF-8"))?;
        Ok(Some(first.seal(text)))
    }

    fn act(&self, action: &Action) -> Result<Act> {
        Ok(match action {
            Action::Run(text) => Act::Run(self.render(text)?),
            Action::Put { artifact, to } => Act::Put {
                sha256: match self.job.args.get(artifact) {
                    Some(Bound::Artifact(_, Some(artifact))) => artifact.sha256.clone(),
                    _ => NOT_MADE.to_owned(),
                },
                to: self.render(to)?,
            },
            Action::Fetch { path, to } => Act::Fetch {
                path: self.render(path)?,
                to: self.render(to)?,
            },
            Action::Write {
                path,
                content,
                mode,
                owner,
            } => Act::Write {
                path: self.render(path)?,
                content: self.render(content)?,
                mode: mode.clone(),
                owner: self.optional(owner.as_ref())?,
            },
            Action::Symlink { path, to } => Act::Symlink {
                path: self.render(path)?,
                to: self.render(to)?,
            },
            Action::Service {
                name,
                run,
                log,
                stop,
                ready,
                within,
            } => Act::Service(Service {
                name: self.render(name)?.replace('/', "_"),
                run: self.render(run)?,
                log: self.render(log)?,
                stop: self.optional(stop.as_ref())?.unwrap_or_default(),
                ready: self.optional(ready.as_ref())?.unwrap_or_default(),
                within: self.duration(within)?,
            }),
            Action::Managed {
                start,
                status,
                stop,
                within,
            } => Act::Managed {
                start: self.render(start)?,
                status: self.render(status)?,
                stop: self.optional(stop.as_ref())?.unwrap_or_default(),
                within: self.duration(within)?,
            },
            Action::Scope { name, enter, leave } => Act::Scope {
                name: self.render(name)?.replace('/', "_"),
                enter: self.render(enter)?,
                leave: self.render(leave)?,
            },
            Action::Wait(wait) => self.wait(wait)?,
        })
    }

    fn wait(&self, wait: &crate::deploy::recipe::Wait) -> Result<Act> {
        let within = self.duration(&wait.within)?;
        let every = self.duration(&wait.every)?;
        Ok(match &wait.what {
            WaitFor::Command(command) => Act::Await {
                command: self.render(command)?,
                within,
                every,
            },
            WaitFor::Port(port) => Act::Ask(Wait::port(self.render(port)?, within, every)),
            WaitFor::Http(properties) => {
                let mut texts = BTreeMap::new();
                for (name, template) in properties {
                    if let Some(text) = self.optional(Some(template))? {
                        texts.insert(name.clone(), text);
                    }
                }
                Act::Ask(Wait::http(HttpCheck::from_texts(texts)?, within, every))
            }
        })
    }
}
