//! Acts: each under the service's lock, each looking first.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt as _, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::unistd::User;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest, unix::AsyncFd},
    time::{Instant, sleep, timeout},
};

use super::{
    Declared, KEEP_LOCK_PATIENCE, LAUNCH_PATIENCE, LEFTOVER_PATIENCE, Look, ProcessDriver, STOP_WITHIN_MAX,
    environment,
    files::{self, Files},
    identity::{Identity, signal},
    order::{Order, REPLY_BYTES_MAX, Reply, line},
};
use crate::{
    driver::{Act, ActError},
    health::Process,
};

/// How long one who acts waits for another who does.
const ACT_LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often that is tried.
const ACT_LOCK_RETRY: Duration = Duration::from_millis(20);
/// How often a stop is begun anew because the keeper that was to do it was killed.
const STOP_TRIES: u32 = 3;
/// What our own processes may take beyond what they wait for.
const MARGIN: Duration = Duration::from_secs(10);
/// What others may do in a directory that we make for a service.
const DIRECTORY_MODE: u32 = 0o755;

/// What is lacking of what a service needs to be started at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Its directory, which can be made.
    Directory(PathBuf),
    /// Its program, which can't.
    Program(String),
}

/// Looks whether its directory and its program are there. What can't be looked at counts as there: starting it will tell.
pub(super) fn missing(declared: &Declared) -> Option<Missing> {
    let absent = |path: &Path| {
        let error = fs::metadata(path).err().map(|error| error.kind());
        matches!(error, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    };
    if let Some(directory) = declared.directory.as_ref().filter(|directory| absent(directory)) {
        return Some(Missing::Directory(directory.clone()));
    }
    let program = declared.command.first().map_or("", String::as_str);
    let found = if program.contains('/') {
        !absent(&declared.directory.as_deref().unwrap_or(Path::new("/")).join(program))
    } else {
        let path = declared.environment.get("PATH").map_or(environment::PATH, String::as_str);
        !program.is_empty() && std::env::split_paths(path).any(|directory| !absent(&directory.join(program)))
    };
    // An environment file may set PATH, which only a start finds out.
    (!found && declared.environment_files.is_empty()).then(|| Missing::Program(program.to_owned()))
}

/// One act on one service, for its errors.
struct Doing<'a> {
    act: Act,
    declared: &'a Declared,
}

impl Doing<'_> {
    fn failed(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::Failed { act, service, why: why.into(), hint: hint.into() }
    }

    fn absent(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::Absent { act, service, why: why.into(), hint: hint.into() }
    }

    fn no_answer(&self, why: impl Into<String>, hint: impl Into<String>) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        ActError::NoAnswer { act, service, why: why.into(), hint: hint.into() }
    }

    fn of(&self, what: &str, error: &io::Error, hint: &str) -> ActError {
        self.refused(Reply::of(what, error, hint))
    }

    /// The error that a reply is.
    fn refused(&self, reply: Reply) -> ActError {
        let (act, service) = (self.act, self.declared.name.clone());
        match reply {
            Reply::Denied { why, hint } => ActError::Denied { act, service, why, hint },
            Reply::Absent { why, hint } => ActError::Absent { act, service, why, hint },
            Reply::Failed { why, hint } => ActError::Failed { act, service, why, hint },
            Reply::Other => self.no_answer("another keeper holds it", "look again in some seconds"),
            Reply::Kept | Reply::Down => self.no_answer("it ended meanwhile", "look again"),
        }
    }
}

impl ProcessDriver {
    pub(super) async fn act_on(&self, declared: &Declared, act: Act) -> Result<(), ActError> {
        let doing = Doing { act, declared };
        let files = Files::new(&self.dir, &declared.name);
        let hint = "look at that directory: is there room, and may oxpecker write there?";
        let what = || format!("preparing {}", self.dir.display());
        files::make(&self.dir).map_err(|error| doing.of(&what(), &error, hint))?;
        let lock = files.lock_file("act").map_err(|error| doing.of(&what(), &error, hint))?;
        let deadline = Instant::now() + ACT_LOCK_PATIENCE;
        while let Err(error) = lock.try_lock() {
            if let fs::TryLockError::Error(error) = error {
                return Err(doing.of(&what(), &error, hint));
            }
            if Instant::now() >= deadline {
                return Err(doing.no_answer("somebody else is acting on it", "look again once they are done"));
            }
            sleep(ACT_LOCK_RETRY).await;
        }
        match act {
            Act::Start => self.start(&doing).await,
            Act::Stop => self.stop(&doing).await,
            Act::Restart => {
                self.stop(&doing).await?;
                self.start(&doing).await
            }
            Act::Restore => Err(ActError::no_backup(&doing.declared.name)),
            Act::Provision => {
                provision(&doing)?;
                self.start(&doing).await
            }
        }
    }

    /// A running one whose keeper was killed gets a new one.
    async fn start(&self, doing: &Doing<'_>) -> Result<(), ActError> {
        let look = self.look(doing.declared);
        match (&look.process, &look.keeper) {
            (Process::Unknown { why }, _) => Err(unreadable(doing, why)),
            (Process::Running, Some(_)) => Ok(()),
            _ => match self.keeper(doing, true).await? {
                Reply::Kept => Ok(()),
                // Started by somebody who held no act lock any more: an agent that was killed in the middle of it.
                Reply::Other if self.look(doing.declared).process == Process::Running => Ok(()),
                reply => Err(doing.refused(reply)),
            },
        }
    }

    async fn stop(&self, doing: &Doing<'_>) -> Result<(), ActError> {
        for _ in 0..STOP_TRIES {
            if self.tell_to_stop(doing).await? {
                return Ok(());
            }
        }
        Err(doing.failed(
            format!("its keepers were killed {STOP_TRIES} times meanwhile"),
            "look at the kernel's log: is the host short of memory?",
        ))
    }

    /// Whether nothing of it runs any more. Not where its keeper was killed before it could stop it.
    async fn tell_to_stop(&self, doing: &Doing<'_>) -> Result<bool, ActError> {
        let look = self.look(doing.declared);
        if let Process::Unknown { why } = &look.process {
            return Err(unreadable(doing, why));
        }
        if look.process == Process::Running && look.keeper.is_none() {
            match self.keeper(doing, false).await? {
                Reply::Kept | Reply::Down => {}
                reply => return Err(doing.refused(reply)),
            }
        }
        let is_down = |look: &Look| look.process != Process::Running;
        // Also one whose service has ended: it ends what that left behind.
        let look = self.look(doing.declared);
        let Some(keeper) = look.keeper.clone() else { return Ok(is_down(&look)) };
        let hint = "only root and its own user may stop a service";
        let failed = |error: io::Error| doing.of("signalling its keeper", &error, hint);
        if let Some(pidfd) = keeper.pidfd().map_err(failed)? {
            signal(&pidfd, Signal::TERM).map_err(failed)?;
            let patience = doing.declared.stop_within.min(STOP_WITHIN_MAX) + LEFTOVER_PATIENCE * 2 + MARGIN;
            match timeout(patience, until_ended(pidfd)).await {
                Ok(ended) => ended.map_err(failed)?,
                Err(_) => {
                    return Err(doing.failed(
                        format!("it still ends after {} s", patience.as_secs()),
                        "a process that SIGKILL doesn't end waits in the kernel: look at its disk, and at the kernel's log",
                    ));
                }
            }
        }
        Ok(is_down(&self.look(doing.declared)))
    }

    /// Starts a keeper and hears how that went.
    async fn keeper(&self, doing: &Doing<'_>, start: bool) -> Result<Reply, ActError> {
        let patience = KEEP_LOCK_PATIENCE + LAUNCH_PATIENCE + MARGIN;
        let order = Order::new(&self.dir, &self.arguments, doing.declared, start);
        let talked = timeout(patience, self.order(&order)).await;
        let unclear = |why: String| doing.no_answer(why, "look again; the service's log may tell more");
        match talked {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Ok(None)) => Err(unclear("its keeper ended without a word".into())),
            Ok(Err(error)) => Err(unclear(format!("starting its keeper: {error}"))),
            Err(_) => Err(unclear(format!("its keeper said nothing for {} s", patience.as_secs()))),
        }
    }

    async fn order(&self, order: &Order) -> io::Result<Option<Reply>> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = std::process::Command::new(&self.program);
        command
            .arg0("oxpecker")
            .args(&self.arguments)
            .arg("detach")
            .arg(Files::new(&self.dir, &order.service).name())
            .env_clear()
            .env("PATH", environment::PATH)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = tokio::process::Command::from(command).spawn()?;
        ours.set_nonblocking(true)?;
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        ours.write_all(&line(order)?).await?;
        let mut reply = Vec::new();
        ours.take(REPLY_BYTES_MAX).read_to_end(&mut reply).await?;
        // It ended long ago, having started the one that replied.
        child.wait().await?;
        if reply.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&reply)?)) }
    }

    /// Gives each service a keeper again whose own was killed.
    pub(super) async fn adopt_all(&self) {
        for declared in &self.declared {
            let look = self.look(declared);
            if look.process == Process::Running && look.keeper.is_none() {
                self.adopt(declared).await;
            }
        }
    }

    async fn adopt(&self, declared: &Declared) {
        let doing = Doing { act: Act::Start, declared };
        let Ok(lock) = Files::new(&self.dir, &declared.name).lock_file("act") else { return };
        if lock.try_lock().is_err() {
            return;
        }
        let adopted = self.keeper(&doing, false).await;
        tracing::info!(service = %declared.name, ?adopted, "its keeper was killed; it was given a new one");
    }

    pub(super) fn looks(&self) -> Vec<Look> {
        self.declared.iter().map(|one| self.look(one)).collect()
    }
}

fn unreadable(doing: &Doing<'_>, why: &str) -> ActError {
    doing.failed(why, "look at that file; nothing is done while it isn't known what runs")
}

/// Makes its directory. Its program is nothing that we could make.
fn provision(doing: &Doing<'_>) -> Result<(), ActError> {
    let declared = doing.declared;
    if let Some(Missing::Directory(directory)) = missing(declared) {
        let what = format!("making its directory {}", directory.display());
        let hint = "make it by hand, or correct `directory`";
        let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&directory);
        made.map_err(|error| doing.of(&what, &error, hint))?;
        if let Some(Ok(Some(user))) = declared.user.as_deref().map(User::from_name) {
            let given = std::os::unix::fs::chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            given.map_err(|error| doing.of(&what, &error, hint))?;
        }
    }
    match missing(declared) {
        None => Ok(()),
        Some(Missing::Directory(directory)) => {
            Err(doing.absent(format!("its directory {} went again", directory.display()), "look who removes it"))
        }
        Some(Missing::Program(program)) => {
            let why = format!("there is no program {}", program.escape_default());
            Err(doing.absent(why, "install it, or correct `command`: oxpecker makes no programs"))
        }
    }
}

/// Waits for a process's end.
pub(crate) async fn until_ended(pidfd: OwnedFd) -> io::Result<()> {
    readable(pidfd)?.readable().await.map(drop)
}

/// A descriptor whose readability is waited for.
#[expect(deprecated, reason = "its successor is unsafe code, for descriptors that others may close; this one is owned")]
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Waits for a process's end; for ever where it can't be watched.
pub(super) async fn end_of(process: Identity) {
    match process.pidfd() {
        Ok(Some(pidfd)) => {
            if until_ended(pidfd).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        // Gone already.
        Ok(None) => {}
        Err(_) => std::future::pending().await,
    }
}
