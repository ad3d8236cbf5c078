//! The model test: random graphs, random histories, and an oracle that knows what is right.
//!
//! After each step of a history the tree's outputs equal those of a clean build, a second
//! build runs nothing, and no command ran whose whole action had been done before. `rel` is
//! the real program, its commands real processes; only the oracle is made up (`oracle.rs`).
//!
//! Some commands write the path of the checkout. Work goes on in a second checkout that shares the
//! cache, and checkouts are moved: what names the path is made anew there, all else is restored.
//!
//! `REL_MODEL_HISTORIES=20000` walks more of them, `REL_MODEL_SEED=17` one, or from there on.
//! What it finds is kept as a test of its own where that behaviour is tested: the numbers that a
//! seed gives change with the generator. The same walk checks what killed and hindered runs
//! leave behind (`crashes.rs`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use history::{History, of_seed, simpler};
use walk::{Counts, walk};

mod change;
mod crashes;
mod ground;
mod history;
mod oracle;
mod releases;
mod walk;
mod world;

/// Histories walked unless a person asks for more.
const HISTORIES: u64 = 2000;

/// Walks to shrink one failure in.
const SIMPLER_MAX: usize = 250;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Walks a history; every eighth on a disk, the others in memory.
fn walked(seed: u64, history: &History) -> (Counts, Result<(), String>) {
    walk(history, seed.is_multiple_of(8))
}

/// Leaves out of a failing history whatever it fails without.
fn shrunk(seed: u64, history: History, failure: String) -> (History, String) {
    let (mut history, mut failure) = (history, failure);
    let mut attempts = 0;
    'simpler: while attempts < SIMPLER_MAX {
        for simple in simpler(&history) {
            attempts += 1;
            // What depends on the moment of a kill may need more than one walk.
            let again = (0..2).find_map(|_| walked(seed, &simple).1.err());
            if let Some(found) = again.filter(|found| class(found) == class(&failure)) {
                (history, failure) = (simple, found);
                continue 'simpler;
            }
            if attempts >= SIMPLER_MAX {
                break;
            }
        }
        break;
    }
    (history, failure)
}

/// Returns what a failure is about: a shrunk history must still fail in the same way.
fn class(failure: &str) -> Option<&'static str> {
    let classes = [
        "exit code Some(2)",
        "exit code",
        "wrong outputs",
        "wrong product",
        "left in the tree",
        "the cache was given up",
        "was not wanted",
        "times, expected 0",
        "times, expected",
    ];
    classes.into_iter().find(|class| failure.contains(class))
}

fn story(seed: u64, history: History, failure: String) -> String {
    let (history, failure) = shrunk(seed, history, failure);
    let [main, more] = history.world.tree.releasefiles("act");
    format!(
        "seed {seed}: {failure}\nsteps: {:#?}\nsources: {:?}\n{main}\n// more.kdl\n{more}",
        history.steps, history.world.tree.sources
    )
}

/// Walks histories until there are none left, or enough have failed.
fn some(
    next: &AtomicU64,
    first: u64,
    count: u64,
    totals: &Mutex<Counts>,
    failed: &Mutex<Vec<u64>>,
) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= count || failed.lock().is_ok_and(|f| f.len() >= 3) {
            return;
        }
        let seed = first + n;
        let history = of_seed(seed);
        let (counts, outcome) = walked(seed, &history);
        if let Ok(mut totals) = totals.lock() {
            totals.add(&counts);
        }
        if let Err(failure) = outcome {
            eprintln!("seed {seed}: {failure}\nlooking for a simpler history that fails like it");
            eprintln!("{}", story(seed, history, failure));
            failed.lock().expect("is sound").push(seed);
        }
    }
}

#[test]
fn an_incremental_build_equals_a_clean_one() {
    let seed = variable("REL_MODEL_SEED");
    let usual = if seed.is_some() { 1 } else { HISTORIES };
    let count = variable("REL_MODEL_HISTORIES").unwrap_or(usual);
    let (next, first) = (AtomicU64::new(0), seed.unwrap_or(1));
    let totals = Mutex::new(Counts::default());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| some(&next, first, count, &totals, &failed));
        }
    });
    let totals = totals.into_inner().expect("is sound");
    println!(
        "{count} histories and graphs, {} targets, {} operations, {} builds, {} commands run, {} kills",
        totals.targets, totals.operations, totals.builds, totals.runs, totals.kills
    );
    let failed = failed.into_inner().expect("is sound");
    assert!(
        failed.is_empty(),
        "seeds {failed:?}: their stories are above"
    );
}
