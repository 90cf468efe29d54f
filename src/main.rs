//! The program: a result becomes an exit code here, and nothing else happens. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rekeyd::cli::main().into()
}
