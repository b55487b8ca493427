//! Which events are one incident, and how long things took.

use std::time::Duration;

use incident::{Clock, GapKind, Incident, IncidentId, IncidentList, IncidentRules, SCHEMA_VERSION, incidents};
use model::{EventId, Mode, Severity, alert::rule, event::DownReason, reading::Health};

use crate::{checks, stories, story::Story};

fn found(story: &Story) -> Vec<Incident> {
    incidents(&story.events, &IncidentRules::default())
}

fn only(story: &Story) -> Incident {
    let mut all = found(story);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn noise_is_no_incident() {
    assert_eq!(found(&stories::noise()), []);
    assert_eq!(incidents(&[], &IncidentRules::default()), []);
}

#[test]
fn an_hour_apart_are_two_incidents() {
    let all = found(&stories::two_incidents());
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|i| !i.is_open()));
    assert!(all[0].until() < all[1].start);
    assert!(all[0].evidence.iter().all(|p| !all[1].conditions.iter().any(|c| c.opened_by == p.id())));
}

#[test]
fn a_relapse_within_the_quiet_gap_is_the_same_incident() {
    for (pause_s, expected) in [(299, 1), (301, 2)] {
        let mut s = Story::new();
        s.guard(Mode::Act, "b").down(DownReason::NotListening, "").wait_ms(1_000).up();
        s.wait_ms(pause_s * 1_000).down(DownReason::NotListening, "").wait_ms(1_000).up();
        assert_eq!(found(&s).len(), expected, "{pause_s} s");
    }
}

#[test]
fn an_alert_counts_from_its_since() {
    // Decided long after the first incident, it began within it.
    let mut s = Story::new();
    s.guard(Mode::Act, "b").down(DownReason::NotListening, "").wait_ms(1_000).up().wait_ms(400_000);
    s.alert(rule::MEMORY_LOW, Severity::Warning, 390_000, "low", &[]);
    assert_eq!(found(&s).len(), 1);
}

#[test]
fn clusters_have_incidents_of_their_own() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b").alert(rule::CPU_SATURATED, Severity::Warning, 0, "busy", &[]);
    s.alert(rule::MEMORY_LOW, Severity::Warning, 0, "low", &[]);
    let model::EventKind::Alerted { alert } = &mut s.events.last_mut().unwrap().kind else { panic!("an alert") };
    alert.labels.insert("cluster".into(), "other".into());
    let all = found(&s);
    assert_eq!(all.iter().map(|i| i.cluster.as_deref()).collect::<Vec<_>>(), [Some("main"), Some("other")]);
}

#[test]
fn durations_are_those_of_the_boot_clock_whatever_the_wall_clock_does() {
    let incident = only(&stories::clock_stepped());
    // From the alert's since: 2.1 s to the alert, 0.18 to delivery, then 1 + 4 + 6 + 1.
    assert_eq!(incident.lasted.duration, Duration::from_millis(14_280));
    assert_eq!(incident.lasted.clock, Clock::Boot);
    let site = &incident.services[0];
    assert_eq!(site.downtime.duration, Duration::from_secs(10));
    assert!(incident.end.unwrap().at.wall < incident.start.at.wall, "the step is larger than the incident");
}

#[test]
fn durations_across_a_reboot_are_by_the_wall_clock_and_say_so() {
    let incident = only(&stories::host_rebooted());
    assert_eq!(incident.lasted.clock, Clock::Wall);
    let expected = 2_100 + 180 + 20_000 + 500 + 600 + 240_000 + 9_000 + 4_000 + 2_000 + 3_000;
    assert_eq!(incident.lasted.duration, Duration::from_millis(expected));
    assert_eq!(incident.gaps.iter().map(|g| g.kind).collect::<Vec<_>>(), [GapKind::HostRebooted]);
    assert!(incident.lasted.to_string().contains("wall clock"));
}

#[test]
fn a_guard_that_was_killed_leaves_a_gap() {
    let incident = only(&stories::guard_killed());
    let gap = &incident.gaps[0];
    assert_eq!((gap.kind, gap.lasted.duration), (GapKind::GuardDied, Duration::from_secs(42)));
    assert_eq!(incident.gaps.len(), 1);
}

#[test]
fn an_orderly_stop_is_a_gap_and_no_death() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b").down(DownReason::NotListening, "");
    s.push(model::EventKind::GuardStopped { reason: "SIGTERM".into() }).wait_ms(9_000).guard(Mode::Act, "b").up();
    assert_eq!(only(&s).gaps.iter().map(|g| g.kind).collect::<Vec<_>>(), [GapKind::GuardStopped]);
}

#[test]
fn a_silent_guard_is_a_gap() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b").down(DownReason::NotListening, "").wait_ms(7_000);
    let (silence, by) = (Duration::from_secs(6), model::event::SilentBy::Starved);
    s.push(model::EventKind::GuardWasSilent { silence, cause: "starved".into(), by }).up();
    let incident = only(&s);
    assert_eq!(incident.gaps[0].kind, GapKind::GuardSilent);
    assert_eq!(incident.gaps[0].lasted.duration, Duration::from_secs(6));
}

#[test]
fn an_open_incident_is_open() {
    let incident = only(&stories::still_open());
    assert!(incident.is_open());
    assert_eq!(incident.end, None);
    assert_eq!(incident.lasted.duration, Duration::from_millis(4_500 + 3_000 + 61_000));
}

#[test]
fn the_next_episode_ends_one_whose_end_was_not_seen() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b").alert(rule::CPU_SATURATED, Severity::Warning, 0, "busy", &[]).wait_ms(60_000);
    s.guard(Mode::Act, "b").alert(rule::CPU_SATURATED, Severity::Warning, 0, "busy", &[]);
    let model::EventKind::Alerted { alert } = &mut s.events.last_mut().unwrap().kind else { panic!("an alert") };
    alert.key = model::AlertKey("main/cpu-saturated/2".into());
    let resolved = model::Alert { state: model::AlertState::Resolved, ..alert.clone() };
    s.wait_ms(5_000).push(model::EventKind::Alerted { alert: resolved });
    let incident = only(&s);
    assert!(!incident.is_open());
    assert_eq!(incident.conditions.iter().map(|c| c.end_unseen).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn detection_and_delivery_are_measured_from_the_first_sign() {
    let detection = only(&stories::storm_guarded()).detection;
    assert_eq!(detection.first.unwrap().time_to_detect.duration, Duration::from_millis(2_100));
    let delivered = detection.delivered.unwrap();
    assert_eq!(delivered.latency, Duration::from_millis(180));
    assert_eq!(delivered.time_to_deliver.duration, Duration::from_millis(2_280));
    assert_eq!(detection.undelivered, []);
}

#[test]
fn a_delivery_that_gave_up_is_no_delivery() {
    let detection = only(&stories::server_crash()).detection;
    assert_eq!(detection.delivered, None);
    assert_eq!(detection.undelivered.len(), 1);
    assert!(detection.undelivered[0].gave_up.is_some());
}

#[test]
fn what_belongs_to_an_incident_follows_it_past_its_end() {
    let incident = only(&stories::storm_guarded());
    assert!(incident.vacuums[0].gone.unwrap().0 > incident.end.unwrap());
    assert!(incident.throttles[0].released.as_ref().unwrap().at > incident.end.unwrap());
}

#[test]
fn a_service_that_is_down_twice_is_counted_twice() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b");
    for ms in [3_000, 4_000] {
        s.service("site", Health::Unhealthy, "").wait_ms(ms).service("site", Health::Healthy, "").wait_ms(10_000);
    }
    let incident = only(&s);
    assert_eq!(incident.services[0].outages.len(), 2);
    assert_eq!(incident.services[0].downtime.duration, Duration::from_secs(7));
}

/// Lines of a report that people can still read through, its table of events aside.
const READABLE_LINES: usize = 400;

#[test]
fn a_long_incident_has_a_report_that_can_be_read() {
    let story = stories::endless();
    let incident = only(&story);
    let markdown = checks::check(&incident, &story.events).unwrap();
    let lines = markdown.lines().take_while(|l| *l != "## Cited events").count();
    assert!(lines < READABLE_LINES, "{lines} lines");
    assert!(markdown.len() < 200_000, "{} bytes", markdown.len());
}

#[test]
fn the_same_key_after_its_resolve_is_a_new_episode() {
    let mut s = Story::new();
    s.guard(Mode::Act, "b")
        .alert(rule::MEMORY_LOW, Severity::Warning, 0, "low", &[])
        .wait_ms(9_000)
        .resolve(rule::MEMORY_LOW);
    s.wait_ms(3_600_000).alert(rule::MEMORY_LOW, Severity::Warning, 0, "low", &[]);
    assert_eq!(found(&s).iter().map(Incident::is_open).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn json_has_a_version_and_what_lists_show() {
    let list = IncidentList::from(found(&stories::storm_guarded()));
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json["schema_version"], SCHEMA_VERSION);
    let incident = &json["incidents"][0];
    assert_eq!(incident["id"], "I-7");
    assert_eq!(incident["severity"], "critical");
    assert_eq!(incident["title"]["cites"], serde_json::json!([7]));
    assert_eq!(incident["start"]["wall"], "2026-03-01T02:05:00.54Z");
    assert_eq!(incident["conditions"][1]["kind"], "service_unhealthy");
    assert_eq!(incident["throttles"][0]["released"]["reason"], "pressure_over");
}

#[test]
fn a_name_that_is_none_is_refused_with_a_hint() {
    for text in ["", "I-", "17", "I-+1", "I-x", "E17"] {
        let refused = text.parse::<IncidentId>().unwrap_err().to_string();
        assert!(refused.contains("oxpecker incident list"), "{refused}");
    }
    assert_eq!("i-17".parse(), Ok(IncidentId(EventId(17))));
}
