//! Where things are: root, state, cache, environment; and the loaded Releasefile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::build::cache::local::LocalStore;
use crate::build::digest::Digest;
use crate::build::manifest_cache::{self, ManifestKey, SourceStamps};
use crate::build::model::Project;
use crate::build::releasefile::{self, LoadRequest};
use crate::cli::ui::{self, OutputOptions, TermOptions};
use crate::core::diagnostics::{Diagnostic, SourceMap};
use crate::core::error::{EXIT_FAILED, EXIT_USAGE, Error, IoContext, Result};
use crate::core::fs::{self, Owners, STATE_DIR, Signature, Unsafe};
use crate::core::storage::Checksum;
use crate::deploy::Recipes;
use crate::deploy::remote::known_machines;

use super::Global;
use super::process_env::ProcessEnv;
use super::state_dir::StateDir;
use super::trust::{self, refusal};
use super::workspace_lock::{self, WorkspaceLock};

/// Name of the file that declares a project.
pub const RELEASEFILE: &str = "Releasefile.kdl";

/// Everything a command needs to know about where it is.
pub struct Workspace {
    /// Directory the command works in, absolute.
    pub dir: PathBuf,
    /// What is written, and how.
    pub output: OutputOptions,
    /// The variables of the environment.
    pub env: ProcessEnv,
    /// The users that count as this one.
    pub owners: Owners,
    /// Whether commands of a target or a step were started: set by the display.
    pub(super) has_started: Arc<AtomicBool>,
    /// What the user has allowed with `rel trust`, once that is asked.
    pub(super) trusted: OnceLock<BTreeSet<PathBuf>>,
    file: Option<PathBuf>,
    /// The argument of `-C`, as a real path.
    named_dir: Option<PathBuf>,
    hosts_file: Option<PathBuf>,
    /// Whether `--hosts` named the file of hosts, and not a saved plan.
    pub(super) is_hosts_file_named: bool,
    vars: BTreeMap<String, String>,
    state: OnceLock<StateDir>,
    located: Option<ManifestLocation>,
    loaded: OnceLock<Loaded>,
    broken: Option<SourceMap>,
}

/// The Releasefile, found, and its compiled form if that holds.
struct ManifestLocation {
    root: PathBuf,
    file: PathBuf,
    origin: ManifestKey,
    /// Whether the user named the Releasefile, by `-f` or `-C`.
    is_named: bool,
    current: Option<manifest_cache::CachedManifest>,
}

struct Loaded {
    root: PathBuf,
    project: Project,
    /// What names this graph, once it is compiled.
    id: OnceLock<Checksum>,
    /// Set when the project was parsed now: what to keep for the next run.
    parsed: Option<Parsed>,
}

/// What a parsed project was made from. A question must not write it down, so it waits
/// for a command that takes the lock.
struct Parsed {
    origin: ManifestKey,
    stamps: SourceStamps,
}

/// Returns the screen where the command line cannot be read: without its options.
pub fn bare_screen() -> TermOptions {
    #[expect(clippy::disallowed_methods, reason = "there is no context yet")]
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    TermOptions::new(ui::ColorChoice::Auto, no_color, false, false)
}

impl Workspace {
    /// Reads the environment and the current directory.
    pub fn new(global: &Global) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
        let here = std::env::current_dir();
        let here = here.context("find", Path::new("the current directory"))?;
        let env = ProcessEnv::read(global.quiet);
        let no_color = env.own_var("NO_COLOR").is_some();
        let dir = match &global.directory {
            // As if started there: what `..` and links stand for is not above it.
            Some(dir) => {
                let dir = here.join(dir);
                std::fs::canonicalize(&dir).unwrap_or(dir)
            }
            None => here,
        };
        if !dir.is_dir() {
            return Err(
                Error::usage(format!("there is no directory `{}`", dir.display()))
                    .help("correct the argument of `-C`"),
            );
        }
        let is_verbose = global.verbose > 0;
        let screen = TermOptions::new(global.color, no_color, global.quiet, is_verbose);
        if global.verbose > 1 {
            let color = screen.color;
            let log = tracing_subscriber::fmt()
                .with_writer(move || ui::Events { color })
                .with_ansi(color)
                .without_time();
            let level = match global.verbose {
                2 => tracing::Level::DEBUG,
                _ => tracing::Level::TRACE,
            };
            // A second subscriber can only come from a test; the first one stays.
            let _ = log.with_max_level(level).with_target(false).try_init();
        }
        let sudo_uid = env.var("SUDO_UID");
        Ok(Self {
            file: global.file.as_ref().map(|f| dir.join(f)),
            named_dir: global.directory.as_ref().map(|_| dir.clone()),
            hosts_file: global.hosts.as_ref().map(|f| dir.join(f)),
            is_hosts_file_named: true,
            owners: Owners::new(sudo_uid.as_deref().and_then(OsStr::to_str)),
            has_started: Arc::default(),
            trusted: OnceLock::new(),
            state: OnceLock::new(),
            dir,
            output: OutputOptions {
                screen,
                json: global.json,
                stats: global.stats,
            },
            vars: super::variables(&global.vars)?,
            env,
            located: None,
            loaded: OnceLock::new(),
            broken: None,
        })
    }

    /// Returns the exit code for an error that ends the run. `EXIT_USAGE` promises that nothing was
    /// started, so a mistake that is only found later is a failure.
    pub fn exit_code(&self, error: &Error) -> u8 {
        match error.kind.exit_code() {
            EXIT_USAGE if self.has_started.load(Ordering::Relaxed) => EXIT_FAILED,
            code => code,
        }
    }

    /// Returns the checked Releasefile, loading it when asked first.
    pub fn project(&mut self) -> Result<&Project> {
        Ok(&self.loaded()?.project)
    }

    /// Returns the repository root: the directory of the Releasefile.
    pub fn root(&mut self) -> Result<PathBuf> {
        Ok(self.loaded()?.root.clone())
    }

    /// Returns `--var` and `--hosts` as they were given.
    pub fn cli_vars(&self) -> (&BTreeMap<String, String>, Option<&Path>) {
        (&self.vars, self.hosts_file.as_deref())
    }

    /// Takes the variables and the file of hosts that a saved plan was made with. Must come
    /// before the Releasefile is loaded.
    pub fn use_plan_vars(
        &mut self,
        vars: &BTreeMap<String, String>,
        hosts_file: Option<&str>,
    ) -> Result<()> {
        if !self.vars.is_empty() || self.hosts_file.is_some() {
            return Err(Error::usage("a saved plan has its own variables and hosts")
                .help("leave out `--var` and `--hosts`"));
        }
        self.vars = vars.clone();
        if let Some(file) = hosts_file {
            let (releasefile, _) = self.find_file()?;
            let dir = releasefile.parent().unwrap_or(&self.dir);
            self.hosts_file = Some(dir.join(file));
            self.is_hosts_file_named = false;
        }
        Ok(())
    }

    /// Returns the project together with this context, once it is loaded.
    pub fn with_project(&mut self) -> Result<(&Self, &Project)> {
        self.loaded()?;
        let this: &Self = self;
        match this.loaded.get() {
            Some(loaded) => Ok((this, &loaded.project)),
            None => Err(Error::internal("the Releasefile is not loaded")),
        }
    }

    /// Returns the sources that mistakes point into.
    pub fn sources(&self) -> Option<&SourceMap> {
        self.broken
            .as_ref()
            .or_else(|| self.loaded.get().map(|l| &l.project.sources))
    }

    /// Returns `.rel` of a root.
    pub fn state_dir(root: &Path) -> PathBuf {
        root.join(STATE_DIR)
    }

    /// Returns the directory of the user's cache.
    pub fn cache_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = self.env.own_var("REL_CACHE_DIR") {
            return Ok(self.dir.join(dir));
        }
        if let Some(dir) = self.env.absolute_path("XDG_CACHE_HOME") {
            return Ok(dir.join("rel"));
        }
        match self.env.absolute_path("HOME") {
            Some(home) => Ok(home.join(".cache/rel")),
            None => Err(
                Error::usage("there is no home directory to keep a cache in")
                    .help("set `REL_CACHE_DIR` or `HOME`"),
            ),
        }
    }

    /// Returns the local store.
    ///
    /// # Errors
    /// Another user chooses what is in it; exit code 2.
    pub fn store(&self) -> Result<LocalStore> {
        let dir = self.cache_dir()?;
        let is_safe = trust::check_cache(self, &dir)?;
        Ok(LocalStore::new(&dir, is_safe.then_some(self.owners)))
    }

    /// Returns the time in seconds since 1970.
    pub fn now_s() -> u64 {
        Self::now().as_secs()
    }

    /// Returns the time since 1970.
    pub fn now() -> Duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the clock"
        )]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Returns the Releasefile: `-f`, or the nearest one upwards; and whether the user named it,
    /// or its directory.
    fn find_file(&self) -> Result<(PathBuf, bool)> {
        if let Some(file) = &self.file {
            return match file.is_file() {
                true => Ok((file.clone(), true)),
                false => Err(
                    Error::usage(format!("there is no file `{}`", file.display()))
                        .help("correct the argument of `-f`"),
                ),
            };
        }
        let found = self
            .dir
            .ancestors()
            .map(|d| d.join(RELEASEFILE))
            .find(|f| f.is_file());
        let found = found.ok_or_else(|| {
            Error::usage(format!(
                "there is no {RELEASEFILE} in `{}` or above",
                self.dir.display()
            ))
            .help("`rel init` writes one to start from")
        })?;
        let is_named = self.named_dir.as_deref() == found.parent();
        Ok((found, is_named))
    }

    /// Loads the Releasefile from its text, whatever is compiled.
    pub fn load_anew(&mut self) -> Result<()> {
        let (loaded, missing) = self.load(false)?;
        self.loaded = OnceLock::from(loaded);
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Error::mistakes(missing)),
        }
    }

    fn loaded(&mut self) -> Result<&Loaded> {
        if self.loaded.get().is_none() {
            let (loaded, _) = self.load(true)?;
            // No other thread can have set it: there is one thread here.
            let _ = self.loaded.set(loaded);
        }
        self.loaded
            .get()
            .ok_or_else(|| Error::internal("the Releasefile is not loaded"))
    }

    /// Returns the root and what names the graph, if the compiled Releasefile holds. The
    /// graph itself is not read.
    pub fn compiled(&mut self) -> Result<Option<(PathBuf, Checksum)>> {
        let located = match self.located.take() {
            Some(located) => located,
            None => self.locate()?,
        };
        let located = self.located.insert(located);
        let current = located.current.as_ref();
        Ok(current.map(|current| (located.root.clone(), current.id)))
    }

    /// Returns what names the loaded graph, if it is compiled.
    pub fn graph_id(&self) -> Option<Checksum> {
        self.loaded.get()?.id.get().copied()
    }

    fn locate(&self) -> Result<ManifestLocation> {
        let (found, is_named) = self.find_file()?;
        let file = std::fs::canonicalize(&found).context("find", &found)?;
        if !is_named {
            self.check_owner(&found, &file)?;
        }
        let root = file.parent().unwrap_or(Path::new("/")).to_owned();
        let program = super::program();
        let signature = std::fs::metadata(&program).ok().map(|m| Signature::of(&m));
        let origin = ManifestKey {
            program: (program, signature),
            file: file.clone(),
            hosts_file: self.hosts_file.clone(),
            vars: self.vars.clone(),
        };
        let state = self.with_access(&root, |access| StateDir::find(&root, access))?;
        let state = self.state.get_or_init(|| state);
        let current = state.known();
        let current = current.and_then(|dir| manifest_cache::current(dir, &root, &origin));
        // Files of others are asked about where they are named.
        let current = current.filter(|c| is_named || !c.is_foreign || self.is_trusted(&root));
        Ok(ManifestLocation {
            root,
            file,
            origin,
            is_named,
            current,
        })
    }

    /// Returns the state directory, if what is in it is believed. The Releasefile must have been
    /// found.
    pub fn known_state(&self) -> Option<&Path> {
        self.state.get()?.known()
    }

    fn load(&mut self, may_use_compiled: bool) -> Result<(Loaded, Vec<Diagnostic>)> {
        let mut located = match self.located.take() {
            Some(located) => located,
            None => self.locate()?,
        };
        if let Some(current) = located.current.take().filter(|_| may_use_compiled) {
            let id = current.id;
            if let Some(project) = current.project() {
                let loaded = Loaded {
                    root: located.root,
                    project,
                    id: OnceLock::from(id),
                    parsed: None,
                };
                return Ok((loaded, Vec::new()));
            }
        }
        self.parse(located)
    }

    /// Parses and checks the Releasefile and shows its warnings.
    fn parse(&mut self, located: ManifestLocation) -> Result<(Loaded, Vec<Diagnostic>)> {
        let (root, origin) = (located.root, &located.origin);
        let start_ns = crate::build::digest::coarse_now_ns();
        let (recipes, recipe_sources) = self.load_recipes(&root)?;
        let request = LoadRequest {
            root: root.clone(),
            file: located.file,
            hosts_file: self.hosts_file.clone(),
            vars: self.vars.clone(),
            check_recipes: &|project| crate::deploy::check_uses(project, &recipes),
        };
        let loaded = match releasefile::load(&request) {
            Ok(loaded) => loaded,
            Err(error) => {
                if !recipes.mistakes.is_empty() {
                    self.show(&recipes.mistakes, &recipe_sources);
                    ui::eprint(&ui::Text::lines("\n"));
                }
                self.broken = Some(error.sources.clone());
                return Err(error.into_error());
            }
        };
        let files = loaded.read.iter().chain(&recipes.files);
        let is_foreign = self.check_owners(files, &root, located.is_named)?;
        // Not even when no use names it: a recipe that cannot be read might have been
        // meant to stand in for a shipped one.
        if !recipes.mistakes.is_empty() {
            self.broken = Some(recipe_sources);
            return Err(Error::mistakes(recipes.mistakes));
        }
        if !self.output.screen.is_quiet {
            self.show(&loaded.warnings, &loaded.project.sources);
        }
        let sources = [&loaded.project.sources, &recipe_sources];
        let digest = |path: &Path| {
            let mut files = sources.iter().flat_map(|s| s.files());
            let parsed = files.find(|s| root.join(&s.path) == path)?;
            Some(Digest::of(parsed.text.as_bytes()))
        };
        let read = loaded.read.into_iter().map(|file| file.path);
        let read = read.chain(recipe_files(&root)).map(|path| {
            let digest = digest(&path);
            (path, digest)
        });
        let mut dirs = loaded.watched;
        dirs.push(fs::RepoPath::new("recipes"));
        let stamps = SourceStamps::take(&root, read.collect(), loaded.absent, dirs, start_ns);
        let parsed = stamps.map(|mut stamps| {
            stamps.is_foreign = is_foreign;
            let origin = origin.clone();
            Parsed { origin, stamps }
        });
        let missing = loaded.missing;
        let project = loaded.project;
        Ok((
            Loaded {
                root,
                project,
                id: OnceLock::new(),
                parsed,
            },
            missing,
        ))
    }

    fn show(&self, mistakes: &[Diagnostic], sources: &SourceMap) {
        ui::eprint(&self.output.screen.mistakes_text(mistakes, sources));
    }

    /// Returns the recipes: the shipped ones, and the project's own over them.
    pub fn load_recipes(&self, root: &Path) -> Result<(Recipes, SourceMap)> {
        let dir = root.join("recipes");
        Recipes::load(dir.is_dir().then_some(dir.as_path()))
    }

    /// Returns the recipes to read about: as [`Self::load_recipes`] where there is a Releasefile,
    /// whether or not it is sound, and the shipped ones where there is none.
    pub fn recipes_here(&self) -> Result<(Recipes, SourceMap)> {
        if self.file.is_none() && self.find_file().is_err() {
            return Recipes::load(None);
        }
        self.load_recipes(&self.locate()?.root)
    }

    /// Returns a short directory for the sockets of kept SSH connections: a socket's path
    /// may not be longer than about 100 bytes.
    pub fn control_dir(&self) -> Result<PathBuf> {
        use std::os::unix::fs::MetadataExt;
        let runtime = self.env.var("XDG_RUNTIME_DIR").map(PathBuf::from);
        let user = rustix::process::getuid().as_raw();
        // After `su` it can be that of another user, who can put other sockets there.
        let runtime = runtime.filter(|dir| {
            std::fs::metadata(dir).is_ok_and(|meta| Unsafe::of(&meta, |uid| uid == user).is_none())
                && matches!(
                    fs::unsafe_way(dir, |uid| self.owners.are_trusted(uid)),
                    Ok(None)
                )
        });
        let dir = match runtime {
            Some(dir) if dir.as_os_str().len() < 50 => dir.join("rel"),
            _ => PathBuf::from(format!("/tmp/rel-{user}")),
        };
        let meta = fs::make_dir(&dir)?;
        let help = "remove it, or set `XDG_RUNTIME_DIR`";
        match Unsafe::of(&meta, |uid| uid == user) {
            Some(why) => Err(refusal(&dir, why).help(help)),
            None if meta.mode() & 0o077 != 0 => {
                let (shown, mode) = (fs::shown(dir.as_os_str()), meta.mode() & 0o7777);
                Err(Error::usage(format!(
                    "`{shown}` is not used: it is open to others (mode {mode:04o})"
                ))
                .help(help))
            }
            None => Ok(dir),
        }
    }

    /// Returns the file that says which machines hosts are, if the state directory is believed, or
    /// was made sure of: `is_prepared`.
    pub fn machines_file(&self, is_prepared: bool) -> Option<PathBuf> {
        let state = self.state().ok()?;
        let dir = match is_prepared {
            true => Some(state.path()),
            false => state.known(),
        };
        dir.map(|dir| dir.join(known_machines::FILE))
    }

    /// Makes sure that the state directory of the checkout is there, for a file of its own in it.
    pub fn prepare_state(&self) -> Result<()> {
        let state = self.state()?;
        let root = state.path().parent().unwrap_or(&self.dir);
        self.with_access(root, |access| workspace_lock::prepare(state, access))
    }

    fn state(&self) -> Result<&StateDir> {
        let state = self.state.get();
        state.ok_or_else(|| Error::internal("the state was not checked"))
    }

    /// Takes the lock of the checkout, waiting for another `rel` and saying for whom. From
    /// here on the state may be written: the compiled Releasefile is kept.
    pub fn lock(&self, state_dir: &Path) -> Result<WorkspaceLock> {
        let state = self.state()?;
        let root = state_dir.parent().unwrap_or(state_dir);
        let lock = self.with_access(root, |access| WorkspaceLock::take(state, access))?;
        if let Some(loaded) = self.loaded.get()
            && let Some(parsed) = &loaded.parsed
        {
            let id =
                manifest_cache::save(state_dir, &parsed.origin, &parsed.stamps, &loaded.project);
            if let Some(id) = id {
                let _ = loaded.id.set(id);
            }
        }
        Ok(lock)
    }
}

fn recipe_files(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("recipes"))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    files.sort();
    files
}
