//! `rel help`, and the page of the command line, which names each option of each command.

use std::collections::BTreeSet;

use regex::Regex;

use crate::space::Space;

const PAGE: &str = include_str!("../../docs/reference/command-line.md");

#[test]
fn help_describes_a_command_and_a_node() {
    let space = Space::empty();
    let help = |name: &str| space.run(["help", name]).ok().stdout;
    assert!(help("build").contains("Usage: rel build"));
    let inputs = help("inputs");
    assert!(inputs.starts_with("inputs\nThe files that"), "{inputs}");
    for part in ["**Type**", "**Where**", "```kdl", "`optional`"] {
        assert!(inputs.contains(part), "{part}: {inputs}");
    }
    let needs = help("needs");
    assert!(needs.starts_with("needs (target)\n"), "{needs}");
    assert!(needs.contains("\n\nneeds (environment)\n"), "{needs}");
    let cache = help("cache");
    assert!(cache.contains("Usage: rel cache"), "{cache}");
    assert!(cache.contains("\n\ncache\n"), "{cache}");
    let all = space.run(["help"]).ok().stdout;
    assert_eq!(all, space.run(["--help"]).ok().stdout);
    let answer = space.ask(["help", "needs"]);
    assert_eq!(answer["nodes"][1]["title"], "needs (environment)");
    let near = space.run(["help", "inptus"]).fails(2).stderr;
    assert!(near.contains("did you mean `inputs`?"), "{near}");
}

#[test]
fn the_page_of_the_command_line_names_each_option() {
    let space = Space::empty();
    space.write("Releasefile.kdl", "environment \"live\" {}\n");
    let option = Regex::new(r"(?m)^ +(?:-\w, )?--([a-z-]+)").expect("a pattern");
    let options = |text: &str| -> BTreeSet<String> {
        let found = option.captures_iter(text);
        found.map(|found| found[1].to_owned()).collect()
    };
    let commands = Regex::new(r"(?m)^  ([a-z]+)  ").expect("a pattern");
    let all = space.run(["help"]).ok().stdout;
    let common = options(&all);
    let mut names: Vec<String> = commands
        .captures_iter(&all)
        .map(|found| found[1].to_owned())
        .collect();
    assert!(names.len() > 20, "{names:?}");
    names.push(String::from("ENVIRONMENT"));
    let shared = section("## Options of a build");
    let mut wrong = Vec::new();
    for name in &names {
        let text = match name.as_str() {
            "ENVIRONMENT" => space.run(["live", "--help"]),
            name => space.run(["help", name]),
        };
        let own = section(&format!("### `{name}`"));
        if own.is_empty() && !["lock", "unlock"].contains(&name.as_str()) {
            wrong.push(format!("{name}: no section"));
        }
        for option in options(&text.ok().stdout).difference(&common) {
            let is_named = |text: &str| text.contains(&format!("--{option}"));
            if !is_named(&own) && !is_named(&shared) {
                wrong.push(format!("{name}: --{option}"));
            }
        }
    }
    let every = section("## Options of every command");
    wrong.extend(
        common
            .iter()
            .filter(|option| !every.contains(&format!("--{option}")))
            .cloned(),
    );
    assert!(wrong.is_empty(), "{PAGE_NAME}:\n{}", wrong.join("\n"));
}

const PAGE_NAME: &str = "docs/reference/command-line.md";

/// Returns the sections of the page whose heading begins with this, such as `### `check`` and
/// `### `check --trace``.
fn section(heading: &str) -> String {
    let heading = heading.trim_end_matches('`');
    let level = heading.split(' ').next().expect("a level");
    let mut text = String::new();
    let mut is_in = false;
    for line in PAGE.lines() {
        if line.starts_with('#')
            && line
                .split(' ')
                .next()
                .is_some_and(|l| l.len() <= level.len())
        {
            is_in = line.starts_with(heading);
        }
        if is_in {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
