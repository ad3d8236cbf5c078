//! Where a step stands in its run, as the journal keeps it for the rollback. Pure.
//!
//! A text with one or two parts: `host` or `source`, and for a step in a rollout `wave 2/3 NAME`.
//! Older runs wrote `-`.

use std::fmt;

/// Who carries out a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunsOn {
    /// The host.
    #[default]
    Host,
    /// The host that something is taken from.
    From,
    /// This machine, between the hosts' programs.
    Operator,
}

/// Where a step stands in its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPlace {
    /// The steps of its use on the other hosts do not depend on it, nor it on them.
    pub is_beside: bool,
    /// The wave of a rollout.
    pub wave: Option<WaveName>,
}

/// A wave as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaveName {
    /// Its number, from 1 on.
    pub number: usize,
    /// How many waves there were.
    pub of: usize,
    /// The name of the rollout.
    pub rollout: String,
}

impl JobPlace {
    /// Returns the place of a step that is carried out by `seat`.
    pub fn of(seat: RunsOn, wave: Option<WaveName>) -> Self {
        Self {
            is_beside: seat != RunsOn::From,
            wave,
        }
    }

    /// Reads what a journal has; of what makes no sense nothing is known.
    pub fn read(text: &str) -> Self {
        let (seat, wave) = text.split_once(' ').unwrap_or((text, ""));
        Self {
            is_beside: seat == "host",
            wave: WaveName::read(wave),
        }
    }
}

impl fmt::Display for JobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_beside { "host" } else { "source" })?;
        match &self.wave {
            Some(wave) => write!(f, " wave {}/{} {}", wave.number, wave.of, wave.rollout),
            None => Ok(()),
        }
    }
}

impl WaveName {
    fn read(text: &str) -> Option<Self> {
        let (counts, rollout) = text.strip_prefix("wave ")?.split_once(' ')?;
        let (number, of) = counts.split_once('/')?;
        Some(Self {
            number: number.parse().ok()?,
            of: of.parse().ok()?,
            rollout: rollout.to_owned(),
        })
    }
}

impl fmt::Display for WaveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            of,
            rollout,
        } = self;
        write!(f, "wave {number} of {of} of `{rollout}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let wave = |number| WaveName {
            number,
            of: 3,
            rollout: "the upgrade".into(),
        };
        for (seat, wave, text) in [
            (RunsOn::Host, None, "host"),
            (RunsOn::Operator, Some(wave(2)), "host wave 2/3 the upgrade"),
            (RunsOn::From, Some(wave(1)), "source wave 1/3 the upgrade"),
        ] {
            let place = JobPlace::of(seat, wave);
            assert_eq!(place.to_string(), text);
            assert_eq!(JobPlace::read(text), place);
        }
        for unknown in ["-", "", "wave 1/2 x", "host wave x/2 y", "host wave 1/2"] {
            assert_eq!(JobPlace::read(unknown).wave, None, "{unknown}");
        }
        assert_eq!(JobPlace::read("-"), JobPlace::default());
    }
}
