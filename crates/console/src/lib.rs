//! The console: one page that shows what is wrong, why, and what is being done; the same as JSON; figures for Prometheus.
//!
//! A process of its own. It reads the journal, asks the guard what it sees through [`Facts`], and changes nothing: every request that is not
//! a reading is refused. It holds no secret but its own token. Whatever happens to it, the guard does not notice: questions to the guard are
//! asked one at a time, and at most once a second however many look on.
//!
//! * [`access`] (pure): who may read, by address, `Host`, token and declared header.
//! * [`now`]: what the now page shows, as the binary fills it in. [`plain`] makes what others named harmless for a screen.
//! * `past`: incidents from the journal. `pages`: HTML and JSON. `metrics`: the figures. `server`: connections and their bounds.

pub mod access;
mod metrics;
pub mod now;
mod pages;
mod past;
mod plain;
mod server;

pub use access::{Access, AccessError};
pub use now::{Backup, Facts, Figures, Line, Now, State, Unknown};
pub use plain::plain;
pub use server::{Console, ConsoleError};
