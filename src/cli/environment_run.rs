//! One call of an environment: its parameters, what it needs, and the request for its hosts.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build_command::{BuildOptions, display};
use super::built_artifacts::{self, Artifacts};
use super::confirm::{self, Confirmations};
use super::query;
use super::resolve_args::{find, unknown_name, usage};
use super::secrets;
use super::signals::SignalListener;
use super::workspace::Workspace;
use crate::build::graph::TargetId;
use crate::build::key::TargetOutputs;
use crate::build::model::{Environment, Param, Project};
use crate::build::releasefile::COMMANDS;
use crate::cli::ui;
use crate::cli::ui::tee::TeeProgress;
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_OK, Error, ErrorKind, IoContext, Result};
use crate::core::fs;
use crate::core::progress::NullProgress;
use crate::deploy::plan::secret::SecretValue;
use crate::deploy::protocol::words::run_id;
use crate::deploy::remote::deploy_windows::ZoneClock;
use crate::deploy::remote::destination::Variable;
use crate::deploy::remote::known_machines::KnownMachines;
use crate::deploy::remote::unanswered;
use crate::deploy::report::plan_file::{PlanFile, is_allowed};
use crate::deploy::{
    self, ConnectionOptions, DeployPolicy, DeployRequest, Operator, Promoted, Recipes, StepVerdict,
};

/// Returns the value of each parameter, from the arguments in order.
pub(super) fn params(
    environment: &Environment,
    values: &[String],
) -> Result<BTreeMap<String, String>> {
    let usage = || format!("rel {}", usage(environment));
    if let Some(extra) = values.get(environment.params.len()) {
        let error = Error::usage(format!(
            "`{}` takes no argument `{extra}`",
            environment.name
        ))
        .note("usage", usage());
        return Err(match extra.as_str() {
            "rollback" | "plan" => error.help(format!("`rel {} --{extra}`", environment.name)),
            _ => error,
        });
    }
    let mut params = BTreeMap::new();
    for (i, param) in environment.params.iter().enumerate() {
        let value = match (values.get(i), &param.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => default.clone(),
            (None, None) => {
                let error = Error::usage(format!(
                    "`{}` needs its argument `{}`",
                    environment.name, param.name
                ));
                return Err(error.note("usage", usage()));
            }
        };
        if !param.one_of.is_empty() && !param.one_of.contains(&value) {
            let error = Error::usage(format!("`{}` cannot be `{value}`", param.name))
                .note("known", param.one_of.join(" "));
            let near =
                crate::core::diagnostics::suggest(&value, param.one_of.iter().map(String::as_str));
            return Err(match near {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            });
        }
        params.insert(param.name.clone(), value);
    }
    Ok(params)
}

/// Calls `act` with the environment and the parameters that `words` are.
pub(super) fn on_call(
    context: &mut Workspace,
    words: &[String],
    act: impl FnOnce(&EnvironmentRun<'_>) -> Result<u8>,
) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let (name, values) = match words.split_first() {
        Some((name, values)) => (name.as_str(), values),
        None => ("", words),
    };
    act(&EnvironmentRun::new(context, project, &root, name, values)?)
}

pub(super) fn find_environment<'a>(project: &'a Project, name: &str) -> Result<&'a Environment> {
    let found = project.environments.iter().find(|e| e.name == name);
    found.ok_or_else(|| {
        let environments = project.environments.iter().map(|e| e.name.as_str());
        let known: Vec<&str> = environments.chain(COMMANDS.iter().copied()).collect();
        match project.graph.find(name) {
            Some(_) => Error::usage(format!("`{name}` is a target, not a command"))
                .help(format!("rel build {name}")),
            None if name == "rollback" => Error::usage(format!("there is no command `{name}`"))
                .help("`rel ENVIRONMENT --rollback` restores the former release"),
            None => unknown_name("command or environment", name, &known),
        }
    })
}

/// One call of an environment.
pub(super) struct EnvironmentRun<'a> {
    pub(super) context: &'a Workspace,
    pub(super) project: &'a Project,
    pub(super) root: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) params: BTreeMap<String, String>,
    pub(super) promoted: Promoted,
}

/// How hosts are gone to.
#[derive(Clone, Copy, Default)]
pub(super) struct RunOptions<'a> {
    /// `--force`.
    pub(super) is_forced: bool,
    /// `--except`: uses that a rollback leaves as they are.
    pub(super) except: &'a [String],
    /// Nothing is changed, and hosts that do not answer are gone without.
    pub(super) is_question: bool,
    /// No step is looked at, only journals and leases: no secret is asked for.
    pub(super) is_by_journal: bool,
    /// No value of a secret is asked for: what is wanted has only names.
    pub(super) is_by_name: bool,
    /// What steps print is kept.
    pub(super) is_logged: bool,
    /// What a person lets through.
    pub(super) consent: Option<&'a Confirmations>,
    /// The plan that is to be carried out.
    pub(super) saved: Option<&'a PlanFile>,
}

impl<'a> EnvironmentRun<'a> {
    /// Returns the call of the environment `name` with these arguments.
    pub(super) fn new(
        context: &'a Workspace,
        project: &'a Project,
        root: &'a Path,
        name: &str,
        values: &[String],
    ) -> Result<Self> {
        let environment = find_environment(project, name)?;
        Ok(Self {
            context,
            project,
            root,
            environment,
            params: params(environment, values)?,
            promoted: Promoted::None,
        })
    }
}

impl EnvironmentRun<'_> {
    /// Builds what the environment needs, then brings its hosts up to date.
    pub(super) fn apply(&self, options: &BuildOptions, consent: &Confirmations) -> Result<u8> {
        // Said before anything is built.
        if let Err(refused) = is_allowed(self.environment, None) {
            return self.without_approval(refused, options.force);
        }
        self.check()?;
        let roots = self.needs()?;
        let mut made = BTreeMap::new();
        if !roots.is_empty() {
            let options = BuildOptions {
                tells_made: true,
                ..options.clone()
            };
            let report = super::build_command::run(
                self.context,
                self.project,
                self.root.to_owned(),
                &roots,
                &options,
                None,
            )?;
            if !report.summary.is_ok() {
                report.tell(&self.context.output, &self.project.graph);
                return Ok(report.exit_code(self.context));
            }
            if !self.context.output.json && !self.context.output.screen.is_quiet {
                ui::tell(super::build_summary::summary_line(&report.summary));
            }
            made = report.summary.made;
        }
        let way = RunOptions {
            is_forced: options.force,
            is_logged: true,
            consent: Some(consent),
            ..RunOptions::default()
        };
        self.with_request(&roots, &made, way, |request, progress, cancel| {
            let outcome = deploy::apply(request, progress, cancel)?;
            self.tell_outcome(&outcome);
            Ok(EXIT_OK)
        })
    }

    /// Ends a run that no approved plan allows: well if there is nothing to do.
    fn without_approval(&self, refused: Box<Error>, is_forced: bool) -> Result<u8> {
        self.check()?;
        let roots = self.needs()?;
        let (made, open) =
            query::fresh_outputs(self.context, self.project, self.root.to_owned(), &roots)?;
        let refused = match (self.promoted.is_none(), refused) {
            (true, refused) => refused,
            (false, refused) => refused.help(format!(
                "save one: `rel promote {} --plan-out plan.json`; another user: `rel approve \
                 plan.json --reason …`; then `rel apply plan.json`",
                self.purpose()
            )),
        };
        if !open.is_empty() {
            return Err(refused);
        }
        let way = RunOptions {
            is_forced,
            ..RunOptions::default()
        };
        self.with_request(&roots, &made, way, |request, _, cancel| {
            let plan = match deploy::plan(request, &NullProgress, cancel) {
                Ok(plan) => plan,
                Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
                // Whatever keeps from looking: an approved plan is wanted.
                Err(_) => return Err(refused),
            };
            let steps = plan.jobs.iter().flat_map(|job| &job.steps);
            let is_known = steps
                .clone()
                .all(|step| step.verdict != StepVerdict::Unknown);
            if plan.to_run > 0 || !is_known || plan.only_asks() || !plan.owed.is_empty() {
                return Err(refused);
            }
            self.tell_outcome(&deploy::DeployOutcome {
                fresh: plan.fresh,
                round_trips: plan.round_trips,
                hosts: plan.hosts.keys().cloned().collect(),
                plan,
                ..deploy::DeployOutcome::default()
            });
            Ok(EXIT_OK)
        })
    }

    /// Shows what `rollback` would do, host by host, from what to what.
    pub(super) fn plan_rollback(&self, is_forced: bool, except: &[String]) -> Result<u8> {
        let way = RunOptions {
            is_forced,
            except,
            is_by_name: true,
            ..RunOptions::default()
        };
        let made = BTreeMap::new();
        self.with_request(&[], &made, way, |request, progress, cancel| {
            let plan = deploy::plan_rollback(request, progress, cancel)?;
            match self.context.output.json {
                true => ui::print_json(&to_json(&plan)?),
                false => ui::print(&ui::rollback_view::text(
                    self.context.output.screen,
                    &plan,
                    is_forced,
                )),
            }
            Ok(EXIT_OK)
        })
    }

    pub(super) fn rollback(
        &self,
        is_forced: bool,
        except: &[String],
        consent: &Confirmations,
    ) -> Result<u8> {
        let way = RunOptions {
            is_forced,
            except,
            is_by_name: true,
            is_logged: true,
            consent: Some(consent),
            ..RunOptions::default()
        };
        self.with_request(&[], &BTreeMap::new(), way, |request, progress, cancel| {
            let outcome = deploy::rollback(request, progress, cancel)?;
            self.tell_outcome(&outcome);
            Ok(EXIT_OK)
        })
    }

    /// Shows what `apply` would do: targets first, then host by host, step by step.
    pub(super) fn plan(
        &self,
        is_forced: bool,
        out: Option<&Path>,
        consent: &Confirmations,
    ) -> Result<u8> {
        self.check()?;
        let roots = self.needs()?;
        let (made, open) =
            query::fresh_outputs(self.context, self.project, self.root.to_owned(), &roots)?;
        if !self.context.output.json {
            for line in &open {
                ui::print(line);
            }
        }
        let way = RunOptions {
            is_forced,
            ..RunOptions::default()
        };
        self.with_request(&roots, &made, way, |request, _, cancel| {
            let mut plan = deploy::plan(request, &NullProgress, cancel)?;
            // What this machine is asked may be about a file that is still to be made.
            if let Some(id) = roots.iter().find(|id| !made.contains_key(id)) {
                plan.ask_again_here(self.project.graph.name(*id));
            }
            match self.context.output.json {
                true => ui::print_json(&to_json(&plan)?),
                false => ui::print(&ui::plan_view::plan_text(self.context.output.screen, &plan)),
            }
            if let Some(error) = deploy::unwritable(&plan) {
                return Err(error);
            }
            if let Some(out) = out {
                let is_open = !open.is_empty();
                self.save(out, &roots, is_open, consent, request, plan)?;
            }
            Ok(EXIT_OK)
        })
    }

    /// Finds out before anything is built whether the uses are right with these arguments.
    fn check(&self) -> Result<()> {
        let is_open = |param: &Param| param.one_of.is_empty();
        if !self.environment.params.iter().any(is_open) {
            return Ok(());
        }
        let (recipes, _) = self.context.load_recipes(self.root)?;
        deploy::check_call(self.project, self.environment, &self.params, &recipes)
    }

    /// Returns the targets that must be fresh before.
    pub(super) fn needs(&self) -> Result<Vec<TargetId>> {
        let names = deploy::needed_targets(self.project, self.environment, &self.params)?;
        match names.is_empty() {
            true => Ok(Vec::new()),
            false => find(self.project, &names),
        }
    }

    /// Calls `work` with everything the hosts' side needs.
    pub(super) fn with_request(
        &self,
        roots: &[TargetId],
        made: &BTreeMap<TargetId, Arc<TargetOutputs>>,
        way: RunOptions<'_>,
        work: impl FnOnce(
            &DeployRequest<'_>,
            &dyn crate::core::progress::Progress,
            &Cancel,
        ) -> Result<u8>,
    ) -> Result<u8> {
        let artifacts = self.artifacts(roots, made)?;
        let (recipes, _) = self.context.load_recipes(self.root)?;
        let secrets = self.secrets(&way, &recipes)?;
        let cancel = Cancel::default();
        let _listener = SignalListener::start(cancel.clone(), || {}, unanswered::abandon)?;
        let display = display(self.context, &self.project.sources);
        let log = match way.is_logged {
            true => Some(self.open_log()?),
            false => None,
        };
        let progress = TeeProgress::new(display.as_ref(), log.as_ref().map(|(_, file)| file));
        let consent = way.consent.cloned().unwrap_or_default();
        let is_confirmed = consent.is_confirmed || way.saved.is_some_and(PlanFile::is_confirmed);
        let name = &self.environment.name;
        let saved = way.saved.map(|s| &s.body);
        let env = &self.context.env;
        let tz = env.var("TZ").and_then(|tz| tz.into_string().ok());
        let variable = |name: &str| env.var(name);
        let connection = connection_options(self.context, self.project, way.is_logged, &variable)?;
        let request = DeployRequest {
            project: self.project,
            environment: self.environment,
            params: self.params.clone(),
            artifacts: &|names| artifacts.find(names),
            version: match saved {
                Some(saved) => saved.version.clone(),
                None => self.version()?,
            },
            root: self.root,
            recipes: &recipes,
            secrets: &secrets,
            run_id: match saved {
                Some(saved) => saved.run_id.clone(),
                None => run_id(Workspace::now(), RandomState::new().hash_one(())),
            },
            purpose: self.purpose(),
            operator: Operator {
                who: env.operator(),
                clock: ZoneClock {
                    now: &Workspace::now_s,
                    tz: tz.as_deref(),
                },
                program: super::program(),
                connection,
            },
            policy: DeployPolicy {
                is_question: way.is_question,
                is_forced: way.is_forced,
                overrides: consent.overrides,
                confirm: &|all| match is_confirmed {
                    true => Ok(()),
                    false => confirm::ask(&self.context.output, name, all, &progress, &cancel),
                },
                except: way.except.to_vec(),
                promoted: self.promoted.clone(),
                saved: way.saved,
            },
        };
        work(&request, &progress, &cancel).map_err(|error| match &log {
            // A run that came to no step has nothing in its log.
            Some((path, _)) if error.facts.iter().any(|(name, _)| name == "step") => {
                error.note("log", fs::shown(path.as_os_str()))
            }
            _ => error,
        })
    }

    /// Returns the secrets that are needed, by name alone where no value will be.
    fn secrets(
        &self,
        way: &RunOptions<'_>,
        recipes: &Recipes,
    ) -> Result<BTreeMap<String, SecretValue>> {
        match (way.is_by_journal, way.is_by_name) {
            (true, _) => Ok(BTreeMap::new()),
            (_, true) => secrets::named(self.project, self.environment, recipes),
            _ => secrets::load(
                self.context,
                self.project,
                self.environment,
                self.root,
                recipes,
            ),
        }
    }

    /// Returns the words that name the environment on the command line.
    pub(super) fn purpose(&self) -> String {
        let params = self.environment.params.iter();
        let values = params.filter_map(|p| self.params.get(&p.name).map(String::as_str));
        let words = std::iter::once(self.environment.name.as_str()).chain(values);
        words.collect::<Vec<_>>().join(" ")
    }

    /// Opens the file that keeps what the steps of this run print, and returns its path
    /// relative to the repository.
    fn open_log(&self) -> Result<(PathBuf, File)> {
        self.context.prepare_state()?;
        let state_dir = Workspace::state_dir(self.root);
        let path = log_path(&state_dir, &self.environment.name, self.params.values());
        let file = fs::create_own(&path).context("create", &path)?;
        let shown = path.strip_prefix(self.root).unwrap_or(&path);
        Ok((shown.to_owned(), file))
    }

    /// Returns the files of each needed target.
    pub(super) fn artifacts(
        &self,
        roots: &[TargetId],
        made: &BTreeMap<TargetId, Arc<TargetOutputs>>,
    ) -> Result<Artifacts> {
        let mut artifacts = Artifacts::default();
        for id in roots {
            let target = self.project.graph.target(*id);
            let artifact = match made.get(id) {
                Some(made) if !target.outputs.is_empty() => {
                    Some(built_artifacts::artifact(target, made, self.root)?)
                }
                _ => None,
            };
            artifacts.insert(target, artifact);
        }
        Ok(artifacts)
    }

    fn version(&self) -> Result<Option<String>> {
        query::version(self.context, self.project, self.root.to_owned())
    }

    pub(super) fn tell_outcome(&self, outcome: &deploy::DeployOutcome) {
        if self.context.output.json {
            if let Ok(json) = to_json(outcome) {
                ui::print_json(&json);
            }
            return;
        }
        for url in &outcome.urls {
            ui::print_line(url);
        }
        if !self.context.output.screen.is_quiet {
            let line = ui::plan_view::outcome_line(&self.environment.name, outcome);
            ui::tell(line);
        }
    }
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::internal(format!("cannot write JSON: {e}")))
}

/// Returns where the last run of an environment keeps what its steps printed.
pub fn log_path<'a>(
    state_dir: &Path,
    environment: &'a str,
    params: impl Iterator<Item = &'a String>,
) -> PathBuf {
    let words = std::iter::once(environment).chain(params.map(String::as_str));
    let name: String = words
        .collect::<Vec<_>>()
        .join("-")
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(100)
        .collect();
    state_dir.join("logs").join(format!("{name}.log"))
}

/// Returns how hosts are reached from here. The file of the machines that they are is one that can
/// be written to, if `is_kept`.
pub(super) fn connection_options<'a>(
    context: &Workspace,
    project: &Project,
    is_kept: bool,
    variable: &'a Variable<'a>,
) -> Result<ConnectionOptions<'a>> {
    let machines = KnownMachines::read(context.machines_file(is_kept));
    Ok(ConnectionOptions {
        control_dir: context.control_dir()?,
        ssh: context.env.ssh(),
        secret_vars: secrets::variables(project),
        variable,
        machines: Arc::new(machines),
    })
}
