//! Where things are: root, state, cache, environment; and the loaded Releasefile.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cache::local::LocalStore;
use crate::compiled::{self, Origin, Stamps};
use crate::deploy::Recipes;
use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::fs::{self, STATE_DIR, Signature};
use crate::model::Project;
use crate::releasefile::{self, LoadRequest};
use crate::source::{Mistake, Sources};
use crate::stored::Sum;
use crate::ui::{self, Screen};

use super::Global;
use super::checkout::Lock;

/// Name of the file that declares a project.
pub const RELEASEFILE: &str = "Releasefile.kdl";

/// Everything a command needs to know about where it is.
pub struct Context {
    /// Directory the command works in, absolute.
    pub dir: PathBuf,
    /// How to talk.
    pub screen: Screen,
    /// Answer as JSON.
    pub json: bool,
    /// Say at the end how much was done.
    pub stats: bool,
    file: Option<PathBuf>,
    hosts_file: Option<PathBuf>,
    vars: BTreeMap<String, String>,
    env: BTreeMap<String, OsString>,
    located: Option<Located>,
    loaded: OnceLock<Loaded>,
    broken: Option<Sources>,
}

/// The Releasefile, found, and its compiled form if that holds.
struct Located {
    root: PathBuf,
    file: PathBuf,
    origin: Origin,
    current: Option<compiled::Current>,
}

struct Loaded {
    root: PathBuf,
    project: Project,
    /// What names this graph, once it is compiled.
    id: OnceLock<Sum>,
    /// Set when the project was parsed now: what to keep for the next run.
    parsed: Option<Parsed>,
}

/// What a parsed project was made from. A question must not write it down, so it waits
/// for a command that takes the lock.
struct Parsed {
    origin: Origin,
    stamps: Stamps,
}

impl Context {
    /// Reads the environment and the current directory.
    pub fn new(global: &Global) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads them")]
        let (env, here) = (std::env::vars_os(), std::env::current_dir());
        let here = here.context("find", Path::new("the current directory"))?;
        let env: BTreeMap<String, OsString> = env
            .filter_map(|(n, v)| Some((n.into_string().ok()?, v)))
            .collect();
        let no_color = env.get("NO_COLOR").is_some_and(|v| !v.is_empty());
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
                    .hinted("correct the argument of `-C`"),
            );
        }
        let is_verbose = global.verbose > 0;
        if global.verbose > 1 {
            let log = tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .without_time();
            // A second subscriber can only come from a test; the first one stays.
            let _ = log.with_max_level(tracing::Level::DEBUG).try_init();
        }
        Ok(Self {
            file: global.file.as_ref().map(|f| dir.join(f)),
            hosts_file: global.hosts.as_ref().map(|f| dir.join(f)),
            dir,
            screen: Screen::new(global.color, no_color, global.quiet, is_verbose),
            json: global.json,
            stats: global.stats,
            vars: super::variables(&global.vars)?,
            env,
            located: None,
            loaded: OnceLock::new(),
            broken: None,
        })
    }

    /// Returns a variable of the environment.
    pub fn var(&self, name: &str) -> Option<OsString> {
        self.env.get(name).cloned()
    }

    /// Returns a variable that is for `rel`; an empty one is as good as none.
    pub fn own_var(&self, name: &str) -> Option<OsString> {
        self.var(name).filter(|value| !value.is_empty())
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
    pub fn given(&self) -> (&BTreeMap<String, String>, Option<&Path>) {
        (&self.vars, self.hosts_file.as_deref())
    }

    /// Takes the variables and the file of hosts that a saved plan was made with. Must come
    /// before the Releasefile is loaded.
    pub fn adopt(
        &mut self,
        vars: &BTreeMap<String, String>,
        hosts_file: Option<&str>,
    ) -> Result<()> {
        if !self.vars.is_empty() || self.hosts_file.is_some() {
            return Err(Error::usage("a saved plan has its own variables and hosts")
                .hinted("leave out `--var` and `--hosts`"));
        }
        self.vars = vars.clone();
        if let Some(file) = hosts_file {
            let releasefile = self.find_file()?;
            let dir = releasefile.parent().unwrap_or(&self.dir);
            self.hosts_file = Some(dir.join(file));
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
    pub fn sources(&self) -> Option<&Sources> {
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
        let absolute = |name: &str| {
            self.var(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        if let Some(dir) = self.own_var("REL_CACHE_DIR") {
            return Ok(self.dir.join(dir));
        }
        if let Some(dir) = absolute("XDG_CACHE_HOME") {
            return Ok(dir.join("rel"));
        }
        match absolute("HOME") {
            Some(home) => Ok(home.join(".cache/rel")),
            None => Err(
                Error::usage("there is no home directory to keep a cache in")
                    .hinted("set `REL_CACHE_DIR` or `HOME`"),
            ),
        }
    }

    /// Returns the local store.
    pub fn store(&self) -> Result<LocalStore> {
        Ok(LocalStore::new(&self.cache_dir()?))
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

    /// Returns who is at work, for journals: `user@machine`.
    pub fn who(&self) -> String {
        let user = self.var("USER").or_else(|| self.var("LOGNAME"));
        let user = user.map_or("unknown".into(), |u| u.to_string_lossy().into_owned());
        let name = rustix::system::uname();
        format!("{user}@{}", name.nodename().to_string_lossy())
    }

    /// Returns the user that the operating system knows this process by.
    pub fn user() -> String {
        // It needs no variable, and one may hold a secret.
        let mut id = std::process::Command::new("id");
        let named = id.arg("-un").env_clear().output().ok();
        let named = named.filter(|o| o.status.success());
        let name = named.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
        let number = || format!("uid-{}", rustix::process::getuid().as_raw());
        name.filter(|n| !n.is_empty()).unwrap_or_else(number)
    }

    /// Returns the Releasefile: `-f`, or the nearest one upwards.
    fn find_file(&self) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return match file.is_file() {
                true => Ok(file.clone()),
                false => Err(
                    Error::usage(format!("there is no file `{}`", file.display()))
                        .hinted("correct the argument of `-f`"),
                ),
            };
        }
        let found = self
            .dir
            .ancestors()
            .map(|d| d.join(RELEASEFILE))
            .find(|f| f.is_file());
        found.ok_or_else(|| {
            Error::usage(format!(
                "there is no {RELEASEFILE} in `{}` or above",
                self.dir.display()
            ))
            .hinted("`rel init` writes one to start from")
        })
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
            // Nobody else can have set it: there is one thread here.
            let _ = self.loaded.set(loaded);
        }
        self.loaded
            .get()
            .ok_or_else(|| Error::internal("the Releasefile is not loaded"))
    }

    /// Returns the root and what names the graph, if the compiled Releasefile holds. The
    /// graph itself is not read.
    pub fn compiled(&mut self) -> Result<Option<(PathBuf, Sum)>> {
        let located = match self.located.take() {
            Some(located) => located,
            None => self.locate()?,
        };
        let located = self.located.insert(located);
        let current = located.current.as_ref();
        Ok(current.map(|current| (located.root.clone(), current.id)))
    }

    /// Returns what names the loaded graph, if it is compiled.
    pub fn graph_id(&self) -> Option<Sum> {
        self.loaded.get()?.id.get().copied()
    }

    fn locate(&self) -> Result<Located> {
        let file = self.find_file()?;
        let file = std::fs::canonicalize(&file).context("find", &file)?;
        let root = file.parent().unwrap_or(Path::new("/")).to_owned();
        let program = super::program();
        let signature = std::fs::metadata(&program).ok().map(|m| Signature::of(&m));
        let origin = Origin {
            program: (program, signature),
            file: file.clone(),
            hosts_file: self.hosts_file.clone(),
            vars: self.vars.clone(),
        };
        let current = compiled::current(&Self::state_dir(&root), &root, &origin);
        Ok(Located {
            root,
            file,
            origin,
            current,
        })
    }

    fn load(&mut self, may_use_compiled: bool) -> Result<(Loaded, Vec<Mistake>)> {
        let located = match self.located.take() {
            Some(located) => located,
            None => self.locate()?,
        };
        if let Some(current) = located.current.filter(|_| may_use_compiled) {
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
        self.parse(located.root, located.file, &located.origin)
    }

    /// Parses and checks the Releasefile and shows its warnings.
    fn parse(
        &mut self,
        root: PathBuf,
        file: PathBuf,
        origin: &Origin,
    ) -> Result<(Loaded, Vec<Mistake>)> {
        let start_ns = crate::digest::coarse_now_ns();
        let (recipes, recipe_sources) = self.load_recipes(&root)?;
        let request = LoadRequest {
            root: root.clone(),
            file,
            hosts_file: self.hosts_file.clone(),
            vars: self.vars.clone(),
            check_recipes: &|project| crate::deploy::check_uses(project, &recipes),
        };
        let loaded = match releasefile::load(&request) {
            Ok(loaded) => loaded,
            Err(error) => {
                if !recipes.mistakes.is_empty() {
                    self.show(&recipes.mistakes, &recipe_sources);
                    ui::eprint("\n");
                }
                self.broken = Some(error.sources.clone());
                return Err(error.into_error());
            }
        };
        // Not even when no use names it: a recipe that can not be read might have been
        // meant to stand in for a shipped one.
        if !recipes.mistakes.is_empty() {
            self.broken = Some(recipe_sources);
            return Err(Error::mistakes(recipes.mistakes));
        }
        if !self.screen.is_quiet {
            self.show(&loaded.warnings, &loaded.project.sources);
        }
        let sources = [&loaded.project.sources, &recipe_sources];
        let digest = |path: &Path| {
            let mut files = sources.iter().flat_map(|s| s.files());
            let parsed = files.find(|s| root.join(&s.path) == path)?;
            Some(Digest::of(parsed.text.as_bytes()))
        };
        let read = loaded.read.into_iter().chain(recipe_files(&root));
        let read = read.map(|path| {
            let digest = digest(&path);
            (path, digest)
        });
        let mut dirs = loaded.watched;
        dirs.push(fs::RepoPath::new("recipes"));
        let stamps = Stamps::take(&root, read.collect(), loaded.absent, dirs, start_ns);
        let parsed = stamps.map(|stamps| Parsed {
            origin: origin.clone(),
            stamps,
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

    fn show(&self, mistakes: &[Mistake], sources: &Sources) {
        let (width, color) = (self.screen.width, self.screen.color);
        ui::eprint(&crate::report::render(mistakes, sources, width, color));
    }

    /// Returns the recipes: the shipped ones, and the project's own over them.
    pub fn load_recipes(&self, root: &Path) -> Result<(Recipes, Sources)> {
        let dir = root.join("recipes");
        Recipes::load(dir.is_dir().then_some(dir.as_path()))
    }

    /// Returns a short directory for the sockets of kept SSH connections: a socket's path
    /// may not be longer than about 100 bytes.
    pub fn control_dir(&self) -> Result<PathBuf> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt};
        let runtime = self
            .var("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|d| d.is_dir());
        let user = rustix::process::getuid().as_raw();
        let dir = match runtime {
            Some(dir) if dir.as_os_str().len() < 50 => dir.join("rel"),
            _ => PathBuf::from(format!("/tmp/rel-{user}")),
        };
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(e).context("create directory", &dir)?
            }
            _ => {}
        }
        let meta = std::fs::symlink_metadata(&dir).context("look at", &dir)?;
        if !meta.is_dir() || meta.uid() != user || meta.mode() & 0o077 != 0 {
            return Err(Error::usage(format!(
                "`{}` is not a private directory of yours",
                dir.display()
            ))
            .hinted("remove it, or set `XDG_RUNTIME_DIR`"));
        }
        Ok(dir)
    }

    /// Takes the lock of the checkout, waiting for another `rel` and saying for whom. From
    /// here on the state may be written: the compiled Releasefile is kept.
    pub fn lock(&self, state_dir: &Path) -> Result<Lock> {
        let lock = Lock::take(state_dir)?;
        if let Some(loaded) = self.loaded.get()
            && let Some(parsed) = &loaded.parsed
        {
            let id = compiled::save(state_dir, &parsed.origin, &parsed.stamps, &loaded.project);
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
