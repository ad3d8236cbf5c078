//! The model test: random graphs, random histories, and an oracle that knows what is right.
//!
//! After each step of a history the tree's outputs equal those of a clean build, a second
//! build runs nothing, and no command ran whose whole action had been done before. `rel` is
//! the real program, its commands real processes; only the oracle is made up (`oracle.rs`).
//!
//! `REL_MODEL_HISTORIES=20000` walks more of them, `REL_MODEL_SEED=17` one, or from there on.
//! The same walk checks what killed and hindered runs leave behind (`crashes.rs`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use history::{History, of_seed, simpler};
use walk::{Counts, walk};

mod crashes;
mod ground;
mod history;
mod oracle;
mod walk;
mod world;

/// Histories walked unless a person asks for more.
const HISTORIES: u64 = 2000;

/// Walks to shrink one failure in.
const SIMPLER_MAX: usize = 250;

/// Seeds that once found something, each with what it was.
const FOUND: [(u64, &str); 0] = [];

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

#[test]
fn an_incremental_build_equals_a_clean_one() {
    let seed = variable("REL_MODEL_SEED");
    let count =
        variable("REL_MODEL_HISTORIES").unwrap_or(if seed.is_some() { 1 } else { HISTORIES });
    let first = seed.unwrap_or(1);
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Counts::default());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count + FOUND.len() as u64
                        || failures.lock().is_ok_and(|f| f.len() >= 3)
                    {
                        return;
                    }
                    let found = FOUND
                        .get(n.wrapping_sub(count) as usize)
                        .filter(|_| n >= count);
                    let seed = found.map_or(first + n, |(seed, _)| *seed);
                    let history = of_seed(seed);
                    let (counts, outcome) = walked(seed, &history);
                    if let Ok(mut totals) = totals.lock() {
                        totals.operations += counts.operations;
                        totals.builds += counts.builds;
                        totals.kills += counts.kills;
                        totals.targets += counts.targets;
                        totals.runs += counts.runs;
                    }
                    if let Err(failure) = outcome {
                        let story = story(seed, history, failure);
                        eprintln!("{story}");
                        failures.lock().expect("is sound").push(seed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().expect("is sound");
    println!(
        "{count} histories and graphs, {} targets, {} operations, {} builds, {} commands run, {} kills",
        totals.targets, totals.operations, totals.builds, totals.runs, totals.kills
    );
    let failures = failures.into_inner().expect("is sound");
    assert!(
        failures.is_empty(),
        "seeds {failures:?}: their stories are above"
    );
}
