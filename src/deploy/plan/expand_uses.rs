//! An environment and its parameters -> [`UseOnHost`]s. Pure.
//!
//! A `use` becomes one job for each value of each axis that its texts mention and
//! for each host it goes to, in the order written; in a rollout wave by wave.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::model::{
    Arg, Artifact, Axis, Environment, Host, LogDecl, Project, Role, Rollout, Use,
};
use crate::core::error::{Error, ErrorKind, Result};
use crate::core::host_range;
use crate::core::template::{Mode, Template, Value};
use crate::deploy::plan::Roles;
use crate::deploy::plan::artifacts;
use crate::deploy::plan::axis_values::{axes_named, base_vars, combinations};
use crate::deploy::plan::guards;
use crate::deploy::plan::localhost;
use crate::deploy::plan::promotion::Promoted;
use crate::deploy::plan::secret::SecretValue;
use crate::deploy::plan::use_on_host::{ArgValue, UseOnHost};
use crate::deploy::plan::waves::{self, Wave};
use crate::deploy::protocol::words::NOT_MADE;
use crate::deploy::protocol::words::artifact_names;
use crate::deploy::recipe::library::Recipes;
use crate::deploy::recipe::{ParamKind, Recipe, RecipeParam};

/// Everything that texts may depend on.
pub struct PlanContext<'a> {
    /// The Releasefile.
    pub project: &'a Project,
    /// The environment.
    pub environment: &'a Environment,
    /// Values of its parameters.
    pub params: &'a BTreeMap<String, String>,
    /// The project's version.
    pub version: Option<&'a str>,
    /// Finds the files of needed targets, as one artifact; `None` until all are made.
    pub artifacts: &'a dyn Fn(&[String]) -> Option<Artifact>,
    /// All recipes.
    pub recipes: &'a Recipes,
    /// Values of the secrets that are used.
    pub secrets: &'a BTreeMap<String, SecretValue>,
    /// Absolute roots of the hosts, by name.
    pub roots: &'a BTreeMap<String, String>,
    /// Which of the hosts that are held back move all the same.
    pub promoted: &'a Promoted,
    /// Who has which role; `None` before any host was asked: then all that may have one.
    pub holders: Option<&'a Roles>,
}

type Scope = BTreeMap<String, Value>;

impl PlanContext<'_> {
    /// Returns all jobs, in the order in which they are done.
    pub fn jobs(&self) -> Result<Vec<UseOnHost>> {
        let mut jobs = Vec::new();
        for together in self
            .environment
            .uses
            .chunk_by(|a, b| a.rollout == b.rollout)
        {
            let rollout = together.first().and_then(|one| one.rollout);
            match rollout.and_then(|index| Some((index, self.environment.rollouts.get(index)?))) {
                Some((index, rollout)) => self.rollout(index, rollout, together, &mut jobs)?,
                None => {
                    for one in together {
                        self.jobs_of(one, None, &mut jobs)?;
                    }
                }
            }
        }
        Ok(jobs)
    }

    /// Adds the jobs of a rollout: all uses on the first wave, then all on the next; what is
    /// held back comes last.
    fn rollout(
        &self,
        index: usize,
        rollout: &Rollout,
        uses: &[Use],
        jobs: &mut Vec<UseOnHost>,
    ) -> Result<()> {
        let Some(first) = uses.first() else {
            return Ok(());
        };
        let scope = self.base(&[]);
        let mut hosts = self.hosts_of(first, &rollout.on, &scope)?;
        let held = self.hosts_of(first, &rollout.hold_back, &scope)?;
        let is_held = |host: &&Host| {
            held.iter().any(|h| h.name == host.name) && !self.promoted.is_promoted(&host.name)
        };
        let held: Vec<&Host> = hosts.iter().copied().filter(|h| is_held(h)).collect();
        hosts.retain(|host| !is_held(host));
        let waves = waves::waves(hosts, &rollout.serial);
        let of = waves.len();
        for (number, hosts) in waves.into_iter().chain([held]).enumerate() {
            // The last are those that stay.
            let number = if number == of { 0 } else { number + 1 };
            for one in uses {
                let wave = Wave {
                    rollout: index,
                    number,
                    of,
                    is_gate: one.is_gate,
                };
                self.jobs_of(one, Some((&wave, &hosts)), jobs)?;
            }
        }
        Ok(())
    }

    /// Adds the jobs of one use: on its hosts, or on those of a wave.
    fn jobs_of(
        &self,
        one: &Use,
        wave: Option<(&Wave, &[&Host])>,
        jobs: &mut Vec<UseOnHost>,
    ) -> Result<()> {
        let recipe = self.recipes.of_use(one);
        let recipe = recipe.map_err(|m| wrong(one, m.message))?.ok_or_else(|| {
            wrong(one, format!("there is no recipe `{}`", one.recipe))
                .help("`rel check` lists the errors of the Releasefile")
        })?;
        let recipe = guards::asked_behind(one, &recipe).unwrap_or(recipe);
        let axes = mentioned_axes(one, &self.environment.axes);
        for values in combinations(&axes) {
            let scope = self.base(&values);
            let mut label = one.label.clone();
            if !values.is_empty() {
                let texts: Vec<&str> = values.iter().map(|(_, v)| v.as_str()).collect();
                label.push_str(&format!("[{}]", texts.join(",")));
            }
            let from = match &one.from {
                Some(template) => Some(self.one_host(one, template, &scope)?),
                None => None,
            };
            let hosts: Vec<Option<&Host>> = match wave {
                Some((_, hosts)) => hosts.iter().copied().map(Some).collect(),
                None if one.on.is_empty() => match localhost::is_asked_here(one, &recipe) {
                    true => vec![Some(localhost::this_machine())],
                    false => vec![None],
                },
                // None of them where no host has a role.
                None => {
                    let hosts = self.hosts_of(one, &one.on, &scope)?;
                    hosts.into_iter().map(Some).collect()
                }
            };
            for host in hosts {
                let place = UseHosts {
                    host,
                    from,
                    scope: &scope,
                };
                let mut job = self.job(one, &recipe, &label, &place)?;
                job.wave = wave.map(|(wave, _)| wave.clone());
                jobs.push(job);
            }
        }
        Ok(())
    }

    /// Returns the hosts of all uses, by name, without looking at anything else.
    pub fn hosts(&self) -> Result<BTreeMap<String, Host>> {
        let mut found = BTreeMap::new();
        for one in &self.environment.uses {
            for values in combinations(&mentioned_axes(one, &self.environment.axes)) {
                let scope = self.base(&values);
                for host in self.hosts_of(one, &one.on, &scope)? {
                    found.insert(host.name.clone(), host.clone());
                }
                for host in self.hosts_of(one, one.from.as_slice(), &scope)? {
                    found.insert(host.name.clone(), host.clone());
                }
            }
        }
        for role in &self.environment.roles {
            for host in self.candidates(role)? {
                found.insert(host.name.clone(), host.clone());
            }
        }
        Ok(found)
    }

    /// Returns the hosts whose logs are reported: those of all uses, and those that `log` nodes name.
    pub fn hosts_with_logs(&self) -> Result<BTreeMap<String, Host>> {
        let mut found = self.hosts()?;
        for log in &self.environment.logs {
            let names = log.on.iter().flat_map(Template::names);
            for values in combinations(&axes_named(names, &self.environment.axes)) {
                let scope = self.base(&values);
                for template in &log.on {
                    let wrong = |message: String| wrong_log(log, message);
                    for host in self.role_members(template, &scope, &wrong)? {
                        found.insert(host.name.clone(), host.clone());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the hosts that may have a role.
    pub(in crate::deploy) fn candidates(&self, role: &Role) -> Result<Vec<&Host>> {
        let wrong = |message: String| {
            Error::new(ErrorKind::Releasefile, message).note("role", role.name.clone())
        };
        let scope = self.base(&[]);
        let mut found: Vec<&Host> = Vec::new();
        for template in &role.on {
            for host in self.role_members(template, &scope, &wrong)? {
                if !found.iter().any(|f| f.name == host.name) {
                    found.push(host);
                }
            }
        }
        Ok(found)
    }

    /// Returns the names that a role's probe may use on a host.
    pub(in crate::deploy) fn names_on(&self, host: &Host) -> BTreeMap<String, Value> {
        let mut names = self.base(&[]);
        self.add_host("host", host, &mut names);
        names
    }

    /// Returns whether guards of some use are asked on this machine.
    pub fn asks_here(&self) -> Result<bool> {
        for one in &self.environment.uses {
            let recipe = self.recipes.of_use(one);
            let recipe = recipe.map_err(|m| wrong(one, m.message))?;
            if recipe.is_some_and(|recipe| localhost::is_asked_here(one, &recipe)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the files that the environment's `log` nodes name on a host.
    pub fn logs(&self, host: &Host) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for log in &self.environment.logs {
            let wrong = |message: String| wrong_log(log, message);
            let names = log.on.iter().chain([&log.path]).flat_map(Template::names);
            for values in combinations(&axes_named(names, &self.environment.axes)) {
                let mut scope = self.base(&values);
                let mut is_here = log.on.is_empty();
                for template in &log.on {
                    let members = self.role_members(template, &scope, &wrong)?;
                    is_here |= members.iter().any(|h| h.name == host.name);
                }
                if is_here {
                    self.add_host("host", host, &mut scope);
                    let path = log.path.render(&|name| scope.get(name).cloned());
                    let path = path.map_err(|e| wrong(e.to_string()).help(e.help()))?;
                    paths.push(path.to_string_lossy().into_owned());
                }
            }
        }
        Ok(paths)
    }

    /// Returns the names of all hosts that some rollout holds back.
    pub fn held_back(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (index, rollout) in self.environment.rollouts.iter().enumerate() {
            let mut uses = self.environment.uses.iter();
            if let Some(one) = uses.find(|one| one.rollout == Some(index)) {
                let hosts = self.hosts_of(one, &rollout.hold_back, &self.base(&[]))?;
                names.extend(hosts.into_iter().map(|host| host.name.clone()));
            }
        }
        Ok(names)
    }

    /// Names that every text of the environment has.
    fn base(&self, axes: &[(String, String)]) -> Scope {
        let mut scope = base_vars(self.project, self.params, axes);
        scope.insert("project".into(), Value::from(self.project.name.as_str()));
        let environment = self.environment.name.as_str();
        scope.insert("environment".into(), Value::from(environment));
        if let Some(version) = self.version {
            scope.insert("version".into(), Value::from(version));
        }
        let needed = artifacts::needed(self.environment, &scope);
        let bases: BTreeSet<&str> = needed.iter().map(|name| artifacts::base(name)).collect();
        for base in bases {
            let names = artifacts::targets(self.environment, base, &scope);
            for (tail, value) in artifact_names((self.artifacts)(&names).as_ref()) {
                scope.insert(format!("{base}.{tail}"), value);
            }
        }
        scope
    }

    fn hosts_of(&self, one: &Use, on: &[Template], scope: &Scope) -> Result<Vec<&Host>> {
        let mut found: Vec<&Host> = Vec::new();
        for template in on {
            for host in self.hosts_named(one, template, scope)? {
                if !found.iter().any(|f| f.name == host.name) {
                    found.push(host);
                }
            }
        }
        Ok(found)
    }

    fn one_host(&self, one: &Use, template: &Template, scope: &Scope) -> Result<&Host> {
        match self.hosts_named(one, template, scope)?.as_slice() {
            [host] => Ok(host),
            hosts => Err(wrong(
                one,
                format!("`from` must name one host, and names {}", hosts.len()),
            )),
        }
    }

    fn hosts_named(&self, one: &Use, template: &Template, scope: &Scope) -> Result<Vec<&Host>> {
        self.role_members(template, scope, &|message| wrong(one, message))
    }

    /// Returns the hosts that a text names; `wrong` makes the error of what names none.
    fn role_members(
        &self,
        template: &Template,
        scope: &Scope,
        wrong: &dyn Fn(String) -> Box<Error>,
    ) -> Result<Vec<&Host>> {
        let words = template
            .render_words(&|n| scope.get(n).cloned())
            .map_err(|e| wrong(e.to_string()).note("text", template.source()))?;
        let mut found = Vec::new();
        for word in words {
            let names = host_range::expand(&word.to_string_lossy()).map_err(|bad| {
                let error = wrong(bad.message);
                match bad.help {
                    Some(help) => error.help(help),
                    None => error,
                }
            })?;
            for name in names {
                let role = self.environment.roles.iter().find(|r| r.name == name);
                match (role, self.holders) {
                    (Some(_), Some(holders)) => {
                        let holders = holders.get(&name).into_iter().flatten();
                        found.extend(holders.filter_map(|host| self.project.hosts.get(host)));
                    }
                    (Some(role), None) => found.extend(self.candidates(role)?),
                    (None, _) => {
                        let hosts = self.project.hosts_named(&name);
                        found.extend(
                            hosts.ok_or_else(|| {
                                wrong(format!("there is no host or group `{name}`"))
                            })?,
                        );
                    }
                }
            }
        }
        Ok(found)
    }

    fn job(
        &self,
        one: &Use,
        recipe: &std::sync::Arc<Recipe>,
        label: &str,
        seats: &UseHosts<'_>,
    ) -> Result<UseOnHost> {
        let mut caller = seats.scope.clone();
        let mut built_in = Scope::new();
        for name in ["project", "environment", "version"] {
            if let Some(value) = caller.get(name) {
                built_in.insert(name.into(), value.clone());
            }
        }
        built_in.insert("use".into(), Value::from(label));
        for (prefix, host) in [("host", seats.host), ("from", seats.from)] {
            if let Some(host) = host {
                self.add_host(prefix, host, &mut built_in);
            }
        }
        caller.extend(built_in.clone());
        let mut args = BTreeMap::new();
        for param in &recipe.params {
            let bound = match one.args.get(&param.name) {
                Some(arg) => self.resolve_arg(one, recipe, param, arg, &caller)?,
                // A default is the recipe's own text: it sees what stands before it.
                None => match (&param.default, param.kind) {
                    (Some(text), ParamKind::Command) => ArgValue::Default(text.clone()),
                    (Some(text), _) => {
                        let mut scope = built_in.clone();
                        for (name, bound) in &args {
                            if let ArgValue::Text(text) = bound {
                                let text: &String = text;
                                scope.insert(String::clone(name), Value::from(text.as_str()));
                            }
                        }
                        ArgValue::Text(render(one, text, &scope)?)
                    }
                    (None, _) => {
                        let message = format!("recipe `{}` needs `{}`", recipe.name, param.name);
                        return Err(wrong(one, message));
                    }
                },
            };
            args.insert(param.name.clone(), bound);
        }
        let job = UseOnHost {
            label: crate::deploy::protocol::journal::column(label),
            recipe: recipe.clone(),
            host: seats.host.map(|h| h.name.clone()),
            from: seats.from.map(|h| h.name.clone()),
            after: one.after.clone(),
            wraps: one.wraps.clone(),
            wave: None,
            max_age: one.max_age,
            into_foreign: one.into_foreign,
            caller,
            built_in,
            args,
            missing: self.missing(one, seats.scope),
            place: one.place,
        };
        Ok(job)
    }

    /// Returns a needed target that texts of a use name and that is not made yet.
    fn missing(&self, one: &Use, scope: &Scope) -> Option<String> {
        let made = |name: &str| scope.get(name) != Some(&Value::from(NOT_MADE));
        let names: Vec<String> = one.args.values().flat_map(Arg::names).collect();
        let open = names.iter().find(|name| !made(name))?;
        open.rsplit_once('.').map(|(target, _)| target.to_owned())
    }

    fn resolve_arg(
        &self,
        one: &Use,
        recipe: &Recipe,
        param: &RecipeParam,
        arg: &Arg,
        caller: &Scope,
    ) -> Result<ArgValue> {
        Ok(match param.kind {
            ParamKind::Text => ArgValue::Text(render(one, &arg.text, caller)?),
            ParamKind::Driver => ArgValue::Text(arg.text.clone()),
            ParamKind::Command => ArgValue::Command(arg.text.clone()),
            ParamKind::Secret => match self.secrets.get(&arg.text) {
                Some(secret) => ArgValue::Secret(secret.clone()),
                None => return Err(wrong(one, format!("there is no secret `{}`", arg.text))),
            },
            ParamKind::Artifact => {
                let target = render(one, arg.target_text(), caller)?;
                let names = artifacts::targets(self.environment, &target, caller);
                if names.is_empty() {
                    let message = format!("the environment does not need `{target}`");
                    return Err(wrong(one, message).help(format!("add `needs \"{target}\"`")));
                }
                let artifact = (self.artifacts)(&names);
                let is_put = artifacts::is_put(recipe, &param.name);
                if let Some((first, second)) = artifact.iter().find_map(artifacts::twins)
                    && is_put
                {
                    let [first, second] = [first, second].map(|path| path.display());
                    let message = format!("two files of `{target}` have the same name");
                    return Err(wrong(one, message)
                        .note("first", first.to_string())
                        .note("second", second.to_string())
                        .help("give the outputs different names, or name one instance"));
                }
                ArgValue::Artifact(target, artifact)
            }
        })
    }

    fn add_host(&self, prefix: &str, host: &Host, scope: &mut Scope) {
        let root = self.roots.get(&host.name).unwrap_or(&host.root);
        for (name, value) in &host.vars {
            scope.insert(format!("{prefix}.{name}"), Value::from(value.as_str()));
        }
        let name = host.name.as_str();
        scope.insert(format!("{prefix}.name"), Value::from(name));
        scope.insert(format!("{prefix}.root"), Value::from(root.as_str()));
    }
}

fn wrong_log(log: &LogDecl, message: String) -> Box<Error> {
    Error::new(ErrorKind::Releasefile, message).note("log", log.path.source())
}

struct UseHosts<'a> {
    host: Option<&'a Host>,
    from: Option<&'a Host>,
    scope: &'a Scope,
}

fn wrong(one: &Use, message: impl Into<String>) -> Box<Error> {
    Error::new(ErrorKind::Releasefile, message).note("use", one.label.clone())
}

fn render(one: &Use, text: &str, scope: &Scope) -> Result<String> {
    let refuse = |e: crate::core::template::TemplateError| {
        wrong(one, e.to_string()).note("text", text).help(e.help())
    };
    let template = Template::parse(text, Mode::Plain).map_err(refuse)?;
    let rendered = template
        .render(&|n| scope.get(n).cloned())
        .map_err(refuse)?;
    Ok(rendered.to_string_lossy().into_owned())
}

/// Returns the targets that an environment needs with these parameters: each `needs` once
/// for every value of the axes that it names.
pub fn needed_targets(
    project: &Project,
    environment: &Environment,
    params: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (template, place) in &environment.needs {
        let is_named = |axis: &&Axis| template.names().any(|n| n == axis.name);
        let axes: Vec<&Axis> = environment.axes.iter().filter(is_named).collect();
        for values in combinations(&axes) {
            let scope = base_vars(project, params, &values);
            let name = template.render(&|n| scope.get(n).cloned()).map_err(|e| {
                Error::new(ErrorKind::Releasefile, e.to_string())
                    .note("at", project.sources.locate(*place))
                    .help(e.help())
            })?;
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Returns the axes that any text of a use mentions.
fn mentioned_axes<'a>(one: &Use, axes: &'a [Axis]) -> Vec<&'a Axis> {
    let args: Vec<String> = one.args.values().flat_map(Arg::names).collect();
    let hosts = one.on.iter().chain(&one.from).flat_map(Template::names);
    axes_named(hosts.chain(args.iter().map(String::as_str)), axes)
}
