//! Connections and their bounds: nobody holds one for long, and nobody holds many things up.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use incident::Incident;
use journal::JournalError;
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::{
    access::{Access, Refusal},
    now::{Facts, Now, Unknown},
    pages,
    past::Past,
};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's head, and may keep a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection lives, whatever is done on it: a client that reads slowly is dropped then, and a live view comes again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one answer may take to begin; the guard itself has ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A request's head in bytes. No answer reads a body.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A request's headers.
const HEADERS_MAX: usize = 64;
/// How long what the guard said is good enough, for all viewers together.
const FRESH: Duration = Duration::from_secs(1);
/// The pause after an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The address can't be used.
    #[error(
        "can't listen on {listen}: {source}. Hint: another process may; `listen` in [console] names another address"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
}

/// What the guard said, and when.
type Said = (Instant, Arc<Result<Now, Unknown>>);

/// What every answer needs.
pub(crate) struct Shared {
    access: Access,
    state_dir: PathBuf,
    facts: Arc<dyn Facts>,
    now: Mutex<Option<Said>>,
    past: Mutex<Past>,
}

impl Shared {
    /// What the guard sees; asked one at a time. In a task of its own: viewers that come and go do not make more questions.
    pub(crate) async fn now(self: &Arc<Self>) -> Arc<Result<Now, Unknown>> {
        let shared = self.clone();
        let asked = tokio::spawn(async move {
            let mut last = shared.now.lock().await;
            if let Some((at, now)) = last.as_ref()
                && at.elapsed() < FRESH
            {
                return now.clone();
            }
            let facts = shared.facts.clone();
            let now = tokio::task::spawn_blocking(move || facts.now()).await;
            let now = Arc::new(now.unwrap_or_else(|error| Err(Unknown(format!("the question ended: {error}")))));
            *last = Some((Instant::now(), now.clone()));
            now
        });
        asked.await.unwrap_or_else(|error| Arc::new(Err(Unknown(format!("the question ended: {error}")))))
    }

    /// The journal's incidents, oldest first.
    pub(crate) async fn incidents(self: &Arc<Self>) -> Result<Arc<Vec<Incident>>, String> {
        let shared = self.clone();
        let read: Result<Result<_, JournalError>, _> = tokio::spawn(async move {
            // Held for as long as the file is read: one reader at a time.
            let mut past = shared.past.lock().await;
            let mut taken = std::mem::take(&mut *past);
            let dir = shared.state_dir.clone();
            let (taken, read) = tokio::task::spawn_blocking(move || {
                let read = taken.incidents(&dir);
                (taken, read)
            })
            .await
            .unwrap_or_else(|_| (Past::default(), Ok(Arc::default())));
            *past = taken;
            read
        })
        .await;
        match read {
            Ok(Ok(incidents)) => Ok(incidents),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("the reading ended: {error}")),
        }
    }
}

/// A console that listens.
pub struct Console {
    listener: TcpListener,
    router: Router,
}

impl Console {
    /// Listens on `listen`, for incidents of the journal in `state_dir`.
    ///
    /// # Errors
    /// When the address can't be used.
    pub async fn listen(
        listen: SocketAddr,
        access: Access,
        state_dir: PathBuf,
        facts: Arc<dyn Facts>,
    ) -> Result<Self, ConsoleError> {
        let listener = TcpListener::bind(listen).await.map_err(|source| ConsoleError::Listen { listen, source })?;
        let shared = Arc::new(Shared { access, state_dir, facts, now: Mutex::default(), past: Mutex::default() });
        let router =
            pages::router().layer(middleware::from_fn_with_state(shared.clone(), at_the_door)).with_state(shared);
        Ok(Self { listener, router })
    }

    /// Where it listens: the port is another than the declared one where that was 0.
    ///
    /// # Errors
    /// When the system does not know.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "the console can't accept; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(self.router.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .max_headers(HEADERS_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                // A client that breaks off harms only itself.
                let _ = timeout(CONNECTION_TIMEOUT, connection).await;
                drop(place);
            });
        }
    }
}

/// Every request passes here, and every answer.
async fn at_the_door(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let mut response = match shared.access.check(request.method(), authority.as_deref(), request.headers()) {
        Err(refusal) => refused(refusal, shared.access.wants_token()),
        Ok(()) => timeout(ANSWER_TIMEOUT, next.run(request))
            .await
            .unwrap_or_else(|_| (StatusCode::GATEWAY_TIMEOUT, "this took too long; ask again\n").into_response()),
    };
    protect(response.headers_mut());
    response
}

fn refused(refusal: Refusal, wants_token: bool) -> Response {
    let mut response = (refusal.status, format!("{}\n", refusal.why)).into_response();
    let headers = response.headers_mut();
    if refusal.status == StatusCode::UNAUTHORIZED && wants_token {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"oxpecker: any name, the token as password\", charset=\"UTF-8\""),
        );
    }
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    // What such a request brings along is not read; the connection ends instead.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What no page of ours needs is forbidden to all of them.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
