//! The outage's services, what each needs, and how long each takes to start: drawn from a distribution, by a seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Start times are log-normal: this is the standard deviation of their logarithm. Two of three lie within a factor of 1.4 of the median.
pub(crate) const SIGMA: f64 = 0.35;
/// The database's name, which is a process of ours where no PostgreSQL is asked for.
pub(crate) const DATABASE: &str = "postgresql";

/// One kind of service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [&'static str],
    /// The median of its start times, in seconds; for the database where none is asked for.
    pub(crate) median_s: f64,
}

const fn kind(name: &'static str, median_s: f64, needs: &'static [&'static str]) -> Kind {
    Kind { name, needs, median_s }
}

/// The sample graph of the outage; each after all that it needs.
pub(crate) const OUTAGE: [Kind; 16] = [
    kind("calico", 6.0, &[]),
    kind("coredns", 3.0, &["calico"]),
    kind("csi", 5.0, &[]),
    kind(DATABASE, 6.0, &["csi", "calico"]),
    kind("redis", 2.0, &["calico"]),
    kind("mongodb", 5.0, &["csi", "calico"]),
    kind("site", 12.0, &[DATABASE, "coredns"]),
    kind("metricity", 6.0, &[DATABASE, "coredns"]),
    kind("metabase", 20.0, &[DATABASE, "coredns"]),
    kind("pinnwand", 3.0, &[DATABASE, "coredns"]),
    kind("vault", 6.0, &[DATABASE, "coredns"]),
    kind("snekbox", 4.0, &["calico"]),
    kind("modmail", 6.0, &["mongodb", "coredns"]),
    kind("bot", 8.0, &["site", "redis", "snekbox"]),
    kind("lancebot", 5.0, &["redis", "coredns"]),
    kind("gate", 4.0, &["site", "bot"]),
];

/// Its place in [`OUTAGE`].
pub(crate) fn place(name: &str) -> Option<usize> {
    OUTAGE.iter().position(|kind| kind.name == name)
}

/// A start time for each, the same for the same seed.
pub(crate) fn draw(seed: u64) -> Vec<Duration> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let normal = |random: &mut ChaCha8Rng| {
        // Box and Muller; 1 - u is never 0, so that the logarithm is finite.
        let (u, v) = (1.0 - random.random::<f64>(), random.random::<f64>());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    OUTAGE.iter().map(|kind| Duration::from_secs_f64(kind.median_s * (SIGMA * normal(&mut random)).exp())).collect()
}

/// Until the last is ready where each is started the moment that all it needs is ready, in seconds.
pub(crate) fn critical_path(takes_s: &[f64]) -> f64 {
    let mut ready_s: Vec<f64> = Vec::with_capacity(OUTAGE.len());
    for (kind, takes) in OUTAGE.iter().zip(takes_s) {
        let needs = kind.needs.iter().filter_map(|need| ready_s.get(place(need)?));
        ready_s.push(needs.fold(0.0_f64, |latest, ready| latest.max(*ready)) + takes);
    }
    ready_s.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_after_what_it_needs() {
        for (at, kind) in OUTAGE.iter().enumerate() {
            for need in kind.needs {
                assert!(place(need).is_some_and(|need| need < at), "{} needs {need}", kind.name);
            }
        }
    }

    #[test]
    fn a_seed_repeats_and_the_middle_is_the_median() {
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // Of each service, half of many draws are below its median.
        let draws: Vec<Vec<Duration>> = (0..400).map(draw).collect();
        for (at, kind) in OUTAGE.iter().enumerate() {
            let below = draws.iter().filter(|one| one[at].as_secs_f64() < kind.median_s).count();
            assert!((140..=260).contains(&below), "{}: {below} of 400", kind.name);
        }
    }

    #[test]
    fn the_longest_way_is_found() {
        let one_second = critical_path(&[1.0; OUTAGE.len()]);
        // calico, postgresql, site, bot, gate.
        assert!((one_second - 5.0).abs() < 1e-9, "{one_second}");
        let mut takes = [1.0; OUTAGE.len()];
        takes[place("metabase").unwrap()] = 60.0;
        assert!((critical_path(&takes) - 62.0).abs() < 1e-9);
    }
}
