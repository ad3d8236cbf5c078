//! Steps that go on without `rel`: joined by the next run, never begun twice, their log and
//! exit code never lost; ended by a person, by a time limit, by a way back.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use regex::Regex;
use rustix::process::Signal;

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

fn lines(host: &Host, file: impl AsRef<Path>) -> Vec<String> {
    let text = fs::read_to_string(host.srv(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Returns the events of the host's journal that tell of one step, with their details.
fn told(host: &Host, step: &str) -> Vec<String> {
    let lines = lines(host, ".rel/staging/journal");
    let columns = lines
        .iter()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let own = columns.filter(|c| c[5] == step);
    own.map(|c| match c[1] {
        // How long it took.
        "done" => String::from(c[1]),
        _ => format!("{} {}", c[1], c[8]).replace(" -", ""),
    })
    .collect()
}

/// Returns what was printed, without what differs from run to run.
fn shown(text: &str) -> String {
    let filters = [
        (r"\b[0-9a-f]{8}-[0-9a-f]{1,8}\b", "[RUN]"),
        (r"since \d+\w+( \d+\w+)?", "since [TIME]"),
        (r"\d+\w+( \d+\w+)? ago", "[TIME] ago"),
    ];
    filters.iter().fold(text.to_owned(), |text, (from, to)| {
        let pattern = Regex::new(from).expect("a pattern");
        pattern.replace_all(&text, *to).into_owned()
    })
}

/// Starts a run and returns when its copy is at work on all hosts.
fn at_work<'a>(space: &'a Space, hosts: &Hosts) -> Job<'a> {
    let before: Vec<usize> = hosts.all.iter().map(|h| lines(h, "tried").len()).collect();
    let job = space.begin(["staging"]);
    for (host, before) in hosts.all.iter().zip(before) {
        wait_until("the copy", || {
            let is_begun = lines(host, "tried").len() > before && !lines(host, "pids").is_empty();
            is_begun.then_some(())
        });
        // The run has heard of it, too.
        let heard = format!("{} copy/copy", host.name);
        wait_until("its output", || job.stderr().contains(&heard).then_some(()));
    }
    job
}

/// Waits until a host's guard has left: nobody holds its lease.
fn left(host: &Host) {
    wait_until("the end of the guard", || {
        (!host.srv(".rel/staging/lease").exists()).then_some(())
    });
}

fn go(host: &Host) {
    fs::write(host.srv("go"), "").expect("writes");
}

#[test]
fn a_killed_run_leaves_it_at_work_and_the_next_one_joins() {
    let hosts = Hosts::start(1);
    let host = &hosts.all[0];
    let space = checkout(&hosts);
    let job = at_work(&space, &hosts);
    job.signal(Signal::KILL);
    let _ = job.finish().fails(137);
    left(host);
    assert_eq!(told(host, "copy/copy"), ["start", "detached"]);
    assert_snapshot!(shown(&space.run(["staging", "--plan"]).ok().stdout), @"
    h1  copy (copy)
          run  copy        echo begun; echo begun >> tried  runs detached since [TIME], no estimate: never ran to its end before
          run  after       echo after >> '/srv'/order  `copy` runs
    staging: 2 steps would run, 1 fresh, on 1 host
    ");
    let job = space.begin(["staging"]);
    wait_until("the log from its begin", || {
        job.stderr().contains("| begun").then_some(())
    });
    go(host);
    let output = job.finish().ok();
    assert_snapshot!(shown(&output.stderr), @"
         run h1  copy/copy  runs detached since [TIME], no estimate: never ran to its end before
             h1 copy/copy
             | begun
             | ended
        done h1  copy/copy  [TIME]
         run h1  copy/after  `copy` runs
        done h1  copy/after  [TIME]
    rel: staging: 2 steps ran, 1 fresh, on 1 host
    ");
    assert_eq!(lines(host, "tried"), ["begun"]);
    assert_eq!(lines(host, "order"), ["before", "verified", "after"]);
    assert_eq!(
        told(host, "copy/copy"),
        ["start", "detached", "start", "done"]
    );
    let _ = space.run(["staging"]).ok();
    assert_eq!(lines(host, "tried"), ["begun"]);
}
