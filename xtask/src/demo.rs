//! `cargo xtask demo`: build, make sure of a PostgreSQL, replay the outage.

use std::{ffi::OsString, os::unix::process::CommandExt, process::ExitCode};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{
    shell,
    testbed::{self, Wanted},
};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For `oxpecker demo`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Becomes `oxpecker demo`; returns only when that can't be.
pub fn run(args: &Args) -> Result<ExitCode> {
    // First: who has to install a package should hear of it before the long build, not after.
    testbed::ensure_server(&Wanted::default())?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "oxpecker"]))?;
    let program = target_directory()?.join("release/oxpecker");
    let mut command = std::process::Command::new(&program);
    command.arg("demo").args(&args.rest);
    // Our process becomes the demo, so that Ctrl-C and its exit code are the demo's own.
    let error = command.exec();
    Err(error).with_context(|| format!("can't start {}", program.display()))
}

/// Where cargo builds to.
pub fn target_directory() -> Result<std::path::PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: std::path::PathBuf,
    }
    let output = shell::capture(shell::cargo().args(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("can't read what `cargo metadata` says")?;
    Ok(metadata.target_directory)
}
