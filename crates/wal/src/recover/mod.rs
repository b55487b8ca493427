//! Back to a moment: where a recovery begins, which way it takes, and whether it gets there.
//!
//! ```text
//! target   what is wanted                                       (pure)
//! road     from a backup along timelines, as far as there is WAL (pure)
//! stock    what WAL the repository has, by a listing
//! scan     records along a road: commits with their times, restore points
//! plan     the backup, the road and the settings for a target
//! ```
//!
//! PostgreSQL finds out that a target can't be reached when it has replayed everything, or goes past it; so it is found out here, before
//! anything is restored.

mod plan;
mod road;
mod scan;
mod stock;
mod target;

pub use plan::{Base, Plan, PlanError, Reachable, plan, reachable};
pub use road::{Leg, NoRoad, Road, TimelineChoice, road};
pub use scan::{End, Found, ScanError};
pub use stock::Stock;
pub use target::{Action, BadTarget, Target, parse_time};
