//! Passwords, TLS, and what of it each mode checks.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use model::Lsn;
use pg_replication::{ChannelBinding, Connection, Error, Host, SslMode, StreamEnd, StreamOptions, Target, WalEvent};
use scratch::{
    ScratchCluster,
    certificates::{Certificates, TurnedOn},
};

use crate::{builder, sql, tcp};

pub fn hba(cluster: &ScratchCluster, lines: &str) {
    let path = cluster.data_dir().join("pg_hba.conf");
    fs::write(&path, format!("local all postgres trust\nlocal replication postgres trust\n{lines}")).unwrap();
    sql(cluster, &["select pg_reload_conf()", "select pg_sleep(0.2)"]);
}

/// The testbed's servers may be built without TLS.
fn start_with_tls(major: u32, certificates: &Certificates) -> Option<(ScratchCluster, bool)> {
    let mut cluster = builder(major)?.start().unwrap();
    sql(
        &cluster,
        &[
            "set password_encryption = 'scram-sha-256'",
            "create role scram login replication password 'pass:w\\ord ü'",
            "create role plain login replication password 'plain'",
            "create role certified login replication",
        ],
    );
    sql(&cluster, &["set password_encryption = 'md5'", "create role md5 login replication password 'old'"]);
    match certificates.turn_on_tls(&mut cluster).unwrap() {
        TurnedOn::Yes => Some((cluster, true)),
        TurnedOn::No { log } => {
            println!("skipped: TLS, with which this server is not built: {log}");
            Some((cluster, false))
        }
    }
}

fn refused(target: &Target) -> Error {
    Connection::open(target).err().unwrap_or_else(|| panic!("{target:?} was let in"))
}

pub fn works(major: u32) {
    let certificates = Certificates::make().unwrap();
    let Some((cluster, has_tls)) = start_with_tls(major, &certificates) else { return };
    hba(
        &cluster,
        "host replication scram all scram-sha-256\nhost replication md5 all md5\nhost replication plain all password\n",
    );
    without_tls(&cluster, certificates.dir());
    if has_tls {
        with_tls(&cluster, &certificates);
    }
}

fn without_tls(cluster: &ScratchCluster, dir: &Path) {
    let scram = tcp(cluster, "scram", "pass:w\\ord ü");
    assert_eq!(Connection::open(&scram).unwrap().identify_system().unwrap().timeline, 1);
    assert_eq!(Connection::open(&tcp(cluster, "md5", "old")).unwrap().identify_system().unwrap().timeline, 1);

    let wrong = refused(&tcp(cluster, "scram", "secret"));
    assert!(matches!(&wrong, Error::Server { error, .. } if error.code == "28P01"), "{wrong:?}");
    let text = wrong.to_string();
    assert!(text.contains("hint: the password is wrong") && !text.contains("secret") && !wrong.is_passing(), "{text}");
    let clear = refused(&tcp(cluster, "plain", "plain")).to_string();
    assert!(clear.contains("in clear"), "{clear}");
    let bound = refused(&Target { channel_binding: ChannelBinding::Require, ..scram.clone() }).to_string();
    assert!(bound.contains("channel binding"), "{bound}");

    let passfile = dir.join("pass");
    fs::write(&passfile, format!("localhost:{}:replication:scram:pass\\:w\\\\ord ü\n", cluster.tcp_port())).unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = Target { password: None, passfile: Some(passfile), ..scram.clone() };
    Connection::open(&by_file).unwrap();
    let none = refused(&Target { user: "md5".to_owned(), ..by_file });
    assert!(none.to_string().contains("there is none"), "{none}");

    // The first host is not there: the next one is tried.
    let absent = Host::Unix(dir.join("absent"), 1);
    let hosts = vec![absent.clone(), scram.hosts[0].clone()];
    Connection::open(&Target { hosts, ..scram.clone() }).unwrap();
    let nobody = refused(&Target { hosts: vec![absent], ..scram });
    assert!(matches!(nobody, Error::Connect { .. }) && nobody.is_passing(), "{nobody}");
}

/// TLS is one state for both directions: statuses go out while WAL comes in, as many as possible.
fn streams(connection: &mut Connection, cluster: &ScratchCluster) {
    let segment = connection.wal_segment_size().unwrap();
    let start = Lsn(connection.identify_system().unwrap().flushed.0 / segment * segment);
    let options = StreamOptions { status_interval: Duration::ZERO, ..StreamOptions::new(start, 1) };
    let mut stream = connection.stream_wal(&options).unwrap();
    let status = stream.status();
    let heartbeat = status.heartbeat(Duration::from_secs(60)).unwrap();
    sql(cluster, &["create table wide as select repeat(md5(i::text), 30) as x from generate_series(1, 8000) i"]);
    let end: Lsn = sql(cluster, &["select pg_current_wal_flush_lsn()"]).parse().unwrap();
    let mut received = Vec::new();
    while stream.received() < end {
        if let WalEvent::Wal { bytes, .. } = stream.next(Duration::from_secs(60)).unwrap() {
            received.extend(bytes);
            assert!(status.flushed(Lsn(start.0 + received.len() as u64)).unwrap());
        }
    }
    drop(heartbeat);
    assert_eq!(stream.finish().unwrap(), StreamEnd::Finished);
    let file = cluster.data_dir().join(format!("pg_wal/{:08X}{:08X}{:08X}", 1, 0, start.0 / segment));
    let file = fs::read(file).unwrap();
    let first = received.len().min(file.len());
    assert!(first > 5 << 20 && file[..first] == received[..first]);
    assert_eq!(connection.identify_system().unwrap().timeline, 1);
}

fn with_tls(cluster: &ScratchCluster, certificates: &Certificates) {
    let ours = Some(certificates.path("ours.crt"));
    let other = Some(certificates.path("other.crt"));
    let full = Target {
        ssl_mode: SslMode::VerifyFull,
        ssl_root_cert: ours,
        channel_binding: ChannelBinding::Require,
        ..tcp(cluster, "scram", "pass:w\\ord ü")
    };
    let mut connection = Connection::open(&full).unwrap();
    assert!(connection.is_tls());
    assert_eq!(connection.identify_system().unwrap().timeline, 1);
    streams(&mut connection, cluster);

    // By its address the certificate does not name it.
    let by_address = Target { hosts: vec![Host::Tcp("127.0.0.1".to_owned(), cluster.tcp_port())], ..full.clone() };
    let name = refused(&by_address);
    assert!(matches!(&name, Error::Tls { hint, .. } if hint.contains("name")), "{name}");
    assert!(Connection::open(&Target { ssl_mode: SslMode::VerifyCa, ..by_address.clone() }).unwrap().is_tls());
    for ssl_mode in [SslMode::VerifyCa, SslMode::VerifyFull, SslMode::Require] {
        let stranger = refused(&Target { ssl_mode, ssl_root_cert: other.clone(), ..full.clone() });
        assert!(matches!(&stranger, Error::Tls { hint, .. } if hint.contains("sslrootcert")), "{stranger}");
    }
    let system = refused(&Target { ssl_root_cert: None, ..full.clone() });
    assert!(matches!(system, Error::Tls { .. } | Error::File { .. }), "{system}");
    for ssl_mode in [SslMode::Require, SslMode::Prefer] {
        assert!(Connection::open(&Target { ssl_mode, ssl_root_cert: None, ..by_address.clone() }).unwrap().is_tls());
    }
    // Over TLS a password in clear is the server's business; a certificate stands for one.
    let plain = Target { channel_binding: ChannelBinding::Prefer, ..full.clone() };
    Connection::open(&Target { user: "plain".to_owned(), password: Some("plain".to_owned()), ..plain.clone() })
        .unwrap();
    hba(cluster, "hostssl replication certified all cert\nhostssl replication scram all scram-sha-256\n");
    let certified = Target {
        user: "certified".to_owned(),
        password: None,
        ssl_cert: Some(certificates.path("client.crt")),
        ssl_key: Some(certificates.path("client.key")),
        ..plain.clone()
    };
    Connection::open(&certified).unwrap();
    refused(&Target { ssl_cert: None, ssl_key: None, ..certified });
    let unencrypted = refused(&Target { ssl_mode: SslMode::Disable, ..plain });
    assert!(unencrypted.to_string().contains("pg_hba.conf needs a line"), "{unencrypted}");
    let missing = refused(&Target { ssl_root_cert: Some(certificates.path("absent.crt")), ..full });
    assert!(matches!(missing, Error::File { .. }), "{missing}");
}
