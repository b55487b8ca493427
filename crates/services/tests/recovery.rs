//! Whole recoveries with the process driver: real processes, killed with SIGKILL.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/stage.rs"]
mod stage;

use std::sync::Arc;

use services::{
    driver::{Driver, process::Declared},
    execute::ExecuteError,
    plan::{Action, Outcome},
    state::State,
};

use crate::{
    common::{recovery::Recovery, service::ScratchService},
    stage::{Stage, kill9},
};

/// The outage's shape: a database, a vault and a site that need it, a bot and a gate that need the site.
const SHAPE: [(&str, &[&str]); 5] =
    [("db", &[]), ("vault", &["db"]), ("site", &["db", "vault"]), ("bot", &["site"]), ("gate", &["site"])];

fn recovery(stage: &Stage) -> Recovery {
    let mut services: Vec<(&str, ScratchService, &[&str])> = Vec::new();
    for (name, needs) in SHAPE {
        let of = |need: &&str| services.iter().find(|(other, ..)| other == need).unwrap().1.clone();
        let needed: Vec<ScratchService> = needs.iter().map(of).collect();
        let service = ScratchService::new(stage.path(), name, &needed.iter().collect::<Vec<_>>());
        service.starts_in(2);
        services.push((name, service, needs));
    }
    let declared: Vec<_> = services.iter().map(|(name, service, _)| (*name, service.command())).collect();
    let (state, keeper) = (stage.state(), env!("CARGO_BIN_EXE_services-test-keeper"));
    Recovery::new(stage.path(), services, move || {
        let declared = declared.iter().map(|(name, command)| Declared::new(*name, command.clone())).collect();
        let driver = services::driver::process::ProcessDriver::new(&state, declared);
        Arc::new(driver.with_keeper(std::path::Path::new(keeper), ["keep"])) as Arc<dyn Driver>
    })
}

fn each_once() -> Vec<(&'static str, usize)> {
    SHAPE.iter().map(|(name, _)| (*name, 1)).collect()
}

#[tokio::test]
async fn all_is_brought_back_in_order_and_again_after_sigkill_to_everything() {
    let stage = Stage::new();
    let recovery = recovery(&stage);
    let told = recovery.run(|_| {}).await;
    assert_eq!(told.last.plan.outcome, Outcome::Done, "{}", told.last.plan.to_text());
    assert_eq!(told.acts.len(), 5, "{:?}", told.acts);
    recovery.assert_well(&each_once());
    for (name, _) in SHAPE {
        kill9(recovery.service(name).pid().unwrap());
    }
    let told = recovery.run(|_| {}).await;
    assert_eq!((told.last.plan.outcome, told.acts.len()), (Outcome::Done, 5), "{:?}", told.acts);
    recovery.assert_well(&SHAPE.map(|(name, _)| (name, 2)));
    // And nothing more: all is well.
    assert!(recovery.run(|_| {}).await.acts.is_empty());
}

#[tokio::test]
async fn one_that_never_gets_well_is_given_up_and_the_rest_comes_back() {
    let stage = Stage::new();
    let recovery = recovery(&stage);
    recovery.service("bot").unhealthy(true);
    let told = recovery.run(|_| {}).await;
    assert_eq!(told.last.plan.outcome, Outcome::Escalated);
    let text = told.last.plan.to_text();
    assert!(text.contains("bot is given up after 2 failed attempts"), "{text}");
    assert!(recovery.service("gate").is_healthy());
    assert_eq!(told.failures.len(), 2, "{:?}", told.failures);
    // Another agent of the same boot knows that.
    let told = recovery.run(|_| {}).await;
    assert!(told.acts.is_empty() && told.last.plan.outcome == Outcome::Escalated, "{:?}", told.acts);
    // A person has looked, and mended it.
    recovery.service("bot").unhealthy(false);
    let mut agent = recovery.agent().unwrap();
    agent.reset().unwrap();
    drop(agent);
    assert_eq!(recovery.run(|_| {}).await.last.plan.outcome, Outcome::Done);
}

#[tokio::test]
async fn one_that_dies_in_mid_plan_is_started_before_what_needs_it() {
    let stage = Stage::new();
    let recovery = recovery(&stage);
    let mut killed = false;
    let told = recovery
        .run(|round| {
            let bot = round.began.iter().any(|one| one.step.service.as_str() == "site");
            if bot && !std::mem::replace(&mut killed, true) {
                kill9(recovery.service("db").pid().unwrap());
            }
        })
        .await;
    assert_eq!(told.last.plan.outcome, Outcome::Done, "{}", told.last.plan.to_text());
    let database = told.acts.iter().filter(|(name, _)| name == "db").count();
    assert!(killed && database == 2, "{:?}", told.acts);
    assert_eq!(recovery.service("bot").early() + recovery.service("gate").early(), 0);
}

#[tokio::test]
async fn a_slow_starter_is_waited_for_and_a_stale_pool_restarted() {
    let stage = Stage::new();
    let recovery = recovery(&stage);
    // Longer than what a start may go without progress; it says how far it is.
    recovery.service("vault").starts_in(50);
    recovery.service("site").pool(true);
    let told = recovery.run(|_| {}).await;
    assert_eq!((told.last.plan.outcome, told.acts.len()), (Outcome::Done, 5), "{:?} {:?}", told.acts, told.failures);
    recovery.assert_well(&each_once());
    // The database comes back under the site: healthy and wrong.
    recovery.service("vault").starts_in(2);
    kill9(recovery.service("db").pid().unwrap());
    let told = recovery.run(|_| {}).await;
    assert!(told.acts.contains(&("site".to_owned(), Action::Restart)), "{:?}", told.acts);
    assert!(!recovery.service("site").is_stale());
    recovery.assert_well(&[("db", 2), ("site", 2), ("vault", 1)]);
}

#[tokio::test]
async fn an_agent_that_is_killed_after_every_step_goes_on() {
    let stage = Stage::new();
    let recovery = recovery(&stage);
    let told = recovery.run_with_agents_that_die().await;
    assert_eq!(told.last.plan.outcome, Outcome::Done, "{}\n{:?}", told.last.plan.to_text(), told.failures);
    recovery.assert_well(&each_once());
}

#[tokio::test]
async fn two_agents_are_one_writer_and_what_a_person_stopped_stays_so() {
    let stage = Stage::new();
    let recovery = recovery(&stage).stopped("gate");
    let agent = recovery.agent().unwrap();
    assert!(matches!(recovery.agent(), Err(ExecuteError::Busy { .. })));
    // Who watches sees and does nothing.
    let mut watcher = recovery.watcher();
    let round = watcher.round().await.unwrap();
    assert!(round.began.is_empty() && round.plan.outcome == Outcome::Working, "{}", round.plan.to_text());
    drop(agent);
    let told = recovery.run(|_| {}).await;
    assert_eq!(told.last.plan.outcome, Outcome::Done, "{}", told.last.plan.to_text());
    assert!(matches!(told.last.statuses[4].state, State::Stopped { .. }) && !recovery.service("gate").runs());
}
