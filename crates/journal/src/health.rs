//! How the journal itself is: for status, and for an alert when recording fails.

use model::{ByteSize, Moment};

/// Whether events reach the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recording {
    /// They do.
    Ok,
    /// They don't; they wait in memory and are tried again.
    Failing {
        /// Since when.
        since: Moment,
        /// The newest error, in one line.
        error: String,
    },
    /// The writer has ended: after [`Journal::close`](crate::Journal::close), or by a bug.
    Stopped,
}

/// What was not recorded and never will be, since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Events.
    pub events: u64,
    /// Readings.
    pub readings: u64,
}

impl Lost {
    /// Events and readings together.
    pub fn total(self) -> u64 {
        self.events + self.readings
    }
}

/// How the journal is, at this instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalHealth {
    /// Whether events reach the disk.
    pub recording: Recording,
    /// Events that wait in memory.
    pub waiting_events: usize,
    /// Readings that wait in memory.
    pub waiting_readings: usize,
    /// Memory that the queue takes.
    pub waiting_bytes: ByteSize,
    /// What is lost since the journal was opened.
    pub lost: Lost,
    /// Events of the last week that were deleted because nothing else was left to keep the journal within its size.
    pub history_cut: u64,
}

impl JournalHealth {
    /// Whether all is recorded as declared.
    pub fn is_ok(&self) -> bool {
        self.recording == Recording::Ok
    }
}
