//! Page maps by the archive command: made beside it, shown, made again, and gone with their WAL.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use model::Lsn;
use scratch::ScratchCluster;
use serde_json::{Value, json};

use crate::harness::{Place, newest, said};

const SEGMENT: u64 = 1 << 20;
/// Segments of a range.
const RANGE: u64 = 64;
/// It is made by a process that stands back behind all others.
const PATIENCE: Duration = Duration::from_secs(120);

fn sql(cluster: &ScratchCluster, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for statement in statements {
            client.simple_query(statement).await.unwrap();
        }
    });
}

#[track_caller]
fn ask(place: &Place, code: i32, arguments: &[&str]) -> Value {
    let output = place.ask(&[arguments, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn says(place: &Place, code: i32, arguments: &[&str]) -> String {
    let output = place.ask(arguments);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    said(&output)
}

/// Pushes all segments that wait, a lot with each call, as an archive command does whose server is far ahead.
fn push(cluster: &ScratchCluster, place: &Place) {
    let pg_wal = cluster.data_dir().join("pg_wal");
    let status = pg_wal.join("archive_status");
    let ready = |name: &str| status.join(format!("{name}.ready"));
    let mut names: Vec<String> = fs::read_dir(&status)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".ready")?.to_owned()))
        .filter(|name| name.len() == 24)
        .collect();
    names.sort_unstable();
    let mut left = &names[..];
    while let Some(first) = left.first() {
        let pushed = ask(place, 0, &["wal", "push", pg_wal.join(first).to_str().unwrap(), "--ahead", "64"]);
        let ahead = usize::try_from(pushed["ahead"].as_u64().unwrap()).unwrap();
        left = &left[ahead + 1..];
    }
    for name in &names {
        fs::rename(ready(name), status.join(format!("{name}.done"))).unwrap();
    }
}

/// Writes until the first segment of range `number` is full.
fn write_until(cluster: &ScratchCluster, number: u64) {
    let query = format!(
        "do $$ begin while pg_current_wal_insert_lsn() < '{}' loop perform pg_logical_emit_message(false, 'p', 'x'); \
         perform pg_switch_wal(); end loop; end $$",
        Lsn((number * RANGE + 1) * SEGMENT)
    );
    sql(cluster, &["create table if not exists t as select generate_series(1, 1000) n", &query]);
}

/// The objects of page maps, by range.
fn objects(place: &Place) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let entries = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
    };
    for stream in entries(&place.path().join("repository/wal")) {
        for range in entries(&stream.join("00000001")) {
            let number = u64::from_str_radix(range.file_name().unwrap().to_str().unwrap(), 16).unwrap();
            let map = range.join("map-1");
            found.extend(map.exists().then_some((number, map)));
        }
    }
    found.sort_unstable();
    found
}

fn until_there(place: &Place, ranges: &[u64]) {
    let began = Instant::now();
    loop {
        let there: Vec<u64> = objects(place).into_iter().map(|(range, _)| range).collect();
        if there == ranges {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{there:?}, not {ranges:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn page_maps_are_made_beside_the_archive_command() {
    let Some(installation) = newest() else { return };
    let cluster = ScratchCluster::builder(&installation)
        .initdb_args(["--wal-segsize=1"])
        // It marks what waits, and leaves it to us.
        .setting("archive_mode", "on")
        .setting("archive_command", "")
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
    ask(&place, 0, &["backup", "init"]);
    ask(&place, 0, &["backup", "create"]);
    let maps = |code| ask(&place, code, &["wal", "verify"])["systems"][0]["page_maps"][0].clone();

    write_until(&cluster, 1);
    push(&cluster, &place);
    until_there(&place, &[0]);
    let end = Lsn(RANGE * SEGMENT);
    let listed = ask(&place, 0, &["wal", "list"])["systems"][0]["timelines"][0]["page_maps"].clone();
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["to"]), (Some(1), &json!(end)), "{listed}");
    assert!(says(&place, 0, &["wal", "list"]).contains(&format!("to {end}\n")));
    let there = maps(0);
    assert_eq!((&there["lacking"], there["ranges"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{there}");

    // One that lacks is no damage; it is made of the WAL that is stored, and is the same.
    let (_, object) = objects(&place).swap_remove(0);
    fs::remove_file(&object).unwrap();
    assert!(says(&place, 0, &["wal", "verify"]).contains("`oxpecker wal verify --maps` makes them"));
    assert!(says(&place, 0, &["wal", "verify", "--maps"]).contains("the page map was made"));
    assert_eq!(maps(0), there);

    // One that is damaged is found.
    let sound = fs::read(&object).unwrap();
    let mut damaged = sound.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let replace = |bytes: &[u8]| {
        fs::remove_file(&object).unwrap();
        fs::write(&object, bytes).unwrap();
    };
    replace(&damaged);
    assert_eq!(maps(1)["ranges"], json!([]));
    replace(&sound);

    // They go with their WAL.
    write_until(&cluster, 2);
    push(&cluster, &place);
    until_there(&place, &[0, 1]);
    ask(&place, 0, &["backup", "create"]);
    ask(&place, 0, &["backup", "prune", "--yes"]);
    write_until(&cluster, 3);
    push(&cluster, &place);
    until_there(&place, &[2]);
}
