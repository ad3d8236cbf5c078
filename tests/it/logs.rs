//! Logs of many hosts in one stream: in order, folded, followed through rotation and over the
//! time in which a host is away; nothing is left on the hosts.

use std::fs::{self, OpenOptions};
use std::io::Write;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::hosts::{Host, Hosts};
use crate::space::{Job, Space, wait_until};

/// A checkout with a service on the first host, and logs of others on all.
fn checkout(hosts: &Hosts) -> Space {
    let names: Vec<&str> = hosts.all.iter().map(|h| h.name.as_str()).collect();
    let space = Space::new(&format!(
        r#"{}
environment "staging" {{
    log "{{host.root}}/logs/*.log"
    use "serve" on="h1"
    use "nothing" on="{}"
}}
"#,
        hosts.kdl(),
        names.join(" ")
    ));
    space.write(
        "recipes/serve.kdl",
        r#"recipe "serve" {
    step "serve" { service "app" run="echo up; exec sleep 1000" log="{host.root}/app" }
}
"#,
    );
    space.write(
        "recipes/nothing.kdl",
        "recipe \"nothing\" {\n    step \"nothing\" { run \":\" }\n}\n",
    );
    for host in &hosts.all {
        fs::create_dir_all(host.srv("logs")).expect("makes");
    }
    space
}

fn append(host: &Host, text: &str) {
    let path = host.srv("logs/web.log");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("opens");
    file.write_all(text.as_bytes()).expect("writes");
}

/// Waits until a line was reported.
#[track_caller]
fn heard(job: &Job<'_>, text: &str) {
    wait_until(text, || job.stdout().contains(text).then_some(()));
}

/// Waits until nothing on a host reads its logs any more.
#[track_caller]
fn nothing_left(hosts: &Hosts, space: &Space, host: &Host) {
    let root = hosts.root(host);
    let script = format!(
        "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' <$p/cmdline 2>/dev/null)\" in \
         tail*'{root}'*|sed*-u*) echo $p ;; esac; done"
    );
    wait_until("the end of what reads logs", || {
        let said = hosts.ssh(space, host, &script).ok().stdout;
        said.is_empty().then_some(())
    });
}

#[test]
fn logs_of_all_hosts_are_put_in_order_and_folded() {
    let hosts = Hosts::start(3);
    let space = checkout(&hosts);
    assert_snapshot!(space.run(["log", "staging"]).ok(), @r#"
    --- stderr
    rel: the hosts of `staging` keep no logs: `rel` knows of those of services, of detached steps, and of what `log "PATH"` names
    "#);
    for (number, host) in hosts.all.iter().enumerate() {
        append(
            host,
            &format!(
                "2021-01-0{} 10:00:0{number}Z starts\n2021-01-09 10:00:00Z ready\n  at port 80\n",
                3 - number
            ),
        );
    }
    append(
        &hosts.all[1],
        "2021-01-09 10:00:01Z error\n2021-01-09 10:00:02Z error\n",
    );
    // Control characters do not reach the terminal.
    append(
        &hosts.all[2],
        "2021-01-09 10:00:03Z \x1b[2J\n2021-01-09 10:00:04Z no end",
    );
    assert_snapshot!(space.run(["log", "staging"]).ok(), @r"
    h3  web.log  2021-01-01 10:00:02Z starts
    h2  web.log  2021-01-02 10:00:01Z starts
    h1  web.log  2021-01-03 10:00:00Z starts
    h1..h3  web.log  3x  2021-01-09 10:00:00Z ready
    h1..h3  web.log  3x    at port 80
    h2  web.log  2x  2021-01-09 10:00:01Z error
    h3  web.log  2021-01-09 10:00:03Z \u{1b}[2J
    h3  web.log  2021-01-09 10:00:04Z no end
    ");
    assert_snapshot!(space.run(["log", "staging", "-n", "1"]).ok(), @"
    h1  web.log    at port 80
    h2  web.log  2021-01-09 10:00:02Z error
    h3  web.log  2021-01-09 10:00:04Z no end
    ");
    assert_snapshot!(space.run(["log", "staging", "--since", "1s"]).ok(), @"");
    let _ = space.run(["staging"]).ok();
    let output = space.run(["log", "staging", "-n", "2", "--json"]).ok();
    assert!(
        output
            .stdout
            .contains(r#"{"hosts":["h1"],"sources":["app"],"count":1,"text":"up"}"#),
        "{output}"
    );
    // What the last run from here printed is kept here.
    assert!(
        space
            .run(["log", "staging", "--run"])
            .ok()
            .stdout
            .contains("serve")
    );
}

#[test]
fn logs_are_followed_through_rotation_and_absence() {
    let mut hosts = Hosts::start(2);
    let space = checkout(&hosts);
    append(&hosts.all[0], "first\n");
    append(&hosts.all[1], "first\n");
    let job = space.begin(["log", "staging", "-f"]);
    heard(&job, "h1,h2  web.log  2x  first\n");
    append(&hosts.all[0], "second\n");
    heard(&job, "h1  web.log  second\n");
    let log = hosts.all[0].srv("logs/web.log");
    fs::rename(&log, hosts.all[0].srv("logs/web.old")).expect("renames");
    append(&hosts.all[0], "third\n");
    heard(&job, "h1  web.log  third\n");
    hosts.all[1].stop();
    wait_until("the host to be missed", || {
        job.stderr()
            .contains("host `h2` does not answer")
            .then_some(())
    });
    append(&hosts.all[1], "while it was away\n");
    append(&hosts.all[0], "fourth\n");
    heard(&job, "h1  web.log  fourth\n");
    hosts.reboot(1);
    heard(&job, "h2  web.log  while it was away\n");
    wait_until("the host to be back", || {
        job.stderr()
            .contains("host `h2` answers again")
            .then_some(())
    });
    append(&hosts.all[1], "fifth\n");
    heard(&job, "h2  web.log  fifth\n");
    job.signal(Signal::INT);
    let output = job.finish().fails(130);
    assert_eq!(output.stdout.matches("first").count(), 1, "{output}");
    for host in &hosts.all {
        nothing_left(&hosts, &space, host);
    }
}

#[test]
fn nothing_is_left_when_the_reader_is_killed() {
    let hosts = Hosts::start(1);
    let space = checkout(&hosts);
    append(&hosts.all[0], "first\n");
    let job = space.begin(["log", "staging", "-f"]);
    heard(&job, "first");
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    nothing_left(&hosts, &space, &hosts.all[0]);
}

#[test]
fn names_decide_whose_logs_are_meant() {
    let space = Space::new(
        "host \"here\" local=#true root=\"srv\"\ntarget \"a\" { run \"echo made\"; }\n\
         environment \"staging\" {\n    log \"{host.rot}/x\" on=\"her\"\n    use \"wait-for\" on=\"here\" command=\"true\"\n}\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::unknown_host

      × there is no host or group `her`
       ╭─[Releasefile.kdl:4:27]
     4 │     log "{host.rot}/x" on="her"
       ·                           ──┬──
       ·                             ╰── not a host
       ╰────
      help: did you mean `here`?
    "#);
    space.write("Releasefile.kdl", "target \"a\" { run \"echo made\"; }\n");
    let _ = space.run(["build"]).ok();
    assert_eq!(space.run(["log", "a"]).ok().stdout, "made\n");
    assert_snapshot!(space.run(["log", "a", "-f"]).fails(2).stderr, @"
    error: `a` is not an environment: it has no logs on hosts
      help: rel log ENVIRONMENT --follow
    ");
    assert_snapshot!(space.run(["log", "b"]).fails(2).stderr, @"
    error: there is no target `b`
      help: did you mean `a`?
    ");
}
