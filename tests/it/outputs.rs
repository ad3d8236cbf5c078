//! Outputs that somebody touches: deleted, edited, replaced, led out of the tree.

use std::fs;
use std::os::unix::fs::symlink;

use insta::assert_snapshot;

use crate::space::{REL, Space};

fn built() -> Space {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "build/x"; run "cp in.txt {out}; echo ran >> log"; }"#,
    );
    space.write("in.txt", "in\n");
    space.build([]).ok().is("a ran");
    space
}

/// What `why` says, what the build does, and what the output is afterwards.
#[track_caller]
fn after(space: &Space) -> String {
    let why = space.run(["why", "a"]).ok().stdout;
    let build = space.run(["build"]).ok();
    let shown = format!("{why}{build}");
    assert_eq!(space.read("build/x"), "in\n", "{shown}");
    assert!(
        fs::symlink_metadata(space.path("build/x"))
            .expect("is there")
            .is_file()
    );
    assert_eq!(space.lines("log").len(), 1, "nothing ran again");
    space.build([]).ok().is("a fresh");
    shown
}

/// Returns the files that were moved aside, with their content.
fn aside(space: &Space) -> Vec<(String, String)> {
    let dir = space.path(".rel/backup");
    let entries = walkdir::WalkDir::new(&dir).into_iter().flatten();
    let files = entries.filter(|e| !e.file_type().is_dir());
    let mut found: Vec<_> = files
        .map(|e| {
            let path = e.path().strip_prefix(&dir).expect("below");
            let path: std::path::PathBuf = path.components().skip(1).collect();
            let text = match e.path_is_symlink() {
                true => format!("-> {}", fs::read_link(e.path()).expect("reads").display()),
                false => fs::read_to_string(e.path()).expect("reads"),
            };
            (path.display().to_string(), text)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn deleted() {
    let space = built();
    space.remove("build/x");
    assert_snapshot!(after(&space), @"
      stale  a
             output `build/x` is missing
    --- stderr
    restored a  output `build/x` is missing
    rel: 1 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(aside(&space), []);
}

#[test]
fn edited_by_hand() {
    let space = built();
    space.write("build/x", "my own work\n");
    assert_snapshot!(after(&space), @"
      stale  a
             output `build/x` was changed  file 21b779b0 -> file 2ea04527
    --- stderr
    warning: files stood where `a` writes its outputs; they were moved to `.rel/backup/[BACKUP]`
    restored a  output `build/x` was changed  file 21b779b0 -> file 2ea04527
    rel: 1 restored from the cache, 0 up to date, in [TIME]
    ");
    // Nothing that `rel` did not make is destroyed.
    assert_eq!(aside(&space), [("build/x".into(), "my own work\n".into())]);
}

#[test]
fn replaced_by_a_directory() {
    let space = built();
    space.remove("build/x").write("build/x/y", "mine\n");
    assert_snapshot!(after(&space), @"
      stale  a
             output `build/x` was changed  file 21b779b0 -> directory af1349b9
    --- stderr
    warning: files stood where `a` writes its outputs; they were moved to `.rel/backup/[BACKUP]`
    restored a  output `build/x` was changed  file 21b779b0 -> directory af1349b9
    rel: 1 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(aside(&space), [("build/x/y".into(), "mine\n".into())]);
}

#[test]
fn replaced_by_a_link_out_of_the_tree() {
    let space = built();
    // The link's text is in its digest, and so in the snapshot.
    let outside = space.base().join("precious");
    fs::write(&outside, "precious\n").expect("writes");
    space.remove("build/x");
    symlink("../../precious", space.path("build/x")).expect("links");
    assert_snapshot!(after(&space), @"
      stale  a
             output `build/x` was changed  file 21b779b0 -> link d6e70c4e
    --- stderr
    warning: files stood where `a` writes its outputs; they were moved to `.rel/backup/[BACKUP]`
    restored a  output `build/x` was changed  file 21b779b0 -> link d6e70c4e
    rel: 1 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(fs::read_to_string(&outside).expect("reads"), "precious\n");
}

#[test]
fn its_directory_replaced_by_a_link_out_of_the_tree() {
    let space = built();
    let outside = space.base().join("outside");
    fs::create_dir(&outside).expect("creates");
    fs::write(outside.join("x"), "precious\n").expect("writes");
    space.remove("build");
    symlink(&outside, space.path("build")).expect("links");
    assert_snapshot!(space.run(["build"]).fails(1), @"
    --- stderr
    error: output `build/x` goes through the link `build`
      help: remove the link: outputs are only written inside the repository
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    ");
    assert_eq!(
        fs::read_to_string(outside.join("x")).expect("reads"),
        "precious\n"
    );
    fs::remove_file(space.path("build")).expect("removes");
    space.build([]).ok().is("a restored");
}

#[test]
fn its_directory_replaced_by_a_file() {
    let space = built();
    space.remove("build").write("build", "a file");
    assert_snapshot!(space.run(["build"]).fails(1), @"
    --- stderr
    error: output `build/x` needs the directory `build`, but a file is there
      help: move that file away
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    ");
    assert_eq!(space.read("build"), "a file");
}

#[test]
fn an_output_directory_with_somebody_elses_file() {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "tree/"; run "mkdir tree; cp in.txt tree/one"; }"#,
    );
    space.write("in.txt", "in\n").write("tree/mine", "mine\n");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run a  never built here
    warning: files stood where `a` writes its outputs; they were moved to `.rel/backup/[BACKUP]`
        done a  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    assert_eq!(aside(&space), [("tree/mine".into(), "mine\n".into())]);
    space.write("tree/mine", "mine again\n");
    assert_snapshot!(space.run(["why", "a"]).ok(), @"
    stale  a
           output `tree/mine` is not of the last run
    ");
    space.build([]).ok().is("a restored");
    space.build([]).ok().is("a fresh");
}

#[test]
fn a_changed_mode() {
    let space = built();
    space.shell("chmod +x build/x");
    assert_snapshot!(space.run(["why", "a"]).ok(), @"
    stale  a
           output `build/x` was changed  file 21b779b0 -> executable 21b779b0
    ");
    space.build([]).ok().is("a restored");
}

/// Found by the model test: a glob names files only, so nobody made room.
#[test]
fn a_file_of_a_glob_replaced_by_a_directory() {
    let space = Space::new(
        r#"target "a" { inputs "in.txt"; outputs "build/*.o"; run "cp in.txt build/x.o; echo ran >> log"; }"#,
    );
    space.write("in.txt", "in\n");
    space.build([]).ok().is("a ran");
    space.remove("build/x.o").write("build/x.o/y", "mine\n");
    space.build([]).ok().is("a restored");
    assert_eq!(aside(&space), [("build/x.o/y".into(), "mine\n".into())]);
    space.remove("build/x.o").write("build/x.o/y", "mine\n");
    space.build(["--no-cache"]).ok().is("a ran, same result");
    space.build([]).ok().is("a fresh");
}

#[test]
fn what_stands_in_the_way_on_another_file_system_is_moved_aside_as_well() {
    let space = built();
    space.shell("rm -r build && mkdir build");
    let output = space.build_with_mounts("mount -t tmpfs tmpfs \"$WORK/build\"; mkdir build/x; echo mine > build/x/a; ln -s a build/x/b",
    );
    let _ = output.ok();
    let found = aside(&space);
    let expected = [("build/x/a", "mine\n"), ("build/x/b", "-> a")];
    assert_eq!(
        found,
        expected.map(|(path, text)| (path.into(), text.into()))
    );
}

/// Rewrites the Releasefile to a target that makes a directory of `out`.
fn as_directory(space: &Space) {
    let text = r#"target "a" { outputs "out/"; run "mkdir out; echo x > out/x"; }"#;
    space.write("Releasefile.kdl", text);
}

#[test]
fn a_file_becomes_a_directory_and_a_directory_a_file() {
    let space = Space::new(r#"target "a" { outputs "out"; run "echo x > out"; }"#);
    space.build([]).ok().is("a ran");
    as_directory(&space);
    space.build([]).ok().is("a ran");
    assert_eq!(space.read("out/x"), "x\n");
    assert_eq!(aside(&space), []);
    // What was an output itself is now a directory above one.
    space.write("Releasefile.kdl", r#"target "a" { outputs "out/x/y/z" "out/p/*.o"; run "echo x | tee out/x/y/z out/p/a.o"; }"#);
    space.build([]).ok().is("a ran");
    assert_eq!(space.read("out/x/y/z"), "x\n");
    space.build([]).ok().is("a fresh");
    assert_eq!(aside(&space), []);
}

#[test]
fn a_file_that_a_failed_run_made_of_its_directory_is_no_obstacle() {
    let space = Space::new(r#"target "a" { outputs "out/"; run "echo x > out"; }"#);
    let _ = space.run(["build"]).fails(1);
    as_directory(&space);
    space.build([]).ok().is("a ran");
    assert_eq!(aside(&space), []);
}

#[test]
fn what_stands_in_the_place_of_a_directory_is_moved_aside() {
    let space = Space::empty();
    as_directory(&space);
    space.write("out", "mine\n");
    space.build([]).ok().is("a ran");
    assert_eq!(aside(&space), [("out".into(), "mine\n".into())]);
    space.write("elsewhere/x", "mine\n").remove("out");
    symlink("elsewhere", space.path("out")).expect("links");
    space.build([]).ok().is("a restored");
    assert_eq!(space.read("elsewhere/x"), "mine\n");
    let expected = [("out", "-> elsewhere"), ("out", "mine\n")];
    assert_eq!(aside(&space), expected.map(|(p, t)| (p.into(), t.into())));
    // Nobody made it that could tell: what lies above a directory stays where it is.
    space.remove("out").write("out", "mine\n");
    space.write(
        "Releasefile.kdl",
        r#"target "a" { outputs "out/b/"; run "mkdir out/b; echo x > out/b/x"; }"#,
    );
    let _ = space.run(["build"]).fails(1);
    assert_eq!(space.read("out"), "mine\n");
}

#[test]
fn two_targets_swap_a_file_and_a_directory() {
    let space = Space::new(
        r#"target "a" { outputs "x"; run "echo a > x"; }
           target "b" { outputs "y/"; run "mkdir y; echo b > y/b"; }"#,
    );
    space.build([]).ok().is("a ran, b ran");
    space.write(
        "Releasefile.kdl",
        r#"target "a" { outputs "y"; run "echo a > y"; }
           target "b" { outputs "x/"; run "mkdir x; echo b > x/b"; }"#,
    );
    space.build([]).ok().is("a ran, b ran");
    assert_eq!(
        (space.read("y"), space.read("x/b")),
        ("a\n".into(), "b\n".into())
    );
    space.build([]).ok().is("a fresh, b fresh");
}

#[test]
fn a_pipe_is_no_output() {
    let space = Space::new(
        r#"
target "file" { outputs "p"; run "mkfifo {out}"; }
target "glob" { outputs "gg/*" count=2; run "mkfifo gg/p; echo 1 > gg/f"; }
target "dir" { outputs "d/"; run "mkdir -p d/e; mkfifo d/e/p"; }
"#,
    );
    for (target, path) in [("file", "p"), ("glob", "gg/p"), ("dir", "d/e/p")] {
        for _ in 0..2 {
            let told = space.run(["build", target]).fails(1).stderr;
            let said = format!("error: `{target}` made `{path}`, which is not a file\n");
            assert!(told.contains(&said), "{told}");
        }
    }
}

/// Leaves what other users could change, or become somebody by.
const OPEN: &str = r#"
import os
os.makedirs("out/d", exist_ok=True)
for name, mode in [("out/run", 0o6777), ("out/d/data", 0o3666), ("out/kept", 0o444)]:
    open(name, "w").write("text")
    os.chmod(name, mode)
for name in ["out", "out/d"]:
    os.chmod(name, 0o1777)
try:
    # cap_setuid=ep
    os.setxattr("out/run", "security.capability", bytes.fromhex("0100000280" + "00" * 15))
    os.chown("out/d/data", 65534, 65534)
    os.chmod("out/d/data", 0o666)
except PermissionError:
    pass
"#;

#[test]
fn other_users_can_use_no_output() {
    for (sandbox, dir, owner) in [
        ("timeout \"60s\"", "1755", "65534"),
        ("sandbox \"strict\"", "755", "0"),
    ] {
        let space = Space::new(&format!(
            r#"target "t" {{ {sandbox}; inputs "a.py"; outputs "out/"; run "/usr/bin/python3 -S a.py" }}"#
        ));
        space.write("a.py", OPEN);
        let build = || {
            let mut shell = space.program("sh");
            let output = space.finish(shell.args(["-c", &format!("umask 000; exec {REL} build")]));
            let _ = output.ok();
        };
        let modes = || space.shell("find out -printf '%m %p\\n' | sort -k 2");
        let capabilities = || {
            let mut value = [0u8; 32];
            rustix::fs::getxattr(space.path("out/run"), "security.capability", &mut value)
        };
        build();
        let ran = format!("{dir} out\n{dir} out/d\n644 out/d/data\n444 out/kept\n755 out/run\n");
        assert_eq!(modes(), ran, "{sandbox}");
        assert_eq!(capabilities(), Err(rustix::io::Errno::NODATA), "{sandbox}");
        if rustix::process::getuid().is_root() {
            let found = space.shell("stat -c %u out/d/data");
            assert_eq!(found.trim(), owner, "{sandbox}");
        }
        space.shell("rm -r out");
        build();
        let restored = "755 out\n755 out/d\n644 out/d/data\n444 out/kept\n755 out/run\n";
        assert_eq!(modes(), restored, "{sandbox}");
    }
}

/// Another name of a file may be somebody else's.
#[test]
fn a_file_with_two_names_keeps_its_mode() {
    let space = Space::new(r#"target "t" { outputs "o"; run "ln ../home/other {out}" }"#);
    space.write("../home/other", "other\n");
    space.shell("chmod 2775 ../home/other");
    let _ = space.run(["build"]).ok();
    assert_eq!(space.shell("stat -c %a o").trim(), "2775");
}

/// `!` takes nothing away from what is named as a file: that is restored as well.
#[test]
fn a_named_output_stays_one_whatever_is_excluded() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "dist/" "app" "!**/app"; run "mkdir -p dist; cp in dist/m; cp in dist/app; cp in app" }"#,
    );
    space.write("in", "1\n");
    space.build([]).ok().is("t ran");
    space.remove("app").remove("dist/m");
    space.build([]).ok().is("t restored");
    assert!(space.has("app") && space.has("dist/m"));
}

/// Python writes `__pycache__` beside what it imports, bundlers a `.cache`.
#[test]
fn what_tools_keep_in_an_output_directory_is_left_alone() {
    let space = Space::new(
        r#"
target "venv" { inputs "in"; outputs "venv/" "dist/*" "!**/__pycache__/**" "!**/*.pyc" "!dist/log"; run "mkdir -p venv/lib/empty dist; cp in venv/lib/m; echo > dist/x; echo > dist/log; echo ran >> log" }
target "user" { needs "venv"; inputs "t"; run "ls t {venv}; touch venv/a.pyc" }
"#,
    );
    space.write("in", "1\n").write("t", "1\n");
    space.build([]).ok().is("user ran, venv ran");
    space.shell("mkdir venv/lib/empty/__pycache__; touch venv/lib/empty/__pycache__/m.pyc");
    for t in ["2\n", "3\n"] {
        space.write("t", t);
        let told = space.run(["-q", "build"]).ok();
        assert_eq!(told.stderr, "");
        space.build([]).ok().is("user fresh, venv fresh");
    }
    // It stays where the target is restored, or made anew, and is in no result.
    space.remove("venv/lib/m");
    space.build([]).ok().is("user fresh, venv restored");
    assert!(space.has("venv/a.pyc") && space.has("dist/log"));
    space.write("in", "2\n");
    let told = space.run(["-q", "build"]).ok();
    assert_eq!(told.stderr, "");
    assert!(space.has("venv/lib/empty/__pycache__/m.pyc"));
    space.shell("mkdir ../b; cp Releasefile.kdl in t ../b");
    space
        .build(["-C", "../b"])
        .ok()
        .is("user restored, venv restored");
    assert!(space.has("../b/venv/lib/empty") && !space.has("../b/venv/a.pyc"));
    assert!(space.has("../b/dist/x") && !space.has("../b/dist/log"));
    // What is no output of it otherwise is a file like others.
    space.write("venv/other", "");
    let told = space.run(["build"]).ok().stderr;
    assert!(
        told.contains("`venv/other` is not of the last run"),
        "{told}"
    );
}

/// As in a shell: `cp -r` into a directory that is there makes one below it.
#[test]
fn an_output_directory_is_made_by_the_commands() {
    for sandbox in ["off", "strict"] {
        let space = Space::new(&format!(
            r#"
sandbox "{sandbox}"
target "copied" {{ inputs "src/"; outputs "a/public/"; run "cp -r src a/public" }}
target "moved" {{ inputs "src/"; outputs "moved/"; run "cp -r src m; mv m moved" }}
target "made" {{ inputs "src/"; outputs "made/"; run "mkdir made; cp src/f made/g" }}
target "within" {{ dir "within/x"; outputs "within/"; run "echo > f" }}
target "none" {{ outputs "none/"; run "echo > none/f" }}
"#
        ));
        space.write("src/f", "1\n");
        let _ = space
            .run(["build", "copied", "moved", "made", "within"])
            .ok();
        for round in ["2\n", "3\n"] {
            space.write("src/f", round);
            space
                .build(["copied", "moved", "made"])
                .ok()
                .is("copied ran, made ran, moved ran");
            for path in ["a/public/f", "moved/f", "made/g"] {
                assert_eq!(space.read(path), round, "{path}");
            }
            assert!(space.has("within/x/f"));
        }
        space.shell("rm -r a moved");
        space
            .build(["copied", "moved"])
            .ok()
            .is("copied restored, moved restored");
        let told = space.run(["build", "none"]).fails(1).stderr;
        let help = "`none/` is made by the commands: begin with `mkdir -p`";
        assert!(told.contains(help), "{told}");
    }
}

/// Nobody said so with a `!`: it is reported once, and no reason to restore the directory each time.
#[test]
fn what_others_leave_in_an_output_directory_is_told_once() {
    let space = Space::new(
        r#"
target "venv" { inputs "in"; outputs "venv/"; run "mkdir -p venv/lib venv/empty; cp in venv/lib/m.py" }
target "all" { needs "venv" }
target "test" { needs "all"; inputs "t"; run "cp t venv/empty/state; mkdir -p venv/lib/__pycache__; date +%N > venv/lib/__pycache__/m.pyc; cat venv/lib/m.py" }
"#,
    );
    space.write("in", "1\n").write("t", "1\n");
    let told = space.run(["-q", "build"]).ok().stderr;
    assert_snapshot!(told, @"
    warning: commands that need `venv` left `venv/empty/state`, `venv/lib/__pycache__/m.pyc` among its outputs: they are not part of its result, and were left there
      help: declare it with `!**/__pycache__/**` in the `outputs` of `venv`, or let them write it elsewhere
    ");
    for t in ["2\n", "3\n"] {
        space.write("t", t);
        assert_eq!(space.run(["-q", "build"]).ok().stderr, "");
        space.build([]).ok().is("all fresh, test fresh, venv fresh");
    }
    assert_eq!(aside(&space), []);
    // A file that was made is restored all the same, and what nobody's command wrote is reported.
    space.write("venv/lib/m.py", "edited\n");
    space
        .build([])
        .ok()
        .is("all fresh, test fresh, venv restored");
    assert_eq!(space.read("venv/lib/m.py"), "1\n");
    space.write("venv/mine", "mine\n");
    let why = space.run(["why", "venv"]).ok().stdout;
    assert!(why.contains("`venv/mine` is not of the last run"), "{why}");
    space
        .build([])
        .ok()
        .is("all fresh, test fresh, venv restored");
    // What is made anew begins without it. What no tool is known to keep may be somebody's: it is
    // kept, with a warning.
    for t in ["4\n", "5\n"] {
        space.write("t", t);
        let _ = space.run(["build"]).ok();
    }
    space.shell("rm -r .rel/backup");
    space.write("in", "2\n");
    let told = space.run(["-q", "build", "venv"]).ok().stderr;
    assert!(told.contains("they were moved to `.rel/backup/"), "{told}");
    assert!(!space.has("venv/lib/__pycache__") && !space.has("venv/empty/state"));
    assert_eq!(
        space.shell("cd .rel/backup/*; find . -type f"),
        "./venv/empty/state\n"
    );
}

/// Also one that appears while a command is at work, which could have written it.
#[test]
fn a_persons_file_in_an_output_directory_is_kept() {
    let space = Space::new(
        r#"
target "lib" { inputs "in"; outputs "lib/"; run "mkdir -p lib; cp in lib/a" }
target "app" { needs "lib"; inputs "t"; run "mkdir -p lib/__pycache__; echo > lib/__pycache__/a; if [ -e mine ]; then mv mine lib/mine; fi" }
"#,
    );
    space.write("in", "1\n").write("t", "1\n");
    let _ = space.run(["build"]).ok();
    space.write("t", "2\n").write("mine", "mine\n");
    let told = space.run(["-q", "build"]).ok().stderr;
    assert!(told.contains("left `lib/mine` among its outputs"), "{told}");
    space.write("in", "2\n");
    let _ = space.run(["build", "lib"]).ok();
    assert_eq!(space.shell("cat .rel/backup/*/lib/mine"), "mine\n");
}

#[test]
fn what_was_moved_aside_is_removed_after_a_while() {
    let space = built();
    for (heap, days) in [("recent", 29), ("old", 31)] {
        space.write(format!(".rel/backup/{heap}/f"), "mine\n");
        space.shell(&format!("touch -d '{days} days ago' .rel/backup/{heap}"));
    }
    space.remove("build/x");
    let told = space.run(["build"]).ok().stderr;
    assert!(
        told.contains("warning: 1 heap of files that had been moved"),
        "{told}"
    );
    assert_eq!(space.shell("ls .rel/backup"), "recent\n");
}

#[test]
fn a_mount_point_is_told() {
    let space = Space::new(r#"target "a" { outputs "out/"; run "mkdir -p out; echo x > out/x"; }"#);
    space.shell("mkdir out");
    let mount = "mount -t tmpfs tmpfs \"$WORK/out\"; echo mine > out/mine";
    let told = space.build_with_mounts(mount).ok().stderr;
    assert!(
        told.contains("`out/` of `a` is a mount point: it stays there"),
        "{told}"
    );
    assert_eq!(aside(&space), [("out/mine".into(), "mine\n".into())]);
    // A file cannot be replaced there.
    space.write(
        "Releasefile.kdl",
        r#"target "a" { outputs "f"; run "echo x > f"; }"#,
    );
    space.write("f", "").write("g", "");
    let told = space.build_with_mounts("mount --bind g f").fails(1).stderr;
    assert!(told.contains("help: something is mounted there"), "{told}");
}
