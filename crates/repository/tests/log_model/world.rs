//! The world of one run: the bare store, whose turn it is, what goes wrong, and the observer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use repository::{
    BackupId, PackId, SessionId,
    log::{Body, Digest, PackStatus, Record, State, record_name},
    seal::RecordSeal as _,
    store::{MemoryStore, ObjectName, Operation, Put, Store, StoreError, StoreErrorKind},
};

use crate::seal::OpenSeal;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound.max(1))).unwrap()
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub fn id(&mut self) -> [u8; 16] {
        let (a, b) = (self.next(), self.next());
        [a.to_le_bytes(), b.to_le_bytes()].concat().try_into().unwrap()
    }
}

#[derive(Clone, Debug)]
enum Request {
    Put(ObjectName, Vec<u8>),
    Delete(ObjectName),
}

/// What the threads share; only whose turn it is holds the lock for longer than a moment.
struct Shared {
    dice: Dice,
    waiting: BTreeSet<usize>,
    running: usize,
    chosen: Option<usize>,
    asleep_until: BTreeMap<usize, u64>,
    step: u64,
    limbo: Vec<Request>,
    calm: bool,
    observer: Observer,
}

pub struct World {
    pub bare: MemoryStore,
    shared: Mutex<Shared>,
    turn: Condvar,
}

pub fn pack_name(pack: PackId) -> ObjectName {
    ObjectName::new(format!("packs/{pack}")).unwrap()
}

/// A pack that says whose it is.
pub fn pack_bytes(session: SessionId, pack: PackId) -> Vec<u8> {
    format!("{session} {pack}").into_bytes()
}

/// The one stream of WAL, its lines from 1 on, and how many segments each has.
pub const STREAM: &str = "stream";
pub const LINES: u32 = 3;
pub const SEGMENTS: u64 = 24;

pub fn wal_name(line: u32, segment: u64) -> ObjectName {
    ObjectName::new(format!("wal/{line}/{segment}")).unwrap()
}

pub fn parse_wal(name: &ObjectName) -> (u32, u64) {
    let mut parts = name.as_str().split('/').skip(1);
    let mut part = || parts.next().unwrap();
    (part().parse().unwrap(), part().parse().unwrap())
}

impl World {
    pub fn new(seed: u64, actors: usize) -> Self {
        let shared = Shared {
            dice: Dice::new(seed),
            waiting: BTreeSet::new(),
            running: actors,
            chosen: None,
            asleep_until: BTreeMap::new(),
            step: 0,
            limbo: Vec::new(),
            calm: false,
            observer: Observer::default(),
        };
        Self { bare: MemoryStore::new(), shared: Mutex::new(shared), turn: Condvar::new() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A source of chance for one actor.
    pub fn dice(&self, actor: usize) -> Dice {
        let seed = self.shared().dice.clone().next();
        Dice::new(seed ^ (actor as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d))
    }

    /// Waits for the turn of `actor`, and has it until the guard is dropped.
    fn take_turn(&self, actor: usize) -> MutexGuard<'_, Shared> {
        let mut shared = self.shared();
        shared.waiting.insert(actor);
        shared.running -= 1;
        self.choose(&mut shared);
        while shared.chosen != Some(actor) {
            shared = self.turn.wait(shared).unwrap();
        }
        shared.chosen = None;
        shared.waiting.remove(&actor);
        shared.running += 1;
        shared.step += 1;
        if shared.dice.percent(3) {
            let until = shared.step + 1 + shared.dice.next() % 150;
            shared.asleep_until.insert(actor, until);
        }
        if shared.dice.percent(5) && !shared.limbo.is_empty() {
            let at = shared.dice.next();
            self.deliver(&mut shared, at);
        }
        shared
    }

    /// Whoever is awake may be next; when all sleep, the first to wake.
    fn choose(&self, shared: &mut Shared) {
        if shared.running > 0 || shared.chosen.is_some() || shared.waiting.is_empty() {
            return;
        }
        let wakes = |actor: &usize| shared.asleep_until.get(actor).copied().unwrap_or(0);
        let awake: Vec<_> = shared.waiting.iter().copied().filter(|actor| wakes(actor) <= shared.step).collect();
        let chosen = if awake.is_empty() {
            *shared.waiting.iter().min_by_key(|actor| wakes(actor)).unwrap()
        } else {
            awake[shared.dice.below(awake.len())]
        };
        shared.chosen = Some(chosen);
        self.turn.notify_all();
    }

    fn deliver(&self, shared: &mut Shared, at: u64) {
        let at = usize::try_from(at % shared.limbo.len() as u64).unwrap();
        match shared.limbo.swap_remove(at) {
            Request::Put(name, bytes) => drop(self.bare.put_if_absent(&name, &bytes)),
            Request::Delete(name) => drop(self.bare.delete(&name)),
        }
        *shared.observer.tally.entry("late arrival".to_owned()).or_default() += 1;
        shared.observer.look(&self.bare);
    }

    /// `actor` is done.
    pub fn leave(&self, actor: usize) {
        let mut shared = self.shared();
        shared.waiting.remove(&actor);
        shared.running -= 1;
        self.choose(&mut shared);
    }

    /// An actor heard that its commit was confirmed or refused.
    pub fn heard(&self, backup: BackupId, committed: bool) {
        self.shared().observer.heard.push((backup, committed));
    }

    /// A segment was stored, and its writer heard so.
    pub fn received(&self, line: u32, segment: u64) {
        self.shared().observer.received.insert((line, segment));
    }

    /// The actor sleeps through what the others do.
    pub fn sleep(&self, actor: usize) {
        let mut shared = self.shared();
        let until = shared.step + 50 + shared.dice.next() % 300;
        shared.asleep_until.insert(actor, until);
    }

    /// Something happened that no record tells of.
    pub fn count(&self, what: &str) {
        *self.shared().observer.tally.entry(what.to_owned()).or_default() += 1;
    }

    pub fn blame(&self, what: String) {
        self.shared().observer.fault.get_or_insert(what);
    }

    /// All are gone: what is still under way arrives, and nothing goes wrong any more.
    pub fn finish(&self) -> Result<(), String> {
        let mut shared = self.shared();
        while !shared.limbo.is_empty() {
            self.deliver(&mut shared, 0);
        }
        shared.calm = true;
        shared.asleep_until.clear();
        shared.running = 1;
        shared.observer.judge()
    }

    /// After the clean-up: nothing is missing, nothing is left.
    pub fn verdict(&self) -> Result<Tally, String> {
        let mut shared = self.shared();
        shared.observer.look(&self.bare);
        shared.observer.judge()?;
        let state = &shared.observer.state;
        let needed: BTreeSet<_> = state.packs().values().map(|pack| pack_name(pack.id)).collect();
        for (name, _) in self.bare.snapshot() {
            if name.as_str().starts_with("packs/") && !needed.contains(&name) {
                return Err(format!("{name} stays though nobody needs it"));
            }
        }
        if let Some(pack) = state.packs().values().find(|pack| pack.references == 0) {
            return Err(format!("{pack:?} stays in the state"));
        }
        Ok(std::mem::take(&mut shared.observer.tally))
    }
}

/// The store as one life of an actor sees it: a process that may die.
pub struct Window {
    world: Arc<World>,
    actor: usize,
    dead: Arc<AtomicBool>,
}

impl Window {
    pub fn new(world: &Arc<World>, actor: usize) -> (Self, Arc<AtomicBool>) {
        let dead = Arc::<AtomicBool>::default();
        (Self { world: Arc::clone(world), actor, dead: Arc::clone(&dead) }, dead)
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    fn request<T>(
        &self,
        operation: Operation,
        name: &str,
        request: Option<Request>,
        act: impl FnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let error = |kind| Err(StoreError::new(operation, name, "the model", kind, "as the dice fell"));
        if self.is_dead() {
            return error(StoreErrorKind::Stopped);
        }
        let bare = &self.world.bare;
        let mut shared = self.world.take_turn(self.actor);
        let roll = if shared.calm { 100 } else { shared.dice.next() % 100 };
        let changes = request.is_some();
        let result = match roll {
            0..2 => error(StoreErrorKind::Unavailable),
            2..4 => {
                let _unheard = act(bare);
                error(StoreErrorKind::Unavailable)
            }
            4..6 => {
                shared.limbo.extend(request);
                error(StoreErrorKind::Unavailable)
            }
            6 => {
                self.die();
                error(StoreErrorKind::Stopped)
            }
            7 => {
                let _unheard = act(bare);
                self.die();
                error(StoreErrorKind::Stopped)
            }
            _ => act(bare),
        };
        if changes {
            shared.observer.look(bare);
        }
        result
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({})", self.actor)
    }
}

impl Store for Window {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let request = Request::Put(name.clone(), bytes.to_vec());
        let act = |bare: &MemoryStore| bare.put_if_absent(name, bytes);
        self.request(Operation::Put, name.as_str(), Some(request), act)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        self.request(Operation::Get, name.as_str(), None, |bare| bare.get(name))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let act = |bare: &MemoryStore| bare.get_range(name, offset, len);
        self.request(Operation::Get, name.as_str(), None, act)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        // Takes no turn and goes well: openings look for many records, and a life that died of it would have done nothing yet. Whoever
        // looks does so while all others wait, so that it is decided by the seed all the same.
        if self.is_dead() {
            let kind = StoreErrorKind::Stopped;
            return Err(StoreError::new(Operation::Size, name, "the model", kind, "as the dice fell"));
        }
        self.world.bare.size(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let request = Request::Delete(name.clone());
        self.request(Operation::Delete, name.as_str(), Some(request), |bare| bare.delete(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.request(Operation::List, prefix, None, |bare| bare.list(prefix, each))
    }

    fn describe(&self) -> String {
        "the model".to_owned()
    }
}

/// How often what happened: a run in which nothing happens proves nothing.
pub type Tally = BTreeMap<String, u64>;

/// Sees the bare store after every operation.
#[derive(Default)]
struct Observer {
    state: State,
    committed: BTreeSet<BackupId>,
    heard: Vec<(BackupId, bool)>,
    /// Segments whose writers heard that they are stored.
    received: BTreeSet<(u32, u64)>,
    /// What had expired when a backup was committed, or a session opened, that WAL leads on from.
    expired: BTreeMap<String, BTreeMap<u32, u64>>,
    tally: Tally,
    fault: Option<String>,
}

impl Observer {
    fn look(&mut self, bare: &MemoryStore) {
        if self.fault.is_none()
            && let Err(fault) = self.try_look(bare)
        {
            self.fault = Some(fault);
        }
    }

    fn try_look(&mut self, bare: &MemoryStore) -> Result<(), String> {
        let objects = bare.snapshot();
        while let Some(sealed) = objects.get(&record_name(self.state.next())) {
            let n = self.state.next();
            let plain = OpenSeal.open_record(n, sealed).map_err(|e| format!("record {n} was changed: {e}"))?;
            let record = Record::decode(n, &plain).map_err(|e| e.to_string())?;
            if record.prev != self.state.digest() {
                return Err(format!("record {n} does not follow record {}", n - 1));
            }
            self.expiry_is_right(&record)?;
            self.count(&record.body);
            self.state.apply(&record, Digest::of(sealed)).map_err(|e| format!("record {n} {record:?}: {e}"))?;
            if let Body::Commit(commit) = &record.body {
                self.committed.insert(commit.backup);
            }
        }
        self.wal_is_there(&objects)?;
        for (id, backup) in self.state.backups() {
            for number in backup.packs.iter() {
                let pack =
                    self.state.pack(number).ok_or(format!("pack {number} of backup {id} is gone from the state"))?;
                match objects.get(&pack_name(pack.id)) {
                    None => return Err(format!("pack {number} of the committed backup {id} is gone from the store")),
                    Some(bytes) if **bytes == *pack_bytes(pack.session, pack.id) => {}
                    Some(_) => return Err(format!("pack {number} of backup {id} was overwritten")),
                }
            }
        }
        Ok(())
    }

    /// Written once more, apart from the judge: whoever has not been cut off has all that was stored from his start on, on his line and on
    /// higher ones, except what had expired before he came.
    fn wal_is_there(&mut self, objects: &BTreeMap<ObjectName, Arc<[u8]>>) -> Result<(), String> {
        let floors = self.state.wal_floors(STREAM);
        let backups = self.state.backups().iter();
        let backups = backups.filter_map(|(id, backup)| Some((format!("backup {id}"), backup.leads_on()?.clone())));
        let sessions = self.state.sessions().iter();
        let sessions = sessions
            .flat_map(|(id, session)| session.wal.iter().map(move |start| (format!("session {id}"), start.clone())));
        for (who, start) in backups.chain(sessions) {
            let gone = self.expired.entry(who.clone()).or_insert_with(|| floors.clone());
            for &(line, segment) in self.received.iter().filter(|(line, _)| *line >= start.line) {
                let expired = gone.get(&line).copied().unwrap_or(0);
                if segment >= start.segment.max(expired) && !objects.contains_key(&wal_name(line, segment)) {
                    return Err(format!("segment {segment} of line {line}, which {who} needs, is gone"));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, body: &Body) {
        let mut count = |what: &str| *self.tally.entry(what.to_owned()).or_default() += 1;
        count(body.kind());
        if let Body::WalExpire(expire) = body
            && !expire.cut.is_empty()
        {
            count("cut");
        }
        if let Body::Commit(commit) = body {
            if !commit.complete {
                count("draft");
            }
            if commit.known.iter().any(|n| self.state.pack(n).is_some_and(|p| p.status == PackStatus::Condemned)) {
                count("revival");
            }
        }
    }

    /// Written once more, apart from the judge.
    fn expiry_is_right(&self, record: &Record) -> Result<(), String> {
        let Body::Expire { backups } = &record.body else { return Ok(()) };
        for expired in backups {
            let id = expired.backup;
            let all = self.state.backups();
            let found = all.get(&id).ok_or("an unknown backup expires")?;
            let of_cluster = || all.iter().filter(|(_, b)| b.complete && b.cluster == found.cluster);
            let proven = of_cluster().filter(|(_, b)| b.proofs.last().is_some_and(|p| p.passed));
            if proven.max_by_key(|(_, b)| b.committed).is_some_and(|(&last, _)| last == id) {
                return Err(format!("the last proven backup {id} expires"));
            }
            if of_cluster().max_by_key(|(_, b)| b.committed).is_some_and(|(&last, _)| last == id) {
                return Err(format!("the newest backup {id} expires"));
            }
            if self.state.sessions().values().any(|session| session.bases.contains(&id)) {
                return Err(format!("backup {id} expires though a session uses it"));
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        for (backup, committed) in &self.heard {
            if self.committed.contains(backup) != *committed {
                return Err(format!("backup {backup}: its writer heard {committed}, the log says otherwise"));
            }
        }
        Ok(())
    }
}
