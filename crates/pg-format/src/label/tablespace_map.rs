//! `tablespace_map`: which link of `pg_tblspc` leads where.

use std::collections::BTreeMap;

/// The links: the tablespace's oid, and the directory's path, any bytes but zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// By oid.
    pub links: BTreeMap<u32, Vec<u8>>,
}

/// A line that is no line of a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tablespace_map, line {line}: {why}; hint: take the file from the same backup")]
pub struct TablespaceMapError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

impl TablespaceMap {
    /// Reads a map: lines of an oid, a space and a path, in which a backslash stands before a newline, a carriage return or a backslash
    /// of the path's own.
    ///
    /// # Errors
    /// When a line is something else or an oid is there twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, TablespaceMapError> {
        let mut map = Self::default();
        let (mut entry, mut escaped, mut line) = (Vec::new(), false, 1);
        for &byte in bytes {
            if !escaped && (byte == b'\n' || byte == b'\r') {
                map.add(&entry, line)?;
                entry.clear();
                line += 1;
            } else if !escaped && byte == b'\\' {
                escaped = true;
            } else {
                escaped = false;
                entry.push(byte);
            }
        }
        if !entry.is_empty() || escaped {
            return Err(TablespaceMapError { line, why: "it does not end" });
        }
        Ok(map)
    }

    fn add(&mut self, entry: &[u8], line: usize) -> Result<(), TablespaceMapError> {
        let fail = |why| TablespaceMapError { line, why };
        if entry.is_empty() {
            return Ok(());
        }
        let space = entry.iter().position(|byte| *byte == b' ').ok_or_else(|| fail("it has no space"))?;
        let oid = std::str::from_utf8(&entry[..space]).ok().and_then(|text| text.parse::<u32>().ok());
        let oid = oid.filter(|oid| *oid > 0).ok_or_else(|| fail("it does not begin with an oid"))?;
        let path = &entry[space + 1..];
        if path.is_empty() || path.contains(&0) {
            return Err(fail("it has no path"));
        }
        match self.links.insert(oid, path.to_vec()) {
            None => Ok(()),
            Some(_) => Err(fail("it names a tablespace again")),
        }
    }

    /// Writes the map as servers do; empty for no links, when there is to be no file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (oid, path) in &self.links {
            bytes.extend(format!("{oid} ").into_bytes());
            for &byte in path {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    bytes.push(b'\\');
                }
                bytes.push(byte);
            }
            bytes.push(b'\n');
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn maps() {
        let map = TablespaceMap::parse(b"16400 /data/one\n16401 /odd \\\\ \\\n name\n").unwrap();
        assert_eq!(map.links[&16400], b"/data/one");
        assert_eq!(map.links[&16401], b"/odd \\ \n name");
        assert_eq!(TablespaceMap::parse(b"").unwrap().to_bytes(), b"");
        for (bad, line) in [
            (&b"16400 /a"[..], 1),
            (b"16400 /a\n16400 /b\n", 2),
            (b"x /a\n", 1),
            (b"0 /a\n", 1),
            (b"1\n", 1),
            (b"1 \n", 1),
            (b"1 /a\n2 /b\\", 2),
        ] {
            assert_eq!(TablespaceMap::parse(bad).unwrap_err().line, line, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TablespaceMap::parse(&bytes);
        }

        #[test]
        fn any_path_is_read_back(links in proptest::collection::btree_map(1u32.., proptest::collection::vec(1u8.., 1..30), 0..5)) {
            let map = TablespaceMap { links };
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()).unwrap(), map);
        }
    }
}
