//! Removing WAL that is older than what is kept: first the record that says so, then the objects.
//!
//! The number in the record never goes down, so a remover that slept for a week removes nothing that counts, and one that was killed is
//! followed by whoever comes next: what the log says has expired is removed whenever it is found.

use std::{
    collections::{BTreeMap, HashSet},
    ops::AddAssign,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    RANGE,
    lines::survey,
    name::{self, Named, Names},
};
use crate::{
    error::RepositoryError,
    log::{
        LogError, State, WalExpire,
        policy::{self, Keep, LineSpan},
    },
    repository::Repository,
    store::{ObjectName, Store, StoreError},
};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalPruned {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl AddAssign for WalPruned {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

impl Repository {
    /// What of the WAL the rules of `cluster` let go, of all streams that backups of it lead on in: one for each stream of which anything
    /// goes. Nothing is changed.
    ///
    /// # Errors
    /// The clock is behind the newest record; the store or the log failed.
    pub fn expirable_wal(
        &self,
        cluster: &str,
        keep: &Keep,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<Vec<WalExpire>, RepositoryError> {
        self.refresh()?;
        let mut all = Vec::new();
        for stream in self.with_state(State::wal_streams) {
            let lines = self.wal_spans(&stream)?;
            let expire =
                self.with_state(|state| policy::wal_expire(state, (cluster, &stream), keep, (now, zone), &lines));
            all.extend(expire.map_err(LogError::Refused)?);
        }
        Ok(all)
    }

    /// Lets it expire. Nothing is removed yet: see [`Repository::remove_expired_wal`]. To be called before backups expire: which streams
    /// were a cluster's is known from these. Returns how many records it wrote, one for each stream at most.
    ///
    /// # Errors
    /// The clock is behind the newest record, or an open session needs some of it; the store or the log failed.
    pub fn expire_wal(
        &self,
        cluster: &str,
        keep: &Keep,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<u32, RepositoryError> {
        self.refresh()?;
        let mut records = 0;
        for stream in self.with_state(State::wal_streams) {
            let lines = self.wal_spans(&stream)?;
            let make = |state: &State| policy::wal_expire(state, (cluster, &stream), keep, (now, zone), &lines);
            records += u32::from(self.inner.log().expire_wal(make)?);
        }
        Ok(records)
    }

    /// Of which segments of a stream anything is there, by line.
    fn wal_spans(&self, stream: &str) -> Result<BTreeMap<u32, LineSpan>, RepositoryError> {
        let lines = survey(&*self.inner.vault.store, &self.wal_names(stream).stream())?;
        Ok(lines
            .into_iter()
            .filter(|(_, seen)| seen.end > seen.first)
            .map(|(line, seen)| (line, seen.span()))
            .collect())
    }

    /// Removes the WAL that has expired, of all clusters, and what receivers that were killed left of segments that are whole. What a
    /// listing shows late is removed by the next call.
    ///
    /// # Errors
    /// The store failed. Run again, it goes on.
    pub fn remove_expired_wal(&self) -> Result<WalPruned, RepositoryError> {
        self.refresh()?;
        let store = &*self.inner.vault.store;
        let mut pruned = WalPruned::default();
        for stream in self.with_state(State::wal_streams) {
            let names = self.wal_names(&stream);
            let floors = self.with_state(|state| state.wal_floors(&stream));
            for (line, seen) in survey(store, &names.stream())? {
                let floor = floors.get(&line).copied().unwrap_or(0);
                // A line of which nothing can go is not listed once more.
                if seen.oldest.is_some_and(|oldest| oldest < floor) || seen.chunks > 0 {
                    pruned += remove_before(store, &names, line, floor)?;
                }
            }
        }
        Ok(pruned)
    }

    fn wal_names(&self, stream: &str) -> Names {
        Names::new(&self.inner.vault.keys.ring(), stream.as_bytes())
    }
}

/// Removes all of `line` before `segment`, and the chunks of segments that are whole. Histories stay: they are small, and say where lines
/// come from.
fn remove_before(store: &dyn Store, names: &Names, line: u32, segment: u64) -> Result<WalPruned, StoreError> {
    let (mut old, mut chunks, mut whole) = (Vec::new(), Vec::new(), HashSet::new());
    store.list(&names.line(line), &mut |object, size| match name::parse(object.as_str()) {
        Some(Named::Segment { segment: found, .. }) if found >= segment => drop(whole.insert(found)),
        Some(Named::Chunk { segment: found, n, .. }) if found >= segment => chunks.push((found, n, object, size)),
        Some(
            Named::Segment { segment: found, .. }
            | Named::Chunk { segment: found, .. }
            | Named::Companion { segment: found, .. },
        ) if found < segment => old.push((object, size)),
        Some(Named::Index { range, .. } | Named::Map { range, .. }) if (range + 1) * RANGE <= segment => {
            old.push((object, size));
        }
        _ => {}
    })?;
    // The last one first: those that stay begin at the first.
    chunks.retain(|(found, ..)| whole.contains(found));
    chunks.sort_unstable_by_key(|(found, n, ..)| std::cmp::Reverse((*found, *n)));
    let mut pruned = WalPruned::default();
    let mut remove = |object: &ObjectName, size: u64| -> Result<(), StoreError> {
        store.delete(object)?;
        pruned.objects += 1;
        pruned.bytes += size;
        Ok(())
    };
    for (_, _, object, size) in &chunks {
        remove(object, *size)?;
    }
    // The oldest first: what is left after a kill has no gap.
    old.sort_unstable();
    for (object, size) in &old {
        remove(object, *size)?;
    }
    Ok(pruned)
}
