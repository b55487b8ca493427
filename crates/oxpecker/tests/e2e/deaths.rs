//! Deaths of the host and of the server: recognised, looked into, told; and what depends on them is brought back by itself.

use std::time::Duration;

use journal::{Journal, JournalOptions, StateDir};
use model::{
    EventKind, Mode, Moment, Pid,
    event::{Confidence, Death, DeathCause, Died},
};

use crate::{
    harness::{Guard, Place, cluster, said},
    recovery_run::{Stage, up},
};

fn await_death(place: &Place, after: i64) -> (i64, Death) {
    let event = place.await_event("the death", after, |k| matches!(k, EventKind::DeathExplained { .. }));
    let EventKind::DeathExplained { death } = event.kind else { unreachable!() };
    (event.id.0, death)
}

/// A journal of a guard that ran in another boot, and whose last record is of ten minutes ago.
fn of_another_boot(place: &Place) -> Moment {
    let state = StateDir::claim(&place.state_dir()).unwrap();
    let journal = Journal::open(state.path(), JournalOptions::default()).unwrap();
    let wall = jiff::Timestamp::now() - Duration::from_secs(600);
    let at = Moment { wall, boot_us: 1_000_000 };
    let hello = EventKind::GuardStarted {
        version: "0".into(),
        pid: Pid(1),
        boot_id: "00000000-0000-4000-8000-000000000000".into(),
        cluster: "main".into(),
        mode: Mode::Act,
        limitations: vec![],
    };
    drop(journal.append(at, &hello));
    journal.close(Duration::from_secs(10)).unwrap();
    at
}

#[test]
fn after_a_reboot_services_are_brought_back_and_the_reboot_is_told() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "mode = \"act\"", &[("site", &[], &up("site"))]);
    let last = of_another_boot(&stage.place);
    let guard = Guard::start(&stage.place);
    stage.place.await_event("the reboot", 0, |k| matches!(k, EventKind::HostRebooted { .. }));
    let (_, death) = await_death(&stage.place, 0);
    assert_eq!(death.of, Died::Host);
    // The journal keeps microseconds.
    assert!(death.after.is_some_and(|after| after.as_second() >= last.wall.as_second()), "{death:?}");
    // This machine did not die: whatever it lets us read, no cause is proven by it.
    assert!(death.established.is_none(), "{death:?}");
    assert_eq!(death.hypotheses.len(), 5);
    stage.place.await_event("a plan", 0, |k| matches!(k, EventKind::RecoveryBegan { mode: Mode::Act, .. }));
    let (_, recovery) = stage.await_stable(0);
    assert_eq!(recovery.unwrap().acts, 1, "{}", stage.place.log());
    stage.place.await_status("the death", |s| s["death"]["of"] == "host");
    let screen = said(&stage.place.ask(&["status"]));
    assert!(screen.contains("the host died"), "{screen}");
    assert!(guard.stop().success());
}

/// The cluster's data directory, declared.
fn with_data_dir(place: &Place, data_dir: &str) {
    let path = place.path().join("oxpecker.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replacen("[postgres]\n", &format!("[postgres]\ndata_dir = {data_dir:?}\n"), 1);
    std::fs::write(&path, text).unwrap();
}

#[test]
fn a_damaged_directory_is_told_with_what_it_can_be_brought_back_from() {
    let Some(mut cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "mode = \"act\"", &[("site", &[], &up("site"))]);
    with_data_dir(&stage.place, &cluster.data_dir().display().to_string());
    let guard = Guard::start(&stage.place);
    let (stable, _) = stage.await_stable(0);
    cluster.kill9().unwrap();
    std::fs::write(cluster.data_dir().join("global/pg_control"), vec![0; 8192]).unwrap();
    let is = |k: &EventKind| matches!(k, EventKind::RecoveryEscalated { reasons } if reasons.iter().any(|why| why.contains("global/pg_control: all of its 8192 bytes are zero")));
    let event = stage.place.await_event("the escalation", stable, is);
    let EventKind::RecoveryEscalated { reasons } = event.kind else { unreachable!() };
    assert!(reasons.iter().any(|why| why.contains("No [repository] is declared")), "{reasons:?}");
    let screen = said(&stage.place.ask(&["status"]));
    assert!(screen.contains("its data directory is damaged"), "{screen}");
    let plan = stage.place.ask(&["service", "plan"]);
    assert!(said(&plan).contains("not started on it"), "{}", said(&plan));
    assert!(guard.stop().success());
}

#[test]
fn why_the_server_died_is_told_when_it_is_back() {
    let Some(mut cluster) = cluster(&[]) else { return };
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "");
    with_data_dir(&place, &cluster.data_dir().display().to_string());
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["activity"].is_null());

    let mut after = 0;
    for (ends, cause) in [("fast", Some(DeathCause::Stopped)), ("kill", None)] {
        if ends == "fast" {
            cluster.stop_fast().unwrap();
        } else {
            cluster.kill9().unwrap();
        }
        place.await_status("the end", |s| s["server"]["state"] == "down");
        cluster.start_again().unwrap();
        let (id, death) = await_death(&place, after);
        assert_eq!((death.of, death.established), (Died::Server, cause), "{ends}: {death:#?}");
        assert!(death.after.is_some() && death.after <= death.before, "{ends}: {death:#?}");
        let stopped = death.hypotheses.iter().find(|one| one.cause == DeathCause::Stopped).unwrap();
        assert_eq!(stopped.confidence == Confidence::Excluded, cause.is_none(), "{ends}: {death:#?}");
        after = id;
    }
    assert!(guard.stop().success());
}
