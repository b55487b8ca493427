//! Values as people write them: `14d`, `256 MiB`, `0 3 * * *`.

use std::{fmt, str::FromStr, time::Duration};

use backup::schedule::Schedule;
use jiff::{Span, SpanRelativeTo, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A duration such as `500ms`, `5s`, `24h`, `14d`; a day is 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// From seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for HumanDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: Span = text.parse().map_err(|_| {
            format!("'{text}' is not a duration; write a number and a unit, such as 500ms, 5s, 10m, 24h or 14d")
        })?;
        let duration = span
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .map_err(|_| format!("'{text}' has months or years, whose length varies; write days"))?;
        Duration::try_from(duration).map(Self).map_err(|_| format!("'{text}' is negative"))
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for HumanDuration {
    /// In the largest unit that divides it, so that what was written is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (unit, length_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if ms >= length_ms && ms.is_multiple_of(length_ms) {
                return write!(f, "{}{unit}", ms / length_ms);
            }
        }
        write!(f, "{ms}ms")
    }
}

/// A size such as `256 MiB` or `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanBytes(pub u64);

impl TryFrom<String> for HumanBytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| format!("'{text}' is not a size; write a number and a unit, such as 256 MiB"))
    }
}

impl From<HumanBytes> for String {
    fn from(size: HumanBytes) -> Self {
        model::ByteSize(size.0).to_string()
    }
}

/// When something is to be done, as cron writes it: minute, hour, day of month, month, day of week; a time zone may follow, else it is
/// the host's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Crontab(String);

impl Crontab {
    /// When that is for a cluster of this name.
    ///
    /// # Errors
    /// In words, where the jitter is too long.
    pub fn schedule(&self, jitter: Duration, cluster: &str) -> Result<Schedule, String> {
        Schedule::parse(&self.0, &TimeZone::system(), jitter, cluster).map_err(|error| error.to_string())
    }
}

impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Crontab {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let crontab = Self(text);
        crontab.schedule(Duration::ZERO, "").map(|_| crontab)
    }
}

impl From<Crontab> for String {
    fn from(crontab: Crontab) -> Self {
        crontab.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_and_shown_alike() {
        for text in ["0 3 * * *", "*/10 * * * MON-FRI UTC"] {
            assert_eq!(Crontab::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "at three", "0 25 * * *", "0 3 * * * Nowhere/City"] {
            assert!(Crontab::try_from(text.to_owned()).unwrap_err().contains("hint: "), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_shown_alike() {
        for (text, ms, shown) in [
            ("500ms", 500, "500ms"),
            ("5s", 5_000, "5s"),
            ("90 s", 90_000, "90s"),
            ("10m", 600_000, "10m"),
            ("24h", 86_400_000, "1d"),
            ("14d", 1_209_600_000, "14d"),
            ("1h 30m", 5_400_000, "90m"),
        ] {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!((duration.0.as_millis(), duration.to_string().as_str()), (ms, shown), "{text}");
        }
        for text in ["", "5", "soon", "-5s", "1 month", "5 parsecs"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(HumanBytes::try_from("256 MiB".to_owned()), Ok(HumanBytes(256 << 20)));
        assert!(HumanBytes::try_from("much".to_owned()).is_err());
    }
}
