//! Whole recoveries with the process driver: real processes, killed with SIGKILL.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::ServiceName;
use services::{
    driver::{
        Act, ActError, Doing, Driver, Seen,
        process::{Declared, ProcessDriver},
    },
    plan::Outcome,
};

use crate::{
    common::{
        recovery::{Host, agent as recovery_agent},
        scenario::PATIENCE,
        service::{ScratchService, await_that},
        suite,
    },
    stage::{Stage, kill9},
};

/// Where a service runs: what can be removed of it, and made again.
fn directory(service: &ScratchService) -> PathBuf {
    service.dir().with_extension("runs")
}

impl Host for Stage {
    fn path(&self) -> PathBuf {
        Stage::path(self).to_owned()
    }

    fn address(&self) -> String {
        self.state().display().to_string()
    }

    fn driver(address: &str, services: &[(ServiceName, ScratchService)]) -> Arc<dyn Driver> {
        let declared = services.iter().map(|(name, service)| {
            let mut declared = Declared::new(name.clone(), service.command());
            declared.directory = Some(directory(service));
            declared
        });
        let driver = ProcessDriver::new(Path::new(address), declared.collect());
        Arc::new(driver.with_keeper(Path::new(env!("CARGO_BIN_EXE_services-test-keeper")), ["keep"]))
    }

    fn prepare(&self, services: &[(ServiceName, ScratchService)]) {
        services.iter().for_each(|(_, service)| fs::create_dir(directory(service)).unwrap());
    }

    fn kill(&self, _name: &ServiceName, service: &ScratchService) {
        kill9(service.pid().unwrap());
        await_that("its end", PATIENCE, || !service.runs());
    }

    fn remove(&self, _name: &ServiceName, service: &ScratchService) -> bool {
        fs::remove_dir(directory(service)).unwrap();
        true
    }
}

#[tokio::test]
async fn agent() {
    recovery_agent::<Stage>().await;
}

#[tokio::test]
async fn all_is_brought_back_in_order_and_again_after_sigkill_to_everything() {
    suite::all_is_brought_back_in_order_and_again_after_sigkill_to_everything(&Stage::new()).await;
}

#[tokio::test]
async fn one_that_never_gets_well_is_given_up_and_the_rest_comes_back() {
    suite::one_that_never_gets_well_is_given_up_and_the_rest_comes_back(&Stage::new()).await;
}

#[tokio::test]
async fn one_that_flaps_ends_with_a_person() {
    suite::one_that_flaps_ends_with_a_person(&Stage::new()).await;
}

#[tokio::test]
async fn one_that_dies_in_mid_plan_is_started_before_what_needs_it() {
    suite::one_that_dies_in_mid_plan_is_started_before_what_needs_it(&Stage::new()).await;
}

#[tokio::test]
async fn a_slow_starter_is_waited_for_and_a_stale_pool_restarted() {
    suite::a_slow_starter_is_waited_for_and_a_stale_pool_restarted(&Stage::new()).await;
}

#[tokio::test]
async fn an_agent_that_is_dropped_after_every_step_goes_on() {
    suite::an_agent_that_is_dropped_after_every_step_goes_on(&Stage::new()).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_after_every_step_goes_on() {
    suite::an_agent_that_is_killed_after_every_step_goes_on(&Stage::new()).await;
}

#[tokio::test]
async fn two_agents_are_one_writer_and_what_a_person_stopped_stays_so() {
    suite::two_agents_are_one_writer_and_what_a_person_stopped_stays_so(&Stage::new()).await;
}

#[tokio::test]
async fn a_removed_one_is_made_again_once_for_each_yes() {
    suite::a_removed_one_is_made_again_once_for_each_yes(&Stage::new()).await;
}

#[tokio::test]
async fn when_things_get_worse_it_stops() {
    suite::when_things_get_worse_it_stops(&Stage::new()).await;
}

/// A driver that loses sight of most of its services, takes its time over acts, and counts who asks it for what.
struct Between {
    inner: Arc<dyn Driver>,
    blind: Arc<AtomicBool>,
    stops_for: Duration,
}

impl Driver for Between {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        Box::pin(async {
            let all = self.inner.list().await.into_iter().enumerate();
            let blind = self.blind.load(Ordering::Relaxed);
            all.map(|(place, (name, seen))| (name, if blind && place >= 2 { Seen::unknown("no bus") } else { seen }))
                .collect()
        })
    }

    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>> {
        Box::pin(async move {
            if act == Act::Restart {
                self.inner.act(service, Act::Stop).await?;
                tokio::time::sleep(self.stops_for).await;
            }
            self.inner.act(service, act).await
        })
    }

    fn tend(&self) -> Doing<'_, ()> {
        self.inner.tend()
    }

    fn changed(&self) -> Doing<'_, ()> {
        self.inner.changed()
    }
}

#[tokio::test]
async fn when_half_of_it_is_out_of_sight_nothing_is_done() {
    let stage = Stage::new();
    let blind = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&blind);
    let recovery = suite::recovery(&stage)
        .stale_after(Duration::from_secs(8))
        .with(move |inner| Arc::new(Between { inner, blind: Arc::clone(&seen), stops_for: Duration::ZERO }));
    // The bus goes away in mid-plan.
    let came = recovery
        .run(|round| {
            if round.began.iter().any(|one| one.step.service.as_str() == "vault") {
                blind.store(true, Ordering::Relaxed);
            }
        })
        .await;
    let text = came.last.plan.to_text();
    assert!(came.last.plan.outcome == Outcome::Escalated && text.contains("3 of 5 services can't be seen"), "{text}");
    assert_eq!(came.acts.len(), 2, "{:?}", came.acts);
    blind.store(false, Ordering::Relaxed);
    assert_eq!(recovery.run(|_| {}).await.last.plan.outcome, Outcome::Done);
}

#[tokio::test]
async fn slow_a_restart_that_takes_its_time_to_stop_is_one_restart() {
    let stage = Stage::new();
    let recovery = suite::recovery(&stage).with(|inner| {
        // Longer than an act that was handed over may take to show.
        let stops_for = services::plan::SHOWS_WITHIN + Duration::from_secs(2);
        Arc::new(Between { inner, blind: Arc::default(), stops_for })
    });
    recovery.service("site").pool(true);
    recovery.run(|_| {}).await;
    recovery.kill(&["db"]);
    let came = recovery.run(|_| {}).await;
    assert_eq!((came.last.plan.outcome, &came.failures[..]), (Outcome::Done, &[][..]), "{:?}", came.acts);
    assert_eq!(came.acts.iter().filter(|(name, _)| name == "site").count(), 1, "{:?}", came.acts);
    assert_eq!(recovery.service("site").starts().len(), 2);
}

#[tokio::test]
async fn who_watches_writes_nothing() {
    let stage = Stage::new();
    let recovery = suite::recovery(&stage);
    let mut watcher = recovery.watcher();
    let round = watcher.round().await.unwrap();
    watcher.wait(Duration::from_millis(100)).await.unwrap();
    assert!(round.plan.due().count() == 1 && !recovery.dir().exists() && !stage.state().exists());
    // What the one who acts does is seen, and its acts on their way are taken for no new ones.
    let mut agent = recovery.agent().unwrap();
    assert_eq!(agent.round().await.unwrap().began.len(), 1);
    let round = watcher.round().await.unwrap();
    assert_eq!((round.plan.due().count(), round.plan.in_flight.len()), (0, 1), "{}", round.plan.to_text());
    assert!(agent.finish(PATIENCE).await);
}
