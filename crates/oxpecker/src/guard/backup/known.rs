//! What the guard knows of the cluster's backups: from the journal at first, then from what its worker saw. Pure: moments come in.

use std::time::Duration;

use jiff::Timestamp;
use model::{
    Moment,
    reading::{BackupReading, BackupRunning, BackupSeen, Exposure},
};

use super::protocol::{Seen, SeenBackup};

/// An age that no step of the wall clock changes: what the wall clock said when it became known, and the boot clock since.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Age {
    known: Moment,
    then: Duration,
}

impl Age {
    fn of(past: Timestamp, known: Moment) -> Self {
        Self { known, then: Duration::try_from(known.wall.duration_since(past)).unwrap_or(Duration::ZERO) }
    }

    fn at(self, now: Moment) -> Duration {
        self.then + now.since(self.known)
    }
}

/// What the guard knows.
#[derive(Clone, Debug)]
pub struct Known {
    repository: String,
    max_age: Option<Duration>,
    since: Age,
    looked: bool,
    last: Option<(SeenBackup, Age)>,
    proven: Option<(SeenBackup, Age)>,
    exposures: Vec<Exposure>,
    /// Why the repository could not be looked at, and how often in a row.
    blind: Option<(u32, String)>,
    /// Why the newest run failed.
    pub error: Option<String>,
    /// The run that is under way.
    pub running: Option<BackupRunning>,
}

impl Known {
    /// Nothing but the declaration, which a guard first knew of at `since`.
    pub fn new(repository: String, max_age: Option<Duration>, since: Timestamp, now: Moment) -> Self {
        Self {
            repository,
            max_age,
            since: Age::of(since, now),
            looked: false,
            last: None,
            proven: None,
            exposures: Vec::new(),
            blind: None,
            error: None,
            running: None,
        }
    }

    /// The repository's place.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The newest backup.
    pub fn last(&self) -> Option<&SeenBackup> {
        self.last.as_ref().map(|(backup, _)| backup)
    }

    /// The repository was looked at.
    pub fn see(&mut self, seen: Seen, now: Moment) {
        (self.looked, self.blind) = (true, None);
        self.exposures = seen.exposures;
        self.last = seen.last.map(|backup| aged(backup, self.last.take(), now));
        self.proven = seen.proven.map(|backup| aged(backup, self.proven.take(), now));
    }

    /// It could not be; how often in a row.
    pub fn fail_to_see(&mut self, error: String) -> u32 {
        let times = self.blind.as_ref().map_or(0, |(times, _)| *times).saturating_add(1);
        self.blind = Some((times, error));
        times
    }

    /// A backup was made.
    pub fn made(&mut self, backup: SeenBackup, now: Moment) {
        self.last = Some(aged(backup, None, now));
    }

    /// The backup of this id was proven.
    pub fn prove(&mut self, id: &str, recovery_time: Option<Duration>, found_age: Option<Duration>) {
        let Some((backup, _)) = self.last.as_mut().filter(|(backup, _)| backup.id == id) else { return };
        (backup.proven, backup.recovery_time, backup.found_age) = (Some(true), recovery_time, found_age);
        self.proven = self.last.clone();
    }

    /// All of it, as the rules and `status` want it. `failures`: of runs, in a row.
    pub fn reading(&self, now: Moment, failures: u32, next_run: Option<Timestamp>) -> BackupReading {
        let seen = |known: &Option<(SeenBackup, Age)>| {
            known.as_ref().map(|(backup, age)| BackupSeen {
                id: backup.id.clone(),
                consistent_at: backup.consistent_at,
                age: age.at(now),
                size: backup.size,
                corrupt_pages: backup.corrupt_pages,
                recovery_time: backup.recovery_time,
                found_age: backup.found_age,
            })
        };
        let (blind, why_blind) = self.blind.clone().map_or((0, None), |(times, why)| (times, Some(why)));
        BackupReading {
            at: now,
            repository: self.repository.clone(),
            known_for: self.since.at(now),
            max_age: self.max_age,
            looked: self.looked,
            last: seen(&self.last),
            proven: seen(&self.proven),
            failures: failures.max(blind),
            last_error: if failures > 0 { self.error.clone().or(why_blind) } else { why_blind },
            exposures: self.exposures.clone(),
            running: self.running.clone(),
            next_run,
        }
    }
}

/// With its age; where it was known already, as it was counted until now.
fn aged(backup: SeenBackup, before: Option<(SeenBackup, Age)>, now: Moment) -> (SeenBackup, Age) {
    let age = before.filter(|(old, _)| old.id == backup.id).map(|(_, age)| age);
    let age = age.unwrap_or_else(|| Age::of(backup.consistent_at, now));
    (backup, age)
}

#[cfg(test)]
mod tests {
    use model::ByteSize;

    use super::*;

    fn at(wall_s: i64, boot_s: u64) -> Moment {
        Moment { wall: Timestamp::from_second(wall_s).unwrap(), boot_us: boot_s * 1_000_000 }
    }

    fn backup(id: &str, wall_s: i64) -> SeenBackup {
        let moment = Timestamp::from_second(wall_s).unwrap();
        SeenBackup {
            id: id.into(),
            began: moment,
            consistent_at: moment,
            size: ByteSize(1),
            corrupt_pages: 0,
            proven: None,
            recovery_time: None,
            found_age: None,
        }
    }

    #[test]
    fn ages_outlast_a_step_of_the_clock() {
        let seen = |backup: &SeenBackup| Seen {
            last: Some(backup.clone()),
            proven: Some(backup.clone()),
            exposures: Vec::new(),
        };
        let one = backup("a", 1_000);
        let mut known = Known::new("file:///b".into(), None, Timestamp::from_second(0).unwrap(), at(5_000, 10));
        assert!(!known.reading(at(5_000, 10), 0, None).looked);
        known.see(seen(&one), at(5_000, 10));
        // The wall clock is put back by an hour and a look comes again.
        known.see(seen(&one), at(1_500, 110));
        let reading = known.reading(at(1_500, 110), 0, None);
        assert_eq!(reading.proven.unwrap().age, Duration::from_secs(4_100));
        assert_eq!(reading.known_for, Duration::from_secs(5_100));
        // Another backup is another age; one of the future is new.
        known.see(seen(&backup("b", 9_000)), at(1_500, 120));
        assert_eq!(known.reading(at(1_500, 121), 0, None).proven.unwrap().age, Duration::from_secs(1));
    }

    #[test]
    fn a_proof_is_of_the_backup_that_it_names() {
        let now = at(5_000, 10);
        let mut known = Known::new("x".into(), None, now.wall, now);
        known.made(backup("a", 4_990), now);
        known.prove("z", None, None);
        assert_eq!(known.reading(now, 0, None).proven, None);
        known.prove("a", Some(Duration::from_secs(9)), None);
        assert_eq!(known.reading(now, 0, None).proven.unwrap().recovery_time, Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_repository_out_of_reach_is_a_failure() {
        let now = at(5_000, 10);
        let mut known = Known::new("x".into(), None, now.wall, now);
        known.fail_to_see("not mounted".into());
        assert_eq!(known.fail_to_see("not mounted".into()), 2);
        let reading = known.reading(now, 0, None);
        assert_eq!((reading.failures, reading.last_error.as_deref()), (2, Some("not mounted")));
        known.see(Seen::default(), now);
        assert_eq!(known.reading(now, 0, None).failures, 0);
    }
}
