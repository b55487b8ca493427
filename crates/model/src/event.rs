//! Events: everything that is worth remembering, as one enum. Incidents, post-mortems and status are views of these.
//!
//! Texts in events are redacted before they get here: query texts without literals, no secrets.

mod death;
mod name;
mod parts;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    death::{Confidence, Death, DeathCause, Died, Hypothesis},
    parts::{
        BackupTask, CostSetting, DownReason, EventId, Lever, RecoveryFigures, ReleaseReason, ReliefOutcome,
        RelievedSession, ServiceWindow, SheddingStep, SilentBy,
    },
};
use crate::{
    Alert, AlertKey, ByteSize, Cores, DatabaseName, Lsn, Mode, Moment, Oid, PgVersion, Pid, ProcessId, ServiceName,
    Share, TableName,
    reading::{Health, VacuumKind},
};

/// One event of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub id: EventId,
    /// When it happened (not: when it was written).
    pub at: Moment,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A guard began.
    GuardStarted {
        /// Its version.
        version: String,
        /// Its pid.
        pid: Pid,
        /// `/proc/sys/kernel/random/boot_id`: tells one boot of the host from the next.
        boot_id: String,
        /// The cluster's name in the configuration.
        cluster: String,
        /// How far it may go.
        mode: Mode,
        /// What is missing and what that costs.
        limitations: Vec<String>,
    },
    /// A guard stopped in an orderly way.
    GuardStopped {
        /// Why: a signal's name, or an error.
        reason: String,
    },
    /// The guard was silent, though the host ran: it was killed, starved or suspended.
    GuardWasSilent {
        /// How long.
        silence: Duration,
        /// Why, as far as it can be told.
        cause: String,
        /// The same in one word; unknown in what guards before this field wrote.
        #[serde(default)]
        by: SilentBy,
    },
    /// What is known of the guard of another host: for the rules, not for the journal.
    PeerWatched {
        /// What it calls itself.
        peer: String,
        /// For how long nothing has been heard of it, or it is listened for.
        silence: Duration,
        /// Whether it was heard at all since then.
        heard: bool,
    },
    /// The wall clock was stepped.
    ClockStepped {
        /// By how many milliseconds; negative backwards.
        by_ms: i64,
    },
    /// The host booted since the event before.
    HostRebooted {
        /// The new boot.
        boot_id: String,
    },
    /// When and why the host's boot before, or PostgreSQL's run before, ended, as far as that could be told afterwards.
    DeathExplained {
        /// All that is known.
        death: Death,
    },

    /// PostgreSQL serves us.
    ServerUp {
        /// Its version.
        version: PgVersion,
        /// When it started, by its own clock.
        started: Timestamp,
        /// Whether it is a standby or in recovery.
        in_recovery: bool,
    },
    /// PostgreSQL does not serve us.
    ServerDown {
        /// Why.
        reason: DownReason,
        /// Its own words.
        detail: String,
    },

    /// The settings that decide how fast maintenance runs: when first seen, and each time one of them changed.
    SettingsSeen {
        /// What an autovacuum worker that starts now runs with.
        resting: CostSetting,
        /// Others that matter to maintenance (`autovacuum_max_workers`, ...), as SHOW prints them.
        others: BTreeMap<String, String>,
    },

    /// A vacuum was first seen.
    VacuumSeen {
        /// The worker.
        process: ProcessId,
        /// What it does.
        kind: VacuumKind,
        /// Its database.
        database: DatabaseName,
        /// Its table.
        table: Option<TableName>,
        /// The table's OID.
        relation: Option<Oid>,
    },
    /// A vacuum that was seen is gone from the activity view.
    VacuumGone {
        /// The worker.
        process: ProcessId,
        /// Its database.
        database: DatabaseName,
        /// Its table.
        table: Option<TableName>,
        /// How long we saw it.
        seen_for: Duration,
        /// CPU time that it used while we saw it.
        cpu_time: Duration,
    },

    /// A condition began or ended and the alert was handed to delivery.
    Alerted {
        /// The alert, whole.
        alert: Alert,
    },
    /// A route took an alert.
    AlertDelivered {
        /// Its key.
        key: AlertKey,
        /// Whether it was the firing or the resolve.
        state: crate::AlertState,
        /// The route's name.
        route: String,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// From the decision to the route's acknowledgement.
        latency: Duration,
    },
    /// An alert began that a person silenced: no route is told while that lasts.
    AlertSilenced {
        /// Its key.
        key: AlertKey,
        /// The silence's name.
        silence: String,
        /// Who wanted it.
        by: String,
        /// Until when.
        until: Timestamp,
    },
    /// Somebody said to have seen an alert: it is not escalated.
    AlertAcknowledged {
        /// Its key.
        key: AlertKey,
        /// Who.
        by: String,
    },
    /// A route did not take an alert; it will be tried again unless `gave_up`.
    AlertFailed {
        /// Its key.
        key: AlertKey,
        /// The route's name.
        route: String,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// Why, without secrets.
        error: String,
        /// Whether the bound on attempts is reached.
        gave_up: bool,
    },

    /// What the governor would do if it were allowed to (observe, advise).
    ThrottleProposed {
        /// The workers.
        workers: Vec<ProcessId>,
        /// Their tables, in the same order.
        tables: Vec<Option<TableName>>,
        /// Where they would be held.
        setting: CostSetting,
        /// Why.
        reason: String,
        /// The command that a person would run.
        command: String,
    },
    /// The governor began to hold workers.
    ThrottleEngaged {
        /// The workers.
        workers: Vec<ProcessId>,
        /// Their tables, in the same order.
        tables: Vec<Option<TableName>>,
        /// By which lever.
        lever: Lever,
        /// Where they are held.
        setting: CostSetting,
        /// Why.
        reason: String,
    },
    /// The governor holds them elsewhere now.
    ThrottleAdjusted {
        /// The workers that are held now.
        workers: Vec<ProcessId>,
        /// Where.
        setting: CostSetting,
        /// Why.
        reason: String,
    },
    /// What the throttle did, measured on the workers.
    ThrottleVerified {
        /// The workers' CPU together before.
        cpu_before: Cores,
        /// And under the throttle.
        cpu_after: Cores,
        /// The pressure before: busy share of the database's CPUs.
        busy_before: Share,
        /// And under the throttle.
        busy_after: Share,
        /// Whether the workers obeyed.
        obeyed: bool,
    },
    /// The governor let go.
    ThrottleReleased {
        /// Why.
        reason: ReleaseReason,
        /// How long it was held.
        held: Duration,
        /// In words, with the figures that decided.
        detail: String,
    },
    /// The governor wanted to act and could not.
    LeverUnavailable {
        /// Which lever; none where no lever fits.
        lever: Option<Lever>,
        /// Why, and what would make it available.
        reason: String,
    },
    /// The resting setting was put in place or taken back: the one that lets running workers be governed (13 to 15).
    RestingSettingChanged {
        /// What it was.
        from: CostSetting,
        /// What it is.
        to: CostSetting,
        /// Why.
        reason: String,
    },

    /// A service as the configuration declares it: recorded when a guard begins and when the declaration changed.
    ServiceDeclared {
        /// Which.
        service: ServiceName,
        /// What it needs: services, or a PostgreSQL by its name.
        depends_on: Vec<ServiceName>,
        /// What people lose while it is down.
        impact: Vec<String>,
    },
    /// A service's health changed.
    ServiceChanged {
        /// Which.
        service: ServiceName,
        /// How it is now.
        health: Health,
        /// What was wrong, or how long it was.
        detail: String,
        /// What people lose while it is down, as declared.
        impact: Vec<String>,
    },
    /// Answers of a service, summed up while something was wrong with it.
    ServiceMeasured {
        /// Which.
        service: ServiceName,
        /// Its answers.
        answers: ServiceWindow,
    },

    /// A repository as the configuration declares it: recorded when a guard first knows of it and when the declaration changed. How
    /// long a cluster has been without a proven backup counts from the first of these.
    RepositoryDeclared {
        /// Its place, without secrets.
        repository: String,
        /// When backups are made, as written; none where only people make them.
        schedule: Option<String>,
        /// How old the newest proven backup may be; none where nobody said so and nothing is scheduled.
        max_age: Option<Duration>,
    },
    /// A run of the backup worker began.
    BackupStarted {
        /// What it was started for: `create` or `prove`.
        task: BackupTask,
        /// Why now: the schedule, a run that was missed, another attempt.
        reason: String,
    },
    /// How far a run is, told a few times in a run.
    BackupProgressed {
        /// What is being done: `copying`, `restoring`, ...
        stage: String,
        /// Bytes done.
        done: ByteSize,
        /// Bytes in all, as far as known.
        total: ByteSize,
        /// How long it will take at this rate, where that can be said.
        remaining: Option<Duration>,
    },
    /// A backup was committed to the repository. It counts when it is proven.
    BackupFinished {
        /// Its id.
        backup: String,
        /// The moment that it restores to.
        consistent_at: Timestamp,
        /// Where in the write-ahead log that is.
        stop_lsn: Lsn,
        /// How long it took.
        took: Duration,
        /// Bytes of the cluster.
        size: ByteSize,
        /// Bytes that the repository did not have yet, compressed and sealed.
        stored: ByteSize,
        /// Damaged pages in the source, copied as they are.
        corrupt_pages: u64,
    },
    /// A backup was not made. Nothing that was in the repository is lost.
    BackupFailed {
        /// What failed, where and why.
        error: String,
        /// Failures in a row.
        failures: u32,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// A backup was restored, recovered and checked, and nothing was wrong.
    ProofFinished {
        /// Its id.
        backup: String,
        /// The moment that it restores to.
        consistent_at: Timestamp,
        /// How long the proof took, checks included.
        took: Duration,
        /// The measured recovery time: from the restore's first byte until the server accepted connections.
        recovery_time: Option<Duration>,
        /// The age of the newest commit that was recovered with the repository's WAL, when that was looked up; none without WAL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found_age: Option<Duration>,
    },
    /// A backup could not be proven, or is damaged.
    ProofFailed {
        /// Its id, where it came as far as that.
        backup: Option<String>,
        /// Whether something is known to be wrong with the backup; if not, the proof could not be completed.
        damaged: bool,
        /// Why.
        reasons: Vec<String>,
        /// Failures in a row.
        failures: u32,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// Backups that no rule keeps were expired.
    RetentionApplied {
        /// How many are kept.
        kept: u64,
        /// The expired ones, the first of them.
        expired: Vec<String>,
        /// Bytes given back.
        freed: ByteSize,
    },
    /// The repository, or the worker that uses it, does not work as it should.
    RepositoryProblem {
        /// Its place, without secrets.
        repository: String,
        /// What is wrong.
        problem: String,
    },

    /// WAL streams into the repository.
    WalReceiving {
        /// The timeline.
        timeline: u32,
        /// From where on.
        from: Lsn,
        /// The slot that keeps on the server what was not received yet.
        slot: Option<String>,
        /// How much the slot may make the server keep; none where nothing bounds it and the disk may fill.
        slot_limit: Option<ByteSize>,
    },
    /// WAL does not stream any more; it is tried again until it does.
    WalInterrupted {
        /// Why.
        error: String,
        /// What would have been lost then, as time.
        behind: Duration,
    },
    /// The server took another timeline, and the archive follows it.
    WalTimelineChanged {
        /// What was received.
        from: u32,
        /// What is received now.
        to: u32,
        /// Where it branched off.
        switch: Lsn,
    },
    /// WAL is missing that the server does not have any more. Recovery can't go over it: only a backup from behind it helps.
    WalMissing {
        /// The timeline that was wanted.
        timeline: u32,
        /// The first byte that is missing.
        from: Lsn,
        /// Where it goes on.
        to: Lsn,
    },
    /// The slot is gone, or the server gave it up.
    WalSlotLost {
        /// Its name.
        slot: String,
        /// What the server says.
        why: String,
    },
    /// The repository takes no WAL; what comes meanwhile waits on the server.
    WalStoreFailing {
        /// What it says.
        error: String,
    },
    /// The repository takes WAL again.
    WalStoreBack {
        /// How long it did not.
        after: Duration,
    },

    /// A service is in another state than when it was last looked at, as the recovery sees it.
    ServiceStateChanged {
        /// Which.
        service: ServiceName,
        /// What it was.
        from: String,
        /// What it is, with its reason.
        to: String,
        /// Changes before this one that were not told, for there were too many.
        untold: u32,
    },
    /// Services are to be brought back.
    RecoveryBegan {
        /// Those that are not well.
        down: Vec<ServiceName>,
        /// Those that would be acted on, in order, as it was planned then.
        order: Vec<ServiceName>,
        /// In what time all is expected to be stable.
        expected: Option<Duration>,
        /// Whether it is done or only said.
        mode: Mode,
    },
    /// Something is done to a service.
    RecoveryActBegan {
        /// Which.
        service: ServiceName,
        /// Start, restart or provision.
        action: String,
        /// Why.
        reason: String,
        /// The number of this attempt, from 1.
        attempt: u32,
    },
    /// It has come to its end.
    RecoveryActEnded {
        /// Which service.
        service: ServiceName,
        /// What was done.
        action: String,
        /// From the act to that.
        took: Duration,
        /// Why it failed; `None` where the service is stable.
        failure: Option<String>,
    },
    /// A person is needed.
    RecoveryEscalated {
        /// All reasons of that moment.
        reasons: Vec<String>,
    },
    /// Steps wait for a person's approval.
    RecoveryApprovalWanted {
        /// The plan's hash.
        plan: String,
        /// What would be done.
        what: Vec<String>,
    },
    /// All services that are meant to run are stable: at the guard's first look, or after a recovery.
    ServicesStable {
        /// How many there are.
        services: u32,
        /// The recovery that this ends.
        recovery: Option<RecoveryFigures>,
    },

    /// The shedding ladder took a rung, gave one back, or holds for another reason than before.
    SheddingStepped {
        /// What it did.
        step: SheddingStep,
        /// How far it may go.
        mode: Mode,
        /// The rung that was taken or given back.
        rung: Option<String>,
        /// What was done, or would be.
        act: Option<String>,
        /// Why, with the figures that decided.
        why: String,
        /// The reading that caused it; none where it was not the pressure that did.
        cause: Option<String>,
        /// Rungs below that were passed, each with its reason.
        passed: Vec<String>,
        /// What became of acts before.
        notes: Vec<String>,
        /// The rungs that are in force by it, or asked for, after this.
        held: Vec<String>,
    },

    /// An idle session was ended while connections were short.
    SessionRelieved {
        /// Whose, why, and what came of it.
        session: Box<RelievedSession>,
    },

    /// The journal could not be written; alerts went out without it.
    RecordingFailed {
        /// The store's words.
        error: String,
        /// How many events and readings were not recorded.
        lost: u64,
    },
    /// Events younger than a week were deleted, because nothing else was left to keep the journal within its size.
    HistoryCut {
        /// How many.
        events: u64,
        /// The declared bound.
        max_size: ByteSize,
    },
    /// A person said something.
    Noted {
        /// Who.
        author: String,
        /// What.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kinds_name_is_its_tag() {
        let kinds = [
            EventKind::GuardStopped { reason: "SIGTERM".into() },
            EventKind::ClockStepped { by_ms: -5 },
            EventKind::LeverUnavailable { lever: None, reason: "no".into() },
            EventKind::SettingsSeen { resting: CostSetting { limit: 200, delay_ms: 2.0 }, others: BTreeMap::new() },
            EventKind::ServiceDeclared { service: "bot".into(), depends_on: vec!["site".into()], impact: vec![] },
            EventKind::BackupStarted { task: BackupTask::Prove, reason: "03:00".into() },
            EventKind::WalMissing { timeline: 1, from: Lsn(1), to: Lsn(2) },
            EventKind::WalStoreBack { after: Duration::from_secs(1) },
            EventKind::RetentionApplied { kept: 3, expired: vec!["a5".into()], freed: ByteSize(7) },
        ];
        for kind in kinds {
            let json = serde_json::to_value(&kind).unwrap();
            assert_eq!(json["event"], kind.name());
            assert_eq!(serde_json::from_value::<EventKind>(json).unwrap(), kind);
        }
    }
}
