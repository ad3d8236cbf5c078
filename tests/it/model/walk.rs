//! Walks a history: does each operation, builds, and holds what `rel` did against the oracle.
//!
//! Three things are checked after every step: what stands at the outputs, that a second build
//! runs nothing, and that no command ran whose action had been done already. What is known of
//! past runs is kept in [`Past`]; where a run was killed it only knows less, never something wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::ground::Ground;
use super::history::{History, Kind, Op};
use super::oracle::{Expected, Fate, expect};
use super::world::{Tree, World};

/// What was done in a walk; added up and told at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub operations: usize,
    pub builds: usize,
    pub kills: usize,
    pub targets: usize,
    pub runs: usize,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.builds += other.builds;
        self.kills += other.kills;
        self.targets += other.targets;
        self.runs += other.runs;
    }
}

/// What `rel` is known to know.
#[derive(Clone, Default)]
pub struct Past {
    /// By name: the action of the last recorded success.
    pub recorded: HashMap<String, String>,
    /// By id: the action whose outputs stand untouched in the tree.
    pub standing: HashMap<String, String>,
    /// By id: what stands outside of the tree.
    pub products: BTreeMap<String, String>,
    /// Actions that are in the cache for certain.
    pub cached: HashSet<String>,
    /// Actions that may ever have been done.
    pub ever: HashSet<String>,
    /// Nobody knows what a build saw that files changed under.
    pub is_unsure: bool,
    /// Blobs were changed without a change of size.
    pub is_cache_lying: bool,
    /// Instances that an orphan of a killed run may still log.
    pub late: HashSet<String>,
    /// Names whose record may have rotted. A snapshot, which vouches for itself, can hide
    /// that for any number of builds; then the target runs once without need.
    pub rotted: HashSet<String>,
    /// Directories that were put where a glob has a file, as long as a record tells so.
    pub dirs: Vec<PathBuf>,
}

pub struct Walk {
    pub ground: Ground,
    pub world: World,
    pub past: Past,
    /// The other checkout, what is known of it, and where it is once there is one.
    pub elsewhere: (Past, Option<PathBuf>),
    /// How often work went on in the other one.
    pub turns: usize,
    pub branches: [Option<(Tree, BTreeMap<String, SystemTime>)>; 2],
    pub counts: Counts,
}

/// How a build is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    forced: Option<usize>,
    without_cache: bool,
    stops_at_failure: bool,
}

pub type Outcome = Result<(), String>;

/// Walks a history to its end, or to the first thing that is wrong.
pub fn walk(history: &History, is_on_disk: bool) -> (Counts, Outcome) {
    let mut walk = Walk::new(&history.world, is_on_disk);
    let outcome = walk.all(history);
    // Now and then the oracle is asked about a clean build of what the history led to.
    let clean = || Walk::new(&walk.world, false).check(2);
    let outcome = match (outcome, is_on_disk) {
        (Ok(()), true) => clean().map_err(|e| format!("clean build: {e}")),
        (outcome, _) => outcome,
    };
    (walk.counts, outcome)
}

impl Walk {
    pub fn new(world: &World, is_on_disk: bool) -> Self {
        let ground = Ground::new(world, is_on_disk);
        Self {
            world: World {
                root: ground.root(),
                ..world.clone()
            },
            ground,
            past: Past::default(),
            elsewhere: (Past::default(), None),
            turns: 0,
            branches: [None, None],
            counts: Counts::default(),
        }
    }

    fn all(&mut self, history: &History) -> Outcome {
        self.check(2).map_err(|e| format!("at first: {e}"))?;
        for (number, step) in history.steps.iter().enumerate() {
            for op in step {
                self.counts.operations += 1;
                let done = self.op(*op);
                done.map_err(|e| format!("step {number}, in {op:?}: {e}"))?;
            }
            let jobs = [1, 2, 4][number % 3];
            let checked = self.check(jobs);
            checked.map_err(|e| format!("step {number}, after {step:?}: {e}"))?;
        }
        self.leftovers()
    }

    /// Builds everything, twice.
    pub fn check(&mut self, jobs: usize) -> Outcome {
        let all = |_: usize| true;
        let jobs = format!("-j{jobs}");
        self.build(&["build", "-k", &jobs], Asked::default(), &all)?;
        let again = self.build(&["build", "-k"], Asked::default(), &all);
        again.map_err(|e| format!("second build: {e}"))
    }

    /// Nothing is left lying about in the tree.
    pub fn leftovers(&self) -> Outcome {
        let entries = walkdir::WalkDir::new(self.ground.space.path("")).into_iter();
        let paths = entries.flatten().map(|e| e.path().display().to_string());
        let found: Vec<String> = paths
            .filter(|p| p.contains("/.rel-restore-") && !p.contains("/backup/"))
            .collect();
        match found.is_empty() {
            true => Ok(()),
            false => Err(format!("left in the tree: {found:?}")),
        }
    }

    /// Runs one build of the targets that `is_root` takes in, and checks all it did.
    fn build(&mut self, args: &[&str], asked: Asked, is_root: &dyn Fn(usize) -> bool) -> Outcome {
        let expected = expect(&self.world);
        self.counts.builds += 1;
        self.counts.targets = self.counts.targets.max(expected.len());
        let wanted = self.closure(is_root);
        let expected: Vec<Expected> = expected
            .into_iter()
            .filter(|e| wanted.contains(&e.instance.target))
            .collect();
        let child = self.ground.start(&self.world, args);
        let code = self.ground.wait(child);
        let log = self.ground.take_log();
        self.counts.runs += log.values().sum::<usize>();
        let is_good = expected.iter().all(|e| e.fate.is_good());
        let context = |what: String| format!("{args:?}: {what}\nrel said:\n{}", self.ground.said());
        match code {
            Some(0) if is_good => {}
            Some(1 | 2) if !is_good => {}
            code => return Err(context(format!("exit code {code:?}, all good: {is_good}"))),
        }
        // Whatever became of the cache, it can be written to.
        let given_up = ["continuing without the cache", "no more results are cached"];
        if given_up
            .iter()
            .any(|text| self.ground.said().contains(text))
        {
            return Err(context(String::from("the cache was given up")));
        }
        self.runs(&expected, &log, asked).map_err(context)?;
        if !asked.stops_at_failure {
            self.results(&expected).map_err(context)?;
        }
        self.past.late.clear();
        self.learn(&expected, &log, asked);
        Ok(())
    }

    fn closure(&self, is_root: &dyn Fn(usize) -> bool) -> HashSet<usize> {
        let mut wanted = HashSet::new();
        // Needs have smaller numbers.
        for target in (0..self.world.tree.targets.len()).rev() {
            if is_root(target) || wanted.contains(&target) {
                wanted.insert(target);
                // One of an `each` without files needs nothing.
                if !self.world.tree.instances(target).is_empty() {
                    wanted.extend(self.world.tree.needs(target));
                }
            }
        }
        wanted
    }

    fn is_fresh(&self, e: &Expected) -> bool {
        let id = &e.instance.id;
        let has_outputs = matches!(&e.fate, Fate::Made(outputs) if !outputs.is_empty());
        let is_product = match &e.fate {
            Fate::Product(text) => self.past.products.get(id) == Some(text),
            _ => true,
        };
        self.past.recorded.get(&e.instance.name) == Some(&e.action)
            && (!has_outputs || self.past.standing.get(id) == Some(&e.action))
            && is_product
    }

    fn is_cached(&self, e: &Expected, asked: Asked) -> bool {
        let target = &self.world.tree.targets[e.instance.target];
        let is_product = match &e.fate {
            Fate::Product(text) => self.past.products.get(&e.instance.id) == Some(text),
            _ => true,
        };
        let is_used = target.is_cached && !asked.without_cache && !self.past.is_cache_lying;
        is_used && is_product && self.past.cached.contains(&e.action)
    }

    /// Checks what ran: all that had to, nothing that need not have.
    fn runs(&self, expected: &[Expected], log: &BTreeMap<String, usize>, asked: Asked) -> Outcome {
        let mut open: HashSet<&String> = log.keys().collect();
        for e in expected {
            let id = &e.instance.id;
            open.remove(id);
            let count = log.get(id).copied().unwrap_or(0);
            let target = &self.world.tree.targets[e.instance.target];
            let is_forced = asked.forced == Some(e.instance.target);
            let attempts = if target.is_flaky() { 3 } else { 1 };
            let late = usize::from(self.past.late.contains(id));
            let rotted = usize::from(self.past.rotted.contains(&e.instance.name));
            let (least, most) = match &e.fate {
                Fate::Group | Fate::Broken | Fate::Skipped => (0, 0),
                Fate::Fails => (1, attempts),
                _ if is_forced => (1, attempts),
                _ if self.is_fresh(e) || self.is_cached(e, asked) => (0, rotted * attempts),
                _ if self.past.is_unsure || self.past.ever.contains(&e.action) => (0, attempts),
                _ => (1, attempts),
            };
            let least = if asked.stops_at_failure { 0 } else { least };
            if count < least || count > most + late {
                return Err(format!(
                    "`{}` ran {count} times, expected {least} to {most}; fresh {}, cached {}",
                    e.instance.name,
                    self.is_fresh(e),
                    self.is_cached(e, asked)
                ));
            }
        }
        match open.iter().find(|id| !self.past.late.contains(**id)) {
            Some(id) => Err(format!("`{id}` was not wanted, but ran")),
            None => Ok(()),
        }
    }

    /// Checks what stands at the outputs of all that can be made.
    fn results(&self, expected: &[Expected]) -> Outcome {
        for e in expected {
            let out = self.world.tree.targets[e.instance.target].out;
            let path = self.world.tree.output(&e.instance.id, out);
            if let Fate::Made(outputs) = &e.fate {
                let found = self.ground.outputs(&path, out);
                if found != *outputs {
                    let what = format!("expected {outputs:?}\n  found    {found:?}");
                    let what = what.replace(&".".repeat(1000), "");
                    return Err(format!("`{}` has wrong outputs\n  {what}", e.instance.name));
                }
            }
            if let Fate::Product(text) = &e.fate {
                let path = format!("outside/engine{}", e.instance.id);
                let found = fs::read_to_string(self.ground.space.base().join(path));
                if found.as_ref().ok() != Some(text) {
                    return Err(format!(
                        "`{}` has the wrong product\n  expected {text:?}\n  found    {found:?}",
                        e.instance.name
                    ));
                }
            }
        }
        Ok(())
    }

    fn learn(&mut self, expected: &[Expected], log: &BTreeMap<String, usize>, asked: Asked) {
        for e in expected {
            let id = e.instance.id.clone();
            let has_run = log.contains_key(&id);
            let target = &self.world.tree.targets[e.instance.target];
            if e.fate == Fate::Fails {
                self.past.recorded.remove(&e.instance.name);
                self.past.standing.remove(&id);
            }
            if asked.stops_at_failure && !self.is_fresh(e) {
                self.past.forget(e);
                continue;
            }
            if !e.fate.is_good() || e.fate == Fate::Group {
                continue;
            }
            // A first run beside directories of a dropped target is not shared.
            let is_first = !self.past.recorded.contains_key(&e.instance.name);
            let has_strays = is_first && self.world.tree.targets.iter().any(|t| t.is_dropped);
            if has_run && target.is_cached && !asked.without_cache && !has_strays {
                self.past.cached.insert(e.action.clone());
            }
            self.past.ever.insert(e.action.clone());
            let name = e.instance.name.clone();
            if has_run {
                self.past.rotted.remove(&name);
            }
            self.past.recorded.insert(name, e.action.clone());
            if let Fate::Product(text) = &e.fate {
                self.past.products.insert(id.clone(), text.clone());
            }
            self.past.standing.insert(id, e.action.clone());
        }
    }

    /// Lets a run of everything be disturbed, and forgets what cannot be known after that.
    pub fn disturbed(&mut self, before: &[Expected]) {
        let after = expect(&self.world);
        for e in before.iter().chain(&after) {
            if !self.is_fresh(e) {
                self.past.forget(e);
            }
        }
        self.ground.take_log();
    }

    pub fn op(&mut self, op: Op) -> Outcome {
        use Kind::*;
        match op.kind {
            Edit | Sneak | Touch | TouchOld | TouchFuture | Delete | Rename | ToDir | Chmod
            | Replace | Relink => self.change_source(op),
            Command | Var | Env | Tool | Probe | NoProbe | NameTarget | DropTarget => {
                self.change_declared(op);
            }
            Save | Switch | SwitchKeepingTimes | SwitchRewritingAll => self.change_branch(op),
            DeleteOutput | EditOutput | TouchOutput | ChmodOutput | LinkOutput | DirOutput
            | ExtraOutput | DeleteAllOutputs | ChangeProduct => self.change_output(op),
            FlipBlobs | CutBlobs | DeleteBlobs | DeleteResults | CutResults | DeleteCache => {
                self.harm_cache(op);
            }
            DeleteState | DeleteStateFile | CutStateFile | FlipStateFile | KeepState
            | RestoreState | RestoreStateFile => self.harm_state(op),
            Part | PartTwice | Force | NoCache | StopAtFailure | Kill | EditMeanwhile | Ask => {
                return self.other_run(op);
            }
            Elsewhere | Move => return self.change_checkout(op),
            Settle => {
                settle();
                return self.check(2);
            }
        }
        Ok(())
    }

    fn other_run(&mut self, op: Op) -> Outcome {
        let tree = &self.world.tree;
        let names: Vec<usize> = (0..tree.targets.len())
            .filter(|t| !tree.instances(*t).is_empty())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let one = names[op.a % names.len()];
        let jobs = format!("-j{}", 1 + op.b % 4);
        match op.kind {
            Kind::Part => {
                let two = names[op.b % names.len()];
                let (a, b) = (tree.name(one), tree.name(two));
                let is_root = |t| t == one || t == two;
                self.build(&["build", "-k", &jobs, &a, &b], Asked::default(), &is_root)
            }
            Kind::PartTwice => {
                let args = ["build", "-k", &jobs, &tree.name(one)].map(str::to_owned);
                let build = |walk: &mut Self| {
                    settle();
                    walk.build(
                        &args.each_ref().map(|a| a.as_str()),
                        Asked::default(),
                        &|t| t == one,
                    )
                };
                settle();
                self.check(2)?;
                self.change_source(Op {
                    kind: Kind::Edit,
                    ..op
                });
                build(self)?;
                build(self)
            }
            Kind::Force => {
                let asked = Asked {
                    forced: Some(one),
                    ..Asked::default()
                };
                let name = tree.name(one);
                self.build(&["build", "-k", "--force", &name], asked, &|t| t == one)
            }
            Kind::NoCache => {
                let asked = Asked {
                    without_cache: true,
                    ..Asked::default()
                };
                self.build(&["build", "-k", "--no-cache", &jobs], asked, &|_| true)
            }
            Kind::StopAtFailure => {
                let asked = Asked {
                    stops_at_failure: true,
                    ..Asked::default()
                };
                self.build(&["build", &jobs], asked, &|_| true)
            }
            Kind::Kill => self.kill(Duration::from_micros(op.b as u64 % 25_000)),
            Kind::EditMeanwhile => self.edit_meanwhile(op),
            _ => self.ask(op.a),
        }
    }

    /// Kills a run of everything after some time.
    pub fn kill(&mut self, after: Duration) -> Outcome {
        let expected = expect(&self.world);
        let mut child = self.ground.start(&self.world, &["build", "-k", "-j3"]);
        std::thread::sleep(after);
        child.kill().expect("kills");
        child.wait().expect("ends");
        self.counts.kills += 1;
        for e in &expected {
            self.past.ever.insert(e.action.clone());
            if !self.is_fresh(e) {
                self.past.late.insert(e.instance.id.clone());
            }
        }
        self.disturbed(&expected);
        Ok(())
    }

    fn edit_meanwhile(&mut self, op: Op) -> Outcome {
        let expected = expect(&self.world);
        let child = self.ground.start(&self.world, &["build", "-k", "-j2"]);
        std::thread::sleep(Duration::from_micros(op.a as u64 % 20_000));
        self.change_source(Op {
            kind: [Kind::Edit, Kind::Sneak, Kind::Delete, Kind::Replace][op.b % 4],
            ..op
        });
        let code = self.ground.wait(child);
        self.past.is_unsure = true;
        self.disturbed(&expected);
        match code {
            Some(0..=2) => Ok(()),
            code => Err(format!("exit code {code:?}\n{}", self.ground.said())),
        }
    }

    /// Questions are answered and change nothing.
    fn ask(&mut self, n: usize) -> Outcome {
        let read = |ground: &Ground| -> Vec<Vec<u8>> {
            let files = ground.state_files();
            files.iter().map(|f| fs::read(f).expect("reads")).collect()
        };
        let before = read(&self.ground);
        let question = [
            ["status"].as_slice(),
            &["why"],
            &["list"],
            &["build", "-n"],
            &["hash"],
        ];
        let child = self.ground.start(&self.world, question[n % 5]);
        let code = self.ground.wait(child);
        let is_same = before == read(&self.ground);
        let log = self.ground.take_log();
        match code {
            Some(0..=2) if is_same && log.keys().all(|id| self.past.late.contains(id)) => Ok(()),
            code => Err(format!(
                "{:?}: exit code {code:?}, state same {is_same}, ran {log:?}\n{}",
                question[n % 5],
                self.ground.said()
            )),
        }
    }
}

/// Lets files grow older than a clock tick.
pub fn settle() {
    std::thread::sleep(Duration::from_millis(45));
}

impl Past {
    /// Changes what is known of a checkout, but not what is known of all.
    pub fn swap(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.recorded, &mut other.recorded);
        std::mem::swap(&mut self.standing, &mut other.standing);
        std::mem::swap(&mut self.rotted, &mut other.rotted);
        std::mem::swap(&mut self.dirs, &mut other.dirs);
    }

    /// Forgets what is known of an instance, after a run that nobody saw the end of.
    fn forget(&mut self, e: &Expected) {
        self.recorded.remove(&e.instance.name);
        self.standing.remove(&e.instance.id);
        self.products.remove(&e.instance.id);
        self.ever.insert(e.action.clone());
    }
}
