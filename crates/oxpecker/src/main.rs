//! oxpecker keeps a small team's PostgreSQL, and what depends on it, alive.
//!
//! This crate is the binary: commands, configuration, wiring and exit codes. It is the only place that knows all the others.

mod cli;
mod commands;
mod config;
mod disk;
mod exit;
mod guard;
mod logging;
mod mend;
mod offer;
mod output;
mod place;
mod prompt;
mod repo;
mod secret;
mod work;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if !cli::is_wal_get(std::env::args_os()) {
        return run(exit::USAGE);
    }
    // PostgreSQL would take the code of wrong usage, or of a panic, for "there is no such file", and end its recovery.
    std::panic::catch_unwind(|| run(exit::WAL_UNKNOWN)).unwrap_or(ExitCode::from(exit::WAL_UNKNOWN))
}

/// Does what the command line says; `usage` is the exit code for what it can't mean.
fn run(usage: u8) -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own code for wrong usage is 2, as ours; help and version are fine.
            let code = if error.use_stderr() { usage } else { exit::FINE };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    exit::report(commands::dispatch(cli))
}
