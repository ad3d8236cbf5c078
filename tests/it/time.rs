//! Time stamps that say nothing, or lie: a build must see every edit whatever the clock says.
//!
//! Each test builds, makes one edit that a time stamp hides, and builds again. Between the two,
//! files are given the time to look settled, so that what is remembered of them is trusted.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, SystemTime};

use crate::space::Space;

const HOUR: Duration = Duration::from_secs(3600);

/// A target that reads a file, and one that reads whatever lies in a directory.
fn space() -> Space {
    let space = Space::new(
        r#"
target "file" { inputs "in"; outputs "out/file"; run "cp" "in" "{out}" }
target "all" { inputs "src/**"; outputs "out/all"; run "cat {in} > {out}" }
"#,
    );
    space.write("in", "one\n").write("src/a", "one\n");
    settle(&space);
    space
}

/// Builds until all that was looked at is older than a tick of the clock.
fn settle(space: &Space) {
    let _ = space.build([]).ok();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(50));
        let _ = space.build([]).ok().is("all fresh, file fresh");
    }
}

fn set_time(space: &Space, path: &str, time: SystemTime) {
    let file = File::open(space.path(path)).expect("opens");
    file.set_modified(time).expect("sets");
}

fn time_of(space: &Space, path: &str) -> SystemTime {
    let meta = fs::metadata(space.path(path)).expect("is there");
    meta.modified().expect("has a time")
}

/// Builds and expects the input to have arrived, and nothing to be left to do.
#[track_caller]
fn arrives(space: &Space, text: &str) {
    let _ = space.build([]).ok();
    assert_eq!(space.read("out/file"), text);
    let _ = space.build([]).ok().is("all fresh, file fresh");
}

#[test]
fn edited_within_the_tick_it_was_built_in() {
    let space = space();
    for round in 0..30 {
        // Equal sizes, and as fast as can be.
        let text = format!("{:04}\n", round * 7);
        space.write("in", &text);
        let _ = space.build([]).ok();
        assert_eq!(space.read("out/file"), text);
        let text = format!("{:04}\n", round * 7 + 1);
        space.write("in", &text);
        arrives(&space, &text);
    }
}

#[test]
fn edited_with_its_time_set_back() {
    let space = space();
    let before = time_of(&space, "in");
    space.write("in", "two\n");
    set_time(&space, "in", before);
    arrives(&space, "two\n");
}

#[test]
fn a_time_of_long_ago_and_one_that_is_yet_to_come() {
    let space = space();
    let now = SystemTime::now();
    for (n, time) in [
        SystemTime::UNIX_EPOCH,
        now - HOUR,
        now + HOUR,
        now + 9000 * HOUR,
    ]
    .into_iter()
    .enumerate()
    {
        for text in [format!("{n}a\n"), format!("{n}b\n")] {
            space.write("in", &text);
            set_time(&space, "in", time);
            arrives(&space, &text);
            std::thread::sleep(Duration::from_millis(30));
            let _ = space.build([]).ok().is("all fresh, file fresh");
        }
    }
}

#[test]
fn a_change_time_that_is_yet_to_come() {
    // A clock that was set back after the file was written: nobody can set a change time, so
    // the file gets the time and what is remembered must not be believed because of it.
    let space = space();
    set_time(&space, "in", SystemTime::now() + HOUR);
    for text in ["two\n", "six\n", "ten\n"] {
        let time = time_of(&space, "in");
        space.write("in", text);
        set_time(&space, "in", time);
        arrives(&space, text);
    }
}

#[test]
fn copied_with_its_time() {
    let space = space();
    space.write("other", "two\n");
    set_time(&space, "other", time_of(&space, "in"));
    space.shell("cp -p other in");
    arrives(&space, "two\n");
    settle(&space);
    space.write("other", "six\n");
    set_time(&space, "other", time_of(&space, "in") - HOUR);
    space.shell("cp -p other in");
    arrives(&space, "six\n");
}

#[test]
fn checked_out_from_another_branch_and_back() {
    let space = space();
    space.write(".gitignore", "out/\n.rel/\n");
    space.shell("git init -q; git add -A; git commit -qm one; git checkout -qb other; echo two > in; git commit -qam two");
    for _ in 0..3 {
        arrives(&space, "two\n");
        space.shell("git checkout -q main");
        arrives(&space, "one\n");
        space.shell("git checkout -q other");
    }
    space.shell("echo six > in; git stash -q");
    arrives(&space, "two\n");
    space.shell("git stash pop -q");
    arrives(&space, "six\n");
}

#[test]
fn replaced_by_an_older_file() {
    let space = space();
    space.write("other", "two\n");
    set_time(&space, "other", time_of(&space, "in") - HOUR);
    fs::rename(space.path("other"), space.path("in")).expect("renames");
    arrives(&space, "two\n");
}

#[test]
fn swapped_with_a_file_of_equal_size_and_time() {
    let space = space();
    space.write("other", "two\n");
    set_time(&space, "other", time_of(&space, "in"));
    settle(&space);
    // Contents, sizes and times are old; only the names have moved.
    space.shell("mv in third; mv other in; mv third other");
    arrives(&space, "two\n");
}

#[test]
fn written_through_a_hard_link_with_its_time_set_back() {
    let space = space();
    fs::hard_link(space.path("in"), space.path("alias")).expect("links");
    settle(&space);
    let before = time_of(&space, "in");
    space.write("alias", "two\n");
    set_time(&space, "alias", before);
    arrives(&space, "two\n");
}

#[test]
fn written_through_a_memory_map() {
    let space = space();
    let before = time_of(&space, "in");
    space.shell(
        "python3 -c 'import mmap; f = open(\"in\", \"r+b\"); m = mmap.mmap(f.fileno(), 4); m[0:3] = b\"two\"; m.flush(); m.close()'",
    );
    set_time(&space, "in", before);
    arrives(&space, "two\n");
}

#[test]
fn a_directory_whose_time_is_set_back() {
    let space = space();
    let before = time_of(&space, "src");
    space.write("src/b", "two\n");
    set_time(&space, "src", before);
    let _ = space.build([]).ok();
    assert_eq!(space.read("out/all"), "one\ntwo\n");
    settle(&space);
    let before = time_of(&space, "src");
    space.remove("src/a");
    set_time(&space, "src", before);
    let _ = space.build([]).ok();
    assert_eq!(space.read("out/all"), "two\n");
}

#[test]
fn a_directory_replaced_by_an_older_one() {
    let space = space();
    space.write("other/b", "six\n");
    for path in ["other", "other/b"] {
        set_time(&space, path, SystemTime::now() - HOUR);
    }
    settle(&space);
    space.shell("mv src gone; mv other src");
    let _ = space.build([]).ok();
    assert_eq!(space.read("out/all"), "six\n");
}

#[test]
fn a_link_led_elsewhere() {
    let space = Space::new(
        r#"target "file" { inputs "in"; outputs "out/file"; run "cp" "in" "{out}" }
target "all" { inputs "src/**"; outputs "out/all"; run "cat {in} > {out}" }"#,
    );
    space
        .write("a", "one\n")
        .write("b", "two\n")
        .write("src/a", "a");
    // All that can be equal is equal: sizes and times of both files and of the link's text.
    set_time(&space, "b", time_of(&space, "a"));
    symlink("a", space.path("in")).expect("links");
    settle(&space);
    fs::remove_file(space.path("in")).expect("removes");
    symlink("b", space.path("in")).expect("links");
    space.shell("touch -h -r a in");
    arrives(&space, "two\n");
    settle(&space);
    // What it leads to is edited in the same way.
    space.write("b", "six\n");
    set_time(&space, "b", time_of(&space, "a"));
    arrives(&space, "six\n");
}

#[test]
fn equal_in_size_and_both_times_of_the_file_that_was_there() {
    // Another file in place of the first: only the inode tells.
    let space = space();
    let before = fs::metadata(space.path("in")).expect("is there");
    space.write("in.new", "two\n");
    set_time(&space, "in.new", before.modified().expect("has a time"));
    fs::rename(space.path("in.new"), space.path("in")).expect("renames");
    let after = fs::metadata(space.path("in")).expect("is there");
    assert_eq!((before.len(), before.mtime()), (after.len(), after.mtime()));
    arrives(&space, "two\n");
}

#[test]
fn a_releasefile_edited_with_its_time_set_back() {
    let space = space();
    let before = time_of(&space, "Releasefile.kdl");
    let text = space.read("Releasefile.kdl").replace("src/**", "src/*a");
    space.write(
        "Releasefile.kdl",
        text.replace("\"cp\" \"in\"", "\"cp\" \"src/a\"")
            .replace("\"in\"; ", "\"src/a\"; "),
    );
    set_time(&space, "Releasefile.kdl", before);
    space.write("src/a", "two\n").write("src/b", "no\n");
    let _ = space.build([]).ok();
    assert_eq!(
        (space.read("out/file"), space.read("out/all")),
        ("two\n".into(), "two\n".into())
    );
}

#[test]
fn outputs_edited_with_their_time_set_back() {
    let space = space();
    let before = time_of(&space, "out/file");
    space.write("out/file", "two\n");
    set_time(&space, "out/file", before);
    arrives(&space, "one\n");
}

/// It needs rsync.
mod host_tests {
    use super::*;

    #[test]
    fn synchronised_with_its_time() {
        let space = space();
        space.write("other/in", "two\n");
        set_time(&space, "other/in", time_of(&space, "in") - HOUR);
        space.shell("rsync -t other/in in");
        arrives(&space, "two\n");
        settle(&space);
        // Time and size are equal: rsync must be told to look at contents, and writes in place.
        space.write("other/in", "six\n");
        set_time(&space, "other/in", time_of(&space, "in"));
        space.shell("rsync -t --checksum --inplace other/in in");
        arrives(&space, "six\n");
    }
}
