//! What is due: from what is known of the runs so far to the next one. Pure.
//!
//! - Runs that were missed, because the host was off or suspended, the guard down or another run too long, are made up for once: what
//!   counts is when the newest backup that came about *began*, and the first time of the schedule after that.
//! - After failures the next attempt waits, twice as long each time, up to [`PAUSE_MAX`]. Whatever fails, it is tried again.
//! - A backup that is there and could not be proven is proven again, at most [`PROOFS_MAX`] times: each proof restores all of it. Then the
//!   next backup gets its chance.
//! - A clock that was put back changes the past into "now": nothing waits for the time that was undone to come again.
//!
//! "Never two at once" is the caller's: it asks only while no run is under way.

use std::time::Duration;

use jiff::Timestamp;
use model::event::BackupTask;

use super::Schedule;

/// How long the first attempt after a failure waits; doubles with each further one.
pub const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The longest wait after a failure.
pub const PAUSE_MAX: Duration = Duration::from_secs(2 * 3600);
/// How often one backup's proof is tried.
pub const PROOFS_MAX: u32 = 3;
/// A run that begins this long after its time was missed, and is said to be made up for.
const MISSED: Duration = Duration::from_secs(10 * 60);

/// What is known of the runs so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// When the schedule became known; times before it are nobody's debt.
    pub known_since: Timestamp,
    /// When the newest run that made a backup began.
    pub made: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// When the newest failure was.
    pub failed_at: Option<Timestamp>,
    /// The newest backup is there and shall be proven: how often that failed.
    pub unproven: Option<u32>,
}

/// The next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What it is for.
    pub task: BackupTask,
    /// When it begins; not later than now where it is to begin now.
    pub at: Timestamp,
    /// Why.
    pub why: Why,
}

/// Why a run is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its time has come.
    Scheduled,
    /// Its time, which is given, had come while nothing could run.
    Missed(Timestamp),
    /// It failed so often before.
    Retry(u32),
}

impl Runs {
    /// Nothing was made yet.
    #[must_use]
    pub fn new(known_since: Timestamp) -> Self {
        Self { known_since, made: None, failures: 0, failed_at: None, unproven: None }
    }

    /// The next run; `None` where nothing is to come. Where the clock was put back, what lay ahead of it becomes now, for good.
    pub fn next(&mut self, schedule: Option<&Schedule>, now: Timestamp) -> Option<Due> {
        self.settle(now);
        let pause = self.failed_at.and_then(|at| at.checked_add(pause(self.failures)).ok());
        let create = schedule.and_then(|s| s.after(self.made.unwrap_or(self.known_since))).map(|slot| {
            let at = pause.map_or(slot, |pause| slot.max(pause));
            let late = now.duration_since(slot) > MISSED.try_into().unwrap_or_default();
            let why = match self.failures {
                // A proof that failed is no earlier attempt at a backup.
                n if n > 0 && self.unproven.is_none() => Why::Retry(n),
                _ if late => Why::Missed(slot),
                _ => Why::Scheduled,
            };
            Due { task: BackupTask::Create, at, why }
        });
        let prove = self.unproven.filter(|&failed| failed < PROOFS_MAX).map(|failed| {
            let why = if failed == 0 { Why::Scheduled } else { Why::Retry(failed) };
            Due { task: BackupTask::Prove, at: pause.unwrap_or(now), why }
        });
        // A backup includes a proof: where both are due, it comes first.
        match (create, prove) {
            (Some(create), Some(prove)) if create.at <= now || create.at <= prove.at => Some(create),
            (_, Some(prove)) => Some(prove),
            (create, None) => create,
        }
    }

    /// A backup was made by a run that began at `began`; `prove` says whether it still has to be proven.
    pub fn made(&mut self, began: Timestamp, prove: bool) {
        *self = Self { made: Some(began), failures: 0, failed_at: None, unproven: prove.then_some(0), ..*self };
    }

    /// The newest backup was proven.
    pub fn proven(&mut self) {
        *self = Self { failures: 0, failed_at: None, unproven: None, ..*self };
    }

    /// A run failed.
    pub fn failed(&mut self, at: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(at);
        self.unproven = self.unproven.map(|failed| failed.saturating_add(1));
    }

    fn settle(&mut self, now: Timestamp) {
        self.known_since = self.known_since.min(now);
        for moment in [&mut self.made, &mut self.failed_at] {
            *moment = moment.map(|at| at.min(now));
        }
    }
}

/// How long the next attempt waits after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE_FIRST.saturating_mul(doubled).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, tz::TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn nightly() -> Schedule {
        Schedule::parse("0 3 * * *", &TimeZone::UTC, Duration::ZERO, "main").unwrap()
    }

    fn runs() -> Runs {
        Runs::new(at("20T12:00"))
    }

    #[test]
    fn what_is_due() {
        let made = |began, prove| {
            let mut runs = runs();
            runs.made(at(began), prove);
            runs
        };
        let failed = |mut runs: Runs, times: &[&str]| {
            times.iter().for_each(|time| runs.failed(at(time)));
            runs
        };
        use BackupTask::{Create, Prove};
        for (what, runs, now, expected) in [
            ("nothing yet: the first night", runs(), "20T13:00", (Create, "21T03:00", Why::Scheduled)),
            ("it is time", runs(), "21T03:00", (Create, "21T03:00", Why::Scheduled)),
            ("three nights were missed: once", runs(), "23T18:00", (Create, "21T03:00", Why::Missed(at("21T03:00")))),
            ("made: the next night", made("21T03:00", false), "21T03:20", (Create, "22T03:00", Why::Scheduled)),
            (
                "a late one counts for its night only",
                made("21T18:00", false),
                "21T19:00",
                (Create, "22T03:00", Why::Scheduled),
            ),
            (
                "one that took a day",
                made("21T03:00", false),
                "22T04:00",
                (Create, "22T03:00", Why::Missed(at("22T03:00"))),
            ),
            ("failed: soon again", failed(runs(), &["21T03:10"]), "21T03:10", (Create, "21T03:11", Why::Retry(1))),
            (
                "failed twice",
                failed(runs(), &["21T03:10", "21T03:20"]),
                "21T03:20",
                (Create, "21T03:22", Why::Retry(2)),
            ),
            ("made, to be proven", made("21T03:00", true), "21T03:20", (Prove, "21T03:20", Why::Scheduled)),
            (
                "not proven",
                failed(made("21T03:00", true), &["21T03:20"]),
                "21T03:20",
                (Prove, "21T03:21", Why::Retry(1)),
            ),
            (
                "not proven three times: the next backup",
                failed(made("21T03:00", true), &["21T03:20", "21T04:20", "21T05:20"]),
                "21T06:00",
                (Create, "22T03:00", Why::Scheduled),
            ),
            (
                "a backup that is due comes before the old one's proof",
                failed(made("21T03:00", true), &["22T02:50"]),
                "22T03:00",
                (Create, "22T03:00", Why::Scheduled),
            ),
            ("the clock was put back", made("28T03:00", false), "21T12:00", (Create, "22T03:00", Why::Scheduled)),
            (
                "put back after a failure",
                failed(runs(), &["28T03:00"]),
                "21T03:10",
                (Create, "21T03:11", Why::Retry(1)),
            ),
        ] {
            let mut runs = runs;
            let due = runs.next(Some(&nightly()), at(now)).unwrap();
            let expected = Due { task: expected.0, at: at(expected.1), why: expected.2 };
            assert_eq!(due, expected, "{what}");
        }
    }

    #[test]
    fn a_clock_that_was_put_back_is_waited_for_only_once() {
        let mut runs = runs();
        runs.made(at("28T03:00"), false);
        assert_eq!(runs.next(Some(&nightly()), at("21T12:00")).unwrap().at, at("22T03:00"));
        assert_eq!(runs.next(Some(&nightly()), at("22T03:01")).unwrap().at, at("22T03:00"), "it does not move away");
    }

    #[test]
    fn without_a_schedule_only_a_proof_is_ever_due() {
        assert_eq!(runs().next(None, at("23T00:00")), None);
        let mut runs = runs();
        runs.made(at("21T03:00"), true);
        assert_eq!(runs.next(None, at("21T04:00")).map(|due| due.task), Some(BackupTask::Prove));
    }

    #[test]
    fn pauses_are_bounded() {
        assert_eq!(pause(1), PAUSE_FIRST);
        assert_eq!(pause(2), PAUSE_FIRST * 2);
        assert_eq!((pause(100), pause(u32::MAX)), (PAUSE_MAX, PAUSE_MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A life of the guard: time passes in steps of any length (suspensions among them), due runs begin, take some time, and end well
        /// or badly.
        #[test]
        fn any_life_keeps_the_promises(
            steps in proptest::collection::vec((1_i64..200_000, 1_i64..20_000, 0..3_u8), 1..60),
        ) {
            let schedule = nightly();
            let mut now = at("20T12:00");
            let mut runs = Runs::new(now);
            let mut made_for: Vec<Timestamp> = Vec::new();
            let mut failed_at: Option<Timestamp> = None;
            for (wait, takes, how) in steps {
                now = now.checked_add(SignedDuration::from_secs(wait)).unwrap();
                let due = runs.next(Some(&schedule), now).unwrap();
                prop_assert_eq!(runs.next(Some(&schedule), now).unwrap(), due, "asking changes nothing");
                let latest = now.checked_add(SignedDuration::from_hours(25)).unwrap();
                prop_assert!(due.at <= latest, "something is due within a day and its pause: {:?} at {}", due, now);
                if due.at > now {
                    continue;
                }
                if let Some(failed) = failed_at {
                    prop_assert!(now.duration_since(failed) >= SignedDuration::try_from(PAUSE_FIRST).unwrap());
                }
                let began = now;
                now = now.checked_add(SignedDuration::from_secs(takes)).unwrap();
                match (how, due.task) {
                    (0, _) => {
                        runs.failed(now);
                        failed_at = Some(now);
                    }
                    (how, BackupTask::Create) => {
                        // Between two backups there is a time of the schedule: none is made twice for one night.
                        if let Some(&before) = made_for.last() {
                            prop_assert!(schedule.after(before).unwrap() <= began);
                        }
                        made_for.push(began);
                        runs.made(began, how == 1);
                        failed_at = None;
                    }
                    (_, BackupTask::Prove) => {
                        runs.proven();
                        failed_at = None;
                    }
                }
            }
        }
    }
}
