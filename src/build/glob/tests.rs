//! Tests of globs: tables of patterns against paths, and walks over a tree in memory.

use super::*;
use crate::build::graph::Input;
use crate::core::diagnostics::Span;
use std::os::unix::ffi::OsStringExt;

/// A tree in memory that counts what was listed.
struct Tree {
    paths: Vec<(RepoPath, EntryKind)>,
    listed: Mutex<Vec<String>>,
}

impl Tree {
    fn new(paths: &[&str]) -> Self {
        let mut all = BTreeMap::new();
        for path in paths {
            let kind = match path.ends_with('@') {
                true => EntryKind::Symlink,
                false => EntryKind::File,
            };
            let path = RepoPath::new(path.trim_end_matches('@'));
            for dir in path.as_path().ancestors().skip(1) {
                all.entry(RepoPath::new(dir)).or_insert(EntryKind::Dir);
            }
            all.insert(path, kind);
        }
        Self {
            paths: all.into_iter().collect(),
            listed: Mutex::default(),
        }
    }
}

impl DirListing for Tree {
    fn list(&self, dir: &RepoPath) -> Result<Arc<[Entry]>> {
        self.listed.lock().expect("lock").push(dir.to_string());
        let is_child = |p: &&(RepoPath, EntryKind)| {
            p.0.as_path().parent() == Some(dir.as_path()) && !p.0.is_root()
        };
        let entry = |p: &(RepoPath, EntryKind)| Entry {
            name: p.0.as_path().file_name().expect("a name").to_owned(),
            kind: p.1,
        };
        let mut entries: Vec<Entry> = self.paths.iter().filter(is_child).map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries.into())
    }
}

fn pattern(text: &str) -> Pattern {
    match text {
        t if t.ends_with('/') => Pattern::Dir(RepoPath::new(t)),
        t if t.contains(['*', '?', '[', '{']) => Pattern::Glob {
            base: base_of(t),
            glob: t.into(),
        },
        t => Pattern::File(RepoPath::new(t)),
    }
}

fn inputs(texts: &[&str]) -> Vec<Input> {
    let one = |text: &&str| Input {
        pattern: pattern(text.trim_start_matches('!')),
        is_exclusion: text.starts_with('!'),
        is_optional: false,
        place: Span::default(),
    };
    texts.iter().map(one).collect()
}

#[track_caller]
fn check(tree: &[&str], patterns: &[&str], expected: &[&str]) {
    let tree = Tree::new(tree);
    let found = expand(&inputs(patterns), &tree).expect("expands");
    let found: Vec<String> = found.files.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{patterns:?}");
}

#[test]
fn patterns_match_paths() {
    for (pattern, yes, no) in [
        (
            "src/**/*.py",
            &["src/a.py", "src/a/b/c.py"][..],
            &["a.py", "src/a.pyc", "src"][..],
        ),
        ("src/**", &["src/a", "src/a/b"], &["src", "srcx/a"]),
        ("**", &["a", "a/b"], &[]),
        ("*", &["a", ".hidden"], &["a/b"]),
        ("a?c", &["abc"], &["ac", "a/c", "abbc"]),
        (
            "[ab]*[!0-9].txt",
            &["ax.txt", "bcx.txt"],
            &["a1.txt", "cx.txt"],
        ),
        ("{a,b/{c,d}}.x", &["a.x", "b/c.x", "b/d.x"], &["b.x", "c.x"]),
        ("**/t/**/x", &["t/x", "a/t/b/c/x"], &["x", "a/x/t"]),
        ("a[*]b", &["a*b"], &["axb"]),
        ("a\\*b", &["a*b"], &["axb"]),
        ("../x/*", &["../x/y"], &["x/y"]),
        ("/etc/*.pem", &["/etc/a.pem"], &["etc/a.pem"]),
    ] {
        let glob = Glob::new(pattern).expect("compiles");
        for path in yes {
            assert!(glob.is_match(&RepoPath::new(path)), "{pattern} {path}");
        }
        for path in no {
            assert!(!glob.is_match(&RepoPath::new(path)), "{pattern} {path}");
        }
    }
}

#[test]
fn names_need_not_be_utf8() {
    let path = RepoPath::new(OsString::from_vec(b"src/\xff.py".to_vec()));
    for text in ["src/*.py", "src/?.py", "src/[!a].py", "**"] {
        assert!(Glob::new(text).expect("compiles").is_match(&path), "{text}");
    }
}

#[test]
fn broken_patterns_say_what_is_wrong() {
    for (pattern, expected) in [
        ("a[b", "a `[` is never closed"),
        ("a{b,c", "a `{` is never closed"),
        ("a}b", "a `}` has no `{`"),
        ("", "it names nothing"),
        ("[z-a]", "invalid range; 'z' > 'a'"),
    ] {
        assert_eq!(
            Glob::new(pattern).map(|_| ()),
            Err(expected.into()),
            "{pattern}"
        );
    }
}

#[test]
fn directories_that_can_hold_no_match_are_pruned() {
    let glob = Glob::new("src/*/t/**/*.py").expect("compiles");
    for (dir, expected) in [("src", true), ("src/a", true), ("src/a/t/b/c", true)] {
        assert_eq!(glob.may_match_below(&RepoPath::new(dir)), expected, "{dir}");
    }
    assert!(!glob.may_match_below(&RepoPath::new("src/a/b")));
    assert!(!glob.may_match_below(&RepoPath::new("docs")));
}

#[test]
fn order_decides() {
    let tree = &["a/x.py", "a/y.py", "b/x.py", ".hidden"];
    check(tree, &["a/"], &["a/x.py", "a/y.py"]);
    check(tree, &["**/*.py", "!a/**"], &["b/x.py"]);
    check(tree, &["**/*.py", "!a/**", "a/y.py"], &["a/y.py", "b/x.py"]);
    check(tree, &["!a/**", "**/x.py"], &["a/x.py", "b/x.py"]);
    check(tree, &["*"], &[".hidden"]);
    check(tree, &["a/x.py", "a/*", "a/x.py"], &["a/x.py", "a/y.py"]);
    check(tree, &["a"], &[]);
}

#[test]
fn walks_prune_and_skip_what_is_not_theirs() {
    let tree = Tree::new(&[
        "src/a.py",
        "src/__pycache__/a/b.py",
        "src/.git/x.py",
        ".rel/x.py",
        "docs/deep/x.py",
        "link@",
    ]);
    let found =
        expand(&inputs(&["src/**/*.py", "!**/__pycache__/**", "*"]), &tree).expect("expands");
    assert_eq!(format!("{:?}", found.files), r#"["link", "src/a.py"]"#);
    assert_eq!(*tree.listed.lock().expect("lock"), [".", "src"]);
}

#[test]
fn a_worktree_has_the_files_of_a_clone() {
    for git in [".git/HEAD", ".git"] {
        let tree = ["a", "sub/b", git, &format!("sub/{git}")];
        check(&tree, &["**"], &["a", "sub/b"]);
        check(&tree, &["*", "sub/"], &["a", "sub/b"]);
    }
}

#[test]
fn patterns_without_a_match_are_named() {
    let tree = Tree::new(&["a"]);
    let mut list = inputs(&["a", "b", "c/*", "!d"]);
    list[2].is_optional = true;
    assert_eq!(expand(&list, &tree).expect("expands").unmatched, [1]);
}

#[test]
fn overlaps() {
    for (a, b, expected) in [
        ("dist/*.whl", "dist/*.tar.gz", false),
        ("dist/*.whl", "dist/rel-*.whl", true),
        ("dist/a*", "dist/b*", false),
        ("dist/*", "dist/x", true),
        ("dist/*", "dist/x/y", false),
        ("dist/", "dist/x/y", true),
        ("dist/", "dist", true),
        ("dist/", "dist2", false),
        ("dist/", "dist/**/*.x", true),
        ("a/", "a/b/", true),
        ("**/*.py", "gen/x.py", true),
        ("**/*.py", "gen/*.c", false),
        ("a/**/b", "a/b", true),
        ("a/**", "**/z", true),
        ("a/**/b", "c/**/b", false),
        ("a/{b,c}.x", "a/c.*", true),
        ("a/{b,c}.x", "a/d.*", false),
        ("a/?", "a/bb", false),
        ("a/[*].x", "a/b.x", false),
        ("a", "b", false),
    ] {
        let (x, y) = (pattern(a), pattern(b));
        assert_eq!(overlap(&x, &y), expected, "{a} {b}");
        assert_eq!(overlap(&y, &x), expected, "{b} {a}");
        let index = OutputIndex::new([&x, &y]);
        assert_eq!(
            index.clashes(),
            if expected { vec![(0, 1)] } else { vec![] },
            "{a} {b}"
        );
        assert_eq!(
            OutputIndex::new([&x]).overlapping(&y).len(),
            usize::from(expected),
            "{a} {b}"
        );
    }
}

#[test]
fn what_an_exclusion_covers() {
    for (by, what, expected) in [
        ("dist/", "dist/*.whl", true),
        ("dist/**", "dist/", true),
        ("**/*.whl", "dist/*.whl", true),
        ("dist/*", "dist/**", false),
        ("dist/a*", "dist/*", false),
        ("**/gen/**", "src/gen/x.py", true),
        ("out/?????", "out/*", false),
        ("out/[!x]*", "out/*", false),
        ("out/[!x]*", "out/a.txt", true),
    ] {
        assert_eq!(
            covers(&pattern(by), &pattern(what)),
            expected,
            "{by} {what}"
        );
    }
}

#[test]
fn an_escaped_value_matches_only_itself() {
    let name = "a*[b]{c,d}?\\e";
    let glob = Glob::new(&format!("x/{}/*", escape(name, true))).expect("compiles");
    assert!(glob.is_match(&RepoPath::new(format!("x/{name}/y"))));
    assert!(!glob.is_match(&RepoPath::new("x/ab/y")));
}

#[test]
fn the_disk_is_listed_once_and_links_are_not_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("a/b")).expect("creates");
    std::fs::write(dir.path().join("a/x"), "").expect("writes");
    std::os::unix::fs::symlink("b", dir.path().join("a/l")).expect("links");
    let listing = DiskListing::new(dir.path());
    let found = expand(&inputs(&["a/**", "a/x", "none/*"]), &listing).expect("expands");
    assert_eq!(format!("{:?}", found.files), r#"["a/l", "a/x"]"#);
    assert_eq!(found.unmatched, [2]);
    assert_eq!(format!("{:?}", listing.listed()), r#"["a", "a/b", "none"]"#);
}

proptest::proptest! {
    /// Two patterns that both match a path overlap; and the index says
    /// what comparing all pairs would.
    #[test]
    fn patterns_that_meet_on_a_path_overlap(
        texts in proptest::collection::vec("(a|b|\\*|\\*\\*|a\\*b|\\?|\\[ab\\]|\\{a,b\\})(/(a|b|\\*|\\*\\*|\\*a|ab|\\{b,a/b\\})){0,3}/?", 2..6),
        paths in proptest::collection::vec("[ab]{1,3}(/[ab]{1,3}){0,3}", 8),
    ) {
        let is_usable = |t: &&String| !(t.ends_with('/') && t.contains(['*', '?', '[', '{']));
        let patterns: Vec<Pattern> = texts.iter().filter(is_usable).map(|t| pattern(t)).collect();
        let globs: Vec<Glob> = patterns.iter().map(|p| compile(p).expect("compiles")).collect();
        let mut pairs = Vec::new();
        for a in 0..patterns.len() {
            for b in a + 1..patterns.len() {
                let is_overlap = overlap(&patterns[a], &patterns[b]);
                if is_overlap {
                    pairs.push((a, b));
                }
                for path in paths.iter().map(RepoPath::new) {
                    let is_common = globs[a].is_match(&path) && globs[b].is_match(&path);
                    proptest::prop_assert!(is_overlap || !is_common, "{:?} {:?} {}", patterns[a], patterns[b], path);
                }
            }
        }
        let index = OutputIndex::new(&patterns);
        proptest::prop_assert_eq!(index.clashes(), pairs.clone());
        for (a, asked) in patterns.iter().enumerate() {
            let expected: Vec<usize> = (0..patterns.len())
                .filter(|b| *b == a || pairs.contains(&(a.min(*b), a.max(*b))))
                .collect();
            proptest::prop_assert_eq!(index.overlapping(asked), expected, "{:?}", asked);
        }
    }

    /// A walk finds what asking every file would find.
    #[test]
    fn a_walk_finds_what_matches(
        texts in proptest::collection::vec("!?(a|b|\\*|\\*\\*|a\\*)(/(a|b|\\*|\\*\\*|\\*a)){0,2}", 1..5),
        paths in proptest::collection::btree_set("[ab]{1,2}/[ab]{1,2}/[ab]{1,2}f", 1..10),
    ) {
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let list = inputs(&texts);
        let found = expand(&list, &Tree::new(&paths)).expect("expands").files;
        let mut expected: Vec<RepoPath> = paths.iter().map(RepoPath::new).filter(|p| is_named(p, &list)).collect();
        expected.sort();
        proptest::prop_assert_eq!(found, expected);
    }

    /// `covers` is only ever said of patterns whose files are all taken away.
    #[test]
    fn what_is_covered_is_matched(
        by in "(a|b|\\*|\\*\\*|a\\*)(/(a|b|\\*|\\*\\*|\\*a)){0,2}",
        what in "(a|b|\\*|\\*\\*|a\\*)(/(a|b|\\*|\\*\\*|\\*a)){0,2}",
        path in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        let (by, what, path) = (pattern(&by), pattern(&what), RepoPath::new(path));
        if covers(&by, &what) && compile(&what).expect("compiles").is_match(&path) {
            proptest::prop_assert!(compile(&by).expect("compiles").is_match(&path));
        }
    }
}
