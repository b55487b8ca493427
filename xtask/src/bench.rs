//! `cargo xtask bench`: what is measured, and running it.

use anyhow::{Result, bail};

use crate::shell;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which to run; all by default
    names: Vec<String>,
    /// Only say which there are
    #[arg(long)]
    list: bool,
}

/// Something that is measured. Its numbers end in the table of docs/src/bench.md.
pub struct Bench {
    /// What to call it on the command line.
    pub name: &'static str,
    /// What it measures, and its goal.
    pub about: &'static str,
    /// Measures and prints.
    pub run: fn() -> Result<()>,
}

/// All there are.
const BENCHES: &[Bench] = &[];

/// Runs the named ones, or all.
pub fn run(args: &Args) -> Result<()> {
    if BENCHES.is_empty() {
        bail!("there is nothing to measure yet; hint: add a `Bench` to BENCHES in xtask/src/bench.rs");
    }
    if let Some(unknown) = args.names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != **name)) {
        bail!("there is no bench {unknown}; hint: `cargo xtask bench --list`");
    }
    for bench in
        BENCHES.iter().filter(|bench| args.names.is_empty() || args.names.iter().any(|name| name == bench.name))
    {
        shell::say(&format!("{}: {}", bench.name, bench.about));
        if !args.list {
            (bench.run)()?;
        }
    }
    Ok(())
}
