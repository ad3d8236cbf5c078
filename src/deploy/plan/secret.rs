//! Secrets on their way into a file of a host: values that nothing shows. Pure.
//!
//! Everywhere but in the bytes that go into the file a secret is its *mark*: its name with a
//! keyed hash of its value. A reader without the key cannot try values against it, so that it may
//! stand in keys, journals and saved plans.

use std::fmt;

use crate::core::error::{Error, Result};
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::words::hex;

/// Shorter secrets are not looked for in what steps print: they would be found everywhere.
const HIDDEN_MIN: usize = 8;
/// What is shown instead.
const INSTEAD: &[u8] = b"[secret]";

/// The key of keyed hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHasher([u8; 32]);

impl SecretHasher {
    /// Returns the seal of a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Returns the keyed hash of a text; `what` keeps hashes of different things apart.
    pub fn hash(&self, what: &str, text: &str) -> String {
        let hash = blake3::keyed_hash(&self.0, format!("{what}\n{text}").as_bytes());
        hash.to_hex()[..32].to_owned()
    }

    /// Returns what stands for a file on a host of which only the SHA-256 is known.
    pub fn file(&self, sha256: &str) -> String {
        match sha256 {
            "" => String::new(),
            sha256 => self.hash("file", sha256),
        }
    }
}

impl fmt::Debug for SecretHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// A secret with its value.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue {
    name: String,
    value: String,
    seal: SecretHasher,
}

impl SecretValue {
    /// Returns a secret; an error if it cannot be written into a text.
    pub fn new(name: &str, bytes: Vec<u8>, seal: &SecretHasher) -> Result<Self> {
        let value = String::from_utf8(bytes).map_err(|_| {
            Error::usage(format!("the secret `{name}` is not text"))
                .help("keep it encoded, and decode the file on the host")
        })?;
        if value.is_empty() {
            return Err(Error::usage(format!("the secret `{name}` is empty")));
        }
        Ok(Self {
            name: name.to_owned(),
            value,
            seal: seal.clone(),
        })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what stands for it in all texts but the file's.
    pub fn reference(&self) -> String {
        let hash = self.seal.hash("value", &self.value);
        format!("[secret {} {hash}]", self.name)
    }

    /// Returns the value, for the file that it is written into.
    pub(in crate::deploy) fn value(&self) -> &str {
        &self.value
    }

    /// Seals a text that holds the value.
    pub(in crate::deploy) fn seal(&self, content: String) -> SecretContent {
        SecretContent {
            content,
            seal: self.seal.clone(),
        }
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// The content of a file that holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretContent {
    content: String,
    seal: SecretHasher,
}

impl SecretContent {
    /// Returns what goes over to the host.
    pub fn bytes(&self) -> &[u8] {
        self.content.as_bytes()
    }

    /// Returns what a probe finds where this is written.
    pub fn file(&self) -> String {
        self.seal.file(&hex(self.content.as_bytes()))
    }

    /// Returns the key that its hashes are made with.
    pub fn key(&self) -> &SecretHasher {
        &self.seal
    }
}

impl fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

/// What must not be shown when a host prints it.
#[derive(Clone, Default)]
pub struct Redactor(Vec<String>);

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Redactor {
    /// Returns what hides these secrets: their values, and the lines of those that have several.
    pub fn of<'a>(secrets: impl Iterator<Item = &'a SecretValue>) -> Self {
        let mut texts = Vec::new();
        for secret in secrets {
            let lines = secret.value.lines().map(str::trim);
            texts.extend(lines.chain([secret.value.as_str()]).map(str::to_owned));
        }
        texts.retain(|text| text.len() >= HIDDEN_MIN);
        // The longest first: what is left of it must not be looked for.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.dedup();
        Self(texts)
    }

    /// Returns bytes without secrets.
    pub fn hide(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for text in &self.0 {
            let secret = text.as_bytes();
            let mut from = 0;
            while let Some(at) = bytes[from..]
                .windows(secret.len())
                .position(|window| window == secret)
            {
                bytes.splice(from + at..from + at + secret.len(), INSTEAD.iter().copied());
                from += at + INSTEAD.len();
            }
        }
        bytes
    }

    /// Returns what a program printed without secrets; other frames as they are.
    pub fn frame(&self, frame: Frame) -> Frame {
        match frame {
            Frame::Output(line) if !self.0.is_empty() => Frame::Output(self.hide(line)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &str, key: u8) -> SecretValue {
        SecretValue::new("db", value.into(), &SecretHasher::new([key; 32])).expect("a text")
    }

    #[test]
    fn a_mark_changes_with_value_and_key_and_shows_neither() {
        let marks = [("sesame-1", 1), ("sesame-2", 1), ("sesame-1", 2)]
            .map(|(v, k)| secret(v, k).reference());
        assert!(marks[0] != marks[1] && marks[0] != marks[2]);
        assert_eq!(secret("sesame-1", 1).reference(), marks[0]);
        let one = secret("sesame-1", 1);
        let shown = format!(
            "{one:?} {:?} {}",
            one.seal("x sesame-1".into()),
            one.reference()
        );
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(SecretValue::new("db", Vec::new(), &SecretHasher::new([0; 32])).is_err());
        assert!(SecretValue::new("db", vec![0xff], &SecretHasher::new([0; 32])).is_err());
    }

    #[test]
    fn a_file_is_known_by_what_a_host_says_of_it() {
        let sealed = secret("sesame-1", 1).seal("password=sesame-1\n".into());
        let seal = SecretHasher::new([1; 32]);
        assert_eq!(sealed.file(), seal.file(&hex(b"password=sesame-1\n")));
        assert_ne!(sealed.file(), seal.file(&hex(b"other")));
        assert_eq!(seal.file(""), "");
    }

    #[test]
    fn what_is_printed_is_hidden() {
        let hidden = Redactor(vec!["sesame-sesame".into(), "sesame-1".into()]);
        let check = |text: &str| String::from_utf8(hidden.hide(text.into())).expect("text");
        assert_eq!(check("a sesame-1sesame-1 b"), "a [secret][secret] b");
        assert_eq!(check("sesame-sesame-1"), "[secret]-1");
        assert_eq!(check("sesame"), "sesame");
    }
}
