//! What `ssh` makes of a host, as `ssh -G` tells: the resolved destination.
//!
//! The address of a host does not say which machine it is: two networks behind two jump hosts may
//! have the same addresses, and an alias of `ssh_config` can get other options at any time. A kept
//! connection is used again only for the same resolved destination: its socket is named after a
//! digest of all that `ssh` would use for a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::core::cancel::Cancel;
use crate::core::sync::lock;

/// How long `ssh -G` may take: `Match exec` in its configuration starts commands.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a resolved configuration, at most.
const CONFIG_MAX: u64 = 1 << 20;
/// Hosts on the way to one host, at most.
const JUMPS_MAX: usize = 32;

/// Returns the value of a variable of the environment.
pub type Variable<'a> = dyn Fn(&str) -> Option<OsString> + Sync + 'a;

/// What each line of a resolved configuration would do to a session, which needs its own command
/// and its own input: the option that says otherwise. Lines that an older `ssh` does not know are
/// not printed by it, and it would not take their options.
pub(super) const IN_THE_WAY: [(&str, &str, &str); 4] = [
    ("remotecommand", "none", "RemoteCommand=none"),
    ("sessiontype", "default", "SessionType=default"),
    ("stdinnull", "no", "StdinNull=no"),
    (
        "forkafterauthentication",
        "no",
        "ForkAfterAuthentication=no",
    ),
];
/// Keywords whose value may be `$` and the name of a variable (ssh_config(5)).
const BY_VARIABLE: [&str; 2] = ["identityagent", "forwardagent"];

/// A destination that was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// 32 hex digits, the same as long as `ssh` would use the same configuration, agent and jump
    /// hosts.
    pub name: String,
    /// The first server on the way: a jump host, what a `ProxyCommand` starts, or the host itself.
    pub gate: String,
    /// Options that keep the configuration from starting something else than the session.
    pub options: Vec<&'static str>,
}

/// What `ssh -G` said of jump hosts, which many hosts may have in common.
type Jumps = Mutex<BTreeMap<Vec<OsString>, Arc<OnceLock<Option<Vec<u8>>>>>>;

/// Resolves destinations, and asks for each jump host once.
pub struct Resolver<'a> {
    /// Starts the program.
    pub ssh: &'a (dyn Fn() -> Command + Sync),
    /// Reads the program's environment.
    pub variable: &'a Variable<'a>,
    jumps: Jumps,
}

impl<'a> Resolver<'a> {
    /// Returns one that has asked nothing yet.
    pub fn new(ssh: &'a (dyn Fn() -> Command + Sync), variable: &'a Variable<'a>) -> Self {
        Self {
            ssh,
            variable,
            jumps: Mutex::default(),
        }
    }

    /// Resolves the destination of these words, options included; `None` if `ssh` does not tell.
    pub fn resolve(&self, words: &[OsString], cancel: &Cancel) -> Option<Destination> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &[u8]| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        };
        let value = |name: &str| (self.variable)(name).unwrap_or_default();
        add((self.ssh)().get_program().as_encoded_bytes());
        add(value("SSH_AUTH_SOCK").as_encoded_bytes());
        let mut met = BTreeSet::new();
        let mut waiting = vec![words.to_vec()];
        let mut options = None;
        let mut gate = None;
        while let Some(words) = waiting.pop() {
            if !met.insert(words.clone()) {
                continue;
            }
            if met.len() > JUMPS_MAX {
                return None;
            }
            let config = match met.len() {
                1 => resolved((self.ssh)(), &words, cancel)?,
                _ => self.jump(words, cancel)?,
            };
            add(&config);
            let config = String::from_utf8_lossy(&config);
            options.get_or_insert_with(|| in_the_way(&config));
            // The last one that has no other before it; of two jump hosts the first.
            gate = jumps(&config)
                .next()
                .is_none()
                .then(|| first_server(&config))
                .or(gate);
            for name in variables(&config) {
                add(value(name).as_encoded_bytes());
            }
            // A jump host is reached by an `ssh` of its own, with its own part of the configuration.
            waiting.extend(jumps(&config).map(|jump| {
                let jump = match jump.starts_with("ssh://") {
                    true => jump.to_owned(),
                    false => format!("ssh://{jump}"),
                };
                vec!["--".into(), jump.into()]
            }));
        }
        let digest = hasher.finalize().to_hex();
        Some(Destination {
            name: digest.get(..32)?.to_owned(),
            gate: gate.unwrap_or_default(),
            options: options.unwrap_or_default(),
        })
    }

    /// Returns the configuration of a jump host; a caller that comes while it is asked for waits.
    fn jump(&self, words: Vec<OsString>, cancel: &Cancel) -> Option<Vec<u8>> {
        let known = lock(&self.jumps).entry(words.clone()).or_default().clone();
        let ask = || resolved((self.ssh)(), &words, cancel);
        known.get_or_init(ask).clone()
    }
}

/// Returns what a destination without jump hosts connects to.
fn first_server(config: &str) -> String {
    let value = |word: &str| {
        let found = config.lines().find_map(|line| line.strip_prefix(word));
        found.filter(|value| *value != "none")
    };
    match value("proxycommand ") {
        Some(command) => command.to_owned(),
        None => {
            let (host, port) = (value("hostname "), value("port "));
            format!("{}:{}", host.unwrap_or_default(), port.unwrap_or_default())
        }
    }
}

fn in_the_way(config: &str) -> Vec<&'static str> {
    let is_set = |(word, harmless): (&str, &str)| {
        let lines = config.lines().filter_map(|line| line.split_once(' '));
        let mut values = lines.filter(|(keyword, _)| *keyword == word);
        values.any(|(_, value)| value != harmless)
    };
    let all = IN_THE_WAY.iter();
    all.filter(|(word, harmless, _)| is_set((word, harmless)))
        .map(|(.., option)| *option)
        .collect()
}

/// Returns the jump hosts of a resolved configuration.
fn jumps(config: &str) -> impl Iterator<Item = &str> {
    let lines = config.lines();
    let values = lines.filter_map(|line| line.strip_prefix("proxyjump "));
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|jump| !jump.is_empty() && *jump != "none")
}

/// Returns the names of the environment variables that values of a configuration still name:
/// `${NAME}` is replaced only when a connection is made (ssh_config(5), "ENVIRONMENT VARIABLES"),
/// and so is the `$NAME` of an agent.
pub(super) fn variables(config: &str) -> impl Iterator<Item = &str> {
    let parts = config.split("${").skip(1);
    let in_braces = parts.filter_map(|part| part.split_once('}').map(|(name, _)| name));
    let agents = config.lines().filter_map(|line| {
        let (keyword, value) = split(line);
        let name = value.trim().trim_matches('"').strip_prefix('$')?;
        let is_one = BY_VARIABLE.contains(&keyword.as_str()) && !name.starts_with('{');
        is_one.then_some(name)
    });
    in_braces.chain(agents)
}

/// Returns what `ssh -G` prints, if it comes to a good end within [`RESOLVE_MAX`].
fn resolved(mut command: Command, words: &[OsString], cancel: &Cancel) -> Option<Vec<u8>> {
    command.arg("-G").args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().ok()?;
    let (sender, read) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let count = stdout.take(CONFIG_MAX + 1).read_to_end(&mut text);
            sender.send(count.ok().filter(|n| *n as u64 <= CONFIG_MAX).map(|_| text))
        });
    }
    let end = Instant::now() + RESOLVE_MAX;
    let is_waiting = || Instant::now() < end && !cancel.is_set();
    let text = cancel.receive(&read, end).ok().flatten().flatten();
    while text.is_some() && is_waiting() && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Ok(None) = child.try_wait() {
        // What `Match exec` started goes as well.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process_group(pid, Signal::KILL));
    }
    let is_good = child.wait().is_ok_and(|status| status.success());
    text.filter(|text| is_good && !text.is_empty())
}

/// Returns the keyword of a line, in small letters, and what stands behind it.
pub(super) fn split(line: &str) -> (String, &str) {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=');
    let (keyword, value) = line.split_at(end.unwrap_or(line.len()));
    let keyword = keyword.trim_matches('"').to_ascii_lowercase();
    (
        keyword,
        value.trim_start_matches(|c: char| c.is_whitespace() || c == '='),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_jump_hosts_and_variables() {
        let config = "host a\nproxyjump ann@gate:22,[::1]:2,far\nproxyjumpx no\n\
                      identityfile ${KEYS}/id\nidentityagent ${A}${B}\nsetenv X=$Y\n\
                      identityagent $C\nForwardAgent = \"$D\"\nforwardagent yes\n";
        let all: Vec<_> = jumps(config).collect();
        assert_eq!(all, ["ann@gate:22", "[::1]:2", "far"]);
        assert_eq!(jumps("proxyjump none\n").count(), 0);
        let all: Vec<_> = variables(config).collect();
        assert_eq!(all, ["KEYS", "A", "B", "C", "D"]);
    }

    /// Returns the name of a destination for which a script stands in for `ssh`.
    fn told(script: &str) -> Option<String> {
        with_agent(script, "/run/agent")
    }

    fn with_agent(script: &str, agent: &str) -> Option<String> {
        let ssh = || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let variable = |name: &str| (name == "SSH_AUTH_SOCK").then(|| OsString::from(agent));
        let resolver = Resolver::new(&ssh, &variable);
        let resolved = resolver.resolve(&["host".into()], &Cancel::default());
        resolved.map(|destination| destination.name)
    }

    #[test]
    fn a_jump_host_that_many_hosts_have_is_asked_for_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let asked = dir.path().join("asked");
        let script = format!(
            "case $* in *gate*) echo x >>{0}; sleep 0.1;; *) echo proxyjump gate;; esac; echo \"$*\"",
            asked.display()
        );
        let ssh = || {
            let mut command = Command::new("sh");
            command.args(["-c", &script, "ssh"]);
            command
        };
        let resolver = Resolver::new(&ssh, &|_| None);
        let never = Cancel::default();
        let resolve = |host: &str| resolver.resolve(&["--".into(), host.into()], &never);
        let names = std::thread::scope(|scope| {
            let threads = ["a", "b", "c"].map(|host| scope.spawn(move || resolve(host)));
            threads.map(|thread| thread.join().expect("ends").expect("resolves").name)
        });
        assert_eq!(BTreeSet::from(names).len(), 3);
        let asked = std::fs::read_to_string(asked).expect("asked");
        assert_eq!(asked, "x\n");
    }

    #[test]
    fn what_would_start_instead_of_the_session_is_put_off() {
        for (config, options) in [
            (
                "sessiontype default\nstdinnull no\nforkafterauthentication no\n",
                &[][..],
            ),
            ("remotecommand tmux new -A\n", &["RemoteCommand=none"]),
            (
                "remotecommand none\nsessiontype none\n",
                &["SessionType=default"],
            ),
            (
                "stdinnull yes\nforkafterauthentication yes\n",
                &["StdinNull=no", "ForkAfterAuthentication=no"],
            ),
            // A variable of the name.
            ("setenv remotecommand=x\n", &[]),
        ] {
            assert_eq!(in_the_way(config), options, "{config}");
        }
    }

    #[test]
    fn what_tells_no_configuration_has_no_name() {
        assert_eq!(told("echo host h; echo port 22").map(|n| n.len()), Some(32));
        assert_ne!(told("echo port 22"), told("echo port 23"));
        assert_ne!(told("echo port 22"), with_agent("echo port 22", "/tmp/a"));
        // Of two variables that a file name has, only one is known.
        let [one, two] = ["SSH_AUTH_SOCK", "OTHER"].map(|name| {
            ["/a", "/b"].map(|value| with_agent(&format!("echo 'identityfile ${{{name}}}'"), value))
        });
        assert!(one[0] != one[1] && two[0] != two[1]);
        for script in ["exit 1", "echo port 22; exit 1", ":", "yes port 22"] {
            assert_eq!(told(script), None, "{script}");
        }
        // Each jump host has another one.
        assert_eq!(told("echo proxyjump x$$"), None);
        // They lead to each other.
        assert!(told("echo proxyjump gate").is_some());
    }

    #[test]
    fn a_configuration_without_an_end_is_given_up_with_an_interrupt() {
        for script in [
            "sleep 60 & echo port 22; wait",
            "echo port 22; exec >&-; sleep 60",
        ] {
            let ssh = || {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command
            };
            let cancel = Cancel::default();
            cancel.set();
            let start = Instant::now();
            let resolver = Resolver::new(&ssh, &|_| None);
            let resolved = resolver.resolve(&["host".into()], &cancel);
            assert_eq!(resolved, None);
            assert!(start.elapsed() < Duration::from_secs(30), "{script}");
        }
    }
}
