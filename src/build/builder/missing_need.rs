//! What a failed command lacked, where only its own words tell: a file that another target makes,
//! or its own output directory.

use std::ffi::OsString;

use super::Builder;
use super::error_hints::Failed;
use super::exec_root::ExecRoot;
use super::failed::TAIL_BYTES;
use crate::build::graph::{Pattern, Target};
use crate::build::runner::{BASE_ENV, CommandExit};
use crate::core::error::Error;
use crate::core::fs::RepoPath;
use crate::core::printed::Printed;

/// Words of a log that are looked up.
const WORDS_MAX: usize = 2000;

impl Builder<'_> {
    /// Names the target to need, if the last lines of a log say that there is no such file, and a
    /// target that is not needed, and can be, makes that one. Whether it was there in time would be
    /// luck.
    pub(super) fn with_missing_need(
        &self,
        target: &Target,
        place: &ExecRoot,
        log: &Printed,
        error: Box<Error>,
    ) -> Box<Error> {
        if error.help.is_some() {
            return error;
        }
        let Ok((tail, _)) = log.tail(TAIL_BYTES) else {
            return error;
        };
        let text = String::from_utf8_lossy(&tail);
        let lines = text.lines().filter(|line| says_absent(line));
        let mut words = lines.flat_map(words).take(WORDS_MAX);
        let found = words.find_map(|word| {
            let below = [target.dir.join(word), RepoPath::new(word)];
            below.into_iter().find_map(|path| {
                let needed = || {
                    let maker = self.inspector.stranger(target, &path)?;
                    let id = self.inspector.producer(&path)?;
                    let can = self.graph().can_need(&target.name, id);
                    can.then(|| format!("`{maker}` makes `{path}`: add `needs \"{maker}\"`"))
                };
                self.unmade_directory(target, place, &path).or_else(needed)
            })
        });
        match found {
            None => error,
            Some(help) => error.help(help),
        }
    }

    /// Adds what else is usual where a command fails.
    pub(super) fn with_usual_help(
        &self,
        command: &str,
        env: &[(String, Option<OsString>)],
        exit: &CommandExit,
        log: &Printed,
        error: Box<Error>,
    ) -> Box<Error> {
        let tail = log.tail(TAIL_BYTES);
        let (None, Ok((tail, _))) = (&error.help, tail) else {
            return error;
        };
        let declared = |name: &str| env.iter().any(|(n, _)| n == name) || BASE_ENV.contains(&name);
        let help = Failed {
            command,
            exit,
            printed: &String::from_utf8_lossy(&tail),
            is_kept: &|name| !declared(name) && (self.inspector.env)(name).is_some(),
        }
        .help();
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }

    /// Says that a path lies in an output directory that the commands have not made.
    fn unmade_directory(
        &self,
        target: &Target,
        place: &ExecRoot,
        path: &RepoPath,
    ) -> Option<String> {
        let root = place.root(self.inspector.digests.root());
        let dirs = target.outputs.iter().filter_map(|o| match &o.pattern {
            Pattern::Dir(dir) if path.starts_with(dir) => Some(dir),
            _ => None,
        });
        let unmade = |dir: &&RepoPath| !dir.to_absolute(root).exists();
        let dir = dirs.into_iter().find(unmade)?;
        Some(format!(
            "the output directory `{dir}/` is made by the commands: begin with `mkdir -p`"
        ))
    }
}

/// Returns whether a line says, in the words of the C library or of usual tools, that something is
/// not there.
fn says_absent(line: &str) -> bool {
    const WORDS: [&str; 7] = [
        "no such file",
        "nonexistent",
        "not found",
        "cannot find",
        "can't find",
        "does not exist",
        "enoent",
    ];
    let line = line.to_lowercase();
    WORDS.iter().any(|word| line.contains(word))
}

/// Returns the words of a line that may be paths.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || "'\"`()<>[]{},;‘’“”".contains(c);
    let words = line.split(ends).map(|word| word.trim_matches(':'));
    words.filter(|word| !word.is_empty() && !word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_the_words_of_tools() {
        for line in [
            "m.c:1:10: fatal error: g/v.h: No such file or directory",
            "FileNotFoundError: [Errno 2] No such file or directory: 'g/v.h'",
            "cat: g/v.h: No such file or directory",
            "Error: ENOENT: no such file or directory, open 'g/v.h'",
            "fatal error: 'g/v.h' file not found",
        ] {
            assert!(says_absent(line), "{line}");
            assert!(words(line).any(|word| word == "g/v.h"), "{line}");
        }
        assert!(!says_absent("m.c:1: warning: g/v.h is old"));
    }
}
