//! `oxpecker backup list`.

use jiff::Timestamp;
use model::ByteSize;
use repository::{BackupId, BackupRecord};

use super::{reach::Reach, words};
use crate::{
    cli::{Global, RepositoryArgs},
    exit::{FINE, Outcome},
    output,
    repo::{self, Protection, Settings},
};

/// Lists the backups, newest first.
pub fn list(global: &Global, args: &RepositoryArgs) -> Outcome {
    let settings = Settings::load(global, args)?;
    let repository = settings.open()?;
    let mut backups = repository.backups();
    backups.reverse();
    let protection = Protection::of(&repository, &settings.directory, repo::data_dir(&settings.config, &repository));
    let reach = Reach::of(&repository, &backups);
    let summary = |backup: &BackupRecord| {
        let mut summary = words::summary(backup);
        summary["reachable"] = reach.json(backup);
        summary
    };
    let summaries: Vec<_> = backups.iter().map(summary).collect();
    let document = serde_json::json!({
        "repository": repository.id(), "place": settings.directory, "protection": protection, "backups": summaries,
        "unknown_reach": reach.unknown,
    });
    output::result(global.output, "backups", &document, || {
        let mut text = if backups.is_empty() {
            format!("no backup in {} yet: `oxpecker backup create` makes the first\n", settings.directory.display())
        } else {
            table(&backups, &reach, Timestamp::now())
        };
        for unknown in &reach.unknown {
            text.push_str(&format!("\nNote: how far backups can be taken is not known: {unknown}\n"));
        }
        if !protection.missing.is_empty() {
            text.push('\n');
            text.push_str(&protection.in_words());
        }
        text
    })?;
    Ok(FINE)
}

fn table(backups: &[BackupRecord], reach: &Reach, now: Timestamp) -> String {
    let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
    let digits = words::digits(&ids);
    let has_wal = backups.iter().any(|backup| reach.get(backup).is_some());
    let rows = backups.iter().map(|backup| {
        let info = repo::info(backup);
        let at = words::consistent_at(backup, info.as_ref());
        let mut proof = words::proof(backup, now);
        if let Some(damaged) = info.as_ref().map(|info| info.corrupt_pages_count).filter(|count| *count > 0) {
            proof.push_str(&format!("; {damaged} damaged pages in the source"));
        }
        if backup.pinned.is_some() {
            proof.push_str("; kept by hand");
        }
        [
            backup.id.to_string()[..digits].to_owned(),
            backup.cluster.clone(),
            words::moment(at),
            reach.until(backup, at),
            words::ago(now, at),
            info.as_ref().map_or_else(|| "?".to_owned(), |info| info.pg_version.to_string()),
            ByteSize(info.as_ref().map_or(backup.content_bytes, |info| info.bytes + info.wal_bytes)).to_string(),
            ByteSize(backup.stored_bytes).to_string(),
            proof,
        ]
    });
    let head = ["backup", "cluster", "restores to", "or up to", "age", "PostgreSQL", "size", "added", "proven"];
    let mut text = output::table(head, &[6, 7], rows);
    if has_wal {
        text.push_str("Each moment between the two can be returned to: `oxpecker restore --to-time ...`.\n");
    }
    text
}
