//! Files that others made: a Releasefile found upwards, a `.rel` that came along, a cache that
//! others may write to. They decide nothing, and lead nowhere.
//!
//! Two users take root, or a user namespace in which one is root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;

use crate::space::{Output, REL, Space};

fn as_root(space: &Space, script: &str) -> Output {
    space.finish(&mut space.by_root(script))
}

/// A target that tells when a question runs its command.
const ASKING: &str = r#"target "t" { tool "touch ran; echo 1"; run "true"; }"#;

/// A question or a build, by its arguments.
const COMMANDS: [&str; 10] = [
    "", "list", "status", "why", "hash", "plan", "build", "log", "check", "hosts",
];

#[test]
fn a_releasefile_of_another_user_is_not_taken_unasked() {
    let space = Space::new(ASKING);
    space.write("sub/deep/.keep", "");
    let _ = as_root(&space, "chown nobody Releasefile.kdl").ok();
    for command in COMMANDS {
        let output = as_root(&space, &format!("cd sub; \"$REL\" {command}")).fails(2);
        assert!(
            output.stderr.contains("belongs to user `nobody`"),
            "{output}"
        );
        assert!(!space.has("ran") && !space.has(".rel"), "{command}");
    }
    assert_snapshot!(as_root(&space, "\"$REL\"").fails(2), @"
    --- stderr
    error: `[work]/Releasefile.kdl` is not used: it belongs to user `nobody` (uid 65534), and its commands would run as you
      help: read it first; then name it (`rel -C [work] …`, or `-f`), or allow it once: rel trust [work]
    --- exit code 2
    ");
    // `-C` names what lies in that directory, not what lies above it.
    let _ = as_root(&space, "\"$REL\" -C sub/deep list").fails(2);
    assert!(!space.has("ran"));
    for named in ["-f Releasefile.kdl", "-C ."] {
        let _ = as_root(&space, &format!("\"$REL\" {named} build")).ok();
        assert!(space.has("ran"), "{named}");
        space.remove("ran");
        // That it was taken once, and is compiled, changes nothing.
        let _ = as_root(&space, "cd sub; \"$REL\" build").fails(2);
        assert!(!space.has("ran"), "{named}");
    }
    assert_snapshot!(as_root(&space, "\"$REL\" trust .").ok(), @"
    --- stderr
    rel: `[work]` is trusted
    ");
    let _ = as_root(&space, "cd sub; \"$REL\" build").ok();
    assert!(space.has("ran"));
    assert_snapshot!(as_root(&space, "\"$REL\" trust --list; \"$REL\" trust . ").ok(), @"
    [work]
    --- stderr
    rel: `[work]` is trusted already
    ");
    assert_snapshot!(as_root(&space, "\"$REL\" trust --remove .; \"$REL\" trust --list").ok(), @"
    --- stderr
    rel: `[work]` is no longer trusted
    ");
    let _ = as_root(&space, "\"$REL\" build").fails(2);
}

#[test]
fn every_file_that_a_project_is_made_of_counts() {
    for (name, foreign) in [
        ("the directory", "chown nobody ."),
        ("an include", "chown nobody more.kdl"),
        ("a recipe", "chown nobody recipes/r.kdl"),
        (
            "the end of a link",
            "mv Releasefile.kdl x.kdl; ln -s x.kdl Releasefile.kdl; chown nobody x.kdl",
        ),
        (
            "a link",
            "mv Releasefile.kdl x.kdl; ln -s x.kdl Releasefile.kdl; chown -h nobody Releasefile.kdl",
        ),
    ] {
        let space = Space::new(&format!("include \"more.kdl\"\n{ASKING}"));
        space.write("more.kdl", "");
        space.write(
            "recipes/r.kdl",
            "recipe \"r\" { step \"s\" { run \"true\"; }; }",
        );
        // What is compiled is as old as the owner it was compiled under.
        let _ = as_root(&space, "\"$REL\" build; rm ran").ok();
        let output = as_root(&space, &format!("{foreign}; \"$REL\" list")).fails(2);
        assert!(
            output.stderr.contains("belongs to user `nobody`"),
            "{name}: {output}"
        );
        assert!(!space.has("ran"), "{name}");
        let _ = as_root(&space, "\"$REL\" -C . list").ok();
        let _ = as_root(&space, "\"$REL\" list").fails(2);
        let _ = as_root(&space, "\"$REL\" trust .; \"$REL\" list").ok();
    }
}

#[test]
fn hosts_of_another_user_are_taken_where_they_are_named() {
    let space = Space::new("");
    space.write(
        "hosts.kdl",
        "host \"a\" local=#true root=\"h\"\ninclude \"more.kdl\"\n",
    );
    space.write("more.kdl", "");
    let _ = as_root(
        &space,
        "chown nobody hosts.kdl; \"$REL\" --hosts hosts.kdl check",
    )
    .ok();
    let _ = as_root(
        &space,
        "chown nobody more.kdl; \"$REL\" --hosts hosts.kdl check",
    )
    .fails(2);
}

#[test]
fn whoever_called_sudo_is_root_already() {
    let space = Space::new(ASKING);
    let script = "chown -R nobody .; export SUDO_UID=$(id -u nobody); \"$REL\" build";
    let _ = as_root(&space, script).ok();
    let _ = as_root(&space, "chown -R nobody .; \"$REL\" build").fails(2);
    let _ = as_root(&space, "SUDO_UID=$(id -u nobody) \"$REL\" build").ok();
    // What that user trusts, root does not.
    let script = "chown -R 1 .; \"$REL\" trust .; chown -R nobody \"$HOME/.local/state/rel\"; SUDO_UID=$(id -u nobody) \"$REL\" list";
    let output = as_root(&space, script).fails(2);
    assert!(output.stderr.contains("(uid 1)"), "{output}");
    let output = as_root(&space, "\"$REL\" trust .").fails(2);
    assert!(
        output.stderr.contains("is not used: it belongs to"),
        "{output}"
    );
}

#[test]
fn a_state_directory_of_another_user_is_not_used() {
    for (what, make) in [
        ("link", "mkdir ../other; ln -s ../other .rel"),
        ("link to nothing", "ln -s ../other .rel"),
        ("file", "touch .rel"),
        ("another's", "mkdir .rel; chown nobody .rel"),
        (
            "another's with contents",
            "\"$REL\" -q build; chown -R nobody .rel",
        ),
    ] {
        let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
        let _ = as_root(&space, make).ok();
        for command in COMMANDS {
            let output = as_root(&space, &format!("\"$REL\" {command}")).fails(2);
            assert!(
                output.stderr.contains(".rel` is not used: it "),
                "{what}: {output}"
            );
        }
        let other = space.base().join("other");
        let made = fs::read_dir(&other).map_or(0, Iterator::count);
        assert_eq!(made, 0, "{what}");
    }
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    assert_snapshot!(as_root(&space, "mkdir .rel; chown nobody .rel; \"$REL\"").fails(2), @"
    --- stderr
    error: `[work]/.rel` is not used: it belongs to user `nobody` (uid 65534)
      help: remove it, or work in a checkout of your own; if you know who writes there: rel trust [work]
    --- exit code 2
    ");
    // Somebody may know better: a file system may show all files as another's.
    let _ = as_root(&space, "\"$REL\" trust .; \"$REL\" build").ok();
    let built = as_root(&space, "chown -R nobody .rel; \"$REL\" --json build").ok();
    assert!(built.stdout.contains("\"t\": \"fresh\""), "{built}");
    // A link is nobody's file system.
    let output = as_root(&space, "rm -r .rel; ln -s .. .rel; \"$REL\" list").fails(2);
    assert!(output.stderr.contains("it is a symbolic link"), "{output}");
}

#[test]
fn a_state_directory_that_stays_open_is_told() {
    let space = Space::new(r#"target "t" { run "true"; }"#);
    let script =
        "mkdir -m 777 .rel; mount --bind .rel .rel; mount -o remount,bind,ro .rel; \"$REL\" build";
    let mut unshare = space.with_mounts(script);
    assert_snapshot!(space.finish(&mut unshare).fails(2), @"
    --- stderr
    error: `[work]/.rel` is not used: it may be written to by others (mode 0777)
      help: its file system keeps no modes; if you know who writes there: rel trust [work]
    --- exit code 2
    ");
}

/// Returns every file below a directory with its kind, mode, and content or link text.
fn tree(dir: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    let told = |entry: walkdir::DirEntry| {
        let path = entry.path();
        let meta = fs::symlink_metadata(path).expect("is there");
        let content = match meta.is_file() {
            true => fs::read_to_string(path).expect("reads"),
            false => String::new(),
        };
        format!("{} {:o} {content}", path.display(), meta.mode())
    };
    entries.map(|e| told(e.expect("lists"))).collect()
}

/// Everything that `rel` keeps below `.rel`, and more.
const KEPT: [&str; 18] = [
    ".gitignore",
    ".tmp-x",
    "backup",
    "fresh.v1",
    "graph.v1",
    "identity",
    "lock",
    "logs",
    "logs/LOG",
    "logs/e.log",
    "records.v1",
    "running",
    "sandbox",
    "sandbox/at-work",
    "sandbox/at-work/SLOT",
    "sandbox/kept",
    "sandbox/kept/1",
    "stat.v1",
];

/// Targets that use all of it.
const ALL_KINDS: &str = r#"
target "log" { inputs "in"; run "cat in"; }
target "strict" { inputs "in"; outputs "s/o"; sandbox "strict"; run "cat in > {out}"; }
target "aside" { inputs "in"; outputs "a"; run "cat in > {out}"; }
host "h" local=#true root="h"
environment "e" { use "r" on="h"; }
host "d" local=#true
environment "f" { use "w" on="d"; }
"#;

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn put(kind: &str, at: &Path, precious: &Path) {
    fs::create_dir_all(at.parent().expect("a parent")).expect("makes");
    match fs::symlink_metadata(at) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(at).expect("removes"),
        Ok(_) => fs::remove_file(at).expect("removes"),
        Err(_) => {}
    }
    match kind {
        "link to a file" => symlink(precious.join("file"), at).expect("links"),
        "link to a directory" => symlink(precious.join("dir"), at).expect("links"),
        "link to nothing" => symlink(precious.join("new"), at).expect("links"),
        "hard link" => fs::hard_link(precious.join("file"), at).expect("links"),
        "directory" => fs::create_dir(at).expect("makes"),
        "pipe" => {
            let made = Command::new("mkfifo").arg(at).status().expect("starts");
            assert!(made.success());
        }
        kind => unreachable!("{kind}"),
    }
}

/// A checkout beside files that are nobody's business.
fn beside_precious_files() -> (Space, PathBuf) {
    let space = Space::in_memory();
    space
        .write("Releasefile.kdl", ALL_KINDS)
        .write("in", "1\n")
        .write(
            "recipes/r.kdl",
            "recipe \"r\" { step \"s\" { run \"true\"; }; }",
        )
        .write(
            "recipes/w.kdl",
            "recipe \"w\" { step \"s\" { run \"echo >{host.root}/made\"; }; }",
        );
    let precious = space.base().join("precious");
    for file in [
        "file",
        "dir/file",
        "dir/.tmp-mine",
        "dir/at-work/x/y",
        "dir/kept/1",
        "dir/1",
    ] {
        let file = precious.join(file);
        fs::create_dir_all(file.parent().expect("a parent")).expect("makes");
        fs::write(file, "precious").expect("writes");
    }
    (space, precious)
}

/// What may stand in the place of a file or a directory.
const KINDS: [&str; 6] = [
    "link to a file",
    "link to a directory",
    "link to nothing",
    "hard link",
    "directory",
    "pipe",
];

#[test]
fn a_state_directory_that_came_along_leads_nowhere() {
    for kind in KINDS {
        let (space, precious) = beside_precious_files();
        let before = tree(&precious);
        for name in KEPT.iter().filter(|name| !name.contains('/')) {
            put(kind, &space.path(".rel").join(name), &precious);
        }
        let root = match kind {
            "link to a file" | "hard link" | "pipe" => "hosts",
            _ => "hosts/d",
        };
        put(kind, &space.path(".rel").join(root), &precious);
        for args in [
            &["list"][..],
            &["log"],
            &["f"],
            &["e"],
            &["build"],
            &["list"],
        ] {
            space.write("a", "by hand");
            let _ = space.run(args).ok();
            assert_eq!(tree(&precious), before, "{kind}, {args:?}");
        }
    }
}

#[test]
fn nothing_in_a_state_directory_leads_out_of_the_checkout() {
    for kind in KINDS {
        let (space, precious) = beside_precious_files();
        let before = tree(&precious);
        for name in KEPT {
            let name = name.replace("LOG", &hash("log")[..32]);
            let name = name.replace("SLOT", &hash("strict")[..16]);
            let _ = space.build([]).ok();
            put(kind, &space.path(".rel").join(&name), &precious);
            space.write("in", &name).write("a", "by hand");
            for args in [&["list"][..], &["log", "e", "--run"], &["build"], &["e"]] {
                let output = space.run(args);
                let is_told = [0, 1].contains(&output.code);
                assert!(is_told, "{kind} at {name}: {output}");
            }
            assert_eq!(tree(&precious), before, "{kind} at {name}");
            space.shell("rm -rf .rel");
        }
    }
}

#[test]
fn records_that_came_along_are_not_believed() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "o"; cache #false; run "cat in ../undeclared > {out}"; }"#,
    );
    space.write("in", "in\n");
    fs::write(space.base().join("undeclared"), "evil\n").expect("writes");
    let _ = space.build([]).ok();
    assert_eq!(space.read("o"), "in\nevil\n");
    fs::write(space.base().join("undeclared"), "good\n").expect("writes");
    let _ = space.build([]).ok().is("t fresh");
    // As an archive would have it: the same files, in another directory.
    space.shell("mv .rel ../kept; cp -a ../kept .rel");
    assert_snapshot!(space.run(["status"]).ok(), @"
      stale  t  never built here
    0 targets up to date, 1 not
    ");
    assert_snapshot!(space.run(["log", "t"]).ok(), @"");
    let _ = space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "in\ngood\n");
    let _ = space.build([]).ok().is("t fresh");
    // A directory that is moved is the same.
    space.shell("mv .rel ../kept2; mv ../kept2 .rel");
    let _ = space.build([]).ok().is("t fresh");
}

/// Returns what below a directory has one of these mode bits, links aside.
fn open_to_others(dir: &Path, bits: u32) -> Vec<String> {
    let entries = walkdir::WalkDir::new(dir).into_iter().flatten();
    let entries = entries.filter(|e| !e.path_is_symlink());
    let modes = entries.map(|e| {
        (
            e.metadata().expect("is there").mode() & 0o777,
            e.into_path(),
        )
    });
    let open = modes.filter(|(mode, _)| mode & bits != 0);
    open.map(|(mode, path)| format!("{mode:o} {}", path.display()))
        .collect()
}

#[test]
fn no_mask_opens_what_is_kept_to_others() {
    let space = Space::new(ALL_KINDS);
    space.write("in", "1\n").write("a", "by hand");
    space.write(
        "recipes/r.kdl",
        "recipe \"r\" { step \"s\" { run \"echo said\"; }; }",
    );
    space.write(
        "recipes/w.kdl",
        "recipe \"w\" { step \"s\" { run \"true\"; }; }",
    );
    let rel = format!("umask 000; {REL}");
    space.shell(&format!("{rel} build; {rel} e; {rel} trust ."));
    for kept in [".rel", "../cache", "../home/.local"] {
        let found = open_to_others(&space.path(kept), 0o077);
        // A sandbox has its inputs with their modes, and what is moved away keeps its own.
        let is_ours = |path: &&String| !path.contains("/kept/") && !path.ends_with("/a");
        let found: Vec<&String> = found.iter().filter(is_ours).collect();
        assert!(found.is_empty(), "{found:#?}");
        assert_eq!(open_to_others(&space.path(kept), 0o022), [""; 0]);
    }
    space.shell(&format!("rm -r s a; {rel} build"));
    for restored in ["s", "a"] {
        assert_eq!(open_to_others(&space.path(restored), 0o022), [""; 0]);
    }
}

#[test]
fn a_state_directory_that_others_could_write_to_is_closed() {
    let space = Space::new(r#"target "t" { cache #false; run "true"; }"#);
    let _ = space.build([]).ok().is("t ran");
    space.shell("chmod 775 .rel");
    assert!(
        space
            .run(["status"])
            .ok()
            .stdout
            .contains("never built here")
    );
    let _ = space.build([]).ok().is("t ran");
    let mode = space.path(".rel").metadata().expect("is there").mode();
    assert_eq!(mode & 0o777, 0o700);
    let _ = space.build([]).ok().is("t fresh");
}

#[test]
fn a_cache_that_others_may_write_to_is_not_used() {
    for part in ["", "/v1", "/v1/ac", "/v1/cas"] {
        let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
        let _ = space.build([]).ok();
        for (make, code) in [
            ("chmod g+w", 0),
            ("chmod g-w,o+w", 0),
            ("chmod o-w", 1),
            ("chown nobody", 0),
            ("chown root", 1),
        ] {
            let script = format!(
                "mkdir -p ../cache/v1/cas; {make} ../cache{part}; rm -r .rel o; \"$REL\" --json build"
            );
            let output = as_root(&space, &script).ok();
            let is_used = output.stdout.contains("\"t\": \"restored\"");
            assert_eq!(is_used, code == 1, "{make} {part}: {output}");
            let is_told = output.stderr.contains("is not used: it ");
            assert_eq!(is_told, code == 0, "{make} {part}: {output}");
        }
    }
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    let _ = space.build([]).ok();
    let script = "chmod 777 ../cache; rm -r .rel o; \"$REL\" build; \"$REL\" cache size";
    assert_snapshot!(as_root(&space, script).fails(2), @"
    --- stderr
    warning: continuing without the cache: `[space]/cache` is not used: it may be written to by others (mode 0777)
      help: if only you wrote to it: chmod -R go-w [space]/cache; if you know who else did: rel trust [space]/cache
         run t  never built here
        done t  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: `[space]/cache` is not used: it may be written to by others (mode 0777)
      help: if only you wrote to it: chmod -R go-w [space]/cache; if you know who else did: rel trust [space]/cache
    --- exit code 2
    ");
    let script = "\"$REL\" trust ../cache; rm -r .rel o; \"$REL\" --json build";
    let output = as_root(&space, script).ok();
    assert!(output.stdout.contains("\"t\": \"restored\""), "{output}");
}

#[test]
fn a_cache_in_a_directory_that_all_may_write_to_is_ones_own_or_none() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    space.shell("mkdir -m 1777 ../cache");
    let _ = space.build([]).ok();
    assert_eq!(open_to_others(&space.cache().join("v1"), 0o077), [""; 0]);
    let _ = space
        .remove(".rel")
        .remove("o")
        .build([])
        .ok()
        .is("t restored");
    let script = "chown -R nobody ../cache/v1; rm -r .rel o; \"$REL\" --json build";
    let output = as_root(&space, script).ok();
    let is_told = output
        .stderr
        .contains("cache/v1` is not used: it belongs to");
    assert!(
        is_told && output.stdout.contains("\"t\": \"ran\""),
        "{output}"
    );
}

#[test]
fn a_result_of_another_user_is_a_miss() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    let _ = space.build([]).ok();
    let script = "chown nobody ../cache/v1/ac/*/*; rm -r .rel o; \"$REL\" --json build";
    let output = as_root(&space, script).ok();
    assert!(
        output.stdout.contains("\"t\": \"ran\"") && !output.stderr.contains("warning"),
        "{output}"
    );
}

#[test]
fn the_users_own_link_leads_to_a_cache() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    space.shell("mkdir ../disk; ln -s disk ../cache");
    let _ = space.build([]).ok();
    space.remove(".rel").remove("o");
    let _ = space.build([]).ok().is("t restored");
    assert!(space.base().join("disk/v1").is_dir());
}

#[test]
fn a_cache_that_is_open_to_readers_is_read_by_others() {
    let space = Space::new(r#"target "t" { outputs "o"; run "head -c 9000 /dev/zero >{out}"; }"#);
    space.shell(&format!("mkdir -m 755 ../cache; umask 000; {REL} build"));
    assert_eq!(open_to_others(&space.cache(), 0o022), [""; 0]);
    // A user who may not write there, as on a build machine that is handed a cache of root's.
    let reader = r#"
        chmod 755 ..; cp -- "$REL" ../rel; mkdir ../mine ../own; cp Releasefile.kdl ../mine
        chown -R nobody ../mine ../own; cd ../mine
        export HOME=../own
        exec setpriv --reuid=nobody --clear-groups ../rel --json build
    "#;
    let output = as_root(&space, reader).ok();
    assert!(
        output.stdout.contains("\"t\": \"restored\"") && !output.stderr.contains("warning"),
        "{output}"
    );
}

#[test]
fn nothing_in_a_cache_is_waited_for() {
    let space = Space::new(
        r#"target "t" { inputs "in"; outputs "o" "l"; run "head -c 20000 /dev/zero >o; ln -s in l"; }"#,
    );
    space.write("in", "1\n");
    let _ = space.build([]).ok();
    let files: Vec<_> = walkdir::WalkDir::new(space.cache())
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(|e| e.into_path())
        .collect();
    assert_eq!(files.len(), 2);
    for file in &files {
        for make in [
            "mkfifo \"$1\"",
            "ln -s /dev/zero \"$1\"",
            "cp -a ../save \"$1\"; chmod +w \"$1\"; head -c 100 /dev/zero >>\"$1\"",
            "truncate -s 1T \"$1\"",
            "ln -s ../../../../save \"$1\"",
        ] {
            let script = format!("rm -rf .rel o l; mv \"$1\" ../save; {make}");
            let _ = space
                .finish(space.program("sh").args(["-euc", &script, "sh"]).arg(file))
                .ok();
            let _ = space.build([]).ok().is("t ran");
            let prune = ["cache", "prune", "--older-than", "900d"];
            for args in [&["cache", "size"][..], &["cache", "verify"], &prune] {
                let _ = space.run(args).ok();
            }
            let _ = space
                .finish(space.program("mv").arg("-fT").arg("../save").arg(file))
                .ok();
        }
    }
}

#[test]
fn nothing_that_is_read_is_waited_for() {
    let space = Space::empty();
    space.shell("mkfifo pipe; mkdir recipes");
    let releasefile = r#"
        target "d" { inputs "in"; outputs "o"; depfile "d.d"; run "mkfifo d.d; echo 1 >{out}"; }
        secret "s" file="pipe"
        host "h" local=#true root="h"
        environment "e" { use "r" on="h" word="s"; }
    "#;
    let recipe = r#"recipe "r" { param "word" type="secret"; step "s" { write "{host.root}/f" "{word}"; }; }"#;
    space
        .write("Releasefile.kdl", releasefile)
        .write("recipes/r.kdl", recipe)
        .write("in", "");
    for (args, code) in [
        (&["-f", "pipe", "list"][..], 2),
        (&["--hosts", "pipe", "list"], 2),
        (&["apply", "pipe"], 1),
        (&["approve", "pipe", "--reason", "x"], 1),
        (&["build"], 1),
        (&["e"], 2),
    ] {
        let output = space.run(args).fails(code);
        let is_told = output.stderr.contains("not a regular file")
            || output.stderr.contains("is not a regular file")
            || output.stderr.contains("there is no file");
        assert!(is_told, "{output}");
    }
    space.write("Releasefile.kdl", "include \"pipe\"\n");
    assert_snapshot!(space.run(["list"]).fails(2), @r#"
    --- stderr
    rel::build::releasefile::unreadable_include

      × cannot read `pipe`: it is not a regular file
       ╭─[Releasefile.kdl:1:9]
     1 │ include "pipe"
       ·         ───┬──
       ·            ╰── included here
       ╰────
    --- exit code 2
    "#);
    space
        .write("Releasefile.kdl", "")
        .shell("mv pipe recipes/p.kdl");
    let output = space.run(["list"]).fails(1);
    assert!(
        output.stderr.contains("it is not a regular file"),
        "{output}"
    );
}

#[test]
fn an_answer_without_commands_runs_none() {
    let space = Space::new(
        r#"
        project "p" { version (command)"touch ran; echo 1" }
        target "plain" { inputs "in"; run "cat in"; }
        target "stale" { inputs "in2"; run "cat in2"; }
        target "tool" { tool "touch ran; echo 1"; run "true"; }
        target "probe" { probe "touch ran; echo 1"; run "true"; }
        target "product" { run "true"; product "touch ran; echo 1"; }
        target "numbered" { run "echo {version}"; }
        target "after" { needs "tool"; run "true"; }
        target "both" { needs "tool" "stale"; run "true"; }
        "#,
    );
    space.write("in", "").write("in2", "");
    let _ = space.build([]).ok();
    space.write("in2", "new").remove("ran");
    assert_snapshot!(space.run(["list", "--no-commands"]).ok(), @"
      fresh  plain
      stale  stale
    unknown  tool
    unknown  probe
    unknown  product
    unknown  numbered
    unknown  after
    pending  both
    ");
    assert_snapshot!(space.run(["status", "--no-commands"]).ok(), @"
      stale  stale  input `in2` changed  af1349b9f5f9a1a6 0 B -> b20ab0a020a48d34 3 B
    unknown  tool  not asked: its tool `touch ran; echo 1`
    unknown  probe  not asked: its probe `touch ran; echo 1`
    unknown  product  not asked: its product `touch ran; echo 1`
    unknown  numbered  not asked: the version command `touch ran; echo 1`
    unknown  after  needs `tool`, which is unknown
    pending  both  needs `stale`, which is not up to date
    1 target up to date, 2 not, 5 unknown
    ");
    assert_snapshot!(space.run(["why", "--no-commands", "after", "numbered"]).ok(), @"
    unknown  tool
             not asked: its tool `touch ran; echo 1`
    unknown  numbered
             not asked: the version command `touch ran; echo 1`
    unknown  after
             needs `tool`, which is unknown
    ");
    assert_snapshot!(space.run(["plan", "--no-commands"]).ok(), @"
         run stale  input `in2` changed  af1349b9f5f9a1a6 0 B -> b20ab0a020a48d34 3 B
     unknown tool  not asked: its tool `touch ran; echo 1`
     unknown probe  not asked: its probe `touch ran; echo 1`
     unknown product  not asked: its product `touch ran; echo 1`
     unknown numbered  not asked: the version command `touch ran; echo 1`
     unknown after  needs `tool`, which is unknown
     may run both  needs `stale`, which is not up to date
    1 would run, 1 more if what they need changes, 1 up to date, 5 unknown
    ");
    let json = space.ask(["list", "--no-commands"]);
    assert!(
        json["targets"]
            .as_array()
            .expect("targets")
            .iter()
            .any(|t| t["state"] == "unknown")
    );
    assert!(!space.has("ran"));
    let _ = space.run(["list"]).ok();
    assert!(space.has("ran"));
}

#[test]
fn a_directory_for_temporary_files_that_can_not_be_used_is_replaced() {
    let space = Space::new(
        r#"
        target "t" { tool "echo 1"; outputs "o"; run "f=$(mktemp); cp \"$f\" {out}; echo \"$TMPDIR\""; }
        host "h" local=#true root="h"
        environment "e" { needs "t"; use "r" on="h"; }
        "#,
    );
    space.write(
        "recipes/r.kdl",
        "recipe \"r\" { step \"s\" { run \"true\"; }; }",
    );
    space.write("file", "");
    let missing = space.base().join("missing").display().to_string();
    let file = space.path("file").display().to_string();
    for (dir, is_told) in [(&missing, true), (&file, true), (&String::new(), false)] {
        for args in [&["list"][..], &["build", "--force"], &["e"]] {
            let output = space.finish(space.rel(args).env("TMPDIR", dir)).ok();
            let told = output.stderr.matches("warning: `TMPDIR` names").count();
            assert_eq!(told, usize::from(is_told), "{dir}: {output}");
            assert!(
                !output.stderr.contains("missing/") && !space.has("h/missing"),
                "{output}"
            );
        }
        assert_eq!(space.run(["log", "t"]).ok().stdout, "/tmp\n", "{dir}");
    }
    let quiet = space
        .finish(space.rel(["-q", "list"]).env("TMPDIR", &missing))
        .ok();
    assert_eq!(quiet.stderr, "");
    let told = space
        .finish(space.rel(["list"]).env("TMPDIR", &missing))
        .ok();
    assert_snapshot!(told.stderr, @"warning: `TMPDIR` names `[space]/missing`, which is not a directory that can be written to: temporary files go to `/tmp`");
}

#[test]
fn without_a_home_nothing_is_trusted_and_the_rest_works() {
    let space = Space::new(r#"target "t" { run "true"; }"#);
    let mut rel = space.rel(["trust", "."]);
    assert_snapshot!(space.finish(rel.env_remove("HOME")).fails(2), @"
    --- stderr
    error: there is no home directory to keep trust in
      help: set `XDG_STATE_HOME` or `HOME`
    --- exit code 2
    ");
    assert!(fs::set_permissions(space.path("."), fs::Permissions::from_mode(0o755)).is_ok());
    let _ = space.finish(space.rel(["list"]).env_remove("HOME")).ok();
}

#[test]
fn a_pipe_that_a_strict_command_left_is_not_copied_to_another_file_system() {
    let space =
        Space::new(r#"target "t" { outputs "out/p"; sandbox "strict"; run "mkfifo {out}"; }"#);
    let script = "mkdir out; mount -t tmpfs tmpfs out; exec \"$REL\" build";
    let mut unshare = space.with_mounts(script);
    let output = space.finish(&mut unshare).fails(1);
    let is_told = output.stderr.contains("out/p`: it is not a regular file");
    assert!(is_told, "{output}");
}

#[test]
fn nothing_is_kept_where_another_user_can_replace_it() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    space.write(
        "ssh",
        "#!/bin/sh\ncase \"$*\" in *-G*) echo hostname h; exit 0 ;; esac\n\
         printf '%s\\n' \"$*\" >>asked\nexit 255\n",
    );
    space.write("hosts.kdl", "host \"h\" ssh=\"h\" root=\"/srv\"\n");
    let script = "
        chmod 755 .. . ssh; mkdir home run private; chmod 700 run private; chown 1 home run
        ln -s ../private home/.cache; ln -s ../private home/.local; chown -h 1 home/.cache home/.local
        unset REL_CACHE_DIR XDG_CACHE_HOME XDG_STATE_HOME
        export HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/run REL_SSH=$PWD/ssh
        \"$REL\" build -q; \"$REL\" trust . || echo refused; ls -A private run
        \"$REL\" --hosts hosts.kdl hosts >/dev/null || :
        grep -o 'ControlPath=[^ ]*' asked | cut -d/ -f2 | sort -u
        # A directory of root's own is no better below one of the other user's.
        mkdir home/own; export HOME=$PWD/home/own; rm -r .rel o; \"$REL\" build -q; ls -A home/own";
    let output = as_root(&space, script);
    assert_eq!(
        output.stdout, "refused\nprivate:\n\nrun:\ntmp\n",
        "{output}"
    );
    let why = "home`, on the way to it, belongs to user `daemon`";
    assert_eq!(output.stderr.matches(why).count(), 3, "{output}");
}

#[test]
fn a_cache_of_another_user_is_not_pruned() {
    let space = Space::new(r#"target "t" { outputs "o"; run "echo 1 >{out}"; }"#);
    let script = "
        \"$REL\" build -q; chown -R nobody ../cache; \"$REL\" trust ../cache
        \"$REL\" cache size; \"$REL\" cache prune --max-size 0 || echo refused
        \"$REL\" cache verify || echo refused; find ../cache -type f | wc -l";
    let output = as_root(&space, script).ok();
    assert!(output.stdout.ends_with("refused\nrefused\n1\n"), "{output}");
}

#[test]
fn a_plan_brings_no_hosts_of_another_user() {
    let host = "host \"h\" local=#true root=\"h\"\n";
    let space = Space::new(&format!(
        "{host}environment \"e\" {{ use \"u\" on=\"h\"; }}\n"
    ));
    space.write(
        "recipes/u.kdl",
        "recipe \"u\" { step \"s\" { run \"true\"; }; }\n",
    );
    space.write("../evil/hosts.kdl", host);
    let save = [
        "e",
        "--hosts",
        "../evil/hosts.kdl",
        "--plan-out",
        "plan.json",
    ];
    let _ = space.run(save).ok();
    // That the Releasefile is named says nothing of that file.
    let script = "chown nobody ../evil/hosts.kdl
        for words in '' '-C .' '-f Releasefile.kdl'; do
            \"$REL\" $words apply plan.json --plan || echo \"$?\"
        done";
    let output = as_root(&space, script).ok();
    assert_eq!(output.stdout, "2\n2\n2\n", "{output}");
    let why = "evil/hosts.kdl`, which the plan names, belongs to user `nobody`";
    assert_eq!(output.stderr.matches(why).count(), 3, "{output}");
}
