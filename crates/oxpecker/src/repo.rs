//! The repository that is configured: opened, and judged by where it lies and who could still open it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use backup::BackupInfo;
use repository::{
    BackupRecord, Options, Repository, RepositoryError, Secret,
    key::KeyError,
    log::LogError,
    store::{LocalStore, Retries, Retrying, Store, StoreError, StoreErrorKind},
};
use serde::Serialize;

use crate::{
    cli::{Global, RepositoryArgs},
    config::{self, Config, Overrides},
    disk,
    exit::{FAILED, Failure, REFUSED, USAGE},
    place, secret,
};

/// The file in the state directory that remembers the newest record of the repository.
const TIP_FILE: &str = "repository.tip";

/// What the configuration and the flags say of the repository.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration, with the flags laid over `[repository]`.
    pub config: Config,
    /// Where the repository lies.
    pub directory: PathBuf,
    /// Where this host remembers its newest record; `None` where another repository than the configured one is meant.
    remembered: Option<PathBuf>,
}

impl Settings {
    /// Reads the configuration and lays the flags over it.
    ///
    /// # Errors
    /// Where the configuration can't be used or names no repository.
    pub fn load(global: &Global, args: &RepositoryArgs) -> Result<Self, Failure> {
        let mut config = config::load(global.config.as_deref(), &Overrides::default())?.config;
        let configured = config.repository.url.clone();
        if let Some(url) = &args.repository {
            config.repository.url = Some(url.clone());
        }
        if args.key_file.is_some() || args.passphrase_file.is_some() {
            config.repository.key_file = args.key_file.clone();
            config.repository.passphrase_file = args.passphrase_file.clone();
        } else if secret::from_environment().is_some() {
            // Flags go before the environment, that before the file.
            config.repository.key_file = None;
            config.repository.passphrase_file = None;
        }
        let same = configured == config.repository.url;
        Self::new(config, same)
    }

    /// Of a configuration as it is.
    ///
    /// # Errors
    /// Where it names no repository, or not one that can be used.
    pub fn of(config: &Config) -> Result<Self, Failure> {
        Self::new(config.clone(), true)
    }

    fn new(config: Config, remember: bool) -> Result<Self, Failure> {
        let directory =
            config.repository.directory().map_err(|(what, hint)| Failure::usage(anyhow::anyhow!(what)).hint(hint))?;
        let directory = directory.ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("no repository is configured"))
                .hint("[repository] url = \"file:///srv/backup/oxpecker\", or --repository")
        })?;
        let remembered = if remember { remembered(&place::state_dir(&config)) } else { None };
        Ok(Self { config, directory, remembered })
    }

    fn options(&self) -> Options {
        Options { remembered: self.remembered.clone(), ..Options::default() }
    }

    /// Opens the repository with what the configuration, the environment or a person gives.
    ///
    /// # Errors
    /// Where there is none, or it can't be opened.
    pub fn open(&self) -> Result<Repository, Failure> {
        Ok(self.open_keeping()?.0)
    }

    /// As [`Settings::open`]; also gives what opened it.
    ///
    /// # Errors
    /// As there.
    pub fn open_keeping(&self) -> Result<(Repository, Secret), Failure> {
        // A missing repository is said before anybody is asked for a passphrase.
        let store = self.store()?;
        let secret = secret::of(&self.config.repository)?;
        Ok((self.open_with(store, &secret)?, secret))
    }

    /// The store, if its directory is there.
    pub fn store(&self) -> Result<Arc<dyn Store>, Failure> {
        match LocalStore::open(&self.directory) {
            Ok(store) => Ok(Arc::new(Retrying::new(store, Retries::default()))),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Err(none_there(&self.directory.display())),
            Err(error) => Err(self.out_of_reach(error)),
        }
    }

    /// A directory that can't be opened has another remedy than a repository that fails.
    fn out_of_reach(&self, error: StoreError) -> Failure {
        let (kind, place) = (error.kind(), self.directory.display());
        let no_directory = self.directory.ancestors().any(|above| above.exists() && !above.is_dir());
        let hint = match kind {
            StoreErrorKind::Permission => {
                "see owner and mode of the directory and of those above: which user made the repository?"
            }
            StoreErrorKind::ReadOnly => "see how the file system is mounted",
            _ if no_directory => "the address of a repository names a directory, and what is there is something else",
            _ => "is the disk mounted and the address right? It names a directory that this user may read and write",
        };
        Failure::usage(anyhow::Error::new(error).context(format!("can't open the directory {place}"))).hint(hint)
    }

    fn open_with(&self, store: Arc<dyn Store>, secret: &Secret) -> Result<Repository, Failure> {
        let opened = Repository::open(store, &self.options(), secret).map_err(failure);
        self.give_away_memory();
        opened
    }

    /// Makes the repository.
    ///
    /// # Errors
    /// Where there is one already, or the directory can't be written.
    pub fn create(&self, secret: &Secret, label: &str, info: serde_json::Value) -> Result<Repository, Failure> {
        let store = LocalStore::create(&self.directory).map_err(|error| self.out_of_reach(error))?;
        let store: Arc<dyn Store> = Arc::new(Retrying::new(store, Retries::default()));
        repository::store::probe(&*store).map_err(Failure::refused)?;
        let made = Repository::create(store, &self.options(), secret, label, info).map_err(failure);
        self.give_away_memory();
        made
    }

    /// A person may be root where the guard is not: what root left there must not lock the guard out.
    fn give_away_memory(&self) {
        let Some(path) = &self.remembered else { return };
        if let (Some(Ok(directory)), Ok(file)) = (path.parent().map(fs::metadata), fs::metadata(path))
            && rustix::process::geteuid().is_root()
            && directory.uid() != file.uid()
            && let Err(error) = std::os::unix::fs::chown(path, Some(directory.uid()), Some(directory.gid()))
        {
            tracing::warn!(%error, "{} belongs to root, the directory to another user", path.display());
        }
    }

    /// The cluster's name in the repository.
    pub fn cluster(&self) -> &str {
        &self.config.postgres.name
    }
}

/// Where the newest record is remembered; `None` where this user may not write there: somebody who only looks is no reason to refuse.
fn remembered(state_dir: &Path) -> Option<PathBuf> {
    if !state_dir.exists()
        && let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)
    {
        tracing::debug!(%error, "no state directory: an older copy put in the repository's place would not be noticed");
        return None;
    }
    let writable = rustix::fs::access(state_dir, rustix::fs::Access::WRITE_OK).is_ok();
    writable.then(|| state_dir.join(TIP_FILE))
}

fn none_there(place: &dyn std::fmt::Display) -> Failure {
    Failure::usage(anyhow::anyhow!("there is no repository at {place}"))
        .hint("is the disk mounted and the address right? `oxpecker backup init` makes a new one")
}

/// Refuses a path that is no text: it goes into JSON, into records and into commands that people copy.
///
/// # Errors
/// Where it is not UTF-8.
pub fn nameable(path: &Path) -> Result<(), Failure> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Failure::usage(anyhow::anyhow!("the path {} is not UTF-8", path.display()))
            .hint("give one that can be written down")),
    }
}

/// What an error of the repository means for the exit code.
pub fn failure(error: RepositoryError) -> Failure {
    let code = code(&error);
    match &error {
        RepositoryError::Key(KeyError::NoRepository { place })
        | RepositoryError::Log(LogError::NoRepository { place }) => none_there(place),
        _ => Failure { code, error: error.into(), hint: None },
    }
}

/// The exit code of an error of the repository.
pub fn code(error: &RepositoryError) -> u8 {
    match error {
        RepositoryError::Key(KeyError::WrongSecret { .. } | KeyError::NoSlot { .. } | KeyError::NotOurRecoveryKey)
        | RepositoryError::NoBackup { .. }
        | RepositoryError::NoHold { .. }
        | RepositoryError::Ambiguous { .. } => USAGE,
        RepositoryError::Key(KeyError::Exists { .. } | KeyError::LastSlot | KeyError::Forged { .. })
        | RepositoryError::Log(LogError::Occupied { .. } | LogError::Refused(_) | LogError::Rollback(_))
        | RepositoryError::HoldRuns { .. } => REFUSED,
        _ => FAILED,
    }
}

/// The backup that `text` names: an id, its first digits, or `latest`. The latest is that of the configured cluster: of two clusters in
/// one repository the wrong one must never be restored by chance.
///
/// # Errors
/// Where it names none or several.
pub fn find(repository: &Repository, settings: &Settings, text: &str) -> Result<BackupRecord, Failure> {
    let text = text.to_ascii_lowercase();
    if text != "latest" {
        return repository.find(&text).map_err(failure);
    }
    let cluster = settings.cluster();
    let all = repository.backups();
    if let Some(newest) = all.iter().rev().find(|backup| backup.cluster == cluster) {
        return Ok(newest.clone());
    }
    let missing = Failure::usage(anyhow::anyhow!("there is no backup of the cluster {cluster:?}"));
    let others: BTreeSet<&str> = all.iter().map(|backup| backup.cluster.as_str()).collect();
    Err(if others.is_empty() {
        missing.hint("`oxpecker backup create` makes the first")
    } else {
        let others: Vec<&str> = others.into_iter().collect();
        missing.hint(format!(
            "there are some of {}: give an id (`oxpecker backup list`), or `name` in [postgres]",
            others.join(", ")
        ))
    })
}

/// A backup's own words; `None` where another program made it, or a newer one.
pub fn info(record: &BackupRecord) -> Option<BackupInfo> {
    BackupInfo::parse(&record.info).ok()
}

/// How well the repository protects from losing the database.
#[derive(Clone, Debug, Serialize)]
pub struct Protection {
    /// Nothing of what follows is missing.
    pub protected: bool,
    /// A recovery key was exported and confirmed.
    pub recovery_key_confirmed: bool,
    /// What the repository shares with the database's files, in words; `None`: nothing, as far as is seen.
    pub shares_with_database: Option<String>,
    /// The data directory that was compared; `None` where nobody knows it.
    pub data_directory: Option<PathBuf>,
    /// What is missing, in words.
    pub missing: Vec<String>,
}

impl Protection {
    /// Judges an opened repository. `data_dir`: the database's, where it is known to be on this host.
    pub fn of(repository: &Repository, directory: &Path, data_dir: Option<PathBuf>) -> Self {
        let confirmed = repository.is_recoverable();
        let shares = data_dir.as_deref().and_then(|data| disk::shared(data, directory));
        let mut missing = Vec::new();
        if !confirmed {
            missing.push("no recovery key was exported and confirmed: `oxpecker key export`, write it down, `oxpecker key confirm`".to_owned());
        }
        if let (Some(shares), Some(data)) = (&shares, &data_dir) {
            missing.push(format!(
                "the repository {} lies on {} as the database ({}): what takes one takes both",
                directory.display(),
                shares.words(),
                data.display()
            ));
        }
        Self {
            protected: missing.is_empty(),
            recovery_key_confirmed: confirmed,
            shares_with_database: shares.map(|shares| shares.words()),
            data_directory: data_dir,
            missing,
        }
    }

    /// For people: nothing where nothing is missing.
    pub fn in_words(&self) -> String {
        self.missing.iter().map(|missing| format!("NOT PROTECTED: {missing}\n")).collect()
    }
}

/// The data directory, as far as it is known without the server: declared, or that of the newest backup of this cluster where it was
/// taken on this host.
pub fn data_dir(config: &Config, repository: &Repository) -> Option<PathBuf> {
    let declared = config.postgres.data_dir.clone();
    declared.or_else(|| {
        let newest = repository.backups().into_iter().rev().find(|backup| backup.cluster == config.postgres.name)?;
        let host = info(&newest)?.host;
        let path = PathBuf::from(host.data_dir);
        (host.name == place::host_name() && path.is_dir()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_exit_codes() {
        let place = || "x".to_owned();
        for (error, expected) in [
            (RepositoryError::Key(KeyError::Exists { place: place() }), REFUSED),
            (RepositoryError::Key(KeyError::NotOurRecoveryKey), USAGE),
            (RepositoryError::Ambiguous { text: place(), found: 2 }, USAGE),
            (RepositoryError::Damaged { object: place(), what: place() }, FAILED),
        ] {
            assert_eq!(failure(error).code, expected);
        }
        let missing = failure(RepositoryError::Key(KeyError::NoRepository { place: place() }));
        assert!(missing.code == USAGE && missing.hint.is_some_and(|hint| hint.contains("backup init")));
    }
}
