//! What hosts print, as lines: whose, how often, and the text.

use super::{BAD, FAINT, GOOD, NAME, Screen, WARN};
use crate::deploy::hosts::attach::Ending;
use crate::deploy::told::fold::{Folded, together};
use crate::deploy::wire::detached::State;

/// Returns one line of hosts: `web1..web3  app  3x  text`.
pub fn line(screen: Screen, hosts: &str, source: &str, count: usize, text: &[u8]) -> String {
    let hosts = screen.paint(NAME, hosts);
    let source = screen.paint(FAINT, source);
    let count = match count {
        0 | 1 => String::new(),
        n => format!("{}  ", screen.paint(WARN, format_args!("{n}x"))),
    };
    let text = super::deploy::printable(&String::from_utf8_lossy(text));
    format!("{hosts}  {source}  {count}{text}\n")
}

/// Returns a line that several may have said.
pub fn folded(screen: Screen, one: &Folded) -> String {
    let (hosts, sources) = (together(&one.hosts), together(&one.sources));
    line(screen, &hosts, &sources, one.count, &one.text)
}

/// Returns it as one line of JSON.
pub fn json(one: &Folded) -> String {
    let json = serde_json::json!({
        "hosts": one.hosts,
        "sources": one.sources,
        "count": one.count,
        "text": String::from_utf8_lossy(&one.text),
    });
    format!("{json}\n")
}

/// Returns how detached steps ended, a line each.
pub fn endings_text(screen: Screen, purpose: &str, endings: &[Ending]) -> String {
    if endings.is_empty() {
        return format!("rel: nothing goes on detached on the hosts of `{purpose}`\n");
    }
    let mut text = String::new();
    for one in endings {
        let (style, said) = match (one.is_stopped, one.state, one.status) {
            (true, _, status) => (
                WARN,
                format!("stopped, exit status {}", status.unwrap_or(137)),
            ),
            (_, State::Ended, Some(0)) => (
                GOOD,
                format!("ended well: `rel {purpose}` goes on behind it"),
            ),
            (_, State::Ended, Some(status)) => (BAD, format!("ended with exit status {status}")),
            (_, State::Restarted, _) => (
                BAD,
                String::from("died with its host, which was started anew"),
            ),
            _ => (
                BAD,
                String::from("was killed on its host, nobody knows how far it came"),
            ),
        };
        let host = screen.paint(NAME, &one.host);
        text.push_str(&format!(
            "rel: {host}  {}  {}\n",
            one.step,
            screen.paint(style, said)
        ));
    }
    text
}
