//! Sessions that were seen on PostgreSQL (`pg_stat_activity`): who is connected needs the database.

// core's net has values only, std's also sockets.
use core::net::IpAddr;
use std::collections::BTreeMap;

use model::ServiceName;

use super::{Confidence, Found, Known, plain};

/// Rows that are looked at.
pub const ROWS_MAX: usize = 10_000;

/// Kinds of sessions of nobody that are told.
const STRANGERS_MAX: usize = 50;

/// One session, without its query: `application_name`, `client_addr` and, for a client on this host, the unit or container that its process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// What the client calls itself.
    pub application_name: String,
    /// Where it comes from; `None` over a Unix socket.
    pub client_addr: Option<IpAddr>,
    /// The configured service whose process holds the other end, where the socket's owner could be found.
    pub process_of: Option<ServiceName>,
    /// `backend_type`; only `client backend` says anything.
    pub backend_type: String,
}

/// Programs that come and go, and say nothing of services.
const PASSING: &[&str] = &[
    "psql",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pg_basebackup",
    "pg_receivewal",
    "pgadmin",
    "dbeaver",
    "datagrip",
    "oxpecker",
];

/// The edges that sessions on the PostgreSQL called `postgres` suggest, and whose sessions nobody knows, in words. `services` are the names that an application name is compared with, `known` the addresses.
pub fn edges(
    postgres: &ServiceName,
    sessions: &[Session],
    services: &[ServiceName],
    known: &[Known],
) -> (Vec<Found>, Vec<String>) {
    // Who, by what: how many.
    let mut seen: BTreeMap<(ServiceName, String, Confidence), usize> = BTreeMap::new();
    let mut strangers: BTreeMap<(String, String), usize> = BTreeMap::new();
    for session in sessions.iter().take(ROWS_MAX).filter(|session| session.backend_type == "client backend") {
        let application = session.application_name.to_ascii_lowercase();
        if PASSING.iter().any(|passing| application.starts_with(passing)) {
            continue;
        }
        let by_address = session.client_addr.and_then(|address| super::answering(known, &address.to_string(), None));
        let by_name = services.iter().find(|service| is_named(&application, &service.as_str().to_ascii_lowercase()));
        let (service, how, confidence) = match (&session.process_of, by_address, by_name) {
            (Some(service), ..) => (service, "its process holds".to_owned(), Confidence::High),
            (None, Some(known), Some(name)) if known.service == *name => {
                (name, format!("its address and application_name {:?} hold", plain(&application)), Confidence::High)
            }
            (None, Some(known), _) => (&known.service, "its address holds".to_owned(), Confidence::Medium),
            (None, None, Some(name)) => {
                (name, format!("application_name {:?} holds", plain(&application)), Confidence::Medium)
            }
            (None, None, None) => {
                let from = session.client_addr.map_or_else(|| "this host".to_owned(), |address| address.to_string());
                *strangers.entry((plain(&session.application_name), from)).or_default() += 1;
                continue;
            }
        };
        if service != postgres {
            *seen.entry((service.clone(), how, confidence)).or_default() += 1;
        }
    }
    let found = seen.into_iter().map(|((service, how, confidence), count)| Found {
        service,
        need: postgres.clone(),
        place: "pg_stat_activity".to_owned(),
        what: format!("{how} {count} {}", if count == 1 { "session" } else { "sessions" }),
        confidence,
    });
    let counted = |count: usize| format!("{count} {}", if count == 1 { "session" } else { "sessions" });
    let told = strangers.into_iter().take(STRANGERS_MAX);
    let told = told.map(|((application, from), count)| {
        format!(
            "{} of application_name {application:?} from {from} on {postgres}: of no service that is known here",
            counted(count)
        )
    });
    (found.collect(), told.collect())
}

/// `site`, `site-worker` and `site: web.1` are of `site`; `siteground` is not.
fn is_named(application: &str, service: &str) -> bool {
    let rest = application.strip_prefix(service);
    !service.is_empty() && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_tell_who_needs_the_database() {
        let session = |application: &str, address: Option<&str>, process: Option<&str>| Session {
            application_name: application.into(),
            client_addr: address.map(|address| address.parse().unwrap()),
            process_of: process.map(Into::into),
            backend_type: "client backend".into(),
        };
        let sessions = [
            session("site-worker", None, None),
            session("site: web.1", None, None),
            session("siteground", None, None),
            session("psql", Some("10.0.0.7"), None),
            session("", Some("10.0.0.7"), None),
            session("gate", Some("10.0.0.8"), None),
            session("", None, Some("metricity")),
            Session { backend_type: "walsender".into(), ..session("site", None, None) },
            session("main", None, Some("main")),
        ];
        let known =
            |service: &str, host: &str| Known { service: service.into(), hosts: vec![host.into()], port: Some(80) };
        let services: Vec<ServiceName> = ["site", "bot", "gate"].map(Into::into).to_vec();
        let (found, strangers) =
            edges(&"main".into(), &sessions, &services, &[known("bot", "10.0.0.7"), known("gate", "10.0.0.8")]);
        assert_eq!(
            strangers,
            ["1 session of application_name \"siteground\" from this host on main: of no service that is known here"]
        );
        let told: Vec<String> =
            found.iter().map(|one| format!("{} [{}] {}", one.service, one.confidence, one.what)).collect();
        assert_eq!(
            told,
            [
                "bot [medium] its address holds 1 session",
                "gate [high] its address and application_name \"gate\" hold 1 session",
                "metricity [high] its process holds 1 session",
                "site [medium] application_name \"site-worker\" holds 1 session",
                "site [medium] application_name \"site: web.1\" holds 1 session",
            ]
        );
    }
}
