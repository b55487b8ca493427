//! A request over HTTP.

use std::{
    error::Error,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{
    Client, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};

use super::{Outcome, ProbeError, Trouble, net, plain};

/// How much of a body is looked at, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
tokio::task_local! {
    /// How long the request that resolves a name may take.
    static WITHIN: Duration;
}

/// How long the resolver gets where that isn't known.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(8);

/// A GET. Redirects are not followed: they are an answer of their own. No proxy is asked.
#[derive(Clone, Debug)]
pub struct Http {
    url: Url,
    status: Option<StatusCode>,
    body: Option<String>,
    /// Made with the first request: it may have to read the system's certificates.
    client: Arc<OnceLock<Result<Client, String>>>,
}

impl Http {
    /// A status from 200 to 299 is good, unless [`Self::status`] says otherwise.
    ///
    /// # Errors
    /// That is no URL of http or https, or it holds a password.
    pub fn new(url: &str) -> Result<Self, ProbeError> {
        // What stands before an '@' may be a password.
        let shown = if url.contains('@') { "a URL" } else { url };
        let wrong = |why: &str| ProbeError::new(shown, why, "write http://host:port/path or https://host/path");
        let parsed = Url::parse(url).map_err(|error| wrong(&format!("it is no URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(wrong("it is no URL of http or https"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(ProbeError::new(
                "a URL",
                "it holds a name or a password",
                "offer a health check that needs none",
            ));
        }
        Ok(Self { url: parsed, status: None, body: None, client: Arc::default() })
    }

    /// Only this status is good.
    ///
    /// # Errors
    /// That is no status of HTTP.
    pub fn status(mut self, status: u16) -> Result<Self, ProbeError> {
        let parsed = StatusCode::from_u16(status).map_err(|_| {
            ProbeError::new(&status.to_string(), "it is no status of HTTP", "write one from 100 to 599")
        })?;
        self.status = Some(parsed);
        Ok(self)
    }

    /// The first 256 KiB of the body have to hold this.
    #[must_use]
    pub fn body(mut self, part: &str) -> Self {
        self.body = Some(part.to_owned());
        self
    }

    pub(super) async fn ask(&self, within: Duration) -> Outcome {
        WITHIN.scope(within, self.get()).await
    }

    async fn get(&self) -> Outcome {
        let client = self.client.get_or_init(|| client(self.url.scheme() == "https"));
        let client = client.as_ref().map_err(|why| Trouble::Probe(why.clone()))?;
        let mut response = client.get(self.url.clone()).send().await.map_err(|error| trouble(&error))?;
        let status = response.status();
        let good = self.status.map_or(status.is_success(), |wanted| status == wanted);
        if !good {
            let more = if status.is_redirection() { ", which is not followed" } else { "" };
            return Err(Trouble::Service(format!("status {}{more}", status.as_u16())));
        }
        let Some(part) = &self.body else { return Ok(()) };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| trouble(&error))? {
            let room = BODY_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if contains(&body, part.as_bytes()) {
                return Ok(());
            }
            if body.len() >= BODY_BYTES_MAX {
                break;
            }
        }
        if contains(&body, part.as_bytes()) {
            return Ok(());
        }
        let begin = plain(&String::from_utf8_lossy(&body[..body.len().min(80)]));
        Err(Trouble::Service(format!("status {}, but its body lacks '{}': {begin}", status.as_u16(), plain(part))))
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    part.is_empty() || body.windows(part.len()).any(|window| window == part)
}

fn client(tls: bool) -> Result<Client, String> {
    // Another part of the process may have chosen a provider before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("oxpecker/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .no_proxy()
        // A connection that was kept would not show that no new ones are taken.
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(Resolver));
    let builder = if tls { builder } else { builder.tls_certs_only([]) };
    builder.build().map_err(|error| {
        format!(
            "no HTTP client: {}; hint: install the system's root certificates (package ca-certificates)",
            chain(&error)
        )
    })
}

/// The system's resolver with our bounds.
struct Resolver;

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unresolved(String);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let within = WITHIN.try_with(|within| *within).unwrap_or(RESOLVE_PATIENCE);
        Box::pin(async move {
            match net::resolve(name.as_str(), 0, within).await {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                Err(Trouble::Probe(why) | Trouble::Service(why)) => {
                    Err(Box::new(Unresolved(why)) as Box<dyn Error + Send + Sync>)
                }
            }
        })
    }
}

fn trouble(error: &reqwest::Error) -> Trouble {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(unresolved) = one.downcast_ref::<Unresolved>() {
            return Trouble::Probe(unresolved.0.clone());
        }
        if let Some(error) = one.downcast_ref::<std::io::Error>()
            && error.get_ref().is_none()
        {
            return net::of(error);
        }
        cause = one.source();
    }
    let text = chain(error);
    Trouble::Service(match text.as_str() {
        text if text.contains("before message completed") => "the connection was closed without an answer".to_owned(),
        text => plain(text),
    })
}

/// The innermost causes say most; the outermost repeat the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    words.dedup();
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_beforehand() {
        for (url, word) in [
            ("http://127.0.0.1:8000/healthz", ""),
            ("https://site.example/", ""),
            ("http://[::1]/", ""),
            ("ftp://127.0.0.1/", "no URL of http"),
            ("127.0.0.1:80", "no URL"),
            ("/healthz", "no URL"),
            ("http://user:s3cr3t@", "no URL"),
            ("http://user:s3cr3t@127.0.0.1/", "password"),
            ("", "no URL"),
        ] {
            match Http::new(url) {
                Ok(_) => assert_eq!(word, "", "{url}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!word.is_empty() && text.contains(word) && !text.contains("s3cr3t"), "{text}");
                }
            }
        }
        assert!(Http::new("http://a/").unwrap().status(204).is_ok());
        assert!(Http::new("http://a/").unwrap().status(99).is_err());
    }
}
