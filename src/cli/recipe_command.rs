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
    let found = |name: &str| Some((&**recipes.get(name)?, recipes.own_file(name, &sources)));
    let (text, json) = match &args.name {
        None => {
            let names = recipes.names().filter(|name| !recipes.is_broken(name));
            let all: Vec<_> = names.filter_map(found).collect();
            let broken: Vec<&str> = recipes.broken().collect();
            let text = recipe_view::list_text(context.output.screen, &all, &broken);
            (text, recipe_view::list_json(&all, &broken))
        }
        Some(name) if recipes.is_broken(name) => {
            let error = Error::usage(format!("the recipe `{name}` has errors"));
            return Err(error.help("`rel check` shows them"));
        }
        Some(name) => {
            let Some(recipe) = found(name) else {
                let error = Error::usage(format!("there is no recipe `{name}`"));
                return Err(match suggest(name, recipes.names()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error.help("`rel recipe` shows all recipes"),
                });
            };
            let drivers = recipes.with_drivers(recipe.0);
            let text = recipe_view::text(context.output.screen, recipe, &drivers);
            (text, recipe_view::json(recipe, &drivers))
        }
    };
    match context.output.json {
        true => ui::print_json(&json),
        false => ui::print(&text),
    }
    Ok(EXIT_OK)
}
