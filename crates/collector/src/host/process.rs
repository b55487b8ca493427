//! One process in `/proc`: who it is, and the CPU time that it has used.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{Cores, Pid, ProcessId};

use super::{
    kept_file::Buffer,
    parse::{self, CpuSet, ProcessStat},
};

/// CPU time of a process since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuTime {
    /// `/proc/PID/schedstat`, of its main thread: exact. A process of PostgreSQL has no other thread.
    Nanoseconds(u64),
    /// `/proc/PID/stat`: in clock ticks, mostly of 10 ms.
    Ticks(u64),
}

impl CpuTime {
    /// The time as a duration.
    pub fn duration(self) -> Duration {
        match self {
            Self::Nanoseconds(nanoseconds) => Duration::from_nanos(nanoseconds),
            Self::Ticks(ticks) => ticks_to_duration(ticks),
        }
    }

    /// Time since `earlier`; `None` where the two were counted differently. A counter that ran backwards is no time.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        match (self, earlier) {
            (Self::Nanoseconds(now), Self::Nanoseconds(then)) => Some(Duration::from_nanos(now.saturating_sub(then))),
            (Self::Ticks(now), Self::Ticks(then)) => Some(ticks_to_duration(now.saturating_sub(then))),
            _ => None,
        }
    }

    /// Time per time since `earlier`.
    pub fn rate_since(self, earlier: Self, window: Duration) -> Option<Cores> {
        let used = self.since(earlier)?;
        (!window.is_zero()).then(|| Cores(used.as_secs_f64() / window.as_secs_f64()))
    }
}

fn ticks_to_duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / ticks_per_second())
}

/// `USER_HZ`.
fn ticks_per_second() -> f64 {
    (rustix::param::clock_ticks_per_second() as f64).max(1.0)
}

/// A process as it was at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// Who it is.
    pub id: ProcessId,
    /// Its parent.
    pub parent: Pid,
    /// CPU time since it started.
    pub cpu: CpuTime,
    /// Resident pages, shared ones included.
    pub rss_pages: u64,
}

impl ProcessSnapshot {
    /// How long after the host's boot it started.
    pub fn started_after_boot(&self) -> Duration {
        ticks_to_duration(self.id.start_ticks)
    }
}

/// Reads processes from `/proc`, or from a recorded tree of it.
#[derive(Debug)]
pub struct ProcessTable {
    root: PathBuf,
    buffer: Buffer,
}

impl ProcessTable {
    /// Of the given root, mostly `/proc`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), buffer: Buffer::new() }
    }

    /// The process with this pid now; `None` where there is none or we may not see it.
    pub fn snapshot(&mut self, pid: Pid) -> Option<ProcessSnapshot> {
        let stat = self.stat(pid)?;
        let exact = self.read(pid, "schedstat").ok().and_then(parse::schedstat);
        Some(Self::assemble(pid, stat, exact))
    }

    /// As [`Self::snapshot`], but with the time of all threads, in clock ticks: for processes that are not PostgreSQL's.
    pub fn snapshot_all_threads(&mut self, pid: Pid) -> Option<ProcessSnapshot> {
        let stat = self.stat(pid)?;
        Some(Self::assemble(pid, stat, None))
    }

    fn assemble(pid: Pid, stat: ProcessStat, exact: Option<u64>) -> ProcessSnapshot {
        ProcessSnapshot {
            id: ProcessId { pid, start_ticks: stat.start_ticks },
            parent: Pid(stat.parent),
            cpu: exact.map_or(CpuTime::Ticks(stat.cpu_ticks), CpuTime::Nanoseconds),
            rss_pages: stat.rss_pages,
        }
    }

    fn stat(&mut self, pid: Pid) -> Option<ProcessStat> {
        parse::process_stat(self.read(pid, "stat").ok()?)
    }

    /// The CPUs that it may run on.
    pub fn affinity(&mut self, pid: Pid) -> Option<CpuSet> {
        parse::cpus_allowed(self.read(pid, "status").ok()?)
    }

    /// What a process of PostgreSQL does, from its title.
    pub fn postgres_role(&mut self, pid: Pid) -> Option<&'static str> {
        parse::role_from_title(self.read(pid, "cmdline").ok()?)
    }

    /// Its children, appended to `children` (cleared before), at most `most` of them. False where they could not be listed.
    pub fn children(&mut self, pid: Pid, most: usize, children: &mut Vec<Pid>) -> bool {
        children.clear();
        let listed = self.read(pid, &format!("task/{pid}/children")).map(|list| {
            let pids = list.split(u8::is_ascii_whitespace).filter_map(parse::number);
            children.extend(pids.filter_map(|pid| i32::try_from(pid).ok()).map(Pid).take(most));
        });
        listed.is_ok()
    }

    /// As [`Self::children`], for kernels without that list: looks at every process there is.
    pub fn children_by_search(&mut self, parent: Pid, most: usize, children: &mut Vec<Pid>) -> bool {
        children.clear();
        let Ok(entries) = fs::read_dir(&self.root) else { return false };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let pid = parse::number(name.as_encoded_bytes()).and_then(|pid| i32::try_from(pid).ok()).map(Pid);
            let Some(pid) = pid else { continue };
            if self.stat(pid).is_some_and(|stat| stat.parent == parent.0) {
                children.push(pid);
                if children.len() >= most {
                    break;
                }
            }
        }
        true
    }

    /// Where it works: for the postmaster that is the data directory. Only its own user and root may look.
    pub fn working_directory(&self, pid: Pid) -> Option<PathBuf> {
        fs::read_link(self.root.join(format!("{pid}/cwd"))).ok()
    }

    fn read(&mut self, pid: Pid, name: &str) -> io::Result<&[u8]> {
        let file = File::open(self.root.join(format!("{pid}/{name}")))?;
        self.buffer.fill(&file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Pid {
        Pid(i32::try_from(std::process::id()).unwrap())
    }

    #[test]
    fn a_busy_process_is_seen_busy() {
        let mut table = ProcessTable::new(Path::new("/proc"));
        let before = table.snapshot_all_threads(me()).unwrap();
        let start = std::time::Instant::now();
        let mut x = 1u64;
        while table.snapshot_all_threads(me()).unwrap().cpu.since(before.cpu).unwrap() < Duration::from_millis(50) {
            for _ in 0..100_000 {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
            assert!(start.elapsed() < Duration::from_secs(30), "30 s of work were not counted");
        }
        let after = table.snapshot_all_threads(me()).unwrap();
        assert_eq!(after.id, before.id);
        assert!(after.rss_pages > 0);
    }

    #[test]
    fn children_are_found_either_way() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid(i32::try_from(child.id()).unwrap());
        let mut table = ProcessTable::new(Path::new("/proc"));
        assert_eq!(table.snapshot(pid).unwrap().parent, me());
        let mut children = Vec::new();
        assert!(table.children_by_search(me(), 1000, &mut children));
        assert!(children.contains(&pid));
        // A thread's list names the children that this thread forked; the postmaster has but one.
        if table.children(me(), 1000, &mut children) {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            let listed = fs::read_to_string(format!("/proc/self/task/{tid}/children")).unwrap();
            assert!(listed.split_whitespace().any(|word| word == pid.to_string()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(table.snapshot(pid), None);
    }

    #[test]
    fn counters_of_two_kinds_are_not_compared() {
        assert_eq!(CpuTime::Nanoseconds(5).since(CpuTime::Ticks(1)), None);
        assert_eq!(CpuTime::Nanoseconds(5).since(CpuTime::Nanoseconds(9)), Some(Duration::ZERO));
        assert_eq!(CpuTime::Nanoseconds(5).rate_since(CpuTime::Nanoseconds(0), Duration::ZERO), None);
    }
}
