//! A server that lets people in over the network only, and only encrypted: backed up by BASE_BACKUP, restored, guarded.

use std::{fs, os::unix::fs::PermissionsExt as _};

use pg_connect::{Host, Sql, SslMode, Target};
use scratch::{
    ScratchCluster,
    certificates::{Certificates, TurnedOn},
};

use crate::harness::{Guard, Place, cluster, said};

const PASSWORD: &str = "a password of the network";

async fn ask(target: &Target, text: &str) -> String {
    let (client, connection) = Sql::new(target.clone()).unwrap().connect().await.unwrap();
    tokio::spawn(connection);
    let row = client.query_opt(text, &[]).await.unwrap();
    row.map(|row| row.get::<_, String>(0)).unwrap_or_default()
}

/// A cluster whose role `keeper` may back up and look, if it comes encrypted and with its password.
async fn hostssl_only(certificates: &Certificates) -> Option<(ScratchCluster, Target)> {
    let mut cluster = cluster(&[])?;
    let socket = Host::Unix(cluster.socket_dir(), cluster.tcp_port());
    let local = Target { dbname: Some("postgres".to_owned()), ..Target::new(socket, "postgres") };
    for statement in [
        &format!("CREATE ROLE keeper LOGIN REPLICATION PASSWORD '{PASSWORD}'"),
        "GRANT pg_monitor TO keeper",
        "CREATE TABLE people AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g",
    ] {
        ask(&local, statement).await;
    }
    let hba = "local all postgres trust\nhostssl all,replication keeper all scram-sha-256\n";
    fs::write(cluster.data_dir().join("pg_hba.conf"), hba).unwrap();
    match certificates.turn_on_tls(&mut cluster).unwrap() {
        TurnedOn::Yes => Some((cluster, local)),
        TurnedOn::No { log } => {
            println!("skipped: this server is not built with TLS: {log}");
            None
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_only_tls_is_backed_up_and_guarded() {
    let certificates = Certificates::make().unwrap();
    let Some((cluster, local)) = hostssl_only(&certificates).await else { return };
    let place = Place::new();
    let passfile = place.secret("pass", &format!("localhost:*:*:keeper:{PASSWORD}\n"));
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let url = |mode: SslMode, binding: &str| {
        format!(
            "postgresql://keeper@localhost:{}/postgres?sslmode={}&channel_binding={binding}&sslrootcert={}&passfile={}",
            cluster.tcp_port(),
            mode.as_str(),
            certificates.path("ours.crt").display(),
            passfile.display(),
        )
    };
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let declare = |mode, binding| {
        let more = format!(
            "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n[backup]\nsource = \"base_backup\"\n",
            repository.display(),
        );
        place.configure(&url(mode, binding), &more)
    };
    declare(SslMode::VerifyFull, "require");
    place.json(&["backup", "init"]);
    let made = place.json(&["backup", "create"]);
    assert_eq!(made["corrupt_pages_count"], 0, "{made}");
    let listed = place.json(&["backup", "list"]);
    assert_eq!(listed["backups"][0]["source"], "base_backup", "{listed}");
    // Counting the objects needs a session of SQL in each database.
    let shown = place.json(&["backup", "show"]);
    let counted = &shown["backup"]["info"]["censuses"][0]["databases"]["postgres"];
    assert_eq!(counted["counted"], true, "{shown}");

    let pgdata = place.path().join("restored");
    let restored = place.json(&["restore", "--pgdata", pgdata.to_str().unwrap()]);
    assert!(pgdata.join("backup_manifest").exists(), "{restored}");

    let guard = Guard::start(&place);
    place.await_status("a reading", |status| !status["activity"].is_null());
    let encrypted = "SELECT count(*)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE ssl AND usename = 'keeper' AND application_name LIKE 'oxpecker%'";
    assert_ne!(ask(&local, encrypted).await, "0");
    assert!(guard.stop().success(), "{}", place.log());

    // The server refuses who comes without; nothing falls back to that silently.
    declare(SslMode::Disable, "prefer");
    let refused = place.ask(&["backup", "create"]);
    let text = said(&refused);
    assert!(refused.status.code() == Some(4) && text.contains("pg_hba.conf") && !text.contains(PASSWORD), "{text}");
}
