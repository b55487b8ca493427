//! What people do with alerts: see them, try the routes, silence, say that they have one.

use std::{fs, process::Output};

use model::EventKind;
use serde_json::Value;

use crate::harness::{Guard, Place, said};

/// Nothing listens there: the guard alarms within three seconds.
const NOWHERE: &str = "postgresql:///postgres?host=/nonexistent&user=nobody";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A place whose alerts a command writes to the file `heard`, one line each.
fn place_with_a_route(more: &str) -> Place {
    let place = Place::new();
    let heard = place.path().join("heard");
    let script = format!("cat >> {}; echo >> {}", heard.display(), heard.display());
    let route = format!("\n[[alert.route]]\nname = \"desk\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n{more}\n");
    place.configure(NOWHERE, &route);
    place
}

fn heard(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path().join("heard")).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_open_alert_is_listed_and_somebody_takes_it() {
    let place = place_with_a_route("");
    let empty = place.ask(&["alert", "list"]);
    assert_eq!(empty.status.code(), Some(0), "{}", said(&empty));
    assert!(text(&empty).starts_with("No alert is open.\nNO GUARD RUNS"), "{}", text(&empty));
    assert_eq!(place.ask(&["alert", "ack", "postgres-down"]).status.code(), Some(2), "none is open");

    let guard = Guard::start(&place);
    place.await_event("delivery", 0, |k| matches!(k, EventKind::AlertDelivered { .. }));
    assert_eq!(heard(&place)[0]["rule"], "postgres-down");
    let listed = place.ask(&["alert", "list"]);
    let shown = text(&listed);
    assert_eq!(listed.status.code(), Some(1), "{shown}");
    for part in ["One alert is open.", "CRITICAL  postgres-down, for ", "Do first:", "told: desk; nobody has it yet"] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    let wrong = place.ask(&["alert", "ack", "cpu"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("open: postgres-down/"), "{}", said(&wrong));

    let taken = place.ask(&["alert", "ack", "postgres-down", "--by", "eva"]);
    assert_eq!(taken.status.code(), Some(0), "{}", said(&taken));
    let again = place.ask(&["alert", "ack", "postgres-down", "--by", "tom"]);
    assert!(text(&again).starts_with("eva has postgres-down already"), "{}", said(&again));
    place.await_event("it in the journal", 0, |k| matches!(k, EventKind::AlertAcknowledged { by, .. } if by == "eva"));
    let listed = place.ask(&["alert", "list"]);
    assert_eq!(listed.status.code(), Some(0), "somebody has it");
    let json = place.json(&["alert", "list"]);
    assert_eq!(json["open"][0]["acknowledged"]["by"], "eva", "{json}");
    assert_eq!(json["guard_runs"], true);
    assert!(guard.stop().success());
}

#[test]
fn a_silence_keeps_it_from_people_until_it_is_taken_back() {
    let place = place_with_a_route("");
    for (arguments, says) in [
        (&["alert", "silence", "--for", "1h", "--why", "x"][..], "it would silence every alert"),
        (&["alert", "silence", "--all", "postgres-down", "--for", "1h", "--why", "x"], "--all leaves nothing"),
        (&["alert", "silence", "postgres-down", "--for", "400d", "--why", "x"], "at most 31 days"),
        (&["alert", "silence", "postgres-down", "--why", "x"], "--for"),
        (&["alert", "silence", "--label", "cluster", "--for", "1h", "--why", "x"], "is no label"),
        (&["alert", "unsilence", "nope"], "none is in force"),
    ] {
        let refused = place.ask(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", said(&refused));
        assert!(said(&refused).contains(says), "{arguments:?}: {}", said(&refused));
    }
    let made = place.json(&["alert", "silence", "postgres-down", "--for", "1h", "--why", "a deploy", "--by", "eva"]);
    let id = made["silence"]["id"].as_str().unwrap().to_owned();
    let guard = Guard::start(&place);
    place.await_event("silence", 0, |k| matches!(k, EventKind::AlertSilenced { by, .. } if by == "eva"));
    let listed = place.ask(&["alert", "list"]);
    assert_eq!(listed.status.code(), Some(0), "it is known and silenced: {}", text(&listed));
    assert!(text(&listed).contains("silenced by eva until"), "{}", text(&listed));
    assert!(text(&listed).contains(&format!("{id}  rule=postgres-down")), "{}", text(&listed));
    assert_eq!(heard(&place), Vec::<Value>::new());
    assert_eq!(place.ask(&["alert", "unsilence", &id]).status.code(), Some(0));
    place.await_event("delivery", 0, |k| matches!(k, EventKind::AlertDelivered { .. }));
    assert_eq!(heard(&place).len(), 1);
    assert!(guard.stop().success());
}

#[test]
fn every_route_is_tried_and_the_one_that_reaches_nobody_is_named() {
    let place = place_with_a_route("[[alert.route]]\nname = \"broken\"\ncommand = [\"/bin/false\"]\n");
    let tried = place.ask(&["alert", "test"]);
    assert_eq!(tried.status.code(), Some(1));
    let shown = text(&tried);
    assert!(shown.contains("desk") && shown.contains("arrived after"), "{shown}");
    assert!(shown.contains("DID NOT ARRIVE") && shown.contains("1 of 2 routes reach nobody"), "{shown}");
    assert_eq!(heard(&place)[0]["rule"], "trial");
    assert_eq!(place.ask(&["alert", "test", "--route", "desk"]).status.code(), Some(0));
    let unknown = place.ask(&["alert", "test", "--route", "dusk"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(said(&unknown).contains("known: desk, broken"), "{}", said(&unknown));
}
