//! SQLite, with blobs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;

use super::{Database, Ground, beside, start, words_of};
use crate::space::Space;

/// A database below `hosts/db/live`, which is a link.
pub struct Sqlite;

impl Sqlite {
    pub fn new(space: &Space) -> Self {
        space.shell(
            "cd hosts/db && mkdir -p first/blobs && ln -s first live && sqlite3 first/data.db \
             'CREATE TABLE words (number INTEGER PRIMARY KEY, blob TEXT); CREATE TABLE evolved (name TEXT);'",
        );
        Self
    }
}

impl Database for Sqlite {
    fn arguments(&self) -> String {
        String::from("driver=\"sqlite\" data=\"{host.root}/live\"")
    }

    fn script(&self, number: usize, is_bad: bool) -> (String, String) {
        let name = format!("{number:03}.sql");
        let end = if is_bad {
            "SELECT * FROM nowhere;\n"
        } else {
            ""
        };
        let text = format!("INSERT INTO evolved VALUES ('{name}');\n{end}");
        (name, text)
    }

    fn writer(&self, space: &Space, acks: &Path) -> Child {
        let mut python = space.program("python3");
        python.arg(beside("sqlite_writer.py"));
        start(
            python.arg(space.path("hosts/db/live")).arg(acks),
            &words_of(acks),
        )
    }

    fn content(&self, space: &Space) -> (BTreeSet<u64>, Vec<String>) {
        let said = space.shell(
            "cd hosts/db/live && sqlite3 -cmd '.timeout 10000' data.db 'SELECT number, blob FROM words; SELECT name FROM evolved ORDER BY rowid;'",
        );
        let mut words = BTreeSet::new();
        let mut done = Vec::new();
        for line in said.lines() {
            match line.split_once('|') {
                None => done.push(line.to_owned()),
                Some((number, blob)) => {
                    words.insert(number.parse().expect("a number"));
                    let path = format!("hosts/db/live/blobs/{blob}");
                    assert!(blob.is_empty() || space.has(&path), "no blob {blob}");
                }
            }
        }
        (words, done)
    }
}

#[test]
fn sqlite_evolves_and_loses_nothing() {
    Ground::new(Sqlite::new).walk();
}

#[test]
fn a_backup_that_was_found_bad_is_made_anew() {
    let space = Space::new(
        r#"
host "a" local=#true root="srv/a"
environment "e" {
    use "backup" on="a" driver="sqlite" into="{host.root}/backups" data="{host.root}/live" \
        verify="test ! -e {host.root}/bad"
}
"#,
    );
    space.write("srv/a/first/blobs/one", "one").shell(
        "ln -s first srv/a/live; sqlite3 srv/a/live/data.db 'CREATE TABLE words (word); INSERT INTO words VALUES (1);'",
    );
    space.write("srv/a/bad", "");
    let _ = space.run(["e"]).fails(1);
    space.remove("srv/a/bad");
    let _ = space.run(["e"]).ok();
    let found = space
        .shell("sqlite3 \"$(find srv/a/backups/latest/ -name data.db)\" 'SELECT word FROM words;'");
    assert_eq!(found, "1\n");
    let left = space.shell("ls srv/a/backups | grep -c 'rel-part\\|scratch' || :");
    assert_eq!(left, "0\n");
}
