//! `oxpecker backup show`.

use backup::BackupInfo;
use jiff::Timestamp;
use model::ByteSize;
use repository::BackupRecord;

use super::{reach::Reach, words};
use crate::{
    cli::{Global, RepositoryArgs},
    exit::{FINE, Outcome},
    output,
    repo::{self, Settings},
    work,
};

/// All about one backup.
pub fn show(global: &Global, id: &str, args: &RepositoryArgs) -> Outcome {
    let settings = Settings::load(global, args)?;
    let repository = settings.open()?;
    let backup = repo::find(&repository, &settings, id)?;
    let reach = Reach::of(&repository, std::slice::from_ref(&backup));
    let mut summary = words::summary(&backup);
    summary["reachable"] = reach.json(&backup);
    let document = serde_json::json!({ "summary": summary, "backup": backup, "unknown_reach": reach.unknown });
    output::result(global.output, "backup", &document, || text(&backup, &reach))?;
    Ok(FINE)
}

fn text(backup: &BackupRecord, reach: &Reach) -> String {
    let mut text = format!("backup {}\n", backup.id);
    let mut say = |label: &str, words: String| text.push_str(&format!("  {label:<12}{words}\n"));
    say("cluster", backup.cluster.clone());
    match repo::info(backup) {
        Some(info) => of_info(&info, &mut say),
        None => say("info", "another program or a newer version made it; --output json shows what it says".to_owned()),
    }
    if let Some(reachable) = reach.get(backup) {
        let newest = reachable.newest.map_or(String::new(), |newest| format!(", newest commit {newest}"));
        say(
            "or up to",
            format!("{}, timeline {}{newest}: `oxpecker restore --to-time`", reachable.to, reachable.timeline),
        );
    }
    for unknown in &reach.unknown {
        say("or up to", format!("not known: {unknown}"));
    }
    say("added", format!("{} to the repository, {} entries", ByteSize(backup.stored_bytes), backup.entries));
    if let Some(note) = &backup.pinned {
        say("kept", format!("by hand: {note}"));
    }
    if backup.proofs.is_empty() {
        say("proven", "not yet: `oxpecker backup prove` restores it and looks".to_owned());
    }
    for proof in backup.proofs.iter().rev() {
        let outcome = if proof.passed { "proven" } else { "FAILED" };
        say(outcome, format!("{} ({})", words::moment(proof.time), words::ago(Timestamp::now(), proof.time)));
        for line in receipt_lines(&proof.receipt) {
            say("", line);
        }
    }
    text
}

fn of_info(info: &BackupInfo, say: &mut impl FnMut(&str, String)) {
    let standby = if info.standby { ", of a standby" } else { "" };
    say("server", format!("PostgreSQL {}, system identifier {}", info.pg_version, info.system_id));
    say("host", format!("{}, {}", info.host.name, info.host.data_dir));
    say(
        "taken",
        format!(
            "{} to {}, {}{standby}",
            words::moment(info.start_time),
            words::moment(info.stop_time),
            words::source(info)
        ),
    );
    say("restores to", format!("{}, timeline {} (begins at {})", info.stop_lsn, info.timeline, info.start_lsn));
    say(
        "size",
        format!(
            "{} in {} files, and {} of write-ahead log",
            ByteSize(info.bytes),
            info.files,
            ByteSize(info.wal_bytes)
        ),
    );
    say(
        "checksums",
        if info.data_checksums {
            "verified while it was read"
        } else {
            "the cluster has none: pages were only looked at"
        }
        .to_owned(),
    );
    for space in &info.tablespaces {
        say("tablespace", format!("{} at {}", space.oid, space.location));
    }
    for database in info.databases.iter().filter(|database| database.relation_files > 0) {
        say(
            "database",
            format!("{}: {} in {} files", database.name, ByteSize(database.bytes), database.relation_files),
        );
    }
    for (setting, path) in &info.outside {
        say("outside", format!("{setting} is {path}: its copy is in the backup"));
    }
    if info.corrupt_pages_count > 0 {
        say("DAMAGED", format!("{} pages in the source", info.corrupt_pages_count));
        for page in &info.corrupt_pages {
            say("", format!("{}, block {}: {}", page.path, page.block, page.why));
        }
    }
}

/// What a receipt says, as far as this version knows its form.
fn receipt_lines(receipt: &serde_json::Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(ms) = receipt["recovery_time_ms"].as_u64() {
        lines
            .push(format!("up again {} after the restore began", work::duration(std::time::Duration::from_millis(ms))));
    }
    for reason in receipt["reasons"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str) {
        lines.push(reason.to_owned());
    }
    lines
}
