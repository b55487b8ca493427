//! Checkpoints: the state after every so many records, so that opening an old repository does not read its whole life.
//!
//! A checkpoint holds nothing that the records do not: whoever finds it missing or damaged takes an older one or begins at record 0.
//! It is sealed like a record, under numbers that no record has, and names the hash of the record that it was made after. Its version is the
//! lowest that knows all of the state: what an older program made can only be of a state before the first record that it does not know.

use serde::{Deserialize, Serialize};

use super::{Digest, FORMAT, LogError, State, checkpoint_name, record_name};
use crate::{seal::RecordSeal, store::Store};

/// After every so many records: what a reader has to replay at most, once the writers' checkpoints got through.
pub(super) const EVERY: u64 = 128;

/// How many checkpoints a reader looks for, from the newest possible one back, before it begins at record 0; and how many are kept.
const TRIES: u64 = 4;

/// Keeps the seals of checkpoints and records apart.
const CHECKPOINT_BIT: u64 = 1 << 63;

#[derive(Deserialize)]
struct Checkpoint {
    format: u32,
    after: u64,
    state: State,
}

/// [`Checkpoint`] without a copy of the state.
#[derive(Serialize)]
struct CheckpointOf<'a> {
    format: u32,
    after: u64,
    state: &'a State,
}

/// The newest checkpoint that is sound, of a log whose record `newest` is there.
pub(super) fn load(store: &dyn Store, seal: &dyn RecordSeal, newest: u64) -> Result<Option<State>, LogError> {
    let last = newest - newest % EVERY;
    for after in (0..TRIES).filter_map(|back| last.checked_sub(back * EVERY)).take_while(|&after| after > 0) {
        let sealed = match store.get(&checkpoint_name(after)) {
            Ok(sealed) => sealed,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        match open(seal, after, &sealed) {
            // It must be of this very log.
            Ok(state) if Digest::of(&store.get(&record_name(after))?) == state.digest() => return Ok(Some(state)),
            Ok(_) => tracing::warn!(after, "a checkpoint does not belong to its record; taking an older one"),
            Err(error) => tracing::warn!(after, %error, "a checkpoint can't be used; taking an older one"),
        }
    }
    Ok(None)
}

fn open(seal: &dyn RecordSeal, after: u64, sealed: &[u8]) -> Result<State, LogError> {
    let plain =
        seal.open_record(CHECKPOINT_BIT | after, sealed).map_err(|source| LogError::Seal { n: after, source })?;
    let found: Checkpoint = serde_json::from_slice(&plain).map_err(|error| LogError::garbled(after, &error))?;
    let mut state = found.state;
    if found.format > FORMAT || found.format < state.format() || found.after != after || state.next() != after + 1 {
        return Err(LogError::garbled(after, &"this checkpoint is of another record or format"));
    }
    state.reindex();
    Ok(state)
}

/// Writes a checkpoint if one is due after the newest record, and removes the one that nobody looks for any more. Failures only
/// cost readers time, so they are not the appender's failures.
pub(super) fn save_if_due(store: &dyn Store, seal: &dyn RecordSeal, state: &State) {
    let Some(after) = state.next().checked_sub(1).filter(|after| *after > 0 && after % EVERY == 0) else { return };
    let save = || -> Result<(), LogError> {
        let plain = serde_json::to_vec(&CheckpointOf { format: state.format(), after, state })
            .map_err(|error| LogError::garbled(after, &error))?;
        let sealed =
            seal.seal_record(CHECKPOINT_BIT | after, &plain).map_err(|source| LogError::Seal { n: after, source })?;
        store.put_if_absent(&checkpoint_name(after), &sealed)?;
        if let Some(old) = after.checked_sub(TRIES * EVERY).filter(|&old| old > 0) {
            store.delete(&checkpoint_name(old))?;
        }
        Ok(())
    };
    if let Err(error) = save() {
        tracing::warn!(after, %error, "no checkpoint; opening this repository takes a little longer");
    }
}
