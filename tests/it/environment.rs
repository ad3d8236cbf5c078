//! Environments as people write and run them, with directories as hosts.
//!
//! Recipes here do small visible things: a line in a file of the host, a link, a service.
//! What is asserted is what they leave and what `rel` says of it.

mod arguments;
mod artifacts;
mod back;
mod cut;
mod scope;
mod stale;

use serde_json::Value;

use crate::filters::{DIGEST, RUN, replaced};
use crate::space::{Output, Space};

/// Two hosts, a group of them, and an environment with this body.
fn space(body: &str) -> Space {
    Space::new(&format!(
        r#"
project "small" {{ version "1.0" }}
host "a" local=#true root="hosts/a"
host "b" local=#true root="hosts/b"
group "both" "a" "b"
environment "staging" {{
{body}
}}
"#
    ))
}

/// Writes a recipe of the project.
fn recipe(space: &Space, name: &str, body: &str) {
    let text = format!("recipe \"{name}\" {{\n    desc \"Small\"\n{body}\n}}\n");
    space.write(format!("recipes/{name}.kdl"), text);
}

/// Runs with `--json`, which must succeed, and returns the answer.
#[track_caller]
fn told(space: &Space, args: &[&str]) -> Value {
    space.ask([&["staging"], args].concat())
}

/// Returns the steps of a plan that have this verdict: `host id`.
#[track_caller]
fn steps(plan: &Value, verdict: &str) -> Vec<String> {
    let jobs = plan["jobs"].as_array().expect("jobs");
    let steps = jobs
        .iter()
        .flat_map(|j| j["steps"].as_array().expect("steps"));
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    steps
        .filter(|s| s["verdict"] == verdict)
        .map(|s| format!("{} {}", word(&s["host"]), word(&s["id"])))
        .collect()
}

/// Returns what was printed, without what differs from run to run or machine to machine.
fn shown(output: &Output) -> String {
    replaced(&output.to_string(), &[RUN, DIGEST])
}
