//! What a step says of its own danger: what it destroys, and how its rollback stands. Pure.
//!
//! None of it is in a step's key: to know better what a step does makes nothing stale.

use kdl::KdlNode;

use crate::core::template::Mode;
use crate::deploy::recipe::Step;
use crate::deploy::recipe::names::NameRules;
use crate::deploy::recipe::reader::{NodeReader, text_of};

/// The marks of a step, as templates or as texts.
#[derive(Clone, Debug, PartialEq)]
pub struct StepEffects<T> {
    /// What it does, in words: plans show this in place of its text.
    pub desc: Option<T>,
    /// What is lost for good when it runs.
    pub destroys: Option<T>,
    /// Succeeds while its rollback would work.
    pub undo_check: Option<T>,
    /// Succeeds while its rollback would lose nothing; asked before a rollback.
    pub rollback_check: Option<T>,
    /// It only adds, or only asks: nothing would have to be rolled back.
    pub needs_no_undo: bool,
    /// Once it was done it is not done again, whatever its text is by now.
    pub is_once: bool,
    /// root may write into a directory that another user of the host can change.
    pub into_foreign: bool,
    /// Path that its commands make.
    pub makes: Option<T>,
}

impl<T> Default for StepEffects<T> {
    fn default() -> Self {
        Self {
            desc: None,
            destroys: None,
            undo_check: None,
            rollback_check: None,
            needs_no_undo: false,
            is_once: false,
            into_foreign: false,
            makes: None,
        }
    }
}

impl NodeReader {
    /// Reads the marks among the properties of a step.
    pub(in crate::deploy) fn marks(&mut self, node: &KdlNode, step: &mut Step) {
        if node.get("destructive").and_then(|v| v.as_bool()) != Some(false) {
            let destroys = self.property(node, "destructive", Mode::Plain, NameRules::Late);
            step.marks.destroys = destroys;
        }
        step.marks.desc = self.property(node, "desc", Mode::Plain, NameRules::Late);
        step.marks.is_once = self.flag(node, "once");
        step.marks.makes = self.property(node, "makes", Mode::Plain, NameRules::Late);
        match node.get("undo").map(|v| v.as_bool()) {
            None => {}
            Some(Some(false)) => step.marks.needs_no_undo = true,
            Some(_) => {
                let message = format!("`undo` of step `{}` can only be #false", step.name);
                let label = "a rollback command is a node: `undo \"command\"`";
                self.wrong("wrong_value", step.place, message, label);
            }
        }
        let is_undone = |n: &KdlNode| n.name().value() == "undo";
        let children = node.children().map_or(&[][..], |c| c.nodes());
        if let Some(check) = children
            .iter()
            .find(|n| n.name().value() == "rollback-check")
            && !children.iter().any(is_undone)
        {
            let message = format!("step `{}` has `undo-loses`, but no rollback", step.name);
            let place = self.place(check.name().span());
            self.wrong("wrong_value", place, message, "without `undo`");
        }
        if step.marks.needs_no_undo && children.iter().any(is_undone) {
            let message = format!("step `{}` has a rollback, and `undo=#false`", step.name);
            self.wrong("wrong_value", step.place, message, "`undo=#false`");
        }
        if node
            .entry("destructive")
            .is_some_and(|entry| text_of(entry).is_some_and(|t| t.trim().is_empty()))
        {
            let message = format!("step `{}` does not say what it destroys", step.name);
            let label = "say what is lost, or `#true`";
            self.wrong("wrong_value", step.place, message, label);
        }
    }
}
