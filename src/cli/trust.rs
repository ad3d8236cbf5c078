//! `rel trust`: checkouts and caches of others that the user allows, and what is refused
//! otherwise.
//!
//! A Releasefile runs commands, also for questions. So one that was found upwards, and not
//! named, is taken only if it belongs to the user, to root, or below `sudo` to who called it;
//! the same holds for the files that it includes and for recipes (git's rule for
//! repositories). What is allowed is kept in the user's own state, one directory a line.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process_env;
use super::state_dir::StateDirAccess;
use super::workspace::Workspace;
use crate::build::cache::local::LocalStore;
use crate::cli::ui;
use crate::core::error::{EXIT_OK, Error, ErrorKind, IoContext, Result};
use crate::core::fs::{self, ReadFile, Unsafe};

/// How often, and after which pause, a lock is asked for.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What to do where the user's state would lie in a directory of another user.
const NO_HOME: &str = "set `XDG_STATE_HOME` or `HOME` to a directory of your own";

/// Name of the file, below the directory of the user's state.
const FILE: &str = "trusted";

#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// The directory of a Releasefile, or of a cache
    #[arg(value_name = "DIR", required_unless_present = "list")]
    dir: Option<PathBuf>,
    /// Show the directories that are allowed
    #[arg(long, conflicts_with = "dir")]
    list: bool,
    /// Allow the directory no longer
    #[arg(long)]
    remove: bool,
}

/// Runs `rel trust`.
pub fn trust(context: &Workspace, args: &TrustArgs) -> Result<u8> {
    let Some(dir) = &args.dir else {
        let trusted = context.trusted();
        match context.output.json {
            true => {
                let shown = |dir: &PathBuf| dir.to_string_lossy().into_owned();
                let dirs: Vec<String> = trusted.iter().map(shown).collect();
                ui::print_json(&serde_json::json!({ "trusted": dirs }));
            }
            false => {
                for dir in trusted {
                    ui::print_line(fs::shown(dir.as_os_str()).into_owned());
                }
            }
        }
        return Ok(EXIT_OK);
    };
    let dir = context.dir.join(dir);
    // One that is gone can still be taken from the list.
    let dir = match std::fs::canonicalize(&dir) {
        Err(_) if args.remove => dir,
        found => found.context("find", &dir)?,
    };
    if !args.remove && !dir.is_dir() {
        let shown = fs::shown(dir.as_os_str()).into_owned();
        return Err(Error::usage(format!("`{shown}` is not a directory")));
    }
    if dir.as_os_str().as_bytes().contains(&b'\n') {
        return Err(
            Error::usage("a directory with a line end in its name cannot be kept")
                .help("name its Releasefile with `-f`"),
        );
    }
    let state = context.env.user_state_dir().ok_or_else(|| {
        Error::usage("there is no home directory to keep trust in")
            .help("set `XDG_STATE_HOME` or `HOME`")
    })?;
    let is_changed = change(context, &state, &dir, args.remove)?;
    if !context.output.screen.is_quiet {
        let shown = fs::shown(dir.as_os_str());
        ui::tell(match (args.remove, is_changed) {
            (false, true) => format!("`{shown}` is trusted"),
            (false, false) => format!("`{shown}` is trusted already"),
            (true, true) => format!("`{shown}` is no longer trusted"),
            (true, false) => format!("`{shown}` was not trusted"),
        });
    }
    Ok(EXIT_OK)
}

/// Adds a directory to the list or removes it; returns whether that changed anything.
fn change(context: &Workspace, state: &Path, dir: &Path, is_removal: bool) -> Result<bool> {
    context.make_user_state_dir(state)?;
    let _lock = locked(state)?;
    let mut trusted = load(context, state);
    let is_changed = match is_removal {
        true => trusted.remove(dir),
        false => trusted.insert(dir.to_owned()),
    };
    if is_changed {
        let lines = trusted
            .iter()
            .map(|dir| [dir.as_os_str().as_bytes(), b"\n"].concat());
        fs::write_atomically(&state.join(FILE), &lines.collect::<Vec<_>>().concat())?;
    }
    Ok(is_changed)
}

/// Returns a lock of the directory: two changes at once would lose one of them.
fn locked(state: &Path) -> Result<File> {
    let dir = File::open(state).context("open", state)?;
    for _ in 0..LOCK_TRIES {
        match dir.try_lock() {
            Ok(()) => return Ok(dir),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(e)) => return Err(e).context("lock", state),
        }
    }
    let shown = fs::shown(state.as_os_str());
    Err(Error::new(
        ErrorKind::Io,
        format!("another process holds a lock on `{shown}`"),
    ))
}

/// Returns the directories that are allowed; none where another user may have written the list.
fn load(context: &Workspace, state: &Path) -> BTreeSet<PathBuf> {
    let is_user = |uid| context.owners.is_user(uid);
    let is_private = |dir: &Path| {
        let meta = std::fs::symlink_metadata(dir).ok();
        meta.is_some_and(|meta| Unsafe::of(&meta, is_user).is_none())
    };
    let read = || -> Option<Vec<u8>> {
        let (file, meta) = fs::open_own(&state.join(FILE)).ok()?;
        let is_ours = is_user(meta.uid()) && meta.mode() & 0o022 == 0;
        fs::read_at_most(file, fs::TEXT_BYTES_MAX)
            .ok()
            .filter(|_| is_ours)
    };
    let bytes = read()
        .filter(|_| is_private(state) && context.check_way(state, NO_HOME).is_ok())
        .unwrap_or_default();
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| PathBuf::from(OsStr::from_bytes(line)))
        .collect()
}

impl Workspace {
    /// Returns the directories that the user has allowed.
    fn trusted(&self) -> &BTreeSet<PathBuf> {
        self.trusted.get_or_init(|| {
            let state = self.env.user_state_dir();
            state.map_or_else(BTreeSet::new, |state| load(self, &state))
        })
    }

    /// Returns whether the user has allowed a directory with `rel trust`.
    pub fn is_trusted(&self, dir: &Path) -> bool {
        let real = std::fs::canonicalize(dir);
        let trusted = self.trusted();
        !trusted.is_empty() && trusted.contains(real.as_deref().unwrap_or(dir))
    }

    /// Calls `act` with whose state directories are used in the checkout `root`.
    pub fn with_access<T>(&self, root: &Path, act: impl FnOnce(&StateDirAccess<'_>) -> T) -> T {
        act(&StateDirAccess {
            owners: self.owners,
            is_trusted: &|| self.is_trusted(root),
        })
    }

    /// Refuses a Releasefile of another user that was found at `found`, is `file`, and was not
    /// named.
    pub(super) fn check_owner(&self, found: &Path, file: &Path) -> Result<()> {
        let root = file.parent().unwrap_or(file);
        let owner = |meta: std::io::Result<std::fs::Metadata>, path: &Path| {
            let owner = meta.context("look at", path)?.uid();
            Ok::<_, Box<Error>>((!self.owners.are_trusted(owner)).then_some(owner))
        };
        // A link is a decision of its maker.
        let link = (found != file).then_some(found);
        for path in link.into_iter().chain([file]) {
            let owner = owner(std::fs::symlink_metadata(path), path)?;
            if let Some(owner) = owner.filter(|_| !self.is_trusted(root)) {
                return Err(foreign(path, owner, root));
            }
        }
        match owner(std::fs::symlink_metadata(root), root)? {
            Some(owner) if !self.is_trusted(root) => Err(foreign(root, owner, root)),
            _ => Ok(()),
        }
    }

    /// Returns whether one of the files that a Releasefile was put together from belongs to
    /// another user; refuses it where the Releasefile was not named. A file of hosts outside of
    /// the checkout that only a saved plan names is refused at all times.
    pub(super) fn check_owners<'a>(
        &self,
        files: impl Iterator<Item = &'a ReadFile>,
        root: &Path,
        is_named: bool,
    ) -> Result<bool> {
        let (_, hosts_file) = self.cli_vars();
        let is_hosts = |file: &ReadFile| Some(&*file.path) == hosts_file;
        let mut found = None;
        for file in files.filter(|file| !self.owners.are_trusted(file.owner)) {
            match is_hosts(file) {
                true if self.is_hosts_file_named => {}
                true if !is_below(&file.path, root) => return Err(foreign_hosts(file)),
                _ => found = found.or(Some(file)),
            }
        }
        match found {
            Some(file) if !is_named && !self.is_trusted(root) => {
                Err(foreign(&file.path, file.owner, root))
            }
            found => Ok(found.is_some()),
        }
    }

    /// Makes the directory of the user's state for the user alone.
    ///
    /// # Errors
    /// Another user owns it or may write to it.
    pub(super) fn make_user_state_dir(&self, dir: &Path) -> Result<()> {
        self.check_way(dir, NO_HOME)?;
        if let Some(parent) = dir.parent() {
            fs::create_dirs(parent)?;
        }
        let meta = fs::make_dir(dir)?;
        match Unsafe::of(&meta, |uid| self.owners.is_user(uid)) {
            None => Ok(()),
            Some(why) => Err(refusal(dir, why).help(match why {
                Unsafe::Writable(_) => {
                    format!(
                        "close it to others: chmod go-w {}",
                        fs::shown(dir.as_os_str())
                    )
                }
                _ => NO_HOME.into(),
            })),
        }
    }

    /// Refuses a directory if another user can replace it, or something on the way to it.
    pub(super) fn check_way(&self, dir: &Path, help: &str) -> Result<()> {
        match fs::unsafe_way(dir, |uid| self.owners.are_trusted(uid))? {
            None => Ok(()),
            Some((at, why)) => {
                let (dir, at) = (fs::shown(dir.as_os_str()), fs::shown(at.as_os_str()));
                let reason = reason(why);
                let message = match at == dir {
                    true => format!("`{dir}` is not used: it {reason}"),
                    false => format!("`{dir}` is not used: `{at}`, on the way to it, {reason}"),
                };
                Err(Error::usage(message).help(help.to_owned()))
            }
        }
    }
}

/// Refuses a cache that another user may write to: who writes a result chooses what is restored.
/// One of root's is as good as one's own. Returns `false` for one that the user trusts all the
/// same.
pub(super) fn check_cache(context: &Workspace, dir: &Path) -> Result<bool> {
    let above = dir.parent().unwrap_or(dir);
    if let Err(error) = context.check_way(above, "set `REL_CACHE_DIR` to a directory of your own") {
        return match context.is_trusted(dir) {
            true => Ok(false),
            false => Err(error),
        };
    }
    let dirs = LocalStore::dirs(dir);
    for (number, path) in dirs.iter().enumerate() {
        let Some(mut meta) = fs::lstat(path)? else {
            continue;
        };
        let is_owner = |uid| uid == 0 || context.owners.is_user(uid);
        // The user's own link to a larger disk is as good as the directory it leads to.
        if number == 0 && meta.is_symlink() && is_owner(meta.uid()) {
            context.check_way(path, "set `REL_CACHE_DIR` to a directory of your own")?;
            meta = std::fs::metadata(path).context("look at", path)?;
        }
        let Some(why) = Unsafe::of(&meta, is_owner) else {
            continue;
        };
        // In a directory like `/tmp` no user can take away what is made there in time.
        if number == 0 && matches!(why, Unsafe::Writable(mode) if mode & fs::STICKY != 0) {
            fs::make_dir(&dirs[1])?;
            continue;
        }
        let may_be_trusted = matches!(why, Unsafe::Owner(_) | Unsafe::Writable(_));
        if may_be_trusted && context.is_trusted(dir) {
            return Ok(false);
        }
        let shown = fs::shown(dir.as_os_str());
        return Err(refusal(path, why).help(match why {
            Unsafe::Link | Unsafe::NotDirectory => "remove it, or set `REL_CACHE_DIR`".into(),
            Unsafe::Owner(_) => format!(
                "set `REL_CACHE_DIR` to a directory of your own, or, if you know who writes \
                 there: rel trust {shown}"
            ),
            Unsafe::Writable(_) => format!(
                "if only you wrote to it: chmod -R go-w {shown}; if you know who else did: \
                 rel trust {shown}"
            ),
        }));
    }
    Ok(true)
}

/// Returns the error for something that belongs to another user and decides what is run.
fn foreign(path: &Path, owner: u32, root: &Path) -> Box<Error> {
    let (path, root) = (fs::shown(path.as_os_str()), fs::shown(root.as_os_str()));
    Error::usage(format!(
        "`{path}` is not used: it belongs to {}, and its commands would run as you",
        user(owner)
    ))
    .help(format!(
        "read it first; then name it (`rel -C {root} …`, or `-f`), or allow it once: rel trust {root}"
    ))
}

/// Returns whether a file lies below a directory, whatever links lead there.
fn is_below(path: &Path, dir: &Path) -> bool {
    let real = (std::fs::canonicalize(path), std::fs::canonicalize(dir));
    matches!(real, (Ok(path), Ok(dir)) if path.starts_with(&dir))
}

/// Returns the error for a file of hosts that only a saved plan names: the plan's maker would
/// choose what runs here.
fn foreign_hosts(file: &ReadFile) -> Box<Error> {
    let path = fs::shown(file.path.as_os_str());
    Error::usage(format!(
        "the file of hosts `{path}`, which the plan names, belongs to {}",
        user(file.owner)
    ))
    .help("read it, copy it into the checkout, and save the plan again with that copy")
}

/// Returns the error for a directory that is not used; what to do is for the caller to add.
pub fn refusal(dir: &Path, why: Unsafe) -> Box<Error> {
    let dir = fs::shown(dir.as_os_str());
    Error::usage(format!("`{dir}` is not used: it {}", reason(why)))
}

fn reason(why: Unsafe) -> String {
    match why {
        Unsafe::Link => "is a symbolic link".into(),
        Unsafe::NotDirectory => "is not a directory".into(),
        Unsafe::Owner(uid) => format!("belongs to {}", user(uid)),
        Unsafe::Writable(mode) => format!("may be written to by others (mode {mode:04o})"),
    }
}

/// Returns a user for people, by name where the system knows one.
fn user(uid: u32) -> String {
    match process_env::id(&["-nu", &uid.to_string()]) {
        Some(name) => format!("user `{name}` (uid {uid})"),
        None => format!("uid {uid}"),
    }
}
