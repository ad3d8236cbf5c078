//! Over SSH, to three hosts with views of their own.
