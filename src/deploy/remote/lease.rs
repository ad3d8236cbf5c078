//! `rel lock` and `rel unlock`: a person holds an environment, on all its hosts. And `--abandon`:
//! a person gives up a scope that cannot be left, and that keeps every run from going on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::core::progress::Progress;
use crate::deploy::plan::guards::{WINDOW, outside_window};
use crate::deploy::plan::host_query::QueryScope;
use crate::deploy::plan::orphans::{self, OrphanService};
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::lease_status::lease_refused_error;
use crate::deploy::protocol::program::{self, quote, seconds};
use crate::deploy::remote::deploy_windows::DeployWindows;
use crate::deploy::remote::host_pool::HostPool;
use crate::deploy::remote::lease_acquire::{self, LeaseMode, LeaseRequest};
use crate::deploy::remote::step_batch::first_bytes;
use crate::deploy::{DeployRequest, jobs, open, who_has_roles};

/// What `rel lock` and `rel unlock` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Locked {
    /// The hosts that it was done on.
    pub hosts: Vec<String>,
    /// Whose holds were ended, of persons and runs, without one's own.
    pub broken: Vec<String>,
}

/// Holds an environment for a person, on all its hosts once all their leases are had. Where one of
/// them cannot write it down after that, an error names it, and the others are held.
pub fn freeze(
    request: &DeployRequest<'_>,
    reason: &str,
    span: Option<Duration>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Locked> {
    let pool = all_hosts(request, LeaseMode::Run, progress, cancel)?;
    let span = span.map_or_else(|| String::from("-"), |s| seconds(s).to_string());
    let call = format!("rel_freeze {} {span}\n", quote(&column(reason)));
    let said = pool.try_each(&|_, member| {
        let told = member.session().call(&call, cancel)?;
        member.expect_reply(&told, "frozen").map(drop)
    })?;
    Ok(Locked {
        hosts: said.into_keys().collect(),
        broken: Vec::new(),
    })
}

/// Breaks a lock: one's own, or with a reason that of any user, and the lease of an active run.
pub fn unfreeze(
    request: &DeployRequest<'_>,
    reason: Option<&str>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Locked> {
    let mode = match reason {
        Some(_) => LeaseMode::Break,
        None => LeaseMode::Any,
    };
    let pool = all_hosts(request, mode, progress, cancel)?;
    let reason = reason.map(column).unwrap_or_default();
    let call = format!("rel_unfreeze {}\n", quote(&reason));
    let words = request.purpose.as_str();
    let said = pool.try_each(&|name, member| {
        let answer = member.session().call(&call, cancel)?;
        match answer.split_once(' ') {
            Some(("locked", held)) => Err(lease_refused_error(name, words, held)),
            _ => member.expect_reply(&answer, "unlocked").map(str::to_owned),
        }
    })?;
    let mut locked = Locked::default();
    for (host, whose) in said {
        let mut whose: Vec<&str> = whose.split('\t').filter(|w| !w.is_empty()).collect();
        if !whose.is_empty() {
            locked.hosts.push(host);
        }
        whose.retain(|w| *w != request.operator.who);
        locked.broken.extend(whose.into_iter().map(str::to_owned));
    }
    locked.broken.sort();
    locked.broken.dedup();
    Ok(locked)
}

/// What became of a scope that was to be given up, by host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AbandonedScopes {
    /// Files with the ways out of what was given up.
    pub abandoned: BTreeMap<String, String>,
    /// Hosts where it could be left after all.
    pub left: Vec<String>,
}

/// Gives up a scope that cannot be left, on all hosts that owe it; where it can be left that is
/// done instead.
///
/// # Errors
/// No host owes it; or a host owes another one, which is to be left first.
pub fn abandon(
    request: &DeployRequest<'_>,
    scope: &str,
    reason: &str,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<AbandonedScopes> {
    let pool = open(request, progress, cancel)?;
    let seen = pool.query(&[], QueryScope::Decide, cancel)?;
    let owes = |name: &&str| {
        seen.get(*name)
            .is_some_and(|s| s.scopes.iter().any(|s| s == scope))
    };
    let hosts: Vec<&str> = pool.names().filter(owes).collect();
    if hosts.is_empty() {
        let purpose = &request.purpose;
        let error = Error::usage(format!(
            "the scope `{scope}` is pending on no host of `{purpose}`"
        ));
        let owed: BTreeSet<&str> = seen
            .values()
            .flat_map(|s| &s.scopes)
            .map(String::as_str)
            .collect();
        let owed: Vec<&str> = owed.into_iter().collect();
        return Err(match owed.is_empty() {
            true => error.help("nothing is pending: nothing was changed"),
            false => error.note("owed", owed.join(" ")),
        });
    }
    let wanted = LeaseRequest {
        abandoned: Some(lease_acquire::ScopeToAbandon { scope, reason }),
        ..LeaseRequest::new(&hosts, &seen, LeaseMode::Run)
    };
    pool.lock(&wanted, progress, cancel)?;
    let said = pool.try_each(&|name, member| match hosts.contains(&name) {
        true => {
            let told = member.session().call("rel_report_abandoned\n", cancel)?;
            member
                .expect_reply(&told, "abandoned")
                .map(|file| Some(file.to_owned()))
        }
        false => Ok(None),
    })?;
    let mut done = AbandonedScopes::default();
    for (host, file) in said {
        match file {
            None => {}
            Some(file) if file.is_empty() => done.left.push(host),
            Some(file) => drop(done.abandoned.insert(host, file)),
        }
    }
    Ok(done)
}

/// Ends the services of uses that the environment does not have any more, and returns them by
/// host.
///
/// # Errors
/// The environment is outside of its window, a host is locked by another user, or a service does not
/// end.
pub fn remove_orphans(
    request: &DeployRequest<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BTreeMap<String, Vec<OrphanService>>> {
    let pool = open(request, progress, cancel)?;
    let roles = who_has_roles(request, &pool, cancel)?;
    let jobs = jobs(request, &pool, &roles)?;
    let ask = || {
        let seen = pool.query(&[], QueryScope::Decide, cancel)?;
        Ok::<_, Box<Error>>((orphans::of(request.environment, &jobs, &seen), seen))
    };
    let (mut found, seen) = ask()?;
    if found.is_empty() {
        return Ok(found);
    }
    let closed =
        DeployWindows::new(request.environment, request.operator.clock)?.why_closed(&|_| false);
    if let Some(opens) = closed.filter(|_| !request.policy.overrides.has(WINDOW)) {
        return Err(outside_window(&request.environment.name, &opens));
    }
    let hosts: Vec<String> = found.keys().cloned().collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let is_same = pool.lock(
        &LeaseRequest::new(&hosts, &seen, LeaseMode::Run),
        progress,
        cancel,
    )?;
    if !is_same {
        // Another run was there between the query and the lock: what is no orphan any more stays.
        found = ask()?.0;
        found.retain(|host, _| hosts.contains(&host.as_str()));
    }
    pool.try_each(&|host, member| {
        let own = found.get(host).into_iter().flatten();
        let body: String = own
            .map(|one| program::end_orphan(&one.service, &one.label))
            .collect();
        if body.is_empty() {
            return Ok(());
        }
        let text = member.header.program(&body);
        let mut said = String::new();
        let status = member.session().run(&text, cancel, &mut |frame| {
            if let Frame::Output(line) = frame {
                said = first_bytes(line);
            }
            None
        })?;
        match status {
            0 => Ok(()),
            _ => Err(
                Error::host(format!("a service on host `{host}` does not end")).note("says", said),
            ),
        }
    })?;
    Ok(found)
}

/// Opens all hosts of an environment and takes their leases.
fn all_hosts(
    request: &DeployRequest<'_>,
    mode: LeaseMode,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<HostPool> {
    let pool = open(request, progress, cancel)?;
    let names: Vec<&str> = pool.names().collect();
    let nothing = BTreeMap::new();
    let wanted = LeaseRequest::new(&names, &nothing, mode);
    pool.lock(&wanted, progress, cancel)?;
    Ok(pool)
}
