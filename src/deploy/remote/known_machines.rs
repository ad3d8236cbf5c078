//! Which machine each host's name stood for: a name that leads to another one stops the run.
//!
//! `ssh` knows host keys by address. The address of a host can be that of another machine: behind
//! another jump host, in another network, by a changed alias. So two records are kept: in the state
//! directory of the checkout the machine that each name stood for, and in the state directory on the
//! host the name under which it was reached and the machine that it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::core::error::{Error, Result};
use crate::core::fs;
use crate::core::storage;
use crate::core::sync::lock;
use crate::deploy::protocol::host_identity::HostIdentity;

/// File of the checkout's state directory.
pub const FILE: &str = "machines.v1";

/// What a guard says of its machine before its first answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The machine.
    pub machine: HostIdentity,
    /// For which host, and on which machine, its state directory was written.
    pub written: Option<(String, HostIdentity)>,
    /// A place for temporary files that is full, and the one that is used instead.
    pub full: Option<(String, String)>,
    /// The project that keeps its state where this one would: this one begins to keep its own
    /// beside it.
    pub other: Option<String>,
}

impl Told {
    /// Takes an event of the guard; `words` are `ID KEY`, and behind `state` also a name first.
    pub fn take(&mut self, event: &str, words: &str) {
        if event == "apart" {
            self.other = Some(words.to_owned());
            return;
        }
        let words: Vec<&str> = words.split(' ').collect();
        match (event, words.as_slice()) {
            ("full", [full, used]) => self.full = Some(((*full).into(), (*used).into())),
            ("machine", [id, key]) => self.machine = HostIdentity::new(id, key),
            ("state", [name, id, key]) => {
                self.written = Some(((*name).to_owned(), HostIdentity::new(id, key)));
            }
            _ => {}
        }
    }

    /// Checks that the host `name` leads to the machine that a saved plan was made of.
    ///
    /// # Errors
    /// It leads to another one.
    pub fn check_plan(&self, name: &str, planned: Option<&HostIdentity>) -> Result<()> {
        let now = &self.machine;
        let Some(planned) = planned.filter(|planned| planned.is_not(now)) else {
            return Ok(());
        };
        let message = format!("host `{name}` is another machine than when this plan was made");
        Err(Error::host(message)
            .note("known", planned.shown())
            .note("found", now.shown())
            .note("compared", planned.compared(now))
            .help("nothing was changed there; save a new plan with `--plan-out`"))
    }

    /// Checks that the host `name` leads to the machine that it stood for.
    ///
    /// # Errors
    /// It leads to another one, to one that tells nothing of what is known, or to the state of
    /// another host.
    pub fn check(&self, name: &str, known: Option<&HostIdentity>, state: &str) -> Result<()> {
        let now = &self.machine;
        let (message, was, compared) = match (known, &self.written) {
            (Some(known), _) if known.is_not(now) => {
                (another(name), known.shown(), Some(known.compared(now)))
            }
            // What is known here was seen, or accepted by a person.
            (Some(_), _) | (None, None) => return Ok(()),
            (None, Some((other, _))) if other != name => (
                format!("host `{name}` has the state directory of host `{other}`"),
                format!("{state} is that of `{other}`"),
                None,
            ),
            (None, Some((_, then))) if then.is_not(now) => {
                (another(name), then.shown(), Some(then.compared(now)))
            }
            (None, Some(_)) => return Ok(()),
        };
        let mut error = Error::host(message)
            .note("known", was)
            .note("found", now.shown());
        if let Some(compared) = compared {
            error = error.note("compared", compared);
        }
        Err(error.help(format!(
            "nothing was changed there; if that machine is meant: `rel hosts --accept {name}`"
        )))
    }
}

fn another(name: &str) -> String {
    format!("host `{name}` is another machine than before")
}

/// The machines of a checkout's hosts.
#[derive(Debug, Default)]
pub struct KnownMachines {
    /// Where they are kept; nowhere, if nothing may be written.
    path: Option<PathBuf>,
    known: BTreeMap<String, HostIdentity>,
    learned: Mutex<BTreeMap<String, HostIdentity>>,
}

impl KnownMachines {
    /// Reads what is known. A file that is missing or damaged knows nothing.
    pub fn read(path: Option<PathBuf>) -> Self {
        let read = |path| fs::read_optional(path).ok().flatten();
        let bytes = path.as_deref().and_then(read);
        Self {
            known: bytes.and_then(|b| storage::decode(&b)).unwrap_or_default(),
            path,
            learned: Mutex::default(),
        }
    }

    /// Returns the machine that a host's name stood for.
    pub fn known(&self, host: &str) -> Option<&HostIdentity> {
        self.known.get(host)
    }

    /// Notes which machine a host is. Of the one that is known, what it does not say now stays.
    pub fn learn(&self, host: &str, machine: &HostIdentity) {
        let known = self.known.get(host);
        let machine = match known {
            Some(known) if !known.is_another(machine) => machine.or(known),
            _ => machine.clone(),
        };
        if !machine.is_unknown() && known != Some(&machine) {
            lock(&self.learned).insert(host.to_owned(), machine);
        }
    }

    /// Notes that a host is this machine, whatever it was before.
    pub fn accept(&self, host: &str, machine: &HostIdentity) {
        lock(&self.learned).insert(host.to_owned(), machine.clone());
    }

    /// Writes what was learned, beside what others have written meanwhile.
    pub fn keep(&self) -> Result<()> {
        let learned = std::mem::take(&mut *lock(&self.learned));
        let (false, Some(path)) = (learned.is_empty(), &self.path) else {
            return Ok(());
        };
        let mut all = Self::read(Some(path.clone())).known;
        all.extend(learned);
        fs::write_lightly(path, &storage::encode(&all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::deploy::protocol::host_identity::tests::{ID, KEY, OTHER};

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let (here, there) = (HostIdentity::new(ID, KEY), HostIdentity::new(OTHER, KEY));
        let none = HostIdentity::default();
        let said = |machine: &HostIdentity, written: Option<(&str, &HostIdentity)>| Told {
            other: None,
            machine: machine.clone(),
            written: written.map(|(name, machine)| (name.to_owned(), machine.clone())),
            full: None,
        };
        for (known, told, message) in [
            (None, said(&here, None), ""),
            (None, said(&here, Some(("us", &here))), ""),
            (
                None,
                said(&here, Some(("eu", &here))),
                "the state directory of host `eu`",
            ),
            (None, said(&here, Some(("us", &there))), "another machine"),
            (Some(&here), said(&here, None), ""),
            (Some(&there), said(&here, None), "another machine"),
            // It does not say which machine it is.
            (Some(&here), said(&none, None), "another machine"),
            (None, said(&none, Some(("us", &here))), "another machine"),
            (None, said(&none, Some(("us", &none))), ""),
            (Some(&none), said(&here, None), ""),
            // It was accepted here.
            (Some(&here), said(&here, Some(("eu", &there))), ""),
        ] {
            match told.check("us", known, "/srv/.rel/e") {
                Ok(()) => assert_eq!(message, "", "{told:?}"),
                Err(error) => {
                    assert!(
                        !message.is_empty() && error.message.contains(message),
                        "{error}"
                    );
                    assert!(error.to_string().contains("--accept us"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_plan_is_for_the_machine_that_it_was_made_of() {
        let (here, there) = (HostIdentity::new(ID, KEY), HostIdentity::new(OTHER, KEY));
        let none = HostIdentity::default();
        for (planned, now, is_refused) in [
            (None, &there, false),
            (Some(&here), &here, false),
            (Some(&here), &there, true),
            (Some(&here), &none, true),
        ] {
            let told = Told {
                machine: now.clone(),
                ..Told::default()
            };
            let checked = told.check_plan("h", planned);
            assert_eq!(checked.is_err(), is_refused, "{planned:?} {now:?}");
            if let (Err(error), Some(planned)) = (checked, planned) {
                let facts: Vec<&str> = error.facts.iter().map(|(_, v)| v.as_str()).collect();
                assert_eq!(facts[..2], [planned.shown(), now.shown()]);
            }
        }
    }

    #[test]
    fn what_is_known_of_a_machine_is_not_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let of = |id: &str, key: &str| HostIdentity::new(id, key);
        for (says, known) in [
            (of(ID, "-"), of(ID, "-")),
            (of("-", KEY), of(ID, KEY)),
            (of("-", "-"), of(ID, KEY)),
            (of(ID, "-"), of(ID, KEY)),
            // It was accepted: nothing of the other one stays.
            (of(OTHER, "-"), of(OTHER, "-")),
        ] {
            let machines = KnownMachines::read(Some(path.clone()));
            machines.learn("a", &says);
            machines.keep().expect("writes");
            let now = KnownMachines::read(Some(path.clone()));
            assert_eq!(now.known("a"), Some(&known), "{says:?}");
        }
    }

    #[test]
    fn what_two_runs_learn_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        let (one, two) = (HostIdentity::new(ID, KEY), HostIdentity::new(OTHER, KEY));
        let runs = [(); 2].map(|()| KnownMachines::read(Some(path.clone())));
        runs[0].learn("a", &one);
        runs[1].learn("b", &two);
        runs[1].learn("c", &HostIdentity::default());
        for run in &runs {
            run.keep().expect("writes");
        }
        let known = KnownMachines::read(Some(path.clone()));
        assert_eq!(known.known("a"), Some(&one));
        assert_eq!(known.known("b"), Some(&two));
        assert_eq!(known.known("c"), None);
        // A person may mean one that tells nothing.
        known.accept("b", &HostIdentity::default());
        known.keep().expect("writes");
        let known = KnownMachines::read(Some(path.clone()));
        assert_eq!(known.known("b"), Some(&HostIdentity::default()));
        std::fs::write(&path, "torn").expect("writes");
        assert_eq!(KnownMachines::read(Some(path)).known("a"), None);
        KnownMachines::read(None).keep().expect("nothing to write");
    }
}
