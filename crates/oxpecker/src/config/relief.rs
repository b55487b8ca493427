//! `[relief]`: whose idle sessions may be ended when connections run short.

use model::Mode;
use policy::relief::{IDLE_MIN, PER_MINUTE_MAX, ReliefClients, ReliefSettings};
use serde::{Deserialize, Serialize};

use super::{Config, HumanDuration};

/// `[relief]`. Without a role nothing is ever ended.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relief {
    /// How far to go; default: the general mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// From which share of the connections that ordinary clients may use.
    pub from_percent: f64,
    /// Sessions that may be ended in any minute.
    pub per_minute: u32,
    /// Whose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub role: Vec<Clients>,
}

impl Default for Relief {
    fn default() -> Self {
        Self { mode: None, from_percent: 80.0, per_minute: 10, role: Vec::new() }
    }
}

/// `[[relief.role]]`: sessions of one role.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// The role, as PostgreSQL has it.
    pub name: String,
    /// Sessions to this database only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Outside of a transaction: from when on one is ended. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<HumanDuration>,
    /// In a transaction, which is rolled back. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_in_transaction: Option<HumanDuration>,
}

impl Config {
    /// What may be relieved, and how.
    pub fn relief(&self) -> ReliefSettings {
        let limit = |limit: Option<HumanDuration>| limit.map(|limit| limit.0);
        let clients = self.relief.role.iter().map(|clients| ReliefClients {
            role: clients.name.clone(),
            database: clients.database.clone(),
            idle: limit(clients.idle),
            idle_in_transaction: limit(clients.idle_in_transaction),
        });
        ReliefSettings {
            mode: self.relief.mode.unwrap_or(self.mode),
            from_percent: self.relief.from_percent,
            per_minute: self.relief.per_minute,
            clients: clients.collect(),
        }
    }

    /// What is wrong with it: place, what, and what to do.
    pub(super) fn relief_problems(&self) -> Vec<(String, String, &'static str)> {
        let mut problems = Vec::new();
        let mut tell = |key: String, what: String, hint| problems.push((format!("relief.{key}"), what, hint));
        let relief = &self.relief;
        if !(1.0..=100.0).contains(&relief.from_percent) {
            let what = format!("{} is no such share", relief.from_percent);
            tell("from_percent".to_owned(), what, "from 1 to 100: of the connections that ordinary clients may use");
        }
        if !(1..=PER_MINUTE_MAX).contains(&relief.per_minute) {
            let what = format!("{} is no bound", relief.per_minute);
            tell("per_minute".to_owned(), what, "from 1 to 120; to end nobody, leave the roles out");
        }
        let own = self.postgres.url.as_deref().and_then(|url| pg_connect::Target::parse(url, String::new).ok());
        for clients in &relief.role {
            let place = format!("role {:?}", clients.name);
            if clients.name.is_empty() {
                tell(place.clone(), "names no role".to_owned(), "name = \"...\", as `\\du` in psql shows it");
            }
            if own.as_ref().is_some_and(|own| !own.user.is_empty() && own.user == clients.name) {
                let hint = "give the guard a role of its own: it must not lose its way in";
                tell(place.clone(), "is the role that the guard itself connects as".to_owned(), hint);
            }
            let limits = [clients.idle, clients.idle_in_transaction];
            if limits.iter().all(Option::is_none) {
                let hint = "idle = \"30min\", idle_in_transaction = \"5min\", or one of them";
                tell(place.clone(), "has no limit: nothing of it would be ended".to_owned(), hint);
            }
            if limits.iter().flatten().any(|limit| limit.0 < IDLE_MIN) {
                let hint = "a second at least: between two statements any session is idle";
                tell(place, "has a limit that is no idleness".to_owned(), hint);
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let problems = |text: &str| {
            let text =
                format!("mode = \"act\"\n{text}\n[postgres]\nname = \"main\"\nurl = \"postgresql://guard@/postgres\"");
            let config: Config = toml::from_str(&text).unwrap();
            assert_eq!(config.relief().mode, Mode::Act);
            config.relief_problems().into_iter().map(|(place, what, _)| format!("{place}: {what}")).collect::<Vec<_>>()
        };
        let role = |keys: &str| problems(&format!("[[relief.role]]\n{keys}"));
        assert!(problems("").is_empty());
        assert!(role("name = \"site\"\nidle = \"5min\"").is_empty());
        for (found, expected) in [
            (problems("[relief]\nfrom_percent = 0.0"), "relief.from_percent: 0 is no such share"),
            (problems("[relief]\nper_minute = 0"), "relief.per_minute: 0 is no bound"),
            (problems("[relief]\nper_minute = 121"), "relief.per_minute: 121 is no bound"),
            (role("name = \"site\""), "relief.role \"site\": has no limit: nothing of it would be ended"),
            (role("name = \"\"\nidle = \"5min\""), "relief.role \"\": names no role"),
            (role("name = \"s\"\nidle = \"10ms\""), "relief.role \"s\": has a limit that is no idleness"),
            (
                role("name = \"guard\"\nidle = \"5min\""),
                "relief.role \"guard\": is the role that the guard itself connects as",
            ),
        ] {
            assert_eq!(found, [expected]);
        }
    }

    #[test]
    fn nothing_is_relieved_unless_a_role_is_named() {
        let settings = Config::default().relief();
        assert_eq!((settings.clients.len(), settings.per_minute), (0, 10));
        let text = "[[relief.role]]\nname = \"site\"\ndatabase = \"shop\"\nidle_in_transaction = \"5min\"";
        let config: Config = toml::from_str(text).unwrap();
        let clients = &config.relief().clients[0];
        assert_eq!((clients.idle, clients.idle_in_transaction), (None, Some(Duration::from_secs(300))));
        assert_eq!((clients.role.as_str(), clients.database.as_deref()), ("site", Some("shop")));
    }
}
