//! Password files (the manual, "The Password File").

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{FileError, Host, Target};

/// The largest password file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// What libpq looks for when the host is a socket in a default directory.
const LOCALHOST: &str = "localhost";

/// The password for `host`: the target's own, or that of its password file. `None` where there is none.
///
/// `database` is what the file's third field is compared with: a database's name, or `replication`.
///
/// # Errors
/// The password file can't be used. A file in the home directory that is not there is no error.
pub fn password(target: &Target, host: &Host, database: &str) -> Result<Option<String>, FileError> {
    if let Some(password) = &target.password {
        return Ok(Some(password.clone()));
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let (path, named) = match &target.passfile {
        Some(path) => (path.clone(), true),
        None => match home() {
            Some(path) => (path, false),
            None => return Ok(None),
        },
    };
    match read(&path) {
        Ok(text) => Ok(find(&text, host, &target.user, &[database, target.dbname.as_deref().unwrap_or(database)])),
        Err(_) if !named && !path.exists() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<String, FileError> {
    let unreadable = |error: io::Error| FileError::new(path, error, "name a password file that this user can read");
    let metadata = fs::metadata(path).map_err(unreadable)?;
    // A password that others can read is none; libpq passes over such a file, silently enough to puzzle people.
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        return Err(FileError::new(path, "others may read it", "chmod 0600 the file"));
    }
    if metadata.len() > FILE_MAX {
        let why = format!("it has {} bytes", metadata.len());
        return Err(FileError::new(path, why, "a password file has a line per server"));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// The first line that fits: `host:port:database:user:password`, a star fits everything, a backslash stands before colons and
/// backslashes.
fn find(text: &str, host: &Host, user: &str, databases: &[&str]) -> Option<String> {
    let (name, port) = match host {
        Host::Tcp(name, port) => (name.clone(), *port),
        Host::Unix(directory, port) => (directory.to_string_lossy().into_owned(), *port),
    };
    let is_socket = matches!(host, Host::Unix(..));
    let port = port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let [line_host, line_port, line_dbname, line_user, password] = fields(line)?;
        let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
        let host_fits = fits(&line_host, &name) || (is_socket && line_host == LOCALHOST);
        let database_fits = databases.iter().any(|database| fits(&line_dbname, database));
        (host_fits && fits(&line_port, &port) && database_fits && fits(&line_user, user)).then_some(password)
    })
}

fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields: Vec<String> = vec![String::new()];
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut()?.push(characters.next().unwrap_or('\\')),
            other => fields.last_mut()?.push(other),
        }
    }
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits() {
        let text = "# a comment\nbroken\nother:*:*:*:no\ndb:5432:replication:me:it\\:s \\\\\ndb:*:*:*:second\nlocalhost:1:app:*:socket\n";
        let tcp = |port| Host::Tcp("db".to_owned(), port);
        let socket = Host::Unix(PathBuf::from("/run/postgresql"), 1);
        for (host, user, database, expected) in [
            (&tcp(5432), "me", "replication", Some("it:s \\")),
            (&tcp(5432), "you", "replication", Some("second")),
            (&tcp(1), "me", "app", Some("second")),
            (&socket, "me", "app", Some("socket")),
            (&socket, "me", "replication", None),
        ] {
            assert_eq!(find(text, host, user, &[database]).as_deref(), expected, "{host} {user}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        let mut target = Target::new(Host::Tcp("db".to_owned(), 1), "me");
        target.passfile = Some(path.clone());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = password(&target, &target.hosts[0], "replication").unwrap_err().to_string();
        assert!(error.contains("0600") && !error.contains("secret"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(password(&target, &target.hosts[0], "replication").unwrap().as_deref(), Some("secret"));
        target.passfile = Some(dir.path().join("absent"));
        assert!(password(&target, &target.hosts[0], "replication").is_err());
        target.password = Some("own".to_owned());
        assert_eq!(password(&target, &target.hosts[0], "replication").unwrap().as_deref(), Some("own"));
    }
}
