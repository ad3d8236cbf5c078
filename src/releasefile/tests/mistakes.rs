//! The text of every mistake.
