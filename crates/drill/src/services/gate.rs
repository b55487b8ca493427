//! The entry gate: lets a new member in when the site knows them and the bot has greeted them, and tells the site.

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

type Upstream = State<(Client, Needs)>;

pub(crate) async fn run(needs: Needs) -> Result<(), DrillError> {
    stay_on("gate", needs.core)?;
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/enter/{id}", get(enter))
        .with_state((Client::new(), needs));
    serve_until_orphaned("gate", router).await
}

async fn health(State((client, needs)): Upstream) -> Result<&'static str, Refusal> {
    ask(&client, Method::GET, needs.site, "/healthz", HEALTH_TIMEOUT).await?;
    ask(&client, Method::GET, needs.bot, "/healthz", HEALTH_TIMEOUT).await.map(|_| "ok")
}

async fn enter(State((client, needs)): Upstream, Path(id): Path<i64>) -> Result<&'static str, Refusal> {
    ask(&client, Method::GET, needs.site, &format!("/members/{id}"), SERVICE_TIMEOUT).await?;
    ask(&client, Method::GET, needs.bot, &format!("/commands/{id}"), SERVICE_TIMEOUT).await?;
    ask(&client, Method::POST, needs.site, &format!("/joins/{id}"), SERVICE_TIMEOUT).await?;
    Ok("welcome")
}
