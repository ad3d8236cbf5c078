//! Scopes that are entered again while what was done in them is rolled back.

use std::time::Instant;

use crate::core::error::Result;
use crate::core::progress::{Event, StepStatus};
use crate::deploy::plan::port::Port;
use crate::deploy::protocol::frames::Frame;
use crate::deploy::protocol::program;
use crate::deploy::remote::executor::Executor;
use crate::deploy::remote::host_pool::HostConnection;
use crate::deploy::remote::roll_back::{ExecutedStep, RollbackRun, at_once};
use crate::deploy::remote::step_batch::first_bytes;

impl RollbackRun<'_> {
    /// Enters scopes again, releasedwards; on all hosts of a use at once. One that cannot be
    /// entered is reported: a rollback without it is better than none.
    pub(super) fn enter_again(&self, scopes: &[&ExecutedStep]) -> Result<()> {
        let scopes: Vec<&ExecutedStep> = scopes.iter().rev().copied().collect();
        for part in at_once(&scopes) {
            self.executor.pool.try_each(&|host, member| {
                let mut own = part.iter().filter(|step| step.host == host);
                own.try_for_each(|step| enter(self.executor, member, step, self.left.port(step)))
            })?;
        }
        Ok(())
    }
}

/// How it ended.
enum Entered {
    /// It was owed already.
    Before,
    Now,
    /// With its last line.
    Not(String),
}

fn enter(
    executor: &Executor<'_>,
    member: &HostConnection,
    step: &ExecutedStep,
    port: Option<&Port>,
) -> Result<()> {
    let start = Instant::now();
    let entered = match (run(executor, member, step)?, port) {
        (Entered::Now, Some(port)) => open(executor, member, step, port)?,
        (entered, _) => entered,
    };
    let (how, why) = match entered {
        Entered::Before => return Ok(()),
        Entered::Now => (StepStatus::Done, None),
        Entered::Not(why) => (StepStatus::Failed(1), Some(why)),
    };
    executor.progress.event(&Event::StepFinished {
        host: &step.host,
        step: &step.id,
        how,
        took: start.elapsed(),
    });
    if let Some(why) = why {
        let text = format!(
            "{} could not be entered again on host `{}`, which is rolled back without it: {why}",
            step.id, step.host
        );
        executor.progress.event(&Event::Warning { text: &text });
    }
    Ok(())
}

fn run(executor: &Executor<'_>, member: &HostConnection, step: &ExecutedStep) -> Result<Entered> {
    let body = program::enter_again(&step.run, step.seq, &step.id);
    let (mut entered, mut last) = (Entered::Before, String::new());
    let text = member.header.program(&body);
    let mut session = member.session();
    let status = session.run(&text, executor.cancel, &mut |frame| {
        match frame {
            Frame::Output(line) => last = first_bytes(line),
            Frame::Event(text) => match text.split(' ').collect::<Vec<_>>().as_slice() {
                ["start", ..] => executor.progress.event(&Event::StepStarted {
                    host: &step.host,
                    step: &step.id,
                    reason: "entered again for the rollback",
                }),
                ["done", ..] => entered = Entered::Now,
                ["failed", _, status] if last.is_empty() => {
                    entered = Entered::Not(format!("exit status {status}"));
                }
                ["failed", ..] => entered = Entered::Not(std::mem::take(&mut last)),
                _ => {}
            },
            _ => {}
        }
        None
    })?;
    Ok(match status {
        0 => entered,
        _ => Entered::Not(last),
    })
}

/// Opens the port of a scope that is owed from now on.
fn open(
    executor: &Executor<'_>,
    member: &HostConnection,
    step: &ExecutedStep,
    port: &Port,
) -> Result<Entered> {
    match executor.pool.open_port(&step.host, port, executor.cancel) {
        Ok(None) => Ok(Entered::Now),
        Ok(Some(note)) => {
            let text = member.header.program(&note);
            let mut session = member.session();
            let status = session.run(&text, executor.cancel, &mut |_| None)?;
            Ok(match status {
                0 => Entered::Now,
                _ => Entered::Not("its process could not be recorded".into()),
            })
        }
        Err(error) => Ok(Entered::Not(error.message)),
    }
}
