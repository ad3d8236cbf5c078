//! `versioned-release`: beside the old one, checked, switched, retired, rolled back.

use super::super::*;

/// A site whose instance writes its release's word into a file while it lives.
fn site() -> Space {
    let mut space = Space::new(&["a"]);
    space.artifact("wheel", "app-1.txt", "one");
    space.uses(
        "versioned-release as site on a",
        &[
            ("artifact", "{wheel}"),
            ("root", "{host.root}/site"),
            ("install", "cp artifact/* word; echo installed >>log"),
            (
                "start",
                "cp word {root}/run-{id}; trap 'rm {root}/run-{id}; exit 0' TERM; while :; do sleep 0.05; done",
            ),
            ("health", "test -e {root}/run-{id} && ! grep -q bad word"),
            ("within", "1s"),
            ("keep", "2"),
        ],
    );
    space
}

/// What the living instances say.
fn living(space: &Space) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(space.path("hosts/a/site"))
        .expect("lists")
        .filter_map(|e| {
            let path = e.expect("an entry").path();
            let is_run = path.file_name()?.to_str()?.starts_with("run-");
            // One that ends just now is none.
            is_run.then(|| std::fs::read_to_string(&path).ok())?
        })
        .collect();
    found.sort();
    found
}

fn live(space: &Space) -> String {
    space.read("hosts/a/site/current/word")
}

fn end(space: &Space) {
    let script = "for p in \"$1\"/hosts/*/.rel/*/services/*/pid; do read -r n _ <\"$p\" && kill -TERM -\"$n\"; done 2>/dev/null; :";
    let status = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(space.dir.path())
        .status();
    assert!(status.expect("runs").success());
}

#[test]
fn a_release_is_switched_only_when_it_is_healthy() {
    let mut space = site();
    let outcome = space.apply();
    assert_eq!(live(&space), "one");
    assert_eq!(living(&space), ["one"]);
    assert_eq!(outcome.ran, 9, "{:?}", space.told());
    let again = space.apply();
    assert_eq!((again.ran, again.round_trips), (0, 1));

    // A release that is not healthy never serves, and leaves nothing running.
    let current = space.link("hosts/a/site/current");
    space.artifact("wheel", "app-1.txt", "bad");
    let error = space.fails();
    assert!(error.message.contains("`site/start["), "{error}");
    assert_eq!(space.link("hosts/a/site/current"), current);
    assert_eq!(living(&space), ["one"]);
    assert_eq!(live(&space), "one");

    // The next one does, and the former is retired.
    space.artifact("wheel", "app-1.txt", "two");
    space.apply();
    assert_eq!(
        (live(&space), living(&space)),
        ("two".into(), vec!["two".into()])
    );
    assert_eq!(space.apply().ran, 0);

    // Back to the first: nothing is installed again.
    space.artifact("wheel", "app-1.txt", "one");
    space.told();
    space.apply();
    assert_eq!(live(&space), "one");
    assert_eq!(living(&space), ["one"]);
    assert!(!space.told().iter().any(|l| l.contains("install")));
    assert_eq!(space.read("hosts/a/site/current/log"), "installed\n");
    end(&space);
}

#[test]
fn a_rollback_starts_the_former_before_it_switches() {
    let mut space = site();
    space.apply();
    space.artifact("wheel", "app-1.txt", "two");
    space.apply();
    space.told();
    let outcome = space.rollback();
    assert_eq!(live(&space), "one");
    assert_eq!(living(&space), ["one"]);
    assert!(outcome.undone >= 3);
    let told: Vec<String> = space
        .told()
        .into_iter()
        .filter(|l| l.ends_with("Undone"))
        .map(|l| l.split('[').next().unwrap_or(&l).to_owned())
        .collect();
    assert_eq!(
        told,
        ["site/retire Undone", "site/switch Undone", "site/start"]
    );
    // Asked for again, it comes again, without a second installation.
    space.told();
    space.apply();
    assert_eq!(live(&space), "two");
    assert_eq!(living(&space), ["two"]);
    assert!(!space.told().iter().any(|l| l.contains("install")));
    // Twice back is before the first.
    space.rollback();
    space.rollback();
    assert!(!exists(&space.path("hosts/a/site/current")));
    assert_eq!(living(&space), Vec::<String>::new());
    let nothing = space.with(|r| rollback(r, &*space.log, &space.cancel));
    assert!(nothing.is_err());
    end(&space);
}

#[test]
fn only_the_journals_own_releases_are_pruned() {
    let mut space = site();
    for name in ["start", "health"] {
        space.environment.uses[0].args.remove(name);
    }
    std::fs::create_dir_all(space.path("hosts/a/site/releases/by-hand")).expect("makes");
    for word in ["one", "two", "three", "four"] {
        space.artifact("wheel", "app-1.txt", word);
        space.apply();
    }
    let count = std::fs::read_dir(space.path("hosts/a/site/releases"))
        .expect("lists")
        .count();
    assert_eq!(
        count, 4,
        "the live one, two kept and the one that is not ours"
    );
    assert_eq!(live(&space), "four");
    // One that was pruned is laid down again.
    space.artifact("wheel", "app-1.txt", "one");
    space.apply();
    assert_eq!(live(&space), "one");
}

#[test]
fn a_service_that_died_is_started_again() {
    let space = site();
    space.apply();
    end(&space);
    for _ in 0..400 {
        if living(&space).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let plan = space.plan();
    let reasons: Vec<String> = plan.jobs[0]
        .steps
        .iter()
        .filter(|s| s.verdict == StepVerdict::Run)
        .map(|s| format!("{}: {}", s.name, s.reason))
        .collect();
    assert_eq!(reasons, ["start: not running", "health: `start` runs"]);
    space.apply();
    assert_eq!(living(&space), ["one"]);
    end(&space);
}

#[test]
fn a_directory_arrives_with_every_name() {
    let mut space = Space::new(&["a"]);
    let dir = space.path("build/tree");
    std::fs::create_dir_all(dir.join("sub dir")).expect("makes");
    let names = ["with space", "new\nline", "quo'te\"$(x)", "-dash"];
    for name in names {
        std::fs::write(dir.join("sub dir").join(name), name).expect("writes");
    }
    let hash = |name: &str| *blake3::hash(name.as_bytes()).as_bytes();
    let artifact = Artifact {
        contents: names
            .map(|name| (dir.join("sub dir").join(name), hash(name)))
            .into(),
        paths: vec![dir],
        sha256: hex(b"tree"),
        is_one_file: false,
    };
    space.makes("tree", artifact);
    space.uses(
        "versioned-release on a",
        &[("artifact", "{tree}"), ("root", "{host.root}/it's here")],
    );
    space.apply();
    for name in names {
        let path = format!("hosts/a/it's here/current/artifact/sub dir/{name}");
        assert_eq!(space.read(&path), name);
    }
    assert_eq!(space.apply().ran, 0);
}

#[test]
fn a_release_that_failed_does_not_count_among_those_that_are_kept() {
    let mut space = site();
    for name in ["start", "health"] {
        space.environment.uses[0].args.remove(name);
    }
    let releases = |space: &Space| {
        let found = std::fs::read_dir(space.path("hosts/a/site/releases")).expect("lists");
        found.count()
    };
    for word in ["one", "two"] {
        space.artifact("wheel", "app-1.txt", word);
        space.apply();
    }
    let former = space.link("hosts/a/site/current");
    // One fails before the switch, one behind it.
    space.arg("install", "exit 1");
    for word in ["three", "four", "five"] {
        space.artifact("wheel", "app-1.txt", word);
        space.fails();
    }
    space.arg("install", "echo installed >>log");
    space.uses(
        "wait-for as late on a",
        &[("command", "false"), ("within", "1s")],
    );
    for word in ["six", "seven", "eight"] {
        space.artifact("wheel", "app-1.txt", word);
        space.fails();
        assert_eq!(space.link("hosts/a/site/current"), former);
    }
    space.environment.uses.pop();
    space.rollback();
    assert_eq!(space.read("hosts/a/site/current/artifact/app-1.txt"), "one");
    space.artifact("wheel", "app-1.txt", "nine");
    space.apply();
    assert_eq!(
        releases(&space),
        3,
        "the live one, and two that were live before"
    );
    assert_eq!(
        space.read("hosts/a/site/current/artifact/app-1.txt"),
        "nine"
    );
}

#[test]
fn what_another_environment_laid_down_is_taken_as_it_is() {
    let mut space = site();
    for name in ["start", "health"] {
        space.environment.uses[0].args.remove(name);
    }
    space.apply();
    space.param("branch", "feature/x");
    let plan = space.plan();
    let runs: Vec<&str> = plan.jobs[0]
        .steps
        .iter()
        .filter(|s| s.verdict == StepVerdict::Run)
        .map(|s| s.name.as_str())
        .collect();
    assert_eq!(runs, ["announce", "prune"]);
    space.apply();
    assert_eq!(space.read("hosts/a/site/current/log"), "installed\n");
    assert_eq!(space.apply().ran, 0);
}
