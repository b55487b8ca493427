//! What the tests on real servers share.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use backup::{CreateOptions, Created, Note, Progress, RestoreOptions, Restored};
use repository::{
    KdfCost, Options, Repository, Secret,
    store::{LocalStore, Store},
};
use scratch::{Builder, Installation, ScratchCluster};
use tokio_postgres::{NoTls, SimpleQueryMessage};

pub type Done = Result<(), Box<dyn std::error::Error>>;

/// A test of each major version out of a function of an installation: one version in the default tier, the others in the slow one.
macro_rules! on_majors {
    ($test:ident, 14) => { on_majors!($test: v14 = 14, slow_v15 = 15, slow_v16 = 16, slow_v17 = 17, slow_v18 = 18); };
    ($test:ident, 15) => { on_majors!($test: slow_v14 = 14, v15 = 15, slow_v16 = 16, slow_v17 = 17, slow_v18 = 18); };
    ($test:ident, 16) => { on_majors!($test: slow_v14 = 14, slow_v15 = 15, v16 = 16, slow_v17 = 17, slow_v18 = 18); };
    ($test:ident, 17) => { on_majors!($test: slow_v14 = 14, slow_v15 = 15, slow_v16 = 16, v17 = 17, slow_v18 = 18); };
    ($test:ident, 18) => { on_majors!($test: slow_v14 = 14, slow_v15 = 15, slow_v16 = 16, slow_v17 = 17, v18 = 18); };
    ($test:ident: $($name:ident = $major:literal),+) => {
        mod $test {
            $(#[test]
            fn $name() -> crate::common::Done {
                match crate::common::installation($major) {
                    Some(installation) => super::$test(&installation),
                    None => Ok(()),
                }
            })+
        }
    };
}

/// The installation of a major version; `None`, with the reason printed, where there is none.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
pub fn installation(major: u32) -> Option<Installation> {
    scratch::installation(major).inspect_err(|error| eprintln!("skipped: {error}")).ok()
}

/// A small cluster, with page checksums where asked.
pub fn cluster(installation: &Installation) -> Builder {
    ScratchCluster::builder(installation)
        .setting("fsync", "off")
        .setting("max_wal_size", "256MB")
        .setting("autovacuum_naptime", "1s")
        .setting("checkpoint_timeout", "30s")
}

/// One synchronous session.
pub struct Sql {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Sql {
    pub fn connect(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(async move { connection.await.ok() });
            client
        });
        Self { runtime, client }
    }

    /// Statement by statement, each in a transaction of its own, unless they are one.
    pub fn run(&self, text: &str) {
        let parts: Vec<&str> = if text.starts_with("BEGIN") { vec![text] } else { text.split("; ").collect() };
        for part in parts {
            self.try_run(part).unwrap_or_else(|error| panic!("{part}: {error:?}"));
        }
    }

    pub fn try_run(&self, text: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(text))
    }

    /// The rows as text, columns joined by a bar.
    pub fn rows(&self, text: &str) -> Vec<String> {
        let messages =
            self.runtime.block_on(self.client.simple_query(text)).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|n| row.get(n).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
                }
                _ => None,
            })
            .collect()
    }

    pub fn one(&self, text: &str) -> String {
        self.rows(text).into_iter().next().unwrap_or_default()
    }
}

/// All rows of all tables of a database, as a digest for each table: what is equal before and after was restored.
pub fn contents(url: &str) -> Vec<String> {
    let sql = Sql::connect(url);
    let tables = sql.rows(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1",
    );
    let digest = |table: &String| {
        sql.one(&format!(
            "SELECT '{table}', count(*), md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM {table} t"
        ))
    };
    tables.iter().map(digest).collect()
}

/// A repository in a directory of its own.
pub struct Repo {
    pub directory: tempfile::TempDir,
    pub repository: Repository,
}

pub const PASSPHRASE: &str = "correct horse battery staple";

pub fn repository_options() -> Options {
    // Small packs, so that a small backup has many.
    Options { cost: KdfCost::CHEAP, pack_target: 1 << 20, ..Options::default() }
}

pub fn secret() -> Secret {
    Secret::passphrase(PASSPHRASE).unwrap()
}

impl Repo {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::create(&directory.path().join("repo")).unwrap();
        let repository =
            Repository::create(Arc::new(store), &repository_options(), &secret(), "test", serde_json::Value::Null)
                .unwrap();
        Self { directory, repository }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    /// As another process would open it.
    pub fn reopen(&self) -> Repository {
        open(Arc::new(LocalStore::open(&self.path()).unwrap()))
    }
}

pub fn open(store: Arc<dyn Store>) -> Repository {
    Repository::open(store, &repository_options(), &secret()).unwrap()
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<Note>>);

impl Progress for Notes {
    fn note(&self, note: &Note) {
        self.0.lock().unwrap().push(note.clone());
    }
}

pub fn options(cluster: &ScratchCluster) -> CreateOptions {
    CreateOptions::new(cluster.url("postgres"), "main")
}

pub fn create(cluster: &ScratchCluster, repo: &Repo) -> Created {
    backup::create(&options(cluster), &repo.repository, &Notes::default()).unwrap()
}

/// A place for restores that the server's user can reach.
pub fn place() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::Builder::new().prefix("oxrestore-").tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    place
}

pub fn restore(created: &Created, repo: &Repo, target: &Path) -> Restored {
    backup::restore(&RestoreOptions::new(created.id, target), &repo.repository, &Notes::default()).unwrap()
}

/// The programs of that version, or of the nearest one that reads its manifests.
fn tools(major: u32) -> Option<Installation> {
    let nearest = || (major..=18).chain((13..major).rev()).filter(|other| (*other >= 17) == (major >= 17));
    nearest().find_map(|major| scratch::complete_installation(major).ok())
}

/// Runs pg_verifybackup, with its WAL where there is one of this version.
#[allow(clippy::print_stderr, reason = "a skipped check says why")]
pub fn verify(directory: &Path, major: u32) {
    let Some(tools) = tools(major) else {
        eprintln!("skipped: no pg_verifybackup for a manifest of {major}");
        return;
    };
    let mut command = Command::new(tools.bin_dir.join("pg_verifybackup"));
    // WAL is parsed by pg_waldump, which knows its own version only.
    if tools.major() != major {
        command.arg("--no-parse-wal");
    }
    let output = command.arg(directory).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pg_verifybackup: {out}{err}");
}

/// Starts the restored server with the programs that have contrib, and runs pg_amcheck over every database.
#[allow(clippy::print_stderr, reason = "a skipped check says why")]
pub fn amcheck(directory: &Path, major: u32) {
    let Ok(tools) = scratch::complete_installation(major) else {
        eprintln!("skipped: no pg_amcheck for {major}");
        return;
    };
    let server = start(&tools, directory);
    let mut command = Command::new(tools.bin_dir.join("pg_amcheck"));
    command.args([
        "--all",
        "--install-missing",
        "--heapallindexed",
        "--parent-check",
        "-U",
        "postgres",
        "-p",
        "5432",
        "-h",
    ]);
    let output = command.arg(server.run.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.is_empty(), "pg_amcheck: {out}{err}");
}

/// A server in the very directory that was restored to. Killed when dropped.
pub struct InPlace {
    child: std::process::Child,
    run: tempfile::TempDir,
}

impl InPlace {
    pub fn url(&self, database: &str) -> String {
        let host = self.run.path().display().to_string().replace('/', "%2F");
        format!("postgresql:///{database}?host={host}&user=postgres")
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        // Immediate shutdown, as nobody wants the checkpoint.
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).ok();
        self.child.wait().ok();
    }
}

/// Starts a server in what was restored, with its own configuration but for the place of its socket.
pub fn start(installation: &Installation, directory: &Path) -> InPlace {
    start_with(installation, directory, &[])
}

/// As [`start`], with settings on the command line.
pub fn start_with(installation: &Installation, directory: &Path, settings: &[String]) -> InPlace {
    let run = tempfile::Builder::new().prefix("oxrun-").tempdir().unwrap();
    let metadata = std::fs::metadata(directory).unwrap();
    let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata));
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(run.path(), Some(uid), Some(gid)).unwrap();
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).arg("--clear-groups");
    }
    command.args(["--pdeathsig", "QUIT", "--"]).arg(installation.bin_dir.join("postgres")).arg("-D").arg(directory);
    for setting in ["listen_addresses=", "port=5432", &format!("unix_socket_directories={}", run.path().display())] {
        command.arg("-c").arg(setting);
    }
    let log = run.path().join("log");
    let out = std::fs::File::create(&log).unwrap();
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    command.stdin(std::process::Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).env("LC_ALL", "C");
    let mut server = InPlace { child: command.spawn().unwrap(), run };
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the restored server accepts connections", || {
        if let Some(status) = server.child.try_wait().unwrap() {
            panic!("the restored server ended with {status}:\n{}", said());
        }
        said().contains("database system is ready to accept connections")
    });
    server
}

/// What a [`Load`] does.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Transfer,
    CreateTable,
    CreateIndex,
    VacuumFull,
    Truncate,
    DropTable,
    CreateDatabase,
    DropDatabase,
}

/// Each kind of change.
pub const CHANGES: [Change; 8] = [
    Change::Transfer,
    Change::CreateTable,
    Change::CreateIndex,
    Change::VacuumFull,
    Change::Truncate,
    Change::DropTable,
    Change::CreateDatabase,
    Change::DropDatabase,
];

/// How often each kind of change was done.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; CHANGES.len()]);

impl Counts {
    fn did(&self, change: Change) {
        self.0[change as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So far.
    pub fn now(&self) -> [u64; CHANGES.len()] {
        std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed))
    }
}

/// What one session of a [`Load`] does until it is told to stop.
type Session = fn(&str, &AtomicBool, &Counts);

/// What goes on while a backup is made.
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Transfers between accounts, whose sum never changes, on some sessions; and one that makes, fills, truncates, rewrites and drops
    /// tables and databases.
    pub fn start(cluster: &ScratchCluster) -> Self {
        let sql = Sql::connect(&cluster.url("postgres"));
        sql.run(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL, filler text) WITH (fillfactor = 70); \
             INSERT INTO account SELECT n, 100, repeat('x', 200) FROM generate_series(1, 5000) n; \
             CREATE TABLE movement (at timestamptz DEFAULT clock_timestamp(), a int, b int, amount int); \
             CREATE DATABASE passing",
        );
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let spawn = |does: Session| {
            let (stop, counts, url) = (Arc::clone(&stop), Arc::clone(&counts), cluster.url("postgres"));
            std::thread::spawn(move || does(&url, &stop, &counts))
        };
        let threads = vec![
            spawn(|url, stop, counts| transfers(url, stop, counts, 0)),
            spawn(|url, stop, counts| transfers(url, stop, counts, 1)),
            spawn(schema_changes),
        ];
        Self { stop, counts, threads }
    }

    /// What was done so far, to be looked at meanwhile.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Ends it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// What every moment's state of a cluster under [`Load`] fulfils.
pub fn check_load(url: impl Fn(&str) -> String) {
    let sql = Sql::connect(&url("postgres"));
    assert_eq!(sql.one("SELECT sum(balance), count(*) FROM account"), "500000|5000");
    let off = "SELECT count(*) FROM account a WHERE balance <> 100 \
         - (SELECT coalesce(sum(amount), 0) FROM movement WHERE a = a.id) + (SELECT coalesce(sum(amount), 0) FROM movement WHERE b = a.id)";
    sql.run("CREATE INDEX ON movement (a); CREATE INDEX ON movement (b)");
    assert_eq!(sql.one(off), "0");
    // A DROP DATABASE that was cut short leaves one that can't be opened (-2), as it would by a crash.
    for database in sql.rows("SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2") {
        // Every page of every table and index of every database can be read.
        Sql::connect(&url(&database)).run("VACUUM (FREEZE)");
    }
}

fn transfers(url: &str, stop: &AtomicBool, counts: &Counts, seed: u32) {
    let sql = Sql::connect(url);
    let mut n = u64::from(seed) + 1;
    while !stop.load(Ordering::Relaxed) {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // In one order, so that two sessions never wait for each other.
        let (one, other) = ((n >> 33) % 5000 + 1, (n >> 45) % 5000 + 1);
        let (a, b) = (one.min(other), one.max(other));
        sql.run(&format!(
            "BEGIN; UPDATE account SET balance = balance - 1 WHERE id = {a}; UPDATE account SET balance = balance + 1 WHERE id = {b}; \
             INSERT INTO movement (a, b, amount) VALUES ({a}, {b}, 1); COMMIT"
        ));
        counts.did(Change::Transfer);
    }
}

fn schema_changes(url: &str, stop: &AtomicBool, counts: &Counts) {
    let sql = Sql::connect(url);
    let run = |text: String, change: Change| {
        sql.run(&text);
        counts.did(change);
    };
    // Tables stay for a while before they go; the last of them are there at the end.
    for done in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let n = done % 7;
        run(
            format!("CREATE TABLE t{n} AS SELECT g AS id, repeat('y', 100) AS text FROM generate_series(1, 3000) g"),
            Change::CreateTable,
        );
        run(format!("CREATE INDEX ON t{n} (id)"), Change::CreateIndex);
        run(format!("VACUUM FULL t{n}"), Change::VacuumFull);
        sql.run(&format!("UPDATE t{n} SET id = id + 1; CREATE UNLOGGED TABLE u{n} AS SELECT 1 AS id"));
        run(format!("TRUNCATE t{n}"), Change::Truncate);
        sql.run(&format!("INSERT INTO t{n} VALUES (1, 'z')"));
        run(format!("DROP TABLE u{n}"), Change::DropTable);
        if n % 3 == 0 {
            run("DROP DATABASE passing".to_owned(), Change::DropDatabase);
            run("CREATE DATABASE passing".to_owned(), Change::CreateDatabase);
        }
        if n > 3 {
            sql.run(&format!("DROP TABLE IF EXISTS t{}", n - 4));
        }
        sql.run(&format!("DROP TABLE IF EXISTS t{}", (done + 1) % 7));
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
