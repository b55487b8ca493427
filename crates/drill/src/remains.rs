//! What a guard that has stopped left behind in PostgreSQL's configuration. A new session's settings alone don't tell: a throttle's
//! file that nobody has reloaded yet shows in none, and comes to life with the next reload.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::{DrillError, result::Remains, storm};

/// How long the guard's sessions may take to end after the guard, and a reload until new sessions have it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often they are looked for.
const PERIOD: Duration = Duration::from_millis(50);

/// Where a guard keeps its throttle.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// The include file.
    pub(crate) include_file: PathBuf,
    /// The state directory.
    pub(crate) state_dir: PathBuf,
}

impl Traces {
    /// Looks for what is left of the guard. Reloads PostgreSQL's configuration.
    pub(crate) async fn look(&self, url: &str) -> Result<Remains, DrillError> {
        let include_settings = settings_in(&self.include_file)?;
        let records = records(&self.state_dir)?;
        let sessions = sessions(url).await?;
        let settings_reloaded = match reload(url).await? {
            true => storm::cost_settings(url).await?,
            false => format!("unknown: the reload did not come about within {PATIENCE:?}"),
        };
        Ok(Remains { include_settings, records, sessions, settings_reloaded })
    }
}

/// The settings in a file of PostgreSQL's configuration; none where it is absent.
fn settings_in(path: &Path) -> Result<Vec<String>, DrillError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            Ok(lines.map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(DrillError::file("reading", path)(error)),
    }
}

/// The guard's records of a throttle, `throttle.json` and its temporary twin.
fn records(state_dir: &Path) -> Result<Vec<String>, DrillError> {
    let failed = || DrillError::file("looking into", state_dir);
    let mut found = Vec::new();
    for entry in fs::read_dir(state_dir).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
        if name.starts_with("throttle.json") {
            found.push(name);
        }
    }
    Ok(found)
}

/// The guard's sessions that stay, by `application_name`.
async fn sessions(url: &str) -> Result<Vec<String>, DrillError> {
    let client = storm::connect(url).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = client
            .query(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'oxpecker%' ORDER BY 1",
                &[],
            )
            .await
            .map_err(DrillError::sql("looking for the guard's sessions"))?;
        if rows.is_empty() || Instant::now() >= deadline {
            return Ok(rows.iter().map(|row| row.get(0)).collect());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Reloads the configuration; whether new sessions have it.
async fn reload(url: &str) -> Result<bool, DrillError> {
    let client = storm::connect(url).await?;
    // As text with all its digits: equality is all that is asked.
    let loaded = "SELECT pg_conf_load_time()::text";
    let failed = || DrillError::sql("reloading PostgreSQL's configuration");
    let before: String = client.query_one(loaded, &[]).await.map_err(failed())?.get(0);
    client.batch_execute("SELECT pg_reload_conf()").await.map_err(failed())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A new session each time: it has what the postmaster has.
        let now: String = storm::connect(url).await?.query_one(loaded, &[]).await.map_err(failed())?.get(0);
        if now != before {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("throttle.conf");
        assert!(settings_in(&path).unwrap().is_empty());
        for (text, expected) in
            [("", &[][..]), ("# none\n\n  # here\n", &[]), ("# a\n b = 1\nc = 2", &["b = 1", "c = 2"])]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(settings_in(&path).unwrap(), expected, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_guard_that_undid_nothing_is_found_out() {
        let Some(installation) = scratch::installations().into_iter().find(|found| (13..=18).contains(&found.major()))
        else {
            println!("skipped: no PostgreSQL 13 to 18 is installed; `cargo xtask testbed` gets one");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let cluster = scratch::ScratchCluster::builder(&installation).start().unwrap();
        let include = cluster.directory().join("include");
        fs::create_dir(&include).unwrap();
        cluster.give(&include).unwrap();
        let traces = Traces { include_file: include.join("throttle.conf"), state_dir: dir.path().to_owned() };
        cluster.include_line(&traces.include_file).unwrap();
        let url = cluster.url("postgres");
        assert!(reload(&url).await.unwrap());
        let before = storm::cost_settings(&url).await.unwrap();

        let clean = traces.look(&url).await.unwrap();
        assert_eq!(clean, Remains { settings_reloaded: before.clone(), ..Remains::default() });

        // Nobody reloads: a new session sees nothing of it.
        fs::write(&traces.include_file, "# ours\nautovacuum_vacuum_cost_limit = 77\n").unwrap();
        cluster.give(&traces.include_file).unwrap();
        fs::write(traces.state_dir.join("throttle.json"), "{}").unwrap();
        let switch = storm::connect(&url).await.unwrap();
        switch.batch_execute("SET application_name = 'oxpecker dead man''s switch'").await.unwrap();
        assert_eq!(storm::cost_settings(&url).await.unwrap(), before);
        let left = traces.look(&url).await.unwrap();
        assert_eq!(left.include_settings, ["autovacuum_vacuum_cost_limit = 77"]);
        assert_eq!(left.records, ["throttle.json"]);
        assert_eq!(left.sessions, ["oxpecker dead man's switch"]);
        assert!(left.settings_reloaded.contains("77"), "{left:?}");
    }
}
