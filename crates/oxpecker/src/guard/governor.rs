//! The governor as a task of its own: its acts await the server, and the loop that sounds the alarm must not wait with them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use autovacuum::{Governor, GovernorStatus};
use collector::{clock, postgres::Session};
use model::{EventKind, Moment, Observation, event::ReleaseReason};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

/// How often the governor looks, beside each new reading.
const TICK: Duration = Duration::from_millis(250);
/// Observations that wait for the governor. Beyond that they are dropped: a governor that is so far behind lets go, and a fresh one
/// comes within a second.
const WAITING: usize = 64;
/// Events of the governor that wait for the loop.
const EVENTS: usize = 256;
/// How long an orderly stop waits for the throttle's release; the release worker goes on where this ends.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(4);

enum Told {
    Observation(Box<Observation>),
    Session(Option<Arc<Session>>),
}

/// The loop's side of the governor.
pub struct GovernorTask {
    tell: mpsc::Sender<Told>,
    stop: oneshot::Sender<()>,
    status: watch::Receiver<Option<GovernorStatus>>,
    task: JoinHandle<()>,
}

impl GovernorTask {
    /// Starts it; its events come out of the receiver.
    pub fn start(governor: Governor, connection: String) -> (Self, mpsc::Receiver<(Moment, EventKind)>) {
        let (tell, told) = mpsc::channel(WAITING);
        let (events_out, events) = mpsc::channel(EVENTS);
        let (status_out, status) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(governor, connection, stopped, told, events_out, status_out));
        (Self { tell, stop, status, task }, events)
    }

    /// Tells it what was seen.
    pub fn observe(&self, observation: &Observation) {
        if self.tell.try_send(Told::Observation(Box::new(observation.clone()))).is_err() {
            tracing::debug!("the governor is busy and misses a reading");
        }
    }

    /// Tells it of the server's session, or that there is none.
    pub fn session(&self, session: Option<Arc<Session>>) {
        let tell = self.tell.clone();
        // Unlike a reading this must not get lost.
        tokio::spawn(async move { tell.send(Told::Session(session)).await });
    }

    /// What it last said of itself.
    pub fn status(&self) -> Option<GovernorStatus> {
        self.status.borrow().clone()
    }

    /// The same, as it changes.
    pub fn watch(&self) -> watch::Receiver<Option<GovernorStatus>> {
        self.status.clone()
    }

    /// Whether it still runs. It ends by itself only by a bug.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Lets go of everything and ends it, in bounded time.
    pub async fn stop(mut self) {
        let _ = self.stop.send(());
        if timeout(RELEASE_TIMEOUT, &mut self.task).await.is_err() {
            tracing::error!("the governor did not let go in time; its release worker and the next start see to it");
            // Its pipe to the release worker closes with it, and that is the worker's sign to let go.
            self.task.abort();
        }
    }
}

async fn run(
    mut governor: Governor,
    connection: String,
    mut stopped: oneshot::Receiver<()>,
    mut told: mpsc::Receiver<Told>,
    events: mpsc::Sender<(Moment, EventKind)>,
    status: watch::Sender<Option<GovernorStatus>>,
) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut configured = None;
    loop {
        let mut news = tokio::select! {
            // A governor that is told to stop begins nothing more.
            biased;
            _ = &mut stopped => break,
            news = told.recv() => match news {
                Some(news) => Some(news),
                None => break,
            },
            _ = tick.tick() => None,
        };
        // A step may have waited for the server; what came meanwhile is seen at once, so that it decides on the newest.
        while let Some(one) = news {
            match one {
                Told::Observation(observation) => governor.on_observation(&observation),
                Told::Session(session) => {
                    // Another session may be of another server: the old one is taken leave of first.
                    governor.on_client(None, &connection);
                    let left = governor.step(clock::now()).await;
                    tell(&events, left);
                    governor.on_client(session.map(|s| Arc::clone(&s.client)), &connection);
                }
            }
            news = told.try_recv().ok();
        }
        let happened = governor.step(clock::now()).await;
        tell(&events, happened);
        let now = governor.status();
        // A post-mortem asks with which setting vacuum ran: said when it is first known, and when its owner changes it.
        if let Some(resting) = now.configured.filter(|_| now.configured != configured) {
            configured = now.configured;
            tell(&events, vec![EventKind::SettingsSeen { resting, others: BTreeMap::new() }]);
        }
        status.send_replace(Some(now));
    }
    let happened = governor.release(clock::now(), ReleaseReason::GuardStopping).await;
    tell(&events, happened);
}

fn tell(events: &mpsc::Sender<(Moment, EventKind)>, happened: Vec<EventKind>) {
    for kind in happened {
        if let Err(error) = events.try_send((clock::now(), kind)) {
            tracing::error!(%error, "an event of the governor is not recorded");
        }
    }
}
