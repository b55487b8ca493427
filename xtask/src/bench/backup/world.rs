//! The database that is backed up, and how a command is measured.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use scratch::ScratchCluster;

use crate::shell;

/// pgBackRest of Debian 12 knows no newer one.
const MAJOR: u32 = 15;
/// `pgbench -i --scale`: some 15 MiB each.
const SCALE: u32 = 100;
/// Rows of the wide table: some 1.4 GiB with its indexes.
const WIDE_ROWS: u32 = 2_500_000;
/// How often a running command's memory is looked at; the kernel keeps its peak.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One command's cost.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Until it had ended well.
    pub seconds: f64,
    /// The largest sum of the peaks of its processes that was seen, MiB.
    pub peak_mib: f64,
}

/// A server with data.
pub struct World {
    /// The server.
    pub cluster: ScratchCluster,
    base: tempfile::TempDir,
}

impl World {
    /// Installs what is absent, starts a server and fills it; takes some minutes.
    pub fn new() -> Result<Self> {
        for (program, package) in [("pgbackrest", "pgbackrest"), ("pgbench", "postgresql-contrib")] {
            if !shell::has(program) {
                shell::run(Command::new("apt-get").args(["install", "--yes", "--no-install-recommends", package]))
                    .with_context(|| format!("{program} is absent; hint: install the package {package}"))?;
            }
        }
        let installation = scratch::installations()
            .into_iter()
            .find(|i| i.major() == MAJOR && i.bin_dir.join("pg_basebackup").is_file())
            .with_context(|| format!("no PostgreSQL {MAJOR} with its tools; hint: install postgresql-{MAJOR}"))?;
        let cluster = ScratchCluster::builder(&installation)
            .setting("shared_buffers", "256MB")
            .setting("max_wal_size", "8GB")
            .setting("archive_mode", "on")
            .setting("archive_command", "true")
            .setting("wal_level", "replica")
            .setting("autovacuum", "off")
            .start()?;
        let world = Self { cluster, base: tempfile::tempdir()? };
        shell::say("  filling the database");
        world.pgbench(&["-i", "-q", "--scale", &SCALE.to_string()])?;
        world.sql(&format!(
            "CREATE TABLE wide AS SELECT i AS id, md5(i::text) AS name, now() - i * interval '1 s' AS at, (random() * 1e6)::int AS amount, \
                 jsonb_build_object('name', md5((i % 9973)::text), 'tags', ARRAY[i % 7, i % 11, i % 13], 'note', repeat(md5((i / 50)::text), 4)) AS body, \
                 (i * 7919::bigint) % 1000003 AS hash FROM generate_series(1, {WIDE_ROWS}) i;
             ALTER TABLE wide ADD PRIMARY KEY (id); CREATE INDEX ON wide (name); CREATE INDEX ON wide (at); CREATE INDEX ON wide (hash, amount);"
        ))?;
        world.sql("VACUUM FREEZE")?;
        world.sql("CHECKPOINT")?;
        Ok(world)
    }

    /// A directory for one backup. Not on tmpfs: a repository is on a disk.
    pub fn place(&self) -> Result<tempfile::TempDir> {
        let place = tempfile::tempdir_in(self.base.path())?;
        self.cluster.give(self.base.path())?;
        self.give(place.path())?;
        Ok(place)
    }

    /// Lets the server's archive_command write there.
    pub fn give(&self, place: &Path) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let owner = fs::metadata(self.cluster.data_dir())?;
        let who = format!("{}:{}", owner.uid(), owner.gid());
        shell::capture(Command::new("chown").args(["-R", &who]).arg(place))?;
        Ok(())
    }

    /// Size of the databases.
    pub fn database_mib(&self) -> Result<f64> {
        let text = self.sql("SELECT sum(pg_database_size(oid)) FROM pg_database")?;
        Ok(text.trim().parse::<f64>()? / 1024.0 / 1024.0)
    }

    /// What archives from now on.
    pub fn archive_with(&self, command: &str) -> Result<()> {
        self.sql(&format!("ALTER SYSTEM SET archive_command = '{}'", command.replace('\'', "''")))?;
        self.sql("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// Nothing dirty, nothing cached: the next reader pays.
    pub fn drop_caches(&self) -> Result<()> {
        self.sql("CHECKPOINT")?;
        crate::bench::start::drop_caches()
    }

    /// Runs it to its end.
    pub fn measure(&self, mut command: Command) -> Result<Measured> {
        let started = Instant::now();
        let mut child = self.start(&mut command)?;
        let mut peak_mib = 0.0_f64;
        loop {
            peak_mib = peak_mib.max(tree_peak_mib(child.id()));
            if let Some(status) = child.try_wait()? {
                let seconds = started.elapsed().as_secs_f64();
                if !status.success() {
                    bail!("{command:?} failed ({status}): {}", fs::read_to_string(self.log()).unwrap_or_default());
                }
                return Ok(Measured { seconds, peak_mib });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Latencies of clients in milliseconds over a span, `meanwhile` running beside them.
    pub fn clients(&self, span: Duration, rate: u32, meanwhile: Option<Command>) -> Result<Vec<f64>> {
        let logs = tempfile::tempdir()?;
        let seconds = span.as_secs().max(1).to_string();
        let mut bench = self.pgbench_command();
        bench.current_dir(logs.path()).args([
            "-n",
            "-S",
            "-c",
            "8",
            "-T",
            &seconds,
            "-R",
            &rate.to_string(),
            "-l",
            "postgres",
        ]);
        let mut bench = bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let meanwhile = meanwhile.map(|mut command| self.start(&mut command)).transpose()?;
        let ended = bench.wait()?;
        if let Some(mut child) = meanwhile {
            child.wait()?;
        }
        if !ended.success() {
            bail!("pgbench failed ({ended})");
        }
        let mut latencies_ms = Vec::new();
        for entry in fs::read_dir(logs.path())? {
            for line in fs::read_to_string(entry?.path())?.lines() {
                // The manual, pgbench, "Per-Transaction Logging": the third field is the time in microseconds, schedule lag included.
                let micros: f64 = line.split(' ').nth(2).context("pgbench's log")?.parse()?;
                latencies_ms.push(micros / 1000.0);
            }
        }
        if latencies_ms.is_empty() {
            bail!("pgbench logged no transaction");
        }
        Ok(latencies_ms)
    }

    fn log(&self) -> std::path::PathBuf {
        self.base.path().join("log")
    }

    fn start(&self, command: &mut Command) -> Result<Child> {
        let log = fs::File::create(self.log())?;
        let started = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        started.with_context(|| format!("starting {command:?}"))
    }

    fn pgbench_command(&self) -> Command {
        let mut command = Command::new(self.cluster.installation().bin_dir.join("pgbench"));
        command.args(["-h".as_ref(), self.cluster.socket_dir().as_os_str()]);
        command.args(["-p", &self.cluster.tcp_port().to_string(), "-U", "postgres"]);
        command
    }

    fn pgbench(&self, arguments: &[&str]) -> Result<()> {
        shell::capture(self.pgbench_command().args(arguments).arg("postgres"))?;
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<String> {
        let mut command = Command::new(self.cluster.installation().bin_dir.join("psql"));
        command.args(["--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.cluster.url("postgres")]);
        Ok(String::from_utf8_lossy(&shell::capture(&mut command)?.stdout).into_owned())
    }
}

/// What lies below a directory, as stored, MiB.
pub fn tree_mib(directory: &Path) -> Result<f64> {
    let output = shell::capture(Command::new("du").args(["--summarize", "--block-size=1"]).arg(directory))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes: f64 = text.split_whitespace().next().context("du said nothing")?.parse()?;
    Ok(bytes / 1024.0 / 1024.0)
}

/// The sum of the peaks of a process and all below it, MiB.
fn tree_peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .unwrap_or(0.0)
        / 1024.0;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> =
        children.flat_map(|c| c.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect();
    own + children.into_iter().map(tree_peak_mib).sum::<f64>()
}
