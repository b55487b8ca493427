//! One health check: an HTTP request or a TCP connection.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::postgres::APPLICATION_NAME;

/// What to ask a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// GET this URL; a status from 200 to 299 is good.
    Http(Uri),
    /// Connect to this `host:port`.
    Tcp(String),
}

/// A check that can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Not a URL.
    #[error("'{url}' is no URL of a health check: {why} (expected http://host:port/path)")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS.
    #[error(
        "'{0}': health checks over https are not there yet: use http on the loopback interface, or tcp = \"host:port\""
    )]
    Https(String),
    /// Not an address.
    #[error("'{0}' is no address of a health check (expected host:port, such as 127.0.0.1:6379)")]
    Address(String),
}

impl Check {
    /// From a URL such as `http://127.0.0.1:8000/healthz`.
    ///
    /// # Errors
    /// Where it is no such URL, or demands TLS.
    pub fn http(url: &str) -> Result<Self, CheckError> {
        let wrong = |why: &str| CheckError::Url { url: url.to_owned(), why: why.to_owned() };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(&error.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(CheckError::Https(url.to_owned())),
            _ => return Err(wrong("it does not begin with http://")),
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.host().is_empty() {
            return Err(wrong("it names no host"));
        }
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a name or password, which are not supported"));
        }
        Ok(Self::Http(uri))
    }

    /// From an address such as `127.0.0.1:6379` or `[::1]:6379`.
    ///
    /// # Errors
    /// Where it is none.
    pub fn tcp(address: &str) -> Result<Self, CheckError> {
        let wrong = || CheckError::Address(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || !port_is_good || (host.contains(':') && !bracketed) {
            return Err(wrong());
        }
        Ok(Self::Tcp(address.to_owned()))
    }

    /// Asks once; the caller bounds the time. The error says what was wrong in a few words.
    pub(crate) async fn run(&self) -> Result<(), String> {
        match self {
            Self::Http(uri) => get(uri).await,
            Self::Tcp(address) => connect(address).await.map(drop),
        }
    }
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    })
}

/// Only the status counts. The connection is closed after the answer's head: the body may be as long as it likes.
async fn get(uri: &Uri) -> Result<(), String> {
    let host = uri.host().unwrap_or_default();
    let stream = connect(&format!("{host}:{}", uri.port_u16().unwrap_or(80))).await?;
    let failed = |error: hyper::Error| {
        if error.is_incomplete_message() {
            "the connection was closed without an answer".to_owned()
        } else {
            error.to_string()
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, APPLICATION_NAME)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // Driven here and not by a task of its own, so that a time-out ends it too. The connection can be over in the same instant
    // in which the answer arrives: then the answer is there all the same.
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        _ = connection => response.await,
    };
    let response = response.map_err(failed)?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_are_checked_beforehand() {
        for (url, word) in [
            ("http://127.0.0.1:8000/healthz", ""),
            ("http://[::1]/", ""),
            ("http://site.local", ""),
            ("https://127.0.0.1/", "https are not there yet"),
            ("ftp://127.0.0.1/", "does not begin with http://"),
            ("127.0.0.1:80", "no URL"),
            ("/healthz", "no URL"),
            ("http://user:secret@127.0.0.1/", "password"),
            ("", "no URL"),
        ] {
            match Check::http(url) {
                Ok(_) => assert_eq!(word, "", "{url}"),
                Err(error) => assert!(!word.is_empty() && error.to_string().contains(word), "{error}"),
            }
        }
        for (address, good) in [
            ("127.0.0.1:6379", true),
            ("[::1]:6379", true),
            ("redis:6379", true),
            ("redis", false),
            (":1", false),
            ("redis:0", false),
            ("redis:99999", false),
            ("::1:80", false),
        ] {
            assert_eq!(Check::tcp(address).is_ok(), good, "{address}");
        }
    }
}
