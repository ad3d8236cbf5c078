//! Uses that are done when others change something, and only then: modes.

use super::*;
use crate::core::cancel::Cancel;

/// A mode around a file; both say in a log what they do.
fn space() -> Space {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "mode",
        "step \"mode\" { scope \"{use}\" enter=\"echo in >>log\" leave=\"echo out >>log\"; }",
    );
    space.recipe(
        "file",
        "param \"text\"\nstep \"w\" { write \"{host.root}/file\" \"{text}\"; verify \"echo file >>log\"; }",
    );
    space.uses("mode on a wraps site", &[]);
    space.uses("file as site on a", &[("text", "1")]);
    space
}

/// Returns what was done since the last question.
fn log(space: &Space) -> String {
    let path = space.path("hosts/a/log");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_mode_is_entered_when_what_it_is_around_changes_and_only_then() {
    let mut space = space();
    let reasons = |space: &Space| -> Vec<String> {
        let plan = space.plan();
        let steps = plan.jobs.iter().flat_map(|j| &j.steps);
        steps
            .map(|s| format!("{} {} {}", s.id, s.verdict.word(), s.reason))
            .collect()
    };
    assert_eq!(
        reasons(&space),
        ["mode/mode run `site` changes", "site/w run never done here"]
    );
    space.apply();
    assert_eq!(log(&space), "in file out");
    assert_eq!(
        reasons(&space),
        ["mode/mode fresh nothing changes inside it", "site/w fresh "]
    );
    assert_eq!(space.apply().ran, 0);
    assert_eq!(log(&space), "");
    space.environment.uses[1]
        .args
        .get_mut("text")
        .expect("is there")
        .text = "2".into();
    space.apply();
    assert_eq!(log(&space), "in file out");
    // Somebody else changed it.
    std::fs::write(space.path("hosts/a/file"), "by hand").expect("writes");
    space.apply();
    assert_eq!(log(&space), "in file out");
    // What is inside may come after what is around it, and does not keep it going.
    space.environment.uses[1].after = vec!["mode".into()];
    space.apply();
    let _ = log(&space);
    assert_eq!(space.apply().ran, 0);
    assert_eq!(log(&space), "");
}

#[test]
fn a_mode_around_what_is_not_known_yet_is_not_known_either() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "mode",
        "step \"mode\" { scope \"m\" enter=\":\" leave=\":\"; }",
    );
    space.recipe(
        "lay",
        "param \"thing\" type=\"artifact\"\nstep \"put\" { put \"{thing}\" to=\"{host.root}/thing\"; }",
    );
    space.uses("mode on a wraps lay", &[]);
    space.uses("lay on a", &[("thing", "{wheel}")]);
    space.needs("wheel");
    let plan = space.plan();
    let step = &plan.jobs[0].steps[0];
    assert_eq!(step.verdict, StepVerdict::Unknown);
    assert_eq!(step.reason, "unknown until `lay` is");
    space.artifact("wheel", "wheel", "1");
    space.apply();
    assert_eq!(space.told(), ["mode/mode Done", "lay/put Done"]);
}

#[test]
fn a_mode_that_was_cut_off_within_is_entered_anew() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "mode",
        "step \"mode\" { scope \"{use}\" enter=\"echo in >>log\" leave=\"echo out >>log\"; }\n\
         step \"seen\" { run \"echo seen >>log; touch there; while [ -e hang ]; do sleep 0.02; done\"; }",
    );
    space.recipe(
        "file",
        "param \"text\"\nstep \"w\" { write \"{host.root}/file\" \"{text}\"; }",
    );
    space.uses("mode on a wraps site", &[]);
    space.uses("file as site on a", &[("text", "1")]);
    space.apply();
    assert_eq!(log(&space), "in seen out");
    // Cut off in its second step; the first has a record of a former run, which says nothing.
    space.environment.uses[1]
        .args
        .get_mut("text")
        .expect("is there")
        .text = "2".into();
    let (hang, there) = (space.path("hosts/a/hang"), space.path("hosts/a/there"));
    std::fs::write(&hang, "").expect("writes");
    std::fs::remove_file(&there).expect("removes");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(&there);
            space.cancel.set();
        });
        assert_eq!(
            space.fails().kind,
            crate::core::error::ErrorKind::Interrupted
        );
    });
    space.cancel = Cancel::default();
    std::fs::remove_file(&hang).expect("removes");
    assert_eq!(log(&space), "in seen out");
    space.apply();
    assert_eq!(log(&space), "in seen out");
}
