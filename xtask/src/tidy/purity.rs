//! Pure modules: facts and settings in, a decision out. No runtime, no I/O, no clock.

use syn::{spanned::Spanned, visit::Visit};

use super::{Finding, SourceFile};

/// A module is pure when it, or one that it lies in, has one of these names.
const PURE_NAMES: &[&str] = &["controller", "decide", "diagnose", "plan", "policy"];
/// Crates that are pure but for these modules.
const PURE_CRATES: &[(&str, &[&str])] =
    &[("audit", &["source"]), ("policy", &[]), ("services", &["driver", "evidence", "probe", "execute", "look"])];
/// What a pure module must not name; a path is forbidden when it starts with one of these.
const FORBIDDEN: &[&[&str]] = &[
    &["tokio"],
    &["tokio_postgres"],
    &["rusqlite"],
    &["reqwest"],
    &["hyper"],
    &["rustix"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "SystemTime"],
    &["std", "time", "Instant", "now"],
    &["Instant", "now"],
    &["SystemTime"],
    &["Timestamp", "now"],
    &["Zoned", "now"],
    &["jiff", "Timestamp", "now"],
    &["jiff", "Zoned", "now"],
];

/// What it may name all the same: the bytes of a path are data.
const ALLOWED: &[&[&str]] = &[&["std", "os", "unix", "ffi"]];

/// Looks at every pure module, its tests excepted.
pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    files.iter().filter(|file| is_pure(&file.path)).flat_map(check_file).collect()
}

fn is_pure(path: &str) -> bool {
    let Some((owner, inside)) = path.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/")) else {
        return false;
    };
    let Some(module) = inside.strip_suffix(".rs") else { return false };
    if let Some((_, exceptions)) = PURE_CRATES.iter().find(|(name, _)| *name == owner) {
        return !module.split('/').any(|part| exceptions.contains(&part));
    }
    module.split('/').any(|part| PURE_NAMES.contains(&part))
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    match syn::parse_file(&file.text) {
        Ok(syntax) => {
            let mut visitor = Visitor { path: &file.path, findings: Vec::new() };
            visitor.visit_file(&syntax);
            visitor.findings
        }
        Err(error) => vec![Finding::new(&file.path, format!("can't be parsed: {error}"))],
    }
}

struct Visitor<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl Visitor<'_> {
    fn look_at(&mut self, path: &[String], line: usize) {
        let starts =
            |forbidden: &&&[&str]| path.len() >= forbidden.len() && path.iter().zip(**forbidden).all(|(a, b)| a == b);
        if ALLOWED.iter().any(|allowed| starts(&allowed)) {
            return;
        }
        if let Some(forbidden) = FORBIDDEN.iter().find(starts) {
            let what = format!("a pure module names {}; pass the fact in instead", forbidden.join("::"));
            self.findings.push(Finding::new(format!("{}:{line}", self.path), what));
        }
    }

    /// `use` trees nest: every leaf is a path of its own.
    fn look_at_use(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.look_at_use(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.look_at_use(item, prefix)),
            syn::UseTree::Name(syn::UseName { ident }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                let leaf = prefix.iter().cloned().chain([ident.to_string()]).filter(|part| part != "self");
                self.look_at(&leaf.collect::<Vec<_>>(), line_of(ident.span()));
            }
            syn::UseTree::Glob(glob) => self.look_at(prefix, line_of(glob.span())),
        }
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !attributes.iter().any(is_cfg_test) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.look_at_use(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.look_at(&parts, line_of(path.span()));
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // A macro's arguments are no syntax yet: look for the paths in their text, which parts all tokens by spaces.
        let tokens = call.tokens.to_string();
        let parts: Vec<String> = tokens.split_whitespace().filter(|token| *token != "::").map(str::to_owned).collect();
        for start in 0..parts.len() {
            self.look_at(&parts[start..], line_of(call.span()));
        }
        syn::visit::visit_macro(self, call);
    }
}

fn line_of(span: proc_macro2::Span) -> usize {
    span.start().line
}

fn is_cfg_test(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile { path: path.into(), text: text.into() };
        check(&[file]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_bytes_of_a_path_are_data() {
        let path = "crates/backup/src/restore/plan.rs";
        assert_eq!(findings(path, "use std::{ffi::OsStr, os::unix::ffi::OsStrExt};"), Vec::<String>::new());
        assert_eq!(findings(path, "use std::os::unix::fs::MetadataExt;").len(), 1);
    }

    #[test]
    fn impure_modules_are_found() {
        for bad in [
            "use tokio::time::sleep;",
            "use std::{collections::BTreeMap, fs};",
            "use std::fs as files;",
            "use std::fs::{self};",
            "use std::net::*;",
            "fn f() { let now = std::time::Instant::now(); }",
            "fn f() { let now = Instant::now(); }",
            "fn f() -> SystemTime { loop {} }",
            "fn f() { g(jiff::Timestamp::now()); }",
            "fn f() { assert!(x < Zoned::now()); }",
            "fn f() { tokio::spawn(async {}); }",
            "fn f() { vec![std::env::var(\"A\")]; }",
            "mod inner { use std::process::Command; }",
            "not rust",
        ] {
            assert_eq!(findings("crates/a/src/decide.rs", bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn pure_modules_pass() {
        for good in [
            "use std::time::{Duration, Instant}; fn f(now: Instant) -> Duration { now.elapsed_since() }",
            "use jiff::Timestamp; fn f(now: Timestamp) -> Timestamp { now }",
            "// std::fs is not named here\nconst S: &str = \"tokio::spawn Instant::now()\";",
            "#[cfg(test)] mod tests { use std::fs; fn f() { let now = Instant::now(); } }",
            "use crate::plan::fs; fn f() { fs::read(); }",
        ] {
            assert_eq!(findings("crates/a/src/decide.rs", good), [""; 0], "{good}");
        }
    }

    #[test]
    fn which_modules_are_pure() {
        for (path, pure) in [
            ("crates/alerting/src/decide.rs", true),
            ("crates/alerting/src/decide/rules.rs", true),
            ("crates/autovacuum/src/controller.rs", true),
            ("crates/incident/src/diagnose/mod.rs", true),
            ("crates/alerting/src/outbox.rs", false),
            ("crates/alerting/src/decided.rs", false),
            ("crates/alerting/tests/decide.rs", false),
            ("crates/policy/src/outbox.rs", true),
            ("crates/policy/tests/ladder/world.rs", false),
            ("crates/audit/src/facts/collect.rs", true),
            ("crates/audit/src/source.rs", false),
            ("crates/services/src/discover/dsn.rs", true),
            ("crates/services/tests/speed.rs", false),
            ("crates/audit/tests/corpus.rs", false),
        ] {
            assert_eq!(!findings(path, "use std::fs;").is_empty(), pure, "{path}");
        }
    }
}
