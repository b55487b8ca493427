//! The machine that the audit runs on, and the database's processes on it where they are here.

use super::live::Asked;
use crate::finding::{Evidence, Place};

/// The machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Cores that are online.
    pub cores: Asked<u32>,
    /// Bytes of memory.
    pub memory: Asked<u64>,
    /// `vm.overcommit_memory`.
    pub overcommit: Asked<u32>,
    /// The database's main process; why not, where it is not to be seen from here.
    pub postmaster: Asked<Postmaster>,
    /// File systems that matter to the database.
    pub disks: Asked<Vec<Disk>>,
    /// Programs here that watch others: name and process id.
    pub monitors: Vec<(String, u32)>,
    /// What makes backups here: cron tables and units that name a tool, with the line.
    pub backup_jobs: Vec<Evidence>,
    /// What pgBackRest says of its backups, where it is installed.
    pub pgbackrest: Option<Asked<Vec<Stanza>>>,
}

/// The database's main process.
#[derive(Clone, Debug)]
pub struct Postmaster {
    /// Its process id.
    pub pid: u32,
    /// What the kernel adds to its badness when memory runs out.
    pub oom_score_adj: i32,
    /// Cores that it may run on: affinity and CPU quota of its control groups.
    pub cores: f64,
    /// Where the cores were read.
    pub cores_from: Evidence,
    /// Bytes of memory that its control groups allow it; absent where they allow all.
    pub memory: Option<(u64, Evidence)>,
}

/// A file system.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What lies there: `data`, `wal`, `repository`.
    pub role: &'static str,
    /// The path that was asked.
    pub path: String,
    /// Its device number.
    pub device: u64,
    /// Bytes of it.
    pub size: u64,
    /// Bytes that are free to an ordinary user.
    pub free: u64,
}

/// A stanza of pgBackRest.
#[derive(Clone, Debug)]
pub struct Stanza {
    /// Its name.
    pub name: String,
    /// What pgBackRest says is wrong with it; empty where all is well.
    pub message: String,
    /// When its newest backup ended, in seconds since 1970; absent where it has none.
    pub newest: Option<i64>,
}

/// What lies in our own repository.
#[derive(Clone, Debug)]
pub struct OwnBackups {
    /// Its place, without secrets.
    pub place: String,
    /// The cluster's name there.
    pub cluster: String,
    /// How many backups of the cluster.
    pub count: usize,
    /// Seconds since the newest.
    pub newest: Option<u64>,
    /// Seconds since the newest that was proven.
    pub proven: Option<u64>,
    /// Seconds that it may be old; absent where nothing says so.
    pub max_age: Option<u64>,
}

impl Host {
    /// Memory that the database may use, with where that stands: the smaller of the machine's and its control group's.
    pub fn database_memory(&self) -> Asked<(u64, Evidence)> {
        let all = *self.memory.as_ref().map_err(Clone::clone)?;
        let machine = Evidence {
            place: Place { file: "/proc/meminfo".into(), line: 1 },
            value: format!("memory: {}", crate::quantity::human(all)),
        };
        // Where the server runs elsewhere, this machine's memory says nothing about it.
        let postmaster = self.postmaster.as_ref().map_err(Clone::clone)?;
        Ok(match &postmaster.memory {
            Some((limit, evidence)) if *limit < all => (*limit, evidence.clone()),
            _ => (all, machine),
        })
    }
}
