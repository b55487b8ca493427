//! The proof of a backup in a repository of ours.

use repository::{BackupId, Repository, RepositoryError};

use super::{
    ProveOptions, Receipt, Sorting, Verdict,
    error::{Halt, ProveError},
    further::{FurtherWal, WalRecord},
    identity::Identity,
    place::Place,
    receipt::{SubjectRecord, clip},
    run::{self, Recorded},
};
use crate::{
    info::{BackupInfo, Host},
    progress::{Note, Progress},
    restore::{RestoreError, RestoreOptions, restore},
};

/// Proves a backup: restores it to a scratch directory, recovers and checks it, and attaches the receipt to it in the repository, where it is
/// sealed like every record: only who holds the keys can make one. A proof that was cancelled is not recorded.
///
/// With `further`, WAL that was stored since is replayed as well. Where that does not end in a proof, the backup is proven once more without it: a
/// table that was dropped since, or WAL that is damaged, says nothing of the backup; the receipt says what came of the WAL.
///
/// # Errors
/// Nothing was begun, or the receipt could not be recorded. What goes wrong between is in the receipt.
pub fn prove_backup(
    options: &ProveOptions,
    repository: &Repository,
    backup: BackupId,
    further: Option<&dyn FurtherWal>,
    progress: &dyn Progress,
) -> Result<Receipt, ProveError> {
    // A repository that can't be written to can still be read.
    let hold = repository.hold(backup, serde_json::json!({ "proof": std::process::id() }));
    let _hold = hold.inspect_err(|error| {
        progress.note(&Note::Warning(format!("nothing keeps the backup from expiring while it is proven: {error}")));
    });
    let info = BackupInfo::parse(repository.read(backup)?.info())?;
    let mut recorded = Recorded {
        stop_lsn: Some(info.stop_lsn),
        sorting: Some(sorting(&info.host)),
        censuses: info.censuses.clone(),
        brings_its_wal: true,
        further,
    };
    let mut bring = |place: &Place, identity: &Identity| {
        let mut to = RestoreOptions::new(backup, place.data());
        to.owner = identity.switch.then(|| identity.name.clone());
        // What WAL does outside is what the fence is for, and decided there.
        to.replay_is_fenced = true;
        to.tablespaces = info
            .tablespaces
            .iter()
            .map(|tablespace| (tablespace.location.clone(), place.tablespaces().join(tablespace.oid.to_string())))
            .collect();
        restore(&to, repository, progress).map(|_| ()).map_err(|error| judge(&error))
    };
    let subject = SubjectRecord::Backup { id: backup.to_string() };
    let needed = info.bytes.saturating_add(info.wal_bytes);
    let mut receipt = run::run(options, subject.clone(), &recorded, needed, &mut bring, progress)?;
    if receipt.verdict != Verdict::Proven && recorded.further.take().is_some() && !progress.cancelled() {
        let (wal, why) = (receipt.wal.take(), receipt.reasons.join("; "));
        progress.note(&Note::Warning(format!("not proven with the WAL behind it, so once more without that: {why}")));
        let note =
            format!("with the WAL behind the backup it was not proven, so it was proven without: {}", clip(&why));
        receipt = run::run(options, subject, &recorded, needed, &mut bring, progress)?;
        receipt.notes.push(note);
        receipt.wal = wal.map(|wal| WalRecord { problem: Some(wal.problem.unwrap_or_else(|| clip(&why))), ..wal });
    }
    if progress.cancelled() {
        return Ok(receipt);
    }
    let value = serde_json::to_value(&receipt).map_err(std::io::Error::from);
    let value = value.map_err(|source| ProveError::File { what: "write", path: "the receipt".into(), source })?;
    match repository.add_proof(backup, receipt.verdict == Verdict::Proven, &value) {
        Ok(()) => Ok(receipt),
        Err(source) => Err(ProveError::Unrecorded { receipt: Box::new(receipt), source }),
    }
}

/// Whose fault it is that a restore failed.
fn judge(error: &RestoreError) -> Halt {
    let reason = format!("the restore failed: {error}");
    match error {
        RestoreError::Content { .. }
        | RestoreError::Missing(_)
        | RestoreError::Meta(_)
        | RestoreError::Map(_)
        | RestoreError::Name(_)
        | RestoreError::Repository(RepositoryError::Damaged { .. }) => Halt::failed(reason),
        // An object that the store no longer has is lost; all else of the store may pass.
        RestoreError::Repository(RepositoryError::Store(store)) if store.is_not_found() => Halt::failed(reason),
        _ => Halt::not_proven(reason),
    }
}

fn sorting(host: &Host) -> Sorting {
    Sorting {
        libc: host.libc_collation.clone(),
        icu: host.icu_collation.clone(),
        machine: Sorting::machine_of(&host.server),
    }
}
