//! Who may do what with a file: mode and owner, as a host tells them, held against a step. Pure.

use serde::{Deserialize, Serialize};

use crate::deploy::plan::use_on_host::{ResolvedAction, ResolvedStep};

/// Mode and owner of a file on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Number of the user that it belongs to.
    pub uid: String,
    /// Number of its group.
    pub gid: String,
    /// Name of that user; `-` where it is not known.
    pub user: String,
    /// Name of that group; `-` where it is not known.
    pub group: String,
    /// It belongs to the login user.
    pub is_own: bool,
}

impl Access {
    /// Takes the last line off an answer, if it is `access -rw-r--r-- UID GID USER GROUP ME`.
    pub fn take(answer: &str) -> (&str, Option<Self>) {
        let (before, last) = answer.rsplit_once('\n').unwrap_or(("", answer));
        match last.strip_prefix("access ").and_then(Self::parse) {
            Some(access) => (before, Some(access)),
            None => (answer, None),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [mode, uid, gid, user, group, me] = words.as_slice() else {
            return None;
        };
        let owned = |text: &str| text.to_owned();
        Some(Self {
            mode: bits(mode)?,
            uid: owned(uid),
            gid: owned(gid),
            user: owned(user),
            group: owned(group),
            is_own: uid == me,
        })
    }

    /// Returns the owner in words: `ampel:ampel`.
    fn owner(&self) -> String {
        let name = |name: &str, number: &str| match name {
            "-" | "UNKNOWN" => number.to_owned(),
            name => name.to_owned(),
        };
        let user = name(&self.user, &self.uid);
        format!("{user}:{}", name(&self.group, &self.gid))
    }

    /// Returns what is not as `draft` would make it, as `(what, found, wanted)`. The owner counts
    /// only where the step names one.
    fn differs(&self, draft: &ResolvedStep) -> Vec<(&'static str, String, String)> {
        let ResolvedAction::Write { mode, owner, .. } = &draft.act else {
            return Vec::new();
        };
        let mut differs = Vec::new();
        if u32::from_str_radix(mode, 8).is_ok_and(|wanted| wanted != self.mode) {
            differs.push(("mode", format!("{:04o}", self.mode), mode.clone()));
        }
        if let Some(owner) = owner {
            let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
            let is_user = user.is_empty() || is_one(user, &self.user, &self.uid);
            let is_group = group.is_empty() || is_one(group, &self.group, &self.gid);
            if !is_user || !is_group {
                differs.push(("owner", self.owner(), owner.clone()));
            }
        }
        differs
    }

    /// Returns why the file is not as `draft` has left it.
    pub fn drift(&self, draft: &ResolvedStep) -> Option<String> {
        let path = draft.writes()?;
        let (what, found, wanted) = self.differs(draft).into_iter().next()?;
        Some(format!("`{path}` has the {what} {found}, not {wanted}"))
    }

    /// Returns what `draft` would change of it: `mode 0644 -> 0600, owner ampel:ampel -> root`.
    pub fn change(&self, draft: &ResolvedStep) -> Option<String> {
        let mut all = self.differs(draft);
        let has_owner = matches!(&draft.act, ResolvedAction::Write { owner: Some(_), .. });
        if !has_owner && !self.is_own {
            all.push(("owner", self.owner(), "the login user".into()));
        }
        let all: Vec<String> = all
            .into_iter()
            .map(|(what, found, wanted)| format!("{what} {found} -> {wanted}"))
            .collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// Returns whether an owner that a step names is this one. One of which only the number is known
/// is not stated to be another.
fn is_one(wanted: &str, name: &str, number: &str) -> bool {
    let is_number = wanted.bytes().all(|b| b.is_ascii_digit());
    wanted == name || wanted == number || (name == "-" && !is_number)
}

/// Returns the permission bits of a mode as `ls -l` prints it.
fn bits(text: &str) -> Option<u32> {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() < 10 || letters[0] != '-' {
        return None;
    }
    let mut mode = 0;
    for (at, special) in [(1, 0o4000), (4, 0o2000), (7, 0o1000)] {
        let shift = 9 - at + 1 - 3;
        let mut of_three = 0;
        for (index, bit) in [(0, 4), (1, 2)] {
            match (letters[at + index], index) {
                ('r', 0) | ('w', 1) => of_three |= bit,
                ('-', _) => {}
                _ => return None,
            }
        }
        match letters[at + 2] {
            'x' => of_three |= 1,
            's' | 't' => {
                of_three |= 1;
                mode |= special;
            }
            'S' | 'T' => mode |= special,
            '-' => {}
            _ => return None,
        }
        mode |= of_three << shift;
    }
    Some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(mode: &str, owner: Option<&str>) -> ResolvedStep {
        ResolvedStep {
            act: ResolvedAction::Write {
                path: "/f".into(),
                content: "x".into(),
                mode: mode.into(),
                owner: owner.map(str::to_owned),
            },
            ..ResolvedStep::default()
        }
    }

    #[track_caller]
    fn check(line: &str, draft: &ResolvedStep, drift: Option<&str>, change: Option<&str>) {
        let answer = format!("abc  -\naccess {line}");
        let (before, access) = Access::take(&answer);
        assert_eq!(before, "abc  -");
        let access = access.expect("one");
        assert_eq!(access.drift(draft).as_deref(), drift, "{line}");
        assert_eq!(access.change(draft).as_deref(), change, "{line}");
    }

    #[test]
    fn modes_and_named_owners_are_compared() {
        let line = "-rw-r--r-- 0 0 root root 0";
        check(line, &write("0644", None), None, None);
        let mode = "mode 0644 -> 0600";
        let drift = "`/f` has the mode 0644, not 0600";
        check(line, &write("0600", None), Some(drift), Some(mode));
        check(line, &write("0644", Some("root")), None, None);
        check(line, &write("0644", Some("0:root")), None, None);
        check(
            line,
            &write("0644", Some("karl")),
            Some("`/f` has the owner root:root, not karl"),
            Some("owner root:root -> karl"),
        );
        check(
            line,
            &write("0644", Some("root:web")),
            Some("`/f` has the owner root:root, not root:web"),
            Some("owner root:root -> root:web"),
        );
        // Whose it is counts where a step says so; that it changes hands is reported.
        check(
            "-rw-r----- 7 7 ampel ampel 0",
            &write("0640", None),
            None,
            Some("owner ampel:ampel -> the login user"),
        );
        // A host that tells only numbers.
        check(
            "-rw-r--r-- 7 7 - - 7",
            &write("0644", Some("ampel")),
            None,
            None,
        );
        let other = "`/f` has the owner 7:7, not 8";
        check(
            "-rw-r--r-- 7 7 - - 7",
            &write("0644", Some("8")),
            Some(other),
            Some("owner 7:7 -> 8"),
        );
    }

    #[test]
    fn every_bit_of_a_mode_is_read() {
        for (text, mode) in [
            ("-rwxr-x---", 0o750),
            ("-rwsr-Sr-T", 0o7744),
            ("-rwxrwxrwt", 0o1777),
            ("----------", 0),
        ] {
            assert_eq!(bits(text), Some(mode), "{text}");
        }
        assert_eq!(bits("drwxr-xr-x"), None);
        assert_eq!(bits("-rw"), None);
        assert_eq!(Access::take("access nonsense"), ("access nonsense", None));
        assert_eq!(Access::take("releases/1"), ("releases/1", None));
    }
}
