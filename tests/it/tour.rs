//! The tour of `docs/tutorial.md`: typed as it stands there, with the output that stands
//! there.

use std::path::Path;

use regex::Regex;

use crate::space::{PATH, REL, Space};

/// What is typed, and what follows it: output, or for `cat > FILE` the lines of the file.
struct Typed {
    command: String,
    lines: String,
}

/// Returns all that the blocks of a section say.
fn blocks(section: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    let mut is_inside = false;
    for line in section.lines() {
        match (line, is_inside) {
            ("```console", false) => is_inside = true,
            ("```", true) => is_inside = false,
            (_, true) => match (line.strip_prefix("$ "), typed.last_mut()) {
                (Some(command), _) => typed.push(Typed {
                    command: command.to_owned(),
                    lines: String::new(),
                }),
                (None, Some(last)) => last.lines.push_str(&format!("{line}\n")),
                (None, None) => panic!("output before any command: {line}"),
            },
            _ => {}
        }
    }
    typed
}

/// Replaces digests, which depend on who packs the archive.
fn plain(space: &Space, text: &str) -> String {
    let digests = Regex::new(r"\b[0-9a-f]{12}\b").expect("a pattern");
    let text = space.filtered(text).replace("[work]/", "");
    digests.replace_all(&text, "[DIGEST]").into_owned()
}

#[test]
fn the_tour_says_what_happens() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let page = std::fs::read_to_string(page).expect("reads");
    let section = page.split("\n## The tour\n").nth(1).expect("a tour");
    let section = section.split("\n## ").next().expect("a section");
    let typed = blocks(section);
    assert!(typed.len() > 8, "the tour is too short to be one");

    let space = Space::empty();
    let bin = Path::new(REL).parent().expect("a directory");
    for Typed { command, lines } in typed {
        if let Some(file) = command.strip_prefix("cat > ") {
            space.write(file, lines);
            continue;
        }
        let mut shell = space.program("sh");
        shell.env("PATH", format!("{}:{}", bin.display(), *PATH));
        // As on a terminal, which shows both.
        shell.args(["-c", &format!("exec 2>&1; {command}")]);
        let output = space.finish(&mut shell).ok();
        let said = plain(&space, &output.stdout);
        assert_eq!(said, plain(&space, &lines), "after `{command}`");
    }
}
