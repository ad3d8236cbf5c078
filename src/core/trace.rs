//! The trace: when what began and ended, on which thread. For `--stats` and `--trace`.
//!
//! Off, a span costs one load. On, it is kept in memory until the run has ended, and then
//! written as the JSON that Chrome's `about:tracing` and Perfetto read ("Trace Event
//! Format": complete events of phase `X`, times in microseconds).

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::core::sync::lock;

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// What it was.
    pub name: Cow<'static, str>,
    /// Its kind: a `phase` of the run, or a `target`.
    pub kind: &'static str,
    /// The thread it was on, in the order in which threads were first seen.
    pub row: u32,
    /// When it began, after the trace did.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
}

struct Trace {
    began: Instant,
    events: Mutex<Vec<TraceEvent>>,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static TRACE: OnceLock<Trace> = OnceLock::new();
static ROWS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static ROW: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Starts the trace of this process.
pub fn start() {
    TRACE.get_or_init(|| Trace {
        began: Instant::now(),
        events: Mutex::default(),
    });
    row();
    IS_ON.store(true, Ordering::Relaxed);
}

/// Returns all events so far, in the order in which they began.
pub fn events() -> Vec<TraceEvent> {
    let Some(trace) = TRACE.get() else {
        return Vec::new();
    };
    let mut events = lock(&trace.events).clone();
    events.sort_by_key(|e| e.start);
    events
}

fn row() -> u32 {
    ROW.get().unwrap_or_else(|| {
        let row = ROWS.fetch_add(1, Ordering::Relaxed);
        ROW.set(Some(row));
        row
    })
}

/// Notes an event when dropped.
pub struct TraceSpan(Option<(Cow<'static, str>, &'static str, Instant)>);

/// Begins a phase of the run.
pub fn phase(name: &'static str) -> TraceSpan {
    span("phase", || name.into())
}

/// Begins the work on a target.
pub fn target(name: &str) -> TraceSpan {
    span("target", || name.to_owned().into())
}

fn span(kind: &'static str, name: impl FnOnce() -> Cow<'static, str>) -> TraceSpan {
    let is_on = IS_ON.load(Ordering::Relaxed);
    TraceSpan(is_on.then(|| (name(), kind, Instant::now())))
}

impl Drop for TraceSpan {
    fn drop(&mut self) {
        let (Some((name, kind, began)), Some(trace)) = (self.0.take(), TRACE.get()) else {
            return;
        };
        let event = TraceEvent {
            name,
            kind,
            row: row(),
            start: began.saturating_duration_since(trace.began),
            took: began.elapsed(),
        };
        let mut events = lock(&trace.events);
        events.push(event);
    }
}

/// Returns the events as a Chrome trace. The first row has the phases, then come the
/// targets of `critical`, the path that decided how long the run took, then the threads.
pub fn chrome(events: &[TraceEvent], critical: &[String]) -> Value {
    const PATH: u32 = 1;
    let row_of = |event: &TraceEvent| match event.row {
        0 => 0,
        row => row + PATH,
    };
    let us = |d: Duration| d.as_nanos() as f64 / 1000.0;
    let shown = |event: &TraceEvent, row: u32| {
        json!({
            "name": event.name, "cat": event.kind, "ph": "X", "pid": 1, "tid": row,
            "ts": us(event.start), "dur": us(event.took),
        })
    };
    let critical: HashSet<&str> = critical.iter().map(String::as_str).collect();
    let is_critical = |e: &&TraceEvent| e.kind == "target" && critical.contains(e.name.as_ref());
    let mut all: Vec<Value> = events.iter().map(|e| shown(e, row_of(e))).collect();
    all.extend(events.iter().filter(is_critical).map(|e| shown(e, PATH)));
    let last = events.iter().map(row_of).max().unwrap_or(0).max(PATH);
    all.extend((0..=last).map(|row| {
        let name = match row {
            0 => String::from("rel"),
            PATH => String::from("critical path"),
            row => format!("worker {}", row - PATH),
        };
        json!({
            "name": "thread_name", "ph": "M", "pid": 1, "tid": row, "args": { "name": name },
        })
    }));
    json!({ "traceEvents": all, "displayTimeUnit": "ms" })
}

/// Returns how long each phase took, in the order in which they began.
pub fn phases(events: &[TraceEvent]) -> Vec<(&str, Duration)> {
    let phases = events.iter().filter(|e| e.kind == "phase");
    phases.map(|e| (e.name.as_ref(), e.took)).collect()
}
