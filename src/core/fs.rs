//! The file system: repository paths, stat signatures, atomic writes, locks.
//!
//! The only module that gives other modules file names as types. A [`RepoPath`] is
//! relative to the repository root and holds any bytes a file name may have; it is
//! escaped only when shown. Atomic means: written beside, flushed, renamed over. Files are
//! opened in `fs/regular.rs`; `fs/owner.rs` knows whose directories are used.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::error::{IoContext, Result};
use crate::core::escape;

mod holes;
mod owner;
mod regular;
mod remove;

pub use holes::Holes;
pub use owner::{Owners, PRIVATE_DIR, ReadFile, STICKY, Unsafe, make_dir, own_dir, unsafe_way};
pub use regular::{
    TEXT_BYTES_MAX, append_own, create_own, open_own, open_own_to_write, open_regular,
    read_at_most, read_described, read_own, read_regular, read_text, utf8,
};
pub use remove::remove_tree;

/// Name of the state directory beside the Releasefile.
pub const STATE_DIR: &str = ".rel";

/// How the names of files start that are renamed once they are whole.
pub const TEMPORARY: &str = ".tmp-";

/// A normalised path relative to the repository root; any bytes but NUL.
///
/// Inputs may also be absolute (`/etc/ssl/ca.pem`) or lead upwards (`../shared/x`).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(PathBuf);

// Stored as bytes: serde's own way with paths refuses names that are not UTF-8.
impl Serialize for RepoPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_os_str().as_bytes())
    }
}

impl<'de> Deserialize<'de> for RepoPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = RepoPath;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a path")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<RepoPath, E> {
                // One that is written otherwise was not written by `rel`, and may lead out of
                // the directory that it seems to lie in.
                match is_normal(bytes) {
                    true => Ok(RepoPath(OsStr::from_bytes(bytes).into())),
                    false => Err(E::custom("a path that is not normalised")),
                }
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Returns whether a stored path is one that [`RepoPath::new`] makes.
fn is_normal(bytes: &[u8]) -> bool {
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let mut may_climb = true;
    relative.is_empty()
        || relative.split(|b| *b == b'/').all(|part| {
            let is_climb = part == b"..";
            may_climb &= is_climb;
            !part.is_empty() && part != b"." && (!is_climb || may_climb)
        }) && !bytes.contains(&0)
}

impl RepoPath {
    /// Returns the normalised path: no `.`, no `a/../`, no doubled or trailing slash.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let mut out = PathBuf::new();
        for component in path.as_ref().components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    let can_pop =
                        matches!(out.components().next_back(), Some(Component::Normal(_)));
                    if can_pop {
                        out.pop();
                    } else {
                        out.push("..");
                    }
                }
                other => out.push(other),
            }
        }
        Self(out)
    }

    /// The repository root itself.
    pub fn root() -> Self {
        Self(PathBuf::new())
    }

    /// Returns the path, relative to the root.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the raw bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }

    /// Returns the path as the operating system takes it, `.` for the root.
    pub fn as_os_str(&self) -> &OsStr {
        match self.is_root() {
            true => OsStr::new("."),
            false => self.0.as_os_str(),
        }
    }

    /// Returns whether this is the repository root.
    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// Returns whether the path stays inside the repository.
    pub fn is_inside(&self) -> bool {
        self.0.is_relative() && !self.0.starts_with("..")
    }

    /// Returns this path with `name` below it.
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self::new(self.0.join(name))
    }

    /// Returns whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Returns the absolute path below `root`.
    pub fn to_absolute(&self, root: &Path) -> PathBuf {
        match self.is_root() {
            true => root.to_owned(),
            false => root.join(&self.0),
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.as_os_str()))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Returns a file name for people: what [`escape`] calls unsafe, tabs, and bytes that are not
/// UTF-8 are escaped, so that a name cannot move the cursor or break a line.
pub fn shown(name: &OsStr) -> Cow<'_, str> {
    match name.to_str() {
        Some(text) if !text.chars().any(escape::is_unsafe) => Cow::Borrowed(text),
        _ => {
            let mut out = String::new();
            for chunk in name.as_bytes().utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        c if escape::is_unsafe(c) => out.extend(c.escape_default()),
                        c => out.push(c),
                    }
                }
                for b in chunk.invalid() {
                    out.push_str(&format!("\\x{b:02x}"));
                }
            }
            Cow::Owned(out)
        }
    }
}

/// Returns whether something is mounted at a path.
pub fn is_mount(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    statx(CWD, path, flags, StatxFlags::empty()).is_ok_and(|told| {
        told.stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
            && told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// What `stat` says that changes when a file changes.
///
/// Change time is in it because modification time can be set back (`cp -p`,
/// `rsync -t`, `git`), and the inode number because a file can be renamed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// Device number.
    pub device: u64,
    /// File type and permission bits.
    pub mode: u32,
}

impl Signature {
    /// Returns the signature of what `lstat` or `stat` said.
    pub fn of(meta: &Metadata) -> Self {
        let ns = |s: i64, n: i64| s.wrapping_mul(1_000_000_000).wrapping_add(n);
        Self {
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
            device: meta.dev(),
            mode: meta.mode(),
        }
    }

    /// Returns the signature of what `fstatat` said.
    // The types of the fields differ between platforms.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    pub fn of_stat(stat: &rustix::fs::Stat) -> Self {
        let ns = |s: i64, n: i64| s.wrapping_mul(1_000_000_000).wrapping_add(n);
        Self {
            size: stat.st_size as u64,
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
            mode: stat.st_mode as u32,
        }
    }

    /// Returns the later of the two times.
    pub fn newest_ns(&self) -> i64 {
        self.mtime_ns.max(self.ctime_ns)
    }
}

/// Returns whether a file with this mode may be executed by its owner.
pub fn is_executable(mode: u32) -> bool {
    mode & 0o100 != 0
}

/// Writes `bytes` to `path` so that a reader sees the old or the new file, never a part.
///
/// The parent directory must exist. The data is flushed to disk before the rename.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, true)
}

/// Writes like [`write_atomically`], without flushing: after a power cut the file may be
/// torn. For what carries a checksum and is safe to lose.
pub fn write_lightly(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, false)
}

fn replace(path: &Path, bytes: &[u8], is_flushed: bool) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(dir)
        .context("create a temporary file in", dir)?;
    file.write_all(bytes).context("write", path)?;
    if is_flushed {
        file.as_file().sync_data().context("flush", path)?;
    }
    file.persist(path)
        .map_err(|e| e.error)
        .context("write", path)?;
    Ok(())
}

/// Removes what killed runs left of files that they were writing in `dir`. The caller holds
/// the lock under which such files are written.
pub fn remove_leftovers(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            // One that cannot be removed is in no one's way.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Creates a directory and its parents, for their owner alone.
pub fn create_dirs(path: &Path) -> Result<()> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path);
    made.context("create directory", path)
}

/// Reads a regular file, or returns `None` when it does not exist.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_regular(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context("read", path),
    }
}

/// Links that are followed from one path, as the kernel does.
pub const LINKS_MAX: usize = 40;

/// Returns the text of the link at `path` below `root`, and the path that follows from it; `None`
/// where that is not where the kernel goes: `..` in the text, behind a directory that is itself
/// reached through a link.
pub fn read_link(root: &Path, path: &RepoPath) -> std::io::Result<(PathBuf, Option<RepoPath>)> {
    let absolute = path.to_absolute(root);
    let text = std::fs::read_link(&absolute)?;
    let next = path.join("..").join(&text);
    let file = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let is_up = text.components().any(|c| c == Component::ParentDir);
    let leads_there = !is_up || file(&absolute) == file(&next.to_absolute(root));
    Ok((text, leads_there.then_some(next)))
}

/// Returns what `lstat` says of `path`, or `None` when nothing is there.
pub fn lstat(path: &Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e).context("look at", path),
    }
}

/// Returns whether an error says that nothing is at a path.
pub fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

/// Opens a file below `dir` to hash it, without waiting for a writer.
///
/// Where that is allowed its access time stays as it was: after a `touch` the kernel would write
/// to the inode of each file that is read, which costs as much as reading a small one.
pub fn open_to_hash(dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    #[cfg(target_os = "linux")]
    match openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Files of others are read like any other.
        Err(rustix::io::Errno::PERM) => {}
        opened => return Ok(opened?.into()),
    }
    Ok(openat(&dir, name, flags, Mode::empty())?.into())
}

/// Returns bytes that cannot be guessed.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.context("read", path)?;
    Ok(bytes)
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> Result<File> {
    open_regular(path).context("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn paths_are_normalised() {
        for (text, expected) in [
            ("a/./b//c/", "a/b/c"),
            ("a/../b", "b"),
            ("../x", "../x"),
            ("a/../../x", "../x"),
            ("/etc/../x", "/x"),
            (".", "."),
        ] {
            assert_eq!(RepoPath::new(text).to_string(), expected, "{text}");
        }
        assert!(!RepoPath::new("../x").is_inside());
        assert!(!RepoPath::new("/x").is_inside());
    }

    #[test]
    fn any_name_can_be_stored() {
        let path = RepoPath::new(OsStr::from_bytes(b"a/\xff b"));
        let bytes = postcard::to_stdvec(&path).expect("encodes");
        assert_eq!(postcard::from_bytes::<RepoPath>(&bytes), Ok(path));
    }

    #[test]
    fn a_stored_path_is_as_it_would_be_made() {
        for text in [
            "", "a", "a/b", "..", "../../x", "/", "/etc/x", "..a", "a/..b", ".a", "../a/b.",
            "a/...",
        ] {
            let path = RepoPath::new(text);
            let bytes = postcard::to_stdvec(&path).expect("encodes");
            assert_eq!(postcard::from_bytes::<RepoPath>(&bytes), Ok(path), "{text}");
        }
        for text in [
            "a/../../x",
            "a/..",
            "../a/../b",
            ".",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "//a",
            "/../x/..",
            "a\0b",
        ] {
            let bytes = postcard::to_stdvec(&RepoPath(PathBuf::from(text))).expect("encodes");
            assert!(postcard::from_bytes::<RepoPath>(&bytes).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_escaped_when_shown() {
        let name = OsString::from_vec(b"a\nb\xff\x1b[2J".to_vec());
        assert_eq!(shown(&name), "a\\nb\\xff\\u{1b}[2J");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn hashing_leaves_the_access_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, b"text").expect("writes");
        // Older than the last change, so that any other reader would move it.
        let old = std::time::SystemTime::UNIX_EPOCH;
        let file = File::options().write(true).open(&path).expect("opens");
        let times = std::fs::FileTimes::new().set_accessed(old);
        file.set_times(times).expect("sets");
        let mut text = String::new();
        let mut file = open_to_hash(rustix::fs::CWD, &path).expect("opens");
        std::io::Read::read_to_string(&mut file, &mut text).expect("reads");
        let accessed = file.metadata().and_then(|m| m.accessed());
        assert_eq!((text.as_str(), accessed.expect("is there")), ("text", old));
        assert!(open_to_hash(rustix::fs::CWD, &dir.path().join("g")).is_err());
    }

    #[test]
    fn atomic_write_replaces_the_whole_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        write_atomically(&path, b"long text").expect("writes");
        write_atomically(&path, b"x").expect("writes");
        assert_eq!(std::fs::read(&path).expect("reads"), b"x");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }
}
