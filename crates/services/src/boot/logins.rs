//! Records of boots, shutdowns and sessions: `wtmp`, as utmp(5) describes it.
//!
//! Only the form with 32-bit times is known, which x86-64 and its kin write; files of another length are refused. Any bytes are taken without a panic.

use jiff::Timestamp;

/// Bytes of one record.
pub const RECORD_LEN: usize = 384;

/// The end of a boot, as the records tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// When a shutdown was recorded.
    pub shutdown: Option<Timestamp>,
    /// Who was logged in then: user, terminal and from where.
    pub users: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Boot,
    Shutdown,
    Login { user: String, line: String, from: String },
    Logout { line: String },
}

struct Record {
    at: Timestamp,
    kind: Kind,
}

/// How far the time of a boot's record may be from when the kernel says that it booted: clocks are set in that time.
const BOOT_RECORDED_WITHIN_S: i64 = 300;
/// Users who are told.
const USERS_MAX: usize = 4;

/// How the boot before the one that began at `booted` ended. `None`: the records do not reach into it.
///
/// # Errors
/// In words, where it is no file of such records.
pub fn ending(bytes: &[u8], booted: Timestamp) -> Result<Option<Ending>, String> {
    if !bytes.len().is_multiple_of(RECORD_LEN) {
        return Err(format!("{} bytes are no whole number of records of {RECORD_LEN} bytes", bytes.len()));
    }
    let mut records: Vec<Record> = bytes.chunks_exact(RECORD_LEN).filter_map(record).collect();
    let is_boot = |record: &Record| record.kind == Kind::Boot;
    // That of the present boot, where it is written already, ends what is looked at.
    if let Some(last) = records.iter().rposition(is_boot)
        && (records[last].at.as_second() - booted.as_second()).abs() <= BOOT_RECORDED_WITHIN_S
    {
        records.truncate(last);
    }
    let Some(first) = records.iter().rposition(is_boot) else { return Ok(None) };
    let mut ending = Ending::default();
    let mut sessions: Vec<(String, String)> = Vec::new();
    for record in records.drain(first + 1..) {
        match record.kind {
            Kind::Boot => {}
            Kind::Shutdown => ending.shutdown = Some(record.at),
            Kind::Logout { line } => sessions.retain(|(of, _)| *of != line),
            Kind::Login { user, line, from } => {
                let from = if from.is_empty() { String::new() } else { format!(" from {from}") };
                sessions.retain(|(of, _)| *of != line);
                sessions.push((line.clone(), format!("{user} on {line}{from}")));
            }
        }
    }
    ending.users = sessions.into_iter().rev().take(USERS_MAX).map(|(_, told)| told).collect();
    Ok(Some(ending))
}

fn record(bytes: &[u8]) -> Option<Record> {
    let kind = i16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
    let line = text(bytes.get(8..40)?);
    let user = text(bytes.get(44..76)?);
    let from = text(bytes.get(76..332)?);
    let seconds = u32::from_le_bytes(bytes.get(340..344)?.try_into().ok()?);
    let at = Timestamp::from_second(i64::from(seconds)).ok()?;
    let kind = match kind {
        1 if user == "shutdown" => Kind::Shutdown,
        2 => Kind::Boot,
        7 if !user.is_empty() => Kind::Login { user, line, from },
        8 => Kind::Logout { line },
        _ => return None,
    };
    Some(Record { at, kind })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(kind: i16, line: &str, user: &str, from: &str, at: u32) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_LEN];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..8 + line.len()].copy_from_slice(line.as_bytes());
        bytes[44..44 + user.len()].copy_from_slice(user.as_bytes());
        bytes[76..76 + from.len()].copy_from_slice(from.as_bytes());
        bytes[340..344].copy_from_slice(&at.to_le_bytes());
        bytes
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_boot_before_is_told() {
        let boot = |at| written(2, "~", "reboot", "6.1.0", at);
        let shutdown = |at| written(1, "~", "shutdown", "6.1.0", at);
        let ann = written(7, "pts/0", "ann", "10.0.0.7", 1_500);
        let bob = written(7, "pts/1", "bob", "", 1_600);
        let bob_left = written(8, "pts/1", "", "", 1_700);
        let ending = |records: &[&[u8]], booted| super::ending(&records.concat(), at(booted)).unwrap();
        let told = ending(&[&boot(1_000), &ann, &bob, &bob_left, &shutdown(2_000), &boot(2_060)], 2_050).unwrap();
        assert_eq!(told, Ending { shutdown: Some(at(2_000)), users: vec!["ann on pts/0 from 10.0.0.7".into()] });
        // A shutdown of a boot before that is none of this one's.
        let earlier = [&boot(10)[..], &shutdown(900), &boot(1_000), &ann, &boot(2_060)];
        assert_eq!(ending(&earlier, 2_050).unwrap().shutdown, None);
        // The present boot is not recorded yet.
        assert_eq!(ending(&[&boot(1_000), &shutdown(2_000)], 9_000).unwrap().shutdown, Some(at(2_000)));
        // Nothing is left of the boot before: the file was rotated, or nobody writes it.
        assert_eq!(ending(&[&boot(2_060)], 2_050), None);
        assert_eq!(ending(&[], 2_050), None);
        assert!(super::ending(&[1; 385], at(0)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(records in proptest::collection::vec(any::<u8>(), 0..2_000), booted in 0_i64..4_000_000_000) {
            let _ = ending(&records, at(booted));
            let whole = records.len() / RECORD_LEN * RECORD_LEN;
            prop_assert!(ending(&records[..whole], at(booted)).is_ok());
        }
    }
}
