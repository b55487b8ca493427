//! The data directory: whether it is the connected server's, the lock on it, its control file.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use pg_format::control::{self, ControlError, ControlFile};

use super::{CreateError, server::Facts};
use crate::info::Owner;

/// How often the control file is read again while its CRC does not fit: a server rewrites it in place, in microseconds.
const CONTROL_REREADS: u32 = 50;
const CONTROL_PAUSE: Duration = Duration::from_millis(10);
/// How far the start times of the postmaster's file and of the server's own answer may be apart: they are taken one after the other.
const START_TIME_SLACK_SECONDS: f64 = 5.0;

/// A data directory that no other backup of this host reads at the moment.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    /// flock(2) on the directory itself: nothing is written into it, and a killed backup's lock is gone.
    _lock: File,
}

/// The control file's bytes and what they say.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) bytes: Vec<u8>,
    pub(crate) file: ControlFile,
    pub(crate) metadata: fs::Metadata,
}

impl DataDir {
    /// Locks the directory, after it was seen to be that of the server.
    pub(crate) fn open(path: &Path, facts: &Facts) -> Result<(Self, Control), CreateError> {
        let lock = File::open(path).map_err(CreateError::io("open the data directory", path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CreateError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(CreateError::io("lock the data directory", path)(source)),
        }
        let directory = Self { path: path.to_owned(), _lock: lock };
        let control = directory.control()?;
        directory.is_of(facts, &control.file)?;
        Ok((directory, control))
    }

    /// A clone on the same host has the same system identifier: the moment at which the server started tells them apart.
    fn is_of(&self, facts: &Facts, control: &ControlFile) -> Result<(), CreateError> {
        let other = |why: String| Err(CreateError::NotItsDirectory { path: self.path.clone(), why });
        if control.system_identifier != facts.system_id {
            return other(format!(
                "it belongs to the cluster {}, the server to {}",
                control.system_identifier, facts.system_id
            ));
        }
        let file = self.path.join("postmaster.pid");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return other("no server runs in it".to_owned());
            }
            Err(error) => return Err(CreateError::io("read", file)(error)),
        };
        match text.lines().nth(2).and_then(|line| line.trim().parse::<f64>().ok()) {
            Some(started) if (started - facts.started).abs() <= START_TIME_SLACK_SECONDS => Ok(()),
            Some(_) => other("the server in it started at another time".to_owned()),
            None => other("its postmaster.pid can't be read".to_owned()),
        }
    }

    /// Reads the control file; again and again while the server is writing it.
    pub(crate) fn control(&self) -> Result<Control, CreateError> {
        let path = self.path.join(control::PATH);
        let mut tries = 0;
        loop {
            let fail = |what| CreateError::io(what, &path);
            let metadata = fs::metadata(&path).map_err(fail("look at"))?;
            let bytes = fs::read(&path).map_err(fail("read"))?;
            match ControlFile::parse(&bytes) {
                Ok(file) => return Ok(Control { bytes, file, metadata }),
                Err(ControlError::Crc { .. } | ControlError::Short { .. }) if tries < CONTROL_REREADS => {
                    tries += 1;
                    std::thread::sleep(CONTROL_PAUSE);
                }
                Err(source) => return Err(CreateError::Control { path, source }),
            }
        }
    }

    /// Who owns the directory, and its permission bits.
    pub(crate) fn owner(&self) -> Result<(Owner, u32), CreateError> {
        let metadata = fs::metadata(&self.path).map_err(CreateError::io("look at", &self.path))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let owner = Owner { uid, gid, user: crate::names::user(uid), group: crate::names::group(gid) };
        Ok((owner, metadata.mode() & 0o7777))
    }
}
