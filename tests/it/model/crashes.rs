//! Runs that die and runs that are refused: `kill -9` at any moment, and every single change to
//! a file system failing in its turn. The next run is held against the oracle as always.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::history::{Kind, Op, Random};
use super::oracle::expect;
use super::walk::{Outcome, Walk};
use super::world::{Each, Header, In, Node, Out, Target, Tree, World};

/// Kills in [`killed_at_any_moment`].
const KILLS: usize = 500;

fn target(out: Out, inputs: &[In], needs: &[usize]) -> Target {
    Target {
        inputs: inputs.to_vec(),
        header: None,
        needs: needs.to_vec(),
        each: Each::One,
        out,
        tool: None,
        probe: None,
        var: None,
        env: None,
        salt: 0,
        renamed: 0,
        flags: "s".into(),
        is_cached: true,
        is_pooled: false,
        is_dropped: false,
    }
}

fn world(targets: Vec<Target>) -> World {
    let mut tree = Tree {
        targets,
        sources: [].into(),
        vars: [0, 0],
    };
    for (n, path) in [
        "src/0",
        "src/1",
        "src/2",
        "src/a.txt",
        "src/d/a.txt",
        "pics/p",
    ]
    .iter()
    .enumerate()
    {
        let file = Node::File {
            text: n % 3,
            is_executable: false,
        };
        tree.put(path, file);
    }
    World {
        tree,
        tools: [0, 0],
        probes: [Some(0), Some(0)],
        env: [None, None],
        root: String::new(),
    }
}

/// One of everything.
fn small() -> World {
    let with_depfile = Target {
        header: Some(Header::Source(3, 4)),
        ..target(Out::Glob, &[In::File(2)], &[])
    };
    world(vec![
        target(Out::File, &[In::File(0)], &[]),
        target(Out::Dir, &[In::File(1)], &[0]),
        with_depfile,
        target(Out::Product, &[], &[1, 2]),
        target(Out::Nothing, &[In::Glob(0, None)], &[0]),
    ])
}

/// Three dozen targets in layers, a few with outputs of half a megabyte.
fn medium() -> World {
    let mut targets = Vec::new();
    for n in 0..36usize {
        let out = [Out::File, Out::Dir, Out::File, Out::Glob][n % 4];
        let needs: Vec<usize> = [n.checked_sub(6), n.checked_sub(9)]
            .into_iter()
            .flatten()
            .collect();
        let mut one = target(out, &[In::File(n % 3), In::Glob(n % 2, None)], &needs);
        if n % 8 == 0 {
            one.flags = "M".into();
        }
        targets.push(one);
    }
    world(targets)
}

/// All blobs hold what their names say, and nothing is left lying in the tree.
fn sound(walk: &Walk) -> Outcome {
    let child = walk.ground.start(&walk.world, &["cache", "verify"]);
    let output = walk.ground.wait(child);
    let said = walk.ground.said();
    if output != Some(0) || said.contains("corrupt") {
        return Err(format!("the cache is not sound: {output:?} {said}"));
    }
    for file in walk.ground.cache_files("cas") {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(&file).map_err(|e| e.to_string())?;
        if !name.starts_with(".tmp-") && blake3::hash(&bytes).to_hex().as_str() != name {
            return Err(format!("the blob {name} holds something else"));
        }
    }
    walk.leftovers()
}

fn op(kind: Kind, a: usize, b: usize) -> Op {
    Op { kind, a, b }
}

#[test]
fn killed_at_any_moment() {
    const THREADS: usize = 4;
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let failures = &failures;
            scope.spawn(move || {
                let mut walk = Walk::new(&medium(), thread == 0);
                let outcome = kills(&mut walk, thread as u64, KILLS / THREADS);
                if let Err(failure) = outcome {
                    failures.lock().expect("is sound").push(failure);
                }
            });
        }
    });
    println!(
        "{KILLS} kills of runs of {} targets",
        medium().tree.targets.len()
    );
    let failures = failures.into_inner().expect("is sound");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn kills(walk: &mut Walk, seed: u64, count: usize) -> Outcome {
    let random = &mut Random::new(seed);
    for round in 0..count {
        // Something to run, something to restore.
        let (a, b) = (random.below(1 << 20), random.below(1 << 20));
        walk.op(op(Kind::Edit, a, 3 * b + 1))?;
        match random.below(4) {
            0 => walk.op(op(Kind::DeleteAllOutputs, 0, 0))?,
            1 => walk.op(op(Kind::DeleteCache, 0, 0))?,
            _ => walk.op(op(Kind::DeleteOutput, a, b))?,
        }
        let after = Duration::from_micros(random.below(120_000) as u64);
        walk.kill(after)?;
        let checked = walk.check(2);
        checked.map_err(|e| format!("seed {seed}, round {round}, after {after:?}: {e}"))?;
    }
    sound(walk)
}

/// What is done to a change: the process dies before it, or in the middle of it, or it is
/// refused, once or from then on.
const HOWS: [&str; 6] = [
    "kill",
    "torn",
    "ENOSPC-on",
    "EIO-once",
    "EROFS-on",
    "ENOSPC-once",
];

#[test]
fn hindered_at_every_change() {
    let points = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for how in HOWS {
            let (points, failures) = (&points, &failures);
            scope.spawn(move || {
                for is_built in [false, true] {
                    let mut walk = Walk::new(&small(), false);
                    if let Err(failure) = hindered(&mut walk, how, is_built, points) {
                        failures.lock().expect("is sound").push(failure);
                    }
                }
            });
        }
    });
    println!("{} changes hindered", points.into_inner());
    let failures = failures.into_inner().expect("is sound");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Hinders the first change of a build, then the second, to the last.
fn hindered(walk: &mut Walk, how: &str, is_built: bool, points: &AtomicUsize) -> Outcome {
    if is_built {
        walk.check(1)?;
        // Something to run, something to restore, something that was edited by hand.
        walk.op(op(Kind::Edit, 0, 1))?;
        walk.op(op(Kind::DeleteOutput, 2, 0))?;
        walk.op(op(Kind::EditOutput, 1, 0))?;
    } else {
        std::fs::create_dir(walk.ground.space.cache()).map_err(|e| e.to_string())?;
    }
    walk.ground.keep(false);
    let past = walk.past.clone();
    for n in 1.. {
        walk.ground.keep(true);
        walk.past = past.clone();
        let context = |e: String| format!("{how} at {n}, built before {is_built}: {e}");
        match one_hindered(walk, how, n).map_err(context)? {
            true => points.fetch_add(1, Ordering::Relaxed),
            false => return Ok(()),
        };
    }
    Ok(())
}

/// Returns whether there was such a change.
fn one_hindered(walk: &mut Walk, how: &str, n: usize) -> Result<bool, String> {
    let expected = expect(&walk.world);
    let args = ["build", "-k", "-j1"];
    let child = walk.ground.start_hindered(&walk.world, n, how, &args);
    let code = walk.ground.wait(child);
    let said = walk.ground.said();
    let report = std::fs::read_to_string(walk.ground.space.base().join("report"));
    let report = report.unwrap_or_default();
    let is_killed = how == "kill" || how == "torn";
    let is_met = report.lines().count() > 1;
    let told = |what: &str| Err(format!("{what}: exit code {code:?}, {report}{said}"));
    match code {
        Some(137) if is_killed && is_met => {}
        Some(0) if !(is_killed && is_met) => {}
        Some(1) if !is_killed && said.contains("error: ") => {}
        _ => return told("ended in a wrong way"),
    }
    if said.contains("panicked") || said.contains("bug of rel") {
        return told("said something wrong");
    }
    walk.disturbed(&expected);
    let checked = walk.check(1).and_then(|()| sound(walk));
    checked.map_err(|e| format!("{report}{said}\nand then {e}"))?;
    Ok(is_met)
}

/// Two checkouts that share a cache, in each of them several runs at once, some of them killed.
#[test]
fn together_on_one_cache() {
    const ROUNDS: usize = 12;
    let cache = tempfile::tempdir().expect("a directory");
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (failures, cache) = (&failures, cache.path().join("cache"));
            scope.spawn(move || {
                let mut walk = Walk::new(&medium(), false);
                walk.ground.shared = Some(cache);
                // What the other has done need not be done here.
                walk.past.is_unsure = true;
                let random = &mut Random::new(seed);
                let outcome = (0..ROUNDS).try_for_each(|round| {
                    crowd(&mut walk, random).map_err(|e| format!("{seed}, round {round}: {e}"))
                });
                if let Err(failure) = outcome.and_then(|()| sound(&walk)) {
                    failures.lock().expect("is sound").push(failure);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("is sound");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn crowd(walk: &mut Walk, random: &mut Random) -> Outcome {
    walk.op(op(
        Kind::Edit,
        random.below(1 << 20),
        3 * random.below(1 << 18) + 1,
    ))?;
    if random.below(3) == 0 {
        walk.op(op(Kind::DeleteAllOutputs, 0, 0))?;
    }
    let expected = expect(&walk.world);
    let args = ["build", "-k", "-j2"];
    let mut children: Vec<_> = (0..3)
        .map(|_| walk.ground.start(&walk.world, &args))
        .collect();
    std::thread::sleep(Duration::from_micros(random.below(60_000) as u64));
    let victim = random.below(4);
    if let Some(child) = children.get_mut(victim) {
        child.kill().map_err(|e| e.to_string())?;
        walk.disturbed(&expected);
        // Whoever waited for the lock goes on; so may what the killed one had started.
        let ids = expected.iter().map(|e| e.instance.id.clone());
        walk.past.late.extend(ids);
    }
    for (n, child) in children.into_iter().enumerate() {
        let code = walk.ground.wait(child);
        if n != victim && code != Some(0) {
            let said = walk.ground.said();
            return Err(format!("one of three ended with {code:?}\n{said}"));
        }
    }
    walk.disturbed(&expected);
    walk.check(2)
}
