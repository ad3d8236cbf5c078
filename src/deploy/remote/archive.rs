//! Files -> a tar stream, as every `tar` reads it. Written here, so that any name arrives.
//!
//! Old-style headers, with GNU's long-name entries where a name does not fit. Owners
//! are left out and modes are 0755 or 0644: what arrives depends on the files and
//! not on who sends them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Size of a record of the format.
pub(super) const BLOCK: usize = 512;

/// One thing that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it is here.
    pub path: PathBuf,
    /// Its name in the archive.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// BLAKE3 of what must be in a file.
    pub hash: Option<[u8; 32]>,
    mtime: u64,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A directory.
    Dir,
    /// A symbolic link, with its target.
    Link(Vec<u8>),
    /// A file.
    File {
        /// 0644 or 0755.
        mode: u32,
        /// In bytes.
        size: u64,
    },
}

#[cfg(test)]
impl Item {
    /// Returns a file that is nowhere.
    pub fn file(name: &str, mode: u32) -> Self {
        Self {
            path: PathBuf::new(),
            name: name.into(),
            kind: ItemKind::File { mode, size: 0 },
            hash: None,
            mtime: 0,
        }
    }
}

/// A file that is read and held against what was built.
pub struct Checked<R> {
    from: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Checked<R> {
    /// Returns a reader of `from`.
    pub fn new(from: R) -> Self {
        let hasher = blake3::Hasher::new();
        Self { from, hasher }
    }

    /// Returns whether what was read is what must be in it, where that is known.
    pub fn is(&self, built: Option<&[u8; 32]>) -> bool {
        built.is_none_or(|built| self.hasher.finalize() == *built)
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Returns what `paths` hold: the content of a single directory, or else the files, each
/// under its own name. Directories come before what lies in them.
pub fn list(paths: &[PathBuf]) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    match paths {
        [dir] if dir.is_dir() => list_dir(dir, b"", &mut items)?,
        files => {
            for path in files {
                let name = path.file_name().unwrap_or_default();
                list_one(path, name.as_bytes(), &mut items)?;
            }
        }
    }
    Ok(items)
}

fn list_dir(dir: &Path, prefix: &[u8], items: &mut Vec<Item>) -> io::Result<()> {
    let mut names: Vec<std::ffi::OsString> = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = [prefix, name.as_bytes()].concat();
        list_one(&dir.join(&name), &path, items)?;
    }
    Ok(())
}

fn list_one(path: &Path, name: &[u8], items: &mut Vec<Item>) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = if meta.is_dir() {
        ItemKind::Dir
    } else if meta.is_symlink() {
        let target = std::fs::read_link(path)?;
        ItemKind::Link(target.as_os_str().as_bytes().to_vec())
    } else if meta.is_file() {
        let mode = match meta.permissions().mode() & 0o100 {
            0 => 0o644,
            _ => 0o755,
        };
        let size = meta.len();
        ItemKind::File { mode, size }
    } else {
        let shown = crate::core::fs::shown(OsStr::from_bytes(name)).into_owned();
        let text = format!("`{shown}` is neither file, directory nor link");
        return Err(io::Error::other(text));
    };
    items.push(Item {
        path: path.to_owned(),
        name: name.to_vec(),
        mtime: meta.mtime().max(0) as u64,
        kind,
        hash: None,
    });
    match items.last() {
        Some(item) if item.kind == ItemKind::Dir => list_dir(path, &[name, b"/"].concat(), items),
        _ => Ok(()),
    }
}

/// Lets files hold nothing but what they were built with; an error where other files or links
/// stand there.
pub fn expect(items: &mut [Item], built: &BTreeMap<PathBuf, [u8; 32]>) -> io::Result<()> {
    let mut missing: BTreeSet<&PathBuf> = built.keys().collect();
    for item in items.iter_mut().filter(|i| i.kind != ItemKind::Dir) {
        missing.remove(&item.path);
        item.hash = built.get(&item.path).copied();
        let is_same = match (&item.kind, &item.hash) {
            (ItemKind::Link(text), Some(hash)) => blake3::hash(text) == *hash,
            (_, hash) => hash.is_some(),
        };
        if !is_same {
            return Err(changed(item.path.as_os_str()));
        }
    }
    missing
        .first()
        .map_or(Ok(()), |path| Err(changed(path.as_os_str())))
}

/// Returns the error for what is not what was built.
pub fn changed(name: &OsStr) -> io::Error {
    let shown = crate::core::fs::shown(name);
    io::Error::other(format!("`{shown}` was changed after it was built"))
}

/// Writes items as one archive.
pub fn write<'a>(items: impl Iterator<Item = &'a Item>, out: &mut dyn Write) -> io::Result<()> {
    for item in items {
        write_one(item, out)?;
    }
    write_end(out)
}

/// Writes the two empty records that end an archive.
pub(super) fn write_end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn write_one(item: &Item, out: &mut dyn Write) -> io::Result<()> {
    let mut entry = Entry {
        name: &item.name,
        kind: b'0',
        mode: 0o777,
        size: 0,
        mtime: item.mtime,
        link: b"",
    };
    let dir_name;
    match &item.kind {
        ItemKind::Dir => {
            dir_name = [&item.name[..], b"/"].concat();
            (entry.name, entry.kind, entry.mode) = (&dir_name, b'5', 0o755);
            header(&entry, out)
        }
        ItemKind::Link(target) => {
            (entry.kind, entry.link) = (b'2', target);
            header(&entry, out)
        }
        ItemKind::File { mode, size } => {
            (entry.mode, entry.size) = (*mode, *size);
            header(&entry, out)?;
            let file = crate::core::fs::open_regular(&item.path)?.take(*size);
            let mut file = Checked::new(file);
            // A file that shrinks meanwhile must not shift all that follows.
            if io::copy(&mut file, out)? != *size || !file.is(item.hash.as_ref()) {
                return Err(changed(item.path.as_os_str()));
            }
            pad(*size, out)
        }
    }
}

/// What a header says.
pub(super) struct Entry<'a> {
    pub name: &'a [u8],
    /// The type flag: `b'0'` for a file, `b'1'` a hard link, `b'2'` a symbolic link, `b'5'` a
    /// directory.
    pub kind: u8,
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// What a link leads to.
    pub link: &'a [u8],
}

/// Writes a header, and before it the entries that hold names too long for it.
pub(super) fn header(entry: &Entry<'_>, out: &mut dyn Write) -> io::Result<()> {
    for (kind, text) in [(b'K', entry.link), (b'L', entry.name)] {
        if text.len() > 100 {
            let long = Entry {
                name: b"././@LongLink",
                kind,
                mode: 0o644,
                size: text.len() as u64 + 1,
                mtime: 0,
                link: b"",
            };
            out.write_all(&block(&long))?;
            out.write_all(text)?;
            out.write_all(&[0])?;
            pad(long.size, out)?;
        }
    }
    out.write_all(&block(entry))
}

fn block(entry: &Entry<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let put = |block: &mut [u8; BLOCK], at: usize, bytes: &[u8]| {
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut block, 0, &entry.name[..entry.name.len().min(100)]);
    put(&mut block, 100, format!("{:07o}", entry.mode).as_bytes());
    put(&mut block, 108, b"0000000\x000000000");
    match entry.size < 1 << 33 {
        true => put(&mut block, 124, format!("{:011o}", entry.size).as_bytes()),
        // Too large for eleven octal digits: GNU's binary form.
        false => {
            block[124] = 0x80;
            put(&mut block, 128, &entry.size.to_be_bytes());
        }
    }
    put(&mut block, 136, format!("{:011o}", entry.mtime).as_bytes());
    put(&mut block, 148, b"        ");
    block[156] = entry.kind;
    put(&mut block, 157, &entry.link[..entry.link.len().min(100)]);
    put(&mut block, 257, b"ustar  \0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Writes what fills the last record of content of that size.
pub(super) fn pad(size: u64, out: &mut dyn Write) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        over => out.write_all(&[0; BLOCK][over..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_name_arrives() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let long = "l".repeat(120);
        let names: [&[u8]; 6] = [
            b"plain",
            b"with space",
            b"new\nline",
            b"quo'te\"s$(x)",
            b"not-utf8-\xff",
            long.as_bytes(),
        ];
        std::fs::create_dir_all(from.join("sub/empty")).expect("makes");
        std::fs::create_dir_all(&to).expect("makes");
        for name in names {
            let name = OsStr::from_bytes(name);
            std::fs::write(from.join("sub").join(name), name.as_bytes()).expect("writes");
        }
        std::os::unix::fs::symlink("sub/plain", from.join("link")).expect("links");
        let archive = dir.path().join("a.tar");
        let mut file = std::fs::File::create(&archive).expect("creates");
        let items = list(std::slice::from_ref(&from)).expect("lists");
        write(items.iter(), &mut file).expect("writes");
        for tar in [&["tar"][..], &["busybox", "tar"]] {
            let status = Command::new(tar[0])
                .args(&tar[1..])
                .arg("-C")
                .arg(&to)
                .arg("-xopf")
                .arg(&archive)
                .status();
            // busybox is not on every machine; GNU tar is the one that must be.
            if !status.is_ok_and(|s| s.success()) {
                assert_eq!(tar[0], "busybox");
                continue;
            }
            for name in names {
                let name = OsStr::from_bytes(name);
                let found = std::fs::read(to.join("sub").join(name)).expect("is there");
                assert_eq!(found, name.as_bytes());
            }
            assert!(to.join("sub/empty").is_dir());
            assert_eq!(
                std::fs::read_link(to.join("link")).expect("a link"),
                Path::new("sub/plain")
            );
        }
    }
}
