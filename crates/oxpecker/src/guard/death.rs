//! Why the host, or PostgreSQL, died: found out afterwards, by a child process (`oxpecker worker autopsy`), so that neither a slow log nor a
//! stuck program delays an alarm. Here it is decided when to ask.

use std::{path::PathBuf, time::Duration};

use collector::clock;
use jiff::Timestamp;
use journal::{Reader, StateDir};
use model::{
    EventKind, Moment, Observation, Reading,
    event::{Death, Died, DownReason},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};

use super::{
    child::{Process, Said},
    lines::to_line,
    past::Before,
};

/// How long the worker may take: each of the programs that it asks is bounded too.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Why the host died.
    Host {
        /// The boot that ended.
        boot_id: String,
        /// The guard's newest record in it.
        newest_record: Timestamp,
        /// The guard had been told to stop.
        guard_stopped: bool,
    },
    /// Why PostgreSQL died.
    Server {
        /// Its data directory, where it is known.
        data_dir: Option<PathBuf>,
        /// It served then, for the last time that anybody saw.
        last_seen: Timestamp,
        /// When it was back.
        started: Timestamp,
    },
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// What was found.
    pub death: Death,
}

/// Sees deaths, and has them looked into.
pub struct DeathWatch {
    data_dir: Option<PathBuf>,
    observations: mpsc::Sender<Observation>,
    /// When the server's present run began, as it says itself; `None` where it was not seen in this boot.
    known: Option<Timestamp>,
    alive: Option<Timestamp>,
    recovering: bool,
}

impl DeathWatch {
    /// Begins with what the journal knows, and has the end of the boot before looked into.
    pub fn start(
        state: &StateDir,
        before: Option<&Before>,
        boot_id: &str,
        data_dir: Option<PathBuf>,
        observations: mpsc::Sender<Observation>,
    ) -> Self {
        let rebooted = before.filter(|before| before.boot_id != boot_id);
        if let Some(before) = rebooted {
            let ask = Ask::Host {
                boot_id: before.boot_id.clone(),
                newest_record: before.last_record.wall,
                guard_stopped: before.stopped,
            };
            look_into(ask, observations.clone());
        }
        let mut watch = Self { data_dir, observations, known: None, alive: None, recovering: false };
        // What ran in another boot died with it.
        if rebooted.is_none()
            && let Ok(mut reader) = Reader::open(state.path())
        {
            let up = reader.latest_event("server_up").ok().flatten();
            watch.known = up.as_ref().and_then(|event| match event.kind {
                EventKind::ServerUp { started, .. } => Some(started),
                _ => None,
            });
            let read = reader.latest_reading("activity").ok().flatten().map(|reading| reading.at().wall);
            watch.alive = read.max(up.map(|event| event.at.wall));
        }
        watch
    }

    /// Everything that the guard sees passes here.
    pub fn see(&mut self, observation: &Observation) {
        match observation {
            Observation::Reading(Reading::Activity(reading)) => self.alive = Some(reading.at.wall),
            Observation::Event(at, EventKind::ServerUp { started, .. }) => self.up(*at, *started),
            Observation::Event(_, EventKind::ServerDown { reason: DownReason::Recovering, .. }) => {
                self.recovering = self.known.is_some();
            }
            _ => {}
        }
    }

    fn up(&mut self, at: Moment, started: Timestamp) {
        if let Some(back) = ended(self.known, self.recovering, started, at.wall) {
            let last_seen = self.alive.unwrap_or(back).min(back);
            look_into(
                Ask::Server { data_dir: self.data_dir.clone(), last_seen, started: back },
                self.observations.clone(),
            );
        }
        (self.known, self.alive, self.recovering) = (Some(started), Some(at.wall), false);
    }
}

/// Whether a run of the server ended before this one, and when it was back. A server that ended its own processes keeps its start.
fn ended(known: Option<Timestamp>, recovered: bool, started: Timestamp, seen: Timestamp) -> Option<Timestamp> {
    let known = known?;
    // A server tells the same start as long as it runs.
    if started > known {
        return Some(started);
    }
    recovered.then_some(seen)
}

/// Has it looked into. What was found is an event, and that nothing could be found too.
fn look_into(ask: Ask, observations: mpsc::Sender<Observation>) {
    tokio::spawn(async move {
        let of = match ask {
            Ask::Host { .. } => Died::Host,
            Ask::Server { .. } => Died::Server,
        };
        let found = timeout(PATIENCE, answer(&ask)).await;
        let death = found.unwrap_or_else(|_| Err(format!("it took longer than {} s", PATIENCE.as_secs())));
        let death = death.unwrap_or_else(|why| {
            tracing::warn!(%why, "the end of {of} could not be looked into");
            let (after, before) = match ask {
                Ask::Host { newest_record, .. } => (Some(newest_record), None),
                Ask::Server { last_seen, started, .. } => (Some(last_seen), Some(started)),
            };
            let notes = vec![format!("nothing could be looked at: {why}")];
            Death { of, after, before, established: None, hypotheses: vec![], notes }
        });
        let _ = observations.send(Observation::Event(clock::now(), EventKind::DeathExplained { death })).await;
    });
}

async fn answer(ask: &Ask) -> Result<Death, String> {
    let started: std::io::Result<Process<Answered>> = Process::start("autopsy", to_line(ask));
    let mut worker = started.map_err(|error| format!("the worker can't be started: {error}"))?;
    match worker.hear().await {
        Said::Message(answered) => Ok(answered.death),
        Said::Gone(how) => Err(format!("the worker ended: {how}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_is_told_from_one_that_goes_on() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        for (known, recovered, started, expected) in [
            (None, false, 100, None),
            // The first that is seen in a boot: nothing ended in it.
            (None, true, 100, None),
            (Some(100), false, 100, None),
            (Some(100), false, 101, Some(101)),
            (Some(100), false, 150, Some(150)),
            // Only its children died.
            (Some(100), true, 100, Some(200)),
            // A clock that was put back.
            (Some(100), false, 50, None),
        ] {
            let back = ended(known.map(at), recovered, at(started), at(200));
            assert_eq!(back, expected.map(at), "{known:?} {recovered} {started}");
        }
    }
}
