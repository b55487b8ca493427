//! oxpecker itself, riding along in act 2: a real child process with a configuration as a user would write it.

use std::{
    fs,
    os::unix::net::UnixDatagram as StdDatagram,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use tokio::{net::UnixDatagram, process::Command};

use crate::{DrillError, children::Process, leash::Leash, load::Ports, options::DrillOptions, remains::Traces};

/// How long the guard may take to become ready.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How long the report may take.
const REPORT_PATIENCE: Duration = Duration::from_secs(20);
/// The longest notification that is read (sd_notify(3) sends short ones).
const MAX_NOTIFICATION_BYTES: usize = 4_096;

/// The guard.
pub(crate) struct Guard {
    pub(crate) process: Process,
    pub(crate) ready_after: Duration,
    config: PathBuf,
    traces: Traces,
}

/// Where the guard finds everything.
pub(crate) struct Surroundings<'a> {
    pub(crate) postgres: String,
    pub(crate) include_file: &'a Path,
    pub(crate) webhook_port: u16,
    pub(crate) ports: Ports,
    pub(crate) core: usize,
    pub(crate) dir: &'a Path,
}

impl Guard {
    /// Writes the configuration, starts `oxpecker run` and waits for its READY=1.
    pub(crate) async fn start(options: &DrillOptions, around: &Surroundings<'_>) -> Result<Self, DrillError> {
        let config = write_config(around)?;
        let (process, ready_after) = ride(options, &config, around.dir, Some(around.core), None).await?;
        let traces = Traces { include_file: around.include_file.to_owned(), state_dir: state_dir(around) };
        Ok(Self { process, ready_after, config, traces })
    }

    /// Stops it; tells whether it went in an orderly way, and where to look for what it left.
    pub(crate) async fn stop(self) -> (bool, PathBuf, Traces) {
        (self.process.stop().await, self.config, self.traces)
    }
}

/// Starts `oxpecker run` with this configuration, bound to a core and in a control group where one is named, and waits for its READY=1. Returns how long that took, too.
pub(crate) async fn ride(
    options: &DrillOptions,
    config: &Path,
    dir: &Path,
    core: Option<usize>,
    group: Option<PathBuf>,
) -> Result<(Process, Duration), DrillError> {
    let socket = dir.join("notify.sock");
    let notified = StdDatagram::bind(&socket)
        .and_then(|datagram| datagram.set_nonblocking(true).map(|()| datagram))
        .and_then(UnixDatagram::from_std)
        .map_err(DrillError::file("listening on", &socket))?;
    let args = vec!["--config".into(), config.as_os_str().to_owned(), "run".into()];
    let mut command = Leash::of(&options.oxpecker, args, core).in_group(group).command(&options.helper)?;
    command.env("NOTIFY_SOCKET", &socket);
    let begun = Instant::now();
    let mut process = Process::start("guard", command, dir)?;
    tokio::select! {
        ready = tokio::time::timeout(READY_PATIENCE, ready(&notified)) => match ready {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(process.error(format!("can't be heard: {error}"))),
            Err(_) => return Err(process.error(format!("was not ready within {READY_PATIENCE:?}"))),
        },
        error = process.died() => return Err(error),
    }
    Ok((process, begun.elapsed()))
}

fn state_dir(around: &Surroundings<'_>) -> PathBuf {
    around.dir.join("state")
}

/// Waits for READY=1 among what sd_notify(3) sends.
async fn ready(socket: &UnixDatagram) -> std::io::Result<()> {
    let mut buffer = vec![0; MAX_NOTIFICATION_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

fn write_config(around: &Surroundings<'_>) -> Result<PathBuf, DrillError> {
    let url_file = around.dir.join("webhook.url");
    write(&url_file, &format!("http://127.0.0.1:{}/alerts\n", around.webhook_port))?;
    let config = around.dir.join("oxpecker.toml");
    write(&config, &config_text(around, &url_file))?;
    Ok(config)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), DrillError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(DrillError::file("writing", path))
}

fn config_text(around: &Surroundings<'_>, url_file: &Path) -> String {
    let Ports { site, bot, gate } = around.ports;
    let state_dir = quote(&state_dir(around).to_string_lossy());
    let postgres = quote(&around.postgres);
    let include_file = quote(&around.include_file.to_string_lossy());
    let url_file = quote(&url_file.to_string_lossy());
    format!(
        "state_dir = {state_dir}

[postgres]
name = \"drill\"
url = {postgres}

[autovacuum]
mode = \"act\"
include_file = {include_file}

[[alert.route]]
name = \"drill\"
webhook = {{ url_file = {url_file} }}

[[service]]
name = \"site\"
depends_on = [\"drill\"]
health = {{ http = \"http://127.0.0.1:{site}/healthz\" }}
impact = [\"members' pages\"]

[[service]]
name = \"bot\"
depends_on = [\"site\"]
health = {{ http = \"http://127.0.0.1:{bot}/healthz\" }}
impact = [\"help channels\", \"moderation\"]

[[service]]
name = \"gate\"
depends_on = [\"site\", \"bot\"]
health = {{ http = \"http://127.0.0.1:{gate}/healthz\" }}
impact = [\"entry gate\"]
"
    )
}

/// A TOML basic string; JSON's escapes are valid in it.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Asks oxpecker for the newest incident's report.
pub(crate) async fn report(oxpecker: &Path, config: &Path) -> Result<String, DrillError> {
    let mut command = Command::new(oxpecker);
    command.arg("--config").arg(config).args(["incident", "report"]).env_remove("OXPECKER_CONFIG");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let fail = |what: String, log: String| DrillError::Child {
        name: "oxpecker incident report".into(),
        what,
        log,
        hint: "run the drill again with --keep and ask for the report by hand".into(),
    };
    match tokio::time::timeout(REPORT_PATIENCE, command.output()).await {
        Err(_) => Err(fail(format!("gave no answer within {REPORT_PATIENCE:?}"), String::new())),
        Ok(Err(error)) => Err(fail(format!("did not start: {error}"), String::new())),
        Ok(Ok(Output { status, stdout, .. })) if status.success() => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        Ok(Ok(Output { status, stderr, .. })) => {
            Err(fail(format!("failed ({status})"), String::from_utf8_lossy(&stderr).into_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_reads_as_a_user_would_write_it() {
        let dir = Path::new("/tmp/d \"x\"");
        let around = Surroundings {
            postgres: "postgresql:///postgres?host=%2Ftmp%2Frun&port=5&user=postgres".into(),
            include_file: Path::new("/dev/shm/i/throttle.conf"),
            webhook_port: 4,
            ports: Ports { site: 1, bot: 2, gate: 3 },
            core: 0,
            dir,
        };
        insta::assert_snapshot!(config_text(&around, &dir.join("webhook.url")));
    }
}
