//! `rel recipe`: which recipes a `use` may name, and the parameters, guards and steps of one.

use super::workspace::Workspace;
use crate::cli::ui::{self, recipe_view};
use crate::core::diagnostics::suggest;
use crate::core::error::{EXIT_OK, Error, Result};

#[derive(Debug, clap::Args)]
pub struct RecipeArgs {
    /// Show the parameters, guards and steps of this recipe
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs `rel recipe`. It needs no Releasefile: without one, the shipped recipes are shown.
pub fn recipe(context: &mut Workspace, args: &RecipeArgs) -> Result<u8> {
    let (recipes, sources) = context.recipes_here()?;
    let (text, json) = match &args.name {
        None => {
            let all: Vec<_> = recipes
                .names()
                .filter_map(|name| recipes.get(name))
                .collect();
            let text = recipe_view::list_text(context.screen, &all, &sources);
            (text, recipe_view::list_json(&all, &sources))
        }
        Some(name) if recipes.is_broken(name) => {
            let error = Error::usage(format!("the recipe `{name}` has errors"));
            return Err(error.help("`rel check` shows them"));
        }
        Some(name) => {
            let Some(recipe) = recipes.get(name) else {
                let error = Error::usage(format!("there is no recipe `{name}`"));
                return Err(match suggest(name, recipes.names()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help("`rel recipe` shows all recipes"),
                });
            };
            let drivers = recipes.drivers();
            let text = recipe_view::text(context.screen, recipe, &drivers, &sources);
            (text, recipe_view::json(recipe, &drivers, &sources))
        }
    };
    match context.json {
        true => ui::print_json(&json),
        false => ui::print(&text),
    }
    Ok(EXIT_OK)
}
