//! `rel cache`: the local cache's size, cleaning, verification.

use std::path::Path;
use std::time::Duration;

use super::workspace::Workspace;
use crate::build::cache::local::LocalStore;
use crate::build::digest::shown_size;
use crate::cli::ui;
use crate::core::error::{EXIT_OK, Error, Result, plural};

#[derive(Debug, clap::Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    verb: CacheVerb,
}

#[derive(Debug, clap::Subcommand)]
enum CacheVerb {
    /// Show where the cache is and how much it holds
    Size,
    /// Remove what was not used for long, or until the rest fits
    Prune {
        /// Remove results not used for this long, such as `30d`
        #[arg(long, value_name = "TIME")]
        older_than: Option<String>,
        /// Keep the results used last, up to this size, such as `5GB`
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
    },
    /// Read every blob and remove those that rotted
    Verify,
}

/// Refuses to remove files of a cache that others can change: they could let names in it lead
/// elsewhere meanwhile.
fn check_owner(store: &LocalStore, dir: &Path) -> Result<()> {
    if store.is_of_one_user() {
        return Ok(());
    }
    let dir = dir.display();
    let message = format!("files in `{dir}` are not removed: others can change it");
    Err(Error::usage(message).help(
        "let the owner of the cache do that; if it is yours, make it private (`chmod -R go-w`) and remove it from the list (`rel trust --remove`)",
    ))
}

/// Runs `rel cache`.
pub fn cache(context: &Workspace, args: &CacheArgs) -> Result<u8> {
    let (store, dir) = (context.store()?, context.cache_dir()?);
    if !matches!(args.verb, CacheVerb::Size) {
        check_owner(&store, &dir)?;
    }
    let (text, json) = match &args.verb {
        CacheVerb::Size => {
            let usage = store.usage()?;
            let text = format!(
                "{}  {} in {} {}, {} {}",
                dir.display(),
                shown_size(usage.bytes),
                usage.blobs,
                plural(usage.blobs as usize, "blob"),
                usage.results,
                plural(usage.results as usize, "result"),
            );
            let json = serde_json::json!({
                "directory": dir.to_string_lossy(), "bytes": usage.bytes, "blobs": usage.blobs, "results": usage.results,
            });
            (text, json)
        }
        CacheVerb::Prune {
            older_than,
            max_size,
        } => {
            let age = older_than.as_deref().map(parse_age).transpose()?;
            let size = max_size.as_deref().map(parse_size).transpose()?;
            if age.is_none() && size.is_none() {
                return Err(Error::usage("`rel cache prune` needs a limit")
                    .help("for example: rel cache prune --older-than 30d"));
            }
            let gone = store.prune(age, size)?;
            let text = format!(
                "removed {} {} and {} {}, {}",
                gone.results,
                plural(gone.results as usize, "result"),
                gone.blobs,
                plural(gone.blobs as usize, "blob"),
                shown_size(gone.bytes)
            );
            let json = serde_json::json!({
                "removed_results": gone.results, "removed_blobs": gone.blobs, "removed_bytes": gone.bytes,
            });
            (text, json)
        }
        CacheVerb::Verify => {
            let (read, bad) = store.verify()?;
            let text = match bad.len() {
                0 => format!("{read} {} read, all intact", plural(read as usize, "file")),
                n => format!(
                    "{read} {} read, {n} corrupt and removed",
                    plural(read as usize, "file")
                ),
            };
            (text, serde_json::json!({ "read": read, "removed": bad }))
        }
    };
    match context.output.json {
        true => ui::print_json(&json),
        false => ui::print_line(text),
    }
    Ok(EXIT_OK)
}

fn parse_age(text: &str) -> Result<Duration> {
    crate::core::deploy_window::duration(text).map_err(|e| {
        Error::usage(format!("`{text}` is not a time: {e}")).help("for example: 12h, 30d")
    })
}

fn parse_size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "t" | "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    let number: Option<u64> = digits.trim().parse().ok();
    let size = number
        .zip(factor)
        .and_then(|(n, f): (u64, u64)| n.checked_mul(f));
    size.ok_or_else(|| {
        Error::usage(format!("`{text}` is not a size")).help("for example: 500MB, 5GB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("5GB").ok(), Some(5_000_000_000));
        assert_eq!(parse_size("12").ok(), Some(12));
        assert!(parse_size("5 XB").is_err());
        assert!(parse_size("99999999999TB").is_err());
    }
}
