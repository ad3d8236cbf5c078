//! Usual reasons for which a command fails that works by hand: what is not declared is not there.

use crate::build::runner::CommandExit;

/// Variables that say whom to trust, where to fetch from and how to get there; each with what is
/// printed where it is missed, and the programs in the command that read it.
const MISSED: [(&[&str], &[&str], &[&str]); 3] = [
    (
        &[
            "certificate verify failed",
            "ssl certificate",
            "issuer certificate",
            "unknown authority",
        ],
        &[],
        &[
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "PIP_CERT",
        ],
    ),
    (
        &[],
        &["pip", "pip3"],
        &[
            "PIP_INDEX_URL",
            "PIP_EXTRA_INDEX_URL",
            "PIP_FIND_LINKS",
            "PIP_NO_INDEX",
            "PIP_TRUSTED_HOST",
            "PIP_CONFIG_FILE",
            "PIP_CERT",
        ],
    ),
    (
        &[
            "could not resolve",
            "name resolution",
            "name or service not known",
            "network is unreachable",
            "failed to connect",
            "connection timed out",
        ],
        &[],
        &[
            "https_proxy",
            "HTTPS_PROXY",
            "http_proxy",
            "HTTP_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ],
    ),
];

/// What a program says that wants to ask a person.
const ASKS: [&str; 5] = [
    "eof when reading a line",
    "not a tty",
    "inappropriate ioctl for device",
    "/dev/tty",
    "terminal is required",
];

/// A command that failed.
pub(super) struct Failed<'a> {
    /// Its text.
    pub command: &'a str,
    /// How it ended.
    pub exit: &'a CommandExit,
    /// The end of what was printed.
    pub printed: &'a str,
    /// Says whether a variable is set where `rel` runs, and no part of the command's environment.
    pub is_kept: &'a dyn Fn(&str) -> bool,
}

impl Failed<'_> {
    /// Returns what to do, where the words of shells and of usual tools tell.
    pub(super) fn help(&self) -> Option<String> {
        let lower = self.printed.to_lowercase();
        let unset = || self.unset().map(|name| self.declare(name));
        let program = || {
            let name = self.missing_program()?;
            Some(match name.contains('/') {
                true => format!("`{name}`, or the program in its first line, is not there"),
                false => format!("is `{name}` installed, and its directory in `PATH`?"),
            })
        };
        unset()
            .or_else(program)
            .or_else(|| self.missed(&lower))
            .or_else(|| self.asks(&lower))
    }

    /// Returns the variable of which a shell says that it is not set.
    fn unset(&self) -> Option<&str> {
        let words = [": parameter not set", ": unbound variable"];
        let line = |line| words.iter().find_map(|word| str::strip_suffix(line, word));
        let said = self.printed.lines().rev().find_map(line)?;
        let name = said.rsplit(": ").next()?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(is_name)).then_some(name)
    }

    fn declare(&self, name: &str) -> String {
        match (self.is_kept)(name) {
            true => format!("`{name}` is set here and not declared: add `env \"{name}\"`"),
            false => {
                format!(
                    "commands get what is declared: add `env {name}=\"…\"`, or write `${{{name}:-}}`"
                )
            }
        }
    }

    /// Returns the program that a shell, or `env`, did not find.
    fn missing_program(&self) -> Option<&str> {
        if !matches!(self.exit, CommandExit::Code(127)) {
            return None;
        }
        let words = [
            ": command not found",
            ": not found",
            ": No such file or directory",
        ];
        let line = |line| words.iter().find_map(|word| str::strip_suffix(line, word));
        let said = self.printed.lines().rev().find_map(line)?;
        let quotes = |c| "'`\"‘’".contains(c);
        said.rsplit(": ")
            .next()
            .map(|name| name.trim_matches(quotes))
    }

    /// Returns a variable that is set here, is not declared, and may be missed.
    fn missed(&self, lower: &str) -> Option<String> {
        let ends = |c: char| !(c.is_alphanumeric() || "_-.".contains(c));
        let is_run = |program: &&str| self.command.split(ends).any(|word| word == *program);
        let missed = MISSED.iter().filter(|(said, programs, _)| {
            said.iter().any(|words| lower.contains(words)) || programs.iter().any(is_run)
        });
        let mut names = missed.flat_map(|(.., names)| names.iter());
        let name = names.find(|name| (self.is_kept)(name))?;
        Some(self.declare(name))
    }

    /// Reports that there is no terminal, if the command seems to ask.
    fn asks(&self, lower: &str) -> Option<String> {
        let is_asking = ASKS.iter().any(|words| lower.contains(words));
        is_asking.then(|| {
            "a command has no terminal and nothing to read: pass the input with `env`, or in a file"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, code: i32, printed: &str, expected: &str) {
        let kept = ["TOKEN", "SSL_CERT_FILE", "PIP_INDEX_URL", "https_proxy"];
        let failed = Failed {
            command,
            exit: &CommandExit::Code(code),
            printed,
            is_kept: &|name| kept.contains(&name),
        };
        assert_eq!(failed.help().unwrap_or_default(), expected);
    }

    #[test]
    fn what_is_not_declared_is_told() {
        let declare = "`TOKEN` is set here and not declared: add `env \"TOKEN\"`";
        check(
            "x",
            2,
            "/usr/bin/sh: 1: TOKEN: parameter not set\n",
            declare,
        );
        check("x", 1, "bash: line 1: TOKEN: unbound variable\n", declare);
        check(
            "x",
            2,
            "sh: 1: OTHER: parameter not set",
            "commands get what is declared: add `env OTHER=\"…\"`, or write `${OTHER:-}`",
        );
        let ask = "is `gmake` installed, and its directory in `PATH`?";
        check("gmake", 127, "sh: 1: gmake: not found\n", ask);
        check(
            "gmake",
            127,
            "bash: line 1: gmake: command not found\n",
            ask,
        );
        check(
            "gmake",
            127,
            "env: ‘gmake’: No such file or directory\n",
            ask,
        );
        check("gmake", 1, "sh: 1: gmake: not found\n", "");
        check(
            "curl https://x",
            60,
            "curl: (60) SSL certificate problem: unable to get local issuer certificate\n",
            "`SSL_CERT_FILE` is set here and not declared: add `env \"SSL_CERT_FILE\"`",
        );
        check(
            "python3 -m pip install x",
            1,
            "ERROR: No matching distribution found for x\n",
            "`PIP_INDEX_URL` is set here and not declared: add `env \"PIP_INDEX_URL\"`",
        );
        check(
            "curl http://x",
            6,
            "curl: (6) Could not resolve host: x\n",
            "`https_proxy` is set here and not declared: add `env \"https_proxy\"`",
        );
        let no_terminal = "a command has no terminal and nothing to read: pass the input with `env`, or in a file";
        check(
            "sh x",
            1,
            "sh: /dev/tty: No such device or address",
            no_terminal,
        );
        check("while read x; do false; done", 1, "", "");
        check("set -o pipefail; echo hi; false", 1, "hi\n", "");
        check("test -s connect.log", 1, "no proxy today\n", "");
        let gone = "`./gone`, or the program in its first line, is not there";
        check("./gone", 127, "sh: 1: ./gone: not found\n", gone);
        check(
            "python3 a.py",
            1,
            "EOFError: EOF when reading a line\n",
            no_terminal,
        );
        check("test -e x", 1, "no\n", "");
    }
}
