//! This machine as a host: there guards are asked whose use names no host, such as whether
//! the project has a line in its changelog. Pure.
//!
//! It is asked and never changed: no lease is taken and no journal kept, and questions to
//! journals and rollbacks go without it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::build::model::{Host, Reach, Use};
use crate::core::diagnostics::Span;
use crate::deploy::recipe::Recipe;

/// Its name, which no Releasefile can give to a host.
pub const LOCALHOST: &str = "this machine";

static HERE: LazyLock<Host> = LazyLock::new(|| Host {
    name: LOCALHOST.to_owned(),
    reach: Reach::Local,
    root: ".".to_owned(),
    into_foreign: false,
    vars: BTreeMap::new(),
    place: Span::default(),
});

/// Returns this machine, with the repository as its root.
pub fn this_machine() -> &'static Host {
    &HERE
}

/// Returns whether the guards of a use are asked on this machine.
pub fn is_asked_here(one: &Use, recipe: &Recipe) -> bool {
    one.on.is_empty() && one.rollout.is_none() && only_guards(recipe)
}

/// Returns whether a recipe asks its guards and does nothing on a host.
pub fn only_guards(recipe: &Recipe) -> bool {
    let is_elsewhere = |a: &crate::deploy::recipe::Step| a.action.is_operators();
    !recipe.guards.is_empty() && recipe.facts.is_empty() && recipe.steps.iter().all(is_elsewhere)
}
