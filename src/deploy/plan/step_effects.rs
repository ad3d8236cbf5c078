//! What a rendered step says of itself: to its key, and to a person. Pure.

use serde::{Deserialize, Serialize};

use crate::core::escape;
use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};
use crate::deploy::protocol::words::hex;

/// Stands for "whatever the step does" where a step only says that it destroys.
const YES: &str = "true";
/// Functions of `lib/` that leave an undo of their own.
const UNDOING: [&str; 3] = ["rel_undo", "rel_retire", "rel_scope_owe"];

/// How what a step did is rolled back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reversibility {
    /// By its `undo`, or as its action does of itself.
    Known,
    /// There is nothing to roll back.
    NotNeeded,
    /// Not at all.
    #[default]
    None,
}

impl ResolvedStep {
    /// Returns everything that decides what the step does, for its key.
    ///
    /// Not in it: `check`, `undo` and how a scope is left (they do not change the result),
    /// time limits.
    pub fn key_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("seat", format!("{:?}", self.seat))];
        match &self.act {
            ResolvedAction::Run(text) => fields.push(("run", text.clone())),
            ResolvedAction::Put { sha256, to, .. } => {
                fields.extend([("put", sha256.clone()), ("to", to.clone())]);
            }
            ResolvedAction::Fetch { path, to } => {
                fields.extend([("fetch", path.clone()), ("to", to.clone())])
            }
            ResolvedAction::Write {
                path,
                content,
                mode,
                owner,
            } => {
                fields.extend([
                    ("write", path.clone()),
                    ("content", content.clone()),
                    ("mode", mode.clone()),
                ]);
                fields.extend(owner.iter().map(|o| ("owner", o.clone())));
            }
            ResolvedAction::Symlink { path, to } => {
                fields.extend([("symlink", path.clone()), ("to", to.clone())]);
            }
            ResolvedAction::Service(s) => fields.extend([
                ("service", s.name.clone()),
                ("run", s.run.clone()),
                ("log", s.log.clone()),
                ("stop", s.stop.clone()),
                ("ready", s.ready.clone()),
            ]),
            ResolvedAction::Managed { start, .. } => fields.push(("start", start.clone())),
            ResolvedAction::Scope { name, enter, .. } => {
                fields.extend([("scope", name.clone()), ("enter", enter.clone())]);
            }
            ResolvedAction::Port(port) => fields.extend(port.key_fields()),
            ResolvedAction::Await { command, .. } => fields.push(("wait", command.clone())),
            ResolvedAction::Ask(wait) => fields.push(("ask", wait.describe())),
        }
        fields.extend(self.user.iter().map(|u| ("as", u.clone())));
        fields.extend(self.prepare.iter().map(|p| ("prepare", p.clone())));
        fields.extend(self.verify.iter().map(|v| ("verify", v.clone())));
        fields.extend(self.dir.iter().map(|d| ("dir", d.clone())));
        fields.extend(self.env.iter().map(|(n, v)| ("env", format!("{n}={v}"))));
        fields
    }

    /// Returns what a probe finds where it has written its file.
    pub fn written(&self) -> Option<String> {
        match (&self.sealed, &self.act) {
            (Some(sealed), _) => Some(sealed.file()),
            (None, ResolvedAction::Write { content, .. }) => Some(hex(content.as_bytes())),
            _ => None,
        }
    }

    /// Returns one line that says what it does: in the recipe's words, if it has some.
    pub fn describe(&self) -> String {
        match &self.marks.desc {
            Some(desc) => escape::line(desc.trim()).into_owned(),
            None => self.action(),
        }
    }

    /// Returns its action in one line; the first one of a longer text.
    pub fn action(&self) -> String {
        let text = match &self.act {
            ResolvedAction::Run(text) => text.trim().lines().next().unwrap_or("").to_owned(),
            ResolvedAction::Put { sha256, to, .. } => {
                format!(
                    "put {} to {to}",
                    sha256.chars().take(12).collect::<String>()
                )
            }
            ResolvedAction::Fetch { path, to } => format!("copy {path} to {to}"),
            ResolvedAction::Write { path, .. } => format!("write {path}"),
            ResolvedAction::Symlink { path, to } => format!("{path} -> {to}"),
            ResolvedAction::Service(s) => format!("service {}: {}", s.name, s.run.trim()),
            ResolvedAction::Managed { start, .. } => start.trim().to_owned(),
            ResolvedAction::Scope { name, .. } => format!("until the run ends: {name}"),
            ResolvedAction::Port(port) => port.describe(),
            ResolvedAction::Await { command, .. } => format!("wait for: {}", command.trim()),
            ResolvedAction::Ask(wait) => wait.describe(),
        };
        escape::line(&text).into_owned()
    }

    /// Returns what is lost when it runs.
    pub fn destroys(&self) -> Option<String> {
        let text = self.marks.destroys.as_deref()?;
        Some(match text {
            YES => self.action(),
            text => escape::line(text.trim()).into_owned(),
        })
    }

    /// Returns how it is rolled back.
    pub fn way_back(&self) -> Reversibility {
        let calls = |text: &str| UNDOING.iter().any(|f| text.contains(f));
        match &self.act {
            _ if self.undo.is_some() => Reversibility::Known,
            ResolvedAction::Write { .. } | ResolvedAction::Symlink { .. }
                if !self.marks.needs_no_undo =>
            {
                Reversibility::Known
            }
            ResolvedAction::Service(_)
            | ResolvedAction::Managed { .. }
            | ResolvedAction::Scope { .. }
            | ResolvedAction::Port(_) => Reversibility::Known,
            ResolvedAction::Run(text) if calls(text) => Reversibility::Known,
            ResolvedAction::Await { .. } | ResolvedAction::Ask(_) => Reversibility::NotNeeded,
            _ if self.marks.needs_no_undo => Reversibility::NotNeeded,
            _ => Reversibility::None,
        }
    }
}
