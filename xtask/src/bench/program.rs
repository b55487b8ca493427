//! The measured program: a release build of oxpecker, as a guard.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{demo::target_directory, shell};

/// How long a guard may take to do what is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds the program.
pub fn build() -> Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "oxpecker"]))
}

/// Where it is.
pub fn path() -> Result<PathBuf> {
    Ok(target_directory()?.join("release/oxpecker"))
}

/// A running guard. Dropping it kills it.
pub struct Guard {
    child: Child,
    dir: tempfile::TempDir,
    started: Instant,
    /// From its start until it said READY=1.
    pub ready_after: Duration,
}

impl Guard {
    /// Starts a guard of the server at `url` and waits until it is ready.
    pub fn start(url: &str, more: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("oxpecker.toml");
        let state = dir.path().join("state");
        fs::write(&config, format!("state_dir = {state:?}\n[postgres]\nurl = {url:?}\n{more}"))?;
        let socket = UnixDatagram::bind(dir.path().join("notify"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let log = fs::File::create(dir.path().join("log"))?;
        let started = Instant::now();
        let child = Command::new(path()?)
            .arg("--config")
            .arg(&config)
            .arg("run")
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut guard = Self { child, dir, started, ready_after: Duration::ZERO };
        let mut buffer = [0; 512];
        loop {
            let read = socket.recv(&mut buffer).context("the guard does not become ready")?;
            if String::from_utf8_lossy(&buffer[..read]).contains("READY=1") {
                guard.ready_after = started.elapsed();
                return Ok(guard);
            }
        }
    }

    /// What `status` says.
    pub fn status(&self) -> Result<Value> {
        let config = self.dir.path().join("oxpecker.toml");
        let output = Command::new(path()?).arg("--config").arg(config).args(["status", "--output", "json"]).output()?;
        serde_json::from_slice(&output.stdout).context("reading the status")
    }

    /// The time from its start until its status was as asked.
    pub fn await_status(&self, is_so: impl Fn(&Value) -> bool) -> Result<Duration> {
        while self.started.elapsed() < PATIENCE {
            if is_so(&self.status()?) {
                return Ok(self.started.elapsed());
            }
        }
        bail!("the guard's status did not become as expected within {PATIENCE:?}")
    }

    /// CPU time of the guard and of its workers, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        let mut ticks = 0;
        for pid in self.family() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            // utime and stime are fields 14 and 15 (proc(5)); the name's closing bracket ends field 2.
            ticks += [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<u64>().ok()).sum::<u64>();
        }
        #[expect(clippy::cast_precision_loss, reason = "ticks of a few minutes")]
        Ok(ticks as f64 / ticks_per_s as f64)
    }

    /// Resident memory of the guard, then of its workers, in MiB.
    pub fn resident_mib(&self) -> Result<Vec<(String, f64)>> {
        let mut all = Vec::new();
        for (index, pid) in self.family().into_iter().enumerate() {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib = status
                .lines()
                .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
            let name = if index == 0 { "the guard".to_owned() } else { self.words(pid) };
            all.push((name, kib.context("VmRSS")? / 1024.0));
        }
        Ok(all)
    }

    /// The guard's pid, then its children's.
    fn family(&self) -> Vec<u32> {
        let pid = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
        let children = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
        let children: Vec<u32> =
            children.flat_map(|c| c.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect();
        std::iter::once(pid).chain(children).collect()
    }

    fn words(&self, pid: u32) -> String {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').skip(1).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
