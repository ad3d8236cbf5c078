//! The `kdl` crate alone: parses the file that is its argument. What the peers' run holds the
//! first look at a Releasefile against.

#[expect(clippy::disallowed_methods, reason = "it is a program of its own")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: kdl_parse FILE")?;
    let text = std::fs::read_to_string(path)?;
    kdl::KdlDocument::parse_v2(&text)?;
    Ok(())
}
