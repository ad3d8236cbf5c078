//! Rollouts: hosts that move in waves, with the uses that are done on each wave and the
//! gates that stand behind it.

use super::environment_node::Inside;
use super::host_nodes::Hosts;
use super::node::{Diagnostics, Node, SpannedText, with_suggestion};
use super::scope::bad_name;
use super::window;
use crate::build::model::{OnFailure, Rollout, Share, Use};
use crate::core::diagnostics::Diagnostic;

const PROPS: &[&str] = &[
    "on",
    "serial",
    "soak",
    "hold-back",
    "max-failures",
    "on-failure",
];

impl Inside<'_> {
    /// Adds a rollout with its uses.
    pub(super) fn rollout(
        &self,
        node: &Node,
        rollouts: &mut Vec<Rollout>,
        uses: &mut Vec<Use>,
        hosts: &Hosts,
        found: &mut Diagnostics,
    ) {
        node.only_props(PROPS, found);
        node.only_children(&["use", "gate", "window"], found);
        let Some(name) = node.only_text("the name of the rollout", found) else {
            return;
        };
        found.extend(bad_name("a rollout", &name));
        if let Some(first) = rollouts.iter().find(|r| r.name == name.text) {
            let message = format!("two rollouts are called `{}`", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
        }
        let on = self.hosts_of(node, "on", hosts, found);
        if on.is_empty() {
            let mistake = node.missing("`on=\"HOSTS\"`");
            found.push(mistake.help("name the hosts and groups, in the order in which they move"));
        }
        let index = rollouts.len();
        rollouts.push(Rollout {
            on: on.clone(),
            serial: serial(node, found),
            soak: node.prop("soak").and_then(|p| p.duration(found)),
            hold_back: self.hosts_of(node, "hold-back", hosts, found),
            max_failures: max_failures(node, found),
            on_failure: on_failure(node, found),
            windows: window::decode(&node.children, found),
            place: name.place,
            name: name.text,
        });
        let is_one = |c: &&Node| c.is("use") || c.is("gate");
        for child in node.children.iter().filter(is_one) {
            if let Some(on) = child.prop("on") {
                let message = "inside of a rollout the hosts are those of the wave";
                let mistake = Diagnostic::new("misplaced", on.place, message, "not here");
                found.push(mistake.help("leave it out, or put this behind the rollout"));
            }
            let is_after_gate = uses
                .last()
                .is_some_and(|u| u.rollout == Some(index) && u.is_gate);
            if child.is("use") && is_after_gate {
                let message = "a use stands behind a gate of its rollout";
                let mistake = child.mistake("misplaced", message.into(), "comes too late");
                found.push(
                    mistake.help("put it before the gates: they are asked at the end of a wave"),
                );
            }
            if let Some(mut one) = self.use_(child, uses, hosts, found) {
                one.rollout = Some(index);
                one.on.clone_from(&on);
                uses.push(one);
            }
        }
    }
}

fn serial(node: &Node, found: &mut Diagnostics) -> Vec<Share> {
    let Some(value) = node.prop("serial") else {
        return Vec::new();
    };
    let Some(text) = value.any_text(found) else {
        return Vec::new();
    };
    let words = text.text.split_whitespace();
    let mut shares = Vec::new();
    for word in words {
        match share(word) {
            Some(Share::Count(0) | Share::Percent(0)) | None => {
                found.push(bad_share(&text, word, "a wave has at least one host"));
                return Vec::new();
            }
            Some(share) => shares.push(share),
        }
    }
    shares
}

fn max_failures(node: &Node, found: &mut Diagnostics) -> Share {
    let value = node.prop("max-failures").and_then(|p| p.any_text(found));
    let Some(text) = value else {
        return Share::Count(0);
    };
    share(&text.text).unwrap_or_else(|| {
        found.push(bad_share(&text, &text.text, "for example `2` or `10%`"));
        Share::Count(0)
    })
}

fn bad_share(text: &SpannedText, word: &str, help: &str) -> Diagnostic {
    let message = format!("`{word}` is not a number of hosts");
    Diagnostic::new("bad_value", text.place, message, "expected `3` or `25%`").help(help)
}

fn share(word: &str) -> Option<Share> {
    let is_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match word.strip_suffix('%') {
        Some(percent) if is_digits(percent) => {
            let percent = percent.parse().ok().filter(|p| *p <= 100)?;
            Some(Share::Percent(percent))
        }
        None if is_digits(word) => word.parse().ok().map(Share::Count),
        _ => None,
    }
}

fn on_failure(node: &Node, found: &mut Diagnostics) -> OnFailure {
    let Some(text) = node.text_prop("on-failure", found) else {
        return OnFailure::default();
    };
    match text.text.as_str() {
        "back" => OnFailure::Back,
        "stop" => OnFailure::Stop,
        other => {
            let message = format!("`on-failure` cannot be `{other}`");
            let mistake = Diagnostic::new("bad_value", text.place, message, "not known");
            found.push(with_suggestion(
                mistake,
                other,
                &["back", "stop"],
                "there are",
            ));
            OnFailure::default()
        }
    }
}
