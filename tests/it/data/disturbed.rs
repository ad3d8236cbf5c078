//! The host of a live database is disturbed while the database evolves, over a line that goes down.

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::zodb::Zodb;
use super::{Database, Ground, STEPS, begin};
use crate::disturb::{Disturbance, MILD, Tally, chance, count, part_of};
use crate::space::{Output, wait_until};

/// Disturbances of each driver where the environment does not say.
const KILLS: usize = 3;

impl<D: Database> Ground<D> {
    /// Disturbs a run some time after a step has begun.
    fn disturb(
        &mut self,
        disturbance: Disturbance,
        step: &str,
        after: std::time::Duration,
    ) -> Output {
        let hosts = self.hosts.as_mut().expect("a host with a line");
        let job = begin(&self.space, step);
        std::thread::sleep(after);
        disturbance.strike(&self.space, &job, hosts, 0);
        let output = job.finish();
        disturbance.fix(hosts, 0);
        output
    }

    /// Runs until a run comes to its end: a guard whose line was cut may still be at it.
    fn comes_to_its_end(&self) -> usize {
        let mut runs = 0;
        wait_until("a run that comes to its end", || {
            runs += 1;
            (self.evolve().code == 0).then_some(())
        });
        runs
    }

    fn walk_disturbed(mut self) {
        self.start_writing();
        self.done.push(self.add_script(1, false));
        let start = std::time::Instant::now();
        let _ = self.evolve().ok();
        let took = start.elapsed();
        let (mut tally, mut again, mut ended_new) = (Tally::default(), 0, 0);
        for number in 2..2 + count(KILLS) {
            let name = self.add_script(number, false);
            let disturbance = MILD[chance() as usize % MILD.len()];
            let step = STEPS[chance() as usize % STEPS.len()];
            let after = part_of(took / 6);
            let before = self.done.len();
            self.done.push(name);
            let first = self.disturb(disturbance, step, after);
            tally.add(disturbance, first.code != 0);
            if disturbance == Disturbance::Process {
                // It may have been the guard, or the way out of a mode: the next run fixes that.
                again += self.comes_to_its_end();
            }
            self.guard_is_gone();
            self.is_writable();
            let done = self.is_complete();
            let is_whole = done.len() <= before || done == self.done;
            assert!(
                is_whole,
                "{disturbance:?} {after:?} after `{step}`: {done:?}\n{first}"
            );
            ended_new += usize::from(done == self.done);
        }
        again += self.comes_to_its_end();
        self.is_writable();
        self.stop_writing();
        self.has_lost_nothing();
        assert_eq!(self.told()["ran"], 0);
        println!(
            "{tally}; {ended_new} on the new database before another run; {again} runs after them; \
             {} writes acknowledged, none lost",
            self.acknowledged().len()
        );
    }
}

#[test]
fn sqlite_evolves_though_its_host_is_disturbed() {
    Ground::wired(Sqlite::new).walk_disturbed();
}

#[test]
fn postgres_evolves_though_its_host_is_disturbed() {
    Ground::wired(Postgres::new).walk_disturbed();
}

#[test]
fn zodb_evolves_though_its_host_is_disturbed() {
    Ground::wired(Zodb::new).walk_disturbed();
}
