//! A damaged database that is brought back from its proven backup once a person approved it, and not before.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use model::EventKind;
use scratch::ScratchCluster;

use crate::{
    guarded_backup,
    harness::{Guard, PATIENCE, Place, cluster, said},
};

const ROWS: i64 = 10_000;

/// What oxpecker runs in the end is stopped, whatever happens.
struct Running<'a>(&'a Place);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for name in ["site", "main"] {
            let stopped = self.0.ask(&["service", "stop", name, "--yes", "--by", "the test"]);
            if !stopped.status.success() {
                println!("{}", said(&stopped));
            }
        }
    }
}

fn owner(cluster: &ScratchCluster) -> String {
    let uid = fs::metadata(cluster.data_dir()).unwrap().uid().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    users.lines().map(fields).find(|fields| fields.get(2) == Some(&uid)).map(|fields| fields[0].clone()).unwrap()
}

async fn rows(cluster: &ScratchCluster) -> i64 {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0)
}

/// Directories that were set aside.
fn aside(cluster: &ScratchCluster) -> Vec<PathBuf> {
    let data = cluster.data_dir();
    let beside = fs::read_dir(data.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    beside.filter(|path| path.to_string_lossy().starts_with(&format!("{}.damaged-", data.display()))).collect()
}

/// A cluster with rows and a proven backup, which is then stopped, its control file destroyed; and who would run it is declared.
async fn damaged() -> Option<(ScratchCluster, Place)> {
    let mut cluster = cluster(&[("checkpoint_timeout", "30s")])?;
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let fill = format!("CREATE TABLE kept AS SELECT generate_series(1, {ROWS}) AS id; CHECKPOINT");
    client.batch_execute(&fill).await.unwrap();
    drop(client);
    let place = guarded_backup::place(&cluster.url("postgres"));
    let guard = Guard::start(&place);
    let ended = |kind: &EventKind| matches!(kind, EventKind::ProofFinished { .. } | EventKind::ProofFailed { .. });
    // A proof stands back while others on the host wait: it may take its time.
    let began = Instant::now();
    let kind = loop {
        if let Some(event) = place.events().into_iter().find(|event| ended(&event.kind)) {
            break event.kind;
        }
        assert!(began.elapsed() < PATIENCE * 5 / 2, "the proof does not end:\n{}", place.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(matches!(kind, EventKind::ProofFinished { .. }), "{kind:?}\n{}", place.log());
    place.await_status("the end of the run", |s| s["backup"]["running"].is_null());
    assert!(guard.stop().success());
    cluster.stop_fast().unwrap();
    fs::write(cluster.data_dir().join("global/pg_control"), vec![0; 8192]).unwrap();

    let config = place.path().join("oxpecker.toml");
    let text = fs::read_to_string(&config).unwrap();
    let user =
        if rustix::process::geteuid().is_root() { format!("user = {:?}\n", owner(&cluster)) } else { String::new() };
    let postgres = cluster.installation().bin_dir.join("postgres");
    let (data, sleep) = (cluster.data_dir(), "[\"/bin/sleep\", \"1000000\"]");
    let text = text.replacen(
        "[postgres]\n",
        &format!(
            "[postgres]\ndata_dir = {data:?}\ndriver = \"process\"\ncommand = [{postgres:?}, \"-D\", {data:?}]\n{user}"
        ),
        1,
    );
    let more = format!(
        "\n[[service]]\nname = \"site\"\ndepends_on = [\"main\"]\ndriver = \"process\"\nstable_for = \"500ms\"\ncommand = {sleep}\n"
    );
    fs::write(&config, format!("mode = \"act\"\n{text}{more}")).unwrap();
    Some((cluster, place))
}

#[tokio::test]
async fn a_damaged_database_is_restored_once_that_is_approved_also_over_a_kill() {
    let Some((cluster, place)) = damaged().await else { return };
    let _running = Running(&place);
    let guard = Guard::start(&place);
    let wanted = place.await_event("the question", 0, |kind| matches!(kind, EventKind::RecoveryApprovalWanted { .. }));
    let EventKind::RecoveryApprovalWanted { plan, what } = wanted.kind else { unreachable!() };
    assert!(what[0].starts_with("restore main from the proven backup "), "{what:?}");
    let shown = said(&place.ask(&["service", "plan"]));
    for part in [
        "restore main",
        "its data directory is damaged",
        "old; its restore was measured to take",
        "would be lost",
        &plan,
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    place.await_status("a look at it", |s| !s["recovery"]["approval"].is_null());
    assert!(aside(&cluster).is_empty(), "nothing is done unasked");
    assert!(!place.event_names().contains(&"recovery_act_began"));

    let approved = place.ask(&["approve", &plan, "--by", "eva"]);
    assert!(approved.status.success(), "{}", said(&approved));
    let began = |kind: &EventKind| matches!(kind, EventKind::RecoveryActBegan { action, .. } if action == "restore");
    place.await_event("the restore", wanted.id.0, began);
    // In the middle of it, or just behind: it goes on either way.
    guard.kill9();
    let guard = Guard::start(&place);
    let stable = place.await_event("all stable", wanted.id.0, |kind| matches!(kind, EventKind::ServicesStable { .. }));
    assert!(matches!(stable.kind, EventKind::ServicesStable { services: 2, .. }), "{:?}", stable.kind);
    assert_eq!(rows(&cluster).await, ROWS);
    let kept = aside(&cluster);
    assert!(!kept.is_empty(), "the damaged directory is kept");
    assert!(kept.iter().any(|path| fs::read(path.join("global/pg_control")).is_ok_and(|bytes| bytes == vec![0; 8192])));
    assert!(guard.stop().success());
}

#[tokio::test]
async fn what_cannot_be_restored_leaves_the_directory_as_it_was() {
    let Some((cluster, place)) = damaged().await else { return };
    let _running = Running(&place);
    fs::rename(place.path().join("repository"), place.path().join("unreachable")).unwrap();
    let plan = place.json(&["service", "plan"]);
    let hash = plan["approve"]["plan"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned();
    let approved = place.ask(&["approve", &hash, "--by", "eva"]);
    assert!(approved.status.success(), "{}", said(&approved));
    let applied = place.ask(&["service", "apply"]);
    assert!(matches!(applied.status.code(), Some(1 | 4)), "{}", said(&applied));
    assert!(said(&applied).contains("nothing was changed"), "{}", said(&applied));
    assert!(aside(&cluster).is_empty());
    assert_eq!(fs::read(cluster.data_dir().join("global/pg_control")).unwrap(), vec![0; 8192]);
    assert!(cluster.data_dir().join("PG_VERSION").exists());
}
