//! Modes that a run enters and leaves: a site that says that it is being changed, and ports of
//! a host that lead here. They end with the run, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use insta::assert_snapshot;
use rustix::process::Signal;

use crate::hosts::{Hosts, free_port};
use crate::space::{Output, PATIENCE, Space, wait_until};

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
    fn start() -> Self {
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
    use "maintenance" on="h1" listen="127.0.0.1:{away}" because="{{v}}" {{
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
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: site\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = match answer() {
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
    let site = Site::start();
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
}

#[test]
fn however_a_run_ends_the_front_leads_to_the_site_again() {
    let site = Site::start();
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
