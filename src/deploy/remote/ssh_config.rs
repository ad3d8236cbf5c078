//! The configuration of `ssh`, read without `ssh` where it is plain.
//!
//! What `ssh -G` tells costs some milliseconds of processor time for each host. Where nothing in
//! the files that it would read depends on the host but by `Host` patterns, and nothing leads
//! through another program or host, a digest of these files and of the words that `ssh` is given
//! says as much. Anything else is left to `ssh -G` (`destination.rs`): `Match`, jump hosts,
//! canonical names, another program than the system's own `ssh`.
//!
//! Source: ssh_config(5) of OpenSSH 9.2.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::build::model::{Host, Reach};
use crate::core::fs;
use crate::deploy::remote::destination::{Destination, IN_THE_WAY, Variable, split, variables};

/// The program whose configuration is known, and what it begins with.
const PROGRAM: &str = "/usr/bin/ssh";
const ELF: &[u8] = b"\x7fELF";
/// Where the configuration of the system lies.
const SYSTEM_DIR: &str = "/etc/ssh";
/// Files that are read, at most.
const FILES_MAX: usize = 64;

/// Keywords by which a destination is more than its name, its address and its options.
const NOT_PLAIN: [&str; 10] = [
    "match",
    "proxyjump",
    "proxycommand",
    "proxyusefdpass",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizehostname",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "tag",
];

/// All that a plain configuration says.
#[derive(Debug, Default)]
pub struct Plain {
    texts: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Plain {
    /// Reads the configuration of `ssh`, started by that name; `None` where it is not plain, or is
    /// not read as a whole.
    pub fn read(ssh: &OsStr, variable: &Variable<'_>) -> Option<Self> {
        let path = variable("PATH")?;
        let mut found = std::env::split_paths(&path).map(|dir| dir.join(ssh));
        let found = found.find(|program| program.exists())?;
        if found != Path::new(PROGRAM) || !is_program(&found) {
            return None;
        }
        Self::of(&home()?, Path::new(SYSTEM_DIR))
    }

    /// Reads the configuration of the user with this home, and the system's.
    fn of(home: &Path, system: &Path) -> Option<Self> {
        let mut plain = Self::default();
        let own = home.join(".ssh");
        plain.add(&own.join("config"), home, &own)?;
        plain.add(&system.join("ssh_config"), home, system)?;
        Some(plain)
    }

    /// Adds a file, and those that it includes: below `dir` where they are not absolute.
    fn add(&mut self, path: &Path, home: &Path, dir: &Path) -> Option<()> {
        if self.texts.len() == FILES_MAX {
            return None;
        }
        let Some(_) = fs::lstat(path).ok()? else {
            self.texts.push((path.to_owned(), None));
            return Some(());
        };
        let bytes = fs::read_regular(path).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?.to_owned();
        self.texts.push((path.to_owned(), Some(bytes)));
        for line in text.lines() {
            let (keyword, value) = split(line);
            if !is_plain(&keyword) {
                return None;
            }
            if keyword == "include" {
                for word in value.split_whitespace() {
                    for file in included(word, home, dir)? {
                        self.add(&file, home, dir)?;
                    }
                }
            }
        }
        Some(())
    }

    /// Returns what `ssh`, given these words, would make of a host; `None` where its own options
    /// are not plain.
    pub fn destination(
        &self,
        host: &Host,
        words: &[OsString],
        variable: &Variable<'_>,
    ) -> Option<Destination> {
        let Reach::Ssh {
            destination,
            port,
            jump,
            options,
        } = &host.reach
        else {
            return None;
        };
        let is_good = |option: &String| {
            let (keyword, _) = split(option);
            keyword != "include" && is_plain(&keyword)
        };
        if !options.iter().all(is_good) {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let value = |name: &str| variable(name).unwrap_or_default();
        add(b"plain");
        add(value("SSH_AUTH_SOCK").as_encoded_bytes());
        let texts = self.texts.iter().filter_map(|(_, text)| text.as_deref());
        for text in texts.chain(options.iter().map(|option| option.as_bytes())) {
            for name in variables(&String::from_utf8_lossy(text)) {
                add(value(name).as_encoded_bytes());
            }
        }
        for (path, text) in &self.texts {
            add(path.as_os_str().as_bytes());
            add(text.as_deref().unwrap_or_default());
        }
        for word in words {
            add(word.as_encoded_bytes());
        }
        let name = hasher.finalize().to_hex().get(..32)?.to_owned();
        let address = destination.rsplit('@').next().unwrap_or(destination);
        let own = || format!("{address}:{}", port.unwrap_or_default());
        Some(Destination {
            name,
            gate: jump.clone().unwrap_or_else(own),
            options: Vec::new(),
        })
    }
}

/// Returns whether a file is a program and no script: that could give `ssh` other words.
fn is_program(path: &Path) -> bool {
    use std::io::Read;
    let mut begin = [0; 4];
    let read = fs::open_regular(path).map(|mut file| file.read_exact(&mut begin));
    matches!(read, Ok(Ok(()))) && begin == ELF
}

/// Returns the home of the user's entry, where `ssh` looks, whatever `HOME` says.
fn home() -> Option<PathBuf> {
    let users = fs::read_text(Path::new("/etc/passwd")).ok()?;
    let uid = rustix::process::getuid().as_raw().to_string();
    let entry = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2) == Some(&uid.as_str())).then(|| fields.get(5).map(PathBuf::from))
    });
    entry.flatten().filter(|home| home.is_absolute())
}

/// Returns whether a keyword leaves a destination plain, and starts nothing but a session.
fn is_plain(keyword: &str) -> bool {
    !NOT_PLAIN.contains(&keyword) && IN_THE_WAY.iter().all(|(word, ..)| *word != keyword)
}

/// Returns the files that a word of `Include` names; `None` where only `ssh` knows.
fn included(word: &str, home: &Path, dir: &Path) -> Option<Vec<PathBuf>> {
    if word.contains(['%', '$', '?', '[', '{', '"', '\'', '\\']) {
        return None;
    }
    let path = match word.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None if word.starts_with('~') => return None,
        None => dir.join(word),
    };
    let name = path.file_name()?.to_str()?.to_owned();
    let parent = path.parent()?;
    if parent.to_str()?.contains('*') {
        return None;
    }
    let Some((before, after)) = name.split_once('*') else {
        return Some(vec![path]);
    };
    if after.contains('*') {
        return None;
    }
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if fs::is_absent(&error) => return Some(files),
        Err(_) => return None,
    };
    for entry in entries {
        let entry = entry.ok()?.file_name();
        let entry = entry.to_str()?;
        let is_long = entry.len() >= before.len() + after.len();
        let is_shown = !entry.starts_with('.') || before.starts_with('.');
        if is_long && is_shown && entry.starts_with(before) && entry.ends_with(after) {
            files.push(parent.join(entry));
        }
    }
    files.sort();
    Some(files)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::diagnostics::Span;

    /// Returns the name of a destination with the user's configuration, further files of the
    /// system's, and options.
    fn name(own: &str, more: &[(&str, &str)], options: &[&str], agent: &str) -> Option<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().expect("one")).expect("makes");
            std::fs::write(path, text).expect("writes");
        };
        let (home, system) = (dir.path().join("home"), dir.path().join("etc"));
        write(home.join(".ssh/config"), own);
        write(
            system.join("ssh_config"),
            "Include ssh_config.d/*.conf\nHost *\n",
        );
        for (path, text) in more {
            write(dir.path().join(path), text);
        }
        let mut plain = Plain::of(&home, &system)?;
        for (path, _) in &mut plain.texts {
            // Another directory each time.
            *path = path.strip_prefix(dir.path()).expect("below it").to_owned();
        }
        let host = Host {
            name: "h".into(),
            reach: Reach::Ssh {
                destination: "me@h".into(),
                port: Some(22),
                jump: None,
                options: options.iter().map(|o| (*o).to_owned()).collect(),
            },
            root: "/srv".into(),
            into_foreign: false,
            vars: BTreeMap::new(),
            place: Span::default(),
        };
        let variable = |_: &str| Some(OsString::from(agent));
        let words: Vec<OsString> = options.iter().map(OsString::from).collect();
        let found = plain.destination(&host, &words, &variable)?;
        assert_eq!((found.gate.as_str(), found.options.len()), ("h:22", 0));
        Some(found.name)
    }

    #[test]
    fn whatever_is_another_in_plain_files_is_another_destination() {
        let all = [
            name("", &[], &[], "a"),
            name("", &[], &[], "b"),
            name("Host h\n HostName 10.0.0.1\n", &[], &[], "a"),
            name("Host h\n HostName 10.0.0.2\n", &[], &[], "a"),
            name(
                "Host h\n HostName 10.0.0.2\n",
                &[],
                &["Compression=yes"],
                "a",
            ),
            name("", &[("etc/ssh_config.d/x.conf", "User ann\n")], &[], "a"),
            name("", &[("etc/ssh_config.d/x.conf", "User bob\n")], &[], "a"),
            name(
                "Include more\n",
                &[("home/.ssh/more", "User ann\n")],
                &[],
                "a",
            ),
            name("Include ~/more\n", &[("home/more", "User bob\n")], &[], "a"),
            name("IdentityFile ${KEYS}\n", &[], &[], "a"),
            name("IdentityFile ${KEYS}\n", &[], &[], "b"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.is_some(), "{at}");
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(all[0], name("", &[], &[], "a"));
        // Not one of the pattern.
        assert_eq!(
            all[0],
            name("", &[("etc/ssh_config.d/x.bak", "User x\n")], &[], "a")
        );
    }

    #[test]
    fn what_is_not_plain_is_left_to_ssh() {
        for own in [
            "Host h\n  ProxyJump gate\n",
            "host h\n proxycommand=nc %h %p\n",
            "Match exec true\n",
            "\"Match\" all\n",
            "RemoteCommand tmux\n",
            "CanonicalizeHostname yes\n",
            "Include %d/more\n",
            "Include */more\n",
            "Include ~ann/more\n",
        ] {
            assert_eq!(name(own, &[], &[], "a"), None, "{own}");
        }
        let included = [("home/.ssh/more", "ProxyJump gate\n")];
        assert_eq!(name("Include more\n", &included, &[], "a"), None);
        for option in ["ProxyJump=gate", "proxycommand nc h 22", "Include=/x"] {
            assert_eq!(name("", &[], &[option], "a"), None, "{option}");
        }
        // One that includes itself has no end.
        assert_eq!(name("Include config\n", &[], &[], "a"), None);
    }

    #[test]
    fn another_program_of_the_name_has_its_own_ways() {
        let variable = |path: &'static str| move |_: &str| Some(OsString::from(path));
        for (ssh, path) in [
            ("sh", "/usr/bin:/bin"),
            ("ssh", "/nowhere"),
            ("/usr/bin/sh", ""),
        ] {
            assert!(
                Plain::read(OsStr::new(ssh), &variable(path)).is_none(),
                "{ssh}"
            );
        }
    }
}
