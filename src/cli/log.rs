//! `rel log`: what the last run of a target, or of an environment from here, printed.

use super::context::Context;
use super::deploy::log_path as log_of_environment;
use super::names::find;
use super::query::Names;
use crate::builder::log_path;
use crate::error::{EXIT_OK, Result};
use crate::fs::read_optional;
use crate::records::Records;
use crate::ui::{self, shown_time};

/// Runs `rel log`.
pub fn log(context: &mut Context, names: &Names) -> Result<u8> {
    let state_dir = Context::state_dir(&context.root()?);
    let (context, project) = context.with_project()?;
    if let Some((environment, params)) = names.targets.split_first()
        && project.environments.iter().any(|e| e.name == *environment)
    {
        let path = log_of_environment(&state_dir, environment, params.iter());
        let text = read_optional(&path)?.unwrap_or_default();
        ui::print(&String::from_utf8_lossy(&text));
        return Ok(EXIT_OK);
    }
    let records = Records::load(&state_dir);
    let ids = find(&project.graph, &names.targets)?;
    let mut answers = Vec::new();
    for id in &ids {
        let name = &project.graph.target(*id).name;
        let log = read_optional(&log_path(&state_dir, name))?;
        let Some(known) = records.known(name) else {
            answers.push((name, String::from("never ran here"), log));
            continue;
        };
        let end = match (&known.record, known.is_unfinished) {
            (_, true) if known.failed => String::from("failed"),
            (_, true) => String::from("not finished"),
            (Some(record), false) => format!("took {}", shown_time(record.took)),
            (None, false) => String::from("never ran here"),
        };
        answers.push((name, end, log));
    }
    if context.json {
        let json: serde_json::Map<_, _> = answers
            .iter()
            .map(|(name, end, log)| {
                let text = log
                    .as_ref()
                    .map(|l| String::from_utf8_lossy(l).into_owned());
                (
                    (*name).clone(),
                    serde_json::json!({ "last_run": end, "log": text }),
                )
            })
            .collect();
        ui::print(&format!("{:#}\n", serde_json::Value::Object(json)));
        return Ok(EXIT_OK);
    }
    // One target: exactly what it printed. Several, or all: headed, and only a line each
    // when none was named.
    let is_one = ids.len() == 1;
    for (name, end, log) in answers {
        if !is_one {
            ui::print(&format!("{name}  ({end})\n"));
        }
        if !names.targets.is_empty() {
            ui::print(&String::from_utf8_lossy(&log.unwrap_or_default()));
        }
    }
    Ok(EXIT_OK)
}
