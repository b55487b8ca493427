//! Sessions of SQL with a real server: what of its certificate each mode checks, and where the password comes from.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use pg_connect::{ChannelBinding, Host, Sql, SslMode, Target, explained};
use scratch::{
    ScratchCluster,
    certificates::{Certificates, TurnedOn},
};

const PASSWORD: &str = "pass:w\\ord ü";

/// Opens a session; whether it is encrypted, as the server sees it.
async fn is_encrypted(target: &Target) -> Result<bool, String> {
    let sql = Sql::new(target.clone()).map_err(|error| error.to_string())?;
    let (client, connection) = sql.connect().await.map_err(|error| explained(&error))?;
    let connection = tokio::spawn(connection);
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let row = client.query_one(encrypted, &[]).await.map_err(|error| explained(&error))?;
    drop(client);
    connection.await.unwrap().unwrap();
    Ok(row.get(0))
}

async fn refused(target: &Target) -> String {
    let error = is_encrypted(target).await.expect_err("it was let in");
    assert!(!error.contains(PASSWORD), "{error}");
    error
}

/// A role that only comes in encrypted, whose password is checked by SCRAM.
async fn with_tls(certificates: &Certificates) -> Option<ScratchCluster> {
    let installation = scratch::newest_installation().unwrap();
    let mut cluster = ScratchCluster::builder(&installation).start().unwrap();
    let local = Target::new(Host::Unix(cluster.socket_dir(), cluster.tcp_port()), "postgres");
    let (client, connection) = Sql::new(local).unwrap().connect().await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("create role app login password '{PASSWORD}'")).await.unwrap();
    drop(client);
    let hba = "local all postgres trust\nhostssl all app all scram-sha-256\n";
    fs::write(cluster.data_dir().join("pg_hba.conf"), hba).unwrap();
    match certificates.turn_on_tls(&mut cluster).unwrap() {
        TurnedOn::Yes => Some(cluster),
        TurnedOn::No { log } => {
            println!("skipped: this server is not built with TLS: {log}");
            None
        }
    }
}

fn target(cluster: &ScratchCluster, certificates: &Certificates) -> Target {
    Target {
        dbname: Some("postgres".to_owned()),
        password: Some(PASSWORD.to_owned()),
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: Some(certificates.path("ours.crt")),
        ..Target::new(Host::Tcp("localhost".to_owned(), cluster.tcp_port()), "app")
    }
}

#[tokio::test]
async fn each_mode_checks_what_it_says() {
    let certificates = Certificates::make().unwrap();
    let Some(cluster) = with_tls(&certificates).await else { return };
    let full = target(&cluster, &certificates);
    assert_eq!(is_encrypted(&full).await, Ok(true));
    // Only the server that has the certificate can answer this.
    assert_eq!(is_encrypted(&Target { channel_binding: ChannelBinding::Require, ..full.clone() }).await, Ok(true));
    let text = Sql::parse(&full.connection_string()).unwrap();
    assert_eq!(text.target(), &full);

    // By its address the certificate does not name it.
    let by_address = Target { hosts: vec![Host::Tcp("127.0.0.1".to_owned(), cluster.tcp_port())], ..full.clone() };
    let name = refused(&by_address).await;
    assert!(name.contains("hint: connect by a name"), "{name}");
    assert_eq!(is_encrypted(&Target { ssl_mode: SslMode::VerifyCa, ..by_address.clone() }).await, Ok(true));
    for ssl_mode in [SslMode::VerifyCa, SslMode::VerifyFull, SslMode::Require] {
        let other = Some(certificates.path("other.crt"));
        let stranger = refused(&Target { ssl_mode, ssl_root_cert: other, ..full.clone() }).await;
        assert!(stranger.contains("hint: give the root certificate"), "{stranger}");
    }
    for ssl_mode in [SslMode::Require, SslMode::Prefer] {
        assert_eq!(is_encrypted(&Target { ssl_mode, ssl_root_cert: None, ..by_address.clone() }).await, Ok(true));
    }
    let plain = refused(&Target { ssl_mode: SslMode::Disable, ..full.clone() }).await;
    assert!(plain.contains("pg_hba.conf"), "{plain}");
    let missing = refused(&Target { ssl_root_cert: Some(certificates.path("absent.crt")), ..full }).await;
    assert!(missing.contains("absent.crt") && missing.contains("hint: "), "{missing}");
}

/// The server speaks no TLS over its socket, and nobody needs it there.
#[tokio::test]
async fn a_socket_has_no_tls_and_needs_none() {
    let installation = scratch::newest_installation().unwrap();
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    for ssl_mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyFull] {
        let socket = Host::Unix(cluster.socket_dir(), cluster.tcp_port());
        let target = Target { ssl_mode, ..Target::new(socket, "postgres") };
        assert_eq!(is_encrypted(&target).await, Ok(false));
    }
    let loopback = Host::Tcp("localhost".to_owned(), cluster.tcp_port());
    let prefer = Target { dbname: Some("postgres".to_owned()), ..Target::new(loopback, "postgres") };
    assert_eq!(is_encrypted(&prefer).await, Ok(false));
    let required = refused(&Target { ssl_mode: SslMode::Require, ..prefer }).await;
    assert!(required.contains("does not support TLS"), "{required}");
}

#[tokio::test]
async fn the_password_comes_from_the_file_and_options_are_set() {
    let certificates = Certificates::make().unwrap();
    let Some(cluster) = with_tls(&certificates).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let passfile = dir.path().join("pass");
    let line = format!("localhost:{}:postgres:app:{}\n", cluster.tcp_port(), "pass\\:w\\\\ord ü");
    fs::write(&passfile, line).unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = Target {
        password: None,
        passfile: Some(passfile.clone()),
        options: Some("-c work_mem=123kB".to_owned()),
        ..target(&cluster, &certificates)
    };
    let (client, connection) = Sql::new(by_file.clone()).unwrap().connect().await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("select current_setting('work_mem'), current_user::text", &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("123kB", "app"));

    let elsewhere = Target { dbname: Some("template1".to_owned()), ..by_file.clone() };
    let none = refused(&elsewhere).await;
    assert!(none.contains("password"), "{none}");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o644)).unwrap();
    let open = refused(&by_file).await;
    assert!(open.contains("chmod 0600"), "{open}");
}
