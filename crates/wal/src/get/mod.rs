//! `restore_command`: brings back a file that a recovering PostgreSQL asks for.
//!
//! What it answers decides whether a recovery goes on, waits, or ends in a promotion: *not there* (exit code 1) is said only when the store itself
//! said so; everything else that is not the file is an error (exit code 126), and stops the recovery. See [`decide`].
//!
//! ```text
//! decide   what is answered after what was found       (pure)
//! spool    segments that were fetched ahead, beside the target
//! fetch    what the repository has
//! write    a file appears whole or not at all
//! ```

pub mod decide;
mod fetch;
mod spool;
mod write;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use pg_format::wal::{SegmentName, WalFile};
use repository::{Repository, wal::WalError};

pub use self::{
    decide::{Answer, Recovery},
    spool::{AHEAD_DEFAULT, AHEAD_MAX},
};
use self::{
    decide::{Asked, Found},
    spool::Spool,
};
use crate::{Cluster, ClusterError, data_dir_of};

/// A file could not be brought, and nobody knows whether there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The path does not lie in a data directory.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// PostgreSQL never asks for such a file.
    #[error("{name:?} is no file of WAL\n  hint: restore_command = 'oxpecker wal get %f %p'")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The store failed, or what is there is damaged, or lacks though later WAL is there.
    #[error(transparent)]
    Store(#[from] WalError),
    /// A gap that was noted when it arose.
    #[error(
        "WAL is missing from {from} to {to}: {name} was never received\n  hint: the server had removed it when its receiver came back; a recovery can go to {from} (recovery_target_lsn) and not further. Backups after the gap are not concerned"
    )]
    Gap {
        /// The file.
        name: String,
        /// Where it begins.
        from: model::Lsn,
        /// Where WAL goes on.
        to: model::Lsn,
    },
    /// The file could not be written.
    #[error("can't write {}: {source}\n  hint: see that the disk has room and this user may write there", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl GetError {
    /// Another try may go well.
    fn may_pass(&self) -> bool {
        match self {
            // A segment may be stored a moment before the one ahead of it by another road.
            Self::Store(error) => crate::receive::may_pass(error) || matches!(error, WalError::Gap { .. }),
            _ => false,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The file's name (`%f`).
    pub name: String,
    /// Where it is to appear (`%p`).
    pub target: PathBuf,
    /// The data directory; by default the one in whose `pg_wal` the target lies.
    pub data_dir: Option<PathBuf>,
    /// Who recovers.
    pub recovery: Recovery,
    /// How many segments are fetched ahead; 0 for none.
    pub ahead: u64,
    /// For how long an error that may pass is tried again; by default what `decide` says.
    pub patience: Option<Duration>,
}

impl Request {
    /// Which cluster, and which file.
    fn read(&self) -> Result<(Cluster, WalFile), GetError> {
        let data_dir = self.data_dir.clone().unwrap_or_else(|| data_dir_of(&self.target));
        let cluster = Cluster::of_data_dir(&data_dir)?;
        let file = WalFile::parse(&self.name, cluster.segment);
        Ok((cluster, file.ok_or_else(|| GetError::Name { name: self.name.clone() })?))
    }

    fn spool(&self, cluster: Cluster) -> Spool {
        Spool::beside(&self.target, cluster)
    }
}

/// What may be had without the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// The file is there.
    pub served: bool,
    /// Somebody should fetch what follows; see [`fetch_ahead`].
    pub fetch_ahead: bool,
}

/// Serves a segment that was fetched ahead, before any repository is opened. Damaged or foreign files in the spool are removed.
///
/// # Errors
/// The request makes no sense, or the target can't be written.
pub fn from_spool(request: &Request) -> Result<Spooled, GetError> {
    let (cluster, file) = request.read()?;
    let WalFile::Segment(segment) = file else { return Ok(Spooled { served: false, fetch_ahead: false }) };
    if request.ahead == 0 {
        return Ok(Spooled { served: false, fetch_ahead: false });
    }
    let spool = request.spool(cluster);
    let served = spool.serve(segment, &request.target)?;
    Ok(Spooled { served, fetch_ahead: spool.is_low(segment, request.ahead) })
}

/// Brings the file from the repository. `open` opens it, and is called again after an error that may pass.
///
/// # Errors
/// Never for a file that is not there: that is [`Answer::Absent`].
pub fn get<E: std::fmt::Display>(
    request: &Request,
    mut open: impl FnMut() -> Result<Repository, E>,
) -> Result<Answer, Failed<E>> {
    let (cluster, file) = request.read().map_err(Failed::Get)?;
    let asked = match file {
        WalFile::History(_) => Asked::History,
        _ => Asked::Wal,
    };
    let began = Instant::now();
    let mut failed = 0;
    loop {
        let (error, may_pass) = match open() {
            Err(error) => (Failed::Open(error), true),
            Ok(repository) => match fetch::fetch(&repository, cluster, file, &request.name) {
                Ok(Found::Absent) => return Ok(Answer::Absent),
                Ok(Found::Bytes(bytes)) => {
                    write::whole(&request.target, &bytes)
                        .map_err(|source| Failed::Get(GetError::Write { path: request.target.clone(), source }))?;
                    return Ok(Answer::There);
                }
                Err(error) => {
                    let may_pass = error.may_pass();
                    (Failed::Get(error), may_pass)
                }
            },
        };
        failed += 1;
        let patience = request.patience.unwrap_or_else(|| decide::patience(request.recovery, asked));
        match decide::after_error(request.recovery, asked, may_pass, began.elapsed() >= patience) {
            decide::Next::Again => {
                tracing::warn!(%error, "{}: trying again", request.name);
                thread::sleep(crate::receive::decide::pause(failed, 1.0).min(Duration::from_secs(5)));
            }
            decide::Next::Absent => {
                tracing::warn!(%error, "{} can't be had now: the standby is told that it is not there", request.name);
                return Ok(Answer::Absent);
            }
            decide::Next::Fail => return Err(error),
        }
    }
}

/// Why a file could not be brought.
#[derive(Debug)]
pub enum Failed<E> {
    /// The repository can't be opened.
    Open(E),
    /// Something else.
    Get(GetError),
}

impl<E: std::fmt::Display> std::fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Get(error) => error.fmt(f),
        }
    }
}

/// Fetches the segments that follow the requested one into the spool, as a process of its own beside the recovery. Returns how many; none
/// where somebody else does it already.
///
/// # Errors
/// The spool can't be written or the store failed: nothing of that concerns the recovery, which asks for each file itself.
pub fn fetch_ahead(request: &Request, repository: &Repository) -> Result<u64, GetError> {
    let (cluster, file) = request.read()?;
    let WalFile::Segment(after) = file else { return Ok(0) };
    let spool = request.spool(cluster);
    let Some(filler) =
        spool.fill(after, request.ahead).map_err(|source| GetError::Write { path: spool.path(), source })?
    else {
        return Ok(0);
    };
    let wal = cluster.open(repository)?;
    filler.all(|segment: SegmentName| fetch::whole(&wal, segment))
}

/// Removes the spool of a recovery that is over: called where a server archives, which only one that has ended its recovery does (or a standby
/// with archive_mode = always, which keeps its spool).
pub(crate) fn clean_after_recovery(data_dir: &Path, path: &Path) {
    let recovers = ["recovery.signal", "standby.signal"].iter().any(|name| data_dir.join(name).exists());
    if !recovers {
        spool::remove_beside(path);
    }
}
