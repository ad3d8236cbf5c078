//! A port of a host that is served from the operator's machine while a run lasts. Pure.
//!
//! Here is what it is, whether it can be, and the texts that a host runs for it. The process
//! that keeps it open is the porter's matter.

use serde::{Deserialize, Serialize};

use crate::core::error::{Error, ErrorKind, Result};
use crate::deploy::protocol::program::quote;

/// A port that is open as long as the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name among the scopes of the environment.
    pub name: String,
    /// Address on the host: `127.0.0.1:8081`.
    pub listen: String,
    /// What is found there.
    pub leads: ForwardTarget,
}

/// What is found at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardTarget {
    /// An address as the operator's machine sees it.
    To(String),
    /// One answer to whatever is asked over HTTP.
    Answer(MaintenanceReply),
}

/// What the responder says to everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenanceReply {
    /// Status, as it is written: three digits once it is checked.
    pub status: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Port {
    /// Checks what can be wrong with the final texts.
    pub fn check(&self) -> Result<()> {
        is_address(&self.listen)?;
        match &self.leads {
            ForwardTarget::To(to) => is_address(to),
            ForwardTarget::Answer(answer) => answer.check(),
        }
    }

    /// Returns what decides what it does, for a key.
    pub fn key_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("port", self.name.clone()), ("listen", self.listen.clone())];
        match &self.leads {
            ForwardTarget::To(to) => fields.push(("to", to.clone())),
            ForwardTarget::Answer(answer) => {
                fields.push(("status", answer.status.clone()));
                let headers = answer.headers.iter();
                fields.extend(headers.map(|(n, v)| ("header", format!("{n}: {v}"))));
                fields.push(("body", answer.body.clone()));
            }
        }
        fields
    }

    /// Returns one line that says what it does.
    pub fn describe(&self) -> String {
        let listen = &self.listen;
        match &self.leads {
            ForwardTarget::To(to) => format!("until the run ends: {listen} leads to {to} here"),
            ForwardTarget::Answer(answer) => {
                format!("until the run ends: {listen} answers {}", answer.status)
            }
        }
    }

    /// Returns what the host's end of the line runs: says that the port is open, writes down
    /// whose end closes it, and waits for the end of its input.
    pub fn host_end(&self, state: &str) -> String {
        let written = self.written(state, "\"$PPID\"");
        format!("{written}echo up\ncat >/dev/null")
    }

    /// Returns the lines that write down the process which keeps the port open on this machine.
    pub fn note(&self, state: &str, pid: u32) -> String {
        format!("(\n{})\n", self.written(state, &pid.to_string()))
    }

    fn written(&self, state: &str, pid: &str) -> String {
        let dir = quote(&format!("{state}/ports"));
        let file = quote(&self.file(state));
        format!(
            "umask 077\n{BORN}mkdir -p -- {dir} || exit 1\nb=$(born {pid})\n\
             if [ -n \"$b\" ]; then printf '%s %s\\n' {pid} \"$b\" >{file}; fi\n"
        )
    }

    /// Returns what a rollback needs to open it again. Only an answer of ours is: what a host has
    /// kept must not lead a client to other addresses of this machine.
    pub fn again(&self) -> Option<String> {
        match self.leads {
            ForwardTarget::Answer(_) => serde_json::to_string(self).ok(),
            ForwardTarget::To(_) => None,
        }
    }

    /// Reads what [`Port::again`] returned, as a host has kept it.
    pub fn read(text: &str) -> Option<Self> {
        let port: Self = serde_json::from_str(text).ok()?;
        (port.again().is_some() && port.check().is_ok()).then_some(port)
    }

    /// Returns the way out of it, as the host runs it: also where the line was cut without a
    /// word, and the host's end would keep the port open for hours.
    pub fn leave(&self, state: &str) -> String {
        let file = quote(&self.file(state));
        format!(
            "{BORN}if {{ read -r p b <{file}; }} 2>/dev/null; then\nrm -f -- {file}\n\
             if [ \"$(born \"$p\")\" = \"$b\" ]; then kill \"$p\" 2>/dev/null || :; fi\nfi"
        )
    }

    fn file(&self, state: &str) -> String {
        format!("{state}/ports/{}", self.name)
    }
}

/// When a process was born, in ticks; nothing for one that is gone. It stands in scripts
/// that know no other function.
const BORN: &str = "born() {\ns=\n\
                    { while IFS= read -r l; do s=$s$l; done <\"/proc/$1/stat\"; } 2>/dev/null || return 0\n\
                    set -f\nset -- ${s##*) }\nset +f\nprintf %s \"${20}\"\n}\n";

impl MaintenanceReply {
    fn check(&self) -> Result<()> {
        let status: Option<u16> = self.status.parse().ok();
        if !status.is_some_and(|s| (200..=599).contains(&s)) {
            let message = format!(
                "`{}` is not a status that a responder can send",
                self.status
            );
            return Err(wrong(message).help("a number from 200 to 599"));
        }
        for (name, value) in &self.headers {
            if value.contains(|c: char| c.is_control() && c != '\t') {
                let message = format!("the header `{name}` of a responder must be one line");
                return Err(wrong(message).note("value", value.clone()));
            }
        }
        Ok(())
    }
}

/// Checks `HOST:PORT`.
fn is_address(text: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]%*".contains(c);
    let parts = text.rsplit_once(':');
    let is_good = parts.is_some_and(|(host, port)| {
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty() && host.chars().all(is_plain) && !host.starts_with('-');
        is_host && (is_bracketed || !host.contains(':')) && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    match is_good {
        true => Ok(()),
        false => {
            Err(wrong(format!("`{text}` is not an address with a port"))
                .help("write `127.0.0.1:8081`"))
        }
    }
}

fn wrong(message: String) -> Box<Error> {
    Error::new(ErrorKind::Releasefile, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:1", "localhost:65535", "[::1]:80", "*:80"] {
            assert!(is_address(good).is_ok(), "{good}");
        }
        for bad in [
            "", "80", ":80", "h:", "h:0", "h:65536", "::1:80", "h h:80", "-R:80", "a/b:80",
        ] {
            assert!(is_address(bad).is_err(), "{bad}");
        }
    }

    /// What a host has kept can be what it likes.
    #[test]
    fn what_a_host_kept_opens_an_answer_of_ours_and_nothing_else() {
        let port = |listen: &str, leads| Port {
            name: "x.responder".into(),
            listen: listen.into(),
            leads,
        };
        let answer = ForwardTarget::Answer(MaintenanceReply {
            status: "503".into(),
            headers: Vec::new(),
            body: "away\tfor a while\n".into(),
        });
        let good = port("127.0.0.1:8081", answer.clone());
        let text = good.again().expect("is kept");
        // One column and one line of what a host tells.
        assert!(!text.contains(['\t', '\n']), "{text}");
        assert_eq!(Port::read(&text), Some(good));
        let elsewhere = port("127.0.0.1:8081", ForwardTarget::To("127.0.0.1:22".into()));
        assert_eq!(elsewhere.again(), None);
        let text = serde_json::to_string(&elsewhere).expect("writes");
        assert_eq!(Port::read(&text), None);
        let odd = port("-oProxyCommand=x:1", answer)
            .again()
            .expect("is written");
        assert_eq!(Port::read(&odd), None);
        assert_eq!(Port::read("nonsense"), None);
    }

    #[test]
    fn an_answer_has_a_status_and_headers_of_one_line() {
        let check = |status: &str, value: &str| {
            let answer = MaintenanceReply {
                status: status.into(),
                headers: vec![("A".into(), value.into())],
                body: String::new(),
            };
            answer.check().is_ok()
        };
        assert!(check("503", "a b\tc") && check("200", ""));
        assert!(!check("503", "a\r\nb: c") && !check("503", "a\nb"));
        assert!(!check("100", "") && !check("600", "") && !check("x", "") && !check("", ""));
    }
}
