//! Times that lie, links, and what is remembered.

#![expect(clippy::disallowed_methods, reason = "ages are relative to now")]

use super::*;
use std::fs::{File, FileTimes, write};
use std::time::{Duration, SystemTime};

struct Space {
    dir: tempfile::TempDir,
}

impl Space {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn digests(&self) -> FileHasher {
        FileHasher::load(self.dir.path(), self.dir.path().join("stat"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn digest(digests: &FileHasher, name: &str) -> Option<Digest> {
    digests
        .digest_input(&RepoPath::new(name))
        .expect("reads")
        .map(|c| c.digest)
}

#[test]
fn an_old_file_is_read_once() {
    let space = Space::new();
    write(space.path("f"), "one").expect("writes");
    std::thread::sleep(Duration::from_millis(50));
    let digests = space.digests();
    assert_eq!(digest(&digests, "f"), Some(Digest::of(b"one")));
    digests.save().expect("saves");
    let again = space.digests();
    assert_eq!(digest(&again, "f"), Some(Digest::of(b"one")));
    assert_eq!(again.counters.files_hashed.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_of_this_very_tick_is_read_again() {
    let space = Space::new();
    write(space.path("f"), "one").expect("writes");
    let digests = space.digests();
    digest(&digests, "f");
    digests.save().expect("saves");
    let again = space.digests();
    assert_eq!(digest(&again, "f"), Some(Digest::of(b"one")));
    assert_eq!(again.counters.files_hashed.load(Ordering::Relaxed), 1);
}

#[test]
fn same_size_and_time_but_other_content_is_seen() {
    let space = Space::new();
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let set_time = || {
        let file = File::options()
            .write(true)
            .open(space.path("f"))
            .expect("opens");
        file.set_times(FileTimes::new().set_modified(hour_ago))
            .expect("sets");
    };
    write(space.path("f"), "one").expect("writes");
    set_time();
    std::thread::sleep(Duration::from_millis(50));
    let digests = space.digests();
    digest(&digests, "f");
    digests.save().expect("saves");
    write(space.path("f"), "two").expect("writes");
    set_time();
    assert_eq!(digest(&space.digests(), "f"), Some(Digest::of(b"two")));
}

#[test]
fn a_link_counts_with_what_it_leads_to() {
    let space = Space::new();
    write(space.path("f"), "one").expect("writes");
    std::os::unix::fs::symlink("f", space.path("l")).expect("links");
    let before = digest(&space.digests(), "l");
    write(space.path("f"), "two").expect("writes");
    assert_ne!(digest(&space.digests(), "l"), before);
    let output = space
        .digests()
        .digest_output(&RepoPath::new("l"))
        .expect("reads");
    assert_eq!(output.map(|c| c.digest), Some(Digest::of(b"f")));
}

#[test]
fn big_and_small_files_hash_like_blake3() {
    for size in [0usize, 1, 65_536, 65_537, 9_000_000] {
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        assert_eq!(hash_reader(&bytes[..]).expect("reads"), Digest::of(&bytes));
    }
}

#[test]
fn a_torn_cache_file_is_an_empty_one() {
    let space = Space::new();
    write(space.path("f"), "one").expect("writes");
    write(space.path("stat"), "rubbish").expect("writes");
    assert_eq!(digest(&space.digests(), "f"), Some(Digest::of(b"one")));
}

/// Since Linux 6.13 a change time is a fine one where the former one was asked for.
#[test]
fn what_was_written_before_is_older_than_a_start() {
    let space = Space::new();
    let changed = |name: &str| {
        let meta = std::fs::metadata(space.path(name)).expect("is there");
        Signature::of(&meta).ctime_ns
    };
    for _ in 0..100 {
        for text in ["one", "two"] {
            write(space.path("before"), text).expect("writes");
            changed("before");
        }
        let start = space.digests().start();
        write(space.path("after"), "one").expect("writes");
        assert!(changed("before") < start.ns);
        assert!(changed("after") >= start.ns);
    }
}

#[test]
fn a_whole_second_stands_for_all_of_it() {
    let second: i64 = 1_000_000_000;
    let at = |ns| Signature {
        size: 0,
        mtime_ns: 0,
        ctime_ns: 1_700_000_000 * second + ns,
        inode: 0,
        device: 0,
        mode: 0,
    };
    let clock = |ns| at(ns).ctime_ns;
    assert!(is_racy_since(&at(0), clock(450_000_000)));
    assert!(is_racy_since(&at(0), clock(2 * second)));
    assert!(!is_racy_since(&at(0), clock(3 * second)));
    assert!(!is_racy_since(&at(4_000_000), clock(450_000_000)));
}
