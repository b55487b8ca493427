//! WAL through the protocol: received into files as pg_receivewal does, and judged by it.

pub mod alive;
pub mod impostor;
pub mod receive;
pub mod refusals;
pub mod restart;
pub mod shutdown;
pub mod slots;
pub mod switch;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use model::Lsn;
use pg_replication::{Connection, Refusal, SlotName, SlotOptions, StreamOptions, WalEvent, WalStream};
use scratch::{Builder, ScratchCluster};

use crate::{builder, sql};

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How long a call may wait before something else is looked at.
pub const GLANCE: Duration = Duration::from_millis(50);
/// Small segments, so that many of them come in little time.
pub const SEGMENT: u64 = 1 << 20;

pub const KEPT: SlotOptions = SlotOptions { temporary: false, reserve_wal: true };

/// The name of the segment that holds the byte at `at`.
pub fn name_of(timeline: u32, at: Lsn) -> String {
    let per_log = (1 << 32) / SEGMENT;
    let number = at.0 / SEGMENT;
    format!("{timeline:08X}{:08X}{:08X}", number / per_log, number % per_log)
}

/// Where the segment ends that holds the last byte before `end`.
pub fn segment_end(end: Lsn) -> Lsn {
    Lsn(end.0.div_ceil(SEGMENT) * SEGMENT)
}

pub fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

/// A cluster with small segments that keeps its WAL.
pub fn keeping(major: u32) -> Option<Builder> {
    let builder = builder(major)?.initdb_args(["--wal-segsize=1"]);
    Some(builder.setting("wal_keep_size", "1GB").setting("checkpoint_timeout", "1h"))
}

pub fn until(what: &str, cluster: &ScratchCluster, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited for: {what}; {}", cluster.log_tail());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn lsn(cluster: &ScratchCluster, statement: &str) -> Lsn {
    let text = sql(cluster, &[statement]);
    text.parse().unwrap_or_else(|_| panic!("{statement}: {text:?}"))
}

pub fn restart_lsn(cluster: &ScratchCluster, slot: &str) -> Lsn {
    lsn(cluster, &format!("select restart_lsn from pg_replication_slots where slot_name = '{slot}'"))
}

/// Where the segment begins that holds `lsn`.
pub fn segment_start(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 / SEGMENT * SEGMENT)
}

/// Where a receiver that has nothing begins, and on which timeline.
pub fn here(connection: &mut Connection) -> StreamOptions {
    let identity = connection.identify_system().unwrap();
    StreamOptions::new(segment_start(identity.flushed), identity.timeline)
}

/// Writes as pgbench does, in four small transactions and a larger one, until `stop`, or `rounds` are over.
pub fn load(cluster: &ScratchCluster, rounds: usize, stop: &AtomicBool) {
    for _ in 0..rounds {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let one = "update accounts set balance = balance + 1, filler = md5(random()::text) where id % 97 = (random() * 96)::int";
        let many = "insert into history select i, repeat(md5(random()::text), 8) from generate_series(1, 400) i";
        sql(cluster, &[one, one, many, one, one]);
    }
}

pub fn tables(cluster: &ScratchCluster) {
    let accounts = "create table accounts as select i as id, 0 as balance, repeat('x', 80) as filler from generate_series(1, 5000) i";
    sql(cluster, &[accounts, "alter table accounts add primary key (id)", "create table history (i int, x text)"]);
}

/// Segments as files, named as pg_receivewal names them: `.partial` until they are complete.
pub struct Segments {
    pub dir: tempfile::TempDir,
    timeline: u32,
    open: Option<(String, File)>,
    /// Behind the last byte.
    pub end: Lsn,
}

impl Segments {
    pub fn new(timeline: u32) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), timeline, open: None, end: Lsn(0) }
    }

    pub fn follow(&mut self, timeline: u32) {
        (self.timeline, self.open) = (timeline, None);
    }

    fn path(&self, name: &str, partial: &str) -> PathBuf {
        self.dir.path().join(format!("{name}{partial}"))
    }

    pub fn write(&mut self, start: Lsn, mut bytes: &[u8]) {
        let mut at = start;
        while !bytes.is_empty() {
            let name = name_of(self.timeline, at);
            let offset = at.0 % SEGMENT;
            let left = usize::try_from(SEGMENT - offset).unwrap();
            let (piece, rest) = bytes.split_at(left.min(bytes.len()));
            if self.open.as_ref().is_none_or(|(open, _)| *open != name) {
                assert_eq!(offset, 0, "a segment begins in the midst");
                let file = File::create(self.path(&name, ".partial")).unwrap();
                file.set_len(SEGMENT).unwrap();
                self.open = Some((name.clone(), file));
            }
            let (_, file) = self.open.as_ref().unwrap();
            file.write_all_at(piece, offset).unwrap();
            at = Lsn(at.0 + piece.len() as u64);
            bytes = rest;
            if at.0.is_multiple_of(SEGMENT) {
                self.open = None;
                let complete = self.path(&name, "");
                // What comes a second time is the same.
                if complete.exists() {
                    assert!(fs::read(&complete).unwrap() == fs::read(self.path(&name, ".partial")).unwrap(), "{name}");
                }
                fs::rename(self.path(&name, ".partial"), complete).unwrap();
            }
        }
        self.end = at;
    }

    /// What is complete.
    pub fn complete(&self) -> BTreeMap<String, Vec<u8>> {
        complete_in(self.dir.path())
    }
}

/// The complete segments in a directory.
pub fn complete_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let whole = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| (name, fs::read(entry.path()).unwrap()))
    });
    named.collect()
}

/// Whether all that both have is the same, and both have `least` segments in common and no holes.
pub fn assert_same(ours: &BTreeMap<String, Vec<u8>>, theirs: &BTreeMap<String, Vec<u8>>, least: usize) {
    let names: Vec<&String> = ours.keys().filter(|name| theirs.contains_key(*name)).collect();
    assert!(names.len() >= least, "{} in common: ours {:?}, theirs {:?}", names.len(), ours.keys(), theirs.keys());
    let (first, last) = (names[0], names[names.len() - 1]);
    for (mine, yours, whose) in [(ours, theirs, "theirs"), (theirs, ours, "ours")] {
        let lacks: Vec<&String> = mine.range(first.clone()..=last.clone()).map(|(name, _)| name).collect();
        assert!(lacks.iter().all(|name| yours.contains_key(*name)), "{whose} lack some of {lacks:?}");
    }
    for name in names {
        // Not assert_eq, which would print megabytes.
        assert!(ours[name] == theirs[name], "{name} differs");
    }
}

/// Whether the server's own files, which may be more, hold all of ours.
pub fn assert_within(ours: &BTreeMap<String, Vec<u8>>, cluster: &ScratchCluster, least: usize) {
    assert!(ours.len() >= least, "only {:?}", ours.keys());
    let theirs = complete_in(&cluster.data_dir().join("pg_wal"));
    for (name, bytes) in ours {
        let same = theirs.get(name).is_some_and(|their| their == bytes);
        assert!(same, "{name} differs, or is none of {:?}", theirs.keys());
    }
}

/// Reads until `done`, which sees the stream after each event; false when the stream came to its end.
pub fn pump(
    stream: &mut WalStream<'_>,
    segments: &mut Segments,
    mut done: impl FnMut(&WalStream<'_>, &Segments) -> bool,
) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match stream.next(GLANCE).unwrap() {
            WalEvent::Wal { start, bytes } => segments.write(start, bytes),
            WalEvent::KeepAlive | WalEvent::Nothing => {}
            WalEvent::End => return false,
        }
        if done(stream, segments) {
            return true;
        }
        assert!(Instant::now() < deadline, "received up to {}, of {}", stream.received(), stream.server_end());
    }
}

/// PostgreSQL's own receiver, into a directory of its own.
pub struct PgReceivewal {
    child: Child,
    pub dir: tempfile::TempDir,
}

impl PgReceivewal {
    /// Starts it; returns when it streams. `None`, with a printed reason, where it is not installed.
    pub fn start(cluster: &ScratchCluster) -> Option<Self> {
        let major = cluster.installation().major();
        // There is none of 13 in the testbed; newer ones speak with it.
        let mut tools =
            [cluster.installation().clone()].into_iter().chain(scratch::complete_installation(major.max(14)));
        let Some(program) = tools.find_map(|one| one.tool("pg_receivewal")) else {
            println!(
                "skipped: the comparison with pg_receivewal, which is not installed for {major}: run cargo xtask testbed"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.arg("-D").arg(dir.path()).arg("-h").arg(cluster.socket_dir()).args(["-U", "postgres", "--no-sync"]);
        command.arg("-p").arg(cluster.tcp_port().to_string()).stdin(Stdio::null());
        let log = File::create(dir.path().join("log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let receiver = Self { child: command.spawn().unwrap(), dir };
        let query = "select count(*) from pg_stat_replication where application_name = 'pg_receivewal'";
        until("pg_receivewal streams", cluster, || sql(cluster, &[query]) == "1");
        Some(receiver)
    }

    pub fn complete(&self) -> BTreeMap<String, Vec<u8>> {
        complete_in(self.dir.path())
    }

    /// Waits until it has this complete segment.
    pub fn until_it_has(&self, cluster: &ScratchCluster, name: &str) {
        until(&format!("pg_receivewal completes {name}"), cluster, || self.dir.path().join(name).exists());
    }
}

impl Drop for PgReceivewal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills up the current segment; where the next one begins.
pub fn switch(cluster: &ScratchCluster) -> Lsn {
    sql(cluster, &["insert into history values (0, 'switch')"]);
    segment_end(lsn(cluster, "select pg_switch_wal()"))
}

/// Why a stream can't begin, whether the server says so at once or in the stream. The connection is in order after both.
pub fn first_refusal(connection: &mut Connection, options: &StreamOptions) -> Option<Refusal> {
    let error = match connection.stream_wal(options) {
        Err(error) => error,
        Ok(mut stream) => {
            let deadline = Instant::now() + PATIENCE;
            let error = loop {
                assert!(Instant::now() < deadline, "it is not refused");
                match stream.next(GLANCE) {
                    Ok(WalEvent::Wal { .. }) => return None,
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(stream.next(GLANCE).is_err() && stream.finish().is_err());
            error
        }
    };
    assert!(error.to_string().contains("; hint: ") && !error.is_passing(), "{error}");
    assert!(connection.identify_system().unwrap().timeline > 0);
    error.refusal()
}
