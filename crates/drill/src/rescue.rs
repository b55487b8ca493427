//! The last act: a backup while vacuum storms, the data directory destroyed, restored from it, started, compared, proven. All by the
//! commands that a person would type.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use scratch::ScratchCluster;
use tokio::process::Command;

use crate::{
    DrillError,
    guard::{quote, write},
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
    let config = configure(&dir, &repository, &cluster.url("postgres"))?;
    let oxpecker = async |arguments: &[&str]| run(&options.oxpecker, &config, arguments).await;

    let before = Contents::read(&cluster.url("postgres"), tables).await?;
    oxpecker(&["backup", "init"]).await?;
    let vacuums_running = vacuums(&cluster.url("postgres")).await?;
    let backup_s = oxpecker(&["backup", "create"]).await?;
    let data_bytes = tree_bytes(&cluster.data_dir());
    let repository_bytes = tree_bytes(&repository);

    let data_dir = cluster.data_dir();
    cluster.stop_immediate().map_err(DrillError::cluster("stopping it at once, as a crash would"))?;
    fs::remove_dir_all(&data_dir).map_err(DrillError::file("destroying", &data_dir))?;

    let pgdata = data_dir.to_string_lossy().into_owned();
    let restore_s = oxpecker(&["restore", "--pgdata", &pgdata]).await?;
    let begun = Instant::now();
    cluster.start_again().map_err(DrillError::cluster("starting what was restored"))?;
    let start_s = begun.elapsed().as_secs_f64();
    let after = Contents::read(&cluster.url("postgres"), tables).await?;
    let proof_s = oxpecker(&["backup", "prove"]).await?;
    Ok(Rescue {
        data_bytes,
        repository_bytes,
        vacuums_running,
        backup_s,
        restore_s,
        start_s,
        proof_s,
        rows_before: before.rows(),
        rows_after: after.rows(),
        same: before == after,
    })
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

fn configure(dir: &Path, repository: &Path, url: &str) -> Result<PathBuf, DrillError> {
    let passphrase = dir.join("passphrase");
    write(&passphrase, "a passphrase for a repository that lives two minutes\n")?;
    let config = dir.join("oxpecker.toml");
    let text = format!(
        "state_dir = {}\n\n[postgres]\nname = \"drill\"\nurl = {}\n\n[repository]\nurl = {}\npassphrase_file = {}\n",
        quote(&dir.join("state").to_string_lossy()),
        quote(url),
        quote(&format!("file://{}", repository.display())),
        quote(&passphrase.to_string_lossy()),
    );
    write(&config, &text)?;
    Ok(config)
}

/// Runs one command to its good end; returns the seconds that it took.
async fn run(oxpecker: &Path, config: &Path, arguments: &[&str]) -> Result<f64, DrillError> {
    let mut command = Command::new(oxpecker);
    command.arg("--config").arg(config).arg("--quiet").args(arguments).env_remove("OXPECKER_CONFIG");
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
