//! What the programs of a host begin with, from what was asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::build::model::{Host, Reach};
use crate::core::error::Result;
use crate::core::fs::STATE_DIR;
use crate::core::fs::random;
use crate::deploy::DeployRequest;
use crate::deploy::protocol::journal::column;
use crate::deploy::protocol::program::{Header, LEASE_TIME};
use crate::deploy::protocol::words::lower_hex;
use crate::deploy::protocol::words::{absolute_root, join_parts};

/// Returns the header of a session with `host`.
///
/// # Errors
/// The system gives no random numbers.
pub fn of(request: &DeployRequest<'_>, host: &Host) -> Result<Header> {
    let root = absolute_root(host, request.root);
    let is_local = host.reach == Reach::Local;
    Ok(Header {
        nonce: nonce()?,
        state: state_in(request, &root),
        project: match request.project.is_named {
            true => column(&request.project.name),
            false => String::new(),
        },
        checkout: is_local.then(|| request.root.display().to_string()),
        root,
        name: match is_local {
            true => String::new(),
            false => host.name.clone(),
        },
        run: request.run_id.clone(),
        who: column(&request.operator.who),
        purpose: column(&request.purpose),
        lease: request.environment.lease.unwrap_or(LEASE_TIME),
        may_write_foreign: host.into_foreign,
        project_uid: is_local.then(|| owner_of(request.root)).flatten(),
    })
}

/// Returns the usual directory for the state of an environment on a host with this root: its name
/// is the environment with its parameters.
pub fn state_in(request: &DeployRequest<'_>, root: &str) -> String {
    let params = request.environment.params.iter();
    let values = params.map(|p| request.params.get(&p.name).map_or("", String::as_str));
    let parts: Vec<&str> = std::iter::once(request.environment.name.as_str())
        .chain(values)
        .collect();
    format!("{root}/{STATE_DIR}/{}", join_parts(&parts))
}

/// Returns the user that a directory of this machine belongs to.
fn owner_of(dir: &Path) -> Option<u32> {
    Some(std::fs::metadata(dir).ok()?.uid())
}

/// Returns a word that no output can hold by chance or by intent.
pub(in crate::deploy) fn nonce() -> Result<String> {
    Ok(lower_hex(&random::<16>()?))
}
