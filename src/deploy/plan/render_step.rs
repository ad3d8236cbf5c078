//! Texts of a recipe -> the final texts of a step. Pure; a part of [`use_on_host`](super::use_on_host).
//!
//! Names are lexical. A text of the recipe, a default among them, sees the recipe's own names and
//! the host's answers, never a variable of the Releasefile. A command that a `use` passes sees the
//! names of the Releasefile, and of the recipe's those alone that the parameter `gives`.
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use crate::core::error::{Error, ErrorKind, Result};
use crate::core::template::{Mode, Template, TemplateError, Value};
use crate::deploy::health_check::{HealthCheck, HttpCheck};
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::port::{ForwardTarget, MaintenanceReply, Port};
use crate::deploy::plan::secret::SecretContent;
use crate::deploy::plan::use_on_host::{
    ArgValue, RenderPhase, ResolvedAction, ResolvedService, ResolvedStep, UseOnHost,
};
use crate::deploy::protocol::words::NOT_MADE;
use crate::deploy::protocol::words::{artifact_names, hex};
use crate::deploy::recipe::effects::StepEffects;
use crate::deploy::recipe::{Action, PortTarget as Written, Step, WaitFor};

/// All names, for one rendering.
pub(in crate::deploy) struct RenderScope<'a> {
    job: &'a UseOnHost,
    late: RenderPhase<'a>,
    names: BTreeMap<String, Value>,
    /// So many commands within commands are being rendered.
    depth: Cell<usize>,
}

/// Commands may name commands, so deep.
const DEPTH_MAX: usize = 8;

impl<'a> RenderScope<'a> {
    /// Returns all names that texts of `job` have.
    pub(in crate::deploy) fn new(job: &'a UseOnHost, late: RenderPhase<'a>) -> Result<Self> {
        let mut scope = Self {
            job,
            late,
            names: job.built_in.clone(),
            depth: Cell::new(0),
        };
        for (name, bound) in &job.args {
            match bound {
                ArgValue::Text(text) => {
                    scope.names.insert(name.clone(), Value::from(text.as_str()));
                }
                ArgValue::Command(text) | ArgValue::Default(text) => {
                    let id = scope.command_id(name, bound, text)?;
                    scope
                        .names
                        .insert(format!("{name}.id"), Value::from(id.as_str()));
                }
                ArgValue::Secret(secret) => {
                    let mark = Value::from(secret.reference().as_str());
                    scope.names.insert(name.clone(), mark);
                }
                ArgValue::Artifact(_, artifact) => {
                    for (tail, value) in artifact_names(artifact.as_ref()) {
                        scope.names.insert(format!("{name}.{tail}"), value);
                    }
                }
            }
        }
        for derived in &job.recipe.lets {
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

impl RenderScope<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.names.get(name) {
            return Some(value.clone());
        }
        let is_fact = self.job.recipe.facts.iter().any(|f| f.name == name);
        let note = name.strip_prefix("notes.");
        match self.late {
            RenderPhase::Symbolic if is_fact || note.is_some() || name == "run-id" => {
                Some(Value::from(format!("{{{name}}}").as_str()))
            }
            RenderPhase::Symbolic => None,
            RenderPhase::Known { run, .. } if name == "run-id" => Some(Value::from(run)),
            RenderPhase::Known { facts, .. } if is_fact => {
                Some(Value::from(facts.get(name).map_or("", String::as_str)))
            }
            RenderPhase::Known { notes, .. } => note.map(|note| {
                let values = notes.get(note).cloned().unwrap_or_default();
                Value::Many(values.into_iter().map(OsString::from).collect())
            }),
        }
    }

    /// The names of a recipe's text: a command is one word there, for `eval`.
    fn get_or_command(&self, name: &str) -> Option<Value> {
        self.get(name).or_else(|| self.command(name))
    }

    /// The names of the command that a `use` passes for `param`: those that the parameter gives,
    /// then those of the Releasefile.
    fn get_for_caller(&self, param: &str, name: &str) -> Option<Value> {
        if self.job.is_given(param, name) {
            return self.get_or_command(name);
        }
        match name == "run-id" || name.starts_with("notes.") {
            true => self.get(name),
            false => self.job.caller.get(name).cloned(),
        }
    }

    /// Renders the command that is passed for `param`; `None` if none is.
    fn passed(&self, param: &str) -> Option<Result<OsString>> {
        let bound = self.job.args.get(param)?;
        let (ArgValue::Command(text) | ArgValue::Default(text)) = bound else {
            return None;
        };
        let render = |command: Template| match bound {
            ArgValue::Default(_) => command.render(&|name| self.get_or_command(name)),
            _ => command.render(&|name| self.get_for_caller(param, name)),
        };
        let command = self.parse_command(text);
        Some(command.and_then(|command| render(command).map_err(|e| self.refuse(text, &e))))
    }

    fn command(&self, name: &str) -> Option<Value> {
        if self.depth.get() == DEPTH_MAX {
            return None;
        }
        self.depth.set(self.depth.get() + 1);
        let value = self.passed(name).and_then(Result::ok);
        self.depth.set(self.depth.get() - 1);
        value.map(Value::One)
    }

    /// A digest of a command as it is written: names of the recipe stand for themselves,
    /// because some of them are made from this very digest.
    fn command_id(&self, param: &str, bound: &ArgValue, text: &str) -> Result<String> {
        let template = self.parse_command(text)?;
        let bound = template
            .bind(&|name| match bound {
                ArgValue::Default(_) => self.job.built_in.get(name).cloned(),
                _ if self.job.is_given(param, name) => None,
                _ => self.job.caller.get(name).cloned(),
            })
            .map_err(|e| self.refuse(text, &e))?;
        Ok(hex(bound.source().as_bytes())[..12].to_owned())
    }

    fn parse_command(&self, text: &str) -> Result<Template> {
        Template::parse(text, Mode::Shell).map_err(|e| self.refuse(text, &e))
    }

    fn refuse(&self, text: &str, error: &TemplateError) -> Box<Error> {
        Error::new(ErrorKind::Releasefile, error.to_string())
            .note("use", self.job.label.clone())
            .note("recipe", self.job.recipe.name.clone())
            .note("text", text)
            .help(error.help())
    }

    /// Renders one text of the recipe; a command parameter that stands alone is the text that is
    /// passed for it.
    pub(in crate::deploy) fn render(&self, template: &Template) -> Result<String> {
        let rendered = match template.only_name().and_then(|name| self.passed(name)) {
            Some(command) => command?,
            None => template
                .render(&|name| self.get_or_command(name))
                .map_err(|e| self.refuse(&template.source(), &e))?,
        };
        rendered.into_string().map_err(|text| {
            let shown = crate::core::fs::shown(&text).into_owned();
            Error::new(ErrorKind::Releasefile, "a text for a host is not UTF-8").note("text", shown)
        })
    }

    fn optional(&self, template: Option<&Template>) -> Result<Option<String>> {
        let text = template.map(|t| self.render(t)).transpose()?;
        Ok(text.filter(|t| !t.trim().is_empty()))
    }

    fn duration(&self, template: &Template) -> Result<Duration> {
        let text = self.render(template)?;
        crate::core::deploy_window::duration(&text).map_err(|e| {
            Error::new(
                ErrorKind::Releasefile,
                format!("`{text}` is not a duration: {e}"),
            )
            .note("use", self.job.label.clone())
            .help("write `90s`, `10m` or `24h`")
        })
    }

    pub(in crate::deploy) fn step(&self, step: &Step) -> Result<ResolvedStep> {
        let seat = match &step.action {
            Action::Fetch { .. } | Action::Port { .. } => RunsOn::Operator,
            action if action.is_operators() => RunsOn::Operator,
            _ if step.is_from => RunsOn::From,
            _ => RunsOn::Host,
        };
        let mut id = format!("{}/{}", self.job.label, step.name);
        if let Some(per) = &step.per {
            id.push_str(&format!("[{}]", self.render(per)?));
        }
        if seat == RunsOn::From {
            // One source may serve several hosts: their records are kept apart.
            id.push_str(&format!(">{}", self.job.host.as_deref().unwrap_or("-")));
        }
        let env: Result<Vec<_>> = step
            .env
            .iter()
            .map(|(name, value)| Ok((name.clone(), self.render(value)?)))
            .collect();
        let undo = self.optional(step.undo.as_ref())?;
        Ok(ResolvedStep {
            name: step.name.clone(),
            id: crate::deploy::protocol::journal::column(&id),
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
            undo: undo.map(|text| (text, step.undo_when)),
            dir: self.optional(step.dir.as_ref())?,
            env: env?,
            timeout: step.timeout,
            on_change: step.on_change.clone(),
            is_detached: step.is_detached,
            marks: StepEffects {
                desc: self.optional(step.marks.desc.as_ref())?,
                destroys: self.optional(step.marks.destroys.as_ref())?,
                undo_check: self.optional(step.marks.undo_check.as_ref())?,
                rollback_check: self.optional(step.marks.rollback_check.as_ref())?,
                is_once: step.marks.is_once,
                needs_no_undo: step.marks.needs_no_undo,
                into_foreign: step.marks.into_foreign || self.job.into_foreign,
                makes: self.optional(step.marks.makes.as_ref())?,
            },
            sealed: self.sealed(&step.action)?,
        })
    }

    /// Returns the file that a step writes, if there is a secret in it.
    fn sealed(&self, action: &Action) -> Result<Option<SecretContent>> {
        let Action::Write { content, .. } = action else {
            return Ok(None);
        };
        let secret = |name: &str| match self.job.args.get(name) {
            Some(ArgValue::Secret(secret)) => Some(secret),
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

    fn act(&self, action: &Action) -> Result<ResolvedAction> {
        Ok(match action {
            Action::Run(text) => ResolvedAction::Run(self.render(text)?),
            Action::Put {
                artifact,
                to,
                is_shared,
            } => self.put(artifact, to, *is_shared)?,
            Action::Fetch { path, to } => ResolvedAction::Fetch {
                path: self.render(path)?,
                to: self.render(to)?,
            },
            Action::Write {
                path,
                content,
                mode,
                owner,
            } => ResolvedAction::Write {
                path: self.render(path)?,
                content: self.render(content)?,
                mode: mode.clone(),
                owner: self.optional(owner.as_ref())?,
            },
            Action::Symlink { path, to } => ResolvedAction::Symlink {
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
            } => ResolvedAction::Service(ResolvedService {
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
            } => ResolvedAction::Managed {
                start: self.render(start)?,
                status: self.render(status)?,
                stop: self.optional(stop.as_ref())?.unwrap_or_default(),
                within: self.duration(within)?,
            },
            Action::Scope { name, enter, leave } => ResolvedAction::Scope {
                name: self.render(name)?.replace('/', "_"),
                enter: self.render(enter)?,
                leave: self.render(leave)?,
            },
            Action::Port {
                name,
                listen,
                leads,
            } => ResolvedAction::Port(self.port(name, listen, leads)?),
            Action::Wait(wait) => self.wait(wait)?,
        })
    }

    fn put(&self, artifact: &str, to: &Template, is_shared: bool) -> Result<ResolvedAction> {
        Ok(ResolvedAction::Put {
            sha256: match self.job.args.get(artifact) {
                Some(ArgValue::Artifact(_, Some(artifact))) => artifact.sha256.clone(),
                _ => NOT_MADE.to_owned(),
            },
            to: self.render(to)?,
            base: hex(format!("{} {artifact}", self.job.label).as_bytes())[..12].to_owned(),
            is_shared,
        })
    }

    fn port(&self, name: &Template, listen: &Template, leads: &Written) -> Result<Port> {
        let port = Port {
            name: self.render(name)?.replace('/', "_"),
            listen: self.render(listen)?,
            leads: self.leads(leads)?,
        };
        // What waits for a host's answer is not known before.
        if matches!(self.late, RenderPhase::Known { .. }) {
            let check = port.check();
            check.map_err(|error| error.note("use", self.job.label.clone()))?;
        }
        Ok(port)
    }

    fn leads(&self, leads: &Written) -> Result<ForwardTarget> {
        Ok(match leads {
            Written::To(to) => ForwardTarget::To(self.render(to)?),
            Written::Answer {
                status,
                headers,
                body,
            } => {
                let mut texts = Vec::new();
                for (name, value) in headers {
                    if let Some(value) = self.optional(Some(value))? {
                        texts.push((name.clone(), value));
                    }
                }
                let body = body.as_ref().map(|body| self.render(body)).transpose()?;
                ForwardTarget::Answer(MaintenanceReply {
                    status: self.render(status)?,
                    headers: texts,
                    body: body.unwrap_or_default(),
                })
            }
        })
    }

    fn wait(&self, wait: &crate::deploy::recipe::Wait) -> Result<ResolvedAction> {
        let within = self.duration(&wait.within)?;
        let every = self.duration(&wait.every)?;
        Ok(match &wait.what {
            WaitFor::Command(command) => ResolvedAction::Await {
                command: self.render(command)?,
                within,
                every,
            },
            WaitFor::Port(port) => {
                ResolvedAction::Ask(HealthCheck::port(self.render(port)?, within, every))
            }
            WaitFor::Http(properties) => {
                let mut texts = BTreeMap::new();
                for (name, template) in properties {
                    if let Some(text) = self.optional(Some(template))? {
                        texts.insert(name.clone(), text);
                    }
                }
                ResolvedAction::Ask(HealthCheck::http(
                    HttpCheck::from_texts(texts)?,
                    within,
                    every,
                ))
            }
        })
    }
}

impl UseOnHost {
    /// Returns the questions that the host answers before the first step.
    pub fn facts(&self) -> Result<Vec<(String, String, bool)>> {
        let scope = RenderScope::new(self, RenderPhase::Symbolic)?;
        self.recipe
            .facts
            .iter()
            .map(|f| Ok((f.name.clone(), scope.render(&f.command)?, f.is_from)))
            .collect()
    }

    /// Returns the questions that must succeed before anything is changed: name and command.
    pub fn guards(&self) -> Result<Vec<(String, String)>> {
        let scope = RenderScope::new(self, RenderPhase::Symbolic)?;
        let guards = self.recipe.guards.iter();
        guards
            .map(|g| Ok((g.name.clone(), scope.render(&g.command)?)))
            .collect()
    }

    /// Returns those of its guards that are asked during the rollback. One about an artifact, which is
    /// not made then, says no.
    pub fn back_guards(&self) -> Result<impl Iterator<Item = (String, String)>> {
        let guards = self.guards()?.into_iter().zip(&self.recipe.guards);
        let is_known = |command: String| match command.contains(NOT_MADE) {
            true => String::from("echo 'it asks about an artifact, which is not made here'; false"),
            false => command,
        };
        let back = guards.filter(|(_, guard)| guard.is_back);
        Ok(back.map(move |((name, command), _)| (name, is_known(command))))
    }

    /// Returns whether it is done whole or not at all: texts name the run, so that each attempt
    /// makes something new, or a port is open only as long as the run that opened it.
    pub fn is_whole(&self) -> Result<bool> {
        let symbolic = self.steps(RenderPhase::Symbolic)?;
        let is_dated = |draft: &ResolvedStep| {
            let fields = draft.key_fields();
            fields.iter().any(|(_, text)| text.contains("{run-id}"))
        };
        let is_one =
            |draft: &ResolvedStep| matches!(draft.act, ResolvedAction::Port(_)) || is_dated(draft);
        Ok(symbolic.iter().any(is_one))
    }

    /// Returns the steps that exist, with their texts.
    pub fn steps(&self, late: RenderPhase<'_>) -> Result<Vec<ResolvedStep>> {
        let scope = RenderScope::new(self, late)?;
        self.recipe
            .steps
            .iter()
            .filter(|s| self.exists(s))
            .map(|s| scope.step(s))
            .collect()
    }
}
