//! `{name}` interpolation that can never turn a value into shell syntax.
//!
//! A template is parsed once into pieces. In shell text the parser follows the
//! quotes, so that each placeholder knows whether it stands bare, in double or in
//! single quotes, and its value is escaped for exactly that context. Where no
//! escape is safe (back-quotes, `${…}`, here-documents, comments) a placeholder is
//! refused, and so is every one behind a text that shells read differently. `{{` and
//! `}}` are braces.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

mod parse;

/// What a name stands for: one word, or a list of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Exactly one word, possibly empty.
    One(OsString),
    /// Any number of words: spliced where it stands alone and bare.
    Many(Vec<OsString>),
    /// A path, or a part of one. A word that begins with it is never an option: in front of a
    /// leading `-` stands `./`.
    Path(OsString),
}

impl Value {
    /// Returns how long it is in bytes, with a blank between words.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(word) | Self::Path(word) => word.len(),
            Self::Many(words) => words.iter().map(|word| word.len() + 1).sum(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::One(text.into())
    }
}

/// The longest text that a template may become, in bytes: values made of values double
/// with each step, and no command could carry more.
pub const LENGTH_MAX: usize = 1 << 20;

/// How the text of a template will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As a plain string: a path, a URL, one argument. Nothing is quoted.
    Plain,
    /// By a POSIX shell. Values are quoted.
    Shell,
}

/// Quoting in force where a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Quote {
    Plain,
    Bare,
    Double,
    Single,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Piece {
    Text(OsString),
    Name {
        name: String,
        quote: Quote,
        start: Start,
    },
}

/// What stands before a placeholder in its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Start {
    /// Nothing: the word begins with it.
    Word,
    /// Other placeholders: the word begins with it if these stand for nothing.
    Names,
    /// Text.
    Inside,
}

/// Tells which values begin a word, while the pieces of a template are gone through.
#[derive(Default)]
struct Starts {
    /// Whether the word is empty so far.
    is_empty: bool,
}

impl Starts {
    /// Returns a value as it has to stand in its word; `None` is not known yet.
    fn placed(&mut self, start: Start, value: Option<Value>) -> Option<Value> {
        let is_start = match start {
            Start::Word => true,
            Start::Names => self.is_empty,
            Start::Inside => false,
        };
        let is_nothing = match &value {
            None => false,
            Some(Value::One(word) | Value::Path(word)) => word.is_empty(),
            Some(Value::Many(words)) => words.iter().all(|word| word.is_empty()),
        };
        self.is_empty = is_start && is_nothing;
        match value? {
            Value::Path(path) if is_start && path.as_bytes().starts_with(b"-") => {
                let mut safe = OsString::from("./");
                safe.push(path);
                Some(Value::Path(safe))
            }
            value => Some(value),
        }
    }
}

/// Text with `{name}` placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// Why a text is not a template, or cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A `{` without its `}`.
    Unclosed,
    /// What stands between the braces is not a name.
    NotAName(String),
    /// The name stands where no quoting is safe; the second part says where.
    Unquotable(String, &'static str),
    /// No such name.
    Unknown(String),
    /// A list stands inside quotes or inside a word, and has not exactly one element.
    ListInWord(String, usize),
    /// A value has a NUL byte, which no argument can carry.
    Nul(String),
    /// The text grows longer than [`LENGTH_MAX`].
    TooLong,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => write!(f, "`{{` is never closed"),
            Self::NotAName(text) => write!(f, "`{{{text}}}` is not a name"),
            Self::Unquotable(name, place) => {
                write!(
                    f,
                    "`{{{name}}}` stands in {place}, where no value can be quoted safely"
                )
            }
            Self::Unknown(name) => write!(f, "`{{{name}}}` is not known here"),
            Self::ListInWord(name, count) => {
                write!(
                    f,
                    "`{{{name}}}` has {count} values, but stands where one word must be"
                )
            }
            Self::Nul(name) => write!(f, "the value of `{{{name}}}` has a NUL byte"),
            Self::TooLong => write!(f, "the value is longer than 1 MiB"),
        }
    }
}

impl TemplateError {
    /// Returns one thing to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unclosed | Self::NotAName(_) => "write `{{` and `}}` for literal braces",
            Self::Unquotable(_, place) if *place == AFTER_DOLLAR => {
                "leave out the dollar sign: `{name}` is a value of `rel`; for the shell write `${{name}}`"
            }
            Self::Unquotable(..) => {
                "set an environment variable with `env NAME=\"{name}\"` and use `\"$NAME\"` there"
            }
            Self::Unknown(_) => "declare it with `var`, or write `{{` for a literal brace",
            Self::ListInWord(..) => "let it stand alone, outside of quotes",
            Self::Nul(_) => "remove the NUL byte",
            Self::TooLong => "let it stand in a file",
        }
    }
}

impl Template {
    /// Parses `text`; in shell mode the quoting context of each placeholder is found.
    pub fn parse(text: &str, mode: Mode) -> Result<Self, TemplateError> {
        parse::Parser::new(text, mode).run()
    }

    /// Returns a template without placeholders; `text` is taken as it is.
    pub fn literal(text: impl Into<OsString>) -> Self {
        Self {
            pieces: vec![Piece::Text(text.into())],
        }
    }

    /// Returns it below a line of text, which is taken as it is.
    pub fn below(mut self, line: &str) -> Self {
        let line = line.replace('\n', " ") + "\n";
        self.pieces.insert(0, Piece::Text(line.into()));
        self
    }

    /// Returns the names used, in order, with repetitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Name { name, .. } => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Returns the only name, when the whole template is one placeholder.
    pub fn only_name(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Name { name, .. }] => Some(name),
            _ => None,
        }
    }

    /// Replaces the names that `scope` knows and keeps the others for later.
    pub fn bind(&self, scope: &dyn Fn(&str) -> Option<Value>) -> Result<Self, TemplateError> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(self.pieces.len());
        let mut len = 0;
        let mut starts = Starts::default();
        for piece in &self.pieces {
            let piece = match piece {
                Piece::Name { name, quote, start } => match starts.placed(*start, scope(name)) {
                    Some(value) => {
                        let text = quoted(name, &value, *quote)?;
                        len += text.len();
                        limited(len)?;
                        Piece::Text(text)
                    }
                    None => piece.clone(),
                },
                Piece::Text(_) => piece.clone(),
            };
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(last)), Piece::Text(more)) => last.push(more),
                (_, piece) => pieces.push(piece),
            }
        }
        Ok(Self { pieces })
    }

    /// Returns the text with every name replaced.
    pub fn render(&self, scope: &dyn Fn(&str) -> Option<Value>) -> Result<OsString, TemplateError> {
        let mut out = OsString::new();
        let mut starts = Starts::default();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push(text),
                Piece::Name { name, quote, start } => {
                    let value = starts.placed(*start, scope(name));
                    let value = value.ok_or_else(|| TemplateError::Unknown(name.clone()))?;
                    out.push(quoted(name, &value, *quote)?);
                    limited(out.len())?;
                }
            }
        }
        Ok(out)
    }

    /// Returns the words it stands for: a list that stands alone is spliced.
    pub fn render_words(
        &self,
        scope: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<Vec<OsString>, TemplateError> {
        if let Some(name) = self.only_name()
            && let Some(Value::Many(words)) = scope(name)
        {
            return Ok(words);
        }
        Ok(vec![self.render(scope)?])
    }

    /// Returns the text as it was written, placeholders and all, for people.
    pub fn source(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.to_string_lossy().into_owned(),
                Piece::Name { name, .. } => format!("{{{name}}}"),
            })
            .collect()
    }
}

/// Where a placeholder looks like a parameter of the shell.
const AFTER_DOLLAR: &str = "a word after a dollar sign";

/// Shells that read quotes as POSIX says.
const POSIX: &[&str] = &[
    "sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "yash", "zsh",
];

/// Returns whether scripts for this `shell`, a program with its options, are read as values are
/// quoted.
pub fn is_posix(shell: &[String]) -> bool {
    let is_before = |word: &str| {
        word.starts_with('-') || word.contains('=') || matches!(word, "env" | "busybox")
    };
    let mut names = shell.iter().map(|w| w.rsplit('/').next().unwrap_or(w));
    let program = names.find(|word| !is_before(word));
    program.is_none_or(|program| POSIX.contains(&program))
}

/// Returns `word` in single quotes, as a POSIX shell reads it back unchanged.
pub fn shell_quote(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(b);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return word.to_owned();
    }
    let mut out = vec![b'\''];
    out.extend(escaped_in_single(bytes));
    out.push(b'\'');
    OsString::from_vec(out)
}

fn escaped_in_single(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'\'' => out.extend(b"'\\''"),
            _ => out.push(b),
        }
    }
    out
}

/// Returns the value for the place it stands in. Bare values are always put into
/// quotes, even plain ones: `{n}` next to digits must not become a redirection.
fn quoted(name: &str, value: &Value, quote: Quote) -> Result<OsString, TemplateError> {
    let one = |words: &[OsString]| match words {
        [word] => Ok(word.clone()),
        _ => Err(TemplateError::ListInWord(name.to_owned(), words.len())),
    };
    let word = match (value, quote) {
        (Value::Many(words), Quote::Bare) => {
            let quoted: Vec<OsString> = words.iter().map(|w| always_quoted(w)).collect();
            no_nul(name, words)?;
            return Ok(quoted.join(OsStr::new(" ")));
        }
        (Value::Many(words), _) => one(words)?,
        (Value::One(word) | Value::Path(word), _) => word.clone(),
    };
    no_nul(name, std::slice::from_ref(&word))?;
    let bytes = word.as_bytes();
    Ok(match quote {
        Quote::Plain => word,
        Quote::Bare => always_quoted(&word),
        Quote::Single => OsString::from_vec(escaped_in_single(bytes)),
        Quote::Double => {
            let mut out = Vec::with_capacity(bytes.len());
            for &b in bytes {
                if b"\\\"$`".contains(&b) {
                    out.push(b'\\');
                }
                out.push(b);
            }
            OsString::from_vec(out)
        }
    })
}

fn always_quoted(word: &OsStr) -> OsString {
    let mut out = vec![b'\''];
    out.extend(escaped_in_single(word.as_bytes()));
    out.push(b'\'');
    OsString::from_vec(out)
}

fn limited(len: usize) -> Result<(), TemplateError> {
    match len > LENGTH_MAX {
        true => Err(TemplateError::TooLong),
        false => Ok(()),
    }
}

fn no_nul(name: &str, words: &[OsString]) -> Result<(), TemplateError> {
    match words.iter().any(|w| w.as_bytes().contains(&0)) {
        true => Err(TemplateError::Nul(name.to_owned())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
