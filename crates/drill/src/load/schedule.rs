//! When which user asks for what: decided beforehand, from the seed alone.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{MIX, Target};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// After the load's start.
    pub(crate) at: Duration,
    pub(crate) target: Target,
    /// Which member it is about.
    pub(crate) member: u32,
}

/// Arrivals of a Poisson process of `rate_per_s`: an endless sequence, the same for the same seed. The stream cipher's
/// output is stable between versions of its crate, which the default generator's is not.
pub(crate) fn schedule(seed: u64, rate_per_s: f64, members: u32) -> impl Iterator<Item = Arrival> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut at_s = 0.0_f64;
    std::iter::from_fn(move || {
        // 1 - u is never 0, so that the logarithm is finite.
        let gap: f64 = -(1.0 - random.random::<f64>()).ln();
        at_s += gap / rate_per_s;
        let target = pick(random.random_range(0..100));
        // Even members were deleted.
        let member = random.random_range(0..members / 2) * 2 + 1;
        Some(Arrival { at: Duration::from_secs_f64(at_s), target, member })
    })
}

fn pick(percent: u32) -> Target {
    let mut below = 0;
    for (target, share) in MIX {
        below += share;
        if percent < below {
            return target;
        }
    }
    Target::Site
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_does_not() {
        let take = |seed| schedule(seed, 500.0, 1_000).take(2_000).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn a_rate_only_stretches_the_same_arrivals() {
        let slow: Vec<_> = schedule(7, 100.0, 1_000).take(500).collect();
        let fast: Vec<_> = schedule(7, 200.0, 1_000).take(500).collect();
        for (slow, fast) in slow.iter().zip(&fast) {
            assert_eq!((slow.target, slow.member), (fast.target, fast.member));
            // Both are rounded to nanoseconds.
            let difference = slow.at.as_secs_f64() - 2.0 * fast.at.as_secs_f64();
            assert!(difference.abs() < 1e-8, "{difference}");
        }
    }

    #[test]
    fn the_process_has_its_rate_its_mix_and_its_burstiness() {
        let arrivals: Vec<_> = schedule(1, 1_000.0, 4_000).take(20_000).collect();
        let length = arrivals.last().unwrap().at.as_secs_f64();
        assert!((19.0..21.0).contains(&length), "{length}");
        for (target, percent) in MIX {
            let share = arrivals.iter().filter(|arrival| arrival.target == target).count() as f64 / 200.0;
            assert!((share - f64::from(percent)).abs() < 1.5, "{target:?} {share}");
        }
        assert!(arrivals.iter().all(|arrival| arrival.member % 2 == 1 && arrival.member < 4_000));
        // Exponential gaps: about 1/e of them are longer than the mean.
        let long = arrivals.windows(2).filter(|pair| pair[1].at - pair[0].at > Duration::from_millis(1)).count();
        assert!((0.34..0.40).contains(&(long as f64 / 20_000.0)), "{long}");
    }
}
