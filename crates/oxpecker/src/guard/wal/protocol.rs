//! What guard and receiver say to each other: one JSON document a line (`guard::lines`).
//!
//! The worker opens the repository, whose secret it reads itself from where the configuration says: nothing secret passes here. It ends when
//! its input does, for then the guard is gone.

use std::time::Duration;

use model::{ByteSize, Lsn};
use serde::{Deserialize, Serialize};
use wal::receive::SlotHealth;

use crate::config::Config;

/// Both ends must be of one version: they are of one binary, unless that was replaced while the guard ran.
pub const PROTOCOL: u32 = 2;

/// From the guard, first and last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Begin {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The guard's configuration as it is in force; it holds no secrets.
    pub config: Box<Config>,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToGuard {
    /// The newest backup that the repository has of this cluster, when the worker began: whoever made it.
    Based {
        /// Where it is consistent.
        stop: Lsn,
    },
    /// The stream runs.
    Receiving {
        /// The timeline.
        timeline: u32,
        /// From where on.
        from: Lsn,
        /// With which slot.
        slot: Option<String>,
        /// How much that can make the server keep.
        slot_limit: Option<ByteSize>,
    },
    /// How far it is, about once a second.
    Progress {
        /// The timeline.
        timeline: u32,
        /// Everything before this is in the repository.
        durable: Lsn,
        /// How far the server was when it last said so.
        server: Lsn,
    },
    /// The server took another timeline.
    Timeline {
        /// What was received.
        from: u32,
        /// What is received now.
        to: u32,
        /// Where it branched off.
        switch: Lsn,
    },
    /// The repository has WAL that the server never saw: a failover lost it.
    Beyond {
        /// The timeline that was left.
        timeline: u32,
        /// Where the server left it.
        switch: Lsn,
        /// How far the repository's WAL of it goes.
        stored: Lsn,
    },
    /// The repository has WAL of a newer timeline than the server's. Said before each stream of which it is so.
    Superseded {
        /// The server's.
        timeline: u32,
        /// The newer one.
        newer: u32,
    },
    /// The slot came near to the bound at which the server gives it up, or is far from it again.
    SlotHealth {
        /// Its name.
        slot: String,
        /// How it is.
        health: SlotHealth,
        /// What it makes the server keep.
        held: ByteSize,
    },
    /// WAL is missing that the server has removed.
    Missing {
        /// The timeline that was wanted.
        timeline: u32,
        /// The first byte that is missing.
        from: Lsn,
        /// Where it goes on.
        to: Lsn,
    },
    /// The slot is gone.
    SlotLost {
        /// Its name.
        slot: String,
        /// What the server says.
        why: String,
    },
    /// The repository does not take what was received; it is tried again.
    StoreFailing {
        /// What it says.
        error: String,
    },
    /// It does again.
    StoreBack {
        /// How long it did not.
        after: Duration,
    },
    /// The stream ended; it is tried again.
    Interrupted {
        /// Why.
        why: String,
    },
    /// A row of the canary is in the repository.
    Canary {
        /// How long that took from its commit.
        took: Duration,
    },
    /// The canary can't write.
    CanaryFailing {
        /// Why.
        error: String,
    },
    /// It can't go on. Last.
    Failed {
        /// Why, with a hint.
        error: String,
    },
}
