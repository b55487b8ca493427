//! What kinds of events are called, in the journal and in JSON.

use super::EventKind;

impl EventKind {
    /// The kind's name, as in the journal's table of events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::GuardStarted { .. } => "guard_started",
            Self::GuardStopped { .. } => "guard_stopped",
            Self::GuardWasSilent { .. } => "guard_was_silent",
            Self::ClockStepped { .. } => "clock_stepped",
            Self::HostRebooted { .. } => "host_rebooted",
            Self::ServerUp { .. } => "server_up",
            Self::ServerDown { .. } => "server_down",
            Self::SettingsSeen { .. } => "settings_seen",
            Self::VacuumSeen { .. } => "vacuum_seen",
            Self::VacuumGone { .. } => "vacuum_gone",
            Self::Alerted { .. } => "alerted",
            Self::AlertDelivered { .. } => "alert_delivered",
            Self::AlertFailed { .. } => "alert_failed",
            Self::ThrottleProposed { .. } => "throttle_proposed",
            Self::ThrottleEngaged { .. } => "throttle_engaged",
            Self::ThrottleAdjusted { .. } => "throttle_adjusted",
            Self::ThrottleVerified { .. } => "throttle_verified",
            Self::ThrottleReleased { .. } => "throttle_released",
            Self::LeverUnavailable { .. } => "lever_unavailable",
            Self::RestingSettingChanged { .. } => "resting_setting_changed",
            Self::ServiceDeclared { .. } => "service_declared",
            Self::ServiceChanged { .. } => "service_changed",
            Self::ServiceMeasured { .. } => "service_measured",
            Self::RepositoryDeclared { .. } => "repository_declared",
            Self::BackupStarted { .. } => "backup_started",
            Self::BackupProgressed { .. } => "backup_progressed",
            Self::BackupFinished { .. } => "backup_finished",
            Self::BackupFailed { .. } => "backup_failed",
            Self::ProofFinished { .. } => "proof_finished",
            Self::ProofFailed { .. } => "proof_failed",
            Self::RetentionApplied { .. } => "retention_applied",
            Self::RepositoryProblem { .. } => "repository_problem",
            Self::WalReceiving { .. } => "wal_receiving",
            Self::WalInterrupted { .. } => "wal_interrupted",
            Self::WalTimelineChanged { .. } => "wal_timeline_changed",
            Self::WalMissing { .. } => "wal_missing",
            Self::WalSlotLost { .. } => "wal_slot_lost",
            Self::WalStoreFailing { .. } => "wal_store_failing",
            Self::WalStoreBack { .. } => "wal_store_back",
            Self::RecordingFailed { .. } => "recording_failed",
            Self::HistoryCut { .. } => "history_cut",
            Self::Noted { .. } => "noted",
        }
    }
}
