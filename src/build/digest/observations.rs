//! Looks: everything that was asked of the file system while one question was answered.
//!
//! When the same paths look the same again, the same answer holds, and nothing else needs
//! to be known: that is what a snapshot (`snapshot.rs`) is made of. Looks are noted
//! per thread, because one thread answers one question from its start to its end, and
//! because callers in between should not have to pass them on.

use std::cell::RefCell;

use crate::core::fs::{RepoPath, Signature};

/// One path that was looked at, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileObservation {
    /// Where.
    pub path: RepoPath,
    /// Whether links were followed (`stat`) or not (`lstat`).
    pub follows: bool,
    /// What was there; `None` when nothing was.
    pub seen: Option<Signature>,
    /// The hash of what was in it, where it was a file that was asked for its content.
    pub hash: Option<[u8; 32]>,
}

/// All looks of one question.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// In the order they were made; a path may come several times.
    pub looks: Vec<FileObservation>,
    /// Something looked at may still change without looking different.
    pub is_racy: bool,
}

thread_local! {
    static NOTED: RefCell<Option<Observations>> = const { RefCell::new(None) };
}

/// Runs `question` and returns its answer with every look that it took.
pub fn recording<T>(question: impl FnOnce() -> T) -> (T, Observations) {
    // A thread that waits for others may answer another question meanwhile: they nest.
    let outer = NOTED.replace(Some(Observations::default()));
    let answer = question();
    let looks = NOTED.replace(outer).unwrap_or_default();
    (answer, looks)
}

/// Notes a look, if it is recorded.
pub(super) fn record(path: &RepoPath, follows: bool, seen: Option<Signature>, is_racy: bool) {
    NOTED.with_borrow_mut(|noted| {
        if let Some(looks) = noted {
            looks.is_racy |= is_racy;
            looks.looks.push(FileObservation {
                path: path.clone(),
                follows,
                seen,
                hash: None,
            });
        }
    });
}

/// Notes the content of the file that was looked at last.
pub(super) fn note_content(path: &RepoPath, hash: [u8; 32]) {
    NOTED.with_borrow_mut(|noted| {
        let last = noted.as_mut().and_then(|looks| looks.looks.last_mut());
        if let Some(look) = last.filter(|look| look.path == *path) {
            look.hash = Some(hash);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_nest_and_are_told_apart() {
        let path = |name: &str| RepoPath::new(name);
        record(&path("unasked"), false, None, true);
        let (inner, outer) = recording(|| {
            record(&path("a"), false, None, false);
            let ((), inner) = recording(|| record(&path("b"), true, None, true));
            record(&path("c"), false, None, false);
            inner
        });
        let names = |looks: &Observations| -> Vec<String> {
            looks.looks.iter().map(|l| l.path.to_string()).collect()
        };
        assert_eq!(
            (names(&outer), outer.is_racy),
            (vec!["a".into(), "c".into()], false)
        );
        assert_eq!((names(&inner), inner.is_racy), (vec!["b".into()], true));
    }
}
