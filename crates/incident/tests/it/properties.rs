//! What holds for any events, in any order, however absurd.

use std::{collections::BTreeMap, time::Duration};

use incident::{IncidentRules, Span, incidents, report};
use jiff::Timestamp;
use model::{
    Alert, AlertKey, AlertState, ByteSize, Cores, Event, EventId, EventKind, Lsn, Mode, Moment, PgVersion, Pid,
    ServiceName, Severity, Share, TableName,
    alert::rule,
    event::{BackupTask, DownReason, Lever, ReleaseReason, ServiceWindow},
    reading::{Health, VacuumKind},
};
use proptest::prelude::*;

use crate::{
    checks, stories,
    story::{cost, worker},
};

fn moment() -> impl Strategy<Value = Moment> {
    let wall = prop_oneof![4 => 1_772_330_400_i64..1_772_340_400, 1 => -377_705_023_201_i64..253_402_207_200];
    let boot = prop_oneof![4 => 0_u64..10_000_000_000, 1 => any::<u64>()];
    (wall, boot).prop_map(|(wall, boot_us)| Moment { wall: Timestamp::from_second(wall).unwrap(), boot_us })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z ]{0,20}", 1 => "(?s).{0,60}", 1 => "(\\[E[0-9]{1,3}\\]|`|\\||\n- |\n## |\\\\){0,6}"]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[ab]", 1 => text()]
}

fn service() -> impl Strategy<Value = ServiceName> {
    name().prop_map(ServiceName::from)
}

fn table() -> impl Strategy<Value = Option<TableName>> {
    proptest::option::of(name().prop_map(TableName::from))
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![4 => (0_u64..1_000_000).prop_map(Duration::from_millis), 1 => Just(Duration::MAX)]
}

fn alert() -> impl Strategy<Value = Alert> {
    let rule = prop_oneof![
        Just("vacuum-starves-host"),
        Just("cpu-saturated"),
        Just("memory-low"),
        Just("connections-near-limit"),
        Just("other")
    ];
    let severity = prop_oneof![Just(Severity::Info), Just(Severity::Warning), Just(Severity::Critical)];
    let state = prop_oneof![2 => Just(AlertState::Firing), 1 => Just(AlertState::Resolved)];
    let labels =
        proptest::collection::btree_map(prop_oneof![Just("cluster"), Just("table"), Just("pid")], name(), 0..3);
    (rule, severity, state, moment(), moment(), text(), name(), labels).prop_map(
        |(rule, severity, state, since, decided, summary, key, labels)| Alert {
            key: AlertKey(key),
            rule: rule.into(),
            severity,
            state,
            since,
            decided,
            summary: summary.clone(),
            details: vec![summary],
            next_steps: vec![],
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<BTreeMap<_, _>>(),
        },
    )
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![4 => 0.0..1.0_f64, 1 => Just(f64::NAN), 1 => Just(f64::MAX), 1 => Just(-1.0)]
}

fn down_reason() -> impl Strategy<Value = DownReason> {
    prop_oneof![
        Just(DownReason::NotListening),
        Just(DownReason::Recovering),
        Just(DownReason::ShuttingDown),
        Just(DownReason::OutOfConnections),
        Just(DownReason::NoAnswer)
    ]
}

fn release_reason() -> impl Strategy<Value = ReleaseReason> {
    prop_oneof![Just(ReleaseReason::PressureOver), Just(ReleaseReason::NotHelping), Just(ReleaseReason::LeftBehind)]
}

fn boot_id() -> impl Strategy<Value = String> {
    "[xy]"
}

fn when() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(moment().prop_map(|moment| moment.wall))
}

/// What is told of backups and their repository: all that a report must not lose, and how far a run has come.
pub fn of_backups() -> impl Strategy<Value = EventKind> {
    let bytes = || any::<u64>().prop_map(ByteSize);
    let task = prop_oneof![Just(BackupTask::Create), Just(BackupTask::Prove)];
    let rule = prop_oneof![Just(rule::BACKUP_FAILING), Just(rule::BACKUP_UNPROVEN), Just(rule::REPOSITORY_UNPROTECTED)];
    let reasons = proptest::collection::vec(text(), 0..3);
    let expired = proptest::collection::vec(text(), 0..3);
    prop_oneof![
        (text(), proptest::option::of(text()), proptest::option::of(duration())).prop_map(
            |(repository, schedule, max_age)| EventKind::RepositoryDeclared { repository, schedule, max_age }
        ),
        (task, text()).prop_map(|(task, reason)| EventKind::BackupStarted { task, reason }),
        (text(), bytes(), bytes(), proptest::option::of(duration())).prop_map(|(stage, done, total, remaining)| {
            EventKind::BackupProgressed { stage, done, total, remaining }
        }),
        (name(), moment(), any::<u64>(), duration(), bytes(), bytes(), any::<u64>()).prop_map(
            |(backup, at, lsn, took, size, stored, corrupt_pages)| EventKind::BackupFinished {
                backup,
                consistent_at: at.wall,
                stop_lsn: Lsn(lsn),
                took,
                size,
                stored,
                corrupt_pages
            }
        ),
        (text(), any::<u32>(), when()).prop_map(|(error, failures, retry_at)| EventKind::BackupFailed {
            error,
            failures,
            retry_at
        }),
        (name(), moment(), duration(), proptest::option::of(duration()), proptest::option::of(duration())).prop_map(
            |(backup, at, took, recovery_time, found_age)| EventKind::ProofFinished {
                backup,
                consistent_at: at.wall,
                took,
                recovery_time,
                found_age
            }
        ),
        (proptest::option::of(name()), any::<bool>(), reasons, any::<u32>(), when()).prop_map(
            |(backup, damaged, reasons, failures, retry_at)| EventKind::ProofFailed {
                backup,
                damaged,
                reasons,
                failures,
                retry_at
            }
        ),
        (any::<u64>(), expired, bytes()).prop_map(|(kept, expired, freed)| EventKind::RetentionApplied {
            kept,
            expired,
            freed
        }),
        (text(), text()).prop_map(|(repository, problem)| EventKind::RepositoryProblem { repository, problem }),
        (rule, alert()).prop_map(|(rule, alert)| EventKind::Alerted { alert: Alert { rule: rule.into(), ..alert } }),
    ]
}

fn kind() -> impl Strategy<Value = EventKind> {
    let health = || prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy)];
    let vacuum = prop_oneof![Just(VacuumKind::Autovacuum), Just(VacuumKind::AntiWraparound), Just(VacuumKind::Manual)];
    let mode = prop_oneof![Just(Mode::Observe), Just(Mode::Act)];
    let lost = || proptest::collection::vec(text(), 0..3);
    prop_oneof![
        (boot_id(), name(), mode, lost()).prop_map(|(boot_id, cluster, mode, limitations)| EventKind::GuardStarted {
            version: "1".into(),
            pid: Pid(1),
            boot_id,
            cluster,
            mode,
            limitations
        }),
        text().prop_map(|reason| EventKind::GuardStopped { reason }),
        (duration(), text()).prop_map(|(silence, cause)| EventKind::GuardWasSilent {
            silence,
            cause,
            by: model::event::SilentBy::Unknown
        }),
        (text(), duration(), any::<bool>()).prop_map(|(peer, silence, heard)| EventKind::PeerWatched {
            peer,
            silence,
            heard
        }),
        any::<i64>().prop_map(|by_ms| EventKind::ClockStepped { by_ms }),
        boot_id().prop_map(|boot_id| EventKind::HostRebooted { boot_id }),
        moment().prop_map(|m| EventKind::ServerUp { version: PgVersion(150_001), started: m.wall, in_recovery: true }),
        (down_reason(), text()).prop_map(|(reason, detail)| EventKind::ServerDown { reason, detail }),
        (any::<u32>(), number())
            .prop_map(|(l, d)| EventKind::SettingsSeen { resting: cost(l, d), others: BTreeMap::new() }),
        (0_i32..3, vacuum, name(), table()).prop_map(|(pid, kind, database, table)| EventKind::VacuumSeen {
            process: worker(pid),
            kind,
            database: database.into(),
            table,
            relation: None
        }),
        (0_i32..3, name(), table(), duration(), duration()).prop_map(|(pid, database, table, seen_for, cpu_time)| {
            EventKind::VacuumGone { process: worker(pid), database: database.into(), table, seen_for, cpu_time }
        }),
        alert().prop_map(|alert| EventKind::Alerted { alert }),
        alert().prop_map(|alert| EventKind::Alerted { alert }),
        (name(), text(), duration()).prop_map(|(key, route, latency)| EventKind::AlertDelivered {
            key: AlertKey(key),
            state: AlertState::Firing,
            route,
            attempt: 1,
            latency
        }),
        (name(), text(), text(), any::<bool>()).prop_map(|(key, route, error, gave_up)| EventKind::AlertFailed {
            key: AlertKey(key),
            route,
            attempt: 1,
            error,
            gave_up
        }),
        (0_i32..3, table(), text()).prop_map(|(pid, table, reason)| EventKind::ThrottleProposed {
            workers: vec![worker(pid)],
            tables: vec![table],
            setting: cost(1, 1.0),
            command: reason.clone(),
            reason
        }),
        (0_i32..3, table(), text()).prop_map(|(pid, table, reason)| EventKind::ThrottleEngaged {
            workers: vec![worker(pid)],
            tables: vec![table],
            lever: Lever::FullReload,
            setting: cost(1, 1.0),
            reason
        }),
        text().prop_map(|reason| EventKind::ThrottleAdjusted { workers: vec![], setting: cost(2, 1.0), reason }),
        (number(), number(), number(), number(), any::<bool>()).prop_map(|(a, b, c, d, obeyed)| {
            EventKind::ThrottleVerified {
                cpu_before: Cores(a),
                cpu_after: Cores(b),
                busy_before: Share(c),
                busy_after: Share(d),
                obeyed,
            }
        }),
        (release_reason(), duration(), text()).prop_map(|(reason, held, detail)| EventKind::ThrottleReleased {
            reason,
            held,
            detail
        }),
        text().prop_map(|reason| EventKind::LeverUnavailable { lever: None, reason }),
        text().prop_map(|reason| EventKind::RestingSettingChanged { from: cost(1, 1.0), to: cost(2, 0.0), reason }),
        (service(), proptest::collection::vec(service(), 0..3), lost())
            .prop_map(|(service, depends_on, impact)| EventKind::ServiceDeclared { service, depends_on, impact }),
        (service(), health(), text(), lost()).prop_map(|(service, health, detail, impact)| EventKind::ServiceChanged {
            service,
            health,
            detail,
            impact
        }),
        (service(), any::<u64>(), any::<u64>(), duration()).prop_map(|(service, succeeded, failed, slowest)| {
            EventKind::ServiceMeasured {
                service,
                answers: ServiceWindow { window: slowest, succeeded, failed, slowest },
            }
        }),
        (text(), any::<u64>()).prop_map(|(error, lost)| EventKind::RecordingFailed { error, lost }),
        (text(), text()).prop_map(|(author, text)| EventKind::Noted { author, text }),
        of_backups(),
        of_backups(),
        of_backups(),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (-3_i64..120, moment(), kind()).prop_map(|(id, at, kind)| Event { id: EventId(id), at, kind });
    proptest::collection::vec(event, 0..60)
}

/// The rest of the promises, on any events.
fn promises(events: &[Event]) -> Result<(), TestCaseError> {
    let rules = IncidentRules::default();
    let found = incidents(events, &rules);
    for incident in &found {
        let spans: Vec<Span> =
            incident.conditions.iter().map(|c| c.lasted(incident.until())).chain([incident.lasted]).collect();
        prop_assert!(incident.start <= incident.until());
        prop_assert!(spans.iter().all(|s| s.duration <= Duration::MAX));
        prop_assert!(incident.conditions.iter().all(|c| c.since <= c.ended.unwrap_or(c.since)));
        prop_assert_eq!(incident.is_open(), incident.conditions.iter().any(|c| c.ended.is_none()));
        let text = incident.id.to_string();
        prop_assert_eq!(text.parse(), Ok(incident.id));
        if let Err(why) = checks::check(incident, events) {
            return Err(TestCaseError::fail(why));
        }
        let json = serde_json::to_value(report(incident)).unwrap();
        prop_assert_eq!(&json["schema_version"], incident::SCHEMA_VERSION);
    }
    let ids: std::collections::BTreeSet<_> = found.iter().map(|i| i.id).collect();
    prop_assert_eq!(ids.len(), found.len());
    let again: Vec<String> = incidents(events, &rules).iter().map(|i| report(i).to_markdown()).collect();
    let once: Vec<String> = found.iter().map(|i| report(i).to_markdown()).collect();
    prop_assert_eq!(once, again);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_events_give_honest_reports(events in events()) {
        promises(&events)?;
    }

    #[test]
    fn order_and_repetition_of_the_input_do_not_matter(
        which in 0..stories::all().len(),
        order in proptest::collection::vec(any::<u32>(), 200),
        twice in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let (_, story) = stories::all().swap_remove(which);
        let expected = incidents(&story.events, &IncidentRules::default());
        let mut shuffled: Vec<(u32, Event)> = Vec::new();
        for (n, event) in story.events.iter().enumerate() {
            shuffled.push((order[n], event.clone()));
            if twice[n] {
                shuffled.push((order[n + 100], event.clone()));
            }
        }
        shuffled.sort_by_key(|(key, _)| *key);
        let events: Vec<Event> = shuffled.into_iter().map(|(_, e)| e).collect();
        prop_assert_eq!(incidents(&events, &IncidentRules::default()), expected);
    }

    #[test]
    fn the_journal_cut_anywhere_gives_honest_reports(which in 0..stories::all().len(), from in 0_usize..40, to in 0_usize..40) {
        let (_, story) = stories::all().swap_remove(which);
        let to = to.min(story.events.len());
        promises(&story.events[from.min(to)..to])?;
    }

    /// A name stays what it is while the incident goes on.
    #[test]
    fn an_incident_keeps_its_name_as_events_follow(which in 0..stories::all().len(), cut in 1_usize..40) {
        let (_, story) = stories::all().swap_remove(which);
        let whole = incidents(&story.events, &IncidentRules::default());
        let part = incidents(&story.events[..cut.min(story.events.len())], &IncidentRules::default());
        prop_assert!(part.iter().all(|p| whole.iter().any(|w| w.id == p.id)));
    }
}
