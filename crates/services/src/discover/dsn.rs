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
    // Elixir's name for a database, nearly always this one.
    ("ecto", "postgresql", Some(5432)),
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
    ("kafka", "kafka", Some(9092)),
    ("nats", "nats", Some(4222)),
    ("http", "http", Some(80)),
    ("https", "http", Some(443)),
    ("ws", "http", Some(80)),
    ("wss", "http", Some(443)),
    ("ldap", "ldap", Some(389)),
    ("smtp", "smtp", Some(25)),
    ("mqtt", "mqtt", Some(1883)),
    ("memcached", "memcached", Some(11211)),
    ("clickhouse", "clickhouse", Some(9000)),
    ("elasticsearch", "elasticsearch", Some(9200)),
    ("sqlserver", "sqlserver", Some(1433)),
    ("mssql", "sqlserver", Some(1433)),
    ("bolt", "neo4j", Some(7687)),
    ("neo4j", "neo4j", Some(7687)),
    ("grpc", "grpc", None),
    ("tcp", "tcp", None),
];

/// Parts of a variable's name that say what answers at the host that it holds.
const KINDS: &[(&str, &str)] = &[
    ("POSTGRES", "postgresql"),
    ("PG", "postgresql"),
    ("MYSQL", "mysql"),
    ("MARIADB", "mysql"),
    ("REDIS", "redis"),
    ("VALKEY", "redis"),
    ("MONGO", "mongodb"),
    ("RABBIT", "amqp"),
    ("AMQP", "amqp"),
    ("KAFKA", "kafka"),
    ("MEMCACHE", "memcached"),
    ("CLICKHOUSE", "clickhouse"),
    ("ELASTIC", "elasticsearch"),
    ("OPENSEARCH", "elasticsearch"),
    ("SMTP", "smtp"),
    ("MAIL", "smtp"),
    ("LDAP", "ldap"),
];
/// Parts of the name of a variable that holds a host.
const HOLDS_HOST: &[&str] = &[
    "HOST",
    "SERVER",
    "ADDR",
    "ENDPOINT",
    "BROKER",
    "URL",
    "URI",
    "UPSTREAM",
    "NODES",
    "PEERS",
    "BOOTSTRAP",
    "BACKEND",
    "SEEDS",
    "LOCATION",
];
/// Parts of the name of a variable that holds no other service's address: a name, a secret, a picture, or its own address.
const HOLDS_NONE: &[&str] = &[
    "IMAGE",
    "VERSION",
    "TAG",
    "USER",
    "PASS",
    "SECRET",
    "TOKEN",
    "KEY",
    "ADVERTISED",
    "LISTEN",
    "BIND",
    "SERVER_NAME",
    "ALLOWED",
    "TRUSTED",
    "CORS",
    "NO_PROXY",
];
/// The least port that makes `name:number` an address and no picture with its version.
const PORT_MIN: u16 = 1000;

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

/// As [`endpoints`], and what else people write: URLs within other words (`--broker=redis://cache`), hosts and `host:port` in variables whose names say
/// that they hold one (`DB_HOST`), `host:port` anywhere. Meant to be compared with names that are known: by itself each of these is a guess.
pub fn mentioned(variable: &str, value: &str) -> Vec<Endpoint> {
    let whole = endpoints(variable, value);
    if !whole.is_empty() || value.len() > VALUE_BYTES_MAX {
        return whole;
    }
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ')' | '<' | '>' | '=' | ';');
    let words = || value.split(ends).filter(|word| !word.is_empty());
    let mut found = Vec::new();
    for word in words().filter(|word| word.contains("://")).take(HOSTS_MAX) {
        let scheme_at = word.find("://").unwrap_or(0);
        let begin = word[..scheme_at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+').map_or(0, |at| at + 1);
        found.extend(of_url(&word[begin..scheme_at], &word[scheme_at + 3..]));
    }
    let name = variable.to_ascii_uppercase();
    if HOLDS_NONE.iter().any(|part| name.contains(part)) {
        return found;
    }
    let is_host = HOLDS_HOST.iter().any(|part| name.contains(part));
    let kind = KINDS.iter().find(|(part, _)| name.contains(part)).map_or("something", |(_, kind)| *kind);
    for piece in words().filter(|word| !word.contains("://")).flat_map(|word| word.split(',')).take(HOSTS_MAX) {
        let piece = piece.split('/').next().unwrap_or_default();
        let port = piece.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if is_host || port.is_some_and(|port| port >= PORT_MIN) {
            found.extend(with_port(kind, piece, None));
        }
    }
    found
}

/// A connection string that leads to a PostgreSQL on this host over its unix socket: an absolute path as host, or no host at all.
pub fn local_socket(variable: &str, value: &str) -> Option<Endpoint> {
    let value = value.trim().trim_matches(['"', '\'']);
    let is_socket = match value.split_once("://") {
        Some((scheme, rest)) => {
            let is_ours = scheme.starts_with("postgres") && !scheme.contains(char::is_whitespace);
            let has_host = rest.split_once("host=").is_some_and(|(_, host)| !host.starts_with(['/', '%']));
            is_ours && !has_host && (rest.starts_with('/') || rest.contains("@/"))
        }
        None => {
            (variable == "PGHOST" && value.starts_with('/')) || (value.contains("host=/") && value.contains("dbname="))
        }
    };
    is_socket.then(|| Endpoint { kind: "postgresql", host: "localhost".to_owned(), port: Some(5432) })
}

/// The port that such a server usually has.
pub fn usual_port(kind: &str) -> Option<u16> {
    let known = SCHEMES.iter().find(|(_, of, port)| *of == kind && port.is_some() && *of != "http")?;
    known.2
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

    #[test]
    fn hosts_are_found_by_the_names_of_variables() {
        for (variable, value, expected) in [
            ("WORDPRESS_DB_HOST", "db", "something at db"),
            ("POSTGRES_HOST", "db:5433", "postgresql at db:5433"),
            ("REDIS_HOSTS", "one:6379,two", "redis at one:6379; redis at two"),
            ("POSTGRES_DB", "db", ""),
            ("DB_PASSWORD", "db:5432", ""),
            ("APP_IMAGE", "redis:6379", ""),
            ("X", "redis:7", ""),
            ("", "--broker=redis://:secret@cache:6380/0", "redis at cache:6380"),
            ("", "./wait-for-it.sh db:5432", "something at db:5432"),
            ("CONFIG", "{\"url\": \"http://api:8080/x\"}", "http at api:8080"),
            ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://kafka:9092", ""),
            ("KAFKA_BROKERS", "kafka:9092", "kafka at kafka:9092"),
            ("POSTGRES_SEEDS", "db,db2", "postgresql at db; postgresql at db2"),
            ("DB_HOST", "${DB}", ""),
        ] {
            let shown: Vec<String> = mentioned(variable, value).iter().map(ToString::to_string).collect();
            assert_eq!(shown.join("; "), expected, "{variable}={value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics_and_no_password_shows(password in "[a-zA-Z0-9%:/?#]{6,20}", junk in "\\PC{0,80}") {
            let _ = mentioned("X_HOST", &junk);
            let _ = endpoints("X", &format!("postgres://{junk}"));
            let _ = endpoints("PGHOST", &junk);
            let secret = format!("zq9{password}");
            for endpoint in endpoints("X", &format!("postgres://user:{secret}@db:5432/x")) {
                prop_assert!(!endpoint.to_string().contains("zq9") , "{}", endpoint);
            }
        }
    }
}
