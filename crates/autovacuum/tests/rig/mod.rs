//! What the tests on real servers share: a cluster with a large table, a governor, and readings of it. Pressure is what a test says
//! it is; workers, their CPU and all that the governor does to them are real.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use autovacuum::{Governor, GovernorOptions, Limits, ReleaseCommand, host_process};
use jiff::Timestamp;
use model::{
    EventKind, Mode, Moment, Observation, PgVersion, Pid, ProcessId, Reading, Share,
    reading::{
        ActivityReading, AgeReading, CgroupLimits, Connections, CpuShares, HostReading, LockWaits, Memory, OwnCost,
        Pressure, TablesReading, VacuumKind, VacuumReading,
    },
};
use scratch::{ScratchCluster, installation};
use tokio_postgres::{Client, NoTls};

/// `autovacuum_vacuum_cost_limit` of these clusters.
pub const PACE: u32 = 200;
/// Rows of a table whose vacuum outlasts what a test does before it is held: fewer at a slower pace would use too little CPU to tell a
/// held worker from a free one.
pub const ROWS: u32 = 600_000;
/// Every wait of a test ends here.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn now() -> Moment {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment { wall: Timestamp::now(), boot_us: boot.tv_sec as u64 * 1_000_000 + boot.tv_nsec as u64 / 1_000 }
}

pub async fn connect(url: &str) -> Arc<Client> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, link)) => {
                tokio::spawn(link);
                return Arc::new(client);
            }
            Err(error) => assert!(Instant::now() < deadline, "could not connect: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the release worker of these tests is.
#[tokio::test(flavor = "current_thread")]
#[ignore = "started by the other tests as the release worker"]
async fn release_worker_stand_in() {
    autovacuum::release_worker::run(tokio::io::BufReader::new(tokio::io::stdin())).await.unwrap();
}

/// How it is started.
pub fn release_worker() -> Option<ReleaseCommand> {
    Some(this_binary("rig::release_worker_stand_in"))
}

/// A cluster that reads the include file, and a session of its owner.
pub struct Server {
    pub cluster: ScratchCluster,
    pub include: PathBuf,
    pub url: String,
    pub client: Arc<Client>,
}

/// [`cluster`] with the owner's consent: the line is there and the server has read it.
pub async fn server(major: u32, settings: &[(&str, &str)]) -> Option<Server> {
    let cluster = cluster(major, settings)?;
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    Some(Server { cluster, include, url, client })
}

/// A cluster whose vacuums are quick to start and long enough to be held.
pub fn cluster(major: u32, settings: &[(&str, &str)]) -> Option<ScratchCluster> {
    let installation = match installation(major) {
        Ok(installation) => installation,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let mut builder = ScratchCluster::builder(&installation)
        .tmpfs(true)
        .tmpfs_room(512 << 20)
        .setting("autovacuum_naptime", "1s")
        .setting("fsync", "off")
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "4GB")
        // So little that each vacuum passes over the indexes several times: from 17 on the dead tuples of a table take far less memory.
        .setting("autovacuum_work_mem", if major >= 17 { "64kB" } else { "1MB" })
        .setting("autovacuum_vacuum_cost_limit", PACE.to_string())
        .setting("log_autovacuum_min_duration", "0");
    for (name, value) in settings {
        builder = builder.setting(*name, *value);
    }
    Some(builder.start().unwrap())
}

/// Makes tables whose vacuum takes tens of seconds at the given pace: all rows dead once, four indexes.
pub async fn large_table(client: &Client, name: &str, rows: u32) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id int, a int, b int, c text) WITH (autovacuum_enabled = false);
             INSERT INTO {name} SELECT i, i * 7 % 1000003, i % 1000, repeat('x', 100) FROM generate_series(1, {rows}) i;
             CREATE INDEX ON {name} (id); CREATE INDEX ON {name} (a); CREATE INDEX ON {name} (b);
             CREATE INDEX ON {name} (a, b);
             UPDATE {name} SET b = b + 1;"
        ))
        .await
        .unwrap();
}

/// Makes a table that keeps a vacuum busy for tens of seconds at the full speed of a core: what matters is how often it passes over the
/// indexes, and rows that were dead before the indexes were made cost little to make.
pub async fn endless_table(client: &Client, name: &str) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id int, a int, b int) WITH (autovacuum_enabled = false);
             INSERT INTO {name} SELECT i, i * 7 % 1000003, i % 1000 FROM generate_series(1, 3000000) i;
             DELETE FROM {name} WHERE id > 500000;
             CREATE INDEX ON {name} (id); CREATE INDEX ON {name} (a); CREATE INDEX ON {name} (b);
             CREATE INDEX ON {name} (a, b);"
        ))
        .await
        .unwrap();
}

pub async fn allow_vacuum(client: &Client, name: &str) {
    client.batch_execute(&format!("ALTER TABLE {name} SET (autovacuum_enabled = true)")).await.unwrap();
}

pub struct Rig {
    pub governor: Governor,
    pub client: Arc<Client>,
    pub url: String,
    pub include: PathBuf,
    pub state_dir: tempfile::TempDir,
    pub events: Vec<EventKind>,
    pub busy: f64,
    last_reading: Option<Instant>,
    pub activity: Option<ActivityReading>,
    /// The CPU whose real load is read instead of `busy`.
    pub real_cpu: Option<usize>,
    last_stat: Option<(Moment, u64, u64, u64)>,
    slots: u32,
    version: u32,
}

pub fn options(mode: Mode, include: &Path, state_dir: &Path, release: Option<ReleaseCommand>) -> GovernorOptions {
    GovernorOptions {
        mode,
        limits: Limits::default(),
        include_file: include.to_owned(),
        state_dir: state_dir.to_owned(),
        cluster: "main".into(),
        release_command: release,
    }
}

impl Rig {
    pub async fn new(url: &str, include: &Path, mode: Mode, release: Option<ReleaseCommand>) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let options = options(mode, include, state_dir.path(), release);
        Self::with(url, options, state_dir).await
    }

    pub async fn with(url: &str, options: GovernorOptions, state_dir: tempfile::TempDir) -> Self {
        let client = connect(url).await;
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int, current_setting('autovacuum_max_workers')::int",
                &[],
            )
            .await
            .unwrap();
        let include = options.include_file.clone();
        let mut governor = Governor::new(options);
        governor.on_client(Some(Arc::clone(&client)), url);
        Self {
            governor,
            client,
            url: url.to_owned(),
            include,
            state_dir,
            events: Vec::new(),
            busy: 0.3,
            last_reading: None,
            activity: None,
            real_cpu: None,
            last_stat: None,
            slots: row.get::<_, i32>(1) as u32,
            version: row.get::<_, i32>(0) as u32,
        }
    }

    /// One step, with new readings when a second has passed.
    pub async fn step(&mut self) -> Vec<EventKind> {
        if self.last_reading.is_none_or(|at| at.elapsed() >= Duration::from_millis(950)) {
            self.last_reading = Some(Instant::now());
            self.read().await;
        }
        let events = self.governor.step(now()).await;
        for event in &events {
            println!("{} {}", now().wall, serde_json::to_string(event).unwrap());
        }
        self.events.extend(events.iter().cloned());
        tokio::time::sleep(Duration::from_millis(200)).await;
        events
    }

    async fn read(&mut self) {
        let asked = Instant::now();
        let vacuums = vacuums(&self.client).await;
        let at = now();
        let mut stall = if self.busy >= 0.9 { 0.8 } else { 0.02 };
        let mut took = Duration::from_millis(if self.busy >= 0.9 { 120 } else { 2 });
        let mut window = Duration::from_secs(1);
        if let Some(cpu) = self.real_cpu {
            took = asked.elapsed();
            let (busy, all, stalled) = cpu_times(cpu);
            let before = self.last_stat.replace((at, busy, all, stalled));
            let Some((then, b, a, s)) = before else { return };
            window = at.since(then);
            self.busy = (busy - b) as f64 / (all - a).max(1) as f64;
            stall = (stalled - s) as f64 / window.as_micros() as f64;
        }
        let activity = ActivityReading {
            at,
            took,
            version: PgVersion(self.version),
            server_started: Timestamp::UNIX_EPOCH,
            in_recovery: false,
            connections: Connections::default(),
            longest_transaction: None,
            locks: LockWaits::default(),
            vacuums,
            autovacuum_slots: self.slots,
            own_cost: OwnCost::default(),
            idle_transaction: None,
            clock_ahead_ms: None,
        };
        self.activity = Some(activity.clone());
        self.governor.on_observation(&Observation::Reading(Reading::Activity(activity)));
        // No age here comes near one that matters; the controller's own tests turn it.
        let ages = vec![AgeReading { database: "postgres".into(), xid_age: 1_000, multixact_age: 0 }];
        self.tables(TablesReading { at, database: "postgres".into(), worst: Vec::new(), ages });
        let pressure = Pressure { some: Share(stall), full: Share(0.0) };
        let cpu = CpuShares { user: self.busy, idle: 1.0 - self.busy, ..CpuShares::default() };
        self.governor.on_observation(&Observation::Reading(Reading::Host(HostReading {
            at,
            window,
            cpus: 1,
            cpu,
            database_cpus: Some(1),
            database_cpu: Some(cpu),
            run_queue: if self.busy >= 0.9 { 5 } else { 1 },
            load: [1.0; 3],
            cpu_pressure: Some(pressure),
            memory_pressure: None,
            io_pressure: None,
            memory: Memory::default(),
            file_systems: Box::default(),
            cgroup: CgroupLimits::default(),
            processes: Vec::new(),
            oom: None,
            largest: Box::default(),
        })));
    }

    pub fn tables(&mut self, reading: TablesReading) {
        self.governor.on_observation(&Observation::Reading(Reading::Tables(reading)));
    }

    /// Steps until an event is there that `wanted` accepts; returns it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&EventKind) -> bool) -> EventKind {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.step().await.into_iter().find(|e| wanted(e)) {
                return event;
            }
            let status = self.governor.status();
            let workers = self.governor.workers();
            assert!(Instant::now() < deadline, "waited for {what}; status {status:?}, workers {workers:?}");
        }
    }

    pub async fn until_true(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self) {
            self.step().await;
            let status = self.governor.status();
            assert!(
                Instant::now() < deadline,
                "waited for {what}; status {status:?}, workers {:?}",
                self.governor.workers()
            );
        }
    }

    pub async fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.step().await;
        }
    }

    pub fn worker_on(&self, table: &str) -> Option<ProcessId> {
        let vacuums = &self.activity.as_ref()?.vacuums;
        vacuums.iter().find(|v| v.table.as_ref().is_some_and(|t| t.as_str() == table)).map(|v| v.process)
    }

    pub async fn show(&self, name: &str) -> String {
        // A new session: SHOW in an old one lies after selective signals.
        let client = connect(&self.url).await;
        client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap().get(0)
    }

    /// Whether an autovacuum of that table was completed.
    pub async fn was_vacuumed(&self, table: &str) -> bool {
        let query = "SELECT pg_stat_get_last_autovacuum_time($1::text::regclass) IS NOT NULL";
        self.client.query_one(query, &[&table]).await.unwrap().get(0)
    }
}

/// Busy and all ticks of a CPU (`/proc/stat`), and microseconds of CPU pressure.
fn cpu_times(cpu: usize) -> (u64, u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find(|line| line.starts_with(&format!("cpu{cpu} "))).unwrap();
    let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).take(8).map(|f| f.parse().unwrap()).collect();
    let all: u64 = fields.iter().sum();
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let stalled = pressure.split_once("total=").and_then(|(_, rest)| rest.lines().next()?.parse().ok()).unwrap_or(0);
    (all - fields[3] - fields[4], all, stalled)
}

pub async fn vacuums(client: &Client) -> Vec<VacuumReading> {
    let rows = client
        .query(
            "SELECT a.pid, a.datname::text, a.query, p.relid, p.relid::regclass::text, p.phase, p.heap_blks_total, \
                 p.heap_blks_scanned, (extract(epoch FROM a.xact_start) * 1e6)::int8 \
             FROM pg_stat_activity a LEFT JOIN pg_stat_progress_vacuum p USING (pid) \
             WHERE a.backend_type = 'autovacuum worker'",
            &[],
        )
        .await
        .unwrap();
    rows.iter()
        .filter_map(|row| {
            let query: &str = row.get(2);
            let kind = if query.contains("(to prevent wraparound)") {
                VacuumKind::AntiWraparound
            } else if query.starts_with("autovacuum: ANALYZE") {
                VacuumKind::Autoanalyze
            } else {
                VacuumKind::Autovacuum
            };
            Some(VacuumReading {
                process: host_process::identify(Pid(row.get(0)))?,
                kind,
                database: row.get::<_, Option<String>>(1)?.into(),
                table: row.get::<_, Option<String>>(4).map(Into::into),
                relation: row.get::<_, Option<u32>>(3).map(model::Oid),
                started: row.get::<_, Option<i64>>(8).and_then(|us| Timestamp::from_microsecond(us).ok()),
                phase: row.get(5),
                heap_blocks: row.get::<_, Option<i64>>(6).map(|n| n as u64),
                heap_blocks_scanned: row.get::<_, Option<i64>>(7).map(|n| n as u64),
                heap_blocks_vacuumed: None,
                index_passes: None,
                cpu: None,
                in_delay: false,
                blocks: 0,
            })
        })
        .collect()
}

/// CPU of a process over a span, in cores; `None` when it ended.
pub async fn cpu_over(process: ProcessId, span: Duration) -> Option<f64> {
    let before = host_process::cpu_ns(process.pid)?;
    let start = Instant::now();
    tokio::time::sleep(span).await;
    let after = host_process::cpu_ns(process.pid)?;
    (host_process::identify(process.pid)? == process)
        .then(|| after.saturating_sub(before) as f64 / start.elapsed().as_nanos() as f64)
}

/// This test binary again, running one ignored test as another process.
pub fn this_binary(test: &str) -> ReleaseCommand {
    ReleaseCommand {
        program: std::env::current_exe().unwrap(),
        arguments: [test, "--exact", "--ignored", "--nocapture", "--test-threads=1"].map(String::from).to_vec(),
    }
}

/// Nothing of ours is left: settings, file, record, sessions.
pub async fn assert_nothing_left(rig: &Rig, limit: &str, delay: &str) {
    // -1 means: as vacuum_cost_limit says.
    let shown = rig.show("autovacuum_vacuum_cost_limit").await;
    let shown = if shown == "-1" { rig.show("vacuum_cost_limit").await } else { shown };
    assert_eq!((shown.as_str(), rig.show("autovacuum_vacuum_cost_delay").await.as_str()), (limit, delay));
    assert!(!rig.include.exists());
    assert_eq!(autovacuum::record::read(rig.state_dir.path()).unwrap(), None);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'oxpecker%'";
        if rig.client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "a session of ours is left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
