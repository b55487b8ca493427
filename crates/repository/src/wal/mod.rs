//! WAL in the repository: streams of bytes that come for ever, cut into segments.
//!
//! Like the rest of this crate it knows nothing of PostgreSQL. A *stream* is a cluster's, a *line* one of its timelines, a *segment* a piece
//! of a line of fixed size, numbered from 0. What is in them is the caller's. The layout is in `docs/src/format.md`, its reasons are in
//! `docs/decisions/2026-11-23-wal-in-the-repository.md`. The rules are those of the log: create-if-absent, nothing overwritten, no clock,
//! no lease, no listing as state.
//!
//! - *Same name, same content: done. Same name, other content: an error.* So pushes may be repeated, and a receiver and an archive command
//!   store the same WAL side by side without knowing of one another.
//! - A segment that grows is a row of chunks, `0, 1, 2, ...`, each put after the one before. Whoever finds a number taken compares and goes
//!   on behind it: see [`Tail`].
//! - A segment is *absent* only when nothing later is there; else that is a gap, an error.
//!
//! ```text
//! object    bytes of one object               (no I/O)
//! name      names                             (no I/O)
//! tail      chunks of the growing segment
//! index     which ranges are whole; how far a line reaches without a gap
//! order     that epochs of keys never go down along a line
//! lines     what a listing shows
//! map       page maps of ranges
//! prune     removing what has expired
//! verify    reading everything
//! ```

mod ahead;
mod error;
mod index;
mod lines;
mod map;
pub(crate) mod name;
mod object;
mod order;
mod prune;
mod tail;
mod verify;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

pub use ahead::SealedSegment;
pub use error::WalError;
pub use index::Reach;
pub use lines::{LineSeen, Run};
pub use prune::WalPruned;
pub use tail::Tail;
pub use verify::{Inspector, LineReport, WalFinding, WalReport};

use crate::{
    frame::{COMPRESSION_LEVEL, Decoder, Encoder, Identity},
    repository::{Inner, Repository},
    seal::{Epoch, KEY_LEN, KeyRing},
    store::{ObjectName, Put, Store, StoreErrorKind},
};
use name::{Named, Names};
use object::{CONTENT_MAX, FRONT_LEN, Summary};

/// Segments of a range: what one index and one page map speak of.
pub const RANGE: u64 = 64;
/// The most bytes of a history or of what goes with a segment; a `partial` segment may be as long as a segment.
const HISTORY_MAX: usize = 1 << 20;
/// How far ahead is looked for later segments before something counts as absent or as the end: one request each.
const AHEAD: [u64; 8] = [1, 2, 3, 4, 8, 16, 32, 64];
/// How often a segment is looked for that changes between two looks. It is completed once, so two would do.
const LOOKS_MAX: u32 = 4;
/// Compressors and decompressors that are kept for the next caller.
const TOOLS_KEPT_MAX: usize = 4;
/// Identities of segments that are remembered for the index: those of 64 ranges.
const SEEN_MAX: usize = 64 * 64;

/// What became of something that was to be stored. Either way it is there, whole and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is new.
    Now,
    /// It was there, with the same content.
    Before,
}

/// What there is of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning; nothing later is there on its line.
    Beginning(Vec<u8>),
    /// Nothing, and nothing later is there on its line.
    Absent,
}

/// The WAL of one stream. Threads may share it.
pub struct Wal {
    inner: Arc<Inner>,
    names: Names,
    /// As the log calls the stream; `None` where it can't.
    stream: Option<String>,
    segment_bytes: u64,
    identity_key: Zeroizing<[u8; KEY_LEN]>,
    encoders: Mutex<Vec<Encoder>>,
    decoders: Mutex<Vec<Decoder>>,
    /// By line and number: segments that are there.
    seen: Mutex<BTreeMap<(u32, u64), (Identity, Epoch)>>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What a put found.
enum Outcome {
    Stored(Stored, Summary),
    Other,
}

impl Repository {
    /// The WAL of `stream` (whatever names it: a system identifier), in segments of `segment_bytes` bytes.
    ///
    /// # Errors
    /// Segments of that size can't be stored.
    pub fn wal(&self, stream: &[u8], segment_bytes: u64) -> Result<Wal, WalError> {
        if segment_bytes == 0 || segment_bytes > CONTENT_MAX as u64 {
            return Err(WalError::Size {
                what: "the size of WAL segments is not one that can be stored",
                bytes: segment_bytes,
            });
        }
        let ring = self.inner.vault.keys.ring();
        Ok(Wal {
            inner: Arc::clone(&self.inner),
            names: Names::new(&ring, stream),
            stream: std::str::from_utf8(stream).ok().map(str::to_owned),
            segment_bytes,
            identity_key: ring.wal_identity(),
            encoders: Mutex::default(),
            decoders: Mutex::default(),
            seen: Mutex::default(),
        })
    }
}

/// Reads an object of WAL, of whatever stream, and sees that it is what was written under this name. One that vanished was pruned.
pub(crate) fn audit(store: &dyn Store, ring: &KeyRing, name: &ObjectName) -> Result<(), WalError> {
    let object = match store.get(name) {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut decoder = Decoder::new().map_err(WalError::Compression)?;
    object::open(ring, name, &object, &mut decoder).map(drop).map_err(|error| WalError::bad(name, error))
}

/// What the names of a stream's objects begin with.
pub(crate) fn stream_prefix(ring: &KeyRing, stream: &[u8]) -> String {
    Names::new(ring, stream).stream()
}

/// The name of a whole segment.
pub(crate) fn segment_object(ring: &KeyRing, stream: &[u8], line: u32, segment: u64) -> ObjectName {
    Names::new(ring, stream).of(&Named::Segment { line, segment })
}

/// The line and the segment that replay needs the object of this name for; `None` where it needs none.
pub(crate) fn place_of(object: &str) -> Option<(u32, u64)> {
    match name::parse(object)? {
        Named::Segment { line, segment } | Named::Chunk { line, segment, .. } => Some((line, segment)),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wal {
    /// Stores a whole segment.
    ///
    /// # Errors
    /// `Differs` where another segment is there under its number; the store failed: then it may be there or not, and is to be put again.
    pub fn put_segment(&self, line: u32, segment: u64, bytes: &[u8]) -> Result<Stored, WalError> {
        if bytes.len() as u64 != self.segment_bytes {
            return Err(WalError::Size { what: "a whole segment has another size", bytes: bytes.len() as u64 });
        }
        let (stored, summary) = self.put(&Named::Segment { line, segment }, 0, bytes)?;
        self.saw(line, segment, &summary);
        // Without an index everything is found by more requests. It is made by whoever comes next.
        if let Err(error) = self.index_after(line, segment) {
            tracing::warn!(%error, line, segment, "no index of WAL yet");
        }
        Ok(stored)
    }

    /// What there is of a segment.
    ///
    /// # Errors
    /// `Gap` where it is missing or incomplete though later ones are there; `Damaged`; the store failed. None of them means *absent*.
    pub fn get_segment(&self, line: u32, segment: u64) -> Result<Segment, WalError> {
        let whole = Named::Segment { line, segment };
        for _ in 0..LOOKS_MAX {
            if let Some(bytes) = self.whole(line, segment)? {
                return Ok(Segment::Whole(bytes));
            }
            // `None`: chunks vanish while they are read, because the segment was completed.
            let Some(beginning) = self.beginning(line, segment)? else { continue };
            // Its writer died between the last chunk and the whole.
            if beginning.len() as u64 == self.segment_bytes {
                return Ok(Segment::Whole(beginning));
            }
            let later = self.later(line, segment)?;
            // What is completed in between must be neither absent nor a gap.
            if (later.is_some() || beginning.is_empty()) && self.is_there(&whole)? {
                continue;
            }
            return match later {
                Some(later) => Err(WalError::Gap { line, segment, later }),
                None if beginning.is_empty() => Ok(Segment::Absent),
                None => Ok(Segment::Beginning(beginning)),
            };
        }
        Err(WalError::Busy { object: self.names.of(&whole).to_string(), looks: LOOKS_MAX })
    }

    /// Stores what goes with a segment: `partial`, `00000028.backup`.
    ///
    /// # Errors
    /// `Differs` where another one is there; the name can't be used; the store failed.
    pub fn put_companion(&self, line: u32, segment: u64, companion: &str, bytes: &[u8]) -> Result<Stored, WalError> {
        Ok(self.put(&Self::companion(line, segment, companion)?, 0, bytes)?.0)
    }

    /// What goes with a segment; `None` where there is none.
    ///
    /// # Errors
    /// It is damaged; the name can't be used; the store failed.
    pub fn get_companion(&self, line: u32, segment: u64, companion: &str) -> Result<Option<Vec<u8>>, WalError> {
        Ok(self.get(&Self::companion(line, segment, companion)?)?.map(|(_, bytes)| bytes))
    }

    fn companion(line: u32, segment: u64, companion: &str) -> Result<Named, WalError> {
        if !name::is_companion(companion) {
            return Err(WalError::Companion { name: companion.chars().take(80).collect() });
        }
        Ok(Named::Companion { line, segment, companion: companion.to_owned() })
    }

    /// Stores the history of a line. Of two that differ the first stays: whoever comes second must choose another line.
    ///
    /// # Errors
    /// `Differs`; the store failed.
    pub fn put_history(&self, line: u32, bytes: &[u8]) -> Result<Stored, WalError> {
        if bytes.len() > HISTORY_MAX {
            return Err(WalError::Size { what: "a history is too long", bytes: bytes.len() as u64 });
        }
        Ok(self.put(&Named::History { line }, 0, bytes)?.0)
    }

    /// The history of a line. `None` is certain: the store said that there is none.
    ///
    /// # Errors
    /// It is damaged; the store failed.
    pub fn get_history(&self, line: u32) -> Result<Option<Vec<u8>>, WalError> {
        Ok(self.get(&Named::History { line })?.map(|(_, bytes)| bytes))
    }

    fn whole(&self, line: u32, segment: u64) -> Result<Option<Vec<u8>>, WalError> {
        let named = Named::Segment { line, segment };
        let Some((summary, bytes)) = self.get(&named)? else { return Ok(None) };
        if summary.start != 0 || summary.len != self.segment_bytes {
            let what = format!("it has {} bytes, and segments have {}", summary.len, self.segment_bytes);
            return Err(WalError::Damaged { object: self.names.of(&named).to_string(), what });
        }
        self.in_order(&named, &summary)?;
        self.saw(line, segment, &summary);
        Ok(Some(bytes))
    }

    /// A later segment of the line, or the beginning of the next one.
    fn later(&self, line: u32, segment: u64) -> Result<Option<u64>, WalError> {
        for ahead in AHEAD {
            let Some(later) = segment.checked_add(ahead) else { break };
            if self.is_there(&Named::Segment { line, segment: later })? {
                return Ok(Some(later));
            }
        }
        let Some(next) = segment.checked_add(1) else { return Ok(None) };
        let begun = self.is_there(&Named::Chunk { line, segment: next, n: 0 })?;
        Ok(begun.then_some(next))
    }

    fn is_there(&self, named: &Named) -> Result<bool, WalError> {
        Ok(self.inner.vault.store.size(&self.names.of(named))?.is_some())
    }

    /// Stores it, or finds the same there.
    fn put(&self, named: &Named, start: u64, content: &[u8]) -> Result<(Stored, Summary), WalError> {
        match self.try_put(named, start, content)? {
            Outcome::Stored(stored, summary) => Ok((stored, summary)),
            Outcome::Other => Err(WalError::Differs { object: self.names.of(named).to_string() }),
        }
    }

    fn try_put(&self, named: &Named, start: u64, content: &[u8]) -> Result<Outcome, WalError> {
        if content.len() > CONTENT_MAX {
            return Err(WalError::Size { what: "it is larger than anything here", bytes: content.len() as u64 });
        }
        let (name, store) = (self.names.of(named), &self.inner.vault.store);
        let mut summary = Summary::of(&self.identity_key, start, content, 0);
        for _ in 0..LOOKS_MAX {
            // First a look, which costs less than sealing and sending it all where the other road was quicker.
            if let Some(found) = self.summary(&name)? {
                if !found.is_same(&summary) {
                    return Ok(Outcome::Other);
                }
                // Another's write may be seen before it is durable, and this one is about to be acknowledged.
                store.settle(&name)?;
                return Ok(Outcome::Stored(Stored::Before, found));
            }
            summary.epoch = self.epoch_for(named)?;
            let sealed = self.sealed(&name, &summary, content)?;
            if store.put_if_absent(&name, &sealed)? == Put::Created {
                return Ok(Outcome::Stored(Stored::Now, summary));
            }
        }
        Err(WalError::Busy { object: name.to_string(), looks: LOOKS_MAX })
    }

    fn sealed(&self, name: &ObjectName, summary: &Summary, content: &[u8]) -> Result<Vec<u8>, WalError> {
        let kept = lock(&self.encoders).pop();
        let mut encoder = match kept {
            Some(encoder) => encoder,
            None => Encoder::new(COMPRESSION_LEVEL).map_err(WalError::Compression)?,
        };
        let sealed = object::seal(&self.inner.vault.keys.ring(), name, summary, content, &mut encoder)?;
        let mut kept = lock(&self.encoders);
        if kept.len() < TOOLS_KEPT_MAX {
            kept.push(encoder);
        }
        Ok(sealed)
    }

    fn get(&self, named: &Named) -> Result<Option<(Summary, Vec<u8>)>, WalError> {
        let name = self.names.of(named);
        let object = match self.inner.vault.store.get(&name) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let kept = lock(&self.decoders).pop();
        let mut decoder = match kept {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(WalError::Compression)?,
        };
        let opened = object::open(&self.inner.vault.keys.ring(), &name, &object, &mut decoder);
        let mut kept = lock(&self.decoders);
        if kept.len() < TOOLS_KEPT_MAX {
            kept.push(decoder);
        }
        drop(kept);
        opened.map(Some).map_err(|error| WalError::bad(&name, error))
    }

    /// What the object says of itself; `None` where it is not there.
    fn summary(&self, name: &ObjectName) -> Result<Option<Summary>, WalError> {
        match self.inner.vault.store.get_range(name, 0, FRONT_LEN) {
            Ok(front) => object::summary(&self.inner.vault.keys.ring(), name, &front)
                .map(Some)
                .map_err(|error| WalError::bad(name, error)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.kind() == StoreErrorKind::Short => {
                Err(WalError::Damaged { object: name.to_string(), what: "it is cut off".to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn saw(&self, line: u32, segment: u64, summary: &Summary) {
        let mut seen = lock(&self.seen);
        seen.insert((line, segment), (summary.identity, summary.epoch));
        if seen.len() > SEEN_MAX {
            seen.pop_first();
        }
    }
}
