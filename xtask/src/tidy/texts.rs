//! What no committed file may hold, and how long a source file may be.

use super::{Finding, SourceFile};

/// A longer file has more than one idea.
const RUST_LINES_MAX: usize = 600;
/// Marks of unfinished work: it is done, or it is written down where people look.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
/// What belongs to somebody's machine or to a registry: a checkout works everywhere. Parted so that this file passes.
const MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/roo", "t/"),
    concat!("/Us", "ers/"),
    concat!("registry.", "npmjs.org"),
    concat!("pypi", ".org/"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("deb.", "debian.org"),
];

/// Looks at every line of every file.
pub fn check(files: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if file.path.ends_with(".rs") && lines > RUST_LINES_MAX {
            findings.push(Finding::new(
                &file.path,
                format!("{lines} lines; more than {RUST_LINES_MAX} are more than one idea: part it"),
            ));
        }
        // Generated: its addresses and names are cargo's.
        if file.path == "Cargo.lock" {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            if let Some(mark) = MARKS.iter().find(|mark| has_word(line, mark)) {
                findings.push(Finding::new(place(), format!("{mark}: finish it, or write it down in the docs")));
            }
            if let Some(path) = MACHINE.iter().find(|path| line.contains(**path)) {
                findings.push(Finding::new(place(), format!("names {path}, which belongs to one machine or registry")));
            }
        }
    }
    findings
}

/// `word` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(start, _)| !line[..start].ends_with(part) && !line[start + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&[SourceFile { path: path.into(), text: text.into() }]).len()
    }

    #[test]
    fn bad_texts_are_found() {
        for (path, text) in [
            ("crates/a/src/lib.rs", format!("// {}: later", MARKS[0])),
            ("docs/a.md", format!("a {}", MARKS[1])),
            ("docs/a.md", format!("{}!", MARKS[2])),
            ("Makefile", format!("cd {}main", MACHINE[0])),
            (".ci/run", format!("curl {}", MACHINE[3])),
            ("crates/a/src/lib.rs", "\n".repeat(RUST_LINES_MAX + 1)),
        ] {
            assert_eq!(findings(path, &text), 1, "{path}: {text}");
        }
    }

    #[test]
    fn good_texts_pass() {
        for (path, text) in [
            ("crates/a/src/lib.rs", "\n".repeat(RUST_LINES_MAX)),
            ("docs/a.md", "\n".repeat(RUST_LINES_MAX + 1)),
            ("Cargo.toml", "todo = \"deny\"".to_owned()),
            ("a.sh", format!("mktemp a.{}{}", MARKS[2], MARKS[2])),
            ("Cargo.lock", MACHINE[5].to_owned()),
        ] {
            assert_eq!(findings(path, &text), 0, "{path}: {text}");
        }
    }
}
