//! Rule `disk-filling`.
//!
//! *Why*: a PostgreSQL that can't write its WAL stops with a PANIC, and does not start until there is room. A threshold alone comes
//! too late for what fills a disk in minutes.
//! *Source*: `statvfs(3)` of the watched paths, bytes and inodes; a line through the last five and fifteen minutes. What PostgreSQL
//! itself keeps there (WAL's rate, slots, an archive that is behind) is told beside it.
//! *First things to do*: find what grows; stop it; make room outside of `pg_wal`, in which nothing must ever be deleted by hand.

use std::{collections::BTreeMap, time::Duration};

use model::{
    ByteSize, Moment, Observation, Reading, Severity, Share,
    alert::rule,
    reading::{FileSystem, WalReading},
};

use super::{
    forecast::{History, Line},
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{percent, short, span},
};
use crate::settings::{self, duration};

/// File systems that are looked at.
const MAX_DISKS: usize = 32;
/// A point each so long.
const STEP: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(300);
const LONG: Duration = Duration::from_secs(900);
/// How well the points must lie along their line.
const FIT: f64 = 0.8;
const MAX_GAP: Duration = Duration::from_secs(60);
/// From this on what PostgreSQL keeps is told.
const WORTH_TELLING: u64 = 1 << 30;

/// What of a file system runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Bytes,
    Inodes,
}

/// One way in which one file system is, the worst of all that is told.
#[derive(Clone, Debug)]
struct Finding {
    disk: FileSystem,
    what: What,
    /// Free share.
    free: Share,
    /// How fast it goes, and when nothing is left.
    forecast: Option<(f64, Duration)>,
    rank: u8,
}

struct Disk {
    total: ByteSize,
    bytes: Falling,
    inodes: Falling,
}

/// A figure with the lines along which it falls, drawn anew with each of its points.
struct Falling {
    history: History,
    long: Option<Line>,
    short: Option<Line>,
}

impl Falling {
    fn new() -> Self {
        Self { history: History::new(STEP, LONG), long: None, short: None }
    }

    fn push(&mut self, at: Moment, value: f64) {
        if self.history.push(at, value) {
            let trusted = |line: &Line| line.fit >= FIT && line.per_second < 0.0;
            self.long = self.history.line(LONG).filter(trusted);
            self.short = self.history.line(SHORT).filter(trusted);
        }
    }
}

/// The rule's state.
pub(super) struct DiskFilling {
    settings: settings::DiskFilling,
    gate: Gate,
    disks: BTreeMap<String, Disk>,
    worst: Option<Finding>,
    wal: Option<WalReading>,
}

impl DiskFilling {
    pub(super) fn new(settings: settings::DiskFilling) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 2,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: MAX_GAP,
        });
        Self { settings, gate, disks: BTreeMap::new(), worst: None, wal: None }
    }

    /// 3 critical, 2 a warning, 1 between, 0 well.
    fn rank(&self, free: f64, ample: bool, long: Option<Duration>, short: Option<Duration>) -> u8 {
        let settings = &self.settings;
        let within = |left: Option<Duration>, seconds: f64| left.is_some_and(|left| left <= duration(seconds));
        let counts = free < settings.forecast_below_percent;
        if (free < settings.critical_percent && !ample) || (counts && within(short, settings.critical_within_s)) {
            3
        } else if (free < settings.available_percent && !ample) || (counts && within(long, settings.full_within_s)) {
            2
        } else {
            let near = free < settings.available_percent * 1.2 && !ample;
            u8::from(near || (counts && within(long, settings.full_within_s * 1.5)))
        }
    }

    fn findings(&self, disk: &FileSystem, seen: &Disk) -> [Option<Finding>; 2] {
        let finding = |what, free: u64, total: u64, ample: bool, falling: &Falling| {
            let share = Share::of(free as f64, total as f64);
            let Falling { long, short, .. } = *falling;
            let until = |line: Option<Line>| line.and_then(|line| line.until(0.0));
            let rank = self.rank(share.0 * 100.0, ample, until(long), until(short));
            let line = short.or(long);
            let forecast = line.and_then(|line| Some((-line.per_second, line.until(0.0)?)));
            Finding { disk: disk.clone(), what, free: share, forecast, rank }
        };
        let ample = disk.available.0 >= self.settings.ample_gib.saturating_mul(1 << 30);
        let bytes =
            (disk.total.0 > 0).then(|| finding(What::Bytes, disk.available.0, disk.total.0, ample, &seen.bytes));
        let inodes =
            (disk.inodes > 0).then(|| finding(What::Inodes, disk.inodes_free, disk.inodes, false, &seen.inodes));
        [bytes, inodes]
    }
}

impl Finding {
    fn left(&self) -> String {
        match self.what {
            What::Bytes => format!("{} of {} left ({})", self.disk.available, self.disk.total, percent(self.free)),
            What::Inodes => {
                format!("{} of {} inodes left ({})", self.disk.inodes_free, self.disk.inodes, percent(self.free))
            }
        }
    }

    fn rate(&self) -> Option<String> {
        let (rate, left) = self.forecast?;
        let rate = match self.what {
            What::Bytes => format!("{}/s", ByteSize(duration(rate).as_secs())),
            What::Inodes => format!("{rate:.0} inodes/s"),
        };
        Some(format!("full in {} at {rate}", span(left)))
    }
}

/// What PostgreSQL itself keeps on its disk.
fn wal_facts(wal: &WalReading) -> Vec<String> {
    let mut facts: Vec<String> =
        wal.wal_per_second.map(|rate| format!("PostgreSQL writes {rate}/s of WAL")).into_iter().collect();
    let behind = wal.archiver.behind.filter(|behind| wal.archiver.enabled && behind.0 >= WORTH_TELLING);
    facts.extend(behind.map(|behind| format!("{behind} of it wait for the archive, which must not be deleted")));
    let slots = wal.slots.iter().filter(|slot| slot.retained.0 >= WORTH_TELLING);
    facts.extend(slots.take(2).map(|slot| format!("slot {} keeps {} of it", slot.name, slot.retained)));
    facts
}

impl Rule for DiskFilling {
    fn id(&self) -> &'static str {
        rule::DISK_FILLING
    }

    fn title(&self, subject: &Subject) -> String {
        format!("A disk of {} fills", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let host = match observation {
            Observation::Reading(Reading::Host(host)) => host,
            Observation::Reading(Reading::Wal(wal)) => {
                self.wal = Some(wal.clone());
                return None;
            }
            _ => return None,
        };
        let disks = || host.file_systems.iter().take(MAX_DISKS);
        self.disks.retain(|path, _| disks().any(|disk| &disk.path == path));
        let mut worst: Option<Finding> = None;
        for disk in disks() {
            let new = || Disk { total: disk.total, bytes: Falling::new(), inodes: Falling::new() };
            let seen = self.disks.entry(disk.path.clone()).or_insert_with(new);
            if seen.total != disk.total {
                *seen = new();
            }
            seen.bytes.push(host.at, disk.available.0 as f64);
            seen.inodes.push(host.at, disk.inodes_free as f64);
            let Some(seen) = self.disks.get(&disk.path) else { continue };
            for finding in self.findings(disk, seen).into_iter().flatten() {
                if worst.as_ref().is_none_or(|worst| finding.rank > worst.rank) {
                    worst = Some(finding);
                }
            }
        }
        let verdict = match worst.as_ref()?.rank {
            3.. => Verdict::Bad(Severity::Critical),
            2 => Verdict::Bad(Severity::Warning),
            1 => Verdict::Between,
            0 => Verdict::Good,
        };
        self.worst = worst;
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let Some(worst) = &self.worst else { return Facts::default() };
        let path = short(&worst.disk.path);
        let rate = worst.rate();
        let mut details = vec![format!("{}: {}", worst.disk.path, worst.left())];
        details.extend(rate.as_ref().map(|rate| format!("{rate}, by the last minutes")));
        details.extend(self.wal.as_ref().map(wal_facts).unwrap_or_default());
        let how = rate.map(|rate| format!(", {rate}")).unwrap_or_default();
        Facts {
            summary: format!("Disk {path} of {}: {}{how}", subject.host, worst.left()),
            details,
            labels: [("path".to_owned(), worst.disk.path.clone())].into(),
            next_steps: steps(&[
                "find what grows: `du -xh --max-depth=2 PATH | sort -h | tail`; base/pgsql_tmp is a query, pg_wal a slot or the archive",
                "stop that: end the query, mend the archive, drop the slot; never delete anything in pg_wal",
                "make room: old logs and dumps; then give the disk more of it",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.worst.as_ref().map(|worst| format!("{}: {}", worst.disk.path, worst.left())).into_iter().collect()
    }
}
