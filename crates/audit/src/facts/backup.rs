//! What makes backups, and what it makes.

use super::{Facts, Located, Workload};
use crate::finding::Place;

/// What a backup is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackupTool {
    /// Statements or rows at one moment: what came after is lost.
    Dump,
    /// Files at one moment, without the log that would carry it further.
    Base,
    /// Files and log, up to any moment.
    Physical,
    /// Blocks of a volume, or files without knowing that they are a database.
    Volume,
    /// Something that calls itself a backup.
    Unknown,
}

/// A backup job.
#[derive(Clone, Debug)]
pub struct Backup {
    /// `CronJob/backup`.
    pub object: String,
    /// Where it begins.
    pub place: Place,
    /// What it makes.
    pub tool: BackupTool,
    /// When.
    pub schedule: Option<Located<String>>,
    /// Switched off.
    pub suspended: Option<Place>,
    /// The volumes that it mounts.
    pub volumes: Vec<Located<String>>,
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Its status says that it has never run, or never well.
    pub never: Option<Located<String>>,
}

impl Backup {
    pub(super) fn declared(object: String, place: Place, tool: BackupTool) -> Self {
        Self { object, place, tool, schedule: None, suspended: None, volumes: vec![], namespace: None, never: None }
    }

    /// The longest time between two of them, in seconds: what a disaster just before the next one costs.
    pub fn interval(&self) -> Option<u64> {
        interval(&self.schedule.as_ref()?.value)
    }
}

const DUMPS: &[&str] = &[
    "pg_dump",
    "pgdump",
    "mysqldump",
    "mariadb-dump",
    "mongodump",
    "postgres-backup-local",
    "postgres-backup-s3",
    "pg-backup",
];
const PHYSICAL: &[&str] =
    &["pgbackrest", "wal-g", "wal-e", "barman", "pg_receivewal", "oxpecker", "pghoard", "pg_probackup"];
const VOLUMES: &[&str] = &["restic", "borg", "kopia", "velero", "rsync", "duplicity", "duplicati", "rclone"];
const RESTORES: &[&str] = &[
    "pg_restore",
    "pg_verifybackup",
    "backup prove",
    "restore-test",
    "restore_test",
    "verify-backup",
    "mysql <",
    "mongorestore",
];

/// Adds what the workloads do about backups.
pub(super) fn read(facts: &mut Facts) {
    let mut backups = Vec::new();
    let mut tests = Vec::new();
    for workload in &facts.workloads {
        let words = words(workload);
        if RESTORES.iter().any(|mark| words.contains(mark)) || (!workload.lasting && workload.name.contains("restore"))
        {
            tests.push(workload.place.clone());
            // What both dumps and restores proves itself; what only restores makes no backup.
            if !DUMPS.iter().chain(PHYSICAL).any(|mark| words.contains(mark)) {
                continue;
            }
        }
        let named = workload.name.contains("backup") && !workload.lasting;
        let tool =
            [(PHYSICAL, BackupTool::Physical), (DUMPS, BackupTool::Dump), (&["pg_basebackup"], BackupTool::Base)];
        let tool = tool.iter().find(|(marks, _)| marks.iter().any(|mark| words.contains(mark))).map(|(_, tool)| *tool);
        let volume = || (named && VOLUMES.iter().any(|mark| words.contains(mark))).then_some(BackupTool::Volume);
        let Some(tool) = tool.or_else(volume).or(named.then_some(BackupTool::Unknown)) else { continue };
        // The database's own image carries its tools; it is no backup of itself.
        if workload.lasting && workload.engine().is_some() {
            continue;
        }
        let mounted = workload.main_containers().flat_map(|container| &container.mounts);
        let volumes = mounted.map(|mount| Located { value: mount.source.clone(), place: mount.place.clone() });
        backups.push(Backup {
            object: workload.object(),
            place: workload.place.clone(),
            tool,
            schedule: workload.schedule.clone(),
            suspended: workload.suspended.clone(),
            volumes: volumes.collect(),
            namespace: workload.namespace.clone(),
            never: workload.never.clone(),
        });
        if words.contains("oxpecker") && words.contains(" run") {
            tests.push(workload.place.clone());
        }
    }
    facts.backups.append(&mut backups);
    facts.restore_tests.append(&mut tests);
}

fn words(workload: &Workload) -> String {
    let mut words = String::new();
    for container in &workload.containers {
        words += container.image.as_ref().map_or("", |image| &image.value.name);
        for word in &container.command {
            words.push(' ');
            words += word;
        }
        words.push(' ');
    }
    words.to_lowercase()
}

/// The longest gap of a schedule of cron (five fields, or a name), or of systemd's `OnCalendar=`'s names.
fn interval(schedule: &str) -> Option<u64> {
    const DAY: u64 = 86_400;
    let schedule = schedule.trim();
    match schedule.trim_start_matches('@') {
        "hourly" => return Some(3_600),
        "daily" | "midnight" => return Some(DAY),
        "weekly" => return Some(7 * DAY),
        "monthly" => return Some(31 * DAY),
        "yearly" | "annually" => return Some(366 * DAY),
        _ => {}
    }
    let fields: Vec<&str> = schedule
        .split_whitespace()
        .filter(|field| !field.starts_with("CRON_TZ=") && !field.starts_with("TZ="))
        .collect();
    let [minute, hour, day, _, weekday] = fields[..] else { return None };
    // Every how many units, of a field that has so many.
    let every = |field: &str, units: u64| match field {
        "*" => Some(1),
        _ if field.starts_with("*/") => field[2..].parse().ok(),
        _ => Some(units / u64::try_from(field.split(',').count()).ok()?.max(1)),
    };
    if day != "*" {
        return Some(every(day, 31)? * DAY);
    }
    if weekday != "*" && weekday != "?" {
        let days = if weekday.contains('-') { 3 } else { every(weekday, 7)? };
        return Some(days * DAY);
    }
    match (hour, minute) {
        ("*", minute) => Some(every(minute, 60)? * 60),
        (hour, _) => Some(every(hour, 24)? * 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn the_longest_gap() {
        for (schedule, hours) in [
            ("0 3 * * *", Some(24)),
            ("0 */6 * * *", Some(6)),
            ("0 3,15 * * *", Some(12)),
            ("30 * * * *", Some(1)),
            ("0 3 * * 0", Some(168)),
            ("0 3 * * 1-5", Some(72)),
            ("0 3 1 * *", Some(744)),
            ("@daily", Some(24)),
            ("whenever", None),
        ] {
            assert_eq!(interval(schedule), hours.map(|hours| hours * 3_600), "{schedule}");
        }
    }
}
