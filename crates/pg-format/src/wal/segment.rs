//! Segments: arithmetic for every size that initdb takes, and the names of files in `pg_wal`.

use std::fmt;

use model::Lsn;

/// The size of a cluster's WAL segments (`wal_segment_size`): a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u64);

/// No size of WAL segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} bytes is no size of WAL segments; hint: it is a power of two from 1 MiB to 1 GiB, see SHOW wal_segment_size"
)]
pub struct BadSegmentSize(pub u64);

impl SegmentSize {
    /// What initdb takes by default: 16 MiB.
    pub const DEFAULT: Self = Self(1 << 24);

    /// Checks a number of bytes.
    ///
    /// # Errors
    /// When no cluster can have it.
    pub const fn new(bytes: u64) -> Result<Self, BadSegmentSize> {
        let fits = bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30;
        if fits { Ok(Self(bytes)) } else { Err(BadSegmentSize(bytes)) }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments a "log file" of 4 GiB has, as the file names count.
    const fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }

    /// The number of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// The number of the segment that holds the last byte before `lsn`: where a range that ends there ends.
    #[must_use]
    pub const fn number_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    /// Where segment `number` starts. The last possible one for numbers beyond.
    #[must_use]
    pub const fn start_of(self, number: u64) -> Lsn {
        Lsn(match number.checked_mul(self.bytes()) {
            Some(start) => start,
            None => !(self.bytes() - 1),
        })
    }

    /// How far into its segment `lsn` is.
    #[must_use]
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// A segment of a timeline. Ordered as WAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline's id.
    pub timeline: u32,
    /// The segment's number: its start divided by the segments' size.
    pub number: u64,
}

impl SegmentName {
    /// The segment of `timeline` that holds the byte at `lsn`.
    #[must_use]
    pub const fn holding(timeline: u32, lsn: Lsn, size: SegmentSize) -> Self {
        Self { timeline, number: size.number_of(lsn) }
    }

    /// The next one of the same timeline.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), ..self }
    }

    /// The name of its file: 24 hexadecimal digits, as `000000010000000000000001`.
    #[must_use]
    pub fn file_name(self, size: SegmentSize) -> String {
        let (log, segment) = (self.number / size.per_log(), self.number % size.per_log());
        format!("{:08X}{log:08X}{segment:08X}", self.timeline)
    }

    /// Reads the name of a file of exactly a segment; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let (timeline, rest) = hex8(name)?;
        let (log, rest) = hex8(rest)?;
        let (segment, rest) = hex8(rest)?;
        let fits = rest.is_empty() && u64::from(segment) < size.per_log();
        fits.then(|| Self { timeline, number: u64::from(log) * size.per_log() + u64::from(segment) })
    }
}

/// A file of `pg_wal` or of an archive, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalFile {
    /// A segment.
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that ended by a promotion: `....partial`.
    Partial(SegmentName),
    /// What a base backup left as a note: `....00000028.backup`.
    BackupHistory(SegmentName),
    /// Where timelines branched off: `00000002.history`.
    History(u32),
}

impl WalFile {
    /// Reads a name; `None` for files that are none of these.
    #[must_use]
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        if let Some(timeline) = name.strip_suffix(".history") {
            return hex8(timeline).filter(|(_, rest)| rest.is_empty()).map(|(timeline, _)| Self::History(timeline));
        }
        let segment = SegmentName::parse(name.get(..24)?, size)?;
        match &name[24..] {
            "" => Some(Self::Segment(segment)),
            ".partial" => Some(Self::Partial(segment)),
            rest => {
                let (_, rest) = hex8(rest.strip_prefix('.')?)?;
                (rest == ".backup").then_some(Self::BackupHistory(segment))
            }
        }
    }
}

/// Eight upper-case hexadecimal digits, as PostgreSQL writes them, and what follows.
fn hex8(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(8)?;
    let fits = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    Some((fits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let mib = |mib: u64| SegmentSize::new(mib << 20).unwrap();
        for (timeline, lsn, size, name) in [
            (1, 0x0100_0000, 16, "000000010000000000000001"),
            (0x2A, 0x16_B374_D848, 16, "0000002A00000016000000B3"),
            (1, 0x16_B374_D848, 1, "000000010000001600000B37"),
            (1, 0x16_B374_D848, 1024, "000000010000001600000002"),
            (1, 0xFFFF_FFFF, 64, "00000001000000000000003F"),
        ] {
            let segment = SegmentName::holding(timeline, Lsn(lsn), mib(size));
            assert_eq!(segment.file_name(mib(size)), name);
            assert_eq!(SegmentName::parse(name, mib(size)), Some(segment));
        }
        let size = SegmentSize::DEFAULT;
        for name in [
            "",
            "00000001000000000000000",
            "0000000100000000000000010",
            "000000010000000000000100",
            "00000001000000000000000a",
            "é0000001000000000000001",
        ] {
            assert_eq!(SegmentName::parse(name, size), None, "{name}");
        }
    }

    #[test]
    fn files() {
        let size = SegmentSize::DEFAULT;
        let segment = SegmentName { timeline: 1, number: 2 };
        for (name, expected) in [
            ("000000010000000000000002", Some(WalFile::Segment(segment))),
            ("000000010000000000000002.partial", Some(WalFile::Partial(segment))),
            ("000000010000000000000002.00000028.backup", Some(WalFile::BackupHistory(segment))),
            ("000000010000000000000002.0000002.backup", None),
            ("000000010000000000000002.gz", None),
            ("0000000C.history", Some(WalFile::History(12))),
            ("000000C.history", None),
            ("archive_status", None),
        ] {
            assert_eq!(WalFile::parse(name, size), expected, "{name}");
        }
    }

    #[test]
    fn bounds() {
        let size = SegmentSize::DEFAULT;
        assert_eq!((size.number_of(Lsn(1 << 24)), size.number_before(Lsn(1 << 24))), (1, 0));
        assert_eq!((size.number_before(Lsn(0)), size.offset_of(Lsn(0x0100_0028))), (0, 0x28));
        assert_eq!(size.start_of(u64::MAX), Lsn(0xFFFF_FFFF_FF00_0000));
        for bytes in [0, 1 << 19, (1 << 24) + 1, 1 << 31, 1 << 33] {
            assert_eq!(SegmentSize::new(bytes), Err(BadSegmentSize(bytes)));
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_back(timeline: u32, lsn: u64, power in 20u32..=30) {
            let size = SegmentSize::new(1 << power).unwrap();
            let segment = SegmentName::holding(timeline, Lsn(lsn), size);
            prop_assert_eq!(SegmentName::parse(&segment.file_name(size), size), Some(segment));
            prop_assert_eq!(size.start_of(segment.number).0 + size.offset_of(Lsn(lsn)), lsn);
        }

        #[test]
        fn no_name_panics(name in "\\PC*") {
            let _ = WalFile::parse(&name, SegmentSize::DEFAULT);
        }
    }
}
