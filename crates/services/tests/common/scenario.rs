//! What every driver has to do, whoever it starts services with. Each driver's tests call these with a service that is down when they begin.

#![allow(dead_code, clippy::unwrap_used, reason = "not all is used by each test; a test that can't go on fails")]

use std::time::{Duration, Instant};

use model::ServiceName;
use services::{
    driver::{Act, ActError, Driver, Seen},
    health::Process,
};

use super::service::ScratchService;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A driver, one of its services, and what it runs.
pub struct Scene<'a> {
    /// The driver.
    pub driver: &'a dyn Driver,
    /// The service's name with it.
    pub name: ServiceName,
    /// The script that it runs.
    pub service: &'a ScratchService,
}

impl Scene<'_> {
    /// One look at the service.
    pub async fn look(&self) -> Seen {
        let all = self.driver.list().await;
        let found = all.into_iter().find(|(name, _)| *name == self.name);
        found.unwrap_or_else(|| panic!("{} is not listed", self.name)).1
    }

    /// Looks until `done` says so.
    pub async fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.look().await;
            if done(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{}: not within {PATIENCE:?}: {what}; last seen: {seen:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Acts, which has to succeed.
    pub async fn act(&self, act: Act) {
        if let Err(error) = self.driver.act(&self.name, act).await {
            panic!("{error}");
        }
    }

    /// Waits until it runs and is healthy by its own word.
    pub async fn until_healthy(&self) -> Seen {
        let seen = self.until("it runs", |seen| seen.process == Process::Running).await;
        let deadline = Instant::now() + PATIENCE;
        while !self.service.is_healthy() {
            assert!(Instant::now() < deadline, "{}: it runs and doesn't get healthy", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    }
}

fn is_down(seen: &Seen) -> bool {
    matches!(seen.process, Process::Ended { .. })
}

/// Start, start again, stop, stop again: what is done already is done by nobody twice.
pub async fn acts_are_idempotent(scene: &Scene<'_>) {
    scene.act(Act::Stop).await;
    assert_eq!(scene.service.starts().len(), 0, "stopping what doesn't run starts nothing");
    scene.act(Act::Start).await;
    let first = scene.until_healthy().await;
    scene.act(Act::Start).await;
    scene.act(Act::Start).await;
    let again = scene.look().await;
    assert_eq!((again.process, again.run), (Process::Running, first.run), "the same run");
    assert_eq!(scene.service.starts().len(), 1);
    scene.act(Act::Stop).await;
    scene.until("it is down", is_down).await;
    assert!(!scene.service.runs());
    scene.act(Act::Stop).await;
    assert_eq!((scene.service.starts().len(), scene.service.doubled()), (1, 0));
}

/// A restart is another run, also of a service that is down.
pub async fn a_restart_is_another_run(scene: &Scene<'_>) {
    scene.act(Act::Restart).await;
    let first = scene.until_healthy().await;
    scene.act(Act::Restart).await;
    let second = scene.until("another run", |seen| seen.process == Process::Running && seen.run != first.run).await;
    assert!(second.run.is_some() && first.run.is_some(), "the driver tells runs apart");
    scene.until_healthy().await;
    assert_eq!((scene.service.starts().len(), scene.service.doubled()), (2, 0));
    scene.act(Act::Stop).await;
    scene.until("it is down", is_down).await;
}

/// A service that ends by itself is seen with its code, and nobody starts it again unasked; not where the supervisor was told to.
pub async fn an_end_is_seen_with_its_code(scene: &Scene<'_>) {
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    scene.service.crashes(Some(7));
    let seen = scene.until("its end", is_down).await;
    assert_eq!(seen.process, Process::Ended { code: Some(7) });
    scene.service.crashes(None);
    scene.act(Act::Start).await;
    scene.until_healthy().await;
    assert_eq!((scene.service.starts().len(), scene.service.doubled()), (2, 0));
    scene.act(Act::Stop).await;
    scene.until("it is down", is_down).await;
}

/// `changed` returns for a start, an end and a stop, and not for nothing.
pub async fn changes_are_told(scene: &Scene<'_>) {
    let within = |what: &'static str| async move {
        let told = tokio::time::timeout(PATIENCE, scene.driver.changed()).await;
        assert!(told.is_ok(), "nobody said: {what}");
    };
    // What may have been before.
    let _ = tokio::time::timeout(Duration::from_millis(500), scene.driver.changed()).await;
    scene.act(Act::Start).await;
    within("it was started").await;
    let running = scene.until_healthy().await;
    while tokio::time::timeout(Duration::from_secs(1), scene.driver.changed()).await.is_ok() {}
    scene.service.crashes(Some(5));
    within("it ended").await;
    scene.until("its end", |seen| is_down(seen) || seen.run != running.run).await;
    scene.service.crashes(None);
    scene.act(Act::Stop).await;
    scene.until("it is down", is_down).await;
}

/// Two drivers, as two agents have them, act at once: one start comes of it.
pub async fn two_agents_start_it_once(scene: &Scene<'_>, other: &dyn Driver) {
    let (one, two) = tokio::join!(scene.driver.act(&scene.name, Act::Start), other.act(&scene.name, Act::Start));
    for result in [one, two] {
        // Either was told that somebody else is at it, or finds it done.
        assert!(matches!(result, Ok(()) | Err(ActError::NoAnswer { .. })), "{result:?}");
    }
    scene.until_healthy().await;
    assert_eq!((scene.service.starts().len(), scene.service.doubled()), (1, 0));
    scene.act(Act::Stop).await;
    scene.until("it is down", is_down).await;
}

/// One that is not declared is refused by name.
pub async fn an_unknown_service_is_refused(driver: &dyn Driver) {
    let name = ServiceName::from("nobody\u{1b}[31m declared this");
    for act in [Act::Start, Act::Stop, Act::Restart, Act::Provision] {
        let error = driver.act(&name, act).await.unwrap_err();
        assert!(matches!(error, ActError::Absent { .. }), "{error:?}");
        assert!(error.to_string().contains("hint: "), "{error}");
    }
}
