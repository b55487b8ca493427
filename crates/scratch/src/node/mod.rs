//! A scratch node: a systemd of its own that is booted, killed like a host that loses power, and booted again.
//!
//! It is a container under systemd-nspawn with the host's `/usr`, read-only, and a root of its own that stays from boot to boot. A boot takes half a second.
//! Its directory [`Node::share`] has the same path inside and outside: files, unix sockets and the bus ([`Node::bus`]) are reached there by that one path.
//! It is in the host's network, so that what listens in it on loopback is reached from outside; take free ports, or sockets in the share.
//!
//! ```no_run
//! let mut node = scratch::node::Node::builder()?
//!     .unit("web.service", "[Service]\nExecStart=/bin/sleep infinity\n")
//!     .enabled("db.service", "[Service]\nExecStart=/bin/sleep infinity\n")
//!     .boot()?;
//! println!("{}", node.systemctl(&["start", "web.service"])?);
//! node.kill9()?; // All of it at once; db.service comes back with the next boot.
//! node.boot_again()?;
//! # Ok::<(), scratch::ScratchError>(())
//! ```
//!
//! It needs root, `systemd-nspawn`, a D-Bus daemon and a cgroup v2 hierarchy; [`Node::builder`] says what is missing. It ends with its owner, even when that is
//! killed: it is in a pid namespace whose first process dies with us.

pub(crate) mod cgroup;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use self::cgroup::Groups;
use crate::{
    ScratchError,
    directory::Directory,
    error::prepare,
    identity::{Identity, find_on_path},
    postmaster::{Keeper, Postmaster},
};

/// How long a boot may take; it takes half a second where nobody else works.
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
/// How long killed processes get to go.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How often a boot is looked at.
const POLL: Duration = Duration::from_millis(5);
/// The target that a node boots into. What is [`Builder::enabled`] is wanted by it.
pub const TARGET: &str = "node.target";
/// Says that systemd is up and its bus answers; it does not wait for what is enabled.
const UP: &str = "node-up.service";
/// Directories of the root. `/usr` is the host's, and these of it are links there where the host has them so.
const DIRECTORIES: &[&str] =
    &["usr", "etc/systemd/system", "var/lib", "var/log", "proc", "sys", "dev", "run", "tmp", "root"];
const LINKS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Programs that it takes, with Debian's packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("systemd-nspawn", "systemd-container"),
    ("dbus-daemon", "dbus"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("nsenter", "util-linux"),
];
/// Enters its groups, becomes mortal with us, takes a `/run` of its own so that nspawn leaves nothing in the host's, and boots.
const LAUNCH: &str = r#"
for group in $GROUPS_TO_ENTER; do echo $$ > "$group/cgroup.procs" || exit 1; done
unset GROUPS_TO_ENTER
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child=KILL --mount --mount-proc --propagation private \
    sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh "$@"
"#;

/// Describes a node; [`Builder::boot`] makes it.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    identity: Identity,
    units: Vec<(String, String, bool)>,
    binds: Vec<(PathBuf, bool)>,
    private_network: bool,
}

impl Builder {
    /// A unit file in its `/etc/systemd/system`. It is not started at boot, unless something that is wants it.
    pub fn unit(mut self, name: &str, text: &str) -> Self {
        self.units.push((name.to_owned(), text.to_owned(), false));
        self
    }

    /// A unit that is started at boot.
    pub fn enabled(mut self, name: &str, text: &str) -> Self {
        self.units.push((name.to_owned(), text.to_owned(), true));
        self
    }

    /// A directory of the host's that has the same path inside.
    pub fn bind(mut self, path: &Path) -> Self {
        self.binds.push((path.to_owned(), false));
        self
    }

    /// The same, read-only: a PostgreSQL's programs.
    pub fn bind_read_only(mut self, path: &Path) -> Self {
        self.binds.push((path.to_owned(), true));
        self
    }

    /// A network of its own with nothing but loopback.
    pub fn private_network(mut self) -> Self {
        self.private_network = true;
        self
    }

    /// Makes the node and boots it; returns when its systemd answers on its bus. What is enabled may still be starting.
    ///
    /// # Errors
    /// When it can't be made or does not come up.
    pub fn boot(self) -> Result<Node, ScratchError> {
        let directory = Directory::create(&self.identity, None)?;
        let path = directory.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(prepare("open", &path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let groups = Groups::create(&name)?;
        let keeper = Keeper::start(None)
            .map_err(|source| ScratchError::Spawn { program: "the thread that starts the node".to_owned(), source })?;
        let node = Node {
            name,
            directory,
            groups,
            keeper,
            binds: self.binds,
            private_network: self.private_network,
            leader: None,
        };
        node.furnish()?;
        for (unit, text, enabled) in &self.units {
            node.write_unit(unit, text)?;
            if *enabled {
                node.enable(unit)?;
            }
        }
        let mut node = node;
        node.boot_again()?;
        Ok(node)
    }
}

/// A node of one's own. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Node {
    name: String,
    leader: Option<Postmaster>,
    keeper: Keeper,
    groups: Groups,
    binds: Vec<(PathBuf, bool)>,
    private_network: bool,
    // Last, so that it is removed when nothing runs in it any more.
    directory: Directory,
}

impl Node {
    /// Describes a node.
    ///
    /// # Errors
    /// Why none can be had here: a test that gets this is skipped.
    pub fn builder() -> Result<Builder, ScratchError> {
        let lacking = |what: String, remedy: String| Err(ScratchError::NoNode { what, remedy });
        if !rustix::process::geteuid().is_root() {
            return lacking("it takes root".to_owned(), "run as root".to_owned());
        }
        for (program, package) in PROGRAMS {
            if find_on_path(program).is_none() {
                return lacking(format!("`{program}` is not on the PATH"), format!("install the package {package}"));
            }
        }
        let bus = Path::new("/usr/lib/systemd/system/dbus.socket");
        if !bus.exists() {
            return lacking(format!("there is no {}", bus.display()), "install the package dbus".to_owned());
        }
        Groups::available()?;
        let identity = Identity::choose()?;
        Ok(Builder { identity, units: Vec::new(), binds: Vec::new(), private_network: false })
    }

    /// The address of its system bus: the same after each boot.
    #[must_use]
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.bus_socket().display())
    }

    /// A directory that has this path inside too, and stays from boot to boot. Anybody may write there.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.directory.path().join("share")
    }

    /// Its root directory, as the host sees it. `/run` and `/tmp` are not there: they are new with each boot.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Writes or overwrites a unit file. A systemd that runs wants `daemon-reload` then.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_unit(&self, name: &str, text: &str) -> Result<(), ScratchError> {
        let path = self.unit_file(name);
        fs::write(&path, text).map_err(prepare("write", &path))
    }

    /// Has a unit started at boot.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn enable(&self, name: &str) -> Result<(), ScratchError> {
        let wants = self.unit_file(&format!("{TARGET}.wants"));
        fs::create_dir_all(&wants).map_err(prepare("create", &wants))?;
        let link = wants.join(name);
        match symlink(Path::new("..").join(name), &link) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(prepare("create", &link)),
        }
    }

    /// Where the node has a unit of this name, as the host sees it.
    #[must_use]
    pub fn unit_file(&self, name: &str) -> PathBuf {
        self.root().join("etc/systemd/system").join(name)
    }

    /// Whether it is booted.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.leader.is_some()
    }

    /// Kills all of it at once, as a host that loses power. Its files stay.
    ///
    /// # Errors
    /// When it is down already, or something survives.
    pub fn kill9(&mut self) -> Result<(), ScratchError> {
        let Some(mut leader) = self.leader.take() else {
            return Err(ScratchError::State { state: "is down", remedy: "boot it first" });
        };
        let stop = |why: String, log: PathBuf| ScratchError::Stop { why, log };
        let deadline = Instant::now() + KILL_PATIENCE;
        self.groups.kill();
        let killed = leader.signal(Signal::KILL).and_then(|()| leader.wait(KILL_PATIENCE));
        let gone = matches!(killed, Ok(Some(_)));
        while self.groups.populated() {
            if Instant::now() >= deadline {
                return Err(stop("something of it survives SIGKILL".to_owned(), self.console()));
            }
            std::thread::sleep(POLL);
        }
        if gone { Ok(()) } else { Err(stop(format!("its first process: {killed:?}"), self.console())) }
    }

    /// Boots it after [`Node::kill9`]; returns as [`Builder::boot`] does.
    ///
    /// # Errors
    /// When it is up already or does not come up.
    pub fn boot_again(&mut self) -> Result<(), ScratchError> {
        if self.is_up() {
            return Err(ScratchError::State { state: "is up", remedy: "kill it first" });
        }
        let up = self.share().join("up");
        let _ = fs::remove_file(&up);
        let spawn = |source| ScratchError::Spawn { program: "systemd-nspawn".to_owned(), source };
        let mut leader = self.keeper.spawn(self.command()?).map_err(spawn)?;
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            if let Some(status) = leader.wait(POLL).map_err(spawn)? {
                return Err(ScratchError::Ended { status, log: self.console_tail() });
            }
            if fs::read(&up).is_ok_and(|text| !text.is_empty()) {
                break;
            }
            if Instant::now() >= deadline {
                self.leader = Some(leader);
                return Err(ScratchError::NotReady { after: BOOT_PATIENCE, log: self.console_tail() });
            }
        }
        self.leader = Some(leader);
        Ok(())
    }

    /// Runs a program inside; what it printed. For root's own `systemctl` and `journalctl` there.
    ///
    /// # Errors
    /// When the node is down, or it can't be run or fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, ScratchError> {
        let leader = self.groups.leader().filter(|_| self.is_up());
        let Some(leader) = leader else {
            return Err(ScratchError::State { state: "is down", remedy: "boot it first" });
        };
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.args(["-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "--", program]).args(arguments);
        let output = command.output().map_err(|source| ScratchError::Spawn { program: program.to_owned(), source })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Err(ScratchError::Program { program: program.to_owned(), status: output.status, output: said })
    }

    /// Its `systemctl`.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn systemctl(&self, arguments: &[&str]) -> Result<String, ScratchError> {
        self.run("systemctl", arguments)
    }

    fn bus_socket(&self) -> PathBuf {
        self.share().join("bus")
    }

    fn console(&self) -> PathBuf {
        self.directory.log()
    }

    fn console_tail(&self) -> String {
        let text = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned()
    }

    /// All files but its units.
    fn furnish(&self) -> Result<(), ScratchError> {
        let root = self.root();
        for name in DIRECTORIES {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(prepare("create", &path))?;
        }
        for name in LINKS {
            if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
                let link = root.join(name);
                symlink(target, &link).map_err(prepare("create", &link))?;
            }
        }
        let share = self.share();
        fs::create_dir(&share).map_err(prepare("create", &share))?;
        // As /tmp: whoever a service runs as may have its files there.
        fs::set_permissions(&share, fs::Permissions::from_mode(0o1777)).map_err(prepare("open", &share))?;
        for name in ["passwd", "group", "nsswitch.conf"] {
            // The same users, so that who owns a file outside owns it inside.
            let _ = fs::copy(Path::new("/etc").join(name), root.join("etc").join(name));
        }
        let write = |name: &str, text: &str| {
            let path = root.join("etc").join(name);
            fs::write(&path, text).map_err(prepare("write", &path))
        };
        write("os-release", "ID=node\nNAME=node\n")?;
        write("hostname", "node\n")?;
        // Known, so that systemd takes no boot for the first one and sets nothing up.
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().replace('-', "");
        write("machine-id", &id)?;
        let dropin = self.unit_file("dbus.socket.d");
        fs::create_dir(&dropin).map_err(prepare("create", &dropin))?;
        let socket = format!("[Socket]\nListenStream={}\n", self.bus_socket().display());
        write("systemd/system/dbus.socket.d/node.conf", &socket)?;
        self.write_unit(
            TARGET,
            &format!("[Unit]\nRequires=basic.target\nWants={UP}\nAfter=basic.target\nAllowIsolate=yes\n"),
        )?;
        let up = self.share().join("up");
        self.write_unit(
            UP,
            &format!(
                "[Unit]\nAfter=basic.target dbus.socket\nRequires=dbus.socket\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'busctl list >/dev/null && cat /proc/uptime >{}'\n",
                up.display()
            ),
        )?;
        let default = self.unit_file("default.target");
        symlink(TARGET, &default).map_err(prepare("create", &default))
    }

    fn command(&self) -> Result<Command, ScratchError> {
        let console = self.console();
        let open =
            || fs::OpenOptions::new().create(true).append(true).open(&console).map_err(prepare("open", &console));
        let mut command = Command::new("/bin/sh");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.env("GROUPS_TO_ENTER", self.groups.to_enter());
        // The hybrid hierarchy of an old host would give it an old one too.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.args(["-c", LAUNCH, "sh", "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot"]);
        command.args(["--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]);
        command.arg(format!("--machine={}", self.name)).arg("-D").arg(self.root()).arg("--bind-ro=/usr");
        if self.private_network {
            command.arg("--private-network");
        }
        let share = (self.share(), false);
        for (path, read_only) in self.binds.iter().chain([&share]) {
            let kind = if *read_only { "--bind-ro=" } else { "--bind=" };
            // A colon parts source and destination there.
            command.arg(format!("{kind}{}", path.display().to_string().replace('\\', "\\\\").replace(':', "\\:")));
        }
        command.args(["systemd.log_target=journal", "systemd.show_status=0"]);
        command.current_dir(self.directory.path()).stdin(std::process::Stdio::null()).stdout(open()?).stderr(open()?);
        // A group of its own: a terminal's Ctrl-C reaches us alone.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.is_up() {
            let _ = self.kill9();
        }
    }
}
