//! What can only be checked when all targets are known: outputs that clash, cycles,
//! and inputs that nothing provides.
//!
//! Nothing here compares all targets with all others: clashes are found through the
//! index of `glob`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::instances::TargetDecl;
use crate::build::glob::{DirListing, OutputIndex, covers, expand, missing_input, overlap};
use crate::build::graph::{Graph, Input, Output, Pattern, Target, TargetId, topological};
use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::error::Result;
use crate::core::fs::RepoPath;

/// Clashes and cycles that are reported at most; one cause makes many of them.
const REPORTED_MAX: usize = 50;

/// Reports targets that promise the same files.
pub(crate) fn outputs(targets: &[Target]) -> Vec<Diagnostic> {
    let all: Vec<(&Target, &Output)> = all_outputs(targets);
    let index = OutputIndex::new(all.iter().map(|(_, o)| &o.pattern));
    let mut out = Vec::new();
    for (first, second) in index.clashes().into_iter().take(REPORTED_MAX) {
        let ((one, first), (two, second)) = (all[first], all[second]);
        let message = match one.name == two.name {
            true => format!("two outputs of `{}` overlap", one.name),
            false => format!(
                "targets `{}` and `{}` write the same files",
                one.name, two.name
            ),
        };
        let mistake = Diagnostic::new(
            "overlapping_outputs",
            second.place,
            message,
            format!("`{}` overlaps", second.pattern),
        );
        let is_instance = one.base == two.base && first.place == second.place;
        out.push(match is_instance {
            true => mistake.help("let the path name the axis, so that each target has its own"),
            false => mistake
                .secondary(first.place, format!("with `{}`", first.pattern))
                .help("give each file to one target only"),
        });
    }
    out
}

/// Returns the patterns of the files that say what to make: those that were read, or would
/// have been, and the project's recipes.
pub(crate) fn own_files<'a>(
    root: &Path,
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Vec<Pattern> {
    let below = read.into_iter().filter_map(|p| p.strip_prefix(root).ok());
    let recipes = Pattern::Glob {
        base: RepoPath::new("recipes"),
        glob: "recipes/*.kdl".into(),
    };
    below
        .map(|p| Pattern::File(RepoPath::new(p)))
        .chain([recipes])
        .collect()
}

/// Reports outputs that take in a file of `own`: what a target promises is moved away
/// before it runs.
pub(crate) fn own_outputs(graph: &Graph, own: &[Pattern]) -> Vec<Diagnostic> {
    let index = OutputIndex::new(own);
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (target, output) in graph
        .targets()
        .flat_map(|(_, t)| t.outputs.iter().map(move |o| (t, o)))
    {
        let taken = index.overlapping(&output.pattern);
        let Some(file) = taken.first().map(|at| &own[*at]) else {
            continue;
        };
        if out.len() < REPORTED_MAX && seen.insert(output.place) {
            let message = format!(
                "the output `{}` of `{}` takes in `{file}`, which rel reads itself",
                output.pattern, target.name
            );
            let mistake = Diagnostic::new(
                "output_is_source",
                output.place,
                message,
                "a run would replace it",
            );
            out.push(mistake.help("write elsewhere, or name fewer files"));
        }
    }
    out
}

/// Reports `each files=` over what a target makes: which files there are is asked before anything
/// runs, so that the instances would be those of the last build.
pub(crate) fn each_over_outputs(
    declared: &[TargetDecl<'_>],
    targets: &[Target],
) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let axes = declared
        .iter()
        .flat_map(|d| d.axes.iter().map(move |a| (d, a)));
    let axes: Vec<_> = axes.filter(|(_, a)| !a.patterns.is_empty()).collect();
    if axes.is_empty() {
        return out;
    }
    let all = all_outputs(targets);
    let index = OutputIndex::new(all.iter().map(|(_, o)| &o.pattern));
    for (declared, axis) in axes {
        let made = axis.patterns.iter().enumerate().find_map(|(at, input)| {
            let mut makers = index.overlapping(&input.pattern).into_iter();
            let later = &axis.patterns[at + 1..];
            let maker = makers.find(|m| !is_taken_away(&all[*m].1.pattern, later))?;
            Some((input, all[maker])).filter(|_| !input.is_exclusion)
        });
        if let Some((input, (maker, output))) = made {
            let message = format!(
                "`each` goes over `{}`, where `{}` writes `{}`",
                input.pattern, maker.name, output.pattern
            );
            let mistake = Diagnostic::new(
                "each_over_output",
                input.place,
                message,
                "asked before anything runs",
            );
            let help = match maker.base == declared.name.text {
                true => String::from("write elsewhere"),
                false => format!(
                    "write the values out, or let one target with `needs \"{}\"` take all files",
                    maker.base
                ),
            };
            out.push(mistake.secondary(output.place, "written here").help(help));
        }
    }
    out.truncate(REPORTED_MAX);
    out
}

fn all_outputs(targets: &[Target]) -> Vec<(&Target, &Output)> {
    targets
        .iter()
        .flat_map(|t| t.outputs.iter().map(move |o| (t, o)))
        .collect()
}

/// Reports cycles, each as the path round it, and takes one edge of each away; who
/// loses one is added to `broken`.
pub(crate) fn cycles(
    targets: &mut [Target],
    places: &mut [Vec<Span>],
    broken: &mut HashSet<TargetId>,
) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    while let Err(round) = topological(targets) {
        let names: Vec<&str> = round
            .iter()
            .map(|id| targets[id.index()].name.as_str())
            .collect();
        // The edge that closes the circle.
        let (from, to) = match round.as_slice() {
            [.., from, to] => (*from, *to),
            _ => break,
        };
        let needs = &targets[from.index()].needs;
        let Some(at) = needs.iter().position(|n| *n == to) else {
            break;
        };
        let place = places[from.index()].get(at).copied().unwrap_or_default();
        if seen.insert(place) {
            let message = format!("targets form a cycle: {}", names.join(" -> "));
            let label = match from == to {
                true => "needs itself",
                false => "closes the cycle here",
            };
            out.push(Diagnostic::new("cycle", place, message, label));
        }
        broken.insert(from);
        targets[from.index()].needs.remove(at);
        places[from.index()].remove(at);
        if out.len() >= REPORTED_MAX {
            break;
        }
    }
    out
}

/// Reports inputs that leave the repository and come back into it: by such a name it is not known
/// whether a target makes them.
pub(crate) fn detours(graph: &Graph, root: &Path) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for input in graph.targets().flat_map(|(_, t)| &t.inputs) {
        let (Pattern::File(path) | Pattern::Dir(path) | Pattern::Glob { base: path, .. }) =
            &input.pattern;
        let absolute = RepoPath::new(path.to_absolute(root));
        let Ok(inside) = absolute.as_path().strip_prefix(root) else {
            continue;
        };
        if path.is_inside() || out.len() >= REPORTED_MAX || !seen.insert(input.place) {
            continue;
        }
        let written = input.pattern.to_string();
        let rest = written.strip_prefix(&path.to_string()).unwrap_or_default();
        let message = format!("the input `{written}` leads back into the repository");
        let mistake = Diagnostic::new("detour", input.place, message, "by another name");
        let bang = if input.is_exclusion { "!" } else { "" };
        out.push(mistake.help(format!("write `{bang}{}{rest}`", RepoPath::new(inside))));
    }
    out
}

/// Returns a mistake for each input that is neither on disk nor made by a needed
/// target, and for each that a target makes which is not needed.
///
/// # Errors
/// A directory cannot be listed.
///
/// Left out are targets whose own mistakes, or whose needs' mistakes, would make an input
/// look missing.
pub(crate) fn inputs(
    graph: &Graph,
    listing: &dyn DirListing,
    broken: &HashSet<TargetId>,
) -> Result<Vec<Diagnostic>> {
    let mut is_skipped = vec![false; graph.len()];
    for id in graph.order() {
        let needs = &graph.target(*id).needs;
        is_skipped[id.index()] = broken.contains(id) || needs.iter().any(|n| is_skipped[n.index()]);
    }
    let made: Vec<(TargetId, &Output)> = graph
        .targets()
        .flat_map(|(id, t)| t.outputs.iter().map(move |o| (id, o)))
        .collect();
    let mut check = InputCheck {
        graph,
        listing,
        index: OutputIndex::new(made.iter().map(|(_, o)| &o.pattern)),
        made,
        makers: HashMap::new(),
        on_disk: HashMap::new(),
        out: Vec::new(),
    };
    for (id, target) in graph.targets().filter(|(id, _)| !is_skipped[id.index()]) {
        check.target(id, target)?;
    }
    Ok(check.out)
}

struct InputCheck<'a> {
    graph: &'a Graph,
    listing: &'a dyn DirListing,
    index: OutputIndex,
    made: Vec<(TargetId, &'a Output)>,
    /// Which outputs a pattern overlaps, by the pattern's text: many targets share them.
    makers: HashMap<String, std::rc::Rc<Vec<usize>>>,
    /// Whether a pattern with the exclusions behind it matches a file.
    on_disk: HashMap<String, bool>,
    out: Vec<Diagnostic>,
}

impl InputCheck<'_> {
    fn target(&mut self, id: TargetId, target: &Target) -> Result<()> {
        let mut needed: Option<HashSet<TargetId>> = None;
        for (at, input) in target.inputs.iter().enumerate() {
            if input.is_exclusion {
                continue;
            }
            let later = &target.inputs[at + 1..];
            let mut is_made = false;
            for maker in self.makers(&input.pattern).iter() {
                let (maker, output) = self.made[*maker];
                if is_taken_away(&output.pattern, later) {
                    continue;
                }
                if maker == id {
                    self.own_output(target, input, output);
                } else if !self.is_needed(id, maker, &mut needed) {
                    self.not_needed(target, input, maker, output);
                }
                is_made = true;
            }
            if !is_made && !input.is_optional && !self.is_on_disk(input, later)? {
                self.out
                    .push(missing_input(&target.name, input, self.listing)?);
            }
        }
        Ok(())
    }

    fn makers(&mut self, pattern: &Pattern) -> std::rc::Rc<Vec<usize>> {
        let index = &self.index;
        let ask = || std::rc::Rc::new(index.overlapping(pattern));
        std::rc::Rc::clone(
            self.makers
                .entry(format!("{pattern:?}"))
                .or_insert_with(ask),
        )
    }

    /// Asks directly first: the whole closure of every target would be quadratic.
    fn is_needed(
        &self,
        id: TargetId,
        maker: TargetId,
        needed: &mut Option<HashSet<TargetId>>,
    ) -> bool {
        if self.graph.target(id).needs.contains(&maker) {
            return true;
        }
        let closure = needed.get_or_insert_with(|| {
            let mut seen = HashSet::new();
            let mut todo = self.graph.target(id).needs.clone();
            while let Some(next) = todo.pop() {
                if seen.insert(next) {
                    todo.extend(&self.graph.target(next).needs);
                }
            }
            seen
        });
        closure.contains(&maker)
    }

    fn is_on_disk(&mut self, input: &Input, later: &[Input]) -> Result<bool> {
        let exclusions = later.iter().filter(|i| i.is_exclusion);
        let list: Vec<Input> = std::iter::once(input).chain(exclusions).cloned().collect();
        let patterns: Vec<&Pattern> = list.iter().map(|i| &i.pattern).collect();
        let key = format!("{patterns:?}");
        if let Some(known) = self.on_disk.get(&key) {
            return Ok(*known);
        }
        let answer = expand(&list, self.listing)?.unmatched.is_empty();
        self.on_disk.insert(key, answer);
        Ok(answer)
    }

    fn own_output(&mut self, target: &Target, input: &Input, output: &Output) {
        let message = format!(
            "target `{}` reads `{}`, which takes in its own output `{}`",
            target.name, input.pattern, output.pattern
        );
        self.out.push(
            Diagnostic::new("own_output", input.place, message, "reads what it writes")
                .secondary(output.place, "written here")
                .help(format!(
                    "exclude it behind the pattern: `\"!{}\"`",
                    output.pattern
                )),
        );
    }

    fn not_needed(&mut self, target: &Target, input: &Input, maker: TargetId, output: &Output) {
        let maker = self.graph.target(maker);
        let (name, pattern) = (&target.name, &input.pattern);
        let is_file = matches!(pattern, Pattern::File(_));
        let message = match is_file {
            true => format!(
                "target `{name}` reads `{pattern}`, which `{}` makes, but does not need it",
                maker.name
            ),
            false => format!(
                "target `{name}` reads `{pattern}`, where `{}` writes `{}`, but does not need it",
                maker.name, output.pattern
            ),
        };
        let add = format!("add `needs \"{}\"`", maker.name);
        let help = match is_file {
            true => add,
            false => format!("{add}, or exclude it: `\"!{}\"`", output.pattern),
        };
        self.out.push(
            Diagnostic::new(
                "missing_needs",
                input.place,
                message,
                "made by another target",
            )
            .secondary(output.place, "made here")
            .help(help),
        );
    }
}

fn is_taken_away(output: &Pattern, later: &[Input]) -> bool {
    // What is added again after an exclusion counts for its own pattern.
    later
        .iter()
        .filter(|i| i.is_exclusion && overlap(&i.pattern, output))
        .any(|i| covers(&i.pattern, output))
}
