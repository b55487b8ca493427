//! Who may do what: the only judge of it. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Body, Commit, Numbers, Opening, Pack, PackStatus, Purpose, SessionEnd, State, WalExpire, WalStart};
use crate::id::{BackupId, PackId, SessionId};

/// Longest name of a cluster, in bytes.
const CLUSTER_BYTES_MAX: usize = 200;
/// Longest name of a stream of WAL, in bytes.
const STREAM_BYTES_MAX: usize = 200;
/// The most lines that one record lets WAL of expire.
pub const WAL_LINES_MAX: usize = 10_000;

/// Why the state does not allow a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Record 0 makes the repository, and no other does.
    #[error("a repository is made once, by its first record\n  hint: this is a fault of the program: please report it")]
    Beginning,
    /// A cluster's name that is none.
    #[error(
        "the cluster's name {name:?} is empty or longer than 200 bytes\n  hint: give it another name in the configuration"
    )]
    ClusterName {
        /// The name.
        name: String,
    },
    /// Another session is at it.
    #[error(
        "session {session} is backing up {cluster} since {since}\n  hint: wait for it. If its process is dead, take it over: it can't commit any more then"
    )]
    InUse {
        /// Which.
        session: SessionId,
        /// The cluster.
        cluster: String,
        /// The time that its first record claims.
        since: Timestamp,
    },
    /// The id of a session is taken.
    #[error("session {session} was opened before\n  hint: begin a new one")]
    SessionExists {
        /// Which.
        session: SessionId,
    },
    /// There is no such session.
    #[error("there is no session {session}\n  hint: see the list of open sessions")]
    NoSession {
        /// Which.
        session: SessionId,
    },
    /// The session has ended.
    #[error("session {session} {}\n  hint: begin a new backup; what this one wrote is cleaned up, and what its draft holds is shared", ended(.end))]
    SessionEnded {
        /// Which.
        session: SessionId,
        /// How.
        end: SessionEnd,
    },
    /// The session is not of the kind, or not of the cluster.
    #[error(
        "session {session} can't do this: it is of another kind or another cluster\n  hint: this is a fault of the program: please report it"
    )]
    WrongSession {
        /// Which.
        session: SessionId,
    },
    /// The id of a backup is taken.
    #[error("backup {backup} was committed before\n  hint: choose a new id")]
    BackupExists {
        /// Which.
        backup: BackupId,
    },
    /// There is no such live backup.
    #[error("there is no backup {backup}, or it has expired\n  hint: see `oxpecker backup list`")]
    NoBackup {
        /// Which.
        backup: BackupId,
    },
    /// It is a draft.
    #[error("backup {backup} is unfinished\n  hint: only a complete backup can be proven or pinned")]
    Draft {
        /// Which.
        backup: BackupId,
    },
    /// A pack is not known.
    #[error(
        "the log does not know pack {pack}\n  hint: what referred to it must be stored again: run the backup again"
    )]
    NoPack {
        /// Its id or its number.
        pack: String,
    },
    /// A commit brings a pack that is known.
    #[error("pack {pack} was committed before\n  hint: this is a fault of the program: please report it")]
    PackExists {
        /// Which.
        pack: PackId,
    },
    /// A commit refers to a pack that is being removed.
    #[error("pack {pack} is being removed\n  hint: run the backup again: it stores anew what was in it")]
    PackDeleting {
        /// Which.
        pack: PackId,
    },
    /// A commit refers to a damaged pack.
    #[error(
        "pack {pack} failed a check and is not shared any more\n  hint: run the backup again: it stores anew what was in it"
    )]
    PackDamaged {
        /// Which.
        pack: PackId,
    },
    /// A pack is not in the state that its next step needs.
    #[error(
        "pack {pack} is {status:?} with {references} backups that need it: it can't be condemned, deleted or forgotten now\n  hint: run the command again: it judges anew"
    )]
    PackStatus {
        /// Which.
        pack: PackId,
        /// What it is.
        status: PackStatus,
        /// How many backups refer to it.
        references: u32,
    },
    /// A record that changes nothing, or names something twice.
    #[error(
        "a record that names nothing, or one thing twice\n  hint: this is a fault of the program: please report it"
    )]
    Empty,
    /// More packs than there are numbers.
    #[error("all 2^32 numbers of packs are used\n  hint: begin a new repository")]
    Exhausted,
    /// The clock is behind.
    #[error(
        "the clock says {now}, but the newest record is of {newest}: nothing expires by a clock that may be wrong\n  hint: see that all hosts' clocks are right. If a clock *was* ahead and is right now, confirm the present time for this repository"
    )]
    ClockBehind {
        /// This host's time.
        now: Timestamp,
        /// The newest recorded time.
        newest: Timestamp,
    },
    /// A person wants it kept.
    #[error("backup {backup} is pinned: {note}\n  hint: unpin it first")]
    Pinned {
        /// Which.
        backup: BackupId,
        /// Why.
        note: String,
    },
    /// Somebody uses it.
    #[error(
        "backup {backup} is in use by session {session}\n  hint: wait for it, or close that session if its process is dead"
    )]
    Held {
        /// Which.
        backup: BackupId,
        /// By whom.
        session: SessionId,
    },
    /// It is the last proven one.
    #[error("backup {backup} is the last proven one of {cluster}\n  hint: prove a newer one first")]
    LastProven {
        /// Which.
        backup: BackupId,
        /// Of which cluster.
        cluster: String,
    },
    /// It is the newest one.
    #[error("backup {backup} is the newest one of {cluster}\n  hint: make a newer one first")]
    Newest {
        /// Which.
        backup: BackupId,
        /// Of which cluster.
        cluster: String,
    },
    /// The WAL that a commit needs has expired.
    #[error(
        "the backup needs WAL of line {line} from segment {segment:#x} on, and all before segment {floor:#x} has expired\n  hint: run the backup again: it begins later. If this goes on, the server writes to an old timeline that nothing was kept of"
    )]
    WalExpired {
        /// The line.
        line: u32,
        /// What it needs.
        segment: u64,
        /// The first segment that stays.
        floor: u64,
    },
    /// A backup leads on by the WAL that would go.
    #[error(
        "WAL leads on from backup {backup}, which would go before segment {segment:#x} of line {line}\n  hint: run the prune again: it judges anew"
    )]
    WalNeeded {
        /// Which.
        backup: BackupId,
        /// The line.
        line: u32,
        /// Before this one something would go that it needs.
        segment: u64,
    },
    /// A session needs the WAL that would go.
    #[error(
        "session {session} needs WAL before segment {segment:#x} of line {line}\n  hint: wait for it, or close that session if its process is dead"
    )]
    WalHeld {
        /// Which.
        session: SessionId,
        /// The line.
        line: u32,
        /// Before this one something would go that it needs.
        segment: u64,
    },
    /// What has expired does not come back.
    #[error(
        "WAL of line {line} has expired up to segment {floor:#x} already\n  hint: run the prune again: it judges anew"
    )]
    WalFloor {
        /// The line.
        line: u32,
        /// The first segment that stays.
        floor: u64,
    },
    /// WAL that is none.
    #[error(
        "a stream of WAL without a name, or with one of more than 200 bytes, or segments without a size, or too many lines at once\n  hint: this is a fault of the program: please report it"
    )]
    WalForm,
}

fn ended(end: &SessionEnd) -> String {
    match end {
        SessionEnd::Committed(backup) => format!("has committed backup {backup}"),
        SessionEnd::Closed => "was closed".to_owned(),
        SessionEnd::TakenOver(by) => format!("was taken over by session {by}"),
    }
}

impl State {
    /// Whether a careful writer may append `body` now, at its clock's time `now`.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, now: Timestamp, body: &Body) -> Result<(), Refusal> {
        self.sound(body)?;
        if matches!(body, Body::Expire { .. } | Body::WalExpire(_))
            && let Some(newest) = self.newest_time().filter(|&newest| now < newest)
        {
            return Err(Refusal::ClockBehind { now, newest });
        }
        if let Body::Expire { backups } = body {
            for expired in backups {
                self.may_expire(expired.backup)?;
            }
        }
        Ok(())
    }

    /// Whether `backup` may expire, leaving clocks aside.
    ///
    /// # Errors
    /// Why not: a person, a session or a cluster needs it.
    pub fn may_expire(&self, backup: BackupId) -> Result<(), Refusal> {
        let found = self.backups().get(&backup).ok_or(Refusal::NoBackup { backup })?;
        if let Some(note) = &found.pinned {
            return Err(Refusal::Pinned { backup, note: note.clone() });
        }
        if let Some(session) = self.holder_of(backup) {
            return Err(Refusal::Held { backup, session });
        }
        let cluster = found.cluster.clone();
        if !found.complete {
            let live = self.sessions().contains_key(&found.session);
            return if live { Err(Refusal::Held { backup, session: found.session }) } else { Ok(()) };
        }
        if self.newest_proven_of(&cluster).is_some_and(|(id, _)| id == backup) {
            return Err(Refusal::LastProven { backup, cluster });
        }
        if self.newest_of(&cluster).is_some_and(|(id, _)| id == backup) {
            return Err(Refusal::Newest { backup, cluster });
        }
        Ok(())
    }

    /// Whether `body` can follow at all: what every reader demands of every record.
    pub(super) fn sound(&self, body: &Body) -> Result<(), Refusal> {
        if matches!(body, Body::Create { .. }) != (self.next() == 0) {
            return Err(Refusal::Beginning);
        }
        match body {
            Body::Create { .. } | Body::KeySlot { .. } | Body::Clock { .. } => Ok(()),
            Body::Open(open) => self.may_open(open, None),
            Body::Takeover { over, open } => {
                let session = self.live(*over)?;
                if session.cluster != open.cluster || session.purpose != open.purpose {
                    return Err(Refusal::WrongSession { session: *over });
                }
                self.may_open(open, Some(*over))
            }
            Body::Close { session, .. } => self.live(*session).map(drop),
            Body::Commit(commit) => self.may_commit(commit),
            Body::Prove { backup, .. } | Body::Pin { backup, .. } => match self.backups().get(backup) {
                None => Err(Refusal::NoBackup { backup: *backup }),
                Some(found) if !found.complete => Err(Refusal::Draft { backup: *backup }),
                Some(_) => Ok(()),
            },
            Body::Expire { backups } => {
                let ids: BTreeSet<_> = backups.iter().map(|expired| expired.backup).collect();
                if ids.is_empty() || ids.len() != backups.len() {
                    return Err(Refusal::Empty);
                }
                match ids.into_iter().find(|id| !self.backups().contains_key(id)) {
                    Some(backup) => Err(Refusal::NoBackup { backup }),
                    None => Ok(()),
                }
            }
            Body::Condemn { packs } => self.all(packs, |pack| pack.status == PackStatus::Live && pack.references == 0),
            Body::Delete { packs } => {
                self.all(packs, |pack| pack.status == PackStatus::Condemned && pack.references == 0)
            }
            Body::Deleted { packs } => {
                self.all(packs, |pack| pack.status == PackStatus::Deleting && pack.references == 0)
            }
            Body::Damage { packs, .. } => self.all(packs, |_| true),
            Body::WalExpire(expire) => self.may_expire_wal(expire),
        }
    }

    fn live(&self, id: SessionId) -> Result<&super::Session, Refusal> {
        self.sessions().get(&id).ok_or_else(|| match self.ended(id) {
            None => Refusal::NoSession { session: id },
            Some(end) => Refusal::SessionEnded { session: id, end },
        })
    }

    fn may_open(&self, open: &Opening, over: Option<SessionId>) -> Result<(), Refusal> {
        if open.cluster.is_empty() || open.cluster.len() > CLUSTER_BYTES_MAX {
            return Err(Refusal::ClusterName { name: open.cluster.chars().take(80).collect() });
        }
        if self.sessions().contains_key(&open.session) || self.ended(open.session).is_some() {
            return Err(Refusal::SessionExists { session: open.session });
        }
        if let Some(&backup) = open.bases.iter().find(|base| !self.backups().contains_key(base)) {
            return Err(Refusal::NoBackup { backup });
        }
        match self.writer_of(&open.cluster) {
            Some((session, found)) if open.purpose == Purpose::Backup && Some(session) != over => {
                Err(Refusal::InUse { session, cluster: open.cluster.clone(), since: found.time })
            }
            _ => Ok(()),
        }
    }

    fn may_commit(&self, commit: &Commit) -> Result<(), Refusal> {
        if self.live(commit.session)?.purpose != Purpose::Backup {
            return Err(Refusal::WrongSession { session: commit.session });
        }
        if self.backups().contains_key(&commit.backup) || self.is_expired(commit.backup) {
            return Err(Refusal::BackupExists { backup: commit.backup });
        }
        if let Some(WalStart { stream, line, segment, segment_bytes }) = &commit.wal {
            if stream.is_empty() || stream.len() > STREAM_BYTES_MAX || *segment_bytes == 0 {
                return Err(Refusal::WalForm);
            }
            let floor = self.wal_floor(stream, *line);
            if *segment < floor {
                return Err(Refusal::WalExpired { line: *line, segment: *segment, floor });
            }
        }
        for number in commit.known.iter() {
            let pack = self.pack(number).ok_or_else(|| Refusal::NoPack { pack: format!("number {number}") })?;
            if pack.status == PackStatus::Deleting {
                return Err(Refusal::PackDeleting { pack: pack.id });
            }
            // Its own draft may already hold a pack that a check found bad since.
            if pack.damaged {
                return Err(Refusal::PackDamaged { pack: pack.id });
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(pack) = commit.fresh.iter().find(|pack| self.number_of(pack.id).is_some() || !seen.insert(pack.id))
        {
            return Err(Refusal::PackExists { pack: pack.id });
        }
        let fresh = u32::try_from(commit.fresh.len()).ok().and_then(|fresh| self.next_pack().checked_add(fresh));
        fresh.filter(|&next| next < u32::MAX).map(drop).ok_or(Refusal::Exhausted)
    }

    fn may_expire_wal(&self, expire: &WalExpire) -> Result<(), Refusal> {
        let WalExpire { stream, lines, cut } = expire;
        if stream.is_empty() || stream.len() > STREAM_BYTES_MAX || lines.len() > WAL_LINES_MAX {
            return Err(Refusal::WalForm);
        }
        let cut_once: BTreeSet<_> = cut.iter().collect();
        if lines.is_empty() || lines.windows(2).any(|pair| pair[0].0 >= pair[1].0) || cut_once.len() != cut.len() {
            return Err(Refusal::Empty);
        }
        if let Some(&(line, _)) = lines.iter().find(|(line, first)| *first <= self.wal_floor(stream, *line)) {
            return Err(Refusal::WalFloor { line, floor: self.wal_floor(stream, line) });
        }
        let taken_from = |start: &WalStart| {
            let taken = |(line, first): &&(u32, u64)| start.needs_before(*line, *first);
            if start.stream == *stream { lines.iter().find(taken).copied() } else { None }
        };
        for (&session, found) in self.sessions() {
            if let Some((line, segment)) = found.wal.iter().find_map(taken_from) {
                return Err(Refusal::WalHeld { session, line, segment });
            }
        }
        for (&backup, found) in self.backups() {
            if let Some((line, segment)) = found.leads_on().and_then(taken_from)
                && !cut_once.contains(&backup)
            {
                return Err(Refusal::WalNeeded { backup, line, segment });
            }
        }
        // Only what loses something is cut.
        let loses = |id: &&BackupId| self.backups().get(id).and_then(|b| b.leads_on()).and_then(taken_from).is_some();
        match cut.iter().find(|id| !loses(id)) {
            Some(&backup) => Err(Refusal::NoBackup { backup }),
            None => Ok(()),
        }
    }

    fn all(&self, packs: &Numbers, right: impl Fn(&Pack) -> bool) -> Result<(), Refusal> {
        if packs.is_empty() {
            return Err(Refusal::Empty);
        }
        for number in packs.iter() {
            let pack = self.pack(number).ok_or_else(|| Refusal::NoPack { pack: format!("number {number}") })?;
            if !right(pack) {
                return Err(Refusal::PackStatus { pack: pack.id, status: pack.status, references: pack.references });
            }
        }
        Ok(())
    }
}
