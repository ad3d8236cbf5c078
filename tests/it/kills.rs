//! A rollout over real hosts that is disturbed at random moments: `rel` is killed or
//! interrupted, a connection is cut, a host restarts. The next run ends where an undisturbed
//! one would have, and whoever asks meanwhile sees the old release or the new one.
//!
//! `REL_KILLS` says how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::{Host, Hosts};
use crate::space::{Space, wait_until};

/// Disturbances where the environment does not say.
const KILLS: usize = 6;
/// About as long as one release takes.
const RELEASE: Duration = Duration::from_millis(1800);

fn site(hosts: &Hosts) -> Space {
    Space::new(&format!(
        r#"
project "site"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{}
environment "production" {{
    needs "page"
    rollout "upgrade" on="h[1-4]" serial="1 2 1" {{
        use "versioned-release" as="site" artifact="{{page}}" root="{{host.root}}/site" {{
            install "sleep 0.1; cp artifact/page live; echo done >> {{host.root}}/installs-{{page.id}}"
            health "grep -q release live"
        }}
        use "service" as="app" after="site" run="exec sleep 100000" ready="sleep 0.05"
        gate command="grep -q release site/current/live"
    }}
}}
"#,
        hosts.kdl()
    ))
}

fn live(hosts: &Hosts) -> Vec<String> {
    let read = |host: &Host| {
        let text = fs::read_to_string(host.srv("site/current/live"));
        text.unwrap_or_else(|e| e.to_string()).trim().to_owned()
    };
    hosts.all.iter().map(read).collect()
}

/// How often the journal of a host has steps whose name begins so as done, by their keys.
fn done(host: &Host, step: &str) -> BTreeMap<String, usize> {
    let journal = fs::read_to_string(host.srv(".rel/production/journal")).expect("reads");
    let mut times = BTreeMap::new();
    for line in journal.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        if columns[1] == "done" && columns[5].starts_with(step) {
            *times.entry(columns[6].to_owned()).or_default() += 1;
        }
    }
    times
}

/// Ends a connection of this space: the process of `ssh` that holds it.
fn cut(space: &Space) {
    let home = space.base().display().to_string();
    let entries = fs::read_dir("/proc").expect("lists").flatten();
    let sessions: Vec<i32> = entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            (words.starts_with("ssh\0") && words.contains(&home)).then_some(pid)
        })
        .collect();
    let chance = chance() as usize;
    if let Some(pid) = sessions.get(chance % sessions.len().max(1)) {
        let _ = kill_process(Pid::from_raw(*pid).expect("a process"), Signal::KILL);
    }
}

fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[test]
fn a_rollout_that_is_disturbed_ends_where_an_undisturbed_one_does() {
    let kills = std::env::var("REL_KILLS").map_or(KILLS, |n| n.parse().expect("a number"));
    let mut hosts = Hosts::start(4);
    let space = site(&hosts);
    space.write("page.in", "release 0\n");
    let _ = space.run(["production"]).ok();
    let (mut ended_early, mut again) = (0, 0);
    for number in 1..=kills {
        space.write("page.in", format!("release {number}\n"));
        let links: Vec<_> = hosts
            .all
            .iter()
            .map(|h| h.srv("site/current/live"))
            .collect();
        let is_done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let prober = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while !is_done.load(Ordering::SeqCst) {
                    for link in &links {
                        let text = fs::read_to_string(link).unwrap_or_else(|e| e.to_string());
                        seen.insert(text.trim().to_owned());
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                seen
            });
            let job = space.begin(["production"]);
            let part = (chance() >> 32) as f64 / f64::from(u32::MAX);
            std::thread::sleep(RELEASE.mul_f64(part));
            match chance() % 4 {
                0 => job.signal(Signal::KILL),
                1 => job.signal(Signal::INT),
                2 => cut(&space),
                _ => hosts.reboot((chance() % 4) as usize),
            }
            let first = job.finish();
            ended_early += usize::from(first.code != 0);
            // A host that restarts may still do so; then the run after it.
            wait_until("a run that comes to its end", || {
                again += 1;
                (space.run(["production"]).code == 0).then_some(())
            });
            is_done.store(true, Ordering::SeqCst);
            prober.join().expect("reads")
        });
        let expected = format!("release {number}");
        assert_eq!(live(&hosts), vec![expected.clone(); 4]);
        let former = format!("release {}", number - 1);
        assert!(
            seen.iter().all(|s| *s == expected || *s == former),
            "{seen:?}"
        );
        let last = space.run(["production"]).ok();
        assert!(last.stderr.contains("production: nothing to do"), "{last}");
    }
    for host in &hosts.all {
        // Each release was announced, laid down and installed once, however often it was begun.
        for step in ["announce", "upload", "install"] {
            let done = done(host, &format!("site/{step}["));
            assert_eq!(done.len(), kills + 1, "{step}: {done:?}");
            assert!(done.values().all(|times| *times == 1), "{step}: {done:?}");
        }
    }
    println!("{kills} disturbances: {ended_early} runs ended early, {again} runs after them");
}
