//! What a command touched, held against what its target declares.
//!
//! Each finding comes with the line that would declare it. Directories on the way to
//! something, and files that a command made for itself and removed again, are no findings.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::build::digest::ContentKind;
use crate::build::glob::{self, Glob};
use crate::build::graph::{Graph, Pattern, Target};
use crate::build::sandbox::{AccessLog, Accesses, SandboxRoot};
use crate::build::stale::GatheredInputs;
use crate::core::fs::{RepoPath, STATE_DIR, shown};

/// Where the C library asks for names of users that are in no file; it continues without an answer.
const NAME_SERVICES: [&str; 3] = ["/run/nscd", "/run/systemd", "/var/lib/sss"];

/// Something that a command did and its target does not declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndeclaredAccess {
    /// What was done: `reads`, `lists`, `looks at`, `runs`, `writes`, `connects to`, `leaves`.
    pub verb: &'static str,
    /// With what: a path as it would be declared, or an address.
    pub object: String,
    /// What to do: a line to add, where there is one.
    pub help: String,
}

impl fmt::Display for UndeclaredAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.verb, self.object)
    }
}

/// What a target declares, in a form that paths can be held against.
pub(super) struct DeclaredPaths<'a> {
    graph: &'a Graph,
    target: &'a Target,
    root: &'a Path,
    /// Files that may be read, absolute; also those that declared links lead to.
    files: HashSet<PathBuf>,
    /// Directories that a pattern lists; with all below them, or alone.
    listed: Vec<(RepoPath, bool)>,
    outputs: Vec<Glob>,
}

impl<'a> DeclaredPaths<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        target: &'a Target,
        gathered: &GatheredInputs,
        root: &'a Path,
    ) -> Self {
        let inputs = gathered
            .inputs
            .iter()
            .map(|(path, content)| (path, content.kind));
        let made = gathered.made().map(|o| (&o.path, o.content.kind));
        let mut files = HashSet::new();
        let linked = gathered.linked.iter().map(|(path, c)| (path, c.kind));
        for (path, kind) in inputs.chain(made).chain(linked) {
            let absolute = path.to_absolute(root);
            if kind == ContentKind::Link {
                files.extend(std::fs::canonicalize(&absolute));
            }
            files.insert(absolute);
        }
        let directory = |pattern: &Pattern| match pattern {
            Pattern::Dir(dir) | Pattern::Glob { base: dir, .. } => Some((dir.clone(), true)),
            Pattern::File(file) => Some((RepoPath::new(file.as_path().parent()?), false)),
        };
        let needed = target
            .needs
            .iter()
            .flat_map(|id| &graph.target(*id).outputs);
        let outputs = target.outputs.iter().chain(needed).map(|o| &o.pattern);
        let patterns = target.inputs.iter().map(|i| &i.pattern).chain(outputs);
        Self {
            graph,
            target,
            root,
            files,
            listed: patterns.filter_map(directory).collect(),
            outputs: target
                .outputs
                .iter()
                .filter_map(|o| glob::compile(&o.pattern).ok())
                .collect(),
        }
    }

    /// Takes note of more files that may be read: a depfile named them.
    pub(super) fn may_read<'p>(&mut self, paths: impl Iterator<Item = &'p RepoPath>) {
        let root = self.root;
        self.files.extend(paths.map(|path| path.to_absolute(root)));
    }

    /// Returns whether the target promises this file.
    pub(super) fn is_output(&self, path: &RepoPath) -> bool {
        self.outputs.iter().any(|glob| glob.is_match(path))
    }

    /// Returns what commands that were watched in the tree did.
    pub(super) fn undeclared(&self, seen: &AccessLog) -> Vec<UndeclaredAccess> {
        let mut found: BTreeMap<(String, &str), UndeclaredAccess> = BTreeMap::new();
        for (path, uses) in &seen.files {
            if let Some(finding) = self.in_tree(path, uses) {
                found.insert((finding.object.clone(), finding.verb), finding);
            }
        }
        let mut found: Vec<UndeclaredAccess> = found.into_values().collect();
        found.extend(seen.addresses.iter().map(|address| UndeclaredAccess {
            verb: "connects to",
            object: address.clone(),
            help: "data from a network is not part of the key: query it with `probe`".into(),
        }));
        if seen.is_anyone_left {
            found.push(UndeclaredAccess {
                verb: "leaves",
                object: "a process behind".into(),
                help: "let the command wait for all that it starts".into(),
            });
        }
        found
    }

    fn in_tree(&self, path: &Path, uses: &Accesses) -> Option<UndeclaredAccess> {
        let inside = path.strip_prefix(self.root).ok().map(RepoPath::new);
        if uses.is_written {
            return self.written(path, inside.as_ref(), uses);
        }
        let is_own = inside.as_ref().is_some_and(|path| self.is_output(path));
        if !uses.was_there || is_own || self.files.contains(path) {
            return None;
        }
        let is_dir = path.is_dir();
        let verb = match uses {
            Accesses {
                is_listed: true, ..
            } => "lists",
            Accesses { is_run: true, .. } => "runs",
            Accesses { is_read: true, .. } => "reads",
            Accesses {
                is_looked_at: true, ..
            } if !is_dir => "looks at",
            _ => return None,
        };
        if verb == "lists" && self.is_listed(path, inside.as_ref()) {
            return None;
        }
        Some(self.read(verb, path, inside.as_ref(), is_dir))
    }

    fn written(
        &self,
        path: &Path,
        inside: Option<&RepoPath>,
        uses: &Accesses,
    ) -> Option<UndeclaredAccess> {
        let now = std::fs::symlink_metadata(path).ok();
        let is_dir = now.as_ref().is_some_and(std::fs::Metadata::is_dir);
        // Made and removed again; or a directory, which alone is nothing.
        let is_nothing = (!uses.was_there && now.is_none()) || is_dir;
        if is_nothing || inside.is_some_and(|path| self.is_output(path)) {
            return None;
        }
        let object = self.name(path, inside, false);
        let help = match inside {
            _ if self.files.contains(path) => "let it work on a copy of its input".into(),
            Some(_) => format!("add `outputs \"{object}\"`, or write it below `$TMPDIR`"),
            None => "outputs lie in the repository: write it there, or below `$TMPDIR`".into(),
        };
        Some(UndeclaredAccess {
            verb: "writes",
            object,
            help,
        })
    }

    /// Returns whether a directory's listing follows from what is declared.
    fn is_listed(&self, path: &Path, inside: Option<&RepoPath>) -> bool {
        let Some(dir) = inside else {
            return self.files.iter().any(|file| file.parent() == Some(path));
        };
        let is_at =
            |(base, is_deep): &(RepoPath, bool)| dir == base || (*is_deep && dir.starts_with(base));
        self.listed.iter().any(is_at)
    }

    fn read(
        &self,
        verb: &'static str,
        path: &Path,
        inside: Option<&RepoPath>,
        is_dir: bool,
    ) -> UndeclaredAccess {
        let object = self.name(path, inside, is_dir);
        let maker = inside.and_then(|path| self.maker(path));
        let help = match (maker, inside) {
            (Some(maker), _) => format!("add `needs \"{maker}\"`"),
            (_, Some(path)) if path.as_path().starts_with(".git") => {
                "ask git with `probe`: its own files are never inputs".into()
            }
            (_, Some(path)) if path.as_path().starts_with(STATE_DIR) => {
                "do not access it: it is the state of rel".into()
            }
            _ if path.starts_with("/dev") => {
                format!("add `sandbox \"strict\" {{ read \"{object}\" }}`")
            }
            _ => format!("add `inputs \"{object}\"`"),
        };
        UndeclaredAccess { verb, object, help }
    }

    /// Returns a path as it is written in a Releasefile.
    fn name(&self, path: &Path, inside: Option<&RepoPath>, is_dir: bool) -> String {
        let name = match inside {
            Some(path) => path.to_string(),
            None => shown(path.as_os_str()).into_owned(),
        };
        if is_dir { format!("{name}/") } else { name }
    }

    /// Returns the target that makes a file.
    fn maker(&self, path: &RepoPath) -> Option<&'a str> {
        let is_made = |t: &Target| {
            let mut outputs = t.outputs.iter();
            t.name != self.target.name
                && outputs.any(|o| glob::compile(&o.pattern).is_ok_and(|g| g.is_match(path)))
        };
        let (_, maker) = self.graph.targets().find(|(_, t)| is_made(t))?;
        Some(&maker.name)
    }

    /// Returns what commands on a stage asked for in vain, or tried to write in vain.
    pub(super) fn lacking(&self, seen: &AccessLog, stage: &SandboxRoot) -> Vec<UndeclaredAccess> {
        let mut found = Vec::new();
        for (path, uses) in &seen.files {
            found.extend(self.lacked(path, uses, stage));
        }
        // What was opened says more than what was only asked for.
        found.sort_by_key(|finding| finding.verb == "looks at");
        found.dedup();
        let is_asked_by_all =
            |path: &&PathBuf| NAME_SERVICES.iter().any(|dir| path.starts_with(dir));
        let sockets = seen.sockets.iter().filter(|path| !is_asked_by_all(path));
        found.extend(sockets.map(|path| {
            let object = shown(path.as_os_str()).into_owned();
            let help = match path.is_absolute() {
                true => format!("add `sandbox \"strict\" {{ connect \"{object}\" }}`"),
                false => {
                    "an abstract socket: this kernel cannot tell whose it is (Linux 6.12)".into()
                }
            };
            UndeclaredAccess {
                verb: "connects to",
                object,
                help,
            }
        }));
        found
    }

    fn lacked(
        &self,
        path: &Path,
        uses: &Accesses,
        stage: &SandboxRoot,
    ) -> Option<UndeclaredAccess> {
        if path.starts_with(stage.private()) {
            return None;
        }
        let staged = stage.in_repository(path);
        if staged.is_some() && (uses.was_there || uses.is_written) {
            return None;
        }
        let (real, inside) = match &staged {
            Some(path) => (path.to_absolute(self.root), Some(path.clone())),
            None => {
                let inside = path.strip_prefix(self.root).ok().map(RepoPath::new);
                (path.to_owned(), inside)
            }
        };
        if uses.is_written {
            let object = self.name(&real, inside.as_ref(), false);
            let help = "outputs are written by relative paths, other files below `$TMPDIR`".into();
            return Some(UndeclaredAccess {
                verb: "writes",
                object,
                help,
            });
        }
        let is_dir = real.is_dir();
        let verb = match uses {
            Accesses { is_run: true, .. } => "runs",
            Accesses {
                is_listed: true, ..
            } => "lists",
            Accesses { is_read: true, .. } if is_dir => "lists",
            Accesses { is_read: true, .. } => "reads",
            Accesses {
                is_looked_at: true, ..
            } if !is_dir => "looks at",
            _ => return None,
        };
        std::fs::symlink_metadata(&real).ok()?;
        if staged.is_none() && self.files.contains(&real) {
            let object = shown(real.as_os_str()).into_owned();
            let help = "name it relative to the repository: in a sandbox it lies elsewhere".into();
            return Some(UndeclaredAccess { verb, object, help });
        }
        Some(self.read(verb, &real, inside.as_ref(), is_dir))
    }
}
