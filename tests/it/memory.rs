//! What a command prints costs no memory: hundreds of megabytes of it not more than 20 MiB,
//! however it is shown, searched, kept, cached or brought back.

use crate::space::{REL, Space};

const ADDED_KIB_MAX: u64 = 20 * 1024;

/// A `rel` that shows or keeps what a target `t` prints: so many bytes as stand in the file `size`.
struct Way {
    name: &'static str,
    target: &'static str,
    /// What is done before.
    before: &'static str,
    args: &'static [&'static str],
    code: i32,
    /// How many bytes it prints. The bound is the same for all: more of them cost time alone.
    size: &'static str,
}

const MUCH: &str = "60000000";
const VERY_MUCH: &str = "300000000";

/// Prints lines; short ones would take their time here.
const LINES: &str = "yes \\\"$(printf 'a line %400d' 1)\\\" | head -c $(cat size)";
/// Prints one line, with no end.
const LINE: &str = "head -c $(cat size) /dev/zero | tr '\\\\0' x";

const WAYS: &[Way] = &[
    Way {
        name: "shown",
        target: r#"run "[lines]; [line]""#,
        before: "",
        args: &["build"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "kept",
        target: r#"run "[lines]""#,
        before: "",
        args: &["build", "-q"],
        code: 0,
        size: VERY_MUCH,
    },
    Way {
        name: "with much said, for machines",
        target: r#"run "[lines]""#,
        before: "",
        args: &["build", "-v", "--json", "--stats"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "in vain, three times",
        target: r#"retries 2; run "[line]; exit 1""#,
        before: "",
        args: &["build"],
        code: 1,
        size: MUCH,
    },
    Way {
        name: "out of time",
        target: r#"timeout "2s"; run "[lines]; sleep 100""#,
        before: "",
        args: &["build"],
        code: 1,
        size: MUCH,
    },
    Way {
        name: "held against what is expected",
        target: r#"expect "a line"; reject "never printed"; run "[lines]""#,
        before: "",
        args: &["build", "-q"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "without what is expected",
        target: r#"expect "never printed"; run "[line]""#,
        before: "",
        args: &["build"],
        code: 1,
        size: MUCH,
    },
    Way {
        name: "out of the cache",
        target: r#"outputs "o"; run "[lines]; echo > o""#,
        before: "[rel] build -q; rm -r .rel o",
        args: &["build", "-q"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "out of the cache, as it was",
        target: r#"outputs "o"; run "[line]; echo > o""#,
        before: "[rel] build -q; rm o",
        args: &["build", "-q"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "asked for",
        target: r#"run "[lines]; [line]""#,
        before: "[rel] build -q",
        args: &["log", "t"],
        code: 0,
        size: VERY_MUCH,
    },
    Way {
        name: "asked for by machines",
        target: r#"run "[lines]; [line]""#,
        before: "[rel] build -q",
        args: &["log", "t", "--json"],
        code: 0,
        size: MUCH,
    },
    Way {
        name: "in a sandbox",
        target: r#"sandbox "strict"; outputs "o"; run "[lines]; echo > o""#,
        before: "",
        args: &["build", "-q"],
        code: 0,
        size: VERY_MUCH,
    },
    Way {
        name: "watched",
        target: r#"outputs "o"; run "[lines]; echo > o""#,
        before: "",
        args: &["check", "--trace", "t"],
        code: 0,
        size: MUCH,
    },
];

/// Returns a space that needs no disk: a slow one would make these tests slow.
fn space(releasefile: &str) -> Space {
    let space = Space::in_memory();
    space.write("Releasefile.kdl", releasefile);
    space
}

/// Runs `rel` and returns its greatest size in KiB.
#[track_caller]
fn peak(space: &Space, args: &[&str], code: i32) -> u64 {
    let (most, output) = space.peak(args, false);
    assert_eq!(output.code, code, "{args:?}: {output}");
    most
}

#[test]
fn much_that_is_printed_costs_no_memory() {
    let mut told = Vec::new();
    for way in WAYS {
        let target = way.target.replace("[lines]", LINES).replace("[line]", LINE);
        let of_size = |size: &str| {
            let space = space(&format!("target \"t\" {{ inputs \"size\"; {target}; }}"));
            space.write("size", size);
            space.shell(&way.before.replace("[rel]", REL));
            peak(&space, way.args, way.code)
        };
        let (little, much) = (of_size("1000"), of_size(way.size));
        if much > little + ADDED_KIB_MAX {
            told.push(format!("{}: {little} KiB, then {much}", way.name));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// What is asked for is needed as a whole; so it has a limit, which is reported.
#[test]
fn answers_have_a_limit() {
    let questions = [
        (
            r#"target "t" { probe "[ask]"; run "true"; }"#,
            "probe of `t` failed: printed more than 1 MiB",
        ),
        (
            r#"target "t" { tool "[ask]"; run "true"; }"#,
            "tool of `t` failed: printed more than 1 MiB",
        ),
        (
            r#"target "t" { run "true"; product "[ask]"; }"#,
            "the `product` command of `t` printed more than 1 MiB",
        ),
        (
            r#"project "p" { version (command)"[ask]"; }
            target "t" { run "echo {version}"; }"#,
            "the version command failed: printed more than 1 MiB",
        ),
    ];
    for (text, expected) in questions {
        for ask in ["head -c 200000000 /dev/zero", "yes", "yes & sleep 1000"] {
            let space = Space::new(&text.replace("[ask]", ask));
            let told = space.run(["build"]).fails(1);
            assert!(told.stderr.contains(expected), "{told}");
            assert!(told.stderr.contains("let it print a digest"), "{told}");
        }
        let space = Space::new(&text.replace("[ask]", "yes"));
        let much = peak(&space, &["build"], 1);
        let space = Space::new(&text.replace("[ask]", "echo 1"));
        let little = peak(&space, &["build"], 0);
        assert!(
            much < little + ADDED_KIB_MAX,
            "{expected}: {little} KiB, then {much}"
        );
    }
    let space =
        Space::new(r#"target "t" { probe "head -c 30000000 /dev/zero >&2; echo 1"; run "true"; }"#);
    let _ = space.run(["build"]).ok();
}

#[test]
fn a_secret_has_a_limit() {
    let space = Space::new(
        r#"
host "h" local=#true root="h"
secret "s" command="yes"
environment "e" { use "r" on="h" s="s"; }
"#,
    );
    space.write(
        "recipes/r.kdl",
        r#"recipe "r" { param "s" type="secret"; step "s" { write "{host.root}/x" "{s}"; }; }"#,
    );
    let told = space.run(["e"]).fails(2);
    let expected = "there is no secret `s`: its command printed more than 1 MiB";
    assert!(told.stderr.contains(expected), "{told}");
}

/// A command that never stops printing is ended before it has filled the disk.
#[test]
fn a_log_has_a_limit() {
    // The second one has a log without an end at once.
    for command in ["yes", "seq 9; truncate -s 1T /dev/stdout; sleep 100"] {
        let space = space(&format!("target \"t\" {{ run \"{command}\"; }}"));
        let told = space.run(["build"]).fails(1);
        assert!(
            told.stderr
                .contains("`t` failed: printed more than 1024 MiB"),
            "{told}"
        );
        assert!(told.stderr.contains("make it print less"), "{told}");
        let kept = space.shell("stat -c %s .rel/logs/*");
        assert_eq!(kept.trim(), ((16 << 20) - 8).to_string());
    }
}

/// Nothing gets lost on the way to the disk.
#[test]
fn much_that_is_printed_arrives_whole() {
    let space =
        space(r#"target "t" { outputs "o"; run "seq 3000000; seq 3000000 >&2; echo > o"; }"#);
    let _ = space.run(["build", "-q"]).ok();
    let expected = space.shell("(seq 3000000; seq 3000000) | sha256sum");
    let sum = |space: &Space| space.shell(&format!("{REL} log t | sha256sum"));
    assert_eq!(sum(&space), expected);
    space.remove(".rel").remove("o");
    space.build([]).ok().is("t restored");
    assert_eq!(sum(&space), expected);
    let told = space.ask(["log", "t"]);
    assert_eq!(
        told["t"]["log"].as_str().map(str::len),
        Some(2 * 22_888_896)
    );
    // A command that empties its log says nothing of what was before.
    space.write(
        "Releasefile.kdl",
        r#"
target "t" {
    run "seq 3000000; sleep 0.3; : > /dev/stderr"
    run "seq 2000000; sleep 0.3; echo end"
}
"#,
    );
    let _ = space.run(["build", "-q"]).ok();
    assert_eq!(
        sum(&space),
        space.shell("(seq 2000000; echo end) | sha256sum")
    );
}
