//! Job slots shared with a surrounding or inner `make` (GNU make's jobserver protocol).
//!
//! The first job needs no token; every further one holds a token while it runs.

use std::io;

use jobserver::{Acquired, Client, HelperThread};

use crate::core::error::{Error, Result};

/// The tokens held, and a helper that waits for more.
pub struct JobSlots {
    helper: Option<HelperThread>,
    held: Vec<Acquired>,
    is_asked: bool,
}

impl JobSlots {
    /// Returns a holder without tokens; `arrived` is called from another thread when one
    /// that was asked for is there. Without a client every job is allowed.
    pub fn new(
        client: Option<Client>,
        arrived: impl FnMut(io::Result<Acquired>) + Send + 'static,
    ) -> Result<Self> {
        let helper = client
            .map(|c| c.into_helper_thread(arrived))
            .transpose()
            .map_err(|e| Error::internal(format!("cannot wait for job slots: {e}")))?;
        Ok(Self {
            helper,
            held: Vec::new(),
            is_asked: false,
        })
    }

    /// Returns whether one more job may start beside `running` ones; asks for a token if not.
    pub fn allow(&mut self, running: usize) -> bool {
        let Some(helper) = &self.helper else {
            return true;
        };
        if running <= self.held.len() {
            return true;
        }
        if !self.is_asked {
            self.is_asked = true;
            helper.request_token();
        }
        false
    }

    /// Takes a token that arrived.
    pub fn take(&mut self, token: io::Result<Acquired>) {
        self.is_asked = false;
        match token {
            Ok(token) => self.held.push(token),
            // A jobserver that went away must not stop the build.
            Err(_) => self.helper = None,
        }
    }

    /// Gives tokens back that `running` jobs do not need.
    pub fn give_back(&mut self, running: usize) {
        self.held.truncate(running.saturating_sub(1));
    }
}
