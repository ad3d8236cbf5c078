//! The directory for temporary files, `TMPDIR`: one that cannot be used is reported once, and
//! the system's is used instead.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::cli::ui;
use crate::core::fs;

const NAME: &str = "TMPDIR";
const FALLBACK: &str = "/tmp";

/// Returns the environment with a directory for temporary files that can be written to, for
/// `rel` and for what it starts.
pub fn with_usable_dir(
    mut env: BTreeMap<String, OsString>,
    is_quiet: bool,
) -> BTreeMap<String, OsString> {
    let Some(dir) = env.get(NAME).filter(|dir| !is_usable(Path::new(dir))) else {
        return env;
    };
    // An empty variable is as good as none.
    if !dir.is_empty() && !is_quiet {
        let dir = fs::shown(dir);
        ui::eprint_line(format!(
            "warning: `TMPDIR` names `{dir}`, which is not a directory that can be written to: \
             temporary files go to `{FALLBACK}`"
        ));
    }
    // Nothing else sets it, and the one that did so first chose the same.
    let _ = tempfile::env::override_temp_dir(Path::new(FALLBACK));
    env.insert(NAME.into(), FALLBACK.into());
    env
}

fn is_usable(dir: &Path) -> bool {
    !dir.as_os_str().is_empty() && access(dir.join("."), Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
