//! Services that run although no use of the environment keeps them any more. Pure.
//!
//! A use that vanishes from the Releasefile, or gets another name, leaves what it had started. The
//! host keeps with each service the use that started it; older runs did not, and of what they
//! started nothing is said.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::deploy::plan::Seen;
use crate::deploy::plan::job::Job;

/// A service that runs on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Running {
    /// Its name among the services of the environment.
    pub service: String,
    /// The use that started it.
    pub label: String,
}

impl Running {
    /// Reads what a host says of one: its name and the use, with a tab between them.
    pub fn parse(line: &str) -> Option<Self> {
        let (service, label) = line.split_once('\t')?;
        Some(Self {
            service: service.to_owned(),
            label: label.to_owned(),
        })
    }
}

/// Returns the services, by host, whose use is none of `jobs`, on whatever host.
pub fn of(jobs: &[Job], seen: &BTreeMap<String, Seen>) -> BTreeMap<String, Vec<Running>> {
    let labels: BTreeSet<&str> = jobs.iter().map(|job| job.label.as_str()).collect();
    let left = seen.iter().map(|(host, seen)| {
        let all = seen.services.iter();
        let left = all.filter(|one| !labels.contains(one.label.as_str()));
        (host.clone(), left.cloned().collect::<Vec<_>>())
    });
    left.filter(|(_, left)| !left.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_with_its_use() {
        let running = Running::parse("web.1\tweb").expect("is one");
        assert_eq!(
            (running.service.as_str(), running.label.as_str()),
            ("web.1", "web")
        );
        assert_eq!(Running::parse("web.1"), None);
        let seen = BTreeMap::from([
            (
                "a".to_owned(),
                Seen {
                    services: vec![running.clone()],
                    ..Seen::default()
                },
            ),
            ("b".to_owned(), Seen::default()),
        ]);
        assert_eq!(
            of(&[], &seen),
            BTreeMap::from([("a".to_owned(), vec![running])])
        );
    }
}
