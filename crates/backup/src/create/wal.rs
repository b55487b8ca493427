//! The write-ahead log that a backup needs: copied from `pg_wal` while the files are copied, and checked record by record on the way, so
//! that a gap is found before the backup counts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use model::Lsn;
use pg_format::{
    Major,
    wal::{self, Decoder, Flow, Record, SegmentName, SegmentSize, Stream, WalError, WalFile, rmgr},
};
use repository::{Entry, FrameWriter};

use super::{
    CreateError,
    copy::{Content, EXTENT_BYTES},
    uncached::read_full,
};
use crate::{
    entry::{Kind, Meta, shown},
    info::Tablespace,
};

/// Timeline histories are small; a larger file is none.
const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// WAL on its way into the repository.
pub(crate) struct WalCopy {
    directory: PathBuf,
    size: SegmentSize,
    start: Lsn,
    decoder: Decoder,
    /// The number of the next segment.
    next: u64,
    buffer: Vec<u8>,
    major: Major,
    /// Tablespaces that were made meanwhile.
    pub(crate) tablespaces: Vec<Tablespace>,
    /// Bytes so far.
    pub(crate) bytes: u64,
}

/// The tablespace that a record makes, with where it lies; `None` for every other record.
pub(crate) fn made_tablespace(record: &Record<'_>, major: Major) -> Option<Tablespace> {
    // Asked of every record: taking all of them apart would cost.
    if record.header.rmgr != rmgr::TABLESPACE {
        return None;
    }
    match wal::Kind::of(major, record, &record.parts(major)?) {
        // One inside of the data directory leads nowhere.
        wal::Kind::TablespaceCreate { oid, path } if !path.is_empty() => {
            Some(Tablespace { oid, location: shown(path) })
        }
        _ => None,
    }
}

impl WalCopy {
    pub(crate) fn new(data_dir: &Path, stream: Stream, start: Lsn) -> Result<Self, CreateError> {
        let size = stream.segment_size;
        let next = size.number_of(start);
        let wal = |source| CreateError::Wal { start, source };
        let decoder = Decoder::new(stream, size.start_of(next), start).map_err(wal)?;
        let (buffer, major, tablespaces) = (vec![0; EXTENT_BYTES], stream.major, Vec::new());
        Ok(Self {
            directory: data_dir.join("pg_wal"),
            size,
            start,
            decoder,
            next,
            buffer,
            major,
            tablespaces,
            bytes: 0,
        })
    }

    /// Copies the segments that lie wholly below `flushed`.
    pub(crate) fn advance(
        &mut self,
        flushed: Lsn,
        writer: &mut FrameWriter,
        keep: &mut dyn FnMut(Entry) -> Result<(), CreateError>,
    ) -> Result<(), CreateError> {
        while self.size.start_of(self.next + 1) <= flushed {
            keep(self.segment(None, writer)?)?;
        }
        Ok(())
    }

    /// Copies what is left up to `stop`, the end of a record, and sees that all of it is there.
    pub(crate) fn finish(
        &mut self,
        stop: Lsn,
        writer: &mut FrameWriter,
        keep: &mut dyn FnMut(Entry) -> Result<(), CreateError>,
    ) -> Result<(), CreateError> {
        let last = self.size.number_before(stop);
        while self.next <= last {
            let until = (self.next == last).then_some(stop);
            keep(self.segment(until, writer)?)?;
        }
        if self.decoder.end() < stop {
            let source = WalError::Incomplete { end: self.decoder.end(), wanted: stop };
            return Err(CreateError::Wal { start: self.start, source });
        }
        Ok(())
    }

    /// The timeline of the last page that was copied.
    pub(crate) fn timeline(&self) -> u32 {
        self.decoder.timeline()
    }

    /// Copies a segment; the last one only up to `until`, with zeros behind it: what follows there may be half-written.
    fn segment(&mut self, until: Option<Lsn>, writer: &mut FrameWriter) -> Result<Entry, CreateError> {
        let (start, size) = (self.start, self.size);
        let wanted = SegmentName { timeline: 0, number: self.next };
        let name = self.newest(wanted).map_err(|source| {
            let name = SegmentName { timeline: 1, ..wanted }.file_name(size);
            CreateError::Wal { start, source: WalError::Read { name, source } }
        })?;
        let file_name = name.file_name(size);
        let path = self.directory.join(&file_name);
        let failed = |source| CreateError::Wal { start, source: WalError::Read { name: file_name.clone(), source } };
        let file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() != size.bytes() {
            return Err(failed(io::Error::other(format!(
                "it has {} bytes, expected are {}",
                metadata.len(),
                size.bytes()
            ))));
        }
        let begin = size.start_of(self.next);
        let valid = until.map_or(size.bytes(), |until| until.0.saturating_sub(begin.0));
        let mut content = Content::default();
        while content.size < size.bytes() {
            let bytes = &mut self.buffer
                [..usize::try_from(size.bytes() - content.size).unwrap_or(usize::MAX).min(EXTENT_BYTES)];
            let count = read_full(&file, bytes, content.size).map_err(failed)?;
            if count < bytes.len() {
                return Err(failed(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter while it was read",
                )));
            }
            let good = usize::try_from(valid.saturating_sub(content.size)).unwrap_or(usize::MAX).min(bytes.len());
            bytes[good..].fill(0);
            if good > 0 {
                let stop = until.unwrap_or(Lsn(u64::MAX));
                let (major, made) = (self.major, &mut self.tablespaces);
                let flow = |record: &Record<'_>| {
                    made.extend(made_tablespace(record, major));
                    if record.end >= stop { Flow::Stop } else { Flow::Continue }
                };
                self.decoder.feed(&bytes[..good], flow).map_err(|source| CreateError::Wal { start, source })?;
            }
            content.add(bytes, writer)?;
        }
        self.next += 1;
        self.bytes += content.size;
        let meta = meta(&metadata);
        Ok(content.into_entry(format!("pg_wal/{file_name}").into_bytes(), meta))
    }

    /// The file of this number on the newest timeline: where a standby followed a new primary there are two, and the newer holds all that
    /// the older does up to the switch.
    fn newest(&self, wanted: SegmentName) -> io::Result<SegmentName> {
        let names = wal_files(&self.directory, self.size)?;
        let of_number = |(file, _)| match file {
            WalFile::Segment(name) if name.number == wanted.number => Some(name),
            _ => None,
        };
        names.into_iter().filter_map(of_number).max().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Copies the histories of timelines: a server that starts on timeline 2 or later wants to read its own.
    pub(crate) fn histories(
        &mut self,
        writer: &mut FrameWriter,
        keep: &mut dyn FnMut(Entry) -> Result<(), CreateError>,
    ) -> Result<(), CreateError> {
        let names =
            wal_files(&self.directory, self.size).map_err(CreateError::io("list the directory", &self.directory))?;
        let histories: BTreeMap<u32, String> = names
            .into_iter()
            .filter_map(|(file, name)| match file {
                WalFile::History(timeline) => Some((timeline, name)),
                _ => None,
            })
            .collect();
        for name in histories.into_values() {
            let path = self.directory.join(&name);
            let fail = |what| CreateError::io(what, &path);
            let metadata = fs::metadata(&path).map_err(fail("look at"))?;
            if metadata.len() > HISTORY_BYTES_MAX {
                continue;
            }
            let mut content = Content::default();
            content.add(&fs::read(&path).map_err(fail("read"))?, writer)?;
            self.bytes += content.size;
            keep(content.into_entry(format!("pg_wal/{name}").into_bytes(), meta(&metadata)))?;
        }
        Ok(())
    }
}

fn meta(metadata: &fs::Metadata) -> Meta {
    Meta { kind: Kind::Wal, mode: metadata.permissions().mode() & 0o7777, modified: metadata.mtime(), crc32c: 0 }
}

fn wal_files(directory: &Path, size: SegmentSize) -> io::Result<Vec<(WalFile, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let Ok(name) = String::from_utf8(entry?.file_name().into_vec()) else { continue };
        if let Some(file) = WalFile::parse(&name, size) {
            files.push((file, name));
        }
    }
    Ok(files)
}
