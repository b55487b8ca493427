//! Where things are when nobody says so: the state directory and the local cluster.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use pg_connect::Host;

use crate::{config, exit::Failure};

const SYSTEM_STATE_DIR: &str = "/var/lib/oxpecker";

/// PostgreSQL's own default.
const DEFAULT_PORT: u16 = 5432;

/// Where servers put their unix sockets: Debian and most packages, then PostgreSQL's own default.
const SOCKET_DIRS: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];

/// The state directory: the declared one; /var/lib/oxpecker where we are root or it is ours; else below the user's home.
pub fn state_dir(config: &config::Config) -> PathBuf {
    if let Some(dir) = &config.state_dir {
        return dir.clone();
    }
    let system = Path::new(SYSTEM_STATE_DIR);
    let me = rustix::process::geteuid();
    let is_mine = fs::metadata(system).is_ok_and(|m| m.uid() == me.as_raw());
    if me.is_root() || is_mine {
        return system.to_owned();
    }
    let home = || env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    let base = env::var_os("XDG_STATE_HOME").filter(|s| !s.is_empty()).map(PathBuf::from).or_else(home);
    base.map_or_else(|| system.to_owned(), |b| b.join("oxpecker"))
}

/// This host's name, as backups record it.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How to reach the guarded server. Not `Debug`: it may hold a password.
#[derive(Clone)]
pub struct Target {
    /// The connection string (libpq's key-value form), with the password where one is declared.
    pub connection: String,
    /// The address as people read it, without secrets.
    pub described: String,
}

/// Finds out how to reach the server: the declared address, else the `PG*` variables, else the first unix socket there is.
///
/// # Errors
/// When the address or the password's file can't be used.
pub fn target(postgres: &config::Postgres) -> Result<Target, Failure> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let mut target = match &postgres.url {
        Some(url) => pg_connect::Target::parse(url, user_name)
            .map_err(|error| Failure::usage(anyhow::Error::new(error).context("postgres.url can't be used")))?,
        None => undeclared(&SOCKET_DIRS.map(PathBuf::from), variable)?,
    };
    let password = match &postgres.password_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|e| Failure::usage(e).hint(format!("postgres.password_file is {}", path.display())))?,
        ),
        None => variable("PGPASSWORD"),
    };
    if let (Some(password), None) = (password, &target.password) {
        target.password = Some(password.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(Target { described: describe(&target), connection: target.connection_string() })
}

/// The variables of libpq that say how, each with the parameter that it stands for (the manual, "Environment Variables").
const VARIABLES: [(&str, &str); 7] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGPASSFILE", "passfile"),
    ("PGOPTIONS", "options"),
];

/// Where nobody declared an address: as the variables say, else the first unix socket there is.
fn undeclared(dirs: &[PathBuf], variable: impl Fn(&str) -> Option<String>) -> Result<pg_connect::Target, Failure> {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let pairs = VARIABLES
        .iter()
        .filter_map(|(name, parameter)| variable(name).map(|value| format!("{parameter}='{}'", quoted(&value))));
    let pairs = pairs.collect::<Vec<_>>().join(" ");
    let user = || variable("PGUSER").unwrap_or_else(user_name);
    let mut target = pg_connect::Target::parse(&pairs, user)
        .map_err(|error| Failure::usage(anyhow::Error::new(error).context("a PGSSL... variable can't be used")))?;
    target.dbname = Some(variable("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
    target.hosts = vec![host(dirs, variable)];
    Ok(target)
}

fn host(dirs: &[PathBuf], variable: impl Fn(&str) -> Option<String>) -> Host {
    let declared_port = variable("PGPORT").and_then(|p| p.parse().ok());
    if let Some(host) = variable("PGHOST") {
        let port = declared_port.unwrap_or(DEFAULT_PORT);
        return if host.starts_with('/') { Host::Unix(host.into(), port) } else { Host::Tcp(host, port) };
    }
    let found = dirs.iter().find_map(|dir| {
        let mut ports: Vec<u16> = fs::read_dir(dir)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(".s.PGSQL.")?.parse().ok())
            .filter(|port| declared_port.is_none_or(|declared| declared == *port))
            .collect();
        ports.sort_unstable();
        Some((dir, *ports.first()?))
    });
    // A server that is down has no socket. It is guarded all the same, at the place where it will come up: after a reboot the guard may
    // be the first to start, and a database that does not come back is what it has to tell.
    let (dir, port) = found.unwrap_or_else(|| {
        let dir = dirs.iter().find(|dir| dir.is_dir()).unwrap_or(&dirs[0]);
        let port = declared_port.unwrap_or(DEFAULT_PORT);
        tracing::warn!(
            "no PostgreSQL was declared and none has a unix socket in {}: waiting for one at {}, port {port} \
             (hint: `url` in [postgres] or OXPECKER_POSTGRES_URL names another)",
            dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", "),
            dir.display()
        );
        (dir, port)
    });
    Host::Unix(dir.clone(), port)
}

/// The user's name as libpq takes it: `$PGUSER` was looked at before; the password file of the system knows our uid.
fn user_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let from_passwd = fs::read_to_string("/etc/passwd").ok().and_then(|passwd| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    });
    from_passwd.or_else(|| env::var("USER").ok()).unwrap_or_else(|| "postgres".to_owned())
}

fn describe(target: &pg_connect::Target) -> String {
    let first = target.hosts.first();
    let (host, port) = first.map_or_else(|| ("localhost".to_owned(), DEFAULT_PORT), |host| (host.name(), host.port()));
    let database = target.dbname.as_deref().unwrap_or(&target.user);
    format!("{host}:{port}/{database} as {}", target.user)
}

#[cfg(test)]
mod tests {
    use pg_connect::SslMode;

    use super::*;

    #[test]
    fn variables_say_how() {
        let variable = |name: &str| match name {
            "PGHOST" => Some("db.example".to_owned()),
            "PGPORT" => Some("6000".to_owned()),
            "PGUSER" => Some("o'x".to_owned()),
            "PGSSLMODE" => Some("verify-full".to_owned()),
            "PGSSLROOTCERT" => Some("/it's here".to_owned()),
            _ => None,
        };
        let target = undeclared(&[], variable).unwrap();
        assert_eq!((target.ssl_mode, target.ssl_root_cert.clone()), (SslMode::VerifyFull, Some("/it's here".into())));
        assert_eq!(describe(&target), "db.example:6000/postgres as o'x");
        let wrong = undeclared(&[], |name| (name == "PGSSLMODE").then(|| "s3cret".to_owned())).err().unwrap();
        assert_eq!(wrong.code, crate::exit::USAGE);
    }

    #[test]
    fn what_is_declared_reaches_the_session() {
        let url = "postgresql://u@db/app?sslmode=verify-ca&sslrootcert=/ca.pem&options=-c%20x%3D1";
        let postgres = config::Postgres { url: Some(url.to_owned()), ..config::Postgres::default() };
        let found = target(&postgres).unwrap();
        let read: pg_connect::Target = found.connection.parse().unwrap();
        assert_eq!((read.ssl_mode, read.options.as_deref()), (SslMode::VerifyCa, Some("-c x=1")));
        assert_eq!(found.described, "db:5432/app as u");
    }

    #[test]
    fn the_local_socket_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for port in ["6000", "5433", "5433.lock"] {
            fs::write(dir.path().join(format!(".s.PGSQL.{port}")), "").unwrap();
        }
        let dirs = [PathBuf::from("/nonexistent"), dir.path().to_owned()];
        assert_eq!(host(&dirs, |_| None).port(), 5433);
        assert_eq!(host(&dirs, |n| (n == "PGPORT").then(|| "6000".into())).port(), 6000);
        assert_eq!(host(&dirs, |n| (n == "PGHOST").then(|| "db".into())), Host::Tcp("db".to_owned(), 5432));
        let waiting = host(&[PathBuf::from("/nonexistent"), dir.path().join("..")], |_| None);
        assert!(matches!(&waiting, Host::Unix(path, 5432) if path.is_dir()));
    }
}
