//! Where things are when nobody says so: the state directory and the local cluster.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

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
    let mut connection = match &postgres.url {
        Some(url) => url
            .parse()
            .map_err(|e| Failure::usage(anyhow::Error::new(e).context("postgres.url is not a connection string")))?,
        None => local(&SOCKET_DIRS.map(PathBuf::from), |name| env::var(name).ok().filter(|v| !v.is_empty())),
    };
    let password = match &postgres.password_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|e| Failure::usage(e).hint(format!("postgres.password_file is {}", path.display())))?,
        ),
        None => env::var("PGPASSWORD").ok(),
    };
    if let (Some(password), None) = (password, connection.get_password()) {
        connection.password(password.trim_end_matches(['\r', '\n']));
    }
    if connection.get_user().is_none() {
        connection.user(user_name());
    }
    Ok(Target { described: describe(&connection), connection: connection_string(&connection) })
}

/// As libpq's key-value form (PostgreSQL manual, 34.1.1.1), which every crate of ours takes.
fn connection_string(connection: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::{Host, SslMode};
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    let hosts = connection.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let pairs = [
        ("host", list(hosts.collect())),
        ("port", list(connection.get_ports().iter().map(ToString::to_string).collect())),
        ("user", connection.get_user().map(str::to_owned)),
        ("password", connection.get_password().map(|p| String::from_utf8_lossy(p).into_owned())),
        ("dbname", connection.get_dbname().map(str::to_owned)),
        ("options", connection.get_options().map(str::to_owned)),
        ("sslmode", (connection.get_ssl_mode() == SslMode::Require).then(|| "require".to_owned())),
    ];
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
    let pairs = pairs.iter().filter_map(|(key, value)| Some(format!("{key}='{}'", quoted(value.as_deref()?))));
    pairs.collect::<Vec<_>>().join(" ")
}

fn local(dirs: &[PathBuf], variable: impl Fn(&str) -> Option<String>) -> tokio_postgres::Config {
    let mut connection = tokio_postgres::Config::new();
    connection.dbname(variable("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
    if let Some(user) = variable("PGUSER") {
        connection.user(user);
    }
    let declared_port = variable("PGPORT").and_then(|p| p.parse().ok());
    if let Some(host) = variable("PGHOST") {
        connection.host(host).port(declared_port.unwrap_or(DEFAULT_PORT));
        return connection;
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
    connection.host_path(dir).port(port);
    connection
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

fn describe(connection: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;
    let host = match connection.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = connection.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    let database = connection.get_dbname().or(connection.get_user()).unwrap_or("postgres");
    format!("{host}:{port}/{database} as {}", connection.get_user().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_string_says_the_same() {
        let mut connection = tokio_postgres::Config::new();
        connection
            .host_path("/run/it's here")
            .port(5433)
            .user("o\\x")
            .password("p'w\\")
            .dbname("a b")
            .options("-c x=1")
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        assert_eq!(connection_string(&connection).parse::<tokio_postgres::Config>().unwrap(), connection);
    }

    #[test]
    fn the_local_socket_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for port in ["6000", "5433", "5433.lock"] {
            fs::write(dir.path().join(format!(".s.PGSQL.{port}")), "").unwrap();
        }
        let dirs = [PathBuf::from("/nonexistent"), dir.path().to_owned()];
        assert_eq!(local(&dirs, |_| None).get_ports(), [5433]);
        assert_eq!(local(&dirs, |n| (n == "PGPORT").then(|| "6000".into())).get_ports(), [6000]);
        assert_eq!(local(&dirs, |n| (n == "PGHOST").then(|| "db".into())).get_ports(), [5432]);
        let waiting = local(&[PathBuf::from("/nonexistent"), dir.path().join("..")], |_| None);
        assert_eq!(waiting.get_ports(), [5432]);
        assert!(matches!(&waiting.get_hosts()[0], tokio_postgres::config::Host::Unix(path) if path.is_dir()));
    }
}
