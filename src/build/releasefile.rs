//! The Releasefile: from KDL text to a checked [`Project`].
//!
//! Nothing runs here. The files are read, decoded by hand so that every value keeps its
//! place, and checked; all mistakes of all files are found in one run. Nodes are decoded
//! leniently: what is half wrong still counts as declared, so that one mistake does not
//! breed others.
//!
//! | Step                | Module                    |
//! |---------------------|---------------------------|
//! | text, includes      | `read`, `nesting`, `node` |
//! | variables, names    | `scope`                   |
//! | names of targets    | `declare`, `axes`         |
//! | targets             | `target`, `pattern`, `depfile`, `platform`, `cache` |
//! | hosts, environments | `hosts`, `environment`, `rollout`, `secret` |
//! | the whole           | `check`                   |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use crate::build::glob::{DirListing, DiskListing};
use crate::build::graph::{Graph, Pool, Target, TargetId};
use crate::build::model::{Project, Version};
use crate::core::diagnostics::{Diagnostic, SourceMap, Span, suggest};
use crate::core::error::{Error, ErrorKind};
use crate::core::fs::{ReadFile, RepoPath};
use crate::core::template::{LENGTH_MAX, TemplateError};

mod axes;
mod cache_node;
mod depfile_node;
mod depth_limit;
mod environment_node;
mod gate_node;
mod host_nodes;
mod instances;
mod limits;
mod loader;
mod log_nodes;
mod node;
mod pattern;
mod platform;
mod project_checks;
mod role;
mod rollout_node;
mod sandbox_node;
mod scope;
mod secret_node;
mod target;
mod terms;
#[cfg(test)]
mod tests;
mod window;
mod wraps;

pub use environment_node::COMMANDS;
use instances::DeclaredNames;
use limits::Sums;
use node::{Diagnostics, Node, SpannedText, unknown_node};
use scope::{AxisValue, EvalContext, NameScope, NoDeferred, Vars, bad_name};

/// The nodes a Releasefile may have.
const TOP: &[&str] = &[
    "project",
    "var",
    "include",
    "pool",
    "sandbox",
    "target",
    "host",
    "group",
    "secret",
    "environment",
];

/// What to load.
pub struct LoadRequest<'a> {
    /// Absolute directory of the Releasefile; all paths in it are relative to this.
    pub root: PathBuf,
    /// The Releasefile, absolute.
    pub file: PathBuf,
    /// A file whose hosts and groups replace those of the same name.
    pub hosts_file: Option<PathBuf>,
    /// Values that replace those of `var`.
    pub vars: BTreeMap<String, String>,
    /// Asked for the mistakes in the uses of recipes, once the rest is sound.
    pub check_recipes: &'a dyn Fn(&Project) -> Vec<Diagnostic>,
}

/// A Releasefile without mistakes.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub project: Project,
    /// What is odd, but no mistake.
    pub warnings: Vec<Diagnostic>,
    /// Inputs that are not there. They stop only the targets that read them, for they come
    /// and go without the Releasefile being read again.
    pub missing: Vec<Diagnostic>,
    /// All files that were read, absolute, in order.
    pub read: Vec<ReadFile>,
    /// Optional includes that were not there: one that appears changes the result.
    pub absent: Vec<PathBuf>,
    /// Directories whose listing the result depends on, because of `each files=`.
    pub watched: Vec<RepoPath>,
}

/// Why a Releasefile could not be loaded.
#[derive(Debug)]
pub struct LoadError {
    /// All mistakes, in the order of the text; warnings among them.
    pub mistakes: Vec<Diagnostic>,
    /// The files they are in.
    pub sources: SourceMap,
    /// Set when the file itself could not be read; then there are no mistakes.
    pub error: Option<Box<Error>>,
}

impl LoadError {
    /// Returns the error without the pictures, for those who do not show any.
    pub fn into_error(self) -> Box<Error> {
        match self.error {
            Some(error) => error,
            None => Error::mistakes(self.mistakes),
        }
    }
}

impl From<Box<Error>> for LoadError {
    fn from(error: Box<Error>) -> Self {
        Self {
            mistakes: Vec::new(),
            sources: SourceMap::default(),
            error: Some(error),
        }
    }
}

/// Codes of the mistakes that depend on what lies on disk.
const MISSING: [&str; 2] = ["missing_input", "empty_glob"];

/// Reads and checks a Releasefile with its includes.
///
/// # Errors
/// All mistakes found, or that the file cannot be read.
pub fn load(request: &LoadRequest) -> Result<Loaded, Box<LoadError>> {
    let mut found = Diagnostics::default();
    let mut reader = loader::FileLoader::new(&request.root);
    let nodes = read_file(&mut reader, &request.file, &mut found)?;
    let overrides = match &request.hosts_file {
        Some(file) => read_file(&mut reader, file, &mut found)?,
        None => Vec::new(),
    };
    let (sources, read, absent) = (reader.sources, reader.read, reader.absent);
    let paths = read.iter().map(|file| &file.path);
    let own = project_checks::own_files(&request.root, paths.chain(&absent));
    if reader.has_syntax_errors {
        // Half a file would make every other name unknown.
        return Err(failure(found, sources));
    }
    let listing = DiskListing::new(&request.root);
    let mut decoded = decode(&nodes, &overrides, request, &sources, &listing, &mut found);
    decoded.project.sources = sources;
    let project = decoded.project;
    found.extend(project_checks::own_outputs(&project.graph, &own));
    found.extend(depfile_node::own(&project.graph, &own));
    found.extend(project_checks::detours(&project.graph, &request.root));
    let watched = listing.listed();
    let missing = match project_checks::inputs(&project.graph, &listing, &decoded.broken) {
        Ok(mistakes) => {
            let is_missing = |m: &Diagnostic| MISSING.contains(&m.code);
            let (missing, others): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(is_missing);
            found.extend(others);
            missing
        }
        Err(error) => return Err(Box::new(error.into())),
    };
    if decoded.is_fit_for_recipes {
        found.extend((request.check_recipes)(&project));
    }
    if found.has_errors() {
        found.extend(missing);
        // A misspelt name looks unused; one thing at a time.
        return Err(failure(found, project.sources));
    }
    Ok(Loaded {
        project,
        warnings: found.into_sorted(),
        missing,
        read,
        absent,
        watched,
    })
}

fn read_file(
    reader: &mut loader::FileLoader,
    path: &std::path::Path,
    found: &mut Diagnostics,
) -> Result<Vec<Node>, Box<LoadError>> {
    reader.file(path, found).map_err(|mut error| {
        // A name on the command line that leads nowhere is no fault of the disk.
        error.kind = ErrorKind::Usage;
        Box::new(LoadError::from(error))
    })
}

fn failure(found: Diagnostics, sources: SourceMap) -> Box<LoadError> {
    Box::new(LoadError {
        mistakes: found.into_sorted(),
        sources,
        error: None,
    })
}

struct Decoded {
    project: Project,
    /// Targets whose mistakes could make others look wrong.
    broken: HashSet<TargetId>,
    is_fit_for_recipes: bool,
}

fn decode(
    nodes: &[Node],
    overrides: &[Node],
    request: &LoadRequest,
    sources: &SourceMap,
    listing: &dyn DirListing,
    found: &mut Diagnostics,
) -> Decoded {
    for node in nodes
        .iter()
        .filter(|n| !TOP.contains(&n.name.text.as_str()))
    {
        found.push(unknown_node(node, "a Releasefile", TOP));
    }
    let hosts_only = ["host", "group", "include"];
    for node in overrides {
        if !hosts_only.contains(&node.name.text.as_str()) {
            found.push(unknown_node(node, "a file of hosts", &hosts_only));
        }
    }
    let vars = vars(nodes, request, sources, found);
    let world = EvalContext {
        vars: &vars,
        sources,
    };
    let (name, version) = project_node(nodes, world, found);
    let mut names = DeclaredNames {
        pools: pools(nodes, found),
        has_version: version.is_some(),
        sandbox: sandbox_node::default(nodes, world, found),
        ..DeclaredNames::default()
    };
    let graph = graph(nodes, world, listing, &mut names, found);
    let is_whole = graph.is_some();
    let before = found.count();
    let hosts = host_nodes::decode(nodes, overrides, world, found);
    let known = environment_node::Known {
        names: &names,
        hosts: &hosts,
    };
    let secrets = secret_node::decode(nodes, world, found);
    let environments = environment_node::decode(nodes, world, &known, found);
    let is_fit_for_recipes = is_whole && !found.since(before).iter().any(breeds_in_recipes);
    if !found.has_errors() {
        found.extend(vars.unused());
    }
    let directory = request.root.file_name().unwrap_or_default();
    let project = Project {
        is_named: name.is_some(),
        name: name.unwrap_or_else(|| directory.to_string_lossy().into_owned()),
        version,
        graph: graph.unwrap_or_default(),
        hosts: hosts.hosts,
        groups: hosts.groups,
        secrets,
        environments,
        sources: SourceMap::default(),
        vars: vars.values,
    };
    Decoded {
        project,
        broken: names.broken,
        is_fit_for_recipes,
    }
}

/// Returns whether a mistake in an environment would make its recipes look wrong.
fn breeds_in_recipes(mistake: &Diagnostic) -> bool {
    matches!(
        mistake.code,
        "unknown_target" | "unknown_name" | "bad_template" | "wrong_type" | "missing_argument"
    )
}

/// Returns the graph; `None` if it would be too large.
fn graph(
    nodes: &[Node],
    world: EvalContext<'_>,
    listing: &dyn DirListing,
    names: &mut DeclaredNames,
    found: &mut Diagnostics,
) -> Option<Graph> {
    let mut sums = Sums::default();
    let declared = instances::targets(nodes, world, listing, names, &mut sums, found);
    if sums.are_over() {
        return None;
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut places: Vec<Vec<Span>> = Vec::new();
    let mut depfiles = HashMap::new();
    for one in &declared {
        target::check_shape(one, found);
        if one.instances().is_empty() {
            without_instances(one, world, names, found);
        }
        for (name, axes) in one.instances() {
            let scope = NameScope { world, axes };
            let before = found.count();
            let decoded = target::decode(one, name, &scope, names, found);
            if !sums.add(
                &one.name,
                decoded.need_places.len(),
                world.vars.text_bytes(),
                found,
            ) {
                return None;
            }
            if found.count() > before {
                names
                    .broken
                    .extend(u32::try_from(targets.len()).map(TargetId));
            }
            if let Some(node) = one.node.children.iter().find(|c| c.is("depfile")) {
                depfiles.insert(targets.len(), node.name.place);
            }
            targets.push(decoded.target);
            places.push(decoded.need_places);
        }
    }
    found.extend(project_checks::outputs(&targets));
    found.extend(project_checks::each_over_outputs(&declared, &targets));
    found.extend(depfile_node::clashes(&targets, &depfiles));
    found.extend(project_checks::cycles(
        &mut targets,
        &mut places,
        &mut names.broken,
    ));
    // Without cycles this cannot fail; with more than are reported, it is not used.
    Some(Graph::new(targets, names.pools.clone()).unwrap_or_default())
}

/// Looks into a target that stands for none at all, so that its mistakes do not wait
/// until there is one.
fn without_instances(
    declared: &instances::TargetDecl,
    world: EvalContext<'_>,
    names: &DeclaredNames,
    found: &mut Diagnostics,
) {
    let example = |is_files: bool| match is_files {
        true => AxisValue::File(RepoPath::new("example")),
        false => AxisValue::Text("example".into()),
    };
    let values: Vec<AxisValue> = declared.axes.iter().map(|a| example(a.is_files)).collect();
    let axes = declared.axes.iter().map(|a| a.name.text.as_str());
    let scope = NameScope {
        world,
        axes: axes.zip(&values).collect(),
    };
    let before = found.count();
    target::decode(declared, declared.name.text.clone(), &scope, names, found);
    // `needs "b[{axis}]"` is not wrong because of the example.
    found.retain_since(before, |m| m.code != "unknown_target");
}

fn vars(
    nodes: &[Node],
    request: &LoadRequest,
    sources: &SourceMap,
    found: &mut Diagnostics,
) -> Vars {
    let mut vars = Vars::default();
    for node in nodes.iter().filter(|n| n.is("var")) {
        node.is_plain(found);
        let texts = node.texts("a name and its value", found);
        let Some((name, values)) = texts.split_first() else {
            continue;
        };
        found.extend(bad_name("a variable", name));
        if let Some(first) = vars.places.get(&name.text) {
            let message = format!("the variable `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(*first, "first declared here"),
            );
            continue;
        }
        if node.args.len() == 1 {
            let message = format!("the variable `{}` has no value", name.text);
            let mistake =
                Diagnostic::new("missing_argument", name.place, message, "no value follows");
            found.push(mistake.help(format!("write `var \"{}\" \"…\"`", name.text)));
        }
        let scope = NameScope::new(EvalContext {
            vars: &vars,
            sources,
        });
        let declared = list(values, &scope, found);
        let values = match request.vars.get(&name.text) {
            // A list stays a list: its values are separated by blanks.
            Some(text) if declared.len() > 1 => {
                text.split_whitespace().map(str::to_owned).collect()
            }
            Some(text) => vec![text.clone()],
            None => declared,
        };
        vars.places.insert(name.text.clone(), name.place);
        // A variable whose values are wrong still is one word.
        let is_wrong = values.is_empty() && !request.vars.contains_key(&name.text);
        let values = if is_wrong {
            vec![name.text.clone()]
        } else {
            values
        };
        vars.values.insert(name.text.clone(), values);
    }
    for name in request.vars.keys() {
        if !vars.places.contains_key(name) {
            found.push(unknown_override(name, &vars));
        }
    }
    vars
}

/// Returns the values of a variable. Lists made of lists grow as fast as texts do.
fn list(values: &[SpannedText], scope: &NameScope, found: &mut Diagnostics) -> Vec<String> {
    let mut out = Vec::new();
    let mut len = 0;
    for text in values {
        let more = scope.strings(text, found);
        len += more.iter().map(|v| v.len() + 1).sum::<usize>();
        if len > LENGTH_MAX {
            let long = Err::<(), _>(TemplateError::TooLong);
            scope.reported(long, text, found);
            return Vec::new();
        }
        out.extend(more);
    }
    out
}

fn unknown_override(name: &str, vars: &Vars) -> Diagnostic {
    let message = format!("`--var {name}=…` sets a variable that the Releasefile does not have");
    let mistake = Diagnostic::new("unknown_variable", Span::default(), message, "");
    match suggest(name, vars.places.keys().map(String::as_str)) {
        Some(near) => mistake.help(format!("did you mean `{near}`?")),
        None => mistake.help(format!("declare it: `var \"{name}\" \"…\"`")),
    }
}

fn project_node(
    nodes: &[Node],
    world: EvalContext<'_>,
    found: &mut Diagnostics,
) -> (Option<String>, Option<Version>) {
    let mut all = nodes.iter().filter(|n| n.is("project"));
    let Some(node) = all.next() else {
        return (None, None);
    };
    for again in all {
        let message = "there are two `project` nodes".to_owned();
        let mistake = again.mistake("duplicate_node", message, "given again");
        found.push(mistake.secondary(node.name.place, "first given here"));
    }
    node.only_props(&[], found);
    node.only_children(&["version"], found);
    node.once(&["version"], found);
    let scope = NameScope::new(world);
    let name = node.only_text("the name of the project", found);
    let name = name.and_then(|n| scope.string(&n, found));
    let version = node.children.iter().find(|c| c.is("version"));
    let version = version.and_then(|v| project_version(v, &scope, found));
    (name, version)
}

fn project_version(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Option<Version> {
    node.is_plain(found);
    let arg = node.only_arg("the version, or `(command)\"…\"`", found)?;
    match arg.annotation.as_deref() {
        Some("command") => {
            let plain = node::Scalar {
                annotation: None,
                ..arg.clone()
            };
            let text = plain.text(found)?;
            let shell: Vec<String> = target::SHELL.iter().map(|s| (*s).to_owned()).collect();
            target::shell_command(&text, &shell, scope, &NoDeferred, found).map(Version::Command)
        }
        Some(other) => {
            let message = format!("a version cannot be marked `({other})`");
            let mistake = Diagnostic::new("wrong_type", arg.place, message, "not known here");
            found.push(mistake.help("write `(command)\"…\"`, or the version itself"));
            None
        }
        None => {
            let text = arg.text(found)?;
            scope.string(&text, found).map(Version::Literal)
        }
    }
}

fn pools(nodes: &[Node], found: &mut Diagnostics) -> Vec<Pool> {
    let mut out: Vec<Pool> = Vec::new();
    let mut places: BTreeMap<String, SpannedText> = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.is("pool")) {
        node.only_props(&["depth"], found);
        node.only_children(&[], found);
        let Some(name) = node.only_text("the name of the pool", found) else {
            continue;
        };
        let depth = match node.prop("depth") {
            Some(depth) => depth.number(1, found),
            None => {
                let message = format!("the pool `{}` has no depth", name.text);
                let mistake =
                    Diagnostic::new("missing_argument", name.place, message, "how many at once?");
                found.push(mistake.help(format!("write `pool \"{}\" depth=2`", name.text)));
                None
            }
        };
        if let Some(first) = places.get(&name.text) {
            let message = format!("the pool `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
            continue;
        }
        out.push(Pool {
            name: name.text.clone(),
            // A wrong depth is reported; the largest breeds no further mistake.
            depth: depth.unwrap_or(u32::MAX),
        });
        places.insert(name.text.clone(), name);
    }
    out
}
