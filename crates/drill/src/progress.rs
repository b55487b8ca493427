//! What a drill says while it works.

use std::time::Duration;

/// What the drill says while it works; the binary makes a bar or plain lines of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// A phase begins.
    Began {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What happens in it, for people.
        title: String,
        /// How long it should take.
        expected: Duration,
    },
    /// It goes on: about once a second.
    Goes {
        /// Since it began.
        elapsed: Duration,
        /// How long it should take.
        expected: Duration,
        /// What is measured just now; empty where there is nothing to tell.
        now: String,
    },
    /// It ended.
    Ended {
        /// How long it took.
        took: Duration,
        /// What came of it, in one line.
        outcome: String,
    },
    /// Something worth a line of its own.
    Note(String),
}

/// Who listens to a drill.
pub trait Progress {
    /// Called from the drill's own task: must not block.
    fn on(&mut self, event: ProgressEvent);
}

impl<F: FnMut(ProgressEvent)> Progress for F {
    fn on(&mut self, event: ProgressEvent) {
        self(event);
    }
}
