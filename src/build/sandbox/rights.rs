//! With whose rights something is done in a command's stead.
//!
//! A process may have become another user, or have given up capabilities: then `rel` may do more
//! than it. So a thread gives up the same first, acts, and ends. Its real and saved user stay
//! those of `rel`: the other user can send it no signals.

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::core::process::namespace;

/// The rights of a process, or of a thread of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
    effective: CapabilitySet,
}

/// Returns the process that a thread belongs to, and the rights of the thread. `None` where
/// these cannot be determined, or where its user for files is another one than that for all else.
pub fn of_thread(pid: u32) -> Option<(Pid, Rights)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let (leader, mut rights) = parse(&status)?;
    // In a user namespace of its own it has all capabilities, and none of them counts here.
    if namespace(&pid.to_string(), "user") != namespace("self", "user") {
        rights.effective = CapabilitySet::empty();
    }
    Some((leader, rights))
}

fn parse(status: &str) -> Option<(Pid, Rights)> {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let numbers = |name: &str| -> Option<Vec<u32>> {
        let words = field(name)?.split_whitespace();
        words.map(|word| word.parse().ok()).collect()
    };
    // Real, effective, saved, and that for files.
    let [_, user, _, for_files] = numbers("Uid")?.try_into().ok()?;
    let [_, group, _, group_for_files] = numbers("Gid")?.try_into().ok()?;
    let is_one = user == for_files && group == group_for_files;
    let effective = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
    let leader = Pid::from_raw(field("Tgid")?.trim().parse().ok()?)?;
    is_one.then_some(())?;
    let rights = Rights {
        user: Uid::from_raw(user),
        group: Gid::from_raw(group),
        groups: numbers("Groups")?.into_iter().map(Gid::from_raw).collect(),
        effective: CapabilitySet::from_bits_retain(effective),
    };
    Some((leader, rights))
}

impl Rights {
    /// Acts with these rights.
    ///
    /// # Errors
    /// That of `act`; `PERM` if they cannot be taken over.
    pub fn lend<T: Send>(&self, act: impl FnOnce() -> Result<T, Errno> + Send) -> Result<T, Errno> {
        if self.are_own() {
            return act();
        }
        std::thread::scope(|scope| {
            let acting = std::thread::Builder::new().spawn_scoped(scope, || {
                self.adopt().map_err(|_| Errno::PERM)?;
                act()
            });
            let acting = acting.map_err(|_| Errno::AGAIN)?;
            acting.join().unwrap_or(Err(Errno::PERM))
        })
    }

    /// Returns whether the calling thread has just these.
    fn are_own(&self) -> bool {
        (self.user, self.group) == (geteuid(), getegid())
            && capabilities(None).is_ok_and(|own| own.effective == self.effective)
            && getgroups().is_ok_and(|own| own == self.groups)
    }

    /// Takes from the calling thread, for ever, what is not among these.
    fn adopt(&self) -> Result<(), Errno> {
        if getgroups()? != self.groups {
            set_thread_groups(&self.groups)?;
        }
        if getegid() != self.group {
            set_thread_res_gid(None, self.group, None)?;
        }
        if geteuid() != self.user {
            set_thread_res_uid(None, self.user, None)?;
        }
        let left = self.effective & capabilities(None)?.permitted;
        let left = CapabilitySets {
            effective: left,
            permitted: left,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tUid: 1\nTgid:\t7\nPid:\t8\nUid:\t1\t2\t3\t2\nGid:\t4\t5\t6\t5\n\
                          Groups:\t9 10 \nCapPrm:\t00000000000000ff\nCapEff:\t0000000000000009\n";

    #[test]
    fn rights_are_those_that_count_for_files() {
        let (leader, rights) = parse(STATUS).expect("rights");
        assert_eq!(leader.as_raw_nonzero().get(), 7);
        let expected = Rights {
            user: Uid::from_raw(2),
            group: Gid::from_raw(5),
            groups: [9, 10].map(Gid::from_raw).to_vec(),
            effective: CapabilitySet::CHOWN | CapabilitySet::FOWNER,
        };
        assert_eq!(rights, expected);
        for (from, to) in [
            ("Uid:\t1\t2\t3\t2", "Uid:\t1\t2\t3\t4"),
            ("Gid:\t4\t5\t6\t5", "Gid:\t4\t5\t6\t6"),
            ("Gid:\t4\t5\t6\t5", "Gid:\t4"),
            ("CapEff", "CapEf"),
            ("Groups:", "Groups:\tx"),
        ] {
            assert_eq!(parse(&STATUS.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn what_is_lent_is_given_up_by_nobody_else() {
        let (_, own) = of_thread(std::process::id()).expect("has /proc");
        assert!(own.are_own());
        let less = Rights {
            effective: CapabilitySet::empty(),
            ..own.clone()
        };
        let effective = less.lend(|| Ok(capabilities(None)?.effective));
        assert_eq!(effective, Ok(CapabilitySet::empty()));
        assert!(own.are_own());
        let refused: Result<(), Errno> = less.lend(|| Err(Errno::ACCESS));
        assert_eq!(refused, Err(Errno::ACCESS));
        let other = Rights {
            user: Uid::from_raw(65_534),
            ..less
        };
        let user = other.lend(|| Ok(geteuid()));
        let is_root = geteuid().is_root();
        let expected = if is_root {
            Ok(other.user)
        } else {
            Err(Errno::PERM)
        };
        assert_eq!(user, expected);
        assert!(own.are_own());
    }
}
