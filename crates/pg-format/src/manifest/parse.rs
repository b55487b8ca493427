//! Reading a manifest.

use std::{
    fmt,
    io::{self, Read},
};

use model::Lsn;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use sha2::{Digest, Sha256};

use super::{Algorithm, Checksum, ManifestFile, ManifestSummary, WalRange, from_hex, to_hex};

/// The longest line that is taken: a file's entry with a path of 4096 bytes, each escaped, is far below.
const LINE_MAX: usize = 1 << 20;
/// The most WAL ranges that are taken: one per timeline that a backup touches.
const WAL_RANGES_MAX: usize = 10_000;

/// A manifest that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It can't be read.
    #[error("backup_manifest: {0}; hint: see that the file is there and readable")]
    Read(#[source] io::Error),
    /// It is not what a manifest is.
    #[error("backup_manifest: {0}; hint: it is damaged or cut off, or of a version newer than 2")]
    Malformed(#[source] serde_json::Error),
    /// Its last line does not fit what is before it.
    #[error(
        "backup_manifest: its checksum is {stored}, computed is {computed}; hint: it was changed or damaged: do not trust this backup"
    )]
    Checksum {
        /// As stored.
        stored: String,
        /// As it should be.
        computed: String,
    },
    /// The last line has no newline or is no line of its own.
    #[error("backup_manifest: its checksum is not on a line of its own at the end; hint: it was cut off or changed")]
    LastLine,
}

/// Reads a whole manifest that lies in memory, with its files in order.
///
/// # Errors
/// See [`read`].
pub fn parse(bytes: &[u8]) -> Result<(ManifestSummary, Vec<ManifestFile>), ManifestError> {
    let mut files = Vec::new();
    let summary = read(bytes, |file| files.push(file))?;
    Ok((summary, files))
}

/// Reads a manifest and hands out its files in order, one at a time. Believe them only when it returns without an error: the checksum comes
/// last.
///
/// # Errors
/// When it can't be read, is malformed, or its checksum does not fit.
pub fn read(reader: impl Read, mut on_file: impl FnMut(ManifestFile)) -> Result<ManifestSummary, ManifestError> {
    let mut hashing = Hashing { reader, hash: Sha256::new(), last_line: Vec::new(), lines: 0 };
    let mut deserializer = serde_json::Deserializer::from_reader(io::BufReader::new(&mut hashing));
    let parsed = deserializer.deserialize_map(Manifest { on_file: &mut on_file });
    let (summary, stored) = parsed.and_then(|parsed| deserializer.end().map(|()| parsed)).map_err(|error| {
        if error.is_io() { ManifestError::Read(error.into()) } else { ManifestError::Malformed(error) }
    })?;
    drop(deserializer);
    // The parser has seen the end: all bytes have passed.
    if hashing.last_line.last() != Some(&b'\n') || hashing.lines == 0 {
        return Err(ManifestError::LastLine);
    }
    let line_is_checksum = hashing.last_line.windows(stored.len()).any(|window| window == stored.as_bytes());
    if !line_is_checksum {
        return Err(ManifestError::LastLine);
    }
    let computed = to_hex(&hashing.hash.finalize());
    if computed != stored.to_ascii_lowercase() {
        return Err(ManifestError::Checksum { stored, computed });
    }
    Ok(summary)
}

/// Hashes all lines but the last as they pass by.
struct Hashing<R> {
    reader: R,
    hash: Sha256,
    /// The last line so far, and what there is of the next.
    last_line: Vec<u8>,
    lines: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.last_line.extend_from_slice(&buffer[..count]);
        // The newline at the very end, if it is there, ends the last line; the one before it ends the line before.
        let inner = self.last_line.len().saturating_sub(1);
        if let Some(at) = self.last_line[..inner].iter().rposition(|byte| *byte == b'\n') {
            self.hash.update(&self.last_line[..=at]);
            self.last_line.drain(..=at);
            self.lines += 1;
        }
        if self.last_line.len() > LINE_MAX + buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than a mebibyte"));
        }
        Ok(count)
    }
}

struct Manifest<'a> {
    on_file: &'a mut dyn FnMut(ManifestFile),
}

impl<'de> Visitor<'de> for Manifest<'_> {
    type Value = (ManifestSummary, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        const VERSION: &str = "PostgreSQL-Backup-Manifest-Version";
        if map.next_key::<String>()?.as_deref() != Some(VERSION) {
            return Err(A::Error::custom("it does not begin with its version"));
        }
        let version: u32 = map.next_value()?;
        if !(1..=2).contains(&version) {
            return Err(A::Error::custom(format!("its version is {version}")));
        }
        let (mut system_identifier, mut wal_ranges, mut checksum, mut files) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let again = match key.as_str() {
                "System-Identifier" if version >= 2 => system_identifier.replace(map.next_value::<u64>()?).is_some(),
                "Files" => files.replace(map.next_value_seed(Files(&mut *self.on_file))?).is_some(),
                "WAL-Ranges" => wal_ranges.replace(map.next_value_seed(WalRanges)?).is_some(),
                "Manifest-Checksum" => checksum.replace(map.next_value::<String>()?).is_some(),
                _ => return Err(A::Error::custom(format!("it has the unknown key {key:?}"))),
            };
            if again {
                return Err(A::Error::custom(format!("it has {key:?} twice")));
            }
        }
        if version >= 2 && system_identifier.is_none() {
            return Err(A::Error::custom("it lacks its system identifier"));
        }
        let checksum = checksum.filter(|text| from_hex(text).is_some_and(|bytes| bytes.len() == 32));
        let checksum = checksum.ok_or_else(|| A::Error::custom("it lacks its checksum"))?;
        let (files, wal_ranges) = (files.unwrap_or(0), wal_ranges.unwrap_or_default());
        Ok((ManifestSummary { version, system_identifier, wal_ranges, files }, checksum))
    }
}

struct Files<'a>(&'a mut dyn FnMut(ManifestFile));

impl<'de> DeserializeSeed<'de> for Files<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Files<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<u64, A::Error> {
        let mut count = 0;
        while let Some(raw) = sequence.next_element::<RawFile>()? {
            (self.0)(raw.check().map_err(A::Error::custom)?);
            count += 1;
        }
        Ok(count)
    }
}

struct WalRanges;

impl<'de> DeserializeSeed<'de> for WalRanges {
    type Value = Vec<WalRange>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for WalRanges {
    type Value = Vec<WalRange>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of WAL ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut ranges = Vec::new();
        while let Some(RawRange { timeline, start, end }) = sequence.next_element()? {
            if ranges.len() == WAL_RANGES_MAX {
                return Err(A::Error::custom("it has too many WAL ranges"));
            }
            ranges.push(WalRange { timeline, start, end });
        }
        Ok(ranges)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: Lsn,
    #[serde(rename = "End-LSN")]
    end: Lsn,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified", default)]
    last_modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<Algorithm>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

impl RawFile {
    fn check(self) -> Result<ManifestFile, String> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or_else(|| format!("Encoded-Path {hex:?} is not hexadecimal"))?,
            _ => return Err("a file must have either Path or Encoded-Path".to_owned()),
        };
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(hex)) => match from_hex(&hex) {
                Some(bytes) if bytes.len() == algorithm.checksum_len() => Some(Checksum { algorithm, bytes }),
                _ => return Err(format!("{hex:?} is no checksum of kind {algorithm}")),
            },
            _ => return Err("a file must have both of Checksum-Algorithm and Checksum, or none".to_owned()),
        };
        Ok(ManifestFile { path, size: self.size, last_modified: self.last_modified, checksum })
    }
}
