//! `sandbox`: in a target, or for all targets at the top.

use super::node::{Diagnostics, Node, SpannedText, with_suggestion};
use super::scope::{EvalContext, NameScope};
use crate::build::graph::Sandbox;
use crate::core::diagnostics::Diagnostic;

/// Returns what holds where a target says nothing.
pub(crate) fn default(
    nodes: &[Node],
    world: EvalContext<'_>,
    found: &mut Diagnostics,
) -> Option<Sandbox> {
    let mut all = nodes.iter().filter(|n| n.is("sandbox"));
    let first = all.next()?;
    for again in all {
        let message = "there are two `sandbox` nodes".to_owned();
        let mistake = again.mistake("duplicate_node", message, "given again");
        found.push(mistake.secondary(first.name.place, "first given here"));
    }
    sandbox(first, &NameScope::new(world), found)
}

/// Returns the sandbox that a node asks for; `None` for `"off"`.
pub(crate) fn sandbox(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Option<Sandbox> {
    const WORDS: [&str; 2] = ["strict", "off"];
    node.only_props(&[], found);
    node.only_children(&["read", "connect"], found);
    let text = node.only_text("`\"strict\"` or `\"off\"`", found)?;
    match text.text.as_str() {
        "strict" => {}
        "off" => return None,
        other => {
            let message = format!("there is no sandbox `{other}`");
            let mistake = Diagnostic::new("unknown_sandbox", text.place, message, "not known");
            found.push(with_suggestion(mistake, other, &WORDS, "the words are"));
            return None;
        }
    }
    let mut sandbox = Sandbox::default();
    for child in node.children.iter().filter(|c| c.is("read")) {
        child.is_plain(found);
        for text in child.texts("a directory of tools, such as `\"~/.rustup\"`", found) {
            let mistake = "is not a directory of tools: it is relative";
            sandbox.read.extend(far(&text, scope, mistake, found));
        }
    }
    for child in node.children.iter().filter(|c| c.is("connect")) {
        child.is_plain(found);
        for text in child.texts("a socket, such as `\"/run/docker.sock\"`", found) {
            let mistake = "is not a socket of this machine: it is relative";
            sandbox.connect.extend(far(&text, scope, mistake, found));
        }
    }
    Some(sandbox)
}

/// Returns paths outside of the repository.
fn far(text: &SpannedText, scope: &NameScope, what: &str, found: &mut Diagnostics) -> Vec<String> {
    let mut far = Vec::new();
    for path in scope.strings(text, found) {
        if path.starts_with('/') || path.starts_with("~/") {
            far.push(path);
            continue;
        }
        let message = format!("`{path}` {what}");
        found.push(
            Diagnostic::new("bad_dir", text.place, message, "not `/…` and not `~/…`")
                .help("what lies in the repository is declared in `inputs`"),
        );
    }
    far
}
