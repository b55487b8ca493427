//! Writing a file so that it is there whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// What the name of an unfinished file ends with. Fixed, so that one that a kill left behind is overwritten by the next.
const UNFINISHED: &str = ".oxpecker-unfinished";

/// The unfinished file of `target`.
pub(super) fn unfinished(target: &Path) -> PathBuf {
    let mut name: OsString = target.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    target.with_file_name(name)
}

/// Writes `target` anew.
pub(super) fn whole(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = unfinished(target);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    appear(&temporary, target)
}

/// Gives a file that is synced its name.
pub(super) fn appear(temporary: &Path, target: &Path) -> io::Result<()> {
    fs::rename(temporary, target)?;
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        fs::write(unfinished(&target), "of a life before").unwrap();
        for content in ["one", "two"] {
            whole(&target, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(whole(&dir.path().join("no/such"), b"").is_err());
    }
}
