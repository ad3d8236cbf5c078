//! Names are lexical: a variable of the Releasefile never means anything in a recipe's own text.

use super::*;
use crate::deploy::plan::expand_uses::PlanContext;
use crate::deploy::plan::promotion::Promoted;
use crate::deploy::plan::use_on_host::RenderPhase;
use crate::deploy::recipe::library::DRIVERS;
use crate::deploy::recipe::{ParamKind, Recipe};

/// What a hostile variable says: no text of a recipe may have it.
const HOSTILE: &str = "HOSTILE";

/// Gives a use all that a recipe, read with `driver`, wants: each command mentions all names that
/// it is given.
fn give(space: &mut Space, recipe: &Recipe, driver: &str) {
    let mut args = vec![("driver".to_owned(), driver.to_owned())];
    args.retain(|_| !driver.is_empty());
    let open = recipe.params.iter().filter(|param| match param.kind {
        ParamKind::Command => param.default.is_none() || !param.gives.is_empty(),
        _ => param.default.is_none(),
    });
    for param in open {
        let text = match param.kind {
            // What looks like an address, for recipes that want one.
            ParamKind::Text => format!("127.0.0.1:{}", 8000 + args.len()),
            ParamKind::Artifact => "{wheel}".to_owned(),
            ParamKind::Command => {
                let given = param.gives.iter().map(|name| format!("{{{name}}}"));
                format!("echo {}", given.collect::<Vec<_>>().join(" "))
            }
            ParamKind::Driver | ParamKind::Secret => continue,
        };
        args.push((param.name.clone(), text));
    }
    let args: Vec<(&str, &str)> = args.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    space.uses(&format!("{} as one on a from b", recipe.name), &args);
}

/// Returns all final texts of the only use, as a host that answers would be given them.
fn texts(space: &Space) -> String {
    space.with(|request| {
        let world = PlanContext {
            project: request.project,
            environment: request.environment,
            params: &request.params,
            version: Some("1.0"),
            artifacts: request.artifacts,
            recipes: request.recipes,
            secrets: request.secrets,
            roots: &BTreeMap::new(),
            promoted: &Promoted::None,
            holders: None,
        };
        let jobs = world.jobs().unwrap_or_else(|e| panic!("{e}"));
        let [job] = jobs.as_slice() else {
            panic!(
                "there is one use, of one recipe, on one host: {}",
                jobs.len()
            );
        };
        let facts = job.recipe.facts.iter();
        let facts = facts.map(|fact| (fact.name.clone(), format!("fact-{}", fact.name)));
        let late = RenderPhase::Known {
            run: "run1",
            facts: &facts.collect(),
            notes: &BTreeMap::new(),
        };
        format!(
            "{:#?}\n{:#?}\n{:#?}\n{:#?}",
            job.facts().unwrap_or_else(|e| panic!("{e}")),
            job.guards().unwrap_or_else(|e| panic!("{e}")),
            job.steps(RenderPhase::Symbolic)
                .unwrap_or_else(|e| panic!("{e}")),
            job.steps(late).unwrap_or_else(|e| panic!("{e}")),
        )
    })
}

#[test]
fn no_variable_reaches_the_text_of_a_shipped_recipe_or_driver() {
    let (recipes, _) = Recipes::load(None).expect("loads");
    let mut tried = 0;
    for name in recipes.names() {
        let base = recipes.get(name).expect("is there").clone();
        let drivers = match base.driver_param() {
            Some(_) => DRIVERS.iter().map(|(driver, _)| *driver).collect(),
            None => vec![""],
        };
        for driver in drivers {
            let mut space = Space::new(&["a", "b"]);
            space.artifact("wheel", "w.whl", "wheel");
            let wheel = Template::parse("wheel", Mode::Plain).expect("parses");
            space.environment.needs = vec![(wheel, Span::default())];
            // Once for the driver's parameters: what reads as one recipe has them all.
            let named = [("driver", driver)];
            let one = match driver {
                "" => base.clone(),
                _ => {
                    space.uses(&format!("{name} as one on a"), &named);
                    let one = space.environment.uses.pop().expect("one");
                    recipes.of_use(&one).expect("fits").expect("is there")
                }
            };
            give(&mut space, &one, driver);
            let plain = texts(&space);
            let params = one.params.iter().map(|param| &param.name);
            let lets = one.lets.iter().map(|derived| &derived.name);
            let facts = one.facts.iter().map(|fact| &fact.name);
            let built_in = ["use", "run-id", "project", "environment", "version", "host"];
            let built_in = built_in.map(String::from);
            for taken in params.chain(lets).chain(facts).chain(&built_in) {
                let hostile = vec![HOSTILE.to_owned()];
                space.project.vars.insert(taken.clone(), hostile);
            }
            assert_eq!(plain, texts(&space), "{name} {driver}");
            assert!(!plain.contains(HOSTILE), "{name} {driver}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");
}

const RECIPE: &str = r#"
    param "word" default="{host.port}"
    param "mine" type="command" default="echo {word} {place}"
    param "yours" type="command" gives="place"
    let "place" "the-place"
    step "one" { run "eval {mine}; eval {yours}" }
    step "two" { run "{yours}" }
    step "three" { run "{mine}" }
"#;

#[test]
fn the_text_of_a_use_sees_the_releasefile_and_what_it_is_given() {
    let mut space = Space::new(&["a"]);
    space.recipe("r", RECIPE);
    for name in ["word", "place", "mine"] {
        let value = vec![format!("var-{name}")];
        space.project.vars.insert(name.into(), value);
    }
    space.uses("r as one on a", &[("yours", "echo {word} {place} {mine}")]);
    let text = texts(&space);
    let runs = text.lines().filter(|line| line.contains("echo"));
    let mut runs: Vec<&str> = runs.map(str::trim).collect();
    let known = runs.split_off(runs.len() / 2);
    assert_eq!(runs, known, "a symbolic text and a final one");
    insta::assert_snapshot!(known.join("\n"), @r#"
    "eval 'echo '\\''8080'\\'' '\\''the-place'\\'''; eval 'echo '\\''var-word'\\'' '\\''the-place'\\'' '\\''var-mine'\\'''",
    "echo 'var-word' 'the-place' 'var-mine'",
    "echo '8080' 'the-place'",
    "#);
}

#[test]
fn a_name_that_a_recipe_does_not_give_is_a_mistake() {
    let mut space = Space::new(&["a"]);
    space.recipe("r", RECIPE);
    space.uses("r as one on a", &[("yours", "echo {word}")]);
    space.uses(
        "r as two on a",
        &[("word", "{place}"), ("yours", "echo {plaec}")],
    );
    space.project.environments.push(space.environment.clone());
    let found = space.with(|r| check_uses(r.project, r.recipes));
    let text = found.iter().map(|m| {
        let help = m.help.as_deref().unwrap_or("");
        format!("{}: {} ({help})", m.code, m.message)
    });
    insta::assert_snapshot!(text.collect::<Vec<_>>().join("\n"), @"
    unknown_name: `{word}` is not known here (it is a name of recipe `r`, which gives `yours` only `{place}`)
    unknown_name: `{place}` is not known here (it is a name of recipe `r`, which gives none of its names to `word`)
    unknown_name: `{plaec}` is not known here (did you mean `{place}`?)
    ");
}
