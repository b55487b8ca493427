//! Limits of the control groups that we and PostgreSQL run in: cgroups(7), the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
//!
//! A limit of any group on the way up binds too, so the tightest counts. Where the groups are is looked up at the start and from
//! time to time (a process can be moved); the limits themselves are read with each sample.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::{ByteSize, Cores, Pid, reading::CgroupLimits};
use procfs::{
    FromRead, ProcessCGroups,
    process::{MountInfo, MountInfos},
};

use super::parse::number;

/// No hierarchy that we have heard of is deeper; the walk up stops there.
const MAX_DEPTH: usize = 32;
/// Groups below a limit whose processes are listed at most.
const MAX_GROUPS: usize = 256;
/// cgroup v1 says "no limit" with the largest multiple of a page; nothing real comes near 2^60 bytes.
const V1_UNLIMITED_BYTES: u64 = 1 << 60;

/// The directories to read, from our own group up to the root of what we can see.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Version 2: CPU and memory.
    unified: Vec<PathBuf>,
    /// Version 1: CPU.
    cpu: Vec<PathBuf>,
    /// Version 1: memory.
    memory: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds our groups. Version 1, 2 and the two mixed ("hybrid") are all in use; no groups at all is no error.
    pub fn find(proc_root: &Path, sys_root: &Path) -> Self {
        Self::find_of(proc_root, sys_root, "self")
    }

    /// Finds those of a process, by its name below `/proc`; as far as we can see them from here.
    pub fn find_of(proc_root: &Path, sys_root: &Path, process: &str) -> Self {
        let groups = ProcessCGroups::from_file(proc_root.join(process).join("cgroup"));
        let mounts = MountInfos::from_file(proc_root.join("self/mountinfo"));
        let (Ok(groups), Ok(mounts)) = (groups, mounts) else { return Self::default() };
        let mut found = Self::default();
        for group in groups.0 {
            if group.controllers.is_empty() || group.controllers.iter().all(String::is_empty) {
                if let Some(mount) = mounts.0.iter().find(|mount| mount.fs_type == "cgroup2") {
                    found.unified = way_up(mount, &group.pathname, sys_root);
                }
                continue;
            }
            for controller in &group.controllers {
                let target = match controller.as_str() {
                    "cpu" => &mut found.cpu,
                    "memory" => &mut found.memory,
                    _ => continue,
                };
                let mount = mounts
                    .0
                    .iter()
                    .find(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key(controller.as_str()));
                if let Some(mount) = mount {
                    *target = way_up(mount, &group.pathname, sys_root);
                }
            }
        }
        found
    }

    /// The limits now.
    pub fn limits(&self) -> CgroupLimits {
        let mut limits = CgroupLimits::default();
        for directory in &self.unified {
            tighten_cpu(&mut limits, cpu_max(directory));
            let max = read_number(&directory.join("memory.max"));
            tighten_memory(&mut limits, max, || used(directory, "memory.current", "inactive_file"));
        }
        for directory in &self.cpu {
            tighten_cpu(&mut limits, cfs_quota(directory));
        }
        for directory in &self.memory {
            let max = read_number(&directory.join("memory.limit_in_bytes")).filter(|max| *max < V1_UNLIMITED_BYTES);
            tighten_memory(&mut limits, max, || used(directory, "memory.usage_in_bytes", "total_inactive_file"));
        }
        limits
    }

    /// The limits now, ours beside those that `database` runs under: it is the database that is killed where its group is full.
    pub fn limits_with(&self, database: Option<&Self>) -> CgroupLimits {
        let own = self.limits();
        match database.map(Self::limits) {
            Some(of_it) if of_it.memory.is_some() => CgroupLimits {
                cpu: own.cpu,
                memory: of_it.memory,
                memory_used: of_it.memory_used,
                binds_database: true,
            },
            _ => own,
        }
    }

    /// The processes under the tightest limit of memory; `None` where there is none, or it can't be read.
    pub fn under_memory_limit(&self) -> Option<Vec<Pid>> {
        let of = |directory: &Path, file: &str| read_number(&directory.join(file));
        let unified = self.unified.iter().filter_map(|one| Some((of(one, "memory.max")?, one)));
        let first = self.memory.iter().filter_map(|one| Some((of(one, "memory.limit_in_bytes")?, one)));
        let (_, tightest) = unified.chain(first.filter(|(max, _)| *max < V1_UNLIMITED_BYTES)).min()?;
        let mut directories = vec![tightest.clone()];
        let (mut pids, mut read) = (Vec::new(), 0);
        while let Some(directory) = directories.pop().filter(|_| read < MAX_GROUPS) {
            read += 1;
            let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(members.lines().filter_map(|line| line.parse().ok()).map(Pid));
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories
                .extend(below.filter(|one| one.file_type().is_ok_and(|kind| kind.is_dir())).map(|one| one.path()));
        }
        (!pids.is_empty()).then_some(pids)
    }

    /// Directories of the memory controller, from the innermost group up: of version 1, and of version 2.
    pub fn of_memory(&self) -> (&[PathBuf], &[PathBuf]) {
        (&self.memory, &self.unified)
    }
}

/// From the group up to the mount's root. A mount can show only a part of the hierarchy (its `root`), and inside a container the
/// group's path can lie outside that part: then the mount's root is all that we can see of it.
fn way_up(mount: &MountInfo, group: &str, sys_root: &Path) -> Vec<PathBuf> {
    let base = match mount.mount_point.strip_prefix("/sys") {
        Ok(below) => sys_root.join(below),
        Err(_) => mount.mount_point.clone(),
    };
    let below_root = if mount.root == "/" { Some(group) } else { group.strip_prefix(mount.root.as_str()) };
    let below_root = below_root.unwrap_or("").trim_start_matches('/');
    let mut directories = Vec::new();
    let mut below = Path::new(below_root);
    while directories.len() < MAX_DEPTH {
        let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let directory = base.join(below);
        if is_plain && directory.is_dir() {
            directories.push(directory);
        }
        match below.parent() {
            Some(parent) => below = parent,
            None => break,
        }
    }
    directories
}

fn tighten_cpu(limits: &mut CgroupLimits, cores: Option<f64>) {
    if let Some(cores) = cores {
        limits.cpu = Some(Cores(limits.cpu.map_or(cores, |tightest| tightest.0.min(cores))));
    }
}

/// The use that counts is that of the group whose limit it is.
fn tighten_memory(limits: &mut CgroupLimits, max: Option<u64>, used: impl FnOnce() -> Option<u64>) {
    if let Some(max) = max
        && limits.memory.is_none_or(|tightest| max < tightest.0)
    {
        limits.memory = Some(ByteSize(max));
        limits.memory_used = used().map(ByteSize);
    }
}

/// What is in use without the cache that goes first. A kernel that does not tell the cache tells of more than there is: the more careful way.
fn used(directory: &Path, usage: &str, inactive: &str) -> Option<u64> {
    let used = read_number(&directory.join(usage))?;
    let stat = fs::read(directory.join("memory.stat")).unwrap_or_default();
    let mut lines = stat.split(|byte| *byte == b'\n');
    let cache = lines.find_map(|line| number(line.strip_prefix(inactive.as_bytes())?.strip_prefix(b" ")?));
    Some(used.saturating_sub(cache.unwrap_or(0)))
}

/// `cpu.max`: `max 100000` or `50000 100000`, quota and period in microseconds.
fn cpu_max(directory: &Path) -> Option<f64> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cores(number(quota.as_bytes())?, number(period.as_bytes())?)
}

/// `cpu.cfs_quota_us` (-1: none) by `cpu.cfs_period_us`.
fn cfs_quota(directory: &Path) -> Option<f64> {
    cores(read_number(&directory.join("cpu.cfs_quota_us"))?, read_number(&directory.join("cpu.cfs_period_us"))?)
}

fn cores(quota_us: u64, period_us: u64) -> Option<f64> {
    (quota_us > 0 && period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

/// A number; `None` for `max`, -1, and where the file is not there.
fn read_number(path: &Path) -> Option<u64> {
    number(&fs::read(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recorded tree: `(path below the root, content)`.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    fn limits(files: &[(&str, &str)]) -> CgroupLimits {
        let dir = tree(files);
        Cgroups::find(&dir.path().join("proc"), &dir.path().join("sys")).limits()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn version_2_takes_the_tightest_on_the_way_up() {
        let limits = limits(&[
            ("proc/self/cgroup", "0::/system.slice/oxpecker.service\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1048576\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "1048576\n"),
            (
                "sys/fs/cgroup/system.slice/memory.stat",
                "anon 5\nactive_file 100\ninactive_file 524288\ninactive_file_x 9\n",
            ),
            ("sys/fs/cgroup/system.slice/oxpecker.service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/system.slice/oxpecker.service/memory.max", "2097152\n"),
            ("sys/fs/cgroup/system.slice/oxpecker.service/memory.current", "7\n"),
        ]);
        assert_eq!(
            limits,
            CgroupLimits {
                cpu: Some(Cores(1.5)),
                memory: Some(ByteSize(MIB)),
                memory_used: Some(ByteSize(MIB / 2)),
                binds_database: false
            }
        );
    }

    #[test]
    fn version_1_and_the_mixed_form() {
        let limits = limits(&[
            ("proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"),
            (
                "proc/self/mountinfo",
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                 35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("sys/fs/cgroup/unified/cgroup.procs", ""),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "3145728\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "1148576\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 7\ntotal_inactive_file 100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(
            limits,
            CgroupLimits {
                cpu: Some(Cores(0.5)),
                memory: Some(ByteSize(3 * MIB)),
                memory_used: Some(ByteSize(MIB)),
                binds_database: false
            }
        );
    }

    #[test]
    fn the_databases_group_counts_before_our_own() {
        let dir = tree(&[
            ("proc/self/cgroup", "0::/oxpecker.service\n"),
            ("proc/77/cgroup", "0::/postgresql.service\n"),
            ("proc/78/cgroup", "0::/free.service\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"),
            ("sys/fs/cgroup/oxpecker.service/memory.max", "1048576\n"),
            ("sys/fs/cgroup/oxpecker.service/memory.current", "5\n"),
            ("sys/fs/cgroup/postgresql.service/memory.max", "4194304\n"),
            ("sys/fs/cgroup/postgresql.service/memory.current", "7\n"),
            ("sys/fs/cgroup/free.service/memory.max", "max\n"),
        ]);
        let (proc_root, sys_root) = (dir.path().join("proc"), dir.path().join("sys"));
        let own = Cgroups::find(&proc_root, &sys_root);
        let with = |process: &str| own.limits_with(Some(&Cgroups::find_of(&proc_root, &sys_root, process)));
        let of = |limits: CgroupLimits| (limits.memory, limits.memory_used, limits.binds_database);
        assert_eq!(of(with("77")), (Some(ByteSize(4 * MIB)), Some(ByteSize(7)), true));
        for limits in [with("78"), with("79"), own.limits_with(None)] {
            assert_eq!(of(limits), (Some(ByteSize(MIB)), Some(ByteSize(5)), false), "none of its own, or gone");
        }
    }

    #[test]
    fn who_shares_the_tightest_limit() {
        let dir = tree(&[
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"),
            ("sys/fs/cgroup/cgroup.procs", "1\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "1048576\n"),
            ("sys/fs/cgroup/a.slice/cgroup.procs", ""),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "2097152\n"),
            ("sys/fs/cgroup/a.slice/b.service/cgroup.procs", "7\n8\n"),
            ("sys/fs/cgroup/a.slice/c.service/cgroup.procs", "9\n"),
        ]);
        let members = || {
            let mut pids = Cgroups::find(&dir.path().join("proc"), &dir.path().join("sys")).under_memory_limit()?;
            pids.sort_unstable();
            Some(pids)
        };
        assert_eq!(members(), Some(vec![Pid(7), Pid(8), Pid(9)]));
        fs::write(dir.path().join("sys/fs/cgroup/a.slice/memory.max"), "max\n").unwrap();
        assert_eq!(members(), Some(vec![Pid(7), Pid(8)]));
        fs::write(dir.path().join("sys/fs/cgroup/a.slice/b.service/memory.max"), "max\n").unwrap();
        assert_eq!(members(), None);
    }

    #[test]
    fn a_container_sees_its_mounts_root() {
        let limits = limits(&[
            ("proc/self/cgroup", "4:memory:/docker/abc/inner\n"),
            ("proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!((limits.memory, limits.memory_used), (Some(ByteSize(4096)), None));
    }

    #[test]
    fn a_path_that_climbs_out_is_not_followed() {
        let limits = limits(&[
            ("proc/self/cgroup", "4:memory:/../../secret\n"),
            ("proc/self/mountinfo", "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/cgroup.procs", ""),
            ("sys/fs/secret/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(limits, CgroupLimits::default());
    }

    #[test]
    fn no_groups_no_limits() {
        assert_eq!(limits(&[]), CgroupLimits::default());
        assert_eq!(limits(&[("proc/self/cgroup", "nonsense"), ("proc/self/mountinfo", "")]), CgroupLimits::default());
    }

    #[test]
    fn this_hosts_groups_can_be_read() {
        let limits = Cgroups::find(Path::new("/proc"), Path::new("/sys")).limits();
        assert!(limits.cpu.is_none_or(|cores| cores.0 > 0.0));
        assert!(limits.memory.is_none_or(|bytes| bytes.0 > 0));
    }
}
