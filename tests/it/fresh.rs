//! Fresh or stale: what runs again, what does not, and what `why` says of it.

use std::time::Duration;

use insta::assert_snapshot;

use crate::space::{Space, wait_until};

/// A small chain: `words` is made out of sources, `count` out of `words`.
fn chain() -> Space {
    let space = Space::new(
        r#"
var "separator" "-"
target "words" {
    inputs "src/**/*.txt" "!src/draft/**"
    outputs "build/words"
    tool "./tool --version"
    probe "cat outside"
    env "FLAVOUR" LANG="C"
    run "cat {inputs} | grep -v '^#' > {out}; echo ran {separator} >> log"
}
target "count" {
    needs "words"
    outputs "build/count"
    run "wc -l < {words} > {out}; echo counted >> log"
}
"#,
    );
    space
        .write("src/a.txt", "one\n")
        .write("src/b.txt", "two\n# a comment\n")
        .write("src/draft/c.txt", "three\n")
        .write("outside", "1\n")
        .write("tool", "#!/bin/sh\ncat version\n")
        .write("version", "tool 1.0\n");
    space.shell("chmod +x tool");
    space.build([]).ok().is("count ran, words ran");
    space
}

#[track_caller]
fn why(space: &Space, target: &str) -> String {
    space.run(["why", target]).ok().stdout
}

#[test]
fn a_second_build_runs_nothing() {
    let space = chain();
    let told = space.build([]).ok().is("count fresh, words fresh");
    // Only the questions: the tool and the probe.
    assert_eq!(told.processes(), 2);
    // A file that was hashed in the tick in which it was written is hashed once more.
    crate::space::wait_until("a build that reads no file", || {
        let told = space.build([]).ok().is("count fresh, words fresh");
        (told.counter("files hashed") == 0).then_some(())
    });
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
    rel: nothing to do, 2 targets up to date, in [TIME]
    ");
    assert_snapshot!(why(&space, "count"), @"  fresh  count  built [TIME] ago, key [KEY]");
    assert_snapshot!(space.run(["status"]).ok(), @"2 targets up to date, 0 not");
    assert_snapshot!(space.run(["list"]).ok(), @"
    fresh  words
    fresh  count
    ");
}

#[test]
fn a_changed_file() {
    let space = chain();
    space.write("src/a.txt", "one\nmore\n");
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           input `src/a.txt` changed  e0e63aa4c8e1ed79 4 B -> 86c85be5c8ddc480 9 B
    ");
    assert_snapshot!(why(&space, "count"), @"
      stale  words
             input `src/a.txt` changed  e0e63aa4c8e1ed79 4 B -> 86c85be5c8ddc480 9 B
    pending  count
             needs `words`, which is not up to date
    ");
    assert_snapshot!(space.run(["build", "-n"]).ok(), @"
         run words  input `src/a.txt` changed  e0e63aa4c8e1ed79 4 B -> 86c85be5c8ddc480 9 B
     may run count  needs `words`, which is not up to date
    1 would run, 1 more if what they need changes, 0 up to date
    ");
    assert_snapshot!(space.run(["build"]).ok(), @"
    --- stderr
         run words  input `src/a.txt` changed  e0e63aa4c8e1ed79 4 B -> 86c85be5c8ddc480 9 B
        done words  [TIME]
         run count  needed output `build/words` changed  04d2649eb72531af 8 B -> 49e66d490cce6399 13 B
        done count  [TIME]
    rel: 2 ran, 0 up to date, in [TIME]
    ");
}

#[test]
fn a_touched_file_is_fresh() {
    let space = chain();
    space.shell("touch src/*.txt; cp src/a.txt x; mv x src/a.txt");
    space.build([]).ok().is("count fresh, words fresh");
}

#[test]
fn a_comment_stops_early() {
    let space = chain();
    space.write("src/b.txt", "two\n# another comment\n");
    let told = space.build([]).ok();
    let told = told.is("count fresh, words ran, same result");
    assert_eq!(told.processes(), 3);
    assert_eq!(space.lines("log"), ["ran -", "counted", "ran -"]);
}

#[test]
fn a_file_comes_and_goes() {
    let space = chain();
    space.write("src/draft/d.txt", "not taken\n");
    space.build([]).ok().is("count fresh, words fresh");
    space.write("src/new.txt", "three\n");
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           input `src/new.txt` is new  60fb664876a40c05 6 B
           command `1` changed  sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log -> sh -eu -c cat 'src/a.txt' 'src/b.txt' 'src/new.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log
    ");
    space.build([]).ok().is("count ran, words ran");
    space.remove("src/new.txt");
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           input `src/new.txt` is gone  60fb664876a40c05 6 B
           command `1` changed  sh -eu -c cat 'src/a.txt' 'src/b.txt' 'src/new.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log -> sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log
    ");
    // The old result is in the cache.
    let told = space.build([]).ok().is("count restored, words restored");
    assert_eq!(told.processes(), 2);
}

#[test]
fn a_changed_variable() {
    let space = chain();
    assert_snapshot!(space.run(["--var", "separator=+", "why", "words"]).ok(), @"
    stale  words
           command `1` changed  sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log -> sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v '^#' > 'build/words'; echo ran '+' >> log
    ");
    let told = space.build(["--var", "separator=+"]).ok();
    let _ = told.is("count fresh, words ran, same result");
}

#[test]
fn a_changed_tool_probe_and_environment() {
    let space = chain();
    space.write("version", "tool 2.0\n");
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           tool `./tool --version` changed  tool 1.0 -> tool 2.0
    ");
    space.write("version", "tool 1.0\n").write("outside", "2\n");
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           probe `cat outside` changed  1 -> 2
    ");
    space.write("outside", "1\n");
    let flavour = space.finish(space.rel(["why", "words"]).env("FLAVOUR", "mint"));
    assert_snapshot!(flavour.ok(), @r#"
    stale  words
           variable `FLAVOUR` changed  (unset) -> "mint"
    "#);
    space.build([]).ok().is("count fresh, words fresh");
}

#[test]
fn a_changed_command_and_a_changed_need() {
    let space = chain();
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("grep -v '^#'", "grep -v ^#"),
    );
    assert_snapshot!(why(&space, "words"), @"
    stale  words
           command `1` changed  sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v '^#' > 'build/words'; echo ran '-' >> log -> sh -eu -c cat 'src/a.txt' 'src/b.txt' | grep -v ^# > 'build/words'; echo ran '-' >> log
    ");
    space.write("src/a.txt", "other\n");
    space.build(["words"]).ok().is("words ran");
    assert_snapshot!(why(&space, "count"), @"
    stale  count
           needed output `build/words` changed  04d2649eb72531af 8 B -> 676c266b483f8c89 10 B
    ");
}

#[test]
fn a_probe_that_fails_stops_only_its_target() {
    let space = chain();
    space.remove("outside");
    assert_snapshot!(space.run(["build", "words"]).fails(1), @"
    --- stderr
    error: probe of `words` failed: exit status 1
      command  sh -eu -c cat outside
      printed  cat: outside: No such file or directory
    rel: 1 failed, 0 up to date, in [TIME]
    --- exit code 1
    ");
}

#[test]
fn a_declared_variable_arrives_and_no_other_does() {
    let space = Space::new(
        r#"target "a" { env "GIVEN" SET="two words"; outputs "x"; run "env | grep -E '^(GIVEN|SET|SECRET|HOME|MAKEFLAGS)' | grep -v ^MAKEFLAGS | sort > {out}"; }"#,
    );
    let mut rel = space.rel(["build"]);
    let _ = space.finish(rel.env("GIVEN", "g").env("SECRET", "s")).ok();
    assert_snapshot!(space.read("x").replace(&space.base().display().to_string(), "[space]"), @"
    GIVEN=g
    HOME=[space]/home
    SET=two words
    ");
}

#[test]
fn instances_are_targets_of_their_own() {
    let space = Space::new(
        r#"
target "thumb" {
    each "image" files="assets/*.png"
    inputs "{image}"
    outputs "thumbs/{image.stem}.webp"
    run "cp {image} {out}"
}
target "grid" {
    matrix { python "3.11" "3.12"; db "pg" "sqlite"; }
    run "echo {python} {db}"
}
target "all" { needs "thumb" "grid[3.11,pg]"; }
"#,
    );
    space
        .write("assets/a b.png", "a")
        .write("assets/c.png", "c");
    assert_snapshot!(space.run(["list"]).ok(), @"
      stale  thumb[assets/a b.png]
      stale  thumb[assets/c.png]
      stale  grid[3.11,pg]
      stale  grid[3.11,sqlite]
      stale  grid[3.12,pg]
      stale  grid[3.12,sqlite]
    pending  all
    ");
    let _ = space.build(["all"]).ok();
    assert_eq!(space.read("thumbs/a b.webp"), "a");
    space.write("assets/c.png", "d").write("assets/e.png", "e");
    let told = space.build(["thumb"]).ok();
    let _ =
        told.is("thumb[assets/a b.png] fresh, thumb[assets/c.png] ran, thumb[assets/e.png] ran");
    assert_snapshot!(space.run(["why", "grid[3.12,pg]"]).ok(), @"
    stale  grid[3.12,pg]
           never built here
    ");
}

#[test]
fn a_product_is_asked_each_time() {
    let space = Space::new(
        r#"
target "image" {
    inputs "Containerfile"
    product "cat engine/karl"
    run "mkdir -p engine; cksum < {in} > engine/karl; echo built >> log"
}
target "push" { needs "image"; run "echo push >> log"; }
"#,
    );
    space.write("Containerfile", "FROM scratch\n");
    space.build([]).ok().is("image ran, push ran");
    space.build([]).ok().is("image fresh, push fresh");
    // Somebody else tags another image.
    space.write("engine/karl", "other\n");
    assert_snapshot!(why(&space, "image"), @"
    stale  image
           product changed  3595880935 13 -> other
    ");
    space.build([]).ok().is("image ran, push fresh");
    space.remove("engine");
    assert_snapshot!(why(&space, "image"), @"
    stale  image
           product changed  3595880935 13 -> (none)
    ");
    space.build([]).ok().is("image ran, push fresh");
    assert_eq!(space.lines("log").len(), 4);
}

#[test]
fn a_result_may_be_too_old() {
    let space = Space::new(r#"target "a" { max-age "1s"; outputs "x"; run "date +%s%N > x"; }"#);
    space.build([]).ok().is("a ran");
    let first = space.read("x");
    crate::space::wait_until("a build that is too old", || {
        let told = space.build([]).ok();
        (told.how("a") == "ran").then_some(())
    });
    assert_ne!(space.read("x"), first);
}

/// Neither the cache nor a restored output makes a result younger than it is.
#[test]
fn a_restored_result_is_as_old_as_it_was() {
    let space = Space::new(r#"target "a" { max-age "1s"; outputs "x"; run "date +%s > x"; }"#);
    let now = || -> u64 { space.shell("date +%s").trim().parse().expect("a number") };
    for lost in ["", "x", ".rel x"].repeat(4) {
        space.shell(&format!("rm -rf {lost}; sleep 0.4"));
        let before = now();
        let told = space.build([]).ok();
        let made: u64 = space.read("x").trim().parse().expect("a number");
        assert!(made + 1 >= before, "{}: {made} at {before}", told.how("a"));
    }
    let young = space.read("Releasefile.kdl").replace("1s", "1h");
    space.write("Releasefile.kdl", young);
    space.build([]).ok();
    space.shell("rm -rf .rel x");
    space.build([]).ok().is("a restored");
}

/// Found by the model test: `{page}` was no name any more once there was no page.
#[test]
fn the_last_file_of_an_each_may_go() {
    let space = Space::new(
        r#"
target "page" { each "p" files="pages/*" optional=#true; inputs "{p}"; outputs "out/{p.name}"; run "cp" "{p}" "{out}" }
target "site" { needs "page"; outputs "out/site"; run "cat /dev/null {page} > {out}" }
"#,
    );
    space.write("pages/a", "a\n");
    space.build([]).ok().is("page[pages/a] ran, site ran");
    space.remove("pages/a");
    space.build([]).ok().is("site ran");
    assert_eq!(space.read("out/site"), "");
    space.write("pages/a", "a\n");
    space
        .build([])
        .ok()
        .is("page[pages/a] fresh, site restored");
}

/// Lets a second `rel` parse the Releasefile, does `meanwhile` while it waits for the first, and
/// returns the space when both have ended.
fn parsed_before_a_wait(meanwhile: impl FnOnce(&Space)) -> Space {
    let space = Space::new(
        r#"
include "local.kdl" optional=#true
target "slow" { cache #false; run "touch started; until test -e go; do sleep 0.01; done"; }
"#,
    );
    space.write(
        "recipes/mine.kdl",
        r#"recipe "mine" { step "one" { run "true"; } }"#,
    );
    std::thread::sleep(Duration::from_millis(60));
    let first = space.begin(["build", "slow"]);
    wait_until("the first", || space.has("started").then_some(()));
    // What is compiled is of another Releasefile.
    let text = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", text + "// edited\n");
    let second = space.begin(["build", "slow"]);
    wait_until("the second", || {
        second.stderr().contains("waiting for").then_some(())
    });
    meanwhile(&space);
    space.write("go", "");
    let _ = first.finish().ok();
    let _ = second.finish().ok();
    space
}

#[test]
fn an_include_that_appears_while_rel_waits_is_read_next_time() {
    let space = parsed_before_a_wait(|space| {
        space.write("local.kdl", "target \"mine\" { run \"true\"; }\n");
    });
    assert!(space.run(["list"]).ok().stdout.contains("mine"));
}

#[test]
fn a_recipe_that_is_edited_while_rel_waits_is_read_next_time() {
    let space = parsed_before_a_wait(|space| {
        space.write("recipes/mine.kdl", "recipe \"mine\" { nonsense; }");
        std::thread::sleep(Duration::from_millis(60));
    });
    let _ = space.run(["list"]).fails(2);
}

#[test]
fn a_file_with_a_literal_name_is_seen_when_it_appears() {
    let space = Space::new(
        r#"target "check" { each "file" files="extra/a.txt" optional=#true; inputs "{file}"; run "cat {in} >> seen"; }"#,
    );
    let _ = space.build([]).ok().is("");
    std::thread::sleep(Duration::from_millis(60));
    let _ = space.build([]).ok().is("");
    space.write("extra/a.txt", "a\n");
    let _ = space.build([]).ok();
    assert_eq!(space.lines("seen"), ["a"]);
    space.remove("extra/a.txt");
    let _ = space.build([]).ok().is("");
}
