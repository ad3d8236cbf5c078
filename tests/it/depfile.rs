//! `depfile`: what a command says that it read counts as if it had been declared.

use insta::assert_snapshot;

use crate::space::Space;

/// A compiler in a few lines of shell: it reads a list of files, the headers that these name,
/// and writes both what it made and a depfile.
const CC: &str = r#"#!/bin/sh -eu
out=$1 dep=$2 source=$3
echo ran >> log
headers=$(sed -n 's/^#include //p' "$source")
mkdir -p "$(dirname "$dep")"
cat "$source" $headers > "$out"
echo "$out: $source" $headers /usr/include/stdio.h > "$dep"
"#;

/// `main.c` includes `inc/a.h`, which is not declared.
fn compiled(more: &str) -> Space {
    let space = Space::new(&format!(
        r#"target "obj" {{
    inputs "main.c" "cc"
    outputs "out/main.o"
    depfile "dep/main.d"
    {more}
    run "./cc" "{{out}}" "dep/main.d" "main.c"
}}"#
    ));
    space
        .write("main.c", "#include inc/a.h\nmain\n")
        .write("inc/a.h", "one\n")
        .write("inc/b.h", "b\n")
        .write("cc", CC);
    space.shell("chmod +x cc");
    space
}

fn why(space: &Space) -> String {
    space.run(["why", "obj"]).ok().stdout
}

/// Makes sure that a build finds all fresh and draws its snapshot, which the next one compares.
fn settle(space: &Space) {
    crate::space::wait_until("a build that reads no file", || {
        let told = space.build([]).ok().is("obj fresh");
        (told.counter("files hashed") == 0).then_some(())
    });
}

#[test]
fn what_a_depfile_names_makes_stale() {
    let space = compiled("");
    space.build([]).ok().is("obj ran");
    assert!(!space.has("dep/main.d"), "it is read and removed");
    settle(&space);
    space.write("inc/b.h", "unread\n");
    space.build([]).ok().is("obj fresh");
    space.write("inc/a.h", "two\n");
    assert_snapshot!(why(&space), @r"
    stale  obj
           found input `inc/a.h` changed  e0e63aa4c8e1ed79 4 B -> ef40086ad8a395c7 4 B
    ");
    space.build([]).ok().is("obj ran");
    assert_eq!(space.read("out/main.o"), "#include inc/a.h\nmain\ntwo\n");
    settle(&space);
    space.shell("chmod +x inc/a.h");
    assert_snapshot!(why(&space), @r"
    stale  obj
           found input `inc/a.h` changed  ef40086ad8a395c7 4 B -> ef40086ad8a395c7 4 B executable
    ");
    space.build([]).ok().is("obj ran, same result");
    settle(&space);
    space.remove("inc/a.h");
    assert_snapshot!(why(&space), @r"
    stale  obj
           found input `inc/a.h` is gone  ef40086ad8a395c7 4 B executable
    ");
    assert_snapshot!(space.run(["build"]).fails(1).stderr, @r"
         run obj  found input `inc/a.h` is gone  ef40086ad8a395c7 4 B executable
    error: `obj` failed: exit status 1
      command  ./cc out/main.o dep/main.d main.c
      printed  cat: inc/a.h: No such file or directory
      key      [KEY]
    rel: 1 failed, 0 up to date, in [TIME]
    ");
    space.write("main.c", "#include inc/b.h\n");
    space.build([]).ok().is("obj ran");
    settle(&space);
}

/// What is named and not there counts as absent: it may appear.
#[test]
fn a_named_file_may_appear() {
    let space = Space::new(
        r#"target "obj" {
    outputs "out"
    depfile "d"
    run "cat maybe/x > out || echo none > out; echo 'out: maybe/x' > d"
}"#,
    );
    // Nobody writes to that directory while the command runs, so it was not there all the time.
    space.write("maybe/y", "");
    space.build([]).ok().is("obj ran");
    settle(&space);
    space.write("maybe/x", "some\n");
    assert_snapshot!(why(&space), @r"
    stale  obj
           found input `maybe/x` is new  c18fedb09f46dbe0 5 B
    ");
    space.build([]).ok().is("obj ran");
    assert_eq!(space.read("out"), "some\n");
    settle(&space);
}

#[test]
fn a_result_comes_back_when_all_that_was_found_does() {
    let space = compiled("");
    space.build([]).ok().is("obj ran");
    space.write("inc/a.h", "two\n");
    space.build([]).ok().is("obj ran");
    // Another source finds another list.
    space.write("main.c", "#include inc/b.h\n");
    space.build([]).ok().is("obj ran");
    space.write("inc/a.h", "three\n");
    space.build([]).ok().is("obj fresh");
    space.write("main.c", "#include inc/a.h\nmain\n");
    space.build([]).ok().is("obj ran");
    for (header, made) in [("one\n", "one"), ("three\n", "three"), ("two\n", "two")] {
        space.write("inc/a.h", header);
        space.build([]).ok().is("obj restored");
        assert_eq!(
            space.read("out/main.o"),
            format!("#include inc/a.h\nmain\n{made}\n")
        );
        assert!(!space.has("dep/main.d"));
        space.build([]).ok().is("obj fresh");
    }
    settle(&space);
    space.remove("out");
    space.build([]).ok().is("obj restored");
    assert_eq!(space.read("out/main.o"), "#include inc/a.h\nmain\ntwo\n");
    space.remove(".rel").remove("out");
    space.build([]).ok().is("obj restored");
    assert_eq!(space.lines("log").len(), 4);
}

/// One key, several lists: which headers are read depends on what is in them.
#[test]
fn the_cache_knows_several_lists_for_one_key() {
    let space = Space::new(
        r#"target "obj" {
    outputs "out"
    depfile "d"
    run "h=$(cat which); cat $h > out; echo out: which $h > d; echo ran >> log"
}"#,
    );
    space.write("a", "a1\n").write("b", "b1\n");
    for which in ["a", "b"] {
        space.write("which", which);
        space.build([]).ok().is("obj ran");
    }
    for which in ["a", "b", "a"] {
        space.write("which", which);
        space.build([]).ok().is("obj restored");
        assert_eq!(space.read("out"), format!("{which}1\n"));
    }
    space.write("b", "b2\n");
    space.build([]).ok().is("obj fresh");
    space.write("which", "b");
    space.build([]).ok().is("obj ran");
    assert_eq!(space.read("out"), "b2\n");
}

#[test]
fn branches_come_and_go() {
    let space = compiled("");
    space.shell(
        "git init -q; echo .rel > .gitignore; echo out >> .gitignore; echo log >> .gitignore",
    );
    space.shell("git add -A; git commit -qm one; git checkout -qb two; echo more > inc/a.h; git commit -qam two");
    space.build([]).ok().is("obj ran");
    space.shell("git checkout -q -");
    space.build([]).ok().is("obj ran");
    for _ in 0..2 {
        space.shell("git checkout -q -");
        space.build([]).ok().is("obj restored");
        let header = space.read("inc/a.h");
        assert_eq!(
            space.read("out/main.o"),
            format!("#include inc/a.h\nmain\n{header}")
        );
    }
}

#[test]
fn what_another_target_makes_must_be_needed() {
    let space = compiled("");
    let text = space.read("Releasefile.kdl");
    let with = |needs: &str| {
        let text = text.replace("depfile", &format!("{needs}\n    depfile"));
        format!(
            "{text}\ntarget \"gen\" {{ inputs \"seed\"; outputs \"inc/a.h\"; run \"cp seed inc/a.h\" }}
             target \"all\" {{ needs \"gen\"; run \"true\" }}"
        )
    };
    space.build([]).ok().is("obj ran");
    // The record of the former run names what `gen` makes now.
    space.write("seed", "seed\n").remove("inc/a.h");
    space.write("Releasefile.kdl", with(""));
    let _ = space.run(["build", "gen"]).ok();
    assert_snapshot!(why(&space), @r"
    stale  obj
           found input `inc/a.h` changed  e0e63aa4c8e1ed79 4 B -> 746ca5d334b2e2bc 5 B
           found input `inc/a.h` is made by `gen`, which is not needed
    ");
    assert_snapshot!(space.run(["build", "obj", "-q"]).fails(1).stderr, @r#"
    error: `obj` reads `inc/a.h`, which `gen` makes, but does not need it
      key  [KEY]
      help: add `needs "gen"`
    "#);
    for needs in ["needs \"gen\"", "needs \"all\""] {
        space.write("Releasefile.kdl", with(needs));
        space.write("seed", "seed\n");
        let _ = space.build(["obj"]).ok();
        assert_eq!(space.read("out/main.o"), "#include inc/a.h\nmain\nseed\n");
        space.write("seed", "other\n");
        let _ = space.build(["obj"]).ok();
        assert_eq!(space.read("out/main.o"), "#include inc/a.h\nmain\nother\n");
        let told = space.build(["obj"]).ok();
        assert_eq!(told.how("obj"), "fresh");
    }
}

#[test]
fn a_depfile_that_can_not_be_read_fails_the_target() {
    let commands = [
        "true",
        "echo nothing > d",
        ": > d",
        "mkdir d",
        "printf 'a: b\\\\0' > d",
    ];
    let mut told = String::new();
    for command in commands {
        let space = Space::new(&format!(
            "target \"obj\" {{ outputs \"out\"; depfile \"d\"; run \"echo 1 > out; {command}\" }}"
        ));
        told += &space.run(["build", "-q"]).fails(1).stderr;
        assert_eq!(space.build([]).how("obj"), "failed");
    }
    assert_snapshot!(told, @r"
    error: `obj` ran, but did not write its depfile `d`
      key  [KEY]
      help: let the command write it there (`cc -MD -MF …`), or correct `depfile`
    error: `obj` wrote a depfile `d`, but line 1 has no `:` behind its target
      key  [KEY]
      help: it is read as ninja does, from what `cc -MD` writes
    error: `obj` wrote a depfile `d`, but it has no rule `target: file file`
      key  [KEY]
      help: it is read as ninja does, from what `cc -MD` writes
    error: the depfile `d` is not a regular file
      key  [KEY]
    error: `obj` wrote a depfile `d`, but it is not text
      key  [KEY]
      help: it is read as ninja does, from what `cc -MD` writes
    ");
}

/// A file of somebody at the depfile's place is neither read nor lost.
#[test]
fn what_stands_at_a_depfile_is_moved_aside() {
    let space = compiled("");
    space.write("dep/main.d", "mine\n");
    let stderr = space.run(["build", "-q"]).ok().stderr;
    assert!(
        stderr.contains("they were moved to `.rel/backup/"),
        "{stderr}"
    );
    assert_eq!(space.shell("cat .rel/backup/*/dep/main.d"), "mine\n");
}

#[test]
fn a_header_that_changes_meanwhile_is_told_and_not_kept() {
    let ways = [
        "echo 2 > inc/a.h",
        "cp -p inc/a.h old; echo 2 > inc/a.h; cat old > inc/a.h; touch -r old inc/a.h",
        "echo 2 > new; touch -d '1 hour ago' new; mv new inc/a.h",
        "rm inc/a.h",
        "chmod +x inc/a.h",
    ];
    for way in ways {
        let space = Space::new(
            r#"target "obj" {
    outputs "out"
    depfile "d"
    run "cat inc/a.h > out; echo > started; while [ ! -e go ]; do sleep 0.01; done; echo 'out: inc/a.h' > d"
}"#,
        );
        space.write("inc/a.h", "1\n");
        let job = space.begin(["build"]);
        space.wait_for("started");
        space.shell(way);
        space.write("go", "");
        let stderr = job.finish().ok().stderr;
        let told =
            "warning: `obj` ran, but `inc/a.h`, which its depfile names, was written to meanwhile";
        assert!(stderr.contains(told), "{way}: {stderr}");
        space.write("inc/a.h", "3\n");
        assert!(why(&space).contains("its last run was not recorded as a whole"));
        space.build([]).ok().is("obj ran");
        assert_eq!(space.read("out"), "3\n");
        space.build([]).ok().is("obj fresh");
    }
}

/// A header keeps its times when a directory above it is swapped, or a link turned.
#[test]
fn a_header_that_is_moved_by_what_leads_to_it_is_told_and_not_kept() {
    let ways = [
        ("inc/a.h", "mv inc old; mv two inc", "inc"),
        ("inc/sub/b.h", "mv inc old; mv two inc", "inc"),
        ("inc/sub/b.h", "mv inc/sub old; mv two/sub inc", "inc/sub"),
        ("link/a.h", "ln -sfn two link", "link"),
        ("chain/a.h", "ln -sfn two link", "link"),
        ("chain/a.h", "mv inc old; mv two inc", "inc"),
    ];
    for (header, way, what) in ways {
        let space = Space::new(&format!(
            r#"target "obj" {{
    outputs "out"
    depfile "d"
    run "cat {header} > out; echo > started; while [ ! -e go ]; do sleep 0.01; done; echo 'out: {header}' > d"
}}"#
        ));
        space.write("inc/a.h", "1\n").write("inc/sub/b.h", "1\n");
        space.write("two/a.h", "2\n").write("two/sub/b.h", "2\n");
        space.shell("ln -s inc link; ln -s link chain");
        let job = space.begin(["build"]);
        space.wait_for("started");
        space.shell(way);
        space.write("go", "");
        let stderr = job.finish().ok().stderr;
        let told = format!(
            "warning: `obj` ran, but `{what}`, a directory above files of its depfile, was moved meanwhile"
        );
        assert!(stderr.contains(&told), "{way}: {stderr}");
        space.build([]).ok().is("obj ran");
        assert_eq!(space.read("out"), "2\n", "{way}");
        space.build([]).ok().is("obj fresh");
    }
}

/// Depfiles come and go beside outputs: whoever looks meanwhile takes them for what they are.
#[test]
fn depfiles_of_others_are_no_strays() {
    let space = Space::new(
        r#"target "obj" {
    each "n" "1" "2" "3" "4" "5" "6" "7" "8"
    outputs "out/{n}"
    depfile "out/{n}.d"
    run "echo 'o: a' > out/{n}.d; cat a > {out}; sleep 0.0{n}"
}"#,
    );
    space.write("a", "a\n");
    let output = space.run(["build", "-j4"]).ok();
    assert!(!output.stderr.contains("warning"), "{output}");
    let output = space.run(["build"]).ok();
    assert!(output.stderr.contains("8 targets up to date"), "{output}");
}

/// In a sandbox a command finds what is declared, so that there is nothing more to find.
#[test]
fn with_a_sandbox_what_is_declared_stays_the_rule() {
    let space = compiled("sandbox \"strict\"");
    let text = space.read("Releasefile.kdl");
    space.write("cc", CC.replace("echo ran >> log\n", ""));
    assert_snapshot!(space.run(["build", "-q"]).fails(1).stderr, @r#"
    error: `obj` failed: exit status 1
      command     ./cc out/main.o dep/main.d main.c
      printed     cat: inc/a.h: No such file or directory
      undeclared  reads `inc/a.h`
      key         [KEY]
      help: add `inputs "inc/a.h"`
    "#);
    space.write(
        "Releasefile.kdl",
        text.replace("\"cc\"", "\"cc\" \"inc/*.h\""),
    );
    space.build([]).ok().is("obj ran");
    assert!(!space.has("dep/main.d"));
    space.build([]).ok().is("obj fresh");
    // Every file that may be read is in the key, read or not.
    space.write("inc/b.h", "unread\n");
    assert_snapshot!(why(&space), @r"
    stale  obj
           input `inc/b.h` changed  9d902f9864f3043d 2 B -> c92471fb5637e2f5 7 B
    ");
    space.build([]).ok().is("obj ran, same result");
}

#[test]
fn a_real_compiler_finds_what_it_includes() {
    let space = Space::new(
        r#"target "obj" {
    each "source" files="src/*.c"
    dir "src"
    inputs "{source}"
    outputs "out/{source.stem}"
    depfile "out/{source.stem}.d"
    run "cc -MD -MP -MF ../out/{source.stem}.d -I ../inc -I $(pwd)/../abs -o {out} {source.name}"
}"#,
    );
    space
        .write(
            "src/main.c",
            "#include <stdio.h>\n#include \"a b#c$.h\"\n#include \"abs.h\"\n#include \"../inc/deep.h\"\nint main(void) { puts(A ABS DEEP); return 0; }\n",
        )
        .write("inc/a b#c$.h", "#define A \"a\"\n")
        .write("inc/deep.h", "#include \"deeper/d.h\"\n")
        .write("inc/deeper/d.h", "#define DEEP \"d\"\n")
        .write("abs/abs.h", "#define ABS \"s\"\n");
    let built = |expected: &str| {
        let _ = space.build([]).ok();
        assert_eq!(space.shell("out/main"), expected);
        let told = space.build([]).ok();
        assert_eq!(told.how("obj[src/main.c]"), "fresh");
    };
    built("asd\n");
    assert_eq!(space.shell("ls out"), "main\n");
    space.write("inc/a b#c$.h", "#define A \"A\"\n");
    built("Asd\n");
    space.write("inc/deeper/d.h", "#define DEEP \"D\"\n");
    built("AsD\n");
    space.write("abs/abs.h", "#define ABS \"S\"\n");
    built("ASD\n");
    space.write("inc/a b#c$.h", "#define A \"a\"\n");
    let why = space.run(["why"]).ok().stdout;
    assert!(why.contains("found input `inc/a b#c$.h` changed"), "{why}");
}

/// Names with `..` behind a link are not what they look like.
#[test]
fn links_on_the_way_count() {
    let space = Space::new(
        r#"target "obj" {
    outputs "out"
    depfile "d"
    run "cat link/../x > out; echo 'out: link/../x' > d"
}"#,
    );
    space
        .write("one/x", "1\n")
        .write("two/x", "2\n")
        .write("x", "0\n");
    space.shell("mkdir one/sub two/sub; ln -s one/sub link");
    space.build([]).ok().is("obj ran");
    space.write("x", "unread\n");
    space.build([]).ok().is("obj fresh");
    space.write("one/x", "one\n");
    space.build([]).ok().is("obj ran");
    space.shell("ln -sfn two/sub link");
    space.build([]).ok().is("obj ran");
    assert_eq!(space.read("out"), "2\n");
}

#[test]
fn sources_alone_have_no_key_where_a_depfile_says_more() {
    let space = compiled("");
    assert_snapshot!(space.run(["hash", "obj"]).fails(1).stderr, @r#"
    error: what `obj` reads is in its depfile, which only a run writes: its sources have no key
      help: let it see only what it declares (`sandbox "strict"`), or do without `depfile`
    "#);
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("depfile", "sandbox \"strict\"; depfile"),
    );
    let _ = space.run(["hash", "obj"]).ok();
}

#[test]
fn a_trace_knows_what_a_depfile_names() {
    let space = compiled("");
    let output = space.run(["check", "--trace", "obj"]);
    assert!(
        !output.stdout.contains("inc/a.h") && !output.stderr.contains("inc/a.h"),
        "{output}"
    );
    assert!(
        !output.stdout.contains("main.d") && !output.stderr.contains("main.d"),
        "{output}"
    );
}

#[test]
fn a_platform_stands_for_the_machine() {
    let with = |line: &str| {
        format!(
            "target \"t\" {{ {line}; inputs \"a\"; outputs \"out\"; run \"cp a out; echo >> log\" }}"
        )
    };
    let space = Space::new(&with("desc \"x\""));
    space.write("a", "a\n");
    space.build([]).ok().is("t ran");
    let here = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let hash = |line: &str| {
        space.write("Releasefile.kdl", with(line));
        space.run(["hash", "t"]).ok().stdout
    };
    assert_eq!(hash("desc \"x\""), hash(&format!("platform \"{here}\"")));
    space.build([]).ok().is("t fresh");
    let any = hash("platform \"any\"");
    assert_ne!(any, hash("desc \"x\""));
    assert_ne!(any, hash("platform \"linux-riscv64\""));
    let why = space.run(["why", "t"]).ok().stdout;
    assert_eq!(
        why.replace(&here, "[HERE]"),
        "  stale  t\n         platform changed  [HERE] -> linux-riscv64\n"
    );
    hash("platform \"any\"");
    space.build([]).ok().is("t ran, same result");
    hash(&format!("platform \"{here}\""));
    space.build([]).ok().is("t restored");
}

/// Sources that several Releasefiles share lie above them.
#[test]
fn a_header_above_the_releasefile_counts() {
    let above = Space::empty();
    let header = above.base().join("sdk.h");
    for (named, path) in [
        ("../shared/h.h", "../shared/h.h"),
        ("$(cd ..; pwd)/shared/h.h", "../shared/h.h"),
        ("../link/h.h", "../link/h.h"),
        (header.to_str().expect("is text"), "sdk.h"),
    ] {
        let space = Space::new(&format!(
            r#"target "obj" {{
    outputs "out"
    depfile "d"
    run "cat {named} > out; echo out: {named} /usr/include/none.h /gone/away.h > d"
}}"#
        ));
        space.shell("mkdir ../shared; ln -s shared ../link");
        let write = |text: &str| {
            space.write("../shared/h.h", text).write(&header, text);
        };
        write("one\n");
        space.build([]).ok().is("obj ran");
        settle(&space);
        write("two\n");
        let told = why(&space);
        let tail = format!("{path}` changed  e0e63aa4c8e1ed79 4 B -> ef40086ad8a395c7 4 B");
        assert!(told.contains(&tail) && told.lines().count() == 2, "{told}");
        space.build([]).ok().is("obj ran");
        assert_eq!(space.read("out"), "two\n");
        settle(&space);
        // The cache has it as well, for checkouts that find the same there.
        write("one\n");
        space.build([]).ok().is("obj restored");
        space.shell("mkdir ../b; cp Releasefile.kdl ../b");
        space.build(["-C", "../b"]).ok().is("obj restored");
        write("three\n");
        space.build(["-C", "../b"]).ok().is("obj ran");
        assert_eq!(space.read("../b/out"), "three\n");
    }
}
