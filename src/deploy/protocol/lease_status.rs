//! Who holds an environment, as its hosts say, and the sentences made of that. Pure.
//!
//! The lease itself is kept by the hosts (`lease.sh`); nothing here decides who has it.
//! Ages come as seconds by the host's own clock: clocks of two machines are never compared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, ErrorKind};
use crate::deploy::protocol::frames::Frame;

/// What holds an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HolderKind {
    /// A run, as long as it is at work.
    Run,
    /// A person, across runs: `rel lock`.
    Freeze,
}

/// One hold on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// What holds it.
    pub kind: HolderKind,
    /// The fencing token under which it was taken.
    pub token: u64,
    /// `user@machine`.
    pub who: String,
    /// The run; `None` for a person's hold.
    pub run: Option<String>,
    /// The words of the command, or a person's reason.
    pub purpose: String,
    /// Seconds since it was taken.
    pub age: u64,
    /// Seconds until it ends by itself; `None` where it does not.
    pub rest: Option<u64>,
}

impl LeaseHolder {
    /// Reads one line of a host; `None` for what makes no sense.
    pub fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split('\t').collect();
        let [kind, token, who, run, purpose, age, rest] = columns.as_slice() else {
            return None;
        };
        Some(Self {
            kind: match *kind {
                "run" => HolderKind::Run,
                "freeze" => HolderKind::Freeze,
                _ => return None,
            },
            token: token.parse().ok()?,
            who: (*who).to_owned(),
            run: (*run != "-").then(|| (*run).to_owned()),
            purpose: (*purpose).to_owned(),
            // A clock that was put back since gives less than nothing.
            age: age.parse::<i64>().ok()?.max(0).unsigned_abs(),
            rest: match *rest {
                "-" => None,
                rest => Some(rest.parse::<i64>().ok()?.max(0).unsigned_abs()),
            },
        })
    }

    /// Returns one line for people: who, since when, what for.
    pub fn line(&self) -> String {
        let (verb, purpose) = match self.kind {
            HolderKind::Run => ("is at work", &self.purpose),
            HolderKind::Freeze => ("holds it", &self.purpose),
        };
        let rest = match self.rest {
            Some(rest) => format!(", {} more", span(rest)),
            None => String::new(),
        };
        format!(
            "{} {verb} since {}{rest}: {purpose}",
            self.who,
            span(self.age)
        )
    }

    fn facts(&self, mut error: Box<Error>) -> Box<Error> {
        error = error.note("who", self.who.clone());
        error = match self.kind {
            HolderKind::Run => error.note("doing", self.purpose.clone()),
            HolderKind::Freeze => error.note("reason", self.purpose.clone()),
        };
        if let Some(run) = &self.run {
            error = error.note("run", run.clone());
        }
        error = error.note("since", format!("{} ago", span(self.age)));
        match (self.kind, self.rest) {
            (HolderKind::Run, _) => error,
            (_, Some(rest)) => error.note("until", format!("{} from now", span(rest))),
            (_, None) => error.note("until", "it is released"),
        }
    }
}

/// Returns the error of a run that may not begin because the environment is locked;
/// `words` are those of its command.
pub fn lease_refused_error(host: &str, words: &str, says: &str) -> Box<Error> {
    let Some(held) = LeaseHolder::parse(says) else {
        return Error::host(format!("another run is active on host `{host}`"));
    };
    let error = match held.kind {
        HolderKind::Run => Error::host(format!("another run is active on host `{host}`")),
        HolderKind::Freeze => Error::host(format!("`{words}` is locked on host `{host}`")),
    };
    let help = match held.kind {
        HolderKind::Run => "run the same command again when that run has ended".to_owned(),
        HolderKind::Freeze => {
            format!("ask them; `rel unlock {words} --break --reason \"…\"` breaks the lock")
        }
    };
    held.facts(error).help(help)
}

/// Returns the error of a run that lost its lease, if that is what a frame says.
pub fn lost_lease_error(host: &str, frame: &Frame) -> Option<Box<Error>> {
    let Frame::Event(text) = frame else {
        return None;
    };
    let (event, says) = text.split_once(' ').unwrap_or((text, ""));
    match event {
        "fenced" => {
            let error = Error::new(
                ErrorKind::Fenced,
                format!("this run has lost the lease of host `{host}`: fenced"),
            );
            let error = match LeaseHolder::parse(says) {
                Some(held) => held.facts(error),
                None => error.note("who", "a run that has released it since"),
            };
            Some(error.help(AGAIN))
        }
        "untrusted" => Some(
            Error::host(format!("host `{host}` is not used: {says}"))
                .note("why", "another user could change what rel does there")
                .help(match says.ends_with(BELOW) {
                    true => {
                        "take the right to change that directory from others (`chown`, \
                         `chmod go-w`, `setfacl -b`), or give the host another `root`"
                    }
                    false => {
                        "check who made it and what it contains; then remove it, or give it \
                         to the user of this connection alone (`chown`, `chmod go-w`)"
                    }
                }),
        ),
        "silent" => Some(
            Error::new(
                ErrorKind::Fenced,
                format!("host `{host}` revoked the lease of this run: fenced"),
            )
            .note("why", "it received no heartbeat from here for too long")
            .help(AGAIN),
        ),
        _ => None,
    }
}

/// How words of a guard end that name a directory above those of rel.
const BELOW: &str = "and the state directory of rel is below it";

const AGAIN: &str = "nothing more was changed there; when that run has ended, the same command checks what was done and continues";

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_say_is_read_or_left_alone() {
        for (line, expected) in [
            (
                "run\t7\tann@a\t66-1\tproduction b2\t61\t-",
                Some("ann@a is at work since 1m 1s: production b2"),
            ),
            (
                "freeze\t8\tann@a\t-\tno releases\t5\t1800",
                Some("ann@a holds it since 5s, 30m more: no releases"),
            ),
            (
                "freeze\t8\tann@a\t-\tno releases\t-3\t-",
                Some("ann@a holds it since 0s: no releases"),
            ),
            ("run\tx\tann@a\t66-1\tp\t61\t-", None),
            ("lease\t7\tann@a\t66-1\tp\t61\t-", None),
            ("run\t7\tann@a", None),
            ("", None),
        ] {
            let found = LeaseHolder::parse(line).map(|h| h.line());
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn nobody_is_told_to_remove_what_is_not_of_rel() {
        for (says, expected) in [
            ("/srv/.rel is a symbolic link", true),
            ("/srv/.rel belongs to ann", true),
            (
                "/srv can be changed by every user, and the state directory of rel is below it",
                false,
            ),
        ] {
            let error = lost_lease_error("h1", &Frame::Event(format!("untrusted {says}")));
            let text = error.expect("an error").to_string();
            assert_eq!(text.contains("then remove it"), expected, "{text}");
        }
        assert!(crate::deploy::protocol::program::SESSION_LIB.contains(BELOW));
    }

    #[test]
    fn a_lost_lease_is_told_by_whom() {
        for (event, expected) in [
            ("ended 0", None),
            (
                "fenced run\t7\tbob@b\t66-2\tproduction\t2\t-",
                Some("bob@b"),
            ),
            ("fenced", Some("a run that has released it since")),
            (
                "silent",
                Some("it received no heartbeat from here for too long"),
            ),
        ] {
            let error = lost_lease_error("h1", &Frame::Event(event.into()));
            let first = error.as_ref().map(|e| e.facts[0].1.as_str());
            assert_eq!(first, expected, "{event}");
            assert!(error.is_none_or(|e| e.kind.exit_code() == 1));
        }
    }
}
