//! One request to an engine, bounded in time and in bytes.
//!
//! Each has a connection of its own: on a unix socket that costs nothing, and one that was kept would be that of an engine which has ended since. Nothing that a person
//! wrote goes into a request's path: containers are asked for by the ids that the engine itself gave.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use reqwest::{Method, Response, StatusCode, Url, redirect};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    answer::{self, Created, Inspected, Listed, Version, Volumes, is_id, read},
    error::EngineError,
    version::{Agreed, agree},
};

/// How long a question may take. An engine under load takes its time; a dead one refuses at once.
pub(super) const ASK_PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: the list of some ten thousand containers.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much of a refusal is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// What makes an engine tell of containers alone, and of what matters. Checks of health are begun all the time; only their outcome does.
const EVENTS: &[&str] =
    &["create", "start", "die", "stop", "pause", "unpause", "destroy", "rename", "update", "health_status"];

pub(super) struct Client {
    socket: PathBuf,
    http: OnceLock<Result<reqwest::Client, String>>,
    agreed: Mutex<Option<Agreed>>,
}

/// What is asked.
struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, String)],
    body: Option<&'a Value>,
}

impl<'a> Request<'a> {
    fn get(path: &'a [&'a str], query: &'a [(&'a str, String)]) -> Self {
        Self { method: Method::GET, path, query, body: None }
    }
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), http: OnceLock::new(), agreed: Mutex::new(None) }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The version of the API, agreed on with the first request and again after each that failed: another engine may have been started.
    pub(super) async fn agreed(&self) -> Result<Agreed, EngineError> {
        let known = *self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agreed) = known {
            return Ok(agreed);
        }
        let what = "the engine's version";
        let answered = self.asked(&Request::get(&["version"], &[]), None, ASK_PATIENCE, what).await?;
        let agreed = agree(&read::<Version>(what, &answered)?)?;
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed);
        Ok(agreed)
    }

    fn forget(&self) {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// All containers, running or not. `by_label`: only Compose's.
    pub(super) async fn containers(&self, by_label: bool) -> Result<Vec<Listed>, EngineError> {
        let what = "the list of containers";
        let mut query = vec![("all", "1".to_owned())];
        if by_label {
            query.push(("filters", serde_json::json!({"label": [answer::SERVICE]}).to_string()));
        }
        let body = self.ask(&Request::get(&["containers", "json"], &query), ASK_PATIENCE, what).await?;
        let all: Vec<Listed> = read(what, &body)?;
        match all.iter().find(|one| !is_id(&one.id)) {
            None => Ok(all),
            Some(_) => Err(EngineError::Unreadable { what: what.into(), why: "the id of one is no id".into() }),
        }
    }

    /// One container; `None` where there is none of this id any more.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Inspected>, EngineError> {
        let what = "what the engine says of a container";
        let path = ["containers", checked(id)?, "json"];
        match self.ask(&Request::get(&path, &[]), ASK_PATIENCE, what).await {
            Ok(body) => read(what, &body).map(Some),
            Err(EngineError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Does something to a container. That it was done already is as good.
    pub(super) async fn tell(
        &self,
        id: &str,
        verb: &str,
        query: &[(&str, String)],
        within: Duration,
    ) -> Result<(), EngineError> {
        let path = ["containers", checked(id)?, verb];
        let request = Request { method: Method::POST, path: &path, query, body: None };
        self.ask(&request, within, "the engine's answer").await.map(drop)
    }

    /// Makes a container and returns its id.
    pub(super) async fn create(&self, name: &str, body: &Value, within: Duration) -> Result<String, EngineError> {
        let query = [("name", name.to_owned())];
        let path = ["containers", "create"];
        let request = Request { method: Method::POST, path: &path, query: &query, body: Some(body) };
        let what = "the answer about a new container";
        let answered = self.ask(&request, within, what).await?;
        let created: Created = read(what, &answered)?;
        checked(&created.id).map(str::to_owned)
    }

    /// Removes a container that can't be started any more; its volumes stay.
    pub(super) async fn remove(&self, id: &str, within: Duration) -> Result<(), EngineError> {
        let query = [("force", "1".to_owned()), ("v", "0".to_owned())];
        let path = ["containers", checked(id)?];
        let request = Request { method: Method::DELETE, path: &path, query: &query, body: None };
        match self.ask(&request, within, "the engine's answer").await {
            Ok(_) | Err(EngineError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names of the volumes that there are.
    pub(super) async fn volumes(&self) -> Result<Vec<String>, EngineError> {
        let what = "the list of volumes";
        let body = self.ask(&Request::get(&["volumes"], &[]), ASK_PATIENCE, what).await?;
        let volumes: Volumes = read(what, &body)?;
        Ok(volumes.volumes.into_iter().flatten().filter_map(|one| one.name).collect())
    }

    /// What happens to containers, from now on and without an end.
    pub(super) async fn events(&self) -> Result<Response, EngineError> {
        let agreed = self.agreed().await?;
        // Podman calls its events otherwise, and translates them only in its answers.
        let filters = if agreed.is_podman {
            serde_json::json!({"type": ["container"]})
        } else {
            serde_json::json!({"type": ["container"], "event": EVENTS})
        };
        let query = [("filters", filters.to_string())];
        let request = Request::get(&["events"], &query);
        let silent = |_| EngineError::silent(&self.socket, ASK_PATIENCE);
        let response = timeout(ASK_PATIENCE, self.send(&request, Some(agreed))).await.map_err(silent)??;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(self.refused(response).await),
        }
    }

    async fn ask(&self, request: &Request<'_>, within: Duration, what: &str) -> Result<Vec<u8>, EngineError> {
        let agreed = self.agreed().await?;
        let answered = self.asked(request, Some(agreed), within, what).await;
        match &answered {
            Ok(_) => {}
            // One of an engine that speaks another version now.
            Err(EngineError::Refused { status: 400, message }) if !message.contains("client version") => {}
            Err(EngineError::Refused { status, .. }) if *status != 400 => {}
            Err(_) => self.forget(),
        }
        answered
    }

    async fn asked(
        &self,
        request: &Request<'_>,
        agreed: Option<Agreed>,
        within: Duration,
        what: &str,
    ) -> Result<Vec<u8>, EngineError> {
        let whole = async {
            let response = self.send(request, agreed).await?;
            if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
                self.body(response, what).await
            } else {
                Err(self.refused(response).await)
            }
        };
        timeout(within, whole).await.unwrap_or_else(|_| Err(EngineError::silent(&self.socket, within)))
    }

    async fn send(&self, request: &Request<'_>, agreed: Option<Agreed>) -> Result<Response, EngineError> {
        let http = self.http.get_or_init(|| client(&self.socket));
        let http = http.as_ref().map_err(|why| EngineError::NoClient { why: why.clone() })?;
        let mut sent = http.request(request.method.clone(), url(request, agreed)?);
        if let Some(body) = request.body {
            sent = sent.json(body);
        }
        sent.send().await.map_err(|error| EngineError::of_request(&self.socket, &error))
    }

    async fn body(&self, mut response: Response, what: &str) -> Result<Vec<u8>, EngineError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| EngineError::of_request(&self.socket, &error))?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(EngineError::TooLarge { what: what.to_owned(), bytes_max: ANSWER_BYTES_MAX });
            }
            body.extend_from_slice(&chunk);
        }
    }

    async fn refused(&self, mut response: Response) -> EngineError {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = REFUSAL_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == REFUSAL_BYTES_MAX {
                break;
            }
        }
        EngineError::Refused { status, message: answer::message(&body) }
    }
}

fn checked(id: &str) -> Result<&str, EngineError> {
    if is_id(id) {
        return Ok(id);
    }
    Err(EngineError::Unreadable { what: "a container's id".to_owned(), why: "it is none".to_owned() })
}

fn url(request: &Request<'_>, agreed: Option<Agreed>) -> Result<Url, EngineError> {
    let no_url = |why: String| EngineError::NoClient { why };
    // Its host is told to the engine and matters to nobody.
    let mut url = Url::parse("http://docker/").map_err(|error| no_url(error.to_string()))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(agreed.map(|agreed| format!("v{}", agreed.version))).extend(request.path);
    }
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(request.query);
    }
    Ok(url)
}

fn client(socket: &Path) -> Result<reqwest::Client, String> {
    // Nothing here speaks TLS, but there is no client without a provider. Another part of the process may have chosen one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(concat!("oxpecker/", env!("CARGO_PKG_VERSION")))
        .unix_socket(socket)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .tls_certs_only([])
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_and_paths_hold_ids_alone() {
        let query = [("name", "../a b&force=1#".to_owned())];
        let agreed = agree(&read("x", br#"{"ApiVersion": "1.41"}"#).unwrap()).unwrap();
        let create = url(&Request::get(&["containers", "create"], &query), Some(agreed)).unwrap();
        assert_eq!(create.as_str(), "http://docker/v1.41/containers/create?name=..%2Fa+b%26force%3D1%23");
        for id in ["..", "../../images/json", "site", ""] {
            checked(id).unwrap_err();
        }
    }
}
