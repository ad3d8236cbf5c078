//! Commands that cheat: each reads or writes what its target does not declare, and none gets
//! a result into the records or the cache by it.
//!
//! The table says what catches each of them. `fails` is an error of the target, `hidden` a
//! command that may go on because it was told that there is nothing: its result then does
//! not depend on what it was after, which is tried by changing that.

use std::os::unix::fs::PermissionsExt;

use crate::space::{Space, wait_until};

/// What must come of a command that cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caught {
    /// The target fails; the error has this text.
    Fails(&'static str),
    /// It succeeds without what it was after.
    Hidden,
}
use Caught::{Fails, Hidden};

/// Name, command and what catches it. `[work]` is the checkout, `[space]` the directory that
/// holds it, `[home]` the home of the person.
const CHEATS: &[(&str, &str, Caught)] = &[
    // Reading.
    (
        "directly",
        "cat secret.txt > {out}",
        Fails("add `inputs \"secret.txt\"`"),
    ),
    (
        "upwards",
        "cat ../secret.txt > {out}",
        Fails("add `inputs \"../secret.txt\"`"),
    ),
    (
        "by-detour",
        "cat sub/../secret.txt > {out}",
        Fails("add `inputs \"secret.txt\"`"),
    ),
    (
        "by-absolute-path",
        "cat [work]/secret.txt > {out}",
        Fails("add `inputs \"secret.txt\"`"),
    ),
    (
        "through-a-declared-link-to-a-directory",
        "cat way/secret.txt > {out}",
        Fails("reads `sub/secret.txt`"),
    ),
    (
        "through-a-new-link",
        "ln -s [work]/secret.txt l; cat l > {out}; rm l",
        Fails("reads `secret.txt`"),
    ),
    (
        "by-hard-link",
        "ln [work]/secret.txt {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "in-a-child",
        "sh -c 'sh -c \"cat secret.txt\"' > {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "in-an-orphan",
        "(setsid sh -c 'cat [work]/secret.txt > {out}; echo > $TMPDIR/end' &); while ! test -s $TMPDIR/end; do sleep 0.01; done",
        Hidden,
    ),
    (
        "in-a-static-program",
        "busybox cat [work]/secret.txt > {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "by-map",
        "python3 -c 'import mmap,os; f=os.open(\"[work]/secret.txt\",0); print(mmap.mmap(f,0,prot=1)[:])' > {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "by-own-root",
        "cat /proc/self/root[work]/secret.txt > {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "by-own-directory",
        "(cd [work]; cat /proc/self/cwd/secret.txt) > {out}",
        Fails("reads `secret.txt`"),
    ),
    (
        "by-parent-directory",
        "cat /proc/$PPID/cwd/secret.txt > {out}",
        Fails("secret.txt"),
    ),
    (
        "by-descriptor",
        "exec 3< [work]/; cat /dev/fd/3/secret.txt > {out}",
        Fails("lists `./`"),
    ),
    (
        "by-asking",
        "test -e [work]/secret.txt && echo there > {out} || echo none > {out}",
        Hidden,
    ),
    (
        "by-asking-nearby",
        "test -e secret.txt && echo there > {out} || echo none > {out}",
        Hidden,
    ),
    (
        "by-size",
        "stat -c %s secret.txt sub/secret.txt > {out} 2>&1 || true",
        Hidden,
    ),
    ("by-listing", "ls > {out}", Hidden),
    (
        "by-searching",
        "find . [work] -name '*.txt' > {out} 2>/dev/null || true",
        Hidden,
    ),
    (
        "in-spite-of-errors",
        "cat secret.txt > {out} 2>/dev/null || true",
        Hidden,
    ),
    (
        "out-of-the-environment",
        "printenv SECRET > {out} || echo none > {out}",
        Hidden,
    ),
    (
        "out-of-the-environment-of-rel",
        "tr '\\0' '\\n' < /proc/$PPID/environ | grep SECRET > {out}",
        Fails("cannot open"),
    ),
    (
        "by-a-link-to-the-environment-of-rel",
        "ln -s /proc/$PPID/environ l; cat l > {out}",
        Fails("No such file"),
    ),
    (
        "out-of-the-home",
        "cat ~/.secret [home]/.secret > {out}",
        Fails("reads `[space]/home/.secret`"),
    ),
    (
        "out-of-the-settings-of-git",
        "git config --global user.email > {out} || true",
        Hidden,
    ),
    (
        "out-of-the-state-of-rel",
        "cat [work]/.rel/records.v1 > {out}",
        Fails("reads `.rel/records.v1`"),
    ),
    (
        "out-of-another-target",
        "cat out/made > {out}",
        Fails("add `needs \"made\"`"),
    ),
    (
        "out-of-a-shared-directory",
        "cat [space]/loose > {out}",
        Fails("reads `[space]/loose`"),
    ),
    ("by-running", "./tool > {out}", Fails("`tool`")),
    // Writing.
    (
        "beside-the-output",
        "echo x > {out}; echo y > out/beside",
        Fails("add `outputs \"out/beside\"`"),
    ),
    (
        "elsewhere-in-the-tree",
        "echo x > {out}; echo y > sub/new",
        Fails("add `outputs \"sub/new\"`"),
    ),
    (
        "into-an-input",
        "echo x > {out}; echo y > in.txt",
        Fails("changed `in.txt`"),
    ),
    (
        "onto-an-input",
        "echo x > {out}; echo y >> in.txt",
        Fails("changed `in.txt`"),
    ),
    (
        "by-touching-an-input",
        "touch in.txt; echo x > {out}",
        Fails("changed `in.txt`"),
    ),
    (
        "by-truncating-an-input",
        "truncate -s 0 in.txt; echo x > {out}",
        Fails("changed `in.txt`"),
    ),
    (
        "by-mode-of-an-input",
        "chmod 600 in.txt; echo x > {out}",
        Fails("changed `in.txt`"),
    ),
    (
        "by-removing-an-input",
        "rm in.txt; echo x > {out}",
        Fails("removed `in.txt`"),
    ),
    (
        "by-renaming-an-input",
        "mv in.txt {out}",
        Fails("removed `in.txt`"),
    ),
    (
        "into-the-real-input",
        "echo x > {out}; echo y > [work]/in.txt",
        Fails("writes `in.txt`"),
    ),
    (
        "by-mode-of-the-real-input",
        "chmod 600 [work]/in.txt; echo x > {out}",
        Fails("name it relative"),
    ),
    (
        "by-times-of-the-real-input",
        "touch -d 2001-01-01 [work]/in.txt; echo x > {out}",
        Fails("writes `in.txt`"),
    ),
    (
        "by-removing-the-real-input",
        "rm -f [work]/in.txt; echo x > {out}",
        Fails("writes `in.txt`"),
    ),
    (
        "onto-another-output",
        "echo x > {out}; echo y > out/made",
        Fails("wrote `out/made`"),
    ),
    (
        "into-a-shared-directory",
        "echo x > {out}; echo y > [space]/loose",
        Fails("writes `[space]/loose`"),
    ),
    (
        "into-the-home",
        "echo x > {out}; echo y > [home]/.secret",
        Fails("writes `[space]/home/.secret`"),
    ),
    (
        "by-renaming-out",
        "echo x > {out}; echo y > y; mv y [space]/loose",
        Fails("writes `[space]/loose`"),
    ),
    (
        "by-a-link-out",
        "ln -s [space] l; echo y > l/loose; echo x > {out}",
        Fails("writes `[space]/loose`"),
    ),
    (
        "by-an-output-that-is-a-link-to-the-stage",
        "ln -s \"$PWD/in.txt\" {out}",
        Fails("a link to its sandbox"),
    ),
    (
        "later",
        "echo x > {out}; (setsid sh -c 'sleep 30; echo late >> out/r.later' &)",
        Fails("left a process behind"),
    ),
    (
        "later-through-an-open-file",
        "exec 4> {out}; echo x >&4; setsid sleep 30 &",
        Fails("left a process behind"),
    ),
];

fn filled(space: &Space, text: &str) -> String {
    let base = space.base().display().to_string();
    text.replace("[work]", &format!("{base}/work"))
        .replace("[home]", &format!("{base}/home"))
        .replace("[space]", &base)
}

/// Returns a space with a target for each cheat, and what they are after.
fn cheaters() -> Space {
    let mut text = String::from("sandbox \"strict\"\n");
    text.push_str("target \"made\" { outputs \"out/made\"; run \"echo made > {out}\" }\n");
    let space = Space::empty();
    for (name, command, _) in CHEATS {
        let command = filled(&space, command);
        text.push_str(&format!(
            "target \"{name}\" {{\n    inputs \"in.txt\" \"way\"\n    outputs \"out/r.{name}\"\n    run #\"{command}\"#\n}}\n"
        ));
    }
    space.write("Releasefile.kdl", text);
    space
        .write("in.txt", "in\n")
        .write("tool", "#!/bin/sh\necho tool\n");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(space.path("tool"), mode).expect("sets");
    space.write("sub/in.txt", "in\n");
    std::os::unix::fs::symlink("sub", space.path("way")).expect("links");
    secrets(&space, "one");
    space
}

/// Changes everything that the cheats are after.
fn secrets(space: &Space, word: &str) {
    for path in [
        "secret.txt",
        "sub/secret.txt",
        "../secret.txt",
        "../loose",
        "../home/.secret",
    ] {
        space.write(path, format!("{word}\n"));
    }
    space.write(
        "../home/.gitconfig",
        format!("[user]\nemail = {word}@example.org\n"),
    );
    if word == "two" {
        space
            .remove("secret.txt")
            .remove("../loose")
            .write("another.txt", "");
    }
}

/// Returns what was reported of a target's failure: the error and the lines that belong to it.
fn error_of(told: &str, target: &str) -> String {
    let start = format!("error: `{target}` ");
    let mut lines = told.lines().skip_while(|l| !l.starts_with(&start));
    let first = lines.next().unwrap_or_default().to_owned();
    let rest = lines.take_while(|l| l.starts_with(' '));
    rest.fold(first, |text, line| text + "\n" + line)
}

/// Returns what the cheats would have changed: each file with its mode and time.
fn tree(space: &Space) -> Vec<String> {
    let listed = space.shell(
        "find . .. -path ../cache -prune -o -path '*/.rel' -prune -o -path './out' -prune \
         -o -path ../work/out -prune -o -type f -printf '%p %m %T@ %s\\n' | sort",
    );
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn no_cheat_gets_a_result_kept() {
    assert!(CHEATS.len() >= 30);
    let space = cheaters();
    let _ = space.run(["build", "made"]).ok();
    let before = tree(&space);
    let build = |args: &[&str]| {
        let mut rel = space.rel(["build", "-k"].iter().chain(args));
        space.finish(rel.env("SECRET", "one"))
    };
    let first = build(&[]).fails(1);
    let mut wrong = Vec::new();
    for (name, _, caught) in CHEATS {
        let error = error_of(&first.stderr, name);
        let is_as_told = match caught {
            Fails(text) => error.contains(text) && !space.has(format!("out/r.{name}")),
            Hidden => error.is_empty() && space.has(format!("out/r.{name}")),
        };
        if !is_as_told {
            wrong.push(format!("{name}: {caught:?}, but: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(tree(&space), before);
    assert!(!space.has("out/beside"));
    assert_eq!(space.read("out/made"), "made\n");

    // What was hidden changes; no hidden result does. What failed is tried again.
    let hidden: Vec<&str> = CHEATS
        .iter()
        .filter(|c| c.2 == Hidden)
        .map(|c| c.0)
        .collect();
    let results = |space: &Space| -> Vec<String> {
        let result = |name: &&str| space.read(format!("out/r.{name}"));
        hidden.iter().map(result).collect()
    };
    let found = results(&space);
    secrets(&space, "two");
    let again = space.build(["-k"]);
    for (name, _, caught) in CHEATS {
        let expected = if *caught == Hidden { "fresh" } else { "failed" };
        assert_eq!(again.how(name), expected, "{name}");
    }
    let _ = build(&[&["--force"], hidden.as_slice()].concat()).ok();
    assert_eq!(results(&space), found);
}

#[test]
fn a_process_left_behind_is_ended() {
    let space = Space::new(
        r#"
target "t" {
    sandbox "strict"
    outputs "o"
    run "echo x > {out}; setsid sh -c 'echo $$ > $TMPDIR/pid; sleep 60' & while ! test -s $TMPDIR/pid; do sleep 0.01; done; cat $TMPDIR/pid"
}
"#,
    );
    let told = space.run(["build"]).fails(1).stderr;
    let pid = told.lines().find_map(|l| l.trim().strip_prefix("printed"));
    let pid = pid.expect("a number").trim().to_owned();
    wait_until("the end", || (!crate::space::is_alive(&pid)).then_some(()));
}
