//! The documents: every crate is in ARCHITECTURE.md, every page in the summary, every link leads somewhere.

use std::collections::BTreeSet;

use super::{Finding, SourceFile};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const SUMMARY: &str = "docs/src/SUMMARY.md";
const PAGES: &str = "docs/src/";
const DECISIONS: &str = "docs/decisions/";
const DECISIONS_PAGE: &str = "docs/src/decisions.md";

/// Looks at every document.
pub fn check<'a>(files: &[SourceFile], crates: impl Iterator<Item = &'a str>) -> Vec<Finding> {
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let mut findings = Vec::new();

    let architecture = text_of(ARCHITECTURE);
    for name in crates.filter(|name| !architecture.contains(&format!("`{name}`"))) {
        findings.push(Finding::new(ARCHITECTURE, format!("does not say what `{name}` is and must not know")));
    }

    let summary: BTreeSet<String> = links(text_of(SUMMARY)).map(|(_, link)| resolve(SUMMARY, link)).collect();
    let decisions = text_of(DECISIONS_PAGE);
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let page = file.path.starts_with(PAGES) && file.path != SUMMARY;
        if page && !summary.contains(&file.path) {
            findings.push(Finding::new(&file.path, format!("is in no chapter of {SUMMARY}")));
        }
        if let Some(name) = file.path.strip_prefix(DECISIONS)
            && !decisions.contains(&format!("../decisions/{name}"))
        {
            findings.push(Finding::new(&file.path, format!("is not included by {DECISIONS_PAGE}")));
        }
        findings.extend(dead_links(file, files));
    }
    findings
}

fn dead_links(file: &SourceFile, files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, link) in links(&file.text) {
        let target = resolve(&file.path, link);
        // A directory is there when anything below it is.
        let exists = files.iter().any(|other| {
            other.path == target
                || other.path.strip_prefix(target.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
        });
        if !exists {
            findings
                .push(Finding::new(format!("{}:{line}", file.path), format!("links to {link}, which does not exist")));
        }
    }
    findings
}

/// The relative links of a Markdown text with their lines; not what stands in code.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    let prose = text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    prose.flat_map(|(number, line)| {
        let outside_code = line.split('`').step_by(2);
        outside_code.flat_map(|part| part.split("](").skip(1)).filter_map(move |rest| {
            let link = rest.split([')', '#', ' ']).next()?;
            let elsewhere = link.contains("://") || link.starts_with("mailto:");
            (!link.is_empty() && !elsewhere).then_some((number + 1, link))
        })
    })
}

/// A relative link of the file `from`, as a path from the checkout's root.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(changed: &[(&str, &str)]) -> Vec<String> {
        let good = [
            (ARCHITECTURE, "`model` is ours; see [the book](docs/src/SUMMARY.md)"),
            (SUMMARY, "- [Start](start.md)\n- [Decisions](decisions.md)"),
            (
                "docs/src/start.md",
                "[a](../../ARCHITECTURE.md#b) [c](https://example.org/x) `[d](gone.md)`\n```\n[e](gone.md)\n```",
            ),
            (DECISIONS_PAGE, "{{#include ../decisions/one.md}}"),
            ("docs/decisions/one.md", "text"),
        ];
        let kept = good.iter().filter(|(path, _)| !changed.iter().any(|(other, _)| other == path));
        let files: Vec<SourceFile> =
            kept.chain(changed).map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect();
        check(&files, ["model"].into_iter()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_documents_pass() {
        assert_eq!(findings(&[]), [""; 0]);
    }

    #[test]
    fn gaps_are_found() {
        for (path, text) in [
            (ARCHITECTURE, "nothing of a model"),
            (SUMMARY, "- [Decisions](decisions.md)"),
            ("docs/src/more.md", "in no chapter"),
            ("docs/decisions/two.md", "not included"),
            ("docs/src/start.md", "first\n[a](gone.md)"),
            ("CONTRIBUTING.md", "[a](docs/nowhere/)"),
        ] {
            let found = findings(&[(path, text)]);
            assert_eq!(found.len(), 1, "{path}: {found:?}");
        }
        assert!(findings(&[("docs/src/start.md", "first\n[a](gone.md)")])[0].starts_with("docs/src/start.md:2: "));
    }
}
