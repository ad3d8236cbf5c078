//! Single processes of a host that are killed under a run: none of them can keep it waiting, and
//! what they were doing does not go on behind its back.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::hosts::{Host, Hosts};
use crate::space::{Job, Space, wait_until};

/// A host with a step between two others that takes until `go` is there.
fn site(hosts: &Hosts) -> Space {
    let space = Space::new(&format!(
        "{}environment \"production\" {{ lease \"30s\"; use \"work\" on=\"h1\"; }}\n",
        hosts.kdl()
    ));
    space.write(
        "recipes/work.kdl",
        r#"
recipe "work" {
    step "first" { dir "{host.root}"; run "echo x >> first"; undo "rm first" }
    step "slow" {
        dir "{host.root}"
        run "echo x >> tried; until test -e go; do sleep 0.05; done; echo x >> slow"
    }
    step "last" { dir "{host.root}"; run "echo x >> last" }
}
"#,
    );
    space
}

/// Begins a run, waits for the slow step, and returns its program with who waits for it.
fn at_work<'a>(space: &'a Space, host: &Host) -> (Job<'a>, i32, i32) {
    let job = space.begin(["production"]);
    wait_until("the slow step", || {
        (host.lines("tried").len() == 1).then_some(())
    });
    // The first of its session.
    let stat = |pid: i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let words = |pid: i32| -> Vec<i32> {
        let stat = stat(pid);
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ')
            .skip(1)
            .take(3)
            .map(|w| w.parse().unwrap_or(0))
            .collect()
    };
    let is_program = |pid: &i32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&text).contains("/program\0") && words(*pid).get(2) == Some(pid)
    };
    let program = host
        .workers()
        .into_iter()
        .find(is_program)
        .expect("a program");
    let parent = words(program)[0];
    (job, program, parent)
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("is there");
}

#[test]
fn who_waits_for_a_program_is_killed_and_its_end_is_told_all_the_same() {
    let hosts = Hosts::start(1);
    let (host, space) = (&hosts.all[0], site(&hosts));
    let (job, _, waiter) = at_work(&space, host);
    kill(waiter);
    fs::write(host.srv("go"), "").expect("writes");
    let _ = job.finish().ok();
    let times = ["first", "tried", "slow", "last"].map(|file| host.lines(file).len());
    assert_eq!(times, [1; 4]);
    let again = space.run(["production"]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

#[test]
fn what_a_killed_program_was_doing_has_ended_before_anything_is_taken_back() {
    let hosts = Hosts::start(1);
    let (host, space) = (&hosts.all[0], site(&hosts));
    let (job, program, _) = at_work(&space, host);
    kill(program);
    let failed = job.finish().fails(1);
    assert!(failed.stderr.contains("ended from outside"), "{failed}");
    assert_eq!(host.lines("first").len(), 0);
    let left = host.workers();
    let left = left
        .iter()
        .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    let left: Vec<_> = left
        .filter(|w| String::from_utf8_lossy(w).contains("/program\0"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    fs::write(host.srv("go"), "").expect("writes");
    let _ = space.run(["production"]).ok();
    let times = ["first", "tried", "slow", "last"].map(|file| host.lines(file).len());
    assert_eq!(times, [1, 2, 1, 1]);
}
