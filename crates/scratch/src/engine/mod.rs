//! A scratch container engine: a real dockerd of one's own, that is killed with all its containers like a host that loses power, and started again.
//!
//! It lives in a pid and a mount namespace of its own, whose first process dies with us: processes, mounts and sockets are gone with it, whatever happens. Its containers
//! use the host's network, and the host's programs by way of [`Engine::binds`]; [`Engine::share`] has the same path in them once it is bound there.
//!
//! ```no_run
//! let mut engine = scratch::engine::Engine::start()?;
//! println!("{}", engine.docker(&["ps", "--all"])?); // As a person would.
//! engine.kill9()?; // With all containers.
//! engine.start_again()?;
//! # Ok::<(), scratch::ScratchError>(())
//! ```
//!
//! It needs root and the programs that `cargo xtask testbed` keeps; [`Engine::start`] says what is missing.

mod image;
mod parts;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use self::image::IMAGE;
use self::parts::Parts;
use crate::{
    ScratchError,
    directory::Directory,
    error::prepare,
    identity::Identity,
    node::cgroup,
    postmaster::{Keeper, Postmaster},
};

/// How long a start may take; it takes a second where nobody else works, more with containers that it restarts.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long killed processes get to go.
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// How often a start is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long one answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Where the hierarchies of control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Becomes mortal with us, hides the host's `/run`, `/opt` and `/etc`, where an engine writes and looks for others of its kind, and starts it.
const LAUNCH: &str = r#"
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL --mount --mount-proc --propagation private sh -c '
    etc=$1; shift
    mount --bind "$etc" /etc && mount -t tmpfs tmpfs /run || exit 1
    case $PATH in *:/opt/* | /opt/*) ;; *) if [ -d /opt ]; then mount -t tmpfs tmpfs /opt || exit 1; fi ;; esac
    "$@" &
    wait $!
' sh "$@"
"#;
/// What of the host's `/etc` an engine reads.
const ETC: &[&str] = &["passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "hosts", "resolv.conf"];

/// A container engine of one's own. Dropping it kills it with its containers and removes its directory.
#[derive(Debug)]
pub struct Engine {
    name: String,
    leader: Option<Postmaster>,
    keeper: Keeper,
    parts: Parts,
    // Last, so that it is removed when nothing runs in it any more.
    directory: Directory,
}

impl Engine {
    /// Makes an engine that has one image, [`IMAGE`], and starts it; returns when it answers.
    ///
    /// # Errors
    /// [`ScratchError::NoEngine`] where none can be had here: a test that gets this is skipped. Others when it does not come up.
    pub fn start() -> Result<Self, ScratchError> {
        let parts = Parts::find()?;
        let directory = Directory::create(&Identity::choose()?, None)?;
        let path = directory.path().to_owned();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(prepare("open", &path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for hierarchy in hierarchies() {
            cgroup::sweep(&hierarchy);
        }
        let keeper = Keeper::start(None).map_err(|source| ScratchError::Spawn {
            program: "the thread that starts the engine".to_owned(),
            source,
        })?;
        let mut engine = Self { name, leader: None, keeper, parts, directory };
        engine.furnish()?;
        engine.start_again()?;
        let tar = image::make(&engine.path("image"))?;
        engine.docker(&["import", &tar.display().to_string(), IMAGE])?;
        Ok(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where it listens, from start to start.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("run").join("docker.sock")
    }

    /// A directory for what containers and host share; it is not bound anywhere by itself.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.path("share")
    }

    /// What a container of [`IMAGE`] has to have bound: the host's programs, read-only.
    #[must_use]
    pub fn binds() -> Vec<String> {
        image::binds()
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.leader.is_some()
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.directory.log()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned()
    }

    /// Runs `docker` with these arguments, as a person would; what it printed.
    ///
    /// # Errors
    /// When it can't be run or fails.
    pub fn docker(&self, arguments: &[&str]) -> Result<String, ScratchError> {
        let program = "docker".to_owned();
        let mut command = self.parts.command("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(arguments);
        let output = command.output().map_err(|source| ScratchError::Spawn { program: program.clone(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Err(ScratchError::Program { program, status: output.status, output: said })
    }

    /// Kills it with all its containers at once, as a host that loses power. What it wrote stays.
    ///
    /// # Errors
    /// When it is down already, or something survives.
    pub fn kill9(&mut self) -> Result<(), ScratchError> {
        let Some(mut leader) = self.leader.take() else {
            return Err(ScratchError::State { state: "is down", remedy: "start it first" });
        };
        // The first process of its namespace: the kernel ends that only after all others in it, and what waits for it ends then.
        let first = child_of(leader.pid()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let killed = match first {
            Some(first) => pidfd_send_signal(first, Signal::KILL).map_err(Into::into),
            None => leader.signal(Signal::KILL),
        };
        match killed.and_then(|()| leader.wait(KILL_PATIENCE)) {
            Ok(Some(_)) => Ok(()),
            other => {
                let why = format!("its first process: {other:?}");
                Err(ScratchError::Stop { why, log: self.directory.log() })
            }
        }
    }

    /// Starts it after [`Engine::kill9`]; returns when it answers. It has started then what it starts again by itself.
    ///
    /// # Errors
    /// When it is up already or does not come up.
    pub fn start_again(&mut self) -> Result<(), ScratchError> {
        if self.is_up() {
            return Err(ScratchError::State { state: "is up", remedy: "kill it first" });
        }
        for left in [self.socket(), self.path("pid")] {
            let _ = fs::remove_file(left);
        }
        // As a boot does: what was in memory is gone.
        let _ = fs::remove_dir_all(self.path("exec"));
        let spawn = |source| ScratchError::Spawn { program: "dockerd".to_owned(), source };
        let mut leader = self.keeper.spawn(self.command()?).map_err(spawn)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = leader.wait(POLL).map_err(spawn)? {
                return Err(ScratchError::Ended { status, log: self.log_tail() });
            }
            if answers(&self.socket()) {
                break;
            }
            if Instant::now() >= deadline {
                self.leader = Some(leader);
                return Err(ScratchError::NotReady { after: START_PATIENCE, log: self.log_tail() });
            }
        }
        self.leader = Some(leader);
        Ok(())
    }

    fn furnish(&self) -> Result<(), ScratchError> {
        for name in ["etc", "share", "data", "image"] {
            let path = self.path(name);
            fs::create_dir(&path).map_err(prepare("create", &path))?;
        }
        let share = self.share();
        // As /tmp: whoever a service runs as may have its files there.
        fs::set_permissions(&share, std::os::unix::fs::PermissionsExt::from_mode(0o1777))
            .map_err(prepare("open", &share))?;
        for name in ETC {
            // What is not there is not needed.
            let _ = fs::copy(Path::new("/etc").join(name), self.path("etc").join(name));
        }
        let config = self.path("etc").join("daemon.json");
        fs::write(&config, "{}").map_err(prepare("write", &config))
    }

    fn command(&self) -> Result<Command, ScratchError> {
        let log = self.directory.log();
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log).map_err(prepare("open", &log));
        let shown = |name: &str| self.path(name).display().to_string();
        let mut command = self.parts.command("sh");
        command.args(["-c", LAUNCH, "sh"]).arg(self.path("etc")).arg(self.parts.program("dockerd"));
        // No network of its own, and nothing of the host's is changed.
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"]);
        command.arg(format!("--data-root={}", shown("data"))).arg(format!("--exec-root={}", shown("exec")));
        command.arg(format!("--pidfile={}", shown("pid"))).arg("--config-file=/etc/daemon.json");
        command.arg(format!("--host=unix://{}", self.socket().display()));
        command.arg(format!("--cgroup-parent=/{}", self.name));
        command.current_dir(self.directory.path()).stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        // A group of its own: a terminal's Ctrl-C reaches us alone.
        command.process_group(0);
        Ok(command)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.is_up() {
            let _ = self.kill9();
        }
        for hierarchy in hierarchies() {
            cgroup::remove(&hierarchy.join(&self.name));
        }
    }
}

/// Whether an engine answers there.
fn answers(socket: &Path) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut head = [0; b"HTTP/1.0 200".len()];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    asked().unwrap_or(false)
}

/// The only child of a process.
fn child_of(parent: u32) -> Option<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A program's name may hold anything, parentheses too (proc(5)).
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        after.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
    })
    .and_then(Pid::from_raw)
}

/// The roots of all hierarchies of control groups.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(GROUPS);
    let below = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.join("cgroup.procs").exists() && !path.is_symlink()).chain([root.to_owned()]).collect()
}
