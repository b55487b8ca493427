//! The stream. Up to 14 it is a COPY for each archive and one for the manifest; from 15 on a single COPY whose messages have a kind.

use std::ops::Range;

use super::BaseBackupOptions;
use crate::{
    Connection, Entry, Error, WalPosition,
    tar::{Piece, TarReader},
    wire::{Message, parse_row, take_text},
};

const DOING: &str = "BASE_BACKUP";
/// Where the paths of tablespaces begin.
const TABLESPACES: &[u8] = b"pg_tblspc";

/// A tablespace of the cluster, other than those in the data directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it lies on the server.
    pub location: String,
    /// About how many KiB it has; `None` when no estimate was asked for.
    pub size_kib: Option<u64>,
}

/// What comes next in a backup.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file, directory or link begins.
    Entry(Entry),
    /// The next bytes of the file that began last.
    Data(&'a [u8]),
    /// The next bytes of the server's manifest.
    Manifest(&'a [u8]),
    /// How many bytes the server has read so far (from 15 on).
    Progress(u64),
}

/// Where the bytes of the COPY go.
#[derive(Debug)]
enum Sink {
    Nothing,
    /// An archive; of a tablespace, if it has an oid.
    Archive(Option<u32>, TarReader),
    Manifest,
}

/// A base backup that is being received. Dropping it before the end leaves the connection unusable.
#[derive(Debug)]
pub struct BaseBackup<'c> {
    connection: &'c mut Connection,
    start: WalPosition,
    tablespaces: Vec<Tablespace>,
    /// About how many KiB the data directory has.
    main_size_kib: Option<u64>,
    /// The archives in the order of their COPYs, up to 14.
    order: std::vec::IntoIter<Option<u32>>,
    sink: Sink,
    /// What is left of the message at hand.
    pending: Range<usize>,
    stop: Option<WalPosition>,
    done: bool,
}

impl<'c> BaseBackup<'c> {
    pub(crate) fn begin(connection: &'c mut Connection, options: &BaseBackupOptions) -> Result<Self, Error> {
        let command = options.command(connection.major());
        connection.send_query(&command, DOING)?;
        let start = position(connection)?;
        let rows = connection.read_result(DOING)?;
        let (mut tablespaces, mut order, mut main_size_kib) = (Vec::new(), Vec::new(), None);
        for row in rows {
            let column = |index: usize| row.get(index).cloned().flatten();
            let size_kib = column(2).and_then(|text| text.parse().ok());
            match column(0) {
                // The data directory's row has no oid.
                None => {
                    main_size_kib = size_kib;
                    order.push(None);
                }
                Some(oid) => {
                    let oid = oid.parse().map_err(|_| connection.wire.protocol(DOING, "an oid is none"))?;
                    tablespaces.push(Tablespace { oid, location: column(1).unwrap_or_default(), size_kib });
                    order.push(Some(oid));
                }
            }
        }
        Ok(Self {
            connection,
            start,
            tablespaces,
            main_size_kib,
            order: order.into_iter(),
            sink: Sink::Nothing,
            pending: 0..0,
            stop: None,
            done: false,
        })
    }

    /// Where the backup starts: WAL is needed from here on.
    #[must_use]
    pub const fn start(&self) -> WalPosition {
        self.start
    }

    /// The cluster's tablespaces.
    #[must_use]
    pub fn tablespaces(&self) -> &[Tablespace] {
        &self.tablespaces
    }

    /// About how many KiB will come, tablespaces included; `None` when no estimate was asked for.
    #[must_use]
    pub fn size_kib(&self) -> Option<u64> {
        self.tablespaces.iter().try_fold(self.main_size_kib?, |sum, tablespace| sum.checked_add(tablespace.size_kib?))
    }

    /// The next piece; `None` when all is there.
    ///
    /// # Errors
    /// When the server gives up (a corrupt page, a promotion) or the connection breaks: the backup is worth nothing then.
    #[allow(clippy::should_implement_trait, reason = "an iterator can't lend")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Error> {
        loop {
            if !self.pending.is_empty() {
                if let Some(event) = self.take_pending()? {
                    return Ok(Some(self.lend(event)));
                }
                continue;
            }
            if self.done {
                return Ok(None);
            }
            let message = self.connection.wire.read(DOING)?;
            match message.tag {
                b'H' => self.begin_copy(),
                b'd' if self.connection.major() >= 15 => {
                    if let Some(bytes) = self.take_typed(&message)? {
                        return Ok(Some(Event::Progress(bytes)));
                    }
                }
                b'd' => self.pending = message.body,
                b'c' => self.end_sink()?,
                b'T' | b'C' => {}
                b'D' => {
                    let row = parse_row(self.connection.wire.bytes(&message));
                    self.stop = Some(row_position(self.connection, row.as_deref())?);
                }
                b'Z' => self.done = true,
                _ => return Err(self.connection.wire.unexpected(DOING, &message)),
            }
        }
    }

    /// Ends the backup when all of it was read: where it stops. WAL is needed up to there.
    ///
    /// # Errors
    /// When not all was read, or the server did not say where.
    pub fn finish(self) -> Result<WalPosition, Error> {
        match self.stop {
            Some(stop) if self.done => Ok(stop),
            _ => Err(self.connection.wire.protocol(DOING, "it ended before the backup did")),
        }
    }

    /// From 15 on the messages begin the archives themselves.
    fn begin_copy(&mut self) {
        if self.connection.major() < 15 {
            self.sink = match self.order.next() {
                Some(archive) => Sink::Archive(archive, TarReader::default()),
                None => Sink::Manifest,
            };
        }
    }

    /// A message of 15 and newer: its first byte says what it is. Returns a progress.
    fn take_typed(&mut self, message: &Message) -> Result<Option<u64>, Error> {
        let body = self.connection.wire.bytes(message);
        let fail = |why: &str| self.connection.wire.protocol(DOING, why);
        match body.split_first() {
            Some((b'd', _)) => self.pending = message.body.start + 1..message.body.end,
            Some((b'n', mut rest)) => {
                let name = take_text(&mut rest).ok_or_else(|| fail("an archive has no name"))?;
                let archive = match name.strip_suffix(".tar") {
                    Some("base") => None,
                    Some(oid) => Some(oid.parse().map_err(|_| fail("an archive's name is no oid"))?),
                    None => return Err(fail("an archive is no tar")),
                };
                self.end_sink()?;
                self.sink = Sink::Archive(archive, TarReader::default());
            }
            Some((b'm', _)) => {
                self.end_sink()?;
                self.sink = Sink::Manifest;
            }
            Some((b'p', rest)) => {
                let bytes = rest.first_chunk::<8>().ok_or_else(|| fail("a progress is none"))?;
                return Ok(Some(u64::from_be_bytes(*bytes)));
            }
            _ => return Err(fail("a message of the backup is of an unknown kind")),
        }
        Ok(None)
    }

    fn end_sink(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.sink, Sink::Nothing) {
            Sink::Archive(_, tar) if !tar.is_between_entries() => {
                Err(self.connection.wire.protocol(DOING, "an archive ended in the midst of a file"))
            }
            _ => Ok(()),
        }
    }

    fn take_pending(&mut self) -> Result<Option<Taken>, Error> {
        let wire = &self.connection.wire;
        match &mut self.sink {
            Sink::Nothing => Err(wire.protocol(DOING, "bytes came that belong to no archive")),
            Sink::Manifest => Ok(Some(Taken::Manifest(std::mem::replace(&mut self.pending, 0..0)))),
            Sink::Archive(tablespace, tar) => {
                let (count, piece) = tar.next(wire.slice(&self.pending)).map_err(|why| wire.protocol(DOING, why))?;
                let taken = self.pending.start..self.pending.start + count;
                self.pending.start += count;
                Ok(match piece {
                    Piece::Nothing => None,
                    Piece::Data => Some(Taken::Data(taken)),
                    Piece::Entry(mut entry) => {
                        if let Some(oid) = tablespace {
                            entry.path = below_tablespace(*oid, &entry.path);
                        }
                        Some(Taken::Entry(entry))
                    }
                })
            }
        }
    }

    fn lend(&self, taken: Taken) -> Event<'_> {
        match taken {
            Taken::Entry(entry) => Event::Entry(entry),
            Taken::Data(range) => Event::Data(self.connection.wire.slice(&range)),
            Taken::Manifest(range) => Event::Manifest(self.connection.wire.slice(&range)),
        }
    }
}

/// An event whose bytes still lie in the buffer.
enum Taken {
    Entry(Entry),
    Data(Range<usize>),
    Manifest(Range<usize>),
}

fn below_tablespace(oid: u32, path: &[u8]) -> Vec<u8> {
    let oid = oid.to_string();
    let parts = [TABLESPACES, oid.as_bytes(), path];
    // The tablespace's own directory has no name in its archive.
    let parts = if path.is_empty() { &parts[..2] } else { &parts[..] };
    parts.join(&b'/')
}

fn position(connection: &mut Connection) -> Result<WalPosition, Error> {
    let rows = connection.read_result(DOING)?;
    row_position(connection, rows.first().map(Vec::as_slice))
}

fn row_position(connection: &Connection, row: Option<&[Option<String>]>) -> Result<WalPosition, Error> {
    let column = |index: usize| row?.get(index)?.as_deref();
    let position = (|| Some(WalPosition { lsn: column(0)?.parse().ok()?, timeline: column(1)?.parse().ok()? }))();
    position.ok_or_else(|| connection.wire.protocol(DOING, "a place in WAL is none"))
}
