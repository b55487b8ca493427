//! The last act: a backup while vacuum storms, a table dropped by mistake, the data directory destroyed, all of it brought back to the moment before the
//! mistake, started, compared, proven. All by the commands that a person would type.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use scratch::ScratchCluster;
use tokio::process::Command;

use crate::{
    DrillError,
    guard::{quote, write},
    mistake,
    options::DrillOptions,
    result::{Rescue, StormTable},
    storm,
};

/// How long one command may take: the drill's data are a gigabyte.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the progress bar expects of it.
pub(crate) const EXPECTED: Duration = Duration::from_secs(40);

/// Plays it on the last act's cluster. The vacuums that were still running then go on, unthrottled, while the backup is taken.
pub(crate) async fn play(
    options: &DrillOptions,
    cluster: &mut ScratchCluster,
    tables: &[StormTable],
    work_dir: &Path,
) -> Result<Rescue, DrillError> {
    let dir = work_dir.join("rescue");
    fs::create_dir(&dir).map_err(DrillError::file("creating", &dir))?;
    let repository = dir.join("repository");
    // What the server will run to fetch WAL, it runs as its own user.
    fs::create_dir(&repository).map_err(DrillError::file("creating", &repository))?;
    cluster.give(&repository).map_err(DrillError::cluster("giving it the repository"))?;
    for passed in [work_dir, &dir] {
        fs::set_permissions(passed, fs::Permissions::from_mode(0o711)).map_err(DrillError::file("opening", passed))?;
    }
    let key = dir.join("repository.key");
    let url = cluster.url("postgres");
    let oxpecker = Oxpecker { program: program(options, &dir)?, config: configure(&dir, &repository, &key, &url)? };

    let before = Contents::read(&url, tables).await?;
    oxpecker.run(&["backup", "init"]).await?;
    cluster.give(&key).map_err(DrillError::cluster("giving it the key"))?;
    let receiver = mistake::receive(options, &oxpecker, &dir)?;
    let vacuums_running = vacuums(&url).await?;
    let backup_s = oxpecker.run(&["backup", "create"]).await?;
    let data_bytes = tree_bytes(&cluster.data_dir());
    let repository_bytes = tree_bytes(&repository);

    let data_dir = cluster.data_dir();
    let pgdata = data_dir.to_string_lossy().into_owned();
    let mistake = mistake::happen(&url, tables).await?;
    let reach_s = mistake::in_reach(&oxpecker, &dir.join("nowhere").to_string_lossy(), mistake.moment).await?;
    cluster.stop_immediate().map_err(DrillError::cluster("stopping it at once, as a crash would"))?;
    receiver.stop().await;
    fs::remove_dir_all(&data_dir).map_err(DrillError::file("destroying", &data_dir))?;

    let restore_s = oxpecker.run(&["restore", "--pgdata", &pgdata, "--to-time", &mistake.moment.to_string()]).await?;
    let begun = Instant::now();
    cluster.start_again().map_err(DrillError::cluster("starting what was restored"))?;
    let start_s = begun.elapsed().as_secs_f64();
    let after = Contents::read(&url, tables).await?;
    let ledger_after = mistake::look(&url).await?;
    mistake::accept(&url, PATIENCE).await?;
    let proof_s = oxpecker.run(&["backup", "prove", "--own-wal"]).await?;
    Ok(Rescue {
        data_bytes,
        repository_bytes,
        vacuums_running,
        backup_s,
        dropped: mistake.table,
        reach_s,
        ledger_before: mistake.rows,
        ledger_after,
        restore_s,
        start_s,
        proof_s,
        rows_before: before.rows(),
        rows_after: after.rows(),
        same: before == after,
    })
}

/// The program that is run: where the server has another user than we have, a copy that this one may run too.
fn program(options: &DrillOptions, dir: &Path) -> Result<PathBuf, DrillError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(options.oxpecker.clone());
    }
    let copy = dir.join("oxpecker");
    if fs::hard_link(&options.oxpecker, &copy).is_err() {
        fs::copy(&options.oxpecker, &copy).map_err(DrillError::file("copying the program to", &copy))?;
    }
    Ok(copy)
}

/// Rows and a sum over all of them, by table: nobody writes in this drill, so that they stay.
#[derive(PartialEq, Eq)]
struct Contents(Vec<(i64, String)>);

impl Contents {
    async fn read(url: &str, tables: &[StormTable]) -> Result<Self, DrillError> {
        let client = storm::connect(url).await?;
        let mut contents = Vec::new();
        for table in tables {
            // The name is our own.
            let query =
                format!("SELECT count(*), coalesce(sum(hashtext(t::text)::numeric), 0)::text FROM {} t", table.name);
            let row = client.query_one(&query, &[]).await.map_err(DrillError::sql("reading a table's contents"))?;
            contents.push((row.get(0), row.get(1)));
        }
        Ok(Self(contents))
    }

    fn rows(&self) -> i64 {
        self.0.iter().map(|(rows, _)| rows).sum()
    }
}

async fn vacuums(url: &str) -> Result<i64, DrillError> {
    let client = storm::connect(url).await?;
    let query = "SELECT count(*) FROM pg_stat_progress_vacuum";
    Ok(client.query_one(query, &[]).await.map_err(DrillError::sql("counting the vacuums"))?.get(0))
}

fn configure(dir: &Path, repository: &Path, key: &Path, url: &str) -> Result<PathBuf, DrillError> {
    let config = dir.join("oxpecker.toml");
    let text = format!(
        "state_dir = {}\n\n[postgres]\nname = \"drill\"\nurl = {}\n\n[repository]\nurl = {}\nkey_file = {}\n",
        quote(&dir.join("state").to_string_lossy()),
        quote(url),
        quote(&format!("file://{}", repository.display())),
        quote(&key.to_string_lossy()),
    );
    write(&config, &text)?;
    Ok(config)
}

/// oxpecker with its configuration.
pub(crate) struct Oxpecker {
    pub(crate) program: PathBuf,
    config: PathBuf,
}

impl Oxpecker {
    /// The arguments of a command.
    pub(crate) fn arguments(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut all = vec!["--config".into(), self.config.clone().into_os_string(), "--quiet".into()];
        all.extend(arguments.iter().map(OsString::from));
        all
    }

    /// Runs one command to its good end; returns the seconds that it took.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<f64, DrillError> {
        let mut command = Command::new(&self.program);
        command.args(self.arguments(arguments)).env_remove("OXPECKER_CONFIG");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let fail = |what: String, log: String| DrillError::Child {
            name: format!("oxpecker {}", arguments.join(" ")),
            what,
            log,
            hint: "run the drill again with --keep, and the command by hand".into(),
        };
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, command.output()).await {
            Err(_) => Err(fail(format!("was not done within {PATIENCE:?}"), String::new())),
            Ok(Err(error)) => Err(fail(format!("did not start: {error}"), String::new())),
            Ok(Ok(output)) if output.status.success() => Ok(begun.elapsed().as_secs_f64()),
            Ok(Ok(output)) => {
                let log = [output.stderr, output.stdout].concat();
                Err(fail(format!("failed ({})", output.status), String::from_utf8_lossy(&log).into_owned()))
            }
        }
    }
}

/// The bytes of all files below a directory; what can't be read counts as nothing.
fn tree_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => tree_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
