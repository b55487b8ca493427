//! Names of objects of WAL: whoever has the keys computes them, nobody needs a listing.

use data_encoding::HEXLOWER;

use super::RANGE;
use crate::{seal::KeyRing, store::ObjectName};

/// Digits of a chunk's number.
const CHUNK_DIGITS: usize = 8;
/// Longest name of what goes with a segment, in bytes.
const COMPANION_LEN_MAX: usize = 40;

/// Names within one stream.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// `wal/<stream>`.
    prefix: String,
}

/// What an object of WAL is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A whole segment.
    Segment { line: u32, segment: u64 },
    /// A chunk of a segment that grows.
    Chunk { line: u32, segment: u64, n: u32 },
    /// What goes with a segment.
    Companion { line: u32, segment: u64, companion: String },
    /// Which segments of a range are there.
    Index { line: u32, range: u64 },
    /// The page map of a range.
    Map { line: u32, range: u64, version: u32 },
    /// The history of a line.
    History { line: u32 },
}

impl Named {
    /// The line that it is of.
    pub(crate) fn line(&self) -> u32 {
        match self {
            Self::Segment { line, .. }
            | Self::Chunk { line, .. }
            | Self::Companion { line, .. }
            | Self::Index { line, .. }
            | Self::Map { line, .. }
            | Self::History { line } => *line,
        }
    }
}

/// Whether something that goes with a segment may be called so.
pub(super) fn is_companion(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.';
    (1..=COMPANION_LEN_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('.')
        // The directory of chunks.
        && name != "t"
}

impl Names {
    pub(super) fn new(ring: &KeyRing, stream: &[u8]) -> Self {
        Self { prefix: format!("wal/{}", HEXLOWER.encode(&ring.wal_stream(stream))) }
    }

    pub(super) fn of(&self, what: &Named) -> ObjectName {
        let range = |line: &u32, range: u64| format!("{}/{line:08x}/{range:016x}", self.prefix);
        let text = match what {
            Named::Segment { line, segment } => format!("{}/{segment:016x}", range(line, segment / RANGE)),
            Named::Chunk { line, segment, n } => {
                format!("{}/{segment:016x}.t/{n:0width$}", range(line, segment / RANGE), width = CHUNK_DIGITS)
            }
            Named::Companion { line, segment, companion } => {
                format!("{}/{segment:016x}.{companion}", range(line, segment / RANGE))
            }
            Named::Index { line, range: number } => format!("{}/index", range(line, *number)),
            Named::Map { line, range: number, version } => format!("{}/map-{version}", range(line, *number)),
            Named::History { line } => format!("{}/history/{line:08x}", self.prefix),
        };
        ObjectName::new(text).expect("digits and companions' letters are allowed in a name")
    }

    /// What all names of the stream begin with.
    pub(super) fn stream(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// What all names of a line begin with, but for its history.
    pub(super) fn line(&self, line: u32) -> String {
        format!("{}/{line:08x}/", self.prefix)
    }
}

/// What the object `name` is; `None` if it is none of WAL, of whatever stream.
pub(crate) fn parse(name: &str) -> Option<Named> {
    let (stream, rest) = name.strip_prefix("wal/")?.split_once('/')?;
    let found = parse_in_stream(rest)?;
    // Exactly so and not in another spelling.
    let names = Names { prefix: format!("wal/{stream}") };
    (stream.len() == 32 && names.of(&found).as_str() == name).then_some(found)
}

fn parse_in_stream(rest: &str) -> Option<Named> {
    let hex32 = |text: &str| u32::from_str_radix(text, 16).ok();
    let hex64 = |text: &str| u64::from_str_radix(text, 16).ok();
    if let Some(line) = rest.strip_prefix("history/") {
        return Some(Named::History { line: hex32(line)? });
    }
    let mut parts = rest.split('/');
    let line = hex32(parts.next()?)?;
    let range = hex64(parts.next()?)?;
    let (last, chunk) = (parts.next()?, parts.next());
    if let Some(chunk) = chunk {
        let segment = hex64(last.strip_suffix(".t")?)?;
        return Some(Named::Chunk { line, segment, n: chunk.parse().ok()? });
    }
    if last == "index" {
        return Some(Named::Index { line, range });
    }
    if let Some(version) = last.strip_prefix("map-") {
        return Some(Named::Map { line, range, version: version.parse().ok()? });
    }
    match last.split_once('.') {
        None => Some(Named::Segment { line, segment: hex64(last)? }),
        Some((segment, companion)) if is_companion(companion) => {
            Some(Named::Companion { line, segment: hex64(segment)?, companion: companion.to_owned() })
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names { prefix: format!("wal/{}", "ab".repeat(16)) }
    }

    #[test]
    fn names_are_like_this() {
        let prefix = names().prefix;
        let (line, segment) = (3, 0x1_0042);
        for (named, rest) in [
            (Named::Segment { line, segment }, "00000003/0000000000000401/0000000000010042"),
            (Named::Chunk { line, segment, n: 7 }, "00000003/0000000000000401/0000000000010042.t/00000007"),
            (
                Named::Companion { line, segment, companion: "00000028.backup".to_owned() },
                "00000003/0000000000000401/0000000000010042.00000028.backup",
            ),
            (Named::Index { line, range: 1 }, "00000003/0000000000000001/index"),
            (Named::Map { line, range: 1, version: 2 }, "00000003/0000000000000001/map-2"),
            (Named::History { line }, "history/00000003"),
        ] {
            let name = names().of(&named);
            assert_eq!(name.as_str(), format!("{prefix}/{rest}"));
            assert_eq!(parse(name.as_str()), Some(named));
        }
        for bad in [
            "wal/x/history/00000003",
            &format!("{prefix}/history/3"),
            &format!("{prefix}/history/+0000003"),
            &format!("{prefix}/00000003/0000000000000000/0000000000010042"),
            &format!("{prefix}/00000003/0000000000000401/0000000000010042.t"),
            &format!("{prefix}/00000003/0000000000000401/0000000000010042.t/00000007/x"),
            &format!("{prefix}/00000003/0000000000000001/index/1"),
            "pack/ab/cd",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn all_names_come_back(line: u32, segment: u64, n in 0..100_000_000_u32) {
            for named in [
                Named::Segment { line, segment },
                Named::Chunk { line, segment, n },
                Named::Companion { line, segment, companion: "partial".to_owned() },
                Named::Index { line, range: segment },
            ] {
                prop_assert_eq!(parse(names().of(&named).as_str()), Some(named));
            }
        }

        #[test]
        fn no_text_makes_it_panic(rest in "[a-f0-9./t-]{0,60}") {
            let _ = parse(&format!("{}/{rest}", names().prefix));
        }
    }
}
