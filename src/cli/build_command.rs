//! `rel build`: bring targets up to date.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::build_summary::{BuildSummary, Counts, EventCounter, tell_all_fresh, write_trace};
use super::null_build::{WorkspaceSnapshot, cores};
use super::resolve_args::find;
use super::signals::SignalListener;
use super::workspace::Workspace;
use crate::build::build_log::BuildLog;
use crate::build::builder::{Builder, Options, Summary};
use crate::build::cache::Store;
use crate::build::cache::local::LocalStore;
use crate::build::cache::metrics::{CacheCounters, MeteredStore};
use crate::build::digest::FileHasher;
use crate::build::graph::TargetId;
use crate::build::model::Project;
use crate::build::runner::Runner;
use crate::build::runner::process_registry::ProcessRegistry;
use crate::build::stale::StalenessChecker;
use crate::cli::ui;
use crate::cli::ui::OutputOptions;
use crate::core::cancel::Cancel;
use crate::core::diagnostics::SourceMap;
use crate::core::error::{EXIT_OK, Result};
use crate::core::progress::{Event, Progress};
use crate::core::sync::unpoisoned;
use crate::core::trace;

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
    /// Write when what ran into FILE, for Perfetto or `about:tracing`
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Run the named targets watched (`rel check --trace`).
    #[arg(skip)]
    pub is_traced: bool,
    /// Tell what was made, for the hosts that get it.
    #[arg(skip)]
    pub tells_made: bool,
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
pub fn build(context: &mut Workspace, args: &BuildArgs) -> Result<u8> {
    let started = Instant::now();
    start_trace(&context.output, &args.options);
    let mut looked = WorkspaceSnapshot::early(context)?;
    let lists_targets = context.output.json || context.output.screen.is_verbose;
    if let Some(looked) = &mut looked
        && looked.all_fresh().is_some()
        && args.targets.is_empty()
        && !args.options.force
        && !lists_targets
    {
        looked.keep();
        if let Some(seen) = looked.all_fresh() {
            tell_all_fresh(&context.output, seen, started.elapsed());
        }
        write_trace(trace_file(context, &args.options).as_deref(), None)?;
        return Ok(EXIT_OK);
    }
    let reading = trace::phase("read the graph");
    let root = context.root()?;
    let (context, project) = context.with_project()?;
    drop(reading);
    let roots = find(project, &args.targets)?;
    let report = run(context, project, root, &roots, &args.options, looked)?;
    report.tell(&context.output, &project.graph);
    match report.summary.is_ok() {
        true => Ok(EXIT_OK),
        false => Ok(report.exit_code(context)),
    }
}

/// Builds targets, drawing progress; shared by `build` and the environments.
pub fn run(
    context: &Workspace,
    project: &Project,
    root: PathBuf,
    roots: &[TargetId],
    options: &BuildOptions,
    looked: Option<WorkspaceSnapshot>,
) -> Result<BuildSummary> {
    start_trace(&context.output, options);
    let state_dir = Workspace::state_dir(&root);
    let mut looked = match looked {
        Some(looked) => looked,
        None => {
            let lock = context.lock(&state_dir)?;
            WorkspaceSnapshot::under(lock, &context.env, &root, context.graph_id())
        }
    };
    let loading = trace::phase("read the state");
    let mut digests = FileHasher::load(&root, state_dir.join("stat.v1"));
    digests.set_skew(looked.skew_ns);
    let records = BuildLog::load(&state_dir)?;
    let seen = looked.take_seen(&project.graph, &records);
    let records = Mutex::new(records);
    drop(loading);
    let jobs = options.jobs.map_or_else(cores, usize::from);
    let jobserver = jobserver(jobs);
    let (runner, _listener) = start_runner(&root, &state_dir, jobserver.as_ref())?;
    let env = |name: &str| -> Option<OsString> { context.env.var(name) };
    let (graph, version) = (&project.graph, project.version.as_ref());
    let now_s = Workspace::now_s();
    let mut inspector = StalenessChecker::new(graph, &digests, &runner, &env, version, now_s);
    inspector.seen = seen;
    let display = display(context, &project.sources);
    let served = CacheCounters::default();
    let counts = || counts(&runner, &digests, &served);
    let tally = EventCounter::new(display.as_ref(), &counts);
    let display: &dyn Progress = &tally;
    let store = match options.no_cache {
        true => None,
        false => store(context, display),
    };
    let store = store.as_ref().map(|s| MeteredStore::new(s, &served));
    let store: Option<&dyn Store> = store.as_ref().map(|s| s as &dyn Store);
    let how = how(options, jobs, roots);
    let mut builder = Builder::new(&inspector, &records, store, &state_dir, display, how);
    builder.jobserver = jobserver;
    let holds_lock = || looked.lock.is_held();
    builder.holds_lock = &holds_lock;
    let summary = builder.build(roots);
    drop(builder);
    runner.close();
    let keeping = trace::phase("keep the state");
    let records = unpoisoned(records.into_inner());
    let ended = summary.as_ref().ok();
    keep(&mut looked, context, &inspector, records, ended, display);
    drop(keeping);
    let summary = summary?;
    let phases = tally.phases(inspector.seen.as_ref());
    write_trace(
        trace_file(context, options).as_deref(),
        Some((graph, &summary)),
    )?;
    Ok(BuildSummary { summary, phases })
}

/// Keeps what was learned. Being unable to is no failure of the build.
fn keep(
    looked: &mut WorkspaceSnapshot,
    context: &Workspace,
    inspector: &StalenessChecker<'_>,
    mut records: BuildLog,
    summary: Option<&Summary>,
    display: &dyn Progress,
) {
    // What is there now may be the state of another `rel`.
    if !looked.lock.is_held() {
        return;
    }
    let mut drawn = |records: &BuildLog| match summary {
        Some(summary) => looked.draw(context, inspector, records, summary),
        None => Ok(()),
    };
    let compacted = records.compact();
    let kept = [compacted, inspector.digests.save(), drawn(&records)];
    for error in kept.into_iter().filter_map(Result::err) {
        let text = error.to_string();
        display.event(&Event::Warning { text: &text });
    }
}

/// Starts the trace, if anything of it will be shown.
fn start_trace(output: &OutputOptions, options: &BuildOptions) {
    if output.stats || options.trace.is_some() {
        trace::start();
    }
}

fn trace_file(context: &Workspace, options: &BuildOptions) -> Option<PathBuf> {
    Some(context.dir.join(options.trace.as_ref()?))
}

/// Returns how much was done so far.
fn counts(runner: &Runner, digests: &FileHasher, served: &CacheCounters) -> Counts {
    let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
    let looked = &digests.counters;
    Counts::from([
        ("processes", count(&runner.started)),
        ("stats", count(&looked.stats)),
        ("files hashed", count(&looked.files_hashed)),
        ("bytes hashed", count(&looked.bytes_hashed)),
        ("directories listed", count(&looked.dirs_listed)),
        ("cache hits", count(&served.hits)),
        ("cache misses", count(&served.misses)),
        ("bytes restored", count(&served.bytes_fetched)),
        ("bytes cached", count(&served.bytes_put)),
    ])
}

fn how(options: &BuildOptions, jobs: usize, roots: &[TargetId]) -> Options {
    let all_if = |is: bool| if is { roots.to_vec() } else { Vec::new() };
    Options {
        jobs,
        keep_going: options.keep_going,
        forced: all_if(options.force || options.is_traced),
        traced: all_if(options.is_traced),
        tells_made: options.tells_made,
    }
}

/// Returns a runner that ends what it started when the person says so.
fn start_runner(
    root: &Path,
    state_dir: &Path,
    jobserver: Option<&jobserver::Client>,
) -> Result<(Arc<Runner>, SignalListener)> {
    let register = ProcessRegistry::open(&state_dir.join("running"), root)?;
    let runner = Arc::new(Runner::new(jobserver).registered(register));
    let listener = SignalListener::of_runner(&runner, Cancel::default())?;
    Ok((runner, listener))
}

/// Returns the local cache. Having no place for one is no reason not to build.
fn store(context: &Workspace, display: &dyn Progress) -> Option<LocalStore> {
    context
        .store()
        .inspect_err(|error| {
            let text = format!("continuing without the cache: {error}");
            display.event(&Event::Warning { text: &text });
        })
        .ok()
}

/// Returns the display for this screen: live on a terminal, else lines. It records in the workspace what
/// was started.
pub fn display(context: &Workspace, sources: &SourceMap) -> Box<dyn Progress> {
    let (screen, sources) = (context.output.screen, sources.clone());
    let has_started = context.has_started.clone();
    match screen.is_live && !context.output.json {
        true => Box::new(Noting {
            display: ui::live::LiveProgress::new(screen, sources),
            has_started,
        }),
        false => Box::new(Noting {
            display: ui::plain::PlainProgress::new(screen, sources, ui::eprint),
            has_started,
        }),
    }
}

/// Hands events on, and notes whether anything was started: that decides the exit code.
struct Noting<P> {
    display: P,
    has_started: Arc<AtomicBool>,
}

impl<P: Progress> Progress for Noting<P> {
    fn event(&self, event: &Event<'_>) {
        if let Event::Started { .. } | Event::StepStarted { .. } = event {
            self.has_started.store(true, Ordering::Relaxed);
        }
        self.display.event(event);
    }

    fn suspend(&self, act: &mut dyn FnMut()) {
        self.display.suspend(act);
    }
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
