//! What hosts print, as lines: whose, how often, and the text.

use super::{DIM, ERROR, NAME, OK, TermOptions, Text, WARN};
use crate::deploy::protocol::detached::DetachedState;
use crate::deploy::remote::attach_detached::Attached;
use crate::deploy::report::log_dedup::{DedupLine, together};

/// Returns one line of hosts: `web1..web3  app  3x  text`.
pub fn line(screen: TermOptions, hosts: &str, source: &str, count: usize, text: &[u8]) -> Text {
    let mut line = screen.paint(NAME, hosts) + "  " + screen.paint(DIM, source) + "  ";
    if count > 1 {
        line += screen.paint(WARN, format_args!("{count}x")) + "  ";
    }
    let mut whole = Text::new();
    whole.line(line + screen.printed(&String::from_utf8_lossy(text)));
    whole
}

/// Returns a line that several may have said.
pub fn folded(screen: TermOptions, one: &DedupLine) -> Text {
    let (hosts, sources) = (together(&one.hosts), together(&one.sources));
    line(screen, &hosts, &sources, one.count, &one.text)
}

/// Returns it as one line of JSON.
pub fn json(one: &DedupLine) -> Text {
    let json = serde_json::json!({
        "hosts": one.hosts,
        "sources": one.sources,
        "count": one.count,
        "text": String::from_utf8_lossy(&one.text),
    });
    Text::json_line(&json)
}

/// Returns how detached steps ended, a line each, and what is not known.
pub fn attached_text(screen: TermOptions, purpose: &str, attached: &Attached) -> Text {
    let mut text = Text::new();
    if attached.endings.is_empty() {
        text.line(match (attached.down.is_empty(), attached.is_any_up) {
            (true, _) => format!("rel: no detached step runs on the hosts of `{purpose}`"),
            (_, true) => {
                format!("rel: no detached step runs on the other hosts of `{purpose}`")
            }
            _ => format!("rel: detached steps are unknown: no host of `{purpose}` answers"),
        });
    }
    for one in &attached.endings {
        let (style, said) = match (one.is_stopped, one.state, one.status) {
            (true, _, status) => (
                WARN,
                format!("stopped, exit status {}", status.unwrap_or(137)),
            ),
            (_, DetachedState::Ended, Some(0)) => {
                (OK, format!("succeeded: `rel {purpose}` continues after it"))
            }
            (_, DetachedState::Ended, Some(status)) => {
                (ERROR, format!("ended with exit status {status}"))
            }
            (_, DetachedState::Restarted, _) => {
                (ERROR, String::from("was ended by a restart of its host"))
            }
            _ => (
                ERROR,
                String::from("was killed on its host, at an unknown point"),
            ),
        };
        let host = Text::from("rel: ") + screen.paint(NAME, &one.host);
        text.line(host + "  " + &one.step + "  " + screen.paint(style, said));
    }
    for host in &attached.down {
        let host = Text::from("rel: ") + screen.paint(NAME, host);
        let said = "does not answer: its detached steps are unknown";
        text.line(host + "  " + screen.paint(ERROR, said));
    }
    text
}
