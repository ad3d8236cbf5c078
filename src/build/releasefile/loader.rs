//! Reading: the Releasefile and its includes, as one list of nodes.
//!
//! A file with a syntax error gives its diagnostics and no nodes; the others are
//! still read, so that one run shows the syntax errors of all of them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kdl::{KdlDocument, KdlError};
use rayon::prelude::*;

use super::depth_limit::{LEVELS_MAX, nesting};
use super::node::{Diagnostics, Node, Origin, nodes};
use crate::core::diagnostics::{Diagnostic, SourceMap, Span};
use crate::core::error::{IoContext, Result};
use crate::core::fs::{ReadFile, read_described};
use crate::core::kdl_text::{self, Part};

/// Includes within includes.
const DEPTH_MAX: usize = 64;

/// Reads files, and remembers which.
pub(crate) struct FileLoader<'a> {
    root: &'a Path,
    pub(crate) sources: SourceMap,
    pub(crate) read: Vec<ReadFile>,
    /// Optional includes that are not there.
    pub(crate) absent: Vec<PathBuf>,
    pub(crate) has_syntax_errors: bool,
    /// The files whose includes are being followed, outermost first.
    open: Vec<PathBuf>,
}

impl<'a> FileLoader<'a> {
    pub(crate) fn new(root: &'a Path) -> Self {
        Self {
            root,
            sources: SourceMap::default(),
            read: Vec::new(),
            absent: Vec::new(),
            has_syntax_errors: false,
            open: Vec::new(),
        }
    }

    /// Returns the nodes of a file and all it includes, in the order of the text.
    ///
    /// # Errors
    /// The file itself cannot be read; a missing include is a mistake instead.
    pub(crate) fn file(&mut self, path: &Path, found: &mut Diagnostics) -> Result<Vec<Node>> {
        let (bytes, meta) = read_described(path).context("read", path)?;
        Ok(self.text(path, bytes, &meta, found))
    }

    fn text(
        &mut self,
        path: &Path,
        bytes: Vec<u8>,
        meta: &Metadata,
        found: &mut Diagnostics,
    ) -> Vec<Node> {
        let shown = path.strip_prefix(self.root).unwrap_or(path).to_owned();
        self.read.push(ReadFile {
            path: path.to_owned(),
            owner: meta.uid(),
        });
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = error.into_bytes();
                let text = String::from_utf8_lossy(&bytes);
                let file = self.sources.add(shown, &text);
                found.push(not_utf8(file, valid));
                self.has_syntax_errors = true;
                return Vec::new();
            }
        };
        let file = self.sources.add(shown, &text);
        let nesting = nesting(&text);
        if let Some(at) = nesting.too_deep {
            self.has_syntax_errors = true;
            found.push(nested_too_deep(file, at));
            return Vec::new();
        }
        match parse(&text, &nesting.cuts, file) {
            Ok((nodes, mistakes)) => {
                found.extend(mistakes);
                self.open.push(path.to_owned());
                let nodes = self.follow(nodes, path, found);
                self.open.pop();
                nodes
            }
            Err(error) => {
                self.has_syntax_errors = true;
                found.extend(kdl_text::syntax(&error, &text, file));
                Vec::new()
            }
        }
    }

    /// Replaces each `include` by the nodes of its file.
    fn follow(&mut self, nodes: Vec<Node>, from: &Path, found: &mut Diagnostics) -> Vec<Node> {
        let mut out = Vec::with_capacity(nodes.len());
        for node in nodes {
            match node.is("include") {
                true => out.extend(self.include(&node, from, found)),
                false => out.push(node),
            }
        }
        out
    }

    fn include(&mut self, node: &Node, from: &Path, found: &mut Diagnostics) -> Vec<Node> {
        node.only_props(&["optional"], found);
        node.only_children(&[], found);
        let is_optional = node.flag("optional", found);
        let Some(text) = node.only_text("the path of a file", found) else {
            return Vec::new();
        };
        let below = from.parent().unwrap_or(self.root).join(&text.text);
        let path = crate::core::fs::RepoPath::new(below).as_path().to_owned();
        if let Some(start) = self.open.iter().position(|p| *p == path) {
            let round: Vec<String> = self.open[start..]
                .iter()
                .chain([&path])
                .map(|p| p.strip_prefix(self.root).unwrap_or(p).display().to_string())
                .collect();
            found.push(Diagnostic::new(
                "include_cycle",
                text.place,
                format!("includes form a cycle: {}", round.join(" -> ")),
                "closes the cycle here",
            ));
            return Vec::new();
        }
        if self.read.iter().any(|file| file.path == path) {
            // Read once, however many files ask for it.
            return Vec::new();
        }
        if self.open.len() >= DEPTH_MAX {
            let message = format!("files include each other more than {DEPTH_MAX} deep");
            let mistake = Diagnostic::new("deep_include", text.place, message, "one too many");
            found.push(mistake.help("include it from a file further up"));
            return Vec::new();
        }
        match read_described(&path) {
            Ok((bytes, meta)) => self.text(&path, bytes, &meta, found),
            Err(e) if is_optional && crate::core::fs::is_absent(&e) => {
                self.absent.push(path);
                Vec::new()
            }
            Err(e) => {
                let shown = path.strip_prefix(self.root).unwrap_or(&path);
                let why = crate::core::error::os_text(&e);
                let mistake = Diagnostic::new(
                    "unreadable_include",
                    text.place,
                    format!("cannot read `{}`: {why}", shown.display()),
                    "included here",
                );
                found.push(match crate::core::fs::is_absent(&e) {
                    true => mistake
                        .help("a path is relative to the file it stands in; `optional=#true` allows it to be missing"),
                    false => mistake,
                });
                Vec::new()
            }
        }
    }
}

/// The nodes of a text, and what is wrong in it though it could be parsed.
type Parsed = (Vec<Node>, Vec<Diagnostic>);

/// Parses a text, a long one in parts at once: the parser takes most of the time that a first
/// look at a Releasefile does.
fn parse(text: &str, cuts: &[usize], file: u16) -> Result<Parsed, KdlError> {
    let parse = |start: usize, end: usize| {
        let text = &text[start..end];
        let document = KdlDocument::parse_v2(text)?;
        let mistakes = kdl_text::check(&document, Part { text, file, start });
        Ok((nodes(&document, Origin { file, start }), mistakes))
    };
    if !cuts.is_empty() {
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([text.len()]);
        let parts: Vec<(usize, usize)> = starts.zip(ends).collect();
        let parsed: Result<Vec<Parsed>, KdlError> = parts
            .into_par_iter()
            .map(|(start, end)| parse(start, end))
            .collect();
        if let Ok(parts) = parsed {
            let (nodes, mistakes): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            return Ok((nodes.concat(), mistakes.concat()));
        }
        // What is wrong is reported of the text as a whole.
    }
    parse(0, text.len())
}

fn not_utf8(file: u16, valid: usize) -> Diagnostic {
    let place = Span {
        file,
        start: u32::try_from(valid).unwrap_or(u32::MAX),
        len: 1,
    };
    Diagnostic::new(
        "syntax",
        place,
        "the file is not UTF-8 text",
        "the first byte that is not",
    )
}

fn nested_too_deep(file: u16, at: usize) -> Diagnostic {
    let place = Span {
        file,
        start: u32::try_from(at).unwrap_or(u32::MAX),
        len: 1,
    };
    let message = format!("the text is nested more than {LEVELS_MAX} deep");
    Diagnostic::new("syntax", place, message, "one level too many")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of which every line is one that a careless cut would go wrong at.
    fn long() -> String {
        let nodes = [
            "target \"a\" { inputs \"src/*.py\"; run \"cat {in} > {out}\"; }\n",
            "// } }\n",
            "/* }\n}\n*/ var \"x\" \"}\"\n",
            "/- target \"b\" {\n}\n",
            "target \"c\" {\n  run \"\"\"\n    }\n    }\n    \"\"\"\n} \t\r\n",
            "pool \"p\" depth=1 \\\n  { }\n/-\nhost \"h\" {}\n",
            "var \"y\" #\"}\n\"#\n".trim_end_matches("\n\"#\n"),
            "\"#\n",
        ];
        nodes.concat().repeat(900)
    }

    #[test]
    fn a_text_in_parts_has_the_nodes_and_places_of_the_whole() {
        let text = long();
        let cuts = nesting(&text).cuts;
        assert!(cuts.len() > 1, "{cuts:?}");
        let whole = parse(&text, &[], 0).expect("is KDL");
        let parts = parse(&text, &cuts, 0).expect("is KDL");
        assert!(format!("{whole:?}") == format!("{parts:?}"));
        assert_eq!(whole.0.len(), 900 * 5);
    }

    #[test]
    fn what_is_wrong_in_a_part_is_told_at_its_place_in_the_whole() {
        let text = format!("{}target \"x\" {{ run }} }}\n{}", long(), long());
        let cuts = nesting(&text).cuts;
        let told = |cuts: &[usize]| format!("{:?}", parse(&text, cuts, 0).err());
        assert!(told(&[]) != "None");
        assert_eq!(told(&cuts), told(&[]));
    }
}
