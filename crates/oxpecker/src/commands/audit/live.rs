//! `oxpecker audit --live`: the guarded server, this machine and our own repository, each read and none changed.

use std::fs;

use ::audit::{
    facts::{Asked, Collector, OwnBackups},
    source,
};
use jiff::Timestamp;
use pg_connect::Sql;

use crate::{
    cli::Global,
    commands::backup::words::consistent_at,
    config::{self, Config, Overrides},
    exit::Failure,
    place, repo,
};

/// Asks all three. What does not answer is not assessed, with its reason; only a configuration that can't be read ends it.
///
/// # Errors
/// When the configuration can't be used.
pub fn ask(global: &Global, into: &mut Collector) -> Result<(), Failure> {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    if let Some(file) = &loaded.file
        && let Ok(text) = fs::read_to_string(file)
    {
        into.own_configuration(&file.to_string_lossy(), &text);
    }
    let config = &loaded.config;
    let target = place::target(&config.postgres)?;
    let sql = Sql::parse(&target.connection).map_err(Failure::usage)?;
    let server = source::live::ask(&sql, &config.postgres.name);
    let directory = config.repository.directory().ok().flatten();
    let is_local = source::live::is_local(sql.target());
    into.host(source::host::look(server.as_ref().ok(), is_local, directory.as_deref()));
    into.server(server.map_err(|why| format!("{}: {why}", target.described)));
    if directory.is_some() {
        into.own_backups(backups(config));
    }
    Ok(())
}

/// What lies in the repository. Asks nobody for a passphrase.
fn backups(config: &Config) -> Asked<OwnBackups> {
    let declared = config.repository.key_file.is_some() || config.repository.passphrase_file.is_some();
    if !declared && crate::secret::from_environment().is_none() {
        return Err("what opens it is not configured; hint: [repository] key_file or passphrase_file".to_owned());
    }
    let settings = repo::Settings::of(config).map_err(|failure| format!("{:#}", failure.error))?;
    let repository = settings.open().map_err(|failure| format!("{:#}", failure.error))?;
    let now = Timestamp::now();
    let cluster = settings.cluster();
    let backups: Vec<_> = repository.backups().into_iter().filter(|backup| backup.cluster == cluster).collect();
    let age = |backup: &repository::BackupRecord| {
        let at = consistent_at(backup, repo::info(backup).as_ref());
        u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)
    };
    let is_proven = |backup: &&repository::BackupRecord| backup.proofs.last().is_some_and(|proof| proof.passed);
    Ok(OwnBackups {
        place: settings.directory.display().to_string(),
        cluster: cluster.to_owned(),
        count: backups.len(),
        newest: backups.iter().map(age).min(),
        proven: backups.iter().filter(is_proven).map(age).min(),
        max_age: config.backup.max_age(now).map(|age| age.as_secs()),
    })
}
