//! Who acts: writers, readers and collectors, each living several lives.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;
use repository::{
    BackupId, PackId, RepositoryId, SessionId,
    log::{
        Body, Commitment, Expired, Footprint, FreshPack, Log, LogError, Numbers, Opening, Pack, PackStatus, Purpose,
        Refusal, State, WalExpire, WalStart,
    },
    store::{Retries, Retrying, Store},
};
use serde_json::Value;

use crate::{
    seal::OpenSeal,
    world::{Dice, LINES, SEGMENTS, STREAM, Window, World, pack_bytes, pack_name, parse_wal, wal_name},
};

#[derive(Clone, Copy, Debug)]
pub enum Role {
    Writer(&'static str),
    Reader,
    Collector,
    /// Stores WAL.
    Receiver,
}

/// Ways to break the protocol on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    /// Removes packs that are condemned without a `delete` record.
    pub deletes_unannounced: bool,
    /// Removes the packs of sessions that are still open.
    pub cleans_in_work: bool,
    /// Removes WAL that no record let go.
    pub prunes_unannounced: bool,
    /// Commits although a pack's write was not confirmed.
    pub commits_early: bool,
}

/// How many lives each actor has.
const LIVES: usize = 6;

/// One life: a process with its own view of the store.
struct Life<'a> {
    world: &'a Arc<World>,
    id: usize,
    store: Arc<dyn Store>,
    dead: Arc<AtomicBool>,
    dice: Dice,
    habits: Habits,
}

fn clock() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

pub fn live(world: &Arc<World>, id: usize, role: Role, habits: Habits) {
    let mut dice = world.dice(id);
    for _ in 0..LIVES {
        let (window, dead) = Window::new(world, id);
        let retries = Retries { attempts: if dice.percent(50) { 1 } else { 3 }, ..Retries::default() };
        let store: Arc<dyn Store> = Arc::new(Retrying::waiting(window, retries, |_| {}));
        let dice = Dice::new(dice.next());
        let mut life = Life { world, id, store, dead, dice, habits };
        let result = match role {
            Role::Writer(cluster) => life.write(cluster),
            Role::Reader => life.read(),
            Role::Collector => life.collect(),
            Role::Receiver => life.receive(),
        };
        if let Err(LogError::Refused(refusal)) = &result {
            let name = format!("{refusal:?}");
            world.count(&format!("refused: {}", name.split([' ', '{']).next().unwrap_or_default()));
        }
        match result {
            Ok(()) | Err(LogError::Store(_) | LogError::Unclear { .. } | LogError::Refused(_)) => {}
            Err(error) => world.blame(format!("actor {id}: {error}")),
        }
    }
    world.leave(id);
}

/// After all is over: one calm collector ends every session, lets go of what it may, and collects.
pub fn clean_up(world: &Arc<World>) -> Result<(), String> {
    let (window, dead) = Window::new(world, 0);
    let mut life = Life { world, id: 0, store: Arc::new(window), dead, dice: Dice::new(7), habits: Habits::default() };
    let mut work = || -> Result<(), LogError> {
        let mut log = life.log()?;
        let sessions: Vec<_> = log.state().sessions().keys().copied().collect();
        for session in sessions {
            log.close(session, "the end")?;
        }
        log.collect(&pack_name)?;
        life.clean_orphans(&mut log)
    };
    work().map_err(|error| format!("the clean-up failed: {error}"))
}

impl Life<'_> {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn log(&mut self) -> Result<Log, LogError> {
        let open = || Log::open(Arc::clone(&self.store), Arc::new(OpenSeal), Arc::new(clock), None);
        match open() {
            Err(LogError::NoRepository { .. }) => {
                let id = RepositoryId([1; 16]);
                match Log::create(Arc::clone(&self.store), Arc::new(OpenSeal), Arc::new(clock), None, id, Value::Null) {
                    Err(LogError::Occupied { .. }) => open(),
                    result => result,
                }
            }
            result => result,
        }
    }

    fn write(&mut self, cluster: &str) -> Result<(), LogError> {
        let mut log = self.log()?;
        let session = SessionId(self.dice.id());
        let live = |log: &Log| -> Vec<BackupId> { log.state().backups().keys().copied().collect() };
        let all = live(&log);
        let bases =
            if self.dice.percent(50) && !all.is_empty() { vec![all[self.dice.below(all.len())]] } else { Vec::new() };
        let open = Opening { session, purpose: Purpose::Backup, cluster: cluster.to_owned(), bases, info: Value::Null };
        match log.begin(&open, None) {
            Err(LogError::Refused(Refusal::InUse { session: over, .. })) => log.begin(&open, Some(over))?,
            result => result?,
        }
        // From its bases, and sometimes from wherever: the judge has to see to it.
        let from = if open.bases.is_empty() || self.dice.percent(30) { live(&log) } else { open.bases };
        let mut shared = Vec::new();
        for backup in from {
            let Some(backup) = log.state().backups().get(&backup) else { continue };
            for number in backup.packs.iter() {
                if self.dice.percent(60) {
                    shared.extend(log.state().pack(number).map(|pack| pack.id));
                }
            }
        }
        shared.sort_unstable();
        shared.dedup();
        if self.dice.percent(40) {
            self.world.sleep(self.id);
        }
        let (line, segment) = (1 + self.dice.below_u32(LINES), self.dice.next() % SEGMENTS);
        let wal =
            self.dice.percent(70).then(|| WalStart { stream: STREAM.to_owned(), line, segment, segment_bytes: 1 });
        let mut written = Vec::new();
        let commits = 1 + self.dice.below(3);
        for commit in 1..=commits {
            for _ in 0..self.dice.below(3) {
                let id = PackId(self.dice.id());
                match self.store.put_if_absent(&pack_name(id), &pack_bytes(session, id)) {
                    Ok(_) => written.push(FreshPack { id, bytes: 1 }),
                    Err(_) if self.habits.commits_early => written.push(FreshPack { id, bytes: 1 }),
                    // Not confirmed: it is not referred to.
                    Err(_) => {}
                }
            }
            let commitment = Commitment {
                session,
                backup: BackupId(self.dice.id()),
                complete: commit == commits,
                manifest: Value::Null,
                shared: shared.clone(),
                written: written.clone(),
                wal: wal.clone(),
                info: Value::Null,
            };
            let mut result = log.commit(&commitment);
            if matches!(result, Err(LogError::Unclear { .. })) {
                result = log.commit(&commitment);
            }
            match &result {
                Ok(()) => self.world.heard(commitment.backup, true),
                Err(LogError::Refused(_)) => self.world.heard(commitment.backup, false),
                Err(_) => {}
            }
            result?;
        }
        if self.dice.percent(20) {
            log.close(session, "again")?;
        }
        Ok(())
    }

    /// Holds a backup, reads every pack of it, lets go, and says how it was.
    fn read(&mut self) -> Result<(), LogError> {
        let mut log = self.log()?;
        let complete: Vec<_> = log.state().backups().iter().filter(|(_, b)| b.complete).map(|(&id, _)| id).collect();
        if complete.is_empty() {
            return Ok(());
        }
        let backup = complete[self.dice.below(complete.len())];
        let session = SessionId(self.dice.id());
        let cluster = log.state().backups()[&backup].cluster.clone();
        log.begin(&Opening { session, purpose: Purpose::Hold, cluster, bases: vec![backup], info: Value::Null }, None)?;
        let packs: Vec<_> = log.state().backups()[&backup].packs.iter().collect();
        for number in packs {
            let Some(pack) = log.state().pack(number).cloned() else {
                self.world.blame(format!("pack {number} of the held backup {backup} is gone"));
                continue;
            };
            match self.store.get(&pack_name(pack.id)) {
                Err(error) if error.is_not_found() => {
                    self.world.blame(format!("pack {number} of the held backup {backup} is gone"));
                }
                result => drop(result?),
            }
        }
        let passed = self.dice.percent(70);
        log.prove(backup, passed, &Value::Bool(passed))?;
        log.close(session, "read")
    }

    /// Stores segments of some line, one after the other. What was confirmed counts.
    fn receive(&mut self) -> Result<(), LogError> {
        for _ in 0..4 {
            let (line, first) = (1 + self.dice.below_u32(LINES), self.dice.next() % SEGMENTS);
            for segment in first..first + 4 {
                self.store.put_if_absent(&wal_name(line, segment), b"wal")?;
                self.world.received(line, segment);
            }
        }
        Ok(())
    }

    /// Lets some WAL expire, by whatever the dice say: the judge has to see to it that nobody loses it unseen. Then removes what the log, as
    /// it was read, has let go.
    fn prune(&mut self, log: &mut Log) -> Result<(), LogError> {
        let line = 1 + self.dice.below_u32(LINES);
        let lines: Vec<_> =
            (line..=LINES.min(line + self.dice.below_u32(2))).map(|line| (line, self.dice.next() % SEGMENTS)).collect();
        let says_who_loses = self.dice.percent(80);
        let expire = |state: &State| {
            let lines: Vec<_> =
                lines.iter().copied().filter(|&(line, first)| first > state.wal_floor(STREAM, line)).collect();
            let loses = |start: &WalStart| lines.iter().any(|&(line, first)| start.needs_before(line, first));
            let losing = state.backups().iter().filter(|(_, backup)| backup.leads_on().is_some_and(loses));
            let cut = losing.map(|(&id, _)| id).filter(|_| says_who_loses).collect();
            Ok((!lines.is_empty()).then(|| WalExpire { stream: STREAM.to_owned(), lines, cut }))
        };
        match log.expire_wal(expire) {
            Err(LogError::Refused(refusal)) => {
                let name = format!("{refusal:?}");
                self.world.count(&format!("refused: {}", name.split([' ', '{']).next().unwrap_or_default()));
            }
            result => drop(result?),
        }
        if self.dice.percent(30) {
            self.world.sleep(self.id);
        }
        let mut found = Vec::new();
        self.store.list("wal/", &mut |name, _| found.push(name))?;
        for name in found {
            let (line, segment) = parse_wal(&name);
            let mut floor = log.state().wal_floor(STREAM, line);
            if self.habits.prunes_unannounced {
                floor += 3;
            }
            if segment < floor {
                self.store.delete(&name)?;
                self.world.count("WAL removed");
            }
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), LogError> {
        for _ in 0..3 {
            let mut log = self.log()?;
            let all: Vec<_> = log.state().backups().keys().copied().collect();
            for backup in all {
                if self.dice.percent(70) {
                    match log.expire(&[Expired { backup, reason: "the dice".to_owned() }]) {
                        Err(LogError::Refused(_)) => {}
                        result => drop(result?),
                    }
                }
            }
            if self.habits.deletes_unannounced {
                let condemned = log
                    .state()
                    .packs()
                    .values()
                    .filter(|pack| pack.status == PackStatus::Condemned || pack.references == 0);
                for pack in condemned.map(|pack| pack.id).collect::<Vec<_>>() {
                    self.store.delete(&pack_name(pack))?;
                }
            } else if self.dice.percent(50) {
                // One that dies, or sleeps, before it deletes.
                log.append(|state| {
                    let unneeded = |pack: &Pack| pack.status == PackStatus::Live && pack.references == 0;
                    let packs: Numbers =
                        state.packs().iter().filter(|(_, pack)| unneeded(pack)).map(|(&n, _)| n).collect();
                    Ok((!packs.is_empty()).then_some(Body::Condemn { packs }))
                })?;
                self.world.sleep(self.id);
            } else {
                log.collect(&pack_name)?;
            }
            self.clean_orphans(&mut log)?;
            self.prune(&mut log)?;
        }
        Ok(())
    }

    fn clean_orphans(&mut self, log: &mut Log) -> Result<(), LogError> {
        // Listed first: whoever is open when the log is read afterwards was open or ended when its packs were seen.
        let mut found = Vec::new();
        self.store.list("packs/", &mut |name, _| found.push(name))?;
        log.refresh()?;
        for name in found {
            let bytes = match self.store.get(&name) {
                Err(error) if error.is_not_found() => continue,
                result => result?,
            };
            let text = String::from_utf8(bytes).unwrap();
            let (session, pack) = text.split_once(' ').unwrap();
            let (session, pack) = (session.parse().unwrap(), pack.parse().unwrap());
            let footprint = log.state().footprint(session, pack);
            if footprint == Footprint::Orphan {
                self.world.count("orphan");
            }
            if footprint == Footprint::Orphan || (self.habits.cleans_in_work && footprint == Footprint::InWork) {
                self.store.delete(&name)?;
            }
            if self.is_dead() {
                break;
            }
        }
        Ok(())
    }
}
