//! The command line.

mod backup;
mod wal;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::Mode;

pub use self::backup::{BackupCommand, CreateArgs, KeyCommand, ProveArgs, PruneArgs, RepositoryArgs, RestoreArgs};
pub use self::wal::{GetArgs, PushArgs, ReceiveArgs, StreamArgs, VerifyArgs, WalCommand, is_wal_get};

/// Keeps a small team's PostgreSQL, and what depends on it, alive.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 fine, 1 a finding or unhealthy, 2 usage or configuration, \
3 refused for safety, 4 failed while acting.\nNew here? `oxpecker demo` replays an outage on a scratch PostgreSQL and touches nothing else.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file; by default ./oxpecker.toml, then /etc/oxpecker/oxpecker.toml, if there is one
    #[arg(long, short, global = true, value_name = "FILE", env = "OXPECKER_CONFIG", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// What results look like
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Everywhere")]
    pub output: Format,
    /// Only warnings and errors on stderr
    #[arg(long, short, global = true, conflicts_with = "verbose", help_heading = "Everywhere")]
    pub quiet: bool,
    /// More on stderr; twice for everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Everywhere")]
    pub verbose: u8,
}

/// What results look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs, with a schema version.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay the outage on a scratch PostgreSQL: as it was, and with oxpecker riding along
    Demo(DemoArgs),
    /// Guard a PostgreSQL, continuously
    Run(RunArgs),
    /// One screen: what is well and what is not
    Status,
    /// Backups: make, list, check, prune and prove them
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Bring a backup back into an empty directory
    Restore(RestoreArgs),
    /// WAL between backups: receive, push, get, list and verify it
    #[command(subcommand)]
    Wal(WalCommand),
    /// What opens the repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Running vacuums and the governor that holds them
    #[command(subcommand)]
    Vacuum(VacuumCommand),
    /// Would this outage happen to you? Checks of manifests and what lies beside them
    Audit(crate::commands::audit::AuditArgs),
    /// Incidents and their reports
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// Replays of incidents on scratch databases and services
    #[command(subcommand)]
    Drill(DrillCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Undo a throttle that a guard left behind (for ExecStopPost and for people in a hurry)
    Release,
    /// Processes that the guard starts for itself
    #[command(subcommand, hide = true)]
    Worker(WorkerCommand),
    /// A service of a drill
    #[command(hide = true)]
    DrillService(DrillServiceArgs),
    /// The keeper of a service that runs as a process
    #[command(hide = true)]
    Keep(KeepArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// How far to go, whatever the configuration says
    #[arg(long, value_name = "observe|advise|act", value_parser = parse_mode)]
    pub mode: Option<Mode>,
    /// Where journal, outbox and lock live
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "observe" => Ok(Mode::Observe),
        "advise" => Ok(Mode::Advise),
        "act" => Ok(Mode::Act),
        _ => Err("expected observe, advise or act".to_owned()),
    }
}

#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Leave the scratch cluster up afterwards and say how to reach it
    #[arg(long)]
    pub keep: bool,
    /// Repeat a run: the same data and the same arrivals
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// The PostgreSQL to use: the folder that holds `postgres` and `initdb`; by default the newest that is installed
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// The offered load as a share of the measured capacity, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 55, value_parser = clap::value_parser!(u8).range(5..=95))]
    pub load: u8,
    /// How long each act lasts, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(5..=600))]
    pub act: u16,
    /// Rows of each of the three big tables: fewer on a slow machine, more on a fast one
    #[arg(long, value_name = "NUMBER")]
    pub rows: Option<u32>,
    /// Leave out the last act: the backup, the destruction, the restore and the proof
    #[arg(long)]
    pub without_backup: bool,
    /// Where to write the report of the guarded act
    #[arg(long, value_name = "DIR", default_value = "oxpecker-demo")]
    pub report_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum VacuumCommand {
    /// What runs, what holds it, and which levers there are
    Status,
}

#[derive(Debug, Subcommand)]
pub enum IncidentCommand {
    /// All incidents in the journal, newest first
    List,
    /// The post-mortem's draft of one incident, as Markdown
    Report {
        /// Its id, as `incident list` shows it; by default the newest
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum DrillCommand {
    /// What can be replayed
    List,
    /// Replay one
    Run {
        /// Its name, as `drill list` shows it
        name: String,
        #[command(flatten)]
        args: DemoArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration and all files that it names, and say what is wrong
    Check,
    /// The configuration in force, with every default filled in and no secrets
    Show,
}

#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Makes, proves and prunes backups
    Backup,
    /// Delivers alerts
    Deliver,
    /// Undoes a throttle when the guard dies
    Release,
    /// Receives WAL into the repository
    Wal,
}

#[derive(Debug, Args)]
pub struct KeepArgs {
    /// detach, hold or launch
    pub role: String,
    /// Which service, for lists of processes
    pub name: String,
}

#[derive(Debug, Args)]
pub struct DrillServiceArgs {
    /// Which one
    pub kind: String,
    /// What it is to do, as JSON
    pub spec: String,
}
