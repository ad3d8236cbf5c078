//! Environments: their parameters, what they need, and which recipes they use.
//!
//! Texts stay templates, because parameters are known only on the command line. Where
//! the possible values are known, every one of them is tried here, so that a wrong
//! name does not wait for the one person who passes that value.

use std::collections::BTreeMap;

use super::axes::{AxisDecl, axes};
use super::gate_node::gated;
use super::host_nodes::Hosts;
use super::instances::DeclaredNames;
use super::node::{Diagnostics, Node, Scalar, SpannedText, with_suggestion};
use super::scope::{AxisValue, DeferredNames, EvalContext, NameScope, bad_name};
use super::terms::{approval_of, connections_of, lease_of};
use super::{secret_node, window, wraps};
use crate::build::model::{self, Arg, Environment, Param, Rollout, Use};
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::template::{Mode, Template, Value};

/// Commands of `rel` itself, which no environment can be called.
pub const COMMANDS: &[&str] = &[
    "build",
    "list",
    "status",
    "why",
    "hash",
    "plan",
    "log",
    "attach",
    "runbook",
    "recipe",
    "promote",
    "apply",
    "approve",
    "history",
    "hosts",
    "cache",
    "check",
    "init",
    "trust",
    "completions",
    "lock",
    "unlock",
    "help",
    "version",
];

const CHILDREN: &[&str] = &[
    "desc",
    "param",
    "each",
    "secret",
    "approval",
    "lease",
    "connections",
    "log",
    "role",
    "window",
    "needs",
    "use",
    "verify",
    "rollout",
];

/// Properties of a `use` that are not arguments of its recipe.
const RESERVED: &[&str] = &[
    "as",
    "on",
    "from",
    "after",
    "wraps",
    // The former name of `wraps`.
    "around",
    "max-age",
    "into-foreign",
];

/// Combinations of values that are tried in advance.
const TRIED_MAX: usize = 1000;

/// What environments may refer to.
pub(crate) struct Known<'a> {
    pub(crate) names: &'a DeclaredNames,
    pub(crate) hosts: &'a Hosts,
}

/// Returns all environments, in the order written.
pub(crate) fn decode(
    nodes: &[Node],
    world: EvalContext<'_>,
    known: &Known<'_>,
    found: &mut Diagnostics,
) -> Vec<Environment> {
    let mut out: Vec<Environment> = Vec::new();
    for node in nodes.iter().filter(|n| n.is("environment")) {
        let Some(name) = node.only_text("the name of the environment", found) else {
            continue;
        };
        found.extend(bad_name("an environment", &name));
        if COMMANDS.contains(&name.text.as_str()) {
            let message = format!("an environment cannot be called `{}`", name.text);
            found.push(
                Diagnostic::new("reserved_name", name.place, message, "a command of `rel`")
                    .help("choose another name: each environment is a command of its own"),
            );
        }
        if let Some(first) = out.iter().find(|e| e.name == name.text) {
            let message = format!("the environment `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
            continue;
        }
        out.push(one(node, name, world, known, found));
    }
    out
}

fn one(
    node: &Node,
    name: SpannedText,
    world: EvalContext<'_>,
    known: &Known<'_>,
    found: &mut Diagnostics,
) -> Environment {
    node.only_props(&[], found);
    node.only_children(CHILDREN, found);
    node.once(&["desc", "approval", "lease", "connections"], found);
    let scope = NameScope::new(world);
    let axes = axes(node, &scope, None, found);
    let params = params(node, &scope, found);
    let desc = node.children.iter().find(|c| c.is("desc"));
    let desc = desc.and_then(|d| {
        d.is_plain(found);
        d.only_text("one line for people", found)
    });
    let approval = node.children.iter().find(|c| c.is("approval"));
    let approval = approval.and_then(|a| approval_of(a, &scope, found));
    let inside = Inside {
        scope,
        params: &params,
        axes: &axes,
    };
    inside.report_clashes(known.names, found);
    let lease = node.children.iter().find(|c| c.is("lease"));
    let lease = lease.and_then(|l| lease_of(l, found));
    let connections = node.children.iter().find(|c| c.is("connections"));
    let connections = connections.and_then(|c| connections_of(c, found));
    let (roles, hosts) = inside.roles(&node.children, known.hosts, found);
    let (mut needs, mut logs) = (Vec::new(), Vec::new());
    let (mut uses, mut rollouts): (Vec<Use>, Vec<Rollout>) = (Vec::new(), Vec::new());
    for child in &node.children {
        match child.name.text.as_str() {
            "needs" => needs.extend(inside.needs(child, &name, known.names, found)),
            "use" | "verify" => {
                if let Some(one) = inside.use_(child, &uses, &hosts, found) {
                    uses.push(one);
                }
            }
            "rollout" => inside.rollout(child, &mut rollouts, &mut uses, &hosts, found),
            "log" => logs.extend(inside.log(child, &hosts, found)),
            _ => {}
        }
    }
    wraps::check(&uses, found);
    let axes = axes.iter().map(|axis| model::Axis {
        name: axis.name.text.clone(),
        values: axis.values.iter().map(text_of).collect(),
    });
    Environment {
        name: name.text,
        desc: desc.and_then(|d| NameScope::new(world).string(&d, found)),
        axes: axes.collect(),
        params,
        needs,
        uses,
        rollouts,
        roles,
        windows: window::decode(&node.children, found),
        logs,
        secrets: secret_node::decode(&node.children, world, found),
        approval,
        lease,
        connections,
        place: name.place,
    }
}

/// Returns the recipe of a `verify`.
fn verified(node: &Node, found: &mut Diagnostics) -> String {
    if let Some(extra) = node.args.first() {
        let message = "`verify` takes no argument, but `http=\"https://…\"`";
        found.push(Diagnostic::new(
            "extra_argument",
            extra.place,
            message,
            "not expected here",
        ));
    } else if node.prop("http").is_none() && !node.children.iter().any(|c| c.is("http")) {
        let mistake = node.missing("`http=\"https://…\"`");
        found.push(mistake.help("write `verify http=\"https://…\" status=200`"));
    }
    String::from("http-check")
}

fn text_of(value: &AxisValue) -> String {
    match value {
        AxisValue::Text(text) => text.clone(),
        AxisValue::File(path) => path.to_string(),
    }
}

fn params(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Vec<Param> {
    let mut out: Vec<Param> = Vec::new();
    for child in node.children.iter().filter(|c| c.is("param")) {
        child.only_props(&["one-of", "default", "desc"], found);
        child.only_children(&[], found);
        let Some(name) = child.only_text("the name of the parameter", found) else {
            continue;
        };
        found.extend(bad_name("a parameter", &name));
        if let Some(first) = out.iter().find(|p| p.name == name.text) {
            let message = format!("the parameter `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
            continue;
        }
        let one_of = child.text_prop("one-of", found).map_or(Vec::new(), |text| {
            let words = text.text.split_whitespace().map(|word| SpannedText {
                text: word.to_owned(),
                place: text.place,
            });
            words.flat_map(|w| scope.strings(&w, found)).collect()
        });
        let default = child.text_prop("default", found);
        let value = default.as_ref().and_then(|d| scope.string(d, found));
        if let (Some(value), Some(at)) = (&value, &default)
            && !one_of.is_empty()
            && !one_of.contains(value)
        {
            let message = format!("the default `{value}` is none of the allowed values");
            let mistake = Diagnostic::new("bad_default", at.place, message, "not allowed");
            let known: Vec<&str> = one_of.iter().map(String::as_str).collect();
            found.push(with_suggestion(mistake, value, &known, "allowed are"));
        }
        let desc = child.text_prop("desc", found);
        out.push(Param {
            place: name.place,
            name: name.text,
            one_of,
            default: value,
            desc: desc.and_then(|d| scope.string(&d, found)),
        });
    }
    out
}

/// The names that texts of one environment may use.
pub(super) struct Inside<'a> {
    scope: NameScope<'a>,
    params: &'a [Param],
    axes: &'a [AxisDecl],
}

impl DeferredNames for Inside<'_> {
    fn is_known(&self, name: &str) -> bool {
        self.params.iter().any(|p| p.name == name) || self.axes.iter().any(|a| a.name.text == name)
    }

    fn names(&self) -> Vec<&str> {
        let params = self.params.iter().map(|p| p.name.as_str());
        params
            .chain(self.axes.iter().map(|a| a.name.text.as_str()))
            .collect()
    }

    fn why_not(&self, _: &str) -> Option<(String, String)> {
        None
    }
}

impl Inside<'_> {
    fn report_clashes(&self, names: &DeclaredNames, found: &mut Diagnostics) {
        let params = self.params.iter().map(|p| (&p.name, p.place, "parameter"));
        let axes = self
            .axes
            .iter()
            .map(|a| (&a.name.text, a.name.place, "axis"));
        for (name, place, what) in params.chain(axes) {
            let is_param = what == "axis" && self.params.iter().any(|p| p.name == *name);
            let other = if names.by_base.contains_key(name) {
                "a target"
            } else if self.scope.world.vars.values.contains_key(name) {
                "a variable"
            } else if is_param {
                "a parameter"
            } else {
                continue;
            };
            let message = format!("the {what} `{name}` has the name of {other}");
            found.push(
                Diagnostic::new("name_clash", place, message, "the same name")
                    .help(format!("rename one of them: `{{{name}}}` would mean both")),
            );
        }
    }

    fn needs(
        &self,
        node: &Node,
        environment: &SpannedText,
        names: &DeclaredNames,
        found: &mut Diagnostics,
    ) -> Vec<(Template, Span)> {
        node.is_plain(found);
        let mut out = Vec::new();
        for text in node.texts("the name of a target", found) {
            let Some(template) = self.scope.bind(&text, Mode::Plain, self, found) else {
                continue;
            };
            let who = format!("environment `{}`", environment.text);
            match self.all_values(&template) {
                Some(values) => {
                    let unknown = values.iter().find(|v| names.find(v).is_none());
                    found.extend(unknown.map(|v| names.unknown(&who, v, &text)));
                }
                None => {
                    let base = text.text.split('[').next().unwrap_or_default();
                    if !base.contains('{') && !names.by_base.contains_key(base) {
                        found.push(names.unknown(&who, base, &text));
                    }
                }
            }
            out.push((template, text.place));
        }
        out
    }

    /// Returns everything a template may become, if that is known in advance.
    fn all_values(&self, template: &Template) -> Option<Vec<String>> {
        let mut rows: Vec<BTreeMap<String, String>> = vec![BTreeMap::new()];
        for name in template.names() {
            if rows[0].contains_key(name) {
                continue;
            }
            let values = self.values_of(name)?;
            if values.is_empty() || rows.len() * values.len() > TRIED_MAX {
                return None;
            }
            let with = |row: &BTreeMap<String, String>| {
                let row = row.clone();
                let name = name.to_owned();
                let more = move |v: &String| {
                    let mut row = row.clone();
                    row.insert(name.clone(), v.clone());
                    row
                };
                values.iter().map(more).collect::<Vec<_>>()
            };
            rows = rows.iter().flat_map(with).collect();
        }
        let render = |row: &BTreeMap<String, String>| {
            let value = |n: &str| row.get(n).map(|v| Value::from(v.as_str()));
            template.render(&value).ok()?.into_string().ok()
        };
        rows.iter().map(render).collect()
    }

    fn values_of(&self, name: &str) -> Option<Vec<String>> {
        if let Some(axis) = self.axes.iter().find(|a| a.name.text == name) {
            return Some(axis.values.iter().map(text_of).collect());
        }
        let param = self.params.iter().find(|p| p.name == name)?;
        (!param.one_of.is_empty()).then(|| param.one_of.clone())
    }

    pub(super) fn use_(
        &self,
        node: &Node,
        before: &[Use],
        hosts: &Hosts,
        found: &mut Diagnostics,
    ) -> Option<Use> {
        let recipe = match node.name.text.as_str() {
            "verify" => verified(node, found),
            "gate" => gated(node, found)?,
            _ => node.only_text("the name of a recipe", found)?.text,
        };
        let label = self.label(node, &recipe, before, found);
        Some(Use {
            on: self.hosts_of(node, "on", hosts, found),
            from: self.hosts_of(node, "from", hosts, found).into_iter().next(),
            after: self.after(node, before, found),
            wraps: wraps::read(node, found),
            max_age: node.prop("max-age").and_then(|p| p.duration(found)),
            into_foreign: node.flag("into-foreign", found),
            args: self.args(node, found),
            rollout: None,
            is_gate: node.is("gate"),
            place: match node.args.first() {
                Some(arg) => arg.place,
                None => node.name.place,
            },
            label,
            recipe,
        })
    }

    fn label(&self, node: &Node, recipe: &str, before: &[Use], found: &mut Diagnostics) -> String {
        let given = node.text_prop("as", found);
        let is_taken = |label: &str| before.iter().find(|u| u.label == label);
        if let Some(given) = &given {
            found.extend(bad_name("a use", given));
        } else if !node.is("use") {
            // A site is often looked at in several ways; these have no names.
            let kind = &node.name.text;
            let numbers = std::iter::once(kind.clone());
            let mut names = numbers.chain((2..).map(|n: u32| format!("{kind}-{n}")));
            return names
                .find(|n: &String| is_taken(n).is_none())
                .unwrap_or_default();
        }
        let label = given.as_ref().map_or(recipe, |g| g.text.as_str());
        if let Some(first) = is_taken(label) {
            let place = given.as_ref().map_or_else(
                || node.args.first().map_or(node.name.place, |a| a.place),
                |g| g.place,
            );
            let message = format!("two uses are called `{label}`");
            found.push(
                Diagnostic::new("duplicate_name", place, message, "used again")
                    .secondary(first.place, "first used here")
                    .help("give this one a name of its own with `as=\"…\"`"),
            );
        }
        label.to_owned()
    }

    /// Binds a text of the environment to what is known.
    pub(super) fn bind(
        &self,
        text: &SpannedText,
        mode: Mode,
        late: &dyn DeferredNames,
        found: &mut Diagnostics,
    ) -> Option<Template> {
        self.scope.bind(text, mode, late, found)
    }

    /// Returns the hosts that templates may stand for, as far as that is known in advance.
    pub(super) fn members(&self, on: &[Template], hosts: &Hosts) -> Vec<String> {
        let values = on.iter().filter_map(|template| self.all_values(template));
        let found = values
            .flatten()
            .filter_map(|value| hosts.find(&value, Span::default()).ok());
        found.flatten().collect()
    }

    pub(super) fn hosts_of(
        &self,
        node: &Node,
        name: &str,
        hosts: &Hosts,
        found: &mut Diagnostics,
    ) -> Vec<Template> {
        let Some(text) = node.text_prop(name, found) else {
            return Vec::new();
        };
        let mut out = Vec::new();
        for word in text.text.split_whitespace() {
            let word = SpannedText {
                text: word.to_owned(),
                place: text.place,
            };
            let Some(template) = self.scope.bind(&word, Mode::Plain, self, found) else {
                continue;
            };
            for value in self.all_values(&template).unwrap_or_default() {
                match hosts.find(&value, text.place) {
                    Ok(members)
                        if name == "from"
                            && members.len() != 1
                            && !hosts.roles.contains(&value) =>
                    {
                        let message =
                            format!("`from` takes one host, and `{value}` is {}", members.len());
                        found.push(Diagnostic::new(
                            "too_many",
                            text.place,
                            message,
                            "more than one",
                        ));
                    }
                    Ok(_) => {}
                    Err(mistake) => {
                        found.push(*mistake);
                        break;
                    }
                }
            }
            out.push(template);
        }
        out
    }

    fn after(&self, node: &Node, before: &[Use], found: &mut Diagnostics) -> Vec<String> {
        let Some(text) = node.text_prop("after", found) else {
            return Vec::new();
        };
        let words: Vec<String> = text.text.split_whitespace().map(str::to_owned).collect();
        let known: Vec<&str> = before.iter().map(|u| u.label.as_str()).collect();
        for word in &words {
            if !known.contains(&word.as_str()) {
                let message = format!("no use above this one is called `{word}`");
                let mistake = Diagnostic::new("unknown_use", text.place, message, "not a use");
                found.push(with_suggestion(mistake, word, &known, "there are"));
            }
        }
        words
    }

    /// Returns everything that is not ours: the recipe knows how it is to be read.
    fn args(&self, node: &Node, found: &mut Diagnostics) -> BTreeMap<String, Arg> {
        let mut out: BTreeMap<String, Arg> = BTreeMap::new();
        let props = node.props.iter().map(|p| (&p.name, Some(&p.value)));
        let children = node.children.iter().map(|child| {
            child.is_plain(found);
            let name = child.name.text.as_str();
            if RESERVED.contains(&name) {
                let message = format!("`{name}` is a property of `{}`", node.name.text);
                found.push(
                    child
                        .mistake("unknown_node", message, "not a node")
                        .help(format!("write `{name}=\"…\"` on the line of the use")),
                );
            }
            (&child.name, child.only_arg("the value", found))
        });
        let children: Vec<(&SpannedText, Option<&Scalar>)> = children.collect();
        for (name, value) in props.chain(children) {
            if RESERVED.contains(&name.text.as_str()) {
                continue;
            }
            let Some(value) = value.and_then(|v| v.any_text(found)) else {
                continue;
            };
            let arg = Arg {
                text: value.text,
                place: value.place,
            };
            self.touch(&arg);
            if out.insert(name.text.clone(), arg).is_some() {
                let message = format!("the argument `{}` is given twice", name.text);
                found.push(Diagnostic::new(
                    "duplicate_name",
                    name.place,
                    message,
                    "given again",
                ));
            }
        }
        out
    }

    /// Notes the variables that an argument names; what else it names only its recipe knows.
    fn touch(&self, arg: &Arg) {
        for name in arg.names() {
            self.scope.world.vars.touch(&name);
        }
    }
}
