//! The graph: targets and the edges between them. No I/O.
//!
//! A graph is made by `releasefile`, checked there, and never changes
//! afterwards. Loops (`each`, `matrix`) are already expanded: `thumbnail` over two
//! files is the two targets `thumbnail[a.png]` and `thumbnail[b.png]`. Names that
//! are known beforehand are already bound in the templates; what is left (`{out}`,
//! `{wheel}`, `{version}`) is known only when the needed targets are settled.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::diagnostics::Span;
use crate::core::fs::RepoPath;
use crate::core::template::{self, Template};

mod target_table;

use target_table::TargetTable;

/// Number of a target in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetId(pub u32);

impl TargetId {
    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Number of a pool in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PoolId(pub u32);

/// A named limit on how many jobs of some kind run at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Name in the Releasefile.
    pub name: String,
    /// Sum of the weights that may run at once.
    pub depth: u32,
}

/// What a file pattern names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// One file (or symbolic link).
    File(RepoPath),
    /// A directory with everything below it; written with a trailing slash.
    Dir(RepoPath),
    /// A glob below the directory `base`, which has no wildcard in it. `glob` is the
    /// whole pattern, relative to the repository root.
    Glob {
        /// The longest directory without a wildcard.
        base: RepoPath,
        /// The pattern: `*`, `?`, `[…]`, `{a,b}` and `**`, where `*` does not cross `/`.
        glob: String,
    },
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{path}"),
            Self::Dir(path) => write!(f, "{path}/"),
            Self::Glob { glob, .. } => f.write_str(glob),
        }
    }
}

/// One element of `inputs`; order matters, a later `!` takes away what an earlier one added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What it names.
    pub pattern: Pattern,
    /// Written with a leading `!`.
    pub is_exclusion: bool,
    /// May match nothing (`optional=#true`).
    pub is_optional: bool,
    /// Where it is written.
    pub place: Span,
}

impl Input {
    /// Returns all that lies below a directory, be it there or not.
    pub fn below(dir: RepoPath) -> Self {
        Self {
            pattern: Pattern::Dir(dir),
            is_exclusion: false,
            is_optional: true,
            place: Span::default(),
        }
    }
}

/// One element of `outputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it names, inside the repository.
    pub pattern: Pattern,
    /// Exactly how many files a glob must match after the run (`count=1`).
    pub count: Option<u32>,
    /// Where it is written.
    pub place: Span,
}

/// A command as written, with late names still in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// One string: `run "a | b"`. Given to the shell as its last argument.
    Shell {
        /// The interpreter and its options: `sh -eu -c` unless `shell` says otherwise.
        shell: Vec<String>,
        /// The script.
        script: Template,
    },
    /// Several strings: `run "cp" "{in}" "{out}"`. No shell is involved.
    Argv(Vec<Template>),
}

impl Command {
    /// Returns the names it uses.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Shell { script, .. } => Box::new(script.names()),
            Self::Argv(words) => Box::new(words.iter().flat_map(Template::names)),
        }
    }

    /// Returns whether it is a script for a shell that reads one from a file with `.` as well.
    pub fn can_read_script(&self) -> bool {
        let takes =
            |last: &String| last.starts_with('-') && !last.starts_with("--") && last.contains('c');
        match self {
            Self::Shell { shell, .. } => {
                template::is_posix(shell) && shell.last().is_some_and(takes)
            }
            Self::Argv(_) => false,
        }
    }

    /// Returns the script that reads the one in a file, an absolute path.
    pub fn reading(file: &Path) -> OsString {
        let mut script = OsString::from(". ");
        script.push(template::shell_quote(file.as_os_str()));
        script
    }

    /// Returns the command as written, for people.
    pub fn source(&self) -> String {
        match self {
            Self::Shell { script, .. } => script.source(),
            Self::Argv(words) => words
                .iter()
                .map(Template::source)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// A declared environment variable of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// `env "NAME"`: as it is in the environment of `rel`, or unset.
    Inherited,
    /// `env NAME="value"`.
    Set(Template),
}

/// Who may use the results of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheScope {
    /// Every checkout, except for results that name the path of this one (`cache #true`).
    #[default]
    Checked,
    /// No checkout: nothing enters the cache (`cache #false`).
    Off,
    /// Checkouts at this very path (`cache "here"`).
    Here,
    /// Every checkout, whatever the results name (`cache "anywhere"`).
    Anywhere,
}

impl CacheScope {
    /// Returns what an action key holds of it: a result that may name any checkout is no
    /// result for those who did not ask for it.
    pub fn key_word(self) -> Option<&'static str> {
        match self {
            Self::Checked | Self::Off => None,
            Self::Here => Some("here"),
            Self::Anywhere => Some("anywhere"),
        }
    }
}

/// What `sandbox "strict"` adds to what commands are always allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Directories of tools and devices, absolute or below `~/`, that may be read; devices may be
    /// written to as well.
    pub read: Vec<String>,
    /// Sockets that may be connected to, and directories of such, absolute or below `~/`.
    pub connect: Vec<String>,
}

/// A named unit of local work: inputs, commands, outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Unique name, with the values of `each` in brackets: `thumbnail[assets/a.png]`.
    pub name: String,
    /// Name as written in the Releasefile.
    pub base: String,
    /// One line for people.
    pub desc: Option<String>,
    /// Where the name is written.
    pub place: Span,
    /// Targets that must be settled before, in the order written.
    pub needs: Vec<TargetId>,
    /// What it reads, in the order written.
    pub inputs: Vec<Input>,
    /// What it writes.
    pub outputs: Vec<Output>,
    /// What of that tools keep for themselves (`outputs "site/" "!site/.cache/"`): it is no part of
    /// a result, and is left alone.
    pub not_outputs: Vec<Pattern>,
    /// Prints the identity of a result that is no file.
    pub product: Option<Command>,
    /// Commands, run in order until one fails.
    pub run: Vec<Command>,
    /// Directory the commands run in.
    pub dir: RepoPath,
    /// Declared environment, by name.
    pub env: BTreeMap<String, EnvValue>,
    /// Commands that print a tool's version.
    pub tools: Vec<Command>,
    /// Commands whose standard output is an input.
    pub probes: Vec<Command>,
    /// The pool it runs in, and how much of its depth it takes.
    pub pool: Option<(PoolId, u32)>,
    /// Limit on one attempt.
    pub timeout: Option<Duration>,
    /// Further attempts after a failure.
    pub retries: u32,
    /// Age at which a result counts as stale although nothing changed.
    pub max_age: Option<Duration>,
    /// Who may use its results.
    pub cache: CacheScope,
    /// Set when the commands see only what is declared (`sandbox "strict"`).
    pub sandbox: Option<Sandbox>,
    /// Where the commands write down what they read.
    pub depfile: Option<RepoPath>,
    /// What its result is for, in place of the machine that makes it.
    pub platform: Option<String>,
    /// Texts the output must contain; without one the run failed.
    pub expect: Vec<String>,
    /// Texts the output must not contain.
    pub reject: Vec<String>,
}

/// All targets, and who needs whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    targets: TargetTable,
    pools: Vec<Pool>,
    /// Targets that need this one.
    needed_by: Vec<Vec<TargetId>>,
    /// All targets, each after what it needs.
    order: Vec<TargetId>,
}

impl Graph {
    /// Returns the graph of `targets`, whose `needs` are indices into the same list.
    ///
    /// # Errors
    /// A cycle, as the path round it: the first target is named again at the end.
    pub fn new(targets: Vec<Target>, pools: Vec<Pool>) -> Result<Self, Vec<TargetId>> {
        let order = topological(&targets)?;
        let mut needed_by = vec![Vec::new(); targets.len()];
        for (i, target) in targets.iter().enumerate() {
            let id = TargetId(u32::try_from(i).unwrap_or(u32::MAX));
            for need in &target.needs {
                needed_by[need.index()].push(id);
            }
        }
        Ok(Self {
            targets: TargetTable::new(targets),
            pools,
            needed_by,
            order,
        })
    }

    /// Returns a target.
    pub fn target(&self, id: TargetId) -> &Target {
        self.targets.target(id)
    }

    /// Returns a target's name, without reading the rest of it.
    pub fn name(&self, id: TargetId) -> &str {
        self.targets.name(id)
    }

    /// Returns what a target needs, without reading the rest of it.
    pub fn needs(&self, id: TargetId) -> &[TargetId] {
        self.targets.needs(id)
    }

    /// Returns all targets with their numbers, in the order of the Releasefile.
    pub fn targets(&self) -> impl Iterator<Item = (TargetId, &Target)> {
        self.targets
            .iter()
            .enumerate()
            .map(|(i, t)| (TargetId(i as u32), t))
    }

    /// Returns the numbers of all targets, in the order of the Releasefile.
    pub fn ids(&self) -> impl Iterator<Item = TargetId> + use<> {
        (0..self.targets.len()).map(|i| TargetId(i as u32))
    }

    /// Returns how many targets there are.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Returns whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.targets.len() == 0
    }

    /// Returns whether a target is a group: it has no commands, and is a name for what it needs.
    pub fn is_group(&self, id: TargetId) -> bool {
        self.targets.groups().binary_search(&id).is_ok()
    }

    /// Returns the targets with commands that a group stands for, directly or through others,
    /// sorted.
    pub fn members(&self, group: TargetId) -> Vec<TargetId> {
        let (mut stack, mut seen) = (vec![group], HashSet::new());
        while let Some(id) = stack.pop() {
            let is_new = |need: &&TargetId| seen.insert(**need);
            let new = self.needs(id).iter().filter(is_new);
            let groups: Vec<TargetId> = new.copied().filter(|need| self.is_group(*need)).collect();
            stack.extend(groups);
        }
        let mut members: Vec<TargetId> = seen.into_iter().collect();
        members.retain(|id| !self.is_group(*id));
        members.sort_unstable();
        members
    }

    /// Returns for each target whether it is one of `ids`, or a group that stands for one.
    pub fn marked(&self, ids: impl Iterator<Item = TargetId>) -> Vec<bool> {
        let mut marks = vec![false; self.len()];
        for id in ids {
            marks[id.index()] = true;
        }
        if !self.targets.groups().is_empty() && marks.contains(&true) {
            for id in self.order.iter().filter(|id| self.is_group(**id)) {
                marks[id.index()] |= self.needs(*id).iter().any(|need| marks[need.index()]);
            }
        }
        marks
    }

    /// Returns the targets that need `id`.
    pub fn needed_by(&self, id: TargetId) -> &[TargetId] {
        &self.needed_by[id.index()]
    }

    /// Returns all targets, each after everything it needs.
    pub fn order(&self) -> &[TargetId] {
        &self.order
    }

    /// Returns the pools.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Returns what a name stands for: one target, or all of `thumbnail[…]`.
    pub fn find(&self, name: &str) -> Option<Vec<TargetId>> {
        if let Some(id) = self.targets.find(name) {
            return Some(vec![id]);
        }
        let is_instance = |id: &TargetId| base_of(self.name(*id)) == name;
        let ids: Vec<TargetId> = self.ids().filter(is_instance).collect();
        (!ids.is_empty()).then_some(ids)
    }

    /// Returns the base names, sorted.
    pub fn base_names(&self) -> impl Iterator<Item = &str> {
        sorted(self.ids().map(|id| base_of(self.name(id))))
    }

    /// Returns the full names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        sorted(self.ids().map(|id| self.name(id)))
    }

    /// Returns whether the target of this name could need `other`, or does: whether that one is
    /// another one and does not need it, be it through others.
    pub fn can_need(&self, name: &str, other: TargetId) -> bool {
        let needed = self.closure(&[other]);
        !needed.iter().any(|id| self.name(*id) == name)
    }

    /// Returns `roots` and everything they need, each after what it needs.
    pub fn closure(&self, roots: &[TargetId]) -> Vec<TargetId> {
        let mut wanted = vec![false; self.targets.len()];
        let mut stack = roots.to_vec();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut wanted[id.index()], true) {
                stack.extend(self.needs(id));
            }
        }
        let all = self.order.iter().copied();
        all.filter(|id| wanted[id.index()]).collect()
    }
}

/// Returns the name as written in the Releasefile: without the values in brackets.
fn base_of(name: &str) -> &str {
    name.split_once('[').map_or(name, |(base, _)| base)
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// Returns the targets, each after what it needs, without recursion: a chain of
/// 100,000 targets must not exhaust the stack.
///
/// # Errors
/// A cycle, as the path round it: the first target is named again at the end.
pub fn topological(targets: &[Target]) -> Result<Vec<TargetId>, Vec<TargetId>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; targets.len()];
    let mut order = Vec::with_capacity(targets.len());
    for start in 0..targets.len() {
        // Each entry is a target and how many of its needs were visited.
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks[start] == Mark::New {
            marks[start] = Mark::Open;
            path.push((start, 0));
        }
        while let Some((at, visited)) = path.last_mut() {
            let at = *at;
            match targets[at].needs.get(*visited) {
                Some(need) => {
                    *visited += 1;
                    match marks[need.index()] {
                        Mark::New => {
                            marks[need.index()] = Mark::Open;
                            path.push((need.index(), 0));
                        }
                        Mark::Open => return Err(cycle(&path, *need)),
                        Mark::Done => {}
                    }
                }
                None => {
                    marks[at] = Mark::Done;
                    order.push(TargetId(at as u32));
                    path.pop();
                }
            }
        }
    }
    Ok(order)
}

fn cycle(path: &[(usize, usize)], back: TargetId) -> Vec<TargetId> {
    path.iter()
        .map(|(at, _)| TargetId(*at as u32))
        .skip_while(|id| *id != back)
        .chain([back])
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a target that only has a name and needs.
    pub(crate) fn bare(name: &str, needs: &[u32]) -> Target {
        Target {
            name: name.into(),
            base: name.split('[').next().unwrap_or(name).into(),
            needs: needs.iter().copied().map(TargetId).collect(),
            ..Target::default()
        }
    }

    #[test]
    fn what_needs_a_target_cannot_be_needed_by_it() {
        let targets = vec![
            bare("a", &[1]),
            bare("b", &[2]),
            bare("c", &[3]),
            bare("d", &[]),
        ];
        let graph = Graph::new(targets, vec![]).expect("no cycle");
        let can = |name| [0, 1, 2, 3].map(|id| graph.can_need(name, TargetId(id)));
        assert_eq!(can("a"), [false, true, true, true]);
        assert_eq!(can("c"), [false, false, false, true]);
        assert_eq!(can("d"), [false; 4]);
    }

    #[test]
    fn needs_come_first() {
        let graph = Graph::new(
            vec![bare("a", &[1, 2]), bare("b", &[2]), bare("c", &[])],
            vec![],
        )
        .expect("no cycle");
        assert_eq!(graph.order(), [TargetId(2), TargetId(1), TargetId(0)]);
        assert_eq!(graph.closure(&[TargetId(1)]), [TargetId(2), TargetId(1)]);
        assert_eq!(graph.needed_by(TargetId(2)), [TargetId(0), TargetId(1)]);
    }

    #[test]
    fn a_cycle_is_shown_as_the_path_round_it() {
        let targets = vec![bare("a", &[1]), bare("b", &[2]), bare("c", &[1])];
        let cycle = Graph::new(targets, vec![]).expect_err("a cycle");
        assert_eq!(cycle, [TargetId(1), TargetId(2), TargetId(1)]);
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let targets = (0..200_000u32)
            .map(|i| bare(&format!("t{i}"), &if i == 0 { vec![] } else { vec![i - 1] }))
            .rev()
            .collect::<Vec<_>>();
        // Reversed list: indices point the other way round, still acyclic.
        let count = targets.len() as u32;
        let targets = targets
            .into_iter()
            .enumerate()
            .map(|(i, mut t)| {
                t.needs = if (i as u32) + 1 < count {
                    vec![TargetId(i as u32 + 1)]
                } else {
                    vec![]
                };
                t
            })
            .collect();
        assert_eq!(
            Graph::new(targets, vec![]).expect("no cycle").order().len(),
            200_000
        );
    }

    #[test]
    fn a_base_name_stands_for_all_its_targets() {
        let graph = Graph::new(
            vec![bare("t[a]", &[]), bare("t[b]", &[]), bare("u", &[])],
            vec![],
        )
        .expect("no cycle");
        assert_eq!(graph.find("t"), Some(vec![TargetId(0), TargetId(1)]));
        assert_eq!(graph.find("t[b]"), Some(vec![TargetId(1)]));
        assert_eq!(graph.find("v"), None);
    }
}
