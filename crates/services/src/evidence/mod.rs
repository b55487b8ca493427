//! Reads what is left of a host's boot and of a server's run, for [`crate::boot`] and [`crate::damage`] to judge. It changes nothing.
//!
//! Everything is bounded: bytes of each file, lines of each log, the time of each program. What can't be read is said, never guessed.
//!
//! ```text
//! host       the log of the boot before, crash dumps, wtmp, watchdogs
//! server     PostgreSQL's log, and the kernel's since
//! directory  a data directory that nobody serves
//! ```

pub mod directory;
pub mod host;
pub mod server;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a program that reads logs may take.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of its output that are kept.
const OUTPUT_MAX: u64 = 8 << 20;
/// How often is looked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// The last bytes of a file, at most so many, beginning with a whole line where it was cut.
pub(crate) fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(most);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if from > 0 {
        let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
        bytes.drain(..line);
    }
    Ok(bytes)
}

/// What a program prints, or why not, in words.
fn printed(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let fail = |why: String| format!("{program}: {why}");
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| fail(error.to_string()))?;
    let reader = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // Not read to its end, it gets a broken pipe and ends by itself.
            stdout.take(OUTPUT_MAX).read_to_end(&mut bytes).map(|_| bytes)
        })
    });
    let deadline = Instant::now() + PROGRAM_PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fail(format!("it took longer than {} s", PROGRAM_PATIENCE.as_secs())));
            }
            Err(error) => return Err(fail(error.to_string())),
        }
    };
    let read = reader.map(thread::JoinHandle::join);
    match read {
        Some(Ok(Ok(bytes))) if status.success() || bytes.len() as u64 == OUTPUT_MAX => Ok(bytes),
        Some(Ok(Ok(_))) => Err(fail(status.to_string())),
        Some(Ok(Err(error))) => Err(fail(error.to_string())),
        _ => Err(fail("its output was not read".to_owned())),
    }
}
