//! Parsing of templates: the pieces of a text, and the shell quoting each name stands in.
//!
//! Must not know values. The one idea: the parser follows the shell only as far as all
//! shells agree. Behind a text that they read differently, or that only a full shell
//! parser could follow, it does not guess: every further name is refused.

use super::{Mode, Piece, Quote, Start, Template, TemplateError};

/// Where in shell text the parser is. Nested constructs are kept on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Outside of quotes, at the top or inside `$( … )` and `( … )`.
    Bare,
    /// Inside `(( … ))`: two subshells for one shell, arithmetic for another.
    DoubleParen,
    Double,
    Single,
    Back,
    /// `${ … }`.
    Parameter,
    /// `$(( … ))`.
    Arithmetic,
    /// Between the two closing parentheses of `$(( … ))`.
    ArithmeticEnd,
    Comment,
    /// Everything after `<<`: the text of a here-document is not followed.
    HereDocument,
}

pub(super) struct Parser<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    mode: Mode,
    stack: Vec<Context>,
    pieces: Vec<Piece>,
    text: String,
    /// The last character of shell text, to tell `# comment` from `a#b`.
    last: char,
    /// The word outside of quotes that is being read, to find `case`.
    word: String,
    /// What the word has so far, quotes aside.
    start: Start,
    /// Set behind a text that cannot be followed: where every further name stands.
    lost: Option<&'static str>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, mode: Mode) -> Self {
        Self {
            chars: text.chars().peekable(),
            mode,
            stack: vec![Context::Bare],
            pieces: Vec::new(),
            text: String::new(),
            last: ' ',
            word: String::new(),
            start: Start::Word,
            lost: None,
        }
    }

    pub(super) fn run(mut self) -> Result<Template, TemplateError> {
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
        let start = self.start;
        self.pieces.push(Piece::Name { name, quote, start });
        self.other();
        if start == Start::Word {
            self.start = Start::Names;
        }
        Ok(())
    }

    fn quote_here(&self, name: &str) -> Result<Quote, TemplateError> {
        if self.mode == Mode::Plain {
            return Ok(Quote::Plain);
        }
        let refuse = |place| Err(TemplateError::Unquotable(name.to_owned(), place));
        if let Some(place) = self.lost {
            return refuse(place);
        }
        if self.stack.contains(&Context::Back) {
            return refuse("back-quotes");
        }
        match self.context() {
            Context::Bare | Context::Double if self.last == '\\' => {
                refuse("a word after a backslash")
            }
            Context::Bare | Context::Double if self.last == '$' => refuse(super::AFTER_DOLLAR),
            Context::Bare => Ok(Quote::Bare),
            Context::Double => Ok(Quote::Double),
            Context::Single => Ok(Quote::Single),
            Context::Back => refuse("back-quotes"),
            Context::Parameter => refuse("`${…}`"),
            Context::DoubleParen => refuse("`((…))`"),
            Context::Arithmetic | Context::ArithmeticEnd => refuse("`$((…))`"),
            Context::Comment => refuse("a comment"),
            Context::HereDocument => refuse("a here-document"),
        }
    }

    fn context(&self) -> Context {
        self.stack.last().copied().unwrap_or(Context::Bare)
    }

    /// Refuses every name from here on.
    fn lose(&mut self, place: &'static str) {
        self.lost.get_or_insert(place);
    }

    /// Takes one character of text and follows the shell's quoting.
    fn literal(&mut self, c: char) {
        self.text.push(c);
        if self.mode == Mode::Plain {
            self.start = Start::Inside;
            return;
        }
        let context = self.context();
        self.follow(c);
        self.start = match (context, c) {
            (Context::Bare | Context::DoubleParen, c) if is_delimiter(c) => Start::Word,
            // `$(`, of which both are taken at once.
            (_, '$') if self.last == '(' => Start::Word,
            // A line that goes on.
            (_, '\\') if self.text.ends_with("\\\n") => self.start,
            (Context::Single, '\'') | (Context::Double, '"') => self.start,
            (Context::Single | Context::Double, _) => Start::Inside,
            (_, '\'' | '"') => self.start,
            _ => Start::Inside,
        };
    }

    fn follow(&mut self, c: char) {
        use Context::{
            Arithmetic, ArithmeticEnd, Back, Bare, Comment, Double, DoubleParen, HereDocument,
            Parameter, Single,
        };
        let context = self.context();
        if context == ArithmeticEnd && c != ')' {
            self.lose("the text after a `$((` that no `))` ends");
        }
        if !matches!(context, Single | Comment) && self.escape(c) {
            return;
        }
        if matches!(context, Bare | DoubleParen) {
            self.read_word(c);
        }
        match (context, c) {
            (Single, '\'') | (Double, '"') | (Back, '`') | (Comment, '\n') => self.pop(),
            (Single | HereDocument | Comment | Back, _) => {}
            (_, '\'' | '"') => self.quote(c),
            (_, '`') => self.stack.push(Back),
            (_, '$') => return self.dollar(),
            (_, '[') if self.last == '$' => self.lose("the text after `$[`"),
            (Parameter, '}') => self.pop(),
            (Bare | DoubleParen | Arithmetic, '#') => self.hash(),
            (Bare | DoubleParen, '<') if self.last == '<' => self.stack.push(HereDocument),
            (Bare, '(') if self.last == '(' => self.stack.push(DoubleParen),
            (Bare | DoubleParen | Arithmetic, '(') => self.stack.push(context),
            (Bare | DoubleParen | Arithmetic | ArithmeticEnd, ')') => self.pop(),
            _ => {}
        }
        self.last = c;
    }

    /// Takes a backslash with the character it escapes; returns whether that is done.
    fn escape(&mut self, c: char) -> bool {
        if self.last == '\\' && matches!(c, '{' | '}') {
            self.other();
            return true;
        }
        if c != '\\' {
            return false;
        }
        match self.chars.next_if(|c| !matches!(c, '{' | '}')) {
            // The line goes on, as if neither were there.
            Some('\n') => {
                self.text.push('\n');
                if self.last == '$' || (self.last == '(' && self.chars.peek() == Some(&'(')) {
                    self.lose("the text after an operator that is broken in two lines");
                }
            }
            Some(next) => {
                self.text.push(next);
                self.other();
            }
            // A brace is next, or a placeholder, which `quote_here` refuses.
            None => self.last = c,
        }
        true
    }

    /// Notes that something stands here that is no syntax.
    fn other(&mut self) {
        self.last = 'x';
        self.word.push('x');
    }

    /// The `)` behind the patterns of a `case` closes no parenthesis.
    fn read_word(&mut self, c: char) {
        if !is_delimiter(c) {
            self.word.push(c);
            return;
        }
        if self.word == "case" && self.stack.len() > 1 {
            self.lose("the text after a `case` inside of parentheses");
        }
        self.word.clear();
    }

    /// A quote opens, or so it seems.
    fn quote(&mut self, c: char) {
        let context = self.context();
        let is_ansi = c == '\'' && self.last == '$';
        match context {
            // In double quotes it is no quote.
            Context::Double => return,
            Context::Parameter if self.is_in_double() => {
                self.lose("the text after a quote inside of `\"${…}\"`");
            }
            Context::Arithmetic => self.lose("the text after a quote inside of `$((…))`"),
            _ if is_ansi => self.lose("the text after `$'`"),
            _ => {}
        }
        self.stack.push(match c {
            '"' => Context::Double,
            _ => Context::Single,
        });
    }

    /// Returns whether the `${…}` at hand stands in double quotes.
    fn is_in_double(&self) -> bool {
        let around = self.stack.iter().rev();
        let mut around = around.skip_while(|c| **c == Context::Parameter);
        around.next() == Some(&Context::Double)
    }

    /// A `#` begins a comment where a word could begin.
    fn hash(&mut self) {
        if !is_delimiter(self.last) {
            return;
        }
        match (self.context(), self.last) {
            (Context::Arithmetic, _) => self.lose("the text after a `#` inside of `$((…))`"),
            // `(a)#b` begins a comment, `$(a)#b` does not.
            (_, ')') => self.lose("the text after `)#`"),
            _ => self.stack.push(Context::Comment),
        }
    }

    /// After `$`: `$(`, `$((` and `${` (written `${{`) open a construct; `$$` is a value.
    fn dollar(&mut self) {
        self.last = '$';
        match self.chars.peek() {
            Some('$') => {
                self.chars.next();
                self.text.push('$');
                self.other();
            }
            Some('(') => {
                self.chars.next();
                self.text.push('(');
                self.last = '(';
                self.word.clear();
                if self.chars.next_if_eq(&'(').is_some() {
                    self.text.push('(');
                    self.stack.push(Context::ArithmeticEnd);
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
                    self.last = '{';
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

/// Returns whether `c` ends a word of shell text. Other blanks than these are letters.
fn is_delimiter(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>'
    )
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
