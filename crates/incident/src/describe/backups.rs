//! What the events of backups, proofs and the repository say.

use jiff::Timestamp;
use model::{EventKind, event::BackupTask};

use crate::words::{count, duration, list, quote};

/// How much of an id people need to find the backup: as `backup list` shows it.
const ID_CHARS: usize = 8;

pub(super) fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::RepositoryDeclared { repository, schedule, max_age } => {
            let when = match schedule {
                Some(schedule) => format!("backups by the schedule {}", quote(schedule)),
                None => "no schedule".to_owned(),
            };
            let age = max_age.map_or(String::new(), |age| format!("; a proven backup may be {} old", duration(age)));
            format!("The repository was declared to be {}, with {when}{age}", quote(repository))
        }
        EventKind::BackupStarted { task, reason } => {
            let what = match task {
                BackupTask::Create => "A backup",
                BackupTask::Prove => "The proof of the newest backup",
            };
            format!("{what} began, because {}", quote(reason))
        }
        EventKind::BackupProgressed { stage, done, total, remaining } => {
            let left = remaining.map_or(String::new(), |left| format!(", about {} to go", duration(left)));
            format!("The backup worker was {}: {done} of {total}{left}", quote(stage))
        }
        EventKind::BackupFinished { backup, consistent_at, stop_lsn, took, size, stored, corrupt_pages } => {
            let damage = match corrupt_pages {
                0 => String::new(),
                n => format!("; {} in the source", count(*n, "damaged page")),
            };
            format!(
                "Backup {} was made in {}: {size}, of which {stored} were new; it restores to {}, {stop_lsn}{damage}",
                id(backup),
                duration(*took),
                clock(*consistent_at)
            )
        }
        EventKind::BackupFailed { error, failures, retry_at } => {
            format!("The backup failed{}: {}{}", times(*failures), quote(error), again(*retry_at))
        }
        EventKind::ProofFinished { backup, consistent_at, took, recovery_time, found_age } => {
            let recovery = recovery_time
                .map_or(String::new(), |time| format!("; restored and recovered it serves after {}", duration(time)));
            let found = found_age.map_or(String::new(), |age| {
                format!("; with the WAL behind it, the newest commit recovered was {} old", duration(age))
            });
            format!(
                "Backup {} was proven in {}: it restores to {}{recovery}{found}",
                id(backup),
                duration(*took),
                clock(*consistent_at)
            )
        }
        EventKind::ProofFailed { backup, damaged, reasons, failures, retry_at } => {
            let which = backup.as_ref().map_or_else(|| "The newest backup".to_owned(), |b| format!("Backup {}", id(b)));
            let how = if *damaged { "FAILED its proof" } else { "could not be proven" };
            let why = list(reasons.iter().map(|reason| quote(reason)));
            format!("{which} {how}{}: {why}{}", times(*failures), again(*retry_at))
        }
        EventKind::RetentionApplied { kept, expired, freed } => {
            let gone = match expired.len() {
                0 => "nothing expired".to_owned(),
                n => format!("{} expired ({})", count(n as u64, "backup"), list(expired.iter().map(|b| id(b)))),
            };
            format!("Retention kept {}, {gone}, {freed} were given back", count(*kept, "backup"))
        }
        EventKind::RepositoryProblem { repository, problem } => {
            format!("The repository {} has a problem: {}", quote(repository), quote(problem))
        }
        other => format!("An event of kind {}", other.name()),
    }
}

fn id(backup: &str) -> String {
    quote(&backup.chars().take(ID_CHARS).collect::<String>())
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn times(failures: u32) -> String {
    if failures > 1 { format!(" ({failures} times in a row)") } else { String::new() }
}

fn again(retry_at: Option<Timestamp>) -> String {
    retry_at.map_or(String::new(), |at| format!("; tried again at {}", clock(at)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{ByteSize, Lsn};

    use super::*;

    #[test]
    fn each_kind_has_its_words() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let backup = "a5".repeat(16);
        for (kind, says) in [
            (
                EventKind::RepositoryDeclared {
                    repository: "file:///srv/backup".into(),
                    schedule: Some("0 3 * * *".into()),
                    max_age: Some(Duration::from_secs(26 * 3600)),
                },
                "by the schedule",
            ),
            (EventKind::BackupStarted { task: BackupTask::Prove, reason: "due".into() }, "The proof of the newest"),
            (
                EventKind::BackupProgressed {
                    stage: "copying".into(),
                    done: ByteSize(1 << 30),
                    total: ByteSize(4 << 30),
                    remaining: Some(Duration::from_secs(60)),
                },
                "1.0 GiB of 4.0 GiB",
            ),
            (
                EventKind::BackupFinished {
                    backup: backup.clone(),
                    consistent_at: at,
                    stop_lsn: Lsn(0x200_0100),
                    took: Duration::from_secs(3),
                    size: ByteSize(1 << 30),
                    stored: ByteSize(1 << 20),
                    corrupt_pages: 2,
                },
                "2 damaged pages in the source",
            ),
            (EventKind::BackupFailed { error: "disk".into(), failures: 2, retry_at: Some(at) }, "tried again at 2027"),
            (
                EventKind::ProofFinished {
                    backup: backup.clone(),
                    consistent_at: at,
                    took: Duration::from_secs(9),
                    recovery_time: Some(Duration::from_secs(4)),
                    found_age: Some(Duration::from_secs(3)),
                },
                "serves after",
            ),
            (
                EventKind::ProofFailed {
                    backup: Some(backup.clone()),
                    damaged: true,
                    reasons: vec!["pages".into()],
                    failures: 1,
                    retry_at: None,
                },
                "FAILED its proof",
            ),
            (
                EventKind::RetentionApplied { kept: 7, expired: vec![backup], freed: ByteSize(1 << 20) },
                "1 backup expired",
            ),
            (EventKind::RepositoryProblem { repository: "x".into(), problem: "y".into() }, "has a problem"),
        ] {
            let text = crate::describe(&kind);
            assert!(text.contains(says), "{text}");
            assert!(!text.contains("no words for") && !text.contains("An event of kind"), "{text}");
        }
    }
}
