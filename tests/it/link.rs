//! Lines to hosts that go away because an interface is taken down: for a moment, which nobody
//! should notice, or for good, which must be reported in bounded time and leave nothing at work.

use std::collections::BTreeMap;
use std::fs;

use crate::hosts::{Host, Hosts};
use crate::space::{Job, Space, wait_until};
use crate::wire::End;

/// One host after another, each with a step that takes until the file `go` is there. `says` is
/// what it does all the time; `options` stand in the host nodes.
fn fleet(hosts: &Hosts, lease: &str, says: &str, options: &str) -> Space {
    let nodes: String = hosts.all.iter().map(|h| hosts.node(h, options)).collect();
    let space = Space::new(&format!(
        r#"
{nodes}
environment "production" {{
    lease "{lease}"
    rollout "upgrade" on="h[1-{}]" serial=1 {{
        use "work"
    }}
}}
"#,
        hosts.all.len()
    ));
    let recipe = r#"
recipe "work" {
    step "first" { dir "{host.root}"; run "echo x >> first" }
    step "slow" {
        dir "{host.root}"
        run """
            echo x >> tried
            sleep 1000.CHILD &
            until test -e go; do echo x >> ticks; SAYS; sleep 0.05; done
            kill $!
            echo x >> slow
            """
    }
    step "last" { dir "{host.root}"; run "echo x >> last" }
}
"#;
    let recipe = recipe
        .replace("SAYS", says)
        .replace("CHILD", &unique(hosts));
    space.write("recipes/work.kdl", recipe);
    for host in &hosts.all {
        fs::write(host.srv("go"), "").expect("writes");
    }
    space
}

/// Digits that only processes of these hosts are called by.
fn unique(hosts: &Hosts) -> String {
    let text = hosts.options().concat();
    let digits = text.bytes().map(|b| char::from(b'0' + b % 10));
    digits.collect()
}

/// Returns how many processes of the slow step there are.
fn children(hosts: &Hosts) -> usize {
    let name = format!("1000.{}", unique(hosts));
    let entries = fs::read_dir("/proc").expect("lists").flatten();
    let words = entries.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    words
        .filter(|w| String::from_utf8_lossy(w).contains(&name))
        .count()
}

/// Begins a run whose slow step waits on host `number`, and waits until it is at work.
fn at_work<'a>(space: &'a Space, hosts: &Hosts, number: usize) -> Job<'a> {
    let host = &hosts.all[number];
    fs::remove_file(host.srv("go")).expect("removes");
    let job = space.begin(["production"]);
    goes_on(host);
    job
}

/// Waits until the slow step has gone on for a while.
fn goes_on(host: &Host) {
    let before = host.lines("ticks").len();
    wait_until("the slow step", || {
        (host.lines("ticks").len() > before + 5).then_some(())
    });
}

fn go(host: &Host) {
    fs::write(host.srv("go"), "").expect("writes");
}

/// Returns how often which event of a step stands in a host's journal.
fn events(host: &Host) -> BTreeMap<String, usize> {
    let journal = fs::read_to_string(host.srv(".rel/production/journal")).unwrap_or_default();
    let mut events = BTreeMap::new();
    for line in journal.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let name = columns[5].split(['[', '#']).next().unwrap_or_default();
        *events.entry(format!("{} {name}", columns[1])).or_default() += 1;
    }
    events
}

/// Waits until the guard of a host has ended the step and given the lease back.
fn left(hosts: &Hosts, number: usize) {
    let host = &hosts.all[number];
    wait_until("the end of the step", || {
        (children(hosts) == 0).then_some(())
    });
    wait_until("the journal", || {
        let events = events(host);
        (events.get("interrupted work/slow") == Some(&1)).then_some(())
    });
    wait_until("the lease", || {
        (!host.srv(".rel/production/lease").exists()).then_some(())
    });
}

/// Every step was done once on each host; on `number` the slow one was begun twice.
#[track_caller]
fn once(hosts: &Hosts, number: usize) {
    for (i, host) in hosts.all.iter().enumerate() {
        for step in ["first", "slow", "last"] {
            assert_eq!(host.lines(step).len(), 1, "{step} on {}", host.name);
            let done = events(host).get(&format!("done work/{step}")).copied();
            assert_eq!(done, Some(1), "{step} on {}", host.name);
        }
        let tries = if i == number { 2 } else { 1 };
        assert_eq!(host.lines("tried").len(), tries, "{}", host.name);
    }
}

#[test]
fn an_interface_that_goes_down_in_a_step_and_stays_down() {
    let hosts = Hosts::wired(3);
    let space = fleet(&hosts, "30s", ":", "");
    let job = at_work(&space, &hosts, 1);
    hosts.line(1, End::Far, false);
    // Within the time that the options of `ssh` give it, and never without end.
    let cut = job.finish().fails(1);
    for words in [
        "error: the connection to host `h2` ended",
        "step    work/slow",
        "help: run the same command again: it checks what was done on the host and continues",
    ] {
        assert!(cut.stderr.contains(words), "no `{words}` in {cut}");
    }
    left(&hosts, 1);
    assert_eq!(
        (
            hosts.all[0].lines("last").len(),
            hosts.all[2].lines("first").len()
        ),
        (1, 0)
    );
    go(&hosts.all[1]);
    let down = space.run(["production"]).fails(1);
    assert!(down.stderr.contains("cannot reach host `h2`"), "{down}");
    assert_eq!(hosts.all[1].lines("tried").len(), 1);
    hosts.line(1, End::Far, true);
    let _ = space.run(["production"]).ok();
    once(&hosts, 1);
    let last = space.run(["production"]).ok();
    assert!(last.stderr.contains("production: nothing to do"), "{last}");
}

#[test]
fn an_interface_that_is_down_for_a_moment_is_not_noticed() {
    for end in [End::Near, End::Far] {
        let hosts = Hosts::wired(2);
        // However slow this machine is, it is a moment.
        let patient = "    option \"ServerAliveInterval=60\"\n";
        let space = fleet(&hosts, "10m", ":", patient);
        let host = &hosts.all[1];
        let job = at_work(&space, &hosts, 1);
        hosts.line(1, end, false);
        goes_on(host);
        hosts.line(1, end, true);
        goes_on(host);
        // It may be that the step ends meanwhile, and those after it.
        hosts.line(1, end, false);
        go(host);
        wait_until("the last step", || {
            (host.lines("last").len() == 1).then_some(())
        });
        hosts.line(1, end, true);
        let output = job.finish().ok();
        assert!(output.stderr.contains("production: 6 steps"), "{output}");
        once(&hosts, usize::MAX);
    }
}

#[test]
fn a_step_that_talks_all_the_time_is_ended_as_well_when_nobody_listens() {
    let hosts = Hosts::wired(1);
    let says = "head -c 1000000 /dev/zero | tr '\\\\0' x";
    let space = fleet(&hosts, "30s", says, "");
    let job = at_work(&space, &hosts, 0);
    hosts.line(0, End::Near, false);
    let cut = job.finish().fails(1);
    assert!(
        cut.stderr.contains("the connection to host `h1` ended"),
        "{cut}"
    );
    // While the line is down: what waits to be sent there keeps no other from going on.
    left(&hosts, 0);
    hosts.line(0, End::Near, true);
    go(&hosts.all[0]);
    let _ = space.run(["production"]).ok();
    once(&hosts, 0);
}
