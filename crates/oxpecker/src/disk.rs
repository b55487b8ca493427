//! Whether two paths lie on one disk: a backup beside its database dies with it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// How deep stacks of block devices are followed: a volume on an encrypted device on an array on partitions is four.
const DEPTH_MAX: usize = 8;

/// What two paths have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// They are on one file system.
    FileSystem,
    /// They are on one disk, by this name of the kernel's.
    Disk(String),
}

impl Shared {
    /// In words: "the same ...".
    pub fn words(&self) -> String {
        match self {
            Self::FileSystem => "the same file system".to_owned(),
            Self::Disk(name) => format!("the same disk ({name})"),
        }
    }
}

/// What `one` and `other` share; `None` where nothing is seen to be shared. Paths that are not there yet count as the nearest directory
/// that is.
pub fn shared(one: &Path, other: &Path) -> Option<Shared> {
    let (one, other) = (device(one)?, device(other)?);
    if one == other {
        return Some(Shared::FileSystem);
    }
    let sysfs = Path::new("/sys/dev/block");
    disks(sysfs, one).intersection(&disks(sysfs, other)).next().cloned().map(Shared::Disk)
}

fn device(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|found| found.dev())
}

/// The disks below a device, by the kernel's names; none for what is no block device (tmpfs, a network share).
fn disks(sysfs: &Path, device: u64) -> BTreeSet<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mut found = BTreeSet::new();
    if let Ok(path) = fs::canonicalize(sysfs.join(format!("{major}:{minor}"))) {
        walk(&path, &mut found, 0);
    }
    found
}

fn walk(path: &Path, found: &mut BTreeSet<String>, depth: usize) {
    let slaves: Vec<PathBuf> = fs::read_dir(path.join("slaves"))
        .map(|entries| entries.filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok()).collect())
        .unwrap_or_default();
    if depth < DEPTH_MAX && !slaves.is_empty() {
        return slaves.iter().for_each(|slave| walk(slave, found, depth + 1));
    }
    // A partition's directory lies in that of its disk.
    let whole = if path.join("partition").exists() { path.parent().unwrap_or(path) } else { path };
    found.extend(whole.file_name().map(|name| name.to_string_lossy().into_owned()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_lies_below_one_directory_is_on_one_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let not_yet = dir.path().join("not/yet/there");
        assert_eq!(shared(dir.path(), &not_yet), Some(Shared::FileSystem));
        assert_eq!(shared(dir.path(), Path::new("/proc")), None);
    }

    #[test]
    fn partitions_and_volumes_lead_to_their_disks() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let partition = |path: &str| {
            let path = make(path);
            fs::write(path.join("partition"), "1\n").unwrap();
            path
        };
        let (one, two) = (partition("devices/sda/sda1"), partition("devices/sda/sda2"));
        let other = partition("devices/sdb/sdb1");
        let volume = make("devices/dm-0");
        make("devices/dm-0/slaves");
        symlink(&two, volume.join("slaves/sda2")).unwrap();
        symlink(&other, volume.join("slaves/sdb1")).unwrap();
        let below = |path: &Path| {
            let mut found = BTreeSet::new();
            walk(path, &mut found, 0);
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(below(&one), ["sda"]);
        assert_eq!(below(&volume), ["sda", "sdb"]);
        assert_eq!(below(&make("devices/nvme0n1")), ["nvme0n1"]);
    }
}
