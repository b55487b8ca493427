//! `oxpecker alert test`.

use std::fmt::Write as _;

use alerting::{Route, Trial};
use jiff::Timestamp;
use model::{Alert, AlertKey, AlertState, RuleId, Severity, alert::label};
use serde::Serialize;

use super::super::block_on;
use crate::{
    cli::Global,
    config::{self, Overrides},
    exit::{FINDING, FINE, Failure, Outcome},
    guard, output,
};

/// The rule's name of a trial: no rule is called so.
const TRIAL_RULE: &str = "trial";

#[derive(Serialize)]
struct Arrival<'a> {
    route: &'a str,
    arrived: bool,
    /// Milliseconds from the call to the receiver's answer.
    took_ms: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// Sends a message through every route, says what arrived and how fast. It needs no guard, no database and no state.
pub fn test(global: &Global, names: &[String]) -> Outcome {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let mut routes = guard::routes(&loaded.config)?;
    if routes.is_empty() {
        let error = anyhow::anyhow!("no alert.route is declared: alerts only reach the guard's log");
        return Err(Failure { code: FINDING, error, hint: None }.hint(
            "declare one: [[alert.route]] name = \"team\", discord = { webhook_file = \"/etc/oxpecker/discord\" }",
        ));
    }
    if let Some(unknown) = names.iter().find(|name| !routes.iter().any(|route| route.name == **name)) {
        let known: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        return Err(Failure::usage(anyhow::anyhow!("no route is called {unknown:?}"))
            .hint(format!("known: {}", known.join(", "))));
    }
    routes.retain(|route| names.is_empty() || names.contains(&route.name));
    let trials = block_on(alerting::try_routes(&routes, &trial(&loaded.config.postgres.name)))?;
    let arrivals: Vec<Arrival<'_>> = trials.iter().map(arrival).collect();
    let all = arrivals.iter().all(|arrival| arrival.arrived);
    let document = serde_json::json!({ "all_arrived": all, "routes": arrivals });
    output::result(global.output, "alert_test", &document, || in_words(&trials, &routes))?;
    Ok(if all { FINE } else { FINDING })
}

fn arrival(trial: &Trial) -> Arrival<'_> {
    Arrival {
        route: &trial.route,
        arrived: trial.error.is_none(),
        took_ms: trial.took.as_millis(),
        error: trial.error.as_deref(),
    }
}

fn in_words(trials: &[Trial], routes: &[Route]) -> String {
    let width = trials.iter().map(|trial| trial.route.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (trial, route) in trials.iter().zip(routes) {
        let took = trial.took.as_millis();
        let _ = match &trial.error {
            None => writeln!(
                text,
                "{:width$}  arrived after {took} ms (carries {} and above)",
                trial.route, route.min_severity
            ),
            Some(error) => writeln!(text, "{:width$}  DID NOT ARRIVE: {error}", trial.route),
        };
    }
    let missing = trials.iter().filter(|trial| trial.error.is_some()).count();
    if missing > 0 {
        let _ = writeln!(text, "\n{missing} of {} routes reach nobody", trials.len());
    } else {
        text.push_str("\nthe receivers took it: see that people got it, too\n");
    }
    text
}

/// What is sent. It says of itself that it is a trial, so that nobody gets up for it.
fn trial(cluster: &str) -> Alert {
    let now = collector::clock::now();
    Alert {
        key: AlertKey(format!("{TRIAL_RULE}/{cluster}/{}", Timestamp::now().as_microsecond())),
        rule: RuleId::from(TRIAL_RULE),
        severity: Severity::Info,
        state: AlertState::Firing,
        since: now,
        decided: now,
        summary: format!("trial of oxpecker's alerts for {cluster}: nothing is wrong"),
        details: vec!["sent by `oxpecker alert test`".to_owned()],
        next_steps: vec!["nothing: you would have been told".to_owned()],
        labels: [(label::CLUSTER.to_owned(), cluster.to_owned())].into(),
    }
}
