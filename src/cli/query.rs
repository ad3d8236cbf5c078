//! Questions: `list`, `status`, `hash`, `plan`, `check`. They change nothing, not even
//! the state.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::resolve_args::{find, usage};
use super::signals::SignalListener;
use super::workspace::Workspace;
use crate::build::build_log::BuildLog;
use crate::build::digest::FileHasher;
use crate::build::graph::{Graph, TargetId};
use crate::build::key::TargetOutputs;
use crate::build::model::Project;
use crate::build::runner::Runner;
use crate::build::stale::{StaleReason, StalenessChecker, Verdict};
use crate::cli::ui::{self, DIM, NAME, OK, TermOptions, Text, WARN};
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_OK, Error, Result, plural};
use crate::core::fs;

/// Targets named on the command line, or an environment with its parameters.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// Targets; all when none is named. For `status` also an environment
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    #[command(flatten)]
    pub how: How,
}

/// Targets whose keys are wanted.
#[derive(Debug, clap::Args)]
pub struct HashArgs {
    /// Targets; all when none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct How {
    /// Run no command of the Releasefile; targets that need one to be judged are unknown
    #[arg(long)]
    no_commands: bool,
}

impl How {
    /// Refuses what cannot be answered so.
    pub fn must_run(self) -> Result<()> {
        match self.no_commands {
            false => Ok(()),
            true => Err(
                Error::usage("`--no-commands` is for targets, not for environments")
                    .help("hosts are queried by commands"),
            ),
        }
    }
}

/// What is known of one target without running anything.
pub(super) struct TargetReport {
    pub(super) id: TargetId,
    verdict: Result<Verdict>,
}

impl TargetReport {
    pub(super) fn word(&self) -> &'static str {
        match &self.verdict {
            Ok(Verdict::Fresh(_)) => "fresh",
            Ok(Verdict::Stale(_)) => "stale",
            Ok(Verdict::Pending(_)) => "pending",
            Ok(Verdict::Unknown(_)) => "unknown",
            Err(_) => "error",
        }
    }

    /// Returns every reason as a line.
    fn reasons(&self, graph: &Graph) -> Vec<String> {
        match &self.verdict {
            Ok(Verdict::Fresh(_)) => Vec::new(),
            Ok(Verdict::Stale(reasons)) => reasons.iter().map(StaleReason::to_string).collect(),
            Ok(Verdict::Pending(needs)) => {
                let name = |id: &TargetId| {
                    format!(
                        "needs `{}`, which is not up to date",
                        graph.target(*id).name
                    )
                };
                needs.iter().map(name).collect()
            }
            Ok(Verdict::Unknown(why)) => vec![why.clone()],
            Err(error) => vec![error.to_string()],
        }
    }

    pub(super) fn json(&self, graph: &Graph) -> Value {
        let target = graph.target(self.id);
        json!({
            "target": target.name,
            "desc": target.desc,
            "state": self.word(),
            "reasons": self.reasons(graph),
        })
    }
}

/// Calls `ask` with an inspector that only looks.
fn inspect<T>(
    context: &Workspace,
    project: &Project,
    root: PathBuf,
    how: How,
    ask: impl FnOnce(&StalenessChecker<'_>, &BuildLog) -> Result<T>,
) -> Result<T> {
    let state_dir = context.known_state();
    let digests = known_digests(context, &root);
    let runner = Arc::new(Runner::default());
    let cancel = Cancel::default();
    let _listener = SignalListener::of_runner(&runner, cancel.clone())?;
    let env = |name: &str| -> Option<OsString> { context.env.var(name) };
    let version = project.version.as_ref();
    let mut inspector = StalenessChecker::new(
        &project.graph,
        &digests,
        &runner,
        &env,
        version,
        Workspace::now_s(),
    );
    inspector.may_run = !how.no_commands;
    let answer = ask(&inspector, &BuildLog::load_known(state_dir)?)?;
    cancel.check()?;
    Ok(answer)
}

/// Returns what is in files, with what former runs remember of that.
pub(super) fn known_digests(context: &Workspace, root: &Path) -> FileHasher {
    let stat_cache = context.known_state().map(|dir| dir.join("stat.v1"));
    FileHasher::load(root, stat_cache.unwrap_or_default())
}

/// Returns the verdict on `roots` and all they need, needs first.
pub(super) fn survey(
    context: &Workspace,
    project: &Project,
    root: PathBuf,
    roots: &[TargetId],
    how: How,
) -> Result<Vec<TargetReport>> {
    let order = project.graph.closure(roots);
    let verdicts = inspect(context, project, root, how, |i, records| {
        Ok(i.survey(&order, records))
    })?;
    let answers = order.into_iter().zip(verdicts);
    Ok(answers
        .map(|(id, verdict)| TargetReport { id, verdict })
        .collect())
}

pub(super) fn painted(screen: TermOptions, answer: &TargetReport) -> Text {
    let style = match answer.word() {
        "fresh" => OK,
        "error" => ui::ERROR,
        _ => WARN,
    };
    screen.paint(style, format_args!("{:>7}", answer.word()))
}

/// Runs `rel list`, and `rel` alone.
pub fn list(context: &mut Workspace, how: How) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let all: Vec<TargetId> = project.graph.targets().map(|(id, _)| id).collect();
    let mut answers = survey(context, project, root, &all, how)?;
    answers.sort_by_key(|a| a.id);
    if context.output.json {
        let environments: Vec<Value> = project.environments.iter().map(environment_json).collect();
        let targets: Vec<Value> = answers.iter().map(|a| a.json(&project.graph)).collect();
        ui::print_json(
            &json!({ "project": project.name, "targets": targets, "environments": environments }),
        );
        return Ok(EXIT_OK);
    }
    let screen = context.output.screen;
    let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0).min(40);
    let name_width = width(
        &mut answers
            .iter()
            .map(|a| project.graph.target(a.id).name.chars().count()),
    );
    let mut text = Text::new();
    for answer in &answers {
        let target = project.graph.target(answer.id);
        let name = screen.paint(NAME, format_args!("{:name_width$}", target.name));
        let desc = target.desc.as_deref().unwrap_or("");
        text.line((painted(screen, answer) + "  " + name + "  " + desc).trimmed());
    }
    if !project.environments.is_empty() {
        text.line("");
        text.line("environments, each a command of its own:");
    }
    for environment in &project.environments {
        let usage = usage(environment);
        let desc = environment.desc.as_deref().unwrap_or("");
        let name = screen.paint(NAME, format_args!("rel {usage}"));
        text.line((Text::from("         ") + name + "  " + desc).trimmed());
    }
    if project.graph.is_empty() && project.environments.is_empty() {
        text.line("the Releasefile declares nothing yet");
    }
    ui::print(&text);
    Ok(EXIT_OK)
}

fn environment_json(environment: &crate::build::model::Environment) -> Value {
    let params: Vec<Value> = environment
        .params
        .iter()
        .map(
            |p| json!({ "name": p.name, "one_of": p.one_of, "default": p.default, "desc": p.desc }),
        )
        .collect();
    json!({ "environment": environment.name, "desc": environment.desc, "params": params })
}

/// Runs `rel status`.
pub fn status(context: &mut Workspace, names: &TargetArgs) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let roots = find(project, &names.targets)?;
    let answers = survey(context, project, root, &roots, names.how)?;
    if context.output.json {
        let targets: Vec<Value> = answers.iter().map(|a| a.json(&project.graph)).collect();
        ui::print_json(&json!({ "targets": targets }));
        return Ok(EXIT_OK);
    }
    let mut text = Text::new();
    let (mut fresh, mut unknown) = (0, 0);
    for answer in &answers {
        fresh += usize::from(answer.word() == "fresh");
        unknown += usize::from(answer.word() == "unknown");
        if answer.word() == "fresh" && !context.output.screen.is_verbose {
            continue;
        }
        text += lines(context.output.screen, &project.graph, answer, 1);
    }
    let stale = answers.len() - fresh - unknown;
    let rest = match unknown {
        0 => String::new(),
        count => format!(", {count} unknown"),
    };
    let targets = plural(fresh, "target");
    text.line(format_args!(
        "{fresh} {targets} up to date, {stale} not{rest}"
    ));
    ui::print(&text);
    Ok(EXIT_OK)
}

/// Returns a target's verdict with up to `limit` reasons.
pub(super) fn lines(
    screen: TermOptions,
    graph: &Graph,
    answer: &TargetReport,
    limit: usize,
) -> Text {
    let name = screen.paint(NAME, &graph.target(answer.id).name);
    let reasons = answer.reasons(graph);
    let head = painted(screen, answer) + "  " + name;
    let mut text = Text::new();
    if limit == 1 {
        let more = reasons.len().saturating_sub(1);
        let tail = if more > 0 {
            format!("  (and {more} more)")
        } else {
            String::new()
        };
        let first = reasons
            .first()
            .map_or("", |r| r.lines().next().unwrap_or(""));
        text.line((head + format_args!("  {first}{tail}")).trimmed());
        return text;
    }
    text.line(head);
    for reason in reasons.iter().take(limit) {
        for line in reason.lines() {
            text.line(format_args!("         {line}"));
        }
    }
    if reasons.len() > limit {
        text.line(format_args!("         and {} more", reasons.len() - limit));
    }
    text
}

/// Runs `rel hash`.
pub fn hash(context: &mut Workspace, args: &HashArgs) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let roots = find(project, &args.targets)?;
    let order = project.graph.closure(&roots);
    let keys = |i: &StalenessChecker<'_>, _: &BuildLog| i.source_keys(&order);
    let hashes = inspect(context, project, root, How::default(), keys)?;
    let named = order
        .iter()
        .zip(&hashes)
        .filter(|(id, _)| roots.contains(id));
    let named: Vec<_> = named
        .map(|(id, key)| (&project.graph.target(*id).name, key.hex()))
        .collect();
    match (context.output.json, named.as_slice()) {
        (true, _) => {
            let map: serde_json::Map<_, _> = named
                .iter()
                .map(|(name, hex)| ((*name).clone(), hex.clone().into()))
                .collect();
            ui::print_json(&Value::Object(map));
        }
        // One target: only its hash, for scripts.
        (false, [(_, hex)]) => ui::print_line(hex),
        (false, many) => {
            let mut text = Text::new();
            for (name, hex) in many {
                text.line(format_args!("{hex}  {name}"));
            }
            ui::print(&text);
        }
    }
    Ok(EXIT_OK)
}

/// Runs `rel build -n` and `rel plan` of targets.
pub fn plan_targets(context: &mut Workspace, targets: &[String], how: How) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let roots = find(project, targets)?;
    let answers = survey(context, project, root, &roots, how)?;
    if context.output.json {
        let open = answers.iter().filter(|a| a.word() != "fresh");
        let open: Vec<Value> = open.map(|a| a.json(&project.graph)).collect();
        ui::print_json(&json!({ "would_run": open }));
        return Ok(EXIT_OK);
    }
    let mut text = Text::new();
    let mut counts = [0usize; 2];
    let mut unknown = 0;
    for answer in &answers {
        let verb = match &answer.verdict {
            Ok(Verdict::Fresh(_)) => continue,
            Ok(Verdict::Pending(_)) => "may run",
            Ok(Verdict::Unknown(_)) => "unknown",
            Ok(Verdict::Stale(_)) => "run",
            Err(_) => "fails",
        };
        match verb {
            "unknown" => unknown += 1,
            verb => counts[usize::from(verb == "may run")] += 1,
        }
        let verb = context.output.screen.paint(NAME, format_args!("{verb:>8}"));
        let name = &project.graph.target(answer.id).name;
        let reasons = answer.reasons(&project.graph);
        let reason = reasons
            .first()
            .map_or("", |r| r.lines().next().unwrap_or(""));
        text.line(verb + " " + name + "  " + context.output.screen.paint(DIM, reason));
    }
    let fresh = answers.len() - counts[0] - counts[1] - unknown;
    let rest = match unknown {
        0 => String::new(),
        count => format!(", {count} unknown"),
    };
    text.line(match counts {
        [0, 0] if unknown == 0 => {
            format!(
                "nothing to do, {fresh} {} up to date",
                plural(fresh, "target")
            )
        }
        [run, 0] => format!("{run} would run, {fresh} up to date{rest}"),
        [run, may] => {
            format!(
                "{run} would run, {may} more if what they need changes, {fresh} up to date{rest}"
            )
        }
    });
    ui::print(&text);
    Ok(EXIT_OK)
}

/// Runs `rel check`: mistakes end in an error when the Releasefile is loaded.
pub fn check(context: &mut Workspace) -> Result<u8> {
    context.load_anew()?;
    let (context, project) = context.with_project()?;
    let (targets, environments) = (project.graph.len(), project.environments.len());
    match context.output.json {
        true => {
            ui::print_json(&json!({ "ok": true, "targets": targets, "environments": environments }))
        }
        false => ui::print_line(format!(
            "{} has no errors: {targets} {}, {environments} {}",
            file_name(project),
            plural(targets, "target"),
            plural(environments, "environment"),
        )),
    }
    Ok(EXIT_OK)
}

/// Returns the name of the file that was read.
fn file_name(project: &Project) -> String {
    let first = project.sources.files().first();
    first.map_or_else(String::new, |file| {
        fs::shown(file.path.as_os_str()).into_owned()
    })
}

/// What targets made.
type MadeById = BTreeMap<TargetId, Arc<TargetOutputs>>;

/// Returns what the fresh ones of `roots` made, and a line for each target that would run.
pub fn fresh_outputs(
    context: &Workspace,
    project: &Project,
    root: PathBuf,
    roots: &[TargetId],
) -> Result<(MadeById, Vec<Text>)> {
    let mut made = BTreeMap::new();
    let mut open = Vec::new();
    for answer in survey(context, project, root, roots, How::default())? {
        match &answer.verdict {
            Ok(Verdict::Fresh(m)) => drop(made.insert(answer.id, m.clone().unwrap_or_default())),
            _ => open.push(lines(context.output.screen, &project.graph, &answer, 1)),
        }
    }
    Ok((made, open))
}

/// Returns what stands at the outputs of targets, whether they are fresh or not.
pub fn existing_outputs(
    context: &Workspace,
    project: &Project,
    root: &Path,
    roots: &[TargetId],
) -> Result<MadeById> {
    let digests = known_digests(context, root);
    let mut made = BTreeMap::new();
    for id in roots {
        let outputs = crate::build::outputs::digest_all(project.graph.target(*id), &digests)?;
        if !outputs.is_empty() {
            let product = None;
            made.insert(*id, Arc::new(TargetOutputs { outputs, product }));
        }
    }
    Ok(made)
}

/// Returns the project's version.
pub fn version(context: &Workspace, project: &Project, root: PathBuf) -> Result<Option<String>> {
    let version = |inspector: &StalenessChecker<'_>, _: &BuildLog| inspector.version();
    inspect(context, project, root, How::default(), version)
}
