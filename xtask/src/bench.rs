//! `cargo xtask bench`: what is measured, and running it.

mod audit;
mod backup;
mod frontier;
mod program;
mod report;
mod rest;
mod services;
mod start;
mod wal;

use anyhow::{Result, bail};

use crate::shell;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which to run; all by default
    names: Vec<String>,
    /// Rounds of what is compared in turn; fewer are quicker and say less
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    rounds: u8,
    /// Only say which there are
    #[arg(long)]
    list: bool,
}

/// Something that is measured. Its numbers end in the table of docs/src/bench.md.
pub struct Bench {
    /// What to call it on the command line.
    pub name: &'static str,
    /// What it measures, and its goal.
    pub about: &'static str,
    /// Measures and prints.
    pub run: fn(&Args) -> Result<()>,
}

/// All there are.
const BENCHES: &[Bench] = &[
    Bench {
        name: "audit",
        about: "audit of 5,000 manifests on one core: below 1 s and 128 MiB; precision of each check over the corpus",
        run: audit::run,
    },
    Bench { name: "start", about: "binary size, start to the first reading", run: start::run },
    Bench {
        name: "rest",
        about: "guard at rest beside 1,000 tables: below 0.5 % of a core and 15 MiB resident",
        run: rest::run,
    },
    Bench {
        name: "frontier",
        about: "clients' p99 with no vacuum, stock, throttling off and governed at 20, 55 and 80 % load; detection within 3 s",
        run: frontier::run,
    },
    Bench {
        name: "backup",
        about: "full backup and restore beside pgBackRest and pg_basebackup, caches dropped: 1.5 times pgBackRest's throughput",
        run: backup::run,
    },
    Bench {
        name: "wal",
        about: "segments/s of push, receive and replay beside pgBackRest, pg_receivewal and local files; replay at least 0.9 of local files",
        run: wal::run,
    },
    Bench {
        name: "services",
        about: "a cold restart of 16 services by oxpecker, systemd and Kubernetes' back-off; the planner on 10,000 services: below 100 ms",
        run: services::run,
    },
];

/// Runs the named ones, or all.
pub fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != **name)) {
        bail!("there is no bench {unknown}; hint: `cargo xtask bench --list`");
    }
    if !args.list {
        program::build()?;
    }
    for bench in
        BENCHES.iter().filter(|bench| args.names.is_empty() || args.names.iter().any(|name| name == bench.name))
    {
        shell::say(&format!("{}: {}", bench.name, bench.about));
        if !args.list {
            (bench.run)(args)?;
        }
    }
    Ok(())
}
