//! Why a map can't say what changed.

use std::fmt;

use model::Lsn;

/// That everything must be read and compared by hash, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullRead {
    /// Where in WAL.
    pub at: Lsn,
    /// Why.
    pub reason: Reason,
}

/// Why everything must be read. The dates of pages are no help then: a page's LSN says nothing of changes that were not logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Bytes of WAL were not fed.
    Gap {
        /// Where they go on.
        to: Lsn,
    },
    /// WAL does not go on as it must: a page header, a CRC, or a record that does not name the one before. The text says which.
    Broken(String),
    /// `wal_level` was `minimal`: new relations were written past WAL.
    WalLevelMinimal,
    /// A record of a kind that is not known, or whose special update of files is not.
    Unknown {
        /// Its resource manager.
        rmgr: u8,
        /// Its info bits.
        info: u8,
    },
    /// A record of a known kind that makes no sense.
    Unreadable {
        /// Its resource manager.
        rmgr: u8,
        /// Its info bits.
        info: u8,
    },
    /// A record without blocks of an extension's resource manager that was not declared harmless.
    CustomRmgr(u8),
    /// The map grew beyond its bound, though every relation and database in it was whole already.
    Memory,
    /// More timelines within the range than a map names.
    Timelines,
}

/// How long a text of [`Reason::Broken`] may be, in bytes; what is longer is cut.
pub(crate) const TEXT_BYTES_MAX: usize = 240;

impl Reason {
    /// With a text of bounded length.
    pub(crate) fn broken(why: &impl fmt::Display) -> Self {
        let mut text = why.to_string();
        let mut end = TEXT_BYTES_MAX.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self::Broken(text)
    }
}

impl fmt::Display for FullRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", self.at, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { to } => write!(f, "WAL is missing up to {to}"),
            Self::Broken(why) => f.write_str(why),
            Self::WalLevelMinimal => f.write_str("wal_level was minimal, so that changes were not logged"),
            Self::Unknown { rmgr, info } => {
                write!(f, "a record of an unknown kind (resource manager {rmgr}, info {info:#04x})")
            }
            Self::Unreadable { rmgr, info } => {
                write!(f, "a record that makes no sense (resource manager {rmgr}, info {info:#04x})")
            }
            Self::CustomRmgr(rmgr) => {
                write!(f, "a record of the extension with resource manager {rmgr} that names no blocks")
            }
            Self::Memory => f.write_str("more changed than the map has room for"),
            Self::Timelines => f.write_str("too many timelines in one range"),
        }
    }
}
