//! What was found where a step would leave something, held against the step. Pure.

use crate::deploy::plan::StepProbe;
use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};

/// Returns whether what was found is as good as a record.
pub(in crate::deploy) fn adopts(draft: &ResolvedStep, probe: &StepProbe) -> bool {
    if let Some(check) = probe.check {
        return check;
    }
    match (&draft.act, &probe.found) {
        (ResolvedAction::Symlink { to, .. }, Some(found)) => found == to,
        // Who could read it is not known: a secret is never taken as it lies there.
        (ResolvedAction::Write { .. }, Some(_)) if draft.sealed.is_some() => false,
        (ResolvedAction::Write { .. }, Some(found)) => {
            draft.written().as_ref() == Some(found) && access_drift(draft, probe).is_none()
        }
        _ => false,
    }
}

/// Returns what speaks against a record.
pub(in crate::deploy) fn drifted(draft: &ResolvedStep, probe: &StepProbe) -> Option<String> {
    if probe.check == Some(false) {
        return Some("its check fails".into());
    }
    let found = probe.found.as_deref()?;
    match &draft.act {
        ResolvedAction::Symlink { to, .. } if found != to => Some(match found {
            "" => "the link is gone".into(),
            found => format!("points to {found}"),
        }),
        ResolvedAction::Write { path, .. }
        | ResolvedAction::Put { to: path, .. }
        | ResolvedAction::Fetch { to: path, .. }
            if found.is_empty() =>
        {
            Some(format!("`{path}` is gone"))
        }
        ResolvedAction::Write { path, .. } if draft.written().is_some_and(|w| w != found) => {
            Some(format!("`{path}` was changed"))
        }
        ResolvedAction::Put { sha256, to, .. } if found != "yes" && found != sha256 => {
            Some(format!("`{to}` was changed"))
        }
        ResolvedAction::Write { .. } => access_drift(draft, probe),
        ResolvedAction::Service(_) if found.is_empty() => Some("not running".into()),
        _ => None,
    }
}

fn access_drift(draft: &ResolvedStep, probe: &StepProbe) -> Option<String> {
    probe.access.as_ref()?.drift(draft)
}

/// Returns what a step that writes a file changes of who may do what with the one that stands
/// there, to be reported before it is replaced; nothing where that is the `reason`.
pub(in crate::deploy) fn changes_access(
    draft: &ResolvedStep,
    probe: &StepProbe,
    reason: &str,
) -> Option<String> {
    if access_drift(draft, probe).is_some_and(|drift| drift == reason) {
        return None;
    }
    let change = probe.access.as_ref()?.change(draft)?;
    Some(format!("`{}`: {change}", draft.writes()?))
}
