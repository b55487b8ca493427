//! Secrets that open the repository: from a file, a variable or a person.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use repository::{RecoveryKey, Secret, key::BadSecret};
use zeroize::Zeroizing;

use crate::{
    config::{self, REPOSITORY_PASSPHRASE},
    exit::Failure,
    output,
    prompt::{Echo, ask},
};

/// The longest secret that is read from a file or a person, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// What opens the repository: the key or passphrase file, or the variable, or what a person types.
///
/// # Errors
/// Where none can be had, or it can't be a secret.
pub fn of(repository: &config::Repository) -> Result<Secret, Failure> {
    if let Some(path) = &repository.key_file {
        return key_file(path);
    }
    if let Some(path) = &repository.passphrase_file {
        return from_file(path);
    }
    if let Some(text) = from_environment() {
        return from_text(&text);
    }
    let text = ask("Passphrase or recovery key: ", Echo::Off)?.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!("nothing says what opens the repository")).hint(format!(
            "key_file or passphrase_file in [repository], --key-file, --passphrase-file, or the variable {REPOSITORY_PASSPHRASE}; on a terminal you are asked"
        ))
    })?;
    from_text(&text)
}

/// What is in a key file that is there.
///
/// # Errors
/// Where it can't be read, or is no key file.
pub fn key_file(path: &Path) -> Result<Secret, Failure> {
    Secret::key_file(path).map_err(|error| {
        let hint = match error {
            BadSecret::KeyFileSize { .. } => {
                "is this the right file? `backup init` or `key add --new-key-file` made it"
            }
            _ => "see that it is there, that it is a file, and that this user may read it",
        };
        Failure::usage(error).hint(hint)
    })
}

/// The variable, where it is set.
pub fn from_environment() -> Option<Zeroizing<String>> {
    std::env::var(REPOSITORY_PASSPHRASE).ok().filter(|text| !text.is_empty()).map(Zeroizing::new)
}

/// A passphrase, or the recovery key where the text is one: whoever has only the paper writes it where a passphrase would be.
pub fn from_text(text: &str) -> Result<Secret, Failure> {
    let secret =
        if text.parse::<RecoveryKey>().is_ok() { Secret::recovery_key(text) } else { Secret::passphrase(text) };
    secret.map_err(Failure::usage)
}

/// From a file with a passphrase or a recovery key.
pub fn from_file(path: &Path) -> Result<Secret, Failure> {
    use io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let read = fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(read) if read as u64 > SECRET_BYTES_MAX => {
            Err(Failure::usage(anyhow::anyhow!("{} is too long for a passphrase", path.display()))
                .hint("it holds one line: the passphrase or the recovery key"))
        }
        Ok(_) => from_text(&text),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::InvalidData => {
                    "it holds one line of text: the passphrase or the recovery key; a key file goes with --key-file"
                }
                _ => "see that it is there, that it is a file, and that this user may read it",
            };
            let said = format!("can't read the passphrase in {}", path.display());
            Err(Failure::usage(anyhow::Error::new(error).context(said)).hint(hint))
        }
    }
}

/// The key file `path`, which is made where it is not there. True: it was made.
pub fn key_file_or_new(path: &Path) -> Result<(Secret, bool), Failure> {
    let made = match make_key_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            let said = format!("can't make the key file {}", path.display());
            return Err(Failure::usage(anyhow::Error::new(error).context(said)).hint(
                "its directory must be there, with some room, and this user may write to it: `install -d -m 700 DIR`",
            ));
        }
    };
    let secret = key_file(path)?;
    if let Ok(found) = fs::metadata(path)
        && found.permissions().mode() & 0o077 != 0
    {
        output::note(&format!(
            "warning: {} can be read by others than its owner (mode {:03o}); `chmod 600` it",
            path.display(),
            found.permissions().mode() & 0o777
        ));
    }
    Ok((secret, made))
}

/// The new file and its directory are on the disk when this returns: a repository whose only key was lost with the power is lost too.
fn make_key_file(path: &Path) -> io::Result<()> {
    let text = Secret::new_key_file().map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        // Half a key would be taken for one by the next run.
        drop(fs::remove_file(path));
        return Err(error);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

/// A new passphrase, typed twice; `None` where there is no terminal.
pub fn ask_new() -> Result<Option<Secret>, Failure> {
    let Some(first) = ask("New passphrase: ", Echo::Off)? else { return Ok(None) };
    let secret = Secret::passphrase(&first).map_err(Failure::usage)?;
    let again = ask("The same again: ", Echo::Off)?.unwrap_or_default();
    if again != first {
        return Err(
            Failure::usage(anyhow::anyhow!("the two passphrases differ")).hint("nothing was changed; try again")
        );
    }
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(key_file_or_new(&path).unwrap().1);
        let first = fs::read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!key_file_or_new(&path).unwrap().1);
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(key_file_or_new(&dir.path().join("no/such")).unwrap_err().code, crate::exit::USAGE);
    }

    #[test]
    fn weak_and_endless_passphrases_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (text, fine) in [("correct horse battery", true), ("short", false), (&*"x".repeat(5000), false)] {
            fs::write(&path, text).unwrap();
            assert_eq!(from_file(&path).is_ok(), fine, "{} bytes", text.len());
        }
        assert!(from_file(dir.path()).is_err());
    }
}
