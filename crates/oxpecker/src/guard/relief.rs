//! Relief while the guard runs: what is decided is `policy::relief`'s; here idle sessions are listed, and one by one looked up again and ended.
//!
//! A task of its own: the server may take its time to answer, and nothing of that may delay an alarm. It remembers nothing that outlives it but the minute's
//! bound, which begins anew with the guard: a guard that restarts every second would be another matter.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use collector::{clock, postgres::Session};
use model::{
    EventKind, Mode, Moment, Observation, Pid, Reading,
    event::{ReliefOutcome, RelievedSession},
    reading::Connections,
};
use policy::relief::{IdleSession, ReliefSettings, Shortage, choose, room, shortage};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{Client, Row};

/// How long the server may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// Sessions that were proposed and are still there; beyond that some are proposed again.
const PROPOSED_MAX: usize = 1_000;

/// Idle sessions of the roles that are named, none of them ours. Since when one is idle, and since when it is there, tell it from a later one of the same pid.
const IDLE: &str = "\
SELECT pid, (extract(epoch FROM backend_start) * 1000000)::int8 AS began_us, (extract(epoch FROM state_change) * 1000000)::int8 AS since_us,
       usename::text AS role, coalesce(datname::text, '') AS database, coalesce(host(client_addr), 'local') AS client,
       coalesce(application_name, '') AS application, state <> 'idle' AS in_transaction,
       greatest((extract(epoch FROM clock_timestamp() - state_change) * 1000000)::int8, 0) AS idle_us
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND usename::text = ANY ($1) AND pid <> pg_backend_pid() AND application_name NOT LIKE 'oxpecker%'
  AND state IN ('idle', 'idle in transaction', 'idle in transaction (aborted)')
ORDER BY state_change LIMIT 1000";

/// Ends the session where it is still the one that was chosen, and has done nothing since.
const END: &str = "\
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE pid = $1 AND usename::text = $2 AND (extract(epoch FROM backend_start) * 1000000)::int8 = $3
  AND (extract(epoch FROM state_change) * 1000000)::int8 = $4 AND state IN ('idle', 'idle in transaction', 'idle in transaction (aborted)')";

/// Relief, for people and machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliefStatus {
    /// How far it may go.
    pub mode: Mode,
    /// Roles whose sessions may be ended.
    pub roles: Vec<String>,
    /// Sessions ended within the last minute, and how many may be.
    pub ended: usize,
    pub per_minute: u32,
    /// Sessions ended since the guard's start.
    pub ended_in_all: u64,
    /// The shortage, while there is one.
    pub shortage: Option<String>,
    /// What hinders it.
    pub problem: Option<String>,
}

/// The loop's side of relief.
pub struct ReliefTask {
    tell: watch::Sender<Option<Connections>>,
    status: watch::Receiver<Option<ReliefStatus>>,
    task: JoinHandle<()>,
}

impl ReliefTask {
    /// Starts it; `None` where no role is named. Its events go to `observations`.
    pub fn start(
        settings: ReliefSettings,
        sessions: watch::Receiver<Option<Arc<Session>>>,
        observations: mpsc::Sender<Observation>,
    ) -> Option<Self> {
        if settings.clients.is_empty() {
            return None;
        }
        let (tell, told) = watch::channel(None);
        let (status_out, status) = watch::channel(None);
        let relief = Relief {
            settings,
            sessions,
            observations,
            status: status_out,
            recent: VecDeque::new(),
            ended_in_all: 0,
            proposed: BTreeSet::new(),
            problem: None,
        };
        Some(Self { tell, status, task: tokio::spawn(relief.run(told)) })
    }

    /// Tells it what was seen. Only the newest counts.
    pub fn observe(&self, observation: &Observation) {
        if let Observation::Reading(Reading::Activity(reading)) = observation {
            self.tell.send_replace(Some(reading.connections.clone()));
        }
    }

    /// What it last said of itself.
    pub fn status(&self) -> Option<ReliefStatus> {
        self.status.borrow().clone()
    }

    /// Whether it still runs. It ends by itself only by a bug.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Ends it.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

struct Relief {
    settings: ReliefSettings,
    sessions: watch::Receiver<Option<Arc<Session>>>,
    observations: mpsc::Sender<Observation>,
    status: watch::Sender<Option<ReliefStatus>>,
    /// When sessions were ended, or that was tried.
    recent: VecDeque<Moment>,
    ended_in_all: u64,
    /// Sessions that were proposed: pid and when each began.
    proposed: BTreeSet<(Pid, i64)>,
    problem: Option<String>,
}

impl Relief {
    async fn run(mut self, mut told: watch::Receiver<Option<Connections>>) {
        while told.changed().await.is_ok() {
            let Some(connections) = told.borrow_and_update().clone() else { continue };
            let shortage = shortage(&connections, &self.settings);
            if let Some(shortage) = &shortage {
                self.relieve(shortage).await;
            } else {
                self.proposed.clear();
                self.problem = None;
            }
            self.say(shortage.map(|shortage| shortage.cause));
        }
    }

    fn say(&mut self, shortage: Option<String>) {
        let _ = room(clock::now(), &mut self.recent, &self.settings);
        self.status.send_replace(Some(ReliefStatus {
            mode: self.settings.mode,
            roles: self.settings.clients.iter().map(|clients| clients.role.clone()).collect(),
            ended: self.recent.len(),
            per_minute: self.settings.per_minute,
            ended_in_all: self.ended_in_all,
            shortage,
            problem: self.problem.clone(),
        }));
    }

    async fn relieve(&mut self, Shortage { cause, excess }: &Shortage) {
        let room = room(clock::now(), &mut self.recent, &self.settings).min(*excess);
        if room == 0 {
            return;
        }
        // Cloned out of the watch: a borrow would hold up the observer.
        let Some(session) = self.sessions.borrow().clone() else {
            self.problem = Some("there is no session to PostgreSQL to act with".to_owned());
            return;
        };
        let sessions = match idle(&session.client, &self.settings).await {
            Ok(sessions) => sessions,
            Err(why) => {
                self.problem = Some(format!("idle sessions can't be listed: {why}"));
                return;
            }
        };
        self.problem = None;
        for chosen in choose(&sessions, room, &self.settings) {
            let key = (chosen.pid, chosen.began_us);
            let outcome = if self.settings.mode == Mode::Act {
                // Counted first: what was tried counts, however it ended.
                self.recent.push_back(clock::now());
                match end(&session.client, chosen).await {
                    Ok(()) => {
                        self.ended_in_all += 1;
                        tracing::warn!(pid = %chosen.pid, role = chosen.role, "relief ended an idle session: {cause}");
                        ReliefOutcome::Ended
                    }
                    Err(why) => {
                        self.problem = Some(format!("the session of {} (pid {}): {why}", chosen.role, chosen.pid));
                        ReliefOutcome::Failed(why)
                    }
                }
            } else if self.proposed.contains(&key) {
                continue;
            } else {
                if self.proposed.len() >= PROPOSED_MAX {
                    self.proposed.clear();
                }
                self.proposed.insert(key);
                ReliefOutcome::Proposed
            };
            let session = Box::new(event(chosen, cause, outcome));
            let _ =
                self.observations.send(Observation::Event(clock::now(), EventKind::SessionRelieved { session })).await;
        }
    }
}

fn event(session: &IdleSession, cause: &str, outcome: ReliefOutcome) -> RelievedSession {
    RelievedSession {
        pid: session.pid,
        role: session.role.clone(),
        database: session.database.clone(),
        client: session.client.clone(),
        application: session.application.clone(),
        in_transaction: session.in_transaction,
        idle: session.idle,
        cause: cause.to_owned(),
        outcome,
    }
}

async fn answered<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match timeout(WITHIN, answer).await {
        Err(_) => Err(format!("PostgreSQL did not answer within {} s", WITHIN.as_secs())),
        Ok(Err(error)) => {
            let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            Err(format!("PostgreSQL refused: {said}"))
        }
        Ok(Ok(answer)) => Ok(answer),
    }
}

async fn idle(client: &Client, settings: &ReliefSettings) -> Result<Vec<IdleSession>, String> {
    let roles: Vec<&str> = settings.clients.iter().map(|clients| clients.role.as_str()).collect();
    let rows = answered(client.query(IDLE, &[&roles])).await?;
    rows.iter().map(|row| idle_session(row).map_err(|error| error.to_string())).collect()
}

fn idle_session(row: &Row) -> Result<IdleSession, tokio_postgres::Error> {
    let idle_us: i64 = row.try_get("idle_us")?;
    Ok(IdleSession {
        pid: Pid(row.try_get("pid")?),
        began_us: row.try_get("began_us")?,
        idle_since_us: row.try_get("since_us")?,
        role: row.try_get("role")?,
        database: row.try_get("database")?,
        client: row.try_get("client")?,
        application: row.try_get("application")?,
        in_transaction: row.try_get("in_transaction")?,
        idle: Duration::from_micros(u64::try_from(idle_us).unwrap_or(0)),
    })
}

/// Ends one.
///
/// # Errors
/// In words: it woke up or went, or the server refuses.
async fn end(client: &Client, session: &IdleSession) -> Result<(), String> {
    let ended =
        answered(client.query_opt(END, &[&session.pid.0, &session.role, &session.began_us, &session.idle_since_us]))
            .await;
    match ended.map_err(|why| format!("{why}; it takes pg_signal_backend, and no superuser's session"))? {
        Some(row) if row.try_get::<_, bool>(0).unwrap_or(false) => Ok(()),
        _ => Err("it is idle no longer, or gone".to_owned()),
    }
}
