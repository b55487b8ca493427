//! The run of a backup, step by step.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::Lsn;
use pg_format::{
    control,
    files::{RelationFile, Rules},
    label::{BackupLabel, TablespaceMap},
    wal::{Stream, TimelineHistory},
};
use repository::{Entry, FrameWriter, Repository, Session, SessionInfo};

use super::{
    CreateError, CreateOptions, Created, WORKERS_MAX,
    copy::{Content, MESSAGES_MAX, Message, Work},
    identity::{self, Now, Verdict},
    pages::LiveBounds,
    scan::{Scan, scan},
    server::{Facts, Position, Server},
    source::{Control, DataDir},
    wal::WalCopy,
};
use crate::{
    entry::{Kind, Meta, shown},
    info::{BackupInfo, CORRUPT_PAGES_NAMED_MAX, CorruptPage, Database, Host, INFO_FORMAT, Source, Tablespace},
    progress::{Counts, Meter, Note, Progress, Stage},
};

/// How often the session is asked where WAL ends, and so whether it is still there.
const TICK: Duration = Duration::from_millis(500);
/// What the first backup takes of its plain bytes at most, mostly: PostgreSQL's pages compress to between a half and a fifth.
const FIRST_RATIO: f64 = 0.5;

/// Makes a backup. Returns when it is committed.
///
/// # Errors
/// See [`CreateError`]. Whatever the error, the repository is valid and the server's backup mode has ended.
pub fn create(
    options: &CreateOptions,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<Created, CreateError> {
    let began = Instant::now();
    let server = Server::connect(&options.url)?;
    let facts = server.facts()?;
    if facts.wal_level == "minimal" {
        return Err(CreateError::WalLevel);
    }
    let path = match (&options.data_dir, &facts.data_directory) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => PathBuf::from(path),
        (None, None) => return Err(CreateError::NoDataDir),
    };
    let (directory, control) = DataDir::open(&path, &facts)?;
    let host = host(&directory, &facts)?;
    check_identity(options, repository, &server, &control, &directory.path, &host, progress)?;
    let rules = rules(&directory.path, &facts);
    check_space(options, repository, &directory.path, &rules, &control, progress)?;
    let session = begin(options, repository, &directory, &host, progress)?;
    let run = Run {
        options,
        server: &server,
        facts: &facts,
        directory: &directory,
        session: &session,
        progress,
        rules: &rules,
    };
    match run.all(host) {
        Ok(info) => {
            let id = session.commit(&info.to_value())?;
            let stored_bytes = session.counts().stored_bytes;
            Ok(Created { id, info, stored_bytes, took: began.elapsed() })
        }
        Err(error) => {
            // The first error is the one that matters; a session that stays open is closed by the next run.
            if let Err(closing) = session.abandon(&error.to_string()) {
                tracing::warn!("closing the repository's session after a failure: {closing}");
            }
            Err(error)
        }
    }
}

struct Run<'a> {
    options: &'a CreateOptions,
    server: &'a Server,
    facts: &'a Facts,
    directory: &'a DataDir,
    session: &'a Session,
    progress: &'a dyn Progress,
    rules: &'a Rules,
}

/// What the copying has counted.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    /// Relation files and their bytes, by database.
    databases: BTreeMap<u32, (u64, u64)>,
    corrupt: Vec<CorruptPage>,
    corrupt_count: u64,
}

impl Run<'_> {
    fn all(&self, host: Host) -> Result<BackupInfo, CreateError> {
        let (facts, server) = (self.facts, self.server);
        let throttled_before = self.held_settings();
        if let Err(why) = server.hold_wal() {
            let text = format!(
                "WAL can't be held by a slot ({why}); segments are copied as they come, which is enough unless they are recycled within a second"
            );
            self.progress.note(&Note::Warning(text));
        }
        self.stage(Stage::Checkpoint);
        let start = server.start(facts.major, &self.options.label, self.options.fast_checkpoint)?;
        self.progress.note(&Note::Started(start));
        let start_time = Timestamp::now();
        let position = server.position()?;
        // The block size is the cluster's for ever, the timeline of the beginning is what the label will say.
        let control = self.directory.control()?.file;
        let scan = scan(&self.directory.path, self.rules, &control.tablespace_directory())?;
        for odd in &scan.odd {
            self.progress.note(&Note::Warning(format!("{} is a link or no file, it is not in the backup", shown(odd))));
        }
        let stream = Stream::of(&control).map_err(|_| CreateError::Worker)?;
        let mut wal = WalCopy::new(&self.directory.path, stream, start)?;
        let mut writer = self.session.writer()?;
        let mut tally = Tally::default();
        self.directories(&scan)?;
        let bounds = LiveBounds::new(start, control.has_checksums(), position.insert);
        self.copy(&scan, &bounds, &control, &mut wal, &mut writer, &mut tally)?;
        self.outside(&mut writer)?;
        // After everything else, as a standby's must be: recovery goes at least as far as it says.
        let control = self.directory.control()?;
        self.control(&control, &mut writer, &mut tally)?;
        self.stage(Stage::Wal);
        let stopped = server.stop(facts.major)?;
        let stop_time = Timestamp::now();
        if server.position()?.standby != facts.standby {
            return Err(CreateError::Promoted);
        }
        let label = BackupLabel::parse(&stopped.label)?;
        wal.finish(stopped.lsn, &mut writer, &mut |entry| self.keep(entry))?;
        wal.histories(&mut writer, &mut |entry| self.keep(entry))?;
        let timeline = label.timeline.unwrap_or(control.file.checkpoint.timeline);
        if wal.timeline() != timeline {
            return Err(CreateError::Timeline { from: timeline, to: wal.timeline() });
        }
        // Parks what it has not closed, for the commit to store.
        drop(writer);
        self.stage(Stage::Committing);
        let mut throttled = self.held_settings();
        throttled.extend(throttled_before);
        Ok(BackupInfo {
            format: INFO_FORMAT,
            cluster: self.options.cluster.clone(),
            system_id: facts.system_id,
            pg_version: facts.version,
            catalog_version: control.file.catalog_version,
            timeline,
            start_lsn: start,
            stop_lsn: stopped.lsn,
            start_time,
            stop_time,
            source: Source::Direct,
            standby: facts.standby,
            backup_label: stopped.label,
            tablespaces: tablespaces(&stopped.map, &scan)?,
            tablespace_map: stopped.map,
            in_place_tablespaces: scan.in_place(),
            block_size: control.file.block_size,
            segment_blocks: control.file.segment_blocks,
            wal_segment_size: control.file.wal_segment_size,
            data_checksums: control.file.has_checksums(),
            host,
            files: tally.files,
            bytes: tally.bytes,
            wal_bytes: wal.bytes,
            corrupt_pages_count: tally.corrupt_count,
            corrupt_pages: tally.corrupt,
            databases: self.databases(&tally.databases)?,
            throttled,
            outside: self.outside_files().into_iter().map(|(name, path)| (name.to_owned(), path)).collect(),
        })
    }

    fn stage(&self, stage: Stage) {
        Meter::new(Instant::now()).tell(self.progress, Instant::now(), stage, Counts::default(), Counts::default());
    }

    fn keep(&self, entry: Entry) -> Result<(), CreateError> {
        Ok(self.session.entry(&entry)?)
    }

    fn directories(&self, scan: &Scan) -> Result<(), CreateError> {
        for found in &scan.directories {
            let meta = Meta { kind: Kind::Directory, mode: found.mode, modified: found.modified, crc32c: 0 };
            self.keep(Entry { name: found.path.clone(), meta: meta.to_bytes(), size: 0, extents: Vec::new() })?;
        }
        Ok(())
    }

    fn control(&self, control: &Control, writer: &mut FrameWriter, tally: &mut Tally) -> Result<(), CreateError> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let mut content = Content::default();
        content.add(&control.bytes, writer)?;
        let mode = control.metadata.permissions().mode() & 0o7777;
        let meta = Meta { kind: Kind::File, mode, modified: control.metadata.mtime(), crc32c: 0 };
        tally.files += 1;
        tally.bytes += content.size;
        self.keep(content.into_entry(control::PATH.as_bytes().to_vec(), meta))
    }

    /// Runs the workers, and holds the session meanwhile.
    fn copy(
        &self,
        scan: &Scan,
        bounds: &LiveBounds,
        control: &control::ControlFile,
        wal: &mut WalCopy,
        writer: &mut FrameWriter,
        tally: &mut Tally,
    ) -> Result<(), CreateError> {
        let work = Work {
            data_dir: &self.directory.path,
            files: &scan.files,
            next: AtomicUsize::new(0),
            bounds,
            block_size: usize::try_from(control.block_size).unwrap_or(usize::MAX),
            segment_blocks: control.segment_blocks,
            progress: self.progress,
            stop: AtomicBool::new(false),
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
        };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = self.options.workers.map_or(cores, NonZeroUsize::get).clamp(1, WORKERS_MAX);
        let writers = (0..workers).map(|_| self.session.writer()).collect::<Result<Vec<_>, _>>()?;
        let (sender, receiver) = sync_channel(MESSAGES_MAX);
        thread::scope(|scope| {
            for writer in writers {
                let (work, sender) = (&work, sender.clone());
                scope.spawn(move || work.run(writer, &sender));
            }
            drop(sender);
            let result = self.attend(&receiver, &work, scan, bounds, wal, writer, tally);
            if result.is_err() {
                work.stop.store(true, Ordering::Release);
                // Until all have gone: one that waits for an answer must not wait for ever.
                for message in receiver {
                    if matches!(message, Message::Refresh) {
                        bounds.set(Lsn(0));
                    }
                }
            }
            result
        })
    }

    /// Serves the workers until all have ended: keeps their entries, asks the server for them, copies WAL, tells how far it is.
    fn attend(
        &self,
        receiver: &Receiver<Message>,
        work: &Work<'_>,
        scan: &Scan,
        bounds: &LiveBounds,
        wal: &mut WalCopy,
        writer: &mut FrameWriter,
        tally: &mut Tally,
    ) -> Result<(), CreateError> {
        let total = Counts { files: scan.files.len() as u64, bytes: scan.bytes };
        let mut meter = Meter::new(Instant::now());
        let mut next_tick = Instant::now();
        let mut next_draft = Instant::now() + self.options.draft_every;
        loop {
            let now = Instant::now();
            if now >= next_draft {
                self.session.draft(&serde_json::json!({ "draft": self.options.cluster }))?;
                next_draft = Instant::now() + self.options.draft_every;
            }
            if now >= next_tick {
                let position = self.position(bounds)?;
                wal.advance(position.flushed, writer, &mut |entry| self.keep(entry))?;
                next_tick = Instant::now() + TICK;
            }
            let done = Counts {
                files: work.files_done.load(Ordering::Relaxed),
                bytes: work.bytes_done.load(Ordering::Relaxed),
            };
            meter.tell(self.progress, now, Stage::Copying, done, total);
            match receiver.recv_timeout(next_tick.saturating_duration_since(now).min(crate::progress::UPDATE_EVERY)) {
                Ok(Message::Entry(entry)) => {
                    tally.count(&entry);
                    self.keep(entry)?;
                }
                Ok(Message::Corrupt(path, pages)) => self.corrupt(&path, &pages, tally)?,
                Ok(Message::Refresh) => {
                    self.position(bounds)?;
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // A worker that ended by a panic has not said so.
        let done = work.files_done.load(Ordering::Relaxed);
        if done == scan.files.len() as u64 { Ok(()) } else { Err(CreateError::Worker) }
    }

    fn position(&self, bounds: &LiveBounds) -> Result<Position, CreateError> {
        let position = self.server.position()?;
        if position.standby != self.facts.standby {
            return Err(CreateError::Promoted);
        }
        bounds.set(position.insert);
        Ok(position)
    }

    fn corrupt(&self, path: &[u8], pages: &[super::pages::BadPage], tally: &mut Tally) -> Result<(), CreateError> {
        let path = shown(path);
        for page in pages {
            let (block, why) = (page.block, page.why.to_string());
            if self.options.fail_on_corruption {
                return Err(CreateError::CorruptPages { count: pages.len() as u64, path, block, why });
            }
            tally.corrupt_count += 1;
            if tally.corrupt.len() < CORRUPT_PAGES_NAMED_MAX {
                self.progress.note(&Note::CorruptPage { path: path.clone(), block, why: why.clone() });
                tally.corrupt.push(CorruptPage { path: path.clone(), block, why });
            }
        }
        Ok(())
    }

    fn databases(&self, counted: &BTreeMap<u32, (u64, u64)>) -> Result<Vec<Database>, CreateError> {
        let rows = self.server.databases(self.facts.version)?;
        let database = |row: super::server::DatabaseRow| {
            let (relation_files, bytes) = counted.get(&row.oid).copied().unwrap_or_default();
            let (oid, name, collate, collation_version) = (row.oid, row.name, row.collate, row.collation_version);
            Database { oid, name, relation_files, bytes, collate, collation_version }
        };
        Ok(rows.into_iter().map(database).collect())
    }

    fn held_settings(&self) -> BTreeMap<String, Option<String>> {
        self.options.held_settings.as_ref().map(|held| held()).unwrap_or_default()
    }

    /// Configuration files that the data directory lacks, as on Debian.
    fn outside_files(&self) -> Vec<(&'static str, String)> {
        let named = [
            ("config_file", &self.facts.config_file),
            ("hba_file", &self.facts.hba_file),
            ("ident_file", &self.facts.ident_file),
        ];
        let outside =
            |path: &&String| !Path::new(path).starts_with(&self.directory.path) && Path::new(path).is_absolute();
        named.into_iter().filter_map(|(name, path)| Some((name, path.as_ref().filter(outside)?.clone()))).collect()
    }

    fn outside(&self, writer: &mut FrameWriter) -> Result<(), CreateError> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        // Bounds what a setting that names a device would read.
        const OUTSIDE_BYTES_MAX: u64 = 4 << 20;
        for (name, path) in self.outside_files() {
            let read = std::fs::metadata(&path).and_then(|metadata| {
                let fits = metadata.is_file() && metadata.len() <= OUTSIDE_BYTES_MAX;
                if fits {
                    Ok((std::fs::read(&path)?, metadata))
                } else {
                    Err(std::io::Error::other("it is no small file"))
                }
            });
            match read {
                Ok((bytes, metadata)) => {
                    let mut content = Content::default();
                    content.add(&bytes, writer)?;
                    let mode = metadata.permissions().mode() & 0o7777;
                    let meta = Meta { kind: Kind::Outside, mode, modified: metadata.mtime(), crc32c: 0 };
                    self.keep(content.into_entry(path.into_bytes(), meta))?;
                }
                Err(error) => {
                    self.progress.note(&Note::Warning(format!("{name} = {path} is not in the backup: {error}")))
                }
            }
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, entry: &Entry) {
        self.files += 1;
        self.bytes += entry.size;
        if let Some(file) = RelationFile::parse(&entry.name) {
            let of = self.databases.entry(file.relation.database).or_default();
            *of = (of.0 + 1, of.1 + entry.size);
        }
    }
}

/// The tablespaces that the map names. One that was made since the start is not in it, and comes from WAL.
fn tablespaces(map: &str, scan: &Scan) -> Result<Vec<Tablespace>, CreateError> {
    let map = match TablespaceMap::parse(map.as_bytes()) {
        Ok(map) => map,
        Err(error) => {
            return Err(CreateError::Sql {
                what: "read the tablespace map",
                why: error.to_string(),
                hint: "take the backup again",
            });
        }
    };
    // An in-place tablespace may be in the map of some versions: it is a directory, and was copied as one.
    let in_place = scan.in_place();
    let links = map.links.into_iter().filter(|(oid, _)| !in_place.contains(oid));
    links
        .map(|(oid, path)| match String::from_utf8(path) {
            Ok(location) => Ok(Tablespace { oid, location }),
            Err(error) => Err(CreateError::Location { oid, location: shown(error.as_bytes()) }),
        })
        .collect()
}

fn rules(data_dir: &Path, facts: &Facts) -> Rules {
    let inside = |path: &String| {
        let path = Path::new(path);
        let relative = if path.is_absolute() { path.strip_prefix(data_dir).ok()? } else { path };
        Some(relative.to_str()?.trim_end_matches('/').as_bytes().to_vec())
    };
    Rules { stats_temp_directory: facts.stats_temp_directory.as_ref().and_then(inside).unwrap_or_default() }
}

fn host(directory: &DataDir, facts: &Facts) -> Result<Host, CreateError> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (owner, data_dir_mode) = directory.owner()?;
    Ok(Host {
        name,
        data_dir: directory.path.to_string_lossy().into_owned(),
        data_dir_mode,
        owner,
        bin_dir: facts.bin_dir.clone(),
        server: facts.banner.clone(),
        libc_collation: facts.libc_collation.clone(),
        icu_collation: facts.icu_collation.clone(),
    })
}

/// Begins the session in the repository. One that a killed run of this host left open is taken over: whoever holds the lock on the data
/// directory knows that its writer is dead.
fn begin(
    options: &CreateOptions,
    repository: &Repository,
    directory: &DataDir,
    host: &Host,
    progress: &dyn Progress,
) -> Result<Session, CreateError> {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let place =
        serde_json::json!({ "host": host.name, "machine": machine, "data_dir": directory.path.to_string_lossy() });
    repository.refresh()?;
    let left = repository
        .with_state(|state| state.writer_of(&options.cluster).map(|(_, session)| session.info["place"].clone()));
    let ours = left.as_ref() == Some(&place);
    if ours {
        progress.note(&Note::Warning(
            "an earlier run was interrupted; what its draft holds is not stored again".to_owned(),
        ));
    }
    let info = serde_json::json!({ "place": place, "pid": std::process::id(), "started": Timestamp::now() });
    let info = SessionInfo { cluster: options.cluster.clone(), take_over: options.take_over || ours, info };
    Ok(repository.begin(info)?)
}

/// Refuses what is not the cluster that the repository knows by this name.
fn check_identity(
    options: &CreateOptions,
    repository: &Repository,
    server: &Server,
    control: &Control,
    data_dir: &Path,
    host: &Host,
    progress: &dyn Progress,
) -> Result<(), CreateError> {
    let Some(newest) = newest_of(options, repository) else { return Ok(()) };
    let timeline = control.file.min_recovery_timeline.max(control.file.checkpoint.timeline);
    let history = std::fs::read_to_string(data_dir.join(format!("pg_wal/{timeline:08X}.history")));
    let history = history.ok().and_then(|text| TimelineHistory::parse(&text).ok());
    let position = server.position()?;
    let now = Now {
        system_id: control.file.system_identifier,
        timeline,
        position: position.insert,
        standby: position.standby,
        host: &host.name,
        data_dir: &host.data_dir,
        history: history.as_ref(),
    };
    match identity::judge(&now, &newest) {
        Verdict::Same => {}
        Verdict::Odd(why) => progress.note(&Note::Warning(why)),
        Verdict::Clone(why) if options.adopt => progress.note(&Note::Warning(format!("adopted although {why}"))),
        Verdict::Clone(why) => return Err(CreateError::Clone { cluster: options.cluster.clone(), why }),
        Verdict::Other => {
            let (theirs, ours) = (newest.system_id, now.system_id);
            return Err(CreateError::OtherCluster { cluster: options.cluster.clone(), theirs, ours });
        }
    }
    Ok(())
}

/// The newest backup of that name whose info can be read.
fn newest_of(options: &CreateOptions, repository: &Repository) -> Option<BackupInfo> {
    let infos = repository.backups().into_iter().filter_map(|record| BackupInfo::parse(&record.info).ok());
    infos.filter(|info| info.cluster == options.cluster).max_by_key(|info| info.stop_time)
}

/// Says what the backup will take, and refuses when that is known to be too much.
fn check_space(
    options: &CreateOptions,
    repository: &Repository,
    data_dir: &Path,
    rules: &Rules,
    control: &Control,
    progress: &dyn Progress,
) -> Result<(), CreateError> {
    Meter::new(Instant::now()).tell(progress, Instant::now(), Stage::Preparing, Counts::default(), Counts::default());
    let found = scan(data_dir, rules, &control.file.tablespace_directory())?;
    let first = newest_of(options, repository).is_none();
    let basis =
        if first { "half of the plain bytes" } else { "half of the plain bytes; what has not changed takes none" };
    let needed = found.bytes as f64 * FIRST_RATIO;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "half of a file size, not negative")]
    let space_needed = needed as u64;
    let space_free = repository.free_bytes();
    progress.note(&Note::Plan { files: found.files.len() as u64, bytes: found.bytes, space_needed, space_free, basis });
    match space_free {
        Some(free) if first && free < space_needed && !options.skip_space_check => {
            Err(CreateError::NoSpace { needed: space_needed, free })
        }
        _ => Ok(()),
    }
}
