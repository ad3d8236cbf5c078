//! Text of a recipe -> [`Recipe`]. Pure; reports all mistakes at once, each with its place.
//!
//! Two passes: the first collects the names that a recipe declares, the second reads
//! everything and holds each template against them. Nothing is known by position
//! alone: a node, a property or a name that is not listed here is a mistake.

use std::collections::BTreeSet;

use kdl::{KdlDocument, KdlNode, KdlValue};

use crate::core::diagnostics::{Diagnostic, Span};
use crate::core::template::{Mode, Template};
use crate::deploy::recipe::actions::INTO_FOREIGN;
use crate::deploy::recipe::driver::{is_declared, of_kind};
use crate::deploy::recipe::effects::StepEffects;
use crate::deploy::recipe::names::NameRules;
use crate::deploy::recipe::reader::{self, NodeReader, text_of};
use crate::deploy::recipe::{
    Action, DUE, Fact, Guard, Let, ParamKind, Recipe, RecipeParam, Step, UndoWhen, WaitFor,
};

/// Nodes of a step that are its action.
const ACTIONS: [&str; 9] = [
    "run",
    "put",
    "write",
    "symlink",
    "service",
    "scope",
    "forward",
    "responder",
    "wait",
];
/// Other nodes of a step.
const STEP_NODES: [&str; 9] = [
    "prepare",
    "check",
    "verify",
    "undo",
    "undo-check",
    "rollback-check",
    "dir",
    "env",
    "timeout",
];
/// Nodes that a step has once.
const ONCE: [&str; 7] = [
    "prepare",
    "check",
    "undo",
    "undo-check",
    "rollback-check",
    "dir",
    "timeout",
];
/// Properties of a step.
const STEP_PROPERTIES: [&str; 11] = [
    "if",
    "on-change",
    "host",
    "per",
    "as",
    "destructive",
    "detach",
    "undo",
    "once",
    "makes",
    "desc",
];

/// Parses the text of the file `name.kdl`, which is number `file` of its sources.
pub fn recipe(name: &str, text: &str, file: u16) -> Result<Recipe, Vec<Diagnostic>> {
    let (document, mistakes) = reader::document(text, file)?;
    let mut reader = NodeReader::new(file);
    reader.mistakes = mistakes;
    let recipe = reader.file(name, &document, None);
    match reader.mistakes.is_empty() {
        true => Ok(recipe),
        false => Err(reader.mistakes),
    }
}

/// The text of a recipe or a driver.
#[derive(Clone, Copy)]
pub struct RecipeText<'a> {
    pub text: &'a str,
    /// Its file, by number.
    pub file: u16,
}

/// Parses a recipe together with a driver: its parameters and derived names go before
/// those of the recipe, and stand for them where they have the same name.
pub fn with_driver(
    name: &str,
    base: RecipeText<'_>,
    driver: &str,
    driver_text: RecipeText<'_>,
) -> Result<Recipe, Vec<Diagnostic>> {
    let (document, mistakes) = reader::document(base.text, base.file)?;
    let (driver_document, of_driver) = reader::document(driver_text.text, driver_text.file)?;
    let mut reader = NodeReader::new(driver_text.file);
    reader.mistakes = [mistakes, of_driver].concat();
    let nodes = reader.heading("driver", driver, &driver_document);
    reader.file = base.file;
    let recipe = reader.file(name, &document, Some((nodes, driver_text.file)));
    match reader.mistakes.is_empty() {
        true => Ok(recipe),
        false => Err(reader.mistakes),
    }
}

fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

impl NodeReader {
    fn file(
        &mut self,
        name: &str,
        document: &KdlDocument,
        driver: Option<(&[KdlNode], u16)>,
    ) -> Recipe {
        let mut recipe = Recipe {
            name: name.to_owned(),
            place: self.place(document.span()),
            ..Recipe::default()
        };
        let nodes = self.heading("recipe", name, document);
        if let [node] = document.nodes() {
            recipe.place = self.place(node.span());
        }
        let own = self.file;
        let parts = [driver.unwrap_or_default(), (nodes, own)];
        for (nodes, _) in parts.iter().rev() {
            self.collect_names(nodes);
        }
        // Derived names first, the recipe's before the driver's: commands may use them all.
        for (nodes, file) in parts.iter().rev() {
            self.file = *file;
            for node in of_kind(nodes, &["let"]) {
                let is_replaced = *file == own && is_declared(parts[0].0, node);
                if !is_replaced {
                    self.derived(node, &mut recipe);
                }
            }
        }
        for (nodes, file) in parts {
            self.file = file;
            for node in of_kind(nodes, &["param"]) {
                if file != own || !is_declared(parts[0].0, node) {
                    self.param(node, &mut recipe);
                }
            }
        }
        for (nodes, file) in parts {
            self.file = file;
            for node in nodes {
                match (file == own, node.name().value()) {
                    (_, "let" | "param") => {}
                    (true, _) => self.recipe_node(node, &mut recipe),
                    (false, "desc") => drop(self.argument(node)),
                    (false, other) => {
                        let place = self.place(node.name().span());
                        self.unknown("node", other, &["desc", "param", "let"], place);
                    }
                }
            }
        }
        self.file = own;
        recipe.host_names = std::mem::take(&mut self.host_names);
        self.check_references(&recipe);
        recipe
    }

    /// Returns what is within the only node of a file, which must be named like the file.
    fn heading<'d>(&mut self, kind: &str, name: &str, document: &'d KdlDocument) -> &'d [KdlNode] {
        let [node] = document.nodes() else {
            let place = self.place(document.span());
            self.wrong(
                "recipe_file",
                place,
                format!(
                    "the file must hold one `{kind} \"{name}\"`, not {} nodes",
                    document.nodes().len()
                ),
                &format!("a file holds one {kind}"),
            );
            return &[];
        };
        let place = self.place(node.span());
        let said = self.argument(node).map(|(text, _)| text);
        if node.name().value() != kind || said.as_deref() != Some(name) {
            self.wrong(
                "recipe_file",
                place,
                format!("the file `{name}.kdl` must hold `{kind} \"{name}\"`"),
                "another name",
            );
        }
        self.properties(node, &[]);
        node.children().map_or(&[][..], KdlDocument::nodes)
    }

    fn collect_names(&mut self, nodes: &[KdlNode]) {
        for node in nodes {
            let Some(name) = node.get(0).and_then(KdlValue::as_string) else {
                continue;
            };
            match node.name().value() {
                "param" => {
                    let kind = match node.get("type").and_then(KdlValue::as_string) {
                        Some("command") => ParamKind::Command,
                        Some("artifact") => ParamKind::Artifact,
                        Some("secret") => ParamKind::Secret,
                        _ => ParamKind::Text,
                    };
                    self.names.params.insert(name.to_owned(), kind);
                }
                "due" => drop(self.names.facts.insert(DUE.to_owned())),
                "fact" => drop(self.names.facts.insert(name.to_owned())),
                _ => {}
            }
        }
    }

    fn recipe_node(&mut self, node: &KdlNode, recipe: &mut Recipe) {
        match node.name().value() {
            "desc" => recipe.desc = self.argument(node).map(|(text, _)| text),
            "due" => {
                self.properties(node, &[]);
                if let Some((command, place)) = self.argument(node) {
                    recipe.has_due = true;
                    recipe.facts.push(Fact {
                        name: DUE.to_owned(),
                        command: self.template(&command, Mode::Shell, NameRules::Early, place),
                        is_from: false,
                    });
                }
            }
            "fact" => {
                self.properties(node, &["host"]);
                if let Some([(name, _), (command, place)]) = self.arguments(node) {
                    recipe.facts.push(Fact {
                        name,
                        command: self.template(&command, Mode::Shell, NameRules::Early, place),
                        is_from: self.is_from(node),
                    });
                }
            }
            "guard" => {
                self.properties(node, &["back"]);
                if let Some([(name, _), (command, place)]) = self.arguments(node) {
                    let command = self.template(&command, Mode::Shell, NameRules::Early, place);
                    let is_back = self.flag(node, "back");
                    if is_back {
                        self.check_back_guard(recipe, &command, place);
                    }
                    recipe.guards.push(Guard {
                        name,
                        command,
                        is_back,
                    });
                }
            }
            "step" => {
                if let Some(step) = self.step(node) {
                    recipe.steps.push(step);
                }
            }
            other => {
                let place = self.place(node.name().span());
                self.unknown(
                    "node",
                    other,
                    &["desc", "param", "let", "due", "fact", "guard", "step"],
                    place,
                );
            }
        }
    }

    /// Refuses a guard that is asked during the rollback, where nothing is made, about an artifact.
    fn check_back_guard(&mut self, recipe: &Recipe, command: &Template, place: Span) {
        let mut names: Vec<&str> = command.names().collect();
        let mut at = 0;
        while let Some(name) = names.get(at).copied() {
            let head = name.split_once('.').map_or(name, |(head, _)| head);
            if self.names.params.get(head) == Some(&ParamKind::Artifact) {
                let message = format!("a guard with `back=#true` cannot ask about `{{{name}}}`");
                self.wrong(
                    "wrong_value",
                    place,
                    message,
                    "no artifact is made for a rollback",
                );
                return;
            }
            let of_let = recipe.lets.iter().find(|l| l.name == name);
            for more in of_let.into_iter().flat_map(|l| l.value.names()) {
                if !names.contains(&more) {
                    names.push(more);
                }
            }
            at += 1;
        }
    }

    fn derived(&mut self, node: &KdlNode, recipe: &mut Recipe) {
        self.properties(node, &["digest"]);
        if let Some([(name, _), (value, place)]) = self.arguments(node) {
            let value = self.template(&value, Mode::Plain, NameRules::Let, place);
            self.names.declare_let(&name, &value);
            let is_digest = self.flag(node, "digest");
            recipe.lets.push(Let {
                name,
                value,
                is_digest,
            });
        }
    }

    fn param(&mut self, node: &KdlNode, recipe: &mut Recipe) {
        self.properties(node, &["type", "default", "gives", "own", "desc"]);
        let Some((name, place)) = self.argument(node) else {
            return;
        };
        let kind = match node.get("type").and_then(KdlValue::as_string) {
            None | Some("text") => ParamKind::Text,
            Some("command") => ParamKind::Command,
            Some("artifact") => ParamKind::Artifact,
            Some("driver") => ParamKind::Driver,
            Some("secret") => ParamKind::Secret,
            Some(other) => {
                let known = ["text", "command", "artifact", "driver", "secret"];
                self.unknown("type", other, &known, place);
                ParamKind::Text
            }
        };
        if recipe.param(&name).is_some() {
            self.wrong(
                "duplicate_name",
                place,
                format!("parameter `{name}` is declared twice"),
                "again here",
            );
        }
        if kind == ParamKind::Secret && node.get("default").is_some() {
            let message = format!("the secret `{name}` can have no default");
            self.wrong(
                "wrong_value",
                place,
                message,
                "a value in a recipe is not secret",
            );
        }
        let named = std::mem::take(&mut self.host_names);
        let default = node.entry("default").and_then(text_of).inspect(|text| {
            let (mode, allow) = match kind {
                ParamKind::Command => (Mode::Shell, NameRules::Late),
                _ => (Mode::Plain, NameRules::Early),
            };
            // Checked here, read again where it is used: there it may be empty or not.
            self.template(text, mode, allow, place);
        });
        recipe.params.push(RecipeParam {
            gives: self.gives(node, kind, place),
            is_own: self.flag(node, "own"),
            name,
            kind,
            default,
            desc: node.entry("desc").and_then(text_of),
        });
        // Those of the default count where it does.
        self.host_names = named;
    }

    /// Returns the names that a command parameter gives to the text of a `use`.
    fn gives(&mut self, node: &KdlNode, kind: ParamKind, place: Span) -> Vec<String> {
        let Some(text) = node.entry("gives").and_then(text_of) else {
            return Vec::new();
        };
        if kind != ParamKind::Command {
            let message = "only a command can be given names of the recipe".to_owned();
            self.wrong("wrong_value", place, message, "add type=\"command\"");
        }
        let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        for name in &names {
            // As a text that mentions them all would be.
            self.template(&format!("{{{name}}}"), Mode::Shell, NameRules::Late, place);
        }
        names
    }

    fn step(&mut self, node: &KdlNode) -> Option<Step> {
        self.properties(node, &STEP_PROPERTIES);
        let (name, place) = self.argument(node)?;
        let children = node.children().map_or(&[][..], KdlDocument::nodes);
        let named = std::mem::take(&mut self.host_names);
        let mut actions: Vec<Action> = Vec::new();
        let per = self.property(node, "per", Mode::Plain, NameRules::Early);
        let mut step = Step {
            name,
            per,
            if_param: node.entry("if").and_then(text_of),
            on_change: node
                .entry("on-change")
                .and_then(text_of)
                .map(|t| t.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            is_from: self.is_from(node),
            is_detached: self.flag(node, "detach"),
            user: self.property(node, "as", Mode::Plain, NameRules::Early),
            prepare: None,
            action: Action::Run(Template::default()),
            check: None,
            verify: Vec::new(),
            undo: None,
            undo_when: UndoWhen::default(),
            dir: None,
            env: Vec::new(),
            timeout: None,
            marks: StepEffects::default(),
            host_names: BTreeSet::new(),
            place,
        };
        self.marks(node, &mut step);
        self.once(children, &ONCE);
        for child in children {
            match ACTIONS.contains(&child.name().value()) {
                true => {
                    step.marks.into_foreign |= self.flag(child, INTO_FOREIGN);
                    actions.extend(self.action(child));
                }
                false => self.step_node(child, &mut step),
            }
        }
        let count = children
            .iter()
            .filter(|c| ACTIONS.contains(&c.name().value()))
            .count();
        if count != 1 {
            self.wrong(
                "step_action",
                place,
                format!(
                    "step `{}` must have one action of {}, and has {count}",
                    step.name,
                    ACTIONS.join(", ")
                ),
                "expected exactly one action",
            );
        }
        step.host_names = std::mem::replace(&mut self.host_names, named);
        step.action = actions.pop()?;
        self.fits_its_action(&step);
        Some(step)
    }

    /// Notes what a step says of itself that its action cannot have.
    fn fits_its_action(&mut self, step: &Step) {
        let has_own = matches!(
            step.action,
            Action::Service { .. }
                | Action::Managed { .. }
                | Action::Scope { .. }
                | Action::Port { .. }
        );
        if step.marks.needs_no_undo && has_own {
            let message = format!("step `{}` has a rollback of its own", step.name);
            let label = "`undo=#false` is allowed for `run`, `put`, `write`, `symlink`";
            self.wrong("wrong_value", step.place, message, label);
        }
        if step.is_detached && !matches!(step.action, Action::Run(_)) {
            let message = format!("step `{}` cannot be detached", step.name);
            self.wrong(
                "detached_step",
                step.place,
                message,
                "only `run` can be detached",
            );
        }
    }

    fn step_node(&mut self, node: &KdlNode, step: &mut Step) {
        let name = node.name().value();
        if name == "env" {
            for entry in node.entries() {
                let place = self.place(entry.span());
                match (entry.name(), text_of(entry)) {
                    (Some(key), Some(text)) if is_variable(key.value()) => {
                        let value = self.template(&text, Mode::Plain, NameRules::Late, place);
                        step.env.push((key.value().to_owned(), value));
                    }
                    _ => self.wrong(
                        "wrong_value",
                        place,
                        "`env` takes `NAME=\"value\"`".into(),
                        "not a property",
                    ),
                }
            }
            return;
        }
        if !STEP_NODES.contains(&name) {
            let place = self.place(node.name().span());
            let known = [&ACTIONS[..], &STEP_NODES[..]].concat();
            return self.unknown("node", name, &known, place);
        }
        let known = ["late", "with-restarts"];
        self.properties(node, if name == "undo" { &known } else { &[] });
        let Some((text, place)) = self.argument(node) else {
            return;
        };
        match name {
            "prepare" => {
                step.prepare = Some(self.template(&text, Mode::Shell, NameRules::Late, place));
            }
            "check" => {
                step.check = Some(self.template(&text, Mode::Shell, NameRules::Early, place))
            }
            "verify" => {
                let verify = self.template(&text, Mode::Shell, NameRules::Late, place);
                step.verify.push(verify);
            }
            "undo-check" => {
                let check = self.template(&text, Mode::Shell, NameRules::Early, place);
                step.marks.undo_check = Some(check);
            }
            "rollback-check" => {
                let check = self.template(&text, Mode::Shell, NameRules::Late, place);
                step.marks.rollback_check = Some(check);
            }
            "undo" => {
                step.undo = Some(self.template(&text, Mode::Shell, NameRules::Late, place));
                step.undo_when = match (self.flag(node, "late"), self.flag(node, "with-restarts")) {
                    (true, _) => UndoWhen::Last,
                    (false, true) => UndoWhen::WithRestarts,
                    (false, false) => UndoWhen::InTurn,
                };
            }
            "dir" => step.dir = Some(self.template(&text, Mode::Plain, NameRules::Late, place)),
            _ => step.timeout = self.duration(&text, place),
        }
    }

    fn check_references(&mut self, recipe: &Recipe) {
        let names: Vec<&str> = recipe.steps.iter().map(|s| s.name.as_str()).collect();
        for (index, step) in recipe.steps.iter().enumerate() {
            if names[..index].contains(&step.name.as_str()) {
                let message = format!("step `{}` is declared twice", step.name);
                self.wrong("duplicate_name", step.place, message, "again here");
            }
            let is_here = step.action.is_operators()
                || matches!(step.action, Action::Fetch { .. } | Action::Port { .. });
            if step.prepare.is_some() && is_here {
                let message = format!("`prepare` of step `{}` would never run", step.name);
                let label = "not carried out on the host";
                self.wrong("wrong_value", step.place, message, label);
            }
            let is_command = match &step.action {
                Action::Run(_) => true,
                Action::Wait(wait) => matches!(wait.what, WaitFor::Command(_)),
                _ => false,
            };
            if step.user.is_some() && !is_command {
                let message = format!("`as` of step `{}` is for commands", step.name);
                let label = "not `run` and not `wait command=`";
                self.wrong("wrong_value", step.place, message, label);
            }
            for wanted in &step.on_change {
                if !names[..index].contains(&wanted.as_str()) {
                    self.unknown("earlier step", wanted, &names[..index], step.place);
                }
            }
            if let Some(param) = &step.if_param
                && recipe.param(param).is_none()
            {
                let known: Vec<&str> = recipe.params.iter().map(|p| p.name.as_str()).collect();
                self.unknown("parameter", param, &known, step.place);
            }
        }
    }
}
