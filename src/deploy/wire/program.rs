//! Steps -> one POSIX sh program. Pure: what is sent to a host is a text that can be read.
//!
//! A program is the prelude (`prelude.sh`) and then, for each step, calls of its
//! functions. Texts of the caller go in as single-quoted words and are evaluated in a
//! subshell: a syntax error in one of them ends that step and not the program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use crate::deploy::plan::PlannedStep;
use crate::deploy::plan::job::{Act, Draft};
use crate::deploy::wire::detached;
use crate::deploy::wire::words::hex;
use crate::template::shell_quote;

/// The functions that programs call.
pub const PRELUDE: &str = include_str!("prelude.sh");
/// More of them; the guard, which every question waits for, goes without.
pub const DETACHED: &str = include_str!("detached.sh");
/// What keeps a detached step; comes after the prelude.
pub const KEEPER: &str = include_str!("keeper.sh");
/// The guard's part that takes, renews and gives back the lease.
pub const LEASE: &str = include_str!("lease.sh");
/// The guard's part that answers questions.
pub const ASKED: &str = include_str!("asked.sh");
/// The loop that starts programs and ends them with the connection.
pub const GUARD: &str = include_str!("guard.sh");
/// What shows and follows the logs of a host.
pub const LOGS: &str = include_str!("logs.sh");

/// Looks of a guard within the time of a lease; after half of them without a word it leaves.
const LOOKS: u32 = 6;

/// How long a lease holds unheard of, where the environment does not say.
pub const LEASE_TIME: Duration = Duration::from_secs(60);

/// What every program on one host begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Marks events; chosen anew for each session.
    pub nonce: String,
    /// Directory of the host that belongs to `rel`.
    pub root: String,
    /// Directory of the environment's state, below the root.
    pub state: String,
    /// Id of this run.
    pub run: String,
    /// Who runs `rel`.
    pub who: String,
    /// What this run is for, as it was asked: `production branch2`.
    pub purpose: String,
    /// How long its lease holds when nothing is heard of it.
    pub lease: Duration,
}

impl Header {
    fn text(&self) -> String {
        let ttl = (self.lease.as_millis() / 10).to_string();
        let period = format!("{:.3}", self.period().as_secs_f64());
        [
            ("rel_nonce", &self.nonce),
            ("rel_room", &self.room()),
            ("rel_root", &self.root),
            ("rel_state", &self.state),
            ("rel_run", &self.run),
            ("rel_who", &self.who),
            ("rel_purpose", &self.purpose),
            ("rel_ttl", &ttl),
            ("rel_period", &period),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}\n", quote(value)))
        .collect()
    }

    /// Returns the name of the session's directory for temporary files, which many may see: it
    /// does not tell the nonce.
    fn room(&self) -> String {
        hex(self.nonce.as_bytes()).chars().take(12).collect()
    }

    /// Returns how often a guard looks whether `rel` is still there.
    pub fn period(&self) -> Duration {
        self.lease / LOOKS
    }

    /// Returns the guard, ready to be evaluated by the host's first shell.
    pub fn guard(&self) -> String {
        let functions = [PRELUDE, LEASE, ASKED, GUARD].map(lean);
        format!("{}{}", self.text(), functions.concat())
    }

    /// Returns a whole program around `body`.
    ///
    /// In braces, because sh begins what it has read so far: half a line is another command.
    /// Once it is read its file is emptied: steps must not find the nonce there.
    pub fn program(&self, body: &str) -> String {
        format!(
            "{{\n{}rel_tmp=$1 rel_umask=$2 rel_token=$3 rel_epoch=$4 rel_epoch_clock=$5\n: >\"$1/program\"\n{}{}\nrel_enter\n# --- program ---\n{body}\n}}\n",
            self.text(),
            lean(PRELUDE),
            lean(DETACHED),
        )
    }
}

/// Returns a script of ours without what is for people: a host reads it each time, and half of
/// it is comments and indentation. None of them has a line that must begin with either.
fn lean(script: &str) -> String {
    let lines = script.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.fold(String::with_capacity(script.len()), |text, line| {
        text + line + "\n"
    })
}

/// Returns `text` as one word.
pub fn quote(text: &str) -> String {
    shell_quote(OsStr::new(text)).to_string_lossy().into_owned()
}

/// Returns the lines that make a step the one at work and lay down its way back.
///
/// `root` is where commands run that do not say otherwise.
pub fn open_step(step: &PlannedStep, root: &str) -> String {
    let mut text = format!(
        "\nrel_step {} {} {}\n",
        step.seq,
        quote(&step.id),
        quote(&step.key)
    );
    if let Some((undo, is_late)) = &step.draft.undo {
        let word = match is_late {
            true => "rel_undo_late",
            false => "rel_undo",
        };
        let dir = step.draft.dir.as_deref().unwrap_or(root);
        let script = format!(
            "cd -- {dir} 2>/dev/null || cd {root}\n{}eval {}",
            exports(&step.draft),
            quote(undo.trim_end()),
            dir = quote(dir),
            root = quote(root),
        );
        let script = match &step.draft.user {
            Some(_) => as_user(&step.draft, &script),
            None => format!("( {script} )"),
        };
        text.push_str(&format!("{word} {}\n", quote(&script)));
    }
    text
}

/// Returns the lines that carry a step out.
pub fn step(step: &PlannedStep, root: &str) -> String {
    let mut text = open_step(step, root);
    let dir = quote(step.draft.dir.as_deref().unwrap_or(root));
    // Not indented: a value may have several lines.
    let place = format!("cd -- {dir}\n{}", exports(&step.draft));
    // At the root, because it may make the directory in which the action runs.
    let prepare = step
        .draft
        .prepare
        .as_ref()
        .map_or_else(String::new, |prepare| {
            let script = format!(
                "cd -- {}\n{}eval {}",
                quote(root),
                exports(&step.draft),
                quote(prepare.trim_end())
            );
            match &step.draft.user {
                Some(_) => as_user(&step.draft, &script) + "\n",
                None => format!("( {script} )\n"),
            }
        });
    let action = match (&step.draft.user, &step.draft.act) {
        _ if step.draft.is_detached => String::from(":"),
        (Some(_), Act::Run(text)) => as_user(&step.draft, &format!("{place}{}", text.trim_end())),
        (Some(_), act) => wait_as(&step.draft, act, &place),
        (None, _) => format!("{place}{}", act(&step.draft, root)),
    };
    text.push_str(&format!("rel_action() {{\n{prepare}{action}\n}}\n"));
    if !step.draft.verify.is_empty() {
        let is_other = step.draft.user.is_some();
        let first = if is_other { "" } else { &place };
        text.push_str(&format!("rel_verifies=1\nrel_verify() {{\n{first}"));
        for verify in step.draft.verify.iter().map(|v| v.trim_end()) {
            let line = match is_other {
                true => as_user(&step.draft, &format!("{place}{verify}")),
                false => format!("eval {}", quote(verify)),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str("}\n");
    }
    match step.draft.is_detached {
        true => text.push_str(&detached(&step.draft, &place)),
        false => text.push_str("rel_do\n"),
    }
    text
}

/// Returns the line that writes down a scope's way out, for a step that is carried out from here.
pub fn owe(name: &str, leave: &str) -> String {
    format!("rel_scope {} {}\n", quote(name), quote(leave))
}

/// The call that starts a step which goes on without us, or joins it.
fn detached(draft: &Draft, place: &str) -> String {
    let Act::Run(text) = &draft.act else {
        return String::from("rel_do\n");
    };
    let words = [
        detached::dir_name(&draft.id),
        detached::does(draft),
        draft.timeout.map_or(0, seconds).to_string(),
        draft.user.clone().unwrap_or_default(),
        format!("{}\n{}", lean(PRELUDE), lean(KEEPER)),
        format!("{place}{}", text.trim_end()),
    ];
    let words = words.map(|word| quote(&word));
    format!("rel_do_detached {}\n", words.join(" "))
}

/// Returns the lines that end a step which was carried out from here.
pub fn close_step(step: &PlannedStep, failed: Option<&str>) -> String {
    let (event, detail) = match failed {
        None => ("done", "-".to_owned()),
        Some(why) => ("failed", crate::deploy::wire::journal::column(why)),
    };
    format!(
        "rm -f -- \"$rel_tmp/at\"\nrel_journal '{event}' {} {} {} {}\n",
        step.seq,
        quote(&step.id),
        quote(&step.key),
        quote(&detail)
    )
}

/// Returns the line that begins an attempt.
pub fn begin(label: &str, key: &str, facts: &BTreeMap<String, String>) -> String {
    // JSON escapes tabs and line ends, so it is one column.
    let facts = serde_json::to_string(facts).unwrap_or_else(|_| "{}".into());
    format!(
        "rel_journal begin - {} {} {}\n",
        quote(label),
        quote(key),
        quote(&facts)
    )
}

/// Returns the line that names the use whose steps follow.
pub fn use_of(label: &str) -> String {
    format!("rel_use={}\n", quote(label))
}

/// Returns the line that ends an attempt.
pub fn end(label: &str) -> String {
    format!("rel_journal end - {} - -\n", quote(label))
}

/// Returns the line that undoes a step of `run`; `suffix` is `.late` for what waits.
pub fn undo(run: &str, seq: u32, id: &str, suffix: &str) -> String {
    format!(
        "rel_undo_step {} {seq} {} {}\n",
        quote(run),
        quote(id),
        quote(suffix)
    )
}

/// Returns a duration in whole seconds, at least one.
pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn place(draft: &Draft, root: &str) -> String {
    let dir = draft.dir.as_deref().unwrap_or(root);
    format!("cd -- {}\n{}", quote(dir), exports(draft))
}

fn exports(draft: &Draft) -> String {
    draft
        .env
        .iter()
        .map(|(name, value)| format!("{name}={}\nexport {name}\n", quote(value)))
        .collect()
}

/// Returns a script as it is run by the step's own user.
pub fn as_user(draft: &Draft, script: &str) -> String {
    match &draft.user {
        Some(user) => format!("rel_as {} {}", quote(user), quote(script)),
        None => script.to_owned(),
    }
}

/// The call that waits for a command of another user: the wait itself is ours.
fn wait_as(draft: &Draft, act: &Act, place: &str) -> String {
    let Act::Await {
        command,
        within,
        every,
    } = act
    else {
        return String::from(":");
    };
    let script = as_user(draft, &format!("{place}{}", command.trim_end()));
    let every = every.as_secs_f64();
    format!("rel_wait {} {every} {}", seconds(*within), quote(&script))
}

/// The call that writes a file. A secret is over there already, in no text of ours.
fn write(draft: &Draft) -> String {
    let Act::Write {
        path,
        content,
        mode,
        owner,
    } = &draft.act
    else {
        return String::from(":");
    };
    let path = quote(path);
    let owned = owner.as_deref().map(quote);
    match (&draft.sealed, owned) {
        (Some(_), owned) => {
            let owner = owned.unwrap_or_else(|| "''".into());
            format!("rel_write_secret {path} {mode} {owner}")
        }
        (None, None) => format!("rel_write {path} {mode} {}", quote(content)),
        (None, Some(owner)) => format!("rel_write {path} {mode} {} {owner}", quote(content)),
    }
}

fn put(sha256: &str, to: &str, base: &str) -> String {
    let base = match base {
        "" => String::new(),
        base => format!(" {}", quote(base)),
    };
    format!("rel_put {} {}{base}", quote(sha256), quote(to))
}

/// The call that does it.
fn act(draft: &Draft, root: &str) -> String {
    match &draft.act {
        Act::Run(text) => format!("eval {}", quote(text.trim_end())),
        Act::Put {
            sha256,
            to,
            base,
            is_shared,
        } => put(sha256, to, if *is_shared { base } else { "" }),
        Act::Write { .. } => write(draft),
        Act::Symlink { path, to } => format!("rel_symlink {} {}", quote(path), quote(to)),
        Act::Scope { name, enter, leave } => {
            let leave = format!("{}{}", place(draft, root), leave.trim_end());
            let (name, leave) = (quote(name), quote(&leave));
            format!("rel_scope {name} {leave}\neval {}", quote(enter.trim_end()))
        }
        Act::Await {
            command,
            within,
            every,
        } => format!(
            "rel_wait {} {} {}",
            seconds(*within),
            every.as_secs_f64(),
            quote(command.trim_end())
        ),
        Act::Managed {
            start,
            status,
            stop,
            within,
        } => {
            let at_place = |text: &str| match text.trim() {
                "" => String::new(),
                text => format!("( {}{text}\n)", place(draft, root)),
            };
            format!(
                "rel_managed {} {} {} {}",
                quote(&at_place(start)),
                quote(&at_place(status)),
                quote(&at_place(stop)),
                seconds(*within)
            )
        }
        Act::Service(service) => {
            let place = place(draft, root);
            let run = format!(
                "{place}exec >>{} 2>&1\n{}",
                quote(&service.log),
                service.run.trim_end()
            );
            let with_place = |text: &str| match text.trim() {
                "" => String::new(),
                text => format!("{place}{text}"),
            };
            format!(
                "rel_service {} {} {} {} {} {}",
                quote(&service.name),
                quote(&service.log),
                quote(&run),
                quote(&with_place(&service.stop)),
                quote(&with_place(&service.ready)),
                seconds(service.within)
            )
        }
        // Carried out from here, between programs.
        Act::Fetch { .. } | Act::Ask(_) | Act::Port(_) => String::from(":"),
    }
}
