//! Small texts that keys are made of: digests in hex, fields, what an artifact is called. Pure.

use std::ffi::OsString;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::deploy::job::NOT_MADE;
use crate::model::{Artifact, Host, Reach};
use crate::template::Value;

/// Returns what an artifact adds to the names: `{wheel.sha256}`, `{wheel.id}`, `{wheel.name}`.
pub fn artifact_names(artifact: Option<&Artifact>) -> [(&'static str, Value); 3] {
    let Some(artifact) = artifact else {
        return ["sha256", "id", "name"].map(|tail| (tail, Value::from(NOT_MADE)));
    };
    let id: String = artifact.sha256.chars().take(12).collect();
    let names: Vec<OsString> = artifact
        .paths
        .iter()
        .filter_map(|p| p.file_name().map(OsString::from))
        .collect();
    [
        ("sha256", Value::from(artifact.sha256.as_str())),
        ("id", Value::from(id.as_str())),
        ("name", Value::Many(names)),
    ]
}

/// Returns the SHA-256 of `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Adds a field; lengths stand before values, so that no value can look like two.
pub fn push_field(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name} {}\n{value}\n", value.len()));
}

/// Returns the root of a host, absolute where that is known before the host is asked.
pub(super) fn absolute_root(host: &Host, repository: &Path) -> String {
    let root = host.root.trim_end_matches('/');
    match host.reach {
        Reach::Local if root == "." => repository.to_string_lossy().into_owned(),
        Reach::Local => repository.join(root).to_string_lossy().into_owned(),
        Reach::Ssh { .. } => root.to_owned(),
    }
}
