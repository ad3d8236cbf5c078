//! Walks a history: does each operation, builds, and holds what `rel` did against the oracle.
//!
//! Three things are checked after every step: what stands at the outputs, that a second build
//! runs nothing, and that no command ran whose action had been done already. What is known of
//! past runs is kept in [`Past`]; where a run was killed it only knows less, never something wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use super::ground::{Ground, Writing, copy_dir, overwrite, set_executable};
use super::history::{History, Kind, Op, file_paths, other_text};
use super::oracle::{Expected, Fate, Thing, expect};
use super::world::{FILES, LINK_TEXTS, LINKS, Node, Out, Tree, World};

/// What was done in a walk; added up and told at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub operations: usize,
    pub builds: usize,
    pub kills: usize,
    pub targets: usize,
    pub runs: usize,
}

/// What `rel` is known to know.
#[derive(Clone, Default)]
pub struct Past {
    /// By name: the action of the last recorded success.
    recorded: HashMap<String, String>,
    /// By id: the action whose outputs stand untouched in the tree.
    standing: HashMap<String, String>,
    /// By id: what stands outside of the tree.
    products: BTreeMap<String, String>,
    /// Actions that are in the cache for certain.
    cached: HashSet<String>,
    /// Actions that may ever have been done.
    ever: HashSet<String>,
    /// Nobody knows what a build saw that files changed under.
    pub is_unsure: bool,
    /// Blobs were changed without a change of size.
    is_cache_lying: bool,
    /// Instances that an orphan of a killed run may still log.
    pub late: HashSet<String>,
}

pub struct Walk {
    pub ground: Ground,
    pub world: World,
    pub past: Past,
    branches: [Option<(Tree, BTreeMap<String, SystemTime>)>; 2],
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
    (walk.counts, outcome)
}

impl Walk {
    pub fn new(world: &World, is_on_disk: bool) -> Self {
        Self {
            ground: Ground::new(world, is_on_disk),
            world: world.clone(),
            past: Past::default(),
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
            .filter(|p| p.contains("/.rel-restore-") && !p.contains("/aside/"))
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
                wanted.extend(self.world.tree.needs(target));
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
            let (least, most) = match &e.fate {
                Fate::Group | Fate::Broken | Fate::Skipped => (0, 0),
                Fate::Fails => (1, attempts),
                _ if is_forced => (1, attempts),
                _ if self.is_fresh(e) || self.is_cached(e, asked) => (0, 0),
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
                    return Err(format!(
                        "`{}` has wrong outputs\n  expected {outputs:?}\n  found    {found:?}",
                        e.instance.name
                    ));
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
            if has_run && target.is_cached && !asked.without_cache {
                self.past.cached.insert(e.action.clone());
            }
            self.past.ever.insert(e.action.clone());
            let name = e.instance.name.clone();
            self.past.recorded.insert(name, e.action.clone());
            if let Fate::Product(text) = &e.fate {
                self.past.products.insert(id.clone(), text.clone());
            }
            self.past.standing.insert(id, e.action.clone());
        }
    }

    /// Lets a run of everything be disturbed, and forgets what can not be known after that.
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
            | RestoreState => self.harm_state(op),
            Part | Force | NoCache | StopAtFailure | Kill | EditMeanwhile | Ask => {
                return self.other_run(op);
            }
            Settle => {
                std::thread::sleep(Duration::from_millis(45));
                return self.check(2);
            }
        }
        Ok(())
    }

    /// Returns one of the files that are there.
    fn a_file(&self, n: usize) -> Option<String> {
        let is_file = |node: &Node| matches!(node, Node::File { .. });
        let files = self.world.tree.sources.iter().filter(|(_, n)| is_file(n));
        let files: Vec<&String> = files.map(|(path, _)| path).collect();
        (!files.is_empty()).then(|| files[n % files.len()].clone())
    }

    fn change_source(&mut self, op: Op) {
        let places = file_paths();
        let place = places[op.b % places.len()];
        let present = self.a_file(op.a);
        let path = present.clone().unwrap_or_else(|| place.to_owned());
        let now = self.world.tree.sources.get(&path).cloned();
        let Some(Node::File {
            text,
            is_executable,
        }) = now
        else {
            let node = Node::File {
                text: 0,
                is_executable: false,
            };
            return self.put(&path, node);
        };
        let file = |text, is_executable| Node::File {
            text,
            is_executable,
        };
        let hour = Duration::from_secs(3600);
        match op.kind {
            Kind::Edit if op.b % 3 == 0 => {
                let text = other_text(0, op.a, false);
                self.put(place, file(text, op.a % 7 == 0));
            }
            Kind::Edit => self.put(&path, file(other_text(text, op.b, false), is_executable)),
            Kind::Sneak => {
                let time = self.ground.time_of(&path);
                self.put(&path, file(other_text(text, op.b, true), is_executable));
                time.into_iter()
                    .for_each(|t| self.ground.set_time(&path, t));
            }
            Kind::Touch => self.ground.set_time(&path, SystemTime::now()),
            Kind::TouchOld => self.ground.set_time(&path, SystemTime::now() - hour),
            Kind::TouchFuture => self.ground.set_time(&path, SystemTime::now() + hour),
            Kind::Delete => {
                self.world.tree.sources.remove(&path);
                self.ground.delete(&path);
            }
            Kind::Rename if place != path => {
                self.world.tree.sources.remove(&path);
                self.world.tree.put(place, file(text, is_executable));
                let aside = self.ground.space.base().join("renamed");
                fs::rename(self.ground.space.path(&path), &aside).expect("renames");
                self.ground.prune_above(&path);
                self.ground.make_way(place);
                fs::rename(aside, self.ground.space.path(place)).expect("renames");
            }
            Kind::ToDir => {
                let path = FILES[op.b % FILES.len()];
                let inner = format!("{path}/a.txt");
                match self.world.tree.sources.contains_key(path) {
                    true => self.put(&inner, file(text, false)),
                    false => self.put(path, file(text, false)),
                }
            }
            Kind::Chmod => self.put(&path, file(text, !is_executable)),
            Kind::Replace => {
                self.replace(&path, other_text(text, op.b, op.a % 2 == 0), is_executable)
            }
            Kind::Relink => {
                let link = LINKS[op.a % LINKS.len()];
                let text = LINK_TEXTS[op.b % LINK_TEXTS.len()];
                self.put(link, Node::Link(text));
            }
            _ => {}
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        self.ground.put(path, &node);
        self.world.tree.put(path, node);
    }

    /// Renames another file with an older time over a path.
    fn replace(&mut self, path: &str, text: usize, is_executable: bool) {
        let node = Node::File {
            text,
            is_executable,
        };
        let aside = self.ground.space.base().join("renamed");
        fs::write(&aside, super::world::TEXTS[text]).expect("writes");
        set_executable(&aside, is_executable);
        let time = self.ground.time_of(path).unwrap_or(SystemTime::UNIX_EPOCH);
        let file = fs::File::options().write(true).open(&aside);
        let older = time - Duration::from_secs(100);
        file.expect("opens").set_modified(older).expect("sets");
        fs::rename(aside, self.ground.space.path(path)).expect("renames");
        self.world.tree.put(path, node);
    }

    fn change_declared(&mut self, op: Op) {
        let count = self.world.tree.targets.len();
        let target = &mut self.world.tree.targets[op.a % count];
        match op.kind {
            Kind::Command => target.salt = (target.salt + 1) % 3,
            Kind::NameTarget => target.renamed = (target.renamed + 1) % 3,
            Kind::DropTarget => target.is_dropped = !target.is_dropped,
            Kind::Var => self.world.tree.vars[op.a % 2] = op.b % 3,
            Kind::Env => {
                let value = op.b % 4;
                self.world.env[op.a % 2] = (value > 0).then_some(value);
            }
            Kind::Tool => self.world.tools[op.a % 2] = op.b % 3,
            Kind::Probe => self.world.probes[op.a % 2] = Some(op.b % 3),
            Kind::NoProbe => self.world.probes[op.a % 2] = None,
            _ => {}
        }
        self.ground.write_outside(&self.world);
        self.ground
            .write_releasefiles(&self.world.tree, Writing::Different);
    }

    fn change_branch(&mut self, op: Op) {
        let slot = op.a % 2;
        let paths = self.world.tree.sources.keys();
        let times = paths.filter_map(|p| Some((p.clone(), self.ground.time_of(p)?)));
        let now = Some((self.world.tree.clone(), times.collect()));
        let former = std::mem::replace(&mut self.branches[slot], now);
        if let Some((tree, times)) = former.filter(|_| op.kind != Kind::Save) {
            let how = match op.kind {
                Kind::Switch => Writing::Different,
                Kind::SwitchRewritingAll => Writing::All,
                _ => Writing::KeepingTimes,
            };
            self.ground.switch(&self.world.tree, &tree, how, &times);
            self.world.tree = tree;
        }
    }

    fn change_output(&mut self, op: Op) {
        if op.kind == Kind::DeleteAllOutputs {
            self.past.standing.clear();
            let _ = fs::remove_dir_all(self.ground.space.path("out"));
            return;
        }
        let expected = expect(&self.world);
        let chosen: Vec<&Expected> = match op.kind {
            Kind::ChangeProduct => {
                let is_product = |e: &&Expected| matches!(e.fate, Fate::Product(_));
                expected.iter().filter(is_product).collect()
            }
            _ => {
                let has = |e: &&Expected| matches!(&e.fate, Fate::Made(o) if !o.is_empty());
                expected.iter().filter(has).collect()
            }
        };
        let Some(e) = chosen.get(op.a % chosen.len().max(1)) else {
            return;
        };
        let id = &e.instance.id;
        if let Fate::Product(_) = e.fate {
            let path = self.ground.space.base().join(format!("outside/engine{id}"));
            let _ = match op.b % 2 {
                0 => fs::write(path, "somebody's\n"),
                _ => fs::remove_file(path),
            };
            self.past.products.remove(id);
            return;
        }
        let Fate::Made(outputs) = &e.fate else { return };
        let out = self.world.tree.targets[e.instance.target].out;
        let path = outputs.keys().nth(op.b % outputs.len()).cloned();
        let path = path.unwrap_or_default();
        let absolute = self.ground.space.path(&path);
        let Ok(meta) = fs::symlink_metadata(&absolute) else {
            return;
        };
        match op.kind {
            Kind::TouchOutput => return self.ground.set_time(&path, SystemTime::now()),
            Kind::ChmodOutput if meta.is_file() => {
                set_executable(&absolute, !matches!(outputs[&path], Thing::Executable(_)));
            }
            Kind::ExtraOutput => {
                let dir = self.world.tree.output(id, out);
                match out {
                    Out::Dir | Out::Glob => {
                        let _ = fs::write(self.ground.space.path(dir).join("extra.o"), "more\n");
                    }
                    _ => return,
                }
            }
            Kind::ChmodOutput => return,
            kind => {
                match meta.is_dir() {
                    true => fs::remove_dir_all(&absolute).expect("removes"),
                    false => fs::remove_file(&absolute).expect("removes"),
                }
                match kind {
                    Kind::EditOutput => fs::write(&absolute, "edited\n").expect("writes"),
                    Kind::LinkOutput => {
                        std::os::unix::fs::symlink("../src/0", &absolute).expect("links");
                    }
                    Kind::DirOutput => {
                        fs::create_dir(&absolute).expect("creates");
                        fs::write(absolute.join("mine"), "mine\n").expect("writes");
                    }
                    _ => {}
                }
            }
        }
        self.past.standing.remove(id);
    }

    fn harm_cache(&mut self, op: Op) {
        let part = match op.kind {
            Kind::DeleteResults | Kind::CutResults => "ac",
            _ => "cas",
        };
        let mut files = self.ground.cache_files(part);
        if op.kind == Kind::FlipBlobs {
            // Small ones are inside of results.
            files.extend(self.ground.cache_files("ac"));
        }
        let chosen = files.iter().skip(op.a % 3).step_by(1 + op.b % 4);
        self.past.cached.clear();
        match op.kind {
            Kind::FlipBlobs => {
                self.past.is_cache_lying = true;
                chosen.for_each(|file| {
                    overwrite(file, |bytes| bytes.iter_mut().for_each(|b| *b ^= 1));
                });
            }
            Kind::CutBlobs | Kind::CutResults => chosen.for_each(|file| {
                overwrite(file, |bytes| bytes.truncate(bytes.len() / 2));
            }),
            Kind::DeleteCache => drop(fs::remove_dir_all(self.ground.space.cache())),
            _ => chosen.for_each(|file| fs::remove_file(file).expect("removes")),
        }
    }

    fn harm_state(&mut self, op: Op) {
        let state = self.ground.space.path(".rel");
        let kept = self.ground.space.base().join("kept");
        match op.kind {
            Kind::DeleteState => {
                self.past.recorded.clear();
                let _ = fs::remove_dir_all(state);
                return;
            }
            Kind::KeepState => return copy_dir(&state, &kept),
            Kind::RestoreState if kept.exists() => {
                self.past.recorded.clear();
                return copy_dir(&kept, &state);
            }
            Kind::RestoreState => return,
            _ => {}
        }
        let files = self.ground.state_files();
        let Some(file) = files.get(op.a % files.len().max(1)) else {
            return;
        };
        if file.ends_with("records.v1") {
            self.past.recorded.clear();
        }
        let at = op.b;
        match op.kind {
            Kind::DeleteStateFile => fs::remove_file(file).expect("removes"),
            Kind::CutStateFile => overwrite(file, |bytes| bytes.truncate(at % (bytes.len() + 1))),
            _ => overwrite(file, |bytes| {
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] ^= 0x20;
                }
            }),
        }
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

impl Past {
    /// Forgets what is known of an instance, after a run that nobody saw the end of.
    fn forget(&mut self, e: &Expected) {
        self.recorded.remove(&e.instance.name);
        self.standing.remove(&e.instance.id);
        self.products.remove(&e.instance.id);
        self.ever.insert(e.action.clone());
    }
}
