//! What the guards before this one saw: WAL that is missing stays missing, whoever looks.

use journal::{EventQuery, JournalError, Reader};
use model::{Event, EventKind, reading::Gap};

/// Events that say whether something is missing.
const KINDS: [&str; 3] = ["wal_missing", "backup_finished", "repository_declared"];
/// How many of them are looked at, newest first: gaps are rare, and backups come a few times a day.
const EVENTS_MAX: usize = 200;

/// The gap in this repository's WAL behind which no backup begins yet. A journal that can't be read knows of none.
pub fn gap(reader: Result<Reader, JournalError>, repository: &str) -> Option<Gap> {
    let query = EventQuery {
        kinds: KINDS.map(str::to_owned).to_vec(),
        newest: true,
        limit: EVENTS_MAX,
        ..EventQuery::default()
    };
    match reader.and_then(|mut reader| reader.events(&query)) {
        Ok(found) => judge(&found.events, repository),
        Err(error) => {
            tracing::warn!(%error, "whether WAL is missing from before is not known");
            None
        }
    }
}

/// From events, oldest first. Pure.
fn judge(events: &[Event], repository: &str) -> Option<Gap> {
    events.iter().fold(None, |gap: Option<Gap>, event| match &event.kind {
        EventKind::WalMissing { from, to, .. } => Some(Gap { from: *from, to: *to }),
        EventKind::BackupFinished { stop_lsn, .. } => gap.filter(|gap| gap.to > *stop_lsn),
        // What lacks in another one says nothing of this one.
        EventKind::RepositoryDeclared { repository: declared, .. } if declared != repository => None,
        _ => gap,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{ByteSize, EventId, Lsn, Moment};

    use super::*;

    fn event(kind: EventKind) -> Event {
        let at = Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_us: 0 };
        Event { id: EventId(1), at, kind }
    }

    fn missing(from: u64, to: u64) -> Event {
        event(EventKind::WalMissing { timeline: 1, from: Lsn(from), to: Lsn(to) })
    }

    fn backup(stop_lsn: u64) -> Event {
        event(EventKind::BackupFinished {
            backup: "a5".into(),
            consistent_at: jiff::Timestamp::UNIX_EPOCH,
            stop_lsn: Lsn(stop_lsn),
            took: Duration::ZERO,
            size: ByteSize(1),
            stored: ByteSize(1),
            corrupt_pages: 0,
        })
    }

    fn declared(repository: &str) -> Event {
        event(EventKind::RepositoryDeclared { repository: repository.into(), schedule: None, max_age: None })
    }

    #[test]
    fn a_gap_stays_until_a_backup_begins_behind_it() {
        let gap = |from, to| Some(Gap { from: Lsn(from), to: Lsn(to) });
        for (what, events, expected) in [
            ("nothing", vec![], None),
            ("a gap", vec![declared("here"), missing(5, 9)], gap(5, 9)),
            ("the newest counts", vec![missing(5, 9), missing(20, 30)], gap(20, 30)),
            ("a backup before its end", vec![missing(5, 9), backup(8)], gap(5, 9)),
            ("a backup behind it", vec![missing(5, 9), backup(9)], None),
            ("one behind that", vec![missing(5, 9), backup(9), missing(20, 30)], gap(20, 30)),
            ("of another repository", vec![missing(5, 9), declared("there"), declared("here")], None),
        ] {
            assert_eq!(judge(&events, "here"), expected, "{what}");
        }
    }
}
