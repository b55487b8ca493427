//! From raw readings to an act's tables: pure.

use std::collections::BTreeMap;

use crate::{
    act::Outcome,
    http::Failure,
    load::{Cell, Latencies, Target},
    measure::{
        cpu::{CoreReading, CpuReadings, GroupReading, busy_share},
        saturation::saturations,
    },
    options::ActKind,
    result::{ActResult, CpuFacts, Saturation, Second, Summary, VacuumFacts},
};

const SECOND_US: u64 = 1_000_000;

/// Puts together what was measured.
pub(crate) fn assemble(act: ActKind, outcome: &Outcome, cpu: &CpuReadings, vacuum: Option<VacuumFacts>) -> ActResult {
    let length_s = outcome.length.as_secs();
    // The judged window begins with the second in which the storm was released, in the baseline where it would have been.
    let from_s = outcome.released.map_or(outcome.lead_in, |released| released.since(outcome.began)).as_secs();
    let in_window = |cell: &&Cell| cell.second >= from_s;
    let began_us = outcome.began.boot_us;
    let (from_us, to_us) = (began_us + from_s * SECOND_US, began_us + length_s * SECOND_US);
    // An act without a storm begins where it would have been released.
    let released_us = outcome.released.map_or(from_us, |released| released.boot_us);
    let from_release = |us| crate::act::seconds_between(released_us, us);
    ActResult {
        act,
        began: outcome.began,
        window_from_s: from_s,
        window_s: length_s.saturating_sub(from_s),
        all: summary(outcome.cells.iter().filter(in_window)),
        services: by_service(&outcome.cells.iter().filter(in_window)),
        seconds: (0..length_s)
            .map(|second| {
                let (from_us, to_us) = (began_us + second * SECOND_US, began_us + (second + 1) * SECOND_US);
                let in_second = |cell: &&Cell| cell.second == second;
                Second {
                    second,
                    all: summary(outcome.cells.iter().filter(in_second)),
                    services: by_service(&outcome.cells.iter().filter(in_second)),
                    core_busy: busy(&cpu.core, from_us, to_us),
                    vacuum_cores: cores(&cpu.groups, from_us, to_us, |group| group.vacuum_us),
                }
            })
            .collect(),
        cpu: CpuFacts {
            busy: busy(&cpu.core, from_us, to_us),
            vacuum: cores(&cpu.groups, from_us, to_us, |group| group.vacuum_us),
            postgres: cores(&cpu.groups, from_us, to_us, |group| group.postgres_us),
            services: cores(&cpu.groups, from_us, to_us, |group| group.services_us),
            guard: cores(&cpu.groups, from_us, to_us, |group| group.guard_us),
            saturated: saturations(&cpu.core, released_us, to_us)
                .into_iter()
                .map(|(from_us, to_us)| Saturation { from_s: from_release(from_us), to_s: from_release(to_us) })
                .collect(),
        },
        vacuum,
        guard: None,
    }
}

fn summary<'a>(cells: impl Iterator<Item = &'a Cell>) -> Summary {
    let mut latencies = Latencies::default();
    let mut failures: BTreeMap<Failure, u64> = BTreeMap::new();
    for cell in cells {
        latencies.add_counts(&cell.latencies_us);
        for (&failure, count) in &cell.failures {
            *failures.entry(failure).or_default() += count;
        }
    }
    Summary::of(&latencies, failures)
}

fn by_service<'a>(cells: &(impl Iterator<Item = &'a Cell> + Clone)) -> Vec<(Target, Summary)> {
    Target::ALL.iter().map(|&target| (target, summary(cells.clone().filter(|cell| cell.target == target)))).collect()
}

/// The core's busy share over a span, from the readings nearest to its ends.
fn busy(readings: &[CoreReading], from_us: u64, to_us: u64) -> f64 {
    let near = |us: u64| readings.iter().min_by_key(|reading| reading.boot_us.abs_diff(us)).copied();
    match (near(from_us), near(to_us)) {
        (Some(from), Some(to)) => busy_share(from, to),
        _ => 0.0,
    }
}

/// CPU time used over a span, in seconds. Readings between two moments are interpolated.
pub(crate) fn used_s(readings: &[GroupReading], from_us: u64, to_us: u64, of: impl Fn(&GroupReading) -> u64) -> f64 {
    let at = |us: u64| -> f64 {
        let after = readings.partition_point(|reading| reading.boot_us < us);
        match (after.checked_sub(1).and_then(|index| readings.get(index)), readings.get(after)) {
            (Some(before), Some(next)) => {
                let part = crate::act::seconds_between(before.boot_us, us)
                    / crate::act::seconds_between(before.boot_us, next.boot_us).max(f64::MIN_POSITIVE);
                let (from, to) = (seconds(of(before)), seconds(of(next)));
                from + (to - from) * part
            }
            (Some(only), None) | (None, Some(only)) => seconds(of(only)),
            (None, None) => 0.0,
        }
    };
    at(to_us) - at(from_us)
}

fn seconds(us: u64) -> f64 {
    crate::act::seconds_between(0, us)
}

fn cores(readings: &[GroupReading], from_us: u64, to_us: u64, of: impl Fn(&GroupReading) -> u64) -> f64 {
    let length = crate::act::seconds_between(from_us, to_us);
    if length > 0.0 { used_s(readings, from_us, to_us, of) / length } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::clock;

    #[test]
    fn the_window_begins_with_the_release_and_leaves_out_what_was_before() {
        let began = clock::now();
        let cell = |second, us| Cell {
            target: Target::Site,
            second,
            failures: BTreeMap::from([(Failure::TimedOut, 1)]),
            latencies_us: vec![(us, 10)],
        };
        let outcome = Outcome {
            began,
            released: Some(began.plus(Duration::from_millis(2_100))),
            lead_in: Duration::from_secs(1),
            length: Duration::from_secs(4),
            cells: vec![cell(0, 1_000), cell(1, 1_000), cell(2, 2_000), cell(3, 9_000)],
        };
        let result = assemble(ActKind::Stock, &outcome, &CpuReadings::default(), None);
        assert_eq!((result.window_from_s, result.window_s), (2, 2));
        assert_eq!((result.all.requests, result.all.failed), (20, 2));
        assert!((result.all.p50_ms - 2.0).abs() < 0.01 && (result.all.max_ms - 9.0).abs() < 0.01, "{:?}", result.all);
        assert_eq!(result.seconds.len(), 4);
        assert_eq!(result.services[1].1.requests, 0);
        let baseline =
            assemble(ActKind::Baseline, &Outcome { released: None, ..outcome }, &CpuReadings::default(), None);
        assert_eq!((baseline.window_from_s, baseline.window_s, baseline.all.requests), (1, 3, 30));
    }

    #[test]
    fn cpu_time_between_readings_is_interpolated() {
        let at = |boot_us, vacuum_us| GroupReading { boot_us, vacuum_us, ..GroupReading::default() };
        let readings = [at(0, 0), at(1_000_000, 500_000), at(3_000_000, 500_000)];
        for (from, to, expected) in
            [(0, 1_000_000, 0.5), (500_000, 1_000_000, 0.25), (1_000_000, 3_000_000, 0.0), (500_000, 9_000_000, 0.25)]
        {
            let used = used_s(&readings, from, to, |group| group.vacuum_us);
            assert!((used - expected).abs() < 1e-9, "{from} {to}: {used}");
        }
    }
}
