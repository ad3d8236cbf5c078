//! Things that move while commands run, and what a killed `rel` leaves behind.

use std::fs;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::Space;

/// A command that says when it has started, and goes on when it is told to.
fn gated(before: &str, after: &str) -> String {
    format!("{before}; echo > started; while [ ! -e go ]; do sleep 0.01; done; {after}")
}

/// Starts a build, calls `meanwhile` while the gated command waits, and lets it go on.
fn build_and(space: &Space, meanwhile: impl FnOnce()) -> crate::space::Output {
    let job = space.begin(["build"]);
    space.wait_for("started");
    meanwhile();
    space.write("go", "");
    job.finish()
}

#[test]
fn what_a_needed_target_made_is_an_input_like_any_other() {
    let command = gated("true", "cat {a} > y");
    let space = Space::new(&format!(
        "target \"a\" {{ inputs \"in\"; outputs \"x\"; run \"cat in > x\" }}
         target \"b\" {{ needs \"a\"; outputs \"y\"; run \"{command}\" }}"
    ));
    space.write("in", "1\n");
    let output = build_and(&space, || {
        space.write("x", "somebody's\n");
    })
    .ok();
    assert_snapshot!(output.stderr, @r"
         run a  never built here
        done a  [TIME]
         run b  never built here
    warning: `b` ran, but its input `x` changed meanwhile
      before  50cc1102  2 B
      after   3714a3af  11 B
      help: outputs are kept but not cached; run `rel build b` again
        done b  [TIME]
    rel: 2 ran, 0 up to date, in [TIME]
    ");
    let _ = space.build([]).ok();
    assert_eq!(space.read("y"), "1\n");
}

#[test]
fn an_input_that_changes_and_changes_back_is_noticed() {
    let command = gated(
        "true",
        "cat in > out; echo > read; while [ ! -e end ]; do sleep 0.01; done",
    );
    let space = Space::new(&format!(
        "target \"t\" {{ inputs \"in\"; outputs \"out\"; run \"{command}\" }}"
    ));
    space.write("in", "9\n");
    space.shell("touch -d '1 hour ago' in; cp -p in saved");
    let job = space.begin(["build"]);
    space.wait_for("started");
    space.write("in", "7\n").write("go", "");
    space.wait_for("read");
    space.shell("cp -p saved in");
    space.write("end", "");
    let output = job.finish().ok();
    assert_snapshot!(output.stderr, @r"
         run t  never built here
    warning: `t` ran, but its input `in` was written to meanwhile, and is now what it was before
      help: outputs are kept but not cached; run `rel build t` again
        done t  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    let _ = space.build([]).ok();
    assert_eq!(space.read("out"), "9\n");
}

/// Each way in which an input may move: the result is used, told, neither recorded nor cached.
#[test]
fn whatever_moves_is_told_and_not_kept() {
    let ways = [
        ("edited", "echo 2 > in/a"),
        (
            "edited, same size, time set back",
            "cp -p in/a old; echo 2 > in/a; touch -r old in/a",
        ),
        (
            "replaced by an older file",
            "echo 2 > new; touch -d '1 hour ago' new; mv new in/a",
        ),
        ("made executable", "chmod +x in/a"),
        ("removed", "rm in/a"),
        ("one more", "echo 3 > in/c"),
        (
            "one more, and its directory's time set back",
            "touch -r in old; echo 3 > in/c; touch -r old in",
        ),
        ("renamed", "mv in/a in/c"),
        (
            "replaced by a directory",
            "rm in/a; mkdir in/a; echo 2 > in/a/b",
        ),
        ("a link led elsewhere", "ln -sfn ../other in/link"),
        ("what a link leads to", "echo 2 > linked"),
    ];
    for (way, script) in ways {
        let command = gated("true", "cat in/b > out");
        let space = Space::new(&format!(
            "target \"t\" {{ inputs \"in/**\"; outputs \"out\"; run \"{command}\" }}
             target \"after\" {{ needs \"t\"; outputs \"end\"; run \"cp\" \"{{t}}\" \"{{out}}\" }}"
        ));
        space.write("in/a", "1\n").write("in/b", "1\n");
        space.write("linked", "1\n").write("other", "1\n");
        space.shell("ln -s ../linked in/link; mkdir saved; cp -a in linked saved");
        let output = build_and(&space, || drop(space.shell(script))).ok();
        assert!(
            output.stderr.contains("warning: `t` ran, but"),
            "{way}: {output}"
        );
        assert_eq!(space.read("end"), "1\n", "{way}: the result is used");
        let why = space.run(["why", "t"]).ok().stdout;
        assert!(why.contains("stale  t"), "{way}: {why}");
        // Put back as it was, it is not what was made: nothing of that run is restored.
        space.shell("rm -r in linked; cp -a saved/in saved/linked .");
        let told = space.build([]).ok();
        assert!(told.how("t").starts_with("ran"), "{way}: {}", told.how("t"));
        let _ = space.build([]).ok().is("after fresh, t fresh");
    }
}

/// A directory that is swapped, or a link that is turned, takes inputs along: their own stamps are
/// what they were.
#[test]
fn inputs_that_are_moved_by_what_leads_to_them_are_noticed() {
    let ways = [
        ("mv in saved; mv alt in", "mv in alt; mv saved in", "in"),
        (
            "mv in/sub saved; mv alt/sub in/sub",
            "mv in/sub alt/sub; mv saved in/sub",
            "in/sub",
        ),
        ("ln -sfn alt link", "ln -sfn in link", "link"),
        ("mv in saved; mv alt in", "mv in alt; mv saved in", "in"),
    ];
    for (i, (there, back, what)) in ways.into_iter().enumerate() {
        let input = if i < 2 { "in/sub/a" } else { "link/sub/a" };
        let command = gated(
            "true",
            &format!("cat {input} > out; echo > read; while [ ! -e end ]; do sleep 0.01; done"),
        );
        let space = Space::new(&format!(
            "target \"t\" {{ inputs \"{input}\"; outputs \"out\"; run \"{command}\" }}"
        ));
        space.write("in/sub/a", "one\n").write("alt/sub/a", "two\n");
        space.shell("ln -s in link");
        let job = space.begin(["build"]);
        space.wait_for("started");
        space.shell(there);
        space.write("go", "");
        space.wait_for("read");
        space.shell(back);
        space.write("end", "");
        let text = job.finish().ok().stderr;
        assert_eq!(space.read("out"), "two\n", "{there}");
        let told =
            format!("`t` ran, but `{what}`, a directory above its inputs, was moved meanwhile");
        assert!(text.contains(&told), "{there}: {text}");
        let _ = space.build([]).ok().is("t ran");
        assert_eq!(space.read("out"), "one\n", "{there}");
        let _ = space.build([]).ok().is("t fresh");
    }
}

/// Whoever writes beside inputs moves none of them, whatever becomes of the directory's times.
#[test]
fn outputs_beside_inputs_move_nothing() {
    let scripts = [
        "cat d/a > d/o",
        "chmod 700 d; cat d/a > d/o; mkdir d/new; mv d/new d/newer; rmdir d/newer",
        "cp -p d/a d/o; touch -d '1 hour ago' d",
        "mkdir made; cat d/a > made/o; mv made/o d/o; rmdir made",
    ];
    for script in scripts {
        for depfile in ["", "depfile \"d/o.d\";"] {
            let named = if depfile.is_empty() {
                "true"
            } else {
                "echo 'd/o: d/b' > d/o.d"
            };
            let space = Space::new(&format!(
                "target \"t\" {{ inputs \"d/a\"; outputs \"d/o\"; {depfile} run \"{named}; {script}\" }}
                 target \"u\" {{ needs \"t\"; inputs \"d/a\"; outputs \"d/p\"; run \"cat {{t}} > d/p\" }}"
            ));
            space.write("d/a", "1\n").write("d/b", "1\n");
            space.shell("touch -d yesterday d");
            let output = space.run(["build"]).ok();
            assert!(!output.stderr.contains("warning"), "{script}: {output}");
            let _ = space.build([]).ok().is("t fresh, u fresh");
        }
    }
}

/// An overlay copies directories when something below them is written, and stamps the copies.
#[test]
fn outputs_in_a_container_move_no_inputs() {
    let space = Space::new(
        r#"
target "a" { inputs "src/in"; outputs "src/made/o"; run "cat src/in > src/made/o" }
target "b" { outputs "inc/made/o"; depfile "d"; run "cat inc/h > inc/made/o; echo 'o: inc/h' > d" }
"#,
    );
    space.write("src/in", "1\n").write("inc/h", "1\n");
    space.write("src/made/x", "").write("inc/made/x", "");
    let setup = r#"cd ../run; mount -t tmpfs tmpfs .; cd ../run; mkdir lower upper work
cp -a "$WORK/." lower
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay "$WORK"; cd "$WORK""#;
    let output = space.build_with_mounts(setup).ok();
    assert!(output.stderr.contains("2 ran"), "{output}");
    assert!(!output.stderr.contains("warning"), "{output}");
}

#[test]
fn the_releasefile_may_move_meanwhile() {
    let command = gated("true", "echo one > out");
    let text = format!("target \"t\" {{ outputs \"out\"; run \"{command}\" }}");
    let space = Space::new(&text);
    let _ = build_and(&space, || {
        space.write("Releasefile.kdl", text.replace("echo one", "echo two"));
    })
    .ok();
    assert_eq!(space.read("out"), "one\n");
    let _ = space.build([]).ok().is("t ran");
    assert_eq!(space.read("out"), "two\n");
}

#[test]
fn hard_links_to_inputs_are_no_change() {
    let space = Space::new(r#"target "t" { inputs "in"; outputs "out"; run "ln in out" }"#);
    space.write("in", "1\n");
    let _ = space.build([]).ok().is("t ran");
    let _ = space.build([]).ok().is("t fresh");
}

#[test]
fn orphans_of_a_killed_rel_write_into_no_later_run() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "out"; run "v=$(cat in); echo > started; sleep $v; echo $v > out" }"#,
    );
    space.write("in", "0.6\n");
    let job = space.begin(["build"]);
    space.wait_for("started");
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.write("in", "0\n");
    let _ = space.build([]).ok().is("t ran");
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(space.read("out"), "0\n");
    let _ = space.build([]).ok().is("t fresh");
}

#[test]
fn only_what_rel_made_itself_is_deleted() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "dist/*.txt"; run "echo w > dist/a.txt; grep -q ok in" }"#,
    );
    space.write("in", "bad\n");
    let _ = space.run(["build"]).fails(1);
    space
        .write("dist/hand.txt", "by hand\n")
        .write("in", "ok\n");
    let _ = space.build([]).ok().is("t ran");
    let aside = walkdir::WalkDir::new(space.path(".rel/backup"));
    let saved: Vec<String> = aside
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(|e| fs::read_to_string(e.path()).expect("reads"))
        .collect();
    assert_eq!(saved, ["by hand\n"], "and what the failed run left is gone");
}

#[test]
fn a_command_that_always_fails_never_costs_a_file() {
    let space = Space::new(r#"target "t" { outputs "doc/*.md"; run "false" }"#);
    for _ in 0..3 {
        space.write("doc/a.md", "mine\n");
        let _ = space.run(["build"]).fails(1);
    }
    let aside = walkdir::WalkDir::new(space.path(".rel/backup"));
    let files = aside
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file());
    assert_eq!(files.count(), 3);
}

#[test]
fn without_a_home_it_builds_without_a_cache() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo > o" }"#);
    let mut command = space.rel(["build"]);
    command
        .env_remove("HOME")
        .env_remove("REL_CACHE_DIR")
        .env_remove("XDG_CACHE_HOME");
    let output = space.finish(&mut command).ok();
    assert_snapshot!(output.stderr, @r"
    warning: continuing without the cache: there is no home directory to keep a cache in
      help: set `REL_CACHE_DIR` or `HOME`
         run t  never built here
        done t  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    ");
}

#[test]
fn who_writes_where_a_link_leads_moves_nothing() {
    let space = Space::new(
        r#"target "a" { inputs "src/**"; outputs "out"; run "sleep 0.1; echo > busy/new; cat src/file > {out}"; }"#,
    );
    space.write("src/file", "1\n").write("busy/old", "");
    std::os::unix::fs::symlink("../busy", space.path("src/link")).expect("links");
    let told = space.build([]).ok();
    assert_eq!(told.how("a"), "ran");
    space.build([]).ok().is("a fresh");
}
