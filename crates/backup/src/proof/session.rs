//! SQL sessions with the scratch server.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use pg_format::Major;
use tokio_postgres::{Client, Config, NoTls, error::SqlState};

use super::{
    error::Halt,
    identity::name_of,
    server::{Launch, Server},
    settings::{PORT, Session, session_options},
};

/// How long a connection may take: the server is on this host and has nothing else to do.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// The role that is made where no superuser's name is known.
const OWN_ROLE: &str = "oxpecker_proof";
/// The databases that initdb makes, by one of which a server can be asked for all others.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// How to reach the scratch server.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    run_dir: PathBuf,
    major: Major,
    /// A superuser.
    user: String,
    /// A database that can be opened.
    maintenance: &'static str,
}

impl Door {
    /// A session in a database.
    ///
    /// # Errors
    /// As the server says.
    pub(crate) async fn open(&self, database: &str, whose: Session) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.run_dir).port(PORT).user(&self.user).dbname(database);
        config.application_name("oxpecker proof").connect_timeout(CONNECT_PATIENCE);
        config.options(session_options(self.major, whose));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session of the proof ended");
            }
        });
        Ok(client)
    }

    /// A session in a database that initdb made.
    ///
    /// # Errors
    /// As the server says.
    pub(crate) async fn open_maintenance(&self) -> Result<Client, tokio_postgres::Error> {
        self.open(self.maintenance, Session::Ours).await
    }
}

/// Finds a way in: by the superusers' usual names, else by a role of our own that a single-user server makes.
pub(crate) fn find_door(
    runtime: &tokio::runtime::Runtime,
    launch: &Launch<'_>,
    server: &mut Server,
    major: Major,
    named: Option<&str>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Door, Halt> {
    let run_dir = launch.place.run();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let us = name_of(&passwd, rustix::process::geteuid().as_raw());
    let usual = ["postgres".to_owned(), launch.site.identity.name.clone()];
    let users: Vec<String> = named.map(str::to_owned).into_iter().chain(usual).chain(us).collect();
    let mut tried = Vec::new();
    for user in users {
        if tried.contains(&user) {
            continue;
        }
        match enter(runtime, &run_dir, major, &user) {
            Ok(Some(door)) => return Ok(door),
            Ok(None) => tried.push(user),
            Err(halt) => return Err(halt),
        }
    }
    server.kill();
    launch.single_user(&format!("CREATE ROLE {OWN_ROLE} SUPERUSER LOGIN"))?;
    *server = launch.start(cancelled)?;
    enter(runtime, &run_dir, major, OWN_ROLE)?.ok_or_else(|| {
        Halt::not_proven(format!(
            "no superuser's name is known (tried: {}), and none could be made; hint: name one",
            tried.join(", ")
        ))
    })
}

/// Tries one user. `None`: there is no such superuser who may log in.
fn enter(runtime: &tokio::runtime::Runtime, run_dir: &Path, major: Major, user: &str) -> Result<Option<Door>, Halt> {
    let mut last = None;
    for maintenance in MAINTENANCE {
        let door = Door { run_dir: run_dir.to_owned(), major, user: user.to_owned(), maintenance };
        let found = runtime.block_on(async {
            let client = door.open_maintenance().await?;
            client.query_one("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[]).await
        });
        match found {
            Ok(row) => return Ok(row.get::<_, bool>(0).then_some(door)),
            Err(error) => match error.code() {
                // Not there, may not log in, or may not set what a superuser may.
                Some(code)
                    if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                        || *code == SqlState::INSUFFICIENT_PRIVILEGE =>
                {
                    return Ok(None);
                }
                _ => last = Some(error),
            },
        }
    }
    match last {
        Some(error) => Err(judge(&error, "the recovered server lets nobody in")),
        None => Ok(None),
    }
}

/// Whether an error is the host's fault or the backup's.
pub(crate) fn is_hosts_fault(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else { return false };
    let missing =
        [SqlState::UNDEFINED_FILE, SqlState::SYSTEM_ERROR, SqlState::FEATURE_NOT_SUPPORTED].contains(db.code());
    let short = [SqlState::OUT_OF_MEMORY, SqlState::DISK_FULL, SqlState::INSUFFICIENT_RESOURCES].contains(db.code());
    let words = db.message();
    (missing && (words.contains("could not access file") || words.contains("could not load library")))
        || short
        // A locale that this host does not have.
        || words.contains("incompatible with operating system")
        || words.contains("is not supported by this build")
}

/// Makes a halt of an error of a session.
pub(crate) fn judge(error: &tokio_postgres::Error, what: &str) -> Halt {
    let reason = format!("{what}: {}", explain(error));
    if is_hosts_fault(error) { Halt::not_proven(reason) } else { Halt::failed(reason) }
}

/// An error with what lies behind it: tokio-postgres says only "db error" itself.
pub(crate) fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map_or(String::new(), |detail| format!(" ({detail})"));
            format!("{}{detail} [{}]", db.message(), db.code().code())
        }
        None => {
            let source = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
            format!("{error}{source}")
        }
    }
}
