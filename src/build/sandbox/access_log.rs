//! The watcher: which files the processes of one command touch, and how.
//!
//! A thread answers each watched call after it has noted the path: it goes on, or, where rules
//! are, fails when no rule opens that path, or is done here. What lies in directories of the
//! system is not noted. Links are resolved: a link is one file, and what it leads to another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Confinement;
use super::accesses::{AccessKind, DirFd, FileAccess, touches};
use super::others;
use super::others::WatchedProcesses;
use super::path_walk::{End, in_real_parent, may_be_link, own_view, resolve};
use super::rules::Rules;
use super::seccomp::{
    Notification, SeccompListener, Syscall, SyscallAnswer, read_bytes, read_path,
};
use super::sockets::{self, ADDRESS_BYTES_MAX, Name, SocketRequest};
use super::syscalls_in_stead::{self, Object};
use crate::core::error::os_text;
use crate::core::process::{Process, birth};

/// What paths that were noted may cost in memory, and those whose answer is remembered, in bytes.
const FILES_BYTES_MAX: usize = 64 << 20;
const KNOWN_BYTES_MAX: usize = 16 << 20;
/// What one costs beside its bytes.
const ENTRY_BYTES: usize = 128;
/// Addresses, and sockets, that are reported.
const TOLD_MAX: usize = 1000;
/// Processes after which those that have ended are forgotten.
const PROCESSES_MAX: usize = 4096;

/// What the kernel reads of a script's first line.
const SHEBANG_BYTES_MAX: u64 = 256;

/// How a file was touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
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
pub struct AccessLog {
    /// Files by absolute path.
    pub files: BTreeMap<PathBuf, Accesses>,
    /// Network addresses that were connected to, or that were tried.
    pub addresses: BTreeSet<String>,
    /// Sockets of this machine that were there, and that no rule opens.
    pub sockets: BTreeSet<PathBuf>,
    /// Processes and threads that made a call, with when they started.
    pub processes: WatchedProcesses,
    /// Whether some process was left when the watch ended.
    pub is_anyone_left: bool,
    /// Why watching broke off, if it did: what is here is not all.
    pub error: Option<String>,
}

impl AccessLog {
    /// Adds what was seen of a later command.
    pub fn merge(&mut self, later: Self) {
        for (path, uses) in later.files {
            let known = self.files.entry(path).or_insert(Accesses {
                was_there: uses.was_there,
                ..Accesses::default()
            });
            known.is_read |= uses.is_read;
            known.is_looked_at |= uses.is_looked_at;
            known.is_listed |= uses.is_listed;
            known.is_written |= uses.is_written;
            known.is_run |= uses.is_run;
        }
        self.addresses.extend(later.addresses);
        self.sockets.extend(later.sockets);
        self.processes.extend(later.processes);
        self.is_anyone_left |= later.is_anyone_left;
        self.error = self.error.take().or(later.error);
    }
}

/// A path as it was written, and what is done with it.
type Asked = (PathBuf, AccessKind, bool);

/// Answers calls until no process is left to make one, or `stop` is closed. Connections are made by
/// the receiver of `connections`.
pub(super) fn watch(
    listener: &Arc<SeccompListener>,
    stop: &PipeReader,
    held: &Confinement,
    connections: &Sender<SocketRequest>,
) -> AccessLog {
    listener.take_turns();
    let mut notes = Notes {
        seen: AccessLog::default(),
        files_bytes: 0,
        known: HashMap::new(),
        known_bytes: 0,
        processes_max: PROCESSES_MAX,
        held,
        listener,
        connections,
    };
    loop {
        match listener.next(stop) {
            Ok(Notification::Call(call)) => {
                if let Some(answer) = notes.note(&call) {
                    listener.answer(&call, answer);
                }
                if notes.files_bytes > FILES_BYTES_MAX {
                    let most = FILES_BYTES_MAX >> 20;
                    let why = format!("it asks for more files than {most} MiB of paths can name");
                    notes.seen.error = Some(why);
                    return notes.seen;
                }
            }
            Ok(Notification::Nothing) => {}
            Ok(Notification::End) => return notes.seen,
            Ok(Notification::Stopped) => {
                notes.seen.is_anyone_left = true;
                return notes.seen;
            }
            Err(error) => {
                notes.seen.error = Some(os_text(&error));
                return notes.seen;
            }
        }
    }
}

struct Notes<'a> {
    seen: AccessLog,
    files_bytes: usize,
    /// Each path is worked out once, until some link may lead elsewhere.
    known: HashMap<Asked, Option<i32>>,
    known_bytes: usize,
    processes_max: usize,
    held: &'a Confinement,
    listener: &'a Arc<SeccompListener>,
    connections: &'a Sender<SocketRequest>,
}

impl Notes<'_> {
    /// Notes a call; returns its answer, unless another thread gives that.
    fn note(&mut self, call: &Syscall) -> Option<SyscallAnswer> {
        // The process that asks moves itself, or a child, which may never ask for anything.
        let other = call.args[0] as u32;
        let is_child = || {
            let parent = Process::at(other as i32).map(|process| process.parent);
            parent == i32::try_from(call.pid).ok()
        };
        let moves_child = call.number == libc::SYS_setpgid && other != 0 && is_child();
        for pid in [Some(call.pid), moves_child.then_some(other)]
            .into_iter()
            .flatten()
        {
            self.add_process(pid);
        }
        let answer = match call.number {
            libc::SYS_connect => self.connect(call),
            _ => self.answer(call).map(Some),
        };
        answer.unwrap_or_else(|error| {
            self.seen.error.get_or_insert_with(|| os_text(&error));
            // Who cannot be looked at does nothing.
            Some(match &self.held.rules {
                Some(_) => SyscallAnswer::Fail(libc::EPERM),
                None => SyscallAnswer::GoOn,
            })
        })
    }

    /// Notes a process; one that has ended may have had its number.
    fn add_process(&mut self, pid: u32) {
        let processes = &mut self.seen.processes;
        if processes.len() >= self.processes_max {
            processes.retain(|pid, born| born.is_some() && birth(*pid as i32) == *born);
            self.processes_max = PROCESSES_MAX.max(2 * processes.len());
        }
        let born = || birth(pid as i32);
        processes.entry(pid).or_insert_with(born);
    }

    fn answer(&mut self, call: &Syscall) -> io::Result<SyscallAnswer> {
        if matches!(call.number, libc::SYS_setsid | libc::SYS_setpgid) {
            return Ok(SyscallAnswer::GoOn);
        }
        if let Some(is_own) =
            others::is_own(call.number, &call.args, call.pid, &self.seen.processes)
        {
            return Ok(match is_own {
                true => SyscallAnswer::GoOn,
                false => SyscallAnswer::Fail(libc::EPERM),
            });
        }
        if let Some(rules) = self
            .held
            .rules
            .as_ref()
            .filter(|_| syscalls_in_stead::is_one(call.number))
        {
            return self.change(call, rules);
        }
        if call.number == libc::SYS_openat2 {
            // Below a root of its own a path is another; who finds no such call opens it himself.
            let how = read_bytes(call.pid, call.args[2], 24)?;
            let resolve = how.get(16..24).and_then(|b| b.try_into().ok());
            if resolve.map_or(0, u64::from_ne_bytes) & libc::RESOLVE_IN_ROOT != 0 {
                return Ok(SyscallAnswer::Fail(libc::ENOSYS));
            }
        }
        let mut refused = None;
        for touch in touches(call)?.into_iter().flatten() {
            let Some(path) = self.written(call.pid, &touch)? else {
                continue;
            };
            let answer = self.asked((path, touch.what, touch.follows), call.pid);
            if touch.what == AccessKind::Link {
                self.forget();
            }
            refused = refused.or(answer);
        }
        Ok(refused.map_or(SyscallAnswer::GoOn, SyscallAnswer::Fail))
    }

    /// Notes a path, once; returns the error with which asking for it must fail.
    fn asked(&mut self, asked: Asked, pid: u32) -> Option<i32> {
        if let Some(answer) = self.known.get(&asked) {
            return *answer;
        }
        let (answer, is_for_all) = self.add(&asked, pid);
        let answer = answer.or_else(|| self.add_interpreter(&asked, pid));
        // A process that is not known yet may be one of ours soon.
        if is_for_all && !asked.0.starts_with("/proc") {
            if self.known_bytes > KNOWN_BYTES_MAX {
                self.forget();
            }
            self.known_bytes += ENTRY_BYTES + asked.0.as_os_str().len();
            self.known.insert(asked, answer);
        }
        answer
    }

    /// Forgets the answers, which are found out again.
    fn forget(&mut self) {
        self.known.clear();
        self.known_bytes = 0;
    }

    /// Changes a file in the command's stead.
    fn change(&mut self, call: &Syscall, rules: &Rules) -> io::Result<SyscallAnswer> {
        let [Some(touch), _] = touches(call)? else {
            return Ok(SyscallAnswer::Fail(libc::ENOSYS));
        };
        let written = match touch.at {
            Some(address) => match read_path(call.pid, address)? {
                Some(path) => PathBuf::from(path),
                None => return Ok(SyscallAnswer::Fail(libc::EFAULT)),
            },
            None => PathBuf::new(),
        };
        let object = match (written.as_os_str().is_empty(), touch.from) {
            (true, DirFd::Descriptor(number)) => Object::Open(number),
            (true, DirFd::Here) => return Ok(SyscallAnswer::Fail(libc::ENOENT)),
            _ => match absolute(written.clone(), call.pid, touch.from) {
                Some(path) => Object::At(path, touch.follows),
                None => return Ok(SyscallAnswer::Fail(libc::ENOTDIR)),
            },
        };
        if let Some(path) = absolute(written, call.pid, touch.from)
            && let Some(error) = self.asked((path, touch.what, touch.follows), call.pid)
        {
            return Ok(SyscallAnswer::Fail(error));
        }
        let is_waiting = || self.listener.is_waiting(call);
        Ok(
            match syscalls_in_stead::change(call, &object, rules, is_waiting) {
                Ok(()) => SyscallAnswer::Done,
                Err(error) => SyscallAnswer::Fail(error.raw_os_error()),
            },
        )
    }

    /// Notes what is connected to, and has it done if the rules allow it.
    fn connect(&mut self, call: &Syscall) -> io::Result<Option<SyscallAnswer>> {
        let len = call.args[2] as usize;
        let address = read_bytes(call.pid, call.args[1], len.min(ADDRESS_BYTES_MAX))?;
        if self.seen.addresses.len() < TOLD_MAX {
            self.seen.addresses.extend(shown_address(&address));
        }
        let Some(rules) = &self.held.rules else {
            return Ok(Some(SyscallAnswer::GoOn));
        };
        if len > ADDRESS_BYTES_MAX || address.len() != len {
            return Ok(Some(SyscallAnswer::Fail(match len {
                ..=ADDRESS_BYTES_MAX => libc::EFAULT,
                _ => libc::EINVAL,
            })));
        }
        if !sockets::is_connected_to(&address) {
            return Ok(Some(SyscallAnswer::Fail(libc::EAFNOSUPPORT)));
        }
        let file = match sockets::name(&address) {
            Some(Name::Abstract(name)) if !self.held.machine.scopes_signals() => {
                let name = format!("@{}", String::from_utf8_lossy(name));
                self.add_socket(name.into());
                return Ok(Some(SyscallAnswer::Fail(libc::ECONNREFUSED)));
            }
            Some(Name::Path(written)) => match self.socket(written, call.pid, rules) {
                Ok(file) => Some(file),
                Err(error) => return Ok(Some(SyscallAnswer::Fail(error))),
            },
            _ => None,
        };
        let request = match SocketRequest::new(call, self.listener, address) {
            Ok(request) => SocketRequest { file, ..request },
            Err(error) => return Ok(Some(SyscallAnswer::Fail(error.raw_os_error()))),
        };
        // There is a receiver as long as this thread does.
        let is_sent = self.connections.send(request).is_ok();
        Ok((!is_sent).then_some(SyscallAnswer::Fail(libc::ECONNREFUSED)))
    }

    /// Opens a socket that the rules let a command connect to.
    fn socket(&mut self, written: &Path, pid: u32, rules: &Rules) -> Result<OwnedFd, i32> {
        let path = absolute(written.to_owned(), pid, DirFd::Here).ok_or(libc::ENOENT)?;
        let real = resolve(&path, pid, true).real;
        let (file, real) = sockets::opened(&real).map_err(|error| {
            // Whether anything is there is unknown either.
            let is_open = rules.opens_socket(&path);
            if is_open {
                error.raw_os_error()
            } else {
                libc::ENOENT
            }
        })?;
        if rules.opens_socket(&real) {
            return Ok(file);
        }
        if rustix::fs::fstat(&file).is_ok_and(|s| is_socket(&s)) {
            self.add_socket(real);
        }
        Err(libc::ENOENT)
    }

    fn add_socket(&mut self, path: PathBuf) {
        if self.seen.sockets.len() < TOLD_MAX {
            self.seen.sockets.insert(path);
        }
    }

    /// Returns the absolute path as it was written; `None` for what is of no interest.
    fn written(&self, pid: u32, touch: &FileAccess) -> io::Result<Option<PathBuf>> {
        let written = match touch.at {
            Some(address) => match read_path(pid, address)? {
                Some(path) => PathBuf::from(path),
                None => return Ok(None),
            },
            None => PathBuf::new(),
        };
        if written.as_os_str().is_empty() && touch.what == AccessKind::Look {
            // An open file is asked about: it was noted when it was opened.
            return Ok(None);
        }
        let Some(path) = absolute(written, pid, touch.from) else {
            return Ok(None);
        };
        // Most calls end here. In /proc lie links to anywhere.
        let is_straight =
            !path.components().any(|c| c == Component::ParentDir) && !path.starts_with("/proc");
        let is_dull = is_straight && self.held.is_ignored(&path, touch.what);
        Ok((!is_dull).then_some(path))
    }

    /// Returns whether a path is about a process that is not held. Landlock keeps those from
    /// all but a privileged user, who may read what they were started with.
    fn is_foreign_arch(&self, path: &Path) -> bool {
        let in_proc = path.strip_prefix("/proc").ok();
        let number = in_proc.and_then(|rest| rest.iter().next()?.to_str()?.parse().ok());
        // A number is given again.
        let is_held = |pid: u32| {
            let known = self.seen.processes.get(&pid);
            known.is_some_and(|born| born.is_some() && birth(pid as i32) == *born)
        };
        self.held.rules.is_some() && number.is_some_and(|pid| !is_held(pid))
    }

    /// Notes the interpreter that a script names: the kernel opens it without a call.
    fn add_interpreter(&mut self, (path, what, _): &Asked, pid: u32) -> Option<i32> {
        if *what != AccessKind::Run {
            return None;
        }
        let file = crate::core::fs::open_regular(path).ok()?;
        let mut head = Vec::new();
        file.take(SHEBANG_BYTES_MAX).read_to_end(&mut head).ok()?;
        let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
        let mut words = line.split(|b| b" \t".contains(b));
        let program = Path::new(OsStr::from_bytes(words.find(|w| !w.is_empty())?));
        let is_noted = program.is_absolute() && !self.held.is_ignored(program, *what);
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
        if self.is_foreign_arch(&real) {
            return (Some(libc::ENOENT), false);
        }
        // As the kernel says to who has no terminal; the session has one, but that is not theirs.
        if self.held.rules.is_some() && real == Path::new("/dev/tty") {
            return (Some(libc::ENXIO), true);
        }
        let link = match *follows && may_be_link(path, &real) {
            true => Some(in_real_parent(path, pid)),
            false => None,
        };
        let mut refused = None;
        for (path, what, meta) in link
            .map(|link| (link, AccessKind::Look, meta.clone()))
            .into_iter()
            .chain([(real, *what, meta)])
        {
            if self.held.is_unnoted(&path, what) {
                continue;
            }
            let was_there = meta.is_some();
            refused = refused.or(self.held.refuses(&path, what, was_there));
            let is_dir = meta.is_some_and(|m| m.is_dir());
            let files_bytes = &mut self.files_bytes;
            let len = path.as_os_str().len();
            let uses = self.seen.files.entry(path).or_insert_with(|| {
                *files_bytes += ENTRY_BYTES + len;
                Accesses {
                    was_there,
                    ..Accesses::default()
                }
            });
            match what {
                AccessKind::Read if is_dir => uses.is_listed = true,
                AccessKind::Read => uses.is_read = true,
                AccessKind::Look => uses.is_looked_at = true,
                // Nothing comes of it.
                AccessKind::Make if was_there => uses.is_looked_at = true,
                AccessKind::Remove if !was_there => uses.is_looked_at = true,
                AccessKind::Write | AccessKind::Link | AccessKind::Make | AccessKind::Remove => {
                    uses.is_written = true
                }
                AccessKind::Update => (uses.is_read, uses.is_written) = (true, true),
                AccessKind::Run => uses.is_run = true,
            }
        }
        (refused, is_for_all)
    }
}

impl Confinement {
    /// Returns whether a path is of no interest, whatever it leads to.
    fn is_ignored(&self, path: &Path, what: AccessKind) -> bool {
        is_machine(&self.machine.plain, path, what)
    }

    /// Returns whether a path without links is of no interest.
    fn is_unnoted(&self, path: &Path, what: AccessKind) -> bool {
        self.log.as_deref() == Some(path) || is_machine(&self.machine.dirs, path, what)
    }

    /// Returns the error for a path that no rule opens. To whom it may not be read it is not
    /// there: Landlock alone would tell that it is. Modes, owners and times are not
    /// Landlock's business either.
    fn refuses(&self, path: &Path, what: AccessKind, is_there: bool) -> Option<i32> {
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
            AccessKind::Make if is_open && is_there => None,
            AccessKind::Remove if is_open && !is_there => None,
            // As little there as for reading; but in the repository that would hide a mistake.
            AccessKind::Remove if !is_open && !path.starts_with(&rules.repository) => {
                Some(libc::ENOENT)
            }
            _ if what.writes() => Some(libc::EACCES),
            // Whether it is there or not: an answer is remembered, and it may come to be there.
            _ => (!is_open).then_some(libc::ENOENT),
        }
    }
}

fn is_machine(dirs: &[PathBuf], path: &Path, what: AccessKind) -> bool {
    let is_harmless = ["/dev", "/proc"].iter().any(|dir| path.starts_with(dir));
    (!what.writes() || is_harmless) && dirs.iter().any(|dir| path.starts_with(dir))
}

/// Returns a path that a process wrote as an absolute one; `None` for what is no file.
fn absolute(written: PathBuf, pid: u32, from: DirFd) -> Option<PathBuf> {
    match from {
        _ if written.is_absolute() => Some(own_view(written, pid)),
        DirFd::Here => Some(directory_of(pid)?.join(written)),
        DirFd::Descriptor(fd) => {
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

fn is_socket(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Socket
}

/// Returns an address of a network for people; `None` for one of this machine.
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

fn directory_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}
