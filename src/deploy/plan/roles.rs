//! Roles: which of several hosts have a name just now, found by a probe. Pure.
//!
//! All hosts that may have a role are asked before anything is decided. What was found holds for
//! the whole run: what a run does may itself move a role, and must not change its mind by that.

use std::collections::BTreeMap;
use std::path::Path;

use crate::build::model::{Environment, Project};
use crate::core::error::{Error, Result, plural};
use crate::deploy::plan::Roles;
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::promotion::Promoted;
use crate::deploy::protocol::words::absolute_root;
use crate::deploy::recipe::library::Recipes;

/// A probe for one role, on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The role.
    pub role: String,
    /// The host.
    pub host: String,
    /// Succeeds where the host has it.
    pub command: String,
}

/// What a host said to a probe: exit status, and what was printed.
pub type ProbeReply = (i32, String);

impl PlanContext<'_> {
    /// Returns the probes of all roles.
    pub fn probes(&self) -> Result<Vec<Probe>> {
        let mut probes = Vec::new();
        for role in &self.environment.roles {
            for host in self.candidates(role)? {
                let names = self.names_on(host);
                let command = role.command.render(&|name| names.get(name).cloned());
                let command = command.map_err(|e| {
                    let error = Error::usage(e.to_string()).note("role", role.name.clone());
                    error.help(e.help())
                })?;
                probes.push(Probe {
                    role: role.name.clone(),
                    host: host.name.clone(),
                    command: command.to_string_lossy().into_owned(),
                });
            }
        }
        Ok(probes)
    }
}

/// Returns the probes of an environment's roles as it is called without arguments; none where it
/// cannot be.
pub fn probes_of(project: &Project, environment: &Environment, root: &Path) -> Vec<Probe> {
    let params = environment.params.iter();
    let params = params.map(|p| Some((p.name.clone(), p.default.clone()?)));
    let Some(params) = params.collect::<Option<BTreeMap<String, String>>>() else {
        return Vec::new();
    };
    let hosts = project.hosts.iter();
    let roots = hosts.map(|(name, host)| (name.clone(), absolute_root(host, root)));
    let world = PlanContext {
        project,
        environment,
        params: &params,
        version: None,
        artifacts: &|_| None,
        recipes: &Recipes::default(),
        secrets: &BTreeMap::new(),
        roots: &roots.collect(),
        promoted: &Promoted::None,
        holders: None,
    };
    world.probes().unwrap_or_default()
}

/// Returns who has each role. Where nothing is changed, it may be no host or too many; and hosts
/// that said nothing have none.
pub fn settle(
    environment: &Environment,
    probes: &[Probe],
    said: &BTreeMap<(String, String), ProbeReply>,
    is_question: bool,
) -> Result<Roles> {
    let mut roles = Roles::new();
    for role in &environment.roles {
        let of_role = probes.iter().filter(|p| p.role == role.name);
        let told: Vec<(&Probe, Option<&ProbeReply>)> = of_role
            .map(|p| (p, said.get(&(p.role.clone(), p.host.clone()))))
            .collect();
        let has = |(_, said): &&(&Probe, Option<&ProbeReply>)| {
            said.is_some_and(|(status, _)| *status == 0)
        };
        let holders: Vec<String> = told
            .iter()
            .filter(has)
            .map(|(p, _)| p.host.clone())
            .collect();
        let is_too_many = role
            .count
            .is_some_and(|count| holders.len() > count as usize);
        if !is_question && (holders.is_empty() || is_too_many) {
            return Err(wrong_number(environment, role, &holders, &told));
        }
        roles.insert(role.name.clone(), holders);
    }
    Ok(roles)
}

fn wrong_number(
    environment: &Environment,
    role: &crate::build::model::Role,
    holders: &[String],
    told: &[(&Probe, Option<&ProbeReply>)],
) -> Box<Error> {
    let (name, whose) = (&role.name, &environment.name);
    let mut error = Error::host(match (holders.len(), role.count) {
        (0, _) => format!("`{whose}` finds no host with the role `{name}`"),
        (found, count) => {
            let count = count.unwrap_or(1) as usize;
            let may = plural(count, "host");
            format!(
                "`{whose}` finds {found} hosts with the role `{name}`, of {count} {may} that may have it"
            )
        }
    });
    for (probe, said) in told {
        let words = match said {
            None => String::from("was not asked"),
            Some((0, text)) => format!("has it  {}", text.trim()),
            Some((status, text)) => format!("does not have it (status {status})  {}", text.trim()),
        };
        error = error.note(probe.host.clone(), words.trim_end());
    }
    let command = told.first().map_or("", |(probe, _)| probe.command.as_str());
    error.note("probe", command).help("nothing was changed")
}

/// Returns the error for roles that are not where they were; `None` while they are.
pub fn moved(environment: &str, was: &Roles, now: &Roles) -> Option<Box<Error>> {
    let moved = differences(was, now);
    if moved.is_empty() {
        return None;
    }
    let message = format!("a role of `{environment}` has changed since this run checked it");
    let mut error = Error::host(message);
    for (role, how) in moved {
        error = error.note(role, how);
    }
    Some(error.help("nothing was changed; run the same command again, which checks again"))
}

/// Returns which roles are elsewhere now, and from where to where.
pub fn differences(was: &Roles, now: &Roles) -> Vec<(String, String)> {
    let shown = |hosts: Option<&Vec<String>>| match hosts {
        Some(hosts) if !hosts.is_empty() => hosts.join(" "),
        _ => String::from("no host"),
    };
    let mut names: Vec<&String> = was.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let moved = names
        .into_iter()
        .filter(|name| was.get(*name) != now.get(*name));
    let how = |name: &String| {
        let how = format!("{} -> {}", shown(was.get(name)), shown(now.get(name)));
        (format!("role `{name}`"), how)
    };
    moved.map(how).collect()
}

/// Returns the roles of one host.
pub fn of_host(roles: &Roles, host: &str) -> Vec<String> {
    let has = roles
        .iter()
        .filter(|(_, hosts)| hosts.iter().any(|h| h == host));
    has.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::model::Role;

    fn environment(count: Option<u32>) -> Environment {
        let role = Role {
            name: "active".into(),
            on: Vec::new(),
            command: crate::core::template::Template::default(),
            count,
            place: crate::core::diagnostics::Span::default(),
        };
        Environment {
            name: "e".into(),
            roles: vec![role],
            ..Environment::default()
        }
    }

    #[test]
    fn a_role_is_with_as_many_hosts_as_may_have_it() {
        let check = |count, statuses: &[i32], expected: &str| {
            let hosts = statuses
                .iter()
                .enumerate()
                .map(|(i, s)| (format!("h{i}"), *s));
            let probe = |host: &String| Probe {
                role: "active".into(),
                host: host.clone(),
                command: "x".into(),
            };
            let probes: Vec<Probe> = hosts.clone().map(|(host, _)| probe(&host)).collect();
            // One that says nothing is down.
            let said = hosts.filter(|(_, status)| *status >= 0);
            let said = said.map(|(host, s)| (("active".to_owned(), host), (s, String::new())));
            let said = said.collect();
            let found = |is_question| match settle(&environment(count), &probes, &said, is_question)
            {
                Ok(roles) => roles["active"].join(" "),
                Err(error) => error.message.clone(),
            };
            assert_eq!(found(false), expected, "{count:?} {statuses:?}");
            assert!(!found(true).contains('`'));
        };
        check(None, &[0, 1], "h0");
        check(None, &[1, 0], "h1");
        check(None, &[0, 0], "h0 h1");
        check(Some(2), &[0, 3, 0], "h0 h2");
        check(Some(2), &[0, 3], "h0");
        check(None, &[1, 255], "`e` finds no host with the role `active`");
        check(None, &[-1, -1], "`e` finds no host with the role `active`");
        check(
            Some(1),
            &[0, 0],
            "`e` finds 2 hosts with the role `active`, of 1 host that may have it",
        );
    }

    #[test]
    fn what_moved_is_told() {
        let roles = |text: &str| -> Roles {
            let parts = text.split(';').filter_map(|part| part.split_once('='));
            let hosts = |list: &str| list.split_whitespace().map(str::to_owned).collect();
            parts
                .map(|(name, list)| (name.to_owned(), hosts(list)))
                .collect()
        };
        let (was, now) = (roles("a=h1;p=h2;q=h3"), roles("a=h2;p=;q=h3"));
        let expected = [("role `a`", "h1 -> h2"), ("role `p`", "h2 -> no host")];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(differences(&was, &now), expected);
        assert!(moved("e", &was, &was).is_none());
        assert_eq!(of_host(&was, "h2"), ["p"]);
    }
}
