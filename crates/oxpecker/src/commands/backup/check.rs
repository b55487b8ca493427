//! `oxpecker backup check`.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use model::ByteSize;
use repository::{CheckProgress, CheckReport, Fault, WalWindow};

use super::holds;
use crate::{
    cli::{Global, RepositoryArgs},
    exit::{FINDING, FINE, Outcome},
    output,
    repo::{self, Protection, Settings},
    work::{self, Work},
};

/// Findings that are shown to a person; JSON has them all.
const FINDINGS_SHOWN: usize = 50;

/// Looks for damage.
pub fn check(global: &Global, deep: bool, args: &RepositoryArgs) -> Outcome {
    work::step_down();
    let settings = Settings::load(global, args)?;
    let repository = settings.open()?;
    let work = Work::begin(global, None)?;
    let rate = Mutex::new(Rate { began: Instant::now() });
    let report = repository.check(deep, &|progress: CheckProgress| {
        let (per_second, left) = rate.lock().unwrap_or_else(std::sync::PoisonError::into_inner).of(&progress);
        work.show("checking", progress.bytes, progress.bytes_total, per_second, left);
    });
    work.end();
    let report = report.map_err(repo::failure)?;
    let protection = Protection::of(&repository, &settings.directory, repo::data_dir(&settings.config, &repository));
    let document = serde_json::json!({ "place": settings.directory, "report": report, "clean": report.is_clean(), "protection": protection });
    output::result(global.output, "backup_check", &document, || text(&report) + &protection.in_words())?;
    Ok(if report.is_clean() { FINE } else { FINDING })
}

/// The mean since the beginning: packs are read evenly.
struct Rate {
    began: Instant,
}

impl Rate {
    fn of(&self, progress: &CheckProgress) -> (f64, Option<Duration>) {
        let per_second = progress.bytes as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let left = progress.bytes_total.saturating_sub(progress.bytes) as f64 / per_second;
        (per_second, Duration::try_from_secs_f64(left).ok())
    }
}

fn text(report: &CheckReport) -> String {
    let depth = if report.deep {
        "every byte was read and authenticated"
    } else {
        "names, sizes and tables only; --deep reads every byte"
    };
    let mut text = format!("{} packs, {} ({depth})\n", report.packs, ByteSize(report.bytes));
    if report.unneeded_packs > 0 {
        text.push_str(&format!(
            "{} packs ({}) that no backup needs: `oxpecker backup prune` removes what it may\n",
            report.unneeded_packs,
            ByteSize(report.unneeded_bytes)
        ));
    }
    for finding in report.findings.iter().take(FINDINGS_SHOWN) {
        let backups: Vec<String> = finding.backups.iter().map(|id| id.to_string()[..8].to_owned()).collect();
        let whose = if backups.is_empty() { String::new() } else { format!(" (backups {})", backups.join(", ")) };
        text.push_str(&format!("{}: {}: {}{whose}\n", fault(finding.fault), finding.object, finding.what));
    }
    let hidden = report.findings.len().saturating_sub(FINDINGS_SHOWN) as u64 + report.findings_left_out;
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more\n"));
    }
    for damaged in &report.damaged {
        text.push_str(&format!("DAMAGED: backup {}: ", damaged.backup));
        if damaged.manifest_readable {
            text.push_str(&format!(
                "{} files can't be restored, the others can: {}\n",
                damaged.entries,
                damaged.names.join(", ")
            ));
        } else {
            text.push_str("its list of files can't be read\n");
        }
    }
    text.push_str(&windows(&report.wal_windows));
    if !report.holds.is_empty() {
        text.push_str(&format!("\n{}\n", holds::in_words(&report.holds)));
    }
    match (report.restorable.len(), report.damaged.is_empty()) {
        (0, true) => text.push_str("no backup is there\n"),
        (0, false) => text.push_str("NO BACKUP CAN BE RESTORED WHOLE\n"),
        (1, true) => text.push_str("the one backup can be restored, as far as this looked\n"),
        (n, true) => text.push_str(&format!("all {n} backups can be restored, as far as this looked\n")),
        (n, false) => {
            let ids: Vec<String> = report.restorable.iter().map(|id| id.to_string()[..8].to_owned()).collect();
            text.push_str(&format!("still restorable: {n} ({})\n", ids.join(", ")));
        }
    }
    text
}

/// How far backups can be replayed, each end once.
fn windows(windows: &[WalWindow]) -> String {
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for window in windows.iter().filter(|window| !window.is_empty() || window.beyond.is_some()) {
        let place = |segment, bytes| wal::inspect::place(window.start.segment_bytes, segment, bytes);
        let (to, line) = (place(window.segment, window.bytes), window.start.line);
        let end = match window.beyond {
            None => format!("can be replayed up to {to} of timeline {line}"),
            Some(beyond) => format!(
                "can be replayed up to {to} of timeline {line} ONLY: there is a gap, later WAL is there from about {}",
                place(beyond, 0)
            ),
        };
        ends.entry(end).or_default().push(window.backup.to_string()[..8].to_owned());
    }
    ends.iter().map(|(end, backups)| format!("backup {}: {end}\n", backups.join(", "))).collect()
}

fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Missing => "missing",
        Fault::Damaged => "damaged",
        Fault::Contradicts => "contradicts",
        Fault::Foreign => "foreign",
        Fault::Unreadable => "unreadable",
    }
}
