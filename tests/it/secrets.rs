//! Secrets on real hosts: they arrive in the files they are for, and are found nowhere else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use insta::assert_snapshot;
use regex::bytes::Regex;

use crate::hosts::Hosts;
use crate::space::{Output, REL, Space};

/// What all values have in them, whichever way they come; with what shells stumble over.
const SENTINELS: [&str; 4] = [
    "S3NTINEL-COMMAND-'$(id)\"",
    "S3NTINEL-VARIABLE-\\n%s",
    "S3NTINEL-FILE-`id`",
    "S3NTINEL-SECOND-*",
];

/// What `-vv` shows of the exchange with a host, and last what `-vvv` shows.
const SENT: [&str; 5] = [
    " <- program",
    " <- query",
    " -> reply",
    " -> event",
    " -> frame",
];

const RECIPE: &str = r#"
recipe "app" {
    param "password" type="secret"
    param "token" type="secret"
    param "key" type="secret"
    param "last" default="true"
    step "conf" {
        write "{host.root}/app/db.conf" "password={password}\ntoken={token}\n" mode="0640" owner="{host.user}"
        verify "grep -q password= {host.root}/app/db.conf"
    }
    step "key" { write "{host.root}/app/key" "{key}" }
    step "restart" on-change="conf key" {
        run "cd {host.root}/app; cat key db.conf; echo; cat db.conf >&2; echo restarted; eval {last}"
        undo "cat {host.root}/app/db.conf"
    }
}
"#;

/// Two hosts that get three secrets, one from each place that they can come from.
fn app(hosts: &Hosts) -> Space {
    let space = Space::empty();
    let user = space.shell("id -un");
    let var = format!("    var \"user\" {:?}\n", user.trim());
    let nodes: String = hosts.all.iter().map(|h| hosts.node(h, &var)).collect();
    space.write("recipes/app.kdl", RECIPE);
    space.write(
        "Releasefile.kdl",
        format!(
            r#"
{nodes}
secret "db-password" command="cat vault/command"
secret "token" env="APP_TOKEN"
environment "staging" {{
    secret "key" file="vault/file"
    param "last" default="true"
    use "app" on="h1 h2" password="db-password" token="token" key="key" last="{{last}}"
}}
"#
        ),
    );
    space.write("vault/command", format!("{}\n", SENTINELS[0]));
    space.write("vault/file", format!("{}\n", SENTINELS[2]));
    space
}

fn run(space: &Space, args: &[&str]) -> Output {
    space.finish(space.rel(args).env("APP_TOKEN", SENTINELS[1]))
}

fn content(number: usize) -> String {
    format!("password={}\ntoken={}\n", SENTINELS[number], SENTINELS[1])
}

/// Finds a sentinel in whichever way it could be written.
fn traces() -> Regex {
    let mut traces = Vec::new();
    for value in SENTINELS {
        // What comes behind could be quoted otherwise.
        traces.push(regex::escape(&value[..14]));
        for cut in 0..3 {
            traces.push(regex::escape(&base64(&value[cut..])[..12]));
        }
    }
    Regex::new(&traces.join("|")).expect("a pattern")
}

fn base64(text: &str) -> String {
    let mut child = Command::new("base64")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("writes");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the files below `dir` that hold a sentinel, relative to it.
fn found_below(dir: &Path) -> Vec<String> {
    let traces = traces();
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    let files = entries.flatten().filter(|e| e.file_type().is_file());
    let found = files.filter(|e| traces.is_match(&fs::read(e.path()).unwrap_or_default()));
    let name = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    found.map(|e| name(e.path())).collect()
}

/// Looks, until told to stop, into the command lines and environments of all processes and
/// into the working directories of guards; returns where a sentinel was seen.
fn watch(is_over: &AtomicBool) -> Vec<String> {
    let traces = traces();
    let mut seen = Vec::new();
    let listed = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    };
    let is_rel = |proc: &Path| fs::read_link(proc.join("exe")).is_ok_and(|exe| exe == *REL);
    while !is_over.load(Ordering::SeqCst) {
        let mut files = Vec::new();
        for proc in listed(Path::new("/proc")) {
            // The source of one of them is the environment of `rel` itself.
            files.push(proc.join("cmdline"));
            if !is_rel(&proc) {
                files.push(proc.join("environ"));
            }
        }
        let is_guards = |p: &PathBuf| p.display().to_string().contains("/rel.");
        let dirs = listed(&std::env::temp_dir()).into_iter().filter(is_guards);
        // Not `secret.N`, a private file in which it waits; and nothing that is read only once.
        files.extend(dirs.flat_map(|d| ["program", "answer", "words", "at"].map(|f| d.join(f))));
        for file in files {
            if traces.is_match(&fs::read(&file).unwrap_or_default()) {
                // A child that has become `rel` since it was looked at.
                if file.ends_with("environ") && is_rel(&file.with_file_name("")) {
                    continue;
                }
                let words = fs::read(file.with_file_name("cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                seen.push(format!("{} {words}", file.display()));
            }
        }
    }
    seen
}

#[test]
fn secrets_are_found_in_their_files_and_nowhere_else() {
    let hosts = Hosts::start(2);
    let space = app(&hosts);
    let is_over = AtomicBool::new(false);
    /// Ends the watch, also when the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let (said, seen) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&is_over));
        let over = Over(&is_over);
        let mut said = Vec::new();
        let mut all = |lines: &[&[&str]]| {
            for args in lines {
                said.push((args.join(" "), run(&space, args)));
            }
        };
        all(&[
            &["check"],
            &["staging", "--plan"],
            &["-vv", "staging", "--plan"],
            &["--json", "staging", "--plan"],
            &["staging", "--plan-out", "plan.json"],
            &["-vv", "apply", "plan.json"],
            &["log", "staging"],
            &["--json", "status", "staging"],
            &["status", "staging"],
            &["--json", "history", "staging"],
        ]);
        // A changed secret, a step that fails after it, and the rollback.
        space.write("vault/command", SENTINELS[3]);
        all(&[
            &["-v", "staging", "--plan"],
            &["-vvv", "staging", "exit 3"],
            &["-v", "staging", "--trace", "trace.json"],
            &["--json", "staging", "--force"],
            &["staging", "--rollback"],
            &["-v", "staging", "--rollback"],
            &["log", "staging"],
            &["history", "staging"],
        ]);
        drop(over);
        (said, watching.join().expect("watches"))
    });
    let traces = traces();
    for (words, output) in &said {
        let text = output.to_string();
        assert!(!traces.is_match(text.as_bytes()), "rel {words}:\n{text}");
    }
    let shown = said
        .iter()
        .find(|(words, _)| words == "-vv apply plan.json");
    let shown = &shown.expect("ran").1;
    let hidden = shown.to_string().matches("password=[secret]").count();
    assert_eq!(hidden, 2 * hosts.all.len(), "{shown}");
    for (words, kinds) in [
        ("-vv apply plan.json", &SENT[..4]),
        ("-vvv staging exit 3", &SENT),
    ] {
        let of = |(w, _): &&(String, Output)| w == words;
        let text = said.iter().find(of).expect("ran").1.to_string();
        for kind in kinds {
            let lines = text.lines().filter(|line| line.contains(kind)).count();
            assert!(lines >= hosts.all.len(), "rel {words}: {kind}\n{text}");
        }
    }
    let code = |words: &str| said.iter().find(|(w, _)| w == words).expect("ran").1.code;
    assert_eq!(code("-vvv staging exit 3"), 1);
    let bad = said
        .iter()
        .filter(|(w, o)| o.code != 0 && w != "-vvv staging exit 3");
    assert_eq!(
        bad.map(|(w, o)| format!("{w}\n{o}")).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    assert_eq!(seen, Vec::<String>::new());
    assert_eq!(
        found_below(space.base()),
        ["work/vault/command", "work/vault/file"]
    );
    for host in &hosts.all {
        let mut found = found_below(&host.srv("."));
        // What stood there before a run waits for the rollback.
        found.retain(|path| {
            let kept = host.srv(path);
            let room = fs::metadata(kept.parent().expect("lies in one")).expect("is there");
            let is_kept = path.contains("/undo/") && path.contains(".old/");
            assert!(!is_kept || room.mode() & 0o777 == 0o700, "{path}");
            !is_kept
        });
        assert_eq!(found, ["app/db.conf", "app/key"]);
        let journals = walkdir::WalkDir::new(host.srv(".rel"))
            .into_iter()
            .flatten();
        assert!(journals.filter(|e| e.file_name() == "journal").count() > 0);
    }
}

#[test]
fn a_secret_is_written_with_its_owner_and_mode_and_taken_back() {
    let hosts = Hosts::start(1);
    let space = app(&hosts);
    space.shell("sed -i 's/h1 h2/h1/; /^host \"h2\"/,/^}/d' Releasefile.kdl");
    let host = &hosts.all[0];
    let conf = host.srv("app/db.conf");
    let read = || fs::read_to_string(&conf).unwrap_or_else(|_| "nothing".into());
    let mode = |path: &str| fs::metadata(host.srv(path)).expect("is there").mode() & 0o777;
    let ran = |output: Output| output.stderr.matches("     run ").count();
    assert_eq!(ran(run(&space, &["staging"]).ok()), 3);
    assert_eq!((read(), mode("app/db.conf")), (content(0), 0o640));
    assert_eq!(
        fs::read_to_string(host.srv("app/key")).expect("reads"),
        SENTINELS[2]
    );
    assert_eq!(mode("app/key"), 0o600);
    assert_eq!(ran(run(&space, &["staging"]).ok()), 0);

    // Another value makes its step stale and what follows it; so does an edit.
    space.write("vault/command", SENTINELS[3]);
    let plan = run(&space, &["staging", "--plan"]).ok();
    let plan = plan.to_string().replace(&hosts.root(host), "[srv]");
    assert_snapshot!(plan, @"
    h1  app (app)
          run  conf        write [srv]/app/db.conf  changed since run [RUN]
               secret, not shown
          run  restart     cd '[srv]'/app; cat key db.conf; echo; cat db.conf >&2; echo restarted; eval 'true'  `conf` runs
    app  rollback: conf restart
    staging: 2 steps would run, 1 up to date, on 1 host
    ");
    assert_eq!(ran(run(&space, &["staging"]).ok()), 2);
    assert_eq!(read(), content(3));
    fs::write(&conf, "edited\n").expect("writes");
    assert_eq!(ran(run(&space, &["staging"]).ok()), 2);
    assert_eq!(read(), content(3));

    // The rollback brings content, mode and times, and keeps what somebody wrote meanwhile,
    // also where a rollback brought that.
    let saved = |name: &str| fs::read_to_string(host.srv(name)).unwrap_or_else(|_| "none".into());
    let back = run(&space, &["staging", "--rollback"]).ok();
    assert_eq!(read(), "edited\n", "{back}");
    // That is not what the run before left.
    let refused = run(&space, &["staging", "--rollback"]).fails(1);
    assert!(refused.stderr.contains("a newer file"), "{refused}");
    let back = run(&space, &["staging", "--rollback", "--force"]).ok();
    assert_eq!((read(), mode("app/db.conf")), (content(0), 0o640), "{back}");
    assert_eq!(saved("app/db.conf.rel-saved"), "edited\n", "{back}");
    assert_eq!(ran(run(&space, &["staging"]).ok()), 2);
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&conf, "edited again\n").expect("writes");
    let back = run(&space, &["staging", "--rollback", "--force"]).ok();
    assert_eq!(read(), content(0), "{back}");
    assert!(back.stderr.contains("its content is kept as"), "{back}");
    assert_eq!(saved("app/db.conf.rel-saved.2"), "edited again\n");
    let _ = run(&space, &["staging", "--rollback"]).ok();
    assert_eq!(read(), "nothing");
}

#[test]
fn a_secret_that_is_not_there_stops_before_any_host_is_asked() {
    let check = |from: &str| {
        let space = Space::new(&format!(
            "host \"h\" local=#true\nsecret \"x\" {from}\n\
             environment \"e\" {{ use \"u\" on=\"h\" x=\"x\"; }}\n"
        ));
        space.write(
            "recipes/u.kdl",
            "recipe \"u\" {\n param \"x\" type=\"secret\"\n step \"w\" { write \"{host.root}/w\" \"{x}\"; }\n}\n",
        );
        let output = space.run(["e"]).fails(2);
        assert!(!space.has(".rel/hosts"), "{output}");
        output.stderr
    };
    assert_snapshot!(check("env=\"NOT_SET\""), @"
    error: there is no secret `x`: the variable `NOT_SET` is not set
      declared  Releasefile.kdl:2
    ");
    assert_snapshot!(check("file=\"no/file\""), @"
    error: there is no secret `x`: cannot read `[work]/no/file`: no such file or directory
      declared  Releasefile.kdl:2
    ");
    assert_snapshot!(check("command=\"echo S3NTINEL; exit 4\""), @"
    error: there is no secret `x`: its command ended with status 4
      declared  Releasefile.kdl:2
    ");
    assert_snapshot!(check("command=\"true\""), @"error: the secret `x` is empty");
    assert_snapshot!(check("command=\"printf '\\\\377'\""), @"
    error: the secret `x` is not text
      help: keep it encoded, and decode the file on the host
    ");
}

#[test]
fn a_secret_stands_in_files_alone() {
    let mistakes = |releasefile: &str, recipe: &str| {
        let space = Space::new(releasefile);
        space.write("recipes/u.kdl", recipe);
        space.run(["check"]).fails(2).stderr
    };
    let used = r#"
secret "password" command="pass show db"
host "h" local=#true
environment "e" { use "u" on="h" x="pasword" c="echo {x}"; }
"#;
    let recipe = "recipe \"u\" {\n param \"x\" type=\"secret\"\n param \"c\" type=\"command\"\n step \"w\" { write \"{host.root}/w\" \"{x}\"; }\n}\n";
    assert_snapshot!(mistakes(used, recipe), @r#"
    rel::build::releasefile::unknown_secret

      × `x` takes the name of a secret
       ╭─[Releasefile.kdl:4:36]
     4 │ environment "e" { use "u" on="h" x="pasword" c="echo {x}"; }
       ·                                    ────┬────
       ·                                        ╰── no secret has this name
       ╰────
      help: did you mean `password`?

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[Releasefile.kdl:4:48]
     4 │ environment "e" { use "u" on="h" x="pasword" c="echo {x}"; }
       ·                                                ─────┬────
       ·                                                     ╰── here
       ╰────
      help: write it into a file, and name the file here
    "#);
    let recipe = r#"
recipe "u" {
    param "x" type="secret"
    param "y" type="secret" default="sesame"
    let "z" "{x}"
    fact "f" "echo {x}"
    step "run" { run "login {x}"; env PASSWORD="{x}"; undo "logout {x}"; }
    step "write" { write "{host.root}/{x}" "{x}" mode="0644"; check "grep {x} f"; }
    step "web" { wait http="http://localhost/" user="me" password="{x}"; }
}
"#;
    assert_snapshot!(mistakes("environment \"e\"\n", recipe), @r#"
    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:5:13]
     5 │     let "z" "{x}"
       ·             ──┬──
       ·               ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::wrong_value

      × the secret `y` can have no default
       ╭─[recipes/u.kdl:4:11]
     4 │     param "y" type="secret" default="sesame"
       ·           ─┬─
       ·            ╰── a value in a recipe is not secret
       ╰────

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:6:14]
     6 │     fact "f" "echo {x}"
       ·              ─────┬────
       ·                   ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:7:22]
     7 │     step "run" { run "login {x}"; env PASSWORD="{x}"; undo "logout {x}"; }
       ·                      ─────┬─────
       ·                           ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:7:39]
     7 │     step "run" { run "login {x}"; env PASSWORD="{x}"; undo "logout {x}"; }
       ·                                       ───────┬──────
       ·                                              ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:7:60]
     7 │     step "run" { run "login {x}"; env PASSWORD="{x}"; undo "logout {x}"; }
       ·                                                            ──────┬─────
       ·                                                                  ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:8:26]
     8 │     step "write" { write "{host.root}/{x}" "{x}" mode="0644"; check "grep {x} f"; }
       ·                          ────────┬────────
       ·                                  ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::wrong_value

      × a file with a secret in it cannot have mode `0644`
       ╭─[recipes/u.kdl:8:20]
     8 │     step "write" { write "{host.root}/{x}" "{x}" mode="0644"; check "grep {x} f"; }
       ·                    ────────────────────┬────────────────────
       ·                                        ╰── every user of the host could read it
       ╰────

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:8:69]
     8 │     step "write" { write "{host.root}/{x}" "{x}" mode="0644"; check "grep {x} f"; }
       ·                                                                     ──────┬─────
       ·                                                                           ╰── here
       ╰────
      help: write it into a file, and name the file here

    rel::build::releasefile::unknown_name

      × the secret `{x}` is allowed only in the text of a `write`
       ╭─[recipes/u.kdl:9:58]
     9 │     step "web" { wait http="http://localhost/" user="me" password="{x}"; }
       ·                                                          ───────┬──────
       ·                                                                 ╰── here
       ╰────
      help: write it into a file, and name the file here
    "#);
    assert_snapshot!(mistakes(
        "secret \"a\"\nsecret \"b\" env=\"B\" file=\"b\"\nsecret \"b\" env=\"C\"\nsecret \"c\" value=\"sesame\"\n",
        "recipe \"u\"\n"
    ), @r#"
    rel::build::releasefile::missing_argument

      × the secret `a` must come from one place
       ╭─[Releasefile.kdl:1:8]
     1 │ secret "a"
       ·        ─┬─
       ·         ╰── from where?
       ╰────
      help: write `command="pass show …"`, `env="NAME"` or `file="path"`; never the value

    rel::build::releasefile::missing_argument

      × the secret `b` must come from one place
       ╭─[Releasefile.kdl:2:8]
     2 │ secret "b" env="B" file="b"
       ·        ─┬─
       ·         ╰── from where?
       ╰────
      help: write `command="pass show …"`, `env="NAME"` or `file="path"`; never the value

    rel::build::releasefile::duplicate_name

      × the secret `b` is declared twice
       ╭─[Releasefile.kdl:2:8]
     2 │ secret "b" env="B" file="b"
       ·        ─┬─
       ·         ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:3:8]
     3 │ secret "b" env="C"
       ·        ─┬─
       ·         ╰── declared again
       ╰────

    rel::build::releasefile::missing_argument

      × the secret `c` must come from one place
       ╭─[Releasefile.kdl:4:8]
     4 │ secret "c" value="sesame"
       ·        ─┬─
       ·         ╰── from where?
       ╰────
      help: write `command="pass show …"`, `env="NAME"` or `file="path"`; never the value

    rel::build::releasefile::unknown_property

      × `secret` has no property `value`
       ╭─[Releasefile.kdl:4:12]
     4 │ secret "c" value="sesame"
       ·            ──┬──
       ·              ╰── not a property of it
       ╰────
      help: it takes `command`, `env`, `file`
    "#);
}

#[test]
fn a_secret_that_waited_on_a_host_that_was_killed_is_removed() {
    let space = Space::new(
        "host \"h\" local=#true root=\"h\"\nenvironment \"e\" { use \"u\" on=\"h\"; }\n",
    );
    let step = r#"step "s" { run "echo yes >begun; test -e go || sleep 1000"; }"#;
    space.write("recipes/u.kdl", format!("recipe \"u\" {{ {step} }}\n"));
    let job = space.begin(["e"]);
    space.wait_for("h/begun");
    // It was sent, and all that belongs to the run was killed before it was written.
    space.shell(
        "IFS='\t'; read -r t who run why since guard rest <h/.rel/e/lease
         room=${rest##*\t}; echo hidden >$room/secret.9
         IFS=' ' read -r program rest <$room/work; rm $room/work
         # The last one may have gone with its group.
         kill -9 -$program -$guard $guard || :; echo $room >room",
    );
    let _ = job.finish().fails(1);
    let room = space.read("room");
    let secret = Path::new(room.trim()).join("secret.9");
    assert!(secret.exists(), "{room}");
    space.write("h/go", "");
    let _ = space.run(["e"]).ok();
    assert!(!secret.exists(), "{room}");
    space.shell("rm -rf $(cat room)");
}
