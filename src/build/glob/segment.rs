//! One part of a pattern, between two slashes: does a name match it, and can two
//! of them match the same name? Knows nothing of directories.
//!
//! Most parts are a literal, a `*`, or text on both sides of one `*`; those are
//! compared byte by byte. Only what is left is given to `globset`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// A part of a pattern, between two slashes.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// `**`: any number of directories; at the end, everything below.
    AnyDepth,
    /// No wildcard.
    Literal(Vec<u8>),
    /// Text, one `*`, text.
    Star {
        /// Bytes before the star.
        before: Vec<u8>,
        /// Bytes after it.
        after: Vec<u8>,
    },
    /// Anything else: `?`, `[…]`, several stars.
    Hard {
        /// Compiled by `globset`.
        matcher: Box<GlobMatcher>,
        /// For the comparison with other parts.
        tokens: Vec<Token>,
    },
}

/// What a part is made of, for the comparison of two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Byte(u8),
    /// Exactly one byte, whichever.
    One,
    /// Any number of bytes.
    Star,
}

impl Segment {
    /// Compiles the text of one part; `[` and `]` are known to be balanced.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text == "**" {
            return Ok(Self::AnyDepth);
        }
        if !text.contains(['*', '?', '[', '\\']) {
            return Ok(Self::Literal(text.as_bytes().to_vec()));
        }
        if !text.contains(['?', '[', '\\'])
            && let Some((before, after)) = text.split_once('*')
            && !after.contains('*')
        {
            return Ok(Self::Star {
                before: before.into(),
                after: after.into(),
            });
        }
        let tokens = tokens(text);
        if let Some(bytes) = literal_bytes(&tokens) {
            return Ok(Self::Literal(bytes));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|e| e.kind().to_string())?;
        Ok(Self::Hard {
            matcher: Box::new(glob.compile_matcher()),
            tokens,
        })
    }

    /// Returns whether the name of one file or directory matches.
    pub(super) fn is_match(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Literal(text) => text == name,
            Self::Star { before, after } => {
                name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            }
            Self::Hard { matcher, .. } => matcher.is_match(Path::new(OsStr::from_bytes(name))),
        }
    }

    /// Returns whether some name matches both parts; errs towards yes.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AnyDepth, _) | (_, Self::AnyDepth) => true,
            (Self::Literal(text), other) | (other, Self::Literal(text)) => other.is_match(text),
            (a, b) => tokens_meet(&a.to_tokens(), &b.to_tokens()),
        }
    }

    /// Returns the bytes that every matching name starts with.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let bytes = |tokens: &mut dyn Iterator<Item = &Token>| -> Vec<u8> {
            tokens
                .map_while(|t| match t {
                    Token::Byte(b) => Some(*b),
                    _ => None,
                })
                .collect()
        };
        bytes(&mut self.to_tokens().iter())
    }

    /// Returns the bytes that every matching name ends with.
    pub(super) fn suffix(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self
            .to_tokens()
            .iter()
            .rev()
            .map_while(|t| match t {
                Token::Byte(b) => Some(*b),
                _ => None,
            })
            .collect();
        out.reverse();
        out
    }

    fn to_tokens(&self) -> Vec<Token> {
        let bytes = |text: &[u8]| text.iter().copied().map(Token::Byte).collect::<Vec<_>>();
        match self {
            Self::AnyDepth => vec![Token::Star],
            Self::Literal(text) => bytes(text),
            Self::Star { before, after } => {
                let mut out = bytes(before);
                out.push(Token::Star);
                out.extend(bytes(after));
                out
            }
            Self::Hard { tokens, .. } => tokens.clone(),
        }
    }
}

fn literal_bytes(tokens: &[Token]) -> Option<Vec<u8>> {
    tokens
        .iter()
        .map(|t| match t {
            Token::Byte(b) => Some(*b),
            _ => None,
        })
        .collect()
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'*' => out.push(Token::Star),
            b'?' => out.push(Token::One),
            b'\\' if at + 1 < bytes.len() => {
                at += 1;
                out.push(Token::Byte(bytes[at]));
            }
            b'[' => {
                let (token, end) = class(bytes, at);
                out.push(token);
                at = end;
            }
            b => out.push(Token::Byte(*b)),
        }
        at += 1;
    }
    out
}

/// Returns what a class stands for and where its `]` is. `[*]` is how a value is
/// kept from being a wildcard, so a class of one byte is that byte.
fn class(bytes: &[u8], open: usize) -> (Token, usize) {
    let is_negated = matches!(bytes.get(open + 1), Some(b'!' | b'^'));
    let first = open + 1 + usize::from(is_negated);
    // A `]` directly after the opening is a member.
    let close = (first + 1..bytes.len()).find(|i| bytes[*i] == b']');
    match close {
        Some(close) if close == first + 1 && !is_negated => (Token::Byte(bytes[first]), close),
        Some(close) => (Token::One, close),
        None => (Token::Star, bytes.len()),
    }
}

/// Walks both token lists at once over all the ways a common name could go.
fn tokens_meet(a: &[Token], b: &[Token]) -> bool {
    let width = b.len() + 1;
    let mut seen = vec![false; (a.len() + 1) * width];
    let mut todo = vec![(0, 0)];
    while let Some((i, j)) = todo.pop() {
        if std::mem::replace(&mut seen[i * width + j], true) {
            continue;
        }
        match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (Some(Token::Star), other) => {
                todo.push((i + 1, j));
                if other.is_some() {
                    todo.push((i, j + 1));
                }
            }
            (other, Some(Token::Star)) => {
                todo.push((i, j + 1));
                if other.is_some() {
                    todo.push((i + 1, j));
                }
            }
            (None, _) | (_, None) => {}
            (Some(Token::Byte(x)), Some(Token::Byte(y))) if x != y => {}
            _ => todo.push((i + 1, j + 1)),
        }
    }
    false
}
