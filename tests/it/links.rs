//! Links: among outputs, on the way to inputs, and in the place of either.

use std::fs;

use crate::space::Space;

/// What is read through a link that a needed target made counts like an input.
#[test]
fn what_a_needed_link_leads_to_counts() {
    let space = Space::new(
        r#"
target "cur" { inputs "v1.txt"; outputs "cur.txt"; run "ln -s v1.txt cur.txt"; }
target "user" { needs "cur"; outputs "use.txt"; run "cat {cur} > use.txt"; }
"#,
    );
    space.write("v1.txt", "one\n");
    space.build([]).ok().is("cur ran, user ran");
    space.build([]).ok().is("cur fresh, user fresh");
    space.write("v1.txt", "two\n");
    space.build([]).ok().is("cur ran, same result, user ran");
    assert_eq!(space.read("use.txt"), "two\n");
    settle(&space);
    // By the snapshot as well, and where what is built is not what reads the file itself.
    space.write("v1.txt", "three\n");
    let why = space.run(["why", "user"]).ok().stdout;
    assert!(why.contains("`cur`"), "{why}");
    let _ = space.build(["user"]).ok();
    assert_eq!(space.read("use.txt"), "three\n");
    space.write("v1.txt", "two\n");
    let _ = space.build([]).ok();
    assert_eq!(space.read("use.txt"), "two\n");
}

/// Builds until a snapshot says that there is nothing to do.
fn settle(space: &Space) {
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let told = space.build([]).ok();
        assert!(!told.0.to_string().contains("\"ran"), "{:#}", told.0);
    }
}

const VENV: &str = r#"
target "env" {
    outputs "a/venv/"
    run "mkdir a/venv; cd a/venv; mkdir lib bin; ln -s lib lib64; ln -s /bin/sh bin/sh; ln -s ../../src src; ln -s .. up; echo x > lib/x"
}
target "user" { needs "env"; outputs "use.txt"; run "cat a/venv/src/* {env}/lib64/* > use.txt; echo ran >> log"; }
"#;

#[test]
fn files_below_a_directory_that_a_needed_link_leads_to_count() {
    let space = Space::new(VENV);
    space.write("src/a", "one\n");
    space.build([]).ok().is("env ran, user ran");
    settle(&space);
    space.write("src/a", "two\n");
    space.build([]).ok().is("env fresh, user ran");
    space.write("src/b", "three\n");
    space.build([]).ok().is("env fresh, user ran");
    assert_eq!(space.read("use.txt"), "two\nthree\nx\n");
    settle(&space);
    space.remove("src/b");
    space.build([]).ok().is("env fresh, user restored");
    assert_eq!(space.read("use.txt"), "two\nx\n");
    // What else lies around a link to a directory above it is none of it.
    space.write("a/other", "");
    space.build([]).ok().is("env fresh, user fresh");
}

#[test]
fn a_needed_link_whose_file_is_gone_is_no_lost_output() {
    let space = Space::new(
        r#"
target "cur" { outputs "cur.txt"; run "ln -s v1.txt cur.txt"; }
target "user" { needs "cur"; outputs "use.txt"; run "cat {cur} > use.txt"; }
"#,
    );
    space.write("v1.txt", "one\n");
    space.build([]).ok().is("cur ran, user ran");
    settle(&space);
    space.remove("v1.txt").remove("use.txt");
    let told = space.run(["build"]).fails(1);
    assert!(
        told.stderr.contains("v1.txt") || told.stderr.contains("cur.txt"),
        "{told}"
    );
    assert!(!space.has("use.txt") || space.read("use.txt").is_empty());
}

#[test]
fn a_needed_link_to_what_another_target_makes_needs_that_too() {
    let space = Space::new(
        r#"
target "cur" { outputs "cur"; run "ln -s gen/x cur"; }
target "gen" { inputs "src"; outputs "gen/x"; run "cp src gen/x"; }
target "user" { needs "cur"; outputs "use.txt"; run "cat {cur} > use.txt"; }
"#,
    );
    space.write("src", "1\n");
    let _ = space.build(["gen"]).ok();
    let told = space.run(["build", "user"]).fails(1);
    assert!(
        told.stderr
            .contains("`user` needs the link `cur` to `gen/x`, which `gen` makes"),
        "{told}"
    );
    assert!(told.stderr.contains("add `needs \"gen\"`"), "{told}");
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("needs \"cur\"", "needs \"cur\" \"gen\""),
    );
    let _ = space.build([]).ok();
    space.write("src", "2\n");
    let _ = space.build([]).ok();
    assert_eq!(
        fs::read_to_string(space.path("use.txt")).expect("reads"),
        "2\n"
    );
    settle(&space);
}

/// A target `g` that makes `gen/x`, and one that reads `input` without needing it.
fn reader(input: &str) -> Space {
    let space = Space::new(&format!(
        r#"
target "a" {{ inputs "{input}" optional=#true; outputs "o"; run "cat {input} > o || true"; }}
target "g" {{ inputs "src"; outputs "gen/x"; run "cp src gen/x"; }}
"#
    ));
    space.write("src", "1\n").write("gen/x", "0\n");
    space.shell("ln -s gen/x cur; ln -s cur again; ln -s gen lg; ln -s ../gen gen/back");
    space
}

#[test]
fn an_input_that_is_an_output_by_another_name_needs_its_target() {
    for input in ["cur", "again", "lg/x", "lg/*", "lg/", "lg/back/x"] {
        let space = reader(input);
        for _ in 0..2 {
            let told = space.run(["build"]).fails(1);
            assert!(
                told.stderr.contains("which is `gen/x`, which `g` makes"),
                "{input}: {told}"
            );
            assert!(told.stderr.contains("add `needs \"g\"`"), "{told}");
        }
        let text = space.read("Releasefile.kdl");
        space.write(
            "Releasefile.kdl",
            text.replace("\"a\" {", "\"a\" { needs \"g\";"),
        );
        let _ = space.build([]).ok();
        settle(&space);
        space.write("src", "2\n");
        let _ = space.build([]).ok();
        settle(&space);
    }
}

#[test]
fn an_input_behind_a_link_need_not_be_there_yet() {
    let space = reader("lg/x");
    space.remove("gen/x");
    let told = space.run(["build", "a"]).fails(1);
    assert!(told.stderr.contains("which is `gen/x`"), "{told}");
}

#[test]
fn links_to_sources_and_to_directories_are_as_they_were() {
    let space = reader("links/*");
    space.write("links/plain", "");
    space.shell("ln -s ../src links/src; ln -s ../gen links/gen; ln -s nowhere links/none");
    let _ = space.build(["g"]).ok();
    let _ = space.build([]).ok();
    settle(&space);
}

#[test]
fn inputs_that_lead_back_into_the_repository_are_refused() {
    for (input, written) in [
        ("../work/gen/x", "gen/x"),
        ("WORK/gen/x", "gen/x"),
        ("WORK/gen/*.c", "gen/*.c"),
        ("../work/gen/", "gen/"),
    ] {
        let space = Space::empty();
        let input = input.replace(
            "WORK",
            &space
                .path("")
                .canonicalize()
                .expect("is there")
                .display()
                .to_string(),
        );
        space.write(
            "Releasefile.kdl",
            format!("target \"a\" {{ inputs \"{input}\" optional=#true; outputs \"gen/x\"; run \"echo > gen/x\"; }}"),
        );
        let told = space.run(["build"]).fails(2);
        assert!(
            told.stderr.contains("rel::build::releasefile::detour"),
            "{told}"
        );
        assert!(
            told.stderr.contains(&format!("write `{written}`")),
            "{told}"
        );
    }
}

#[test]
fn a_link_to_this_checkout_is_of_no_use_to_another() {
    let space = Space::new(
        r#"
target "far" { outputs "far"; run "ln -s $PWD/data far"; }
target "near" { outputs "near"; run "ln -s data near"; }
"#,
    );
    space.write("data", "first\n");
    space.build([]).ok().is("far ran, near ran");
    space.build([]).ok().is("far fresh, near fresh");
    space.remove("far").remove("near");
    space.build([]).ok().is("far restored, near restored");
    space.shell("mkdir other; cp Releasefile.kdl data other");
    let told = space.build(["-C", "other"]).ok();
    let _ = told.is("far ran, near restored");
    let text = fs::read_link(space.path("other/far")).expect("reads");
    assert_eq!(text, space.path("other/data"));
}

#[test]
fn a_link_to_a_directory_is_written_with_a_slash_as_an_input() {
    let space = Space::new(r#"target "t" { inputs "l"; outputs "o"; run "cat l/* > o"; }"#);
    space.write("data/a", "1\n").shell("ln -s data l");
    let link = space.run(["build"]);
    assert!(
        link.stderr.contains("write `l/` for everything below it"),
        "{link}"
    );
    // It is reported as for a directory itself.
    space.remove("l").write("l/a", "1\n");
    assert_eq!(space.run(["build"]).stderr, link.stderr);
    space.remove("l").shell("ln -s data l");
    let text = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", text.replace("\"l\"", "\"l/\""));
    space.build([]).ok().is("t ran");
    space.write("data/a", "2\n");
    space.build([]).ok().is("t ran");
}
