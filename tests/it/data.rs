//! Live databases that evolve: real SQLite, PostgreSQL and ZODB behind ZEO, with a writer at
//! work all the time, scripts that fail, and a `rel` that is killed at random moments.
//!
//! The writer notes each write that was acknowledged to it. Whatever happens, all of these
//! are in the live database in the end, it can be written to, and each script was done once.
//! `REL_DATA_KILLS` says how often each driver's `rel` is killed; `disturb.rs` has what else befalls them.

mod asked;
mod back;
mod disturbed;
mod kept;
mod postgres;
mod proofs;
mod sqlite;
mod zodb;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::disturb::{IMPATIENT, LEASE, chance, part_of};
use crate::hosts::Hosts;
use crate::space::{Job, Output, Space, is_alive, wait_until};

/// Kills for each driver when nothing else is asked for.
const KILLS: usize = 8;

/// Steps during which, or a while after which, runs are killed.
const STEPS: [&str; 10] = [
    "pending",
    "full",
    "read-only",
    "incremental",
    "restore",
    "evolve",
    "hold",
    "switch",
    "health",
    "writable",
];

/// A database with its driver.
trait Database {
    /// Arguments of the `use`, but for `into` and `scripts`.
    fn arguments(&self) -> String;
    /// Name and text of an evolve script that notes itself in the database; one that is bad
    /// fails after that.
    fn script(&self, number: usize, is_bad: bool) -> (String, String);
    /// Starts writing, noting what was acknowledged in a file.
    fn writer(&self, space: &Space, acks: &Path) -> Child;
    /// The numbers in the live database, and the scripts that noted themselves there.
    fn content(&self, space: &Space) -> (BTreeSet<u64>, Vec<String>);
}

/// A space with an environment that evolves a database on the host `db`.
struct Ground<D: Database> {
    // Its server ends before its directory goes.
    database: D,
    space: Space,
    writer: Option<Child>,
    done: Vec<String>,
    /// Where `db` is reached over a line of its own.
    hosts: Option<Hosts>,
}

impl<D: Database> Ground<D> {
    fn new(make: impl FnOnce(&Space) -> D) -> Self {
        let space = Space::empty();
        fs::create_dir_all(space.path("hosts/db/scripts")).expect("creates");
        let database = make(&space);
        Self::on(space, database, None)
    }

    /// Returns a ground whose host is reached by ssh, over a line that can be taken down. The
    /// database is there, and so is who writes to it.
    fn wired(make: impl FnOnce(&Space) -> D) -> Self {
        let mut hosts = Hosts::wired_only();
        hosts.all[0].name = String::from("db");
        let space = Space::empty();
        fs::create_dir(space.path("hosts")).expect("creates");
        std::os::unix::fs::symlink(hosts.all[0].srv(""), space.path("hosts/db")).expect("links");
        fs::create_dir(space.path("hosts/db/scripts")).expect("creates");
        let database = hosts.inside(0, || make(&space));
        Self::on(space, database, Some(hosts))
    }

    fn on(space: Space, database: D, hosts: Option<Hosts>) -> Self {
        let ground = Self {
            database,
            space,
            writer: None,
            done: Vec::new(),
            hosts,
        };
        ground.releasefile("{host.root}/copies", "", "");
        ground
    }

    /// Does something where the database is.
    fn there<T>(&self, act: impl FnOnce(&D, &Space) -> T) -> T {
        let act = || act(&self.database, &self.space);
        match &self.hosts {
            Some(hosts) => hosts.inside(0, act),
            None => act(),
        }
    }

    fn content(&self) -> (BTreeSet<u64>, Vec<String>) {
        self.there(|database, space| database.content(space))
    }

    /// Writes the Releasefile, with more arguments for the driver and more uses before.
    fn releasefile(&self, into: &str, more: &str, before: &str) {
        let arguments = self.database.arguments();
        let (host, lease) = match &self.hosts {
            Some(hosts) => (
                hosts.node(&hosts.all[0], IMPATIENT),
                format!("    lease \"{LEASE}\""),
            ),
            None => (
                String::from("host \"db\" local=#true root=\"hosts/db\"\n"),
                String::new(),
            ),
        };
        let text = format!(
            "project \"data\" {{ version \"1\" }}\n{host}\
             environment \"production\" {{\n{lease}\n{before}\n    \
             use \"evolve-live\" as=\"evolve\" on=\"db\" into=\"{into}\" scripts=\"{{host.root}}/scripts\" {arguments} {more}\n}}\n\
             environment \"nightly\" {{\n    \
             use \"backup\" on=\"db\" into=\"{{host.root}}/backups\" increments=1 keep=2 max-age=\"1h\" {arguments}\n}}\n"
        );
        self.space.write("Releasefile.kdl", text);
    }

    fn acks(&self) -> PathBuf {
        self.space.base().join("acks")
    }

    fn acknowledged(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.acks()).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|l| l.parse().expect("a number"))
            .collect()
    }

    fn start_writing(&mut self) {
        let acks = self.acks();
        self.writer = Some(self.there(|database, space| database.writer(space, &acks)));
        self.is_writable();
    }

    fn stop_writing(&mut self) {
        let mut writer = self.writer.take().expect("it writes");
        end_group(&mut writer);
    }

    /// Waits until writes are acknowledged again.
    #[track_caller]
    fn is_writable(&self) {
        let before = self.acknowledged().len();
        wait_until("an acknowledged write", || {
            (self.acknowledged().len() > before + 2).then_some(())
        });
    }

    fn add_script(&self, number: usize, is_bad: bool) -> String {
        let (name, text) = self.database.script(number, is_bad);
        let path = format!("hosts/db/scripts/{name}");
        self.space.write(&path, text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.space.path(path), mode).expect("sets");
        name
    }

    fn evolve(&self) -> Output {
        self.space.run(["production"])
    }

    fn told(&self) -> Value {
        self.space.ask(["production"])
    }

    /// Kills a run some time after a step has begun, and waits until the host has noticed.
    fn kill(&self, step: &str, after: Duration) {
        let job = begin(&self.space, step);
        std::thread::sleep(after);
        job.signal(Signal::KILL);
        let _ = job.finish();
        self.guard_is_gone();
    }

    /// Waits until the host's guard has noticed that a run is over.
    fn guard_is_gone(&self) {
        wait_until("the host's guard", || {
            (!self.space.has("hosts/db/.rel/production/lease")).then_some(())
        });
    }

    /// All that was acknowledged is there, and each script was done once.
    #[track_caller]
    fn has_lost_nothing(&self) {
        assert_eq!(self.is_complete(), self.done);
    }

    /// All that was acknowledged up to now is there; returns the scripts that are.
    #[track_caller]
    fn is_complete(&self) -> Vec<String> {
        let acknowledged = self.acknowledged();
        let (words, done) = self.content();
        let lost = acknowledged.into_iter().filter(|n| !words.contains(n));
        let lost: Vec<u64> = lost.collect();
        assert!(lost.is_empty(), "lost {} writes: {lost:?}", lost.len());
        done
    }

    /// Full, then incremental, each restored before it counts; nothing while it is young.
    fn backs_up(&self) {
        let kinds = ["full", "incremental, number 1", "full"];
        for (i, kind) in kinds.into_iter().enumerate() {
            let output = self.space.run(["nightly", "--force"]).ok();
            assert!(output.stderr.contains(kind), "no `{kind}` in {output}");
            let latest = fs::read_link(self.space.path("hosts/db/backups/latest"));
            let name = latest.expect("a link").display().to_string();
            let mark = format!("hosts/db/backups/{name}.rel-copy");
            assert!(self.space.read(mark).contains("restored and found sound"));
            let dirs = fs::read_dir(self.space.path("hosts/db/backups")).expect("lists");
            // Two are kept, each with its mark, the link, and whose they are; nothing of the scratch
            // place.
            assert_eq!(dirs.count(), [4, 6, 6][i]);
        }
        let output = self.space.run(["--json", "nightly"]).ok();
        assert!(output.stdout.contains("\"ran\": 0"), "{output}");
    }

    /// The way of a database through everything that may happen to it.
    fn walk(mut self) {
        let nothing = self.told();
        assert_eq!(nothing["ran"], 0, "{nothing:#}");
        self.start_writing();

        let start = Instant::now();
        self.done.push(self.add_script(1, false));
        let _ = self.evolve().ok();
        let took = start.elapsed();
        self.is_writable();
        assert_eq!(self.content().1, self.done);
        let again = self.told();
        assert_eq!(
            (&again["ran"], &again["round_trips"]),
            (&0.into(), &1.into())
        );

        let bad = self.add_script(2, true);
        let failed = self.evolve().fails(1);
        assert!(failed.stderr.contains("evolve/evolve"), "{failed}");
        self.is_writable();
        assert_eq!(self.content().1, self.done);
        self.space.remove(format!("hosts/db/scripts/{bad}"));

        let kills = std::env::var("REL_DATA_KILLS").ok();
        let kills = kills.map_or(KILLS, |text| text.parse().expect("a number"));
        let mut ended_new = 0;
        for number in 3..3 + kills {
            let name = self.add_script(number, false);
            let step = STEPS[chance() as usize % STEPS.len()];
            let after = part_of(took / 6);
            let before = self.done.len();
            self.done.push(name);
            self.kill(step, after);
            self.is_writable();
            let done = self.is_complete();
            let is_whole = done.len() <= before || done == self.done;
            assert!(is_whole, "killed {after:?} after `{step}`: {done:?}");
            ended_new += usize::from(done == self.done);
        }
        let _ = self.evolve().ok();
        self.is_writable();
        self.stop_writing();
        self.has_lost_nothing();
        assert_eq!(self.told()["ran"], 0);
        self.backs_up();
        println!(
            "{kills} kills within {took:?}: {ended_new} ended on the new database; {} writes acknowledged, none lost",
            self.acknowledged().len()
        );
    }
}

impl<D: Database> Drop for Ground<D> {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            end_group(&mut writer);
        }
        if std::thread::panicking() {
            let state = self.space.path("hosts/db/.rel/production");
            let paths = [state.join("journal"), state.join("scopes.log")];
            for path in paths.into_iter().chain([words_of(&self.acks())]) {
                let name = path.display();
                let text = fs::read_to_string(&path).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(30).collect();
                println!("--- last of {name}, latest first\n{}", last.join("\n"));
            }
        }
    }
}

/// Begins a run; returns when a step has begun in it, or it has ended.
fn begin<'a>(space: &'a Space, step: &str) -> Job<'a> {
    let job = space.begin(["production"]);
    let pid = job.pid().as_raw_nonzero().to_string();
    wait_until(step, || {
        let has_begun = job.stderr().contains(&format!("evolve/{step}  "));
        (has_begun || !is_alive(&pid)).then_some(())
    });
    job
}

/// Starts a program in a group of its own, in the space's environment.
fn start(command: &mut Command, words: &Path) -> Child {
    use std::os::unix::process::CommandExt;
    let words = fs::File::create(words).expect("creates");
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words);
    command
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn end_group(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    let _ = child.wait();
}

/// Returns where a writer says what it met.
fn words_of(acks: &Path) -> PathBuf {
    acks.with_extension("words")
}

/// Returns the path of a file beside these tests.
fn beside(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/data");
    tests.join(name)
}
