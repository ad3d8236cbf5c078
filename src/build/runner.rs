//! The runner: local processes with declared environment, captured output and time limits.
//!
//! Every command leads a process group of its own and has a mark in its environment, so that a
//! time limit or Ctrl-C ends all that it started, not only the shell in front. Output goes
//! straight into a file: a process that stays behind in the background cannot keep `rel`
//! waiting on a pipe.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::build::sandbox::{self, AccessLog, Confinement};
use crate::core::error::shortened;
use crate::core::fs;
use crate::core::process::{Family, Waiter, now_ticks, own_session};
use crate::core::sync::lock;
use rustix::process::{Pid, Signal};

pub mod command_log;
mod env;
mod exit;
mod pause;
pub mod process_registry;
mod process_session;
mod programs;

use command_log::{CapturedOutput, CommandLog, Looked};
use env::jobserver_env;
pub use env::{BASE_ENV, MARK, checkout_mark, command_env, mark};
use exit::exit_of;
pub use exit::{CommandExit, PROGRAM_MISSING};
use pause::Pause;
use process_registry::ProcessRegistry;
use process_session::{Leader, Start};
use programs::Programs;

/// Time between the polite and the final signal, when a command's own time is over.
const GRACE: Duration = Duration::from_secs(2);

/// The same when the run is interrupted: `rel` is to be gone within a second.
pub const INTERRUPT_GRACE: Duration = Duration::from_millis(600);

/// Time in which processes that were killed must be gone.
const KILL_MAX: Duration = Duration::from_secs(1);

/// Time between two looks at what is to end.
const GLANCE: Duration = Duration::from_millis(10);

/// Time after which a command is first looked at: most have ended by then.
const FIRST_GLANCE: Duration = Duration::from_millis(20);

/// Time in which what a confined command started must have ended after it.
const LEFT_GRACE: Duration = Duration::from_secs(1);

/// A command, ready to run.
pub struct CommandSpec {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Directory it runs in.
    pub dir: PathBuf,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Time limit.
    pub timeout: Option<Duration>,
    /// The value of [`MARK`]; a question has none, for its answer may be its environment.
    pub mark: Option<String>,
}

/// Starts processes, and ends all of them at once when told to.
#[derive(Default)]
pub struct Runner {
    /// Commands at work, by the number of their leader, which has not been reaped.
    at_work: Mutex<BTreeMap<i32, Arc<Family>>>,
    interrupted: OnceLock<Instant>,
    pause: Pause,
    register: Option<ProcessRegistry>,
    programs: Programs,
    /// Variables that offer job slots to an inner `make`.
    slots: Vec<(OsString, OsString)>,
    /// Processes started; asserted in tests, shown by `--stats`.
    pub started: AtomicU64,
}

/// A command that was started.
enum Started {
    /// It leads a group of its own.
    Group(Box<duct::Handle>),
    /// It leads a session of its own.
    Session(Leader),
}

impl Started {
    fn group(handle: duct::Handle) -> Self {
        Self::Group(Box::new(handle))
    }

    fn pid(&self) -> i32 {
        match self {
            Self::Group(handle) => handle.pids().first().map_or(0, |pid| *pid as i32),
            Self::Session(leader) => leader.pid(),
        }
    }

    /// Waits for the end, and reaps it.
    fn wait(&self) -> io::Result<ExitStatus> {
        match self {
            Self::Group(handle) => handle.wait().map(|output| output.status),
            Self::Session(leader) => leader.wait(),
        }
    }
}

/// How waiting for a command has ended.
enum Waited {
    /// It has ended by itself, with success or not.
    Ended(bool),
    /// Its time is over.
    Late(Duration),
    /// It has printed more than that.
    TooMuch(u64),
}

impl Runner {
    /// Returns a runner that offers the slots of `jobserver` to the processes it starts. Of
    /// what this process inherited they get nothing else.
    pub fn new(jobserver: Option<&jobserver::Client>) -> Self {
        sandbox::close_inherited();
        Self {
            slots: jobserver.map(jobserver_env).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Enters every command into `register` while it runs.
    #[must_use]
    pub fn registered(mut self, register: ProcessRegistry) -> Self {
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
    pub fn run(&self, spec: &CommandSpec, log: &CommandLog) -> CommandExit {
        let file = match log.file().try_clone() {
            Ok(file) => file,
            Err(e) => return CommandExit::NotStarted(e),
        };
        let expression = self.expression(spec).stderr_to_stdout().stdout_file(file);
        let start = || expression.start().map(Started::group);
        self.wait_for(spec, start, &|| log.look(), |_| {})
    }

    /// Runs a command like [`Runner::run`], but confined and watched. Nothing that it started
    /// outlives it: what is left is ended.
    pub fn run_confined(
        &self,
        spec: &CommandSpec,
        log: &CommandLog,
        confinement: &Confinement,
    ) -> (CommandExit, AccessLog) {
        let file = match log.file().try_clone() {
            Ok(file) => file,
            Err(e) => return (CommandExit::NotStarted(e), AccessLog::default()),
        };
        let confinement = Confinement {
            log: std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok(),
            ..confinement.clone()
        };
        let watch = Mutex::new(None);
        let mut seen = AccessLog::default();
        let start = || {
            let (started, watching) = match &confinement.rules {
                // A command without all else has no terminal either.
                Some(_) => {
                    let command = self.session(spec, file);
                    confinement.start(move || command.start().map(Started::Session))?
                }
                None => {
                    let expression = self.expression(spec).stderr_to_stdout().stdout_file(file);
                    confinement.start(move || expression.start().map(Started::group))?
                }
            };
            *lock(&watch) = Some(watching);
            Ok(started)
        };
        let finish = |family: &Family| {
            let watching = lock(&watch).take();
            seen = watching.map_or_else(AccessLog::default, |w| w.finish(LEFT_GRACE, family));
        };
        let exit = self.wait_for(spec, start, &|| log.look(), finish);
        (exit, seen)
    }

    /// Runs a question and returns its standard output; the end of its standard error is returned
    /// second.
    pub fn capture(&self, spec: &CommandSpec) -> (CommandExit, Vec<u8>, Vec<u8>) {
        let ask = || -> io::Result<(CommandExit, Vec<u8>, Vec<u8>)> {
            let answer = CapturedOutput::create()?;
            let expression = self.expression(spec).stdout_file(answer.out.try_clone()?);
            let expression = expression.stderr_file(answer.err.try_clone()?);
            let start = || expression.start().map(Started::group);
            let exit = self.wait_for(spec, start, &|| answer.look(), |_| {});
            // It may have printed more since it was looked at.
            let exit = match answer.look() {
                Err(max) if exit.is_ok() => CommandExit::PrintedTooMuch(max),
                _ => exit,
            };
            let (out, err) = answer.printed()?;
            Ok((exit, out, err))
        };
        ask().unwrap_or_else(|e| (CommandExit::NotStarted(e), Vec::new(), Vec::new()))
    }

    /// Asks every command at work to end. Commands started afterwards are refused.
    pub fn interrupt(&self) {
        let _ = self.interrupted.set(Instant::now());
        self.signal_all(Signal::TERM);
    }

    /// Ends at once what did not end after [`Runner::interrupt`].
    pub fn kill(&self) {
        self.signal_all(Signal::KILL);
    }

    /// Stops every command at work until [`Runner::go_on`]. Their time limits stop as well.
    pub fn pause(&self) {
        self.pause.begin(|| self.signal_all(Signal::STOP));
    }

    /// Lets commands that were stopped go on.
    pub fn go_on(&self) {
        self.pause.end(|| self.signal_all(Signal::CONT));
    }

    /// Returns whether the run was interrupted.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.get().is_some()
    }

    fn session(&self, spec: &CommandSpec, out: File) -> Start {
        let (program, arguments) = self.words(spec);
        let owned = |(name, value): (&OsStr, &OsStr)| (name.to_owned(), value.to_owned());
        Start {
            program,
            arguments: arguments.to_vec(),
            env: self.env(spec).map(owned).collect(),
            dir: spec.dir.clone(),
            out,
        }
    }

    fn words<'a>(&self, spec: &'a CommandSpec) -> (OsString, &'a [OsString]) {
        let (program, arguments) = match spec.argv.split_first() {
            Some((program, arguments)) => (program.clone(), arguments),
            None => (OsString::new(), [].as_slice()),
        };
        (self.programs.find(&program, spec), arguments)
    }

    fn expression(&self, spec: &CommandSpec) -> duct::Expression {
        let (program, arguments) = self.words(spec);
        duct::cmd(program, arguments)
            .dir(&spec.dir)
            .full_env(self.env(spec))
            .stdin_null()
            .unchecked()
            .before_spawn(|command| {
                command.process_group(0);
                Ok(())
            })
    }

    /// Returns the whole environment of a command; of two values of a name the last one counts.
    fn env<'a>(&'a self, spec: &'a CommandSpec) -> impl Iterator<Item = (&'a OsStr, &'a OsStr)> {
        let slots = self.slots.iter();
        let declared = spec.env.iter().chain(slots);
        let declared = declared.map(|(n, v)| (n.as_os_str(), v.as_os_str()));
        let mark = spec.mark.iter().map(|m| (OsStr::new(MARK), OsStr::new(m)));
        let mut values: BTreeMap<&OsStr, &OsStr> = BTreeMap::new();
        values.extend(declared.chain(mark));
        values.into_iter()
    }

    /// Starts a command and waits for its end; `look` is asked whether it prints too much. Calls
    /// `finish` before the command is reaped: until then its numbers are its own.
    fn wait_for(
        &self,
        spec: &CommandSpec,
        start: impl FnOnce() -> io::Result<Started>,
        look: &dyn Fn() -> Looked,
        finish: impl FnOnce(&Family),
    ) -> CommandExit {
        self.started.fetch_add(1, Ordering::Relaxed);
        if self.is_interrupted() {
            return CommandExit::Interrupted;
        }
        if let Some(register) = &self.register {
            register.starting();
        }
        let since = now_ticks();
        let started = match start() {
            Ok(started) => started,
            Err(e) => return CommandExit::NotStarted(e),
        };
        let family = Arc::new(Family {
            leader: started.pid(),
            since,
            noted: now_ticks(),
            session: own_session(),
            mark: spec.mark.clone().map(|mark| (MARK, mark)),
            known: Mutex::default(),
        });
        self.at_work().insert(family.leader, family.clone());
        // An interrupt either finds the command entered, or is seen here.
        if self.is_interrupted() {
            family.signal_unreaped(Signal::TERM);
        }
        self.pause.if_on(|| family.signal_unreaped(Signal::STOP));
        if let Some(register) = &self.register {
            register.started(&family);
        }
        tracing::debug!(
            pid = family.leader,
            dir = %spec.dir.display(),
            command = %shown(&spec.argv),
            "started"
        );
        let waited = self.wait(&family, spec.timeout, look);
        self.end_rest(&family, &waited);
        finish(&family);
        if let Some(register) = &self.register {
            register.ended(family.leader);
        }
        self.at_work().remove(&family.leader);
        let status = match started.wait() {
            Ok(status) => status,
            Err(e) => return CommandExit::NotStarted(e),
        };
        match waited {
            Ok(Waited::Late(limit)) => CommandExit::TimedOut(limit),
            Ok(Waited::TooMuch(max)) => CommandExit::PrintedTooMuch(max),
            _ if self.is_interrupted() && !status.success() => CommandExit::Interrupted,
            _ => exit_of(status),
        }
    }

    /// Waits until a command has ended, its time is over, or it has printed too much. Time in which
    /// it was stopped does not count.
    fn wait(
        &self,
        family: &Family,
        timeout: Option<Duration>,
        look: &dyn Fn() -> Looked,
    ) -> io::Result<Waited> {
        let pid = Pid::from_raw(family.leader).ok_or(io::ErrorKind::NotFound)?;
        let waiter = Waiter::new(pid);
        let (start, stopped) = (Instant::now(), self.pause.total());
        let took = || {
            let stopped = self.pause.total().saturating_sub(stopped);
            start.elapsed().saturating_sub(stopped)
        };
        let mut next = FIRST_GLANCE;
        loop {
            let left = timeout.map(|limit| limit.saturating_sub(took()));
            if let Some(status) = waiter.ended_within(left.map_or(next, |left| next.min(left)))? {
                return Ok(Waited::Ended(status.exit_status() == Some(0)));
            }
            if let Some(limit) = timeout.filter(|limit| took() >= *limit) {
                return Ok(Waited::Late(limit));
            }
            next = match look() {
                Ok(next) => next,
                Err(max) => return Ok(Waited::TooMuch(max)),
            };
        }
    }

    /// Ends what is there of a command that must not go on: politely, then, after a grace, for
    /// good. What a command that has come to its end leaves behind is left alone.
    fn end_rest(&self, family: &Family, waited: &io::Result<Waited>) {
        let grace = match waited {
            Ok(Waited::Ended(true)) => return,
            Ok(Waited::Ended(false)) if !self.is_interrupted() => return,
            // It got the polite signal when the run was interrupted.
            Ok(Waited::Ended(false)) => INTERRUPT_GRACE,
            Ok(Waited::Late(_)) => {
                family.signal_unreaped(Signal::TERM);
                GRACE
            }
            Ok(Waited::TooMuch(_)) | Err(_) => Duration::ZERO,
        };
        let start = Instant::now();
        let is_over = || {
            let interrupted = self.interrupted.get();
            start.elapsed() >= grace || interrupted.is_some_and(|i| i.elapsed() >= INTERRUPT_GRACE)
        };
        while !is_over() {
            if family.is_gone_by(Instant::now()) {
                return;
            }
            std::thread::sleep(GLANCE);
        }
        family.signal_unreaped(Signal::KILL);
        family.kill_by(Instant::now() + KILL_MAX);
    }

    fn signal_all(&self, signal: Signal) {
        for family in self.at_work().values() {
            family.signal_unreaped(signal);
        }
    }

    fn at_work(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Family>>> {
        lock(&self.at_work)
    }
}

/// Returns the words of a command, for the log of what `rel` does.
fn shown(argv: &[OsString]) -> String {
    let command = argv.join(OsStr::new(" "));
    shortened(&fs::shown(&command)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn spec(script: &str, timeout: Option<Duration>) -> CommandSpec {
        CommandSpec {
            argv: ["sh", "-c", script].map(OsString::from).to_vec(),
            dir: std::env::temp_dir(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            timeout,
            mark: None,
        }
    }

    fn log() -> (tempfile::TempDir, CommandLog) {
        let dir = tempfile::tempdir().expect("a directory");
        let log = CommandLog::create(dir.path()).expect("a log");
        (dir, log)
    }

    #[track_caller]
    fn check(script: &str, timeout: Option<Duration>, expected: &str, printed: &str) {
        let (_dir, log) = log();
        let exit = Runner::default().run(&spec(script, timeout), &log);
        let mut text = String::new();
        let (all, _) = log.printed().expect("reads");
        all.reader().read_to_string(&mut text).expect("reads");
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
        let (_dir, log) = log();
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
        let (exit, out, err) = Runner::default().capture(&question);
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
        let (_dir, log) = log();
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
