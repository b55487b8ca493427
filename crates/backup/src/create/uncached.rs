//! Reading files without taking the page cache from those who live of it.
//!
//! A full backup reads every page of the cluster once. Read the ordinary way they push out what the database has in the kernel's
//! cache, and its clients wait for the disk long after the backup is over.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// `RWF_DONTCACHE` of linux/fs.h: what the read brings into the cache leaves it again; what was there stays. Since Linux 6.14, for
/// the file systems that say that they can (ext4, XFS, btrfs and others).
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Reads so, or the ordinary way where the kernel or a file system refuses: found out once, then remembered.
#[derive(Debug, Default)]
pub(crate) struct Uncached {
    refused: AtomicBool,
}

impl Uncached {
    /// Fills the buffer, or as much of it as there is of the file from `offset` on.
    pub(crate) fn read_full(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut count = 0;
        while count < buffer.len() {
            match self.read(file, &mut buffer[count..], offset + count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if !self.refused.load(Ordering::Relaxed) {
            match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, DONT_CACHE) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.refused.store(true, Ordering::Relaxed),
                read => return Ok(read?),
            }
        }
        file.read_at(buffer, offset)
    }
}

/// The same, but leaving in the cache what was read: for files that the server itself is about to read or write.
pub(crate) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Uncached { refused: AtomicBool::new(true) }.read_full(file, buffer, offset)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    const LEN: usize = 4 << 20;

    /// Whether the page at `offset` is in the cache: a read that may not wait says so.
    fn is_cached(file: &File, offset: u64) -> bool {
        preadv2(file, &mut [IoSliceMut::new(&mut [0])], offset, ReadWriteFlags::NOWAIT).is_ok()
    }

    #[test]
    fn the_cache_stays_as_it_was() {
        // Not on tmpfs, which is nothing but cache.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; LEN]).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        // No reading ahead: one page is cached, and its neighbours are not.
        fadvise(&file, 0, None, Advice::Random).unwrap();
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
        let uncached = Uncached::default();
        let mut read = vec![0; LEN + 1];
        assert_eq!(uncached.read_full(&file, &mut read, 0).unwrap(), LEN);
        assert!(read[..LEN].iter().all(|byte| *byte == 7));
        assert!(is_cached(&file, 0), "what was cached stays");
        if uncached.refused.load(Ordering::Relaxed) {
            eprintln!("skipped: this kernel or file system reads through its cache only");
            return;
        }
        assert!(!is_cached(&file, LEN as u64 / 2), "what was not cached is not");
    }
}
