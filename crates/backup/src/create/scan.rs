//! What there is to copy: a walk over the data directory and its tablespaces. It sorts by name only; whoever copies finds out what has
//! changed since.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use pg_format::files::{DirectoryKind, FileKind, RelationFile, Rules, UnloggedRelations};

use super::CreateError;

/// How deep directories may lie in one another: nothing of PostgreSQL's is deeper than seven, a link that bites its own tail is.
const DEPTH_MAX: usize = 32;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) directories: Vec<FoundDirectory>,
    /// Largest first, so that the last ones to be copied are small and all workers end together.
    pub(crate) files: Vec<FoundFile>,
    /// Oid and place of the tablespaces outside of the data directory.
    pub(crate) tablespaces: Vec<(u32, PathBuf)>,
    /// Links, sockets and other things that are not copied.
    pub(crate) odd: Vec<Vec<u8>>,
    pub(crate) bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundDirectory {
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) modified: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Relative to the data directory.
    pub(crate) path: Box<[u8]>,
    /// As it was when the directory was read.
    pub(crate) size: u64,
    pub(crate) relation: Option<RelationFile>,
}

/// Walks over `data_dir`; `tablespace_directory` is the part of a tablespace that belongs to this cluster (`PG_15_202209061`).
pub(crate) fn scan(data_dir: &Path, rules: &Rules, tablespace_directory: &str) -> Result<Scan, CreateError> {
    let mut walk =
        Walk { data_dir, rules, tablespace_directory: tablespace_directory.as_bytes(), found: Scan::default() };
    walk.directory(&[], 0)?;
    let mut found = walk.found;
    found.files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    found.bytes = found.files.iter().map(|file| file.size).sum();
    Ok(found)
}

impl Scan {
    /// Oids of the tablespaces that are directories of the data directory.
    pub(crate) fn in_place(&self) -> Vec<u32> {
        self.directories.iter().filter_map(|found| tablespace_oid(&found.path)).collect()
    }
}

struct Walk<'a> {
    data_dir: &'a Path,
    rules: &'a Rules,
    tablespace_directory: &'a [u8],
    found: Scan,
}

impl Walk<'_> {
    /// `path` was classified as one to look into. Follows a link at `path` itself.
    fn directory(&mut self, path: &[u8], depth: usize) -> Result<(), CreateError> {
        let full = self.full(path);
        let names = match read_names(&full) {
            Ok(names) => names,
            // Dropped meanwhile: the WAL of the backup says so too.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
            Err(source) => return Err(CreateError::Io { what: "list the directory", path: full, source }),
        };
        if depth > DEPTH_MAX {
            let source = io::Error::other(format!("directories lie more than {DEPTH_MAX} deep"));
            return Err(CreateError::Io { what: "list the directory", path: full, source });
        }
        if let Some(metadata) = known(fs::metadata(&full), "look at", &full)?
            && !path.is_empty()
        {
            self.found.directories.push(found_directory(path, &metadata));
        }
        let unlogged = UnloggedRelations::among(names.iter().map(Vec::as_slice));
        let of_relations = RelationFile::parse(&join(path, b"1")).is_some();
        for name in &names {
            if of_relations && unlogged.skips(name) {
                continue;
            }
            self.item(&join(path, name), depth)?;
        }
        Ok(())
    }

    fn item(&mut self, path: &[u8], depth: usize) -> Result<(), CreateError> {
        let full = self.full(path);
        let Some(metadata) = known(fs::symlink_metadata(&full), "look at", &full)? else { return Ok(()) };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            return self.link(path, &full);
        }
        if kind.is_dir() {
            return match self.rules.classify_directory(path) {
                DirectoryKind::Taken => self.directory(path, depth + 1),
                DirectoryKind::Emptied => {
                    self.found.directories.push(found_directory(path, &metadata));
                    Ok(())
                }
                DirectoryKind::Skipped(_) => Ok(()),
            };
        }
        if kind.is_file() {
            self.file(path, metadata.len());
        } else if !matches!(self.rules.classify(path), FileKind::Skipped(_)) {
            self.found.odd.push(path.to_vec());
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], size: u64) {
        let relation = match self.rules.classify(path) {
            FileKind::Relation(relation) => Some(relation),
            FileKind::Other => None,
            // The control file is copied by itself, when all else is.
            FileKind::Control | FileKind::Skipped(_) => return,
        };
        self.found.files.push(FoundFile { path: path.into(), size, relation });
    }

    fn link(&mut self, path: &[u8], full: &Path) -> Result<(), CreateError> {
        if let Some(oid) = tablespace_oid(path) {
            let Some(target) = known(fs::read_link(full), "read the link", full)? else { return Ok(()) };
            self.found.tablespaces.push((oid, target));
            // Other versions' directories may lie beside ours.
            return self.directory(&join(path, self.tablespace_directory), 2);
        }
        let kind = self.rules.classify_directory(path);
        let Some(metadata) = known(fs::metadata(full), "look at", full)? else {
            self.found.odd.push(path.to_vec());
            return Ok(());
        };
        match kind {
            // pg_wal on a disk of its own, most of all.
            DirectoryKind::Emptied if metadata.is_dir() => {
                self.found.directories.push(found_directory(path, &metadata));
            }
            // A configuration file that is kept elsewhere: its content is what a restore needs.
            DirectoryKind::Taken if metadata.is_file() && !path.contains(&b'/') => self.file(path, metadata.len()),
            DirectoryKind::Skipped(_) => {}
            DirectoryKind::Emptied | DirectoryKind::Taken => self.found.odd.push(path.to_vec()),
        }
        Ok(())
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.data_dir.to_owned() } else { self.data_dir.join(OsStr::from_bytes(path)) }
    }
}

/// `pg_tblspc/16400` is the tablespace 16400.
fn tablespace_oid(path: &[u8]) -> Option<u32> {
    let name = path.strip_prefix(b"pg_tblspc/")?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn found_directory(path: &[u8], metadata: &fs::Metadata) -> FoundDirectory {
    FoundDirectory { path: path.to_vec(), mode: metadata.permissions().mode() & 0o7777, modified: metadata.mtime() }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// `None` for what has gone meanwhile.
fn known<T>(result: io::Result<T>, what: &'static str, path: &Path) -> Result<Option<T>, CreateError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CreateError::Io { what, path: path.to_owned(), source }),
    }
}

fn read_names(directory: &Path) -> io::Result<Vec<Vec<u8>>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name().into_vec())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_belongs_to_the_cluster_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let (data, space, elsewhere) =
            (temp.path().join("data"), temp.path().join("space"), temp.path().join("elsewhere"));
        for directory in ["base/5/pgsql_tmp", "global", "pg_wal/archive_status", "pg_tblspc/9/PG_1_2/5", "pg_notify"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        fs::create_dir_all(space.join("PG_1_2/5")).unwrap();
        fs::create_dir_all(space.join("PG_0_0/5")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        for (file, size) in [
            ("base/5/16400", 30),
            ("base/5/16401", 20),
            ("base/5/16401_init", 10),
            ("base/5/t3_16402", 1),
            ("base/5/pgsql_tmp/pgsql_tmp1.0", 1),
            ("global/pg_control", 1),
            ("pg_wal/000000010000000000000001", 1),
            ("pg_tblspc/9/PG_1_2/5/16404", 3),
            ("pg_notify/0000", 1),
            ("postmaster.pid", 1),
        ] {
            fs::write(data.join(file), vec![0; size]).unwrap();
        }
        fs::write(space.join("PG_1_2/5/16403"), [0; 5]).unwrap();
        fs::write(space.join("PG_0_0/5/16403"), [0; 5]).unwrap();
        fs::write(elsewhere.join("postgresql.conf"), [0; 2]).unwrap();
        symlink(&space, data.join("pg_tblspc/16390")).unwrap();
        symlink(elsewhere.join("postgresql.conf"), data.join("postgresql.conf")).unwrap();
        symlink(&elsewhere, data.join("log")).unwrap();
        let found = scan(&data, &Rules::default(), "PG_1_2").unwrap();
        let files: Vec<_> =
            found.files.iter().map(|file| (std::str::from_utf8(&file.path).unwrap(), file.size)).collect();
        let expected = [
            ("base/5/16400", 30),
            ("base/5/16401_init", 10),
            ("pg_tblspc/16390/PG_1_2/5/16403", 5),
            ("pg_tblspc/9/PG_1_2/5/16404", 3),
            ("postgresql.conf", 2),
        ];
        assert_eq!(files, expected);
        assert_eq!(found.bytes, 50);
        assert_eq!(found.tablespaces, [(16_390, space)]);
        assert_eq!((found.odd.as_slice(), found.in_place()), (&[b"log".to_vec()][..], vec![9]));
        let mut directories: Vec<_> =
            found.directories.iter().map(|found| std::str::from_utf8(&found.path).unwrap()).collect();
        directories.sort_unstable();
        let expected = [
            "base",
            "base/5",
            "global",
            "pg_notify",
            "pg_tblspc",
            "pg_tblspc/16390/PG_1_2",
            "pg_tblspc/16390/PG_1_2/5",
            "pg_tblspc/9",
            "pg_tblspc/9/PG_1_2",
            "pg_tblspc/9/PG_1_2/5",
            "pg_wal",
        ];
        assert_eq!(directories, expected);
    }

    #[test]
    fn no_directory_is_an_error() {
        assert!(scan(Path::new("/nowhere/at/all"), &Rules::default(), "PG_1_2").is_err());
    }
}
