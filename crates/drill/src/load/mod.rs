//! The users: arrivals that do not wait for answers, and what became of each.

pub(crate) mod process;
mod schedule;
mod tally;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use schedule::{Arrival, schedule};
pub(crate) use tally::{Cell, Latencies, Tally};

/// How long a user waits before giving up; ordinary, the same in every act.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Requests that wait for an answer at the same time; one that comes on top is a failure ([`crate::Failure::NotSent`]).
pub(crate) const MAX_IN_FLIGHT: usize = 4_096;
/// The share of requests that each service gets, in percent.
pub(crate) const MIX: [(Target, u32); 3] = [(Target::Site, 50), (Target::Bot, 30), (Target::Gate, 20)];

/// Whom a user asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The site, which asks PostgreSQL.
    Site,
    /// The bot, which asks the site.
    Bot,
    /// The entry gate, which asks both.
    Gate,
}

impl Target {
    /// All services, in the order of their layers.
    pub const ALL: [Self; 3] = [Self::Site, Self::Bot, Self::Gate];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Bot => "bot",
            Self::Gate => "gate",
        }
    }
}

/// Where the services listen, on 127.0.0.1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) site: u16,
    pub(crate) bot: u16,
    pub(crate) gate: u16,
}

/// What a load process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LoadSpec {
    /// The core to stay on.
    pub(crate) core: Option<usize>,
    pub(crate) ports: Ports,
    pub(crate) seed: u64,
    /// Member ids are odd and below this.
    pub(crate) members: u32,
    pub(crate) work: Work,
}

/// The two kinds of load.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// So many users, each asking again as soon as it has its answer: finds the capacity.
    Closed { users: usize, warm_up: Duration, measured: Duration },
    /// Arrivals of a Poisson process that do not wait for answers.
    Open { rate_per_s: f64, length: Duration },
}

/// What a load process says, one per line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// It began.
    Started { boot_us: u64 },
    /// The second that went by, for the eyes.
    Second { answered: u64, failed: u64, p99_ms: f64, in_flight: usize },
    /// The closed loop's answer.
    Capacity { per_s: f64, failed: u64 },
    /// The open loop's answer.
    Done { cells: Vec<Cell> },
}
