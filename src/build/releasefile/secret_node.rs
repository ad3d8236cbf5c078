//! Secrets: their names, and where each value comes from. Values are never read here.

use std::collections::BTreeMap;

use super::node::{Diagnostics, Node};
use super::scope::{EvalContext, NameScope, NoDeferred, bad_name};
use super::target::{SHELL, shell_command};
use crate::build::model::{Secret, SecretFrom};
use crate::core::diagnostics::Diagnostic;

/// Where a value can come from.
const FROM: &[&str] = &["command", "env", "file"];

/// Returns the secrets that are declared among `nodes`.
pub(crate) fn decode(
    nodes: &[Node],
    world: EvalContext<'_>,
    found: &mut Diagnostics,
) -> BTreeMap<String, Secret> {
    let mut out: BTreeMap<String, Secret> = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.is("secret")) {
        node.only_props(FROM, found);
        node.only_children(&[], found);
        let Some(name) = node.only_text("the name of the secret", found) else {
            continue;
        };
        found.extend(bad_name("a secret", &name));
        if let Some(first) = out.get(&name.text) {
            let message = format!("the secret `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
            continue;
        }
        let given = FROM.iter().filter(|from| node.prop(from).is_some());
        if given.count() != 1 {
            let message = format!("the secret `{}` must come from one place", name.text);
            found.push(
                Diagnostic::new("missing_argument", name.place, message, "from where?").help(
                    "write `command=\"pass show …\"`, `env=\"NAME\"` or `file=\"path\"`; never the value",
                ),
            );
        }
        // One that has a mistake still counts as declared.
        let from = from(node, world, found).unwrap_or(SecretFrom::Env(String::new()));
        let place = name.place;
        out.insert(name.text, Secret { from, place });
    }
    out
}

fn from(node: &Node, world: EvalContext<'_>, found: &mut Diagnostics) -> Option<SecretFrom> {
    let scope = NameScope::new(world);
    if let Some(text) = node.text_prop("command", found) {
        let shell: Vec<String> = SHELL.iter().map(|s| (*s).to_owned()).collect();
        return shell_command(&text, &shell, &scope, &NoDeferred, found).map(SecretFrom::Command);
    }
    if let Some(text) = node.text_prop("env", found) {
        return scope.string(&text, found).map(SecretFrom::Env);
    }
    let text = node.text_prop("file", found)?;
    scope.string(&text, found).map(SecretFrom::File)
}
