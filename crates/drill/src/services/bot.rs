//! The bot: answers commands out of the site's API.

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use hyper::Method;

use super::{HEALTH_TIMEOUT, Needs, Refusal, SERVICE_TIMEOUT, ask, stay_on};
use crate::{
    DrillError,
    http::{Client, serve_until_orphaned},
};

type Upstream = State<(Client, u16)>;

pub(crate) async fn run(needs: Needs) -> Result<(), DrillError> {
    stay_on("bot", needs.core)?;
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/commands/{id}", get(command))
        .with_state((Client::new(), needs.site));
    serve_until_orphaned("bot", router).await
}

async fn health(State((client, site)): Upstream) -> Result<&'static str, Refusal> {
    ask(&client, Method::GET, site, "/healthz", HEALTH_TIMEOUT).await.map(|_| "ok")
}

async fn command(State((client, site)): Upstream, Path(id): Path<i64>) -> Result<String, Refusal> {
    let member = ask(&client, Method::GET, site, &format!("/members/{id}"), SERVICE_TIMEOUT).await?;
    Ok(format!("member {id}: {member}"))
}
