//! Retention: which backups are kept, which expire, and why. Pure: the same backups, rules and time give the same plan.
//!
//! Counts, not ages: `daily = 7` keeps one backup of each of the newest seven days *that have one*, so a host that was off for a
//! month, or a clock that jumped ahead, expires nothing by it. Only `point_in_time` is an age, and it keeps one backup more than it
//! has to cover: the one from which the whole window can be replayed.

mod wal;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{Backup, Refusal, State};
use crate::id::BackupId;

pub use wal::{LineSpan, wal_expire};

/// What is kept. Each rule keeps what it keeps; a backup that no rule keeps expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks, from Monday on.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// The newest of each of so many years.
    pub yearly: u32,
    /// What recovery to any moment of this time up to now begins from.
    pub point_in_time: Option<SignedDuration>,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            last: 1,
            daily: 7,
            weekly: 4,
            monthly: 6,
            yearly: 0,
            point_in_time: Some(SignedDuration::from_hours(14 * 24)),
        }
    }
}

/// Why a backup is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// It is one of the newest.
    Last,
    /// It is the newest of this day.
    Day(String),
    /// It is the newest of this week.
    Week(String),
    /// It is the newest of this month.
    Month(String),
    /// It is the newest of this year.
    Year(String),
    /// Recovery to a moment in the window begins from it.
    PointInTime,
    /// No backup of its cluster was proven after it.
    LastProven,
    /// It failed its proof, and none after it has passed one.
    Failed,
    /// A person wants it kept: why.
    Pinned(String),
    /// A session uses it, or writes it.
    InUse,
    /// What an interrupted backup can be resumed from: none was completed after it.
    Resumable,
}

/// Why a backup expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// No rule keeps it.
    NoRule,
    /// It failed its proof, and one after it has passed.
    Failed,
    /// It is unfinished, and one after it is complete.
    Unfinished,
}

impl Gone {
    /// In words, as the record says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no rule of the retention keeps it",
            Self::Failed => "it failed its proof, and a later one has passed",
            Self::Unfinished => "it is unfinished, and a later one is complete",
        }
    }
}

/// The verdict on every backup of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is kept, each with at least one reason.
    pub kept: BTreeMap<BackupId, Vec<Kept>>,
    /// What expires.
    pub expired: BTreeMap<BackupId, Gone>,
}

/// Judges every backup of `cluster` by `keep`. Days, weeks and months are those of `zone`; a backup's time is that of its commit.
///
/// # Errors
/// `ClockBehind` where `now` is earlier than the newest record: then nothing may expire.
pub fn plan(state: &State, cluster: &str, keep: &Keep, now: Timestamp, zone: &TimeZone) -> Result<Plan, Refusal> {
    if let Some(newest) = state.newest_time().filter(|&newest| now < newest) {
        return Err(Refusal::ClockBehind { now, newest });
    }
    let mut all: Vec<_> =
        state.backups().iter().filter(|(_, b)| b.cluster == cluster).map(|(&id, b)| (id, b)).collect();
    // Newest first, by the order of the log: it can't be wrong.
    all.sort_by_key(|(_, backup)| std::cmp::Reverse(backup.committed));
    // What failed its proof fills no rule's place.
    let good: Vec<_> = all.iter().filter(|(_, b)| b.complete && b.proven() != Some(false)).copied().collect();

    let mut plan = Plan::default();
    let mut keeps = |id: BackupId, why: Kept| plan.kept.entry(id).or_default().push(why);
    for (id, _) in good.iter().take(keep.last.max(1) as usize) {
        keeps(*id, Kept::Last);
    }
    let mut calendar = |count: u32, name: fn(&Zoned) -> String, why: fn(String) -> Kept| {
        let mut seen: Vec<String> = Vec::new();
        for (id, backup) in &good {
            let bucket = name(&backup.time.to_zoned(zone.clone()));
            if seen.len() < count as usize && !seen.contains(&bucket) {
                keeps(*id, why(bucket.clone()));
                seen.push(bucket);
            }
        }
    };
    calendar(keep.daily, |t| t.strftime("%Y-%m-%d").to_string(), Kept::Day);
    calendar(keep.weekly, |t| t.strftime("%G-W%V").to_string(), Kept::Week);
    calendar(keep.monthly, |t| t.strftime("%Y-%m").to_string(), Kept::Month);
    calendar(keep.yearly, |t| t.strftime("%Y").to_string(), Kept::Year);
    if let Some((id, _)) = keep.point_in_time.and_then(|window| window_base(&good, now, window)) {
        keeps(id, Kept::PointInTime);
    }
    let proven = state.newest_proven_of(cluster);
    if let Some((id, _)) = proven {
        keeps(id, Kept::LastProven);
    }
    let newest = state.newest_of(cluster);
    for &(id, backup) in &all {
        if let Some(note) = &backup.pinned {
            keeps(id, Kept::Pinned(note.clone()));
        }
        let writing = !backup.complete && state.sessions().contains_key(&backup.session);
        if writing || state.holder_of(id).is_some() {
            keeps(id, Kept::InUse);
        }
        let later =
            |other: Option<(BackupId, &Backup)>| other.is_some_and(|(_, other)| other.committed > backup.committed);
        if !backup.complete && !later(newest) {
            keeps(id, Kept::Resumable);
        }
        if backup.proven() == Some(false) && !later(proven) {
            keeps(id, Kept::Failed);
        }
    }
    for (id, backup) in all {
        let why = match (backup.complete, backup.proven()) {
            (false, _) => Gone::Unfinished,
            (true, Some(false)) => Gone::Failed,
            (true, _) => Gone::NoRule,
        };
        if !plan.kept.contains_key(&id) {
            plan.expired.insert(id, why);
        }
    }
    Ok(plan)
}

/// The newest backup that is not younger than the window; where all are younger, the oldest: it reaches back furthest.
fn window_base<'a>(
    good: &[(BackupId, &'a Backup)],
    now: Timestamp,
    window: SignedDuration,
) -> Option<(BackupId, &'a Backup)> {
    let old_enough =
        now.checked_sub(window).ok().and_then(|start| good.iter().find(|(_, backup)| backup.time <= start));
    old_enough.or(good.last()).copied()
}

#[cfg(test)]
mod tests;
