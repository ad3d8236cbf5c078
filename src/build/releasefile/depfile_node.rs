//! `depfile`: where the commands of a target write down what they read.

use std::collections::HashMap;

use super::node::{Diagnostics, Node};
use super::pattern::outside;
use super::pattern::patterns;
use super::scope::NameScope;
use crate::build::glob::{OutputIndex, is_named};
use crate::build::graph::{Graph, Pattern, Target};
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::fs::RepoPath;

/// Mistakes that are reported at most; one cause makes many of them.
const REPORTED_MAX: usize = 50;

/// Returns the file that a node names.
pub(crate) fn depfile(node: &Node, scope: &NameScope, found: &mut Diagnostics) -> Option<RepoPath> {
    let text = node.only_text("the file, such as `\"build/x.d\"`", found)?;
    let written = patterns(&text, scope, found);
    let [one] = written.as_slice() else {
        return None;
    };
    let bad = |message: String| {
        let help = "it is one file, which the commands write: `depfile \"build/x.d\"`";
        Diagnostic::new("bad_depfile", text.place, message, "not a depfile").help(help)
    };
    match &one.pattern {
        Pattern::File(path) if !one.is_exclusion => {
            match outside("depfile", &one.pattern, text.place) {
                Some(mistake) => found.push(mistake),
                None => return Some(path.clone()),
            }
        }
        pattern => found.push(bad(format!("the depfile `{pattern}` is not a single file"))),
    }
    None
}

/// Reports depfiles that are files of `own`, which `rel` reads itself.
pub(crate) fn own(graph: &Graph, own: &[Pattern]) -> Vec<Diagnostic> {
    let index = OutputIndex::new(own);
    let mistake = |target: &Target| {
        let path = target.depfile.as_ref()?;
        index.overlapping(&Pattern::File(path.clone())).first()?;
        let name = &target.name;
        let message = format!("the depfile `{path}` of `{name}` is a file that rel reads itself");
        let mistake = Diagnostic::new(
            "bad_depfile",
            target.place,
            message,
            "a run would remove it",
        );
        Some(mistake.help("name another file"))
    };
    let all = graph.targets().filter_map(|(_, target)| mistake(target));
    all.take(REPORTED_MAX).collect()
}

/// Reports depfiles that are also something else: they are gone when their target has run.
pub(crate) fn clashes(targets: &[Target], places: &HashMap<usize, Span>) -> Vec<Diagnostic> {
    let with: Vec<(usize, &RepoPath)> = targets
        .iter()
        .enumerate()
        .filter_map(|(at, target)| Some((at, target.depfile.as_ref()?)))
        .collect();
    let mut out = Vec::new();
    if with.is_empty() {
        return out;
    }
    let outputs = targets
        .iter()
        .flat_map(|t| t.outputs.iter().map(move |o| (t, o)));
    let outputs: Vec<_> = outputs.collect();
    let index = OutputIndex::new(outputs.iter().map(|(_, o)| &o.pattern));
    let read = literal_inputs(targets);
    let mut first: HashMap<&RepoPath, usize> = HashMap::new();
    for (at, path) in with {
        if out.len() >= REPORTED_MAX {
            break;
        }
        let (target, place) = (&targets[at], places.get(&at).copied().unwrap_or_default());
        let taken =
            |message: String| Diagnostic::new("bad_depfile", place, message, "taken already");
        if let Some(former) = first.insert(path, at) {
            let (one, two) = (&targets[former].name, &target.name);
            let mistake = taken(format!(
                "`{one}` and `{two}` write the same depfile `{path}`"
            ));
            out.push(mistake.help("let the path name the axis, so that each target has its own"));
            continue;
        }
        let named = || Some((target.name.as_str(), target.inputs.first()?.place));
        let reader = read.get(path).copied();
        if let Some((reader, input)) =
            reader.or_else(|| named().filter(|_| is_named(path, &target.inputs)))
        {
            let message = format!("the depfile `{path}` is an input of `{reader}` as well");
            let mistake = taken(message).secondary(input, "read here");
            out.push(
                mistake.help("what stands there is moved away before a run: name another file"),
            );
            continue;
        }
        for at in index.overlapping(&Pattern::File(path.clone())) {
            let (maker, output) = outputs[at];
            // In a directory that is its own it may lie: it is gone before that is looked at.
            if maker.name == target.name && !matches!(output.pattern, Pattern::File(_)) {
                continue;
            }
            let message = format!(
                "the depfile `{path}` is an output of `{}` as well",
                maker.name
            );
            let mistake = taken(message).secondary(output.place, format!("`{}`", output.pattern));
            out.push(mistake.help("a depfile is read and removed: name another file"));
            break;
        }
    }
    out
}

/// Returns the files that targets name as inputs, each with one of them and where it does so.
fn literal_inputs(targets: &[Target]) -> HashMap<&RepoPath, (&str, Span)> {
    let inputs = targets
        .iter()
        .flat_map(|t| t.inputs.iter().map(move |i| (t, i)));
    let mut out = HashMap::new();
    for (target, input) in inputs.filter(|(_, i)| !i.is_exclusion) {
        if let Pattern::File(path) = &input.pattern {
            out.insert(path, (target.name.as_str(), input.place));
        }
    }
    out
}
