//! Services as plain processes, without any supervisor of the host.
//!
//! Each service has a small keeper process of its own, our own program in another role. It starts the service, keeps its output and its exit code, and stops it
//! when told to; it restarts nothing, which is the planner's. Keeper and service live on when the guard, its worker or each other are killed. All that is known
//! stands in small files of one directory, so that looking asks nobody:
//!
//! ```text
//! environment  files of variables       (pure)
//! files        what is remembered
//! identity     which process is which
//! order        what keepers are told
//! hand         starts, stops, restarts
//! watch        tells when something changed
//! keeper       what happens in the other processes
//! ```
//!
//! Invariants: a service that runs is written down, whoever is killed when; it runs once, however many act on it; nothing is signalled but through a pidfd of
//! the very process that is meant; a new boot makes all records of the one before "ended".
//!
//! A service has to stay in the foreground. When its first process ends, it has ended, and what that left behind is ended too.
//!
//! What a service inherits is what its worker has and can't give back: limits, capabilities, `NoNewPrivileges`, and without `CAP_SYS_NICE` its niceness. A worker
//! that starts services must not step down. Under systemd the guard's unit needs `KillMode=process`, or systemd kills keepers and services with the guard.

mod environment;
mod files;
mod hand;
mod identity;
mod keeper;
mod order;
mod watch;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use model::ServiceName;
use rustix::process::Signal;

pub use self::keeper::{KeepError, main as keep};
use self::{
    files::Files,
    identity::{Standing, boot_id},
};
pub(crate) use self::{hand::until_ended, identity::read_bounded};
use super::{Act, ActError, Doing, Driver, Seen};
use crate::health::Process;

/// How long a service gets to stop, unless it says otherwise.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);
/// The longest time that one may ask for.
pub const STOP_WITHIN_MAX: Duration = Duration::from_secs(600);
/// When a service's log is rotated, in bytes, unless it says otherwise. Three more of that size are kept.
pub const LOG_BYTES: u64 = 8 * 1024 * 1024;
/// How long what a service left behind gets to end, asked and then killed.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a keeper waits for the one before it to end: that ends leftovers.
const KEEP_LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a launcher may take to become its service: it reads files and asks who a user is.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(10);

/// The signal that asks a service to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(Signal);

/// By name, with what PostgreSQL, nginx and uwsgi use.
const STOP_SIGNALS: &[(&str, Signal)] = &[
    ("SIGTERM", Signal::TERM),
    ("SIGINT", Signal::INT),
    ("SIGQUIT", Signal::QUIT),
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGWINCH", Signal::WINCH),
    ("SIGKILL", Signal::KILL),
];

impl StopSignal {
    fn number(self) -> i32 {
        self.0.as_raw()
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self(Signal::TERM)
    }
}

/// No name of a signal that stops something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no signal that stops a service; hint: one of {names}", names = names())]
pub struct ParseStopSignalError(String);

fn names() -> String {
    STOP_SIGNALS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl FromStr for StopSignal {
    type Err = ParseStopSignalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let found = STOP_SIGNALS.iter().find(|(name, _)| *name == upper || name.strip_prefix("SIG") == Some(&upper));
        found
            .map(|(_, signal)| Self(*signal))
            .ok_or_else(|| ParseStopSignalError(text.chars().take(40).collect::<String>().escape_default().to_string()))
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STOP_SIGNALS.iter().find(|(_, signal)| *signal == self.0).map_or("SIGTERM", |(name, _)| name))
    }
}

/// A service and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: ServiceName,
    /// Program and arguments. A program without a slash is looked for in `PATH`; nothing is expanded.
    pub command: Vec<String>,
    /// Where it runs; `/` where it is `None`. Provisioning makes it.
    pub directory: Option<PathBuf>,
    /// As whom it runs, with that user's groups; only root may choose.
    pub user: Option<String>,
    /// Its variables. Of ours it gets none; these win over those of files.
    pub environment: BTreeMap<String, String>,
    /// Files of variables, read at each start; a leading `-` lets one be missing.
    pub environment_files: Vec<String>,
    /// What asks it to stop.
    pub stop_signal: StopSignal,
    /// How long it then gets until it is killed; at most [`STOP_WITHIN_MAX`].
    pub stop_within: Duration,
    /// When its log is rotated, in bytes.
    pub log_bytes: u64,
}

impl Declared {
    /// A command with everything else as usual.
    pub fn new(name: impl Into<ServiceName>, command: impl IntoIterator<Item: Into<String>>) -> Self {
        Self {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            directory: None,
            user: None,
            environment: BTreeMap::new(),
            environment_files: Vec::new(),
            stop_signal: StopSignal::default(),
            stop_within: STOP_WITHIN,
            log_bytes: LOG_BYTES,
        }
    }
}

/// Starts services as processes. Any number of drivers may share a directory: locks let one act on a service at a time.
#[derive(Debug)]
pub struct ProcessDriver {
    dir: PathBuf,
    declared: Vec<Declared>,
    program: PathBuf,
    arguments: Vec<String>,
    watch: tokio::sync::Mutex<watch::Watch>,
}

impl ProcessDriver {
    /// `dir` holds what is remembered, and logs. It is made with the first start; a tmpfs will do, but for the logs.
    pub fn new(dir: &Path, declared: Vec<Declared>) -> Self {
        Self {
            dir: dir.to_owned(),
            declared,
            program: "/proc/self/exe".into(),
            arguments: vec!["keep".to_owned()],
            watch: tokio::sync::Mutex::default(),
        }
    }

    /// Another program than ourselves for keepers. It has to call [`keep`] with the two arguments that follow these.
    #[must_use]
    pub fn with_keeper(mut self, program: &Path, arguments: impl IntoIterator<Item: Into<String>>) -> Self {
        self.program = program.to_owned();
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Where a service's output is written. Older parts are in files with `.1` and so on behind that name.
    pub fn log_path(&self, service: &ServiceName) -> PathBuf {
        Files::new(&self.dir, service).path("log")
    }

    fn look(&self, declared: &Declared) -> Look {
        Look::at(&Files::new(&self.dir, &declared.name), &boot_id())
    }

    fn seen(&self, declared: &Declared) -> Seen {
        let look = self.look(declared);
        let process = match look.process {
            Process::Ended { .. } if hand::missing(declared).is_some() => Process::Removed,
            process => process,
        };
        Seen { run: look.run.map(|run| run.number), ..Seen::of(process) }
    }
}

/// What one look at a service's files and processes finds.
#[derive(Clone, Debug, PartialEq)]
struct Look {
    process: Process,
    run: Option<files::Run>,
    /// Its keeper, while that lives.
    keeper: Option<identity::Identity>,
}

impl Look {
    fn at(files: &Files, boot: &str) -> Self {
        let keeper = files.kept().unwrap_or_default().filter(|keeper| keeper.standing(boot) == Standing::Alive);
        let of = |process, run| Self { process, run, keeper: keeper.clone() };
        let unreadable = |error: io::Error| {
            // Torn by a crash of the host; all of that time has ended. Somebody else's doing, though, while a keeper lives.
            if error.kind() == io::ErrorKind::InvalidData && !files.is_kept() {
                return of(Process::Ended { code: None }, None);
            }
            let path = files.path("run");
            of(Process::Unknown { why: format!("can't read {}: {error}", path.display()) }, None)
        };
        let run = match files.run() {
            Ok(Some(run)) => run,
            Ok(None) => return of(Process::Ended { code: None }, None),
            Err(error) => return unreadable(error),
        };
        let end = files.end().ok().flatten().filter(|end| end.run == run.number);
        let process = match run.process.standing(boot) {
            _ if run.process.boot != boot => Process::Ended { code: None },
            Standing::Alive => Process::Running,
            // Until its keeper has written down how it ended.
            Standing::Zombie if end.is_none() && keeper.is_some() => Process::Running,
            Standing::Zombie | Standing::Gone => Process::Ended { code: end.and_then(|end| end.code) },
        };
        of(process, Some(run))
    }
}

impl Driver for ProcessDriver {
    fn kind(&self) -> &'static str {
        "process"
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        Box::pin(async { self.declared.iter().map(|one| (one.name.clone(), self.seen(one))).collect() })
    }

    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>> {
        Box::pin(async move {
            let declared = self.declared.iter().find(|one| one.name == *service).ok_or_else(|| ActError::Absent {
                act,
                service: service.as_str().escape_default().to_string().into(),
                why: "no service of that name is declared with the driver `process`".into(),
                hint: "look at the services of the configuration".into(),
            })?;
            self.act_on(declared, act).await
        })
    }

    fn tend(&self) -> Doing<'_, ()> {
        Box::pin(self.adopt_all())
    }

    fn changed(&self) -> Doing<'_, ()> {
        Box::pin(self.until_changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name() {
        for (text, expected) in
            [("SIGTERM", "SIGTERM"), ("int", "SIGINT"), ("sigquit", "SIGQUIT"), ("WINCH", "SIGWINCH")]
        {
            assert_eq!(text.parse::<StopSignal>().unwrap().to_string(), expected);
        }
        for text in ["", "9", "SIGSTOP", "SIG", "\u{1b}[31m"] {
            let error = text.parse::<StopSignal>().unwrap_err().to_string();
            assert!(error.contains("hint: one of SIGTERM, ") && !error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn records_of_another_boot_mean_that_all_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), &"site".into());
        let this = identity::Identity::this().unwrap();
        let run = files::Run { number: 7, process: this.clone() };
        files.write("run", &run).unwrap();
        assert_eq!(Look::at(&files, &this.boot).process, Process::Running);
        let after = Look::at(&files, "the next boot");
        assert_eq!((after.process, after.run), (Process::Ended { code: None }, Some(run)));
        std::fs::write(files.path("run"), "torn").unwrap();
        assert_eq!(Look::at(&files, &this.boot).process, Process::Ended { code: None });
        let lock = files.lock_file("keep").unwrap();
        lock.try_lock().unwrap();
        assert!(matches!(Look::at(&files, &this.boot).process, Process::Unknown { .. }), "somebody keeps it");
    }
}
