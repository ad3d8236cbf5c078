//! The pages: each link leads somewhere, lines can be read in one look. The words of pages, messages,
//! comments and recipes are those of the field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use regex::Regex;

use super::tidy::{none, root};

/// Columns of a line of prose. Tables, code and links can not be wrapped.
const COLUMNS_MAX: usize = 100;

/// Words of which a reader would have to guess the meaning, and what is written instead.
const BANNED: [(&str, &str); 12] = [
    (r"(?i)\bwhoever\b", "the person, the user, the process"),
    (r"(?i)\bway back\b|\bgoes back\b", "rollback, roll back"),
    (
        r"\b(is|are|was) (told|said)\b",
        "prints a warning, is reported",
    ),
    (r"\bcan not\b", "cannot"),
    (r"(?i)\bgone over\b", "overridden"),
    (r"(?i)\b(the|a) rooms?\b", "module, space"),
    (r"(?i)\bshel(f|ves)\b", "table"),
    (r"(?i)\bhands of\b", "executor"),
    (r"(?i)\bthat which\b", "a noun"),
    (r"(?i)\bnobody\b", "no user, no process"),
    (r"(?i)\bsomebody\b", "a person, another user"),
    (r"(?i)\btalks nonsense\b", "unexpected reply"),
];

struct Page {
    /// Relative to the repository.
    name: PathBuf,
    text: String,
}

/// Returns all pages for people: those at the top, and below `docs`, `benches` and `examples`.
fn pages() -> Vec<Page> {
    let top = walkdir::WalkDir::new(root()).max_depth(1).into_iter();
    let below = ["docs", "benches", "examples"].map(|dir| {
        walkdir::WalkDir::new(root().join(dir))
            .into_iter()
            .filter_entry(|e| {
                !["build", "dist", ".rel"]
                    .iter()
                    .any(|d| e.file_name() == *d)
            })
    });
    let mut found = Vec::new();
    for entry in top.chain(below.into_iter().flatten()) {
        let path = entry.expect("lists").into_path();
        if path.extension().is_some_and(|e| e == "md") {
            found.push(Page {
                name: path.strip_prefix(root()).expect("below").to_owned(),
                text: std::fs::read_to_string(&path).expect("is text"),
            });
        }
    }
    assert!(found.len() > 20);
    found
}

/// Returns the lines outside of fenced blocks, with their numbers from 1.
fn prose(page: &Page) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let numbered = page.text.lines().enumerate();
    let outside = numbered.filter(|(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    outside.map(|(i, line)| (i + 1, line)).collect()
}

/// Returns the anchors of a page, as GitHub makes them of headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut count = BTreeMap::<String, usize>::new();
    let mut found = BTreeSet::new();
    for (_, line) in prose(page) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || "_- ".contains(*c);
        let title: String = title.trim().to_lowercase().chars().filter(kept).collect();
        let anchor = title.replace(' ', "-");
        let seen = count.entry(anchor.clone()).or_default();
        found.insert(match *seen {
            0 => anchor,
            n => format!("{anchor}-{n}"),
        });
        *seen += 1;
    }
    found
}

/// Returns a path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let pages = pages();
    let anchors: BTreeMap<&Path, BTreeSet<String>> = pages
        .iter()
        .map(|p| (p.name.as_path(), anchors(p)))
        .collect();
    let mut dead = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (line, text) in prose(page) {
            for found in link.captures_iter(text) {
                let (file, anchor) = found[1].split_once('#').unwrap_or((&found[1], ""));
                if file.contains(':') {
                    continue;
                }
                count += 1;
                let to = match file {
                    "" => page.name.clone(),
                    file => plain(&page.name.parent().expect("a directory").join(file)),
                };
                let is_there = match (anchor, anchors.get(to.as_path())) {
                    ("", _) => root().join(&to).exists(),
                    (anchor, known) => known.is_some_and(|known| known.contains(anchor)),
                };
                if !is_there {
                    dead.push(format!("{}:{line}: {}", page.name.display(), &found[1]));
                }
            }
        }
    }
    assert!(count > 100, "only {count} links");
    none("links that lead nowhere", dead);
}

#[test]
fn prose_is_wrapped() {
    let mut long = Vec::new();
    for page in pages() {
        for (number, line) in prose(&page) {
            let is_table = line.trim_start().starts_with('|');
            if line.chars().count() > COLUMNS_MAX && !is_table && !line.contains("://") {
                long.push(format!("{}:{number}", page.name.display()));
            }
        }
    }
    none("lines over 100 columns", long);
}

#[test]
fn pages_use_the_words_of_the_field() {
    let banned = BANNED.map(|(word, instead)| (Regex::new(word).expect("a pattern"), instead));
    let code = Regex::new("`[^`]*`").expect("a pattern");
    let mut found = Vec::new();
    for page in pages() {
        for (number, line) in prose(&page) {
            // What is in backticks is said by the program.
            let line = code.replace_all(line, "`x`");
            for (word, instead) in &banned {
                if word.is_match(&line) {
                    let at = format!("{}:{number}: {line}", page.name.display());
                    found.push(format!("{at}\n    say: {instead}"));
                }
            }
        }
    }
    for (at, line) in texts() {
        for (word, instead) in &banned {
            if word.is_match(&line) {
                found.push(format!("{at}: {line}\n    say: {instead}"));
            }
        }
    }
    none("words that a reader has to guess", found);
}

/// Returns what the sources and the shipped recipes say to people, line by line and with its
/// place: comments, messages of more than one word, and descriptions.
fn texts() -> Vec<(String, String)> {
    let message = Regex::new(r#""(?:[^"\\]|\\.)* (?:[^"\\]|\\.)*""#).expect("a pattern");
    let mut found = Vec::new();
    for dir in ["src", "recipes"] {
        for entry in walkdir::WalkDir::new(root().join(dir)) {
            let path = entry.expect("lists").into_path();
            let kind = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            let is_test = path.iter().any(|part| part == "tests") || path.ends_with("tests.rs");
            let (comment, says): (&str, &[&str]) = match kind {
                "rs" => ("//", &[]),
                "sh" => (
                    "#",
                    &["printf '", "echo ", "rel_say ", "rel_emit ", "rel_warn "],
                ),
                "kdl" => ("//", &["desc=\"", "desc \""]),
                _ => continue,
            };
            if is_test {
                continue;
            }
            let name = path
                .strip_prefix(root())
                .expect("below")
                .display()
                .to_string();
            let text = std::fs::read_to_string(&path).expect("is text");
            for (number, line) in (1..).zip(text.lines()) {
                let at = || format!("{name}:{number}");
                if line.trim_start().starts_with(comment) || says.iter().any(|s| line.contains(s)) {
                    found.push((at(), line.trim().to_owned()));
                } else if kind == "rs" {
                    let texts = message.find_iter(line).map(|m| m.as_str());
                    found.extend(texts.map(|text| (at(), text.to_owned())));
                }
            }
        }
    }
    assert!(found.len() > 5000, "{}", found.len());
    found
}
