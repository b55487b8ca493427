//! The run of a restore, step by step.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, BufWriter, Write},
    num::NonZeroUsize,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, lchown, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use pg_format::{
    Major, control,
    files::WAL_SUBDIRECTORIES,
    label,
    manifest::{self, Algorithm, Checksum, ManifestFile, ManifestWriter, WalRange},
};
use repository::{BackupReader, Entry, Extent, Repository};

use super::{
    MARKER, MARKER_NEW, Observed, RestoreError, RestoreOptions, RestorePlan, Restored, conf,
    plan::{self as planning, place},
    write::{Ids, JOBS_MAX, Job, Target, Work, create, dress},
};
use crate::{
    entry::{Kind, Meta},
    info::BackupInfo,
    names,
    progress::{Counts, Meter, Note, Progress, Stage, UPDATE_EVERY},
};

/// The most threads that write.
const WORKERS_MAX: usize = 64;
/// Files that are read into memory to be changed; those of the server's own are a few KiB.
const CHANGED_BYTES_MAX: u64 = 16 << 20;
/// The control file's name until everything else is on disk.
const CONTROL_HELD_BACK: &str = "global/pg_control.oxpecker";
/// Files that would make a server follow another one or recover from an archive: a restore is a server of its own.
const SIGNAL_FILES: [&[u8]; 2] = [b"standby.signal", b"recovery.signal"];
/// What makes a server recover from an archive (12 and later).
const RECOVERY_SIGNAL: &str = "recovery.signal";
const AUTO_CONF: &str = "postgresql.auto.conf";

/// What a restore would do. Changes nothing.
///
/// # Errors
/// The restore would refuse, for the same reason.
pub fn plan(options: &RestoreOptions, repository: &Repository) -> Result<RestorePlan, RestoreError> {
    let reader = repository.read(options.backup)?;
    let info = BackupInfo::parse(reader.info())?;
    let plan = prepare(options, repository, &info)?.plan;
    plan.fits(free_bytes(&plan.target))?;
    Ok(plan)
}

/// Restores a backup. Returns when everything is on disk.
///
/// # Errors
/// See [`RestoreError`]. Whatever the error, no server can start from what is there, and the same restore can be run again.
pub fn restore(
    options: &RestoreOptions,
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<Restored, RestoreError> {
    let began = Instant::now();
    // A repository that can't be written to can still be restored from.
    let hold = repository.hold(options.backup, serde_json::json!({ "restore": std::process::id() }));
    let _hold = hold.inspect_err(|error| {
        progress.note(&Note::Warning(format!("nothing keeps the backup from expiring while it is restored: {error}")));
    });
    let reader = repository.read(options.backup)?;
    let info = BackupInfo::parse(reader.info())?;
    let Prepared { plan, owner, identity } = prepare(options, repository, &info)?;
    if plan.continues && plan.target.join(control::PATH).exists() {
        // Killed between the last two steps: all is there and on disk, and a server may have been started since.
        remove_marker(&plan.target)?;
        tell(progress, Stage::Done);
        return Ok(Restored { plan, info, took: began.elapsed() });
    }
    let space_free = free_bytes(&plan.target);
    let needed = plan.needs();
    let basis = "the plain bytes of all files and of the write-ahead log";
    progress.note(&Note::Plan { files: plan.files, bytes: plan.bytes, space_needed: needed, space_free, basis });
    plan.fits(space_free)?;
    let major = Major::from_number(info.pg_version.major())?;
    let mut run = Run {
        reader: &reader,
        info: &info,
        plan: &plan,
        owner,
        major,
        fence: options.fence,
        recovery: &options.recovery,
        progress,
    };
    let _lock = run.begin(&identity)?;
    run.all(options.workers)?;
    run.finish()?;
    tell(progress, Stage::Done);
    Ok(Restored { plan, info, took: began.elapsed() })
}

fn is_target(setting: &str) -> bool {
    setting.starts_with("recovery_target")
}

struct Prepared {
    plan: RestorePlan,
    owner: Option<Ids>,
    identity: String,
}

fn prepare(options: &RestoreOptions, repository: &Repository, info: &BackupInfo) -> Result<Prepared, RestoreError> {
    let tablespaces = planning::tablespaces(info, options)?;
    let mut identity = format!("backup {} of repository {}", options.backup, repository.id());
    for tablespace in &tablespaces {
        identity.push_str(&format!(", tablespace {} to {:?}", tablespace.oid, tablespace.to));
    }
    // Where it stops is another restore; how it gets there is not.
    for (name, value) in options.recovery.iter().filter(|(name, value)| is_target(name) && !value.is_empty()) {
        identity.push_str(&format!(", {name} {value:?}"));
    }
    let at_target = observe(&options.target)?;
    let at_tablespaces = tablespaces.iter().map(|tablespace| observe(&tablespace.to)).collect::<Result<Vec<_>, _>>()?;
    for made in &info.tablespaces_in_wal {
        // Replay would link to it, and write.
        if !options.replay_is_fenced && observe(Path::new(&made.location))? == Observed::Occupied {
            return Err(RestoreError::TablespaceInWal { oid: made.oid, path: made.location.clone().into() });
        }
    }
    let (owner, start_as) = owner(options, info)?;
    let plan = planning::plan(info, options, tablespaces, &at_target, &at_tablespaces, &identity, start_as.as_deref())?;
    Ok(Prepared { plan, owner, identity })
}

fn observe(directory: &Path) -> Result<Observed, RestoreError> {
    let fail = |what| RestoreError::io(what, directory);
    let mut entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Observed::Absent),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Observed::Occupied),
        Err(error) => return Err(fail("look into")(error)),
    };
    // All that is left of a restore which was killed before its marker had its name.
    let nameless = |entry: &io::Result<fs::DirEntry>| entry.as_ref().is_ok_and(|entry| entry.file_name() == MARKER_NEW);
    match entries.find(|entry| !nameless(entry)) {
        None => return Ok(Observed::Empty),
        Some(entry) => drop(entry.map_err(fail("look into"))?),
    }
    match fs::read_to_string(directory.join(MARKER)) {
        Ok(text) => Ok(Observed::Begun(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Observed::Occupied),
        Err(error) => Err(fail("read the marker in")(error)),
    }
}

/// As whom the restored server will run, by number: none where that is whoever restores.
///
/// # Errors
/// This host does not know the user.
pub fn runs_as(options: &RestoreOptions, info: &BackupInfo) -> Result<Option<(u32, u32)>, RestoreError> {
    Ok(owner(options, info)?.0.map(|ids| (ids.uid, ids.gid)))
}

/// Whom the files are given to, and who starts the server. Only root can give files away, and must not start a server itself.
fn owner(options: &RestoreOptions, info: &BackupInfo) -> Result<(Option<Ids>, Option<String>), RestoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok((None, None));
    }
    let wanted = options.owner.clone().or_else(|| info.host.owner.user.clone());
    let named = wanted.as_ref().and_then(|name| names::ids_of_user(name));
    match (named, wanted) {
        (Some((uid, gid)), name) => Ok((Some(Ids { uid, gid }), name)),
        // Nobody named: a host without names for its users, as containers are.
        (None, None) => Ok((Some(Ids { uid: info.host.owner.uid, gid: info.host.owner.gid }), None)),
        (None, Some(wanted)) => Err(RestoreError::NoOwner { wanted }),
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn tell(progress: &dyn Progress, stage: Stage) {
    Meter::new(Instant::now()).tell(progress, Instant::now(), stage, Counts::default(), Counts::default());
}

struct Run<'a> {
    reader: &'a BackupReader,
    info: &'a BackupInfo,
    plan: &'a RestorePlan,
    owner: Option<Ids>,
    major: Major,
    fence: bool,
    recovery: &'a [(String, String)],
    progress: &'a dyn Progress,
}

/// What the walk over the entries leaves for afterwards.
#[derive(Default)]
struct Left {
    control: Option<(Vec<u8>, u32)>,
    auto_conf: Option<(Vec<u8>, Meta)>,
    outside: BTreeMap<String, (Vec<u8>, Meta)>,
    /// Oids of tablespaces that are directories in the data directory.
    in_place: Vec<u32>,
}

type Manifest = ManifestWriter<BufWriter<File>>;

impl Run<'_> {
    /// Takes possession of the target: lock, marker, label.
    fn begin(&self, identity: &str) -> Result<File, RestoreError> {
        let target = &self.plan.target;
        self.directory(target, self.info.host.data_dir_mode)?;
        let lock = File::open(target).map_err(RestoreError::io("open", target))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RestoreError::Busy(target.clone())),
            Err(TryLockError::Error(source)) => return Err(RestoreError::io("lock", target)(source)),
        }
        let marker = target.join(MARKER);
        if !self.plan.continues {
            // Whole or not at all: a marker that is cut off would make the rest a stranger's.
            let new = target.join(MARKER_NEW);
            self.small(&new, format!("{identity}\n").as_bytes(), 0o600)?;
            File::open(&new).and_then(|new| new.sync_all()).map_err(RestoreError::io("sync", &new))?;
            fs::rename(&new, &marker).map_err(RestoreError::io("name", &marker))?;
            lock.sync_all().map_err(RestoreError::io("sync", target))?;
        }
        for tablespace in &self.plan.tablespaces {
            fs::create_dir_all(&tablespace.to).map_err(RestoreError::io("create the directory", &tablespace.to))?;
            self.directory(&tablespace.to, 0o700)?;
        }
        for made in &self.info.tablespaces_in_wal {
            // Replay wants it to be there.
            let place = Path::new(&made.location);
            fs::create_dir_all(place).map_err(RestoreError::io("create the directory", place))?;
            self.directory(place, 0o700)?;
        }
        // The first file of all: a copy that has a control file but no label would recover from the wrong place.
        self.small(&target.join(label::FILE_NAME), self.info.backup_label.as_bytes(), 0o600)?;
        if !self.plan.tablespace_map.is_empty() {
            self.small(&target.join(label::MAP_FILE_NAME), &self.plan.tablespace_map, 0o600)?;
        }
        lock.sync_all().map_err(RestoreError::io("sync", target))?;
        Ok(lock)
    }

    fn all(&mut self, workers: Option<NonZeroUsize>) -> Result<(), RestoreError> {
        let work = Work {
            reader: self.reader,
            owner: self.owner,
            continues: self.plan.continues,
            progress: self.progress,
            stop: AtomicBool::new(false),
            failed: Mutex::new(None),
            bytes_done: AtomicU64::new(0),
            files_done: AtomicU64::new(0),
        };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = workers.map_or(cores, NonZeroUsize::get).clamp(1, WORKERS_MAX);
        let path = self.plan.target.join(manifest::FILE_NAME);
        let write = |error| RestoreError::io("write", &path)(error);
        let file = create(&path, 0o600)?;
        dress(&file, 0o600, self.owner).map_err(write)?;
        let mut manifest =
            ManifestWriter::begin(BufWriter::new(file), self.major, self.info.system_id).map_err(write)?;
        let (jobs, receiver) = sync_channel(JOBS_MAX);
        let receiver = Mutex::new(receiver);
        let finished = AtomicBool::new(false);
        let left = thread::scope(|scope| {
            let crew: Vec<_> = (0..workers).map(|_| scope.spawn(|| work.run(&receiver))).collect();
            scope.spawn(|| self.report(&work, &finished));
            let result = self.entries(&work, &jobs, &mut manifest);
            if result.is_err() {
                work.stop.store(true, Ordering::Release);
            }
            drop(jobs);
            let panics = crew.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_err).count();
            finished.store(true, Ordering::Release);
            if panics > 0 { Err(RestoreError::Worker) } else { result }
        });
        if let Some(error) = work.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let left = left?;
        self.configuration(&left, &mut manifest).and_then(|()| self.generated(&mut manifest))?;
        self.signal()?;
        let range = WalRange { timeline: self.info.timeline, start: self.info.start_lsn, end: self.info.stop_lsn };
        manifest.finish(&[range]).and_then(|mut out| out.flush()).map_err(write)?;
        let (control, mode) = left.control.ok_or(RestoreError::Missing("global/pg_control"))?;
        self.small(&self.plan.target.join(CONTROL_HELD_BACK), &control, mode)
    }

    /// Tells how far it is, until the workers have ended.
    fn report(&self, work: &Work<'_>, finished: &AtomicBool) {
        let mut meter = Meter::new(Instant::now());
        let total = Counts { files: self.plan.files, bytes: self.plan.bytes };
        // Looks more often than it tells, so that a small restore does not wait for its reporter.
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        while !finished.load(Ordering::Acquire) {
            let done = Counts {
                files: work.files_done.load(Ordering::Relaxed),
                bytes: work.bytes_done.load(Ordering::Relaxed),
            };
            meter.tell(self.progress, Instant::now(), Stage::Writing, done, total);
            thread::sleep(LOOK_EVERY.min(UPDATE_EVERY));
        }
    }

    fn entries(&self, work: &Work<'_>, jobs: &SyncSender<Job>, manifest: &mut Manifest) -> Result<Left, RestoreError> {
        let mut left = Left::default();
        for entry in self.reader.entries() {
            if work.stop.load(Ordering::Acquire) {
                break;
            }
            self.entry(entry?, &mut left, work, jobs, manifest)?;
        }
        Ok(left)
    }

    fn entry(
        &self,
        entry: Entry,
        left: &mut Left,
        work: &Work<'_>,
        jobs: &SyncSender<Job>,
        manifest: &mut Manifest,
    ) -> Result<(), RestoreError> {
        let meta = Meta::parse(&entry.name, &entry.meta)?;
        if meta.kind == Kind::Outside {
            let name = crate::entry::shown(&entry.name);
            left.outside.insert(name, (self.content(&entry)?, meta));
            return Ok(());
        }
        let path = place(self.plan, &entry.name)?;
        if !self.is_wanted(&entry.name, meta.kind, left) {
            return Ok(());
        }
        match meta.kind {
            Kind::Directory => return self.directory(&path, meta.mode),
            Kind::Wal => self.archived(&entry.name)?,
            Kind::File | Kind::Outside => {}
        }
        if entry.name == control::PATH.as_bytes() {
            left.control = Some((self.content(&entry)?, meta.mode));
            self.list(manifest, &entry.name, entry.size, meta.modified, meta.crc32c)?;
            return Ok(());
        }
        if entry.name == AUTO_CONF.as_bytes() {
            left.auto_conf = Some((self.content(&entry)?, meta));
            return Ok(());
        }
        for known in [label::FILE_NAME, label::MAP_FILE_NAME, manifest::FILE_NAME, MARKER] {
            // Never in a backup of ours; these are written by the restore itself.
            if entry.name == known.as_bytes() {
                return Ok(());
            }
        }
        if meta.kind == Kind::File {
            self.list(manifest, &entry.name, entry.size, meta.modified, meta.crc32c)?;
        }
        let target = Target { path, size: entry.size, mode: meta.mode, crc32c: meta.crc32c };
        // Workers that have ended have left their reason behind.
        work.submit(jobs, target, entry).map(drop)
    }

    /// Whether an entry belongs into this restore.
    fn is_wanted(&self, name: &[u8], kind: Kind, left: &mut Left) -> bool {
        if SIGNAL_FILES.contains(&name) {
            self.progress.note(&Note::Warning(format!(
                "{} is left out: the restored server is one of its own, not a standby",
                crate::entry::shown(name)
            )));
            return false;
        }
        let Some(rest) = name.strip_prefix(b"pg_tblspc/") else { return true };
        let (oid, rest) = match rest.iter().position(|byte| *byte == b'/') {
            Some(slash) => (&rest[..slash], &rest[slash..]),
            None => (rest, &rest[rest.len()..]),
        };
        let Some(oid) = std::str::from_utf8(oid).ok().and_then(|oid| oid.parse::<u32>().ok()) else { return true };
        if rest.is_empty() && kind == Kind::Directory {
            left.in_place.push(oid);
            return true;
        }
        // Made while the backup ran: the map does not know it, and WAL makes it anew.
        left.in_place.contains(&oid) || self.plan.tablespaces.iter().any(|tablespace| tablespace.oid == oid)
    }

    /// The whole content of a small file.
    fn content(&self, entry: &Entry) -> Result<Vec<u8>, RestoreError> {
        let path = || PathBuf::from(crate::entry::shown(&entry.name));
        if entry.size > CHANGED_BYTES_MAX {
            let source = io::Error::other(format!("it has {} bytes, more than {CHANGED_BYTES_MAX}", entry.size));
            return Err(RestoreError::io("take into memory", path())(source));
        }
        let mut content = Vec::new();
        for extent in &entry.extents {
            match extent {
                Extent::Zero { len } => content.resize(content.len() + usize::try_from(*len).unwrap_or(0), 0),
                Extent::Frame(frame) => content.extend(self.reader.frame(frame)?),
            }
        }
        let (expected, found) = (Meta::parse(&entry.name, &entry.meta)?.crc32c, crc32c::crc32c(&content));
        if expected != found {
            return Err(RestoreError::Content { path: path(), expected, found });
        }
        Ok(content)
    }

    /// Says that a segment needs no archiving: its original has seen to that.
    fn archived(&self, name: &[u8]) -> Result<(), RestoreError> {
        let Some(file) = name.strip_prefix(b"pg_wal/") else { return Ok(()) };
        let directory = self.plan.target.join("pg_wal/archive_status");
        self.directory(&directory, 0o700)?;
        let done = [file, b".done"].concat();
        self.small(&directory.join(std::ffi::OsStr::from_bytes(&done)), b"", 0o600)
    }

    /// Links, empty directories and the files that no backup holds.
    fn generated(&self, manifest: &mut Manifest) -> Result<(), RestoreError> {
        let target = &self.plan.target;
        for name in WAL_SUBDIRECTORIES {
            // WAL summaries came with 17.
            if *name == "archive_status" || self.major >= Major::V17 {
                self.directory(&target.join("pg_wal").join(name), 0o700)?;
            }
        }
        for tablespace in &self.plan.tablespaces {
            let link = target.join(format!("pg_tblspc/{}", tablespace.oid));
            let io = |what| RestoreError::io(what, &link);
            match symlink(&tablespace.to, &link) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // From the interrupted restore, which had the same mapping.
                    if fs::read_link(&link).map_err(io("read the link"))? != tablespace.to {
                        return Err(io("link")(error));
                    }
                }
                Err(error) => return Err(io("link")(error)),
            }
            if let Some(Ids { uid, gid }) = self.owner {
                lchown(&link, Some(uid), Some(gid)).map_err(io("set the owner of"))?;
            }
        }
        let label = self.info.backup_label.as_bytes();
        self.list(manifest, label::FILE_NAME.as_bytes(), label.len() as u64, self.now(), crc32c::crc32c(label))?;
        let map = &self.plan.tablespace_map;
        if !map.is_empty() {
            self.list(manifest, label::MAP_FILE_NAME.as_bytes(), map.len() as u64, self.now(), crc32c::crc32c(map))?;
        }
        Ok(())
    }

    fn configuration(&self, left: &Left, manifest: &mut Manifest) -> Result<(), RestoreError> {
        let target = &self.plan.target;
        let (bytes, mode) = left.auto_conf.as_ref().map_or((&[][..], 0o600), |(bytes, meta)| (bytes, meta.mode));
        let text = conf::auto_conf(bytes, &self.info.throttled, self.fence, self.recovery);
        self.small(&target.join(AUTO_CONF), &text, mode)?;
        self.list(manifest, AUTO_CONF.as_bytes(), text.len() as u64, self.now(), crc32c::crc32c(&text))?;
        for (setting, name) in
            [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")]
        {
            let outside = self.info.outside.get(setting).and_then(|path| left.outside.get(path));
            let Some((bytes, _)) = outside else { continue };
            let text = if setting == "config_file" { conf::inside(bytes) } else { bytes.clone() };
            let path = target.join(name);
            // One that lay in the data directory too is not overwritten.
            if !self.plan.continues && path.exists() {
                continue;
            }
            self.small(&path, &text, 0o600)?;
            self.list(manifest, name.as_bytes(), text.len() as u64, self.now(), crc32c::crc32c(&text))?;
        }
        Ok(())
    }

    /// Without it a server recovers with the WAL that is in its directory, and takes writes.
    fn signal(&self) -> Result<(), RestoreError> {
        if self.recovery.is_empty() {
            return Ok(());
        }
        self.small(&self.plan.target.join(RECOVERY_SIGNAL), b"", 0o600)
    }

    /// The time that the manifest gives for files which the restore makes: the backup's, so that a second restore gives the same.
    fn now(&self) -> i64 {
        self.info.stop_time.as_second()
    }

    /// Everything to disk, and only then the control file.
    fn finish(&self) -> Result<(), RestoreError> {
        tell(self.progress, Stage::Syncing);
        let target = &self.plan.target;
        let mut places = vec![target.as_path()];
        places.extend(self.plan.tablespaces.iter().map(|tablespace| tablespace.to.as_path()));
        for place in places {
            let directory = File::open(place).map_err(RestoreError::io("open", place))?;
            // One call for a file system, however many files: it also reports what could not be written (from Linux 5.8 on).
            rustix::fs::syncfs(&directory).map_err(|error| RestoreError::io("sync", place)(error.into()))?;
        }
        let control = target.join(control::PATH);
        fs::rename(target.join(CONTROL_HELD_BACK), &control).map_err(RestoreError::io("name", &control))?;
        let global = target.join("global");
        sync_directory(&global)?;
        remove_marker(target)
    }

    fn list(
        &self,
        manifest: &mut Manifest,
        name: &[u8],
        size: u64,
        modified: i64,
        crc32c: u32,
    ) -> Result<(), RestoreError> {
        let checksum = Checksum { algorithm: Algorithm::Crc32c, bytes: crc32c.to_le_bytes().to_vec() };
        let file = ManifestFile::new(name.to_vec(), size, modified, Some(checksum));
        let path = || self.plan.target.join(manifest::FILE_NAME);
        manifest.add(&file).map_err(|error| RestoreError::io("write", path())(error))
    }

    /// A directory that may be there already, with its owner and mode. Never through a link.
    fn directory(&self, path: &Path, mode: u32) -> Result<(), RestoreError> {
        let fail = |what| RestoreError::io(what, path);
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The target's parents.
                fs::create_dir_all(path).map_err(fail("create the directory"))?;
            }
            Err(error) => return Err(fail("create the directory")(error)),
        }
        let directory = File::open(path).map_err(fail("open"))?;
        dress(&directory, mode, self.owner).map_err(fail("set owner and mode of"))
    }

    fn small(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), RestoreError> {
        let mut file = create(path, mode)?;
        file.write_all(bytes).and_then(|()| dress(&file, mode, self.owner)).map_err(RestoreError::io("write", path))
    }
}

fn remove_marker(target: &Path) -> Result<(), RestoreError> {
    let marker = target.join(MARKER);
    fs::remove_file(&marker).map_err(RestoreError::io("remove", &marker))?;
    sync_directory(target)
}

fn sync_directory(path: &Path) -> Result<(), RestoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(RestoreError::io("sync", path))
}
