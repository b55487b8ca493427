//! What became of the requests: a histogram of latencies and the failures, by service and second of arrival.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::http::Failure;

/// The longest latency that is told apart; longer ones count as this.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Three significant digits: an error below 0.1 %.
const DIGITS: u8 = 3;

/// Latencies, mergeable.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS).expect("these constant bounds are valid"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add_counts(&mut self, counts: &[(u64, u64)]) {
        for &(us, count) in counts {
            self.0.saturating_record_n(us, count);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The latency below which `share` (0 to 1) of the requests stayed; none where there were no requests.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.value_at_quantile(share)))
    }

    pub(crate) fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_micros(self.0.max()))
    }

    fn counts(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

/// One service in one second of arrival, as it crosses from the load's process to the drill's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) target: Target,
    /// Second of the *intended* arrival, from the load's start.
    pub(crate) second: u64,
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Microseconds and how often; every request is in it, also failed ones with the time until they failed.
    pub(crate) latencies_us: Vec<(u64, u64)>,
}

/// The cells while they fill.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    cells: BTreeMap<(Target, u64), (Latencies, BTreeMap<Failure, u64>)>,
}

impl Tally {
    pub(crate) fn record(&mut self, target: Target, arrived: Duration, latency: Duration, failure: Option<Failure>) {
        let (latencies, failures) = self.cells.entry((target, arrived.as_secs())).or_default();
        latencies.record(latency);
        if let Some(failure) = failure {
            *failures.entry(failure).or_default() += 1;
        }
    }

    pub(crate) fn into_cells(self) -> Vec<Cell> {
        self.cells
            .into_iter()
            .map(|((target, second), (latencies, failures))| Cell {
                target,
                second,
                failures,
                latencies_us: latencies.counts(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What the drill reads from merged cells is what one histogram of everything would say.
        #[test]
        fn merging_loses_nothing(latencies in prop::collection::vec((0_u64..3, 0_u64..4_000, 1_u64..5_000_000), 1..300)) {
            let mut tally = Tally::default();
            let mut whole = Latencies::default();
            for &(target, arrived_ms, us) in &latencies {
                let target = Target::ALL[usize::try_from(target).unwrap()];
                let failure = (us % 7 == 0).then_some(Failure::TimedOut);
                tally.record(target, Duration::from_millis(arrived_ms), Duration::from_micros(us), failure);
                whole.record(Duration::from_micros(us));
            }
            let cells = tally.into_cells();
            let mut merged = Latencies::default();
            for cell in &cells {
                merged.add_counts(&cell.latencies_us);
            }
            prop_assert_eq!(merged.len(), latencies.len() as u64);
            for share in [0.0, 0.5, 0.95, 0.99, 1.0] {
                prop_assert_eq!(merged.quantile(share), whole.quantile(share));
            }
            let failed: u64 = cells.iter().flat_map(|cell| cell.failures.values()).sum();
            prop_assert_eq!(failed, latencies.iter().filter(|(_, _, us)| us % 7 == 0).count() as u64);
        }
    }

    #[test]
    fn an_empty_histogram_has_no_latency() {
        assert_eq!((Latencies::default().quantile(0.99), Latencies::default().max()), (None, None));
    }

    #[test]
    fn cells_survive_the_way_between_processes() {
        let mut tally = Tally::default();
        tally.record(Target::Gate, Duration::from_millis(1_500), Duration::from_millis(5_000), Some(Failure::TimedOut));
        let cells = tally.into_cells();
        let json = serde_json::to_string(&cells).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Cell>>(&json).unwrap(), cells);
        assert_eq!((cells[0].second, cells[0].failures[&Failure::TimedOut]), (1, 1));
    }
}
