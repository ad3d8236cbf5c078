//! Accepting what a command made on a stage: its declared outputs, moved into the tree.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::permissions::{self, Made};
use super::{check_promise, existing, make_parents, modes};
use crate::build::digest::FileHasher;
use crate::build::graph::Target;
use crate::core::error::{Error, IoContext, Result};
use crate::core::fs;

/// Moves the outputs of `target` from the tree below `stage` into the one that `digests` is
/// about. Nothing is moved unless all that was promised is there.
pub fn export_from_sandbox(target: &Target, stage: &Path, digests: &FileHasher) -> Result<()> {
    let staged = FileHasher::load(stage, PathBuf::new());
    for output in &target.outputs {
        check_promise(target, output, &staged)?;
    }
    for path in existing(target, &staged)? {
        let (from, to) = (path.to_absolute(stage), path.to_absolute(digests.root()));
        let is_dir = fs::lstat(&from)?.is_some_and(|m| m.is_dir());
        check_link(target, &path, &from, stage)?;
        make_parents(digests.root(), &path, !is_dir)?;
        if !is_dir {
            // Before it has a name in the tree.
            permissions::close(&from, Made::OnStage).context("set the mode of", &from)?;
            move_file(&from, &to).context("write", &to)?;
        }
    }
    // When all is in them.
    for (dir, mode) in modes(target, &[], &staged).iter().rev() {
        let dir = dir.to_absolute(digests.root());
        permissions::leave_only(&dir, *mode).context("set the mode of", &dir)?;
    }
    Ok(())
}

/// A link to a place on the stage would lead nowhere once the stage is gone.
fn check_link(target: &Target, path: &fs::RepoPath, from: &Path, stage: &Path) -> Result<()> {
    let leads_to = std::fs::read_link(from).unwrap_or_default();
    match leads_to.starts_with(stage) {
        false => Ok(()),
        true => Err(Error::failed(format!(
            "`{}` made `{path}` a link to its sandbox, which is gone when it has ended",
            target.name
        ))
        .help("make the link a relative one")),
    }
}

/// Moves a file where nothing stands; another file system gets a copy.
fn move_file(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows that flag.
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(from, to),
        Err(Errno::XDEV) if from.is_symlink() => {
            std::os::unix::fs::symlink(std::fs::read_link(from)?, to)
        }
        Err(Errno::XDEV) => {
            // Reading a pipe would wait for its other end.
            fs::open_regular(from)?;
            std::fs::copy(from, to).map(drop)
        }
        other => Ok(other?),
    }
}

/// Moves whatever is at `from` onto another file system. Until all of it is there, all of it stays.
pub(super) fn move_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let to = match entry.path().strip_prefix(from) {
            Ok(below) if entry.depth() > 0 => to.join(below),
            _ => to.to_owned(),
        };
        let kind = entry.file_type();
        match () {
            () if kind.is_dir() => DirBuilder::new().mode(fs::PRIVATE_DIR).create(&to)?,
            () if kind.is_file() || kind.is_symlink() => move_file(entry.path(), &to)?,
            // Reading a pipe would wait for a writer.
            () => return Err(std::io::ErrorKind::CrossesDevices.into()),
        }
    }
    match from.is_symlink() || !from.is_dir() {
        true => std::fs::remove_file(from),
        false => fs::remove_tree(from),
    }
}
