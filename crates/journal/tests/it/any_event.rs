//! Any event of any kind.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::{
    Alert, AlertKey, AlertState, ByteSize, Cores, DatabaseName, EventKind, Lsn, Mode, Moment, Oid, PgVersion, Pid,
    ProcessId, RuleId, ServiceName, Severity, Share, TableName,
    event::{
        BackupTask, Confidence, CostSetting, Death, DeathCause, Died, DownReason, Hypothesis, Lever, RecoveryFigures,
        ReleaseReason, ReliefOutcome, RelievedSession, ServiceWindow, SheddingStep, SilentBy,
    },
    reading::{Health, VacuumKind},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Text as it comes: of any script, with quotes, control characters and line ends.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,20}", any::<String>()]
}

pub fn moment() -> impl Strategy<Value = Moment> {
    // Within jiff's range, and on the boot clock within what SQLite's integers hold.
    (-377_705_023_201_000_000_i64..=253_402_207_200_000_000, 0..=i64::MAX as u64)
        .prop_map(|(us, boot_us)| Moment { wall: Timestamp::from_microsecond(us).unwrap(), boot_us })
}

pub fn timestamp() -> impl Strategy<Value = Timestamp> {
    moment().prop_map(|moment| moment.wall)
}

pub fn number() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..1.0, proptest::num::f64::NORMAL | proptest::num::f64::ZERO]
}

pub fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

pub fn process() -> impl Strategy<Value = ProcessId> {
    (any::<i32>(), any::<u64>()).prop_map(|(pid, start_ticks)| ProcessId { pid: Pid(pid), start_ticks })
}

pub fn vacuum_kind() -> impl Strategy<Value = VacuumKind> {
    use VacuumKind::{AntiWraparound, Autoanalyze, Autovacuum, Manual};
    select(vec![Autovacuum, Autoanalyze, AntiWraparound, Manual])
}

pub fn health() -> impl Strategy<Value = Health> {
    select(vec![Health::Healthy, Health::Unhealthy])
}

pub fn table() -> impl Strategy<Value = Option<TableName>> {
    option::of(text().prop_map(TableName))
}

fn setting() -> impl Strategy<Value = CostSetting> {
    (any::<u32>(), number()).prop_map(|(limit, delay_ms)| CostSetting { limit, delay_ms })
}

fn lever() -> impl Strategy<Value = Lever> {
    select(vec![Lever::WorkerSignal, Lever::LauncherSignal, Lever::FullReload, Lever::AlterSystem])
}

fn alert_state() -> impl Strategy<Value = AlertState> {
    select(vec![AlertState::Firing, AlertState::Resolved])
}

fn database() -> impl Strategy<Value = DatabaseName> {
    text().prop_map(DatabaseName)
}

fn service() -> impl Strategy<Value = ServiceName> {
    text().prop_map(ServiceName)
}

fn death() -> impl Strategy<Value = Death> {
    use DeathCause::{Crash, Killed, OutOfMemory, PowerOrReset, Stopped, Watchdog};
    let cause = || select(vec![Crash, Killed, OutOfMemory, PowerOrReset, Stopped, Watchdog, DeathCause::KernelCrash]);
    let confidence = select(vec![Confidence::Excluded, Confidence::Possible, Confidence::Likely, Confidence::Proven]);
    let hypothesis = (cause(), confidence, texts(), texts(), texts()).prop_map(
        |(cause, confidence, speaks_for, speaks_against, missing)| Hypothesis {
            cause,
            confidence,
            speaks_for,
            speaks_against,
            missing,
        },
    );
    let of = select(vec![Died::Host, Died::Server]);
    (of, option::of(timestamp()), option::of(timestamp()), option::of(cause()), vec(hypothesis, 0..3), texts())
        .prop_map(|(of, after, before, established, hypotheses, notes)| Death {
            of,
            after,
            before,
            established,
            hypotheses,
            notes,
        })
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn alert() -> impl Strategy<Value = Alert> {
    let severity = select(vec![Severity::Info, Severity::Warning, Severity::Critical]);
    let head = (text(), text(), severity, alert_state(), moment(), moment());
    (head, text(), texts(), texts(), labels()).prop_map(
        |((key, rule, severity, state, since, decided), summary, details, next_steps, labels)| Alert {
            key: AlertKey(key),
            rule: RuleId(rule),
            severity,
            state,
            since,
            decided,
            summary,
            details,
            next_steps,
            labels,
        },
    )
}

/// One strategy for each kind. `round_trip` checks that none is missing.
pub fn each_kind() -> Vec<BoxedStrategy<EventKind>> {
    let workers = || vec(process(), 0..4);
    let tables = || vec(table(), 0..4);
    let down = select(vec![
        DownReason::NotListening,
        DownReason::Recovering,
        DownReason::ShuttingDown,
        DownReason::OutOfConnections,
        DownReason::Refused,
        DownReason::NoAnswer,
        DownReason::ConnectionLost,
        DownReason::UnsupportedVersion,
    ]);
    let release = select(vec![
        ReleaseReason::PressureOver,
        ReleaseReason::NotHelping,
        ReleaseReason::WorkersGone,
        ReleaseReason::TimeBound,
        ReleaseReason::HotTableWaiting,
        ReleaseReason::WraparoundNear,
        ReleaseReason::ReadingsLost,
        ReleaseReason::GuardStopping,
        ReleaseReason::LeftBehind,
    ]);
    let mode = select(vec![Mode::Observe, Mode::Advise, Mode::Act]);
    let window = (duration(), any::<u64>(), any::<u64>(), duration())
        .prop_map(|(window, succeeded, failed, slowest)| ServiceWindow { window, succeeded, failed, slowest });
    let key = || text().prop_map(AlertKey);
    let optional_oid = option::of(any::<u32>().prop_map(Oid));
    vec![
        (text(), any::<i32>(), text(), text(), mode, texts())
            .prop_map(|(version, pid, boot_id, cluster, mode, limitations)| EventKind::GuardStarted {
                version,
                pid: Pid(pid),
                boot_id,
                cluster,
                mode,
                limitations,
            })
            .boxed(),
        text().prop_map(|reason| EventKind::GuardStopped { reason }).boxed(),
        {
            use SilentBy::{Killed, Rebooted, Starved, Stopped, Suspended, Unknown};
            let by = select(vec![Stopped, Killed, Rebooted, Suspended, Starved, Unknown]);
            (duration(), text(), by)
                .prop_map(|(silence, cause, by)| EventKind::GuardWasSilent { silence, cause, by })
                .boxed()
        },
        (text(), duration(), any::<bool>())
            .prop_map(|(peer, silence, heard)| EventKind::PeerWatched { peer, silence, heard })
            .boxed(),
        any::<i64>().prop_map(|by_ms| EventKind::ClockStepped { by_ms }).boxed(),
        text().prop_map(|boot_id| EventKind::HostRebooted { boot_id }).boxed(),
        death().prop_map(|death| EventKind::DeathExplained { death }).boxed(),
        (any::<u32>(), timestamp(), any::<bool>())
            .prop_map(|(version, started, in_recovery)| EventKind::ServerUp {
                version: PgVersion(version),
                started,
                in_recovery,
            })
            .boxed(),
        (down, text()).prop_map(|(reason, detail)| EventKind::ServerDown { reason, detail }).boxed(),
        (setting(), labels()).prop_map(|(resting, others)| EventKind::SettingsSeen { resting, others }).boxed(),
        (process(), vacuum_kind(), database(), table(), optional_oid)
            .prop_map(|(process, kind, database, table, relation)| EventKind::VacuumSeen {
                process,
                kind,
                database,
                table,
                relation,
            })
            .boxed(),
        (process(), database(), table(), duration(), duration())
            .prop_map(|(process, database, table, seen_for, cpu_time)| EventKind::VacuumGone {
                process,
                database,
                table,
                seen_for,
                cpu_time,
            })
            .boxed(),
        alert().prop_map(|alert| EventKind::Alerted { alert }).boxed(),
        (key(), alert_state(), text(), any::<u32>(), duration())
            .prop_map(|(key, state, route, attempt, latency)| EventKind::AlertDelivered {
                key,
                state,
                route,
                attempt,
                latency,
            })
            .boxed(),
        (text(), text(), text(), any::<u32>())
            .prop_map(|(service, from, to, untold)| EventKind::ServiceStateChanged {
                service: service.as_str().into(),
                from,
                to,
                untold,
            })
            .boxed(),
        (vec(text(), 0..4), vec(text(), 0..4), option::of(duration()))
            .prop_map(|(down, order, expected)| EventKind::RecoveryBegan {
                down: down.iter().map(|name| name.as_str().into()).collect(),
                order: order.iter().map(|name| name.as_str().into()).collect(),
                expected,
                mode: Mode::Act,
            })
            .boxed(),
        (text(), text(), text(), any::<u32>())
            .prop_map(|(service, action, reason, attempt)| EventKind::RecoveryActBegan {
                service: service.as_str().into(),
                action,
                reason,
                attempt,
            })
            .boxed(),
        (text(), text(), duration(), option::of(text()))
            .prop_map(|(service, action, took, failure)| EventKind::RecoveryActEnded {
                service: service.as_str().into(),
                action,
                took,
                failure,
            })
            .boxed(),
        vec(text(), 0..4).prop_map(|reasons| EventKind::RecoveryEscalated { reasons }).boxed(),
        (text(), vec(text(), 0..4)).prop_map(|(plan, what)| EventKind::RecoveryApprovalWanted { plan, what }).boxed(),
        (any::<u32>(), option::of((duration(), any::<u32>(), any::<u32>())))
            .prop_map(|(services, recovery)| EventKind::ServicesStable {
                services,
                recovery: recovery.map(|(took, acts, failed)| RecoveryFigures { took, acts, failed }),
            })
            .boxed(),
        (
            select(vec![SheddingStep::Taken, SheddingStep::Proposed, SheddingStep::Blocked, SheddingStep::Held]),
            option::of(text()),
            text(),
            option::of(text()),
            vec(text(), 0..3),
        )
            .prop_map(|(step, rung, why, cause, notes)| EventKind::SheddingStepped {
                step,
                mode: Mode::Act,
                act: rung.clone(),
                passed: notes.clone(),
                held: notes.clone(),
                rung,
                why,
                cause,
                notes,
            })
            .boxed(),
        (text(), any::<bool>(), duration(), option::of(text()))
            .prop_map(|(role, in_transaction, idle, failure)| EventKind::SessionRelieved {
                session: Box::new(RelievedSession {
                    pid: Pid(7),
                    database: role.clone(),
                    client: role.clone(),
                    application: role.clone(),
                    cause: role.clone(),
                    role,
                    in_transaction,
                    idle,
                    outcome: failure.map_or(ReliefOutcome::Proposed, ReliefOutcome::Failed),
                }),
            })
            .boxed(),
        (key(), text(), text(), timestamp())
            .prop_map(|(key, silence, by, until)| EventKind::AlertSilenced { key, silence, by, until })
            .boxed(),
        (key(), text()).prop_map(|(key, by)| EventKind::AlertAcknowledged { key, by }).boxed(),
        (key(), text(), any::<u32>(), text(), any::<bool>())
            .prop_map(|(key, route, attempt, error, gave_up)| EventKind::AlertFailed {
                key,
                route,
                attempt,
                error,
                gave_up,
            })
            .boxed(),
        (workers(), tables(), setting(), text(), text())
            .prop_map(|(workers, tables, setting, reason, command)| EventKind::ThrottleProposed {
                workers,
                tables,
                setting,
                reason,
                command,
            })
            .boxed(),
        (workers(), tables(), lever(), setting(), text())
            .prop_map(|(workers, tables, lever, setting, reason)| EventKind::ThrottleEngaged {
                workers,
                tables,
                lever,
                setting,
                reason,
            })
            .boxed(),
        (workers(), setting(), text())
            .prop_map(|(workers, setting, reason)| EventKind::ThrottleAdjusted { workers, setting, reason })
            .boxed(),
        (number(), number(), number(), number(), any::<bool>())
            .prop_map(|(before, after, busy_before, busy_after, obeyed)| EventKind::ThrottleVerified {
                cpu_before: Cores(before),
                cpu_after: Cores(after),
                busy_before: Share(busy_before),
                busy_after: Share(busy_after),
                obeyed,
            })
            .boxed(),
        (release, duration(), text())
            .prop_map(|(reason, held, detail)| EventKind::ThrottleReleased { reason, held, detail })
            .boxed(),
        (option::of(lever()), text()).prop_map(|(lever, reason)| EventKind::LeverUnavailable { lever, reason }).boxed(),
        (setting(), setting(), text())
            .prop_map(|(from, to, reason)| EventKind::RestingSettingChanged { from, to, reason })
            .boxed(),
        (service(), vec(service(), 0..4), texts())
            .prop_map(|(service, depends_on, impact)| EventKind::ServiceDeclared { service, depends_on, impact })
            .boxed(),
        (service(), health(), text(), texts())
            .prop_map(|(service, health, detail, impact)| EventKind::ServiceChanged { service, health, detail, impact })
            .boxed(),
        (service(), window).prop_map(|(service, answers)| EventKind::ServiceMeasured { service, answers }).boxed(),
        (text(), option::of(text()), option::of(duration()))
            .prop_map(|(repository, schedule, max_age)| EventKind::RepositoryDeclared { repository, schedule, max_age })
            .boxed(),
        (select(vec![BackupTask::Create, BackupTask::Prove]), text())
            .prop_map(|(task, reason)| EventKind::BackupStarted { task, reason })
            .boxed(),
        (text(), any::<u64>(), any::<u64>(), option::of(duration()))
            .prop_map(|(stage, done, total, remaining)| EventKind::BackupProgressed {
                stage,
                done: ByteSize(done),
                total: ByteSize(total),
                remaining,
            })
            .boxed(),
        (text(), timestamp(), any::<u64>(), duration(), any::<[u64; 3]>())
            .prop_map(|(backup, consistent_at, lsn, took, [size, stored, corrupt_pages])| EventKind::BackupFinished {
                backup,
                consistent_at,
                stop_lsn: Lsn(lsn),
                took,
                size: ByteSize(size),
                stored: ByteSize(stored),
                corrupt_pages,
            })
            .boxed(),
        (text(), any::<u32>(), option::of(timestamp()))
            .prop_map(|(error, failures, retry_at)| EventKind::BackupFailed { error, failures, retry_at })
            .boxed(),
        (text(), timestamp(), duration(), option::of(duration()), option::of(duration()))
            .prop_map(|(backup, consistent_at, took, recovery_time, found_age)| EventKind::ProofFinished {
                backup,
                consistent_at,
                took,
                recovery_time,
                found_age,
            })
            .boxed(),
        (option::of(text()), any::<bool>(), texts(), any::<u32>(), option::of(timestamp()))
            .prop_map(|(backup, damaged, reasons, failures, retry_at)| EventKind::ProofFailed {
                backup,
                damaged,
                reasons,
                failures,
                retry_at,
            })
            .boxed(),
        (any::<u64>(), texts(), any::<u64>())
            .prop_map(|(kept, expired, freed)| EventKind::RetentionApplied { kept, expired, freed: ByteSize(freed) })
            .boxed(),
        (text(), text()).prop_map(|(repository, problem)| EventKind::RepositoryProblem { repository, problem }).boxed(),
        (any::<u32>(), any::<u64>(), option::of(text()), option::of(any::<u64>()))
            .prop_map(|(timeline, from, slot, limit)| EventKind::WalReceiving {
                timeline,
                from: Lsn(from),
                slot,
                slot_limit: limit.map(ByteSize),
            })
            .boxed(),
        (text(), duration()).prop_map(|(error, behind)| EventKind::WalInterrupted { error, behind }).boxed(),
        (any::<u32>(), any::<u32>(), any::<u64>())
            .prop_map(|(from, to, switch)| EventKind::WalTimelineChanged { from, to, switch: Lsn(switch) })
            .boxed(),
        (any::<u32>(), any::<u64>(), any::<u64>())
            .prop_map(|(timeline, from, to)| EventKind::WalMissing { timeline, from: Lsn(from), to: Lsn(to) })
            .boxed(),
        (text(), text()).prop_map(|(slot, why)| EventKind::WalSlotLost { slot, why }).boxed(),
        text().prop_map(|error| EventKind::WalStoreFailing { error }).boxed(),
        duration().prop_map(|after| EventKind::WalStoreBack { after }).boxed(),
        (text(), any::<u64>()).prop_map(|(error, lost)| EventKind::RecordingFailed { error, lost }).boxed(),
        (any::<u64>(), any::<u64>())
            .prop_map(|(events, size)| EventKind::HistoryCut { events, max_size: ByteSize(size) })
            .boxed(),
        (text(), text()).prop_map(|(author, text)| EventKind::Noted { author, text }).boxed(),
    ]
}
