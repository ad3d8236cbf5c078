//! What is sent to a host: one POSIX sh program, a text that can be read. Pure.
//!
//! A program is the functions of `lib/` that it needs, and then calls of them. Texts of the caller
//! go in as single-quoted words and are evaluated in a subshell: a syntax error in one of them
//! ends that step and not the program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::LazyLock;
use std::time::Duration;

use crate::core::template::shell_quote;
use crate::deploy::protocol::words::{hex, join_parts};

/// The line between the functions of a program and what it does.
pub const PROGRAM_MARK: &str = "# --- program ---\n";

/// Files of `lib/`, one after the other.
macro_rules! lib {
    ($($name:literal)*) => {
        concat!($(include_str!(concat!("lib/", $name, ".sh"))),*)
    };
}

/// The functions that sessions, programs and supervisors of detached steps have.
pub const COMMON: &str = lib!(
    "event" "clock" "fence" "journal" "facts" "users" "processes" "service_state" "scopes"
    "detached_state"
);
/// Directories that other users can change, and how files are made in them: for sessions and
/// programs.
pub const FOREIGN: &str = lib!("foreign" "private_parts" "bases");
/// Steps, their actions and their undo scripts: for programs.
pub const STEPS: &str = lib!(
    "step" "undo" "notes" "services" "scope_steps" "files" "secrets" "links" "artifacts"
);
/// Detached steps: for the programs that have some.
pub const DETACHED: &str = lib!("detached");
/// What a rollback would do: for the programs that ask.
pub const ROLLBACK_CHECKS: &str = lib!("rollback_checks");
/// Manifests of releases: for the programs and questions that need them.
pub const MANIFEST: &str = lib!("manifest");
/// The state directory, the lease, the program at work, transfers: for sessions.
pub const SESSION_LIB: &str = lib!(
    "foreign_checks" "state_dir" "lease" "freeze" "journal_file" "scopes_owed" "program"
    "session_end" "watchdog" "transfer"
);
/// The part of a session that answers questions.
pub const QUERY: &str = include_str!("query.sh");
/// The main program of a session: starts programs, and ends them with the connection.
pub const SESSION: &str = include_str!("session.sh");
/// The supervisor of a detached step; comes after [`COMMON`].
pub const SUPERVISOR: &str = include_str!("detached_supervisor.sh");
/// Functions of a session that are seldom called.
const ON_DEMAND: &str = lib!("on_demand");
/// Shows and follows the logs of a host.
pub const LOGS: &str = lib!("logs");

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
    /// Directory of the environment's state, below the root; empty where none is kept. On a host
    /// where it is that of another project, the guard takes the one behind `@`.
    pub state: String,
    /// The project, if the Releasefile names it: whose state that is. Else empty.
    pub project: String,
    /// The host's name in the Releasefile, which is kept there; empty for this machine.
    pub name: String,
    /// Id of this run.
    pub run: String,
    /// Who runs `rel`.
    pub who: String,
    /// What this run is for, as it was asked: `production branch2`.
    pub purpose: String,
    /// How long its lease holds when nothing is heard of it.
    pub lease: Duration,
    /// root may write into directories that other users of the host can change.
    pub may_write_foreign: bool,
    /// The owner of the project; on this machine that user has rel's trust: its Releasefile
    /// says what rel runs.
    pub project_uid: Option<u32>,
    /// The checkout, on this machine: a user who can change it can change its Releasefile.
    pub checkout: Option<String>,
}

impl Header {
    fn text(&self) -> String {
        let ttl = (self.lease.as_millis() / 10).to_string();
        let period = format!("{:.3}", self.period().as_secs_f64());
        let foreign = String::from(if self.may_write_foreign { "1" } else { "" });
        let checkout = self.checkout.clone().unwrap_or_default();
        let owner = self
            .project_uid
            .map_or_else(String::new, |uid| uid.to_string());
        [
            ("rel_nonce", &self.nonce),
            ("rel_session_id", &self.session_id()),
            ("rel_salt", &self.salt()),
            ("rel_root", &self.root),
            ("rel_host_name", &self.name),
            ("rel_run", &self.run),
            ("rel_who", &self.who),
            ("rel_purpose", &self.purpose),
            ("rel_ttl", &ttl),
            ("rel_period", &period),
            ("rel_foreign_ok", &foreign),
            ("rel_project_uid", &owner),
            ("rel_checkout", &checkout),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}\n", quote(value)))
        .collect()
    }

    /// Returns what only the guard knows: which directory it keeps the state in, it tells programs.
    fn about_state(&self) -> String {
        [
            ("rel_state", self.state.as_str()),
            ("rel_apart", &self.apart()),
            ("rel_project", &self.project),
        ]
        .iter()
        .map(|(name, value)| format!("{name}={}\n", quote(value)))
        .collect()
    }

    /// Returns the directory for the state where another project has the usual one. No name of an
    /// environment gives it: [`join_parts`] makes no `@`.
    fn apart(&self) -> String {
        let of_project = match self.project.as_str() {
            "" => String::new(),
            project => join_parts(&[project]),
        };
        format!("{}@{of_project}", self.state)
    }

    /// Returns the name of the session's directory for temporary files, which many may see: it
    /// does not tell the nonce.
    pub fn session_id(&self) -> String {
        hex(self.nonce.as_bytes()).chars().take(12).collect()
    }

    /// Returns what the names of files begin with until they are whole: it cannot be guessed.
    fn salt(&self) -> String {
        hex(format!("{} files", self.nonce).as_bytes())
            .chars()
            .take(12)
            .collect()
    }

    /// Returns how often a guard looks whether `rel` is still there.
    pub fn period(&self) -> Duration {
        self.lease / LOOKS
    }

    /// Returns the guard, ready to be evaluated by the host's first shell, with the questions that
    /// it is asked at once; these may be none.
    ///
    /// It takes a process to read on behind the guard, which the first questions save.
    pub fn guard(&self, questions: &str) -> String {
        static WORDS: LazyLock<String> = LazyLock::new(|| {
            [COMMON, FOREIGN, SESSION_LIB, QUERY]
                .map(strip_comments)
                .concat()
        });
        static LOOP: LazyLock<String> = LazyLock::new(|| strip_comments(SESSION));
        let first = match questions {
            "" => String::from("rel_is_asked=\n"),
            questions => format!("rel_is_asked=1\nrel_first() {{\n{questions}\n}}\n"),
        };
        let (header, state) = (self.text(), self.about_state());
        format!("{header}{state}{}{first}{}", *WORDS, *LOOP)
    }

    /// Returns a whole program around `body`.
    ///
    /// In braces, because sh begins what it has read so far: half a line is another command.
    /// Once it is read its file is emptied: steps must not find the nonce there. Its last word
    /// is that it came to its end, which no exit status tells for certain.
    pub fn program(&self, body: &str) -> String {
        // A host reads it all each time: no more than is needed.
        static WORDS: LazyLock<String> =
            LazyLock::new(|| [COMMON, STEPS, FOREIGN].map(strip_comments).concat());
        let mut functions = WORDS.clone();
        // Scopes keep the functions that their way out may call.
        let may_owe = ["rel_scope", "rel_undo_step", "rel_enter_again"];
        let kept = match may_owe.iter().any(|name| body.contains(name)) {
            true => format!("rel_functions={}\n", quote(&functions)),
            false => String::new(),
        };
        let of_detached = ["rel_do_detached", "rel_detached_", "rel_undo_step"];
        if of_detached.iter().any(|name| body.contains(name)) {
            functions.push_str(&strip_comments(DETACHED));
        }
        if body.contains("rel_prove_") || body.contains("rel_undo_step") {
            functions.push_str(&strip_comments(ROLLBACK_CHECKS));
        }
        if ["rel_prove_", "rel_seal "]
            .iter()
            .any(|name| body.contains(name))
        {
            functions.push_str(&strip_comments(MANIFEST));
        }
        format!(
            "{{\n{}{kept}rel_tmp=$1 rel_umask=$2 rel_token=$3 rel_epoch=$4 rel_epoch_clock=$5 rel_uid=$6 \
             rel_gid=$7 rel_state=$8\n: >\"$1/program\"\n{}\nrel_begin_program\n{PROGRAM_MARK}{body}\nrel_emit over\n}}\n",
            self.text(),
            functions,
        )
    }
}

/// Returns a script of ours without what is for people: a host reads it each time, and half of
/// it is comments and indentation. None of them has a line that must begin with either.
pub fn strip_comments(script: &str) -> String {
    let lines = script.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.fold(String::with_capacity(script.len()), |text, line| {
        text + line + "\n"
    })
}

/// Returns a call of the guard together with the functions of `lib/on_demand.sh`.
pub fn call(call: &str) -> String {
    format!("{}{call}\n", strip_comments(ON_DEMAND))
}

/// Returns `text` as one word.
pub fn quote(text: &str) -> String {
    shell_quote(OsStr::new(text)).to_string_lossy().into_owned()
}

/// Returns the line that writes down a scope's way out, for a step that is carried out from here;
/// `port` is what the rollback opens again for it, as JSON.
pub fn owe(name: &str, leave: &str, port: Option<&str>) -> String {
    let again = port.map_or_else(String::new, |port| format!(" '' {}", quote(port)));
    format!("rel_scope {} {}{again}\n", quote(name), quote(leave))
}

/// Returns the line that begins an attempt.
pub fn begin(label: &str, key: &str, facts: &BTreeMap<String, String>) -> String {
    // JSON escapes tabs and line ends, so it is one column.
    let facts = serde_json::to_string(facts).unwrap_or_else(|_| "{}".into());
    format!(
        "rel_journal begin - {} {} {} || exit 1\n",
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
    format!("rel_journal end - {} - - || exit 1\n", quote(label))
}

/// Returns the line that says of a whole run what becomes of it: `rolling-back`, `rolled-back` or
/// `gone-back`.
pub fn back(event: &str, run: &str) -> String {
    format!("rel_journal {event} - - {} -\n", quote(run))
}

/// Returns the call of the guard that tells what steps left for their rollback, with a tab before
/// each: `back`, then `KIND RUN SEQ`, where a port has its JSON behind it.
pub fn left_for_back<'a>(steps: impl Iterator<Item = (&'a str, u32)>) -> String {
    let steps = steps.map(|(run, seq)| format!("rel_has_back {} {seq}\n", quote(run)));
    let steps: String = steps.collect();
    call(&format!("rel_has=\n{steps}rel_emit \"back$rel_has\""))
}

/// Returns the line that enters again the scope that a step of `run` entered.
pub fn enter_again(run: &str, seq: u32, id: &str) -> String {
    format!("rel_enter_again {} {seq} {}\n", quote(run), quote(id))
}

/// Returns the lines that end a service whose use is gone.
pub fn end_orphan(service: &str, label: &str) -> String {
    let (service, label) = (quote(service), quote(label));
    format!(
        "rel_service_stop {service} || exit 1\n\
         rel_journal orphan-ended - {label} {service} - || exit 1\n"
    )
}

/// Returns the line that says of a use that a rollback leaves what `run` did there.
pub fn left(label: &str, run: &str) -> String {
    format!("rel_journal left-out - {} {} -\n", quote(label), quote(run))
}

/// Returns the line that undoes a step of `run`; `suffix` is `.late`, `.start` or `.last` for what
/// waits.
/// `older` are the attempts at the same step that are rolled back after it, and whether each came to its
/// end.
pub fn undo<'a>(
    run: &str,
    seq: u32,
    id: &str,
    suffix: &str,
    older: impl Iterator<Item = (&'a str, u32, bool)>,
) -> String {
    let older = older.map(|(run, seq, is_done)| {
        let mark = if is_done { "" } else { "!" };
        format!(" {}", quote(&format!("{mark}{run}/{seq}")))
    });
    format!(
        "rel_undo_step {} {seq} {} {}{}\n",
        quote(run),
        quote(id),
        quote(suffix),
        older.collect::<String>()
    )
}

/// Returns the line that says of an earlier run that it came to its end: nothing was left to do.
pub fn ended(run: &str) -> String {
    format!(
        "( rel_run={}; rel_journal ok - - - - ) || rel_unwritten=1\n",
        quote(run)
    )
}

/// Returns the line that looks at the directory with what `run` left for its rollback.
pub fn prove_run(run: &str) -> String {
    format!("rel_prove_run {}\n", quote(run))
}

/// Returns the line that asks whether `run`, which the journal does not know, left anything.
pub fn prove_no_run(run: &str) -> String {
    format!("rel_prove_no_run {}\n", quote(run))
}

/// Returns the lines that look at the rollback of a step, and change nothing.
pub fn prove_step(run: &str, seq: u32) -> String {
    let run = quote(run);
    format!("rel_prove_step {run} {seq}\nrel_prove_check {run} {seq}\n")
}

/// Returns the line that lets the rollbacks after it overwrite later changes.
pub fn overwrite() -> &'static str {
    "rel_overwrites=1\n"
}

/// Returns a duration in whole seconds, at least one.
pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
