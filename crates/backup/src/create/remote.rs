//! A backup of a server whose files are not in reach: BASE_BACKUP's stream gives the same entries as the direct copy does.
//!
//! The differences: one stream, so that only checking and storing are parallel; nobody can read a page again, so that a torn page is told
//! from a corrupt one by WAL (a page that was written after the start's checkpoint has a full image there); the server leaves out what a
//! backup does not take, and sends the WAL that the backup needs at the end.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::Ordering,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::{Lsn, PgVersion};
use pg_format::{
    ControlFile, Major, control,
    files::{FileKind, RelationFile, Rules},
    label::{self, BackupLabel},
    page::Bounds,
    wal::{Decoder, Flow, SegmentSize, Stream, WalError, WalFile},
};
use pg_replication::{
    BaseBackup, BaseBackupOptions, Connection, EntryKind, Event, SystemIdentity, Target, WalPosition,
};
use repository::{Entry, Repository, Session};

use super::{
    CreateError, CreateOptions, Created, WORKERS_MAX,
    copy::EXTENT_BYTES,
    identity::Now,
    preflight,
    server::{DatabaseRow, Server},
    stream::{Assembly, CHUNKS_MAX, Chunk},
    wal::made_tablespace,
};
use crate::{
    entry::{Kind, Meta},
    info::{BackupInfo, Host, INFO_FORMAT, Owner, Source, Tablespace},
    progress::{Counts, Meter, Note, Progress, Stage, step_back},
};

/// A page whose LSN is so far behind the start of the backup was not written during it: it is garbage.
const AHEAD_MAX: u64 = 1 << 40;
/// Files that are kept in memory: the label, the map and the control file.
const CAPTURED_BYTES_MAX: usize = 16 << 20;
/// How often the reader looks whether the workers are done, before it reads WAL.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Makes a backup from the server's stream.
pub(super) fn remote(
    options: &CreateOptions,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<Created, CreateError> {
    let began = Instant::now();
    preflight::stage(progress, Stage::Preparing);
    let target: Target = options.url.parse()?;
    let mut connection = Connection::open(&target)?;
    let facts = Facts::ask(&mut connection, options, progress)?;
    let now = Now {
        system_id: facts.identity.system_identifier,
        timeline: facts.identity.timeline,
        position: facts.identity.flushed,
        // What is not known is taken for what refuses less.
        standby: facts.standby.unwrap_or(true),
        host: &facts.host,
        data_dir: &facts.data_dir,
        history: None,
    };
    preflight::check_identity(options, repository, &now, progress)?;
    let session = preflight::begin(options, repository, None, progress)?;
    let run = |session: &Session| Run { options, facts: &facts, session, progress }.all(repository, &mut connection);
    preflight::conclude(session, run, began)
}

/// What is known of the server.
struct Facts {
    identity: SystemIdentity,
    major: Major,
    version: PgVersion,
    banner: String,
    standby: Option<bool>,
    host: String,
    data_dir: String,
    block_size: u32,
    segment_size: SegmentSize,
    checksums: bool,
    /// Only where the role may log in for SQL too.
    databases: Option<Vec<DatabaseRow>>,
    /// The session of SQL, where the role may have one. Its slot holds WAL until that was sent, last of all.
    sql: Option<Server>,
}

impl Facts {
    fn ask(connection: &mut Connection, options: &CreateOptions, progress: &dyn Progress) -> Result<Self, CreateError> {
        let major = Major::from_number(connection.major())?;
        let stream = |why: String| CreateError::Stream(why);
        let identity = connection.identify_system()?;
        let block_size = connection.show("block_size")?;
        let segment_size = connection.wal_segment_size()?;
        let version = version_of(connection.version(), connection.major());
        let sql = Server::connect(&options.url);
        let databases = sql.as_ref().ok().and_then(|server| server.databases(version).ok());
        let held = match &sql {
            Ok(server) => server.hold_wal(),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = held {
            let text = format!(
                "WAL can't be held by a slot ({why}); it is sent last, and the backup fails if the server has recycled it by then: see wal_keep_size"
            );
            progress.note(&Note::Warning(text));
        }
        Ok(Self {
            identity,
            major,
            version,
            banner: format!("PostgreSQL {}", connection.version()),
            standby: connection.is_standby(),
            host: connection.host().to_owned(),
            // Not everybody may see it.
            data_dir: connection.show("data_directory").unwrap_or_default(),
            block_size: block_size.parse().map_err(|_| stream(format!("its block size is {block_size}")))?,
            segment_size: SegmentSize::new(segment_size).map_err(|error| stream(error.to_string()))?,
            checksums: connection.show("data_checksums")? == "on",
            databases,
            sql: sql.ok(),
        })
    }
}

/// "15.14 (Debian 15.14-0+deb12u1)" is 150014.
fn version_of(text: &str, major: u32) -> PgVersion {
    let minor = text.split(|character: char| !character.is_ascii_digit()).nth(1).and_then(|minor| minor.parse().ok());
    PgVersion(major * 10_000 + minor.filter(|minor| *minor < 10_000u32).unwrap_or(0))
}

struct Run<'a> {
    options: &'a CreateOptions,
    facts: &'a Facts,
    session: &'a Session,
    progress: &'a dyn Progress,
}

/// The file that is being received.
struct Current {
    number: u64,
    pages: Pages,
    buffer: Vec<u8>,
    sent: u64,
    use_: Use,
}

/// The relation's file, and the block that a piece of it begins with.
type Pages = Option<(RelationFile, u32)>;

/// What its bytes are for, besides being stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Store,
    /// Stored, and read as WAL.
    Wal,
    /// Stored, and kept.
    Control,
    /// Kept only: the restore writes it anew.
    Label,
    Map,
    /// Neither.
    Ignore,
}

/// What the stream has brought besides files.
#[derive(Default)]
struct Brought {
    label: Vec<u8>,
    map: Vec<u8>,
    control: Vec<u8>,
    mode: Option<u32>,
    wal_bytes: u64,
    /// Made while the backup ran.
    tablespaces: Vec<Tablespace>,
    /// Where WAL could not be read on: behind the stop that is no fault.
    wal_error: Option<WalError>,
}

/// The reader's side.
struct Reader<'r> {
    assembly: &'r Assembly<'r>,
    chunks: SyncSender<Chunk>,
    major: Major,
    decoder: Decoder,
    next_segment: u64,
    current: Option<Current>,
    files: u64,
    bytes: u64,
    brought: Brought,
}

impl Run<'_> {
    fn all(&self, repository: &Repository, connection: &mut Connection) -> Result<BackupInfo, CreateError> {
        let facts = self.facts;
        preflight::stage(self.progress, Stage::Checkpoint);
        let throttled_before = self.options.held_settings.as_ref().map(|held| held()).unwrap_or_default();
        let request = BaseBackupOptions {
            fast_checkpoint: self.options.fast_checkpoint,
            // The server would fail at the end where we go on and name the pages.
            verify_checksums: false,
            manifest: None,
            ..BaseBackupOptions::new(&self.options.label)
        };
        let census = || facts.sql.as_ref().and_then(|_| Server::census(&self.options.url));
        let before = census();
        let mut backup = connection.base_backup(&request)?;
        let start_time = Timestamp::now();
        let start = backup.start();
        self.progress.note(&Note::Started(start.lsn));
        let total = backup.size_kib().unwrap_or(0).saturating_mul(1024);
        preflight::check_space(self.options, repository, 0, total, self.progress)?;
        let (tablespaces, in_place_tablespaces) = tablespaces(&backup);
        for oid in &in_place_tablespaces {
            // An archive has no name for its own directory.
            let meta = Meta { kind: Kind::Directory, mode: 0o700, modified: 0, crc32c: 0 }.to_bytes();
            let name = format!("pg_tblspc/{oid}").into_bytes();
            self.session.entry(&Entry { name, meta, size: 0, extents: Vec::new() })?;
        }
        let bounds =
            Bounds { start: start.lsn, insert: Lsn(start.lsn.0.saturating_add(AHEAD_MAX)), checksums: facts.checksums };
        let block_size = usize::try_from(facts.block_size).unwrap_or(usize::MAX);
        let assembly = Assembly::new(self.session, bounds, block_size);
        let (brought, end) = self.receive(&mut backup, &assembly, start, total)?;
        let stop = backup.finish()?;
        let stop_time = Timestamp::now();
        let after = census();
        if stop.timeline != start.timeline {
            return Err(CreateError::Timeline { from: start.timeline, to: stop.timeline });
        }
        if end < stop.lsn {
            let incomplete = WalError::Incomplete { end, wanted: stop.lsn };
            let source = brought.wal_error.unwrap_or(incomplete);
            return Err(CreateError::Wal { start: start.lsn, source });
        }
        let text = |bytes: Vec<u8>, what: &str| {
            String::from_utf8(bytes).map_err(|_| CreateError::Stream(format!("its {what} is not UTF-8")))
        };
        let label = text(brought.label, label::FILE_NAME)?;
        let parsed = BackupLabel::parse(&label)?;
        let control = ControlFile::parse(&brought.control)
            .map_err(|source| CreateError::Control { path: control::PATH.into(), source })?;
        if control.system_identifier != facts.identity.system_identifier {
            return Err(CreateError::Stream("the control file is another cluster's".to_owned()));
        }
        let (mut tally, suspects) = assembly.into_parts();
        let mut suspects: Vec<_> = suspects.into_iter().collect();
        suspects.sort_by_key(|((relation, fork, block), _)| (*relation, *fork, *block));
        for ((_, _, block), suspect) in suspects {
            tally.corrupt(self.options, self.progress, &suspect.path, block, &suspect.why)?;
        }
        preflight::stage(self.progress, Stage::Committing);
        let mut throttled = self.options.held_settings.as_ref().map(|held| held()).unwrap_or_default();
        throttled.extend(throttled_before);
        let owner = Owner { user: Some("postgres".to_owned()), group: Some("postgres".to_owned()), ..Owner::default() };
        Ok(BackupInfo {
            format: INFO_FORMAT,
            cluster: self.options.cluster.clone(),
            system_id: control.system_identifier,
            pg_version: facts.version,
            catalog_version: control.catalog_version,
            timeline: start.timeline,
            start_lsn: start.lsn,
            stop_lsn: stop.lsn,
            start_time,
            stop_time,
            source: Source::BaseBackup,
            standby: parsed.from == label::BackupFrom::Standby,
            backup_label: label,
            tablespace_map: text(brought.map, label::MAP_FILE_NAME)?,
            tablespaces,
            tablespaces_in_wal: brought.tablespaces,
            in_place_tablespaces,
            block_size: control.block_size,
            segment_blocks: control.segment_blocks,
            wal_segment_size: control.wal_segment_size,
            data_checksums: control.has_checksums(),
            host: Host {
                name: facts.host.clone(),
                data_dir: facts.data_dir.clone(),
                data_dir_mode: brought.mode.unwrap_or(0o700),
                owner,
                bin_dir: None,
                server: facts.banner.clone(),
                libc_collation: None,
                icu_collation: None,
            },
            files: tally.files,
            bytes: tally.bytes,
            wal_bytes: brought.wal_bytes,
            databases: tally.databases(facts.databases.clone().unwrap_or_default()),
            censuses: before.into_iter().chain(after).collect(),
            corrupt_pages_count: tally.corrupt_count,
            corrupt_pages: tally.corrupt,
            throttled,
            outside: std::collections::BTreeMap::new(),
        })
    }

    /// Runs the workers and reads the stream to its end. Returns where the WAL that came ends.
    fn receive(
        &self,
        backup: &mut BaseBackup<'_>,
        assembly: &Assembly<'_>,
        start: WalPosition,
        total: u64,
    ) -> Result<(Brought, Lsn), CreateError> {
        let size = self.facts.segment_size;
        let stream = Stream {
            major: self.facts.major,
            segment_size: size,
            block_size: 8192,
            system_identifier: Some(self.facts.identity.system_identifier),
        };
        let next_segment = size.number_of(start.lsn);
        let decoder = Decoder::new(stream, size.start_of(next_segment), start.lsn)
            .map_err(|source| CreateError::Wal { start: start.lsn, source })?;
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = self.options.workers.map_or(cores, NonZeroUsize::get).clamp(1, WORKERS_MAX);
        let writers = (0..workers).map(|_| self.session.writer()).collect::<Result<Vec<_>, _>>()?;
        let (sender, receiver) = sync_channel(CHUNKS_MAX);
        let receiver = Mutex::new(receiver);
        let (brought, panics) = thread::scope(|scope| {
            let crew: Vec<_> = writers
                .into_iter()
                .map(|mut writer| {
                    let receiver = &receiver;
                    scope.spawn(move || assembly.run(receiver, &mut writer))
                })
                .collect();
            let (files, bytes, brought) = (0, 0, Brought::default());
            let (chunks, major) = (sender, self.facts.major);
            let mut reader =
                Reader { assembly, chunks, major, decoder, next_segment, current: None, files, bytes, brought };
            let result = self.read(backup, &mut reader, total);
            if result.is_err() {
                assembly.stop.store(true, Ordering::Release);
            }
            let Reader { chunks, brought, decoder, .. } = reader;
            drop(chunks);
            let panics = crew.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
            (result.map(|()| (brought, decoder.end())), panics)
        });
        match assembly.failure() {
            Some(error) => Err(error),
            None if panics > 0 => Err(CreateError::Worker),
            None => brought,
        }
    }

    fn read(&self, backup: &mut BaseBackup<'_>, reader: &mut Reader<'_>, total: u64) -> Result<(), CreateError> {
        let mut meter = Meter::new(Instant::now());
        let mut next_draft = Instant::now() + self.options.draft_every;
        while let Some(event) = backup.next()? {
            match event {
                Event::Entry(entry) => {
                    reader.end_file()?;
                    self.begin_file(reader, &entry)?;
                    let now = Instant::now();
                    if now >= next_draft {
                        self.session.draft(&serde_json::json!({ "draft": self.options.cluster }))?;
                        next_draft = Instant::now() + self.options.draft_every;
                    }
                }
                Event::Data(bytes) => {
                    if reader.data(bytes)?
                        && (reader.assembly.stop.load(Ordering::Acquire) || !step_back(self.progress))
                    {
                        return Err(CreateError::Cancelled);
                    }
                }
                Event::Manifest(_) | Event::Progress(_) => {}
            }
            let done = Counts { files: reader.files, bytes: reader.bytes };
            meter.tell(self.progress, Instant::now(), Stage::Copying, done, Counts { files: 0, bytes: total });
        }
        reader.end_file()
    }

    fn begin_file(&self, reader: &mut Reader<'_>, entry: &pg_replication::Entry) -> Result<(), CreateError> {
        let path = entry.path.clone();
        let meta = Meta { kind: Kind::File, mode: entry.mode & 0o7777, modified: entry.modified, crc32c: 0 };
        match &entry.kind {
            EntryKind::Directory => return self.directory(reader, path, meta),
            // Tablespaces; the map says where they lead.
            EntryKind::Symlink(_) => return Ok(()),
            EntryKind::File => {}
        }
        let (use_, kind, pages) = self.use_of(reader, &path)?;
        if matches!(use_, Use::Store | Use::Wal | Use::Control) {
            reader.files += 1;
            reader.assembly.open(reader.files, path, Meta { kind, ..meta });
        }
        let (number, buffer) = (reader.files, reader.assembly.buffer());
        reader.current = Some(Current { number, pages, buffer, sent: 0, use_ });
        Ok(())
    }

    fn use_of(&self, reader: &mut Reader<'_>, path: &[u8]) -> Result<(Use, Kind, Pages), CreateError> {
        if path == label::FILE_NAME.as_bytes() {
            return Ok((Use::Label, Kind::File, None));
        }
        if path == label::MAP_FILE_NAME.as_bytes() {
            return Ok((Use::Map, Kind::File, None));
        }
        if let Some(name) = path.strip_prefix(b"pg_wal/") {
            let file = std::str::from_utf8(name).ok().and_then(|name| WalFile::parse(name, self.facts.segment_size));
            return match file {
                Some(WalFile::Segment(segment)) => {
                    if segment.number != reader.next_segment {
                        let name = segment.file_name(self.facts.segment_size);
                        return Err(CreateError::Stream(format!("its WAL has a gap before {name}")));
                    }
                    reader.next_segment += 1;
                    reader.await_workers();
                    Ok((Use::Wal, Kind::Wal, None))
                }
                Some(WalFile::History(_)) => Ok((Use::Store, Kind::Wal, None)),
                // archive_status, most of all.
                _ => Ok((Use::Ignore, Kind::Wal, None)),
            };
        }
        Ok(match Rules::default().classify(path) {
            FileKind::Control => (Use::Control, Kind::File, None),
            FileKind::Other => (Use::Store, Kind::File, None),
            FileKind::Skipped(_) => (Use::Ignore, Kind::File, None),
            FileKind::Relation(file) => {
                // Files of relations have 1 GiB wherever packages come from.
                let segment_blocks = (1 << 30) / self.facts.block_size.max(1);
                (Use::Store, Kind::File, file.first_block(segment_blocks).map(|block| (file, block)))
            }
        })
    }

    fn directory(&self, reader: &mut Reader<'_>, path: Vec<u8>, meta: Meta) -> Result<(), CreateError> {
        if path.is_empty() {
            reader.brought.mode = Some(meta.mode);
            return Ok(());
        }
        let of_tablespace = path.strip_prefix(b"pg_tblspc/").is_some_and(|rest| !rest.contains(&b'/'));
        if of_tablespace || path.starts_with(b"pg_wal/") {
            return Ok(());
        }
        let meta = Meta { kind: Kind::Directory, ..meta }.to_bytes();
        Ok(self.session.entry(&Entry { name: path, meta, size: 0, extents: Vec::new() })?)
    }
}

impl Reader<'_> {
    /// Takes bytes of the current file; true when a chunk was handed on.
    fn data(&mut self, mut bytes: &[u8]) -> Result<bool, CreateError> {
        let mut handed_on = false;
        let Some(current) = &mut self.current else {
            return Err(CreateError::Stream("bytes came that belong to no file".to_owned()));
        };
        let brought = &mut self.brought;
        let kept = match current.use_ {
            Use::Label => Some(&mut brought.label),
            Use::Map => Some(&mut brought.map),
            Use::Control => Some(&mut brought.control),
            Use::Store | Use::Wal | Use::Ignore => None,
        };
        if let Some(kept) = kept {
            if kept.len() + bytes.len() > CAPTURED_BYTES_MAX {
                return Err(CreateError::Stream("its label, map or control file is far too large".to_owned()));
            }
            kept.extend_from_slice(bytes);
        }
        if matches!(current.use_, Use::Label | Use::Map | Use::Ignore) {
            return Ok(false);
        }
        if current.use_ == Use::Wal {
            brought.wal_bytes += bytes.len() as u64;
            if brought.wal_error.is_none() {
                let (assembly, major) = (self.assembly, self.major);
                let made = &mut brought.tablespaces;
                let fed = self.decoder.feed(bytes, |record| {
                    made.extend(made_tablespace(record, major));
                    if assembly.has_suspects()
                        && let Some(parts) = record.parts(major)
                    {
                        let written = |block: &&pg_format::wal::BlockRef<'_>| block.image.is_some() || block.will_init;
                        for block in parts.blocks.iter().filter(written) {
                            assembly.clear(&(block.relation, block.fork, block.block));
                        }
                    }
                    Flow::Continue
                });
                brought.wal_error = fed.err();
            }
        }
        while !bytes.is_empty() {
            let room = EXTENT_BYTES - current.buffer.len();
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            current.buffer.extend_from_slice(taken);
            bytes = rest;
            if current.buffer.len() == EXTENT_BYTES {
                let full = std::mem::replace(&mut current.buffer, self.assembly.buffer());
                self.bytes += full.len() as u64;
                hand_on(self.assembly, &self.chunks, current, full)?;
                handed_on = true;
            }
        }
        Ok(handed_on)
    }

    fn end_file(&mut self) -> Result<(), CreateError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let rest = std::mem::take(&mut current.buffer);
        if !rest.is_empty() {
            self.bytes += rest.len() as u64;
            hand_on(self.assembly, &self.chunks, &mut current, rest)?;
        }
        if matches!(current.use_, Use::Store | Use::Wal | Use::Control) {
            self.assembly.close(current.number)?;
        }
        Ok(())
    }

    /// Before WAL is read all pages must have been looked at: it says which of the suspects were only torn.
    fn await_workers(&self) {
        while !self.assembly.is_idle() && !self.assembly.stop.load(Ordering::Acquire) {
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn hand_on(
    assembly: &Assembly<'_>,
    chunks: &SyncSender<Chunk>,
    current: &mut Current,
    bytes: Vec<u8>,
) -> Result<(), CreateError> {
    let index = assembly.announce(current.number, bytes.len());
    let pages = current.pages.map(|(file, first)| {
        let block = current.sent / (assembly.block_size as u64);
        (file, first.wrapping_add(u32::try_from(block).unwrap_or(u32::MAX)))
    });
    current.sent += bytes.len() as u64;
    // The workers end only when this side does.
    chunks.send(Chunk { file: current.number, index, bytes, pages }).map_err(|_| CreateError::Worker)
}

/// The tablespaces outside of the data directory, and the oids of those inside.
fn tablespaces(backup: &BaseBackup<'_>) -> (Vec<Tablespace>, Vec<u32>) {
    let (outside, inside): (Vec<_>, Vec<_>) =
        backup.tablespaces().iter().partition(|known| known.location.starts_with('/'));
    let outside = outside.iter().map(|known| Tablespace { oid: known.oid, location: known.location.clone() });
    (outside.collect(), inside.iter().map(|known| known.oid).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, major, number) in [
            ("15.14 (Debian 15.14-0+deb12u1)", 15, 150_014),
            ("18beta1", 18, 180_000),
            ("17devel", 17, 170_000),
            ("16.4", 16, 160_004),
        ] {
            assert_eq!(version_of(text, major), PgVersion(number), "{text}");
        }
    }
}
