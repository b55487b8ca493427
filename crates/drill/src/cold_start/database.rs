//! The real PostgreSQL of act 3. It is made here and run as one of the services.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use scratch::ScratchCluster;

use super::member::Server;
use crate::{DrillError, DrillOptions, storm};

/// Rows that are written before each kill, and then changed: some 30 MB of WAL to replay.
const ROWS: u32 = 60_000;
/// How long its first start may take.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A stopped cluster, whose server is somebody else's to run.
pub(crate) struct Database {
    cluster: ScratchCluster,
    owner: (u32, u32),
}

impl Database {
    /// Makes it. Blocks while PostgreSQL starts and stops.
    pub(crate) fn new(options: &DrillOptions) -> Result<Self, DrillError> {
        // No checkpoint between the writing and the kill, so that both recoveries have the same to do.
        let builder = ScratchCluster::builder(&options.postgres)
            .tmpfs(true)
            .start_within(START_PATIENCE)
            .setting("checkpoint_timeout", "1h")
            .setting("max_wal_size", "4GB");
        let mut cluster = builder.start().map_err(DrillError::cluster("making the one of act 3"))?;
        let data = cluster.data_dir();
        cluster.stop_fast().map_err(DrillError::cluster("stopping the one of act 3"))?;
        let owner = fs::metadata(&data).map_err(DrillError::file("looking at", &data))?;
        Ok(Self { owner: (owner.uid(), owner.gid()), cluster })
    }

    /// Where all of it is.
    pub(crate) fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// How it is run.
    pub(crate) fn server(&self) -> Server {
        Server {
            program: self.cluster.installation().bin_dir.join("postgres"),
            data: self.cluster.data_dir(),
            owner: self.owner.0,
            group: self.owner.1,
            url: self.cluster.url("postgres"),
        }
    }

    /// Writes what a crash then has to recover; returns the bytes of WAL.
    pub(crate) async fn write(&self) -> Result<u64, DrillError> {
        let client = storm::connect(&self.cluster.url("postgres")).await?;
        let sql = format!(
            "DROP TABLE IF EXISTS written; CHECKPOINT; \
             CREATE TABLE written AS SELECT i, repeat('x', 100) AS x FROM generate_series(1, {ROWS}) i; \
             CREATE INDEX ON written (i); UPDATE written SET i = i + 1"
        );
        client.batch_execute(&sql).await.map_err(DrillError::sql("writing what is to be recovered"))?;
        let query =
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint FROM pg_control_checkpoint()";
        let bytes: i64 = client.query_one(query, &[]).await.map_err(DrillError::sql("measuring the WAL"))?.get(0);
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}
