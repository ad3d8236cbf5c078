//! How a file that a step would write differs from what stands there. Pure.
//!
//! What stands there comes with the facts, up to a limit; what is not text, too large or
//! secret is named as such and not shown.

use serde::{Deserialize, Serialize};
use similar::TextDiff;

use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};

/// Bytes of a file that are fetched and shown.
pub const SHOWN_MAX: usize = 1 << 16;

/// What stands where a file would be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteFile {
    /// Nothing.
    Nothing,
    /// The very file that would be written.
    Same,
    /// Something that is no file.
    Other,
    /// A file of this size, with its first bytes.
    File(u64, Vec<u8>),
}

/// How a file would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The file, on its host.
    pub path: String,
    /// What changes.
    #[serde(flatten)]
    pub change: FileChange,
}

/// What changes about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum FileChange {
    /// Text: a unified difference.
    Text {
        /// Old on the host -> new.
        unified: String,
    },
    /// The content stays; it is written again.
    Same,
    /// Not text, before or after.
    Binary {
        /// Size on the host; `None` where there is nothing.
        old: Option<u64>,
        /// Size of what comes.
        new: u64,
    },
    /// Too large to be compared here.
    Large {
        /// Size on the host; `None` where there is nothing.
        old: Option<u64>,
        /// Size of what comes.
        new: u64,
    },
    /// A secret: neither is shown.
    Secret,
    /// What stands there could not be asked beforehand.
    Unknown,
    /// What stands there is no file.
    Other,
}

impl RemoteFile {
    /// Reads an answer: a word, and behind `file SIZE` its first bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        match head.split_once(' ') {
            Some(("file", size)) => Some(Self::File(size.parse().ok()?, bytes[end + 1..].to_vec())),
            None if head == "none" => Some(Self::Nothing),
            None if head == "same" => Some(Self::Same),
            None if head == "other" => Some(Self::Other),
            _ => None,
        }
    }
}

impl ResolvedStep {
    /// Returns the directories that it writes into on a host, as far as they are known. What is put
    /// at the place of a directory goes into that one, if it is there.
    pub fn writes_into(&self, root: &str) -> Vec<String> {
        let path = match &self.act {
            ResolvedAction::Write { path, .. } | ResolvedAction::Symlink { path, .. } => path,
            ResolvedAction::Put { to, .. } | ResolvedAction::Fetch { to, .. } => to,
            ResolvedAction::Service(service) => &service.log,
            _ => match &self.marks.makes {
                Some(path) => path,
                None => return Vec::new(),
            },
        };
        let path = path.trim_end_matches('/');
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.dir.as_deref().unwrap_or(root)),
        };
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let above = if above.is_empty() { "/" } else { above }.to_owned();
        match self.act {
            ResolvedAction::Put { .. } => vec![above, path],
            _ => vec![above],
        }
    }

    /// Returns the path of the one file that it writes, if that is what it does.
    pub fn writes(&self) -> Option<&str> {
        match &self.act {
            ResolvedAction::Write { path, .. } => Some(path),
            ResolvedAction::Put { to, .. } if !to.ends_with('/') => Some(to),
            _ => None,
        }
    }
}

/// Returns how the file that `draft` writes on `host` would change; `None` for a step that
/// writes none. `put` has size and first bytes of an artifact that is one file.
pub fn difference(
    host: &str,
    draft: &ResolvedStep,
    standing: Option<&RemoteFile>,
    put: Option<(u64, Vec<u8>)>,
) -> Option<Difference> {
    let path = draft.writes()?.to_owned();
    if draft.sealed.is_some() {
        let change = FileChange::Secret;
        return Some(Difference { path, change });
    }
    let (size, new) = match &draft.act {
        ResolvedAction::Write { content, .. } => {
            (content.len() as u64, content.clone().into_bytes())
        }
        _ => put?,
    };
    let change = match standing {
        None => FileChange::Unknown,
        Some(RemoteFile::Same) => FileChange::Same,
        Some(RemoteFile::Other) => FileChange::Other,
        Some(RemoteFile::Nothing) => change(host, &path, None, (size, &new)),
        Some(RemoteFile::File(old, bytes)) => {
            change(host, &path, Some((*old, bytes)), (size, &new))
        }
    };
    Some(Difference { path, change })
}

fn change(host: &str, path: &str, old: Option<(u64, &[u8])>, new: (u64, &[u8])) -> FileChange {
    let sizes = (old.map(|(size, _)| size), new.0);
    let is_large = |size: u64| size > SHOWN_MAX as u64;
    let before = old.map_or(&[][..], |(_, bytes)| bytes);
    let (Some(before), Some(after)) = (text(before), text(new.1)) else {
        let (old, new) = sizes;
        return FileChange::Binary { old, new };
    };
    if is_large(new.0) || sizes.0.is_some_and(is_large) {
        let (old, new) = sizes;
        return FileChange::Large { old, new };
    }
    if old.is_some() && before == after {
        return FileChange::Same;
    }
    let from = match old {
        Some(_) => format!("{host}:{path}"),
        None => String::from("/dev/null"),
    };
    let unified = TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&from, &format!("{host}:{path}"))
        .to_string();
    FileChange::Text { unified }
}

/// Returns bytes as text; a character that was cut off at the end does not make it binary.
fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && bytes.len() >= SHOWN_MAX => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(content: &str) -> ResolvedStep {
        ResolvedStep {
            act: ResolvedAction::Write {
                path: "/srv/app.ini".into(),
                content: content.into(),
                mode: "0644".into(),
                owner: None,
            },
            ..ResolvedStep::default()
        }
    }

    #[track_caller]
    fn check(answer: &[u8], content: &str, expected: &str) {
        let standing = RemoteFile::read(answer);
        let found = difference("h1", &write(content), standing.as_ref(), None).expect("one");
        assert_eq!(found.path, "/srv/app.ini");
        let found = match found.change {
            FileChange::Text { unified } => unified,
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_stands_there_decides_what_is_shown() {
        check(
            b"file 8\na\nb\nc\nd\n",
            "a\nB\nc\nd\n",
            "--- h1:/srv/app.ini\n+++ h1:/srv/app.ini\n@@ -1,4 +1,4 @@\n a\n-b\n+B\n c\n d\n",
        );
        check(
            b"none\n",
            "a\n",
            "--- /dev/null\n+++ h1:/srv/app.ini\n@@ -0,0 +1 @@\n+a\n",
        );
        check(
            b"file 1\na",
            "a\n",
            "--- h1:/srv/app.ini\n+++ h1:/srv/app.ini\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n",
        );
        check(b"same\n", "a\n", "Same");
        check(b"file 2\na\n", "a\n", "Same");
        check(b"other\n", "a\n", "Other");
        check(b"", "a\n", "Unknown");
        check(b"file x\n", "a\n", "Unknown");
        check(b"file 3\n\0ab", "a\n", "Binary { old: Some(3), new: 2 }");
        check(b"none\n", "a\0", "Binary { old: None, new: 2 }");
        check(
            b"file 70000\nabc",
            "a\n",
            "Large { old: Some(70000), new: 2 }",
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let seal = crate::deploy::plan::secret::SecretHasher::new([0; 32]);
        let secret = crate::deploy::plan::secret::SecretValue::new("x", b"sesame".to_vec(), &seal);
        let sealed = secret.expect("a secret").seal("sesame\n".into());
        let draft = ResolvedStep {
            sealed: Some(sealed),
            ..write("[secret x]\n")
        };
        let standing = RemoteFile::File(5, b"open\n".to_vec());
        let found = difference("h1", &draft, Some(&standing), None).expect("one");
        assert_eq!(found.change, FileChange::Secret);
        let text = serde_json::to_string(&found).expect("writes");
        assert!(!text.contains("sesame") && !text.contains("open"), "{text}");
    }

    #[test]
    fn a_character_that_was_cut_off_is_not_binary() {
        let mut bytes = vec![b'a'; SHOWN_MAX - 1];
        bytes.push("ä".as_bytes()[0]);
        assert!(text(&bytes).is_some());
        assert!(text(&[b'a', 0xff]).is_none());
    }
}
