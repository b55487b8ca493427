//! A bound on the scratch server's memory, by a control group where one can be made.
//!
//! RLIMIT_AS would be wrong: it counts address space, each of PostgreSQL's processes maps all of the shared memory, and an allocation that
//! fails ends a recovery, while a control group gives back its page cache first.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::proof::place::remove_cgroup;

/// A control group for one server.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// Makes one below our own.
    ///
    /// # Errors
    /// Why none can be had, for people.
    pub(crate) fn create(name: &str, limit_bytes: u64) -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut why = "no memory controller is mounted".to_owned();
        for (parent, file) in candidates(&own, &mounts) {
            let dir = parent.join(name);
            let made = fs::create_dir(&dir).and_then(|()| fs::write(dir.join(file), limit_bytes.to_string()));
            match made {
                Ok(()) => return Ok(Self { dir }),
                Err(error) => {
                    let _ = fs::remove_dir(&dir);
                    why = format!("a control group below {} can't be used: {error}", parent.display());
                }
            }
        }
        Err(why)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Puts a process into it; what it starts from then on is in it too.
    ///
    /// # Errors
    /// Why not, for people.
    pub(crate) fn take(&self, pid: u32) -> Result<(), String> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
            .map_err(|error| format!("the server can't be put into it: {error}"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        remove_cgroup(&self.dir);
    }
}

/// Where a group may be made, and the name of its limit: version 1's memory hierarchy, then the unified one.
fn candidates(own: &str, mounts: &str) -> Vec<(PathBuf, &'static str)> {
    let mounted = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let (place, source) = line.split_once(" - ")?;
            let mut source = source.split(' ');
            let fits = source.next() == Some(kind)
                && option.is_none_or(|wanted| source.nth(1).is_some_and(|all| all.split(',').any(|one| one == wanted)));
            fits.then(|| place.split(' ').nth(4)).flatten()
        })
    };
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let below = |mount: &str| Path::new(mount).join(path.trim_start_matches('/'));
        if controllers.split(',').any(|one| one == "memory") {
            found.extend(mounted("cgroup", Some("memory")).map(|mount| (below(mount), "memory.limit_in_bytes")));
        } else if controllers.is_empty() {
            found.extend(mounted("cgroup2", None).map(|mount| (below(mount), "memory.max")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let own = "4:memory:/a/b\n3:cpuset:/\n0::/c\n";
        let mounts = "1 0 0:1 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory\n\
            2 0 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n3 0 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            candidates(own, mounts),
            [
                (PathBuf::from("/sys/fs/cgroup/memory/a/b"), "memory.limit_in_bytes"),
                (PathBuf::from("/sys/fs/cgroup/unified/c"), "memory.max"),
            ]
        );
        assert!(candidates("0::/\n", "").is_empty());
    }
}
