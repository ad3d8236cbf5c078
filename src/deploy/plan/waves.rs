//! Waves: which hosts of a rollout move together. Pure.
//!
//! `serial` is that of Ansible: a size for each wave, a number or a part of all, the last
//! one again and again until no host is left.

use serde::{Deserialize, Serialize};

use crate::build::model::{Rollout, Share};
use crate::deploy::plan::job_place::WaveName;

/// Where a job stands in a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Index of the rollout in its environment.
    pub rollout: usize,
    /// Which wave, from 1 on; 0 for hosts that are held back.
    pub number: usize,
    /// How many waves there are.
    pub of: usize,
    /// It only asks whether the wave may be left behind.
    pub is_gate: bool,
}

impl Wave {
    /// Returns whether its hosts stay as they are.
    pub fn is_held(&self) -> bool {
        self.number == 0
    }

    /// Returns it as people know it.
    pub fn named(&self, rollout: &Rollout) -> WaveName {
        WaveName {
            number: self.number,
            of: self.of,
            rollout: rollout.name.clone(),
        }
    }

    /// Returns whether two jobs move together.
    pub fn is_with(&self, other: &Self) -> bool {
        self.rollout == other.rollout && self.number == other.number
    }
}

/// Returns how many hosts a share is, of so many; a part is rounded down.
pub fn count(share: Share, of: usize) -> usize {
    match share {
        Share::Count(count) => count as usize,
        Share::Percent(percent) => of * percent as usize / 100,
    }
}

/// Cuts hosts into waves of these sizes.
pub fn waves<T>(hosts: Vec<T>, serial: &[Share]) -> Vec<Vec<T>> {
    let of = hosts.len();
    let mut sizes = serial.iter().map(|share| count(*share, of).max(1));
    let mut size = of;
    let mut rest = hosts.into_iter().peekable();
    let mut waves = Vec::new();
    while rest.peek().is_some() {
        size = sizes.next().unwrap_or(size);
        waves.push(rest.by_ref().take(size).collect());
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hosts: u32, serial: &[Share], expected: &[usize]) {
        let sizes: Vec<usize> = waves((0..hosts).collect(), serial)
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(sizes, expected, "{hosts} hosts, {serial:?}");
    }

    #[test]
    fn hosts_are_cut_into_waves() {
        use Share::{Count, Percent};
        check(0, &[], &[]);
        check(5, &[], &[5]);
        check(5, &[Count(1)], &[1, 1, 1, 1, 1]);
        check(5, &[Count(2)], &[2, 2, 1]);
        check(8, &[Count(1), Percent(25), Percent(100)], &[1, 2, 5]);
        check(3, &[Percent(10)], &[1, 1, 1]);
        check(4, &[Count(9)], &[4]);
        check(7, &[Count(1), Count(3)], &[1, 3, 3]);
    }

    #[test]
    fn a_wave_has_each_host_once_and_in_order() {
        let cut = waves(vec!["a", "b", "c"], &[Share::Count(2)]);
        assert_eq!(cut, [vec!["a", "b"], vec!["c"]]);
    }
}
