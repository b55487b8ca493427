//! Whose process a hold is, and whether that process is certainly gone.
//!
//! A reader that was killed leaves its hold in the log for ever: no time-out ends it, because a suspended reader looks the same. What
//! ends it is proof. A host knows of its own processes: a pid in the same pid namespace since the same boot is that process or is not.
//! Of another host's processes it knows nothing, whatever the clocks and numbers say, and a person has to.

use std::{fs, path::Path};

use rustix::{io::Errno, process::Pid};
use serde::{Deserialize, Serialize};

use crate::log::Nonce;

/// The longest file below /proc or /etc that is read here, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 4096;

/// The process that holds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its host's name, for people.
    pub host: String,
    /// `/etc/machine-id`; empty where there is none, as in many containers.
    #[serde(default)]
    pub machine: String,
    /// `/proc/sys/kernel/random/boot_id`: no two boots of any hosts have the same. Empty where it can't be read.
    #[serde(default)]
    pub boot: String,
    /// The pid namespace, in which the pid counts, and the time namespace, in which the start counts. Empty where unknown.
    #[serde(default)]
    pub namespaces: String,
    /// Its process id.
    pub pid: u32,
    /// When it began, in clock ticks since the boot: tells it from a later process of the same pid.
    #[serde(default)]
    pub start: u64,
    /// The mark in the file that remembers the repository's tip: one for each state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Nonce>,
}

/// What a host knows of a process that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It runs.
    Running,
    /// It certainly does not: it ran on this host, and is not there any more.
    Gone,
    /// It ran elsewhere (another host, another container), or nobody wrote down where: only a person can say.
    Unknown,
}

/// What is found under a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No process, or one that has ended and only waits to be noticed.
    Nothing,
    /// One that began then.
    Since(u64),
    /// One of which nobody tells when it began.
    Hidden,
}

impl Holder {
    /// This process. `state` is the mark of its state directory.
    pub(crate) fn this(state: Option<Nonce>) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        let (namespaces, start) = match (namespaces(pid), look(pid)) {
            (Some(namespaces), Found::Since(start)) => (namespaces, start),
            _ => (String::new(), 0),
        };
        let boot = read("/proc/sys/kernel/random/boot_id");
        Self { host, machine: read("/etc/machine-id"), boot, namespaces, pid, start, state }
    }

    /// What `self`, a process of this host, knows of `other`.
    pub(crate) fn judge(&self, other: &Self) -> Standing {
        self.judge_by(other, look)
    }

    fn judge_by(&self, other: &Self, look: impl FnOnce(u32) -> Found) -> Standing {
        let known_and_same = |ours: &str, theirs: &str| !ours.is_empty() && ours == theirs;
        if known_and_same(&self.boot, &other.boot) {
            // Another container's pids are none of ours, though its kernel is.
            if !known_and_same(&self.namespaces, &other.namespaces) {
                return Standing::Unknown;
            }
            return match look(other.pid) {
                Found::Nothing => Standing::Gone,
                Found::Since(start) if start == other.start => Standing::Running,
                Found::Since(_) => Standing::Gone,
                Found::Hidden => Standing::Unknown,
            };
        }
        // A machine-id alone is copied along with images, a name is given twice; the mark is made by chance in the state directory, on
        // this host's disk. Where all three are the same, the host has booted since.
        let rebooted = !self.boot.is_empty()
            && !other.boot.is_empty()
            && known_and_same(&self.machine, &other.machine)
            && known_and_same(&self.host, &other.host)
            && self.state.is_some()
            && self.state == other.state;
        if rebooted { Standing::Gone } else { Standing::Unknown }
    }
}

fn read(path: &str) -> String {
    let small = fs::metadata(path).is_ok_and(|found| found.len() <= SMALL_FILE_BYTES_MAX);
    if small { fs::read_to_string(path).unwrap_or_default().trim().to_owned() } else { String::new() }
}

/// `None` where /proc shows another pid namespace than ours, as in a container that was given its host's.
fn namespaces(pid: u32) -> Option<String> {
    let shown = fs::read_link("/proc/self").ok()?;
    if shown != Path::new(&pid.to_string()) {
        return None;
    }
    let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let pids = link("pid")?;
    // Kernels before 5.6 have no time namespaces: there is one time for all.
    let time = link("time").unwrap_or_default();
    Some(format!("{} {}", pids.display(), time.display()))
}

/// Asks the kernel by a signal that is none: /proc may hide other users' processes, which are not gone by that.
fn look(pid: u32) -> Found {
    let Some(known) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Found::Hidden };
    match rustix::process::test_kill_process(known) {
        Err(Errno::SRCH) => Found::Nothing,
        Ok(()) | Err(_) => match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => parse_stat(&stat).unwrap_or(Found::Hidden),
            Err(_) => Found::Hidden,
        },
    }
}

/// proc_pid_stat(5): fields 3 (state), 20 (threads) and 22 (start). The second, the name, may hold blanks and brackets.
fn parse_stat(stat: &str) -> Option<Found> {
    let (_, behind) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = behind.split(' ').collect();
    let state = *fields.first()?;
    let threads: i64 = fields.get(17)?.parse().ok()?;
    // A leader that has ended is a zombie too while other threads of the process go on.
    if state == "X" || (state == "Z" && threads <= 1) {
        return Some(Found::Nothing);
    }
    fields.get(19)?.trim().parse().ok().map(Found::Since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder() -> Holder {
        Holder {
            host: "db1".to_owned(),
            machine: "m".to_owned(),
            boot: "b".to_owned(),
            namespaces: "pid:[1] time:[2]".to_owned(),
            pid: 7,
            start: 100,
            state: Some(Nonce::from_bytes([1; 16])),
        }
    }

    #[test]
    fn only_what_is_certainly_gone_is_gone() {
        use Standing::{Gone, Running, Unknown};
        type Change = fn(&mut Holder);
        let same: Change = |_| {};
        let rows: &[(&str, Change, Found, Standing)] = &[
            ("it runs", same, Found::Since(100), Running),
            ("no such process", same, Found::Nothing, Gone),
            ("the pid was given again", same, Found::Since(101), Gone),
            ("hidden by /proc", same, Found::Hidden, Unknown),
            ("another container", |h| h.namespaces = "pid:[9] time:[2]".to_owned(), Found::Nothing, Unknown),
            ("namespaces unknown", |h| h.namespaces.clear(), Found::Nothing, Unknown),
            ("the host has booted since", |h| h.boot = "a".to_owned(), Found::Since(100), Gone),
            ("boot unknown", |h| h.boot.clear(), Found::Nothing, Unknown),
            (
                "an image's machine-id on another host",
                |h| (h.boot, h.state) = ("a".to_owned(), Some(Nonce::from_bytes([2; 16]))),
                Found::Nothing,
                Unknown,
            ),
            ("no state directory", |h| (h.boot, h.state) = ("a".to_owned(), None), Found::Nothing, Unknown),
            ("another name", |h| (h.boot, h.host) = ("a".to_owned(), "db2".to_owned()), Found::Nothing, Unknown),
            (
                "a container without machine-id",
                |h| (h.boot, h.machine) = ("a".to_owned(), String::new()),
                Found::Nothing,
                Unknown,
            ),
        ];
        for (what, change, found, expected) in rows {
            let mut other = holder();
            change(&mut other);
            assert_eq!(holder().judge_by(&other, |_| *found), *expected, "{what}");
        }
        // Nor does a host that knows nothing of itself judge others.
        let nobody = Holder { boot: String::new(), state: None, ..holder() };
        assert_eq!(nobody.judge_by(&nobody.clone(), |_| Found::Nothing), Unknown);
        let mut unmarked = holder();
        unmarked.state = None;
        let old = Holder { boot: "a".to_owned(), ..unmarked.clone() };
        assert_eq!(unmarked.judge_by(&old, |_| Found::Nothing), Unknown);
    }

    #[test]
    fn this_process_runs() {
        let this = Holder::this(None);
        if this.namespaces.is_empty() {
            return;
        }
        assert_eq!(this.judge(&this), Standing::Running);
        let earlier = Holder { start: this.start.wrapping_sub(1), ..this.clone() };
        assert_eq!(this.judge(&earlier), Standing::Gone);
    }

    #[test]
    fn stat_is_read_behind_the_name() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194304 9 0 0 0 1 2 0 0 20 0 {threads} 0 4711 1000 2 3 4\n")
        };
        assert_eq!(parse_stat(&stat("S", 1)), Some(Found::Since(4711)));
        assert_eq!(parse_stat(&stat("Z", 1)), Some(Found::Nothing));
        assert_eq!(parse_stat(&stat("Z", 2)), Some(Found::Since(4711)));
        for bad in ["", "7 (a) ", "7 (a) S", "7 (a) S 1 7 7 0 -1 4194304 9 0 0 0 1 2 0 0 20 0 x 0 y"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }
}
