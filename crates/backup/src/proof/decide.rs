//! From what was seen to a verdict. Pure.

use super::receipt::{Check, Outcome, QueryRecord, Verdict};

/// The verdict of a proof that got as far as its checks, with the reasons why it is not "proven".
///
/// *Failed* when anything is known to be wrong with the backup; *not proven* when something that had to be looked at could not be, or
/// can't be judged here. What was never going to be checked ([`Outcome::NotChecked`]) is said in the receipt and changes nothing.
pub(crate) fn verdict(checks: &[Check], queries: &[QueryRecord]) -> (Verdict, Vec<String>) {
    let mut verdict = Verdict::Proven;
    let mut reasons = Vec::new();
    let mut add = |outcome: Outcome, reason: String| {
        let this = match outcome {
            Outcome::Passed | Outcome::NotChecked => return,
            Outcome::NotComparable | Outcome::Broken => Verdict::NotProven,
            Outcome::Failed => Verdict::Failed,
        };
        verdict = verdict.max(this);
        reasons.push(reason);
    };
    for check in checks {
        let count = check.findings.len() as u64 + check.findings_left_out;
        let first = check.findings.first().map_or("", String::as_str);
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        add(check.outcome, format!("{}: {first}{more}", check.name.words()));
    }
    for query in queries {
        let expected = query.expected.as_ref().map_or(String::new(), |expected| format!(", expected {expected:?}"));
        add(query.outcome, format!("query in {}: {} gave {:?}{expected}", query.database, query.sql, query.got));
    }
    (verdict, reasons)
}

impl super::receipt::CheckName {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::PageChecksums => "pages",
            Self::TablespaceLinks => "tablespace links",
            Self::Databases => "databases",
            Self::Tables => "tables",
            Self::Indexes => "indexes",
            Self::Objects => "objects",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::receipt::CheckName;

    #[test]
    fn the_worst_outcome_decides() {
        let check = |outcome| {
            let mut check = Check::new(CheckName::Indexes, "by amcheck");
            if outcome != Outcome::Passed {
                check.find(outcome, "app.users_pkey: out of order");
            }
            check
        };
        for (outcomes, expected, reasons) in [
            (vec![], Verdict::Proven, 0),
            (vec![Outcome::Passed, Outcome::NotChecked], Verdict::Proven, 0),
            (vec![Outcome::Passed, Outcome::NotComparable], Verdict::NotProven, 1),
            (vec![Outcome::Broken, Outcome::Passed], Verdict::NotProven, 1),
            (vec![Outcome::Failed, Outcome::Broken], Verdict::Failed, 2),
        ] {
            let checks: Vec<Check> = outcomes.into_iter().map(check).collect();
            let (verdict, why) = super::verdict(&checks, &[]);
            assert_eq!((verdict, why.len()), (expected, reasons), "{checks:?}");
        }
    }

    #[test]
    fn a_query_that_gives_something_else_fails() {
        let query = QueryRecord {
            database: "app".into(),
            sql: "select 1".into(),
            expected: Some("2".into()),
            got: "1".into(),
            outcome: Outcome::Failed,
            ms: 1,
        };
        let (verdict, reasons) = verdict(&[], &[query]);
        assert_eq!(verdict, Verdict::Failed);
        assert_eq!(reasons, [r#"query in app: select 1 gave "1", expected "2""#]);
    }
}
