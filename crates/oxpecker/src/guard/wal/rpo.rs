//! The recovery point, measured: how long ago was the moment whose WAL is all in the repository. Pure.
//!
//! The server says now and then how far it is, the receiver what is durable. When WAL up to a position is durable that the server had at a
//! moment, nothing of before that moment can be lost any more. While the server says nothing, it may be writing: the time runs on.

use std::{collections::VecDeque, time::Duration};

use model::{Lsn, Moment};

/// Positions of the server that are remembered; where there are more, every other one is forgotten, and the answer errs to the worse side.
const SAMPLES_MAX: usize = 4096;

/// What was heard.
#[derive(Debug)]
pub struct Rpo {
    /// Nothing of before this moment can be lost.
    safe: Moment,
    /// Where the server was, when; what is durable already is forgotten.
    samples: VecDeque<(Moment, Lsn)>,
}

impl Rpo {
    /// Nothing is known before `since`.
    pub const fn new(since: Moment) -> Self {
        Self { safe: since, samples: VecDeque::new() }
    }

    /// At `at` the server was at `server`, and everything before `durable` was in the repository.
    pub fn hear(&mut self, at: Moment, server: Lsn, durable: Lsn) {
        while let Some((then, _)) = self.samples.front().filter(|(_, lsn)| *lsn <= durable) {
            self.safe = *then;
            self.samples.pop_front();
        }
        if durable >= server {
            self.samples.clear();
            self.safe = at;
            return;
        }
        if self.samples.back().is_none_or(|(_, last)| server > *last) {
            self.samples.push_back((at, server));
        }
        if self.samples.len() > SAMPLES_MAX {
            let mut odd = false;
            self.samples.retain(|_| {
                odd = !odd;
                odd
            });
        }
    }

    /// What would be lost if the server were lost now, as time.
    pub fn behind(&self, now: Moment) -> Duration {
        now.since(self.safe)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { wall: jiff::Timestamp::from_second(1_800_000_000).unwrap(), boot_us: ms * 1000 }
    }

    #[test]
    fn the_time_runs_until_a_moment_is_safe() {
        let mut rpo = Rpo::new(at(0));
        assert_eq!(rpo.behind(at(700)).as_millis(), 700);
        rpo.hear(at(1_000), Lsn(10), Lsn(10));
        assert_eq!(rpo.behind(at(1_500)).as_millis(), 500);
        rpo.hear(at(2_000), Lsn(30), Lsn(10));
        rpo.hear(at(3_000), Lsn(50), Lsn(20));
        assert_eq!(rpo.behind(at(3_000)).as_millis(), 2_000, "of what the server had at 2 s some is missing");
        rpo.hear(at(4_000), Lsn(60), Lsn(30));
        assert_eq!(rpo.behind(at(4_000)).as_millis(), 2_000, "and now all of it is there");
        // Silence of the server is no news of safety.
        assert_eq!(rpo.behind(at(9_000)).as_millis(), 7_000);
        rpo.hear(at(9_000), Lsn(60), Lsn(60));
        assert_eq!(rpo.behind(at(9_000)).as_millis(), 0);
        // It was restored to before: it goes on from there.
        rpo.hear(at(10_000), Lsn(5), Lsn(60));
        assert_eq!(rpo.behind(at(10_000)).as_millis(), 0);
    }

    proptest! {
        /// Against the truth: a server that writes at each step, a receiver that is so much behind.
        #[test]
        fn it_is_never_too_small_and_at_most_one_sample_too_large(
            steps in proptest::collection::vec((1_u64..50, 0_u64..200), 1..200),
        ) {
            let mut rpo = Rpo::new(at(0));
            let (mut written, mut durable) = (vec![(0, 0)], 0);
            for (step, (bytes, lag)) in steps.iter().enumerate() {
                let now = (step as u64 + 1) * 1000;
                let server = written.last().map_or(0, |(_, lsn)| *lsn) + bytes;
                written.push((now, server));
                durable = durable.max(server.saturating_sub(*lag));
                rpo.hear(at(now), Lsn(server), Lsn(durable));
                let safe = written.iter().rev().find(|(_, lsn)| *lsn <= durable).map_or(0, |(then, _)| *then);
                let told = rpo.behind(at(now)).as_millis();
                prop_assert_eq!(told, u128::from(now - safe));
            }
        }

        #[test]
        fn memory_is_bounded(count in 1_u64..20_000) {
            let mut rpo = Rpo::new(at(0));
            for n in 1..=count {
                rpo.hear(at(n), Lsn(n), Lsn(0));
            }
            prop_assert!(rpo.samples.len() <= SAMPLES_MAX);
            prop_assert_eq!(rpo.behind(at(count)).as_millis(), u128::from(count));
        }
    }
}
