//! `[wal]`: WAL that streams into the repository, and how its age is measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wal::receive::{FLUSH_LOCAL, FLUSH_OBJECT_STORE};

use super::HumanDuration;

/// What object stores ask for a write, about the same everywhere: 5 $ a million.
const DOLLARS_PER_PUT: f64 = 5e-6;

/// Whether each write to a repository at this address is billed: all that is no directory.
fn is_billed(repository: Option<&str>) -> bool {
    repository.is_some_and(|url| !url.starts_with("file:"))
}

/// `[wal]`: what the guard does about WAL between backups.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wal {
    /// Whether the guard receives WAL as it is written. Without, all since the newest backup is lost with the cluster, unless
    /// `archive_command` pushes it.
    pub receive: bool,
    /// The replication slot that keeps on the server what was not received yet; made where it is not there.
    pub slot: String,
    /// Whether the slot is made though nothing bounds it (`max_slot_wal_keep_size`): a receiver that is away for long then fills the server's
    /// disk.
    pub unlimited_slot: bool,
    /// How long bytes may wait until they are durable in the repository, while the server writes. Each wait's end costs a write; by default
    /// it is 500 ms on a directory, and 10 s on an object store, which bills each: see [`Wal::flush_interval`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_every: Option<HumanDuration>,
    /// Alert when more than this would be lost with the server.
    pub max_behind: HumanDuration,
    /// A row that is written every so often, to measure how long a commit takes to the repository, and so that there is always a recent moment
    /// to return to. Without it nothing is ever written to the database.
    pub canary: Option<HumanDuration>,
    /// In which database: the row is in `oxpecker.canary`, which is made where it is not there.
    pub canary_database: String,
}

impl Default for Wal {
    fn default() -> Self {
        Self {
            receive: false,
            slot: "oxpecker".to_owned(),
            unlimited_slot: false,
            flush_every: None,
            max_behind: HumanDuration::from_secs(60),
            canary: None,
            canary_database: "postgres".to_owned(),
        }
    }
}

impl Wal {
    /// The shortest time between two rows of the canary: more often would be a load.
    pub const CANARY_LEAST: Duration = Duration::from_millis(500);
    /// The shortest wait for a flush: a disk takes some milliseconds for each.
    pub const FLUSH_LEAST: Duration = Duration::from_millis(50);

    /// How long bytes may wait in a repository with this address.
    #[must_use]
    pub fn flush_interval(&self, repository: Option<&str>) -> Duration {
        let by_kind = if is_billed(repository) { FLUSH_OBJECT_STORE } else { FLUSH_LOCAL };
        self.flush_every.map_or(by_kind, |every| every.0)
    }

    /// What receiving costs, where each write is billed.
    #[must_use]
    pub fn price(&self, repository: Option<&str>) -> Option<String> {
        if !self.receive || !is_billed(repository) {
            return None;
        }
        let interval = self.flush_interval(repository);
        let puts = wal::receive::puts_a_month(interval);
        let dollars = puts as f64 * DOLLARS_PER_PUT;
        Some(format!(
            "wal.flush_every {}: at most {puts} writes a month for a server that always writes, about {dollars:.2} $ at 5 $ a million, and one for each segment",
            HumanDuration(interval)
        ))
    }

    /// What can't be used, each by its key, with a hint.
    pub fn problems(&self, repository: Option<&str>) -> Vec<(&'static str, String, &'static str)> {
        let flush = self.flush_interval(repository);
        let mut found = Vec::new();
        let mut problem = |key, what: &str, hint| found.push((key, what.to_owned(), hint));
        if self.receive && repository.is_none() {
            problem(
                "wal.receive",
                "has no repository to write to",
                "name one: [repository] url = \"file:///srv/backup\"",
            );
        }
        if let Err(error) = self.slot.parse::<pg_replication::SlotName>() {
            problem("wal.slot", &error.to_string(), "lower-case letters, digits and underscores, up to 63");
        }
        if flush < Self::FLUSH_LEAST {
            problem("wal.flush_every", "too short", "50ms or more; 500ms is the default for a directory");
        }
        if self.max_behind.0 <= flush {
            problem("wal.max_behind", "is not longer than flush_every", "what waits for a flush is behind by so much");
        }
        if self.canary.is_some_and(|every| every.0 < Self::CANARY_LEAST) {
            problem("wal.canary", "too short", "500ms or more; such as 5s");
        }
        if self.canary.is_some() && !self.receive {
            problem("wal.canary", "measures nothing while receive is off", "receive = true");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_is_written_follows_from_what_a_write_costs() {
        let (default, declared) =
            (Wal::default(), Wal { flush_every: Some(HumanDuration::from_secs(2)), ..Wal::default() });
        for (wal, repository, millis) in [
            (&default, None, 500),
            (&default, Some("file:///srv/backup"), 500),
            (&default, Some("s3://bucket/prefix"), 10_000),
            (&declared, Some("s3://bucket/prefix"), 2000),
            (&declared, Some("file:///srv/backup"), 2000),
        ] {
            assert_eq!(wal.flush_interval(repository).as_millis(), millis, "{repository:?}");
        }
    }

    #[test]
    fn a_price_is_said_where_there_is_one() {
        let wal = Wal { receive: true, ..Wal::default() };
        assert_eq!(wal.price(Some("file:///srv/backup")), None);
        assert_eq!(Wal::default().price(Some("s3://bucket")), None);
        let price = wal.price(Some("s3://bucket")).unwrap();
        assert!(price.contains("259200 writes a month") && price.contains("about 1.30 $"), "{price}");
    }
}
