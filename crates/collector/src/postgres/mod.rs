//! PostgreSQL, over one connection that is opened early and kept.
//!
//! [`PgObserver::run`] turns the server into observations: whether it serves us and why not, sessions and vacuums every second,
//! WAL every ten, ages and dead tuples every minute. The same connection serves the governor (see [`PgObserver::session`]): on a
//! host out of connections, memory or processes there may be no second one.

mod activity;
mod cost;
mod failure;
mod locks;
mod observer;
mod pace;
mod row;
mod session;
mod sql;
mod state_file;
mod tables;
mod vacuums;
mod wal;
mod worker_line;

use std::time::Duration;

pub use observer::{ObserverConfigError, PgObserver, PgOptions};
pub use pace::{MAX_INTERVAL, OWN_SHARE};
pub use session::{ServerInfo, Session};
pub use sql::{MAX_DATABASES, MAX_ROLES, MAX_SLOTS, MAX_TABLES, MAX_VACUUMS, MAX_WAITERS};

/// The name under which we appear in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "oxpecker";
/// A connection attempt that takes longer counts as no answer and is given up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that takes longer means that the server does not answer. We still wait for it, on the same connection: a starved
/// server is not helped by a new one.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The server itself ends a statement of ours that takes longer.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(12);
/// An answer that takes longer is given up, and the connection with it: the server can't even end our statement.
pub const GIVE_UP: Duration = Duration::from_secs(15);
