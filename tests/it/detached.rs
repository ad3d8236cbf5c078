//! Steps that go on without `rel`: joined by the next run, never begun twice, their log and
//! exit code never lost; ended by a person, by a time limit, by a rollback.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::filters::{RUN, replaced};
use crate::hosts::{Host, Hosts};
use crate::space::{Job, Space, wait_until};

/// Goes on until the file `go` is there, and then ends with the exit code in `code`.
const COPY: &str = r#"
            echo begun; echo begun >> tried
            sleep 1000 & child=$!
            echo $$ $child > pids
            until test -e go; do sleep 0.02; done
            kill $child
            echo ended
            exit "$(cat code)"
"#;

fn recipe(copy: &str, properties: &str) -> String {
    format!(
        r##"recipe "copy" {{
    step "before" {{ run "echo before >> {{host.root}}/order" }}
    step "copy" detach=#true {properties} {{
        dir "{{host.root}}"
        run #"""{copy}            """#
        verify "echo verified >> order"
        undo "echo undone >> order"
    }}
    step "after" on-change="copy" {{ run "echo after >> {{host.root}}/order" }}
}}
"##
    )
}

/// A checkout whose environment copies on all hosts.
fn checkout(hosts: &Hosts) -> Space {
    let names: Vec<&str> = hosts.all.iter().map(|h| h.name.as_str()).collect();
    let space = Space::new(&format!(
        "{}environment \"staging\" {{\n    use \"copy\" on=\"{}\"\n}}\n",
        hosts.kdl(),
        names.join(" ")
    ));
    space.write("recipes/copy.kdl", recipe(COPY, ""));
    for host in &hosts.all {
        fs::write(host.srv("code"), "0\n").expect("writes");
    }
    space
}

/// Returns the events of the host's journal that tell of one step, with their details.
fn told(host: &Host, step: &str) -> Vec<String> {
    let lines = host.lines(".rel/staging/journal");
    let columns = lines
        .iter()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let own = columns.filter(|c| c[5] == step);
    own.map(|c| match c[1] {
        // Where it stands in the run, and how long it took.
        "start" | "done" => String::from(c[1]),
        _ => format!("{} {}", c[1], c[8]).replace(" -", ""),
    })
    .collect()
}

/// Returns what was printed, without what differs from run to run.
fn shown(text: &str) -> String {
    let patterns = [
        RUN,
        (r"since \d+\w+( \d+\w+)?", "since [TIME]"),
        (r"\d+\w+( \d+\w+)? ago", "[TIME] ago"),
    ];
    replaced(text, &patterns)
}

/// Starts a run and returns when its copy is at work on all hosts.
fn at_work<'a>(space: &'a Space, hosts: &Hosts) -> Job<'a> {
    let before: Vec<usize> = hosts.all.iter().map(|h| h.lines("tried").len()).collect();
    let job = space.begin(["staging"]);
    for (host, before) in hosts.all.iter().zip(before) {
        wait_until("the copy", || {
            let is_begun = host.lines("tried").len() > before && !host.lines("pids").is_empty();
            is_begun.then_some(())
        });
        // The run has heard of it, too.
        let heard = format!("{} copy/copy", host.name);
        wait_until("its output", || job.stderr().contains(&heard).then_some(()));
    }
    job
}

/// Kills the run at work on `host`; what it detached stays.
fn killed(job: Job, host: &Host) {
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    left(host);
}

/// Waits until a host's guard has left: nobody holds its lease.
fn left(host: &Host) {
    wait_until("the end of the guard", || {
        (!host.srv(".rel/staging/lease").exists()).then_some(())
    });
}

/// Waits until nothing of the copy is left; their numbers mean something on the host alone.
#[track_caller]
fn all_ended(hosts: &Hosts, space: &Space, host: &Host) {
    let pids = host.lines("pids").join(" ");
    assert!(!pids.is_empty());
    let script = format!(
        "for p in {pids}; do sed -n '/^State:.Z/!s/^State:/&/p' /proc/$p/status 2>/dev/null; done; :"
    );
    wait_until("the end of the copy", || {
        let said = hosts.ssh(space, host, &script).ok().stdout;
        said.is_empty().then_some(())
    });
}

fn go(host: &Host) {
    fs::write(host.srv("go"), "").expect("writes");
}

/// How long it has been at work changes every second, and is no reason to refuse the plan.
#[test]
fn a_saved_plan_joins_what_goes_on_meanwhile() {
    let hosts = Hosts::start(1);
    let space = checkout(&hosts);
    let host = &hosts.all[0];
    killed(at_work(&space, &hosts), host);
    let plan = space.run(["staging", "--plan-out", "plan.json"]).ok();
    assert!(plan.stdout.contains("runs detached since"), "{plan}");
    assert!(
        space
            .read("plan.json")
            .contains("runs detached, or has ended")
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let held = space.run(["apply", "plan.json", "--plan"]).ok();
    assert!(held.stderr.contains("this plan still holds"), "{held}");
    fs::write(host.srv("go"), "").expect("writes");
    let _ = space.run(["apply", "plan.json"]).ok();
    assert_eq!(host.lines("tried").len(), 1);
    assert_eq!(host.lines("order"), ["before", "verified", "after"]);
}

#[test]
fn a_killed_run_leaves_it_at_work_and_the_next_one_joins() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    killed(at_work(&space, &hosts), host);
    assert_eq!(told(host, "copy/copy"), ["start", "detached"]);
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok().stdout), @"
    h1  copy (copy)
          run  copy        echo begun; echo begun >> tried  runs detached since [TIME], no estimate: it never finished before
          run  after       echo after >> '/srv'/order  `copy` runs
    copy  rollback: copy; no rollback: after
    staging: 2 steps would run, 1 up to date, on 1 host
    ");
    let job = space.begin(["staging"]);
    wait_until("the log from its begin", || {
        job.stderr().contains("| begun").then_some(())
    });
    go(host);
    let output = job.finish().ok();
    assert_snapshot!(shown(&output.stderr), @"
         run h1  copy/copy  runs detached since [TIME], no estimate: it never finished before
             h1 copy/copy
             | begun
             | ended
        done h1  copy/copy  [TIME]
         run h1  copy/after  `copy` runs
        done h1  copy/after  [TIME]
    rel: staging: 2 steps ran, 1 up to date, on 1 host
    ");
    assert_eq!(host.lines("tried"), ["begun"]);
    assert_eq!(host.lines("order"), ["before", "verified", "after"]);
    assert_eq!(
        told(host, "copy/copy"),
        ["start", "detached", "start", "done"]
    );
    let _ = space.run(["staging"]).ok();
    assert_eq!(host.lines("tried"), ["begun"]);
}

#[test]
fn ctrl_c_says_that_it_goes_on_and_an_end_that_nobody_saw_is_taken_over() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    let job = at_work(&space, &hosts);
    job.signal(Signal::INT);
    assert_snapshot!(shown(&job.finish().fails(130).stderr), @"
         run h1  copy/before  never done here
        done h1  copy/before  [TIME]
         run h1  copy/copy  never done here
             h1 copy/copy
             | begun
    error: interrupted
      host  h1
      step  copy/copy
      log   .rel/logs/staging.log
      help: it goes on there: `rel attach staging` follows it, and `rel staging` joins it
    ");
    left(host);
    go(host);
    wait_until("the end of the copy", || {
        let dirs = fs::read_dir(host.srv(".rel/staging/detached")).expect("lists");
        let mut dirs = dirs.flatten();
        dirs.any(|d| d.path().join("status").exists()).then_some(())
    });
    let plan = shown(&space.run(["staging", "--plan"]).ok().stdout);
    assert!(
        plan.contains("ended detached [TIME] ago, exit status 0"),
        "{plan}"
    );
    let output = space.run(["staging"]).ok();
    assert!(output.stderr.contains("| ended"), "{output}");
    assert_eq!(host.lines("tried"), ["begun"]);
    assert_eq!(host.lines("order"), ["before", "verified", "after"]);
}

#[test]
fn an_exit_code_is_not_lost() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    fs::write(host.srv("code"), "3\n").expect("writes");
    killed(at_work(&space, &hosts), host);
    go(host);
    // Told once, however often it is asked for.
    let attached = space.run(["attach", "staging"]).fails(3);
    assert_snapshot!(shown(&attached.to_string()), @"
    h1  copy/copy  begun
    h1  copy/copy  ended
    --- stderr
    rel: h1  copy/copy  ended with exit status 3
    --- exit code 3
    ");
    let _ = space.run(["attach", "staging"]).fails(3);
    assert_snapshot!(shown(&space.run(["staging"]).fails(1).stderr), @"
         run h1  copy/copy  ended detached [TIME] ago, exit status 3
             h1 copy/copy
             | begun
             | ended
      failed h1  copy/copy  exit status 3
      undone h1  copy/copy
    error: `staging` stopped: step `copy/copy` failed on host `h1`
      status       3
      output       begun
                   ended
      undone       1 step
      no rollback  copy/before on h1
      help: the other steps were rolled back; fix the error and run the same command again
    ");
    assert_eq!(
        told(host, "copy/copy"),
        [
            "start", "detached", "ended 3", "start", "failed 3", "undone"
        ]
    );
    assert_eq!(host.lines("order"), ["before", "undone"]);
    assert_snapshot!(space.run(["attach", "staging"]).ok(), @"
    --- stderr
    rel: no detached step runs on the hosts of `staging`
    ");
    // And then it is done anew.
    fs::write(host.srv("code"), "0\n").expect("writes");
    let _ = space.run(["staging"]).ok();
    assert_eq!(host.lines("tried"), ["begun", "begun"]);
}

#[test]
fn a_host_that_is_started_anew_takes_it_with_it() {
    let mut hosts = Hosts::start(1);
    let space = checkout(&hosts);
    let job = at_work(&space, &hosts);
    hosts.reboot(0);
    let output = job.finish().fails(1);
    assert!(
        output.stderr.contains("the connection to host `h1` ended"),
        "{output}"
    );
    let host = &hosts.all[0];
    let plan = space.run(["staging", "--plan"]).ok().stdout;
    assert!(plan.contains("runs again"), "{plan}");
    if hosts.is_private() {
        assert!(
            plan.contains("was ended by a restart of its host"),
            "{plan}"
        );
    }
    let attached = space.run(["attach", "staging"]).fails(1);
    assert!(attached.stderr.contains("copy/copy"), "{attached}");
    go(host);
    let _ = space.run(["staging"]).ok();
    assert_eq!(host.lines("tried"), ["begun", "begun"]);
    assert_eq!(host.lines("order"), ["before", "verified", "after"]);
}

#[test]
fn what_a_killed_keeper_leaves_is_ended_before_it_begins_anew() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    let job = at_work(&space, &hosts);
    let root = hosts.root(host);
    let script = format!("read -r p b <{root}/.rel/staging/detached/copy*/pid && kill -KILL $p");
    let _ = hosts.ssh(&space, host, &script).ok();
    // A user who follows it sees that, and the rollback ends what was left.
    let output = job.finish().fails(1);
    assert!(
        output.stderr.contains("it was killed, at an unknown point"),
        "{output}"
    );
    let job = at_work(&space, &hosts);
    let old = host.lines("pids");
    killed(job, host);
    let _ = hosts.ssh(&space, host, &script).ok();
    let plan = space.run(["staging", "--plan"]).ok().stdout;
    assert!(plan.contains("was killed on its host"), "{plan}");
    let job = at_work(&space, &hosts);
    wait_until("its own numbers", || {
        (host.lines("pids") != old).then_some(())
    });
    let new = host.lines("pids");
    fs::write(host.srv("pids"), old.join("\n")).expect("writes");
    all_ended(&hosts, &space, host);
    fs::write(host.srv("pids"), new.join("\n")).expect("writes");
    go(host);
    let _ = job.finish().ok();
    all_ended(&hosts, &space, host);
    assert_eq!(host.lines("tried").len(), 3);
}

#[test]
fn an_sshd_that_is_started_anew_does_not_end_it() {
    let hosts = Hosts::start(2);
    let space = checkout(&hosts);
    let job = at_work(&space, &hosts);
    hosts.restart_sshd(1);
    left(&hosts.all[1]);
    // The others come to their end first.
    go(&hosts.all[0]);
    let output = job.finish().fails(1);
    assert!(
        output.stderr.contains("the connection to host `h2` ended"),
        "{output}"
    );
    assert_eq!(told(&hosts.all[0], "copy/copy"), ["start", "done"]);
    assert_eq!(told(&hosts.all[1], "copy/copy"), ["start", "detached"]);
    let job = space.begin(["staging"]);
    wait_until("its output", || {
        job.stderr().contains("h2 copy/copy").then_some(())
    });
    go(&hosts.all[1]);
    let _ = job.finish().ok();
    for host in &hosts.all {
        assert_eq!(host.lines("tried"), ["begun"]);
        assert_eq!(host.lines("order"), ["before", "verified", "after"]);
    }
}

#[test]
fn nothing_else_is_done_on_its_host() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    killed(at_work(&space, &hosts), host);
    let other = COPY.replace("echo ended", "echo ended otherwise");
    space.write("recipes/copy.kdl", recipe(&other, ""));
    assert_snapshot!(shown(&space.run(["staging"]).fails(1).stderr), @"
    error: `copy/copy` runs detached on host `h1`, and differs from the action that would run now
      since  [TIME] ago
      help: `rel attach staging` waits for its end, `rel attach staging --stop` ends it; then run the same command again
    ");
    let plan = shown(&space.run(["staging", "--plan"]).ok().stdout);
    assert!(
        plan.contains("nothing is changed there before it ends"),
        "{plan}"
    );
    // A step of another name is another change, too.
    let renamed = recipe(COPY, "").replace("step \"copy\"", "step \"dump\"");
    space.write(
        "recipes/copy.kdl",
        renamed.replace("on-change=\"copy\"", "on-change=\"dump\""),
    );
    let output = space.run(["staging"]).fails(1);
    assert!(
        output.stderr.contains("is not a step of the current plan"),
        "{output}"
    );
    assert_snapshot!(space.run(["attach", "staging", "--stop"]).ok(), @"
    --- stderr
    rel: h1  copy/copy  stopped, exit status 143
    ");
    all_ended(&hosts, &space, host);
    assert_eq!(
        told(host, "copy/copy"),
        ["start", "detached", "stopped 143"]
    );
    go(host);
    let _ = space.run(["staging"]).ok();
    assert_eq!(host.lines("tried"), ["begun", "begun"]);
}

#[test]
fn a_way_back_ends_it_first() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    killed(at_work(&space, &hosts), host);
    let _ = space.run(["staging", "--rollback"]).ok();
    all_ended(&hosts, &space, host);
    assert_eq!(host.lines("order"), ["before", "undone"]);
    assert_eq!(told(host, "copy/copy"), ["start", "detached", "undone"]);
    assert_snapshot!(space.run(["attach", "staging"]).ok(), @"
    --- stderr
    rel: no detached step runs on the hosts of `staging`
    ");
}

#[test]
fn a_time_limit_holds_also_when_nobody_looks() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    let limited = recipe(COPY, "").replace("verify", "timeout \"2s\"\n        verify");
    space.write("recipes/copy.kdl", limited);
    let job = space.begin(["staging"]);
    wait_until("the copy", || {
        (!host.lines("pids").is_empty()).then_some(())
    });
    // Where the machine is slow, the run may have come to its end with the limit.
    let _ = rustix::process::kill_process(job.pid(), Signal::KILL);
    let output = job.finish();
    let said = match output.code {
        137 => space.run(["attach", "staging"]).fails(143).stdout,
        _ => output.fails(1).stderr,
    };
    assert!(
        said.contains("it took longer than 2 s and is ended"),
        "{said}"
    );
    all_ended(&hosts, &space, host);
}

#[test]
fn it_runs_as_another_user_and_is_ended_with_all_that_is_theirs() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    let user = match rustix::process::getuid().is_root() {
        true => String::from("nobody"),
        false => space.shell("id -un").trim().to_owned(),
    };
    let theirs = COPY.replace("echo begun >>", "id -un >>");
    let recipe = recipe(&theirs, &format!("as=\"{user}\""));
    space.write("recipes/copy.kdl", recipe);
    fs::set_permissions(host.srv("."), fs::Permissions::from_mode(0o1777)).expect("sets");
    fs::write(host.srv("order"), "").expect("writes");
    fs::set_permissions(host.srv("order"), fs::Permissions::from_mode(0o666)).expect("sets");
    killed(at_work(&space, &hosts), host);
    let _ = space.run(["attach", "staging", "--stop"]).ok();
    all_ended(&hosts, &space, host);
    killed(at_work(&space, &hosts), host);
    go(host);
    let _ = space.run(["staging"]).ok();
    assert_eq!(host.lines("tried"), [user.as_str(), &user]);
    assert_eq!(host.lines("order"), ["before", "verified", "after"]);
}

#[test]
fn only_commands_can_be_detached() {
    let space = Space::new("environment \"staging\" {\n    use \"copy\"\n}\n");
    space.write(
        "recipes/copy.kdl",
        "recipe \"copy\" {\n    step \"link\" detach=#true {\n        symlink \"a\" to=\"b\"\n    }\n}\n",
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::detached_step

      × step `link` cannot be detached
       ╭─[recipes/copy.kdl:2:10]
     2 │     step "link" detach=#true {
       ·          ───┬──
       ·             ╰── only `run` can be detached
       ╰────
    "#);
}

/// A host that does not answer may have something at work: no message may say that it has not.
#[test]
fn what_goes_on_on_a_host_that_is_not_reached_is_not_denied() {
    let hosts = Hosts::start(2);
    let space = checkout(&hosts);
    let there = space.read("Releasefile.kdl");
    let one = there.replacen(" on=\"h1 h2\"", " on=\"h1\"", 1);
    let away = |text: &str, number: usize| {
        let port = format!("port={} ", hosts.all[number].port);
        assert!(text.contains(&port));
        text.replacen(&port, "port=1 ", 1)
    };
    space.write("Releasefile.kdl", &one);
    let job = space.begin(["staging"]);
    wait_until("the copy", || {
        (!hosts.all[0].lines("pids").is_empty()).then_some(())
    });
    killed(job, &hosts.all[0]);
    let unknown = "rel: h1  does not answer: its detached steps are unknown";
    for (text, others) in [
        (away(&one, 0), "rel: detached steps are unknown"),
        (
            away(&there, 0),
            "rel: no detached step runs on the other hosts of `staging`",
        ),
    ] {
        space.write("Releasefile.kdl", text);
        for args in [&["attach", "staging"][..], &["attach", "staging", "--stop"]] {
            let told = space.run(args).fails(1);
            assert!(told.stderr.contains(unknown), "{told}");
            assert!(told.stderr.contains(others), "{told}");
            let nothing = "no detached step runs on the hosts";
            assert!(!told.stderr.contains(nothing), "{told}");
        }
        let told = space.run(["history", "staging"]).fails(1);
        assert!(told.stdout.contains("down  h1  "), "{told}");
        assert!(
            !told.stdout.contains("no run is recorded on the hosts"),
            "{told}"
        );
        let told = space.run(["--json", "attach", "staging"]).fails(1);
        assert_eq!(told.stdout.trim(), "[]", "{told}");
        assert!(told.stderr.contains("host `h1` does not answer"), "{told}");
    }
    // What is followed on one host says nothing of the other one.
    space.write("Releasefile.kdl", away(&there, 1));
    go(&hosts.all[0]);
    let told = space.run(["attach", "staging"]).fails(1);
    assert!(told.stderr.contains("h1  copy/copy  succeeded"), "{told}");
    assert!(told.stderr.contains("rel: h2  does not answer"), "{told}");
    let told = space.run(["history", "staging"]).ok();
    assert!(told.stdout.contains("down  h2  "), "{told}");
}
