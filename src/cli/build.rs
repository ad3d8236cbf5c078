//! `rel build`: bring targets up to date.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::context::Context;
use super::names::find;
use super::signals::Listener;
use crate::builder::{Builder, Options, Summary};
use crate::cache::Store;
use crate::cache::local::LocalStore;
use crate::digest::Digests;
use crate::error::{self, EXIT_OK, Result, plural};
use crate::graph::{Graph, TargetId};
use crate::model::Project;
use crate::progress::{Event, Progress, Settled};
use crate::records::Records;
use crate::runner::Runner;
use crate::runner::register::Register;
use crate::source::Sources;
use crate::stale::Inspector;
use crate::ui::{self, shown_time};

/// How targets are built; also for the targets that an environment needs.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BuildOptions {
    /// Run N jobs at once [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Go on with what does not need a failed target
    #[arg(short, long)]
    pub keep_going: bool,
    /// Run the named targets even if they are fresh
    #[arg(long)]
    pub force: bool,
    /// Neither look into the local cache nor write to it
    #[arg(long)]
    pub no_cache: bool,
    /// Run the named targets watched (`rel check --trace`).
    #[arg(skip)]
    pub is_traced: bool,
}

#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// Targets; all when none is named
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    #[command(flatten)]
    options: BuildOptions,
    /// Show what would run, changing nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Runs `rel build`.
pub fn build(context: &mut Context, args: &BuildArgs) -> Result<u8> {
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    let roots = find(&project.graph, &args.targets)?;
    let report = run(context, project, root, &roots, &args.options)?;
    report.tell(context, &project.graph);
    match report.summary.is_ok() {
        true => Ok(EXIT_OK),
        false => Ok(report.exit_code()),
    }
}

/// What a build did, with its counters.
pub struct Report {
    /// How it went.
    pub summary: Summary,
    counters: BTreeMap<&'static str, u64>,
}

/// Builds targets, drawing progress; shared by `build` and the environments.
pub fn run(
    context: &Context,
    project: &Project,
    root: PathBuf,
    roots: &[TargetId],
    options: &BuildOptions,
) -> Result<Report> {
    let state_dir = Context::state_dir(&root);
    let _lock = context.lock(&state_dir)?;
    let digests = Digests::load(&root, state_dir.join("stat.v1"));
    digests.take_clock(&state_dir);
    let records = Mutex::new(Records::load(&state_dir));
    let jobs = options.jobs.map_or_else(cores, usize::from);
    let jobserver = jobserver(jobs);
    let register = Register::open(&state_dir.join("running"))?;
    let runner = Arc::new(Runner::new(jobserver.as_ref()).registered(register));
    let (interrupt, kill) = (runner.clone(), runner.clone());
    let flag = Arc::new(AtomicBool::new(false));
    let _listener = Listener::start(flag, move || interrupt.interrupt(), move || kill.kill())?;
    let env = |name: &str| -> Option<OsString> { context.var(name) };
    let version = project.version.as_ref();
    let inspector = Inspector::new(
        &project.graph,
        &digests,
        &runner,
        &env,
        version,
        Context::now_s(),
    );
    let display = display(context, &project.sources);
    let store = match options.no_cache {
        true => None,
        false => store(context, display.as_ref()),
    };
    let all_if = |is: bool| if is { roots.to_vec() } else { Vec::new() };
    let options = Options {
        jobs,
        keep_going: options.keep_going,
        forced: all_if(options.force || options.is_traced),
        traced: all_if(options.is_traced),
    };
    let store: Option<&dyn Store> = store.as_ref().map(|s| s as &dyn Store);
    let mut builder = Builder::new(
        &inspector,
        &records,
        store,
        &state_dir,
        display.as_ref(),
        options,
    );
    builder.jobserver = jobserver;
    let summary = builder.build(roots);
    drop(builder);
    keep_learned(&digests, &records, display.as_ref());
    Ok(Report {
        summary: summary?,
        counters: counters(&runner, &digests),
    })
}

/// Writes down what was learned, also after a failure; not being able to is no failure.
fn keep_learned(digests: &Digests, records: &Mutex<Records>, display: &dyn Progress) {
    let compacted = records.lock().map_or(Ok(()), |mut r| r.compact());
    for saved in [digests.save(), compacted] {
        if let Err(error) = saved {
            let text = error.to_string();
            display.event(&Event::Warning { text: &text });
        }
    }
}

/// Returns how much was done, by name.
fn counters(runner: &Runner, digests: &Digests) -> BTreeMap<&'static str, u64> {
    let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    BTreeMap::from([
        ("processes", count(&runner.started)),
        ("stats", count(&digests.counters.stats)),
        ("files hashed", count(&digests.counters.files_hashed)),
        ("bytes hashed", count(&digests.counters.bytes_hashed)),
        ("directories listed", count(&digests.counters.dirs_listed)),
    ])
}

impl Report {
    /// Returns the exit code of a build that did not succeed.
    pub fn exit_code(&self) -> u8 {
        match self.summary.errors.first() {
            Some((_, error)) => error.kind.exit_code(),
            None => error::EXIT_INTERRUPTED,
        }
    }

    /// Writes the summary: one line for people, or JSON.
    pub fn tell(&self, context: &Context, graph: &Graph) {
        if context.json {
            ui::print(&format!("{:#}\n", self.json(graph)));
            return;
        }
        if context.stats {
            let lines = self.counters.iter().map(|(n, c)| format!("{n:>20}  {c}\n"));
            ui::eprint(&lines.collect::<String>());
        }
        if !context.screen.is_quiet {
            ui::eprint(&format!("rel: {}\n", summary_line(&self.summary)));
        }
    }

    fn json(&self, graph: &Graph) -> serde_json::Value {
        let word = |how: &Settled| match how {
            Settled::Fresh => "fresh",
            Settled::Restored => "restored",
            Settled::Ran => "ran",
            Settled::RanSame => "ran, same result",
            Settled::Failed => "failed",
            Settled::Skipped => "skipped",
        };
        let targets: serde_json::Map<String, serde_json::Value> = self
            .summary
            .settled
            .iter()
            .map(|(id, how)| (graph.target(*id).name.clone(), word(how).into()))
            .collect();
        let errors: Vec<String> = self
            .summary
            .errors
            .iter()
            .map(|(_, e)| e.message.clone())
            .collect();
        serde_json::json!({
            "ok": self.summary.is_ok(),
            "targets": targets,
            "errors": errors,
            "counters": self.counters,
            "seconds": self.summary.took.as_secs_f64(),
        })
    }
}

/// Returns `2 ran, 1 restored, 10 fresh in 1.3 s`.
pub fn summary_line(summary: &Summary) -> String {
    let count = |how| summary.count(how);
    let ran = count(Settled::Ran) + count(Settled::RanSame);
    let fresh = count(Settled::Fresh);
    let parts: Vec<String> = [
        (count(Settled::Failed), "failed"),
        (count(Settled::Skipped), "not tried"),
        (ran, "ran"),
        (count(Settled::Restored), "restored from the cache"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    let took = shown_time(summary.took);
    let prefix = if summary.is_interrupted {
        "interrupted; "
    } else {
        ""
    };
    match parts.is_empty() {
        true => format!(
            "{prefix}nothing to do, {fresh} {} fresh, in {took}",
            plural(fresh, "target")
        ),
        false => format!("{prefix}{}, {fresh} fresh, in {took}", parts.join(", ")),
    }
}

/// Returns the local cache. Having no place for one is no reason not to build.
fn store(context: &Context, display: &dyn Progress) -> Option<LocalStore> {
    context
        .store()
        .inspect_err(|error| {
            let text = format!("going on without the cache: {error}");
            display.event(&Event::Warning { text: &text });
        })
        .ok()
}

/// Returns the display for this screen: live on a terminal, else lines.
pub fn display(context: &Context, sources: &Sources) -> Box<dyn Progress> {
    let (screen, sources) = (context.screen, sources.clone());
    match screen.is_live && !context.json {
        true => Box::new(ui::fancy::Fancy::new(screen, sources)),
        false => Box::new(ui::plain::Plain::new(screen, sources, ui::eprint)),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Takes part in the job slots of a surrounding `make -j`, or offers `jobs` of its own.
/// Without pipes to offer them by there are none, and nothing else is lost.
fn jobserver(jobs: usize) -> Option<jobserver::Client> {
    // SAFETY: the descriptors that MAKEFLAGS names are checked to be pipes before use.
    #[expect(unsafe_code, reason = "make hands its descriptors down by number")]
    let outer = unsafe { jobserver::Client::from_env_ext(true) }.client;
    outer
        .or_else(|_| jobserver::Client::new(jobs.saturating_sub(1)))
        .ok()
}
