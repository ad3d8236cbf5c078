//! The terminal: text of others is shown there and moves nothing, wherever it comes from.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use regex::bytes::Regex;
use rel::deploy::protocol::words::hex;
use rel::deploy::report::plan_file::PlanContents;
use serde_json::{Value, json};

use crate::space::{REL, Space};

/// What a stranger puts into a text: a title, a cleared screen, a C1 sequence, an overridden
/// direction, a character without width, what moves within a line, hidden text, and a line end
/// with what looks like a message of `rel`.
const BAD: &str =
    "A\u{1b}]0;t\u{7}\u{1b}[2J\u{9b}2J\u{202e}\u{200b}\r\u{8}\u{7f}\u{1b}[8m\nforged: B";

/// Returns it as a KDL string has it.
fn kdl(text: &str) -> String {
    let escaped = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    };
    text.chars().map(escaped).collect()
}

/// Returns it as one word, for lists that are separated by blanks.
fn word() -> String {
    BAD.replace(['\n', '\r', ' '], "")
}

/// Returns a project in which a stranger has written all that can be written.
fn hostile() -> Space {
    let space = Space::new("");
    let (bad, word) = (kdl(BAD), kdl(&word()));
    let text = r#"
project "pBAD" { version "1BAD" }
var "v" "vBAD"
target "page" { desc "dBAD"; inputs "in*" "cmd.sh"; outputs "build/o"; env X="{v}"; run "sh cmd.sh; cat in* > {out}"; }
target "fails" { desc "dBAD"; env X="{v}"; run "sh cmd.sh; exit 1"; }
target "late" { needs "fails"; run "true"; }
target "each" { each "axis" "BAD" "b"; outputs "build/each-{axis}"; run "echo '{axis}' > {out}"; }
target "tooled" { tool "sh cmd.sh"; run "true"; }
target "asks" { tool "sh cmd.sh fail"; run "true"; }
target "told" { run "sh cmd.sh"; reject "OVER"; }
host "h" local=#true root="hosts/h" { var "x" "BAD"; }
host "down" ssh="nobody@127.0.0.1" port=1
environment "e" {
    desc "dBAD"
    param "p" one-of="one WORD" default="one" desc="dBAD"
    log "{host.root}/app.log" on="h"
    use "say" as="say" on="h" text="BAD {p}"
}
environment "guarded" { use "guarded" on="h"; }
environment "breaks" { use "breaks" on="h"; }
environment "lost" { use "lost" on="h" text="BAD"; }
environment "far" { use "say" on="down" text="BAD"; }
"#;
    space.write(
        "Releasefile.kdl",
        text.replace("BAD", &bad).replace("WORD", &word),
    );
    let octal = |text: &str| -> String { text.bytes().map(|b| format!("\\{b:03o}")).collect() };
    let (text, c1) = (octal(BAD), octal(&word_of_c1()));
    let script = format!(
        "say() {{ printf '{text}\\nOVER {c1} \\033[31mred\\n'; }}\nsay\n\
         if [ \"$1\" = fail ]; then say >&2; exit 1; fi\n"
    );
    space.write("cmd.sh", script);
    let mut name = b"in".to_vec();
    name.extend(BAD.replace('/', "").bytes());
    name.push(0x9b);
    space.write(OsString::from_vec(name), "1\n");
    let cmd = space.path("cmd.sh");
    let cmd = cmd.display();
    let step = |name: &str, body: String| {
        let body = body.replace("BAD", &bad);
        let recipe = format!("recipe \"{name}\" {{ desc \"dBAD\"; {body}; }}\n");
        space.write(
            format!("recipes/{name}.kdl"),
            recipe.replace("dBAD", &format!("d{bad}")),
        );
    };
    step(
        "say",
        format!(
            r#"param "text"; fact "f" "sh {cmd}"; step "w" {{ write "{{host.root}}/WORD" "{{text}} {{f}}\n"; }}; step "run" {{ run "sh {cmd} | tee -a {{host.root}}/app.log; : {{text}}"; }}"#
        )
        .replace("WORD", &word),
    );
    step(
        "guarded",
        format!(
            r#"guard "no" "sh {cmd} fail"; guard "too" "sh {cmd} fail"; step "s" {{ run "true"; }}"#
        ),
    );
    step(
        "breaks",
        format!(r#"step "s" {{ run "sh {cmd} fail"; undo "sh {cmd} fail"; }}"#),
    );
    step(
        "lost",
        String::from(r#"param "text"; step "s" destructive="BAD {text}" { run "true"; }"#),
    );
    space
}

/// Returns C1 characters alone, which some terminals take for `ESC [`.
fn word_of_c1() -> String {
    String::from("\u{9b}31m\u{85}\u{90}q\u{9c}")
}

/// Runs a command to its end and returns all that it printed, to the byte.
#[track_caller]
fn raw(command: &mut Command) -> (i32, Vec<u8>) {
    let output = command.stdin(Stdio::null()).output().expect("starts");
    let code = output.status.code().unwrap_or(-1);
    (code, [output.stdout, output.stderr].concat())
}

/// Asserts that nothing in there moves a cursor, or begins a line that a stranger wrote.
#[track_caller]
fn is_harmless(words: &str, printed: &[u8], has_colours: bool) {
    let colours = Regex::new(r"\x1b\[[0-9;:]*m").expect("a pattern");
    let plain = match has_colours {
        true => colours.replace_all(printed, &b""[..]).into_owned(),
        false => printed.to_vec(),
    };
    let text =
        String::from_utf8(plain).unwrap_or_else(|e| panic!("{words} prints what is no text: {e}"));
    let bad = text.char_indices().find(|(_, c)| {
        !matches!(c, '\n' | '\t') && (c.is_control() || rel::core::escape::is_unsafe(*c))
    });
    if let Some((at, c)) = bad {
        let before: String = text[..at].chars().rev().take(200).collect();
        let before: String = before.chars().rev().collect();
        panic!("{words} prints {c:?} behind {before:?}");
    }
    let forged = text.lines().find(|l| l.starts_with("forged"));
    assert_eq!(
        forged, None,
        "{words} prints a line of somebody else:\n{text}"
    );
    // A colour that was begun ends with its line.
    if has_colours {
        for line in printed.split(|b| *b == b'\n') {
            let last = colours.find_iter(line).last();
            let ends = |m: &regex::bytes::Match<'_>| matches!(m.as_bytes(), b"\x1b[0m" | b"\x1b[m");
            assert!(
                last.as_ref().is_none_or(ends),
                "{words}: {:?}",
                line.escape_ascii().to_string()
            );
        }
    }
}

/// Runs `rel` with and without colours, and with `--json`, and holds all that it prints against
/// [`is_harmless`]. Returns what it printed without colours.
#[track_caller]
fn check(space: &Space, words: &[&OsStr], code: i32) -> String {
    let shown = format!("rel {words:?}");
    let mut plain = String::new();
    for (more, has_colours) in [
        (&["--color", "always"][..], true),
        (&["--color", "never"][..], false),
        (&["--color", "always", "--json"][..], true),
    ] {
        let mut rel = space.rel(more);
        rel.args(words);
        let (found, printed) = raw(&mut rel);
        let text = String::from_utf8_lossy(&printed).into_owned();
        assert_eq!(found, code, "{shown} {more:?}:\n{text}");
        is_harmless(&shown, &printed, has_colours);
        if !has_colours {
            plain = text;
        }
    }
    plain
}

#[track_caller]
fn asked(space: &Space, line: &str, code: i32) -> String {
    let words: Vec<&OsStr> = line.split(' ').map(OsStr::new).collect();
    check(space, &words, code)
}

#[test]
fn text_of_a_project_moves_nothing() {
    let space = hostile();
    for (line, code) in [
        ("list", 0),
        ("check", 0),
        ("status", 0),
        ("why", 0),
        ("plan", 0),
        ("build -n", 0),
        ("build page", 0),
        ("build --force -v page", 0),
        ("build -k fails late each told", 1),
        ("-vv build --stats tooled", 0),
        ("build asks", 1),
        ("why fails each", 0),
        ("status", 0),
        ("hash page each", 0),
        ("log", 0),
        ("check --trace page", 0),
        ("cache size", 0),
        ("completions bash", 0),
        ("completions zsh", 0),
        ("completions fish", 0),
        ("init --print", 0),
        ("nothing", 2),
        ("e --help", 0),
        ("runbook e", 0),
        ("runbook e --offline", 0),
    ] {
        let _ = asked(&space, line, code);
    }
    // What is on the command line is no better: scripts put names there.
    for (words, code) in [
        (&[BAD][..], 2),
        (&["build", BAD], 2),
        (&["--var", BAD, "list"], 2),
        (&["--var", &format!("v={BAD}"), "list"], 0),
        (&["-C", BAD, "list"], 2),
        (&["-f", BAD, "list"], 2),
        (&["--hosts", BAD, "list"], 2),
        (&["e", BAD, "--plan"], 2),
        (&["e", &format!("--{BAD}")], 2),
        (&["plan", "e", &format!("--{BAD}")], 2),
        (&["hosts", BAD], 2),
        (&["log", BAD, "-f"], 2),
        (&["cache", "prune", "--older-than", BAD], 2),
        (&["guarded", "--override", BAD, "--reason", BAD], 2),
        (&["lost", "--confirm", BAD], 2),
        (&["apply", BAD], 1),
        (&["lock", "e", "--reason", "x", "--for", BAD], 2),
    ] {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let _ = check(&space, &words, code);
    }
    // A changed value is reported, old and new.
    let text = space.read("Releasefile.kdl").replace("\"vA", "\"wA");
    space.write("Releasefile.kdl", text);
    assert!(asked(&space, "why page", 0).contains("\\u{1b}]0;t"));
}

#[test]
fn what_hosts_and_colleagues_say_moves_nothing() {
    let space = hostile();
    for (line, code) in [
        ("e --plan", 0),
        ("e one --force -v", 0),
        ("e --plan -v", 0),
        ("log e", 0),
        ("log e -n 3", 0),
        ("status e", 0),
        ("history e", 0),
        ("hosts", 1),
        ("hosts h", 0),
        ("attach e", 0),
        ("runbook e", 0),
        ("guarded --plan", 0),
        ("guarded", 1),
        ("breaks", 4),
        ("lost --plan", 0),
        ("lost", 2),
        ("far --plan", 1),
        ("status far", 0),
        ("promote e", 2),
    ] {
        let _ = asked(&space, line, code);
    }
    // A colleague edits the plan that is to be approved.
    let _ = space
        .run(["-q", "e", "--force", "--plan-out", "plan.json"])
        .ok();
    let mut plan: Value = serde_json::from_str(&space.read("plan.json")).expect("JSON");
    let safe = |text: &str| !text.contains(|c| c != '\n' && rel::core::escape::is_unsafe(c));
    assert!(safe(&space.read("plan.json")));
    plan["body"]["made_by"] = json!(BAD);
    plan["body"]["version"] = json!(BAD);
    plan["body"]["plan"]["jobs"][0]["told"] = json!([BAD]);
    plan["body"]["plan"]["jobs"][0]["steps"][0]["reason"] = json!(BAD);
    plan["body"]["plan"]["jobs"][0]["steps"][0]["difference"] =
        json!({"path": BAD, "kind": "text", "unified": BAD});
    let body: PlanContents = serde_json::from_value(plan["body"].clone()).expect("a body");
    let body = serde_json::to_string(&body).expect("JSON");
    plan["digest"] = json!(hex(body.as_bytes()));
    plan["approvals"] = json!([{"user": BAD, "time": 1, "digest": plan["digest"], "reason": BAD}]);
    space.write("plan.json", plan.to_string());
    for (words, code) in [
        (&["approve", "plan.json", "--plan"][..], 0),
        (&["-v", "approve", "plan.json", "--reason", BAD], 0),
        (&["apply", "plan.json", "--plan"], 1),
        (&["apply", "plan.json"], 1),
    ] {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let _ = check(&space, &words, code);
    }
    assert!(safe(&space.read("plan.json")), "approved");
    // A host that does not even let us in says something all the same.
    let ssh = space.path("ssh.sh");
    space.write("ssh.sh", "#!/bin/sh\ncd \"${0%/*}\" && sh cmd.sh fail\n");
    space.shell("chmod +x ssh.sh");
    for line in [
        "far --plan",
        "far",
        "hosts",
        "status far",
        "history far",
        "log far",
    ] {
        let mut rel = space.rel(line.split(' '));
        rel.env("REL_SSH", &ssh);
        let (_, printed) = raw(&mut rel);
        is_harmless(line, &printed, false);
        let text = String::from_utf8_lossy(&printed);
        assert!(text.contains("OVER"), "{line}: {text}");
    }
    // Another user of the host writes into its journal, and takes the lease.
    let journal = "hosts/h/.rel/e-one/journal";
    let mut text = fs::read(space.path(journal)).expect("reads");
    let bad = BAD.replace(['\n', '\t'], "");
    for event in [
        "start",
        "done",
        "note",
        "plan",
        "approved",
        "ok",
        "overridden",
    ] {
        text.extend(
            format!("1\t{event}\t9999999999\tr9{bad}\tsay\tsay/w{bad}\tk{bad}\t{bad}\t{bad}\n")
                .bytes(),
        );
    }
    text.extend(b"1\tnote\t9999999999\tr9\t-\t\x9b\xff\tk\tme\t\x9b\n");
    fs::write(space.path(journal), text).expect("writes");
    let lock = |words: &[&str]| {
        let mut rel = space.rel(words);
        rel.env("USER", BAD);
        let (code, printed) = raw(&mut rel);
        is_harmless(&format!("{words:?}"), &printed, false);
        code
    };
    for (line, code) in [
        ("history e", 0),
        ("status e", 0),
        ("e --plan", 0),
        ("runbook e", 0),
    ] {
        let _ = asked(&space, line, code);
    }
    assert_eq!(lock(&["lock", "e", "--reason", BAD]), 0);
    for (line, code) in [
        ("e --force", 1),
        ("e --plan --force", 0),
        ("unlock e", 1),
        ("lock e --reason x", 1),
        ("unlock e --break --reason x", 0),
    ] {
        let words = line.split(' ').map(OsStr::new).collect::<Vec<_>>();
        let mut rel = space.rel(&words);
        let (found, printed) = raw(&mut rel);
        let text = String::from_utf8_lossy(&printed);
        assert_eq!(found, code, "rel {line}:\n{text}");
        is_harmless(line, &printed, false);
    }
}

#[test]
fn mistakes_are_drawn_with_their_escapes_shown() {
    // Raw characters in the file, which KDL itself forbids, and escaped ones in its strings.
    let space = Space::new("target \"a\" { desc \"x\u{1b}[2Jy\"; inptus \"b\" }\r\n");
    let drawn = asked(&space, "check", 2);
    assert_snapshot!(drawn, @r#"
    rel::build::releasefile::syntax

      × expected quoted string
       ╭─[Releasefile.kdl:1:19]
     1 │ target "a" { desc "x\u{1b}[2Jy"; inptus "b" }
       ·                   ──────┬──────
       ·                         ╰── not quoted string
       ╰────
    "#);
    space.write(
        "Releasefile.kdl",
        format!(
            "target \"a\" {{ run \"true\"; needs \"{bad}\"; inputs \"{{{bad}}}\"; }} // \u{9b}2J\u{202e}\n\
             target \"a\" {{ run \"{bad}{{x}}\"; }}\nenvironment \"e\" {{ use \"{bad}\" on=\"{bad}\"; \
             param \"{bad}\"; }}\nhost \"{bad}\" local=#true root=\"x\"\n",
            bad = kdl(BAD)
        ),
    );
    let _ = asked(&space, "check", 2);
    space.write(
        "Releasefile.kdl",
        "host \"h\" local=#true root=\"h\"\nenvironment \"e\" { use \"r\" on=\"h\" }\n",
    );
    space.write(
        "recipes/r.kdl",
        format!("recipe \"r\" {{ // \u{1b}[2J\u{202e}\n  step \"{0}\" {{ run \"{0}\"; when \"{0}\" }} }}\n", kdl(BAD)),
    );
    let _ = asked(&space, "check", 2);
    space.write(
        OsString::from_vec(b"recipes/\x1b[2J\xff.kdl".to_vec()),
        "recipe \"x\" {}\n",
    );
    let _ = asked(&space, "check", 2);
}

#[test]
fn a_log_is_shown_on_a_terminal_and_written_as_it_is() {
    let space = Space::new(
        "target \"a\" { run \"printf 'a\\\\033[2J\\\\377\\\\033[31mred\\\\r\\\\n'\"; }\n",
    );
    let _ = space.run(["build"]).ok();
    let mut rel = space.rel(["log", "a"]);
    assert_eq!(raw(&mut rel), (0, b"a\x1b[2J\xff\x1b[31mred\r\n".to_vec()));
    for (colour, expected) in [
        ("always", "a\\u{1b}[2J\u{fffd}\u{1b}[31mred\u{1b}[0m\n"),
        ("never", "a\\u{1b}[2J\u{fffd}red\n"),
    ] {
        let mut script = space.program("script");
        let words = format!("{REL} --color {colour} log a");
        script.args(["-qec", &words, "/dev/null"]);
        script.env("TERM", "xterm");
        let (code, printed) = raw(&mut script);
        let printed = String::from_utf8_lossy(&printed).replace("\r\n", "\n");
        assert_eq!((code, printed.as_str()), (0, expected));
    }
}

#[test]
fn the_live_display_shows_names_as_they_are_not_obeyed() {
    let space = hostile();
    for line in ["build -k", "e --force"] {
        let mut script = space.program("script");
        script.args(["-qec", &format!("{REL} {line}"), "/dev/null"]);
        script.env("TERM", "xterm");
        let (_, printed) = raw(&mut script);
        let text = String::from_utf8(printed).expect("is text");
        // It moves its own line, so that only what is a stranger's is looked for.
        for bad in [
            "\u{1b}]",
            "\u{9b}",
            "\u{202e}",
            "\u{200b}",
            "\u{8}",
            "\u{7}",
            "\u{1b}[8m",
            "\nforged",
        ] {
            assert!(!text.contains(bad), "{line}: {bad:?} in {text:?}");
        }
        assert!(text.contains("\\u{1b}]0;t"), "{text:?}");
    }
}

#[test]
fn a_directory_with_such_a_name_gets_a_releasefile_that_loads() {
    let space = Space::empty();
    let name = b"a\x1b[2J \xc2\x9b\xe2\x80\xae\\\"{x}".to_vec();
    let dir = space.path(OsString::from_vec(name));
    fs::create_dir(&dir).expect("creates");
    for words in [&["init", "--print"][..], &["init"], &["list"], &["check"]] {
        let mut rel = space.rel(words);
        let (code, printed) = raw(rel.current_dir(&dir));
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&printed));
        is_harmless(&format!("{words:?}"), &printed, false);
    }
    let text = fs::read_to_string(dir.join("Releasefile.kdl")).expect("reads");
    assert!(text.contains("\\u{1b}[2J \\u{9b}\\u{202e}"), "{text}");
}

/// A completion script is run by whoever presses the tabulator in that directory, and its shell
/// expands what stands in a list of words.
#[test]
fn a_completion_runs_nothing_of_a_releasefile() {
    let space = Space::new(
        r#"
environment "e" {
    desc "$(touch ran1) `touch ran2` '; touch ran3; '"
    param "p" one-of="plain $(touch$IFS$9ran4) `touch$IFS$9ran5` x;touch$IFS$9ran6;" default="plain" desc="$(touch ran7)"
}
"#,
    );
    let script = space.run(["completions", "bash"]).ok().stdout;
    space.write("complete.bash", &script);
    let asked = "source ./complete.bash; COMP_WORDS=(rel e ''); COMP_CWORD=2; _rel rel '' e; \
                 printf '%s\\n' \"${COMPREPLY[@]}\"";
    let words = space
        .finish(space.program("bash").args(["-c", asked]))
        .ok()
        .stdout;
    assert!(words.lines().any(|word| word == "plain"), "{words}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = space.run(["completions", shell]).ok().stdout;
        let found = (1..=7).find(|n| script.contains(&format!("ran{n}")));
        assert_eq!(found, None, "{shell}:\n{script}");
    }
    let ran = (1..=7).filter(|n| space.has(format!("ran{n}")));
    assert_eq!(ran.count(), 0);
    // Help tells all of it.
    let help = space.run(["e", "--help"]).ok().stdout;
    assert!(
        help.contains("$(touch ran1)") && help.contains("x;touch$IFS$9ran6;"),
        "{help}"
    );
}
