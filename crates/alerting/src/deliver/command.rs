//! A command that is told of alerts: each starts it once, with the alert as JSON on its standard input.

use std::{fs, process::Stdio, time::Duration};

use model::Alert;
use rustix::process::{Pid, Signal, getpriority_process, kill_process_group, setpriority_process};
use tokio::{io::AsyncWriteExt as _, process::Command as Process};

use super::target::Failure;
use crate::{
    lines::to_line,
    protocol::{WebhookBody, idempotency_key},
    route::Command,
};

/// How long a command may take.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// The variable that holds the deduplication key.
const KEY_VARIABLE: &str = "OXPECKER_ALERT_KEY";

/// Ends all that a command started, however this future ends.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// The worker is spared when memory is short and runs at a raised priority, as the guard does; what others wrote is not and does not. There is nothing that
/// the child could be asked to do first without unsafe code: for the moment between its start and this it has what the worker has.
fn make_ordinary(pid: u32) {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if getpriority_process(process).is_ok_and(|niceness| niceness < 0)
        && let Err(error) = setpriority_process(process, 0)
    {
        tracing::debug!(%error, "a command keeps the worker's priority");
    }
    let file = format!("/proc/{pid}/oom_score_adj");
    let score = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if score.is_some_and(|score| score < 0)
        && let Err(error) = fs::write(&file, "0")
    {
        tracing::debug!(%error, "a command is spared as the worker is when memory is short");
    }
}

/// Runs it. Exit code 0 means taken; all else is tried again.
///
/// # Errors
/// Why it was not taken, without what the command was called with.
pub(super) async fn run(command: &Command, alert: &Alert) -> Result<(), Failure> {
    let failed = |error: String| Failure { error, permanent: false, retry_after: None };
    let [program, args @ ..] = command.argv.as_slice() else {
        return Err(failed("its command is empty. Hint: name the program and its arguments".into()));
    };
    let mut child = Process::new(program)
        .args(args)
        .env(KEY_VARIABLE, idempotency_key(alert))
        .stdin(Stdio::piped())
        // The worker's own output is the pipe to the guard. What the command complains about goes to the guard's log.
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{program} can't be started: {error}. Hint: name it by its whole path")))?;
    if let Some(pid) = child.id() {
        make_ordinary(pid);
    }
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let ended = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read what it is told may still do its work.
            let _ = stdin.write_all(&to_line(&WebhookBody::from(alert))).await;
        }
        child.wait().await
    };
    let status = match tokio::time::timeout(COMMAND_TIMEOUT, ended).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(failed(format!("{program} can't be waited for: {error}"))),
        Err(_) => {
            let seconds = COMMAND_TIMEOUT.as_secs();
            return Err(failed(format!("{program} did not end within {seconds} s and was killed")));
        }
    };
    // It ended by itself: what it left running on purpose stays, and its number may soon be another's.
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!("{program} ended with {status}. Hint: what it wrote to standard error is in the guard's log")))
}
