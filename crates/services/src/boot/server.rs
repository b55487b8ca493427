//! Lines of PostgreSQL's log, as signs of how a run ended and of what is damaged.
//!
//! The messages are those of 13 to 18 in English (postmaster.c, xlog.c, xlogrecovery.c, bufmgr.c, md.c); a server with another `lc_messages` says the same in words
//! that are not known here, and then nothing is made of them.

use super::Mark;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// Somebody told it to stop.
    StopAsked,
    /// It stops because its lock file or its directory was taken from below it.
    DirectoryGone,
    /// It stopped in order.
    ShutDown,
    /// One of its processes was ended by SIGKILL.
    ProcessKilled,
    /// One of its processes crashed.
    ProcessCrashed,
    /// It gave up.
    Panic,
    /// No space was left.
    DiskFull,
    /// It accepts connections.
    Ready,
    /// There is no checkpoint to begin with.
    NoCheckpoint,
    /// The control file can't be used.
    ControlFile,
    /// A file is missing that has to be there.
    FileMissing,
    /// A page is not what was written.
    BadPage,
}

impl Sign {
    /// Whether it says that data are damaged.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::NoCheckpoint | Self::ControlFile | Self::FileMissing | Self::BadPage)
    }
}

/// Severities, as the server writes them before its messages.
const SEVERITIES: &[&str] = &[
    "LOG:  ",
    "WARNING:  ",
    "ERROR:  ",
    "FATAL:  ",
    "PANIC:  ",
    "DETAIL:  ",
    "STATEMENT:  ",
    "CONTEXT:  ",
    "HINT:  ",
    "QUERY:  ",
    "NOTICE:  ",
    "INFO:  ",
];
/// Phrases that begin a message, or stand in it; the most telling first.
const PHRASES: &[(&str, Sign)] = &[
    ("could not locate a valid checkpoint record", Sign::NoCheckpoint),
    ("could not locate required checkpoint record", Sign::NoCheckpoint),
    ("invalid checkpoint record", Sign::NoCheckpoint),
    ("could not find redo location referenced by checkpoint record", Sign::NoCheckpoint),
    ("incorrect checksum in control file", Sign::ControlFile),
    ("database files are incompatible with server", Sign::ControlFile),
    ("control file contains invalid", Sign::ControlFile),
    ("could not open file \"global/pg_control\": No such file", Sign::ControlFile),
    ("could not read file \"global/pg_control\": read ", Sign::ControlFile),
    ("is not a valid data directory", Sign::FileMissing),
    ("invalid page in block ", Sign::BadPage),
    ("page verification failed", Sign::BadPage),
    ("No space left on device", Sign::DiskFull),
    ("because data directory lock file is invalid", Sign::DirectoryGone),
    ("received fast shutdown request", Sign::StopAsked),
    ("received smart shutdown request", Sign::StopAsked),
    ("received immediate shutdown request", Sign::StopAsked),
    ("database system is shut down", Sign::ShutDown),
    ("terminated by signal 9", Sign::ProcessKilled),
    ("terminated by signal ", Sign::ProcessCrashed),
    ("terminated by exception ", Sign::ProcessCrashed),
    ("database system is ready to accept", Sign::Ready),
];

/// What a line says; `None` where it is of another matter, or quotes a user's words.
pub fn sign(line: &str) -> Option<Sign> {
    // The first of them on the line is the server's; what follows may quote anything.
    let (at, severity) = SEVERITIES.iter().filter_map(|severity| Some((line.find(severity)?, *severity))).min()?;
    let message = &line[at + severity.len()..];
    let (at, sign) = PHRASES
        .iter()
        .find_map(|(phrase, sign)| Some((message.find(phrase)?, *sign)))
        .or_else(|| severity.starts_with("PANIC").then_some((0, Sign::Panic)))?;
    let whole = severity.starts_with("LOG") || severity.starts_with("FATAL") || severity.starts_with("PANIC");
    // A statement may raise any words as its own error; only a few of the server's own are of interest there.
    let own = whole || (!severity.starts_with("STATEMENT") && matches!(sign, Sign::BadPage | Sign::DiskFull));
    // The server's messages name the process, or the file, before what became of it.
    const BEFORE_MAX: usize = 300;
    (own && at <= BEFORE_MAX).then_some(sign)
}

/// The signs among these lines, newest last.
pub fn marks<'a>(file: &str, lines: impl IntoIterator<Item = &'a str>) -> Vec<Mark<Sign>> {
    let mark = |line: &str| Some(Mark { at: None, sign: sign(line)?, line: format!("{file}: {}", line.trim()) });
    lines.into_iter().filter_map(mark).collect()
}

/// Of all signs those of the run that ended last: between the last time but one that it was ready and the last. The server whose end is asked for must be up again;
/// one that is down ends its signs without [`Sign::Ready`], and then they are those since it was ready.
pub fn last_end(marks: &[Mark<Sign>], is_up: bool) -> &[Mark<Sign>] {
    let ready = |marks: &[Mark<Sign>]| marks.iter().rposition(|mark| mark.sign == Sign::Ready);
    let until = if is_up { ready(marks).unwrap_or(marks.len()) } else { marks.len() };
    let from = ready(&marks[..until]).map_or(0, |at| at + 1);
    &marks[from..until]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_a_run_ended() {
        use Sign::{
            BadPage, ControlFile, DirectoryGone, DiskFull, NoCheckpoint, Panic, ProcessCrashed, ProcessKilled, Ready,
            ShutDown, StopAsked,
        };
        let prefix = "2026-03-01 02:05:00.123 UTC [4711] ";
        for (line, expected) in [
            ("LOG:  received fast shutdown request", Some(StopAsked)),
            ("LOG:  database system is shut down", Some(ShutDown)),
            ("LOG:  server process (PID 4712) was terminated by signal 9: Killed", Some(ProcessKilled)),
            ("LOG:  server process (PID 4712) was terminated by signal 11: Segmentation fault", Some(ProcessCrashed)),
            ("PANIC:  could not write to file \"pg_wal/xlogtemp.1\": No space left on device", Some(DiskFull)),
            ("PANIC:  stuck spinlock detected", Some(Panic)),
            ("LOG:  performing immediate shutdown because data directory lock file is invalid", Some(DirectoryGone)),
            ("LOG:  database system is ready to accept connections", Some(Ready)),
            ("LOG:  database system is ready to accept read-only connections", Some(Ready)),
            ("PANIC:  could not locate a valid checkpoint record", Some(NoCheckpoint)),
            ("PANIC:  could not locate a valid checkpoint record at 0/1900060", Some(NoCheckpoint)),
            ("FATAL:  could not locate required checkpoint record at 0/2000028", Some(NoCheckpoint)),
            ("LOG:  invalid checkpoint record", Some(NoCheckpoint)),
            ("PANIC:  incorrect checksum in control file", Some(ControlFile)),
            ("FATAL:  incorrect checksum in control file", Some(ControlFile)),
            ("WARNING:  page verification failed, calculated checksum 1 but expected 2", Some(BadPage)),
            ("ERROR:  invalid page in block 0 of relation base/5/16384", Some(BadPage)),
            ("PANIC:  could not open file \"global/pg_control\": No such file or directory", Some(ControlFile)),
            ("PANIC:  could not open file \"global/pg_control\": Permission denied", Some(Panic)),
            ("ERROR:  received fast shutdown request", None),
            ("STATEMENT:  select 'LOG:  database system is shut down'", None),
            ("ERROR:  LOG:  database system is shut down", None),
            ("LOG:  checkpoint starting: time", None),
            ("", None),
        ] {
            assert_eq!(sign(&format!("{prefix}{line}")), expected, "{line}");
        }
    }

    #[test]
    fn the_end_that_is_asked_for_is_the_last_one() {
        let run = ["LOG:  database system is ready to accept connections", "LOG:  received fast shutdown request"];
        let crash = ["LOG:  database system is ready to accept connections", "PANIC:  x"];
        let up = ["LOG:  database system is ready to accept connections"];
        let signs = |lines: &[&str], is_up| {
            last_end(&marks("log", lines.iter().copied()), is_up).iter().map(|mark| mark.sign).collect::<Vec<_>>()
        };
        assert_eq!(signs(&[&run[..], &crash, &up].concat(), true), [Sign::Panic]);
        assert_eq!(signs(&[&crash[..], &run, &up].concat(), true), [Sign::StopAsked]);
        assert_eq!(signs(&[&run[..], &crash].concat(), false), [Sign::Panic]);
        assert_eq!(signs(&up, true), []);
        assert_eq!(signs(&[], true), []);
    }
}
