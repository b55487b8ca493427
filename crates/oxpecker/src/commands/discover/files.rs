//! Files that strangers wrote, read with bounds: size, number, kinds, depth.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Bytes of one file: a compose file, a unit or a file of variables has a few thousand.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of all files together.
const ALL_BYTES_MAX: u64 = 256 << 20;
/// Files that are opened.
const FILES_MAX: usize = 50_000;
/// Entries of one folder that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// Notes that are told one by one.
const NOTES_MAX: usize = 200;

/// What is read, how much of it is left to read, and what could not be.
pub struct Files {
    bytes_left: u64,
    files_left: usize,
    notes: Vec<String>,
    more_notes: usize,
    /// What was looked at, in words.
    pub looked_at: Vec<String>,
    /// What was named on the command line and could not be read.
    pub unread: Vec<String>,
}

impl Files {
    pub fn new() -> Self {
        Self {
            bytes_left: ALL_BYTES_MAX,
            files_left: FILES_MAX,
            notes: vec![],
            more_notes: 0,
            looked_at: vec![],
            unread: vec![],
        }
    }

    /// Something that a person should know.
    pub fn note(&mut self, note: impl AsRef<str>) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(plain(note.as_ref()));
        } else {
            self.more_notes += 1;
        }
    }

    /// All notes, with the count of those that were too many.
    pub fn into_notes(self) -> Vec<String> {
        let mut notes = self.notes;
        let mut known = BTreeSet::new();
        notes.retain(|note| known.insert(note.clone()));
        if self.more_notes > 0 {
            notes.push(format!("and {} more", self.more_notes));
        }
        notes
    }

    /// A named thing that can't be read: told, and the exit code says so.
    pub fn unread(&mut self, what: &Path, why: &str) {
        self.unread.push(plain(&format!("{}: {why}", what.display())));
    }

    /// The text of a regular file. Bytes that are no UTF-8 are replaced, with a note.
    ///
    /// # Errors
    /// In words, without the path: it can't be opened, is none, or is too large.
    pub fn read(&mut self, path: &Path) -> Result<String, String> {
        let bytes = self.bytes(path)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                self.note(format!("{}: not all of it is UTF-8 text; the rest of it is read", path.display()));
                Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
            }
        }
    }

    fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        if self.files_left == 0 || self.bytes_left == 0 {
            return Err(format!("not read: more than {FILES_MAX} files, or {} MiB of them", ALL_BYTES_MAX >> 20));
        }
        self.files_left -= 1;
        let mut options = fs::OpenOptions::new();
        // A pipe without a writer would hold the open up for ever.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = options.read(true).custom_flags(flags).open(path).map_err(|error| in_words(&error))?;
        let meta = file.metadata().map_err(|error| in_words(&error))?;
        if meta.is_dir() {
            return Err("is a folder".to_owned());
        }
        if !meta.is_file() {
            return Err("is no regular file".to_owned());
        }
        let most = FILE_BYTES_MAX.min(self.bytes_left);
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| in_words(&error))?;
        let read = bytes.len() as u64;
        self.bytes_left = self.bytes_left.saturating_sub(read);
        if read > most {
            return Err(format!("larger than {} MiB", FILE_BYTES_MAX >> 20));
        }
        Ok(bytes)
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// In words, without the path.
    pub fn list(&mut self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        let entries = fs::read_dir(dir).map_err(|error| in_words(&error))?;
        let mut names: Vec<PathBuf> =
            entries.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name()))).take(ENTRIES_MAX + 1).collect();
        if names.len() > ENTRIES_MAX {
            self.note(format!("{}: more than {ENTRIES_MAX} entries; the rest is passed over", dir.display()));
            names.truncate(ENTRIES_MAX);
        }
        names.sort();
        Ok(names)
    }
}

/// The system's words for it, without its number.
pub fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not there".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "symbolic links that lead round in a circle".to_owned()
        }
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

/// Words from outside, safe on a terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::write(at("latin"), b"A=caf\xe9\n").unwrap();
        fs::File::create(at("large")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let mut files = Files::new();
        for (name, says) in [
            ("gone", "not there"),
            ("loop", "in a circle"),
            ("pipe", "no regular file"),
            (".", "is a folder"),
            ("large", "larger than 4 MiB"),
        ] {
            assert!(files.read(&at(name)).unwrap_err().contains(says), "{name}: {:?}", files.read(&at(name)));
        }
        assert_eq!(files.read(&at("latin")).unwrap(), "A=caf\u{fffd}\n");
        assert_eq!(files.into_notes().len(), 1);
    }
}
