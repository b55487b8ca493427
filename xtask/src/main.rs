//! Developer chores; see `cargo xtask --help`. The Makefile's targets are thin fronts of these commands.

mod bench;
mod demo;
mod docs;
mod lint;
mod shell;
mod test;
mod testbed;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer chores of oxpecker.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the program and replay the outage; everything after `--` goes to `oxpecker demo`
    Demo(demo::Args),
    /// Run the tests, except the slow ones; everything after `--` goes to nextest
    Test(test::Args),
    /// Run all tests, also the slow ones and the documentation's examples
    TestAll(test::Args),
    /// Measure, as ratios in one run
    Bench(bench::Args),
    /// Format, clippy, dependencies, invariants, documentation
    Lint,
    /// Build the book in docs/
    Docs(docs::Args),
    /// Check those invariants of ARCHITECTURE.md that can be checked
    Tidy,
    /// Fetch PostgreSQL's major versions for the tests
    Testbed(testbed::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => return demo::run(&args).unwrap_or_else(|error| report(&error)),
        Command::Test(args) => test::run(&args, test::Tier::Quick),
        Command::TestAll(args) => test::run(&args, test::Tier::All),
        Command::Bench(args) => bench::run(&args),
        Command::Lint => lint::run(),
        Command::Docs(args) => docs::run(&args),
        Command::Tidy => tidy::run(),
        Command::Testbed(args) => testbed::run(&args),
    };
    result.map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}

fn report(error: &anyhow::Error) -> ExitCode {
    shell::say(&format!("error: {error:#}"));
    ExitCode::FAILURE
}
