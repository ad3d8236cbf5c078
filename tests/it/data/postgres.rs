//! PostgreSQL: a server of its own for each test.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use super::{Database, Ground, beside, start, words_of};
use crate::hosts::free_port;
use crate::space::{PATH, Space, postgres_programs};

/// A server with the database `app`.
pub struct Postgres {
    dir: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    pub fn new(space: &Space) -> Self {
        let dir = tempfile::Builder::new().prefix("rel-pg-").tempdir();
        let dir = dir.expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("sets");
        let server = Self {
            dir,
            port: free_port(),
        };
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "-N"],
        );
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=16MB",
            server.port
        );
        let log = format!("{}/log", server.dir.path().display());
        server.run(
            "pg_ctl",
            &["-D", &data, "-w", "-l", &log, "-o", &options, "start"],
        );
        for sql in [
            "CREATE ROLE owner",
            "CREATE DATABASE app OWNER owner",
            "ALTER DATABASE app SET search_path = public, extra",
            "REVOKE CONNECT ON DATABASE app FROM PUBLIC",
        ] {
            server.sql(space, "postgres", sql);
        }
        server.sql(
            space,
            "app",
            "CREATE TABLE words (number int PRIMARY KEY); CREATE TABLE evolved (id serial, name text);",
        );
        server
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Runs one of the server's programs as a user that it takes.
    fn run(&self, program: &str, args: &[&str]) {
        let bin = postgres_programs();
        let bin = bin.expect("there is no PostgreSQL: run tests/run, which installs it");
        let program = bin.join(program);
        let mut command = match rustix::process::getuid().is_root() {
            true => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        command.current_dir(self.dir.path()).args(args);
        command
            .env_clear()
            .env("PATH", &*PATH)
            .env("LC_ALL", "C.UTF-8");
        // The server keeps what it inherits.
        let words = fs::File::create(self.dir.path().join("words")).expect("creates");
        command
            .stdout(words.try_clone().expect("a handle"))
            .stderr(words);
        let status = command.status().expect("runs");
        let words = fs::read_to_string(self.dir.path().join("words")).unwrap_or_default();
        assert!(status.success(), "{command:?}: {words}");
    }

    pub fn sql(&self, space: &Space, database: &str, sql: &str) -> String {
        let mut psql = space.program("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
        ]);
        psql.args([
            "-U",
            "postgres",
            "-p",
            &self.port.to_string(),
            "-d",
            database,
        ]);
        space.finish(psql.args(["-c", sql])).ok().stdout
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]);
    }
}

impl Database for Postgres {
    fn arguments(&self) -> String {
        format!(
            "driver=\"postgres\" database=\"app\" pghost=\"127.0.0.1\" port={}",
            self.port
        )
    }

    fn script(&self, number: usize, is_bad: bool) -> (String, String) {
        let name = format!("{number:03}.sql");
        let end = if is_bad {
            "SELECT * FROM nowhere;\n"
        } else {
            ""
        };
        let text = format!("INSERT INTO public.evolved (name) VALUES ('{name}');\n{end}");
        (name, text)
    }

    fn writer(&self, space: &Space, acks: &Path) -> Child {
        let mut sh = space.program("sh");
        sh.arg(beside("postgres_writer.sh"));
        start(sh.arg(self.port.to_string()).arg(acks), &words_of(acks))
    }

    fn content(&self, space: &Space) -> (BTreeSet<u64>, Vec<String>) {
        let words = self.sql(space, "app", "SELECT number FROM words");
        let done = self.sql(space, "app", "SELECT name FROM evolved ORDER BY id");
        let words = words.lines().map(|l| l.parse().expect("a number"));
        (words.collect(), done.lines().map(str::to_owned).collect())
    }
}

#[test]
fn postgres_evolves_and_loses_nothing() {
    Ground::new(Postgres::new).walk();
}
