//! Settling one target: fresh after all, restored from the cache, or run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::discovered_inputs::result_key;
use super::exec_root::ExecRoot;
use super::failed::{check_expectations, command_error, command_text, with_tail};
use super::long_script::LongScript;
use super::modified_inputs::InputStamps;
use super::{Builder, first_reason, log_path};
use crate::build::build_log::{TargetRecord, TargetState};
use crate::build::cache::inline_blobs::{InlinedReader, InliningStore};
use crate::build::cache::{self, ActionResult, Store};
use crate::build::digest::{RunStart, hash_reader, shown_size};
use crate::build::graph::{CacheScope, Pattern, Target, TargetId};
use crate::build::key::{ActionKey, DiscoveredInput, OutputState, TargetOutputs};
use crate::build::outputs;
use crate::build::runner::command_log::CommandLog;
use crate::build::runner::{self, CommandExit, CommandSpec, command_env};
use crate::build::stale::{self, GatheredInputs, StaleReason};
use crate::core::error::{Error, ErrorKind, IoContext, Result, plural};
use crate::core::fs::{self, RepoPath};
use crate::core::printed::Printed;
use crate::core::progress::{Event, Settled};

/// How a target was settled.
pub struct TargetOutcome {
    /// In which way.
    pub how: Settled,
    /// What it made.
    pub made: Arc<TargetOutputs>,
    /// What its commands printed.
    pub log: Printed,
    /// Why it was not fresh.
    pub reason: Option<String>,
    /// How many attempts its commands took; 0 if none ran.
    pub attempts: u32,
}

/// What is to be made, and why.
struct StaleTarget {
    gathered: GatheredInputs,
    key: ActionKey,
    former: Option<Arc<TargetOutputs>>,
    reason: String,
    known: Option<TargetState>,
}

/// What commands that succeeded left behind.
struct ActionOutcome {
    log: Printed,
    made: TargetOutputs,
    /// What their depfile names.
    found: Vec<DiscoveredInput>,
    /// When the last attempt began, where there is a depfile.
    start: Option<RunStart>,
    /// How many attempts it took.
    attempts: u32,
}

/// What was printed, attempt by attempt.
struct Tries {
    /// The number of the attempt at work, from 1 on.
    /// What one of them printed stands in the log that is kept.
    is_log_kept: bool,
    number: u32,
    /// What the last one printed.
    printed: Printed,
}

/// How a recorded result came about.
struct Run {
    took: Duration,
    finished_s: u64,
    attempts: u32,
}

impl Builder<'_> {
    /// Settles one target, all of whose needs are settled.
    pub(super) fn build_target(&self, id: TargetId) -> Result<TargetOutcome> {
        if let Some(outcome) = self.restore_lost(id)? {
            return Ok(outcome);
        }
        let target = self.graph().target(id);
        let gathered = self.inspector.gather(id, &|need| Some(self.made(need)))?;
        let known = stale::known(self.graph(), id, &self.records());
        let mut reasons = self
            .inspector
            .stale_reasons(target, &gathered, known.as_ref())?;
        if self.is_forced(id) {
            reasons.insert(0, StaleReason::Forced);
        }
        let former = known.as_ref().and_then(|k| k.record.as_ref());
        if reasons.is_empty() {
            let made = former.map(|r| r.made.clone()).unwrap_or_default();
            return Ok(TargetOutcome {
                how: Settled::Fresh,
                made,
                log: Printed::default(),
                reason: None,
                attempts: 0,
            });
        }
        let reason = first_reason(&reasons);
        let key = gathered.key(self.graph(), target);
        tracing::debug!(target = %target.name, key = %key.hex(), %reason, "stale");
        let former_made = former.map(|r| r.made.clone());
        let mut ours = known
            .as_ref()
            .map(TargetState::owned_outputs)
            .unwrap_or_default();
        ours.extend(known.iter().flat_map(|known| self.kept_by_tools(known)));
        // A target that is too old or forced is meant to run, whatever a cache has.
        let is_run_meant = reasons
            .iter()
            .any(|r| matches!(r, StaleReason::Forced | StaleReason::TooOld { .. }));
        if target.cache != CacheScope::Off && !is_run_meant {
            let restored = self.restore(target, &gathered, key, &mut ours)?;
            if let Some((made, log)) = restored {
                let reason = Some(reason);
                return Ok(TargetOutcome {
                    how: Settled::Restored,
                    made: made.into(),
                    log,
                    reason,
                    attempts: 0,
                });
            }
        }
        let job = StaleTarget {
            gathered,
            key,
            former: former_made,
            reason,
            known,
        };
        self.run_and_record(id, job, &ours)
    }

    /// Restores a target from the action cache, if that has its key with all blobs. What
    /// an attempt in vain leaves becomes ours.
    fn restore(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        key: ActionKey,
        ours: &mut Vec<OutputState>,
    ) -> Result<Option<(TargetOutputs, Printed)>> {
        let cached = self.cached_result(target, key);
        let is_there = cached.is_some();
        tracing::debug!(target = %target.name, is_there, "looked into the cache");
        let is_young = |r: &ActionResult| self.inspector.too_old(target, r.finished_s).is_none();
        let Some((result, log, found)) = cached.filter(|(result, ..)| is_young(result)) else {
            return Ok(None);
        };
        let digests = self.inspector.digests;
        let is_there = outputs::digest_all(target, digests)? == result.made.outputs;
        self.mark_running(target)?;
        // A product is no file: the cache only knows which one it was.
        let is_whole = (is_there || self.restore_outputs(target, &result, ours)?)
            && (result.made.product.is_none()
                || self.inspector.product(target, gathered)? == result.made.product);
        if !is_whole {
            *ours = outputs::digest_all(target, digests)?;
            return Ok(None);
        }
        let log = self.keep_log(target, log)?;
        // What is restored is as old as it was.
        let run = Run {
            took: Duration::from_millis(result.took_ms),
            finished_s: result.finished_s,
            attempts: 1,
        };
        let found = (found, Vec::new());
        self.record(target, gathered, key, (&result.made, found), run)?;
        Ok(Some((result.made, log)))
    }

    /// Returns the result that the action cache has under a key, with its log.
    pub(super) fn cached(&self, key: &ActionKey) -> Option<(ActionResult, Printed)> {
        let result = self.ask_store(|s| s.action(key))??;
        let log = self.cached_log(&result)?;
        Some((result, log))
    }

    /// Returns the log of a cached result.
    pub(super) fn cached_log(&self, result: &ActionResult) -> Option<Printed> {
        let dir = self.state_dir.join("logs");
        let log =
            |s: &dyn Store| cache::fetch_printed(&InlinedReader::new(s, result), &result.log, &dir);
        self.ask_store(log)?
    }

    /// Writes the outputs of a cached result, each verified on the way.
    pub(super) fn restore_outputs(
        &self,
        target: &Target,
        result: &ActionResult,
        ours: &[OutputState],
    ) -> Result<bool> {
        let checked = self.ask_store(|_| outputs::check_declared(target, &result.made.outputs));
        if checked.is_none() {
            return Ok(false);
        }
        // What already is as it will be restored is not the user's work to be backed up.
        let ours: Vec<OutputState> = ours.iter().chain(&result.made.outputs).cloned().collect();
        self.clear_outputs(target, &ours)?;
        let done = self.ask_store(|store| {
            let store = InlinedReader::new(store, result);
            let (outputs, modes) = (&result.made.outputs, &result.modes);
            outputs::restore(target, outputs, modes, self.inspector.digests, &store)
        });
        Ok(done == Some(true))
    }

    /// Keeps what a target's commands printed, and returns it as it is kept; most print nothing.
    pub(super) fn keep_log(&self, target: &Target, log: Printed) -> Result<Printed> {
        let path = log_path(self.state_dir, &target.name);
        if !log.is_empty() {
            return log.keep_at(&path).context("write", &path);
        }
        match std::fs::remove_file(&path) {
            Err(e) if !fs::is_absent(&e) => Err(e).context("write", &path),
            _ => Ok(log),
        }
    }

    fn clear_outputs(&self, target: &Target, ours: &[OutputState]) -> Result<()> {
        let digests = self.inspector.digests;
        let moved = outputs::make_room(target, ours, digests, self.state_dir)?;
        self.report_backup(target, moved);
        for output in &target.outputs {
            if let Pattern::Dir(dir) = &output.pattern
                && fs::is_mount(&dir.to_absolute(digests.root()))
            {
                let text = format!(
                    "`{dir}/` of `{}` is a mount point: it stays there, and only its content is replaced",
                    target.name
                );
                self.progress.event(&Event::Warning { text: &text });
            }
        }
        Ok(())
    }

    /// Tells where files were moved that stood in the way.
    pub(super) fn report_backup(&self, target: &Target, moved: Option<PathBuf>) {
        let digests = self.inspector.digests;
        if let Some(dir) = moved {
            self.has_backups.store(true, Ordering::Relaxed);
            let text = format!(
                "files stood where `{}` writes its outputs; they were moved to `{}`",
                target.name,
                fs::shown(dir.strip_prefix(digests.root()).unwrap_or(&dir).as_os_str())
            );
            self.progress.event(&Event::Warning { text: &text });
        }
    }

    /// Removes old backups, and reports that.
    pub(super) fn tidy_backups(&self) {
        let has_moved = self.has_backups.load(Ordering::Relaxed);
        let text = match outputs::tidy(self.state_dir, self.inspector.now_s, has_moved) {
            Ok((0, _)) => return,
            Ok((count, bytes)) => format!(
                "{count} {} of files that had been moved to `.rel/backup` were removed, {}: what is \
                 older than 30 days, or than a day where there is more than 1 GiB",
                plural(count, "heap"),
                shown_size(bytes)
            ),
            Err(error) => error.to_string(),
        };
        self.progress.event(&Event::Warning { text: &text });
    }

    /// Runs the commands, and records and stores what they made.
    fn run_and_record(
        &self,
        id: TargetId,
        job: StaleTarget,
        ours: &[OutputState],
    ) -> Result<TargetOutcome> {
        let target = self.graph().target(id);
        self.progress.event(&Event::Started {
            target: &target.name,
            reason: &job.reason,
            desc: target.desc.as_deref(),
        });
        self.mark_running(target)?;
        self.clear_outputs(target, ours)?;
        self.make_room_for_depfile(target)?;
        let started = Instant::now();
        let stamps = InputStamps::take(&job.gathered, self.inspector.digests);
        let watch = self.watch(id, &job.gathered);
        let before = self.state_before(target, job.known.as_ref());
        let run = self.attempts(target, &job.gathered, job.key);
        let alone = self.report_undeclared_outputs(id, watch);
        let beside = before.map(|before| self.state_after(target, &before, &alone));
        let beside = beside.unwrap_or_default();
        let ActionOutcome {
            log,
            made,
            found,
            start,
            attempts,
        } = run.map_err(|error| self.leave_failed(target, error))?;
        let took = started.elapsed();
        let moved_found = || self.moved_found(target, &found, &stamps, start.as_ref()?);
        let changed = self.changed_input(target, &job.gathered, &stamps);
        let lock_lost = || self.lost_workspace_lock(target);
        match changed.or_else(moved_found).or_else(lock_lost) {
            Some(text) => {
                self.progress.event(&Event::Warning { text: &text });
                let mess = made.outputs.clone();
                self.records().record_failure(&target.name, false, mess)?;
            }
            None if !self.is_proven(target) => {
                let mess = made.outputs.clone();
                self.records().record_failure(&target.name, false, mess)?;
            }
            None => {
                let found = self.with_checkout(target, &made, found);
                if beside.is_empty() {
                    self.store(target, job.key, &made, &found, &log, took);
                }
                let run = Run {
                    took,
                    finished_s: self.inspector.now_s,
                    attempts,
                };
                let found = (found, beside);
                self.record(target, &job.gathered, job.key, (&made, found), run)?;
            }
        }
        let is_same = job.former.as_deref() == Some(&made) && !made.outputs.is_empty();
        let how = if is_same {
            Settled::RanSame
        } else {
            Settled::Ran
        };
        Ok(TargetOutcome {
            how,
            made: made.into(),
            log,
            reason: Some(job.reason),
            attempts,
        })
    }

    /// Notes what a run in vain left, and returns its error.
    fn leave_failed(&self, target: &Target, error: Box<Error>) -> Box<Error> {
        let mess = self.leftover_outputs(target);
        let is_failure = error.kind != ErrorKind::Interrupted;
        // That it began is in the records, which is enough; its own error is what counts.
        let _ = self
            .records()
            .record_failure(&target.name, is_failure, mess);
        error
    }

    /// Notes that a target's outputs are about to be written, unless another `rel` may do so.
    fn mark_running(&self, target: &Target) -> Result<()> {
        if !(self.holds_lock)() {
            return Err(Error::failed(format!(
                "`{}` is not made: `.rel` was removed while `rel` was at work, and another `rel` may be running here by now",
                target.name
            ))
            .help("run the same command again"));
        }
        self.records().start(&target.name)
    }

    /// Returns what to say when another `rel` may have worked beside a target's commands.
    fn lost_workspace_lock(&self, target: &Target) -> Option<String> {
        let name = &target.name;
        let text = format!(
            "`{name}` ran, but `.rel` was removed meanwhile, and another `rel` may have worked here\n  help: outputs are kept but neither recorded nor cached; run `rel build {name}` again"
        );
        (!(self.holds_lock)()).then_some(text)
    }

    /// Tries until an attempt succeeds or none is left.
    fn attempts(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        key: ActionKey,
    ) -> Result<ActionOutcome> {
        let mut tries = Tries {
            number: 1,
            is_log_kept: false,
            printed: Printed::default(),
        };
        loop {
            let error = match self.attempt(target, gathered, &mut tries) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_last = tries.number > target.retries || error.kind == ErrorKind::Interrupted;
            if is_last {
                return Err(match error.kind {
                    ErrorKind::Interrupted => error,
                    _ => error.note("key", &key.hex()[..16]),
                });
            }
            if self
                .clear_outputs(target, &self.leftover_outputs(target))
                .is_err()
            {
                return Err(error);
            }
            let of = target.retries.saturating_add(1);
            self.progress.event(&Event::Retrying {
                target: &target.name,
                attempt: tries.number,
                of,
                why: &error.message,
                log: &tries.printed,
            });
            let why = format!("attempt {} of {of} failed: {}", tries.number, error.message);
            if tries.is_log_kept {
                self.add_to_log(target, &why);
            }
            tries.number += 1;
            tries.printed = Printed::default();
        }
    }

    /// Returns what an attempt in vain left at the outputs; what cannot be read is left to the one that
    /// it belongs to.
    fn leftover_outputs(&self, target: &Target) -> Vec<OutputState> {
        outputs::digest_all(target, self.inspector.digests).unwrap_or_default()
    }

    fn attempt(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        tries: &mut Tries,
    ) -> Result<ActionOutcome> {
        let dir = self.state_dir.join("logs");
        // One for each attempt: what an earlier command left behind may still write to its own.
        let log = CommandLog::create(&dir).context("create a file in", &dir)?;
        let mut place = self.workplace(target, gathered)?;
        let start = target
            .depfile
            .is_some()
            .then(|| self.inspector.digests.start());
        let failed = self.run_commands(target, gathered, &mut place, &log)?;
        let depfile = self.take_depfile(target, &place);
        let (text, is_cut) = log.printed().context("keep a log in", &dir)?;
        // What stands there else is of a former build.
        let text = match tries.is_log_kept {
            false => self.keep_log(target, text)?,
            true => self.append_to_log(target, text)?,
        };
        tries.is_log_kept = true;
        tries.printed = text.clone();
        let found = match &failed {
            None => self.found(target, gathered, &place, depfile?.as_deref()),
            Some(_) => Ok(Vec::new()),
        };
        let named = found.as_deref().unwrap_or_default();
        self.find_undeclared(target, gathered, &place, named);
        if let Some((i, exit, dir)) = failed {
            self.keep_long_command(target, gathered, i);
            let error = command_error(target, gathered, i, &dir, &exit, &text);
            let error = self.explain(target, gathered, &place, error);
            let error = self.with_missing_need(target, &place, &text, error);
            let command = command_text(target, gathered, i);
            return Err(self.with_usual_help(&command, &gathered.env, &exit, &text, error));
        }
        check_expectations(target, &text, is_cut)?;
        let found = found.map_err(|e| with_tail(e, &text))?;
        self.collect_outputs(target, gathered, &mut place)
            .map_err(|e| with_tail(e, &text))?;
        let outputs =
            outputs::collect(target, self.inspector.digests).map_err(|e| with_tail(e, &text))?;
        let product = self.inspector.product(target, gathered)?;
        if target.product.is_some() && product.is_none() {
            return Err(with_tail(
                Error::failed(format!(
                    "`{}` ran, but its `product` command fails",
                    target.name
                ))
                .help("run that command by hand to see why"),
                &text,
            ));
        }
        Ok(ActionOutcome {
            log: text,
            made: TargetOutputs { outputs, product },
            found,
            start,
            attempts: tries.number,
        })
    }

    /// Runs the commands until one fails; returns which, how, and in which directory.
    fn run_commands(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        place: &mut ExecRoot,
        log: &CommandLog,
    ) -> Result<Option<(usize, CommandExit, PathBuf)>> {
        let root = self.inspector.digests.root();
        for (i, argv) in gathered.commands.iter().enumerate() {
            let mut env = command_env(&self.inspector.env, &gathered.env);
            place.set_env(&mut env, &gathered.env);
            let dir = place.around_stage().unwrap_or(self.state_dir);
            let long = LongScript::of(target.run.get(i), argv, dir)?;
            let spec = CommandSpec {
                argv: long.as_ref().map_or(&argv[..], LongScript::argv).to_vec(),
                dir: target.dir.to_absolute(place.root(root)),
                env,
                timeout: target.timeout,
                mark: Some(runner::mark(root, &target.name, i)),
            };
            let exit = place.run(target, self.inspector.runner, &spec, log)?;
            if let Some(long) = &long {
                place.forget(long.path());
            }
            if !exit.is_ok() {
                return Ok(Some((i, exit, spec.dir)));
            }
        }
        Ok(None)
    }

    fn store(
        &self,
        target: &Target,
        key: ActionKey,
        made: &TargetOutputs,
        found: &[DiscoveredInput],
        log: &Printed,
        took: Duration,
    ) {
        if target.cache == CacheScope::Off {
            return;
        }
        // It lies where no other process writes; else it is kept here, and that is all.
        let Ok(digest) = hash_reader(log.reader()) else {
            return;
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.fill_store(|store| {
            let packing = InliningStore::new(store);
            outputs::put(&made.outputs, self.inspector.digests, &packing)?;
            if !packing.find_missing(&[digest])?.is_empty() {
                packing.put(&digest, &mut log.reader())?;
            }
            let result = ActionResult {
                made: made.clone(),
                log: digest,
                took_ms,
                small: packing.into_small(),
                found: Vec::new(),
                finished_s: self.inspector.now_s,
                modes: outputs::modes(target, &made.outputs, self.inspector.digests),
            };
            store.put_action(&result_key(target, key, found), &result)?;
            match result_key(target, key, found) == key {
                true => Ok(()),
                false => self.keep_found(store, &key, found),
            }
        });
    }

    fn record(
        &self,
        target: &Target,
        gathered: &GatheredInputs,
        key: ActionKey,
        (made, (found, beside)): (&TargetOutputs, (Vec<DiscoveredInput>, Vec<RepoPath>)),
        run: Run,
    ) -> Result<()> {
        let record = TargetRecord {
            key,
            fields: gathered.fields(self.graph(), target),
            made: made.clone().into(),
            took: run.took,
            finished_s: run.finished_s,
            attempts: run.attempts,
            found,
            beside,
        };
        self.records().finish(&target.name, record)
    }
}
