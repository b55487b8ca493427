//! Who may depend on whom.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::shell;

/// Crates that may use all others.
const TOP: &[&str] = &["oxpecker", "drill"];
/// Crates that use none of ours.
const BOTTOM: &[&str] = &["model", "scratch"];
/// What only `backup` joins: PostgreSQL's formats with the page map made of them, its replication protocol, and a repository that knows nothing of either.
const BENEATH_BACKUP: &[&str] = &["page-map", "pg-format", "pg-replication", "repository"];

/// A crate of the workspace with its dependencies among the workspace's.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    ours: Vec<Dependency>,
}

#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    name: String,
    /// Only its tests need it.
    dev: bool,
}

/// Reads the workspace.
pub fn packages() -> Result<Vec<Package>> {
    let output = shell::capture(shell::cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    parse(std::str::from_utf8(&output.stdout)?)
}

fn parse(metadata: &str) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<RawPackage>,
    }
    #[derive(Deserialize)]
    struct RawPackage {
        name: String,
        dependencies: Vec<RawDependency>,
    }
    #[derive(Deserialize)]
    struct RawDependency {
        name: String,
        kind: Option<String>,
        /// Only dependencies of the workspace have one.
        path: Option<String>,
    }
    let metadata: Metadata = serde_json::from_str(metadata).context("can't read what `cargo metadata` says")?;
    let packages = metadata.packages.into_iter().map(|raw| {
        let ours = raw.dependencies.into_iter().filter(|dependency| dependency.path.is_some());
        let ours = ours.map(|raw| Dependency { dev: raw.kind.as_deref() == Some("dev"), name: raw.name }).collect();
        Package { name: raw.name, ours }
    });
    Ok(packages.collect())
}

/// Every edge against the rule of its crate.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        for edge in &package.ours {
            if let Some(rule) = broken_rule(&package.name, edge) {
                let what = format!("{} depends on {}: {rule}", package.name, edge.name);
                findings.push(Finding::new(format!("crate {}", package.name), what));
            }
        }
    }
    findings
}

fn broken_rule(from: &str, edge: &Dependency) -> Option<&'static str> {
    match from {
        from if TOP.contains(&from) => None,
        from if BOTTOM.contains(&from) => Some("it depends on nothing of ours"),
        "xtask" => (edge.name != "scratch").then_some("the chores know the program by its commands only"),
        _ if edge.name == "model" => None,
        // How PostgreSQL is reached, for whoever has a session with it.
        _ if edge.name == "pg-connect" => None,
        "page-map" | "services" if edge.name == "pg-format" => None,
        "backup" if BENEATH_BACKUP.contains(&edge.name.as_str()) => None,
        "wal" if ["page-map", "pg-format", "pg-replication", "repository"].contains(&edge.name.as_str()) => None,
        // A view: of the journal, and of the incidents that are computed from it.
        "console" if ["incident", "journal"].contains(&edge.name.as_str()) => None,
        _ if edge.name == "scratch" => {
            (!edge.dev).then_some("scratch clusters are for tests; make it a dev-dependency")
        }
        _ => Some("capabilities don't depend on one another; they meet in `model` and in the binary"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        for (from, to, dev, allowed) in [
            ("oxpecker", "journal", false, true),
            ("drill", "scratch", false, true),
            ("journal", "model", false, true),
            ("autovacuum", "scratch", true, true),
            ("autovacuum", "scratch", false, false),
            ("autovacuum", "collector", false, false),
            ("incident", "journal", true, false),
            ("console", "journal", false, true),
            ("console", "alerting", false, false),
            ("journal", "console", false, false),
            ("services", "model", false, true),
            ("services", "collector", false, false),
            ("services", "pg-format", false, true),
            ("services", "audit", false, false),
            ("audit", "pg-connect", false, true),
            ("pg-connect", "audit", false, false),
            ("model", "journal", false, false),
            ("scratch", "model", true, false),
            ("backup", "page-map", false, true),
            ("wal", "pg-replication", false, true),
            ("wal", "page-map", false, true),
            ("wal", "backup", false, false),
            ("repository", "wal", false, false),
            ("page-map", "pg-format", false, true),
            ("page-map", "repository", false, false),
            ("pg-format", "page-map", false, false),
            ("xtask", "scratch", false, true),
            ("xtask", "model", false, false),
        ] {
            let package = Package { name: from.into(), ours: vec![Dependency { name: to.into(), dev }] };
            assert_eq!(check(&[package]).is_empty(), allowed, "{from} -> {to}, dev: {dev}");
        }
    }

    #[test]
    fn metadata_is_read() {
        let text = r#"{"packages": [{"name": "journal", "dependencies": [
            {"name": "model", "kind": null, "path": "/x/model"},
            {"name": "scratch", "kind": "dev", "path": "/x/scratch"},
            {"name": "serde", "kind": null}]}]}"#;
        let packages = parse(text).unwrap();
        let edge = |name: &str, dev| Dependency { name: name.into(), dev };
        assert_eq!(packages[0].ours, [edge("model", false), edge("scratch", true)]);
    }
}
