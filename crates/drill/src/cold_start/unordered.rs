//! Nobody knows an order: all are started at once, and each that ends is started again with Kubernetes' back-off.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use services::{
    driver::{Act, Driver as _},
    health::Process,
};

use super::{backoff::BackOff, record, world::World};
use crate::DrillError;

/// How often is looked whether all are stable.
const LOOK: Duration = Duration::from_millis(20);

/// One container.
enum Pod {
    /// It is handed to whoever runs it.
    Starting,
    Running {
        since: Instant,
    },
    /// It has ended and is waited with.
    Waiting {
        until: Instant,
    },
}

/// Brings them back until all are stable, or the time is over. All times of the back-off are divided by `scale`.
pub(crate) async fn bring_back(
    world: &World,
    from_us: u64,
    scale: u32,
    stable_for: Duration,
    patience: Duration,
) -> Result<(), DrillError> {
    let begun = Instant::now();
    let mut pods: Vec<(Pod, BackOff)> =
        world.members.iter().map(|_| (Pod::Waiting { until: begun }, BackOff::default())).collect();
    let mut starts = FuturesUnordered::new();
    while begun.elapsed() < patience {
        for (at, (_, seen)) in world.driver.list().await.into_iter().enumerate() {
            let Some((pod, back_off)) = pods.get_mut(at) else { continue };
            if let (Pod::Running { since }, Process::Ended { .. }) = (&*pod, &seen.process) {
                let wait = back_off.after(since.elapsed().saturating_mul(scale)) / scale;
                *pod = Pod::Waiting { until: Instant::now() + wait };
            }
        }
        let now = Instant::now();
        let mut next = now + LOOK;
        for (at, (pod, _)) in pods.iter_mut().enumerate() {
            match pod {
                Pod::Waiting { until } if *until <= now => {
                    *pod = Pod::Starting;
                    let name = world.members[at].name.as_str().into();
                    let driver = &world.driver;
                    starts.push(async move { (at, driver.act(&name, Act::Start).await) });
                }
                Pod::Waiting { until } => next = next.min(*until),
                Pod::Starting | Pod::Running { .. } => {}
            }
        }
        let at_s = stable_for.as_secs_f64();
        let stable = record::stable_s(&world.lanes(from_us), at_s);
        let now_s = crate::act::seconds_between(from_us, crate::measure::clock::boot_us());
        if stable.is_some_and(|stable| stable <= now_s) {
            break;
        }
        tokio::select! {
            Some((at, started)) = starts.next(), if !starts.is_empty() => {
                started.map_err(|error| DrillError::cold("starting a service", error.to_string()))?;
                pods[at].0 = Pod::Running { since: Instant::now() };
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
    Ok(())
}
