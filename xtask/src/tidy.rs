//! `cargo xtask tidy`: the invariants of ARCHITECTURE.md that a program can check.
//!
//! Each check is a function from what it looks at to findings, with a test that shows it fail.

mod documents;
mod layers;
mod purity;
mod texts;

use std::{fmt, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Something that is not as ARCHITECTURE.md or CONTRIBUTING.md demands.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the checkout's root, and the line where there is one.
    place: String,
    /// What is wrong, and what to do instead.
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A file of the checkout.
#[derive(Debug)]
pub struct SourceFile {
    /// From the checkout's root.
    path: String,
    text: String,
}

/// Runs all checks.
pub fn run() -> Result<()> {
    let packages = layers::packages()?;
    let files = checkout()?;
    let mut findings = layers::check(&packages);
    findings.extend(purity::check(&files));
    findings.extend(texts::check(&files));
    findings.extend(documents::check(&files, packages.iter().map(|package| package.name.as_str())));
    for finding in &findings {
        shell::say(&finding.to_string());
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    shell::say(&format!("tidy: {} packages and {} files are in order", packages.len(), files.len()));
    Ok(())
}

/// All text files that git tracks or would track.
fn checkout() -> Result<Vec<SourceFile>> {
    let root = shell::root();
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root);
    let output = shell::capture(&mut git).context("hint: tidy goes by what git knows; run it in a git checkout")?;
    let names = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    let mut files = Vec::new();
    for path in names.split_terminator('\0') {
        // Removed but still tracked, a link, or not text: nothing to read.
        if let Ok(text) = fs::read_to_string(root.join(PathBuf::from(path))) {
            files.push(SourceFile { path: path.to_owned(), text });
        }
    }
    Ok(files)
}
