//! The check: is everything there, as it was written, and ours? And if not, what can still be restored?
//!
//! It trusts nothing but the secret: keys are read again from all generations, the log from its first record without checkpoints,
//! every manifest page by page, every pack's size, header, footer and trailer, and (deep) every byte of every pack. What is in the
//! store beside that is foreign, an orphan, or in work.

mod content;
mod objects;
mod wal;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

pub use wal::WalWindow;

use crate::{
    error::{RepositoryError, first_line},
    hold::HoldRecord,
    id::{BackupId, PackId},
    key::Opened,
    log::State,
    pack::PackTable,
    reader::{read_page, read_root},
    repository::Repository,
};

/// Findings that are listed; the rest is counted. A repository on a dying disk has as many as it has packs.
pub const FINDINGS_MAX: usize = 1000;
/// Threads that read packs. Each holds one.
const CHECKERS: usize = 2;

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is there and is not what was written: bits flipped, cut off, swapped with another, put back from an older copy.
    Damaged,
    /// It is authentic, and contradicts another object.
    Contradicts,
    /// It lies among ours and is not ours.
    Foreign,
    /// It could not be read this time; nothing is known about it.
    Unreadable,
}

impl Fault {
    /// It takes something away from a backup, or from the way to it.
    pub fn is_harmful(self) -> bool {
        self != Self::Foreign
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The object's name.
    pub object: String,
    /// In words.
    pub what: String,
    /// The backups that need the object.
    pub backups: Vec<BackupId>,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Packs looked at.
    pub packs: u64,
    /// Packs to look at.
    pub packs_total: u64,
    /// Bytes read or, where only sizes are compared, accounted for.
    pub bytes: u64,
    /// Bytes of all packs.
    pub bytes_total: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// Every byte was read and authenticated, not only names, sizes and tables.
    pub deep: bool,
    /// What is wrong; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_left_out: u64,
    /// Backups that nothing was found against, oldest first.
    pub restorable: Vec<BackupId>,
    /// Backups that can't be restored whole, with the entries that are touched: how many, and the first names of them.
    pub damaged: Vec<DamagedBackup>,
    /// Packs looked at, and their bytes.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that no backup needs, that running sessions wrote, or that ended ones left; the next collection takes what it may.
    pub unneeded_packs: u64,
    /// Their bytes.
    pub unneeded_bytes: u64,
    /// How far each backup can be replayed on its line, where its commit says which. With `deep` every object of WAL was read; what it says
    /// is for who knows its meaning.
    pub wal_windows: Vec<WalWindow>,
    /// Objects of WAL. With `deep` each was read and authenticated.
    pub wal_objects: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// What keeps backups from expiring for restores and proofs, oldest first. No findings: most of them run.
    pub holds: Vec<HoldRecord>,
}

/// A backup that can't be restored whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedBackup {
    /// Which.
    pub backup: BackupId,
    /// Its manifest can be read, so that all other entries can be restored.
    pub manifest_readable: bool,
    /// Entries that need a damaged or missing frame.
    pub entries: u64,
    /// The names of the first of them, at most 20.
    pub names: Vec<String>,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.damaged.is_empty()
    }
}

/// Names of touched entries that are kept for each backup.
const NAMES_MAX: usize = 20;

/// Which frames of a pack can't be read. `None`: none of them can.
type BadFrames = HashMap<PackId, Option<HashSet<u32>>>;

/// A pack that some backup needs.
#[derive(Clone, Debug)]
struct Needed {
    /// Of packs of content: what the manifests say of it.
    table: Option<PackTable>,
    backups: BTreeSet<BackupId>,
}

/// The work of one check.
struct Check<'a> {
    repository: &'a Repository,
    report: CheckReport,
    needed: BTreeMap<PackId, Needed>,
    /// Backups (and drafts) with a manifest that can't be read.
    unreadable: BTreeSet<BackupId>,
    bad: BadFrames,
    /// The keys, read again.
    opened: Option<Opened>,
}

impl Repository {
    /// Checks everything; `deep`: every byte. `progress` is called now and then, from several threads.
    ///
    /// Findings are no error. Packs in which something was found are recorded as damaged, so that no later backup shares them.
    ///
    /// # Errors
    /// The store can't be listed, or the log can't be read at all.
    pub fn check(&self, deep: bool, progress: &(dyn Fn(CheckProgress) + Sync)) -> Result<CheckReport, RepositoryError> {
        self.refresh()?;
        let state = self.with_state(State::clone);
        let mut check = Check {
            repository: self,
            report: CheckReport { deep, ..CheckReport::default() },
            needed: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            bad: HashMap::new(),
            opened: None,
        };
        check.keys(&state);
        check.log(&state);
        for (id, backup) in state.backups() {
            check.manifest(*id, &backup.manifest, &state);
        }
        check.packs(deep, progress);
        check.listing(&state)?;
        check.wal_windows(&state);
        check.conclude(&state)?;
        check.report.holds = self.holds();
        Ok(check.report)
    }
}

impl Check<'_> {
    fn find(&mut self, fault: Fault, object: impl Into<String>, what: &str, backups: Vec<BackupId>) {
        if self.report.findings.len() >= FINDINGS_MAX {
            self.report.findings_left_out += 1;
            return;
        }
        let (object, what) = (object.into(), first_line(what));
        self.report.findings.push(Finding { fault, object, what, backups });
    }

    /// A manifest's root, tables and pages: can they be read, do they fit together, and what do they need?
    fn manifest(&mut self, backup: BackupId, manifest: &serde_json::Value, state: &State) {
        let vault = &self.repository.inner.vault;
        let root = match read_root(vault, manifest) {
            Ok(root) => root,
            Err(error) => {
                self.unreadable.insert(backup);
                return self.find(
                    fault_of(&error),
                    format!("manifest of backup {backup}"),
                    &error.to_string(),
                    vec![backup],
                );
            }
        };
        let mut metas: BTreeSet<PackId> = BTreeSet::new();
        metas.extend(
            crate::record::ManifestRecord::parse(manifest).and_then(|found| found.place()).map(|place| place.pack),
        );
        // What the entries use must be what the root says, for the log counts references by it.
        let mut used: HashMap<(crate::frame::Identity, u32), bool> = HashMap::new();
        for table in &root.tables {
            metas.insert(table.place.pack);
            match vault.tables(&table.place) {
                Ok(packs) if packs.len() == table.used.len() => {
                    for (index, (pack, is_used)) in (0_u32..).zip(packs.iter().zip(&table.used)) {
                        if *is_used {
                            used.insert((table.place.identity, index), false);
                            self.need(pack.pack, Some(pack), backup);
                        }
                    }
                }
                Ok(_) => {
                    self.unreadable.insert(backup);
                    self.find(
                        Fault::Contradicts,
                        object(table.place.pack),
                        "a table of packs is not the one that a root names",
                        vec![backup],
                    );
                }
                Err(error) => {
                    self.unreadable.insert(backup);
                    self.find(fault_of(&error), object(table.place.pack), &error.to_string(), vec![backup]);
                }
            }
        }
        let mut strange = 0_u64;
        for page in &root.pages {
            metas.insert(page.place.pack);
            match read_page(vault, page) {
                Ok(entries) => {
                    for run in entries.iter().flat_map(|entry| &entry.runs) {
                        if let crate::manifest::RawRun::Frames { pack, .. } = run {
                            match used.get_mut(pack) {
                                Some(seen) => *seen = true,
                                None => strange += 1,
                            }
                        }
                    }
                }
                Err(error) => {
                    self.unreadable.insert(backup);
                    self.find(fault_of(&error), object(page.place.pack), &error.to_string(), vec![backup]);
                }
            }
        }
        let unused = used.values().filter(|seen| !**seen).count();
        if !self.unreadable.contains(&backup) && (strange > 0 || unused > 0) {
            let what = format!("its root and its entries disagree on {} packs", strange + unused as u64);
            self.unreadable.insert(backup);
            self.find(Fault::Contradicts, format!("manifest of backup {backup}"), &what, vec![backup]);
        }
        for pack in metas {
            self.need(pack, None, backup);
        }
        let counted = state.backups().get(&backup).map(|found| &found.packs);
        let known = |pack: &PackId| state.number_of(*pack).is_some_and(|n| counted.is_some_and(|set| set.contains(n)));
        let forgotten: Vec<PackId> = self
            .needed
            .iter()
            .filter(|(pack, need)| need.backups.contains(&backup) && !known(pack))
            .map(|(pack, _)| *pack)
            .collect();
        for pack in forgotten {
            self.find(
                Fault::Contradicts,
                object(pack),
                "a manifest needs it, and the backup's commit does not name it",
                vec![backup],
            );
        }
    }

    fn need(&mut self, pack: PackId, table: Option<&PackTable>, backup: BackupId) {
        let need = self.needed.entry(pack).or_insert_with(|| Needed { table: None, backups: BTreeSet::new() });
        need.backups.insert(backup);
        if need.table.is_none() {
            need.table = table.cloned();
        }
    }

    /// What can be restored, and for the rest: which entries can't.
    fn conclude(&mut self, state: &State) -> Result<(), RepositoryError> {
        let mut complete: Vec<_> = state.backups().iter().filter(|(_, backup)| backup.complete).collect();
        complete.sort_by_key(|(_, backup)| backup.committed);
        for (id, _) in complete {
            let touched =
                self.needed.iter().any(|(pack, need)| need.backups.contains(id) && self.bad.contains_key(pack));
            let manifest_readable = !self.unreadable.contains(id);
            if !touched && manifest_readable {
                self.report.restorable.push(*id);
                continue;
            }
            let (entries, names) = self.touched_entries(*id);
            if touched && entries == 0 && manifest_readable {
                // The damage lies in frames that other backups use.
                self.report.restorable.push(*id);
                continue;
            }
            self.report.damaged.push(DamagedBackup { backup: *id, manifest_readable, entries, names });
        }
        let packs: Vec<PackId> = self.bad.keys().copied().collect();
        if !packs.is_empty() {
            // Whoever checks a read-only copy can't record it; the report says it all the same.
            let recorded = self.repository.with_log(|log| log.damaged(&packs, "found by a check"));
            if let Err(error) = recorded {
                tracing::warn!(%error, "the damaged packs could not be recorded; later backups may share them");
            }
        }
        Ok(())
    }

    /// The entries of a backup that need a frame which can't be read.
    fn touched_entries(&self, backup: BackupId) -> (u64, Vec<String>) {
        let (mut count, mut names) = (0, Vec::new());
        let Ok(reader) = self.repository.read(backup) else { return (0, names) };
        for entry in reader.entries().flatten() {
            let is_bad = |frame: &crate::FrameRef| match reader.locate(frame) {
                Ok(place) => match self.bad.get(&place.pack) {
                    Some(Some(frames)) => frames.contains(&place.ordinal),
                    Some(None) => true,
                    None => false,
                },
                Err(_) => true,
            };
            let frames = entry.extents.iter().filter_map(|extent| match extent {
                crate::Extent::Frame(frame) => Some(frame),
                crate::Extent::Zero { .. } => None,
            });
            if frames.into_iter().any(is_bad) {
                count += 1;
                if names.len() < NAMES_MAX {
                    names.push(String::from_utf8_lossy(&entry.name).into_owned());
                }
            }
        }
        (count, names)
    }
}

fn object(pack: PackId) -> String {
    crate::pack::object_name(pack)
}

/// What an error of reading says about the object.
fn fault_of(error: &RepositoryError) -> Fault {
    match error {
        RepositoryError::Store(error) if error.is_not_found() => Fault::Missing,
        error if error.is_damage() => Fault::Damaged,
        _ => Fault::Unreadable,
    }
}
