//! What a receiver tells whoever watches it: plain data, for a journal, a status line, a program.

use std::{sync::Arc, time::Duration};

use model::Lsn;
use serde::Serialize;

use super::decide::SlotHealth;

/// Called for every event, from the receiver's threads; must not block for long.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

/// How far the WAL is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The timeline.
    pub timeline: u32,
    /// Everything before this is durable in the repository, and acknowledged.
    pub durable: Lsn,
    /// Everything before this was received.
    pub received: Lsn,
    /// How far the server was when it last said so.
    pub server: Lsn,
    /// Bytes that would be lost if the server were lost now.
    pub lag_bytes: u64,
    /// How long the oldest byte that was received waits to be durable, in milliseconds; zero where none does.
    #[serde(rename = "waiting_ms", serialize_with = "millis")]
    pub waiting: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The stream runs.
    Connected {
        /// Which server.
        host: String,
        /// Its version.
        version: String,
        /// Which cluster.
        system_identifier: u64,
        /// The timeline that is streamed.
        timeline: u32,
        /// From where on.
        start: Lsn,
        /// With which slot.
        slot: Option<String>,
        /// How many bytes the slot can make the server keep at most (`max_slot_wal_keep_size`); `None`: no bound, the disk may fill.
        slot_cap: Option<u64>,
    },
    /// Told once a second.
    Progress(Progress),
    /// A slot was made.
    SlotCreated {
        /// Its name.
        slot: String,
    },
    /// Our slot is gone, or was given up by the server: WAL may be lost to the archive. A new one follows where that is allowed.
    SlotLost {
        /// Its name.
        slot: String,
        /// What the server says.
        why: String,
    },
    /// The slot comes near to the bound at which the server gives it up, or is far from it again.
    SlotHealth {
        /// Its name.
        slot: String,
        /// How it is.
        health: SlotHealth,
        /// Bytes that it makes the server keep.
        held: u64,
    },
    /// WAL is missing: the server has removed what was not received yet. Recovery can't go over it; a new base backup is due now.
    Gap {
        /// The timeline that was wanted.
        timeline: u32,
        /// The first byte that is missing.
        from: Lsn,
        /// Where it goes on.
        to: Lsn,
        /// The timeline on which it goes on.
        next: u32,
    },
    /// The server took another timeline, and so do we.
    Timeline {
        /// What was streamed.
        from: u32,
        /// What is streamed now.
        to: u32,
        /// Where it branched off.
        switch: Lsn,
    },
    /// The repository knows a newer timeline than the server's: another server was promoted, and this one may be an old primary that came
    /// back. What it writes is stored on its own timeline.
    Superseded {
        /// The server's.
        timeline: u32,
        /// The newer one.
        newer: u32,
    },
    /// The repository has WAL that this server never saw: a failover lost it. It stays where it is.
    BeyondSwitch {
        /// The timeline that was left.
        timeline: u32,
        /// Where the server left it.
        switch: Lsn,
        /// How far our WAL of it goes.
        stored: Lsn,
    },
    /// The store does not take what was received; it is tried again.
    StoreFailing {
        /// What it says.
        error: String,
        /// For how long, in milliseconds.
        #[serde(rename = "for_ms", serialize_with = "millis")]
        since: Duration,
    },
    /// The store takes WAL again.
    StoreBack {
        /// How long it did not, in milliseconds.
        #[serde(rename = "after_ms", serialize_with = "millis")]
        after: Duration,
    },
    /// The page map of a range was stored.
    Mapped {
        /// The timeline.
        timeline: u32,
        /// From where on it is whole.
        from: Lsn,
        /// Up to where.
        to: Lsn,
        /// How many pages it names one by one.
        pages: u64,
    },
    /// There is no page map of a range. The WAL itself is stored all the same.
    NotMapped {
        /// The timeline.
        timeline: u32,
        /// Where the range begins.
        from: Lsn,
        /// Where it ends.
        to: Lsn,
        /// Why.
        why: String,
    },
    /// The connection was cut so that the server need not wait for us.
    GaveWay {
        /// Why.
        why: &'static str,
    },
    /// The stream ended.
    Disconnected {
        /// Why.
        why: String,
        /// When the next attempt follows, in milliseconds.
        #[serde(rename = "again_in_ms", serialize_with = "millis")]
        again_in: Duration,
    },
}

fn millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_flat_object_each() {
        let progress = Progress {
            timeline: 1,
            durable: Lsn(1),
            received: Lsn(3),
            server: Lsn(5),
            lag_bytes: 4,
            waiting: Duration::from_millis(7),
        };
        let json = serde_json::to_value(Event::Progress(progress)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"event": "progress", "timeline": 1, "durable": "0/1", "received": "0/3", "server": "0/5", "lag_bytes": 4, "waiting_ms": 7})
        );
        let gap = Event::Gap { timeline: 1, from: Lsn(1), to: Lsn(2), next: 1 };
        assert_eq!(serde_json::to_value(gap).unwrap()["event"], "gap");
    }
}
