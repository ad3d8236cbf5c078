//! Hosts that print more than anybody reads: before their first answer, as an answer, as the
//! output of a step, on standard error. No host costs `rel` more than a few MiB, or an end.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::space::{Output, Space};

/// KiB of memory that output may cost `rel`.
const COSTS_MAX: u64 = 20 << 10;

/// Returns a checkout whose environment `e` has these recipe nodes, on one host of this machine.
fn local(nodes: &str) -> Space {
    let space = Space::new(
        "host \"h\" local=#true root=\"host\"\nenvironment \"e\" { use \"u\" on=\"h\"; }\n",
    );
    space.write("recipes/u.kdl", format!("recipe \"u\" {{\n{nodes}\n}}\n"));
    space
}

/// Runs `rel e` with an `ssh` that is this script.
fn over(script: &str) -> Output {
    let space = local("step \"s\" { run \"true\"; }");
    space.write(
        "Releasefile.kdl",
        "host \"h\" ssh=\"me@h\" root=\"/srv\"\nenvironment \"e\" { use \"u\" on=\"h\"; }\n",
    );
    space.write("ssh", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(space.path("ssh"), fs::Permissions::from_mode(0o755)).expect("sets");
    let mut rel = space.rel(["-q", "e"]);
    rel.env("REL_SSH", space.path("ssh"));
    space.finish(&mut rel)
}

#[test]
fn what_a_host_prints_instead_of_an_answer_is_shown() {
    assert_snapshot!(over("echo 'Please log in as `deploy`.'; exit 1"), @"
    --- stderr
    error: cannot reach host `h`
      printed  Please log in as `deploy`.
      status   1
      help: try `ssh me@h true`
    --- exit code 1
    ");
    assert_snapshot!(over("exec yes greetings"), @"
    --- stderr
    error: host `h` sends endless output instead of an answer
      printed  greetings
               greetings
               greetings
               greetings
               greetings
               greetings
               greetings
               greetings
      help: check the start-up files of its login shell: `ssh me@h true`
    --- exit code 1
    ");
    assert_snapshot!(over("yes err >&2; exit 1"), @"
    --- stderr
    error: host `h` sends endless output on standard error
      says  err
            err
            err
            err
            err
            err
            err
            err
      help: try `ssh me@h true`
    --- exit code 1
    ");
    let output = over("exec cat /dev/zero").fails(1);
    assert!(output.stderr.contains("sends endless output"), "{output}");
}

#[test]
fn what_a_host_prints_costs_little_memory() {
    let memory = |nodes: &str| local(nodes).peak(&["-q", "e"], true);
    let (least, output) = memory("step \"s\" { run \"true\"; }");
    let _ = output.ok();
    // Each costs that much if it is kept.
    let print = "yes 'some words to print' | head -c 30000000";
    for (nodes, code) in [
        (format!("step \"s\" {{ run \"{print}\"; }}"), 0),
        (format!("step \"s\" {{ run \"{print}; exit 1\"; }}"), 1),
        (
            "step \"s\" { run \"head -c 200000000 /dev/zero\"; }".to_owned(),
            0,
        ),
        (
            format!(
                "step \"s\" {{ run \"true\"; undo \"{print}\"; }}\nstep \"t\" {{ run \"exit 1\"; }}"
            ),
            1,
        ),
        (
            format!("fact \"f\" \"{print}\"\nstep \"s\" {{ run \"echo {{f}}\"; }}"),
            1,
        ),
        (
            format!("guard \"g\" \"{print}; exit 1\"\nstep \"s\" {{ run \"true\"; }}"),
            1,
        ),
        (
            format!("step \"s\" {{ check \"{print}; false\"; run \"true\"; }}"),
            1,
        ),
    ] {
        let (most, output) = memory(&nodes);
        assert_eq!(output.code, code, "{nodes}: {output}");
        let costs = most.saturating_sub(least);
        assert!(costs <= COSTS_MAX, "{nodes}: {costs} KiB");
        assert!(output.stderr.len() < 100_000, "{nodes}");
    }
}
