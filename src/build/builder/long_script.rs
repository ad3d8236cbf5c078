//! Scripts that are too long to be an argument.
//!
//! Linux refuses an argument of 128 KiB, though all of them together may have some mebibytes. A
//! shell reads such a script from a file instead. That is how it is started, and no part of a key.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::build::graph::Command;
use crate::core::error::{IoContext, Result};
use crate::core::fs;

/// `MAX_ARG_STRLEN` of Linux for the smallest pages, the final NUL included.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024;

/// A script in a file, which is removed when this is dropped.
pub(super) struct LongScript {
    file: NamedTempFile,
    argv: Vec<OsString>,
}

impl LongScript {
    /// Puts the script of `command`, whose words are `argv`, into a file in `dir`, which the
    /// command can read. `None` where it need not be, or where its shell would not read it so.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn of(
        command: Option<&Command>,
        argv: &[OsString],
        dir: &Path,
    ) -> Result<Option<Self>> {
        let Some((script, before)) = argv.split_last() else {
            return Ok(None);
        };
        let is_long = script.len() >= ARGUMENT_BYTES_MAX;
        if !is_long || !command.is_some_and(Command::can_read_script) {
            return Ok(None);
        }
        let mut make = tempfile::Builder::new();
        let file = make.prefix(fs::TEMPORARY).tempfile_in(dir);
        let mut file = file.context("create a file in", dir)?;
        let written = file.write_all(script.as_bytes());
        written.context("write", file.path())?;
        let read = Command::reading(file.path());
        let argv = before.iter().cloned().chain([read]).collect();
        Ok(Some(Self { file, argv }))
    }

    /// Returns the words to start instead.
    pub(super) fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Returns where the script lies.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}
