//! Processes that the kernel killed for want of memory: how many (`oom_kill` of `/proc/vmstat`, since Linux 4.13), and which, as its
//! log names them (`/dev/kmsg`, the kernel's Documentation/ABI/testing/dev-kmsg).
//!
//! The count is of the whole host, also in a container. The log needs root, and CAP_SYSLOG where `kernel.dmesg_restrict` is set;
//! without it the victims stay unnamed. The kernel counts a kill before it writes of it, so a victim's name may come a sample later.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use model::{
    Pid,
    reading::{OomKills, OomVictim},
};

use super::{
    kept_file::{Buffer, KeptFile},
    parse::number,
};

/// Victims that a reading names.
pub const MAX_VICTIMS: usize = 16;
/// Records of the kernel's log that one sample reads; what is left is read by the next.
const MAX_RECORDS: usize = 512;
/// The longest record (`PRINTK_MESSAGE_MAX` of printk.c).
const MAX_RECORD_BYTES: usize = 8192;

/// Watches for kills.
#[derive(Debug)]
pub struct OomWatch {
    vmstat: KeptFile,
    count: Option<u64>,
    log: Option<File>,
    /// Kept, so that a host without memory can be looked at.
    record: Vec<u8>,
}

impl OomWatch {
    /// Opens what is read, behind what the log holds already.
    pub fn new(proc_root: &Path, log: &Path, buffer: &mut Buffer) -> Self {
        let mut vmstat = KeptFile::new(proc_root.join("vmstat"));
        let count = vmstat.read(buffer).ok().and_then(kills);
        Self { vmstat, count, log: open_at_end(log), record: vec![0; MAX_RECORD_BYTES] }
    }

    /// Kills since the call before, and those whose names the log tells. The log is read each time, so that no more than a sample's
    /// records ever wait there.
    pub fn look(&mut self, buffer: &mut Buffer) -> Option<OomKills> {
        let victims = self.log.as_mut().map(|log| victims(log, &mut self.record, MAX_RECORDS)).unwrap_or_default();
        let now = self.vmstat.read(buffer).ok().and_then(kills);
        let before = now.map(|now| self.count.replace(now).unwrap_or(now));
        // A counter that ran backwards is another kernel's: a container that was moved.
        let count = now.zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
        (count > 0 || !victims.is_empty()).then_some(OomKills { count, victims })
    }

    /// Whether the log can be read.
    pub fn names_victims(&self) -> bool {
        self.log.is_some()
    }
}

fn open_at_end(path: &Path) -> Option<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut log = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).ok()?;
    log.seek(SeekFrom::End(0)).ok()?;
    Some(log)
}

/// `oom_kill 3`.
fn kills(vmstat: &[u8]) -> Option<u64> {
    let line = vmstat.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    number(line)
}

/// Each read gives one record; the one that finds none says so.
fn victims(log: &mut impl Read, record: &mut [u8], records: usize) -> Vec<OomVictim> {
    let mut victims = Vec::new();
    for _ in 0..records {
        match log.read(record) {
            Ok(0) => break,
            Ok(length) => victims.extend(record.get(..length).and_then(victim)),
            // Records were overwritten before they were read (EPIPE): the next read goes on behind them.
            Err(error) if error.kind() == ErrorKind::BrokenPipe || error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if victims.len() >= MAX_VICTIMS {
            break;
        }
    }
    victims
}

/// `6,1234,567890,-;Out of memory: Killed process 4711 (postgres) total-vm:...`, or `Memory cgroup out of memory: Killed process ...`; before
/// Linux 5.0 `Killed process 4711 (postgres) total-vm:...` in a record of its own.
fn victim(record: &[u8]) -> Option<OomVictim> {
    const MARK: &str = "Killed process ";
    let text = std::str::from_utf8(record).ok()?;
    // Only the kernel's own records: a program can write there too, and its facility is not zero.
    let (prefix, message) = text.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let message = message.lines().next()?;
    let (before, after) = message.split_once(MARK)?;
    let (pid, rest) = after.split_once(" (")?;
    // A command may hold brackets itself; what follows it begins like this.
    let name = rest.rsplit_once(") total-vm").or_else(|| rest.rsplit_once(')'))?.0;
    Some(OomVictim {
        pid: Pid(pid.parse().ok()?),
        name: name.chars().filter(|c| !c.is_control()).take(15).collect(),
        in_cgroup: before.contains("cgroup"),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, fs, io};

    use super::*;

    /// A log that gives one record a read, as the kernel's does.
    struct Log(VecDeque<io::Result<&'static str>>);

    impl Read for Log {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let record = self.0.pop_front().unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))?;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    #[test]
    fn victims_are_named_by_the_kernel_alone() {
        let of = |record: &str| victim(record.as_bytes()).map(|v| (v.pid.0, v.name, v.in_cgroup));
        for (record, found) in [
            (
                "3,99,7,-;Out of memory: Killed process 4711 (postgres) total-vm:1kB, anon-rss:2kB\n",
                Some((4711, "postgres", false)),
            ),
            (
                "3,99,7,-;Memory cgroup out of memory: Killed process 12 (python3) total-vm:1kB",
                Some((12, "python3", true)),
            ),
            ("3,99,7,-;Killed process 12 (a) b) total-vm:1kB", Some((12, "a) b", false))),
            ("6,1,2,-;postgres invoked oom-killer: gfp_mask=0x1", None),
            // Facility 1: written by a program.
            ("11,1,2,-;Out of memory: Killed process 1 (postgres) total-vm:1kB", None),
            ("Killed process 1 (x)", None),
            ("3,1,2,-;Killed process x (y)", None),
            ("", None),
        ] {
            assert_eq!(of(record), found.map(|(pid, name, group)| (pid, name.to_owned(), group)), "{record}");
        }
    }

    #[test]
    fn the_log_is_read_to_its_end_and_over_gaps() {
        let killed = "3,99,7,-;Out of memory: Killed process 7 (postgres) total-vm:1kB";
        let mut log = Log([Ok("6,1,1,-;x"), Err(ErrorKind::BrokenPipe.into()), Ok(killed)].into_iter().collect());
        assert_eq!(victims(&mut log, &mut [0; 999], 99).len(), 1);
        let mut many = Log((0..99).map(|_| Ok(killed)).collect());
        assert_eq!(victims(&mut many, &mut [0; 999], 4).len(), 4);
        assert_eq!(victims(&mut many, &mut [0; 999], 99).len(), MAX_VICTIMS);
    }

    #[test]
    fn kills_are_counted_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(dir.path().join("vmstat"), text).unwrap();
        write("nr_free_pages 1\noom_kill 5\npgfault 3\n");
        let mut buffer = Buffer::new();
        let mut watch = OomWatch::new(dir.path(), &dir.path().join("none"), &mut buffer);
        assert!(!watch.names_victims());
        assert_eq!(watch.look(&mut buffer), None);
        write("nr_free_pages 1\noom_kill 7\npgfault 3\n");
        assert_eq!(watch.look(&mut buffer), Some(OomKills { count: 2, victims: vec![] }));
        write("nr_free_pages 1\noom_kill 1\npgfault 3\n");
        assert_eq!(watch.look(&mut buffer), None);
        write("nr_free_pages 1\n");
        assert_eq!(watch.look(&mut buffer), None);
    }

    #[test]
    fn this_hosts_log_is_read_to_its_end() {
        let mut buffer = Buffer::new();
        let mut watch = OomWatch::new(Path::new("/proc"), Path::new("/dev/kmsg"), &mut buffer);
        assert!(watch.look(&mut buffer).is_none_or(|oom| oom.victims.len() <= MAX_VICTIMS));
    }
}
