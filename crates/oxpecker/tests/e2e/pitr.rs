//! Back to a moment: each kind of target against a ledger of what was committed when.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command, Output},
};

use jiff::Timestamp;
use model::Lsn;
use scratch::{Installation, ScratchCluster};
use serde_json::Value;

use crate::harness::{Place, newest, said};

/// Rows of the ledger: few, for each moment is a server of its own.
const ROWS: i64 = 8;

/// A row as the truth has it.
#[derive(Debug)]
pub struct Entry {
    pub id: i64,
    pub xid: String,
    /// The server was here after its commit.
    pub lsn: Lsn,
    pub time: Timestamp,
}

pub struct Scene {
    pub place: Place,
    pub cluster: ScratchCluster,
    pub ledger: Vec<Entry>,
    /// The transaction that dropped it.
    dropped_by: String,
    /// Which servers that were restored need, too.
    settings: Vec<(String, String)>,
}

pub async fn try_sql(cluster: &ScratchCluster, text: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let messages = client.simple_query(text).await?;
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

pub async fn sql(cluster: &ScratchCluster, text: &str) -> String {
    let rows = try_sql(cluster, text).await.unwrap_or_else(|error| panic!("{text}: {error}\n{}", cluster.log_tail()));
    rows.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default()
}

impl Scene {
    /// A server that archives, a backup of it, and a ledger of rows that were committed since.
    async fn set(major: Option<u32>) -> Option<Self> {
        let installation = match major {
            Some(major) => match scratch::installation(major) {
                Ok(installation) => installation,
                Err(error) => {
                    println!("skipped: {error}");
                    return None;
                }
            },
            None => newest()?,
        };
        let mut scene = Self::begin(&installation, &[]).await;
        scene.back_up().await;
        for id in 1..=ROWS {
            scene.enter(id).await;
        }
        sql(&scene.cluster, "select pg_create_restore_point('before the mistake')").await;
        let dropped =
            "with now as (select pg_current_xact_id()::text as xid) select set_config('my.xid', xid, false) from now";
        scene.dropped_by = scene.drop_ledger(dropped).await;
        // A commit behind everything, so that there is a moment behind the mistake too.
        sql(&scene.cluster, "create table afterwards ()").await;
        scene.archived().await;
        Some(scene)
    }

    /// A server, a repository, and a ledger without rows.
    pub async fn begin(installation: &Installation, settings: &[(&str, &str)]) -> Self {
        let place = Place::new();
        let program = place.path().join("oxpecker");
        if fs::hard_link(env!("CARGO_BIN_EXE_oxpecker"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_oxpecker"), &program).unwrap();
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let builder = ScratchCluster::builder(installation).initdb_args(["--wal-segsize=1"]);
        let builder = builder.setting("archive_mode", "on").setting("autovacuum", "off");
        let builder = settings.iter().fold(builder, |builder, (name, value)| builder.setting(*name, *value));
        let cluster = builder.start().unwrap();
        let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
        let more = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n", repository.display());
        place.configure(&cluster.url("postgres"), &more);
        place.json(&["backup", "init"]);
        let mut scene = Self { place, cluster, ledger: Vec::new(), dropped_by: String::new(), settings: Vec::new() };
        scene.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        sql(&scene.cluster, "create table ledger (id int primary key)").await;
        scene
    }

    /// What `archive_command` is.
    pub fn archive_command(&self) -> String {
        let dir = self.place.path().display();
        format!("{dir}/oxpecker --config {dir}/oxpecker.toml wal push %p")
    }

    /// A backup, behind which all is archived.
    pub async fn back_up(&self) {
        sql(&self.cluster, &format!("alter system set archive_command = '{}'", self.archive_command())).await;
        let backup = self.place.json(&["backup", "create"]);
        assert!(backup["id"].is_string(), "{backup}");
        self.give();
        sql(&self.cluster, "select pg_reload_conf()").await;
    }

    /// The server's user archives into the repository, and reads from it.
    pub fn give(&self) {
        let owner = fs::metadata(self.cluster.data_dir()).unwrap();
        let mut command = Command::new("chown");
        command.arg("-R").arg(format!("{}:{}", owner.uid(), owner.gid()));
        for name in ["oxpecker.toml", "repository", "repository.key"] {
            command.arg(self.place.path().join(name));
        }
        let given = command.output().unwrap();
        assert!(given.status.success(), "{}", said(&given));
    }

    pub async fn enter(&mut self, id: i64) {
        let insert = format!(
            "with new as (insert into ledger values ({id}) returning 1) select pg_current_xact_id()::text from new"
        );
        let xid = sql(&self.cluster, &insert).await;
        let after = "select pg_current_wal_insert_lsn()::text, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let row = try_sql(&self.cluster, after).await.unwrap().remove(0);
        self.ledger.push(Entry { id, xid, lsn: row[0].parse().unwrap(), time: row[1].parse().unwrap() });
    }

    async fn drop_ledger(&self, tell_xid: &str) -> String {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("begin").await.unwrap();
        let xid = client.query_one(tell_xid, &[]).await.unwrap().get(0);
        client.batch_execute("drop table ledger; commit").await.unwrap();
        xid
    }

    /// All that was written is in the repository.
    pub async fn archived(&self) {
        let segment = sql(&self.cluster, "select pg_walfile_name(pg_switch_wal())").await;
        let began = std::time::Instant::now();
        loop {
            let archived =
                sql(&self.cluster, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver").await;
            if archived >= segment {
                return;
            }
            assert!(
                began.elapsed() < crate::harness::PATIENCE,
                "{segment} is not archived: {}",
                self.cluster.log_tail()
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub fn ask(&self, arguments: &[&str]) -> Output {
        let config = self.place.path().join("oxpecker.toml");
        let mut command = Command::new(self.place.path().join("oxpecker"));
        command.env_remove("RUST_BACKTRACE").current_dir(self.place.path()).arg("--config").arg(config).args(arguments);
        command.output().unwrap()
    }

    pub fn restore(&self, name: &str, moment: &[&str]) -> (PathBuf, Value) {
        let pgdata = self.place.path().join(name);
        let all = [&["restore", "--pgdata", pgdata.to_str().unwrap(), "--output", "json"], moment].concat();
        let output = self.ask(&all);
        assert!(output.status.success(), "{moment:?}: {}", said(&output));
        (pgdata, serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The ledger's rows as a server shows them that was restored to this moment; none where there is no ledger. The server waits there.
    pub async fn rows(&self, name: &str, moment: &[&str]) -> Option<Vec<i64>> {
        let (pgdata, restored) = self.restore(name, moment);
        let builder = ScratchCluster::builder(self.cluster.installation()).template_of(&pgdata);
        let server = self.settings.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start();
        let server = server.unwrap_or_else(|error| panic!("{moment:?}: {error}"));
        let began = std::time::Instant::now();
        let waits =
            "select case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() = 'paused' else true end";
        let waits = if server.installation().major() >= 14 {
            waits
        } else {
            "select not pg_is_in_recovery() or pg_is_wal_replay_paused()"
        };
        while !try_sql(&server, waits).await.is_ok_and(|rows| rows[0][0] == "t") {
            assert!(began.elapsed() < crate::harness::PATIENCE, "{moment:?} {restored}: {}", server.log_tail());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(sql(&server, "show archive_mode").await, "off");
        if sql(&server, "select coalesce(to_regclass('ledger')::text, '')").await.is_empty() {
            return None;
        }
        let rows = try_sql(&server, "select id from ledger order by id").await.unwrap();
        Some(rows.into_iter().map(|row| row[0].parse().unwrap()).collect())
    }

    /// The ledger as it was after its row number `id`.
    fn up_to(id: i64) -> Option<Vec<i64>> {
        Some((1..=id).collect())
    }

    pub fn refused(&self, moment: &[&str], says: &[&str]) {
        let pgdata = self.place.path().join("refused");
        let output = self.ask(&[&["restore", "--pgdata", pgdata.to_str().unwrap()], moment].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(3), "{moment:?}: {text}");
        for part in says {
            assert!(text.contains(part), "{moment:?} does not say {part:?}: {text}");
        }
        assert!(!pgdata.exists(), "{moment:?}");
    }
}

async fn each_kind_of_moment(major: Option<u32>) {
    let Some(scene) = Scene::set(major).await else { return };
    let fourth = &scene.ledger[3];
    assert_eq!(fourth.id, 4);
    let (time, lsn) = (fourth.time.to_string(), fourth.lsn.to_string());

    assert_eq!(scene.rows("name", &["--to-name", "before the mistake"]).await, Scene::up_to(ROWS));
    assert_eq!(scene.rows("time", &["--to-time", &time]).await, Scene::up_to(4));
    assert_eq!(scene.rows("xid", &["--to-xid", &fourth.xid]).await, Scene::up_to(4));
    // The next commit is the one that drops the table: its lock must not be in the way of whoever looks.
    let last = scene.ledger[7].time.to_string();
    assert_eq!(scene.rows("last", &["--to-time", &last]).await, Scene::up_to(ROWS));
    assert_eq!(scene.rows("undropped", &["--to-xid", &scene.dropped_by, "--exclusive"]).await, Scene::up_to(ROWS));
    // Nothing was committed between the backup and the first row: its commit must not slip in.
    let first = &scene.ledger[0].xid;
    assert_eq!(scene.rows("none", &["--to-xid", first, "--exclusive"]).await, Scene::up_to(0));
    assert_eq!(scene.rows("latest", &["--latest"]).await, None, "the table was dropped by then");
    // Each is a server of its own: in the ordinary tier the newest version takes a part of them.
    if major.is_some() {
        assert_eq!(scene.rows("without", &["--to-xid", &fourth.xid, "--exclusive"]).await, Scene::up_to(3));
        assert_eq!(scene.rows("lsn", &["--to-lsn", &lsn, "--exclusive"]).await, Scene::up_to(4));
    }

    let listed = scene.place.json(&["backup", "list"]);
    let reachable = &listed["backups"][0]["reachable"];
    let newest: Timestamp = reachable["newest_commit"].as_str().unwrap().parse().unwrap();
    assert!(reachable["timeline"] == 1 && newest > scene.ledger[7].time, "{listed}");
    let text = said(&scene.ask(&["backup", "list"]));
    assert!(text.contains("or up to") && text.contains("Each moment between"), "{text}");

    let planned = scene.ask(&["restore", "-D", "/nonexistent/x", "--to-time", &time, "--dry-run"]);
    let text = said(&planned);
    assert!(text.contains("would restore") && text.contains("all of it there") && text.contains("WAL: "), "{text}");
    scene.refused(&["--to-time", "2020-01-01T00:00:00Z"], &["before the end of backup", "hint: "]);
    scene.refused(&["--to-time", "2999-01-01T00:00:00Z"], &["the newest commit is of", "--latest"]);
    scene.refused(&["--to-lsn", "7/0"], &["can't be reached", "hint: "]);
    scene.refused(&["--to-lsn", "0/10"], &["before the end of backup"]);
    scene.refused(&["--to-name", "no such"], &["was not found in the WAL from", "hint: "]);
    scene.refused(&["--to-xid", "4000000000"], &["was not found"]);
    scene.refused(&["--latest", "--timeline", "7"], &["the history of timeline 7"]);
    for (wrong, says) in [
        (&["--to-time", "2026-11-23 10:00:00"][..], "says no zone"),
        (&["--to-time", "soon"], "is no time"),
        (&["--to-lsn", "x"], "invalid value"),
        (&["--to-lsn", "0/1", "--latest"], "cannot be used with"),
        (&["--exclusive"], "required"),
        (&["--latest", "--timeline", "0"], "latest, current or the number"),
    ] {
        let output = scene.ask(&[&["restore", "-D", "/nonexistent/x"], wrong].concat());
        let text = said(&output);
        assert!(output.status.code() == Some(2) && text.contains(says), "{wrong:?}: {text}");
    }

    // The moment before the mistake becomes the present, on a timeline of its own.
    let (pgdata, restored) = scene.restore("back", &["--to-name", "before the mistake", "--action", "promote"]);
    assert_eq!(restored["recovery"]["timeline"], 1, "{restored}");
    let server = ScratchCluster::builder(scene.cluster.installation()).template_of(&pgdata).start().unwrap();
    let began = std::time::Instant::now();
    while sql(&server, "select pg_is_in_recovery()").await == "t" {
        assert!(began.elapsed() < crate::harness::PATIENCE, "{}", server.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    sql(&server, "insert into ledger values (100)").await;
    let timeline = "select timeline_id::text from pg_control_checkpoint()";
    sql(&server, "checkpoint").await;
    assert_eq!(sql(&server, timeline).await, "2");
}

#[tokio::test]
async fn each_kind_of_moment_is_reached() {
    each_kind_of_moment(None).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_13() {
    each_kind_of_moment(Some(13)).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_14() {
    each_kind_of_moment(Some(14)).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_15() {
    each_kind_of_moment(Some(15)).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_16() {
    each_kind_of_moment(Some(16)).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_17() {
    each_kind_of_moment(Some(17)).await;
}

#[tokio::test]
async fn slow_each_kind_of_moment_is_reached_18() {
    each_kind_of_moment(Some(18)).await;
}
