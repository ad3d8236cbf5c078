//! The model of releases: random histories of two environments that share their hosts, and an
//! oracle that knows what must be live after each run.
//!
//! Runs fail, are killed and resumed, roll back alone or by command; somebody changes what they
//! left; the other environment releases to the same place. `REL_MODEL_RELEASES=1000` walks
//! more, `REL_MODEL_SEED=17` one, or from there on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

use super::history::Random;
use super::variable;
use crate::space::{Output, Space, wait_until};

/// Histories walked unless a person asks for more.
const HISTORIES: u64 = 40;

const ENVIRONMENTS: [&str; 2] = ["a", "b"];
const HOSTS: [&str; 2] = ["h1", "h2"];
/// Steps of a release, in order. Those that pause and the gate have no rollback.
const STEPS: [Step; 7] = [
    Step::Pause(0),
    Step::Item(Item::Link),
    Step::Pause(1),
    Step::Pages,
    Step::Item(Item::File),
    Step::Pause(2),
    Step::Gate,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Pause(usize),
    Item(Item),
    Pages,
    Gate,
}

/// What is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Link,
    File,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Release {
        env: usize,
        version: usize,
    },
    /// Its gate stays shut on a host.
    Fails {
        env: usize,
        version: usize,
        host: usize,
    },
    /// It is killed in one of its pauses, if it comes there.
    Killed {
        env: usize,
        version: usize,
        pause: usize,
    },
    Rollback {
        env: usize,
        is_forced: bool,
    },
    /// Somebody gives a link or file another content.
    Foreign {
        host: usize,
        item: Item,
        version: usize,
    },
}

fn op(random: &mut Random) -> Op {
    let (env, version, host) = (random.below(2), 1 + random.below(3), random.below(2));
    match random.below(16) {
        0..=4 => Op::Release { env, version },
        5..=6 => Op::Fails { env, version, host },
        7..=9 => Op::Killed {
            env,
            version,
            pause: random.below(3),
        },
        10..=12 => Op::Rollback {
            env,
            is_forced: false,
        },
        13 => Op::Rollback {
            env,
            is_forced: true,
        },
        _ => {
            let item = [Item::Link, Item::File][random.below(2)];
            // The last one is of no release.
            Op::Foreign {
                host,
                item,
                version: 1 + random.below(4),
            }
        }
    }
}

/// What a step found and left.
#[derive(Clone, Debug)]
struct Entry {
    host: usize,
    item: Item,
    before: Option<usize>,
    left: usize,
}

#[derive(Clone, Debug, Default)]
struct Run {
    number: usize,
    is_ok: bool,
    entries: Vec<Entry>,
}

/// In which run a step was done, for which version; none where it did not end.
type Record = (usize, Option<usize>);

/// What one environment's journals say.
#[derive(Clone, Debug, Default)]
struct Journal {
    /// Runs that did something and were not rolled back, oldest first.
    runs: Vec<Run>,
    /// By host and step, the last one last.
    records: BTreeMap<(usize, Step), Vec<Record>>,
}

impl Journal {
    /// Returns the version that a step did last, if it ended: `None` where it was never begun.
    fn record(&self, host: usize, step: Step) -> Option<Option<usize>> {
        let records = self.records.get(&(host, step))?;
        records.last().map(|(_, version)| *version)
    }

    fn note(&mut self, host: usize, step: Step, run: usize, version: Option<usize>) {
        let records = self.records.entry((host, step)).or_default();
        records.push((run, version));
    }

    /// Takes back what is known of these runs' steps that have a rollback.
    fn forget(&mut self, runs: &[Run]) {
        for run in runs {
            for entry in &run.entries {
                let key = (entry.host, Step::Item(entry.item));
                let records = self.records.entry(key).or_default();
                records.retain(|(number, _)| *number != run.number);
            }
        }
    }

    /// Takes the runs away that did not come to their end, since the last one that did.
    fn take_unfinished(&mut self) -> Vec<Run> {
        let ended = self.runs.iter().rposition(|run| run.is_ok);
        self.runs.split_off(ended.map_or(0, |at| at + 1))
    }

    /// Takes the runs away that `--rollback` rolls back; none where nothing is left.
    fn take_last_release(&mut self) -> Vec<Run> {
        while !self.runs.is_empty() {
            let mut group = self.take_unfinished();
            if group.is_empty() {
                group.extend(self.runs.pop());
                group.splice(0..0, self.take_unfinished());
            }
            // What left no rollback is passed over.
            if group.iter().any(|run| !run.entries.is_empty()) {
                return group;
            }
        }
        Vec::new()
    }
}

struct Walk {
    space: Space,
    journals: [Journal; 2],
    live: BTreeMap<(usize, Item), usize>,
    runs: usize,
    /// What happened so far, for a failure.
    story: Vec<String>,
}

impl Walk {
    fn new() -> Self {
        let hosts = HOSTS.map(|h| format!("host \"{h}\" local=#true root=\"hosts/{h}\"\n"));
        let environment = |name: &str, pages: &str| {
            format!(
                "environment \"{name}\" {{\n    needs \"page\"\n    \
                 use \"app\" on=\"h[1-2]\" version=\"{{v}}\" pages=\"{pages}\"\n}}\n"
            )
        };
        let mut text = hosts.concat();
        text += "var \"v\" \"1\"\ntarget \"page\" {\n    each \"x\" \"one\" \"two\"\n    \
                 outputs \"page-{x}\"\n    run \"echo {x} {v} >page-{x}\"\n}\n";
        // All instances, and one.
        text += &environment("a", "{page}");
        text += &environment("b", "{page[one]}");
        let space = Space::new(&text);
        let pause = |n: usize| {
            format!(
                "    step \"p{n}\" undo=#false {{ run \"cd ../.. && while test -e hold.{n}; do \
                 : >held.{{host.name}}; sleep 0.01; done; : {{version}}\"; }}\n"
            )
        };
        let recipe = [
            "recipe \"app\" {\n    param \"version\"\n    param \"pages\" type=\"artifact\"\n",
            &pause(0),
            "    step \"link\" { symlink \"{host.root}/current\" to=\"releases/{version}\"; }\n",
            &pause(1),
            "    step \"pages\" undo=#false { \
             put \"{pages}\" to=\"{host.root}/pages/{environment}-{version}/\"; }\n",
            "    step \"file\" { write \"{host.root}/file\" \"{version}\\n\"; }\n",
            &pause(2),
            "    step \"gate\" undo=#false { \
             run \"test ! -e ../../shut.{host.name} && : {version}\"; }\n}\n",
        ];
        space.write("recipes/app.kdl", recipe.concat());
        Self {
            space,
            journals: Default::default(),
            live: BTreeMap::new(),
            runs: 0,
            story: Vec::new(),
        }
    }

    fn path(&self, host: usize, item: Item) -> PathBuf {
        let name = match item {
            Item::Link => "current",
            Item::File => "file",
        };
        self.space.path(format!("hosts/{}/{name}", HOSTS[host]))
    }

    /// Returns the version that a link or file has.
    fn found(&self, host: usize, item: Item) -> Option<usize> {
        let path = self.path(host, item);
        let text = match item {
            Item::Link => fs::read_link(path).ok()?.to_string_lossy().into_owned(),
            Item::File => fs::read_to_string(path).ok()?,
        };
        text.trim().rsplit('/').next()?.parse().ok()
    }

    fn args(env: usize, version: usize) -> [String; 3] {
        [
            ENVIRONMENTS[env].to_owned(),
            "--var".to_owned(),
            format!("v={version}"),
        ]
    }

    /// Whether a step has something to do for a version.
    fn runs(&self, env: usize, host: usize, step: Step, version: usize) -> bool {
        let record = self.journals[env].record(host, step);
        match step {
            Step::Item(item) => {
                let is_so = self.live.get(&(host, item)) == Some(&version);
                !(is_so && (record.is_none() || record == Some(Some(version))))
            }
            _ => record != Some(Some(version)),
        }
    }

    /// Does the steps of a run on all hosts, up to one that is not done there.
    fn carry_out(&mut self, env: usize, version: usize, stops: &dyn Fn(usize, Step) -> bool) {
        self.runs += 1;
        let mut run = Run {
            number: self.runs,
            ..Run::default()
        };
        let mut has_run = false;
        for host in 0..HOSTS.len() {
            for step in STEPS {
                if !self.runs(env, host, step, version) {
                    continue;
                }
                has_run = true;
                if stops(host, step) {
                    self.journals[env].note(host, step, run.number, None);
                    break;
                }
                // A link that is so already has no rollback.
                if let Step::Item(item) = step
                    && let before = self.live.insert((host, item), version)
                    && (before != Some(version) || item == Item::File)
                {
                    run.entries.push(Entry {
                        host,
                        item,
                        before,
                        left: version,
                    });
                }
                self.journals[env].note(host, step, run.number, Some(version));
            }
        }
        if has_run {
            self.journals[env].runs.push(run);
        }
    }

    /// Marks the last attempts as ended: a run that had nothing left to do does so as well.
    fn end(&mut self, env: usize) {
        if let Some(run) = self.journals[env].runs.last_mut() {
            run.is_ok = true;
        }
    }

    /// Takes runs back; returns whether all of it could be. What somebody else has made of a link
    /// stays, unless it is forced.
    fn take_back(&mut self, env: usize, runs: &[Run], is_forced: bool) -> bool {
        let mut is_whole = true;
        for run in runs.iter().rev() {
            for entry in run.entries.iter().rev() {
                let key = (entry.host, entry.item);
                let found = self.live.get(&key).copied();
                let is_own = [None, Some(entry.left), entry.before].contains(&found);
                if !is_own && !is_forced && entry.item == Item::Link {
                    is_whole = false;
                    continue;
                }
                match entry.before {
                    Some(version) => drop(self.live.insert(key, version)),
                    None => drop(self.live.remove(&key)),
                }
            }
        }
        self.journals[env].forget(runs);
        is_whole
    }

    /// Returns whether somebody else changed what is rolled back, since or between two attempts.
    fn differs(&self, runs: &[Run]) -> bool {
        let mut live = self.live.clone();
        let entries = runs.iter().rev().flat_map(|run| run.entries.iter().rev());
        entries.into_iter().any(|entry| {
            let key = (entry.host, entry.item);
            let found = match entry.before {
                Some(version) => live.insert(key, version),
                None => live.remove(&key),
            };
            ![None, Some(entry.left), entry.before].contains(&found)
        })
    }

    /// Compares what is live with what must be.
    fn check(&self, output: &Output) -> Result<(), String> {
        for (host, name) in HOSTS.iter().enumerate() {
            for item in [Item::Link, Item::File] {
                let (found, wanted) = (self.found(host, item), self.live.get(&(host, item)));
                if found.as_ref() != wanted {
                    return Err(format!(
                        "{item:?} of {name}: {found:?}, not {wanted:?}\n{output}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn ends_with(&self, output: &Output, codes: &[i32]) -> Result<(), String> {
        match codes.contains(&output.code) {
            true => Ok(()),
            false => Err(format!(
                "exit code {}, not {codes:?}\n{output}",
                output.code
            )),
        }
    }

    /// Returns whether the history can go on: nobody knows what follows a rollback that failed.
    fn op(&mut self, op: Op) -> Result<bool, String> {
        match op {
            Op::Release { env, version } => {
                let output = self.space.run(Self::args(env, version));
                self.released(env, version, &output)?;
            }
            Op::Fails { env, version, host } => return self.fails(env, version, host),
            Op::Killed {
                env,
                version,
                pause,
            } => self.killed(env, version, pause)?,
            Op::Rollback { env, is_forced } => self.rolls_back(env, is_forced)?,
            Op::Foreign {
                host,
                item,
                version,
            } => {
                let path = self.path(host, item);
                let _ = fs::create_dir_all(path.parent().expect("has one"));
                let _ = fs::remove_file(&path);
                match item {
                    Item::Link => std::os::unix::fs::symlink(format!("releases/{version}"), path),
                    Item::File => fs::write(path, format!("{version}\n")),
                }
                .expect("is written");
                self.live.insert((host, item), version);
            }
        }
        Ok(true)
    }

    fn released(&mut self, env: usize, version: usize, output: &Output) -> Result<(), String> {
        self.carry_out(env, version, &|_, _| false);
        self.end(env);
        self.ends_with(output, &[0])?;
        self.check(output)?;
        for host in HOSTS {
            for (page, is_there) in [("one", true), ("two", env == 0)] {
                let name = format!(
                    "hosts/{host}/pages/{}-{version}/page-{page}",
                    ENVIRONMENTS[env]
                );
                let text = fs::read_to_string(self.space.path(name)).ok();
                let wanted = is_there.then(|| format!("{page} {version}\n"));
                if text != wanted {
                    return Err(format!(
                        "page {page} of {host}: {text:?}, not {wanted:?}\n{output}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn fails(&mut self, env: usize, version: usize, host: usize) -> Result<bool, String> {
        if !self.runs(env, host, Step::Gate, version) {
            return Ok(true);
        }
        let shut = format!("shut.{}", HOSTS[host]);
        self.space.write(&shut, "");
        let output = self.space.run(Self::args(env, version));
        self.space.remove(&shut);
        self.carry_out(env, version, &|at, step| at == host && step == Step::Gate);
        let runs = self.journals[env].take_unfinished();
        let is_whole = self.take_back(env, &runs, false);
        self.ends_with(&output, if is_whole { &[1] } else { &[4] })?;
        let says_live = output.stderr.contains("is live again");
        if !is_whole && says_live {
            return Err(format!("says too much\n{output}"));
        }
        self.check(&output)?;
        Ok(is_whole)
    }

    fn killed(&mut self, env: usize, version: usize, pause: usize) -> Result<(), String> {
        let hold = format!("hold.{pause}");
        self.space.write(&hold, "");
        let mut job = Some(self.space.begin(Self::args(env, version)));
        let is_held = self.runs(env, 0, Step::Pause(pause), version);
        if is_held {
            wait_until("both hosts pause", || {
                let held = HOSTS
                    .iter()
                    .all(|host| self.space.has(format!("held.{host}")));
                held.then_some(())
            });
            job.as_ref().expect("runs").signal(Signal::KILL);
        }
        let output = job.take().expect("runs").finish();
        // Its guards end what was at work, and give the leases back.
        if is_held {
            wait_until("the guards to leave", || {
                let lease = |host| format!("hosts/{host}/.rel/{}/lease", ENVIRONMENTS[env]);
                (!HOSTS.iter().any(|host| self.space.has(lease(host)))).then_some(())
            });
        }
        self.space.remove(&hold);
        for host in HOSTS {
            let held = format!("held.{host}");
            if self.space.has(&held) {
                self.space.remove(&held);
            }
        }
        if !is_held {
            return self.released(env, version, &output);
        }
        self.carry_out(env, version, &|_, step| step == Step::Pause(pause));
        self.check(&output)
    }

    fn rolls_back(&mut self, env: usize, is_forced: bool) -> Result<(), String> {
        let mut args = vec![ENVIRONMENTS[env], "--rollback"];
        if is_forced {
            args.push("--force");
        }
        let output = self.space.run(args);
        let before = self.journals[env].clone();
        let runs = self.journals[env].take_last_release();
        if runs.is_empty() {
            self.journals[env] = before;
            self.ends_with(&output, &[2])?;
        } else if self.differs(&runs) && !is_forced {
            self.journals[env] = before;
            self.ends_with(&output, &[1])?;
        } else {
            self.take_back(env, &runs, is_forced);
            self.ends_with(&output, &[0])?;
        }
        self.check(&output)
    }
}

fn walk(seed: u64) -> Result<(), String> {
    let random = &mut Random::new(seed);
    let mut walk = Walk::new();
    for _ in 0..4 + random.below(7) {
        let op = op(random);
        walk.story.push(format!("{op:?}"));
        match walk.op(op) {
            Ok(true) => {}
            Ok(false) => break,
            Err(why) => return Err(format!("seed {seed}: {why}\n{}", walk.story.join("\n"))),
        }
    }
    Ok(())
}

#[test]
fn what_is_live_is_what_the_runs_left() {
    let seed = variable("REL_MODEL_SEED");
    let usual = if seed.is_some() { 1 } else { HISTORIES };
    let count = variable("REL_MODEL_RELEASES").unwrap_or(usual);
    let (next, first) = (AtomicU64::new(0), seed.unwrap_or(1));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let n = next.fetch_add(1, Ordering::Relaxed)
                    && n < count
                {
                    failed
                        .lock()
                        .expect("is sound")
                        .extend(walk(first + n).err());
                }
            });
        }
    });
    let failed = failed.into_inner().expect("is sound");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
