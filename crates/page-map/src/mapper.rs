//! Makes page maps while WAL passes by.

use std::{collections::BTreeSet, mem};

use model::Lsn;
use pg_format::wal::{Decoder, Flow, Stream, WalError, rmgr};

use crate::{
    collect::{Rules, collect},
    map::{Limits, PageMap},
    ranges::Cuts,
    reason::Reason,
};

/// Makes page maps of the WAL that it is fed.
///
/// The rules, record by record (sources: PostgreSQL's walsummarizer.c, parsexlog.c of pg_rewind, and the `_redo` functions):
///
/// | record | in the map |
/// |---|---|
/// | any with block references | those pages; of an SP-GiST index block 0 too |
/// | a relation's fork is created | that fork, whole |
/// | a relation is truncated, its main fork included | from the least length on, all |
/// | commit, abort, commit or abort of a prepared transaction | all forks of the relations that it drops, whole |
/// | a database is created (either way) or dropped, or moves | all in that tablespace and database, whole |
/// | `wal_level` becomes or is `minimal` | everything must be read |
/// | an unknown kind, or one that makes no sense | everything must be read |
/// | an extension's without block references, not declared harmless | everything must be read |
/// | a gap, a broken page, CRC or chain | everything must be read |
///
/// What the mapper says does not depend on how the bytes are cut into pieces. After a gap or damage it goes on with the next page of WAL
/// that it can make sense of: one bad place costs one map, not all that follow.
#[derive(Debug)]
pub struct Mapper {
    stream: Stream,
    limits: Limits,
    harmless: BTreeSet<u8>,
    /// `None` while the start of a page is looked for.
    decoder: Option<Decoder>,
    /// Where the next byte lies that has not been looked at.
    position: Lsn,
    map: PageMap,
    /// Why records between the map's end and the next record are missing, since there is none yet.
    lost: Option<(Lsn, Reason)>,
    minimal: bool,
    /// Where the last whole record starts, of this map or of one before.
    last: Option<Lsn>,
    /// Where maps are cut by themselves, if they are.
    pub(crate) cuts: Option<Cuts>,
}

impl Mapper {
    /// A mapper of WAL from `start` on: the redo position of a checkpoint, or any other place where a record begins. Its input begins with
    /// the page that holds `start`, or earlier.
    ///
    /// # Errors
    /// When `stream` is none.
    pub fn new(stream: Stream, start: Lsn, limits: Limits) -> Result<Self, WalError> {
        let decoder = Decoder::new(stream, page_of(&stream, start), start)?;
        Ok(Self {
            stream,
            limits,
            harmless: BTreeSet::new(),
            position: decoder.position(),
            decoder: Some(decoder),
            map: PageMap::new(&stream, start),
            lost: None,
            minimal: false,
            last: None,
            cuts: None,
        })
    }

    /// Declares that records without blocks of this extension's resource manager change no relation. Numbers below 128 are not extensions'
    /// and are passed over.
    #[must_use]
    pub fn harmless(mut self, number: u8) -> Self {
        if number >= rmgr::FIRST_CUSTOM {
            self.harmless.insert(number);
        }
        self
    }

    /// Where the next byte lies that is wanted. Earlier ones may come again; they are passed over.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// The map so far.
    #[must_use]
    pub const fn map(&self) -> &PageMap {
        &self.map
    }

    /// Takes the bytes of WAL at `at`. What is wrong with them is in the map: see [`PageMap::full_read`].
    pub fn feed(&mut self, at: Lsn, bytes: &[u8]) {
        let seen = usize::try_from(self.position.0.saturating_sub(at.0)).unwrap_or(usize::MAX);
        let Some(mut bytes) = bytes.get(seen..).filter(|bytes| !bytes.is_empty()) else { return };
        if at > self.position {
            self.lose(self.position, Reason::Gap { to: at });
            self.position = at;
        }
        while !bytes.is_empty() {
            let Some(decoder) = &mut self.decoder else {
                self.find_page(&mut bytes);
                continue;
            };
            let (map, lost, minimal, last) = (&mut self.map, &mut self.lost, &mut self.minimal, &mut self.last);
            let (cuts, stream) = (&mut self.cuts, &self.stream);
            let rules = Rules { limits: self.limits, harmless: &self.harmless };
            let result = decoder.feed(bytes, |record| {
                if let Some(cuts) = cuts {
                    cuts.before(record.lsn, stream, map, lost.as_ref(), *minimal);
                }
                *lost = None;
                map.on_timeline(record.timeline, record.lsn);
                collect(map, record, &rules, minimal);
                if map.records == 0 {
                    map.first_prev = Some(record.header.prev);
                }
                (map.last, map.end, map.records) = (Some(record.lsn), record.end, map.records.saturating_add(1));
                *last = Some(record.lsn);
                Flow::Continue
            });
            let used = decoder.position().0.saturating_sub(self.position.0);
            self.position = decoder.position();
            match result {
                Ok(_) => return,
                Err(error) => {
                    bytes = usize::try_from(used).ok().and_then(|used| bytes.get(used..)).unwrap_or_default();
                    self.lose(self.position, Reason::broken(&error));
                }
            }
        }
    }

    /// Ends the map at the last whole record and begins the next one there. The two join ([`PageMap::append`]).
    pub fn cut(&mut self) -> PageMap {
        let mut next = PageMap::new(&self.stream, self.map.end);
        if let Some((timeline, _)) = self.map.timelines.last() {
            next.on_timeline(*timeline, next.start);
        }
        if let Some((at, reason)) = &self.lost {
            next.force(*at, reason.clone());
        }
        if self.minimal {
            next.force(next.start, Reason::WalLevelMinimal);
        }
        mem::replace(&mut self.map, next)
    }

    /// Goes back to the end of the last whole record, since WAL goes on on another timeline that branched off at `switch`: what follows is
    /// fed again from the page that holds it ([`Mapper::position`]) or earlier. If records beyond `switch` were fed, what they changed
    /// is in the map, and it says that everything must be read.
    ///
    /// # Errors
    /// Never, in fact: the stream was checked when the mapper was made.
    pub fn rewind(&mut self, switch: Lsn) -> Result<(), WalError> {
        let end = self.map.end;
        if end > switch {
            let why = format!(
                "records up to {end} were fed, the timeline ended at {switch}; hint: the servers have diverged"
            );
            self.map.force(switch, Reason::broken(&why));
        }
        if self.lost.is_none() {
            let from = page_of(&self.stream, end);
            self.decoder = Some(Decoder::resume(self.stream, from, end, self.last)?);
            self.position = from;
        }
        Ok(())
    }

    fn lose(&mut self, at: Lsn, reason: Reason) {
        self.map.force(at, reason.clone());
        self.decoder = None;
        self.last = None;
        self.map.last = None;
        self.lost.get_or_insert((at, reason));
    }

    /// Passes over bytes up to a page's start and begins there.
    fn find_page(&mut self, bytes: &mut &[u8]) {
        let into_page = self.position.0 - page_of(&self.stream, self.position).0;
        if into_page == 0 {
            // The stream was checked when the mapper was made; if it were none, no byte would make sense.
            self.decoder = Decoder::new(self.stream, self.position, self.position).ok();
            if self.decoder.is_some() {
                return;
            }
        }
        let rest = u64::from(self.stream.block_size).saturating_sub(into_page).max(1);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(bytes.len());
        *bytes = &bytes[count..];
        self.position.0 = self.position.0.saturating_add(count as u64);
    }
}

pub(crate) const fn page_of(stream: &Stream, lsn: Lsn) -> Lsn {
    match lsn.0.checked_rem(stream.block_size as u64) {
        Some(into) => Lsn(lsn.0 - into),
        None => lsn,
    }
}

#[cfg(test)]
mod tests;
