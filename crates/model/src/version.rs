//! Versions of PostgreSQL.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A server's version as `server_version_num` has it: 150018 is 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PgVersion(pub u32);

/// What a version of PostgreSQL gets from this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Support {
    /// 13 to 18: everything, tested.
    Full,
    /// 10 to 12: host readings, connections, locks, alerts and incidents; no governor, for its levers are untested there.
    ObserveOnly,
    /// Newer than what was tested: treated as the newest tested one, and said so.
    Untested,
    /// Older than 10: refused.
    None,
}

impl PgVersion {
    /// The oldest major version that gets everything.
    pub const OLDEST_FULL: u32 = 13;
    /// The newest major version that this program was tested with.
    pub const NEWEST_TESTED: u32 = 18;
    /// The oldest major version that can be observed.
    pub const OLDEST_OBSERVED: u32 = 10;

    /// The major version: 15 of 15.18.
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// What this version gets from this program.
    pub const fn support(self) -> Support {
        match self.major() {
            major if major < Self::OLDEST_OBSERVED => Support::None,
            major if major < Self::OLDEST_FULL => Support::ObserveOnly,
            major if major <= Self::NEWEST_TESTED => Support::Full,
            _ => Support::Untested,
        }
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_say_what_they_get() {
        for (number, text, support) in [
            (90_624, "9.624", Support::None),
            (100_023, "10.23", Support::ObserveOnly),
            (120_022, "12.22", Support::ObserveOnly),
            (130_023, "13.23", Support::Full),
            (180_004, "18.4", Support::Full),
            (190_000, "19.0", Support::Untested),
        ] {
            let version = PgVersion(number);
            assert_eq!((version.to_string().as_str(), version.support()), (text, support));
        }
    }
}
