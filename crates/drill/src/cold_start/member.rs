//! One service as a process: it loads, looks for what it needs, ends with an error where that is not there, and serves.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use hyper::{Method, Uri};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, process::Child, time::sleep};
use tokio_postgres::NoTls;

use super::record::{LACKS, READY, STARTED};
use crate::{DrillError, http::Client, measure::clock};

/// It looks for what it needs after this part of its start: libraries and settings come first, as in most programs.
const LOOKS_AFTER: f64 = 1.0 / 3.0;
/// How long the answer of what it needs may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often a server that starts is asked.
const SERVER_POLL: Duration = Duration::from_millis(10);
/// How often is looked whether the drill is still there.
const OWNER_POLL: Duration = Duration::from_millis(200);
/// The most attempts at a socket that a killed run has left for a moment.
const LISTEN_TRIES: u32 = 50;

/// How a service is described, in a file of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where it writes down what it does.
    pub(crate) dir: PathBuf,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// From its start until it serves, in microseconds; for PostgreSQL that is its own business.
    pub(crate) starts_in_us: u64,
    pub(crate) needs: Vec<Need>,
    /// The drill: when it is gone, the service goes. 0: it stays.
    pub(crate) owner: i32,
    /// What it runs, where it is the database.
    pub(crate) server: Option<Server>,
}

/// Something that a service needs, and how it asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    pub(crate) name: String,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Where it is PostgreSQL: how to connect.
    pub(crate) url: Option<String>,
}

/// A PostgreSQL, which refuses root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) program: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) url: String,
}

/// While this file is there, services start at once: the world is only set up.
pub(crate) fn warm(dir: &Path) -> PathBuf {
    dir.join("warm")
}

/// Where a service writes down what it does.
pub(crate) fn events(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.events"))
}

pub(crate) async fn run(description: &Path) -> Result<(), DrillError> {
    let text = fs::read_to_string(description).map_err(DrillError::file("reading", description))?;
    let member: Member =
        serde_json::from_str(&text).map_err(|error| DrillError::helper("member", error.to_string()))?;
    member.say(STARTED, "")?;
    let owner = Owner::of(member.owner)?;
    tokio::select! {
        outcome = member.live() => outcome,
        () = owner.gone() => Ok(()),
    }
}

impl Member {
    fn say(&self, word: &str, about: &str) -> Result<(), DrillError> {
        let path = events(&self.dir, &self.name);
        let line = format!("{} {word} {about}\n", clock::boot_us());
        let file = fs::File::options().create(true).append(true).open(&path);
        // One write, so that no line is torn by a kill.
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(DrillError::file("writing", &path))
    }

    async fn live(&self) -> Result<(), DrillError> {
        let takes = if warm(&self.dir).exists() { Duration::ZERO } else { Duration::from_micros(self.starts_in_us) };
        let client = Client::new();
        if self.server.is_none() {
            sleep(takes.mul_f64(LOOKS_AFTER)).await;
        }
        for need in &self.needs {
            if !need.answers(&client).await {
                self.say(LACKS, &need.name)?;
                return Err(DrillError::helper(&self.name, format!("{} does not answer", need.name)));
            }
        }
        match &self.server {
            Some(server) => self.run_server(server).await,
            None => {
                sleep(takes.mul_f64(1.0 - LOOKS_AFTER)).await;
                self.serve(client).await
            }
        }
    }

    async fn serve(&self, client: Client) -> Result<(), DrillError> {
        let fail = |error: std::io::Error| DrillError::helper(&self.name, format!("{}: {error}", self.address));
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) if tries < LISTEN_TRIES => tries += 1,
                Err(error) => return Err(fail(error)),
            }
            sleep(SERVER_POLL).await;
        };
        let router = Router::new()
            .route("/ready", get(async || "ok"))
            .route("/healthz", get(health))
            .with_state((client, self.needs.clone()));
        self.say(READY, "")?;
        notify_ready();
        axum::serve(listener, router).await.map_err(fail)
    }

    /// PostgreSQL below us: it ends with us, in order where we are asked to end.
    async fn run_server(&self, server: &Server) -> Result<(), DrillError> {
        let fail = |error: std::io::Error| DrillError::helper(&self.name, format!("PostgreSQL: {error}"));
        let mut command = std::process::Command::new(&server.program);
        command.arg("-D").arg(&server.data).current_dir(&server.data).env_clear().env("LC_ALL", "C");
        if rustix::process::geteuid().is_root() {
            command.uid(server.owner).gid(server.group);
        }
        let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(fail)?;
        let mut child = tokio::process::Command::from(command).spawn().map_err(fail)?;
        let running = Running(child.id());
        let ready = async {
            while !answers(&server.url).await {
                sleep(SERVER_POLL).await;
            }
        };
        tokio::select! {
            () = ready => {}
            ended = child.wait() => return Err(fail(std::io::Error::other(format!("ended: {ended:?}")))),
            _ = told.recv() => return running.stop(child).await.map_err(fail),
        }
        self.say(READY, "")?;
        tokio::select! {
            ended = child.wait() => Err(fail(std::io::Error::other(format!("ended: {ended:?}")))),
            _ = told.recv() => running.stop(child).await.map_err(fail),
        }
    }
}

/// The first process of a PostgreSQL. Dropped, it is told to end at once; so it removes its shared memory itself.
struct Running(Option<u32>);

impl Running {
    fn quit(&self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::QUIT);
        }
    }

    async fn stop(self, mut child: Child) -> std::io::Result<()> {
        self.quit();
        child.wait().await.map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.quit();
    }
}

impl Need {
    async fn answers(&self, client: &Client) -> bool {
        let asked = async {
            match &self.url {
                Some(url) => answers(url).await,
                None => {
                    let Ok(uri) = format!("http://{}/ready", self.address).parse::<Uri>() else { return false };
                    client.send(Method::GET, uri, ANSWER_PATIENCE).await.is_ok()
                }
            }
        };
        tokio::time::timeout(ANSWER_PATIENCE, asked).await.unwrap_or(false)
    }
}

/// A query, and its answer.
async fn answers(url: &str) -> bool {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else { return false };
    let task = tokio::spawn(connection);
    let answered = client.simple_query("SELECT 1").await.is_ok();
    drop(client);
    let _ = task.await;
    answered
}

async fn health(State((client, needs)): State<(Client, Vec<Need>)>) -> Result<&'static str, (StatusCode, String)> {
    for need in &needs {
        if !need.answers(&client).await {
            return Err((StatusCode::SERVICE_UNAVAILABLE, format!("{} does not answer", need.name)));
        }
    }
    Ok("ok")
}

/// For systemd's `Type=notify` (sd_notify(3)).
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // Who is not heard is seen by not becoming ready.
    let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
}

/// Whoever it all is for.
struct Owner(Option<rustix::fd::OwnedFd>);

impl Owner {
    fn of(pid: i32) -> Result<Self, DrillError> {
        let Some(pid) = Pid::from_raw(pid) else { return Ok(Self(None)) };
        let gone = |error| DrillError::helper("member", format!("the drill is gone: {error}"));
        pidfd_open(pid, PidfdFlags::empty()).map(|pidfd| Self(Some(pidfd))).map_err(gone)
    }

    async fn gone(&self) {
        let Some(pidfd) = &self.0 else { return std::future::pending().await };
        loop {
            let mut asked = [PollFd::new(pidfd, PollFlags::IN)];
            // Readable: it has ended (pidfd_open(2)).
            if poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ended| ended > 0) {
                return;
            }
            sleep(OWNER_POLL).await;
        }
    }
}
