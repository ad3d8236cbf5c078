//! Which of the needed targets the text of an argument stands for. Pure.
//!
//! `{t}` stands for all instances of `t` that the environment needs; in a use that is done once
//! for each value of an axis, for those that are needed for this value.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::build::graph::{Pattern, TargetId};
use crate::build::model::{Artifact, Axis, Environment, Project, Use};
use crate::core::template::{Template, Value};
use crate::deploy::plan::axis_values::{axes_named, base_vars, combinations};
use crate::deploy::recipe::{Action, Recipe};

/// Combinations of values that are tried in advance.
const TRIED_MAX: usize = 1000;

/// Why a text stands for no artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The environment does not need this target; with the values for which it does not.
    NotNeeded(String, String),
    /// There are other instances of the target, but not this one.
    NoInstance(String),
    /// The target makes no file. A group stands for other targets, which are named.
    NoFile(String, Vec<String>),
    /// Two of its outputs, which would be installed under the same name.
    Twins(String, String),
}

/// Returns the names of the needed targets that `name` stands for, where `scope` has the values
/// of parameters and of axes; none where it is not needed.
///
/// The name of a target with `each` or `matrix` stands for all its instances.
pub fn targets(
    environment: &Environment,
    name: &str,
    scope: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for needed in needed(environment, scope) {
        let stands_for = match needed == name || base(&needed) == name {
            true => needed,
            // All instances are needed, and one of them is named.
            false if needed == base(name) => name.to_owned(),
            false => continue,
        };
        if !found.contains(&stands_for) {
            found.push(stands_for);
        }
    }
    found
}

/// Returns the names of the targets that are needed, for all values of the axes that `scope`
/// does not have.
pub fn needed(environment: &Environment, scope: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (need, _) in &environment.needs {
        let is_open = |axis: &&Axis| !scope.contains_key(&axis.name);
        let axes = axes_named(need.names(), &environment.axes);
        let axes: Vec<&Axis> = axes.into_iter().filter(is_open).collect();
        for values in combinations(&axes) {
            let value = |n: &str| match values.iter().find(|(axis, _)| axis == n) {
                Some((_, value)) => Some(Value::from(value.as_str())),
                None => scope.get(n).cloned(),
            };
            if let Ok(needed) = need.render(&value) {
                found.push(needed.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// Returns the name of a target without the values of an instance.
pub fn base(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// Returns whether a recipe lays down the files of this parameter, each under its own name.
pub fn is_put(recipe: &Recipe, param: &str) -> bool {
    let puts =
        |action: &Action| matches!(action, Action::Put { artifact, .. } if artifact == param);
    recipe.steps.iter().any(|step| puts(&step.action))
}

/// Returns two files or directories of an artifact that have one name.
pub fn twins(artifact: &Artifact) -> Option<(&Path, &Path)> {
    let mut known: BTreeMap<&OsStr, &Path> = BTreeMap::new();
    artifact.paths.iter().find_map(|path| {
        let first = known.insert(path.file_name()?, path)?;
        Some((first, path.as_path()))
    })
}

/// Finds out in advance whether the argument of a use stands for files, with every value that
/// its names can have; where that is open, whether the target is one that is needed at all.
pub fn check(
    project: &Project,
    environment: &Environment,
    one: &Use,
    reference: &Template,
    is_put: bool,
) -> Result<(), Refusal> {
    let source = reference.source();
    let target = base(&source);
    let needs = environment.needs.iter().map(|(need, _)| need);
    let may_be = |need: &&Template| {
        let source = need.source();
        base(&source) == target || base(&source).contains('{')
    };
    let needs: Vec<&Template> = needs.filter(may_be).collect();
    if needs.is_empty() {
        return Err(Refusal::NotNeeded(source, String::new()));
    }
    let ids = project.graph.find(target).unwrap_or_default();
    if let Some(id) = ids.first() {
        has_files(project, *id)?;
    }
    let of_use: Vec<String> = one.args.values().flat_map(|arg| arg.names()).collect();
    let is_fixed = |name: &&str| {
        let is_axis = environment.axes.iter().any(|axis| axis.name == *name);
        !is_axis || of_use.iter().any(|n| n == name)
    };
    let of_needs = needs.iter().flat_map(|n| n.names()).filter(is_fixed);
    let names: BTreeSet<&str> = reference.names().chain(of_needs).collect();
    let Some(rows) = rows(project, environment, &names) else {
        return Ok(());
    };
    for row in rows {
        let params = row.iter().cloned().collect();
        let scope = base_vars(project, &params, &[]);
        let Ok(name) = reference.render(&|n| scope.get(n).cloned()) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        let found = targets(environment, &name, &scope);
        if found.is_empty() {
            let values = row.iter().map(|(name, value)| format!("{name}={value}"));
            let values: Vec<String> = values.collect();
            return Err(Refusal::NotNeeded(name, values.join(" ")));
        }
        let found: Vec<Option<Vec<TargetId>>> =
            found.iter().map(|name| project.graph.find(name)).collect();
        if !ids.is_empty() && found.contains(&None) {
            return Err(Refusal::NoInstance(name));
        }
        if is_put {
            // Once, however many needs name it.
            let ids: BTreeSet<TargetId> = found.into_iter().flatten().flatten().collect();
            check_twins(project, ids)?;
        }
    }
    Ok(())
}

/// Returns every combination of the values that these names can have, if all are known.
fn rows(
    project: &Project,
    environment: &Environment,
    names: &BTreeSet<&str>,
) -> Option<Vec<Vec<(String, String)>>> {
    let mut axes: Vec<Axis> = Vec::new();
    let mut count = 1;
    for name in names {
        let axis = environment.axes.iter().find(|axis| axis.name == *name);
        let param = environment.params.iter().find(|p| p.name == *name);
        let values = match (axis, param, project.vars.get(*name)) {
            (Some(axis), ..) => axis.values.clone(),
            (_, Some(param), _) if !param.one_of.is_empty() => param.one_of.clone(),
            (_, None, Some(_)) => continue,
            _ => return None,
        };
        count *= values.len();
        if count > TRIED_MAX {
            return None;
        }
        axes.push(Axis {
            name: (*name).to_owned(),
            values,
        });
    }
    Some(combinations(&axes.iter().collect::<Vec<_>>()))
}

/// All instances of a target have outputs, or none has.
pub fn has_files(project: &Project, id: TargetId) -> Result<(), Refusal> {
    let target = project.graph.target(id);
    if !target.outputs.is_empty() {
        return Ok(());
    }
    let mut members: Vec<String> = Vec::new();
    if project.graph.is_group(id) {
        for id in project.graph.members(id) {
            let member = project.graph.target(id);
            if !member.outputs.is_empty() && !members.contains(&member.base) {
                members.push(member.base.clone());
            }
        }
    }
    Err(Refusal::NoFile(target.base.clone(), members))
}

/// Files and directories whose names are known before anything is made. What globs name is
/// compared when it is there.
fn check_twins(project: &Project, ids: BTreeSet<TargetId>) -> Result<(), Refusal> {
    let mut known: BTreeMap<OsString, String> = BTreeMap::new();
    for id in ids {
        for output in &project.graph.target(id).outputs {
            let (Pattern::File(path) | Pattern::Dir(path)) = &output.pattern else {
                continue;
            };
            let Some(name) = path.as_path().file_name() else {
                continue;
            };
            let shown = output.pattern.to_string();
            if let Some(first) = known.insert(name.to_owned(), shown.clone()) {
                return Err(Refusal::Twins(first, shown));
            }
        }
    }
    Ok(())
}
