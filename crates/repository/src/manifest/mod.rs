//! Manifests: what a backup consists of. No I/O.
//!
//! ```text
//! root ──▶ tables of packs      which frames each pack has, where, and their identities
//!      └─▶ pages of entries     names in ascending order, with the runs of frames that make their content
//! ```
//! Tables and pages are frames themselves. A page names the tables that it uses by identity and holds nothing that depends on its
//! backup: a part of the cluster that did not change gives the same page again, which is then shared like any other frame. So a
//! manifest costs what changed, and still says by itself everything that a restore needs.

mod page;
mod root;
mod tables;

pub(crate) use page::{Page, PageBuilder, RUNS_MAX, RawEntry, RawRun};
pub(crate) use root::{PageRef, Root, TableRef};
pub(crate) use tables::{TableBuilder, parse_tables};

/// The longest name of an entry, in bytes.
pub const NAME_MAX: usize = 4096;
/// The most entries of one backup: their pages' places then fit into the root's one frame, with names and metadata of common lengths
/// (`manifest/tests.rs` measures it). A cluster of so many files has other worries before.
pub const ENTRIES_MAX: u64 = 5_000_000;
/// The most opaque bytes that go with an entry.
pub const META_MAX: usize = 64 << 10;

/// A frame, for whoever got it from a [`crate::FrameWriter`] or a [`crate::BackupReader`]. It belongs to that session or reader and
/// is refused by any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRef {
    /// Which session or reader it belongs to.
    pub(crate) owner: u32,
    /// The number of its pack there.
    pub(crate) pack: u32,
    pub(crate) ordinal: u32,
    pub(crate) len: u32,
}

impl FrameRef {
    /// Its plain bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame may be empty, and nobody asks")]
    pub fn len(&self) -> u64 {
        u64::from(self.len)
    }
}

/// A part of an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes that are nought. They are stored nowhere.
    Zero {
        /// How many.
        len: u64,
    },
    /// The bytes of a frame.
    Frame(FrameRef),
}

impl Extent {
    /// Its bytes.
    #[expect(clippy::len_without_is_empty, reason = "an extent may be empty, and nobody asks")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Zero { len } => *len,
            Self::Frame(frame) => frame.len(),
        }
    }
}

/// One named thing of a backup: a file, a directory, whatever the caller makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: any bytes, unlike every other entry's. Entries come back in ascending order of it.
    pub name: Vec<u8>,
    /// Whatever the caller wants to keep with it (mode, owner, times).
    pub meta: Vec<u8>,
    /// The length of its content: what its extents add up to.
    pub size: u64,
    /// Its content, from the beginning to the end.
    pub extents: Vec<Extent>,
}

#[cfg(test)]
mod tests;
