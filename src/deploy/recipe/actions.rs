//! The actions of a step, as text -> [`Action`]. Pure; a part of [`parser`](crate::deploy::recipe::parser).
//!
//! One node of a step is what it does. Which properties and children each has, and in which
//! of them the host's answers may stand, is known here and nowhere else.

use std::collections::BTreeMap;

use kdl::{KdlDocument, KdlNode, KdlValue};

use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::template::{Mode, Template};
use crate::deploy::recipe::names::NameRules;
use crate::deploy::recipe::reader::{NodeReader, text_of};
use crate::deploy::recipe::{Action, ParamKind, PortTarget, Wait, WaitFor};

/// Lets root write into a directory that another user of the host can change.
pub const INTO_FOREIGN: &str = "into-foreign";

/// Headers that the responder itself sets.
const OWN_HEADERS: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

/// What `wait http=` takes besides.
const HTTP_PROPERTIES: [&str; 7] = [
    "status", "contains", "header", "login", "user", "password", "ca",
];

impl NodeReader {
    pub(in crate::deploy) fn action(&mut self, node: &KdlNode) -> Option<Action> {
        let name = node.name().value();
        let allowed: &[&str] = match name {
            "put" if node.get("from").is_some() => &["to", "from", INTO_FOREIGN],
            "put" => &["to", "link", INTO_FOREIGN],
            "write" => &["mode", "owner", INTO_FOREIGN],
            "symlink" => &["to", INTO_FOREIGN],
            "service" if node.get("start").is_some() => &["start", "status", "stop", "within"],
            "service" => &["run", "log", "stop", "ready", "within", INTO_FOREIGN],
            "scope" => &["enter", "leave"],
            "forward" => &["listen", "to"],
            "responder" => return self.responder(node),
            "wait" => return self.wait(node),
            _ => &[],
        };
        self.properties(node, allowed);
        let late = |me: &mut Self, (text, place): (String, Span), mode| {
            me.template(&text, mode, NameRules::Late, place)
        };
        Some(match name {
            "run" => {
                let text = self.argument(node)?;
                Action::Run(late(self, text, Mode::Shell))
            }
            "write" => {
                let [path, (text, place)] = self.arguments(node)?;
                let content = self.template(&text, Mode::Plain, NameRules::Content, place);
                Action::Write {
                    path: late(self, path, Mode::Plain),
                    mode: self.mode(node, &content),
                    owner: self.property(node, "owner", Mode::Plain, NameRules::Late),
                    content,
                }
            }
            "symlink" => {
                let path = self.argument(node)?;
                Action::Symlink {
                    path: late(self, path, Mode::Plain),
                    to: self.required(node, "to", Mode::Plain)?,
                }
            }
            "service" if node.get("start").is_some() => Action::Managed {
                start: self.required(node, "start", Mode::Shell)?,
                status: self.required(node, "status", Mode::Shell)?,
                stop: self.property(node, "stop", Mode::Shell, NameRules::Late),
                within: self.within(node),
            },
            "service" => {
                let name = self.argument(node)?;
                Action::Service {
                    name: late(self, name, Mode::Plain),
                    run: self.required(node, "run", Mode::Shell)?,
                    log: self.required(node, "log", Mode::Plain)?,
                    stop: self.property(node, "stop", Mode::Shell, NameRules::Late),
                    ready: self.property(node, "ready", Mode::Shell, NameRules::Late),
                    within: self.within(node),
                }
            }
            "scope" => {
                let name = self.argument(node)?;
                Action::Scope {
                    name: late(self, name, Mode::Plain),
                    enter: self.required(node, "enter", Mode::Shell)?,
                    leave: self.required(node, "leave", Mode::Shell)?,
                }
            }
            "forward" => self.forward(node)?,
            _ => self.put(node)?,
        })
    }

    /// Reads `forward "NAME" listen="…" to="…"`.
    fn forward(&mut self, node: &KdlNode) -> Option<Action> {
        let (name, place) = self.argument(node)?;
        Some(Action::Port {
            name: self.template(&name, Mode::Plain, NameRules::Late, place),
            listen: self.required(node, "listen", Mode::Plain)?,
            leads: PortTarget::To(self.required(node, "to", Mode::Plain)?),
        })
    }

    /// Reads `responder "NAME" listen="…" status=503 { header "NAME" "…"; body "…" }`.
    fn responder(&mut self, node: &KdlNode) -> Option<Action> {
        self.properties(node, &["listen", "status"]);
        let (name, place) = self.argument(node)?;
        let name = self.template(&name, Mode::Plain, NameRules::Late, place);
        let listen = self.required(node, "listen", Mode::Plain)?;
        let status = self.property(node, "status", Mode::Plain, NameRules::Late);
        let status = status.unwrap_or_else(|| Template::literal("503"));
        let (mut headers, mut body) = (Vec::new(), None);
        for child in node.children().map_or(&[][..], KdlDocument::nodes) {
            let place = self.place(child.name().span());
            match child.name().value() {
                "header" => {
                    self.properties(child, &[]);
                    let Some([(name, at), (text, place)]) = self.arguments(child) else {
                        continue;
                    };
                    if let Some(why) = bad_header(&name) {
                        let message = format!("`{name}` is not a header name");
                        self.wrong("wrong_value", at, message, why);
                    }
                    let value = self.template(&text, Mode::Plain, NameRules::Late, place);
                    headers.push((name, value));
                }
                "body" if body.is_none() => {
                    self.properties(child, &[]);
                    let (text, place) = self.argument(child)?;
                    body = Some(self.template(&text, Mode::Plain, NameRules::Late, place));
                }
                "body" => {
                    let message = String::from("a responder has one `body`");
                    self.wrong("duplicate_name", place, message, "the second one");
                }
                other => self.unknown("node", other, &["header", "body"], place),
            }
        }
        Some(Action::Port {
            name,
            listen,
            leads: PortTarget::Answer {
                status,
                headers,
                body,
            },
        })
    }

    fn within(&mut self, node: &KdlNode) -> Template {
        self.property(node, "within", Mode::Plain, NameRules::Early)
            .unwrap_or_else(|| Template::literal("30s"))
    }

    fn put(&mut self, node: &KdlNode) -> Option<Action> {
        let (text, place) = self.argument(node)?;
        let to = self.required(node, "to", Mode::Plain)?;
        if node.get("from").is_some() {
            let path = self.template(&text, Mode::Plain, NameRules::Late, place);
            return Some(Action::Fetch { path, to });
        }
        let name = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
        match name.filter(|n| self.names.params.get(*n) == Some(&ParamKind::Artifact)) {
            Some(name) => Some(Action::Put {
                artifact: name.to_owned(),
                to,
                is_shared: node.get("link").and_then(KdlValue::as_bool) == Some(true),
            }),
            None => {
                let message = format!("`put` takes an artifact parameter, not `{text}`");
                self.mistakes.push(
                    Diagnostic::new("wrong_value", place, message, "not an artifact")
                        .help("declare `param \"x\" type=\"artifact\"`, or add `from=\"from\"` for a path on the other host"),
                );
                None
            }
        }
    }

    fn wait(&mut self, node: &KdlNode) -> Option<Action> {
        let mut allowed = vec!["command", "http", "port", "within", "every"];
        if node.get("http").is_some() {
            allowed.extend(HTTP_PROPERTIES);
        }
        self.properties(node, &allowed);
        let what = if node.get("http").is_some() {
            let names = ["http"].iter().chain(&HTTP_PROPERTIES);
            let properties: BTreeMap<String, Template> = names
                .filter_map(|name| {
                    let value = self.property(node, name, Mode::Plain, NameRules::Late)?;
                    Some(((*name).to_owned(), value))
                })
                .collect();
            WaitFor::Http(properties)
        } else if let Some(port) = self.property(node, "port", Mode::Plain, NameRules::Late) {
            WaitFor::Port(port)
        } else {
            WaitFor::Command(self.required(node, "command", Mode::Shell)?)
        };
        let or = |found: Option<Template>, default: &str| {
            found.unwrap_or_else(|| Template::literal(default))
        };
        Some(Action::Wait(Wait {
            what,
            within: self.within(node),
            every: or(
                self.property(node, "every", Mode::Plain, NameRules::Early),
                "500ms",
            ),
        }))
    }

    /// Permission bits: a file with a secret in it is private, unless an owner is given.
    fn mode(&mut self, node: &KdlNode, content: &Template) -> String {
        let is_secret = |name: &str| self.names.params.get(name) == Some(&ParamKind::Secret);
        let is_secret = content.names().any(is_secret);
        let usual = if is_secret { "0600" } else { "0644" };
        let mode = node.entry("mode").and_then(text_of);
        let mode = mode.unwrap_or_else(|| usual.into());
        if is_secret && !mode.ends_with('0') {
            let place = self.place(node.span());
            let message = format!("a file with a secret in it cannot have mode `{mode}`");
            self.wrong(
                "wrong_value",
                place,
                message,
                "every user of the host could read it",
            );
        }
        let is_octal =
            (3..=4).contains(&mode.len()) && mode.chars().all(|c| ('0'..='7').contains(&c));
        if !is_octal {
            let place = self.place(node.span());
            self.wrong(
                "wrong_value",
                place,
                format!("mode `{mode}` is not octal, like \"0644\""),
                "here",
            );
        }
        mode
    }
}

/// Returns why a header of this name cannot be sent.
pub fn bad_header(name: &str) -> Option<&'static str> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return Some("letters, digits and hyphens");
    }
    let lower = name.to_ascii_lowercase();
    let is_own = OWN_HEADERS.contains(&lower.as_str());
    is_own.then_some("the responder sets it itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_name_and_not_of_the_responder() {
        for good in ["Retry-After", "X-Weave-Backoff"] {
            assert_eq!(bad_header(good), None, "{good}");
        }
        for bad in ["", "a b", "a:", "a\r\nb", "Content-Length", "connection"] {
            assert!(bad_header(bad).is_some(), "{bad}");
        }
    }
}
