//! Which machine a host is, as its guard tells. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a machine says that it is; what it does not say, or not in a known form, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIdentity {
    /// `/etc/machine-id`: 32 hex digits (machine-id(5)).
    pub id: Option<String>,
    /// Fingerprint of its public host key, as `ssh-keygen -l` prints it.
    pub key: Option<String>,
}

impl HostIdentity {
    /// Returns the machine with this id and this public key in base64.
    pub fn new(id: &str, key: &str) -> Self {
        let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let key = STANDARD.decode(key).ok().filter(|key| !key.is_empty());
        let fingerprint = |key| format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)));
        Self {
            id: is_id.then(|| id.to_owned()),
            key: key.map(fingerprint),
        }
    }

    /// Returns whether they are two: something that both say differs.
    pub fn is_another(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        differ(&self.id, &other.id) || differ(&self.key, &other.key)
    }

    /// Returns whether this, which is known, is not what answers `now`: something that both say
    /// differs, or the host sends nothing of what is known.
    pub fn is_not(&self, now: &Self) -> bool {
        let is_told =
            |known: &Option<String>, now: &Option<String>| known.is_some() && known == now;
        let is_any = is_told(&self.id, &now.id) || is_told(&self.key, &now.key);
        self.is_another(now) || (!self.is_unknown() && !is_any)
    }

    /// Returns how what is known compares with what is reported `now`.
    pub fn compared(&self, now: &Self) -> String {
        let one = |what: &str, known: &Option<String>, now: &Option<String>| {
            let how = match (known, now) {
                (None, None) => return None,
                (Some(_), None) => "is unknown",
                (None, Some(_)) => "was not recorded",
                (Some(known), Some(now)) if known == now => "is the same",
                (Some(_), Some(_)) => "differs",
            };
            Some(format!("the {what} {how}"))
        };
        let both = [
            one("machine-id", &self.id, &now.id),
            one("host key", &self.key, &now.key),
        ];
        both.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Returns it with what only `other` says.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            id: self.id.clone().or_else(|| other.id.clone()),
            key: self.key.clone().or_else(|| other.key.clone()),
        }
    }

    /// Returns it in words.
    pub fn shown(&self) -> String {
        let id = self.id.as_deref().unwrap_or("none");
        let key = self.key.as_deref().unwrap_or("none");
        format!("machine-id {id}, host key {key}")
    }

    /// Returns whether it says nothing.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
pub(in crate::deploy) mod tests {
    use super::*;

    pub const ID: &str = "0123456789abcdef0123456789abcdef";
    pub const OTHER: &str = "00000000000000000000000000000001";
    pub const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAA";

    #[test]
    fn fingerprints_are_those_of_openssh() {
        // Of `ssh-keygen -lf` for this key.
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIPcvtT1TKj6kfPDA0KgIC9GuqSWeDS4UrEIq4yWz9cyG";
        let machine = HostIdentity::new("uninitialized", key);
        assert_eq!(machine.id, None);
        assert_eq!(
            machine.key.as_deref(),
            Some("SHA256:5ZyInbGZHAYM032+YHfD9MllKKzCoRdfLb0SvN6Pu7o")
        );
        assert_eq!(HostIdentity::new("-", "-"), HostIdentity::default());
        assert_eq!(HostIdentity::new("a b", "\u{1b}[0m").key, None);
    }

    #[test]
    fn a_machine_is_another_if_something_that_both_say_differs() {
        let of = |id: &str, key: &str| HostIdentity::new(id, key);
        for (a, b, is_another) in [
            (of(ID, KEY), of(ID, KEY), false),
            (of(ID, KEY), of(OTHER, KEY), true),
            (of(ID, KEY), of(ID, "AAAA"), true),
            (of(ID, "-"), of(ID, KEY), false),
            (of(ID, "-"), of("-", KEY), false),
            (of("-", "-"), of(ID, KEY), false),
        ] {
            assert_eq!(a.is_another(&b), is_another, "{a:?} {b:?}");
            assert_eq!(b.is_another(&a), is_another, "{b:?} {a:?}");
        }
    }

    #[test]
    fn what_is_known_has_to_be_told_again() {
        let of = |id: &str, key: &str| HostIdentity::new(id, key);
        for (known, now, is_not) in [
            (of(ID, KEY), of(ID, KEY), false),
            (of(ID, KEY), of("-", KEY), false),
            (of(ID, KEY), of(OTHER, KEY), true),
            (of(ID, KEY), of(ID, "AAAA"), true),
            (of(ID, KEY), of("-", "-"), true),
            (of(ID, "-"), of("-", "-"), true),
            (of(ID, "-"), of("-", KEY), true),
            // Nothing was ever known.
            (of("-", "-"), of("-", "-"), false),
            (of("-", "-"), of("-", KEY), false),
        ] {
            assert_eq!(known.is_not(&now), is_not, "{known:?} {now:?}");
        }
    }

    #[test]
    fn what_differs_is_said() {
        let of = |id: &str, key: &str| HostIdentity::new(id, key);
        for (known, now, compared) in [
            (
                of(ID, KEY),
                of(OTHER, KEY),
                "the machine-id differs, the host key is the same",
            ),
            (
                of(ID, KEY),
                of(ID, "AAAA"),
                "the machine-id is the same, the host key differs",
            ),
            (
                of(ID, KEY),
                of("-", "-"),
                "the machine-id is unknown, the host key is unknown",
            ),
            (
                of(ID, "-"),
                of(OTHER, KEY),
                "the machine-id differs, the host key was not recorded",
            ),
            (of(ID, "-"), of("-", "-"), "the machine-id is unknown"),
            (of("-", "-"), of("-", "-"), ""),
        ] {
            assert_eq!(known.compared(&now), compared, "{known:?} {now:?}");
        }
    }
}
