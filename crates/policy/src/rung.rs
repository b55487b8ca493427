//! The rungs, and what is done on each.

use std::fmt;

use model::{DatabaseName, ProcessId, ServiceName, TableName};
use serde::{Deserialize, Serialize};

/// A rung of the ladder. Their order is the order in which they are climbed: each hurts more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The governor holds vacuums. Vacuum ends later.
    ThrottleVacuum,
    /// Backups, proofs and whatever else this program does beside watching stand back. The next backup comes later.
    PauseOwnWork,
    /// One vacuum is ended. Its work on indexes is lost.
    CancelVacuum,
    /// The services that are marked with this number are stopped. Their users notice.
    StopServices(u32),
    /// PostgreSQL is stopped cleanly, so that the host survives. Everybody notices.
    StopPostgres,
}

impl Rung {
    /// Whether it stays in force until it is given back. Ending a vacuum is done once, and can't be taken back.
    pub fn stays(self) -> bool {
        self != Self::CancelVacuum
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThrottleVacuum => f.write_str("throttle vacuum"),
            Self::PauseOwnWork => f.write_str("pause own work"),
            Self::CancelVacuum => f.write_str("cancel a vacuum"),
            Self::StopServices(shed) => write!(f, "stop services (shed = {shed})"),
            Self::StopPostgres => f.write_str("stop PostgreSQL"),
        }
    }
}

/// What the executor has to do. Every act is idempotent, and its precondition is looked up again just before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Ask the governor to hold vacuums; whom and how hard is for it to say.
    HoldVacuum,
    /// Ask it no longer. What it holds by its own decision it goes on holding.
    ReleaseVacuum,
    /// Tell the workers to stand back.
    PauseOwnWork,
    /// Tell them to go on.
    ResumeOwnWork,
    /// End this worker (terminate: a worker that is only cancelled goes on with its next table).
    CancelVacuum {
        /// The worker.
        process: ProcessId,
        /// Its database.
        database: DatabaseName,
        /// Its table.
        table: TableName,
    },
    /// Stop these, those first that others of them need last.
    StopServices {
        /// Which, by name.
        services: Vec<ServiceName>,
    },
    /// Start these again in the order of the service graph, once what they need is stable.
    StartServices {
        /// Which, by name.
        services: Vec<ServiceName>,
    },
    /// A clean stop (a checkpoint, then `fast`), never `immediate`.
    StopPostgres,
    /// Start it again and wait until it serves.
    StartPostgres,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HoldVacuum => f.write_str("hold vacuums"),
            Self::ReleaseVacuum => f.write_str("let vacuums go"),
            Self::PauseOwnWork => f.write_str("pause own work"),
            Self::ResumeOwnWork => f.write_str("resume own work"),
            Self::CancelVacuum { process, database, table } => {
                write!(f, "end the vacuum of {database}.{table} (pid {})", process.pid)
            }
            Self::StopServices { services } => write!(f, "stop {}", names(services)),
            Self::StartServices { services } => write!(f, "start {} again", names(services)),
            Self::StopPostgres => f.write_str("stop PostgreSQL cleanly"),
            Self::StartPostgres => f.write_str("start PostgreSQL again"),
        }
    }
}

fn names(services: &[ServiceName]) -> String {
    services.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")
}
