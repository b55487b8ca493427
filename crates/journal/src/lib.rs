//! The journal: events and readings in one bounded SQLite file that is written by the guard and read by everybody else.
//!
//! # Invariants
//! - An event whose [`Ticket`] says so is on the disk and survives `kill -9` and the loss of power. Events get consecutive numbers in the
//!   order in which they were appended.
//! - Nobody who appends ever waits for the disk, and nothing is dropped without being counted: what was lost is recorded as
//!   `recording_failed` as soon as recording works again.
//! - One guard per state directory ([`StateDir`]) and one writer per guard (a thread that owns the connection); any number of readers
//!   in other processes ([`Reader`]), while it is written and after a crash.
//! - Files, memory and each transaction are bounded.
//!
//! # The file
//! `journal.sqlite` in the state directory (mode 0600), an SQLite 3 database with `application_id` 0x4F78706B ("Oxpk") and the format's number as
//! `user_version`. Pages of 4096 bytes, `auto_vacuum = incremental`, write-ahead log (`journal.sqlite-wal`, `-shm`). All three files
//! belong together: copy them together, or better use `VACUUM INTO`.
//!
//! | table | column | meaning |
//! |---|---|---|
//! | `events` | `id` | the event's number: `E17` is 17. AUTOINCREMENT: never reused, without gaps but for what retention deleted at the beginning |
//! | | `at_wall_us` | when it happened: microseconds since 1970 UTC by the wall clock |
//! | | `boot_us` | the same instant in microseconds since the host booted (`CLOCK_BOOTTIME`) |
//! | | `kind` | `model::EventKind::name`, such as `throttle_engaged` |
//! | | `body` | the event as JSON, with its kind as member `event` |
//! | `readings` | `id`, `at_wall_us`, `boot_us` | as for events |
//! | | `kind` | `host`, `activity`, `wal`, `tables` or `service` |
//! | | `body` | `model::Reading` as JSON, with its kind as member `reading`, in a zlib stream (RFC 1950) |
//! | `ticks` | `age_us` | notes of the journal's own clock, about hourly: how old the journal is, see below |
//! | | `wall_us`, `boot_us`, `boot_id` | the instant of the note on both clocks, and which boot it was |
//! | | `last_event`, `last_reading` | the newest entries at that instant |
//!
//! Indexes: `events (kind)`, `events (at_wall_us)`, `readings (kind, at_wall_us)`, `ticks (age_us)`. Instants are kept to the microsecond.
//!
//! Events are committed in groups with `synchronous = FULL`: one fsync for all that waited. Readings are collected for
//! [`JournalOptions::reading_interval`] and committed with `synchronous = NORMAL`: they survive `kill -9`, and a loss of power costs at
//! most those since the last event or checkpoint. A checkpoint comes each 1 MiB of log (`wal_autocheckpoint` 256, `journal_size_limit` 1 MiB).
//! Each connection has a page cache of 512 KiB and no memory map; `temp_store` is memory, `busy_timeout` two seconds.
//!
//! # Other versions
//! A writer migrates an older format in one transaction. A newer format is refused, unchanged. Within a format, kinds and members may be
//! added: a reader skips the entries that it can't read and says how many.
//!
//! # Retention
//! Ages count on the journal's own clock, never on the wall clock, so that a stepped clock deletes nothing: it moves with the boot clock, also
//! while no guard runs; over a reboot with the wall clock, but by at most six hours. Entries go in the order of their numbers, at most 256
//! in a transaction. What is older than [`Retention::readings`] or [`Retention::events`] goes within a tick (an hour, or an eighth of the
//! shorter retention). Towards [`Retention::max_size`], of which 2 MiB are for the log, the oldest readings go first, then the oldest events, and
//! those of the last seven days only when nothing else is left, which is recorded as `history_cut`.
//!
//! # When the store fails
//! The writer tries again (0.25 s, doubled up to 5 s) for as long as it takes, opening the file anew after anything but a lack of space or a lock. Meanwhile
//! events and readings wait in a backlog of [`JournalOptions::backlog`]; when it is full the oldest readings go, then new events are refused.
//! Where there is no space for events, the oldest stored readings are given up and their pages used; on a file system without a single free block that
//! may fail as well, for the log needs some to grow.

mod age;
mod body;
mod clock;
mod error;
mod format;
mod handle;
mod health;
mod options;
mod prune;
mod queue;
mod reader;
mod state_dir;
mod store;
#[cfg(test)]
mod tests;
mod ticket;
mod writer;

pub use error::{AppendError, JournalError};
pub use format::{APPLICATION_ID, FILE_NAME, FORMAT};
pub use handle::Journal;
pub use health::{JournalHealth, Lost, Recording};
pub use options::{JournalOptions, Retention};
pub use reader::{EventQuery, Events, JournalSize, MOST_ROWS, Reader, ReadingQuery, Readings};
pub use state_dir::{Holder, LOCK_FILE_NAME, StateDir, StateDirError};
pub use ticket::Ticket;

pub(crate) use handle::event_row;
