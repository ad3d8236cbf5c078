//! The live display: plain lines above, one moving line below with what runs and what is
//! left. Times come from past runs, so that a coffee can be planned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::PlainProgress;
use super::{TermOptions, Text, shown_time};
use crate::core::diagnostics::SourceMap;
use crate::core::progress::{Event, Progress};
use crate::core::sync::lock;

/// What the moving line is made of.
#[derive(Default)]
struct State {
    running: BTreeMap<String, Instant>,
    stale: usize,
    done: usize,
}

/// Displays that are there.
static DRAWN: AtomicUsize = AtomicUsize::new(0);

/// Returns whether the moving line may be on the screen.
pub fn is_drawn() -> bool {
    DRAWN.load(Ordering::SeqCst) > 0
}

/// Writes lines above the moving one.
type Write = Box<dyn Fn(&Text) + Sync + Send>;

/// Draws the display on standard error.
pub struct LiveProgress {
    plain: PlainProgress<Write>,
    bar: ProgressBar,
    state: Arc<Mutex<State>>,
}

impl LiveProgress {
    /// Returns a display; it is gone when this is dropped.
    pub fn new(screen: TermOptions, sources: SourceMap) -> Self {
        DRAWN.fetch_add(1, Ordering::SeqCst);
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let style = ProgressStyle::with_template("{spinner} {work}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key(
                "work",
                move |_: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    // Nothing can be done about a line that cannot be written.
                    let _ = out.write_str(work_line(&shared, screen.width).as_str());
                },
            );
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        let above = bar.clone();
        let write: Write = Box::new(move |text| above.suspend(|| super::eprint(text)));
        Self {
            plain: PlainProgress::new(screen, sources, write),
            bar,
            state,
        }
    }
}

impl Drop for LiveProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        DRAWN.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Progress for LiveProgress {
    fn suspend(&self, act: &mut dyn FnMut()) {
        self.bar.suspend(act);
    }

    fn event(&self, event: &Event<'_>) {
        {
            let mut state = lock(&self.state);
            let now = Instant::now();
            match event {
                Event::Planned { stale, .. } => {
                    state.stale = *stale;
                    state.done = 0;
                }
                Event::Started { target, .. } => drop(state.running.insert((*target).into(), now)),
                Event::StepStarted { host, step, .. } => {
                    state.running.insert(format!("{host} {step}"), now);
                }
                Event::Finished { target, .. } | Event::Failed { target, .. } => {
                    state.running.remove(*target);
                    state.done += 1;
                }
                Event::StepFinished { host, step, .. } => {
                    state.running.remove(&format!("{host} {step}"));
                }
                _ => {}
            }
        }
        self.plain.event(event);
    }
}

fn work_line(state: &Mutex<State>, width: usize) -> Text {
    let state = lock(state);
    let mut line = match state.stale {
        0 => String::new(),
        stale => format!("{} of {stale}  ", state.done.min(stale)),
    };
    let mut running: Vec<_> = state.running.iter().collect();
    running.sort_by_key(|(_, since)| **since);
    let names = running
        .iter()
        .map(|(name, since)| format!("{name} {}", shown_time(since.elapsed())));
    line.push_str(&names.collect::<Vec<_>>().join(", "));
    let line: String = line.chars().take(width.saturating_sub(4)).collect();
    Text::from(line)
}
