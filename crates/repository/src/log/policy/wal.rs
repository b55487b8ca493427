//! Retention of WAL: what leads on from which backup, and what may go. Pure.
//!
//! Each backup brings the WAL that makes it consistent, so none is lost with a stream's. What is kept of the stream leads on from
//! - the backup from which the whole window (`point_in_time`) can be replayed, and all after it; without a window, the newest;
//! - the last proven one: what nobody has restored yet must not be the only way to the present;
//! - what another cluster's name, an open session or a person's hold needs.
//!
//! Older backups that other rules keep (the first of a month) can then be restored to their own moment only, and the record says so.
//!
//! Lines are numbers here: one has a higher number than those that it comes from. So nothing of a line goes that any of these backups, of
//! this or a lower line, might lead on by; and a line below all of them goes as a whole. Histories are not asked: one that comes late or never
//! keeps nothing from being safe.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, tz::TimeZone};

use super::{Keep, plan, window_base};
use crate::{
    id::BackupId,
    log::{Backup, Purpose, Refusal, State, WalExpire, WalStart, judge::WAL_LINES_MAX},
};

/// What a listing showed of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSpan {
    /// The first segment of which anything is there.
    pub first: u64,
    /// The number behind the last one.
    pub end: u64,
}

/// What of `stream` may go by the rules of `cluster`: `None` where nothing does. `lines`: what is there.
///
/// # Errors
/// `ClockBehind` where `now` is earlier than the newest record: then nothing may expire.
pub fn wal_expire(
    state: &State,
    (cluster, stream): (&str, &str),
    keep: &Keep,
    (now, zone): (Timestamp, &TimeZone),
    lines: &BTreeMap<u32, LineSpan>,
) -> Result<Option<WalExpire>, Refusal> {
    let expired = plan(state, cluster, keep, now, zone)?.expired;
    let mut all: Vec<_> =
        state.backups().iter().filter(|(_, b)| b.cluster == cluster && b.complete).map(|(&id, b)| (id, b)).collect();
    all.sort_by_key(|(_, backup)| std::cmp::Reverse(backup.committed));
    let good: Vec<_> = all.iter().filter(|(_, b)| b.proven() != Some(false)).copied().collect();
    let newest = good.first().or(all.first()).copied();
    let Some((_, anchor)) = keep.point_in_time.and_then(|window| window_base(&good, now, window)).or(newest) else {
        return Ok(None);
    };
    let proven = state.newest_proven_of(cluster).map(|(id, _)| id);
    let wanted = |backup: &Backup| backup.cluster != cluster || backup.committed >= anchor.committed;
    // What an older program made says nothing of its WAL, and may lead on by any of it.
    let unknown = |id: &BackupId, backup: &Backup| {
        let counts = backup.committed >= anchor.committed && !expired.contains_key(id) || Some(*id) == proven;
        counts && backup.wal.is_none()
    };
    if all.iter().any(|(id, backup)| unknown(id, backup)) {
        return Ok(None);
    }
    let needs: Vec<&WalStart> = state
        .backups()
        .iter()
        .filter(|(id, backup)| wanted(backup) && !expired.contains_key(id) || Some(**id) == proven)
        .filter_map(|(_, backup)| backup.leads_on())
        .chain(state.sessions().values().flat_map(|session| &session.wal))
        .filter(|start| start.stream == stream)
        .collect();
    let ours = || all.iter().filter_map(|(_, backup)| backup.leads_on()).any(|start| start.stream == stream);
    let moved_on = anchor.wal.as_ref().is_some_and(|start| start.stream != stream) && ours();
    if needs.is_empty() && !moved_on {
        // Nobody knows what it is good for.
        return Ok(None);
    }
    // A backup that is being made may be of a line that none of the others is of.
    let in_work = state.sessions().values().any(|session| session.purpose == Purpose::Backup);
    let newest_line = lines.keys().next_back().copied();
    let floor = |line: u32, span: &LineSpan| {
        let first = needs.iter().filter(|start| start.line <= line).map(|start| start.segment).min();
        first.or_else(|| (!in_work && (moved_on || Some(line) != newest_line)).then_some(span.end))
    };
    let lines: Vec<(u32, u64)> = lines
        .iter()
        .filter_map(|(&line, span)| Some((line, floor(line, span)?, span.first)))
        .filter(|&(line, first, there)| first > state.wal_floor(stream, line) && there < first)
        .map(|(line, first, _)| (line, first))
        .take(WAL_LINES_MAX)
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let loses =
        |start: &WalStart| start.stream == stream && lines.iter().any(|&(line, first)| start.needs_before(line, first));
    let cut: BTreeSet<_> =
        state.backups().iter().filter(|(_, backup)| backup.leads_on().is_some_and(loses)).map(|(&id, _)| id).collect();
    Ok(Some(WalExpire { stream: stream.to_owned(), lines, cut: cut.into_iter().collect() }))
}
