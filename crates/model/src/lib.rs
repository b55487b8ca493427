//! The vocabulary that all parts of oxpecker share: identities, units, time, readings, events and alerts.
//!
//! Invariant: this crate depends on no other crate of ours, does no I/O and reads no clock. Everything here is plain data
//! that can be serialised, compared and printed; whoever holds a value of it holds all that it means.

pub mod alert;
pub mod event;
pub mod id;
pub mod lsn;
pub mod mode;
pub mod observation;
pub mod reading;
pub mod time;
pub mod units;
pub mod version;

pub use alert::{Alert, AlertKey, AlertState, RuleId};
pub use event::{Event, EventId, EventKind};
pub use id::{
    DatabaseName, NAME_MAX, Oid, Pid, ProcessId, ServiceName, TableName, as_configured_name, is_configured_name,
};
pub use lsn::Lsn;
pub use mode::{Mode, Severity};
pub use observation::Observation;
pub use reading::Reading;
pub use time::Moment;
pub use units::{ByteSize, Cores, Share};
pub use version::PgVersion;
