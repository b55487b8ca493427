//! What the tests share.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use journal::{EventQuery, Journal, JournalHealth, JournalOptions, Reader};
use model::{Event, EventKind, Moment};

/// Far more than anything here takes, so that only a hang fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Some instant; the journal does not care which.
pub fn at(seconds: i64) -> Moment {
    Moment {
        wall: Timestamp::from_second(1_700_000_000 + seconds).unwrap(),
        boot_us: seconds.unsigned_abs() * 1_000_000,
    }
}

pub fn noted(text: impl Into<String>) -> EventKind {
    EventKind::Noted { author: "test".into(), text: text.into() }
}

/// The text of a note.
pub fn text(event: &Event) -> &str {
    match &event.kind {
        EventKind::Noted { text, .. } => text,
        other => other.name(),
    }
}

/// Options that make a journal hurry.
pub fn hasty() -> JournalOptions {
    JournalOptions {
        reading_interval: Duration::from_millis(5),
        retry_first: Duration::from_millis(5),
        retry_longest: Duration::from_millis(50),
        tick_interval: Duration::from_secs(1),
        ..JournalOptions::default()
    }
}

/// All events of a journal.
pub fn all_events(dir: &Path) -> Vec<Event> {
    let everything = EventQuery { limit: usize::MAX, ..EventQuery::default() };
    let found = Reader::open(dir).unwrap().events(&everything).unwrap();
    assert_eq!(found.skipped, 0);
    found.events
}

/// Waits until the journal's health is as wanted.
pub fn until(journal: &Journal, what: &str, is: impl Fn(&JournalHealth) -> bool) -> JournalHealth {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = journal.health();
        if is(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {health:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A generator of numbers that can be repeated from its seed (splitmix64, Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
