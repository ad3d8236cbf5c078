//! `gate`: a check behind the uses of a rollout.

use super::node::{Diagnostics, Node};

/// What a gate can be without naming its recipe.
const GATES: &[(&str, &str)] = &[
    ("http", "http-check"),
    ("command", "wait-for"),
    ("port", "wait-for"),
    ("log", "log-window"),
];

/// Returns the recipe of a gate: the one that it names, or that of what it asks.
pub(super) fn gated(node: &Node, found: &mut Diagnostics) -> Option<String> {
    if !node.args.is_empty() {
        return Some(node.only_text("the name of a recipe", found)?.text);
    }
    let has = |name: &str| node.prop(name).is_some() || node.children.iter().any(|c| c.is(name));
    let recipe = GATES.iter().find(|(name, _)| has(name));
    if recipe.is_none() {
        let mistake = node.missing("what it asks");
        found.push(mistake.help(
            "write `gate http=\"…\"`, `gate port=\"…\"`, `gate command=\"…\"`, `gate log=\"…\"` or `gate \"RECIPE\"`",
        ));
    }
    recipe.map(|(_, recipe)| (*recipe).to_owned())
}
