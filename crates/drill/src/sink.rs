//! The webhook's other end: notes when each alert arrives.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::post};
use jiff::Timestamp;
use model::{AlertState, Moment};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{DrillError, http::listen, measure::clock};

/// Arrivals that are kept at most.
const MAX_ARRIVALS: usize = 1_000;

/// What of a webhook's body the drill reads; see the alerting crate's description of it.
#[derive(Clone, Debug, Deserialize)]
struct Body {
    key: String,
    rule: String,
    state: AlertState,
    summary: String,
    decided: Timestamp,
}

/// One alert and when it came in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) key: String,
    pub(crate) rule: String,
    pub(crate) state: AlertState,
    pub(crate) summary: String,
    /// When the guard decided, on the boot clock.
    pub(crate) decided_us: u64,
    /// When it arrived, on the boot clock.
    pub(crate) arrived_us: u64,
}

impl Arrival {
    /// The body tells the decision on the wall clock alone: the way back to the boot clock is as long on both, unless somebody
    /// steps the wall clock in the moment between decision and arrival.
    fn new(body: Body, arrived: Moment) -> Self {
        let under_way = Duration::try_from(arrived.wall.duration_since(body.decided)).unwrap_or_default();
        let under_way_us = u64::try_from(under_way.as_micros()).unwrap_or(u64::MAX);
        Self {
            key: body.key,
            rule: body.rule,
            state: body.state,
            summary: body.summary,
            decided_us: arrived.boot_us.saturating_sub(under_way_us),
            arrived_us: arrived.boot_us,
        }
    }
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

    /// Closes its port; when this returns, it is.
    pub(crate) async fn close(mut self) {
        self.server.abort();
        // Cancelled, which is what was asked for.
        let _ = (&mut self.server).await;
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

async fn arrived(State(arrivals): State<Arrivals>, Json(body): Json<Body>) {
    let arrival = Arrival::new(body, clock::now());
    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
    // Delivery is at least once: the first counts.
    let repeated = arrivals.iter().any(|seen| seen.key == arrival.key && seen.state == arrival.state);
    if !repeated && arrivals.len() < MAX_ARRIVALS {
        arrivals.push(arrival);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::Client;

    #[test]
    fn a_decision_is_put_on_the_boot_clock() {
        let arrived = Moment { wall: Timestamp::from_millisecond(1_607_688_000_500).unwrap(), boot_us: 9_000_000 };
        let body = |decided: &str| {
            let body = json!({ "schema": 1, "key": "k", "rule": "cpu-saturated", "state": "firing", "severity": "warning",
                               "summary": "full", "decided": decided, "more": [] });
            serde_json::from_value::<Body>(body).unwrap()
        };
        let arrival = Arrival::new(body("2020-12-11T12:00:00.25Z"), arrived);
        assert_eq!((arrival.decided_us, arrival.arrived_us), (8_750_000, 9_000_000));
        // A decision in the future is a stepped clock: it counts as just now.
        assert_eq!(Arrival::new(body("2020-12-11T12:00:09Z"), arrived).decided_us, 9_000_000);
    }

    #[tokio::test]
    async fn a_repetition_counts_once() {
        let sink = Sink::open().await.unwrap();
        let body = |state| Body {
            key: "k".into(),
            rule: "cpu-saturated".into(),
            state,
            summary: "full".into(),
            decided: Timestamp::now(),
        };
        for state in [AlertState::Firing, AlertState::Firing, AlertState::Resolved] {
            arrived(State(Arc::clone(&sink.arrivals)), Json(body(state))).await;
        }
        let states: Vec<_> = sink.arrivals().iter().map(|arrival| arrival.state).collect();
        assert_eq!(states, [AlertState::Firing, AlertState::Resolved]);
        // The sink is there for real, and knows what an alert is.
        let uri = format!("http://127.0.0.1:{}/alerts", sink.port).parse().unwrap();
        let answer = Client::new().send(hyper::Method::POST, uri, Duration::from_secs(5)).await;
        assert_eq!(answer, Err(crate::http::Failure::ServerError), "a body that is none is refused");
    }
}
