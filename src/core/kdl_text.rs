//! Text of KDL: what the parser accepts by mistake, and what it refuses, in words.
//!
//! KDL ends a bare word at `//` and `/*` and goes on with a comment, lets the last of two equal
//! properties win, and knows numbers that are none. Each of these is a mistake in every node,
//! of a Releasefile and of a recipe.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kdl::{KdlDiagnostic, KdlDocument, KdlEntry, KdlError, KdlNode, KdlValue};

use crate::core::diagnostics::{Diagnostic, Span};

/// The code of a mistake that is a word without quotes.
pub(crate) const MISSING_QUOTES: &str = "missing_quotes";

/// The code of a mistake that is a number which is none.
pub(crate) const BAD_NUMBER: &str = "bad_number";

/// A text and where it begins in its file.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) text: &'a str,
    pub(crate) file: u16,
    pub(crate) start: usize,
}

impl Part<'_> {
    fn place(&self, start: usize, len: usize) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            start: number(self.start + start),
            len: number(len),
        }
    }

    fn at(&self, span: miette::SourceSpan) -> Span {
        self.place(span.offset(), span.len())
    }

    /// Returns what is written in a span of this text.
    fn written(&self, span: miette::SourceSpan) -> &str {
        let start = span.offset();
        self.text.get(start..start + span.len()).unwrap_or_default()
    }
}

/// Returns the value of an entry as it is written.
pub(crate) fn repr(entry: &KdlEntry) -> Cow<'_, str> {
    match entry.format() {
        Some(format) => Cow::Borrowed(&format.value_repr),
        None => Cow::Owned(entry.value().to_string()),
    }
}

/// Returns the mistakes in a text that the parser took.
pub(crate) fn check(document: &KdlDocument, part: Part<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for node in document.nodes() {
        check_node(node, part, &mut found);
    }
    found
}

fn check_node(node: &KdlNode, part: Part<'_>, found: &mut Vec<Diagnostic>) {
    found.extend(comment_behind(node.name().span(), part));
    let mut known: BTreeMap<&str, Span> = BTreeMap::new();
    for entry in node.entries() {
        if let Some(name) = entry.name() {
            found.extend(comment_behind(name.span(), part));
            let place = part.at(name.span());
            if let Some(first) = known.insert(name.value(), place) {
                let message = format!(
                    "`{}` is given twice in `{}`",
                    name.value(),
                    node.name().value()
                );
                let mistake = Diagnostic::new("duplicate_name", place, message, "given again");
                found.push(mistake.secondary(first, "first given here"));
            }
        }
        found.extend(comment_behind(entry.span(), part));
        found.extend(number_of(entry, part));
    }
    if let Some(children) = node.children() {
        found.extend(check(children, part));
    }
}

/// A word that is not in quotes ends where a comment begins, though no blank stands between.
fn comment_behind(span: miette::SourceSpan, part: Part<'_>) -> Option<Diagnostic> {
    let written = part.written(span);
    let is_bare = !written.is_empty() && !written.ends_with(['"', '#']);
    let rest = part.text.get(span.offset() + span.len()..)?;
    let begins = rest.starts_with("//") || rest.starts_with("/*");
    // In `name=value` and `(type)value` the word is the value.
    let word = written.rsplit(['=', ')']).next().unwrap_or(written);
    let start = span.offset() + written.len() - word.len();
    (is_bare && begins).then(|| slash(part, start, word.len()))
}

/// Returns the mistake of a word at `start` that is ended by a slash.
fn slash(part: Part<'_>, start: usize, len: usize) -> Diagnostic {
    let text = &part.text[start..];
    let word = &text[..len];
    let is_end = |c: char| c.is_whitespace() || ";\"{}".contains(c);
    let whole = &text[..text.find(is_end).unwrap_or(text.len())];
    let place = part.place(start, whole.len());
    let comment = ["//", "/*"]
        .into_iter()
        .find(|c| text[len..].starts_with(c));
    let help = format!("write it in quotes: `\"{whole}\"`");
    match comment {
        Some(comment) => {
            let message = format!("`{word}` ends here: `{comment}` begins a comment");
            let help = format!("{help}; before a comment write a blank");
            Diagnostic::new("missing_quotes", place, message, "not in quotes").help(help)
        }
        None => {
            let message = format!("`{whole}` has a `/` and is not in quotes");
            Diagnostic::new("missing_quotes", place, message, "not in quotes").help(help)
        }
    }
}

/// Returns the mistake of a value that looks like a number, or counts as one, and is none here.
fn number_of(entry: &KdlEntry, part: Part<'_>) -> Option<Diagnostic> {
    let written = repr(entry);
    let fault = match entry.value() {
        KdlValue::Integer(_) | KdlValue::Float(_) => number_fault(&written)?,
        KdlValue::String(_) => word_fault(&written)?,
        _ => return None,
    };
    let span = entry.span();
    let start = (span.offset() + span.len()).saturating_sub(written.len());
    Some(fault.mistake(part.place(start, written.len())))
}

/// What is wrong with a word that is written without quotes.
struct Fault {
    message: String,
    label: &'static str,
    help: String,
}

impl Fault {
    fn mistake(self, place: Span) -> Diagnostic {
        Diagnostic::new("bad_number", place, self.message, self.label).help(self.help)
    }
}

/// `inf` and the like are neither numbers nor, without quotes, texts.
fn word_fault(word: &str) -> Option<Fault> {
    matches!(word, "inf" | "-inf" | "nan").then(|| Fault {
        message: format!("`{word}` is not a number"),
        label: "not a number, and not in quotes",
        help: format!("write a number; a text stands in quotes: `\"{word}\"`"),
    })
}

/// Returns what is wrong with a number; nothing where it is none, or is right.
fn number_fault(word: &str) -> Option<Fault> {
    if matches!(word, "#inf" | "#-inf" | "#nan") {
        return Some(Fault {
            message: format!("`{word}` is not a finite number"),
            label: "not a finite number",
            help: "write a number".into(),
        });
    }
    let body = word.strip_prefix(['+', '-']).unwrap_or(word);
    let first = body.strip_prefix('.').unwrap_or(body);
    if !first.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let fault = |help: String| {
        Some(Fault {
            message: format!("`{word}` is not a number"),
            label: "begins like a number",
            help,
        })
    };
    let quotes = format!("write it in quotes, if it is a text: `\"{word}\"`");
    let prefix = body.get(..2).unwrap_or_default();
    let lower = prefix.to_ascii_lowercase();
    if let Some(radix) = radix(&lower) {
        let digits: String = body[2..].chars().filter(|c| *c != '_').collect();
        let is_right = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        return match (is_right, prefix == lower) {
            (false, _) => fault(quotes),
            (true, false) => fault(format!("write `{}`", word.replacen(prefix, &lower, 1))),
            (true, true) if i128::from_str_radix(&digits, radix).is_err() => too_large(word),
            _ => None,
        };
    }
    if body.starts_with('.') {
        return match is_decimal(&format!("0{body}")) {
            true => fault(format!("write `{}`", word.replacen('.', "0.", 1))),
            false => fault(quotes),
        };
    }
    if !is_decimal(body) {
        return fault(quotes);
    }
    let plain: String = body.chars().filter(|c| *c != '_').collect();
    let is_whole = plain.chars().all(|c| c.is_ascii_digit());
    let fits = match is_whole {
        true => plain.parse::<i128>().is_ok(),
        false => plain.parse::<f64>().is_ok_and(f64::is_finite),
    };
    match fits {
        true => None,
        false => too_large(word),
    }
}

fn too_large(word: &str) -> Option<Fault> {
    let shown = match word.len() {
        0..=60 => format!("`{word}`"),
        len => format!("`{}…`, of {len} digits,", &word[..20]),
    };
    Some(Fault {
        message: format!("{shown} is too large for a number"),
        label: "too large",
        help: "write it in quotes, if it is a text".into(),
    })
}

fn radix(prefix: &str) -> Option<u32> {
    match prefix {
        "0x" => Some(16),
        "0o" => Some(8),
        "0b" => Some(2),
        _ => None,
    }
}

/// Returns whether this is a decimal number of KDL without a sign: `1_000`, `1.5`, `1e-3`.
fn is_decimal(body: &str) -> bool {
    let is_digits = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.chars().all(|c| c.is_ascii_digit() || c == '_')
    };
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (body, None),
    };
    let is_exponent = |text: &str| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    let is_mantissa = match mantissa.split_once('.') {
        Some((whole, rest)) => is_digits(whole) && is_digits(rest),
        None => is_digits(mantissa),
    };
    is_mantissa && exponent.is_none_or(is_exponent)
}

/// Returns the mistakes in a text that the parser refused.
///
/// Where a word without quotes is the cause, that is stated, and not what the parser made of it.
pub(crate) fn syntax(error: &KdlError, text: &str, file: u16) -> Vec<Diagnostic> {
    let part = Part {
        text,
        file,
        start: 0,
    };
    let mut found = words(part);
    // What a comment takes away is missed anywhere below.
    let is_comment = |m: &Diagnostic| m.message.ends_with("begins a comment");
    if found.iter().any(is_comment) {
        return found;
    }
    let causes: Vec<usize> = found.iter().map(|m| m.place.start as usize).collect();
    for diagnostic in &error.diagnostics {
        let start = diagnostic.span.offset().min(text.len());
        let end = (start + diagnostic.span.len()).min(text.len());
        let bytes = text.as_bytes();
        let first = bytes[..start].iter().rposition(|b| *b == b'\n');
        let first = first.map_or(0, |at| at + 1);
        let last = end + line(&bytes[end..]);
        if !causes.iter().any(|at| (first..=last).contains(at)) {
            found.push(refused(diagnostic, part));
        }
    }
    found
}

/// Returns the words without quotes that are wrong, in a text that may be anything.
fn words(part: Part<'_>) -> Vec<Diagnostic> {
    let text = part.text;
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut comments) = (0, 0usize);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_comment = comments > 0;
        at += match rest {
            [b'/', b'*', ..] => {
                comments += 1;
                2
            }
            [b'*', b'/', ..] if is_comment => {
                comments -= 1;
                2
            }
            _ if is_comment => 1,
            [b'/', b'/', ..] => line(rest),
            [b'"' | b'#', ..] => string(rest),
            _ => {
                let is_end = |c: char| c.is_whitespace() || "\\/(){};[]\"#=".contains(c);
                let word = text.get(at..).unwrap_or_default();
                let word = &word[..word.find(is_end).unwrap_or(word.len())];
                let before = at.checked_sub(1).map(|at| bytes[at]);
                // `/-` makes a comment of a node.
                let is_absolute = before == Some(b'/') && !word.starts_with('-');
                let has_slash = is_absolute || bytes.get(at + word.len()) == Some(&b'/');
                match word.len() {
                    0 => 1,
                    len if before == Some(b'#') => len,
                    len if has_slash => {
                        let start = at - usize::from(is_absolute);
                        let mistake = slash(part, start, at + len - start);
                        let end = start + mistake.place.len as usize;
                        found.push(mistake);
                        end - at
                    }
                    len => {
                        let fault = number_fault(word).or_else(|| word_fault(word));
                        found.extend(fault.map(|f| f.mistake(part.place(at, len))));
                        len
                    }
                }
            }
        };
    }
    found
}

/// Returns the length of the line that begins here, without its end.
pub(crate) fn line(rest: &[u8]) -> usize {
    let end = rest.iter().position(|b| *b == b'\n');
    end.unwrap_or(rest.len())
}

/// Returns the length of the string that begins here: quoted, raw, of one or more lines.
/// One that never ends is one byte: the parser stops there, or reads it otherwise.
pub(crate) fn string(rest: &[u8]) -> usize {
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    let quotes = rest[hashes..].iter().take_while(|b| **b == b'"').count();
    let quotes = match quotes {
        0 => return hashes,
        // Nothing in between.
        2 if rest[hashes + 2..].starts_with(&vec![b'#'; hashes]) => return 2 * hashes + 2,
        1 | 2 => 1,
        _ => 3,
    };
    let close = [&b"\"\"\""[..quotes], &vec![b'#'; hashes]].concat();
    let mut at = hashes + quotes;
    while at < rest.len() {
        match rest[at] {
            b'\\' if hashes == 0 => at += 2,
            // Other strings end with their line; only this one goes on.
            b'\n' if quotes == 1 => break,
            _ if rest[at..].starts_with(&close) => return at + close.len(),
            _ => at += 1,
        }
    }
    1
}

/// Returns a diagnostic of the `kdl` crate in the project's form.
fn refused(diagnostic: &KdlDiagnostic, part: Part<'_>) -> Diagnostic {
    let text = part.text;
    let end = (diagnostic.span.offset() + diagnostic.span.len()).min(text.len());
    let mut start = diagnostic.span.offset().min(end);
    // A span over several lines hides the place: what went wrong is at its end.
    let spanned = text.get(start..end).unwrap_or_default();
    let kept = spanned.trim_end();
    if let Some(newline) = kept.rfind('\n') {
        start += newline + 1;
        start += text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len();
    }
    let end = start.max(diagnostic.span.offset().min(end) + kept.len());
    let spanned = text.get(start..end).unwrap_or_default();
    let place = part.place(start, end - start);
    let message = diagnostic.message.as_deref().unwrap_or("not valid KDL");
    let label = diagnostic.label.as_deref().unwrap_or("here");
    let mistake = Diagnostic::new("syntax", place, lower_first(message), label);
    match (&diagnostic.help, spanned.trim()) {
        (_, word @ ("true" | "false" | "null")) => mistake.help(format!("write `#{word}`")),
        (Some(help), _) => mistake.help(lower_first(help)),
        (None, _) => mistake,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the messages for a text, with what is marked and the help.
    fn told(text: &str) -> Vec<String> {
        let part = Part {
            text,
            file: 0,
            start: 0,
        };
        let found = match KdlDocument::parse_v2(text) {
            Ok(document) => check(&document, part),
            Err(error) => syntax(&error, text, 0),
        };
        let shown = |m: &Diagnostic| {
            let (start, len) = (m.place.start as usize, m.place.len as usize);
            let help = m.help.as_deref().unwrap_or("-");
            format!("{} @{} ({help})", m.message, &text[start..start + len])
        };
        found.iter().map(shown).collect()
    }

    #[test]
    fn a_comment_right_behind_a_bare_word_is_no_comment() {
        for (text, expected) in [
            ("verify http=https://e.org/ status=200", "@https://e.org/ "),
            ("secret file=(x)https://e.org/", "@https://e.org/ "),
            ("use a//b", "@a//b "),
            ("target x//y\n", "@x//y "),
            ("inputs src/**/*.py", "@src/**/*.py "),
            ("a { b { inputs src/**/*.py; } }", "@src/**/*.py "),
            ("pool p depth=1//2", "@1//2 "),
            ("a #true//x", "@#true//x "),
            ("a b//*c", "@b//*c "),
            ("a b/*c*/=1", "@b/*c*/=1 "),
            // What it takes away is no second mistake.
            (
                "a http=https://e.org/ {\n b\n}\nc { d; }",
                "@https://e.org/ ",
            ),
            ("inputs src/*.py; run \"x\"\nd", "@src/*.py "),
        ] {
            let told = told(text);
            assert_eq!(told.len(), 1, "{text}: {told:?}");
            let is_it = told[0].contains(expected) && told[0].contains("begins a comment");
            assert!(is_it, "{text}: {told:?}");
        }
        for text in [
            "a b // c",
            "a \"b\"//c",
            "a #\"b\"#/*c*/",
            "a b=\"https://e.org/\"//c",
            "a b;//c",
            "a { b; }//c",
            "/* a//b */ c",
            "// a//b\nc",
            "/- a b//c\nd",
            "a \"\"\"\n  b//c\n  \"\"\" d",
            "a b /* c */ d",
        ] {
            assert_eq!(told(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_property_is_given_once() {
        let told_twice = told("a b=1 c=2 b=3 { d e=1 \"e\"=1; }");
        assert_eq!(
            told_twice,
            [
                "`b` is given twice in `a` @b (-)",
                "`e` is given twice in `d` @\"e\" (-)"
            ]
        );
        assert_eq!(told("a b=1 { c b=1; }\na b=1"), Vec::<String>::new());
    }

    #[test]
    fn numbers_that_are_none_have_words_of_their_own() {
        for (word, expected) in [
            ("0XFF", "`0XFF` is not a number @0XFF (write `0xFF`)"),
            ("-0XFF", "`-0XFF` is not a number @-0XFF (write `-0xFF`)"),
            ("0B10", "`0B10` is not a number @0B10 (write `0b10`)"),
            (".5", "`.5` is not a number @.5 (write `0.5`)"),
            (
                "5s",
                "`5s` is not a number @5s (write it in quotes, if it is a text: `\"5s\"`)",
            ),
            ("0o9", "`0o9` is not a number @0o9 (write it in quotes"),
            ("0x", "`0x` is not a number @0x (write it in quotes"),
            (
                "10.0.0.1",
                "`10.0.0.1` is not a number @10.0.0.1 (write it in quotes",
            ),
            ("-inf", "`-inf` is not a number @-inf (write a number"),
            ("inf", "`inf` is not a number @inf (write a number"),
            ("nan", "`nan` is not a number @nan (write a number"),
            (
                "#inf",
                "`#inf` is not a finite number @#inf (write a number",
            ),
            (
                "#-inf",
                "`#-inf` is not a finite number @#-inf (write a number",
            ),
            (
                "#nan",
                "`#nan` is not a finite number @#nan (write a number",
            ),
            ("1e999", "`1e999` is too large for a number @1e999 ("),
            ("-1e999", "`-1e999` is too large for a number @-1e999 ("),
            (
                "340282366920938463463374607431768211456",
                "`340282366920938463463374607431768211456` is too large for a number @",
            ),
            (
                "0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
                "`0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF` is too large for a number @",
            ),
            ("/etc", "`/etc` has a `/` and is not in quotes @/etc ("),
            (
                "/etc/a",
                "`/etc/a` has a `/` and is not in quotes @/etc/a (",
            ),
            (
                "src/main.c",
                "`src/main.c` has a `/` and is not in quotes @src/main.c (",
            ),
        ] {
            for text in [format!("a b={word}\nc"), format!("a {word} b {{ c; }}")] {
                let told = told(&text);
                assert_eq!(told.len(), 1, "{text}: {told:?}");
                assert!(told[0].starts_with(expected), "{text}: {told:?}");
            }
        }
        for word in [
            "1", "-1", "+1", "1_000", "1.5e-3", "0xFF", "0o17", "0b1_0", "\"-inf\"", "x5s",
        ] {
            assert_eq!(
                told(&format!("a {word} b={word}")),
                Vec::<String>::new(),
                "{word}"
            );
        }
        let long = told(&format!("a {}", "9".repeat(1000)));
        assert_eq!(long.len(), 1);
        assert!(
            long[0].contains("`99999999999999999999…`, of 1000 digits, is too large"),
            "{long:?}"
        );
    }
}
