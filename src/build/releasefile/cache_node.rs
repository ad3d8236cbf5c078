//! `cache`: who may use the results of a target.

use super::node::{Diagnostics, Node, with_suggestion};
use crate::build::graph::CacheScope;
use crate::core::diagnostics::Diagnostic;

/// Returns the scope that a node names.
pub(crate) fn scope(node: &Node, found: &mut Diagnostics) -> Option<CacheScope> {
    const WORDS: [&str; 2] = ["here", "anywhere"];
    let arg = node.only_arg("`#true`, `#false`, `\"here\"` or `\"anywhere\"`", found)?;
    let Some(word) = arg.word() else {
        return Some(match arg.boolean(found)? {
            true => CacheScope::Checked,
            false => CacheScope::Off,
        });
    };
    match word {
        "here" => Some(CacheScope::Here),
        "anywhere" => Some(CacheScope::Anywhere),
        other => {
            let message = format!("`cache` knows no `{other}`");
            let mistake = Diagnostic::new("unknown_cache", arg.place, message, "not known");
            let words = "besides `#true` and `#false` there are";
            found.push(with_suggestion(mistake, other, &WORDS, words));
            None
        }
    }
}
