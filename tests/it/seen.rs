//! What a build with nothing to do looks at, and what `--stats` and `--trace` tell of it.

use std::time::Duration;

use serde_json::Value;

use crate::space::Space;

const COPIES: &str = r#"
target "copy" { each "letter" "a" "b" "c"; inputs "src/{letter}"; outputs "out/{letter}"; run "cp" "src/{letter}" "{out}"; }
target "all" { needs "copy"; outputs "out/all"; run "cat {copy} > {out}"; }
"#;

/// Longer than the time for which a changed file may change again unseen.
fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

/// A space in which everything was found fresh by looks that will tell every change.
fn looked_at() -> Space {
    let space = Space::new(COPIES);
    for name in ["a", "b", "c"] {
        space.write(format!("src/{name}"), format!("{name}\n"));
    }
    let _ = space.build([]).ok();
    settle();
    let _ = space.build([]).ok();
    space
}

/// Adds targets that are asked about by content when a file appears in `src`: so many that this is
/// worth a new snapshot, whatever else becomes of the build.
fn many(space: &Space) {
    let one = |i| {
        format!(
            r#"target "many{i}" {{ inputs "src/*.txt"; outputs "many/{i}"; run "touch {{out}}"; }}"#
        )
    };
    let targets: Vec<String> = (0..90).map(one).collect();
    let others = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", others + "\n" + &targets.join("\n"));
    space.write("src/a.txt", "");
}

/// Returns what a build counted in one of its phases.
fn counted(space: &Space, phase: &str, what: &str) -> u64 {
    let output = space.run(["build", "--json"]).ok();
    let json: Value = serde_json::from_str(&output.stdout).expect("is JSON");
    json["phases"][phase][what].as_u64().unwrap_or(0)
}

#[test]
fn each_file_is_looked_at_once() {
    let space = looked_at();
    // Three inputs and four outputs.
    assert_eq!(counted(&space, "look", "stats"), 7);
    assert_eq!(counted(&space, "survey", "stats"), 0);
    let output = space.run(["build", "--stats"]).ok();
    let line = |what: &str| {
        let line = output.stderr.lines().find(|l| l.trim().starts_with(what));
        line.map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(line("stats").as_deref(), Some("stats 7"));
    assert_eq!(line("processes").as_deref(), Some("processes 0"));
    assert!(
        line("look").is_some() && line("survey").is_none(),
        "{output}"
    );
}

#[test]
fn a_touched_file_is_read_once_and_nothing_else_is() {
    let space = looked_at();
    space.shell("touch src/a out/b");
    settle();
    assert_eq!(counted(&space, "look", "files hashed"), 2);
    assert_eq!(counted(&space, "survey", "stats"), 0);
    assert_eq!(counted(&space, "look", "files hashed"), 0);
}

#[test]
fn an_edit_asks_again_about_the_targets_it_reaches() {
    let space = looked_at();
    space.write("src/a", "other\n");
    let output = space.run(["build", "--json"]).ok();
    let json: Value = serde_json::from_str(&output.stdout).expect("is JSON");
    assert_eq!(json["targets"]["copy[a]"], "ran");
    assert_eq!(json["targets"]["all"], "ran");
    assert_eq!(json["targets"]["copy[b]"], "fresh");
    assert_eq!(json["phases"]["survey"]["stats"], 1, "{json:#}");
    assert_eq!(space.read("out/all"), "other\nb\nc\n");
    settle();
    let _ = space.build([]).ok();
    assert_eq!(counted(&space, "survey", "stats"), 0);
}

#[test]
fn what_lost_nothing_but_outputs_is_restored_without_asking_for_its_inputs() {
    let space = looked_at();
    space.shell("rm -r out");
    let output = space.run(["build", "--json"]).ok();
    let json: Value = serde_json::from_str(&output.stdout).expect("is JSON");
    for target in ["copy[a]", "copy[b]", "copy[c]", "all"] {
        assert_eq!(json["targets"][target], "restored", "{json:#}");
    }
    assert_eq!(json["phases"]["look"]["stats"], 7);
    assert_eq!(json["phases"]["survey"]["stats"], 0);
    assert_eq!(json["phases"]["run"]["stats"], 0);
    assert_eq!(space.read("out/all"), "a\nb\nc\n");
    // The records are as they were, and what is back is read once.
    settle();
    assert_eq!(counted(&space, "look", "files hashed"), 4);
    assert_eq!(counted(&space, "look", "files hashed"), 0);
}

#[test]
fn what_lost_an_output_and_has_another_input_is_asked_as_a_whole() {
    let space = looked_at();
    space.shell("rm out/a out/all; echo other > src/b");
    let told = space.build([]).ok();
    let hows = ["copy[a]", "copy[b]", "copy[c]", "all"].map(|name| told.how(name));
    assert_eq!(hows, ["restored", "ran", "fresh", "ran"]);
    assert_eq!(space.read("out/all"), "a\nother\nc\n");
}

#[test]
fn what_is_lost_and_in_no_cache_any_more_is_made_again() {
    let space = looked_at();
    space.shell("rm -r out");
    std::fs::remove_dir_all(space.cache()).expect("removes");
    let told = space.build([]).ok();
    let hows = ["copy[a]", "copy[b]", "copy[c]", "all"].map(|name| told.how(name));
    assert!(
        hows.iter().all(|how| *how == "ran, same result"),
        "{hows:?}"
    );
    assert_eq!(space.read("out/all"), "a\nb\nc\n");
}

#[test]
fn what_the_records_say_since_counts() {
    let space = looked_at();
    space.write("src/a", "other\n");
    space.build(["copy[a]"]).ok().is("copy[a] ran");
    // Nothing that `all` was looked at for has changed, and what it needs is fresh.
    let told = space.build([]).ok();
    assert_eq!((told.how("copy[a]"), told.how("all")), ("fresh", "ran"));
    assert_eq!(space.read("out/all"), "other\nb\nc\n");
    settle();
    let _ = space.build([]).ok();
    assert_eq!(counted(&space, "survey", "stats"), 0);
    space
        .build([])
        .ok()
        .is("all fresh, copy[a] fresh, copy[b] fresh, copy[c] fresh");
}

#[test]
fn what_needs_a_target_that_was_built_alone_is_asked_again() {
    let space = Space::new(
        r#"
target "n" { inputs "n.txt"; outputs "n.out"; run "cat n.txt > n.out"; }
target "t" { needs "n"; outputs "t.out"; run "cat n.out > t.out"; }
"#,
    );
    space.write("n.txt", "one\n");
    for _ in 0..2 {
        let _ = space.build([]).ok();
        settle();
    }
    space.write("n.txt", "two\n");
    settle();
    space.build(["n"]).ok().is("n ran");
    settle();
    // This draws a snapshot of `n`, behind the record of its run.
    space.build(["n"]).ok().is("n fresh");
    space.build([]).ok().is("n fresh, t ran");
    assert_eq!(space.read("t.out"), "two\n");
}

#[test]
fn what_a_failure_kept_from_its_turn_is_asked_again() {
    let space = Space::new(
        r#"
target "n" { inputs "n.txt"; outputs "n.out"; run "cat n.txt > n.out"; }
target "fails" { needs "n"; inputs "bad"; outputs "f.out"; run "sleep 0.05; ! test -s bad && > f.out"; }
target "late" { needs "n"; outputs "late.out"; run "cat n.out > late.out"; }
"#,
    );
    many(&space);
    space.write("n.txt", "one\n").write("bad", "");
    for _ in 0..2 {
        let _ = space.build([]).ok();
        settle();
    }
    space
        .write("n.txt", "two\n")
        .write("bad", "bad\n")
        .write("src/other", "");
    settle();
    // So many verdicts by content are worth a snapshot.
    let told = space.build(["-j1"]);
    assert_eq!((told.how("n"), told.how("late")), ("ran", "not wanted"));
    space.write("bad", "");
    let told = space.build([]).ok();
    assert_eq!(told.how("late"), "ran");
    assert_eq!(space.read("late.out"), "two\n");
}

#[test]
fn what_was_forced_and_failed_is_not_kept_as_fresh() {
    let needs: Vec<String> = (0..90).map(|i| format!(r#""many{i}""#)).collect();
    let needs = needs.join(" ");
    let space = Space::new(&format!(
        r#"target "t" {{ needs {needs}; cache #false; run "test ! -e ../bad"; }}"#
    ));
    many(&space);
    for _ in 0..2 {
        let _ = space.build([]).ok();
        settle();
    }
    space.write("src/other", "").write("../bad", "");
    settle();
    assert_eq!(space.build(["--force", "t"]).how("t"), "failed");
    assert_eq!(space.build([]).how("t"), "failed");
}

#[test]
fn a_torn_or_foreign_snapshot_is_none() {
    let space = looked_at();
    let path = space.path(".rel/fresh.v1");
    let whole = std::fs::read(&path).expect("is there");
    for cut in [0, 3, 20, 21, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).expect("writes");
        assert_eq!(counted(&space, "look", "stats"), 0, "cut at {cut}");
    }
    for at in [0, 5, 30, whole.len() / 2, whole.len() - 1] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).expect("writes");
        assert_eq!(counted(&space, "look", "stats"), 0, "flipped at {at}");
    }
    // One that fits files, but not the records, which were lost and made anew.
    std::fs::write(&path, &whole).expect("writes");
    space.shell("cp .rel/records.v1 records && rm .rel/records.v1 && mv records .rel/records.v1");
    assert_eq!(counted(&space, "look", "stats"), 0);
}

#[test]
fn an_inherited_variable_is_part_of_what_was_seen() {
    let space =
        Space::new(r#"target "t" { env "WORD"; outputs "out"; run "echo $WORD > {out}"; }"#);
    let build = |word: &str| {
        let output = space.finish(space.rel(["build"]).env("WORD", word));
        let _ = output.ok();
        space.read("out")
    };
    assert_eq!(build("one"), "one\n");
    settle();
    assert_eq!(build("one"), "one\n");
    assert!(space.has(".rel/fresh.v1"));
    assert_eq!(build("two"), "two\n");
}

#[test]
fn a_trace_has_a_row_for_each_worker_and_one_for_the_critical_path() {
    let space = looked_at();
    space.write("src/b", "other\n");
    let _ = space.run(["build", "-j2", "--trace", "trace.json"]).ok();
    let trace: Value = serde_json::from_str(&space.read("trace.json")).expect("is JSON");
    let events = trace["traceEvents"].as_array().expect("is a list");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("").to_owned();
    let rows = events.iter().filter(|e| e["ph"] == "M");
    let rows: Vec<(u64, String)> = rows
        .map(|e| (e["tid"].as_u64().unwrap_or(99), text(&e["args"], "name")))
        .collect();
    let row = |name: &str| rows.iter().find(|(_, n)| n == name).map(|(row, _)| *row);
    assert!(
        row("rel").is_some() && row("worker 1").is_some(),
        "{rows:?}"
    );
    let on = |row: Option<u64>| -> Vec<String> {
        let events = events
            .iter()
            .filter(|e| e["ph"] == "X" && e["tid"].as_u64() == row);
        events.map(|e| text(e, "name")).collect()
    };
    assert_eq!(on(row("critical path")), ["copy[b]", "all"]);
    let phases = on(row("rel"));
    for phase in ["look", "survey", "run", "keep the state"] {
        assert!(phases.iter().any(|p| p == phase), "{phase} in {phases:?}");
    }
}
