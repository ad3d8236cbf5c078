//! The cache: what was made once is restored, by any checkout; whatever happens to the
//! cache never fails a build.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use insta::assert_snapshot;

use crate::space::Space;

const UPPER: &str = r#"
target "upper" {
    inputs "in.txt"
    outputs "build/out.txt" "build/tree/"
    run "tr a-z A-Z < in.txt > build/out.txt; mkdir -p build/tree/empty; seq 2000 > build/tree/large; ln -sf ../out.txt build/tree/link; printf '#!/bin/sh\n' > build/tree/run; chmod +x build/tree/run; echo made; echo ran >> log"
}
target "size" { needs "upper"; outputs "build/size"; run "wc -c < build/out.txt > {out}; echo ran >> log"; }
"#;

fn upper() -> Space {
    let space = Space::new(UPPER);
    space.write("in.txt", "hello\n");
    space.build([]).ok().is("size ran, upper ran");
    space
}

#[test]
fn deleted_outputs_are_restored_with_their_log() {
    let space = upper();
    space.remove("build");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
    restored upper  output `build/out.txt` is missing  (and 4 more)
    restored size  output `build/size` is missing
    rel: 2 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(space.run(["log", "upper"]).ok().stdout, "made\n");
    assert_eq!(space.read("build/tree/link"), "HELLO\n");
    assert!(space.path("build/tree/empty").is_dir());
    let mode = fs::metadata(space.path("build/tree/run"))
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o111, 0o111);
    // Files of the cache are read-only; what was restored is the person's own.
    let mode = fs::metadata(space.path("build/out.txt"))
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o200, 0o200);
    assert_eq!(
        space
            .build([])
            .ok()
            .is("size fresh, upper fresh")
            .processes(),
        0
    );
    assert_snapshot!(space.run(["log", "upper"]).ok(), @"made");
    assert_eq!(space.lines("log").len(), 2);
}

#[test]
fn another_branch_and_back_runs_nothing() {
    let space = upper();
    space.write(".gitignore", "build/\nlog\n");
    space.shell("git init -q; git add -A; git commit -qm one; git checkout -qb other; echo more >> in.txt; git commit -qam two");
    space.build([]).ok().is("size ran, upper ran");
    space.shell("git checkout -q main");
    let told = space.build([]).ok().is("size restored, upper restored");
    assert_eq!(told.processes(), 0);
    space.shell("git checkout -q other");
    let told = space.build([]).ok().is("size restored, upper restored");
    assert_eq!(told.processes(), 0);
    assert_eq!(space.read("build/out.txt"), "HELLO\nMORE\n");
}

#[test]
fn two_checkouts_share_results() {
    let space = upper();
    space.shell("mkdir other; cp Releasefile.kdl in.txt other");
    let told = space.build(["-C", "other"]).ok();
    assert_eq!(told.is("size restored, upper restored").processes(), 0);
    let told = space
        .build(["-C", "other", "--no-cache", "--force", "upper"])
        .ok();
    let _ = told.is("upper ran, same result");
}

#[test]
fn a_target_may_stay_out_of_the_cache() {
    let space = Space::new(r#"target "a" { cache #false; outputs "x"; run "touch x"; }"#);
    space.build([]).ok().is("a ran");
    space.remove("x");
    space.build([]).ok().is("a ran, same result");
}

#[test]
fn size_prune_and_verify() {
    let space = upper();
    assert_snapshot!(space.run(["cache", "size"]).ok(), @"[space]/cache  9.4 kB in 1 blob, 2 results");
    assert_snapshot!(space.run(["cache", "verify"]).ok(), @"3 files read, all intact");
    assert_snapshot!(space.run(["cache", "prune"]).fails(2), @"
    --- stderr
    error: `rel cache prune` needs a limit
      help: for example: rel cache prune --older-than 30d
    --- exit code 2
    ");
    assert_snapshot!(space.run(["cache", "prune", "--max-size", "many"]).fails(2), @"
    --- stderr
    error: `many` is not a size
      help: for example: 500MB, 5GB
    --- exit code 2
    ");
    // How many bytes they had depends on how long the commands took.
    let told = space.run(["cache", "prune", "--max-size", "0"]).ok();
    let told = told.to_string();
    assert!(told.starts_with("removed 2 results and 0 blobs"), "{told}");
    space.remove("build");
    let told = space.build([]).ok();
    let _ = told.is("size ran, same result, upper ran, same result");
}

/// Returns the files of a part of the cache: `cas` or `ac`.
fn files(space: &Space, part: &str) -> Vec<PathBuf> {
    let dir = space.cache().join("v1").join(part);
    let entries = walkdir::WalkDir::new(dir).into_iter().flatten();
    entries
        .filter(|e| e.file_type().is_file())
        .map(|e| e.into_path())
        .collect()
}

fn overwrite(path: &PathBuf, bytes: &[u8]) {
    fs::remove_file(path).expect("removes");
    fs::write(path, bytes).expect("writes");
}

#[test]
fn corrupt_blobs_are_misses() {
    let space = upper();
    for file in files(&space, "cas") {
        let mut bytes = fs::read(&file).expect("reads");
        bytes.iter_mut().for_each(|b| *b ^= 1);
        overwrite(&file, &bytes);
    }
    space.remove("build");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run upper  output `build/out.txt` is missing  (and 4 more)
        same upper  [TIME]
             | made
    restored size  output `build/size` is missing
    rel: 1 ran, 1 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(space.read("build/out.txt"), "HELLO\n");
    // What was found to be wrong has been replaced; `verify` finds the rest.
    assert_snapshot!(space.run(["cache", "verify"]).ok(), @"3 files read, all intact");
    space.remove("build");
    let _ = space.build([]).ok();
    space.remove("build");
    space.build([]).ok().is("size restored, upper restored");
    assert_eq!(space.read("build/out.txt"), "HELLO\n");
}

#[test]
fn truncated_missing_and_foreign_files_are_misses() {
    let space = upper();
    for (i, file) in files(&space, "cas").iter().enumerate() {
        match i % 2 {
            0 => overwrite(file, b""),
            _ => fs::remove_file(file).expect("removes"),
        }
    }
    space.remove("build");
    let _ = space.build([]).ok();
    assert_eq!(space.read("build/size"), "6\n");
    for (i, file) in files(&space, "ac").iter().enumerate() {
        overwrite(
            file,
            if i == 0 {
                b""
            } else {
                b"rel1 and then nonsense"
            },
        );
    }
    space.remove("build");
    let told = space.build([]).ok();
    let _ = told.is("size ran, same result, upper ran, same result");
    space.remove("build");
    space.build([]).ok().is("size restored, upper restored");
}

/// A result that names a path outside of the declared outputs is somebody's attack.
/// The snapshot tells that an input is gone, which comes back. The cache may have lost what the target
/// made of it, and then nothing else has it.
#[test]
fn what_only_an_input_was_missing_of_is_left_as_it_is() {
    let space = Space::new(
        r#"
target "small" { outputs "out/small"; run "echo small > {out}" }
target "large" { needs "small"; inputs "out/small"; outputs "out/large"; run "seq 3000 > {out}" }
"#,
    );
    let _ = space.run(["build"]).ok();
    // Until what is looked at is trusted.
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        space.build([]).ok().is("large fresh, small fresh");
    }
    let made = fs::metadata(space.path("out/large")).expect("is there");
    // Small files are inside of results.
    assert_eq!(files(&space, "cas").len(), 1);
    fs::remove_file(&files(&space, "cas")[0]).expect("removes");
    space.remove("out/small");
    space.build([]).ok().is("large fresh, small restored");
    let now = fs::metadata(space.path("out/large")).expect("is there");
    assert_eq!(now.modified().ok(), made.modified().ok());
}

#[test]
fn results_of_another_target_are_refused() {
    let space = upper();
    let results = files(&space, "ac");
    let texts: Vec<_> = results
        .iter()
        .map(|f| fs::read(f).expect("reads"))
        .collect();
    overwrite(&results[0], &texts[1]);
    overwrite(&results[1], &texts[0]);
    space.remove("build");
    assert_snapshot!(space.run(["build", "upper"]).ok(), @"
    --- stderr
    warning: a result in the cache is not used: it is for `upper` and names `build/size`, which is not its output
         run upper  output `build/out.txt` is missing  (and 4 more)
        same upper  [TIME]
             | made
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    assert!(!space.has("build/size"));
}

#[test]
fn a_full_cache_is_done_without() {
    let space = Space::new(UPPER);
    space.write("in.txt", "hello\n".repeat(100_000));
    fs::create_dir(space.cache()).expect("creates");
    let full = space
        .build_with_mounts("mount -t tmpfs -o size=64k tmpfs \"$CACHE\"")
        .ok();
    assert_snapshot!(full, @"
    --- stderr
         run upper  never built here
    warning: no more results are cached: cannot write `[space]/cache/v1/cas/[HEX]`: no space left on device
      help: free some space there and run the same command again
        done upper  [TIME]
             | made
         run size  never built here
        done size  [TIME]
    rel: 2 ran, 0 up to date, in [TIME]
    ");
    assert_eq!(space.read("build/size"), "600000\n");
    space.build([]).ok().is("size fresh, upper fresh");
}

#[test]
fn a_read_only_cache_is_read_and_not_written() {
    let space = upper();
    let read_only = "mount --bind \"$CACHE\" \"$CACHE\"; mount -o remount,bind,ro \"$CACHE\"";
    space.remove("build");
    assert_snapshot!(space.build_with_mounts(read_only).ok(), @"
    --- stderr
    restored upper  output `build/out.txt` is missing  (and 4 more)
    restored size  output `build/size` is missing
    rel: 2 restored from the cache, 0 up to date, in [TIME]
    ");
    // What is made anew comes out as before: what needs it is restored, though nothing was put.
    space.write("in.txt", "Hello\n");
    space.remove("build/size");
    assert_snapshot!(space.build_with_mounts(read_only).ok(), @"
    --- stderr
         run upper  input `in.txt` changed  8e4c7c1b99dbfd50 6 B -> 38d5445421bfd60d 6 B
    warning: no more results are cached: cannot create directory `[space]/cache/v1/ac/[HEX]`: read-only file system
      help: check who owns it and whether it may be written
        same upper  [TIME]
             | made
    restored size  output `build/size` is missing
    rel: 1 ran, 1 restored from the cache, 0 up to date, in [TIME]
    ");
    assert_eq!(space.read("build/out.txt"), "HELLO\n");
}

#[test]
fn a_cache_that_is_no_directory_is_done_without() {
    let space = Space::new(UPPER);
    space.write("in.txt", "hello\n");
    fs::write(space.cache(), "a file").expect("writes");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
    warning: continuing without the cache: `[space]/cache` is not used: it is not a directory
      help: remove it, or set `REL_CACHE_DIR`
         run upper  never built here
        done upper  [TIME]
             | made
         run size  never built here
        done size  [TIME]
    rel: 2 ran, 0 up to date, in [TIME]
    ");
}

#[test]
fn what_stands_in_the_way_of_one_result_keeps_no_other_from_being_restored() {
    let space = Space::new(
        r#"
target "a" { outputs "out/**/*.txt"; run "mkdir -p out/sub; echo a > out/sub/a.txt; echo a > out/b.txt"; }
target "b" { needs "a"; outputs "b.out"; run "echo b > b.out"; }
"#,
    );
    let _ = space.build([]).ok();
    space.shell("rm -r out b.out && mkdir out && echo mine > out/sub");
    let output = space.run(["build", "-k"]).fails(1);
    let is_given_up = output.stderr.contains("continuing without the cache");
    assert!(!is_given_up, "{output}");
    space.shell("rm out/sub");
    let told = space.build([]).ok();
    assert_eq!((told.how("a"), told.how("b")), ("restored", "restored"));
}

#[test]
fn an_output_that_vanishes_keeps_no_other_result_out_of_the_cache() {
    let space = Space::new(
        r#"
target "a" { outputs "a.out"; product "sh" "-c" "rm -f a.out; echo p"; run "echo a > a.out"; }
target "b" { outputs "b.out"; run "echo b > b.out"; }
"#,
    );
    let _ = space.build(["a"]);
    let output = space.run(["build", "-j1"]);
    let is_given_up = output.stderr.contains("no more results are cached");
    assert!(!is_given_up, "{output}");
    space.remove("b.out");
    assert_eq!(space.build(["b"]).ok().how("b"), "restored");
}

#[test]
fn a_cache_whose_name_is_no_text() {
    let space = Space::new("target \"a\" { outputs \"a\"; run \"echo a > {out}\"; }\n");
    let place = space.base().join(OsStr::from_bytes(b"\xff"));
    let asked = |args: &[&str]| {
        let mut rel = space.rel(args);
        space.finish(rel.env("REL_CACHE_DIR", &place)).ok().stdout
    };
    asked(&["build"]);
    assert!(asked(&["cache", "size"]).contains("1 result"));
    assert!(asked(&["--json", "cache", "size"]).contains("\"results\": 1"));
}
