//! A rollout over real hosts that is disturbed at random moments (`disturb.rs` has by what). The
//! next run ends where an undisturbed one would have, and whoever asks meanwhile sees the old
//! release or the new one.
//!
//! `REL_KILLS` says how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::disturb::{ANY, IMPATIENT, LEASE, Tally, chance, count, part_of};
use crate::hosts::{Host, Hosts};
use crate::space::{Space, wait_until};

/// Disturbances where the environment does not say.
const KILLS: usize = 6;
/// About as long as one release takes.
const RELEASE: Duration = Duration::from_millis(1800);

fn site(hosts: &Hosts) -> Space {
    let nodes: String = hosts.all.iter().map(|h| hosts.node(h, IMPATIENT)).collect();
    Space::new(&format!(
        r#"
project "site"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{nodes}
environment "production" {{
    lease "{LEASE}"
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
"#
    ))
}

fn live(hosts: &Hosts) -> Vec<String> {
    let read = |host: &Host| {
        let text = fs::read_to_string(host.srv("site/current/live"));
        text.unwrap_or_else(|e| e.to_string()).trim().to_owned()
    };
    hosts.all.iter().map(read).collect()
}

/// How often the journal of a host has steps whose name begins so as done, by their keys; those
/// that were rolled back, for a step after them had failed, left out.
fn done(host: &Host, step: &str) -> BTreeMap<String, usize> {
    let journal = fs::read_to_string(host.srv(".rel/production/journal")).expect("reads");
    let lines: Vec<Vec<&str>> = journal.lines().map(|l| l.split('\t').collect()).collect();
    let of = |event: &'static str| lines.iter().filter(move |columns| columns[1] == event);
    // Run and number of each.
    let undone: BTreeSet<_> = of("undone").map(|c| (c[6], c[4])).collect();
    let mut times = BTreeMap::new();
    for columns in of("done").filter(|c| c[5].starts_with(step)) {
        if !undone.contains(&(columns[3], columns[4])) {
            *times.entry(columns[6].to_owned()).or_default() += 1;
        }
    }
    times
}

#[test]
fn a_rollout_that_is_disturbed_ends_where_an_undisturbed_one_does() {
    let kills = count(KILLS);
    let mut hosts = Hosts::wired(4);
    let space = site(&hosts);
    space.write("page.in", "release 0\n");
    let _ = space.run(["production"]).ok();
    let (mut tally, mut again) = (Tally::default(), 0);
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
            let disturbance = ANY[chance() as usize % ANY.len()];
            let struck = (chance() % 4) as usize;
            std::thread::sleep(part_of(RELEASE));
            disturbance.strike(&space, &job, &mut hosts, struck);
            let first = job.finish();
            disturbance.fix(&hosts, struck);
            tally.add(disturbance, first.code != 0);
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
        // Each release was laid down and installed once, however often it was begun.
        for step in ["upload", "install"] {
            let done = done(host, &format!("site/{step}["));
            assert_eq!(done.len(), kills + 1, "{step}: {done:?}");
            assert!(done.values().all(|times| *times == 1), "{step}: {done:?}");
        }
    }
    println!("{tally}; {again} runs after them");
}
