//! Looks for the path of the checkout in bytes that are hashed.
//!
//! A file that names the checkout by its absolute path (the first line of a script in a virtual
//! environment, a `.pth` file, a CMake tree, debug information) leads back to it from wherever it
//! is restored. Every occurrence counts, also one that goes on as another name (`/srv/ab` for
//! `/srv/a`): a file that is taken for one that names the checkout is only shared less.

use memchr::memmem::Finder;
use std::path::Path;

/// The forms in which a path is written, ready to be searched.
pub struct PathSearch {
    forms: Vec<Finder<'static>>,
    longest: usize,
    id: u32,
}

impl PathSearch {
    /// Returns a search for `path`. Nothing is found for `/`, which every path begins with.
    pub fn new(path: &Path) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let forms = match bytes {
            [] | b"/" => Vec::new(),
            _ => forms(bytes),
        };
        let hash = blake3::hash(&forms.join(&b"\0"[..]));
        let [a, b, c, d, ..] = *hash.as_bytes();
        Self {
            longest: forms.iter().map(Vec::len).max().unwrap_or(0),
            forms: forms.iter().map(|f| Finder::new(f).into_owned()).collect(),
            id: u32::from_le_bytes([a, b, c, d]) | 1,
        }
    }

    /// Returns a number for what is searched, never 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns whether the path stands in `bytes`.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| form.find(bytes).is_some())
    }

    /// Returns how many bytes of what follows a part belong to it, so that nothing is missed
    /// between two parts.
    pub(super) fn overlap(&self) -> usize {
        self.longest.saturating_sub(1)
    }
}

/// Returns a path as it is, as URLs have it (strictly and leniently), as JSON and as shells and
/// build files write it; mostly these are one.
fn forms(path: &[u8]) -> Vec<Vec<u8>> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    let percent = |is_kept: &dyn Fn(u8) -> bool| -> Vec<u8> {
        let one = |b: &u8| match is_kept(*b) {
            true => vec![*b],
            false => format!("%{b:02X}").into_bytes(),
        };
        path.iter().flat_map(one).collect()
    };
    let before_blanks = |mark: u8| -> Vec<u8> {
        let one = |b: &u8| match b {
            b' ' => vec![mark, b' '],
            b => vec![*b],
        };
        path.iter().flat_map(one).collect()
    };
    let mut forms = vec![
        path.to_vec(),
        percent(&is_plain),
        percent(&|b| is_plain(b) || b"!$&'()*+,;=:@".contains(&b)),
        before_blanks(b'\\'),
        before_blanks(b'$'),
    ];
    if let Ok(text) = std::str::from_utf8(path) {
        forms.push(in_json(text));
    }
    let mut seen: Vec<Vec<u8>> = Vec::new();
    forms.retain(|form| {
        let is_new = !seen.contains(form);
        seen.push(form.clone());
        is_new
    });
    forms
}

/// Returns a text as JSON in ASCII has it.
fn in_json(text: &str) -> Vec<u8> {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out += &format!("\\u{unit:04x}");
                }
            }
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_as_others_write_it() {
        let table: [(&str, &[&str], &[&str]); 5] = [
            (
                "/srv/a",
                &[
                    "#!/srv/a/bin/python",
                    "-I/srv/a",
                    "file:///srv/a/src",
                    "/srv/ab",
                ],
                &["", "/srv/", "srv/a", "../a"],
            ),
            (
                "/srv/my dir",
                &[
                    "/srv/my dir/x",
                    "file:///srv/my%20dir/",
                    "/srv/my\\ dir/x:",
                    "/srv/my$ dir",
                ],
                &["/srv/my", "/srv/my_dir"],
            ),
            (
                "/srv/é",
                &["/srv/é", "file:///srv/%C3%A9", r#"{"dir": "/srv/\u00e9"}"#],
                &["/srv/e"],
            ),
            ("/a+b", &["/a+b", "/a%2Bb"], &["/a b"]),
            ("/", &[], &["/", "/usr/bin", ""]),
        ];
        for (path, with, without) in table {
            let search = PathSearch::new(Path::new(path));
            for text in with {
                assert!(search.is_in(text.as_bytes()), "{path} in {text}");
            }
            for text in without {
                assert!(!search.is_in(text.as_bytes()), "{path} in {text}");
            }
        }
    }

    #[test]
    fn another_path_is_another_search() {
        let id = |path: &str| PathSearch::new(Path::new(path)).id();
        assert_ne!(id("/srv/a"), id("/srv/b"));
        assert_eq!(id("/srv/a"), id("/srv/a"));
        assert_ne!(id("/"), 0);
    }
}
