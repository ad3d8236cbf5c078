//! Hosts and groups: ranges expanded, groups of groups flattened.
//!
//! A second file may replace hosts and groups of the same name: that is how one
//! Releasefile goes to local directories here and to SSH hosts there.

use std::collections::{BTreeMap, HashSet};

use super::node::{Diagnostics, Node, Scalar, SpannedText, with_suggestion};
use super::scope::{AxisValue, EvalContext, NameScope};
use crate::build::model::{Host, Reach};
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::host_range;

/// All hosts and groups of a project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    pub(crate) hosts: BTreeMap<String, Host>,
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    /// Those of the groups that are roles: which of the hosts they are is found out by a probe.
    pub(crate) roles: Vec<String>,
}

/// A name that is declared, and what for.
struct Declared<'a> {
    place: Span,
    is_override: bool,
    node: &'a Node,
}

impl Hosts {
    /// Returns the hosts that a name or a range of names stands for.
    ///
    /// # Errors
    /// A mistake at `at`.
    pub(crate) fn find(&self, text: &str, at: Span) -> Result<Vec<String>, Box<Diagnostic>> {
        let mut out: Vec<String> = Vec::new();
        for name in host_range::expand(text).map_err(|e| Box::new(bad_range(e, at)))? {
            let members = match (self.hosts.get_key_value(&name), self.groups.get(&name)) {
                (Some((name, _)), _) => std::slice::from_ref(name),
                (None, Some(members)) => members.as_slice(),
                (None, None) => return Err(Box::new(self.unknown(&name, at))),
            };
            for member in members {
                if !out.contains(member) {
                    out.push(member.clone());
                }
            }
        }
        Ok(out)
    }

    fn unknown(&self, name: &str, at: Span) -> Diagnostic {
        let known: Vec<&str> = self
            .hosts
            .keys()
            .chain(self.groups.keys())
            .map(String::as_str)
            .collect();
        unknown_host(name, at, &known)
    }
}

fn unknown_host(name: &str, at: Span, known: &[&str]) -> Diagnostic {
    let message = format!("there is no host or group `{name}`");
    let mistake = Diagnostic::new("unknown_host", at, message, "not a host");
    match known.is_empty() {
        true => mistake.help(format!("declare it: `host \"{name}\" ssh=\"user@{name}\"`")),
        false => with_suggestion(mistake, name, known, "the hosts and groups are"),
    }
}

pub(crate) fn bad_range(bad: host_range::BadRange, at: Span) -> Diagnostic {
    let mistake = Diagnostic::new("bad_range", at, bad.message, "not a range");
    match bad.help {
        Some(help) => mistake.help(help),
        None => mistake.help("write `[1-8]` for a range, `[a,b]` for a list"),
    }
}

/// Returns the hosts and groups; `overrides` are the nodes of the second file.
pub(crate) fn decode(
    nodes: &[Node],
    overrides: &[Node],
    world: EvalContext<'_>,
    found: &mut Diagnostics,
) -> Hosts {
    let mut names: BTreeMap<String, Declared> = BTreeMap::new();
    let mut hosts = BTreeMap::new();
    let mut group_nodes: BTreeMap<String, SpannedText> = BTreeMap::new();
    let both = nodes.iter().map(|n| (n, false));
    for (node, is_override) in both.chain(overrides.iter().map(|n| (n, true))) {
        if !node.is("host") && !node.is("group") {
            continue;
        }
        let is_host = node.is("host");
        let Some(arg) = node.args.first() else {
            found.push(node.missing("a name"));
            continue;
        };
        let Some(text) = arg.text(found) else {
            continue;
        };
        let expanded = match host_range::expand(&text.text) {
            Ok(names) => names,
            Err(bad) => {
                found.push(bad_range(bad, text.place));
                continue;
            }
        };
        if is_host {
            check_host(node, found);
        } else {
            node.is_plain(found);
        }
        for name in expanded {
            let declared = Declared {
                place: text.place,
                is_override,
                node,
            };
            if !claim(&mut names, &name, declared, found) {
                continue;
            }
            // What is replaced may have been the other of the two.
            hosts.remove(&name);
            group_nodes.remove(&name);
            if is_host {
                if let Some(host) = host(node, &name, text.place, world, found) {
                    hosts.insert(name, host);
                }
            } else {
                group_nodes.insert(name, text.clone());
            }
        }
    }
    let groups = Groups {
        names: &names,
        group_nodes: &group_nodes,
    };
    let groups = groups.flatten(found);
    Hosts {
        hosts,
        groups,
        roles: Vec::new(),
    }
}

/// Enters a name; one that is taken is a mistake, unless the second file replaces it.
fn claim<'a>(
    names: &mut BTreeMap<String, Declared<'a>>,
    name: &str,
    declared: Declared<'a>,
    found: &mut Diagnostics,
) -> bool {
    if let Some(first) = names.get(name)
        && first.is_override == declared.is_override
    {
        let message = format!("the name `{name}` is declared twice");
        found.push(
            Diagnostic::new("duplicate_name", declared.place, message, "declared again")
                .secondary(first.place, "first declared here"),
        );
        return false;
    }
    names.insert(name.to_owned(), declared);
    true
}

/// Reports what is wrong with a host whatever its name is.
fn check_host(node: &Node, found: &mut Diagnostics) {
    let known = ["ssh", "port", "jump", "root", "local", "into-foreign"];
    node.only_props(&known, found);
    node.only_children(&["var", "option"], found);
    if let Some(extra) = node.args.get(1) {
        found.push(Diagnostic::new(
            "extra_argument",
            extra.place,
            "`host` takes one argument: its name",
            "one too many",
        ));
    }
    for child in &node.children {
        child.is_plain(found);
    }
    let is_local = node.flag("local", found);
    if is_local == node.prop("ssh").is_some() {
        let message = match is_local {
            true => "a host is either `local` or reached by `ssh`, not both",
            false => "the host does not say how it is reached",
        };
        found.push(
            node.mistake("bad_host", message.into(), "this host")
                .help("write `ssh=\"user@name\"`, or `local=#true` for this machine"),
        );
    }
    for name in ["port", "jump"] {
        if let Some(prop) = node.prop(name).filter(|_| is_local) {
            found.push(Diagnostic::new(
                "unknown_property",
                prop.place,
                format!("a local host has no `{name}`"),
                "not needed",
            ));
        }
    }
}

fn host(
    node: &Node,
    name: &str,
    place: Span,
    world: EvalContext<'_>,
    found: &mut Diagnostics,
) -> Option<Host> {
    let own = AxisValue::Text(name.to_owned());
    let scope = NameScope {
        world,
        axes: vec![("name", &own)],
    };
    let text = |prop: &str, found: &mut Diagnostics| -> Option<String> {
        let text = node.text_prop(prop, found)?;
        scope.string(&text, found)
    };
    let is_local = node.flag("local", found);
    let root = text("root", found);
    let reach = match is_local {
        true => Reach::Local,
        false => Reach::Ssh {
            destination: text("ssh", found).filter(|d| is_word(d, node, found))?,
            port: node.prop("port").and_then(|p| port(p, found)),
            jump: text("jump", found).filter(|j| is_word(j, node, found)),
            options: values(node, "option", &scope, found)
                .into_iter()
                .map(|(_, value)| value)
                .collect(),
        },
    };
    Some(Host {
        name: name.to_owned(),
        root: root.unwrap_or_else(|| match is_local {
            true => format!(".rel/hosts/{name}"),
            // Relative to where a login starts.
            false => ".rel".into(),
        }),
        into_foreign: node.flag("into-foreign", found),
        vars: values(node, "var", &scope, found).into_iter().collect(),
        reach,
        place,
    })
}

/// A destination with a leading dash would be an option of `ssh`.
fn is_word(text: &str, node: &Node, found: &mut Diagnostics) -> bool {
    let is_good = !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
    if !is_good {
        found.push(node.mistake(
            "bad_host",
            format!("`{text}` is not a destination for `ssh`"),
            "this host",
        ));
    }
    is_good
}

fn port(value: &Scalar, found: &mut Diagnostics) -> Option<u16> {
    let number = value.number(1, found)?;
    let port = u16::try_from(number).ok();
    if port.is_none() {
        found.push(Diagnostic::new(
            "bad_number",
            value.place,
            format!("expected a port from 1 to 65535, found {number}"),
            "out of range",
        ));
    }
    port
}

/// Returns name and value of each child `kind`; an `option` has only a value.
fn values(
    node: &Node,
    kind: &str,
    scope: &NameScope,
    found: &mut Diagnostics,
) -> Vec<(String, String)> {
    let count = match kind {
        "var" => 2,
        _ => 1,
    };
    let mut out: Vec<(String, String)> = Vec::new();
    for child in node.children.iter().filter(|c| c.is(kind)) {
        if child.args.len() != count {
            let message = format!("`{kind}` takes {count} of them, found {}", child.args.len());
            found.push(child.mistake("missing_argument", message, "number of arguments"));
            continue;
        }
        let texts: Vec<SpannedText> = child.args.iter().filter_map(|a| a.text(found)).collect();
        let value = texts.last().and_then(|t| scope.string(t, found));
        if let (Some(name), Some(value)) = (texts.first(), value) {
            out.push((name.text.clone(), value));
        }
    }
    out
}

struct Groups<'a> {
    names: &'a BTreeMap<String, Declared<'a>>,
    group_nodes: &'a BTreeMap<String, SpannedText>,
}

impl Groups<'_> {
    fn flatten(&self, found: &mut Diagnostics) -> BTreeMap<String, Vec<String>> {
        let mut out = BTreeMap::new();
        for name in self.group_nodes.keys() {
            let mut members = Members::default();
            self.collect(name, &mut members, found);
            out.insert(name.clone(), members.hosts);
        }
        out
    }

    fn collect(&self, name: &str, into: &mut Members, found: &mut Diagnostics) {
        into.path.push(name.to_owned());
        let node = self.names[name].node;
        if node.args.len() == 1 {
            found.push(node.missing("the names of its members"));
        }
        let texts: Vec<SpannedText> = node.args[1..]
            .iter()
            .filter_map(|a| a.text(found))
            .collect();
        for text in texts {
            let names = match host_range::expand(&text.text) {
                Ok(names) => names,
                Err(bad) => {
                    found.push(bad_range(bad, text.place));
                    continue;
                }
            };
            for member in names {
                self.member(&member, &text, into, found);
            }
        }
        into.path.pop();
    }

    fn member(
        &self,
        member: &str,
        text: &SpannedText,
        into: &mut Members,
        found: &mut Diagnostics,
    ) {
        if self.group_nodes.contains_key(member) {
            if let Some(start) = into.path.iter().position(|p| p == member) {
                let round = &into.path[start..];
                // The same circle is met from each of its groups.
                if round.iter().any(|group| *group < round[0]) {
                    return;
                }
                let round = round.join(" -> ");
                let message = format!("groups form a cycle: {round} -> {member}");
                found.push(Diagnostic::new(
                    "cycle",
                    text.place,
                    message,
                    "closes the cycle here",
                ));
                return;
            }
            self.collect(member, into, found);
        } else if self.names.contains_key(member) {
            if into.seen.insert(member.to_owned()) {
                into.hosts.push(member.to_owned());
            }
        } else {
            let known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            found.push(unknown_host(member, text.place, &known));
        }
    }
}

#[derive(Default)]
struct Members {
    hosts: Vec<String>,
    seen: HashSet<String>,
    /// The groups being looked into, outermost first.
    path: Vec<String>,
}
