//! The one question a host is asked: journal, facts, probes, blobs. And its answers.
//!
//! Pure: makes the text of a program that changes nothing, and reads what it replied.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::core::error::{Error, Result};
use crate::deploy::plan::HostState;
use crate::deploy::plan::access::Access;
use crate::deploy::plan::diff::{RemoteFile, SHOWN_MAX};
use crate::deploy::plan::guards::CheckKind;
use crate::deploy::plan::job_place::RunsOn;
use crate::deploy::plan::orphans::OrphanService;
use crate::deploy::plan::rollback_checks::{self, RollbackNeeds};
use crate::deploy::plan::script::as_user;
use crate::deploy::plan::secret::{Redactor, SecretHasher};
use crate::deploy::plan::use_on_host::{
    RenderPhase, ResolvedAction, ResolvedStep, UseOnHost, redactor,
};
use crate::deploy::protocol::detached::Detached;
use crate::deploy::protocol::frames::{Reply, unanswered};
use crate::deploy::protocol::journal::{JOURNAL_LINES_MAX, Journal};
use crate::deploy::protocol::lease_status::LeaseHolder;
use crate::deploy::protocol::program::{Header, MANIFEST, quote, strip_comments};
use crate::deploy::protocol::words::hex;

/// Longest journal, in bytes, that is read; with all that was put away when it was shortened.
const JOURNAL_MAX: usize = 1 << 26;
/// Longest answer to another question, in bytes.
pub const ANSWER_MAX: usize = 1 << 20;

/// What hosts said, and why others did not.
#[derive(Debug, Default)]
pub struct HostReports {
    /// What each said that answered.
    pub seen: BTreeMap<String, HostState>,
    /// In a line, why each other did not.
    pub down: BTreeMap<String, String>,
}

/// What an answer is about.
#[derive(Clone, Debug)]
enum QueryItem {
    Now,
    Journal,
    /// The journal with all that was put away when it was shortened.
    Journals,
    Held,
    Fact(String, String, String),
    Check(String),
    Guard(String, String),
    /// The rollback of a step, by its own question.
    UndoCheck(String),
    /// What was edited where the link of a step leads to.
    Edits(String),
    /// What rel itself would roll back, and users: lines that are about steps.
    Needed(RollbackNeeds),
    Found(String),
    /// A file with secrets: what is found is known by its keyed hash alone.
    Sealed(String, SecretHasher),
    Blob(String),
    Writable,
    Standing(String),
    /// Scopes that are owed, and services that run.
    Modes,
}

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryScope {
    /// What decides.
    Decide,
    /// Also what a person wants to read: the files that would be replaced.
    Show,
    /// Also the lines of old runs, which decide nothing any more.
    Past,
    /// Also what takes long: whether what links lead to is as it was laid down.
    Deep,
    /// What decides about a rollback: of the uses nothing but the guards that are asked then.
    Back,
}

/// Prints the journal.
const JOURNAL: &str = r#"if [ -e "$rel_state/journal" ]; then cat -- "$rel_state/journal"; fi"#;
/// Prints the journals of old runs.
const FORMER: &str = r#"if [ -d "$rel_state/journals" ]; then cat -- "$rel_state/journals"/*; fi"#;

/// Prints the scopes that are entered and the services that run, with their uses.
const MODES: &str = r#"for s in "$rel_state"/scopes/*; do
    if [ -s "$s" ]; then printf 'scope %s\n' "${s##*/}"; fi
done
for s in "$rel_state"/services/*/use; do
    if [ -s "$s" ]; then rel_l=${s%/use} rel_l=${rel_l##*/}; else continue; fi
    if rel_service_alive "$rel_l" && IFS= read -r s <"$s"; then
        printf 'service %s\t%s\n' "$rel_l" "$s"
    fi
done"#;

/// Says why a journal cannot be kept, changing nothing. root may write everywhere, says the
/// kernel, also where no file can be made.
const WRITABLE: &str = r#"d=$rel_state
until [ -e "$d" ]; do d=${d%/*} d=${d:-/}; done
case $d/ in
/proc/* | /sys/*) printf 'no file can be made in %s\n' "$d" ;;
*)
    if [ ! -d "$d" ]; then
        printf '%s is not a directory\n' "$d"
    elif ! [ -w "$d" -a -x "$d" ]; then
        printf '%s cannot be written\n' "$d"
    elif [ -e "$rel_state/journal" ] && [ ! -w "$rel_state/journal" ]; then
        printf 'the journal cannot be written\n'
    fi
    ;;
esac"#;

/// One program full of questions.
#[derive(Clone, Debug, Default)]
pub struct HostQuery {
    abouts: Vec<QueryItem>,
    hidden: Redactor,
    body: String,
}

impl HostQuery {
    /// Returns the questions to `host` that `jobs` give rise to.
    pub fn new(host: &str, header: &Header, jobs: &[UseOnHost], depth: QueryScope) -> Result<Self> {
        let root = header.root.as_str();
        let mut questions = Self {
            hidden: redactor(jobs),
            ..Self::default()
        };
        // Paths may be relative to it.
        questions.body = String::from("cd -- \"$rel_root\" 2>/dev/null || cd /\n");
        questions.look(QueryItem::Now, "rel_now; printf %s \"$rel_time\"");
        questions.about_journal(depth);
        if depth == QueryScope::Show {
            questions.look(QueryItem::Writable, WRITABLE);
        }
        questions.look(QueryItem::Held, "rel_print_holder\nrel_detached_list");
        questions.look(QueryItem::Modes, MODES);
        let mut blobs = BTreeSet::new();
        let mut needed = RollbackNeeds::default();
        for job in jobs {
            let is_here = |h: &Option<String>| h.as_deref() == Some(host);
            if depth == QueryScope::Back {
                questions.about_guards(job, is_here(&job.host), job.back_guards()?);
                continue;
            }
            for (name, command, is_from) in job.facts()? {
                let is_asked = is_here(if is_from { &job.from } else { &job.host });
                if is_asked && !job.is_unmade(&command) {
                    let about = QueryItem::Fact(job.label.clone(), name, command.clone());
                    questions.ask(about, &command);
                }
            }
            let guards = job.guards()?.into_iter();
            let guards = guards.filter(|(_, text)| !job.is_unmade(text));
            questions.about_guards(job, is_here(&job.host), guards);
            for draft in job.steps(RenderPhase::Symbolic)? {
                let seat = match draft.seat {
                    RunsOn::From => &job.from,
                    RunsOn::Host | RunsOn::Operator => &job.host,
                };
                if is_here(seat) {
                    let is_late = |text: &str| is_late(job, text);
                    questions.about_step(job, &draft);
                    needed.add(&draft, &is_late);
                    let is_known = !draft.writes_into("").iter().any(|dir| is_late(dir));
                    if depth == QueryScope::Show && is_known {
                        needed.add_directories(&draft, root);
                    }
                    if let Some(script) = rollback_checks::undo_check(&draft, &is_late) {
                        questions.ask(QueryItem::UndoCheck(draft.id.clone()), &script);
                    }
                    if depth == QueryScope::Show {
                        questions.about_file(job, &draft);
                    }
                    if depth == QueryScope::Deep {
                        questions.about_edits(&draft);
                    }
                }
            }
            if is_here(&job.host) {
                blobs.extend(job.artifacts().map(|a| a.sha256.clone()));
            }
        }
        if let Some(script) = needed.question() {
            questions.look(QueryItem::Needed(needed), &script);
        }
        questions.about_blobs(blobs);
        Ok(questions)
    }

    /// Asks for the journal, read once: it may grow meanwhile.
    fn about_journal(&mut self, depth: QueryScope) {
        match depth {
            QueryScope::Past => self.look(QueryItem::Journals, &format!("{FORMER}\n{JOURNAL}")),
            QueryScope::Decide | QueryScope::Show | QueryScope::Deep | QueryScope::Back => {
                self.look(QueryItem::Journal, JOURNAL)
            }
        }
    }

    fn about_blobs(&mut self, blobs: BTreeSet<String>) {
        for blob in blobs {
            let path = format!("\"$rel_state\"/blobs/{}", quote(&blob));
            // A link says where it was moved, and that is not reliable.
            let script = format!("if [ -d {path} ] && [ ! -L {path} ]; then printf yes; fi");
            self.look(QueryItem::Blob(blob), &script);
        }
    }

    fn about_edits(&mut self, draft: &ResolvedStep) {
        if let ResolvedAction::Symlink { path, .. } = &draft.act {
            let script = format!("{}rel_edits {}/", strip_comments(MANIFEST), quote(path));
            self.look(QueryItem::Edits(draft.id.clone()), &script);
        }
    }

    fn about_guards(
        &mut self,
        job: &UseOnHost,
        is_here: bool,
        guards: impl IntoIterator<Item = (String, String)>,
    ) {
        for (name, command) in guards.into_iter().filter(|_| is_here) {
            self.ask(QueryItem::Guard(job.label.clone(), name), &command);
        }
    }

    fn about_step(&mut self, job: &UseOnHost, draft: &ResolvedStep) {
        if let Some(check) = draft.check.as_ref().filter(|c| !job.is_unmade(c)) {
            let script = match &draft.dir {
                Some(dir) => format!("cd -- {}\n{check}", quote(dir)),
                None => check.clone(),
            };
            let script = as_user(draft, &script);
            self.ask(QueryItem::Check(draft.id.clone()), &script);
        }
        let found = match &draft.act {
            ResolvedAction::Symlink { path, .. } => {
                (path, format!("readlink -- {} || :", quote(path)))
            }
            ResolvedAction::Write { path, .. } => {
                let path_word = quote(path);
                let script = format!("{}\nrel_access {path_word}", digest(&path_word));
                (path, script)
            }
            // One file under a name of its own must stay as it is; a directory is worked in.
            ResolvedAction::Put { sha256, to, .. }
                if draft.writes().is_some() && job.is_one_file(sha256) =>
            {
                (to, digest(&quote(to)))
            }
            ResolvedAction::Put { to, .. } | ResolvedAction::Fetch { to, .. } => {
                (to, format!("if [ -e {} ]; then printf yes; fi", quote(to)))
            }
            ResolvedAction::Service(service) => {
                let script = format!(
                    "if rel_service_alive {}; then printf yes; fi",
                    quote(&service.name)
                );
                (&service.name, script)
            }
            ResolvedAction::Run(_)
            | ResolvedAction::Scope { .. }
            | ResolvedAction::Port(_)
            | ResolvedAction::Managed { .. }
            | ResolvedAction::Await { .. }
            | ResolvedAction::Ask(_) => return,
        };
        if !is_late(job, found.0) {
            let about = match &draft.sealed {
                Some(sealed) => QueryItem::Sealed(draft.id.clone(), sealed.key().clone()),
                None => QueryItem::Found(draft.id.clone()),
            };
            self.look(about, &found.1);
        }
    }

    /// Asks for what stands where a file would be written, unless it is that very file.
    fn about_file(&mut self, job: &UseOnHost, draft: &ResolvedStep) {
        let Some(path) = draft.writes().filter(|p| !is_late(job, p)) else {
            return;
        };
        let wanted = match &draft.act {
            _ if draft.sealed.is_some() => return,
            ResolvedAction::Put { sha256, .. } if job.is_one_file(sha256) => sha256.clone(),
            ResolvedAction::Write { content, .. } if !is_late(job, content) => {
                hex(content.as_bytes())
            }
            ResolvedAction::Write { .. } => String::from("-"),
            _ => return,
        };
        let path = quote(path);
        let script = format!(
            "if [ -f {path} ] && [ ! -L {path} ]; then\n\
             s=$(sha256sum <{path})\n\
             if [ \"${{s%% *}}\" = {wanted} ]; then echo same; else\n\
             n=$(wc -c <{path})\necho \"file $((n))\"\nhead -c {SHOWN_MAX} <{path}\nfi\n\
             elif [ -e {path} ] || [ -L {path} ]; then echo other; else echo none; fi"
        );
        self.ask(QueryItem::Standing(draft.id.clone()), &script);
    }

    fn ask(&mut self, about: QueryItem, script: &str) {
        self.push("rel_ask", about, script);
    }

    /// Asks in words of our own.
    fn look(&mut self, about: QueryItem, script: &str) {
        self.push("rel_look", about, script);
    }

    fn push(&mut self, how: &str, about: QueryItem, script: &str) {
        let tag = self.abouts.len();
        let line = format!("{how} {tag} {}\n", quote(script));
        self.body.push_str(&line);
        self.abouts.push(about);
    }

    /// Returns how many bytes the answer to the question with this number may have, if there is
    /// one.
    pub fn limit(&self, number: usize) -> Option<usize> {
        self.abouts.get(number).map(|about| match about {
            QueryItem::Journal | QueryItem::Journals => JOURNAL_MAX,
            _ => ANSWER_MAX,
        })
    }

    /// Returns the text that asks all.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// Returns what the replies say together.
    pub fn read(&self, host: &str, replies: &[Reply]) -> Result<HostState> {
        let mut seen = HostState::default();
        if replies.len() != self.abouts.len() {
            return Err(Error::host(format!(
                "host `{host}` answered {} of {} questions",
                replies.len(),
                self.abouts.len()
            ))
            .help("run the same command again"));
        }
        for reply in replies {
            let Some(about) = self.abouts.get(reply.tag) else {
                continue;
            };
            let mut reply = reply.clone();
            if matches!(
                about,
                QueryItem::Fact(..)
                    | QueryItem::Guard(..)
                    | QueryItem::UndoCheck(_)
                    | QueryItem::Standing(_)
            ) {
                reply.bytes = self.hidden.hide(reply.bytes);
            }
            read_one(host, about, &reply, &mut seen)?;
        }
        Ok(seen)
    }
}

/// Asks for the digest of a file, in shell words.
fn digest(path: &str) -> String {
    format!("if [ -f {path} ] && rel_is_readable {path}; then sha256sum <{path}; fi")
}

fn journal(host: &str, about: &QueryItem, bytes: &[u8]) -> Result<Journal> {
    match about {
        _ if Journal::is_too_long(bytes) => {
            let message = format!("the journal of host `{host}` has too many lines");
            Err(Error::host(message).note("most", JOURNAL_LINES_MAX.to_string()))
        }
        QueryItem::Journals => Ok(Journal::parse_all(bytes)),
        _ => Ok(Journal::parse(bytes)),
    }
}

fn read_one(host: &str, about: &QueryItem, reply: &Reply, seen: &mut HostState) -> Result<()> {
    let text = || {
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
    };
    let is_ok = reply.status == 0;
    match about {
        QueryItem::Now => seen.now = text().trim().parse().unwrap_or(0),
        QueryItem::Journal | QueryItem::Journals if is_ok => {
            seen.journal = journal(host, about, &reply.bytes)?;
        }
        QueryItem::Held => {
            seen.held = text().lines().filter_map(LeaseHolder::parse).collect();
            seen.detached = text().lines().filter_map(Detached::parse).collect();
        }
        QueryItem::Journal | QueryItem::Journals => {
            return Err(
                Error::host(format!("cannot read the journal of host `{host}`"))
                    .note("says", text())
                    .help("check who owns the state directory there"),
            );
        }
        QueryItem::Fact(label, name, command) => {
            if !is_ok {
                return Err(Error::host(format!(
                    "host `{host}` could not answer `{name}` of `{label}`"
                ))
                .note("command", command.trim())
                .note("status", reply.status.to_string())
                .note("says", text()));
            }
            seen.facts.insert((label.clone(), name.clone()), text());
        }
        QueryItem::Guard(..) | QueryItem::UndoCheck(_) | QueryItem::Needed(_) => {
            read_against(about, is_ok, &text(), seen);
        }
        QueryItem::Check(id) if reply.was_killed() => {
            return Err(unanswered(host, &format!("the check of `{id}`")));
        }
        QueryItem::Check(id) => {
            seen.probes.entry(id.clone()).or_default().check = Some(is_ok);
        }
        QueryItem::Sealed(id, seal) if is_ok => read_found(id, &text(), Some(seal), seen),
        QueryItem::Found(id) if is_ok => read_found(id, &text(), None, seen),
        QueryItem::Writable => {
            seen.unwritable = Some(text().trim().to_owned()).filter(|t| !t.is_empty());
        }
        QueryItem::Standing(id) if is_ok => {
            if let Some(standing) = RemoteFile::read(&reply.bytes) {
                seen.standing.insert(id.clone(), standing);
            }
        }
        // What could not be looked at is not known; a record stands as it is.
        QueryItem::Sealed(..) | QueryItem::Found(_) | QueryItem::Standing(_) => {}
        QueryItem::Edits(id) if is_ok => {
            let edits = text().lines().map(str::to_owned).collect();
            seen.edits.insert(id.clone(), edits);
        }
        // It has no manifest, or cannot be looked at.
        QueryItem::Edits(_) => {}
        QueryItem::Modes => modes(&text(), seen),
        QueryItem::Blob(sha256) => {
            if text() == "yes" {
                seen.blobs.insert(sha256.clone());
            }
        }
    }
    Ok(())
}

/// Reads the scopes that are owed and the services that run.
fn modes(text: &str, seen: &mut HostState) {
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("scope", name)) => seen.scopes.push(name.to_owned()),
            Some(("service", words)) => seen.services.extend(OrphanService::parse(words)),
            _ => {}
        }
    }
}

/// Reads what was found where a step would leave something; of a secret only a keyed hash is kept.
fn read_found(id: &str, text: &str, seal: Option<&SecretHasher>, seen: &mut HostState) {
    let (found, access) = Access::take(text);
    let found = found.split("  -").next().unwrap_or("");
    let found = seal.map_or_else(|| found.to_owned(), |seal| seal.file(found));
    let probe = seen.probes.entry(id.to_owned()).or_default();
    (probe.found, probe.access) = (Some(found), access);
}

/// Reads what speaks against a run before its first change.
fn read_against(about: &QueryItem, is_ok: bool, text: &str, seen: &mut HostState) {
    match about {
        QueryItem::Guard(..) if is_ok => {}
        QueryItem::Guard(label, name) => {
            let evidence = text.trim_end().to_owned();
            seen.blocked.insert((label.clone(), name.clone()), evidence);
        }
        QueryItem::UndoCheck(_) if is_ok => {}
        QueryItem::UndoCheck(id) => seen.speaks_against(id, CheckKind::WayBack, text.trim_end()),
        QueryItem::Needed(needed) => {
            seen.foreign.extend(needed.named(text));
            for ((id, stopping), evidence) in needed.read(text) {
                seen.speaks_against(&id, stopping, &evidence);
            }
        }
        _ => {}
    }
}

/// Returns whether a symbolic text waits for an answer, or for a target.
fn is_late(job: &UseOnHost, text: &str) -> bool {
    job.is_unmade(text)
        || text.contains("{run-id}")
        || text.contains("{notes.")
        || job
            .recipe
            .facts
            .iter()
            .any(|f| text.contains(&format!("{{{}}}", f.name)))
}
