//! Follows what goes on detached on the hosts of an environment, or ends it.
//!
//! `rel attach` holds no lease and changes nothing: only how it ended is written down, under
//! the lease, where no other run holds that. What follows from the end is the next run's matter.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

use crate::core::cancel::Cancel;
use crate::core::error::{ErrorKind, Result};
use crate::core::progress::{Event, Progress};
use crate::core::sync::lock;
use crate::deploy::plan::HostState;
use crate::deploy::plan::host_query::QueryScope;
use crate::deploy::plan::use_on_host::redactor;
use crate::deploy::protocol::detached::{Detached, DetachedState};
use crate::deploy::protocol::frames::{Frame, unanswered};
use crate::deploy::protocol::program::quote;
use crate::deploy::remote::host_pool::{HostConnection, HostPool};
use crate::deploy::remote::lease_acquire::{LeaseMode, LeaseRequest};
use crate::deploy::{DeployRequest, open, world};

/// How one detached step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// Where.
    pub host: String,
    /// Its name in the journal.
    pub step: String,
    /// A person ended it now.
    pub is_stopped: bool,
    /// Its exit status; `None` where none was recorded.
    pub status: Option<i32>,
    /// In a word how it stands.
    pub state: DetachedState,
}

/// What became of what goes on detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// How it ended, as far as that is known.
    pub endings: Vec<Ending>,
    /// Hosts that did not answer: what goes on there is not known.
    pub down: Vec<String>,
    /// Whether any host answered.
    pub is_any_up: bool,
}

/// Takes a line of a step: host, step, text.
pub type Lines<'a> = &'a (dyn Fn(&str, &str, &[u8]) + Sync);

/// What is gone through on one host.
type Work<'a> = &'a (dyn Fn(&str, &HostConnection, &Detached) -> Result<Ending> + Sync);

/// Follows all that goes on until it has ended; what ended unnoticed is reported too.
pub fn follow(
    request: &DeployRequest<'_>,
    lines: Lines<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Attached> {
    let (pool, seen, attached) = ask(request, progress, cancel)?;
    let endings = each(&pool, &seen, &|host, member, one| {
        let body = format!("rel_detached_attach {}\n", quote(&one.dir));
        told(host, member, one, &body, lines, cancel)
    });
    let endings = endings.map_err(|error| match error.kind {
        ErrorKind::Interrupted => error.help("it continues on the hosts"),
        _ => error,
    })?;
    note_ends(&pool, &seen, progress, cancel)?;
    Ok(Attached {
        endings,
        ..attached
    })
}

/// Ends all that goes on, under the leases.
pub fn stop(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Attached> {
    let (pool, seen, attached) = ask(request, progress, cancel)?;
    let hosts: Vec<&str> = seen.keys().map(String::as_str).collect();
    let wanted = LeaseRequest::new(&hosts, &seen, LeaseMode::Run);
    pool.lock(&wanted, progress, cancel)?;
    let endings = each(&pool, &seen, &|host, member, one| {
        let body = format!("rel_detached_halt {}\n", quote(&one.dir));
        told(host, member, one, &body, &|_, _, _| {}, cancel)
    })?;
    Ok(Attached {
        endings,
        ..attached
    })
}

/// Returns the hosts that answer and have something detached, with what they say, and which hosts
/// do not answer.
fn ask(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(HostPool, BTreeMap<String, HostState>, Attached)> {
    let pool = open(request, progress, cancel)?;
    // Their secrets are shown nowhere.
    let jobs = world(request, &pool.roots(), None)?.jobs()?;
    pool.hide(&redactor(&jobs));
    let answers = pool.query_reachable(&[], QueryScope::Decide, cancel)?;
    for (host, why) in &answers.down {
        let text = format!("host `{host}` does not answer: {why}");
        progress.event(&Event::Warning { text: &text });
    }
    let mut seen = answers.seen;
    let attached = Attached {
        endings: Vec::new(),
        down: answers.down.into_keys().collect(),
        is_any_up: !seen.is_empty(),
    };
    seen.retain(|_, s| s.open_detached().next().is_some());
    Ok((pool, seen, attached))
}

/// Goes through what is detached, on all hosts at once, on each in order.
fn each(
    pool: &HostPool,
    seen: &BTreeMap<String, HostState>,
    work: Work<'_>,
) -> Result<Vec<Ending>> {
    let all = pool.try_each(&|host, member| {
        let own = seen
            .get(host)
            .into_iter()
            .flat_map(HostState::open_detached);
        own.map(|one| work(host, member, one))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(all.into_values().flatten().collect())
}

/// Runs a program about one step and returns what it tells of the end.
fn told(
    host: &str,
    member: &HostConnection,
    one: &Detached,
    body: &str,
    lines: Lines<'_>,
    cancel: &Cancel,
) -> Result<Ending> {
    let ending = Mutex::new(Ending {
        host: host.to_owned(),
        step: one.id.clone(),
        is_stopped: false,
        status: None,
        state: one.state,
    });
    let program = member.header.program(body);
    let status = member.session().run(&program, cancel, &mut |frame| {
        match frame {
            Frame::Output(line) => lines(host, &one.id, line),
            Frame::Event(text) => {
                let words: Vec<&str> = text.split(' ').collect();
                if let ["attached", state, code] = words.as_slice() {
                    let mut ending = lock(&ending);
                    ending.is_stopped = *state == "stopped";
                    ending.status = code.parse().ok();
                    ending.state = match *state {
                        "ended" | "stopped" => DetachedState::Ended,
                        "restarted" => DetachedState::Restarted,
                        _ => DetachedState::Killed,
                    };
                }
            }
            _ => {}
        }
        None
    })?;
    if status != 0 {
        return Err(unanswered(host, &format!("the supervisor of `{}`", one.id)));
    }
    let ending = lock(&ending).clone();
    Ok(ending)
}

/// Writes the ends down where no other run is active; else that run does it.
fn note_ends(
    pool: &HostPool,
    seen: &BTreeMap<String, HostState>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    for (host, seen_there) in seen {
        let hosts = [host.as_str()];
        let wanted = LeaseRequest::new(&hosts, seen, LeaseMode::Run);
        if let Err(error) = pool.lock(&wanted, progress, cancel) {
            match error.kind {
                ErrorKind::Interrupted => return Err(error),
                _ => {
                    let text = format!("the end is not recorded yet: {}", error.message);
                    progress.event(&Event::Warning { text: &text });
                    continue;
                }
            }
        }
        let body: String = seen_there
            .open_detached()
            .map(|one| format!("rel_detached_note {}\n", quote(&one.dir)))
            .collect();
        let member = pool.member(host)?;
        let program = member.header.program(&body);
        let status = member.session().run(&program, cancel, &mut |_| None)?;
        if status != 0 {
            let text = format!("the end is not recorded yet: host `{host}` could not");
            progress.event(&Event::Warning { text: &text });
        }
    }
    Ok(())
}
