//! Who holds the most memory, whoever's process it is: looked up only while memory is short, since it reads a file of each process.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    ByteSize, Moment, Pid,
    reading::{CgroupLimits, LargeProcess, Memory},
};

/// How often is looked. A thousand processes take some milliseconds.
const EVERY: Duration = Duration::from_secs(5);
/// How many are named.
const NAMED: usize = 3;
/// Processes that are looked at; a host with more has a largest one all the same, perhaps another.
const MAX_SCANNED: usize = 4_096;
/// From this share of use on, in per cent, somebody may soon ask who it is.
const SHORT_FROM_PERCENT: u64 = 70;
/// `/proc/PID/stat` in one read.
const STAT_BYTES: usize = 1_024;

/// The look, from sample to sample.
#[derive(Debug)]
pub struct Largest {
    proc_root: PathBuf,
    page_bytes: u64,
    newest: Option<(Moment, Vec<LargeProcess>)>,
}

impl Largest {
    pub fn new(proc_root: &Path) -> Self {
        Self { proc_root: proc_root.to_owned(), page_bytes: rustix::param::page_size() as u64, newest: None }
    }

    /// The largest processes, most first; empty while memory is not short. Where it is a group's memory that is short, only those in it count: `in_group`.
    pub fn look(
        &mut self,
        now: Moment,
        memory: Memory,
        cgroup: CgroupLimits,
        in_group: impl FnOnce() -> Option<Vec<Pid>>,
    ) -> Vec<LargeProcess> {
        let of_group = group_is_short(cgroup);
        if !of_group && !host_is_short(memory) {
            self.newest = None;
            return Vec::new();
        }
        if let Some((at, known)) = &self.newest
            && now.since(*at) < EVERY
        {
            return known.clone();
        }
        let found = match of_group.then(in_group).flatten() {
            Some(pids) => self.scan(pids.into_iter()),
            None => {
                let entries = fs::read_dir(&self.proc_root).into_iter().flatten().flatten();
                self.scan(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid))
            }
        };
        self.newest = Some((now, found.clone()));
        found
    }

    fn scan(&self, pids: impl Iterator<Item = Pid>) -> Vec<LargeProcess> {
        let mut largest: Vec<LargeProcess> = Vec::with_capacity(NAMED + 1);
        let mut buffer = [0; STAT_BYTES];
        for pid in pids.take(MAX_SCANNED) {
            let path = self.proc_root.join(pid.to_string()).join("stat");
            // One that ended meanwhile is none.
            let read = File::open(&path).and_then(|mut file| file.read(&mut buffer));
            let Some((name, pages)) = read.ok().and_then(|length| parse(&buffer[..length])) else { continue };
            let rss = ByteSize(pages.saturating_mul(self.page_bytes));
            if rss.0 == 0 || largest.len() == NAMED && largest.last().is_some_and(|least| least.rss >= rss) {
                continue;
            }
            let at = largest.partition_point(|other| other.rss >= rss);
            largest.insert(at, LargeProcess { pid, name, rss });
            largest.truncate(NAMED);
        }
        largest
    }
}

/// Whether so much is used that it matters who has it.
fn is_short(used: u64, of: u64) -> bool {
    of > 0 && used.saturating_mul(100) / of >= SHORT_FROM_PERCENT
}

fn host_is_short(memory: Memory) -> bool {
    is_short(memory.total.0.saturating_sub(memory.available.0), memory.total.0)
}

fn group_is_short(cgroup: CgroupLimits) -> bool {
    matches!((cgroup.memory, cgroup.memory_used), (Some(limit), Some(used)) if is_short(used.0, limit.0))
}

/// Command and resident pages, by proc(5): the name is in parentheses and may hold any, `rss` is field 24.
fn parse(stat: &[u8]) -> Option<(String, u64)> {
    const RSS_AFTER_NAME: usize = 24 - 3;
    let stat = String::from_utf8_lossy(stat);
    let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
    let name: String = stat.get(begin + 1..end)?.chars().filter(|c| !c.is_control()).collect();
    let pages = stat.get(end + 1..)?.split_ascii_whitespace().nth(RSS_AFTER_NAME)?.parse().ok()?;
    Some((name, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, pages: u64) -> String {
        format!(
            "7 ({name}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 99 1000000 {pages} 18446744073709551615 1 1\n"
        )
    }

    fn memory(available: u64) -> Memory {
        Memory { total: ByteSize(100), available: ByteSize(available), ..Memory::default() }
    }

    #[test]
    fn the_largest_are_named_while_memory_is_short_and_looked_up_now_and_then() {
        let root = tempfile::tempdir().unwrap();
        let write = |pid: &str, text: &str| {
            fs::create_dir_all(root.path().join(pid)).unwrap();
            fs::write(root.path().join(pid).join("stat"), text).unwrap();
        };
        for (pid, name, pages) in
            [("1", "init", 5), ("70", "a) R 1 (b", 90), ("71", "x\u{1b}[2J", 40), ("72", "c", 30), ("9", "kthread", 0)]
        {
            write(pid, &stat(name, pages));
        }
        write("self", &stat("self", 999));
        write("80", "damaged");
        let mut largest = Largest::new(root.path());
        let at = |s| Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_us: 1 }.plus(Duration::from_secs(s));
        let none = CgroupLimits::default();
        assert_eq!(largest.look(at(0), memory(31), none, || None), []);
        let found = largest.look(at(1), memory(30), none, || None);
        let names: Vec<_> =
            found.iter().map(|one| (one.pid.0, one.name.as_str(), one.rss.0 / largest.page_bytes)).collect();
        assert_eq!(names, [(70, "a) R 1 (b", 90), (71, "x[2J", 40), (72, "c", 30)]);
        write("73", &stat("new", 1000));
        assert_eq!(largest.look(at(5), memory(30), none, || None), found, "not every time");
        assert_eq!(largest.look(at(6), memory(30), none, || None)[0].name, "new");
        let group = CgroupLimits { memory: Some(ByteSize(10)), memory_used: Some(ByteSize(7)), ..none };
        assert_eq!(largest.look(at(9), memory(90), group, || None)[0].name, "new", "the group's limit counts too");
        assert!(largest.look(at(9), memory(90), none, || None).is_empty());
        // Only who is in it can make it short.
        let in_group = || Some(vec![Pid(72), Pid(4), Pid(71)]);
        let names = |found: Vec<LargeProcess>| found.into_iter().map(|one| one.pid.0).collect::<Vec<_>>();
        assert_eq!(names(largest.look(at(20), memory(90), group, in_group)), [71, 72]);
        assert_eq!(names(largest.look(at(30), memory(30), none, in_group)), [73, 70, 71]);
    }
}
