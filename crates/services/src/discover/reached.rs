//! What the variables and commands of a service lead to: addresses, to be compared with the services that are known.

use std::collections::BTreeMap;

use model::ServiceName;

use super::{
    dsn::{self, Endpoint},
    plain,
};

/// Values of one service that are looked at.
const VALUES_MAX: usize = 5_000;

/// A value that a service is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The variable's name; empty for a command.
    pub variable: String,
    /// Its value. Never shown.
    pub value: String,
    /// The file and line that say it.
    pub place: String,
    /// By what: `environment`, `env_file`, `command`.
    pub by: &'static str,
}

/// An address that a service was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Who was given it.
    pub service: ServiceName,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// The file and line that say it.
    pub place: String,
    /// By which variable.
    pub what: String,
    /// A whole connection string, or a variable whose name leaves no doubt; else a guess, worth something only where the host is known.
    pub is_sure: bool,
    /// It was given to a container: `localhost` is the container there.
    pub in_container: bool,
}

/// The addresses in what one service was given. `local`: the service runs on this host itself, and may go over a unix socket.
pub fn of(service: &ServiceName, given: &[Given], local: bool) -> Vec<Reached> {
    let given = &given[..given.len().min(VALUES_MAX)];
    let ports: BTreeMap<String, u16> = given
        .iter()
        .filter(|one| one.variable.to_ascii_uppercase().contains("PORT"))
        .filter_map(|one| Some((one.variable.to_ascii_uppercase(), one.value.trim().parse().ok()?)))
        .collect();
    let mut found = Vec::new();
    for one in given {
        let mut endpoints = dsn::endpoints(&one.variable, &one.value);
        let mut is_sure = !endpoints.is_empty();
        if endpoints.is_empty() && local {
            endpoints.extend(dsn::local_socket(&one.variable, &one.value));
            is_sure = !endpoints.is_empty();
        }
        if endpoints.is_empty() {
            endpoints = dsn::mentioned(&one.variable, &one.value);
        }
        for mut endpoint in endpoints {
            if endpoint.port.is_none() || one.variable == "PGHOST" {
                endpoint.port = beside(&ports, &one.variable).or(endpoint.port);
            }
            let what = if one.variable.is_empty() {
                format!("{}: {endpoint}", one.by)
            } else {
                format!("{} {}: {endpoint}", one.by, plain(&one.variable))
            };
            found.push(Reached {
                service: service.clone(),
                endpoint,
                place: one.place.clone(),
                what,
                is_sure,
                in_container: !local,
            });
        }
    }
    found
}

/// The port in the variable beside: `DB_PORT` for `DB_HOST`.
fn beside(ports: &BTreeMap<String, u16>, variable: &str) -> Option<u16> {
    let name = variable.to_ascii_uppercase();
    ["HOSTNAME", "HOST", "SERVER", "ADDRESS", "ADDR"].iter().find_map(|word| {
        let at = name.rfind(word)?;
        ports.get(&format!("{}PORT{}", &name[..at], &name[at + word.len()..])).copied()
    })
}

/// A name of this host itself, where [`Reached::in_container`] doesn't make it the container's.
pub fn is_here(host: &str, in_container: bool) -> bool {
    let is_loopback = matches!(host, "localhost" | "::1" | "0.0.0.0" | "ip6-localhost" | "localhost.localdomain")
        || host.starts_with("127.");
    // What engines call the host, and the address that its default bridge gives it.
    let is_gateway =
        matches!(host, "host.docker.internal" | "gateway.docker.internal" | "host.containers.internal" | "172.17.0.1");
    is_gateway || (is_loopback && !in_container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_belong_together() {
        let given = |pairs: &[(&str, &str)]| -> Vec<Given> {
            let one = |(variable, value): &(&str, &str)| Given {
                variable: (*variable).to_owned(),
                value: (*value).to_owned(),
                place: "f:1".to_owned(),
                by: "environment",
            };
            pairs.iter().map(one).collect()
        };
        for (pairs, local, expected) in [
            (&[("DB_HOST", "db"), ("DB_PORT", "5433")][..], false, "environment DB_HOST: something at db:5433"),
            (&[("PGHOST", "db"), ("PGPORT", "6000")], false, "environment PGHOST: postgresql at db:6000!"),
            (
                &[("PGHOST", "/run/postgresql"), ("PGPORT", "6000")],
                true,
                "environment PGHOST: postgresql at localhost:6000!",
            ),
            (&[("PGHOST", "/run/postgresql")], false, ""),
            (&[("REDIS_URL", "redis://:hunter2@cache/1")], false, "environment REDIS_URL: redis at cache:6379!"),
            (&[("", "serve --api=http://site:8000/")], false, "environment: http at site:8000"),
            (&[("SMTP_HOSTNAME", "mail"), ("SMTP_PORT", "x")], false, "environment SMTP_HOSTNAME: smtp at mail"),
        ] {
            let shown: Vec<String> = of(&"x".into(), &given(pairs), local)
                .iter()
                .map(|one| format!("{}{}", one.what, if one.is_sure { "!" } else { "" }))
                .collect();
            assert_eq!(shown.join("; "), expected, "{pairs:?}");
        }
    }

    #[test]
    fn who_localhost_is() {
        for (host, in_container, expected) in [
            ("localhost", false, true),
            ("localhost", true, false),
            ("host.docker.internal", true, true),
            ("127.0.1.1", false, true),
            ("db", false, false),
        ] {
            assert_eq!(is_here(host, in_container), expected, "{host}");
        }
    }
}
