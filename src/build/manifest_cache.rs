//! The compiled Releasefile: parsed and checked once, used while nothing it was made from
//! has changed.
//!
//! Parsing 10,000 targets of KDL takes a second or two; reading them back takes
//! milliseconds. The stamp holds everything that decides the result: `rel` itself, the
//! variables given on the command line, every file read, and every directory listed for
//! `each files=`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::build::digest::{Digest, is_racy_since};
use crate::build::model::Project;
use crate::core::fs::{self, RepoPath, Signature};
use crate::core::storage::{self, Checksum};

/// Name of the file below the state directory.
const FILE: &str = "graph.v1";

/// What a compiled Releasefile was made from, apart from files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestKey {
    /// The running program: its path and signature.
    pub program: (PathBuf, Option<Signature>),
    /// The Releasefile, absolute.
    pub file: PathBuf,
    /// `--hosts`.
    pub hosts_file: Option<PathBuf>,
    /// `--var`.
    pub vars: BTreeMap<String, String>,
}

/// What stands before the project in the file: enough to know whether it still holds.
#[derive(Serialize, Deserialize)]
struct Header<'a> {
    origin: Cow<'a, ManifestKey>,
    stamps: Cow<'a, SourceStamps>,
    /// Of the project behind it.
    project: Checksum,
}

/// How everything looked that a project was loaded out of.
#[derive(Clone, Serialize, Deserialize)]
pub struct SourceStamps {
    /// Whether one of the files belongs to another user, so that the result is used only by
    /// who named it or trusts the checkout.
    pub is_foreign: bool,
    files: Vec<(PathBuf, Option<Stamp>)>,
    dirs: Vec<(RepoPath, Option<Stamp>)>,
}

impl SourceStamps {
    /// Looks at what a project was loaded out of from `start_ns` on: files with the digests of the
    /// texts that were parsed, files that were not there, and directories that were listed. Must
    /// be asked at once, before any waiting: what came later was not parsed. `None` when it is too
    /// late already.
    pub fn take(
        root: &Path,
        read: Vec<(PathBuf, Option<Digest>)>,
        absent: Vec<PathBuf>,
        listed: Vec<RepoPath>,
        start_ns: i64,
    ) -> Option<Self> {
        let mut files = Vec::with_capacity(read.len() + absent.len());
        for (path, digest) in read {
            let stamp = Stamp::of(&path, digest, start_ns)?;
            files.push((path, Some(stamp)));
        }
        files.extend(absent.into_iter().map(|path| (path, None)));
        let stamp = |dir: &RepoPath| Stamp::of(&dir.to_absolute(root), None, start_ns);
        let dirs = listed.into_iter().map(|dir| {
            let stamp = stamp(&dir);
            (dir, stamp)
        });
        Some(Self {
            is_foreign: false,
            files,
            dirs: dirs.collect(),
        })
    }

    fn hold(&self, root: &Path) -> bool {
        let holds = |stamp: &Option<Stamp>, path: &Path| match stamp {
            Some(stamp) => stamp.is_valid(path),
            None => !path.exists(),
        };
        self.files.iter().all(|(path, stamp)| holds(stamp, path))
            && self
                .dirs
                .iter()
                .all(|(dir, stamp)| holds(stamp, &dir.to_absolute(root)))
    }
}

/// A compiled Releasefile that holds; the project itself has not been read yet.
pub struct CachedManifest {
    /// Names this very graph: two that differ in anything have different ones.
    pub id: Checksum,
    /// See [`SourceStamps::is_foreign`].
    pub is_foreign: bool,
    file: File,
    project: Checksum,
}

/// A file or directory as it was. Directories have no digest: any change of time counts.
#[derive(Clone, Serialize, Deserialize)]
struct Stamp {
    signature: Signature,
    owner: u32,
    digest: Option<Digest>,
    is_racy: bool,
}

impl Stamp {
    /// `digest` is of what was read at or after `start_ns`, which may already be gone.
    fn of(path: &Path, digest: Option<Digest>, start_ns: i64) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        let signature = Signature::of(&meta);
        Some(Self {
            signature,
            owner: meta.uid(),
            digest,
            is_racy: is_racy_since(&signature, start_ns),
        })
    }

    fn is_valid(&self, path: &Path) -> bool {
        let has_owner = |meta: &Metadata| meta.uid() == self.owner;
        let Some(meta) = std::fs::metadata(path).ok().filter(has_owner) else {
            return false;
        };
        if Signature::of(&meta) == self.signature && !self.is_racy {
            return true;
        }
        let read = fs::read_described(path).ok();
        let now = read.filter(|(_, meta)| has_owner(meta));
        let now = now.map(|(bytes, _)| Digest::of(&bytes));
        self.digest.is_some() && self.digest == now
    }
}

/// Returns the compiled Releasefile, if all that it was made from is unchanged.
pub fn current(state_dir: &Path, root: &Path, origin: &ManifestKey) -> Option<CachedManifest> {
    let (mut file, _) = fs::open_own(&state_dir.join(FILE)).ok()?;
    let mut len = [0; 4];
    file.read_exact(&mut len).ok()?;
    let len = u32::from_le_bytes(len);
    let mut bytes = Vec::new();
    (&mut file).take(len.into()).read_to_end(&mut bytes).ok()?;
    let head: Header<'_> = storage::decode(&bytes)?;
    let is_current = *head.origin == *origin && head.stamps.hold(root);
    let id = storage::sum_of(&bytes)?;
    is_current.then_some(CachedManifest {
        id,
        is_foreign: head.stamps.is_foreign,
        file,
        project: head.project,
    })
}

impl CachedManifest {
    /// Reads the project; `None` when it is not the one that the head was written for.
    pub fn project(mut self) -> Option<Project> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).ok()?;
        let is_meant = storage::sum_of(&bytes)? == self.project;
        is_meant.then(|| storage::decode(&bytes)).flatten()
    }
}

/// Keeps a project, and returns what names it. Failing to write is not an error: the next run
/// parses again.
pub fn save(
    state_dir: &Path,
    origin: &ManifestKey,
    stamps: &SourceStamps,
    project: &Project,
) -> Option<Checksum> {
    let write = || -> crate::core::error::Result<Option<Checksum>> {
        let body = storage::encode(project)?;
        let head = storage::encode(&Header {
            origin: Cow::Borrowed(origin),
            stamps: Cow::Borrowed(stamps),
            project: storage::sum_of(&body).unwrap_or_default(),
        })?;
        let mut bytes = (head.len() as u32).to_le_bytes().to_vec();
        bytes.extend(&head);
        bytes.extend(body);
        fs::write_lightly(&state_dir.join(FILE), &bytes)?;
        Ok(storage::sum_of(&head))
    };
    write().unwrap_or_else(|error| {
        tracing::debug!(%error, "the compiled Releasefile was not kept");
        None
    })
}
