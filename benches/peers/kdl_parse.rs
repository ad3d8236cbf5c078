//! The `kdl` crate alone: parses the file that is its argument. What `benches/peers` holds the
//! first look at a Releasefile against.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: kdl_parse FILE");
        return ExitCode::from(2);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("kdl_parse: {error}");
            return ExitCode::FAILURE;
        }
    };
    match kdl::KdlDocument::parse_v2(&text) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kdl_parse: {error}");
            ExitCode::FAILURE
        }
    }
}
