//! INT and TERM end `rel` within a second, whatever it waits for; a second one ends it at once.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::space::{Job, Space, is_alive, wait_until};

/// A second, and what a machine that has much to do adds to it.
const SOON: Duration = Duration::from_millis(1900);

/// Something that `rel` waits for: the Releasefile with its recipe, the arguments, and a file or
/// a word on standard error that tells that it waits.
struct Wait {
    name: &'static str,
    releasefile: &'static str,
    recipe: &'static str,
    args: &'static [&'static str],
    sign: &'static str,
}

const DEAF: &str = "trap '' TERM INT; echo $$ >> pids; echo > ready; while :; do sleep 0.1; done";
const HOST: &str = "host \"h\" ssh=\"nobody@127.0.0.1\" root=\"/nowhere\"\n";
const HERE: &str = "host \"h\" local=#true root=\"h\"\n";
const ON_HOST: &str = "[host]environment \"e\" { use \"r\" on=\"h\"; }\n";
const SECRET: &str = "environment \"e\" { use \"r\" on=\"h\" s=\"s\"; }\n";
const WRITES: &str = r#"
recipe "r" { param "s" type="secret"; step "s" { write "{host.root}/x" "{s}"; }; }
"#;
const SILENT: &str = "#!/bin/sh\necho $$ >> pids\necho > ready\nexec sleep 1000\n";
const EMPTY: &str = "recipe \"r\" { step \"s\" { run \"true\"; }; }\n";

const WAITS: &[Wait] = &[
    Wait {
        name: "a command that ignores TERM",
        releasefile: r#"target "t" { run "[deaf]"; }"#,
        recipe: "",
        args: &["build"],
        sign: "ready",
    },
    Wait {
        name: "a question of a build that ignores TERM",
        releasefile: r#"target "t" { probe "[deaf]"; run "true"; }"#,
        recipe: "",
        args: &["build"],
        sign: "ready",
    },
    Wait {
        name: "a question of a question",
        releasefile: r#"target "t" { probe "[deaf]"; run "true"; }"#,
        recipe: "",
        args: &["why", "t"],
        sign: "ready",
    },
    Wait {
        name: "the version",
        releasefile: r#"project "p" { version (command)"[deaf]" }
[here]environment "e" { use "r" on="h" v="{version}"; }
"#,
        recipe: "recipe \"r\" { param \"v\"; step \"s\" { run \"echo {v}\"; }; }\n",
        args: &["e"],
        sign: "ready",
    },
    Wait {
        name: "the command of a secret",
        releasefile: "[here][secret]secret \"s\" command=\"[deaf]\"\n",
        recipe: WRITES,
        args: &["e"],
        sign: "ready",
    },
    Wait {
        name: "a host that is silent",
        releasefile: ON_HOST,
        recipe: EMPTY,
        args: &["e"],
        sign: "ready",
    },
    Wait {
        name: "the logs of a host that is silent",
        releasefile: ON_HOST,
        recipe: EMPTY,
        args: &["log", "e", "-f"],
        sign: "ready",
    },
    Wait {
        name: "what goes on at a host that is silent",
        releasefile: ON_HOST,
        recipe: EMPTY,
        args: &["attach", "e"],
        sign: "ready",
    },
    Wait {
        name: "whether a host answers",
        releasefile: "[host]",
        recipe: EMPTY,
        args: &["hosts", "--within", "100s"],
        sign: "ready",
    },
    Wait {
        name: "a step that ignores TERM",
        releasefile: "[here]environment \"e\" { use \"r\" on=\"h\"; }\n",
        recipe: r#"recipe "r" { step "s" { dir "{host.root}"; run "cd ..; [deaf]"; }; }"#,
        args: &["e"],
        sign: "ready",
    },
    Wait {
        name: "a file without an end",
        releasefile: r#"target "t" { inputs "huge"; run "true"; }"#,
        recipe: "",
        args: &["build"],
        sign: "",
    },
    Wait {
        name: "a blob without an end",
        releasefile: r#"target "t" { run "true"; }"#,
        recipe: "",
        args: &["cache", "verify"],
        sign: "",
    },
];

fn space(wait: &Wait) -> Space {
    let filled = |text: &str| {
        let text = text.replace("[host]", HOST).replace("[here]", HERE);
        text.replace("[secret]", SECRET).replace("[deaf]", DEAF)
    };
    let space = Space::new(&filled(wait.releasefile));
    if !wait.recipe.is_empty() {
        space.write("recipes/r.kdl", filled(wait.recipe));
    }
    space.write("ssh", SILENT);
    let blob = "../cache/v1/cas/ab";
    let name = "ab".repeat(32);
    space.shell(&format!(
        "chmod +x ssh; mkfifo pipe; truncate -s 4T huge
         mkdir -p {blob}; truncate -s 4T {blob}/{name}"
    ));
    space
}

fn begin<'a>(space: &'a Space, wait: &Wait) -> Job<'a> {
    let mut rel = space.rel(wait.args);
    let job = space.start(rel.env("REL_SSH", space.path("ssh")));
    if wait.sign.is_empty() {
        std::thread::sleep(Duration::from_millis(700));
    }
    wait_until(wait.name, || {
        assert_eq!(
            job.stderr().matches("error:").count(),
            0,
            "{}",
            job.stderr()
        );
        (wait.sign.is_empty() || space.has(wait.sign)).then_some(())
    });
    job
}

/// Sends a signal and returns how long it took until the end.
#[track_caller]
fn ended(job: Job<'_>, signal: Signal, name: &str) -> Duration {
    let start = Instant::now();
    job.signal(signal);
    let output = job.finish();
    assert_eq!(output.code, 130, "{name}: {output}");
    start.elapsed()
}

#[track_caller]
fn nobody_is_left(space: &Space, name: &str) {
    let pids = space.lines("pids");
    wait_until(&format!("the end of processes: {name}"), || {
        pids.iter().all(|pid| !is_alive(pid)).then_some(())
    });
}

#[test]
fn one_signal_ends_every_wait_within_a_second() {
    for wait in WAITS {
        for signal in [Signal::INT, Signal::TERM] {
            let space = space(wait);
            let took = ended(begin(&space, wait), signal, wait.name);
            assert!(took < SOON, "{}: {took:?}", wait.name);
            nobody_is_left(&space, wait.name);
        }
    }
}

/// What ignores TERM is killed 0.6 s after the first signal, so 0.45 s after the moment of the
/// second one, on every machine. The second one takes a few milliseconds; one of five tries does
/// on a busy machine too.
#[test]
fn a_second_signal_does_not_wait_for_that() {
    let is_deaf = |wait: &&Wait| [wait.releasefile, wait.recipe].concat().contains("[deaf]");
    for wait in WAITS.iter().filter(is_deaf) {
        let is_soon = || {
            let space = space(wait);
            let job = begin(&space, wait);
            job.signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(150));
            let was_at_work = is_alive(&job.pid().as_raw_nonzero().to_string());
            let took = ended(job, Signal::TERM, wait.name);
            nobody_is_left(&space, wait.name);
            was_at_work && took < Duration::from_millis(300)
        };
        assert!((0..5).any(|_| is_soon()), "{}", wait.name);
    }
}

#[test]
fn who_waits_for_a_checkout_is_ended() {
    let space =
        Space::new(r#"target "t" { run "echo > ready; until test -e go; do sleep 0.02; done"; }"#);
    let first = space.begin(["build"]);
    space.wait_for("ready");
    for signal in [Signal::INT, Signal::TERM] {
        let second = space.begin(["build"]);
        wait_until("the second to wait", || {
            second.stderr().contains("waiting for").then_some(())
        });
        assert!(ended(second, signal, "a lock") < SOON);
    }
    space.write("go", "");
    let _ = first.finish().ok();
}

#[test]
fn who_waits_for_a_web_server_is_ended() {
    let server = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = server.local_addr().expect("has one").port();
    let space = Space::new(&format!(
        "{HERE}environment \"e\" {{ use \"r\" on=\"h\"; }}\n"
    ));
    space.write(
        "recipes/r.kdl",
        format!(
            "recipe \"r\" {{ step \"s\" {{
                wait http=\"http://127.0.0.1:{port}/\" within=\"300s\"
            }}; }}"
        ),
    );
    for signal in [Signal::INT, Signal::TERM] {
        let job = space.begin(["e"]);
        // It takes the connection and answers nothing.
        let _client = server.accept().expect("is asked");
        assert!(ended(job, signal, "a web server") < SOON);
    }
}

/// Nobody reads what it prints.
#[test]
fn who_waits_for_a_reader_is_ended() {
    let space = Space::new(r#"target "t" { run "head -c 1000000 /dev/zero | tr '\\0' x"; }"#);
    let _ = space.run(["build", "-q"]).ok();
    for signal in [Signal::INT, Signal::TERM] {
        let mut rel = space.rel(["log", "t"]);
        let mut child = rel
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut [0; 1]).expect("prints");
        std::thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("is there");
        let status = child.wait().expect("ends");
        assert_eq!(status.code(), Some(130));
        assert!(start.elapsed() < SOON);
    }
}

/// `timeout` sends its signal to the process and to its group: that is one request.
#[test]
fn the_same_signal_twice_at_once_is_one() {
    let space = Space::new(
        r#"
target "t" {
    run "trap 'sleep 0.3; echo ended > polite; exit 1' TERM; echo > ready; sleep 100 & wait"
}
"#,
    );
    let job = space.begin(["build"]);
    space.wait_for("ready");
    job.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(5));
    let _ = rustix::process::kill_process(job.pid(), Signal::TERM);
    let _ = job.finish().fails(130);
    assert_eq!(space.read("polite"), "ended\n");
}

/// Returns the state of a process as the kernel tells it: `T` is stopped.
fn state_of(pid: &str) -> Option<char> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
    status.split("State:\t").nth(1)?.chars().next()
}

/// Commands are in groups of their own, which Ctrl-Z does not reach. Their time is not over while
/// they are stopped.
#[test]
fn ctrl_z_stops_commands_as_well() {
    let space = Space::new(
        r#"
target "t" { timeout "3s"; run "echo $$ > pid; for i in $(seq 10); do sleep 0.1; echo $i >> ticks; done" }
target "s" { sandbox "strict"; outputs "o"; timeout "3s"; run "date +%s%N > o; sleep 1; date +%s%N >> o" }
"#,
    );
    let mut command = space.rel(["build", "-j", "2"]);
    let job = space.start(command.process_group(0));
    let pid = space.wait_for("pid");
    space.wait_for("ticks");
    let rel = job.pid().as_raw_nonzero().to_string();
    job.signal(Signal::TSTP);
    for stopped in [&pid, &rel] {
        wait_until("a stop", || state_of(stopped).filter(|state| *state == 'T'));
    }
    let before = space.lines("ticks").len();
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(space.lines("ticks").len(), before);
    job.signal(Signal::CONT);
    let _ = job.finish().ok();
    assert_eq!(space.lines("ticks").len(), 10);
    // The strict one was stopped in the middle as well.
    let times: Vec<u64> = space
        .lines("o")
        .iter()
        .map(|l| l.parse().expect("a number"))
        .collect();
    assert!(times[1] - times[0] > 3_000_000_000, "{times:?}");
}
