//! Whole recoveries of containers: services are killed, and the engine with all that it runs.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;

use std::{cell::RefCell, path::PathBuf, sync::Arc};

use model::ServiceName;
use services::{
    driver::{
        Driver,
        docker::{Declared, Docker},
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
    dockerd::{Stage, definition},
};

/// An engine whose containers are scratch services.
struct EngineHost {
    stage: RefCell<Stage>,
    /// What the engine does when one ends.
    restart: &'static str,
}

impl EngineHost {
    /// `None`: no engine can be had here.
    fn start() -> Option<Self> {
        Some(Self { stage: RefCell::new(Stage::new()?), restart: "no" })
    }

    /// Dies with all its containers, and is started again.
    fn dies_and_returns(&self) {
        let engine = &mut self.stage.borrow_mut().engine;
        engine.kill9().unwrap();
        engine.start_again().unwrap();
    }

    fn docker(&self, arguments: &[&str]) -> String {
        self.stage.borrow().engine.docker(arguments).unwrap()
    }
}

impl Host for EngineHost {
    fn path(&self) -> PathBuf {
        self.stage.borrow().path()
    }

    fn address(&self) -> String {
        self.stage.borrow().engine.socket().display().to_string()
    }

    fn driver(address: &str, services: &[(ServiceName, ScratchService)]) -> Arc<dyn Driver> {
        let declared = services.iter().map(|(name, service)| {
            Declared::container(name.clone(), name.as_str()).definition(definition(service, "no"))
        });
        let memory = services[0].1.dir().with_file_name("memory");
        Arc::new(Docker::new(address.as_ref(), declared.collect()).remembering(memory))
    }

    fn prepare(&self, services: &[(ServiceName, ScratchService)]) {
        let restart = format!("--restart={}", self.restart);
        let stage = self.stage.borrow();
        services.iter().for_each(|(name, service)| stage.create(name.as_str(), service, &[&restart]));
    }

    fn kill(&self, name: &ServiceName, service: &ScratchService) {
        self.docker(&["kill", name.as_str()]);
        let state = || self.docker(&["inspect", "--format={{.State.Running}}", name.as_str()]);
        await_that("its end", PATIENCE, || !service.runs() && state() == "false\n");
    }

    fn remove(&self, name: &ServiceName, _service: &ScratchService) -> bool {
        self.docker(&["rm", name.as_str()]);
        true
    }
}

#[tokio::test]
async fn agent() {
    recovery_agent::<EngineHost>().await;
}

#[tokio::test]
async fn an_engine_that_dies_with_its_containers_is_brought_back_in_order() {
    let Some(host) = EngineHost::start() else { return };
    let recovery = suite::recovery(&host);
    for life in 1..=2 {
        let came = recovery.run(|_| {}).await;
        assert_eq!(
            (came.last.plan.outcome, came.acts.len()),
            (Outcome::Done, 5),
            "{:?} {:?}",
            came.acts,
            came.failures
        );
        recovery.assert_well(&suite::SHAPE.map(|(name, _)| (name, life)));
        if life == 1 {
            host.dies_and_returns();
            assert!(suite::SHAPE.iter().all(|(name, _)| !recovery.service(name).runs()), "all of it is down");
        }
    }
}

#[tokio::test]
async fn slow_an_engine_that_dies_in_mid_plan_is_brought_back_all_the_same() {
    let Some(host) = EngineHost::start() else { return };
    let recovery = suite::recovery(&host);
    let (mut begun, mut lost) = (false, false);
    let came = recovery
        .run(|round| {
            // Once that start is handed over: what we do here holds up an act that was only begun, and it would reach the engine's next life.
            if begun && !std::mem::replace(&mut lost, true) {
                host.dies_and_returns();
            }
            begun |= round.began.iter().any(|one| one.step.service.as_str() == "site");
        })
        .await;
    assert!(lost && came.last.plan.outcome == Outcome::Done, "{}", came.last.plan.to_text());
    recovery.assert_well(&[("db", 2), ("vault", 2), ("gate", 1), ("bot", 1)]);
}

#[tokio::test]
async fn slow_what_an_engine_starts_by_itself_in_no_order_gets_well_all_the_same() {
    let Some(mut host) = EngineHost::start() else { return };
    host.restart = "unless-stopped";
    let recovery = suite::recovery(&host);
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
    recovery.assert_well(&suite::SHAPE.map(|(name, _)| (name, 1)));
    // Now it starts all at once, those in vain that lack what they need, and waits ever longer with them. The gate a person stops.
    host.docker(&["stop", "--time=5", "gate"]);
    recovery.service("db").starts_in(20);
    host.dies_and_returns();
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
    for (name, _) in &suite::SHAPE[..4] {
        assert!(recovery.service(name).is_healthy(), "{name}");
        assert_eq!(recovery.service(name).doubled(), 0, "{name}");
    }
    assert!(!recovery.service("gate").runs(), "what a person stopped stays so");
}

macro_rules! on_an_engine {
    ($($name:ident: $scenario:ident,)*) => {
        $(#[tokio::test]
        async fn $name() {
            let Some(host) = EngineHost::start() else { return };
            suite::$scenario(&host).await;
        })*
    };
}

on_an_engine! {
    slow_all_is_brought_back_in_order_and_again_after_sigkill_to_everything:
        all_is_brought_back_in_order_and_again_after_sigkill_to_everything,
    slow_one_that_never_gets_well_is_given_up_and_the_rest_comes_back:
        one_that_never_gets_well_is_given_up_and_the_rest_comes_back,
    slow_one_that_flaps_ends_with_a_person: one_that_flaps_ends_with_a_person,
    slow_one_that_dies_in_mid_plan_is_started_before_what_needs_it:
        one_that_dies_in_mid_plan_is_started_before_what_needs_it,
    slow_a_slow_starter_is_waited_for_and_a_stale_pool_restarted:
        a_slow_starter_is_waited_for_and_a_stale_pool_restarted,
    slow_an_agent_that_is_dropped_after_every_step_goes_on: an_agent_that_is_dropped_after_every_step_goes_on,
    slow_an_agent_that_is_killed_after_every_step_goes_on: an_agent_that_is_killed_after_every_step_goes_on,
    slow_two_agents_are_one_writer_and_what_a_person_stopped_stays_so:
        two_agents_are_one_writer_and_what_a_person_stopped_stays_so,
    slow_a_removed_one_is_made_again_once_for_each_yes: a_removed_one_is_made_again_once_for_each_yes,
    slow_when_things_get_worse_it_stops: when_things_get_worse_it_stops,
}
