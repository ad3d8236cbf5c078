//! The world of the model: targets, sources and what lies outside, as plain values.
//!
//! Nothing here touches a disk. The oracle works out from a world what a clean build makes;
//! the walk brings the same world about on a disk; stories of failures are printed from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Contents of source files. Some have equal sizes, some differ in remarks only, and the
/// commands that mind fail on `bad`.
pub const TEXTS: [&str; 8] = [
    "one\n",
    "two\n",
    "six\n",
    "# a\none\n",
    "# b\none\n",
    "bad\n",
    "",
    "one\ntwo\n",
];

/// Files that a target may name one by one.
pub const FILES: [&str; 8] = [
    "src/0",
    "src/1",
    "src/2",
    "src/a.txt",
    "src/c.md",
    "src/d/a.txt",
    "src/d/e/c.md",
    "src/w s/ü.txt",
];

/// More places for files: taken in by globs, led to by links, a target each.
pub const OTHERS: [&str; 9] = [
    "src/b.txt",
    "src/d/b.md",
    "src/d/e/a",
    "src/.hidden.txt",
    "hid/0",
    "hid/1",
    "pics/p",
    "pics/q",
    "pics/r",
];

/// Places for symbolic links, and what they may say.
pub const LINKS: [&str; 2] = ["lnk/0", "lnk/1"];
pub const LINK_TEXTS: [&str; 5] = ["../hid/0", "../hid/1", "../src/0", "../src/d", "0"];

/// A pattern with what it names, said a second time.
type Named = (&'static str, fn(&str) -> bool);

/// Patterns that add.
pub const GLOBS: [Named; 8] = [
    ("src/*.txt", |p| flat(p, "src/") && p.ends_with(".txt")),
    ("src/**/*.md", |p| {
        p.starts_with("src/") && p.ends_with(".md")
    }),
    ("src/d/", |p| p.starts_with("src/d/")),
    ("src/d/**", |p| p.starts_with("src/d/")),
    ("src/**/[ab].*", |p| {
        let name = p.rsplit('/').next().unwrap_or("");
        p.starts_with("src/") && (name.starts_with("a.") || name.starts_with("b."))
    }),
    ("src/?", |p| flat(p, "src/") && p.len() == 5),
    ("lnk/*", |p| flat(p, "lnk/")),
    ("src/**", |p| p.starts_with("src/")),
];

/// Patterns that take away.
pub const EXCLUSIONS: [Named; 3] = [
    ("src/d/e/**", |p| p.starts_with("src/d/e/")),
    ("**/a.txt", |p| p == "a.txt" || p.ends_with("/a.txt")),
    ("src/b.*", |p| flat(p, "src/") && p.starts_with("src/b.")),
];

fn flat(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| !rest.contains('/'))
}

/// What stands at a path of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file with one of [`TEXTS`].
    File { text: usize, is_executable: bool },
    /// A symbolic link.
    Link(&'static str),
}

/// One line of `inputs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum In {
    File(usize),
    Optional(usize),
    Link(usize),
    /// A glob, and what is taken away from all above it.
    Glob(usize, Option<usize>),
    /// What another target makes.
    Made(usize),
}

/// What a target makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    File,
    Dir,
    Glob,
    /// Something outside of the tree, with an identity.
    Product,
    /// Nothing.
    Nothing,
    /// It has no commands: a name for its needs.
    Group,
}

/// The instances of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    One,
    Values,
    Files,
}

/// What a command reads, declares not, and names in its depfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A source, and one more that is read if the first begins with a `t`.
    Source(usize, usize),
    /// What another target makes, needed directly or through others.
    Made(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub inputs: Vec<In>,
    pub header: Option<Header>,
    pub needs: Vec<usize>,
    pub each: Each,
    pub out: Out,
    pub tool: Option<usize>,
    pub probe: Option<usize>,
    pub var: Option<usize>,
    pub env: Option<usize>,
    pub salt: usize,
    /// How often it was given another name.
    pub renamed: usize,
    /// Letters for the command: see `act.c`. `H` keeps the result for the checkout it was made in.
    pub flags: String,
    pub is_cached: bool,
    pub is_pooled: bool,
    pub is_dropped: bool,
}

impl Target {
    pub fn is_flaky(&self) -> bool {
        self.flags.contains('f')
    }

    /// Returns whether its commands write the path of the checkout.
    pub fn names_root(&self) -> bool {
        self.flags.contains(['P', 'Q']) && !matches!(self.out, Out::Nothing | Out::Group)
    }

    /// Returns whether its result is one of the checkout that it was made in.
    pub fn is_bound(&self) -> bool {
        self.names_root() || (self.is_cached && self.flags.contains('H'))
    }
}

/// What a branch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub targets: Vec<Target>,
    pub sources: BTreeMap<String, Node>,
    pub vars: [usize; 2],
}

/// All that decides what a build makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub tree: Tree,
    pub tools: [usize; 2],
    /// A probe without an answer fails.
    pub probes: [Option<usize>; 2],
    pub env: [Option<usize>; 2],
    /// The path of the checkout; empty until there is one.
    pub root: String,
}

/// One target after `each`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub target: usize,
    /// As commands know it; stays when the target is renamed.
    pub id: String,
    /// As `rel` knows it.
    pub name: String,
    /// The input that `each files=` adds.
    pub file: Option<String>,
}

impl Tree {
    /// Puts a node at a path; what stands above or below it gives way.
    pub fn put(&mut self, path: &str, node: Node) {
        let below = format!("{path}/");
        self.sources
            .retain(|p, _| !p.starts_with(&below) && !path.starts_with(&format!("{p}/")));
        self.sources.insert(path.to_owned(), node);
    }

    /// Returns the name of a target.
    pub fn name(&self, target: usize) -> String {
        match self.targets[target].renamed {
            0 => format!("t{target}"),
            n => format!("t{target}-{n}"),
        }
    }

    /// Returns the instances of a target; none when it is dropped.
    pub fn instances(&self, target: usize) -> Vec<Instance> {
        let name = self.name(target);
        let instance = |value: &str, suffix: &str, file: Option<&String>| Instance {
            target,
            id: format!("{target}-{suffix}"),
            name: format!("{name}[{value}]"),
            file: file.cloned(),
        };
        match (self.targets[target].is_dropped, self.targets[target].each) {
            (true, _) => Vec::new(),
            (_, Each::One) => vec![Instance {
                target,
                id: target.to_string(),
                name,
                file: None,
            }],
            (_, Each::Values) => ["x", "y"].map(|v| instance(v, v, None)).into(),
            (_, Each::Files) => {
                let files = self.sources.keys().filter(|p| flat(p, "pics/"));
                files.map(|p| instance(p, &p[5..], Some(p))).collect()
            }
        }
    }

    /// Returns the output of an instance, without what is a pattern in it.
    pub fn output(&self, id: &str, out: Out) -> String {
        match out {
            Out::File => format!("out/f{id}"),
            Out::Dir => format!("out/d{id}"),
            Out::Glob => format!("out/g{id}"),
            Out::Product | Out::Nothing | Out::Group => String::from("-"),
        }
    }

    /// Returns the needed targets that are there, made inputs included.
    pub fn needs(&self, target: usize) -> Vec<usize> {
        let made = self.targets[target].inputs.iter().filter_map(|i| match i {
            In::Made(t) => Some(*t),
            _ => None,
        });
        let needs = self.targets[target].needs.iter().copied();
        let mut all: Vec<usize> = needs
            .chain(made)
            .filter(|n| !self.targets[*n].is_dropped)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Returns the files that a target may read without declaring them.
    pub fn headers(&self, target: usize) -> Option<[String; 2]> {
        match self.targets[target].header? {
            Header::Source(a, b) => {
                let files: Vec<&str> = FILES.iter().chain(&LINKS).copied().collect();
                Some([a, b].map(|n| files[n % files.len()].to_owned()))
            }
            Header::Made(maker) => {
                let mut todo = self.needs(target);
                // Each once: of the ways to a target there may be very many.
                let mut seen = BTreeSet::new();
                while let Some(next) = todo.pop() {
                    if seen.insert(next) {
                        todo.extend(self.needs(next));
                    }
                }
                let out = self.output(&maker.to_string(), Out::File);
                seen.contains(&maker).then(|| [out, String::new()])
            }
        }
    }

    /// Returns the Releasefile and the file that it includes. Paths lead out of the tree
    /// relatively, so that another checkout has the same actions.
    pub fn releasefiles(&self, act: &str) -> [String; 2] {
        let [a, b] = self.vars;
        let mut texts = [
            format!(
                "include \"more.kdl\"\nvar \"v0\" \"var{a}\"\nvar \"v1\" \"var{b}\"\npool \"p\" depth=1\n"
            ),
            String::from("// The other half.\n"),
        ];
        for number in (0..self.targets.len()).filter(|n| !self.targets[*n].is_dropped) {
            texts[number % 2] += &self.node(number, act);
        }
        texts
    }

    fn node(&self, number: usize, act: &str) -> String {
        let target = &self.targets[number];
        let mut node = format!("target \"{}\" {{\n", self.name(number));
        let mut add = |line: String| writeln!(node, "    {line}").expect("writes");
        let axis = match target.each {
            Each::One => "",
            Each::Values => "-{e}",
            Each::Files => "-{e.name}",
        };
        let (id, of_axis) = (format!("{number}{axis}"), target.each);
        match of_axis {
            Each::One => {}
            Each::Values => add("each \"e\" \"x\" \"y\"".into()),
            Each::Files => add("each \"e\" files=\"pics/*\" optional=#true".into()),
        }
        let needs = self.needs(number);
        if !needs.is_empty() {
            let names = needs.iter().map(|n| format!(" \"{}\"", self.name(*n)));
            add(format!("needs{}", names.collect::<String>()));
        }
        if target.out == Out::Group {
            // A name for nothing is a mistake, so one that lost its needs does nothing.
            let run = if needs.is_empty() {
                "    run \"true\"\n"
            } else {
                ""
            };
            return node + run + "}\n";
        }
        let mut inputs: Vec<String> = target.inputs.iter().filter_map(|i| self.input(i)).collect();
        if target.each == Each::Files {
            inputs.push("inputs \"{e}\"".into());
        }
        let given = if inputs.is_empty() { "" } else { " \"{in}\"" };
        inputs.into_iter().for_each(&mut add);
        let out = self.output(&id, target.out);
        match target.out {
            Out::File => add(format!("outputs \"{out}\"")),
            Out::Dir => add(format!("outputs \"{out}/\"")),
            Out::Glob => add(format!("outputs \"{out}/*.o\"")),
            Out::Product => add(format!(
                "product \"{act}\" \"print\" \"../outside/engine{id}\""
            )),
            Out::Nothing | Out::Group => {}
        }
        for (what, number) in [("tool", target.tool), ("probe", target.probe)] {
            if let Some(n) = number {
                add(format!(
                    "{what} \"{act}\" \"print\" \"../outside/{what}{n}\""
                ));
            }
        }
        if let Some(n) = target.env {
            add(format!("env \"E{n}\" FIXED=\"fixed\""));
        }
        if target.is_pooled {
            add("pool \"p\"".into());
        }
        match (target.is_cached, target.flags.contains('H')) {
            (false, _) => add("cache #false".into()),
            (true, true) => add("cache \"here\"".into()),
            (true, false) => {}
        }
        if target.is_flaky() {
            add("retries 2".into());
        }
        let is_named = |n: &&usize| target.needs.contains(n) && self.has_outputs(**n);
        let made = needs.iter().filter(is_named);
        let made: String = made
            .map(|n| format!(" \"{{{}}}\"", self.name(*n)))
            .collect();
        let (mode, out) = match target.out {
            Out::File => ("f", out),
            Out::Dir => ("d", out),
            Out::Glob => ("g", out),
            Out::Product => ("p", format!("../outside/engine{id}")),
            Out::Nothing | Out::Group => ("n", out),
        };
        let variable = target.env.map_or(String::new(), |n| format!("E{n}"));
        let headers = self.headers(number);
        let depfile = headers.as_ref().map(|_| format!("out/x{id}.d"));
        if let Some(depfile) = &depfile {
            add(format!("depfile \"{depfile}\""));
        }
        let depfile = depfile.unwrap_or_default();
        let [first, second] = headers.unwrap_or_default();
        let salt = self.salt(number).replace("var:", "{v").replace(':', "}");
        add(format!(
            "run \"{act}\" \"run\" \"../log\" \"{id}\" \"-{}\" \"{salt}\" \"{variable}\" \"{mode}\" \"{out}\" \"../outside/flaky{id}\" \"{depfile}\" \"{first}\" \"{second}\" \"--\"{given}{made}",
            target.flags,
        ));
        node + "}\n"
    }

    /// Returns what the command's salt is made of; `var:0:` stands for a variable.
    fn salt(&self, number: usize) -> String {
        let target = &self.targets[number];
        let var = target.var.map_or(String::new(), |v| format!("var:{v}:"));
        format!("s{}{var}", target.salt)
    }

    /// Returns the salt as the command gets it.
    pub fn salt_value(&self, number: usize) -> String {
        let target = &self.targets[number];
        let var = target.var.map(|v| format!("var{}", self.vars[v]));
        format!("s{}{}", target.salt, var.unwrap_or_default())
    }

    /// Returns whether a name in a command stands for a target's outputs.
    pub fn has_outputs(&self, target: usize) -> bool {
        !self.targets[target].is_dropped
            && matches!(self.targets[target].out, Out::File | Out::Dir | Out::Glob)
    }

    fn input(&self, input: &In) -> Option<String> {
        Some(match input {
            In::File(n) => format!("inputs \"{}\"", FILES[*n]),
            In::Optional(n) => format!("inputs \"{}\" optional=#true", FILES[*n]),
            In::Link(n) => format!("inputs \"{}\" optional=#true", LINKS[*n]),
            In::Glob(n, None) => format!("inputs \"{}\" optional=#true", GLOBS[*n].0),
            In::Glob(n, Some(x)) => format!(
                "inputs \"{}\" \"!{}\" optional=#true",
                GLOBS[*n].0, EXCLUSIONS[*x].0
            ),
            In::Made(t) if self.targets[*t].is_dropped => return None,
            In::Made(t) => {
                let slash = if self.targets[*t].out == Out::Dir {
                    "/"
                } else {
                    ""
                };
                let out = self.output(&t.to_string(), self.targets[*t].out);
                format!("inputs \"{out}{slash}\"")
            }
        })
    }
}
