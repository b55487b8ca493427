//! WAL archived, received and brought back by the program, with real servers and real recoveries.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use scratch::{Installation, ScratchCluster};
use serde_json::Value;

use crate::harness::{PATIENCE, Place, newest, oxpecker, said};

/// The newest version's server archives with the program of this place; all of it may be used by the server's user.
pub struct Scene {
    pub place: Place,
    pub cluster: ScratchCluster,
}

pub fn sql(cluster: &ScratchCluster, statements: &[&str]) -> String {
    try_sql(cluster, statements).unwrap_or_else(|error| panic!("{statements:?}: {error}\n{}", cluster.log_tail()))
}

pub fn try_sql(cluster: &ScratchCluster, statements: &[&str]) -> Result<String, tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let mut last = String::new();
        for statement in statements {
            let rows = client.simple_query(statement).await?;
            last = rows
                .iter()
                .find_map(|row| match row {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default();
        }
        Ok(last)
    })
}

pub fn until(what: &str, log: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "in vain waited for: {what}\n{}", log());
        thread::sleep(Duration::from_millis(50));
    }
}

pub fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", said(&done));
}

impl Scene {
    fn set() -> Option<Self> {
        Some(Self::on(&newest()?))
    }

    pub fn on(installation: &Installation) -> Self {
        let place = Place::new();
        let builder = ScratchCluster::builder(installation).initdb_args(["--wal-segsize=1"]);
        let builder = builder.setting("archive_mode", "on").setting("autovacuum", "off");
        let builder = builder.setting("max_slot_wal_keep_size", "2GB").setting("wal_keep_size", "1GB");
        let cluster = builder.start().unwrap();
        let repository = place.path().join("repository");
        let key = place.path().join("repository.key");
        let more = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n", repository.display());
        place.configure(&cluster.url("postgres"), &more);
        place.json(&["backup", "init"]);
        let program = place.path().join("oxpecker");
        let built = env!("CARGO_BIN_EXE_oxpecker");
        if fs::hard_link(built, &program).is_err() {
            fs::copy(built, &program).unwrap();
        }
        let scene = Self { place, cluster };
        scene.give();
        scene
    }

    /// Gives everything to the server's user; the program itself may be another's.
    pub fn give(&self) {
        let owner = fs::metadata(self.cluster.data_dir()).unwrap();
        let mut command = Command::new("chown");
        command.arg("-R").arg(format!("{}:{}", owner.uid(), owner.gid()));
        for name in ["oxpecker.toml", "repository", "repository.key", "state"] {
            command.arg(self.place.path().join(name));
        }
        run(&mut command);
        run(Command::new("chown").arg(format!("{}:{}", owner.uid(), owner.gid())).arg(self.place.path()));
    }

    pub fn command(&self, words: &str) -> String {
        let dir = self.place.path().display();
        format!("{dir}/oxpecker --config {dir}/oxpecker.toml {words}")
    }

    pub fn archive(&self) {
        let set = format!("alter system set archive_command = '{}'", self.command("wal push %p"));
        sql(&self.cluster, &[&set, "select pg_reload_conf()"]);
    }

    /// A copy of the data directory, taken while the server is stopped.
    pub fn base(&mut self) -> tempfile::TempDir {
        self.cluster.stop_fast().unwrap();
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("cp").arg("-a").arg(self.cluster.data_dir()).arg(dir.path().join("data")));
        self.cluster.start_again().unwrap();
        dir
    }

    /// Recovers a copy of `base` with everything that `wal get` gives it.
    pub fn recover(&self, base: &Path, get: &str) -> Result<ScratchCluster, String> {
        self.recover_by(base, &self.command(&format!("wal get {get} %f %p")))
    }

    /// As [`Scene::recover`], with another command.
    pub fn recover_by(&self, base: &Path, command: &str) -> Result<ScratchCluster, String> {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        run(Command::new("cp").arg("-a").arg(base.join("data")).arg(&data));
        fs::write(data.join("recovery.signal"), "").unwrap();
        let _ = fs::remove_file(data.join("postgresql.auto.conf"));
        let builder = ScratchCluster::builder(self.cluster.installation()).template_of(&data);
        let builder = builder.setting("restore_command", command);
        let builder = builder.setting("archive_mode", "off").setting("autovacuum", "off");
        let recovered = builder.start().map_err(|error| error.to_string())?;
        let began = Instant::now();
        loop {
            let log = recovered.log_tail();
            if log.contains("database system is shut down") && log.contains("FATAL") {
                return Err(log);
            }
            if try_sql(&recovered, &["select pg_is_in_recovery()"]).is_ok_and(|said| said == "f") {
                return Ok(recovered);
            }
            assert!(began.elapsed() < PATIENCE, "it neither ends nor stops: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Objects of whole segments in the repository, in the order of WAL.
    pub fn segments(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.place.path().join("repository/wal"), &mut found);
        let digits = |name: &str| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        found.retain(|path| digits(path.file_name().unwrap().to_str().unwrap()));
        found.sort();
        found
    }
}

/// `oxpecker wal receive` as a process.
pub struct Receiver {
    child: Child,
    lines: mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

impl Receiver {
    pub fn start(scene: &Scene) -> Self {
        let config = scene.place.path().join("oxpecker.toml");
        let mut command = Command::new(scene.place.path().join("oxpecker"));
        command.env_clear().current_dir(scene.place.path()).stdin(Stdio::null());
        command.arg("--config").arg(config).args(["wal", "receive", "--output", "json", "--flush-every", "50ms"]);
        let log = fs::OpenOptions::new().create(true).append(true).open(scene.place.path().join("guard.log")).unwrap();
        // What it makes in the repository, the archive command has to write to.
        if rustix::process::geteuid().is_root() {
            let owner = fs::metadata(scene.cluster.data_dir()).unwrap();
            command.uid(owner.uid()).gid(owner.gid());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        while !self.seen.iter().any(&is_it) {
            assert!(began.elapsed() < PATIENCE, "in vain waited for: {what}; {:#?}", self.seen);
            if let Ok(line) = self.lines.recv_timeout(Duration::from_millis(200)) {
                self.seen.push(line);
            }
        }
    }

    pub fn until_durable(&mut self, cluster: &ScratchCluster) {
        let query = "select count(*) from pg_stat_replication where flush_lsn >= pg_current_wal_flush_lsn()";
        until(
            "WAL is received",
            || format!("{:#?}\n{}", self.seen, cluster.log_tail()),
            || sql(cluster, &[query]) != "0",
        );
    }

    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not stop");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub const ROWS: &str = "insert into ledger select g, repeat(md5(random()::text), 8) from generate_series(1, 3000) g";

/// Both roads run side by side for a while, the receiver is killed in between, and then the server is lost. Gives what it had.
pub fn lost_server(scene: &mut Scene) -> (tempfile::TempDir, String) {
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let base = scene.base();
    let mut receiver = Receiver::start(scene);
    receiver.until("a connection", |line| line["event"] == "connected" && line["schema"] == 1);
    scene.archive();
    for _ in 0..4 {
        sql(&scene.cluster, &[ROWS, "select pg_switch_wal()"]);
    }
    receiver.until_durable(&scene.cluster);
    receiver.kill9();
    for _ in 0..4 {
        sql(&scene.cluster, &[ROWS, "select pg_switch_wal()"]);
    }
    let mut receiver = Receiver::start(scene);
    let archived = "select last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1048576) from pg_stat_archiver";
    sql(&scene.cluster, &["insert into ledger values (0, 'whole')", "select pg_switch_wal()"]);
    sql(&scene.cluster, &["insert into ledger values (0, 'the last second')"]);
    until("all is archived", || scene.cluster.log_tail(), || sql(&scene.cluster, &[archived]) == "t");
    receiver.until_durable(&scene.cluster);
    receiver.until("progress", |line| line["event"] == "progress");
    let failed = sql(&scene.cluster, &["select failed_count from pg_stat_archiver"]);
    assert_eq!(failed, "0", "{}", scene.cluster.log_tail());
    // The server is lost, and what it had not archived is there all the same.
    let rows = sql(&scene.cluster, &["select count(*) from ledger"]);
    scene.cluster.kill9().unwrap();
    assert_eq!(receiver.stop(), Some(0), "{}", scene.place.log());
    (base, rows)
}

pub fn assert_recovers(scene: &Scene, base: &Path, get: &str, rows: &str) {
    let recovered = scene.recover(base, get).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(sql(&recovered, &["select count(*) from ledger"]), rows, "{}", recovered.log_tail());
    assert_eq!(sql(&recovered, &["select count(*) from ledger where x = 'the last second'"]), "1");
    let spool = recovered.data_dir().join("pg_wal/oxpecker-spool");
    assert_eq!(spool.exists(), !get.contains("--ahead 0"), "what is fetched ahead");
}

#[test]
fn both_roads_make_one_copy_that_recovers_to_the_last_second() {
    let Some(installation) = newest() else { return };
    both_roads_make_one_copy(&installation);
}

pub fn both_roads_make_one_copy(installation: &Installation) {
    let mut scene = Scene::on(installation);
    let (base, rows) = lost_server(&mut scene);
    assert_recovers(&scene, base.path(), "--ahead 4", &rows);
    // Down from the beginning: the recovery stops, and nobody promotes.
    let (away, stored) = (scene.place.path().join("away"), scene.place.path().join("repository"));
    fs::rename(&stored, &away).unwrap();
    assert_stopped(&scene.recover(base.path(), "--patience 100ms").unwrap_err());
    fs::rename(&away, &stored).unwrap();
    // A gap.
    let segments = scene.segments();
    assert!(segments.len() >= 8, "{segments:?}");
    fs::remove_file(&segments[4]).unwrap();
    assert_stopped(&scene.recover(base.path(), "--patience 100ms").unwrap_err());
}

pub fn no_recovery_ends_before_the_end_of_wal(installation: &Installation) {
    let mut scene = Scene::on(installation);
    let (base, rows) = lost_server(&mut scene);
    for ahead in [0, 1, 64] {
        assert_recovers(&scene, base.path(), &format!("--ahead {ahead}"), &rows);
    }
    // A mistake in the command, a wrong key.
    assert_stopped(&scene.recover(base.path(), "--no-such-flag").unwrap_err());
    let key = scene.place.secret("other.key", &"1234567890abcdef".repeat(4));
    run(Command::new("chmod").arg("644").arg(&key));
    assert_stopped(&scene.recover(base.path(), &format!("--patience 100ms --key-file {}", key.display())).unwrap_err());
    // Segments that are garbled, cut off, or missing while later ones are there.
    let segments = scene.segments();
    // Some of the first lie before the base.
    for victim in [&segments[segments.len() / 2], &segments[segments.len() - 3]] {
        let whole = fs::read(victim).unwrap();
        let mut garbled = whole.clone();
        let middle = garbled.len() / 2;
        garbled[middle] ^= 1;
        for damage in [&garbled[..], &whole[..middle], &whole[..10], &[]] {
            replace(victim, damage);
            match scene.recover(base.path(), "--patience 100ms") {
                Ok(went_on) => panic!("{} of {} bytes: {}", victim.display(), damage.len(), went_on.log_tail()),
                Err(log) => assert_stopped(&log),
            }
        }
        fs::remove_file(victim).unwrap();
        assert_stopped(&scene.recover(base.path(), "--patience 100ms").unwrap_err());
        replace(victim, &whole);
    }
    // The repository goes away and comes back while a recovery asks: it waits, and ends where it should.
    let (away, stored) = (scene.place.path().join("away"), scene.place.path().join("repository"));
    fs::rename(&stored, &away).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            fs::rename(&away, &stored).unwrap();
        });
        assert_recovers(&scene, base.path(), "--patience 60s", &rows);
    });
}

/// Objects are read-only files.
pub fn replace(path: &Path, bytes: &[u8]) {
    let owner = fs::metadata(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// The recovery ended with an error and not with a promotion.
pub fn assert_stopped(log: &str) {
    assert!(log.contains("from archive"), "{log}");
    assert!(!log.contains("selected new timeline") && !log.contains("archive recovery complete"), "{log}");
}

#[test]
fn exit_codes_of_get_and_push_are_what_postgres_reads() {
    let Some(scene) = Scene::set() else { return };
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let data = scene.cluster.data_dir();
    let ask = |words: &[&str]| {
        let mut command = oxpecker();
        command.current_dir(&data).arg("--config").arg(scene.place.path().join("oxpecker.toml")).args(words);
        command.output().unwrap()
    };
    let target = scene.place.path().join("target");
    let target = target.to_str().unwrap();
    let get = |name: &str| {
        let output = ask(&["wal", "get", "--patience", "10ms", "--ahead", "0", "--data-dir", ".", name, target]);
        (output.status.code(), said(&output))
    };
    let first = sql(&scene.cluster, &["select pg_walfile_name(pg_current_wal_lsn())"]);
    let path = format!("pg_wal/{first}");
    // Nothing there: certain, and so said.
    for name in [&first, "00000002.history", &format!("{first}.partial"), &format!("{first}.00000028.backup")] {
        assert_eq!(get(name).0, Some(1), "{}", get(name).1);
    }
    sql(&scene.cluster, &["insert into ledger values (1, 'x')", "select pg_switch_wal()"]);
    let pushed = ask(&["wal", "push", &path, "--output", "json"]);
    assert_eq!(pushed.status.code(), Some(0), "{}", said(&pushed));
    assert_eq!(serde_json::from_slice::<Value>(&pushed.stdout).unwrap()["stored"], true);
    let again = ask(&["wal", "push", &path, "--output", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout).unwrap()["stored"], false);
    // Those that wait behind are stored by the same call, and are there when their own calls come.
    let name = || sql(&scene.cluster, &["select pg_walfile_name(pg_current_wal_lsn())"]);
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(name());
        sql(&scene.cluster, &["insert into ledger values (1, 'x')", "select pg_switch_wal()"]);
    }
    for (segment, (stored, ahead)) in waiting.iter().zip([(true, 3), (false, 0), (false, 0), (false, 0)]) {
        let pushed = ask(&["wal", "push", &format!("pg_wal/{segment}"), "--output", "json"]);
        let said: Value = serde_json::from_slice(&pushed.stdout).unwrap();
        assert_eq!((&said["stored"], &said["ahead"]), (&stored.into(), &ahead.into()), "{said}");
    }
    assert_eq!(get(&first).0, Some(0), "{}", get(&first).1);
    assert!(fs::read(target).unwrap() == fs::read(data.join(&path)).unwrap());

    // The same name with other content stops the archiving; a file that is none, or cut off, is refused.
    let other = scene.place.path().join("pg_wal");
    fs::create_dir_all(&other).unwrap();
    run(Command::new("cp").arg("-a").arg(data.join("global")).arg(scene.place.path()));
    let file = other.join(&first);
    let mut bytes = fs::read(data.join(&path)).unwrap();
    bytes[100_000] ^= 1;
    let push = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let output = ask(&["wal", "push", file.to_str().unwrap()]);
        (output.status.code(), said(&output))
    };
    let (code, text) = push(&bytes);
    assert!(code == Some(3) && text.contains("with other content"), "{text}");
    let (code, text) = push(&bytes[..5000]);
    assert!(code == Some(4) && text.contains("it has 5000 bytes"), "{text}");
    bytes[8] ^= 1;
    let (code, text) = push(&bytes);
    assert!(code == Some(4) && text.contains("holds WAL from"), "{text}");
    assert_eq!(ask(&["wal", "push", "pg_wal/archive_status"]).status.code(), Some(4));
    assert_eq!(get(&first).0, Some(0));

    // Everything that is not an answer is above 125, and not 143.
    let usage: [&[&str]; 4] = [
        &["wal", "get"],
        &["wal", "get", "--nonsense", &first, target],
        &["wal", "get", "nonsense", target],
        &["--config", "/nonexistent", "wal", "get", &first, target],
    ];
    for words in usage {
        let output = ask(words);
        assert_eq!(output.status.code(), Some(126), "{words:?}: {}", said(&output));
    }
    let stored = scene.place.path().join("repository");
    fs::rename(&stored, scene.place.path().join("away")).unwrap();
    for name in [&first[..], "00000002.history"] {
        assert_eq!(get(name).0, Some(126), "{}", get(name).1);
    }
    let standby = ask(&["wal", "get", "--standby", "--patience", "10ms", "--ahead", "0", &first, "pg_wal/x"]);
    assert_eq!(standby.status.code(), Some(1), "{}", said(&standby));
    let standby = ask(&["wal", "get", "--standby", "--patience", "10ms", "00000002.history", "pg_wal/x"]);
    assert_eq!(standby.status.code(), Some(126), "{}", said(&standby));
}
