//! Who asks a host something for an evolve is killed: one call of a program after the other,
//! the program itself or who waits for its answer. Silence is no answer.
//!
//! Some calls are enough for CI; with `REL_KILLS` set all of them are killed, at all heights.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::zodb::Zodb;
use super::{Database, Ground};
use crate::disturb::chance;
use crate::space::{Output, PATH};

/// Stands before a program on the host: counts its calls, and kills at the one in `victim`,
/// which also says how far above it. Never the leader of a session: that is a whole step.
const SHIM: &str = r#"#!/bin/sh
n=$(($(cat DIR/calls) + 1))
echo "$n" >DIR/calls
read -r call above <DIR/victim
if [ "$n" = "$call" ]; then
    pid=$$
    while [ "$above" -gt 0 ]; do
        read -r stat </proc/$pid/stat
        set -f; set -- ${stat##*) }
        parent=$2 session=$4
        if [ "$parent" = "$session" ]; then break; fi
        pid=$parent above=$((above - 1))
    done
    echo "$pid" >DIR/struck
    kill -KILL "$pid"
    exit 1
fi
exec PROGRAM "$@"
"#;

/// How far above a program somebody is killed: itself, its parent, and so on.
const ABOVE: usize = 4;

impl<D: Database> Ground<D> {
    /// Lays the shims down, before all other programs.
    fn shims(&self, programs: &[&str]) -> PathBuf {
        let dir = self.space.base().join("shims");
        fs::create_dir(&dir).expect("creates");
        for program in programs {
            let path = self.space.shell(&format!("command -v {program}"));
            let shim = SHIM.replace("DIR", &dir.display().to_string());
            let shim = shim.replace("PROGRAM", path.trim());
            fs::write(dir.join(program), shim).expect("writes");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(dir.join(program), mode).expect("sets");
        }
        dir
    }

    /// Runs, and kills at the given call; returns whether there was one.
    fn evolve_struck(&self, dir: &Path, call: usize, above: usize) -> (Output, bool) {
        fs::write(dir.join("calls"), "0").expect("writes");
        fs::write(dir.join("victim"), format!("{call} {above}\n")).expect("writes");
        let _ = fs::remove_file(dir.join("struck"));
        let mut rel = self.space.rel(["production"]);
        let path = format!("{}:{}", dir.display(), *PATH);
        let output = self.space.finish(rel.env("PATH", path));
        (output, dir.join("struck").exists())
    }

    /// Kills at each call where the environment asks for numbers, else at some.
    fn walk_asked(mut self, programs: &[&str]) {
        let is_whole = std::env::var_os("REL_KILLS").is_some();
        let (every, levels) = match is_whole {
            true => (1, 0..ABOVE),
            false => {
                let above = chance() as usize % ABOVE;
                (8, above..above + 1)
            }
        };
        let shims = self.shims(programs);
        self.start_writing();
        let (mut number, mut struck, mut ended_early) = (0, 0, 0);
        for above in levels {
            let mut call = 1 + chance() as usize % every;
            loop {
                number += 1;
                self.done.push(self.add_script(number, false));
                let (output, is_struck) = self.evolve_struck(&shims, call, above);
                self.guard_is_gone();
                let place = format!("call {call}, {above} above");
                if output.code == 0 {
                    assert_eq!(self.is_complete(), self.done, "{place}: {output}");
                } else {
                    assert!(is_struck, "{place}: {output}");
                    ended_early += 1;
                    let again = self.evolve();
                    assert_eq!(again.code, 0, "after {place}, {output}: {again}");
                    assert_eq!(self.is_complete(), self.done, "{place}: {output}");
                }
                self.is_writable();
                if !is_struck {
                    break;
                }
                struck += 1;
                call += every;
            }
        }
        self.stop_writing();
        self.has_lost_nothing();
        assert!(struck > 0);
        println!("{programs:?}: {struck} killed, of which {ended_early} ended the run");
    }
}

#[test]
fn sqlite_evolves_though_who_asks_is_disturbed() {
    Ground::new(Sqlite::new).walk_asked(&["sqlite3", "readlink"]);
}

#[test]
fn postgres_evolves_though_who_asks_is_disturbed() {
    Ground::new(Postgres::new).walk_asked(&["psql"]);
}

#[test]
fn zodb_evolves_though_who_asks_is_disturbed() {
    Ground::new(Zodb::new).walk_asked(&["readlink"]);
}
