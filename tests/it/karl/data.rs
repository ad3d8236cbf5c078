//! What happens to data: production's never changes, an evolve that fails leaves the old.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use rustix::process::Signal;

use super::{Karl, tree};
use crate::space::wait_until;

/// Where production keeps its data.
const PRODUCTION: &str = ".rel/hosts/production/data";

/// Steps during which a staging is cut off: copies and evolving most of all.
const MOMENTS: [&str; 10] = [
    "first-data/lay",
    "front/start",
    "database/install",
    "staging-db-copy[osf]/snapshot",
    "staging-db-copy[osf]/transfer",
    "staging-db-copy[anothercustomer]/snapshot",
    "evolve[osf]/announce",
    "evolve[osf]/evolve",
    "evolve[anothercustomer]/evolve",
    "site/start",
];

/// Starts a staging that does everything again, and cuts it off during a step.
fn cut_off(karl: &Karl, step: &str, delay: Duration, signal: Signal) {
    let job = karl
        .space
        .begin(karl.words(&["staging", "branch2", "--force"]));
    wait_until(step, || {
        let said = job.stderr();
        assert!(!said.contains("error: "), "{said}");
        let mut lines = said.lines().map(str::trim_start);
        lines
            .any(|l| l.starts_with("run ") && l.contains(step))
            .then_some(())
    });
    std::thread::sleep(delay);
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
    let chance = RandomState::new().build_hasher().finish();
    for (i, step) in MOMENTS.into_iter().enumerate() {
        let delay = Duration::from_millis((chance >> i) % 60);
        cut_off(&karl, step, delay, [Signal::KILL, Signal::INT][i % 2]);
        let now = tree(&karl.space.path(PRODUCTION));
        assert_eq!(now, before, "cut off {delay:?} after `{step}` began");
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
