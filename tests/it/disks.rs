//! Disks that are full or read-only, below the state, below the outputs and below everything:
//! a clear error, and the next run with a sound disk is right without any cleaning.

use crate::space::Space;

/// Two targets, one of them with half a megabyte to write.
fn space() -> Space {
    let space = Space::new(
        r#"
target "small" { inputs "in"; outputs "out/small"; run "cp" "in" "{out}" }
target "large" { inputs "in"; outputs "out/large"; run "cat in > {out}; head -c 500000 /dev/zero >> {out}" }
"#,
    );
    space
        .write("in", "one\n")
        .write("out/.keep", "")
        .write(".rel/.keep", "");
    space
}

/// Builds on the bad disk, which must fail and say why; then on a good one.
#[track_caller]
fn recovers(space: &Space, setup: &str, says: &str) {
    let output = space.build_with_mounts(setup).fails(1);
    assert!(output.stderr.contains("error: "), "{output}");
    assert!(output.stderr.contains(says), "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    let _ = space.build([]).ok();
    let text = space.read("in");
    assert_eq!(space.read("out/small"), text);
    let large = space.read("out/large");
    assert_eq!(
        (large.len(), &large[..text.len()]),
        (500_000 + text.len(), text.as_str())
    );
    let _ = space.build([]).ok().is("large fresh, small fresh");
    assert!(
        !space
            .run(["cache", "verify"])
            .ok()
            .stdout
            .contains("corrupt")
    );
}

/// As often as it is done: never built, something to run, something to restore.
fn recovers_always(setup: &str, says: &str) {
    let space = space();
    recovers(&space, setup, says);
    space.write("in", "two\n");
    recovers(&space, setup, says);
    space.remove("out/small").remove("out/large");
    recovers(&space, setup, says);
}

#[test]
fn no_space_for_the_state() {
    recovers_always(
        "mount -t tmpfs -o size=16k tmpfs \"$WORK/.rel\"; head -c 100000 /dev/zero > \"$WORK/.rel/full\" || true",
        "no space left on device",
    );
}

#[test]
fn no_space_for_the_outputs() {
    recovers_always(
        "mount -t tmpfs -o size=64k tmpfs \"$WORK/out\"",
        "`large` failed",
    );
}

#[test]
fn a_read_only_state() {
    recovers_always(
        "mount --bind \"$WORK/.rel\" \"$WORK/.rel\"; mount -o remount,bind,ro \"$WORK/.rel\"",
        "read-only file system",
    );
}

#[test]
fn read_only_outputs() {
    recovers_always(
        "mount --bind \"$WORK/out\" \"$WORK/out\"; mount -o remount,bind,ro \"$WORK/out\"",
        "ead-only file system",
    );
}

#[test]
fn everything_read_only() {
    recovers_always(
        "mount --bind \"$WORK\" \"$WORK\"; mount -o remount,bind,ro \"$WORK\"; cd \"$WORK\"",
        "read-only file system",
    );
}

#[test]
fn outputs_on_another_disk_are_restored() {
    let space = space();
    let _ = space.build([]).ok();
    let restored = space
        .build_with_mounts("mount -t tmpfs tmpfs \"$WORK/out\"")
        .ok();
    assert!(restored.stderr.contains("2 restored"), "{restored}");
}
