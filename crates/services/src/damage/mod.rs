//! Whether a data directory that nobody serves can still be started on: a verdict with its evidence, from what was read of it.
//!
//! Pure: [`crate::evidence::directory`] reads; `pg-format` knows the bytes. A server on a damaged directory is not started again and again: what it needs is a
//! backup, and a person's word.

use std::fmt;

use model::Lsn;
use pg_format::{
    ControlFile,
    control::{self, State},
    label::BackupLabel,
    wal::{SegmentName, SegmentSize},
};

use crate::{
    boot::{Mark, Source, server::Sign},
    state::shown,
};

/// What was read of a data directory.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Names in the directory itself; `None`: there is no such directory.
    pub names: Source<Option<Vec<String>>>,
    /// The control file's bytes, read again where they did not fit together; `None`: it is not there.
    pub control: Source<Option<Vec<u8>>>,
    /// Names in `pg_wal`; `None`: it is not there.
    pub wal: Source<Option<Vec<String>>>,
    /// `backup_label`, where there is one.
    pub label: Option<String>,
    /// Signs of the newest attempt to start, where they are younger than the control file; else of an earlier directory.
    pub log: Vec<Mark<Sign>>,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Damage {
    /// The directory is not there.
    Removed,
    /// It is there, and nothing is in it.
    Empty,
    /// It has no `PG_VERSION`: it is no data directory, or what is left of one.
    NoVersion,
    /// It has no control file.
    NoControlFile,
    /// The control file can't be used.
    ControlFile,
    /// WAL is missing that a recovery has to begin with.
    WalMissing,
    /// The server says that it has no checkpoint to begin with.
    NoCheckpoint,
    /// The server says that a file is missing.
    FileMissing,
}

/// One thing that is damaged, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub damage: Damage,
    /// Which file, with the place in it or in WAL, and what is wrong with it.
    pub evidence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.evidence)
    }
}

/// Whether a server can be started on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it. Single pages may be damaged all the same: `pages`, what the server said of them. It starts with them, and each query that
    /// reads one fails.
    Sound {
        /// Lines of the log.
        pages: Vec<String>,
    },
    /// It can't.
    Damaged {
        /// Why; the gravest first.
        findings: Vec<Finding>,
    },
    /// It could not be read.
    Unknown {
        /// Why not.
        why: String,
    },
}

/// Lines of a log that are told.
const LINES_MAX: usize = 3;

/// The verdict.
pub fn verdict(reading: &Reading) -> Verdict {
    let names = match &reading.names {
        Source::Missing(why) => return Verdict::Unknown { why: shown(why) },
        Source::Read(None) => return damaged(Damage::Removed, "the data directory is not there"),
        Source::Read(Some(names)) => names,
    };
    let has = |name: &str| names.iter().any(|one| one == name);
    // What a file system puts into its root.
    if names.iter().all(|name| name == "lost+found") {
        return damaged(Damage::Empty, "the data directory is empty");
    }
    if !has("PG_VERSION") {
        return damaged(Damage::NoVersion, "PG_VERSION is not there: this is no whole data directory");
    }
    let bytes = match &reading.control {
        Source::Missing(why) => return Verdict::Unknown { why: shown(why) },
        Source::Read(None) => return damaged(Damage::NoControlFile, &format!("{} is not there", control::PATH)),
        Source::Read(Some(bytes)) => bytes,
    };
    let mut findings = Vec::new();
    match ControlFile::parse(bytes) {
        Err(control::ControlError::Unsupported { control_version, catalog_version }) if control_version != 0 => {
            return Verdict::Unknown {
                why: format!(
                    "{} is of a version that is not known here ({control_version}, {catalog_version})",
                    control::PATH
                ),
            };
        }
        Err(_) if bytes.iter().all(|byte| *byte == 0) => findings.push(Finding {
            damage: Damage::ControlFile,
            evidence: format!("{}: all of its {} bytes are zero", control::PATH, bytes.len()),
        }),
        Err(error) => {
            // Its hint is for a server that runs.
            let text = error.to_string();
            let text = text.split("; hint").next().unwrap_or_default().replacen("pg_control", control::PATH, 1);
            findings.push(Finding { damage: Damage::ControlFile, evidence: text });
        }
        Ok(control) => findings.extend(wal_missing(reading, &control, has("standby.signal") || has("recovery.signal"))),
    }
    let of_log = |sign: Sign| match sign {
        Sign::NoCheckpoint => Some(Damage::NoCheckpoint),
        Sign::ControlFile => Some(Damage::ControlFile),
        Sign::FileMissing => Some(Damage::FileMissing),
        _ => None,
    };
    let signs = reading.log.iter().rev().filter_map(|mark| Some((of_log(mark.sign)?, shown(&mark.line))));
    findings.extend(signs.take(LINES_MAX).map(|(damage, evidence)| Finding { damage, evidence }));
    findings.dedup_by(|one, other| one.evidence == other.evidence);
    if findings.is_empty() {
        let pages = reading.log.iter().rev().filter(|mark| mark.sign == Sign::BadPage);
        return Verdict::Sound { pages: pages.take(LINES_MAX).map(|mark| shown(&mark.line)).collect() };
    }
    Verdict::Damaged { findings }
}

fn damaged(damage: Damage, evidence: &str) -> Verdict {
    Verdict::Damaged { findings: vec![Finding { damage, evidence: evidence.to_owned() }] }
}

/// The segments that a recovery begins with: where the checkpoint's record lies and, unless the server was stopped in order, where replay starts. Of any timeline:
/// a segment goes on under its successor's name. `fetches`: a standby or a restore may get them from elsewhere.
fn wal_missing(reading: &Reading, control: &ControlFile, fetches: bool) -> Option<Finding> {
    let Source::Read(names) = &reading.wal else { return None };
    let Some(names) = names else {
        return Some(Finding { damage: Damage::WalMissing, evidence: "pg_wal is not there".to_owned() });
    };
    if fetches {
        return None;
    }
    let size = SegmentSize::new(u64::from(control.wal_segment_size)).ok()?;
    let label = reading.label.as_deref().and_then(|text| BackupLabel::parse(text).ok());
    let (timeline, needed) = match label {
        Some(label) => (label.timeline.unwrap_or(control.checkpoint.timeline), vec![label.checkpoint, label.start]),
        None if control.state.is_clean() => (control.checkpoint.timeline, vec![control.checkpoint_lsn]),
        None => (control.checkpoint.timeline, vec![control.checkpoint_lsn, control.checkpoint.redo]),
    };
    let there: Vec<u64> =
        names.iter().filter_map(|name| SegmentName::parse(name, size)).map(|segment| segment.number).collect();
    let missing = |lsn: &Lsn| !there.contains(&SegmentName::holding(timeline, *lsn, size).number);
    let lsn = needed.into_iter().find(missing)?;
    let file = SegmentName::holding(timeline, lsn, size).file_name(size);
    let state = match control.state {
        State::InProduction => "it was running when it died",
        state if state.is_clean() => "it was shut down in order",
        _ => "it was starting or stopping when it died",
    };
    let evidence =
        format!("pg_wal/{file} is not there, with which recovery begins at {lsn} ({} says; {state})", control::PATH);
    Some(Finding { damage: Damage::WalMissing, evidence })
}

/// All findings in one line.
pub fn in_words(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
