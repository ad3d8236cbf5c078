//! Rollouts: hosts that move in waves, gates between them, hosts that fail or stay behind.

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::{Ends, Output, Space, wait_until};

/// Hosts `px1` to `px5` on which a version is written, said in a common log, and asked for
/// by a gate. `nodes` are properties of the rollout.
fn fleet(nodes: &str) -> Space {
    let hosts: String = (1..=5)
        .map(|n| format!("host \"px{n}\" local=#true root=\"hosts/px{n}\"\n"))
        .collect();
    let space = Space::new(&format!(
        r#"
{hosts}
group "ops" "px[1-5]"
var "v" "1"
environment "production" {{
    rollout "upgrade" on="ops" {nodes} {{
        use "app" version="{{v}}"
        use "note" after="app" text="up {{host.name}}"
        gate "note" as="gate" text="gate {{host.name}}" if-there="{{host.root}}/../../healthy"
    }}
}}
"#
    ));
    space.write(
        "recipes/app.kdl",
        r#"recipe "app" {
    param "version"
    step "write" { write "{host.root}/version" "{version}\n"; verify "test ! -e ../../broken-{host.name}"; }
}"#,
    );
    space.write(
        "recipes/note.kdl",
        r#"recipe "note" {
    param "text"
    param "if-there" default="/"
    step "note" { run "test -e {if-there} && echo {text} >> ../../order" }
}"#,
    );
    space.write("healthy", "");
    space
}

/// Returns the version on each host.
fn versions(space: &Space) -> String {
    let read = |n| std::fs::read_to_string(space.path(format!("hosts/px{n}/version")));
    let versions = (1..=5).map(|n| read(n).unwrap_or_else(|_| "-".into()).trim().to_owned());
    versions.collect::<Vec<_>>().join(" ")
}

fn run(space: &Space, version: u32) -> Output {
    space.run(["--var", &format!("v={version}"), "production"])
}

/// Returns what was done on the hosts since the last question; hosts of a wave are done at
/// the same time, so each wave is sorted.
fn order(space: &Space) -> String {
    let text = std::fs::read_to_string(space.path("order")).unwrap_or_default();
    space.remove("order");
    let lines: Vec<&str> = text.lines().collect();
    let mut out = Vec::new();
    for wave in lines.chunk_by(|a, b| a.split(' ').next() == b.split(' ').next()) {
        let mut wave = wave.to_vec();
        wave.sort_unstable();
        out.push(wave.join(", "));
    }
    out.join(" | ")
}

/// Returns the error at the end of a run.
fn error(output: &Output) -> &str {
    let at = output.stderr.find("error:").expect("an error");
    &output.stderr[at..]
}

#[test]
fn hosts_move_in_waves_and_each_gate_stands_behind_its_wave() {
    let space = fleet("serial=\"1 2\"");
    let first = run(&space, 1).ok();
    assert_eq!(
        order(&space),
        "up px1 | gate px1 | up px2, up px3 | gate px2, gate px3 | up px4, up px5 | gate px4, gate px5"
    );
    let waves: Vec<&str> = first
        .stderr
        .lines()
        .filter(|l| l.contains(" wave "))
        .collect();
    assert_eq!(
        waves,
        [
            "    wave 1 of 3 of `upgrade`: px1",
            "    wave 2 of 3 of `upgrade`: px2 px3",
            "    wave 3 of 3 of `upgrade`: px4 px5",
        ]
    );
    assert_eq!(versions(&space), "1 1 1 1 1");
    let again = run(&space, 1).ok();
    assert!(
        again
            .stderr
            .contains("nothing to do, 15 steps up to date, on 5 hosts, 5 round trips"),
        "{again}"
    );
    assert!(!space.has("order"));
}

#[test]
fn a_gate_that_stays_shut_takes_the_whole_run_back() {
    let space = fleet("serial=2");
    let _ = run(&space, 1).ok();
    order(&space);
    space.write(
        "recipes/note.kdl",
        space.read("recipes/note.kdl").replace(
            "test -e {if-there}",
            "test -e {if-there} && case {text} in 'gate px3') exit 7 ;; esac",
        ),
    );
    let failed = run(&space, 2).fails(1);
    assert_eq!(versions(&space), "1 1 1 1 1");
    assert_snapshot!(error(&failed), @"
    error: `production` stopped: step `gate/note` failed on host `px3`
      status       7
      undone       4 steps
      no rollback  gate/note on px1
                   gate/note on px2
                   gate/note on px3
                   gate/note on px4
                   note/note on px1
                   note/note on px2
                   note/note on px3
                   note/note on px4
      help: the other steps were rolled back; fix the error and run the same command again
    ");
}

#[test]
fn waves_that_went_well_may_stay_and_the_next_run_goes_on() {
    let space = fleet("serial=2 on-failure=\"stop\"");
    let _ = run(&space, 1).ok();
    order(&space);
    space.write("broken-px4", "");
    let failed = run(&space, 2).fails(1);
    assert_eq!(versions(&space), "2 2 1 1 1");
    assert!(failed.stderr.contains("stopped at"), "{failed}");
    assert_eq!(order(&space), "up px1, up px2 | gate px1, gate px2");
    space.remove("broken-px4");
    let _ = run(&space, 2).ok();
    assert_eq!(versions(&space), "2 2 2 2 2");
    assert_eq!(
        order(&space),
        "up px3, up px4 | gate px3, gate px4 | up px5 | gate px5"
    );
}

#[test]
fn some_hosts_may_fail_without_the_others() {
    let space = fleet("serial=2 max-failures=\"20%\"");
    let _ = run(&space, 1).ok();
    space.write("broken-px2", "");
    let failed = run(&space, 2).fails(1);
    assert_eq!(versions(&space), "2 1 2 2 2");
    assert_snapshot!(error(&failed), @"
    error: `production` continued without 1 host
      px2     `production` stopped: `verify` of step `app/write` failed on host `px2`
      status  1
      undone  1 step
      help: they were rolled back; run the same command again for them
    ");
    // One more is one too many.
    space.write("broken-px5", "");
    let _ = run(&space, 3).fails(1);
    assert_eq!(versions(&space), "2 1 2 2 2");
    space.remove("broken-px2").remove("broken-px5");
    let _ = run(&space, 3).ok();
    assert_eq!(versions(&space), "3 3 3 3 3");
}

#[test]
fn a_wave_soaks_and_a_run_that_ends_there_asks_the_gates_next_time() {
    let space = fleet("serial=3 soak=\"1h\"");
    let job = space.begin(["production"]);
    wait_until("the first wave is up", || {
        job.stderr().contains("runs for 1h").then_some(())
    });
    assert_eq!(order(&space), "up px1, up px2, up px3");
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.write(
        "Releasefile.kdl",
        space.read("Releasefile.kdl").replace("1h", "1ms"),
    );
    let _ = space.run(["production"]).ok();
    assert_eq!(
        order(&space),
        "gate px1, gate px2, gate px3 | up px4, up px5 | gate px4, gate px5"
    );
}

#[test]
fn hosts_that_are_held_back_follow_when_they_are_promoted() {
    let space = fleet("serial=2 hold-back=\"px[4-5]\"");
    let promote = |version: u32, more: &[&str]| {
        let var = format!("v={version}");
        space.run([&["--var", &var, "promote", "production"], more].concat())
    };
    let first = run(&space, 1).ok();
    assert!(first.stderr.contains("held back: px4 px5"), "{first}");
    assert_eq!(versions(&space), "1 1 1 - -");
    let _ = promote(1, &[]).ok();
    assert_eq!(versions(&space), "1 1 1 1 1");
    let _ = run(&space, 2).ok();
    assert_eq!(versions(&space), "2 2 2 1 1");
    let again = run(&space, 2).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
    // What the others do not run yet is not tried on these first.
    assert_snapshot!(promote(3, &[]).fails(1).stderr, @"
    error: hosts are promoted to what the others already run
      not up to date  px1 px2 px3
      help: first: `rel production`
    ");
    assert_snapshot!(promote(2, &["--only", "px3"]).fails(2).stderr, @"
    error: host `px3` is not held back
      held back  px4 px5
    ");
    order(&space);
    let _ = promote(2, &["--only", "px5"]).ok();
    assert_eq!(versions(&space), "2 2 2 1 2");
    assert_eq!(order(&space), "up px5 | gate px5");
    let plan = space
        .run(["--var", "v=2", "promote", "production", "--plan"])
        .ok();
    assert!(
        plan.stdout.contains("px4") && !plan.stdout.contains("px5"),
        "{plan}"
    );
    assert_eq!(versions(&space), "2 2 2 1 2");
    let status = space.run(["--var", "v=2", "status", "production"]).ok();
    assert!(status.stdout.contains("held back"), "{status}");
    let back = space.run(["--var", "v=2", "production", "--rollback"]).ok();
    assert!(back.stderr.contains("rolled back"), "{back}");
    assert_eq!(versions(&space), "2 2 2 1 1");
}

/// One host with a service that has a log and an identity.
fn gated(gate: &str) -> Space {
    let space = Space::new(&format!(
        r#"
host "px" local=#true root="hosts/px"
var "v" "1"
environment "production" {{
    rollout "upgrade" on="px" {{
        use "app" version="{{v}}"
        {gate}
    }}
}}
"#
    ));
    space.write(
        "recipes/app.kdl",
        r#"recipe "app" {
    param "version"
    step "write" { write "{host.root}/version" "{version}\n"; }
    step "act" on-change="write" { run "sh ../../act" }
}"#,
    );
    space.write("act", "true\n");
    space
}

#[test]
fn a_log_that_says_too_much_shuts_the_gate() {
    let space = gated("gate log=\"{host.root}/log\" budget=1");
    space.write("hosts/px/log", "ERROR long ago\nERROR before\n");
    space.write("act", "echo ERROR once >> log; echo fine >> log\n");
    let _ = run(&space, 1).ok();
    space.write("act", "echo ERROR twice >> log; echo CRITICAL >> log\n");
    let failed = run(&space, 2).fails(1);
    assert_snapshot!(error(&failed), @"
    error: `production` stopped: step `gate/count` failed on host `px`
      status       1
      output       2 of 1 allowed lines match
                   ERROR twice
                   CRITICAL
      undone       1 step
      no rollback  app/act on px
                   gate/count on px
      help: the other steps were rolled back; fix the error and run the same command again
    ");
    assert_eq!(space.read("hosts/px/version"), "1\n");
    // Turned over meanwhile, and quiet since.
    space.write("act", "echo fine > log\n");
    let _ = run(&space, 2).ok();
    assert_eq!(space.read("hosts/px/version"), "2\n");
}

#[test]
fn an_instance_that_is_still_the_old_one_shuts_the_gate() {
    let space = gated("gate \"changed\" identity=\"cat pid\" within=\"1s\" every=\"50ms\"");
    space.write("act", "echo 1 > pid\n");
    let _ = run(&space, 1).ok();
    space.write("act", "true\n");
    let failed = run(&space, 2).fails(1);
    assert!(error(&failed).contains("gate/changed"), "{failed}");
    space.write("act", "echo 2 > pid\n");
    let _ = run(&space, 2).ok();
}

/// Each node is drained by a scope around the use that changes it: it serves again before the gates
/// of its wave and before the next wave.
#[test]
fn a_scope_in_a_rollout_ends_with_its_wave() {
    let space = Space::new(
        r#"
host "n[1-3]" local=#true root="hosts/{name}"
var "v" "1"
environment "e" {
    rollout "r" on="n[1-3]" serial="1" {
        use "drained" wraps="app"
        use "app" version="{v}"
        gate "app" as="served" version="{v}" step="gate"
    }
}
"#,
    );
    let drained = "touch ../drained.{host.name}";
    space.write(
        "recipes/drained.kdl",
        format!("recipe \"drained\" {{ step \"drain\" {{ scope \"{{use}}\" enter=\"{drained}\" leave=\"test ! -e stuck && rm -f ../drained.{{host.name}}\"; }} }}"),
    );
    space.write(
        "recipes/app.kdl",
        r#"recipe "app" { param "version"; param "step" default="use"; step "go" { run "echo {step} {host.name}, drained: $(cd ..; echo drained.*) >>../log; test {version} != bad"; undo "true"; } }"#,
    );
    let log = |space: &Space| {
        let log = space.read("hosts/log");
        space.remove("hosts/log");
        log
    };
    let _ = space.run(["e"]).ok();
    assert_snapshot!(log(&space), @"
    use n1, drained: drained.n1
    gate n1, drained: drained.*
    use n2, drained: drained.n2
    gate n2, drained: drained.*
    use n3, drained: drained.n3
    gate n3, drained: drained.*
    ");
    // One that cannot be left stops the run where it is, and is owed.
    space.write("hosts/n2/stuck", "");
    let stopped = space.run(["e", "--var", "v=2"]).fails(4);
    assert_snapshot!(error(&stopped), @"
    error: `drained` on host `n2` cannot be left
      leave       [work]/hosts/n2/.rel/e/scopes/drained
      log         [work]/hosts/n2/.rel/e/scopes.log
      rollback    the rollback failed as well
      not undone  drained/drain on n2:
      help: check the hosts: it is not known which release is live there
    ");
    assert_snapshot!(log(&space), @"
    use n1, drained: drained.n1
    gate n1, drained: drained.*
    use n2, drained: drained.n2
    ");
    assert!(space.has("hosts/drained.n2") && !space.has("hosts/drained.n1"));
}

/// The rollback is a rollout too: the last wave first, drained as it was on the way there; what
/// stands around all of them is entered again before the first one and left after the last one.
#[test]
fn a_way_back_goes_in_waves_and_enters_their_scopes_again() {
    let space = Space::new(
        r#"
host "n[1-3]" local=#true root="hosts/{name}"
host "lb" local=#true root="hosts/lb"
var "v" "1"
environment "e" {
    use "mode" as="closed" on="lb" wraps="app"
    use "app" as="first" on="lb" version="{v}"
    rollout "r" on="n[1-3]" serial="1 2" {
        use "mode" as="drained" wraps="app"
        use "app" version="{v}"
    }
    use "app" as="last" on="lb" version="{v}"
}
"#,
    );
    space.write(
        "recipes/mode.kdl",
        r#"recipe "mode" { step "mode" { scope "{use}" enter="echo enters {use} {host.name} >>../log; test ! -e ../stuck" leave="echo leaves {use} {host.name} >>../log"; } }"#,
    );
    space.write(
        "recipes/app.kdl",
        r#"recipe "app" { param "version"; step "go" { run "echo {use} {host.name} {version} >>../log; test {version}/{host.name} != bad/n3"; undo "echo {use} {host.name} back >>../log; while test -e ../hold.{host.name}; do sleep 0.05; done"; } }"#,
    );
    let log = |space: &Space| {
        let log = space.read("hosts/log");
        space.remove("hosts/log");
        let mut lines: Vec<&str> = log.lines().collect();
        // Hosts of one wave do the same thing at the same time.
        for part in lines.chunk_by_mut(|a, b| {
            !a.contains("lb") && !b.contains("lb") && !a.contains("n1") && !b.contains("n1")
        }) {
            part.sort_by_key(|line| {
                let is_back = line.ends_with("back");
                (
                    line.contains("leaves"),
                    !line.contains("enters"),
                    is_back,
                    *line,
                )
            });
        }
        lines.join("\n")
    };
    let waves = |output: &Output| {
        let lines = output.stderr.lines();
        lines
            .filter(|l| l.contains(" wave "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let _ = space.run(["e"]).ok();
    let there = "
enters closed lb
first lb 1
enters drained n1
app n1 1
leaves drained n1
enters drained n2
enters drained n3
app n2 1
app n3 1
leaves drained n2
leaves drained n3
last lb 1
leaves closed lb";
    assert_eq!(log(&space), there.trim_start());
    let plan = space.run(["e", "--rollback", "--plan"]).ok();
    assert_snapshot!(plan.stdout, @"
    lb  last/go  its own undo
    wave 2 of 2 of `r`
    n2  app/go  its own undo
    n2  drained/mode  entered again during the rollback, then left
    n3  app/go  its own undo
    n3  drained/mode  entered again during the rollback, then left
    wave 1 of 2 of `r`
    n1  app/go  its own undo
    n1  drained/mode  entered again during the rollback, then left
    lb  first/go  its own undo
    lb  closed/mode  entered again during the rollback, then left
    e: 9 steps would be rolled back, on 4 hosts  run [RUN]
    ");
    assert!(!space.has("hosts/log"));
    // Also by itself: what was left with its wave is entered again, what is entered is not.
    let failed = space.run(["e", "--var", "v=bad"]).fails(1);
    assert_snapshot!(waves(&failed), @"
    wave 1 of 2 of `r`: n1
    wave 2 of 2 of `r`: n2 n3
    wave 2 of 2 of `r` is rolled back: n2 n3
    wave 1 of 2 of `r` is rolled back: n1
    ");
    assert_snapshot!(log(&space), @"
    enters closed lb
    first lb bad
    enters drained n1
    app n1 bad
    leaves drained n1
    enters drained n2
    enters drained n3
    app n2 bad
    app n3 bad
    app n2 back
    app n3 back
    leaves drained n2
    leaves drained n3
    enters drained n1
    app n1 back
    leaves drained n1
    first lb back
    leaves closed lb
    ");
    let _ = space.run(["e", "--rollback"]).ok();
    assert_snapshot!(log(&space), @"
    enters closed lb
    last lb back
    enters drained n2
    enters drained n3
    app n2 back
    app n3 back
    leaves drained n2
    leaves drained n3
    enters drained n1
    app n1 back
    leaves drained n1
    first lb back
    leaves closed lb
    ");
    // One that cannot be entered any more holds nobody up.
    let _ = space.run(["e"]).ok();
    let _ = log(&space);
    space.write("hosts/stuck", "");
    let back = space.run(["e", "--rollback"]).ok();
    let warnings = back.stderr.lines().filter(|l| l.contains("warning"));
    assert_snapshot!(warnings.take(1).collect::<String>(), @"warning: closed/mode could not be entered again on host `lb`, which is rolled back without it: exit status 1");
    assert!(log(&space).ends_with("first lb back\nleaves closed lb"));
    // Cut off on its rollback, a mode is left, and entered again by whoever goes on.
    space.remove("hosts/stuck");
    let _ = space.run(["e"]).ok();
    let _ = log(&space);
    space.write("hosts/hold.n2", "");
    let job = space.begin(["e", "--rollback"]);
    wait_until("the second wave is rolled back", || {
        let log = std::fs::read_to_string(space.path("hosts/log")).unwrap_or_default();
        // And the other host of it was rolled back.
        let is_back = job.stderr().contains("undone n3  app/go");
        (is_back && log.contains("app n2 back")).then_some(())
    });
    job.signal(Signal::KILL);
    let _ = job.finish();
    wait_until("all is left", || {
        let left = ["closed lb", "drained n2", "drained n3"];
        let log = space.read("hosts/log");
        let is_left = |name: &&str| log.contains(&format!("leaves {name}"));
        left.iter().all(is_left).then_some(())
    });
    space.remove("hosts/hold.n2");
    let _ = log(&space);
    let _ = space.run(["e", "--rollback"]).ok();
    assert_snapshot!(log(&space), @"
    enters closed lb
    enters drained n2
    enters drained n3
    app n2 back
    leaves drained n2
    leaves drained n3
    enters drained n1
    app n1 back
    leaves drained n1
    first lb back
    leaves closed lb
    ");
}

/// What a gate found out is not true any more when its run was rolled back; what it found before is.
#[test]
fn gates_are_not_asked_again_for_what_went_back_to_its_former_state() {
    let space = Space::new(
        r#"
var "v" "1"
host "h" local=#true root="h"
environment "e" {
    rollout "r" on="h" {
        use "service" as="s" run="echo $$ >{host.root}/pid; exec sleep 10{v}"
        gate "changed" identity="cat {host.root}/pid" within="2s"
        gate command="test {v} = 1" within="1s"
    }
}
"#,
    );
    let _ends = Ends(&space);
    let _ = space.run(["e"]).ok();
    let _ = space.run(["e", "--var", "v=2"]).fails(1);
    assert_eq!(space.ask(["e"])["ran"], 0);
    let _ = space.run(["e", "--force"]).ok();
    let _ = space.run(["e", "--rollback"]).ok();
    assert_eq!(space.ask(["e"])["ran"], 0);
}

/// The window of a later rollout stops the run before that, and `--plan` tells.
#[test]
fn a_window_of_one_rollout_does_not_stop_those_before_it() {
    let today = Space::new("").shell("LC_ALL=C date -u -d '3 days' +%a");
    let space = Space::new(&format!(
        r#"
host "h1" local=#true root="hosts/h1"
host "h2" local=#true root="hosts/h2"
environment "e" {{
    rollout "dev" on="h1" {{ use "service" as="a" start="touch started" status="test -e started"; }}
    rollout "ops" on="h2" {{
        window "{} 00:00-23:59" tz="UTC"
        use "service" as="b" start="touch started" status="test -e started"
    }}
}}
"#,
        today.trim()
    ));
    let plan = space.run(["e", "--plan"]).ok().stdout;
    let words = "ops  outside its window, and the run stops before it: it opens ";
    assert!(plan.contains(words), "{plan}");
    // Whoever goes over it says why, also where the run could begin without that.
    let other = Space::new(&space.read("Releasefile.kdl"));
    let over = ["e", "--override", "window", "--reason", "now"];
    let _ = other.run(over).ok();
    let journal = other.read("hosts/h2/.rel/e/journal");
    assert!(journal.contains("\toverridden\t"), "{journal}");
    let stopped = space.run(["e"]).fails(1);
    let words = "`e` stops before wave 1 of 1 of `ops`: its window has closed";
    assert!(stopped.stderr.contains(words), "{stopped}");
    assert!(space.has("hosts/h1/started") && !space.has("hosts/h2/started"));
    // Now it is the first one that would change anything.
    let refused = space.run(["e"]).fails(1);
    assert!(
        refused.stderr.contains("`e` is outside its window"),
        "{refused}"
    );
    let _ = space
        .run(["e", "--override", "window", "--reason", "now"])
        .ok();
    assert!(space.has("hosts/h2/started"));
}

#[test]
fn mistakes_in_a_rollout_are_shown_where_they_are() {
    let space = Space::new(
        r#"
host "px[1-2]" ssh="{name}"
environment "production" {
    rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
        gate
        use "service" on="px1" run="x"
    }
    rollout "upgrade" on="px3" wave=3 { verify http="x"; }
}
"#,
    );
    assert_snapshot!(space.run(["check"]).fails(2).stderr, @r#"
    rel::build::releasefile::missing_argument

      × `rollout` needs an argument: `on="HOSTS"`
       ╭─[Releasefile.kdl:4:5]
     4 │     rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
       ·     ───┬───
       ·        ╰── nothing follows
       ╰────
      help: name the hosts and groups, in the order in which they move

    rel::build::releasefile::bad_value

      × `0` is not a number of hosts
       ╭─[Releasefile.kdl:4:30]
     4 │     rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
       ·                              ─────┬────
       ·                                   ╰── expected `3` or `25%`
       ╰────
      help: a wave has at least one host

    rel::build::releasefile::bad_value

      × `some` is not a number of hosts
       ╭─[Releasefile.kdl:4:54]
     4 │     rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
       ·                                                      ───┬──
       ·                                                         ╰── expected `3` or `25%`
       ╰────
      help: for example `2` or `10%`

    rel::build::releasefile::bad_value

      × `on-failure` cannot be `explode`
       ╭─[Releasefile.kdl:4:72]
     4 │     rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
       ·                                                                        ────┬────
       ·                                                                            ╰── not known
       ╰────
      help: there are `back`, `stop`

    rel::build::releasefile::missing_argument

      × `gate` needs an argument: what it asks
       ╭─[Releasefile.kdl:5:9]
     5 │         gate
       ·         ──┬─
       ·           ╰── nothing follows
       ╰────
      help: write `gate http="…"`, `gate port="…"`, `gate command="…"`, `gate log="…"` or `gate
            "RECIPE"`

    rel::build::releasefile::misplaced

      × inside of a rollout the hosts are those of the wave
       ╭─[Releasefile.kdl:6:26]
     6 │         use "service" on="px1" run="x"
       ·                          ──┬──
       ·                            ╰── not here
       ╰────
      help: leave it out, or put this behind the rollout

    rel::build::releasefile::duplicate_name

      × two rollouts are called `upgrade`
       ╭─[Releasefile.kdl:4:13]
     4 │     rollout "upgrade" serial="1 0 many" max-failures="some" on-failure="explode" {
       ·             ────┬────
       ·                 ╰── first declared here
       ╰────
       ╭─[Releasefile.kdl:8:13]
     8 │     rollout "upgrade" on="px3" wave=3 { verify http="x"; }
       ·             ────┬────
       ·                 ╰── declared again
       ╰────

    rel::build::releasefile::unknown_host

      × there is no host or group `px3`
       ╭─[Releasefile.kdl:8:26]
     8 │     rollout "upgrade" on="px3" wave=3 { verify http="x"; }
       ·                          ──┬──
       ·                            ╰── not a host
       ╰────
      help: did you mean `px1`?

    rel::build::releasefile::unknown_property

      × `rollout` has no property `wave`
       ╭─[Releasefile.kdl:8:32]
     8 │     rollout "upgrade" on="px3" wave=3 { verify http="x"; }
       ·                                ──┬─
       ·                                  ╰── not a property of it
       ╰────
      help: it takes `on`, `serial`, `soak`, `hold-back`, `max-failures`, `on-failure`

    rel::build::releasefile::unknown_node

      × `rollout` has no node `verify`
       ╭─[Releasefile.kdl:8:41]
     8 │     rollout "upgrade" on="px3" wave=3 { verify http="x"; }
       ·                                         ───┬──
       ·                                            ╰── not known here
       ╰────
      help: it takes `use`, `gate`, `window`
    "#);
}

#[test]
fn a_gate_behind_what_is_not_known_is_not_known_either() {
    let space = Space::new(
        r#"
host "px" local=#true root="hosts/px"
target "page" { inputs "page.in"; outputs "build/page"; run "cp page.in {out}"; }
environment "production" {
    needs "page"
    rollout "upgrade" on="px" {
        use "versioned-release" artifact="{page}" root="{host.root}/site"
        gate command="true"
    }
}
"#,
    );
    space.write("page.in", "1\n");
    let _ = space.run(["production"]).ok();
    space.write("page.in", "2\n");
    let plan = space.run(["production", "--plan"]).ok();
    let gate = plan.stdout.lines().find(|l| l.contains("  command  "));
    assert!(gate.is_some_and(|l| l.contains("unknown")), "{plan}");
}
