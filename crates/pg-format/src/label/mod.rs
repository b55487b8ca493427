//! `backup_label` and `tablespace_map`, which tell a restored server where to begin and what to link.
//!
//! Sources: PostgreSQL's xlogbackup.c (xlog.c before 15), `read_backup_label` and `read_tablespace_map`. When the server hands out the text
//! (`pg_backup_stop`, BASE_BACKUP), keep that text as it is; these types are for understanding it.

mod tablespace_map;

use std::fmt::Write;

use model::Lsn;

use crate::Major;
pub use tablespace_map::{TablespaceMap, TablespaceMapError};

/// The name of the file, in the data directory.
pub const FILE_NAME: &str = "backup_label";
/// The name of the map, in the data directory.
pub const MAP_FILE_NAME: &str = "tablespace_map";

/// Which server a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupFrom {
    /// One that accepts writes.
    Primary,
    /// One that replays.
    Standby,
}

/// What `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay starts.
    pub start: Lsn,
    /// The name of the segment that holds it.
    pub start_segment: String,
    /// Where the checkpoint's record lies.
    pub checkpoint: Lsn,
    /// "streamed", or "pg_start_backup" for the exclusive backups that ended with 14.
    pub method: String,
    /// Which server.
    pub from: BackupFrom,
    /// When, as the server prints it.
    pub start_time: String,
    /// What the backup is called.
    pub label: String,
    /// The timeline it began on.
    pub timeline: Option<u32>,
    /// An incremental backup's (from 17 on) base: where that started, and on which timeline.
    pub incremental_from: Option<(Lsn, u32)>,
}

/// A text that is no backup label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "backup_label: {why}; hint: without its backup_label a copy of a data directory is damaged: take the file from the same backup"
)]
pub struct LabelError {
    why: String,
}

impl BackupLabel {
    /// Reads a label. Lines with unknown keys are passed over.
    ///
    /// # Errors
    /// When a line that a restore depends on is missing or can't be read.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let needed = |key: &str| field(key).ok_or_else(|| fail(format!("it has no line {key:?}")));
        let location = needed("START WAL LOCATION")?;
        let (start, file) = location.split_once(" (file ").unwrap_or((location, ""));
        let start_segment = file.strip_suffix(')').unwrap_or(file).to_owned();
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|error| fail(error.to_string()));
        let from = match field("BACKUP FROM") {
            Some("standby") => BackupFrom::Standby,
            // Only the word "standby" means something to the server.
            _ => BackupFrom::Primary,
        };
        let number = |key: &str| field(key).map(|text| text.parse().map_err(|_| fail(format!("{key} is {text:?}"))));
        let incremental = match (field("INCREMENTAL FROM LSN"), number("INCREMENTAL FROM TLI").transpose()?) {
            (Some(start), Some(timeline)) => Some((lsn(start)?, timeline)),
            (None, None) => None,
            _ => return Err(fail("it has half of an incremental backup's base".to_owned())),
        };
        let text_of = |key: &str| field(key).unwrap_or_default().to_owned();
        Ok(Self {
            start: lsn(start)?,
            start_segment,
            checkpoint: lsn(needed("CHECKPOINT LOCATION")?)?,
            method: text_of("BACKUP METHOD"),
            from,
            start_time: text_of("START TIME"),
            label: text_of("LABEL"),
            timeline: number("START TIMELINE").transpose()?,
            incremental_from: incremental,
        })
    }

    /// Writes the label as servers of version `major` do.
    #[must_use]
    pub fn to_text(&self, major: Major) -> String {
        let from = match self.from {
            BackupFrom::Primary if major == Major::V13 => "master",
            BackupFrom::Primary => "primary",
            BackupFrom::Standby => "standby",
        };
        let mut text = format!(
            "START WAL LOCATION: {} (file {})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: {}\nBACKUP FROM: {from}\nSTART TIME: {}\nLABEL: {}\n",
            self.start,
            self.start_segment,
            self.checkpoint,
            self.method,
            self.start_time,
            self.label.replace(['\r', '\n'], " "),
        );
        // Writing into a String does not fail.
        if let Some(timeline) = self.timeline {
            let _ = writeln!(text, "START TIMELINE: {timeline}");
        }
        if let Some((start, timeline)) = self.incremental_from {
            let _ = write!(text, "INCREMENTAL FROM LSN: {start}\nINCREMENTAL FROM TLI: {timeline}\n");
        }
        text
    }
}

fn fail(why: String) -> LabelError {
    LabelError { why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n\
        START TIME: 2026-01-02 03:04:05 UTC\nLABEL: pg_basebackup: base\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_is_read_and_written() {
        let label = BackupLabel::parse(TEXT).unwrap();
        assert_eq!((label.start, label.checkpoint, label.timeline), (Lsn(0x200_0028), Lsn(0x200_0060), Some(1)));
        assert_eq!((label.from, label.label.as_str()), (BackupFrom::Standby, "pg_basebackup: base"));
        assert_eq!(label.start_segment, "000000010000000000000002");
        assert_eq!((label.incremental_from, label.to_text(Major::V18).as_str()), (None, TEXT));
        let incremental = format!("{TEXT}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(&incremental).unwrap();
        assert_eq!((label.incremental_from, label.to_text(Major::V18)), (Some((Lsn(0x100_0028), 1)), incremental));
    }

    #[test]
    fn what_a_restore_depends_on_must_be_there() {
        let from_13 = TEXT.replace("standby", "master");
        let label = BackupLabel::parse(&from_13).unwrap();
        assert_eq!((label.from, label.to_text(Major::V13)), (BackupFrom::Primary, from_13));
        for (line, replacement) in [
            ("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n", ""),
            ("CHECKPOINT LOCATION: 0/2000060\n", ""),
            ("0/2000060", "0-2000060"),
            ("TIMELINE: 1", "TIMELINE: one"),
            ("START TIMELINE: 1\n", "INCREMENTAL FROM TLI: 1\n"),
        ] {
            assert!(BackupLabel::parse(&TEXT.replace(line, replacement)).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*", at in 0usize..200) {
            let _ = BackupLabel::parse(&text);
            let mut mixed = TEXT.to_owned();
            mixed.insert_str(at.min(TEXT.len()), &text);
            let _ = BackupLabel::parse(&mixed);
        }
    }
}
