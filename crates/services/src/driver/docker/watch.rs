//! When something changed: by the engine's own events, on one connection that stays open.
//!
//! A task reads them for as long as its driver lives, so that none is missed between two calls; where the connection breaks it tries again, at first soon and then ever
//! more seldom. A new connection and a broken one are changes too: what happened meanwhile is not told again.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    Declared,
    answer::{Event, read},
    client::Client,
    error::EngineError,
};

/// How long changes are gathered.
const BURST: Duration = Duration::from_millis(10);
/// How long after a broken connection the next one is tried.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// That time at most: it is doubled each time.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The longest event, in bytes: it has all labels of its container.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The task that reads.
pub(super) struct Watching {
    task: JoinHandle<()>,
    changes: watch::Receiver<()>,
}

impl Watching {
    pub(super) fn start(client: Arc<Client>, declared: Arc<[Declared]>) -> Self {
        let (tell, changes) = watch::channel(());
        Self { task: tokio::spawn(follow(client, declared, tell)), changes }
    }

    /// Whether it still reads.
    pub(super) fn goes_on(&self) -> bool {
        !self.task.is_finished()
    }

    /// Returns once there was a change since it returned last.
    pub(super) async fn next(&mut self) {
        // It fails where the task has ended: all that is known of it is old.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Arc<Client>, declared: Arc<[Declared]>, tell: watch::Sender<()>) {
    let mut pause = RETRY_FIRST;
    loop {
        let began = Instant::now();
        let broken = read_events(&client, &declared, &tell).await;
        tracing::debug!(%broken, "the engine's events can't be followed; trying again");
        if began.elapsed() > RETRY_MAX {
            pause = RETRY_FIRST;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Until the connection breaks; why it did.
async fn read_events(client: &Client, declared: &[Declared], tell: &watch::Sender<()>) -> EngineError {
    let mut response = match client.events().await {
        Ok(response) => response,
        Err(error) => return error,
    };
    tell.send_replace(());
    let mut lines = Lines::default();
    let broken = loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                break EngineError::NoAnswer { socket: client.socket().to_owned(), why: "it closed".to_owned() };
            }
            Err(error) => break EngineError::of_request(client.socket(), &error),
        };
        match lines.push(&chunk, |line| concerns(line, declared)) {
            Ok(false) => {}
            Ok(true) => {
                sleep(BURST).await;
                tell.send_replace(());
            }
            Err(error) => break error,
        }
    };
    tell.send_replace(());
    broken
}

/// Whether an event is about one of these. One that can't be read may be about anything.
fn concerns(line: &[u8], declared: &[Declared]) -> bool {
    read::<Event>("an event", line).map_or(true, |event| declared.iter().any(|one| one.is(&event)))
}

/// Lines that come in pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes one more piece; whether `any` says so of a line that is complete with it.
    fn push(&mut self, piece: &[u8], any: impl Fn(&[u8]) -> bool) -> Result<bool, EngineError> {
        let mut found = false;
        let mut parts = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            if self.rest.len() + part.len() > EVENT_BYTES_MAX {
                return Err(EngineError::TooLarge { what: "an event".to_owned(), bytes_max: EVENT_BYTES_MAX });
            }
            self.rest.extend_from_slice(part);
            if parts.peek().is_some() {
                let line = std::mem::take(&mut self.rest);
                found |= !line.trim_ascii().is_empty() && any(&line);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(attributes: &serde_json::Value) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "Type": "container", "Action": "die", "Actor": {"ID": "ab", "Attributes": attributes}
        }))
        .unwrap()
    }

    #[test]
    fn events_of_others_are_none_of_ours() {
        let declared = [Declared::container("site", "web"), Declared::compose("db", "p", "postgres")];
        let compose = |project: &str| {
            let label = ("com.docker.compose.project", "com.docker.compose.service");
            event(&serde_json::json!({"name": "x", label.0: project, label.1: "postgres"}))
        };
        assert!(concerns(&event(&serde_json::json!({"name": "web"})), &declared));
        assert!(concerns(&event(&serde_json::json!({"name": "new", "oldName": "/web"})), &declared));
        assert!(concerns(&compose("p"), &declared));
        assert!(concerns(b"not even JSON", &declared));
        assert!(!concerns(&compose("q"), &declared));
        assert!(!concerns(&event(&serde_json::json!({"name": "web2"})), &declared));
        assert!(!concerns(b"{}", &declared));
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2 + 1];
        assert_eq!(lines.push(&piece, |_| true), Ok(false));
        assert!(matches!(lines.push(&piece, |_| true), Err(EngineError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn however_lines_are_cut(text in "[ab\n]{0,60}", size in 1_usize..7) {
            let mut lines = Lines::default();
            let mut seen = std::cell::RefCell::new(Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece, |line| { seen.borrow_mut().push(line.to_vec()); true }).unwrap();
            }
            let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
            let expected: Vec<&[u8]> = whole.split('\n').filter(|line| !line.is_empty()).map(str::as_bytes).collect();
            prop_assert_eq!(seen.get_mut().as_slice(), expected.as_slice());
        }
    }
}
