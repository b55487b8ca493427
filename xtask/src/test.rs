//! `cargo xtask test` and `test-all`: the testbed, then nextest.

use std::ffi::OsString;

use anyhow::Result;

use crate::{shell, testbed, tools};

/// Arguments of `test` and `test-all`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail when a part of the testbed can't be had; by default what needs it is skipped, which is said
    #[arg(long)]
    strict: bool,
    /// For nextest
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// How much is run; see .config/nextest.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// All but tests named `slow_...`.
    Quick,
    /// Everything.
    All,
}

/// Runs the tests of the workspace.
pub fn run(args: &Args, tier: Tier) -> Result<()> {
    tools::NEXTEST.ensure()?;
    match testbed::run(&testbed::Args::default()) {
        Err(error) if args.strict || scratch::installations().is_empty() => return Err(error),
        Err(error) => shell::say(&format!("warning: {error:#}\nTests on those versions are skipped.")),
        Ok(()) => {}
    }
    if tier == Tier::All {
        // nextest does not run them.
        shell::run(shell::cargo().args(["test", "--quiet", "--workspace", "--doc"]))?;
    }
    let mut command = shell::cargo();
    command.args(["nextest", "run", "--workspace", "--locked"]);
    match (tier, args.strict) {
        (Tier::All, _) => _ = command.args(["--profile", "all"]),
        (Tier::Quick, true) => _ = command.args(["--profile", "ci"]),
        (Tier::Quick, false) => {}
    }
    shell::run(command.args(&args.rest))
}
