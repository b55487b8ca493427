//! What goes wrong around a backup, on each major: afterwards the repository is valid, the next run completes, and what is restored passes
//! pg_verifybackup and pg_amcheck and holds what the source does.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "all of it is tests, also outside of functions marked so"
)]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod agents;
mod clock;
mod mounts;
mod server;
mod store;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use backup::{Progress, RestoreOptions};
use common::{Done, Notes, Repo, Sql, amcheck, cluster, contents, create, options, place, restore, start, verify};
use scratch::{Installation, ScratchCluster};

/// A small cluster with something in it.
fn source(installation: &Installation) -> ScratchCluster {
    let source = cluster(installation).setting("autovacuum", "off").start().unwrap();
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; CHECKPOINT");
    source
}

/// What is restored from the newest backup is what the source holds.
fn comes_back(repo: &Repo, installation: &Installation, expected: &[String]) {
    let repository = repo.reopen();
    let newest = repository.backups().last().expect("there is a backup").id;
    let place = place();
    let target = place.path().join("data");
    backup::restore(&RestoreOptions::new(newest, &target), &repository, &Notes::default()).unwrap();
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    drop(server);
    amcheck(&target, installation.major());
}

/// Calls a hook at the n-th extent.
struct At<F> {
    count: AtomicU32,
    at: u32,
    hook: F,
    cancelled: AtomicBool,
}

impl<F: Fn(&AtomicBool) + Sync> At<F> {
    fn new(at: u32, hook: F) -> Self {
        Self { count: AtomicU32::new(0), at, hook, cancelled: AtomicBool::new(false) }
    }
}

impl<F: Fn(&AtomicBool) + Sync> Progress for At<F> {
    fn pace(&self) -> Duration {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            (self.hook)(&self.cancelled);
        }
        Duration::ZERO
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
