//! Reading the journal from any process: while the guard writes it, after the guard was killed, and from a copy.
//!
//! Each call is one short read transaction, in which rows are only copied, not parsed: a reader keeps the write-ahead log from being
//! folded into the file.
//!
//! SQLite reads a write-ahead log through a shared memory file beside it, which the first one to open the journal has to create, and
//! rebuild after a crash. Where this process can't create it (a read-only directory), there are two cases: no log is there, then the
//! file alone is complete and is read as it is (`immutable`); or a log is there without shared memory, then SQLite builds the index
//! in private memory.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use model::{ByteSize, Event, EventId, EventKind, Moment, Reading};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, types::Value};

use crate::{JournalError, body, format};

/// What one call returns at most, however much was asked for.
pub const MOST_ROWS: usize = 100_000;

/// Which events. The default is the oldest thousand of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Not before, by the wall clock.
    pub since: Option<Timestamp>,
    /// Before, by the wall clock.
    pub until: Option<Timestamp>,
    /// Only later numbers: [`Events::last`] of the page before.
    pub after: Option<EventId>,
    /// Only these kinds ([`EventKind::name`]); all where empty.
    pub kinds: Vec<String>,
    /// At most so many, and never more than [`MOST_ROWS`].
    pub limit: usize,
    /// Where there are more than `limit`: the newest of them, not the oldest.
    pub newest: bool,
}

impl Default for EventQuery {
    fn default() -> Self {
        Self { since: None, until: None, after: None, kinds: Vec::new(), limit: 1000, newest: false }
    }
}

/// Which readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingQuery {
    /// The kind ([`Reading::kind`]).
    pub kind: String,
    /// Not before, by the wall clock.
    pub since: Option<Timestamp>,
    /// Before, by the wall clock.
    pub until: Option<Timestamp>,
    /// At most so many, and never more than [`MOST_ROWS`].
    pub limit: usize,
    /// Where there are more than `limit`: the newest of them, not the oldest.
    pub newest: bool,
}

impl ReadingQuery {
    /// The newest `limit` readings of a kind.
    pub fn newest(kind: &str, limit: usize) -> Self {
        Self { kind: kind.to_owned(), since: None, until: None, limit, newest: true }
    }

    /// The oldest `limit` readings of a kind between two instants of the wall clock.
    pub fn between(kind: &str, since: Timestamp, until: Timestamp, limit: usize) -> Self {
        Self { kind: kind.to_owned(), since: Some(since), until: Some(until), limit, newest: false }
    }
}

/// Events in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// The events.
    pub events: Vec<Event>,
    /// How many more matched that this version can't read: a newer version wrote them.
    pub skipped: u64,
    /// The newest number looked at, also where it was skipped; `None` where nothing matched.
    pub last: Option<EventId>,
}

/// Readings in the order in which they were recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// The readings.
    pub readings: Vec<Reading>,
    /// How many more matched that this version can't read.
    pub skipped: u64,
}

/// How much a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalSize {
    /// Its file.
    pub file: ByteSize,
    /// Its write-ahead log.
    pub log: ByteSize,
    /// Events.
    pub events: u64,
    /// Readings.
    pub readings: u64,
    /// When the oldest event happened, by the wall clock.
    pub oldest_event: Option<Timestamp>,
    /// When the oldest reading was taken, by the wall clock.
    pub oldest_reading: Option<Timestamp>,
}

/// A journal, open for reading. Not shared between threads: open one for each, they are cheap.
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    /// Whether the file is read as if nobody could write it.
    immutable: bool,
}

impl Reader {
    /// Opens the journal of a state directory; a guard may be running there or not.
    ///
    /// # Errors
    /// When there is none, or it is of another format, damaged, not ours or out of reach.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let path = format::path_in(dir);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(JournalError::Missing { path }),
            Err(source) => return Err(JournalError::Io { doing: "read", path, source }),
        }
        match Self::connect(&path, false) {
            Err(JournalError::Sqlite { source, .. })
                if matches!(source.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                    && format::size_of(&format::log_of(&path)) == 0 =>
            {
                Self::connect(&path, true)
            }
            other => other,
        }
    }

    fn connect(path: &Path, immutable: bool) -> Result<Self, JournalError> {
        let sqlite = |source| JournalError::sqlite("open", path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if immutable {
            Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)
        } else {
            Connection::open_with_flags(path, flags)
        };
        let connection = connection.map_err(sqlite)?;
        connection.busy_timeout(format::BUSY_TIMEOUT).map_err(sqlite)?;
        match format::recognise(&connection, path)? {
            Some(found) if found > format::FORMAT => {
                return Err(JournalError::NewerFormat { path: path.to_owned(), found, known: format::FORMAT });
            }
            Some(found) if found < format::FORMAT => {
                return Err(JournalError::OlderFormat { path: path.to_owned(), found, known: format::FORMAT });
            }
            Some(_) => {}
            // A guard is just creating it.
            None => return Err(JournalError::Missing { path: path.to_owned() }),
        }
        format::small(&connection).map_err(sqlite)?;
        Ok(Self { connection, path: path.to_owned(), immutable })
    }

    /// A file that was read as unchangeable must be looked at anew once somebody writes it.
    fn refresh(&mut self) -> Result<(), JournalError> {
        if self.immutable && format::size_of(&format::log_of(&self.path)) > 0 {
            *self = Self::connect(&self.path, false)?;
        }
        Ok(())
    }

    /// Events that match, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn events(&mut self, query: &EventQuery) -> Result<Events, JournalError> {
        self.refresh()?;
        let mut filter = Filter::default();
        filter.wall(query.since, query.until);
        filter.add(query.after.map(|after| after.0.into()), "id > ?");
        if !query.kinds.is_empty() {
            let kinds = serde_json::to_string(&query.kinds).unwrap_or_default();
            filter.add(Some(kinds.into()), "kind IN (SELECT value FROM json_each(?))");
        }
        let sql = filter.sql("events", query.limit, query.newest);
        let mut found = Events::default();
        for stored in self.rows(&sql, &filter.values, StoredEvent::read)? {
            found.last = Some(stored.id);
            match stored.parse() {
                Ok(event) => found.events.push(event),
                Err(_) => found.skipped += 1,
            }
        }
        Ok(found)
    }

    /// One event.
    ///
    /// # Errors
    /// When there is none of this number, when this version can't read it, or when the store can't be read.
    pub fn event(&mut self, id: EventId) -> Result<Event, JournalError> {
        self.refresh()?;
        let sql = "SELECT id, at_wall_us, boot_us, kind, body FROM events WHERE id = ?1";
        let stored = self.connection.query_row(sql, [id.0], StoredEvent::read).optional();
        let stored = stored.map_err(|source| JournalError::sqlite("read", &self.path, source))?;
        let stored = stored.ok_or_else(|| JournalError::NoSuchEvent { id, path: self.path.clone() })?;
        let kind = stored.kind.clone();
        stored.parse().map_err(|source| JournalError::UnreadableEvent { id, kind, source })
    }

    /// The newest event of a kind ([`EventKind::name`]) that this version can read.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn latest_event(&mut self, kind: &str) -> Result<Option<Event>, JournalError> {
        let query = EventQuery { kinds: vec![kind.to_owned()], limit: 1, newest: true, ..EventQuery::default() };
        Ok(self.events(&query)?.events.pop())
    }

    /// Readings that match, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn readings(&mut self, query: &ReadingQuery) -> Result<Readings, JournalError> {
        self.refresh()?;
        let mut filter = Filter::default();
        filter.add(Some(query.kind.clone().into()), "kind = ?");
        filter.wall(query.since, query.until);
        let sql = filter.sql("readings", query.limit, query.newest);
        let mut found = Readings::default();
        for stored in self.rows(&sql, &filter.values, |row| row.get::<_, Vec<u8>>(4))? {
            let json = body::unpack(&stored);
            match json.and_then(|json| serde_json::from_slice(&json).ok()) {
                Some(reading) => found.readings.push(reading),
                None => found.skipped += 1,
            }
        }
        Ok(found)
    }

    /// The newest reading of a kind ([`Reading::kind`]).
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn latest_reading(&mut self, kind: &str) -> Result<Option<Reading>, JournalError> {
        Ok(self.readings(&ReadingQuery::newest(kind, 1))?.readings.pop())
    }

    /// How much the journal holds.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn size(&mut self) -> Result<JournalSize, JournalError> {
        self.refresh()?;
        let mut sides = [(0, None), (0, None)];
        for (side, table) in sides.iter_mut().zip(["events", "readings"]) {
            // Numbers have no gaps, so nothing has to be counted.
            let sql = format!(
                "SELECT coalesce(max(id) - min(id) + 1, 0), (SELECT at_wall_us FROM {table} ORDER BY id LIMIT 1) FROM {table}"
            );
            let counted = self.rows(&sql, &[], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, Option<i64>>(1)?.map(timestamp)))
            })?;
            *side = counted.first().copied().unwrap_or_default();
        }
        let [(events, oldest_event), (readings, oldest_reading)] = sides;
        Ok(JournalSize {
            file: ByteSize(format::size_of(&self.path)),
            log: ByteSize(format::size_of(&format::log_of(&self.path))),
            events,
            readings,
            oldest_event,
            oldest_reading,
        })
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: &[Value],
        copy: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, JournalError> {
        let run = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(rusqlite::params_from_iter(values), copy)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        run().map_err(|source| JournalError::sqlite("read", &self.path, source))
    }
}

struct StoredEvent {
    id: EventId,
    at: Moment,
    kind: String,
    body: String,
}

impl StoredEvent {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let at = Moment { wall: timestamp(row.get(1)?), boot_us: row.get::<_, i64>(2)?.unsigned_abs() };
        Ok(Self { id: EventId(row.get(0)?), at, kind: row.get(3)?, body: row.get(4)? })
    }

    fn parse(self) -> serde_json::Result<Event> {
        let kind: EventKind = serde_json::from_str(&self.body)?;
        Ok(Event { id: self.id, at: self.at, kind })
    }
}

fn timestamp(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Conditions and their values, in step.
#[derive(Default)]
struct Filter {
    conditions: String,
    values: Vec<Value>,
}

impl Filter {
    fn add(&mut self, value: Option<Value>, condition: &str) {
        if let Some(value) = value {
            self.conditions += if self.values.is_empty() { " WHERE " } else { " AND " };
            self.conditions += condition;
            self.values.push(value);
        }
    }

    fn wall(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        self.add(since.map(|since| since.as_microsecond().into()), "at_wall_us >= ?");
        self.add(until.map(|until| until.as_microsecond().into()), "at_wall_us < ?");
    }

    /// The rows are chosen by their numbers alone, from an index, before their bodies are read.
    fn sql(&self, table: &str, limit: usize, newest: bool) -> String {
        let order = if newest { "DESC" } else { "ASC" };
        let limit = limit.min(MOST_ROWS);
        format!(
            "SELECT id, at_wall_us, boot_us, kind, body FROM {table} WHERE id IN (SELECT id FROM {table}{} ORDER BY id {order} \
             LIMIT {limit}) ORDER BY id",
            self.conditions
        )
    }
}

/// `file:/path?immutable=1` with whatever is special in a URI escaped (RFC 3986).
fn immutable_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(char::from(*byte)),
            // Writing to a String can't fail.
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_the_same_file_whatever_its_name() {
        let path = Path::new("/var/a b/50%?x=1#ü/journal.sqlite");
        assert_eq!(immutable_uri(path), "file:/var/a%20b/50%25%3Fx%3D1%23%C3%BC/journal.sqlite?immutable=1");
    }

    #[test]
    fn conditions_and_values_stay_in_step() {
        let mut filter = Filter::default();
        assert!(!filter.sql("events", 5, true).contains(" WHERE at"));
        filter.wall(None, Some(Timestamp::UNIX_EPOCH));
        filter.add(Some(7.into()), "id > ?");
        assert_eq!(filter.conditions, " WHERE at_wall_us < ? AND id > ?");
        assert_eq!(filter.conditions.matches('?').count(), filter.values.len());
        assert!(filter.sql("events", usize::MAX, false).contains("LIMIT 100000"));
    }
}
