//! `[alert.peer]`: another guard on another host; the two watch each other.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use alerting::{
    Secret,
    peer::{LEAST_KEY, MAX_NAME},
};
use model::is_configured_name;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, alerts::secret};

/// The shortest and the longest pause between two words.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// `[alert.peer]`: the guard of another host. At least one of `send_to` and `listen`; the key is the same on both.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What the other one calls itself.
    pub name: String,
    /// What this one calls itself. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_name: Option<String>,
    /// A file that holds the key that both have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Where the other one listens, `host:port`; UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_to: Option<String>,
    /// Where to listen for it, `address:port`; UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// From one word to the next.
    #[serde(default = "five_seconds")]
    pub every: HumanDuration,
}

fn five_seconds() -> HumanDuration {
    HumanDuration::from_secs(5)
}

impl Peer {
    /// The peer with its secret read; `host` is what this one is called where nothing else is said.
    ///
    /// # Errors
    /// In words, without the secret, where it can't work as it is declared.
    pub fn resolve(&self, host: &str) -> Result<alerting::Peer, String> {
        let own_name = self.own_name.clone().unwrap_or_else(|| host.to_owned());
        for (key, name) in [("name", &self.name), ("own_name", &own_name)] {
            if !is_configured_name(name) || name.len() > MAX_NAME {
                return Err(format!(
                    "{key} = {name:?} is no name. Hint: letters, digits, '-', '_' and '.', at most {MAX_NAME}"
                ));
            }
        }
        if own_name == self.name {
            return Err(format!(
                "both guards are called {own_name:?}. Hint: give this one another name with own_name; the other one names it so"
            ));
        }
        if self.send_to.is_none() && self.listen.is_none() {
            return Err(
                "neither send_to nor listen is there. Hint: send_to = \"HOST:PORT\" says to the other that this one lives, \
                 listen = \"ADDRESS:PORT\" hears of the other"
                    .to_owned(),
            );
        }
        let has_port =
            |to: &str| to.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if let Some(to) = self.send_to.as_deref().filter(|to| !has_port(to)) {
            return Err(format!("send_to = {to:?} is no host:port. Hint: such as \"db2.internal:7433\""));
        }
        if !(EVERY.0..=EVERY.1).contains(&self.every.0) {
            return Err(format!(
                "every = {} can't work. Hint: between 1s and 1m, well below what the other one's rule peer-silent waits",
                self.every
            ));
        }
        let key: Secret = secret(self.key_file.as_deref(), self.key_env.as_deref(), "key_file and key_env")?;
        if key.chars() < LEAST_KEY {
            return Err(format!(
                "the key has fewer than {LEAST_KEY} characters. Hint: the same on both, such as `openssl rand -hex 32` makes"
            ));
        }
        let (name, send_to, listen) = (self.name.clone(), self.send_to.clone(), self.listen);
        Ok(alerting::Peer { name, own_name, key, send_to, listen, every: self.every.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_understood_and_what_cannot_work_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "s3cr3t-0123456789\n").unwrap();
        let resolved = |text: &str| {
            let peer: Peer =
                toml::from_str(&text.replace("FILE", &file.display().to_string())).map_err(|e| e.to_string())?;
            peer.resolve("db1")
        };
        let good = "name = \"db2\"\nkey_file = \"FILE\"\n";
        let peer = resolved(&format!("{good}send_to = \"db2:7433\"\nlisten = \"127.0.0.1:7433\"")).unwrap();
        assert_eq!((peer.own_name.as_str(), peer.every.as_secs()), ("db1", 5));
        assert!(!format!("{peer:?}").contains("s3cr3t"));
        for (text, says) in [
            (good.to_owned(), "neither send_to nor listen"),
            (format!("{good}send_to = \"db2\""), "is no host:port"),
            (format!("{good}send_to = \"db2:1\"\nown_name = \"db2\""), "both guards are called"),
            (format!("{good}send_to = \"db2:1\"\nevery = \"1ms\""), "every = 1ms can't work"),
            (format!("{good}send_to = \"db2:1\"\nown_name = \"a b\""), "is no name"),
            ("name = \"db2\"\nsend_to = \"db2:1\"".to_owned(), "exactly one of key_file and key_env"),
        ] {
            let error = resolved(&text).unwrap_err();
            assert!(error.contains(says) && error.contains("Hint: ") && !error.contains("s3cr3t"), "{text}: {error}");
        }
        std::fs::write(&file, "s3cr3t").unwrap();
        let error = resolved(&format!("{good}send_to = \"db2:1\"")).unwrap_err();
        assert!(error.contains("fewer than 16") && !error.contains("s3cr3t"), "{error}");
    }
}
