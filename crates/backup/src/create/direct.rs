//! The run of a backup, step by step.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
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
    files::Rules,
    label::{BackupLabel, TablespaceMap},
    wal::{Stream, TimelineHistory},
};
use repository::{Entry, FrameWriter, Repository, Session};

use super::{
    CreateError, CreateOptions, Created, WORKERS_MAX,
    copy::{Content, MESSAGES_MAX, Message, Work},
    identity::Now,
    pages::LiveBounds,
    preflight,
    scan::{Scan, scan},
    server::{Facts, Position, Server},
    source::{Control, DataDir},
    tally::Tally,
    uncached::Uncached,
    wal::WalCopy,
};
use crate::{
    entry::{Kind, Meta, shown},
    info::{BackupInfo, Host, INFO_FORMAT, Source, Tablespace},
    progress::{Counts, Meter, Note, Progress, Stage},
};

/// How often the session is asked where WAL ends, and so whether it is still there.
const TICK: Duration = Duration::from_millis(500);

/// Makes a backup of the data directory at `path`, which is in reach.
pub(super) fn direct(
    options: &CreateOptions,
    repository: &Repository,
    server: &Server,
    facts: &Facts,
    (directory, control): (&DataDir, &Control),
    progress: &dyn Progress,
) -> Result<Created, CreateError> {
    let began = Instant::now();
    preflight::stage(progress, Stage::Preparing);
    let host = preflight::host(directory, facts)?;
    let timeline = control.file.min_recovery_timeline.max(control.file.checkpoint.timeline);
    let history = std::fs::read_to_string(directory.path.join(format!("pg_wal/{timeline:08X}.history")));
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
    preflight::check_identity(options, repository, &now, progress)?;
    let rules = preflight::rules(&directory.path, facts);
    let found = scan(&directory.path, &rules, &control.file.tablespace_directory())?;
    preflight::check_space(options, repository, found.files.len() as u64, found.bytes, progress)?;
    drop(found);
    let session = preflight::begin(options, repository, Some(&directory.path), progress)?;
    let run = |session: &Session| Run { options, server, facts, directory, session, progress, rules: &rules }.all(host);
    preflight::conclude(session, run, began)
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

/// What the copying works on.
struct Copying<'a> {
    scan: &'a Scan,
    bounds: &'a LiveBounds,
    wal: &'a mut WalCopy,
    writer: &'a mut FrameWriter,
    tally: &'a mut Tally,
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
        let before = Server::census(&self.options.url);
        preflight::stage(self.progress, Stage::Checkpoint);
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
        let copying = Copying { scan: &scan, bounds: &bounds, wal: &mut wal, writer: &mut writer, tally: &mut tally };
        self.copy(&control, copying)?;
        self.outside(&mut writer)?;
        // After everything else, as a standby's must be: recovery goes at least as far as it says.
        let control = self.directory.control()?;
        self.control(&control, &mut writer, &mut tally)?;
        preflight::stage(self.progress, Stage::Wal);
        let stopped = server.stop(facts.major)?;
        let stop_time = Timestamp::now();
        let after = Server::census(&self.options.url);
        if server.position()?.standby != facts.standby {
            return Err(CreateError::Promoted);
        }
        let label = BackupLabel::parse(&stopped.label)?;
        wal.finish(stopped.lsn, &mut writer, &mut |entry| self.keep(&entry))?;
        wal.histories(&mut writer, &mut |entry| self.keep(&entry))?;
        let timeline = label.timeline.unwrap_or(control.file.checkpoint.timeline);
        if wal.timeline() != timeline {
            return Err(CreateError::Timeline { from: timeline, to: wal.timeline() });
        }
        // Parks what it has not closed, for the commit to store.
        drop(writer);
        preflight::stage(self.progress, Stage::Committing);
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
            tablespaces_in_wal: std::mem::take(&mut wal.tablespaces),
            in_place_tablespaces: scan.in_place(),
            block_size: control.file.block_size,
            segment_blocks: control.file.segment_blocks,
            wal_segment_size: control.file.wal_segment_size,
            data_checksums: control.file.has_checksums(),
            host,
            files: tally.files,
            bytes: tally.bytes,
            wal_bytes: wal.bytes,
            databases: tally.databases(server.databases(facts.version)?),
            censuses: before.into_iter().chain(after).collect(),
            corrupt_pages_count: tally.corrupt_count,
            corrupt_pages: tally.corrupt,
            throttled,
            outside: self.outside_files().into_iter().map(|(name, path)| (name.to_owned(), path)).collect(),
        })
    }

    fn keep(&self, entry: &Entry) -> Result<(), CreateError> {
        Ok(self.session.entry(entry)?)
    }

    fn directories(&self, scan: &Scan) -> Result<(), CreateError> {
        for found in &scan.directories {
            let meta = Meta { kind: Kind::Directory, mode: found.mode, modified: found.modified, crc32c: 0 };
            self.keep(&Entry { name: found.path.clone(), meta: meta.to_bytes(), size: 0, extents: Vec::new() })?;
        }
        Ok(())
    }

    fn control(&self, control: &Control, writer: &mut FrameWriter, tally: &mut Tally) -> Result<(), CreateError> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let mut content = Content::default();
        content.add(&control.bytes, writer)?;
        let mode = control.metadata.permissions().mode() & 0o7777;
        let meta = Meta { kind: Kind::File, mode, modified: control.metadata.mtime(), crc32c: 0 };
        let entry = content.into_entry(control::PATH.as_bytes().to_vec(), meta);
        tally.count(&entry);
        self.keep(&entry)
    }

    /// Runs the workers, and holds the session meanwhile.
    fn copy(&self, control: &control::ControlFile, mut copying: Copying<'_>) -> Result<(), CreateError> {
        let (scan, bounds) = (copying.scan, copying.bounds);
        let work = Work {
            data_dir: &self.directory.path,
            files: &scan.files,
            next: AtomicUsize::new(0),
            bounds,
            block_size: usize::try_from(control.block_size).unwrap_or(usize::MAX),
            segment_blocks: control.segment_blocks,
            reads: Uncached::default(),
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
            let mut crew = Vec::new();
            for writer in writers {
                let (work, sender) = (&work, sender.clone());
                crew.push(scope.spawn(move || work.run(writer, &sender)));
            }
            drop(sender);
            let result = self.attend(&receiver, &work, &mut copying);
            if result.is_err() {
                work.stop.store(true, Ordering::Release);
                // Until all have gone: one that waits for an answer must not wait for ever.
                for message in receiver {
                    if matches!(message, Message::Refresh) {
                        bounds.set(Lsn(0));
                    }
                }
            }
            // All of them, so that a panic ends here and not in the scope.
            let panics = crew.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
            if panics > 0 { Err(CreateError::Worker) } else { result }
        })
    }

    /// Serves the workers until all have ended: keeps their entries, asks the server for them, copies WAL, tells how far it is.
    fn attend(
        &self,
        receiver: &Receiver<Message>,
        work: &Work<'_>,
        copying: &mut Copying<'_>,
    ) -> Result<(), CreateError> {
        let Copying { scan, bounds, wal, writer, tally } = copying;
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
                wal.advance(position.flushed, writer, &mut |entry| self.keep(&entry))?;
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
                    self.keep(&entry)?;
                }
                Ok(Message::Corrupt(path, pages)) => {
                    for page in pages {
                        tally.corrupt(self.options, self.progress, &path, page.block, &page.why)?;
                    }
                }
                Ok(Message::Refresh) => {
                    self.position(bounds)?;
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn position(&self, bounds: &LiveBounds) -> Result<Position, CreateError> {
        let position = self.server.position()?;
        if position.standby != self.facts.standby {
            return Err(CreateError::Promoted);
        }
        bounds.set(position.insert);
        Ok(position)
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
                    self.keep(&content.into_entry(path.into_bytes(), meta))?;
                }
                Err(error) => {
                    self.progress.note(&Note::Warning(format!("{name} = {path} is not in the backup: {error}")));
                }
            }
        }
        Ok(())
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
