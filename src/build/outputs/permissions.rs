//! Permissions of outputs: what would let other users change them, or become another user by running
//! them, is taken away. A result that is restored never had it.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, chownat, fstat, getxattr, open, removexattr,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

/// Set-user-ID, set-group-ID, sticky; writing by the group and by others.
const TAKEN_FROM_FILES: u32 = 0o7022;
/// A directory hands its set-group-ID bit on, and its sticky bit protects.
const TAKEN_FROM_DIRS: u32 = 0o022;
/// Capabilities of the process that runs the file.
const CAPABILITIES: &str = "security.capability";

/// Permissions of what is restored, before the process's mask: of programs and directories, and of
/// other files.
pub(super) const USUAL_RUN: u32 = 0o755;
pub(super) const USUAL: u32 = 0o644;

/// Returns the permissions of a file or a directory, if they are closer than the usual ones,
/// whether a command or the mask of its process took them away. A link has none, and neither has
/// nothing. A directory stays open to its owner, who could not empty it otherwise.
pub(super) fn closer(path: &Path) -> Option<u32> {
    let file = open(path, LOOK, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let mut mode = stat.st_mode & 0o777;
    let usual = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mode |= 0o700;
            USUAL_RUN
        }
        FileType::RegularFile if mode & 0o100 != 0 => USUAL_RUN,
        FileType::RegularFile => USUAL,
        _ => return None,
    };
    (usual & !mode != 0).then_some(mode)
}

/// Takes from a directory all permissions but these.
///
/// # Errors
/// The system refuses that.
pub(super) fn leave_only(path: &Path, mode: u32) -> io::Result<()> {
    let file = open(path, LOOK | OFlags::DIRECTORY, Mode::empty())?;
    let now = fstat(&file)?.st_mode & 0o7777;
    let mode = Mode::from_raw_mode(now & (mode | 0o7000));
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(chmodat(CWD, &path, mode, AtFlags::empty())?)
}

/// How what is looked at, and not read, is opened.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where an output was made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// On a stage, which nothing else is linked to: it gets the owner that a restored one has.
    OnStage,
    /// In the tree. A file with more names is left alone: another one may be another user's.
    InTree,
}

/// Closes a file or a directory to other users. A link is none of them, and nothing is fine.
///
/// # Errors
/// Something is to be taken away, and the system refuses that.
pub(super) fn close(path: &Path, made: Made) -> io::Result<()> {
    let file = match open(path, LOOK, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    let stat = fstat(&file)?;
    let is_file = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => true,
        FileType::Directory => false,
        _ => return Ok(()),
    };
    if is_file && made == Made::InTree && stat.st_nlink > 1 {
        return Ok(());
    }
    if made == Made::OnStage && stat.st_uid != geteuid().as_raw() {
        chownat(
            &file,
            "",
            Some(geteuid()),
            Some(getegid()),
            AtFlags::EMPTY_PATH,
        )?;
    }
    let taken = if is_file {
        TAKEN_FROM_FILES
    } else {
        TAKEN_FROM_DIRS
    };
    let mode = stat.st_mode & 0o7777;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if mode & taken != 0 {
        let mode = Mode::from_raw_mode(mode & !taken);
        chmodat(CWD, &path, mode, AtFlags::empty())?;
    }
    let is_run = is_file && mode & 0o111 != 0;
    if is_run && getxattr(&path, CAPABILITIES, &mut [0u8; 0]).is_ok() {
        removexattr(&path, CAPABILITIES)?;
    }
    Ok(())
}
