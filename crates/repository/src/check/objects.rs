//! The check of keys, of the log, and of what else lies in the store.

use super::{Check, FINDINGS_MAX, Fault, fault_of, object};
use crate::{
    error::RepositoryError,
    id::PackId,
    key::key_object_name,
    log::{Footprint, LogError, State, checkpoint_name, record_name},
    pack::pack_of,
    repository_keys::newest_in,
    seal::RecordSeal as _,
    wal::{self, WalError},
};

impl Check<'_> {
    /// All generations of keys.
    pub(super) fn keys(&mut self, state: &State) {
        let inner = &self.repository.inner;
        match inner.key_store().reload(&inner.vault.keys.ring()) {
            Ok(opened) => {
                for (generation, what) in &opened.damaged {
                    self.find(Fault::Damaged, key_object_name(*generation).to_string(), what, Vec::new());
                }
                if let Some(told) = newest_in(state).filter(|told| *told > opened.generation) {
                    let what = "the log tells of it, and it is not there: secrets that were removed open the repository again, and those added since do not";
                    self.find(Fault::Missing, key_object_name(told).to_string(), what, Vec::new());
                }
                self.opened = Some(opened);
            }
            Err(error) => self.find(Fault::Damaged, "key/", &error.to_string(), Vec::new()),
        }
    }

    /// The log from its first record, without checkpoints.
    pub(super) fn log(&mut self, state: &State) {
        let audited = self.repository.with_log(|log| log.audit(&mut |_, _| {}));
        match audited {
            Ok(audited) if audited.digest() == state.digest() => {}
            Ok(audited) => {
                let what = format!(
                    "read from its first record, the log ends in {}, not in {}",
                    audited.digest(),
                    state.digest()
                );
                self.find(
                    Fault::Contradicts,
                    record_name(state.next().saturating_sub(1)).to_string(),
                    &what,
                    Vec::new(),
                );
            }
            Err(error) => {
                let (fault, object) = match &error {
                    LogError::Hole { n } => (Fault::Missing, record_name(*n).to_string()),
                    LogError::Seal { n, .. } | LogError::Garbled { n, .. } | LogError::Chain { n } => {
                        (Fault::Damaged, record_name(*n).to_string())
                    }
                    LogError::Contradiction { n, .. } => (Fault::Contradicts, record_name(*n).to_string()),
                    _ => (Fault::Unreadable, "log/".to_owned()),
                };
                self.find(fault, object, &error.to_string(), Vec::new());
            }
        }
    }

    /// What lies in the store and is not needed by a backup.
    pub(super) fn listing(&mut self, state: &State) -> Result<(), RepositoryError> {
        let inner = &self.repository.inner;
        let (mut foreign, mut unneeded, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
        let (mut wal, mut bad_wal) = ((0, 0), Vec::new());
        let (deep, ring) = (self.report.deep, inner.vault.keys.ring());
        inner.vault.store.list("", &mut |name, size| {
            let text = name.as_str();
            match pack_of(text) {
                Some(pack) if self.needed.contains_key(&pack) => {}
                Some(pack) => unneeded.push((pack, size)),
                None => match record_of(text) {
                    Some((true, n)) if n >= state.next() => beyond.push(n),
                    Some((_, n)) if n < state.next() => {}
                    _ if self.opened.as_ref().is_some_and(|opened| opened.has_object(&name)) => {}
                    _ if wal::name::parse(text).is_some() => {
                        wal = (wal.0 + 1, wal.1 + size);
                        if deep && bad_wal.len() <= FINDINGS_MAX {
                            bad_wal
                                .extend(wal::audit(&*inner.vault.store, &ring, &name).err().map(|error| (name, error)));
                        }
                    }
                    _ => foreign.push(name),
                },
            }
        })?;
        self.beyond(beyond)?;
        (self.report.wal_objects, self.report.wal_bytes) = wal;
        for (name, error) in bad_wal {
            let fault = if matches!(error, WalError::Damaged { .. }) { Fault::Damaged } else { Fault::Unreadable };
            let backups = self.cut_by(name.as_str(), state);
            self.find(fault, name.to_string(), &error.to_string(), backups);
        }
        for name in foreign {
            self.find(Fault::Foreign, name.to_string(), "it is no object of this repository", Vec::new());
        }
        for (pack, size) in unneeded {
            self.unneeded(pack, size, state)?;
        }
        Ok(())
    }

    /// A pack that no backup needs: garbage, in work, or not ours?
    fn unneeded(&mut self, pack: PackId, size: u64, state: &State) -> Result<(), RepositoryError> {
        let session = match self.repository.inner.vault.footer(pack, size) {
            Ok((session, _)) => session,
            // Removed since it was listed.
            Err(error) if fault_of(&error) == Fault::Missing => return Ok(()),
            Err(error) if fault_of(&error) == Fault::Damaged && state.number_of(pack).is_none() => {
                let what = format!("it is no pack of this repository: {error}");
                self.find(Fault::Foreign, object(pack), &what, Vec::new());
                return Ok(());
            }
            Err(error) => {
                self.find(fault_of(&error), object(pack), &error.to_string(), Vec::new());
                return Ok(());
            }
        };
        let mut footprint = state.footprint(session, pack);
        if footprint == Footprint::Foreign {
            // Perhaps of a session that began after the state was read.
            footprint = self.repository.with_log(|log| log.refresh().map(|now| now.footprint(session, pack)))?;
        }
        if footprint == Footprint::Foreign {
            self.find(Fault::Foreign, object(pack), "no session of this repository wrote it", Vec::new());
        } else {
            self.report.unneeded_packs += 1;
            self.report.unneeded_bytes += size;
        }
        Ok(())
    }

    /// Records with numbers that the log did not reach: they came meanwhile, or one before them is missing.
    fn beyond(&mut self, records: Vec<u64>) -> Result<(), RepositoryError> {
        let next = self.repository.with_log(|log| log.refresh().map(State::next))?;
        let vault = &self.repository.inner.vault;
        let mut hole = false;
        for n in records.into_iter().filter(|n| *n >= next) {
            // Not through the keys that judge the order of records: this one is out of order.
            let ours =
                vault.store.get(&record_name(n)).is_ok_and(|sealed| vault.keys.ring().open_record(n, &sealed).is_ok());
            if ours {
                hole = true;
            } else {
                self.find(Fault::Foreign, record_name(n).to_string(), "it is no record of this log", Vec::new());
            }
        }
        if hole {
            let what =
                "it is missing, and later records are there: all that they say is unknown until it is brought back";
            self.find(Fault::Missing, record_name(next).to_string(), what, Vec::new());
        }
        Ok(())
    }
}

/// Whether it is a record (or else a checkpoint), and its number, if the name is exactly one of these.
fn record_of(name: &str) -> Option<(bool, u64)> {
    let n: u64 = name.split_once('/')?.1.parse().ok()?;
    let names = [(true, record_name(n)), (false, checkpoint_name(n))];
    names.into_iter().find(|(_, made)| made.as_str() == name).map(|(record, _)| (record, n))
}
