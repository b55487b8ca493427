//! The binary's size, and the time from its start to its first reading.

use std::fs;

use anyhow::Result;
use scratch::ScratchCluster;

use super::{
    program::{self, Guard},
    report::{Table, median},
};

/// Starts that are counted, after one that warms the caches.
const STARTS: usize = 11;

/// Measures and prints.
pub fn run(_: &super::Args) -> Result<()> {
    let cluster = ScratchCluster::builder(&scratch::newest_installation()?).start()?;
    let mut ready = Vec::new();
    let mut activity = Vec::new();
    for start in 0..=STARTS {
        let guard = Guard::start(&cluster.url("postgres"), "")?;
        let first = guard.await_status(|status| !status["activity"].is_null())?;
        if start > 0 {
            ready.push(guard.ready_after.as_secs_f64() * 1e3);
            activity.push(first.as_secs_f64() * 1e3);
        }
    }
    let size = fs::metadata(program::path()?)?.len();
    let mut table = Table::new(&["what", "measured"]);
    #[expect(clippy::cast_precision_loss, reason = "a file's size")]
    table.figure("binary, MiB", size as f64 / 1_048_576.0, 1);
    table.figure("start to ready, ms (median)", median(&mut ready), 1);
    table.figure("start to the first reading of PostgreSQL, ms (median)", median(&mut activity), 1);
    table.print(&format!("Size and start, {STARTS} starts"));
    Ok(())
}
