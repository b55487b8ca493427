//! Processes of the server, as `/proc` shows them, and signals that can't hit the wrong one.
//!
//! A pid from `pg_stat_activity` may be somebody else's by the time it is used, and SIGHUP ends most programs. So a signal goes
//! through a pidfd, opened *before* the check that the process is still the one meant: the start time of a pid's process can't
//! change while it lives, so if `/proc` shows the expected start time after the pidfd was opened, the pidfd is that process.

use std::{
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use model::{Pid, ProcessId};
use rustix::process::{PidfdFlags, Signal};

/// What we need of `/proc/PID/stat` (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 4.
    pub parent: Pid,
    /// User and system time, fields 14 and 15, in clock ticks.
    pub cpu_ticks: u64,
    /// Field 22.
    pub start_ticks: u64,
}

/// What a process of the server is, by its title (`set_ps_display`, whose first part is always shown).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An autovacuum worker.
    Worker,
    /// The autovacuum launcher.
    Launcher,
    /// The postmaster.
    Postmaster,
}

/// Why a process was not signalled.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// It is gone, or its pid belongs to another process now.
    #[error("process {0} is not the one that was seen before; it was not signalled")]
    NotIt(Pid),
    /// The kernel refused.
    #[error(
        "could not signal process {pid}: {source} (hint: run the guard as the server's user, as root or with CAP_KILL)"
    )]
    Refused {
        /// Whom.
        pid: Pid,
        /// Why.
        source: io::Error,
    },
}

fn path(pid: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// `/proc/PID/stat`; `None` where the process is gone or hidden.
pub fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(path(pid, "stat")).ok()?)
}

/// The name in field 2 may contain blanks and brackets: fields are counted from the last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: Pid(fields.get(1)?.parse().ok()?),
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
    })
}

/// CPU time that the process has used, in nanoseconds: `schedstat` where the kernel has it, for a clock tick is 10 ms and the
/// governor looks every quarter of a second; else by ticks. `schedstat` is of the first thread only; the server's processes have one.
pub fn cpu_ns(pid: Pid) -> Option<u64> {
    let exact = fs::read_to_string(path(pid, "schedstat"))
        .ok()
        .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    exact.filter(|ns| *ns > 0).or_else(|| Some(stat(pid)?.cpu_ticks.saturating_mul(1_000_000_000) / ticks_per_second()))
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// The process that has this pid now.
pub fn identify(pid: Pid) -> Option<ProcessId> {
    stat(pid).map(|s| ProcessId { pid, start_ticks: s.start_ticks })
}

/// Whether the process is still there and is still what it was.
pub fn is_still(id: ProcessId, role: Role) -> bool {
    id.start_ticks != 0 && stat(id.pid).is_some_and(|s| s.start_ticks == id.start_ticks) && has_role(id.pid, role)
}

fn has_role(pid: Pid, role: Role) -> bool {
    let Ok(bytes) = fs::read(path(pid, "cmdline")) else { return false };
    let title = String::from_utf8_lossy(&bytes);
    match role {
        Role::Worker => title.starts_with("postgres:") && title.contains("autovacuum worker"),
        Role::Launcher => title.starts_with("postgres:") && title.contains("autovacuum launcher"),
        // The postmaster's title is its command line; only its children change theirs.
        Role::Postmaster => {
            let program = title.split('\0').next().unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            matches!(name, "postgres" | "postmaster" | "edb-postgres")
        }
    }
}

/// Sends SIGHUP to exactly that process.
///
/// # Errors
/// The process is gone or another one, or the kernel refused.
pub fn hang_up(id: ProcessId, role: Role) -> Result<(), SignalError> {
    let not_it = || SignalError::NotIt(id.pid);
    let refused = |errno: rustix::io::Errno| SignalError::Refused { pid: id.pid, source: errno.into() };
    let pid = rustix::process::Pid::from_raw(id.pid.0).ok_or_else(not_it)?;
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Err(not_it()),
        Err(errno) => return Err(refused(errno)),
    };
    if !is_still(id, role) {
        return Err(not_it());
    }
    match rustix::process::pidfd_send_signal(&pidfd, Signal::HUP) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(not_it()),
        Err(errno) => Err(refused(errno)),
    }
}

/// Whether we may signal that process (kill(2) with signal 0).
pub fn may_signal(pid: Pid) -> bool {
    rustix::process::Pid::from_raw(pid.0).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// User and group that the process runs as.
pub fn owner(pid: Pid) -> Option<(u32, u32)> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| (meta.uid(), meta.gid()))
}

/// The directory that the process works in: the postmaster's is its data directory.
pub fn working_directory(pid: Pid) -> Option<PathBuf> {
    fs::read_link(path(pid, "cwd")).ok()
}

/// The longest `postmaster.pid` that is read, in bytes; the real ones have about a hundred.
const MAX_PID_FILE: u64 = 4_096;

/// The postmaster that runs on that data directory, by the first line of its `postmaster.pid`. `None` where none does: the file is
/// not there, or a crash left it and its pid is nobody's or another program's.
///
/// # Errors
/// The file is there and can't be read or understood.
pub fn postmaster_of(data_directory: &Path) -> io::Result<Option<ProcessId>> {
    let mut text = String::new();
    match fs::File::open(data_directory.join("postmaster.pid")) {
        Ok(file) => file.take(MAX_PID_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A stand-alone backend writes its pid with a minus sign; a file that is being written may still be empty.
    let pid: i32 = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "postmaster.pid holds no process id"))?;
    Ok(identify(Pid(pid)).filter(|id| is_still(*id, Role::Postmaster)))
}

/// `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> ProcessId {
        identify(Pid(i32::try_from(std::process::id()).unwrap())).unwrap()
    }

    #[test]
    fn stat_survives_odd_names() {
        let text = "77 (a) b (c) S 5 77 77 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 4242 1 2";
        assert_eq!(parse_stat(text), Some(Stat { parent: Pid(5), cpu_ticks: 42, start_ticks: 4242 }));
        assert_eq!(parse_stat("77 (a) S 5"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_process_that_is_no_worker_is_never_signalled() {
        // SIGHUP would end this test process: that it goes on is the proof.
        for role in [Role::Worker, Role::Launcher, Role::Postmaster] {
            assert!(matches!(hang_up(me(), role), Err(SignalError::NotIt(_))));
        }
    }

    #[test]
    fn own_cpu_grows() {
        // A thread of a test is no first thread; procfs takes its id as well.
        let this = Pid(rustix::thread::gettid().as_raw_pid());
        let before = cpu_ns(this).unwrap();
        let mut x = 1_u64;
        for i in 0..20_000_000_u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        std::hint::black_box(x);
        assert!(cpu_ns(this).unwrap() > before);
    }
}
