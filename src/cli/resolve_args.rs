//! Names on the command line: what they stand for, and what to say of unknown ones.

use crate::build::graph::TargetId;
use crate::build::model::{Environment, Project};
use crate::core::error::{Error, Result};

/// Returns the targets that names stand for; all when there are none.
pub fn find(project: &Project, names: &[String]) -> Result<Vec<TargetId>> {
    let graph = &project.graph;
    if names.is_empty() {
        return Ok(graph.ids().collect());
    }
    let mut ids = Vec::new();
    for name in names {
        match graph.find(name) {
            Some(found) => ids.extend(found),
            None if project.environments.iter().any(|e| e.name == *name) => {
                return Err(
                    Error::usage(format!("`{name}` is an environment, not a target")).help(
                        format!("`rel {name} --plan` shows what it would do, `rel {name}` does it"),
                    ),
                );
            }
            None => {
                let known: Vec<&str> = graph.base_names().chain(graph.names()).collect();
                return Err(unknown_name("target", name, &known));
            }
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Returns how an environment is called: `staging <branch> [customer]`.
pub fn usage(environment: &Environment) -> String {
    let mut text = environment.name.clone();
    for param in &environment.params {
        let choices = match param.one_of.as_slice() {
            [] => param.name.clone(),
            some => some.join("|"),
        };
        text.push_str(&match &param.default {
            Some(_) => format!(" [{choices}]"),
            None => format!(" <{choices}>"),
        });
    }
    text
}

/// Returns the error for a name that nothing has.
pub fn unknown_name(what: &str, name: &str, known: &[&str]) -> Box<Error> {
    let error = Error::usage(format!("there is no {what} `{name}`"));
    match crate::core::diagnostics::suggest(name, known.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help("`rel list` shows all targets and environments"),
    }
}
