//! `oxpecker restore`.

use std::{io::ErrorKind, path::Path};

use backup::{BackupInfo, RestoreError, RestoreOptions, RestorePlan};
use model::ByteSize;

use super::{backup::create::workers, moment::Moment};
use crate::{
    cli::{Global, RestoreArgs},
    exit::{FAILED, FINE, Failure, Outcome, REFUSED, USAGE},
    output,
    repo::{self, Settings},
    work::{self, Work},
};

/// Brings a backup back.
pub fn restore(global: &Global, args: &RestoreArgs) -> Outcome {
    if let Some(parent) = args.parent {
        end_with(parent)?;
    }
    let settings = Settings::load(global, &args.repository)?;
    let target = std::path::absolute(&args.pgdata)?;
    possible(&target, &settings.directory)?;
    let repository = settings.open()?;
    let moment = match args.moment.target() {
        Some(moment) => Some(Moment::choose(&settings, &repository, args, &moment)?),
        None => None,
    };
    let found = match &moment {
        Some(moment) => moment.backup.clone(),
        None => repo::find(&repository, &settings, args.id.as_deref().unwrap_or("latest"))?,
    };
    let mut options = RestoreOptions::new(found.id, &target);
    let spaces = args.tablespace_mapping.iter();
    options.tablespaces = spaces.map(|(old, new)| (old.display().to_string(), new.clone())).collect();
    options.owner = args.owner.clone();
    options.fence = !args.no_fence;
    options.workers = workers(args.jobs.map(Into::into), settings.config.backup.jobs());
    if let Some(moment) = &moment {
        let info = BackupInfo::parse(&found.info).map_err(|error| failure(error.into(), args))?;
        let user = backup::restore::runs_as(&options, &info).map_err(|error| failure(error, args))?;
        options.recovery = moment.settings(&settings, user)?;
    }
    if args.dry_run {
        let plan = backup::restore::plan(&options, &repository).map_err(|error| failure(error, args))?;
        let info = BackupInfo::parse(&found.info).map_err(|error| failure(error.into(), args))?;
        let document = document(&found.id, &plan, &info, None, &[], moment.as_ref());
        output::result(global.output, "restore", &document, || {
            let mut text = format!("would restore {}", in_words(&found.id, &plan, &info, moment.as_ref()));
            text.push_str(&notes(&plan));
            text.push_str("\nnothing was written (--dry-run)\n");
            text
        })?;
        return Ok(FINE);
    }
    // A person waits for this: it does not step back for anybody.
    let work = Work::begin(global, None)?;
    let restored = backup::restore(&options, &repository, &work);
    work.end();
    let restored = restored.map_err(|error| failure(error, args))?;
    let (plan, info) = (&restored.plan, &restored.info);
    let document = document(&found.id, plan, info, Some(restored.took), &work.warnings(), moment.as_ref());
    output::result(global.output, "restore", &document, || {
        let seconds = restored.took.as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is no negative number, and saturates"
        )]
        let rate = ByteSize((plan.bytes as f64 / seconds) as u64);
        let mut text = format!("restored {}", in_words(&found.id, plan, info, moment.as_ref()));
        text.push_str(&format!(
            "  in {} ({rate}/s), all of it authenticated and on the disk\n",
            work::duration(restored.took)
        ));
        text.push_str(&notes(plan));
        text.push_str(&format!("\nStart it:\n  {}\n", plan.start_command));
        text.push_str(&moment.as_ref().map_or_else(String::new, |moment| moment.afterwards(&plan.target)));
        text
    })?;
    Ok(FINE)
}

/// From here on this process is killed when its parent ends, also when that ended just before.
fn end_with(parent: i32) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) == Some(parent) {
        return Ok(());
    }
    Err(Failure::usage(anyhow::anyhow!("process {parent}, with which this one ends, is not its parent")))
}

fn in_words(id: &repository::BackupId, plan: &RestorePlan, info: &BackupInfo, moment: Option<&Moment>) -> String {
    let end = moment
        .map_or_else(|| format!("recovery ends at {}, timeline {}", info.stop_lsn, info.timeline), Moment::in_words);
    let mut text = format!(
        "{id}\n  of {} (PostgreSQL {}) to {}\n  {} in {} files; {end}\n",
        info.cluster,
        info.pg_version,
        plan.target.display(),
        ByteSize(plan.bytes),
        plan.files,
    );
    for space in &plan.tablespaces {
        text.push_str(&format!("  tablespace {}: {} to {}\n", space.oid, space.from, space.to.display()));
    }
    if plan.continues {
        text.push_str("  an interrupted restore of the same was continued\n");
    }
    text
}

fn notes(plan: &RestorePlan) -> String {
    plan.notes.iter().map(|note| format!("\nNote: {note}\n")).collect()
}

fn document(
    id: &repository::BackupId,
    plan: &RestorePlan,
    info: &BackupInfo,
    took: Option<std::time::Duration>,
    warnings: &[String],
    moment: Option<&Moment>,
) -> serde_json::Value {
    let spaces: Vec<_> = plan
        .tablespaces
        .iter()
        .map(|space| serde_json::json!({ "oid": space.oid, "from": space.from, "to": space.to.display().to_string() }))
        .collect();
    serde_json::json!({
        "id": id,
        "dry_run": took.is_none(),
        "pgdata": plan.target.display().to_string(),
        "tablespaces": spaces,
        "files": plan.files,
        "bytes": plan.bytes,
        "continues": plan.continues,
        "stop_lsn": info.stop_lsn,
        "timeline": info.timeline,
        "pg_version": info.pg_version.to_string(),
        "took_ms": took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        "start_command": plan.start_command,
        "notes": plan.notes,
        "warnings": warnings,
        "recovery": moment.map(Moment::document),
    })
}

/// Whether anything can be restored there at all. Whether it is empty and has room, the restore itself finds out.
fn possible(target: &Path, repository: &Path) -> Result<(), Failure> {
    repo::nameable(target)?;
    let said = || format!("can't restore to {}", target.display());
    // The first that is there, of the target and those above.
    for above in target.ancestors() {
        match above.symlink_metadata() {
            Ok(_) if above.is_dir() => {
                let inside = above
                    .canonicalize()
                    .is_ok_and(|above| repository.canonicalize().is_ok_and(|repository| above.starts_with(repository)));
                return match inside {
                    true => Err(Failure::refused(anyhow::anyhow!(
                        "{}: it lies in the repository, {}",
                        said(),
                        repository.display()
                    ))
                    .hint("choose another place: a repository has its directory for itself")),
                    false => Ok(()),
                };
            }
            Ok(found) => {
                let what = if found.is_symlink() { "a symbolic link to no directory" } else { "no directory" };
                return Err(Failure::usage(anyhow::anyhow!("{}: {} is {what}", said(), above.display()))
                    .hint("give a directory that is empty or not there yet"));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) if error.kind() == ErrorKind::InvalidFilename => {
                return Err(Failure::usage(anyhow::Error::new(error).context(said())).hint("give a shorter path"));
            }
            // The restore says it.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn failure(error: RestoreError, args: &RestoreArgs) -> Failure {
    if let (RestoreError::NoOwner { .. }, Some(owner)) = (&error, &args.owner) {
        return Failure::usage(anyhow::anyhow!("this host knows no user {owner:?}"))
            .hint("--owner is the user that PostgreSQL runs as, such as postgres");
    }
    let code = match &error {
        RestoreError::NotEmpty { .. } | RestoreError::OtherRestore { .. } | RestoreError::NoSpace { .. } => REFUSED,
        RestoreError::UnknownTablespace { .. } | RestoreError::Relative(_) | RestoreError::Overlap(..) => USAGE,
        RestoreError::Repository(error) => repo::code(error),
        _ => FAILED,
    };
    Failure { code, error: error.into(), hint: None }
}
