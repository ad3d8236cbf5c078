//! A site behind HAProxy while its servers are released to: nobody who asks it meets a failure.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::hosts::{Hosts, ask_site, free_port};
use crate::space::{Output, Space, wait_until};

/// Servers of the site.
const SERVERS: usize = 3;
/// So many requests at least are asked of it in each part.
const REQUESTS: usize = 15_000;
/// So many at a time.
const CLIENTS: usize = 24;
/// Bytes of a page: at the rate that the servers keep to, a request takes a few milliseconds, and
/// some are under way at any time.
const PAGE: usize = 4096;

/// Takes a server out of the site, or lets it in again: by the runtime API of HAProxy, as its
/// management guide describes `set server` and `show stat`. `drain` returns when nobody has been
/// served there for a moment (a request that has its server already may not be counted yet); `ready` when HAProxy has found it up, or after a while: one that is down gets
/// no requests.
const SERVER: &str = r##"
import csv, io, socket, sys, time
path, word, name = sys.argv[1:]
def ask(text):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.sendall(text.encode() + b"\n")
    said = b""
    while part := line.recv(65536):
        said += part
    return said.decode()
said = ask(f"set server site/{name} state {word}").strip()
if said:
    sys.exit(said)
end = time.monotonic() + 5
quiet = 0
while time.monotonic() < end and quiet < 3:
    rows = csv.DictReader(io.StringIO(ask("show stat").lstrip("# ")))
    own = next(row for row in rows if row["pxname"] == "site" and row["svname"] == name)
    is_so = own["scur"] == "0" if word == "drain" else own["status"] == "UP"
    quiet = quiet + 1 if is_so else 0
    time.sleep(0.02)
"##;

/// A page of some bytes, whose letters are the version.
const NGINX: &str = "
daemon off;
pid nginx.pid;
worker_processes 1;
error_log nginx.error;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
    server { listen 127.0.0.1:PORT; root app/current/artifact; limit_rate 400k; }
}
";

struct Site {
    hosts: Hosts,
    space: Space,
    front: u16,
    haproxy: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

impl Site {
    fn start() -> Self {
        let hosts = Hosts::start(SERVERS);
        let space = Space::new("");
        let front = free_port();
        let ports: Vec<u16> = hosts.all.iter().map(|_| free_port()).collect();
        for (host, port) in hosts.all.iter().zip(&ports) {
            let conf = NGINX.replace("PORT", &port.to_string());
            fs::write(host.srv("nginx.conf"), conf).expect("writes");
            let up = format!("import socket; socket.create_connection((\"127.0.0.1\", {port}))");
            fs::write(host.srv("up.py"), up).expect("writes");
        }
        space.write("server.py", SERVER);
        let call = format!(
            "python3 {0}/server.py {0}/haproxy.sock",
            space.path("").display()
        );
        space.write(
            "recipes/drained.kdl",
            format!(
                r#"recipe "drained" {{
    step "drain" {{ scope "{{use}}" enter="{call} drain {{host.name}}" leave="{call} ready {{host.name}}"; }}
}}"#
            ),
        );
        space.write(
            "Releasefile.kdl",
            format!(
                r#"{hosts}
var "v" "1"
target "site" {{
    outputs "index.html"
    run "head -c {PAGE} /dev/zero | tr '\\0' {{v}} >index.html"
}}
environment "production" {{
    needs "site"
    rollout "upgrade" on="h[1-{SERVERS}]" serial="1" {{
        use "drained" wraps="app nginx"
        use "versioned-release" as="app" artifact="{{site}}" root="{{host.root}}/app"
        use "service" as="nginx" after="app" run="exec nginx -p {{host.root}}/ -c nginx.conf -e nginx.error" ready="python3 up.py"
        gate command="test ! -e broken" within="1ms"
    }}
}}
"#,
                hosts = hosts.kdl()
            ),
        );
        let conf = servers(&ports, front, &space);
        space.write("haproxy.cfg", conf);
        let haproxy = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(space.path("haproxy.cfg"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        let site = Self {
            hosts,
            space,
            front,
            haproxy,
        };
        wait_until("haproxy", || site.space.has("haproxy.sock").then_some(()));
        let _ = site.run(1).ok();
        wait_until("the site", || ask(front).ok());
        site
    }

    fn run(&self, version: u32) -> Output {
        self.space.run(Self::args(version))
    }

    fn args(version: u32) -> [String; 3] {
        ["production".into(), "--var".into(), format!("v={version}")]
    }

    /// Does something while the site is asked; returns how often each version answered, and what
    /// else was met.
    fn under_load(&self, act: impl FnOnce()) -> BTreeMap<String, usize> {
        let load = Load::start(self.front);
        act();
        load.end()
    }
}

fn servers(ports: &[u16], front: u16, space: &Space) -> String {
    let server = |(at, port): (usize, &u16)| {
        format!(
            "    server h{} 127.0.0.1:{port} check inter 50ms fall 1 rise 1\n",
            at + 1
        )
    };
    let servers: String = ports.iter().enumerate().map(server).collect();
    format!(
        "global\n    stats socket {} mode 600 level admin\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 10s\n    timeout server 10s\n\
         listen site\n    bind 127.0.0.1:{front}\n    balance roundrobin\n{servers}",
        space.path("haproxy.sock").display()
    )
}

/// Asks a site once; returns the letter of its page.
fn ask(port: u16) -> Result<String, String> {
    let text = ask_site(port).map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.starts_with("HTTP/1.1 200") && body.len() == PAGE {
        true => Ok(body[..1].to_owned()),
        false => Err(format!(
            "{} with {} bytes",
            head.lines().next().unwrap_or(""),
            body.len()
        )),
    }
}

/// Clients that ask a site again and again.
struct Load {
    met: Arc<Mutex<BTreeMap<String, usize>>>,
    count: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let met: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let (count, is_over): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let client = || {
            let (met, count, is_over) = (met.clone(), count.clone(), is_over.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let answer = ask(port).unwrap_or_else(|error| format!("failed: {error}"));
                    *met.lock().expect("locks").entry(answer).or_default() += 1;
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Self {
            met,
            count,
            is_over,
            clients,
        }
    }

    /// Goes on until there were enough requests.
    fn end(self) -> BTreeMap<String, usize> {
        while self.count.load(Ordering::SeqCst) < REQUESTS {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.is_over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client");
        }
        let met = self.met.lock().expect("locks");
        met.clone()
    }
}

/// Nobody met anything but these versions, and all of them.
#[track_caller]
fn check(met: &BTreeMap<String, usize>, versions: &[&str]) {
    assert_eq!(met.keys().collect::<Vec<_>>(), versions, "{met:?}");
    assert!(met.values().sum::<usize>() >= REQUESTS);
}

#[test]
fn a_rolling_release_and_its_rollback_fail_no_request() {
    let site = Site::start();
    check(&site.under_load(|| drop(site.run(2).ok())), &["1", "2"]);
    let back = || drop(site.space.run(["production", "--rollback"]).ok());
    check(&site.under_load(back), &["1", "2"]);
    assert_eq!(ask(site.front).as_deref(), Ok("1"));
}

#[test]
fn a_run_that_is_killed_in_a_wave_then_resumed_and_fails_fails_no_request() {
    let site = Site::start();
    let met = site.under_load(|| {
        let job = site.space.begin(Site::args(2));
        wait_until("the second wave", || {
            let text = job.stderr();
            let (_, wave) = text.split_once("wave 2 of 3")?;
            wave.contains("run h2  app/switch").then_some(())
        });
        job.signal(Signal::KILL);
        let _ = job.finish();
        fs::write(site.hosts.all[2].srv("broken"), "").expect("writes");
        let failed = site.run(2).fails(1);
        for wave in 1..=SERVERS {
            assert!(
                failed
                    .stderr
                    .contains(&format!("wave {wave} of 3 of `upgrade` is rolled back")),
                "{failed}"
            );
        }
    });
    check(&met, &["1", "2"]);
    let met = site.under_load(|| ());
    check(&met, &["1"]);
}
