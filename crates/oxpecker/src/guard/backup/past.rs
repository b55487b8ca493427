//! What the journal says of the runs before this guard: when the repository became known, how often the newest runs failed.

use std::time::Duration;

use backup::schedule::runs::Runs;
use jiff::Timestamp;
use journal::{EventQuery, JournalError, Reader};
use model::{Event, EventKind};

/// Events that tell how a run ended, and which.
const ENDS: [&str; 4] = ["backup_finished", "backup_failed", "proof_finished", "proof_failed"];

/// What a guard takes over.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The runs, as far as the journal tells: when a backup was made, the repository tells itself.
    pub runs: Runs,
    /// Why the newest run failed.
    pub error: Option<String>,
    /// The newest backup that a guard made and that has no proof yet: its id and how often its proof failed.
    pub unproven: Option<(String, u32)>,
    /// The declaration is as it was, so that it need not be recorded again.
    pub declared: bool,
}

/// How the repository is declared now.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a> {
    pub repository: &'a str,
    pub schedule: Option<&'a str>,
    pub max_age: Option<Duration>,
}

/// Reads the journal. One that can't be read is none: then everything is new.
pub fn recall(reader: Result<Reader, JournalError>, declared: Declared<'_>, now: Timestamp) -> Past {
    let read = || -> Result<(Vec<Event>, Vec<Event>), JournalError> {
        let mut reader = reader?;
        let kinds = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let declarations = reader.events(&EventQuery {
            kinds: kinds(&["repository_declared"]),
            newest: true,
            ..EventQuery::default()
        })?;
        let ends =
            reader.events(&EventQuery { kinds: kinds(&ENDS), newest: true, limit: 20, ..EventQuery::default() })?;
        Ok((declarations.events, ends.events))
    };
    let (declarations, ends) = read().unwrap_or_default();
    judge(&declarations, &ends, declared, now)
}

/// From events, oldest first. Pure.
fn judge(declarations: &[Event], ends: &[Event], declared: Declared<'_>, now: Timestamp) -> Past {
    let ours = declarations.iter().filter(|event| {
        matches!(&event.kind, EventKind::RepositoryDeclared { repository, .. } if repository == declared.repository)
    });
    let known_since = ours.map(|event| event.at.wall).min().unwrap_or(now);
    let as_before = declarations.last().is_some_and(|event| {
        let EventKind::RepositoryDeclared { repository, schedule, max_age } = &event.kind else { return false };
        (repository.as_str(), schedule.as_deref(), *max_age)
            == (declared.repository, declared.schedule, declared.max_age)
    });
    // What failed on another repository says nothing of this one.
    let mut past = Past { runs: Runs::new(known_since), error: None, unproven: None, declared: as_before };
    for event in ends.iter().filter(|event| event.at.wall >= known_since) {
        match &event.kind {
            EventKind::BackupFinished { backup, .. } => {
                past = Past { unproven: Some((backup.clone(), 0)), error: None, runs: Runs::new(known_since), ..past };
            }
            EventKind::ProofFinished { .. } => {
                past = Past { unproven: None, error: None, runs: Runs::new(known_since), ..past };
            }
            EventKind::BackupFailed { error, failures, .. } => {
                (past.runs.failures, past.error) = (*failures, Some(error.clone()));
                past.runs.failed_at = (*failures > 0).then_some(event.at.wall);
            }
            EventKind::ProofFailed { reasons, failures, .. } => {
                (past.runs.failures, past.error) = (*failures, Some(reasons.join("; ")));
                past.runs.failed_at = (*failures > 0).then_some(event.at.wall);
                past.unproven = past.unproven.map(|(backup, _)| (backup, *failures));
            }
            _ => {}
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use model::{ByteSize, EventId, Lsn, Moment};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn event(second: i64, kind: EventKind) -> Event {
        Event { id: EventId(second), at: Moment { wall: at(second), boot_us: 0 }, kind }
    }

    fn declaration(second: i64, repository: &str) -> Event {
        event(second, EventKind::RepositoryDeclared { repository: repository.into(), schedule: None, max_age: None })
    }

    fn finished(second: i64) -> Event {
        let kind = EventKind::BackupFinished {
            backup: "a5".into(),
            consistent_at: at(second),
            stop_lsn: Lsn(1),
            took: Duration::ZERO,
            size: ByteSize(1),
            stored: ByteSize(1),
            corrupt_pages: 0,
        };
        event(second, kind)
    }

    fn proof_failed(second: i64, failures: u32) -> Event {
        let reasons = vec!["no room".to_owned()];
        event(second, EventKind::ProofFailed { backup: None, damaged: false, reasons, failures, retry_at: None })
    }

    fn backup_failed(second: i64, failures: u32) -> Event {
        event(second, EventKind::BackupFailed { error: "no".into(), failures, retry_at: None })
    }

    const HERE: Declared<'static> = Declared { repository: "here", schedule: None, max_age: None };

    #[test]
    fn the_past_is_taken_over() {
        let proven = event(
            40,
            EventKind::ProofFinished {
                backup: "a5".into(),
                consistent_at: at(30),
                took: Duration::ZERO,
                recovery_time: None,
                found_age: None,
            },
        );
        let unproven = |n| Some(("a5".to_owned(), n));
        for (what, ends, failures, failed_at, open) in [
            ("nothing", vec![], 0, None, None),
            ("made", vec![finished(30)], 0, None, unproven(0)),
            ("made and proven", vec![finished(30), proven.clone()], 0, None, None),
            ("failed twice", vec![proven, backup_failed(50, 1), backup_failed(60, 2)], 2, Some(at(60)), None),
            ("made after failures", vec![backup_failed(20, 3), finished(30)], 0, None, unproven(0)),
            ("not proven", vec![finished(30), proof_failed(35, 1)], 1, Some(at(35)), unproven(1)),
            ("interrupted by the guard's end: at once", vec![backup_failed(50, 0)], 0, None, None),
            ("of another repository", vec![backup_failed(5, 7)], 0, None, None),
        ] {
            let past = judge(&[declaration(10, "here")], &ends, HERE, at(100));
            assert_eq!((past.runs.failures, past.runs.failed_at, past.unproven), (failures, failed_at, open), "{what}");
            assert_eq!(past.runs.known_since, at(10), "{what}");
        }
    }

    #[test]
    fn a_repository_is_known_since_its_first_declaration() {
        let past = |all: &[Event]| judge(all, &[], HERE, at(100));
        assert_eq!((past(&[]).runs.known_since, past(&[]).declared), (at(100), false));
        let moved = [declaration(10, "here"), declaration(20, "there")];
        assert_eq!((past(&moved).runs.known_since, past(&moved).declared), (at(10), false));
        assert!(past(&[declaration(20, "there"), declaration(30, "here")]).declared);
    }
}
