//! What to say of an input that is not there.

use super::{DirListing, EntryKind};
use crate::build::graph::{Input, Pattern};
use crate::core::diagnostics::{Diagnostic, suggest};
use crate::core::error::Result;
use crate::core::fs::RepoPath;

/// Returns the mistake of an input of `target` that matches nothing.
pub fn missing_input(target: &str, input: &Input, listing: &dyn DirListing) -> Result<Diagnostic> {
    let pattern = &input.pattern;
    let mistake = |code, message: String, label| Diagnostic::new(code, input.place, message, label);
    let of = format!("the input `{pattern}` of `{target}`");
    let path = match pattern {
        Pattern::File(path) => path,
        Pattern::Dir(_) => {
            let message = format!("{of} has no files");
            return Ok(mistake("missing_input", message, "empty or not there")
                .help("correct the path, or allow none with `optional=#true`"));
        }
        Pattern::Glob { .. } => {
            return Ok(
                mistake("empty_glob", format!("{of} matches no file"), "no match")
                    .help("correct the pattern, or allow none with `optional=#true`"),
            );
        }
    };
    // A link is missing only where it leads to a directory.
    if matches!(
        listing.kind(path)?,
        Some(EntryKind::Dir | EntryKind::Symlink)
    ) {
        return Ok(mistake(
            "missing_input",
            format!("{of} is a directory"),
            "not a file",
        )
        .help(format!("write `{pattern}/` for everything below it")));
    }
    let message = format!("{of} is not on disk, and no target makes it");
    let mistake = mistake("missing_input", message, "no such file");
    Ok(match near(path, listing)? {
        Some(near) => mistake.help(format!("did you mean `{near}`?")),
        None => mistake.help("create it, or let it be missing with `optional=#true`"),
    })
}

/// Returns a file beside the missing one with a similar name.
fn near(path: &RepoPath, listing: &dyn DirListing) -> Result<Option<String>> {
    let Some((parent, name)) = path.as_path().parent().zip(path.as_path().file_name()) else {
        return Ok(None);
    };
    let parent = RepoPath::new(parent);
    let entries = listing.list(&parent)?;
    let known = entries.iter().filter_map(|e| e.name.to_str());
    let near = suggest(&name.to_string_lossy(), known);
    Ok(near.map(|n| parent.join(n).to_string()))
}
