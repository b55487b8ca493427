//! What is left of a server's run: its log, and the kernel's since.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{printed, tail};
use crate::{
    boot::{
        Mark, ServerFacts, Source, kernel,
        server::{Sign, last_end, marks},
    },
    look::boot_now,
};

/// Bytes at the end of the server's log that are read.
const LOG_BYTES: u64 = 1 << 20;
/// Records of the kernel's ring that are read at most; it holds fewer.
const KERNEL_RECORDS: usize = 100_000;
/// One record of the kernel's ring is no longer (`LOG_LINE_MAX` with its prefix and dictionary).
const KERNEL_RECORD_MAX: usize = 8 << 10;
/// Before it was last seen a kill may already have begun.
const SLACK: Duration = Duration::from_secs(5);

/// Where to look, and for what.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its data directory.
    pub data_dir: Option<PathBuf>,
    /// It served then, for the last time that anybody saw.
    pub last_seen: Option<Timestamp>,
    /// When the next run began; `None` where it is down.
    pub started: Option<Timestamp>,
}

/// Reads it all.
pub fn server(asked: &Asked) -> ServerFacts {
    let is_up = asked.started.is_some();
    let log = log(asked.data_dir.as_deref()).map(|all| last_end(&all, is_up).to_vec());
    let from = asked.last_seen.and_then(|at| at.checked_sub(SLACK).ok());
    let kernel = kernel_marks().or_else(|why| kernel_journal(&why)).map(|all| {
        let since = |mark: &Mark<kernel::Sign>| mark.at.zip(from).is_none_or(|(at, from)| at >= from);
        all.into_iter().filter(since).collect()
    });
    ServerFacts {
        last_seen: asked.last_seen,
        started: asked.started,
        log: log.map_or_else(Source::Missing, Source::Read),
        kernel: kernel.map_or_else(Source::Missing, Source::Read),
    }
}

/// The signs at the end of a server's log.
///
/// # Errors
/// In words, where none was found or it can't be read.
pub fn log(data_dir: Option<&Path>) -> Result<Vec<Mark<Sign>>, String> {
    let data_dir = data_dir.ok_or("postgres.data_dir is not known")?;
    let path = log_file(data_dir).ok_or_else(|| {
        "the server's log was not found: neither by current_logfiles, nor as the server's own output, nor in /var/log/postgresql".to_owned()
    })?;
    let bytes = tail(&path, LOG_BYTES).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(marks(&name, String::from_utf8_lossy(&bytes).lines()))
}

/// Where a server writes its log.
pub fn log_file(data_dir: &Path) -> Option<PathBuf> {
    // Its own collector names its files there: `stderr log/postgresql.log`.
    if let Ok(text) = fs::read_to_string(data_dir.join("current_logfiles")) {
        let named = text.lines().find_map(|line| line.strip_prefix("stderr "));
        if let Some(path) = named.map(|path| data_dir.join(path)).filter(|path| path.is_file()) {
            return Some(path);
        }
    }
    // Whoever started it gave it a file to write to.
    let pid = fs::read_to_string(data_dir.join("postmaster.pid")).ok();
    let pid = pid.and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
    if let Some(path) =
        pid.and_then(|pid| fs::read_link(format!("/proc/{pid}/fd/2")).ok()).filter(|path| path.is_file())
    {
        return Some(path);
    }
    // Debian: /var/lib/postgresql/15/main writes to /var/log/postgresql/postgresql-15-main.log.
    let mut names = data_dir.components().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let (cluster, version) = (names.next()?, names.next()?);
    let path = Path::new("/var/log/postgresql").join(format!("postgresql-{version}-{cluster}.log"));
    path.is_file().then_some(path)
}

/// The kernel's ring of this boot.
fn kernel_marks() -> Result<Vec<Mark<kernel::Sign>>, String> {
    let fail = |error: std::io::Error| format!("/dev/kmsg: {error}");
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg").map_err(fail)?;
    let booted = Timestamp::now().checked_sub(boot_now()).ok();
    let mut record = vec![0; KERNEL_RECORD_MAX];
    let mut found = Vec::new();
    for _ in 0..KERNEL_RECORDS {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(len) => found.extend(of_kmsg(&String::from_utf8_lossy(&record[..len]), booted)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            // Overwritten while it was read: the next one follows.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Ok(found)
}

/// `6,339,5140900,-;text`: priority and facility, number, microseconds since boot, flags (Documentation/ABI/testing/dev-kmsg).
fn of_kmsg(record: &str, booted: Option<Timestamp>) -> Option<Mark<kernel::Sign>> {
    let (prefix, text) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let facility = fields.next()?.parse::<u32>().ok()? >> 3;
    // Facility 0 is the kernel; others were written into the ring by programs.
    if facility != 0 {
        return None;
    }
    let line = text.lines().next()?;
    let sign = kernel::sign("kernel", line)?;
    let us = fields.nth(1).and_then(|us| us.parse().ok());
    let at = us.zip(booted).and_then(|(us, booted)| booted.checked_add(Duration::from_micros(us)).ok());
    Some(Mark { at, sign, line: format!("kernel: {line}") })
}

/// The kernel's lines in systemd's journal, for whoever may not read the ring.
fn kernel_journal(no_ring: &str) -> Result<Vec<Mark<kernel::Sign>>, String> {
    let arguments = ["--no-pager", "--quiet", "--output=short-unix", "--dmesg", "--boot", "--lines", "5000"];
    let bytes = printed("journalctl", &arguments).map_err(|why| format!("{no_ring}; {why}"))?;
    let text = String::from_utf8_lossy(&bytes);
    // Whoever may not read the system's journal is shown an empty one.
    if text.trim().is_empty() {
        return Err(format!("{no_ring}; systemd's journal shows nothing of the kernel"));
    }
    let mark = |line: &str| {
        let (at, rest) = line.split_once(' ')?;
        let seconds = at.parse::<f64>().ok().filter(|at| at.is_finite() && *at >= 0.0)?;
        let at = Timestamp::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?).ok();
        let message = rest.split_once("kernel: ").map_or(rest, |(_, message)| message);
        Some(Mark { at, sign: kernel::sign("kernel", message)?, line: format!("kernel: {message}") })
    };
    Ok(text.lines().filter_map(mark).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_records_are_its_own() {
        let booted = Timestamp::from_second(1_000).ok();
        let kill = "6,339,5000000,-;Out of memory: Killed process 7 (postgres) total-vm:1kB\n SUBSYSTEM=x\n";
        let mark = of_kmsg(kill, booted).unwrap();
        assert_eq!((mark.at, mark.sign), (Timestamp::from_second(1_005).ok(), kernel::Sign::OomKill));
        assert_eq!(mark.line, "kernel: Out of memory: Killed process 7 (postgres) total-vm:1kB");
        for other in
            ["14,1,1,-;Out of memory: Killed process 7 (postgres)", "6,1,1,-;eth0: up", "", ";", "x,1,1,-;Oops: 1"]
        {
            assert_eq!(of_kmsg(other, booted), None, "{other}");
        }
    }

    #[test]
    fn a_server_s_log_is_where_it_says() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(log_file(dir.path()), None);
        assert!(log(Some(dir.path())).unwrap_err().contains("not found"));
        fs::create_dir(dir.path().join("log")).unwrap();
        let text =
            "1 [2] LOG:  database system is ready to accept connections\n1 [2] LOG:  received fast shutdown request\n";
        fs::write(dir.path().join("log/a.log"), text).unwrap();
        fs::write(dir.path().join("current_logfiles"), "stderr log/a.log\ncsvlog log/a.csv\n").unwrap();
        let found = log(Some(dir.path())).unwrap();
        assert_eq!(found.iter().map(|mark| mark.sign).collect::<Vec<_>>(), [Sign::Ready, Sign::StopAsked]);
        assert!(found[1].line.starts_with("a.log: "), "{}", found[1].line);
    }
}
