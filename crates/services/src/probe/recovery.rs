//! How far a PostgreSQL on this host has come with its recovery, or with its shutdown.
//!
//! The process that replays the log shows the segment that it reads in its title: `postgres: startup recovering 000000010000000000000005`
//! (src/backend/access/transam/xlogrecovery.c and utils/misc/ps_status.c). Before and after that, and with `update_process_title` off, the CPU time of all
//! the server's processes is what advances. Whoever may not read the data directory finds the server by its command line.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{driver::process::read_bounded, health::Progress};

/// The longest file that is read here, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Segments of the smallest size, 1 MiB, in one "log" of 4 GiB, by which file names count.
const SEGMENTS_PER_LOG_MAX: u64 = 4096;

/// A server's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pid: u32,
    /// When it was started, in seconds since 1970.
    started: Option<u64>,
    /// It says that it shuts down.
    stops: bool,
}

/// From postmaster.pid, where it can be read.
fn postmaster(data_dir: &Path) -> Option<Postmaster> {
    read(data_dir).ok()?
}

/// What tells one run of a server from another: its pid and when it was started. `None` where no server left its file.
pub(super) fn run(data_dir: &Path) -> io::Result<Option<u64>> {
    /// No pid of Linux needs more (PID_MAX_LIMIT).
    const PID_BITS: u32 = 22;
    let postmaster = match read(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => read?,
    };
    Ok(postmaster.and_then(|one| Some((one.started? << PID_BITS) ^ u64::from(one.pid))))
}

/// The pid in the first line, the start in the third, the state in the eighth (src/include/utils/pidfile.h).
fn read(data_dir: &Path) -> io::Result<Option<Postmaster>> {
    let bytes = read_bounded(&data_dir.join("postmaster.pid"), FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(pid) = lines.first().and_then(|line| line.parse().ok()) else { return Ok(None) };
    let started = lines.get(2).and_then(|line| line.parse().ok());
    Ok(Some(Postmaster { pid, started, stops: lines.get(7).is_some_and(|state| *state == "stopping") }))
}

/// Whether a server runs on that directory, as far as its processes can be seen from here.
pub fn serves_at(data_dir: &Path) -> bool {
    progress(data_dir).is_some()
}

/// How far a server that shuts down has come; `None` where it doesn't, or can't be seen from here. The file alone says nothing: a server that was killed meanwhile
/// left it behind.
pub(super) fn stops(data_dir: &Path) -> Option<Progress> {
    if !postmaster(data_dir)?.stops {
        return None;
    }
    let processes = processes();
    let done = its(&processes, data_dir)?.iter().map(|one| one.ticks).sum();
    Some(Progress { phase: "shutting down".into(), done })
}

/// How far its recovery has come; `None` where that can't be seen from here.
pub(super) fn progress(data_dir: &Path) -> Option<Progress> {
    let processes = processes();
    let its = its(&processes, data_dir)?;
    let replayed = its.iter().find_map(|one| replayed(&one.title));
    Some(match replayed {
        Some(done) => Progress { phase: "replaying WAL".into(), done },
        None => Progress { phase: "starting up".into(), done: its.iter().map(|one| one.ticks).sum() },
    })
}

/// The processes of the server on that directory; `None` where none can be seen.
fn its<'a>(processes: &'a [Process], data_dir: &Path) -> Option<Vec<&'a Process>> {
    let found = postmaster(data_dir).map(|postmaster| postmaster.pid);
    // Its file may be another's to read; its command line is everybody's.
    let pid = found.filter(|pid| processes.iter().any(|one| one.pid == *pid)).or_else(|| {
        let mut serving = processes.iter().filter(|one| serves(&one.title, data_dir));
        serving.next().map(|one| one.pid)
    })?;
    Some(processes.iter().filter(|one| one.parent == pid || one.pid == pid).collect())
}

struct Process {
    pid: u32,
    parent: u32,
    /// CPU time used, in clock ticks.
    ticks: u64,
    /// Its command line, of which a PostgreSQL process makes its title.
    title: String,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(process).collect()
}

fn process(pid: u32) -> Option<Process> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let title = read_bounded(&directory.join("cmdline"), FILE_BYTES_MAX).ok()?;
    let title = String::from_utf8_lossy(&title).replace('\0', " ");
    if !title.contains("postgres") && !title.contains("postmaster") {
        return None;
    }
    let stat = read_bounded(&directory.join("stat"), FILE_BYTES_MAX).ok()?;
    let (parent, ticks) = parent_and_ticks(&String::from_utf8_lossy(&stat))?;
    Some(Process { pid, parent, ticks, title })
}

/// proc_pid_stat(5): fields 4, 14 and 15.
fn parent_and_ticks(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((u32::try_from(number(1)?).ok()?, number(11)?.saturating_add(number(12)?)))
}

/// Whether this command line is that of a server on that directory: `postgres -D DIR`.
fn serves(title: &str, data_dir: &Path) -> bool {
    let wanted = data_dir.to_string_lossy();
    let wanted = wanted.trim_end_matches('/');
    title.split(' ').any(|word| {
        let word = word.strip_prefix("-D").or_else(|| word.strip_prefix("--pgdata=")).unwrap_or(word);
        !wanted.is_empty() && word.trim_end_matches('/') == wanted
    })
}

/// The number of the segment that a title tells.
fn replayed(title: &str) -> Option<u64> {
    let mut words = title.split_ascii_whitespace().skip_while(|word| *word != "startup").skip(1);
    if words.next()? != "recovering" {
        return None;
    }
    let name = words.next()?;
    if name.len() != 24 || !name.is_ascii() {
        return None;
    }
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(number(&name[8..16])?.saturating_mul(SEGMENTS_PER_LOG_MAX).saturating_add(number(&name[16..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (title, expected) in [
            ("postgres: startup recovering 000000010000000000000005", Some(5)),
            ("postgres: main: startup   recovering 00000002000000010000000A ", Some(4096 + 10)),
            ("postgres: startup waiting for 000000010000000000000005", None),
            ("postgres: startup recovering 00000001.history", None),
            ("postgres: startup recovering ", None),
            ("postgres: startup", None),
            ("postgres: app app [local] SELECT recovering 000000010000000000000005", None),
            ("", None),
        ] {
            assert_eq!(replayed(title), expected, "{title}");
        }
    }

    #[test]
    fn a_server_is_found_by_its_directory() {
        let dir = Path::new("/var/lib/postgresql/15/main");
        for (title, expected) in [
            ("/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c x=y", true),
            ("postgres -D/var/lib/postgresql/15/main/", true),
            ("postgres --pgdata=/var/lib/postgresql/15/main", true),
            ("postgres -D /var/lib/postgresql/15/main2", false),
            ("postgres: startup", false),
        ] {
            assert_eq!(serves(title, dir), expected, "{title}");
        }
        assert_eq!(parent_and_ticks("1 (a) b) S 7 1 1 0 -1 0 0 0 0 0 30 12 0 0"), Some((7, 42)));
    }
}
