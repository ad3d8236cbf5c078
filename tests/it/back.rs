//! The rollback, proven on every host before the first change on any; and the users that a
//! recipe names.

use std::fs;

use insta::assert_snapshot;

use rustix::process::Signal;

use crate::space::{Ends, Output, Space, wait_until};

/// Two hosts in this directory with an environment `e`, whose only use is of the recipe `r`.
fn app(steps: &str) -> Space {
    let space = Space::new(
        r#"
var "word" "1"
host "a" local=#true root="srv/a"
host "b" local=#true root="srv/b"
environment "e" { use "r" on="a b" word="{word}"; }
"#,
    );
    space.write(
        "recipes/r.kdl",
        format!("recipe \"r\" {{\n param \"word\"\n{steps}\n}}\n"),
    );
    for host in ["a", "b"] {
        fs::create_dir_all(space.path("srv").join(host)).expect("creates");
    }
    space
}

#[test]
fn a_way_back_that_would_not_work_on_one_host_stops_all() {
    let space = app(r#"
    step "first" { write "{host.root}/first" "{word}"; }
    step "switch" {
        dir "{host.root}/sub"
        env NAME="former"
        run "mkdir -p {host.root}/sub; echo {word} >>{host.root}/switched"
        undo "cp $NAME now"
        undo-check "test -e \"$NAME\" || {{ echo \"there is no $NAME\"; exit 1; }}"
    }
    step "note" { run "echo {word} >>noted"; }
    step "look" undo=#false { run "test -e switched"; }
"#);
    for host in ["a", "b"] {
        fs::create_dir(space.path("srv").join(host).join("sub")).expect("creates");
    }
    space.write("srv/a/sub/former", "");
    let stopped = space.run(["e"]);
    assert_snapshot!(stopped, @r#"
    --- stderr
    error: `e` is stopped by the rollback of `r/switch`, which would fail, on host `b`
      evidence  there is no former
      help: nothing was changed; to continue anyway: `--override switch --reason "…"`
    --- exit code 1
    "#);
    assert!(!space.has("srv/a/first") && !space.has("srv/a/.rel") && !space.has("srv/b/first"));
    let plan = space.run(["e", "--plan"]).ok();
    let end: Vec<&str> = plan.stdout.lines().rev().take(4).collect();
    let end: Vec<&str> = end.into_iter().rev().collect();
    assert_snapshot!(end.join("\n"), @"
    r  rollback: first switch; no rollback: note
    b  the rollback of `r/switch` would fail
               there is no former
    e: 8 steps would run, 0 up to date, on 2 hosts
    ");
    let told = space.ask(["e", "--plan"]);
    assert_eq!(told["blocked"][0]["stopping"], "way-back");
    assert_eq!(told["jobs"][0]["steps"][1]["way_back"], "known");
    assert_eq!(told["jobs"][0]["steps"][2]["way_back"], "none");
    assert_eq!(told["jobs"][0]["steps"][3]["way_back"], "not-needed");

    let args = ["e", "--override", "switch", "--reason", "there is none yet"];
    let _ = space.run(args).ok();
    assert_eq!(space.read("srv/b/switched"), "1\n");
    let journal = space.read("srv/b/.rel/e/journal");
    let line = journal.lines().find(|l| l.contains("\toverridden\t"));
    assert!(line.expect("a line").ends_with("\tthere is none yet"));
    assert!(!space.read("srv/a/.rel/e/journal").contains("overridden"));
    // What does not run needs no rollback.
    let _ = space.run(["e"]).ok();
    space.write("srv/b/sub/former", "");
    let _ = space.run(["e", "--var", "word=2"]).ok();
    assert_eq!(space.read("srv/b/switched"), "1\n2\n");
}

#[test]
fn what_rel_takes_back_itself_is_proven_as_well() {
    let space = app(r#"
    step "made" { run "mkdir -p made"; undo "true"; }
    step "new" { write "{host.root}/made/file" "{word}"; }
    step "conf" { write "{host.root}/etc/conf" "{word}"; }
"#);
    let _ = space.run(["e"]).ok();
    assert_eq!(space.read("srv/b/etc/conf"), "1");
    // Root may write everywhere: a mount that is read-only it may not.
    let script = r#"
        mount --bind srv/b/etc srv/b/etc
        mount -o remount,ro,bind srv/b/etc
        exec "$REL" e --var word=2"#;
    let stopped = space.finish(&mut space.with_mounts(script)).fails(1);
    assert_snapshot!(stopped.stderr, @r#"
    error: `e` is stopped by the rollback of `r/conf`, which would fail, on host `b`
      evidence  [work]/srv/b/etc cannot be written: nothing could be brought back there
      help: nothing was changed; to continue anyway: `--override conf --reason "…"`
    "#);
    assert_eq!(space.read("srv/a/etc/conf"), "1");
    let _ = space.run(["e", "--var", "word=2"]).ok();
}

#[test]
fn a_user_that_a_host_does_not_know_stops_a_run() {
    let space = app(r#"
    step "first" { write "{host.root}/first" "{word}"; }
    step "as" as="rel-nobody-knows" { run "true"; }
    step "own" { write "{host.root}/own" "{word}" owner="root:rel-no-such-group"; }
"#);
    let stopped = space.run(["e"]);
    assert_snapshot!(stopped, @r#"
    --- stderr
    error: `e` is stopped by the guard `user` on host `a`
      evidence   there is no user rel-nobody-knows
      user on a  there is no group rel-no-such-group
      user on b  there is no user rel-nobody-knows
      user on b  there is no group rel-no-such-group
      help: nothing was changed; to continue anyway: `--override user --reason "…"`
    --- exit code 1
    "#);
    assert!(!space.has("srv/a/first") && !space.has("srv/b/first"));
    // Who is made by a step before cannot be asked for.
    let space = app(r#"
    step "user" { run "echo useradd rel-nobody-knows >made"; }
    step "as" as="rel-nobody-knows" { run "true"; }
"#);
    let failed = space.run(["e"]).fails(1);
    assert!(failed.stderr.contains("r/as"), "{failed}");
}

#[test]
fn a_rollback_that_lacks_something_on_one_host_changes_none() {
    let space = app(r#"
    step "file" { write "{host.root}/file" "{word}"; }
    step "link" { symlink "{host.root}/link" to="dir-{word}"; }
"#);
    for host in ["a", "b"] {
        for word in ["1", "2"] {
            let dir = format!("srv/{host}/dir-{word}");
            fs::create_dir(space.path(dir)).expect("creates");
        }
    }
    let _ = space.run(["e"]).ok();
    let _ = space.run(["e", "--var", "word=2"]).ok();
    let link = |host: &str| fs::read_link(space.path(format!("srv/{host}/link"))).expect("a link");
    let untouched = || {
        for host in ["a", "b"] {
            assert_eq!(space.read(format!("srv/{host}/file")), "2");
            assert_eq!(link(host).to_str(), Some("dir-2"));
        }
    };
    // The former target is gone on one of both.
    space.remove("srv/b/dir-1");
    let refused = space.run(["e", "--rollback"]);
    assert_snapshot!(refused, @"
    --- stderr
    error: `e` cannot be rolled back on host `b`
      missing  [work]/srv/b/dir-1, to which [work]/srv/b/link would point again, is gone
      help: nothing was changed; restore it there, or release the former version again; if only a link would dangle, `--rollback --force` rolls back anyway
    --- exit code 1
    ");
    untouched();
    fs::create_dir(space.path("srv/b/dir-1")).expect("creates");
    // What was kept of the file is gone.
    let journal = space.read("srv/b/.rel/e/journal");
    let mut ended = journal.lines().filter(|l| l.contains("\tok\t"));
    let run = ended.next_back().and_then(|l| l.split('\t').nth(3));
    let last = space.path("srv/b/.rel/e/undo").join(run.expect("a run"));
    let old = fs::read_dir(&last).expect("lists").flatten();
    let mut old = old
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "old"));
    let old = old.next().expect("a former file");
    fs::rename(&old, space.path("kept")).expect("moves");
    let refused = space.run(["e", "--rollback", "--force"]).fails(1);
    assert!(
        refused.stderr.contains("the former content of"),
        "{refused}"
    );
    untouched();
    fs::rename(space.path("kept"), &old).expect("moves");
    // The whole rollback was pruned.
    fs::rename(&last, space.path("kept")).expect("moves");
    let refused = space.run(["e", "--rollback"]).fails(1);
    assert!(
        refused.stderr.contains("the rollback data of run "),
        "{refused}"
    );
    untouched();
    fs::rename(space.path("kept"), &last).expect("moves");
    // A link that is to point to nothing can be wanted.
    space.remove("srv/b/dir-1");
    let _ = space.run(["e", "--rollback", "--force"]).ok();
    assert_eq!(space.read("srv/b/file"), "1");
    assert_eq!(link("b").to_str(), Some("dir-1"));
    // It is a run of its own in the journals.
    let journal = space.read("srv/a/.rel/e/journal");
    let run_of = |event: &str| {
        let line = journal
            .lines()
            .find(|l| l.split('\t').nth(1) == Some(event));
        let columns = line.expect("a line").split('\t').nth(3);
        columns.expect("a run").to_owned()
    };
    assert_eq!(run_of("undone"), run_of("rolled-back"));
    assert_ne!(run_of("undone"), run_of("done"));
}

/// A site on two hosts, released by `versioned-release`, whose instance is a program in it.
fn site() -> Space {
    let space = Space::new(
        r#"
host "a" local=#true root="srv/a"
host "b" local=#true root="srv/b"
target "page" { inputs "page.txt"; outputs "build/page"; run "cp page.txt {out}"; }
environment "live" {
    needs "page"
    use "versioned-release" as="web" on="a b" artifact="{page}" root="{host.root}/site" {
        install "if [ -e ../../hang ]; then rm serve; touch ../../hangs; sleep 1000; fi; cp artifact/page serve; chmod +x serve"
        start "exec ./serve"
    }
}
"#,
    );
    let _ = version(&space, 1);
    space
}

/// Another version of the program, and what comes of its release.
fn version(space: &Space, number: u32) -> Output {
    space.write(
        "page.txt",
        format!("#!/bin/sh\n# {number}\nexec sleep 100000\n"),
    );
    space.run(["live"])
}

#[test]
fn a_release_is_not_begun_where_the_former_one_could_not_come_back() {
    let space = site();
    let _ends = Ends(&space);
    let live = |host: &str| fs::canonicalize(space.path(format!("srv/{host}/site/current")));
    let first = live("b").expect("a release");
    let stopped = |words: &str| {
        let output = version(&space, 2).fails(1);
        assert!(
            output.stderr.contains("the rollback of `web/switch`"),
            "{output}"
        );
        assert!(output.stderr.contains(words), "{output}");
        for host in ["a", "b"] {
            let releases = fs::read_dir(space.path(format!("srv/{host}/site/releases")));
            assert!(releases.expect("lists").count() <= 1, "{output}");
        }
    };
    let aside = |path: std::path::PathBuf, words: &str| {
        fs::rename(&path, space.path("aside")).expect("moves");
        stopped(words);
        fs::rename(space.path("aside"), &path).expect("moves");
    };
    aside(first.join("serve"), "./serve, which web.");
    aside(first.join("artifact"), "has no artifact/");
    aside(first.clone(), "the former release is gone");
    let services = fs::read_dir(space.path("srv/b/.rel/live/services")).expect("lists");
    let service = services.flatten().next().expect("a service").path();
    aside(service.join("run"), "is not known any more");
    let _ = version(&space, 2).ok();
    assert_ne!(live("b").expect("a release"), first);
    let _ = space.run(["live", "--rollback"]).ok();
    assert_eq!(live("b").expect("a release"), first);
}

#[test]
fn what_a_run_that_was_cut_off_has_broken_does_not_stop_the_one_that_mends_it() {
    let space = site();
    let _ends = Ends(&space);
    // It does everything again where the release is live, and gets half-way.
    space.write("srv/b/site/hang", "");
    let job = space.begin(["live", "--force"]);
    wait_until("it installs", || {
        space.has("srv/b/site/hangs").then_some(())
    });
    job.signal(Signal::KILL);
    let _ = job.finish();
    assert!(!space.has("srv/b/site/current/serve"));
    space.shell("rm srv/b/site/hang");
    let fixed = wait_until("the guard has left", || {
        let output = space.run(["live", "--force"]);
        assert!(!output.stderr.contains("the rollback"), "{output}");
        (output.code == 0).then_some(output)
    });
    assert!(space.has("srv/b/site/current/serve"), "{fixed}");
}
