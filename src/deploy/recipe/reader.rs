//! One KDL file being read: values with their places, and the mistakes met on the way.
//!
//! What a recipe is made of is `parse`'s matter; here is only how a value is taken out
//! of a node, and how what is wrong with it is stated.

use std::collections::BTreeSet;
use std::time::Duration;

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::core::diagnostics::{Diagnostic, Span, suggest};
use crate::core::kdl_text::{self, Part};
use crate::core::template::{Mode, Template};
use crate::deploy::recipe::names::{NameRules, RecipeNames};

/// Parses the text of file number `file`; with the mistakes in it that the parser takes.
pub(in crate::deploy) fn document(
    text: &str,
    file: u16,
) -> Result<(KdlDocument, Vec<Diagnostic>), Vec<Diagnostic>> {
    let parsed = KdlDocument::parse_v2(text);
    let document = parsed.map_err(|error| kdl_text::syntax(&error, text, file))?;
    let start = 0;
    let mistakes = kdl_text::check(&document, Part { text, file, start });
    Ok((document, mistakes))
}

fn place_of(span: miette::SourceSpan, file: u16) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span {
        file,
        start: number(span.offset()),
        len: number(span.len()),
    }
}

/// Returns a value as text: numbers as they are written, for `3.10` is not `3.1`.
pub fn text_of(entry: &KdlEntry) -> Option<String> {
    match entry.value() {
        KdlValue::String(text) => Some(text.clone()),
        KdlValue::Integer(_) | KdlValue::Float(_) => Some(kdl_text::repr(entry).into_owned()),
        KdlValue::Bool(value) => Some(value.to_string()),
        KdlValue::Null => None,
    }
}

/// A file being read.
pub(in crate::deploy) struct NodeReader {
    pub(in crate::deploy) file: u16,
    pub(in crate::deploy) mistakes: Vec<Diagnostic>,
    pub(in crate::deploy) names: RecipeNames,
    /// Values of hosts that were named since these were taken.
    pub(in crate::deploy) host_names: BTreeSet<String>,
}

impl NodeReader {
    pub(in crate::deploy) fn new(file: u16) -> Self {
        Self {
            file,
            mistakes: Vec::new(),
            names: RecipeNames::default(),
            host_names: BTreeSet::new(),
        }
    }

    pub(in crate::deploy) fn place(&self, span: miette::SourceSpan) -> Span {
        place_of(span, self.file)
    }

    pub(in crate::deploy) fn wrong(
        &mut self,
        code: &'static str,
        place: Span,
        message: String,
        label: &str,
    ) {
        self.mistakes
            .push(Diagnostic::new(code, place, message, label));
    }

    /// Reports `found` as unknown, with the nearest of `known`.
    pub(in crate::deploy) fn unknown(
        &mut self,
        what: &str,
        found: &str,
        known: &[&str],
        place: Span,
    ) {
        let mistake = Diagnostic::new(
            "unknown_node",
            place,
            format!("{what} `{found}` is not known here"),
            format!("expected one of {}", known.join(", ")),
        );
        self.mistakes
            .push(match suggest(found, known.iter().copied()) {
                Some(near) => mistake.help(format!("did you mean `{near}`?")),
                None => mistake,
            });
    }

    pub(in crate::deploy) fn template(
        &mut self,
        text: &str,
        mode: Mode,
        allow: NameRules,
        place: Span,
    ) -> Template {
        match Template::parse(text, mode) {
            Ok(template) => {
                let of_hosts = template.names().filter(|name| name.starts_with("host."));
                self.host_names.extend(of_hosts.map(str::to_owned));
                let mistake = self.names.check(&template, mode, allow, place);
                self.mistakes.extend(mistake);
                template
            }
            Err(error) => {
                self.mistakes.push(
                    Diagnostic::new("template", place, error.to_string(), "here")
                        .help(error.help()),
                );
                Template::default()
            }
        }
    }

    pub(in crate::deploy) fn property(
        &mut self,
        node: &KdlNode,
        name: &str,
        mode: Mode,
        allow: NameRules,
    ) -> Option<Template> {
        let entry = node.entry(name)?;
        let place = self.place(entry.span());
        let text = text_of(entry)?;
        Some(self.template(&text, mode, allow, place))
    }

    pub(in crate::deploy) fn required(
        &mut self,
        node: &KdlNode,
        name: &str,
        mode: Mode,
    ) -> Option<Template> {
        let found = self.property(node, name, mode, NameRules::Late);
        if found.is_none() {
            let place = self.place(node.span());
            let message = format!("`{}` needs `{name}=`", node.name().value());
            self.wrong("missing_argument", place, message, "missing here");
        }
        found
    }

    /// Returns a property that is #true or #false; false where it is not given.
    pub(in crate::deploy) fn flag(&mut self, node: &KdlNode, name: &str) -> bool {
        let Some(entry) = node.entry(name) else {
            return false;
        };
        if let Some(value) = entry.value().as_bool() {
            return value;
        }
        let place = self.place(entry.span());
        let message = format!("`{name}` is #true or #false");
        self.wrong(
            "wrong_value",
            place,
            message,
            "expected `#true` or `#false`",
        );
        false
    }

    pub(in crate::deploy) fn is_from(&mut self, node: &KdlNode) -> bool {
        match node.entry("host").map(text_of) {
            None => false,
            Some(Some(text)) if text == "from" => true,
            Some(other) => {
                let place = self.place(node.span());
                self.unknown("host", &other.unwrap_or_default(), &["from"], place);
                false
            }
        }
    }

    pub(in crate::deploy) fn duration(&mut self, text: &str, place: Span) -> Option<Duration> {
        match crate::core::deploy_window::duration(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                let message = format!("`{text}` is not a duration: {error}");
                self.mistakes.push(
                    Diagnostic::new("bad_duration", place, message, "here")
                        .help("write `90s`, `10m` or `24h`"),
                );
                None
            }
        }
    }

    /// Returns the only argument.
    pub(in crate::deploy) fn argument(&mut self, node: &KdlNode) -> Option<(String, Span)> {
        self.arguments::<1>(node).map(|[one]| one)
    }

    /// Returns exactly `N` arguments, or reports.
    pub(in crate::deploy) fn arguments<const N: usize>(
        &mut self,
        node: &KdlNode,
    ) -> Option<[(String, Span); N]> {
        let found: Vec<(String, Span)> = node
            .entries()
            .iter()
            .filter(|e| e.name().is_none())
            .filter_map(|e: &KdlEntry| Some((text_of(e)?, self.place(e.span()))))
            .collect();
        let count = found.len();
        match <[(String, Span); N]>::try_from(found) {
            Ok(found) => Some(found),
            Err(_) => {
                let place = self.place(node.span());
                let message = format!(
                    "`{}` takes {N} {}, and has {count}",
                    node.name().value(),
                    crate::core::error::plural(N, "argument")
                );
                self.wrong("missing_argument", place, message, "here");
                None
            }
        }
    }

    /// Reports nodes that say the same thing twice.
    pub(in crate::deploy) fn once(&mut self, nodes: &[KdlNode], names: &[&str]) {
        for name in names {
            let mut same = nodes.iter().filter(|node| node.name().value() == *name);
            let Some(first) = same.next().map(|node| node.name().span()) else {
                continue;
            };
            for again in same {
                let place = self.place(again.name().span());
                let message = format!("`{name}` is given twice");
                let mistake = Diagnostic::new("duplicate_node", place, message, "given again");
                self.mistakes
                    .push(mistake.secondary(self.place(first), "first given here"));
            }
        }
    }

    /// Reports properties that are not in `known`.
    pub(in crate::deploy) fn properties(&mut self, node: &KdlNode, known: &[&str]) {
        for entry in node.entries() {
            if let Some(name) = entry.name()
                && !known.contains(&name.value())
            {
                let place = self.place(name.span());
                self.unknown("property", name.value(), known, place);
            }
        }
    }
}
