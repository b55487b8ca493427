//! The configuration: its shape, where it comes from and what may be wrong with it.
//!
//! Order of precedence: flags, then `OXPECKER_*`, then the file, then defaults. Every key has a default; with no file at all the
//! program observes the local cluster.

mod alerts;
pub mod backups;
mod check;
mod console;
mod env;
mod heartbeat;
mod lines;
mod load;
mod own_rules;
mod peer;
mod relief;
mod services;
mod shedding;
mod values;
mod wal;

use std::path::PathBuf;

use ::services::plan::Action;
use model::Mode;
use serde::{Deserialize, Serialize};

pub use alerts::Alert;
pub use backups::{Backup, Keep, ProofQuery, ProveWhen, Repository, SourceChoice};
pub use check::{Problem, check};
pub use console::Console;
pub use env::PASSPHRASE as REPOSITORY_PASSPHRASE;
pub use heartbeat::Heartbeat;
pub use lines::Lines;
pub use load::{Loaded, Overrides, load};
pub use own_rules::OwnRule;
pub use peer::Peer;
pub use relief::Relief;
pub use services::{Driven, Health, LogPlace, Recovery, Service};
pub use shedding::Shedding;
pub use values::{Crontab, HumanBytes, HumanDuration};
pub use wal::Wal;

/// `oxpecker.toml`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How far to go; each capability may set its own.
    pub mode: Mode,
    /// Where journal, outbox and lock live. Default: /var/lib/oxpecker for root and where it is writable, else
    /// $XDG_STATE_HOME/oxpecker.
    pub state_dir: Option<PathBuf>,
    /// The guarded server.
    pub postgres: Postgres,
    /// The store of events and readings.
    pub journal: JournalSettings,
    /// What to watch of the host beyond the data directory.
    pub host: Host,
    /// The governor.
    pub autovacuum: Autovacuum,
    /// Services that depend on the database.
    pub service: Vec<Service>,
    /// How they are brought back.
    pub recovery: Recovery,
    /// What gives way when the host is short of everything.
    pub shedding: Shedding,
    /// What gives way when connections run short.
    pub relief: Relief,
    /// Where backups are kept.
    pub repository: Repository,
    /// When they are made, which are kept, how they are proven.
    pub backup: Backup,
    /// WAL between backups.
    pub wal: Wal,
    /// Rules and routes.
    pub alert: Alert,
    /// The page in the browser.
    pub console: Console,
}

services::with_driver_keys! {
    /// `[postgres]`: the guarded server.
    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct Postgres {
        /// What the cluster is called in alerts and reports.
        pub name: String = "main".to_owned(),
        /// Where it is, as libpq writes it, without a password. Default: the local cluster's unix socket.
        pub url: Option<String> = None,
        /// A file that holds the password, if one is needed.
        pub password_file: Option<PathBuf> = None,
        /// Its data directory; asked of the server where absent.
        pub data_dir: Option<PathBuf> = None,
        /// Services that it needs: a mount, a volume's daemon.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub depends_on: Vec<String> = Vec::new(),
        /// What people lose while it is down.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub impact: Vec<String> = Vec::new(),
        /// How long it is expected to take from its start to its first answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub starts_in: Option<HumanDuration> = None,
        /// How long it has to answer, without a restart, to count as stable.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stable_for: Option<HumanDuration> = None,
        /// How many services that need it may start at the same time.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub admits: Option<u32> = None,
        /// What of it a person has to approve; provisioning it again always.
        pub approve: Vec<Action> = vec![Action::Restart],
    }
}

/// `[journal]`: how much is remembered.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// How long readings are kept.
    pub keep_readings: HumanDuration,
    /// How long events are kept.
    pub keep_events: HumanDuration,
    /// The bound of the file; it goes before the two above.
    pub max_size: HumanBytes,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            keep_readings: HumanDuration::from_secs(24 * 3600),
            keep_events: HumanDuration::from_secs(400 * 24 * 3600),
            max_size: HumanBytes(256 << 20),
        }
    }
}

/// `[host]`: what to watch of the host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Paths whose file systems are watched, beside the data directory and the state directory.
    pub paths: Vec<PathBuf>,
}

/// `[autovacuum]`: the governor.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Autovacuum {
    /// How far the governor may go; default: the general mode.
    pub mode: Option<Mode>,
    /// The throttle's home: a file on a tmpfs that postgresql.conf names with `include_if_exists`.
    /// Default: /run/oxpecker/NAME/throttle.conf.
    pub include_file: Option<PathBuf>,
    /// The longest that a throttle is held in one go.
    pub max_hold: HumanDuration,
    /// Age in transactions or multixacts from which no vacuum is slowed any more, in any database.
    pub wraparound_age: u64,
    /// The pace at which a hold begins, in cost units a second for each worker. Stock settings allow 100,000.
    pub first_pace: f64,
    /// The pace that a hold does not go below while anything else relieves the host.
    pub floor_pace: f64,
}

impl Default for Autovacuum {
    fn default() -> Self {
        let limits = autovacuum::Limits::default();
        Self {
            mode: None,
            include_file: None,
            max_hold: HumanDuration(limits.max_hold),
            wraparound_age: limits.wraparound_age,
            first_pace: limits.first_pace,
            floor_pace: limits.floor_pace,
        }
    }
}

impl Autovacuum {
    /// The governor's bounds: the declared ones, the measured defaults for the rest.
    pub fn limits(&self) -> autovacuum::Limits {
        autovacuum::Limits {
            max_hold: self.max_hold.0,
            wraparound_age: self.wraparound_age,
            first_pace: self.first_pace,
            floor_pace: self.floor_pace,
            ..autovacuum::Limits::default()
        }
    }
}

impl Config {
    /// How far the governor may go.
    pub fn autovacuum_mode(&self) -> Mode {
        self.autovacuum.mode.unwrap_or(self.mode)
    }

    /// The throttle's home.
    pub fn include_file(&self) -> PathBuf {
        self.autovacuum
            .include_file
            .clone()
            .unwrap_or_else(|| PathBuf::from("/run/oxpecker").join(&self.postgres.name).join("throttle.conf"))
    }
}
