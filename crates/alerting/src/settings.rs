//! The thresholds of the rules, as the configuration writes them under `[alert.rules.*]`.
//!
//! Every field has a default, so that a configuration names only what it changes; an unknown key is an error, because a misspelt
//! threshold that is silently ignored is found out in the next outage. Per cent and seconds are in the names: `busy_percent`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A threshold that can't work.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("alert.rules.{key} = {value}: {why}. Hint: {hint}")]
pub struct SettingsError {
    /// The key below `alert.rules`.
    pub key: &'static str,
    /// Its value.
    pub value: f64,
    /// What is wrong with it.
    pub why: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// Thresholds of all rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RuleSettings {
    /// See [`CpuSaturated`].
    pub cpu_saturated: CpuSaturated,
    /// See [`MemoryLow`].
    pub memory_low: MemoryLow,
    /// See [`PostgresDown`].
    pub postgres_down: PostgresDown,
    /// See [`ConnectionsNearLimit`].
    pub connections_near_limit: ConnectionsNearLimit,
    /// See [`VacuumStarvesHost`].
    pub vacuum_starves_host: VacuumStarvesHost,
    /// See [`VacuumWraparoundNear`].
    pub vacuum_wraparound_near: VacuumWraparoundNear,
    /// See [`RecordingFailing`].
    pub recording_failing: RecordingFailing,
    /// See [`BackupFailing`].
    pub backup_failing: BackupFailing,
    /// See [`BackupUnproven`].
    pub backup_unproven: BackupUnproven,
    /// See [`RepositoryUnprotected`].
    pub repository_unprotected: RepositoryUnprotected,
    /// See [`WalBehind`].
    pub wal_behind: WalBehind,
    /// See [`SlotRetaining`].
    pub slot_retaining: SlotRetaining,
    /// See [`ServicesNeedYou`].
    pub services_need_you: ServicesNeedYou,
    /// See [`SheddingBlocked`].
    pub shedding_blocked: SheddingBlocked,
    /// See [`SheddingActive`].
    pub shedding_active: SheddingActive,
    /// See [`ConnectionsSurging`].
    pub connections_surging: ConnectionsSurging,
    /// See [`LockQueue`].
    pub lock_queue: LockQueue,
    /// See [`TransactionIdle`].
    pub transaction_idle: TransactionIdle,
    /// See [`TransactionLong`].
    pub transaction_long: TransactionLong,
    /// See [`DiskFilling`].
    pub disk_filling: DiskFilling,
    /// See [`MemoryFilling`].
    pub memory_filling: MemoryFilling,
    /// See [`OomKilled`].
    pub oom_killed: OomKilled,
    /// See [`ArchiveFailing`].
    pub archive_failing: ArchiveFailing,
    /// See [`CheckpointsFrequent`].
    pub checkpoints_frequent: CheckpointsFrequent,
    /// See [`PressureStalled`].
    pub pressure_stalled: PressureStalled,
    /// See [`CpuStolen`].
    pub cpu_stolen: CpuStolen,
    /// See [`ClockOff`].
    pub clock_off: ClockOff,
    /// See [`TargetVanished`].
    pub target_vanished: TargetVanished,
    /// See [`ServiceUnhealthy`].
    pub service_unhealthy: ServiceUnhealthy,
    /// See [`GuardWasSilent`].
    pub guard_was_silent: GuardWasSilent,
    /// See [`PeerSilent`].
    pub peer_silent: PeerSilent,
}

macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Whether the rule speaks at all.
            pub enabled: bool,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { enabled: true, $($field: $default,)* }
            }
        }
    };
}

mod sensing;
mod watching;

pub use self::sensing::{
    ArchiveFailing, CheckpointsFrequent, ConnectionsSurging, DiskFilling, LockQueue, MemoryFilling, OomKilled,
    TransactionIdle, TransactionLong,
};
pub use self::watching::{
    ClockOff, CpuStolen, GuardWasSilent, PeerSilent, PressureStalled, ServiceUnhealthy, TargetVanished,
};

settings! {
    /// Rule `cpu-saturated`: the CPUs that the database may use are all taken, and tasks wait for them.
    CpuSaturated {
        /// Busy share from which a window counts as saturated, per cent.
        busy_percent: f64 = 95.0,
        /// How many windows (about a second each) in a row.
        windows: u32 = 2,
        /// CPU pressure (`some` of PSI) from which tasks count as waiting, per cent. Where the kernel hides PSI, or it says
        /// less, a run queue longer than the number of CPUs counts.
        pressure_percent: f64 = 25.0,
        /// Busy share below which the condition ends, per cent.
        clear_percent: f64 = 85.0,
        /// For how long it must stay below, seconds.
        clear_s: f64 = 10.0,
    }
}

settings! {
    /// Rule `memory-low`: little memory is left, by share and in absolute terms, on the host or under the guard's own control
    /// group's limit; or tasks stall for memory.
    MemoryLow {
        /// Available share below which memory is low, per cent.
        available_percent: f64 = 8.0,
        /// Available share below which it is critical, per cent.
        critical_percent: f64 = 4.0,
        /// However small the share is, this many mebibytes are enough: 8 % of a large host is not little.
        ample_mib: u64 = 4096,
        /// Memory pressure (`full` of PSI) from which the host counts as thrashing, per cent; only where less than
        /// `pressure_below_percent` is available, since a busy page cache alone also causes stalls.
        pressure_percent: f64 = 10.0,
        /// See `pressure_percent`.
        pressure_below_percent: f64 = 25.0,
        /// How many windows in a row.
        windows: u32 = 3,
        /// Available share above which the condition ends, per cent.
        clear_percent: f64 = 12.0,
        /// For how long it must stay above, seconds.
        clear_s: f64 = 30.0,
    }
}

settings! {
    /// Rule `postgres-down`: PostgreSQL does not serve the guard.
    PostgresDown {
        /// How long it may be gone before anyone is told, seconds: an ordinary restart of a second is no outage.
        grace_s: f64 = 2.0,
        /// How long it must have been back, seconds: a server in a crash loop is one episode.
        clear_s: f64 = 3.0,
    }
}

settings! {
    /// Rule `connections-near-limit`: few connections are left for clients.
    ConnectionsNearLimit {
        /// Used share of `max_connections` less the reserved ones, per cent.
        used_percent: f64 = 85.0,
        /// Used share from which it is critical, per cent.
        critical_percent: f64 = 95.0,
        /// How many readings in a row.
        readings: u32 = 2,
        /// Used share below which the condition ends, per cent.
        clear_percent: f64 = 75.0,
        /// For how long it must stay below, seconds.
        clear_s: f64 = 10.0,
    }
}

settings! {
    /// Rule `vacuum-starves-host`: the database's CPUs are saturated (as in [`CpuSaturated`]), vacuums take a good part of them,
    /// and something waits.
    VacuumStarvesHost {
        /// The running vacuums' share of the database's CPUs, together, per cent.
        vacuum_percent: f64 = VACUUM_SHARE_PERCENT,
        /// Share below which the condition ends, per cent.
        clear_percent: f64 = 10.0,
        /// For how long it (or the CPUs' busy share) must stay below, seconds.
        clear_s: f64 = 10.0,
        /// An activity query that takes this long counts as waiting, milliseconds: it takes 2 to 5 on an idle host.
        canary_ms: f64 = 250.0,
    }
}

settings! {
    /// Rule `vacuum-wraparound-near`: transaction ids or multixacts run out because vacuum does not keep up.
    VacuumWraparoundNear {
        /// Age of the oldest unfrozen id, in millions. Autovacuum acts at 200 by default; the server stops at about 2,100.
        age_millions: f64 = 1_200.0,
        /// Age from which it is critical, in millions. The failsafe of 14+ sets in at 1,600 and has then not helped.
        critical_millions: f64 = 1_800.0,
        /// Age below which the condition ends, in millions.
        clear_millions: f64 = 1_000.0,
        /// Or: the server stops within so many days at the rate of the last hour.
        within_days: f64 = 3.0,
        /// Within so many that is critical.
        critical_days: f64 = 0.5,
        /// A forecast counts only from this age on, in millions: below it autovacuum has not begun yet.
        forecast_from_millions: f64 = 400.0,
    }
}

settings! {
    /// Rule `recording-failing`: the journal can't be written.
    RecordingFailing {
        /// For how long no failure must have been reported, seconds. The guard reports each failed write.
        clear_s: f64 = 60.0,
    }
}

settings! {
    /// Rule `backup-failing`: backups or proofs fail, or a backup found damaged pages in the cluster.
    BackupFailing {
        /// Failures in a row: one that the next attempt makes good is no alert.
        failures: u32 = 2,
    }
}

settings! {
    /// Rule `backup-unproven`: the newest proven backup is older than `[backup] max_age`, or none was proven in that time.
    BackupUnproven {
        /// How many times `max_age` it may be old before that is critical.
        critical_factor: f64 = 3.0,
    }
}

settings! {
    /// Rule `repository-unprotected`: the recovery key was not confirmed, or the repository lies on the database's own disk.
    RepositoryUnprotected {}
}

settings! {
    /// Rule `wal-behind`: more WAL is not in the repository than `[wal] max_behind` allows to be lost, or some is missing for good.
    WalBehind {
        /// How many times `max_behind` it may be behind before that is critical.
        critical_factor: f64 = 10.0,
    }
}

settings! {
    /// Rule `services-need-you`: the recovery of services has given something up, or waits for an approval.
    ServicesNeedYou {}
}

settings! {
    /// Rule `shedding-blocked`: pressure is critical, and the shedding ladder may take no further rung, or has none left.
    SheddingBlocked {}
}

settings! {
    /// Rule `shedding-active`: the shedding ladder has taken something back from the host.
    SheddingActive {}
}

settings! {
    /// Rule `slot-retaining`: a replication slot makes the server keep so much WAL that its limit (`max_slot_wal_keep_size`) comes near,
    /// or, where there is none, the end of the disk.
    SlotRetaining {
        /// Share of what may be kept at most, per cent: of the limit, or of the disk's free room and what is kept already.
        retained_percent: f64 = 50.0,
        /// From which share on that is critical, per cent.
        critical_percent: f64 = 80.0,
        /// Share below which the condition ends, per cent.
        clear_percent: f64 = 40.0,
        /// However large the share, so little is no matter, in mebibytes: a small limit is reached and left all the time.
        least_mib: u64 = 64,
    }
}

/// Share of the database's CPUs from which running vacuums count as the cause of their saturation, per cent. The share from which
/// the governor holds them: what is held must be told.
pub const VACUUM_SHARE_PERCENT: f64 = 15.0;

/// Seconds that a setting may name at most: a day.
const MAX_SECONDS: f64 = 86_400.0;

impl RuleSettings {
    /// The names of all rules that have settings, in the order of the alphabet.
    pub fn names() -> Vec<String> {
        match serde_json::to_value(Self::default()) {
            Ok(serde_json::Value::Object(rules)) => rules.into_iter().map(|(name, _)| name).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the thresholds can work: within their range, and hysteresis the right way round.
    ///
    /// # Errors
    /// The first that can't, with a hint.
    pub fn check(&self) -> Result<(), SettingsError> {
        let c = &self.cpu_saturated;
        percent("cpu-saturated.busy_percent", c.busy_percent)?;
        percent("cpu-saturated.pressure_percent", c.pressure_percent)?;
        below("cpu-saturated.clear_percent", c.clear_percent, c.busy_percent)?;
        seconds("cpu-saturated.clear_s", c.clear_s)?;
        count("cpu-saturated.windows", c.windows)?;

        let m = &self.memory_low;
        percent("memory-low.available_percent", m.available_percent)?;
        below("memory-low.critical_percent", m.critical_percent, m.available_percent)?;
        percent("memory-low.pressure_percent", m.pressure_percent)?;
        percent("memory-low.pressure_below_percent", m.pressure_below_percent)?;
        percent("memory-low.clear_percent", m.clear_percent)?;
        above("memory-low.clear_percent", m.clear_percent, m.available_percent)?;
        seconds("memory-low.clear_s", m.clear_s)?;
        count("memory-low.windows", m.windows)?;

        let p = &self.postgres_down;
        seconds("postgres-down.grace_s", p.grace_s)?;
        seconds("postgres-down.clear_s", p.clear_s)?;

        let n = &self.connections_near_limit;
        percent("connections-near-limit.used_percent", n.used_percent)?;
        percent("connections-near-limit.critical_percent", n.critical_percent)?;
        above("connections-near-limit.critical_percent", n.critical_percent, n.used_percent)?;
        below("connections-near-limit.clear_percent", n.clear_percent, n.used_percent)?;
        seconds("connections-near-limit.clear_s", n.clear_s)?;
        count("connections-near-limit.readings", n.readings)?;

        let v = &self.vacuum_starves_host;
        percent("vacuum-starves-host.vacuum_percent", v.vacuum_percent)?;
        below("vacuum-starves-host.clear_percent", v.clear_percent, v.vacuum_percent)?;
        seconds("vacuum-starves-host.clear_s", v.clear_s)?;
        if !(1.0..=60_000.0).contains(&v.canary_ms) {
            return Err(range("vacuum-starves-host.canary_ms", v.canary_ms, "name 1 to 60000 milliseconds"));
        }

        let w = &self.vacuum_wraparound_near;
        if !(1.0..=2_100.0).contains(&w.age_millions) {
            return Err(range("vacuum-wraparound-near.age_millions", w.age_millions, "name 1 to 2100 million"));
        }
        above("vacuum-wraparound-near.critical_millions", w.critical_millions, w.age_millions)?;
        below("vacuum-wraparound-near.clear_millions", w.clear_millions, w.age_millions)?;
        if !(0.0..=365.0).contains(&w.within_days) {
            return Err(range("vacuum-wraparound-near.within_days", w.within_days, "name 0 to 365 days"));
        }
        below("vacuum-wraparound-near.critical_days", w.critical_days, w.within_days)?;
        if !(1.0..=2_100.0).contains(&w.forecast_from_millions) {
            let key = "vacuum-wraparound-near.forecast_from_millions";
            return Err(range(key, w.forecast_from_millions, "name 1 to 2100 million"));
        }
        seconds("recording-failing.clear_s", self.recording_failing.clear_s)?;
        count("backup-failing.failures", self.backup_failing.failures)?;
        let factor = self.backup_unproven.critical_factor;
        if !(1.0..=1_000.0).contains(&factor) {
            return Err(range("backup-unproven.critical_factor", factor, "name 1 to 1000 times max_age"));
        }
        let factor = self.wal_behind.critical_factor;
        if !(1.0..=1_000.0).contains(&factor) {
            return Err(range("wal-behind.critical_factor", factor, "name 1 to 1000 times max_behind"));
        }
        let s = &self.slot_retaining;
        percent("slot-retaining.retained_percent", s.retained_percent)?;
        percent("slot-retaining.critical_percent", s.critical_percent)?;
        above("slot-retaining.critical_percent", s.critical_percent, s.retained_percent)?;
        below("slot-retaining.clear_percent", s.clear_percent, s.retained_percent)?;
        sensing::check(self)?;
        watching::check(self)
    }
}

fn range(key: &'static str, value: f64, hint: &'static str) -> SettingsError {
    SettingsError { key, value, why: "out of range", hint }
}

fn percent(key: &'static str, value: f64) -> Result<(), SettingsError> {
    if value > 0.0 && value <= 100.0 { Ok(()) } else { Err(range(key, value, "name a percentage, above 0 up to 100")) }
}

fn seconds(key: &'static str, value: f64) -> Result<(), SettingsError> {
    if (0.0..=MAX_SECONDS).contains(&value) { Ok(()) } else { Err(range(key, value, "name 0 to 86400 seconds")) }
}

fn count(key: &'static str, value: u32) -> Result<(), SettingsError> {
    if (1..=60).contains(&value) { Ok(()) } else { Err(range(key, f64::from(value), "name 1 to 60")) }
}

fn below(key: &'static str, value: f64, limit: f64) -> Result<(), SettingsError> {
    if value > 0.0 && value < limit {
        return Ok(());
    }
    Err(SettingsError {
        key,
        value,
        why: "must be above 0 and below the threshold that it belongs to",
        hint: "leave a gap between the two, or every wobble becomes an alert",
    })
}

fn above(key: &'static str, value: f64, limit: f64) -> Result<(), SettingsError> {
    if value > limit {
        return Ok(());
    }
    Err(SettingsError {
        key,
        value,
        why: "must be above the threshold that it belongs to",
        hint: "leave a gap between the two, or every wobble becomes an alert",
    })
}

/// Seconds of a setting as a duration; settings are checked, but a value that was not can't panic either.
pub(crate) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_work() {
        assert_eq!(RuleSettings::default().check(), Ok(()));
    }

    #[test]
    fn a_configuration_names_only_what_it_changes() {
        let settings: RuleSettings =
            toml::from_str("[cpu-saturated]\nbusy_percent = 90\n[memory-low]\nenabled = false\n").unwrap();
        assert_eq!(settings.cpu_saturated, CpuSaturated { busy_percent: 90.0, ..CpuSaturated::default() });
        assert!(!settings.memory_low.enabled);
        assert_eq!(settings.postgres_down, PostgresDown::default());
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        for text in ["[cpu-saturate]\n", "[cpu-saturated]\nbusy = 90\n"] {
            let error = toml::from_str::<RuleSettings>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn thresholds_that_cannot_work_are_refused_with_a_hint() {
        for (text, key) in [
            ("[cpu-saturated]\nbusy_percent = 0.95\n", "cpu-saturated.clear_percent"),
            ("[cpu-saturated]\nclear_percent = 95\n", "cpu-saturated.clear_percent"),
            ("[cpu-saturated]\nwindows = 0\n", "cpu-saturated.windows"),
            ("[memory-low]\nclear_percent = 5\n", "memory-low.clear_percent"),
            ("[memory-low]\navailable_percent = 101\n", "memory-low.available_percent"),
            ("[postgres-down]\ngrace_s = -1\n", "postgres-down.grace_s"),
            ("[connections-near-limit]\ncritical_percent = 80\n", "connections-near-limit.critical_percent"),
            ("[vacuum-starves-host]\ncanary_ms = nan\n", "vacuum-starves-host.canary_ms"),
            ("[vacuum-wraparound-near]\nage_millions = 5000\n", "vacuum-wraparound-near.age_millions"),
            ("[recording-failing]\nclear_s = 1e9\n", "recording-failing.clear_s"),
            ("[backup-failing]\nfailures = 0\n", "backup-failing.failures"),
            ("[backup-unproven]\ncritical_factor = 0.5\n", "backup-unproven.critical_factor"),
            ("[connections-surging]\nwindow_s = 0\n", "connections-surging.window_s"),
            ("[connections-surging]\nleast = 0\n", "connections-surging.least"),
            ("[lock-queue]\ncritical_s = 4\n", "lock-queue.critical_s"),
            ("[transaction-idle]\nblocking_s = 600\n", "transaction-idle.blocking_s"),
            ("[transaction-long]\nage_s = 0\n", "transaction-long.age_s"),
            ("[disk-filling]\ncritical_percent = 10\n", "disk-filling.critical_percent"),
            ("[disk-filling]\ncritical_within_s = 3600\n", "disk-filling.critical_within_s"),
            ("[memory-filling]\nfull_within_s = -1\n", "memory-filling.full_within_s"),
            ("[oom-killed]\nclear_s = nan\n", "oom-killed.clear_s"),
            ("[archive-failing]\ncritical_mib = 1\n", "archive-failing.critical_mib"),
            ("[checkpoints-frequent]\nrequested = 0\n", "checkpoints-frequent.requested"),
            ("[pressure-stalled]\nio_percent = 0\n", "pressure-stalled.io_percent"),
            ("[cpu-stolen]\nclear_percent = 30\n", "cpu-stolen.clear_percent"),
            ("[clock-off]\nserver_s = 0\n", "clock-off.server_s"),
            ("[target-vanished]\nsilent_s = 5\n", "target-vanished.silent_s"),
            ("[service-unhealthy]\nfor_s = -1\n", "service-unhealthy.for_s"),
            ("[peer-silent]\nsilent_s = 1\n", "peer-silent.silent_s"),
            ("[guard-was-silent]\nlonger_than_s = 1e9\n", "guard-was-silent.longer_than_s"),
        ] {
            let error = toml::from_str::<RuleSettings>(text).unwrap().check().unwrap_err();
            assert_eq!(error.key, key, "{text}");
            assert!(error.to_string().contains("Hint: "));
        }
    }
}
