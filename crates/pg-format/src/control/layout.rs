//! Where the control file's fields lie, and which version has which: the only place that knows.

use std::ops::RangeInclusive;

use model::Lsn;

use super::{Checkpoint, ControlError, ControlFile, State, WalLevel};
use crate::{Major, le};

/// `floatFormat`: the same number has other bytes on a machine with other floating-point numbers.
const FLOAT_FORMAT: f64 = 1_234_567.0;
/// `maxAlign` of the machines that are known here.
const MAX_ALIGN: u32 = 8;
/// Length of a checkpoint in the control file and in its WAL record. 17 gave `wal_level` a place that was padding.
pub(crate) const CHECKPOINT_LEN: usize = 88;
/// Sizes of pages that PostgreSQL can be built with, of relations and of WAL.
const BLOCK_SIZES: RangeInclusive<u32> = 1024..=65_536;
/// Sizes of WAL segments that initdb takes.
const WAL_SEGMENT_SIZES: RangeInclusive<u32> = (1 << 20)..=(1 << 30);

/// What 18 moved: it put `default_char_signedness` before the nonce of 32 bytes, and so the CRC four bytes on.
struct Layout {
    char_signedness: Option<usize>,
    crc: usize,
}

const fn layout(major: Major) -> Layout {
    match major {
        Major::V13 | Major::V14 | Major::V15 | Major::V16 | Major::V17 => Layout { char_signedness: None, crc: 288 },
        Major::V18 => Layout { char_signedness: Some(256), crc: 292 },
    }
}

/// The major version from which the checkpoint holds `wal_level`.
const WAL_LEVEL_IN_CHECKPOINT: Major = Major::V17;

/// Reads a checkpoint as the control file and the records of checkpoints hold it.
pub(crate) fn checkpoint(major: Major, bytes: &[u8]) -> Option<Checkpoint> {
    let bytes = bytes.get(..CHECKPOINT_LEN)?;
    let wal_level = if major >= WAL_LEVEL_IN_CHECKPOINT { WalLevel::from_number(le::i32(bytes, 20)?) } else { None };
    Some(Checkpoint {
        redo: Lsn(le::u64(bytes, 0)?),
        timeline: le::u32(bytes, 8)?,
        previous_timeline: le::u32(bytes, 12)?,
        full_page_writes: le::u8(bytes, 16)? != 0,
        wal_level,
        next_xid: le::u64(bytes, 24)?,
        next_oid: le::u32(bytes, 32)?,
        time: le::i64(bytes, 64)?,
    })
}

pub(super) fn parse(bytes: &[u8]) -> Result<ControlFile, ControlError> {
    let short = || ControlError::Short { len: bytes.len() };
    let (control_version, catalog_version) = super::versions(bytes).ok_or_else(short)?;
    let known = Major::from_catalog_version(catalog_version).filter(|major| major.control_version() == control_version);
    let major = known.ok_or(ControlError::Unsupported { control_version, catalog_version })?;
    let layout = layout(major);
    let stored = le::u32(bytes, layout.crc).ok_or_else(short)?;
    let computed = crc32c::crc32c(bytes.get(..layout.crc).ok_or_else(short)?);
    if stored != computed {
        return Err(ControlError::Crc { stored, computed });
    }
    let state = le::i32(bytes, 16).ok_or_else(short)?;
    let state = usize::try_from(state)
        .ok()
        .and_then(|index| State::ALL.get(index).copied())
        .ok_or_else(|| wrong("the state", &state))?;
    let wal_level = le::i32(bytes, 172).ok_or_else(short)?;
    let wal_level = WalLevel::from_number(wal_level).ok_or_else(|| wrong("wal_level", &wal_level))?;
    let file = fields(bytes, major, &layout, state, wal_level).ok_or_else(short)?;
    let float = f64::from_le_bytes(le::array(bytes, 208).ok_or_else(short)?);
    if float.to_bits() != FLOAT_FORMAT.to_bits() {
        return Err(wrong("floatFormat", &float));
    }
    let align = le::u32(bytes, 204).ok_or_else(short)?;
    if align != MAX_ALIGN {
        return Err(wrong("maxAlign", &align));
    }
    check_size("the block size", file.block_size, &BLOCK_SIZES)?;
    check_size("the WAL block size", file.wal_block_size, &BLOCK_SIZES)?;
    check_size("the WAL segment size", file.wal_segment_size, &WAL_SEGMENT_SIZES)?;
    if file.segment_blocks == 0 {
        return Err(wrong("the number of blocks of a segment", &0));
    }
    Ok(file)
}

fn wrong(field: &'static str, value: &dyn ToString) -> ControlError {
    ControlError::Field { field, value: value.to_string() }
}

fn check_size(field: &'static str, value: u32, range: &RangeInclusive<u32>) -> Result<(), ControlError> {
    if value.is_power_of_two() && range.contains(&value) { Ok(()) } else { Err(wrong(field, &value)) }
}

fn fields(bytes: &[u8], major: Major, layout: &Layout, state: State, wal_level: WalLevel) -> Option<ControlFile> {
    let flag = |offset| le::u8(bytes, offset).map(|byte| byte != 0);
    let lsn = |offset| le::u64(bytes, offset).map(Lsn);
    Some(ControlFile {
        major,
        system_identifier: le::u64(bytes, 0)?,
        control_version: le::u32(bytes, 8)?,
        catalog_version: le::u32(bytes, 12)?,
        state,
        time: le::i64(bytes, 24)?,
        checkpoint_lsn: lsn(32)?,
        checkpoint: checkpoint(major, bytes.get(40..)?)?,
        min_recovery_point: lsn(136)?,
        min_recovery_timeline: le::u32(bytes, 144)?,
        backup_start: lsn(152)?,
        backup_end: lsn(160)?,
        backup_end_required: flag(168)?,
        wal_level,
        wal_log_hints: flag(176)?,
        max_connections: le::i32(bytes, 180)?,
        max_worker_processes: le::i32(bytes, 184)?,
        max_wal_senders: le::i32(bytes, 188)?,
        max_prepared_transactions: le::i32(bytes, 192)?,
        max_locks_per_transaction: le::i32(bytes, 196)?,
        track_commit_timestamp: flag(200)?,
        block_size: le::u32(bytes, 216)?,
        segment_blocks: le::u32(bytes, 220)?,
        wal_block_size: le::u32(bytes, 224)?,
        wal_segment_size: le::u32(bytes, 228)?,
        data_checksum_version: le::u32(bytes, 252)?,
        default_char_signedness: match layout.char_signedness {
            Some(offset) => Some(flag(offset)?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file as a server of that version would write it, as far as fields are looked at.
    fn file(major: Major) -> Vec<u8> {
        let mut bytes = vec![0; super::super::FILE_LEN];
        let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &42u64.to_le_bytes());
        put(8, &major.control_version().to_le_bytes());
        put(12, &major.catalog_version().to_le_bytes());
        put(16, &6i32.to_le_bytes());
        put(40, &0x1_0000_0028u64.to_le_bytes());
        put(48, &3u32.to_le_bytes());
        put(60, &1i32.to_le_bytes());
        put(172, &1i32.to_le_bytes());
        put(204, &8u32.to_le_bytes());
        put(208, &FLOAT_FORMAT.to_le_bytes());
        for (offset, value) in [(216, 8192u32), (220, 131_072), (224, 8192), (228, 1 << 24), (252, 1)] {
            put(offset, &value.to_le_bytes());
        }
        seal(major, &mut bytes);
        bytes
    }

    fn seal(major: Major, bytes: &mut [u8]) {
        let at = layout(major).crc;
        let crc = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn all_versions_are_read() {
        for major in Major::ALL {
            let file = parse(&file(major)).unwrap();
            assert_eq!((file.major, file.system_identifier, file.state), (major, 42, State::InProduction));
            assert_eq!((file.checkpoint.redo, file.checkpoint.timeline), (Lsn(0x1_0000_0028), 3));
            assert_eq!(file.checkpoint.wal_level.is_some(), major >= Major::V17);
            assert_eq!(file.default_char_signedness, (major == Major::V18).then_some(false));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = file(Major::V16);
        assert_eq!(parse(&good[..100]), Err(ControlError::Short { len: 100 }));
        assert_eq!(parse(&[]), Err(ControlError::Short { len: 0 }));
        let changed = |offset: usize, value: u32| {
            let mut bytes = good.clone();
            bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        assert!(matches!(parse(&changed(180, 1)), Err(ControlError::Crc { .. })));
        assert!(matches!(parse(&changed(12, 1)), Err(ControlError::Unsupported { catalog_version: 1, .. })));
        for (offset, value, field) in [
            (16, 7, "the state"),
            (172, 9, "wal_level"),
            (204, 4, "maxAlign"),
            (216, 8191, "the block size"),
            (220, 0, "the number of blocks of a segment"),
            (228, 1 << 31, "the WAL segment size"),
            (208, 1, "floatFormat"),
        ] {
            let mut bytes = changed(offset, value);
            seal(Major::V16, &mut bytes);
            let found = parse(&bytes).unwrap_err();
            assert!(matches!(&found, ControlError::Field { field: found, .. } if *found == field), "{found}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), major in 0usize..6, resealed: bool) {
            let major = Major::ALL[major];
            if let Some(versions) = bytes.get_mut(8..16) {
                versions[..4].copy_from_slice(&major.control_version().to_le_bytes());
                versions[4..].copy_from_slice(&major.catalog_version().to_le_bytes());
            }
            if resealed && bytes.len() >= 296 {
                seal(major, &mut bytes);
            }
            let _ = parse(&bytes);
        }
    }
}
