//! Which process is which: a pid is used again, a pid with its start in one boot is not.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// The longest file of /proc that is read here, in bytes.
const PROC_FILE_BYTES_MAX: u64 = 8192;

/// A process that can't be mistaken for a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// `/proc/sys/kernel/random/boot_id`; empty where it can't be read.
    pub(super) boot: String,
    /// Its pid, as our pid namespace has it.
    pub(super) pid: i32,
    /// When it began, in clock ticks since the boot (proc_pid_stat(5), field 22).
    pub(super) start: u64,
}

/// How a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs.
    Alive,
    /// It has ended, and whoever started it has not taken note.
    Zombie,
    /// It is not there any more.
    Gone,
}

/// What /proc says of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) zombie: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) start: u64,
}

impl Identity {
    /// This process.
    pub(super) fn this() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self::of(pid)?.ok_or_else(|| io::Error::other("/proc doesn't show this process; hint: mount /proc"))
    }

    /// Whoever has this pid now.
    pub(super) fn of(pid: i32) -> io::Result<Option<Self>> {
        let Some(stat) = stat(pid)? else { return Ok(None) };
        Ok(Some(Self { boot: boot_id(), pid, start: stat.start }))
    }

    /// How it stands. `boot` is the current boot's id.
    pub(super) fn standing(&self, boot: &str) -> Standing {
        if self.boot != boot {
            return Standing::Gone;
        }
        match stat(self.pid) {
            Ok(Some(stat)) if stat.start == self.start && stat.zombie => Standing::Zombie,
            Ok(Some(stat)) if stat.start == self.start => Standing::Alive,
            _ => Standing::Gone,
        }
    }

    /// A handle on it that stays its own; `None` where it is gone.
    pub(super) fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at after the handle was taken: what it holds now is what we mean, or never was.
        Ok((self.standing(&boot_id()) != Standing::Gone).then_some(pidfd))
    }
}

/// Signals a process; one that has ended needs none.
pub(super) fn signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The id of this boot: no two boots have the same.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// `None` where there is no such process.
pub(super) fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let text = match read_bounded(Path::new(&format!("/proc/{pid}/stat")), PROC_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        // It may also end between the opening and the reading.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The name stands in parentheses and may hold any byte, parentheses and spaces too.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// All processes but zombies for which `wanted` says so.
pub(super) fn census(wanted: impl Fn(i32, &Stat) -> bool) -> Vec<Identity> {
    let boot = boot_id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let stats = pids.filter_map(|pid| Some((pid, stat(pid).ok()??)));
    let found = stats.filter(|(pid, stat)| !stat.zombie && wanted(*pid, stat));
    found.map(|(pid, stat)| Identity { boot: boot.clone(), pid, start: stat.start }).collect()
}

/// A whole small file; one that is larger is an error.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_may_be_hostile() {
        let rest = "S 7 8 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 18446744073709551615";
        for name in ["sh", "a b", ") Z 1 1 1 (", "((("] {
            let stat = parse(&format!("12 ({name}) {rest}")).unwrap();
            assert_eq!(stat, Stat { zombie: false, parent: 7, group: 8, session: 9, start: 4711 }, "{name}");
        }
        for text in ["", "12 (sh", "12 (sh) S 1", "12 (sh) S a b c"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pid_of_another_time_or_boot_is_another_process() {
        let this = Identity::this().unwrap();
        assert_eq!(this.standing(&boot_id()), Standing::Alive);
        assert_eq!(Identity { start: this.start + 1, ..this.clone() }.standing(&boot_id()), Standing::Gone);
        assert_eq!(this.standing("another boot"), Standing::Gone);
        assert!(this.pidfd().unwrap().is_some());
        assert!(Identity { start: this.start + 1, ..this }.pidfd().unwrap().is_none());
    }
}
