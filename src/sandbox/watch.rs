//! The watcher: which files the processes of one command touch, and how.
//!
//! A thread answers each watched call after it has noted the path: it goes on, or, where rules
//! are, fails when no rule opens that path. What lies in directories of the system is not
//! noted. Links are resolved: a link is one file, and what it leads to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, c_long};
use std::io::{self, PipeReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::Confinement;
use super::paths::{End, in_real_parent, may_be_link, own_view, resolve};
use super::seccomp::{Call, Heard, Listener, late, read_bytes, read_path};

/// What the kernel reads of a script's first line.
const SHEBANG_BYTES_MAX: u64 = 256;

/// How a file was touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Opened for reading.
    pub is_read: bool,
    /// Asked whether it is there, and what it is.
    pub is_looked_at: bool,
    /// Listed, being a directory.
    pub is_listed: bool,
    /// Written, made, removed, renamed, or changed in mode, owner or times.
    pub is_written: bool,
    /// Run as a program.
    pub is_run: bool,
    /// Was there before it was first touched.
    pub was_there: bool,
}

/// What was seen of a command.
#[derive(Debug, Default)]
pub struct Seen {
    /// Files by absolute path.
    pub files: BTreeMap<PathBuf, Uses>,
    /// Network addresses that were connected to, or that were tried.
    pub addresses: BTreeSet<String>,
    /// Processes and threads that made a call, with when they started.
    pub processes: BTreeMap<u32, Option<String>>,
    /// Whether some process was left when the watch ended.
    pub is_anyone_left: bool,
    /// Set when watching broke off: what is here is not all.
    pub error: Option<io::ErrorKind>,
}

impl Seen {
    /// Adds what was seen of a later command.
    pub fn merge(&mut self, later: Self) {
        for (path, uses) in later.files {
            let known = self.files.entry(path).or_insert(Uses {
                was_there: uses.was_there,
                ..Uses::default()
            });
            known.is_read |= uses.is_read;
            known.is_looked_at |= uses.is_looked_at;
            known.is_listed |= uses.is_listed;
            known.is_written |= uses.is_written;
            known.is_run |= uses.is_run;
        }
        self.addresses.extend(later.addresses);
        self.processes.extend(later.processes);
        self.is_anyone_left |= later.is_anyone_left;
        self.error = self.error.or(later.error);
    }
}

/// What a call does with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Use {
    Look,
    Read,
    Update,
    Write,
    /// A name is given to what may be a link.
    Link,
    /// A directory or a device is made, if nothing is there.
    Make,
    /// What is there is removed.
    Remove,
    Run,
}

/// Where a relative path starts.
#[derive(Clone, Copy)]
enum From {
    /// The directory of the process.
    Here,
    /// This descriptor.
    Descriptor(u64),
}

/// A path in the memory of a process; without an address it is the descriptor's own.
struct Touch {
    from: From,
    at: Option<u64>,
    what: Use,
    /// Whether a link at the end of the path is followed.
    follows: bool,
}

/// A path as it was written, and what is done with it.
type Asked = (PathBuf, Use, bool);

/// Answers calls until nobody is left to make one, or `stop` is closed.
pub(super) fn watch(listener: &Listener, stop: &PipeReader, held: &Confinement) -> Seen {
    listener.take_turns();
    let mut notes = Notes {
        seen: Seen::default(),
        known: HashMap::new(),
        held,
    };
    loop {
        match listener.next(stop) {
            Ok(Heard::Call(call)) => {
                let refused = notes.note(&call);
                listener.answer(&call, refused);
            }
            Ok(Heard::Nothing) => {}
            Ok(Heard::End) => return notes.seen,
            Ok(Heard::Stopped) => {
                notes.seen.is_anyone_left = true;
                return notes.seen;
            }
            Err(error) => {
                notes.seen.error = Some(error.kind());
                return notes.seen;
            }
        }
    }
}

struct Notes<'a> {
    seen: Seen,
    /// Each path is worked out once, until some link may lead elsewhere.
    known: HashMap<Asked, Option<i32>>,
    held: &'a Confinement,
}

impl Notes<'_> {
    /// Notes a call; returns the error that it must fail with.
    fn note(&mut self, call: &Call) -> Option<i32> {
        // Whoever asks moves itself, or a child, which may never ask for anything.
        let other = call.args[0] as u32;
        let is_child = || super::field(other as i32, 1) == Some(call.pid.to_string());
        let moves_child = call.number == libc::SYS_setpgid && other != 0 && is_child();
        for pid in [Some(call.pid), moves_child.then_some(other)]
            .into_iter()
            .flatten()
        {
            let processes = &mut self.seen.processes;
            let born = || super::birth(pid as i32);
            processes.entry(pid).or_insert_with(born);
        }
        match self.answer(call) {
            Ok(refused) => refused,
            Err(error) => {
                self.seen.error.get_or_insert(error.kind());
                None
            }
        }
    }

    fn answer(&mut self, call: &Call) -> io::Result<Option<i32>> {
        if call.number == libc::SYS_connect {
            self.seen.addresses.extend(address(call)?);
            return Ok(None);
        }
        if matches!(call.number, libc::SYS_setsid | libc::SYS_setpgid) {
            return Ok(None);
        }
        if call.number == libc::SYS_openat2 {
            // Below a root of its own a path is another; who finds no such call opens it himself.
            let how = read_bytes(call.pid, call.args[2], 24)?;
            let resolve = how.get(16..24).and_then(|b| b.try_into().ok());
            if resolve.map_or(0, u64::from_ne_bytes) & libc::RESOLVE_IN_ROOT != 0 {
                return Ok(Some(libc::ENOSYS));
            }
        }
        let mut refused = None;
        for touch in touches(call)?.into_iter().flatten() {
            let Some(path) = self.written(call.pid, &touch)? else {
                continue;
            };
            let asked = (path, touch.what, touch.follows);
            let answer = match self.known.get(&asked) {
                Some(answer) => *answer,
                None => {
                    let (answer, is_for_all) = self.add(&asked, call.pid);
                    let answer = answer.or_else(|| self.add_interpreter(&asked, call.pid));
                    // A process that is not known yet may be one of ours soon.
                    if is_for_all && !asked.0.starts_with("/proc") {
                        self.known.insert(asked, answer);
                    }
                    answer
                }
            };
            if touch.what == Use::Link {
                self.known.clear();
            }
            refused = refused.or(answer);
        }
        Ok(refused)
    }

    /// Returns the absolute path as it was written; `None` for what is of no interest.
    fn written(&self, pid: u32, touch: &Touch) -> io::Result<Option<PathBuf>> {
        let written = match touch.at {
            Some(address) => match read_path(pid, address)? {
                Some(path) => PathBuf::from(path),
                None => return Ok(None),
            },
            None => PathBuf::new(),
        };
        if written.as_os_str().is_empty() && touch.what == Use::Look {
            // An open file is asked about: it was noted when it was opened.
            return Ok(None);
        }
        let Some(path) = absolute(written, pid, touch.from) else {
            return Ok(None);
        };
        // Most calls end here. In /proc lie links to anywhere.
        let is_straight =
            !path.components().any(|c| c == Component::ParentDir) && !path.starts_with("/proc");
        let is_dull = is_straight && self.held.is_dull(&path, touch.what);
        Ok((!is_dull).then_some(path))
    }

    /// Returns whether a path is about a process that is not held. Landlock keeps those from
    /// all but a privileged user, who may read what they were started with.
    fn is_foreign(&self, path: &Path) -> bool {
        let in_proc = path.strip_prefix("/proc").ok();
        let number = in_proc.and_then(|rest| rest.iter().next()?.to_str()?.parse().ok());
        let is_held = |pid: u32| self.seen.processes.contains_key(&pid);
        self.held.rules.is_some() && number.is_some_and(|pid| !is_held(pid))
    }

    /// Notes the interpreter that a script names: the kernel opens it without a call.
    fn add_interpreter(&mut self, (path, what, _): &Asked, pid: u32) -> Option<i32> {
        // Opening a pipe would wait for its other end.
        let is_file = std::fs::metadata(path).is_ok_and(|m| m.is_file());
        if *what != Use::Run || !is_file {
            return None;
        }
        let mut head = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(SHEBANG_BYTES_MAX).read_to_end(&mut head).ok()?;
        let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
        let mut words = line.split(|b| b" \t".contains(b));
        let program = Path::new(OsStr::from_bytes(words.find(|w| !w.is_empty())?));
        let is_noted = program.is_absolute() && !self.held.is_dull(program, *what);
        let asked = (program.to_owned(), *what, true);
        is_noted.then(|| self.add(&asked, pid).0).flatten()
    }

    /// Notes a path; returns the error with which asking for it must fail, and whether it must
    /// for every process.
    fn add(&mut self, (path, what, follows): &Asked, pid: u32) -> (Option<i32>, bool) {
        let End {
            real,
            meta,
            is_for_all,
        } = resolve(path, pid, *follows);
        if self.is_foreign(&real) {
            return (Some(libc::ENOENT), false);
        }
        let link = match *follows && may_be_link(path, &real) {
            true => Some(in_real_parent(path, pid)),
            false => None,
        };
        let mut refused = None;
        for (path, what, meta) in link
            .map(|link| (link, Use::Look, meta.clone()))
            .into_iter()
            .chain([(real, *what, meta)])
        {
            if self.held.is_unnoted(&path, what) {
                continue;
            }
            let was_there = meta.is_some();
            refused = refused.or(self.held.refuses(&path, what, was_there));
            let is_dir = meta.is_some_and(|m| m.is_dir());
            let uses = self.seen.files.entry(path).or_insert(Uses {
                was_there,
                ..Uses::default()
            });
            match what {
                Use::Read if is_dir => uses.is_listed = true,
                Use::Read => uses.is_read = true,
                Use::Look => uses.is_looked_at = true,
                // Nothing comes of it.
                Use::Make if was_there => uses.is_looked_at = true,
                Use::Remove if !was_there => uses.is_looked_at = true,
                Use::Write | Use::Link | Use::Make | Use::Remove => uses.is_written = true,
                Use::Update => (uses.is_read, uses.is_written) = (true, true),
                Use::Run => uses.is_run = true,
            }
        }
        (refused, is_for_all)
    }
}

impl Use {
    fn writes(self) -> bool {
        !matches!(self, Self::Look | Self::Read | Self::Run)
    }
}

impl Confinement {
    /// Returns whether a path is of no interest, whatever it leads to.
    fn is_dull(&self, path: &Path, what: Use) -> bool {
        is_machine(&self.machine.plain, path, what)
    }

    /// Returns whether a path without links is of no interest.
    fn is_unnoted(&self, path: &Path, what: Use) -> bool {
        self.log.as_deref() == Some(path) || is_machine(&self.machine.dirs, path, what)
    }

    /// Returns the error for a path that no rule opens. To whom it may not be read it is not
    /// there: Landlock alone would tell that it is. Modes, owners and times are not
    /// Landlock's business either.
    fn refuses(&self, path: &Path, what: Use, is_there: bool) -> Option<i32> {
        let rules = self.rules.as_ref()?;
        let is_below = |dir: &PathBuf| path.starts_with(dir);
        if rules.write.iter().any(is_below) {
            return None;
        }
        let is_above = |dir: &PathBuf| dir.starts_with(path);
        let mut read = rules.read.iter().chain(&rules.machine.dirs);
        let is_open =
            read.any(|dir| is_below(dir) || is_above(dir)) || rules.write.iter().any(is_above);
        match what {
            // The kernel says so, and else Landlock refuses.
            Use::Make if is_open && is_there => None,
            Use::Remove if is_open && !is_there => None,
            // As little there as for reading; but in the repository that would hide a mistake.
            Use::Remove if !is_open && !path.starts_with(&rules.repository) => Some(libc::ENOENT),
            _ if what.writes() => Some(libc::EACCES),
            // Whether it is there or not: an answer is remembered, and it may come to be there.
            _ => (!is_open).then_some(libc::ENOENT),
        }
    }
}

fn is_machine(dirs: &[PathBuf], path: &Path, what: Use) -> bool {
    let is_harmless = ["/dev", "/proc"].iter().any(|dir| path.starts_with(dir));
    (!what.writes() || is_harmless) && dirs.iter().any(|dir| path.starts_with(dir))
}

/// Returns a path that a process wrote as an absolute one; `None` for what is no file.
fn absolute(written: PathBuf, pid: u32, from: From) -> Option<PathBuf> {
    match from {
        _ if written.is_absolute() => Some(own_view(written, pid)),
        From::Here => Some(directory_of(pid)?.join(written)),
        From::Descriptor(fd) => {
            let base = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
            // Pipes and sockets are called `pipe:[1]`.
            let base = Some(base).filter(|b| b.is_absolute())?;
            match written.as_os_str().is_empty() {
                true => Some(base),
                false => Some(base.join(written)),
            }
        }
    }
}

/// Returns what is connected to; only networks count, not sockets of this machine.
fn address(call: &Call) -> io::Result<Option<String>> {
    let bytes = read_bytes(call.pid, call.args[1], (call.args[2] as usize).min(28))?;
    Ok(shown_address(&bytes))
}

fn shown_address(bytes: &[u8]) -> Option<String> {
    let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let address: std::net::IpAddr = match i32::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    // Port 0 asks for a route, not for a peer.
    let address = std::net::SocketAddr::new(address, port).to_string();
    (port != 0).then_some(address)
}

/// Returns the paths that a call touches.
fn touches(call: &Call) -> io::Result<[Option<Touch>; 2]> {
    let a = call.args;
    let with = |dir: usize, path: usize, what, follows| {
        let from = match a[dir] as i32 {
            libc::AT_FDCWD => From::Here,
            _ => From::Descriptor(a[dir]),
        };
        let at = Some(a[path]);
        Some(Touch {
            from,
            at,
            what,
            follows,
        })
    };
    let flagged =
        |what, flags: usize| with(0, 1, what, a[flags] as i32 & libc::AT_SYMLINK_NOFOLLOW == 0);
    let itself = |dir, path, what| with(dir, path, what, false);
    let opened = |flags: i32| with(0, 1, of_flags(flags), follows(flags));
    let own = Some(Touch {
        from: From::Descriptor(a[0]),
        at: None,
        what: Use::Write,
        follows: true,
    });
    let one = match call.number {
        libc::SYS_openat => opened(a[2] as i32),
        libc::SYS_openat2 => {
            let flags = read_bytes(call.pid, a[2], 8)?;
            opened(<[u8; 8]>::try_from(flags).map_or(0, u64::from_ne_bytes) as i32)
        }
        libc::SYS_newfstatat | libc::SYS_faccessat2 => flagged(Use::Look, 3),
        libc::SYS_statx => flagged(Use::Look, 2),
        libc::SYS_faccessat => with(0, 1, Use::Look, true),
        libc::SYS_readlinkat => itself(0, 1, Use::Look),
        libc::SYS_execve => here(a[0], Use::Run, true),
        libc::SYS_execveat => flagged(Use::Run, 4),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            return Ok([itself(0, 1, Use::Link), itself(2, 3, Use::Link)]);
        }
        libc::SYS_linkat => return Ok([itself(0, 1, Use::Read), itself(2, 3, Use::Link)]),
        libc::SYS_symlinkat => itself(1, 2, Use::Link),
        libc::SYS_mkdirat | libc::SYS_mknodat => itself(0, 1, Use::Make),
        libc::SYS_unlinkat => itself(0, 1, Use::Remove),
        libc::SYS_fchmodat => with(0, 1, Use::Write, true),
        late::FCHMODAT2 => flagged(Use::Write, 3),
        late::FILE_SETATTR => flagged(Use::Write, 4),
        late::SETXATTRAT | late::REMOVEXATTRAT => flagged(Use::Write, 2),
        late::FILE_GETATTR => flagged(Use::Look, 4),
        late::GETXATTRAT | late::LISTXATTRAT | libc::SYS_open_tree => flagged(Use::Look, 2),
        libc::SYS_name_to_handle_at => {
            with(0, 1, Use::Look, a[4] as i32 & libc::AT_SYMLINK_FOLLOW != 0)
        }
        libc::SYS_fchownat => flagged(Use::Write, 4),
        libc::SYS_utimensat if a[1] == 0 => own,
        libc::SYS_utimensat => flagged(Use::Write, 3),
        libc::SYS_fchmod | libc::SYS_fchown | libc::SYS_fsetxattr | libc::SYS_fremovexattr => own,
        number => {
            return Ok(
                simple_touch(number, a).map_or_else(|| old_touches(number, a), |t| [Some(t), None])
            );
        }
    };
    Ok([one, None])
}

/// Returns the path of a call that has no descriptor beside it.
fn simple_touch(number: c_long, a: [u64; 6]) -> Option<Touch> {
    match number {
        libc::SYS_inotify_add_watch => {
            here(a[1], Use::Look, a[2] as u32 & libc::IN_DONT_FOLLOW == 0)
        }
        libc::SYS_chdir | libc::SYS_statfs | libc::SYS_getxattr | libc::SYS_listxattr => {
            here(a[0], Use::Look, true)
        }
        libc::SYS_lgetxattr | libc::SYS_llistxattr => here(a[0], Use::Look, false),
        libc::SYS_truncate | libc::SYS_setxattr | libc::SYS_removexattr => {
            here(a[0], Use::Write, true)
        }
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => here(a[0], Use::Write, false),
        _ => None,
    }
}

/// Returns a path that starts at the directory of the process.
fn here(address: u64, what: Use, follows: bool) -> Option<Touch> {
    let (from, at) = (From::Here, Some(address));
    Some(Touch {
        from,
        at,
        what,
        follows,
    })
}

/// Returns the paths of the calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
fn old_touches(number: c_long, a: [u64; 6]) -> [Option<Touch>; 2] {
    let one = match number {
        libc::SYS_open => here(a[0], of_flags(a[1] as i32), follows(a[1] as i32)),
        libc::SYS_stat | libc::SYS_access => here(a[0], Use::Look, true),
        libc::SYS_lstat | libc::SYS_readlink => here(a[0], Use::Look, false),
        libc::SYS_rename => return [here(a[0], Use::Link, false), here(a[1], Use::Link, false)],
        libc::SYS_link => return [here(a[0], Use::Read, false), here(a[1], Use::Link, false)],
        libc::SYS_symlink => here(a[1], Use::Link, false),
        libc::SYS_mkdir | libc::SYS_mknod => here(a[0], Use::Make, false),
        libc::SYS_unlink | libc::SYS_rmdir => here(a[0], Use::Remove, false),
        libc::SYS_futimesat if a[1] != 0 => here(a[1], Use::Write, true),
        libc::SYS_creat
        | libc::SYS_chmod
        | libc::SYS_chown
        | libc::SYS_utime
        | libc::SYS_utimes => here(a[0], Use::Write, true),
        _ => here(a[0], Use::Write, false),
    };
    [one, None]
}

#[cfg(not(target_arch = "x86_64"))]
fn old_touches(_number: c_long, _args: [u64; 6]) -> [Option<Touch>; 2] {
    [None, None]
}

fn of_flags(flags: i32) -> Use {
    if flags & libc::O_PATH != 0 {
        return Use::Look;
    }
    match flags & libc::O_ACCMODE {
        // A file without a name, in a directory.
        _ if flags & libc::O_TMPFILE == libc::O_TMPFILE => Use::Look,
        libc::O_RDONLY if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 => Use::Read,
        libc::O_RDWR if flags & libc::O_TRUNC == 0 => Use::Update,
        _ => Use::Write,
    }
}

fn follows(flags: i32) -> bool {
    let is_new = flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL;
    flags & libc::O_NOFOLLOW == 0 && !is_new
}

fn directory_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}
