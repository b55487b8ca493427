//! The services that live on the scratch PostgreSQL, each a process of its own: `site` needs PostgreSQL, `bot` needs the
//! site's API, `gate` needs both (the layers of the outage). Their time-outs are ordinary ones and the same in every act.

mod bot;
mod gate;
mod site;

use std::time::Duration;

use axum::http::StatusCode;
use hyper::{Method, Uri};
use serde::{Deserialize, Serialize};

use crate::{
    DrillError,
    http::{Client, Failure},
};

pub(crate) use bot::run as bot;
pub(crate) use gate::run as gate;
pub(crate) use site::{Site, run as site};

/// How long a service waits for another service's answer.
pub(crate) const SERVICE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a health check waits for what the service needs.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of the site's pool.
pub(crate) const POOL_SIZE: usize = 10;
/// How long a request waits for a connection of the pool.
pub(crate) const POOL_TIMEOUT: Duration = Duration::from_secs(2);
/// The site's `statement_timeout`.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the services that one needs listen, on 127.0.0.1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Needs {
    /// The core to stay on.
    pub(crate) core: Option<usize>,
    /// The site's port.
    pub(crate) site: u16,
    /// The bot's port; 0 for the bot itself.
    #[serde(default)]
    pub(crate) bot: u16,
}

/// What a handler answers when it can't do its work.
type Refusal = (StatusCode, String);

/// One request to a service that this one needs.
async fn ask(client: &Client, method: Method, port: u16, path: &str, patience: Duration) -> Result<String, Refusal> {
    let uri: Uri = format!("http://127.0.0.1:{port}{path}")
        .parse()
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{path}: {error}")))?;
    let answer = client.send(method, uri, patience).await.map_err(|failure| {
        let status = match failure {
            Failure::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Failure::ServerError | Failure::Disconnected | Failure::NotSent => StatusCode::BAD_GATEWAY,
        };
        (status, format!("127.0.0.1:{port}{path}: {failure:?}"))
    })?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn stay_on(name: &str, core: Option<usize>) -> Result<(), DrillError> {
    core.map_or(Ok(()), crate::leash::bind_to)
        .map_err(|error| DrillError::helper(name, format!("binding to its core: {error}")))
}
