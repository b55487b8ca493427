//! The webhook's other end: notes when each alert arrives.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Json, Router, extract::State, routing::post};
use model::Alert;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{DrillError, http::listen, measure::clock::boot_us};

/// Arrivals that are kept at most.
const MAX_ARRIVALS: usize = 1_000;
/// How deep an alert may be wrapped in a route's envelope.
const MAX_DEPTH: usize = 6;

/// One alert and when it came in.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) boot_us: u64,
    pub(crate) alert: Alert,
}

type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// The sink; it closes its port when dropped.
pub(crate) struct Sink {
    pub(crate) port: u16,
    arrivals: Arrivals,
    server: JoinHandle<()>,
}

impl Sink {
    pub(crate) async fn open() -> Result<Self, DrillError> {
        let fail =
            |error: std::io::Error| DrillError::Host { what: "a port for the webhook".into(), why: error.to_string() };
        let (listener, address) = listen().await.map_err(fail)?;
        let arrivals = Arrivals::default();
        let router = Router::new().route("/alerts", post(arrived)).with_state(Arc::clone(&arrivals));
        let server = tokio::spawn(async move {
            // Ends only when it is aborted; a sink that fails shows as an alert that did not arrive.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { port: address.port(), arrivals, server })
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn arrived(State(arrivals): State<Arrivals>, Json(body): Json<Value>) {
    let boot_us = boot_us();
    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    for alert in alerts(&body, MAX_DEPTH) {
        if arrivals.len() < MAX_ARRIVALS {
            arrivals.push(Arrival { boot_us, alert });
        }
    }
}

/// The alerts in a payload, wherever the route's envelope has put them.
fn alerts(body: &Value, depth: usize) -> Vec<Alert> {
    if let Ok(alert) = Alert::deserialize_from(body) {
        return vec![alert];
    }
    if depth == 0 {
        return Vec::new();
    }
    match body {
        Value::Array(items) => items.iter().flat_map(|item| alerts(item, depth - 1)).collect(),
        Value::Object(fields) => fields.values().flat_map(|field| alerts(field, depth - 1)).collect(),
        _ => Vec::new(),
    }
}

/// Reading an alert out of a borrowed value.
trait DeserializeFrom: Sized {
    fn deserialize_from(value: &Value) -> Result<Self, serde_json::Error>;
}

impl<T: serde::de::DeserializeOwned> DeserializeFrom for T {
    fn deserialize_from(value: &Value) -> Result<Self, serde_json::Error> {
        T::deserialize(value)
    }
}

#[cfg(test)]
mod tests {
    use model::{AlertKey, AlertState, Severity};
    use serde_json::json;

    use super::*;
    use crate::measure::clock;

    #[test]
    fn alerts_are_found_in_any_envelope() {
        let alert = Alert {
            key: AlertKey("k".into()),
            rule: "cpu-saturated".into(),
            severity: Severity::Critical,
            state: AlertState::Firing,
            since: clock::now(),
            decided: clock::now(),
            summary: "the core is full".into(),
            details: vec![],
            next_steps: vec![],
            labels: std::collections::BTreeMap::new(),
        };
        let bare = serde_json::to_value(&alert).unwrap();
        for body in [bare.clone(), json!({ "version": 1, "alert": bare }), json!({ "alerts": [bare] })] {
            assert_eq!(alerts(&body, MAX_DEPTH), vec![alert.clone()]);
        }
        assert!(alerts(&json!({ "hello": [1, 2] }), MAX_DEPTH).is_empty());
    }
}
