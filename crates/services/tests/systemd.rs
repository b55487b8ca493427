//! The systemd driver against a real systemd: one of its own, in a node that is killed and booted again.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/nspawn.rs"]
mod nspawn;

use std::{
    fs,
    time::{Duration, Instant},
};

use services::{
    driver::{
        Act, ActError, Driver, Seen,
        systemd::{Declared, Systemd},
    },
    health::{Answer, Process, Progress},
    look::boot_now,
};

use crate::{
    common::{
        scenario::{self, PATIENCE, Scene},
        service::{ScratchService, await_that},
    },
    nspawn::NodeStage,
};

fn scene<'a>(driver: &'a Systemd, name: &str, service: &'a ScratchService) -> Scene<'a> {
    Scene { driver, name: name.into(), service }
}

async fn look(driver: &Systemd, name: &str) -> Seen {
    let all = driver.list().await;
    all.into_iter().find(|(other, _)| other.as_str() == name).unwrap().1
}

async fn until(driver: &Systemd, name: &str, what: &str, done: impl Fn(&Seen) -> bool) -> Seen {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look(driver, name).await;
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{name}: not within {PATIENCE:?}: {what}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(driver: &Systemd, name: &str) -> Result<(), ActError> {
    driver.act(&name.into(), Act::Start).await
}

fn runs(seen: &Seen) -> bool {
    seen.process == Process::Running && seen.health == Some(Answer::Healthy)
}

#[tokio::test]
async fn units_are_driven_as_any_service() {
    let Some(stage) = NodeStage::boot() else { return };
    let names = ["acts", "restarts", "ends", "tells", "agents"];
    let services = names.map(|name| stage.service(name, &[], ""));
    stage.reload();
    let driver = stage.driver(&names);
    let of = |at: usize| scene(&driver, names[at], &services[at]);
    scenario::acts_are_idempotent(&of(0)).await;
    scenario::a_restart_is_another_run(&of(1)).await;
    scenario::an_end_is_seen_with_its_code(&of(2)).await;
    scenario::changes_are_told(&of(3)).await;
    scenario::two_agents_start_it_once(&of(4), &stage.driver(&names)).await;
    scenario::an_unknown_service_is_refused(&driver).await;
    // Looking makes no change of its own, whatever is not loaded.
    while tokio::time::timeout(Duration::from_secs(1), driver.changed()).await.is_ok() {}
    driver.list().await;
    let told = tokio::time::timeout(Duration::from_secs(1), driver.changed()).await;
    assert!(told.is_err(), "a look is no change");
}

#[tokio::test]
async fn what_systemd_makes_of_units_is_seen() {
    let Some(stage) = NodeStage::boot() else { return };
    let go = stage.path("go");
    stage.unit(
        "notifies",
        &format!(
            "Type=notify\nNotifyAccess=all\nExecStart=/bin/sh -c 'systemd-notify \"--status=progress: loading 3\"; until [ -e {} ]; do sleep 0.1; done; systemd-notify --ready; sleep infinity'",
            go.display()
        ),
    );
    stage.unit("once", "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true");
    stage.unit("backs-off", "Restart=always\nRestartSec=1h\nExecStart=/bin/sh -c 'sleep 0.2; exit 3'");
    stage.unit("too-often", "Restart=always\nRestartSec=1ms\nExecStart=/bin/false");
    stage.unit("masked", "ExecStart=/bin/sleep infinity");
    stage.unit("unusable", "ExecStart=no/absolute/path");
    stage.unit("dies", "ExecStart=/bin/sh -c 'kill -9 $$$$'");
    let node = &stage.node;
    node.write_unit("waits.service", "[Unit]\nAfter=notifies.service\n[Service]\nExecStart=/bin/sleep infinity\n")
        .unwrap();
    node.write_unit("alias-of.service", "[Service]\nExecStart=/bin/sleep infinity\n").unwrap();
    std::os::unix::fs::symlink("alias-of.service", node.unit_file("alias.service")).unwrap();
    node.write_unit("if.service", "[Unit]\nConditionPathExists=/nowhere\n[Service]\nExecStart=/bin/sleep infinity\n")
        .unwrap();
    node.write_unit(
        "lacks.service",
        "[Unit]\nRequires=dies-at-once.service\nAfter=dies-at-once.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    )
    .unwrap();
    stage.unit("dies-at-once", "Type=oneshot\nExecStart=/bin/sh -c 'exit 4'");
    stage.reload();
    fs::remove_file(node.unit_file("masked.service")).unwrap();
    stage.systemctl(&["mask", "masked.service"]);
    let names = [
        "notifies",
        "once",
        "backs-off",
        "too-often",
        "masked",
        "unusable",
        "dies",
        "waits",
        "alias",
        "if",
        "lacks",
        "dies-at-once",
        "nowhere",
    ];
    let driver = stage.driver(&names);
    assert_eq!(driver.list().await.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);

    // It says itself when it is ready, and how far it is.
    let (starting, seen) = tokio::join!(start(&driver, "notifies"), async {
        let told = Some(Progress { phase: "loading".to_owned(), done: 3 });
        until(&driver, "notifies", "it starts", |seen| seen.progress == told).await;
        start(&driver, "waits").await.unwrap();
        let waits = look(&driver, "waits").await;
        let seen = look(&driver, "notifies").await;
        fs::write(&go, "").unwrap();
        assert_eq!(waits.process, Process::BackingOff { until: None }, "its start waits for the other's");
        seen
    });
    starting.unwrap();
    assert_eq!((seen.process, seen.health), (Process::Running, Some(Answer::Starting)));
    until(&driver, "notifies", "it is ready", runs).await;
    until(&driver, "waits", "its turn came", runs).await;

    start(&driver, "once").await.unwrap();
    assert!(runs(&look(&driver, "once").await), "what remains after its exit runs");

    start(&driver, "backs-off").await.unwrap();
    let back_off = |seen: &Seen| matches!(seen.process, Process::BackingOff { .. });
    let seen = until(&driver, "backs-off", "systemd waits", back_off).await;
    let Process::BackingOff { until: Some(due) } = seen.process else { panic!("{seen:?}") };
    let wait = due.saturating_sub(boot_now());
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    start(&driver, "backs-off").await.unwrap();
    until(&driver, "backs-off", "it was started before its time", runs).await;
    until(&driver, "backs-off", "systemd waits again", back_off).await;
    driver.act(&"backs-off".into(), Act::Stop).await.unwrap();
    assert_eq!(look(&driver, "backs-off").await.process, Process::Ended { code: Some(3) }, "it is kept in mind");

    // systemd gives up; a start is a start all the same, as often as the planner wants it.
    let _ = start(&driver, "too-often").await;
    for _ in 0..3 {
        until(&driver, "too-often", "systemd gave up", |seen| seen.process == Process::Ended { code: Some(1) }).await;
        assert!(stage.node.systemctl(&["start", "too-often.service"]).is_err(), "systemd wants no more");
        start(&driver, "too-often").await.unwrap();
    }

    let masked = look(&driver, "masked").await;
    assert!(masked.stopped_by.unwrap().contains("masked"), "somebody's will");
    let error = start(&driver, "masked").await.unwrap_err();
    assert!(matches!(error, ActError::Denied { .. }) && error.to_string().contains("systemctl unmask"), "{error}");

    let Process::Unknown { why } = look(&driver, "unusable").await.process else { panic!("it can't be loaded") };
    assert!(why.contains("unusable.service"), "{why}");
    let error = start(&driver, "unusable").await.unwrap_err();
    assert!(error.to_string().contains("systemd-analyze verify unusable.service"), "{error}");

    let _ = start(&driver, "dies").await;
    let seen = until(&driver, "dies", "its end", |seen| matches!(seen.process, Process::Ended { .. })).await;
    assert_eq!(seen.process, Process::Ended { code: None }, "killed");

    start(&driver, "alias").await.unwrap();
    assert!(runs(&look(&driver, "alias").await));
    while tokio::time::timeout(Duration::from_millis(500), driver.changed()).await.is_ok() {}
    stage.systemctl(&["stop", "alias-of.service"]);
    tokio::time::timeout(PATIENCE, driver.changed()).await.expect("signals don't know aliases");

    let error = start(&driver, "if").await.unwrap_err();
    assert!(error.to_string().contains("conditions"), "{error}");
    let error = start(&driver, "lacks").await.unwrap_err();
    assert!(error.to_string().contains("requires failed"), "{error}");
    let error = start(&driver, "dies-at-once").await.unwrap_err();
    assert!(error.to_string().contains("exit-code") && error.to_string().contains('4'), "{error}");

    assert_eq!(look(&driver, "nowhere").await.process, Process::Removed);
    for act in [Act::Start, Act::Restart, Act::Provision] {
        let error = driver.act(&"nowhere".into(), act).await.unwrap_err();
        assert!(matches!(error, ActError::Absent { .. }) && error.to_string().contains("unit_file"), "{error}");
    }
    driver.act(&"nowhere".into(), Act::Stop).await.unwrap();
}

#[tokio::test]
async fn a_removed_unit_is_provisioned_and_what_is_forbidden_says_so() {
    let Some(stage) = NodeStage::boot() else { return };
    let service = ScratchService::new(&stage.node.share(), "site", &[]);
    let definitions = stage.path("definitions");
    fs::create_dir(&definitions).unwrap();
    let file = |name: &str| definitions.join(name);
    let text = format!("[Service]\nExecStart={}\n", service.command().join(" "));
    fs::write(file("site.service"), &text).unwrap();
    fs::write(file("worker@.service"), "[Service]\nExecStart=/bin/sleep infinity\n").unwrap();
    stage.unit("other", "ExecStart=/bin/sleep infinity");
    stage.reload();
    let declared = [
        Declared::new("site", "site.service", Some(file("site.service"))),
        Declared::new("worker", "worker@3.service", Some(file("worker@.service"))),
        Declared::new("lost", "lost.service", Some(file("lost.service"))),
        Declared::new("other", "other.service", None),
    ];
    let driver = Systemd::new(stage.node.bus(), declared.map(Result::unwrap).to_vec());
    for name in ["site", "worker"] {
        assert_eq!(look(&driver, name).await.process, Process::Removed, "{name}");
        for _ in 0..2 {
            driver.act(&name.into(), Act::Provision).await.unwrap();
            until(&driver, name, "it runs", runs).await;
        }
    }
    await_that("it starts once", PATIENCE, || service.is_healthy());
    assert_eq!(service.starts().len(), 1);
    let link = stage.node.unit_file("site.service");
    assert_eq!(fs::read_link(&link).unwrap(), file("site.service"), "the file stays where it is");
    // Removed again, as somebody would: stopped, its file gone.
    driver.act(&"site".into(), Act::Stop).await.unwrap();
    fs::remove_file(&link).unwrap();
    while tokio::time::timeout(Duration::from_millis(300), driver.changed()).await.is_ok() {}
    stage.reload();
    tokio::time::timeout(PATIENCE, driver.changed()).await.expect("a reload is told");
    until(&driver, "site", "it is removed", |seen| seen.process == Process::Removed).await;
    let error = driver.act(&"lost".into(), Act::Provision).await.unwrap_err();
    assert!(error.to_string().contains("lost.service") && error.to_string().contains("hint: "), "{error}");

    // A policy of the bus forbids to root what polkit forbids to others.
    let forbid = |member: &str| {
        format!(
            "<deny send_destination=\"org.freedesktop.systemd1\" send_interface=\"org.freedesktop.systemd1.Manager\" send_member=\"{member}\"/>"
        )
    };
    let policy = format!(
        "<busconfig><policy context=\"mandatory\">{}{}</policy></busconfig>",
        forbid("StartUnit"),
        forbid("LinkUnitFiles")
    );
    let policies = stage.node.root().join("etc/dbus-1/system.d");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("forbid.conf"), policy).unwrap();
    stage.systemctl(&["reload", "dbus.service"]);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        // The bus takes its policy on in its own time.
        match driver.act(&"other".into(), Act::Start).await {
            Err(error) => break error,
            Ok(()) => driver.act(&"other".into(), Act::Stop).await.unwrap(),
        }
        assert!(Instant::now() < deadline, "nothing is forbidden");
    };
    assert!(matches!(error, ActError::Denied { .. }) && error.to_string().contains("manage-units"), "{error}");
    let error = driver.act(&"site".into(), Act::Provision).await.unwrap_err();
    assert!(matches!(error, ActError::Denied { .. }) && error.to_string().contains("manage-unit-files"), "{error}");
    assert!(matches!(look(&driver, "other").await.process, Process::Ended { .. }), "looking needs no rights");
}

#[tokio::test]
async fn a_node_is_found_again_after_it_was_killed() {
    let Some(mut stage) = NodeStage::boot() else { return };
    let service = stage.service("site", &[], "");
    let database = stage.service("db", &[], "");
    stage.node.enable("db.service").unwrap();
    stage.reload();
    let driver = stage.driver(&["site", "db"]);
    start(&driver, "site").await.unwrap();
    let before = until(&driver, "site", "it runs", runs).await;
    await_that("it starts", PATIENCE, || service.is_healthy());
    while tokio::time::timeout(Duration::from_millis(300), driver.changed()).await.is_ok() {}
    stage.node.kill9().unwrap();
    assert!(!service.runs());
    tokio::time::timeout(PATIENCE, driver.changed()).await.expect("the lost bus is told");
    for (name, seen) in driver.list().await {
        let Process::Unknown { why } = seen.process else { panic!("{name}: {seen:?}") };
        assert!(why.contains("can't be asked at unix:path="), "{why}");
    }
    let error = start(&driver, "site").await.unwrap_err();
    assert!(matches!(error, ActError::NoAnswer { .. }) && error.to_string().contains("hint: "), "{error}");
    let (told, booted) = tokio::join!(tokio::time::timeout(PATIENCE, driver.changed()), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stage.node.boot_again()
    });
    booted.unwrap();
    told.expect("that it is back is told");
    until(&driver, "db", "what is enabled came back by itself", runs).await;
    let down = until(&driver, "site", "it is seen", |seen| seen.process == Process::Ended { code: None }).await;
    assert_eq!(down.run, None);
    await_that("the database starts", PATIENCE, || database.starts().len() == 1);
    start(&driver, "site").await.unwrap();
    let after = until(&driver, "site", "it runs", runs).await;
    assert_ne!(before.run, after.run);
    await_that("it starts the second time", PATIENCE, || service.starts().len() == 2);
}

#[tokio::test]
async fn a_bus_that_is_none_is_said_at_once() {
    let declared = || vec![Declared::new("site", "site.service", None).unwrap()];
    for address in ["unix:path=/nowhere/bus", "nonsense", "", "tcp:host=127.0.0.1"] {
        let driver = Systemd::new(address, declared());
        let seen = look(&driver, "site").await;
        assert!(matches!(seen.process, Process::Unknown { .. }), "{address}: {seen:?}");
        let error = start(&driver, "site").await.unwrap_err();
        assert!(matches!(error, ActError::NoAnswer { .. }), "{address}: {error}");
    }
    // One that takes connections and never answers.
    let dir = tempfile::tempdir().unwrap();
    let deaf = dir.path().join("deaf");
    let _listener = std::os::unix::net::UnixListener::bind(&deaf).unwrap();
    let driver = Systemd::new(format!("unix:path={}", deaf.display()), declared());
    let Process::Unknown { why } = look(&driver, "site").await.process else { panic!("nobody answers") };
    assert!(why.contains("within 3 s"), "{why}");
}
