//! A running scratch cluster.

use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{Read, Seek, SeekFrom},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Builder, DataDir, Installation, ScratchError, Storage,
    builder::{self, SETTINGS_FILE},
    directory::Directory,
    error::prepare,
    identity::{Identity, ParentDeath},
    leftovers::{self, SharedMemory},
    postmaster::{Keeper, Postmaster},
};

/// How many ports are tried before giving up.
const PORT_TRIES: u32 = 8;
/// Below the range from which the kernel serves outgoing connections (32768 and up), so that the port is still free after a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_768;
/// How often a start is looked at; `pg_ctl` does it every 100 ms.
const POLL: Duration = Duration::from_millis(10);
/// A fast shutdown writes a checkpoint first.
const FAST_PATIENCE: Duration = Duration::from_secs(60);
/// An immediate shutdown: PostgreSQL kills what has not ended after five seconds by itself.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the backends of a killed postmaster get to notice; then they are killed too.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(3);
/// How much of the log [`ScratchCluster::log_tail`] returns.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// A PostgreSQL of one's own. Dropping it stops the server and removes the directory.
#[derive(Debug)]
pub struct ScratchCluster {
    builder: Builder,
    identity: Identity,
    keeper: Keeper,
    server: Option<Postmaster>,
    port: u16,
    shared_memory: SharedMemory,
    /// `None` only once it was handed on.
    directory: Option<Directory>,
}

/// A cluster that goes on without us, see [`ScratchCluster::leave_running`].
#[derive(Clone, Debug)]
pub struct LeftRunning {
    /// How to connect, database `postgres`.
    pub url: String,
    /// The first process: SIGINT stops the cluster.
    pub postmaster_pid: u32,
    /// What to remove when it is stopped.
    pub directory: PathBuf,
}

impl ScratchCluster {
    /// Describes a cluster; [`Builder::start`] makes it.
    pub fn builder(installation: &Installation) -> Builder {
        Builder::new(installation)
    }

    pub(crate) fn start_new(
        builder: Builder,
        identity: Identity,
        directory: Directory,
        keeper: Keeper,
    ) -> Result<Self, ScratchError> {
        let shared_memory = SharedMemory::default();
        let mut cluster =
            Self { builder, identity, keeper, server: None, port: 0, shared_memory, directory: Some(directory) };
        for _ in 0..PORT_TRIES {
            cluster.port = free_port()?;
            cluster.write_settings()?;
            match cluster.launch(ParentDeath::Signal("QUIT")) {
                // Somebody took the port between our look and the server's.
                Err(ScratchError::Ended { log, .. }) if log.contains("Address already in use") => {}
                result => return result.map(|()| cluster),
            }
        }
        Err(ScratchError::NoFreePort { tries: PORT_TRIES })
    }

    /// How to connect as the superuser, over the unix socket: a URL that libpq and tokio-postgres read.
    #[must_use]
    pub fn url(&self, dbname: &str) -> String {
        let host = percent_encode(&self.socket_dir().to_string_lossy());
        format!("postgresql:///{}?host={host}&port={}&user=postgres", percent_encode(dbname), self.port)
    }

    /// How to connect as the superuser over loopback TCP.
    #[must_use]
    pub fn tcp_url(&self, dbname: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}", self.port, percent_encode(dbname))
    }

    /// The port on 127.0.0.1, also part of the socket's name. The same after a restart.
    #[must_use]
    pub fn tcp_port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.home().run()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home().data()
    }

    /// The directory that holds all of the cluster, and goes with it: see [`crate::processes_below`].
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home().path()
    }

    /// What the data lies on.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.home().storage
    }

    /// The programs that it runs.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.builder.installation
    }

    /// The postmaster's process id; `None` while stopped.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Postmaster::pid)
    }

    /// The server's log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home().log()
    }

    /// The last 16 KiB of the server's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log_path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Appends `include_if_exists 'path'` to postgresql.conf, after everything else. Takes effect with the next reload.
    ///
    /// # Errors
    /// When the file can't be changed.
    pub fn include_line(&self, path: &Path) -> Result<(), ScratchError> {
        let line = format!("include_if_exists {}", builder::quote(&path.to_string_lossy()));
        builder::include(&self.data_dir().join("postgresql.conf"), &line)
    }

    /// Lets another process that runs as the server's user use `path`, for instance a directory for [`ScratchCluster::include_line`].
    ///
    /// # Errors
    /// When its owner can't be changed.
    pub fn give(&self, path: &Path) -> Result<(), ScratchError> {
        self.identity.own(path).map_err(prepare("change the owner of", path))
    }

    /// Stops the server in order: sessions end, a checkpoint is written.
    ///
    /// # Errors
    /// When it is stopped already, or does not end within a minute.
    pub fn stop_fast(&mut self) -> Result<(), ScratchError> {
        self.stop(Signal::INT, FAST_PATIENCE)
    }

    /// Stops the server at once, without a checkpoint: the next start recovers.
    ///
    /// # Errors
    /// When it is stopped already, or does not end within ten seconds.
    pub fn stop_immediate(&mut self) -> Result<(), ScratchError> {
        self.stop(Signal::QUIT, IMMEDIATE_PATIENCE)
    }

    /// Kills the postmaster with SIGKILL. Returns when its children are gone too: they notice by themselves, or are killed.
    ///
    /// # Errors
    /// When it is stopped already, or its processes will not go.
    pub fn kill9(&mut self) -> Result<(), ScratchError> {
        let data = self.data_dir();
        self.shared_memory.note(&data);
        self.stop(Signal::KILL, IMMEDIATE_PATIENCE)?;
        if !leftovers::await_gone(&data, ORPHAN_PATIENCE) {
            let left = leftovers::kill_below(&data, IMMEDIATE_PATIENCE);
            if !left.is_empty() {
                return Err(self.stop_error(format!("{} of its processes survive SIGKILL", left.len())));
            }
        }
        Ok(())
    }

    /// Starts the stopped or killed server again, on the same port.
    ///
    /// # Errors
    /// When it runs already or does not start.
    pub fn start_again(&mut self) -> Result<(), ScratchError> {
        if self.server.is_some() {
            let remedy = "stop it first";
            return Err(ScratchError::State { state: "is running", remedy });
        }
        // A killed postmaster's file would be taken for a running server's if another process has its id by now.
        let stale = self.data_dir().join("postmaster.pid");
        if stale.exists() {
            fs::remove_file(&stale).map_err(prepare("remove", &stale))?;
        }
        self.launch(ParentDeath::Signal("QUIT"))
    }

    /// Stops the server in order and keeps its data directory, for instance for [`Builder::template_of`].
    ///
    /// # Errors
    /// When it does not stop.
    pub fn into_data_dir(mut self) -> Result<DataDir, ScratchError> {
        if self.server.is_some() {
            self.stop_fast()?;
        }
        let directory = self.directory.take().expect("only handing on takes it, and that consumes the cluster");
        Ok(DataDir(directory))
    }

    /// Restarts the server so that it outlives us, and leaves it to whoever stops it.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub fn leave_running(mut self) -> Result<LeftRunning, ScratchError> {
        if self.server.is_some() {
            self.stop_fast()?;
        }
        self.launch(ParentDeath::Outlive)?;
        let url = self.url("postgres");
        let server = self.server.take().expect("launch has set it");
        let directory = self.directory.take().expect("only handing on takes it, and that consumes the cluster");
        Ok(LeftRunning { url, postmaster_pid: server.pid(), directory: directory.leave() })
    }

    fn home(&self) -> &Directory {
        self.directory.as_ref().expect("only handing on takes it, and that consumes the cluster")
    }

    fn write_settings(&self) -> Result<(), ScratchError> {
        let mut text = String::from("# Written by the crate `scratch`.\nlisten_addresses = '127.0.0.1'\n");
        let own =
            [("port", self.port.to_string()), ("unix_socket_directories", self.socket_dir().display().to_string())];
        let given = self.builder.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in own.into_iter().chain(given) {
            text.push_str(&format!("{name} = {}\n", builder::quote(&value)));
        }
        let file = self.data_dir().join(SETTINGS_FILE);
        fs::write(&file, text).map_err(prepare("write", &file))?;
        self.give(&file)
    }

    fn launch(&mut self, parent_death: ParentDeath) -> Result<(), ScratchError> {
        let log = self.log_path();
        let open = || OpenOptions::new().create(true).append(true).open(&log).map_err(prepare("open", &log));
        let (out, err) = (open()?, open()?);
        // What an earlier start wrote is not this start's reason.
        let log_start = out.metadata().map_or(0, |metadata| metadata.len());
        let program = self.builder.installation.bin_dir.join("postgres");
        let mut command = self.identity.command(&program, parent_death);
        command.arg("-D").arg(self.data_dir()).current_dir(self.directory()).stdout(out).stderr(err);
        // A group of its own: a terminal's Ctrl-C reaches us alone, and we stop the server when we are done with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let spawn = |source| ScratchError::Spawn { program: program.display().to_string(), source };
        let mut server = self.keeper.spawn(command).map_err(spawn)?;
        let deadline = Instant::now() + self.builder.start_patience;
        let log_since = || tail_since(&log, log_start).unwrap_or_default();
        loop {
            if let Some(status) = server.wait(POLL).map_err(spawn)? {
                return Err(ScratchError::Ended { status, log: log_since() });
            }
            if is_ready(&self.data_dir(), server.pid()) {
                break;
            }
            if Instant::now() >= deadline {
                // Into `self`, so that dropping stops it.
                self.server = Some(server);
                return Err(ScratchError::NotReady { after: self.builder.start_patience, log: log_since() });
            }
        }
        self.server = Some(server);
        self.shared_memory.note(&self.data_dir());
        Ok(())
    }

    fn stop(&mut self, signal: Signal, patience: Duration) -> Result<(), ScratchError> {
        let Some(mut server) = self.server.take() else {
            return Err(ScratchError::State { state: "is stopped", remedy: "start it again first" });
        };
        let deadline = Instant::now() + patience;
        let ended = server.signal(signal).and_then(|()| {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let ended = server.wait(left)?;
                if ended.is_some() || left.is_zero() {
                    return Ok(ended);
                }
            }
        });
        match ended {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                self.server = Some(server);
                Err(self.stop_error(format!("it still runs after {patience:?}")))
            }
            Err(error) => {
                self.server = Some(server);
                Err(self.stop_error(error.to_string()))
            }
        }
    }

    fn stop_error(&self, why: String) -> ScratchError {
        ScratchError::Stop { why, log: self.log_path() }
    }
}

impl Drop for ScratchCluster {
    fn drop(&mut self) {
        // Immediate, as nobody will want the checkpoint. PostgreSQL then removes its shared memory itself.
        if self.server.is_some() && self.stop_immediate().is_err() {
            let _ = self.kill9();
        }
        if let Some(directory) = self.directory.take() {
            // Kills what is left and removes the files.
            drop(directory);
            self.shared_memory.remove();
        }
    }
}

/// As `pg_ctl` looks: postmaster.pid has the pid in its first line and, from PostgreSQL 10, the state in its eighth.
fn is_ready(data: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    let ours = lines.next().and_then(|line| line.trim().parse::<u32>().ok()) == Some(pid);
    ours && lines.nth(6).is_some_and(|state| matches!(state.trim(), "ready" | "standby"))
}

/// A loopback port on which nobody listens just now.
fn free_port() -> Result<u16, ScratchError> {
    let width = u64::from(PORTS.end - PORTS.start);
    for _ in 0..PORT_TRIES * 16 {
        // The standard library's only source of randomness: the keys of a hasher.
        let random = RandomState::new().hash_one(std::process::id()) % width;
        let port = PORTS.start + u16::try_from(random).expect("less than the range's width, which fits");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(ScratchError::NoFreePort { tries: PORT_TRIES * 16 })
}

fn tail(path: &Path) -> std::io::Result<String> {
    tail_since(path, 0)
}

/// What was written from byte `start` on, of that the last [`LOG_TAIL_BYTES`].
fn tail_since(path: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::percent_encode;

    #[test]
    fn encoding() {
        assert_eq!(percent_encode("/tmp/a b%ü"), "%2Ftmp%2Fa%20b%25%C3%BC");
    }
}
