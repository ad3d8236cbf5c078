//! The order of restarts on the way back: an instance that depends on a service is started again
//! after that service, and before the newer instance has ended where nothing restarts.

use std::fs;

use rustix::process::Signal;

use crate::space::{Space, wait_until};

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

/// Ends what was started when the test ends: rel leaves services running.
struct Services<'a>(&'a Space);

impl Drop for Services<'_> {
    fn drop(&mut self) {
        let script = "for f in srv/*/.rel/live/services/*/pid; do read -r p b <$f && kill -KILL -$p || :; done";
        let _ = self.0.program("sh").args(["-c", script]).status();
    }
}

#[test]
fn a_former_instance_starts_after_the_service_that_it_depends_on() {
    let space = site("");
    let _services = Services(&space);
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
    let _services = Services(&space);
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
    let _services = Services(&space);
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
