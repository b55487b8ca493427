//! The configuration: its shape, where it comes from and what may be wrong with it.
//!
//! Order of precedence: flags, then `OXPECKER_*`, then the file, then defaults. Every key has a default; with no file at all the
//! program observes the local cluster.

pub mod backups;
mod check;
mod env;
mod load;
mod values;
mod wal;

use std::{collections::BTreeMap, path::PathBuf};

use alerting::Secret;
use collector::services::Check;
use model::{Mode, Severity};
use serde::{Deserialize, Serialize};

pub use backups::{Backup, Keep, ProofQuery, ProveWhen, Repository, SourceChoice};
pub use check::{Problem, check};
pub use env::PASSPHRASE as REPOSITORY_PASSPHRASE;
pub use load::{Loaded, Overrides, load};
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
    /// Where backups are kept.
    pub repository: Repository,
    /// When they are made, which are kept, how they are proven.
    pub backup: Backup,
    /// WAL between backups.
    pub wal: Wal,
    /// Rules and routes.
    pub alert: Alert,
}

/// `[postgres]`: the guarded server.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// What the cluster is called in alerts and reports.
    pub name: String,
    /// Where it is, as libpq writes it, without a password. Default: the local cluster's unix socket.
    pub url: Option<String>,
    /// A file that holds the password, if one is needed.
    pub password_file: Option<PathBuf>,
    /// Its data directory; asked of the server where absent.
    pub data_dir: Option<PathBuf>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self { name: "main".to_owned(), url: None, password_file: None, data_dir: None }
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

/// `[[service]]`: something that depends on the database.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What it needs: services, or the PostgreSQL by its name.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// How to see that it is well.
    pub health: Health,
    /// What people lose while it is down.
    #[serde(default)]
    pub impact: Vec<String>,
}

/// A service's `health`: exactly one of `http` and `tcp`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// An `http://` URL that answers 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A `host:port` that takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// How long an answer may take.
    #[serde(default = "default_health_timeout")]
    pub timeout: HumanDuration,
    /// How often to ask.
    #[serde(default = "default_health_interval")]
    pub interval: HumanDuration,
}

fn default_health_timeout() -> HumanDuration {
    HumanDuration::from_secs(2)
}

fn default_health_interval() -> HumanDuration {
    HumanDuration::from_secs(2)
}

/// `[alert]`: rules and routes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alert {
    /// Thresholds.
    pub rules: alerting::RuleSettings,
    /// Where alerts go, beside the log.
    pub route: Vec<Route>,
}

/// `[[alert.route]]`: where alerts go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in events and in `status`.
    pub name: String,
    /// A webhook.
    pub webhook: Webhook,
    /// The least severity that it carries.
    #[serde(default = "default_min_severity")]
    pub min_severity: Severity,
}

fn default_min_severity() -> Severity {
    Severity::Warning
}

/// A route's `webhook`: exactly one of `url_file` and `url_env`. A webhook's URL is a secret, so it never stands in this file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// A file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// An environment variable that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// A file that holds a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<PathBuf>,
    /// More headers; not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Health {
    /// The check that is declared.
    ///
    /// # Errors
    /// In words, where it can't be used or not exactly one is declared.
    pub fn check(&self) -> Result<Check, String> {
        match (&self.http, &self.tcp) {
            (Some(url), None) => Check::http(url).map_err(|e| e.to_string()),
            (None, Some(address)) => Check::tcp(address).map_err(|e| e.to_string()),
            _ => {
                Err("needs exactly one of http and tcp, such as { http = \"http://127.0.0.1:8000/healthz\" }"
                    .to_owned())
            }
        }
    }
}

impl Webhook {
    /// What is needed to post: the URL, and the bearer token where one is declared.
    ///
    /// # Errors
    /// In words, without the secret, where one can't be had or the URL is none.
    pub fn resolve(&self) -> Result<alerting::Webhook, String> {
        let url = match (&self.url_file, &self.url_env) {
            (Some(path), None) => Secret::from_file(path).map_err(|e| e.to_string())?,
            (None, Some(name)) => Secret::from_env(name).map_err(|e| e.to_string())?,
            _ => return Err(
                "needs exactly one of url_file and url_env. Hint: a webhook's URL is a secret and never stands here"
                    .to_owned(),
            ),
        };
        alerting::check_webhook_url(&url)?;
        let bearer = self.bearer_file.as_deref().map(Secret::from_file).transpose().map_err(|e| e.to_string())?;
        Ok(alerting::Webhook { url, bearer, headers: self.headers.clone() })
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
