//! A session's entries until its commit: in any order, from many threads, sorted at the end. What does not fit in memory is put
//! aside in unlinked temporary files.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
};

use crate::{
    error::RepositoryError,
    manifest::{RawEntry, RawRun},
    wire::{BadBytes, Bytes, Put, len_u32},
};

/// Bytes of entries in memory before they are put aside.
const IN_MEMORY_MAX: usize = 24 << 20;
/// What is read of each file at a time.
const READ_AHEAD: usize = 128 << 10;

/// Entries whose runs name packs by the session's numbers.
#[derive(Debug)]
pub(super) struct Entries {
    arena: Vec<u8>,
    /// Where each begins in the arena.
    starts: Vec<u32>,
    aside: Vec<File>,
    limit: usize,
    count: u64,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { arena: Vec::new(), starts: Vec::new(), aside: Vec::new(), limit: IN_MEMORY_MAX, count: 0 }
    }

    #[cfg(test)]
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::new() }
    }

    pub(super) fn push(&mut self, entry: &RawEntry<u32>) -> Result<(), RepositoryError> {
        if self.arena.len() >= self.limit {
            self.put_aside().map_err(aside)?;
        }
        self.starts.push(len_u32(self.arena.len()));
        encode(entry, &mut self.arena);
        self.count += 1;
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.starts.sort_unstable_by_key(|start| name_at(arena, *start));
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.sort();
        let mut file = BufWriter::new(tempfile::tempfile()?);
        for start in &self.starts {
            let record = record_at(&self.arena, *start);
            file.write_all(&len_u32(record.len()).to_le_bytes())?;
            file.write_all(record)?;
        }
        self.aside.push(file.into_inner()?);
        self.starts.clear();
        self.arena.clear();
        Ok(())
    }

    /// Calls `each` with all entries in ascending order of their names. May be called again, also after more were pushed.
    pub(super) fn each(
        &mut self,
        mut each: impl FnMut(RawEntry<u32>) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        self.sort();
        let mut files = Vec::new();
        for file in &mut self.aside {
            file.seek(SeekFrom::Start(0)).map_err(aside)?;
            let mut run = Run { reader: BufReader::with_capacity(READ_AHEAD, &*file), next: None };
            run.advance().map_err(aside)?;
            files.push(run);
        }
        let mut in_memory = self.starts.iter().map(|start| record_at(&self.arena, *start)).peekable();
        let mut last: Option<Vec<u8>> = None;
        loop {
            // A handful of files at most: looking at each is cheaper than keeping a heap of them.
            let first = files.iter_mut().filter(|run| run.next.is_some()).min_by(|a, b| a.name().cmp(b.name()));
            let from_memory = match (&first, in_memory.peek()) {
                (None, None) => return Ok(()),
                (Some(run), Some(record)) => name_of(record) < run.name(),
                (None, Some(_)) => true,
                (Some(_), None) => false,
            };
            let entry = if from_memory {
                decode(in_memory.next().unwrap_or_default())
            } else {
                let run = first.expect("one of the two is there");
                let entry = decode(run.next.as_deref().unwrap_or_default());
                run.advance().map_err(aside)?;
                entry
            };
            let entry = entry.map_err(|BadBytes(what)| aside(io::Error::new(io::ErrorKind::InvalidData, what)))?;
            if last.as_ref() == Some(&entry.name) {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                return Err(RepositoryError::Entry { name, why: "there are two of this name" });
            }
            last = Some(entry.name.clone());
            each(entry)?;
        }
    }
}

fn aside(source: io::Error) -> RepositoryError {
    RepositoryError::Aside { place: std::env::temp_dir().display().to_string(), source }
}

struct Run<'a> {
    reader: BufReader<&'a File>,
    next: Option<Vec<u8>>,
}

impl Run<'_> {
    fn name(&self) -> &[u8] {
        self.next.as_deref().map_or(&[], name_of)
    }

    fn advance(&mut self) -> io::Result<()> {
        let mut len = [0; 4];
        self.next = match self.reader.read_exact(&mut len) {
            Ok(()) => {
                let mut record = vec![0; u32::from_le_bytes(len) as usize];
                self.reader.read_exact(&mut record)?;
                Some(record)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok(())
    }
}

/// Length of all, length of the name, the name: what sorting needs stands first.
fn encode(entry: &RawEntry<u32>, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32(0);
    out.put_u32(len_u32(entry.name.len()));
    out.put(&entry.name);
    out.put_u32(len_u32(entry.meta.len()));
    out.put(&entry.meta);
    out.put_u64(entry.size);
    out.put_u32(len_u32(entry.runs.len()));
    for run in &entry.runs {
        let (pack, first, count, len) = match *run {
            RawRun::Zero { len } => (u32::MAX, 0, 0, len),
            RawRun::Frames { pack, first, count } => (pack, first, count, 0),
        };
        for n in [pack, first, count] {
            out.put_u32(n);
        }
        out.put_u64(len);
    }
    let len = len_u32(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|n| n.try_into().ok()).map_or(0, u32::from_le_bytes) as usize
}

/// A record without its own length.
fn record_at(arena: &[u8], start: u32) -> &[u8] {
    let start = start as usize;
    &arena[start + 4..start + 4 + number_at(arena, start)]
}

fn name_of(record: &[u8]) -> &[u8] {
    record.get(4..4 + number_at(record, 0)).unwrap_or_default()
}

fn name_at(arena: &[u8], start: u32) -> &[u8] {
    name_of(record_at(arena, start))
}

fn decode(record: &[u8]) -> Result<RawEntry<u32>, BadBytes> {
    let mut bytes = Bytes::new(record);
    let len = bytes.count(1)?;
    let name = bytes.take(len)?.to_vec();
    let len = bytes.count(1)?;
    let meta = bytes.take(len)?.to_vec();
    let size = bytes.u64()?;
    let count = bytes.count(20)?;
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let (pack, first, count, len) = (bytes.u32()?, bytes.u32()?, bytes.u32()?, bytes.u64()?);
        runs.push(if pack == u32::MAX { RawRun::Zero { len } } else { RawRun::Frames { pack, first, count } });
    }
    bytes.end()?;
    Ok(RawEntry { name, meta, size, runs })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(entries: &mut Entries) -> Result<Vec<RawEntry<u32>>, RepositoryError> {
        let mut all = Vec::new();
        entries.each(|entry| {
            all.push(entry);
            Ok(())
        })?;
        Ok(all)
    }

    fn entry(name: &[u8]) -> RawEntry<u32> {
        let runs = vec![RawRun::Zero { len: 1 << 40 }, RawRun::Frames { pack: 3, first: 1, count: 9 }];
        RawEntry { name: name.to_vec(), meta: b"meta".to_vec(), size: 7, runs }
    }

    #[test]
    fn two_of_a_name_are_refused() {
        for limit in [1, 1 << 20] {
            let mut entries = Entries::with_limit(limit);
            for name in [b"b", b"a", b"c", b"a"] {
                entries.push(&entry(name)).unwrap();
            }
            assert!(matches!(all(&mut entries), Err(RepositoryError::Entry { .. })), "limit {limit}");
        }
    }

    proptest! {
        #[test]
        fn they_come_back_sorted(
            names in proptest::collection::hash_set(proptest::collection::vec(any::<u8>(), 0..6), 0..60),
            limit in 1..3000_usize,
        ) {
            let mut entries = Entries::with_limit(limit);
            for name in &names {
                entries.push(&entry(name)).unwrap();
            }
            let mut sorted: Vec<_> = names.into_iter().map(|name| entry(&name)).collect();
            sorted.sort_by(|a, b| a.name.cmp(&b.name));
            prop_assert_eq!(&all(&mut entries).unwrap(), &sorted);
            prop_assert_eq!(&all(&mut entries).unwrap(), &sorted);
        }
    }
}
