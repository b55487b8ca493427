//! The check of packs: sizes, headers, footers and trailers, or every byte.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    thread,
};

use super::{CHECKERS, Check, CheckProgress, Fault, Needed, fault_of, object};
use crate::{
    error::{RepositoryError, first_line},
    frame::Decoder,
    id::PackId,
    pack::PackOpener,
    vault::{Vault, pack_object},
};

/// What was found in one pack.
struct Found {
    pack: PackId,
    faults: Vec<(Fault, String)>,
    /// Frames that can't be read; `None`: none can.
    bad: Option<Option<HashSet<u32>>>,
}

impl Check<'_> {
    /// Looks at every pack that some backup needs.
    pub(super) fn packs(&mut self, deep: bool, progress: &(dyn Fn(CheckProgress) + Sync)) {
        let vault = &self.repository.inner.vault;
        let bytes_total = self.needed.values().filter_map(|need| Some(need.table.as_ref()?.object_len())).sum();
        let start = CheckProgress { packs_total: self.needed.len() as u64, bytes_total, ..CheckProgress::default() };
        let queue: Mutex<VecDeque<(PackId, &Needed)>> =
            Mutex::new(self.needed.iter().map(|(pack, need)| (*pack, need)).collect());
        let done = Mutex::new((start, Vec::new()));
        let work = || {
            while let Some((pack, need)) = lock(&queue).pop_front() {
                let (bytes, found) = look(vault, pack, need, deep);
                let mut done = lock(&done);
                done.0.packs += 1;
                done.0.bytes += bytes;
                done.1.extend(found);
                let so_far = done.0;
                drop(done);
                progress(so_far);
            }
        };
        thread::scope(|scope| {
            // One of them is this thread: it goes on alone where no other can be started.
            for _ in 1..CHECKERS {
                let _other = thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        let (progress, found) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.report.packs, self.report.bytes) = (progress.packs, progress.bytes);
        for Found { pack, faults, bad } in found {
            let backups: Vec<_> =
                self.needed.get(&pack).map(|need| need.backups.iter().copied().collect()).unwrap_or_default();
            for (fault, what) in faults {
                self.find(fault, object(pack), &what, backups.clone());
            }
            if let Some(bad) = bad {
                self.bad.insert(pack, bad);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes looked at, and what is wrong.
fn look(vault: &Vault, pack: PackId, need: &Needed, deep: bool) -> (u64, Option<Found>) {
    let whole = |fault, what: String| Found { pack, faults: vec![(fault, what)], bad: Some(None) };
    let failed = |error: RepositoryError| {
        let fault = fault_of(&error);
        let what = first_line(&error.to_string());
        // What could not be read this time is no damage.
        let bad = (fault != Fault::Unreadable).then_some(None);
        Found { pack, faults: vec![(fault, what)], bad }
    };
    let size = match vault.store.size(&pack_object(pack)) {
        Ok(Some(size)) => size,
        Ok(None) => return (0, Some(whole(Fault::Missing, "it is not there".to_owned()))),
        Err(error) => return (0, Some(failed(error.into()))),
    };
    let result = if deep { read_all(vault, pack, size, need) } else { read_footer(vault, pack, size, need) };
    (size, result.unwrap_or_else(|error| Some(failed(error))))
}

fn read_footer(vault: &Vault, pack: PackId, size: u64, need: &Needed) -> Result<Option<Found>, RepositoryError> {
    let (_, table) = vault.footer(pack, size)?;
    Ok(need.table.as_ref().filter(|listed| **listed != table).map(|_| contradiction(pack)))
}

fn contradiction(pack: PackId) -> Found {
    let what = "its own table is not the one that the manifests have".to_owned();
    Found { pack, faults: vec![(Fault::Contradicts, what)], bad: Some(None) }
}

fn read_all(vault: &Vault, pack: PackId, size: u64, need: &Needed) -> Result<Option<Found>, RepositoryError> {
    if size > crate::pack::PACK_LEN_MAX as u64 {
        let faults = vec![(Fault::Damaged, format!("it has {size} bytes, more than any pack of ours"))];
        return Ok(Some(Found { pack, faults, bad: Some(None) }));
    }
    let mut bytes = vault.store.get(&pack_object(pack))?;
    let ring = vault.keys.ring();
    let mut faults = Vec::new();
    // A footer that is gone does not take the frames with it: the manifests know where they are.
    let (opener, table) = match (PackOpener::whole(&ring, pack, &bytes), &need.table) {
        (Ok((_, _, table)), Some(listed)) if *listed != table => return Ok(Some(contradiction(pack))),
        (Ok((opener, _, table)), _) => (opener, table),
        (Err(error), Some(listed)) => {
            faults.push((Fault::Damaged, first_line(&error.to_string())));
            (PackOpener::new(&ring, pack, listed.epoch)?, listed.clone())
        }
        (Err(error), None) => {
            let faults = vec![(Fault::Damaged, first_line(&error.to_string()))];
            return Ok(Some(Found { pack, faults, bad: Some(None) }));
        }
    };
    let mut decoder = Decoder::new().map_err(RepositoryError::Compression)?;
    let mut bad = HashSet::new();
    for ordinal in (0_u32..).take(table.frames.len()) {
        let Some(place) = table.locate(ordinal) else { continue };
        let kind = table.frames[ordinal as usize].kind;
        let range = place.offset as usize..(place.offset + place.sealed_len) as usize;
        let opened = match bytes.get_mut(range) {
            Some(sealed) => {
                opener.frame(&place, kind, sealed, &mut decoder).map_err(|error| first_line(&error.to_string()))
            }
            None => Err("it is cut off before it".to_owned()),
        };
        if let Err(what) = opened {
            faults.push((Fault::Damaged, format!("frame {ordinal} at byte {}: {what}", place.offset)));
            bad.insert(ordinal);
        }
    }
    Ok((!faults.is_empty()).then_some(Found { pack, faults, bad: Some(Some(bad)) }))
}
