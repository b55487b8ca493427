//! Pages as they pass by: whether each is in order, and if not, whether it was only torn by the server's writing while it was read.
//!
//! The rule: a page is corrupt only when it was last changed before the backup's start and several rereads, some time apart, give the same
//! bytes. What was changed since the start is written anew from WAL, whatever was read here.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};

use model::Lsn;
use pg_format::page::{Bounds, Corruption, PageVerdict, verify};

use super::copy::Message;

/// How often a page that is not in order is read again: as many identical reads make it corrupt.
const REREADS: u32 = 4;
/// How often at most, while each read gives other bytes.
const REREADS_MAX: u32 = 20;
/// The pause before the first reread; it doubles up to [`PAUSE_MAX`]. A page's write takes microseconds, an overloaded disk's may take longer.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// From so many corrupt pages in one file on its pages are read again only once: a file that is garbage as a whole must not take hours.
const PATIENT_PAGES: u64 = 256;
/// How long a worker waits for the session to say where WAL ends.
const REFRESH_PATIENCE: Duration = Duration::from_secs(60);

/// What pages are judged against; the end of WAL moves on while files are copied.
#[derive(Debug)]
pub(crate) struct LiveBounds {
    start: Lsn,
    checksums: bool,
    insert: AtomicU64,
    /// How often the end of WAL was asked for.
    asked: Mutex<u64>,
    answered: Condvar,
}

impl LiveBounds {
    pub(crate) fn new(start: Lsn, checksums: bool, insert: Lsn) -> Self {
        Self { start, checksums, insert: AtomicU64::new(insert.0), asked: Mutex::new(0), answered: Condvar::new() }
    }

    fn get(&self) -> Bounds {
        Bounds { start: self.start, insert: Lsn(self.insert.load(Ordering::Acquire)), checksums: self.checksums }
    }

    /// The session's answer.
    pub(crate) fn set(&self, insert: Lsn) {
        self.insert.fetch_max(insert.0, Ordering::AcqRel);
        *self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
        self.answered.notify_all();
    }

    /// Asks the session where WAL ends *now*, and waits for the answer. Where none comes the old answer stays: the worker's next message
    /// then finds nobody, and it ends.
    fn refresh(&self, session: &SyncSender<Message>) {
        let mut count = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = *count;
        drop(count);
        if session.send(Message::Refresh).is_err() {
            return;
        }
        let deadline = Instant::now() + REFRESH_PATIENCE;
        count = self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // An answer that was under way when the page was read may be too old: whoever asks does so again after each reread.
        while *count == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            count = self.answered.wait_timeout(count, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

/// A page that is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadPage {
    pub(crate) block: u32,
    pub(crate) why: Corruption,
}

/// A page that was not in order at the last look.
struct Suspect {
    index: usize,
    block: u32,
    why: Corruption,
    /// Reads since it last changed.
    same: u32,
}

/// The pages of one file.
pub(crate) struct FilePages<'a> {
    pub(crate) file: &'a File,
    pub(crate) bounds: &'a LiveBounds,
    pub(crate) block_size: usize,
    /// The block that the file begins with; `None` beyond the largest that there is.
    pub(crate) first_block: u32,
    pub(crate) session: &'a SyncSender<Message>,
    /// Corrupt ones so far.
    pub(crate) corrupt: u64,
}

impl FilePages<'_> {
    /// Looks at the whole pages in `bytes`, which were read at `offset` (a multiple of the block size). Pages that were torn are replaced in
    /// `bytes` by what a later read gave. Returns those that are corrupt.
    pub(crate) fn check(&mut self, offset: u64, bytes: &mut [u8]) -> Vec<BadPage> {
        let bounds = self.bounds.get();
        let block_of = |index: usize| {
            let in_file = offset / self.block_size as u64 + index as u64;
            self.first_block.wrapping_add(u32::try_from(in_file).unwrap_or(u32::MAX))
        };
        let mut suspects = Vec::new();
        for (index, page) in bytes.chunks_exact(self.block_size).enumerate() {
            if let PageVerdict::Corrupt(why) = verify(page, block_of(index), &bounds) {
                suspects.push(Suspect { index, block: block_of(index), why, same: 0 });
            }
        }
        if suspects.is_empty() {
            return Vec::new();
        }
        self.settle(offset, bytes, suspects)
    }

    fn settle(&mut self, offset: u64, bytes: &mut [u8], mut suspects: Vec<Suspect>) -> Vec<BadPage> {
        let enough = if self.corrupt < PATIENT_PAGES { REREADS } else { 1 };
        let mut page = vec![0; self.block_size];
        let mut pause = PAUSE;
        // A page that is merely newer than the last answer: no reread is needed, the answer is.
        self.bounds.refresh(self.session);
        self.judge(bytes, &mut suspects);
        for _ in 0..REREADS_MAX {
            if suspects.iter().all(|suspect| suspect.same >= enough) {
                break;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
            for suspect in &mut suspects {
                let at = suspect.index * self.block_size;
                let kept = &mut bytes[at..at + self.block_size];
                // Truncated meanwhile, so WAL has the truncation: what was read first serves as well.
                if self.file.read_exact_at(&mut page, offset + at as u64).is_err() || page == *kept {
                    suspect.same += 1;
                } else {
                    suspect.same = 0;
                    kept.copy_from_slice(&page);
                }
            }
            self.bounds.refresh(self.session);
            self.judge(bytes, &mut suspects);
        }
        self.corrupt += suspects.len() as u64;
        suspects.into_iter().map(|suspect| BadPage { block: suspect.block, why: suspect.why }).collect()
    }

    fn judge(&self, bytes: &[u8], suspects: &mut Vec<Suspect>) {
        let bounds = self.bounds.get();
        suspects.retain_mut(|suspect| {
            let at = suspect.index * self.block_size;
            match verify(&bytes[at..at + self.block_size], suspect.block, &bounds) {
                PageVerdict::Corrupt(why) => {
                    suspect.why = why;
                    true
                }
                PageVerdict::Good | PageVerdict::Empty | PageVerdict::Newer => false,
            }
        });
    }
}
