//! What is looked at before a backup begins: whether it is the right cluster, whether there is room, whether nobody else is at it.

use std::{path::Path, time::Instant};

use jiff::Timestamp;
use pg_format::{files::Rules, wal::SegmentSize};
use repository::{Repository, Session, SessionInfo, WalStart};
use serde::{Deserialize, Serialize};

use super::{
    CreateError, CreateOptions, Created,
    identity::{self, Now, Verdict},
    server::Facts,
    source::DataDir,
};
use crate::{
    info::{BackupInfo, Host},
    progress::{Counts, Meter, Note, Progress, Stage},
};

/// What the first backup takes of its plain bytes at most, mostly: PostgreSQL's pages compress to between a half and a fifth.
const FIRST_RATIO: f64 = 0.5;

pub(super) fn rules(data_dir: &Path, facts: &Facts) -> Rules {
    let inside = |path: &String| {
        let path = Path::new(path);
        let relative = if path.is_absolute() { path.strip_prefix(data_dir).ok()? } else { path };
        Some(relative.to_str()?.trim_end_matches('/').as_bytes().to_vec())
    };
    Rules { stats_temp_directory: facts.stats_temp_directory.as_ref().and_then(inside).unwrap_or_default() }
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(super) fn host(directory: &DataDir, facts: &Facts) -> Result<Host, CreateError> {
    let (owner, data_dir_mode) = directory.owner()?;
    Ok(Host {
        name: host_name(),
        data_dir: directory.path.to_string_lossy().into_owned(),
        data_dir_mode,
        owner,
        bin_dir: facts.bin_dir.clone(),
        server: facts.banner.clone(),
        libc_collation: facts.libc_collation.clone(),
        icu_collation: facts.icu_collation.clone(),
    })
}

/// Who makes the backup, and of what: what a later run must know to tell whether this one is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Writer {
    host: String,
    /// `/etc/machine-id`; empty where there is none, as in containers.
    machine: String,
    /// Made anew at each boot.
    boot: String,
    /// The namespace of process ids.
    pids: String,
    pid: u32,
    /// The data directory; absent where the server sends the files.
    data_dir: Option<String>,
}

impl Writer {
    fn this(data_dir: Option<&Path>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let pids = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            host: host_name(),
            machine: read("/etc/machine-id"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            pids: pids.to_string_lossy().into_owned(),
            pid: std::process::id(),
            data_dir: data_dir.map(|path| path.to_string_lossy().into_owned()),
        }
    }

    /// Whether `other`, who has not closed its session, is certainly dead.
    fn outlives(&self, other: &Self) -> bool {
        let machine = self.host == other.host && self.machine == other.machine;
        // We hold the lock on the data directory, so it does not.
        let locked = machine && self.data_dir.is_some() && self.data_dir == other.data_dir;
        let visible = machine && self.boot == other.boot && self.pids == other.pids && !self.pids.is_empty();
        let gone = visible && other.pid != self.pid && !Path::new(&format!("/proc/{}", other.pid)).exists();
        let rebooted = machine && !self.machine.is_empty() && !self.boot.is_empty() && self.boot != other.boot;
        locked || gone || rebooted
    }
}

/// Begins the session in the repository. One that a killed run of this host left open is taken over.
pub(super) fn begin(
    options: &CreateOptions,
    repository: &Repository,
    data_dir: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Session, CreateError> {
    // Also how a dry run ends: all was looked at, nothing was changed.
    if progress.cancelled() {
        return Err(CreateError::Cancelled);
    }
    let this = Writer::this(data_dir);
    repository.refresh()?;
    let left =
        repository.with_state(|state| state.writer_of(&options.cluster).map(|(_, session)| session.info.clone()));
    let dead = left.is_some_and(|info| Writer::deserialize(&info["writer"]).is_ok_and(|other| this.outlives(&other)));
    if dead {
        let text = "an earlier run was interrupted; what its draft holds is not stored again".to_owned();
        progress.note(&Note::Warning(text));
    }
    let info = serde_json::json!({ "writer": this, "started": Timestamp::now() });
    let info = SessionInfo { cluster: options.cluster.clone(), take_over: options.take_over || dead, info };
    Ok(repository.begin(info)?)
}

/// Refuses what is not the cluster that the repository knows by this name.
pub(super) fn check_identity(
    options: &CreateOptions,
    repository: &Repository,
    now: &Now<'_>,
    progress: &dyn Progress,
) -> Result<(), CreateError> {
    repository.refresh()?;
    let Some(newest) = newest_of(options, repository) else { return Ok(()) };
    match identity::judge(now, &newest) {
        Verdict::Same => {}
        Verdict::Odd(why) => progress.note(&Note::Warning(why)),
        Verdict::Clone(why) if options.adopt => progress.note(&Note::Warning(format!("adopted although {why}"))),
        Verdict::Clone(why) => return Err(CreateError::Clone { cluster: options.cluster.clone(), why }),
        Verdict::Other => {
            let (theirs, ours) = (newest.system_id, now.system_id);
            return Err(CreateError::OtherCluster { cluster: options.cluster.clone(), theirs, ours });
        }
    }
    Ok(())
}

/// The newest backup of that name whose info can be read: by the order of the log, for clocks may be set back.
fn newest_of(options: &CreateOptions, repository: &Repository) -> Option<BackupInfo> {
    let mut infos = repository.backups().into_iter().filter_map(|record| BackupInfo::parse(&record.info).ok());
    infos.rfind(|info| info.cluster == options.cluster)
}

/// Says what the backup will take, and refuses when that is known to be too much. `files` may be unknown: zero.
pub(super) fn check_space(
    options: &CreateOptions,
    repository: &Repository,
    files: u64,
    bytes: u64,
    progress: &dyn Progress,
) -> Result<(), CreateError> {
    let first = newest_of(options, repository).is_none();
    let basis =
        if first { "half of the plain bytes" } else { "half of the plain bytes; what has not changed takes none" };
    let needed = bytes as f64 * FIRST_RATIO;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "half of a file size, not negative")]
    let space_needed = needed as u64;
    let space_free = repository.free_bytes();
    progress.note(&Note::Plan { files, bytes, space_needed, space_free, basis });
    match space_free {
        Some(free) if first && free < space_needed && !options.skip_space_check => {
            Err(CreateError::NoSpace { needed: space_needed, free })
        }
        _ => Ok(()),
    }
}

/// Commits what `run` made, or ends the session.
pub(super) fn conclude(
    session: Session,
    run: impl FnOnce(&Session) -> Result<BackupInfo, CreateError>,
    began: Instant,
) -> Result<Created, CreateError> {
    match run(&session) {
        Ok(info) => {
            let id = session.commit_with_wal(&info.to_value(), wal_start(&info))?;
            let stored_bytes = session.counts().stored_bytes;
            Ok(Created { id, info, stored_bytes, took: began.elapsed() })
        }
        Err(error) => {
            // The first error is the one that matters; a session that stays open is closed by the next run.
            if let Err(closing) = session.abandon(&error.to_string()) {
                tracing::warn!("closing the repository's session after a failure: {closing}");
            }
            Err(error)
        }
    }
}

/// The WAL that leads on from a backup: of its system, from the segment in which replay starts.
fn wal_start(info: &BackupInfo) -> Option<WalStart> {
    let size = SegmentSize::new(info.wal_segment_size.into()).ok()?;
    Some(WalStart {
        stream: info.system_id.to_string(),
        line: info.timeline,
        segment: size.number_of(info.start_lsn),
        segment_bytes: size.bytes(),
    })
}

pub(super) fn stage(progress: &dyn Progress, stage: Stage) {
    Meter::new(Instant::now()).tell(progress, Instant::now(), stage, Counts::default(), Counts::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wal_leads_on_from_the_segment_of_the_start() {
        let info = crate::info::tests::sample();
        let expected =
            WalStart { stream: "18446744073709551615".to_owned(), line: 1, segment: 2, segment_bytes: 16 << 20 };
        assert_eq!(wal_start(&info), Some(expected));
        assert_eq!(wal_start(&BackupInfo { wal_segment_size: 5, ..info }), None);
    }

    #[test]
    fn only_the_certainly_dead_are_taken_over() {
        let this = Writer { pid: 4_000_000, machine: "m".to_owned(), ..Writer::this(Some(Path::new("/data"))) };
        let dead = Writer { data_dir: None, pid: 4_100_000, ..this.clone() };
        let live = Writer { pid: std::process::id(), ..dead.clone() };
        assert!(this.outlives(&dead) && !this.outlives(&live));
        // The lock says it, whatever the process.
        assert!(this.outlives(&Writer { data_dir: this.data_dir.clone(), ..live.clone() }));
        assert!(this.outlives(&Writer { boot: "before".to_owned(), ..live }));
        for other in [
            Writer { host: "elsewhere".to_owned(), ..dead.clone() },
            Writer { pids: "another".to_owned(), ..dead.clone() },
            Writer { machine: "another".to_owned(), boot: "before".to_owned(), ..dead },
        ] {
            assert!(!this.outlives(&other), "{other:?}");
        }
    }
}
