//! Another tool's restore, run by a command of the user's.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use super::{
    error::{Halt, ProveError},
    place::Place,
    receipt::clip,
};
use crate::progress::Progress;

/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Words that say that what follows them is a secret.
const SECRET_WORDS: &[&str] = &["pass", "secret", "key", "token", "credential"];

/// Looks at the command before anything is done.
pub(crate) fn check(command: &str) -> Result<(), ProveError> {
    match command {
        it if it.trim().is_empty() => Err(ProveError::Command { why: "is empty" }),
        it if !it.contains("{pgdata}") => Err(ProveError::Command {
            why: "does not say where to restore to: it must contain {pgdata}, which becomes an empty directory",
        }),
        _ => Ok(()),
    }
}

/// Runs it, outside of the fence and as ourselves: it needs its own configuration and network.
pub(crate) fn run(command: &str, place: &Place, log: &Path, progress: &dyn Progress) -> Result<(), Halt> {
    let data = place.data();
    // Some tools want it to be there, and all want it empty.
    fs::create_dir(&data).map_err(Halt::file("create", &data))?;
    fs::set_permissions(&data, Permissions::from_mode(0o700)).map_err(Halt::file("close", &data))?;
    let filled = command
        .replace("{pgdata}", &data.display().to_string())
        .replace("{scratch}", &place.tool().display().to_string());
    let out = fs::File::create(log).map_err(Halt::file("create", log))?;
    let err = out.try_clone().map_err(Halt::file("open", log))?;
    let failed = |error| Halt::not_proven(format!("the restore command can't be run: {error}"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &filled]).current_dir(place.tool()).stdin(Stdio::null()).stdout(out).stderr(err);
    // A group of its own, so that all of it can be ended.
    let mut child = shell.process_group(0).spawn().map_err(failed)?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if progress.cancelled() {
            end_group(&mut child);
            return Err(Halt::not_proven("the proof was cancelled"));
        }
        std::thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    let said = fs::read(log).unwrap_or_default();
    let tail = &said[said.len().saturating_sub(super::receipt::TEXT_MAX_BYTES)..];
    Err(judge(&status.to_string(), &String::from_utf8_lossy(tail)))
}

/// A full disk says nothing about the backup.
fn judge(status: &str, said: &str) -> Halt {
    let full = said.contains("No space left on device") || said.contains("Disk quota exceeded");
    let reason = format!("the restore command failed ({status}): {}", clip(said.trim()));
    if full {
        Halt::not_proven(format!("{reason}; hint: name a larger scratch directory"))
    } else {
        Halt::failed(reason)
    }
}

fn end_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Not reaped yet, so the id is still its own.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// The command as a receipt may keep it: the values of options that look like secrets are left out.
pub(crate) fn redact(command: &str) -> String {
    let mut hide_next = false;
    let words = command.split(' ').map(|word| {
        if std::mem::take(&mut hide_next) && !word.starts_with('-') {
            return "…".to_owned();
        }
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let lower = name.to_ascii_lowercase();
        if !SECRET_WORDS.iter().any(|secret| lower.contains(secret)) {
            return word.to_owned();
        }
        match value {
            Some(_) => format!("{name}=…"),
            None => {
                hide_next = name.starts_with('-');
                word.to_owned()
            }
        }
    });
    clip(&words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::receipt::Verdict;

    #[test]
    fn secrets_stay_out_of_receipts() {
        for (command, expected) in [
            (
                "pgbackrest --repo1-cipher-pass=x restore --pg1-path={pgdata}",
                "pgbackrest --repo1-cipher-pass=… restore --pg1-path={pgdata}",
            ),
            ("PGPASSWORD=x tool --secret-key y --to {pgdata}", "PGPASSWORD=… tool --secret-key … --to {pgdata}"),
            ("tool --api-token --to {pgdata}", "tool --api-token --to {pgdata}"),
        ] {
            assert_eq!(redact(command), expected);
        }
    }

    #[test]
    fn a_full_disk_is_not_the_backups_fault() {
        assert_eq!(
            judge("exit status: 1", "cp: error writing 'x': No space left on device\n").verdict,
            Verdict::NotProven
        );
        assert_eq!(judge("exit status: 1", "ERROR: [041]: checksum mismatch").verdict, Verdict::Failed);
    }

    #[test]
    fn a_command_must_say_where_to() {
        assert!(check("cp -a x {pgdata}").is_ok());
        for command in ["", "  ", "pgbackrest restore"] {
            assert!(check(command).is_err(), "{command}");
        }
    }
}
