//! `[alert.heartbeat]`: the dead man's switch towards the outside.

use std::{path::PathBuf, time::Duration};

use alerting::Method;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, alerts::secret};

/// How long one may take where nothing else is said; never longer than the pause between two.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest and the longest pause between two: more often helps nobody, and a guard that is missed after hours is missed too late.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
/// The shortest and the longest time that one may take.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// `[alert.heartbeat]`: a check outside of this host that is asked again and again while the guard lives and senses. Exactly one of `url_file`
/// and `url_env`: whoever has the URL can keep the check quiet, so it never stands in this file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// A file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// An environment variable that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// How the check wants to be asked.
    #[serde(default)]
    pub method: Method,
    /// From one that was taken to the next.
    #[serde(default = "minute")]
    pub every: HumanDuration,
    /// How long one may take. Default: ten seconds, or `every` where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

fn minute() -> HumanDuration {
    HumanDuration::from_secs(60)
}

impl Heartbeat {
    /// The heartbeat with its secret read.
    ///
    /// # Errors
    /// In words, without the secret, where it can't work as it is declared.
    pub fn resolve(&self) -> Result<alerting::Heartbeat, String> {
        let every = self.every.0;
        if !(EVERY.0..=EVERY.1).contains(&every) {
            return Err(format!(
                "every = {} can't work. Hint: between 1s and 1h, and well below what the check outside waits",
                self.every
            ));
        }
        let timeout = self.timeout.map_or(TIMEOUT.min(every), |timeout| timeout.0);
        if !(TIMEOUTS.0..=TIMEOUTS.1.min(every)).contains(&timeout) {
            let timeout = HumanDuration(timeout);
            return Err(format!(
                "timeout = {timeout} can't work. Hint: between 100ms and 60s, and no longer than every"
            ));
        }
        let url = secret(self.url_file.as_deref(), self.url_env.as_deref(), "url_file and url_env")?;
        alerting::check_webhook_url(&url)?;
        Ok(alerting::Heartbeat { url, method: self.method, every, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<alerting::Heartbeat, String> {
        toml::from_str::<Heartbeat>(text).map_err(|e| e.to_string())?.resolve()
    }

    #[test]
    fn it_is_understood_and_its_url_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "https://check.example/s3cr3t\n").unwrap();
        let url = format!("url_file = \"{}\"", file.display());
        for (more, method, every_s, timeout_ms) in [
            ("", Method::Get, 60, 10_000),
            ("every = \"1min\"\nmethod = \"post\"", Method::Post, 60, 10_000),
            ("every = \"5s\"", Method::Get, 5, 5_000),
            ("timeout = \"500ms\"", Method::Get, 60, 500),
        ] {
            let heartbeat = resolved(&format!("{url}\n{more}")).unwrap();
            assert_eq!(heartbeat.method, method, "{more}");
            assert_eq!((heartbeat.every.as_secs(), heartbeat.timeout.as_millis()), (every_s, timeout_ms), "{more}");
            assert!(!format!("{heartbeat:?}").contains("s3cr3t"));
        }
        for (text, says) in [
            (format!("{url}\nevery = \"0s\""), "every = 0ms can't work"),
            (format!("{url}\nevery = \"2h\""), "every = 2h can't work"),
            (format!("{url}\nevery = \"5s\"\ntimeout = \"6s\""), "timeout = 6s can't work"),
            (format!("{url}\ntimeout = \"2m\""), "timeout = 2m can't work"),
            (format!("{url}\nurl_env = \"X\""), "exactly one of url_file and url_env"),
            (String::new(), "exactly one of url_file and url_env"),
            ("url_file = \"/no/such\"".to_owned(), "cannot read the secret"),
        ] {
            let error = resolved(&text).unwrap_err();
            assert!(error.contains(says) && error.contains("Hint: ") && !error.contains("s3cr3t"), "{text}: {error}");
        }
        for text in ["url = \"https://check.example/s3cr3t\"", "method = \"put\""] {
            assert!(toml::from_str::<Heartbeat>(text).is_err(), "{text}");
        }
        std::fs::write(&file, "check.example/s3cr3t").unwrap();
        let error = resolved(&url).unwrap_err();
        assert!(error.contains("not one of http or https") || error.contains("is none"), "{error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}
