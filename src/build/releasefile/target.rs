//! One target: from its node to the graph's [`Target`], with everything bound that is
//! known before any command has run.

use std::collections::HashSet;
use std::rc::Rc;

use super::instances::{DeclaredNames, TargetDecl};
use super::node::{Diagnostics, Node, SpannedText, with_suggestion};
use super::pattern::outside;
use super::pattern::patterns;
use super::scope::{DeferredNames, NameScope};
use super::{cache_node, depfile_node, platform, sandbox_node};
use crate::build::glob::overlap;
use crate::build::graph::{Command, EnvValue, Input, Output, Pattern, PoolId, Target, TargetId};
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::fs::{RepoPath, shown};
use crate::core::template::{self, Mode, Template, Value};

/// The nodes a target may have.
pub(crate) const CHILDREN: &[&str] = &[
    "desc", "needs", "inputs", "outputs", "product", "run", "shell", "dir", "env", "tool", "probe",
    "each", "matrix", "pool", "timeout", "retries", "max-age", "cache", "sandbox", "depfile",
    "platform", "expect", "reject",
];

/// The nodes that may stand only once in a target.
const ONCE: &[&str] = &[
    "desc", "product", "shell", "dir", "pool", "timeout", "retries", "max-age", "cache", "sandbox",
    "depfile", "platform",
];

/// The shell of a `run` with one string, unless `shell` says otherwise.
pub(crate) const SHELL: &[&str] = &["sh", "-eu", "-c"];

/// A decoded target, and where each of its needs is written.
pub(crate) struct Decoded {
    pub(crate) target: Target,
    pub(crate) need_places: Vec<Span>,
}

/// Reports what is wrong with a target whatever the values of its axes are.
pub(crate) fn check_shape(declared: &TargetDecl, found: &mut Diagnostics) {
    let node = declared.node;
    node.only_props(&[], found);
    node.only_children(CHILDREN, found);
    node.once(ONCE, found);
    let has = |name: &str| node.children.iter().any(|c| c.is(name));
    let name = &declared.name;
    if !has("run") && !has("needs") {
        let message = format!("the target `{}` has neither `run` nor `needs`", name.text);
        found.push(
            Diagnostic::new("empty_target", name.place, message, "nothing to do")
                .help("give it a command: `run \"…\"`"),
        );
    } else if !has("run") && (has("outputs") || has("product")) {
        let message = format!("the target `{}` has outputs, but no `run`", name.text);
        found.push(
            Diagnostic::new("empty_target", name.place, message, "nothing makes them")
                .help("give it a command: `run \"…\"`"),
        );
    }
}

/// Returns one instance of a target.
pub(crate) fn decode(
    declared: &TargetDecl,
    name: String,
    scope: &NameScope,
    names: &DeclaredNames,
    found: &mut Diagnostics,
) -> Decoded {
    let node = declared.node;
    let Needs {
        ids: needs,
        places: need_places,
        empty,
    } = needs(node, &name, scope, names, found);
    let shell = shell(node, scope, found);
    let mut target = Target {
        name,
        base: declared.name.text.clone(),
        place: declared.name.place,
        needs,
        sandbox: names.sandbox.clone(),
        ..Target::default()
    };
    let late = RuntimeNames::new(node, &target.needs, empty, names);
    for child in &node.children {
        decode_child(child, &mut target, &shell, scope, names, &late, found);
    }
    Decoded {
        target,
        need_places,
    }
}

fn decode_child(
    child: &Node,
    target: &mut Target,
    shell: &[String],
    scope: &NameScope,
    names: &DeclaredNames,
    late: &RuntimeNames,
    found: &mut Diagnostics,
) {
    let early = late.before_the_run();
    let kind = child.name.text.as_str();
    if !matches!(
        kind,
        "inputs" | "outputs" | "pool" | "env" | "each" | "matrix" | "sandbox"
    ) {
        child.only_props(&[], found);
    }
    if !matches!(kind, "matrix" | "sandbox") {
        child.only_children(&[], found);
    }
    match kind {
        "desc" => {
            let text = child.only_text("one line for people", found);
            target.desc = text.and_then(|t| scope.string(&t, found));
        }
        "inputs" => inputs(child, target, scope, found),
        "outputs" => outputs(child, target, scope, found),
        "run" => target.run.extend(command(child, shell, scope, late, found)),
        "product" => target.product = command(child, shell, scope, late, found),
        "tool" => target
            .tools
            .extend(command(child, shell, scope, &early, found)),
        "probe" => target
            .probes
            .extend(command(child, shell, scope, &early, found)),
        "dir" => dir(child, target, scope, found),
        "env" => env(child, target, scope, late, found),
        "pool" => target.pool = pool(child, names, found),
        "timeout" => target.timeout = duration(child, found),
        "max-age" => target.max_age = duration(child, found),
        "retries" => {
            let arg = child.only_arg("a number", found);
            target.retries = arg.and_then(|a| a.number(0, found)).unwrap_or(0);
        }
        "cache" => target.cache = cache_node::scope(child, found).unwrap_or_default(),
        "sandbox" => target.sandbox = sandbox_node::sandbox(child, scope, found),
        "depfile" => target.depfile = depfile_node::depfile(child, scope, found),
        "platform" => target.platform = platform::platform(child, scope, found),
        "expect" => target.expect.extend(strings(child, "a text", scope, found)),
        "reject" => target.reject.extend(strings(child, "a text", scope, found)),
        // `needs` and `shell` are read before, axes when the names are.
        _ => {}
    }
}

fn strings(node: &Node, what: &str, scope: &NameScope, found: &mut Diagnostics) -> Vec<String> {
    let texts = node.texts(what, found);
    let strings = |t: &SpannedText| scope.strings(t, found);
    texts.iter().flat_map(strings).collect()
}

/// Returns the duration that is the node's only argument.
pub(crate) fn duration(node: &Node, found: &mut Diagnostics) -> Option<std::time::Duration> {
    node.only_arg("a duration", found)?.duration(found)
}

/// What a target needs, and where that is written.
struct Needs {
    ids: Vec<TargetId>,
    places: Vec<Span>,
    /// Targets with `each` over files of which there are none now.
    empty: Vec<Rc<str>>,
}

fn needs(
    node: &Node,
    name: &str,
    scope: &NameScope,
    names: &DeclaredNames,
    found: &mut Diagnostics,
) -> Needs {
    let (mut ids, mut places, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for child in node.children.iter().filter(|c| c.is("needs")) {
        for text in child.texts("the name of a target", found) {
            // An instance is called as its value is shown, whatever bytes that has.
            for needed in scope
                .words(&text, found)
                .iter()
                .map(|w| shown(w).into_owned())
            {
                let Some(found_ids) = names.find(&needed) else {
                    found.push(names.unknown(&format!("target `{name}`"), &needed, &text));
                    continue;
                };
                if found_ids.is_empty() {
                    empty.push(needed.as_str().into());
                }
                for id in found_ids {
                    if seen.insert(id) {
                        ids.push(id);
                        places.push(text.place);
                    }
                }
            }
        }
    }
    Needs { ids, places, empty }
}

fn shell(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Vec<String> {
    match node.children.iter().find(|c| c.is("shell")) {
        Some(child) => strings(child, "a program and its options", scope, found),
        None => SHELL.iter().map(|s| (*s).to_owned()).collect(),
    }
}

fn inputs(node: &Node, target: &mut Target, scope: &NameScope, found: &mut Diagnostics) {
    node.only_props(&["optional"], found);
    let is_optional = node.flag("optional", found);
    for text in node.texts("a file, a directory (`src/`) or a glob", found) {
        for written in patterns(&text, scope, found) {
            target.inputs.push(Input {
                pattern: written.pattern,
                is_exclusion: written.is_exclusion,
                is_optional,
                place: text.place,
            });
        }
    }
}

fn outputs(node: &Node, target: &mut Target, scope: &NameScope, found: &mut Diagnostics) {
    node.only_props(&["count"], found);
    let count = node.prop("count");
    let number = count.and_then(|c| c.number(1, found));
    for text in node.texts("a file, a directory (`site/`) or a glob", found) {
        for written in patterns(&text, scope, found) {
            let pattern = written.pattern;
            if written.is_exclusion {
                let is_within = |o: &Output| overlap(&o.pattern, &pattern);
                if target.outputs.iter().any(is_within) {
                    target.not_outputs.push(pattern);
                    continue;
                }
                let message = format!("`!{pattern}` takes nothing away");
                let mistake = Diagnostic::new("bad_pattern", text.place, message, "not an output");
                let help =
                    "name first what it is taken away from: `outputs \"site/\" \"!site/.cache/\"`";
                found.push(mistake.help(help));
                continue;
            }
            if let Some(mistake) = outside("output", &pattern, text.place) {
                found.push(mistake);
                continue;
            }
            let is_glob = matches!(pattern, Pattern::Glob { .. });
            if let (Some(count), false) = (count, is_glob) {
                let message = format!("`count` is for globs, and `{pattern}` is none");
                found.push(Diagnostic::new(
                    "unknown_property",
                    count.place,
                    message,
                    "not needed",
                ));
            }
            target.outputs.push(Output {
                pattern,
                count: number.filter(|_| is_glob),
                place: text.place,
            });
        }
    }
}

fn dir(node: &Node, target: &mut Target, scope: &NameScope, found: &mut Diagnostics) {
    let Some(text) = node.only_text("a directory", found) else {
        return;
    };
    let Some(path) = scope.string(&text, found).map(RepoPath::new) else {
        return;
    };
    if !path.is_inside() {
        let message = format!("the directory `{path}` lies outside of the repository");
        found.push(Diagnostic::new("bad_dir", text.place, message, "outside"));
        return;
    }
    target.dir = path;
}

fn env(
    node: &Node,
    target: &mut Target,
    scope: &NameScope,
    late: &RuntimeNames,
    found: &mut Diagnostics,
) {
    let mut put = |name: &SpannedText, value: EnvValue, found: &mut Diagnostics| {
        let is_bad = name.text.is_empty() || name.text.contains(['=', '\0']);
        if is_bad || target.env.contains_key(&name.text) {
            let (code, message) = match is_bad {
                true => (
                    "bad_name",
                    format!("`{}` is not a variable name", name.text),
                ),
                false => (
                    "duplicate_name",
                    format!("`env` names `{}` twice", name.text),
                ),
            };
            found.push(Diagnostic::new(code, name.place, message, "here"));
            return;
        }
        target.env.insert(name.text.clone(), value);
    };
    if node.args.is_empty() && node.props.is_empty() {
        found.push(node.missing("a name to inherit, or `NAME=\"value\"`"));
    }
    for arg in &node.args {
        if let Some(name) = arg.text(found) {
            put(&name, EnvValue::Inherited, found);
        }
    }
    for prop in &node.props {
        let text = prop.value.text(found);
        let value = text.and_then(|t| {
            let parsed = scope.parse(&t, Mode::Plain, late, found)?;
            scope.reported(parsed.bind(&|n| scope.for_command(n)), &t, found)
        });
        if let Some(value) = value {
            put(&prop.name, EnvValue::Set(value), found);
        }
    }
}

fn pool(node: &Node, names: &DeclaredNames, found: &mut Diagnostics) -> Option<(PoolId, u32)> {
    node.only_props(&["weight"], found);
    let weight = node.prop("weight");
    let number = weight.map_or(Some(1), |w| w.number(1, found))?;
    let text = node.only_text("the name of a pool", found)?;
    let Some(at) = names.pools.iter().position(|p| p.name == text.text) else {
        let known: Vec<&str> = names.pools.iter().map(|p| p.name.as_str()).collect();
        let message = format!("there is no pool `{}`", text.text);
        let mistake = Diagnostic::new("unknown_pool", text.place, message, "not a pool");
        found.push(match known.is_empty() {
            true => mistake.help(format!("declare it: `pool \"{}\" depth=2`", text.text)),
            false => with_suggestion(mistake, &text.text, &known, "the pools are"),
        });
        return None;
    };
    let depth = names.pools[at].depth;
    if let Some(weight) = weight.filter(|_| number > depth) {
        let message = format!("the weight {number} never fits into a pool of depth {depth}");
        found.push(Diagnostic::new(
            "bad_number",
            weight.place,
            message,
            "too heavy",
        ));
    }
    Some((PoolId(u32::try_from(at).ok()?), number))
}

/// Returns the command of a `run`, `product`, `tool` or `probe`.
pub(crate) fn command(
    node: &Node,
    shell: &[String],
    scope: &NameScope,
    late: &dyn DeferredNames,
    found: &mut Diagnostics,
) -> Option<Command> {
    if node.args.is_empty() {
        found.push(node.missing("a shell command, or a program and its arguments"));
        return None;
    }
    if let [only] = node.args.as_slice() {
        let text = only.text(found)?;
        return shell_command(&text, shell, scope, late, found);
    }
    let mut words = Vec::new();
    for text in node.texts("a program and its arguments", found) {
        let Some(parsed) = scope.parse(&text, Mode::Plain, late, found) else {
            continue;
        };
        // A list that stands alone is as many arguments as it has values.
        if let Some(Value::Many(values)) = parsed.only_name().and_then(|n| scope.get(n)) {
            words.extend(values.into_iter().map(Template::literal));
            continue;
        }
        let bound = scope.reported(parsed.bind(&|n| scope.for_command(n)), &text, found);
        words.extend(bound);
    }
    Some(Command::Argv(words))
}

/// Returns the command of one string: shell text.
pub(crate) fn shell_command(
    text: &SpannedText,
    shell: &[String],
    scope: &NameScope,
    late: &dyn DeferredNames,
    found: &mut Diagnostics,
) -> Option<Command> {
    if text.text.trim().is_empty() {
        found.push(Diagnostic::new(
            "missing_argument",
            text.place,
            "the command is empty",
            "nothing to run",
        ));
        return None;
    }
    let parsed = scope.parse(text, Mode::Shell, late, found)?;
    if let Some(name) = parsed.names().next().filter(|_| !template::is_posix(shell)) {
        let message = format!(
            "`{{{name}}}` stands in a script for `{}`, for which no value can be quoted safely",
            shell.join(" ")
        );
        let mistake = Diagnostic::new("bad_template", scope.narrow(text, name), message, "here");
        let help =
            format!("set a variable with `env NAME=\"{{{name}}}\"`, and read it in the script");
        found.push(mistake.help(help));
        return None;
    }
    let script = scope.reported(parsed.bind(&|n| scope.for_command(n)), text, found)?;
    Some(Command::Shell {
        shell: shell.to_vec(),
        script,
    })
}

/// The names that the builder will know when a command of this target runs.
#[derive(Clone)]
struct RuntimeNames<'a> {
    has_inputs: bool,
    has_outputs: bool,
    has_version: bool,
    is_before_the_run: bool,
    names: &'a DeclaredNames,
    needs: Rc<HashSet<TargetId>>,
    needed_bases: Rc<HashSet<Rc<str>>>,
}

impl<'a> RuntimeNames<'a> {
    fn new(node: &Node, needs: &[TargetId], empty: Vec<Rc<str>>, names: &'a DeclaredNames) -> Self {
        let has = |name: &str| node.children.iter().any(|c| c.is(name));
        let base = |id: &TargetId| Rc::clone(&names.bases[id.index()]);
        Self {
            has_inputs: has("inputs"),
            has_outputs: has("outputs"),
            has_version: names.has_version,
            is_before_the_run: false,
            names,
            needs: Rc::new(needs.iter().copied().collect()),
            needed_bases: Rc::new(needs.iter().map(base).chain(empty).collect()),
        }
    }

    /// Returns what `tool` and `probe` may name: they run before the inputs are known.
    fn before_the_run(&self) -> Self {
        Self {
            is_before_the_run: true,
            ..self.clone()
        }
    }

    /// Returns whether a name is a target that is directly needed, and whether that
    /// target has outputs.
    fn needed(&self, name: &str) -> Option<bool> {
        let base = name.split('[').next().unwrap_or(name);
        let is_needed = match self.names.by_name.get(name) {
            Some(id) => self.needs.contains(id),
            None => self.needed_bases.contains(name),
        };
        is_needed.then(|| self.names.by_base.get(base).is_some_and(|b| b.has_outputs))
    }
}

impl DeferredNames for RuntimeNames<'_> {
    fn is_known(&self, name: &str) -> bool {
        match name {
            "out" => self.has_outputs && !self.is_before_the_run,
            "in" | "inputs" => self.has_inputs && !self.is_before_the_run,
            "version" => self.has_version,
            _ => self.needed(name) == Some(true),
        }
    }

    fn names(&self) -> Vec<&str> {
        let fixed = ["out", "in", "inputs", "version"];
        fixed
            .into_iter()
            .filter(|n| self.is_known(n))
            .chain(self.needed_bases.iter().map(|b| &**b))
            .collect()
    }

    fn why_not(&self, name: &str) -> Option<(String, String)> {
        let say = |message: &str, help: &str| Some((message.to_owned(), help.to_owned()));
        match name {
            "out" | "in" | "inputs" if self.is_before_the_run => {
                let message = format!("`{{{name}}}` is not known here, but only in `run`");
                Some((message, "write the path itself, or use a `var`".into()))
            }
            "out" => say(
                "`{out}` has no file: the target has no `outputs`",
                "add `outputs \"…\"`",
            ),
            "in" | "inputs" => {
                let message = format!("`{{{name}}}` has no file: the target has no `inputs`");
                Some((message, "add `inputs \"…\"`".into()))
            }
            "version" => say(
                "`{version}` is not known: the project has no version",
                "add `project \"…\" { version \"…\" }`",
            ),
            _ => match self.needed(name) {
                Some(_) => Some((
                    format!("`{{{name}}}` has no file: that target has no `outputs`"),
                    "needing it is enough, if only its success matters".into(),
                )),
                None if self.names.find(name).is_some() => Some((
                    format!("`{{{name}}}` is a target that is not needed here"),
                    format!("add `needs \"{name}\"`"),
                )),
                None => None,
            },
        }
    }
}
