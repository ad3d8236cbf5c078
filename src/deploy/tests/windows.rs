//! A window that closes while a rollout is under way, by a clock that stands still until the
//! first wave has moved.

use super::*;
use crate::build::model::{OnFailure, Rollout, Share};
use crate::core::deploy_window::{Window, spans};

/// Two hosts that move one after the other on Thursdays, from 00:00 to 01:00.
fn space() -> Space {
    let mut space = Space::new(&["a", "b"]);
    space.recipe("file", "step \"w\" { write \"{host.root}/file\" \"x\"; }");
    space.uses("file on a,b", &[]);
    space.uses("file as gate on a,b", &[]);
    for one in &mut space.environment.uses {
        one.rollout = Some(0);
    }
    space.environment.uses[1].is_gate = true;
    let template = |text: &str| Template::parse(text, Mode::Plain).expect("parses");
    let window = Window {
        spans: spans("Thu 00:00-01:00").expect("spans"),
        zone: "UTC".into(),
    };
    space.environment.rollouts.push(Rollout {
        name: "all".into(),
        on: vec![template("a"), template("b")],
        serial: vec![Share::Count(1)],
        soak: None,
        hold_back: Vec::new(),
        max_failures: Share::Count(0),
        on_failure: OnFailure::Back,
        windows: vec![window],
        place: Span::default(),
    });
    space
}

#[test]
fn a_window_that_closes_stops_a_rollout_between_waves_and_the_next_run_goes_on() {
    let mut space = space();
    let moved = space.path("hosts/a/file");
    // It was Thursday, 00:00; now it is 01:00.
    space.clock = Box::new(move || if exists(&moved) { 3600 } else { 0 });
    let error = space.fails();
    assert_eq!(
        error.message,
        "`staging` stops before wave 2 of 2 of `all`: its window has closed"
    );
    let facts: Vec<String> = error
        .facts
        .iter()
        .map(|(n, t)| format!("{n}: {t}"))
        .collect();
    assert_eq!(facts, ["window: it opens Thu 1970-01-08 00:00 (UTC)"]);
    // The wave that was begun has come to its end, gate and all, and nothing was rolled back.
    assert_eq!(space.told(), ["file/w Done", "gate/w Done"]);
    assert!(!exists(&space.path("hosts/b/file")));
    let error = space.fails();
    assert_eq!(error.message, "`staging` is outside its window");
    let plan = space.plan();
    assert_eq!(
        plan.closed.as_deref(),
        Some("it opens Thu 1970-01-08 00:00 (UTC)")
    );
    assert_eq!(plan.to_run, 2);
    space.clock = Box::new(|| 7 * 86_400);
    space.apply();
    assert_eq!(space.told(), ["file/w Done", "gate/w Done"]);
    assert!(exists(&space.path("hosts/b/file")));
    // Nothing to do is nothing to wait for.
    space.clock = Box::new(|| 3600);
    assert_eq!(space.apply().ran, 0);
}
