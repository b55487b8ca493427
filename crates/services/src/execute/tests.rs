use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use super::*;
use crate::{
    driver::{Doing, Seen},
    graph::Service,
    health::Process,
    look::Asked,
    plan::{Escalation, UNDONE_MAX},
};

const BOOT: &str = "this boot";

/// A driver of what is no process.
#[derive(Default)]
struct Fake {
    services: Mutex<BTreeMap<ServiceName, Seen>>,
    looks: AtomicUsize,
    look_takes: Duration,
    /// In so many parts, so that whoever polls it only once gets nowhere; 0: for ever.
    act_parts: u32,
    acts: AtomicU32,
}

impl Fake {
    fn of(names: &[&str], process: &Process) -> Self {
        let services = names.iter().map(|name| ((*name).into(), Seen::of(process.clone())));
        Self { services: Mutex::new(services.collect()), act_parts: 3, ..Self::default() }
    }
}

impl Driver for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        Box::pin(async {
            self.looks.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(self.look_takes).await;
            self.services.lock().unwrap().clone().into_iter().collect()
        })
    }

    fn act<'a>(&'a self, service: &'a ServiceName, _act: Act) -> Doing<'a, Result<(), ActError>> {
        Box::pin(async move {
            if self.act_parts == 0 {
                return std::future::pending().await;
            }
            for _ in 0..self.act_parts {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.acts.fetch_add(1, Ordering::Relaxed);
            self.services.lock().unwrap().insert(service.clone(), Seen::of(Process::Running));
            Ok(())
        })
    }

    fn changed(&self) -> Doing<'_, ()> {
        Box::pin(std::future::pending())
    }
}

fn scene(drivers: &[&Arc<Fake>]) -> Scene {
    let all: Vec<(Service, Arc<dyn Driver>)> = drivers
        .iter()
        .flat_map(|driver| {
            let names: Vec<ServiceName> = driver.services.lock().unwrap().keys().cloned().collect();
            names.into_iter().map(|name| (Service::new(name), Arc::clone(*driver) as Arc<dyn Driver>))
        })
        .collect();
    let graph = Graph::new(all.iter().map(|(service, _)| service.clone()).collect()).unwrap();
    let asked = all.iter().map(|_| Asked { health: vec![], function: vec![], within: Duration::from_secs(1) });
    let observers = drivers.iter().map(|driver| Arc::clone(*driver) as Arc<dyn Driver>);
    Scene {
        observer: Observer::new(&graph, observers.collect(), asked.collect()),
        drivers: all.into_iter().map(|(service, driver)| (service.name, driver)).collect(),
        definitions: BTreeMap::new(),
        budgets: Budgets { jitter: Duration::ZERO, ..Budgets::default() },
        patience: Patience::default(),
        graph,
    }
}

fn down() -> Process {
    Process::Ended { code: None }
}

#[tokio::test]
async fn acts_go_on_while_it_looks_and_only_what_is_due_is_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Arc::new(Fake { look_takes: Duration::from_millis(300), ..Fake::of(&["site"], &down()) });
    let other = Arc::new(Fake::of(&["bot"], &Process::Running));
    let mut executor = Executor::act(dir.path(), BOOT, scene(&[&slow, &other])).unwrap();
    let round = executor.round().await.unwrap();
    assert_eq!((round.began.len(), slow.looks.load(Ordering::Relaxed), other.looks.load(Ordering::Relaxed)), (1, 2, 1));
    assert_eq!(slow.acts.load(Ordering::Relaxed), 0);
    let round = executor.round().await.unwrap();
    assert_eq!((round.began.len(), slow.acts.load(Ordering::Relaxed)), (0, 1), "the look took long enough for it");
}

#[tokio::test]
async fn an_agent_that_dies_in_a_loop_stops_acting() {
    let dir = tempfile::tempdir().unwrap();
    let never = Arc::new(Fake { act_parts: 0, ..Fake::of(&["site"], &down()) });
    for time in 0..UNDONE_MAX {
        let mut executor = Executor::act(dir.path(), BOOT, scene(&[&never])).unwrap();
        assert_eq!(executor.round().await.unwrap().began.len(), 1, "{time}");
        // As if it were killed: nothing more is written down.
    }
    let mut executor = Executor::act(dir.path(), BOOT, scene(&[&never])).unwrap();
    let round = executor.round().await.unwrap();
    assert_eq!((round.began.len(), round.plan.outcome), (0, Outcome::Escalated));
    assert!(matches!(round.plan.escalations[..], [Escalation::Interrupted { times: UNDONE_MAX, .. }]));
    executor.reset().unwrap();
    assert_eq!(executor.round().await.unwrap().began.len(), 1, "a person has looked");
}

#[tokio::test]
async fn an_approval_is_used_up_with_the_act_and_not_by_an_agent_that_died_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let never = Arc::new(Fake { act_parts: 0, ..Fake::of(&["db"], &Process::Removed) });
    let begins = async |boot: &str| {
        let mut executor = Executor::act(dir.path(), boot, scene(&[&never])).unwrap();
        let round = executor.round().await.unwrap();
        (round.began.len(), round.wanted)
    };
    let (began, wanted) = begins(BOOT).await;
    assert_eq!(began, 0);
    let wanted = wanted.unwrap();
    approve(dir.path(), &wanted, &wanted.plan, "ann", Timestamp::now()).unwrap();
    assert_eq!(begins(BOOT).await.0, 1);
    // It died before its driver had it, and nothing of it was done.
    assert_eq!(begins(BOOT).await.0, 1);
    // After a reboot nobody knows: that takes another yes.
    assert_eq!(begins("the next boot").await.0, 0);
}

#[tokio::test]
async fn files_of_another_format_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::of(&["site"], &down()));
    for (name, text, why) in [
        ("recovery.json", r#"{"format":3,"boot":"this boot"}"#, "format 3"),
        ("recovery.json", r#"{"format":1,"boot":"this boot","ledger":{},"begun":[]}"#, "format 1"),
        ("recovery.json", "\0\0\0\0", "damaged"),
        ("stopped.json", "[", "damaged"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let result = match Executor::act(dir.path(), BOOT, scene(&[&fake])) {
            Ok(mut executor) => executor.round().await.map(drop),
            Err(error) => Err(error),
        };
        let error = result.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("hint: ") && error.contains(name), "{error}");
        assert_eq!((fs::read_to_string(&path).unwrap(), fake.acts.load(Ordering::Relaxed)), (text.to_owned(), 0));
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_slow_look_makes_no_old_answer_fresh() {
    let slow = Arc::new(Fake { look_takes: Duration::from_millis(200), ..Fake::of(&["site"], &Process::Running) });
    let scene = scene(&[&slow]);
    let began = boot_now();
    let look = scene.observer.look().await;
    assert!(look.seen[0].observation.at < began + Duration::from_millis(150), "{:?}", look.seen[0]);
}
