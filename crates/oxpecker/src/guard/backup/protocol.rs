//! What guard and backup worker say to each other: one JSON document a line (`guard::lines`).
//!
//! The worker opens the repository, whose secret it reads itself from where the configuration says: nothing secret passes here. It
//! ends when its input does, for then the guard is gone.

use std::time::Duration;

use jiff::Timestamp;
use model::{ByteSize, Lsn, reading::Exposure};
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Both ends must be of one version: they are of one binary, unless that was replaced while the guard ran.
pub const PROTOCOL: u32 = 1;

/// What a worker is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Open the repository and say what is there.
    Look,
    /// Make a backup, prove it where that is configured, apply the retention.
    Create,
    /// Prove the newest backup, then apply the retention.
    Prove,
}

/// From the guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToWorker {
    /// First.
    Begin {
        /// [`PROTOCOL`].
        protocol: u32,
        /// What to do.
        job: Job,
        /// The guard's configuration as it is in force; it holds no secrets.
        config: Box<Config>,
    },
    /// The host is under pressure: step back.
    Pause,
    /// Go on.
    Resume,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToGuard {
    /// What is in the repository.
    Seen(Seen),
    /// It could not be looked at.
    NotSeen {
        /// Why, with a hint.
        error: String,
    },
    /// How far it is.
    Progress {
        /// What is being done.
        stage: String,
        /// Bytes done.
        done: ByteSize,
        /// Bytes in all.
        total: ByteSize,
        /// How long it will take.
        remaining: Option<Duration>,
    },
    /// A backup was committed.
    Created {
        /// It.
        backup: SeenBackup,
        /// Where it ends.
        stop_lsn: Lsn,
        /// How long it took.
        took: Duration,
        /// Bytes that the repository grew by.
        stored: ByteSize,
    },
    /// No backup was made.
    NotCreated {
        /// Why, with a hint.
        error: String,
    },
    /// A backup was proven.
    Proven {
        /// Its id.
        backup: String,
        /// The moment that it restores to.
        consistent_at: Timestamp,
        /// How long that took.
        took: Duration,
        /// The measured recovery time.
        recovery_time: Option<Duration>,
        /// The age of the newest commit that was recovered with the repository's WAL.
        found_age: Option<Duration>,
    },
    /// It was not.
    NotProven {
        /// Its id.
        backup: Option<String>,
        /// Whether something is wrong with the backup.
        damaged: bool,
        /// Why.
        reasons: Vec<String>,
    },
    /// The retention was applied.
    Pruned {
        /// Backups that are kept.
        kept: u64,
        /// Backups that expired.
        expired: Vec<String>,
        /// Bytes that were given back.
        freed: ByteSize,
    },
    /// Something about the repository is not as it should be; the job goes on.
    Problem {
        /// What.
        problem: String,
    },
    /// The job is done, well or not: what came of it was said. Last.
    Ended,
}

/// What is in the repository, of the guarded cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The newest backup.
    pub last: Option<SeenBackup>,
    /// The newest that was proven.
    pub proven: Option<SeenBackup>,
    /// What keeps the repository from being a protection.
    pub exposures: Vec<Exposure>,
}

/// A backup as the repository has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenBackup {
    /// Its id.
    pub id: String,
    /// When its making began.
    pub began: Timestamp,
    /// The moment that it restores to.
    pub consistent_at: Timestamp,
    /// Bytes of the cluster.
    pub size: ByteSize,
    /// Damaged pages in the source.
    pub corrupt_pages: u64,
    /// What its newest proof found, where there was one.
    pub proven: Option<bool>,
    /// The measured recovery time, where it was proven.
    pub recovery_time: Option<Duration>,
    /// The age of the newest commit that the proof recovered with the repository's WAL, when it looked that up.
    pub found_age: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::lines::to_line;

    #[test]
    fn a_configuration_passes_unchanged() {
        let text = "state_dir = \"/var/lib/oxpecker\"\n[postgres]\nurl = \"host=/run\"\n[repository]\nurl = \"file:///srv/b\"\n\
                    [backup]\nschedule = \"0 3 * * *\"\nmax_age = \"30h\"\n[[backup.proof]]\ndatabase = \"app\"\nsql = \"select 1\"\n\
                    [[service]]\nname = \"site\"\nhealth = { tcp = \"x:1\" }\n\
                    [[alert.route]]\nname = \"r\"\nwebhook = { url_env = \"X\" }\n";
        let config: Config = toml::from_str(text).unwrap();
        let line = to_line(&ToWorker::Begin { protocol: PROTOCOL, job: Job::Create, config: Box::new(config.clone()) });
        let ToWorker::Begin { config: read, job, .. } = serde_json::from_slice(&line).unwrap() else { panic!() };
        assert_eq!((*read, job), (config, Job::Create));
    }
}
