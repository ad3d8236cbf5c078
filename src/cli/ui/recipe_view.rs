//! Recipes as reference: a list with one line each, and all that one of them takes and does.

use std::path::Path;

use serde_json::{Value, json};

use super::{DIM, ERROR, NAME, TermOptions, Text};
use crate::deploy::recipe::{Guard, ParamKind, Recipe, RecipeParam, Step};

/// A recipe, and the file of the project that holds it; `None` for a shipped one.
pub type ShownRecipe<'a> = (&'a Recipe, Option<&'a Path>);

/// A recipe read together with each driver that fits it, by the driver's name.
pub type Drivers<'a> = &'a [(&'a str, Recipe)];

/// Returns all recipes, a line each, and the names of those that cannot be read.
pub fn list_text(screen: TermOptions, recipes: &[ShownRecipe<'_>], broken: &[&str]) -> Text {
    let names = recipes.iter().map(|(recipe, _)| recipe.name.as_str());
    let width = width(names.chain(broken.iter().copied()));
    let mut text = Text::new();
    for (recipe, file) in recipes {
        let desc = recipe.desc.as_deref().unwrap_or_default();
        let mut line = screen.paint(NAME, format_args!("{:width$}", recipe.name)) + "  " + desc;
        if let Some(file) = file {
            line += screen.paint(DIM, format_args!("  ({})", file.display()));
        }
        text.line(line.trimmed());
    }
    for name in broken {
        let name = screen.paint(NAME, format_args!("{name:width$}"));
        text.line(name + "  " + screen.paint(ERROR, "has errors: `rel check` shows them"));
    }
    text.line("`rel recipe NAME` shows parameters, guards and steps");
    text
}

/// Returns all recipes as JSON: name, description, and the project's file that holds it.
pub fn list_json(recipes: &[ShownRecipe<'_>], broken: &[&str]) -> Value {
    let one = |(recipe, file): &ShownRecipe<'_>| json!({ "name": recipe.name, "desc": recipe.desc, "file": file, "has_errors": false });
    let of_broken =
        |name: &&str| json!({ "name": name, "desc": null, "file": null, "has_errors": true });
    let all = recipes.iter().map(one);
    all.chain(broken.iter().map(of_broken)).collect()
}

/// Returns the parameters, guards and steps of a recipe, and a `use` of it to start from.
pub fn text(screen: TermOptions, (recipe, file): ShownRecipe<'_>, drivers: Drivers<'_>) -> Text {
    let mut text = Text::new();
    text.line(screen.paint(NAME, &recipe.name) + "  " + recipe.desc.as_deref().unwrap_or_default());
    match file {
        Some(file) => text.line(format_args!("from {}", file.display())),
        None => text.line("shipped with rel"),
    }
    if recipe.has_due {
        text.line("does nothing while its question `due` says that nothing is due");
    }
    let params: Vec<&RecipeParam> = recipe.params.iter().collect();
    text += params_text(screen, "Parameters", &params, drivers);
    for (name, driven) in drivers {
        let own = own_params(recipe, driven);
        text += params_text(screen, &format!("Parameters of driver `{name}`"), &own, &[]);
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
pub fn json((recipe, file): ShownRecipe<'_>, drivers: Drivers<'_>) -> Value {
    let param = |p: &RecipeParam| {
        let names: Vec<&str> = drivers.iter().map(|(name, _)| *name).collect();
        let allowed = (p.kind == ParamKind::Driver).then_some(names);
        json!({
            "name": p.name, "type": p.kind.word(), "default": p.default, "desc": p.desc,
            "gives": p.gives, "own": p.is_own, "allowed": allowed,
            "from_driver": is_driven(p, drivers),
        })
    };
    let guard = |g: &Guard| json!({ "name": g.name, "before_rollback": g.is_back });
    let step = |s: &Step| {
        json!({
            "name": s.name, "desc": step_desc(s), "if": s.if_param, "on_change": s.on_change,
            "from": s.is_from, "detached": s.is_detached,
        })
    };
    let of_drivers = drivers.iter().map(|(name, driven)| {
        let own = own_params(recipe, driven);
        (
            (*name).to_owned(),
            own.into_iter().map(param).collect::<Value>(),
        )
    });
    json!({
        "name": recipe.name,
        "desc": recipe.desc,
        "file": file,
        "due": recipe.has_due,
        "params": recipe.params.iter().map(param).collect::<Vec<_>>(),
        "driver_params": of_drivers.collect::<serde_json::Map<_, _>>(),
        "guards": recipe.guards.iter().map(guard).collect::<Vec<_>>(),
        "steps": recipe.steps.iter().map(step).collect::<Vec<_>>(),
        "example": example(recipe, drivers).join("\n"),
    })
}

fn params_text(
    screen: TermOptions,
    title: &str,
    params: &[&RecipeParam],
    drivers: Drivers<'_>,
) -> Text {
    let mut text = Text::new();
    if params.is_empty() {
        return text;
    }
    text.line("");
    text.line(title);
    let names = width(params.iter().map(|p| p.name.as_str()));
    let types = width(params.iter().map(|p| p.kind.word()));
    for param in params {
        let name = screen.paint(NAME, format_args!("  {:names$}", param.name));
        let about = param_about(param, drivers);
        text.line(name + format_args!("  {:types$}  {about}", param.kind.word()));
    }
    text
}

/// Returns whether a driver sets a parameter, so that a `use` that names one need not.
fn is_driven(param: &RecipeParam, drivers: Drivers<'_>) -> bool {
    let of_driver = |(_, driven): &(&str, Recipe)| {
        let set = driven.param(&param.name);
        set.is_some_and(|set| set.default != param.default)
    };
    drivers.iter().any(of_driver)
}

/// Returns the parameters that a driver adds for the `use`: not the commands that it sets.
fn own_params<'a>(recipe: &Recipe, driven: &'a Recipe) -> Vec<&'a RecipeParam> {
    let is_own = |p: &&RecipeParam| {
        let is_set = p.kind == ParamKind::Command && p.default.is_some();
        recipe.param(&p.name).is_none() && !is_set
    };
    driven.params.iter().filter(is_own).collect()
}

fn param_about(param: &RecipeParam, drivers: Drivers<'_>) -> String {
    let value = match &param.default {
        _ if is_driven(param, drivers) => "from the driver".to_owned(),
        None => "required".to_owned(),
        Some(text) if text.is_empty() => "optional".to_owned(),
        Some(text) => format!("default `{text}`"),
    };
    let mut about = vec![value];
    about.extend(param.desc.clone());
    if param.kind == ParamKind::Driver {
        let names: Vec<&str> = drivers.iter().map(|(name, _)| *name).collect();
        about.push(format!("one of {}", names.join(" ")));
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
fn example(recipe: &Recipe, drivers: Drivers<'_>) -> Vec<String> {
    let from = match recipe.needs_from() {
        true => " from=\"HOST\"",
        false => "",
    };
    let is_given = |p: &&RecipeParam| match p.kind {
        ParamKind::Driver => true,
        _ => p.default.is_none() && !is_driven(p, drivers),
    };
    let first = drivers.first();
    let of_driver = first.map(|(_, driven)| own_params(recipe, driven));
    let of_driver = of_driver.into_iter().flatten();
    let required = recipe.params.iter().chain(of_driver).filter(is_given);
    let lines: Vec<String> = required
        .map(|param| {
            let value = match param.kind {
                ParamKind::Text => "TEXT",
                ParamKind::Command => "COMMAND",
                ParamKind::Driver => first.map_or("DRIVER", |(name, _)| *name),
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
