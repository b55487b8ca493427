//! Backups in words.

use std::time::Duration;

use backup::BackupInfo;
use jiff::Timestamp;
use repository::{BackupId, BackupRecord};

pub use crate::work::moment;
use crate::{repo, work};

/// The least digits of an id that are shown.
const DIGITS_MIN: usize = 8;

/// How long ago that was.
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    match Duration::try_from(now.duration_since(then)) {
        Ok(age) if age < Duration::from_secs(60) => "just now".to_owned(),
        Ok(age) => format!("{} ago", work::duration(age)),
        Err(_) => "in the future by this host's clock".to_owned(),
    }
}

/// As many digits of each id as tell them apart.
pub fn digits(ids: &[BackupId]) -> usize {
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    (DIGITS_MIN..32)
        .find(|n| texts.iter().enumerate().all(|(at, one)| texts[..at].iter().all(|other| one[..*n] != other[..*n])))
        .unwrap_or(32)
}

/// The moment that a backup restores to: the end of its copying.
pub fn consistent_at(record: &BackupRecord, info: Option<&BackupInfo>) -> Timestamp {
    info.map_or(record.time, |info| info.stop_time)
}

/// What its newest proof found.
pub fn proof(record: &BackupRecord, now: Timestamp) -> String {
    let Some(proof) = record.proofs.last() else { return "not yet".to_owned() };
    let when = ago(now, proof.time);
    if !proof.passed {
        return format!("FAILED {when}");
    }
    match proof.receipt["recovery_time_ms"].as_u64() {
        Some(ms) => format!("{when}, up again in {}", work::duration(Duration::from_millis(ms))),
        None => when,
    }
}

/// How the files were read, in words.
pub fn source(info: &BackupInfo) -> &'static str {
    match info.source {
        backup::info::Source::Direct => "read directly",
        backup::info::Source::BaseBackup => "sent by the server",
    }
}

/// A backup as JSON shows it in a list: its record with what is computed from it.
pub fn summary(record: &BackupRecord) -> serde_json::Value {
    let info = repo::info(record);
    let newest = record.proofs.last();
    serde_json::json!({
        "id": record.id,
        "cluster": record.cluster,
        "committed_at": record.time,
        "consistent_at": consistent_at(record, info.as_ref()),
        "pg_version": info.as_ref().map(|info| info.pg_version.to_string()),
        "system_id": info.as_ref().map(|info| info.system_id.to_string()),
        "timeline": info.as_ref().map(|info| info.timeline),
        "start_lsn": info.as_ref().map(|info| info.start_lsn),
        "stop_lsn": info.as_ref().map(|info| info.stop_lsn),
        "source": info.as_ref().map(|info| info.source),
        "standby": info.as_ref().map(|info| info.standby),
        "bytes": info.as_ref().map_or(record.content_bytes, |info| info.bytes + info.wal_bytes),
        "stored_bytes": record.stored_bytes,
        "corrupt_pages": info.as_ref().map(|info| info.corrupt_pages_count),
        "pinned": record.pinned,
        "proven": record.proven(),
        "proven_at": newest.filter(|proof| proof.passed).map(|proof| proof.time),
        "recovery_time_ms": newest.and_then(|proof| proof.receipt["recovery_time_ms"].as_u64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_long_as_they_must_be() {
        let id = |last: u8| {
            let mut bytes = [7; 16];
            bytes[9] = last;
            BackupId(bytes)
        };
        assert_eq!(digits(&[]), DIGITS_MIN);
        assert_eq!(digits(&[id(1)]), DIGITS_MIN);
        assert_eq!(digits(&[id(1), BackupId([9; 16])]), DIGITS_MIN);
        assert_eq!(digits(&[id(1), id(2)]), 20);
    }

    #[test]
    fn ages_for_people() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        assert_eq!(ago(now, now), "just now");
        assert_eq!(ago(now, "2026-11-22T09:00:00Z".parse().unwrap()), "3 h 0 min ago");
        assert_eq!(ago(now, "2026-11-22T13:00:00Z".parse().unwrap()), "in the future by this host's clock");
    }
}
