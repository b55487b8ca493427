//! `oxpecker backup prune`.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use model::ByteSize;
use repository::{
    BackupRecord, Repository, WalExpire,
    log::{
        Expired, LogError,
        policy::{self, Gone, Kept, Plan},
    },
    store::LocalStore,
};

use super::{holds, words};
use crate::{
    cli::{Format, Global, PruneArgs},
    config,
    exit::{FINE, Failure, Outcome},
    output, prompt,
    repo::{self, Settings},
    work,
};

/// Lets backups expire, and removes what nobody needs.
pub fn prune(global: &Global, args: &PruneArgs) -> Outcome {
    work::step_down();
    let settings = Settings::load(global, &args.repository)?;
    let repository = settings.open()?;
    let mut released = Vec::new();
    if !args.dry_run {
        released = holds::release(&repository, &args.release_hold)?;
        // What only a killed restore or proof still held may expire at once, not with the next prune.
        released.extend(repository.release_dead_holds().map_err(repo::failure)?);
    }
    let held = repository.holds();
    let plan = plan(&repository, settings.cluster(), &settings.config.backup.keep)?;
    let wal = repository
        .expirable_wal(settings.cluster(), &rules(&settings.config.backup.keep), Timestamp::now(), &TimeZone::system())
        .map_err(repo::failure)?;
    let backups: Vec<BackupRecord> =
        repository.backups().into_iter().rev().filter(|backup| backup.cluster == settings.cluster()).collect();
    let document = |done| {
        let mut document = document(&backups, &plan, done);
        document["holds"] = serde_json::json!(held);
        document["wal"] = serde_json::json!(wal);
        document["released_holds"] = serde_json::json!(released);
        document
    };
    let shown = || {
        let mut text = String::new();
        for hold in &released {
            text.push_str(&format!("the hold {} is released\n", holds::short(hold.session)));
        }
        text.push_str(&table(&backups, &plan));
        text.push_str(&wal_in_words(&wal, &backups, &plan));
        if !held.is_empty() {
            text.push('\n');
            text.push_str(&holds::in_words(&held));
        }
        text
    };
    if args.dry_run {
        output::result(global.output, "backup_prune", &document(None), || {
            shown() + "\nnothing was changed (--dry-run)\n"
        })?;
        return Ok(FINE);
    }
    if !plan.expired.is_empty() && !args.yes {
        agreed(&shown(), plan.expired.len())?;
    } else if global.output == Format::Text && !global.quiet {
        output::note(&shown());
    }
    let done = apply(&settings, &repository, &plan)?;
    output::result(global.output, "backup_prune", &document(Some(done)), || {
        format!(
            "{} backups expired, {} packs and {} objects of WAL removed: {} are free again\n",
            done.expired,
            done.removed_packs,
            done.removed_wal,
            ByteSize(done.freed_bytes)
        )
    })?;
    Ok(FINE)
}

/// What was done.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Pruned {
    /// Backups that expired.
    pub expired: usize,
    /// Packs that were removed.
    pub removed_packs: u64,
    /// Objects of WAL that were removed.
    pub removed_wal: u64,
    /// Bytes of all of them.
    pub freed_bytes: u64,
}

/// The verdict on each backup of `cluster`.
///
/// # Errors
/// Where this host's clock is behind the newest record: then nothing may expire.
pub fn plan(repository: &Repository, cluster: &str, keep: &config::Keep) -> Result<Plan, Failure> {
    let keep = rules(keep);
    let zone = TimeZone::system();
    repository
        .with_state(|state| policy::plan(state, cluster, &keep, Timestamp::now(), &zone))
        .map_err(|refused| repo::failure(LogError::Refused(refused).into()))
}

fn rules(keep: &config::Keep) -> policy::Keep {
    policy::Keep {
        last: keep.last,
        daily: keep.daily,
        weekly: keep.weekly,
        monthly: keep.monthly,
        yearly: keep.yearly,
        point_in_time: SignedDuration::try_from(keep.point_in_time.0).ok().filter(|window| !window.is_zero()),
    }
}

/// Expires what the plan says, and removes what nobody needs any more.
///
/// # Errors
/// Where the repository fails, or one of the backups is needed by now. Run again, it goes on.
pub fn apply(settings: &Settings, repository: &Repository, plan: &Plan) -> Result<Pruned, Failure> {
    // First the WAL: which streams were this cluster's is known from its backups.
    let (keep, zone) = (rules(&settings.config.backup.keep), TimeZone::system());
    repository.expire_wal(settings.cluster(), &keep, Timestamp::now(), &zone).map_err(repo::failure)?;
    let expired: Vec<Expired> =
        plan.expired.iter().map(|(backup, why)| Expired { backup: *backup, reason: why.as_str().to_owned() }).collect();
    let expired = if expired.is_empty() { 0 } else { repository.expire(&expired).map_err(repo::failure)? };
    let collected = repository.collect().map_err(repo::failure)?;
    let wal = repository.remove_expired_wal().map_err(repo::failure)?;
    let leftovers = LocalStore::open(&settings.directory).and_then(|store| store.clean_leftovers());
    let leftovers = leftovers.inspect_err(|error| tracing::warn!(%error, "temporary files could not be removed")).ok();
    let freed_bytes = collected.bytes + wal.bytes + leftovers.map_or(0, |leftovers| leftovers.bytes);
    Ok(Pruned { expired, removed_packs: collected.removed, removed_wal: wal.objects, freed_bytes })
}

fn agreed(shown: &str, count: usize) -> Result<(), Failure> {
    output::note(shown);
    match prompt::consent(&format!("Let {count} backups expire?"))? {
        Some(true) => Ok(()),
        Some(false) => {
            Err(Failure::refused(anyhow::anyhow!("no backup expired")).hint("`keep` in [backup] says what is kept"))
        }
        None => Err(Failure::refused(anyhow::anyhow!("{count} backups would expire, and nobody is here to agree"))
            .hint("--yes agrees beforehand, --dry-run only shows the plan")),
    }
}

fn document(backups: &[BackupRecord], plan: &Plan, done: Option<Pruned>) -> serde_json::Value {
    let verdicts: Vec<_> = backups
        .iter()
        .map(|backup| {
            let kept = plan.kept.get(&backup.id);
            serde_json::json!({
                "id": backup.id,
                "committed_at": backup.time,
                "kept": kept.is_some(),
                "why": kept.map_or_else(|| serde_json::json!([plan.expired.get(&backup.id)]), |kept| serde_json::json!(kept)),
            })
        })
        .collect();
    serde_json::json!({ "dry_run": done.is_none(), "backups": verdicts, "done": done })
}

fn table(backups: &[BackupRecord], plan: &Plan) -> String {
    if backups.is_empty() && plan.expired.is_empty() {
        return "there is no backup of this cluster\n".to_owned();
    }
    let ids: Vec<_> = backups.iter().map(|backup| backup.id).collect();
    let digits = words::digits(&ids);
    let rows = backups.iter().map(|backup| {
        let (verdict, why) = match (plan.kept.get(&backup.id), plan.expired.get(&backup.id)) {
            (Some(kept), _) => ("stays", kept.iter().map(kept_words).collect::<Vec<_>>().join(", ")),
            (None, gone) => ("GOES", gone.map_or("", |gone: &Gone| gone.as_str()).to_owned()),
        };
        let at = words::consistent_at(backup, repo::info(backup).as_ref());
        [
            backup.id.to_string()[..digits].to_owned(),
            words::moment(at),
            ByteSize(backup.stored_bytes).to_string(),
            verdict.to_owned(),
            why,
        ]
    });
    let drafts = plan.expired.keys().filter(|id| !ids.contains(id)).count();
    let mut text = output::table(["backup", "restores to", "added", "", "why"], &[2], rows);
    if drafts > 0 {
        text.push_str(&format!("and {drafts} unfinished ones go\n"));
    }
    text
}

/// What of the WAL goes, and which backups that stay are of one moment from then on.
fn wal_in_words(wal: &[WalExpire], backups: &[BackupRecord], plan: &Plan) -> String {
    let ids: Vec<_> = backups.iter().map(|backup| backup.id).collect();
    let digits = words::digits(&ids);
    let mut text = String::new();
    for expire in wal {
        let lines: Vec<String> =
            expire.lines.iter().map(|(line, first)| format!("timeline {line} before segment {:08X}", first)).collect();
        text.push_str(&format!("\nof the WAL of system {}, all of {} goes", expire.stream, lines.join(", ")));
        let cut: Vec<String> = expire
            .cut
            .iter()
            .filter(|id| !plan.expired.contains_key(id))
            .map(|id| id.to_string()[..digits].to_owned())
            .collect();
        if !cut.is_empty() {
            text.push_str(&format!(
                ": from then on {} can be restored to {} own moment only, not to later ones",
                cut.join(", "),
                if cut.len() == 1 { "its" } else { "their" }
            ));
        }
        text.push('\n');
    }
    text
}

fn kept_words(kept: &Kept) -> String {
    match kept {
        Kept::Last => "newest".to_owned(),
        Kept::Day(day) => format!("day {day}"),
        Kept::Week(week) => format!("week {week}"),
        Kept::Month(month) => format!("month {month}"),
        Kept::Year(year) => format!("year {year}"),
        Kept::PointInTime => "recovery window".to_owned(),
        Kept::LastProven => "last proven".to_owned(),
        Kept::Failed => "failed its proof, none after it has passed".to_owned(),
        Kept::Pinned(note) => format!("kept by hand: {note}"),
        Kept::InUse => "in use".to_owned(),
        Kept::Resumable => "an interrupted backup goes on from it".to_owned(),
    }
}
