//! The facade's keys: slots that come and go, and what the log and this host remember of them.

use zeroize::Zeroizing;

use crate::{
    error::RepositoryError,
    id::SlotId,
    key::{Opened, RecoveryKey, Secret, Slot},
    log::{KeySlot, State},
    repository::Inner,
};

/// The keys of a repository.
#[derive(Debug)]
pub struct RepositoryKeys<'a> {
    inner: &'a Inner,
}

impl<'a> RepositoryKeys<'a> {
    pub(crate) fn of(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// The slots.
    pub fn list(&self) -> Vec<Slot> {
        self.inner.opened().slots()
    }

    /// Adds a slot for `secret`.
    ///
    /// # Errors
    /// There are too many, or the store failed.
    pub fn add(&self, secret: &Secret, label: &str) -> Result<SlotId, RepositoryError> {
        let keys = self.inner.vault.keys.ring();
        let (opened, slot) = self.inner.key_store.add(&keys, secret, self.inner.cost, label)?;
        self.now(opened)?;
        Ok(slot)
    }

    /// Removes a slot. Whoever knew its secret and kept a copy of the old key object could still open what exists: rotate, where
    /// that matters.
    ///
    /// # Errors
    /// There is no such slot, or none but recovery keys' would be left.
    pub fn remove(&self, slot: SlotId) -> Result<(), RepositoryError> {
        let keys = self.inner.vault.keys.ring();
        self.now(self.inner.key_store.remove(&keys, slot)?)
    }

    /// Makes a new master key for all that is written from now on; what exists stays as it is. Only the given secrets open the
    /// repository afterwards. A recovery key that is not among them is void: export a new one.
    ///
    /// # Errors
    /// None but recovery keys are given, or the store failed.
    pub fn rotate(&self, secrets: &[Secret]) -> Result<(), RepositoryError> {
        let keys = self.inner.vault.keys.ring();
        self.now(self.inner.key_store.rotate(&keys, secrets, self.inner.cost)?)
    }

    /// Makes a recovery key and returns what goes on paper, this once. It does not count before it is confirmed.
    ///
    /// # Errors
    /// There are too many slots, or the store failed.
    pub fn export_recovery_key(&self, label: &str) -> Result<Zeroizing<String>, RepositoryError> {
        let keys = self.inner.vault.keys.ring();
        let (opened, recovery) = self.inner.key_store.export_recovery(&keys, label)?;
        self.now(opened)?;
        Ok(recovery.text())
    }

    /// Confirms a recovery key, typed in from the paper.
    ///
    /// # Errors
    /// It opens no slot.
    pub fn confirm_recovery_key(&self, recovery: &RecoveryKey) -> Result<(), RepositoryError> {
        let keys = self.inner.vault.keys.ring();
        self.now(self.inner.key_store.confirm_recovery(&keys, recovery)?)
    }

    /// Goes on with these keys, and says so in the log: from that record on, nobody with older keys can append.
    fn now(&self, opened: Opened) -> Result<(), RepositoryError> {
        let before = self.inner.opened().slots();
        let after = opened.slots();
        let (tip, epoch) = (opened.tip, opened.keys.newest());
        let generation = tip.generation;
        self.inner.vault.keys.replace(opened.keys.clone());
        *self.inner.opened() = opened;
        self.inner.remember_keys(tip);
        let mut log = self.inner.log();
        for gone in before.iter().filter(|slot| !after.iter().any(|kept| kept.id == slot.id)) {
            log.key_slot(gone.id, None)?;
        }
        let info = |slot: &Slot| {
            serde_json::json!({
                "kind": slot.kind, "label": slot.label, "confirmed": slot.confirmed, "generation": generation, "epoch": epoch,
            })
        };
        for slot in &after {
            let info = info(slot);
            let known = log.state().key_slots().get(&slot.id);
            let same =
                |found: &KeySlot| found.info["confirmed"] == info["confirmed"] && found.info["epoch"] == info["epoch"];
            if !known.is_some_and(same) {
                log.key_slot(slot.id, Some(&info))?;
            }
        }
        // A removal alone names no generation: the first slot that stays does, so that the log always tells the newest.
        if newest_in(log.state()) < Some(generation)
            && let Some(first) = after.first()
        {
            log.key_slot(first.id, Some(&info(first)))?;
        }
        Ok(())
    }
}

/// The newest generation of keys of which the log tells.
pub(crate) fn newest_in(state: &State) -> Option<u32> {
    let told = state.key_slots().values().filter_map(|slot| slot.info["generation"].as_u64());
    told.max().and_then(|generation| u32::try_from(generation).ok())
}
