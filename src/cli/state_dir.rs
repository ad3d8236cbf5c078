//! The state directory of a checkout, `.rel`: whether it is used, and whether it is believed.
//!
//! It is *used* if it is a directory, no link, that belongs to the user and that no other user may
//! write to; otherwise the command is refused. What is in it is *believed* if `rel` made the
//! directory where it is now. A repository, an archive or a copy can bring a `.rel` along, with
//! records of what was never built here; no check of its contents would find that out. So `rel`
//! writes into `.rel/identity` which directory that is: its inode number and its time of
//! birth, which the kernel sets and no user can choose. Where they are others, nothing is known,
//! and the next run that takes the lock removes what it would otherwise believe.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;

use super::trust::refusal;
use crate::core::error::{Error, IoContext, Result};
use crate::core::fs::{self, Owners, PRIVATE_DIR, Unsafe};
use crate::deploy::remote::known_machines;

/// Name of the file that says which directory it was made in.
const IDENTITY: &str = "identity";

/// Everything in the directory that is believed, read again, or written into. It is safe to
/// lose.
const CONTENTS: [&str; 10] = [
    ".gitignore",
    IDENTITY,
    "graph.v1",
    "fresh.v1",
    "records.v1",
    "stat.v1",
    known_machines::FILE,
    "running",
    "logs",
    "sandbox",
];

/// Backups of files that were in the way of outputs, and the roots of local hosts: a person may
/// want them back. A former `rel` called the backups `aside`.
const LASTING: [&str; 3] = ["backup", "aside", "hosts"];

/// Whose directories are used.
#[derive(Clone, Copy)]
pub struct StateDirAccess<'a> {
    /// The users that count as this one.
    pub owners: Owners,
    /// Says whether the user has allowed the checkout with `rel trust`.
    pub is_trusted: &'a dyn Fn() -> bool,
}

/// A state directory, as it was when it was looked at.
pub struct StateDir {
    path: PathBuf,
    believed: Option<Identity>,
}

impl StateDir {
    /// Looks at the state directory of `root`, which need not exist. Nothing is changed.
    ///
    /// # Errors
    /// It is not used; exit code 2.
    pub fn find(root: &Path, access: &StateDirAccess<'_>) -> Result<Self> {
        let path = root.join(fs::STATE_DIR);
        let Some(meta) = fs::lstat(&path)? else {
            return Ok(Self {
                path,
                believed: None,
            });
        };
        let is_believed = match unsafe_for(&meta, access) {
            None => is_made_here(&path, &meta),
            // Who takes the lock closes it to others first.
            Some(Unsafe::Writable(_)) => false,
            Some(why) => return Err(refused(&path, why)),
        };
        let believed = is_believed.then(|| Identity::of(&meta));
        Ok(Self { path, believed })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory, if what is in it is believed.
    pub fn known(&self) -> Option<&Path> {
        self.believed.is_some().then_some(&*self.path)
    }

    /// Makes the directory, or closes it to others, and returns its identity if it is believed.
    ///
    /// # Errors
    /// It is not used, or cannot be made.
    pub(super) fn make(&self, access: &StateDirAccess<'_>) -> Result<Option<Identity>> {
        let meta = fs::make_dir(&self.path)?;
        match unsafe_for(&meta, access) {
            None => {}
            Some(Unsafe::Writable(_)) => {
                let meta = close_to_others(&self.path)?;
                if let Some(why) = unsafe_for(&meta, access) {
                    return Err(refused(&self.path, why));
                }
                // Until now others may have put something there.
                let identity = self.path.join(IDENTITY);
                return match std::fs::remove_file(&identity) {
                    Err(e) if !fs::is_absent(&e) => Err(e).context("remove", &identity),
                    _ => Ok(None),
                };
            }
            Some(why) => return Err(refused(&self.path, why)),
        }
        let now = Identity::of(&meta);
        let is_believed = self.believed.as_ref() == Some(&now) || is_made_here(&self.path, &meta);
        Ok(is_believed.then_some(now))
    }

    /// Makes the directory one that is believed. The caller holds the lock in it, and `make`
    /// has returned `believed`.
    pub(super) fn adopt(&self, believed: Option<Identity>) -> Result<()> {
        let meta = std::fs::symlink_metadata(&self.path).context("look at", &self.path)?;
        let now = Identity::of(&meta);
        match believed {
            Some(identity) if identity == now => return Ok(()),
            // An overlay gives a directory another identity when it is first written to.
            Some(_) => {}
            None if is_made_here(&self.path, &meta) => return Ok(()),
            None => {
                close_to_others(&self.path)?;
                self.clear()?;
            }
        }
        fs::write_lightly(&self.path.join(IDENTITY), now.text().as_bytes())
    }

    fn clear(&self) -> Result<()> {
        for name in CONTENTS {
            let path = self.path.join(name);
            let removed = match fs::lstat(&path)? {
                None => continue,
                Some(meta) if meta.is_dir() => fs::remove_tree(&path),
                Some(_) => std::fs::remove_file(&path),
            };
            removed.context("remove", &path)?;
        }
        for dir in LASTING.map(|name| self.path.join(name)) {
            match fs::lstat(&dir)? {
                None => {}
                Some(meta) if meta.is_dir() => remove_links(&dir)?,
                Some(_) => std::fs::remove_file(&dir).context("remove", &dir)?,
            }
        }
        Ok(())
    }
}

/// Removes the links right below a directory: they hold nothing, and would be followed.
fn remove_links(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).context("list directory", dir)? {
        let entry = entry.context("list directory", dir)?;
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            let path = entry.path();
            std::fs::remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Which directory one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    /// Nanoseconds since 1970; `None` where the file system does not keep it.
    born_ns: Option<u128>,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        let born = meta.created().ok();
        let born = born.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            inode: meta.ino(),
            born_ns: born.map(|at| at.as_nanos()),
        }
    }

    fn text(&self) -> String {
        let born = self.born_ns.map_or("-".into(), |ns| ns.to_string());
        format!("rel1 {} {born}\n", self.inode)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("rel1 ")?.strip_suffix('\n')?.split(' ');
        let inode = words.next()?.parse().ok()?;
        let born_ns = match words.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        words.next().is_none().then_some(Self { inode, born_ns })
    }
}

/// Returns whether the directory at `path`, of which `lstat` says `meta`, is the one that it says
/// it is.
fn is_made_here(path: &Path, meta: &Metadata) -> bool {
    let read = || -> Option<Identity> {
        let (mut file, _) = fs::open_own(&path.join(IDENTITY)).ok()?;
        let mut bytes = [0; 100];
        let len = file.read(&mut bytes).ok()?;
        Identity::parse(std::str::from_utf8(bytes.get(..len)?).ok()?)
    };
    let Some(written) = read() else { return false };
    let now = Identity::of(meta);
    // Some file systems number a file anew each time that it is looked at.
    let is_renumbered = || fs::lstat(path).is_ok_and(|m| m.is_some_and(|m| m.ino() != now.inode));
    written == now || (written.born_ns == now.born_ns && is_renumbered())
}

/// Returns why a state directory is not used, unless the user trusts the checkout.
fn unsafe_for(meta: &Metadata, access: &StateDirAccess<'_>) -> Option<Unsafe> {
    let why = Unsafe::of(meta, |uid| access.owners.are_ours(uid))?;
    let may_be_trusted = matches!(why, Unsafe::Owner(_) | Unsafe::Writable(_));
    (!may_be_trusted || !(access.is_trusted)()).then_some(why)
}

/// Takes all rights from others, where the file system keeps modes.
fn close_to_others(path: &Path) -> Result<Metadata> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut options = File::options();
    let dir = options
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    let dir = dir.context("open", path)?;
    // Where that is refused the mode is as it was, which is reported.
    let _ = dir.set_permissions(PermissionsExt::from_mode(PRIVATE_DIR));
    dir.metadata().context("look at", path)
}

fn refused(path: &Path, why: Unsafe) -> Box<Error> {
    let root = path.parent().unwrap_or(path);
    let (root, path_shown) = (fs::shown(root.as_os_str()), fs::shown(path.as_os_str()));
    let help = match why {
        Unsafe::Link | Unsafe::NotDirectory => format!("remove it: rm {path_shown}"),
        Unsafe::Owner(_) => format!(
            "remove it, or work in a checkout of your own; if you know who writes there: rel trust {root}"
        ),
        Unsafe::Writable(_) => format!(
            "its file system keeps no modes; if you know who writes there: rel trust {root}"
        ),
    };
    refusal(path, why).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn access() -> StateDirAccess<'static> {
        StateDirAccess {
            owners: Owners::new(None),
            is_trusted: &|| false,
        }
    }

    fn find(root: &Path) -> StateDir {
        StateDir::find(root, &access()).expect("is used")
    }

    /// Makes and adopts the state directory; returns whether it was believed before.
    fn take(root: &Path) -> bool {
        let state = find(root);
        let believed = state.make(&access()).expect("is made");
        let was_believed = believed.is_some();
        state.adopt(believed).expect("is adopted");
        was_believed
    }

    #[test]
    fn only_a_directory_that_was_made_here_is_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = |name: &str| {
            let root = dir.path().join(name);
            std::fs::create_dir_all(&root).expect("makes");
            root
        };
        let first = root("first");
        assert!(find(&first).known().is_none() && !first.join(".rel").exists());
        assert!(!take(&first) && take(&first));
        assert!(find(&first).known().is_some());
        std::fs::write(first.join(".rel/records.v1"), "kept").expect("writes");
        std::fs::create_dir_all(first.join(".rel/backup/x")).expect("makes");

        let copy = |to: &Path| {
            let mut cp = std::process::Command::new("cp");
            let copied = cp.arg("-a").arg(first.join(".rel")).arg(to).status();
            assert!(copied.expect("starts").success());
        };
        let second = root("second");
        copy(&second);
        assert!(find(&second).known().is_none());
        assert!(
            second.join(".rel/records.v1").exists(),
            "a question changes nothing"
        );
        assert!(!take(&second) && find(&second).known().is_some());
        assert!(!second.join(".rel/records.v1").exists());
        assert!(second.join(".rel/backup/x").exists());
        assert!(first.join(".rel/records.v1").exists() && take(&first));
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        for born_ns in [None, Some(0), Some(1_790_000_000_123_456_789)] {
            let identity = Identity { inode: 7, born_ns };
            assert_eq!(Identity::parse(&identity.text()), Some(identity));
        }
        for text in [
            "",
            "rel1",
            "rel1 7 -",
            "rel1 7 - 8\n",
            "rel1 x -\n",
            "rel2 7 -\n",
        ] {
            assert_eq!(Identity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn contents_that_lead_elsewhere_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, other) = (dir.path().join("root"), dir.path().join("other"));
        for dir in [&root.join(".rel/sandbox"), &other.join("deep")] {
            std::fs::create_dir_all(dir).expect("makes");
        }
        std::fs::write(other.join("deep/file"), "mine").expect("writes");
        for name in ["graph.v1", "records.v1", "logs", "sandbox/kept"] {
            symlink(other.join("deep"), root.join(".rel").join(name)).expect("links");
        }
        assert!(!take(&root));
        assert!(!root.join(".rel/logs").exists() && !root.join(".rel/sandbox").exists());
        let mode = root.join(".rel").metadata().expect("is there").mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert!(other.join("deep/file").exists());
    }

    #[test]
    fn one_that_others_may_write_to_is_closed_and_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join(".rel");
        assert!(!take(dir.path()) && take(dir.path()));
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).expect("sets");
        assert!(find(dir.path()).known().is_none());
        assert!(!take(dir.path()) && take(dir.path()));
        let mode = state.metadata().expect("is there").mode() & 0o777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn a_link_and_a_file_are_refused_whoever_trusts_them() {
        let trusting = StateDirAccess {
            is_trusted: &|| true,
            ..access()
        };
        for is_link in [true, false] {
            let dir = tempfile::tempdir().expect("a directory");
            let state = dir.path().join(".rel");
            match is_link {
                true => symlink("..", &state).expect("links"),
                false => std::fs::write(&state, "").expect("writes"),
            }
            for access in [access(), trusting] {
                let refused = StateDir::find(dir.path(), &access).err();
                let refused = refused.map(|e| (e.kind.exit_code(), e.help));
                assert!(matches!(refused, Some((2, Some(help))) if help.starts_with("remove it")));
            }
        }
    }
}
