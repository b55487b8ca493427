//! The cargo tools that the chores need, at pinned versions.

use anyhow::{Context, Result};

use crate::shell;

/// A tool that is a crate of the same name.
pub struct Tool {
    /// The crate, and the program that it installs.
    pub name: &'static str,
    /// What is installed when the program is absent; one that is there already is used as it is.
    pub version: &'static str,
}

/// Runs the tests.
pub const NEXTEST: Tool = Tool { name: "cargo-nextest", version: "0.9.143" };
/// Checks licences, sources and banned crates.
pub const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Finds dependencies that nobody uses.
pub const MACHETE: Tool = Tool { name: "cargo-machete", version: "0.9.2" };
/// Builds the book.
pub const MDBOOK: Tool = Tool { name: "mdbook", version: "0.5.4" };

impl Tool {
    /// Installs it if it is absent.
    pub fn ensure(&self) -> Result<()> {
        if shell::has(self.name) {
            return Ok(());
        }
        shell::say(&format!("{} is not installed; building it once takes some minutes", self.name));
        let mut command = shell::cargo();
        // In our checkout its toolchain file would choose the compiler; that is what we want: one that is known to work.
        command.args(["install", "--locked", self.name, "--version", self.version]);
        shell::run(&mut command).with_context(|| format!("hint: install {} {} by hand", self.name, self.version))
    }
}
