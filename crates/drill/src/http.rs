//! The plain HTTP/1.1 that services, load and sink share: loopback only, no TLS, no redirects.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use crate::DrillError;

/// Idle connections kept to one address; more are closed after use.
const MAX_IDLE_CONNECTIONS: usize = 256;
/// The longest answer that is read.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Why a request failed, in the words of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer within the user's patience.
    TimedOut,
    /// The service answered that it could not (5xx).
    ServerError,
    /// The service took no connection, or broke it.
    Disconnected,
    /// So many requests were waiting already that this one was not sent.
    NotSent,
}

/// A client that keeps its connections.
#[derive(Clone)]
pub(crate) struct Client {
    inner: legacy::Client<HttpConnector, Empty<Bytes>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build(connector);
        Self { inner }
    }

    /// Sends a request without a body and reads the answer whole, within `patience`.
    pub(crate) async fn send(&self, method: Method, uri: Uri, patience: Duration) -> Result<Bytes, Failure> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        tokio::time::timeout(patience, self.answer(request)).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn answer(&self, request: Request<Empty<Bytes>>) -> Result<Bytes, Failure> {
        let answer = self.inner.request(request).await.map_err(|_| Failure::Disconnected)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::ServerError);
        }
        let body = http_body_util::Limited::new(answer.into_body(), MAX_BODY_BYTES);
        Ok(body.collect().await.map_err(|_| Failure::Disconnected)?.to_bytes())
    }
}

/// The first line that a helper writes to standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Announcement {
    /// Which helper it is.
    pub(crate) helper: String,
    /// Where it listens on 127.0.0.1; 0 where it does not.
    pub(crate) port: u16,
}

/// Writes one line of JSON to standard output: how a helper speaks to the drill.
pub(crate) fn say(kind: &str, line: &impl Serialize) -> Result<(), DrillError> {
    use std::io::Write as _;
    let fail = |why: String| DrillError::helper(kind, format!("speaking to the drill: {why}"));
    let mut text = serde_json::to_string(line).map_err(|error| fail(error.to_string()))?;
    text.push('\n');
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| fail(error.to_string()))
}

/// A listener on a free port of the loopback.
pub(crate) async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until standard input is closed: the drill has finished, or died.
pub(crate) async fn serve_until_orphaned(name: &str, router: Router) -> Result<(), DrillError> {
    let (listener, address) =
        listen().await.map_err(|error| DrillError::helper(name, format!("listening: {error}")))?;
    say(name, &Announcement { helper: name.to_owned(), port: address.port() })?;
    tokio::select! {
        served = async { axum::serve(listener, router).await } => {
            served.map_err(|error| DrillError::helper(name, format!("serving: {error}")))
        }
        () = orphaned() => Ok(()),
    }
}

/// Completes when standard input is closed.
pub(crate) async fn orphaned() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer).await, Ok(read) if read > 0) {}
}
