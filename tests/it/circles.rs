//! No circle of files: what a file uses does not use that file, also not by way of others.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::tidy::{none, root};

/// Circles that are left. Parts may only be taken from this list.
const LEFT: [&[&str]; 2] = [
    &[
        "cli/state_dir",
        "cli/trust",
        "cli/workspace",
        "cli/workspace_lock",
    ],
    &[
        "deploy/remote/executor",
        "deploy/remote/roll_back",
        "deploy/remote/roll_back/left",
        "deploy/remote/rollout",
        "deploy/remote/step_batch",
    ],
];

/// The modules that each module uses. A module may use the roots above it, which declare it and
/// hold the types of all their children.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Returns the product code of all modules, by path below `src`, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    let comment = Regex::new(r"//[^\n]*").expect("a pattern");
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root().join("src")) {
        let path = entry.expect("lists").into_path();
        let name = path.strip_prefix(root().join("src")).expect("below");
        let name = name.display().to_string();
        let Some(module) = name.strip_suffix(".rs") else {
            continue;
        };
        if name
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs")
            || module == "main"
        {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("is text");
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
        found.insert(
            module.to_owned(),
            comment.replace_all(product, "").into_owned(),
        );
    }
    assert!(found.len() > 200, "{}", found.len());
    found
}

/// Returns the paths of a tree of a `use`: `a::{b, c::{d, e}}` has three.
fn paths(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        return vec![path.trim().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| paths(&format!("{}{}", head.trim(), part.trim())))
        .collect()
}

fn uses() -> Uses {
    let modules = modules();
    let tree = Regex::new(r"(?s)\buse\s+([^;]+);").expect("a pattern");
    let path = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+").expect("a pattern");
    let mut all = Uses::new();
    for (module, text) in &modules {
        let mut used = BTreeSet::new();
        let trees = tree.captures_iter(text).flat_map(|found| paths(&found[1]));
        let inline = path.find_iter(text).map(|found| found.as_str().to_owned());
        for path in trees.chain(inline) {
            let mut base: Vec<&str> = module.split('/').collect();
            let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
            match parts[0] {
                "crate" => base.clear(),
                "self" => {}
                "super" => {
                    while parts.first() == Some(&"super") {
                        base.pop();
                        parts.remove(0);
                    }
                    parts.insert(0, "");
                }
                _ => parts.insert(0, ""),
            }
            let mut whole = [base, parts[1..].to_vec()].concat();
            // The longest beginning that is a module.
            while !whole.is_empty() && !modules.contains_key(&whole.join("/")) {
                whole.pop();
            }
            let name = whole.join("/");
            if name != *module && !name.is_empty() && !module.starts_with(&format!("{name}/")) {
                used.insert(name);
            }
        }
        all.insert(module.clone(), used);
    }
    all
}

/// Returns all modules that are reached from one.
fn reached<'a>(uses: &'a Uses, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = uses[from].iter().map(String::as_str).collect();
    while let Some(module) = open.pop() {
        if found.insert(module) {
            open.extend(uses[module].iter().map(String::as_str));
        }
    }
    found
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let uses = uses();
    let edges: usize = uses.values().map(BTreeSet::len).sum();
    assert!(edges > 500, "{edges}");
    let reach: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|module| (module.as_str(), reached(&uses, module)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, reached) in &reach {
        let circle = reached
            .iter()
            .filter(|other| reach[**other].contains(module));
        let circle: Vec<&str> = circle.copied().collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    let is_new = |circle: &&Vec<&str>| {
        !LEFT
            .iter()
            .any(|left| circle.iter().all(|m| left.contains(m)))
    };
    let new = circles.iter().filter(is_new).map(|circle| circle.join(" "));
    none("files that use each other in a circle", new.collect());
    for left in LEFT {
        let stays = circles.iter().any(|circle| circle == left);
        assert!(stays, "{left:?} is no circle any more: shorten the list");
    }
}
