//! Whose files and directories are used, and who else may write to them.
//!
//! A directory that another user may write to lets that user choose what is in it: links that
//! lead elsewhere, or results that are believed. So what `rel` keeps lies in directories that
//! belong to its user, and that no other user may write to.

use std::ffi::OsString;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use crate::core::error::{Error, ErrorKind, IoContext, Result};

/// Mode of a directory that `rel` keeps something in.
pub const PRIVATE_DIR: u32 = 0o700;

/// In a directory with this bit only the owner of a file may rename or remove it.
pub const STICKY: u32 = 0o1000;

/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// A file that was read, and the number of the user whom it belonged to then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its owner.
    pub owner: u32,
}

/// The users whose files count as this user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    user: u32,
    /// Who became root by `sudo`.
    sudo: Option<u32>,
}

impl Owners {
    /// Returns the owners for this process. `sudo_uid` is the value of `SUDO_UID`, which counts
    /// for root alone: that user may act as root already.
    pub fn new(sudo_uid: Option<&str>) -> Self {
        Self::of(rustix::process::geteuid().as_raw(), sudo_uid)
    }

    fn of(user: u32, sudo_uid: Option<&str>) -> Self {
        let sudo = sudo_uid.and_then(|uid| uid.parse().ok());
        Self {
            user,
            sudo: sudo.filter(|_| user == 0),
        }
    }

    /// Returns whether files of the user with this number are ours.
    pub fn are_ours(&self, uid: u32) -> bool {
        uid == self.user || Some(uid) == self.sudo
    }

    /// Returns whether files of that user are ours or root's, who needs no file to act as us.
    pub fn are_trusted(&self, uid: u32) -> bool {
        uid == 0 || self.are_ours(uid)
    }

    /// Returns whether that user is who runs this process: what only one user may set.
    pub fn is_user(&self, uid: u32) -> bool {
        uid == self.user
    }
}

/// Why a directory is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// It is a symbolic link.
    Link,
    /// It is something else that is no directory.
    NotDirectory,
    /// It belongs to the user with this number.
    Owner(u32),
    /// Others may write to it; its mode.
    Writable(u32),
}

impl Unsafe {
    /// Returns what is wrong with a directory of which `lstat` says `meta`, if anything.
    pub fn of(meta: &Metadata, is_owner: impl Fn(u32) -> bool) -> Option<Self> {
        let mode = meta.mode() & 0o7777;
        match () {
            () if meta.is_symlink() => Some(Self::Link),
            () if !meta.is_dir() => Some(Self::NotDirectory),
            () if !is_owner(meta.uid()) => Some(Self::Owner(meta.uid())),
            () if mode & OTHERS_WRITE != 0 => Some(Self::Writable(mode)),
            () => None,
        }
    }

    /// Returns whether another user than the owner can replace what lies in a directory, or what
    /// a link leads to, of which `lstat` says `meta`.
    fn on_the_way(
        meta: &Metadata,
        is_root: impl Fn(u32) -> bool,
        is_owner: impl Fn(u32) -> bool,
    ) -> Option<Self> {
        let (mode, uid) = (meta.mode() & 0o7777, meta.uid());
        // Where only the owner of a file may remove it no other user can.
        let is_kept = !meta.is_dir() || mode & STICKY != 0;
        // Most systems give each user a group of the same number, with no other user in it. For root
        // these bits can also be those of an access list.
        let is_own_group = mode & OTHERS_WRITE == 0o020 && meta.gid() == uid && !is_root(uid);
        match () {
            () if !is_root(uid) && !is_owner(uid) => Some(Self::Owner(uid)),
            () if mode & OTHERS_WRITE == 0 || is_kept || is_own_group => None,
            () => Some(Self::Writable(mode)),
        }
    }
}

/// As many symbolic links as Linux follows on the way to a file.
const LINKS_MAX: usize = 40;

/// Looks at everything on the way to an absolute path, and on the ways that links there lead, as
/// far as it exists. Returns what another user can replace, and so what lies below it.
///
/// # Errors
/// Those of the system, and a path of too many links.
pub fn unsafe_way(
    path: &Path,
    is_owner: impl Fn(u32) -> bool,
) -> Result<Option<(PathBuf, Unsafe)>> {
    let mut rest: Vec<OsString> = parts(path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    // In a container root can have another number.
    let root = std::fs::metadata("/").context("look at", &at)?.uid();
    loop {
        let meta = match std::fs::symlink_metadata(&at) {
            Err(e) if super::is_absent(&e) => return Ok(None),
            found => found.context("look at", &at)?,
        };
        if let Some(why) = Unsafe::on_the_way(&meta, |uid| uid == 0 || uid == root, &is_owner) {
            return Ok(Some((at, why)));
        }
        if meta.is_symlink() {
            links += 1;
            let target = std::fs::read_link(&at).context("read", &at)?;
            if links > LINKS_MAX {
                return Err(io::Error::from(Errno::LOOP)).context("look at", path);
            }
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        }
        // No name is left of what is behind a link: `at` has none in it.
        match rest.pop() {
            Some(name) if name == ".." => drop(at.pop()),
            Some(name) => at.push(name),
            None => return Ok(None),
        }
    }
}

/// Returns the names in a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        _ => None,
    });
    names.collect()
}

/// Makes a directory for its owner alone, unless a directory is there, and returns what `lstat`
/// says of it. No link is followed.
///
/// # Errors
/// Those of the system. That something else stands there is none: the metadata tells.
pub fn make_dir(path: &Path) -> Result<Metadata> {
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).context("create directory", path);
        }
        _ => {}
    }
    std::fs::symlink_metadata(path).context("look at", path)
}

/// Makes a directory like [`make_dir`] in one that is the user's own already.
///
/// # Errors
/// Those of the system; a link or something else that is not a directory stands there.
pub fn own_dir(path: &Path) -> Result<()> {
    match make_dir(path)?.is_dir() {
        true => Ok(()),
        false => {
            let shown = super::shown(path.as_os_str()).into_owned();
            let message = format!("`{shown}` is not used: it is not a directory");
            Err(Error::new(ErrorKind::Io, message).help(format!("remove it: rm {shown}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn sudo_counts_for_root_alone() {
        let root = Owners::of(0, Some("1000"));
        assert!(root.are_ours(1000) && root.are_ours(0) && !root.are_ours(1001));
        assert!(!root.is_user(1000));
        let user = Owners::of(1000, Some("1001"));
        assert!(!user.are_ours(1001) && !user.are_ours(0));
        assert!(user.are_trusted(0) && !user.are_trusted(1001));
        assert!(!Owners::of(0, Some("-1")).are_ours(u32::MAX));
        assert!(!Owners::of(0, None).are_ours(1000));
    }

    #[test]
    fn only_a_directory_of_ones_own_is_safe() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let user = rustix::process::geteuid().as_raw();
        let check = |name: &str, is_owner: bool| {
            let meta = std::fs::symlink_metadata(path(name)).expect("is there");
            Unsafe::of(&meta, |uid| is_owner && uid == user)
        };
        let made = make_dir(&path("dir")).expect("makes");
        assert_eq!(made.mode() & 0o777, 0o700);
        assert_eq!(check("dir", true), None);
        assert_eq!(check("dir", false), Some(Unsafe::Owner(user)));
        symlink("dir", path("link")).expect("links");
        assert!(own_dir(&path("dir")).is_ok() && own_dir(&path("link")).is_err());
        assert!(make_dir(&path("link")).expect("looks").is_symlink());
        assert_eq!(check("link", true), Some(Unsafe::Link));
        std::fs::write(path("file"), "").expect("writes");
        assert_eq!(check("file", true), Some(Unsafe::NotDirectory));
        for (mode, wrong) in [(0o755, None), (0o775, Some(0o775)), (0o702, Some(0o702))] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path("dir"), mode).expect("sets");
            assert_eq!(check("dir", true), wrong.map(Unsafe::Writable));
        }
    }

    #[test]
    fn the_whole_way_counts_also_behind_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        let user = rustix::process::geteuid().as_raw();
        let way = |name: &str, is_owner: bool| {
            let way = unsafe_way(&path(name), |uid| is_owner && uid == user);
            let found = way.expect("looks")?;
            Some((found.0.strip_prefix(dir.path()).ok()?.to_owned(), found.1))
        };
        std::fs::create_dir_all(path("a/open/c")).expect("makes");
        symlink("a/open/../open/c", path("link")).expect("links");
        symlink("loop", path("loop")).expect("links");
        assert_eq!(way("a/open/c/not/there", true), None);
        assert_eq!(way("link", true), None);
        let open = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path("a/open"), mode).expect("sets");
        };
        open(0o777);
        let wrong = Some(("a/open".into(), Unsafe::Writable(0o777)));
        assert_eq!(way("a/open/c", true), wrong);
        assert_eq!(way("link", true), wrong);
        open(0o1777);
        assert_eq!(way("link", true), None);
        open(0o775);
        assert_eq!(way("link", true).is_none(), user != 0);
        if user != 0 {
            assert_eq!(way("a", false), Some(("".into(), Unsafe::Owner(user))));
        }
        assert!(unsafe_way(&path("loop"), |_| true).is_err());
    }
}
