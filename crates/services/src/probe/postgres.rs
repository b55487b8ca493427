//! Whether PostgreSQL accepts connections.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use pg_connect::{Sql, explained};
use tokio_postgres::{SimpleQueryMessage, error::SqlState};

use super::{ProbeError, Said, Trouble, net, plain, recovery};
use crate::health::Answer;

/// What the server shows of our sessions.
const APPLICATION_NAME: &str = "oxpecker health";

/// When the server was started, in microseconds: what tells one run of it from another.
const STARTED: &str = "SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8";

/// A session and one query.
///
/// A server that starts up replays its log first where it crashed; it then rejects connections (SQLSTATE 57P03), and that is progress. Its messages for it are
/// translated (`lc_messages`), so whatever is not known as shutting down counts as recovering: better waited for in vain than killed in recovery.
///
/// One that shuts down says so too, and writes it into its postmaster.pid, which also tells it where it does not answer: its last checkpoint may take minutes, and
/// a start or a kill in the midst of it is a crash.
#[derive(Clone, Debug)]
pub struct Postgres {
    sql: Sql,
    data_dir: Option<PathBuf>,
}

impl Postgres {
    /// From a connection string. `data_dir`: that of the same server, where it is on this host; how far its recovery has come is told by its processes.
    ///
    /// # Errors
    /// The text is no connection string, or its password file can't be used. No password is shown.
    pub fn new(url: &str, data_dir: Option<&Path>) -> Result<Self, ProbeError> {
        let hint = "write it as for psql: postgresql://user@host/dbname";
        let mut sql =
            Sql::parse(url).map_err(|error| ProbeError::new("a connection string", error.to_string(), hint))?;
        sql.config.application_name(APPLICATION_NAME);
        Ok(Self { sql, data_dir: data_dir.map(Path::to_owned) })
    }

    pub(super) async fn ask(&self) -> Said {
        let asked = self.session().await;
        // Two clocks tell of the same start. One of them is taken, or a glance at the other would look like a restart.
        let run = match self.data_dir.as_deref().map(recovery::run) {
            None => asked.as_ref().copied().unwrap_or(None),
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                asked.as_ref().copied().unwrap_or(None)
            }
            Some(Err(_)) => None,
            Some(Ok(run)) => run,
        };
        let Err(error) = asked else { return Said { run, ..Said::of(Answer::Healthy) } };
        let rejects = error.code() == Some(&SqlState::CANNOT_CONNECT_NOW);
        let says_so = rejects && error.as_db_error().is_some_and(|error| error.message().contains("shutting down"));
        let stops = self.data_dir.as_deref().and_then(recovery::stops);
        if says_so || stops.is_some() {
            return Said { answer: Answer::Stopping, progress: stops, run };
        }
        if !rejects {
            return Said { run, ..Err(trouble(&error)).into() };
        }
        let progress = self.data_dir.as_deref().and_then(recovery::progress);
        Said { answer: Answer::Recovering, progress, run }
    }

    /// What there is to say where it did not answer in time.
    pub(super) fn silent(&self) -> Option<Said> {
        let stops = self.data_dir.as_deref().and_then(recovery::stops)?;
        Some(Said { progress: Some(stops), ..Said::of(Answer::Stopping) })
    }

    /// When the server says that it was started. Nothing of the session is left when it is given up: the connection is driven here.
    async fn session(&self) -> Result<Option<u64>, tokio_postgres::Error> {
        let (client, connection) = self.sql.connect().await?;
        let mut connection = std::pin::pin!(connection);
        let rows = tokio::select! {
            asked = client.simple_query(STARTED) => asked?,
            // It ends only with an error or with its client.
            ended = &mut connection => return ended.map(|()| None),
        };
        let told = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        Ok(told)
    }
}

fn trouble(error: &tokio_postgres::Error) -> Trouble {
    let text = plain(&explained(error));
    if let Some(error) = error.as_db_error() {
        // Class 28: it accepts connections, and not us. That says nothing of what the service can do for those that it knows.
        return if error.code().code().starts_with("28") {
            Trouble::Probe(format!("it does not let us in: {text}; hint: look at the user and the password of the URL"))
        } else {
            Trouble::Service(text)
        };
    }
    let mut cause = error.source();
    while let Some(one) = cause {
        if one.is::<rustls::Error>() {
            return Trouble::Probe(text);
        }
        if let Some(error) = one.downcast_ref::<io::Error>()
            && error.get_ref().is_none()
        {
            return net::of(error);
        }
        cause = one.source();
    }
    // The name's look-up, certificates and missing passwords are told by words only.
    let ours = ["resolv", "lookup", "TLS", "password missing", "invalid configuration"];
    if ours.iter().any(|words| text.contains(words)) { Trouble::Probe(text) } else { Trouble::Service(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_checked_beforehand() {
        assert!(Postgres::new("postgresql://oxpecker@127.0.0.1/app", None).is_ok());
        for text in ["http://127.0.0.1", "host=a port=s3cr3t password=s3cr3t"] {
            let error = Postgres::new(text, None).unwrap_err().to_string();
            assert!(error.contains("hint: ") && !error.contains("password=s3cr3t"), "{error}");
        }
    }
}
