//! The rules that no compiler checks: what each file opens with, how long it is, what may not stand
//! in it, and which module may use which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A file of the repository.
struct Source {
    path: PathBuf,
    /// Relative to the repository, for messages.
    name: String,
    text: String,
}

impl Source {
    /// Returns the text before the unit tests.
    fn product(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    /// Returns whether it holds nothing but tests.
    fn is_test(&self) -> bool {
        self.name.starts_with("tests/") || self.name.contains("/tests")
    }

    /// Returns the layer: the first part of the path below `src`.
    fn layer(&self) -> &str {
        let below = self.name.trim_start_matches("src/");
        let first = below.split('/').next().unwrap_or(below);
        first.trim_end_matches(".rs")
    }

    /// Returns the module: of `core` and `build` the part of the path below the layer, of the others
    /// the layer itself, except for the terminal (`ui`).
    fn module(&self) -> &str {
        let mut parts = self.name.trim_start_matches("src/").split('/');
        let first = parts.next().unwrap_or_default().trim_end_matches(".rs");
        let second = parts.next().unwrap_or_default().trim_end_matches(".rs");
        match (first, second) {
            ("core" | "build", second) if !second.is_empty() => second,
            ("cli", "ui") => "ui",
            _ => first,
        }
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files below some directories with some endings.
fn files(dirs: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for dir in dirs {
        for entry in walkdir::WalkDir::new(root().join(dir)).sort_by_file_name() {
            let entry = entry.expect("lists");
            let path = entry.path();
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            if !entry.file_type().is_file() || !endings.contains(&ending) {
                continue;
            }
            found.push(Source {
                path: path.to_owned(),
                name: path
                    .strip_prefix(root())
                    .expect("below")
                    .display()
                    .to_string(),
                text: std::fs::read_to_string(path).expect("is text"),
            });
        }
    }
    assert!(!found.is_empty());
    found
}

#[track_caller]
pub fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Returns `file:line: text` for each line of `text` that `pattern` is found in.
fn hits(source: &Source, text: &str, pattern: &Regex) -> Vec<String> {
    let numbered = text.lines().enumerate();
    let hit = numbered.filter(|(_, line)| pattern.is_match(line));
    hit.map(|(i, line)| format!("{}:{}: {}", source.name, i + 1, line.trim()))
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    let sources = files(&["src", "tests"], &["rs"]);
    let bare = sources.iter().filter(|s| !s.text.starts_with("//! "));
    none(
        "files without `//!`",
        bare.map(|s| s.name.clone()).collect(),
    );
}

#[test]
fn no_file_is_too_long() {
    // The tests of examples are lists of texts. A file of the product may be long if it is one thing.
    let sources = files(&["src"], &["rs"]);
    let lines = |s: &Source| s.text.lines().count();
    let long = sources.iter().filter(|s| !s.is_test() && lines(s) > 800);
    none(
        "files over 800 lines",
        long.map(|s| format!("{} {}", s.name, lines(s))).collect(),
    );
}

#[test]
fn no_function_is_too_long() {
    let start =
        Regex::new(r"^( *)(pub(\([a-z]+\))? )?(const )?(unsafe )?fn (\w+)").expect("a pattern");
    let mut long = Vec::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let lines: Vec<&str> = source.product().lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let Some(found) = start.captures(line) else {
                continue;
            };
            let end = format!("{}}}", &found[1]);
            let length = lines[i..]
                .iter()
                .position(|l| *l == end)
                .map_or(0, |n| n + 1);
            if length > 80 {
                long.push(format!(
                    "{}:{} {} has {length} lines",
                    source.name,
                    i + 1,
                    &found[6]
                ));
            }
        }
    }
    none("functions over 80 lines", long);
}

/// A module at the top of `main.rs` has no tier: `tests/run` takes its tests for fast ones.
#[test]
fn every_test_has_a_tier() {
    let main = std::fs::read_to_string(root().join("tests/it/main.rs")).expect("reads");
    let tiers = Regex::new(r"(?m)^mod (\w+) \{$").expect("a pattern");
    let tiers: Vec<&str> = tiers
        .captures_iter(&main)
        .map(|c| c.extract::<1>().1[0])
        .collect();
    assert_eq!(tiers, ["fast_tests", "host_tests", "soak_tests"]);
    let fixture = Regex::new(r"(?m)^mod (\w+);$").expect("a pattern");
    let mut without = Vec::new();
    for fixture in fixture.captures_iter(&main) {
        let inside = format!("tests/it/{}/", &fixture[1]);
        let front = format!("tests/it/{}.rs", &fixture[1]);
        let sources = files(&["tests/it"], &["rs"]);
        let own = |s: &&Source| s.name == front || s.name.starts_with(&inside);
        let own = sources.iter().filter(own);
        let tested = own.filter(|s| s.text.contains("#[test]"));
        without.extend(tested.map(|s| s.name.clone()));
    }
    none("tests without a tier", without);
}

#[test]
fn nothing_is_left_to_do() {
    let words = [
        "dbg!",
        "todo!",
        "unimplemented!",
        "TODO",
        "FIXME",
        "XXX",
        "#[ignore",
    ];
    let pattern = Regex::new(&words.map(regex::escape).join("|")).expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["src", "tests", "recipes", "docs"], &["rs", "kdl", "md"]) {
        if !source.path.ends_with("tests/it/tidy.rs") {
            found.extend(hits(&source, &source.text, &pattern));
        }
    }
    none("left over", found);
}

#[test]
fn the_product_does_not_panic() {
    let pattern =
        Regex::new(r"\.unwrap\(\)|\.expect\(|\bpanic!|\bunreachable!|\bassert(_eq|_ne)?!")
            .expect("a pattern");
    let sources = files(&["src"], &["rs"]);
    let product = sources.iter().filter(|s| !s.is_test());
    let found = product.flat_map(|s| {
        let code: String = s
            .product()
            .lines()
            .map(|l| l.split("//").next().unwrap_or("").to_owned() + "\n")
            .collect();
        hits(s, &code, &pattern)
    });
    none("may panic", found.collect());
}

#[test]
fn no_file_knows_this_machine() {
    let pattern = Regex::new(r"(^|[^\w.])/(root|work|home/\w+|tmp/wt)/").expect("a pattern");
    let dirs = ["src", "tests", "recipes", "docs", "examples"];
    let mut found = Vec::new();
    for source in files(&dirs, &["rs", "kdl", "md", "py", "toml", "sh"]) {
        let is_output = ["/.rel/", "/build/", "/dist/"]
            .iter()
            .any(|d| source.name.contains(d));
        if !is_output && !source.path.ends_with("tests/it/tidy.rs") {
            found.extend(hits(&source, &source.text, &pattern));
        }
    }
    none("paths of a machine", found);
}

/// Where a command that was killed would pass for one that had nothing to say: inside `[ ]`, and
/// in the arguments of another command. Only an assignment ends the step.
#[test]
fn no_script_takes_silence_for_an_answer() {
    let asked = Regex::new(r"(?P<assigned>\b[a-z_]+=)?\$\([^(]").expect("a pattern");
    let tested = Regex::new(r#"\[ [^]]*"\$\([^(]"#).expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["recipes", "src"], &["kdl", "sh"]) {
        found.extend(hits(&source, &source.text, &tested));
        let is_recipe = source.path.extension().is_some_and(|e| e == "kdl");
        for (number, line) in source.text.lines().enumerate() {
            let mut all = asked.captures_iter(line);
            if is_recipe && all.any(|c| c.name("assigned").is_none()) {
                found.push(format!("{}:{}: {line}", source.name, number + 1));
            }
        }
    }
    none("takes silence for an answer", found);
}

#[test]
fn no_program_enters_what_stands_at_a_name_of_others() {
    // `mv` and `ln` go into a directory at that name, or into one that a link there leads to.
    let entering =
        Regex::new(r#"\b(mv|ln|cp|mkdir) [^&|;]*"\$(rel_there|up)\b"#).expect("a pattern");
    let sources = files(&["src"], &["sh"]);
    let found = sources.iter().flat_map(|s| hits(s, &s.text, &entering));
    none("use rel_rename or rel_link", found.collect());
}

/// Somebody who looks for a type or a file finds one of that name.
#[test]
fn no_two_public_types_or_files_share_a_name() {
    let declared = r"(?m)^ *pub(?:\([^)]*\))? (?:struct|enum|trait|type|union) (\w+)";
    let declared = Regex::new(declared).expect("a pattern");
    let mut types = BTreeMap::<String, Vec<String>>::new();
    let mut names = BTreeMap::<String, Vec<String>>::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let file = source.path.file_name().expect("a name").to_string_lossy();
        let known = names.entry(file.into_owned()).or_default();
        known.push(source.name.clone());
        for found in declared.captures_iter(source.product()) {
            let known = types.entry(found[1].to_owned()).or_default();
            known.push(source.name.clone());
        }
    }
    assert!(types.len() > 300 && names.len() > 200);
    let all = types.into_iter().chain(names);
    let shared = all.filter(|(_, places)| places.len() > 1);
    let shared = shared.map(|(name, places)| format!("{name}: {}", places.join(" ")));
    none("names of several things", shared.collect());
}

/// What a module may use, apart from itself: the table of `ARCHITECTURE.md`.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let table = [
        // Layer 1, `core`.
        ("cancel", "error sync"),
        ("escape", ""),
        ("error", "diagnostics escape"),
        ("diagnostics", "escape"),
        ("kdl_text", "diagnostics"),
        ("fs", "error escape"),
        ("progress", "error printed"),
        ("printed", "fs"),
        ("process", "sync"),
        ("template", "fs"),
        ("host_range", ""),
        ("deploy_window", ""),
        ("trace", "sync"),
        ("storage", "error fs"),
        ("sync", ""),
        // Layer 2, `build`: text -> model -> graph.
        ("graph", "fs diagnostics template error"),
        ("model", "graph fs diagnostics template deploy_window"),
        ("glob", "graph fs error diagnostics sync"),
        (
            "releasefile",
            "model graph glob host_range deploy_window fs error kdl_text diagnostics template",
        ),
        // Keys and work.
        ("digest", "fs error glob storage sync"),
        ("depfile", ""),
        ("key", "graph digest fs"),
        ("command", "graph digest key glob fs error template"),
        ("build_log", "key storage fs error"),
        ("snapshot", "digest graph build_log storage fs error"),
        ("sandbox", "process fs error sync"),
        ("runner", "sandbox printed process fs error sync"),
        (
            "stale",
            "graph digest key glob command model outputs build_log runner snapshot fs error sync",
        ),
        ("outputs", "graph digest key glob cache fs error"),
        ("cache", "digest key printed storage fs error sync"),
        ("scheduler", "graph"),
        (
            "builder",
            "scheduler stale cache outputs build_log runner sandbox depfile key digest graph glob printed fs error progress sync trace",
        ),
        ("manifest_cache", "model digest storage fs glob error"),
        // Layer 4, `cli`: the terminal.
        (
            "ui",
            "printed progress cancel error diagnostics deploy escape sync",
        ),
    ];
    let words = |text: &'static str| text.split(' ').filter(|w| !w.is_empty()).collect();
    let mut allowed: BTreeMap<&str, Vec<&str>> = table.map(|(r, w)| (r, words(w))).into();
    // Layer 3. It receives artifacts by digest; it does not know how they were built.
    let deploy = words(
        "model graph digest fs cancel error escape kdl_text process progress host_range diagnostics template deploy_window storage sync runner glob key",
    );
    allowed.insert("deploy", deploy);
    allowed
}

/// The modules of a file that a line of code of another one uses.
fn used_modules(used: &Regex, code: &str) -> Vec<String> {
    let hits = used.captures_iter(code);
    let module = |hit: regex::Captures<'_>| {
        let (layer, below) = (&hit[1], hit.get(2).map_or("", |m| m.as_str()));
        match (layer, below) {
            ("core" | "build", _) | ("cli", "ui") => below.to_owned(),
            _ => layer.to_owned(),
        }
    };
    hits.map(module).collect()
}

/// The tests below read one path a line.
#[test]
fn no_use_has_several_modules_of_the_crate() {
    let grouped = Regex::new(r"\bcrate::\{|\bcrate::(core|build)::\{").expect("a pattern");
    let sources = files(&["src"], &["rs"]);
    let product = sources.iter().filter(|s| !s.is_test());
    let found = product.flat_map(|s| hits(s, s.product(), &grouped));
    none("use one line for each module", found.collect());
}

#[test]
fn no_layer_uses_a_higher_one() {
    let layers = ["core", "build", "deploy", "cli"];
    let used = Regex::new(r"\bcrate::(core|build|deploy|cli)\b").expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let Some(own) = layers.iter().position(|layer| *layer == source.layer()) else {
            continue;
        };
        for (i, line) in source.product().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for hit in used.captures_iter(code) {
                let other = layers.iter().position(|layer| *layer == &hit[1]);
                if other > Some(own) {
                    found.push(format!("{}:{} uses `{}`", source.name, i + 1, &hit[1]));
                }
            }
        }
    }
    none("layers that use a higher one", found);
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed = allowed();
    let used = Regex::new(r"\bcrate::(core|build|cli|deploy)(?:::(\w+))?").expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let module = source.module();
        // The command line may use everything; the roots of layers only declare modules.
        if ["cli", "main", "lib", "core", "build"].contains(&module) {
            continue;
        }
        let Some(may) = allowed.get(module) else {
            found.push(format!("{}: `{module}` is not in the table", source.name));
            continue;
        };
        for (i, line) in source.product().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for name in used_modules(&used, code) {
                if name != module && !may.contains(&name.as_str()) {
                    found.push(format!("{}:{} uses `{name}`", source.name, i + 1));
                }
            }
        }
    }
    none("modules that use what the table does not allow", found);
}

/// Returns what each module of `deploy` may use of the others.
fn allowed_in_deploy() -> [(&'static str, &'static [&'static str]); 4] {
    [
        ("recipe", &[]),
        ("protocol", &[]),
        ("plan", &["recipe", "protocol"]),
        ("report", &["recipe", "plan", "protocol"]),
    ]
}

#[test]
fn modules_of_deploy_use_only_what_they_may() {
    let used = Regex::new(r"\bdeploy::(recipe|plan|protocol|remote|report)::").expect("a pattern");
    let mut found = Vec::new();
    for (module, may) in allowed_in_deploy() {
        let dir = format!("src/deploy/{module}/");
        let front = format!("src/deploy/{module}.rs");
        let sources = files(&["src/deploy"], &["rs"]);
        let own = |s: &&Source| s.name == front || s.name.starts_with(&dir);
        let own: Vec<&Source> = sources.iter().filter(own).collect();
        assert!(own.len() > 1, "{module} is empty");
        for source in own {
            for hit in used.captures_iter(source.product()) {
                let other = &hit[1];
                if other != module && !may.contains(&other) {
                    found.push(format!("{} uses `{other}`", source.name));
                }
            }
        }
    }
    none("modules of deploy that use others", found);
}

/// Modules that do no I/O: files, time, processes and hosts enter through others.
#[test]
fn pure_modules_do_no_io() {
    let pattern = Regex::new(
        r"std::(fs|net|process|env::[avct][a-z_]+\(|io::std)|SystemTime|Instant|\bFile::|Command::new|rustix::|duct::",
    )
    .expect("a pattern");
    let pure = [
        "graph",
        "scheduler",
        "key",
        "depfile",
        "template",
        "diagnostics",
        "deploy_window",
        "model",
    ];
    let mut found = Vec::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let file = source.name.trim_start_matches("src/");
        let is_pure_deploy = file.strip_prefix("deploy/").is_some_and(|below| {
            !below.starts_with("remote")
                && !below.starts_with("health_check")
                && below != "recipe/library.rs"
        });
        if is_pure_deploy || pure.contains(&source.module()) {
            found.extend(hits(source, source.product(), &pattern));
        }
    }
    none("I/O in a pure module", found);
}

#[test]
fn only_the_screen_writes() {
    let pattern = Regex::new(r"\be?print(ln)?!|io::std(out|err)\b").expect("a pattern");
    let sources = files(&["src"], &["rs"]);
    let below = sources
        .iter()
        .filter(|s| s.module() != "ui" && !s.is_test());
    none(
        "prints",
        below.flat_map(|s| hits(s, s.product(), &pattern)).collect(),
    );
}

/// Whoever writes to a terminal does it with a [`rel::cli::ui::Text`], which escapes what is put into
/// it: only there stands what does not.
#[test]
fn only_one_file_makes_text_for_a_terminal() {
    let made = Regex::new(r"\bText\(|\bSelf\(|\\x1b|\\u\{1b\}").expect("a pattern");
    let sent = Regex::new(r"write_all|\bwrite!|io::std(out|err)\b").expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["src"], &["rs"]).iter().filter(|s| !s.is_test()) {
        let (name, module) = (source.name.as_str(), source.module());
        if module == "ui" && name != "src/cli/ui/text.rs" {
            found.extend(hits(source, source.product(), &made));
        }
        // The door itself, and the log of a run beside the display.
        if module == "ui" && !["src/cli/ui.rs", "src/cli/ui/tee.rs"].contains(&name) {
            found.extend(hits(source, source.product(), &sent));
        }
    }
    none("text that was not escaped", found);
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).expect("reads");
    let pattern = Regex::new(r"`([a-z_]+)::([a-z_]*)`").expect("a pattern");
    let mut count = 0;
    let mut missing = Vec::new();
    for named in pattern.captures_iter(&page) {
        let file = root().join("tests/it").join(format!("{}.rs", &named[1]));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // Without a name all tests of the file are meant.
        let name = Some(&named[2]).filter(|name| !name.is_empty());
        let name = name.unwrap_or(r"\w+");
        let test = format!(r"#\[test\]\s(#\[.*\]\s)*fn {name}\(");
        if !Regex::new(&test).expect("a pattern").is_match(&text) {
            missing.push(named[0].to_owned());
        }
        count += 1;
    }
    assert!(count > 40, "the page names {count} tests");
    none("tests that SECURITY.md names and nobody wrote", missing);
}

#[test]
fn only_the_doors_open_files_by_name() {
    // What stands behind a name may be a pipe, a device or a link: `fs` looks first. These open
    // what they made or looked at themselves, or a file that the user named.
    let own = [
        "src/cli/build_summary.rs",
        "src/cli/trust.rs",
        "src/build/outputs.rs",
        "src/build/outputs/export.rs",
        "src/build/sandbox/sandbox_root.rs",
    ];
    let pattern = Regex::new(
        r"\b(File::(open|create)(_new)?\(|fs::(read|read_to_string|write|copy)\(|OpenOptions::new)",
    )
    .expect("a pattern");
    let of_the_kernel = Regex::new("/proc/|random").expect("a pattern");
    let mut found = Vec::new();
    for source in files(&["src"], &["rs"]) {
        let is_door = source.module() == "fs" || own.contains(&source.name.as_str());
        if is_door || source.is_test() {
            continue;
        }
        let mut hits = hits(&source, source.product(), &pattern);
        hits.retain(|hit| !of_the_kernel.is_match(hit));
        found.extend(hits);
    }
    none("opens a file without a look at what it is", found);
}
