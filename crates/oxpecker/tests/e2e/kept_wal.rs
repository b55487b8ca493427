//! WAL in the repository, looked at and let go: `wal list`, `wal verify`, `backup check` and `backup prune` on a real server's WAL.

use std::{
    fs,
    path::{Path, PathBuf},
};

use model::Lsn;
use scratch::ScratchCluster;
use serde_json::Value;

use crate::harness::{Place, newest, said};

const SEGMENT: u64 = 1 << 20;

fn sql(cluster: &ScratchCluster, text: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut answer = String::new();
        for message in client.simple_query(text).await.unwrap() {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                answer = row.get(0).unwrap_or_default().to_owned();
            }
        }
        answer
    })
}

/// Asks for JSON, and for this exit code.
#[track_caller]
fn json(place: &Place, code: i32, arguments: &[&str]) -> Value {
    let output = place.ask(&[arguments, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn says(place: &Place, code: i32, arguments: &[&str], parts: &[&str]) {
    let output = place.ask(arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "does not say {part:?}: {text}");
    }
}

fn lsn(value: &Value) -> Lsn {
    value.as_str().unwrap_or_else(|| panic!("no LSN: {value}")).parse().unwrap()
}

/// Writes some segments, and pushes all that are full. Returns where the next one begins.
fn write(cluster: &ScratchCluster, place: &Place, pushed: &mut Vec<String>) -> Lsn {
    for _ in 0..4 {
        sql(cluster, "create table if not exists t (n int, x text)");
        sql(cluster, "insert into t select g, md5(g::text) from generate_series(1, 2000) g");
        sql(cluster, "select pg_switch_wal()");
    }
    let current = sql(cluster, "select pg_walfile_name(pg_current_wal_insert_lsn())");
    let directory = cluster.data_dir().join("pg_wal");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24 && *name < current && !pushed.contains(name))
        .collect();
    names.sort_unstable();
    for name in names {
        says(place, 0, &["wal", "push", directory.join(&name).to_str().unwrap()], &[]);
        pushed.push(name);
    }
    let number = u64::from_str_radix(&current[8..16], 16).unwrap() << 32;
    Lsn(number + u64::from_str_radix(&current[16..], 16).unwrap() * SEGMENT)
}

/// The object of the segment at `at`, of timeline 1.
fn object(place: &Place, at: Lsn) -> PathBuf {
    let segment = at.0 / SEGMENT;
    let streams = fs::read_dir(place.path().join("repository/wal")).unwrap();
    let stream: &Path = &streams.map(|entry| entry.unwrap().path()).next().unwrap();
    stream.join(format!("00000001/{:016x}/{segment:016x}", segment / 64))
}

#[test]
fn wal_is_listed_verified_checked_and_let_go() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation)
        .initdb_args(["--wal-segsize=1"])
        .setting("wal_keep_size", "1GB")
        .setting("autovacuum", "off")
        .start()
        .unwrap();
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let more = format!(
        "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n[backup]\nkeep = {{ last = 1, daily = 0, weekly = 0, monthly = 0, yearly = 0, point_in_time = \"0s\" }}\n",
        repository.display()
    );
    place.configure(&cluster.url("postgres"), &more);
    json(&place, 0, &["backup", "init"]);
    says(&place, 0, &["wal", "list"], &["no WAL is there", "wal push"]);
    says(&place, 0, &["wal", "verify"], &["no WAL is there"]);
    json(&place, 0, &["backup", "create"]);
    let backup = |at: usize| json(&place, 0, &["backup", "list"])["backups"][at].clone();
    let start = lsn(&backup(0)["start_lsn"]);

    let mut pushed = Vec::new();
    let end = write(&cluster, &place, &mut pushed);
    let listed = json(&place, 0, &["wal", "list"]);
    let timeline = &listed["systems"][0]["timelines"][0];
    assert_eq!(listed["systems"][0]["system_id"], backup(0)["system_id"], "{listed}");
    assert_eq!((&timeline["timeline"], lsn(&timeline["durable_to"])), (&1.into(), end), "{listed}");
    assert_eq!(timeline["ranges"].as_array().map(Vec::len), Some(1), "{listed}");
    assert!(lsn(&timeline["ranges"][0]["from"]) <= start && timeline["gaps"] == serde_json::json!([]), "{listed}");
    says(&place, 0, &["wal", "list"], &[&format!("durable up to {end} of timeline 1")]);
    let verified = json(&place, 0, &["wal", "verify"]);
    assert_eq!((&verified["clean"], &verified["systems"][0]["findings"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(lsn(&verified["systems"][0]["backups"][0]["replays_to"]["1"]), end, "{verified}");
    says(&place, 0, &["wal", "verify"], &["every byte is what was written", &format!("up to {end} of timeline 1")]);
    says(&place, 0, &["backup", "check", "--deep"], &[&format!("can be replayed up to {end} of timeline 1")]);

    // Bits flip in the last segment but one; what can be replayed ends there, and is said as a range of WAL.
    let bad = Lsn(end.0 - 2 * SEGMENT);
    let path = object(&place, bad);
    let mut flipped = fs::read(&path).unwrap();
    flipped[200] ^= 1;
    // Objects are read-only for everybody.
    fs::remove_file(&path).unwrap();
    fs::write(&path, &flipped).unwrap();
    let verified = json(&place, 1, &["wal", "verify"]);
    let system = &verified["systems"][0];
    let finding = &system["findings"][0];
    assert_eq!((&finding["fault"], lsn(&finding["lost"]["from"])), (&"damaged".into(), bad), "{verified}");
    assert_eq!(lsn(&finding["lost"]["to"]).0, bad.0 + SEGMENT);
    assert_eq!(lsn(&system["backups"][0]["replays_to"]["1"]), bad);
    says(&place, 1, &["wal", "verify"], &["DAMAGED", "can't be replayed", &bad.to_string()]);
    says(&place, 1, &["backup", "check", "--deep"], &["damaged", &backup(0)["id"].as_str().unwrap()[..8]]);
    // Lost altogether.
    fs::remove_file(&path).unwrap();
    says(&place, 1, &["backup", "check"], &["missing", &format!("up to {bad} of timeline 1 ONLY")]);
    says(&place, 1, &["wal", "verify"], &["MISSING", "a gap"]);
    says(&place, 0, &["wal", "list"], &[&format!("GAP up to {}", Lsn(bad.0 + SEGMENT))]);
    // The server still has it.
    says(
        &place,
        0,
        &["wal", "push", cluster.data_dir().join("pg_wal").join(&pushed[pushed.len() - 2]).to_str().unwrap()],
        &[],
    );
    says(&place, 0, &["wal", "verify"], &["every byte is what was written"]);

    // The next backup: all before it may go, and is said before it does.
    json(&place, 0, &["backup", "create"]);
    let newer = lsn(&backup(0)["start_lsn"]);
    let end = write(&cluster, &place, &mut pushed);
    let first = Lsn(newer.0 / SEGMENT * SEGMENT);
    let planned = json(&place, 0, &["backup", "prune", "--dry-run"]);
    assert_eq!(planned["wal"][0]["lines"], serde_json::json!([[1, first.0 / SEGMENT]]), "{planned}");
    let from = || lsn(&json(&place, 0, &["wal", "list"])["systems"][0]["timelines"][0]["ranges"][0]["from"]);
    assert!(from() < first, "nothing was changed");
    let done = json(&place, 0, &["backup", "prune", "--yes"]);
    assert!(done["done"]["removed_wal"].as_u64() > Some(0) && done["done"]["expired"] == 1, "{done}");
    assert_eq!(from(), first);
    let verified = json(&place, 0, &["wal", "verify"]);
    assert_eq!(lsn(&verified["systems"][0]["backups"][0]["replays_to"]["1"]), end, "{verified}");
    let again = json(&place, 0, &["backup", "prune", "--yes"]);
    assert_eq!((&again["done"]["removed_wal"], &again["wal"]), (&0.into(), &serde_json::json!([])), "{again}");
    says(&place, 0, &["backup", "check", "--deep"], &[&format!("can be replayed up to {end} of timeline 1")]);
}
