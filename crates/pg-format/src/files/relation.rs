//! Names of relations' files.

use crate::wal::{Fork, Relation};

/// The oid of the tablespace `pg_default`, whose files are in `base`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// The oid of the tablespace `pg_global`, whose files are in `global`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// One file of a relation: segment by segment a fork has at most 1 GiB per file, as packages are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The relation, by its place on disk.
    pub relation: Relation,
    /// Its fork.
    pub fork: Fork,
    /// The file's number in the fork, from 0.
    pub segment: u32,
    /// The session that a temporary relation belongs to.
    pub backend: Option<u32>,
}

impl RelationFile {
    /// Reads a path relative to the data directory: `base/5/16400_fsm.1`, `global/1262`, `pg_tblspc/16390/PG_15_202209061/5/16400`.
    #[must_use]
    pub fn parse(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let mut parts = path.split('/');
        let (tablespace, database, name) = match parts.next()? {
            "global" => (GLOBAL_TABLESPACE, 0, parts.next()?),
            "base" => (DEFAULT_TABLESPACE, number(parts.next()?)?, parts.next()?),
            "pg_tblspc" => {
                let tablespace = number(parts.next()?)?;
                parts.next()?.strip_prefix("PG_")?;
                (tablespace, number(parts.next()?)?, parts.next()?)
            }
            _ => return None,
        };
        if parts.next().is_some() {
            return None;
        }
        let (backend, number, fork, segment) = parse_name(name)?;
        Some(Self { relation: Relation { tablespace, database, number }, fork, segment, backend })
    }

    /// The block that the file begins with, counted over all files of the fork, which is what a page's checksum is made with. `None` beyond
    /// the largest block number that there is.
    #[must_use]
    pub fn first_block(&self, segment_blocks: u32) -> Option<u32> {
        self.segment.checked_mul(segment_blocks)
    }
}

/// `16400`, `16400.1`, `16400_vm.2`, `t3_16400`; leading zeros are none of PostgreSQL's.
pub(super) fn parse_name(name: &str) -> Option<(Option<u32>, u32, Fork, u32)> {
    let (backend, rest) = match name.strip_prefix('t') {
        Some(rest) => {
            let (backend, rest) = rest.split_once('_')?;
            let digits = !backend.is_empty() && backend.bytes().all(|byte| byte.is_ascii_digit());
            (Some(digits.then(|| backend.parse().ok()).flatten()?), rest)
        }
        None => (None, name),
    };
    let (rest, segment) = match rest.split_once('.') {
        Some((rest, segment)) => (rest, number(segment)?),
        None => (rest, 0),
    };
    let (relation, fork) = match rest.split_once('_') {
        None => (rest, Fork::Main),
        Some((relation, "fsm")) => (relation, Fork::FreeSpaceMap),
        Some((relation, "vm")) => (relation, Fork::VisibilityMap),
        Some((relation, "init")) => (relation, Fork::Init),
        Some(_) => return None,
    };
    Some((backend, number(relation)?, fork, segment))
}

fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let file = |tablespace, database, number, fork, segment, backend| {
            Some(RelationFile { relation: Relation { tablespace, database, number }, fork, segment, backend })
        };
        for (path, expected) in [
            ("base/5/16400", file(1663, 5, 16400, Fork::Main, 0, None)),
            ("base/5/16400.3", file(1663, 5, 16400, Fork::Main, 3, None)),
            ("base/5/16400_vm.3", file(1663, 5, 16400, Fork::VisibilityMap, 3, None)),
            ("base/5/16400_init", file(1663, 5, 16400, Fork::Init, 0, None)),
            ("base/5/t0_16400_fsm", file(1663, 5, 16400, Fork::FreeSpaceMap, 0, Some(0))),
            ("global/1262", file(1664, 0, 1262, Fork::Main, 0, None)),
            ("pg_tblspc/9/PG_18_202506291/5/7", file(9, 5, 7, Fork::Main, 0, None)),
            ("pg_tblspc/9/PG_18_202506291/5/7/8", None),
            ("pg_tblspc/9/elsewhere/5/7", None),
            ("base/5/016400", None),
            ("base/5/16400.0", None),
            ("base/5/16400_main", None),
            ("base/5/16400.", None),
            ("base/5/", None),
            ("base/5/4294967296", None),
            ("base/5/PG_VERSION", None),
            ("base/16400", None),
            ("pg_xact/0000", None),
        ] {
            assert_eq!(RelationFile::parse(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn blocks_are_counted_over_all_files() {
        let file = RelationFile::parse(b"base/5/16400.3").unwrap();
        assert_eq!(file.first_block(131_072), Some(393_216));
        let file = RelationFile::parse(b"base/5/16400.40000").unwrap();
        assert_eq!(file.first_block(131_072), None);
    }
}
