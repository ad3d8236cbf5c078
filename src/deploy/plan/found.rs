//! What was found where a step would leave something, held against the step. Pure.

use crate::deploy::plan::Probe;
use crate::deploy::plan::job::{Act, Draft};

/// Returns whether what was found is as good as a record.
pub(in crate::deploy) fn adopts(draft: &Draft, probe: &Probe) -> bool {
    if let Some(check) = probe.check {
        return check;
    }
    match (&draft.act, &probe.found) {
        (Act::Symlink { to, .. }, Some(found)) => found == to,
        // Who could read it is not known: a secret is never taken as it lies there.
        (Act::Write { .. }, Some(_)) if draft.sealed.is_some() => false,
        (Act::Write { .. }, Some(found)) => {
            draft.written().as_ref() == Some(found) && access_drift(draft, probe).is_none()
        }
        _ => false,
    }
}

/// Returns what speaks against a record.
pub(in crate::deploy) fn drifted(draft: &Draft, probe: &Probe) -> Option<String> {
    if probe.check == Some(false) {
        return Some("its check fails".into());
    }
    let found = probe.found.as_deref()?;
    match &draft.act {
        Act::Symlink { to, .. } if found != to => Some(match found {
            "" => "the link is gone".into(),
            found => format!("points to {found}"),
        }),
        Act::Write { path, .. } | Act::Put { to: path, .. } | Act::Fetch { to: path, .. }
            if found.is_empty() =>
        {
            Some(format!("`{path}` is gone"))
        }
        Act::Write { path, .. } if draft.written().is_some_and(|w| w != found) => {
            Some(format!("`{path}` was changed"))
        }
        Act::Put { sha256, to, .. } if found != "yes" && found != sha256 => {
            Some(format!("`{to}` was changed"))
        }
        Act::Write { .. } => access_drift(draft, probe),
        Act::Service(_) if found.is_empty() => Some("not running".into()),
        _ => None,
    }
}

fn access_drift(draft: &Draft, probe: &Probe) -> Option<String> {
    probe.access.as_ref()?.drift(draft)
}

/// Returns what a step that writes a file changes of who may do what with the one that stands
/// there, to be told before it is replaced; nothing where that is the `reason`.
pub(in crate::deploy) fn changes_access(
    draft: &Draft,
    probe: &Probe,
    reason: &str,
) -> Option<String> {
    if access_drift(draft, probe).is_some_and(|drift| drift == reason) {
        return None;
    }
    let change = probe.access.as_ref()?.change(draft)?;
    Some(format!("`{}`: {change}", draft.writes()?))
}
