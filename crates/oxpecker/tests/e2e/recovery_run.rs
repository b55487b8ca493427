//! Services that the guard brings back: real processes, killed for real.

use std::{fs, time::Instant};

use model::EventKind;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::harness::{Guard, PATIENCE, Place, cluster, said};

/// A place with services below a database. Each writes its name to the file `starts` when it starts, and its pid to a file of its name. They are
/// stopped at the end, whatever happens.
pub struct Stage {
    pub place: Place,
    names: Vec<&'static str>,
}

impl Stage {
    /// `services`: name, what it needs beside the database, and what its shell does after it has noted its start.
    pub fn new(url: &str, top: &str, services: &[(&'static str, &[&str], &str)]) -> Self {
        let place = Place::new();
        let at = |name: &str| place.path().join(name).display().to_string();
        let mut text = format!("{top}\n");
        for (name, needs, then) in services {
            let script = format!("echo {name} >> {}; echo $$ > {}; {then}", at("starts"), at(name));
            let needs: Vec<&str> = needs.iter().copied().chain(["main"]).collect();
            text.push_str(&format!(
                "\n[[service]]\nname = {name:?}\ndriver = \"process\"\ndepends_on = {needs:?}\nstable_for = \"500ms\"\n\
                 directory = {:?}\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nhealth = {{ command = [\"/usr/bin/test\", \"-e\", {:?}] }}\n",
                place.path().display().to_string(),
                at(&format!("{name}.up"))
            ));
        }
        place.configure(url, &text);
        Self { place, names: services.iter().map(|(name, ..)| *name).collect() }
    }

    /// There while the service is up.
    fn ready(&self, name: &str) -> String {
        self.place.path().join(format!("{name}.up")).display().to_string()
    }

    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.place.path().join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn pid(&self, name: &str) -> Pid {
        let text = fs::read_to_string(self.place.path().join(name)).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn kill_all(&self) {
        for name in &self.names {
            kill_process(self.pid(name), Signal::KILL).unwrap();
            let _ = fs::remove_file(self.ready(name));
        }
    }

    pub fn await_stable(&self, after: i64) -> (i64, Option<model::event::RecoveryFigures>) {
        let is = |k: &EventKind| matches!(k, EventKind::ServicesStable { .. });
        let event = self.place.await_event("all stable", after, is);
        let EventKind::ServicesStable { recovery, .. } = event.kind else { unreachable!() };
        (event.id.0, recovery)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in &self.names {
            let stopped = self.place.ask(&["service", "stop", name, "--yes", "--by", "the test"]);
            if !stopped.status.success() {
                println!("{}", said(&stopped));
            }
        }
    }
}

/// A script that is up at once, and for good.
pub fn up(name: &str) -> String {
    format!("touch {name}.up; exec sleep 1000000")
}

#[test]
fn what_is_killed_comes_back_in_order_by_itself() {
    let Some(cluster) = cluster(&[]) else { return };
    let url = cluster.url("postgres");
    let needs_cache = format!("test -e cache.up || exit 1; {}", up("site"));
    let stage = Stage::new(&url, "mode = \"act\"", &[("site", &["cache"], &needs_cache), ("cache", &[], &up("cache"))]);
    let guard = Guard::start(&stage.place);
    let (first, recovery) = stage.await_stable(0);
    let figures = recovery.expect("they were down");
    assert_eq!((figures.acts, figures.failed), (2, 0), "{}", stage.place.log());
    assert_eq!(stage.starts(), ["cache", "site"]);
    let status =
        stage.place.await_status("the services", |s| s["recovery"]["services"].as_array().map(Vec::len) == Some(3));
    assert!(status["recovery"]["services"].as_array().unwrap().iter().all(|one| one["well"] == true), "{status}");

    stage.kill_all();
    let (second, recovery) = stage.await_stable(first);
    let figures = recovery.expect("they were killed");
    assert_eq!((figures.acts, figures.failed), (2, 0), "{}", stage.place.log());
    assert_eq!(stage.starts(), ["cache", "site", "cache", "site"]);
    let events = stage.place.events();
    let told: Vec<String> = events
        .iter()
        .filter(|event| event.id.0 > first && event.id.0 <= second)
        .filter_map(|event| match &event.kind {
            EventKind::RecoveryBegan { order, .. } => Some(format!("began {order:?}")),
            EventKind::RecoveryActBegan { service, action, .. } => Some(format!("{action} {service}")),
            EventKind::RecoveryActEnded { service, failure: None, .. } => Some(format!("{service} is stable")),
            _ => None,
        })
        .collect();
    let acts: Vec<&str> = told.iter().map(String::as_str).filter(|line| !line.starts_with("began")).collect();
    assert_eq!(acts, ["start cache", "cache is stable", "start site", "site is stable"], "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("began")), "{told:?}");

    // The guard dies; the services don't notice, and the next guard leaves them alone.
    let pids = (stage.pid("cache"), stage.pid("site"));
    guard.kill9();
    let guard = Guard::start(&stage.place);
    let (third, recovery) = stage.await_stable(second);
    assert_eq!(recovery, None);
    assert_eq!((stage.pid("cache"), stage.pid("site")), pids);
    assert_eq!(stage.starts().len(), 4);

    // What a person stops stays down.
    let stopped = stage.place.ask(&["service", "stop", "site", "--by", "eva"]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    let is = |k: &EventKind| matches!(k, EventKind::ServiceStateChanged { to, .. } if to.contains("on purpose by eva"));
    stage.place.await_event("the stop", third, is);
    assert!(test_kill_process(pids.1).is_err(), "it does not run");
    assert_eq!(stage.starts().len(), 4);
    assert!(guard.stop().success());
}

#[test]
fn who_only_observes_starts_nothing_and_says_what_could_be_done() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "", &[("site", &[], &up("site"))]);
    let guard = Guard::start(&stage.place);
    let ill = |s: &Value| {
        let services = s["recovery"]["services"].as_array();
        services.is_some_and(|all| all.iter().any(|one| one["service"] == "site" && one["well"] == false))
    };
    let status = stage.place.await_status("the service that is down", ill);
    assert_eq!(status["recovery"]["mode"], "observe");
    let screen = stage.place.ask(&["status"]);
    assert_eq!(screen.status.code(), Some(1));
    assert!(
        said(&screen).contains("0 of 2 services") || said(&screen).contains("1 of 2 services"),
        "{}",
        said(&screen)
    );
    assert!(guard.stop().success());
    assert_eq!(stage.starts(), Vec::<String>::new());
    assert!(!stage.place.event_names().contains(&"recovery_act_began"));
}

#[test]
fn what_never_becomes_healthy_ends_in_an_alert_not_in_a_loop() {
    let Some(cluster) = cluster(&[]) else { return };
    let top = "mode = \"act\"\n[recovery]\nattempts = 1";
    let stage = Stage::new(&cluster.url("postgres"), top, &[("site", &[], "exit 7")]);
    let guard = Guard::start(&stage.place);
    let is = |k: &EventKind| matches!(k, EventKind::Alerted { alert } if alert.rule.0 == "services-need-you");
    let event = stage.place.await_event("the alert", 0, is);
    let EventKind::Alerted { alert } = event.kind else { unreachable!() };
    assert!(alert.summary.contains("site is given up after 1 failed attempts"), "{}", alert.summary);
    let tried = stage.starts().len();
    // Some more looks change nothing.
    let since = Instant::now();
    while since.elapsed() < PATIENCE / 10 {
        stage.place.await_status("it stays so", |s| !s["recovery"]["escalations"].as_array().unwrap().is_empty());
    }
    assert_eq!((stage.starts().len(), tried), (1, 1));
    assert!(guard.stop().success());
}
