//! The major versions that are known, and what differs between them outside of the control file's fields.

use std::fmt;

/// A major version of PostgreSQL whose formats are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Major {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

/// Not one of the major versions that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {0} is not supported; hint: versions 13 to 18 are, a newer one needs a newer oxpecker")]
pub struct UnsupportedMajor(pub u32);

/// What tells the versions apart: `CATALOG_VERSION_NO` (catversion.h), `PG_CONTROL_VERSION` (pg_control.h) and `XLOG_PAGE_MAGIC`
/// (xlog_internal.h).
struct Constants {
    major: Major,
    number: u32,
    catalog: u32,
    control: u32,
    wal_magic: u16,
}

const fn constants(major: Major, number: u32, catalog: u32, control: u32, wal_magic: u16) -> Constants {
    Constants { major, number, catalog, control, wal_magic }
}

const TABLE: [Constants; 6] = [
    constants(Major::V13, 13, 202_007_201, 1300, 0xD106),
    constants(Major::V14, 14, 202_107_181, 1300, 0xD10D),
    constants(Major::V15, 15, 202_209_061, 1300, 0xD110),
    constants(Major::V16, 16, 202_307_071, 1300, 0xD113),
    constants(Major::V17, 17, 202_406_281, 1700, 0xD116),
    constants(Major::V18, 18, 202_506_291, 1800, 0xD118),
];

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] = [Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    const fn row(self) -> &'static Constants {
        &TABLE[self as usize]
    }

    /// The version with this number.
    ///
    /// # Errors
    /// When it is not known.
    pub fn from_number(number: u32) -> Result<Self, UnsupportedMajor> {
        TABLE.iter().find(|row| row.number == number).map(|row| row.major).ok_or(UnsupportedMajor(number))
    }

    /// The version whose released servers have this `catalog_version_no`.
    pub fn from_catalog_version(catalog: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.catalog == catalog).map(|row| row.major)
    }

    /// The version that writes WAL pages with this magic number.
    pub fn from_wal_magic(magic: u16) -> Option<Self> {
        TABLE.iter().find(|row| row.wal_magic == magic).map(|row| row.major)
    }

    /// 15 for PostgreSQL 15.
    pub const fn number(self) -> u32 {
        self.row().number
    }

    /// `catalog_version_no` of its released servers.
    pub const fn catalog_version(self) -> u32 {
        self.row().catalog
    }

    /// `pg_control_version` of its servers.
    pub const fn control_version(self) -> u32 {
        self.row().control
    }

    /// The magic number of its WAL pages.
    pub const fn wal_magic(self) -> u16 {
        self.row().wal_magic
    }

    /// The directory inside a tablespace that belongs to this version: `PG_15_202209061`.
    pub fn tablespace_directory(self) -> String {
        format!("PG_{}_{}", self.number(), self.catalog_version())
    }

    /// The version of `backup_manifest` that its servers write.
    pub const fn manifest_version(self) -> u32 {
        if self.number() >= 17 { 2 } else { 1 }
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Reads a `PG_VERSION` file: a number and a newline. `None` where it is something else.
pub fn parse_version_file(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?.trim_ascii_end();
    // Before 10 there were two parts; those are not ours, but "9.6" is an answer and not damage.
    let first = text.split('.').next()?;
    first.bytes().all(|byte| byte.is_ascii_digit()).then(|| first.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_finds_itself() {
        for (index, major) in Major::ALL.into_iter().enumerate() {
            assert_eq!(major as usize, index);
            assert_eq!(Major::from_number(major.number()), Ok(major));
            assert_eq!(Major::from_catalog_version(major.catalog_version()), Some(major));
            assert_eq!(Major::from_wal_magic(major.wal_magic()), Some(major));
        }
        assert_eq!(Major::from_number(12), Err(UnsupportedMajor(12)));
        assert_eq!(Major::V15.tablespace_directory(), "PG_15_202209061");
        assert_eq!([Major::V16.manifest_version(), Major::V17.manifest_version()], [1, 2]);
    }

    #[test]
    fn version_files() {
        for (bytes, expected) in [
            (&b"15\n"[..], Some(15)),
            (b"18", Some(18)),
            (b"9.6\n", Some(9)),
            (b"", None),
            (b"x\n", None),
            (b"\xff", None),
            (b"99999999999\n", None),
        ] {
            assert_eq!(parse_version_file(bytes), expected, "{bytes:?}");
        }
    }
}
