//! What is refused, what is rolled back, and what is reported.

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::zodb::Zodb;
use super::{Database, Ground};
use crate::space::Space;
use insta::assert_snapshot;

/// Evolving what `into` and `more` say is refused for this reason, and nothing has changed.
#[track_caller]
fn refused<D: Database>(mut ground: Ground<D>, into: &str, more: &str, reason: &str) {
    ground.releasefile(into, more, "");
    let _ = ground.add_script(1, false);
    ground.start_writing();
    let refused = ground.evolve().fails(1);
    assert!(refused.stderr.contains(reason), "{refused}");
    ground.is_writable();
    ground.stop_writing();
    ground.has_lost_nothing();
}

#[test]
fn the_live_database_is_refused() {
    let into = "{host.root}/live/copies";
    let reason = "hosts/db/first/: it evolves only as a copy";
    refused(Ground::new(Sqlite::new), into, "", reason);
    refused(Ground::new(Zodb::new), into, "", reason);
    let reason = "app is the live database: it evolves only as a copy";
    let copies = "{host.root}/copies";
    refused(Ground::new(Postgres::new), copies, "next=\"app\"", reason);
}

#[test]
fn a_rollback_goes_back_to_the_former_data_while_nobody_has_written() {
    let mut ground = Ground::new(Sqlite::new);
    ground.start_writing();
    ground.stop_writing();
    let _ = ground.add_script(1, false);
    let _ = ground.evolve().ok();
    let link = ground.space.path("hosts/db/live");
    let evolved = std::fs::read_link(&link).expect("a link");
    let _ = ground.space.run(["production", "--rollback"]).ok();
    assert_ne!(std::fs::read_link(&link).expect("a link"), evolved);
    ground.start_writing();
    ground.stop_writing();
    ground.has_lost_nothing();
}

/// It is asked before anything else is rolled back; and behind the guard once more, for what was written
/// in between, and for what an older `rel` has left.
#[test]
fn a_rollback_does_not_lose_what_was_written_since() {
    fn check<D: Database>(mut ground: Ground<D>) {
        ground.start_writing();
        ground.done.push(ground.add_script(1, false));
        let _ = ground.evolve().ok();
        ground.is_writable();
        let output = ground.space.run(["production", "--rollback"]).fails(1);
        let words = "was written to since the switch: that would be lost";
        assert!(output.stderr.contains(words), "{output}");
        assert!(
            output.stderr.contains("`--rollback --except evolve`"),
            "{output}"
        );
        assert!(!output.stderr.contains("undone"), "{output}");
        ground.is_writable();
        let checks = "find hosts/db/.rel -name '*.check' -size +0 | wc -l; find hosts/db/.rel -name '*.check' -delete";
        assert_eq!(ground.space.shell(checks).trim(), "1");
        let output = ground.space.run(["production", "--rollback"]);
        assert_eq!(output.code, 4, "{output}");
        let words = "was written to since the switch: it stays the live one";
        assert!(output.stderr.contains(words), "{output}");
        ground.is_writable();
        ground.stop_writing();
        ground.has_lost_nothing();
    }
    check(Ground::new(Sqlite::new));
    check(Ground::new(Postgres::new));
    check(Ground::new(Zodb::new));
}

/// Code is rolled back, data that was written to since stays: by name, and never in silence.
#[test]
fn a_rollback_goes_back_without_a_use_that_is_named() {
    let space = Space::new(
        r#"
host "a" local=#true root="srv/a"
var "v" "1"
environment "e" {
    use "code" on="a" text="{v}"
    use "data" on="a" text="{v}"
}
"#,
    );
    let recipe = |name: &str, more: &str| {
        let step = format!(
            "step \"lay\" {{ run \"cp now-{name} former-{name} 2>/dev/null || :; echo {{text}} >now-{name}\"; undo \"mv former-{name} now-{name}\"\n{more}\n }}"
        );
        space.write(
            format!("recipes/{name}.kdl"),
            format!("recipe \"{name}\" {{\n param \"text\"\n{step}\n}}\n"),
        );
    };
    recipe("code", "");
    recipe(
        "data",
        "rollback-check \"if test -e written; then echo 'it was written to'; exit 1; fi\"",
    );
    for v in ["1", "2"] {
        let _ = space.run(["e", "--var", &format!("v={v}")]).ok();
    }
    space.write("srv/a/written", "");
    assert_snapshot!(space.run(["e", "--rollback"]), @"
    --- stderr
    error: `e` cannot be rolled back on host `a` without a loss
      data/lay on a  it was written to
      help: nothing was changed; to roll back everything else, and leave that as it is: `--rollback --except data`; the older release must then work with it
    --- exit code 1
    ");
    let plan = space.run(["e", "--rollback", "--plan"]).ok().stdout;
    let told: Vec<&str> = plan.lines().collect();
    assert_snapshot!(told[..told.len() - 1].join("\n"), @"
    a  data/lay  its own undo
    a  code/lay  its own undo
    a  data/lay  stopped: this would be lost
               it was written to
    ");
    assert_eq!(space.shell("cat srv/a/now-*"), "2\n2\n");
    let refused = space.run(["e", "--rollback", "--except", "dada"]).fails(2);
    assert!(refused.stderr.contains("`dada` did nothing"), "{refused}");
    // With all of it excepted, no older release is taken for the last one.
    let all = ["e", "--rollback", "--except", "data", "--except", "code"];
    let refused = space.run(all).fails(2);
    let words = "`e` has nothing to roll back except what `--except` names";
    assert!(refused.stderr.contains(words), "{refused}");
    assert_eq!(space.shell("cat srv/a/now-*"), "2\n2\n");
    // Force is not what goes over it.
    let _ = space.run(["e", "--rollback", "--force"]).fails(1);
    let _ = space.run(["e", "--rollback", "--except", "data"]).ok();
    assert_eq!(space.shell("cat srv/a/now-code srv/a/now-data"), "1\n2\n");
    let history = space.run(["history", "e"]).ok().stdout;
    assert!(history.contains("left `data` as it was"), "{history}");
    // What was done before that is below it: only the same command again rolls back further.
    let refused = space.run(["e", "--rollback"]).fails(1);
    let words = "did it after that, and `--except` left it as it was";
    assert!(refused.stderr.contains(words), "{refused}");
    // The data is still that of the second release.
    let again = space.ask(["e", "--var", "v=2", "--plan"]);
    assert_eq!(again["to_run"], 1, "{again}");
}

#[test]
fn a_script_that_has_changed_since_it_was_applied_is_told_and_not_done_again() {
    let mut ground = Ground::new(Sqlite::new);
    ground.done.push(ground.add_script(1, false));
    let _ = ground.evolve().ok();
    let _ = ground.add_script(1, true);
    for args in [&["production"][..], &["production", "--plan"]] {
        let output = ground.space.run(args).ok().to_string();
        let words = "`evolve`: 001.sql was applied, and has changed since";
        assert!(output.contains(words), "{output}");
    }
    ground.has_lost_nothing();
}

#[test]
fn scripts_that_come_with_the_same_run_are_done_in_it() {
    let mut ground = Ground::new(Sqlite::new);
    let name = ground.add_script(1, false);
    let text = ground.space.read(format!("hosts/db/scripts/{name}"));
    ground.space.remove("hosts/db/scripts");
    ground.done.push(name);
    let lay = "recipe \"lay\" { param \"text\"; step \"lay\" { write \"{host.root}/scripts/001.sql\" \"{text}\"; }; }";
    ground.space.write("recipes/lay.kdl", lay);
    let before = format!("    use \"lay\" on=\"db\" text=\"{}\"", text.trim());
    ground.releasefile("{host.root}/copies", "after=\"lay\"", &before);
    let _ = ground.evolve().ok();
    ground.has_lost_nothing();
    assert_eq!(ground.told()["ran"], 0);
}

#[test]
fn nothing_becomes_read_only_where_there_is_no_room_for_the_copies() {
    let ground = Ground::new(Sqlite::new);
    ground.releasefile("{host.root}/copies", "room=\"echo 999999999999\"", "");
    let _ = ground.add_script(1, false);
    let refused = ground.evolve().fails(1);
    let words = "of 999999999999 that backup and copy need";
    assert!(refused.stderr.contains(words), "{refused}");
    assert!(
        refused.stderr.contains("the rollback of `evolve/full`"),
        "{refused}"
    );
    assert!(!ground.space.has("hosts/db/copies"));
    // With the driver's own measure there is; and with nothing due nobody asks.
    ground.releasefile("{host.root}/copies", "", "");
    let _ = ground.evolve().ok();
    ground.releasefile("{host.root}/copies", "room=\"exit 1\"", "");
    let _ = ground.evolve().ok();
}

/// The software comes first, and its scripts with it: when one of them fails, the link to the
/// software is rolled back after the way out of the read-only mode has restarted the clients.
#[test]
fn clients_run_what_is_live_after_an_evolve_that_failed() {
    let space = Space::new(
        r#"
host "a" local=#true root="srv/a"
target "pkg" { inputs "src/**"; outputs "pkg/"; run "mkdir -p pkg; cp -R src/. pkg" }
environment "e" {
    needs "pkg"
    use "versioned-release" as="site" on="a" artifact="{pkg}" root="{host.root}/site"
    use "evolve-live" as="evolve" on="a" after="site" driver="sqlite" file="x.db" \
        into="{host.root}/evolved" data="{host.root}/live" \
        scripts="{host.root}/site/current/artifact/evolve" {
        clients "readlink site/current >running; echo \"$place\" >>restarts"
    }
}
"#,
    );
    space.shell("mkdir -p srv/a/first; ln -s first srv/a/live; sqlite3 srv/a/live/x.db 'CREATE TABLE t (x);'");
    space.write("src/evolve/001.sql", "CREATE TABLE one (x);");
    let _ = space.run(["e"]).ok();
    let running = space.read("srv/a/running");
    space.write("src/evolve/002.sql", "this is no statement;");
    let _ = space.run(["e"]).fails(1);
    assert_eq!(space.shell("readlink srv/a/site/current"), running);
    assert_eq!(space.read("srv/a/running"), running);
    // And the other way: an evolve that went well, rolled back.
    space.write("src/evolve/002.sql", "CREATE TABLE two (x);");
    let _ = space.run(["e"]).ok();
    assert_ne!(space.read("srv/a/running"), running);
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.shell("readlink srv/a/site/current"), running);
    assert_eq!(space.read("srv/a/running"), running);
}
