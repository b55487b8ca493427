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

impl Host {
    /// The name, address or directory, as `host` in a connection string has it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(name, _) => name.clone(),
            Self::Unix(directory, _) => directory.to_string_lossy().into_owned(),
        }
    }

    /// The port; of a unix socket that in its name.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp(_, port) | Self::Unix(_, port) => *port,
        }
    }
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

impl SslMode {
    /// As connection strings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
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

impl ChannelBinding {
    /// As connection strings spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// Where to connect, and how. Parse one from a URL (`postgresql://user@host/?sslmode=...`) or from `key=value` pairs.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Tried in order.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database; physical replication uses none, but takes it for the password file's lines.
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
    /// Settings of the session, as on the command line of a server (`-c name=value`); physical replication passes them over.
    pub options: Option<String>,
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
            options: None,
        }
    }

    /// Parses a connection string that need not name a user.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str, user: impl FnOnce() -> String) -> Result<Self, ParseTargetError> {
        parse::parse(text, Some(user))
    }

    /// The same as `key='value'` pairs, which [`str::parse`] and libpq read back. **Holds the password**, where the target does.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let hosts = |of: fn(&Host) -> String| Some(self.hosts.iter().map(of).collect::<Vec<_>>().join(","));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let seconds = self.connect_timeout.as_secs().max(1);
        let pairs = [
            ("host", hosts(Host::name)),
            ("port", hosts(|host| host.port().to_string())),
            ("user", Some(self.user.clone())),
            ("dbname", self.dbname.clone()),
            ("password", self.password.clone()),
            ("passfile", path(&self.passfile)),
            ("sslmode", Some(self.ssl_mode.as_str().to_owned())),
            ("sslrootcert", path(&self.ssl_root_cert)),
            ("sslcert", path(&self.ssl_cert)),
            ("sslkey", path(&self.ssl_key)),
            ("channel_binding", Some(self.channel_binding.as_str().to_owned())),
            ("connect_timeout", Some(seconds.to_string())),
            ("application_name", Some(self.application_name.clone())),
            ("options", self.options.clone()),
        ];
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let pairs = pairs.iter().filter_map(|(key, value)| Some(format!("{key}='{}'", quoted(value.as_deref()?))));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// Whether every host is a unix socket, which never has TLS.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.hosts.iter().all(|host| matches!(host, Host::Unix(..)))
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
