//! The names that a recipe's texts may use, and where. Pure.
//!
//! Some names are known before any host is asked (parameters, the host's own
//! values), others only afterwards (facts, notes, the run). What is asked in the
//! first round trip must not depend on its own answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::diagnostics::{Diagnostic, Span, suggest};
use crate::core::template::{Mode, Template};
use crate::deploy::recipe::ParamKind;

/// Names that every recipe has.
const BUILT_IN: [&str; 9] = [
    "environment",
    "use",
    "project",
    "version",
    "run-id",
    "host.name",
    "host.root",
    "from.name",
    "from.root",
];

/// Which names a text may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRules {
    /// Those known before a host is asked.
    Early,
    /// Those and `{run-id}`.
    Let,
    /// All but secrets.
    Late,
    /// All.
    Content,
}

/// Says where a secret may stand.
pub fn only_in_files(name: &str) -> (String, Option<String>) {
    (
        format!("the secret `{{{name}}}` is allowed only in the text of a `write`"),
        Some("write it into a file, and name the file here".into()),
    )
}

/// The names that one recipe declares.
#[derive(Clone, Debug, Default)]
pub struct RecipeNames {
    /// Parameters with the way they are read.
    pub params: BTreeMap<String, ParamKind>,
    /// Facts.
    pub facts: BTreeSet<String>,
    lets: BTreeSet<String>,
    late_lets: BTreeSet<String>,
}

impl RecipeNames {
    /// Declares a derived name; it is late when its value is.
    pub fn declare_let(&mut self, name: &str, value: &Template) {
        if value.names().any(|n| self.is_late(n)) {
            self.late_lets.insert(name.to_owned());
        }
        self.lets.insert(name.to_owned());
    }

    fn is_late(&self, name: &str) -> bool {
        name == "run-id"
            || name.starts_with("notes.")
            || self.facts.contains(name)
            || self.late_lets.contains(name)
    }

    /// Returns the first mistake in the names of one text.
    pub fn check(
        &self,
        template: &Template,
        mode: Mode,
        allow: NameRules,
        place: Span,
    ) -> Option<Diagnostic> {
        for name in template.names() {
            if let Err((message, help)) = self.check_one(name, mode, allow) {
                let mistake = Diagnostic::new("unknown_name", place, message, "here");
                return Some(match help {
                    Some(help) => mistake.help(help),
                    None => mistake,
                });
            }
        }
        None
    }

    fn check_one(
        &self,
        name: &str,
        mode: Mode,
        allow: NameRules,
    ) -> Result<(), (String, Option<String>)> {
        let (head, tail) = name.split_once('.').unwrap_or((name, ""));
        let kind = self.params.get(name).or_else(|| self.params.get(head));
        match kind {
            Some(ParamKind::Text | ParamKind::Driver) if tail.is_empty() => {}
            Some(ParamKind::Command) if tail == "id" => {}
            Some(ParamKind::Command) if tail.is_empty() => {
                if mode == Mode::Plain {
                    return Err((
                        format!("the command `{{{name}}}` is used where no shell reads it"),
                        Some(format!(
                            "write `run \"{{{name}}}\"`, or `eval {{{name}}}` in a command"
                        )),
                    ));
                }
            }
            Some(ParamKind::Artifact) if matches!(tail, "sha256" | "id" | "name") => {}
            Some(ParamKind::Secret) if tail.is_empty() && allow == NameRules::Content => {}
            Some(ParamKind::Secret) => return Err(only_in_files(name)),
            Some(ParamKind::Artifact) => {
                return Err((
                    format!("the artifact `{{{name}}}` cannot be used in a text"),
                    Some(format!(
                        "use `put \"{{{head}}}\"`, or `{{{head}.id}}`, `{{{head}.sha256}}`, `{{{head}.name}}`"
                    )),
                ));
            }
            _ if self.is_declared(name, head) => {}
            _ => {
                let known = self.all();
                let near = suggest(name, known.iter().map(String::as_str));
                return Err((
                    format!("`{{{name}}}` is not known here"),
                    near.map(|n| format!("did you mean `{{{n}}}`?")),
                ));
            }
        }
        let is_allowed = match allow {
            NameRules::Late | NameRules::Content => true,
            NameRules::Let => !self.facts.contains(name) && head != "notes",
            NameRules::Early => !self.is_late(name),
        };
        match is_allowed {
            true => Ok(()),
            false => Err((
                format!("`{{{name}}}` is known only after the host was queried"),
                Some("use it in a later step".into()),
            )),
        }
    }

    fn is_declared(&self, name: &str, head: &str) -> bool {
        BUILT_IN.contains(&name)
            || matches!(head, "host" | "from" | "notes") && name != head
            || self.lets.contains(name)
            || self.facts.contains(name)
    }

    fn all(&self) -> Vec<String> {
        self.params
            .keys()
            .chain(&self.facts)
            .chain(&self.lets)
            .cloned()
            .chain(BUILT_IN.map(String::from))
            .collect()
    }
}
