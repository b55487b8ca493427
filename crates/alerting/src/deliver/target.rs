//! Where a route's alerts go, whatever carries them.

use std::{collections::BTreeMap, time::Duration};

use model::Alert;
use reqwest::Client;

use super::{
    command,
    dialect::Dialect,
    email::EmailTarget,
    webhook::{self, HttpTarget},
};
use crate::{
    heartbeat::Heartbeat,
    route::{Carrier, Command, Webhook},
};

/// Why an attempt failed, without secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: String,
    /// Whether trying again is of no use.
    pub(crate) permanent: bool,
    /// When the receiver wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

/// A route that is ready.
#[derive(Clone)]
pub(crate) enum Target {
    Http(Box<HttpTarget>),
    Command(Command),
    Email(Box<EmailTarget>),
}

/// What makes targets: one HTTP client for all of them.
pub(crate) struct Targets {
    client: Client,
    /// Why there is no TLS, if there is none.
    no_tls: Option<String>,
}

impl Targets {
    /// # Errors
    /// Where not even plain HTTP is to be had.
    pub(crate) fn new() -> Result<Self, String> {
        match webhook::client() {
            Ok(client) => Ok(Self { client, no_tls: None }),
            Err(error) => Ok(Self { client: webhook::plain_client()?, no_tls: Some(error) }),
        }
    }

    /// # Errors
    /// Where the route can't work, without its secrets.
    pub(crate) fn target(&self, carrier: &Carrier) -> Result<Target, String> {
        let (webhook, dialect) = match carrier {
            Carrier::Webhook(webhook) => (webhook, Dialect::Own),
            Carrier::Discord(webhook) => (webhook, Dialect::Discord),
            Carrier::Slack(webhook) => (webhook, Dialect::Slack),
            Carrier::Alertmanager(webhook) => (webhook, Dialect::Alertmanager),
            Carrier::Command(command) if command.argv.is_empty() => return Err("its command is empty".to_owned()),
            Carrier::Command(command) => return Ok(Target::Command(command.clone())),
            Carrier::Email(email) => return EmailTarget::new(email).map(|target| Target::Email(Box::new(target))),
        };
        self.http(webhook, dialect).map(|target| Target::Http(Box::new(target)))
    }

    /// # Errors
    /// Where no heartbeat can get there, without its secret.
    pub(super) fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HttpTarget, String> {
        let webhook = Webhook { url: heartbeat.url.clone(), bearer: None, headers: BTreeMap::new(), template: None };
        self.http(&webhook, Dialect::Own)
    }

    fn http(&self, webhook: &Webhook, dialect: Dialect) -> Result<HttpTarget, String> {
        let target = HttpTarget::new(self.client.clone(), webhook, dialect)?;
        match &self.no_tls {
            Some(error) if target.is_tls() => Err(error.clone()),
            _ => Ok(target),
        }
    }
}

impl Target {
    /// How many alerts one message may carry.
    pub(crate) fn together(&self) -> usize {
        match self {
            Self::Http(target) => target.dialect().together(),
            Self::Command(_) => 1,
            Self::Email(_) => super::words::MAX_TOGETHER,
        }
    }

    /// Sends one message of these alerts, at least one and at most [`Target::together`]. Answers how long the receiver wants to be
    /// left alone.
    pub(crate) async fn send(&self, alerts: &[&Alert]) -> Result<Duration, Failure> {
        match self {
            Self::Http(target) => target.post(alerts).await,
            Self::Command(command) => {
                for alert in alerts {
                    command::run(command, alert).await?;
                }
                Ok(Duration::ZERO)
            }
            Self::Email(target) => target.send(alerts).await.map(|()| Duration::ZERO),
        }
    }

    /// Makes the way short for the next alert, where there is a way to prepare.
    pub(crate) async fn warm(self) {
        if let Self::Http(target) = self {
            target.warm().await;
        }
    }
}
