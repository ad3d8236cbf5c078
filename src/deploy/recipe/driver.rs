//! What tells a driver's file from a recipe's, and finds nodes in both. Pure.

use kdl::{KdlDocument, KdlNode};

/// Returns whether a file of the directory `recipes/` holds a driver.
pub fn is_driver(text: &str) -> bool {
    let document = KdlDocument::parse(text);
    document.is_ok_and(|d| {
        d.nodes()
            .first()
            .is_some_and(|n| n.name().value() == "driver")
    })
}

/// Returns the names of the parameters that a driver gives a recipe.
pub(in crate::deploy) fn params(text: &str) -> Vec<String> {
    let document = KdlDocument::parse(text).unwrap_or_default();
    let drivers = document.nodes().iter().filter_map(KdlNode::children);
    let nodes = drivers.flat_map(|children| of_kind(children.nodes(), &["param"]));
    let names = nodes.filter_map(|node| Some(node.get(0)?.as_string()?.to_owned()));
    names.collect()
}

/// Returns the nodes of these kinds, in order.
pub(in crate::deploy) fn of_kind<'n>(
    nodes: &'n [KdlNode],
    kinds: &[&str],
) -> impl Iterator<Item = &'n KdlNode> {
    nodes.iter().filter(|n| kinds.contains(&n.name().value()))
}

/// Returns whether `nodes` have one of the same kind and name.
pub(in crate::deploy) fn is_declared(nodes: &[KdlNode], node: &KdlNode) -> bool {
    nodes
        .iter()
        .any(|n| n.name() == node.name() && n.get(0) == node.get(0))
}
