//! What is left of a data directory.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::Duration,
};

use pg_format::{ControlFile, control};

use super::server;
use crate::{
    boot::{Mark, Source, server::Sign},
    damage::Reading,
};

/// Names of a directory that are read.
const NAMES_MAX: usize = 1_000_000;
/// Bytes of a `backup_label` that are read.
const LABEL_MAX: u64 = 64 << 10;
/// Times that a control file is read that does not fit together: whoever writes it writes it at once.
const CONTROL_READS: usize = 3;
/// Between two of those.
const CONTROL_PAUSE: Duration = Duration::from_millis(20);

/// Reads it. Nothing is written, and no server is asked.
pub fn directory(data_dir: &Path) -> Reading {
    let control_path = data_dir.join(control::PATH);
    Reading {
        names: of(data_dir, names(data_dir)),
        control: of(&control_path, control(&control_path)),
        wal: of(&data_dir.join("pg_wal"), names(&data_dir.join("pg_wal"))),
        label: bounded(&data_dir.join("backup_label"), LABEL_MAX)
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        log: log(data_dir, &control_path),
    }
}

/// What is not there is known not to be; what can't be read is not known.
fn of<T>(path: &Path, read: io::Result<T>) -> Source<Option<T>> {
    match read {
        Ok(read) => Source::Read(Some(read)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Source::Read(None)
        }
        Err(error) => Source::Missing(format!("{}: {error}", path.display())),
    }
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.take(NAMES_MAX);
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn control(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = bounded(path, control::FILE_LEN as u64)?;
    for _ in 1..CONTROL_READS {
        if ControlFile::parse(&bytes).is_ok() {
            break;
        }
        thread::sleep(CONTROL_PAUSE);
        bytes = bounded(path, control::FILE_LEN as u64)?;
    }
    Ok(bytes)
}

/// What the server said in the newest attempt to start. Of a directory that was put there since, it says nothing.
fn log(data_dir: &Path, control: &Path) -> Vec<Mark<Sign>> {
    let changed = |path: &Path| fs::metadata(path).map(|metadata| (metadata.ctime(), metadata.ctime_nsec()));
    let written = server::log_file(data_dir).and_then(|path| changed(&path).ok());
    let stale = match (written, changed(control)) {
        (Some(written), Ok(control)) => written < control,
        (None, _) => true,
        (Some(_), Err(_)) => false,
    };
    if stale {
        return Vec::new();
    }
    let all = server::log(Some(data_dir)).unwrap_or_default();
    crate::boot::server::last_end(&all, false).to_vec()
}
