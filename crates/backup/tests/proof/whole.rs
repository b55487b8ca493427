//! Sound backups are proven, with a receipt that says how.

use backup::proof::{CheckName, Outcome, ProofQuery, Receipt, Verdict};

use scratch::Installation;

use crate::source::Source;

fn outcome(receipt: &Receipt, name: CheckName) -> Outcome {
    receipt.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name:?}: {receipt:#?}")).outcome
}

fn query(sql: &str, expect: Option<&str>) -> ProofQuery {
    ProofQuery { database: "app".into(), sql: sql.into(), expect: expect.map(str::to_owned) }
}

fn a_sound_backup_is_proven(installation: &Installation) {
    let source = Source::start(installation, &[]);
    source.execute("CREATE DATABASE app");
    let app = source.client("app");
    source.sql(
        &app,
        "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 10000) i; \
         CREATE INDEX ON users (name)",
    );
    let backup = source.back_up(|source| {
        source.sql(&app, "DELETE FROM users WHERE id > 9000");
        source.sql(&app, "CREATE TABLE late (id int)");
    });
    let mut options = source.options();
    options.queries = vec![
        query("SELECT count(*), min(id) FROM users", Some("9000|1")),
        query("SELECT FROM late", None),
        query("SELECT id FROM users ORDER BY id LIMIT 2", Some("1\n2\n")),
    ];
    let receipt = source.prove(&backup, &options);
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert!(receipt.reasons.is_empty() && receipt.recovery_time_ms.is_some(), "{receipt:#?}");
    let cluster = receipt.cluster.as_ref().unwrap();
    assert_eq!(cluster.major, source.major());
    assert_eq!(cluster.system_id, source.text("SELECT system_identifier::text FROM pg_control_system()"));
    assert!(
        cluster.stop_lsn.unwrap() > cluster.start_lsn && cluster.reached_lsn.unwrap() > cluster.start_lsn,
        "{cluster:?}"
    );
    assert_eq!(outcome(&receipt, CheckName::PageChecksums), Outcome::Passed);
    assert_eq!(outcome(&receipt, CheckName::Indexes), Outcome::Passed, "{receipt:#?}");
    // amcheck looks at tables from 14 on, and the receipt says so.
    let tables = if source.major() >= 14 { Outcome::Passed } else { Outcome::NotChecked };
    assert_eq!(outcome(&receipt, CheckName::Tables), tables, "{receipt:#?}");
    assert_eq!(outcome(&receipt, CheckName::Objects), Outcome::NotChecked);
    assert!(receipt.queries.iter().all(|query| query.outcome == Outcome::Passed), "{:#?}", receipt.queries);
    let json = serde_json::to_string(&receipt).unwrap();
    assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), receipt);
}

on_each!(a_sound_backup_is_proven);
