//! Health checks of declared services.
//!
//! Each service is checked on its own rhythm by a task of its own; a check has a time-out, and only so many run at once. A check
//! that fails once is a reading; only some in a row make a service unhealthy.

mod health;
mod probe;

use std::{sync::Arc, time::Duration};

use model::{EventKind, Observation, Reading, ServiceName, reading::ServiceReading};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

pub use health::{Change, FAILURES_TO_UNHEALTHY, Hysteresis, SUCCESSES_TO_HEALTHY};
pub use probe::{Check, CheckError};

use crate::clock;

/// Checks that run at once. More wait for their turn; waiting does not count as the service's time.
pub const MAX_AT_ONCE: usize = 16;
/// No check comes more often.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// A declared service and how to check it.
#[derive(Clone, Debug)]
pub struct ServiceProbe {
    /// Its name.
    pub name: ServiceName,
    /// What to ask.
    pub check: Check,
    /// An answer that takes longer is none.
    pub timeout: Duration,
    /// From the begin of one check to the begin of the next.
    pub interval: Duration,
    /// What people lose while it is down, as declared.
    pub impact: Vec<String>,
}

/// Checks all services until nobody receives any more.
pub async fn run(probes: Vec<ServiceProbe>, observations: mpsc::Sender<Observation>) {
    let places = Arc::new(Semaphore::new(MAX_AT_ONCE));
    let mut tasks = JoinSet::new();
    let number = u32::try_from(probes.len()).unwrap_or(u32::MAX).max(1);
    for (index, probe) in (0u32..).zip(probes) {
        // Spread over the interval, so that many checks do not make a burst of their own.
        let start = Instant::now() + probe.interval / number * index;
        tasks.spawn(watch(probe, start, Arc::clone(&places), observations.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn watch(probe: ServiceProbe, start: Instant, places: Arc<Semaphore>, observations: mpsc::Sender<Observation>) {
    let mut health = health::Hysteresis::default();
    let mut rhythm = interval_at(start, probe.interval.max(SHORTEST_INTERVAL));
    rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rhythm.tick() => {}
            () = observations.closed() => return,
        }
        // Nobody closes the semaphore; without it there is nothing to bound.
        let Ok(place) = places.acquire().await else { return };
        let begin = Instant::now();
        let outcome = match tokio::time::timeout(probe.timeout, probe.check.run()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {}", seconds(probe.timeout))),
        };
        drop(place);
        let at = clock::now();
        let reading = ServiceReading {
            at,
            service: probe.name.clone(),
            health: health::of(&outcome),
            took: begin.elapsed(),
            detail: outcome.err(),
            stopped_by: None,
        };
        if let Some(change) = health.observe(&reading) {
            let event = EventKind::ServiceChanged {
                service: probe.name.clone(),
                health: change.health,
                detail: change.detail,
                impact: probe.impact.clone(),
            };
            if observations.send(Observation::Event(change.since, event)).await.is_err() {
                return;
            }
        }
        if observations.send(Observation::Reading(Reading::Service(reading))).await.is_err() {
            return;
        }
    }
}

/// `2 s`, `0.5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{} s", (duration.as_secs_f64() * 1000.0).round() / 1000.0)
}
