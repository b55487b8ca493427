//! A team's own rules, beside ours.

use alerting::OwnRule;

use super::*;

fn queue() -> OwnRule {
    OwnRule {
        name: "queue-long".into(),
        when: "run_queue > 20 and sessions_active >= 3".into(),
        clear_when: Some("run_queue < 10".into()),
        lasting: Duration::from_secs(2),
        clear: Duration::from_secs(5),
        severity: Severity::Warning,
        summary: "{{ run_queue }} tasks and {{ sessions_active }} sessions on {{ host }} of {{ cluster }}".into(),
        next_steps: ["ask the web team", "see the queue", "add a worker"].map(Into::into).to_vec(),
        labels: [("team".to_owned(), "web".to_owned())].into(),
    }
}

fn own(rule: OwnRule) -> Rules {
    let mut rules = rules();
    rules.add_own(vec![rule]).unwrap();
    rules
}

fn queued(ms: u64, run_queue: u32) -> Observation {
    of_host(HostReading { run_queue, ..host(ms) })
}

fn active(ms: u64, sessions: u32) -> Observation {
    let connections = Connections { by_state: [("active".to_owned(), sessions)].into(), ..activity(ms).connections };
    Observation::Reading(Reading::Activity(ActivityReading { connections, ..activity(ms) }))
}

#[test]
fn it_fires_and_ends_as_declared() {
    let mut rules = own(queue());
    assert!(observe(&mut rules, [active(500, 4), queued(1_000, 30), queued(2_000, 30)]).is_empty());
    let fired = observe(&mut rules, [active(2_500, 4), queued(3_000, 31)]);
    assert_eq!(names(&fired), ["queue-long fires warning"]);
    check_shape(&fired[0]);
    assert_eq!(fired[0].summary, "31 tasks and 4 sessions on db1 of main");
    assert_eq!(fired[0].labels["team"], "web");
    assert_eq!(fired[0].labels["rule"], "queue-long");
    assert_eq!(fired[0].next_steps[0], "ask the web team");
    assert!(fired[0].details.iter().any(|line| line.starts_with("run_queue = 31")), "{:?}", fired[0].details);

    // Between the two thresholds nothing ends.
    assert!(observe(&mut rules, (4..20).map(|s| queued(s * 1_000, 15))).is_empty());
    let fresh = (20..26).flat_map(|s| [active(s * 1_000 - 500, 4), queued(s * 1_000, 5)]);
    let ended = observe(&mut rules, fresh);
    assert_eq!(names(&ended), ["queue-long resolves warning"]);
    assert_eq!(ended[0].key, fired[0].key);
}

#[test]
fn of_what_is_not_known_it_says_nothing() {
    let mut rules = own(queue());
    // Sessions were never seen; then they were, and long ago.
    assert!(observe(&mut rules, (0..60).map(|s| queued(s * 1_000, 30))).is_empty());
    assert!(observe(&mut rules, [active(60_000, 9)]).is_empty());
    assert!(observe(&mut rules, (90..150).map(|s| queued(s * 1_000, 30))).is_empty());
    // While it is open and nothing is known, it stays open.
    let fired = observe(&mut rules, (150..155).flat_map(|s| [active(s * 1_000 - 500, 9), queued(s * 1_000, 30)]));
    assert_eq!(names(&fired), ["queue-long fires warning"]);
    assert!(observe(&mut rules, (200..300).map(|s| queued(s * 1_000, 1))).is_empty());
    assert_eq!(rules.open().count(), 1);
}

#[test]
fn the_next_guard_goes_on_with_its_episode() {
    let mut first = own(queue());
    let fired = observe(&mut first, (1..5).flat_map(|s| [active(s * 1_000 - 500, 9), queued(s * 1_000, 30)]));
    let mut second = own(queue());
    assert!(second.resume(fired.clone(), at(6_000)).is_empty());
    let ended = observe(&mut second, (7..14).flat_map(|s| [active(s * 1_000 - 500, 9), queued(s * 1_000, 1)]));
    assert_eq!(names(&ended), ["queue-long resolves warning"]);
    assert_eq!(ended[0].key, fired[0].key);
    // One whose rule was taken out of the configuration is resolved.
    assert_eq!(names(&rules().resume(fired, at(6_000))), ["queue-long resolves warning"]);
}

#[test]
fn services_that_fail_are_counted() {
    let rule = OwnRule {
        when: "services_unhealthy >= 2".into(),
        clear_when: None,
        summary: "{{ services_unhealthy }}".into(),
        lasting: Duration::ZERO,
        ..queue()
    };
    let mut rules = own(rule);
    let service = |ms, name: &str, health| {
        let detail = None;
        let took = Duration::ZERO;
        Observation::Reading(Reading::Service(ServiceReading {
            at: at(ms),
            service: name.into(),
            health,
            took,
            detail,
            stopped_by: None,
        }))
    };
    let (well, ill) = (Health::Healthy, Health::Unhealthy);
    assert!(observe(&mut rules, [service(1, "a", ill), service(2, "a", ill), service(3, "b", well)]).is_empty());
    let fired = observe(&mut rules, [service(4, "b", ill)]);
    assert_eq!(fired[0].summary, "2");
}

#[test]
fn one_that_cannot_work_is_told_and_the_others_watch() {
    let bad = OwnRule { name: "bad".into(), when: "nosuch > 1".into(), ..queue() };
    let mut rules = rules();
    let (name, error) = rules.add_own(vec![bad, queue()]).unwrap_err();
    assert_eq!((name.as_str(), error.line, error.column), ("bad", 1, 1));
    let fired = observe(&mut rules, (1..5).flat_map(|s| [active(s * 1_000 - 500, 9), queued(s * 1_000, 30)]));
    assert_eq!(names(&fired), ["queue-long fires warning"]);
}
