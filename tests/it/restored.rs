//! What comes back out of the cache is what was put there: permissions and holes.

use std::fs;

use crate::space::{REL, Space};

#[test]
fn permissions_come_back_and_are_never_wider() {
    for sandbox in ["off", "strict"] {
        let space = Space::new(&format!(
            r#"
sandbox "{sandbox}"
target "t" {{ outputs "o/" "key" "ro" "run"; run "mkdir -p o/private/below o/plain; echo 1 | tee key ro run o/plain/f o/private/below/f; chmod 700 o/private; chmod 600 key; chmod 444 ro; chmod 750 run" }}
"#
        ));
        let build = |mask: &str| {
            let mut shell = space.program("sh");
            let script = format!("umask {mask}; exec {REL} build");
            let _ = space.finish(shell.args(["-c", &script])).ok();
            space.shell("stat -c '%a %n' o o/p* o/plain/f o/private/below key ro run | tr '\n' ' '")
        };
        let made = "755 o 755 o/plain 700 o/private 644 o/plain/f 755 o/private/below 600 key 444 ro 750 run";
        assert_eq!(build("022"), made, "{sandbox}");
        for (mask, expected) in [
            ("022", made),
            ("000", made),
            (
                "077",
                "700 o 700 o/plain 700 o/private 600 o/plain/f 700 o/private/below 600 key 400 ro 700 run",
            ),
        ] {
            space.shell("rm -rf o key ro run");
            assert_eq!(build(mask), expected, "{sandbox}, {mask}");
        }
        // Whoever made it with a closer mask meant nobody else to read it.
        space.shell("rm -rf o key ro run .rel ../cache");
        let closed = build("077");
        space.shell("rm -rf o key ro run");
        assert_eq!(build("022"), closed, "{sandbox}");
    }
}

/// What tools keep in an output directory is not taken off a stage, whoever may read it there.
#[test]
fn closed_directories_that_are_excluded_are_no_part_of_a_result() {
    let space = Space::new(
        r#"target "t" { sandbox "strict"; outputs "o/" "!**/__pycache__/**"; run "mkdir -p o/__pycache__; echo > o/__pycache__/a; echo > o/f" }"#,
    );
    let script = format!("umask 077; exec {REL} build");
    let _ = space.finish(space.program("sh").args(["-c", &script])).ok();
    assert!(space.has("o/f") && !space.has("o/__pycache__"));
}

/// One that nobody may write to could not be emptied, by whoever is not root.
#[test]
fn a_directory_stays_open_to_its_owner() {
    let space = Space::new(
        r#"target "t" { outputs "o/"; run "mkdir -p o/d; echo > o/d/f; chmod 555 o/d" }"#,
    );
    space.build([]).ok().is("t ran");
    space.shell("rm -rf o");
    space.build([]).ok().is("t restored");
    assert_eq!(space.shell("stat -c %a o/d").trim(), "755");
}

/// Images of disks have holes.
#[test]
fn sparse_files_stay_sparse() {
    use std::os::unix::fs::MetadataExt;
    let space = Space::new(
        r#"target "t" { outputs "disk"; run "truncate -s 64M disk; echo end >> disk" }"#,
    );
    space.build([]).ok().is("t ran");
    space.remove("disk");
    space.build([]).ok().is("t restored");
    let meta = fs::metadata(space.path("disk")).expect("asks");
    assert_eq!(meta.len(), (64 << 20) + 4);
    let used = meta.blocks() * 512;
    assert!(used < 1 << 20, "{used} bytes");
    let cached: u64 = walkdir::WalkDir::new(space.cache())
        .into_iter()
        .map(|entry| entry.expect("lists").metadata().expect("asks").blocks() * 512)
        .sum();
    assert!(cached < 1 << 20, "{cached} bytes");
}
