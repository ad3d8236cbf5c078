//! The terms on which an environment is changed: who approves of a plan, how long a lease holds.

use std::time::Duration;

use super::node::{Diagnostics, Node, SpannedText};
use super::scope::NameScope;
use crate::build::model::ApprovalRule;
use crate::core::diagnostics::Diagnostic;

/// Reads `approval by="alice bob" count=1`.
pub(super) fn approval_of(
    node: &Node,
    scope: &NameScope,
    found: &mut Diagnostics,
) -> Option<ApprovalRule> {
    node.only_props(&["by", "count"], found);
    node.only_children(&[], found);
    if let Some(extra) = node.args.first() {
        let message = "`approval` takes no argument, but `by=\"…\"`";
        found.push(
            Diagnostic::new("extra_argument", extra.place, message, "not expected here")
                .help("write `approval by=\"alice bob\" count=1`"),
        );
    }
    let by = node.text_prop("by", found).map_or(Vec::new(), |text| {
        let words = text.text.split_whitespace().map(|word| SpannedText {
            text: word.to_owned(),
            place: text.place,
        });
        words.flat_map(|w| scope.strings(&w, found)).collect()
    });
    let count = match node.prop("count") {
        None => 1,
        Some(count) => count.number(1, found)?,
    };
    let place = node.name.place;
    if !by.is_empty() && count as usize > by.len() {
        let message = format!(
            "{count} approvals are wanted, and {} {} may give one",
            by.len(),
            crate::core::error::plural(by.len(), "user")
        );
        found.push(Diagnostic::new(
            "bad_number",
            place,
            message,
            "more than that",
        ));
    }
    Some(ApprovalRule {
        by,
        count: count as usize,
        place,
    })
}

/// Reads `lease "60s"`: shorter than a second is no time for a line to be slow.
pub(super) fn lease_of(node: &Node, found: &mut Diagnostics) -> Option<Duration> {
    node.is_plain(found);
    let scalar = node.only_arg("how long it holds without a heartbeat", found)?;
    let lease = scalar.duration(found)?;
    if lease < Duration::from_secs(1) {
        found.push(
            Diagnostic::new(
                "bad_duration",
                scalar.place,
                "a lease holds for a second at least",
                "too short",
            )
            .help("a short delay of the connection must not lose it: write `\"30s\"` or more"),
        );
    }
    Some(lease)
}

/// Reads `connections 8`.
pub(super) fn connections_of(node: &Node, found: &mut Diagnostics) -> Option<usize> {
    node.is_plain(found);
    let scalar = node.only_arg("how many are opened at once", found)?;
    let number = scalar.number(1, found)?;
    usize::try_from(number).ok()
}
