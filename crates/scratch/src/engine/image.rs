//! An image of directories alone: its containers take the host's programs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{ScratchError, error::prepare};

/// The name of the image that every scratch engine has.
pub const IMAGE: &str = "scratch:1";
/// Directories with programs. Where one is a link on the host it is one in the image.
const PROGRAMS: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Directories that every container needs.
const DIRECTORIES: &[&str] = &["dev", "etc", "proc", "sys", "tmp", "var", "run"];

/// The host's directories of programs, as `SOURCE:TARGET:ro`.
pub(super) fn binds() -> Vec<String> {
    let real = PROGRAMS.iter().map(|name| Path::new("/").join(name)).filter(|path| path.is_dir() && !path.is_symlink());
    real.map(|path| format!("{0}:{0}:ro", path.display())).collect()
}

/// Makes its archive in an empty directory.
pub(super) fn make(dir: &Path) -> Result<PathBuf, ScratchError> {
    let root = dir.join("root");
    for name in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(prepare("create", &path))?;
    }
    for name in PROGRAMS {
        let (host, path) = (Path::new("/").join(name), root.join(name));
        match fs::read_link(&host) {
            Ok(target) => symlink(target, &path).map_err(prepare("create", &path))?,
            Err(_) if host.is_dir() => fs::create_dir(&path).map_err(prepare("create", &path))?,
            Err(_) => {}
        }
    }
    let tar = dir.join("image.tar");
    let program = "tar".to_owned();
    let output = Command::new(&program).arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").output();
    let output = output.map_err(|source| ScratchError::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(tar);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ScratchError::Program { program, status: output.status, output: said })
}
