//! A soak: a server under load whose WAL the guard receives, while worker, guard and server are killed at random; then restores to random
//! moments, each compared with the truth that the load wrote down.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::Lsn;
use rustix::process::{Pid, Signal, kill_process};
use scratch::ScratchCluster;

use crate::harness::{Guard, Place, newest, said};

/// How long it goes on, in minutes, unless `SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 20;
/// What all its chances follow from, unless `SOAK_SEED` says otherwise.
const SEED: u64 = 20_261_123;
/// Restores at the end.
const MOMENTS: u64 = 8;
/// How long the server, the guard or a recovery may take for anything.
const PATIENCE: Duration = Duration::from_secs(300);

/// Chances that come again with the same seed (xorshift64*; Vigna, 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// A row of the ledger, as its writer saw it.
#[derive(Clone, Debug)]
struct Row {
    id: i64,
    /// Where the server was after its commit, that transaction's number and the time then; none where the answer was lost with the server and
    /// only the row's being there tells of its commit.
    seen: Option<(Lsn, String, Timestamp)>,
}

#[derive(Default)]
struct Truth {
    rows: Mutex<Vec<Row>>,
    stop: AtomicBool,
    written: AtomicU64,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn connect(url: &str) -> Option<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Writes the ledger, one row after the other, through every death of the server.
fn write_ledger(url: &str, truth: &Truth) {
    runtime().block_on(async {
        let mut next = 1_i64;
        while !truth.stop.load(Ordering::Relaxed) {
            let Some(client) = connect(url).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // The last insert may have been committed though nobody was told.
            let Ok(row) = client.query_one("select coalesce(max(id), 0)::int8 from ledger", &[]).await else { continue };
            let last: i64 = row.get(0);
            if last >= next {
                assert_eq!(last, next, "one insert at a time");
                truth.rows.lock().unwrap().push(Row { id: next, seen: None });
                next += 1;
            }
            while !truth.stop.load(Ordering::Relaxed) {
                let insert = format!("with new as (insert into ledger values ({next}) returning 1) select pg_current_xact_id()::text from new");
                let Ok(row) = client.query_one(&insert, &[]).await else { break };
                let xid: String = row.get(0);
                let after = "select pg_current_wal_insert_lsn()::text, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
                let seen = match client.query_one(after, &[]).await {
                    Ok(row) => {
                        let (lsn, time): (String, String) = (row.get(0), row.get(1));
                        Some((lsn.parse().unwrap(), xid, time.parse().unwrap()))
                    }
                    Err(_) => None,
                };
                let lost = seen.is_none();
                truth.rows.lock().unwrap().push(Row { id: next, seen });
                truth.written.fetch_add(1, Ordering::Relaxed);
                next += 1;
                if lost {
                    break;
                }
                // So that a commit has a moment to itself.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
}

/// Work beside the ledger: updates, and now and then a table that comes and goes.
fn load(url: &str, truth: &Truth) {
    runtime().block_on(async {
        let mut round = 0_u64;
        while !truth.stop.load(Ordering::Relaxed) {
            let Some(client) = connect(url).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while !truth.stop.load(Ordering::Relaxed) {
                round += 1;
                let statement = match round % 50 {
                    0 => "create table if not exists passing as select * from busy limit 100".to_owned(),
                    25 => "drop table if exists passing".to_owned(),
                    n => format!("update busy set filler = md5(filler) where id % 50 = {n}"),
                };
                if client.batch_execute(&statement).await.is_err() {
                    break;
                }
            }
        }
    });
}

struct Scene {
    place: Place,
    cluster: ScratchCluster,
}

impl Scene {
    fn set() -> Option<Self> {
        let installation = newest()?;
        let place = Place::new();
        let program = place.path().join("oxpecker");
        if fs::hard_link(env!("CARGO_BIN_EXE_oxpecker"), &program).is_err() {
            fs::copy(env!("CARGO_BIN_EXE_oxpecker"), &program).unwrap();
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let builder = ScratchCluster::builder(&installation).setting("max_slot_wal_keep_size", "8GB");
        let cluster = builder.setting("checkpoint_timeout", "30s").start().unwrap();
        let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
        let more = format!(
            "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n[wal]\nreceive = true\ncanary = \"1s\"\n",
            repository.display()
        );
        place.configure(&cluster.url("postgres"), &more);
        place.json(&["backup", "init"]);
        let owner = fs::metadata(cluster.data_dir()).unwrap();
        let mut command = Command::new("chown");
        command.arg("-R").arg(format!("{}:{}", owner.uid(), owner.gid())).arg(&repository).arg(&key);
        assert!(command.status().unwrap().success());
        Some(Self { place, cluster })
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let config = self.place.path().join("oxpecker.toml");
        let mut command = Command::new(self.place.path().join("oxpecker"));
        command.env_remove("RUST_BACKTRACE").current_dir(self.place.path()).arg("--config").arg(config).args(arguments);
        command.output().unwrap()
    }

    /// Starts a guard of the program as it was when all this began.
    fn guard(&self) -> Guard {
        Guard::start_with(&self.place, Command::new(self.place.path().join("oxpecker")), &["run"])
    }

    fn query(&self, text: &str) -> Option<String> {
        let url = self.cluster.url("postgres");
        runtime().block_on(async {
            let row = connect(&url).await?.query_one(text, &[]).await.ok()?;
            row.get::<_, Option<String>>(0)
        })
    }

    /// The rows of the ledger after a restore to this moment.
    fn rows_at(&self, name: &str, moment: &[&str]) -> Vec<i64> {
        let pgdata = self.place.path().join(name);
        let restored = self.ask(&[&["restore", "--pgdata", pgdata.to_str().unwrap()], moment].concat());
        assert!(restored.status.success(), "{moment:?}: {}", said(&restored));
        let builder = ScratchCluster::builder(self.cluster.installation()).template_of(&pgdata);
        let server = builder.start_within(PATIENCE).start().unwrap_or_else(|error| panic!("{moment:?}: {error}"));
        let url = server.url("postgres");
        let began = Instant::now();
        let rows = runtime().block_on(async {
            let waits = "select not pg_is_in_recovery() or pg_get_wal_replay_pause_state() = 'paused'";
            loop {
                if let Some(client) = connect(&url).await
                    && client.query_one(waits, &[]).await.is_ok_and(|row| row.get(0))
                {
                    let rows = client.query("select id::int8 from ledger order by id", &[]).await.unwrap();
                    return rows.iter().map(|row| row.get(0)).collect();
                }
                assert!(began.elapsed() < PATIENCE, "{moment:?}: {}", server.log_tail());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        drop(server);
        fs::remove_dir_all(pgdata).unwrap();
        rows
    }
}

/// The guard's child that receives.
fn receiver(guard: &Guard) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", guard.pid())).unwrap_or_default();
    let mut pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    let is_it = |pid: &i32| {
        fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
            .is_ok_and(|line| line.ends_with(b"worker\0wal\0"))
    };
    pids.find(is_it).and_then(Pid::from_raw)
}

#[test]
fn slow_soak_every_restore_equals_the_ledger() {
    let number = |name: &str, default| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let minutes = number("SOAK_MINUTES", MINUTES);
    let mut chance = Chance(number("SOAK_SEED", SEED).max(1));
    let Some(mut scene) = Scene::set() else { return };
    let url = scene.cluster.url("postgres");
    runtime().block_on(async {
        let client = connect(&url).await.unwrap();
        let tables = "create table ledger (id int8 primary key); create table busy as select g as id, repeat(md5(g::text), 8) as filler from generate_series(1, 20000) g";
        client.batch_execute(tables).await.unwrap();
    });
    let mut guard = Some(scene.guard());
    let made = scene.ask(&["backup", "create"]);
    assert!(made.status.success(), "{}", said(&made));

    let truth = Arc::new(Truth::default());
    let mut threads = Vec::new();
    for work in [write_ledger as fn(&str, &Truth), load] {
        let (url, truth) = (url.clone(), Arc::clone(&truth));
        threads.push(thread::spawn(move || work(&url, &truth)));
    }
    let began = Instant::now();
    let (mut deaths, mut backups) = ([0_u32; 4], 1);
    while began.elapsed() < Duration::from_secs(minutes * 60) {
        thread::sleep(Duration::from_millis(2_000 + chance.below(10_000)));
        let what = usize::try_from(chance.below(4)).unwrap();
        deaths[what] += 1;
        match what {
            0 => {
                if let Some(worker) = guard.as_ref().and_then(receiver) {
                    let _ = kill_process(worker, Signal::KILL);
                }
            }
            1 => {
                if let Some(guard) = guard.take() {
                    guard.kill9();
                }
                thread::sleep(Duration::from_millis(chance.below(3_000)));
                guard = Some(scene.guard());
            }
            2 => {
                scene.cluster.kill9().unwrap();
                scene.cluster.start_again().unwrap();
            }
            _ => {
                scene.cluster.stop_fast().unwrap();
                scene.cluster.start_again().unwrap();
            }
        }
        // A backup now and then, so that recoveries begin at several; it may well be killed along with the server.
        if chance.below(20) == 0 {
            backups += u32::from(scene.ask(&["backup", "create"]).status.success());
        }
    }
    truth.stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    // All of it arrives.
    let end: Lsn = scene.query("select pg_current_wal_insert_lsn()::text").unwrap().parse().unwrap();
    scene.place.await_status("the end of the WAL", |status| {
        status["receive"]["durable"]
            .as_str()
            .and_then(|lsn| lsn.parse::<Lsn>().ok())
            .is_some_and(|durable| durable >= end)
    });
    assert!(guard.take().unwrap().stop().success(), "{}", scene.place.log());
    let names = scene.place.event_names();
    assert!(!names.contains(&"wal_missing") && !names.contains(&"wal_slot_lost"), "{names:?}");
    let verified = scene.ask(&["wal", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));

    let rows = truth.rows.lock().unwrap().clone();
    println!(
        "{minutes} min, {} rows, WAL to {end}; killed: receiver {}, guard {}, server {}; server restarted {}; {backups} backups",
        rows.len(),
        deaths[0],
        deaths[1],
        deaths[2],
        deaths[3]
    );
    let all: Vec<i64> = rows.iter().map(|row| row.id).collect();
    assert_eq!(all, (1..=i64::try_from(all.len()).unwrap()).collect::<Vec<_>>(), "the ledger itself has no hole");
    assert_eq!(scene.rows_at("latest", &["--latest"]), all);
    // Rows whose commit's time is known, and which a recovery can stop behind: those since the first backup.
    let mut told = BTreeSet::new();
    for number in 0..MOMENTS {
        let candidates = (rows.len() as u64).saturating_sub(2).max(1);
        let from = usize::try_from(chance.below(candidates)).unwrap();
        let Some((at, (lsn, xid, time))) =
            rows.iter().enumerate().skip(from).find_map(|(at, row)| Some((at, row.seen.clone()?)))
        else {
            continue;
        };
        let (lsn, time) = (lsn.to_string(), time.to_string());
        let moment: Vec<&str> = match number % 3 {
            0 => vec!["--to-time", &time],
            1 => vec!["--to-xid", &xid],
            _ => vec!["--to-lsn", &lsn, "--exclusive"],
        };
        let expected: Vec<i64> = rows[..=at].iter().map(|row| row.id).collect();
        let got = scene.rows_at(&format!("moment{number}"), &moment);
        assert_eq!(
            got.len(),
            expected.len(),
            "{moment:?}: rows up to {:?} instead of {:?}",
            got.last(),
            expected.last()
        );
        assert_eq!(got, expected, "{moment:?}");
        told.insert(number % 3);
        println!("{}: {} rows, as in the ledger", moment.join(" "), got.len());
    }
    assert!(!told.is_empty(), "no moment could be tried");
}
