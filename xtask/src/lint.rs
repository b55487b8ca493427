//! `cargo xtask lint`: everything that can be said about the code without running it.

use anyhow::{Result, bail};

use crate::{docs, shell, tidy, tools};

/// A kind of check and how it is run.
type Check = (&'static str, fn() -> Result<()>);

/// Cheap ones first.
const CHECKS: &[Check] = &[
    ("fmt", || shell::run(shell::cargo().args(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("machete", || {
        tools::MACHETE.ensure()?;
        shell::run(shell::cargo().args(["machete", "--skip-target-dir"]))
    }),
    ("deny", || {
        tools::DENY.ensure()?;
        // Not `advisories`: its database is not on the registry.
        let what = ["--hide-inclusion-graph", "bans", "licenses", "sources"];
        shell::run(shell::cargo().args(["deny", "--log-level", "error", "--locked", "check"]).args(what))
    }),
    ("clippy", || {
        let what = ["--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        shell::run(shell::cargo().arg("clippy").args(what))
    }),
    ("docs", docs::check_reference),
];

/// Runs all kinds, so that one run tells everything, and fails when one failed.
pub fn run() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        if let Err(error) = check() {
            shell::say(&format!("{name}: {error:#}"));
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} failed", failed.join(", "));
    }
    shell::say("lint: all is well");
    Ok(())
}
