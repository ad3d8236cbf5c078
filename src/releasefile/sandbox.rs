//! `sandbox`: in a target, or for all targets at the top.

use super::node::{Mistakes, Node, Text, with_suggestion};
use super::scope::{Scope, World};
use crate::graph::Sandbox;
use crate::source::Mistake;

/// Returns what holds where a target says nothing.
pub(crate) fn default(nodes: &[Node], world: World<'_>, found: &mut Mistakes) -> Option<Sandbox> {
    let mut all = nodes.iter().filter(|n| n.is("sandbox"));
    let first = all.next()?;
    for again in all {
        let message = "there are two `sandbox` nodes".to_owned();
        let mistake = again.mistake("duplicate_node", message, "given again");
        found.push(mistake.also(first.name.place, "first given here"));
    }
    sandbox(first, &Scope::new(world), found)
}

/// Returns the sandbox that a node asks for; `None` for `"off"`.
pub(crate) fn sandbox(node: &Node, scope: &Scope, found: &mut Mistakes) -> Option<Sandbox> {
    const WORDS: [&str; 2] = ["strict", "off"];
    node.only_props(&[], found);
    node.only_children(&["read"], found);
    let text = node.only_text("`\"strict\"` or `\"off\"`", found)?;
    match text.text.as_str() {
        "strict" => {}
        "off" => return None,
        other => {
            let message = format!("there is no sandbox `{other}`");
            let mistake = Mistake::new("unknown_sandbox", text.place, message, "not known");
            found.push(with_suggestion(mistake, other, &WORDS, "the words are"));
            return None;
        }
    }
    let mut sandbox = Sandbox::default();
    for child in node.children.iter().filter(|c| c.is("read")) {
        child.is_plain(found);
        for text in child.texts("a directory of tools, such as `\"~/.rustup\"`", found) {
            read(&text, scope, &mut sandbox, found);
        }
    }
    Some(sandbox)
}

fn read(text: &Text, scope: &Scope, sandbox: &mut Sandbox, found: &mut Mistakes) {
    for dir in scope.strings(text, found) {
        let is_far = dir.starts_with('/') || dir.starts_with("~/");
        if is_far {
            sandbox.read.push(dir);
            continue;
        }
        let message = format!("`{dir}` is no directory of tools: it is relative");
        found.push(
            Mistake::new("bad_dir", text.place, message, "not `/…` and not `~/…`")
                .help("what lies in the repository is declared in `inputs`"),
        );
    }
}
