//! How long the launcher must be left in peace: pure. Each signal sets its next start to naptime / databases from now.

use std::time::Duration;

use model::Moment;

use crate::controller::Reach;

/// How long a worker counts as just started. Right after the launcher started one, a signal costs nothing: the next start was set
/// anew in that moment. A moment later it does.
pub(super) const NEWCOMER: Duration = Duration::from_secs(2);
/// The least time between two signals, whatever else is so.
const LEAST: Duration = Duration::from_secs(1);
/// The least time between two full reloads, which every process of the server has to carry out.
const LEAST_RELOAD: Duration = Duration::from_secs(5);
/// A margin over the launcher's own rounding (it sleeps at least 100 ms).
const MARGIN: f64 = 1.5;
/// The window's bounds, in seconds: the launcher's least sleep, and an hour where a naptime is longer still.
const WINDOW_S: (f64, f64) = (0.1, 3_600.0);

/// What decides it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launcher {
    pub reach: Reach,
    /// `autovacuum_naptime`, in seconds.
    pub naptime_s: f64,
    /// Databases that take connections.
    pub databases: u32,
    /// All of the workers' slots are taken: it could start nobody anyway.
    pub full: bool,
    /// When a worker was last seen that had not been there before.
    pub newcomer: Option<Moment>,
}

impl Launcher {
    /// The least time between two signals to it.
    pub(super) fn quiet(self, now: Moment) -> Duration {
        match self.reach {
            Reach::Workers => Duration::ZERO,
            Reach::Everyone => self.window(MARGIN).max(LEAST_RELOAD),
            Reach::Launcher => {
                let started = self.newcomer.is_some_and(|at| now.since(at) < NEWCOMER);
                if self.full || started { LEAST } else { self.window(MARGIN) }
            }
        }
    }

    /// The time between two of its starts, by that factor.
    pub(super) fn window(self, factor: f64) -> Duration {
        let seconds = self.naptime_s * factor / f64::from(self.databases.max(1));
        Duration::from_secs_f64(seconds.clamp(WINDOW_S.0, WINDOW_S.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_disturbed_only_where_that_costs_nothing() {
        let now = Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_us: 100_000_000 };
        let quiet = |change: &dyn Fn(&mut Launcher)| {
            let mut launcher =
                Launcher { reach: Reach::Launcher, naptime_s: 60.0, databases: 4, full: false, newcomer: None };
            change(&mut launcher);
            launcher.quiet(now).as_millis()
        };
        assert_eq!(quiet(&|l| l.reach = Reach::Workers), 0);
        assert_eq!(quiet(&|l| l.reach = Reach::Everyone), 22_500);
        assert_eq!(quiet(&|l| (l.reach, l.naptime_s) = (Reach::Everyone, 1.0)), 5_000);
        assert_eq!(quiet(&|_| {}), 22_500);
        assert_eq!(quiet(&|l| l.naptime_s = 1e9), 3_600_000);
        assert_eq!(quiet(&|l| l.full = true), 1_000);
        let newcomer =
            |ago_ms: u64| quiet(&|l| l.newcomer = Some(Moment { boot_us: now.boot_us - ago_ms * 1_000, ..now }));
        assert_eq!((newcomer(0), newcomer(1_999)), (1_000, 1_000));
        // It is no news any more, even if nothing was done meanwhile.
        assert_eq!((newcomer(2_000), newcomer(60_000)), (22_500, 22_500));
    }
}
