//! What a Releasefile says, checked: the graph, the hosts, the environments.
//!
//! Made by `releasefile`, read by all other modules. An environment keeps its texts
//! as templates, because its parameters are known only on the command line; what a
//! `use` passes to its recipe is kept as written, because only the recipe knows
//! whether a parameter is a word, a command or an artifact.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::build::graph::{Command, Graph};
use crate::core::deploy_window::Window;
use crate::core::diagnostics::{SourceMap, Span};
use crate::core::template::{Mode, Template, shell_quote};

/// A checked Releasefile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Name of the project; the directory's name where the file does not say.
    pub name: String,
    /// The file says the name.
    pub is_named: bool,
    /// Where `{version}` comes from.
    pub version: Option<Version>,
    /// Variables with their values; a list where more than one was given.
    pub vars: BTreeMap<String, Vec<String>>,
    /// All targets.
    pub graph: Graph,
    /// All hosts, by name, after expansion of ranges.
    pub hosts: BTreeMap<String, Host>,
    /// Groups: names of hosts, in order, after expansion.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Secrets that every environment may use, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Environments, in the order written.
    pub environments: Vec<Environment>,
    /// The files it was read from.
    pub sources: SourceMap,
}

/// Source of the project's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Written down.
    Literal(String),
    /// Printed by a command.
    Command(Command),
}

/// A machine that steps run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Name in the Releasefile; its identity.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// Directory that belongs to `rel` there: `{host.root}`; journal and releases lie below it.
    pub root: String,
    /// root may write into directories that other users of the host can change.
    pub into_foreign: bool,
    /// Further values, as `{host.NAME}`.
    pub vars: BTreeMap<String, String>,
    /// Where it is declared.
    pub place: Span,
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// By the system's OpenSSH.
    Ssh {
        /// `user@name`, or an alias of `~/.ssh/config`.
        destination: String,
        /// Port, where it is not the configured one.
        port: Option<u16>,
        /// Jump host (`-J`).
        jump: Option<String>,
        /// Further `-o` options, such as `IdentityFile=…`.
        options: Vec<String>,
    },
    /// This machine: the same program, without SSH.
    Local,
}

impl Reach {
    /// Returns what a person types to come there, without `-o` options; `None` for this machine.
    pub fn typed(&self) -> Option<String> {
        let Self::Ssh {
            destination,
            port,
            jump,
            ..
        } = self
        else {
            return None;
        };
        let quote = |word: &str| shell_quote(OsStr::new(word)).to_string_lossy().into_owned();
        let mut words = Vec::new();
        words.extend(port.iter().flat_map(|p| ["-p".into(), p.to_string()]));
        words.extend(jump.iter().flat_map(|j| ["-J".into(), quote(j)]));
        words.push(quote(destination));
        Some(format!("ssh {}", words.join(" ")))
    }
}

impl Project {
    /// Returns the host of this name, or the members of the group; ranges are expanded before.
    pub fn hosts_named(&self, name: &str) -> Option<Vec<&Host>> {
        if let Some(host) = self.hosts.get(name) {
            return Some(vec![host]);
        }
        let members = self.groups.get(name)?.iter();
        Some(members.filter_map(|m| self.hosts.get(m)).collect())
    }
}

/// A named place that a release goes to; a command of `rel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Name, and the name of the command.
    pub name: String,
    /// One line for people.
    pub desc: Option<String>,
    /// Arguments of the command, in order.
    pub params: Vec<Param>,
    /// `each`: names with their values.
    pub axes: Vec<Axis>,
    /// Targets that must be fresh before, such as `wheel[{branch}]`.
    pub needs: Vec<(Template, Span)>,
    /// What is done, in order.
    pub uses: Vec<Use>,
    /// Hosts that move in waves, for the uses that say so.
    pub rollouts: Vec<Rollout>,
    /// Names that stand for the hosts on which a probe succeeds.
    pub roles: Vec<Role>,
    /// Hours in which a run may begin, and a wave; at any time where there are none.
    pub windows: Vec<Window>,
    /// Logs that are no service's.
    pub logs: Vec<LogDecl>,
    /// Secrets of its own, over those of the project.
    pub secrets: BTreeMap<String, Secret>,
    /// Who must have approved a plan of it; without it any user runs it.
    pub approval: Option<ApprovalRule>,
    /// How long its lease holds when nothing is heard of the run.
    pub lease: Option<Duration>,
    /// Connections that are opened at once through one jump host, or to one address.
    pub connections: Option<usize>,
    /// Where the name is written.
    pub place: Span,
}

impl Environment {
    /// Returns its windows and those of its rollouts.
    pub fn all_windows(&self) -> impl Iterator<Item = &Window> {
        let of_rollouts = self.rollouts.iter().flat_map(|r| &r.windows);
        self.windows.iter().chain(of_rollouts)
    }
}

/// Hosts that are found by a probe: which of several is the active one now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// Name, used like that of a group.
    pub name: String,
    /// The hosts that may have it, in order.
    pub on: Vec<Template>,
    /// Succeeds on those that have it.
    pub command: Template,
    /// So many may have it; any number where it is not stated.
    pub count: Option<u32>,
    /// Where the name is written.
    pub place: Span,
}

/// Files on hosts that are shown as logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDecl {
    /// Path on the host; stars mean files.
    pub path: Template,
    /// The hosts; all where there are none.
    pub on: Vec<Template>,
}

/// A value that is shown nowhere: here is only where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// Where its value comes from, each time that it is needed.
    pub from: SecretFrom,
    /// Where the name is written.
    pub place: Span,
}

/// Where the value of a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretFrom {
    /// Printed by a command, such as `pass show karl/db`.
    Command(Command),
    /// A variable of `rel`'s own environment.
    Env(String),
    /// A file, relative to the Releasefile.
    File(String),
}

/// Who must have approved a plan before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// Users who may; any user but the plan's maker where there are none.
    pub by: Vec<String>,
    /// How many of them must have.
    pub count: usize,
    /// Where it is written.
    pub place: Span,
}

/// An argument of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Name, used as `{name}`.
    pub name: String,
    /// Allowed values; empty for any.
    pub one_of: Vec<String>,
    /// Value when it is left out.
    pub default: Option<String>,
    /// One line for people.
    pub desc: Option<String>,
    /// Where it is declared.
    pub place: Span,
}

/// A name that takes each of several values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// Name, used as `{name}`.
    pub name: String,
    /// Values, in order.
    pub values: Vec<String>,
}

/// One application of a recipe. `verify` is a use of the recipe `http-check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Name of the recipe.
    pub recipe: String,
    /// Name of this use: `as`, or the recipe's name. Unique in the environment.
    pub label: String,
    /// Hosts or groups; empty for work done from the operator's machine.
    pub on: Vec<Template>,
    /// Host that something is taken from.
    pub from: Option<Template>,
    /// Uses that must be done before, and whose change makes this one stale.
    pub after: Vec<String>,
    /// Uses further down: it is done when one of them will change something, and only then.
    pub wraps: Vec<String>,
    /// Age at which it is done again.
    pub max_age: Option<Duration>,
    /// root may write into directories that other users of the host can change.
    pub into_foreign: bool,
    /// Parameters for the recipe, as written.
    pub args: BTreeMap<String, Arg>,
    /// Index of the rollout it stands in, which says on which hosts and in which order.
    pub rollout: Option<usize>,
    /// It only asks whether a wave may be left behind: each time that something changed there.
    pub is_gate: bool,
    /// Where it is written.
    pub place: Span,
}

/// Hosts that move one after the other, with gates between the waves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Name, unique in the environment.
    pub name: String,
    /// Hosts and groups, in the order in which they move.
    pub on: Vec<Template>,
    /// Sizes of the waves; the last one is that of all that follow. Empty: one wave.
    pub serial: Vec<Share>,
    /// How long a changed wave runs before its gates are asked.
    pub soak: Option<Duration>,
    /// Hosts that stay as they are until they are promoted.
    pub hold_back: Vec<Template>,
    /// So many hosts may fail before the rollout does.
    pub max_failures: Share,
    /// What is rolled back when it fails.
    pub on_failure: OnFailure,
    /// Hours in which its waves may begin; at any time where there are none.
    pub windows: Vec<Window>,
    /// Where the name is written.
    pub place: Span,
}

/// A number of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred of the rollout's.
    Percent(u32),
}

/// What is rolled back when a step of a rollout fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// All that the run did.
    #[default]
    Back,
    /// The wave; those before it stay, and the next run goes on.
    Stop,
}

/// A value passed to a recipe, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arg {
    /// The text, not yet parsed as a template: how it is read depends on the parameter's type.
    pub text: String,
    /// Where it is written.
    pub place: Span,
}

impl Arg {
    /// Returns the text that names a target, for an argument that is an artifact: braces around
    /// it may be left out.
    pub fn target_text(&self) -> &str {
        let inner = self
            .text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'));
        inner.unwrap_or(&self.text)
    }

    /// Returns the names in the text, however its recipe reads it.
    pub fn names(&self) -> Vec<String> {
        let plain = Template::parse(&self.text, Mode::Plain);
        // `{target[{axis}]}` is no text, but may be an artifact.
        let parsed = plain.or_else(|_| Template::parse(self.target_text(), Mode::Plain));
        let names = parsed.iter().flat_map(Template::names);
        names.map(str::to_owned).collect()
    }
}

/// A file made by a needed target, handed to a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Absolute paths of the files, or of one directory.
    pub paths: Vec<PathBuf>,
    /// SHA-256 in lower-case hex over content (for a directory: over its sorted tree);
    /// what hosts can check with `sha256sum`.
    pub sha256: String,
    /// It is one file, and the digest that of its content.
    pub is_one_file: bool,
    /// BLAKE3 of each file's content and each link's text, by absolute path: what stands there
    /// when it is sent must be what was built.
    pub contents: BTreeMap<PathBuf, [u8; 32]>,
}
