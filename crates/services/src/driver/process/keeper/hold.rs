//! The keeper itself.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, set_child_subreaper, setsid, waitid, waitpid},
};
use tokio::signal::unix::{SignalKind, signal as listen};

use super::{
    super::{
        KEEP_LOCK_PATIENCE, LAUNCH_PATIENCE, LEFTOVER_PATIENCE,
        files::{End, Files, Run},
        hand::readable,
        identity::{Identity, Standing, Stat, boot_id, census, signal, stat},
        order::{Order, Reply, line, read_line},
    },
    FIRST_FD,
    log::Logger,
};

/// How often a lock is tried that somebody else has, and leftovers are counted.
const RETRY: Duration = Duration::from_millis(20);
/// A service is as likely to be killed for want of memory as any other process, whatever its worker is (proc(5), `oom_score_adj`).
const OOM_SCORE_ADJ: &str = "0";

/// Starts `hold` with our standard input and ends: so its parent is whoever takes orphans, and no worker has to.
pub(super) fn detach() -> io::Result<()> {
    ourselves(std::env::args_os().skip(1).take_while(|argument| argument != "detach"), "hold")
        .stdin(Stdio::inherit())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

/// Our own program in another role: the same binary, also where the one on disk was replaced. The last arguments are the role and a name.
fn ourselves(arguments: impl IntoIterator<Item: AsRef<std::ffi::OsStr>>, role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(arguments).arg(role).args(std::env::args_os().next_back());
    command
}

pub(super) fn main() -> io::Result<()> {
    let order: Option<Order> = read_line(io::stdin().lock())?;
    let mut orderer = UnixStream::from(fcntl_dupfd_cloexec(io::stdin(), FIRST_FD)?);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let Some(order) = order else { return Err(io::Error::other("no order came over the standard input")) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match Keeper::new(order) {
            Ok(keeper) => {
                // Nobody may listen any more.
                let _ = line(&Reply::Kept).and_then(|line| orderer.write_all(&line));
                drop(orderer);
                keeper.keep().await
            }
            Err(reply) => {
                let _ = line(&reply).and_then(|line| orderer.write_all(&line));
                Ok(())
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// A kept service.
struct Keeper {
    order: Order,
    files: Files,
    run: Run,
    pidfd: OwnedFd,
    /// Whether it is our child, so that we are told how it ends.
    ours: bool,
    logger: Logger,
    signals: Signals,
    /// Held as long as we live.
    _lock: File,
}

/// What we are told. Made before the service is: none is missed, and none ends us.
struct Signals {
    stop: Stop,
    child: tokio::signal::unix::Signal,
}

/// What tells us to stop the service.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Keeper {
    fn new(mut order: Order) -> Result<Self, Reply> {
        let signals = Signals::new().map_err(|error| Reply::of("listening to signals", &error, "try again"))?;
        let files = Files::new(&order.dir, &order.service);
        let fault = "this is a fault of oxpecker: report it";
        setsid().map_err(|error| Reply::of("making a session", &error.into(), fault))?;
        let _ = std::env::set_current_dir("/");
        // May be forbidden, and then changes nothing that matters.
        let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
        let _ = rustix::process::setpriority_process(None, 0);
        // What a service leaves behind becomes ours to end, whatever sessions it made.
        let _ = set_child_subreaper(Some(rustix::process::getpid()));
        let room = format!("look at {}: is there room, and may oxpecker write there?", order.dir.display());
        let write = |error: &io::Error| Reply::of("writing down who keeps it", error, &room);
        let lock = files.lock_file("keep").map_err(|error| write(&error))?;
        let deadline = Instant::now() + KEEP_LOCK_PATIENCE;
        while let Err(error) = lock.try_lock() {
            if let fs::TryLockError::Error(error) = error {
                return Err(write(&error));
            }
            if Instant::now() >= deadline {
                return Err(Reply::Other);
            }
            thread::sleep(RETRY);
        }
        let this = Identity::this().map_err(|error| Reply::of("looking at /proc", &error, "mount /proc"))?;
        files.write("kept", &this).map_err(|error| write(&error))?;
        let before = files.run().unwrap_or_default();
        let logger = Logger::start(&files.path("out"), files.path("log"), order.log_bytes)
            .map_err(|error| Reply::of("opening its log", &error, &room))?;
        let boot = boot_id();
        if let Some(run) = before.clone().filter(|run| run.process.standing(&boot) == Standing::Alive)
            && let Ok(Some(pidfd)) = run.process.pidfd()
        {
            logger.note(&format!("run {} has a new keeper", run.number));
            return Ok(Self { order, files, run, pidfd, ours: false, logger, signals, _lock: lock });
        }
        if !order.start {
            return Err(Reply::Down);
        }
        order.run = before.map_or(0, |run| run.number).saturating_add(1);
        logger.note(&format!("run {}", order.run));
        match launch(&order, &files) {
            Ok((run, pidfd)) => Ok(Self { order, files, run, pidfd, ours: true, logger, signals, _lock: lock }),
            Err(reply) => {
                logger.note(&format!("run {} could not be started: {reply:?}", order.run));
                logger.finish();
                Err(reply)
            }
        }
    }

    async fn keep(mut self) -> io::Result<()> {
        let asked = self.until_ended().await?;
        let (code, killed_by) = self.how_it_ended();
        let end = End { run: self.run.number, code, signal: killed_by, asked };
        // Without it the service is seen as ended all the same, only not how.
        let recorded = self.files.write("end", &end);
        self.end_leftovers().await;
        if self.ours {
            let _ = waitid(
                WaitId::PidFd(rustix::fd::AsFd::as_fd(&self.pidfd)),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
        self.logger.note(&match (code, killed_by) {
            (Some(code), _) => format!("run {} ended with code {code}", self.run.number),
            (_, Some(signal)) => format!("run {} was ended by signal {signal}", self.run.number),
            _ => format!("run {} ended; its first keeper was killed, so nobody knows how", self.run.number),
        });
        if let Err(error) = recorded {
            self.logger.note(&format!("its end could not be written down: {error}"));
        }
        self.logger.finish();
        Ok(())
    }

    /// Waits for its end; asks for it when told to. Returns whether it was told to.
    async fn until_ended(&mut self) -> io::Result<bool> {
        let ended = readable(self.pidfd.try_clone()?)?;
        let mut deadline: Option<tokio::time::Instant> = None;
        loop {
            let patience = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = ended.readable() => return Ok(deadline.is_some()),
                () = self.signals.stop.told() => if deadline.is_none() {
                    let asking = Signal::from_named_raw(self.order.stop_signal).unwrap_or(Signal::TERM);
                    signal(&self.pidfd, asking)?;
                    deadline = Some(tokio::time::Instant::now() + self.order.stop_within);
                },
                () = patience => {
                    self.logger.note(&format!("it did not stop within {:?} and is killed", self.order.stop_within));
                    signal(&self.pidfd, Signal::KILL)?;
                    self.signal_leftovers(Signal::KILL);
                    // SIGKILL can't be ignored, only be waited for in the kernel.
                    deadline = Some(tokio::time::Instant::now() + self.order.stop_within.max(LEFTOVER_PATIENCE));
                },
                _ = self.signals.child.recv() => self.reap(),
            }
        }
    }

    /// Its exit code, or the signal that ended it. It stays a zombie, so that its id stays its own until all is written down.
    fn how_it_ended(&self) -> (Option<i32>, Option<i32>) {
        if !self.ours {
            return (None, None);
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(rustix::fd::AsFd::as_fd(&self.pidfd)), options) {
            Ok(Some(status)) => (status.exit_status(), status.terminating_signal()),
            _ => (None, None),
        }
    }

    /// What it started and left behind is ended too: else a restart finds its port taken.
    async fn end_leftovers(&mut self) {
        for (asking, patience) in [(Signal::TERM, LEFTOVER_PATIENCE), (Signal::KILL, LEFTOVER_PATIENCE)] {
            let deadline = tokio::time::Instant::now() + patience;
            let mut told: Vec<Identity> = Vec::new();
            loop {
                self.reap();
                let left = self.leftovers();
                if left.is_empty() {
                    return;
                }
                if tokio::time::Instant::now() >= deadline {
                    break;
                }
                for one in left {
                    if !told.contains(&one) {
                        if let Ok(Some(pidfd)) = one.pidfd() {
                            let _ = signal(&pidfd, asking);
                        }
                        told.push(one);
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        self.logger.note(&format!("{} processes that it left behind don't end", self.leftovers().len()));
    }

    fn signal_leftovers(&self, with: Signal) {
        for one in self.leftovers() {
            if let Ok(Some(pidfd)) = one.pidfd() {
                let _ = signal(&pidfd, with);
            }
        }
    }

    /// Processes of its session or group, and what was orphaned to us; not itself.
    fn leftovers(&self) -> Vec<Identity> {
        let (leader, us) = (self.run.process.pid, rustix::process::getpid().as_raw_nonzero().get());
        // A session's id is not given away while it has members; without them it may be another's.
        let strange = stat(leader).ok().flatten().is_some_and(|stat| stat.start != self.run.process.start);
        let its = |pid: i32, stat: &Stat| {
            let inside = !strange && (stat.session == leader || stat.group == leader);
            pid != leader && pid != us && (inside || stat.parent == us)
        };
        census(its)
    }

    /// Takes note of the ends of orphans; not of the service's.
    fn reap(&self) {
        let (leader, us) = (self.run.process.pid, rustix::process::getpid().as_raw_nonzero().get());
        for pid in children(us).into_iter().filter(|pid| *pid != leader) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

impl Signals {
    fn new() -> io::Result<Self> {
        let stop = Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        };
        Ok(Self { stop, child: listen(SignalKind::child())? })
    }
}

impl Stop {
    async fn told(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // It has no terminal that could be gone.
                _ = self.hangup.recv() => {}
            }
        }
    }
}

/// Our children, zombies too. proc_pid_task_children(5), which not every kernel has; else all processes are looked at.
fn children(us: i32) -> Vec<i32> {
    if let Ok(text) = fs::read_to_string(format!("/proc/self/task/{us}/children")) {
        return text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat(*pid).ok().flatten().is_some_and(|stat| stat.parent == us)).collect()
}

/// Starts the launcher and waits until it is the service.
fn launch(order: &Order, files: &Files) -> Result<(Run, OwnedFd), Reply> {
    let out = files.path("out");
    let fault = |error: io::Error| Reply::of("starting its launcher", &error, "try again");
    // For reading too: so it can be opened by one process alone, and never says that nobody reads it.
    let open = || File::options().read(true).write(true).open(&out);
    let (ours, theirs) = UnixStream::pair().map_err(fault)?;
    let child = ourselves(&order.arguments, "launch")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(open().map_err(fault)?)
        .stderr(open().map_err(fault)?)
        .spawn()
        .map_err(fault)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let launcher = Identity::of(pid).ok().flatten();
    let end = |reply: Reply| {
        if let Some(Ok(Some(pidfd))) = launcher.as_ref().map(Identity::pidfd) {
            let _ = signal(&pidfd, Signal::KILL);
        }
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        // It may have been written down already.
        let _ = files.write("end", &End { run: order.run, code: Some(127), signal: None, asked: false });
        reply
    };
    let told = line(order).and_then(|line| (&ours).write_all(&line));
    if let Err(error) = told.and_then(|()| ours.set_read_timeout(Some(LAUNCH_PATIENCE))) {
        return Err(end(fault(error)));
    }
    match read_line::<Reply>(&ours) {
        Ok(None) => {}
        Ok(Some(reply)) => return Err(end(reply)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(end(Reply::Failed {
                why: format!("it did not start within {LAUNCH_PATIENCE:?}"),
                hint: "look whether its disk and the database of users answer".into(),
            }));
        }
        Err(error) => return Err(end(fault(error))),
    }
    let run = files.run().ok().flatten().filter(|run| run.number == order.run && run.process.pid == pid);
    let pidfd = run.as_ref().map(|run| run.process.pidfd());
    match (run, pidfd) {
        (Some(run), Some(Ok(Some(pidfd)))) => Ok((run, pidfd)),
        _ => Err(end(Reply::Failed {
            why: "its launcher was killed".into(),
            hint: "look at the kernel's log: is the host short of memory?".into(),
        })),
    }
}
