//! PostgreSQL's releases, as far as they were known when this was written.
//!
//! Source: postgresql.org, "Versioning Policy" and the release announcement of 14 May 2026. Beyond [`KNOWN_UNTIL`] nothing is claimed: a server that runs
//! the newest release of this table is then *not assessed*, because a newer one may be out.

use jiff::civil::{Date, date};

/// The last day of each major version, with its newest minor release that is known here.
const RELEASES: &[(u32, Date, u32)] = &[
    (10, date(2022, 11, 10), 23),
    (11, date(2023, 11, 9), 22),
    (12, date(2024, 11, 21), 22),
    (13, date(2025, 11, 13), 23),
    (14, date(2026, 11, 12), 23),
    (15, date(2027, 11, 11), 18),
    (16, date(2028, 11, 9), 14),
    (17, date(2029, 11, 8), 10),
    (18, date(2030, 11, 14), 4),
];

/// When the table was written: the newest release in it.
pub const KNOWN: Date = date(2026, 5, 14);
/// The day before the next planned release: from then on the newest here may be old.
const KNOWN_UNTIL: Date = date(2026, 8, 12);

/// The last day on which a major version gets fixes; absent for those that are not in the table.
pub fn end(major: u32) -> Option<Date> {
    RELEASES.iter().find(|(version, ..)| *version == major).map(|(_, end, _)| *end)
}

/// How a minor release stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The newest that there is.
    Newest,
    /// At least this one is newer.
    Behind(u32),
    /// The newest that is known here, and by its date there may be newer ones.
    Unknown,
}

/// How a release stands today.
pub fn standing(major: u32, minor: u32, today: Date) -> Standing {
    let Some((_, end, newest)) = RELEASES.iter().find(|(version, ..)| *version == major) else {
        return Standing::Unknown;
    };
    match minor {
        minor if minor < *newest => Standing::Behind(*newest),
        // Of a version that had ended before the table was written its newest release is its last.
        _ if *end < KNOWN || today <= KNOWN_UNTIL => Standing::Newest,
        _ => Standing::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings() {
        let (before, after) = (date(2026, 6, 1), date(2026, 11, 23));
        for (major, minor, today, expected) in [
            (17, 6, before, Standing::Behind(10)),
            (17, 6, after, Standing::Behind(10)),
            (17, 10, before, Standing::Newest),
            (17, 10, after, Standing::Unknown),
            (17, 11, after, Standing::Unknown),
            (13, 23, after, Standing::Newest),
            (13, 20, after, Standing::Behind(23)),
            (19, 0, after, Standing::Unknown),
        ] {
            assert_eq!(standing(major, minor, today), expected, "{major}.{minor} on {today}");
        }
    }

    #[test]
    fn ends_come_in_order() {
        assert!(RELEASES.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
    }
}
