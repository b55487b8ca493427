//! `health` and `function`: how a service is asked.

use std::{net::IpAddr, path::PathBuf};

use collector::services::Check;
use pg_connect::{Host, Target};
use serde::{Deserialize, Serialize};
use services::probe::{self, Probe, ProbeError};

use crate::config::HumanDuration;

/// What is said where none or several are declared.
pub(super) const ONE_OF: &str = "needs exactly one of http, tcp, postgres, redis, command and dns, such as { http = \"http://127.0.0.1:8000/healthz\" }";

/// One way to ask a service: exactly one of `http`, `tcp`, `postgres`, `redis`, `command` and `dns`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// A URL that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// With `http`: the status that is well; by default any from 200 to 299.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With `http`: what the body has to hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A `host:port` that takes connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// A PostgreSQL that accepts connections, as libpq writes where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// A Redis that answers PING: `host:port`, or a socket's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<String>,
    /// With `redis`: a file that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A command that exits with 0; 75 while it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// A name that resolves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// With `dns`: the server that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// With `dns`: an address that has to be in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// How long an answer may take.
    pub timeout: Timeout,
    /// How often the guard asks.
    pub interval: Timeout,
}

/// Two seconds, unless somebody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Timeout(pub HumanDuration);

impl Default for Timeout {
    fn default() -> Self {
        Self(HumanDuration::from_secs(2))
    }
}

impl Health {
    /// What the guard's own sampler asks; `None` for what only the recovery asks.
    ///
    /// # Errors
    /// In words, where it can't be used.
    pub fn check(&self) -> Result<Option<Check>, String> {
        match (&self.http, &self.tcp) {
            (Some(url), None) if !url.starts_with("https:") => Check::http(url).map(Some).map_err(|e| e.to_string()),
            (None, Some(address)) => Check::tcp(address).map(Some).map_err(|e| e.to_string()),
            _ => Ok(None),
        }
    }

    /// The probe that is declared.
    ///
    /// # Errors
    /// In words, where it can't be used or not exactly one is declared.
    pub fn probe(&self) -> Result<Probe, String> {
        let ways = [&self.http, &self.tcp, &self.postgres, &self.redis, &self.dns];
        if ways.iter().filter(|way| way.is_some()).count() + usize::from(!self.command.is_empty()) != 1 {
            return Err(ONE_OF.to_owned());
        }
        let strays = [
            (self.status.is_some() || self.body.is_some(), self.http.is_some(), "status and body go with http"),
            (self.password_file.is_some(), self.redis.is_some(), "password_file goes with redis"),
            (self.server.is_some() || self.address.is_some(), self.dns.is_some(), "server and address go with dns"),
        ];
        if let Some((.., why)) = strays.iter().find(|(given, fits, _)| *given && !fits) {
            return Err((*why).to_owned());
        }
        self.made().map_err(|error| error.to_string())
    }

    /// The host, in lower case, and the port at which it is asked, where a server listens there: `tcp`, `redis` or `postgres`.
    pub fn address(&self) -> Option<(String, u16)> {
        if let Some(url) = &self.postgres {
            return match Target::parse(url, String::new).ok()?.hosts.into_iter().next()? {
                Host::Tcp(host, port) => Some((host.to_ascii_lowercase(), port)),
                Host::Unix(..) => None,
            };
        }
        let (host, port) = self.tcp.as_ref().or(self.redis.as_ref())?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host.to_ascii_lowercase(), port.parse().ok()?))
    }

    /// What is wrong with it, in words.
    pub fn problems(&self) -> Vec<String> {
        let zero = self.timeout.0.0.is_zero() || self.interval.0.0.is_zero();
        let zero = zero.then(|| "an interval or time-out of zero".to_owned());
        self.probe().err().into_iter().chain(zero).collect()
    }

    fn made(&self) -> Result<Probe, ProbeError> {
        if let Some(url) = &self.http {
            let mut http = probe::Http::new(url)?;
            if let Some(status) = self.status {
                http = http.status(status)?;
            }
            return Ok(Probe::Http(match &self.body {
                Some(part) => http.body(part),
                None => http,
            }));
        }
        if let Some(address) = &self.tcp {
            return Ok(Probe::Tcp(probe::Tcp::new(address)?));
        }
        if let Some(url) = &self.postgres {
            return Ok(Probe::Postgres(Box::new(probe::Postgres::new(url, None)?)));
        }
        if let Some(address) = &self.redis {
            let redis = probe::Redis::new(address)?;
            return Ok(Probe::Redis(match &self.password_file {
                Some(path) => redis.password_file(path),
                None => redis,
            }));
        }
        if let Some(name) = &self.dns {
            let mut dns = probe::Dns::new(name)?;
            if let Some(server) = &self.server {
                dns = dns.server(server)?;
            }
            return Ok(Probe::Dns(match self.address {
                Some(address) => dns.expects(address),
                None => dns,
            }));
        }
        Ok(Probe::Command(probe::Command::new(self.command.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_server_is_asked() {
        for (text, address) in [
            ("tcp = \"Db.example:5433\"", Some(("db.example", 5433))),
            ("redis = \"[2001:db8::7]:6380\"", Some(("2001:db8::7", 6380))),
            ("redis = \"/run/redis.sock\"", None),
            ("postgres = \"postgresql://u@Db.example:6432/x\"", Some(("db.example", 6432))),
            ("postgres = \"postgresql:///x?host=/run/postgresql\"", None),
            ("http = \"http://db.example:80/\"", None),
        ] {
            let health: Health = toml::from_str(text).unwrap();
            assert_eq!(health.address(), address.map(|(host, port): (&str, u16)| (host.to_owned(), port)), "{text}");
        }
    }
}
