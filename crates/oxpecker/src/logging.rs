//! The log: stderr, one line each; `-v`, `-q` and `OXPECKER_LOG` say how much.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::cli::Global;

/// Starts logging. `default` is the level without flags; libraries stay at `warn` unless everything is asked for.
pub fn start(global: &Global, default: &str) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "warn",
        (false, 0) => default,
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    const OURS: [&str; 12] = [
        "oxpecker",
        "alerting",
        "autovacuum",
        "backup",
        "collector",
        "drill",
        "incident",
        "journal",
        "pg_replication",
        "repository",
        "scratch",
        "wal",
    ];
    let filter = EnvFilter::try_from_env("OXPECKER_LOG").unwrap_or_else(|_| {
        let ours = OURS.map(|name| format!("{name}={level}")).join(",");
        EnvFilter::new(format!("{},{ours}", if global.verbose > 1 { "debug" } else { "warn" }))
    });
    // A second start in one process (tests) keeps the first.
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // By default it says so on stderr, and panics where that is what fails: a log on a full disk would end the guard.
        .log_internal_errors(false)
        .try_init();
}
