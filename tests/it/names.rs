//! File names as they come: spaces, quotes, line ends, bytes that are no text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use insta::assert_snapshot;

use crate::space::Space;

/// Names that have broken build tools.
const NAMES: [&[u8]; 12] = [
    b"plain",
    b"with space",
    b"line\nend",
    b"tab\there",
    b"quote'quote",
    b"double\"double",
    b"back\\slash",
    b"$(touch pwned)",
    b"`touch pwned`; touch pwned #",
    b"-rf",
    b"\xff\xfe not text",
    b"{brace}*[a]?!",
];

fn space() -> Space {
    let space = Space::new(
        r#"
target "joined" {
    inputs "in/**"
    outputs "joined"
    run "cat ./{inputs} > {out}"
}
target "copy" {
    each "file" files="in/*"
    inputs "{file}"
    outputs "out/{file.name}"
    run "cp" "--" "{file}" "{out}"
}
target "shell-copy" {
    each "file" files="in/*"
    needs "copy[{file}]"
    outputs "again/{file.name}.{file.ext}x"
    run "cp -- {copy} {out}"
}
"#
        // A list splices as words; the dot would stand before the first alone.
        .replace("./{inputs}", "-- {inputs}")
        .as_str(),
    );
    for name in NAMES {
        space.write(OsStr::from_bytes(&[b"in/", name].concat()), name);
    }
    space
}

#[test]
fn any_name_goes_through() {
    let space = space();
    let told = space.build([]).ok();
    assert_eq!(told.0["targets"].as_object().expect("targets").len(), 25);
    for name in NAMES {
        let out = space.path(OsStr::from_bytes(&[b"out/", name].concat()));
        assert_eq!(fs::read(&out).expect("reads"), name, "{}", out.display());
    }
    assert_eq!(
        fs::read_dir(space.path("again")).expect("lists").count(),
        12
    );
    assert!(!space.has("pwned"));
    let again = space.build([]).ok();
    assert_eq!(again.processes(), 0);
    space.remove("out").remove("again").remove("joined");
    assert_eq!(space.build([]).ok().processes(), 0);
    for name in NAMES {
        let out = space.path(OsStr::from_bytes(&[b"out/", name].concat()));
        assert_eq!(fs::read(&out).expect("reads"), name, "{}", out.display());
    }
}

#[test]
fn names_are_shown_on_one_line() {
    let space = space();
    let _ = space.build([]).ok();
    for name in NAMES {
        space.write(OsStr::from_bytes(&[b"in/", name].concat()), "changed");
    }
    let why = space.run(["why"]).ok();
    assert!(why.stdout.chars().all(|c| c == '\n' || !c.is_control()));
    assert_snapshot!(space.run(["status", "copy"]).ok(), @r#"
      stale  copy[in/$(touch pwned)]  input `in/$(touch pwned)` changed  af725d5687fc7ae5 14 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/-rf]  input `in/-rf` changed  773b10a7dcbbdc8a 3 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/`touch pwned`; touch pwned #]  input `in/`touch pwned`; touch pwned #` changed  82d8016567721ab7 28 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/back\slash]  input `in/back\slash` changed  db77225afcd16d87 10 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/double"double]  input `in/double"double` changed  fbc35c85634f9422 13 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/line\nend]  input `in/line\nend` changed  66f231232294b4d5 8 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/plain]  input `in/plain` changed  d79b5f7ee0e69d01 5 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/quote'quote]  input `in/quote'quote` changed  78b06ef0ce782f6d 11 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/tab\there]  input `in/tab\there` changed  b02c93b6b4ef2092 8 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/with space]  input `in/with space` changed  b454631b06533256 10 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/{brace}*[a]?!]  input `in/{brace}*[a]?!` changed  7119aac28fd176b3 13 B -> 6a9f75eec6464a34 7 B
      stale  copy[in/\xff\xfe not text]  input `in/\xff\xfe not text` changed  0344e4a2841e6663 11 B -> 6a9f75eec6464a34 7 B
    0 targets up to date, 12 not
    "#);
}

#[test]
fn a_line_end_in_an_argument_is_no_second_command() {
    let space = Space::new(
        "var \"text\" \"a\\n touch pwned\"\ntarget \"a\" { outputs \"x\"; run \"printf %s {text} > {out}\"; }\n",
    );
    let _ = space.build([]).ok();
    assert_eq!(space.read("x"), "a\n touch pwned");
    let sly = "'; touch pwned; '$(touch pwned)\"";
    let _ = space.build(["--var", &format!("text={sly}")]).ok();
    assert_eq!(space.read("x"), sly);
    assert!(!space.has("pwned"));
}

#[test]
fn no_name_is_taken_for_an_option() {
    let space = Space::new(
        r#"target "t" { inputs "-n"; outputs "-o"; run "cat {in} > {out}"; run "test" "-s" "{out}"; }"#,
    );
    space.write("-n", "text\n");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("-o"), "text\n");
}

#[test]
fn no_form_of_a_path_is_taken_for_an_option() {
    // `say` prints its arguments, one a line.
    let space = Space::new(
        r#"
        var "none" ""
        target "each" {
            each "f" files="-*"
            inputs "{f}" "say"
            outputs "out/{f.name}"
            env WHOLE="{f}" NAME="{f.name}"
            tool "./say" "tool" "{f}"
            probe "./say probe {f} >&2"
            run "./say" "{f}" "{f.name}" "{f.stem}" "{f.stem}.gz" "{none}{f}" "--in={f}" "a{f}"
            run "./say {f} \"{f}\" '{f}' {f.stem}.gz {none}{f} --in={f} a{f} \"$WHOLE\" \"$NAME\""
            run "./say {in} {f.dir} {f.ext}; echo made > {out}"
            product "./say {f} {out} >&2; cat {out}"
        }
        target "below" {
            each "f" files="-d/*"
            inputs "{f}"
            outputs "-out/{f.name}"
            run "cat {f.dir}/{f.name} {f} > {out}"
        }
        target "after" {
            needs "below"
            dir "sub"
            outputs "sub/-o"
            run "cat {below} > {out}; cat ./-o {out}"
        }
        target "here" { needs "after"; dir "sub"; run "cat {after}"; }
        target "matrix" { matrix { word "-n" "-e"; }; inputs "say"; run "./say" "{word}"; }
        "#,
    );
    space
        .write("-n.x-y", "text\n")
        .write("-d/-n", "text\n")
        .write("sub/.keep", "")
        .write("say", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n");
    space.shell("chmod +x say");
    let _ = space.build([]).ok();
    assert_snapshot!(space.run(["log", "each"]).ok(), @"
    ./-n.x-y
    ./-n.x-y
    ./-n
    ./-n.gz
    ./-n.x-y
    --in=-n.x-y
    a-n.x-y
    ./-n.x-y
    ./-n.x-y
    ./-n.x-y
    ./-n.gz
    ./-n.x-y
    --in=-n.x-y
    a-n.x-y
    ./-n.x-y
    ./-n.x-y
    ./-n.x-y
    say
    .
    x-y
    ");
    for target in ["after", "here"] {
        let log = space.run(["log", target]).ok().stdout;
        assert!(
            log.lines().all(|line| line == "text") && !log.is_empty(),
            "{target}: {log}"
        );
    }
    // A value of an axis that is a text is what it says.
    assert_eq!(space.run(["log", "matrix[-n]"]).ok().stdout, "-n\n");
    let why = space.run(["why", "each"]).ok().stdout;
    assert!(why.contains("fresh"), "{why}");
    assert_eq!(space.build([]).ok().how("each[-n.x-y]"), "fresh");
}
