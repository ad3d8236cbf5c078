//! Nodes with places: what the `kdl` crate read, as plain data of our own, and the
//! questions that every decoder asks of a node. Every refused answer is a mistake at
//! the value itself, and the decoder goes on with what is left.

use std::time::Duration;

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::core::deploy_window::{TOO_LONG, duration};
use crate::core::diagnostics::{Diagnostic, Span, suggest};
use crate::core::kdl_text::{BAD_NUMBER, MISSING_QUOTES, repr};

/// A text and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpannedText {
    pub(crate) text: String,
    pub(crate) place: Span,
}

/// An argument or the value of a property.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) value: KdlValue,
    /// The type annotation: `(command)"…"`.
    pub(crate) annotation: Option<String>,
    /// The value as it is written in the file.
    pub(crate) source: String,
    pub(crate) place: Span,
}

/// A property: its name, and the value.
#[derive(Clone, Debug)]
pub(crate) struct Property {
    pub(crate) name: SpannedText,
    pub(crate) value: Scalar,
}

/// A node with its arguments, properties and children.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: SpannedText,
    pub(crate) args: Vec<Scalar>,
    pub(crate) props: Vec<Property>,
    pub(crate) children: Vec<Node>,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(crate) fn push(&mut self, mistake: Diagnostic) {
        self.found.push(mistake);
    }

    pub(crate) fn extend(&mut self, mistakes: impl IntoIterator<Item = Diagnostic>) {
        self.found.extend(mistakes);
    }

    /// Returns whether anything but warnings was found.
    pub(crate) fn has_errors(&self) -> bool {
        self.found.iter().any(|m| !m.is_warning)
    }

    /// Returns how many mistakes there are, to ask later for those found since.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Returns the mistakes found since there were `count`.
    pub(crate) fn since(&self, count: usize) -> &[Diagnostic] {
        self.found.get(count..).unwrap_or_default()
    }

    /// Drops some of the mistakes found since there were `count`.
    pub(crate) fn retain_since(&mut self, count: usize, is_kept: impl Fn(&Diagnostic) -> bool) {
        let tail = self.found.split_off(count.min(self.found.len()));
        self.found.extend(tail.into_iter().filter(is_kept));
    }

    /// Returns the mistakes by place, each kind at each place once: the instances of
    /// an `each` would repeat it. The stated order is that of the files as read.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        let key = |m: &Diagnostic| (m.place.file, m.place.start, m.place.len, m.code);
        self.found.sort_by_key(key);
        self.found.dedup_by_key(|m| key(m));
        // What KDL makes of a wrong word is no mistake of its own.
        let end = |place: Span| place.start.saturating_add(place.len);
        let is_word = |m: &Diagnostic| matches!(m.code, MISSING_QUOTES | BAD_NUMBER);
        let words = self.found.iter().filter(|m| is_word(m));
        let words: Vec<Span> = words.map(|m| m.place).collect();
        let is_within = |place: Span| {
            let holds = |word: &Span| {
                word.file == place.file && word.start <= place.start && end(place) <= end(*word)
            };
            words.iter().any(holds)
        };
        self.found.retain(|m| is_word(m) || !is_within(m.place));
        self.found
    }
}

/// Where a parsed text comes from: the number of the source, and the byte it begins at there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) file: u16,
    pub(crate) start: usize,
}

/// Turns a parsed document into nodes.
pub(crate) fn nodes(document: &KdlDocument, origin: Origin) -> Vec<Node> {
    document.nodes().iter().map(|n| node(n, origin)).collect()
}

fn node(node: &KdlNode, origin: Origin) -> Node {
    let mut out = Node {
        name: SpannedText {
            text: node.name().value().to_owned(),
            place: place(origin, node.name().span()),
        },
        args: Vec::new(),
        props: Vec::new(),
        children: node.children().map_or(Vec::new(), |c| nodes(c, origin)),
    };
    for entry in node.entries() {
        let value = scalar(entry, origin);
        match entry.name() {
            None => out.args.push(value),
            Some(name) => out.props.push(Property {
                name: SpannedText {
                    text: name.value().to_owned(),
                    place: place(origin, name.span()),
                },
                value,
            }),
        }
    }
    out
}

fn scalar(entry: &KdlEntry, origin: Origin) -> Scalar {
    let source = repr(entry).into_owned();
    let mut at = place(origin, entry.span());
    // The value is the tail of `name=value` and of `(type)value`.
    let len = u32::try_from(source.len()).unwrap_or(at.len).min(at.len);
    at.start += at.len - len;
    at.len = len;
    Scalar {
        value: entry.value().clone(),
        annotation: entry.ty().map(|t| t.value().to_owned()),
        source,
        place: at,
    }
}

fn place(origin: Origin, span: miette::SourceSpan) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span {
        file: origin.file,
        start: number(origin.start + span.offset()),
        len: number(span.len()),
    }
}

impl Scalar {
    fn kind(&self) -> &'static str {
        match self.value {
            KdlValue::String(_) => "a string",
            KdlValue::Integer(_) | KdlValue::Float(_) => "a number",
            KdlValue::Bool(_) => "a boolean",
            KdlValue::Null => "null",
        }
    }

    fn wrong(&self, expected: &str, found: &mut Diagnostics) {
        let mistake = Diagnostic::new(
            "wrong_type",
            self.place,
            match (expected, &self.value) {
                ("a whole number", KdlValue::Float(_)) => {
                    format!("expected a whole number, found `{}`", self.source)
                }
                _ => format!("expected {expected}, found {}", self.kind()),
            },
            format!("not {expected}"),
        );
        found.push(match (expected, &self.value) {
            ("a string", KdlValue::Integer(_) | KdlValue::Float(_)) => {
                mistake.help(format!("write it in quotes: `\"{}\"`", self.source))
            }
            ("`#true` or `#false`", KdlValue::String(text)) if is_bool_word(text) => {
                mistake.help(format!("write `#{text}`, without quotes"))
            }
            ("a whole number", KdlValue::String(text)) if text.parse::<u64>().is_ok() => {
                mistake.help(format!("write `{text}`, without quotes"))
            }
            _ => mistake,
        });
    }

    /// Returns the string.
    pub(crate) fn text(&self, found: &mut Diagnostics) -> Option<SpannedText> {
        match (&self.value, self.annotation.as_deref()) {
            (KdlValue::String(text), None) => Some(SpannedText {
                text: text.clone(),
                place: self.place,
            }),
            (KdlValue::String(_), Some(annotation)) => {
                found.push(Diagnostic::new(
                    "wrong_type",
                    self.place,
                    format!("expected a plain string, found one marked `({annotation})`"),
                    "only `version` takes a mark",
                ));
                None
            }
            _ => {
                self.wrong("a string", found);
                None
            }
        }
    }

    /// Returns a string, number or boolean as it would be written in quotes.
    pub(crate) fn any_text(&self, found: &mut Diagnostics) -> Option<SpannedText> {
        let text = match &self.value {
            KdlValue::String(text) => text.clone(),
            KdlValue::Bool(value) => value.to_string(),
            KdlValue::Integer(_) | KdlValue::Float(_) => self.source.clone(),
            KdlValue::Null => {
                self.wrong("a value", found);
                return None;
            }
        };
        Some(SpannedText {
            text,
            place: self.place,
        })
    }

    /// Returns the whole number, if it is at least `min`.
    pub(crate) fn number(&self, min: u32, found: &mut Diagnostics) -> Option<u32> {
        let KdlValue::Integer(value) = self.value else {
            self.wrong("a whole number", found);
            return None;
        };
        let number = u32::try_from(value).ok().filter(|n| *n >= min);
        if number.is_none() {
            found.push(Diagnostic::new(
                "bad_number",
                self.place,
                format!(
                    "expected a number from {min} to {}, found {value}",
                    u32::MAX
                ),
                "out of range",
            ));
        }
        number
    }

    /// Returns the string, unless it is a boolean in quotes, which [`Scalar::boolean`] explains.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.value {
            KdlValue::String(text) if !is_bool_word(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the boolean.
    pub(crate) fn boolean(&self, found: &mut Diagnostics) -> Option<bool> {
        match self.value {
            KdlValue::Bool(value) => Some(value),
            _ => {
                self.wrong("`#true` or `#false`", found);
                None
            }
        }
    }

    /// Returns the duration: `30s`, `1h 30m`, `24h`.
    pub(crate) fn duration(&self, found: &mut Diagnostics) -> Option<Duration> {
        let text = match &self.value {
            KdlValue::Integer(_) | KdlValue::Float(_) => self.source.clone(),
            _ => self.text(found)?.text,
        };
        match duration(&text) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            read => {
                let label = match &read {
                    Err(why) if why == TOO_LONG => TOO_LONG,
                    _ => "expected a number with a unit",
                };
                let message = format!("`{text}` is not a duration");
                let mistake = Diagnostic::new("bad_duration", self.place, message, label);
                found.push(mistake.help(match text.parse::<u64>() {
                    Ok(n) if n > 0 => format!("did you mean `\"{n}s\"`?"),
                    _ => "write it like `\"500ms\"`, `\"30s\"`, `\"1h 30m\"` or `\"7d\"`".into(),
                }));
                None
            }
        }
    }
}

fn is_bool_word(text: &str) -> bool {
    matches!(text, "true" | "false")
}

impl Node {
    /// Returns whether the node is called `name`.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.text == name
    }

    /// Returns a mistake that points at the node's name.
    pub(crate) fn mistake(&self, code: &'static str, message: String, label: &str) -> Diagnostic {
        Diagnostic::new(code, self.name.place, message, label)
    }

    /// Returns a property.
    pub(crate) fn prop(&self, name: &str) -> Option<&Scalar> {
        let prop = self.props.iter().find(|p| p.name.text == name);
        prop.map(|p| &p.value)
    }

    /// Returns a property that is a string.
    pub(crate) fn text_prop(&self, name: &str, found: &mut Diagnostics) -> Option<SpannedText> {
        self.prop(name)?.text(found)
    }

    /// Returns a property that is a boolean; `false` when it is left out.
    pub(crate) fn flag(&self, name: &str, found: &mut Diagnostics) -> bool {
        let value = self.prop(name).and_then(|p| p.boolean(found));
        value.unwrap_or(false)
    }

    /// Reports every property that is not in `known`.
    pub(crate) fn only_props(&self, known: &[&str], found: &mut Diagnostics) {
        for prop in &self.props {
            let name = &prop.name.text;
            if known.contains(&name.as_str()) {
                continue;
            }
            let mistake = Diagnostic::new(
                "unknown_property",
                prop.name.place,
                format!("`{}` has no property `{name}`", self.name.text),
                "not a property of it",
            );
            found.push(with_suggestion(mistake, name, known, "it takes"));
        }
    }

    /// Reports every child that is not in `known`.
    pub(crate) fn only_children(&self, known: &[&str], found: &mut Diagnostics) {
        for child in &self.children {
            if !known.contains(&child.name.text.as_str()) {
                found.push(unknown_node(child, &format!("`{}`", self.name.text), known));
            }
        }
    }

    /// Reports children that say the same thing twice.
    pub(crate) fn once(&self, names: &[&str], found: &mut Diagnostics) {
        for name in names {
            let mut same = self.children.iter().filter(|c| c.is(name));
            let Some(first) = same.next() else { continue };
            for again in same {
                let message = format!("`{name}` is given twice in `{}`", self.name.text);
                let mistake = again.mistake("duplicate_node", message, "given again");
                found.push(mistake.secondary(first.name.place, "first given here"));
            }
        }
    }

    /// Returns the only argument; one too few or too many is a mistake.
    pub(crate) fn only_arg(&self, what: &str, found: &mut Diagnostics) -> Option<&Scalar> {
        if let Some(extra) = self.args.get(1) {
            found.push(Diagnostic::new(
                "extra_argument",
                extra.place,
                format!("`{}` takes one argument: {what}", self.name.text),
                "one too many",
            ));
        }
        if self.args.is_empty() {
            found.push(self.missing(what));
        }
        self.args.first()
    }

    /// Returns the mistake of an argument that is not there.
    pub(crate) fn missing(&self, what: &str) -> Diagnostic {
        let message = format!("`{}` needs an argument: {what}", self.name.text);
        self.mistake("missing_argument", message, "nothing follows")
            .help(format!("write `{} \"…\"`", self.name.text))
    }

    /// Returns the only argument, a string.
    pub(crate) fn only_text(&self, what: &str, found: &mut Diagnostics) -> Option<SpannedText> {
        self.only_arg(what, found)?.text(found)
    }

    /// Returns all arguments, strings; none at all is a mistake.
    pub(crate) fn texts(&self, what: &str, found: &mut Diagnostics) -> Vec<SpannedText> {
        if self.args.is_empty() {
            found.push(self.missing(what));
        }
        self.args.iter().filter_map(|a| a.text(found)).collect()
    }

    /// Reports children and properties of a node that takes none.
    pub(crate) fn is_plain(&self, found: &mut Diagnostics) {
        self.only_props(&[], found);
        self.only_children(&[], found);
    }
}

/// Returns the mistake of a node that does not belong where it stands.
pub(crate) fn unknown_node(node: &Node, parent: &str, known: &[&str]) -> Diagnostic {
    let name = &node.name.text;
    let message = format!("{parent} has no node `{name}`");
    let mistake = node.mistake("unknown_node", message, "not known here");
    with_suggestion(mistake, name, known, "it takes")
}

/// Adds "did you mean", or else the list of what there is, if it is short.
pub(crate) fn with_suggestion(
    mistake: Diagnostic,
    found: &str,
    known: &[&str],
    otherwise: &str,
) -> Diagnostic {
    match suggest(found, known.iter().copied()) {
        Some(near) => mistake.help(format!("did you mean `{near}`?")),
        None if known.is_empty() => mistake,
        None if known.len() <= 24 => mistake.help(format!("{otherwise} `{}`", known.join("`, `"))),
        None => mistake,
    }
}
