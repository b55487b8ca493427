//! How the bodies of readings are stored: as JSON in a zlib stream (RFC 1950).
//!
//! Two readings a second of some 2 KiB each would not fit a day into the default size, and leave half of each page empty. Deflated they take a third,
//! for some 0.1 ms of CPU each. Events are few, and stay plain for whoever looks with the `sqlite3` shell.

use miniz_oxide::{deflate::compress_to_vec_zlib, inflate::decompress_to_vec_zlib_with_limit};

/// Level 1 is within a few per cent of the best for texts this short.
const LEVEL: u8 = 1;
/// No reading is larger; a damaged one must not take more memory than that.
const LARGEST: usize = 1 << 20;

/// What is stored for a reading.
pub(crate) fn pack(json: &str) -> Vec<u8> {
    compress_to_vec_zlib(json.as_bytes(), LEVEL)
}

/// The reading's JSON; `None` for what this version can't read.
pub(crate) fn unpack(stored: &[u8]) -> Option<Vec<u8>> {
    decompress_to_vec_zlib_with_limit(stored, LARGEST).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_nothing_else() {
        for json in ["", "{}", &"{\"reading\":\"host\"}".repeat(1000)] {
            assert_eq!(unpack(&pack(json)).as_deref(), Some(json.as_bytes()));
        }
        assert_eq!(unpack(b"{}"), None);
        assert_eq!(unpack(&pack(&" ".repeat(LARGEST + 1))), None, "no bomb");
        let mut damaged = pack(&"x".repeat(100));
        damaged.pop();
        assert_eq!(unpack(&damaged), None);
    }
}
