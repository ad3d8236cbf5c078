//! Settling one target: fresh after all, restored from the cache, or run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Builder, first_reason, log_path};
use crate::cache::{self, ActionResult};
use crate::digest::{Content, Digest, shown_size};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::fs::{self, RepoPath};
use crate::graph::{Target, TargetId};
use crate::key::{ActionKey, Made};
use crate::outputs;
use crate::progress::{Event, Settled};
use crate::records::Record;
use crate::runner::{Exit, Spec, command_env};
use crate::stale::{Gathered, StaleReason, interrupted};

/// How a target was settled.
pub struct Outcome {
    /// In which way.
    pub how: Settled,
    /// What it made.
    pub made: Arc<Made>,
    /// What its commands printed.
    pub log: Vec<u8>,
    /// Why it was not fresh.
    pub reason: Option<String>,
}

/// How many last lines of a log an error shows.
const TAIL_LINES: usize = 20;

impl Builder<'_> {
    /// Settles one target, all of whose needs are settled.
    pub(super) fn settle(&self, id: TargetId) -> Result<Outcome> {
        let target = self.graph().target(id);
        let gathered = self
            .inspector
            .gather(id, &|need| self.made[need.index()].get().cloned())?;
        let known = self.records().known(&target.name).cloned();
        let mut reasons = self.inspector.judge(target, &gathered, known.as_ref())?;
        if self.is_forced(id) {
            reasons.insert(0, StaleReason::Forced);
        }
        let former = known.as_ref().and_then(|k| k.record.as_ref());
        if reasons.is_empty() {
            let made = former.map(|r| r.made.clone()).unwrap_or_default();
            return Ok(Outcome {
                how: Settled::Fresh,
                made: made.into(),
                log: vec![],
                reason: None,
            });
        }
        let reason = first_reason(&reasons);
        let key = gathered.key(self.graph(), target);
        let former_made = former.map(|r| r.made.clone());
        let mut is_own_mess = known.as_ref().is_some_and(|k| k.is_unfinished);
        // A target that is too old or forced is meant to run, whatever a cache has.
        let is_run_meant = reasons
            .iter()
            .any(|r| matches!(r, StaleReason::Forced | StaleReason::TooOld { .. }));
        if target.is_cached && !is_run_meant {
            let restored = self.restore(
                target,
                &gathered,
                key,
                former_made.as_ref(),
                &mut is_own_mess,
            )?;
            if let Some((made, log)) = restored {
                let reason = Some(reason);
                return Ok(Outcome {
                    how: Settled::Restored,
                    made: made.into(),
                    log,
                    reason,
                });
            }
        }
        self.make(id, &gathered, key, former_made, is_own_mess, reason)
    }

    /// Restores a target from the action cache, if that has its key with all blobs.
    fn restore(
        &self,
        target: &Target,
        gathered: &Gathered,
        key: ActionKey,
        former: Option<&Made>,
        is_own_mess: &mut bool,
    ) -> Result<Option<(Made, Vec<u8>)>> {
        let Some(Some(result)) = self.with_store(|s| s.action(&key)) else {
            return Ok(None);
        };
        let Some(Some(log)) = self.with_store(|s| cache::fetch_bytes(s, &result.log)) else {
            return Ok(None);
        };
        self.make_room(target, former, *is_own_mess)?;
        self.records().start(&target.name)?;
        *is_own_mess = true;
        let digests = self.inspector.digests;
        let put_back =
            self.with_store(|s| outputs::restore(target, &result.made.outputs, digests, s));
        if put_back != Some(true) {
            return Ok(None);
        }
        // A product is no file: the cache only knows which one it was.
        if result.made.product.is_some()
            && self.inspector.product(target, gathered)? != result.made.product
        {
            return Ok(None);
        }
        if outputs::states(target, digests)? != result.made.outputs {
            return Ok(None);
        }
        let path = log_path(self.state_dir, &target.name);
        std::fs::write(&path, &log).context("write", &path)?;
        let took = Duration::from_millis(result.took_ms);
        self.record(target, gathered, key, &result.made, took)?;
        Ok(Some((result.made, log)))
    }

    fn make_room(&self, target: &Target, former: Option<&Made>, is_own_mess: bool) -> Result<()> {
        let digests = self.inspector.digests;
        let moved = outputs::make_room(target, former, is_own_mess, digests, self.state_dir)?;
        if let Some(dir) = moved {
            let text = format!(
                "files stood where `{}` writes its outputs; they were moved to `{}`",
                target.name,
                fs::shown(dir.strip_prefix(digests.root()).unwrap_or(&dir).as_os_str())
            );
            self.progress.event(&Event::Warning { text: &text });
        }
        Ok(())
    }

    /// Runs the commands, and records and stores what they made.
    fn make(
        &self,
        id: TargetId,
        gathered: &Gathered,
        key: ActionKey,
        former: Option<Made>,
        is_own_mess: bool,
        reason: String,
    ) -> Result<Outcome> {
        let target = self.graph().target(id);
        self.progress.event(&Event::Started {
            target: &target.name,
            reason: &reason,
            desc: target.desc.as_deref(),
        });
        self.records().start(&target.name)?;
        self.make_room(target, former.as_ref(), is_own_mess)?;
        let started = Instant::now();
        let watch = self.watch(target, gathered);
        let run = self.attempts(target, gathered, key);
        self.tell_strays(target, &watch);
        let (log, made) = match run {
            Ok(done) => done,
            Err(error) => {
                if error.kind != ErrorKind::Interrupted {
                    self.records().fail(&target.name)?;
                }
                return Err(error);
            }
        };
        let took = started.elapsed();
        match self.changed_input(target, gathered) {
            Some(text) => self.progress.event(&Event::Warning { text: &text }),
            None => {
                self.store(target, key, &made, &log, took);
                self.record(target, gathered, key, &made, took)?;
            }
        }
        let is_same = former.as_ref() == Some(&made) && !made.outputs.is_empty();
        let how = if is_same {
            Settled::RanSame
        } else {
            Settled::Ran
        };
        Ok(Outcome {
            how,
            made: made.into(),
            log,
            reason: Some(reason),
        })
    }

    /// Tries until an attempt succeeds or none is left.
    fn attempts(
        &self,
        target: &Target,
        gathered: &Gathered,
        key: ActionKey,
    ) -> Result<(Vec<u8>, Made)> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(target, gathered) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_last = attempt > target.retries || error.kind == ErrorKind::Interrupted;
            if is_last {
                return Err(match error.kind {
                    ErrorKind::Interrupted => error,
                    _ => error.fact("key", &key.hex()[..16]),
                });
            }
            self.progress.event(&Event::Retrying {
                target: &target.name,
                attempt,
                of: target.retries + 1,
                why: &error.message,
            });
            attempt += 1;
            self.make_room(target, None, true)?;
        }
    }

    fn attempt(&self, target: &Target, gathered: &Gathered) -> Result<(Vec<u8>, Made)> {
        let path = log_path(self.state_dir, &target.name);
        let log = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .append(false)
            .write(true)
            .open(&path)
            .context("create", &path)?;
        let mut failed = None;
        for (i, argv) in gathered.commands.iter().enumerate() {
            let spec = Spec {
                argv: argv.clone(),
                dir: target.dir.to_absolute(self.inspector.digests.root()),
                env: command_env(&self.inspector.env, &gathered.env),
                timeout: target.timeout,
            };
            let exit = self.inspector.runner.run(&spec, &log);
            if !exit.is_ok() {
                failed = Some((i, exit, spec.dir));
                break;
            }
        }
        let text = read_all(&log).context("read", &path)?;
        if let Some((i, exit, dir)) = failed {
            return Err(command_error(target, gathered, (i, &dir), &exit, &text));
        }
        check_expectations(target, &text)?;
        let outputs =
            outputs::collect(target, self.inspector.digests).map_err(|e| with_tail(e, &text))?;
        let product = self.inspector.product(target, gathered)?;
        if target.product.is_some() && product.is_none() {
            return Err(with_tail(
                Error::failed(format!(
                    "`{}` ran, but its `product` command fails",
                    target.name
                ))
                .hinted("run that command by hand to see why"),
                &text,
            ));
        }
        Ok((text, Made { outputs, product }))
    }

    /// Returns what to tell when an input is not what it was before the run.
    fn changed_input(&self, target: &Target, before: &Gathered) -> Option<String> {
        let (path, old, new) = match self.inspector.inputs(target) {
            Ok(after) if after == before.inputs => return None,
            Ok(after) => first_change(&before.inputs, &after)?,
            Err(error) => {
                return Some(format!(
                    "`{0}` ran, but now {1}\n  help: outputs are kept but not cached; run `rel build {0}` again",
                    target.name, error.message
                ));
            }
        };
        let shown = |content: Option<Content>| match content {
            Some(c) => format!("{}  {}", c.digest, shown_size(c.digest.size)),
            None => String::from("(absent)"),
        };
        Some(format!(
            "`{0}` ran, but its input `{path}` changed meanwhile\n  before  {1}\n  after   {2}\n  help: outputs are kept but not cached; run `rel build {0}` again",
            target.name,
            shown(old),
            shown(new),
        ))
    }

    fn store(&self, target: &Target, key: ActionKey, made: &Made, log: &[u8], took: Duration) {
        if !target.is_cached {
            return;
        }
        let digest = Digest::of(log);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let result = ActionResult {
            made: made.clone(),
            log: digest,
            took_ms,
        };
        self.with_store(|store| {
            outputs::put(&made.outputs, self.inspector.digests, store)?;
            if !store.missing(&[digest])?.is_empty() {
                store.put(&digest, &mut &log[..])?;
            }
            store.put_action(&key, &result)
        });
    }

    fn record(
        &self,
        target: &Target,
        gathered: &Gathered,
        key: ActionKey,
        made: &Made,
        took: Duration,
    ) -> Result<()> {
        let record = Record {
            key,
            fields: gathered.fields(self.graph(), target),
            made: made.clone(),
            took,
            finished_s: self.inspector.now_s,
        };
        self.records().finish(&target.name, record)
    }
}

/// Returns the first path whose content differs, with both contents.
fn first_change(
    before: &[(RepoPath, Content)],
    after: &[(RepoPath, Content)],
) -> Option<(String, Option<Content>, Option<Content>)> {
    let find = |list: &[(RepoPath, Content)], path: &RepoPath| {
        let at = list.binary_search_by(|(p, _)| p.cmp(path)).ok()?;
        Some(list[at].1)
    };
    let paths = before.iter().chain(after).map(|(path, _)| path);
    paths
        .map(|path| (path.to_string(), find(before, path), find(after, path)))
        .find(|(_, old, new)| old != new)
}

fn read_all(file: &File) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn command_error(
    target: &Target,
    gathered: &Gathered,
    (index, dir): (usize, &Path),
    exit: &Exit,
    log: &[u8],
) -> Box<Error> {
    if matches!(exit, Exit::Interrupted) {
        return interrupted();
    }
    let words = &gathered.commands[index];
    let command = match target.run.get(index) {
        // The script, without the interpreter in front of it.
        Some(crate::graph::Command::Shell { .. }) => words.last().cloned().unwrap_or_default(),
        _ => words.join(std::ffi::OsStr::new(" ")),
    };
    let error = Error::failed(format!("`{}` failed: {}", target.name, exit.shown()))
        .fact("command", fs::shown(&command));
    match exit {
        Exit::NotStarted(_) if !dir.is_dir() => error
            .fact("directory", target.dir.to_string())
            .hinted("that directory is not there: correct `dir`, or make it first"),
        Exit::NotStarted(_) => error.hinted("is the program installed and in `PATH`?"),
        Exit::TimedOut(_) => {
            with_tail(error, log).hinted("raise its `timeout`, or find out what it waits for")
        }
        _ => with_tail(error, log),
    }
}

fn check_expectations(target: &Target, log: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(log);
    let broken = |what: &str, wanted: &str| {
        let error = Error::failed(format!("`{}` ran, but {what} `{wanted}`", target.name));
        Err(with_tail(error, log))
    };
    if let Some(wanted) = target.expect.iter().find(|w| !text.contains(w.as_str())) {
        return broken("did not print", wanted);
    }
    match target.reject.iter().find(|w| text.contains(w.as_str())) {
        Some(wanted) => broken("printed", wanted),
        None => Ok(()),
    }
}

/// Adds the last lines of a log to an error.
fn with_tail(error: Box<Error>, log: &[u8]) -> Box<Error> {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return error;
    }
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    error.fact("printed", tail.join("\n"))
}
