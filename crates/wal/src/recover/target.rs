//! What is wanted: a moment to return to, as PostgreSQL knows them (the manual, "Recovery Target"). Pure.

use jiff::{Timestamp, Zoned, civil::DateTime};
use model::Lsn;

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The end of what is there.
    Latest,
    /// Between two commits, by the clock of the server that wrote them.
    Time(Timestamp),
    /// A position in WAL.
    Lsn(Lsn),
    /// A restore point (`pg_create_restore_point`).
    Name(String),
    /// A transaction; its epoch, if it has one, counts for nothing.
    Xid(u64),
}

/// What the server does when it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Waits, read only: a person looks whether this is the moment.
    #[default]
    Pause,
    /// Begins a timeline of its own and takes writes.
    Promote,
    /// Shuts down.
    Shutdown,
}

impl Action {
    /// As `recovery_target_action` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A text that names no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// A clock time of nowhere.
    #[error(
        "{text:?} says no zone\n  hint: write 2026-11-23T10:05:00Z, 2026-11-23T11:05:00+01:00 or 2026-11-23T11:05:00[Europe/Berlin]; an hour wrong is another database"
    )]
    NoZone {
        /// What was written.
        text: String,
    },
    /// No time.
    #[error(
        "{text:?} is no time ({why})\n  hint: write 2026-11-23T10:05:00Z, 2026-11-23T11:05:00+01:00 or 2026-11-23T11:05:00[Europe/Berlin]"
    )]
    NoTime {
        /// What was written.
        text: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads a time, which must say of which zone.
///
/// # Errors
/// It is none, or says no zone.
pub fn parse_time(text: &str) -> Result<Timestamp, BadTarget> {
    let text = text.trim();
    let error = match text.parse::<Timestamp>() {
        Ok(time) => return Ok(time),
        Err(error) => error,
    };
    if let Ok(zoned) = text.parse::<Zoned>() {
        return Ok(zoned.timestamp());
    }
    if text.parse::<DateTime>().is_ok() {
        return Err(BadTarget::NoZone { text: text.to_owned() });
    }
    Err(BadTarget::NoTime { text: text.to_owned(), why: error.to_string() })
}

impl Target {
    /// The settings that lead PostgreSQL there. All of its ways to say it are set, for a configuration that was restored may have its own, and
    /// two of them are an error.
    #[must_use]
    pub fn settings(&self, inclusive: bool, action: Action) -> Vec<(String, String)> {
        let (name, value) = match self {
            Self::Latest => ("", String::new()),
            Self::Time(time) => ("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()),
            Self::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            Self::Name(name) => ("recovery_target_name", name.clone()),
            Self::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        };
        let kinds = ["", "_time", "_lsn", "_name", "_xid"].map(|kind| format!("recovery_target{kind}"));
        // The one that counts last: to a server even an empty one behind another is one too many.
        let empty = kinds.into_iter().filter(|kind| *kind != name).map(|kind| (kind, String::new()));
        let mut settings: Vec<_> = empty.collect();
        if !name.is_empty() {
            settings.push((name.to_owned(), value));
        }
        settings.push(("recovery_target_inclusive".to_owned(), if inclusive { "on" } else { "off" }.to_owned()));
        settings.push(("recovery_target_action".to_owned(), action.as_str().to_owned()));
        settings
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Latest => write!(f, "the newest moment there is"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Lsn(lsn) => write!(f, "{lsn}"),
            Self::Name(name) => write!(f, "restore point {name:?}"),
            Self::Xid(xid) => write!(f, "transaction {xid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_say_of_which_zone() {
        let expected: Timestamp = "2026-11-23T10:05:00.25Z".parse().unwrap();
        for text in [
            "2026-11-23T10:05:00.25Z",
            " 2026-11-23 10:05:00.25Z",
            "2026-11-23 11:05:00.25+01",
            "2026-11-23T11:05:00.25+01:00",
            "2026-11-23T11:05:00.25+01:00[Europe/Berlin]",
            "2026-11-23T11:05:00.25[Europe/Berlin]",
        ] {
            assert_eq!(parse_time(text), Ok(expected), "{text}");
        }
        for text in ["2026-11-23 10:05:00", "2026-11-23T10:05", "2026-11-23"] {
            assert!(matches!(parse_time(text), Err(BadTarget::NoZone { .. })), "{text}");
        }
        for text in ["", "yesterday", "2026-13-23T10:05:00Z", "10:05"] {
            assert!(matches!(parse_time(text), Err(BadTarget::NoTime { .. })), "{text}");
        }
    }

    #[test]
    fn one_way_is_named_and_the_others_emptied() {
        let time = parse_time("2026-11-23T11:05:00.25+01:00").unwrap();
        let settings = Target::Time(time).settings(false, Action::Pause);
        let value = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("recovery_target_time"), Some("2026-11-23 10:05:00.250000+00"));
        assert_eq!((value("recovery_target_lsn"), value("recovery_target")), (Some(""), Some("")));
        assert_eq!((value("recovery_target_inclusive"), value("recovery_target_action")), (Some("off"), Some("pause")));
        let place = |wanted: &str| settings.iter().position(|(name, _)| name == wanted);
        assert!(place("recovery_target_time") > place("recovery_target_xid"), "{settings:?}");
        let latest = Target::Latest.settings(true, Action::Promote);
        assert!(latest.iter().take(5).all(|(_, value)| value.is_empty()), "{latest:?}");
    }
}
