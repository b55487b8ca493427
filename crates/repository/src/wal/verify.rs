//! Reading all of a stream: is every object what was written, do they fit together, and what can be replayed?
//!
//! What is read here is the objects, not the listing: that only says where to look, and what lies there beside.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    RANGE, Wal, WalError,
    index::{Index, LACKS},
    lines::{LineSeen, Run, survey},
    name::{self, Named},
    object::Summary,
};
use crate::{
    check::{FINDINGS_MAX, Fault},
    error::first_line,
    store::ObjectName,
};

/// Who knows what the WAL means looks at it, too.
pub trait Inspector {
    /// Looks at a whole segment, or at its beginning.
    ///
    /// # Errors
    /// In words, why this is not the segment that it should be.
    fn segment(&mut self, line: u32, segment: u64, bytes: &[u8]) -> Result<(), String>;

    /// Looks at a line's history.
    ///
    /// # Errors
    /// In words, why this is none.
    fn history(&mut self, line: u32, bytes: &[u8]) -> Result<(), String>;

    /// Looks at the page map of a range.
    ///
    /// # Errors
    /// In words, why this is none of that range.
    fn map(&mut self, _line: u32, _range: u64, _version: u32, _bytes: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// So many bytes of objects were read, of so many that the listing showed.
    fn progress(&mut self, _read: u64, _total: u64) {}
}

/// Something that is wrong with WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalFinding {
    /// What is wrong.
    pub fault: Fault,
    /// The object, or the first one that lacks.
    pub object: String,
    /// In words.
    pub what: String,
    /// The line that it is of; `None` for what is no object of WAL.
    pub line: Option<u32>,
    /// The segments that can't be replayed for it, the last one not included.
    pub lost: Option<(u64, u64)>,
}

/// What there is of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LineReport {
    /// What the listing showed.
    #[serde(flatten)]
    pub seen: LineSeen,
    /// Segments from which on it stays: what lies before has expired, whether it was removed yet or not.
    pub floor: u64,
    /// What can be replayed, in order: every byte of it was read and is right.
    pub runs: Vec<Run>,
}

/// What reading all of a stream found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WalReport {
    /// By line.
    pub lines: Vec<LineReport>,
    /// What is wrong; at most [`FINDINGS_MAX`].
    pub findings: Vec<WalFinding>,
    /// How many more findings there were.
    pub findings_left_out: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes in the store.
    pub bytes: u64,
    /// Objects of WAL that has expired, and chunks of segments that are whole: the next prune removes them.
    pub leftovers: u64,
}

impl WalReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// What can be replayed, by line.
    pub fn runs(&self) -> BTreeMap<u32, Vec<Run>> {
        self.lines.iter().map(|line| (line.seen.line, line.runs.clone())).collect()
    }
}

/// What a listing showed of one line.
#[derive(Default)]
struct Listed {
    segments: BTreeMap<u64, u64>,
    chunks: BTreeMap<u64, BTreeMap<u32, u64>>,
    indexes: BTreeMap<u64, u64>,
    others: Vec<(Named, u64)>,
}

/// The work on one stream.
struct Verify<'a> {
    wal: &'a Wal,
    inspector: &'a mut dyn Inspector,
    report: WalReport,
    total: u64,
}

impl Wal {
    /// Reads everything of the stream.
    ///
    /// Findings are no error.
    ///
    /// # Errors
    /// The store can't be listed or read, or keys are missing.
    pub fn verify(&self, inspector: &mut dyn Inspector) -> Result<WalReport, WalError> {
        let store = &*self.inner.vault.store;
        let lines = survey(store, &self.names.stream())?;
        let total = lines.values().map(|seen| seen.bytes).sum();
        let mut verify = Verify { wal: self, inspector, report: WalReport::default(), total };
        verify.foreign()?;
        for seen in lines.into_values() {
            if seen.history {
                verify.history(seen.line)?;
            }
            let report = verify.line(seen)?;
            verify.report.lines.push(report);
        }
        Ok(verify.report)
    }
}

/// What is wrong with one object, where the fault is the object's.
fn fault(error: WalError) -> Result<(Fault, String), WalError> {
    match error {
        WalError::Damaged { what, .. } => Ok((Fault::Damaged, what)),
        error @ WalError::Epoch { .. } => Ok((Fault::Contradicts, first_line(&error.to_string()))),
        error => Err(error),
    }
}

impl Verify<'_> {
    fn find(&mut self, fault: Fault, object: String, what: String, line: Option<u32>, lost: Option<(u64, u64)>) {
        if self.report.findings.len() >= FINDINGS_MAX {
            self.report.findings_left_out += 1;
        } else {
            self.report.findings.push(WalFinding { fault, object, what, line, lost });
        }
    }

    fn object(&self, named: &Named) -> String {
        self.wal.names.of(named).to_string()
    }

    /// Reads an object. `None`: there is a finding against it, or it was pruned since it was listed.
    fn read(
        &mut self,
        named: &Named,
        bytes: u64,
        lost: Option<(u64, u64)>,
    ) -> Result<Option<(Summary, Vec<u8>)>, WalError> {
        let read = self.wal.get(named).and_then(|found| {
            if let Some((summary, _)) = &found {
                self.wal.in_order(named, summary)?;
            }
            Ok(found)
        });
        self.report.objects += 1;
        self.report.bytes += bytes;
        self.inspector.progress(self.report.bytes, self.total);
        match read {
            Ok(found) => Ok(found),
            Err(error) => {
                let (fault, what) = fault(error)?;
                self.find(fault, self.object(named), what, Some(named.line()), lost);
                Ok(None)
            }
        }
    }

    /// What lies among the stream's objects and is none.
    fn foreign(&mut self) -> Result<(), WalError> {
        let mut foreign: Vec<ObjectName> = Vec::new();
        let mut more = 0;
        self.wal.inner.vault.store.list(&self.wal.names.stream(), &mut |object, _| {
            if name::parse(object.as_str()).is_some() {
            } else if foreign.len() < FINDINGS_MAX {
                foreign.push(object);
            } else {
                more += 1;
            }
        })?;
        foreign.sort_unstable();
        for object in foreign {
            let what = "it is no object of this repository".to_owned();
            self.find(Fault::Foreign, object.to_string(), what, None, None);
        }
        self.report.findings_left_out += more;
        Ok(())
    }

    fn history(&mut self, line: u32) -> Result<(), WalError> {
        let named = Named::History { line };
        let Some((_, bytes)) = self.read(&named, 0, None)? else { return Ok(()) };
        if let Err(what) = self.inspector.history(line, &bytes) {
            self.find(Fault::Contradicts, self.object(&named), what, Some(line), None);
        }
        Ok(())
    }

    fn line(&mut self, seen: LineSeen) -> Result<LineReport, WalError> {
        let line = seen.line;
        let floor = self.wal.floor(line);
        let mut listed = self.listed(line, floor)?;
        listed.others.sort_by_key(|(named, _)| match named {
            Named::Map { range, version, .. } => (*range, *version),
            _ => (0, 0),
        });
        for (named, bytes) in &listed.others {
            let read = self.read(named, *bytes, None)?;
            if let (Named::Map { range, version, .. }, Some((_, content))) = (named, read)
                && let Err(what) = self.inspector.map(line, *range, *version, &content)
            {
                self.find(Fault::Contradicts, self.object(named), what, Some(line), None);
            }
        }
        let numbers: BTreeSet<u64> = listed.segments.keys().chain(listed.chunks.keys()).copied().collect();
        let (mut runs, mut index): (Vec<Run>, Option<(u64, Option<Index>)>) = (Vec::new(), None);
        for &segment in &numbers {
            let range = segment / RANGE;
            if index.as_ref().is_none_or(|(of, _)| *of != range) {
                index = Some((range, self.index(line, range, &listed)?));
            }
            let index = index.as_ref().and_then(|(_, index)| index.as_ref());
            let Some(good) = self.segment(line, segment, &listed, index)? else { continue };
            let whole = good == self.wal.segment_bytes;
            match runs.last_mut().filter(|run| run.end == segment && run.tail_bytes == 0) {
                Some(run) if whole => run.end += 1,
                Some(run) => run.tail_bytes = good,
                None if whole => runs.push(Run { first: segment, end: segment + 1, tail_bytes: 0 }),
                None => runs.push(Run { first: segment, end: segment, tail_bytes: good }),
            }
        }
        self.indexed(line, floor, &numbers, &listed)?;
        self.gaps(line, &runs, &numbers);
        Ok(LineReport { seen, floor, runs })
    }

    fn listed(&mut self, line: u32, floor: u64) -> Result<Listed, WalError> {
        let mut listed = Listed::default();
        let mut leftovers = 0;
        self.wal.inner.vault.store.list(&self.wal.names.line(line), &mut |object, size| match name::parse(
            object.as_str(),
        ) {
            Some(Named::Segment { segment, .. } | Named::Chunk { segment, .. } | Named::Companion { segment, .. })
                if segment < floor =>
            {
                leftovers += 1;
            }
            Some(Named::Segment { segment, .. }) => drop(listed.segments.insert(segment, size)),
            Some(Named::Chunk { segment, n, .. }) => {
                listed.chunks.entry(segment).or_default().insert(n, size);
            }
            Some(Named::Index { range, .. }) => drop(listed.indexes.insert(range, size)),
            Some(named) => listed.others.push((named, size)),
            None => {}
        })?;
        self.report.leftovers += leftovers;
        Ok(listed)
    }

    fn index(&mut self, line: u32, range: u64, listed: &Listed) -> Result<Option<Index>, WalError> {
        let Some(&bytes) = listed.indexes.get(&range) else { return Ok(None) };
        let named = Named::Index { line, range };
        let Some((_, content)) = self.read(&named, bytes, None)? else { return Ok(None) };
        match Index::parse(range, &content) {
            Ok(index) => Ok(Some(index)),
            Err(error) => {
                self.find(Fault::Damaged, self.object(&named), error.to_string(), Some(line), None);
                Ok(None)
            }
        }
    }

    /// How many bytes of a segment are right, from its beginning; `None`: none of them.
    fn segment(
        &mut self,
        line: u32,
        segment: u64,
        listed: &Listed,
        index: Option<&Index>,
    ) -> Result<Option<u64>, WalError> {
        let lost = Some((segment, segment + 1));
        let whole = Named::Segment { line, segment };
        let chunks = listed.chunks.get(&segment);
        let content = match listed.segments.get(&segment) {
            None => None,
            Some(&bytes) => match self.read(&whole, bytes, lost)? {
                // Its chunks, should there be some left, are no way to it: readers take the segment.
                None => return Ok(None),
                Some((summary, content)) => {
                    let at = usize::try_from(segment % RANGE).expect("a range has 64 segments");
                    let named = index.map(|index| index.identities[at]).filter(|named| *named != LACKS);
                    let what = if summary.start != 0 || summary.len != self.wal.segment_bytes {
                        Some(format!("it has {} bytes, and segments have {}", summary.len, self.wal.segment_bytes))
                    } else if named.is_some_and(|named| named != summary.identity) {
                        Some("it is another than the index of its range names".to_owned())
                    } else {
                        None
                    };
                    if let Some(what) = what {
                        self.find(Fault::Contradicts, self.object(&whole), what, Some(line), lost);
                        return Ok(None);
                    }
                    Some(content)
                }
            },
        };
        let bytes = match (content, chunks) {
            (Some(content), chunks) => {
                if let Some(chunks) = chunks {
                    self.report.leftovers += chunks.len() as u64;
                    self.row(line, segment, chunks, Some(&content))?;
                }
                content
            }
            (None, Some(chunks)) => self.row(line, segment, chunks, None)?,
            (None, None) => return Ok(None),
        };
        if let Err(what) = self.inspector.segment(line, segment, &bytes) {
            self.find(Fault::Contradicts, self.object(&whole), what, Some(line), lost);
            return Ok(None);
        }
        Ok((!bytes.is_empty()).then_some(bytes.len() as u64))
    }

    /// Reads a row of chunks, each of them, and compares them with one another and with the whole. Returns what they hold from the
    /// segment's beginning on without a gap.
    fn row(
        &mut self,
        line: u32,
        segment: u64,
        chunks: &BTreeMap<u32, u64>,
        whole: Option<&[u8]>,
    ) -> Result<Vec<u8>, WalError> {
        let mut held: Vec<u8> = Vec::new();
        for (expected, (&n, &size)) in (0_u32..).zip(chunks) {
            let named = |n| Named::Chunk { line, segment, n };
            if n != expected {
                if whole.is_none() {
                    let what = format!("it is not there, and chunk {n} of the same segment is");
                    self.find(Fault::Missing, self.object(&named(expected)), what, Some(line), None);
                }
                break;
            }
            let Some((summary, bytes)) = self.read(&named(n), size, None)? else { break };
            let start = usize::try_from(summary.start).unwrap_or(usize::MAX);
            let truth = whole.unwrap_or(&held);
            let begins = start <= truth.len() && summary.end() <= self.wal.segment_bytes;
            let common = bytes.len().min(truth.len().saturating_sub(start));
            if !begins || bytes[..common] != truth[start..start + common] {
                let what = if begins {
                    "it holds other bytes than what is stored beside it"
                } else {
                    "it does not begin where the one before ends"
                };
                self.find(Fault::Contradicts, self.object(&named(n)), what.to_owned(), Some(line), None);
                break;
            }
            if whole.is_none() {
                held.extend_from_slice(&bytes[common..]);
            }
        }
        Ok(held)
    }

    /// What indexes name and is not there.
    fn indexed(&mut self, line: u32, floor: u64, numbers: &BTreeSet<u64>, listed: &Listed) -> Result<(), WalError> {
        for &range in listed.indexes.keys() {
            // Those of ranges that nothing is left of were not read yet.
            let unread = numbers.range(range * RANGE..(range + 1) * RANGE).next().is_none();
            let index =
                if unread { self.index(line, range, listed)? } else { self.wal.index(line, range).ok().flatten() };
            let Some(index) = index else { continue };
            for (segment, named) in (range * RANGE..).zip(&index.identities) {
                if *named == LACKS || segment < floor || listed.segments.contains_key(&segment) {
                    continue;
                }
                let object = Named::Segment { line, segment };
                // A listing may be late.
                if self.wal.is_there(&object)? {
                    continue;
                }
                let what = "the index of its range names it, and it is not there".to_owned();
                self.find(Fault::Missing, self.object(&object), what, Some(line), Some((segment, segment + 1)));
            }
        }
        Ok(())
    }

    /// What lacks between two things that are there.
    fn gaps(&mut self, line: u32, runs: &[Run], numbers: &BTreeSet<u64>) {
        for pair in runs.windows(2) {
            let (from, until) = (pair[0].end, pair[1].first);
            let lacks = (from..until).filter(|segment| !numbers.contains(segment)).count();
            let half = pair[0].tail_bytes > 0;
            if lacks == 0 && !half {
                continue;
            }
            let what = if half {
                format!("only its first {} bytes are there, and later segments are", pair[0].tail_bytes)
            } else {
                format!("{lacks} segments lack before segment {until:#x}, which is there: a gap")
            };
            let object = self.object(&Named::Segment { line, segment: from });
            self.find(Fault::Missing, object, what, Some(line), Some((from, until)));
        }
    }
}
