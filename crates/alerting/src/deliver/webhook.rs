//! One HTTP POST, and what its answer means.

use std::{error::Error as _, fmt::Write as _, time::Duration};

use jiff::Timestamp;
use model::Alert;
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::{dialect::Dialect, target::Failure};
use crate::{
    heartbeat::{self, Heartbeat},
    protocol::idempotency_key,
    route::{Secret, Webhook},
    template::Template,
};

/// How long a connection may take, TLS included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long an attempt may take from its start to the end of the answer.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// How long an unused connection is kept. Longer than the pause between two warmings.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How much of an answer is read so that its connection can be used again, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The least pause after a refusal that people have to mend, such as 401 or 404, or that ends with a deploy behind a proxy.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// Longest pause that a receiver may ask for beside an alert that it took: `X-RateLimit-Reset-After` of Discord.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Where Alertmanager takes alerts, below its base URL.
const ALERTMANAGER_PATH: &str = "api/v2/alerts";

/// A webhook that is ready to be posted to.
#[derive(Clone)]
pub(crate) struct HttpTarget {
    client: Client,
    dialect: Dialect,
    url: Url,
    headers: HeaderMap,
    template: Option<Template>,
    secrets: Vec<String>,
}

/// The HTTP client of all routes.
///
/// # Errors
/// Where no root certificate can be found; then the client without TLS serves the plain routes.
pub(crate) fn client() -> Result<Client, String> {
    // Another part of the process may have chosen a provider before; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder().build().map_err(|error| {
        format!(
            "TLS is not to be had: {}. Hint: install the system's root certificates (package ca-certificates)",
            chain(&error)
        )
    })
}

/// The client that trusts no certificate: plain http only.
pub(crate) fn plain_client() -> Result<Client, String> {
    builder().tls_certs_only([]).build().map_err(|error| format!("no HTTP client: {}", chain(&error)))
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("oxpecker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(20))
        // A redirected POST becomes a GET, and the alert is lost with a 200.
        .redirect(redirect::Policy::none())
}

/// Whether a webhook can be posted to at this URL, as far as can be told without asking it. For checks of a configuration; the
/// message does not show the URL.
///
/// # Errors
/// What is wrong and what to do, for people.
pub fn check_webhook_url(url: &Secret) -> Result<(), &'static str> {
    parse_url(url).map(drop)
}

fn parse_url(url: &Secret) -> Result<Url, &'static str> {
    let url = Url::parse(url.reveal())
        .map_err(|_| "its URL is none. Hint: write the whole URL as the receiver gave it, such as https://host/path")?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(
            "its URL is not one of http or https. Hint: write the whole URL as the receiver gave it, such as https://host/path",
        )
    }
}

impl HttpTarget {
    /// # Errors
    /// Where the route can't work, without its secrets.
    pub(super) fn new(client: Client, webhook: &Webhook, dialect: Dialect) -> Result<Self, String> {
        let mut url = parse_url(&webhook.url)?;
        if dialect == Dialect::Alertmanager && !url.path().ends_with(ALERTMANAGER_PATH) {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}/{ALERTMANAGER_PATH}"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &webhook.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (name, mut value) =
                parsed.ok_or_else(|| format!("header {name:?} or its value is not allowed in HTTP"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let mut secrets = vec![webhook.url.reveal().to_owned(), url.to_string()];
        secrets.extend(Some(url.path().to_owned()).filter(|path| path.len() > 1));
        secrets.extend(url.query().map(str::to_owned));
        secrets.extend(url.password().map(str::to_owned));
        if let Some(token) = &webhook.bearer {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                .map_err(|_| "its bearer token holds characters that are not allowed in HTTP".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
            secrets.push(token.reveal().to_owned());
        }
        Ok(Self { client, dialect, url, headers, template: webhook.template.clone(), secrets })
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Opens a connection and leaves it in the pool, so that the alert of a starved host need not do a TLS handshake first. Asks
    /// for the origin's `/`, never for the secret path.
    pub(crate) async fn warm(self) {
        let mut origin = self.url.clone();
        origin.set_path("/");
        origin.set_query(None);
        origin.set_fragment(None);
        let _ = self.client.head(origin).send().await;
    }

    /// Posts one message. Answers for how long the receiver wants to be left alone.
    pub(super) async fn post(&self, alerts: &[&Alert]) -> Result<Duration, Failure> {
        let mut request = self.client.post(self.url.clone()).headers(self.headers.clone());
        if let [alert] = alerts {
            let key = idempotency_key(alert);
            request = request.header("idempotency-key", &key).header("x-oxpecker-key", &key);
        }
        let request = match self.shaped(alerts) {
            // A header of the configuration's own has the last word.
            Some((_, body)) if self.headers.contains_key(CONTENT_TYPE) => request.body(body),
            Some((content_type, body)) => request.header(CONTENT_TYPE, content_type).body(body),
            None => request.json(&self.dialect.body(alerts, Timestamp::now())),
        };
        let response = request.send().await.map_err(|error| self.transport(&error, ATTEMPT_TIMEOUT))?;
        let status = response.status();
        let (retry_after, rest) = (retry_after(&response), rest(&response));
        drain(response).await;
        judge(status, retry_after)?;
        Ok(rest.max(self.dialect.pause()))
    }

    /// The body that the route's template makes, where it has one that works.
    fn shaped(&self, alerts: &[&Alert]) -> Option<(&str, String)> {
        let (Some(template), [alert]) = (&self.template, alerts) else { return None };
        match template.render(alert) {
            Ok(body) => Some((template.content_type(), body)),
            Err(error) => {
                tracing::warn!(key = %alert.key, "the template of a webhook failed, the alert goes out in our own JSON: {error}");
                None
            }
        }
    }

    /// Tells a check outside that the guard lives.
    pub(super) async fn beat(&self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let method = match heartbeat.method {
            heartbeat::Method::Get => Method::GET,
            heartbeat::Method::Post => Method::POST,
        };
        // One that a cache answers tells nobody anything.
        let request = self.client.request(method, self.url.clone()).header(CACHE_CONTROL, "no-store");
        let sent = request.timeout(heartbeat.timeout).send().await;
        let response = sent.map_err(|error| self.transport(&error, heartbeat.timeout))?;
        let (status, retry_after) = (response.status(), retry_after(&response));
        drain(response).await;
        if status.is_success() {
            return Ok(());
        }
        let hint = match status.as_u16() {
            300..=399 => ". Hint: it redirects: configure the URL that it redirects to",
            401 | 403 | 404 | 405 | 410 => {
                ". Hint: see whether the check is still there, its URL whole, and whether it wants a GET or a POST"
            }
            _ => "",
        };
        Err(Failure { error: format!("status {status}{hint}"), permanent: false, retry_after })
    }

    fn transport(&self, error: &reqwest::Error, patience: Duration) -> Failure {
        let error_text = if error.is_timeout() && !error.is_connect() {
            format!("no answer within {} s", patience.as_secs_f64())
        } else if error.is_timeout() {
            format!("no connection within {} s", CONNECT_TIMEOUT.min(patience).as_secs_f64())
        } else {
            chain(error)
        };
        Failure { error: self.redact(error_text), permanent: error.is_builder(), retry_after: None }
    }

    /// Errors of the HTTP stack may quote the URL or a header; ours must not.
    fn redact(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "[redacted]"))
    }
}

/// An error with its causes, without the outermost URL.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect".to_owned() } else { "cannot send".to_owned() };
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

/// Reads a bounded part of the answer and forgets it.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(response: &Response) -> Option<Duration> {
    parse_retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?, Timestamp::now())
}

/// Discord says before it refuses that its bucket is empty, and in how many seconds it is full again.
fn rest(response: &Response) -> Duration {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    match (header("x-ratelimit-remaining"), header("x-ratelimit-reset-after")) {
        (Some("0"), Some(seconds)) => seconds
            .parse()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or_default()
            .min(LONGEST_REST),
        _ => Duration::ZERO,
    }
}

fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    // Discord writes fractions.
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// What a status means: taken, try again, or of no use.
fn judge(status: StatusCode, retry_after: Option<Duration>) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let passing =
        status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if passing {
        return Err(Failure { error: format!("status {status}"), permanent: false, retry_after });
    }
    let hint = match status.as_u16() {
        300..=399 => "it redirects: configure the URL that it redirects to",
        401 | 403 | 407 => "it does not accept our token or URL: renew it",
        404 | 410 => {
            "nothing is there: the webhook was removed or its URL is wrong, or its server is just being replaced"
        }
        400 | 415 | 422 => {
            "it does not understand our JSON: it needs a receiver for oxpecker's schema, or another kind of route"
        }
        413 => "it takes no message of this size",
        _ => "see the receiver's log",
    };
    // These are about the message itself. All else may be a proxy's answer while its service is being replaced, or be mended by
    // somebody who reads our log: an alert must not be lost to that.
    let permanent = matches!(status.as_u16(), 400 | 413 | 415 | 422);
    let retry_after = (!permanent).then(|| retry_after.unwrap_or_default().max(REFUSED_PAUSE));
    Err(Failure { error: format!("status {status}. Hint: {hint}"), permanent, retry_after })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn statuses_mean_what_they_should() {
        let asked = Duration::from_secs(3);
        for (status, permanent, pause) in [
            (200, None, None),
            (204, None, None),
            (301, Some(false), Some(REFUSED_PAUSE)),
            (400, Some(true), None),
            (401, Some(false), Some(REFUSED_PAUSE)),
            (403, Some(false), Some(REFUSED_PAUSE)),
            (404, Some(false), Some(REFUSED_PAUSE)),
            (408, Some(false), Some(asked)),
            (410, Some(false), Some(REFUSED_PAUSE)),
            (413, Some(true), None),
            (415, Some(true), None),
            (422, Some(true), None),
            (429, Some(false), Some(asked)),
            (500, Some(false), Some(asked)),
            (503, Some(false), Some(asked)),
        ] {
            let judged = judge(StatusCode::from_u16(status).unwrap(), Some(asked));
            assert_eq!(judged.as_ref().err().map(|failure| failure.permanent), permanent, "{status}");
            if let Err(failure) = judged {
                assert_eq!(failure.retry_after, pause, "{status}");
                // What passes by itself needs no hint.
                assert_eq!(failure.error.contains("Hint: "), pause != Some(asked), "{status}");
            }
        }
        let long = REFUSED_PAUSE * 2;
        let refused = judge(StatusCode::NOT_FOUND, Some(long)).unwrap_err();
        assert_eq!(refused.retry_after, Some(long), "a receiver that asks for more gets more");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            ("2.5", Some(2)),
            ("inf", None),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:01:00 GMT", Some(60)),
            ("Wed, 31 Dec 2025 00:01:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(parse_retry_after(text, now).map(|d| d.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn urls_are_checked_without_being_shown() {
        for (url, good) in [
            ("https://hooks.example/T0/s3cr3t", true),
            ("http://127.0.0.1:9/s3cr3t", true),
            ("http://[::1]/s3cr3t?k=1", true),
            ("", false),
            ("s3cr3t", false),
            ("hooks.example/s3cr3t", false),
            ("hooks.example:443/s3cr3t", false),
            ("ftp://hooks.example/s3cr3t", false),
            ("file:///s3cr3t", false),
            ("https://", false),
            ("https://s3cr3t:port/", false),
        ] {
            let checked = check_webhook_url(&Secret::new(url));
            assert_eq!(checked.is_ok(), good, "{url}");
            if let Err(error) = checked {
                assert!(error.contains("Hint: ") && !error.contains("s3cr3t"), "{error}");
            }
        }
    }

    #[test]
    fn a_route_that_cannot_work_is_refused_without_its_secrets() {
        let client = client().or_else(|_| plain_client()).unwrap();
        let webhook = |url: &str, bearer: Option<&str>, header: &str| Webhook {
            url: Secret::new(url),
            bearer: bearer.map(Secret::new),
            headers: BTreeMap::from([(header.to_owned(), "v4lue".to_owned())]),
            template: None,
        };
        for bad in [
            webhook("s3cr3t", None, "x-a"),
            webhook("ftp://host/s3cr3t", None, "x-a"),
            webhook("http://host/s3cr3t", Some("t0\nken"), "x-a"),
            webhook("http://host/s3cr3t", None, "x a"),
        ] {
            let error = HttpTarget::new(client.clone(), &bad, Dialect::Own).err().unwrap();
            for secret in ["s3cr3t", "t0", "v4lue"] {
                assert!(!error.contains(secret), "{error}");
            }
        }
        let target = HttpTarget::new(client, &webhook("http://host/s3cr3t?k=1", Some("t0ken"), "x-a"), Dialect::Own)
            .ok()
            .unwrap();
        assert_eq!(
            target.redact("http://host/s3cr3t?k=1 /s3cr3t k=1 t0ken".to_owned()),
            "[redacted] [redacted] [redacted] [redacted]"
        );
    }
}
