//! Copies of a cluster, compared page by page with what a map says. Tests of `wal` use this file too.

use std::{collections::BTreeMap, fs, path::Path};

use page_map::{Change, PageMap};
use pg_format::{
    ControlFile,
    files::{FileKind, RelationFile, Rules, UnloggedRelations},
    wal::{Fork, Relation},
};

const BLOCK: usize = 8192;
/// The pages of a cluster, as far as a backup takes them.
pub(crate) type Copy = BTreeMap<(Relation, Fork), BTreeMap<u32, Vec<u8>>>;

pub(crate) fn control(data: &Path) -> ControlFile {
    ControlFile::parse(&fs::read(data.join("global/pg_control")).unwrap()).unwrap()
}

/// All files below, relative; the links of tablespaces are followed.
fn files(root: &Path) -> Vec<String> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

pub(crate) fn copy(data: &Path) -> Copy {
    let mut directories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files(data) {
        let (directory, name) = file.rsplit_once('/').unwrap_or(("", &file));
        directories.entry(directory.to_owned()).or_default().push(name.to_owned());
    }
    let mut copy = Copy::new();
    for (directory, names) in directories {
        let unlogged = UnloggedRelations::among(names.iter().map(|name| name.as_bytes()));
        for name in names {
            let path = format!("{directory}/{name}");
            let FileKind::Relation(RelationFile { relation, fork, segment, .. }) =
                Rules::default().classify(path.as_bytes())
            else {
                continue;
            };
            if unlogged.skips(name.as_bytes()) {
                continue;
            }
            assert_eq!(segment, 0, "a test's files have one segment");
            let bytes = fs::read(data.join(&path)).unwrap();
            copy.insert((relation, fork), (0..).zip(bytes.chunks(BLOCK).map(<[u8]>::to_vec)).collect());
        }
    }
    copy
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Differing pages that the map does not name.
    pub(crate) missed: Vec<(Relation, Fork, u32)>,
    /// Pages that differ, where the older copy has them and the file is not whole in the map.
    pub(crate) differing: u64,
    /// Pages that the map names one by one and that are there, and how many of those did not differ.
    pub(crate) named: u64,
    pub(crate) same: u64,
    /// Pages of files that are whole in the map, and how many of those did not differ.
    pub(crate) whole: u64,
    pub(crate) whole_same: u64,
}

pub(crate) fn compare(old: &Copy, new: &Copy, map: &PageMap) -> Found {
    let mut found = Found::default();
    let none = BTreeMap::new();
    for ((relation, fork), pages) in new {
        let before = old.get(&(*relation, *fork)).unwrap_or(&none);
        let old_blocks = u32::try_from(before.len()).unwrap();
        let change = map.change(*relation, *fork);
        for (block, page) in pages {
            let differs = before.get(block) != Some(page);
            let named = change.contains(*block, old_blocks);
            if differs && !named {
                found.missed.push((*relation, *fork, *block));
            }
            if *block >= old_blocks {
                continue;
            }
            match change {
                Change::Whole => {
                    found.whole += 1;
                    found.whole_same += u64::from(!differs);
                }
                _ => {
                    found.differing += u64::from(differs);
                    found.named += u64::from(named);
                    found.same += u64::from(named && !differs);
                }
            }
        }
    }
    found
}
