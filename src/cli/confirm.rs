//! What a person lets through: guards that say no, steps that destroy.
//!
//! Whether it must be asked is decided in `deploy`; here is whom to ask: the command
//! line, the plan that was read, or the person at the terminal.

use crate::build::model::Environment;
use crate::cli::ui;
use crate::cli::ui::OutputOptions;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, Result};
use crate::core::progress::Progress;
use crate::deploy::plan::destroy::{Destruction, unconfirmed};
use crate::deploy::plan::guards::Overrides;

/// Guards that are overridden, and what may be lost.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConsentArgs {
    /// Go on although this guard says no, or this step's rollback would not work; with `--reason`
    #[arg(
        long = "override",
        value_name = "GUARD",
        requires = "reason",
        group = "reasoned"
    )]
    guards: Vec<String>,
    /// Why; kept in the journals of the hosts that are changed
    #[arg(long, value_name = "TEXT", requires = "reasoned")]
    pub(super) reason: Option<String>,
    /// Do the steps that destroy something without asking; the environment's name again
    #[arg(long, value_name = "ENVIRONMENT")]
    confirm: Option<String>,
}

/// What was let through.
#[derive(Clone, Debug, Default)]
pub(super) struct Confirmations {
    /// Guards that are overridden.
    pub(super) overrides: Overrides,
    /// What steps destroy may be lost.
    pub(super) is_confirmed: bool,
}

impl ConsentArgs {
    /// Returns what it lets through in that environment.
    pub(super) fn of(&self, environment: &Environment) -> Result<Confirmations> {
        if let Some(other) = self.confirm.as_ref().filter(|n| **n != environment.name) {
            let name = &environment.name;
            return Err(
                Error::usage(format!("`--confirm {other}` does not confirm `{name}`"))
                    .help(format!("`--confirm {name}`, if that is meant")),
            );
        }
        Ok(Confirmations {
            overrides: Overrides {
                guards: self.guards.clone(),
                reason: self.reason.clone().unwrap_or_default(),
            },
            is_confirmed: self.confirm.is_some(),
        })
    }
}

/// Asks the person at the terminal whether all of this may be lost; an error is a no.
pub(super) fn ask(
    output: &OutputOptions,
    environment: &str,
    all: &[Destruction],
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    if !ui::is_person() || output.json {
        return Err(unconfirmed(environment, all));
    }
    let text = ui::plan_view::question(output.screen, all);
    let mut answer = None;
    progress.suspend(&mut || answer = ui::ask(&text, cancel));
    match answer {
        Some(true) => Ok(()),
        Some(false) => {
            Err(Error::usage(format!("`{environment}` was not confirmed"))
                .help("nothing was changed"))
        }
        None => Err(Error::interrupted()),
    }
}
