//! `oxpecker backup create`.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use autovacuum::{
    include_file::{DELAY_NAME, LIMIT_NAME},
    undo::Home,
};
use backup::{CreateError, CreateOptions, Created, create::HeldSettings};
use model::ByteSize;
use pg_connect::Sql;
use repository::{Repository, RepositoryError, log::LogError};

use super::words;
use crate::{
    cli::{CreateArgs, Global},
    commands::block_on,
    exit::{FAILED, FINDING, FINE, Failure, Outcome, REFUSED, USAGE},
    output, place,
    repo::{self, Protection, Settings},
    work::{self, Work},
};

/// How long the server may take to say where its data directory is.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Backs up.
pub fn create(global: &Global, args: &CreateArgs) -> Outcome {
    work::step_down();
    let settings = Settings::load(global, &args.repository)?;
    let repository = settings.open()?;
    let config = &settings.config;
    let state_dir = place::state_dir(config);
    let target = place::target(&config.postgres)?;
    let mut options = CreateOptions::new(target.connection, settings.cluster());
    options.data_dir = config.postgres.data_dir.clone();
    options.workers = workers(args.jobs.map(Into::into), config.backup.jobs());
    options.fail_on_corruption = args.fail_on_corruption;
    options.adopt = args.adopt;
    options.skip_space_check = args.no_space_check;
    options.take_over = args.take_over;
    options.held_settings = Some(held_settings(&state_dir));
    options.road = args.source.unwrap_or(config.backup.source).into();
    if args.dry_run {
        return look(global, &settings, &repository, &options);
    }
    let work = Work::begin(global, Some(&state_dir))?;
    let made = backup::create(&options, &repository, &work);
    work.end();
    let made = made.map_err(failure)?;
    let data_dir = PathBuf::from(&made.info.host.data_dir);
    let protection = Protection::of(&repository, &settings.directory, Some(data_dir));
    report(global, &made, &work, &protection)?;
    // The backup is there and was kept; whoever watches the exit code must still hear of the pages.
    Ok(if made.info.corrupt_pages_count > 0 { FINDING } else { FINE })
}

/// Everything that a backup looks at before it begins, and nothing else: it finds itself cancelled then.
fn look(global: &Global, settings: &Settings, repository: &Repository, options: &CreateOptions) -> Outcome {
    let work = Work::begin(global, None)?;
    work.cancel();
    let ended = backup::create(options, repository, &work);
    work.end();
    match ended {
        Err(CreateError::Cancelled) => {}
        Err(error) => return Err(failure(error)),
        Ok(_) => return Err(Failure::from(anyhow::anyhow!("a dry run made a backup")).hint("please report this")),
    }
    let data_dir = settings.config.postgres.data_dir.clone().or_else(|| data_dir_of_server(settings));
    let protection = Protection::of(repository, &settings.directory, data_dir);
    let plan = work.plan();
    let document = serde_json::json!({
        "dry_run": true, "cluster": settings.cluster(), "plan": plan, "warnings": work.warnings(), "protection": protection,
    });
    output::result(global.output, "backup_create", &document, || {
        let plan = plan.map_or_else(
            || "the server would send the files: how many there are it says only then".to_owned(),
            |plan| plan.in_words(),
        );
        format!(
            "nothing stands in the way of a backup of {}\n  {plan}\n\n{}nothing was written (--dry-run)\n",
            settings.cluster(),
            protection.in_words()
        )
    })?;
    Ok(FINE)
}

fn report(global: &Global, made: &Created, work: &Work, protection: &Protection) -> Result<(), Failure> {
    let info = &made.info;
    let document = serde_json::json!({
        "dry_run": false,
        "id": made.id,
        "cluster": info.cluster,
        "took_ms": u64::try_from(made.took.as_millis()).unwrap_or(u64::MAX),
        "bytes": info.bytes + info.wal_bytes,
        "stored_bytes": made.stored_bytes,
        "files": info.files,
        "start_lsn": info.start_lsn,
        "stop_lsn": info.stop_lsn,
        "timeline": info.timeline,
        "consistent_at": info.stop_time,
        "source": info.source,
        "corrupt_pages_count": info.corrupt_pages_count,
        "corrupt_pages": info.corrupt_pages,
        "plan": work.plan(),
        "warnings": work.warnings(),
        "protection": protection,
    });
    output::result(global.output, "backup_create", &document, || {
        let bytes = info.bytes + info.wal_bytes;
        let seconds = made.took.as_secs_f64().max(0.001);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is no negative number, and saturates"
        )]
        let rate = ByteSize((bytes as f64 / seconds) as u64);
        let mut text = format!(
            "backup {}\n  {} in {} ({rate}/s), {} files, {}\n  added {} to the repository, which compresses, and shares what earlier backups have\n  restores to {} ({}, timeline {})\n",
            made.id,
            ByteSize(bytes),
            work::duration(made.took),
            info.files,
            words::source(info),
            ByteSize(made.stored_bytes),
            words::moment(info.stop_time),
            info.stop_lsn,
            info.timeline,
        );
        if info.corrupt_pages_count > 0 {
            text.push_str(&format!(
                "\nDAMAGED in the source: {} pages; they are in the backup as they were found\n",
                info.corrupt_pages_count
            ));
            for page in info.corrupt_pages.iter().take(PAGES_SHOWN) {
                text.push_str(&format!("  {}, block {}: {}\n", page.path, page.block, page.why));
            }
            if info.corrupt_pages_count > PAGES_SHOWN as u64 {
                text.push_str("  `oxpecker backup show` names more\n");
            }
        }
        text.push_str("\nIt counts when it has been restored: `oxpecker backup prove`\n");
        text.push_str(&protection.in_words());
        text
    })?;
    Ok(())
}

/// Damaged pages that are named on the terminal.
const PAGES_SHOWN: usize = 10;

/// Threads: what the flag says, else the configuration.
pub fn workers(flag: Option<NonZeroUsize>, configured: usize) -> Option<NonZeroUsize> {
    flag.or(NonZeroUsize::new(configured))
}

/// What the governor's throttle has put into postgresql.auto.conf at that moment, where it had no better home: a restored server must not
/// go on with it.
pub fn held_settings(state_dir: &Path) -> HeldSettings {
    let state_dir = state_dir.to_owned();
    Arc::new(move || match autovacuum::record::read(&state_dir) {
        Ok(plan) => plan.map(|plan| former(plan.home)).unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "a throttle in postgresql.auto.conf would come back with the backup");
            BTreeMap::new()
        }
    })
}

fn former(home: Home) -> BTreeMap<String, Option<String>> {
    match home {
        Home::AlterSystem { former } => {
            BTreeMap::from([(LIMIT_NAME.to_owned(), former.limit), (DELAY_NAME.to_owned(), former.delay)])
        }
        // The include file lies on a tmpfs outside of the data directory.
        Home::IncludeFile { .. } => BTreeMap::new(),
    }
}

/// The exit code of an error of the backup.
pub fn failure(error: CreateError) -> Failure {
    let code = match &error {
        CreateError::CorruptPage { .. } => FINDING,
        CreateError::OtherCluster { .. }
        | CreateError::Clone { .. }
        | CreateError::Busy(_)
        | CreateError::NoSpace { .. }
        | CreateError::NotItsDirectory { .. }
        | CreateError::WalLevel => REFUSED,
        CreateError::NoDataDir => USAGE,
        CreateError::Repository(RepositoryError::Log(LogError::Refused(
            refused @ repository::log::Refusal::InUse { .. },
        ))) => {
            return Failure::refused(anyhow::anyhow!(refused.to_string().lines().next().unwrap_or_default().to_owned()))
                .hint("wait for it; where its process is known to be dead, --take-over ends it: it can't commit any more then");
        }
        CreateError::Repository(error) => repo::code(error),
        _ => FAILED,
    };
    Failure { code, error: error.into(), hint: None }
}

/// Where the server says that its data directory is, if it answers at once and that directory is on this host.
pub fn data_dir_of_server(settings: &Settings) -> Option<PathBuf> {
    let target = place::target(&settings.config.postgres).ok()?;
    let asked = async {
        let (client, connection) = Sql::parse(&target.connection).ok()?.connect().await.ok()?;
        let connection = tokio::spawn(connection);
        let row = client.query_one("SELECT current_setting('data_directory', true)", &[]).await.ok()?;
        connection.abort();
        row.get::<_, Option<String>>(0)
    };
    let answer = block_on(async { tokio::time::timeout(ASK_TIMEOUT, asked).await.ok().flatten() }).ok()?;
    answer.map(PathBuf::from).filter(|path| path.join("PG_VERSION").exists())
}

#[cfg(test)]
mod tests {
    use autovacuum::alter_system::Former;

    use super::*;

    #[test]
    fn only_a_throttle_in_the_servers_own_file_is_in_a_backup() {
        let former = super::former(Home::AlterSystem { former: Former { limit: Some("200".to_owned()), delay: None } });
        assert_eq!(
            former,
            BTreeMap::from([(LIMIT_NAME.to_owned(), Some("200".to_owned())), (DELAY_NAME.to_owned(), None)])
        );
        assert!(super::former(Home::IncludeFile { path: "/run/x".into() }).is_empty());
        let nothing = tempfile::tempdir().unwrap();
        assert!(held_settings(nothing.path())().is_empty());
    }
}
