//! When Kubernetes starts a container again that has ended: the documented back-off, without the granularity of the kubelet's own loop, which would only
//! add to it ("Pod Lifecycle", restart policy: at once after the first end, then 10 s, 20 s, 40 s and so on up to 5 minutes; forgotten after 10 minutes without
//! one).

use std::time::Duration;

/// The wait after the second end.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const MOST: Duration = Duration::from_secs(300);
/// A run of this length makes it forget.
const FORGETS_AFTER: Duration = Duration::from_secs(600);

/// The back-off of one container, on its own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackOff {
    next: Duration,
}

impl BackOff {
    /// A run ended that lasted so long: how long is waited until the next begins.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= FORGETS_AFTER {
            self.next = Duration::ZERO;
        }
        let wait = self.next;
        self.next = if wait.is_zero() { FIRST } else { wait.saturating_mul(2).min(MOST) };
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_five_minutes_and_forgets_after_ten() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(3);
        for (ran, seconds) in [
            (short, 0),
            (short, 10),
            (short, 20),
            (FORGETS_AFTER - short, 40),
            (short, 80),
            (short, 160),
            (short, 300),
            (short, 300),
            (FORGETS_AFTER, 0),
            (short, 10),
        ] {
            assert_eq!(back_off.after(ran), Duration::from_secs(seconds), "{ran:?}");
        }
    }
}
