//! A server, a repository, and a receiver between them on a thread of its own.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use model::Lsn;
use pg_format::wal::{SegmentName, SegmentSize};
use pg_replication::{Host, Target};
use repository::{
    KdfCost, Options, Repository, Secret,
    store::{MemoryStore, ObjectName, Operation, Put, Store, StoreError, StoreErrorKind},
    wal::{Segment, Wal},
};
use scratch::{Builder, ScratchCluster};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use wal::{
    Cluster,
    receive::{self, CreateSlot, Event, Listener, ReceiveError},
};

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Small segments, so that many of them come in little time.
pub const SEGMENT: u64 = 1 << 20;
pub const SLOT: &str = "oxpecker";

pub fn size() -> SegmentSize {
    SegmentSize::new(SEGMENT).unwrap()
}

/// A cluster with small segments.
pub fn builder(major: u32) -> Option<Builder> {
    match scratch::installation(major) {
        Ok(installation) => {
            let builder = ScratchCluster::builder(&installation).initdb_args(["--wal-segsize=1"]);
            Some(builder.setting("autovacuum", "off").setting("checkpoint_timeout", "1h"))
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// One that keeps its WAL, so that it can be compared, and bounds its slots.
pub fn keeping(major: u32) -> Option<Builder> {
    Some(builder(major)?.setting("wal_keep_size", "1GB").setting("max_slot_wal_keep_size", "2GB"))
}

/// Runs statements one by one; the first column of the last one's first row.
pub fn sql(cluster: &ScratchCluster, statements: &[&str]) -> String {
    try_sql(cluster, statements).unwrap_or_else(|error| panic!("{statements:?}: {error:?}\n{}", cluster.log_tail()))
}

/// As [`sql`], of a server that may not be there.
pub fn try_sql(cluster: &ScratchCluster, statements: &[&str]) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await?;
        let connection = tokio::spawn(connection);
        let mut last = String::new();
        for statement in statements {
            let messages = client.simple_query(statement).await?;
            let value = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            last = value.unwrap_or_default().to_owned();
        }
        drop(client);
        let _ = connection.await.unwrap();
        Ok(last)
    })
}

pub fn lsn(cluster: &ScratchCluster, statement: &str) -> Lsn {
    let text = sql(cluster, &[statement]);
    text.parse().unwrap_or_else(|_| panic!("{statement}: {text:?}"))
}

pub fn now(cluster: &ScratchCluster) -> Lsn {
    lsn(cluster, "select pg_current_wal_flush_lsn()")
}

/// About a segment of WAL.
pub fn write(cluster: &ScratchCluster) {
    sql(
        cluster,
        &[
            "create table if not exists history (i int, x text)",
            "insert into history select i, repeat(md5(random()::text), 8) from generate_series(1, 3000) i",
        ],
    );
}

/// Fills up the current segment; where the next one begins.
pub fn switch(cluster: &ScratchCluster) -> Lsn {
    write(cluster);
    let end = lsn(cluster, "select pg_switch_wal()");
    Lsn(end.0.div_ceil(SEGMENT) * SEGMENT)
}

/// A store that can be made to fail, or to answer nobody.
#[derive(Clone, Debug, Default)]
pub struct Moody {
    pub inner: MemoryStore,
    mood: Arc<Mood>,
}

#[derive(Debug, Default)]
struct Mood {
    down: AtomicBool,
    stuck: AtomicBool,
    /// Puts from now on until it is dead; zero for never.
    dies_at: std::sync::atomic::AtomicU64,
    puts: std::sync::atomic::AtomicU64,
    /// All that was asked so far.
    requests: std::sync::atomic::AtomicU64,
}

impl Moody {
    pub fn down(&self, down: bool) {
        self.mood.down.store(down, Ordering::SeqCst);
    }

    pub fn stuck(&self, stuck: bool) {
        self.mood.stuck.store(stuck, Ordering::SeqCst);
    }

    /// After so many writes everything fails, as for a process that was killed. `None`: it lives.
    pub fn dies_at(&self, writes: Option<u64>) {
        self.mood.puts.store(0, Ordering::SeqCst);
        self.mood.dies_at.store(writes.unwrap_or(0), Ordering::SeqCst);
    }

    /// The objects of WAL that are there.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.inner.list("wal/", &mut |name, _| names.push(name.to_string())).unwrap();
        names
    }

    /// How much was asked of it so far.
    pub fn requests(&self) -> u64 {
        self.mood.requests.load(Ordering::SeqCst)
    }

    /// An object is not there any more, and nobody knows why.
    pub fn lose(&self, name: &str) {
        self.inner.delete(&ObjectName::new(name).unwrap()).unwrap();
    }

    fn may(&self, operation: Operation, name: &str, writes: bool) -> Result<(), StoreError> {
        self.mood.requests.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        while self.mood.stuck.load(Ordering::SeqCst) {
            assert!(began.elapsed() < PATIENCE, "stuck for ever");
            thread::sleep(Duration::from_millis(10));
        }
        let fail = |kind| Err(StoreError::new(operation, name, "here", kind, "as the test wants it"));
        if self.mood.down.load(Ordering::SeqCst) {
            return fail(StoreErrorKind::Unavailable);
        }
        let dies_at = self.mood.dies_at.load(Ordering::SeqCst);
        let puts = if writes {
            self.mood.puts.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            self.mood.puts.load(Ordering::SeqCst)
        };
        if dies_at > 0 && puts > dies_at { fail(StoreErrorKind::Stopped) } else { Ok(()) }
    }
}

impl Store for Moody {
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.may(Operation::Put, name.as_str(), true)?;
        self.inner.put_if_absent(name, bytes)
    }

    fn get(&self, name: &ObjectName) -> Result<Vec<u8>, StoreError> {
        self.may(Operation::Get, name.as_str(), false)?;
        self.inner.get(name)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.may(Operation::Get, name.as_str(), false)?;
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.may(Operation::Size, name.as_str(), false)?;
        self.inner.size(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.may(Operation::Delete, name.as_str(), true)?;
        self.inner.delete(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

pub fn repository() -> (Moody, Repository) {
    let store = Moody::default();
    let options = Options { cost: KdfCost::CHEAP, ..Options::default() };
    let secret = Secret::passphrase("correct horse battery").unwrap();
    let made = Repository::create(Arc::new(store.clone()), &options, &secret, "test", serde_json::Value::Null).unwrap();
    (store, made)
}

pub fn target(cluster: &ScratchCluster) -> Target {
    Target::new(Host::Unix(cluster.socket_dir(), cluster.tcp_port()), "postgres")
}

pub fn options(cluster: &ScratchCluster) -> receive::Options {
    receive::Options {
        target: target(cluster),
        slot: Some(SLOT.parse().unwrap()),
        create_slot: CreateSlot::IfCapped,
        flush_interval: Duration::from_millis(50),
    }
}

/// The cluster's WAL in a repository.
pub fn wal_of(repository: &Repository, cluster: &ScratchCluster) -> Wal {
    Cluster::of_data_dir(&cluster.data_dir()).unwrap().open(repository).unwrap()
}

/// A receiver at work.
pub struct Receiver {
    stop: Arc<AtomicBool>,
    pub events: Arc<Mutex<Vec<Event>>>,
    thread: Option<JoinHandle<Result<(), ReceiveError>>>,
}

impl Receiver {
    pub fn start(options: &receive::Options, repository: &Repository) -> Self {
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let listener: Listener = {
            let events = Arc::clone(&events);
            Arc::new(move |event: &Event| events.lock().unwrap().push(event.clone()))
        };
        let (options, repository, stopped) = (options.clone(), repository.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || receive::receive(&options, &repository, &stopped, &listener));
        Self { stop, events, thread: Some(thread) }
    }

    /// Everything that was told but the progress.
    pub fn told(&self) -> Vec<Event> {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| !matches!(event, Event::Progress(_))).cloned().collect()
    }

    pub fn until(&self, what: &str, cluster: &ScratchCluster, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(
                began.elapsed() < PATIENCE && !ended,
                "in vain waited for: {what}; ended {ended}; {:#?}\n{}",
                self.told(),
                cluster.log_tail()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn until_told(&self, what: &str, cluster: &ScratchCluster, is_it: impl Fn(&Event) -> bool) {
        self.until(what, cluster, || self.events.lock().unwrap().iter().any(&is_it));
    }

    pub fn until_connected(&self, cluster: &ScratchCluster) {
        self.until_told("a connection", cluster, |event| matches!(event, Event::Connected { .. }));
    }

    /// Waits until the server has heard that everything before `lsn` is durable.
    pub fn until_acknowledged(&self, cluster: &ScratchCluster, lsn: Lsn) {
        let query = format!("select count(*) from pg_stat_replication where flush_lsn >= '{lsn}'");
        self.until(&format!("{lsn} is acknowledged"), cluster, || sql(cluster, &[&query]) != "0");
    }

    pub fn stop(mut self) -> Vec<Event> {
        self.stop.store(true, Ordering::SeqCst);
        let result = self.thread.take().unwrap().join().unwrap();
        assert!(result.is_ok(), "{result:?}");
        self.told()
    }

    /// Asks it to end, and waits for that.
    pub fn end(mut self) -> Result<(), ReceiveError> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for it to end by itself.
    pub fn error(mut self) -> ReceiveError {
        let began = Instant::now();
        while !self.thread.as_ref().unwrap().is_finished() {
            assert!(began.elapsed() < PATIENCE, "it does not end: {:#?}", self.told());
            thread::sleep(Duration::from_millis(10));
        }
        self.thread.take().unwrap().join().unwrap().unwrap_err()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Compares what is stored of `timeline` from `from` up to `to` with the server's own files. Whole segments must be whole.
pub fn assert_stored(wal: &Wal, timeline: u32, cluster: &ScratchCluster, from: Lsn, to: Lsn) {
    let size = size();
    let mut lsn = size.start_of(size.number_of(from));
    let mut compared = 0;
    while lsn < to {
        let name = SegmentName::holding(timeline, lsn, size);
        let path = cluster.data_dir().join("pg_wal").join(name.file_name(size));
        let theirs = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let end = usize::try_from(to.0 - lsn.0).unwrap().min(theirs.len());
        let ours = match wal.get_segment(timeline, name.number).unwrap() {
            Segment::Whole(bytes) | Segment::Beginning(bytes) => bytes,
            Segment::Absent => panic!("{} is absent", path.display()),
        };
        assert!(ours.len() >= end, "{}: {} bytes of {end}", path.display(), ours.len());
        assert!(ours[..end] == theirs[..end], "{} differs", path.display());
        (lsn, compared) = (Lsn(lsn.0 + SEGMENT), compared + 1);
    }
    assert!(compared > 0);
}

/// Copies a stopped cluster's files.
pub fn copy_of(data: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new("cp").arg("-a").arg(data).arg(dir.path().join("data")).status().unwrap();
    assert!(done.success());
    dir
}
