//! A server with WAL that nobody has archived, and the ways to store, receive and replay it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use scratch::ScratchCluster;

use crate::{bench::program, shell};

/// pgBackRest of Debian 12 knows no newer one.
const MAJOR: u32 = 15;
/// `pgbench -i --scale`.
const SCALE: u32 = 10;
/// Updates of all rows: each some 20 segments.
const UPDATES: u32 = 2;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// What the kernel counts CPU in, see proc_stat(5).
const TICKS_A_SECOND: f64 = 100.0;

/// What a contender took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub segments_a_second: f64,
    /// Of the whole host: also what a daemon or the kernel did. The server's own share is the same for all.
    pub cpu_seconds_a_gib: f64,
}

/// See the module.
pub struct Scene {
    cluster: ScratchCluster,
    dir: tempfile::TempDir,
    names: Vec<String>,
}

impl Scene {
    /// Installs what is absent, starts a server, copies it, and lets it write.
    pub fn new() -> Result<Self> {
        for (program, package) in [("pgbackrest", "pgbackrest"), ("pgbench", "postgresql-contrib")] {
            if !shell::has(program) {
                shell::run(Command::new("apt-get").args(["install", "--yes", "--no-install-recommends", package]))
                    .with_context(|| format!("{program} is absent; hint: install the package {package}"))?;
            }
        }
        let installation = scratch::installations()
            .into_iter()
            .find(|i| i.major() == MAJOR && i.bin_dir.join("pg_receivewal").is_file())
            .with_context(|| format!("no PostgreSQL {MAJOR} with its tools; hint: install postgresql-{MAJOR}"))?;
        let mut cluster = ScratchCluster::builder(&installation)
            .setting("max_wal_size", "16GB")
            .setting("wal_keep_size", "16GB")
            .setting("max_slot_wal_keep_size", "16GB")
            .setting("archive_mode", "on")
            .setting("archive_command", "")
            .setting("autovacuum", "off")
            .start()?;
        let dir = tempfile::tempdir()?;
        cluster.give(dir.path())?;
        cluster.stop_fast()?;
        shell::capture(Command::new("cp").arg("-a").arg(cluster.data_dir()).arg(dir.path().join("base")))?;
        cluster.start_again()?;
        let mut scene = Self { cluster, dir, names: Vec::new() };
        scene.sql("SELECT pg_create_physical_replication_slot('base', true)")?;
        shell::say("  writing WAL");
        let mut load = Command::new(scene.tool("pgbench"));
        load.args(["-i", "-q", "--scale", &SCALE.to_string(), "-d", &scene.cluster.url("postgres")]);
        shell::capture(&mut load)?;
        for _ in 0..UPDATES {
            scene.sql("UPDATE pgbench_accounts SET abalance = abalance + 1, filler = md5(random()::text)")?;
        }
        scene.sql("SELECT pg_switch_wal()")?;
        scene.sql("CHECKPOINT")?;
        let status = scene.cluster.data_dir().join("pg_wal/archive_status");
        let ready = fs::read_dir(status)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        scene.names = ready.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
        scene.names.retain(|name| name.len() == 24);
        scene.names.sort();
        if scene.names.len() < 8 {
            bail!("only {} segments were written", scene.names.len());
        }
        Ok(scene)
    }

    /// How many there are.
    pub fn segments(&self) -> usize {
        self.names.len()
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.cluster.installation().bin_dir.join(name)
    }

    fn sql(&self, sql: &str) -> Result<String> {
        let mut command = Command::new(self.tool("psql"));
        command.args(["--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.cluster.url("postgres")]);
        Ok(String::from_utf8_lossy(&shell::capture(&mut command)?.stdout).trim().to_owned())
    }

    fn place(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(self.dir.path())?)
    }

    fn owner(&self) -> Result<(u32, u32)> {
        let owner = fs::metadata(self.cluster.data_dir())?;
        Ok((owner.uid(), owner.gid()))
    }

    fn give(&self, path: &Path) -> Result<()> {
        let (uid, gid) = self.owner()?;
        shell::capture(Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(path))?;
        Ok(())
    }

    /// A command as the server would run it.
    fn as_server(&self, command: &mut Command) -> Result<()> {
        let (uid, gid) = self.owner()?;
        if rustix::process::geteuid().is_root() {
            command.uid(uid).gid(gid);
        }
        command.current_dir(self.cluster.data_dir()).stdin(Stdio::null());
        Ok(())
    }

    fn cost(&self, began: Instant, busy_before: f64) -> Result<Cost> {
        let seconds = began.elapsed().as_secs_f64();
        self.cost_of(seconds, busy_seconds()? - busy_before)
    }

    fn cost_of(&self, seconds: f64, cpu: f64) -> Result<Cost> {
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let segments = self.names.len() as f64;
        Ok(Cost { segments_a_second: segments / seconds, cpu_seconds_a_gib: cpu / (segments / 64.0) })
    }

    /// A repository of ours below `place`; its configuration.
    fn ours(&self, place: &Path) -> Result<PathBuf> {
        let config = place.join("oxpecker.toml");
        fs::write(
            &config,
            format!(
                "state_dir = {:?}\n[postgres]\nurl = {:?}\n[repository]\nurl = \"file://{}\"\nkey_file = {:?}\n",
                place.join("state"),
                self.cluster.url("postgres"),
                place.join("repository").display(),
                place.join("key"),
            ),
        )?;
        shell::capture(Command::new(program::path()?).arg("--config").arg(&config).args(["backup", "init"]))?;
        // Where the server's user can run it.
        fs::copy(program::path()?, place.join("oxpecker"))?;
        self.give(place)?;
        Ok(config)
    }

    /// Calls `command` for each segment, as the archiver does.
    fn call_for_each(&self, command: &str) -> Result<Cost> {
        let (busy, began) = (busy_seconds()?, Instant::now());
        for name in &self.names {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(command.replace("%p", &format!("pg_wal/{name}")));
            self.as_server(&mut shell)?;
            shell::capture(&mut shell)?;
        }
        self.cost(began, busy)
    }

    /// Ours, as archive_command.
    pub fn push_ours(&self, ahead: u32) -> Result<Cost> {
        let place = self.place()?;
        let config = self.ours(place.path())?;
        let program = place.path().join("oxpecker");
        self.call_for_each(&format!("{} --config {} wal push --ahead {ahead} %p", program.display(), config.display()))
    }

    /// pgBackRest's.
    pub fn push_pgbackrest(&self, asynchronous: bool) -> Result<Cost> {
        let place = self.place()?;
        let at = place.path();
        for name in ["repository", "spool", "lock", "log"] {
            fs::create_dir(at.join(name))?;
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let more = if asynchronous { format!("archive-async=y\nprocess-max={cores}\n") } else { String::new() };
        let config = at.join("pgbackrest.conf");
        fs::write(
            &config,
            format!(
                "[global]\nrepo1-path={0}/repository\nlog-path={0}/log\nlock-path={0}/lock\nspool-path={0}/spool\nlog-level-console=warn\nlog-level-file=off\n\
                 compress-type=zst\ncompress-level=3\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=a passphrase of the benchmark\n{more}\
                 [bench]\npg1-path={1}\npg1-port={2}\npg1-socket-path={3}\npg1-user=postgres\n",
                at.display(),
                self.cluster.data_dir().display(),
                self.cluster.tcp_port(),
                self.cluster.socket_dir().display(),
            ),
        )?;
        self.give(at)?;
        let call = format!("pgbackrest --config={} --stanza=bench", config.display());
        let mut create = Command::new("sh");
        create.arg("-c").arg(format!("{call} stanza-create"));
        self.as_server(&mut create)?;
        shell::capture(&mut create)?;
        self.call_for_each(&format!("{call} archive-push %p"))
    }

    /// A slot that holds all of it.
    fn slot(&self) -> Result<String> {
        let name = format!("s{}", self.sql("SELECT count(*) + (random() * 1e9)::bigint FROM pg_replication_slots")?);
        self.sql(&format!("SELECT pg_copy_physical_replication_slot('base', '{name}')"))?;
        Ok(name)
    }

    fn last(&self) -> Result<&String> {
        self.names.last().context("there is a segment")
    }

    /// Ours.
    pub fn receive_ours(&self) -> Result<Cost> {
        let (place, slot) = (self.place()?, self.slot()?);
        let config = self.ours(place.path())?;
        let last = self.last()?;
        let end = self.sql(&format!(
            "SELECT '0/0'::pg_lsn + (('x' || substr('{last}', 9, 8))::bit(32)::bigint * 256 + ('x' || substr('{last}', 17, 8))::bit(32)::bigint + 1) * 16777216::numeric"
        ))?;
        let mut command = Command::new(program::path()?);
        command.arg("--config").arg(config).args(["wal", "receive", "--output", "json", "--slot", &slot]);
        let (busy, began) = (busy_seconds()?, Instant::now());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let acknowledged =
            format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND restart_lsn >= '{end}'");
        let done = self.wait_for(|| Ok(self.sql(&acknowledged)? == "1"));
        let cost = self.cost(began, busy);
        child.kill()?;
        child.wait()?;
        self.sql(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active"
        ))?;
        done.and(cost).with_context(|| {
            let said = child
                .stdout
                .take()
                .map(|out| BufReader::new(out).lines().map_while(Result::ok).take(20).collect::<Vec<_>>());
            format!("{said:?}")
        })
    }

    /// PostgreSQL's own.
    pub fn receive_theirs(&self, compress: Option<&str>) -> Result<Cost> {
        let (place, slot) = (self.place()?, self.slot()?);
        let mut command = Command::new(self.tool("pg_receivewal"));
        command.args(["--slot", &slot, "--dbname", &self.cluster.url("postgres"), "--directory"]).arg(place.path());
        if let Some(compress) = compress {
            command.args(["--compress", compress]);
        }
        let last = place.path().join(format!("{}{}", self.last()?, compress.map_or("", |_| ".gz")));
        let (busy, began) = (busy_seconds()?, Instant::now());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let done = self.wait_for(|| Ok(last.exists()));
        let cost = self.cost(began, busy);
        child.kill()?;
        child.wait()?;
        done.and(cost)
    }

    fn wait_for(&self, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !done()? {
            if began.elapsed() > PATIENCE {
                bail!("not done after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A recovery of the copy with this command; all WAL comes from it.
    fn replay(&self, restore: &str) -> Result<Cost> {
        let dir = self.place()?;
        let data = dir.path().join("data");
        shell::capture(Command::new("cp").arg("-a").arg(self.dir.path().join("base")).arg(&data))?;
        fs::write(data.join("recovery.signal"), "")?;
        let builder = ScratchCluster::builder(self.cluster.installation()).template_of(&data);
        let builder = builder.setting("restore_command", restore).setting("archive_mode", "off");
        let busy = busy_seconds()?;
        let recovered = builder.setting("autovacuum", "off").start_within(PATIENCE).start()?;
        // What the server measured: from the first record to the last.
        self.wait_for(|| Ok(recovered.log_tail().contains("redo done at")))?;
        let cpu = busy_seconds()? - busy;
        let log = fs::read_to_string(recovered.log_path())?;
        let line = log.lines().find(|line| line.contains("redo done at")).context("the log told of it")?;
        let elapsed =
            line.split("elapsed: ").nth(1).and_then(|rest| rest.split(' ').next()).context("it says how long")?;
        self.cost_of(elapsed.parse()?, cpu)
    }

    /// Ours, as restore_command.
    pub fn replay_ours(&self, ahead: u32) -> Result<Cost> {
        let place = self.place()?;
        let config = self.ours(place.path())?;
        let program = place.path().join("oxpecker");
        let call = format!("{} --config {}", program.display(), config.display());
        self.call_for_each(&format!("{call} wal push %p"))?;
        self.replay(&format!("{call} wal get --ahead {ahead} %f %p"))
    }

    /// The limit.
    pub fn replay_copies(&self) -> Result<Cost> {
        let place = self.place()?;
        for name in &self.names {
            fs::copy(self.cluster.data_dir().join("pg_wal").join(name), place.path().join(name))?;
        }
        self.give(place.path())?;
        self.replay(&format!("cp {}/%f %p", place.path().display()))
    }
}

/// Seconds of CPU that the whole host spent since it started, idle and waiting left out.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("/proc/stat is empty")?.split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    let idle = ticks.iter().skip(3).take(2).sum::<f64>();
    Ok((ticks.iter().take(8).sum::<f64>() - idle) / TICKS_A_SECOND)
}
