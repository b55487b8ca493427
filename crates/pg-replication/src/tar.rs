//! The tar archives that servers send (POSIX ustar, as PostgreSQL's tar.c writes it), in a stream.

/// Tar works in blocks of this many bytes.
const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and where it leads.
    Symlink(Vec<u8>),
}

/// A file, directory or link of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the data directory, without a slash at its end; any bytes. What is in a tablespace is `pg_tblspc/OID/...`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes that follow; zero for what is not a file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970.
    pub modified: i64,
}

/// What the next bytes of an archive are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A header is complete.
    Entry(Entry),
    /// The taken bytes belong to the entry.
    Data,
    /// The taken bytes are tar's own.
    Nothing,
}

/// Takes an archive apart.
#[derive(Debug, Default)]
pub(crate) struct TarReader {
    header: Vec<u8>,
    data_left: u64,
    padding_left: u64,
    ended: bool,
}

impl TarReader {
    /// Looks at the next bytes; returns how many were taken, at least one, and what they are.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Piece), String> {
        let at_most = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if self.data_left > 0 {
            let count = at_most(self.data_left);
            self.data_left -= count as u64;
            return Ok((count, Piece::Data));
        }
        if self.padding_left > 0 {
            let count = at_most(self.padding_left);
            self.padding_left -= count as u64;
            return Ok((count, Piece::Nothing));
        }
        if self.ended {
            return Ok((bytes.len(), Piece::Nothing));
        }
        let count = bytes.len().min(BLOCK - self.header.len());
        self.header.extend_from_slice(&bytes[..count]);
        if self.header.len() < BLOCK {
            return Ok((count, Piece::Nothing));
        }
        let header = std::mem::take(&mut self.header);
        // Servers up to 14 leave the two blocks of zeros at the end out.
        if header.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok((count, Piece::Nothing));
        }
        let entry = parse(&header)?;
        self.data_left = entry.size;
        self.padding_left = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
        Ok((count, Piece::Entry(entry)))
    }

    /// Whether the archive may end here.
    pub(crate) fn is_between_entries(&self) -> bool {
        self.data_left == 0 && self.padding_left == 0 && self.header.is_empty()
    }
}

fn parse(header: &[u8]) -> Result<Entry, String> {
    let stored = number(&header[148..156]).ok_or("the checksum of a tar header is no number")?;
    // The checksum's own bytes count as spaces.
    let computed: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    if stored != computed {
        return Err(format!("the checksum of a tar header is {stored}, computed is {computed}"));
    }
    let prefix = until_zero(&header[345..500]);
    let name = until_zero(&header[..100]);
    let path =
        if &header[257..262] == b"ustar" && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() };
    let path = check_path(&path)?;
    let size = number(&header[124..136]).filter(|size| *size <= i64::MAX as u64);
    let mode = number(&header[100..108]).and_then(|mode| u32::try_from(mode & 0o7777).ok());
    let modified = number(&header[136..148]).and_then(|modified| i64::try_from(modified).ok());
    let (Some(size), Some(mode), Some(modified)) = (size, mode, modified) else {
        return Err(format!("a number of the tar header of {} is none", String::from_utf8_lossy(&path)));
    };
    let kind = match header[156] {
        b'0' | 0 => EntryKind::File,
        b'2' => EntryKind::Symlink(until_zero(&header[157..257]).to_vec()),
        b'5' => EntryKind::Directory,
        other => return Err(format!("{} is an entry of kind {other}", String::from_utf8_lossy(&path))),
    };
    let size = if kind == EntryKind::File { size } else { 0 };
    Ok(Entry { path, kind, size, mode, modified })
}

/// Nothing may lead out of the data directory.
fn check_path(path: &[u8]) -> Result<Vec<u8>, String> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let bad = path.split(|byte| *byte == b'/').any(|part| part.is_empty() || part == b"." || part == b"..");
    // The data directory itself.
    if bad && path != b"." && !path.is_empty() {
        return Err(format!("the path {:?} leads out of the data directory", String::from_utf8_lossy(path)));
    }
    Ok(if path == b"." { Vec::new() } else { path.to_vec() })
}

/// Octal digits, or, for large ones, binary with the highest bit set.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        let mut value = u64::from(first & 0x7F);
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let digits = until_zero(field).trim_ascii();
    let mut value = 0u64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(8)?;
        value = value.checked_mul(8)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &[u8], kind: u8, size: &[u8]) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(b"0000600");
        header[124..124 + size.len()].copy_from_slice(size);
        header[136..147].copy_from_slice(b"14000000000");
        header[156] = kind;
        header[157..163].copy_from_slice(b"/t a\0x");
        header[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut header);
        header
    }

    fn seal(header: &mut [u8]) {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }

    fn read(archive: &[u8], pieces: usize) -> Result<Vec<(Entry, Vec<u8>)>, String> {
        let mut reader = TarReader::default();
        let mut found: Vec<(Entry, Vec<u8>)> = Vec::new();
        for mut piece in archive.chunks(pieces) {
            while !piece.is_empty() {
                let (count, what) = reader.next(piece)?;
                match what {
                    Piece::Entry(entry) => found.push((entry, Vec::new())),
                    Piece::Data => found.last_mut().unwrap().1.extend(&piece[..count]),
                    Piece::Nothing => {}
                }
                piece = &piece[count..];
            }
        }
        if reader.is_between_entries() { Ok(found) } else { Err("cut off".to_owned()) }
    }

    #[test]
    fn archives_in_any_pieces() {
        let mut archive = header(b"base/", b'5', b"0");
        archive.extend(header(b"./a", b'0', b"00000001001"));
        archive.extend([7; 513]);
        archive.extend([0; 511]);
        archive.extend(header(b"link", b'2', b"0"));
        let without_end = archive.len();
        archive.extend([0; 1024]);
        for end in [without_end, archive.len()] {
            for pieces in [1, 100, 512, 513, 10_000] {
                let found = read(&archive[..end], pieces).unwrap();
                let paths: Vec<_> = found.iter().map(|(entry, _)| entry.path.as_slice()).collect();
                assert_eq!(paths, [&b"base"[..], b"a", b"link"]);
                assert_eq!((found[1].0.size, found[1].1.len(), found[1].0.mode), (513, 513, 0o600));
                assert_eq!(found[2].0.kind, EntryKind::Symlink(b"/t a".to_vec()));
                assert_eq!((&found[0].0.kind, found[0].0.modified), (&EntryKind::Directory, 0o14_000_000_000));
            }
        }
        assert!(read(&archive[..600], 512).is_err());
        assert!(read(&archive[..1400], 512).is_err());
    }

    #[test]
    fn large_sizes_are_binary() {
        let mut size = vec![0x80, 0, 0, 0];
        size.extend((9u64 << 30).to_be_bytes());
        let entry = parse(&header(b"a", b'0', &size)).unwrap();
        assert_eq!(entry.size, 9 << 30);
        assert!(parse(&header(b"a", b'0', &[0xFF; 12])).is_err());
    }

    #[test]
    fn what_leads_out_is_refused() {
        for name in [&b"/etc/passwd"[..], b"../a", b"a/../b", b"a//b", b"a/./b"] {
            assert!(parse(&header(name, b'0', b"0")).is_err(), "{name:?}");
        }
        assert!(parse(&header(b"a", b'3', b"0")).is_err());
        let mut damaged = header(b"a", b'0', b"0");
        damaged[0] = b'b';
        assert!(parse(&damaged).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 512..2000), sealed: bool) {
            if sealed {
                seal(&mut bytes[..512]);
            }
            let _ = read(&bytes, 300);
        }
    }
}
