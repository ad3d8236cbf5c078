//! Text that can be sent to a terminal: the one type that the screen writes.
//!
//! Whatever becomes part of a [`Text`] is escaped on the way in ([`crate::core::escape`]): names and
//! messages as one line, so that none of them can begin a line of its own. What is not escaped is
//! made here: styles, and line ends. So a new surface cannot forget it: there is no other way from
//! a string to the terminal.

use std::fmt;
use std::ops::{Add, AddAssign};

use anstyle::Style;

use crate::core::escape;

/// Goes to the start of the line and removes what stands there (ECMA-48, EL 2).
pub(super) const CLEAR_LINE: &str = "\r\x1b[2K";

/// Text that can be sent to a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Returns an empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns one line of text in a style.
    pub fn styled(style: Style, text: &str) -> Self {
        Self(format!("{style}{}{style:#}", escape::line(text)))
    }

    /// Returns a text of several lines, without styles. Only for texts whose line ends are not
    /// those of a name or a value in them.
    pub fn lines(text: &str) -> Self {
        let lines = text.split('\n').map(escape::line);
        Self(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Returns lines as a command printed them, or as a renderer drew them that had escaped
    /// names: colours stay where `has_colours`.
    pub fn printed(text: &str, has_colours: bool) -> Self {
        let lines = text.split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
        let lines = lines.map(|line| escape::output(line, has_colours));
        Self(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Returns JSON, indented, with its line end.
    pub fn json(value: &serde_json::Value) -> Self {
        Self(escape::json(&format!("{value:#}\n")).into_owned())
    }

    /// Returns JSON in one line, with its line end.
    pub fn json_line(value: &serde_json::Value) -> Self {
        Self(escape::json(&format!("{value}\n")).into_owned())
    }

    /// Returns a string of JSON.
    pub fn json_string(text: &str) -> Self {
        Self(escape::json(&serde_json::Value::from(text).to_string()).into_owned())
    }

    /// Returns a part of a string of JSON, without quotes.
    pub fn in_json_string(text: &str) -> Self {
        let Self(quoted) = Self::json_string(text);
        Self(quoted[1..quoted.len() - 1].to_owned())
    }

    /// Appends a text and ends the line.
    pub fn line(&mut self, text: impl Into<Self>) {
        *self += text;
        self.0.push('\n');
    }

    /// Returns it without blanks at its end.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        self.0.truncate(self.0.trim_end_matches(' ').len());
        self
    }

    /// Returns whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(escape::line(text).into_owned())
    }
}

impl From<&String> for Text {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<fmt::Arguments<'_>> for Text {
    fn from(text: fmt::Arguments<'_>) -> Self {
        Self::from(text.to_string())
    }
}

impl<T: Into<Text>> AddAssign<T> for Text {
    fn add_assign(&mut self, text: T) {
        self.0.push_str(&text.into().0);
    }
}

impl<T: Into<Text>> Add<T> for Text {
    type Output = Self;

    fn add(mut self, text: T) -> Self {
        self += text;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_one_line_without_controls() {
        let bad = "a\nerror: b\u{1b}[2J";
        let mut text = Text::new();
        text.line(Text::styled(crate::cli::ui::NAME, bad) + "  " + bad + &bad.to_owned());
        text.line(format_args!("{bad:>20}"));
        let shown = "a\\nerror: b\\u{1b}[2J";
        let expected = format!("\u{1b}[36m{shown}\u{1b}[0m  {shown}{shown}\n      {shown}\n");
        assert_eq!(text.as_str(), expected);
    }

    #[test]
    fn only_line_ends_of_lines_stay() {
        assert_eq!(Text::lines("a\r\nb\u{1b}c\n").as_str(), "a\\r\nb\\u{1b}c\n");
        let printed = "\u{1b}[31ma\nb\u{1b}[2J\n";
        let with = "\u{1b}[31ma\u{1b}[0m\nb\\u{1b}[2J\n";
        assert_eq!(Text::printed(printed, true).as_str(), with);
        assert_eq!(Text::printed(printed, false).as_str(), "a\nb\\u{1b}[2J\n");
    }
}
