//! The oracle: what a clean build of a world makes, worked out without `rel` and without a disk.
//!
//! It does what `act.c` does, and says for each instance of a target the whole of what its
//! result may depend on: its *action*. Two actions that are equal must have equal results,
//! which is why one of them need not run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::world::{
    EXCLUSIONS, Each, FILES, GLOBS, In, Instance, LINKS, Node, Out, TEXTS, Tree, World,
};

/// What stands at a path that a command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    File(String),
    Executable(String),
    Link(String),
    EmptyDir,
}

/// What becomes of an instance in a clean build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has no commands.
    Group,
    /// Its commands make this.
    Made(BTreeMap<String, Thing>),
    /// Its commands make this outside of the tree.
    Product(String),
    /// Its commands fail.
    Fails,
    /// It is a mistake to run it: an input or an answer is missing.
    Broken,
    /// Something it needs is not there.
    Skipped,
}

impl Fate {
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Group | Self::Made(_) | Self::Product(_))
    }
}

/// An instance with what becomes of it.
#[derive(Clone, Debug)]
pub struct Expected {
    pub instance: Instance,
    pub fate: Fate,
    /// All that the result may depend on, of a group what it hands on; else empty where nothing is
    /// run.
    pub action: String,
}

/// What `L` and `M` add to outputs: more than goes into a cached result, and a lot.
const LARGE: usize = 6000;
const HUGE: usize = 1 << 19;
/// Where `Q` lets the path of the checkout stand: at the end of a part that is read at once.
const PART: usize = 1 << 18;

const START: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Returns the hash of a text without the path of the checkout.
fn hash_cut(start: u64, text: &str, root: &str) -> u64 {
    let parts = text.split(root);
    parts.fold(start, |h, part| hash(h, part.as_bytes()))
}

/// Returns what becomes of every instance, needs before their dependents.
pub fn expect(world: &World) -> Vec<Expected> {
    let mut all: Vec<Expected> = Vec::new();
    for target in 0..world.tree.targets.len() {
        for instance in world.tree.instances(target) {
            let (fate, action) = one(world, &instance, &all);
            all.push(Expected {
                instance,
                fate,
                action,
            });
        }
    }
    all
}

fn one(world: &World, instance: &Instance, done: &[Expected]) -> (Fate, String) {
    let tree = &world.tree;
    let target = &tree.targets[instance.target];
    let needs = tree.needs(instance.target);
    let needed = || done.iter().filter(|e| needs.contains(&e.instance.target));
    if needed().any(|e| !e.fate.is_good()) {
        return (Fate::Skipped, String::new());
    }
    if target.out == Out::Group {
        // What its members hand on, each once, through whichever groups.
        let lines: BTreeSet<String> = needed()
            .flat_map(|need| match need.fate {
                Fate::Group => need.action.lines().map(str::to_owned).collect(),
                _ => Vec::from_iter(handed_on(need)),
            })
            .collect();
        let action = lines.iter().map(|line| format!("{line}\n")).collect();
        return (Fate::Group, action);
    }
    let Some(inputs) = inputs(tree, instance, done) else {
        return (Fate::Broken, String::new());
    };
    let answer = target.probe.map(|p| world.probes[p]);
    if answer == Some(None) {
        return (Fate::Broken, String::new());
    }
    let variable = target.env.map(|e| world.env[e]);
    let mut action = format!(
        "{} {} {} {:?}\ntool {:?} probe {answer:?} env {variable:?}\n",
        instance.id,
        target.flags,
        tree.salt_value(instance.target),
        target.out,
        target.tool.map(|t| (t, world.tools[t])),
    );
    if target.is_bound() {
        action += &format!("in {}\n", world.root);
    }
    let mut files = Vec::new();
    for path in &inputs {
        let read = resolve(world, done, path, 0);
        action += &format!("{path} {:?} {read:?}\n", tree.sources.get(path));
        files.push((path.clone(), read));
    }
    for need in needed() {
        action.extend(handed_on(need).map(|line| line + "\n"));
        if let Fate::Made(outputs) = &need.fate
            && target.needs.contains(&need.instance.target)
        {
            let things = outputs.iter();
            files.extend(things.map(|(p, t)| (p.clone(), Read::of(t))));
        }
    }
    for path in tree.headers(instance.target).into_iter().flatten() {
        let read = resolve(world, done, &path, 0);
        action += &format!("header {path} {:?} {read:?}\n", tree.sources.get(&path));
        // The second one is read only if the first says so.
        let goes_on = matches!(&read, Read::File { text, .. } if text.starts_with('t'));
        let is_file = matches!(read, Read::File { .. });
        files.push((path, if is_file { read } else { Read::Nothing }));
        if !goes_on {
            break;
        }
    }
    (run(world, instance, &files), action)
}

/// Returns a line for what an instance hands on to those that need it; `None` for nothing.
fn handed_on(need: &Expected) -> Option<String> {
    let name = &need.instance.name;
    match &need.fate {
        Fate::Made(outputs) if !outputs.is_empty() => Some(digest(outputs)),
        // An identity says nothing without the name of what has it.
        Fate::Product(text) => Some(format!("{name} {:016x}", hash(START, text.as_bytes()))),
        Fate::Group if !need.action.is_empty() => Some(format!(
            "{name} {:016x}",
            hash(START, need.action.as_bytes())
        )),
        _ => None,
    }
}

/// Large outputs would make for large actions.
fn digest(outputs: &BTreeMap<String, Thing>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, thing) in outputs {
        let (kind, text) = match thing {
            Thing::File(text) => ("file", text.as_str()),
            Thing::Executable(text) => ("executable", text.as_str()),
            Thing::Link(text) => ("link", text.as_str()),
            Thing::EmptyDir => ("directory", ""),
        };
        for part in [path, kind, text] {
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What a command meets at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Read {
    File { text: String, is_executable: bool },
    Link(String),
    Dir,
    EmptyDir,
    Nothing,
}

impl Read {
    fn of(thing: &Thing) -> Self {
        let file = |text: &String, is_executable| Self::File {
            text: text.clone(),
            is_executable,
        };
        match thing {
            Thing::File(text) => file(text, false),
            Thing::Executable(text) => file(text, true),
            Thing::Link(text) => Self::Link(text.clone()),
            Thing::EmptyDir => Self::EmptyDir,
        }
    }
}

/// Follows links.
fn resolve(world: &World, done: &[Expected], path: &str, depth: usize) -> Read {
    let tree = &world.tree;
    match tree.sources.get(path) {
        Some(Node::File {
            text,
            is_executable,
        }) => Read::File {
            text: TEXTS[*text].to_owned(),
            is_executable: *is_executable,
        },
        Some(Node::Link(_)) if depth > 8 => Read::Nothing,
        Some(Node::Link(text)) => resolve(world, done, &beside(path, text), depth + 1),
        None if tree
            .sources
            .keys()
            .any(|p| p.starts_with(&format!("{path}/"))) =>
        {
            Read::Dir
        }
        None => {
            let made = done.iter().find_map(|e| match &e.fate {
                Fate::Made(outputs) => outputs.get(path),
                _ => None,
            });
            match made {
                Some(Thing::Link(text)) => {
                    let inside = text.strip_prefix(&format!("{}/", world.root));
                    let to = inside.map_or_else(|| beside(path, text), str::to_owned);
                    resolve(world, done, &to, depth + 1)
                }
                made => made.map_or(Read::Nothing, Read::of),
            }
        }
    }
}

/// Returns where a link at `path` leads to.
fn beside(path: &str, text: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in text.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the input files, sorted; `None` when one that must be there is not.
fn inputs(tree: &Tree, instance: &Instance, done: &[Expected]) -> Option<Vec<String>> {
    let lines = &tree.targets[instance.target].inputs;
    let mut found: Vec<String> = Vec::new();
    let is_excluded = |after: usize, path: &str| {
        lines[after..].iter().any(|line| match line {
            In::Glob(_, Some(x)) => EXCLUSIONS[*x].1(path),
            _ => false,
        })
    };
    for (i, line) in lines.iter().enumerate() {
        let literal = |path: &str| {
            (tree.sources.contains_key(path) && !is_excluded(i, path)).then(|| path.to_owned())
        };
        match line {
            In::File(n) => found.push(literal(FILES[*n])?),
            In::Optional(n) => found.extend(literal(FILES[*n])),
            In::Link(n) => found.extend(literal(LINKS[*n])),
            In::Glob(n, _) => {
                let paths = tree.sources.keys().filter(|p| GLOBS[*n].1(p));
                found.extend(paths.filter(|p| !is_excluded(i, p)).cloned());
            }
            In::Made(t) => {
                let maker = done.iter().find(|e| e.instance.target == *t);
                if let Some(Fate::Made(outputs)) = maker.map(|e| &e.fate) {
                    let files = outputs.iter().filter(|(_, t)| **t != Thing::EmptyDir);
                    let mut paths = files.map(|(path, _)| path.clone()).peekable();
                    found.extend(paths.by_ref());
                }
            }
        }
    }
    if tree.targets[instance.target].each == Each::Files {
        found.extend(instance.file.clone());
    }
    found.sort_by(|a, b| Path::new(a).cmp(Path::new(b)));
    found.dedup();
    Some(found)
}

/// Does what `act.c` does.
fn run(world: &World, instance: &Instance, files: &[(String, Read)]) -> Fate {
    let target = &world.tree.targets[instance.target];
    let has = |flag| target.flags.contains(flag);
    let mut lines = Vec::new();
    let mut is_bad = false;
    for (path, read) in files {
        let (mark, hash) = match read {
            Read::Nothing => return Fate::Fails,
            Read::EmptyDir => continue,
            Read::Dir => ("d ", START),
            Read::Link(text) => ("l ", hash_cut(START, text, &world.root)),
            Read::File {
                text,
                is_executable,
            } => {
                is_bad |= text.lines().any(|l| l == "bad");
                let kept = text.split_inclusive('\n');
                let kept = kept.filter(|l| !(has('s') && l.starts_with('#')));
                let mark = if has('x') && *is_executable { "x " } else { "" };
                (mark, kept.fold(START, |h, l| hash_cut(h, l, &world.root)))
            }
        };
        lines.push(format!("{path} {mark}{hash:016x}\n"));
    }
    if has('b') && is_bad {
        return Fate::Fails;
    }
    lines.sort();
    let value = target.env.and_then(|e| world.env[e]);
    let value = value.map_or("-".into(), |v| format!("env{v}"));
    let salt = world.tree.salt_value(instance.target);
    let mut text = format!("{} {salt} {value}\n{}", instance.id, lines.concat());
    if matches!(target.out, Out::File | Out::Dir | Out::Glob) {
        text += &".".repeat(match (has('L'), has('M')) {
            (_, true) => HUGE,
            (true, _) => LARGE,
            _ => 0,
        });
    }
    // The shape of what is made follows from the text without what comes behind it.
    let h = hash(START, text.as_bytes());
    let root = Some(world.root.as_str()).filter(|_| target.names_root());
    if let Some(root) = root {
        if has('Q') {
            text += &".".repeat((PART - root.len() / 2).saturating_sub(text.len()));
        }
        text += &format!("\u{1}\u{7f}{root}/src\u{2}\n");
    }
    let path = world.tree.output(&instance.id, target.out);
    match target.out {
        Out::Product => Fate::Product(text),
        out => {
            let link = root
                .filter(|_| has('P'))
                .map(|root| format!("{root}/{path}/f0"));
            let link = link.unwrap_or_else(|| "f0".to_owned());
            Fate::Made(make(out, &path, (&text, &link), h))
        }
    }
}

fn make(out: Out, path: &str, (text, link): (&str, &str), h: u64) -> BTreeMap<String, Thing> {
    let mut made = BTreeMap::new();
    let mut add = |name: &str, thing| drop(made.insert(format!("{path}/{name}"), thing));
    let numbered = |i| Thing::File(format!("{i} {text}"));
    let count = 1 + h % 3;
    match out {
        Out::File => return BTreeMap::from([(path.to_owned(), Thing::File(text.to_owned()))]),
        Out::Product | Out::Nothing | Out::Group => return made,
        Out::Glob => {
            (0..count).for_each(|i| add(&format!("g{i}.o"), numbered(i)));
            return made;
        }
        Out::Dir => (0..count).for_each(|i| add(&format!("f{i}"), numbered(i))),
    }
    if h % 5 < 2 {
        add("sub/n", Thing::File(text.to_owned()));
    }
    if h % 7 < 3 {
        add("run", Thing::Executable(text.to_owned()));
    }
    if h % 11 < 5 {
        add("link", Thing::Link(link.to_owned()));
    }
    if h % 13 < 6 {
        add("empty", Thing::EmptyDir);
    }
    made
}
