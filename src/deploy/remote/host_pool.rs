//! All hosts of an environment: opened together, asked together, locked together.
//!
//! Owns the sessions. A host may be the target of one job and the source of another
//! at the same time, so each session stands behind a lock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::build::model::{Host, Reach};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, IoContext, Result};
use crate::core::progress::{Event, Progress};
use crate::core::sync::lock;
use crate::deploy::DeployRequest;
use crate::deploy::plan::HostState;
use crate::deploy::plan::guards::foreign_help;
use crate::deploy::plan::host_query::{ANSWER_MAX, HostQuery, HostReports, QueryScope};
use crate::deploy::plan::port::Port;
use crate::deploy::plan::roles::{Probe, ProbeReply};
use crate::deploy::plan::secret::Redactor;
use crate::deploy::plan::use_on_host::UseOnHost;
use crate::deploy::protocol::frames::unanswered;
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::lease_status::lease_refused_error;
use crate::deploy::protocol::program::{self, Header, quote};
use crate::deploy::remote::gates::{self, Gates};
use crate::deploy::remote::known_machines::KnownMachines;
use crate::deploy::remote::lease_acquire::{LeaseMode, LeaseRequest, LeaseResult, owed};
use crate::deploy::remote::port_forward::{self, Forward, ForwarderProcesses};
use crate::deploy::remote::session::Session;
use crate::deploy::remote::session_header;
use crate::deploy::remote::transport::{System, Transport, Transports};

/// One host with its connection.
pub struct HostConnection {
    host: Host,
    session: Mutex<Session>,
    /// What its programs begin with.
    pub header: Header,
}

/// All hosts of an environment.
pub struct HostPool {
    members: BTreeMap<String, HostConnection>,
    porters: ForwarderProcesses,
    machines: Arc<KnownMachines>,
    // Behind the sessions: ports close after the guards have left what led there.
    forwards: Mutex<Vec<Forward>>,
}

impl HostPool {
    /// Prepares all connections and returns when each root is known.
    ///
    /// Absolute roots are known beforehand: then nothing is waited for here.
    pub fn open(
        request: &DeployRequest<'_>,
        hosts: &BTreeMap<String, Host>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
        Self::open_through(request, hosts, &Self::gates(request), progress, cancel)
    }

    /// Returns the gates that connections of an environment go through.
    pub fn gates(request: &DeployRequest<'_>) -> Arc<Gates> {
        Gates::new(request.environment.connections.unwrap_or(gates::EACH))
    }

    /// Does as [`HostPool::open`], through gates that other pools go through as well.
    pub fn open_through(
        request: &DeployRequest<'_>,
        hosts: &BTreeMap<String, Host>,
        gates: &Arc<Gates>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<Self> {
        let connection = &request.operator.connection;
        if hosts.values().any(|h| h.reach != Reach::Local) {
            make_private(&connection.control_dir)?;
        }
        let system = System::new(connection);
        let start = || system.start();
        let system =
            Transports::new(system.clone(), &start, connection.variable).to(hosts.values(), cancel);
        let transport: Arc<dyn Transport + Send> = Arc::new(system.clone());
        let mut members = BTreeMap::new();
        for host in hosts.values() {
            progress.event(&Event::Host {
                host: &host.name,
                text: "asks",
            });
            let header = session_header::of(request, host)?;
            let mut session = Session::new(transport.clone(), gates.clone(), host, &header);
            session.known = connection.machines.known(&host.name).cloned();
            let planned = request
                .policy
                .saved
                .and_then(|s| s.body.plan.hosts.get(&host.name));
            session.planned = planned.and_then(|basis| basis.machine.clone());
            let member = HostConnection {
                host: host.clone(),
                session: Mutex::new(session),
                header,
            };
            members.insert(host.name.clone(), member);
        }
        let program = request.operator.program.clone();
        let mut pool = Self {
            members,
            porters: ForwarderProcesses { program, system },
            machines: connection.machines.clone(),
            forwards: Mutex::default(),
        };
        pool.find_roots(request, cancel)?;
        Ok(pool)
    }

    /// Asks hosts for their roots, where these are not absolute.
    fn find_roots(&mut self, request: &DeployRequest<'_>, cancel: &Cancel) -> Result<()> {
        let mut all = self.members.values();
        if all.all(|member| member.header.root.starts_with('/')) {
            return Ok(());
        }
        let asked = self.for_each_host(&|_, member| match member.header.root.starts_with('/') {
            true => Ok(None),
            false => member.session().hello(cancel).map(Some),
        });
        for (name, root) in asked {
            let root = match root {
                Ok(root) => root,
                // It will not answer the question either.
                Err(error) if error.kind == ErrorKind::Host && request.policy.is_question => None,
                Err(error) => return Err(error),
            };
            if let (Some(root), Some(member)) = (root, self.members.get_mut(&name)) {
                member.header.state = session_header::state_in(request, &root);
                member.header.root = root;
            }
        }
        Ok(())
    }

    /// Opens a port of a host until the run ends. Returns what the host must know about it.
    pub fn open_port(&self, name: &str, port: &Port, cancel: &Cancel) -> Result<Option<String>> {
        let member = self.member(name)?;
        let state = member.state();
        let forward = self.porters.open(&member.host, port, &state, cancel)?;
        let is_local = member.host.reach == Reach::Local;
        let note = is_local.then(|| port.note(&state, forward.pid()));
        lock(&self.forwards).push(forward);
        Ok(note)
    }

    /// Closes the ports of some hosts.
    pub fn close_ports(&self, is_wanted: &dyn Fn(&str) -> bool) {
        lock(&self.forwards).retain(|forward| !is_wanted(&forward.host));
    }

    /// Returns the error for a port that did not stay open.
    pub fn lost_port(&self) -> Option<Box<Error>> {
        let mut forwards = lock(&self.forwards);
        let closed = forwards.iter_mut().position(|forward| !forward.is_open())?;
        forwards.get(closed).map(port_forward::lost)
    }

    /// Returns the absolute roots, by host.
    pub fn roots(&self) -> BTreeMap<String, String> {
        self.members
            .iter()
            .map(|(name, m)| (name.clone(), m.header.root.clone()))
            .collect()
    }

    /// Returns the names of all hosts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Returns a host; its absence is our bug.
    pub fn member(&self, name: &str) -> Result<&HostConnection> {
        self.members
            .get(name)
            .ok_or_else(|| Error::internal(format!("host `{name}` was never opened")))
    }

    /// Returns how often hosts were asked, over all of them.
    pub fn round_trips(&self) -> usize {
        self.members.values().map(|m| m.session().round_trips).sum()
    }

    /// Keeps secrets out of everything that hosts print from now on.
    pub fn hide(&self, hidden: &Redactor) {
        for member in self.members.values() {
            member.session().hidden = hidden.clone();
        }
    }

    /// Does something with every host at once; the first error in order of names wins.
    pub fn try_each<T: Send>(
        &self,
        act: &(dyn Fn(&str, &HostConnection) -> Result<T> + Sync),
    ) -> Result<BTreeMap<String, T>> {
        self.for_each_host(act)
            .into_iter()
            .map(|(name, result)| Ok((name, result?)))
            .collect()
    }

    /// Does something with every host at once, and returns what became of each.
    fn for_each_host<T: Send>(
        &self,
        act: &(dyn Fn(&str, &HostConnection) -> Result<T> + Sync),
    ) -> Vec<(String, Result<T>)> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .members
                .iter()
                .map(|(name, member)| (name, scope.spawn(move || act(name, member))))
                .collect();
            threads
                .into_iter()
                .map(|(name, thread)| {
                    let result = thread
                        .join()
                        .unwrap_or_else(|_| Err(Error::internal("a host's thread panicked")));
                    (name.clone(), result)
                })
                .collect()
        })
    }

    /// Asks all hosts everything that `jobs` depend on: one round trip each.
    pub fn query(
        &self,
        jobs: &[UseOnHost],
        depth: QueryScope,
        cancel: &Cancel,
    ) -> Result<BTreeMap<String, HostState>> {
        let seen = self.try_each(&|name, member| member.ask(name, jobs, depth, cancel))?;
        self.keep_machines();
        Ok(seen)
    }

    /// Notes which machines have answered, for the next run.
    fn keep_machines(&self) {
        for (name, member) in &self.members {
            if member.host.reach != Reach::Local {
                self.machines.learn(name, &member.session().told.machine);
            }
        }
        // What cannot be noted is asked for once more.
        if let Err(error) = self.machines.keep() {
            tracing::debug!(%error, "known machines are not recorded");
        }
    }

    /// Returns what is unusual on the hosts: the usual place for temporary files, which is in memory,
    /// is full; another project has the usual place for the state.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, member) in &self.members {
            let told = member.session().told.clone();
            notes.extend(told.other.map(|other| member.another_project(name, &other)));
            notes.extend(told.full.map(|(full, used)| {
                format!(
                    "{full} of host `{name}` is full: temporary files lie in {used}, secrets for a \
                     moment as well"
                )
            }));
        }
        notes
    }

    /// Asks all hosts, and goes without those that do not answer: for questions only.
    pub fn query_reachable(
        &self,
        jobs: &[UseOnHost],
        depth: QueryScope,
        cancel: &Cancel,
    ) -> Result<HostReports> {
        let mut answers = HostReports::default();
        for (name, result) in
            self.for_each_host(&|name, member| member.ask(name, jobs, depth, cancel))
        {
            match result {
                Ok(seen) => drop(answers.seen.insert(name, seen)),
                Err(error) if error.kind == ErrorKind::Host => {
                    answers.down.insert(name, why_not(&error));
                }
                Err(error) => return Err(error),
            }
        }
        self.keep_machines();
        Ok(answers)
    }

    /// Asks the probes of roles, all hosts at once; where `is_question`, hosts that do not answer
    /// are gone without.
    pub fn probe(
        &self,
        probes: &[Probe],
        is_question: bool,
        cancel: &Cancel,
    ) -> Result<BTreeMap<(String, String), ProbeReply>> {
        let mut all = BTreeMap::new();
        let asked = self.for_each_host(&|name, member| {
            let own: Vec<&Probe> = probes.iter().filter(|p| p.host == name).collect();
            member.probe(&own, cancel)
        });
        for (name, said) in asked {
            match said {
                Ok(said) => {
                    all.extend(
                        said.into_iter()
                            .map(|(role, said)| ((role, name.clone()), said)),
                    );
                }
                Err(error) if error.kind == ErrorKind::Host && is_question => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Adds lines to the journals of `hosts`, which must be locked.
    pub fn append_journal(&self, hosts: &[&str], body: &str, cancel: &Cancel) -> Result<()> {
        self.try_each(&|name, member| match hosts.contains(&name) {
            true => member.call_locked(body, cancel),
            false => Ok(()),
        })
        .map(drop)
    }

    /// Takes the leases of hosts, or says who has them. Returns whether the journals are still
    /// those that were read.
    ///
    /// The first by name, then all others at once: of two that want the same hosts, who has
    /// the first gets all. What was taken is released when the pool is dropped.
    pub fn lock(
        &self,
        wanted: &LeaseRequest<'_>,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<bool> {
        let (hosts, mode) = (wanted.hosts, wanted.mode);
        let lock = |name: &str, member: &HostConnection| {
            of_one_name(self, name, member.lock(name, wanted, cancel)?)
        };
        let is_wanted = |name: &&String| hosts.contains(&name.as_str());
        let Some(first) = self.members.keys().find(is_wanted) else {
            return Ok(true);
        };
        let mut locked = vec![lock(first, self.member(first)?)?];
        let others = self.try_each(&|name, member| {
            let is_other = hosts.contains(&name) && name != first;
            is_other.then(|| lock(name, member)).transpose()
        })?;
        locked.extend(others.into_values().flatten());
        let is_same = locked.iter().all(|l| *l != LeaseResult::Moved);
        let mut own: Vec<String> = locked.into_iter().filter_map(LeaseResult::reason).collect();
        own.dedup();
        for reason in own.iter().filter(|_| mode == LeaseMode::Run && is_same) {
            let text = format!("you have locked this environment yourself: {reason}");
            progress.event(&Event::Note { text: &text });
        }
        Ok(is_same)
    }
}

impl Drop for HostPool {
    /// Says goodbye to all before waiting for any.
    fn drop(&mut self) {
        for member in self.members.values() {
            member.session().close();
        }
    }
}

impl HostConnection {
    fn probe(&self, probes: &[&Probe], cancel: &Cancel) -> Result<Vec<(String, ProbeReply)>> {
        if probes.is_empty() {
            return Ok(Vec::new());
        }
        let limit = |number| (number < probes.len()).then_some(ANSWER_MAX);
        let asked = probes.iter().enumerate();
        let body: String = asked
            .map(|(tag, p)| format!("rel_ask {tag} {}\n", quote(&p.command)))
            .collect();
        let replies = self.session().ask(&body, &limit, cancel)?;
        let said = |(tag, probe): (usize, &&Probe)| {
            let reply = replies.iter().find(|r| r.tag == tag && !r.was_killed());
            let what = || format!("the probe of the role `{}`", probe.role);
            let reply = reply.ok_or_else(|| unanswered(&probe.host, &what()))?;
            let text = String::from_utf8_lossy(&reply.bytes).into_owned();
            Ok((probe.role.clone(), (reply.status, text)))
        };
        probes.iter().enumerate().map(said).collect()
    }

    fn ask(
        &self,
        name: &str,
        jobs: &[UseOnHost],
        depth: QueryScope,
        cancel: &Cancel,
    ) -> Result<HostState> {
        let questions = HostQuery::new(name, &self.header, jobs, depth)?;
        let limit = |number| questions.limit(number);
        let mut session = self.session();
        let replies = session.ask(questions.text(), &limit, cancel)?;
        let mut seen = questions.read(name, &replies)?;
        let is_named = self.host.reach != Reach::Local && !session.told.machine.is_unknown();
        seen.machine = is_named.then(|| session.told.machine.clone());
        Ok(seen)
    }

    /// Takes the lease.
    fn lock(&self, name: &str, wanted: &LeaseRequest<'_>, cancel: &Cancel) -> Result<LeaseResult> {
        let size = wanted.seen.get(name).map_or(0, |s| s.journal.size);
        let mut call = format!("rel_lock {size} {}\n", wanted.mode.word());
        if let Some(abandoned) = &wanted.abandoned {
            call = program::call(&format!(
                "rel_abandons={} rel_reason={}\n{call}",
                quote(abandoned.scope),
                quote(&column(abandoned.reason))
            ));
        }
        if let Some(directories) = wanted.directories.get(name) {
            let words = |dirs: &BTreeSet<String>| -> String {
                dirs.iter().map(|d| format!(" {}", quote(d))).collect()
            };
            for (who, dirs) in [
                ("actions", &directories.of_actions),
                ("commands", &directories.of_commands),
            ] {
                if !dirs.is_empty() {
                    call = format!("rel_may_write {who}{} && {call}", words(dirs));
                }
            }
        }
        let answer = self.session().call(&call, cancel)?;
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ready", rest) => {
                let reason = rest.split_once(' ').map(|(_, reason)| reason.to_owned());
                Ok(LeaseResult::Ready(reason))
            }
            ("moved", _) => Ok(LeaseResult::Moved),
            ("foreign", why) => Err(foreign(&self.header.purpose, name, why)),
            ("owed", words) => Err(owed(&self.header.purpose, &self.state(), name, words)),
            ("locked", held) => Err(lease_refused_error(name, &self.header.purpose, held)),
            ("twin", rest) => {
                let (session_id, held) = rest.split_once('\t').unwrap_or_default();
                let (session_id, held) = (session_id.to_owned(), held.to_owned());
                Ok(LeaseResult::Twin { session_id, held })
            }
            (_, why) => Err(keeps_no_journal(name)
                .note("directory", self.state())
                .note("says", why)),
        }
    }

    /// Returns the words for a host whose usual place for the state is that of another project.
    fn another_project(&self, name: &str, other: &str) -> String {
        let (usual, own) = (&self.header.state, self.state());
        match self.header.project.as_str() {
            "" => format!(
                "host `{name}` has the state of project `{other}` in {usual}, and this project has no name: its state is kept in {own}"
            ),
            project => format!(
                "host `{name}` has the state of another project, `{other}`, in {usual}: the state of `{project}` is kept in {own}; if `{project}` is the new name of `{other}`, write it \
                 into {usual}/project first"
            ),
        }
    }

    /// Returns the directory in which the host keeps the state.
    pub fn state(&self) -> String {
        self.session().state.clone()
    }

    /// Leaves scopes that were entered, given in the order in which that was. Returns the error
    /// that names one which cannot be left.
    ///
    /// # Errors
    /// The host is lost.
    pub fn leave(
        &self,
        host: &str,
        scopes: &[&str],
        cancel: &Cancel,
    ) -> Result<Option<Box<Error>>> {
        let names: String = scopes
            .iter()
            .map(|name| format!(" {}", quote(name)))
            .collect();
        let told = self
            .session()
            .call(&program::call(&format!("rel_leave_scopes{names}")), cancel)?;
        match told.split_once(' ') {
            Some(("owed", words)) => {
                Ok(Some(owed(&self.header.purpose, &self.state(), host, words)))
            }
            _ => self.expect_reply(&told, "left").map(|_| None),
        }
    }

    /// Lets the guard, which holds the lease, run a few lines itself: a program would be a
    /// shell more.
    pub fn call_locked(&self, body: &str, cancel: &Cancel) -> Result<()> {
        let call = format!("rel_acts() {{\n{body}:\n}}\nrel_call_locked rel_acts\n");
        let told = self.session().call(&call, cancel)?;
        self.expect_reply(&told, "acted").map(drop)
    }

    /// Returns what a guard tells behind `word`, which says that it did what it was called for.
    pub fn expect_reply<'a>(&self, told: &'a str, word: &str) -> Result<&'a str> {
        match told.split_once(' ').unwrap_or((told, "")) {
            (first, rest) if first == word => Ok(rest),
            ("refused", why) => Err(keeps_no_journal(self.session().name())
                .note("directory", self.state())
                .note("says", why)
                .help("check that it can be written, and run the same command again")),
            _ => Err(Error::internal(format!("unexpected guard answer `{told}`"))),
        }
    }

    /// Returns the connection, for one user at a time.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }
}

/// Returns one line that says why a host did not answer.
pub fn why_not(error: &Error) -> String {
    let said = error
        .facts
        .iter()
        .find(|(n, _)| n == "says" || n == "missing");
    let last = said.and_then(|(_, text)| text.lines().last());
    last.unwrap_or(&error.message).to_owned()
}

/// Returns the error for a host whose state directory cannot be written.
pub fn keeps_no_journal(host: &str) -> Box<Error> {
    Error::host(format!("the journal of host `{host}` cannot be written"))
}

/// Returns the error for a directory of a host that root must not write into; `words` are those
/// of the command, and `why` is `actions` or `commands` and what the host says of the directory.
fn foreign(words: &str, host: &str, why: &str) -> Box<Error> {
    let (who, why) = why.split_once(' ').unwrap_or_default();
    Error::host(format!(
        "`{words}` is refused: root would write where another user of host `{host}` can \
         change files"
    ))
    .note("directory", why)
    .help(foreign_help(who == "commands"))
}

pub(in crate::deploy) fn make_private(dir: &PathBuf) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context("create directory", dir)
}

/// Returns how the lease of the host `name` was had.
///
/// # Errors
/// Another host of the pool has it: both are one. Or it is held by the same run of another `rel`.
fn of_one_name(pool: &HostPool, name: &str, taken: LeaseResult) -> Result<LeaseResult> {
    let LeaseResult::Twin { session_id, held } = taken else {
        return Ok(taken);
    };
    let is_holder = |other: &&str| {
        let other = pool.member(other);
        other.is_ok_and(|other| other.header.session_id() == session_id)
    };
    let member = pool.member(name)?;
    let mut holders = pool.names().filter(|other| *other != name);
    let Some(other) = holders.find(is_holder) else {
        return Err(lease_refused_error(name, &member.header.purpose, &held));
    };
    let (one, other) = (name.min(other), name.max(other));
    Err(Error::host(format!(
        "hosts `{one}` and `{other}` have the same state directory on the same machine"
    ))
    .note("directory", member.state())
    .help("give one of them another `root`, or remove one"))
}
