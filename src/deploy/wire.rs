//! What goes to a host and comes back, as text: programs, questions, answers, journals.

pub mod detached;
pub mod frames;
pub mod held;
pub mod journal;
pub mod program;
pub mod shortened;
pub mod words;
