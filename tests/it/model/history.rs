//! Histories: a world to begin with and what happens to it, as plain values.
//!
//! An operation holds bare numbers, taken modulo what there is when its turn comes: a history
//! stays meaningful when operations and targets are left out, which is how it is shrunk.

use std::collections::BTreeMap;

use super::world::{
    EXCLUSIONS, Each, FILES, GLOBS, Header, In, LINK_TEXTS, LINKS, Node, OTHERS, Out, TEXTS,
    Target, Tree, World,
};

/// A small generator with a seed, so that a failure can be had again.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring numbers.
        Self((seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        // xorshift64*, by Vigna.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What happens. `Kind` says what, the numbers to which and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    pub kind: Kind,
    pub a: usize,
    pub b: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    // Sources.
    Edit,
    /// Same size, modification time set back.
    Sneak,
    Touch,
    TouchOld,
    TouchFuture,
    Delete,
    Rename,
    ToDir,
    Chmod,
    /// Another file, with an older time, renamed over.
    Replace,
    Relink,
    // The Releasefile and what lies outside.
    Command,
    Var,
    Env,
    Tool,
    Probe,
    NoProbe,
    NameTarget,
    DropTarget,
    // Branches.
    Save,
    Switch,
    SwitchKeepingTimes,
    SwitchRewritingAll,
    // Outputs.
    DeleteOutput,
    EditOutput,
    TouchOutput,
    ChmodOutput,
    LinkOutput,
    DirOutput,
    ExtraOutput,
    DeleteAllOutputs,
    ChangeProduct,
    // The cache and the state.
    FlipBlobs,
    CutBlobs,
    DeleteBlobs,
    DeleteResults,
    CutResults,
    DeleteCache,
    DeleteState,
    DeleteStateFile,
    CutStateFile,
    FlipStateFile,
    KeepState,
    RestoreState,
    RestoreStateFile,
    // Other runs of `rel`.
    Part,
    /// An edit, and one part built twice, with time to look at all else in between.
    PartTwice,
    Force,
    NoCache,
    StopAtFailure,
    Kill,
    EditMeanwhile,
    Ask,
    // The checkout.
    /// Work goes on in the other of two that share the cache, with the same sources.
    Elsewhere,
    /// It is moved.
    Move,
    /// Lets files grow older than a clock tick, and builds: what is then looked at is trusted.
    Settle,
}

/// Kinds with how often they come.
const KINDS: [(Kind, usize); 56] = {
    use Kind::*;
    [
        (Edit, 14),
        (Sneak, 8),
        (Touch, 3),
        (TouchOld, 2),
        (TouchFuture, 1),
        (Delete, 4),
        (Rename, 4),
        (ToDir, 3),
        (Chmod, 3),
        (Replace, 4),
        (Relink, 4),
        (Command, 3),
        (Var, 2),
        (Env, 3),
        (Tool, 3),
        (Probe, 3),
        (NoProbe, 1),
        (NameTarget, 1),
        (DropTarget, 2),
        (Save, 3),
        (Switch, 3),
        (SwitchKeepingTimes, 3),
        (SwitchRewritingAll, 2),
        (DeleteOutput, 4),
        (EditOutput, 3),
        (TouchOutput, 1),
        (ChmodOutput, 2),
        (LinkOutput, 2),
        (DirOutput, 2),
        (ExtraOutput, 2),
        (DeleteAllOutputs, 3),
        (ChangeProduct, 2),
        (FlipBlobs, 2),
        (CutBlobs, 2),
        (DeleteBlobs, 2),
        (DeleteResults, 2),
        (CutResults, 1),
        (DeleteCache, 1),
        (DeleteState, 2),
        (DeleteStateFile, 2),
        (CutStateFile, 2),
        (FlipStateFile, 2),
        (KeepState, 2),
        (RestoreState, 1),
        (RestoreStateFile, 3),
        (Part, 6),
        (PartTwice, 6),
        (Force, 2),
        (NoCache, 2),
        (StopAtFailure, 2),
        (Kill, 8),
        (EditMeanwhile, 3),
        (Ask, 2),
        (Elsewhere, 5),
        (Move, 4),
        (Settle, 10),
    ]
};

/// One failure's whole story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub world: World,
    /// After each step the tree is built and checked.
    pub steps: Vec<Vec<Op>>,
}

/// Returns the history of a seed.
pub fn of_seed(seed: u64) -> History {
    let random = &mut Random::new(seed);
    // Most graphs are small: what goes wrong mostly does so between a few targets.
    let (targets, steps) = match random.below(200) {
        0 => (300, 3),
        1..=4 => (60 + random.below(60), 4),
        5..=20 => (10 + random.below(30), 5),
        _ => (1 + random.below(8), 4 + random.below(5)),
    };
    let world = world(random, targets);
    let steps = (0..steps).map(|_| step(random)).collect();
    History { world, steps }
}

fn step(random: &mut Random) -> Vec<Op> {
    let count = [1, 1, 1, 2, 2, 3][random.below(6)];
    (0..count).map(|_| op(random)).collect()
}

fn op(random: &mut Random) -> Op {
    let all: usize = KINDS.iter().map(|(_, weight)| weight).sum();
    let mut at = random.below(all);
    let mut kind = Kind::Edit;
    for (found, weight) in KINDS {
        if at < weight {
            kind = found;
            break;
        }
        at -= weight;
    }
    Op {
        kind,
        a: random.below(1 << 20),
        b: random.below(1 << 20),
    }
}

fn world(random: &mut Random, count: usize) -> World {
    let mut tree = Tree {
        targets: Vec::new(),
        sources: BTreeMap::new(),
        vars: [0, 0],
    };
    for path in FILES.iter().chain(&OTHERS) {
        // What is named one by one is mostly there.
        let is_there = match FILES.contains(path) {
            true => !random.one_in(12),
            false => !random.one_in(3),
        };
        if is_there {
            tree.put(path, file(random));
        }
    }
    for link in LINKS {
        if !random.one_in(3) {
            let text = LINK_TEXTS[random.below(LINK_TEXTS.len())];
            tree.put(link, Node::Link(text));
        }
    }
    for number in 0..count {
        let target = target(random, &tree, number);
        tree.targets.push(target);
    }
    World {
        tree,
        tools: [0, 0],
        probes: [Some(0), Some(0)],
        env: [None, Some(0)],
        root: String::new(),
    }
}

fn file(random: &mut Random) -> Node {
    // The bad text is rare, so that most targets can be made.
    let text = match random.below(40) {
        0 => 5,
        _ => [0, 1, 2, 3, 4, 6, 7][random.below(7)],
    };
    Node::File {
        text,
        is_executable: random.one_in(8),
    }
}

fn target(random: &mut Random, tree: &Tree, number: usize) -> Target {
    let out = match random.below(20) {
        0..=9 => Out::File,
        10..=12 => Out::Dir,
        13..=14 => Out::Glob,
        15..=16 => Out::Product,
        17..=18 => Out::Nothing,
        _ if number > 0 => Out::Group,
        _ => Out::File,
    };
    let each = match random.below(8) {
        0 if out != Out::Group => Each::Values,
        1 if out != Out::Group => Each::Files,
        _ => Each::One,
    };
    let mut flags = String::new();
    let all = [
        ('s', 2),
        ('b', 4),
        ('f', 10),
        ('m', 2),
        ('x', 3),
        ('L', 4),
        ('P', 4),
        ('H', 16),
    ];
    // A large output takes the oracle long.
    for (flag, n) in all.into_iter().chain([('Q', 300)]) {
        if random.one_in(n) {
            flags.push(flag);
        }
    }
    let inputs = match out {
        Out::Group => Vec::new(),
        _ => inputs(random, tree, number),
    };
    // Needs are mostly near: a graph of many levels.
    let mut needs = Vec::new();
    for _ in 0..random.below(4).min(number) + usize::from(out == Out::Group) {
        let near = number - 1 - random.below(number.min(6));
        if !needs.contains(&near) {
            needs.push(near);
        }
    }
    let maybe = |random: &mut Random, n| random.one_in(n).then(|| random.below(2));
    let header = match random.below(6) {
        0 if out != Out::Group => Some(Header::Source(random.below(10), random.below(10))),
        1 if out != Out::Group && number > 0 => {
            let maker = number - 1 - random.below(number.min(6));
            let target = &tree.targets[maker];
            let is_file = (target.each, target.out) == (Each::One, Out::File);
            is_file.then_some(Header::Made(maker))
        }
        _ => None,
    };
    Target {
        inputs,
        header,
        needs,
        each,
        out,
        tool: maybe(random, 8),
        probe: maybe(random, 8),
        var: maybe(random, 5),
        env: maybe(random, 6),
        salt: 0,
        renamed: 0,
        flags,
        is_cached: !random.one_in(10),
        is_pooled: random.one_in(6),
        is_dropped: false,
    }
}

fn inputs(random: &mut Random, tree: &Tree, number: usize) -> Vec<In> {
    let count = random.below(4);
    let mut inputs: Vec<In> = Vec::new();
    for _ in 0..count {
        let input = match random.below(10) {
            0..=3 => In::File(random.below(FILES.len())),
            4 => In::Optional(random.below(FILES.len())),
            5 => In::Link(random.below(LINKS.len())),
            6..=7 => {
                let exclusion = random.below(EXCLUSIONS.len() + 3);
                let exclusion = Some(exclusion).filter(|x| *x < EXCLUSIONS.len());
                In::Glob(random.below(GLOBS.len()), exclusion)
            }
            _ if number > 0 => {
                let maker = number - 1 - random.below(number.min(6));
                let target = &tree.targets[maker];
                match (target.each, target.out) {
                    (Each::One, Out::File | Out::Dir) => In::Made(maker),
                    _ => continue,
                }
            }
            _ => continue,
        };
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

/// Returns the paths that an operation may put a file at.
pub fn file_paths() -> Vec<&'static str> {
    FILES.iter().chain(&OTHERS).copied().collect()
}

/// Returns histories that are a little simpler, the simplest first.
pub fn simpler(history: &History) -> Vec<History> {
    let mut found = Vec::new();
    let mut keep = |steps: Vec<Vec<Op>>| {
        found.push(History {
            steps,
            ..history.clone()
        });
    };
    for at in 0..history.steps.len() {
        let mut steps = history.steps.clone();
        steps.remove(at);
        keep(steps);
    }
    for (at, step) in history.steps.iter().enumerate() {
        for op in 0..step.len() {
            let mut steps = history.steps.clone();
            steps[at].remove(op);
            keep(steps);
        }
    }
    let targets = &history.world.tree.targets;
    // From the last on, and first many at once.
    let mut size = targets.len();
    while size > 0 {
        for start in (0..targets.len()).step_by(size) {
            let mut simple = history.clone();
            let part = simple.world.tree.targets.iter_mut();
            part.skip(start)
                .take(size)
                .for_each(|t| t.is_dropped = true);
            found.push(simple);
        }
        size /= 2;
    }
    for at in 0..targets.len() {
        for simplify in SIMPLIFY {
            let mut simple = history.clone();
            simplify(&mut simple.world.tree.targets[at]);
            found.push(simple);
        }
    }
    for path in history.world.tree.sources.keys() {
        let mut simple = history.clone();
        simple.world.tree.sources.remove(path);
        found.push(simple);
    }
    found.retain(|simple| simple != history);
    found
}

/// What a target may do without.
const SIMPLIFY: [fn(&mut Target); 12] = [
    |t| t.header = None,
    |t| t.inputs.clear(),
    |t| t.needs.clear(),
    |t| t.inputs.truncate(t.inputs.len().saturating_sub(1)),
    |t| t.needs.truncate(t.needs.len().saturating_sub(1)),
    |t| t.flags.clear(),
    |t| t.flags.retain(|flag| flag == 'P'),
    |t| (t.tool, t.probe, t.var, t.env) = (None, None, None, None),
    |t| t.each = Each::One,
    |t| t.is_pooled = false,
    |t| t.is_cached = true,
    |t| t.out = Out::File,
];

/// Returns another of [`TEXTS`], of equal length where `is_same_size`.
pub fn other_text(now: usize, n: usize, is_same_size: bool) -> usize {
    let fits = |text: &usize| {
        let is_size = !is_same_size || TEXTS[*text].len() == TEXTS[now].len();
        *text != now && is_size
    };
    let all: Vec<usize> = (0..TEXTS.len()).filter(fits).collect();
    match all.is_empty() {
        true => now,
        false => all[n % all.len()],
    }
}
