//! Heartbeats at work: a task of its own, so that a check that is slow or gone holds up no alert.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    target::{Failure, Targets},
    webhook::HttpTarget,
};
use crate::{
    clock,
    heartbeat::{Heartbeat, SENSED_WITHIN, TOLD_AFTER},
    protocol::ToGuard,
};

/// Least pause after one that failed.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Sends heartbeats for as long as somebody says that the guard senses.
pub(super) struct HeartbeatTask {
    heartbeat: Heartbeat,
    target: Result<HttpTarget, String>,
    /// When the newest reading that the guard told of was taken, in microseconds on the boot clock.
    sensed: watch::Receiver<Option<u64>>,
    answers: mpsc::Sender<ToGuard>,
}

impl HeartbeatTask {
    pub(super) fn new(
        heartbeat: Heartbeat,
        targets: &Targets,
        sensed: watch::Receiver<Option<u64>>,
        answers: mpsc::Sender<ToGuard>,
    ) -> Self {
        let target = targets.heartbeat(&heartbeat);
        Self { heartbeat, target, sensed, answers }
    }

    /// Works until the guard is gone; what is under way then is broken off.
    pub(super) async fn run(self) {
        let Self { heartbeat, target, sensed, answers } = self;
        let mut guard = sensed.clone();
        let gone = async move { while guard.changed().await.is_ok() {} };
        tokio::select! {
            () = gone => {}
            () = beat(&heartbeat, target, sensed, &answers) => {}
        }
    }
}

async fn beat(
    heartbeat: &Heartbeat,
    target: Result<HttpTarget, String>,
    mut sensed: watch::Receiver<Option<u64>>,
    answers: &mpsc::Sender<ToGuard>,
) {
    let target = match target {
        Ok(target) => target,
        Err(error) => {
            // It never will: no need to wait for the third.
            let _ = answers.send(ToGuard::Heartbeat { missed: TOLD_AFTER, error: Some(error) }).await;
            return;
        }
    };
    let mut missed: u32 = 0;
    loop {
        while !senses(*sensed.borrow_and_update()) {
            if sensed.changed().await.is_err() {
                return;
            }
        }
        let began = Instant::now();
        let result = target.beat(heartbeat).await;
        missed = if result.is_ok() { 0 } else { missed.saturating_add(1) };
        let next = began + pause(heartbeat.every, result.as_ref().err());
        let _ = answers.send(ToGuard::Heartbeat { missed, error: result.err().map(|failure| failure.error) }).await;
        sleep_until(next).await;
    }
}

/// Whether a reading taken then, in microseconds on the boot clock, is young enough. One that was told of by a guard that hangs since, or that
/// waited in the pipe, is not.
pub(super) fn senses(taken_us: Option<u64>) -> bool {
    taken_us.is_some_and(|taken| {
        let age = Duration::from_micros(clock::now().boot_us.saturating_sub(taken));
        age < SENSED_WITHIN
    })
}

/// From the start of one to the start of the next. One that failed is tried again sooner, so that a single lost packet makes no alarm outside,
/// and never later: what the receiver asks for counts up to the usual pause.
fn pause(every: Duration, failure: Option<&Failure>) -> Duration {
    match failure {
        None => every,
        Some(failure) => (every / 4).max(LEAST_PAUSE).max(failure.retry_after.unwrap_or_default()).min(every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_failed_is_tried_again_sooner_but_not_at_once() {
        let s = Duration::from_secs;
        let failed = |retry_after| Failure { error: String::new(), permanent: false, retry_after };
        for (every, failure, expected) in [
            (s(60), None, s(60)),
            (s(60), Some(failed(None)), s(15)),
            (s(60), Some(failed(Some(s(30)))), s(30)),
            (s(60), Some(failed(Some(s(3_600)))), s(60)),
            (s(2), Some(failed(None)), s(1)),
            (s(1), Some(failed(None)), s(1)),
        ] {
            assert_eq!(pause(every, failure.as_ref()), expected, "{every:?} {failure:?}");
        }
    }

    #[test]
    fn only_a_young_reading_counts() {
        let now = clock::now().boot_us;
        let ago = |age: Duration| now.saturating_sub(u64::try_from(age.as_micros()).unwrap());
        assert!(senses(Some(now)));
        assert!(senses(Some(ago(SENSED_WITHIN / 2))));
        assert!(!senses(Some(ago(SENSED_WITHIN))));
        assert!(!senses(None), "a guard that never said that it senses");
    }
}
