//! The first look at all targets: their names, axes and instances. Only then can one
//! target name another that is written further below.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use super::axes::{AxisDecl, axes, combinations};
use super::limits::Sums;
use super::node::{Diagnostics, Node, SpannedText, with_suggestion};
use super::scope::{AxisValue, EvalContext, NameScope, bad_name};
use crate::build::glob::DirListing;
use crate::build::graph::TargetId;
use crate::core::diagnostics::Diagnostic;

/// A target as declared, not yet looked into.
pub(crate) struct TargetDecl<'a> {
    pub(crate) node: &'a Node,
    pub(crate) name: SpannedText,
    pub(crate) axes: Vec<AxisDecl>,
}

impl TargetDecl<'_> {
    /// Returns how many instances there are, and how long all their names are in bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let counts = self.axes.iter().map(|axis| axis.values.len());
        let count = counts.fold(1, usize::saturating_mul);
        let mut bytes = count.saturating_mul(self.name.text.len());
        for axis in &self.axes {
            let values = axis.values.iter().map(|value| value.shown().len() + 1);
            let len = values.fold(0, usize::saturating_add);
            let times = count / axis.values.len().max(1);
            bytes = bytes.saturating_add(len.saturating_mul(times));
        }
        (count, bytes)
    }

    /// Returns the name and the values of each instance.
    pub(crate) fn instances(&self) -> Vec<(String, Vec<(&str, &AxisValue)>)> {
        let named = |values: Vec<(&'_ str, &'_ AxisValue)>| -> String {
            let shown: Vec<String> = values.iter().map(|(_, v)| v.shown()).collect();
            format!("{}[{}]", self.name.text, shown.join(","))
        };
        if self.axes.is_empty() {
            return vec![(self.name.text.clone(), Vec::new())];
        }
        combinations(&self.axes)
            .into_iter()
            .map(|values| (named(values.clone()), values))
            .collect()
    }
}

/// What is known of a target by its base name.
#[derive(Debug, Default)]
pub(crate) struct TargetFamily {
    pub(crate) ids: Vec<TargetId>,
    pub(crate) has_outputs: bool,
}

/// All names of targets.
#[derive(Debug, Default)]
pub(crate) struct DeclaredNames {
    pub(crate) by_name: HashMap<String, TargetId>,
    pub(crate) by_base: BTreeMap<String, TargetFamily>,
    /// The base name of each target, by number.
    pub(crate) bases: Vec<Rc<str>>,
    pub(crate) pools: Vec<crate::build::graph::Pool>,
    pub(crate) has_version: bool,
    /// The sandbox of targets that do not speak of one.
    pub(crate) sandbox: Option<crate::build::graph::Sandbox>,
    /// Targets whose mistakes could make others look wrong.
    pub(crate) broken: HashSet<TargetId>,
}

impl DeclaredNames {
    /// Returns the targets a name stands for; none for an `each` over nothing.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<TargetId>> {
        match self.by_name.get(name) {
            Some(id) => Some(vec![*id]),
            None => self.by_base.get(name).map(|b| b.ids.clone()),
        }
    }

    /// Returns the mistake of a name that no target has.
    pub(crate) fn unknown(&self, who: &str, name: &str, at: &SpannedText) -> Diagnostic {
        let message = format!("{who} needs `{name}`, which is not a target");
        let mistake = Diagnostic::new("unknown_target", at.place, message, "not a target");
        let base = name.split('[').next().unwrap_or(name);
        if self.by_base.contains_key(base) && base != name {
            let prefix = format!("{base}[");
            let mut same: Vec<&str> = self
                .by_name
                .keys()
                .filter(|n| n.starts_with(&prefix))
                .map(String::as_str)
                .collect();
            same.sort_unstable();
            if same.is_empty() {
                return mistake.help(format!("`{base}` has no `each`: write `{base}`"));
            }
            return with_suggestion(mistake, name, &same, "there are");
        }
        let known: Vec<&str> = self.by_base.keys().map(String::as_str).collect();
        with_suggestion(mistake, name, &known, "the targets are")
    }
}

/// Returns all targets with their axes, and enters them into `names`.
pub(crate) fn targets<'a>(
    nodes: &'a [Node],
    world: EvalContext<'_>,
    listing: &dyn DirListing,
    names: &mut DeclaredNames,
    sums: &mut Sums,
    found: &mut Diagnostics,
) -> Vec<TargetDecl<'a>> {
    let mut out: Vec<TargetDecl<'a>> = Vec::new();
    let mut first: HashMap<String, SpannedText> = HashMap::new();
    let mut next = 0;
    for node in nodes.iter().filter(|n| n.is("target")) {
        let Some(name) = node.only_text("the name of the target", found) else {
            continue;
        };
        found.extend(bad_name("a target", &name));
        if let Some(first) = first.get(&name.text) {
            let message = format!("the target `{}` is declared twice", name.text);
            found.push(
                Diagnostic::new("duplicate_name", name.place, message, "declared again")
                    .secondary(first.place, "first declared here"),
            );
            // It is not known which of the two is meant.
            if let Some(base) = names.by_base.get(&name.text) {
                names.broken.extend(&base.ids);
            }
            continue;
        }
        first.insert(name.text.clone(), name.clone());
        let axes = axes(node, &NameScope::new(world), Some(listing), found);
        let declared = TargetDecl { node, name, axes };
        let shared: Rc<str> = declared.name.text.as_str().into();
        let base = names.by_base.entry(declared.name.text.clone()).or_default();
        base.has_outputs = node.children.iter().any(|c| c.is("outputs"));
        let (count, bytes) = declared.size();
        if !sums.declare(&declared.name, count, bytes, found) {
            continue;
        }
        let mut twin = None;
        for (name, _) in declared.instances() {
            base.ids.push(TargetId(next));
            if names.by_name.insert(name.clone(), TargetId(next)).is_some() {
                twin.get_or_insert(name);
            }
            names.bases.push(Rc::clone(&shared));
            next += 1;
        }
        if let (Some(twin), Some(axis)) = (twin, declared.axes.last()) {
            found.push(same_name(&twin, axis));
        }
        out.push(declared);
    }
    report_clashes(&out, world, &first, found);
    out
}

/// Records, logs and commands know an instance by its name alone.
fn same_name(name: &str, axis: &AxisDecl) -> Diagnostic {
    let message = format!("two instances are called `{name}`");
    Diagnostic::new(
        "duplicate_name",
        axis.name.place,
        message,
        "with values of this axis",
    )
    .help("change one value: commas join the values, and `\\n` stands for a line end as well")
}

/// A placeholder must not mean two things.
fn report_clashes(
    targets: &[TargetDecl],
    world: EvalContext<'_>,
    names: &HashMap<String, SpannedText>,
    found: &mut Diagnostics,
) {
    let clash = |what: &str, name: &str, at, other: &str, there| {
        let message = format!("{what} `{name}` has the name of {other}");
        Diagnostic::new("name_clash", at, message, "the same name")
            .secondary(there, "declared here")
            .help(format!("rename one of them: `{{{name}}}` would mean both"))
    };
    for (name, place) in &world.vars.places {
        if let Some(target) = names.get(name) {
            found.push(clash(
                "the variable",
                name,
                *place,
                "a target",
                target.place,
            ));
        }
    }
    for axis in targets.iter().flat_map(|t| &t.axes) {
        let (name, place) = (&axis.name.text, axis.name.place);
        if let Some(target) = names.get(name) {
            found.push(clash("the axis", name, place, "a target", target.place));
        } else if let Some(var) = world.vars.places.get(name) {
            found.push(clash("the axis", name, place, "a variable", *var));
        }
    }
}
