//! The writer's connection: batches in, one transaction each.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::{ByteSize, EventId};
use rusqlite::{Connection, Transaction, TransactionBehavior, types::ToSqlOutput};

use crate::{JournalError, Retention, body, format, queue::Row};

/// The journal, open for writing. At most one per state directory: whoever opens it holds the directory's lock.
pub(crate) struct Store {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) retention: Retention,
    /// The newest event that is surely there.
    last_event: i64,
    /// Whether commits are synced at present.
    synced: bool,
    /// Device and inode of the file that is open.
    identity: Option<(u64, u64)>,
}

/// How long a reader is waited for when the log is at its bound: events wait meanwhile, too.
const LOG_PATIENCE: Duration = Duration::from_millis(100);
const INSERT_EVENT: &str = "INSERT INTO events (at_wall_us, boot_us, kind, body) VALUES (?1, ?2, ?3, ?4)";
const INSERT_READING: &str = "INSERT INTO readings (at_wall_us, boot_us, kind, body) VALUES (?1, ?2, ?3, ?4)";

impl Store {
    pub(crate) fn open(path: &Path, retention: Retention) -> Result<Self, JournalError> {
        let connection = format::open_writer(path, &retention, format::MIGRATIONS)?;
        let identity = identity_of(path);
        let mut store = Self { connection, path: path.to_owned(), retention, last_event: 0, synced: true, identity };
        store.last_event = store.newest_event()?;
        Ok(store)
    }

    /// Wraps SQLite's error.
    pub(crate) fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> JournalError + use<> {
        let path = self.path.clone();
        move |source| JournalError::sqlite(doing, &path, source)
    }

    /// The newest event's number, also after it has been deleted.
    fn newest_event(&self) -> Result<i64, JournalError> {
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(self.failed("read"))
    }

    /// The newest event that was there when this store was opened or last written.
    pub(crate) fn last_event(&self) -> i64 {
        self.last_event
    }

    /// Makes sure that the file is still the one that others find: SQLite would go on writing into one that was deleted.
    pub(crate) fn check_place(&self) -> Result<(), JournalError> {
        if identity_of(&self.path) == self.identity {
            return Ok(());
        }
        Err(JournalError::Removed { path: self.path.clone() })
    }

    /// Stores events in one transaction and one fsync. Returns the number of the first; the others follow without a gap.
    pub(crate) fn write_events<'r>(&mut self, rows: impl Iterator<Item = &'r Row>) -> Result<EventId, JournalError> {
        self.sync_commits(true)?;
        let failed = self.failed("record events in");
        let first = self.last_event + 1;
        let transaction = begin(&mut self.connection).map_err(&failed)?;
        let last = insert(&transaction, INSERT_EVENT, rows, |row| row.body.as_str().into()).map_err(&failed)?;
        let last = last.unwrap_or(self.last_event);
        transaction.commit().map_err(&failed)?;
        self.last_event = last;
        Ok(EventId(first))
    }

    /// Stores readings in one transaction without an fsync of its own: it survives kill -9, and a loss of power loses at most what came
    /// after the last synced commit. A disk that is short of breath is spared a sync every other second.
    pub(crate) fn write_readings(&mut self, rows: &[Row]) -> Result<(), JournalError> {
        self.bound_log()?;
        self.sync_commits(false)?;
        let failed = self.failed("record readings in");
        let transaction = begin(&mut self.connection).map_err(&failed)?;
        insert(&transaction, INSERT_READING, rows.iter(), |row| body::pack(&row.body).into()).map_err(&failed)?;
        transaction.commit().map_err(&failed)
    }

    /// Whether commits are synced (`synchronous = FULL`) or only checkpoints (`NORMAL`).
    pub(crate) fn sync_commits(&mut self, synced: bool) -> Result<(), JournalError> {
        if self.synced != synced {
            let mode = if synced { "full" } else { "normal" };
            self.connection.pragma_update(None, "synchronous", mode).map_err(self.failed("set up"))?;
            self.synced = synced;
        }
        Ok(())
    }

    /// Keeps the write-ahead log within its bound, also against a reader that does not let go: events go on, readings wait.
    fn bound_log(&mut self) -> Result<(), JournalError> {
        let log = format::log_of(&self.path);
        if format::size_of(&log) <= Retention::LOG_RESERVE.0 * 3 / 4 {
            return Ok(());
        }
        let failed = self.failed("checkpoint");
        self.connection.busy_timeout(LOG_PATIENCE).map_err(&failed)?;
        let checkpoint = self.checkpoint("truncate");
        self.connection.busy_timeout(format::BUSY_TIMEOUT).map_err(&failed)?;
        let size = ByteSize(format::size_of(&log));
        if size > Retention::LOG_RESERVE {
            checkpoint.map_err(&failed)?;
            return Err(JournalError::LogHeld { path: self.path.clone(), size });
        }
        // Else there is room for some more attempts.
        Ok(())
    }

    /// Folds the write-ahead log into the file, as far as readers let it.
    pub(crate) fn checkpoint(&self, mode: &str) -> rusqlite::Result<()> {
        self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
    }

    /// Pages of the file, and how many of them are free.
    pub(crate) fn pages(&self) -> Result<(u64, u64), JournalError> {
        let number = |pragma| {
            let pages = self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            pages.map(|pages| pages.unsigned_abs()).map_err(self.failed("read"))
        };
        Ok((number("page_count")?, number("freelist_count")?))
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Begins to write; waits for the lock at once, not in the middle.
pub(crate) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn insert<'r>(
    transaction: &Transaction<'_>,
    sql: &str,
    rows: impl Iterator<Item = &'r Row>,
    stored: impl Fn(&'r Row) -> ToSqlOutput<'r>,
) -> rusqlite::Result<Option<i64>> {
    let mut statement = transaction.prepare_cached(sql)?;
    let mut last = None;
    for row in rows {
        let id = statement.insert((row.wall_us, row.boot_us, row.kind, stored(row)))?;
        debug_assert!(last.is_none_or(|last| id == last + 1), "AUTOINCREMENT counts by one for a single writer");
        last = Some(id);
    }
    Ok(last)
}
