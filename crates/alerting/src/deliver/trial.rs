//! One message through every route, now: does it arrive, and how fast?

use std::time::{Duration, Instant};

use model::Alert;
use tokio::task::JoinSet;

use super::target::Targets;
use crate::route::Route;

/// What became of the trial of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The route's name.
    pub route: String,
    /// From the call to the receiver's answer.
    pub took: Duration,
    /// Why it did not arrive, without secrets.
    pub error: Option<String>,
}

/// Sends this alert through each of these routes once, all at the same time, whatever their severity and labels; in the order of the
/// routes. Bounded by the time that an attempt may take.
pub async fn try_routes(routes: &[Route], alert: &Alert) -> Vec<Trial> {
    let began = Instant::now();
    let targets = Targets::new();
    let mut trials: Vec<Option<Trial>> = vec![None; routes.len()];
    let mut running = JoinSet::new();
    for (at, route) in routes.iter().enumerate() {
        let target = targets.as_ref().map_err(Clone::clone).and_then(|targets| targets.target(&route.carrier));
        let (name, alert) = (route.name.clone(), alert.clone());
        running.spawn(async move {
            let error = match target {
                Err(error) => Some(error),
                Ok(target) => target.send(&[&alert]).await.err().map(|failure| failure.error),
            };
            (at, Trial { route: name, took: began.elapsed(), error })
        });
    }
    while let Some(ended) = running.join_next().await {
        if let Ok((at, trial)) = ended
            && let Some(slot) = trials.get_mut(at)
        {
            *slot = Some(trial);
        }
    }
    let lost = |route: &Route| Trial {
        route: route.name.clone(),
        took: began.elapsed(),
        error: Some("its attempt broke off. Hint: this is a bug in oxpecker: please report it".to_owned()),
    };
    trials.into_iter().zip(routes).map(|(trial, route)| trial.unwrap_or_else(|| lost(route))).collect()
}
