//! The runner: local processes with declared environment, captured output and time limits.
//!
//! Every command runs in a process group of its own, so that a timeout or Ctrl-C ends all
//! that it started, not only the shell in front. Output goes straight into a file: a
//! process that stays behind in the background can not keep `rel` waiting on a pipe.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fs;
use crate::sandbox::{self, Confinement, Seen};
use rustix::process::{Pid, Signal, kill_process_group};

pub mod log;
pub mod register;

use register::Register;

/// Time between the polite and the final signal.
const GRACE: Duration = Duration::from_secs(2);

/// Time in which what a confined command started must have ended after it.
const LEFT_GRACE: Duration = Duration::from_secs(1);

/// A command, ready to run.
pub struct Spec {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Directory it runs in.
    pub dir: PathBuf,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Time limit.
    pub timeout: Option<Duration>,
}

/// How a command ended.
#[derive(Debug)]
pub enum Exit {
    /// With this status; zero is success.
    Code(i32),
    /// By this signal, which `rel` did not send.
    Signal(i32),
    /// It was ended because its time was over.
    TimedOut(Duration),
    /// It was ended because the run was interrupted.
    Interrupted,
    /// It could not be started.
    NotStarted(io::Error),
}

impl Exit {
    /// Returns whether it was a success.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Returns the end for people: `exit status 2`.
    pub fn shown(&self) -> String {
        match self {
            Self::Code(code) => format!("exit status {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => format!("killed by {name}"),
                None => format!("killed by signal {signal}"),
            },
            Self::TimedOut(limit) => {
                format!("timed out after {}", humantime::format_duration(*limit))
            }
            Self::Interrupted => String::from("interrupted"),
            Self::NotStarted(error) => format!("not started: {}", crate::error::os_text(error)),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Starts processes, and ends all of them at once when told to.
#[derive(Default)]
pub struct Runner {
    groups: Mutex<BTreeSet<i32>>,
    is_interrupted: AtomicBool,
    register: Option<Register>,
    /// Where programs lie, by name and `PATH`.
    programs: Mutex<HashMap<(OsString, OsString), OsString>>,
    /// Variables that offer job slots to an inner `make`.
    slots: Vec<(OsString, OsString)>,
    /// Processes started; asserted in tests, shown by `--stats`.
    pub started: AtomicU64,
}

impl Runner {
    /// Returns a runner that offers the slots of `jobserver` to the processes it starts. Of
    /// what this process inherited they get nothing else.
    pub fn new(jobserver: Option<&jobserver::Client>) -> Self {
        sandbox::close_inherited();
        Self {
            slots: jobserver.map(offered_slots).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Enters every group into `register` while it runs.
    #[must_use]
    pub fn registered(mut self, register: Register) -> Self {
        self.register = Some(register);
        self
    }

    /// Says that this runner will start nothing any more.
    pub fn close(&self) {
        if let Some(register) = &self.register {
            register.close();
        }
    }

    /// Runs a command to its end, with standard output and standard error in `log`.
    pub fn run(&self, spec: &Spec, log: &File) -> Exit {
        let log = match log.try_clone() {
            Ok(log) => log,
            Err(e) => return Exit::NotStarted(e),
        };
        let expression = self.expression(spec).stderr_to_stdout().stdout_file(log);
        self.drive(|| expression.start(), spec.timeout)
    }

    /// Runs a command like [`Runner::run`], but confined and watched. Nothing that it started
    /// outlives it: what is left is ended.
    pub fn run_confined(&self, spec: &Spec, log: &File, confinement: &Confinement) -> (Exit, Seen) {
        let log = match log.try_clone() {
            Ok(log) => log,
            Err(e) => return (Exit::NotStarted(e), Seen::default()),
        };
        let confinement = Confinement {
            log: std::fs::read_link(format!("/proc/self/fd/{}", log.as_raw_fd())).ok(),
            ..confinement.clone()
        };
        let expression = self.expression(spec).stderr_to_stdout().stdout_file(log);
        let mut watch = None;
        let start = || {
            let (handle, watching) = confinement.start(|| expression.start())?;
            watch = Some(watching);
            Ok(handle)
        };
        let exit = self.drive(start, spec.timeout);
        (
            exit,
            watch.map_or_else(Seen::default, |w| w.finish(LEFT_GRACE)),
        )
    }

    /// Runs a question and returns its standard output; standard error is returned second.
    pub fn ask(&self, spec: &Spec) -> (Exit, Vec<u8>, Vec<u8>) {
        let ask = || -> io::Result<(Exit, Vec<u8>, Vec<u8>)> {
            let (out, err) = (log::unmarked()?, log::unmarked()?);
            let expression = self.expression(spec).stdout_file(out.try_clone()?);
            let expression = expression.stderr_file(err.try_clone()?);
            let exit = self.drive(|| expression.start(), spec.timeout);
            Ok((exit, log::read_all(&out)?, log::read_all(&err)?))
        };
        ask().unwrap_or_else(|e| (Exit::NotStarted(e), Vec::new(), Vec::new()))
    }

    /// Ends every process group at work. Commands started afterwards are refused.
    pub fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::SeqCst);
        self.signal_all(Signal::TERM);
    }

    /// Ends at once what did not end after [`Runner::interrupt`].
    pub fn kill(&self) {
        self.signal_all(Signal::KILL);
    }

    /// Returns whether the run was interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::SeqCst)
    }

    fn expression(&self, spec: &Spec) -> duct::Expression {
        let (program, arguments) = match spec.argv.split_first() {
            Some((program, arguments)) => (program.clone(), arguments),
            None => (OsString::new(), [].as_slice()),
        };
        let program = self.program(&program, spec);
        let slots = self.slots.iter();
        duct::cmd(program, arguments)
            .dir(&spec.dir)
            .full_env(spec.env.iter().chain(slots).map(|(n, v)| (n, v)))
            .stdin_null()
            .unchecked()
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            })
    }

    fn drive(
        &self,
        start: impl FnOnce() -> io::Result<duct::Handle>,
        timeout: Option<Duration>,
    ) -> Exit {
        self.started.fetch_add(1, Ordering::Relaxed);
        if self.is_interrupted() {
            return Exit::Interrupted;
        }
        if let Some(register) = &self.register {
            register.starting();
        }
        let handle = match start() {
            Ok(handle) => handle,
            Err(e) => return Exit::NotStarted(e),
        };
        let group = handle.pids().first().map_or(0, |pid| *pid as i32);
        self.groups().insert(group);
        // An interrupt either finds the group entered, or is seen here.
        if self.is_interrupted() {
            signal_group(group, Signal::TERM);
        }
        if let Some(register) = &self.register {
            register.started(group);
        }
        let ended = match timeout {
            None => handle.wait().map(Some),
            Some(limit) => handle.wait_timeout(limit),
        };
        let is_late = matches!(ended, Ok(None));
        if is_late {
            end_group(group, &handle);
        }
        self.groups().remove(&group);
        if let Some(register) = &self.register {
            register.ended(group);
        }
        let status = match handle.wait() {
            Ok(output) => output.status,
            Err(e) => return Exit::NotStarted(e),
        };
        match timeout {
            Some(limit) if is_late => Exit::TimedOut(limit),
            _ if self.is_interrupted() && !status.success() => Exit::Interrupted,
            _ => exit_of(status),
        }
    }

    fn signal_all(&self, signal: Signal) {
        for group in self.groups().iter() {
            signal_group(*group, signal);
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the file of a program; where it lies is found out once for each `PATH`.
    fn program(&self, program: &OsStr, spec: &Spec) -> OsString {
        let path = spec.env.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, dirs)| dirs.clone()).unwrap_or_default();
        let is_relative = |dir: PathBuf| dir.is_relative();
        // Such a name means another file in another directory.
        if program.as_encoded_bytes().contains(&b'/')
            || std::env::split_paths(&path).any(is_relative)
        {
            return locate(program, spec);
        }
        let key = (program.to_owned(), path);
        let known = |runner: &Self| runner.programs.lock().ok()?.get(&key).cloned();
        if let Some(file) = known(self).filter(|file| is_program(Path::new(file))) {
            return file;
        }
        let file = locate(program, spec);
        if let Ok(mut programs) = self.programs.lock() {
            programs.insert(key, file.clone());
        }
        file
    }
}

/// Returns the file of a program, found the way a shell finds it: with a slash relative to
/// the directory the command runs in, else in the `PATH` that it is given.
///
/// The standard library leaves open which directory it takes, and can only use
/// `posix_spawn` with a changed `PATH` when the program is a path already. A name that is
/// not found is returned as it is, for the system to refuse.
fn locate(program: &OsStr, spec: &Spec) -> OsString {
    if program.as_encoded_bytes().contains(&b'/') {
        return spec.dir.join(program).into_os_string();
    }
    let path = spec.env.iter().find(|(name, _)| name == "PATH");
    let dirs = path.map(|(_, dirs)| std::env::split_paths(dirs));
    let mut files = dirs
        .into_iter()
        .flatten()
        .map(|dir| spec.dir.join(dir).join(program));
    files
        .find(|file| is_program(file))
        .map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|m| m.is_file() && fs::is_executable(m.mode()))
}

/// Returns the variables that tell an inner `make` of job slots, and lets every process
/// inherit the pipe they name.
///
/// The crate's own way marks the pipe between fork and exec, which keeps the standard
/// library from `posix_spawn`: with a large graph in memory a fork costs milliseconds.
fn offered_slots(client: &jobserver::Client) -> Vec<(OsString, OsString)> {
    let mut example = std::process::Command::new("");
    client.configure_make(&mut example);
    let slots: Vec<(OsString, OsString)> = example
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let numbers = slots.iter().find_map(|(_, value)| {
        let (_, auth) = value.to_str()?.split_once("--jobserver-auth=")?;
        let (read, write) = auth.split_whitespace().next()?.split_once(',')?;
        Some([read.parse::<i32>().ok()?, write.parse::<i32>().ok()?])
    });
    for number in numbers.into_iter().flatten() {
        // SAFETY: `client` owns these descriptors and outlives the borrow.
        #[expect(
            unsafe_code,
            reason = "the crate tells its descriptors as numbers only"
        )]
        let pipe = unsafe { BorrowedFd::borrow_raw(number) };
        // An inner make that can not inherit it warns and uses one job.
        let _ = rustix::io::fcntl_setfd(pipe, rustix::io::FdFlags::empty());
    }
    slots
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

/// Ends a group: politely, then, after a grace, for good.
fn end_group(group: i32, handle: &duct::Handle) {
    signal_group(group, Signal::TERM);
    let deadline = Instant::now() + GRACE;
    if !matches!(handle.wait_deadline(deadline), Ok(Some(_))) {
        signal_group(group, Signal::KILL);
    }
    // The leader may be gone while others of its group are not.
    signal_group(group, Signal::KILL);
}

fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group).filter(|_| group > 1) {
        // An error means that nobody is left in the group.
        let _ = kill_process_group(pid, signal);
    }
}

/// Variables that reach every command without being declared, and that no key holds: they
/// say where things are on this machine, not what to make.
pub const BASE_ENV: [&str; 10] = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE",
];

/// Returns the environment of a command: the base set out of `outer`, then `declared`.
pub fn command_env(
    outer: &dyn Fn(&str) -> Option<OsString>,
    declared: &[(String, Option<OsString>)],
) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = Vec::new();
    for name in BASE_ENV {
        if !declared.iter().any(|(n, _)| n == name)
            && let Some(value) = outer(name)
        {
            env.push((OsStr::new(name).to_owned(), value));
        }
    }
    for (name, value) in declared {
        if let Some(value) = value {
            env.push((OsStr::new(name).to_owned(), value.clone()));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn spec(script: &str, timeout: Option<Duration>) -> Spec {
        Spec {
            argv: ["sh", "-c", script].map(OsString::from).to_vec(),
            dir: std::env::temp_dir(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            timeout,
        }
    }

    #[track_caller]
    fn check(script: &str, timeout: Option<Duration>, expected: &str, printed: &str) {
        let mut log = tempfile::tempfile().expect("a file");
        let exit = Runner::default().run(&spec(script, timeout), &log);
        let mut text = String::new();
        log.rewind().expect("seeks");
        log.read_to_string(&mut text).expect("reads");
        assert_eq!((exit.shown().as_str(), text.as_str()), (expected, printed));
    }

    #[test]
    fn ends_are_told_apart() {
        check(
            "echo a; echo b >&2; exit 3",
            None,
            "exit status 3",
            "a\nb\n",
        );
        check("kill -9 $$", None, "killed by SIGKILL", "");
        check(
            "sleep 60 & sleep 60",
            Some(Duration::from_millis(200)),
            "timed out after 200ms",
            "",
        );
    }

    #[test]
    fn only_the_given_environment_arrives() {
        check(
            "env | grep -v '^_=' | grep -v '^PWD=' | grep -v '^SHLVL=' | sort",
            None,
            "exit status 0",
            "PATH=/usr/bin:/bin\n",
        );
    }

    #[test]
    fn a_missing_program_is_not_started() {
        let mut missing = spec("", None);
        missing.argv = vec!["no-such-program".into()];
        let log = tempfile::tempfile().expect("a file");
        let exit = Runner::default().run(&missing, &log);
        assert_eq!(exit.shown(), "not started: no such file or directory");
    }

    #[test]
    fn a_background_process_does_not_keep_the_runner_waiting() {
        let started = Instant::now();
        check("sleep 30 & echo done", None, "exit status 0", "done\n");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn nor_does_one_that_a_question_started() {
        let started = Instant::now();
        let question = spec("setsid sleep 30 & echo answer; echo said >&2", None);
        let (exit, out, err) = Runner::default().ask(&question);
        let printed = (exit.shown(), out, err);
        let expected = ("exit status 0".into(), b"answer\n".into(), b"said\n".into());
        assert_eq!(printed, expected);
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn an_interrupt_ends_the_whole_group() {
        let dir = tempfile::tempdir().expect("a directory");
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pid_file.display());
        let runner = Runner::default();
        let log = tempfile::tempfile().expect("a file");
        let exit = std::thread::scope(|scope| {
            let job = scope.spawn(|| runner.run(&spec(&script, None), &log));
            while std::fs::read_to_string(&pid_file).map_or(true, |t| !t.ends_with('\n')) {
                std::thread::sleep(Duration::from_millis(5));
            }
            runner.interrupt();
            job.join().expect("ends")
        });
        assert_eq!(exit.shown(), "interrupted");
        let pid = std::fs::read_to_string(&pid_file).expect("reads");
        let status = format!("/proc/{}/status", pid.trim());
        let is_gone =
            || std::fs::read_to_string(&status).map_or(true, |t| t.contains("\nState:\tZ"));
        while !is_gone() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
