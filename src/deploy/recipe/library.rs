//! Where recipes are found: inside the binary, and in the project's `recipes/`.
//!
//! A shipped one is read when a use names it, the project's at once. Drivers are mixed into
//! the recipe of a use that names one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use crate::build::model::{Arg, Use};
use crate::core::diagnostics::{Diagnostic, SourceMap, Span, suggest};
use crate::core::error::{IoContext, Result};
use crate::core::fs::{self, ReadFile};
use crate::core::sync::lock;
use crate::deploy::recipe::{Recipe, driver, parser};

/// The recipes that ship inside the binary.
const SHIPPED: &[(&str, &str)] = &[
    ("backup", include_str!("../../../recipes/backup.kdl")),
    (
        "changelog-line",
        include_str!("../../../recipes/changelog-line.kdl"),
    ),
    (
        "pushed-tag",
        include_str!("../../../recipes/pushed-tag.kdl"),
    ),
    (
        "clean-checkout",
        include_str!("../../../recipes/clean-checkout.kdl"),
    ),
    (
        "host-facts",
        include_str!("../../../recipes/host-facts.kdl"),
    ),
    (
        "forbidden-pattern",
        include_str!("../../../recipes/forbidden-pattern.kdl"),
    ),
    ("db-copy", include_str!("../../../recipes/db-copy.kdl")),
    ("evolve", include_str!("../../../recipes/evolve.kdl")),
    (
        "evolve-live",
        include_str!("../../../recipes/evolve-live.kdl"),
    ),
    (
        "http-check",
        include_str!("../../../recipes/http-check.kdl"),
    ),
    ("changed", include_str!("../../../recipes/changed.kdl")),
    (
        "maintenance",
        include_str!("../../../recipes/maintenance.kdl"),
    ),
    (
        "log-window",
        include_str!("../../../recipes/log-window.kdl"),
    ),
    ("service", include_str!("../../../recipes/service.kdl")),
    (
        "versioned-release",
        include_str!("../../../recipes/versioned-release.kdl"),
    ),
    ("wait-for", include_str!("../../../recipes/wait-for.kdl")),
];

/// The drivers that ship inside the binary.
pub(in crate::deploy) const DRIVERS: [(&str, &str); 3] = [
    ("postgres", include_str!("../../../recipes/postgres.kdl")),
    ("sqlite", include_str!("../../../recipes/sqlite.kdl")),
    ("zodb", include_str!("../../../recipes/zodb.kdl")),
];

/// All recipes that a project may use.
#[derive(Debug, Default)]
pub struct Recipes {
    texts: BTreeMap<String, Text>,
    drivers: BTreeMap<String, Text>,
    /// Recipes read together with a driver, by both names.
    driven: Mutex<BTreeMap<(String, String), Arc<Recipe>>>,
    /// Those that are there and cannot be read.
    broken: BTreeSet<String>,
    /// The files of the project that were read.
    pub files: Vec<ReadFile>,
    /// Mistakes found in the files, with places in the [`SourceMap`] returned beside.
    pub mistakes: Vec<Diagnostic>,
}

/// A file, and what was read from it, once that was asked for.
#[derive(Debug)]
struct Text {
    text: Cow<'static, str>,
    file: u16,
    recipe: OnceLock<Option<Arc<Recipe>>>,
}

impl Text {
    fn borrowed(&self) -> parser::RecipeText<'_> {
        parser::RecipeText {
            text: &self.text,
            file: self.file,
        }
    }

    fn new(text: Cow<'static, str>, file: u16) -> Self {
        Self {
            text,
            file,
            recipe: OnceLock::new(),
        }
    }
}

impl Recipes {
    /// Finds the shipped recipes and those of `project_dir`, which win by name.
    ///
    /// The project's are read at once. Mistakes in them do not fail it: they are in
    /// [`Recipes::mistakes`], to be shown together with those of the Releasefile. The shipped ones have
    /// none, and are read when a use names them.
    pub fn load(project_dir: Option<&Path>) -> Result<(Self, SourceMap)> {
        let mut recipes = Self::default();
        let mut sources = SourceMap::default();
        for (name, text) in SHIPPED {
            let path = PathBuf::from(format!("(shipped) recipes/{name}.kdl"));
            let text = Text::new(Cow::Borrowed(text), sources.add(path, text));
            recipes.texts.insert((*name).to_owned(), text);
        }
        for (name, text) in DRIVERS {
            let path = PathBuf::from(format!("(shipped) recipes/{name}.kdl"));
            let text = Text::new(Cow::Borrowed(text), sources.add(path, text));
            recipes.drivers.insert((*name).to_owned(), text);
        }
        for path in project_files(project_dir)? {
            let (text, owner) = read_text(&path).context("read recipe", &path)?;
            recipes.files.push(ReadFile {
                path: path.clone(),
                owner,
            });
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            // As a person finds it from the Releasefile.
            let shown = Path::new("recipes").join(path.file_name().unwrap_or_default());
            let file = sources.add(shown, &text);
            match driver::is_driver(&text) {
                true => {
                    let text = Text::new(Cow::Owned(text), file);
                    recipes.drivers.insert(name.into_owned(), text);
                }
                false => recipes.add(&name, text, file),
            }
        }
        Ok((recipes, sources))
    }

    /// Reads a recipe of the project.
    fn add(&mut self, name: &str, text: String, file: u16) {
        match parser::recipe(name, &text, file) {
            Ok(recipe) => {
                let text = Text::new(Cow::Owned(text), file);
                text.recipe.get_or_init(|| Some(Arc::new(recipe)));
                self.texts.insert(name.to_owned(), text);
            }
            Err(mistakes) => {
                self.mistakes.extend(mistakes);
                self.broken.insert(name.to_owned());
            }
        }
    }

    /// Returns the recipe of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Recipe>> {
        let text = self.texts.get(name)?;
        let read = || {
            parser::recipe(name, &text.text, text.file)
                .ok()
                .map(Arc::new)
        };
        text.recipe.get_or_init(read).as_ref()
    }

    /// Returns the recipe that a `use` names, read together with the driver that it names.
    pub fn of_use(&self, one: &Use) -> Result<Option<Arc<Recipe>>, Box<Diagnostic>> {
        let Some(recipe) = self.get(&one.recipe) else {
            return Ok(None);
        };
        let arg = driver_arg(recipe, one);
        let (Some(arg), Some(base)) = (arg, self.texts.get(&one.recipe)) else {
            return Ok(Some(recipe.clone()));
        };
        let names = (one.recipe.clone(), arg.text.clone());
        let mut driven = lock(&self.driven);
        if let Some(recipe) = driven.get(&names) {
            return Ok(Some(recipe.clone()));
        }
        let Some(driver) = self.drivers.get(&arg.text) else {
            let message = format!("there is no driver `{}`", arg.text);
            let mistake = Diagnostic::new("unknown_driver", arg.place, message, "not a driver");
            let known: Vec<&str> = self.drivers.keys().map(String::as_str).collect();
            return Err(Box::new(match suggest(&arg.text, known.iter().copied()) {
                Some(near) => mistake.help(format!("did you mean `{near}`?")),
                None => mistake.help(format!(
                    "available: {}; recipes of the project are in `recipes/NAME.kdl`",
                    known.join(", ")
                )),
            }));
        };
        let (base, driver) = (base.borrowed(), driver.borrowed());
        let read = parser::with_driver(&recipe.name, base, &arg.text, driver);
        match read.map(Arc::new) {
            Ok(recipe) => {
                driven.insert(names, recipe.clone());
                Ok(Some(recipe))
            }
            Err(mistakes) => {
                let what = mistakes.first().map_or("", |m| m.message.as_str());
                let message = format!("driver `{}` does not fit: {what}", arg.text);
                Err(Box::new(Diagnostic::new(
                    "bad_driver",
                    arg.place,
                    message,
                    "named here",
                )))
            }
        }
    }

    /// Returns places in the files that a use is read from: its recipe's, and its driver's.
    pub fn places_of(&self, one: &Use) -> Vec<Span> {
        let Some(recipe) = self.get(&one.recipe) else {
            return Vec::new();
        };
        let driver = driver_arg(recipe, one).and_then(|arg| self.drivers.get(&arg.text));
        let driver = driver.map(|text| Span {
            file: text.file,
            ..Span::default()
        });
        [Some(recipe.place), driver].into_iter().flatten().collect()
    }

    /// Returns whether a recipe of that name is there, but cannot be read.
    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// Returns the names of the recipes that are there and cannot be read.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.broken.iter().map(String::as_str)
    }

    /// Returns the file of the project that holds a recipe; `None` for a shipped one.
    pub fn own_file<'s>(&self, name: &str, sources: &'s SourceMap) -> Option<&'s Path> {
        let text = self.texts.get(name)?;
        let is_own = matches!(text.text, Cow::Owned(_));
        let file = sources.files().get(usize::from(text.file))?;
        is_own.then_some(file.path.as_path())
    }

    /// Returns a recipe as it is read together with each driver that fits it, by the driver's name;
    /// none where it takes no driver.
    pub fn with_drivers(&self, recipe: &Recipe) -> Vec<(&str, Recipe)> {
        let base = self.texts.get(&recipe.name);
        let base = base.filter(|_| recipe.driver_param().is_some());
        let read = |(name, driver): (&'_ String, &Text)| {
            parser::with_driver(&recipe.name, base?.borrowed(), name, driver.borrowed()).ok()
        };
        let all = self.drivers.iter();
        all.filter_map(|(name, driver)| Some((name.as_str(), read((name, driver))?)))
            .collect()
    }

    /// Returns the names of all recipes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }
}

/// Returns the text of a file, and its owner.
fn read_text(path: &Path) -> std::io::Result<(String, u32)> {
    let (bytes, meta) = fs::read_described(path)?;
    Ok((fs::utf8(bytes)?, meta.uid()))
}

fn project_files(dir: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(dir) = dir else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if fs::is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e).context("list", dir),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.context("list", dir)?.path();
        if path.extension().is_some_and(|e| e == "kdl") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Returns the argument that names the driver of a use.
fn driver_arg<'a>(recipe: &Recipe, one: &'a Use) -> Option<&'a Arg> {
    let param = recipe.driver_param()?;
    one.args.get(&param.name).filter(|arg| !arg.text.is_empty())
}
