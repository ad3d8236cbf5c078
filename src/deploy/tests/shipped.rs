//! The other shipped recipes: copies, evolving, services, waits, checks.

use super::super::*;

use crate::core::cancel::Cancel;

/// A production database of two files, a copy of it on `b`, evolved there.
fn databases() -> Space {
    let mut space = Space::new(&["production", "b"]);
    let live = space.path("hosts/production/db");
    std::fs::create_dir_all(live.join("blobs")).expect("makes");
    std::fs::write(live.join("data"), "level 1\n").expect("writes");
    std::fs::write(live.join("blobs/a b"), "blob").expect("writes");
    space.uses(
        "db-copy as copy on b from production max-age 24h",
        &[
            ("snapshot", "cp -R {from.root}/db/. ."),
            ("into", "{host.root}/copies"),
            ("keep", "2"),
        ],
    );
    space.uses(
        "evolve on b after copy",
        &[
            ("copy", "{host.root}/copies/latest"),
            ("into", "{host.root}/evolved"),
            ("data", "{host.root}/data"),
            ("command", "test {fail} = no && echo evolved >>data"),
            ("verify", "grep -q evolved data"),
            ("live", "{from.root}/db"),
        ],
    );
    space.environment.uses[1].from =
        Some(Template::parse("production", Mode::Plain).expect("parses"));
    space.param("fail", "no");
    space
}

fn fail(space: &mut Space, value: &str) {
    space
        .project
        .vars
        .insert("unused".into(), vec![value.into()]);
    let arg = Arg {
        text: format!("test {value} = no && echo evolved >>data"),
        place: Span::default(),
    };
    space.environment.uses[1].args.insert("command".into(), arg);
}

#[test]
fn what_is_shipped_can_be_read() {
    let (recipes, _) = Recipes::load(None).expect("loads");
    assert!(recipes.mistakes.is_empty());
    assert!(recipes.names().count() > 10);
    for name in recipes.names() {
        assert!(recipes.get(name).is_some(), "{name}");
    }
}

#[test]
fn a_database_is_copied_then_evolved_and_the_source_is_left_alone() {
    let mut space = databases();
    fail(&mut space, "no");
    space.params.clear();
    space.environment.params.clear();
    space.apply();
    assert_eq!(space.read("hosts/b/data/data"), "level 1\nevolved\n");
    assert_eq!(space.read("hosts/b/data/blobs/a b"), "blob");
    assert_eq!(space.read("hosts/b/copies/latest/data"), "level 1\n");
    assert_eq!(space.read("hosts/production/db/data"), "level 1\n");
    assert_eq!(space.link("hosts/b/copies/latest"), "run1");
    assert_eq!(
        space.read("hosts/b/copies/run1.rel-copy"),
        "copy of copy from production, made by run run1 for staging\n"
    );
    let snapshots = space.path("hosts/production/snapshots");
    assert_eq!(std::fs::read_dir(snapshots).expect("lists").count(), 0);
    let again = space.apply();
    assert_eq!((again.ran, again.round_trips), (0, 2));

    // Another command: a new evolved copy of the same copy.
    fail(&mut space, "yes");
    let error = space.fails();
    assert!(error.message.contains("evolve/evolve"), "{error}");
    assert_eq!(space.read("hosts/b/data/data"), "level 1\nevolved\n");
    let evolved = std::fs::read_dir(space.path("hosts/b/evolved")).expect("lists");
    assert_eq!(
        evolved.count(),
        2,
        "what failed is cleared away, the owner stays"
    );
    fail(&mut space, "no");
    space.apply();
    assert_eq!(space.read("hosts/b/data/data"), "level 1\nevolved\n");

    // Copies are pruned, the links go on.
    space.is_forced = true;
    for _ in 0..3 {
        space.apply();
    }
    space.is_forced = false;
    let copies = std::fs::read_dir(space.path("hosts/b/copies")).expect("lists");
    assert_eq!(
        copies.count(),
        6,
        "two copies, two marks, latest, the owner"
    );
    let before = space.link("hosts/b/data");
    space.rollback();
    assert_ne!(space.link("hosts/b/data"), before);
    assert_eq!(space.read("hosts/b/data/data"), "level 1\nevolved\n");
    assert_eq!(space.read("hosts/production/db/data"), "level 1\n");
}

#[test]
fn a_live_database_is_not_evolved() {
    let mut space = Space::new(&["b"]);
    let live = space.path("hosts/b/db");
    std::fs::create_dir_all(&live).expect("makes");
    let args = [
        ("copy", "{host.root}/db"),
        ("into", "{host.root}/evolved"),
        ("data", "{host.root}/data"),
        ("command", "echo x >>data"),
        ("live", "{host.root}/db"),
    ];
    space.uses("evolve on b", &args);
    let error = space.fails();
    assert!(
        error
            .facts
            .iter()
            .any(|(_, v)| v.contains("is not a marked copy")),
        "{error}"
    );
    std::fs::write(space.path("hosts/b/db.rel-copy"), "").expect("writes");
    let error = space.fails();
    assert!(
        error
            .facts
            .iter()
            .any(|(_, v)| v.contains("is the live database")),
        "{error}"
    );
    assert!(!exists(&live.join("data")));
    assert!(!exists(&space.path("hosts/b/data")));
}

#[test]
fn a_service_restarts_after_what_it_follows_and_goes_back_after_it() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "data",
        r#"
        param "to"
        step "link" { symlink "{host.root}/data" to="{to}" }
        "#,
    );
    space.recipe(
        "try",
        "param \"ok\"\nstep \"try\" { run \"test {ok} = yes\" }",
    );
    space.uses("data on a", &[("to", "one")]);
    space.uses(
        "service as db on a after data",
        &[
            ("run", "readlink data >>starts; echo says; exec sleep 60"),
            ("ready", "test -s starts"),
        ],
    );
    space.uses("try on a after db", &[("ok", "yes")]);
    space.apply();
    assert_eq!(space.read("hosts/a/starts"), "one\n");
    assert_eq!(space.read("hosts/a/log/db.log"), "says\n");
    assert_eq!(space.apply().ran, 0);
    space.arg("to", "two");
    space.apply();
    assert_eq!(space.read("hosts/a/starts"), "one\ntwo\n");
    // The link is rolled back first, then the service restarts on it.
    space.arg("to", "three");
    space.environment.uses[2]
        .args
        .get_mut("ok")
        .expect("one")
        .text = "no".into();
    space.fails();
    assert_eq!(space.link("hosts/a/data"), "two");
    assert_eq!(space.read("hosts/a/starts"), "one\ntwo\nthree\ntwo\n");
    space.rollback();
    assert_eq!(space.link("hosts/a/data"), "one");
    assert_eq!(space.read("hosts/a/starts"), "one\ntwo\nthree\ntwo\none\n");
    space.rollback();
    let error = space
        .with(|r| plan(r, &*space.log, &space.cancel))
        .expect("plans");
    assert_eq!(error.to_run, 3);
}

#[test]
fn a_service_that_ends_at_once_fails_with_its_log() {
    let mut space = Space::new(&["a"]);
    space.uses(
        "service as db on a",
        &[("run", "echo no such port; exit 3")],
    );
    let error = space.fails();
    let root = space.dir.path().display().to_string();
    let error = error.to_string().replace(&root, "[project]");
    insta::assert_snapshot!(error, @"
    `staging` stopped: step `db/run` failed on host `a`
      status  1
      output  db has ended
              no such port
              more in [project]/hosts/a/log/db.log
      undone  1 step
      help: what was live on `a` is live there again; fix the error and run the same command again
    ");
}

#[test]
fn a_managed_service_is_started_by_its_manager() {
    let mut space = Space::new(&["a"]);
    space.recipe(
        "data",
        r#"
        param "to"
        step "link" { symlink "{host.root}/data" to="{to}" }
        "#,
    );
    space.recipe(
        "try",
        "param \"ok\"\nstep \"try\" { run \"test {ok} = yes\" }",
    );
    space.uses("data on a", &[("to", "one")]);
    space.uses(
        "service as web on a after data",
        &[
            ("start", "readlink data >>log; : >up"),
            ("status", "test -e up"),
            ("stop", "echo stop >>log; rm up"),
        ],
    );
    space.uses("try on a", &[("ok", "no")]);
    let ok = |space: &mut Space, value: &str| {
        let args = &mut space.environment.uses[2].args;
        args.get_mut("ok").expect("one").text = value.into();
    };
    // A first start is rolled back by `stop`.
    space.fails();
    assert_eq!(space.read("hosts/a/log"), "one\nstop\n");
    ok(&mut space, "yes");
    assert_eq!(space.apply().ran, 3);
    assert_eq!(space.apply().ran, 0);
    std::fs::remove_file(space.path("hosts/a/up")).expect("removes");
    assert_eq!(space.apply().ran, 1);
    // A restart is rolled back by another one, on the former files.
    space.arg("to", "two");
    ok(&mut space, "no");
    space.fails();
    let log = space.read("hosts/a/log");
    assert_eq!(log, "one\nstop\none\none\ntwo\none\n");
}

#[test]
fn a_site_is_asked_for_each_customer_each_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("has one").port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 1024];
            let _ = std::io::Read::read(&mut stream, &mut head);
            let status = match head.starts_with(b"GET /osf/") {
                true => "200 OK",
                false => "404 No",
            };
            let text =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
        }
    });
    let mut space = Space::new(&["a"]);
    space.recipe("link", r#"step "link" { symlink "{host.root}/l" to="x" }"#);
    space.uses("link on a", &[]);
    let url = format!("http://127.0.0.1:{port}/{{customer}}/");
    space.uses(
        "http-check as verify on a",
        &[("http", &url), ("within", "100ms")],
    );
    space.axis("customer", &["osf"]);
    let outcome = space.apply();
    assert_eq!(outcome.urls, [url.replace("{customer}", "osf")]);
    assert_eq!(space.apply().urls.len(), 1);
    // One that does not answer takes the rest back.
    space.environment.axes[0].values.push("other".into());
    std::fs::remove_file(space.path("hosts/a/l")).expect("removes");
    let error = space.fails();
    assert!(
        error.facts.contains(&("found".into(), "status 404".into())),
        "{error}"
    );
    assert!(!exists(&space.path("hosts/a/l")));
}

#[test]
fn a_wait_ends_when_it_holds_or_in_time() {
    let mut space = Space::new(&["a"]);
    space.uses(
        "wait-for on a",
        &[
            ("command", "test -e there || exit 4"),
            ("within", "1s"),
            ("every", "100ms"),
        ],
    );
    let error = space.fails();
    assert!(
        error
            .facts
            .iter()
            .any(|(_, v)| v.contains("did not hold within 1 s")),
        "{error}"
    );
    std::fs::write(space.path("hosts/a/there"), "").expect("writes");
    assert_eq!(space.apply().ran, 1);
}

#[test]
fn mistakes_in_uses_are_all_found() {
    let mut space = Space::new(&["a"]);
    space.uses("versoned-release on a", &[]);
    space.uses(
        "service as db on a",
        &[("rnu", "x"), ("dir", "{host.rot}/{x}")],
    );
    space.uses("db-copy on a", &[("snapshot", "cp `{stage}`")]);
    space.uses(
        "evolve",
        &[
            ("copy", "a"),
            ("into", "b"),
            ("data", "c"),
            ("command", "x {databse}"),
        ],
    );
    space.uses(
        "versioned-release as r on a",
        &[("artifact", "{weel}"), ("root", "/r")],
    );
    let need = Template::parse("wheel[x]", Mode::Plain).expect("parses");
    space.environment.needs.push((need, Span::default()));
    let found = space.with(|r| check_uses(r.project, r.recipes));
    assert_eq!(found.len(), 0, "the environment is not in the project yet");
    space.project.environments.push(space.environment.clone());
    let found = space.with(|r| check_uses(r.project, r.recipes));
    let text: Vec<String> = found
        .iter()
        .map(|m| {
            format!(
                "{}: {} ({})",
                m.code,
                m.message,
                m.help.as_deref().unwrap_or("")
            )
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    unknown_recipe: there is no recipe `versoned-release` (did you mean `versioned-release`?)
    unknown_name: host `a` has no `rot` (did you mean `{host.root}`?)
    unknown_name: `{x}` is not known here (declare it with `var` or `param`, or write `{{` for a brace)
    unknown_parameter: recipe `service` has no parameter `rnu` (did you mean `run`?)
    template: `{stage}` stands in back-quotes, where no value can be quoted safely (set an environment variable with `env NAME="{name}"` and use `"$NAME"` there)
    missing_parameter: recipe `db-copy` needs `into` (`into`: directory on this host that holds the copies and `latest`)
    missing_host: recipe `db-copy` takes something from another host (say from where: `from="host"`)
    unknown_name: `{databse}` is not known here (did you mean `{database}`?)
    missing_host: recipe `evolve` works on a host (say where: `on="host-or-group"`)
    unknown_target: `artifact` takes a target that the environment needs, not `{weel}` (did you mean `{wheel}`?)
    "#);
}

/// Runs until a step has written `hosts/b/cut`, and interrupts it there.
fn cut_off(space: &mut Space) {
    let mark = space.path("hosts/b/cut");
    let flag = space.cancel.clone();
    let waiter = std::thread::spawn({
        let mark = mark.clone();
        move || {
            wait_for(&mark);
            flag.set();
        }
    });
    let error = space.fails();
    waiter.join().expect("ends");
    assert_eq!(error.kind, crate::core::error::ErrorKind::Interrupted);
    space.cancel = Cancel::default();
}

#[test]
fn what_was_cut_off_starts_from_nothing_half_done() {
    let mut space = databases();
    let command =
        "echo evolved >>data; if [ ! -e {host.root}/cut ]; then : >{host.root}/cut; sleep 60; fi";
    let arg = |text: &str| Arg {
        text: text.into(),
        place: Span::default(),
    };
    let uses = &mut space.environment.uses;
    uses[1].args.insert("command".into(), arg(command));
    cut_off(&mut space);
    space.apply();
    assert_eq!(space.read("hosts/b/data/data"), "level 1\nevolved\n");
    assert_eq!(space.link("hosts/b/data").rsplit('/').next(), Some("run1"));

    // A snapshot as well.
    std::fs::remove_file(space.path("hosts/b/cut")).expect("removes");
    let snapshot = "if [ ! -e {host.root}/cut ]; then : >left; : >{host.root}/cut; sleep 60; fi; cp -R {from.root}/db/. .";
    space.arg("snapshot", snapshot);
    cut_off(&mut space);
    space.apply();
    assert!(exists(&space.path("hosts/b/copies/latest/data")));
    assert!(!exists(&space.path("hosts/b/copies/latest/left")));
    assert_eq!(space.apply().ran, 0);
}

#[test]
fn a_driver_gives_what_a_recipe_needs() {
    let mut space = Space::new(&["a"]);
    let texts = [
        (
            "moves",
            r#"recipe "moves" {
                param "driver" type="driver" default=""
                param "go" type="command"
                param "back" type="command" default="echo back >>log"
                let "place" "nowhere"
                step "go" {
                    run "for i in 1 2; do eval {go}; done"
                    undo "{back}"
                }
            }"#,
        ),
        (
            "car",
            r#"driver "car" {
                desc "By road"
                param "road"
                let "place" "garage"
                param "words" type="command" default="printf '%s ' \"it's\" {road}"
                param "go" type="command" default="eval {words} >>log; echo $i {place} >>log"
            }"#,
        ),
        ("boat", r#"driver "boat" { step "row" { run "true" }; }"#),
    ];
    for (name, text) in texts {
        let path = space.path(&format!("recipes/{name}.kdl"));
        std::fs::create_dir_all(path.parent().expect("one")).expect("makes");
        std::fs::write(path, text).expect("writes");
    }
    let wrong: [&[(&str, &str)]; 4] = [
        &[],
        &[("driver", "cra")],
        &[("driver", "boat")],
        &[("driver", "car"), ("raod", "A 1")],
    ];
    for args in wrong {
        space.uses("moves on a", args);
    }
    space.project.environments.push(space.environment.clone());
    let found = space.with(|r| check_uses(r.project, r.recipes));
    let text = found.iter().map(|m| {
        let help = m.help.as_deref().unwrap_or("");
        format!("{}: {} ({help})", m.code, m.message)
    });
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"), @"
    missing_parameter: recipe `moves` needs a `driver` (or the commands that one gives: go)
    unknown_driver: there is no driver `cra` (did you mean `car`?)
    bad_driver: driver `boat` does not fit: node `step` is not known here ()
    unknown_parameter: recipe `moves` has no parameter `raod` (did you mean `road`?)
    missing_parameter: recipe `moves` needs `road` ()
    ");
    space.environment.uses.clear();
    space.uses("moves on a", &[("driver", "car"), ("road", "A 1")]);
    space.apply();
    assert_eq!(
        space.read("hosts/a/log"),
        "it's A 1 1 garage\nit's A 1 2 garage\n"
    );
}
