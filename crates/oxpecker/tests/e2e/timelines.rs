//! Two servers that went apart: each line can be returned to, and both are shown.

use std::{fs, process::Command, time::Instant};

use model::Lsn;
use scratch::{Installation, ScratchCluster};

use crate::{
    harness::{PATIENCE, newest, said},
    pitr::{Scene, sql, try_sql},
    wal_fault_recovery::majors,
};

majors! {
    of_two_primaries: slow_two_primaries_14 = 14, slow_two_primaries_15 = 15, slow_two_primaries_16 = 16, slow_two_primaries_17 = 17, slow_two_primaries_18 = 18;
}

/// Rows behind which each line goes its own way.
const COMMON: i64 = 3;

async fn until(what: &str, cluster: &ScratchCluster, question: &str) {
    let began = Instant::now();
    while !try_sql(cluster, question).await.is_ok_and(|rows| rows[0][0] == "t") {
        assert!(began.elapsed() < PATIENCE, "in vain waited for {what}: {}", cluster.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A copy of the server as a standby of it. It archives once it is promoted.
fn standby_of(scene: &mut Scene) -> ScratchCluster {
    let primary = &mut scene.cluster;
    primary.stop_fast().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let copied = Command::new("cp").arg("-a").arg(primary.data_dir()).arg(&data).status().unwrap();
    assert!(copied.success());
    primary.start_again().unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    let upstream = format!("host={} port={} user=postgres", primary.socket_dir().display(), primary.tcp_port());
    let builder = ScratchCluster::builder(primary.installation()).template_of(&data);
    let builder = builder.setting("primary_conninfo", upstream).setting("archive_mode", "on");
    builder.setting("autovacuum", "off").start().unwrap()
}

async fn archived(cluster: &ScratchCluster) {
    let segment = sql(cluster, "select pg_walfile_name(pg_switch_wal())").await;
    let question = format!("select coalesce(last_archived_wal, '') >= '{segment}' from pg_stat_archiver");
    until(&segment, cluster, &question).await;
}

fn of_two_primaries(installation: &Installation) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let mut scene = Scene::begin(installation, &[]).await;
        scene.back_up().await;
        let standby = standby_of(&mut scene);
        for id in 1..=COMMON {
            scene.enter(id).await;
        }
        let to = scene.ledger.last().unwrap().lsn;
        until("the standby", &standby, &format!("select coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{to}'")).await;
        sql(&standby, "select pg_promote()").await;
        until("the promotion", &standby, "select not pg_is_in_recovery()").await;
        // Both take writes from now on, and both archive: nobody told the old one.
        for id in [100, 101] {
            sql(&standby, &format!("insert into ledger values ({id})")).await;
        }
        for id in [200, 201] {
            scene.enter(id).await;
        }
        archived(&standby).await;
        sql(&standby, "insert into ledger values (102)").await;
        archived(&standby).await;
        scene.archived().await;
        sql(&scene.cluster, "insert into ledger values (202)").await;
        scene.archived().await;

        let ours = |ids: &[i64]| Some((1..=COMMON).chain(ids.iter().copied()).collect::<Vec<_>>());
        let promoted = ours(&[100, 101, 102]);
        assert_eq!(scene.rows("latest", &["--latest"]).await, promoted, "the newest line leads on");
        assert_eq!(scene.rows("two", &["--latest", "--timeline", "2"]).await, promoted);
        assert_eq!(scene.rows("current", &["--latest", "--timeline", "current"]).await, ours(&[200, 201, 202]));
        assert_eq!(scene.rows("one", &["--latest", "--timeline", "1"]).await, ours(&[200, 201, 202]));
        let on_the_old = scene.ledger[3].xid.clone();
        assert_eq!(scene.rows("xid", &["--to-xid", &on_the_old, "--timeline", "1"]).await, ours(&[200]));
        let common = scene.ledger[1].lsn.to_string();
        assert_eq!(scene.rows("common", &["--to-lsn", &common, "--exclusive"]).await, Some(vec![1, 2]));
        scene.refused(&["--latest", "--timeline", "3"], &["the history of timeline 3", "hint: "]);

        let listed = scene.place.json(&["wal", "list"]);
        let lines = listed["systems"][0]["timelines"].as_array().unwrap();
        let numbers: Vec<_> = lines.iter().map(|line| (line["timeline"].as_u64(), line["history"].as_bool())).collect();
        assert_eq!(numbers, [(Some(1), Some(false)), (Some(2), Some(true))], "{listed}");
        assert!(lines.iter().all(|line| line["gaps"].as_array().is_some_and(Vec::is_empty)), "{listed}");
        let backups = scene.place.json(&["backup", "list"]);
        assert_eq!(backups["backups"][0]["reachable"]["timeline"], 2, "{backups}");
        let verified = scene.ask(&["wal", "verify"]);
        assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

        // A second backup, on the new line: it is the one to begin with there, and of no use to the old one.
        let url = standby.url("postgres");
        let (repository, key) = (scene.place.path().join("repository"), scene.place.path().join("repository.key"));
        let more = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n", repository.display());
        scene.place.configure(&url, &more);
        let second = scene.place.json(&["backup", "create"]);
        scene.give();
        sql(&standby, "insert into ledger values (103)").await;
        archived(&standby).await;
        let (_, restored) = scene.restore("second", &["--latest"]);
        assert_eq!((&restored["id"], &restored["recovery"]["timeline"]), (&second["id"], &2.into()), "{restored}");
        let (_, restored) = scene.restore("first", &["--latest", "--timeline", "1"]);
        assert_ne!(restored["id"], second["id"], "{restored}");
    });
}

/// Hundreds of timelines in one repository, each of which led to the next: they are listed, and the way is found, in seconds.
#[tokio::test]
async fn slow_hundreds_are_listed_and_followed() {
    const HUNDREDS: u32 = 300;
    let Some(installation) = newest() else { return };
    let mut scene = Scene::begin(&installation, &[]).await;
    scene.back_up().await;
    for id in 1..=3 {
        scene.enter(id).await;
    }
    scene.archived().await;
    let elsewhere = scene.place.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("pg_wal")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(scene.cluster.data_dir().join("global")).arg(&elsewhere).status();
    assert!(copied.unwrap().success());
    // They begin where the server is now, and are far from each other.
    let now: Lsn = sql(&scene.cluster, "select pg_current_wal_lsn()").await.parse().unwrap();
    let mut text = String::new();
    for timeline in 1..HUNDREDS {
        text.push_str(&format!(
            "{timeline}\t{}\tno recovery target specified\n",
            Lsn(now.0 + u64::from(timeline) * 0x100_0000)
        ));
        let history = elsewhere.join(format!("pg_wal/{:08X}.history", timeline + 1));
        fs::write(&history, &text).unwrap();
        let pushed = scene.ask(&["wal", "push", history.to_str().unwrap()]);
        assert!(pushed.status.success(), "{}", said(&pushed));
    }
    scene.give();
    let began = Instant::now();
    let listed = scene.place.json(&["wal", "list"]);
    assert_eq!(listed["systems"][0]["timelines"].as_array().map(Vec::len), Some(HUNDREDS as usize), "{listed}");
    let backups = scene.place.json(&["backup", "list"]);
    assert_eq!(backups["backups"][0]["reachable"]["timeline"], HUNDREDS, "{backups}");
    let verified = scene.ask(&["wal", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    let planned = scene.ask(&["restore", "-D", "/nonexistent/x", "--latest", "--dry-run"]);
    assert!(
        said(&planned).contains("along timelines") || said(&planned).contains("timeline 300"),
        "{}",
        said(&planned)
    );
    let took = began.elapsed();
    assert!(took < PATIENCE / 2, "{took:?}");
    // The server finds its way through them, too.
    assert_eq!(scene.rows("one", &["--latest", "--timeline", "1"]).await, Some(vec![1, 2, 3]));
    assert_eq!(scene.rows("latest", &["--latest"]).await, Some(vec![1, 2, 3]));
}
