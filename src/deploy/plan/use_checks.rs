//! Are all uses of a project right? Recipes, parameters, names and hosts. Pure.
//!
//! Called when the rest of the file is sound, so that a
//! mistake in an environment is reported with all others and before any host is asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::model::{Arg, Environment, Host, Project, Use};
use crate::core::diagnostics::{Diagnostic, Span, suggest};
use crate::core::error::{Error, Result};
use crate::core::host_range;
use crate::core::template::{Mode, Template};
use crate::deploy::plan::artifacts::{self, Refusal};
use crate::deploy::plan::axis_values::base_vars;
use crate::deploy::plan::localhost;
use crate::deploy::recipe::library::Recipes;
use crate::deploy::recipe::names::only_in_files;
use crate::deploy::recipe::{ParamKind, Recipe, RecipeParam};

/// Returns the mistakes in what environments pass to recipes.
pub fn check_uses(project: &Project, recipes: &Recipes) -> Vec<Diagnostic> {
    let environments = project.environments.iter();
    environments
        .flat_map(|environment| check_environment(project, environment, recipes))
        .collect()
}

fn check_environment(
    project: &Project,
    environment: &Environment,
    recipes: &Recipes,
) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    let mut taken = Vec::new();
    for one in &environment.uses {
        let mut checker = Checker {
            project,
            environment,
            one,
            mistakes: &mut mistakes,
        };
        checker.check(recipes);
        checker.own_directories(recipes, &mut taken);
    }
    mistakes
}

/// A directory that a use has for itself.
struct Taken<'a> {
    label: &'a str,
    arg: &'a Arg,
    hosts: Vec<&'a str>,
}

/// Finds out whether the uses of an environment are right with the values that its parameters
/// have in this call: those that may have any value could not be tried before.
pub fn check_call(
    project: &Project,
    environment: &Environment,
    params: &BTreeMap<String, String>,
    recipes: &Recipes,
) -> Result<()> {
    let mut called = environment.clone();
    for param in &mut called.params {
        if let Some(value) = params.get(&param.name) {
            param.one_of = vec![value.clone()];
        }
    }
    let Some(first) = check_environment(project, &called, recipes)
        .into_iter()
        .next()
    else {
        return Ok(());
    };
    let at = project.sources.locate(first.place);
    let error = Error::usage(first.message).note("at", at);
    Err(match first.help {
        Some(help) => error.help(help),
        None => error,
    })
}

struct Checker<'a, 'm> {
    project: &'a Project,
    environment: &'a Environment,
    one: &'a Use,
    mistakes: &'m mut Vec<Diagnostic>,
}

impl<'a> Checker<'a, '_> {
    fn check(&mut self, recipes: &Recipes) {
        // Its own mistakes are reported; what they hide is not guessed.
        if recipes.is_broken(&self.one.recipe) {
            return;
        }
        let recipe = match recipes.of_use(self.one) {
            Ok(recipe) => recipe,
            Err(mistake) => return self.mistakes.push(*mistake),
        };
        let Some(recipe) = recipe.as_deref() else {
            let message = format!("there is no recipe `{}`", self.one.recipe);
            let mistake =
                Diagnostic::new("unknown_recipe", self.one.place, message, "not a recipe");
            let known: Vec<&str> = recipes.names().collect();
            self.mistakes
                .push(match suggest(&self.one.recipe, known.iter().copied()) {
                    Some(near) => mistake.help(format!("did you mean `{near}`?")),
                    None => mistake.help(format!(
                        "available: {}; recipes of the project are in `recipes/NAME.kdl`",
                        known.join(", ")
                    )),
                });
            return;
        };
        for (name, arg) in &self.one.args {
            match recipe.param(name) {
                Some(param) => self.argument(recipe, param, arg),
                None => self.unknown_param(recipe, name, arg),
            }
        }
        if self.lacks_driver(recipe) {
            return self.hosts(recipe);
        }
        for param in &recipe.params {
            if param.default.is_none() && !self.one.args.contains_key(&param.name) {
                let message = format!("recipe `{}` needs `{}`", recipe.name, param.name);
                let mistake = Diagnostic::new("missing_parameter", self.one.place, message, "here");
                self.mistakes.push(match &param.desc {
                    Some(desc) => mistake.help(format!("`{}`: {desc}", param.name)),
                    None => mistake,
                });
            }
        }
        self.hosts(recipe);
        self.host_vars_of(recipe);
    }

    /// Values of hosts that texts of the recipe name, and that some hosts do not have.
    fn host_vars_of(&mut self, recipe: &Recipe) {
        let given = &self.one.args;
        let defaults = recipe
            .params
            .iter()
            .filter(|p| !given.contains_key(&p.name));
        let defaults =
            defaults.filter_map(|p| Template::parse(p.default.as_ref()?, Mode::Plain).ok());
        let mut names: BTreeSet<String> = defaults
            .flat_map(|text| text.names().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        names.extend(recipe.host_names.iter().cloned());
        let steps = recipe.steps.iter();
        let steps = steps.filter(|step| self.is_here(recipe, &step.if_param));
        names.extend(steps.flat_map(|step| step.host_names.iter().cloned()));
        for name in &names {
            if let Some(("host", var)) = name.split_once('.') {
                let label = format!("recipe `{}` uses `{{{name}}}`", recipe.name);
                self.host_var("host", var, self.one.place, &label);
            }
        }
    }

    /// Without its driver a recipe lacks so much that only the driver is worth a word.
    fn lacks_driver(&mut self, recipe: &Recipe) -> bool {
        let is_given = |name: &str| self.one.args.contains_key(name);
        let lacking = recipe
            .params
            .iter()
            .filter(|p| p.kind == ParamKind::Command);
        let lacking = lacking.filter(|p| p.default.is_none() && !is_given(&p.name));
        let lacking: Vec<&str> = lacking.map(|p| p.name.as_str()).collect();
        let is_lacking = match recipe.driver_param() {
            Some(param) => !is_given(&param.name) && !lacking.is_empty(),
            None => false,
        };
        if is_lacking {
            let message = format!("recipe `{}` needs a `driver`", recipe.name);
            self.mistakes.push(
                Diagnostic::new("missing_parameter", self.one.place, message, "here").help(
                    format!("or the commands that one gives: {}", lacking.join(", ")),
                ),
            );
        }
        is_lacking
    }

    fn unknown_param(&mut self, recipe: &Recipe, name: &str, arg: &Arg) {
        let message = format!("recipe `{}` has no parameter `{name}`", recipe.name);
        let mistake = Diagnostic::new("unknown_parameter", arg.place, message, "not a parameter");
        let known = recipe.params.iter().map(|p| p.name.as_str());
        self.mistakes.push(match suggest(name, known.clone()) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None => {
                let known: Vec<&str> = known.collect();
                mistake.help(format!("it has {}", known.join(", ")))
            }
        });
    }

    /// Returns whether a step with this `if` exists.
    fn is_here(&self, recipe: &Recipe, param: &Option<String>) -> bool {
        let Some(name) = param else { return true };
        match self.one.args.get(name) {
            Some(arg) => !arg.text.is_empty(),
            None => {
                let default = recipe.param(name).and_then(|p| p.default.as_ref());
                default.is_some_and(|text| !text.is_empty())
            }
        }
    }

    /// A recipe that works on a host needs one, and only then `from` is of use.
    fn hosts(&mut self, recipe: &Recipe) {
        let place = self.one.place;
        let needs_host = !recipe.facts.is_empty()
            || recipe
                .steps
                .iter()
                .any(|s| self.is_here(recipe, &s.if_param) && !s.action.is_operators());
        if needs_host && self.one.on.is_empty() {
            let message = format!("recipe `{}` works on a host", recipe.name);
            self.mistakes.push(
                Diagnostic::new("missing_host", place, message, "no `on=`")
                    .help("say where: `on=\"host-or-group\"`"),
            );
        }
        let is_here = recipe.steps.is_empty() && localhost::is_asked_here(self.one, recipe);
        if is_here && !self.one.after.is_empty() {
            let message = format!(
                "the guards of `{}` are asked on this machine before the first change",
                recipe.name
            );
            self.mistakes.push(
                Diagnostic::new("misplaced", place, message, "`after` does nothing here")
                    .help("leave `after` out, or say where they are asked: `on=\"host\"`"),
            );
        }
        if recipe.needs_from() && self.one.from.is_none() {
            let message = format!("recipe `{}` takes something from another host", recipe.name);
            self.mistakes.push(
                Diagnostic::new("missing_host", place, message, "no `from=`")
                    .help("say from where: `from=\"host\"`"),
            );
        }
    }

    /// Two uses that make things of the same names in one directory would replace them. What only
    /// a call or a host can tell is found there (`rel_own`).
    fn own_directories(&mut self, recipes: &Recipes, taken: &mut Vec<Taken<'a>>) {
        let Ok(Some(recipe)) = recipes.of_use(self.one) else {
            return;
        };
        let own = recipe.params.iter().filter(|param| param.is_own);
        let args = own.filter_map(|param| self.one.args.get(&param.name));
        for arg in args.filter(|arg| !arg.text.contains("{use}")) {
            let label = &self.one.label;
            let hosts = self.hosts_named(&self.one.on).into_iter();
            let hosts: Vec<&str> = hosts.map(|host| host.name.as_str()).collect();
            let is_shared = |other: &&Taken<'_>| {
                other.arg.text == arg.text && other.hosts.iter().any(|host| hosts.contains(host))
            };
            if let Some(other) = taken.iter().find(is_shared) {
                let message = format!("`{}` and `{label}` use the same directory", other.label);
                let mistake = Diagnostic::new("shared_directory", arg.place, message, "the same");
                self.mistakes.push(
                    mistake
                        .secondary(other.arg.place, format!("of `{}`", other.label))
                        .help("each would replace the files of the other: give each its own"),
                );
            }
            taken.push(Taken { label, arg, hosts });
        }
    }

    fn argument(&mut self, recipe: &Recipe, param: &RecipeParam, arg: &Arg) {
        let kind = param.kind;
        match kind {
            ParamKind::Artifact => return self.artifact(recipe, param, arg),
            // Found, or it would not have been read together with the recipe.
            ParamKind::Driver => return,
            ParamKind::Secret => return self.secret(&param.name, arg),
            ParamKind::Text | ParamKind::Command => {}
        }
        let mode = match kind {
            ParamKind::Command => Mode::Shell,
            _ => Mode::Plain,
        };
        let template = match Template::parse(&arg.text, mode) {
            Ok(template) => template,
            Err(error) => {
                self.mistakes.push(
                    Diagnostic::new("template", arg.place, error.to_string(), "here")
                        .help(error.help()),
                );
                return;
            }
        };
        for used in template.names() {
            if !self.is_known(used, param) {
                if recipe
                    .param(used)
                    .is_some_and(|p| p.kind == ParamKind::Secret)
                {
                    let (message, help) = only_in_files(used);
                    let mistake = Diagnostic::new("unknown_name", arg.place, message, "here");
                    self.mistakes.push(mistake.help(help.unwrap_or_default()));
                    continue;
                }
                self.unknown_name(used, recipe, param, arg);
            } else if let Some((prefix, var)) = used.split_once('.') {
                self.host_var(prefix, var, arg.place, "not for every host");
            }
        }
    }

    /// A value of a host that some of the hosts do not have.
    fn host_var(&mut self, prefix: &str, var: &str, place: Span, label: &str) {
        let hosts = match prefix {
            // Every host has these.
            _ if ["name", "root"].contains(&var) => return,
            "host" => self.hosts_named(&self.one.on),
            "from" => self.hosts_named(self.one.from.as_slice()),
            _ => return,
        };
        let is_lacking = |host: &&&Host| !host.vars.contains_key(var);
        let lacking: Vec<&&Host> = hosts.iter().filter(is_lacking).collect();
        let Some(first) = lacking.first() else { return };
        let message = match lacking.len() {
            1 => format!("host `{}` has no `{var}`", first.name),
            count => format!("{count} of {} hosts have no `{var}`", hosts.len()),
        };
        let own = first.vars.keys().map(String::as_str);
        let help = match suggest(var, own.chain(["name", "root"])) {
            Some(near) => format!("did you mean `{{{prefix}.{near}}}`?"),
            None => format!(
                "give it one: `host \"{}\" … {{ var \"{var}\" \"…\"; }}`",
                first.name
            ),
        };
        self.mistakes.push(
            Diagnostic::new("unknown_name", place, message, label)
                .secondary(first.place, format!("`{}` has none", first.name))
                .help(help),
        );
    }

    /// Returns the hosts that texts name, as far as that is known without a call: not what depends
    /// on parameters and axes, nor who has a role.
    fn hosts_named(&self, texts: &[Template]) -> Vec<&'a Host> {
        let params = self.environment.params.iter().map(|p| &p.name);
        let axes = self.environment.axes.iter().map(|a| &a.name);
        let of_a_call: Vec<&String> = params.chain(axes).collect();
        let is_lasting =
            |text: &&Template| !text.names().any(|n| of_a_call.iter().any(|c| *c == n));
        let vars = base_vars(self.project, &BTreeMap::new(), &[]);
        let texts = texts.iter().filter(is_lasting);
        let words = texts.filter_map(|text| text.render_words(&|n| vars.get(n).cloned()).ok());
        let names = words
            .flatten()
            .filter_map(|word| host_range::expand(&word.to_string_lossy()).ok());
        let hosts = names
            .flatten()
            .filter_map(|name| self.project.hosts_named(&name));
        hosts.flatten().collect()
    }

    fn unknown_name(&mut self, used: &str, recipe: &Recipe, param: &RecipeParam, arg: &Arg) {
        let message = format!("`{{{used}}}` is not known here");
        let mistake = Diagnostic::new("unknown_name", arg.place, message, "here");
        let no_file = self.no_file(used);
        let known = self.known(param);
        let help = match suggest(used, known.iter().map(String::as_str)) {
            _ if no_file.is_some() => "that target has no `outputs`, and so no digest".into(),
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None if recipe.has_name(used) => not_given(recipe, param),
            None => "declare it with `var` or `param`, or write `{{` for a brace".into(),
        };
        self.mistakes.push(mistake.help(help));
    }

    /// Returns the needed target that makes no file, if a name is its digest.
    fn no_file(&self, used: &str) -> Option<String> {
        let (base, _) = used.rsplit_once('.')?;
        let ids = self.project.graph.find(base)?;
        artifacts::has_files(self.project, *ids.first()?).err()?;
        Some(base.to_owned())
    }

    fn artifact(&mut self, recipe: &Recipe, param: &RecipeParam, arg: &Arg) {
        let name = &param.name;
        let reference = match Template::parse(arg.target_text(), Mode::Plain) {
            Ok(reference) => reference,
            Err(error) => {
                let mistake = Diagnostic::new("template", arg.place, error.to_string(), "here");
                return self.mistakes.push(mistake.help(error.help()));
            }
        };
        if let Some(used) = reference.names().find(|used| !self.is_known(used, param)) {
            return self.unknown_name(used, recipe, param, arg);
        }
        let is_put = artifacts::is_put(recipe, name);
        let (project, environment) = (self.project, self.environment);
        let checked = artifacts::check(project, environment, self.one, &reference, is_put);
        if let Err(refusal) = checked {
            self.refuse(name, arg, refusal);
        }
    }

    /// Says why an argument stands for no artifact.
    fn refuse(&mut self, name: &str, arg: &Arg, refusal: Refusal) {
        let mistake = |message: String, label: &str| {
            Diagnostic::new("unknown_target", arg.place, message, label)
        };
        self.mistakes.push(match refusal {
            Refusal::NotNeeded(target, values) => {
                let base = artifacts::base(&target);
                let needs = self.needs();
                let message = format!(
                    "`{name}` takes a target that the environment needs, not `{}`",
                    arg.text
                );
                let label = match values.as_str() {
                    "" => String::from("not needed here"),
                    values => format!("not needed with `{values}`"),
                };
                let mistake = mistake(message, &label);
                match suggest(base, needs.iter().map(String::as_str)) {
                    Some(near) if near != base => {
                        mistake.help(format!("did you mean `{{{near}}}`?"))
                    }
                    _ => mistake.help(format!("add `needs \"{target}\"` to the environment")),
                }
            }
            Refusal::NoInstance(target) => {
                let base = artifacts::base(&target);
                let ids = self.project.graph.find(base).unwrap_or_default();
                let known = ids.iter().map(|id| self.project.graph.name(*id));
                let mistake = mistake(format!("there is no target `{target}`"), "no instance");
                match suggest(&target, known) {
                    Some(near) => mistake.help(format!("did you mean `{{{near}}}`?")),
                    None => mistake.help(format!("`{{{base}}}` stands for all its instances")),
                }
            }
            Refusal::NoFile(target, members) => {
                let message = format!("`{target}` has no file");
                match members.as_slice() {
                    [] => mistake(message, "it has no `outputs`")
                        .help("name a target that makes a file"),
                    _ => mistake(message, "it is a group: it has no `run`").help(format!(
                        "name one that it needs, and add it to the `needs` of the environment: {}",
                        members.join(", ")
                    )),
                }
            }
            Refusal::Twins(first, second) => mistake(
                format!("`{first}` and `{second}` would be installed under the same name"),
                "one artifact",
            )
            .help("give the outputs different names, or name one instance: `{target[value]}`"),
        });
    }

    fn secret(&mut self, name: &str, arg: &Arg) {
        let own = self.environment.secrets.keys();
        let known: Vec<&str> = own
            .chain(self.project.secrets.keys())
            .map(String::as_str)
            .collect();
        if known.contains(&arg.text.as_str()) {
            return;
        }
        let message = format!("`{name}` takes the name of a secret");
        let mistake = Diagnostic::new(
            "unknown_secret",
            arg.place,
            message,
            "no secret has this name",
        );
        self.mistakes.push(match suggest(&arg.text, known) {
            Some(near) => mistake.help(format!("did you mean `{near}`?")),
            None => mistake.help("declare it: `secret \"NAME\" command=\"pass show …\"`"),
        });
    }

    /// Base names of the needed targets.
    fn needs(&self) -> Vec<String> {
        self.environment
            .needs
            .iter()
            .map(|(need, _)| {
                let text = need.source();
                text.split('[').next().unwrap_or(&text).to_owned()
            })
            .collect()
    }

    fn is_known(&self, name: &str, param: &RecipeParam) -> bool {
        let (head, tail) = name.split_once('.').unwrap_or((name, ""));
        let is_artifact = |tail: &str| matches!(tail, "sha256" | "id" | "name");
        let is_needed = |(target, tail): (&str, &str)| {
            is_artifact(tail) && self.needs().iter().any(|n| n == target)
        };
        self.known(param).iter().any(|k| k == name)
            || (head == "host" && !self.one.on.is_empty() && !tail.is_empty())
            || (head == "from" && self.one.from.is_some() && !tail.is_empty())
            || (name.rsplit_once('.').is_some_and(is_needed) && self.no_file(name).is_none())
            || (param.kind == ParamKind::Command && head == "notes" && !tail.is_empty())
    }

    fn known(&self, param: &RecipeParam) -> Vec<String> {
        let mut known: Vec<String> = ["project", "environment", "version", "use"]
            .map(String::from)
            .to_vec();
        known.extend(self.project.vars.keys().cloned());
        known.extend(self.environment.params.iter().map(|p| p.name.clone()));
        known.extend(self.environment.axes.iter().map(|a| a.name.clone()));
        if param.kind == ParamKind::Command {
            known.extend(param.gives.iter().cloned());
            known.push("run-id".into());
        }
        known
    }
}

/// Says which names of a recipe a text may use, for one that uses another.
fn not_given(recipe: &Recipe, param: &RecipeParam) -> String {
    let given: Vec<String> = param
        .gives
        .iter()
        .map(|name| format!("`{{{name}}}`"))
        .collect();
    match (param.kind, given.as_slice()) {
        (ParamKind::Command, []) | (ParamKind::Text | ParamKind::Artifact, _) => format!(
            "it is a name of recipe `{}`, which gives none of its names to `{}`",
            recipe.name, param.name
        ),
        _ => format!(
            "it is a name of recipe `{}`, which gives `{}` only {}",
            recipe.name,
            param.name,
            given.join(", ")
        ),
    }
}
