//! What a host has of a directory already -> what of it must travel. Pure.
//!
//! The one idea is that of `rsync --link-dest`: a file that the last release has too is linked
//! from there. But what a file is, its content says and not its times.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::deploy::remote::archive::{Item, ItemKind};

/// What lies in the last release, as the host's `rel_base` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactListing {
    /// Mode and SHA-256 of files that could be linked, by name.
    files: HashMap<Vec<u8>, (u32, Vec<u8>)>,
    /// All the rest but directories.
    others: Vec<Vec<u8>>,
    dirs: Vec<Vec<u8>>,
}

/// What must be done to make a directory of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Names that go before anything arrives, one a line.
    pub removed: Vec<u8>,
    /// How many names are left then, with the directory itself.
    pub left: usize,
    /// Names that need not travel.
    kept: HashSet<Vec<u8>>,
}

impl ArtifactListing {
    /// Reads what a host told, in parts: files of mode 0644, files of mode 0755 (as `sha256sum`
    /// prints them), others, directories. `None` if there is nothing, or a name that lines can
    /// not hold.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut listing = Self::default();
        let mut parts = 0;
        for line in text.strip_suffix(b"\n")?.split(|b| *b == b'\n') {
            match (line, parts) {
                (b"--", _) => parts += 1,
                (line, 0 | 1) => {
                    let (sum, rest) = line.split_at_checked(64)?;
                    let name = rest.strip_prefix(b"  ./")?;
                    let mode = if parts == 0 { 0o644 } else { 0o755 };
                    listing.files.insert(name.to_vec(), (mode, sum.to_vec()));
                }
                (line, 2) => listing.others.push(line.strip_prefix(b"./")?.to_vec()),
                (b".", 3) => {}
                (line, 3) => listing.dirs.push(line.strip_prefix(b"./")?.to_vec()),
                _ => return None,
            }
        }
        (parts == 4).then_some(listing)
    }

    /// Returns how to make `items` of it; `digest` is asked for those files alone that might be the same.
    pub fn delta(
        &self,
        items: &[Item],
        digest: &dyn Fn(&Item) -> io::Result<String>,
    ) -> io::Result<Delta> {
        let mut delta = Delta::default();
        let mut dirs = HashSet::new();
        for item in items {
            if item.kind == ItemKind::Dir {
                dirs.insert(&item.name);
            } else if let (ItemKind::File { mode, .. }, Some((there, sum))) =
                (&item.kind, self.files.get(&item.name))
                && mode == there
                && digest(item)?.as_bytes() == sum
            {
                delta.kept.insert(item.name.clone());
            }
        }
        let files = self.files.keys().filter(|name| !delta.kept.contains(*name));
        let (stay, gone): (Vec<_>, Vec<_>) = self.dirs.iter().partition(|name| dirs.contains(name));
        delta.left = 1 + stay.len() + delta.kept.len();
        for name in files.chain(&self.others).chain(gone) {
            delta.removed.extend([b"./", &name[..], b"\n"].concat());
        }
        Ok(delta)
    }
}

impl Delta {
    /// Returns whether an item has to be sent.
    pub fn sends(&self, item: &Item) -> bool {
        !self.kept.contains(&item.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_travels() {
        let sum = |c: &str| c.repeat(64);
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("same", "a"),
            ("edited", "b"),
            ("new", "c"),
            ("now-a-file", "d"),
        ] {
            std::fs::write(dir.path().join(name), text).expect("writes");
        }
        std::fs::create_dir(dir.path().join("kept")).expect("makes");
        std::fs::write(dir.path().join("kept/program"), "e").expect("writes");
        let listing = format!(
            "{}  ./same\n{}  ./edited\n{}  ./gone\n{}  ./kept/program\n--\n--\n./link\n--\n\
             .\n./kept\n./old\n./now-a-file\n--\n",
            sum("a"),
            sum("0"),
            sum("a"),
            sum("e")
        );
        let listing = ArtifactListing::parse(listing.as_bytes()).expect("reads");
        let items = crate::deploy::remote::archive::list(&[dir.path().to_owned()]).expect("lists");
        let digest = |item: &Item| std::fs::read_to_string(&item.path).map(|text| sum(&text));
        let delta = listing.delta(&items, &digest).expect("compares");
        let sent: Vec<_> = items
            .iter()
            .filter(|i| delta.sends(i))
            .map(|i| i.name.escape_ascii().to_string())
            .collect();
        // The directory itself, `same`, `kept` and `kept/program`.
        assert_eq!(delta.left, 4);
        assert_eq!(sent, ["edited", "kept", "new", "now-a-file"]);
        let removed = String::from_utf8(delta.removed).expect("text");
        let mut removed: Vec<_> = removed.lines().collect();
        removed.sort_unstable();
        assert_eq!(
            removed,
            ["./edited", "./gone", "./link", "./now-a-file", "./old"]
        );
    }

    #[test]
    fn what_lines_can_not_hold_is_no_listing() {
        for text in [
            "",
            "--\n--\n--\n",
            "x\n--\n--\n--\n--\n",
            "--\n--\n./a\nb\n--\n--\n",
        ] {
            assert_eq!(ArtifactListing::parse(text.as_bytes()), None, "{text:?}");
        }
        let whole = ArtifactListing::parse(b"--\n--\n--\n.\n--\n");
        assert_eq!(whole, Some(ArtifactListing::default()));
        // The same mode is asked for.
        let sum = "a".repeat(64);
        let listing = ArtifactListing::parse(format!("--\n{sum}  ./f\n--\n--\n--\n").as_bytes());
        let file = |mode| Item::file("f", mode);
        let digest = |_: &Item| Ok(sum.clone());
        let delta = |mode| {
            listing
                .clone()
                .expect("reads")
                .delta(&[file(mode)], &digest)
        };
        assert!(delta(0o644).expect("compares").sends(&file(0o644)));
        assert!(!delta(0o755).expect("compares").sends(&file(0o755)));
    }
}
