//! The log in a store: reading to the tip, and appending.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Body, Digest, LogError, Nonce, Record, Refusal, RollbackAlarm, Seen, State, Tip, TipMemory, checkpoint, record_name,
};
use crate::{
    id::{RepositoryId, random},
    seal::RecordSeal,
    store::{Put, Store},
};

/// How often another writer may be quicker before an append gives up. Each loss is somebody's progress, and a repository has few
/// writers.
const RACES_MAX: u32 = 100;

/// How far beyond the first missing record an opening looks for later ones: one request each, eleven in all. It finds every hole of up
/// to four records, and a longer one if as many records lie behind it; what it can't see, `check` finds by its listing.
pub const LOOK_AHEAD: [u64; 11] = [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512];

/// A clock: the wall's time now.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The log of one repository, read up to some record.
pub struct Log {
    store: Arc<dyn Store>,
    seal: Arc<dyn RecordSeal>,
    clock: Clock,
    memory: Option<TipMemory>,
    state: State,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("store", &self.store).field("next", &self.state.next()).finish_non_exhaustive()
    }
}

/// Whether a put of ours made a record.
enum Written {
    Ours,
    Theirs,
}

impl Log {
    /// Begins the log of the repository `repository`.
    ///
    /// # Errors
    /// `Occupied` where there is one already; `Hole` where one was, and its first record is missing.
    pub fn create(
        store: Arc<dyn Store>,
        seal: Arc<dyn RecordSeal>,
        clock: Clock,
        memory: Option<TipMemory>,
        repository: RepositoryId,
        info: Value,
    ) -> Result<Self, LogError> {
        let mut log = Self { store, seal, clock, memory, state: State::default() };
        // A log whose first record was removed is no place for another one.
        log.begins()?;
        let sealed = log.seal_next(Body::Create { repository, info }, log.now())?;
        match log.write(0, &sealed)? {
            Written::Ours => log.follow(0, &sealed)?,
            Written::Theirs => return Err(LogError::Occupied { place: log.store.describe() }),
        }
        log.remember();
        Ok(log)
    }

    /// Opens the log and reads it to its tip, from the newest checkpoint that is there. With a `memory` it is made sure that the log
    /// still holds what this host has seen of it.
    ///
    /// # Errors
    /// `NoRepository`, `Rollback`, and whatever is wrong with a record.
    pub fn open(
        store: Arc<dyn Store>,
        seal: Arc<dyn RecordSeal>,
        clock: Clock,
        memory: Option<TipMemory>,
    ) -> Result<Self, LogError> {
        let mut log = Self { store, seal, clock, memory, state: State::default() };
        let remembered = log.memory.as_ref().map(TipMemory::load).transpose()?.flatten().map(|found| found.tip);
        if let Some(tip) = remembered {
            log.has(tip)?;
        }
        let Some(newest) = log.newest(remembered.map_or(0, |tip| tip.n))? else {
            log.begins()?;
            return Err(LogError::NoRepository { place: log.store.describe() });
        };
        log.state = checkpoint::load(&*log.store, &*log.seal, newest)?.unwrap_or_default();
        log.replay()?;
        log.no_hole(newest)?;
        log.remember();
        if let Some(tip) = remembered.filter(|tip| Some(tip.repository) != log.state.repository()) {
            return Err(log.alarm(tip, "is another one".to_owned()));
        }
        Ok(log)
    }

    /// The state after the newest record that was read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Replaces what seals the records: after a rotation of keys.
    pub fn reseal_with(&mut self, seal: Arc<dyn RecordSeal>) {
        self.seal = seal;
    }

    /// The clock's time.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Reads all records that others have appended.
    ///
    /// # Errors
    /// Whatever is wrong with a record. The state stays at the last right one.
    pub fn refresh(&mut self) -> Result<&State, LogError> {
        self.replay()?;
        self.remember();
        Ok(&self.state)
    }

    fn replay(&mut self) -> Result<(), LogError> {
        loop {
            let n = self.state.next();
            match self.store.get(&record_name(n)) {
                Ok(sealed) => self.follow(n, &sealed)?,
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// That no record is there without the first.
    fn begins(&self) -> Result<(), LogError> {
        let is_there = |n| Ok::<_, LogError>(self.store.size(&record_name(n))?.is_some());
        for n in LOOK_AHEAD {
            if is_there(n)? && !is_there(0)? {
                return Err(LogError::Hole { n: 0 });
            }
        }
        Ok(())
    }

    /// That the log ends here, and not in a hole. Whoever appended in a hole would begin a second log, and whoever read only up to one
    /// would believe in an old state.
    ///
    /// Record `newest` was there a moment ago, so a log that ends before it has a hole; beyond it, [`LOOK_AHEAD`] names are looked for.
    fn no_hole(&mut self, newest: u64) -> Result<(), LogError> {
        for ahead in LOOK_AHEAD {
            let n = self.state.next();
            if n > newest && self.store.size(&record_name(n + ahead))?.is_none() {
                continue;
            }
            // Records are made one behind the other: where a later one is there, this one was, unless both came just now.
            self.replay()?;
            if self.state.next() == n {
                return Err(LogError::Hole { n });
            }
        }
        Ok(())
    }

    /// Reads the whole log from its first record, trusting no checkpoint, and calls `each` with every record and its hash. The state
    /// that comes out is compared with the one at hand by whoever checks.
    ///
    /// # Errors
    /// Whatever is wrong with a record; `Hole` where one up to this log's tip is missing.
    pub fn audit(&self, each: &mut dyn FnMut(&Record, Digest)) -> Result<State, LogError> {
        let mut state = State::default();
        while state.next() < self.state.next() {
            let n = state.next();
            let sealed = self
                .store
                .get(&record_name(n))
                .map_err(|error| if error.is_not_found() { LogError::Hole { n } } else { error.into() })?;
            let (record, digest) = open_record(&*self.seal, &state, n, &sealed)?;
            state.apply(&record, digest).map_err(|refusal| LogError::Contradiction { n, refusal })?;
            each(&record, digest);
        }
        Ok(state)
    }

    /// Appends what `make` wants, given the state at the tip, or nothing. It is called again whenever somebody else was quicker, with
    /// the state after that: what it returns must not rest on an older state. Returns the record's number.
    ///
    /// # Errors
    /// `Refused` where the state does not allow it; `Unclear` where nobody can say whether it was written; others as they come.
    pub fn append(
        &mut self,
        mut make: impl FnMut(&State) -> Result<Option<Body>, Refusal>,
    ) -> Result<Option<u64>, LogError> {
        self.refresh()?;
        for _ in 0..RACES_MAX {
            let Some(body) = make(&self.state)? else { return Ok(None) };
            let now = self.now();
            self.state.judge(now, &body)?;
            let n = self.state.next();
            let sealed = self.seal_next(body, now)?;
            match self.write(n, &sealed)? {
                Written::Ours => {
                    self.follow(n, &sealed)?;
                    self.remember();
                    checkpoint::save_if_due(&*self.store, &*self.seal, &self.state);
                    return Ok(Some(n));
                }
                Written::Theirs => drop(self.refresh()?),
            }
        }
        Err(LogError::Races { races: RACES_MAX })
    }

    fn seal_next(&self, body: Body, time: Timestamp) -> Result<Vec<u8>, LogError> {
        let n = self.state.next();
        let (prev, nonce) = (self.state.digest(), Nonce::from_bytes(random()?));
        let plain = Record { format: body.format(), n, prev, nonce, time, body }.encode()?;
        self.seal.seal_record(n, &plain).map_err(|source| LogError::Seal { n, source })
    }

    /// Makes record `n` of these bytes, once. What is there afterwards decides whose it is, not the reply: the bytes hold a nonce.
    fn write(&self, n: u64, sealed: &[u8]) -> Result<Written, LogError> {
        let name = record_name(n);
        let whose = |found: Vec<u8>| if found == sealed { Written::Ours } else { Written::Theirs };
        match self.store.put_if_absent(&name, sealed) {
            Ok(Put::Created) => Ok(Written::Ours),
            Ok(Put::Exists) => Ok(whose(self.store.get(&name)?)),
            Err(source) => match self.store.get(&name).map(whose) {
                Ok(Written::Theirs) => Ok(Written::Theirs),
                // It is there, but is it durable? Only a put that goes well says so.
                Ok(Written::Ours) => match self.store.put_if_absent(&name, sealed) {
                    Ok(_) => Ok(Written::Ours),
                    Err(source) => Err(LogError::Unclear { n, source }),
                },
                Err(_) => Err(LogError::Unclear { n, source }),
            },
        }
    }

    /// Adds record `n` to the state.
    fn follow(&mut self, n: u64, sealed: &[u8]) -> Result<(), LogError> {
        let (record, digest) = open_record(&*self.seal, &self.state, n, sealed)?;
        self.state.apply(&record, digest).map_err(|refusal| LogError::Contradiction { n, refusal })
    }

    /// The number of a record that is there while the next one is not; `None` where record 0 is not. Records are made in order and
    /// never removed, so the steps may double. `from` is known to be there, or is 0.
    fn newest(&self, from: u64) -> Result<Option<u64>, LogError> {
        let is_there = |n| Ok::<_, LogError>(self.store.size(&record_name(n))?.is_some());
        if !is_there(from)? {
            return Ok(None);
        }
        let (mut there, mut step) = (from, 1);
        while is_there(there + step)? {
            there += step;
            step *= 2;
        }
        let mut missing = there + step;
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            if is_there(middle)? { there = middle } else { missing = middle }
        }
        Ok(Some(there))
    }

    /// Whether the log still has the record that this host has seen.
    fn has(&self, tip: Tip) -> Result<(), LogError> {
        match self.store.get(&record_name(tip.n)) {
            Ok(sealed) if Digest::of(&sealed) == tip.digest => Ok(()),
            Ok(sealed) => {
                Err(self.alarm(tip, format!("has another record {} with hash {}", tip.n, Digest::of(&sealed))))
            }
            Err(error) if error.is_not_found() => Err(self.alarm(tip, format!("has no record {}", tip.n))),
            Err(error) => Err(error.into()),
        }
    }

    fn alarm(&self, remembered: Tip, found: String) -> LogError {
        let memory = self.memory.as_ref().map(|memory| memory.path().to_owned()).unwrap_or_default();
        let remembered = Seen::Record(remembered);
        Box::new(RollbackAlarm { place: self.store.describe(), found, remembered, memory }).into()
    }

    /// A memory that can't be written must not keep a backup from being made; the alarm then rests on an older record.
    fn remember(&self) {
        if let (Some(memory), Some(tip)) = (&self.memory, self.state.tip())
            && let Err(error) = memory.store(tip)
        {
            tracing::warn!(%error, "the newest record is not remembered");
        }
    }
}

/// Opens record `n`, which must follow `state`.
fn open_record(seal: &dyn RecordSeal, state: &State, n: u64, sealed: &[u8]) -> Result<(Record, Digest), LogError> {
    let plain = seal.open_record(n, sealed).map_err(|source| LogError::Seal { n, source })?;
    let record = Record::decode(n, &plain)?;
    if record.prev != state.digest() {
        return Err(LogError::Chain { n });
    }
    Ok((record, Digest::of(sealed)))
}
