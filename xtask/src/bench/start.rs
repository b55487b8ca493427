//! The program's size as packages ship it, and the time from its start to its first reading, from warm and from cold caches.

use std::fs;

use anyhow::{Context, Result};
use scratch::ScratchCluster;

use super::{
    program::{self, Guard},
    report::{Table, median},
};
use crate::{demo::target_directory, shell};

/// Starts of each kind that are counted, after one that warms the caches.
const STARTS: usize = 11;

/// Times of starts, in milliseconds.
#[derive(Default)]
struct Starts {
    ready: Vec<f64>,
    reading: Vec<f64>,
}

impl Starts {
    /// Starts a guard, waits for its first reading of PostgreSQL, and stops it.
    fn once(&mut self, cluster: &ScratchCluster) -> Result<()> {
        let guard = Guard::start(&cluster.url("postgres"), "")?;
        let first = guard.await_status(|status| !status["activity"].is_null())?;
        self.ready.push(guard.ready_after.as_secs_f64() * 1e3);
        self.reading.push(first.as_secs_f64() * 1e3);
        Ok(())
    }
}

/// Measures and prints.
pub fn run(_: &super::Args) -> Result<()> {
    let cluster = ScratchCluster::builder(&scratch::newest_installation()?).start()?;
    let (mut warm, mut cold) = (Starts::default(), Starts::default());
    Starts::default().once(&cluster)?;
    for _ in 0..STARTS {
        warm.once(&cluster)?;
    }
    for _ in 0..STARTS {
        drop_caches()?;
        cold.once(&cluster)?;
    }
    let mut table = Table::new(&["what", "measured"]);
    table.figure("program of the release profile, MiB", size_mib(&program::path()?)?, 1);
    shell::run(shell::cargo().args(["build", "--profile", "dist", "--package", "oxpecker"]))?;
    table.figure(
        "program of the dist profile, which packages ship, MiB",
        size_mib(&target_directory()?.join("dist/oxpecker"))?,
        1,
    );
    for (what, starts) in [("warm", &mut warm), ("cold", &mut cold)] {
        table.figure(&format!("{what} start to ready, ms (median)"), median(&mut starts.ready), 1);
        table.figure(
            &format!("{what} start to the first reading of PostgreSQL, ms (median)"),
            median(&mut starts.reading),
            1,
        );
    }
    table.print(&format!("Size and start, {STARTS} starts of each kind"));
    Ok(())
}

/// Empties the page cache: the program, its libraries and the server's catalogs come from the disk again.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the caches; hint: run as root")
}

#[expect(clippy::cast_precision_loss, reason = "a file's size")]
fn size_mib(path: &std::path::Path) -> Result<f64> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64 / 1_048_576.0)
}
