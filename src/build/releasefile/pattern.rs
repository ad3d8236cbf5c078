//! Patterns of `inputs` and `outputs`: from text to what it names.
//!
//! The value of an axis is a name and never a wildcard; the value of a variable is
//! text of the Releasefile's author and may hold wildcards.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::node::{Diagnostics, SpannedText};
use super::scope::{NameScope, NoDeferred};
use crate::build::glob::{self, Glob, is_reserved};
use crate::build::graph::Pattern;
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::fs::{RepoPath, shown};
use crate::core::template::{Mode, Template, Value};

/// A pattern, and whether it is written with a leading `!`.
pub(crate) struct Written {
    pub(crate) pattern: Pattern,
    pub(crate) is_exclusion: bool,
}

const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// Returns the patterns a text stands for: one, or those of a list that stands alone.
pub(crate) fn patterns(
    text: &SpannedText,
    scope: &NameScope,
    found: &mut Diagnostics,
) -> Vec<Written> {
    let Some(parsed) = scope.parse(text, Mode::Plain, &NoDeferred, found) else {
        return Vec::new();
    };
    let render = |axis: &dyn Fn(OsString) -> OsString| {
        let value = |n: &str| match scope.axis(n) {
            Some(value) => Some(Value::One(axis(value))),
            None => scope.get(n),
        };
        parsed.render_words(&value)
    };
    let raw = scope.reported(render(&|v| v), text, found);
    // What is left of the text when the values of axes are taken out decides whether
    // it is a pattern at all.
    let masked = scope.reported(render(&|_| "x".into()), text, found);
    let mut texts = masked.iter().flatten();
    let has_braces = texts.any(|text| text.as_bytes().contains(&b'{'));
    let escaped = render(&|v| glob::escape(&v.to_string_lossy(), has_braces).into());
    let (Some(raw), Some(masked), Ok(escaped)) = (raw, masked, escaped) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for ((raw, masked), escaped) in raw.iter().zip(&masked).zip(&escaped) {
        match one(raw, &masked.to_string_lossy(), &escaped.to_string_lossy()) {
            Ok(written) => out.push(written),
            Err(why) => found.push(unusable(text, raw, &parsed, &why)),
        }
    }
    out
}

fn unusable(text: &SpannedText, raw: &OsString, parsed: &Template, why: &str) -> Diagnostic {
    let message = format!("the pattern `{}` is unusable: {why}", shown(raw));
    let mistake = Diagnostic::new("bad_pattern", text.place, message, "not a pattern");
    match why {
        "it names nothing" if parsed.only_name().is_none() => {
            mistake.help("name a file, a directory (`src/`) or a glob (`src/**`)")
        }
        _ => mistake,
    }
}

fn one(raw: &OsString, masked: &str, escaped: &str) -> Result<Written, String> {
    let is_exclusion = masked.starts_with('!');
    let skip = usize::from(is_exclusion);
    let (masked, escaped) = (&masked[skip..], &escaped[skip..]);
    let raw = &raw.as_bytes()[skip..];
    if raw.is_empty() {
        return Err("it names nothing".into());
    }
    if raw.contains(&0) {
        return Err("it has a NUL byte".into());
    }
    let path = || RepoPath::new(std::ffi::OsStr::from_bytes(raw));
    let pattern = match (masked.contains(WILDCARDS), masked.ends_with('/')) {
        (true, true) => {
            return Err("a glob cannot name directories; end it with `/**`".into());
        }
        (true, false) => normalised(escaped)?,
        (false, true) => Pattern::Dir(path()),
        (false, false) => Pattern::File(path()),
    };
    Ok(Written {
        pattern,
        is_exclusion,
    })
}

fn normalised(text: &str) -> Result<Pattern, String> {
    let base = glob::base_of(text);
    let wild = text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len());
    let rest_at = text[..wild].rfind('/').map_or(0, |slash| slash + 1);
    let rest = &text[rest_at..];
    if rest.split('/').any(|part| part == "..") {
        return Err("`..` cannot follow a wildcard".into());
    }
    let glob = match base.as_path().to_str() {
        Some("") => rest.to_owned(),
        Some("/") => format!("/{rest}"),
        Some(base) => format!("{base}/{rest}"),
        None => return Err("it is not UTF-8".into()),
    };
    Glob::new(&glob)?;
    Ok(Pattern::Glob { base, glob })
}

/// Returns a mistake unless the pattern lies in the repository, outside of what is
/// git's and `rel`'s own.
pub(crate) fn outside(role: &str, pattern: &Pattern, place: Span) -> Option<Diagnostic> {
    let path = match pattern {
        Pattern::File(path) | Pattern::Dir(path) => path,
        Pattern::Glob { base, .. } => base,
    };
    let is_whole = path.is_root() && !matches!(pattern, Pattern::Glob { .. });
    let (what, label) = if !path.is_inside() {
        ("lies outside of the repository", "outside")
    } else if is_reserved(path) {
        ("lies in a directory of git or of `rel` itself", "not yours")
    } else if is_whole {
        ("is the whole repository", "too much")
    } else {
        return None;
    };
    let message = format!("the {role} `{pattern}` {what}");
    Some(
        Diagnostic::new("bad_output", place, message, label)
            .help("name a path below the directory of the Releasefile, such as `build/…`"),
    )
}
