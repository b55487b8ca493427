//! The docker driver with a real engine.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on fails, and one that is skipped says so"
)]

mod common;
#[path = "common/dockerd.rs"]
mod dockerd;

use std::{fs, time::Duration};

use common::{
    scenario,
    service::{ScratchService, await_that},
};
use dockerd::Stage;
use services::{
    driver::{Act, ActError, Driver as _, docker::Declared},
    health::{Answer, Process},
};

fn is_backing_off(process: &Process) -> bool {
    matches!(process, Process::BackingOff { .. })
}

#[tokio::test]
async fn what_every_driver_does() {
    let Some(stage) = Stage::new() else { return };
    let one = stage.one("site", &[]);
    assert_eq!(one.scene().look().await.process, Process::Ended { code: None }, "it was never started");
    scenario::an_unknown_service_is_refused(&one.driver).await;
    scenario::acts_are_idempotent(&one.scene()).await;
    scenario::changes_are_told(&stage.one("told", &[]).scene()).await;
}

#[tokio::test]
async fn slow_what_every_driver_does_besides() {
    let Some(stage) = Stage::new() else { return };
    scenario::a_restart_is_another_run(&stage.one("again", &[]).scene()).await;
    scenario::an_end_is_seen_with_its_code(&stage.one("ends", &[]).scene()).await;
    let one = stage.one("twice", &[]);
    let other = stage.again("twice", one.service.clone());
    scenario::two_agents_start_it_once(&one.scene(), &other.driver).await;
}

#[tokio::test]
async fn what_the_engine_does_by_itself_is_told_from_what_somebody_did() {
    let Some(stage) = Stage::new() else { return };
    let one = stage.one("site", &["--restart=always"]);
    let scene = one.scene();
    scene.act(Act::Start).await;
    let first = scene.until_healthy().await;
    assert_eq!(first.stopped_by, None);
    // It ends at once at each start: the engine waits ever longer.
    one.service.crashes(Some(7));
    let starts = one.service.starts().len();
    scene.until("its engine waits", |seen| is_backing_off(&seen.process)).await;
    await_that("it was started several times", scenario::PATIENCE, || one.service.starts().len() >= starts + 4);
    one.service.crashes(None);
    // To the engine it runs while it waits; a start ends that wait all the same.
    scene.until("its engine waits", |seen| is_backing_off(&seen.process) || seen.process == Process::Running).await;
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    // Somebody stops it: it stays so.
    stage.engine.docker(&["stop", "--time=5", "site"]).unwrap();
    let seen = scene.look().await;
    assert!(matches!(seen.process, Process::Ended { .. }) && seen.stopped_by.is_some(), "{seen:?}");
    scene.act(Act::Start).await;
    let running = scene.until_healthy().await;
    assert_eq!(running.stopped_by, None);
    // We stop it: that is nobody's wish, and another agent knows it.
    scene.act(Act::Stop).await;
    let seen = stage.again("site", one.service.clone()).scene().look().await;
    assert!(matches!(seen.process, Process::Ended { .. }) && seen.stopped_by.is_none(), "{seen:?}");
    // What somebody stops after somebody started it is that somebody's.
    stage.engine.docker(&["start", "site"]).unwrap();
    stage.engine.docker(&["stop", "--time=5", "site"]).unwrap();
    assert!(scene.look().await.stopped_by.is_some());
    stage.engine.docker(&["start", "site"]).unwrap();
    stage.engine.docker(&["pause", "site"]).unwrap();
    assert!(scene.look().await.stopped_by.unwrap().contains("paused"));
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    assert_eq!(one.service.doubled(), 0);
}

#[tokio::test]
async fn a_removed_container_is_made_again_and_nothing_is_made_up() {
    let Some(stage) = Stage::new() else { return };
    let service = ScratchService::new(&stage.path(), "site", &[]);
    let one = stage.again("site", service.clone());
    let scene = one.scene();
    assert_eq!(scene.look().await.process, Process::Removed);
    for act in [Act::Start, Act::Restart] {
        let error = one.driver.act(&one.name, act).await.unwrap_err();
        assert!(matches!(&error, ActError::Absent { .. }) && error.to_string().contains("definition"), "{error}");
    }
    scene.act(Act::Stop).await;
    scene.act(Act::Provision).await;
    let first = scene.until_healthy().await;
    // It is there now: nothing is made or started twice.
    scene.act(Act::Provision).await;
    assert_eq!(scene.look().await.run, first.run);
    // Killed between the two halves of it: the next act is the other half.
    stage.engine.docker(&["rm", "--force", "site"]).unwrap();
    assert_eq!(scene.look().await.process, Process::Removed);
    stage.create("site", &service, &[]);
    scene.act(Act::Provision).await;
    scene.until_healthy().await;
    assert_eq!((service.starts().len(), service.doubled()), (2, 0));
    let whole = stage.definition(&service, "no");
    let refusal = async |change: &dyn Fn(&mut Declared)| {
        let mut declared = Declared::container("other", "other").definition(whole.clone());
        change(&mut declared);
        let driver = stage.driver(vec![declared]);
        driver.act(&"other".into(), Act::Provision).await.unwrap_err()
    };
    let error = refusal(&|one| one.definition.as_mut().unwrap().image = "nobody/has:this".into()).await;
    assert!(matches!(error, ActError::Absent { .. }) && error.to_string().contains("nobody/has:this"), "{error}");
    let error = refusal(&|one| one.definition.as_mut().unwrap().binds.push("gone:/data".into())).await;
    assert!(error.to_string().contains("its volume gone is not there"), "{error}");
    let error = refusal(&|one| one.definition.as_mut().unwrap().binds.push("/no/such/place:/data".into())).await;
    assert!(matches!(error, ActError::Failed { .. }) && error.to_string().contains("/no/such/place"), "{error}");
    assert!(!std::path::Path::new("/no/such/place").exists());
    let error = refusal(&|one| one.definition = None).await;
    assert!(matches!(error, ActError::Absent { .. }) && error.to_string().contains("hint: "), "{error}");
    // The name is another container's: one of a Compose project would be called like it.
    stage.create("p-site-1", &service, &[]);
    let compose = Declared::compose("other", "p", "site").definition(whole.clone());
    let error = stage.driver(vec![compose]).act(&"other".into(), Act::Provision).await.unwrap_err();
    assert!(matches!(&error, ActError::Failed { .. }) && error.to_string().contains("p-site-1"), "{error}");
    let unnamed = Declared::container("other", "../../images").definition(whole.clone());
    let driver = stage.driver(vec![unnamed]);
    assert_eq!(driver.list().await[0].1.process, Process::Removed);
    let error = driver.act(&"other".into(), Act::Provision).await.unwrap_err();
    assert!(matches!(error, ActError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn slow_a_compose_service_is_all_its_containers() {
    let Some(stage) = Stage::new() else { return };
    let labels = |number: &str, one_off: &str| {
        [
            "--label=com.docker.compose.project=p".to_owned(),
            "--label=com.docker.compose.service=site".to_owned(),
            format!("--label=com.docker.compose.container-number={number}"),
            format!("--label=com.docker.compose.oneoff={one_off}"),
            "--restart=unless-stopped".to_owned(),
        ]
    };
    let services: Vec<ScratchService> =
        (1..=3).map(|number| ScratchService::new(&stage.path(), &format!("site-{number}"), &[])).collect();
    for (service, (number, one_off)) in services.iter().zip([("1", "False"), ("2", "False"), ("3", "True")]) {
        let labels = labels(number, one_off);
        let options: Vec<&str> = labels.iter().map(String::as_str).collect();
        stage.create(&format!("p-site-{number}"), service, &options);
    }
    let definition = stage.definition(&services[0], "unless-stopped");
    let declared = || vec![Declared::compose("site", "p", "site").definition(definition.clone())];
    let (driver, name) = (stage.driver(declared()), "site".into());
    let look = async || driver.list().await.remove(0).1;
    driver.act(&name, Act::Start).await.unwrap();
    let healthy = |upto: usize| {
        await_that("they are healthy", scenario::PATIENCE, || services[..upto].iter().all(ScratchService::is_healthy));
    };
    healthy(2);
    assert_eq!(look().await.process, Process::Running);
    assert!(!services[2].runs(), "what a person ran once is no part of it");
    // One of them is scaled down by a person: the other is the service.
    stage.engine.docker(&["stop", "--time=5", "p-site-2"]).unwrap();
    let seen = look().await;
    assert_eq!((seen.process, seen.stopped_by), (Process::Running, None));
    driver.act(&name, Act::Restart).await.unwrap();
    healthy(1);
    assert!(!services[1].runs(), "it stays stopped");
    // Both: the service is stopped on purpose; whoever starts it starts all.
    stage.engine.docker(&["stop", "--time=5", "p-site-1"]).unwrap();
    assert!(look().await.stopped_by.is_some());
    driver.act(&name, Act::Start).await.unwrap();
    healthy(2);
    driver.act(&name, Act::Stop).await.unwrap();
    let seen = look().await;
    assert!(matches!(seen.process, Process::Ended { .. }) && seen.stopped_by.is_none(), "{seen:?}");
    // Removed, it is made again as one container with Compose's labels.
    stage.engine.docker(&["rm", "--force", "p-site-1", "p-site-2"]).unwrap();
    assert_eq!(look().await.process, Process::Removed);
    driver.act(&name, Act::Provision).await.unwrap();
    healthy(1);
    let named = stage.engine.docker(&["ps", "--filter=label=com.docker.compose.service=site", "--format={{.Names}}"]);
    assert_eq!(named.unwrap(), "p-site-1\n");
    assert!(services.iter().all(|service| service.doubled() == 0));
}

#[tokio::test]
async fn slow_the_containers_own_check_of_health_is_believed() {
    let Some(stage) = Stage::new() else { return };
    let service = ScratchService::new(&stage.path(), "site", &[]);
    let check = format!("--health-cmd={}", service.health().join(" "));
    let options =
        [check.as_str(), "--health-interval=300ms", "--health-start-period=20s", "--health-retries=1", "--label=a=b"];
    stage.create("site", &service, &options);
    let one = stage.again("site", service);
    let scene = one.scene();
    one.service.never(true);
    scene.act(Act::Start).await;
    scene.until("it starts", |seen| seen.health == Some(Answer::Starting)).await;
    one.service.never(false);
    scene.until("it is healthy", |seen| seen.health == Some(Answer::Healthy)).await;
    while tokio::time::timeout(Duration::from_secs(1), one.driver.changed()).await.is_ok() {}
    one.service.unhealthy(true);
    let told = tokio::time::timeout(scenario::PATIENCE, one.driver.changed()).await;
    assert!(told.is_ok(), "the outcome of a check is a change");
    let sick = |seen: &services::driver::Seen| matches!(&seen.health, Some(Answer::Unhealthy { why }) if why.contains("told to be unhealthy"));
    scene.until("it says why it is not", sick).await;
}

#[tokio::test]
async fn slow_a_start_that_fails_says_why_and_is_nobodys_stop() {
    let Some(stage) = Stage::new() else { return };
    let mut definition = stage.definition(&ScratchService::new(&stage.path(), "site", &[]), "always");
    definition.command = vec!["/no/such/program".into()];
    let driver = stage.driver(vec![Declared::container("site", "site").definition(definition)]);
    for act in [Act::Provision, Act::Start, Act::Restart] {
        let error = driver.act(&"site".into(), act).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
    let seen = driver.list().await.remove(0).1;
    assert!(matches!(seen.process, Process::Ended { .. }) && seen.stopped_by.is_none(), "{seen:?}");
    assert!(matches!(seen.health, Some(Answer::Unhealthy { why }) if why.contains("/no/such/program")));
}

#[tokio::test]
async fn slow_one_that_ignores_its_signal_is_killed_in_time() {
    let Some(stage) = Stage::new() else { return };
    let service = ScratchService::new(&stage.path(), "site", &[]);
    service.ignores_term(true);
    let declared = stage.declared("site", &service, "no").stop_within(Duration::from_secs(1));
    let (driver, name) = (stage.driver(vec![declared]), "site".into());
    driver.act(&name, Act::Provision).await.unwrap();
    await_that("it is healthy", scenario::PATIENCE, || service.is_healthy());
    driver.act(&name, Act::Stop).await.unwrap();
    assert!(!service.runs());
    let seen = driver.list().await.remove(0).1;
    assert_eq!(seen.process, Process::Ended { code: Some(137) });
}

#[tokio::test]
async fn slow_an_engine_that_goes_and_comes_back_is_followed() {
    let Some(mut stage) = Stage::new() else { return };
    let one = stage.one("site", &["--restart=always"]);
    one.scene().act(Act::Start).await;
    one.scene().until_healthy().await;
    while tokio::time::timeout(Duration::from_secs(1), one.driver.changed()).await.is_ok() {}
    stage.engine.kill9().unwrap();
    tokio::time::timeout(scenario::PATIENCE, one.driver.changed()).await.expect("that it is gone is a change");
    let seen = one.scene().look().await;
    assert!(matches!(&seen.process, Process::Unknown { why } if why.contains("no engine listens")), "{seen:?}");
    let error = one.driver.act(&one.name, Act::Start).await.unwrap_err();
    assert!(matches!(error, ActError::NoAnswer { .. }), "{error}");
    fs::remove_file(stage.engine.socket()).unwrap();
    let seen = one.scene().look().await;
    assert!(matches!(&seen.process, Process::Unknown { why } if why.contains("there is no")), "{seen:?}");
    let changed = async {
        // Each call returns once something may have changed, whoever asked before.
        loop {
            one.driver.changed().await;
            if one.scene().look().await.process == Process::Running {
                return;
            }
        }
    };
    stage.engine.start_again().unwrap();
    tokio::time::timeout(scenario::PATIENCE, changed).await.expect("that it is back is a change");
    one.scene().until_healthy().await;
    assert_eq!((one.service.starts().len(), one.service.doubled()), (2, 0), "the engine has started it again");
}
