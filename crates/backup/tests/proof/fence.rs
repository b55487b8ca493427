//! Each line of the fence: what a restored cluster would do to production, and does not.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use backup::proof::{FenceLimits, ProofQuery, ProveOptions, Verdict};
use scratch::{Installation, ScratchCluster};

use crate::source::{Source, on};

/// Everything below a directory: paths and contents.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.push((path.clone(), Vec::new()));
                pending.push(path);
            } else {
                found.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn without(options: &ProveOptions, no_namespaces: bool, no_landlock: bool) -> ProveOptions {
    ProveOptions { fence: FenceLimits { no_namespaces, no_landlock }, ..options.clone() }
}

/// The outage of the field notes: replayed on the same host, CREATE TABLESPACE makes a link to the live directory.
fn a_replayed_create_tablespace_does_not_touch_the_live_one(installation: &Installation) {
    let source = Source::start(installation, &[]);
    let live = source.directory("live");
    let backup = source.back_up(|source| {
        source.execute(&format!("CREATE TABLESPACE space LOCATION '{}'", live.display()));
        source.execute("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 20000) AS id");
    });
    // What production did since is only in its files.
    source.execute("DELETE FROM t WHERE id <= 10000");
    source.execute("VACUUM t");
    source.execute("CHECKPOINT");
    let before = contents(&live);
    let mut options = source.options();
    options.queries = vec![ProofQuery {
        database: "postgres".into(),
        sql: "SELECT count(*) FROM t".into(),
        expect: Some("20000".into()),
    }];
    let receipt = source.prove(&backup, &options);
    assert_eq!(contents(&live), before, "the live tablespace changed");
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert_eq!(receipt.fence.unwrap().rebound_tablespaces, [live.display().to_string()]);

    // Without a mount namespace the server is not even started.
    for weak in [without(&options, true, false), without(&options, true, true)] {
        let receipt = source.prove(&backup, &weak);
        assert_eq!(contents(&live), before, "the live tablespace changed");
        assert_eq!(receipt.verdict, Verdict::NotProven, "{receipt:#?}");
        assert!(receipt.reasons[0].contains("creates tablespace"), "{receipt:#?}");
        assert_eq!(receipt.recovery_time_ms, None);
    }

    // The directory need not be on the host of the proof.
    source.execute("DROP TABLE t");
    source.execute("DROP TABLESPACE space");
    fs::remove_dir_all(&live).unwrap();
    let receipt = source.prove(&backup, &options);
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert!(!live.exists());
}

on_each!(a_replayed_create_tablespace_does_not_touch_the_live_one);

/// An unmapped tablespace_map, links to the live directory, and a DROP DATABASE that empties directories there.
fn an_unmapped_tablespace_is_refused_and_a_replayed_drop_database_stays_inside(installation: &Installation) {
    let source = Source::start(installation, &[]);
    let live = source.directory("live");
    source.execute(&format!("CREATE TABLESPACE space LOCATION '{}'", live.display()));
    source.execute("CREATE DATABASE doomed TABLESPACE space");
    let oid = source.text("SELECT oid::text FROM pg_tablespace WHERE spcname = 'space'");
    let database = source.text("SELECT oid::text FROM pg_database WHERE datname = 'doomed'");
    source.execute("CREATE TABLE kept TABLESPACE space AS SELECT generate_series(1, 1000) AS id");
    source.execute("CHECKPOINT");
    let copy = source.room.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&live).arg(&copy).status().unwrap();
    assert!(copied.success());
    let backup = source.back_up(|source| source.execute("DROP DATABASE doomed"));
    let version_dir = fs::read_dir(&live).unwrap().next().unwrap().unwrap().path();
    // If replay reached the live directory, this would go.
    fs::create_dir_all(version_dir.join(&database)).unwrap();
    fs::write(version_dir.join(&database).join("precious"), "x").unwrap();
    let before = contents(&live);

    let receipt = source.prove(&backup, &source.options());
    assert_eq!(receipt.verdict, Verdict::NotProven, "{receipt:#?}");
    assert!(receipt.reasons[0].contains("lead out"), "{receipt:#?}");
    assert_eq!(contents(&live), before);

    // The links taken away, tablespace_map would make them again.
    let command = format!("cp -a {}/. {{pgdata}} && rm {{pgdata}}/pg_tblspc/*", backup.display());
    let receipt = source.prove_with(&command, &source.options());
    assert!(receipt.reasons[0].contains("tablespace_map"), "{receipt:#?}");
    assert_eq!(contents(&live), before);

    // Mapped, as tools do it.
    let command = format!(
        "cp -a {}/. {{pgdata}} && cp -a {} {{scratch}}/ts && ln -sfn {{scratch}}/ts {{pgdata}}/pg_tblspc/{oid}",
        backup.display(),
        copy.display()
    );
    let mut options = source.options();
    options.queries = vec![ProofQuery {
        database: "postgres".into(),
        sql: "SELECT count(*), (SELECT count(*) FROM pg_database WHERE datname = 'doomed') FROM kept".into(),
        expect: Some("1000|0".into()),
    }];
    for limits in [(false, false), (true, false)] {
        let receipt = source.prove_with(&command, &without(&options, limits.0, limits.1));
        assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
        assert_eq!(contents(&live), before);
    }
}

on_each!(an_unmapped_tablespace_is_refused_and_a_replayed_drop_database_stays_inside);

/// A place where everything that must not happen leaves a trace.
struct Traps {
    dir: PathBuf,
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Traps {
    fn set(source: &Source) -> Self {
        let dir = source.room.path().join("traps");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let unix = UnixListener::bind(dir.join(".s.PGSQL.5432")).unwrap();
        fs::set_permissions(dir.join(".s.PGSQL.5432"), fs::Permissions::from_mode(0o777)).unwrap();
        let (seen, seen_too) = (connections.clone(), connections.clone());
        // They end with the process.
        std::thread::spawn(move || {
            tcp.incoming().for_each(|_| {
                seen.fetch_add(1, Ordering::SeqCst);
            });
        });
        std::thread::spawn(move || {
            unix.incoming().for_each(|_| {
                seen_too.fetch_add(1, Ordering::SeqCst);
            });
        });
        Self { dir, port, connections }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// What went off.
    fn sprung(&self) -> Vec<String> {
        let names = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        if self.connections.load(Ordering::SeqCst) > 0 {
            names.push("connected".to_owned());
        }
        names
    }

    /// Waits until all of these went off: the traps work.
    fn await_sprung(&self, wanted: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !wanted.iter().all(|name| self.sprung().contains(&(*name).to_owned())) {
            assert!(Instant::now() < deadline, "only {:?} of {wanted:?} went off", self.sprung());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn clear(&self) {
        for name in self.sprung() {
            let _ = fs::remove_file(self.dir.join(name));
        }
        self.connections.store(0, Ordering::SeqCst);
    }
}

fn no_trap_goes_off(installation: &Installation) {
    // The source itself must not spring them.
    let source = Source::start(installation, &[("max_logical_replication_workers", "0"), ("archive_mode", "off")]);
    let traps = Traps::set(&source);
    source.execute("CREATE DATABASE app");
    let app = source.client("app");
    source.sql(&app, "CREATE TABLE t AS SELECT generate_series(1, 100) AS id");
    for (name, host) in [("by_tcp", "127.0.0.1"), ("by_socket", traps.dir.to_str().unwrap())] {
        let port = if name == "by_tcp" { traps.port } else { 5432 };
        source.sql(
            &app,
            &format!(
                "CREATE SUBSCRIPTION {name} CONNECTION 'host={host} port={port} user=x dbname=x' PUBLICATION p \
                 WITH (connect = false, slot_name = '{name}'); ALTER SUBSCRIPTION {name} ENABLE"
            ),
        );
    }
    let touch = |name: &str| {
        format!(
            "CREATE FUNCTION {name}() RETURNS event_trigger LANGUAGE plpgsql AS \
             $$ BEGIN COPY (SELECT 1) TO PROGRAM 'cat > {}'; END $$",
            traps.file(name)
        )
    };
    let mut expected = vec!["archive", "connected", "ddl", "recovery_end"];
    source.sql(&app, &touch("ddl"));
    source.sql(&app, "CREATE EVENT TRIGGER ddl ON ddl_command_start EXECUTE FUNCTION ddl()");
    if source.major() >= 17 {
        expected.push("login");
        source.sql(&app, &touch("login").replace("CREATE FUNCTION", "SET event_triggers = off; CREATE FUNCTION"));
        source.sql(
            &app,
            "CREATE EVENT TRIGGER login ON login EXECUTE FUNCTION login(); ALTER EVENT TRIGGER login ENABLE ALWAYS",
        );
        source.execute("ALTER DATABASE app SET event_triggers = on");
    }
    traps.clear();
    let backup = source.back_up(|_| {});
    let conninfo = format!("host=127.0.0.1 port={} user=x", traps.port);
    source.write(
        &backup.join("postgresql.auto.conf"),
        &format!(
            "archive_mode = always\narchive_command = 'touch {}'\nrecovery_end_command = 'touch {}'\nrestore_command = 'false'\n\
             archive_cleanup_command = 'touch {}'\nprimary_conninfo = '{conninfo}'\nprimary_slot_name = 'x'\n\
             max_logical_replication_workers = 4\n",
            traps.file("archive"),
            traps.file("recovery_end"),
            traps.file("archive_cleanup"),
        ),
    );

    // The control: a server that nobody fences springs them all.
    {
        source.write(&backup.join("recovery.signal"), "");
        let loose = ScratchCluster::builder(installation).template_of(&backup).start().unwrap();
        let client = source.client_of(&loose, "app");
        let deadline = Instant::now() + Duration::from_secs(60);
        // Read-only until it is promoted.
        while source.try_sql(&client, "CREATE TABLE x (id int)").is_err() {
            assert!(Instant::now() < deadline, "{}", loose.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        source.sql(&client, "SELECT pg_switch_wal()");
        traps.await_sprung(&expected);
    }
    traps.clear();

    // And libraries, in every place that can name one: a server or session that tried to load it would fail.
    fs::remove_file(backup.join("recovery.signal")).unwrap();
    fs::write(backup.join("standby.signal"), "").unwrap();
    let conf = fs::read_to_string(backup.join("postgresql.auto.conf")).unwrap();
    let libraries = "shared_preload_libraries = 'no_such'\nsession_preload_libraries = 'no_such'\nlocal_preload_libraries = 'no_such'\n";
    fs::write(backup.join("postgresql.auto.conf"), format!("{conf}{libraries}")).unwrap();
    let main_conf = fs::read_to_string(backup.join("postgresql.conf")).unwrap();
    fs::write(
        backup.join("postgresql.conf"),
        format!("{main_conf}\nhba_file = '/no/such'\nexternal_pid_file = '{}'\n", traps.file("pid")),
    )
    .unwrap();
    let mut options = source.options();
    options.queries =
        vec![ProofQuery { database: "app".into(), sql: "SELECT count(*) FROM t".into(), expect: Some("100".into()) }];
    for limits in [(false, false), (true, false), (true, true)] {
        let receipt = source.prove(&backup, &without(&options, limits.0, limits.1));
        assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
        assert_eq!(traps.sprung(), Vec::<String>::new(), "{limits:?}");
        let fence = receipt.fence.unwrap();
        assert_eq!(fence.own_root, !limits.0, "{fence:?}");
        assert_eq!(fence.landlock, !limits.1, "{fence:?}");
        assert_eq!(fence.gaps.is_empty(), limits == (false, false) && fence.memory_bytes.is_some(), "{fence:?}");
    }
}

on_each!(no_trap_goes_off);

/// Libraries that the catalogues attach to databases and roles.
fn libraries_of_databases_and_roles_are_not_loaded(installation: &Installation) {
    let source = Source::start(installation, &[]);
    source.execute("CREATE DATABASE app");
    let postgres = source.client("postgres");
    source.sql(&postgres, "ALTER DATABASE app SET session_preload_libraries = 'no_such'");
    source.sql(&postgres, "ALTER DATABASE app SET default_transaction_read_only = on");
    source.sql(&postgres, "ALTER ROLE postgres SET local_preload_libraries = 'no_such'");
    source.sql(&postgres, "ALTER ROLE postgres SET statement_timeout = '1ms'");
    // Nobody comes in any more, so that the session from before has to make the backup.
    let backup = source.back_up_by(&postgres, |_| {});
    let receipt = source.prove(&backup, &source.options());
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
}

on_each!(libraries_of_databases_and_roles_are_not_loaded);

/// From inside of the fence nothing of the host can be seen or reached that is not needed.
#[test]
fn inside_of_the_fence_there_is_no_data_no_network_and_no_other_process() {
    on(18, |installation| {
        let source = Source::start(installation, &[]);
        let secret = source.room.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let backup = source.back_up(|_| {});
        let mut options = source.options();
        let query =
            |sql: String, expect: &str| ProofQuery { database: "postgres".into(), sql, expect: Some(expect.into()) };
        options.queries = vec![
            query(format!("SELECT count(*) FROM pg_stat_file('{}', true) AS s WHERE s.size IS NOT NULL", secret.display()), "0"),
            query(
                "CREATE TEMP TABLE seen (line text); COPY seen FROM PROGRAM 'ls /'; \
                 SELECT string_agg(line, ',' ORDER BY line) FROM seen WHERE line IN ('home', 'root', 'run', 'srv', 'var', 'work', 'mnt')"
                    .into(),
                if source.room.path().starts_with("/var") { "var" } else { "" },
            ),
            query("CREATE TEMP TABLE up (line text); COPY up FROM PROGRAM 'touch /usr/oxproof /etc/oxproof /tmp/oxproof 2>&1 | wc -l'; SELECT line FROM up".into(), "3"),
            query(
                "CREATE TEMP TABLE pids (line text); COPY pids FROM PROGRAM 'kill -0 1 && echo first || echo none'; SELECT line FROM pids".into(),
                "first",
            ),
        ];
        let receipt = source.prove(&backup, &options);
        let testbed = installation.bin_dir.starts_with("/var");
        for query in &receipt.queries {
            // The testbed's server lies below /var: that one directory of it is there.
            let expected =
                if testbed && query.sql.contains("'var'") { "var" } else { query.expected.as_deref().unwrap() };
            assert_eq!(query.got.trim(), expected, "{query:#?}");
        }
    });
}
