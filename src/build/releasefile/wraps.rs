//! `wraps="site"`: a use that is done when others, which stand below it, will change something.

use super::node::{Diagnostics, Node, with_suggestion};
use crate::build::model::Use;
use crate::core::diagnostics::Diagnostic;

/// The property, and its former name, which is still read.
const NAMES: [&str; 2] = ["wraps", "around"];

/// Returns the names of the uses that a use wraps. Warns of the former name of the property.
pub(super) fn read(node: &Node, found: &mut Diagnostics) -> Vec<String> {
    let mut names = Vec::new();
    for name in NAMES {
        let Some(prop) = node.prop(name) else {
            continue;
        };
        if name != NAMES[0] {
            let message = format!("`{name}` is now called `{}`", NAMES[0]);
            let warning = Diagnostic::new("renamed", prop.place, message, "former name");
            found.push(
                warning
                    .warning()
                    .help(format!("write `{}=\"…\"`", NAMES[0])),
            );
        }
        let text = prop.text(found);
        let words = text.iter().flat_map(|text| text.text.split_whitespace());
        names.extend(words.map(str::to_owned));
    }
    names
}

/// Reports names that are not those of uses further down.
pub(super) fn check(uses: &[Use], found: &mut Diagnostics) {
    for (index, one) in uses.iter().enumerate() {
        let below = uses[index + 1..].iter();
        let known: Vec<&str> = below.map(|u| u.label.as_str()).collect();
        for word in one.wraps.iter().filter(|w| !known.contains(&w.as_str())) {
            let message = format!("no use below `{}` is called `{word}`", one.label);
            let mistake = Diagnostic::new("unknown_use", one.place, message, "wraps nothing");
            found.push(with_suggestion(mistake, word, &known, "there are"));
        }
    }
}
