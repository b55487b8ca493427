//! What the tests against a real PostgreSQL share.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::VecDeque,
    future::Future,
    time::{Duration, Instant},
};

use collector::postgres::{PgObserver, PgOptions, Session};
use model::{
    EventKind, Observation, Pid, Reading,
    event::DownReason,
    reading::{ActivityReading, TablesReading, WalReading},
};
use scratch::{Installation, ScratchCluster};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_postgres::{Client, NoTls};

/// No test waits longer for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on one major version, or says why not.
pub fn on_major<F: Future<Output = ()>>(major: u32, test: impl FnOnce(Installation) -> F) {
    let installation = match scratch::installation(major) {
        Ok(installation) => installation,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(installation));
}

/// One test per major version.
#[macro_export]
macro_rules! on_each_major {
    ($($test:ident),* $(,)?) => {
        on_each_major!(@ pg12 12 [$($test)*]);
        on_each_major!(@ pg13 13 [$($test)*]);
        on_each_major!(@ pg14 14 [$($test)*]);
        on_each_major!(@ pg15 15 [$($test)*]);
        on_each_major!(@ pg16 16 [$($test)*]);
        on_each_major!(@ pg17 17 [$($test)*]);
        on_each_major!(@ pg18 18 [$($test)*]);
    };
    (@ $name:ident $major:literal [$($test:ident)*]) => {
        mod $name {
            $(#[test]
            fn $test() {
                $crate::common::on_major($major, super::$test);
            })*
        }
    };
}

/// A client of the cluster, as its superuser.
pub async fn client(cluster: &ScratchCluster, database: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&cluster.url(database), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Executes this on a connection that then ends: before 15 a session reports what it did to tables only then, or when it works
/// again later.
pub async fn execute(cluster: &ScratchCluster, database: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(&cluster.url(database), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

pub async fn backend(client: &Client) -> Pid {
    Pid(client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0))
}

/// The cluster's URL for another role.
pub fn url_as(cluster: &ScratchCluster, database: &str, role: &str) -> String {
    cluster.url(database).replace("user=postgres", &format!("user={role}"))
}

/// Options that do not let a test wait.
pub fn quick(url: impl Into<String>) -> PgOptions {
    PgOptions {
        activity_interval: Duration::from_millis(250),
        wal_interval: Duration::from_millis(500),
        tables_interval: Duration::from_secs(1),
        ..PgOptions::new(url)
    }
}

/// A running observer.
pub struct Watch {
    observations: mpsc::Receiver<Observation>,
    pub session: watch::Receiver<Option<std::sync::Arc<Session>>>,
    task: JoinHandle<()>,
    /// What was seen last, for messages.
    last: VecDeque<String>,
}

impl Watch {
    pub fn start(options: PgOptions) -> Self {
        let observer = PgObserver::new(options).unwrap();
        let (sender, observations) = mpsc::channel(1024);
        let session = observer.session();
        Self { observations, session, task: tokio::spawn(observer.run(sender)), last: VecDeque::new() }
    }

    /// Waits for an observation of which `wanted` makes something.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Observation) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let observation = match tokio::time::timeout(left, self.observations.recv()).await {
                Ok(Some(observation)) => observation,
                Ok(None) => panic!("the observer ended while waiting for {what}; last: {:#?}", self.last),
                Err(_) => panic!("no {what} within {PATIENCE:?}; last: {:#?}", self.last),
            };
            if self.last.len() == 6 {
                self.last.pop_front();
            }
            self.last.push_back(format!("{observation:?}"));
            if let Some(found) = wanted(&observation) {
                return found;
            }
        }
    }

    pub async fn activity(&mut self, what: &str, wanted: impl Fn(&ActivityReading) -> bool) -> ActivityReading {
        self.until(what, |observation| match observation {
            Observation::Reading(Reading::Activity(reading)) if wanted(reading) => Some(reading.clone()),
            _ => None,
        })
        .await
    }

    pub async fn wal(&mut self, what: &str, wanted: impl Fn(&WalReading) -> bool) -> WalReading {
        self.until(what, |observation| match observation {
            Observation::Reading(Reading::Wal(reading)) if wanted(reading) => Some(reading.clone()),
            _ => None,
        })
        .await
    }

    pub async fn tables(&mut self, what: &str, wanted: impl Fn(&TablesReading) -> bool) -> TablesReading {
        self.until(what, |observation| match observation {
            Observation::Reading(Reading::Tables(reading)) if wanted(reading) => Some(reading.clone()),
            _ => None,
        })
        .await
    }

    pub async fn event<T>(&mut self, what: &str, wanted: impl Fn(&EventKind) -> Option<T>) -> T {
        self.until(what, |observation| match observation {
            Observation::Event(_, event) => wanted(event),
            Observation::Reading(_) => None,
        })
        .await
    }

    pub async fn up(&mut self) {
        self.event("ServerUp", |event| matches!(event, EventKind::ServerUp { .. }).then_some(())).await;
    }

    /// Waits for this reason; others may come before, as one state leads to the next.
    pub async fn down(&mut self, wanted: DownReason) -> String {
        self.event(&format!("ServerDown {wanted:?}"), |event| match event {
            EventKind::ServerDown { reason, detail } if *reason == wanted => Some(detail.clone()),
            _ => None,
        })
        .await
    }

    /// Ends the observer by no longer receiving, and waits until it has ended.
    pub async fn stop(self) {
        let Self { observations, task, .. } = self;
        drop(observations);
        tokio::time::timeout(PATIENCE, task).await.expect("the observer ends with its receiver").unwrap();
    }
}
