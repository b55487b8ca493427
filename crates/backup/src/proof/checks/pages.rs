//! Every page of every relation: its header, and its checksum where the cluster has them.
//!
//! Done on the files of the running server, right after a checkpoint: nobody else works in it. A page that seems wrong is read again, as the
//! server may have been writing it.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::Lsn;
use pg_format::{
    ControlFile,
    files::RelationFile,
    page::{Bounds, PageVerdict, verify},
};

use crate::proof::{
    error::Halt,
    receipt::{Check, CheckName, Outcome},
};

/// How many pages are read at once.
const PAGES_AT_ONCE: usize = 64;
/// How many threads read.
const THREADS_MAX: usize = 4;
/// How often a page that seems wrong is read again, and after what pause.
const REREADS: u32 = 3;
const REREAD_AFTER: Duration = Duration::from_millis(100);
/// How many pages that seem wrong are remembered, to be read again; the rest is taken as it is.
const SUSPECTS_MAX: usize = 1000;

/// A page that seems wrong.
#[derive(Clone, Debug)]
struct Suspect {
    path: PathBuf,
    /// As in the data directory.
    name: String,
    index: u64,
    block: u32,
    why: String,
}

struct Walk<'a> {
    control: &'a ControlFile,
    insert: Lsn,
    files: Vec<(PathBuf, String, RelationFile)>,
    next: AtomicUsize,
    pages: AtomicU64,
    suspects: Mutex<Vec<Suspect>>,
    /// Files that could not be read.
    unread: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Reads all of it. `insert_lsn` asks the server how far its WAL goes; no page may be from beyond that.
pub(crate) fn check(
    data: &Path,
    scratch: &Path,
    control: &ControlFile,
    mut insert_lsn: impl FnMut() -> Result<Lsn, Halt>,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Check, Halt> {
    let walk = Walk {
        control,
        insert: insert_lsn()?,
        files: files(data, scratch)?,
        next: AtomicUsize::new(0),
        pages: AtomicU64::new(0),
        suspects: Mutex::default(),
        unread: Mutex::default(),
        stop: AtomicBool::new(false),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| walk.work(cancelled));
        }
    });
    if walk.stop.into_inner() {
        return Err(Halt::not_proven("the proof was cancelled"));
    }
    let how = if control.has_checksums() {
        "checksums and headers"
    } else {
        "headers only: the cluster has no data checksums"
    };
    let mut check = Check::new(CheckName::PageChecksums, how);
    check.examined = walk.pages.into_inner();
    for problem in walk.unread.into_inner().unwrap_or_default() {
        check.find(Outcome::Broken, &problem);
    }
    let mut suspects = walk.suspects.into_inner().unwrap_or_default();
    for _ in 0..REREADS {
        if suspects.is_empty() {
            break;
        }
        std::thread::sleep(REREAD_AFTER);
        let insert = insert_lsn()?;
        suspects.retain_mut(|suspect| match reread(suspect, control, insert) {
            Some(why) => {
                suspect.why = why;
                true
            }
            None => false,
        });
    }
    suspects.sort_by(|a, b| (&a.name, a.block).cmp(&(&b.name, b.block)));
    for suspect in suspects {
        check.find(Outcome::Failed, &format!("{} block {}: {}", suspect.name, suspect.block, suspect.why));
    }
    Ok(check)
}

impl Walk<'_> {
    fn work(&self, cancelled: &(dyn Fn() -> bool + Sync)) {
        let size = self.control.block_size as usize;
        let mut buffer = vec![0; size * PAGES_AT_ONCE];
        while let Some((path, name, file)) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.load(Ordering::Relaxed) || cancelled() {
                self.stop.store(true, Ordering::Relaxed);
                return;
            }
            if let Err(error) = self.read(path, name, *file, &mut buffer) {
                // The server may drop a file; what is damaged shows as something else.
                if error.kind() != std::io::ErrorKind::NotFound {
                    self.unread
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(format!("{name}: {error}"));
                }
            }
        }
    }

    fn read(&self, path: &Path, name: &str, file: RelationFile, buffer: &mut [u8]) -> std::io::Result<()> {
        let size = self.control.block_size as usize;
        let first = file.first_block(self.control.segment_blocks).unwrap_or(0);
        let mut source = File::open(path)?;
        let mut index = 0u64;
        loop {
            let filled = fill(&mut source, buffer)?;
            for page in buffer[..filled].chunks(size) {
                let block = first.wrapping_add(u32::try_from(index).unwrap_or(u32::MAX));
                if let Some(why) = judge(page, block, self.control, self.insert) {
                    let mut suspects = self.suspects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if suspects.len() < SUSPECTS_MAX {
                        let (path, name) = (path.to_owned(), name.to_owned());
                        suspects.push(Suspect { path, name, index, block, why });
                    }
                }
                index += 1;
            }
            self.pages.fetch_add(filled.div_ceil(size) as u64, Ordering::Relaxed);
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// What is wrong with a page, if anything is.
fn judge(page: &[u8], block: u32, control: &ControlFile, insert: Lsn) -> Option<String> {
    // Nothing will repair a page any more: none is "newer than the backup's start".
    let bounds = Bounds { start: Lsn(u64::MAX), insert, checksums: control.has_checksums() };
    match verify(page, block, &bounds) {
        _ if page.len() < control.block_size as usize => Some(format!("only {} bytes of it are there", page.len())),
        PageVerdict::Corrupt(why) => Some(why.to_string()),
        PageVerdict::Good | PageVerdict::Empty | PageVerdict::Newer => None,
    }
}

fn reread(suspect: &Suspect, control: &ControlFile, insert: Lsn) -> Option<String> {
    let mut page = vec![0; control.block_size as usize];
    let offset = suspect.index * u64::from(control.block_size);
    match File::open(&suspect.path).and_then(|file| file.read_exact_at(&mut page, offset)) {
        Ok(()) => judge(&page, suspect.block, control, insert),
        // Dropped meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(_) => Some(suspect.why.clone()),
    }
}

fn fill(source: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The files of relations, by the directories that hold them: `base`, `global`, and what the links in `pg_tblspc` lead to.
fn files(data: &Path, scratch: &Path) -> Result<Vec<(PathBuf, String, RelationFile)>, Halt> {
    let mut found = Vec::new();
    let mut pending = vec![data.join("base"), data.join("global"), data.join("pg_tblspc")];
    let links = data.join("pg_tblspc");
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).map_err(Halt::file("read", &dir))? {
            let entry = entry.map_err(Halt::file("read", &dir))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(Halt::file("look at", &path))?;
            // A link to a place that is a directory of ours only inside of the fence leads to the live one from here.
            let ours =
                kind.is_symlink() && dir == links && fs::canonicalize(&path).is_ok_and(|to| to.starts_with(scratch));
            if kind.is_dir() || ours {
                pending.push(path);
                continue;
            }
            let Ok(relative) = path.strip_prefix(data) else { continue };
            let parsed = RelationFile::parse(relative.as_os_str().as_bytes());
            if let Some(file) = parsed.filter(|file| file.backend.is_none()) {
                found.push((path.clone(), relative.display().to_string(), file));
            }
        }
    }
    Ok(found)
}
