//! Secrets: their values, from where the Releasefile says, and the key of their hashes.
//!
//! Values are asked for once a run, before anything is shown, so that a command may ask the
//! person for a passphrase. They go no further than into the request.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};

use rustix::process::Signal;

use super::process_env::ProcessEnv;
use super::signals::SignalListener;
use super::workspace::Workspace;
use crate::build::command::render_plain;
use crate::build::graph::Command;
use crate::build::model::{self, Environment, Project, SecretFrom};
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, IoContext, Result, os_text};
use crate::core::fs;
use crate::core::process::Process;
use crate::deploy::Recipes;
use crate::deploy::plan::secret::{SecretHasher, SecretValue};
use crate::deploy::recipe::ParamKind;

/// What the command of a secret may print.
const SECRET_BYTES_MAX: usize = 1 << 20;

/// Name of the key's file, below the user's state.
const KEY: &str = "secret-key";

/// Returns the secrets that the uses of an environment name, with their values.
pub fn load(
    context: &Workspace,
    project: &Project,
    environment: &Environment,
    root: &Path,
    recipes: &Recipes,
) -> Result<BTreeMap<String, SecretValue>> {
    let wanted = wanted(project, environment, recipes);
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let seal = seal(context)?;
    let vars = variables(project);
    let mut found = BTreeMap::new();
    for (name, secret) in wanted {
        let value = value(&context.env, root, name, secret, &vars).map_err(|error| {
            let at = project.sources.locate(secret.place);
            error.note("declared", at)
        })?;
        found.insert(name.clone(), SecretValue::new(name, value, &seal)?);
    }
    Ok(found)
}

/// Returns the secrets that the uses of an environment name, without their values: where only
/// texts are wanted in which these never stand.
pub fn named(
    project: &Project,
    environment: &Environment,
    recipes: &Recipes,
) -> Result<BTreeMap<String, SecretValue>> {
    let names = wanted(project, environment, recipes).into_keys();
    let nothing = SecretHasher::new([0; 32]);
    names
        .map(|name| {
            Ok((
                name.clone(),
                SecretValue::new(name, b"-".to_vec(), &nothing)?,
            ))
        })
        .collect()
}

fn wanted<'a>(
    project: &'a Project,
    environment: &'a Environment,
    recipes: &Recipes,
) -> BTreeMap<&'a String, &'a model::Secret> {
    let mut wanted = BTreeMap::new();
    for one in &environment.uses {
        let params = recipes.get(&one.recipe).map_or(&[][..], |r| &r.params);
        for param in params.iter().filter(|p| p.kind == ParamKind::Secret) {
            let name = one.args.get(&param.name).map(|arg| &arg.text);
            let of = |name| {
                let own = environment.secrets.get(name);
                own.or_else(|| project.secrets.get(name))
            };
            if let Some((name, secret)) = name.and_then(|n| Some((n, of(n)?))) {
                wanted.insert(name, secret);
            }
        }
    }
    wanted
}

/// Returns the variables that secrets of any environment come from.
pub fn variables(project: &Project) -> Vec<OsString> {
    let all = project.environments.iter().map(|e| &e.secrets);
    let all = all.chain([&project.secrets]).flat_map(BTreeMap::values);
    let vars = all.filter_map(|secret| match &secret.from {
        SecretFrom::Env(name) => Some(OsString::from(name)),
        _ => None,
    });
    vars.collect()
}

fn value(
    env: &ProcessEnv,
    root: &Path,
    name: &str,
    secret: &model::Secret,
    vars: &[OsString],
) -> Result<Vec<u8>> {
    let no = |what: String| Error::usage(format!("there is no secret `{name}`: {what}"));
    let mut bytes = match &secret.from {
        SecretFrom::Env(var) => match env.var(var) {
            Some(value) => return Ok(value.into_encoded_bytes()),
            None => return Err(no(format!("the variable `{var}` is not set"))),
        },
        SecretFrom::File(path) => {
            let path = root.join(path);
            let read = fs::read_regular(&path);
            read.map_err(|e| no(format!("cannot read `{}`: {}", path.display(), os_text(&e))))?
        }
        SecretFrom::Command(command) => {
            let mut program = program(command, root, vars)?;
            let printed = printed(&mut program)?;
            let (status, bytes) =
                printed.map_err(|e| no(format!("its command: {}", os_text(&e))))?;
            if bytes.len() > SECRET_BYTES_MAX {
                let max = SECRET_BYTES_MAX >> 20;
                return Err(no(format!("its command printed more than {max} MiB")));
            }
            if !status.success() {
                let status = status.code().unwrap_or(-1);
                return Err(no(format!("its command ended with status {status}")));
            }
            bytes
        }
    };
    // A line that is written has an end.
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(bytes)
}

/// Returns the command of a secret: it may ask the person, and has the whole environment
/// but other secrets.
fn program(command: &Command, root: &Path, vars: &[OsString]) -> Result<std::process::Command> {
    let words = render_plain(command)?;
    let Some((first, rest)) = words.split_first() else {
        return Err(Error::internal("the command is empty"));
    };
    let mut program = std::process::Command::new(first);
    program
        .args(rest)
        .current_dir(root)
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit());
    for var in vars {
        program.env_remove(var);
    }
    Ok(program)
}

/// Runs a program and returns what it printed; a byte more than [`SECRET_BYTES_MAX`], if that was
/// more. It may ask the person, so its time has no limit; a signal ends it.
fn printed(program: &mut std::process::Command) -> Result<io::Result<(ExitStatus, Vec<u8>)>> {
    let process: Arc<OnceLock<Process>> = Arc::default();
    let end = |signal| {
        let process = process.clone();
        move || {
            let _ = process.get().is_some_and(|process| process.signal(signal));
        }
    };
    let cancel = Cancel::default();
    let _listener = SignalListener::start(cancel.clone(), end(Signal::TERM), end(Signal::KILL))?;
    let mut child = match program.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(started) = Process::at(child.id() as i32) {
        let _ = process.set(started);
    }
    let mut bytes = Vec::new();
    let max = SECRET_BYTES_MAX as u64 + 1;
    let read = match child.stdout.take() {
        Some(out) => out.take(max).read_to_end(&mut bytes),
        None => Ok(0),
    };
    if bytes.len() > SECRET_BYTES_MAX {
        end(Signal::KILL)();
    }
    let status = child.wait();
    cancel.check()?;
    Ok(read.and(status).map(|status| (status, bytes)))
}

/// Returns the key of the user's keyed hashes; it is made when it is wanted first.
fn seal(context: &Workspace) -> Result<SecretHasher> {
    let dir = context.env.user_state_dir().ok_or_else(|| {
        Error::usage("there is no home directory to keep the key of secrets in")
            .help("set `XDG_STATE_HOME` or `HOME`")
    })?;
    context.make_user_state_dir(&dir)?;
    let path = dir.join(KEY);
    if fs::lstat(&path)?.is_none() {
        make_key(&path, &dir)?;
    }
    let wrong = || {
        Error::usage(format!("`{}` is not private to you", path.display())).help(
            "remove it: a new one is made, and every step that writes a secret runs once more",
        )
    };
    let (file, meta) = fs::open_own(&path).context("open", &path)?;
    let bytes = fs::read_at_most(file, 32).unwrap_or_default();
    let is_private = meta.mode() & 0o077 == 0 && context.owners.is_user(meta.uid());
    match <[u8; 32]>::try_from(bytes) {
        Ok(key) if is_private => Ok(SecretHasher::new(key)),
        _ => Err(wrong()),
    }
}

/// Makes the key whole or not at all; one that another process made meanwhile stays.
fn make_key(path: &Path, dir: &Path) -> Result<()> {
    let key = fs::random::<32>()?;
    let mut file = tempfile::NamedTempFile::new_in(dir).context("create a file in", dir)?;
    let private = file
        .as_file()
        .set_permissions(Permissions::from_mode(0o600));
    private
        .and_then(|()| file.write_all(&key))
        .context("write", path)?;
    match file.persist_noclobber(path) {
        Err(e) if e.error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::new(
            ErrorKind::Io,
            format!("cannot write `{}`: {}", path.display(), os_text(&e.error)),
        )),
        _ => Ok(()),
    }
}
