//! A root directory of the server's own, in namespaces of the calling thread.

use std::{
    fs::{self, File},
    io,
    os::unix::{ffi::OsStringExt, fs::symlink},
    path::{Path, PathBuf},
};

use nix::sched::unshare;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

/// What of the host the server sees, read-only, where it is there: programs, libraries, locales, time zones. Neither data nor /run: a
/// network namespace does not keep a server from a unix socket.
const SYSTEM_DIRS: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix", "/gnu"];
/// Devices that it sees.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// What the new root holds.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// An empty directory to build it on; nothing stays there.
    pub(crate) at: PathBuf,
    /// Seen read-only under the same path, besides the system's directories.
    pub(crate) visible: Vec<PathBuf>,
    /// Seen under the same path, to be written to.
    pub(crate) writable: PathBuf,
    /// The server.
    pub(crate) program: PathBuf,
    /// (path inside, the directory that it shall be).
    pub(crate) rebound: Vec<(PathBuf, PathBuf)>,
}

/// Moves the calling thread, and what it will start, into namespaces of its own with this root.
///
/// The thread can't come back: use one for nothing else.
///
/// # Errors
/// What failed, for people. The thread must then end without starting anything.
pub(crate) fn enter(root: &Root) -> Result<(), String> {
    unshare(super::abilities::OWN).map_err(|error| format!("can't make namespaces: {error}"))?;
    // From here on our mounts are seen by nobody else, nor others' by us.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(failed("part from", "/"))?;
    let at = &root.at;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("oxproof", at, "tmpfs", flags, c"mode=0755,size=4m").map_err(failed("mount a tmpfs on", at))?;
    let system = SYSTEM_DIRS.iter().map(PathBuf::from);
    for dir in system.chain(root.visible.iter().cloned()) {
        show(at, &dir)?;
    }
    make_read_only(at)?;
    let devices = at.join("dev");
    fs::create_dir(&devices).map_err(failed("create", &devices))?;
    for name in DEVICES {
        let (real, seen) = (Path::new("/dev").join(name), devices.join(name));
        File::create(&seen).map_err(failed("create", &seen))?;
        mount_bind(&real, &seen).map_err(failed("show", &real))?;
    }
    // Behind the read-only mounts: it may lie below one of them.
    bind(at, &root.writable, &root.writable)?;
    for (path, target) in &root.rebound {
        bind(at, path, target)?;
    }
    // Programs find libraries beside themselves by this link. The real /proc would lead out: to the roots of the user's other processes.
    let this = at.join("proc/self");
    fs::create_dir_all(&this).map_err(failed("create", &this))?;
    symlink(&root.program, this.join("exe")).map_err(failed("make a link in", &this))?;
    change_root(at)
}

/// Shows a directory of the host under its own path, as a link where it is one.
fn show(at: &Path, dir: &Path) -> Result<(), String> {
    let Ok(metadata) = fs::symlink_metadata(dir) else { return Ok(()) };
    let seen = inside(at, dir)?;
    if seen.symlink_metadata().is_ok() {
        return Ok(());
    }
    if metadata.is_symlink() {
        let target = fs::read_link(dir).map_err(failed("read", dir))?;
        return symlink(target, &seen).map_err(failed("make the link", &seen));
    }
    fs::create_dir_all(&seen).map_err(failed("create", &seen))?;
    mount_bind_recursive(dir, &seen).map_err(failed("show", dir))
}

/// Shows `target` to be written to under `path`.
fn bind(at: &Path, path: &Path, target: &Path) -> Result<(), String> {
    let seen = inside(at, path)?;
    fs::create_dir_all(&seen).map_err(|error| {
        format!(
            "can't make room for {} in the fence: {error}; hint: it lies below a directory of the system",
            path.display()
        )
    })?;
    mount_bind(target, &seen).map_err(failed("show", target))
}

/// `path` as seen from outside of the new root. It must not climb out.
fn inside(at: &Path, path: &Path) -> Result<PathBuf, String> {
    use std::path::Component;
    let plain = path.is_absolute() && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let relative = path.strip_prefix("/").ok().filter(|relative| plain && !relative.as_os_str().is_empty());
    relative.map(|relative| at.join(relative)).ok_or_else(|| format!("{} is no plain absolute path", path.display()))
}

/// Makes every mount below `at` read-only.
fn make_read_only(at: &Path) -> Result<(), String> {
    // Not /proc/self: that is the process's first thread, which is in another namespace.
    let table = fs::read("/proc/thread-self/mountinfo").map_err(failed("read", "/proc/thread-self/mountinfo"))?;
    let mut below = mounts(&table);
    below.retain(|(point, _)| point.starts_with(at) && point != at);
    for (point, kept) in below {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | kept;
        mount_remount(&point, flags, c"").map_err(failed("make read-only", &point))?;
    }
    Ok(())
}

/// Options of a mount that a remount must repeat: in a container they may not be taken away (mount_namespaces(7)).
const KEPT: &[(&[u8], MountFlags)] = &[
    (b"noexec", MountFlags::NOEXEC),
    (b"noatime", MountFlags::NOATIME),
    (b"nodiratime", MountFlags::NODIRATIME),
    (b"relatime", MountFlags::RELATIME),
];

/// The mount points of a `mountinfo` (proc(5)): the fifth field, spaces and such as octal numbers; and of the sixth what is kept.
fn mounts(table: &[u8]) -> Vec<(PathBuf, MountFlags)> {
    let lines = table.split(|byte| *byte == b'\n');
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        let kept =
            options.split(|byte| *byte == b',').filter_map(|option| KEPT.iter().find(|(name, _)| *name == option));
        Some((unescape(point), kept.fold(MountFlags::empty(), |all, (_, flag)| all | *flag)))
    };
    lines.filter_map(parse).collect()
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = digits.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Makes `at` the root. The old one is gone for good, except where the kernel can't (the root is an initial ramdisk): then it is only
/// out of reach, for programs that are not root.
fn change_root(at: &Path) -> Result<(), String> {
    // Changes this thread's directory alone: a mount namespace of one's own parts it from the others' (unshare(2)).
    rustix::process::chdir(at).map_err(failed("enter", at))?;
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up above the new one and is then taken off.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).map_err(failed("take off", "the old root"))?,
        Err(_) => std::os::unix::fs::chroot(".").map_err(failed("change root to", at))?,
    }
    rustix::process::chdir("/").map_err(failed("enter", "the new root"))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount("/", flags, c"").map_err(failed("make read-only", "the new root"))
}

fn failed<E: Into<io::Error>>(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> String {
    let path = path.as_ref().to_owned();
    move |error| format!("can't {what} {}: {}", path.display(), error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let table = b"22 1 0:20 / / rw - ext4 x rw\n\
            30 22 0:5 / /mnt/a\\040b\\134 rw,noexec,relatime shared:1 - tmpfs t rw\n\nshort line\n";
        let kept = MountFlags::NOEXEC | MountFlags::RELATIME;
        let expected = [(PathBuf::from("/"), MountFlags::empty()), (PathBuf::from("/mnt/a b\\"), kept)];
        assert_eq!(mounts(table), expected);
        assert_eq!(unescape(b"\\9"), PathBuf::from("\\9"));
    }

    #[test]
    fn no_path_climbs_out_of_the_root() {
        assert_eq!(inside(Path::new("/n"), Path::new("/a/b")), Ok(PathBuf::from("/n/a/b")));
        for path in ["/", "a", "/a/../b", "..", ""] {
            assert!(inside(Path::new("/n"), Path::new(path)).is_err(), "{path}");
        }
    }
}
