//! Tests of the Releasefile: what a file says, and the text of every mistake.

use super::*;
use crate::core::diagnostics::render::report as render;

mod mistakes;
mod model;

/// A directory with files, loaded as a person would.
pub(super) struct Space {
    dir: tempfile::TempDir,
    vars: BTreeMap<String, String>,
    hosts_file: Option<PathBuf>,
}

impl Space {
    /// Returns a directory with a Releasefile.
    pub(super) fn new(text: &str) -> Self {
        let space = Self {
            dir: tempfile::tempdir().expect("a directory"),
            vars: BTreeMap::new(),
            hosts_file: None,
        };
        space.file("Releasefile.kdl", text)
    }

    pub(super) fn file(self, path: &str, text: &str) -> Self {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        std::fs::write(path, text).expect("writes");
        self
    }

    pub(super) fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    pub(super) fn hosts(self, text: &str) -> Self {
        let mut space = self.file("hosts.kdl", text);
        space.hosts_file = Some(space.dir.path().join("hosts.kdl"));
        space
    }

    pub(super) fn root(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(super) fn load(&self) -> Result<Loaded, Box<LoadError>> {
        load(&LoadRequest {
            root: self.dir.path().to_owned(),
            file: self.dir.path().join("Releasefile.kdl"),
            hosts_file: self.hosts_file.clone(),
            vars: self.vars.clone(),
            check_recipes: &|_| Vec::new(),
        })
    }

    /// Returns what was loaded; mistakes fail the test.
    #[track_caller]
    pub(super) fn loaded(&self) -> Loaded {
        match self.load() {
            Ok(loaded) => loaded,
            Err(e) => panic!("{}", self.text(&e.mistakes, &e.sources)),
        }
    }

    /// Returns the text of all mistakes and warnings.
    pub(super) fn report(&self) -> String {
        match self.load() {
            Ok(loaded) => self.text(&loaded.warnings, &loaded.project.sources),
            Err(error) => match &error.error {
                Some(error) => self.filtered(&error.to_string()),
                None => self.text(&error.mistakes, &error.sources),
            },
        }
    }

    fn text(&self, mistakes: &[Diagnostic], sources: &SourceMap) -> String {
        self.filtered(&render(mistakes, sources, 100, false))
    }

    fn filtered(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "[space]")
    }
}

/// Returns the text of the mistakes of a file that stands alone.
pub(super) fn report(text: &str) -> String {
    Space::new(text).report()
}

#[test]
fn the_examples_of_the_reference_load() {
    let pages = [
        include_str!("../../../docs/reference/releasefile.md"),
        include_str!("../../../docs/concepts/cache.md"),
        include_str!("../../../docs/concepts/freshness.md"),
        include_str!("../../../docs/concepts/sandbox.md"),
    ];
    let mut count = 0;
    for block in pages.iter().flat_map(|p| p.split("```kdl\n").skip(1)) {
        let text = block.split("```").next().expect("a block");
        let space = Space::new(text)
            .file("more.kdl", "")
            .file("assets/a.png", "")
            .file("assets/b.png", "");
        if let Err(error) = space.load() {
            let is_tolerated =
                |m: &Diagnostic| matches!(m.code, "missing_input" | "empty_glob") || m.is_warning;
            let real: Vec<Diagnostic> = error
                .mistakes
                .iter()
                .filter(|m| !is_tolerated(m))
                .cloned()
                .collect();
            assert!(
                real.is_empty(),
                "{text}\n{}",
                space.text(&real, &error.sources)
            );
        }
        count += 1;
    }
    assert!(count > 20, "only {count} examples");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever stands in the file: it is loaded or refused, and every refusal has a text.
    #[test]
    fn any_file_is_loaded_or_refused(words in proptest::collection::vec(0usize..40, 0..40)) {
        let known = [
            "target", "needs", "inputs", "outputs", "run", "each", "matrix", "var", "host",
            "group", "environment", "use", "verify", "param", "pool", "include", "project",
            "{", "}", "\n", ";", "\"a\"", "\"b[{a}]\"", "\"{a}\"", "\"**/*.x\"", "\"[1-3]\"",
            "files=\"*\"", "on=\"a\"", "local=#true", "ssh=\"a\"", "\"\"", "1", "#true", "#null",
            "(command)\"x\"", "one-of=\"a b\"", "count=1", "\"é\"", "\"!\"", "\"Releasefile.kdl\"",
        ];
        let text: Vec<&str> = words.iter().map(|w| known[*w]).collect();
        let space = Space::new(&text.join(" "));
        if let Err(error) = space.load() {
            proptest::prop_assert!(error.mistakes.iter().any(|m| !m.is_warning));
            proptest::prop_assert!(!space.text(&error.mistakes, &error.sources).is_empty());
        }
    }
}
