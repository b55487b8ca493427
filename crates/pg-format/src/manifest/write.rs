//! Writing a manifest.

use std::io::{self, Write};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{ManifestFile, WalRange, to_hex};
use crate::Major;

/// Writes a manifest while files are restored: begin, add each file, finish.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    out: W,
    hash: Sha256,
    files: u64,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes the beginning as a server of version `major` would.
    ///
    /// # Errors
    /// When `out` can't be written to.
    pub fn begin(out: W, major: Major, system_identifier: u64) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), files: 0 };
        let version = major.manifest_version();
        writer.put(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n"))?;
        if version >= 2 {
            writer.put(&format!("\"System-Identifier\": {system_identifier},\n"))?;
        }
        writer.put("\"Files\": [")?;
        Ok(writer)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&mut self, file: &ManifestFile) -> io::Result<()> {
        let mut line = String::from(if self.files == 0 { "\n" } else { ",\n" });
        match std::str::from_utf8(&file.path) {
            Ok(path) => line.push_str(&format!("{{ \"Path\": {}", quote(path)?)),
            Err(_) => line.push_str(&format!("{{ \"Encoded-Path\": \"{}\"", to_hex(&file.path))),
        }
        line.push_str(&format!(", \"Size\": {}, \"Last-Modified\": {}", file.size, quote(&file.last_modified)?));
        if let Some(checksum) = &file.checksum {
            let (algorithm, hex) = (checksum.algorithm, to_hex(&checksum.bytes));
            line.push_str(&format!(", \"Checksum-Algorithm\": \"{algorithm}\", \"Checksum\": \"{hex}\""));
        }
        line.push_str(" }");
        self.files += 1;
        self.put(&line)
    }

    /// Writes the end and returns what was written to, not flushed.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self, wal_ranges: &[WalRange]) -> io::Result<W> {
        self.put("\n],\n\"WAL-Ranges\": [")?;
        for (index, WalRange { timeline, start, end }) in wal_ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let range = format!("\"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\"");
            self.put(&format!("{comma}\n{{ {range} }}"))?;
        }
        self.put("\n],\n")?;
        let checksum = to_hex(&self.hash.finalize());
        self.out.write_all(format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").as_bytes())?;
        Ok(self.out)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.hash.update(text.as_bytes());
        self.out.write_all(text.as_bytes())
    }
}

/// A time as manifests have it. `None` beyond the years that a calendar has.
#[must_use]
pub(super) fn format_time(unix_seconds: i64) -> Option<String> {
    Some(Timestamp::from_second(unix_seconds).ok()?.strftime("%Y-%m-%d %H:%M:%S GMT").to_string())
}

impl ManifestFile {
    /// An entry for a file that was last changed `modified` seconds after 1970.
    #[must_use]
    pub fn new(path: Vec<u8>, size: u64, modified: i64, checksum: Option<super::Checksum>) -> Self {
        let last_modified = format_time(modified).unwrap_or_else(|| "1970-01-01 00:00:00 GMT".to_owned());
        Self { path, size, last_modified, checksum }
    }
}

fn quote(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(text)?)
}
