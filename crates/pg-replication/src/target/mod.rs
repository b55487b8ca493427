//! Where to connect, and how: connection strings as libpq has them.

mod parse;

use std::{fmt, path::PathBuf, time::Duration};

pub use parse::ParseTargetError;

/// How long connecting to one host may take unless the target says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// PostgreSQL's port.
const PORT: u16 = 5432;

/// A host to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String, u16),
    /// The directory of a unix socket; the port is part of the socket's name.
    Unix(PathBuf, u16),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(directory, port) => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// When TLS is used and what of the server's certificate is checked (libpq's `sslmode`). Unix sockets never use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server has it; nothing is checked.
    Prefer,
    /// Always; nothing is checked, unless `sslrootcert` is given: then as `VerifyCa`.
    Require,
    /// Always; the certificate's chain must end in a trusted root.
    VerifyCa,
    /// Always; and the certificate must name the host.
    VerifyFull,
}

/// Whether SCRAM is bound to the TLS connection (libpq's `channel_binding`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Always, or the login fails.
    Require,
}

/// Where to connect, and how. Parse one from a URL (`postgresql://user@host/?sslmode=...`) or from `key=value` pairs.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Tried in order.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database for the password file's lines and for `pg_hba.conf`; physical replication uses none.
    pub dbname: Option<String>,
    /// The password, where it does not come from a file.
    pub password: Option<String>,
    /// The password file; `None` for `.pgpass` in the home directory, if that is there.
    pub passfile: Option<PathBuf>,
    /// When TLS is used.
    pub ssl_mode: SslMode,
    /// A PEM file of trusted roots; `system` for those of the system, which is also what `None` means where roots are needed.
    pub ssl_root_cert: Option<PathBuf>,
    /// A PEM file with our own certificate.
    pub ssl_cert: Option<PathBuf>,
    /// A PEM file with its key.
    pub ssl_key: Option<PathBuf>,
    /// Whether SCRAM is bound to the connection.
    pub channel_binding: ChannelBinding,
    /// How long connecting to one host, TLS and login included, may take.
    pub connect_timeout: Duration,
    /// What the server's lists of sessions show.
    pub application_name: String,
}

impl Target {
    /// A target without anything special.
    #[must_use]
    pub fn new(host: Host, user: impl Into<String>) -> Self {
        Self {
            hosts: vec![host],
            user: user.into(),
            dbname: None,
            password: None,
            passfile: None,
            ssl_mode: SslMode::Prefer,
            ssl_root_cert: None,
            ssl_cert: None,
            ssl_key: None,
            channel_binding: ChannelBinding::Prefer,
            connect_timeout: CONNECT_TIMEOUT,
            application_name: "oxpecker".to_owned(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("ssl_mode", &self.ssl_mode)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .finish_non_exhaustive()
    }
}
