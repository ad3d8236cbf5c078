//! `around="site"`: a use that is done when others, which stand below it, will change something.

use super::node::{Diagnostics, Node, with_suggestion};
use crate::build::model::Use;
use crate::core::diagnostics::Diagnostic;

/// Returns the names that a use is around.
pub(super) fn read(node: &Node, found: &mut Diagnostics) -> Vec<String> {
    let text = node.text_prop("around", found);
    let words = text.iter().flat_map(|text| text.text.split_whitespace());
    words.map(str::to_owned).collect()
}

/// Reports names that are not those of uses further down.
pub(super) fn check(uses: &[Use], found: &mut Diagnostics) {
    for (index, one) in uses.iter().enumerate() {
        let below = uses[index + 1..].iter();
        let known: Vec<&str> = below.map(|u| u.label.as_str()).collect();
        for word in one.around.iter().filter(|w| !known.contains(&w.as_str())) {
            let message = format!("no use below `{}` is called `{word}`", one.label);
            let mistake = Diagnostic::new("unknown_use", one.place, message, "is around nothing");
            found.push(with_suggestion(mistake, word, &known, "there are"));
        }
    }
}
