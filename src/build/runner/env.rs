//! The environment of commands: the base set, the mark of a target's command, and job slots.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The variable by which the processes of a target's command are known.
pub const MARK: &str = "REL_COMMAND_ID";

/// Returns what the marks of a checkout begin with.
pub fn checkout_mark(root: &Path) -> String {
    let hash = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
    format!("{}-", &hash[..16])
}

/// Returns the mark of a target's command: the same in every run, for a command may print its
/// environment.
pub fn mark(root: &Path, target: &str, index: usize) -> String {
    let hash = blake3::hash(format!("{index} {target}").as_bytes()).to_hex();
    format!("{}{}", checkout_mark(root), &hash[..16])
}

/// Variables that reach every command without being declared, and that no key holds: they
/// say where things are on this machine, not what to make.
pub const BASE_ENV: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE",
];

/// Returns the environment of a command: the base set out of `outer`, then `declared`.
pub fn command_env(
    outer: &dyn Fn(&str) -> Option<OsString>,
    declared: &[(String, Option<OsString>)],
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for name in BASE_ENV {
        if !declared.iter().any(|(n, _)| n == name)
            && let Some(value) = outer(name)
        {
            env.push((OsStr::new(name).to_owned(), value));
        }
    }
    for (name, value) in declared {
        if let Some(value) = value {
            env.push((OsStr::new(name).to_owned(), value.clone()));
        }
    }
    env
}

/// Returns the variables that tell an inner `make` of job slots, and lets every process
/// inherit the pipe they name.
///
/// The crate's own way marks the pipe between fork and exec, which keeps the standard
/// library from `posix_spawn`: with a large graph in memory a fork costs milliseconds.
pub(super) fn jobserver_env(client: &jobserver::Client) -> Vec<(OsString, OsString)> {
    let mut example = std::process::Command::new("");
    client.configure_make(&mut example);
    let slots: Vec<(OsString, OsString)> = example
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let numbers = slots.iter().find_map(|(_, value)| {
        let (_, auth) = value.to_str()?.split_once("--jobserver-auth=")?;
        let (read, write) = auth.split_whitespace().next()?.split_once(',')?;
        Some([read.parse::<i32>().ok()?, write.parse::<i32>().ok()?])
    });
    for number in numbers.into_iter().flatten() {
        // SAFETY: `client` owns these descriptors and outlives the borrow.
        #[expect(
            unsafe_code,
            reason = "the crate tells its descriptors as numbers only"
        )]
        let pipe = unsafe { BorrowedFd::borrow_raw(number) };
        // An inner make that cannot inherit it warns and uses one job.
        let _ = rustix::io::fcntl_setfd(pipe, rustix::io::FdFlags::empty());
    }
    slots
}
