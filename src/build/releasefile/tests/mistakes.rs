//! The text of every mistake: what a person sees.

mod graph;
mod hosts;
mod names;
mod sums;
mod targets;
mod text;
mod values;
