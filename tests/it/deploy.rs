//! Environments on real hosts over SSH: plan, run, again, rollback, and all that can go
//! wrong on the way. Whatever happens, the old release goes on serving.

use std::fs;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::hosts::{Hosts, Silent, free_port};
use crate::space::{Output, Space, wait_until};

/// A site that is released to all of `hosts`; `health` decides whether it may go live.
fn site(hosts: &Hosts, nodes: &str) -> Space {
    let names: Vec<&str> = hosts.all.iter().map(|h| h.name.as_str()).collect();
    let space = Space::new(&format!(
        r#"
project "site"
target "page" {{ inputs "page.in"; outputs "build/page"; run "cp page.in {{out}}"; }}
{nodes}
group "web" {}
environment "staging" {{
    needs "page"
    use "versioned-release" as="site" on="web" artifact="{{page}}" root="{{host.root}}/site" {{
        install "cp artifact/page live"
        health "grep -q good live"
    }}
}}
"#,
        names.iter().map(|n| format!("{n:?} ")).collect::<String>(),
    ));
    space.write("page.in", "good 1\n");
    space
}

/// Returns what each host serves.
fn served(hosts: &Hosts) -> Vec<String> {
    let read = |h: &crate::hosts::Host| {
        fs::read_to_string(h.srv("site/current/live")).unwrap_or_else(|_| "nothing\n".into())
    };
    hosts
        .all
        .iter()
        .map(|h| read(h).trim_end().to_owned())
        .collect()
}

/// Returns the lines of an output in an order that does not depend on which host was first.
fn sorted(output: &Output) -> String {
    let text = output.to_string();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn a_release_goes_to_three_hosts_and_back() {
    let hosts = Hosts::start(3);
    let space = site(&hosts, &hosts.kdl());
    let plan = space.run(["staging", "--plan"]).ok();
    let plan = hosts.all.iter().fold(plan.to_string(), |text, host| {
        text.replace(&hosts.root(host), "[srv]")
    });
    assert_snapshot!(plan, @"
      stale  page  never built here
    h1  site (versioned-release)
      unknown  announce    notes that the release is tried  unknown until `page` is made
      unknown  upload      lays the release down in [srv]/site/releases  unknown until `page` is made
      unknown  install     unknown until `page` is made
      unknown  health      unknown until `page` is made
      unknown  switch      unknown until `page` is made
      unknown  prune       removes releases beyond the 5 that stay  unknown until `page` is made
    h2  site (versioned-release)
      unknown  announce    notes that the release is tried  unknown until `page` is made
      unknown  upload      lays the release down in [srv]/site/releases  unknown until `page` is made
      unknown  install     unknown until `page` is made
      unknown  health      unknown until `page` is made
      unknown  switch      unknown until `page` is made
      unknown  prune       removes releases beyond the 5 that stay  unknown until `page` is made
    h3  site (versioned-release)
      unknown  announce    notes that the release is tried  unknown until `page` is made
      unknown  upload      lays the release down in [srv]/site/releases  unknown until `page` is made
      unknown  install     unknown until `page` is made
      unknown  health      unknown until `page` is made
      unknown  switch      unknown until `page` is made
      unknown  prune       removes releases beyond the 5 that stay  unknown until `page` is made
    staging: 18 steps not known yet, 0 up to date, on 3 hosts
    ");
    assert_eq!(served(&hosts), ["nothing", "nothing", "nothing"]);
    let first = space.run(["staging"]).ok();
    assert_snapshot!(sorted(&first), @"
         run h1  site/announce  never done here
         run h1  site/health[575ae46f5d42]  `upload` runs
         run h1  site/install[575ae46f5d42]  `upload` runs
         run h1  site/prune  `switch` runs
         run h1  site/switch  never done here
         run h1  site/upload[575ae46f5d42]  never done here
         run h2  site/announce  never done here
         run h2  site/health[575ae46f5d42]  `upload` runs
         run h2  site/install[575ae46f5d42]  `upload` runs
         run h2  site/prune  `switch` runs
         run h2  site/switch  never done here
         run h2  site/upload[575ae46f5d42]  never done here
         run h3  site/announce  never done here
         run h3  site/health[575ae46f5d42]  `upload` runs
         run h3  site/install[575ae46f5d42]  `upload` runs
         run h3  site/prune  `switch` runs
         run h3  site/switch  never done here
         run h3  site/upload[575ae46f5d42]  never done here
         run page  never built here
        done h1  site/announce  [TIME]
        done h1  site/health[575ae46f5d42]  [TIME]
        done h1  site/install[575ae46f5d42]  [TIME]
        done h1  site/prune  [TIME]
        done h1  site/switch  [TIME]
        done h1  site/upload[575ae46f5d42]  [TIME]
        done h2  site/announce  [TIME]
        done h2  site/health[575ae46f5d42]  [TIME]
        done h2  site/install[575ae46f5d42]  [TIME]
        done h2  site/prune  [TIME]
        done h2  site/switch  [TIME]
        done h2  site/upload[575ae46f5d42]  [TIME]
        done h3  site/announce  [TIME]
        done h3  site/health[575ae46f5d42]  [TIME]
        done h3  site/install[575ae46f5d42]  [TIME]
        done h3  site/prune  [TIME]
        done h3  site/switch  [TIME]
        done h3  site/upload[575ae46f5d42]  [TIME]
        done page  [TIME]
    --- stderr
    rel: 1 ran, 0 up to date, in [TIME]
    rel: staging: 18 steps ran, 0 up to date, on 3 hosts
    ");
    assert_eq!(served(&hosts), ["good 1", "good 1", "good 1"]);
    assert_snapshot!(space.run(["staging"]).ok(), @"
    --- stderr
    rel: nothing to do, 1 target up to date, in [TIME]
    rel: staging: nothing to do, 18 steps up to date, on 3 hosts, 3 round trips
    ");

    space.write("page.in", "good 2\n");
    let _ = space.run(["staging"]).ok();
    assert_eq!(served(&hosts), ["good 2", "good 2", "good 2"]);
    let back = space.run(["staging", "--rollback"]).ok();
    assert_snapshot!(sorted(&back), @"
        back h1  /srv/site/current: releases/b5dfa1fac337 -> releases/575ae46f5d42
        back h2  /srv/site/current: releases/b5dfa1fac337 -> releases/575ae46f5d42
        back h3  /srv/site/current: releases/b5dfa1fac337 -> releases/575ae46f5d42
      undone h1  site/switch
      undone h2  site/switch
      undone h3  site/switch
    --- stderr
    rel: staging: rolled back, 3 steps undone, on 3 hosts
    ");
    assert_eq!(served(&hosts), ["good 1", "good 1", "good 1"]);
}

#[test]
fn a_failing_health_check_leaves_the_old_release_serving() {
    let hosts = Hosts::start(2);
    let space = site(&hosts, &hosts.kdl());
    let _ = space.run(["staging"]).ok();
    space.write("page.in", "bad\n");
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("health ", "within \"300ms\"\n        health "),
    );
    let failed = space.run(["staging"]);
    assert_eq!(served(&hosts), ["good 1", "good 1"]);
    assert_eq!(failed.code, 1, "{failed}");
    assert_snapshot!(sorted(&failed), @"
             h1 site/health[3f69d0882558]
             h2 site/health[3f69d0882558]
             | it did not hold within 1 s: tried [TIMES], last exit status 1
             | it did not hold within 1 s: tried [TIMES], last exit status 1
         run h1  site/announce  changed since run [RUN]
         run h1  site/health[3f69d0882558]  `upload` runs
         run h1  site/install[3f69d0882558]  `upload` runs
         run h1  site/upload[3f69d0882558]  never done here
         run h2  site/announce  changed since run [RUN]
         run h2  site/health[3f69d0882558]  `upload` runs
         run h2  site/install[3f69d0882558]  `upload` runs
         run h2  site/upload[3f69d0882558]  never done here
         run page  input `page.in` changed  570fa968671266cc 7 B -> d25ea0de69d4c2e9 4 B
        done h1  site/announce  [TIME]
        done h1  site/install[3f69d0882558]  [TIME]
        done h1  site/upload[3f69d0882558]  [TIME]
        done h2  site/announce  [TIME]
        done h2  site/install[3f69d0882558]  [TIME]
        done h2  site/upload[3f69d0882558]  [TIME]
        done page  [TIME]
      failed h1  site/health[3f69d0882558]  exit status 1
      failed h2  site/health[3f69d0882558]  exit status 1
      help: nothing had been switched; fix the error and run the same command again
      output  it did not hold within 1 s: tried [TIMES], last exit status 1
      status  1
    --- exit code 1
    --- stderr
    error: `staging` stopped: step `site/health[3f69d0882558]` failed on host `h1`
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    space.write("page.in", "good 3\n");
    let _ = space.run(["staging"]).ok();
    assert_eq!(served(&hosts), ["good 3", "good 3"]);
}

#[test]
fn a_step_that_fails_on_one_host_takes_the_others_back() {
    let hosts = Hosts::start(2);
    let space = site(&hosts, &hosts.kdl());
    let _ = space.run(["staging"]).ok();
    space.write("page.in", "good 2\n");
    // One host cannot take the new release.
    let releases = hosts.all[1].srv("site/releases");
    let aside = hosts.all[1].srv("site/aside");
    fs::rename(&releases, &aside).expect("renames");
    fs::write(&releases, "in the way").expect("writes");
    let failed = space.run(["staging"]);
    assert_eq!(failed.code, 1, "{failed}");
    fs::remove_file(&releases).expect("removes");
    fs::rename(&aside, &releases).expect("renames");
    assert_eq!(served(&hosts), ["good 1", "good 1"], "{failed}");
    let _ = space.run(["staging"]).ok();
    assert_eq!(served(&hosts), ["good 2", "good 2"]);
}

#[test]
fn what_was_switched_goes_back_when_a_later_step_fails() {
    let hosts = Hosts::start(2);
    let space = site(&hosts, &hosts.kdl());
    let text = space.read("Releasefile.kdl");
    let gate = "    use \"wait-for\" as=\"gate\" on=\"web\" command=\"test ! -e {host.root}/broken\" within=\"1s\"\n}";
    let at = text.trim_end().rfind('}').expect("an end");
    space.write("Releasefile.kdl", format!("{}{gate}\n", &text[..at]));
    let _ = space.run(["staging"]).ok();
    space.write("page.in", "good 2\n");
    fs::write(hosts.all[1].srv("broken"), "").expect("writes");
    // The gate is a step that the new release makes stale.
    let text = space.read("Releasefile.kdl");
    space.write(
        "Releasefile.kdl",
        text.replace("as=\"gate\"", "as=\"gate\" after=\"site\""),
    );
    let failed = space.run(["staging"]);
    assert_snapshot!(sorted(&failed), @"
             h2 gate/command
             | it did not hold within 1 s: tried [TIMES], last exit status 1
         run h1  gate/command  changed since run [RUN]
         run h1  site/announce  changed since run [RUN]
         run h1  site/health[b5dfa1fac337]  `upload` runs
         run h1  site/install[b5dfa1fac337]  `upload` runs
         run h1  site/prune  `switch` runs
         run h1  site/switch  changed since run [RUN]
         run h1  site/upload[b5dfa1fac337]  never done here
         run h2  gate/command  changed since run [RUN]
         run h2  site/announce  changed since run [RUN]
         run h2  site/health[b5dfa1fac337]  `upload` runs
         run h2  site/install[b5dfa1fac337]  `upload` runs
         run h2  site/prune  `switch` runs
         run h2  site/switch  changed since run [RUN]
         run h2  site/upload[b5dfa1fac337]  never done here
         run page  input `page.in` changed  570fa968671266cc 7 B -> f7c60320e43ed1ba 7 B
        done h1  gate/command  [TIME]
        done h1  site/announce  [TIME]
        done h1  site/health[b5dfa1fac337]  [TIME]
        done h1  site/install[b5dfa1fac337]  [TIME]
        done h1  site/prune  [TIME]
        done h1  site/switch  [TIME]
        done h1  site/upload[b5dfa1fac337]  [TIME]
        done h2  site/announce  [TIME]
        done h2  site/health[b5dfa1fac337]  [TIME]
        done h2  site/install[b5dfa1fac337]  [TIME]
        done h2  site/prune  [TIME]
        done h2  site/switch  [TIME]
        done h2  site/upload[b5dfa1fac337]  [TIME]
        done page  [TIME]
      failed h2  gate/command  exit status 1
      help: what was live on `h1` and `h2` is live there again; fix the error and run the same command again
      output  it did not hold within 1 s: tried [TIMES], last exit status 1
      status  1
      undone  2 steps
      undone h1  site/switch
      undone h2  site/switch
    --- exit code 1
    --- stderr
    error: `staging` stopped: step `gate/command` failed on host `h2`
    rel: 1 ran, 0 up to date, in [TIME]
    ");
    assert_eq!(failed.code, 1);
    assert_eq!(served(&hosts), ["good 1", "good 1"]);
}

/// Reads what is live as fast as it can while releases go there and back.
#[test]
fn there_is_no_gap_in_a_switch() {
    let hosts = Hosts::start(1);
    let space = site(&hosts, &hosts.kdl());
    let _ = space.run(["staging"]).ok();
    let live = hosts.all[0].srv("site/current/live");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
                seen.insert(fs::read_to_string(&live).unwrap_or_else(|e| e.to_string()));
            }
            seen
        });
        for round in 2..5 {
            space.write("page.in", format!("good {round}\n"));
            let _ = space.run(["staging"]).ok();
        }
        let _ = space.run(["staging", "--rollback"]).ok();
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        let seen = reader.join().expect("reads");
        assert!(
            seen.iter().all(|text| text.starts_with("good ")),
            "{seen:?}"
        );
        assert!(seen.len() > 1);
    });
}

/// A site whose installation takes until a file appears on the host.
fn slow_site(hosts: &Hosts) -> Space {
    let space = site(hosts, &hosts.kdl());
    let text = space.read("Releasefile.kdl").replace(
        "install \"cp artifact/page live\"",
        "install \"echo x >> {host.root}/tries; sleep 1000 & until test -e {host.root}/go; do sleep 0.05; done; kill $!; cp artifact/page live\"",
    );
    space.write("Releasefile.kdl", text);
    space
}

#[track_caller]
fn tries(hosts: &Hosts) -> usize {
    fs::read_to_string(hosts.all[0].srv("tries")).map_or(0, |t| t.lines().count())
}

#[test]
fn a_run_that_ends_early_ends_on_the_host_too_and_is_resumed() {
    let mut hosts = Hosts::start(1);
    let space = slow_site(&hosts);
    for (round, signal) in [(1, Signal::INT), (2, Signal::KILL)] {
        let job = space.begin(["staging"]);
        wait_until("the step on the host", || {
            (tries(&hosts) == round).then_some(())
        });
        job.signal(signal);
        let output = job.finish();
        let code = if signal == Signal::INT { 130 } else { 137 };
        assert_eq!(output.code, code, "{output}");
        // The lifeline: nothing of the step is left on the host, only its sshd.
        wait_until("the end of the step on the host", || {
            let sleeps = |pid: &i32| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.starts_with(b"sleep\0")
            };
            (!hosts.all[0].processes().iter().any(sleeps)).then_some(())
        });
        if round == 1 {
            assert_snapshot!(plain(&output), @"
            --- stderr
                 run page  never built here
                done page  [TIME]
            rel: 1 ran, 0 up to date, in [TIME]
                 run h1  site/announce  never done here
                done h1  site/announce  [TIME]
                 run h1  site/upload[ID]  never done here
                done h1  site/upload[ID]  [TIME]
                 run h1  site/install[ID]  `upload` runs
            error: interrupted
              host  h1
              step  site/install[ID]
              log   .rel/logs/staging.log
              help: the step and its processes were ended; the next run goes on there
            --- exit code 130
            ");
        }
    }
    fs::write(hosts.all[0].srv("go"), "").expect("writes");
    let resumed = space.run(["staging"]).ok();
    assert_eq!(served(&hosts), ["good 1"]);
    assert_snapshot!(plain(&resumed), @"
    --- stderr
    rel: nothing to do, 1 target up to date, in [TIME]
         run h1  site/install[ID]  did not finish last time
        done h1  site/install[ID]  [TIME]
         run h1  site/health[ID]  `install` runs
        done h1  site/health[ID]  [TIME]
         run h1  site/switch  never done here
        done h1  site/switch  [TIME]
         run h1  site/prune  `switch` runs
        done h1  site/prune  [TIME]
    rel: staging: 4 steps ran, 2 up to date, on 1 host
    ");
    // A host that starts anew knows what was done.
    hosts.reboot(0);
    let again = space.run(["staging"]).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
}

#[test]
fn a_host_with_a_changed_key_is_not_talked_to() {
    let mut hosts = Hosts::start(2);
    let space = site(&hosts, &hosts.kdl());
    let _ = space.run(["staging"]).ok();
    hosts.change_key(1);
    space.write("page.in", "good 2\n");
    let failed = space.run(["staging"]).fails(1);
    assert_snapshot!(plain(&failed), @r#"
    --- stderr
         run page  input `page.in` changed  570fa968671266cc 7 B -> f7c60320e43ed1ba 7 B
        done page  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: cannot reach host `h2`
      says  [FINGERPRINT]
            Please contact your system administrator.
            Add correct host key in [hosts]/known_hosts to get rid of this message.
            Offending ED25519 key in [hosts]/known_hosts:2
              remove with:
              ssh-keygen -f "[hosts]/known_hosts" -R "[127.0.0.1]:[PORT]"
            Host key for [127.0.0.1]:[PORT] has changed and you have requested strict checking.
            Host key verification failed.
      help: try `ssh -o IdentityFile=[hosts]/id -o IdentitiesOnly=yes -o UserKnownHostsFile=[hosts]/known_hosts -o GlobalKnownHostsFile=/dev/null -p [PORT] [USER]@127.0.0.1 true`
    --- exit code 1
    "#);
    assert_eq!(served(&hosts), ["good 1", "good 1"]);
}

#[test]
fn a_host_that_refuses() {
    let mut hosts = Hosts::start(2);
    let space = site(&hosts, &hosts.kdl());
    hosts.all[1].stop();
    let failed = space.run(["staging"]).fails(1);
    assert_snapshot!(plain(&failed), @"
    --- stderr
         run page  never built here
        done page  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: cannot reach host `h2`
      says  ssh: connect to host 127.0.0.1 port [PORT]: Connection refused
      help: try `ssh -o IdentityFile=[hosts]/id -o IdentitiesOnly=yes -o UserKnownHostsFile=[hosts]/known_hosts -o GlobalKnownHostsFile=/dev/null -p [PORT] [USER]@127.0.0.1 true`
    --- exit code 1
    ");
    assert_eq!(served(&hosts), ["nothing", "nothing"]);
}

#[test]
fn a_host_that_is_silent() {
    let hosts = Hosts::start(1);
    let silent = Silent::start();
    let nodes = format!(
        "{}host \"h9\" ssh=\"nobody@127.0.0.1\" port={} {{ option \"ConnectTimeout=1\"; }}\n",
        hosts.kdl(),
        silent.port()
    );
    let space = site(&hosts, &nodes);
    let text = space
        .read("Releasefile.kdl")
        .replace("group \"web\"", "group \"web\" \"h9\"");
    space.write("Releasefile.kdl", text);
    let failed = space.run(["staging"]).fails(1);
    assert_snapshot!(plain(&failed), @"
    --- stderr
         run page  never built here
        done page  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: cannot reach host `h9`
      says  Connection timed out during banner exchange
            Connection to 127.0.0.1 port [PORT] timed out
      help: try `ssh -o ConnectTimeout=1 -p [PORT] [USER]@127.0.0.1 true`
    --- exit code 1
    ");
    assert_eq!(served(&hosts), ["nothing"]);
}

#[test]
fn a_host_that_nobody_knows() {
    let hosts = Hosts::start(1);
    let nodes = format!(
        "{}host \"h9\" ssh=\"nobody@no-such-host.invalid\" port={}\n",
        hosts.kdl(),
        free_port()
    );
    let space = site(&hosts, &nodes);
    let text = space
        .read("Releasefile.kdl")
        .replace("group \"web\"", "group \"web\" \"h9\"");
    space.write("Releasefile.kdl", text);
    let failed = space.run(["staging"]).fails(1);
    assert_snapshot!(plain(&failed), @"
    --- stderr
         run page  never built here
        done page  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: cannot reach host `h9`
      says  ssh: Could not resolve hostname no-such-host.invalid: Name or service not known
      help: try `ssh -p [PORT] nobody@no-such-host.invalid true`
    --- exit code 1
    ");
    assert_eq!(served(&hosts), ["nothing"]);
}

#[test]
fn a_key_that_the_host_does_not_take() {
    let hosts = Hosts::start(1);
    let space = site(&hosts, "");
    let node = hosts.kdl().replace("/id\"", "/none\"");
    let text = space.read("Releasefile.kdl");
    space.write("Releasefile.kdl", format!("{node}{text}"));
    let failed = space.run(["staging"]).fails(1);
    assert_snapshot!(plain(&failed), @"
    --- stderr
         run page  never built here
        done page  [TIME]
    rel: 1 ran, 0 up to date, in [TIME]
    error: cannot reach host `h1`
      says  no such identity: [hosts]/none: No such file or directory
            [USER]@127.0.0.1: Permission denied (publickey,keyboard-interactive).
      help: try `ssh -o IdentityFile=[hosts]/none -o IdentitiesOnly=yes -o UserKnownHostsFile=[hosts]/known_hosts -o GlobalKnownHostsFile=/dev/null -p [PORT] [USER]@127.0.0.1 true`
    --- exit code 1
    ");
}

/// Returns an output without ports, keys, ids and the person that runs the tests.
fn plain(output: &Output) -> String {
    let port = regex::Regex::new(r"(\bport |-p |\]:)\d{4,5}\b").expect("a pattern");
    let dir = regex::Regex::new(r#"/[^\s"=]*/rel-hosts-\w+"#).expect("a pattern");
    let key = regex::Regex::new(r"SHA256:\S+").expect("a pattern");
    let user = regex::Regex::new(r"[\w-]+@127\.0\.0\.1").expect("a pattern");
    // The release's id holds what is done on the host, with the host's own directory.
    let id = regex::Regex::new(r"\[[0-9a-f]{12}\]").expect("a pattern");
    let text = output.to_string();
    let text = port.replace_all(&text, "$1[PORT]");
    let text = dir.replace_all(&text, "[hosts]");
    let text = user.replace_all(&text, "[USER]@127.0.0.1");
    let text = id.replace_all(&text, "[ID]");
    key.replace_all(&text, "[FINGERPRINT]").into_owned()
}

/// A server with three connections that have not logged in refuses all others.
#[test]
fn many_hosts_behind_a_server_that_refuses_some_are_all_done_once() {
    const COUNT: usize = 24;
    let mut hosts = Hosts::start(1);
    hosts.configure(0, "MaxStartups 3:100:3\nLogLevel VERBOSE");
    let node = hosts.node(&hosts.all[0], "");
    let nodes = (1..=COUNT).map(|number| {
        // Each needs a connection of its own.
        let own = format!("option \"SetEnv=NUMBER={number}\"\n}}");
        let root = hosts.root(&hosts.all[0]);
        let node = node.replacen("\"h1\"", &format!("\"m{number}\""), 1);
        let node = node.replacen(
            &format!("root=\"{root}\""),
            &format!("root=\"{root}/{number}\""),
            1,
        );
        node.trim_end().trim_end_matches('}').to_owned() + &own + "\n"
    });
    let space = Space::new(&format!(
        "{}environment \"e\" {{\n connections {COUNT}\n use \"once\" on=\"m[1-{COUNT}]\"\n}}\n",
        nodes.collect::<String>()
    ));
    space.write(
        "recipes/once.kdl",
        "recipe \"once\" { step \"add\" undo=#false { run \"echo done >>done\"; } }",
    );
    let output = space.run(["e"]).ok();
    let refused = hosts.all[0].log().matches("MaxStartups").count();
    assert!(
        refused > 0,
        "nobody was refused: {output}\n{}",
        hosts.all[0].log()
    );
    for number in 1..=COUNT {
        let done = hosts.all[0].srv(format!("{number}/done"));
        let done = std::fs::read_to_string(done).expect("is there");
        assert_eq!(done, "done\n", "m{number}");
    }
    let _ = space.run(["e"]).ok();
}

/// A database is made once: no other text of the step, no `--force` and no change before it makes
/// it anew, but its loss does.
#[test]
fn what_is_to_be_done_once_is_not_done_again() {
    let space = Space::with_steps(
        r#"
    step "before" { write "{host.root}/before" "{v}"; }
    step "create" once=#true { check "test -e base"; run "echo {v} >base; echo made >>log"; }
    step "after" on-change="create" { run "echo after >>log"; }
"#,
    );
    let log = || space.read("hosts/h/log");
    let _ = space.run(["e"]).ok();
    assert_eq!(log(), "made\nafter\n");
    let _ = space.run(["e", "--var", "v=2"]).ok();
    assert_eq!(log(), "made\nafter\n");
    let _ = space.run(["e", "--var", "v=2", "--force"]).ok();
    assert_eq!(log(), "made\nafter\nafter\n");
    space.remove("hosts/h/base");
    let _ = space.run(["e", "--var", "v=2"]).ok();
    assert_eq!(log(), "made\nafter\nafter\nmade\nafter\n");
    // Nor where all steps of a recipe are done whenever one is: its texts name the run.
    let whole = Space::with_steps(
        r#"
    step "create" once=#true { check "test -e base"; run "echo made >>log; touch base"; }
    step "name" { run "echo {run-id} {v} >name"; }
"#,
    );
    for v in ["v=1", "v=2"] {
        let _ = whole.run(["e", "--var", v]).ok();
    }
    let _ = whole.run(["e", "--force"]).ok();
    assert_eq!(whole.read("hosts/h/log"), "made\n");
    // What somebody else has made is adopted.
    let other = Space::with_steps(
        r#"step "create" once=#true { check "test -e base"; run "echo {v} >>log"; }"#,
    );
    other.write("hosts/h/base", "");
    let _ = other.run(["e"]).ok();
    assert!(!other.has("hosts/h/log"));
    let wrong = Space::with_steps(r#"step "create" once="yes" { run "true"; }"#);
    let _ = wrong.run(["check"]).fails(2);
}
