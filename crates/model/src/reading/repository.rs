//! How the repository stands: backups, and the WAL that streams into it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Lsn, Moment};

/// The cluster's backups, as far as the guard knows. Ages are computed by the guard, which adds what the boot clock counted to what
/// the wall clock said when it learnt of them: a stepped wall clock changes none of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupReading {
    /// When this was put together.
    pub at: Moment,
    /// The repository's place, without secrets.
    pub repository: String,
    /// How long a guard has known of this repository: what "never proven" counts from.
    pub known_for: Duration,
    /// How old the newest proven backup may be; none where nobody said so and nothing is scheduled.
    pub max_age: Option<Duration>,
    /// Whether the repository was looked at since this guard began; before that, what the journal says is all that is known.
    pub looked: bool,
    /// The newest backup.
    pub last: Option<BackupSeen>,
    /// The newest backup that was proven.
    pub proven: Option<BackupSeen>,
    /// Failures in a row, of backups or proofs; zero where the newest run did what it should.
    pub failures: u32,
    /// What failed last, while `failures` is not zero.
    pub last_error: Option<String>,
    /// What keeps the repository from being a protection; empty where nothing does or nobody looked yet.
    pub exposures: Vec<Exposure>,
    /// The run that is under way.
    pub running: Option<BackupRunning>,
    /// When the next run begins; none where nothing is scheduled.
    pub next_run: Option<Timestamp>,
}

/// How the WAL that streams into the repository stands: the recovery point objective (RPO), measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiveReading {
    /// When this was put together.
    pub at: Moment,
    /// The repository's place, without secrets.
    pub repository: String,
    /// How much may be lost, as time: beyond it is an alarm.
    pub max_behind: Duration,
    /// Whether WAL streams at this moment.
    pub receiving: bool,
    /// The timeline that is, or was last, received.
    pub timeline: Option<u32>,
    /// All WAL before this is in the repository.
    pub durable: Option<Lsn>,
    /// How far the server was when it last said so.
    pub server: Option<Lsn>,
    /// What would be lost if the server were lost now, as time: how long ago it was that all WAL of that moment was in the repository. While
    /// the server can't be asked it grows, for it may be writing.
    pub behind: Duration,
    /// How long the newest row of the canary that arrived took from its commit until it was in the repository; none where no canary is written.
    pub canary: Option<Duration>,
    /// Attempts in a row that ended before anything was received; zero while it streams.
    pub failures: u32,
    /// What went wrong last, while something is wrong.
    pub last_error: Option<String>,
    /// WAL that is missing in the repository, the newest gap: point-in-time recovery can't go over it.
    pub gap: Option<Gap>,
}

/// WAL that never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first byte that is missing.
    pub from: Lsn,
    /// Where it goes on.
    pub to: Lsn,
}

/// A backup in the repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupSeen {
    /// Its id.
    pub id: String,
    /// The moment that it restores to.
    pub consistent_at: Timestamp,
    /// How long ago that was: what would be lost if the cluster were lost now and this backup were all there is.
    pub age: Duration,
    /// Bytes of the cluster.
    pub size: ByteSize,
    /// Damaged pages that were in the source.
    pub corrupt_pages: u64,
    /// The measured recovery time, where it was proven and that was measured.
    pub recovery_time: Option<Duration>,
    /// The age of the newest commit that the proof recovered with the repository's WAL, when it looked that up; none without WAL.
    #[serde(default)]
    pub found_age: Option<Duration>,
}

/// Why a repository is no protection against everything that a backup is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "exposure", rename_all = "snake_case")]
pub enum Exposure {
    /// Nobody has confirmed that the recovery key lies somewhere else: who loses this host and its key file loses the backups.
    NoRecoveryKey,
    /// It is on the same file system as the database: what takes the disk takes both.
    SameDisk {
        /// The repository's folder.
        path: String,
    },
}

/// A run of the backup worker that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRunning {
    /// What is being done: `copying`, `restoring`, ...
    pub stage: String,
    /// Bytes done.
    pub done: ByteSize,
    /// Bytes in all, as far as known.
    pub total: ByteSize,
    /// How long it will take at this rate, where that can be said.
    pub remaining: Option<Duration>,
    /// Whether it stands back because the host is under pressure.
    pub paused: bool,
}
