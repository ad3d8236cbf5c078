//! `.rel` damaged: each file cut short, flipped, emptied, replaced, removed. What is lost is
//! built or asked again; nothing fails and nothing stale is called fresh.

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::space::Space;

const RELEASEFILE: &str = r#"
var "suffix" "!"
target "a" { inputs "in.txt"; outputs "build/a"; run "cat in.txt > {out}; echo {suffix} >> {out}"; }
target "b" { needs "a"; outputs "build/b"; run "cat {a} {a} > {out}"; }
"#;

/// Damages one file of the state at a time and expects the next builds to be right.
fn damaged(damage: impl Fn(&PathBuf, &[u8])) {
    let space = Space::new(RELEASEFILE);
    space.write("in.txt", "0\n");
    let _ = space.build([]).ok();
    let entries = walkdir::WalkDir::new(space.path(".rel"))
        .into_iter()
        .flatten();
    let files: Vec<PathBuf> = entries
        .filter(|e| e.file_type().is_file())
        .map(|e| e.into_path())
        .collect();
    assert!(files.len() >= 4, "{files:?}");
    for (round, file) in files.iter().enumerate() {
        let bytes = fs::read(file).expect("reads");
        damage(file, &bytes);
        let what = file.display();
        // Damaged, and an input edited as well: stale must not pass for fresh.
        let text = format!("{}\n", round + 1);
        space.write("in.txt", &text);
        let _ = space.run(["status"]).ok();
        let _ = space.build([]).ok();
        let expected = format!("{text}!\n{text}!\n");
        assert_eq!(space.read("build/b"), expected, "{what}");
        let _ = space.build([]).ok().is("a fresh, b fresh");
        // Damaged alone: whatever is believed, the outputs are right.
        if file.exists() {
            let bytes = fs::read(file).unwrap_or_default();
            damage(file, &bytes);
        }
        let _ = space.build([]).ok();
        assert_eq!(space.read("build/b"), expected, "{what}");
        for question in ["list", "why", "hash", "log"] {
            let _ = space.run([question]).ok();
        }
    }
}

#[test]
fn cut_in_half() {
    damaged(|file, bytes| fs::write(file, &bytes[..bytes.len() / 2]).expect("writes"));
}

#[test]
fn flipped_in_the_middle() {
    damaged(|file, bytes| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x20;
        }
        fs::write(file, bytes).expect("writes");
    });
}

#[test]
fn flipped_in_the_length() {
    damaged(|file, bytes| {
        let mut bytes = bytes.to_vec();
        bytes.iter_mut().take(4).for_each(|b| *b = 0xff);
        fs::write(file, bytes).expect("writes");
    });
}

#[test]
fn emptied() {
    damaged(|file, _| fs::write(file, "").expect("writes"));
}

#[test]
fn removed() {
    damaged(|file, _| fs::remove_file(file).expect("removes"));
}

#[test]
fn filled_with_nonsense() {
    damaged(|file, _| fs::write(file, "rel1".repeat(1000)).expect("writes"));
}

#[test]
fn the_whole_directory_is_gone() {
    let space = Space::new(RELEASEFILE);
    space.write("in.txt", "in\n");
    let _ = space.build([]).ok();
    space.remove(".rel");
    space.build([]).ok().is("a restored, b restored");
}

#[test]
fn records_that_can_not_be_read_are_told_and_left_as_they_are() {
    let space = Space::new(RELEASEFILE);
    space.write("in.txt", "in\n");
    let _ = space.build([]).ok();
    // Stands for a disk or a server that gives an error just now.
    space.shell("mv .rel/records.v1 kept && mkdir .rel/records.v1");
    assert_snapshot!(space.run(["build"]).fails(1), @"
    --- stderr
    error: cannot read `[work]/.rel/records.v1`: is a directory
      help: it records the results of past runs: try again; if it stays unreadable, remove it, and targets are restored from the cache or run anew
    --- exit code 1
    ");
    let _ = space.run(["status"]).fails(1);
    space.shell("rmdir .rel/records.v1 && mv kept .rel/records.v1");
    let _ = space.build([]).ok().is("a fresh, b fresh");
    // The stat cache only saves reading.
    space.shell("rm .rel/stat.v1 && mkdir .rel/stat.v1 && touch in.txt");
    let _ = space.build([]).ok().is("a fresh, b fresh");
}
