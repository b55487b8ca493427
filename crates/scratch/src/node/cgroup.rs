//! The control groups that a node lives in: one of its own, or two nodes' systemds would take each other's processes for theirs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{ScratchError, directory::PREFIX, error::prepare};

/// How deep groups are looked into.
const DEPTH_MAX: u32 = 16;

/// A node's groups: of the v2 hierarchy and, on a hybrid host, of systemd's own v1. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Groups {
    unified: PathBuf,
    named: Option<PathBuf>,
}

impl Groups {
    /// Whether there can be any.
    pub(crate) fn available() -> Result<(), ScratchError> {
        let parents = Parents::find();
        match parents.unified {
            Some(parent) if parent.join("cgroup.procs").exists() => Ok(()),
            _ => Err(ScratchError::NoNode {
                what: "no cgroup v2 hierarchy is mounted".to_owned(),
                remedy: "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified".to_owned(),
            }),
        }
    }

    pub(crate) fn create(name: &str) -> Result<Self, ScratchError> {
        Self::available()?;
        let parents = Parents::find();
        let make = |parent: &Path| {
            sweep(parent);
            let group = parent.join(name);
            fs::create_dir(&group).map_err(prepare("create", &group)).map(|()| group)
        };
        let unified = make(&parents.unified.unwrap_or_default())?;
        Ok(Self { unified, named: parents.named.as_deref().map(make).transpose()? })
    }

    /// Their paths, parted by spaces; they hold none.
    pub(crate) fn to_enter(&self) -> String {
        let all = [Some(&self.unified), self.named.as_ref()];
        all.into_iter().flatten().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
    }

    /// Kills all that is in it at once, where the kernel can (5.14).
    pub(crate) fn kill(&self) {
        let _ = fs::write(self.unified.join("cgroup.kill"), "1");
    }

    /// Whether anything lives in it.
    pub(crate) fn populated(&self) -> bool {
        populated(&self.unified)
    }

    /// The pid of the node's systemd, as we see it.
    pub(crate) fn leader(&self) -> Option<u32> {
        fs::read_to_string(self.unified.join("payload/init.scope/cgroup.procs")).ok()?.lines().next()?.parse().ok()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.kill();
        for group in [Some(&self.unified), self.named.as_ref()].into_iter().flatten() {
            remove(group);
        }
    }
}

fn populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
}

/// Removes the groups of nodes whose owners were killed. The kernel refuses where anything lives.
pub(crate) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // One that was made a moment ago is empty too: its owner has the directory of that name.
        let bases = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
        let owned = bases.iter().any(|base| base.join(entry.file_name()).exists());
        if ours && !owned && !populated(&entry.path()) {
            remove(&entry.path());
        }
    }
}

/// Removes a group with all below it; those where anything lives stay.
pub(crate) fn remove(group: &Path) {
    remove_below(group, DEPTH_MAX);
}

fn remove_below(group: &Path, depth: u32) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path(), depth - 1);
        }
    }
    // What is busy now is swept by the next one.
    let _ = fs::remove_dir(group);
}

/// Where groups of ours go: below the one that we are in.
#[derive(Debug, PartialEq)]
struct Parents {
    unified: Option<PathBuf>,
    named: Option<PathBuf>,
}

impl Parents {
    fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From the texts that proc(5) and cgroups(7) describe.
    fn of(mounts: &str, groups: &str) -> Self {
        let mount = |is: &dyn Fn(&str, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let (kind, options) = (right.split(' ').next()?, right.split(' ').nth(2)?);
                is(kind, options).then(|| left.split(' ').nth(4).map(PathBuf::from))?
            })
        };
        let group = |prefix: &str| groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
        let join = |mount: Option<PathBuf>, group: Option<&str>| {
            let (mount, group) = (mount?, group?);
            Some(mount.join(group.trim_start_matches('/')))
        };
        Self {
            unified: join(mount(&|kind, _| kind == "cgroup2"), group(":")),
            named: join(
                mount(&|kind, options| kind == "cgroup" && options.split(',').any(|one| one == "name=systemd")),
                group("name=systemd:"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_hybrid_and_pure_hosts() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            Parents::of(hybrid, "1:cpu:/\n9:name=systemd:/\n0::/\n"),
            Parents { unified: Some("/sys/fs/cgroup/unified/".into()), named: Some("/sys/fs/cgroup/systemd/".into()) }
        );
        let pure = "32 25 0:28 / /sys/fs/cgroup rw,nosuid shared:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            Parents::of(pure, "0::/user.slice/x.scope\n"),
            Parents { unified: Some("/sys/fs/cgroup/user.slice/x.scope".into()), named: None }
        );
        assert_eq!(Parents::of("", "garbage"), Parents { unified: None, named: None });
    }
}
