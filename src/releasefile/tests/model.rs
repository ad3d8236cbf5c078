//! What a sound Releasefile becomes.

use super::{Space, report};
use crate::graph::{Command, Target};
use crate::model::Reach;

fn target<'a>(loaded: &'a super::Loaded, name: &str) -> &'a Target {
    let graph = &loaded.project.graph;
    let ids = graph.find(name).expect("a target");
    graph.target(ids[0])
}

fn needs(loaded: &super::Loaded, name: &str) -> Vec<String> {
    let graph = &loaded.project.graph;
    let name_of = |id: &crate::graph::TargetId| graph.target(*id).name.clone();
    target(loaded, name).needs.iter().map(name_of).collect()
}

fn names(loaded: &super::Loaded) -> Vec<String> {
    let targets = loaded.project.graph.targets();
    targets.map(|(_, t)| t.name.clone()).collect()
}

fn runs(loaded: &super::Loaded, name: &str) -> Vec<String> {
    let command = |c: &Command| match c {
        Command::Shell { shell, script } => format!("{} <{}>", shell.join(" "), script.source()),
        Command::Argv(words) => words.iter().map(|w| format!("[{}]", w.source())).collect(),
    };
    target(loaded, name).run.iter().map(command).collect()
}

#[test]
fn the_example_of_the_design_loads() {
    let loaded = Space::new(include_str!("karl.kdl"))
        .file("src/karl/a.py", "")
        .file("tests/test_a.py", "")
        .file("pyproject.toml", "")
        .file("assets/a.png", "")
        .file("assets/b c.png", "")
        .loaded();
    assert_eq!(
        names(&loaded),
        [
            "tests-pass",
            "wheel",
            "thumbnail[assets/a.png]",
            "thumbnail[assets/b c.png]",
            "index-snapshot"
        ]
    );
    assert_eq!(
        runs(&loaded, "thumbnail[assets/b c.png]"),
        ["sh -eu -c <cwebp 'assets/b c.png' -o {out}>"]
    );
    assert_eq!(loaded.project.environments[0].uses.len(), 4);
    assert_eq!(format!("{:?}", loaded.watched), r#"["assets"]"#);
    assert_eq!(loaded.read.len(), 1);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}
