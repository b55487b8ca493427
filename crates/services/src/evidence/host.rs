//! What is left of the boot before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{printed, tail};
use crate::{
    boot::{
        HostFacts, LogTail, Mark, Source, WatchdogSays, kernel,
        logins::{self, Ending},
    },
    look::boot_now,
};

/// Lines at the end of a boot's log that are read.
const LINES: usize = 1_000;
/// Bytes at the end of a text log that are read.
const TEXT_BYTES: u64 = 512 << 10;
/// Bytes at the end of wtmp that are read: some 2,700 records, whole ones.
const LOGINS_BYTES: u64 = 2_700 * logins::RECORD_LEN as u64;
/// Bytes of one crash dump that are read.
const DUMP_BYTES: u64 = 256 << 10;
/// Crash dumps that are read.
const DUMPS_MAX: usize = 64;
/// `WDIOF_CARDRESET` of linux/watchdog.h: the card reset the machine.
const CARD_RESET: u64 = 0x20;

/// Where to look, and for what.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The root of the files: `/`, unless a test says otherwise.
    pub root: PathBuf,
    /// The boot that ended, as `/proc/sys/kernel/random/boot_id` named it.
    pub boot_id: String,
    /// The guard's newest record in it.
    pub newest_record: Option<Timestamp>,
    /// The guard had been told to stop.
    pub guard_stopped: bool,
}

/// Reads it all.
pub fn host(asked: &Asked) -> HostFacts {
    let booted = Timestamp::now().checked_sub(boot_now()).ok();
    let log = journal(asked).or_else(|no_journal| {
        text_log(&asked.root)
            .ok_or_else(|| format!("{no_journal}; nor do /var/log/kern.log, syslog or messages have it"))
    });
    HostFacts {
        newest_record: asked.newest_record,
        guard_stopped: asked.guard_stopped,
        booted,
        log: log.map_or_else(Source::Missing, Source::Read),
        dumps: dumps(&asked.root),
        logins: booted.map_or_else(
            || Source::Missing("the clock tells no time".to_owned()),
            |booted| sessions(&asked.root, booted).map_or_else(Source::Missing, Source::Read),
        ),
        watchdog: watchdogs(&asked.root),
    }
}

/// systemd's journal of that boot.
fn journal(asked: &Asked) -> Result<LogTail, String> {
    let boot: String = asked.boot_id.chars().filter(char::is_ascii_hexdigit).collect();
    let (boot, lines) = (format!("_BOOT_ID={boot}"), LINES.to_string());
    let directory = asked.root.join("var/log/journal").display().to_string();
    let mut arguments = vec!["--no-pager", "--quiet", "--output=json", "--lines", &lines, &boot];
    if asked.root != Path::new("/") {
        arguments.extend(["--directory", &directory]);
    }
    let bytes = printed("journalctl", &arguments)?;
    let tail = of_journal(&String::from_utf8_lossy(&bytes));
    tail.newest.map(|_| tail).ok_or_else(|| {
        "systemd's journal has nothing of that boot (kept over a boot only in /var/log/journal, for root and the group systemd-journal)".to_owned()
    })
}

/// From what `journalctl --output=json` prints.
fn of_journal(text: &str) -> LogTail {
    let mut tail = LogTail::default();
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        let at = field("__REALTIME_TIMESTAMP").parse().ok().and_then(|us| Timestamp::from_microsecond(us).ok());
        tail.newest = tail.newest.max(at);
        // Only the kernel's own transport is the kernel: anybody may call himself so.
        let program = match (field("_TRANSPORT"), field("SYSLOG_IDENTIFIER")) {
            ("kernel", _) => "kernel",
            (_, "kernel" | "") => "unknown",
            (_, program) => program,
        };
        if let Some(sign) = kernel::sign(program, field("MESSAGE")) {
            tail.marks.push(Mark { at, sign, line: format!("{program}: {}", field("MESSAGE")) });
        }
    }
    tail
}

/// What a syslog daemon wrote of it: what stands before the newest boot's first line. Its times have no year and no zone, so they are not used.
fn text_log(root: &Path) -> Option<LogTail> {
    const FIRST_LINE: &str = "Linux version ";
    for name in ["kern.log", "syslog", "messages"] {
        let Ok(bytes) = tail(&root.join("var/log").join(name), TEXT_BYTES) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let Some((before, _)) = text.rsplit_once(FIRST_LINE) else { continue };
        let lines: Vec<&str> = before.lines().collect();
        let mark = |line: &&str| {
            let sign = kernel::sign("", line)?;
            Some(Mark { at: None, sign, line: format!("{name}: {line}") })
        };
        let last = &lines[lines.len().saturating_sub(LINES)..];
        return Some(LogTail { newest: None, marks: last.iter().filter_map(mark).collect() });
    }
    None
}

/// What crashing kernels saved, and what systemd-pstore moved away of it.
fn dumps(root: &Path) -> Source<Vec<Mark<kernel::Sign>>> {
    let backend = fs::read_to_string(root.join("sys/module/pstore/parameters/backend")).unwrap_or_default();
    let kept = files_below(&root.join("sys/fs/pstore"), 1);
    let moved = files_below(&root.join("var/lib/systemd/pstore"), 4).unwrap_or_default();
    let has_backend = !matches!(backend.trim(), "" | "(null)");
    let kept = match kept {
        Ok(kept) => kept,
        Err(error) if moved.is_empty() => return Source::Missing(format!("/sys/fs/pstore: {error}")),
        Err(_) => Vec::new(),
    };
    if !has_backend && kept.is_empty() && moved.is_empty() {
        return Source::Missing("this machine keeps nothing of a crashing kernel (pstore has no backend)".to_owned());
    }
    let mut marks = Vec::new();
    for path in kept.iter().chain(&moved).take(DUMPS_MAX) {
        let Ok(bytes) = tail(path, DUMP_BYTES) else { continue };
        let at = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|at| Timestamp::try_from(at).ok());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let signs = text.lines().filter_map(|line| Some((kernel::sign("kernel", line)?, line)));
        marks.extend(signs.map(|(sign, line)| Mark { at, sign, line: format!("pstore {name}: {}", line.trim()) }));
    }
    Source::Read(marks)
}

fn files_below(path: &Path, depth: usize) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)?.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 1 => {
                files.extend(files_below(&entry.path(), depth - 1).unwrap_or_default());
            }
            _ => {}
        }
        if files.len() >= DUMPS_MAX {
            break;
        }
    }
    files.sort();
    Ok(files)
}

fn sessions(root: &Path, booted: Timestamp) -> Result<Option<Ending>, String> {
    let path = root.join("var/log/wtmp");
    let fail = |error: io::Error| format!("/var/log/wtmp: {error}");
    let len = fs::metadata(&path).map_err(fail)?.len();
    // Its records have no line ends to begin with.
    let from = len.saturating_sub(LOGINS_BYTES) / logins::RECORD_LEN as u64 * logins::RECORD_LEN as u64;
    let mut file = fs::File::open(&path).map_err(fail)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(from)).map_err(fail)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LOGINS_BYTES * 2), &mut bytes).map_err(fail)?;
    logins::ending(&bytes, booted).map_err(|why| format!("/var/log/wtmp: {why}"))
}

fn watchdogs(root: &Path) -> Source<WatchdogSays> {
    let class = root.join("sys/class/watchdog");
    let entries = match fs::read_dir(&class) {
        Ok(entries) => entries,
        // A kernel without any such device has no such directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.join("sys/class").exists() => {
            return Source::Read(WatchdogSays::default());
        }
        Err(error) => return Source::Missing(format!("/sys/class/watchdog: {error}")),
    };
    let mut says = WatchdogSays::default();
    for entry in entries.flatten() {
        says.there = true;
        let status = fs::read_to_string(entry.path().join("bootstatus")).unwrap_or_default();
        let status = status.trim();
        let flags =
            status.strip_prefix("0x").map_or_else(|| status.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
        says.reset |= flags.unwrap_or(0) & CARD_RESET != 0;
    }
    Source::Read(says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::Sign;

    #[test]
    fn the_journal_s_entries_say_who_wrote_them() {
        let text = r#"{"__REALTIME_TIMESTAMP":"1000000","_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"Out of memory: Killed process 1 (x)"}
{"__REALTIME_TIMESTAMP":"3000000","_TRANSPORT":"syslog","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"Kernel panic - not syncing: a joke"}
not json
{"__REALTIME_TIMESTAMP":"2000000","_TRANSPORT":"journal","SYSLOG_IDENTIFIER":"systemd","MESSAGE":"Reached target reboot.target - System Reboot."}
{"__REALTIME_TIMESTAMP":"2500000","MESSAGE":[1,2,3]}"#;
        let tail = of_journal(text);
        assert_eq!(tail.newest, Timestamp::from_second(3).ok());
        assert_eq!(tail.marks.iter().map(|mark| mark.sign).collect::<Vec<_>>(), [Sign::OomKill, Sign::ShutdownDone]);
    }

    #[test]
    fn what_is_left_is_read_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for directory in ["var/log", "sys/fs/pstore", "sys/class/watchdog/watchdog0", "sys/module/pstore/parameters"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        let asked = Asked {
            root: root.path().to_owned(),
            boot_id: "0b5e2a1c-0000-4000-8000-000000000000".into(),
            newest_record: None,
            guard_stopped: false,
        };
        let nothing = host(&asked);
        assert!(matches!(nothing.log, Source::Missing(_)), "{:?}", nothing.log);
        assert!(matches!(nothing.logins, Source::Missing(_)));
        assert!(matches!(nothing.dumps, Source::Missing(_)), "{:?}", nothing.dumps);
        fs::write(at("sys/module/pstore/parameters/backend"), "efi_pstore\n").unwrap();
        fs::write(at("sys/fs/pstore/dmesg-efi-1"), "Oops#1 Part1\n<0>[ 9.1] Kernel panic - not syncing: x\n").unwrap();
        fs::write(at("sys/class/watchdog/watchdog0/bootstatus"), "32\n").unwrap();
        fs::write(
            at("var/log/kern.log"),
            "Mar 1 db kernel: Linux version 1\nMar 1 db kernel: Out of memory: Killed process 3 (x)\nMar 1 db kernel: Linux version 1\nMar 1 db kernel: Oops: of this boot\n",
        )
        .unwrap();
        let found = host(&asked);
        assert_eq!(found.watchdog, Source::Read(WatchdogSays { reset: true, there: true }));
        assert_eq!(found.dumps.read().unwrap()[0].sign, Sign::Panic { out_of_memory: false });
        let log = found.log.read().unwrap();
        assert_eq!(log.marks.iter().map(|mark| mark.sign).collect::<Vec<_>>(), [Sign::OomKill]);
        assert!(found.booted.unwrap() <= Timestamp::now());
    }
}
