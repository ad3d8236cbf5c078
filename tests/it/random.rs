//! Random graphs, random edits: whatever the order of edits, crashes, deletions and
//! switches, an incremental build equals a clean one, and a second build runs nothing.

use std::collections::BTreeMap;

use crate::space::Space;

/// A small generator with a seed, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*, by Vigna.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// What the files and targets are; the expected outputs are worked out from it.
struct World {
    sources: BTreeMap<String, String>,
    /// For each target: its sources and its needs, by number.
    targets: Vec<(Vec<usize>, Vec<usize>)>,
    suffix: usize,
}

const SOURCES: usize = 5;

impl World {
    fn new(random: &mut Random) -> Self {
        let targets = (0..7)
            .map(|number| {
                let sources = (0..SOURCES).filter(|_| random.below(3) == 0).collect();
                let needs = (0..number).filter(|_| random.below(3) == 0).collect();
                (sources, needs)
            })
            .collect();
        let mut world = Self {
            sources: BTreeMap::new(),
            targets,
            suffix: 0,
        };
        for source in 0..SOURCES {
            world.edit(source, random.below(4));
        }
        world
    }

    fn edit(&mut self, source: usize, content: usize) {
        let text = format!(
            "{}\n",
            ["one", "two", "# remark", "# other remark"][content]
        );
        self.sources.insert(format!("src/{source}"), text);
    }

    fn releasefile(&self) -> String {
        let names = |numbers: &[usize], prefix: &str| -> String {
            numbers
                .iter()
                .map(|n| format!(" \"{prefix}{n}\""))
                .collect()
        };
        let targets = self.targets.iter().enumerate();
        let nodes = targets.map(|(number, (sources, needs))| {
            let mut node = format!("target \"t{number}\" {{\n    outputs \"out/{number}\"\n");
            if !sources.is_empty() {
                node += &format!("    inputs{}\n", names(sources, "src/"));
            }
            if !needs.is_empty() {
                node += &format!("    needs{}\n", names(needs, "t"));
            }
            let files: String = names(sources, "src/") + &names(needs, "out/");
            let files = files.replace('"', "");
            // Remarks are left out, so that some edits change nothing further on.
            node + &format!(
                "    run \"cat /dev/null {files} | grep -v '^#' > {{out}} || true; echo {number}.{} >> {{out}}\"\n}}\n",
                self.suffix
            )
        });
        nodes.collect()
    }

    /// Returns what each output must hold.
    fn expected(&self) -> Vec<String> {
        let mut outputs: Vec<String> = Vec::new();
        for (number, (sources, needs)) in self.targets.iter().enumerate() {
            let source = |n: &usize| self.sources[&format!("src/{n}")].clone();
            let all: String = sources
                .iter()
                .map(source)
                .chain(needs.iter().map(|n| outputs[*n].clone()))
                .collect();
            let kept = all.lines().filter(|l| !l.starts_with('#'));
            let text: String = kept.map(|l| format!("{l}\n")).collect();
            outputs.push(format!("{text}{number}.{}\n", self.suffix));
        }
        outputs
    }

    fn write(&self, space: &Space) {
        space.write("Releasefile.kdl", self.releasefile());
        for (path, text) in &self.sources {
            space.write(path, text);
        }
    }
}

fn one_walk(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(&mut random);
    let space = Space::empty();
    world.write(&space);
    for step in 0..12 {
        let what = random.below(8);
        match what {
            0..=3 => world.edit(random.below(SOURCES), random.below(4)),
            4 => world.suffix = random.below(2),
            5 if space.has("out/3") => drop(space.remove("out/3")),
            6 if space.has("out/5") => drop(space.write("out/5", "edited by hand\n")),
            7 if space.has(".rel") => drop(space.remove(".rel")),
            _ => {
                // Killed somewhere in the middle.
                world.write(&space);
                let job = space.begin(["build"]);
                std::thread::sleep(std::time::Duration::from_millis(random.below(30) as u64));
                let _ = rustix::process::kill_process(job.pid(), rustix::process::Signal::KILL);
                let _ = job.finish();
            }
        }
        world.write(&space);
        let _ = space.build(["-j3"]).ok();
        for (number, expected) in world.expected().iter().enumerate() {
            let found = space.read(format!("out/{number}"));
            assert_eq!(
                &found, expected,
                "seed {seed}, step {step} ({what}), out/{number}"
            );
        }
        let again = space.build([]).ok();
        assert_eq!(again.processes(), 0, "seed {seed}, step {step} ({what})");
    }
}

#[test]
fn an_incremental_build_equals_a_clean_one() {
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || {
                for round in 0..4 {
                    one_walk(seed * 1_000_003 + round);
                }
            });
        }
    });
}
