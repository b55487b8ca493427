//! Routes: where alerts go beside the log, with the secrets resolved.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{Alert, Severity, alert::rule};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::template::Template;

/// Largest secret that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 16 * 1024;

/// The rule's name, where routes match by labels.
const RULE_LABEL: &str = "rule";

/// A text that is never shown. It is serialised, since the pipe to the worker is the one place where it goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A secret that can't be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Its file can't be read.
    #[error("cannot read the secret in {}: {source}. Hint: the guard's user must be able to read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file is too long to be a secret.
    #[error("{} is {bytes} bytes long, a secret has at most {MAX_SECRET_BYTES}. Hint: name the file that holds only the secret", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The environment has no such variable.
    #[error(
        "the environment has no variable {0}, or it is not text. Hint: set it for the guard, or keep the secret in a file"
    )]
    NoVariable(String),
    /// There is nothing in it.
    #[error("the secret in {0} is empty. Hint: write it there; white space around it is ignored")]
    Empty(String),
}

impl Secret {
    /// From a text that the caller got in a safe way.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// From a file; white space around it is ignored.
    ///
    /// # Errors
    /// Where the file can't be read, is too long or empty.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        let bytes = fs::metadata(path).map_err(unreadable)?.len();
        if bytes > MAX_SECRET_BYTES {
            return Err(SecretError::TooLong { path: path.to_owned(), bytes });
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::of(&text, || path.display().to_string())
    }

    /// From an environment variable; white space around it is ignored.
    ///
    /// # Errors
    /// Where it is not set or empty.
    pub fn from_env(name: &str) -> Result<Self, SecretError> {
        let text = env::var(name).map_err(|_| SecretError::NoVariable(name.to_owned()))?;
        Self::of(&text, || name.to_owned())
    }

    fn of(text: &str, place: impl FnOnce() -> String) -> Result<Self, SecretError> {
        match text.trim() {
            "" => Err(SecretError::Empty(place())),
            text => Ok(Self(text.to_owned())),
        }
    }

    /// How many characters it has.
    pub fn chars(&self) -> usize {
        self.0.chars().count()
    }

    /// The secret itself: for the request, never for a message.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// A webhook: alerts are posted as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its URL. Most are secret: whoever has it may post.
    pub url: Secret,
    /// A bearer token, sent as `Authorization`.
    pub bearer: Option<Secret>,
    /// More headers; not for secrets, though their values are never shown.
    pub headers: BTreeMap<String, String>,
    /// What is posted in place of our own JSON.
    #[serde(default)]
    pub template: Option<Template>,
}

/// A command: started once for each alert, with the alert as JSON on its standard input. It holds no secrets: arguments are shown
/// by ps(1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; no shell is between.
    pub argv: Vec<String>,
}

/// How the way to a mail server is kept from listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// TLS from the first byte, mostly on port 465.
    Tls,
    /// TLS from the command `STARTTLS` on, mostly on port 587; without it nothing is sent.
    #[default]
    Starttls,
    /// None: for a server on the same host or a trusted network.
    None,
}

/// A mail server and whom it is to write to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Email {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way there is kept from listeners.
    pub security: Security,
    /// As whom to log in; nobody where there is no password either.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
    /// Whom it is from: an address, with or without a name.
    pub from: String,
    /// Whom it goes to.
    pub to: Vec<String>,
}

/// By what means a route delivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A webhook that is posted our own JSON.
    Webhook(Webhook),
    /// A Discord webhook.
    Discord(Webhook),
    /// A Slack incoming webhook, or what speaks its JSON (Mattermost, Rocket.Chat).
    Slack(Webhook),
    /// An Alertmanager, by its base URL: API v2.
    Alertmanager(Webhook),
    /// A command.
    Command(Command),
    /// E-mail.
    Email(Email),
}

impl Carrier {
    /// Whether the receiver forgets a firing alert that it is not told again.
    pub(crate) fn forgets(&self) -> bool {
        matches!(self, Self::Alertmanager(_))
    }
}

/// Which alerts a route carries, by their labels: each named label must have one of the values. `rule` counts as a label.
pub type Matches = BTreeMap<String, Vec<String>>;

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name in events and in `status`.
    pub name: String,
    /// The least severity that it carries.
    pub min_severity: Severity,
    /// Which labels it carries; all where empty.
    pub matches: Matches,
    /// It is told only of what nobody acknowledged for so long after the decision; at once where there is none.
    #[serde(default)]
    pub escalate_after: Option<Duration>,
    /// Whether it is for those who only use the services: it carries their words, and nothing else.
    #[serde(default)]
    pub members: bool,
    /// By what means.
    pub carrier: Carrier,
}

impl Route {
    /// Whether this alert goes there.
    pub fn carries(&self, alert: &Alert) -> bool {
        let for_members = alert.rule.0 == rule::MEMBERS_WORD;
        if for_members || self.members {
            return for_members == self.members;
        }
        alert.severity >= self.min_severity && matches_labels(&self.matches, alert)
    }
}

/// Whether an alert has, of each named label, one of the values.
pub(crate) fn matches_labels(matches: &Matches, alert: &Alert) -> bool {
    matches.iter().all(|(name, values)| {
        let value = if name == RULE_LABEL { Some(&alert.rule.0) } else { alert.labels.get(name) };
        value.is_some_and(|value| values.contains(value))
    })
}

#[cfg(test)]
mod tests {
    use model::AlertState;

    use super::*;
    use crate::testing::alert;

    #[test]
    fn a_secret_is_never_shown() {
        let webhook = Webhook {
            url: Secret::new("https://hooks.example/T0/s3cr3t"),
            bearer: Some(Secret::new("t0ken")),
            headers: BTreeMap::new(),
            template: None,
        };
        let carrier = Carrier::Webhook(webhook);
        let route = Route {
            name: "ops".into(),
            min_severity: Severity::Info,
            matches: Matches::new(),
            escalate_after: None,
            members: false,
            carrier,
        };
        let shown = format!("{route:?} {route:#?}");
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0ken"), "{shown}");
    }

    #[test]
    fn secrets_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        assert!(matches!(Secret::from_file(&path), Err(SecretError::Unreadable { .. })));
        fs::write(&path, " \n").unwrap();
        assert!(matches!(Secret::from_file(&path), Err(SecretError::Empty(_))));
        fs::write(&path, "http://x/y\n").unwrap();
        assert_eq!(Secret::from_file(&path).unwrap().reveal(), "http://x/y");
        fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(matches!(Secret::from_file(&path), Err(SecretError::TooLong { bytes: 20_000, .. })));
        assert!(matches!(Secret::from_env("OXPECKER_NO_SUCH_VARIABLE"), Err(SecretError::NoVariable(_))));
    }

    #[test]
    fn a_route_carries_what_its_severity_and_all_its_labels_allow() {
        let alert = alert("k", AlertState::Firing);
        let route = |min_severity, matches: &[(&str, &[&str])]| Route {
            name: "ops".into(),
            min_severity,
            matches: matches
                .iter()
                .map(|(name, values)| ((*name).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
                .collect(),
            escalate_after: None,
            members: false,
            carrier: Carrier::Command(Command { argv: vec!["true".into()] }),
        };
        let info = Severity::Info;
        for (route, carries) in [
            (route(Severity::Critical, &[]), true),
            (route(info, &[("cluster", &["main"])]), true),
            (route(info, &[("cluster", &["other", "main"])]), true),
            (route(info, &[("cluster", &["other"])]), false),
            (route(info, &[("rule", &["cpu-saturated"]), ("cluster", &["main"])]), true),
            (route(info, &[("rule", &["memory-low"]), ("cluster", &["main"])]), false),
            (route(info, &[("table", &["public.t"])]), false),
        ] {
            assert_eq!(route.carries(&alert), carries, "{route:?}");
        }
        let mut warning = alert;
        warning.severity = Severity::Warning;
        assert!(!route(Severity::Critical, &[]).carries(&warning));
    }
}
