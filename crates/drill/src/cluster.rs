//! The scratch cluster: loaded once, kept as a template, copied for each act, so that every act meets the same storm.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use scratch::{DataDir, ScratchCluster, Storage};

use crate::{
    DrillError,
    options::{ActKind, DrillOptions},
    place::Cores,
    result::StormTable,
    storm,
};

/// How long the disk gets to become quiet before an act that is not on tmpfs.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// Below this much unwritten data the disk counts as quiet.
const QUIET_KB: u64 = 8 * 1024;
/// How often is looked.
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// The loaded, stopped cluster.
pub(crate) struct Template {
    data: DataDir,
    pub(crate) tables: Vec<StormTable>,
}

impl Template {
    /// Runs initdb and loads, on all cores that there are. Blocks while PostgreSQL starts and stops.
    pub(crate) async fn build(options: &DrillOptions) -> Result<Self, DrillError> {
        let mut builder = ScratchCluster::builder(&options.postgres)
            .tmpfs(true)
            .tmpfs_room(storm::room_bytes(options.rows, options.rescue))
            .start_within(SETTLE_PATIENCE);
        for (name, value) in storm::LOADING {
            builder = builder.setting(name, value);
        }
        let cluster = builder.start().map_err(DrillError::cluster("making it"))?;
        let tables = storm::load(&cluster.url("postgres"), options.rows, options.seed).await?;
        let data = cluster.into_data_dir().map_err(DrillError::cluster("stopping it after the load"))?;
        Ok(Self { data, tables })
    }

    pub(crate) fn storage(&self) -> &Storage {
        self.data.storage()
    }

    /// Where drills and clusters have their directories.
    pub(crate) fn base(&self) -> PathBuf {
        let home = self.data.path();
        home.ancestors().nth(2).map_or_else(std::env::temp_dir, Path::to_owned)
    }

    /// A copy of it, running, bound to the database's core.
    pub(crate) async fn play(
        &self,
        options: &DrillOptions,
        act: ActKind,
        cores: Cores,
    ) -> Result<ScratchCluster, DrillError> {
        let on_tmpfs = matches!(self.storage(), Storage::Tmpfs);
        let mut builder = ScratchCluster::builder(&options.postgres)
            .template_of(self.data.path())
            .cpus(&[cores.database])
            .tmpfs(on_tmpfs)
            .tmpfs_room(0);
        for (name, value) in storm::act_settings(act, options.postgres.major()) {
            builder = builder.setting(name, value);
        }
        let cluster = builder.start().map_err(DrillError::cluster("starting an act's copy"))?;
        if !on_tmpfs {
            settle(&cluster.url("postgres")).await?;
        }
        Ok(cluster)
    }
}

/// Waits until what the copying has left to write is on the disk.
async fn settle(url: &str) -> Result<(), DrillError> {
    let client = storm::connect(url).await?;
    client.batch_execute("CHECKPOINT").await.map_err(DrillError::sql("settling the disk"))?;
    rustix::fs::sync();
    let deadline = Instant::now() + SETTLE_PATIENCE;
    while unwritten_kb() > QUIET_KB && Instant::now() < deadline {
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}

/// `Dirty` and `Writeback` of /proc/meminfo; nothing where they can't be read.
fn unwritten_kb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with("Dirty:") || line.starts_with("Writeback:"))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}
