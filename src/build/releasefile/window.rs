//! Windows: `window "Mon-Thu 09:00-16:00" tz="America/Montreal"`, of an environment or a rollout.

use super::node::{Diagnostics, Node};
use crate::core::deploy_window::{Window, spans};
use crate::core::diagnostics::Diagnostic;

/// The clock of a window that names none.
const LOCAL: &str = "local";

/// Returns the windows among `nodes`.
pub(crate) fn decode(nodes: &[Node], found: &mut Diagnostics) -> Vec<Window> {
    let nodes = nodes.iter().filter(|n| n.is("window"));
    nodes.map(|node| one(node, found)).collect()
}

fn one(node: &Node, found: &mut Diagnostics) -> Window {
    node.only_props(&["tz"], found);
    node.only_children(&[], found);
    let mut all = Vec::new();
    for text in node.texts("days and hours", found) {
        match spans(&text.text) {
            Ok(some) => all.extend(some),
            Err(why) => found.push(
                Diagnostic::new("bad_window", text.place, why, "not understood")
                    .help("write `Mon-Thu 09:00-16:00`, `Sat,Sun 22:00-04:00` or `01:00-05:00`"),
            ),
        }
    }
    let zone = node.text_prop("tz", found);
    if let Some(zone) = &zone
        && !is_zone(&zone.text)
    {
        let message = format!("`{}` is not a time zone name", zone.text);
        found.push(
            Diagnostic::new("bad_window", zone.place, message, "not a zone")
                .help("write `America/Montreal`, `UTC` or `local`"),
        );
    }
    Window {
        spans: all,
        zone: zone.map_or_else(|| LOCAL.to_owned(), |z| z.text),
    }
}

/// Returns whether a name can be that of a zone: a path below the directory of them all.
fn is_zone(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_+-".contains(c);
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_plain);
    name.split('/').all(is_part)
}
