//! A damaged database brought back from its proven backup, where a person approved that: the damaged data directory is set aside, never deleted, the backup restored in
//! its place, and the server started by whoever runs it.
//!
//! What is killed in between is gone on with: nothing is set aside before a restore beside it was tried out on paper, an interrupted restore can't be started and is continued
//! by the next (crate `backup`), and the executor gives an approval back whose act was not done.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use jiff::Timestamp;
use model::ServiceName;
use services::{
    driver::{Act, ActError, Doing, Driver, Seen},
    probe::serves,
};
use tokio::process::Command;

use crate::{
    config::Config,
    offer::{Chosen, Offers},
};

/// The configuration that the restore is started with.
const CONFIG: &str = "restore.toml";
/// Characters of a restore's complaint that are told.
const WORDS_MAX: usize = 600;

/// A driver whose database can be restored. All else is the driver's own.
pub struct Mending {
    inner: Arc<dyn Driver>,
    database: ServiceName,
    data_dir: PathBuf,
    offers: Arc<Offers>,
    config: Config,
    /// What is remembered of services.
    dir: PathBuf,
}

impl Mending {
    pub fn new(inner: Arc<dyn Driver>, data_dir: PathBuf, offers: Arc<Offers>, config: &Config, dir: PathBuf) -> Self {
        let database = config.postgres.name.as_str().into();
        Self { inner, database, data_dir, offers, config: config.clone(), dir }
    }

    async fn restore(&self) -> Result<(), ActError> {
        let fail = |why: String, hint: &str| ActError::Failed {
            act: Act::Restore,
            service: self.database.clone(),
            why,
            hint: hint.to_owned(),
        };
        let Some(chosen) = self.offers.chosen() else {
            return Err(fail("no proven backup is on offer any more".to_owned(), "`oxpecker backup list`"));
        };
        // A link's target is what lies on the disk that the restore needs.
        let target = fs::canonicalize(&self.data_dir).unwrap_or_else(|_| self.data_dir.clone());
        self.inner.act(&self.database, Act::Stop).await?;
        if serves(&target) {
            return Err(fail(format!("a server runs on {}", target.display()), "stop it: nothing was changed"));
        }
        let config = self.dir.join(CONFIG);
        write(&config, &self.config)
            .map_err(|error| fail(format!("{}: {error}", config.display()), "nothing was changed"))?;
        let run = |target: PathBuf, dry: bool| restore(&config, &chosen, target, dry);
        // Empty, not there, or what an interrupted restore has left: it is restored to as it is.
        if run(target.clone(), true).await.is_err() {
            let aside = aside(&target);
            run(aside.clone(), true)
                .await
                .map_err(|why| fail(why, "nothing was changed; mend that, and approve again"))?;
            set_aside(&target, &aside).map_err(|error| {
                let why = format!("{} can't be renamed to {}: {error}", target.display(), aside.display());
                fail(why, "where it is a mount point, empty it by hand and keep what is in it; nothing was changed")
            })?;
            tracing::warn!(aside = %aside.display(), "the damaged data directory is set aside");
        }
        let restored = run(target, false).await;
        let _ = fs::remove_file(&config);
        restored.map_err(|why| fail(why, "the damaged directory is kept beside; the next approved attempt goes on"))?;
        self.inner.act(&self.database, Act::Start).await
    }
}

impl Driver for Mending {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        self.inner.list()
    }

    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>> {
        if act == Act::Restore && *service == self.database {
            return Box::pin(self.restore());
        }
        self.inner.act(service, act)
    }

    fn tend(&self) -> Doing<'_, ()> {
        self.inner.tend()
    }

    fn changed(&self) -> Doing<'_, ()> {
        self.inner.changed()
    }
}

/// Where a damaged directory is kept. The same words as the offer has for a person.
pub fn aside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(Timestamp::now().strftime(".damaged-%Y%m%dT%H%M%SZ").to_string());
    name.into()
}

fn set_aside(target: &Path, aside: &Path) -> io::Result<()> {
    // Who renames onto an empty directory replaces it.
    if aside.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(target, aside)?;
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::File::open(parent)?.sync_all()
}

/// It holds no secrets; the server's user has no use for it.
fn write(path: &Path, config: &Config) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let text = toml::to_string(config).map_err(io::Error::other)?;
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

/// Runs `oxpecker restore`, which dies with this process: two that write to one directory must not be.
async fn restore(config: &Path, chosen: &Chosen, target: PathBuf, dry: bool) -> Result<(), String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--config").arg(config).args(["--quiet", "restore", &chosen.id, "--parent"]);
    command.arg(std::process::id().to_string()).arg("--pgdata").arg(&target);
    if chosen.latest {
        // It takes its original's place on a timeline of its own. Without WAL it stays on the original's, and behind the fence.
        command.args(["--latest", "--action", "promote", "--no-fence"]);
    }
    if dry {
        command.arg("--dry-run");
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("oxpecker restore can't be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(WORDS_MAX).collect();
    Err(format!("oxpecker restore ended with {}: {said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (data, other) = (dir.path().join("data"), dir.path().join("data.damaged-1"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "18\n").unwrap();
        fs::create_dir(&other).unwrap();
        assert_eq!(set_aside(&data, &other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(data.join("PG_VERSION").exists());
        let aside = aside(&data);
        assert!(aside.to_string_lossy().starts_with(&format!("{}.damaged-2", data.display())), "{}", aside.display());
        set_aside(&data, &aside).unwrap();
        assert!(!data.exists() && aside.join("PG_VERSION").exists());
        assert!(set_aside(&data, &dir.path().join("elsewhere")).is_err(), "there is nothing");
    }

    #[test]
    fn the_configuration_that_is_handed_on_says_the_same() {
        let text = "[postgres]\nname = \"main\"\n[repository]\nurl = \"file:///srv/b\"\nkey_file = \"/etc/k\"\n[[service]]\nname = \"a\"\nhealth = { tcp = \"x:1\" }\n";
        let config: Config = toml::from_str(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG);
        write(&path, &config).unwrap();
        write(&path, &config).unwrap();
        assert_eq!(toml::from_str::<Config>(&fs::read_to_string(&path).unwrap()).unwrap(), config);
    }
}
