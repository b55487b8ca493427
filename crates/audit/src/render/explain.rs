//! One check, at length.

use super::text::wrapped;
use crate::checks::Check;

/// All that is known about a check, as text.
pub fn explain(check: &Check) -> String {
    let needs: Vec<&str> = check.needs.iter().map(|need| need.missing()).collect();
    format!(
        "{}: {}\n\n{}, {}: {}\n\nWhat it did\n{}\n\nWhat it needs\n{}\n\nWhat it does not see\n{}\n\nTo accept it in a file, where its finding stands:\n   \
         # oxpecker: ignore {} until 2030-01-31: why\n",
        check.id,
        check.title,
        check.family.word(),
        check.severity.word(),
        check.family.question(),
        wrapped(check.reason, 3),
        wrapped(&format!("{}; without it, it says \"not assessed\".", crate::words::list(&needs, 9)), 3),
        wrapped(check.limits, 3),
        check.id,
    )
}
