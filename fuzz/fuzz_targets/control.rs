//! Control files and pages: no input panics, and a damaged control file is never taken for a sound one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::Lsn;
use pg_format::{ControlFile, Major, page};

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    // With a version and a CRC that fit, so that the fields are reached.
    if let Some((first, rest)) = bytes.split_first() {
        let major = Major::ALL[usize::from(*first) % Major::ALL.len()];
        let mut file = rest.to_vec();
        file.resize(512, 0);
        file[8..12].copy_from_slice(&major.control_version().to_le_bytes());
        file[12..16].copy_from_slice(&major.catalog_version().to_le_bytes());
        // Both places where a CRC can be; only one of them is the version's.
        for at in [288, 292] {
            let crc = pg_format_crc(&file[..at]);
            let mut sealed = file.clone();
            sealed[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(control) = ControlFile::parse(&sealed) {
                assert!(control.wal_segment_size.is_power_of_two() && control.segment_blocks > 0);
            }
        }
    }
    let bounds = page::Bounds { start: Lsn(1 << 40), insert: Lsn(1 << 41), checksums: true };
    let _ = page::verify(bytes, 7, &bounds);
});

/// CRC-32C, bit by bit: a second opinion on the table that the crate uses.
fn pg_format_crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}
