//! Rules about backups.

use model::{
    ByteSize, Reading,
    reading::{BackupReading, BackupSeen, Exposure},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn seen(age: Duration) -> BackupSeen {
    BackupSeen {
        id: "a5".repeat(16),
        consistent_at: Timestamp::from_second(START_S).unwrap(),
        age,
        size: ByteSize(5 << 30),
        corrupt_pages: 0,
        recovery_time: Some(Duration::from_secs(42)),
        found_age: None,
    }
}

/// All is well: backed up and proven eight hours ago.
fn fine(ms: u64) -> BackupReading {
    BackupReading {
        at: at(ms),
        repository: "file:///srv/backup".into(),
        known_for: 1000 * HOUR,
        max_age: Some(48 * HOUR),
        looked: true,
        last: Some(seen(8 * HOUR)),
        proven: Some(seen(8 * HOUR)),
        failures: 0,
        last_error: None,
        exposures: Vec::new(),
        running: None,
        next_run: Some(Timestamp::from_second(START_S + 50_000).unwrap()),
    }
}

fn of_backup(reading: BackupReading) -> Observation {
    Observation::Reading(Reading::Backup(Box::new(reading)))
}

#[test]
fn what_each_reading_says() {
    let never = |ms, known_for| BackupReading { known_for, proven: None, ..fine(ms) };
    let proven = |ms, age| BackupReading { proven: Some(seen(age)), ..fine(ms) };
    let exposed = |ms, exposures: &[Exposure]| BackupReading { exposures: exposures.to_vec(), ..fine(ms) };
    let disk = Exposure::SameDisk { path: "/srv/backup".into() };
    let error = Some("the disk is full".to_owned());
    for (what, reading, says) in [
        ("all is well", fine(0), vec![]),
        (
            "one failure is nobody's business",
            BackupReading { failures: 1, last_error: error.clone(), ..fine(0) },
            vec![],
        ),
        ("two are", BackupReading { failures: 2, last_error: error, ..fine(0) }, vec!["backup-failing fires warning"]),
        (
            "damaged pages are said at once",
            BackupReading { last: Some(BackupSeen { corrupt_pages: 3, ..seen(HOUR) }), ..fine(0) },
            vec!["backup-failing fires critical"],
        ),
        ("as old as it may be", proven(0, 48 * HOUR), vec![]),
        ("older", proven(0, 49 * HOUR), vec!["backup-unproven fires warning"]),
        ("much older", proven(0, 145 * HOUR), vec!["backup-unproven fires critical"]),
        ("never, but the guard is new here", never(0, 47 * HOUR), vec![]),
        ("never", never(0, 49 * HOUR), vec!["backup-unproven fires warning"]),
        ("the repository was not looked at yet", BackupReading { looked: false, ..never(0, 900 * HOUR) }, vec![]),
        ("nobody said how old", BackupReading { max_age: None, ..never(0, 900 * HOUR) }, vec![]),
        ("no recovery key", exposed(0, &[Exposure::NoRecoveryKey]), vec!["repository-unprotected fires info"]),
        ("the same disk", exposed(0, std::slice::from_ref(&disk)), vec!["repository-unprotected fires warning"]),
        ("both", exposed(0, &[Exposure::NoRecoveryKey, disk]), vec!["repository-unprotected fires warning"]),
    ] {
        let fired = observe(&mut rules(), [of_backup(reading)]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
    }
}

#[test]
fn they_begin_and_end_once() {
    let mut rules = rules();
    let minute = |n: u64| n * 60_000;
    let failing = |n| of_backup(BackupReading { failures: 2, last_error: Some("no".into()), ..fine(minute(n)) });
    let old = |n| of_backup(BackupReading { proven: Some(seen(50 * HOUR)), ..fine(minute(n)) });
    let said =
        observe(&mut rules, [of_backup(fine(0)), failing(1), failing(2), failing(3), of_backup(fine(minute(4)))]);
    assert_eq!(names(&said), ["backup-failing fires warning", "backup-failing resolves warning"]);
    assert_eq!(said[0].summary, "main: backups fail, 2 in a row; newest proven backup: 8 h 0 min old");
    let said = observe(&mut rules, [old(5), old(6), of_backup(fine(minute(7)))]);
    assert_eq!(names(&said), ["backup-unproven fires warning", "backup-unproven resolves warning"]);
    assert_eq!(said[0].summary, "main: newest proven backup is 2 days old, more than 2 days");
}

#[test]
fn a_month_of_nights_is_quiet() {
    let mut rules = rules();
    // Each night a backup, one failed attempt in between, readings every minute of the first hour after it.
    let readings = (0..30_u64).flat_map(|day| {
        (0..60_u64).map(move |minute| {
            let age = if minute < 20 { 24 * HOUR } else { HOUR };
            let failures = u32::from(minute > 10 && minute < 20 && day % 7 == 0);
            let proven = Some(seen(age));
            of_backup(BackupReading { proven, failures, ..fine((day * 1440 + minute) * 60_000) })
        })
    });
    assert_eq!(names(&observe(&mut rules, readings)), Vec::<String>::new());
}
