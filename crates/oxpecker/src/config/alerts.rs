//! `[alert]`: rules, and the routes by which alerts leave the host.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use alerting::{Carrier, Secret, Security, Template, template::MAX_TEMPLATE_BYTES};
use model::Severity;
use serde::{Deserialize, Serialize};

use super::{Heartbeat, HumanDuration, Peer, own_rules::OwnRule};

/// `[alert]`: rules and routes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alert {
    /// Thresholds.
    pub rules: alerting::RuleSettings,
    /// The team's own rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub own_rule: Vec<OwnRule>,
    /// Where alerts go, beside the log.
    pub route: Vec<Route>,
    /// When those who only use the services are told.
    pub members: MembersWords,
    /// Who outside is to miss this guard when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// Another guard, to watch each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
}

/// `[[alert.route]]`: where alerts go. Exactly one of `webhook`, `discord`, `slack`, `alertmanager`, `email` and
/// `command` says how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in events and in `status`.
    pub name: String,
    /// A webhook that is posted our own JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// A Discord webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discord: Option<ChatWebhook>,
    /// A Slack incoming webhook, or one that speaks its JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<ChatWebhook>,
    /// An Alertmanager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<Alertmanager>,
    /// E-mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// A program and its arguments, started once for each alert, with the alert as JSON on its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// For whom it is.
    #[serde(default)]
    pub audience: Audience,
    /// The least severity that it carries.
    #[serde(default = "default_min_severity")]
    pub min_severity: Severity,
    /// It is told only of what nobody acknowledged for so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalate_after: Option<HumanDuration>,
    /// The labels that it carries: each one named must have one of the values. `rule` counts as a label.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, OneOrMore>,
}

/// For whom a route is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Those who keep the services: alerts.
    #[default]
    Team,
    /// Those who only use them: plain words about what is down and what works.
    Members,
}

/// `[alert.members]`: when those who only use the services are told.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MembersWords {
    /// How long something must be down to be worth a word, and up to count as back.
    pub after: HumanDuration,
    /// From one word to the next while nothing changes.
    pub every: HumanDuration,
    /// In which zone times are told, by its IANA name.
    pub time_zone: String,
}

impl Default for MembersWords {
    fn default() -> Self {
        let (after, every) = (Duration::from_secs(60), Duration::from_secs(30 * 60));
        Self { after: HumanDuration(after), every: HumanDuration(every), time_zone: "UTC".to_owned() }
    }
}

impl Alert {
    /// What members' words need; none where no route is for them.
    ///
    /// # Errors
    /// In words, where it can't work.
    pub fn members(&self) -> Result<Option<alerting::MembersSettings>, String> {
        let MembersWords { after, every, time_zone } = &self.members;
        let zone = jiff::tz::TimeZone::get(time_zone).map_err(|_| {
            format!("time_zone {time_zone:?} is not known here. Hint: such as \"Europe/Berlin\"; package tzdata")
        })?;
        if !(LEAST_EVERY..=Duration::from_secs(86_400)).contains(&every.0) {
            return Err("every is out of bounds. Hint: from 1m to 1d".to_owned());
        }
        if after.0 > Duration::from_secs(3_600) {
            return Err("after is too long. Hint: at most 1h, or nobody is told".to_owned());
        }
        let for_members = |route: &&Route| route.audience == Audience::Members;
        let team_is_told = !self.route.iter().all(|route| for_members(&route));
        let settings = alerting::MembersSettings { after: after.0, every: every.0, zone, team_is_told };
        Ok(self.route.iter().any(|route| for_members(&route)).then_some(settings))
    }
}

/// Words come no more often.
const LEAST_EVERY: Duration = Duration::from_secs(60);

/// One value, or several of which any will do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl OneOrMore {
    fn values(&self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::Any(values) => values.clone(),
        }
    }
}

fn default_min_severity() -> Severity {
    Severity::Warning
}

/// A route's `webhook`: exactly one of `url_file` and `url_env`. A webhook's URL is a secret, so it never stands in this file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// A file that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// An environment variable that holds the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// A file that holds a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<PathBuf>,
    /// More headers; not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A file with a template of what is posted, in place of our own JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_file: Option<PathBuf>,
    /// What the template gives. Default: application/json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// A route's `discord` or `slack`: exactly one of `webhook_file` and `webhook_env`. Whoever has the URL may post.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChatWebhook {
    /// A file that holds the webhook's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_env: Option<String>,
}

/// A route's `alertmanager`: its base URL, from where its API v2 is found.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Alertmanager {
    /// The base URL, as its `--web.external-url` has it.
    pub url: String,
    /// A file that holds a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<PathBuf>,
    /// More headers; not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A route's `email`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// `host` or `host:port`; without a port 465 with `tls`, 587 with `starttls`, 25 with `none`.
    pub server: String,
    /// How the way there is kept from listeners.
    #[serde(default)]
    pub security: Security,
    /// As whom to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Whom it is from.
    pub from: String,
    /// Whom it goes to.
    pub to: Vec<String>,
}

const ONE_CARRIER: &str = "needs exactly one of webhook, discord, slack, alertmanager, email and command. Hint: such as \
                           discord = { webhook_file = \"/etc/oxpecker/discord\" }";

impl Route {
    /// The route with its secrets read.
    ///
    /// # Errors
    /// In words, without a secret, where it can't work as it is declared.
    pub fn resolve(&self) -> Result<alerting::Route, String> {
        let mut carriers = Vec::new();
        carriers.extend(self.webhook.as_ref().map(|one| one.resolve().map(Carrier::Webhook)));
        carriers.extend(self.discord.as_ref().map(|one| one.resolve().map(Carrier::Discord)));
        carriers.extend(self.slack.as_ref().map(|one| one.resolve().map(Carrier::Slack)));
        carriers.extend(self.alertmanager.as_ref().map(|one| one.resolve().map(Carrier::Alertmanager)));
        carriers.extend(self.email.as_ref().map(|one| one.resolve().map(Carrier::Email)));
        carriers.extend(self.command.as_ref().map(|argv| command(argv).map(Carrier::Command)));
        let (Some(carrier), true) = (carriers.pop(), carriers.is_empty()) else { return Err(ONE_CARRIER.to_owned()) };
        let carrier = carrier?;
        let matches: alerting::Matches =
            self.matches.iter().map(|(name, values)| (name.clone(), values.values())).collect();
        if let Some((name, _)) = matches.iter().find(|(_, values)| values.is_empty()) {
            return Err(format!(
                "match.{name} names no value: it would carry nothing. Hint: leave it out to carry all"
            ));
        }
        let escalate_after = self.escalate_after.map(|after| after.0);
        let members = self.audience == Audience::Members;
        if members && (escalate_after.is_some() || !matches.is_empty()) {
            return Err(
                "a route for members carries their words and nothing else. Hint: leave out escalate_after and match"
                    .to_owned(),
            );
        }
        if members && matches!(carrier, Carrier::Alertmanager(_)) {
            return Err("an Alertmanager has no readers. Hint: members read a chat or mail".to_owned());
        }
        Ok(alerting::Route {
            name: self.name.clone(),
            min_severity: self.min_severity,
            matches,
            escalate_after,
            members,
            carrier,
        })
    }
}

fn command(argv: &[String]) -> Result<alerting::Command, String> {
    let program = argv.first().ok_or("command is empty. Hint: name the program and its arguments")?;
    if !Path::new(program).is_absolute() {
        return Err(format!("command {program:?} is no whole path. Hint: the guard does not search for programs"));
    }
    Ok(alerting::Command { argv: argv.to_vec() })
}

pub(super) fn secret(file: Option<&Path>, variable: Option<&str>, names: &str) -> Result<Secret, String> {
    match (file, variable) {
        (Some(path), None) => Secret::from_file(path).map_err(|e| e.to_string()),
        (None, Some(name)) => Secret::from_env(name).map_err(|e| e.to_string()),
        _ => Err(format!("needs exactly one of {names}. Hint: it is a secret and never stands here")),
    }
}

impl Webhook {
    fn resolve(&self) -> Result<alerting::Webhook, String> {
        let url = secret(self.url_file.as_deref(), self.url_env.as_deref(), "url_file and url_env")?;
        alerting::check_webhook_url(&url)?;
        let bearer = self.bearer_file.as_deref().map(Secret::from_file).transpose().map_err(|e| e.to_string())?;
        Ok(alerting::Webhook { url, bearer, headers: self.headers.clone(), template: self.template()? })
    }

    fn template(&self) -> Result<Option<Template>, String> {
        let Some(path) = &self.template_file else {
            return match self.content_type {
                Some(_) => {
                    Err("content_type stands without template_file. Hint: our own JSON is application/json".to_owned())
                }
                None => Ok(None),
            };
        };
        let unreadable = |error| {
            format!(
                "cannot read the template {}: {error}. Hint: the guard's user must be able to read it",
                path.display()
            )
        };
        // Not more of it than a template may have, should somebody name a log.
        let file = File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(MAX_TEMPLATE_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
        let template = Template::new(text, self.content_type.clone());
        template.map(Some).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl ChatWebhook {
    fn resolve(&self) -> Result<alerting::Webhook, String> {
        let names = "webhook_file and webhook_env";
        let url = secret(self.webhook_file.as_deref(), self.webhook_env.as_deref(), names)?;
        alerting::check_webhook_url(&url)?;
        Ok(alerting::Webhook { url, bearer: None, headers: BTreeMap::new(), template: None })
    }
}

impl Alertmanager {
    fn resolve(&self) -> Result<alerting::Webhook, String> {
        let url = Secret::new(self.url.clone());
        alerting::check_webhook_url(&url)?;
        let bearer = self.bearer_file.as_deref().map(Secret::from_file).transpose().map_err(|e| e.to_string())?;
        Ok(alerting::Webhook { url, bearer, headers: self.headers.clone(), template: None })
    }
}

impl Email {
    fn resolve(&self) -> Result<alerting::Email, String> {
        let usual = match self.security {
            Security::Tls => 465,
            Security::Starttls => 587,
            Security::None => 25,
        };
        let (host, port) = match self.server.rsplit_once(':') {
            // An IPv6 address without brackets has no port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
            _ => (self.server.as_str(), Some(usual)),
        };
        let port = port.filter(|_| !host.is_empty()).ok_or_else(|| {
            format!("server {:?} is no host:port. Hint: such as \"mail.example.org:587\"", self.server)
        })?;
        if self.user.is_some() != self.password_file.is_some() {
            return Err(
                "user and password_file go together. Hint: leave out both where the server asks for none".to_owned()
            );
        }
        let password = self.password_file.as_deref().map(Secret::from_file).transpose().map_err(|e| e.to_string())?;
        let email = alerting::Email {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            security: self.security,
            user: self.user.clone(),
            password,
            from: self.from.clone(),
            to: self.to.clone(),
        };
        alerting::check_email(&email)?;
        Ok(email)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<alerting::Route, String> {
        let route: Route = toml::from_str(&format!("name = \"r\"\n{text}")).map_err(|e| e.to_string())?;
        route.resolve()
    }

    #[test]
    fn each_carrier_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "https://chat.example/s3cr3t\n").unwrap();
        let file = file.display();
        for (text, carrier) in [
            (format!("webhook = {{ url_file = \"{file}\" }}"), "Webhook"),
            (format!("discord = {{ webhook_file = \"{file}\" }}"), "Discord"),
            (format!("slack = {{ webhook_file = \"{file}\" }}"), "Slack"),
            ("command = [\"/bin/true\", \"x\"]".to_owned(), "Command"),
            ("alertmanager = { url = \"http://127.0.0.1:9093\" }".to_owned(), "Alertmanager"),
            (
                "email = { server = \"mail.example.org\", from = \"a@example.org\", to = [\"b@example.org\"] }".to_owned(),
                "port: 587",
            ),
            (
                "email = { server = \"[::1]:2525\", security = \"none\", from = \"a@example.org\", to = [\"b@example.org\"] }"
                    .to_owned(),
                "port: 2525",
            ),
        ] {
            let shown = format!("{:?}", resolved(&text).unwrap());
            assert!(shown.contains(carrier) && !shown.contains("s3cr3t"), "{shown}");
        }
        let text = "command = [\"/bin/true\"]\nmatch = { rule = [\"a\", \"b\"], cluster = \"main\" }";
        let route = resolved(text).unwrap();
        assert_eq!(route.matches["rule"], ["a", "b"]);
        assert_eq!(route.matches["cluster"], ["main"]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        for (text, says) in [
            ("", "needs exactly one of webhook, discord"),
            ("command = [\"/bin/true\"]\ndiscord = {}", "needs exactly one of webhook, discord"),
            ("command = []", "command is empty"),
            ("alertmanager = { url = \"am:9093\" }", "not one of http or https"),
            ("email = { server = \"h:x\", from = \"a@b.c\", to = [\"a@b.c\"] }", "is no host:port"),
            ("email = { server = \"h\", from = \"a@b.c\", to = [] }", "goes to nobody"),
            ("email = { server = \"h\", user = \"u\", from = \"a@b.c\", to = [\"a@b.c\"] }", "go together"),
            ("command = [\"true\"]", "no whole path"),
            ("discord = {}", "exactly one of webhook_file and webhook_env"),
            ("slack = { webhook_file = \"/no/such\" }", "cannot read the secret"),
            ("command = [\"/bin/true\"]\nmatch = { rule = [] }", "match.rule names no value"),
        ] {
            let error = resolved(text).unwrap_err();
            assert!(error.contains(says) && error.contains("Hint: ") && !error.contains("s3cr3t"), "{text}: {error}");
        }
        assert!(resolved("command = [\"/bin/true\"]\nmatch = { rule = 1 }").unwrap_err().contains("a list of texts"));
        assert!(resolved("discord = { url_file = \"/x\" }").unwrap_err().contains("unknown field"));
    }
}
