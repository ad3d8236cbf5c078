//! `{name}` interpolation that can never turn a value into shell syntax.
//!
//! A template is parsed once into pieces. In shell text the parser follows the
//! quotes, so that each placeholder knows whether it stands bare, in double or in
//! single quotes, and its value is escaped for exactly that context. Where no
//! escape is safe (back-quotes, `${…}`, here-documents, comments) a placeholder is
//! refused. `{{` and `}}` are braces.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

/// What a name stands for: one word, or a list of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Exactly one word, possibly empty.
    One(OsString),
    /// Any number of words: spliced where it stands alone and bare.
    Many(Vec<OsString>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::One(text.into())
    }
}

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
    Name { name: String, quote: Quote },
}

/// Text with `{name}` placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// Why a text is not a template, or can not be rendered.
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
        }
    }
}

impl TemplateError {
    /// Returns one thing to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unclosed | Self::NotAName(_) => "write `{{` and `}}` for literal braces",
            Self::Unquotable(..) => {
                "set an environment variable with `env NAME=\"{name}\"` and use `\"$NAME\"` there"
            }
            Self::Unknown(_) => "declare it with `var`, or write `{{` for a literal brace",
            Self::ListInWord(..) => "let it stand alone, outside of quotes",
            Self::Nul(_) => "remove the NUL byte",
        }
    }
}

impl Template {
    /// Parses `text`; in shell mode the quoting context of each placeholder is found.
    pub fn parse(text: &str, mode: Mode) -> Result<Self, TemplateError> {
        Parser::new(text, mode).run()
    }

    /// Returns a template without placeholders; `text` is taken as it is.
    pub fn literal(text: impl Into<OsString>) -> Self {
        Self {
            pieces: vec![Piece::Text(text.into())],
        }
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
        for piece in &self.pieces {
            let piece = match piece {
                Piece::Name { name, quote } => match scope(name) {
                    Some(value) => Piece::Text(quoted(name, &value, *quote)?),
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
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push(text),
                Piece::Name { name, quote } => {
                    let value = scope(name).ok_or_else(|| TemplateError::Unknown(name.clone()))?;
                    out.push(quoted(name, &value, *quote)?);
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
        (Value::One(word), _) => word.clone(),
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

fn no_nul(name: &str, words: &[OsString]) -> Result<(), TemplateError> {
    match words.iter().any(|w| w.as_bytes().contains(&0)) {
        true => Err(TemplateError::Nul(name.to_owned())),
        false => Ok(()),
    }
}

/// Where in shell text the parser is. Nested constructs are kept on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Outside of quotes, at the top or inside `$( … )` and `( … )`.
    Bare,
    Double,
    Single,
    Back,
    /// `${ … }`.
    Parameter,
    /// `$(( … ))`.
    Arithmetic,
    Comment,
    /// Everything after `<<`: the text of a here-document is not followed.
    HereDocument,
}

struct Parser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    mode: Mode,
    stack: Vec<Context>,
    pieces: Vec<Piece>,
    text: String,
    /// The last character of shell text, to tell `# comment` from `a#b`.
    last: char,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, mode: Mode) -> Self {
        Self {
            chars: text.chars().peekable(),
            mode,
            stack: vec![Context::Bare],
            pieces: Vec::new(),
            text: String::new(),
            last: ' ',
        }
    }

    fn run(mut self) -> Result<Template, TemplateError> {
        while let Some(c) = self.chars.next() {
            match c {
                '{' if self.chars.next_if_eq(&'{').is_some() => self.literal('{'),
                '}' if self.chars.next_if_eq(&'}').is_some() => self.literal('}'),
                '{' => self.placeholder()?,
                _ => self.literal(c),
            }
        }
        self.flush();
        Ok(Template {
            pieces: self.pieces,
        })
    }

    fn placeholder(&mut self) -> Result<(), TemplateError> {
        let mut name = String::new();
        loop {
            match self.chars.next() {
                Some('}') => break,
                Some(c) => name.push(c),
                None => return Err(TemplateError::Unclosed),
            }
        }
        if !is_name(&name) {
            return Err(TemplateError::NotAName(name));
        }
        let quote = self.quote_here(&name)?;
        self.flush();
        self.pieces.push(Piece::Name { name, quote });
        self.last = 'x';
        Ok(())
    }

    fn quote_here(&self, name: &str) -> Result<Quote, TemplateError> {
        if self.mode == Mode::Plain {
            return Ok(Quote::Plain);
        }
        let refuse = |place| Err(TemplateError::Unquotable(name.to_owned(), place));
        if self.stack.contains(&Context::Back) {
            return refuse("back-quotes");
        }
        match self.context() {
            Context::Bare if self.last == '\\' => refuse("a word after a backslash"),
            Context::Bare if self.last == '$' => refuse("a word after a dollar sign"),
            Context::Bare => Ok(Quote::Bare),
            Context::Double if self.last == '$' => refuse("a word after a dollar sign"),
            Context::Double => Ok(Quote::Double),
            Context::Single => Ok(Quote::Single),
            Context::Back => refuse("back-quotes"),
            Context::Parameter => refuse("`${…}`"),
            Context::Arithmetic => refuse("`$((…))`"),
            Context::Comment => refuse("a comment"),
            Context::HereDocument => refuse("a here-document"),
        }
    }

    fn context(&self) -> Context {
        self.stack.last().copied().unwrap_or(Context::Bare)
    }

    /// Takes one character of text and follows the shell's quoting.
    fn literal(&mut self, c: char) {
        self.text.push(c);
        if self.mode == Mode::Shell {
            self.follow(c);
        }
    }

    fn follow(&mut self, c: char) {
        let context = self.context();
        if c == '\\' && !matches!(context, Context::Single | Context::Comment) {
            // The next character is taken as it is, unless a placeholder stands there,
            // which `quote_here` refuses.
            self.last = '\\';
            if let Some(next) = self.chars.next_if(|c| !matches!(c, '{' | '}')) {
                self.text.push(next);
                self.last = 'x';
            }
            return;
        }
        match (context, c) {
            (Context::Single, '\'') | (Context::Double, '"') | (Context::Back, '`') => self.pop(),
            (Context::Single, _) | (Context::HereDocument, _) => {}
            (Context::Comment, '\n') => self.pop(),
            (Context::Comment, _) => {}
            (Context::Bare | Context::Parameter, '\'') => self.stack.push(Context::Single),
            (Context::Bare | Context::Parameter | Context::Arithmetic, '"') => {
                self.stack.push(Context::Double);
            }
            (_, '`') => self.stack.push(Context::Back),
            (_, '$') => self.dollar(),
            (Context::Parameter, '}') => self.pop(),
            (Context::Bare, '#') if self.last.is_whitespace() || ";&|()".contains(self.last) => {
                self.stack.push(Context::Comment);
            }
            (Context::Bare, '<') if self.last == '<' => self.stack.push(Context::HereDocument),
            (Context::Bare | Context::Arithmetic, '(') => self.stack.push(context),
            (Context::Bare | Context::Arithmetic, ')') => self.pop(),
            _ => {}
        }
        self.last = c;
    }

    /// After `$`: `$(`, `$((` and `${` (written `${{`) open a construct.
    fn dollar(&mut self) {
        match self.chars.peek() {
            Some('(') => {
                self.chars.next();
                self.text.push('(');
                if self.chars.next_if_eq(&'(').is_some() {
                    self.text.push('(');
                    // Two levels, closed by the two `)`.
                    self.stack.push(Context::Arithmetic);
                    self.stack.push(Context::Arithmetic);
                } else {
                    self.stack.push(Context::Bare);
                }
            }
            Some('{') => {
                let mut ahead = self.chars.clone();
                ahead.next();
                if ahead.peek() == Some(&'{') {
                    self.chars.next();
                    self.chars.next();
                    self.text.push('{');
                    self.stack.push(Context::Parameter);
                }
            }
            _ => {}
        }
    }

    /// Leaves a construct; the bottom one stays, so that a stray `)` is harmless.
    fn pop(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.pieces.push(Piece::Text(text.into()));
        }
    }
}

/// Returns whether `text` can stand between braces: `wheel`, `image.stem`,
/// `host.root`, `wheel[branch2]`.
fn is_name(text: &str) -> bool {
    let first = text.chars().next();
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_rest = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let (head, index) = match text.find('[') {
        Some(at) if text.ends_with(']') => (&text[..at], &text[at + 1..text.len() - 1]),
        Some(_) => return false,
        None => (text, ""),
    };
    first.is_some_and(is_start) && head.chars().all(is_rest) && !index.contains(['[', ']', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(name: &str) -> Option<Value> {
        Some(match name {
            "x" => Value::One("a b'$(c)".into()),
            "list" => Value::Many(vec!["one 1".into(), "two".into()]),
            "none" => Value::Many(vec![]),
            _ => return None,
        })
    }

    #[track_caller]
    fn check(text: &str, mode: Mode, expected: &str) {
        let found = Template::parse(text, mode).and_then(|t| t.render(&scope));
        let found = match found {
            Ok(text) => text.to_string_lossy().into_owned(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn plain_text_is_not_quoted() {
        check("p/{x}/q", Mode::Plain, "p/a b'$(c)/q");
        check("{{x}} }", Mode::Plain, "{x} }");
        check("{", Mode::Plain, "error: `{` is never closed");
        check(
            "{print $1}",
            Mode::Plain,
            "error: `{print $1}` is not a name",
        );
        check("{y}", Mode::Plain, "error: `{y}` is not known here");
        check(
            "{list}.x",
            Mode::Plain,
            "error: `{list}` has 2 values, but stands where one word must be",
        );
    }

    #[test]
    fn shell_text_is_quoted_for_its_context() {
        check("echo {x}", Mode::Shell, r"echo 'a b'\''$(c)'");
        check("echo \"{x}\"", Mode::Shell, r#"echo "a b'\$(c)""#);
        check("echo '{x}'", Mode::Shell, r"echo 'a b'\''$(c)'");
        check(
            "echo \"$(cat {x})\"",
            Mode::Shell,
            r#"echo "$(cat 'a b'\''$(c)')""#,
        );
        check("cat {list} {none}", Mode::Shell, "cat 'one 1' 'two' ");
        check(
            "awk '{{print $1}}' \\\" {x}",
            Mode::Shell,
            r#"awk '{print $1}' \" 'a b'\''$(c)'"#,
        );
    }

    #[test]
    fn placeholders_are_refused_where_no_quoting_is_safe() {
        for (text, place) in [
            ("echo `cat {x}`", "back-quotes"),
            ("echo \"`cat {x}`\"", "back-quotes"),
            ("echo ${{A:-{x}}}", "`${…}`"),
            ("echo $((1+{x}))", "`$((…))`"),
            ("true # {x}", "a comment"),
            ("cat <<E\n{x}\nE", "a here-document"),
            ("echo ${x}", "a word after a dollar sign"),
            ("echo \\{x}", "a word after a backslash"),
        ] {
            let found = Template::parse(text, Mode::Shell).map(|_| ());
            assert_eq!(
                found,
                Err(TemplateError::Unquotable("x".into(), place)),
                "{text}"
            );
        }
        check("echo a#{x}", Mode::Shell, r"echo a#'a b'\''$(c)'");
    }

    #[test]
    fn early_names_are_bound_and_late_ones_kept() {
        let template = Template::parse("cp {x} {out}", Mode::Shell).expect("parses");
        let bound = template.bind(&scope).expect("binds");
        assert_eq!(bound.names().collect::<Vec<_>>(), ["out"]);
        let late = |_: &str| Some(Value::from("o"));
        assert_eq!(
            bound.render(&late).expect("renders"),
            r"cp 'a b'\''$(c)' 'o'"
        );
    }

    proptest! {
        /// Whatever the value and the context, the shell sees exactly the value.
        #[test]
        fn a_value_never_becomes_syntax(value in "[^\0]{0,24}", which in 0usize..5) {
            let text = [
                "printf %s {v}",
                "printf %s \"{v}\"",
                "printf %s '{v}'",
                "printf %s \"$(printf %s {v}; echo x)\"",
                "(printf %s x{v})",
            ][which];
            let template = Template::parse(text, Mode::Shell).expect("parses");
            let script = template
                .render(&|_| Some(Value::One(value.clone().into())))
                .expect("renders");
            let output = std::process::Command::new("sh").arg("-c").arg(&script).output().expect("runs");
            let expected = match which {
                3 => format!("{value}x"),
                4 => format!("x{value}"),
                _ => value.clone(),
            };
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}
