//! What a team declares itself: rules of its own, the shape of its webhooks' messages, and words for those who only use the services.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use model::{AlertState, EventKind};
use serde_json::Value;

use crate::harness::{Guard, PATIENCE, Place, cluster, said};

/// Nothing listens there.
const NOWHERE: &str = "postgresql:///postgres?host=/nonexistent&user=nobody";

/// A route whose alerts a command writes to a file of its name, one JSON each line.
fn route(place: &Place, name: &str, more: &str) -> String {
    let heard = place.path().join(name);
    let script = format!("cat >> {0}; echo >> {0}", heard.display());
    format!("\n[[alert.route]]\nname = {name:?}\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n{more}\n")
}

fn heard(place: &Place, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path().join(name)).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A service that is well while its socket listens. At a loopback address of this process's own, so that nobody takes its port meanwhile.
fn service() -> (TcpListener, SocketAddr) {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The words that members heard, once there are so many.
fn words(place: &Place, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let words = heard(place, "members");
        if words.len() >= count {
            return words;
        }
        assert!(began.elapsed() < PATIENCE, "{count} words awaited, heard {words:?}:\n{}", place.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_rule_of_the_teams_own_fires_and_ends() {
    let place = Place::new();
    // What is watched: the sum of the services that fail, which the test decides.
    let (up, address) = service();
    let config = format!(
        "[[service]]\nname = \"queue\"\nhealth = {{ tcp = \"{address}\", interval = \"1s\" }}\n\
         [[alert.own_rule]]\nname = \"queue-gone\"\nwhen = \"services_unhealthy > 0 and cpus >= 1\"\nfor = \"1s\"\nclear_for = \"1s\"\n\
         severity = \"critical\"\nsummary = \"{{{{ services_unhealthy }}}} gone on {{{{ cluster }}}}\"\n\
         labels = {{ team = \"jobs\" }}\n{}",
        route(&place, "jobs", "match = { team = \"jobs\" }"),
    );
    place.configure(NOWHERE, &format!("\n{config}"));
    let checked = place.ask(&["config", "check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    let guard = Guard::start(&place);
    let fires = |state| move |kind: &EventKind| matches!(kind, EventKind::Alerted { alert } if alert.rule.0 == "queue-gone" && alert.state == state);
    place.await_status("the service is seen to be well", |status| {
        status["services"].as_array().is_some_and(|all| all.iter().any(|one| one["health"] == "healthy"))
    });
    drop(up);
    place.await_event("it fires", 0, fires(AlertState::Firing));
    let _up = TcpListener::bind(address).unwrap();
    place.await_event("it ends", 0, fires(AlertState::Resolved));
    place.await_event(
        "both are delivered",
        0,
        |kind| matches!(kind, EventKind::AlertDelivered { state: AlertState::Resolved, route, .. } if route == "jobs"),
    );
    let told = heard(&place, "jobs");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&told[0]["rule"], &told[0]["summary"]), (&"queue-gone".into(), &"1 gone on main".into()));
    assert!(guard.stop().success());
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let place = Place::new();
    let rule = "[[alert.own_rule]]\nname = \"many\"\nsummary = \"x\"\nwhen = ";
    for (when, says) in [
        ("\"sessions_active >\"", "line 1, column 17"),
        ("\"\"\"\nsessions_active > 1\n  and sesions_idle > 2\"\"\"", "line 2, column 7: sesions_idle is no figure"),
        ("\"sessions_active\"", "neither true nor false"),
    ] {
        place.configure(NOWHERE, &format!("\n{rule}{when}\n"));
        for command in [&["config", "check"][..], &["run"][..]] {
            let refused = place.ask(command);
            assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
            assert!(said(&refused).contains(says), "{says:?} is not in {}", said(&refused));
        }
    }
    let template = place.secret("body.j2", "{\"text\": \"{{ summary }}\"}");
    let url = place.secret("url", "http://127.0.0.1:9/x");
    let hook =
        format!("[[alert.route]]\nname = \"hook\"\nwebhook = {{ url_file = {url:?}, template_file = {template:?} }}");
    place.configure(NOWHERE, &format!("\n{hook}\n"));
    let refused = place.ask(&["config", "check"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("no JSON") && said(&refused).contains("quotation marks"), "{}", said(&refused));
    place.configure(NOWHERE, &route(&place, "members", "audience = \"members\""));
    let refused = place.ask(&["config", "check"]);
    assert!(said(&refused).contains("no service says what they lose"), "{}", said(&refused));

    let figures = place.json(&["alert", "figures"]);
    let named = |name: &str| figures["figures"].as_array().unwrap().iter().any(|figure| figure["name"] == name);
    assert!(named("sessions_active") && named("backup_age_seconds"), "{figures}");
}

/// A service that the observers can't ask, only the worker that brings services back: by a command.
#[test]
fn a_service_that_is_asked_by_a_command_is_alarmed_for_and_told_of() {
    let place = Place::new();
    let up = place.path().join("up");
    fs::write(&up, "").unwrap();
    let config = format!(
        "[[service]]\nname = \"bot-1\"\nimpact = [\"moderation\"]\n\
         health = {{ command = [\"/usr/bin/test\", \"-e\", {:?}], interval = \"1s\" }}\n\
         [alert.rules.service-unhealthy]\nfor_s = 1\n[alert.members]\nafter = \"1s\"\n{}{}",
        up.display().to_string(),
        route(&place, "members", "audience = \"members\""),
        route(&place, "team", ""),
    );
    // The rule counts only while PostgreSQL is up, or was never seen.
    let Some(cluster) = cluster(&[]) else { return };
    place.configure(&cluster.url("postgres"), &format!("\n{config}"));
    let guard = Guard::start(&place);
    place.await_status("it is seen to be well", |status| {
        status["services"].as_array().is_some_and(|all| all.iter().any(|one| one["health"] == "healthy"))
    });
    fs::remove_file(&up).unwrap();
    let unhealthy = place.await_event("the change", 0, |kind| {
        matches!(kind, EventKind::ServiceChanged { health: model::reading::Health::Unhealthy, impact, .. } if impact == &["moderation"])
    });
    place.await_event("the alert", unhealthy.id.0 - 1, |kind| {
        matches!(kind, EventKind::Alerted { alert } if alert.rule.0 == "service-unhealthy" && alert.labels["service"] == "bot-1")
    });
    assert_eq!(words(&place, 1)[0]["summary"], "Not working: moderation");
    let status = place.ask(&["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(said(&status).contains("bot-1 unhealthy"), "{}", said(&status));
    assert!(guard.stop().success());
}

fn with_members(place: &Place, address: SocketAddr, mail: SocketAddr) {
    let config = format!(
        "[[service]]\nname = \"gate-1\"\nimpact = [\"the entry gate\"]\n\
         health = {{ tcp = \"{address}\", interval = \"1s\" }}\n\
         [[service]]\nname = \"mail-1\"\nimpact = [\"e-mail\"]\nhealth = {{ tcp = \"{mail}\", interval = \"1s\" }}\n\
         [alert.members]\nafter = \"1s\"\nevery = \"10m\"\ntime_zone = \"Etc/GMT-1\"\n{}{}",
        route(place, "members", "audience = \"members\""),
        route(place, "team", ""),
    );
    place.configure(NOWHERE, &format!("\n{config}"));
}

#[test]
fn members_hear_what_is_down_and_when_it_is_back_also_over_a_kill() {
    let place = Place::new();
    let (up, address) = service();
    let (_mail, mail) = service();
    with_members(&place, address, mail);
    let guard = Guard::start(&place);
    place.await_status("the services are seen to be well", |status| {
        status["services"]
            .as_array()
            .is_some_and(|all| all.iter().filter(|one| one["health"] == "healthy").count() == 2)
    });
    drop(up);
    let first = words(&place, 1).remove(0);
    assert_eq!(first["summary"], "Not working: the entry gate");
    let said_so = first["details"].to_string();
    for part in ["Working: e-mail.", "Those in charge have been told.", "Next word by ", "+01"] {
        assert!(said_so.contains(part), "{part:?} is not in {said_so}");
    }
    assert!(!first.to_string().contains("gate-1"), "members know no services: {first}");
    let list = place.json(&["alert", "list"]);
    assert!(list["open"].as_array().unwrap().iter().all(|one| one["rule"] != "members-word"), "{list}");

    guard.kill9();
    let _up = TcpListener::bind(address).unwrap();
    let guard = Guard::start(&place);
    let all = words(&place, 2);
    assert_eq!(all.len(), 2, "nothing is said twice: {all:?}");
    assert_eq!((&all[1]["summary"], &all[1]["key"]), (&"Working again: the entry gate".into(), &first["key"]));
    assert!(heard(&place, "team").iter().all(|alert| alert["rule"] != "members-word"));
    assert!(guard.stop().success());
}
