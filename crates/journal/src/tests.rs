//! Tests of the whole against a store that fails on demand.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use model::{ByteSize, EventKind, Moment};

use crate::{
    EventQuery, Journal, JournalError, JournalHealth, JournalOptions, Reader, Recording, Retention, Ticket, clock,
    format, store::Store,
};

/// Far more than anything here takes, so that only a hang fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What tests can do to the store of a running writer.
#[derive(Default)]
pub(crate) struct Knobs {
    /// Pages that the file may have; as declared where zero.
    pages: AtomicI64,
}

impl Knobs {
    pub(crate) fn apply(&self, store: &Store) {
        let declared = format::max_pages(&store.retention) as i64;
        let pages = match self.pages.load(Ordering::SeqCst) {
            0 => declared,
            pages => pages,
        };
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    }

    fn allow(&self, pages: i64) {
        self.pages.store(pages, Ordering::SeqCst);
    }
}

fn noted(text: impl Into<String>) -> EventKind {
    EventKind::Noted { author: "test".into(), text: text.into() }
}

/// Text that can't be made much smaller: multiples of the golden ratio in base 64.
pub(crate) fn noise(size: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let digit = |n: u64| (n + 1).wrapping_pow(3).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
    (0..size as u64).map(|n| DIGITS.get(usize::try_from(digit(n)).unwrap()).copied().map(char::from).unwrap()).collect()
}

fn options() -> JournalOptions {
    JournalOptions {
        backlog: ByteSize(64 << 10),
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(5),
        reading_interval: Duration::from_millis(5),
        ..JournalOptions::default()
    }
}

fn append(journal: &Journal, text: impl Into<String>) -> Ticket {
    journal.append(clock::now(), &noted(text))
}

fn until(journal: &Journal, what: &str, is: impl Fn(&JournalHealth) -> bool) -> JournalHealth {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let health = journal.health();
        if is(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {health:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn events(dir: &Path) -> Vec<model::Event> {
    let all = Reader::open(dir).unwrap().events(&EventQuery { limit: usize::MAX, ..EventQuery::default() }).unwrap();
    assert_eq!(all.skipped, 0);
    all.events
}

fn texts(dir: &Path) -> Vec<String> {
    let text = |event: model::Event| match event.kind {
        EventKind::Noted { text, .. } => text,
        other => other.name().to_owned(),
    };
    events(dir).into_iter().map(text).collect()
}

#[test]
fn a_full_store_delays_events_and_says_what_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let knobs = Arc::new(Knobs::default());
    let journal = Journal::start(dir.path(), options(), Arc::clone(&knobs)).unwrap();
    append(&journal, "before").wait().unwrap();

    knobs.allow(1);
    let body = "x".repeat(3000);
    let started = Instant::now();
    let tickets: Vec<_> = (0..100).map(|n| (n, append(&journal, format!("{n} {body}")))).collect();
    assert!(started.elapsed() < Duration::from_secs(1), "appending does not wait for the store");
    let health = until(&journal, "the failure", |health| !health.is_ok());
    let Recording::Failing { error, .. } = &health.recording else { panic!("{health:?}") };
    assert!(error.contains("full") && !error.contains('\n'), "{error}");
    assert!(health.waiting_bytes <= ByteSize(64 << 10));

    knobs.allow(0);
    let (mut kept, mut lost) = (Vec::new(), 0);
    for (n, ticket) in tickets {
        match ticket.wait_for(PATIENCE).expect("an outcome") {
            Ok(id) => kept.push((id, n)),
            Err(_) => lost += 1,
        }
    }
    assert!(lost > 10 && kept.len() > 10, "{lost} lost, {} kept", kept.len());
    until(&journal, "recovery", JournalHealth::is_ok);
    journal.close(PATIENCE).unwrap();

    let stored = events(dir.path());
    for (id, n) in &kept {
        let event = stored.iter().find(|event| event.id == *id).unwrap();
        assert!(matches!(&event.kind, EventKind::Noted { text, .. } if text.starts_with(&format!("{n} "))));
    }
    let reports: Vec<_> = stored
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RecordingFailed { error, lost } => Some((error.clone(), *lost)),
            _ => None,
        })
        .collect();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].1, lost);
    assert!(reports[0].0.contains("full"), "{reports:?}");
    assert_eq!(stored.len(), 1 + kept.len() + 1, "nothing twice, nothing else");
    assert!(stored.windows(2).all(|pair| pair[0].id.0 + 1 == pair[1].id.0));
}

#[test]
fn on_a_full_store_readings_are_given_up_for_events() {
    let dir = tempfile::tempdir().unwrap();
    let knobs = Arc::new(Knobs::default());
    let path = format::path_in(dir.path());
    {
        let mut store = Store::open(&path, Retention::default()).unwrap();
        let row = || crate::queue::Row::new(clock::now(), "host", noise(4000));
        store.write_readings(&std::iter::repeat_with(row).take(300).collect::<Vec<_>>()).unwrap();
    }
    let pages = (format::size_of(&path) / format::PAGE_SIZE) as i64;
    knobs.allow(pages);
    let journal = Journal::start(dir.path(), options(), knobs).unwrap();
    for n in 0..100 {
        append(&journal, format!("{n} {}", "x".repeat(2000))).wait().unwrap();
    }
    assert_eq!(journal.health().lost.events, 0);
    journal.close(PATIENCE).unwrap();
    assert_eq!(events(dir.path()).len(), 100);
    assert!(Reader::open(dir.path()).unwrap().size().unwrap().readings < 300);
}

#[test]
fn a_closed_journal_says_what_it_could_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let knobs = Arc::new(Knobs::default());
    let journal = Journal::start(dir.path(), options(), Arc::clone(&knobs)).unwrap();
    append(&journal, "first").wait().unwrap();
    knobs.allow(1);
    let waits = append(&journal, "x".repeat(30_000));
    until(&journal, "the failure", |health| !health.is_ok());
    let error = journal.close(PATIENCE).unwrap_err();
    assert!(matches!(error, JournalError::NotFlushed { waiting: 1, .. }), "{error}");
    assert!(error.to_string().contains("full"), "{error}");
    assert!(waits.wait().is_err());
    assert!(append(&journal, "late").wait().is_err());
    assert_eq!(texts(dir.path()), ["first"]);
}

#[test]
fn a_journal_that_was_removed_is_begun_anew_and_that_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    append(&journal, "before").wait().unwrap();
    for file in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    append(&journal, "after").wait().unwrap();
    journal.close(PATIENCE).unwrap();
    assert_eq!(texts(dir.path()), ["after", "recording_failed"]);
}

#[test]
fn the_last_handle_to_go_leaves_nothing_unwritten() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let tickets: Vec<_> = (0..50).map(|n| append(&journal.clone(), n.to_string())).collect();
    drop(journal);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(texts(dir.path()).len(), 50);
}

#[test]
fn a_bound_that_is_too_small_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_size: ByteSize(1 << 20), ..Retention::default() };
    let error = Journal::open(dir.path(), JournalOptions { retention, ..options() }).err().unwrap();
    assert!(error.to_string().contains("allow at least 8.0 MiB"), "{error}");
}

#[test]
fn moments_are_kept_to_the_microsecond() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), options()).unwrap();
    let at = Moment { wall: "2026-03-29T00:59:59.123456Z".parse().unwrap(), boot_us: 42 };
    let id = journal.append(at, &noted("now")).wait().unwrap();
    journal.close(PATIENCE).unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().event(id).unwrap().at, at);
}
