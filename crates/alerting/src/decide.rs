//! The rules, pure: observations in, alerts out. No clock, no I/O.
//!
//! Each rule is a state machine with hysteresis ([`gate`]); it speaks once when its condition begins and once when it ends. When an
//! open episode turns worse (warning to critical), it ends and a more severe one begins in the same breath, so that routes which
//! only carry critical alerts hear of it.
//!
//! # Keys
//! The deduplication key is `rule/cluster/since`, with `since` on both clocks, and is remembered with the episode, not derived
//! anew: a vacuum's process would identify *it*, but one episode may see several vacuums come and go, and one vacuum several
//! episodes. The open episodes are persisted beside the outbox by [`crate::Delivery`] and handed to [`Rules::resume`] by the next
//! guard, which goes on with the same key and resolves it. Only where the guard dies in the milliseconds between handing an
//! alert over and persisting it does the next guard speak of the same episode under another key.

mod archive;
mod backup;
mod behind;
mod checkpoints;
mod clock_off;
mod connections;
mod cpu;
mod disk;
mod forecast;
mod gate;
mod lock_queue;
pub mod members;
mod memory;
mod memory_filling;
mod oom;
pub mod own;
mod peer;
mod recording;
mod recovery;
mod rule;
mod server;
mod service_unhealthy;
mod session;
mod shedding;
mod silence;
mod slot;
mod stall;
mod steal;
mod surge;
mod text;
mod transaction_idle;
mod transaction_long;
mod vacuum;
mod vanished;
mod wraparound;

use std::time::Duration;

use model::{Alert, AlertKey, AlertState, Moment, Observation, RuleId, Severity, alert::label};

pub use self::rule::Subject;
use self::{
    gate::Step,
    own::{OwnRule, OwnRuleError},
    rule::{Facts, Rule},
    text::{SUMMARY_CHARS, fit, span},
};
use crate::settings::RuleSettings;

/// An episode that began and has not ended: its firing alert.
#[derive(Clone, Debug, PartialEq)]
struct Open {
    firing: Alert,
}

struct Slot {
    rule: Box<dyn Rule>,
    open: Option<Open>,
    /// Microseconds on the boot clock of the newest episode's key: the next one's must differ.
    newest_us: u64,
}

/// All rules of one guard.
pub struct Rules {
    subject: Subject,
    slots: Vec<Slot>,
}

impl Rules {
    /// The rules that the settings leave enabled, all quiet.
    pub fn new(settings: &RuleSettings, subject: Subject) -> Self {
        let all: Vec<(bool, Box<dyn Rule>)> = vec![
            (settings.postgres_down.enabled, Box::new(server::PostgresDown::new(settings.postgres_down))),
            (
                settings.vacuum_starves_host.enabled,
                Box::new(vacuum::VacuumStarvesHost::new(settings.vacuum_starves_host, settings.cpu_saturated)),
            ),
            (settings.cpu_saturated.enabled, Box::new(cpu::CpuSaturated::new(settings.cpu_saturated))),
            (settings.memory_low.enabled, Box::new(memory::MemoryLow::new(settings.memory_low))),
            (
                settings.connections_near_limit.enabled,
                Box::new(connections::ConnectionsNearLimit::new(settings.connections_near_limit)),
            ),
            (
                settings.vacuum_wraparound_near.enabled,
                Box::new(wraparound::WraparoundNear::new(settings.vacuum_wraparound_near)),
            ),
            (
                settings.recording_failing.enabled,
                Box::new(recording::RecordingFailing::new(settings.recording_failing)),
            ),
            (settings.backup_failing.enabled, Box::new(backup::BackupFailing::new(settings.backup_failing))),
            (settings.backup_unproven.enabled, Box::new(backup::BackupUnproven::new(settings.backup_unproven))),
            (settings.repository_unprotected.enabled, Box::new(backup::RepositoryUnprotected::new())),
            (settings.wal_behind.enabled, Box::new(behind::WalBehind::new(settings.wal_behind))),
            (settings.services_need_you.enabled, Box::new(recovery::ServicesNeedYou::new())),
            (settings.shedding_blocked.enabled, Box::new(shedding::SheddingBlocked::new())),
            (settings.shedding_active.enabled, Box::new(shedding::SheddingActive::new())),
            (settings.slot_retaining.enabled, Box::new(slot::SlotRetaining::new(settings.slot_retaining))),
        ];
        let all = all.into_iter().chain(Self::sensing(settings)).chain(Self::watching(settings));
        let enabled = all.filter(|(enabled, _)| *enabled);
        Self { subject, slots: enabled.map(|(_, rule)| Slot { rule, open: None, newest_us: 0 }).collect() }
    }

    /// A team's own rules beside them.
    ///
    /// # Errors
    /// The first that can't work, by its name; the others watch all the same.
    pub fn add_own(&mut self, own: Vec<OwnRule>) -> Result<(), (String, OwnRuleError)> {
        let mut first = Ok(());
        for declared in own {
            let name = declared.name.clone();
            match own::Own::new(declared, self.subject.clone()) {
                Ok(rule) => self.slots.push(Slot { rule: Box::new(rule), open: None, newest_us: 0 }),
                Err(error) => first = first.and(Err((name, error))),
            }
        }
        first
    }

    /// Those that say who is about to hurt whom.
    fn sensing(settings: &RuleSettings) -> Vec<(bool, Box<dyn Rule>)> {
        let RuleSettings {
            connections_surging,
            lock_queue,
            transaction_idle,
            transaction_long,
            disk_filling,
            memory_filling,
            oom_killed,
            archive_failing,
            checkpoints_frequent,
            ..
        } = *settings;
        vec![
            (connections_surging.enabled, Box::new(surge::ConnectionsSurging::new(connections_surging))),
            (lock_queue.enabled, Box::new(lock_queue::LockQueue::new(lock_queue))),
            (transaction_idle.enabled, Box::new(transaction_idle::TransactionIdle::new(transaction_idle))),
            (transaction_long.enabled, Box::new(transaction_long::TransactionLong::new(transaction_long))),
            (disk_filling.enabled, Box::new(disk::DiskFilling::new(disk_filling))),
            (memory_filling.enabled, Box::new(memory_filling::MemoryFilling::new(memory_filling))),
            (oom_killed.enabled, Box::new(oom::OomKilled::new(oom_killed))),
            (archive_failing.enabled, Box::new(archive::ArchiveFailing::new(archive_failing))),
            (checkpoints_frequent.enabled, Box::new(checkpoints::CheckpointsFrequent::new(checkpoints_frequent))),
        ]
    }

    /// Those about what stalls, what is taken away, and what is no longer seen.
    fn watching(settings: &RuleSettings) -> Vec<(bool, Box<dyn Rule>)> {
        let RuleSettings {
            pressure_stalled,
            cpu_stolen,
            clock_off,
            target_vanished,
            service_unhealthy,
            guard_was_silent,
            peer_silent,
            ..
        } = *settings;
        vec![
            (pressure_stalled.enabled, Box::new(stall::PressureStalled::new(pressure_stalled))),
            (cpu_stolen.enabled, Box::new(steal::CpuStolen::new(cpu_stolen))),
            (clock_off.enabled, Box::new(clock_off::ClockOff::new(clock_off))),
            (target_vanished.enabled, Box::new(vanished::TargetVanished::new(target_vanished))),
            (service_unhealthy.enabled, Box::new(service_unhealthy::ServiceUnhealthy::new(service_unhealthy))),
            (peer_silent.enabled, Box::new(peer::PeerSilent::new(peer_silent))),
            (guard_was_silent.enabled, Box::new(silence::GuardWasSilent::new(guard_was_silent))),
        ]
    }

    /// Goes on with the episodes that the guard before left open, under their keys. Answers resolves of those that nobody
    /// watches any more, since their rule was switched off or their cluster renamed.
    #[must_use = "the resolves are to be delivered"]
    pub fn resume(&mut self, open: Vec<Alert>, now: Moment) -> Vec<Alert> {
        let mut orphans = Vec::new();
        for firing in open {
            let ours = firing.labels.get(label::CLUSTER) == Some(&self.subject.cluster);
            let slot =
                self.slots.iter_mut().find(|slot| ours && slot.rule.id() == firing.rule.0 && slot.open.is_none());
            if let Some(slot) = slot {
                slot.rule.gate().resume(firing.severity);
                slot.newest_us = firing.since.boot_us;
                slot.open = Some(Open { firing });
            } else {
                let details = vec!["its rule or its cluster is no longer in the configuration".to_owned()];
                orphans.push(resolve(&firing, now, "no longer watched", details));
            }
        }
        orphans
    }

    /// What an observation begins and ends, in the order of severity of the rules.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for slot in &mut self.slots {
            let Some(judgement) = slot.rule.judge(observation) else { continue };
            match slot.rule.gate().step(judgement) {
                Step::None => {}
                Step::Began { since, severity } => {
                    alerts.push(slot.begin(&self.subject, since, judgement.at, severity));
                }
                Step::Worsened { since, severity } => {
                    alerts.extend(slot.end(&self.subject, judgement.at, "turned worse"));
                    alerts.push(slot.begin(&self.subject, since, judgement.at, severity));
                }
                Step::Ended => alerts.extend(slot.end(&self.subject, judgement.at, "over")),
            }
        }
        alerts
    }

    /// The firing alerts of the open episodes.
    pub fn open(&self) -> impl Iterator<Item = &Alert> {
        self.slots.iter().filter_map(|slot| slot.open.as_ref()).map(|open| &open.firing)
    }
}

impl Slot {
    fn begin(&mut self, subject: &Subject, since: Moment, decided: Moment, severity: Severity) -> Alert {
        let Facts { summary, details, mut labels, next_steps } = self.rule.facts(subject, severity);
        let rule = self.rule.id().to_owned();
        labels.insert(label::CLUSTER.into(), subject.cluster.clone());
        labels.insert("host".into(), subject.host.clone());
        labels.insert("rule".into(), rule.clone());
        self.newest_us = if since.boot_us == self.newest_us { since.boot_us + 1 } else { since.boot_us };
        let key = format!("{rule}/{}/{}-{:x}", subject.cluster, since.wall.strftime("%Y%m%dT%H%M%SZ"), self.newest_us);
        let firing = Alert {
            key: AlertKey(printable(&key)),
            rule: RuleId(rule),
            severity,
            state: AlertState::Firing,
            since,
            decided,
            summary: fit(&summary, SUMMARY_CHARS),
            details,
            next_steps,
            labels,
        };
        self.open = Some(Open { firing: firing.clone() });
        firing
    }

    fn end(&mut self, subject: &Subject, at: Moment, how: &str) -> Option<Alert> {
        let open = self.open.take()?;
        let mut alert = resolve(&open.firing, at, how, self.rule.present());
        let lasted = span(lasted(open.firing.since, at));
        alert.summary = fit(&format!("{}: {how} after {lasted}", self.rule.title(subject)), SUMMARY_CHARS);
        Some(alert)
    }
}

fn resolve(firing: &Alert, at: Moment, how: &str, details: Vec<String>) -> Alert {
    Alert {
        state: AlertState::Resolved,
        decided: at,
        summary: fit(&format!("{}: {how}", firing.rule), SUMMARY_CHARS),
        details,
        next_steps: Vec::new(),
        ..firing.clone()
    }
}

/// How long an episode lasted; by the wall clock where it began in an earlier boot of the host.
fn lasted(since: Moment, now: Moment) -> Duration {
    if now.boot_us >= since.boot_us {
        now.since(since)
    } else {
        Duration::try_from(now.wall.duration_since(since.wall)).unwrap_or(Duration::ZERO)
    }
}

/// Keys travel in HTTP headers: visible ASCII only.
fn printable(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}
