//! What needed targets made -> what a recipe is handed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::build::command::named_outputs;
use crate::build::digest::ContentKind;
use crate::build::graph::Target;
use crate::build::key::{OutputState, TargetOutputs};
use crate::build::model::Artifact;
use crate::core::error::{IoContext, Result};
use crate::deploy::protocol::words::{hex, lower_hex};
use crate::deploy::remote::upload;

/// The files of needed targets, by their full names.
#[derive(Default)]
pub(super) struct Artifacts {
    by_name: BTreeMap<String, Part>,
}

/// The files of one target.
struct Part {
    base: String,
    /// The patterns of its outputs: a file that gets another name is another artifact.
    outputs: String,
    /// `None` until it is made.
    artifact: Option<Artifact>,
}

impl Artifacts {
    /// Enters what a target made; nothing for one that makes no file.
    pub(super) fn insert(&mut self, target: &Target, artifact: Option<Artifact>) {
        if target.outputs.is_empty() {
            return;
        }
        let outputs = target.outputs.iter().map(|o| o.pattern.to_string());
        let part = Part {
            base: target.base.clone(),
            outputs: outputs.collect::<Vec<_>>().join("\n"),
            artifact,
        };
        self.by_name.insert(target.name.clone(), part);
    }

    /// Returns what a target of this full name made.
    pub(super) fn of(&self, name: &str) -> Option<&Artifact> {
        self.by_name.get(name)?.artifact.as_ref()
    }

    /// Returns the files of all targets of these names as one artifact, where the name of a
    /// target with `each` stands for all its instances; `None` until all are made.
    ///
    /// The digest of several follows from theirs, so that it is known wherever these are.
    pub(super) fn find(&self, names: &[String]) -> Option<Artifact> {
        let is_named = |name: &String, part: &Part| {
            names.iter().any(|n| n == name) || names.contains(&part.base)
        };
        let named = self.by_name.iter();
        let parts: Vec<(&String, &Part)> = named.filter(|(n, part)| is_named(n, part)).collect();
        if let [(_, only)] = parts.as_slice() {
            return only.artifact.clone();
        }
        let mut joined = Artifact {
            paths: Vec::new(),
            sha256: String::new(),
            is_one_file: false,
            contents: BTreeMap::new(),
        };
        let mut text = String::new();
        for (name, part) in parts {
            let artifact = part.artifact.as_ref()?;
            for field in [name, &part.outputs, &artifact.sha256] {
                text.push_str(&format!("{} {field}\n", field.len()));
            }
            joined.paths.extend(artifact.paths.iter().cloned());
            let contents = artifact.contents.iter().map(|(p, hash)| (p.clone(), *hash));
            joined.contents.extend(contents);
        }
        joined.sha256 = hex(text.as_bytes());
        (!joined.paths.is_empty()).then_some(joined)
    }
}

/// Returns what one target made, as it lies below `root`.
pub(super) fn artifact(target: &Target, made: &TargetOutputs, root: &Path) -> Result<Artifact> {
    let paths = named_outputs(target, made);
    let paths: Vec<PathBuf> = paths.iter().map(|p| p.to_absolute(root)).collect();
    let outputs = made.outputs.iter();
    let outputs = outputs.filter(|o| o.content.kind != ContentKind::Directory);
    let hash = |o: &OutputState| (o.path.to_absolute(root), o.content.digest.hash);
    let contents = outputs.map(hash).collect();
    Ok(Artifact {
        sha256: sha256(&paths, made, &contents)?,
        is_one_file: matches!(paths.as_slice(), [one] if one.is_file()),
        paths,
        contents,
    })
}

/// Returns the digest of one file as `sha256sum` has it; of several files or a directory,
/// one over their sorted names, kinds and contents.
fn sha256(
    paths: &[PathBuf],
    made: &TargetOutputs,
    contents: &BTreeMap<PathBuf, [u8; 32]>,
) -> Result<String> {
    if let [file] = paths
        && file.is_file()
    {
        let is_link = file.is_symlink();
        let built = contents.get(file).filter(|_| !is_link);
        return upload::sha256_of(file, built).context("read", file);
    }
    let mut hasher = Sha256::new();
    for output in &made.outputs {
        hasher.update(OsStr::as_bytes(output.path.as_os_str()));
        hasher.update([0, output.content.kind as u8]);
        hasher.update(output.content.digest.hash);
    }
    Ok(lower_hex(&hasher.finalize()))
}
