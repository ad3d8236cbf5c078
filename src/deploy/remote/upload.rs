//! An artifact -> a directory on a host. What the host has of it already does not travel.

use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::build::model::Artifact;
use crate::core::cancel::Cancel;
use crate::core::error::{Error, ErrorKind, Result};
use crate::deploy::protocol::words::lower_hex;
use crate::deploy::remote::archive;
use crate::deploy::remote::delta::ArtifactListing;
use crate::deploy::remote::session::Session;
use crate::deploy::remote::transfer_target::UploadTarget;

/// Sends an artifact as the directory `to` of a host; `base` is the name of the last one of its
/// kind. What is not what was built any more is an error, however far it has come: the name that
/// it gets there is the digest of what was built.
pub fn upload(
    session: &mut Session,
    artifact: &Artifact,
    to: &str,
    base: &str,
    cancel: &Cancel,
) -> Result<()> {
    let name = session.name().to_owned();
    let unread = |e: std::io::Error| {
        let text = format!("cannot read the file for host `{name}`");
        Error::new(ErrorKind::Io, text)
            .note("says", crate::core::error::os_text(&e))
            .help("run the same command again")
    };
    let mut items = archive::list(&artifact.paths).map_err(unread)?;
    archive::expect(&mut items, &artifact.contents).map_err(unread)?;
    // Of a single file nothing can be the same when the digest is not.
    let base = if items.len() > 1 { base } else { "" };
    let delta = match last(session, base, cancel)? {
        Some(listing) => Some(
            listing
                .delta(&items, &|item| sha256_of(&item.path, item.hash.as_ref()))
                .map_err(unread)?,
        ),
        None => None,
    };
    if let Some(delta) = &delta {
        let landing = UploadTarget {
            to,
            base,
            delta: Some(delta),
            ..UploadTarget::default()
        };
        let mut write = |out: &mut dyn Write| {
            archive::write(items.iter().filter(|item| delta.sends(item)), out)
        };
        if session.send_archive(&landing, cancel, &mut write)? {
            return Ok(());
        }
    }
    let landing = UploadTarget {
        to,
        base,
        ..UploadTarget::default()
    };
    let mut write = |out: &mut dyn Write| archive::write(items.iter(), out);
    session.send_archive(&landing, cancel, &mut write).map(drop)
}

/// Asks what the last directory of a kind holds.
fn last(session: &mut Session, base: &str, cancel: &Cancel) -> Result<Option<ArtifactListing>> {
    if base.is_empty() {
        return Ok(None);
    }
    let mut text = Vec::new();
    session.fetch(&format!("rel_base {base}\n"), base, cancel, &mut |bytes| {
        text.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(ArtifactListing::parse(&text))
}

/// Returns the SHA-256 of a file in lower-case hex, as `sha256sum` prints it. Where `built` is
/// given it must be the BLAKE3 of what is read.
pub fn sha256_of(path: &Path, built: Option<&[u8; 32]>) -> std::io::Result<String> {
    let mut file = archive::Checked::new(crate::core::fs::open_regular(path)?);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    match file.is(built) {
        true => Ok(lower_hex(&hasher.finalize())),
        false => Err(archive::changed(path.as_os_str())),
    }
}
