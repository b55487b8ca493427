//! The shedding ladder on a real guard, with thresholds under which any host is pressed, and others under which none is.

use std::fs;

use model::{EventKind, event::SheddingStep};
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::harness::{Guard, Place, cluster, said};

/// Less memory than twice what there is counts as critical: every host has that.
pub const PRESSED: &str = "memory_left = [2.0, 3.0]\nmemory_ample = \"1 PiB\"";
/// No host is pressed, and every one is calm.
pub const CALM: &str = "memory_left = [0.000001, 0.000002]\nmemory_stalled = [100.0, 99.0]\nio_stalled = [100.0, 99.0]\n\
                    cpu_busy = [100.0, 99.0]\ncpu_stalled = [100.0, 99.0]\nqueue_per_cpu = [100000.0, 99999.0]\nanswer = [\"2h\", \"1h\"]";
/// A busy machine samples late; that is no finding here.
pub const PATIENT: &str =
    "starved_window = \"1h\"\nsuspended_window = \"1h\"\nhost_lost = \"10m\"\nactivity_lost = \"1h\"";

/// A guard with a service `bot` that is marked, and one `site` that is not.
struct Stage {
    place: Place,
    url: String,
    more: String,
}

impl Stage {
    fn new(url: &str, more: &str) -> Self {
        let stage = Self { place: Place::new(), url: url.to_owned(), more: more.to_owned() };
        stage.configure("act", PRESSED);
        stage
    }

    fn configure(&self, mode: &str, thresholds: &str) {
        let at = |name: &str| self.place.path().join(name).display().to_string();
        let service = |name: &str, more: &str| {
            let script = format!("echo $$ > {0}; exec sleep 1000000", at(name));
            format!(
                "\n[[service]]\nname = {name:?}\ndriver = \"process\"\n{more}\nstable_for = \"500ms\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n\
                 health = {{ command = [\"/usr/bin/test\", \"-e\", {:?}] }}\n",
                at(name)
            )
        };
        let text = format!(
            "mode = \"observe\"\n[recovery]\nmode = \"act\"\n[shedding]\nmode = {mode:?}\ncalm_for = \"1s\"\nstep_down_every = \"1s\"\n\
             stop_services = {{ confirm = \"1s\", patience = \"1s\" }}\n{}\n[shedding.thresholds]\n{PATIENT}\n{thresholds}\n{}{}",
            self.more,
            service("site", ""),
            service("bot", "shed = 1\ndepends_on = [\"site\"]")
        );
        self.place.configure(&self.url, &text);
    }

    fn runs(&self, name: &str) -> bool {
        let text = fs::read_to_string(self.place.path().join(name)).unwrap_or_default();
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid).is_ok())
    }

    fn await_step(&self, what: SheddingStep, rung: &str, after: i64) -> model::Event {
        self.place.await_event(&format!("{what:?} {rung}"), after, |kind| {
            matches!(kind, EventKind::SheddingStepped { step, rung: Some(of), .. } if *step == what && of.contains(rung))
        })
    }

    fn await_recovery(&self, what: &str, service: &str, is_so: impl Fn(&Value) -> bool) {
        self.place.await_status(what, |status| {
            let all = status["recovery"]["services"].as_array();
            all.is_some_and(|all| all.iter().any(|one| one["service"] == service && is_so(one)))
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in ["bot", "site"] {
            let stopped = self.place.ask(&["service", "stop", name, "--yes", "--by", "the test"]);
            if !stopped.status.success() {
                println!("{}", said(&stopped));
            }
        }
    }
}

fn stable(one: &Value) -> bool {
    one["well"] == true && one["runs"] == true
}

#[test]
fn a_marked_service_is_stopped_under_pressure_and_given_back_after_calm_also_over_a_kill() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "");
    // Calm first, so that all is up.
    stage.configure("act", CALM);
    let guard = Guard::start(&stage.place);
    stage.await_recovery("bot", "bot", stable);
    assert!(stage.runs("bot") && stage.runs("site"));

    stage.configure("act", PRESSED);
    guard.signal(Signal::HUP);
    let taken = stage.await_step(SheddingStep::Taken, "stop services (shed = 1)", 0);
    let EventKind::SheddingStepped { act, cause, passed, held, .. } = &taken.kind else { unreachable!() };
    assert_eq!(act.as_deref(), Some("stop bot"));
    assert!(cause.as_ref().is_some_and(|cause| cause.contains("memory available")), "{cause:?}");
    assert!(passed.iter().any(|one| one.starts_with("pause own work: no repository")), "{passed:?}");
    assert_eq!(held, &["stop services (shed = 1)"]);
    stage.await_recovery("the stop", "bot", |one| one["stopped_by"] == "the shedding ladder" && one["runs"] == false);
    assert!(!stage.runs("bot") && stage.runs("site"));
    let status = stage.place.await_status("the ladder", |s| s["shedding"]["stuck"] == true);
    assert_eq!(status["shedding"]["mode"], "act");
    let alert =
        |rule: &'static str| move |k: &EventKind| matches!(k, EventKind::Alerted { alert } if alert.rule.0 == rule);
    stage.place.await_event("the alert", taken.id.0 - 1, alert("shedding-active"));
    stage.place.await_event("a person is needed", taken.id.0, alert("shedding-blocked"));
    assert!(said(&stage.place.ask(&["status"])).contains("stop services (shed = 1): in force since"));

    // Killed: the service stays down, the next guard knows of it, and gives it back once there is calm.
    guard.kill9();
    assert!(!stage.runs("bot"));
    stage.configure("act", CALM);
    let guard = Guard::start(&stage.place);
    let back = stage.await_step(SheddingStep::GivenBack, "stop services (shed = 1)", taken.id.0);
    let EventKind::SheddingStepped { notes, .. } = &back.kind else { unreachable!() };
    assert_eq!(notes, &Vec::<String>::new());
    stage.await_recovery("bot again", "bot", stable);
    assert!(stage.runs("bot") && stage.runs("site"));
    let over = |k: &EventKind| matches!(k, EventKind::Alerted { alert } if alert.rule.0 == "shedding-active" && alert.state == model::AlertState::Resolved);
    stage.place.await_event("the alert's end", taken.id.0, over);
    assert!(guard.stop().success());
}

#[test]
fn a_dry_run_proposes_what_it_would_stop_and_stops_nothing() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "");
    stage.configure("observe", PRESSED);
    let guard = Guard::start(&stage.place);
    stage.await_recovery("bot", "bot", stable);
    let proposed = stage.await_step(SheddingStep::Proposed, "stop services (shed = 1)", 0);
    let EventKind::SheddingStepped { act, held, .. } = &proposed.kind else { unreachable!() };
    assert_eq!((act.as_deref(), held.len()), (Some("stop bot"), 0));
    stage.place.await_status("no rung left", |s| s["shedding"]["stuck"] == true);
    assert!(stage.runs("bot") && guard.stop().success());
    assert!(
        !stage
            .place
            .events()
            .iter()
            .any(|event| matches!(&event.kind, EventKind::Alerted { alert } if alert.rule.0.starts_with("shedding")))
    );
}

#[test]
fn postgresql_is_not_stopped_without_an_approval() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "stop_postgres.declared = true");
    let refused = stage.place.ask(&["config", "check"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("shedding.stop_postgres") && said(&refused).contains("stop_postgres_approved_by"));
}
