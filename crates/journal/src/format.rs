//! The file: its tables, its pragmas and how an older one becomes a current one. The crate's documentation is the contract.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{JournalError, Retention};

/// The journal's file in the state directory.
pub const FILE_NAME: &str = "journal.sqlite";
/// `application_id` in the file's header: "Oxpk".
pub const APPLICATION_ID: i64 = 0x4F78_706B;
/// The format that this version writes: `user_version` in the file's header.
pub const FORMAT: i64 = 1 + MIGRATIONS.len() as i64;

/// Bytes of a page; SQLite's default, and the file system's.
pub(crate) const PAGE_SIZE: u64 = 4096;
/// Pages in the write-ahead log that start a checkpoint: 1 MiB, a quarter of SQLite's default, to keep disk and cache small.
const CHECKPOINT_PAGES: u32 = 256;
/// Page cache of a connection in KiB. Each query touches few pages; the guard's memory matters more.
const CACHE_KIB: i64 = 512;
/// How long a connection waits for a lock of another: a reader recovers the write-ahead log after a crash in far less.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Format 1. Never edited: a change of the format is a migration.
const FORMAT_1: &str = "
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_wall_us INTEGER NOT NULL,
    boot_us    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_wall ON events (at_wall_us);
CREATE TABLE readings (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_wall_us INTEGER NOT NULL,
    boot_us    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    body       BLOB    NOT NULL
) STRICT;
CREATE INDEX readings_kind ON readings (kind, at_wall_us);
CREATE TABLE ticks (
    id           INTEGER PRIMARY KEY,
    age_us       INTEGER NOT NULL,
    wall_us      INTEGER NOT NULL,
    boot_us      INTEGER NOT NULL,
    boot_id      TEXT    NOT NULL,
    last_event   INTEGER NOT NULL,
    last_reading INTEGER NOT NULL
) STRICT;
CREATE INDEX ticks_age ON ticks (age_us);
";

/// What turns format `n` into format `n + 1`, the first one for `n` = 1. All that are needed run in one transaction.
pub(crate) const MIGRATIONS: &[&str] = &[];

/// The journal's file below a state directory.
pub(crate) fn path_in(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// The write-ahead log beside a journal.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Opens the journal for the writer: created, or migrated, or refused before anything was changed.
pub(crate) fn open_writer(path: &Path, retention: &Retention, migrations: &[&str]) -> Result<Connection, JournalError> {
    let sqlite = |doing: &'static str| move |source| JournalError::sqlite(doing, path, source);
    // SQLite would create it readable by all; the log and the shared memory take over its mode.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|source| JournalError::Io { doing: "create", path: path.to_owned(), source })?;

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite("open"))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite("open"))?;

    let found = recognise(&connection, path)?;
    let known = 1 + migrations.len() as i64;
    if found.is_some_and(|found| found > known) {
        return Err(JournalError::NewerFormat { path: path.to_owned(), found: found.unwrap_or_default(), known });
    }
    let set_up = |connection: &mut Connection| {
        // These two take effect only in a file without a page, and are without harm in others.
        connection.pragma_update(None, "page_size", PAGE_SIZE as i64)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
        // Each answers with the value that it then has.
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
        let log_limit = i64::from(CHECKPOINT_PAGES) * PAGE_SIZE as i64;
        connection.pragma_update_and_check(None, "journal_size_limit", log_limit, |_| Ok(()))?;
        connection.pragma_update_and_check(None, "max_page_count", max_pages(retention) as i64, |_| Ok(()))?;
        small(connection)
    };
    set_up(&mut connection).map_err(sqlite("set up"))?;
    if found != Some(known) {
        upgrade(&mut connection, found, migrations).map_err(sqlite("create or migrate"))?;
    }
    if found.is_none() {
        // The directory must know the file as surely as the file knows its events.
        let dir = path.parent().unwrap_or(Path::new("."));
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| JournalError::Io { doing: "sync", path: dir.to_owned(), source })?;
    }
    Ok(connection)
}

/// Pages that the file may have: the bound without what the log may take.
pub(crate) fn max_pages(retention: &Retention) -> u64 {
    (retention.max_size.0.saturating_sub(Retention::LOG_RESERVE.0)) / PAGE_SIZE
}

/// Settings that keep any connection small.
pub(crate) fn small(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).or_else(|error| match error {
        // Where SQLite was built without it, there is no answer.
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    })
}

/// The format of the file; `None` for one that is still empty.
pub(crate) fn recognise(connection: &Connection, path: &Path) -> Result<Option<i64>, JournalError> {
    let sqlite = |source| JournalError::sqlite("read", path, source);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION_ID {
        return Ok(Some(format));
    }
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    if (application, format, objects) == (0, 0, 0) {
        return Ok(None);
    }
    Err(JournalError::NotAJournal { path: path.to_owned() })
}

/// Creates the tables and migrates them in one transaction: a kill leaves the old format or the new one, whole.
fn upgrade(connection: &mut Connection, found: Option<i64>, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = match found {
        None => {
            transaction.execute_batch(FORMAT_1)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            0
        }
        Some(format) => usize::try_from(format - 1).unwrap_or(0),
    };
    for migration in &migrations[done.min(migrations.len())..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", 1 + migrations.len() as i64)?;
    transaction.commit()
}

/// Size of a file; zero where it is not there.
pub(crate) fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDER: &str = "ALTER TABLE events ADD COLUMN origin TEXT; INSERT INTO events (at_wall_us, boot_us, kind, body) VALUES (1, 2, 'noted', '{}')";
    const BROKEN: &str = "DROP TABLE ticks; SELECT no_such_function()";

    fn format_of(path: &Path) -> (i64, i64) {
        let connection = Connection::open(path).unwrap();
        let events = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
        (recognise(&connection, path).unwrap().unwrap(), events)
    }

    #[test]
    fn a_new_file_has_what_the_documentation_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let connection = open_writer(&path, &Retention::default(), MIGRATIONS).unwrap();
        for (pragma, value) in [
            ("application_id", APPLICATION_ID),
            ("user_version", FORMAT),
            ("auto_vacuum", 2),
            ("synchronous", 2),
            ("page_size", 4096),
            ("wal_autocheckpoint", 256),
            ("journal_size_limit", 1 << 20),
            ("max_page_count", (254 << 20) / 4096),
        ] {
            let found: i64 = connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
            assert_eq!(found, value, "{pragma}");
        }
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        use std::os::unix::fs::PermissionsExt;
        for file in [path.clone(), log_of(&path)] {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_migration_is_done_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let retention = Retention::default();
        drop(open_writer(&path, &retention, &[]).unwrap());
        assert_eq!(format_of(&path), (1, 0));

        let failed = open_writer(&path, &retention, &[WIDER, BROKEN]).unwrap_err();
        assert!(failed.to_string().contains("migrate"), "{failed}");
        assert_eq!(format_of(&path), (1, 0), "a migration that fails leaves the old format, whole");

        drop(open_writer(&path, &retention, &[WIDER]).unwrap());
        assert_eq!(format_of(&path), (2, 1));
        drop(open_writer(&path, &retention, &[WIDER]).unwrap());
        assert_eq!(format_of(&path), (2, 1), "it is not done twice");
        drop(open_writer(&path, &retention, &[WIDER, "CREATE TABLE later (id INTEGER)"]).unwrap());
        assert_eq!(format_of(&path), (3, 1), "only what is missing is done");
    }

    #[test]
    fn what_is_not_ours_or_not_yet_known_is_refused_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let make = |sql: &str| {
            let _ = fs::remove_file(&path);
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        };
        let refusal = || {
            let before = fs::read(&path).unwrap();
            let error = open_writer(&path, &Retention::default(), MIGRATIONS).unwrap_err().to_string();
            assert_eq!(fs::read(&path).unwrap(), before, "a refused file stays as it was");
            assert!(error.contains("hint: "), "{error}");
            error
        };
        make("CREATE TABLE passwords (id INTEGER)");
        assert!(refusal().contains("is not a journal of oxpecker"));
        make("PRAGMA application_id = 5");
        assert!(refusal().contains("is not a journal of oxpecker"));
        make(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}; CREATE TABLE x (y)",
            FORMAT + 1
        ));
        let newer = refusal();
        assert!(newer.contains(&format!("format {}, newer than the {FORMAT}", FORMAT + 1)), "{newer}");
        fs::write(&path, "no database at all, but long enough to have a header ".repeat(100)).unwrap();
        assert!(refusal().contains("is damaged"));
    }
}
