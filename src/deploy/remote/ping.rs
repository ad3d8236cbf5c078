//! Hosts themselves: whether each answers within a time, its system, its free disk.
//!
//! All are asked at once, each in one round trip; one that does not answer is a line of
//! the answer and no error.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::build::model::{Host, Reach};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::deploy::ConnectionOptions;
use crate::deploy::plan::host_query::ANSWER_MAX;
use crate::deploy::plan::roles::Probe;
use crate::deploy::protocol::program::{Header, LEASE_TIME, quote};
use crate::deploy::protocol::words::absolute_root;
use crate::deploy::remote::gates::{self, Gates};
use crate::deploy::remote::host_pool::{self, make_private};
use crate::deploy::remote::session::Session;
use crate::deploy::remote::session_header::nonce;
use crate::deploy::remote::transport::{System, Transports};

/// Number of the first question that is the probe of a role.
const FIRST_PROBE: usize = 2;

/// What asking needs to know of this machine.
pub struct Asking<'a> {
    /// Absolute path of the repository's root.
    pub root: &'a Path,
    /// How hosts are reached from here.
    pub connection: &'a ConnectionOptions<'a>,
    /// Probes of roles, each with what it is called here.
    pub probes: Vec<(String, Probe)>,
    /// A host that has not answered by then is not waited for.
    pub limit: Duration,
    /// The machines that answer are the ones that are meant from now on.
    pub is_accepting: bool,
}

/// What a host said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// Its name in the Releasefile.
    pub host: String,
    /// `local`, or where `ssh` goes.
    pub reach: String,
    /// Directory that belongs to `rel` there.
    pub root: String,
    /// It answered.
    pub is_reachable: bool,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The roles that it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Free space where `root` is, in KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_kib: Option<u64>,
}

/// Asks all hosts at once.
pub fn ask(hosts: &[&Host], asking: &Asking<'_>, cancel: &Cancel) -> Result<Vec<HostFacts>> {
    if hosts.iter().any(|h| h.reach != Reach::Local) {
        make_private(&asking.connection.control_dir)?;
    }
    let system = System::new(asking.connection);
    let start = || system.start();
    let ways = Transports::new(system.clone(), &start, asking.connection.variable);
    let gates = Gates::new(gates::EACH);
    let stop = Cancel::default();
    let (sender, ended) = channel();
    let deadline = Instant::now() + asking.limit;
    let told = std::thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| {
                let (ways, gates, stop, sender) = (&ways, &gates, &stop, sender.clone());
                scope.spawn(move || {
                    let result = one(host, asking, ways, gates, stop);
                    // No caller waits for it after the deadline.
                    let _ = sender.send(());
                    result
                })
            })
            .collect();
        drop(sender);
        let has_ended = |_| matches!(cancel.receive(&ended, deadline), Ok(Some(())));
        if !(0..hosts.len()).all(has_ended) {
            stop.set();
        }
        let joined = threads.into_iter().map(|t| t.join());
        joined.collect::<Vec<_>>()
    });
    cancel.check()?;
    let facts = hosts.iter().zip(told).map(|(host, told)| {
        let mut facts = HostFacts {
            host: host.name.clone(),
            reach: shown_reach(host),
            root: host.root.clone(),
            ..HostFacts::default()
        };
        match told {
            Ok(Ok(answers)) => facts.take(&answers, &asking.probes),
            Ok(Err(error)) => facts.why = Some(why_not(&error, asking.limit)),
            Err(_) => facts.why = Some("a host's thread panicked: a bug of rel".into()),
        }
        facts
    });
    Ok(facts.collect())
}

fn one(
    host: &Host,
    asking: &Asking<'_>,
    ways: &Transports<'_>,
    gates: &Arc<Gates>,
    stop: &Cancel,
) -> Result<BTreeMap<usize, String>> {
    // Here and not for all: one that takes long must not keep the others.
    let system = ways.to(std::iter::once(host), stop);
    let root = absolute_root(host, asking.root);
    let header = Header {
        nonce: nonce()?,
        // Nothing is kept there for a question about the machine alone.
        state: String::new(),
        project: String::new(),
        root,
        name: String::new(),
        run: "-".into(),
        who: "-".into(),
        purpose: "-".into(),
        lease: LEASE_TIME,
        may_write_foreign: host.into_foreign,
        project_uid: None,
        checkout: None,
    };
    let mut session = Session::new(Arc::new(system), gates.clone(), host, &header);
    let machines = &asking.connection.machines;
    if !asking.is_accepting {
        session.known = machines.known(&host.name).cloned();
    }
    let root = match header.root.starts_with('/') {
        true => header.root.clone(),
        false => session.hello(stop).inspect_err(|_| session.kill())?,
    };
    let (body, count) = questions(host, &root, asking);
    match session.ask(
        &body,
        &|number| (number < count).then_some(ANSWER_MAX),
        stop,
    ) {
        Ok(replies) => {
            let machine = &session.told.machine;
            match (&host.reach, asking.is_accepting) {
                (Reach::Local, _) => {}
                (Reach::Ssh { .. }, true) => machines.accept(&host.name, machine),
                (Reach::Ssh { .. }, false) => machines.learn(&host.name, machine),
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            let good = replies.iter().filter(|r| r.status == 0);
            Ok(good.map(|r| (r.tag, text(&r.bytes))).collect())
        }
        Err(error) => {
            session.kill();
            Err(error)
        }
    }
}

/// Returns what a host is asked, and how many questions that are.
fn questions(host: &Host, root: &str, asking: &Asking<'_>) -> (String, usize) {
    let questions = [
        "if [ -r /etc/os-release ]; then . /etc/os-release; printf '%s %s' \"${PRETTY_NAME:-}\" \
         \"$(uname -m)\"; else uname -srm; fi"
            .to_owned(),
        format!(
            "d={}; until [ -e \"$d\" ]; do d=${{d%/*}}; d=${{d:-/}}; done\n\
             set -- $(df -Pk -- \"$d\" | tail -n 1); printf %s \"$4\"",
            quote(root)
        ),
    ];
    let probes = asking.probes.iter().enumerate();
    let probes = probes.filter(|(_, (_, probe))| probe.host == host.name);
    let probes = probes.map(|(index, (_, probe))| (FIRST_PROBE + index, probe.command.as_str()));
    let lines: Vec<String> = questions
        .iter()
        .enumerate()
        .map(|(tag, script)| (tag, script.as_str()))
        .chain(probes)
        .map(|(tag, script)| format!("rel_ask {tag} {}\n", quote(script)))
        .collect();
    (lines.concat(), lines.len())
}

impl HostFacts {
    fn take(&mut self, answers: &BTreeMap<usize, String>, probes: &[(String, Probe)]) {
        self.is_reachable = true;
        let named = probes.iter().enumerate();
        let has = named.filter(|(index, (_, probe))| {
            probe.host == self.host && answers.contains_key(&(FIRST_PROBE + index))
        });
        self.roles = has.map(|(_, (name, _))| name.clone()).collect();
        self.system = answers
            .get(&0)
            .map(|text| crate::deploy::protocol::journal::column(text));
        self.free_kib = answers.get(&1).and_then(|text| text.parse().ok());
    }
}

fn shown_reach(host: &Host) -> String {
    let Reach::Ssh {
        destination,
        port,
        jump,
        ..
    } = &host.reach
    else {
        return String::from("local");
    };
    let port = port.map_or(String::new(), |p| format!(":{p}"));
    let jump = jump.as_ref().map_or(String::new(), |j| format!(" by {j}"));
    format!("ssh {destination}{port}{jump}")
}

/// Returns one line that says why a host did not answer.
fn why_not(error: &Error, limit: Duration) -> String {
    if error.kind == ErrorKind::Interrupted {
        return format!("no answer within {}", humantime::format_duration(limit));
    }
    host_pool::why_not(error)
}
