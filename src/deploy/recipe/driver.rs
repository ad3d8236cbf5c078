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
