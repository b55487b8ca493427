//! Sessions on the guarded PostgreSQL, and whose they are.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use model::ServiceName;
use pg_connect::{Sql, explained};
use services::discover::{
    Candidate, How,
    activity::{self, ROWS_MAX, Session},
    settle::{Configured, Guarded, Settled},
};
use tokio::time::timeout;

use super::{
    clients::{self, End, Owner},
    files::Files,
};

/// How long making the session, and its one answer, may take each.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whose sessions there are; not what they do. What a role may not see of other users' sessions is NULL.
const SESSIONS: &str = "SELECT pid, coalesce(application_name, ''), host(client_addr), coalesce(client_port, -1), coalesce(backend_type, '') \
     FROM pg_stat_activity WHERE pid <> pg_backend_pid() ORDER BY backend_start NULLS LAST, pid LIMIT 10000";

/// One session with both its ends.
struct Seen {
    end: End,
    application: String,
    backend_type: String,
}

/// Adds what sessions tell to what was settled.
///
/// # Errors
/// In words, where the server can't be asked.
pub fn add(
    sql: &Sql,
    guarded: &Guarded,
    configured: &Configured,
    settled: &mut Settled,
    files: &mut Files,
) -> Result<(), String> {
    let seen = super::super::block_on(ask(sql)).map_err(|failure| failure.error.to_string())??;
    let ours: Vec<&Seen> = seen.iter().filter(|one| one.backend_type == "client backend").collect();
    if ours.len() < seen.iter().filter(|one| one.backend_type.is_empty()).count() {
        files.note(
            "the role sees too little of other users' sessions; hint: GRANT pg_read_all_stats TO it, as docs/privileges.md has it",
        );
    }
    let ends: Vec<End> = ours.iter().map(|one| one.end.clone()).collect();
    let owners = clients::owners(&ends);
    let mut projects: BTreeMap<String, Option<(String, String)>> = BTreeMap::new();
    let mut sessions = Vec::new();
    for (one, owner) in ours.iter().zip(owners) {
        let how = match owner {
            Some(Owner::Unit(unit)) => Some(How::Systemd { unit }),
            Some(Owner::Container(id)) => {
                let found = projects.entry(id.clone()).or_insert_with(|| clients::compose_of(&id, files));
                found.clone().map(|(project, service)| How::Docker { project, service })
            }
            Some(Owner::Command(_)) | None => None,
        };
        sessions.push(Session {
            application_name: one.application.clone(),
            client_addr: one.end.client.map(|(address, _)| address),
            process_of: how.and_then(|how| service(how, configured, settled)),
            backend_type: one.backend_type.clone(),
        });
    }
    let names: Vec<ServiceName> = settled
        .candidates
        .iter()
        .map(|one| one.service.clone())
        .chain(configured.services.iter().map(|(name, _)| name.clone()))
        .collect();
    let (found, strangers) = activity::edges(&guarded.name, &sessions, &names, &[]);
    settled.found.extend(found);
    strangers.into_iter().for_each(|note| files.note(note));
    Ok(())
}

/// The service that is run so; a new one where nobody knows it yet. Units of the system itself and the database's own are none.
fn service(how: How, configured: &Configured, settled: &mut Settled) -> Option<ServiceName> {
    let known =
        configured.services.iter().find(|(_, known)| known.as_ref() == Some(&how)).map(|(name, _)| name.clone());
    let found = || settled.candidates.iter().find(|one| one.how == how).map(|one| one.service.clone());
    if let Some(name) = known.or_else(found) {
        return Some(name);
    }
    let name = match &how {
        How::Systemd { unit } => unit.strip_suffix(".service")?.to_owned(),
        How::Docker { project, service } => format!("{project}-{service}"),
        How::Elsewhere { .. } | How::Unknown => return None,
    };
    let is_taken = |name: &str| {
        settled.candidates.iter().any(|one| one.service.as_str() == name)
            || configured.services.iter().any(|(known, _)| known.as_str() == name)
    };
    let is_plain = !name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control);
    if !is_plain || is_taken(&name) || name.starts_with("postgresql") || name.starts_with("systemd-") {
        return None;
    }
    let mut candidate = Candidate::new(name.as_str(), how, "pg_stat_activity".to_owned());
    candidate.has_health = true;
    settled.candidates.push(candidate);
    Some(name.into())
}

async fn ask(sql: &Sql) -> Result<Vec<Seen>, String> {
    let late = |_| format!("no answer within {} s", ANSWER_MAX.as_secs());
    let mut sql = sql.clone();
    sql.config.application_name("oxpecker discover");
    let (client, connection) =
        timeout(ANSWER_MAX, sql.connect()).await.map_err(late)?.map_err(|error| explained(&error))?;
    let driver = tokio::spawn(connection);
    let rows = timeout(ANSWER_MAX, client.query(SESSIONS, &[])).await;
    driver.abort();
    let rows = rows.map_err(late)?.map_err(|error| explained(&error))?;
    let seen = rows.iter().take(ROWS_MAX).map(|row| {
        let address: Option<String> = row.try_get(2).ok().flatten();
        let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
        let port: i32 = row.try_get(3).unwrap_or(-1);
        let port = u16::try_from(port).ok();
        Seen {
            end: End { backend: row.try_get(0).unwrap_or(0), client: address.map(|a| a.to_canonical()).zip(port) },
            application: row.try_get(1).unwrap_or_default(),
            backend_type: row.try_get(4).unwrap_or_default(),
        }
    });
    Ok(seen.collect())
}
