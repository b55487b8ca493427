//! `kill -9` at any instruction: what was said to be durable is there.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use journal::{EventQuery, Journal, JournalError, JournalOptions, Reader, Retention, StateDir};
use model::{ByteSize, EventId};

use crate::{any_reading, support::*};

/// Names the state directory to the child.
const CHILD_DIR: &str = "OXPECKER_TEST_JOURNAL";
/// How long the killing goes on.
const KILLING: Duration = Duration::from_secs(6);
/// And how many rounds there must be, however slow the machine is.
const LEAST_ROUNDS: u32 = 20;
/// And how many events must have been promised.
const LEAST_EVENTS: usize = 40;

/// Not a test: what [`killed_anywhere_the_journal_holds_what_it_promised`] starts again and again. Writes for ever, and says on its
/// stdout what is durable.
#[test]
#[ignore = "the process that another test kills"]
fn writer_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        println!("skipped: only as a child of another test");
        return;
    };
    let dir = StateDir::claim(Path::new(&dir)).unwrap();
    // Ages pass on over restarts, so that pruning and shortening are killed as well.
    let retention =
        Retention { readings: Duration::from_secs(1), max_size: ByteSize(16 << 20), ..Retention::default() };
    let journal = Journal::open(dir.path(), JournalOptions { retention, ..hasty() }).unwrap();
    let mut stdout = std::io::stdout();
    for group in 0_u64.. {
        for _ in 0..8 {
            journal.record(&any_reading::host(at(0), 12));
        }
        let texts: Vec<_> = (0..=group % 3).map(|n| format!("{}-{group}-{n}", std::process::id())).collect();
        let tickets: Vec<_> = texts.iter().map(|text| journal.append(at(0), &noted(text))).collect();
        for (text, ticket) in texts.iter().zip(tickets) {
            let id = ticket.wait().unwrap();
            stdout.write_all(format!("durable {} {text}\n", id.0).as_bytes()).unwrap();
        }
    }
}

fn start_child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::writer_child", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills it after `delay` from its start or, where wanted, from its first durable event. Returns what it had promised.
fn run_and_kill(dir: &Path, delay: Duration, from_first: bool) -> Vec<(EventId, String)> {
    let mut child = start_child(dir);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (first, first_came) = mpsc::channel();
    let collector = thread::spawn(move || {
        let mut promised = Vec::new();
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            if let Some((id, text)) = line.trim_end().strip_prefix("durable ").and_then(|rest| rest.split_once(' ')) {
                promised.push((EventId(id.parse().unwrap()), text.to_owned()));
                let _ = first.send(());
            }
            line.clear();
        }
        promised
    });
    if from_first {
        let came = first_came.recv_timeout(PATIENCE);
        if came.is_err() {
            let _ = child.kill();
            let mut words = String::new();
            let _ = child.stderr.take().unwrap().read_to_string(&mut words);
            panic!("the child came to nothing: {words}");
        }
    }
    thread::sleep(delay);
    assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
    child.kill().unwrap();
    child.wait().unwrap();
    collector.join().unwrap()
}

#[test]
fn killed_anywhere_the_journal_holds_what_it_promised() {
    let dir = tempfile::tempdir().unwrap();
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    let mut promised: BTreeMap<EventId, String> = BTreeMap::new();
    let (mut rounds, mut before_anything) = (0, 0);
    let started = Instant::now();
    // On a busy machine it takes longer until there is enough to check.
    let enough = |promised: usize| promised > LEAST_EVENTS || started.elapsed() > PATIENCE;
    while rounds < LEAST_ROUNDS || started.elapsed() < KILLING || !enough(promised.len()) {
        rounds += 1;
        let delay = Duration::from_micros(random.below(60_000));
        let known_before = promised.len();
        for (id, text) in run_and_kill(dir.path(), delay, rounds % 3 != 0) {
            let newest = promised.last_key_value().map(|(newest, _)| *newest);
            assert!(newest.is_none_or(|newest| newest < id), "round {rounds}: {id} after {newest:?}");
            promised.insert(id, text);
        }
        if promised.len() == known_before {
            before_anything += 1;
        }
        // The first one to look is a reader that may write nothing: it has to cope with the log that the dead left.
        let mut reader = match Reader::open(dir.path()) {
            Ok(reader) => reader,
            Err(JournalError::Missing { .. }) if promised.is_empty() => continue,
            Err(error) => panic!("round {rounds}, seed {seed}: {error}"),
        };
        let stored = reader.events(&EventQuery { limit: usize::MAX, ..EventQuery::default() }).unwrap();
        assert_eq!(stored.skipped, 0);
        for (n, event) in (1..).zip(&stored.events) {
            assert_eq!(event.id, EventId(n), "numbers have no gap");
        }
        for (id, text_promised) in &promised {
            let event = usize::try_from(id.0 - 1).ok().and_then(|index| stored.events.get(index));
            assert_eq!(event.map(text), Some(text_promised.as_str()), "round {rounds}, seed {seed}: {id}");
        }
        let connection = rusqlite::Connection::open(dir.path().join(journal::FILE_NAME)).unwrap();
        let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(integrity, "ok", "round {rounds}, seed {seed}");
    }
    let size = Reader::open(dir.path()).unwrap().size().unwrap();
    println!(
        "{rounds} kills, {before_anything} of them before anything was durable; {} events promised; {size:?}",
        promised.len()
    );
    assert!(promised.len() > LEAST_EVENTS, "only {} events: this has tried nothing", promised.len());
    assert!(size.file.0 + size.log.0 <= 16 << 20);
}
