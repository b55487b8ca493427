//! What a journal is allowed to keep and to take.

use std::time::Duration;

use model::ByteSize;

use crate::JournalError;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Declared retention. Ages count on the journal's own clock, see the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long readings are kept.
    pub readings: Duration,
    /// How long events are kept.
    pub events: Duration,
    /// What the journal's files may take together: the oldest readings go first, then the oldest events.
    pub max_size: ByteSize,
}

impl Retention {
    /// The least that [`Retention::max_size`] may be.
    pub const LEAST_SIZE: ByteSize = ByteSize(8 << 20);
    /// Events younger than this are only deleted when nothing else is left, and that is recorded.
    pub const PROTECTED: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Part of [`Retention::max_size`] that is kept for the write-ahead log.
    pub const LOG_RESERVE: ByteSize = ByteSize(2 << 20);

    pub(crate) fn check(&self) -> Result<(), JournalError> {
        if self.max_size < Self::LEAST_SIZE {
            return Err(JournalError::TooSmall { given: self.max_size, least: Self::LEAST_SIZE });
        }
        Ok(())
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { readings: DAY, events: DAY * 400, max_size: ByteSize(256 << 20) }
    }
}

/// How a journal works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// What is kept.
    pub retention: Retention,
    /// Memory for events and readings that wait for the disk. Held only while the store is slow or fails.
    pub backlog: ByteSize,
    /// How long a reading waits for others, to be written together with them.
    pub reading_interval: Duration,
    /// The pause after the first failed attempt to write; doubled after each further one.
    pub retry_first: Duration,
    /// The longest pause between attempts.
    pub retry_longest: Duration,
    /// How often the journal notes its age; ages are known to this precision.
    pub tick_interval: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            backlog: ByteSize(2 << 20),
            reading_interval: Duration::from_secs(2),
            retry_first: Duration::from_millis(250),
            retry_longest: Duration::from_secs(5),
            tick_interval: HOUR,
        }
    }
}
