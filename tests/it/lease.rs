//! One at a time goes to an environment: operators that race, that sleep over the end of
//! their lease, that hold an environment for themselves, and that break what others hold.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::filters::{RUN, replaced};
use crate::hosts::{Host, Hosts};
use crate::space::{Job, Output, PATH, Space, wait_until};

/// A checkout of one of several operators, whose run does `step` on all hosts.
fn checkout(hosts: &Hosts, lease: &str, step: &str) -> Space {
    let names: Vec<&str> = hosts.all.iter().map(|h| h.name.as_str()).collect();
    let space = Space::new(&format!(
        "{}environment \"staging\" {{\n    lease \"{lease}\"\n    use \"work\" on=\"{}\"\n}}\n",
        hosts.kdl(),
        names.join(" ")
    ));
    let recipe = format!(
        "recipe \"work\" {{\n    step \"work\" {{\n        dir \"{{host.root}}\"\n        run #\"\"\"\n{step}\n\"\"\"#\n    }}\n}}\n"
    );
    space.write("recipes/work.kdl", recipe);
    space
}

/// Returns `rel` as somebody.
fn rel(space: &Space, who: &str, args: &[&str]) -> Command {
    let mut command = space.rel(args);
    command.env("USER", who);
    command
}

fn run(space: &Space, who: &str, args: &[&str]) -> Output {
    space.finish(&mut rel(space, who, args))
}

const STEP: &str = "\
echo $rel_token begin >> log
sleep 0.02
echo $rel_token end >> log";

/// Goes on, with a child, until `go` is there.
const SLOW: &str = "\
echo $rel_token begin >> log
sleep 1000 & child=$!
until test -e go; do echo x >> ticks; sleep 0.05; done
kill $child
echo $rel_token end >> log";

fn journal(host: &Host) -> Vec<String> {
    let pick = |line: &String| {
        let columns: Vec<&str> = line.split('\t').collect();
        format!("{} {} {}", columns[1], columns[7], columns[8])
    };
    host.lines(".rel/staging/journal")
        .iter()
        .map(pick)
        .collect()
}

/// Returns what was printed, without what differs from run to run.
fn shown(output: &Output) -> String {
    let filters = [
        (r"\b(ann|bob)@[^\s,]+", "$1@[HERE]"),
        RUN,
        (r"\b[0-9hms]+( \d+s)? ago", "[TIME] ago"),
        (r"\b[0-9hms]+( \d+s)? from now", "[TIME] from now"),
        (
            r"since [0-9ms]+(, [0-9ms]+( \d+s)? more)?:",
            "since [TIME]:",
        ),
    ];
    replaced(&output.to_string(), &filters)
}

/// Waits until a holder's step is at work on a host.
fn at_work<'a>(space: &'a Space, who: &str, host: &Host) -> Job<'a> {
    let before = host.lines("log").len();
    let job = space.start(&mut rel(space, who, &["-q", "staging", "--force"]));
    wait_until("the step", || {
        (host.lines("log").len() > before).then_some(())
    });
    job
}

/// Never two at once: after `N begin` comes `N end`, or a higher number's begin where N was
/// killed; nobody comes back who was followed by another.
#[track_caller]
fn alone(host: &Host) -> usize {
    let mut at = 0;
    let mut is_open = false;
    let all = host.lines("log");
    for line in &all {
        let (token, what) = line.split_once(' ').expect("two words");
        let token: u64 = token.parse().expect("a number");
        match what {
            "begin" => assert!(token > at, "{token} after {at} on {}: {all:?}", host.name),
            _ => assert!(token == at && is_open, "{line} at {at}: {all:?}"),
        }
        at = token;
        is_open = what == "begin";
    }
    all.len()
}

#[test]
fn of_two_that_race_one_holds_all_hosts_at_a_time() {
    let races: usize = std::env::var("REL_RACES").map_or(40, |n| n.parse().expect("a number"));
    let hosts = Hosts::start(2);
    let operators = ["ann", "bob"].map(|who| (who, checkout(&hosts, "30s", STEP)));
    let (mut done, mut refused, mut killed) = (0, 0, 0);
    for race in 0..races {
        let mut jobs = operators
            .each_ref()
            .map(|(who, space)| space.start(&mut rel(space, who, &["-q", "staging", "--force"])));
        if race % 2 == 1 {
            jobs.reverse();
        }
        if race % 5 == 4 {
            // At another moment of its life each time.
            std::thread::sleep(std::time::Duration::from_millis((race * 37 % 300) as u64));
            rustix::process::kill_process(jobs[0].pid(), Signal::KILL).expect("is ours");
        }
        for job in jobs {
            let output = job.finish();
            match output.code {
                0 => done += 1,
                137 => killed += 1,
                1 if output.stderr.contains("another run is active") => refused += 1,
                _ => panic!("{output}"),
            }
        }
    }
    let acts: usize = hosts.all.iter().map(alone).sum();
    println!("{races} races: {done} done, {refused} refused, {killed} killed, {acts} lines");
    assert_eq!(done + refused + killed, 2 * races);
    assert!(done >= races - killed, "{done} of {races}");
}

/// Kills, when a lease is released: itself and, where it is told to, who does that.
const KILLER: &str = r#"#!/bin/sh
case $* in
*lease.last)
    if mkdir DIR/struck 2>/dev/null; then
        if [ -e DIR/parent ]; then kill -KILL "$PPID"; fi
        kill -KILL $$
    fi
    ;;
esac
exec /bin/mv "$@"
"#;

#[test]
fn a_lease_is_given_back_though_who_does_that_is_killed() {
    for is_guard in [false, true] {
        let space = Space::new(
            r#"
host "here" local=#true
environment "staging" { lease "3s"; use "note" on="here"; }
"#,
        );
        let recipe = r#"recipe "note" { step "note" { write "{host.root}/note" "noted\n"; }; }"#;
        space.write("recipes/note.kdl", recipe);
        let dir = space.base().join("shims");
        fs::create_dir(&dir).expect("creates");
        let killer = KILLER.replace("DIR", &dir.display().to_string());
        fs::write(dir.join("mv"), killer).expect("writes");
        fs::set_permissions(dir.join("mv"), fs::Permissions::from_mode(0o755)).expect("sets");
        if is_guard {
            fs::write(dir.join("parent"), "").expect("writes");
        }
        let path = format!("{}:{}", dir.display(), *PATH);
        let _ = space.finish(space.rel(["staging"]).env("PATH", path)).ok();
        assert!(dir.join("struck").exists());
        wait_until("the lease", || {
            (!space.has(".rel/hosts/here/.rel/staging/lease")).then_some(())
        });
    }
}

#[test]
fn a_way_out_that_hangs_does_not_hold_a_host_for_ever() {
    let space = Space::new(
        r#"
host "here" local=#true
environment "staging" { lease "3s"; use "mode" on="here"; }
"#,
    );
    let recipe = r#"
recipe "mode" {
    step "mode" {
        scope "mode" enter="touch {host.root}/in" leave="test -e {host.root}/fixed || sleep 1000"
    }
    step "work" { run "date +%s%N >{host.root}/work"; }
}
"#;
    space.write("recipes/mode.kdl", recipe);
    let _ = space.run(["staging"]);
    assert!(space.has(".rel/hosts/here/work"));
    space.write(".rel/hosts/here/fixed", "");
    wait_until("a run that takes the host over", || {
        (space.run(["staging", "--force"]).code == 0).then_some(())
    });
}

/// The processes of a guard and of the program that works for it, on the host.
fn holder(host: &Host) -> (String, String) {
    let lease = host.lines(".rel/staging/lease").concat();
    let columns: Vec<&str> = lease.split('\t').collect();
    (columns[5].to_owned(), columns[9].to_owned())
}

#[test]
fn a_holder_that_sleeps_over_its_end_changes_nothing_when_it_wakes() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let [ann, bob] = [(); 2].map(|()| checkout(&hosts, "2s", SLOW));
    let first = at_work(&ann, "ann", host);
    let (guard, tmp) = holder(host);
    let group = |signal: &str| {
        let script = format!(
            "read p b <{tmp}/work; kill -{signal} -- -{guard}; kill -{signal} -- -$p 2>/dev/null || true"
        );
        hosts.ssh(&ann, host, &script).ok()
    };
    let _ = group("STOP");
    first.signal(Signal::STOP);
    fs::write(host.srv("go"), "").expect("writes");
    let ticks = host.lines("ticks").len();
    let _ = run(&bob, "bob", &["-q", "staging", "--force"]).ok();
    assert_eq!(host.lines("log"), ["1 begin", "2 begin", "2 end"]);
    let before = host.lines(".rel/staging/journal");
    // One that was stopped while it renewed its lease had to be ended.
    let script = format!("kill -CONT -- -{guard} 2>/dev/null || true");
    let _ = hosts.ssh(&ann, host, &script).ok();
    first.signal(Signal::CONT);
    let output = first.finish().fails(1);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: this run has lost the lease of host `h1`: fenced
      who    bob@[HERE]
      doing  staging
      run    [RUN]
      since  [TIME] ago
      step   work/work
      log    .rel/logs/staging.log
      help: nothing more was changed there; when that run has ended, the same command checks what was done and continues
    --- exit code 1
    ");
    assert_eq!(host.lines("log"), ["1 begin", "2 begin", "2 end"]);
    assert_eq!(host.lines("ticks").len(), ticks);
    assert_eq!(host.lines(".rel/staging/journal"), before);
    assert!(
        before.iter().any(|l| l.contains("\ttaken-over\t")),
        "{before:?}"
    );
}

#[test]
fn a_run_that_is_not_heard_of_is_ended_before_its_lease_is() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let [ann, bob] = [(); 2].map(|()| checkout(&hosts, "2s", SLOW));
    let first = at_work(&ann, "ann", host);
    first.signal(Signal::STOP);
    wait_until("the guard's end", || {
        journal(host)
            .iter()
            .any(|l| l.starts_with("interrupted"))
            .then_some(())
    });
    fs::write(host.srv("go"), "").expect("writes");
    let _ = run(&bob, "bob", &["-q", "staging", "--force"]).ok();
    first.signal(Signal::CONT);
    let output = first.finish().fails(1);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: host `h1` revoked the lease of this run: fenced
      why   it received no heartbeat from here for too long
      step  work/work
      log   .rel/logs/staging.log
      help: nothing more was changed there; when that run has ended, the same command checks what was done and continues
    --- exit code 1
    ");
    assert_eq!(host.lines("log"), ["1 begin", "2 begin", "2 end"]);
}

#[test]
fn an_environment_is_held_by_a_person_and_broken_knowingly() {
    let hosts = Hosts::start(2);
    let [ann, bob] = [(); 2].map(|()| checkout(&hosts, "30s", STEP));
    let lock = [
        "lock",
        "staging",
        "--reason",
        "no releases today",
        "--for",
        "30m",
    ];
    assert_snapshot!(shown(&run(&ann, "ann", &lock).ok()), @"
    --- stderr
    rel: staging: held for 30m, on 2 hosts
    ");
    assert_snapshot!(shown(&run(&bob, "bob", &["staging"]).fails(1)), @r#"
    --- stderr
    error: `staging` is locked on host `h1`
      who     ann@[HERE]
      reason  no releases today
      since   [TIME] ago
      until   [TIME] from now
      help: ask them; `rel unlock staging --break --reason "…"` breaks the lock
    --- exit code 1
    "#);
    assert_snapshot!(shown(&run(&bob, "bob", &["lock", "staging", "--reason", "x"]).fails(1)), @r#"
    --- stderr
    error: `staging` is locked on host `h1`
      who     ann@[HERE]
      reason  no releases today
      since   [TIME] ago
      until   [TIME] from now
      help: ask them; `rel unlock staging --break --reason "…"` breaks the lock
    --- exit code 1
    "#);
    assert_snapshot!(shown(&run(&bob, "bob", &["staging", "--plan"]).ok()), @"
    h1  work (work)
          run  work        echo $rel_token begin >> log  never done here
    h2  work (work)
          run  work        echo $rel_token begin >> log  never done here
    work  no rollback: work
    h1  ann@[HERE] holds it since [TIME]: no releases today
    h2  ann@[HERE] holds it since [TIME]: no releases today
    staging: 2 steps would run, 0 up to date, on 2 hosts
    ");
    let own = shown(&run(&ann, "ann", &["staging"]).ok());
    assert!(
        own.contains("you have locked this environment yourself: no releases today"),
        "{own}"
    );
    // With nothing to do, nobody needs to hold anything.
    let null = run(&bob, "bob", &["staging"]).ok();
    assert!(null.stderr.contains("2 round trips"), "{null}");
    assert_snapshot!(shown(&run(&bob, "bob", &["unlock", "staging"]).fails(1)), @r#"
    --- stderr
    error: `staging` is locked on host `h1`
      who     ann@[HERE]
      reason  no releases today
      since   [TIME] ago
      until   [TIME] from now
      help: ask them; `rel unlock staging --break --reason "…"` breaks the lock
    --- exit code 1
    "#);
    let broken = [
        "unlock",
        "staging",
        "--break",
        "--reason",
        "the site is down",
    ];
    assert_snapshot!(shown(&run(&bob, "bob", &broken).ok()), @"
    --- stderr
    rel: staging: broken: it was locked by ann@[HERE], on 2 hosts
    ");
    for host in &hosts.all {
        let lines = host.lines(".rel/staging/journal");
        let line = lines
            .iter()
            .find(|l| l.contains("\tlock-broken\t"))
            .expect("is reported");
        let columns: Vec<&str> = line.split('\t').collect();
        assert!(columns[6].starts_with("ann@"), "{line}");
        assert!(columns[7].starts_with("bob@"), "{line}");
        assert_eq!(columns[8], "the site is down");
    }
    let _ = run(&bob, "bob", &["staging", "--force"]).ok();
    let _ = run(&ann, "ann", &["lock", "staging", "--reason", "again"]).ok();
    assert_snapshot!(shown(&run(&ann, "ann", &["unlock", "staging"]).ok()), @"
    --- stderr
    rel: staging: released, on 2 hosts
    ");
    assert_snapshot!(shown(&run(&ann, "ann", &["unlock", "staging"]).ok()), @"
    --- stderr
    rel: staging: it was not locked
    ");
    // One that has expired holds nobody up.
    let _ = run(
        &ann,
        "ann",
        &["lock", "staging", "--reason", "short", "--for", "1s"],
    )
    .ok();
    wait_until("the end of the hold", || {
        (run(&bob, "bob", &["-q", "staging", "--force"]).code == 0).then_some(())
    });
    hosts.all.iter().for_each(|host| assert!(alone(host) >= 6));
}

#[test]
fn a_run_at_work_is_broken_off_and_says_so() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let [ann, bob] = [(); 2].map(|()| checkout(&hosts, "30s", SLOW));
    let first = at_work(&ann, "ann", host);
    let broken = ["unlock", "staging", "--break", "--reason", "it hangs"];
    assert_snapshot!(shown(&run(&bob, "bob", &broken).ok()), @"
    --- stderr
    rel: staging: broken: it was locked by ann@[HERE], on 1 host
    ");
    let output = first.finish().fails(1);
    assert_snapshot!(shown(&output), @"
    --- stderr
    error: this run has lost the lease of host `h1`: fenced
      who    bob@[HERE]
      doing  rel unlock staging --break
      run    [RUN]
      since  [TIME] ago
      step   work/work
      log    .rel/logs/staging.log
      help: nothing more was changed there; when that run has ended, the same command checks what was done and continues
    --- exit code 1
    ");
    assert_eq!(host.lines("log"), ["1 begin"]);
    assert!(
        journal(host)
            .iter()
            .any(|l| l.starts_with("lock-broken bob@"))
    );
    fs::write(host.srv("go"), "").expect("writes");
    let _ = run(&ann, "ann", &["-q", "staging"]).ok();
    assert_eq!(host.lines("log"), ["1 begin", "3 begin", "3 end"]);
}

#[test]
fn a_host_in_the_middle_that_is_not_reached_gives_the_others_back() {
    let mut hosts = Hosts::start(3);
    let [ann, bob] = [(); 2].map(|()| checkout(&hosts, "30s", STEP));
    hosts.all[1].stop();
    let output = run(&ann, "ann", &["lock", "staging", "--reason", "all or none"]).fails(1);
    assert!(output.stderr.contains("cannot reach host `h2`"), "{output}");
    let host = &hosts.all[0];
    wait_until("what was taken", || {
        let has = |file: &str| host.srv(".rel/staging").join(file).exists();
        (has("lease.last") && !has("lease") && !has("freeze")).then_some(())
    });
    hosts.reboot(1);
    let _ = run(&bob, "bob", &["-q", "staging"]).ok();
    hosts.all.iter().for_each(|host| assert_eq!(alone(host), 2));
}

/// Refuses to end, and has jobs in groups of their own.
const STUBBORN: &str = "\
trap '' TERM
set -m
sleep 1000 &
sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' &
echo $rel_token begin >> log
wait
wait";

#[test]
fn nothing_of_a_step_is_left_after_an_interrupt_and_a_kill() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts, "30s", STUBBORN);
    for signal in [Signal::INT, Signal::KILL] {
        let job = at_work(&space, "ann", host);
        let left = || {
            let script = "grep -la 'slee[p].1000' /proc/[0-9]*/cmdline 2>/dev/null | wc -l";
            hosts.ssh(&space, host, script).stdout.trim().to_owned()
        };
        assert_ne!(left(), "0");
        let start = Instant::now();
        job.signal(signal);
        let _ = job.finish();
        wait_until("the end of all processes", || (left() == "0").then_some(()));
        println!("{signal:?}: nothing left after {:?}", start.elapsed());
        wait_until("the lease", || {
            (!host.srv(".rel/staging/lease").exists()).then_some(())
        });
    }
}

/// Who holds the one is who wants the other: to wait for them would be in vain.
#[test]
fn two_names_of_one_state_are_told_apart_from_somebody_else() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let ssh = hosts.kdl();
    let other = ssh.replacen("\"h1\"", "\"h2\"", 1);
    let local = "host \"h1\" local=#true root=\"site\"\nhost \"h2\" local=#true root=\"site\"\n";
    let space = checkout(&hosts, "60s", STEP);
    let work = "environment \"staging\" { use \"work\" on=\"h1 h2\"; }\n";
    for nodes in [format!("{ssh}{other}"), local.to_owned()] {
        space.write("Releasefile.kdl", format!("{nodes}{work}"));
        for args in [
            &["staging"][..],
            &["unlock", "staging", "--break", "--reason", "x"],
        ] {
            let refused = space.run(args).fails(1);
            let state = match nodes == local {
                true => String::from("[work]/site/.rel/staging"),
                false => format!("{}/.rel/staging", hosts.root(host)),
            };
            assert_eq!(
                refused.stderr.split("error: ").nth(1).unwrap_or_default(),
                format!(
                    "hosts `h1` and `h2` have the same state directory on the same machine\n  \
                     directory  {state}\n  help: give one of them another `root`, or remove one\n"
                ),
                "{refused}"
            );
        }
        assert!(host.lines("log").is_empty());
        assert!(!host.srv(".rel/staging/lease").exists());
        assert!(!host.srv(".rel/staging/freeze").exists());
    }
}
