use proptest::prelude::*;

use super::*;

fn whole() -> Reading {
    Reading {
        names: Source::Read(Some(vec!["PG_VERSION".into(), "global".into()])),
        control: Source::Read(Some(vec![0; control::FILE_LEN])),
        wal: Source::Read(Some(vec![])),
        label: None,
        log: vec![],
    }
}

fn damages(reading: &Reading) -> Vec<Damage> {
    match verdict(reading) {
        Verdict::Damaged { findings } => findings.iter().map(|finding| finding.damage).collect(),
        Verdict::Sound { .. } | Verdict::Unknown { .. } => vec![],
    }
}

#[test]
fn what_is_left_tells_what_is_damaged() {
    let names = |names: &[&str]| Source::Read(Some(names.iter().map(|name| (*name).to_owned()).collect()));
    for (reading, expected) in [
        (Reading { names: Source::Read(None), ..whole() }, Damage::Removed),
        (Reading { names: names(&[]), ..whole() }, Damage::Empty),
        (Reading { names: names(&["lost+found"]), ..whole() }, Damage::Empty),
        (Reading { names: names(&["base", "global"]), ..whole() }, Damage::NoVersion),
        (Reading { control: Source::Read(None), ..whole() }, Damage::NoControlFile),
        (whole(), Damage::ControlFile),
        (Reading { control: Source::Read(Some(vec![7; 12])), ..whole() }, Damage::ControlFile),
    ] {
        assert_eq!(damages(&reading), [expected], "{reading:?}");
    }
    let log =
        vec![Mark { at: None, sign: Sign::NoCheckpoint, line: "postgresql.log: PANIC:  could not locate".into() }];
    assert_eq!(damages(&Reading { log, ..whole() }), [Damage::ControlFile, Damage::NoCheckpoint]);
}

#[test]
fn what_can_not_be_read_is_not_called_damaged() {
    for reading in [
        Reading { names: Source::Missing("permission denied".into()), ..whole() },
        Reading { control: Source::Missing("permission denied".into()), ..whole() },
    ] {
        assert!(matches!(verdict(&reading), Verdict::Unknown { .. }), "{reading:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..9_000), label in any::<String>(), wal in proptest::collection::vec("[0-9A-F]{24}", 0..4)) {
        let control = Source::Read(Some(bytes));
        let reading = Reading { control, wal: Source::Read(Some(wal)), label: Some(label), ..whole() };
        if let Verdict::Damaged { findings } = verdict(&reading) {
            prop_assert!(!findings.is_empty() && findings.iter().all(|finding| !finding.evidence.is_empty()));
        }
    }
}
