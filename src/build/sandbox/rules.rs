//! What a sandboxed command may read and write, as Landlock rules.
//!
//! Landlock's rules open whole hierarchies and cannot close a part of one again. So a
//! directory that the repository lies in (`/usr/src/app`, `/opt/ci/…`) is opened child by
//! child, past the one that leads to the repository.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// Directories of the system: what a machine is, not what a project is. No key holds them.
const SYSTEM: [&str; 16] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/nix",
    "/gnu",
    "/snap",
    "/var/lib",
    "/run/systemd/resolve",
];

/// Those of which every part belongs to another user: of these, the part that the repository or
/// the home lies in is closed as a whole.
const SHARED: [&str; 2] = ["/opt", "/var/lib"];

/// Devices that keep nothing of what is written to them. No terminal is among them: through
/// `/dev/pts` a command could read what a person types elsewhere.
const DEVICES: [&str; 6] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/fd",
];

/// The last part of a directory of programs whose neighbours belong to them.
const PROGRAM_DIRS: [&str; 3] = ["bin", "sbin", "shims"];

/// Directories of a machine that any command may read, opened once for all commands.
#[derive(Debug, Default)]
pub struct SystemPaths {
    /// The version of Landlock that the kernel has, and that is known here; 0 for none.
    abi: i32,
    /// As they are written, and as what they lead to.
    pub dirs: Vec<PathBuf>,
    /// Those of them whose links lead to nowhere else.
    pub plain: Vec<PathBuf>,
    opened: Vec<(PathFd, BitFlags<AccessFs>)>,
}

impl SystemPaths {
    /// Opens the directories of the system, without the `home`, and those that are `named`, but
    /// nothing of what is below `root`; those that do not exist are left out.
    pub fn new(named: Vec<PathBuf>, root: &Path, home: Option<&Path>) -> Self {
        let (named_devices, named): (Vec<PathBuf>, Vec<PathBuf>) =
            named.into_iter().partition(|dir| dir.starts_with("/dev"));
        // A device that is named is used by reading and writing it.
        let devices = DEVICES.iter().map(PathBuf::from).chain(named_devices);
        let devices: Vec<PathBuf> = devices.collect();
        let (mut dirs, mut reals, mut plain) = (Vec::new(), Vec::new(), devices.clone());
        let home = home.and_then(|home| std::fs::canonicalize(home).ok());
        let system = SYSTEM.iter().map(|dir| (PathBuf::from(dir), true));
        for (dir, is_system) in system.chain(named.into_iter().map(|dir| (dir, false))) {
            let Ok(real) = std::fs::canonicalize(&dir) else {
                continue;
            };
            let is_plain = is_system && !SHARED.iter().any(|shared| dir == Path::new(shared));
            let closed = match is_system {
                true => closed(&dir, &real, root, home.as_deref()),
                false => vec![root.to_owned()],
            };
            let is_apart = |c: &PathBuf| !c.starts_with(&real) && !real.starts_with(c);
            let (known, opened) = (dirs.len(), reals.len());
            if closed.iter().all(is_apart) {
                dirs.push(dir);
            }
            past(&real, &closed, &mut reals);
            if is_plain {
                plain.extend(dirs[known..].iter().chain(&reals[opened..]).cloned());
            }
        }
        // An outer directory sorts before what is in it, and opens that as well.
        reals.sort();
        reals.dedup_by(|inner, outer| inner.starts_with(&*outer));
        let read = reals.iter().map(|dir| (dir, read()));
        let write = devices.iter().map(|dir| (dir, write()));
        Self {
            abi: version(),
            opened: read
                .chain(write)
                .filter_map(|(dir, access)| opened(dir, access))
                .collect(),
            plain,
            dirs: [dirs, reals, devices].concat(),
        }
    }

    /// Returns whether the kernel keeps signals, and connections to abstract sockets, among the
    /// processes of a command (Linux 6.12).
    pub fn scopes_signals(&self) -> bool {
        self.abi >= ABI::V6 as i32
    }

    /// Returns whether the kernel asks who may use the `ioctl`s of a device (Linux 6.10).
    pub fn guards_devices(&self) -> bool {
        self.abi >= ABI::V5 as i32
    }
}

/// Returns the version of Landlock that the kernel has; 0 for none.
fn version() -> i32 {
    const VERSION: libc::c_ulong = 1;
    let (nothing, no_size) = (std::ptr::null::<u8>(), 0usize);
    // SAFETY: with this flag the call only tells its version.
    #[expect(unsafe_code, reason = "the crate that wraps this call does not tell")]
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, no_size, VERSION) };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// What may be read and written: these files, and all that is below these directories.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What any command may read.
    pub machine: Arc<SystemPaths>,
    /// May be read, listed and run.
    pub read: Vec<PathBuf>,
    /// May be changed in every way as well.
    pub write: Vec<PathBuf>,
    /// Sockets that may be connected to, and directories of such.
    pub connect: Vec<PathBuf>,
    /// Here an error says that nothing may be removed; elsewhere nothing is there.
    pub repository: PathBuf,
}

impl Rules {
    /// Restricts the calling thread, and all that it starts, for ever.
    ///
    /// # Errors
    /// `Unsupported` where the kernel cannot enforce all of it: what is less than asked for
    /// would prove nothing. What does not exist needs no rule and is left out.
    pub(super) fn enforce(&self, log: Option<&Path>) -> io::Result<()> {
        let unsupported = || {
            let text = "this kernel has no Landlock of version 3 or later, or it is turned off";
            io::Error::new(io::ErrorKind::Unsupported, text)
        };
        // Before version 3 a file could be truncated that must not be written. What later versions
        // have is asked for where the kernel has it, and then it must be enforced.
        let handled = match self.machine.guards_devices() {
            true => AccessFs::from_all(ABI::V5),
            false => AccessFs::from_all(ABI::V3),
        };
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(handled)
            .map_err(|_| unsupported())?;
        if self.machine.scopes_signals() {
            let scopes = Scope::from_all(ABI::V6);
            ruleset = ruleset.scope(scopes).map_err(|_| unsupported())?;
        }
        let mut ruleset = ruleset.create().map_err(|_| unsupported())?;
        let own = self.read.iter().map(|path| (path.as_path(), read()));
        let write = self.write.iter().map(PathBuf::as_path).chain(log);
        let own = own.chain(write.map(|path| (path, self::write())));
        let own: Vec<_> = own
            .filter_map(|(path, access)| opened(path, access))
            .collect();
        for (fd, access) in self.machine.opened.iter().chain(&own) {
            let rule = PathBeneath::new(fd, *access & handled);
            ruleset = ruleset.add_rule(rule).map_err(io::Error::other)?;
        }
        let status = ruleset.restrict_self().map_err(io::Error::other)?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            _ => Err(unsupported()),
        }
    }

    /// Returns whether a command may connect to a socket, whose path has no links.
    pub(super) fn opens_socket(&self, path: &Path) -> bool {
        let mut open = self.write.iter().chain(&self.connect);
        open.any(|dir| path.starts_with(dir))
    }
}

/// Everything but making devices: a new name for a disk would open all that is on it.
fn write() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI::V5) & !(AccessFs::MakeChar | AccessFs::MakeBlock)
}

fn read() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute
}

/// Opens what a rule is about; what does not exist needs none.
fn opened(path: &Path, access: BitFlags<AccessFs>) -> Option<(PathFd, BitFlags<AccessFs>)> {
    let is_dir = std::fs::metadata(path).ok()?.is_dir();
    let access = match is_dir {
        true => access,
        false => access & AccessFs::from_file(ABI::V5),
    };
    Some((PathFd::new(path).ok()?, access))
}

/// Returns what is not opened of a directory of the system, which is `real`.
fn closed(dir: &Path, real: &Path, root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let is_shared = SHARED.iter().any(|shared| dir == Path::new(shared));
    // Some users have `/` or a directory of programs for a home.
    let home = home.filter(|home| home.starts_with(real) && *home != real);
    let part = |path: &Path| match path.strip_prefix(real).ok().and_then(|p| p.iter().next()) {
        Some(first) if is_shared => real.join(first),
        _ => path.to_owned(),
    };
    [Some(root), home].into_iter().flatten().map(part).collect()
}

/// Adds `dir`, or if one of `closed` lies below it, its children, except for the way there.
fn past(dir: &Path, closed: &[PathBuf], dirs: &mut Vec<PathBuf>) {
    if closed.iter().any(|c| dir.starts_with(c)) {
        return;
    }
    if !closed.iter().any(|c| c.starts_with(dir)) {
        dirs.push(dir.to_owned());
        return;
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        past(&entry.path(), closed, dirs);
    }
}

/// Returns the directories of the programs in a `PATH`, each with what belongs to it: for
/// `~/.cargo/bin` all of `~/.cargo`. A home, or what the repository lies in, belongs to no
/// program.
pub fn tools(path: &OsStr, root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    let is_too_much = |dir: &Path| {
        dir.parent().is_none() || root.starts_with(dir) || home.is_some_and(|h| h.starts_with(dir))
    };
    for dir in std::env::split_paths(path).filter(|d| d.is_absolute()) {
        let is_programs = dir
            .file_name()
            .is_some_and(|n| PROGRAM_DIRS.iter().any(|p| n == *p));
        let prefix = dir.parent().filter(|p| is_programs && !is_too_much(p));
        let dir = prefix.unwrap_or(&dir);
        // What is closed of a directory of the system is opened for its programs.
        let is_open = |s: &&str| !SHARED.contains(s) && !home.is_some_and(|h| h.starts_with(s));
        let mut system = SYSTEM.iter().filter(|s| is_open(s));
        let is_known = system.any(|s| dir.starts_with(s));
        if !is_known && !is_too_much(dir) && !dir.starts_with(root) {
            dirs.push(dir.to_owned());
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &[&str]) {
        let (root, home) = (Path::new("/people/a/src/p"), Path::new("/people/a"));
        let found = tools(OsStr::new(path), root, Some(home));
        let expected: Vec<&Path> = expected.iter().map(Path::new).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_program_brings_its_prefix_but_no_home() {
        check("/usr/local/bin:/bin", &[]);
        check("/people/a/.cargo/bin", &["/people/a/.cargo"]);
        check("/people/a/.pyenv/shims", &["/people/a/.pyenv"]);
        check("/people/a/bin", &["/people/a/bin"]);
        check("/srv/tool", &["/srv/tool"]);
        check("/people/a/src/bin", &["/people/a/src/bin"]);
        check("/people/a/src/p/.venv/bin:relative", &[]);
        check("/people/a:/", &[]);
        check("/opt/sdk/bin", &["/opt/sdk"]);
    }

    #[test]
    fn a_repository_in_a_directory_of_the_system_is_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b/c", "b/root/x", "d"] {
            std::fs::create_dir_all(dir.path().join(name)).expect("creates");
        }
        let mut found = Vec::new();
        past(dir.path(), &[dir.path().join("b/root")], &mut found);
        found.sort();
        assert_eq!(found, ["a", "b/c", "d"].map(|d| dir.path().join(d)));
    }
}
