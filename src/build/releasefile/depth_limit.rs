//! How a text of KDL is nested, found before it is parsed.
//!
//! The parser calls itself for each level, and a text of nothing but braces would use up
//! the stack. A long text is parsed in parts at once, which takes places between nodes. Only
//! braces and comments outside of strings count here; whether they fit together is for the
//! parser to say.

use crate::core::kdl_text::{line, string};

/// Levels that a text may have; far more than a Releasefile needs.
pub(crate) const LEVELS_MAX: usize = 200;

/// Bytes of a part that is worth a thread of its own.
const PART: usize = 64 * 1024;

/// What braces tell of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DepthLimit {
    /// The byte at which the text goes deeper than [`LEVELS_MAX`].
    pub(crate) too_deep: Option<usize>,
    /// Where the text can be cut into parts of some length: behind lines that end a node's
    /// block. When each part is a document, the text is the document of all their nodes.
    pub(crate) cuts: Vec<usize>,
}

/// Follows the braces of a text.
pub(crate) fn nesting(text: &str) -> DepthLimit {
    let bytes = text.as_bytes();
    let (mut depth, mut comments, mut at) = (0usize, 0usize, 0);
    let mut found = DepthLimit::default();
    let mut is_block_done = false;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_comment = comments > 0;
        let last_cut = found.cuts.last().copied().unwrap_or(0);
        let was_block_done = std::mem::take(&mut is_block_done);
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
            [b'{', ..] => {
                depth += 1;
                1
            }
            [b'}', ..] => {
                depth = depth.saturating_sub(1);
                is_block_done = depth == 0;
                1
            }
            [b'\n', ..] if was_block_done && at + 1 - last_cut >= PART => {
                found.cuts.push(at + 1);
                1
            }
            [b' ' | b'\t' | b'\r', ..] => {
                is_block_done = was_block_done;
                1
            }
            _ => 1,
        };
        if depth + comments > LEVELS_MAX {
            found.too_deep = Some(at - 1);
            return found;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_braces_outside_of_strings_and_comments_count() {
        let many = "{".repeat(500);
        for text in [
            format!("a \"{many}\""),
            format!("a \"\\\"{many}\""),
            format!("a #\"\"{many}\"#"),
            format!("a \"\"\"\n{many}\n\"{many}\n\"\"\""),
            format!("// {many}\n"),
            format!("/* {many} */"),
            "a { }\n".repeat(500),
        ] {
            assert_eq!(nesting(&text).too_deep, None, "{text}");
        }
        for text in [
            many.clone(),
            format!("a \"\" \"x\" #\"y\"# #true /* z */ {many}"),
            "a { b \"}\"\n".repeat(500),
            "/*".repeat(500),
        ] {
            assert!(nesting(&text).too_deep.is_some(), "{text}");
        }
        assert_eq!(nesting(&"{".repeat(LEVELS_MAX)).too_deep, None);
        let deep = nesting(&"{".repeat(LEVELS_MAX + 1));
        assert_eq!(deep.too_deep, Some(LEVELS_MAX));
    }
}
