//! The order of restarts during the rollback: an instance that depends on a service is started again
//! after that service, and before the newer instance has ended where nothing restarts.

use std::fs;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::space::{Ends, Space, wait_until};

/// A site on host `w` that asks a database on host `d`, each telling one log what it does.
fn site(extra: &str) -> Space {
    let space = Space::new(&format!(
        r#"
host "d" local=#true root="srv/d"
host "w" local=#true root="srv/w"
var "base" "1"
var "gate" "true"
target "page" {{ inputs "page.txt"; outputs "build/page"; run "cp page.txt {{out}}"; }}
environment "live" {{
    needs "page"
    use "setting" on="d" base="{{base}}"
    use "service" as="base" on="d" after="setting" {{
        run "b=$(cat base); echo base $b >>../log; trap 'exit 0' TERM; sleep 1000 & wait"
    }}
    use "versioned-release" as="web" on="w" after="base" artifact="{{page}}" root="{{host.root}}/site" {{
        start "p=$(cat artifact/page); echo start $p >>{{host.root}}/../log; trap 'echo stop '$p' >>{{host.root}}/../log; exit 0' TERM; sleep 1000 & wait"
    }}
    {extra}
    use "wait-for" as="gate" on="w" after="web" command="{{gate}}" within="1s"
}}
"#
    ));
    space.write(
        "recipes/setting.kdl",
        "recipe \"setting\" {\n param \"base\"\n step \"base\" { write \"{host.root}/base\" \"{base}\"; }\n}\n",
    );
    for host in ["d", "w"] {
        fs::create_dir_all(space.path("srv").join(host)).expect("creates");
    }
    space.write("page.txt", "1\n");
    let _ = space.run(["live"]).ok();
    space
}

/// What the log says behind the mark that is set here.
fn log_of(space: &Space, act: impl FnOnce()) -> Vec<String> {
    let before = space.read("srv/log").lines().count();
    act();
    let log = space.read("srv/log");
    log.lines().skip(before).map(str::to_owned).collect()
}

#[test]
fn a_former_instance_starts_after_the_service_that_it_depends_on() {
    let space = site("");
    let _ends = Ends(&space);
    space.write("page.txt", "2\n");
    let log = log_of(&space, || {
        let _ = space
            .run(["live", "--var", "base=2", "--var", "gate=false"])
            .fails(1);
    });
    let back = ["base 2", "start 2", "stop 1", "stop 2", "base 1", "start 1"];
    assert_eq!(log, back);
    // The same by hand.
    let _ = space.run(["live", "--var", "base=2"]).ok();
    let log = log_of(&space, || {
        let _ = space.run(["live", "--rollback"]).ok();
    });
    assert_eq!(log, back[3..]);
}

#[test]
fn a_former_instance_serves_before_the_newer_one_ends_where_nothing_restarts() {
    let space = site("");
    let _ends = Ends(&space);
    space.write("page.txt", "2\n");
    let log = log_of(&space, || {
        let _ = space.run(["live", "--var", "gate=false"]).fails(1);
    });
    assert_eq!(log, ["start 2", "stop 1", "start 1", "stop 2"]);
}

/// The second attempt stops the instance of the first one, which is not to run afterwards.
#[test]
fn an_instance_of_an_attempt_that_was_cut_off_is_not_started_again() {
    let space = site(
        r#"use "wait-for" as="pause" on="w" after="web" command="test ! -e {host.root}/pause" within="60s""#,
    );
    let _ends = Ends(&space);
    for base in ["1", "2"] {
        space.write("srv/w/pause", "");
        space.write("page.txt", "2\n");
        let job = space.begin(["live", "--var", &format!("base={base}")]);
        wait_until("2 runs alone", || {
            let log = space.read("srv/log");
            log.ends_with("stop 1\n").then_some(())
        });
        job.signal(Signal::KILL);
        let _ = job.finish();
        space.remove("srv/w/pause");
        space.write("page.txt", "3\n");
        let args = [
            "live",
            "--var",
            &format!("base={base}"),
            "--var",
            "gate=false",
        ];
        let _ = wait_until("the guard has left", || {
            let output = space.run(args);
            (!output.stderr.contains("is held by")).then(|| output.fails(1))
        });
        let log = space.read("srv/log");
        let runs = |page: u32| {
            let (start, stop) = (format!("start {page}"), format!("stop {page}"));
            log.lines().filter(|line| *line == start).count()
                > log.lines().filter(|line| *line == stop).count()
        };
        assert_eq!([1, 2, 3].map(runs), [true, false, false], "{log}");
    }
}

/// A site whose instances share a port, which is a directory here.
fn port(page: &str) -> Space {
    let space = Space::new(
        r#"
host "w" local=#true root="srv/w"
target "page" { inputs "page.sh"; outputs "build/page"; run "cp page.sh {out}"; }
environment "live" {
    needs "page"
    use "versioned-release" as="web" on="w" artifact="{page}" root="{host.root}/site" within="2s" {
        start "exec sh artifact/page {host.root}/port"
        health "test -e {host.root}/port"
    }
}
"#,
    );
    fs::create_dir_all(space.path("srv/w")).expect("creates");
    space.write("page.sh", page);
    let _ = space.run(["live"]).ok();
    space
}

/// The former instance answers in place of the newer one, which cannot have its port.
#[test]
fn a_new_instance_must_serve_when_the_former_one_is_gone() {
    let serves = "trap 'rmdir $1; exit 0' TERM\nsleep 1000 & wait\n";
    let former = format!("mkdir $1\n{serves}");
    for (start, words) in [
        ("sleep 0.6; echo taken; exit 1", "has ended"),
        ("sleep 1000", "did not hold within 2 s"),
        ("until mkdir $1; do sleep 0.1; done", ""),
    ] {
        let space = port(&former);
        let _ends = Ends(&space);
        let live = || space.shell("readlink srv/w/site/current");
        let before = live();
        space.write("page.sh", format!("{start}\n{serves}"));
        let output = space.run(["live"]);
        assert_eq!(output.code, i32::from(!words.is_empty()), "{output}");
        assert_eq!(live() == before, !words.is_empty(), "{output}");
        assert!(output.stderr.contains(words), "{output}");
        wait_until("it serves", || space.has("srv/w/port").then_some(()));
    }
}

/// It runs when its start is over, and ends a little later: other steps follow meanwhile.
#[test]
fn a_service_that_ends_soon_after_its_start_fails_the_run() {
    let space = Space::new(
        r#"
host "w" local=#true root="srv/w"
var "run" "sleep 1000"
environment "live" {
    use "service" as="one" on="w" run="eval {run}"
    use "wait-for" as="later" on="w" after="one" command="sleep 1.5"
}
"#,
    );
    let _ends = Ends(&space);
    fs::create_dir_all(space.path("srv/w")).expect("creates");
    let _ = space.run(["live"]).ok();
    let output = space.run([
        "live",
        "--var",
        "run=sleep 0.5; echo its port is taken; exit 1",
    ]);
    assert_snapshot!(output, @"
    --- stderr
         run w  one/run  changed since run [RUN]
        done w  one/run  [TIME]
         run w  later/command  `one` changes
        done w  later/command  [TIME]
      undone w  one/run
    error: service `one` on host `w` ended soon after its start
      log     [work]/srv/w/log/one.log
      says    its port is taken
      undone  1 step
      help: what was live on `w` is live there again; fix the error and run the same command again
    --- exit code 1
    ");
    assert_eq!(space.ask(["live", "--plan"])["to_run"], 0);
}

/// The link says which release is live, and not which one runs.
#[test]
fn a_release_that_does_not_run_is_told() {
    let space = site("");
    let _ends = Ends(&space);
    let former = space.shell("readlink srv/w/site/current");
    space.write("page.txt", "2\n");
    let _ = space.run(["live"]).ok();
    let id = |link: &str| {
        link.trim()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let (former, live) = (id(&former), id(&space.shell("readlink srv/w/site/current")));
    let status = || space.run(["status", "live"]).ok().stdout;
    assert!(
        status().contains(&format!("web {live}, since")),
        "{}",
        status()
    );
    space.shell(&format!("ln -sfn releases/{former} srv/w/site/current"));
    // Since when the link has led there is not known.
    let words = format!("web {former}, but web.{live} runs\n");
    assert!(status().contains(&words), "{}", status());
    let told = space.ask(["status", "live"]);
    assert_eq!(
        told[1]["running"]["web"][0],
        format!("web.{live}"),
        "{told}"
    );
}

/// In a rollout that is a failure of its wave: the next one does not begin, and what went well may
/// stay.
#[test]
fn a_service_that_ends_soon_after_its_start_ends_its_wave() {
    let space = Space::new(
        r#"
host "n[1-3]" local=#true root="srv/{name}"
environment "live" {
    rollout "all" on="n[1-3]" serial=1 on-failure="stop" {
        use "service" as="one" run="if [ {host.name} = n2 ]; then sleep 0.5; exit 1; fi; exec sleep 1000"
    }
}
"#,
    );
    let _ends = Ends(&space);
    space.shell("mkdir -p srv/n1 srv/n2 srv/n3");
    let failed = space.run(["live"]).fails(1);
    let words = "service `one` on host `n2` ended soon after its start";
    assert!(failed.stderr.contains(words), "{failed}");
    assert!(failed.stderr.contains("wave 2 of 3 of `all`"), "{failed}");
    let pid = |host: &str| space.has(format!("srv/{host}/.rel/live/services/one/pid"));
    assert_eq!(
        ["n1", "n2", "n3"].map(pid),
        [true, false, false],
        "{failed}"
    );
}

/// The second attempt takes nothing back of its own, for the first one found what was there before:
/// it is undone all the same.
#[test]
fn a_step_that_an_attempt_before_has_begun_is_undone_with_it() {
    let space = Space::with_steps(
        r#"
    step "stop" {
        run "echo stop >>log; if [ -e hang ]; then echo >at-work; sleep 1000; fi"
        undo with-restarts=#true "echo start >>log"
    }
    step "next" { run "test ! -e bad"; undo "true"; }
"#,
    );
    space.write("hosts/h/hang", "");
    let job = space.begin(["e"]);
    space.wait_for("hosts/h/at-work");
    job.signal(Signal::KILL);
    let _ = job.finish();
    space.remove("hosts/h/hang").write("hosts/h/bad", "");
    let _ = wait_until("the guard has left", || {
        let output = space.run(["e"]);
        (!output.stderr.contains("is held by")).then(|| output.fails(1))
    });
    assert_eq!(space.read("hosts/h/log"), "stop\nstop\nstart\n");
    assert_eq!(space.ask(["e", "--plan"])["to_run"], 2);
}

/// A use that vanishes leaves its service running: that is reported, and ended when it is asked for.
#[test]
fn services_of_uses_that_are_gone_are_orphans() {
    let releasefile = |uses: &str| {
        format!("host \"w\" local=#true root=\"srv/w\"\nenvironment \"live\" {{\n{uses}\n}}\n")
    };
    let one = "use \"service\" as=\"one\" on=\"w\" run=\"exec sleep 1000\"";
    let two = "use \"service\" as=\"two\" on=\"w\" run=\"exec sleep 1000\"";
    let space = Space::new(&releasefile(&format!("{one}\n{two}")));
    let _ends = Ends(&space);
    fs::create_dir_all(space.path("srv/w")).expect("creates");
    let _ = space.run(["live"]).ok();
    let ends = |words: &str| {
        let output = space.run(["live", "--remove-orphans"]).ok();
        assert_eq!(output.stderr, words);
    };
    let none = "rel: live: no service is an orphan on the hosts of the environment\n";
    ends(none);
    space.write("Releasefile.kdl", releasefile(one));
    let line = "service `two` of use `two`, which is no longer in the Releasefile";
    let plan = space.run(["live", "--plan"]).ok().stdout;
    assert!(
        plan.contains(&format!("w  orphan  {line}: `--remove-orphans` ends it\n")),
        "{plan}"
    );
    let status = space.run(["status", "live"]).ok().stdout;
    assert!(
        status.contains(&format!(" orphan  w  {line}\n")),
        "{status}"
    );
    let status = space.ask(["status", "live"]);
    assert_eq!(status[0]["orphans"][0]["service"], "two", "{status}");
    // A run does not end it.
    let _ = space.run(["live"]).ok();
    ends("rel: live: ended service `two` of use `two` on host `w`\n");
    assert!(!space.has("srv/w/.rel/live/services/two/pid"));
    assert!(space.has("srv/w/.rel/live/services/one/pid"));
    ends(none);
    let history = space.run(["history", "live"]).ok().stdout;
    assert!(
        history
            .lines()
            .next()
            .is_some_and(|l| l.ends_with("ended `two`")),
        "{history}"
    );
    assert_eq!(space.ask(["live", "--plan"])["to_run"], 0);
}

/// A use that moves to another host leaves its service on the former one. One whose role nobody has
/// for now is still in the Releasefile. And what an approved plan alone may change stays.
#[test]
fn orphans_are_told_by_host_and_not_by_role() {
    let uses = |uses: &str| {
        format!(
            "host \"v\" local=#true root=\"srv/v\"\nhost \"w\" local=#true root=\"srv/w\"\nenvironment \"live\" {{\n{uses}\n}}\n"
        )
    };
    let one = |on: &str| format!("use \"service\" as=\"one\" on=\"{on}\" run=\"exec sleep 1000\"");
    let space = Space::new(&uses(&one("w")));
    let _ends = Ends(&space);
    space.shell("mkdir -p srv/v srv/w; touch srv/w/active");
    let _ = space.run(["live"]).ok();
    let orphans = || {
        space
            .ask(["status", "live"])
            .to_string()
            .matches("orphans")
            .count()
    };
    let both = format!("{}\nuse \"wait-for\" on=\"v w\" command=\"true\"", one("v"));
    space.write("Releasefile.kdl", uses(&both));
    assert_eq!(orphans(), 1);
    let role = "role \"active\" on=\"v w\" command=\"test -e {host.root}/active\"\n";
    space.write("Releasefile.kdl", uses(&(role.to_owned() + &one("active"))));
    assert_eq!(orphans(), 0);
    space.remove("srv/w/active");
    assert_eq!(orphans(), 0);
    let approval = "approval\nuse \"wait-for\" on=\"v w\" command=\"true\"";
    space.write("Releasefile.kdl", uses(approval));
    assert_eq!(orphans(), 1);
    let refused = space.run(["live", "--remove-orphans"]).fails(2);
    assert!(
        refused.stderr.contains("by an approved plan only"),
        "{refused}"
    );
    let day = space.shell("LC_ALL=C date -u -d '3 days' +%a");
    let window = approval.replace(
        "approval",
        &format!("window \"{} 00:00-23:59\" tz=\"UTC\"", day.trim()),
    );
    space.write("Releasefile.kdl", uses(&window));
    let refused = space.run(["live", "--remove-orphans"]).fails(1);
    assert!(
        refused.stderr.contains("`live` is outside its window"),
        "{refused}"
    );
    let args = [
        "live",
        "--remove-orphans",
        "--override",
        "window",
        "--reason",
        "now",
    ];
    let _ = space.run(args).ok();
    assert_eq!(orphans(), 0);
}
