//! Text from outside, made safe for a terminal.
//!
//! A terminal obeys control characters: they move the cursor, erase lines, rename the window,
//! answer as if a person typed. Characters that turn the direction of text, or have no width,
//! make a text look like another one. Here they become visible escapes such as `\u{1b}`.
//!
//! [`line()`] is for names and messages, [`output`] for a line that a command printed (its colours
//! may stay), [`json`] for JSON, and [`crate::core::fs::shown`] for file names, which need not be UTF-8.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Ends all colours.
pub const RESET: &str = "\u{1b}[0m";

/// Returns whether a terminal, or the eye of a reader, would be misled by this character.
///
/// Variation selectors and combining characters are not among them: they belong to what is read.
pub fn is_unsafe(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // C0, DEL and C1.
        c if c.is_control() => true,
        // Without width: soft hyphen, Mongolian vowel separator, zero-width space and joiners,
        // word joiner and invisible operators, byte order mark.
        '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => {
            true
        }
        // Direction: marks, embeddings, overrides, isolates, and deprecated shaping.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            true
        }
        // Line and paragraph separators, annotations, tags.
        '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Returns a text of one line: a line end in it is escaped as well, a tab stays.
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c != '\t' && is_unsafe(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    push(&mut out, text);
    Cow::Owned(out)
}

/// Appends `text` as [`line()`] returns it.
fn push(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            c if c != '\t' && is_unsafe(c) => push_escaped(out, c),
            c => out.push(c),
        }
    }
}

/// Appends an unsafe character as `char::escape_default` writes it, without its iterator: a host
/// can print hundreds of megabytes of them.
fn push_escaped(out: &mut String, c: char) {
    match c {
        '\0' => out.push_str("\\u{0}"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        c => {
            const DIGITS: &str = "0123456789abcdef";
            let code = u32::from(c);
            let count = (u32::BITS - code.leading_zeros()).div_ceil(4).max(1);
            out.push_str("\\u{");
            for place in (0..count).rev() {
                let digit = (code >> (4 * place)) as usize % 16;
                out.push_str(&DIGITS[digit..=digit]);
            }
            out.push('}');
        }
    }
}

/// Returns a line that a command printed. Its colours (SGR, `ESC [ numbers m`) stay where
/// `has_colours`, and end with the line; else they are left out. All else is escaped, the SGR
/// that hides text as well.
pub fn output(line: &str, has_colours: bool) -> String {
    let mut out = String::with_capacity(line.len());
    let mut is_coloured = false;
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        push(&mut out, before);
        let is_number = |c: char| c.is_ascii_digit() || c == ';' || c == ':';
        let behind = after.trim_start_matches(is_number);
        match behind.strip_prefix('m') {
            Some(behind) if !hides(&after[..after.len() - behind.len() - 1]) => {
                if has_colours {
                    let colour = &rest[before.len()..rest.len() - behind.len()];
                    is_coloured = !matches!(colour, "\u{1b}[m" | RESET);
                    out.push_str(colour);
                }
                rest = behind;
            }
            _ => {
                push(&mut out, "\u{1b}[");
                rest = after;
            }
        }
    }
    push(&mut out, rest);
    if is_coloured {
        out.push_str(RESET);
    }
    out
}

/// Returns whether the numbers of an SGR hide what follows: number 8, where that is no part of a
/// colour (`38;5;8`).
fn hides(numbers: &str) -> bool {
    let numbers = numbers.split([';', ':']);
    let mut numbers = numbers.map(|n| n.parse().unwrap_or(0_u32));
    while let Some(number) = numbers.next() {
        let kind = match number {
            8 => return true,
            38 | 48 | 58 => numbers.next(),
            _ => None,
        };
        let parts = match kind {
            Some(2) => 3,
            Some(5) => 1,
            _ => 0,
        };
        for _ in 0..parts {
            numbers.next();
        }
    }
    false
}

/// Returns JSON without a character that a terminal would obey: the writer of JSON escapes C0
/// alone. Such characters stand only within strings, where an escape means the same.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_raw = |c: char| c != '\n' && is_unsafe(c);
    if !text.chars().any(is_raw) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut units = [0; 2];
    for c in text.chars() {
        match is_raw(c) {
            false => out.push(c),
            true => {
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_escaped_as_the_standard_library_does() {
        for c in (0..=0x10_ffff)
            .filter_map(char::from_u32)
            .filter(|c| is_unsafe(*c))
        {
            let mut out = String::new();
            push_escaped(&mut out, c);
            // It gives tabs a name, which stay as they are here.
            if c != '\t' {
                assert_eq!(out, c.escape_default().to_string());
            }
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        for (text, expected) in [
            ("a\tb", "a\tb"),
            ("a\nerror: b", "a\\nerror: b"),
            (
                "\u{1b}[2J\u{7}\r\u{8}\u{7f}\0",
                "\\u{1b}[2J\\u{7}\\r\\u{8}\\u{7f}\\u{0}",
            ),
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            (
                "\u{202e}txt\u{2069}\u{200f}",
                "\\u{202e}txt\\u{2069}\\u{200f}",
            ),
            ("a\u{200b}b\u{feff}\u{ad}", "a\\u{200b}b\\u{feff}\\u{ad}"),
            ("\u{e0041}", "\\u{e0041}"),
            // What people write stays.
            (
                "grün ελ 漢字 e\u{301} ✔\u{fe0f}",
                "grün ελ 漢字 e\u{301} ✔\u{fe0f}",
            ),
        ] {
            assert_eq!(line(text), expected);
            assert_eq!(output(text, true), expected);
        }
    }

    #[test]
    fn colours_of_a_command_stay_where_colours_are_and_end_with_the_line() {
        for (text, with, without) in [
            ("\u{1b}[1;31mred", "\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}[31mred\u{1b}[m", "\u{1b}[31mred\u{1b}[m", "red"),
            ("\u{1b}[8mx", "\\u{1b}[8mx", ""),
            ("\u{1b}[1;08mx", "\\u{1b}[1;08mx", ""),
            ("\u{1b}[38;5;8mx", "\u{1b}[38;5;8mx\u{1b}[0m", "x"),
            ("\u{1b}[48;2;8;8;8mx", "\u{1b}[48;2;8;8;8mx\u{1b}[0m", "x"),
            ("\u{1b}[38;2;1;1;1;8mx", "\\u{1b}[38;2;1;1;1;8mx", ""),
            ("\u{1b}[38:5:9mx\u{1b}[0m", "\u{1b}[38:5:9mx\u{1b}[0m", "x"),
            (
                "\u{1b}[2K\u{1b}[?25l\u{1b}[1;2H",
                "\\u{1b}[2K\\u{1b}[?25l\\u{1b}[1;2H",
                "",
            ),
            (
                "\u{1b}[\u{1b}[31m",
                "\\u{1b}[\u{1b}[31m\u{1b}[0m",
                "\\u{1b}[",
            ),
            ("\u{1b}]0;t\u{7}\u{1b}[", "\\u{1b}]0;t\\u{7}\\u{1b}[", ""),
            ("\u{9b}31m", "\\u{9b}31m", ""),
        ] {
            let without = if without.is_empty() { with } else { without };
            assert_eq!(output(text, true), with);
            assert_eq!(output(text, false), without);
        }
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({
            "a\u{9b}": "\u{1b}[2J \u{7f} \u{202e} \u{e0041} \n",
        });
        let text = format!("{value:#}");
        let safe = json(&text);
        assert!(safe.chars().all(|c| c == '\n' || !is_unsafe(c)), "{safe}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).ok(),
            Some(value)
        );
    }
}
