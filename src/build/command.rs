//! Commands made ready to run: late names resolved, words as the system takes them.
//!
//! Late names are those that only a settled target knows: `{out}`, `{inputs}`,
//! `{version}`, and each needed target by name. Paths are given relative to the directory
//! that the command runs in, never absolute: an absolute path would enter the key and no
//! other machine would ever hit.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::build::digest::Content;
use crate::build::glob::Glob;
use crate::build::graph::{Command, Graph, Pattern, Target, TargetId};
use crate::build::key::TargetOutputs;
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::fs::RepoPath;
use crate::core::template::{Template, TemplateError, Value};

/// What late names of one target stand for.
pub struct RuntimeVars<'a> {
    /// The graph, to look needed targets up.
    pub graph: &'a Graph,
    /// The target.
    pub target: &'a Target,
    /// Its input files.
    pub inputs: &'a [(RepoPath, Content)],
    /// Needed targets, with what they made.
    pub needs: &'a [(TargetId, Arc<TargetOutputs>)],
    /// The project's version.
    pub version: Option<&'a str>,
}

impl RuntimeVars<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        match name {
            "out" => Some(list(
                self.target.outputs.iter().map(|o| self.output(&o.pattern)),
            )),
            "in" | "inputs" => Some(list(self.inputs.iter().map(|(p, _)| self.path(p)))),
            "version" => self.version.map(Value::from),
            _ => Some(self.need(name)),
        }
    }

    /// An output pattern as it is written; a directory without its slash.
    fn output(&self, pattern: &Pattern) -> OsString {
        match pattern {
            Pattern::File(path) | Pattern::Dir(path) => self.path(path),
            Pattern::Glob { base, glob } => {
                let glob = glob.strip_prefix(&format!("{base}/")).unwrap_or(glob);
                PathBuf::from(self.path(base)).join(glob).into_os_string()
            }
        }
    }

    /// `wheel` stands for the outputs of the needed target `wheel`, or of all needed
    /// instances `wheel[…]`, of which there may be none: that the name is one of a needed
    /// target has been checked when the Releasefile was read.
    fn need(&self, name: &str) -> Value {
        let mut words = Vec::new();
        for (id, made) in self.needs {
            let need = self.graph.target(*id);
            if need.name == name || need.base == name {
                words.extend(named_outputs(need, made).iter().map(|p| self.path(p)));
            }
        }
        list(words.into_iter())
    }

    fn path(&self, path: &RepoPath) -> OsString {
        relative(path, &self.target.dir)
    }

    /// Returns a template as one word.
    pub fn render(&self, template: &Template) -> Result<OsString> {
        template
            .render(&|name| self.value(name))
            .map_err(|e| self.error(&e))
    }

    fn error(&self, error: &TemplateError) -> Box<Error> {
        Error::new(
            ErrorKind::Releasefile,
            format!("in target `{}`: {error}", self.target.name),
        )
        .help(error.help())
    }
}

/// Returns the paths a needed target's name stands for: its files, and each output
/// directory as one path.
pub fn named_outputs(target: &Target, made: &TargetOutputs) -> Vec<RepoPath> {
    let mut paths = Vec::new();
    for output in &target.outputs {
        match &output.pattern {
            Pattern::File(path) | Pattern::Dir(path) => paths.push(path.clone()),
            Pattern::Glob { glob, .. } => {
                let glob = Glob::new(glob);
                let is_match = |p: &RepoPath| glob.as_ref().is_ok_and(|g| g.is_match(p));
                let files = made.outputs.iter().map(|o| &o.path);
                paths.extend(files.filter(|p| is_match(p)).cloned());
            }
        }
    }
    paths
}

/// One word for one path; a list otherwise.
fn list(words: impl Iterator<Item = OsString>) -> Value {
    let mut words: Vec<OsString> = words.collect();
    match words.len() {
        1 => Value::One(words.remove(0)),
        _ => Value::Many(words),
    }
}

/// Returns `path` as seen from the directory `dir`, both relative to the root.
pub fn relative(path: &RepoPath, dir: &RepoPath) -> OsString {
    if !path.is_inside() && path.as_path().is_absolute() {
        return path.as_os_str().to_owned();
    }
    let common = path
        .as_path()
        .components()
        .zip(dir.as_path().components())
        .take_while(|(a, b)| a == b && matches!(a, Component::Normal(_)))
        .count();
    let up = dir.as_path().components().count() - common;
    let mut out = PathBuf::new();
    out.extend(std::iter::repeat_n("..", up));
    out.extend(path.as_path().components().skip(common));
    match out.as_os_str().as_bytes().first() {
        None => ".".into(),
        // A program would take it for an option.
        Some(b'-') => Path::new(".").join(out).into_os_string(),
        Some(_) => out.into_os_string(),
    }
}

/// Returns all commands of a target: `run`, `product`, `tool`, `probe`.
pub fn all(target: &Target) -> impl Iterator<Item = &Command> {
    target
        .run
        .iter()
        .chain(&target.product)
        .chain(&target.tools)
        .chain(&target.probes)
}

/// Returns a command's words with late names resolved.
pub fn render(command: &Command, late: &RuntimeVars<'_>) -> Result<Vec<OsString>> {
    words(command, &|name| late.value(name)).map_err(|e| late.error(&e))
}

/// Returns the words of a command that has no late names.
pub fn render_plain(command: &Command) -> Result<Vec<OsString>> {
    words(command, &|_| None)
        .map_err(|e| Error::new(ErrorKind::Releasefile, e.to_string()).help(e.help()))
}

fn words(
    command: &Command,
    scope: &dyn Fn(&str) -> Option<Value>,
) -> Result<Vec<OsString>, TemplateError> {
    match command {
        Command::Shell { shell, script } => {
            let mut words: Vec<OsString> = shell.iter().map(OsString::from).collect();
            words.push(script.render(scope)?);
            Ok(words)
        }
        Command::Argv(templates) => {
            let mut words = Vec::with_capacity(templates.len());
            for template in templates {
                words.extend(template.render_words(scope)?);
            }
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, dir: &str, expected: &str) {
        assert_eq!(
            relative(&RepoPath::new(path), &RepoPath::new(dir)),
            expected
        );
    }

    #[test]
    fn paths_are_seen_from_the_directory() {
        check("dist/a.whl", "", "dist/a.whl");
        check("dist/a.whl", "site", "../dist/a.whl");
        check("site/src/a.py", "site", "src/a.py");
        check("site", "site", ".");
        check("a", "site/x", "../../a");
        check("/etc/hosts", "site", "/etc/hosts");
        check("../shared/x", "site", "../../shared/x");
    }

    #[test]
    fn no_path_is_taken_for_an_option() {
        check("-n", "", "./-n");
        check("site/-n/a", "site", "./-n/a");
        check("-n", "site", "../-n");
        check("a/-n", "", "a/-n");
    }
}
