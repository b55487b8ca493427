//! Who may read. Pure: from the settings and a request's headers to yes or no.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use data_encoding::BASE64;

/// The shortest token in bytes: what is shorter can be tried out.
pub const TOKEN_MIN: usize = 16;
/// The longest token in bytes.
pub const TOKEN_MAX: usize = 512;

/// Why the console does not start as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Anybody could read.
    #[error(
        "{0} is reached from other hosts, and nobody has to show who they are. Hint: name a token_file, or the trusted_header that your \
         reverse proxy sets, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
    /// A token that is none.
    #[error("the token has {0} bytes. Hint: between 16 and 512, such as from `openssl rand -hex 32`")]
    Token(usize),
    /// A header that can't be one.
    #[error("{0:?} is no name of a header. Hint: such as X-Forwarded-User")]
    Header(String),
}

/// Who may read. Not `Debug`: it knows the token.
#[derive(Clone)]
pub struct Access {
    hosts: Vec<String>,
    /// Compared as hashes, whose comparison takes the same time for every wrong one.
    token: Option<blake3::Hash>,
    trusted: Option<HeaderName>,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// Why, for whoever asked.
    pub why: &'static str,
}

impl Access {
    /// Access as it is declared.
    ///
    /// # Errors
    /// Where it would let anybody in, or can't work.
    pub fn new(
        listen: SocketAddr,
        token: Option<&str>,
        trusted_header: Option<&str>,
        hosts: &[String],
    ) -> Result<Self, AccessError> {
        let token = token.map(str::trim);
        if let Some(token) = token.filter(|t| !(TOKEN_MIN..=TOKEN_MAX).contains(&t.len())) {
            return Err(AccessError::Token(token.len()));
        }
        let trusted = trusted_header
            .map(|name| name.parse::<HeaderName>().map_err(|_| AccessError::Header(name.to_owned())))
            .transpose()?;
        if !listen.ip().is_loopback() && token.is_none() && trusted.is_none() {
            return Err(AccessError::Open(listen));
        }
        let mut names: Vec<String> = hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        names.extend(["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()]);
        if !listen.ip().is_unspecified() {
            names.push(match listen {
                SocketAddr::V4(v4) => v4.ip().to_string(),
                SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
            });
        }
        Ok(Self { hosts: names, token: token.map(|t| blake3::hash(t.as_bytes())), trusted })
    }

    /// Whether a request may be answered.
    ///
    /// # Errors
    /// With the status to refuse it with.
    pub fn check(&self, method: &Method, authority: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
        let refuse = |status, why| Err(Refusal { status, why });
        // A page of somebody else whose name was made to lead here (DNS rebinding) gives itself away by that name.
        let mut named = headers.get_all(header::HOST).iter();
        let host = match (authority, named.next(), named.next()) {
            (_, _, Some(_)) => None,
            (Some(authority), _, _) => Some(authority),
            (None, host, None) => host.and_then(|h| h.to_str().ok()),
        };
        if !host.is_some_and(|host| self.hosts.contains(&without_port(host).to_ascii_lowercase())) {
            return refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "this name is not the console's; [console] hosts declares others",
            );
        }
        if !self.knows(headers) {
            return refuse(StatusCode::UNAUTHORIZED, "the console wants its token, or a header of its reverse proxy");
        }
        // There is nothing to write: what is no reading can't be forged across sites either.
        if method != Method::GET && method != Method::HEAD {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "the console changes nothing: only GET and HEAD");
        }
        Ok(())
    }

    /// Whether a browser should ask for the token.
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        if self.token.is_none() && self.trusted.is_none() {
            return true;
        }
        let vouched = self.trusted.as_ref().and_then(|name| headers.get(name)).is_some_and(|v| !v.is_empty());
        let shown = headers.get(header::AUTHORIZATION).and_then(|v| token_in(v.to_str().ok()?));
        vouched || matches!((self.token, shown), (Some(token), Some(shown)) if token == blake3::hash(shown.as_bytes()))
    }
}

/// The token of an Authorization header: a bearer's, or the password of `Basic`, which every browser can ask for.
fn token_in(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(rest.trim().as_bytes()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123";

    fn loopback() -> SocketAddr {
        "127.0.0.1:7432".parse().unwrap()
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn nobody_listens_openly_by_mistake() {
        for (listen, token, header, fine) in [
            ("127.0.0.1:0", None, None, true),
            ("127.8.0.1:0", None, None, true),
            ("[::1]:0", None, None, true),
            ("0.0.0.0:0", None, None, false),
            ("[::]:0", None, None, false),
            ("192.0.2.1:0", None, None, false),
            ("192.0.2.1:0", Some(TOKEN), None, true),
            ("192.0.2.1:0", None, Some("X-Forwarded-User"), true),
            ("127.0.0.1:0", Some("short"), None, false),
            ("127.0.0.1:0", Some("  \n"), None, false),
            ("127.0.0.1:0", None, Some("not a header"), false),
        ] {
            let made = Access::new(listen.parse().unwrap(), token, header, &[]);
            assert_eq!(made.is_ok(), fine, "{listen} {token:?} {header:?}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        let access = Access::new(loopback(), None, None, &["Console.Example".to_owned()]).unwrap();
        for (host, fine) in [
            ("localhost:7432", true),
            ("LOCALHOST", true),
            ("127.0.0.1:1", true),
            ("[::1]:7432", true),
            ("[::1]", true),
            ("console.example", true),
            ("evil.example", false),
            ("evil.example:7432", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost:x", false),
            ("", false),
        ] {
            assert_eq!(access.check(&Method::GET, None, &headers(&[("host", host)])).is_ok(), fine, "{host}");
        }
        let misdirected = |authority, list: &[(&'static str, &str)]| {
            access.check(&Method::GET, authority, &headers(list)).unwrap_err().status
        };
        assert_eq!(misdirected(None, &[]), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(misdirected(None, &[("host", "localhost"), ("host", "localhost")]), StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(misdirected(Some("evil.example"), &[("host", "localhost")]), StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn the_token_is_wanted_and_nothing_is_written() {
        let access = Access::new(loopback(), Some(TOKEN), None, &[]).unwrap();
        let basic = format!("Basic {}", BASE64.encode(format!("me:{TOKEN}").as_bytes()));
        let bearer = format!("Bearer {TOKEN}");
        for (authorization, fine) in [
            (basic.as_str(), true),
            (bearer.as_str(), true),
            ("Bearer 0123456789abcdef0124", false),
            ("Bearer ", false),
            ("Basic !!!", false),
            ("Digest x", false),
            ("", false),
        ] {
            let list = [("host", "localhost"), ("authorization", authorization), ("x-forwarded-user", "me")];
            let checked = access.check(&Method::GET, None, &headers(&list));
            assert_eq!(checked.is_ok(), fine, "{authorization}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
            let list = headers(&[("host", "localhost"), ("authorization", &bearer)]);
            let refused = access.check(&method, None, &list).unwrap_err();
            assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
        let proxied = Access::new("0.0.0.0:1".parse().unwrap(), None, Some("X-Forwarded-User"), &[]).unwrap();
        for (list, fine) in [
            (&[("host", "localhost"), ("x-forwarded-user", "me")][..], true),
            (&[("host", "localhost"), ("x-forwarded-user", "")], false),
            (&[("host", "localhost")], false),
        ] {
            assert_eq!(proxied.check(&Method::GET, None, &headers(list)).is_ok(), fine, "{list:?}");
        }
    }
}
