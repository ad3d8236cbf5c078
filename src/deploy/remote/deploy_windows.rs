//! The hours of an environment and its rollouts: whether something may begin now.
//!
//! The tables of time zones are the system's, read when an environment has windows and not
//! before. A person may go over a window as over a guard, with a reason.

use std::collections::BTreeMap;
use std::path::Path;

use crate::build::model::Environment;
use crate::core::deploy_window::zone::Zone;
use crate::core::deploy_window::{Window, ZonedWindow, is_open, next_opening};
use crate::core::error::{Error, IoContext, Result};
use crate::deploy::plan::Plan;

/// Where systems keep the tables of time zones.
const TABLES: [&str; 2] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo"];
/// The table of this machine's own zone.
const LOCAL: &str = "/etc/localtime";

/// The clock of this machine.
#[derive(Clone, Copy)]
pub struct ZoneClock<'a> {
    /// The moment, in seconds since 1970.
    pub now: &'a (dyn Fn() -> u64 + Sync),
    /// What `TZ` says, if anything.
    pub tz: Option<&'a str>,
}

/// All windows that an environment has, with their clocks.
pub struct DeployWindows<'a> {
    environment: &'a Environment,
    clock: ZoneClock<'a>,
    zones: BTreeMap<String, Zone>,
}

impl<'a> DeployWindows<'a> {
    /// Reads the tables of the zones that windows name.
    pub fn new(environment: &'a Environment, clock: ZoneClock<'a>) -> Result<Self> {
        let mut zones = BTreeMap::new();
        for window in environment.all_windows() {
            if !zones.contains_key(&window.zone) {
                zones.insert(window.zone.clone(), zone(&window.zone, clock.tz)?);
            }
        }
        Ok(Self {
            environment,
            clock,
            zones,
        })
    }

    /// Returns why nothing may begin now: when the hours open in which some rollouts, by index,
    /// and everything else may.
    pub fn why_closed(&self, is_rollout: &dyn Fn(usize) -> bool) -> Option<String> {
        let rollouts = self.environment.rollouts.iter().enumerate();
        let rollouts = rollouts.filter(|(index, _)| is_rollout(*index));
        let windows = std::iter::once(&self.environment.windows);
        let windows = windows.chain(rollouts.map(|(_, rollout)| &rollout.windows));
        let sets: Vec<Vec<ZonedWindow<'_>>> = windows.map(|set| self.timed(set)).collect();
        let now = i64::try_from((self.clock.now)()).unwrap_or(i64::MAX);
        if is_open(&sets, now) {
            return None;
        }
        let by = sets.iter().flatten().next()?;
        Some(match next_opening(&sets, now) {
            Some(next) => format!("it opens {}", by.shown(next)),
            None => String::from("its windows never overlap"),
        })
    }

    /// Returns why a plan may not begin now. A rollout that is not the first to change anything
    /// stops the run only when it comes to that.
    pub fn closed_for(&self, plan: &Plan) -> Option<String> {
        if plan.to_run == 0 {
            return None;
        }
        let first = plan.jobs.iter().find(|job| job.is_changing());
        let first = first
            .and_then(|job| job.wave.as_ref())
            .map(|wave| wave.rollout);
        self.why_closed(&|index| Some(index) == first)
    }

    /// Returns the rollouts that a run which may begin now would stop before, each with when its
    /// hours open.
    pub fn closed_later(&self, plan: &Plan) -> BTreeMap<String, String> {
        let changing = plan.jobs.iter().filter(|job| job.is_changing());
        let rollouts = changing.filter_map(|job| job.wave.as_ref().map(|wave| wave.rollout));
        let closed = rollouts.filter_map(|rollout| {
            let name = self.environment.rollouts.get(rollout)?.name.clone();
            Some((name, self.why_closed(&|index| index == rollout)?))
        });
        closed.collect()
    }

    fn timed<'s>(&'s self, windows: &'s [Window]) -> Vec<ZonedWindow<'s>> {
        let timed = |window: &'s Window| {
            let zone = self.zones.get(&window.zone)?;
            Some(ZonedWindow { window, zone })
        };
        windows.iter().filter_map(timed).collect()
    }
}

/// Returns the clock of a zone: `UTC`, `local`, or one that the system has a table of.
fn zone(name: &str, tz: Option<&str>) -> Result<Zone> {
    if name == "UTC" {
        return Ok(Zone::default());
    }
    if name != "local" {
        return table(name)?.ok_or_else(|| {
            Error::usage(format!("this machine has no time zone `{name}`"))
                .help("its tables come with the system, as the package `tzdata`")
        });
    }
    match tz.map(|tz| tz.trim_start_matches(':')) {
        Some("") => Ok(Zone::default()),
        Some(tz) => {
            let found = match tz.starts_with('/') {
                true => read(Path::new(tz))?,
                false => table(tz)?,
            };
            let found = found.or_else(|| Zone::of_rule(tz));
            found.ok_or_else(|| Error::usage(format!("`TZ` names no time zone: `{tz}`")))
        }
        // A machine that has none runs by UTC.
        None => Ok(read(Path::new(LOCAL))?.unwrap_or_default()),
    }
}

fn table(name: &str) -> Result<Option<Zone>> {
    if name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'))
    {
        return Ok(None);
    }
    for dir in TABLES {
        if let Some(zone) = read(&Path::new(dir).join(name))? {
            return Ok(Some(zone));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<Zone>> {
    match crate::core::fs::read_regular(path) {
        Ok(bytes) => Ok(Zone::read(&bytes)),
        Err(e) if crate::core::fs::is_absent(&e) => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::IsADirectory => Ok(None),
        Err(e) => Err(e).context("read", path),
    }
}
