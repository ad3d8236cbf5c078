//! Ctrl-C and friends: the first asks what runs to end, and `rel` is gone within a second; the
//! second ends all at once. Ctrl-Z stops what is at work as well.
//!
//! No waiting thread has to poll for that. Where no [`SignalListener`] is, nothing is at work, and a
//! signal ends `rel` there and then. Else what is at work is asked to end and `rel` comes to its
//! own end; if that takes too long (a disk, a pipe or a terminal that takes nothing, a host that
//! cleans up), it is ended as by `kill -9`, which loses nothing.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;

use crate::build::runner::{INTERRUPT_GRACE, Runner};
use crate::cli::ui;
use crate::core::cancel::Cancel;
use crate::core::error::{EXIT_INTERRUPTED, Error, Result};
use crate::core::sync::lock;

/// Time from the first signal on in which `rel` may come to its own end.
const EXIT_AFTER: Duration = Duration::from_millis(850);
/// Time that killing what is at work may take once more, before `rel` is ended.
const KILL_AGAIN_MAX: Duration = Duration::from_millis(100);
/// The same where it was not killed before. It takes a few milliseconds; on a busy machine, where
/// all processes must be looked at, many more.
const KILL_MAX: Duration = Duration::from_secs(1);
/// A signal that comes that soon is the first one again: `timeout` and other programs send theirs
/// to a process and to its group.
const REPEATED: Duration = Duration::from_millis(100);

/// What is at work, and how it is ended.
struct AtWork {
    id: u64,
    cancel: Cancel,
    interrupt: Box<dyn Fn() + Send + Sync>,
    kill: Box<dyn Fn() + Send + Sync>,
    pause: Option<PauseHook>,
}

/// Stops what is at work, and lets it go on.
pub type PauseHook = [Box<dyn Fn() + Send + Sync>; 2];

struct State {
    is_listening: bool,
    next_id: u64,
    first: Option<Instant>,
    at_work: Vec<Arc<AtWork>>,
}

static STATE: Mutex<State> = Mutex::new(State {
    is_listening: false,
    next_id: 0,
    first: None,
    at_work: Vec::new(),
});

fn state() -> MutexGuard<'static, State> {
    lock(&STATE)
}

/// Ends something at work when a signal comes, until it is dropped.
pub struct SignalListener {
    id: u64,
}

impl SignalListener {
    /// Listens for a runner: its commands are interrupted, killed, and stopped with `rel`.
    /// `cancel` is set before.
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub fn of_runner(runner: &Arc<Runner>, cancel: Cancel) -> Result<Self> {
        let [interrupt, kill, pause, go_on] = std::array::from_fn(|_| runner.clone());
        let pause: PauseHook = [
            Box::new(move || pause.pause()),
            Box::new(move || go_on.go_on()),
        ];
        let (interrupt, kill) = (move || interrupt.interrupt(), move || kill.kill());
        Self::pausing(cancel, interrupt, kill, Some(pause))
    }

    /// Calls `interrupt` at the first signal, and `kill` after a grace and at the second.
    /// `cancel` is set before. Both may be called from any thread, and again.
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub fn start(
        cancel: Cancel,
        interrupt: impl Fn() + Send + Sync + 'static,
        kill: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::pausing(cancel, interrupt, kill, None)
    }

    fn pausing(
        cancel: Cancel,
        interrupt: impl Fn() + Send + Sync + 'static,
        kill: impl Fn() + Send + Sync + 'static,
        pause: Option<PauseHook>,
    ) -> Result<Self> {
        listen()?;
        let mut state = state();
        state.next_id += 1;
        let id = state.next_id;
        // It may have come since the last one was dropped.
        if state.first.is_some() {
            cancel.set();
        }
        state.at_work.push(Arc::new(AtWork {
            id,
            cancel,
            interrupt: Box::new(interrupt),
            kill: Box::new(kill),
            pause,
        }));
        Ok(Self { id })
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        state().at_work.retain(|work| work.id != self.id);
    }
}

/// Starts to listen; once for all. From then on signals end nothing by themselves.
fn listen() -> Result<()> {
    let mut state = state();
    if state.is_listening {
        return Ok(());
    }
    // What `nohup` has taken away stays away.
    let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    // Else the one that is set now would be called as well.
    set_action(libc::SIG_DFL);
    // A shell without job control cannot continue it.
    let stop = (!is_ignored(SIGTSTP)).then_some(SIGTSTP);
    let others = hang_up.into_iter().chain(stop);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(others))
        .map_err(|e| Error::internal(format!("cannot listen for signals: {e}")))?;
    let thread = std::thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGTSTP => stop_here(),
                _ => came(),
            }
        }
    });
    thread.map_err(|e| Error::internal(format!("cannot listen for signals: {e}")))?;
    state.is_listening = true;
    Ok(())
}

/// Stops with all that is at work, until a user lets `rel` go on. Commands are in groups of
/// their own, which the terminal's signal does not reach.
fn stop_here() {
    let at_work = state().at_work.clone();
    let all = |which: usize| {
        let pauses = at_work.iter().filter_map(|work| work.pause.as_ref());
        pauses.for_each(|pause| pause[which]());
    };
    all(0);
    ui::last_words("");
    stop_self();
    all(1);
}

/// Does what SIGTSTP does by default; returns when `rel` goes on. Where no shell could let it go on
/// (an orphaned process group) the kernel does nothing.
#[expect(
    unsafe_code,
    reason = "no crate that is here leaves that decision to the kernel"
)]
fn stop_self() {
    // SAFETY: all zeros are a value of this plain struct, which is the default action, and the
    // former one is set again as it was. The signal comes to this very thread, before `raise`
    // returns.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut former: libc::sigaction = std::mem::zeroed();
        libc::sigaction(SIGTSTP, &raw const default, &raw mut former);
        libc::raise(SIGTSTP);
        libc::sigaction(SIGTSTP, &raw const former, std::ptr::null_mut());
    }
}

/// A signal has come.
fn came() {
    let mut state = state();
    match state.first {
        Some(first) if first.elapsed() < REPEATED => return,
        Some(_) => {
            drop(state);
            give_up(KILL_MAX);
        }
        None => state.first = Some(Instant::now()),
    }
    let at_work = state.at_work.clone();
    drop(state);
    for work in &at_work {
        work.cancel.set();
    }
    if at_work.is_empty() {
        give_up(KILL_MAX);
    }
    beside(|| {
        let asked = state_elapsed();
        within(INTERRUPT_GRACE.saturating_sub(asked), |work| {
            (work.interrupt)()
        });
        std::thread::sleep(INTERRUPT_GRACE.saturating_sub(state_elapsed()));
        within(EXIT_AFTER.saturating_sub(state_elapsed()), |work| {
            (work.kill)()
        });
        std::thread::sleep(EXIT_AFTER.saturating_sub(state_elapsed()));
        give_up(KILL_AGAIN_MAX);
    });
}

/// Returns how long ago the first signal came.
fn state_elapsed() -> Duration {
    state()
        .first
        .map_or(Duration::ZERO, |first| first.elapsed())
}

/// Does something with all that is at work, and waits for it no longer than `time`: who looks at
/// other processes may wait for one that is stuck.
fn within(time: Duration, act: impl Fn(&AtWork) + Send + 'static) {
    let at_work = state().at_work.clone();
    let (done, is_done) = channel();
    beside(move || {
        at_work.iter().for_each(|work| act(work));
        // No thread may wait any more.
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(time);
}

/// Does something on another thread; here, where there can be none.
fn beside(act: impl FnOnce() + Send + 'static) {
    let act = Arc::new(Mutex::new(Some(act)));
    let run = |act: &Mutex<Option<_>>| {
        let act = lock(act).take();
        if let Some(act) = act {
            let act: Box<dyn FnOnce()> = Box::new(act);
            act();
        }
    };
    let shared = act.clone();
    if std::thread::Builder::new()
        .spawn(move || run(&shared))
        .is_err()
    {
        run(&act);
    }
}

/// Ends `rel` at once, with all that is at work, which may take no longer than `time`.
fn give_up(time: Duration) -> ! {
    within(time, |work| (work.kill)());
    ui::last_words("rel: interrupted\n");
    quit(0)
}

/// Ends `rel` at once. May be called by a handler of signals.
#[expect(
    unsafe_code,
    reason = "the library's own exit waits for who writes to standard output"
)]
extern "C" fn quit(_signal: libc::c_int) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(i32::from(EXIT_INTERRUPTED)) }
}

/// Lets INT and TERM end `rel` at once with its own exit code, until something is at work. Both
/// are sent on purpose, also to what a script has started with `&`, where Ctrl-C
/// is ignored.
pub fn end_at_once() {
    set_action(quit as *const () as libc::sighandler_t);
}

#[expect(
    unsafe_code,
    reason = "no crate that is here sets a handler without a thread"
)]
fn set_action(action: libc::sighandler_t) {
    // SAFETY: the handler does nothing but end the process.
    unsafe {
        libc::signal(SIGINT, action);
        libc::signal(SIGTERM, action);
    }
}

#[expect(unsafe_code, reason = "no crate that is here asks without setting")]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: nothing is set, and all zeros are a value of this plain struct.
    let (asked, now) = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(signal, std::ptr::null(), &raw mut now);
        (asked, now)
    };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// Lets nothing that is started stop at the terminal: commands are never in its foreground, so
/// one that asks there would stop, unseen, for good. What is ignored here is ignored in them,
/// and their reads fail at once.
#[expect(unsafe_code, reason = "no crate that is here ignores a signal")]
pub fn no_stops_at_the_terminal() {
    // SAFETY: no handler is set.
    unsafe {
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
}
