//! Rules about WAL: what is not in the repository, and what slots keep on the server.

use model::{
    ByteSize, Lsn, Reading,
    reading::{Archiver, FileSystem, Gap, HostReading, ReceiveReading, SlotReading, WalReading},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fine(ms: u64) -> ReceiveReading {
    ReceiveReading {
        at: at(ms),
        repository: "file:///srv/backup".into(),
        max_behind: 60 * SECOND,
        receiving: true,
        timeline: Some(1),
        durable: Some(Lsn(100)),
        server: Some(Lsn(100)),
        behind: SECOND,
        canary: None,
        failures: 0,
        last_error: None,
        gap: None,
    }
}

fn of_receiver(reading: ReceiveReading) -> Observation {
    Observation::Reading(Reading::Receive(reading))
}

fn behind(ms: u64, seconds: u32) -> Observation {
    of_receiver(ReceiveReading { behind: SECOND * seconds, ..fine(ms) })
}

#[test]
fn what_is_behind() {
    let gap = Gap { from: Lsn(1), to: Lsn(2) };
    for (what, reading, says) in [
        ("all is well", of_receiver(fine(0)), vec![]),
        ("as far as it may be", behind(0, 60), vec![]),
        ("further", behind(0, 61), vec!["wal-behind fires warning"]),
        ("much further", behind(0, 601), vec!["wal-behind fires critical"]),
        (
            "missing for good",
            of_receiver(ReceiveReading { gap: Some(gap), ..fine(0) }),
            vec!["wal-behind fires critical"],
        ),
    ] {
        let fired = observe(&mut rules(), [reading]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
    }
    let said = observe(&mut rules(), [behind(0, 61), behind(1_000, 59), behind(2_000, 31), behind(3_000, 1)]);
    assert_eq!(names(&said), ["wal-behind fires warning", "wal-behind resolves warning"]);
    assert_eq!(said[0].summary, "main: the last 1 min 1 s of WAL are not in the repository, more than 1 min 0 s");
    assert_eq!(said[1].decided, at(3_000), "half of what it may be is well again");
}

fn slot(retained_mib: u64, safe_mib: Option<u64>, status: &str) -> SlotReading {
    SlotReading {
        name: "oxpecker".into(),
        active: false,
        retained: ByteSize(retained_mib << 20),
        wal_status: Some(status.into()),
        safe: safe_mib.map(|mib| ByteSize(mib << 20)),
    }
}

fn of_slots(ms: u64, slots: Vec<SlotReading>) -> Observation {
    Observation::Reading(Reading::Wal(WalReading {
        at: at(ms),
        checkpoints_timed: 0,
        checkpoints_requested: 0,
        lsn: Lsn(0),
        wal_per_second: None,
        max_wal: None,
        checkpoint_timeout: None,
        archiver: Archiver::default(),
        slots,
    }))
}

#[test]
fn what_slots_keep() {
    for (what, one, says) in [
        ("little", slot(63, Some(1), "reserved"), vec![]),
        ("less than half", slot(400, Some(600), "extended"), vec![]),
        ("half of the limit", slot(500, Some(500), "extended"), vec!["slot-retaining fires warning"]),
        ("most of it", slot(900, Some(100), "extended"), vec!["slot-retaining fires critical"]),
        ("given up soon", slot(900, None, "unreserved"), vec!["slot-retaining fires critical"]),
        ("given up", slot(0, None, "lost"), vec!["slot-retaining fires critical"]),
        ("no limit, and nothing known of the disk", slot(900, None, "extended"), vec![]),
    ] {
        // Another slot that is well hides nothing.
        let reading = |ms| of_slots(ms, vec![slot(0, Some(1_000), "reserved"), one.clone()]);
        let fired = observe(&mut rules(), [reading(0), reading(10_000)]);
        assert_eq!(names(&fired), says, "{what}");
        fired.iter().for_each(check_shape);
    }
    // Where nothing bounds a slot, the fullest disk does.
    let disk = |available: u64| {
        let disk = FileSystem {
            path: "/srv".into(),
            total: ByteSize(1 << 40),
            available: ByteSize(available << 20),
            inodes: 0,
            inodes_free: 0,
        };
        let wide = FileSystem { available: ByteSize(1 << 39), ..disk.clone() };
        Observation::Reading(Reading::Host(HostReading { file_systems: [wide, disk].into(), ..host(0) }))
    };
    let unbounded = |ms| of_slots(ms, vec![slot(900, None, "extended")]);
    let fired = observe(&mut rules(), [disk(100), unbounded(0), unbounded(10_000)]);
    assert_eq!(names(&fired), ["slot-retaining fires critical"]);
    assert!(fired[0].details[0].contains("no limit but the disk"), "{:?}", fired[0].details);
    assert_eq!(names(&observe(&mut rules(), [disk(5_000), unbounded(0), unbounded(10_000)])), Vec::<String>::new());
    let said = observe(
        &mut rules(),
        [
            of_slots(0, vec![slot(900, Some(100), "extended")]),
            of_slots(10_000, vec![slot(900, Some(100), "extended")]),
            of_slots(20_000, vec![slot(450, Some(550), "extended")]),
            of_slots(30_000, vec![]),
        ],
    );
    assert_eq!(names(&said), ["slot-retaining fires critical", "slot-retaining resolves critical"]);
    assert_eq!(said[0].summary, "main: slot oxpecker keeps 900 MiB of WAL, 90 % of its limit");
}
