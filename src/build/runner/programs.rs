//! Where programs lie.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::CommandSpec;
use crate::core::fs;
use crate::core::sync::lock;

/// The files of programs, by name and `PATH`.
#[derive(Default)]
pub struct Programs(Mutex<HashMap<(OsString, OsString), OsString>>);

impl Programs {
    /// Returns the file of a program; where it lies is found out once for each `PATH`.
    pub fn find(&self, program: &OsStr, spec: &CommandSpec) -> OsString {
        let path = spec.env.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, dirs)| dirs.clone()).unwrap_or_default();
        let is_relative = |dir: PathBuf| dir.is_relative();
        // Such a name means another file in another directory.
        if program.as_encoded_bytes().contains(&b'/')
            || std::env::split_paths(&path).any(is_relative)
        {
            return locate(program, spec);
        }
        let key = (program.to_owned(), path);
        let known = |programs: &Self| lock(&programs.0).get(&key).cloned();
        if let Some(file) = known(self).filter(|file| is_program(Path::new(file))) {
            return file;
        }
        let file = locate(program, spec);
        lock(&self.0).insert(key, file.clone());
        file
    }
}

/// Returns the file of a program, found the way a shell finds it: with a slash relative to
/// the directory the command runs in, else in the `PATH` that it is given.
///
/// The standard library leaves open which directory it takes, and can only use
/// `posix_spawn` with a changed `PATH` when the program is a path already. A name that is
/// not found is returned as it is, for the system to refuse.
fn locate(program: &OsStr, spec: &CommandSpec) -> OsString {
    if program.as_encoded_bytes().contains(&b'/') {
        return spec.dir.join(program).into_os_string();
    }
    let path = spec.env.iter().find(|(name, _)| name == "PATH");
    let dirs = path.map(|(_, dirs)| std::env::split_paths(dirs));
    let mut files = dirs
        .into_iter()
        .flatten()
        .map(|dir| spec.dir.join(dir).join(program));
    files
        .find(|file| is_program(file))
        .map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && fs::is_executable(m.mode()))
}
