//! Delivery, the guard's side: hands alerts to the worker, persists them, reports what became of them.
//!
//! Order on an alert: log, worker, outbox. What is on its way is held in memory and, where the disk allows, in the outbox; a new
//! worker, or the next guard, is told all of it again with the same keys: at least once.

mod storage;
mod supervisor;
mod worker;

use std::{path::PathBuf, time::Duration};

use model::{Alert, AlertState, EventKind, Moment, Severity};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use self::worker::WorkerCommand;
use self::{
    storage::Storage,
    supervisor::{Ear, Supervisor, Tells, Work},
};
use crate::{
    clock,
    heartbeat::Heartbeat,
    hush::Book,
    outbox::{Outbox, Pending, Recovered},
    peer::Peer,
    route::Route,
};

/// Alerts that wait to be taken by the supervisor, which takes them at once; there are seven rules.
const SUBMITTED: usize = 1_024;

/// Outcomes that wait to be read by the guard; beyond it they are only logged.
const OUTCOMES: usize = 4_096;

/// The name under which the outbox's own failures are reported as [`EventKind::AlertFailed`].
pub const OUTBOX_ROUTE: &str = "outbox";

/// What delivery needs.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// `outbox/` in the state directory, whose lock the caller holds.
    pub outbox_dir: PathBuf,
    /// Where alerts go beside the log. With none, no heartbeat and no peer, no worker is started.
    pub routes: Vec<Route>,
    /// Whom outside the host to tell that the guard lives and senses, and how often.
    pub heartbeat: Option<Heartbeat>,
    /// The guard on another host with which this one watches each other.
    pub peer: Option<Peer>,
    /// How to start the worker.
    pub worker: WorkerCommand,
}

/// A started delivery.
#[derive(Debug)]
pub struct Started {
    /// Takes alerts.
    pub delivery: Delivery,
    /// What became of them: `AlertDelivered` and `AlertFailed`, for the journal.
    pub outcomes: mpsc::Receiver<(Moment, EventKind)>,
    /// The firing alerts of episodes that the guard before left open, for [`crate::Rules::resume`].
    pub open: Vec<Alert>,
}

/// Takes alerts. Dropping it ends delivery in the background; [`Delivery::shutdown`] waits for that.
#[derive(Debug)]
pub struct Delivery {
    alerts: mpsc::Sender<Alert>,
    sensed: watch::Sender<Option<Moment>>,
    problems: watch::Receiver<Vec<String>>,
    peer: Option<String>,
    heard: watch::Receiver<Option<Ear>>,
    supervisor: JoinHandle<()>,
}

impl Delivery {
    /// Starts it, in a tokio runtime, and delivers what an earlier guard left. It always starts: what is missing is said in the
    /// log and among the outcomes, and the log gets the alerts all the same.
    pub fn start(options: DeliveryOptions) -> Started {
        let (outcome_sender, outcomes) = mpsc::channel(OUTCOMES);
        let (outbox, mut recovered) = match Outbox::open(&options.outbox_dir) {
            Ok((outbox, recovered)) => (Some(outbox), recovered),
            Err(error) => (None, Recovered { problems: vec![error.to_string()], ..Recovered::default() }),
        };
        for problem in &recovered.problems {
            tracing::error!("{problem}");
        }
        reconcile(&mut recovered);
        // At the start it is read here and now: what is silenced stays so.
        let said = Book::new(&options.outbox_dir).read().unwrap_or_default();
        let (hush_sender, hush) = watch::channel(said);
        let (storage, write_failures) = Storage::start(options.outbox_dir.clone(), outbox, hush_sender);
        let (alerts, submitted) = mpsc::channel(SUBMITTED);
        let (problem_sender, problems) = watch::channel(Vec::new());
        let (sensed, senses) = watch::channel(None);
        let DeliveryOptions { routes, heartbeat, peer, worker: command, .. } = options;
        let name = peer.as_ref().map(|peer| peer.name.clone());
        let (hears, heard) = watch::channel(None);
        let tells = Tells { outcomes: outcome_sender, problems: problem_sender, heard: hears };
        let work = Work { routes, heartbeat, peer, command };
        let supervisor = Supervisor::new(work, storage, tells, senses, hush, &recovered);
        let supervisor = tokio::spawn(supervisor.run(submitted, write_failures));
        let delivery = Self { alerts, sensed, problems, peer: name, heard, supervisor };
        Started { delivery, outcomes, open: recovered.open }
    }

    /// Logs the alert and hands it to its routes. Never blocks, never fails: what can't be delivered is an outcome.
    pub fn submit(&self, alert: Alert) {
        log(&alert);
        if let Err(error) = self.alerts.try_send(alert) {
            tracing::error!("delivery: {error}: the alert above goes to the log only. Hint: restart the guard");
        }
    }

    /// A reading of the host, taken then, has reached whoever calls: the guard lives and senses, and heartbeats may go out. Never blocks.
    pub fn senses(&self, taken: Moment) {
        self.sensed.send_replace(Some(taken));
    }

    /// The other guard, by its name, and for how long up to `now` nothing was heard of it; or how long it has been listened for, where it was
    /// not heard since (false). None where nobody listens for it at the moment.
    pub fn peer_silence(&self, now: Moment) -> Option<(&str, Duration, bool)> {
        let Ear { since, heard } = (*self.heard.borrow())?;
        Some((self.peer.as_deref()?, now.since(since), heard))
    }

    /// Routes that can't reach anybody as they are, as the worker found them at its start, and a heartbeat that does not arrive; each in a
    /// sentence without secrets.
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().clone()
    }

    /// Ends delivery: gives each alert that was not yet attempted one chance, within
    /// [`crate::deliver::DRAIN`]; the rest stays in the outbox for the next guard. Takes at most two seconds more than that; a
    /// caller that has less time may drop the future, and loses nothing that is persisted.
    pub async fn shutdown(self) {
        drop(self.alerts);
        let _ = self.supervisor.await;
    }
}

/// A crash between persisting an alert and noting its episode leaves the two at odds; the alert is the newer truth.
fn reconcile(recovered: &mut Recovered) {
    let ended =
        |key, pending: &[Pending]| pending.iter().any(|p| p.alert.key == key && p.alert.state == AlertState::Resolved);
    recovered.open.retain(|open| !ended(open.key.clone(), &recovered.pending));
    for Pending { alert, .. } in &recovered.pending {
        let known = recovered.open.iter().any(|open| open.key == alert.key);
        if alert.state == AlertState::Firing && !known && !ended(alert.key.clone(), &recovered.pending) {
            recovered.open.push(alert.clone());
        }
    }
}

/// The route that is always there.
fn log(alert: &Alert) {
    let (key, rule, since) = (&alert.key, &alert.rule, alert.since.wall);
    let (severity, details) = (alert.severity, alert.details.join("; "));
    let summary = &alert.summary;
    match (alert.state, severity) {
        (AlertState::Resolved, _) => tracing::info!(%key, %rule, %severity, %since, details, "resolved: {summary}"),
        (AlertState::Firing, Severity::Critical) => {
            tracing::error!(%key, %rule, %severity, %since, details, "ALERT: {summary}");
        }
        (AlertState::Firing, Severity::Warning) => {
            tracing::warn!(%key, %rule, %severity, %since, details, "ALERT: {summary}");
        }
        (AlertState::Firing, Severity::Info) => {
            tracing::info!(%key, %rule, %severity, %since, details, "ALERT: {summary}");
        }
    }
}

/// An id that is above those of any earlier outbox, also where that could not be read: the wall clock in microseconds, unless
/// the newest number is higher still.
fn first_id(pending: &[Pending]) -> u64 {
    let by_clock = u64::try_from(clock::now().wall.as_microsecond()).unwrap_or(0);
    pending.iter().map(|p| p.id + 1).max().unwrap_or(0).max(by_clock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::alert;

    #[test]
    fn a_crash_between_alert_and_episode_is_reconciled() {
        let pending = |id, key, state| Pending { id, route: "ops".into(), alert: alert(key, state) };
        let mut recovered = Recovered {
            pending: vec![
                pending(1, "began", AlertState::Firing),
                pending(2, "both", AlertState::Firing),
                pending(3, "both", AlertState::Resolved),
                pending(4, "ended", AlertState::Resolved),
            ],
            open: vec![alert("ended", AlertState::Firing), alert("delivered", AlertState::Firing)],
            ..Recovered::default()
        };
        reconcile(&mut recovered);
        let open: Vec<_> = recovered.open.iter().map(|a| a.key.0.as_str()).collect();
        assert_eq!(open, ["delivered", "began"]);
        assert!(first_id(&recovered.pending) > 4);
    }
}
