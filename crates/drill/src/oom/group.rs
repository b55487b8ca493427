//! A control group with a limit of memory: the small server on which the drill plays. Version 1's memory hierarchy, or version 2's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use collector::host::Cgroups;
use rustix::process::{Pid, Signal, kill_process};

use crate::DrillError;

/// How groups are named, before the drill's pid.
const PREFIX: &str = "oxpecker-drill-";
/// How long its processes may take to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A group of our own. Dropped, what still runs in it is killed, and it is removed.
pub(crate) struct Group {
    dir: PathBuf,
    /// Of version 1.
    is_first: bool,
}

impl Group {
    /// Makes one below our own, or as near to it as a limit can be set.
    pub(crate) fn create(limit_bytes: u64) -> Result<Self, DrillError> {
        let own = Cgroups::find(Path::new("/proc"), Path::new("/sys"));
        let (first, unified) = own.of_memory();
        let mut why = "no memory controller is mounted here".to_owned();
        let all = first.iter().map(|dir| (dir, true)).chain(unified.iter().map(|dir| (dir, false)));
        for (parent, is_first) in all {
            match Self::make(parent, is_first, limit_bytes) {
                Ok(group) => return Ok(group),
                Err(error) => why = format!("below {}: {error}", parent.display()),
            }
        }
        Err(DrillError::Options {
            what: format!("this drill needs a control group with a limit of memory, and none can be made: {why}"),
            hint: "run it as root on a host, not in a container; it never fills the memory of the host itself"
                .to_owned(),
        })
    }

    fn make(parent: &Path, is_first: bool, limit_bytes: u64) -> io::Result<Self> {
        sweep(parent);
        let group = Self { dir: parent.join(format!("{PREFIX}{}", std::process::id())), is_first };
        let (limit, no_swap) = if is_first {
            ("memory.limit_in_bytes", ("memory.swappiness", "0"))
        } else {
            ("memory.max", ("memory.swap.max", "0"))
        };
        fs::create_dir(&group.dir)?;
        fs::write(group.dir.join(limit), limit_bytes.to_string())?;
        // A kernel without swap has no such file, and needs none.
        let _ = fs::write(group.dir.join(no_swap.0), no_swap.1);
        Ok(group)
    }

    /// The file that lists its processes, and takes them.
    pub(crate) fn members(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Puts a process into it; what it starts from then on is in it too.
    pub(crate) fn take(&self, pid: u32) -> Result<(), DrillError> {
        let file = self.members();
        fs::write(&file, pid.to_string()).map_err(DrillError::file("putting a process into", file))
    }

    /// What is left of the memory, in bytes, without the page cache that goes first. As the guard counts it.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        let number = |file: &str| fs::read_to_string(self.dir.join(file)).ok()?.trim().parse::<u64>().ok();
        let (limit, usage, cache) = if self.is_first {
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        } else {
            ("memory.max", "memory.current", "inactive_file")
        };
        let used = number(usage)?.saturating_sub(self.counted("memory.stat", cache).unwrap_or(0));
        Some(number(limit)?.saturating_sub(used))
    }

    /// How often the kernel killed a process in it for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        self.counted(if self.is_first { "memory.oom_control" } else { "memory.events" }, "oom_kill").unwrap_or(0)
    }

    /// `name 7`, a line of such a file.
    fn counted(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.dir.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

/// Removes groups of drills that were killed. One in which something still runs can't be removed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + GONE_PATIENCE;
        while fs::remove_dir(&self.dir).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            let left = fs::read_to_string(self.members()).unwrap_or_default();
            for pid in left.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
                // Ours alone are in it; gone in the meantime is what we want.
                let _ = kill_process(pid, Signal::KILL);
            }
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}
