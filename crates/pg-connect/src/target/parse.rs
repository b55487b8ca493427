//! Parsing of connection strings (the manual, "Connection Strings").

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{ChannelBinding, Host, PORT, SslMode, Target};

/// The directories where servers put their socket, tried when no host is given.
const SOCKET_DIRS: [&str; 2] = ["/run/postgresql", "/tmp"];
/// The most hosts that are taken.
const HOSTS_MAX: usize = 32;

/// Parameters that say nothing to this client and are passed over.
const IGNORED: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "replication",
    "sslcompression",
    "sslnegotiation",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// A text that is no connection string. Never shows a value, for it might be the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection string: {why}; hint: write postgresql://user@host:port/?sslmode=verify-full or host=... user=...")]
pub struct ParseTargetError {
    why: String,
}

fn fail(why: impl Into<String>) -> ParseTargetError {
    ParseTargetError { why: why.into() }
}

/// Parameters as they are found; the last of a name counts.
#[derive(Default)]
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, ParseTargetError> {
        parse(text, None::<fn() -> String>)
    }
}

/// `user` is who it is where the text does not say; without one it has to.
pub(super) fn parse(text: &str, user: Option<impl FnOnce() -> String>) -> Result<Target, ParseTargetError> {
    let url = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let mut given = match url {
        Some(rest) => parse_url(rest)?,
        None => parse_pairs(text)?,
    };
    let user = given.take("user").or_else(|| user.map(|user| user())).ok_or_else(|| fail("it names no user"))?;
    build(user, given)
}

fn build(user: String, mut given: Parameters) -> Result<Target, ParseTargetError> {
    let mut target = Target::new(Host::Tcp(String::new(), PORT), user);
    target.hosts = hosts(given.take("host"), given.take("hostaddr"), given.take("port"))?;
    target.dbname = given.take("dbname");
    target.options = given.take("options");
    target.password = given.take("password");
    target.passfile = given.take("passfile").map(PathBuf::from);
    target.ssl_root_cert = given.take("sslrootcert").map(PathBuf::from);
    target.ssl_cert = given.take("sslcert").map(PathBuf::from);
    target.ssl_key = given.take("sslkey").map(PathBuf::from);
    if let Some(mode) = given.take("sslmode") {
        target.ssl_mode = match mode.as_str() {
            "disable" => SslMode::Disable,
            // libpq's `allow` tries without first; a server that has TLS gets it here.
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err(fail("sslmode is none of disable, allow, prefer, require, verify-ca, verify-full")),
        };
    }
    if let Some(binding) = given.take("channel_binding") {
        target.channel_binding = match binding.as_str() {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return Err(fail("channel_binding is none of disable, prefer, require")),
        };
    }
    if let Some(seconds) = given.take("connect_timeout") {
        let seconds: u64 = seconds.parse().map_err(|_| fail("connect_timeout is no number of seconds"))?;
        // Zero means "for ever" to libpq; here everything has a bound.
        if seconds > 0 {
            target.connect_timeout = Duration::from_secs(seconds);
        }
    }
    if let Some(name) = given.take("application_name") {
        target.application_name = name;
    }
    let unknown = given.0.iter().find(|(name, value)| !IGNORED.contains(&name.as_str()) && !value.is_empty());
    match unknown {
        Some((name, _)) => Err(fail(format!("the parameter {name:?} is not known"))),
        None => Ok(target),
    }
}

fn hosts(
    names: Option<String>,
    addresses: Option<String>,
    ports: Option<String>,
) -> Result<Vec<Host>, ParseTargetError> {
    let ports = ports.unwrap_or_default();
    let ports: Vec<&str> = ports.split(',').collect();
    let names = match (names, addresses) {
        (Some(names), _) | (None, Some(names)) => names,
        (None, None) => SOCKET_DIRS.join(","),
    };
    let names: Vec<&str> = names.split(',').collect();
    if names.len() > HOSTS_MAX {
        return Err(fail(format!("it has more than {HOSTS_MAX} hosts")));
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(fail("it has another number of ports than of hosts"));
    }
    let host = |(index, name): (usize, &&str)| {
        let port = if ports.len() > 1 { ports[index] } else { ports[0] };
        let port = if port.is_empty() { Ok(PORT) } else { port.parse().map_err(|_| fail("a port is no port")) }?;
        Ok(match *name {
            "" => Host::Unix(PathBuf::from(SOCKET_DIRS[0]), port),
            path if path.starts_with('/') => Host::Unix(PathBuf::from(path), port),
            name => Host::Tcp(name.to_owned(), port),
        })
    };
    names.iter().enumerate().map(host).collect()
}

fn parse_url(rest: &str) -> Result<Parameters, ParseTargetError> {
    let mut parameters = Parameters::default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in places.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(|| fail("a bracket is not closed"))?;
                (host, port.strip_prefix(':').unwrap_or(port))
            }
            None => place.rsplit_once(':').unwrap_or((place, "")),
        };
        hosts.push(decode(host)?);
        ports.push(port.to_owned());
    }
    let fields = [
        ("user", decode(user)?),
        ("password", decode(password)?),
        ("host", hosts.join(",")),
        ("port", if ports.iter().all(String::is_empty) { String::new() } else { ports.join(",") }),
        ("dbname", decode(dbname)?),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        parameters.set(name, value);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| fail("a parameter has no value"))?;
        parameters.set(&decode(name)?, decode(value)?);
    }
    Ok(parameters)
}

/// `key = value` pairs; a value may stand in single quotes, with a backslash before quotes and backslashes.
fn parse_pairs(text: &str) -> Result<Parameters, ParseTargetError> {
    let mut parameters = Parameters::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| fail("a name has no value"))?;
        let name = name.trim_end();
        let clean = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !clean {
            return Err(fail("a name before '=' is none"));
        }
        let (value, after) = take_value(after.trim_start())?;
        parameters.set(name, value);
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn take_value(text: &str) -> Result<(String, &str), ParseTargetError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next().ok_or_else(|| fail("it ends in a backslash"))?.1),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            space if !quoted && space.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted { Err(fail("a quote is not closed")) } else { Ok((value, "")) }
}

/// Percent-decoding (RFC 3986).
fn decode(text: &str) -> Result<String, ParseTargetError> {
    let wrong = || fail("a percent sign is not followed by two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, more) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = more;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tcp(name: &str, port: u16) -> Host {
        Host::Tcp(name.to_owned(), port)
    }

    #[test]
    fn urls_and_pairs() {
        let target: Target =
            "postgresql://us%40er:p%3Aw@one:1,[::1]/db?sslmode=verify-full&passfile=/a%20b&connect_timeout=5"
                .parse()
                .unwrap();
        assert_eq!(target.hosts, [tcp("one", 1), tcp("::1", 5432)]);
        assert_eq!((target.user.as_str(), target.password.as_deref()), ("us@er", Some("p:w")));
        assert_eq!((target.ssl_mode, target.passfile), (SslMode::VerifyFull, Some(PathBuf::from("/a b"))));
        assert_eq!((target.connect_timeout, target.dbname.as_deref()), (Duration::from_secs(5), Some("db")));

        let target: Target =
            r"host = '/run/x y' user=u password='it\'s \\' port=6543 replication=true".parse().unwrap();
        assert_eq!(target.hosts, [Host::Unix(PathBuf::from("/run/x y"), 6543)]);
        assert_eq!(target.password.as_deref(), Some(r"it's \"));

        let target: Target = "postgresql:///postgres?host=%2Ftmp%2Fs&port=7&user=postgres".parse().unwrap();
        assert_eq!(target.hosts, [Host::Unix(PathBuf::from("/tmp/s"), 7)]);
        let target: Target = "user=u".parse().unwrap();
        assert!(target.hosts.iter().all(|host| matches!(host, Host::Unix(_, 5432))));
        assert_eq!(format!("{} {}", tcp("a", 1), tcp("::1", 2)), "a:1 [::1]:2");
    }

    #[test]
    fn what_is_wrong_is_said_without_values() {
        for text in [
            "host=a",
            "user=u sslmode=secret",
            "user=u channel_binding=secret",
            "user=u connect_timeout=secret",
            "user=u port=secret",
            "user=u host=a,b,c port=1,2",
            "user=u password='secret",
            "user=u password=secret\\",
            "secret",
            "user=u secret secret=1",
            "postgresql://u:%secret@h",
            "postgresql://u@[h",
            "postgresql://u@h/?secret",
            "user=u frobnicate=secret",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("hint: "), "{text}: {error}");
        }
        let target: Target = "user=u password=secret".parse().unwrap();
        assert!(!format!("{target:?}").contains("secret"));
    }

    fn path() -> impl Strategy<Value = Option<PathBuf>> {
        proptest::option::of("[^\0]{1,9}".prop_map(PathBuf::from))
    }

    fn target() -> impl Strategy<Value = Target> {
        let text = || proptest::option::of("[^\0]{1,9}");
        let host = prop_oneof![
            ("[a-z0-9.:-]{1,9}", any::<u16>()).prop_map(|(name, port)| Host::Tcp(name, port)),
            ("/[^\0,]{0,9}", any::<u16>()).prop_map(|(path, port)| Host::Unix(PathBuf::from(path), port)),
        ];
        let mode = proptest::sample::select(vec![
            SslMode::Disable,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ]);
        let binding =
            proptest::sample::select(vec![ChannelBinding::Disable, ChannelBinding::Prefer, ChannelBinding::Require]);
        let hosts = proptest::collection::vec(host, 1..4);
        let files = (path(), path(), path(), path());
        (hosts, "[^\0]{1,9}", (text(), text(), text()), files, mode, binding, 1_u64..99).prop_map(
            |(hosts, user, (dbname, password, options), files, ssl_mode, channel_binding, seconds)| Target {
                hosts,
                user,
                dbname,
                password,
                passfile: files.0,
                ssl_mode,
                ssl_root_cert: files.1,
                ssl_cert: files.2,
                ssl_key: files.3,
                channel_binding,
                connect_timeout: Duration::from_secs(seconds),
                application_name: "oxpecker".to_owned(),
                options,
            },
        )
    }

    #[test]
    fn a_user_is_taken_where_none_is_named() {
        let user = || "me".to_owned();
        assert_eq!(Target::parse("host=a", user).unwrap().user, "me");
        assert_eq!(Target::parse("host=a user=u", user).unwrap().user, "u");
        assert_eq!(Target::parse("postgresql:///db", user).unwrap().user, "me");
    }

    proptest! {
        #[test]
        fn a_connection_string_says_the_same(target in target()) {
            prop_assert_eq!(target.connection_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = text.parse::<Target>();
            let _ = format!("postgresql://{text}").parse::<Target>();
        }
    }
}
