//! The site: members and messages out of PostgreSQL, through a pool.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::{NoTls, error::SqlState};

use super::{HEALTH_TIMEOUT, POOL_SIZE, POOL_TIMEOUT, Refusal, STATEMENT_TIMEOUT, stay_on};
use crate::{DrillError, http::serve_until_orphaned};

/// How the site is described.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Site {
    /// The core to stay on.
    pub(crate) core: Option<usize>,
    /// PostgreSQL, as a connection string.
    pub(crate) postgres: String,
}

pub(crate) async fn run(site: Site) -> Result<(), DrillError> {
    stay_on("site", site.core)?;
    let pool = pool(&site.postgres)?;
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/members/{id}", get(member))
        .route("/joins/{id}", post(join))
        .with_state(pool);
    serve_until_orphaned("site", router).await
}

fn pool(postgres: &str) -> Result<Pool, DrillError> {
    let fail = |why: String| DrillError::helper("site", why);
    let mut config: tokio_postgres::Config =
        postgres.parse().map_err(|error| fail(format!("its connection string: {error}")))?;
    config
        .application_name("site")
        .connect_timeout(POOL_TIMEOUT)
        .options(format!("-c statement_timeout={}", STATEMENT_TIMEOUT.as_millis()));
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(POOL_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| fail(format!("its pool: {error}")))
}

async fn connection(pool: &Pool) -> Result<Object, Refusal> {
    pool.get().await.map_err(|error| match error {
        PoolError::Timeout(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("no connection within {POOL_TIMEOUT:?}")),
        error => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    })
}

fn refused(error: &tokio_postgres::Error) -> Refusal {
    let status = match error.code() {
        Some(&SqlState::QUERY_CANCELED) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

async fn health(State(pool): State<Pool>) -> Result<&'static str, Refusal> {
    let check = async {
        let client = connection(&pool).await?;
        client.simple_query("SELECT 1").await.map_err(|error| refused(&error))
    };
    match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
        Ok(answer) => answer.map(|_| "ok"),
        Err(_) => {
            Err((StatusCode::SERVICE_UNAVAILABLE, format!("PostgreSQL gave no answer within {HEALTH_TIMEOUT:?}")))
        }
    }
}

async fn member(State(pool): State<Pool>, Path(id): Path<i64>) -> Result<Json<Value>, Refusal> {
    let client = connection(&pool).await?;
    let member = client
        .prepare_cached("SELECT account, note FROM members WHERE id = $1")
        .await
        .map_err(|error| refused(&error))?;
    let messages = client
        .prepare_cached("SELECT id, note FROM messages WHERE account = $1 ORDER BY created DESC LIMIT 5")
        .await
        .map_err(|error| refused(&error))?;
    let Some(row) = client.query_opt(&member, &[&id]).await.map_err(|error| refused(&error))? else {
        return Ok(Json(json!({ "id": id, "member": null })));
    };
    let (account, note): (i64, &str) = (row.get(0), row.get(1));
    let rows = client.query(&messages, &[&account]).await.map_err(|error| refused(&error))?;
    let said: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
    Ok(Json(json!({ "id": id, "account": account, "note": note, "messages": said })))
}

async fn join(State(pool): State<Pool>, Path(id): Path<i64>) -> Result<&'static str, Refusal> {
    let client = connection(&pool).await?;
    let statement = client
        .prepare_cached("UPDATE sessions SET joins = joins + 1, seen = now() WHERE id = $1::bigint % 10000")
        .await
        .map_err(|error| refused(&error))?;
    client.execute(&statement, &[&id]).await.map_err(|error| refused(&error))?;
    Ok("ok")
}
