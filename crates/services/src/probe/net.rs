//! Names, addresses and connections.

use std::{io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use super::Trouble;

/// Look-ups of names that hang at once. The system's resolver can't be interrupted: more would only fill the process with threads.
const LOOKUPS_MAX: usize = 8;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

static LOOKUPS: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(LOOKUPS_MAX)));

/// `host:port` in two; an IPv6 address stands in brackets.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    match bare {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok().then_some((host, port)),
        None => (!host.is_empty() && !host.contains([':', '/', ' '])).then_some((host, port)),
    }
}

/// The addresses of a name, as the system's resolver has them. A name that nobody resolves says nothing of who has it.
pub(super) async fn resolve(host: &str, port: u16, within: Duration) -> Result<Vec<SocketAddr>, Trouble> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    // So that it is told apart from a service that gives no answer.
    let within = within * 3 / 4;
    let name = host.to_owned();
    let looked_up = async move {
        // Nobody closes the semaphore.
        let place = Arc::clone(&LOOKUPS).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let found =
                std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), port)).map(Iterator::collect::<Vec<_>>);
            drop(place);
            found
        });
        lookup.await.map_err(io::Error::other)?
    };
    let said = |why: String| Trouble::Probe(format!("the name {} can't be resolved: {why}", super::plain(host)));
    match timeout(within, looked_up).await {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(said("it has no address".into())),
        Ok(Ok(mut addresses)) => {
            addresses.truncate(ADDRESSES_MAX);
            Ok(addresses)
        }
        Ok(Err(error)) => Err(said(error.to_string())),
        Err(_) => Err(said("the resolver gives no answer".into())),
    }
}

/// A connection to the first address that takes one.
pub(super) async fn connect(host: &str, port: u16, within: Duration) -> Result<TcpStream, Trouble> {
    let mut trouble = Trouble::Probe("it has no address".into());
    for address in resolve(host, port, within).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = of(&error),
        }
    }
    Err(trouble)
}

/// What an error on the way says, and of whom.
pub(super) fn of(error: &io::Error) -> Trouble {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => Trouble::Service("connection refused".into()),
        Kind::NotFound => Trouble::Service("there is no such socket".into()),
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable => {
            Trouble::Probe(format!("it can't be reached from here: {error}"))
        }
        Kind::PermissionDenied => Trouble::Probe(format!("we may not connect: {error}")),
        Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof | Kind::ConnectionAborted => {
            Trouble::Service("the connection was closed without an answer".into())
        }
        // Of ours there are too many files, or too little memory.
        _ if matches!(error.raw_os_error(), Some(12 | 23 | 24)) => Trouble::Probe(error.to_string()),
        _ => Trouble::Service(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("127.0.0.1:6379", Some(("127.0.0.1", 6379))),
            ("[::1]:6379", Some(("::1", 6379))),
            ("redis:6379", Some(("redis", 6379))),
            ("redis", None),
            (":1", None),
            ("redis:0", None),
            ("redis:99999", None),
            ("::1:80", None),
            ("[redis]:80", None),
            ("http://redis:80", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
