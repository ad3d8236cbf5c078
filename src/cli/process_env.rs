//! The environment variables of `rel` and the user that it runs as, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::temporary;

/// The variables of the environment. One whose name is not UTF-8 is left out.
pub struct ProcessEnv(BTreeMap<String, OsString>);

impl ProcessEnv {
    /// Reads the environment. `TMPDIR` is replaced if it cannot be used, with a warning unless
    /// `is_quiet`.
    pub fn read(is_quiet: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads them")]
        let vars = std::env::vars_os();
        let vars = vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(temporary::with_usable_dir(vars.collect(), is_quiet))
    }

    /// Returns a variable.
    pub fn var(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }

    /// Returns a variable that is for `rel`; an empty one is as good as none.
    pub fn own_var(&self, name: &str) -> Option<OsString> {
        self.var(name).filter(|value| !value.is_empty())
    }

    /// Returns a variable that is an absolute path.
    pub fn absolute_path(&self, name: &str) -> Option<PathBuf> {
        let path = self.var(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    }

    /// Returns the `ssh` to run.
    pub fn ssh(&self) -> OsString {
        self.own_var("REL_SSH").unwrap_or_else(|| "ssh".into())
    }

    /// Returns the directory of the user's own state; it need not exist.
    pub fn user_state_dir(&self) -> Option<PathBuf> {
        let state = self.absolute_path("XDG_STATE_HOME");
        let state = state.or_else(|| Some(self.absolute_path("HOME")?.join(".local/state")));
        Some(state?.join("rel"))
    }

    /// Returns who is at work, for journals: `user@machine`.
    pub fn operator(&self) -> String {
        let user = self.var("USER").or_else(|| self.var("LOGNAME"));
        let user = user.filter(|u| !u.is_empty());
        let user = user.map_or_else(system_user, |u| u.to_string_lossy().into_owned());
        let name = rustix::system::uname();
        format!("{user}@{}", name.nodename().to_string_lossy())
    }
}

/// Returns the user that the operating system knows this process by.
pub fn system_user() -> String {
    let number = || format!("uid-{}", rustix::process::getuid().as_raw());
    id(&["-un"]).unwrap_or_else(number)
}

/// Returns what `id` prints; `None` where it knows no user.
pub fn id(args: &[&str]) -> Option<String> {
    // It needs no variable, and one may hold a secret.
    let mut id = std::process::Command::new("id");
    let output = id.args(args).env_clear().output().ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}
