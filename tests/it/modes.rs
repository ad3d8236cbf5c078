//! Modes that a run enters and leaves: a site that says that it is being changed, and ports of
//! a host that lead here. They end with the run, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::hosts::{Hosts, ask_site, free_port};
use crate::space::{Output, Space, wait_until};

/// The application: says its version, and takes its time to start.
const APP: &str = r#"
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"app " + sys.argv[2].encode())
    def log_message(self, *words): pass
time.sleep(0.3)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const NGINX: &str = "
pid nginx.pid;
worker_processes 1;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server { listen 127.0.0.1:FRONT; location / { include front.conf; } }
}
";

/// Leads the front to a port; returns when nobody is led elsewhere any more.
const LEAD: &str = r#"set -eu
cd "$(dirname "$0")"
printf 'proxy_pass http://127.0.0.1:%s;\n' "$1" >front.new
mv front.new front.conf
if [ -e nginx.pid ]; then
    master=$(cat nginx.pid)
    old=$(cat "/proc/$master/task/$master/children")
    nginx -p "$PWD/" -c nginx.conf -e error.log -s reload
    for p in $old; do
        n=0
        while [ -e "/proc/$p" ] && [ "$n" -lt 600 ]; do sleep 0.05; n=$((n + 1)); done
    done
else
    nginx -p "$PWD/" -c nginx.conf -e error.log
fi
"#;

/// A host with a site behind nginx.
struct Site {
    hosts: Hosts,
    space: Space,
    front: u16,
    /// Where the responder is reached.
    away: u16,
}

impl Site {
    /// Starts a site; `nodes` stand in its environment.
    fn start(nodes: &str) -> Self {
        let hosts = Hosts::start(1);
        let (front, app, away) = (free_port(), free_port(), free_port());
        let host = &hosts.all[0];
        fs::write(host.srv("app.py"), APP).expect("writes");
        let conf = NGINX.replace("FRONT", &front.to_string());
        fs::write(host.srv("nginx.conf"), conf).expect("writes");
        fs::write(host.srv("lead"), LEAD).expect("writes");
        let space = Space::new(&format!(
            r#"{}
var "v" "1"
environment "site" {{
    {nodes}
    use "maintenance" on="h1" wraps="work app" listen="127.0.0.1:{away}" {{
        retry-after "600"
        backoff 1800
        body "back soon\n"
        url "http://127.0.0.1:{front}/"
        enter "sh lead {away}"
        leave "sh lead {app}"
    }}
    use "work" on="h1" v="{{v}}"
    use "service" as="app" on="h1" run="exec python3 app.py {app} {{v}}" ready="python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {app}))'"
}}
"#,
            hosts.kdl()
        ));
        // What the change is: it may take for ever, or fail.
        space.write(
            "recipes/work.kdl",
            r#"recipe "work" {
    param "v"
    step "work" {
        run "echo {v} >work; while [ -e hang ]; do sleep 0.05; done; test ! -e broken"
        undo "rm -f work"
    }
}"#,
        );
        let site = Self {
            hosts,
            space,
            front,
            away,
        };
        // The first time there is no site that anybody could see.
        let host = &site.hosts.all[0];
        let root = site.hosts.root(host);
        let script = format!("cd {root} && sh lead {app}");
        let _ = site.hosts.ssh(&site.space, host, &script).ok();
        let _ = site.run(1).ok();
        site
    }

    fn args(version: u32) -> [String; 3] {
        ["site".into(), "--var".into(), format!("v={version}")]
    }

    fn run(&self, version: u32) -> Output {
        self.space.run(Self::args(version))
    }

    fn set(&self, flag: &str, is_set: bool) {
        let path = self.hosts.all[0].srv(flag);
        match is_set {
            true => fs::write(path, "").expect("writes"),
            false => fs::remove_file(path).expect("removes"),
        }
    }
}

/// What somebody outside sees, again and again.
struct Prober {
    seen: Arc<Mutex<BTreeMap<String, usize>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    port: u16,
}

/// Asks a site once; returns status, headers that matter, and body.
fn ask(port: u16) -> String {
    let text = match ask_site(port) {
        Ok(text) => text,
        Err(error) => return format!("error: {error}"),
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or("nothing");
    let mut said = vec![status];
    said.extend(
        head.lines()
            .filter(|l| l.starts_with("Retry-After") || l.starts_with("X-Weave")),
    );
    said.push(match status {
        "200" | "503" => body.trim(),
        _ => "",
    });
    said.join(" | ")
}

const AWAY: &str = "503 | Retry-After: 600 | X-Weave-Backoff: 1800 | back soon";

impl Prober {
    fn start(port: u16) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (all, end) = (seen.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let answer = ask(port);
                *all.lock().expect("locks").entry(answer).or_default() += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            seen,
            is_over,
            thread: Some(thread),
            port,
        }
    }

    fn wait_for(&self, answer: &str) {
        wait_until(answer, || {
            let seen = self.seen.lock().expect("locks");
            seen.contains_key(answer).then_some(())
        });
    }

    /// Returns all different answers, once the site says `last`.
    fn end(mut self, last: &str) -> String {
        wait_until(last, || (ask(self.port) == last).then_some(()));
        self.is_over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
        let seen = self.seen.lock().expect("locks");
        seen.keys().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
    }
}

fn is_closed(port: u16) {
    wait_until("the port to close", || {
        TcpStream::connect(("127.0.0.1", port)).err()
    });
}

#[test]
fn a_site_says_that_it_is_being_changed_and_nobody_sees_anything_else() {
    let site = Site::start("");
    let prober = Prober::start(site.front);
    prober.wait_for("200 | app 1");
    let run = site.run(2).ok();
    assert!(run.stderr.contains("maintenance/responder"), "{run}");
    is_closed(site.away);
    assert_snapshot!(prober.end("200 | app 2"), @r"
    200 | app 1
    200 | app 2
    503 | Retry-After: 600 | X-Weave-Backoff: 1800 | back soon
    ");
    // With nothing to do nobody is sent away.
    let prober = Prober::start(site.front);
    let again = site.run(2).ok();
    assert!(again.stderr.contains("nothing to do"), "{again}");
    assert_snapshot!(prober.end("200 | app 2"), @"200 | app 2");
    // Nor does a client see anything else during the rollback.
    let prober = Prober::start(site.front);
    prober.wait_for("200 | app 2");
    let back = site.space.run(["site", "--rollback"]).ok();
    assert!(back.stderr.contains("entered again"), "{back}");
    is_closed(site.away);
    assert_snapshot!(prober.end("200 | app 1"), @"
    200 | app 1
    200 | app 2
    503 | Retry-After: 600 | X-Weave-Backoff: 1800 | back soon
    ");
}

#[test]
fn however_a_run_ends_the_front_leads_to_the_site_again() {
    let site = Site::start("");
    for (number, signal) in [Some(Signal::KILL), Some(Signal::INT), None]
        .into_iter()
        .enumerate()
    {
        let prober = Prober::start(site.front);
        prober.wait_for("200 | app 1");
        site.set("hang", true);
        site.set("broken", true);
        let job = site.space.begin(Site::args(number as u32 + 2));
        prober.wait_for(AWAY);
        match signal {
            Some(signal) => job.signal(signal),
            None => site.set("hang", false),
        }
        let output = job.finish();
        assert_ne!(output.code, 0, "{output}");
        let seen = prober.end("200 | app 1");
        assert_eq!(seen, format!("200 | app 1\n{AWAY}"), "{signal:?}");
        is_closed(site.away);
        if signal.is_some() {
            site.set("hang", false);
        }
        site.set("broken", false);
    }
    let prober = Prober::start(site.front);
    let _ = site.run(9).ok();
    let seen = prober.end("200 | app 9");
    assert!(!seen.contains("error") && !seen.contains("502"), "{seen}");
    assert!(seen.contains(AWAY), "{seen}");
}

#[test]
fn a_line_that_is_cut_without_a_word_ends_the_mode_as_well() {
    let site = Site::start("lease \"10s\"");
    let prober = Prober::start(site.front);
    prober.wait_for("200 | app 1");
    site.set("hang", true);
    let job = site.space.begin(Site::args(2));
    prober.wait_for(AWAY);
    // Nobody hears of `rel`, which keeps everything open.
    job.signal(Signal::STOP);
    let seen = prober.end("200 | app 1");
    assert_eq!(seen, format!("200 | app 1\n{AWAY}"));
    is_closed(site.away);
    site.set("hang", false);
    job.signal(Signal::CONT);
    let output = job.finish();
    assert_ne!(output.code, 0, "{output}");
    let _ = site.run(3).ok();
    assert_eq!(ask(site.front), "200 | app 3");
}

/// Something that only this machine can reach: says a word to everybody, and keeps the line.
fn registry() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"image\n");
            kept.push(stream);
        }
    });
    port
}

/// Says in `DIR/pulled` what is read at a port; then it waits until the line ends, and says that
/// in `DIR/ended`.
const PULL: &str = r#"
import socket, sys
line = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
with open("pulled", "w") as pulled:
    pulled.write(line.recv(100).decode())
line.recv(1)
open("ended", "w").close()
"#;

fn pulling(hosts: &Hosts, port: u16, to: &str) -> Space {
    let space = Space::new(&format!(
        "{}\nhost \"here\" local=#true root=\"here\"\nvar \"v\" \"1\"\n\
         environment \"e\" {{ use \"pull\" on=\"h1\" port={port} to=\"{to}\" v=\"{{v}}\"; }}\n\
         environment \"l\" {{ use \"pull\" on=\"here\" port={port} to=\"{to}\" v=\"{{v}}\"; }}\n",
        hosts.kdl()
    ));
    // What pulls is no process of the step any more: it would keep the port for ever.
    space.write(
        "recipes/pull.kdl",
        r#"recipe "pull" {
    param "port"
    param "to"
    param "v"
    step "line" { forward "registry" listen="127.0.0.1:{port}" to="{to}"; }
    step "pull" on-change="line" {
        run "setsid python3 pull.py {port} </dev/null >/dev/null 2>&1 & until test -s pulled; do sleep 0.05; done; echo {v} >done; while [ -e hang ]; do sleep 0.05; done"
    }
}"#,
    );
    space
}

#[test]
fn a_port_of_a_host_leads_here_while_the_run_lasts() {
    let hosts = Hosts::start(1);
    let port = free_port();
    let space = pulling(&hosts, port, &format!("127.0.0.1:{}", registry()));
    fs::create_dir(space.path("here")).expect("creates");
    for environment in ["e", "l"] {
        let place = |path: &str| match environment {
            "e" => hosts.all[0].srv(path),
            _ => space.path("here").join(path),
        };
        fs::write(place("pull.py"), PULL).expect("writes");
        let ended = || {
            wait_until("the end of the line", || {
                place("ended").exists().then_some(())
            })
        };
        let run = space.run([environment]).ok();
        assert!(run.stderr.contains("2 steps ran"), "{run}");
        assert_eq!(
            fs::read_to_string(place("pulled")).expect("reads"),
            "image\n"
        );
        // Also for somebody who still speaks through it.
        ended();
        is_closed(port);
        let again = space.run([environment]).ok();
        assert!(again.stderr.contains("nothing to do"), "{again}");
        for (number, signal) in [Signal::KILL, Signal::INT].into_iter().enumerate() {
            for path in ["pulled", "ended", "done"] {
                fs::remove_file(place(path)).expect("removes");
            }
            fs::write(place("hang"), "").expect("writes");
            let version = format!("v={}", number + 2);
            let job = space.begin([environment, "--var", &version, "--force"]);
            wait_until("the pull", || place("done").exists().then_some(()));
            job.signal(signal);
            let _ = job.finish();
            ended();
            is_closed(port);
            fs::remove_file(place("hang")).expect("removes");
        }
    }
}

#[test]
fn a_port_that_can_not_be_had_is_a_step_that_failed() {
    let mut hosts = Hosts::start(1);
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("listens");
    let port = taken.local_addr().expect("an address").port();
    let space = pulling(&hosts, port, "127.0.0.1:9");
    fs::create_dir(space.path("here")).expect("creates");
    let shown = |output: &Output| output.stderr.replace(&port.to_string(), "[PORT]");
    let refused = space.run(["e"]).fails(1);
    assert_snapshot!(shown(&refused), @"
         run h1  pull/line  never done here
      failed h1  pull/line  exit status 1
      undone h1  pull/line
    error: cannot open the port `127.0.0.1:[PORT]` on host `h1`
      says     Error: remote port forwarding failed for listen port [PORT]
      perhaps  it is in use there, or its sshd forbids it (`AllowTcpForwarding`, `PermitListen`)
      step     pull/line
      undone   1 step
      log      .rel/logs/e.log
      help: all steps were rolled back; fix the error and run the same command again
    ");
    let refused = space.run(["l"]).fails(1);
    assert_snapshot!(shown(&refused), @"
         run here  pull/line  never done here
      failed here  pull/line  exit status 1
      undone here  pull/line
    error: cannot open the port `127.0.0.1:[PORT]` on host `here`
      says     cannot listen on 127.0.0.1:[PORT]: address already in use
      perhaps  it is in use
      step     pull/line
      undone   1 step
      log      .rel/logs/l.log
      help: all steps were rolled back; fix the error and run the same command again
    ");
    drop(taken);
    hosts.configure(0, "AllowTcpForwarding no");
    let forbidden = space.run(["e"]).fails(1);
    assert!(
        forbidden.stderr.contains("cannot open the port"),
        "{forbidden}"
    );
    let owed = hosts.all[0].srv(".rel/e/scopes");
    assert_eq!(fs::read_dir(owed).expect("lists").count(), 0);
    let nonsense = pulling(&hosts, port, "nowhere");
    let wrong = nonsense.run(["e", "--plan"]).fails(2);
    assert!(
        wrong
            .stderr
            .contains("`nowhere` is not an address with a port"),
        "{wrong}"
    );
}

#[test]
fn on_this_machine_the_responder_is_at_the_port_itself() {
    let port = free_port();
    let space = Space::new(
        r#"
host "here" local=#true root="here"
environment "e" {
    use "away" on="here"
}
environment "wrong" { use "away" on="here" status=99; }
"#,
    );
    space.write(
        "recipes/away.kdl",
        r#"recipe "away" {
    param "status" default="429"
    step "up" {
        responder "away" listen="127.0.0.1:PORT" status="{status}" { header "X-A" "b"; header "X-Empty" ""; }
    }
    step "ask" on-change="up" { wait port="127.0.0.1:PORT"; }
    step "work" on-change="up" { run "echo >there; while [ -e there ]; do sleep 0.05; done"; }
}"#
        .replace("PORT", &port.to_string()),
    );
    let wrong = space.run(["wrong"]).fails(2);
    assert!(wrong.stderr.contains("`99` is not a status"), "{wrong}");
    for signal in [Some(Signal::KILL), Some(Signal::INT), None] {
        let job = space.begin(["e", "--force"]);
        let there = space.path("here/there");
        wait_until("the work", || there.exists().then_some(()));
        let answer = ask(port);
        assert_eq!(answer, "429 | ");
        match signal {
            Some(signal) => job.signal(signal),
            None => fs::remove_file(&there).expect("removes"),
        }
        let _ = job.finish();
        is_closed(port);
        let _ = fs::remove_file(&there);
    }
}

/// The last use is at work when its port closes: nothing that comes later would notice.
#[test]
fn a_port_that_closes_during_the_last_use_fails_the_run() {
    let port = free_port();
    let space = Space::new(
        "host \"here\" local=#true root=\"here\"\nenvironment \"e\" { use \"away\" on=\"here\" wraps=\"work\"; use \"work\" on=\"here\"; }\n",
    );
    let away = "recipe \"away\" { step \"up\" { responder \"away\" listen=\"127.0.0.1:PORT\"; } }";
    space.write("recipes/away.kdl", away.replace("PORT", &port.to_string()));
    space.write(
        "recipes/work.kdl",
        r#"recipe "work" { step "work" { run "echo >there; while [ -e there ]; do sleep 0.05; done"; undo "echo >back"; } }"#,
    );
    let job = space.begin(["e"]);
    let there = space.path("here/there");
    wait_until("the work", || there.exists().then_some(()));
    space.shell("read -r pid born <here/.rel/e/ports/away; kill -KILL $pid");
    is_closed(port);
    fs::remove_file(&there).expect("removes");
    let failed = job.finish().fails(1);
    let words = format!("the port `127.0.0.1:{port}` on host `here` has closed");
    assert!(failed.stderr.contains(&words), "{failed}");
    assert!(space.has("here/back"), "{failed}");
}
