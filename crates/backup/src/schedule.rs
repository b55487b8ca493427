//! When backups are made: a crontab expression, spread by the cluster's name. Pure: no clock, the moment is an argument.
//!
//! The expression is evaluated on the calendar of its zone, once for each time of day that the calendar shows. A time that a day skips,
//! because clocks are put forward, comes as soon as the day goes on; one that it shows twice counts the first time. So `30 2 * * *` is one
//! run on each day of the year, which is what people mean by it.

pub mod runs;

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, civil::DateTime, tz::TimeZone};

/// Longest expression that is looked at, in bytes.
const EXPRESSION_MAX_BYTES: usize = 256;
/// The greatest jitter: more than a day would move runs to days that the expression does not name.
pub const JITTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// How many times of the calendar are tried for one that comes later: an hour that is shown twice has at most this many minutes, and
/// zones have skipped whole days.
const TRIES_MAX: usize = 2 * 24 * 60;

/// An expression that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is not five fields.
    #[error(
        "{expression:?} is no schedule: {why}; hint: minute hour day-of-month month day-of-week, such as \"0 3 * * *\" for three at night"
    )]
    Malformed {
        /// What was written, cut where it is long.
        expression: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such zone.
    #[error("{zone:?} is no time zone; hint: a name of the IANA database such as Europe/Berlin, or UTC")]
    Zone {
        /// What was written.
        zone: String,
    },
    /// It names a moment that no calendar has.
    #[error("{expression:?} never comes; hint: is there such a day in such a month?")]
    Never {
        /// What was written.
        expression: String,
    },
    /// More than a day.
    #[error("a jitter of {0:?} is more than a day; hint: it spreads the runs of many hosts over minutes or hours")]
    Jitter(Duration),
}

/// When backups are made.
#[derive(Clone, Debug)]
pub struct Schedule {
    expression: String,
    /// The expression on a calendar without skipped or repeated times; ours is joined in [`Schedule::after`].
    calendar: cronexpr::Crontab,
    zone: TimeZone,
    /// This cluster's part of the jitter.
    offset: Duration,
}

impl Schedule {
    /// Reads a crontab expression of five fields; a sixth names a time zone, else `zone` is meant. Runs begin later than the expression
    /// says by a part of `jitter` that depends on `cluster` alone, so that many hosts with one configuration don't begin at once, and each
    /// begins at the same time every day.
    ///
    /// # Errors
    /// Where the expression can't be read, never comes, or names an unknown zone; where the jitter is longer than a day.
    pub fn parse(expression: &str, zone: &TimeZone, jitter: Duration, cluster: &str) -> Result<Self, ScheduleError> {
        let shown: String = expression.chars().take(EXPRESSION_MAX_BYTES / 4).collect();
        let malformed = |why: String| ScheduleError::Malformed { expression: shown.clone(), why };
        if expression.len() > EXPRESSION_MAX_BYTES {
            return Err(malformed(format!("it is longer than {EXPRESSION_MAX_BYTES} bytes")));
        }
        if jitter > JITTER_MAX {
            return Err(ScheduleError::Jitter(jitter));
        }
        let fields: Vec<&str> = expression.split_ascii_whitespace().collect();
        let (fields, zone) = match fields.as_slice() {
            [five @ .., name] if five.len() == 5 => {
                (five, TimeZone::get(name).map_err(|_| ScheduleError::Zone { zone: (*name).to_owned() })?)
            }
            five if five.len() == 5 => (five, zone.clone()),
            other => return Err(malformed(format!("it has {} fields instead of five", other.len()))),
        };
        let expression = fields.join(" ");
        let calendar = cronexpr::parse_crontab(&format!("{expression} UTC")).map_err(|error| {
            // The last line says what is wrong; those before show where.
            malformed(error.to_string().lines().last().unwrap_or_default().trim_start_matches([' ', '^']).to_owned())
        })?;
        if calendar.find_next(cronexpr::MakeTimestamp(Timestamp::UNIX_EPOCH)).is_err() {
            return Err(ScheduleError::Never { expression: shown });
        }
        Ok(Self { expression, calendar, zone, offset: part(jitter, cluster) })
    }

    /// The first run later than `moment`; `None` where there is none within four years, as at the end of the calendar.
    #[must_use]
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let nominal = moment.checked_sub(self.offset).ok()?;
        let mut civil = self.zone.to_datetime(nominal);
        for _ in 0..TRIES_MAX {
            civil = self.next_civil(civil)?;
            // Of a time that is shown twice the first; of one that is skipped, as much later as the clocks were put forward.
            let run = self.zone.to_ambiguous_timestamp(civil).compatible().ok()?;
            if run > nominal {
                return run.checked_add(self.offset).ok();
            }
        }
        None
    }

    fn next_civil(&self, civil: DateTime) -> Option<DateTime> {
        let on_utc = TimeZone::UTC.to_timestamp(civil).ok()?;
        // The crate adds four years without looking.
        on_utc.to_zoned(TimeZone::UTC).checked_add(5.years()).ok()?;
        self.calendar.find_next(cronexpr::MakeTimestamp(on_utc)).ok().map(|zoned| zoned.datetime())
    }

    /// The expression without its zone.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone whose calendar counts.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// How much later than the expression says this cluster's runs begin.
    #[must_use]
    pub fn offset(&self) -> Duration {
        self.offset
    }
}

/// This cluster's part of the jitter, in whole seconds: the same in every version of this program.
fn part(jitter: Duration, cluster: &str) -> Duration {
    let share = u64::from(crc32c::crc32c(cluster.as_bytes()));
    Duration::from_secs((jitter.as_secs() * share) >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, &TimeZone::get(zone).unwrap(), Duration::ZERO, "main").unwrap()
    }

    #[test]
    fn runs_come_when_the_calendar_says() {
        for (expression, zone, after, runs) in [
            ("0 3 * * *", "UTC", "2026-11-22T02:59:59Z", ["2026-11-22T03:00:00Z", "2026-11-23T03:00:00Z"]),
            ("0 3 * * *", "UTC", "2026-11-22T03:00:00Z", ["2026-11-23T03:00:00Z", "2026-11-24T03:00:00Z"]),
            ("0 3 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z", ["2026-07-01T01:00:00Z", "2026-07-02T01:00:00Z"]),
            (
                "0 3 * * * Europe/Berlin",
                "UTC",
                "2026-07-01T00:00:00Z",
                ["2026-07-01T01:00:00Z", "2026-07-02T01:00:00Z"],
            ),
            ("*/15 * * * *", "UTC", "2026-01-01T00:07:00Z", ["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
            ("0 4 * * SUN", "UTC", "2026-11-22T04:00:00Z", ["2026-11-29T04:00:00Z", "2026-12-06T04:00:00Z"]),
            // Clocks are put forward from 2:00 to 3:00 on 29 March: the run comes at 3:30.
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]),
            // And back from 3:00 to 2:00 on 25 October: one run, the first time that it is 2:30.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            // Apia had no 30 December 2011.
            ("0 3 * * *", "Pacific/Apia", "2011-12-29T14:00:00Z", ["2011-12-30T13:00:00Z", "2011-12-31T13:00:00Z"]),
        ] {
            let schedule = schedule(expression, zone);
            let mut at: Timestamp = after.parse().unwrap();
            for expected in runs {
                at = schedule.after(at).unwrap();
                assert_eq!(at, expected.parse::<Timestamp>().unwrap(), "{expression} {zone} after {after}");
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_hint() {
        for (expression, says) in [
            ("", "0 fields"),
            ("0 3 * *", "4 fields"),
            ("0 3 * * * * *", "7 fields"),
            ("0 25 * * *", "is no schedule"),
            ("@daily", "1 fields"),
            ("0 3 30 2 *", "never comes"),
            ("0 3 * * * Mars/Olympus", "no time zone"),
            ("H 3 * * *", "is no schedule"),
        ] {
            let error = Schedule::parse(expression, &TimeZone::UTC, Duration::ZERO, "main").unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("hint: "), "{expression}: {error}");
        }
        assert!(Schedule::parse(&"0 ".repeat(1000), &TimeZone::UTC, Duration::ZERO, "main").is_err());
        assert!(Schedule::parse("0 3 * * *", &TimeZone::UTC, JITTER_MAX + Duration::from_secs(1), "main").is_err());
    }

    #[test]
    fn the_calendar_ends_without_a_panic() {
        let daily = schedule("0 3 * * *", "Europe/Berlin");
        assert_eq!(daily.after(Timestamp::MAX), None);
        assert!(daily.after(Timestamp::MIN).is_none_or(|run| run > Timestamp::MIN));
    }

    #[test]
    fn jitter_is_a_clusters_own_and_stays() {
        let hour = Duration::from_secs(3600);
        // Written down: another version of this program must give the same.
        assert_eq!(part(hour, "main").as_secs(), u64::from(crc32c::crc32c(b"main")) * 3600 / (1 << 32));
        assert_ne!(part(hour, "main"), part(hour, "other"));
        let schedule = Schedule::parse("0 3 * * *", &TimeZone::UTC, hour, "main").unwrap();
        let midnight: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let nominal: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let run = schedule.after(midnight).unwrap();
        assert_eq!(run, nominal.checked_add(schedule.offset()).unwrap());
        assert!(schedule.offset() < hour);
        // Between the nominal time and the run it is still this night's.
        assert_eq!(schedule.after(nominal).unwrap(), run);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_schedule_or_refused(text in "[0-9*/,#LWH@A-Za-z -]{0,40}", jitter in 0_u64..90_000) {
            if let Ok(schedule) = Schedule::parse(&text, &TimeZone::UTC, Duration::from_secs(jitter), "main") {
                let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
                prop_assert!(schedule.after(now).is_none_or(|run| run > now));
            }
        }

        #[test]
        fn runs_are_later_and_in_order(
            minute in 0..60, hour in 0..24, zone in 0_usize..4, jitter in 0_u64..86_400, from in 1_700_000_000_i64..1_900_000_000,
            wait in 0_i64..100_000,
        ) {
            let zone = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"][zone];
            let zone = TimeZone::get(zone).unwrap();
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), &zone, Duration::from_secs(jitter), "x").unwrap();
            let from = Timestamp::from_second(from).unwrap();
            let first = schedule.after(from).unwrap();
            prop_assert!(first > from);
            prop_assert!(first.as_second() - from.as_second() <= 26 * 3600, "one each day");
            // Looking again before it is due finds the same run: nothing is skipped by asking.
            let later = Timestamp::from_second((from.as_second() + wait).min(first.as_second() - 1)).unwrap();
            prop_assert_eq!(schedule.after(later), Some(first));
        }
    }
}
