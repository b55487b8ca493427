//! What goes wrong is named.

use std::fs;

use pg_replication::{BaseBackupOptions, Connection, Error, Event};

use crate::{builder, login::hba, socket, sql, tcp};

pub fn are_named(major: u32) {
    let Some(builder) = builder(major) else { return };
    let mut cluster = builder.initdb_args(["--data-checksums"]).start().unwrap();
    sql(
        &cluster,
        &[
            "create role weak login password 'x'",
            "create role strong login replication password 'x'",
            "create table t as select i, repeat('x', 1000) as x from generate_series(1, 60000) i",
            "checkpoint",
        ],
    );

    // Not in pg_hba.conf, and not permitted.
    hba(&cluster, "host replication weak all md5\nlocal replication weak trust\n");
    let error = Connection::open(&tcp(&cluster, "strong", "x")).err().unwrap();
    assert!(error.to_string().contains("hint: pg_hba.conf needs a line"), "{error}");
    let weak = Connection::open(&pg_replication::Target { user: "weak".to_owned(), ..socket(&cluster) });
    let error = weak.err().unwrap().to_string();
    assert!(error.contains("REPLICATION"), "{error}");
    let error = Connection::open(&tcp(&cluster, "nobody", "x")).err().unwrap();
    assert!(matches!(&error, Error::Server { error, .. } if error.code == "28000"), "{error}");

    // A backup that is given up leaves the server in order.
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let mut backup = connection.base_backup(&BaseBackupOptions::new("given up")).unwrap();
    assert!(backup.next().unwrap().is_some());
    let unfinished = backup.finish().unwrap_err();
    assert!(matches!(unfinished, Error::Protocol { .. }), "{unfinished}");
    drop(connection);

    // A corrupt page: the server sends all of it and fails at the end.
    let path = cluster.data_dir().join(sql(&cluster, &["select pg_relation_filepath('t')"]));
    let sound = fs::read(&path).unwrap();
    let mut bytes = sound.clone();
    bytes[8192 * 3 + 5000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let mut backup = connection.base_backup(&BaseBackupOptions::new("corrupt")).unwrap();
    let error = loop {
        match backup.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the corrupt page was not found"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, Error::Server { error, .. } if error.code == "XX001"), "{error:?}");
    drop(connection);
    let unchecked = BaseBackupOptions { verify_checksums: false, ..BaseBackupOptions::new("corrupt, wanted") };
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let mut backup = connection.base_backup(&unchecked).unwrap();
    while backup.next().unwrap().is_some() {}
    backup.finish().unwrap();
    drop(connection);
    fs::write(&path, &sound).unwrap();

    // The server dies in the midst.
    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    let slow = BaseBackupOptions { max_rate_kib: Some(2048), ..BaseBackupOptions::new("cut off") };
    let mut backup = connection.base_backup(&slow).unwrap();
    while !matches!(backup.next().unwrap(), Some(Event::Data(_))) {}
    cluster.kill9().unwrap();
    let error = loop {
        match backup.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the end was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(error.is_passing(), "{error:?}");
    assert!(backup.finish().is_err());
    let error = Connection::open(&socket(&cluster)).err().unwrap();
    assert!(error.is_passing(), "{error:?}");
}
