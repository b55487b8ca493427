//! Connection strings: URLs of databases, brokers and APIs, and libpq's `host=... port=...` (PostgreSQL manual, "Connection Strings").
//!
//! What is returned never holds a user, a password or a query of a URL.

use std::fmt;

/// Bytes of a value that is looked at; connection strings are shorter.
const VALUE_BYTES_MAX: usize = 4096;
/// Hosts of one connection string.
const HOSTS_MAX: usize = 16;

/// Where a connection string leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What answers there: `postgresql`, `redis`, `http`, ...
    pub kind: &'static str,
    /// Host name or address, without brackets; lower case.
    pub host: String,
    /// The port, the kind's own where none is said.
    pub port: Option<u16>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = super::plain(&self.host);
        match self.port {
            Some(port) => write!(f, "{} at {host}:{port}", self.kind),
            None => write!(f, "{} at {host}", self.kind),
        }
    }
}

/// Schemes with what they mean and their usual port.
const SCHEMES: &[(&str, &str, Option<u16>)] = &[
    ("postgres", "postgresql", Some(5432)),
    ("postgresql", "postgresql", Some(5432)),
    ("mysql", "mysql", Some(3306)),
    ("mariadb", "mysql", Some(3306)),
    ("redis", "redis", Some(6379)),
    ("rediss", "redis", Some(6379)),
    ("valkey", "redis", Some(6379)),
    ("mongodb", "mongodb", Some(27017)),
    // The port comes from DNS.
    ("mongodb+srv", "mongodb", None),
    ("amqp", "amqp", Some(5672)),
    ("amqps", "amqp", Some(5671)),
    ("nats", "nats", Some(4222)),
    ("http", "http", Some(80)),
    ("https", "http", Some(443)),
    ("ws", "http", Some(80)),
    ("wss", "http", Some(443)),
    ("ldap", "ldap", Some(389)),
    ("smtp", "smtp", Some(25)),
    ("tcp", "tcp", None),
];

/// The endpoints that the value of an environment variable names; none where it is no connection string.
///
/// Two variables without a scheme are understood by their names: `PGHOST`, and `..._DSN` or `..._URL` with a libpq string.
pub fn endpoints(variable: &str, value: &str) -> Vec<Endpoint> {
    let value = value.trim().trim_matches(['"', '\'']);
    if value.is_empty() || value.len() > VALUE_BYTES_MAX {
        return vec![];
    }
    if variable == "PGHOST" {
        return value.split(',').take(HOSTS_MAX).filter_map(|host| endpoint("postgresql", host, None, None)).collect();
    }
    let url = value.strip_prefix("jdbc:").unwrap_or(value);
    match url.split_once("://") {
        Some((scheme, rest)) => of_url(scheme, rest),
        None => of_keywords(value),
    }
}

fn of_url(scheme: &str, rest: &str) -> Vec<Endpoint> {
    let scheme = scheme.to_ascii_lowercase();
    // SQLAlchemy names the driver too: postgresql+asyncpg.
    let known = |scheme: &str| SCHEMES.iter().find(|(name, ..)| *name == scheme);
    let found = known(&scheme).or_else(|| known(scheme.split('+').next().unwrap_or_default()));
    let Some((_, kind, usual)) = found else { return vec![] };
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = before_query.split(['/', '#']).next().unwrap_or_default();
    // Passwords are often not escaped, and hold what ends an authority elsewhere: the last @ ends it here. One behind a question mark is ambiguous.
    if *kind != "http" && query.contains('@') && !authority.is_empty() {
        return vec![];
    }
    let before_path = if *kind == "http" { authority } else { before_query };
    let authority = match before_path.rsplit_once('@') {
        Some((_, after)) => after.split(['/', '#']).next().unwrap_or_default(),
        None => authority,
    };
    let mut hosts: Vec<Endpoint> =
        authority.split(',').take(HOSTS_MAX).filter_map(|host| with_port(kind, host, *usual)).collect();
    if hosts.is_empty() && *kind == "postgresql" {
        let host = query.split('&').find_map(|pair| pair.strip_prefix("host="));
        let port = query.split('&').find_map(|pair| pair.strip_prefix("port=")).and_then(|port| port.parse().ok());
        hosts.extend(host.and_then(|host| endpoint(kind, host, port, *usual)));
    }
    hosts
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn with_port(kind: &'static str, text: &str, usual: Option<u16>) -> Option<Endpoint> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some("") | None => None,
        // A port that is none, or a variable: whatever this is, it leads nowhere that is known.
        Some(port) => Some(port.parse().ok()?),
    };
    endpoint(kind, host, port, usual)
}

fn endpoint(kind: &'static str, host: &str, port: Option<u16>, usual: Option<u16>) -> Option<Endpoint> {
    let host = host.trim().to_ascii_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    // A path is a Unix socket, and `${X}` a variable that nobody filled in.
    (!host.is_empty() && host.len() <= 255 && host.chars().all(fits)).then(|| Endpoint {
        kind,
        host,
        port: port.or(usual),
    })
}

/// libpq: `host=db port=5432 dbname=site`, values quoted or not.
fn of_keywords(value: &str) -> Vec<Endpoint> {
    let mut host = None;
    let mut port = None;
    let mut is_libpq = false;
    let mut rest = value;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim();
        let after = after.trim_start();
        let (word, next) = match after.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap_or((quoted, "")),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        match key {
            "host" | "hostaddr" => host = Some(word),
            "port" => port = Some(word),
            "dbname" | "user" => is_libpq = true,
            _ if key.contains(char::is_whitespace) => return vec![],
            _ => {}
        }
        rest = next;
    }
    let (Some(hosts), true) = (host, is_libpq) else { return vec![] };
    let mut ports = port.unwrap_or_default().split(',');
    let mut last = None;
    let hosts = hosts.split(',').take(HOSTS_MAX).filter_map(|host| {
        last = ports.next().and_then(|port| port.trim().parse().ok()).or(last);
        endpoint("postgresql", host, last, Some(5432))
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_lead_somewhere_or_nowhere() {
        for (variable, value, expected) in [
            ("DATABASE_URL", "postgres://u:p@db/site", "postgresql at db:5432"),
            ("DATABASE_URL", "postgresql+asyncpg://u:p@DB:6432/site", "postgresql at db:6432"),
            ("DATABASE_URL", "postgres://u:p@ss/w@rd@db:5433/site", "postgresql at db:5433"),
            ("X", "jdbc:postgresql://a:1,b:2/site", "postgresql at a:1; postgresql at b:2"),
            ("X", "postgres://u@[::1]:5433/x", "postgresql at ::1:5433"),
            ("X", "postgresql:///x?host=db&port=5433", "postgresql at db:5433"),
            ("X", "postgresql:///x?host=/run/postgresql", ""),
            ("PGHOST", "db", "postgresql at db"),
            ("DSN", "host=db port=6000 dbname=x password='a b=c'", "postgresql at db:6000"),
            ("DSN", "host=a,b port=1,2 user=x", "postgresql at a:1; postgresql at b:2"),
            ("X", "host=db", ""),
            ("MONGO", "mongodb+srv://cluster.example.org", "mongodb at cluster.example.org"),
            ("R", "redis://:pw@redis", "redis at redis:6379"),
            ("API", "http://site:8000/path?next=http://evil@x", "http at site:8000"),
            ("API", "https://site/@handle", "http at site:443"),
            ("SENTRY", "https://key@sentry.example.org/1", "http at sentry.example.org:443"),
            ("X", "postgres://${USER}:${PW}@${HOST}:5432/x", ""),
            ("X", "postgres://u:p@db:${PORT}/x", ""),
            ("X", "ftp://x", ""),
            ("X", "just words = here", ""),
            ("X", "", ""),
        ] {
            let shown: Vec<String> = endpoints(variable, value).iter().map(ToString::to_string).collect();
            assert_eq!(shown.join("; "), expected, "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics_and_no_password_shows(password in "[a-zA-Z0-9%:/?#]{6,20}", junk in "\\PC{0,80}") {
            let _ = endpoints("X", &junk);
            let _ = endpoints("X", &format!("postgres://{junk}"));
            let _ = endpoints("PGHOST", &junk);
            let secret = format!("zq9{password}");
            for endpoint in endpoints("X", &format!("postgres://user:{secret}@db:5432/x")) {
                prop_assert!(!endpoint.to_string().contains("zq9") , "{}", endpoint);
            }
        }
    }
}
