//! The program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's arguments are read here only"
    )]
    let args = std::env::args_os();
    ExitCode::from(rel::cli::main(args))
}
