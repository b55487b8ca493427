//! The scratch server: started inside of the fence, watched until it has recovered, killed at the end.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{
    error::Halt,
    fence::{
        keeper::{Job, Keeper, Site},
        memory::MemoryGroup,
    },
    place::{Place, kill_below, remove_shared_memory},
    programs::Programs,
    receipt::clip,
};

/// How often a start is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How much of the log a message quotes.
const LOG_TAIL_BYTES: u64 = 1500;
/// How long a single-user server may take for one statement.
const SINGLE_PATIENCE: Duration = Duration::from_secs(600);

/// A scratch server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Must live as long as the child, see [`Keeper`].
    _keeper: Keeper,
    data: PathBuf,
    log: PathBuf,
    /// Why its memory is not bounded although that was asked for.
    pub(crate) memory_gap: Option<String>,
    /// Its successor may run in the same directory: dropping it must not kill that.
    ended: bool,
}

/// What a server is started from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) site: &'a Site,
    pub(crate) programs: &'a Programs,
    pub(crate) place: &'a Place,
    pub(crate) memory: Option<&'a MemoryGroup>,
    /// How long recovery may take.
    pub(crate) patience: Duration,
}

impl Launch<'_> {
    fn job(&self, args: &[&str], stdin: Stdio) -> Result<Job, Halt> {
        let log = self.place.log();
        let output = File::options().create(true).append(true).open(&log).map_err(Halt::file("open", &log))?;
        let data = self.place.data();
        let mut all: Vec<OsString> = args.iter().map(OsString::from).collect();
        all.extend(["-D".into(), data.clone().into(), "-c".into()]);
        all.push(format!("config_file={}", self.place.conf().join("postgresql.conf").display()).into());
        Ok(Job { program: self.programs.postgres(), args: all, directory: data, stdin, output })
    }

    fn spawn(&self, job: Job) -> Result<(Keeper, Child, Option<String>), Halt> {
        let keeper = Keeper::start(self.site.clone())
            .map_err(|why| Halt::not_proven(format!("the fence could not be built: {why}")))?;
        let child = keeper
            .spawn(job)
            .map_err(|error| Halt::not_proven(format!("the scratch server does not start: {error}")))?;
        let memory_gap = self.memory.and_then(|memory| memory.take(child.id()).err());
        Ok((keeper, child, memory_gap))
    }

    /// Starts the server and waits until it accepts connections: until recovery is over.
    pub(crate) fn start(&self, cancelled: &dyn Fn() -> bool) -> Result<Server, Halt> {
        let (data, log) = (self.place.data(), self.place.log());
        let log_start = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let (keeper, child, memory_gap) = self.spawn(self.job(&[], Stdio::null())?)?;
        let mut server = Server { child, _keeper: keeper, data, log, memory_gap, ended: false };
        let deadline = Instant::now() + self.patience;
        loop {
            if is_ready(&server.data) {
                return Ok(server);
            }
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(judge_end(&status.to_string(), &server.log_since(log_start)));
            }
            if cancelled() {
                return Err(Halt::not_proven("the proof was cancelled"));
            }
            if Instant::now() >= deadline {
                return Err(Halt::not_proven(format!(
                    "recovery was not over after {} s; hint: allow it more time; the end of its log: {}",
                    self.patience.as_secs(),
                    server.log_tail()
                )));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Runs one statement on a single-user server, which needs no role to log in. No other server may run.
    pub(crate) fn single_user(&self, sql: &str) -> Result<(), Halt> {
        let mut job = self.job(&["--single", "-j"], Stdio::piped())?;
        job.args.push("template1".into());
        let (_keeper, mut child, _) = self.spawn(job)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A server that ended says why in its log.
            let _ = stdin.write_all(format!("{sql};\n\n").as_bytes());
        }
        let deadline = Instant::now() + SINGLE_PATIENCE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Halt::not_proven("the single-user server did not end"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Server {
    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        self.log_since(0)
    }

    fn log_since(&self, start: u64) -> String {
        tail(&self.log, start).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Where redo ended, as the log has it.
    pub(crate) fn redo_done(&self) -> Option<model::Lsn> {
        let text = fs::read_to_string(&self.log).ok()?;
        let (_, rest) = text.rsplit_once("redo done at ")?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once: nobody will want a checkpoint.
    pub(crate) fn kill(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // With process namespaces all others end with the first; without, they notice, or are killed below.
        let _ = self.child.kill();
        let _ = self.child.wait();
        kill_below(&self.data);
        // What a killed server leaves would pass for the next one's.
        remove_shared_memory(&self.data);
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// postmaster.pid has the state in its eighth line. The process id in its first is that of another namespace.
fn is_ready(data: &Path) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    text.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

fn tail(path: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// What the host is to blame for, by the server's own words (lc_messages is C). All else is the backup's fault.
const HOST_FAULTS: &[(&str, &str)] = &[
    ("No space left on device", "the disk is full; hint: name a larger scratch directory"),
    ("could not access file", "a library is missing on this host; hint: install the extension's package"),
    ("could not load library", "a library can't be loaded on this host; hint: install the extension's package"),
    ("resource manager with ID", "its WAL needs an extension's library; hint: name it among the libraries to preload"),
    ("Cannot allocate memory", "memory does not suffice; hint: allow the proof more"),
    ("could not map anonymous shared memory", "memory does not suffice; hint: allow the proof more"),
    (
        "error while loading shared libraries",
        "the server's programs lack a library on this host, or inside of the fence",
    ),
    ("Read-only file system", "WAL acts on a place outside of the scratch directory, which the fence denied"),
    ("Permission denied", "the fence, or this user's rights, denied it a file"),
    ("setpriv:", "it could not become the server's user"),
    ("unshare:", "namespaces could not be made"),
    (
        "does not exist\nHINT:  Create this directory for the tablespace",
        "WAL creates a tablespace at a place that the fence does not have",
    ),
];

fn judge_end(status: &str, log: &str) -> Halt {
    let log = clip(log);
    match HOST_FAULTS.iter().find(|(words, _)| log.contains(words)) {
        Some((_, why)) => {
            Halt::not_proven(format!("the scratch server ended during recovery ({status}): {why}; its log: {log}"))
        }
        None => Halt::failed(format!("recovery failed ({status}): {log}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::receipt::Verdict;

    #[test]
    fn the_hosts_faults_are_not_the_backups() {
        for (log, verdict) in [
            ("FATAL:  could not access file \"x\": No such file or directory", Verdict::NotProven),
            ("PANIC:  could not write to file: No space left on device", Verdict::NotProven),
            ("FATAL:  WAL ends before end of online backup", Verdict::Failed),
            ("PANIC:  could not locate a valid checkpoint record", Verdict::Failed),
        ] {
            assert_eq!(judge_end("exit status: 1", log).verdict, verdict, "{log}");
        }
    }
}
