//! A command's exit code.

use std::{io, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Child,
    time::timeout,
};

use super::{ProbeError, Said, plain};
use crate::{
    driver::process::until_ended,
    health::{Answer, Progress},
};

/// How much of its output is kept, in bytes of its end. The rest is read and forgotten, so that it never waits for us.
const OUTPUT_BYTES_MAX: usize = 4096;
/// "Try again later" (sysexits.h, `EX_TEMPFAIL`): it is starting, and says so.
pub const STARTING: i32 = 75;
/// How long the rest of its output may take once it has ended: a child in a session of its own may hold it open.
const DRAIN_PATIENCE: Duration = Duration::from_millis(200);
/// What precedes its progress in a line of its output: `progress: PHASE NUMBER`.
const PROGRESS: &str = "progress:";
/// What the command finds in its environment: nothing of ours.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command. Exit code 0 is healthy; 75 is starting, and a line `progress: PHASE NUMBER` of its output then tells how far; 126 and 127 mean, as in a shell, that
/// it could not be run; all else is unhealthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    command: Vec<String>,
}

impl Command {
    /// Program and arguments; nothing is expanded.
    ///
    /// # Errors
    /// There is no program in it.
    pub fn new(command: impl IntoIterator<Item: Into<String>>) -> Result<Self, ProbeError> {
        let command: Vec<String> = command.into_iter().map(Into::into).collect();
        let hint = "write the program and each of its arguments as a text of its own";
        match command.first() {
            None => Err(ProbeError::new("", "the command is empty", hint)),
            Some(program) if program.trim().is_empty() => Err(ProbeError::new(program, "it names no program", hint)),
            _ if command.iter().any(|part| part.contains('\0')) => Err(ProbeError::new("", "it holds a NUL", hint)),
            Some(_) => Ok(Self { command }),
        }
    }

    pub(super) async fn ask(&self) -> Said {
        let mut command = tokio::process::Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .current_dir(Path::new("/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let why = format!("can't run {}: {error}", plain(&self.command[0]));
                return Said::of(Answer::Unknown { why });
            }
        };
        let mut group = Group { child };
        let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        {
            let reading = async {
                tokio::join!(read(out, &mut output), read(err, &mut errors));
            };
            let mut reading = std::pin::pin!(reading);
            // Its own end counts, not that of its output: what it left behind may hold that open.
            let mut read_all = false;
            let ended = tokio::select! {
                ended = group.ended() => ended,
                () = &mut reading => {
                    read_all = true;
                    group.ended().await
                }
            };
            if let Err(error) = ended {
                return Said::of(Answer::Unknown { why: format!("its end can't be told: {error}") });
            }
            group.kill();
            if !read_all {
                // All who held it are gone: what was written is there.
                let _ = timeout(DRAIN_PATIENCE, reading).await;
            }
        }
        let status = match group.child.wait().await {
            Ok(status) => status,
            Err(error) => return Said::of(Answer::Unknown { why: format!("its end can't be told: {error}") }),
        };
        let (output, errors) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&errors));
        let last = |text: &str| text.lines().rev().find(|line| !line.trim().is_empty()).map(plain);
        let word = last(&errors).or_else(|| last(&output)).map_or_else(String::new, |line| format!(": {line}"));
        let answer = match status.code() {
            Some(0) => Answer::Healthy,
            Some(STARTING) => Answer::Starting,
            Some(code @ (126 | 127)) => Answer::Unknown { why: format!("it could not be run (code {code}){word}") },
            Some(code) => Answer::Unhealthy { why: format!("code {code}{word}") },
            None => Answer::Unknown { why: format!("it was killed ({status}){word}") },
        };
        let progress = (answer == Answer::Starting).then(|| progress(&output)).flatten();
        Said { answer, progress, run: None }
    }
}

/// A command with all that it starts: gone when this is.
struct Group {
    child: Child,
}

impl Group {
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }

    /// Waits for its end without taking note of it: so its id stays that of its group.
    async fn ended(&self) -> io::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        until_ended(pidfd_open(pid, PidfdFlags::empty())?).await
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads to the end and keeps the last of it.
async fn read(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; OUTPUT_BYTES_MAX];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(OUTPUT_BYTES_MAX);
        kept.drain(..surplus);
    }
}

/// The last line that tells of progress.
pub(crate) fn progress(output: &str) -> Option<Progress> {
    output.lines().rev().find_map(|line| {
        let (phase, done) = line.trim().strip_prefix(PROGRESS)?.trim().rsplit_once(' ')?;
        Some(Progress { phase: plain(phase), done: done.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_progress() {
        let told = |text| progress(text).map(|one| (one.phase, one.done));
        assert_eq!(told("progress: loading shards 7\n"), Some(("loading shards".to_owned(), 7)));
        assert_eq!(told("a\nprogress: a 1\nprogress: b 2\nc"), Some(("b".to_owned(), 2)));
        for text in ["", "progress:", "progress: 7", "progress: a b", "progress: a -1", "shards 7"] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn empty_commands_are_refused() {
        for command in [vec![], vec![""], vec![" "], vec!["a\0"]] {
            Command::new(command).unwrap_err();
        }
    }
}
