//! The outbox under `kill -9`, in a loop: whatever `put` and `note` said is durable is there for the next guard, whole.

// The helpers of an integration test are not inside a test function, where clippy allows these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::{BTreeSet, HashSet},
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use alerting::outbox::{MAX_PENDING, Outbox, Pending};
use jiff::Timestamp;
use model::{Alert, AlertKey, AlertState, Moment, RuleId, Severity};

const DIR: &str = "ALERTING_TEST_CRASH_DIR";

/// How often the writer is killed.
const KILLS: u64 = 40;

/// Entries that the writer leaves; it removes older ones, so that it never stops for want of room.
const KEPT: u64 = 5;

fn pending(id: u64) -> Pending {
    let moment = Moment { wall: Timestamp::UNIX_EPOCH, boot_us: id };
    let alert = Alert {
        key: AlertKey(format!("key-{id}")),
        rule: RuleId::from("cpu-saturated"),
        severity: Severity::Warning,
        state: AlertState::Firing,
        since: moment,
        decided: moment,
        summary: "s".repeat(100),
        details: vec!["d".repeat(4_000)],
        next_steps: Vec::new(),
        labels: [("cluster".to_owned(), "main".to_owned())].into(),
    };
    Pending { id, route: "ops".into(), alert }
}

/// Not a test of its own: the writer that gets killed. It says `put ID` and `note ID` once they are durable, and `remove ID` before it
/// removes.
#[test]
fn writer() {
    let Ok(dir) = env::var(DIR) else { return };
    let (mut outbox, recovered) = Outbox::open(&PathBuf::from(dir)).unwrap();
    let mut id = recovered.pending.last().map_or(1, |newest| newest.id + 1);
    let mut kept: Vec<u64> = recovered.pending.iter().map(|p| p.id).collect();
    let mut out = std::io::stdout();
    loop {
        let entry = pending(id);
        outbox.put(&entry).unwrap();
        writeln!(out, "\nput {id}").unwrap();
        outbox.note(&entry.alert, &BTreeSet::new()).unwrap();
        writeln!(out, "note {id}").unwrap();
        kept.push(id);
        while kept.len() as u64 > KEPT {
            let oldest = kept.remove(0);
            writeln!(out, "remove {oldest}").unwrap();
            outbox.remove(oldest).unwrap();
            let over = Alert { state: AlertState::Resolved, ..pending(oldest).alert };
            outbox.note(&over, &BTreeSet::new()).unwrap();
        }
        id += 1;
    }
}

#[test]
fn nothing_durable_is_lost_by_kill_9_at_any_instruction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outbox");
    let (mut put, mut noted, mut removed) = (BTreeSet::new(), BTreeSet::new(), HashSet::new());
    for round in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads=2"])
            .env(DIR, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let (first_put, is_first_put) = mpsc::channel();
        let reader = thread::spawn(move || {
            let tell = |line: &String| _ = line.starts_with("put ").then(|| first_put.send(()));
            lines.lines().map_while(Result::ok).inspect(tell).collect::<Vec<_>>()
        });
        // Every other round while it starts and recovers, else while it writes; spread over the instructions of a few writes.
        if round % 2 == 0 {
            is_first_put.recv_timeout(Duration::from_secs(30)).expect("the writer writes");
        }
        thread::sleep(Duration::from_micros(2_000 + round * 1_337 % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let Some((word, id)) = line.split_once(' ') else { continue };
            let Ok(id) = id.parse::<u64>() else { continue };
            match word {
                "put" => put.insert(id),
                "note" => noted.insert(id),
                "remove" => removed.insert(id),
                _ => continue,
            };
        }

        let (_, recovered) = Outbox::open(&path).unwrap();
        assert_eq!(recovered.problems, Vec::<String>::new(), "round {round}");
        let there: BTreeSet<u64> = recovered.pending.iter().map(|p| p.id).collect();
        for id in put.iter().filter(|id| !removed.contains(id)) {
            assert!(there.contains(id), "round {round}: {id} was durable and is gone");
        }
        for entry in &recovered.pending {
            assert_eq!(*entry, pending(entry.id), "round {round}");
        }
        let open: BTreeSet<u64> = recovered.open.iter().map(|a| a.key.0[4..].parse().unwrap()).collect();
        for id in noted.iter().filter(|id| !removed.contains(id)) {
            assert!(open.contains(id), "round {round}: the episode of {id} was noted and is gone");
        }
        assert!(recovered.pending.len() < MAX_PENDING);
    }
    assert!(put.len() as u64 >= KILLS / 2 && !removed.is_empty(), "the writer hardly wrote: {}", put.len());
}
