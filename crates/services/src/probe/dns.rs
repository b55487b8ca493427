//! Whether a name resolves: by the system's resolver, or at a given server by one query of our own (RFC 1035, section 4).

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

use super::{Outcome, ProbeError, Trouble, net};

/// A query is sent again after this long: a datagram may be lost.
const RESEND: Duration = Duration::from_millis(1000);
/// The longest answer over UDP without extensions, in bytes, with room to spare.
const ANSWER_BYTES_MAX: usize = 4096;
/// Records of one answer that are looked at.
const RECORDS_MAX: u16 = 64;
/// Types of records: addresses of version 4 and 6.
const A: u16 = 1;
const AAAA: u16 = 28;

/// A look-up of a name's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    name: String,
    server: Option<SocketAddr>,
    expected: Option<IpAddr>,
}

impl Dns {
    /// By the system's resolver, which also knows /etc/hosts.
    ///
    /// # Errors
    /// That is no name of a host.
    pub fn new(name: &str) -> Result<Self, ProbeError> {
        let bare = name.strip_suffix('.').unwrap_or(name);
        let label = |label: &str| {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(fine)
        };
        if bare.len() > 253 || !bare.split('.').all(label) {
            return Err(ProbeError::new(
                name,
                "it is no name of a host",
                "write it with letters, digits, hyphens and dots",
            ));
        }
        Ok(Self { name: bare.to_owned(), server: None, expected: None })
    }

    /// At this server, `address` or `address:port`.
    ///
    /// # Errors
    /// That is no IP address.
    pub fn server(mut self, address: &str) -> Result<Self, ProbeError> {
        let parsed = address.parse().or_else(|_| address.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        let hint = "write its IP address, with a port where that isn't 53: a name would need another server";
        self.server = Some(parsed.map_err(|_| ProbeError::new(address, "it is no IP address", hint))?);
        Ok(self)
    }

    /// This address has to be among its own.
    #[must_use]
    pub fn expects(mut self, address: IpAddr) -> Self {
        self.expected = Some(address);
        self
    }

    pub(super) async fn ask(&self, within: Duration) -> Outcome {
        let found = match self.server {
            Some(server) => self.query(server).await?,
            // Here the answer itself is what is asked for.
            None => match net::resolve(&self.name, 0, within).await {
                Ok(found) => found.into_iter().map(|address| address.ip()).collect(),
                Err(Trouble::Probe(why) | Trouble::Service(why)) => return Err(Trouble::Service(why)),
            },
        };
        match self.expected {
            _ if found.is_empty() => Err(Trouble::Service(format!("{} has no address", self.name))),
            Some(expected) if !found.contains(&expected) => {
                let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
                Err(Trouble::Service(format!("{} is {} and not {expected}", self.name, found.join(", "))))
            }
            _ => Ok(()),
        }
    }

    async fn query(&self, server: SocketAddr) -> Result<Vec<IpAddr>, Trouble> {
        let kinds = match self.expected {
            Some(IpAddr::V4(_)) => &[A][..],
            Some(IpAddr::V6(_)) => &[AAAA],
            None => &[A, AAAA],
        };
        let mut found = Vec::new();
        for kind in kinds {
            found = self.query_one(server, *kind).await?;
            if !found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn query_one(&self, server: SocketAddr, kind: u16) -> Result<Vec<IpAddr>, Trouble> {
        let ours = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let local = |error: std::io::Error| Trouble::Probe(format!("no socket for the query: {error}"));
        let socket = UdpSocket::bind((ours, 0)).await.map_err(local)?;
        // Connected: others' datagrams don't reach it, and a closed port is told.
        socket.connect(server).await.map_err(|error| net::of(&error))?;
        // The keys of a hasher are the standard library's randomness. A stranger on the way could guess more than 16 bits anyhow.
        let [first, second, ..] = RandomState::new().hash_one(kind).to_ne_bytes();
        let id = [first, second];
        let query = encode(id, &self.name, kind);
        let mut buffer = [0; ANSWER_BYTES_MAX];
        loop {
            socket.send(&query).await.map_err(|error| net::of(&error))?;
            let answered = timeout(RESEND, async {
                loop {
                    let length = socket.recv(&mut buffer).await.map_err(|error| net::of(&error))?;
                    if let Some(answer) = decode(&query, &buffer[..length]) {
                        return answer.map_err(|why| Trouble::Service(format!("{server} answers: {why}")));
                    }
                }
            });
            if let Ok(answer) = answered.await {
                return answer;
            }
        }
    }
}

/// A question with recursion desired.
fn encode(id: [u8; 2], name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        // Of 63 bytes at most, by the constructor.
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&1_u16.to_be_bytes());
    query
}

/// The addresses in an answer to that query, or why there are none; `None` where it answers another.
fn decode(query: &[u8], answer: &[u8]) -> Option<Result<Vec<IpAddr>, String>> {
    let header = answer.get(..12)?;
    let question = query.get(12..)?;
    let asked = answer.get(12..12 + question.len())?;
    if header[..2] != query[..2] || header[2] & 0x80 == 0 || !asked.eq_ignore_ascii_case(question) {
        return None;
    }
    let code = header[3] & 0x0f;
    if code != 0 {
        let name = match code {
            1 => "the query is malformed",
            2 => "its server failed (SERVFAIL)",
            3 => "there is no such name (NXDOMAIN)",
            5 => "refused",
            _ => "an error",
        };
        return Some(Err(name.to_owned()));
    }
    let records = u16::from_be_bytes([header[6], header[7]]).min(RECORDS_MAX);
    let mut rest = &answer[12 + question.len()..];
    let mut found = Vec::new();
    for _ in 0..records {
        let Some((record, data, after)) = record(rest) else { break };
        match (record, data.len()) {
            (A, 4) => found.extend(<[u8; 4]>::try_from(data).map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)))),
            (AAAA, 16) => found.extend(<[u8; 16]>::try_from(data).map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)))),
            _ => {}
        }
        rest = after;
    }
    // A shortened one (TC) without a single whole record: too much of an answer is one, too, but what it says is not known.
    if found.is_empty() && header[2] & 0x02 != 0 {
        return Some(Err("too long for a datagram".to_owned()));
    }
    Some(Ok(found))
}

/// The type and data of the first record, and what follows it. Its name is passed over: labels, and a pointer of two bytes ends them.
fn record(mut bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    loop {
        match *bytes.first()? {
            0 => {
                bytes = &bytes[1..];
                break;
            }
            length if length & 0xc0 == 0xc0 => {
                bytes = bytes.get(2..)?;
                break;
            }
            length if length & 0xc0 == 0 => bytes = bytes.get(1 + usize::from(length)..)?,
            _ => return None,
        }
    }
    let fixed = bytes.get(..10)?;
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let data = bytes.get(10..10 + length)?;
    Some((u16::from_be_bytes([fixed[0], fixed[1]]), data, &bytes[10 + length..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(query: &[u8], flags: [u8; 2], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2..4].copy_from_slice(&flags);
        answer[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            answer.extend_from_slice(&[0xc0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
            answer.extend_from_slice(data);
        }
        answer
    }

    #[test]
    fn answers() {
        let query = encode([1, 2], "site.example", A);
        let fine = [0x81, 0x80];
        let all = answer(&query, fine, &[(5, b"\x01a\x00"), (A, &[10, 0, 0, 1])]);
        assert_eq!(decode(&query, &all), Some(Ok(vec!["10.0.0.1".parse().unwrap()])));
        assert_eq!(decode(&query, &answer(&query, fine, &[])), Some(Ok(vec![])));
        assert!(decode(&query, &answer(&query, [0x81, 0x83], &[])).unwrap().unwrap_err().contains("NXDOMAIN"));
        assert!(decode(&query, &answer(&query, [0x83, 0x80], &[])).unwrap().is_err(), "shortened");
        assert_eq!(decode(&query, &query), None, "a question");
        assert_eq!(decode(&query, &answer(&encode([1, 3], "site.example", A), fine, &[])), None, "another's");
        assert_eq!(decode(&query, &answer(&encode([1, 2], "bite.example", A), fine, &[])), None, "another name");
        assert_eq!(decode(&query, &all[..all.len() - 1]), Some(Ok(vec![])), "cut off");
    }

    #[test]
    fn names_and_servers() {
        for (name, good) in
            [("site.example", true), ("a.", true), ("", false), ("a..b", false), ("a b", false), ("ä", false)]
        {
            assert_eq!(Dns::new(name).is_ok(), good, "{name}");
        }
        assert!(Dns::new(&"a.".repeat(200)).is_err());
        let dns = Dns::new("a").unwrap();
        assert_eq!(dns.clone().server("127.0.0.1").unwrap().server, Some("127.0.0.1:53".parse().unwrap()));
        assert!(dns.clone().server("[::1]:5353").is_ok() && dns.server("dns.example").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let query = encode([1, 2], "site.example", A);
            let _ = decode(&query, &noise);
            let mut answer = answer(&query, [0x81, 0x80], &[]);
            answer[7] = 9;
            answer.extend_from_slice(&noise);
            let _ = decode(&query, &answer);
        }
    }
}
