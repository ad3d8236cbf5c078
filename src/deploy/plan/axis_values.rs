//! Axes of an environment: the values of variables, parameters and axes that texts may name. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::build::model::{Axis, Project};
use crate::core::template::Value;

/// Variables, then parameters and axes over them.
pub(super) fn base_vars(
    project: &Project,
    params: &BTreeMap<String, String>,
    axes: &[(String, String)],
) -> BTreeMap<String, Value> {
    let mut scope = BTreeMap::new();
    for (name, values) in &project.vars {
        let value = match values.as_slice() {
            [one] => Value::from(one.as_str()),
            many => Value::Many(many.iter().map(OsString::from).collect()),
        };
        scope.insert(name.clone(), value);
    }
    for (name, value) in axes.iter().map(|(n, v)| (n, v)).chain(params) {
        scope.insert(name.clone(), Value::from(value.as_str()));
    }
    scope
}

/// Returns the axes whose names are among these.
pub(super) fn axes_named<'a, 'n>(
    names: impl Iterator<Item = &'n str>,
    axes: &'a [Axis],
) -> Vec<&'a Axis> {
    let names: Vec<&str> = names.collect();
    let is_named = |axis: &&Axis| names.contains(&axis.name.as_str());
    axes.iter().filter(is_named).collect()
}

/// Returns every combination of values, in the order written.
pub(super) fn combinations(axes: &[&Axis]) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::new()];
    for axis in axes {
        all = all
            .into_iter()
            .flat_map(|row: Vec<(String, String)>| {
                axis.values.iter().map(move |value| {
                    let mut row = row.clone();
                    row.push((axis.name.clone(), value.clone()));
                    row
                })
            })
            .collect();
    }
    all
}
