//! Recipes as reference: a list with one line each, and all that one of them takes and does.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{DIM, NAME, TermOptions, Text};
use crate::core::diagnostics::SourceMap;
use crate::deploy::recipe::library::Drivers;
use crate::deploy::recipe::{Guard, ParamKind, Recipe, RecipeParam, Step};

/// Returns all recipes, a line each.
pub fn list_text(screen: TermOptions, recipes: &[&Arc<Recipe>], sources: &SourceMap) -> Text {
    let width = width(recipes.iter().map(|r| r.name.as_str()));
    let mut text = Text::new();
    for recipe in recipes {
        let desc = recipe.desc.as_deref().unwrap_or_default();
        let mut line = screen.paint(NAME, format_args!("{:width$}", recipe.name)) + "  " + desc;
        if let Some(file) = own_file(recipe, sources) {
            line += screen.paint(DIM, format_args!("  ({file})"));
        }
        text.line(line.trimmed());
    }
    text.line("`rel recipe NAME` shows parameters, guards and steps");
    text
}

/// Returns all recipes as JSON: name, description, and the project's file that holds it.
pub fn list_json(recipes: &[&Arc<Recipe>], sources: &SourceMap) -> Value {
    let one = |recipe: &&Arc<Recipe>| json!({ "name": recipe.name, "desc": recipe.desc, "file": own_file(recipe, sources) });
    recipes.iter().map(one).collect()
}

/// Returns the parameters, guards and steps of a recipe, and a `use` of it to start from.
pub fn text(screen: TermOptions, recipe: &Recipe, drivers: &Drivers, sources: &SourceMap) -> Text {
    let mut text = Text::new();
    text.line(screen.paint(NAME, &recipe.name) + "  " + recipe.desc.as_deref().unwrap_or_default());
    match own_file(recipe, sources) {
        Some(file) => text.line(format_args!("from {file}")),
        None => text.line("shipped with rel"),
    }
    if recipe.has_due {
        text.line("does nothing while its question `due` says that nothing is due");
    }
    if !recipe.params.is_empty() {
        text.line("");
        text.line("Parameters");
        let names = width(recipe.params.iter().map(|p| p.name.as_str()));
        let types = width(recipe.params.iter().map(|p| p.kind.word()));
        for param in &recipe.params {
            let name = screen.paint(NAME, format_args!("  {:names$}", param.name));
            let about = param_about(recipe, param, drivers);
            text.line(name + format_args!("  {:types$}  {about}", param.kind.word()));
        }
    }
    if !recipe.guards.is_empty() {
        text.line("");
        text.line("Guards");
        for guard in &recipe.guards {
            let when = match guard.is_back {
                true => "before the first change, and before a rollback",
                false => "before the first change",
            };
            text.line(screen.paint(NAME, format_args!("  {}", guard.name)) + "  " + when);
        }
    }
    if !recipe.steps.is_empty() {
        text.line("");
        text.line("Steps");
        let names = width(recipe.steps.iter().map(|s| s.name.as_str()));
        for step in &recipe.steps {
            let name = screen.paint(NAME, format_args!("  {:names$}", step.name));
            text.line((name + "  " + step_about(step)).trimmed());
        }
    }
    text.line("");
    text.line("Example");
    for line in example(recipe, drivers) {
        text.line(format_args!("  {line}"));
    }
    text
}

/// Returns the same as JSON.
pub fn json(recipe: &Recipe, drivers: &Drivers, sources: &SourceMap) -> Value {
    let param = |p: &RecipeParam| {
        let allowed = (p.kind == ParamKind::Driver).then_some(&drivers.names);
        json!({
            "name": p.name, "type": p.kind.word(), "default": p.default, "desc": p.desc,
            "gives": p.gives, "own": p.is_own, "allowed": allowed,
            "from_driver": is_driven(recipe, p, drivers),
        })
    };
    let guard = |g: &Guard| json!({ "name": g.name, "before_rollback": g.is_back });
    let step = |s: &Step| {
        json!({
            "name": s.name, "desc": step_desc(s), "if": s.if_param, "on_change": s.on_change,
            "from": s.is_from, "detached": s.is_detached,
        })
    };
    json!({
        "name": recipe.name,
        "desc": recipe.desc,
        "file": own_file(recipe, sources),
        "due": recipe.has_due,
        "params": recipe.params.iter().map(param).collect::<Vec<_>>(),
        "guards": recipe.guards.iter().map(guard).collect::<Vec<_>>(),
        "steps": recipe.steps.iter().map(step).collect::<Vec<_>>(),
        "example": example(recipe, drivers).join("\n"),
    })
}

/// Returns the file of the project that holds a recipe; `None` for one that is shipped.
fn own_file(recipe: &Recipe, sources: &SourceMap) -> Option<String> {
    let file = sources.get(recipe.place)?.path.display().to_string();
    (!file.starts_with("(shipped)")).then_some(file)
}

/// Returns whether a driver that the `use` names gives a parameter.
fn is_driven(recipe: &Recipe, param: &RecipeParam, drivers: &Drivers) -> bool {
    recipe.driver_param().is_some() && drivers.params.contains(&param.name)
}

fn param_about(recipe: &Recipe, param: &RecipeParam, drivers: &Drivers) -> String {
    let value = match &param.default {
        _ if is_driven(recipe, param, drivers) => "from the driver".to_owned(),
        None => "required".to_owned(),
        Some(text) if text.is_empty() => "optional".to_owned(),
        Some(text) => format!("default `{text}`"),
    };
    let mut about = vec![value];
    about.extend(param.desc.clone());
    if param.kind == ParamKind::Driver {
        about.push(format!("one of {}", drivers.names.join(" ")));
    }
    if !param.gives.is_empty() {
        let names = param.gives.iter().map(|name| format!("{{{name}}}"));
        let names: Vec<String> = names.collect();
        about.push(format!("may mention {}", names.join(" ")));
    }
    about.join("; ")
}

fn step_desc(step: &Step) -> Option<String> {
    step.marks.desc.as_ref().map(|desc| desc.source())
}

fn step_about(step: &Step) -> String {
    let mut about: Vec<String> = step_desc(step).into_iter().collect();
    about.extend(
        step.if_param
            .iter()
            .map(|name| format!("only if `{name}` is given")),
    );
    if step.is_from {
        about.push("on the `from` host".into());
    }
    if step.is_detached {
        about.push("detached".into());
    }
    about.join("; ")
}

/// Returns a `use` with the parameters that must be given.
fn example(recipe: &Recipe, drivers: &Drivers) -> Vec<String> {
    let from = match recipe.needs_from() {
        true => " from=\"HOST\"",
        false => "",
    };
    let is_given = |p: &&RecipeParam| match p.kind {
        ParamKind::Driver => true,
        _ => p.default.is_none() && !is_driven(recipe, p, drivers),
    };
    let required = recipe.params.iter().filter(is_given);
    let lines: Vec<String> = required
        .map(|param| {
            let value = match param.kind {
                ParamKind::Text => "TEXT",
                ParamKind::Command => "COMMAND",
                ParamKind::Driver => drivers.names.first().map_or("DRIVER", String::as_str),
                ParamKind::Artifact => "{TARGET}",
                ParamKind::Secret => "SECRET",
            };
            format!("    {} \"{value}\"", param.name)
        })
        .collect();
    let first = format!("use \"{}\" on=\"HOST\"{from}", recipe.name);
    match lines.is_empty() {
        true => vec![first],
        false => [vec![format!("{first} {{")], lines, vec!["}".to_owned()]].concat(),
    }
}

fn width<'a>(words: impl Iterator<Item = &'a str>) -> usize {
    words.map(|w| w.chars().count()).max().unwrap_or(0)
}
