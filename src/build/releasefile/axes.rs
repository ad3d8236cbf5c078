//! `each` and `matrix`: the names that take several values, and the combinations.

use super::node::{Diagnostics, Node, SpannedText};
use super::pattern::patterns;
use super::scope::{AxisValue, NameScope, bad_name};
use crate::build::glob::{DirListing, expand};
use crate::build::graph::Input;
use crate::core::diagnostics::Diagnostic;
use crate::core::fs::RepoPath;

/// Combinations that one target may have.
const INSTANCES_MAX: usize = 200_000;

/// A name with its values.
#[derive(Clone, Debug)]
pub(crate) struct AxisDecl {
    pub(crate) name: SpannedText,
    pub(crate) values: Vec<AxisValue>,
    /// Its values are files, so `{name.stem}` is known.
    pub(crate) is_files: bool,
    /// The patterns that name these files.
    pub(crate) patterns: Vec<Input>,
}

/// Returns the axes of a target or an environment, in the order written.
pub(crate) fn axes(
    node: &Node,
    scope: &NameScope,
    listing: Option<&dyn DirListing>,
    found: &mut Diagnostics,
) -> Vec<AxisDecl> {
    let mut out: Vec<AxisDecl> = Vec::new();
    for child in &node.children {
        match child.name.text.as_str() {
            "each" => out.extend(each(child, scope, listing, found)),
            "matrix" => {
                child.only_props(&[], found);
                if let Some(arg) = child.args.first() {
                    found.push(Diagnostic::new(
                        "extra_argument",
                        arg.place,
                        "`matrix` takes no argument, but a block of names with their values",
                        "not expected here",
                    ));
                }
                for line in &child.children {
                    line.is_plain(found);
                    let texts = line.texts("the values", found);
                    out.push(AxisDecl {
                        values: listed(&texts, scope, found),
                        name: line.name.clone(),
                        is_files: false,
                        patterns: Vec::new(),
                    });
                }
            }
            _ => {}
        }
    }
    report_names(&out, found);
    out
}

fn report_names(axes: &[AxisDecl], found: &mut Diagnostics) {
    for (i, axis) in axes.iter().enumerate() {
        found.extend(bad_name("an axis", &axis.name));
        if let Some(first) = axes[..i].iter().find(|a| a.name.text == axis.name.text) {
            let message = format!("the axis `{}` is declared twice", axis.name.text);
            found.push(
                Diagnostic::new("duplicate_name", axis.name.place, message, "declared again")
                    .secondary(first.name.place, "first declared here"),
            );
        }
    }
    let count = axes
        .iter()
        .try_fold(1usize, |n, a| n.checked_mul(a.values.len().max(1)));
    if let Some(axis) = axes.first()
        && count.is_none_or(|n| n > INSTANCES_MAX)
    {
        found.push(Diagnostic::new(
            "too_many",
            axis.name.place,
            format!("the axes have more than {INSTANCES_MAX} combinations"),
            "the first of them",
        ));
    }
}

fn each(
    node: &Node,
    scope: &NameScope,
    listing: Option<&dyn DirListing>,
    found: &mut Diagnostics,
) -> Option<AxisDecl> {
    let known: &[&str] = match listing {
        Some(_) => &["files", "optional"],
        None => &[],
    };
    node.only_props(known, found);
    node.only_children(&[], found);
    let Some(name) = node.args.first() else {
        found.push(node.missing("a name, and its values or `files=\"…\"`"));
        return None;
    };
    let name = name.text(found)?;
    let given: Vec<SpannedText> = node.args[1..]
        .iter()
        .filter_map(|a| a.text(found))
        .collect();
    let mut patterns = Vec::new();
    let values = match (node.text_prop("files", found), listing) {
        (Some(pattern), Some(listing)) => {
            if let Some(extra) = given.first() {
                found.push(Diagnostic::new(
                    "extra_argument",
                    extra.place,
                    "`each` takes either values or `files`, not both",
                    "one too many",
                ));
            }
            let is_optional = node.flag("optional", found);
            patterns = inputs(&pattern, is_optional, scope, found);
            files(&pattern, &patterns, listing, found)
        }
        _ if given.is_empty() && node.args.len() == 1 && node.prop("files").is_none() => {
            let message = format!("the axis `{}` has no values", name.text);
            let mistake =
                Diagnostic::new("missing_argument", name.place, message, "no values follow");
            found.push(mistake.help("write the values behind it"));
            Vec::new()
        }
        _ => listed(&given, scope, found),
    };
    Some(AxisDecl {
        name,
        values,
        is_files: node.prop("files").is_some(),
        patterns,
    })
}

fn listed(texts: &[SpannedText], scope: &NameScope, found: &mut Diagnostics) -> Vec<AxisValue> {
    let mut out: Vec<AxisValue> = Vec::new();
    for text in texts {
        for value in scope.strings(text, found) {
            let value = AxisValue::Text(value);
            if out.contains(&value) {
                let message = format!("the value `{}` is given twice", value.shown());
                found.push(Diagnostic::new(
                    "duplicate_name",
                    text.place,
                    message,
                    "given again",
                ));
            } else {
                out.push(value);
            }
        }
    }
    out
}

fn inputs(
    text: &SpannedText,
    is_optional: bool,
    scope: &NameScope,
    found: &mut Diagnostics,
) -> Vec<Input> {
    let written = patterns(text, scope, found).into_iter();
    written
        .map(|written| Input {
            pattern: written.pattern,
            is_exclusion: written.is_exclusion,
            is_optional,
            place: text.place,
        })
        .collect()
}

fn files(
    text: &SpannedText,
    inputs: &[Input],
    listing: &dyn DirListing,
    found: &mut Diagnostics,
) -> Vec<AxisValue> {
    let Some(first) = inputs.first() else {
        return Vec::new();
    };
    match expand(inputs, listing) {
        Ok(expanded) => {
            if expanded.files.is_empty() && !first.is_optional {
                found.push(empty_glob(text));
            }
            let value = |path: RepoPath| AxisValue::File(path);
            expanded.files.into_iter().map(value).collect()
        }
        Err(error) => {
            found.push(Diagnostic::new(
                "unreadable",
                text.place,
                error.message.clone(),
                "asked for here",
            ));
            Vec::new()
        }
    }
}

fn empty_glob(text: &SpannedText) -> Diagnostic {
    let message = format!("`{}` matches no file", text.text);
    Diagnostic::new("empty_glob", text.place, message, "no match")
        .help("correct the pattern, or allow none with `optional=#true`")
}

/// Returns all combinations, the last axis running fastest; one empty one without axes.
pub(crate) fn combinations(axes: &[AxisDecl]) -> Vec<Vec<(&str, &AxisValue)>> {
    let mut out: Vec<Vec<(&str, &AxisValue)>> = vec![Vec::new()];
    for axis in axes {
        if out.len().saturating_mul(axis.values.len()) > INSTANCES_MAX {
            return Vec::new();
        }

        let mut next = Vec::with_capacity(out.len() * axis.values.len());
        for one in &out {
            for value in &axis.values {
                let mut more = one.clone();
                more.push((axis.name.text.as_str(), value));
                next.push(more);
            }
        }
        out = next;
    }
    out
}
