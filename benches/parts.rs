//! The parts, each beside what it is measured against: `cargo bench --bench parts`.
//!
//! | part | beside |
//! |---|---|
//! | a Releasefile of 10,000 targets, read and checked | the `kdl` crate's own parse of it |
//! | the compiled form of it, loaded | |
//! | 64 MiB hashed out of a file | the same out of memory, on one thread |
//! | the stat cache of 20,000 files, loaded and asked once | |

use std::collections::BTreeMap;
use std::io::Write;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use rel::build::digest::{Digest, FileHasher, hash_file};
use rel::build::model::Project;
use rel::build::releasefile::{self, LoadRequest};
use rel::core::fs::RepoPath;

fn main() {
    divan::main();
}

const TARGETS: usize = 10_000;
const LARGE: usize = 64 << 20;

/// Returns a directory with as many sources as targets, and the Releasefile that copies them.
fn copies() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = String::new();
    for i in 0..TARGETS {
        let (shard, number) = (i / 100, i);
        let source = dir.path().join(format!("src/{shard}/{number}"));
        if i % 100 == 0 {
            std::fs::create_dir_all(source.parent().expect("a parent")).expect("creates");
        }
        std::fs::write(source, format!("{i}\n")).expect("writes");
        text += &format!(
            "target \"t{i}\" {{\n    inputs \"src/{shard}/{number}\"\n    outputs \"out/{shard}/{number}\"\n    run \"cp\" \"src/{shard}/{number}\" \"{{out}}\"\n}}\n"
        );
    }
    std::fs::write(dir.path().join("Releasefile.kdl"), &text).expect("writes");
    (dir, text)
}

fn load(dir: &tempfile::TempDir) -> Project {
    let request = LoadRequest {
        root: dir.path().to_owned(),
        file: dir.path().join("Releasefile.kdl"),
        hosts_file: None,
        vars: BTreeMap::new(),
        check_recipes: &|_| Vec::new(),
    };
    match releasefile::load(&request) {
        Ok(loaded) => loaded.project,
        Err(_) => panic!("the Releasefile is sound"),
    }
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn releasefile_by_rel(bencher: Bencher) {
    let (dir, _) = copies();
    bencher.bench_local(|| load(&dir));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn releasefile_by_kdl(bencher: Bencher) {
    let (_dir, text) = copies();
    bencher.bench_local(|| kdl::KdlDocument::parse(black_box(&text)));
}

#[divan::bench(sample_count = 20)]
fn compiled_project(bencher: Bencher) {
    let (dir, _) = copies();
    let bytes = rel::core::storage::encode(&load(&dir)).expect("encodes");
    bencher.bench_local(|| rel::core::storage::decode::<Project>(black_box(&bytes)).is_some());
}

#[divan::bench(sample_count = 10)]
fn hash_of_a_file(bencher: Bencher) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&vec![7; LARGE]).expect("writes");
    bencher
        .counter(BytesCount::new(LARGE))
        .bench_local(|| hash_file(black_box(&file), LARGE as u64).expect("reads"));
}

#[divan::bench(sample_count = 10)]
fn hash_of_memory(bencher: Bencher) {
    let bytes = vec![7; LARGE];
    bencher
        .counter(BytesCount::new(LARGE))
        .bench_local(|| Digest::of(black_box(&bytes)));
}

#[divan::bench(sample_count = 10)]
fn stat_cache(bencher: Bencher) {
    let (dir, _) = copies();
    let file = dir.path().join("stat");
    let path = |i: usize| RepoPath::new(format!("src/{}/{i}", i / 100));
    let ask =
        |digests: &FileHasher, i: usize| digests.digest_input(&path(i)).expect("reads").is_some();
    // Longer than the time for which a new file may change again unseen.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let digests = FileHasher::load(dir.path(), file.clone());
    assert!((0..TARGETS).all(|i| ask(&digests, i)));
    digests.save().expect("saves");
    bencher.bench_local(|| ask(&FileHasher::load(dir.path(), file.clone()), 77));
}
