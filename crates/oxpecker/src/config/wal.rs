//! `[wal]`: WAL that streams into the repository, and how its age is measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// `[wal]`: what the guard does about WAL between backups.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Whether the guard receives WAL as it is written. Without, all since the newest backup is lost with the cluster, unless
    /// `archive_command` pushes it.
    pub receive: bool,
    /// The replication slot that keeps on the server what was not received yet; made where it is not there.
    pub slot: String,
    /// Whether the slot is made though nothing bounds it (`max_slot_wal_keep_size`): a receiver that is away for long then fills the server's
    /// disk.
    pub unlimited_slot: bool,
    /// How long bytes may wait until they are durable in the repository, while the server writes. Each wait's end costs a write.
    pub flush_every: HumanDuration,
    /// Alert when more than this would be lost with the server.
    pub max_behind: HumanDuration,
    /// A row that is written every so often, to measure how long a commit takes to the repository, and so that there is always a recent moment
    /// to return to. Without it nothing is ever written to the database.
    pub canary: Option<HumanDuration>,
    /// In which database: the row is in `oxpecker.canary`, which is made where it is not there.
    pub canary_database: String,
}

impl Default for Wal {
    fn default() -> Self {
        Self {
            receive: false,
            slot: "oxpecker".to_owned(),
            unlimited_slot: false,
            flush_every: HumanDuration(wal::receive::FLUSH_LOCAL),
            max_behind: HumanDuration::from_secs(60),
            canary: None,
            canary_database: "postgres".to_owned(),
        }
    }
}

impl Wal {
    /// The shortest time between two rows of the canary: more often would be a load.
    pub const CANARY_LEAST: Duration = Duration::from_millis(500);
    /// The shortest wait for a flush: a disk takes some milliseconds for each.
    pub const FLUSH_LEAST: Duration = Duration::from_millis(50);

    /// What can't be used, each by its key, with a hint.
    pub fn problems(&self, has_repository: bool) -> Vec<(&'static str, String, &'static str)> {
        let mut found = Vec::new();
        let mut problem = |key, what: &str, hint| found.push((key, what.to_owned(), hint));
        if self.receive && !has_repository {
            problem(
                "wal.receive",
                "has no repository to write to",
                "name one: [repository] url = \"file:///srv/backup\"",
            );
        }
        if let Err(error) = self.slot.parse::<pg_replication::SlotName>() {
            problem("wal.slot", &error.to_string(), "lower-case letters, digits and underscores, up to 63");
        }
        if self.flush_every.0 < Self::FLUSH_LEAST {
            problem("wal.flush_every", "too short", "50ms or more; 500ms is the default");
        }
        if self.max_behind.0 <= self.flush_every.0 {
            problem("wal.max_behind", "is not longer than flush_every", "what waits for a flush is behind by so much");
        }
        if self.canary.is_some_and(|every| every.0 < Self::CANARY_LEAST) {
            problem("wal.canary", "too short", "500ms or more; such as 5s");
        }
        if self.canary.is_some() && !self.receive {
            problem("wal.canary", "measures nothing while receive is off", "receive = true");
        }
        found
    }
}
