//! Places in source files, and the mistakes found at them.
//!
//! Every value of a Releasefile or recipe keeps its [`Span`], so that a mistake
//! found late (a missing input, a clash of outputs) still shows its line and an
//! arrow. Nothing here reads files or prints.

pub mod render;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file that was read, with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path as shown to people: relative to the repository root where it lies below it.
    pub path: PathBuf,
    /// The whole text.
    pub text: std::sync::Arc<str>,
}

/// All files that a Releasefile was put together from; a [`Span`] points into one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// Adds a file and returns its number.
    pub fn add(&mut self, path: PathBuf, text: &str) -> u16 {
        let number = u16::try_from(self.files.len()).unwrap_or(u16::MAX);
        self.files.push(SourceFile {
            path,
            text: text.into(),
        });
        number
    }

    /// Returns the file a place points into.
    pub fn get(&self, place: Span) -> Option<&SourceFile> {
        self.files.get(usize::from(place.file))
    }

    /// Returns all files, in the order they were read.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Returns the 1-based line of a place, or 0 when the file is unknown.
    pub fn line(&self, place: Span) -> usize {
        self.get(place).map_or(0, |file| {
            let end = (place.start as usize).min(file.text.len());
            1 + file.text.as_bytes()[..end]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
        })
    }

    /// Returns `Releasefile.kdl:14` for a place.
    pub fn locate(&self, place: Span) -> String {
        match self.get(place) {
            Some(file) => format!("{}:{}", file.path.display(), self.line(place)),
            None => String::from("(no place)"),
        }
    }
}

/// A span of bytes in one of the [`SourceMap`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Number of the file in [`SourceMap`].
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// One mistake in a file: what was found, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code, such as `unknown_target`; shown as `rel::build::releasefile::unknown_target`.
    pub code: &'static str,
    /// One line: what was found and what was expected.
    pub message: String,
    /// Where.
    pub place: Span,
    /// Short text at the arrow.
    pub label: String,
    /// A second place that matters (the first definition of a duplicate).
    pub also: Option<(Span, String)>,
    /// One thing to do.
    pub help: Option<String>,
    /// A warning does not stop the run.
    pub is_warning: bool,
}

impl Diagnostic {
    /// Returns a mistake of `code` at `place`.
    pub fn new(
        code: &'static str,
        place: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            place,
            label: label.into(),
            also: None,
            help: None,
            is_warning: false,
        }
    }

    /// Adds a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn secondary(mut self, place: Span, label: impl Into<String>) -> Self {
        self.also = Some((place, label.into()));
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.is_warning = true;
        self
    }
}

/// Returns the best "did you mean" among `known` for `found`, if one is near.
pub fn suggest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(found, k), k))
        .filter(|(distance, k)| *distance <= (found.len().max(k.len()) / 3).max(1))
        .min()
        .map(|(_, k)| k)
        .filter(|k| *k != found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(
            suggest("ap-image", ["app-image", "wheel"]),
            Some("app-image")
        );
        assert_eq!(suggest("wheel", ["image", "tests-pass"]), None);
    }

    #[test]
    fn counts_lines_from_one() {
        let mut sources = SourceMap::default();
        let file = sources.add("Releasefile.kdl".into(), "a\nbb\nccc\n");
        let place = Span {
            file,
            start: 5,
            len: 3,
        };
        assert_eq!(sources.locate(place), "Releasefile.kdl:3");
    }
}
