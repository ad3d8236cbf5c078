//! Every example of recipes and their uses in `docs/` is read, so that none of them lies.

use super::*;
use crate::deploy::recipe::{parser, reader};
use kdl::KdlDocument;

/// The pages with such examples.
const PAGES: [&str; 4] = [
    include_str!("../../../docs/reference/recipe-language.md"),
    include_str!("../../../docs/reference/recipes.md"),
    include_str!("../../../docs/concepts/data.md"),
    include_str!("../../../docs/concepts/secrets.md"),
];

/// Returns the fenced `kdl` blocks of a page.
fn blocks(page: &str) -> Vec<String> {
    page.split("```kdl\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next().map(str::to_owned))
        .collect()
}

#[test]
fn every_example_is_right() {
    let blocks: Vec<String> = PAGES.iter().flat_map(|page| blocks(page)).collect();
    assert!(blocks.len() >= 30);
    for block in blocks {
        let document = KdlDocument::parse(&block).unwrap_or_else(|e| panic!("{e}\n{block}"));
        for node in document.nodes() {
            let name = node
                .get(0)
                .and_then(|v| v.as_string())
                .unwrap_or("http-check");
            if node.name().value() == "recipe" {
                let found = parser::recipe(name, &block, 0).map(drop);
                assert_eq!(found, Ok(()), "{block}");
                continue;
            }
            let mut space = Space::new(&["karl04", "karl05", "production"]);
            let mut args: Vec<(String, String)> = node
                .entries()
                .iter()
                .filter_map(|e| Some((e.name()?.value().to_owned(), reader::text_of(e)?)))
                .collect();
            let children = node.children().map_or(&[][..], KdlDocument::nodes);
            args.extend(children.iter().filter_map(|c| {
                Some((c.name().value().to_owned(), reader::text_of(c.entry(0)?)?))
            }));
            let mut words = String::from(name);
            args.retain(|(name, value)| {
                let is_own = [
                    "as",
                    "on",
                    "from",
                    "after",
                    "wraps",
                    "max-age",
                    "into-foreign",
                ]
                .contains(&name.as_str());
                if is_own {
                    words.push_str(&format!(" {name} {value}"));
                }
                !is_own
            });
            let args: Vec<(&str, &str)> =
                args.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            space.uses(&words, &args);
            space.param("branch", "branch2");
            space.axis("customer", &["osf"]);
            let need = Template::parse("wheel[{branch}]", Mode::Plain).expect("parses");
            space.environment.needs.push((need, Span::default()));
            space.project.environments.push(space.environment.clone());
            let found = space.with(|r| check_uses(r.project, r.recipes));
            assert_eq!(found, [], "{block}");
            let seen = space.with(|r| {
                let roots = BTreeMap::new();
                let jobs = world(r, &roots, None)?.jobs()?;
                let acts = |j: &UseOnHost| {
                    let steps = j.steps(crate::deploy::plan::use_on_host::RenderPhase::Symbolic)?;
                    Ok(steps.len() + j.recipe.guards.len())
                };
                jobs.iter().map(acts).sum::<Result<usize>>()
            });
            assert!(seen.is_ok_and(|count| count > 0), "{block}");
        }
    }
}
