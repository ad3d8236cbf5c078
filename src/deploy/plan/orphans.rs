//! Services that run although no use of the environment keeps them any more. Pure.
//!
//! A use that vanishes from the Releasefile, or gets another name, leaves what it had started. The
//! host keeps with each service the use that started it; older runs did not, and of what they
//! started nothing is known.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::build::model::Environment;
use crate::deploy::plan::HostState;
use crate::deploy::plan::use_on_host::UseOnHost;

/// A service that runs on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OrphanService {
    /// Its name among the services of the environment.
    pub service: String,
    /// The use that started it.
    pub label: String,
}

impl OrphanService {
    /// Reads what a host says of one: its name and the use, with a tab between them.
    pub fn parse(line: &str) -> Option<Self> {
        let (service, label) = line.split_once('\t')?;
        Some(Self {
            service: service.to_owned(),
            label: label.to_owned(),
        })
    }
}

/// Returns the services, by host, whose use is none of `jobs` there. Where hosts have roles, which
/// can move or have no host, it is none of the environment.
pub fn of(
    environment: &Environment,
    jobs: &[UseOnHost],
    seen: &BTreeMap<String, HostState>,
) -> BTreeMap<String, Vec<OrphanService>> {
    let here = jobs
        .iter()
        .map(|job| (job.host.as_deref(), job.label.as_str()));
    let here: BTreeSet<_> = here.collect();
    let is_kept = |host: &str, one: &OrphanService| match environment.roles.is_empty() {
        true => here.contains(&(Some(host), one.label.as_str())),
        // Behind the name stand the values of an axis.
        false => environment.uses.iter().any(|own| {
            let rest = one.label.strip_prefix(own.label.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        }),
    };
    let left = seen.iter().map(|(host, seen)| {
        let left = seen.services.iter().filter(|one| !is_kept(host, one));
        (host.clone(), left.cloned().collect::<Vec<_>>())
    });
    left.filter(|(_, left)| !left.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_with_its_use() {
        let running = OrphanService::parse("web.1\tweb").expect("is one");
        assert_eq!(
            (running.service.as_str(), running.label.as_str()),
            ("web.1", "web")
        );
        assert_eq!(OrphanService::parse("web.1"), None);
        let seen = BTreeMap::from([
            (
                "a".to_owned(),
                HostState {
                    services: vec![running.clone()],
                    ..HostState::default()
                },
            ),
            ("b".to_owned(), HostState::default()),
        ]);
        assert_eq!(
            of(&Environment::default(), &[], &seen),
            BTreeMap::from([("a".to_owned(), vec![running])])
        );
    }
}
