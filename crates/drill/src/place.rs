//! Which core does what, and what the host is like.

use std::fs;

use rustix::thread::sched_getaffinity;

use crate::{DrillError, result::Host};

/// Cores that the kernel can name in an affinity mask (sched_setaffinity(2), glibc's cpu_set_t).
const MAX_CORES: usize = 1024;

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// How many there are for us.
    pub(crate) count: usize,
    /// Database, services and guard.
    pub(crate) database: usize,
    /// Load and measurement: another one where there is one.
    pub(crate) load: usize,
}

impl Cores {
    pub(crate) fn choose() -> Result<Self, DrillError> {
        let fail = |why: String| DrillError::Host { what: "which cores we may use".into(), why };
        let allowed = sched_getaffinity(None).map_err(|error| fail(error.to_string()))?;
        let all: Vec<usize> = (0..MAX_CORES).filter(|&core| allowed.is_set(core)).collect();
        let (Some(&first), Some(&last)) = (all.first(), all.last()) else {
            return Err(fail("none".into()));
        };
        // The first two differ as much as any, and the last is further from where interrupts are mostly served.
        Ok(Self { count: all.len(), database: first, load: last })
    }
}

/// The host as the result shows it.
pub(crate) fn host(cores: Cores, storage: &scratch::Storage) -> Host {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    Host {
        cores: cores.count,
        database_core: cores.database,
        load_core: cores.load,
        storage: match storage {
            scratch::Storage::Tmpfs => "tmpfs".into(),
            scratch::Storage::Disk { why } => {
                let why = why.as_deref().unwrap_or("tmpfs was not asked for");
                format!("disk, settled before each act ({why})")
            }
        },
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
        autogroup: read("/proc/sys/kernel/sched_autogroup_enabled").map(|flag| flag == "1"),
    }
}
