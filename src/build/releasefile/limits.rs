//! What all targets together may be: a text of a kilobyte can stand for more than any memory holds.

use super::node::{Diagnostics, SpannedText};
use crate::core::diagnostics::Diagnostic;

/// Instances of all targets.
const INSTANCES_MAX: usize = 1_000_000;
/// Needs of all instances.
const NEEDS_MAX: usize = 4_000_000;
/// Bytes of the names of all instances, and of their texts with all values put in.
const TEXT_BYTES_MAX: usize = 256 << 20;

/// What the targets so far are.
#[derive(Default)]
pub(crate) struct Sums {
    instances: usize,
    name_bytes: usize,
    needs: usize,
    is_over: bool,
}

impl Sums {
    /// Returns whether some limit was reached: then not all targets are known.
    pub(crate) fn are_over(&self) -> bool {
        self.is_over
    }

    /// Adds `count` instances of the target `name`, whose names have so many bytes; returns whether
    /// there is room for them.
    pub(crate) fn declare(
        &mut self,
        name: &SpannedText,
        count: usize,
        bytes: usize,
        found: &mut Diagnostics,
    ) -> bool {
        self.instances = self.instances.saturating_add(count);
        self.name_bytes = self.name_bytes.saturating_add(bytes);
        let is_many = self.instances > INSTANCES_MAX;
        self.check(name, is_many, INSTANCES_MAX, "instances", found);
        let is_long = self.name_bytes > TEXT_BYTES_MAX;
        self.check(name, is_long, TEXT_BYTES_MAX >> 20, "MiB of names", found);
        !self.is_over
    }

    /// Adds an instance of the target `name` with so many needs, and the bytes that all texts so far became; returns whether there is
    /// room for more.
    pub(crate) fn add(
        &mut self,
        name: &SpannedText,
        needs: usize,
        text_bytes: usize,
        found: &mut Diagnostics,
    ) -> bool {
        self.needs = self.needs.saturating_add(needs);
        let is_many = self.needs > NEEDS_MAX;
        self.check(name, is_many, NEEDS_MAX, "needs", found);
        let is_long = text_bytes > TEXT_BYTES_MAX;
        self.check(name, is_long, TEXT_BYTES_MAX >> 20, "MiB of text", found);
        !self.is_over
    }

    fn check(
        &mut self,
        at: &SpannedText,
        is_over: bool,
        most: usize,
        what: &str,
        found: &mut Diagnostics,
    ) {
        if !is_over || self.is_over {
            return;
        }
        self.is_over = true;
        let message = format!("all targets together have more than {most} {what}");
        let mistake = Diagnostic::new("too_many", at.place, message, "with this one");
        found.push(mistake.help("give it fewer values by `each` or `matrix`"));
    }
}
