//! Files, folders and standard input; a running server, this machine: the only part with I/O.
//!
//! Everything found is handed on at once and forgotten: memory holds one file at a time. Whatever can't be read becomes a [`Problem`] with its
//! place, and the rest is still read.

pub mod host;
pub mod live;
pub mod probe;

use std::{
    collections::HashSet,
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    facts::{Collector, ProblemKind},
    finding::Place,
    quantity::human,
    words::shown_path,
};

/// Bytes of one file. Manifests are smaller; a dump of a whole cluster may be as large.
pub const FILE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of all files of one run.
pub const TOTAL_BYTES_MAX: u64 = 1 << 30;
/// Files of one run.
pub const FILES_MAX: usize = 100_000;
/// How deep folders may nest.
const DEPTH_MAX: usize = 64;
/// Folders that hold nothing of a team's own.
const SKIPPED: &[&str] = &["node_modules", "target", "vendor", "venv", "__pycache__", "dist", "site-packages"];
/// Code that holds settings; other code is not read.
const SETTINGS: &[&str] = &["settings", "config", "constants", "configuration"];

/// A path that can't be audited at all.
#[derive(Debug, thiserror::Error)]
#[error("can't read {}: {source}; hint: give a file, a folder, or - for standard input", shown_path(&path.to_string_lossy()))]
pub struct NoSuchPath {
    /// The path.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Reads all paths into a collector; `-` is standard input.
///
/// # Errors
/// When a path that was named is not there or may not be looked at. What lies below a folder never fails the whole.
pub fn read(paths: &[PathBuf], stdin: impl Read, into: &mut Collector) -> Result<(), NoSuchPath> {
    let mut walk = Walk { into, folders: HashSet::new(), files: HashSet::new(), bytes: 0, full: false };
    let mut stdin = Some(stdin);
    for path in paths {
        if path.as_os_str() == "-" {
            if let Some(stdin) = stdin.take() {
                walk.content("(stdin)", stdin);
            }
            continue;
        }
        let failed = |source| NoSuchPath { path: path.clone(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            walk.folder(path, &metadata, 0);
        } else {
            walk.file(path, &metadata);
        }
    }
    Ok(())
}

struct Walk<'a> {
    into: &'a mut Collector,
    /// Device and inode: folders that were entered, by whatever name.
    folders: HashSet<(u64, u64)>,
    files: HashSet<(u64, u64)>,
    bytes: u64,
    full: bool,
}

impl Walk<'_> {
    fn problem(&mut self, path: &Path, what: String) {
        let place = Place { file: shown_path(&path.to_string_lossy()).into(), line: 1 };
        self.into.problem(place, ProblemKind::Broken, what);
    }

    fn folder(&mut self, path: &Path, metadata: &Metadata, depth: usize) {
        // Entered before: a link that leads back, or the same folder given twice.
        if !self.folders.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        if depth > DEPTH_MAX {
            return self.problem(path, format!("folders nest deeper than {DEPTH_MAX}; not read"));
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.problem(path, format!("can't read this folder: {error}")),
        };
        let mut paths = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => paths.push(entry.path()),
                Err(error) => self.problem(path, format!("can't read all of this folder: {error}")),
            }
        }
        // A kustomization says which of its neighbours are only parts.
        paths.sort_by_cached_key(|path| {
            (!path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kustomization.")), path.clone())
        });
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                        self.folder(&path, &metadata, depth + 1);
                    }
                }
                Ok(metadata) if is_wanted(&name) => self.file(&path, &metadata),
                Ok(_) => {}
                Err(error) if is_wanted(&name) => self.problem(&path, format!("can't be read: {error}")),
                Err(_) => {}
            }
            if self.full {
                return;
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        // A pipe would block for ever, a device has no end.
        if !metadata.is_file() {
            return self.problem(path, "neither a file nor a folder; not read".to_owned());
        }
        if !self.files.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        if self.files.len() > FILES_MAX || self.bytes + metadata.len().min(FILE_BYTES_MAX) > TOTAL_BYTES_MAX {
            self.full = true;
            let most = human(TOTAL_BYTES_MAX);
            return self
                .problem(path, format!("more than {FILES_MAX} files or {most}; this and what follows was not read"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return self.too_large(path);
        }
        match File::open(path) {
            Ok(file) => self.content(&path.to_string_lossy(), file),
            Err(error) => self.problem(path, format!("can't be read: {error}")),
        }
    }

    fn too_large(&mut self, path: &Path) {
        self.problem(path, format!("larger than {}; not read", human(FILE_BYTES_MAX)));
    }

    fn content(&mut self, name: &str, from: impl Read) {
        let mut bytes = Vec::new();
        let path = Path::new(name);
        if let Err(error) = from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes) {
            return self.problem(path, format!("can't be read: {error}"));
        }
        self.bytes += bytes.len() as u64;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return self.too_large(path);
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.into.add(name, &text),
            Err(error) => {
                self.problem(path, format!("no UTF-8 text, at byte {}; not read", error.utf8_error().valid_up_to()));
            }
        }
    }
}

/// Whether a file found in a folder is one that the audit understands.
fn is_wanted(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    match extension {
        "yaml" | "yml" | "rules" | "service" | "timer" | "conf" => true,
        // Of other JSON there is too much.
        "json" => ["manifest", "deployment", "compose", "k8s", "kubernetes"].iter().any(|word| stem.contains(word)),
        "py" | "js" | "ts" | "mjs" | "rb" => SETTINGS.contains(&stem),
        "toml" => name == "oxpecker.toml",
        _ => {
            name.starts_with("readme")
                || name.starts_with("expected-routes")
                || name.starts_with(".env")
                || name.ends_with(".env")
                || name.starts_with("env.")
                || name.contains(".env.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn what_is_read() {
        for (name, wanted) in [
            ("deployment.yaml", true),
            ("docker-compose.yml", true),
            ("README.md", true),
            (".env", true),
            (".env.example", true),
            ("bot.env", true),
            ("settings.py", true),
            ("models.py", false),
            ("package.json", false),
            ("Cargo.toml", false),
            ("oxpecker.toml", true),
            ("notes.txt", false),
        ] {
            assert_eq!(is_wanted(name), wanted, "{name}");
        }
    }
}
