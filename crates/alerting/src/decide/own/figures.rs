//! The figures that a team's own rules may name: each a number out of one kind of reading, with its unit in its name. Pure.
//!
//! Names are for good: a rule that somebody wrote must not change its meaning with an upgrade.

use std::time::Duration;

use model::{ByteSize, Reading};

/// Where a figure comes from, and with that how soon it is too old to say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The host, once a second.
    Host,
    /// Sessions, locks and vacuums, about once a second.
    Activity,
    /// Checkpoints, WAL, archiver and slots, about every ten seconds.
    Wal,
    /// Ages and dead tuples, about once a minute.
    Tables,
    /// The checks of declared services.
    Service,
    /// The backups, once a minute.
    Backup,
    /// The WAL that streams into the repository, every few seconds.
    Receive,
}

impl Source {
    /// Whether this reading is of it.
    pub(super) fn is_of(self, reading: &Reading) -> bool {
        match reading {
            Reading::Host(_) => self == Self::Host,
            Reading::Activity(_) => self == Self::Activity,
            Reading::Wal(_) => self == Self::Wal,
            Reading::Tables(_) => self == Self::Tables,
            Reading::Service(_) => self == Self::Service,
            Reading::Backup(_) => self == Self::Backup,
            Reading::Receive(_) => self == Self::Receive,
        }
    }

    /// How old a figure may be and still count: several times the pause between two readings, which grows where they cost too much.
    pub(super) fn fresh_for(self) -> Duration {
        Duration::from_secs(match self {
            Self::Host => 5,
            Self::Activity => 20,
            Self::Wal | Self::Receive => 60,
            Self::Tables | Self::Backup => 300,
            Self::Service => 600,
        })
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Host => "the host",
            Self::Activity => "sessions",
            Self::Wal => "WAL",
            Self::Tables => "tables",
            Self::Service => "services",
            Self::Backup => "backups",
            Self::Receive => "WAL in the repository",
        }
    }
}

/// A figure that a rule may name.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// What it is, with its unit.
    pub what: &'static str,
    pub(super) of: Of,
}

/// How a figure is had.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// From a reading of its source; `None` where that could not be read.
    Reading(fn(&Reading) -> Option<f64>),
    /// From the readings of all services: how many are unhealthy.
    Services,
}

/// The figure of this name.
pub(super) fn find(name: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.name == name)
}

/// The name that a misspelt one is most like.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let like = |figure: &Figure| strsim::jaro_winkler(name, figure.name);
    FIGURES.iter().max_by(|a, b| like(a).total_cmp(&like(b))).map(|figure| figure.name)
}

#[expect(clippy::cast_precision_loss, reason = "a threshold needs no byte of an exabyte")]
fn bytes(size: ByteSize) -> f64 {
    size.0 as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts and ages are far below 2^53")]
fn count(count: u64) -> f64 {
    count as f64
}

fn part(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole * 100.0)
}

/// A function that takes one kind of reading apart.
macro_rules! of {
    ($kind:ident, |$reading:ident| $value:expr) => {
        |reading| match reading {
            Reading::$kind($reading) => $value,
            _ => None,
        }
    };
}

macro_rules! figure {
    ($name:literal, $kind:ident, $what:literal, |$reading:ident| $value:expr) => {
        Figure { name: $name, source: Source::$kind, what: $what, of: Of::Reading(of!($kind, |$reading| $value)) }
    };
}

/// All of them, by source.
pub const FIGURES: &[Figure] = &[
    figure!("cpus", Host, "online CPUs", |r| Some(f64::from(r.cpus))),
    figure!("cpu_busy_percent", Host, "CPU that was not to be had, of all CPUs", |r| Some(r.cpu.busy().0 * 100.0)),
    figure!("cpu_iowait_percent", Host, "CPU that waited for disks", |r| Some(r.cpu.iowait * 100.0)),
    figure!("cpu_steal_percent", Host, "CPU that the hypervisor gave to others", |r| Some(r.cpu.steal * 100.0)),
    figure!("database_cpu_busy_percent", Host, "the same of the CPUs that the database may use", |r| Some(
        r.cpu_for_database().1.busy().0 * 100.0
    )),
    figure!("run_queue", Host, "tasks that run or wait for a CPU", |r| Some(f64::from(r.run_queue))),
    figure!("load1", Host, "load average over a minute", |r| Some(r.load[0])),
    figure!("load5", Host, "load average over five minutes", |r| Some(r.load[1])),
    figure!("load15", Host, "load average over fifteen minutes", |r| Some(r.load[2])),
    figure!("cpu_pressure_percent", Host, "time in which some task waited for a CPU", |r| r
        .cpu_pressure
        .map(|p| p.some.0 * 100.0)),
    figure!("memory_pressure_percent", Host, "time in which some task waited for memory", |r| r
        .memory_pressure
        .map(|p| p.some.0 * 100.0)),
    figure!("memory_full_pressure_percent", Host, "time in which all tasks waited for memory", |r| r
        .memory_pressure
        .map(|p| p.full.0 * 100.0)),
    figure!("io_pressure_percent", Host, "time in which some task waited for a disk", |r| r
        .io_pressure
        .map(|p| p.some.0 * 100.0)),
    figure!("memory_available_bytes", Host, "memory that could be had without swapping", |r| Some(bytes(
        r.memory.available
    ))),
    figure!("memory_available_percent", Host, "the same, of all memory", |r| part(
        bytes(r.memory.available),
        bytes(r.memory.total)
    )),
    figure!("swap_used_bytes", Host, "swap space in use", |r| Some(
        (bytes(r.memory.swap_total) - bytes(r.memory.swap_free)).max(0.0)
    )),
    figure!("disk_available_bytes", Host, "free space of the watched file system with the least", |r| r
        .file_systems
        .iter()
        .map(|fs| bytes(fs.available))
        .min_by(f64::total_cmp)),
    figure!("disk_available_percent", Host, "free part of the watched file system with the least", |r| r
        .file_systems
        .iter()
        .filter_map(|fs| part(bytes(fs.available), bytes(fs.total)))
        .min_by(f64::total_cmp)),
    figure!("inodes_available_percent", Host, "free inodes of the watched file system with the least", |r| r
        .file_systems
        .iter()
        .filter_map(|fs| part(count(fs.inodes_free), count(fs.inodes)))
        .min_by(f64::total_cmp)),
    figure!("oom_kills", Host, "processes killed for want of memory since the sample before", |r| Some(
        r.oom.as_ref().map_or(0.0, |oom| count(oom.count))
    )),
    figure!("answer_ms", Activity, "how long the server took to answer, milliseconds", |r| Some(
        r.took.as_secs_f64() * 1000.0
    )),
    figure!("connections", Activity, "connections of clients", |r| Some(f64::from(r.connections.used))),
    figure!("connections_percent", Activity, "the same, of those that clients may have", |r| part(
        f64::from(r.connections.used),
        f64::from(r.connections.max.saturating_sub(r.connections.reserved))
    )),
    figure!("sessions_active", Activity, "sessions that run a statement", |r| Some(in_state(r, "active"))),
    figure!("sessions_idle", Activity, "sessions that do nothing", |r| Some(in_state(r, "idle"))),
    figure!("sessions_idle_in_transaction", Activity, "sessions that do nothing in an open transaction", |r| Some(
        in_state(r, "idle in transaction") + in_state(r, "idle in transaction (aborted)")
    )),
    figure!("sessions_waiting", Activity, "active sessions that wait, but not for their client", |r| Some(f64::from(
        r.connections.active_waiting
    ))),
    figure!("longest_transaction_seconds", Activity, "age of the oldest open transaction of a client", |r| Some(
        r.longest_transaction.as_ref().map_or(0.0, |one| one.age.as_secs_f64())
    )),
    figure!("idle_transaction_seconds", Activity, "for how long a session has been idle in a transaction", |r| Some(
        r.idle_transaction.as_ref().map_or(0.0, |one| one.state_for.as_secs_f64())
    )),
    figure!("lock_waiters", Activity, "sessions that wait for a lock", |r| Some(f64::from(r.locks.waiting))),
    figure!("lock_wait_seconds", Activity, "how long the longest of them has waited", |r| Some(
        r.locks.longest.as_secs_f64()
    )),
    figure!("vacuums", Activity, "vacuums that run", |r| Some(count(r.vacuums.len() as u64))),
    figure!("vacuum_cpus", Activity, "CPUs that they use", |r| Some(
        r.vacuums.iter().filter_map(|vacuum| vacuum.cpu).map(|cpu| cpu.0).sum()
    )),
    figure!("wal_bytes_per_second", Wal, "WAL that is written", |r| r.wal_per_second.map(bytes)),
    figure!("archive_behind_bytes", Wal, "WAL that is not archived", |r| r.archiver.behind.map(bytes)),
    figure!("slot_retained_bytes", Wal, "WAL that the worst replication slot keeps", |r| Some(
        r.slots.iter().map(|slot| bytes(slot.retained)).max_by(f64::total_cmp).unwrap_or(0.0)
    )),
    figure!("dead_tuples", Tables, "dead tuples of the table with the most", |r| Some(
        r.worst.iter().map(|table| count(table.dead)).max_by(f64::total_cmp).unwrap_or(0.0)
    )),
    figure!("xid_age", Tables, "age of the oldest unfrozen transaction id, transactions", |r| r
        .ages
        .iter()
        .map(|age| count(age.xid_age))
        .max_by(f64::total_cmp)),
    figure!("multixact_age", Tables, "age of the oldest multixact, multixacts", |r| r
        .ages
        .iter()
        .map(|age| count(age.multixact_age))
        .max_by(f64::total_cmp)),
    Figure {
        name: "services_unhealthy",
        source: Source::Service,
        what: "declared services whose newest check failed, but for those stopped on purpose",
        of: Of::Services,
    },
    figure!("backup_age_seconds", Backup, "age of what the newest proven backup restores to", |r| r
        .proven
        .as_ref()
        .map(|backup| backup.age.as_secs_f64())),
    figure!("backup_failures", Backup, "backups or proofs that failed in a row", |r| Some(f64::from(r.failures))),
    figure!("wal_behind_seconds", Receive, "what would be lost if the server were lost now", |r| Some(
        r.behind.as_secs_f64()
    )),
];

fn in_state(reading: &model::reading::ActivityReading, state: &str) -> f64 {
    reading.connections.by_state.get(state).copied().map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_that_an_expression_can_say() {
        let names: BTreeSet<_> = FIGURES.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), FIGURES.len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert_eq!(find(name).map(|figure| figure.name), Some(name));
        }
        assert_eq!(nearest("session_active"), Some("sessions_active"));
    }
}
