//! Backups that are proven: what is damaged is reported, and what was proven stays.

use std::fs;
use std::path::PathBuf;

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::zodb::Zodb;
use super::{Database, Ground};
use crate::space::{Output, Space};

impl<D: Database> Ground<D> {
    /// Makes a backup, whenever the last one was made.
    fn back_up(&self) -> Output {
        self.space.run(["nightly", "--force"])
    }

    fn backups(&self) -> PathBuf {
        self.space.path("hosts/db/backups")
    }

    /// The names of the backups that are marked as proven, oldest first.
    fn proven(&self) -> Vec<String> {
        let found = fs::read_dir(self.backups()).expect("lists");
        let names = found.map(|entry| entry.expect("lists").file_name());
        let names = names.filter_map(|name| {
            let name = name.into_string().expect("a name");
            name.strip_suffix(".rel-copy").map(str::to_owned)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// The backup that `latest` leads to.
    fn latest(&self) -> PathBuf {
        let latest = self.backups().join("latest");
        fs::canonicalize(latest).expect("leads somewhere")
    }

    fn increments(&self) -> String {
        let path = self.latest().join("rel-increments");
        fs::read_to_string(path).expect("is there")
    }
}

/// Full and incremental backups of a database that is written to all the time are proven.
fn are_proven<D: Database>(mut ground: Ground<D>) {
    ground.start_writing();
    for increments in ["0\n", "1\n", "0\n"] {
        let _ = ground.back_up().ok();
        assert_eq!(ground.increments(), increments);
        ground.is_writable();
    }
    ground.stop_writing();
    // `keep=2`, and the last one is a proven one.
    let proven = ground.proven();
    assert_eq!(proven.len(), 2, "{proven:?}");
    let last = proven.last().expect("some");
    assert!(ground.latest().ends_with(last), "{proven:?}");
    assert!(ground.latest().join("rel-proof").is_file());
}

#[test]
fn backups_of_sqlite_are_proven() {
    are_proven(Ground::new(Sqlite::new));
}

#[test]
fn backups_of_postgres_are_proven() {
    are_proven(Ground::new(Postgres::new));
}

#[test]
fn backups_of_zodb_are_proven() {
    are_proven(Ground::new(Zodb::new));
}

/// `repozo -R` restores what is left, and ends with 0.
#[test]
fn no_increment_is_added_to_a_damaged_backup() {
    let damages: [fn(&PathBuf); 2] = [
        |file| fs::remove_file(file).expect("removes"),
        |file| {
            let mut bytes = fs::read(file).expect("reads");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(file, bytes).expect("writes");
        },
    ];
    for damage in damages {
        let mut ground = Ground::new(Zodb::new);
        ground.start_writing();
        let _ = ground.back_up().ok();
        ground.stop_writing();
        assert_eq!(ground.increments(), "0\n");
        let files = fs::read_dir(ground.latest()).expect("lists");
        let files = files.map(|entry| entry.expect("lists").path());
        let file = files.filter(|path| path.extension().is_some_and(|e| e == "fs"));
        damage(&file.last().expect("a full backup"));
        let output = ground.back_up().ok();
        assert!(
            output.stderr.contains("no increment could be added"),
            "{output}"
        );
        assert_eq!(ground.increments(), "0\n", "{output}");
    }
}

/// SQLite writes the error into the dump, and ends with 0.
#[test]
fn what_sqlite_can_not_read_is_neither_backed_up_nor_evolved() {
    let ground = Ground::new(Sqlite::new);
    let live = ground.space.path("hosts/db/live/data.db");
    let mut bytes = fs::read(&live).expect("reads");
    let pages = bytes.len() / 4096;
    bytes[4096 * (pages - 1)..].fill(0x5a);
    fs::write(&live, &bytes).expect("writes");
    let output = ground.back_up().fails(1);
    assert!(!ground.backups().join("latest").exists(), "{output}");
    // One that is not there is not made, and found sound.
    fs::remove_file(&live).expect("removes");
    let output = ground.back_up().fails(1);
    assert!(output.stderr.contains("is not there"), "{output}");
    assert!(!live.exists());
}

#[test]
fn a_proven_backup_stays_one_whatever_fails_later() {
    let ground = Ground::new(Sqlite::new);
    let text = ground.space.read("Releasefile.kdl");
    let late = "    use \"wait-for\" as=\"late\" on=\"db\" command=\"test -e {host.root}/well\" within=\"1s\"\n}\n";
    let text = text
        .trim_end()
        .strip_suffix('}')
        .expect("ends so")
        .to_owned()
        + late;
    ground.space.write("Releasefile.kdl", text);
    for _ in 0..3 {
        let _ = ground.back_up().fails(1);
        let last = ground.proven().pop().expect("a proven one");
        assert!(ground.latest().ends_with(&last));
    }
    assert_eq!(ground.proven().len(), 2, "`keep`");
    ground.space.write("hosts/db/well", "");
    let _ = ground.back_up().ok();
    let proven = ground.proven();
    let back = ground.space.run(["nightly", "--rollback"]).ok();
    assert!(back.stderr.contains("rolled back"), "{back}");
    assert_eq!(ground.proven(), proven);
    assert!(ground.latest().ends_with(proven.last().expect("some")));
}

/// A driver of a project that has `fingerprint` has to write `$proof`, in `full` and in
/// `incremental`.
#[test]
fn a_driver_that_writes_no_proof_is_told() {
    let space = Space::new(
        r#"
var "full" "true"
var "more" "true"
host "db" local=#true root="db"
environment "nightly" {
    use "backup" on="db" driver="flat" into="{host.root}/backups" full-writes="{full}" more-writes="{more}"
}
"#,
    );
    space.write("db/live", "1\n");
    space.write(
        "recipes/flat.kdl",
        r#"
driver "flat" {
    param "full-writes"
    param "more-writes"
    param "full" type="command" default="cp live \"$backup/copy\"; if {full-writes}; then cksum <live >\"$proof\"; fi"
    param "incremental" type="command" default="cp live \"$backup/copy\"; if {more-writes}; then cksum <live >\"$proof\"; fi"
    param "restore" type="command" default="mkdir \"$place\"; cp \"$backup/copy\" \"$place\""
    param "fingerprint" type="command" default="cksum <\"$place/copy\""
    param "check" type="command" default="test -s \"$place/copy\""
    param "drop" type="command" default="rm -rf -- \"$place\""
}
"#,
    );
    let back_up = |var: &str| space.run(["nightly", "--force", "--var", var]);
    let told = back_up("full=false").fails(1);
    let says = "the driver's `full` wrote no $proof";
    assert!(told.stderr.contains(says), "{told}");
    let _ = back_up("full=true").ok();
    let told = back_up("more=false").fails(1);
    let says = "the driver's `incremental` wrote no $proof";
    assert!(told.stderr.contains(says), "{told}");
    let _ = back_up("more=true").ok();
}
