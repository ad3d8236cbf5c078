//! `rel recipe`: which recipes there are, and what one of them takes and does; and the page that
//! says the same.

use std::path::Path;

use insta::assert_snapshot;
use regex::Regex;

use crate::space::Space;

#[test]
fn without_a_project_the_shipped_recipes_are_listed() {
    let space = Space::empty();
    let told = space.run(["recipe"]).ok().stdout;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).expect("lists") {
        let path = entry.expect("lists").path();
        let text = std::fs::read_to_string(&path).expect("reads");
        let name = path.file_stem().expect("a name").to_string_lossy();
        let is_recipe = text.contains(&format!("recipe \"{name}\""));
        let is_listed = told.lines().any(|l| l.split(' ').next() == Some(&*name));
        assert_eq!(is_listed, is_recipe, "{name}: {told}");
        count += usize::from(is_recipe);
    }
    assert_eq!(told.lines().count(), count + 1, "{told}");
}

#[test]
fn a_recipe_is_described() {
    let space = Space::empty();
    assert_snapshot!(space.run(["recipe", "db-copy"]).ok().stdout, @r#"
    db-copy  Copies a database from another host into a new directory
    shipped with rel

    Parameters
      snapshot  command  required; writes a consistent copy into {stage}; runs there, on the host given by `from`; may mention {stage}
      into      text     required; directory on this host that holds the copies and `latest`
      keep      text     default `3`; so many copies stay

    Steps
      announce  notes that a copy is made
      snapshot  writes a consistent copy there; on the `from` host
      transfer  copies it into {into}
      mark
      count     notes the copy
      latest
      clean     removes what was written there; on the `from` host
      prune     removes copies beyond the {keep} that stay

    Example
      use "db-copy" on="HOST" from="HOST" {
          snapshot "COMMAND"
          into "TEXT"
      }
    "#);
    assert_snapshot!(space.run(["recipe", "clean-checkout"]).ok().stdout, @r#"
    clean-checkout  Stops while a working copy on a host has uncommitted changes, or has diverged
    shipped with rel

    Parameters
      path  text  required; a working copy of git, svn or hg

    Guards
      clean-checkout  before the first change

    Example
      use "clean-checkout" on="HOST" {
          path "TEXT"
      }
    "#);
    let told = space.run(["recipe", "backup"]).ok().stdout;
    assert!(told.contains("one of postgres sqlite zodb"), "{told}");
    assert!(told.contains("from the driver"), "{told}");
}

#[test]
fn recipes_of_the_project_win_and_name_their_file() {
    let space = Space::new("target \"a\" { run \"true\" }\n");
    space.write(
        "recipes/backup.kdl",
        "recipe \"backup\" { desc \"our own\"; step \"all\" { run \"true\" } }\n",
    );
    space.write("recipes/broken.kdl", "recipe \"broken\" { stp \"all\" }\n");
    let told = space.run(["recipe"]).ok().stdout;
    let line = told.lines().find(|line| line.starts_with("backup"));
    assert!(
        line.is_some_and(|line| line.ends_with("our own  (recipes/backup.kdl)")),
        "{told}"
    );
    let line = told.lines().find(|line| line.starts_with("broken"));
    assert!(
        line.is_some_and(|line| line.ends_with("has errors: `rel check` shows them")),
        "{told}"
    );
    let told = space.run(["recipe", "backup"]).ok().stdout;
    assert!(told.contains("from recipes/backup.kdl"), "{told}");
    assert_snapshot!(space.run(["recipe", "broken"]).fails(2).stderr, @"
    error: the recipe `broken` has errors
      help: `rel check` shows them
    ");
    assert_snapshot!(space.run(["recipe", "bakcup"]).fails(2).stderr, @"
    error: there is no recipe `bakcup`
      help: did you mean `backup`?
    ");
    assert_snapshot!(space.run(["recipe", "something-else"]).fails(2).stderr, @"
    error: there is no recipe `something-else`
      help: `rel recipe` shows all recipes
    ");
}

/// The `use` at the end of each description is one that `rel check` takes.
#[test]
fn the_examples_are_right() {
    let listed = Space::empty().ask(["recipe"]);
    for recipe in listed.as_array().expect("a list") {
        let name = recipe["name"].as_str().expect("a name");
        let told = Space::empty().ask(["recipe", name]);
        let example = told["example"].as_str().expect("a text");
        let space = Space::new(&format!(
            "project \"p\" {{ version \"1\" }}\nhost \"HOST\" local=#true\n\
             target \"TARGET\" {{ outputs \"out\"; run \"touch out\" }}\n\
             secret \"SECRET\" env=\"HOME\"\n\
             environment \"e\" {{\nneeds \"TARGET\"\n{example}\n}}\n"
        ));
        let output = space.run(["check"]);
        assert_eq!(output.code, 0, "{example}\n{output}");
    }
}

/// What the page says of a parameter: its type and its default.
fn rows(section: &str) -> Vec<[String; 3]> {
    let row = r"(?m)^\| `([\w-]+)` \| (\w+)(?:, own)? \| ((?:[^|\\]|\\.)+) \|";
    let row = Regex::new(row).expect("a pattern");
    let all = row.captures_iter(section);
    all.map(|c| [1, 2, 3].map(|i| c[i].trim().to_owned()))
        .collect()
}

#[test]
fn the_page_of_recipes_says_what_the_program_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/recipes.md");
    let page = std::fs::read_to_string(page).expect("reads");
    let space = Space::empty();
    let listed = space.ask(["recipe"]);
    let names = listed.as_array().expect("a list").iter();
    let mut wrong = Vec::new();
    for name in names.map(|one| one["name"].as_str().expect("a name")) {
        let section = page
            .split(&format!("\n## {name}\n"))
            .nth(1)
            .unwrap_or_default();
        let section = section.split("\n## ").next().unwrap_or_default();
        let rows = rows(section);
        let recipe = space.ask(["recipe", name]);
        for param in recipe["params"].as_array().expect("a list") {
            if param["from_driver"] == true {
                continue;
            }
            let default = match param["default"].as_str() {
                None => "required".to_owned(),
                Some("") => "none".to_owned(),
                Some(text) => format!("`{}`", text.replace('\n', "\\n").replace('|', "\\|")),
            };
            let name = param["name"].as_str().expect("a name");
            // A whole script is not written out in a table.
            if default.len() > 40 {
                if !section.contains(&format!("`{name}`")) {
                    wrong.push(format!("{}: {name}", recipe["name"]));
                }
                continue;
            }
            let expected = [name, param["type"].as_str().expect("a type"), &default];
            if !rows.iter().any(|row| row.iter().eq(expected.iter())) {
                wrong.push(format!("{}: {expected:?}", recipe["name"]));
            }
        }
        let known = |row: &&[String; 3]| {
            let params = recipe["params"].as_array().expect("a list");
            !params.iter().any(|param| param["name"] == row[0].as_str())
        };
        wrong.extend(
            rows.iter()
                .filter(known)
                .map(|row| format!("{name}: no {row:?}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "docs/reference/recipes.md:\n{}",
        wrong.join("\n")
    );
}
