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
    /// Alerts: what is open, who was told; try the routes, silence, say that you have it
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Would this outage happen to you? Checks of manifests and what lies beside them
    Audit(crate::commands::audit::AuditArgs),
    /// Services: how they are, in which order they come back, and bringing them back
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Say yes to what a plan of services would make again
    Approve(ApproveArgs),
    /// Incidents and their reports
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// A page in the browser: what is wrong, why, and what is being done; also as JSON and for Prometheus
    Console,
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
    /// Leave out act 3: everything killed with SIGKILL, brought back without an order and in order
    #[arg(long)]
    pub without_cold_start: bool,
    /// How much faster than the wall's act 3's clock runs: start times, back-off and settle time on both sides
    #[arg(long, value_name = "TIMES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=25))]
    pub clock: u32,
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
pub enum ServiceCommand {
    /// What compose files, units, files of variables and the database's sessions say of who needs whom, as configuration to paste. Without arguments
    /// the usual places are looked at; exit 1 where a circle was found
    Discover(crate::commands::discover::DiscoverArgs),
    /// How each is, since when, and who is hurt; exit 1 where one is not well
    List(LookArgs),
    /// What would be done, in which order, why, and how long it takes; exit 1 where something is not well
    Plan(LookArgs),
    /// Bring them back: acts until all is stable, or a person is needed
    Apply(ApplyArgs),
    /// Stop one on purpose: nobody who brings services back starts it again
    Stop(StopArgs),
    /// Take a stop back: it is meant to run again, and is started at its place in the order
    Start(StartArgs),
    /// The end of what one wrote
    Logs(LogsArgs),
    /// What needs what
    Graph {
        /// In the language of Graphviz
        #[arg(long)]
        dot: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Which one, as `service list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Who says so; by default the user's name
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
    /// Also where others need it
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Which one, as `service list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Which one, as `service list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// How many lines of its end
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50)]
    pub lines: usize,
}

#[derive(Clone, Debug, Args)]
pub struct LookArgs {
    /// For how long to look: what is healthy for less than its `stable_for` can't be seen to be stable
    #[arg(long = "for", value_name = "TIME")]
    pub look_for: Option<crate::config::HumanDuration>,
}

#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Only say what would be done: as `service plan`
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// You have looked: what was given up is tried again, within what the budgets leave
    #[arg(long)]
    pub again: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ApproveArgs {
    /// The plan's hash, as `service plan` shows it
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Who says so; by default the user's name
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum AlertCommand {
    /// What is open, who was told and who has it; exit 1 where one is open that nobody has
    List,
    /// Send a trial message through every route; exit 1 if one did not arrive
    Test {
        /// Only this route; may be named several times
        #[arg(long, value_name = "NAME")]
        route: Vec<String>,
    },
    /// The figures that conditions of own rules may name
    Figures,
    /// Tell nobody of some alerts for a time; the log and the journal go on
    Silence(SilenceArgs),
    /// End a silence before its time
    Unsilence {
        /// Its name, as `alert list` shows it
        id: String,
    },
    /// Say that you have it: it is not escalated
    Ack(AckArgs),
}

#[derive(Clone, Debug, Args)]
pub struct SilenceArgs {
    /// The rules; any of these
    #[arg(value_name = "RULE")]
    pub rule: Vec<String>,
    /// A label that the alert has to have; may be named several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Every alert there is
    #[arg(long)]
    pub all: bool,
    /// For how long: it ends by itself
    #[arg(long = "for", value_name = "TIME")]
    pub length: crate::config::HumanDuration,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Who says so; by default the user's name
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct AckArgs {
    /// The alert's key, or as much of its beginning as no other has
    #[arg(value_name = "ALERT")]
    pub alert: String,
    /// Who has it; by default the user's name
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
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
    /// Looks into why the host or PostgreSQL died
    Autopsy,
    /// Makes, proves and prunes backups
    Backup,
    /// Delivers alerts
    Deliver,
    /// Services that are brought back while the guard runs
    Recovery,
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
