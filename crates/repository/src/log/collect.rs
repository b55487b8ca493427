//! Removing what nobody needs: condemn, delete, remove, forget. Killed anywhere and run again, or run twice at once, it ends the same.

use super::{Body, Log, LogError, Numbers, PackStatus};
use crate::{id::PackId, store::ObjectName};

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs that it condemned.
    pub condemned: u64,
    /// Packs that it removed.
    pub removed: u64,
    /// Their bytes, with those of objects that writers which died left half written.
    pub bytes: u64,
}

impl Log {
    /// Condemns the packs that no live backup or draft refers to, removes the condemned, and finishes what an earlier collection
    /// began. `object` says where a pack lies.
    ///
    /// Running sessions are not asked: what they share is kept by their bases, and where somebody expired those all the same, their
    /// commit is refused.
    ///
    /// # Errors
    /// Whatever the store or the log says. Nothing is lost: the next collection goes on.
    pub fn collect(&mut self, object: &dyn Fn(PackId) -> ObjectName) -> Result<Collected, LogError> {
        let mut collected = Collected::default();
        self.refresh()?;
        // A collector before us may have died between its `delete` and its `deleted`.
        self.remove_deleting(object, &mut collected)?;
        let mut condemned = 0;
        self.append(|state| {
            let packs = state.packs_that(PackStatus::Live, |pack| pack.references == 0);
            condemned = packs.len();
            Ok((!packs.is_empty()).then_some(Body::Condemn { packs }))
        })?;
        collected.condemned = condemned;
        // Judged at its own tip: whatever a commit revived since is live again.
        self.append(|state| {
            let packs = state.packs_that(PackStatus::Condemned, |pack| pack.references == 0);
            Ok((!packs.is_empty()).then_some(Body::Delete { packs }))
        })?;
        self.remove_deleting(object, &mut collected)?;
        // Not of the log, but of the same kind: what nobody will ever refer to.
        match self.store().clean_leftovers() {
            Ok(leftovers) => collected.bytes += leftovers.bytes,
            Err(error) => tracing::warn!(%error, "what dead writers left half written stays"),
        }
        Ok(collected)
    }

    fn remove_deleting(
        &mut self,
        object: &dyn Fn(PackId) -> ObjectName,
        collected: &mut Collected,
    ) -> Result<(), LogError> {
        let doomed = self.state().packs_that(PackStatus::Deleting, |_| true);
        let packs: Vec<_> = doomed.iter().filter_map(|number| self.state().pack(number)).cloned().collect();
        for pack in packs {
            self.store().delete(&object(pack.id))?;
            collected.removed += 1;
            collected.bytes += pack.bytes;
        }
        self.append(|state| {
            // Another collector may have said so for some of them.
            let still = |number: &u32| state.pack(*number).is_some_and(|pack| pack.status == PackStatus::Deleting);
            let packs: Numbers = doomed.iter().filter(still).collect();
            Ok((!packs.is_empty()).then_some(Body::Deleted { packs }))
        })?;
        Ok(())
    }
}
