//! Removing WAL that is older than what is kept.

use std::collections::HashSet;

use super::{
    RANGE, Wal, WalError,
    name::{self, Named},
};
use crate::store::ObjectName;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalPruned {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Wal {
    /// Removes all of `line` before `segment`, and the chunks of segments that are whole. Histories stay: they are small, and say where
    /// lines come from.
    ///
    /// The caller has computed `segment` from the live backups and knows that none needs an earlier one; see the decision record for the
    /// record of the log that is to prove it. What a listing shows late is removed by the next prune.
    ///
    /// # Errors
    /// The store failed. Run again, it goes on.
    pub fn prune_before(&self, line: u32, segment: u64) -> Result<WalPruned, WalError> {
        let store = &self.inner.vault.store;
        let (mut old, mut chunks, mut whole) = (Vec::new(), Vec::new(), HashSet::new());
        store.list(&self.names.line(line), &mut |object, size| match name::parse(object.as_str()) {
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
        let mut remove = |object: &ObjectName, size: u64| -> Result<(), WalError> {
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
}
