//! Whose WAL is meant: the systems that a repository knows of.

use std::collections::BTreeSet;

use pg_format::wal::SegmentSize;
use repository::{Repository, wal::Wal};
use wal::Cluster;

use crate::{
    cli::StreamArgs,
    exit::{FAILED, Failure},
    repo::{self, Settings},
};

/// The WAL of each system: the one that was asked for, or all that the repository or the data directory tells of.
///
/// # Errors
/// Where the repository can't be read.
pub fn streams(settings: &Settings, repository: &Repository, args: &StreamArgs) -> Result<Vec<(String, Wal)>, Failure> {
    let names: BTreeSet<String> = match &args.system {
        Some(system) => [system.to_string()].into(),
        None => {
            let mut names = repository.with_state(repository::log::State::wal_streams);
            names.extend(repository.backups().iter().filter_map(repo::info).map(|info| info.system_id.to_string()));
            let directory = settings.config.postgres.data_dir.as_deref();
            let cluster = directory.and_then(|directory| Cluster::of_data_dir(directory).ok());
            names.extend(cluster.map(|cluster| cluster.stream()));
            names
        }
    };
    let mut found = Vec::new();
    for name in names {
        let wal = repository.find_wal(&name).map_err(failure)?;
        found.extend(wal.map(|wal| (name, wal)));
    }
    Ok(found)
}

/// The cluster whose stream has this name.
///
/// # Errors
/// No cluster has segments of that size.
pub fn cluster(name: &str, wal: &Wal) -> Result<Cluster, Failure> {
    // Streams are named by their system's number; another one's maps would be called somebody else's.
    Ok(Cluster { system_identifier: name.parse().unwrap_or(0), segment: SegmentSize::new(wal.segment_bytes())? })
}

/// What lies there of systems that nobody here knows, in words; empty where there is nothing.
///
/// # Errors
/// Where the repository can't be read.
pub fn others(repository: &Repository, known: &[(String, Wal)]) -> Result<String, Failure> {
    let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
    let (streams, bytes) = repository.other_wal(&names).map_err(failure)?;
    Ok(match streams {
        0 => String::new(),
        1 => format!("and {} of a system that no backup is of: --system shows it\n", model::ByteSize(bytes)),
        n => format!("and {} of {n} systems that no backup is of: --system shows one\n", model::ByteSize(bytes)),
    })
}

/// An error of WAL in the repository.
pub fn failure(error: repository::wal::WalError) -> Failure {
    Failure { code: FAILED, error: error.into(), hint: None }
}
