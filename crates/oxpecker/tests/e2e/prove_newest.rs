//! The proof replays the WAL that was stored since the backup, and says how old the newest commit is that it found.

use std::{fs, path::PathBuf};

use jiff::Timestamp;
use scratch::ScratchCluster;
use serde_json::Value;

use crate::harness::{Place, newest};

struct Scene {
    place: Place,
    cluster: ScratchCluster,
}

impl Scene {
    /// A server with a backup, and a query that the restored one has to answer.
    async fn set(major: Option<u32>) -> Option<Self> {
        let installation = match major.map(scratch::installation) {
            Some(Ok(installation)) => installation,
            Some(Err(error)) => {
                println!("skipped: {error}");
                return None;
            }
            None => newest()?,
        };
        let cluster = ScratchCluster::builder(&installation).initdb_args(["--wal-segsize=1"]);
        let cluster = cluster.setting("autovacuum", "off").setting("wal_keep_size", "1GB").start().unwrap();
        let place = Place::new();
        let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
        let more = format!(
            "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n[backup]\nscratch_dir = {:?}\n\
             [[backup.proof]]\ndatabase = \"postgres\"\nsql = \"select coalesce(max(id), 0) >= 0 from ledger\"\nexpect = \"t\"\n",
            repository.display(),
            place.path().join("scratch"),
        );
        place.configure(&cluster.url("postgres"), &more);
        place.json(&["backup", "init"]);
        let scene = Self { place, cluster };
        scene.sql("create table ledger (id int primary key)").await;
        scene.place.json(&["backup", "create"]);
        Some(scene)
    }

    async fn sql(&self, text: &str) -> String {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let messages = client.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let row = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
            _ => None,
        });
        row.unwrap_or_default()
    }

    /// Ends the segment that is written, and stores all that there are.
    async fn store(&self) {
        // A segment in which nothing was written is not ended.
        self.sql("select pg_create_restore_point('x')").await;
        let last = self.sql("select pg_walfile_name(pg_switch_wal())").await;
        let pg_wal = self.cluster.data_dir().join("pg_wal");
        let names = fs::read_dir(&pg_wal).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.len() == 24 && *name <= last).collect();
        names.sort();
        for name in names {
            let pushed = self.place.ask(&["wal", "push", pg_wal.join(name).to_str().unwrap()]);
            assert!(pushed.status.success(), "{}", crate::harness::said(&pushed));
        }
    }

    fn prove(&self, more: &[&str]) -> Value {
        let output = self.place.ask(&[&["backup", "prove", "--output", "json"], more].concat());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", crate::harness::said(&output));
        });
        let receipt = document["receipt"].clone();
        assert_eq!(receipt["verdict"], "proven", "{receipt:#}");
        receipt
    }
}

async fn the_proof_goes_to_the_newest_wal(major: Option<u32>) {
    let Some(scene) = Scene::set(major).await else { return };
    // Nothing was stored yet.
    assert_eq!(scene.prove(&[])["wal"], Value::Null);

    scene.store().await;
    scene.sql("insert into ledger select generate_series(1, 5000)").await;
    let inserted = Timestamp::now();
    scene.store().await;
    let receipt = scene.prove(&[]);
    let wal = &receipt["wal"];
    let newest: Timestamp = wal["newest_commit"].as_str().unwrap().parse().unwrap();
    let age = inserted.duration_since(newest).as_secs().abs();
    assert!(age < 60 && wal["problem"].is_null() && wal["segments"].as_u64() >= Some(2), "{receipt:#}");
    assert!(wal["replayed_to"].is_string() && wal["timeline"] == 1, "{receipt:#}");
    let objects = receipt["checks"].as_array().unwrap().iter().find(|check| check["name"] == "objects").unwrap();
    assert_eq!(objects["outcome"], "passed", "{receipt:#}");
    assert_eq!(scene.prove(&["--own-wal"])["wal"], Value::Null);

    // A table that was dropped since says nothing of the backup.
    scene.sql("create table other (); drop table ledger").await;
    scene.store().await;
    let receipt = scene.prove(&[]);
    assert!(receipt["wal"]["problem"].as_str().is_some_and(|why| why.contains("ledger")), "{receipt:#}");
    assert!(receipt["notes"].to_string().contains("proven without"), "{receipt:#}");

    // Nor does WAL that can't be read.
    let damaged = damage_one(&scene.place.path().join("repository/wal"));
    let receipt = scene.prove(&[]);
    assert!(receipt["wal"]["problem"].is_string(), "{} {receipt:#}", damaged.display());
}

/// Flips a byte of the newest object that holds WAL.
fn damage_one(wal: &std::path::Path) -> PathBuf {
    let mut files = Vec::new();
    let mut directories = vec![wal.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    let newest = files
        .into_iter()
        .filter(|path| size(path) > 2_000)
        .max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    let path = newest.unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn the_proof_replays_what_was_stored_since() {
    the_proof_goes_to_the_newest_wal(None).await;
}

#[tokio::test]
async fn slow_the_proof_replays_what_was_stored_since_on_14() {
    the_proof_goes_to_the_newest_wal(Some(14)).await;
}

#[tokio::test]
async fn slow_the_proof_replays_what_was_stored_since_on_15() {
    the_proof_goes_to_the_newest_wal(Some(15)).await;
}

#[tokio::test]
async fn slow_the_proof_replays_what_was_stored_since_on_16() {
    the_proof_goes_to_the_newest_wal(Some(16)).await;
}

#[tokio::test]
async fn slow_the_proof_replays_what_was_stored_since_on_17() {
    the_proof_goes_to_the_newest_wal(Some(17)).await;
}
