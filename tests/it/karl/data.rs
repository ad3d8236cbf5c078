//! What happens to data: production's never changes, an evolve that fails leaves the old.

use std::time::Duration;

use rustix::process::Signal;

use super::{Karl, tree};
use crate::space::wait_until;

/// Where production keeps its data.
const PRODUCTION: &str = ".rel/hosts/production/data";

/// Starts a staging that does everything again, and cuts it off once so many steps began.
fn cut_off(karl: &Karl, steps: usize, signal: Signal) {
    let job = karl
        .space
        .begin(karl.words(&["staging", "branch2", "--force"]));
    let begun = |text: &str| {
        let lines = text.lines();
        lines.filter(|l| l.trim_start().starts_with("run ")).count()
    };
    wait_until("the middle of a staging", || {
        (begun(&job.stderr()) >= steps).then_some(())
    });
    job.signal(signal);
    let output = job.finish();
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn production_stays_byte_for_byte_as_it_is() {
    let karl = Karl::new();
    let _ = karl.stage(&[]).ok();
    let before = tree(&karl.space.path(PRODUCTION));
    assert!(before.len() > 50, "{before:#?}");

    let _ = karl.stage(&["--force"]).ok();
    assert_eq!(tree(&karl.space.path(PRODUCTION)), before);
    // Three targets run first, then 59 steps; snapshots and copies are those around the 30th.
    let moments = [5, 21, 28, 29, 30, 33, 36, 44, 49, 55];
    let jitter = std::process::id() as usize % 3;
    for (i, steps) in moments.iter().enumerate() {
        let signal = [Signal::KILL, Signal::INT][i % 2];
        cut_off(&karl, steps + jitter, signal);
        assert_eq!(
            tree(&karl.space.path(PRODUCTION)),
            before,
            "cut off at {steps}"
        );
    }
    let _ = karl.stage(&[]).ok();
    karl.answers();
    assert_eq!(tree(&karl.space.path(PRODUCTION)), before);
    // Nothing of all the copies is left on production either.
    let left = tree(&karl.space.path(".rel/hosts/production/snapshots"));
    assert_eq!(left.len(), 1, "{left:#?}");
}

#[test]
fn an_evolve_that_fails_leaves_the_old_data_serving_and_is_resumed_when_mended() {
    let karl = Karl::new();
    let _ = karl.stage(&[]).ok();
    let page = |karl: &Karl| karl.browser("osf").home().expect("answers");
    let old = page(&karl);
    let links = |karl: &Karl| {
        let hosts = tree(&karl.space.path(".rel/hosts"));
        let links = hosts
            .into_iter()
            .filter(|(path, _)| path.ends_with("/current"));
        links.collect::<Vec<_>>()
    };
    let switched = links(&karl);

    let prober = karl.prober();
    let failed = karl.stage(&["--var", "fail-at=3"]).fails(1);
    for part in ["karl05", "evolve[osf]/evolve", "told to fail at level 3"] {
        assert!(failed.stderr.contains(part), "no `{part}` in\n{failed}");
    }
    std::thread::sleep(Duration::from_millis(200));
    prober.stop().only(&["KARL, teaser branch"]);
    assert_eq!(links(&karl), switched);
    assert_eq!(page(&karl), old);

    let _ = karl.stage(&[]).ok();
    karl.answers();
    assert_eq!(karl.told(&[])["ran"], 0);
}
