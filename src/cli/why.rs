//! `rel why`: why targets are stale, and with `--cache` who may use their results.

use serde_json::{Value, json};

use super::query::{TargetArgs, TargetReport, known_digests, lines, painted, survey};
use super::resolve_args::find;
use super::workspace::Workspace;
use crate::build::build_log::{BuildLog, TargetRecord};
use crate::build::digest::FileHasher;
use crate::build::graph::{CacheScope, Graph, Target};
use crate::cli::ui::TermOptions;
use crate::cli::ui::{self, DIM, NAME, Text, shown_time};
use crate::core::error::{EXIT_OK, Result};
use crate::core::fs::{self, RepoPath};

/// Files that are named as those that name the checkout.
const FILES_MAX: usize = 5;

/// Targets to be explained.
#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    #[command(flatten)]
    names: TargetArgs,
    /// Tell who may use what they made: this checkout or every one, and which files are the reason
    #[arg(long)]
    cache: bool,
}

/// Runs `rel why`.
pub fn why(context: &mut Workspace, args: &WhyArgs) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let graph = &project.graph;
    let roots = find(project, &args.names.targets)?;
    let answers = survey(context, project, root.clone(), &roots, args.names.how)?;
    let records = BuildLog::load_known(context.known_state())?;
    let digests = known_digests(context, &root);
    let is_asked = |answer: &TargetReport| args.cache && roots.contains(&answer.id);
    let shared = |answer: &TargetReport| -> Result<Option<Shared>> {
        let target = graph.target(answer.id);
        let is_asked = is_asked(answer) && !target.run.is_empty();
        is_asked
            .then(|| Shared::of(target, records.get(&target.name).as_ref(), &digests))
            .transpose()
    };
    if context.output.json {
        let mut targets = Vec::new();
        for answer in &answers {
            let mut target = answer.json(graph);
            if let Some(shared) = shared(answer)? {
                target["cache"] = shared.json();
            }
            targets.push(target);
        }
        ui::print_json(&json!({ "targets": targets }));
        return Ok(EXIT_OK);
    }
    let mut text = Text::new();
    for answer in &answers {
        let is_named = roots.contains(&answer.id);
        if answer.word() != "fresh" {
            text += lines(context.output.screen, graph, answer, 20);
        } else if is_named {
            text.line(fresh_line(context.output.screen, graph, answer, &records));
        }
        if let Some(shared) = shared(answer)? {
            text.line(format_args!("         {}", shared.line(&digests)));
        }
    }
    ui::print(&text);
    Ok(EXIT_OK)
}

fn fresh_line(
    screen: TermOptions,
    graph: &Graph,
    answer: &TargetReport,
    records: &BuildLog,
) -> Text {
    let target = graph.target(answer.id);
    let since = match records.get(&target.name) {
        Some(record) => {
            let age = std::time::Duration::from_secs(
                Workspace::now_s().saturating_sub(record.finished_s),
            );
            let retried = match record.attempts {
                0 | 1 => String::new(),
                attempts => format!(" at attempt {attempts}"),
            };
            format!(
                "built {} ago{retried}, key {}",
                shown_time(age),
                &record.key.hex()[..16]
            )
        }
        None => String::from("nothing of its own to run"),
    };
    let name = screen.paint(NAME, &target.name);
    painted(screen, answer) + "  " + name + "  " + screen.paint(DIM, since)
}

/// Who may use the last result of a target.
enum Shared {
    /// There is none.
    Unknown,
    /// No checkout: `cache #false`.
    Off,
    /// Checkouts at this path, because the Releasefile says so.
    Declared,
    /// Checkouts at this path, because these files, or the product, name it.
    Named(Vec<RepoPath>),
    /// This checkout, because it was made beside what no target declares.
    Beside(Vec<RepoPath>),
    /// Every checkout.
    Everybody,
}

impl Shared {
    fn of(target: &Target, record: Option<&TargetRecord>, digests: &FileHasher) -> Result<Self> {
        let Some(record) = record else {
            return Ok(Self::Unknown);
        };
        let is_bound = record.found.iter().any(|f| f.path.is_root());
        Ok(match target.cache {
            CacheScope::Off => Self::Off,
            _ if !record.beside.is_empty() => Self::Beside(record.beside.clone()),
            CacheScope::Here => Self::Declared,
            CacheScope::Checked if is_bound => {
                let mut names = Vec::new();
                for output in &record.made.outputs {
                    let content = digests.made_output(&output.path)?;
                    if content.is_some_and(|c| digests.names_root(&c)) {
                        names.push(output.path.clone());
                    }
                }
                Self::Named(names)
            }
            CacheScope::Checked | CacheScope::Anywhere => Self::Everybody,
        })
    }

    fn line(&self, digests: &FileHasher) -> String {
        let here = || {
            let root = fs::shown(digests.root().as_os_str()).into_owned();
            format!("its result is for checkouts at `{root}` alone")
        };
        match self {
            Self::Unknown => "no result is recorded".into(),
            Self::Off => "its result is not in the cache: `cache #false`".into(),
            Self::Declared => format!("{}: `cache \"here\"`", here()),
            Self::Named(names) if names.is_empty() => format!("{}: its product names it", here()),
            Self::Named(names) => {
                let verb = if names.len() == 1 { "names" } else { "name" };
                format!("{}: {} {verb} it", here(), some_of(names))
            }
            Self::Beside(paths) => {
                let paths = some_of(paths);
                format!("its result is not in the cache: it was made beside {paths}, undeclared")
            }
            Self::Everybody => "its result is for every checkout".into(),
        }
    }

    fn json(&self) -> Value {
        let (word, names) = match self {
            Self::Unknown => ("unknown", None),
            Self::Off => ("none", None),
            Self::Declared => ("here", None),
            Self::Named(names) => ("here", Some(names)),
            Self::Beside(paths) => ("none", Some(paths)),
            Self::Everybody => ("everywhere", None),
        };
        let names = names.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        json!({ "shared": word, "files": names.unwrap_or_default() })
    }
}

/// Returns the first of some paths, and how many more there are.
fn some_of(paths: &[RepoPath]) -> String {
    let shown = paths.iter().take(FILES_MAX).map(|p| format!("`{p}`"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(FILES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
