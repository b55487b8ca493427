//! The page of the reference that lists all checks.

use std::fmt::Write as _;

use crate::checks::{Family, checks};

/// docs/src/reference/audit.md, made of the registry.
pub fn reference() -> String {
    let mut out = String::from(
        "<!-- Generated from crates/audit by its test `the_reference_is_current`; OXPECKER_BLESS=1 writes it. -->\n\n# Audit checks\n\n\
         What `oxpecker audit` asks, by question, and what each gap did in [a real outage](../introduction.md) or would have done. How to use it: \
         [the guide](../guides/audit.md). A check whose sources are missing says *not assessed*, never *passed*.\n",
    );
    for family in Family::ALL {
        _ = write!(out, "\n## {}\n\n{}\n", capital(family.word()), family.question());
        for check in checks().iter().filter(|check| check.family == family) {
            let needs: Vec<&str> = check.needs.iter().map(|need| need.missing()).collect();
            _ = write!(
                out,
                "\n### `{}`\n\n{} ({}).\n\n*What it did:* {}\n\n*Needs:* {}.\n\n*Does not see:* {}\n",
                check.id,
                check.title,
                check.severity.word(),
                check.reason,
                crate::words::list(&needs, 9),
                check.limits
            );
        }
    }
    out
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
