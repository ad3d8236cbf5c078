//! The ways to what commands read: directories and links between the root and a file.
//!
//! A file keeps its times when a directory above it is swapped for another, or a link turned, and
//! may be another one for a while.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::build::digest::{ContentKind, RunStart, latest_possible_ns};
use crate::core::fs::{self, RepoPath, Signature};

/// What stands on the ways to some files, each directory looked at once.
pub(super) struct AncestorStamps(BTreeMap<PathBuf, Metadata>);

impl AncestorStamps {
    /// Looks at the ways to files below `root`.
    pub(super) fn to<'a>(
        files: impl Iterator<Item = (&'a RepoPath, ContentKind)>,
        root: &Path,
    ) -> Self {
        let mut ways = Self(BTreeMap::new());
        for (path, kind) in files {
            let path = path.to_absolute(root);
            match (kind, path.parent()) {
                (ContentKind::Link, _) => ways.stat_ancestors(&path, root, fs::LINKS_MAX),
                (_, Some(dir)) => ways.stat_ancestors(dir, root, fs::LINKS_MAX),
                (_, None) => {}
            }
        }
        ways
    }

    fn stat_ancestors(&mut self, from: &Path, root: &Path, links: usize) {
        let is_below = |at: &&Path| at.starts_with(root) && *at != root;
        for at in from.ancestors().take_while(is_below) {
            if self.0.contains_key(at) {
                // The caller that was here has seen, or will see, what is above as well.
                return;
            }
            let Ok(Some(meta)) = fs::lstat(at) else {
                continue;
            };
            let is_link = meta.is_symlink() && links > 0;
            self.0.insert(at.to_owned(), meta);
            if is_link && let (Ok(text), Some(dir)) = (std::fs::read_link(at), at.parent()) {
                self.stat_ancestors(&dir.join(text), root, links - 1);
            }
        }
    }

    /// Returns whether this is on one of the ways.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    /// Returns what does not stand there any more, or did not all the time.
    pub(super) fn first_changed(&self) -> Option<&Path> {
        let is_gone = |(at, before): &(&PathBuf, &Metadata)| {
            let after = fs::lstat(at).ok().flatten();
            after.is_none_or(|after| is_moved(before, &after))
        };
        self.0.iter().find(is_gone).map(|(at, _)| at.as_path())
    }

    /// Returns what came to its place after `start`, as far as times alone show it.
    pub(super) fn moved_since(&self, start: &RunStart) -> impl Iterator<Item = &Path> {
        let is_since = |(_, meta): &(&PathBuf, &Metadata)| {
            let seen = Signature::of(meta);
            // An entry that comes or goes sets both times of a directory, a new name one. In a new
            // directory the files are new as well; or an overlay has copied it (`is_moved`).
            let is_renamed =
                || latest_possible_ns(seen.mtime_ns) < start.ns && btime_ns(meta) < start.ns;
            start.is_before(seen.ctime_ns) && (meta.is_symlink() || is_renamed())
        };
        self.0.iter().filter(is_since).map(|(at, _)| at.as_path())
    }
}

/// Returns whether a link or a directory is another one, or has had another name in between: that
/// sets the change time alone. So does a new mode, or for links a new hard link, which show; and an
/// overlay, as in a container, copies a directory to its upper layer when something below it is
/// written: then it is born anew.
fn is_moved(before: &Metadata, after: &Metadata) -> bool {
    let (old, new) = (Signature::of(before), Signature::of(after));
    let is_other =
        (old.device, old.inode, before.file_type()) != (new.device, new.inode, after.file_type());
    let is_explained = old.mode != new.mode
        || before.nlink() != after.nlink()
        || btime_ns(before) != btime_ns(after)
        || (before.is_dir() && old.mtime_ns != new.mtime_ns);
    is_other || (old.ctime_ns != new.ctime_ns && !is_explained)
}

/// Returns when something was made; 0 where a file system does not know.
fn btime_ns(meta: &Metadata) -> i64 {
    let born = meta.created().ok();
    let born = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    born.map_or(0, |at| i64::try_from(at.as_nanos()).unwrap_or(0))
}
