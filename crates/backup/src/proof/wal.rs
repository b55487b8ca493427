//! The WAL that recovery will replay: fetched where the restore does not bring it, and looked through before a server sees it.
//!
//! A tool that keeps WAL apart leaves a `restore_command`. It is run here, outside of the fence, segment by segment until the backup's end
//! record is there: inside, the tool would find neither its configuration nor its network.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::Timestamp;
use model::Lsn;
use pg_format::wal::{Decoder, Flow, Kind, Record, SegmentName, Stream};

use super::{error::Halt, fence::plan::WalOutlook, receipt::clip, restored::Restored, space};

/// How much is read at once.
const READ_BYTES: usize = 128 * 1024;
/// How many tablespaces of one backup's WAL are remembered; more make it unfit for a proof without a mount namespace.
const CREATED_MAX: usize = 1000;
/// How many segments are fetched at most: 16 TiB of the usual size, so that a command that always succeeds ends too.
const SEGMENTS_MAX: u64 = 1 << 20;
/// What must stay free on the disk while segments are fetched, in segments.
const SPARE_SEGMENTS: u64 = 4;
/// 2000-01-01, from which PostgreSQL counts, in microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// What the WAL holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) outlook: WalOutlook,
    /// Where the last whole record ends.
    pub(crate) end: Lsn,
    /// Where the backup's end was seen: behind its end record, or, of a standby's, its minimum recovery point.
    pub(crate) stop: Option<Lsn>,
    /// How many segments were fetched.
    pub(crate) fetched: u64,
    /// Where the last whole record begins.
    pub(crate) last_record: Option<Lsn>,
    /// The newest commit or abort, by the clock of the server that wrote it.
    pub(crate) newest_commit: Option<Timestamp>,
    /// The greatest `max_prepared_transactions` that the WAL says, if it says one.
    pub(crate) max_prepared: i32,
    /// Why reading ended, where it was not the end of the last segment, and in which segment that was, by its number.
    pub(crate) ended: Option<String>,
    pub(crate) ended_in: Option<u64>,
}

struct Scan<'a> {
    restored: &'a Restored,
    stream: Stream,
    survey: Survey,
    unreadable: Option<Lsn>,
}

impl Scan<'_> {
    fn see(&mut self, record: &Record<'_>) {
        self.survey.last_record = Some(record.lsn);
        let Some(parts) = record.parts(self.stream.major) else {
            self.unreadable.get_or_insert(record.lsn);
            return;
        };
        match Kind::of(self.stream.major, record, &parts) {
            // An empty path: a directory inside of the data directory.
            Kind::TablespaceCreate { oid, path } if !path.is_empty() => {
                if self.survey.outlook.created.len() < CREATED_MAX {
                    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
                    self.survey.outlook.created.push((oid, path));
                } else {
                    self.unreadable.get_or_insert(record.lsn);
                }
            }
            Kind::BackupEnd { start } if self.restored.label.as_ref().is_some_and(|label| label.start == start) => {
                self.survey.stop.get_or_insert(record.end);
            }
            Kind::Commit { time, .. } | Kind::Abort { time, .. } => {
                self.survey.newest_commit = moment(time).or(self.survey.newest_commit);
            }
            Kind::ParameterChange(change) => {
                self.survey.max_prepared = self.survey.max_prepared.max(change.max_prepared_transactions);
            }
            Kind::Unreadable => {
                self.unreadable.get_or_insert(record.lsn);
            }
            _ => {}
        }
        if self.survey.stop.is_none() && self.restored.standby_stop().is_some_and(|stop| record.end >= stop) {
            self.survey.stop = self.restored.standby_stop();
        }
    }
}

/// A moment of PostgreSQL's as one of ours; none beyond the years that there are.
fn moment(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros.checked_add(EPOCH_MICROS)?).ok()
}

/// Looks through the WAL in `pg_wal` from the backup's start on, as far as it goes; of the timelines that `along` says by segments' numbers, else of
/// the backup's. Where the backup's end is not in it and `fetch` is
/// given, segments are fetched until it is.
pub(crate) fn survey(
    restored: &Restored,
    fetch: Option<&Fetch<'_>>,
    along: &BTreeMap<u64, u32>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Survey, Halt> {
    let stream = Stream::of(&restored.control).map_err(|error| Halt::failed(error.to_string()))?;
    let size = stream.segment_size;
    let start = restored.start();
    let mut name = SegmentName::holding(restored.timeline(), start, size);
    let mut decoder =
        Decoder::new(stream, size.start_of(name.number), start).map_err(|error| Halt::failed(error.to_string()))?;
    let survey = Survey { end: start, ..Survey::default() };
    let mut scan = Scan { restored, stream, survey, unreadable: None };
    let mut buffer = vec![0; READ_BYTES];
    let mut ended = None;
    for _ in 0..SEGMENTS_MAX {
        if cancelled() {
            return Err(Halt::not_proven("the proof was cancelled"));
        }
        name.timeline = along.get(&name.number).copied().unwrap_or(name.timeline);
        let path = restored.data.join("pg_wal").join(name.file_name(size));
        if !path.exists() {
            match fetch {
                Some(fetch) if scan.survey.stop.is_none() && restored.label.is_some() => {
                    fetch.segment(&name.file_name(size), &path, size.bytes())?;
                    scan.survey.fetched += 1;
                }
                _ => break,
            }
        }
        let mut file = File::open(&path).map_err(Halt::file("open", &path))?;
        loop {
            let count = file.read(&mut buffer).map_err(Halt::file("read", &path))?;
            if count == 0 {
                break;
            }
            let fed = decoder.feed(&buffer[..count], |record| {
                scan.see(record);
                Flow::Continue
            });
            if let Err(error) = fed {
                ended = Some(error.to_string());
                break;
            }
        }
        scan.survey.end = decoder.end();
        if ended.is_some() {
            scan.survey.ended_in = Some(name.number);
            break;
        }
        name = name.next();
    }
    let mut survey = scan.survey;
    survey.ended.clone_from(&ended);
    if let Some(at) = scan.unreadable {
        survey.outlook.unread = Some(format!("the WAL record at {at} is not understood"));
    } else if survey.end <= start {
        survey.outlook.unread = Some(ended.clone().unwrap_or_else(|| "no WAL is there".to_owned()));
    }
    if restored.label.is_some() && survey.stop.is_none() {
        let why = ended.map_or(String::new(), |why| format!(" ({why})"));
        return Err(Halt::failed(format!(
            "the backup's WAL is incomplete: it begins at {start}, is whole up to {}, and the backup's end is not in it{why}; hint: the \
             restore has to bring the WAL, or set a restore_command that fetches it",
            survey.end
        )));
    }
    Ok(survey)
}

/// How segments are fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch<'a> {
    pub(crate) command: &'a str,
    pub(crate) data: &'a Path,
}

impl Fetch<'_> {
    /// Runs the restored `restore_command`, as the user who runs the proof, in the data directory, as a server would.
    fn segment(&self, name: &str, path: &Path, bytes: u64) -> Result<(), Halt> {
        space::demand(self.data, bytes * SPARE_SEGMENTS, "a segment of WAL and the recovery")?;
        let command = fill(self.command, name, path);
        let output =
            Command::new("/bin/sh").arg("-c").arg(&command).current_dir(self.data).stdin(Stdio::null()).output();
        let output = output.map_err(|error| Halt::not_proven(format!("/bin/sh does not start: {error}")))?;
        let said = || clip(String::from_utf8_lossy(&output.stderr).trim());
        if !output.status.success() {
            return Err(Halt::failed(format!(
                "the backup needs WAL segment {name}, and the restored restore_command did not bring it ({}): {}",
                output.status,
                said()
            )));
        }
        let got = fs::metadata(path).map(|metadata| metadata.len()).unwrap_or(0);
        if got != bytes {
            return Err(Halt::failed(format!(
                "the restored restore_command brought {got} bytes of WAL segment {name}, a segment has {bytes}: {}",
                said()
            )));
        }
        Ok(())
    }
}

/// Fills in a `restore_command` as the server does (the manual, "Archive Recovery Settings"). `%r`, the oldest segment still needed, is
/// the one at hand: nothing older will be asked for.
fn fill(command: &str, name: &str, path: &Path) -> String {
    let mut filled = String::with_capacity(command.len() + 128);
    let mut chars = command.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            filled.push(char);
            continue;
        }
        match chars.next() {
            Some('f' | 'r') => filled.push_str(name),
            Some('p') => filled.push_str(&path.display().to_string()),
            Some('%') => filled.push('%'),
            Some(other) => filled.extend(['%', other]),
            None => filled.push('%'),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_commands_are_filled_in() {
        for (command, expected) in [
            ("cp /a/%f %p", "cp /a/0001 /d/pg_wal/0001"),
            ("get %f \"%p\" %% %r %x %", "get 0001 \"/d/pg_wal/0001\" % 0001 %x %"),
        ] {
            assert_eq!(fill(command, "0001", Path::new("/d/pg_wal/0001")), expected);
        }
    }
}
